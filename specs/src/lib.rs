//! The documents of the Open Component Model: digests, descriptors, references, the transfer spec.
//!
//! Invariant: pure data. This crate opens no file, sends no request, reads no clock and no environment.

pub mod diagnostic;
pub mod digest;
pub mod media_type;
pub mod oci;
pub mod reference;
pub mod transfer;
pub mod yaml;

pub use digest::{Algorithm, Digest, Hasher};
