//! What a run did, as data: built from the run's events, written as JSON, summed up in a few lines for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use ocm_content::meter::Metered;
use ocm_engine::{Event, Plan, Status, StepError};
use ocm_repository::{VersionOutcome, WrittenArchive};
use ocm_transformers::component::Written;
use ocm_transformers::generate::Statement;
use schemars::JsonSchema;
use serde::Serialize;

use crate::commands::transfer::Ended;
use crate::units;

/// Version of the report's format.
const API_VERSION: &str = "report.ocm.software/v1alpha1";

/// What a transfer did. Sizes in bytes, times in milliseconds.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// `report.ocm.software/v1alpha1`.
    pub(crate) api_version: &'static str,
    /// How it ended.
    pub(crate) status: ReportStatus,
    /// Every step in document order.
    pub(crate) steps: Vec<StepReport>,
    /// The plugins that step types came from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) plugins: Vec<PluginReport>,
    /// The archive files (tar, tgz) that were written behind the steps; what steps put there is visible since then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) archives: Vec<ArchiveReport>,
    /// The component versions that became visible, by target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) component_versions: Vec<VersionReport>,
    /// What of the component versions carried still points outside of the target; of runs that carried some and succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) completeness: Option<Statement>,
    /// All steps together.
    pub(crate) totals: Totals,
    /// How often the source of each blob was opened, by digest.
    pub(crate) reads: BTreeMap<String, u64>,
    /// From the start of the run to its end.
    pub(crate) took_ms: u64,
}

/// A plugin of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PluginReport {
    /// How it calls itself.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// The digest of its component.
    pub(crate) digest: String,
    /// Where that came from; not there for what was installed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    /// The signatures that were verified over it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) signatures: Vec<String>,
    /// What it was allowed, as in `http:api.example, clock`, or `none`.
    pub(crate) rights: String,
    /// Its step types.
    pub(crate) types: Vec<String>,
}

/// A component version at a target.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionReport {
    /// `component:version`.
    pub(crate) component_version: String,
    /// The repository.
    pub(crate) target: String,
    /// `created`, `present` (an equal one was there), `updated` (in what is not signed), `replaced` or `kept` (another one
    /// is there).
    pub(crate) outcome: &'static str,
}

/// The component versions of a run, by target and name.
pub(crate) fn versions(written: &Written) -> Vec<VersionReport> {
    let all = written.all().into_iter();
    all.map(|((target, component_version), outcome)| VersionReport {
        component_version,
        target,
        outcome: match outcome {
            VersionOutcome::Created => "created",
            VersionOutcome::Present => "present",
            VersionOutcome::Updated => "updated",
            VersionOutcome::Replaced => "replaced",
            VersionOutcome::Kept => "kept",
            _ => "written",
        },
    })
    .collect()
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReportStatus {
    /// Every step ended well.
    Succeeded,
    /// Some did; what they publish is visible.
    Partial,
    /// One failed, and nothing that waited is visible.
    Failed,
    /// The run was interrupted.
    Cancelled,
}

/// One step.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepReport {
    /// Its id.
    pub(crate) id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Its label, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
    /// How it ended.
    pub(crate) state: StepState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepFailure>,
    /// The failed step because of which it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) because: Option<String>,
    /// What it wanted the user to know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) warnings: Vec<String>,
    /// What it moved.
    #[serde(flatten)]
    pub(crate) moved: Totals,
    /// From its start to its end.
    pub(crate) took_ms: u64,
}

/// An archive file.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ArchiveReport {
    /// Its absolute path.
    pub(crate) path: String,
    /// Why it could not be written and is as it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<StepFailure>,
}

impl ArchiveReport {
    fn of(archive: &WrittenArchive) -> Self {
        let error = archive.error.as_ref().map(|error| StepFailure {
            kind: error.kind().as_str().to_owned(),
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
            field: None,
            origin: None,
        });
        Self {
            path: archive.path.display().to_string(),
            error,
        }
    }
}

/// The state of a step at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StepState {
    /// It ended well.
    Finished,
    /// It failed.
    Failed,
    /// It was not run, or what it prepared was not published.
    Skipped,
}

/// Why a step failed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepFailure {
    /// A stable word, as in `not-found`.
    pub(crate) kind: String,
    /// What happened.
    pub(crate) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// The input field it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    /// The step whose bytes broke, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
}

/// What moved. Sizes in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// Read from sources.
    pub(crate) bytes_read: u64,
    /// Sent to targets.
    pub(crate) bytes_sent: u64,
    /// Written to temporary files.
    pub(crate) bytes_spooled: u64,
    /// Requests to registries.
    pub(crate) requests: u64,
    /// Blobs that the target had already.
    pub(crate) blobs_skipped: u64,
    /// Blobs that the target took over from another of its repositories.
    pub(crate) blobs_mounted: u64,
}

impl Totals {
    fn add(&mut self, metered: &Metered) {
        self.bytes_read += metered.bytes_read;
        self.bytes_sent += metered.bytes_sent;
        self.bytes_spooled += metered.bytes_spooled;
        self.requests += metered.requests;
        self.blobs_skipped += metered.blobs_skipped;
        self.blobs_mounted += metered.blobs_mounted;
    }
}

