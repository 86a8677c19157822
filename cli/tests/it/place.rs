//! A folder to run the program in, registries for it to talk to, and a look at what it did.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use ocm_content::{Artifact, ContentStore, MemoryStores, RawManifest};
use ocm_registry::{Registry, RegistryConfig, Requests, Running};
use ocm_repository::{ComponentVersion, Session, SessionConfig};
use ocm_specs::RepositorySpec;
use ocm_specs::reference::OciReference;
use ocm_testdata::peers::DockerRegistry;
use ocm_testdata::web::WebServer;
use serde_json::Value;
use tempfile::TempDir;

/// A registry within reach.
pub(crate) enum Peer {
    Docker(DockerRegistry),
    Embedded(Running),
}

impl Peer {
    /// Every kind of registry that is there.
    pub(crate) async fn all() -> Vec<Self> {
        let mut all = vec![Self::embedded().await];
        all.extend(DockerRegistry::start().await.map(Self::Docker));
        all
    }

    pub(crate) async fn embedded() -> Self {
        let config = RegistryConfig::new(Arc::new(MemoryStores::new()));
        let running = Registry::bind(config, ([127, 0, 0, 1], 0).into()).await;
        Self::Embedded(running.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Docker(registry) => format!("http://{}", registry.host),
            Self::Embedded(running) => format!("http://{}", running.addr),
        }
    }

    /// What it was asked so far, where it tells.
    pub(crate) fn requests(&self) -> Option<Requests> {
        match self {
            Self::Docker(_) => None,
            Self::Embedded(running) => Some(running.requests()),
        }
    }
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// What a run of the program took, as the system tells (proc(5)): seen every few milliseconds while it ran.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Most resident memory, in KiB; zero where the system does not tell.
    pub(crate) peak_rss: u64,
    /// Seconds of the processor, user and system, to a hundredth.
    pub(crate) cpu: f64,
}

impl Cost {
    fn look(&mut self, id: u32) {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        self.peak_rss = self.peak_rss.max(peak.unwrap_or(0));
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name of the program is in parentheses; user and system time are 12th and 13th behind it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks = fields.split_ascii_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|text| text.parse::<u64>().ok()).sum();
        self.cpu = self.cpu.max(ticks as f64 / 100.0);
    }
}

