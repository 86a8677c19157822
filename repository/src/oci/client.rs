//! One client per run: how a request is sent, led on, answered and tried again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ocm_content::{ContentStore, Error, Host, Limits, Meter, Result};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use super::auth::{AuthState, Scopes};
use super::config::ClientConfig;
use super::endpoint::{Endpoint, authority_of, origin_of};
use super::errors::{Failure, answered, denied_by_proxy, is_passing};
use super::headers::{next_link, printable};
use super::retry::Budgets;
use super::store::OciStore;
use crate::credentials::{CredentialSource, Identity};

/// Redirects followed for one read.
const REDIRECTS: usize = 5;
/// Most of an error's body that is read, in bytes.
const ERROR_BODY_LIMIT: u64 = 64 << 10;
/// Largest page of a list, in bytes.
pub(super) const PAGE_LIMIT: u64 = 8 << 20;
/// Most bytes of all pages of a list: 16 MiB.
const LIST_LIMIT: u64 = 16 << 20;
/// Most pages in a row that bring nothing new.
const IDLE_PAGES: usize = 100;
/// Most pages of a list.
const PAGES: usize = 10_000;
/// Most entries of a list.
const ENTRIES: usize = 200_000;
/// Entries asked for per page.
pub(super) const PAGE_SIZE: usize = 1_000;

/// Talks to registries. Cheap to clone; all clones share connections, tokens and limits.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

/// What all stores of a client share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: ClientConfig,
    pub(super) limits: Arc<Limits>,
    pub(super) auth: AuthState,
    pub(super) budgets: Budgets,
    certificates: Vec<reqwest::Certificate>,
    transports: Mutex<BTreeMap<Profile, reqwest::Client>>,
    abilities: Mutex<BTreeMap<String, Abilities>>,
    pub(super) index_locks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// What was learned about a registry; all `false` at first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Abilities {
    /// It stumbles over a mount from the repository itself, or was caught lying about one.
    pub(super) no_self_mount: bool,
    /// It has no referrers API.
    pub(super) no_referrers: bool,
}

/// Connections are shared by requests with the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Profile {
    tls: bool,
    insecure: bool,
    /// The `host[:port]` whose client certificate is shown.
    certificate: Option<String>,
    /// The `host[:port]` that has certificate authorities of its own.
    authority: Option<String>,
    proxied: bool,
    connect: Duration,
    keep_alive: Option<Duration>,
    idle: Duration,
}

impl Client {
    /// A client over `config`; it connects to nothing yet.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when a certificate can't be read.
    pub fn new(
        config: ClientConfig,
        credentials: Arc<dyn CredentialSource>,
        limits: Arc<Limits>,
    ) -> Result<Self> {
        let mut certificates = Vec::new();
        for pem in &config.ca_certificates {
            certificates.extend(authorities(pem)?);
        }
        for pem in config.host_authorities.values() {
            authorities(pem)?;
        }
        HeaderValue::from_str(&config.user_agent)
            .map_err(|_| Error::invalid("the user agent has characters that no header may have"))?;
        Ok(Self(Arc::new(Inner {
            config,
            limits,
            auth: AuthState::new(credentials),
            budgets: Budgets::default(),
            certificates,
            transports: Mutex::default(),
            abilities: Mutex::default(),
            index_locks: Mutex::default(),
        })))
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// The repository of that name at `host` (as in a reference, with or without a scheme). No request is made.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when host or name are malformed.
    pub fn store(&self, host: &str, repository: &str) -> Result<Arc<dyn ContentStore>> {
        Ok(Arc::new(self.oci(host, repository)?))
    }

    /// Like [`Client::store`], with what only a registry has.
    ///
    /// # Errors
    /// Those of [`Client::store`].
    pub fn oci(&self, host: &str, repository: &str) -> Result<OciStore> {
        let endpoint = Arc::new(Endpoint::resolve(&self.0.config, host)?);
        OciStore::new(self.0.clone(), endpoint, repository)
    }

    /// Names of all repositories at `host`, sorted, where the registry tells.
    ///
    /// # Errors
    /// What the registry answers; [`ocm_content::ErrorKind::Limit`] for an endless list.
    pub async fn catalog(&self, host: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            // May be null, must be there.
            #[serde(deserialize_with = "Option::deserialize")]
            repositories: Option<Vec<String>>,
        }
        let endpoint = Arc::new(Endpoint::resolve(&self.0.config, host)?);
        let mut url = endpoint.url("_catalog");
        url.set_query(Some(&format!("n={PAGE_SIZE}")));
        let doing = format!("list repositories of {}", endpoint.name);
        let call = Call::new(&endpoint, "", Method::GET, url, doing)
            .scopes(Scopes::one("registry", "catalog", "*"));
        let names = self
            .0
            .names(call.clone(), |page: Page| page.repositories)
            .await?;
        names.ok_or_else(|| {
            call.blame(
                Error::unsupported("the registry has no list of its repositories"),
                1,
            )
        })
    }

