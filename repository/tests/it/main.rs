//! Integration tests of the repository crate.

mod component_archive;
mod counting;
mod ctf;
mod forms;
mod git;
mod mapping;
mod oci;
mod remote;
mod session;
