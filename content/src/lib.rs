//! The bytes: lazy blobs, artifacts, stores addressed by digest, and how they are copied.
//!
//! Invariant: this crate knows digests and OCI manifests; it knows nothing of components, of steps or of HTTP.
//!
//! A [`Blob`] is a handle to bytes that nobody has read yet; an [`Artifact`] is a root manifest and the store that has its
//! parts. The *reader pulls*: nothing flows until a target asks for it, and back-pressure is the target's transport.

pub mod archive;
mod artifact;
mod assembled;
pub mod audit;
mod blob;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod copy;
pub mod disk;
mod error;
mod file;
pub mod gzip;
pub mod limits;
mod locations;
pub mod memory;
pub mod meter;
pub mod name;
mod read_ahead;
mod segments;
pub mod spool;
mod store;
pub mod tarball;
pub mod tee;
pub mod unpack;
mod view;

pub use archive::{
    ArchiveForm, archive as write_archive, expect_also, expect_artifact, layout_tar, open_archive,
};
pub use artifact::{Artifact, Composed, Content, Part, Stored};
pub use assembled::assemble;
pub use blob::{Access, Blob, ByteStream, Locator, Source};
pub use copy::{Copier, CopyOptions, Prepared, Referrers, Seen};
pub use disk::Disk;
pub use error::{Error, ErrorKind, Result};
pub use file::FileSource;
pub use limits::{Host, Limits};
pub use locations::Locations;
pub use memory::MemoryStores;
pub use meter::Meter;
pub use read_ahead::with_manifest;
pub use segments::Segments;
pub use spool::{Spool, spool};
pub use store::{ContentStore, MANIFEST_LIMIT, Outcome, Pushed, RawManifest, Staging, Stores};
pub use tee::share;
