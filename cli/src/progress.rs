//! What a run looks like while it runs: lines that redraw on a terminal, plain lines elsewhere, nothing when quiet.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ocm_engine::Event;

use crate::report::StepName;
use crate::ui::shown;
use crate::units;

/// How often a redrawing display changes.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Shows a run on stderr.
pub(crate) enum Progress {
    /// Nothing but errors.
    Quiet,
    /// One line per thing that happened.
    Lines,
    /// One line per running step and one for the whole.
    Redraw(Box<Redraw>),
}

/// The state of a display that redraws.
pub(crate) struct Redraw {
    bars: MultiProgress,
    whole: ProgressBar,
    running: BTreeMap<String, Running>,
    labels: BTreeMap<String, String>,
    read: u64,
    started: Instant,
}

struct Running {
    bar: ProgressBar,
    read: u64,
    since: Instant,
}

impl Progress {
    /// What fits stderr: `quiet` wins, a terminal redraws unless it is a dumb one.
    pub(crate) fn new(quiet: bool, dumb_terminal: bool, steps: &[StepName]) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if dumb_terminal || !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let whole = bars.add(ProgressBar::new(steps.len() as u64));
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} steps  {msg}") {
            whole.set_style(style);
        }
        let labels = steps
            .iter()
            .filter_map(|step| Some((step.id.clone(), step.label.clone()?)))
            .collect();
        let (read, started, running) = (0, Instant::now(), BTreeMap::new());
        Self::Redraw(Box::new(Redraw {
            bars,
            whole,
            running,
            labels,
            read,
            started,
        }))
    }

    /// Takes an event in.
    pub(crate) fn show(&mut self, event: &Event) {
        match self {
            Self::Quiet => {}
            Self::Lines => show_line(event),
            Self::Redraw(redraw) => redraw.show(event),
        }
    }

    /// Was each step told of when it ended? Then nobody needs a list at the end.
    pub(crate) fn told_each(&self) -> bool {
        matches!(self, Self::Lines)
    }

    /// Takes the display away, so that what follows stands alone.
    pub(crate) fn end(&mut self) {
        if let Self::Redraw(redraw) = self {
            redraw.whole.finish_and_clear();
            let _ = redraw.bars.clear();
        }
    }
}

#[expect(clippy::print_stderr, reason = "this is the program's own progress")]
fn show_line(event: &Event) {
    match event {
        Event::Started { step } => eprintln!("started  {step}"),
        Event::Warning { step, message } => {
            eprintln!("{}", shown(&format!("warning  {step}: {message}")));
        }
        Event::Finished {
            step,
            metered,
            took,
        } => {
            let bytes = metered.bytes_sent.max(metered.bytes_read);
            let took = units::duration(*took);
            if bytes > 0 {
                eprintln!("finished {step} ({}, {took})", units::size(bytes));
            } else {
                eprintln!("finished {step} ({took})");
            }
        }
        Event::Failed { step, .. } => eprintln!("failed   {step}"),
        // The summary counts what was skipped.
        Event::Skipped { .. } | Event::Prepared { .. } | Event::Bytes { .. } => {}
    }
}

impl Redraw {
    fn show(&mut self, event: &Event) {
        let step = event.step().to_string();
        match event {
            Event::Started { .. } => self.start(step),
            Event::Bytes { done, total, .. } => self.bytes(&step, *done, *total),
            Event::Warning { message, .. } => {
                let text = shown(&format!("warning {step}: {message}"));
                let _ = self.bars.println(text);
            }
            Event::Prepared { .. } => {}
            Event::Finished { metered, .. } => {
                self.bytes(&step, metered.bytes_read, None);
                self.end(&step);
            }
            Event::Failed { .. } | Event::Skipped { .. } => self.end(&step),
        }
        let rate = self.read as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.whole.set_message(format!(
            "{}  {}/s",
            units::size(self.read),
            units::size(rate as u64)
        ));
    }

    fn start(&mut self, step: String) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix}  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(self.labels.get(&step).unwrap_or(&step).clone());
        self.running.insert(
            step,
            Running {
                bar,
                read: 0,
                since: Instant::now(),
            },
        );
    }

    fn bytes(&mut self, step: &str, done: u64, total: Option<u64>) {
        let Some(running) = self.running.get_mut(step) else {
            return;
        };
        self.read += done.saturating_sub(running.read);
        running.read = done;
        running
            .bar
            .set_message(moving(done, total, running.since.elapsed()));
        running.bar.tick();
    }

    fn end(&mut self, step: &str) {
        if let Some(running) = self.running.remove(step) {
            running.bar.finish_and_clear();
        }
        self.whole.inc(1);
    }
}

/// `12.0 MiB of 40.0 MiB, 3.0 MiB/s, 9 s left`, as far as it is known.
fn moving(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let mut text = units::size(done);
    let total = total.filter(|total| *total > done);
    if let Some(total) = total {
        text.push_str(&format!(" of {}", units::size(total)));
    }
    text.push_str(&format!(", {}/s", units::size(rate as u64)));
    if let Some(total) = total.filter(|_| rate >= 1.0) {
        let left = Duration::from_secs_f64((total - done) as f64 / rate);
        text.push_str(&format!(", {} left", units::duration(left)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_step_tells_bytes_rate_and_time_left() {
        let second = Duration::from_secs(1);
        for (done, total, expected) in [
            (
                1 << 20,
                Some(3 << 20),
                "1.0 MiB of 3.0 MiB, 1.0 MiB/s, 2.0 s left",
            ),
            (1 << 20, Some(1 << 20), "1.0 MiB, 1.0 MiB/s"),
            (1 << 20, None, "1.0 MiB, 1.0 MiB/s"),
            (0, Some(10), "0 B of 10 B, 0 B/s"),
        ] {
            assert_eq!(moving(done, total, second), expected);
        }
    }
}