/// Listens to a run and keeps what the report says.
#[derive(Default)]
pub(crate) struct Recorder {
    steps: BTreeMap<String, Recorded>,
    totals: Totals,
    reads: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Recorded {
    state: Option<StepState>,
    error: Option<StepFailure>,
    because: Option<String>,
    warnings: Vec<String>,
    moved: Totals,
    took: Duration,
}

impl Recorder {
    /// Takes an event in.
    pub(crate) fn record(&mut self, event: &Event) {
        let step = event.step().to_string();
        let recorded = self.steps.entry(step.clone()).or_default();
        let moved = match event {
            Event::Warning { message, .. } => {
                recorded.warnings.push(message.clone());
                None
            }
            Event::Finished { metered, took, .. } => {
                recorded.state = Some(StepState::Finished);
                Some((metered, took))
            }
            Event::Failed {
                error,
                metered,
                took,
                ..
            } => {
                recorded.state = Some(StepState::Failed);
                recorded.error = Some(failure(&step, error));
                Some((metered, took))
            }
            Event::Skipped { because, .. } => {
                recorded.state = Some(StepState::Skipped);
                recorded.because = because.as_ref().map(ToString::to_string);
                None
            }
            Event::Started { .. } | Event::Bytes { .. } | Event::Prepared { .. } => None,
        };
        if let Some((metered, took)) = moved {
            recorded.moved.add(metered);
            recorded.took = *took;
            self.totals.add(metered);
            for (digest, count) in &metered.reads {
                *self.reads.entry(digest.to_string()).or_default() += count;
            }
        }
    }

    /// The report, with the steps in the order of the plan.
    pub(crate) fn report(mut self, steps: &[StepName], ended: &Ended, took: Duration) -> Report {
        let steps = steps.iter().map(|name| {
            let recorded = self.steps.remove(&name.id).unwrap_or_default();
            StepReport {
                id: name.id.clone(),
                kind: name.kind.clone(),
                label: name.label.clone(),
                state: recorded.state.unwrap_or(StepState::Skipped),
                error: recorded.error,
                because: recorded.because,
                warnings: recorded.warnings,
                moved: recorded.moved,
                took_ms: millis(recorded.took),
            }
        });
        Report {
            api_version: API_VERSION,
            status: match ended.result.status {
                Status::Succeeded => ReportStatus::Succeeded,
                Status::Partial => ReportStatus::Partial,
                Status::Failed => ReportStatus::Failed,
                Status::Cancelled => ReportStatus::Cancelled,
            },
            steps: steps.collect(),
            plugins: Vec::new(),
            archives: ended.archives.iter().map(ArchiveReport::of).collect(),
            component_versions: Vec::new(),
            completeness: None,
            totals: self.totals,
            reads: self.reads,
            took_ms: millis(took),
        }
    }
}

/// A step as the plan names it.
#[derive(Clone, Debug)]
pub(crate) struct StepName {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) label: Option<String>,
}

/// The names of a plan's steps, in document order.
pub(crate) fn step_names(plan: &Plan) -> Vec<StepName> {
    plan.step_names()
        .map(|(id, kind, label)| StepName {
            id: id.to_string(),
            kind: kind.to_owned(),
            label: label.map(str::to_owned),
        })
        .collect()
}

