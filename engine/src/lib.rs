//! The transfer engine: from a spec to a graph to a plan to a run.

pub mod language;