    /// Asks whether `host` takes the credentials configured for it. `false`: it lets everybody in, so that nothing was
    /// checked.
    ///
    /// # Errors
    /// Those of [`Client::ping`].
    pub async fn log_in(&self, host: &str) -> Result<bool> {
        self.ping(host).await?;
        let endpoint = Endpoint::resolve(&self.0.config, host)?;
        Ok(self.0.auth.has_asked(&endpoint.origin()))
    }

    /// The identity that credentials for `path` at `host` are asked for by. No request is made.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when the host is malformed.
    pub fn identity(&self, host: &str, path: &str) -> Result<Identity> {
        Ok(Endpoint::resolve(&self.0.config, host)?.identity(path))
    }

    /// Asks whether `host` speaks the protocol and takes the credentials configured for it.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Denied`], [`ocm_content::ErrorKind::Unavailable`], or what else the registry answers.
    pub async fn ping(&self, host: &str) -> Result<()> {
        let endpoint = Arc::new(Endpoint::resolve(&self.0.config, host)?);
        let doing = format!("ask {} for its API", endpoint.name);
        let call = Call::new(&endpoint, "", Method::GET, endpoint.url(""), doing);
        self.0
            .exchange(&call, None, PAGE_LIMIT)
            .await?
            .expect(&call, &[StatusCode::OK])?;
        Ok(())
    }
}

/// What happens to an answer that leads elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redirects {
    /// The request goes there, without what is meant for the first place only.
    Follow,
    /// It is an error.
    Refuse,
    /// It is an answer like any other.
    Return,
}

/// One request, as often as it takes.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) endpoint: Arc<Endpoint>,
    /// The repository, for credentials.
    pub(super) path: String,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) scopes: Scopes,
    /// What it is for: `read manifest 1.0 of ghcr.io/acme/x`.
    pub(super) doing: String,
    /// What happens to an answer that leads elsewhere.
    pub(super) redirects: Redirects,
    /// Is a request slot taken?
    pub(super) slot: bool,
    /// Captured here, since bodies are polled outside of the step.
    pub(super) meter: Option<Arc<Meter>>,
}

impl Call {
    pub(super) fn new(
        endpoint: &Arc<Endpoint>,
        path: &str,
        method: Method,
        url: Url,
        doing: String,
    ) -> Self {
        Self {
            endpoint: endpoint.clone(),
            path: path.to_owned(),
            redirects: match method {
                Method::GET | Method::HEAD => Redirects::Follow,
                _ => Redirects::Refuse,
            },
            method,
            url,
            headers: HeaderMap::new(),
            scopes: Scopes::default(),
            doing,
            slot: true,
            meter: Meter::current(),
        }
    }

    pub(super) fn scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = scopes;
        self
    }

    pub(super) fn header(mut self, name: reqwest::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// For the bodies of blobs: who moves them has transfer slots.
    pub(super) fn without_slot(mut self) -> Self {
        self.slot = false;
        self
    }

    /// The identity that credentials for it are asked for by.
    pub(super) fn identity(&self) -> Identity {
        self.endpoint.identity(&self.path)
    }

    /// Says what was being done, and after how many tries it was given up.
    pub(super) fn blame(&self, error: Error, attempts: u32) -> Error {
        match attempts {
            0 | 1 => error.context(self.doing.clone()),
            n => error.context(format!("{} ({n} attempts)", self.doing)),
        }
    }
}

