//! What a client is told: certificates, proxies, aliases, times, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
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
    /// Certificate authorities in PEM that are trusted at a `host[:port]` only.
    pub host_authorities: BTreeMap<String, Vec<u8>>,
    /// Certificate and key (PEM, one after the other) to show to a `host[:port]`.
    pub client_certificates: BTreeMap<String, Secret>,
    /// `host[:port]` of registries that are spoken to without TLS. Loopback hosts need not be listed.
    pub plain_http: BTreeSet<String>,
    /// `host[:port]` of registries whose certificates are not checked; `*` for all.
    pub insecure_skip_verify: BTreeSet<String>,
    /// What is different for a `host` or a `host:port`; the latter comes first.
    pub hosts: BTreeMap<String, HostConfig>,
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
            host_authorities: BTreeMap::new(),
            client_certificates: BTreeMap::new(),
            plain_http: BTreeSet::new(),
            insecure_skip_verify: BTreeSet::new(),
            hosts: BTreeMap::new(),
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

impl ClientConfig {
    /// What is different for the host of a URL.
    fn host(&self, url: &Url) -> Option<&HostConfig> {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let find = |wanted: &str| {
            let mut hosts = self.hosts.iter();
            hosts.find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        };
        let found = find(&format!("{host}:{port}")).or_else(|| find(host));
        found.map(|(_, config)| config)
    }

    /// What is waited for at the host of a URL, and how long.
    pub(crate) fn timeouts_of(&self, url: &Url) -> &Timeouts {
        self.host(url).map_or(&self.timeouts, |host| &host.timeouts)
    }

    /// When and how often to try again at the host of a URL.
    pub(crate) fn retry_of(&self, url: &Url) -> &RetryConfig {
        self.host(url).map_or(&self.retry, |host| &host.retry)
    }

    /// The only token service that a registry at a URL may name.
    pub(crate) fn token_service_of(&self, url: &Url) -> Option<&str> {
        self.host(url)?.token_service.as_deref()
    }

    /// Are certificates of the host of a URL not checked?
    pub(crate) fn is_insecure(&self, url: &Url) -> bool {
        match self.host(url) {
            Some(host) => host.insecure_skip_verify,
            None => {
                let list = &self.insecure_skip_verify;
                list.contains("*")
                    || super::endpoint::listed(list, url, &super::endpoint::authority_of(url))
            }
        }
    }
}

/// What is different for one host. It is complete: nothing is taken from what holds for the others.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// What is waited for, and how long.
    pub timeouts: Timeouts,
    /// When and how often to try again.
    pub retry: RetryConfig,
    /// Are its certificates not checked?
    pub insecure_skip_verify: bool,
    /// The only `host[:port]` whose token service may have credentials for it, if it is a registry. Without one, any that the
    /// registry names over TLS may.
    pub token_service: Option<String>,
}

/// Proxies by the scheme of the request; loopback hosts are never asked through one.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http://`. User and password for it stand in the URL.
    pub http: Option<Url>,
    /// For `https://`.
    pub https: Option<Url>,
    /// Hosts, domains and networks that are asked directly, as in `NO_PROXY`: `host`, `.domain`, `10.0.0.0/8`, each
    /// perhaps with a port; `*` for all.
    pub bypass: Vec<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(super::endpoint::origin_of);
        f.debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("bypass", &self.bypass)
            .finish()
    }
}

impl Proxies {
    /// The proxy that a request for `url` goes through.
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        };
        proxy.filter(|_| !super::endpoint::is_loopback(url) && !self.bypasses(url))
    }

    fn bypasses(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else {
            return true;
        };
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let port = url.port_or_known_default();
        self.bypass
            .iter()
            .any(|entry| is_bypassed(&entry.trim().to_ascii_lowercase(), &host, port))
    }
}

