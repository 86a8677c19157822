//! The only place that reads the process's environment: what it says is resolved here and handed down.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ocm_content::Disk;
use ocm_repository::credentials::{Helpers, Secret};
use ocm_repository::oci::{ClientConfig, Jitter, Proxies, RetryConfig};
use url::Url;

use crate::args::Global;
use crate::error::{CliError, ExitCode};

/// What the environment says. There is no `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<String, String>,
    /// All of them, for programs that are run.
    all: BTreeMap<OsString, OsString>,
    pub(crate) working_directory: PathBuf,
    /// Where temporary files go.
    pub(crate) temp_folder: PathBuf,
    /// Where podman keeps log-ins of this user where there is no folder of the session.
    run_folder: Option<PathBuf>,
    /// Where this program lies.
    program_folder: Option<PathBuf>,
    /// How files are written.
    pub(crate) disk: Disk,
}

/// Set to `1`, configuration files of the current folder are read, too.
pub(crate) const TRUST_WORKING_DIRECTORY: &str = "OCM_CONFIG_FROM_WORKING_DIRECTORY";

/// Docker's configuration before it had a folder: what is below `auths` today, and nothing else.
pub(crate) const OLD_DOCKER_CONFIG: &str = ".dockercfg";

/// Variables that mean something to this program.
const VARIABLES: [&str; 23] = [
    "HOME",
    "PATH",
    "USERPROFILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "DOCKER_CONFIG",
    "DOCKER_AUTH_CONFIG",
    "REGISTRY_AUTH_FILE",
    "OCM_CONFIG",
    TRUST_WORKING_DIRECTORY,
    "OCM_HOST_ALIAS",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "NO_COLOR",
    "TERM",
    "SOURCE_DATE_EPOCH",
];

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn of_process() -> Self {
        let variables = VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self {
            variables,
            all: std::env::vars_os().collect(),
            working_directory: std::env::current_dir().unwrap_or_default(),
            temp_folder: std::env::temp_dir(),
            run_folder: user().map(|user| PathBuf::from(format!("/run/containers/{user}"))),
            program_folder: std::env::current_exe()
                .ok()
                .and_then(|program| Some(program.parent()?.to_owned())),
            disk: crate::faults::disk(),
        }
    }

    /// The first of these variables that is set.
    fn any(&self, names: &[&str]) -> Option<&str> {
        names
            .iter()
            .find_map(|name| self.variables.get(*name))
            .map(String::as_str)
    }

    /// Everything that the environment defines, for documents that refer to it. What is no UTF-8 is left out.
    pub(crate) fn definitions() -> impl Iterator<Item = (String, String)> {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
    }

    /// The time that everything that is made counts as made at, in seconds since 1970, where the environment says one.
    ///
    /// # Errors
    /// A value that is no number.
    pub(crate) fn source_date(&self) -> Result<Option<u64>, CliError> {
        let Some(text) = self.any(&["SOURCE_DATE_EPOCH"]) else {
            return Ok(None);
        };
        // The last second of the year 9999.
        let seconds = text
            .parse()
            .ok()
            .filter(|seconds| *seconds <= 253_402_300_799_u64);
        seconds.map(Some).ok_or_else(|| {
            CliError::usage(format!(
                "the variable SOURCE_DATE_EPOCH is no time: `{text}`"
            ))
            .with_hint("give the seconds since 1970, as `date +%s` prints them")
        })
    }

    /// Is the terminal one that can't redraw?
    pub(crate) fn is_dumb_terminal(&self) -> bool {
        self.any(&["TERM"]) == Some("dumb")
    }

    /// Did the user ask for no colour?
    pub(crate) fn no_color(&self) -> bool {
        self.any(&["NO_COLOR"]).is_some()
    }

    fn home(&self) -> Option<PathBuf> {
        self.any(&["HOME", "USERPROFILE"]).map(PathBuf::from)
    }

    /// The user's folder for what can be made again.
    #[cfg(feature = "wasm")]
    pub(crate) fn cache_folder(&self) -> Option<PathBuf> {
        let named = self.any(&["XDG_CACHE_HOME"]).map(PathBuf::from);
        let own = self.home().map(|home| home.join(".cache"));
        Some(named.or(own)?.join("ocm"))
    }

    /// A path with `~` for the home folder.
    pub(crate) fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.working_directory.join(path),
        }
    }

    /// How credential helpers are found and run.
    pub(crate) fn helpers(&self) -> Helpers {
        let path = self.any(&["PATH"]).unwrap_or_default();
        Helpers {
            folders: std::env::split_paths(path).collect(),
            // Keychains, agents and cloud accounts are found by variables of their own.
            environment: self.all.clone(),
            ..Helpers::default()
        }
    }

    /// Docker configuration files that may hold credentials, the first one first: the one that is named, Docker's, those of
    /// podman and its family, Docker's old one.
    pub(crate) fn docker_configs(&self) -> Vec<PathBuf> {
        let named = self.any(&["REGISTRY_AUTH_FILE"]).map(PathBuf::from);
        let xdg = self.any(&["XDG_CONFIG_HOME"]).map(PathBuf::from);
        let config = xdg.or_else(|| Some(self.home()?.join(".config")));
        let session = self.any(&["XDG_RUNTIME_DIR"]).map(PathBuf::from);
        let run = session
            .map(|folder| folder.join("containers"))
            .or_else(|| self.run_folder.clone());
        let config = config.map(|folder| folder.join("containers"));
        let containers = [run, config].into_iter().flatten();
        let mut found: Vec<PathBuf> = named
            .into_iter()
            .chain(self.own_docker_config())
            .chain(containers.map(|folder| folder.join("auth.json")))
            .chain(self.home().map(|home| home.join(OLD_DOCKER_CONFIG)))
            .filter(|path| path.is_file())
            .collect();
        found.dedup();
        found
    }

    /// Docker's own file, whether it is there or not.
    fn own_docker_config(&self) -> Option<PathBuf> {
        let folder = self.any(&["DOCKER_CONFIG"]).map(PathBuf::from);
        let folder = folder.or_else(|| Some(self.home()?.join(".docker")))?;
        Some(folder.join("config.json"))
    }

    /// Where log-ins are kept: the file that is asked first.
    pub(crate) fn login_file(&self) -> Option<PathBuf> {
        let named = self.any(&["REGISTRY_AUTH_FILE"]).map(PathBuf::from);
        named.or_else(|| self.own_docker_config())
    }

    /// A Docker configuration that a variable holds itself.
    pub(crate) fn docker_config_text(&self) -> Option<&str> {
        self.any(&["DOCKER_AUTH_CONFIG"])
    }

    /// Configuration files, lowest priority first (formats.md 8.1). Those of the current folder are among them only where the
    /// environment asks for that.
    pub(crate) fn ocm_configs(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = self
            .any(&["OCM_CONFIG"])
            .map(PathBuf::from)
            .into_iter()
            .collect();
        let xdg = self.any(&["XDG_CONFIG_HOME"]).map(PathBuf::from);
        let home = self.home();
        let config = home.as_ref().map(|home| home.join(".config"));
        for folder in [xdg, config].into_iter().flatten() {
            found.push(folder.join("ocm").join("config"));
            found.push(folder.join(".ocmconfig"));
        }
        found.extend(home.iter().flat_map(|home| configs_in(home)));
        if self.trusts_working_directory() {
            found.extend(configs_in(&self.working_directory));
        }
        found.extend(
            self.program_folder
                .iter()
                .flat_map(|folder| configs_in(folder)),
        );
        found.retain(|path| path.is_file());
        // A file that is found twice counts where it is found last.
        let mut at = 0;
        while at < found.len() {
            match found[at + 1..].contains(&found[at]) {
                true => drop(found.remove(at)),
                false => at += 1,
            }
        }
        found
    }

    /// Configuration files of the current folder that are not read.
    pub(crate) fn configs_left_out(&self) -> Vec<PathBuf> {
        let mut found = configs_in(&self.working_directory).to_vec();
        let read = self.ocm_configs();
        found.retain(|path| path.is_file() && !read.contains(path));
        found
    }

    fn trusts_working_directory(&self) -> bool {
        self.any(&[TRUST_WORKING_DIRECTORY]) == Some("1")
    }

    /// How to reach registries: what the command line says, then what the environment says.
    pub(crate) fn client_config(
        &self,
        global: &Global,
        configured: &[String],
    ) -> Result<ClientConfig, CliError> {
        let read = |path: &PathBuf| {
            let pem = std::fs::read(path).map_err(|error| CliError::file("read", path, &error))?;
            // Said here, where the file's name is known.
            if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                let message = format!("{}: there is no PEM certificate in it", path.display());
                return Err(CliError::new(ExitCode::Invalid, message));
            }
            Ok(pem)
        };
        let mut client_certificates = BTreeMap::new();
        for entry in &global.client_cert {
            let (host, path) = entry.split_once('=').ok_or_else(|| {
                CliError::usage(format!("`{entry}` names no host"))
                    .with_hint("write --client-cert HOST[:PORT]=FILE")
            })?;
            let path = PathBuf::from(path);
            let pem = String::from_utf8(read(&path)?).map_err(|_| {
                CliError::new(ExitCode::Invalid, format!("{}: no text", path.display()))
            })?;
            client_certificates.insert(host.to_ascii_lowercase(), Secret::new(pem));
        }
        Ok(ClientConfig {
            client_certificates,
            ca_certificates: global.ca_file.iter().map(read).collect::<Result<_, _>>()?,
            plain_http: global.plain_http.iter().cloned().collect::<BTreeSet<_>>(),
            host_aliases: self.host_aliases(global, configured)?,
            proxies: self.proxies()?,
            retry: RetryConfig {
                jitter: Jitter::seeded(seed()),
                ..RetryConfig::default()
            },
            ..ClientConfig::default()
        })
    }

    fn host_aliases(
        &self,
        global: &Global,
        configured: &[String],
    ) -> Result<BTreeMap<String, Url>, CliError> {
        let from_environment = self.any(&["OCM_HOST_ALIAS"]).unwrap_or_default().split(',');
        let given = global.host_alias.iter().map(String::as_str);
        let from_environment = from_environment
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        let configured = configured.iter().map(String::as_str);
        let mut aliases = BTreeMap::new();
        // A later one wins: the command line over the environment over the configuration.
        for entry in configured.chain(from_environment).chain(given) {
            let (host, url) = host_alias(entry)?;
            aliases.insert(host, url);
        }
        Ok(aliases)
    }

    fn proxies(&self) -> Result<Proxies, CliError> {
        let url = |names: [&str; 2]| {
            let all = ["all_proxy", "ALL_PROXY"];
            let Some(text) = self.any(&names).or_else(|| self.any(&all)) else {
                return Ok(None);
            };
            let with_scheme = match text.contains("://") {
                true => text.to_owned(),
                false => format!("http://{text}"),
            };
            Url::parse(&with_scheme).map(Some).map_err(|error| {
                let names = names.join(" or ");
                CliError::usage(format!(
                    "the proxy of the variable {names} is no URL: {error}"
                ))
                .with_hint("write it as in http://USER:PASSWORD@HOST:PORT")
            })
        };
        Ok(Proxies {
            http: url(["http_proxy", "HTTP_PROXY"])?,
            https: url(["https_proxy", "HTTPS_PROXY"])?,
            bypass: self
                .any(&["no_proxy", "NO_PROXY"])
                .map(|list| {
                    list.split(',')
                        .map(|entry| entry.trim().to_owned())
                        .collect()
                })
                .unwrap_or_default(),
        })
    }
}

