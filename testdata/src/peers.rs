//! What tests meet that is not ours: shared vectors, and a registry that other people wrote.
//!
//! *Invariant*: what is not there is told and skipped, and fails the test where `OCM_REQUIRE_PEERS` is `1`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Tells why a test is skipped.
///
/// # Panics
/// Where `OCM_REQUIRE_PEERS` is `1`: nothing may be skipped there.
#[expect(
    clippy::print_stderr,
    reason = "who runs the tests should know what was left out"
)]
pub fn skip(reason: &str) {
    let required = std::env::var("OCM_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "required: {reason}");
    eprintln!("skipped: {reason}");
}

/// Is one of Debian's programs installed?
pub fn installed(program: &str) -> bool {
    let found = Path::new("/usr/bin").join(program).exists();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// The folder `node_modules` in which `componentize-js` is installed: that named by `OCM_NODE_MODULES`, or npm's global one.
pub fn componentize_js() -> Option<PathBuf> {
    if !node() {
        return None;
    }
    let named = std::env::var_os("OCM_NODE_MODULES").map(PathBuf::from);
    let folder = named.or_else(|| {
        let global = Command::new("npm").args(["root", "-g"]).output().ok()?;
        Some(String::from_utf8(global.stdout).ok()?.trim().into())
    });
    let found = folder.filter(|folder| folder.join("@bytecodealliance/componentize-js").exists());
    if found.is_none() {
        skip(
            "componentize-js is not installed (npm install -g @bytecodealliance/componentize-js@0.23.0, or name its \
             node_modules with OCM_NODE_MODULES)",
        );
    }
    found
}

/// Is Node.js there?
pub fn node() -> bool {
    let version = Command::new("node").arg("--version").output();
    let found = version.is_ok_and(|version| version.status.success());
    if !found {
        skip("node is not installed");
    }
    found
}

/// The path of a shared vector: below `OCM_VECTORS`, or beside the workspace.
pub fn vector(path: &str) -> Option<PathBuf> {
    let root = std::env::var("OCM_VECTORS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned()
    });
    let path = Path::new(&root).join(path);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("there is no {}", path.display()));
    None
}

/// A process of Debian's `docker-registry`, open to everybody, which ends with this value.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    /// `127.0.0.1:PORT`.
    pub host: String,
    // Its content goes with it.
    _data: tempfile::TempDir,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl DockerRegistry {
    /// Starts one on loopback, if it is installed.
    pub async fn start() -> Option<Self> {
        Self::start_with(None).await
    }

    /// The same for the user `jo` with the password `secret` only.
    pub async fn guarded() -> Option<Self> {
        // By bcrypt, which is all that it takes.
        let line = "jo:$2b$05$AFFqKxCQe3/F2gxfbU8f6.JM.kZ8s0iLn7hoEAHtToWTXwwwhxns6\n";
        Self::start_with(Some(line)).await
    }

    async fn start_with(users: Option<&str>) -> Option<Self> {
        if !installed("docker-registry") {
            return None;
        }
        // Another process may take the port between our look and its start: then another port is tried.
        for _ in 0..5 {
            if let Some(registry) = Self::try_start(users).await {
                return Some(registry);
            }
        }
        panic!("docker-registry does not start");
    }

    async fn try_start(users: Option<&str>) -> Option<Self> {
        let data = tempfile::tempdir().expect("a temporary folder");
        let host = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}/data}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: '{host}'\n",
            data.path().display()
        );
        let auth = users.map_or_else(String::new, |users| {
            let path = data.path().join("htpasswd");
            std::fs::write(&path, users).expect("write the users");
            let path = path.display();
            format!("auth: {{htpasswd: {{realm: test, path: {path}}}}}\n")
        });
        let config = config + &auth;
        let path = data.path().join("config.yml");
        std::fs::write(&path, config).expect("write the configuration");
        let process = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry");
        let mut registry = Self {
            process,
            host,
            _data: data,
        };
        for _ in 0..500 {
            if registry
                .process
                .try_wait()
                .expect("ask for the process")
                .is_some()
            {
                return None;
            }
            if tokio::net::TcpStream::connect(&registry.host).await.is_ok() {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}
