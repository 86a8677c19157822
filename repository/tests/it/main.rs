//! Integration tests of the repository crate.

mod component_archive;
mod counting;
mod ctf;
mod forms;
mod mapping;
mod oci;
mod remote;
mod session;