/// The number of the user who runs this, where the system tells (proc(5)).
fn user() -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata("/proc/self").ok().map(|own| own.uid())
    }
    #[cfg(not(unix))]
    None
}

fn configs_in(folder: &Path) -> [PathBuf; 2] {
    [
        folder.join(".ocm").join("config"),
        folder.join(".ocmconfig"),
    ]
}

/// Reads `HOST=URL`; a URL without scheme is plain HTTP when it is on this machine, HTTPS otherwise.
pub(crate) fn host_alias(entry: &str) -> Result<(String, Url), CliError> {
    let usage = |why: String| {
        // What stands behind may hold a password.
        let shown = match entry.split_once('=') {
            Some((host, _)) => format!("{host}=…"),
            None => entry.to_owned(),
        };
        CliError::usage(format!("`{shown}` is not a host alias: {why}"))
            .with_hint("write HOST=URL, as in ghcr.io=http://127.0.0.1:5001")
    };
    let (host, url) = entry
        .split_once('=')
        .ok_or_else(|| usage("there is no `=`".to_owned()))?;
    if host.is_empty() || host.contains('/') {
        return Err(usage("what stands before `=` is not a host".to_owned()));
    }
    let url = parse_url(url).map_err(|error| usage(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(usage(format!("`{}` is not spoken here", url.scheme())));
    }
    Ok((host.to_ascii_lowercase(), url))
}

fn parse_url(text: &str) -> Result<Url, url::ParseError> {
    if text.contains("://") {
        return Url::parse(text);
    }
    let host = text.split(['/', ':']).next().unwrap_or_default();
    let loopback = host == "localhost" || host.starts_with("127.");
    Url::parse(&format!(
        "{}://{text}",
        if loopback { "http" } else { "https" }
    ))
}

/// Something that differs from process to process, so that a fleet that was turned away does not come back at once.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos())) ^ u64::from(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the places of log-ins of podman are asked; `/run` is not for tests to write to.
    #[test]
    fn podmans_log_ins_are_those_of_the_session_or_of_the_user() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        for path in ["run/7/auth.json", "session/containers/auth.json"] {
            std::fs::create_dir_all(at(path).parent().expect("a folder")).expect("made");
            std::fs::write(at(path), "{}").expect("written");
        }
        let session = at("session").display().to_string();
        for (variables, expected) in [
            (vec![], "run/7/auth.json"),
            (
                vec![("XDG_RUNTIME_DIR", session)],
                "session/containers/auth.json",
            ),
        ] {
            let environment = Environment {
                variables: variables
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
                run_folder: Some(at("run/7")),
                ..Environment::default()
            };
            assert_eq!(environment.docker_configs(), [at(expected)]);
        }
        #[cfg(target_os = "linux")]
        assert!(user().is_some());
    }
}
