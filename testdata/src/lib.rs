//! What tests are made of: fixtures that need no files, and a registry that misbehaves on request.
//!
//! Invariant: for tests only, no other crate depends on this one outside of them. Everything here is deterministic: the
//! same call gives the same bytes, on every machine.

pub mod faults;
pub mod fixtures;
