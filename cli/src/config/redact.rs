//! A configuration without its secrets.
//!
//! *Invariant*: in entries about credentials everything is secret that is not known to be harmless; in others, what is named
//! or looks like a secret. Better a star too many.

use ocm_specs::config::ConfigEntry;
use serde_json::{Map, Value as Json};
use url::Url;

/// What stands for a secret.
const STARS: &str = "***";
/// Fields of credentials that are harmless: names, places and types. Files are, too: they are named, not read.
const HARMLESS: [&str; 12] = [
    "type",
    "username",
    "hostname",
    "host",
    "scheme",
    "port",
    "path",
    "pathprefix",
    "serverURL",
    "namespace",
    "credentialsName",
    "propagateConsumerIdentity",
];
/// Parts of names of fields that hold secrets, in lower case.
const SECRET: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "token",
    "secret",
    "credential",
    "privatekey",
    "private_key",
    "accesskey",
    "auth",
];

/// An entry as it may be shown.
pub(super) fn entry(entry: &ConfigEntry<'_>) -> Json {
    let mut value = entry.value.clone();
    match entry.kind.contains("credentials") {
        true => credentials(&mut value, "", false),
        false => others(&mut value, ""),
    }
    value
}

/// `open` below identities, which say whom something is for.
fn credentials(value: &mut Json, name: &str, open: bool) {
    match value {
        Json::Object(map) => each(map, |name, value| {
            let open = open || matches!(name, "identity" | "identities" | "consumerId");
            credentials(value, name, open);
        }),
        Json::Array(list) => list
            .iter_mut()
            .for_each(|value| credentials(value, name, open)),
        Json::Null => {}
        Json::String(text) if open || HARMLESS.contains(&name) || is_file(name) => {
            *value = Json::String(harmless(text));
        }
        _ if open || HARMLESS.contains(&name) => {}
        value => *value = STARS.into(),
    }
}

fn others(value: &mut Json, name: &str) {
    match value {
        Json::Object(map) => each(map, |name, value| match name {
            // v1's keys: a path, or the key itself.
            "stringdata" | "data" | "rawdata" => *value = STARS.into(),
            _ => others(value, name),
        }),
        Json::Array(list) => list.iter_mut().for_each(|value| others(value, name)),
        Json::String(text) => {
            let text = match is_secret(name) {
                true => STARS.to_owned(),
                false => harmless(text),
            };
            *value = Json::String(text);
        }
        Json::Number(_) if is_secret(name) => *value = STARS.into(),
        _ => {}
    }
}

fn each(map: &mut Map<String, Json>, mut change: impl FnMut(&str, &mut Json)) {
    for (name, value) in map {
        change(name, value);
    }
}

fn is_file(name: &str) -> bool {
    name.ends_with("File") || name.ends_with("_file")
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !is_file(&name) && !name.ends_with("file") && SECRET.iter().any(|part| name.contains(part))
}

/// A text without the secrets that texts may hold: keys in PEM, passwords and signatures in URLs, documents in texts.
fn harmless(text: &str) -> String {
    if text.contains("PRIVATE KEY-----") {
        return STARS.to_owned();
    }
    if let Ok(mut inner @ (Json::Object(_) | Json::Array(_))) = serde_json::from_str(text) {
        others(&mut inner, "");
        return inner.to_string();
    }
    let Ok(mut url) = Url::parse(text) else {
        return match text.split_once('@') {
            // `user:password@host` without a scheme is no URL.
            Some((user, host)) if user.contains(':') && !user.contains('/') => {
                format!("{STARS}@{host}")
            }
            _ => text.to_owned(),
        };
    };
    if url.cannot_be_a_base() {
        return match text.split_once('@') {
            Some((_, host)) => format!("{STARS}@{host}"),
            None => text.to_owned(),
        };
    }
    let (has_user, has_query) = (
        !url.username().is_empty() || url.password().is_some(),
        url.query().is_some(),
    );
    if !has_user && !has_query {
        return text.to_owned();
    }
    if has_user {
        // Schemes without a host have no user either.
        let _ = url.set_username(STARS);
        let _ = url.set_password(None);
    }
    if has_query {
        url.set_query(Some(STARS));
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(kind: &str, value: Json, expected: Json) {
        let shown = entry(&ConfigEntry {
            kind,
            version: None,
            value: &value,
            at: String::new(),
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn credentials_show_whom_they_are_for() {
        check(
            "credentials.config.ocm.software",
            json!({"type": "t", "consumers": [{
                "identity": {"type": "OCIRegistry", "hostname": "h", "signature": "s", "port": 5},
                "credentials": [
                    {"type": "Credentials/v1", "properties": {"username": "u", "password": 5, "odd": "x", "private_key_pem_file": "k.pem"}},
                    {"type": "OCICredentials/v1", "accessToken": "x", "certFile": "c"},
                ]}],
                "repositories": [{"repository": {"type": "DockerConfig/v1", "dockerConfigFile": "~/f", "dockerConfig": {"auths": {"h": {"auth": "x"}}}}},
                    {"repository": {"type": "HashiCorpVault", "serverURL": "https://u:x@v/?t=x", "other": true}}]}),
            json!({"type": "t", "consumers": [{
                "identity": {"type": "OCIRegistry", "hostname": "h", "signature": "s", "port": 5},
                "credentials": [
                    {"type": "Credentials/v1", "properties": {"username": "u", "password": "***", "odd": "***", "private_key_pem_file": "k.pem"}},
                    {"type": "OCICredentials/v1", "accessToken": "***", "certFile": "c"},
                ]}],
                "repositories": [{"repository": {"type": "DockerConfig/v1", "dockerConfigFile": "~/f", "dockerConfig": {"auths": {"h": {"auth": "***"}}}}},
                    {"repository": {"type": "HashiCorpVault", "serverURL": "https://***@v/?***", "other": "***"}}]}),
        );
    }

    #[test]
    fn other_entries_lose_what_looks_secret() {
        check(
            "keys.config.ocm.software",
            json!({"privateKeys": {"a": {"stringdata": "x"}, "b": {"path": "p"}}, "publicKeys": {"a": {"data": "x"}}}),
            json!({"privateKeys": {"a": {"stringdata": "***"}, "b": {"path": "p"}}, "publicKeys": {"a": {"data": "***"}}}),
        );
        check(
            "x",
            json!({"apiToken": "x", "tokenFile": "f", "n": {"myPassword": 5, "list": ["https://h/p?sig=x", "a", 7, "user:x@h"]},
                "pem": "-----BEGIN RSA PRIVATE KEY-----x", "u": "http://jo:x@h:5/", "json": "{\"secret\":\"x\"}", "plain": "acme.org/x:1"}),
            json!({"apiToken": "***", "tokenFile": "f", "n": {"myPassword": "***", "list": ["https://h/p?***", "a", 7, "***@h"]},
                "pem": "***", "u": "http://***@h:5/", "json": "{\"secret\":\"***\"}", "plain": "acme.org/x:1"}),
        );
    }
}
