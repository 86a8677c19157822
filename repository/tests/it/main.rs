//! Integration tests of the repository crate.

mod component_archive;
mod component_index;
mod counting;
mod ctf;
mod forms;
mod git;
mod mapping;
mod oci;
mod remote;
mod session;
mod traps;
