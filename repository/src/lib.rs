//! Where component versions live: CTF archives, OCI registries, credentials.

pub mod credentials;
pub mod ctf;
pub mod oci;
mod remote;
pub mod repository;
pub mod resolver;
pub mod session;

pub use remote::{ChartMetadata, GitCommit, HelmChart};
pub use repository::{
    ComponentVersion, Existing, Known, PreparedVersion, Published, Repository, VersionOutcome,
    component_index, predict_local_blob,
};
pub use resolver::Resolver;
pub use session::{RunEnd, Session, SessionConfig, WrittenArchive};
