//! Docker's `config.json` as something that is changed: entries are set and removed, everything else stays as it is.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use ocm_content::{Error, Result};
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::Secret;
use super::docker::{HUB, place};

/// What credentials are kept for: `host[:port]`, perhaps with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    authority: String,
    path: Vec<String>,
}

impl Server {
    /// `host[:port]`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Is it a part of a registry only?
    pub fn has_path(&self) -> bool {
        !self.path.is_empty()
    }

    /// The key that Docker writes for it.
    fn key(&self) -> String {
        if self.path.is_empty() {
            return match self.authority.as_str() {
                "docker.io" => HUB.to_owned(),
                authority => authority.to_owned(),
            };
        }
        format!("{}/{}", self.authority, self.path.join("/"))
    }

    fn is(&self, key: &str) -> bool {
        let (authority, path) = place(key);
        authority == self.authority && path == self.path
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority)?;
        self.path.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

impl FromStr for Server {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (authority, path) = place(text);
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        if authority.is_empty() || !authority.chars().all(is_host) {
            return Err(Error::invalid("expected a registry's host[:port]"));
        }
        Ok(Self { authority, path })
    }
}

/// A `config.json`, with its keys in their order.
#[derive(Clone)]
pub struct DockerFile(Map<String, Value>);

impl fmt::Debug for DockerFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl DockerFile {
    /// Reads a file's text; nothing but blanks is a file without entries.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for what Docker could not read either.
    pub fn parse(text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self(Map::new()));
        }
        let wrong = |what: &str| Error::invalid(what);
        let document: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| wrong("it is no JSON object"))?;
        let auths = document.get("auths");
        if auths.is_some_and(|auths| !auths.is_object() && !auths.is_null()) {
            return Err(wrong("auths: expected an object"));
        }
        Ok(Self(document))
    }

    /// The program that keeps the credentials of `server`, where the file names one.
    pub fn helper(&self, server: &Server) -> Option<&str> {
        let own = self.0.get("credHelpers").and_then(Value::as_object);
        let own = own
            .into_iter()
            .flatten()
            .find(|(key, _)| place(key).0 == server.authority)
            .map(|(_, helper)| helper);
        let name = own.or_else(|| self.0.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then_some(name)
    }

    /// Keeps user name and password here.
    pub fn set(&mut self, server: &Server, username: &str, password: &Secret) {
        let text = format!("{username}:{}", password.expose());
        let auth = base64::engine::general_purpose::STANDARD.encode(text);
        self.put(server, json!({ "auth": auth }));
    }

    /// Notes that a program has the credentials.
    pub fn mark(&mut self, server: &Server) {
        self.put(server, json!({}));
    }

    /// Removes all entries of `server`. Was there one?
    pub fn remove(&mut self, server: &Server) -> bool {
        let Some(auths) = self.0.get_mut("auths").and_then(Value::as_object_mut) else {
            return false;
        };
        let before = auths.len();
        auths.retain(|key, _| !server.is(key));
        before > auths.len()
    }

    fn put(&mut self, server: &Server, entry: Value) {
        self.remove(server);
        let auths = self.0.entry("auths").or_insert(Value::Null);
        if !auths.is_object() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(server.key(), entry);
        }
    }

    /// The file's text, indented as Docker does.
    pub fn to_text(&self) -> String {
        let mut out = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
        self.0
            .serialize(&mut serializer)
            .expect("a JSON object can be written");
        String::from_utf8(out).expect("JSON is UTF-8") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Server {
        text.parse().expect(text)
    }

    #[test]
    fn entries_change_and_nothing_else_does() {
        let text = "{\n\t\"HttpHeaders\": {\n\t\t\"X\": \"1\"\n\t},\n\t\"auths\": {\n\t\t\"https://r.example/v2/\": {\n\t\t\t\"auth\": \"eA==\"\n\t\t},\n\t\t\"s.example\": {}\n\t},\n\t\"credHelpers\": {\n\t\t\"h.example\": \"own\"\n\t},\n\t\"a\": [\n\t\t1e400\n\t]\n}\n";
        let text = text.replace("1e400", "12345678901234567890");
        let mut file = DockerFile::parse(&text).expect("a good file");
        assert_eq!(file.to_text(), text);
        file.set(&server("R.example"), "jo", &Secret::new("p:w"));
        file.set(&server("docker.io"), "jo", &Secret::new("pw"));
        file.set(&server("r.example/acme/"), "jo", &Secret::new("pw"));
        file.mark(&server("http://l.example:80"));
        let document: Value = serde_json::from_str(&file.to_text()).expect("JSON");
        let auths = document["auths"].as_object().expect("an object");
        let keys: Vec<&str> = auths.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            ["s.example", "r.example", HUB, "r.example/acme", "l.example"]
        );
        assert_eq!(auths["r.example"]["auth"], "am86cDp3");
        assert_eq!(document["HttpHeaders"]["X"], "1");
        assert_eq!(file.helper(&server("h.example:443")), Some("own"));
        assert_eq!(file.helper(&server("r.example")), None);
        assert!(file.remove(&server("index.docker.io")) && !file.remove(&server("docker.io")));
        assert!(!file.remove(&server("other.example")));
        assert!(!format!("{file:?}").contains("am86"));
    }

    #[test]
    fn what_is_no_file_and_what_is_no_server() {
        for text in ["[]", "{", "{\"auths\": []}"] {
            assert!(DockerFile::parse(text).is_err(), "{text}");
        }
        let mut empty = DockerFile::parse(" \n").expect("no entries");
        empty.mark(&server("r.example"));
        assert_eq!(
            empty.to_text(),
            "{\n\t\"auths\": {\n\t\t\"r.example\": {}\n\t}\n}\n"
        );
        let mut null =
            DockerFile::parse("{\"auths\": null, \"credsStore\": \"all\"}").expect("fine");
        assert_eq!(null.helper(&server("r.example")), Some("all"));
        null.mark(&server("r.example"));
        for text in ["", "https://", "us er@host", "a?b"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
        assert_eq!(
            server("https://r.example:5000/a/b/").to_string(),
            "r.example:5000/a/b"
        );
    }
}
