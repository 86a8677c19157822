//! Where component versions live: CTF archives, OCI registries, credentials.

pub mod credentials;
pub mod ctf;
pub mod oci;