/// The body of a request.
pub(super) enum Payload {
    None,
    Bytes(Bytes),
    /// Can be sent once; `answer` says how long to wait for the head of the answer, and resolves when it took too long.
    Stream(reqwest::Body, futures::future::BoxFuture<'static, Failure>),
}

/// The head of an answer, with its body to come.
pub(super) struct Reply {
    pub(super) response: reqwest::Response,
    _slot: Option<OwnedSemaphorePermit>,
}

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) url: Url,
}

impl Answer {
    pub(super) fn is(&self, status: StatusCode) -> bool {
        self.status == status
    }

    /// A header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The error of an answer that is not what was asked for.
    pub(super) fn error(&self, call: &Call) -> Error {
        call.blame(answered(self.status, &self.body), 1)
    }

    /// This answer if it has one of these statuses, its error otherwise.
    pub(super) fn expect(self, call: &Call, statuses: &[StatusCode]) -> Result<Self> {
        if statuses.contains(&self.status) {
            return Ok(self);
        }
        Err(self.error(call))
    }
}

impl Inner {
    /// What was learned about the registry.
    pub(super) fn abilities(&self, endpoint: &Endpoint) -> Abilities {
        let abilities = self
            .abilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        abilities
            .get(&endpoint.origin())
            .copied()
            .unwrap_or_default()
    }

    /// Learns something about the registry.
    pub(super) fn learn(&self, endpoint: &Endpoint, learn: impl FnOnce(&mut Abilities)) {
        let mut abilities = self
            .abilities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        learn(abilities.entry(endpoint.origin()).or_default());
    }