fn failure(step: &str, error: &StepError) -> StepFailure {
    StepFailure {
        kind: error.kind().as_str().to_owned(),
        message: error.error.to_string(),
        hint: error.error.hint().map(str::to_owned),
        field: error.field.clone(),
        origin: error
            .error
            .origin()
            .filter(|origin| *origin != step)
            .map(str::to_owned),
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Widest column of a table in characters; what is longer moves the rest of its line.
const WIDEST: usize = 48;

impl Report {
    /// The run in a few lines for people. With `every`, a line for each step that ran; without, only for those that went
    /// wrong.
    pub(crate) fn summary(&self, every: bool) -> String {
        let ran: Vec<&StepReport> = self.steps.iter().filter(|step| step.ran(every)).collect();
        let names = width(ran.iter().map(|step| step.name()));
        let kinds = width(ran.iter().map(|step| step.kind.as_str()));
        let mut out = String::new();
        for step in ran {
            let mark = if step.state == StepState::Failed {
                "✗"
            } else {
                "✓"
            };
            let (name, kind) = (step.name(), &step.kind);
            let line = format!("{mark} {name:<names$}  {kind:<kinds$}  {}", step.moved());
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for (because, count) in self.skipped() {
            let because = because.map(|step| format!(" because of {step}"));
            let steps = units::count(count, "step");
            let _ = writeln!(out, "- {steps} skipped{}", because.unwrap_or_default());
        }
        for archive in &self.archives {
            let mark = if archive.error.is_none() {
                "✓"
            } else {
                "✗"
            };
            let _ = writeln!(out, "{mark} {}", archive.path);
        }
        out.push_str(&self.carried());
        out.push_str(&self.total());
        if let Some(statement) = &self.completeness {
            out.push_str(&statement.text());
        }
        out
    }

    /// The component versions that became visible, in one line; nothing where there are none.
    fn carried(&self) -> String {
        if self.component_versions.is_empty() {
            return String::new();
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for version in &self.component_versions {
            *counts.entry(version.outcome).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .map(|(outcome, count)| format!("{count} {outcome}"))
            .collect();
        let versions = units::count(self.component_versions.len(), "component version");
        format!("{versions}: {}\n", counts.join(", "))
    }

    /// Steps that did not run, by the failed step that kept them from it.
    fn skipped(&self) -> BTreeMap<Option<&str>, usize> {
        let mut skipped = BTreeMap::new();
        for step in &self.steps {
            if step.state == StepState::Skipped {
                *skipped.entry(step.because.as_deref()).or_default() += 1;
            }
        }
        skipped
    }

    /// What happened in all, in one line.
    fn total(&self) -> String {
        let count = |state| self.steps.iter().filter(|step| step.state == state).count();
        let done = units::count(count(StepState::Finished), "step");
        let mut parts = vec![format!("{done} done")];
        for (state, word) in [
            (StepState::Failed, "failed"),
            (StepState::Skipped, "skipped"),
        ] {
            if count(state) > 0 {
                parts.push(format!("{} {word}", count(state)));
            }
        }
        let totals = &self.totals;
        for (bytes, word) in [
            (totals.bytes_read, "read"),
            (totals.bytes_sent, "sent"),
            (totals.bytes_spooled, "in temporary files"),
        ] {
            if bytes > 0 {
                parts.push(format!("{} {word}", units::size(bytes)));
            }
        }
        parts.extend(there_already(totals));
        if totals.requests > 0 {
            parts.push(units::count(totals.requests as usize, "request"));
        }
        let took = units::duration(Duration::from_millis(self.took_ms));
        format!("{} in {took}\n", parts.join(", "))
    }
}

impl StepReport {
    fn ran(&self, every: bool) -> bool {
        match self.state {
            StepState::Finished => every,
            StepState::Failed => true,
            StepState::Skipped => false,
        }
    }

    /// What people call it.
    fn name(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.id)
    }

    /// What it moved, in words; nothing for a step that handed on what others move.
    fn moved(&self) -> String {
        let moved = &self.moved;
        let mut parts = Vec::new();
        if self.state == StepState::Failed {
            parts.push("failed".to_owned());
        }
        if moved.bytes_sent > 0 {
            parts.push(format!("{} sent", units::size(moved.bytes_sent)));
        } else if moved.bytes_read > 0 {
            parts.push(format!("{} read", units::size(moved.bytes_read)));
        }
        parts.extend(there_already(moved));
        parts.join(", ")
    }
}

fn there_already(totals: &Totals) -> Option<String> {
    let blobs = totals.blobs_skipped + totals.blobs_mounted;
    (blobs > 0).then(|| format!("{} there already", units::count(blobs as usize, "blob")))
}

fn width<'t>(texts: impl Iterator<Item = &'t str>) -> usize {
    let widths = texts.map(|text| text.chars().count());
    widths.max().unwrap_or_default().min(WIDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(id: &str, label: Option<&str>, state: StepState, moved: Totals) -> StepReport {
        StepReport {
            id: id.to_owned(),
            kind: "type/v1".to_owned(),
            label: label.map(str::to_owned),
            state,
            error: None,
            because: (state == StepState::Skipped).then(|| "broken".to_owned()),
            warnings: Vec::new(),
            moved,
            took_ms: 0,
        }
    }

    #[test]
    fn a_summary_is_a_table_without_noise() {
        let sent = Totals {
            bytes_read: 10,
            bytes_sent: 2048,
            blobs_mounted: 1,
            requests: 3,
            ..Totals::default()
        };
        let nothing = Totals::default();
        let report = Report {
            api_version: API_VERSION,
            status: ReportStatus::Failed,
            steps: vec![
                step("a", Some("the first"), StepState::Finished, nothing),
                step("b", None, StepState::Finished, sent),
                step("broken", None, StepState::Failed, nothing),
                step("c", None, StepState::Skipped, nothing),
                step("d", None, StepState::Skipped, nothing),
            ],
            plugins: Vec::new(),
            archives: Vec::new(),
            component_versions: Vec::new(),
            completeness: None,
            totals: sent,
            reads: BTreeMap::new(),
            took_ms: 1500,
        };
        let end = "\
- 2 steps skipped because of broken
2 steps done, 1 failed, 2 skipped, 10 B read, 2.0 KiB sent, 1 blob there already, 3 requests in 1.5 s
";
        let table = "\
✓ the first  type/v1
✓ b          type/v1  2.0 KiB sent, 1 blob there already
✗ broken     type/v1  failed
";
        assert_eq!(report.summary(true), format!("{table}{end}"));
        let broken = "✗ broken  type/v1  failed\n";
        assert_eq!(report.summary(false), format!("{broken}{end}"));
    }
}
