//! Integration tests of the repository crate.

mod counting;
mod ctf;
mod forms;
mod mapping;
mod oci;
mod remote;
mod session;
