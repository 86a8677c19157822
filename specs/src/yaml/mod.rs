//! YAML and JSON in and out: the one place that knows YAML.
//!
//! [`load`] makes a [`Node`] tree with positions, [`from_node`] a typed value of it, [`to_string`] and
//! [`to_string_sorted`] text of data, [`edit`] a text that differs in one value only.
//!
//! Invariant: no other module names a YAML library.

mod builder;
mod de;
mod edit;
mod emit;
mod error;
mod json;
mod limits;
mod loader;
mod node;
mod parser;
mod path;
mod place;
mod scalar;

pub use de::{NodeError, from_node};
pub use edit::{Edit, EditError, edit};
pub use emit::{to_string, to_string_sorted};
pub use error::YamlError;
pub use limits::{ALIAS_NODE_LIMIT, DEPTH_CEILING, DEPTH_LIMIT, NODE_LIMIT, TEXT_LIMIT};
pub use loader::{LoadOptions, load, load_all};
pub use node::{Map, Member, Node, Position, Source, Span, Value};
pub use path::{Path, PathError, Segment};
pub use place::offset_in_scalar;
pub use scalar::Scalars;
