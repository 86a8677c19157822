//! The embedded registry with faults injected by rule.
//!
//! *Invariant*: a request that no rule applies to is answered as the registry would answer it, and every request is in the
//! [`Log`], with the fault that it met.
//!
//! ```
//! # async fn example() -> std::io::Result<()> {
//! use ocm_testdata::faults::{Fault, FaultyRegistry, Kind, Rule};
//!
//! let registry = FaultyRegistry::start([
//!     // The first two manifests asked for: come again later.
//!     Rule::on(Kind::Manifest).method("GET").times(1..=2).then(Fault::status(429).header("retry-after", "1")),
//!     // Every blob of `acme/x` breaks off.
//!     Rule::on(Kind::Blob).method("GET").path("^/v2/acme/x/").then(Fault::CutResponse { after: 1000 }),
//! ])
//! .await?;
//! # drop(registry); Ok(())
//! # }
//! ```

mod bodies;

use std::io;
use std::net::SocketAddr;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use ocm_content::MemoryStores;
use ocm_registry::{Registry, RegistryConfig, Running};
use regex::Regex;

use bodies::{cut, flip, pad, short, stall};

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Every request.
    Any,
    /// `/v2/` itself.
    Base,
    /// The token endpoint.
    Token,
    /// A manifest, by tag or digest.
    Manifest,
    /// A blob.
    Blob,
    /// The start of an upload: a session, a mount or a whole blob (POST).
    UploadStart,
    /// What goes to an upload session: chunks, its end, its status.
    Upload,
    /// A list of tags.
    Tags,
    /// A list of referrers.
    Referrers,
    /// The list of repositories.
    Catalog,
}

