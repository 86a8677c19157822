//! Tests of the crate's documents against the shared vectors.

mod descriptors;
mod references;
mod traps;
mod vectors;
mod yaml;
