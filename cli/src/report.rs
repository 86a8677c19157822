//! What a run did, as data: built from the run's events, written as JSON, summed up in a few lines for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use ocm_content::meter::Metered;
use ocm_engine::{Event, Plan, RunResult, Status, StepError};
use schemars::JsonSchema;
use serde::Serialize;

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
    /// All steps together.
    pub(crate) totals: Totals,
    /// How often the source of each blob was opened, by digest.
    pub(crate) reads: BTreeMap<String, u64>,
    /// From the start of the run to its end.
    pub(crate) took_ms: u64,
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
    pub(crate) fn report(
        mut self,
        steps: &[StepName],
        result: &RunResult,
        took: Duration,
    ) -> Report {
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
            status: match result.status {
                Status::Succeeded => ReportStatus::Succeeded,
                Status::Partial => ReportStatus::Partial,
                Status::Failed => ReportStatus::Failed,
                Status::Cancelled => ReportStatus::Cancelled,
            },
            steps: steps.collect(),
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

impl Report {
    /// The run in a few lines for people.
    pub(crate) fn summary(&self) -> String {
        let mut out = String::new();
        for step in &self.steps {
            let mark = match step.state {
                StepState::Finished => "✓",
                StepState::Failed => "✗",
                StepState::Skipped => "-",
            };
            let _ = writeln!(
                out,
                "{mark} {:<24} {}",
                step.label.as_deref().unwrap_or(&step.id),
                describe(step)
            );
        }
        let count = |state| self.steps.iter().filter(|step| step.state == state).count();
        let mut parts = vec![format!(
            "{} done",
            units::count(count(StepState::Finished), "step")
        )];
        for (state, word) in [
            (StepState::Failed, "failed"),
            (StepState::Skipped, "skipped"),
        ] {
            if count(state) > 0 {
                parts.push(format!("{} {word}", count(state)));
            }
        }
        let totals = &self.totals;
        parts.push(format!(
            "{} read, {} sent",
            units::size(totals.bytes_read),
            units::size(totals.bytes_sent)
        ));
        if totals.blobs_skipped + totals.blobs_mounted > 0 {
            parts.push(format!(
                "{} there already",
                units::count(
                    (totals.blobs_skipped + totals.blobs_mounted) as usize,
                    "blob"
                )
            ));
        }
        parts.push(format!(
            "{} in temporary files",
            units::size(totals.bytes_spooled)
        ));
        if totals.requests > 0 {
            parts.push(units::count(totals.requests as usize, "request"));
        }
        let _ = writeln!(
            out,
            "{} in {}",
            parts.join(", "),
            units::duration(Duration::from_millis(self.took_ms))
        );
        out
    }
}

fn describe(step: &StepReport) -> String {
    if let Some(because) = &step.because {
        return format!("skipped because of {because}");
    }
    match step.state {
        StepState::Skipped => "skipped".to_owned(),
        StepState::Failed => "failed".to_owned(),
        StepState::Finished => {
            let mut parts = Vec::new();
            if step.moved.bytes_read > 0 {
                parts.push(units::size(step.moved.bytes_read));
            }
            let there = step.moved.blobs_skipped + step.moved.blobs_mounted;
            if there > 0 {
                parts.push(format!(
                    "{} there already",
                    units::count(there as usize, "blob")
                ));
            }
            parts.push(step.kind.clone());
            parts.join(", ")
        }
    }
}
