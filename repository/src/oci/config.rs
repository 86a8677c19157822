//! What a client is told: certificates, proxies, aliases, times, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use url::Url;

use super::retry::RetryConfig;
use crate::credentials::Secret;

/// Everything that a [`super::Client`] does not find out by itself.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// More certificate authorities, besides those of the system; each may hold several certificates in PEM.
    pub ca_certificates: Vec<Vec<u8>>,
    /// Certificate and key (PEM, one after the other) to show to a `host[:port]`.
    pub client_certificates: BTreeMap<String, Secret>,
    /// `host[:port]` of registries that are spoken to without TLS. Loopback hosts need not be listed.
    pub plain_http: BTreeSet<String>,
    /// `host[:port]` of registries whose certificates are not checked.
    pub insecure_skip_verify: BTreeSet<String>,
    /// Proxies. There are none but these.
    pub proxies: Proxies,
    /// Requests for a `host[:port]` go to the URL, which may have a path of its own.
    pub host_aliases: BTreeMap<String, Url>,
    /// When and how often to try again.
    pub retry: RetryConfig,
    /// What is waited for, and how long.
    pub timeouts: Timeouts,
    /// Blobs above this many bytes are uploaded in chunks that can be resumed, others in one request.
    pub chunk_threshold: u64,
    /// Bytes per chunk of such a blob.
    pub chunk_size: u64,
    /// Bytes per chunk of a blob that can be read only once or whose digest is not known yet. A chunk is kept in memory until
    /// the registry has it; a blob that fits into one is sent like a known one.
    pub replay_size: u64,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            user_agent: concat!("ocm/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_certificates: Vec::new(),
            client_certificates: BTreeMap::new(),
            plain_http: BTreeSet::new(),
            insecure_skip_verify: BTreeSet::new(),
            proxies: Proxies::default(),
            host_aliases: BTreeMap::new(),
            retry: RetryConfig::default(),
            timeouts: Timeouts::default(),
            chunk_threshold: 128 << 20,
            chunk_size: 128 << 20,
            replay_size: 8 << 20,
        }
    }
}

/// Proxies by the scheme of the request; loopback hosts are never asked through one.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<Url>,
    /// For `https://`.
    pub https: Option<Url>,
    /// Hosts, domains and networks that are asked directly, as in `NO_PROXY`.
    pub bypass: Vec<String>,
}

/// Waiting that ends by itself.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// From the end of a request to the head of its answer.
    pub answer: Duration,
    /// From the last byte of an upload to the registry's word that it has it (it may hash or copy meanwhile).
    pub commit: Duration,
    /// Without a byte moving, in either direction.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            commit: Duration::from_secs(600),
            stall: Duration::from_secs(60),
        }
    }
}
