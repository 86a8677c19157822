//! References: the short texts by which people and documents name things in repositories.

pub mod component;
pub mod oci;
pub mod repository;

pub use component::{COMPONENT_DESCRIPTORS, ComponentReference, ComponentReferenceError};
pub use oci::{OciReference, OciReferenceError, Scheme};
pub use repository::RepositoryReferenceError;
