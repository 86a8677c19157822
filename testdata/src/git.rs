//! Git repositories made by git itself, and git's own server for them (`git http-backend`) behind a web server.
//!
//! *Invariant*: the same calls give the same commits; nothing of the machine's git configuration is read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::peers::installed;
use crate::web::{Answer, Asked, WebServer};

/// A repository with a working folder.
#[derive(Debug)]
pub struct GitRepository {
    root: TempDir,
}

impl GitRepository {
    /// An empty one, whose objects are named by `sha1` or `sha256`; `None` where git is not installed.
    pub fn new(format: &str) -> Option<Self> {
        if !installed("git") {
            return None;
        }
        let root = tempfile::tempdir().expect("a temporary folder");
        let repository = Self { root };
        std::fs::create_dir(repository.folder()).expect("a folder");
        let format = format!("--object-format={format}");
        repository.git(&["init", "-q", "-b", "main", &format]);
        Some(repository)
    }

    /// The working folder.
    pub fn folder(&self) -> PathBuf {
        self.root.path().join("app.git")
    }

    /// Writes a file, executable or not.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.folder().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }

    /// Commits everything; gives the commit's name.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A", "-f"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git there; gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let output = bare_git(self.root.path())
            .arg("-C")
            .arg(self.folder())
            .args(arguments)
            .output()
            .expect("git runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {error}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Serves it at `/app.git`, in the newest version of the protocol, or in the one of old where `old`.
    pub async fn serve(self: &Arc<Self>, old: bool) -> WebServer {
        let repository = self.clone();
        WebServer::start_with(move |asked| {
            let repository = repository.clone();
            async move { backend(repository.root.path(), asked, old).await }
        })
        .await
    }
}

/// Git without anything of the machine's.
fn bare_git(home: &Path) -> Command {
    let mut command = Command::new("/usr/bin/git");
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Jo")
        .env("GIT_AUTHOR_EMAIL", "jo@acme.example")
        .env("GIT_AUTHOR_DATE", "2025-01-01T00:00:00Z")
        .env("GIT_COMMITTER_NAME", "Jo")
        .env("GIT_COMMITTER_EMAIL", "jo@acme.example")
        .env("GIT_COMMITTER_DATE", "2025-01-01T00:00:00Z")
        .stdin(Stdio::null());
    command
}

/// One request to `git http-backend`, by the rules of CGI.
async fn backend(root: &Path, asked: Asked, old: bool) -> Answer {
    let mut command = tokio::process::Command::from(bare_git(root));
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &asked.method)
        .env("PATH_INFO", &asked.path)
        .env("QUERY_STRING", &asked.query)
        .env("CONTENT_TYPE", asked.header("content-type"))
        .env("CONTENT_LENGTH", asked.body.len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if !old {
        command.env("GIT_PROTOCOL", asked.header("git-protocol"));
    }
    let mut child = command.spawn().expect("git http-backend runs");
    let mut input = child.stdin.take().expect("its input");
    let (sent, output) = tokio::join!(
        async {
            let sent = input.write_all(&asked.body).await;
            drop(input);
            sent
        },
        child.wait_with_output(),
    );
    let output = output.expect("it ends").stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = end.filter(|_| sent.is_ok()) else {
        return Answer::new(500);
    };
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let mut answer = Answer::ok(Bytes::copy_from_slice(&output[end + 4..]));
    for line in head.lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => {
                let code = status.split(' ').next().and_then(|code| code.parse().ok());
                answer = answer.status(code.unwrap_or(500));
            }
            Some((name, value)) => answer = answer.header(&name.to_ascii_lowercase(), value),
            None => {}
        }
    }
    answer
}
