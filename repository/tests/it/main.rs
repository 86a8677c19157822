//! Integration tests of the repository crate.

mod ctf;
mod oci;
