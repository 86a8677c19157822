//! Step types written by others, run as sandboxed WebAssembly components.
//!
//! This crate is the place for the WIT world, the host and the guest kit. It meets the engine through
//! [`ocm_engine::StepType`] alone: a plugin becomes one of those, with schemas from its own description, and is added to
//! [`ocm_engine::StepTypes`] like a built-in one. It is not there yet: until then this crate holds its place in the
//! dependency graph, so that nothing else grows into it.
//!
//! Invariant: it sees the engine and content, never a repository: what a plugin may reach is handed to it.