impl Kind {
    /// What the path is about; [`Kind::Any`] for what no registry has.
    pub fn of(path: &str) -> Self {
        match path {
            "/v2" | "/v2/" => return Self::Base,
            "/token" => return Self::Token,
            "/v2/_catalog" => return Self::Catalog,
            _ => {}
        }
        if path.ends_with("/tags/list") {
            return Self::Tags;
        }
        if path.trim_end_matches('/').ends_with("/blobs/uploads") {
            return Self::UploadStart;
        }
        let mut parts = path.rsplit('/').skip(1);
        match (parts.next(), parts.next()) {
            (Some("uploads"), Some("blobs")) => Self::Upload,
            (Some("blobs"), _) => Self::Blob,
            (Some("manifests"), _) => Self::Manifest,
            (Some("referrers"), _) => Self::Referrers,
            _ => Self::Any,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Another answer, without asking the registry.
    Status {
        /// The status.
        status: u16,
        /// Headers of the answer.
        headers: Vec<(String, String)>,
        /// Body of the answer.
        body: String,
    },
    /// 307 to the same path and query at another place (`http://host:port`), without asking the registry. To the place
    /// itself it is a loop.
    Redirect {
        /// Scheme, host and port.
        to: String,
    },
    /// The connection closes without an answer, without asking the registry.
    Reset,
    /// The registry does what was asked, and the connection closes without an answer.
    LoseResponse,
    /// The registry does what was asked, and nothing comes back, ever.
    WithholdResponse,
    /// The answer comes later, as from far away.
    Late {
        /// How much later.
        by: Duration,
    },
    /// Nothing comes back, ever, without asking the registry.
    Silence,
    /// The registry receives so many bytes of the body, then the connection closes without an answer.
    CutRequest {
        /// Bytes of the body that pass.
        after: u64,
    },
    /// The registry receives so many bytes of the body, then it takes no more, and nothing comes back.
    StallRequest {
        /// Bytes of the body that pass.
        after: u64,
    },
    /// The registry receives so many bytes of the body as if they were all.
    ShortRequest {
        /// Bytes of the body that pass.
        after: u64,
    },
    /// One bit of the body is wrong when the registry receives it.
    FlipRequestBit {
        /// Which byte, from zero.
        offset: u64,
    },
    /// The connection closes after so many bytes of the answer's body.
    CutResponse {
        /// Bytes of the body that pass.
        after: u64,
    },
    /// The answer's body stops after so many bytes, and the connection stays.
    Stall {
        /// Bytes of the body that pass.
        after: u64,
    },
    /// So many bytes of the answer's body come as if they were all.
    ShortResponse {
        /// Bytes of the body that pass.
        after: u64,
    },
    /// The answer has another body.
    OtherBody {
        /// The body.
        body: Bytes,
    },
    /// One bit of the answer's body is wrong.
    FlipBit {
        /// Which byte, from zero.
        offset: u64,
    },
    /// A header of the answer has another value (`content-length`, `docker-content-digest`, `content-type`, …).
    Header {
        /// The header.
        name: String,
        /// Its value.
        value: String,
    },
    /// A header of the answer is missing.
    WithoutHeader {
        /// The header.
        name: String,
    },
    /// The registry doesn't know a header of the request (`range`: it has no ranges).
    IgnoreHeader {
        /// The header.
        name: String,
    },
    /// The registry doesn't know the request's query (of the start of an upload: no mounts, no single request).
    IgnoreQuery,
}

impl Fault {
    /// An answer of that status without headers and body.
    pub fn status(status: u16) -> Self {
        Self::Status {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// Adds a header to a [`Fault::Status`]; leaves others as they are.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Status { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The body of a [`Fault::Status`]; leaves others as they are.
    #[must_use]
    pub fn body(mut self, text: &str) -> Self {
        if let Self::Status { body, .. } = &mut self {
            text.clone_into(body);
        }
        self
    }
}

/// Which requests meet which fault. The first rule that applies wins.
#[derive(Clone, Debug)]
pub struct Rule {
    kind: Kind,
    method: Option<String>,
    path: Option<Regex>,
    first: u64,
    last: u64,
    fault: Fault,
}

/// A [`Rule`] that lacks its fault.
#[derive(Clone, Debug)]
#[must_use]
pub struct Matching(Rule);

impl Rule {
    /// A rule for requests of that kind.
    pub fn on(kind: Kind) -> Matching {
        Matching(Self {
            kind,
            method: None,
            path: None,
            first: 1,
            last: u64::MAX,
            fault: Fault::Reset,
        })
    }

    fn matches(&self, method: &str, path_and_query: &str, kind: Kind) -> bool {
        (self.kind == Kind::Any || self.kind == kind)
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self
                .path
                .as_ref()
                .is_none_or(|wanted| wanted.is_match(path_and_query))
    }
}

impl Matching {
    /// Only requests by that method.
    pub fn method(mut self, method: &str) -> Self {
        self.0.method = Some(method.to_owned());
        self
    }

    /// Only requests of which the path with the query matches a regular expression.
    ///
    /// # Panics
    /// When it is none.
    pub fn path(mut self, expression: &str) -> Self {
        self.0.path = Some(Regex::new(expression).expect("a test writes a valid expression"));
        self
    }

    /// Only the n-th of these requests, from one.
    pub fn nth(self, n: u64) -> Self {
        self.times(n..=n)
    }

    /// Only these of the requests, counted from one (`1..=2`, `3..`).
    pub fn times(mut self, range: impl RangeBounds<u64>) -> Self {
        self.0.first = match range.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 1,
        };
        self.0.last = match range.end_bound() {
            Bound::Included(last) => *last,
            Bound::Excluded(after) => after.saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        self
    }

    /// What they meet.
    pub fn then(mut self, fault: Fault) -> Rule {
        self.0.fault = fault;
        self.0
    }
}

/// One request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its method.
    pub method: String,
    /// Its path.
    pub path: String,
    /// Its query, without `?`.
    pub query: Option<String>,
    /// Its headers, in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// What it is about.
    pub kind: Kind,
    /// The status of the answer; `None` while there is none, and where none was sent.
    pub status: Option<u16>,
    /// Did it meet a fault?
    pub faulty: bool,
}

impl Entry {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What a [`FaultyRegistry`] was asked, in the order in which it came. Cheap to clone; clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Entry>>>);

impl Log {
    /// All requests so far.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().clone()
    }

    /// How many requests of that method and kind came.
    pub fn count(&self, method: &str, kind: Kind) -> usize {
        self.lock()
            .iter()
            .filter(|entry| entry.method == method && (kind == Kind::Any || entry.kind == kind))
            .count()
    }

    /// How many requests came.
    pub fn count_all(&self) -> usize {
        self.lock().len()
    }

    /// Forgets what came.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registry on a free port of this machine that breaks by rule. Ends when it is dropped.
#[derive(Debug)]
pub struct FaultyRegistry {
    /// The server.
    pub running: Running,
    /// What is in the registry; untouched by faults. Empty where [`FaultyRegistry::over`] was given other stores.
    pub stores: MemoryStores,
    /// What it was asked.
    pub log: Log,
    rules: Arc<Mutex<Rules>>,
}

impl FaultyRegistry {
    /// An empty registry in memory, open to everybody.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(rules: impl IntoIterator<Item = Rule>) -> io::Result<Self> {
        let stores = MemoryStores::new();
        let config = RegistryConfig::new(Arc::new(stores.clone()));
        let mut registry = Self::over(config, rules).await?;
        registry.stores = stores;
        Ok(registry)
    }

    /// A registry with other stores, limits or authentication.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn over(
        config: RegistryConfig,
        rules: impl IntoIterator<Item = Rule>,
    ) -> io::Result<Self> {
        let layer = Layer {
            log: Log::default(),
            rules: Arc::default(),
        };
        let registry = Registry::new(config);
        let router = registry
            .routes()
            .layer(middleware::from_fn_with_state(layer.clone(), inject));
        let running = registry
            .serve(router, SocketAddr::from(([127, 0, 0, 1], 0)))
            .await?;
        let faulty = Self {
            running,
            stores: MemoryStores::new(),
            log: layer.log,
            rules: layer.rules,
        };
        faulty.set(rules);
        Ok(faulty)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.running.addr
    }

    /// `host:port`, as references to content in it begin.
    pub fn host(&self) -> String {
        self.addr().to_string()
    }

    /// Other rules from now on; counting starts again.
    pub fn set(&self, rules: impl IntoIterator<Item = Rule>) {
        let rules = rules.into_iter().map(|rule| (rule, 0)).collect();
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Rules(rules);
    }
}

/// Rules, each with the number of requests that it matched.
#[derive(Debug, Default)]
struct Rules(Vec<(Rule, u64)>);

impl Rules {
    fn fault(&mut self, method: &str, path_and_query: &str, kind: Kind) -> Option<Fault> {
        let mut found = None;
        for (rule, count) in &mut self.0 {
            if rule.matches(method, path_and_query, kind) {
                *count += 1;
                if found.is_none() && (rule.first..=rule.last).contains(count) {
                    found = Some(rule.fault.clone());
                }
            }
        }
        found
    }
}

#[derive(Clone, Debug)]
struct Layer {
    log: Log,
    rules: Arc<Mutex<Rules>>,
}

async fn inject(State(layer): State<Layer>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let path_and_query = path_and_query(&request);
    let kind = Kind::of(request.uri().path());
    let fault = layer
        .rules
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .fault(&method, &path_and_query, kind);
    let index = {
        let mut log = layer.log.lock();
        log.push(entry(&request, kind, fault.is_some()));
        log.len() - 1
    };
    let answered = match fault {
        Some(fault) => break_with(fault, request, next).await,
        None => Some(next.run(request).await),
    };
    if let Some(response) = &answered
        // Gone where the log was cleared meanwhile.
        && let Some(entry) = layer.log.lock().get_mut(index)
    {
        entry.status = Some(response.status().as_u16());
    }
    answered.unwrap_or_else(closed)
}

/// The answer, or `None` where none is sent.
async fn break_with(fault: Fault, mut request: Request, next: Next) -> Option<Response> {
    match fault {
        Fault::Status {
            status,
            headers,
            body,
        } => return Some(canned(status, &headers, body)),
        Fault::Redirect { to } => {
            let target = format!("{}{}", to.trim_end_matches('/'), path_and_query(&request));
            let headers = [(LOCATION.to_string(), target)];
            return Some(canned(307, &headers, String::new()));
        }
        Fault::Reset => return None,
        Fault::LoseResponse => {
            // All of it: what streams out late is done late.
            let response = next.run(request).await;
            let mut body = response.into_body().into_data_stream();
            while body.next().await.is_some() {}
            return None;
        }
        Fault::WithholdResponse => {
            let response = next.run(request).await;
            let mut body = response.into_body().into_data_stream();
            while body.next().await.is_some() {}
            return std::future::pending().await;
        }
        Fault::Late { by } => {
            tokio::time::sleep(by).await;
            return Some(next.run(request).await);
        }
        Fault::Silence => return std::future::pending().await,
        Fault::CutRequest { after } => {
            next.run(request.map(|body| cut(body, after))).await;
            return None;
        }
        Fault::StallRequest { after } => {
            return Some(next.run(request.map(|body| stall(body, after))).await);
        }
        Fault::ShortRequest { after } => {
            let mut request = request.map(|body| short(body, after));
            request.headers_mut().insert(CONTENT_LENGTH, after.into());
            return Some(next.run(request).await);
        }
        Fault::FlipRequestBit { offset } => {
            return Some(next.run(request.map(|body| flip(body, offset))).await);
        }
        Fault::IgnoreHeader { name } => {
            request.headers_mut().remove(name.as_str());
            return Some(next.run(request).await);
        }
        Fault::IgnoreQuery => {
            if let Ok(uri) = request.uri().path().parse::<Uri>() {
                *request.uri_mut() = uri;
            }
            return Some(next.run(request).await);
        }
        _ => {}
    }
    let mut response = next.run(request).await;
    match fault {
        Fault::CutResponse { after } => Some(response.map(|body| cut(body, after))),
        Fault::Stall { after } => Some(response.map(|body| stall(body, after))),
        Fault::ShortResponse { after } => {
            let mut response = response.map(|body| short(body, after));
            response.headers_mut().insert(CONTENT_LENGTH, after.into());
            Some(response)
        }
        Fault::OtherBody { body } => {
            let length = HeaderValue::from(body.len());
            response = response.map(|_| Body::from(body));
            response.headers_mut().insert(CONTENT_LENGTH, length);
            Some(response)
        }
        Fault::FlipBit { offset } => Some(response.map(|body| flip(body, offset))),
        Fault::Header { name, value } => {
            let (name, value) = header(&name, &value);
            if name == CONTENT_LENGTH {
                // The server would refuse to send a body that contradicts the header.
                response = response.map(|body| pad(body, &value));
            }
            response.headers_mut().insert(name, value);
            Some(response)
        }
        Fault::WithoutHeader { name } => {
            response.headers_mut().remove(name.as_str());
            Some(response)
        }
        _ => Some(response),
    }
}

fn path_and_query(request: &Request) -> String {
    let uri = request.uri();
    uri.path_and_query()
        .map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

fn entry(request: &Request, kind: Kind, faulty: bool) -> Entry {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Entry {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().map(str::to_owned),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        kind,
        status: None,
        faulty,
    }
}

fn header(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = name.parse().expect("a test names a valid header");
    let value = value.parse().expect("a test gives a valid header value");
    (name, value)
}

fn canned(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a test gives a valid status");
    for (name, value) in headers {
        let (name, value) = header(name, value);
        response.headers_mut().append(name, value);
    }
    response
}

/// Closes the connection without an answer: its task ends here, without a word and without harm to others.
fn closed() -> Response {
    std::panic::resume_unwind(Box::new("closed on purpose"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (path, expected) in [
            ("/v2/", Kind::Base),
            ("/token", Kind::Token),
            ("/v2/_catalog", Kind::Catalog),
            ("/v2/a/b/tags/list", Kind::Tags),
            ("/v2/a/manifests/v1", Kind::Manifest),
            ("/v2/a/blobs/sha256:00", Kind::Blob),
            ("/v2/a/blobs/uploads/", Kind::UploadStart),
            ("/v2/a/blobs/uploads", Kind::UploadStart),
            ("/v2/a/blobs/uploads/x", Kind::Upload),
            ("/v2/a/referrers/sha256:00", Kind::Referrers),
            ("/", Kind::Any),
            ("/v2/x", Kind::Any),
        ] {
            assert_eq!(Kind::of(path), expected, "{path}");
        }
    }

    #[test]
    fn rules_count_what_they_match() {
        let mut rules = Rules(
            [
                Rule::on(Kind::Blob).nth(2).then(Fault::status(500)),
                Rule::on(Kind::Any)
                    .method("GET")
                    .path("^/a")
                    .times(2..)
                    .then(Fault::status(429)),
            ]
            .map(|rule| (rule, 0))
            .to_vec(),
        );
        let mut ask = |method: &str, path: &str, kind: Kind| match rules.fault(method, path, kind) {
            Some(Fault::Status { status, .. }) => status,
            _ => 200,
        };
        assert_eq!(ask("GET", "/a", Kind::Blob), 200);
        assert_eq!(ask("GET", "/a", Kind::Blob), 500, "the first rule wins");
        assert_eq!(ask("GET", "/a", Kind::Blob), 429);
        assert_eq!(ask("HEAD", "/a", Kind::Blob), 200);
        assert_eq!(ask("GET", "/b", Kind::Tags), 200);
    }
}
