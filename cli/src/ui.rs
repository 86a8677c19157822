//! Where text goes: data to stdout, everything else to stderr.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

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
    config: OnceLock<Arc<Config>>,
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
    pub(crate) fn config(&self) -> Result<&Arc<Config>, CliError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Arc::new(Config::read(self)?);
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
            self.stderr(&shown(text));
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
        let text = shown(&error.to_string());
        self.stderr(&format!("{start}error:{end} {text}\n"));
    }

    fn stderr(&self, text: &str) {
        // Nobody is left to be told when this fails.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Characters of a line that are shown at most, and lines.
const LINE: usize = 2_000;
const LINES: usize = 1_000;

/// Text as it may go to a terminal: documents and registries say what is in it. What the terminal would obey is escaped, what
/// is far too long is cut, names and passwords in front of hosts are hidden.
pub(crate) fn shown(text: &str) -> String {
    let text = &without_userinfo(text);
    let mut out = String::with_capacity(text.len().min(1 << 16));
    for (count, line) in text.split_inclusive('\n').enumerate() {
        if count == LINES {
            let more = text.lines().count() - LINES;
            out.push_str(&format!("… and {more} more lines\n"));
            break;
        }
        for (at, character) in line.chars().enumerate() {
            if at == LINE {
                out.push('…');
                out.extend(line.ends_with('\n').then_some('\n'));
                break;
            }
            match character {
                '\n' | '\t' => out.push(character),
                _ if character.is_control() || is_turning(character) => {
                    out.extend(character.escape_unicode());
                }
                _ => out.push(character),
            }
        }
    }
    out
}

/// A text without names and passwords in front of hosts, in case that what a user typed is repeated in it.
pub(crate) fn without_userinfo(text: &str) -> String {
    const ENDS: [char; 9] = ['`', '"', '\'', '=', '(', '[', '<', ',', ';'];
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        let is_end = |c: char| c.is_whitespace() || ENDS.contains(&c);
        let word = before.rfind(is_end).map_or(0, |end| {
            end + before[end..].chars().next().map_or(0, char::len_utf8)
        });
        let scheme = before[word..].rfind("://");
        let start = scheme.map_or(word, |scheme| word + scheme + 3);
        let name = &before[start..];
        // Behind a tag stands a digest, and a path belongs to no name.
        let is_digest = after.starts_with("@sha256:") || after.starts_with("@sha512:");
        match name.contains(':') && !name.contains('/') && !is_digest {
            true => {
                out.push_str(&before[..start]);
                out.push_str("***");
            }
            false => out.push_str(before),
        }
        out.push('@');
        rest = &after[1..];
    }
    out + rest
}

/// Characters that change the order of what is shown after them.
fn is_turning(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
        "off,ocm={level},ocm_specs={level},ocm_content={level},ocm_repository={level},ocm_registry={level},ocm_engine={level},ocm_transformers={level},ocm_plugins_wasm={level}"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_in_front_of_hosts_are_hidden() {
        for (text, expected) in [
            ("`http://jo:pw@h:5/x`: no", "`http://***@h:5/x`: no"),
            ("ctf::http://jo:pw@h", "ctf::http://***@h"),
            ("target jo:pw@h and u:pw@i.", "target ***@h and ***@i."),
            ("h=http://jo:p@h", "h=http://***@h"),
            ("app:1.0.0@sha256:ab", "app:1.0.0@sha256:ab"),
            (
                "ghcr.io/a//b.c/d:1.0.0@sha256:ab",
                "ghcr.io/a//b.c/d:1.0.0@sha256:ab",
            ),
            ("mail jo@example.org", "mail jo@example.org"),
            ("@", "@"),
            ("ü:ö@ä", "***@ä"),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn nothing_shown_is_obeyed_by_a_terminal() {
        for (text, expected) in [
            ("plain ä\n\ttext\n", "plain ä\n\ttext\n"),
            ("a\u{1b}[31mb\r", "a\\u{1b}[31mb\\u{d}"),
            ("a\u{202e}b\u{9b}", "a\\u{202e}b\\u{9b}"),
        ] {
            assert_eq!(shown(text), expected);
        }
        let long = format!("{}\nend", "x".repeat(LINE + 1));
        assert_eq!(shown(&long), format!("{}…\nend", "x".repeat(LINE)));
        let lines = shown(&"x\n".repeat(LINES + 7));
        assert!(lines.ends_with("x\n… and 7 more lines\n"), "{lines}");
    }
}
