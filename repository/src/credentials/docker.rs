//! Docker's `config.json`: credentials by host and path, and the programs that keep them elsewhere.
//!
//! A request gets, in this order: the answer of its host's `credHelpers` program; the entry of `auths` with the same host and
//! port and the longest path that is the start of the request's; the answer of the `credsStore` program. An entry
//! without a port is for the scheme's own port, as `docker login` writes it.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ocm_content::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::helper::Helpers;
use super::{Considered, Credential, CredentialSource, Identity, Secret};

/// The key under which Docker keeps the credentials of Docker Hub.
pub(super) const HUB: &str = "https://index.docker.io/v1/";
/// A Docker configuration, read.
#[derive(Debug)]
pub struct DockerConfig {
    entries: Vec<Entry>,
    host_helpers: BTreeMap<String, String>,
    store: Option<String>,
    helpers: Helpers,
    name: String,
}

struct Entry {
    /// As it is written.
    key: String,
    /// `host[:port]`.
    authority: String,
    /// Segments below it.
    path: Vec<String>,
    credential: Credential,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.authority, self.path.join("/"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Auth>>>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl DockerConfig {
    /// Reads a document. Programs are found and run by what `helpers` says.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] with the key that is malformed, never with its value.
    pub fn parse(document: &Value, helpers: Helpers) -> Result<Self> {
        let document: Document = serde_json::from_value(document.clone())
            .map_err(|_| Error::invalid("a Docker configuration: it is not what Docker writes"))?;
        let mut entries = Vec::new();
        for (key, auth) in document.auths.unwrap_or_default() {
            let credential = auth.unwrap_or_default().credential();
            let credential = credential.map_err(|error| {
                error.context(format!(
                    "a Docker configuration: auths: `{}`",
                    key.escape_debug()
                ))
            })?;
            // An empty entry says that a program has it.
            if let Some(credential) = credential {
                let (authority, path) = place(&key);
                entries.push(Entry {
                    key,
                    authority,
                    path,
                    credential,
                });
            }
        }
        let host_helpers = document.cred_helpers.unwrap_or_default();
        Ok(Self {
            entries,
            host_helpers: host_helpers
                .into_iter()
                .map(|(key, helper)| (place(&key).0, helper))
                .collect(),
            store: document.creds_store.filter(|name| !name.is_empty()),
            helpers,
            name: "Docker configuration".to_owned(),
        })
    }

    /// The same under a name for people: the file it is from.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    fn entry(&self, authority: &str, path: &str) -> Option<&Entry> {
        let path: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let fitting = self.entries.iter().filter(|entry| {
            entry.authority == authority
                && entry.path.len() <= path.len()
                && entry.path.iter().zip(&path).all(|(a, b)| a == b)
        });
        fitting.max_by_key(|entry| entry.path.len())
    }
}

#[async_trait]
impl CredentialSource for DockerConfig {
    async fn credential(&self, request: &Identity) -> Result<Option<Credential>> {
        // Docker's documents are about registries; other servers on the same host get nothing from them.
        if request.kind() != "OCIRegistry" {
            return Ok(None);
        }
        let Some(authority) = authority(request) else {
            return Ok(None);
        };
        if let Some(helper) = self.host_helpers.get(&authority) {
            return self.helpers.ask(helper, &authority).await;
        }
        if let Some(found) = self.entry(&authority, request.get("path").unwrap_or_default()) {
            return Ok(Some(found.credential.clone()));
        }
        match &self.store {
            Some(store) => self.helpers.ask(store, &authority).await,
            None => Ok(None),
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    async fn explain(&self, request: &Identity) -> Vec<Considered> {
        let Some(authority) = authority(request) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let considered = |entry: String, used: bool, reason: String| Considered {
            place: self.name.clone(),
            entry,
            used,
            reason,
        };
        let said = |answer: &Result<Option<Credential>>| match answer {
            Ok(Some(credential)) => (true, format!("it has {}", credential.describe())),
            Ok(None) => (false, format!("it has nothing for {authority}")),
            Err(error) => (false, error.to_string()),
        };
        if let Some(helper) = self.host_helpers.get(&authority) {
            let (used, reason) = said(&self.helpers.ask(helper, &authority).await);
            all.push(considered(format!("credHelpers: {helper}"), used, reason));
            // Its answer decides, whatever it is.
            return all;
        }
        let path = request.get("path").unwrap_or_default();
        let best = self.entry(&authority, path);
        for entry in &self.entries {
            let is_best = best.is_some_and(|best| std::ptr::eq(best, entry));
            let reason = match is_best {
                true => format!("fits best: {}", entry.credential.describe()),
                false if entry.authority != authority => "another host or port".to_owned(),
                false if best.is_some() => "another entry fits better".to_owned(),
                false => "another path".to_owned(),
            };
            all.push(considered(format!("auths: {}", entry.key), is_best, reason));
        }
        if let Some(store) = self.store.as_ref().filter(|_| best.is_none()) {
            let (used, reason) = said(&self.helpers.ask(store, &authority).await);
            all.push(considered(format!("credsStore: {store}"), used, reason));
        }
        if all.is_empty() {
            all.push(considered(
                "all".to_owned(),
                false,
                "it has no entries".to_owned(),
            ));
        }
        all
    }
}

impl Auth {
    fn credential(self) -> Result<Option<Credential>> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Bearer(Secret::new(self.registrytoken))));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken(Secret::new(
                self.identitytoken,
            ))));
        }
        if !self.auth.trim().is_empty() {
            return decode(&self.auth).map(Some);
        }
        Ok((!self.username.is_empty()).then(|| Credential::basic(self.username, self.password)))
    }
}

