//! Where component versions live: CTF archives and OCI registries.

pub mod ctf;
