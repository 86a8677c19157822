//! An OCI registry inside the process: the OCI distribution specification 1.1 over any content stores.
//!
//! *Invariant*: this crate knows HTTP and [`Stores`], and nothing of where those keep their bytes. Content streams
//! through in both directions in bounded memory; every table that a client can make grow has a limit; what belongs to a
//! request ends with its connection, and everything ends with the [`Running`] server.
//!
//! A request passes `router` (which endpoint, may the caller use it) and one of `blobs`, `uploads`, `manifests` and
//! `listing`; `auth` and `sessions` hold what outlives a request; `server` is the socket.

mod auth;
mod blobs;
mod failure;
mod listing;
mod manifests;
mod requests;
mod route;
mod router;
mod server;
mod sessions;
mod uploads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use ocm_content::{MANIFEST_LIMIT, Stores};

pub use auth::{Auth, User, Users};
pub use requests::Requests;
pub use server::Running;

use auth::Tokens;
use requests::Counter;
use sessions::Sessions;

/// What a registry serves, to whom, and how much of it.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// The repositories.
    pub stores: Arc<dyn Stores>,
    /// Who may do what.
    pub auth: Auth,
    /// Refuses all writes, besides what [`Stores::writable`] says.
    pub read_only: bool,
    /// What clients may use up.
    pub limits: RegistryLimits,
}

impl RegistryConfig {
    /// Everything in `stores`, open to everybody who can connect.
    pub fn new(stores: Arc<dyn Stores>) -> Self {
        Self {
            stores,
            auth: Auth::None,
            read_only: false,
            limits: RegistryLimits::default(),
        }
    }
}

/// What clients may use up.
#[derive(Clone, Debug)]
pub struct RegistryLimits {
    /// Upload sessions at once; more are answered with 429.
    pub sessions: usize,
    /// How long an upload session waits for its next request.
    pub session_idle: Duration,
    /// How long a connection may make no progress while it should: a request's head or body, a response's body.
    pub stall: Duration,
    /// Largest manifest, in bytes.
    pub manifest_size: u64,
    /// Entries in one page of a listing.
    pub page: usize,
    /// Connections at once; more wait to be accepted.
    pub connections: usize,
    /// Tokens at once; beyond it, those that expire first go.
    pub tokens: usize,
}

impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            sessions: 1000,
            session_idle: Duration::from_secs(10 * 60),
            stall: Duration::from_secs(60),
            manifest_size: MANIFEST_LIMIT,
            page: 1000,
            connections: 1024,
            tokens: 10_000,
        }
    }
}

/// A registry: what its requests share.
#[derive(Debug)]
pub struct Registry {
    pub(crate) config: RegistryConfig,
    pub(crate) sessions: Sessions,
    pub(crate) tokens: Tokens,
    pub(crate) requests: Counter,
}

impl Registry {
    /// A registry that is not reachable yet.
    pub fn new(config: RegistryConfig) -> Arc<Self> {
        Arc::new(Self {
            sessions: Sessions::new(config.limits.sessions, config.limits.session_idle),
            tokens: Tokens::new(config.limits.tokens),
            requests: Counter::default(),
            config,
        })
    }

    /// The endpoints of a registry of its own, for a server that the caller runs.
    pub fn router(config: RegistryConfig) -> Router {
        Self::new(config).routes()
    }

    /// The endpoints of this registry: `/v2/…`, and `/token` where it hands out tokens.
    pub fn routes(self: &Arc<Self>) -> Router {
        router::routes(self.clone())
    }

    /// Serves a registry on `addr`; port 0 takes any free one.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn bind(config: RegistryConfig, addr: SocketAddr) -> io::Result<Running> {
        let registry = Self::new(config);
        let router = registry.routes();
        registry.serve(router, addr).await
    }

    /// Serves `router`, which is [`Registry::routes`] with the caller's layers around it.
    ///
    /// # Errors
    /// When the address can't be listened on.
    pub async fn serve(self: Arc<Self>, router: Router, addr: SocketAddr) -> io::Result<Running> {
        server::serve(self, router, addr).await
    }

    /// Which requests came so far.
    pub fn requests(&self) -> Requests {
        self.requests.snapshot()
    }

    /// May anything be written?
    pub(crate) fn writable(&self) -> bool {
        !self.config.read_only && self.config.stores.writable()
    }
}
