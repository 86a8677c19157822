//! Where component versions live: CTF archives, OCI registries, credentials.

pub mod credentials;
pub mod ctf;
mod file;
pub mod oci;
pub mod repository;
pub mod session;

pub use repository::{
    ComponentVersion, Existing, Known, PreparedVersion, Published, Repository, VersionOutcome,
};
pub use session::{Session, SessionConfig};
