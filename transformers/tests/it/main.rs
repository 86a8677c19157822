//! Whole specs, lowered and run with the built-in step types.

mod conversions;
mod disk;
mod faithful;
mod forgeries;
mod local_artifacts;
mod order;
mod remote;
mod requests;
mod schemas;
mod seed;
mod signing;
mod support;
mod traps;
