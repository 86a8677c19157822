//! Speed and memory, measured: prints a table of figures with their targets and writes them as JSON.
//!
//! *Invariant*: a figure that misses its target is printed like any other; the program fails only when it could not measure.
//!
//! Each family of figures is one module. What is measured runs in a process of its own ([`child`]); the registries of the
//! big transfers are another one ([`null_registry`]), so that only our side is counted.

mod cel_path;
mod check;
mod child;
mod content;
mod figures;
mod generate;
mod many;
mod null_registry;
mod relay;
mod report;
mod requests;
mod schedule;
mod signing;
mod skopeo;
mod start;
mod straggler;
mod streams;
mod temp_bytes;
mod toys;
mod transfer;
mod wasm;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};

use crate::child::Job;
use crate::report::Report;

/// What anything here gives: errors are for people only.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures speed and memory, and compares them with what they should be.
#[derive(Debug, Parser)]
#[command(name = "ocm-benches")]
struct Arguments {
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure only figures whose names start so
    #[arg(long, value_name = "PREFIX", default_value = "")]
    only: String,
    /// Tiny sizes: shows that everything works, the figures mean little
    #[arg(long)]
    smoke: bool,
    #[command(subcommand)]
    child: Option<Role>,
}

/// What this program is when it has started itself.
#[derive(Clone, Debug, Subcommand)]
enum Role {
    /// Measures one job.
    #[command(hide = true)]
    Measure { job: String },
    /// Serves generated content and forgets what it is sent.
    #[command(hide = true)]
    NullRegistry { config: String },
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// What the figures are defined by.
    Full,
    /// Just enough to run every line.
    Smoke,
}

impl Sizes {
    /// One of two.
    pub(crate) fn of<T>(self, full: T, smoke: T) -> T {
        match self {
            Self::Full => full,
            Self::Smoke => smoke,
        }
    }
}

/// Measures the figures of one family.
type Family = fn(Sizes, &mut Report) -> Result<()>;

/// What the names of a family's figures start with, and who measures them.
const FAMILIES: &[(&str, Family)] = &[
    ("relay.", relay::measure),
    ("temp_bytes.", temp_bytes::measure),
    ("requests_", requests::measure),
    ("tee.", requests::measure_tee),
    ("b.", many::measure_b),
    ("c.", many::measure_c),
    ("latency.", many::measure_latency),
    ("schedule.", schedule::measure),
    ("check.", check::measure),
    ("generate.", generate::measure),
    ("noop.", generate::measure_noop),
    ("straggler.", straggler::measure),
    ("cel_path.", cel_path::measure),
    ("normalise.", signing::measure_normalise),
    ("sign.", signing::measure_sign),
    ("wasm.", wasm::measure),
    ("start.", start::measure),
    ("skopeo.", skopeo::measure),
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.child {
        Some(role) => role.play().map(|()| true),
        None => measure(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "ocm-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Role {
    fn play(&self) -> Result<()> {
        match self {
            Self::Measure { job } => {
                let sample = serde_json::from_str::<Job>(job)?.run()?;
                Ok(serde_json::to_writer(io::stdout(), &sample)?)
            }
            Self::NullRegistry { config } => null_registry::serve(serde_json::from_str(config)?),
        }
    }
}

/// Runs the families that are asked for; tells whether all of them could measure.
fn measure(arguments: &Arguments) -> Result<bool> {
    let sizes = if arguments.smoke {
        Sizes::Smoke
    } else {
        Sizes::Full
    };
    let mut report = Report::new(&arguments.only);
    let mut crashed = Vec::new();
    for (start, family) in FAMILIES {
        if !report.wants_any(start) {
            continue;
        }
        let began = Instant::now();
        write!(io::stderr(), "{start}* ...")?;
        let result = family(sizes, &mut report);
        writeln!(io::stderr(), " {:.1} s", began.elapsed().as_secs_f64())?;
        if let Err(error) = result {
            crashed.push(format!("{start}*: {error}"));
        }
    }
    let mut out = io::stdout().lock();
    if arguments.smoke {
        writeln!(out, "Tiny sizes: these figures mean little.\n")?;
    }
    write!(out, "{}", report.table())?;
    if !report.missed().is_empty() {
        writeln!(out, "\nMissed: {}", report.missed().join(", "))?;
    }
    for crash in &crashed {
        writeln!(out, "\nNot measured: {crash}")?;
    }
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(crashed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::FIGURES;

    #[test]
    fn every_figure_has_one_family() {
        for figure in FIGURES {
            let families = FAMILIES
                .iter()
                .filter(|(start, _)| figure.name.starts_with(start));
            assert_eq!(families.count(), 1, "{}", figure.name);
        }
    }

    #[test]
    fn arguments_are_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
