//! A client of OCI registries (distribution-spec 1.1) and its [`ContentStore`](ocm_content::ContentStore).
//!
//! *Invariants*:
//! - Manifests are the bytes the registry has, checked against the digest they were asked for by.
//! - A credential goes to the registry it is configured for and to the token service which that registry names, nowhere
//!   else: not to the target of a redirect, not to another scheme or port, not to the host of a foreign layer.
//! - There is no process-wide state: connections, tokens, memories of what a registry can do live and die with a [`Client`].
//! - A short request holds one request slot for its round trip and waits for nothing else meanwhile; the bodies of blobs
//!   hold none, since who copies has transfer slots ([`ocm_content::limits`]).
//!
//! *Pushing a blob.* `POST ?mount=D&from=<repository>` is check and session in one: a registry that has the blob answers
//! 201, another one opens a session. Registries that stumble over a mount from the repository itself are remembered and
//! asked with HEAD and POST. Up to [`ClientConfig::chunk_threshold`] one PUT streams the blob; above it, PATCHes stream
//! chunks, and after a break the session is asked how far it came. What can be read only once, or has no digest yet, goes
//! in chunks that are kept until the registry has them, hashed on the way.
//!
//! *Pulling a blob.* One GET; when the body breaks or stalls, a ranged GET goes on at the byte where it broke, below the
//! reader, so that a running hash simply goes on.

mod auth;
mod client;
mod config;
mod download;
mod endpoint;
mod errors;
pub mod headers;
mod relay;
mod retry;
mod store;
mod upload;
mod web;

pub use client::Client;
pub use config::{ClientConfig, HostConfig, Proxies, Timeouts};
pub use relay::Relayed;
pub use retry::{Jitter, RetryConfig};
pub use store::OciStore;
pub(crate) use web::{Expected, WebRequest};
