//! The documents of the Open Component Model: digests, descriptors, references, the transfer spec.
//!
//! Invariant: pure data. This crate opens no file, sends no request, reads no clock and no environment.

pub mod access;
pub mod config;
pub mod constraint;
pub mod constructor;
pub mod descriptor;
pub mod diagnostic;
pub mod digest;
pub mod identity;
pub mod json;
pub mod media_type;
pub mod names;
pub mod normalisation;
pub mod oci;
pub mod platform;
pub mod reference;
pub mod repository_spec;
pub mod transfer;
pub mod yaml;

pub use constraint::Constraint;
pub use descriptor::ComponentDescriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use identity::Identity;
pub use repository_spec::RepositorySpec;