/// One entry of `NO_PROXY`, as Go reads it: a domain stands for all below it, with a dot in front not for itself.
fn is_bypassed(entry: &str, host: &str, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    if let (Some((network, length)), Ok(address)) = (entry.split_once('/'), host.parse()) {
        return network
            .parse()
            .ok()
            .zip(length.parse().ok())
            .is_some_and(|(network, length)| is_within(address, network, length));
    }
    let (entry, wanted) = split_port(entry);
    if wanted.is_some() && wanted != port {
        return false;
    }
    if let (Ok(entry), Ok(host)) = (entry.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        return entry == host;
    }
    let entry = entry.strip_prefix('*').unwrap_or(entry);
    match entry.strip_prefix('.') {
        Some(domain) => {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
                && !domain.is_empty()
        }
        None => {
            !entry.is_empty()
                && host
                    .strip_suffix(entry)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

/// Takes a port off; an IPv6 address has one only behind brackets.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let bare = |text: &'_ str| text.starts_with('[') && text.ends_with(']');
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) if bare(host) || !host.contains(':') => (host, port.parse().ok()),
        _ => (entry, None),
    };
    let host = host.strip_prefix('[').unwrap_or(host);
    (host.strip_suffix(']').unwrap_or(host), port)
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (
            u128::from(address.to_bits()),
            u128::from(network.to_bits()),
            32,
        ),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    match bits - length.min(bits) {
        128 => true,
        shift => length <= bits && address >> shift == network >> shift,
    }
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
    /// Between signs of life on a connection that is idle; none where it is `None`.
    pub keep_alive: Option<Duration>,
    /// How long a connection is kept that nobody uses.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            commit: Duration::from_secs(600),
            stall: Duration::from_secs(60),
            keep_alive: Some(Duration::from_secs(15)),
            idle: Duration::from_secs(90),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_asked_directly() {
        let proxy = Url::parse("http://jo:hunter2@proxy.example:3128").expect("a URL");
        let through = |url: &str, bypass: &str| {
            let proxies = Proxies {
                http: Some(proxy.clone()),
                https: Some(proxy.clone()),
                bypass: bypass.split(',').map(str::to_owned).collect(),
            };
            assert!(!format!("{proxies:?}").contains("hunter2"));
            proxies.for_url(&Url::parse(url).expect("a URL")).is_some()
        };
        for (url, bypass, expected) in [
            ("https://r.example/v2/", "", true),
            ("https://r.example/v2/", "*", false),
            ("https://r.example/v2/", "r.example", false),
            ("https://R.Example./v2/", " r.EXAMPLE ", false),
            ("https://a.r.example/v2/", "r.example", false),
            ("https://ar.example/v2/", "r.example", true),
            ("https://r.example/v2/", ".r.example", true),
            ("https://a.r.example/v2/", ".r.example", false),
            ("https://a.r.example/v2/", "*.r.example", false),
            ("https://r.example/v2/", "r.example:443", false),
            ("https://r.example/v2/", "r.example:5000", true),
            ("http://r.example:5000/v2/", "r.example:5000", false),
            ("https://10.1.2.3/v2/", "10.0.0.0/8", false),
            ("https://11.1.2.3/v2/", "10.0.0.0/8", true),
            ("https://11.1.2.3/v2/", "0.0.0.0/0", false),
            ("https://10.1.2.3/v2/", "10.1.2.3", false),
            ("https://10.1.2.3/v2/", "10.1.2.3:443", false),
            ("https://10.1.2.3/v2/", "10.1.2.4/32", true),
            ("https://10.1.2.3/v2/", "10.1.2.3/99", true),
            ("https://[fd00::1]/v2/", "fd00::/8", false),
            ("https://[fd00::1]/v2/", "fd00::1", false),
            ("https://[fd00::1]/v2/", "[fd00::1]:443", false),
            ("https://[fe00::1]/v2/", "fd00::/8", true),
            ("https://[fe00::1]/v2/", "::/0", false),
            ("https://r.example/v2/", "10.0.0.0/8,.,,/,:,[", true),
            ("http://localhost:5000/v2/", "", false),
            ("https://127.0.0.1/v2/", "", false),
            ("https://[::1]/v2/", "", false),
        ] {
            assert_eq!(through(url, bypass), expected, "{url} {bypass}");
        }
        let only_plain = Proxies {
            http: Some(proxy),
            ..Proxies::default()
        };
        let url = Url::parse("https://r.example/").expect("a URL");
        assert!(only_plain.for_url(&url).is_none());
    }

    #[test]
    fn a_host_with_a_port_comes_before_the_host() {
        let host = |attempts| HostConfig {
            retry: RetryConfig {
                attempts,
                ..RetryConfig::default()
            },
            insecure_skip_verify: attempts == 2,
            ..HostConfig::default()
        };
        let mut config = ClientConfig::default();
        config.insecure_skip_verify.insert("*".to_owned());
        config.hosts.insert("R.example".to_owned(), host(2));
        config.hosts.insert("r.example:443".to_owned(), host(3));
        for (url, attempts, insecure) in [
            ("https://r.example/", 3, false),
            ("http://r.example/", 2, true),
            ("https://other.example/", 5, true),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(config.retry_of(&url).attempts, attempts, "{url}");
            assert_eq!(config.is_insecure(&url), insecure, "{url}");
        }
    }
}
