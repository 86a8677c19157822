//! Tests of the crate's documents against the shared vectors.

mod vectors;
mod yaml;
