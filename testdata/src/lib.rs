//! What tests are made of: fixtures that need no files, component versions made of
//! them, a registry that misbehaves on request, and other people's programs to test against.
//!
//! Invariant: for tests only, no other crate depends on this one outside of them. Everything here is deterministic: the
//! same call gives the same bytes, on every machine.

pub mod components;
pub mod faults;
pub mod fixtures;
pub mod git;
pub mod liar;
pub mod peers;
pub mod tunnels;
pub mod web;

/// The embedded registry, for tests of crates that do not use it otherwise.
pub use ocm_registry as registry;

/// Tells how much a test went through (`144 cells`).
#[expect(
    clippy::print_stdout,
    reason = "who runs the tests should know what was covered"
)]
pub fn tell(text: &str) {
    println!("{text}");
}
