//! YAML and JSON in and out: the one place that knows YAML.
//!
//! Invariant: no other module names a YAML library.

mod node;

pub use node::{Map, Member, Node, Position, Source, Span, Value};
