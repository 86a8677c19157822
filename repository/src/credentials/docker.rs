//! Docker's `config.json`: credentials by host and path, and the programs that keep them elsewhere.
//!
//! A request gets, in this order: the answer of its host's `credHelpers` program; the entry of `auths` with the same host and
//! port and the longest path that is the start of the request's; the answer of the `credsStore` program. An entry
//! without a port is for the scheme's own port, as `docker login` writes it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ocm_content::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Credential, CredentialSource, Identity, Secret};

/// The key under which Docker keeps the credentials of Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";
/// What helpers say in place of a user name when the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// Longest answer of a helper, in bytes.
const ANSWER_LIMIT: u64 = 1 << 20;

/// How programs that keep credentials are run.
#[derive(Clone, Debug)]
pub struct Helpers {
    /// Folders in which `docker-credential-<name>` is looked for, in order.
    pub folders: Vec<PathBuf>,
    /// Their whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// How long one may take.
    pub timeout: Duration,
}

impl Default for Helpers {
    fn default() -> Self {
        Self {
            folders: Vec::new(),
            environment: BTreeMap::new(),
            timeout: Duration::from_secs(60),
        }
    }
}

/// A Docker configuration, read.
#[derive(Debug)]
pub struct DockerConfig {
    entries: Vec<Entry>,
    host_helpers: BTreeMap<String, String>,
    store: Option<String>,
    helpers: Helpers,
}

struct Entry {
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
    /// [`ErrorKind::Invalid`] with the key that is malformed, never with its value.
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
        })
    }

    fn entry(&self, authority: &str, path: &str) -> Option<&Credential> {
        let path: Vec<&str> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .collect();
        let fitting = self.entries.iter().filter(|entry| {
            entry.authority == authority
                && entry.path.len() <= path.len()
                && entry.path.iter().zip(&path).all(|(a, b)| a == b)
        });
        let best = fitting.max_by_key(|entry| entry.path.len());
        best.map(|entry| &entry.credential)
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
            return Ok(Some(found.clone()));
        }
        match &self.store {
            Some(store) => self.helpers.ask(store, &authority).await,
            None => Ok(None),
        }
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
fn place(key: &str) -> (String, Vec<String>) {
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

impl Helpers {
    /// Runs `docker-credential-<name> get`.
    async fn ask(&self, name: &str, authority: &str) -> Result<Option<Credential>> {
        let about = |error: Error| {
            error.context(format!(
                "ask docker-credential-{} for {authority}",
                name.escape_debug()
            ))
        };
        let asked = tokio::time::timeout(self.timeout, self.run(name, authority));
        match asked.await {
            Ok(answer) => answer.map_err(about),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("no answer within {seconds} seconds"),
                );
                Err(about(error))
            }
        }
    }

    async fn run(&self, name: &str, authority: &str) -> Result<Option<Credential>> {
        let server = if authority == "docker.io" {
            HUB
        } else {
            authority
        };
        let mut process = tokio::process::Command::new(self.program(name)?)
            .arg("get")
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::io("start it", &error))?;
        let pipes = (process.stdin.take(), process.stdout.take());
        let (Some(mut stdin), Some(stdout)) = pipes else {
            return Err(Error::internal("a pipe that was asked for is missing"));
        };
        let write = async move {
            // One that knows without asking may have closed its input: its answer counts.
            let _ = stdin.write_all(server.as_bytes()).await;
            drop(stdin);
        };
        let mut answer = Vec::new();
        let mut bounded = stdout.take(ANSWER_LIMIT + 1);
        let ((), read) = tokio::join!(write, bounded.read_to_end(&mut answer));
        read.map_err(|error| Error::io("read its answer", &error))?;
        if answer.len() as u64 > ANSWER_LIMIT {
            return Err(Error::limit(format!(
                "its answer is larger than {ANSWER_LIMIT} bytes"
            )));
        }
        let status = process
            .wait()
            .await
            .map_err(|error| Error::io("wait for it", &error))?;
        read_answer(status.success(), &answer)
    }

    fn program(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(Error::invalid("its name is not that of a program"));
        }
        let file = format!("docker-credential-{name}{}", std::env::consts::EXE_SUFFIX);
        let mut programs = self.folders.iter().map(|folder| folder.join(&file));
        programs
            .find(|program| program.is_file())
            .ok_or_else(|| Error::not_found("the program is not installed"))
    }
}

fn read_answer(success: bool, answer: &[u8]) -> Result<Option<Credential>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    if !success {
        let text = String::from_utf8_lossy(answer);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(Error::new(
            ErrorKind::Denied,
            format!("it says: {}", text.trim()),
        ));
    }
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|_| Error::invalid("its answer is not what a credential helper says"))?;
    Ok(match answer.username.as_str() {
        "" if answer.secret.is_empty() => None,
        TOKEN_USER => Some(Credential::IdentityToken(Secret::new(answer.secret))),
        _ => Some(Credential::basic(answer.username, answer.secret)),
    })
}

#[cfg(test)]
mod tests {
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
            let path = folder.path().join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write a script");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, mode).expect("make it a program");
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