    /// Sends a short request, again where that may help, and reads its answer. An answer of any status but a passing
    /// failure comes back as it is; a success may have a body of at most `limit` bytes.
    pub(super) async fn exchange(
        &self,
        call: &Call,
        body: Option<Bytes>,
        limit: u64,
    ) -> Result<Answer> {
        let mut failed = 0;
        loop {
            let failure = match self.exchange_once(call, body.clone(), limit).await {
                Ok(answer) => {
                    self.budgets.success(&call.endpoint.host);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            failed += 1;
            self.pause(call, failure, failed).await?;
        }
    }

    async fn exchange_once(
        &self,
        call: &Call,
        body: Option<Bytes>,
        limit: u64,
    ) -> Result<Answer, Failure> {
        let payload = body.map_or(Payload::None, Payload::Bytes);
        let mut reply = self.attempt(call, payload).await?;
        let (status, headers) = (reply.response.status(), reply.response.headers().clone());
        let url = reply.response.url().clone();
        let body = if call.method == Method::HEAD {
            Bytes::new()
        } else if status.is_success() {
            self.body(&mut reply.response, limit).await?
        } else {
            self.error_body(&mut reply.response).await
        };
        if is_passing(status) {
            return Err(Failure::answered(status, &headers, &body));
        }
        Ok(Answer {
            status,
            headers,
            body,
            url,
        })
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn body(
        &self,
        response: &mut reqwest::Response,
        limit: u64,
    ) -> Result<Bytes, Failure> {
        let too_large = || {
            Failure::last(Error::limit(format!(
                "the answer is larger than {limit} bytes"
            )))
        };
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(too_large());
        }
        let stall = self.config.timeouts_of(response.url()).stall;
        let mut all = BytesMut::new();
        loop {
            let chunk = tokio::time::timeout(stall, response.chunk());
            let chunk = chunk
                .await
                .map_err(|_| Failure::passing("the answer's body stalled"))?
                .map_err(Failure::transport)?;
            let Some(chunk) = chunk else {
                return Ok(all.freeze());
            };
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&chunk);
        }
    }

    /// Reads what there is of an error's body, as long as it is short.
    pub(super) async fn error_body(&self, response: &mut reqwest::Response) -> Bytes {
        self.body(response, ERROR_BODY_LIMIT)
            .await
            .unwrap_or_default()
    }

    /// Waits before the next try after `failed` failures, or gives the error that the last of them means.
    pub(super) async fn pause(&self, call: &Call, failure: Failure, failed: u32) -> Result<()> {
        let retry = self.config.retry_of(&call.url);
        if !failure.again || failed >= retry.attempts.max(1) {
            return Err(call.blame(failure.error, failed));
        }
        let host = &call.endpoint.host;
        if !self.budgets.take(host, retry.budget_per_host) {
            let error = failure.error.context(format!("no more retries for {host}"));
            return Err(call.blame(error, failed));
        }
        let delay = match failure.after {
            Some(after) if after > retry.retry_after_max => {
                let seconds = after.as_secs();
                let error = failure
                    .error
                    .with_hint(format!("{host} asks to come back in {seconds} seconds"));
                return Err(call.blame(error, failed));
            }
            Some(after) => after.max(retry.delay(failed).min(retry.base)),
            None => retry.delay(failed),
        };
        tracing::debug!(
            doing = %call.doing, error = %failure.error, failed, delay_ms = delay.as_millis() as u64, "trying again"
        );
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Sends a request once, or twice when the first answer asks for (other) credentials.
    #[tracing::instrument(name = "request", level = "debug", skip_all, fields(method = %call.method, doing = call.doing))]
    pub(super) async fn attempt(&self, call: &Call, body: Payload) -> Result<Reply, Failure> {
        let mut body = Some(body);
        let mut scopes = call.scopes.clone();
        let mut challenged = false;
        loop {
            let authorization = self.authorization(call, &scopes).await?;
            let slot = match call.slot {
                true => Some(self.limits.request(&call.endpoint.host).await),
                false => None,
            };
            let (payload, repeatable) = match body.take() {
                Some(Payload::Bytes(bytes)) => {
                    body = Some(Payload::Bytes(bytes.clone()));
                    (Payload::Bytes(bytes), true)
                }
                Some(stream @ Payload::Stream(..)) => (stream, false),
                _ => (Payload::None, true),
            };
            let header = authorization.as_ref().map(|found| found.header.clone());
            let mut response = self.transmit(call, header, payload).await?;
            let is_own = response.url().origin() == call.url.origin();
            tracing::debug!(status = response.status().as_u16(), "answered");
            if response.status() != StatusCode::UNAUTHORIZED || !is_own {
                return Ok(Reply {
                    response,
                    _slot: slot,
                });
            }
            let text = self.error_body(&mut response).await;
            let headers = response.headers().clone();
            drop((response, slot));
            let denied = || Failure {
                status: Some(StatusCode::UNAUTHORIZED),
                ..Failure::last(self.denied(call, authorization.is_some(), &text))
            };
            if challenged {
                return Err(denied());
            }
            challenged = true;
            match self.challenged(call, &headers, authorization.as_ref())? {
                Some(more) => scopes = scopes.union(&more),
                None => return Err(denied()),
            }
            if !repeatable {
                // The body is gone; whoever made it makes another one.
                return Err(Failure {
                    again: true,
                    after: Some(Duration::ZERO),
                    ..denied()
                });
            }
        }
    }

    fn denied(&self, call: &Call, authorized: bool, body: &[u8]) -> Error {
        let error = answered(StatusCode::UNAUTHORIZED, body);
        let (name, identity) = (&call.endpoint.name, call.identity());
        error.with_hint(match authorized {
            true => format!(
                "the credentials configured for {name} were not enough (looked for: {identity})"
            ),
            false => {
                format!("no credentials are configured for {name} (looked for: {identity})")
            }
        })
    }

    /// Sends one request and follows where its answer leads.
    async fn transmit(
        &self,
        call: &Call,
        authorization: Option<HeaderValue>,
        mut body: Payload,
    ) -> Result<reqwest::Response, Failure> {
        let (mut url, mut method) = (call.url.clone(), call.method.clone());
        for _ in 0..=REDIRECTS {
            let mut headers = call.headers.clone();
            match &authorization {
                _ if url.origin() != call.url.origin() => headers = abroad(&headers),
                Some(value) => drop(headers.insert(AUTHORIZATION, value.clone())),
                None => {}
            }
            let payload = std::mem::replace(&mut body, Payload::None);
            let sent = self.send(method.clone(), url.clone(), headers, payload, &call.meter);
            let response = sent.await?;
            let status = response.status();
            let moved = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let moved = moved && call.redirects != Redirects::Return;
            let Some(target) = response.headers().get(LOCATION).filter(|_| moved) else {
                return Ok(response);
            };
            let is_read = matches!(method, Method::GET | Method::HEAD);
            let becomes_read = matches!(status.as_u16(), 301..=303);
            if call.redirects == Redirects::Refuse || !(is_read || becomes_read) {
                return Err(Failure::last(Error::invalid(format!(
                    "the registry answers {} and leads elsewhere, which is followed for reads only",
                    status.as_u16()
                ))));
            }
            let target = target.to_str().unwrap_or_default();
            url = call
                .endpoint
                .redirect(&url, target)
                .map_err(Failure::last)?;
            if !is_read {
                method = Method::GET;
            }
            tracing::debug!(doing = %call.doing, to = %origin_of(&url), "following a redirect");
        }
        Err(Failure::last(Error::invalid(format!(
            "the registry redirects more than {REDIRECTS} times"
        ))))
    }

    /// Puts one request on the wire and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        method: Method,
        url: Url,
        mut headers: HeaderMap,
        body: Payload,
        meter: &Option<Arc<Meter>>,
    ) -> Result<reqwest::Response, Failure> {
        let transport = self.transport(&url).map_err(Failure::last)?;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(meter) = meter {
            meter.request();
        }
        let proxy = self.config.proxies.for_url(&url).cloned();
        if let Some(proxy) = proxy
            .as_ref()
            .filter(|it| !matches!(it.scheme(), "http" | "https"))
        {
            let what = format!("the proxy {} is no http proxy", origin_of(proxy));
            return Err(Failure::last(Error::unsupported(what)));
        }
        let shown = super::endpoint::shown(&url);
        tracing::trace!(method = %method, url = %shown, "request");
        let patience = self.config.timeouts_of(&url).answer;
        let request = transport.request(method, url).headers(headers);
        let (request, late): (_, futures::future::BoxFuture<'static, Failure>) = match body {
            Payload::Stream(body, late) => (request.body(body), late),
            Payload::Bytes(bytes) => (request.body(bytes), Box::pin(late(patience))),
            Payload::None => (request, Box::pin(late(patience))),
        };
        let response = tokio::select! {
            biased;
            response = request.send() => response.map_err(|error| Failure::transport(error).through(proxy.as_ref()))?,
            failure = late => return Err(failure),
        };
        if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && let Some(proxy) = &proxy
        {
            return Err(Failure::last(denied_by_proxy(proxy)));
        }
        for warning in response
            .headers()
            .get_all(reqwest::header::WARNING)
            .iter()
            .take(8)
        {
            let text = printable(&String::from_utf8_lossy(warning.as_bytes()), 500);
            tracing::warn!(url = %shown, %text, "the registry warns");
        }
        Ok(response)
    }

    /// The connections for a URL, made when first needed: reading the system's certificates takes its time.
    fn transport(&self, url: &Url) -> Result<reqwest::Client> {
        let authority = authority_of(url);
        let tls = url.scheme() == "https";
        let named = |name: &&String| tls && name.eq_ignore_ascii_case(&authority);
        let times = self.config.timeouts_of(url);
        let profile = Profile {
            tls,
            insecure: tls && self.config.is_insecure(url),
            proxied: self.config.proxies.for_url(url).is_some(),
            connect: times.connect,
            keep_alive: times.keep_alive,
            idle: times.idle,
            certificate: self.config.client_certificates.keys().find(named).cloned(),
            authority: self.config.host_authorities.keys().find(named).cloned(),
        };
        let mut transports = self
            .transports
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(transport) = transports.get(&profile) {
            return Ok(transport.clone());
        }
        let transport = self.connect(&profile)?;
        transports.insert(profile, transport.clone());
        Ok(transport)
    }

    fn connect(&self, profile: &Profile) -> Result<reqwest::Client> {
        let config = &self.config;
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .user_agent(&config.user_agent)
            .connect_timeout(profile.connect)
            .tcp_keepalive(profile.keep_alive)
            .pool_idle_timeout(profile.idle)
            .http2_adaptive_window(true)
            .tcp_nodelay(true);
        let proxy = match profile.tls {
            true => config.proxies.https.clone(),
            false => config.proxies.http.clone(),
        };
        if let Some(proxy) = proxy.filter(|_| profile.proxied) {
            let proxy = reqwest::Proxy::all(proxy)
                .map_err(|error| Error::invalid(format!("the proxy: {}", error.without_url())))?;
            builder = builder.proxy(proxy);
        }
        builder = match profile {
            // Without TLS no certificate matters, and a machine without any must do.
            Profile { tls: false, .. } => builder.tls_certs_only([]),
            Profile { insecure: true, .. } => builder.tls_danger_accept_invalid_certs(true),
            _ => {
                let own = profile.authority.as_ref();
                let own = own.and_then(|name| config.host_authorities.get(name));
                let own = own.map_or(Ok(Vec::new()), |pem| authorities(pem))?;
                builder.tls_certs_merge(self.certificates.iter().cloned().chain(own))
            }
        };
        if let Some(name) = &profile.certificate
            && let Some(pem) = config.client_certificates.get(name)
        {
            let identity = reqwest::Identity::from_pem(pem.expose().as_bytes()).map_err(|_| {
                Error::invalid(format!(
                    "the client certificate for {name} is no certificate and key in PEM"
                ))
            })?;
            builder = builder.identity(identity);
        }
        builder
            .build()
            .map_err(|error| Error::invalid(format!("the HTTP settings: {}", error.without_url())))
    }

    /// Reads a list of names page by page, sorted, each once; `None` where there is no such list (404).
    pub(super) async fn names<P: for<'de> Deserialize<'de>>(
        &self,
        call: Call,
        entries: impl Fn(P) -> Option<Vec<String>>,
    ) -> Result<Option<Vec<String>>> {
        let again = call.clone();
        let mut all = std::collections::BTreeSet::new();
        let first = self.pages(call, |body| {
            all.extend(entries(serde_json::from_slice(body).ok()?).unwrap_or_default());
            Some(all.len())
        });
        let found = first.await?;
        match found.status {
            StatusCode::OK => Ok(Some(all.into_iter().collect())),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(found.error(&again)),
        }
    }

    /// Reads a list page by page. `take` gets each page's body and says how many entries there are so far, or `None` for a
    /// page that is not what it should be. Gives the first answer, which may be another one than 200.
    pub(super) async fn pages(
        &self,
        mut call: Call,
        mut take: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Answer> {
        let mut first = None;
        let mut seen = std::collections::BTreeSet::from([call.url.clone()]);
        let (mut before, mut idle, mut bytes) = (0, 0, 0);
        for _ in 0..PAGES {
            let answer = self.exchange(&call, None, PAGE_LIMIT).await?;
            if first.is_none() && !answer.is(StatusCode::OK) {
                return Ok(answer);
            }
            let answer = answer.expect(&call, &[StatusCode::OK])?;
            let entries = take(&answer.body).ok_or_else(|| {
                call.blame(Error::invalid("the answer is not the list it should be"), 1)
            })?;
            let next = next_link(&answer.headers);
            bytes += answer.body.len() as u64;
            let first = first.get_or_insert(answer);
            let Some(next) = next else {
                return Ok(first.clone());
            };
            idle = if entries > before { 0 } else { idle + 1 };
            before = entries;
            if entries > ENTRIES || bytes > LIST_LIMIT {
                break;
            }
            if idle > IDLE_PAGES {
                let error = Error::limit(format!("{IDLE_PAGES} pages of the list brought nothing"));
                return Err(call.blame(error, 1));
            }
            call.url = call
                .endpoint
                .own_url(&call.url, &next, "next page")
                .map_err(|error| call.blame(error, 1))?;
            if !seen.insert(call.url.clone()) {
                let error = Error::invalid("its pages lead in a circle");
                return Err(call.blame(error, 1));
            }
        }
        let error = Error::limit(format!(
            "the list has more than {ENTRIES} entries, {LIST_LIMIT} bytes or {PAGES} pages"
        ));
        Err(call.blame(error, 1))
    }

    /// The budget that requests to `url` fall under.
    pub(super) fn host_of(url: &Url) -> Host {
        Host::new(&authority_of(url))
    }
}

/// The headers that a request takes along to another origin: what its answer should be, and nothing that may be a secret.
fn abroad(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [ACCEPT, RANGE] {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn authorities(pem: &[u8]) -> Result<Vec<reqwest::Certificate>> {
    let found = reqwest::Certificate::from_pem_bundle(pem)
        .map_err(|error| Error::invalid(format!("a CA certificate: {error}")))?;
    match found.is_empty() {
        true => Err(Error::invalid("a CA certificate: there is none in the PEM")),
        false => Ok(found),
    }
}

/// Resolves when the head of an answer is late.
async fn late(patience: Duration) -> Failure {
    tokio::time::sleep(patience).await;
    Failure::passing(format!(
        "no answer within {} seconds",
        patience.as_secs_f64()
    ))
}
