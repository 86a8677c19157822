//! Where text goes: data to stdout, everything else to stderr.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ocm_content::Disk;
use tracing_subscriber::EnvFilter;

use crate::args::{Global, LogFormat, LogLevel};
use crate::config::Config;
use crate::environment::Environment;
use crate::error::{CliError, ExitCode};

/// The program's surroundings and its voice.
pub(crate) struct Ui {
    pub(crate) global: Global,
    pub(crate) environment: Environment,
    config: OnceLock<Config>,
}

impl Ui {
    /// Reads the environment and starts the log.
    pub(crate) fn new(global: Global) -> Self {
        let environment = Environment::of_process();
        start_log(&global, &environment);
        Self {
            global,
            environment,
            config: OnceLock::new(),
        }
    }

    /// The configuration, read once.
    pub(crate) fn config(&self) -> Result<&Config, CliError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Config::read(self)?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The folder that relative paths are below.
    pub(crate) fn working_directory(&self) -> PathBuf {
        match &self.global.working_directory {
            Some(folder) => self.environment.working_directory.join(folder),
            None => self.environment.working_directory.clone(),
        }
    }

    /// Prints what was asked for. A reader that went away ends the program quietly.
    pub(crate) fn data(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        match stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
        {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(CliError::new(
                ExitCode::Failure,
                format!("write to stdout: {error}"),
            )),
            Ok(()) => Ok(()),
        }
    }

    /// Tells people something they did not ask for, unless they asked for quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.global.quiet {
            self.stderr(text);
        }
    }

    /// Tells what went wrong.
    pub(crate) fn error(&self, error: &CliError) {
        let red =
            !self.environment.no_color() && std::io::IsTerminal::is_terminal(&std::io::stderr());
        let (start, end) = if red {
            ("\u{1b}[1;31m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        self.stderr(&format!("{start}error:{end} {error}\n"));
    }

    fn stderr(&self, text: &str) {
        // Nobody is left to be told when this fails.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

fn start_log(global: &Global, environment: &Environment) {
    let level = match (global.quiet, global.loglevel) {
        (_, LogLevel::Off) => return,
        (true, _) | (_, LogLevel::Error) => "error",
        (_, LogLevel::Warn) => "warn",
        (_, LogLevel::Info) => "info",
        (_, LogLevel::Debug) => "debug",
        (_, LogLevel::Trace) => "trace",
    };
    // Only our own crates: those below us log request details that may hold secrets.
    let filter = EnvFilter::new(format!(
        "off,ocm={level},ocm_specs={level},ocm_content={level},ocm_repository={level},ocm_registry={level},ocm_engine={level},ocm_transformers={level}"
    ));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let ansi = !environment.no_color() && std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A second start happens only in tests within one process.
    let _ = match global.logformat {
        LogFormat::Text => log.with_ansi(ansi).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

/// Writes a file so that it is there as a whole or not at all.
pub(crate) fn write_file(disk: &Disk, path: &Path, text: &str) -> Result<(), CliError> {
    let written = disk.replace(path, text.as_bytes());
    written.map_err(|error| CliError::file("write", path, &error))
}