/// A folder, and the registries that stand for hosts there.
pub(crate) struct Place {
    folder: TempDir,
    aliases: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            aliases: BTreeMap::new(),
            environment: BTreeMap::new(),
        }
    }

    /// The program finds this variable in its environment.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Requests for `host` go to `peer`.
    pub(crate) fn alias(mut self, host: &str, peer: &Peer) -> Self {
        self.aliases.insert(host.to_owned(), peer.url());
        self
    }

    /// Requests for `host` go to a server that is no registry.
    pub(crate) fn alias_web(mut self, host: &str, server: &WebServer) -> Self {
        self.aliases.insert(host.to_owned(), server.url());
        self
    }

    /// Another folder with the same files.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self {
            folder: tempfile::tempdir().unwrap(),
            aliases: self.aliases.clone(),
            environment: self.environment.clone(),
        };
        for (path, bytes) in self.files() {
            let path = copy.folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        copy
    }

    /// Which hosts are whose, as `HOST=URL`.
    pub(crate) fn aliases(&self) -> Vec<String> {
        let aliases = self.aliases.iter();
        aliases.map(|(host, url)| format!("{host}={url}")).collect()
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// All files here, with their content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        tree(self.folder.path())
    }

    /// Runs the program here, in an environment of its own.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(self.folder.path(), arguments).await
    }

    /// Runs the program in another folder.
    pub(crate) async fn run_in(&self, folder: &Path, arguments: &[&str]) -> Ran {
        self.run_fed(folder, &[], "", arguments).await
    }

    /// Runs the program here with these variables.
    pub(crate) async fn run_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
        self.run_fed(self.folder.path(), environment, "", arguments)
            .await
    }

    /// Runs the program with all that it can be given.
    pub(crate) async fn run_fed(
        &self,
        folder: &Path,
        environment: &[(&str, &str)],
        stdin: &str,
        arguments: &[&str],
    ) -> Ran {
        let mut command = self.command(folder, arguments);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut input = process.stdin.take().unwrap();
        // It need not read it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut input, stdin.as_bytes()).await;
        drop(input);
        let output = tokio::time::timeout(Duration::from_secs(120), process.wait_with_output());
        Ran::of(output.await.expect("it ends").unwrap())
    }

    /// Runs the program here with these variables and looks at what it takes meanwhile.
    pub(crate) async fn run_measured(
        &self,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> (Ran, Cost) {
        let mut command = self.command(self.folder.path(), arguments);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let id = child.id().unwrap();
        let mut cost = Cost::default();
        let mut output = std::pin::pin!(child.wait_with_output());
        let watching = async {
            loop {
                tokio::select! {
                    biased;
                    output = &mut output => break output.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(2)) => cost.look(id),
                }
            }
        };
        let output = tokio::time::timeout(Duration::from_secs(120), watching);
        let output = output.await.expect("it ends");
        (Ran::of(output), cost)
    }

    fn command(&self, folder: &Path, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ocm"));
        command.args(arguments).current_dir(folder).env_clear();
        command.envs(&self.environment);
        if matches!(arguments.first(), Some(&("add" | "transfer" | "get"))) {
            for (host, url) in &self.aliases {
                command.args(["--host-alias", &format!("{host}={url}")]);
            }
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// A session of the test's own, with the same way to registries.
    pub(crate) fn session(&self) -> Arc<Session> {
        let mut config = SessionConfig::new(self.folder.path());
        config.limits.temp_folder = Some(std::env::temp_dir());
        let aliases = self.aliases.iter();
        config.client.host_aliases = aliases
            .map(|(host, url)| (host.clone(), url.parse().unwrap()))
            .collect();
        Session::new(config).unwrap()
    }

    pub(crate) async fn component(&self, repository: &str, name: &str) -> ComponentVersion {
        let spec: RepositorySpec = repository.parse().unwrap();
        let repository = self.session().repository(&spec, false).await.unwrap();
        let version = repository.versions(name).await.unwrap().swap_remove(0);
        repository.get(name, &version).await.unwrap()
    }

    /// The root manifest behind an image reference.
    pub(crate) async fn manifest(&self, reference: &str) -> RawManifest {
        let Artifact::Stored(stored) = self.session().artifact(reference).await.unwrap() else {
            panic!("{reference} is not stored");
        };
        let digest = stored.root.digest.to_string();
        stored.store.manifest(&digest).await.unwrap()
    }

    pub(crate) fn store(&self, reference: &str) -> Arc<dyn ContentStore> {
        let reference: OciReference = reference.parse().unwrap();
        self.session().oci_store(&reference).unwrap()
    }
}

/// Runs `spec.yaml`, a form of the shipped example's spec, with the example's two registries.
pub(crate) const RUN_EXAMPLE: [&str; 7] = [
    "transfer",
    "--transfer-spec",
    "spec.yaml",
    "--serve",
    "source.example=examples/localize/archive",
    "--serve",
    "target.example=target/example/registry",
];

/// All files below a folder, with their content.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The files of a gzip-compressed tar, in its order.
pub(crate) async fn unpacked(archive: &Bytes) -> Vec<(String, String)> {
    let limits = ocm_content::Limits::new(Default::default());
    let stream = futures::stream::iter([Ok(archive.clone())]);
    let stream = ocm_content::gzip::gunzip(Box::pin(stream), &limits);
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    let bytes = chunks.concat();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        let path = entry.path().unwrap().display().to_string();
        files.push((path, text));
    }
    files
}
