//! Measured parts run in processes of their own, so that the memory of one figure is not that of another.
//!
//! *Invariant*: a child is this same program with a hidden command. It ends by itself when its parent goes away or when
//! its job is done.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{Result, cel_path, check, generate, relay, schedule, signing, wasm};

/// What a child is to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Runs of a plan of no-op steps.
    Run { nodes: usize, rounds: usize },
    /// The schedule alone.
    Schedule { nodes: usize, rounds: usize },
    /// From text to a plan.
    Check { nodes: usize, rounds: usize },
    /// A plain field path over a document of that many entries.
    CelPath { entries: usize, rounds: usize },
    /// From a descriptor with that many resources to its digest.
    Normalise { resources: usize, rounds: usize },
    /// Signatures by a key of 4096 bits.
    Sign { rounds: usize },
    /// From an archive of that many component versions to a plan that carries them.
    Generate { folder: String, count: usize },
    /// Bytes through steps.
    Stream(wasm::Stream),
    /// Steps that do nothing, of a plugin.
    Call {
        cache: String,
        steps: usize,
        rounds: usize,
    },
    /// A plugin's code out of the cache.
    Load { cache: String, rounds: usize },
    /// That many instances at once, each in the middle of its work.
    Instances { cache: String, count: usize },
    /// One artifact from registry to registry.
    Relay { source: String, target: String },
    /// The least that any program would have to do for it.
    Floor {
        source: String,
        target: String,
        digest: String,
    },
}

/// What a child found.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds of the processor for one round, user and system.
    pub(crate) cpu: f64,
    /// Most memory that the whole process had, in bytes.
    pub(crate) peak_rss: u64,
    /// Most bytes that were in temporary files at once, where the job tells.
    #[serde(default)]
    pub(crate) temp_bytes: u64,
}

impl Sample {
    /// The memory in MiB.
    pub(crate) fn peak_rss_mib(&self) -> f64 {
        self.peak_rss as f64 / f64::from(1 << 20)
    }
}

impl Job {
    /// Does it in a child.
    pub(crate) fn measure(&self) -> Result<Sample> {
        let job = serde_json::to_string(self)?;
        let output = this_program()?.arg("measure").arg(job).output()?;
        io::stderr().write_all(&output.stderr)?;
        if !output.status.success() {
            return Err(format!("measuring {self:?} ended with {}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Does it here: what the child is for.
    pub(crate) fn run(self) -> Result<Sample> {
        let mut temp_bytes = 0;
        let cpu = match self {
            Self::Run { nodes, rounds } => schedule::run(nodes, rounds)?,
            Self::Schedule { nodes, rounds } => schedule::core(nodes, rounds),
            Self::Check { nodes, rounds } => check::check(nodes, rounds)?,
            Self::CelPath { entries, rounds } => cel_path::evaluate(entries, rounds)?,
            Self::Normalise { resources, rounds } => signing::normalise(resources, rounds)?,
            Self::Sign { rounds } => signing::sign(rounds)?,
            Self::Generate { folder, count } => generate::plan_of(&folder, count)?,
            Self::Stream(job) => job.run(&mut temp_bytes)?,
            Self::Call {
                cache,
                steps,
                rounds,
            } => wasm::call(&cache, steps, rounds)?,
            Self::Load { cache, rounds } => wasm::load(&cache, rounds)?,
            Self::Instances { cache, count } => wasm::instances(&cache, count)?,
            Self::Relay { source, target } => relay::relay(&source, &target)?,
            Self::Floor {
                source,
                target,
                digest,
            } => relay::floor(&source, &target, &digest)?,
        };
        Ok(Sample {
            cpu,
            peak_rss: peak_rss()?,
            temp_bytes,
        })
    }
}

/// Seconds of the processor that this process has used so far, user and system, all threads.
pub(crate) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds of the processor that `f` uses.
pub(crate) fn cpu_of<T>(f: impl FnOnce() -> T) -> (f64, T) {
    let start = cpu_seconds();
    let result = f();
    (cpu_seconds() - start, result)
}

/// Most memory that this process ever had, in bytes, as the system tells (`VmHWM`, proc(5)).
fn peak_rss() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("this system does not tell peak memory: {error}"))?;
    Ok(parse_peak_rss(&status).ok_or("no `VmHWM` in /proc/self/status")?)
}

fn parse_peak_rss(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Seconds of the processor that ended children of this process have used (proc(5), `cutime` and `cstime`): good to a
/// hundredth of a second.
pub(crate) fn children_cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    Ok(parse_children_cpu(&stat).ok_or("/proc/self/stat can't be read")?)
}

fn parse_children_cpu(stat: &str) -> Option<f64> {
    /// USER_HZ is 100 on every architecture that this is measured on.
    const TICKS_PER_SECOND: f64 = 100.0;
    // The name of the program is in parentheses and may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(13);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn this_program() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// A child that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    // Its end is what the child waits for.
    _stdin: Option<ChildStdin>,
    /// What it printed first.
    pub(crate) greeting: String,
}

impl Server {
    /// Starts this program with a hidden command that prints one line when it is ready.
    pub(crate) fn start(command: &str, argument: &str) -> Result<Self> {
        let mut child = this_program()?
            .arg(command)
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output of the server")?;
        let mut greeting = String::new();
        BufReader::new(stdout).read_line(&mut greeting)?;
        if greeting.is_empty() {
            return Err(format!("the server {command} ended with {}", child.wait()?).into());
        }
        Ok(Self {
            _stdin: child.stdin.take(),
            child,
            greeting,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Wall time in milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   14540 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(parse_peak_rss(status), Some(14540 << 10));
        assert_eq!(parse_peak_rss("Name: x"), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 0 0 10 20 130 20 20 0 1 0";
        assert_eq!(parse_children_cpu(stat), Some(1.5));
    }

    #[test]
    fn work_costs_time() {
        let (cpu, _) =
            cpu_of(|| (0..3_000_000_u64).fold(0, |sum, n| sum ^ std::hint::black_box(n)));
        assert!(cpu > 0.0);
    }
}
