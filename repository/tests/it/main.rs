//! Integration tests of the repository crate.

mod ctf;
mod mapping;
mod oci;
mod session;