fn decode(auth: &str) -> Result<Credential> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let malformed = || Error::invalid("`auth` is not the base64 of a user name and a password");
    let bytes = engine.decode(auth.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (username, password) = text.split_once(':').ok_or_else(malformed)?;
    Ok(Credential::basic(username, password.trim_end_matches('\0')))
}

/// Host and path of a key: with or without a scheme, and without the API's version that old entries have.
pub(super) fn place(key: &str) -> (String, Vec<String>) {
    let (scheme, rest) = key.split_once("://").unwrap_or(("", key));
    let mut segments = rest.split('/').filter(|segment| !segment.is_empty());
    let authority = segments.next().unwrap_or_default().to_ascii_lowercase();
    let port = if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        ":443"
    };
    let authority = authority
        .strip_suffix(port)
        .map_or(authority.clone(), str::to_owned);
    let path: Vec<String> = segments.map(str::to_owned).collect();
    let is_version = path.len() == 1 && matches!(path[0].as_str(), "v1" | "v2");
    (
        canonical(&authority),
        if is_version { Vec::new() } else { path },
    )
}

fn canonical(authority: &str) -> String {
    match authority {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        authority => authority.to_owned(),
    }
}

/// `host[:port]` of a request, without the scheme's own port.
fn authority(request: &Identity) -> Option<String> {
    let hostname = request.get("hostname")?.to_ascii_lowercase();
    let own = match request.get("scheme") {
        Some("http") => "80",
        _ => "443",
    };
    Some(match request.get("port").filter(|port| *port != own) {
        Some(port) => format!("{hostname}:{port}"),
        None => canonical(&hostname),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ocm_content::ErrorKind;
    use serde_json::json;

    use super::*;

    fn shown(credential: Option<Credential>) -> String {
        match credential {
            Some(Credential::Basic { username, password }) => {
                format!("{username}:{}", password.expose())
            }
            Some(Credential::Bearer(token)) => format!("bearer {}", token.expose()),
            Some(Credential::IdentityToken(token)) => format!("identity {}", token.expose()),
            None => "none".to_owned(),
        }
    }

    #[tokio::test]
    async fn entries_are_found_by_host_port_and_path() {
        let auth =
            |text: &str| json!({"auth": base64::engine::general_purpose::STANDARD.encode(text)});
        let document = json!({"auths": {
            "https://index.docker.io/v1/": auth("hub:pw"),
            "r.example": auth("r:p:w"),
            "r.example/acme": {"username": "acme", "password": "pw"},
            "https://R.example/acme/x/": auth("x:pw\u{0}"),
            "localhost:5000": auth("local:pw"),
            "token.example": {"auth": "", "identitytoken": "idt"},
            "reg.example": {"registrytoken": "rt"},
            "empty.example": {},
            "null.example": null,
        }});
        let config = DockerConfig::parse(&document, Helpers::default()).expect("a good document");
        for (scheme, hostname, port, path, expected) in [
            ("https", "docker.io", None, "library/x", "hub:pw"),
            ("https", "r.example", None, "other", "r:p:w"),
            ("https", "r.example", Some(443), "acme", "acme:pw"),
            ("https", "r.example", None, "acmes", "r:p:w"),
            ("https", "r.example", None, "acme/x/y", "x:pw"),
            ("https", "r.example", Some(5000), "acme", "none"),
            ("http", "localhost", Some(5000), "a", "local:pw"),
            ("http", "localhost", None, "a", "none"),
            ("https", "token.example", None, "a", "identity idt"),
            ("https", "reg.example", None, "a", "bearer rt"),
            ("https", "empty.example", None, "a", "none"),
            ("https", "null.example", None, "a", "none"),
        ] {
            let request = Identity::oci(scheme, hostname, port, path);
            let found = config.credential(&request).await.expect("a look");
            assert_eq!(shown(found), expected, "{request}");
        }
        assert!(!format!("{config:?}").contains("pw"));
    }

    #[test]
    fn a_malformed_document_is_told_without_its_secrets() {
        for (document, expected) in [
            (json!({"auths": []}), "it is not what Docker writes"),
            (
                json!({"auths": {"h": {"auth": "%%%secret"}}}),
                "`auth` is not the base64 of a user name and a password",
            ),
            (
                json!({"auths": {"h": {"auth": "c2VjcmV0"}}}),
                "`auth` is not the base64 of a user name and a password",
            ),
        ] {
            let error = DockerConfig::parse(&document, Helpers::default()).expect_err(expected);
            assert!(error.to_string().ends_with(expected), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn programs_are_asked_with_a_limit_on_time_and_output() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().expect("a temporary folder");
        let write_program = |name: &str, script: &str| {
            let path = folder.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write a script");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("make it a program");
        };
        for (name, script) in [
            (
                "good",
                r#"read -r server; echo "{\"Username\":\"u\",\"Secret\":\"$server $HOME_OF\"}""#,
            ),
            ("token", r#"echo '{"Username":"<token>","Secret":"t"}'"#),
            (
                "none",
                "echo credentials not found in native keychain; exit 1",
            ),
            ("broken", "echo locked; exit 1"),
            ("odd", "echo hello"),
            (
                "endless",
                "while :; do echo 0123456789012345678901234567890123456789; done",
            ),
            ("slow", "read -r a; read -r b < /dev/zero"),
        ] {
            write_program(name, script);
        }
        let helpers = |timeout| Helpers {
            folders: vec![folder.path().to_owned()],
            environment: BTreeMap::from([("HOME_OF".into(), "jo".into())]),
            timeout,
        };
        let hosts = [
            "good", "token", "none", "broken", "odd", "endless", "absent", "../evil",
        ];
        let by_host: BTreeMap<String, &str> = hosts
            .iter()
            .map(|name| (format!("{}.example", name.trim_start_matches("../")), *name))
            .collect();
        let document = json!({"credHelpers": by_host, "credsStore": "good"});
        let patient = helpers(Duration::from_secs(600));
        let config = DockerConfig::parse(&document, patient).expect("a good document");
        for (host, expected) in [
            ("good.example", "u:good.example jo"),
            ("token.example", "identity t"),
            ("none.example", "none"),
            ("broken.example", "it says: locked"),
            (
                "odd.example",
                "its answer is not what a credential helper says",
            ),
            ("endless.example", "its answer is larger than 1048576 bytes"),
            ("absent.example", "the program is not installed"),
            ("evil.example", "its name is not that of a program"),
            ("docker.io", "u:https://index.docker.io/v1/ jo"),
        ] {
            let found = match config
                .credential(&Identity::oci("https", host, None, ""))
                .await
            {
                Ok(found) => shown(found),
                Err(error) => error.to_string(),
            };
            assert!(found.ends_with(expected), "{host}: {found}");
        }
        let place = folder.path().join("kept");
        let keeper = format!(
            "case $1 in store) cat > '{0}' ;; erase) read -r a; test \"$a\" = r.example || {{ echo credentials not found in native keychain; exit 1; }}; rm '{0}' ;; esac",
            place.display()
        );
        let keeper = keeper.replace("\\\"", "\"");
        write_program("keeper", &keeper);
        let asked = helpers(Duration::from_secs(600));
        let secret = Secret::new("p\"w");
        let stored = asked.store("keeper", "r.example", "jo", &secret).await;
        stored.expect("it keeps");
        let kept = std::fs::read_to_string(&place).expect("it was told");
        assert_eq!(
            kept,
            r#"{"ServerURL":"r.example","Username":"jo","Secret":"p\"w"}"#
        );
        asked
            .erase("keeper", "r.example")
            .await
            .expect("it forgets");
        assert!(!place.exists());
        asked
            .erase("keeper", "s.example")
            .await
            .expect("it never knew");
        let error = asked.store("broken", "r.example", "jo", &secret).await;
        let error = error.expect_err("it refuses").to_string();
        assert!(
            error.ends_with("it says: locked") && !error.contains("p\"w"),
            "{error}"
        );
        let request = Identity::oci("https", "good.example", None, "a");
        let looked: Vec<String> = config
            .explain(&request)
            .await
            .iter()
            .map(|one| format!("{} {}: {}", one.used, one.entry, one.reason))
            .collect();
        assert_eq!(
            looked,
            ["true credHelpers: good: it has user `u` and password"]
        );
        let hasty = DockerConfig::parse(
            &json!({"credsStore": "slow"}),
            helpers(Duration::from_millis(50)),
        );
        let request = Identity::oci("https", "h", None, "");
        let error = hasty
            .expect("a good document")
            .credential(&request)
            .await
            .expect_err("too slow");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
