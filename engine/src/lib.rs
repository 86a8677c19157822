//! The transfer engine: spec to graph to plan to run.
//!
//! Invariant: this crate knows nothing of OCI or OCM storage and has no HTTP stack below it. It never prints, never reads
//! the environment, and keeps no process-wide state.

mod ask;
mod content_ref;
mod context;
mod error;
mod event;
mod graph;
mod identity;
pub mod language;
mod plan;
mod ports;
mod provenance;
mod run;
mod schedule;
mod schema;
mod step;
mod step_types;

pub use content_ref::{
    CONTENT_KEYWORD, CONTENT_TYPE, ContentRef, Lineage, MEDIA_TYPES_KEYWORD, content_schema,
};
pub use context::{Context, OnError, OpenContent, RunOptions, StepContext};
pub use error::StepError;
pub use event::{Event, Observer};
pub use graph::Graph;
pub use plan::Plan;
pub use run::{RunResult, Status};
pub use schedule::{Edge, Schedule};
pub use schema::spec_schema;
pub use step::{Effect, Outcome, Publish, Transformer};
pub use step_types::{Port, StepType, StepTypeInfo, StepTypes};
