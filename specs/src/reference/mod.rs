//! References: the short texts by which people and documents name things in repositories.

pub mod oci;

pub use oci::{OciReference, OciReferenceError, Scheme};
