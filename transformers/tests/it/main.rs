//! Whole specs, lowered and run with the built-in step types.

mod local_artifacts;
mod seed;
mod support;
