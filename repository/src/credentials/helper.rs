//! Programs that keep credentials: `docker-credential-<name>` with the verbs `get`, `store` and `erase`.
//!
//! *Invariant*: what is secret goes through pipes, never through arguments; a program that hangs or talks without end is
//! ended, and nothing that it was told or said in secret is repeated.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use ocm_content::{Error, ErrorKind, Result};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::docker::HUB;
use super::{Credential, Secret};

/// What helpers say in place of a user name when the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// Longest answer of a helper, in bytes.
const ANSWER_LIMIT: u64 = 1 << 20;
/// What a helper says when it has nothing.
const NOT_FOUND: &str = "credentials not found";

/// How programs that keep credentials are run.
#[derive(Clone)]
pub struct Helpers {
    /// Folders in which `docker-credential-<name>` is looked for, in order.
    pub folders: Vec<PathBuf>,
    /// Their whole environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// How long one may take.
    pub timeout: Duration,
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Environments hold secrets.
        f.debug_struct("Helpers")
            .field("folders", &self.folders)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
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

impl Helpers {
    /// What the program `name` has for a registry.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not installed, [`ErrorKind::Unavailable`] when it hangs, [`ErrorKind::Denied`] with what it
    /// says.
    pub(super) async fn ask(&self, name: &str, authority: &str) -> Result<Option<Credential>> {
        let server = server(authority);
        let (success, answer) = self
            .run(name, "get", server.as_bytes())
            .await
            .map_err(|error| about(error, "ask", name, authority))?;
        read_answer(success, &answer).map_err(|error| about(error, "ask", name, authority))
    }

    /// Gives a user name and a password to the program `name`.
    ///
    /// # Errors
    /// Those of asking it.
    pub async fn store(
        &self,
        name: &str,
        authority: &str,
        username: &str,
        password: &Secret,
    ) -> Result<()> {
        let document = json!({
            "ServerURL": server(authority), "Username": username, "Secret": password.expose(),
        });
        let document = document.to_string();
        let told = self.run(name, "store", document.as_bytes());
        let done = told.await.and_then(|(success, answer)| match success {
            true => Ok(()),
            false => Err(refusal(&answer)),
        });
        done.map_err(|error| about(error, "store with", name, authority))
    }

    /// Makes the program `name` forget a registry; one that it does not know is forgotten already.
    ///
    /// # Errors
    /// Those of asking it.
    pub async fn erase(&self, name: &str, authority: &str) -> Result<()> {
        let told = self.run(name, "erase", server(authority).as_bytes());
        let done = told.await.and_then(|(success, answer)| {
            match success || String::from_utf8_lossy(&answer).contains(NOT_FOUND) {
                true => Ok(()),
                false => Err(refusal(&answer)),
            }
        });
        done.map_err(|error| about(error, "erase with", name, authority))
    }

    /// Runs the program; gives whether it went well, and what it said.
    async fn run(&self, name: &str, verb: &str, input: &[u8]) -> Result<(bool, Vec<u8>)> {
        let running = tokio::time::timeout(self.timeout, self.talk(name, verb, input));
        running.await.unwrap_or_else(|_| {
            let seconds = self.timeout.as_secs_f64();
            Err(Error::new(
                ErrorKind::Unavailable,
                format!("no answer within {seconds} seconds"),
            ))
        })
    }

    async fn talk(&self, name: &str, verb: &str, input: &[u8]) -> Result<(bool, Vec<u8>)> {
        let mut process = tokio::process::Command::new(self.program(name)?)
            .arg(verb)
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
            let _ = stdin.write_all(input).await;
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
        Ok((status.success(), answer))
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

fn about(error: Error, doing: &str, name: &str, authority: &str) -> Error {
    error.context(format!(
        "{doing} docker-credential-{} for {authority}",
        name.escape_debug()
    ))
}

/// How helpers know a registry.
fn server(authority: &str) -> &str {
    if authority == "docker.io" {
        HUB
    } else {
        authority
    }
}

/// What a helper says for itself when it refuses.
fn refusal(answer: &[u8]) -> Error {
    let text = String::from_utf8_lossy(answer);
    if text.contains("Secret") {
        // It failed after all, with the answer on its lips.
        return Error::new(ErrorKind::Denied, "it refuses");
    }
    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Error::new(ErrorKind::Denied, format!("it says: {}", text.trim()))
}

fn read_answer(success: bool, answer: &[u8]) -> Result<Option<Credential>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    if !success {
        return match String::from_utf8_lossy(answer).contains(NOT_FOUND) {
            true => Ok(None),
            false => Err(refusal(answer)),
        };
    }
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|_| Error::invalid("its answer is not what a credential helper says"))?;
    Ok(match answer.username.as_str() {
        "" if answer.secret.is_empty() => None,
        TOKEN_USER => Some(Credential::IdentityToken(Secret::new(answer.secret))),
        _ => Some(Credential::basic(answer.username, answer.secret)),
    })
}
