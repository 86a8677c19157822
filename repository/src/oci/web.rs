//! Reading from web servers that are no registries, with all that the client has: retries and `Retry-After`, redirects that
//! leave credentials behind, proxies, aliases, certificates, limits per host.
//!
//! *Invariants*:
//! - Content is the bytes of one answer. A body that breaks goes on at the byte where it broke only where the digest is
//!   known, or where the server says by `ETag`, `Last-Modified` and length that it is still the same content.
//! - What a server may not be asked twice (any method but GET) is asked once, and its answer is kept.
//! - Whatever a person or a log is told of a URL is without its query, which may be a signature.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use ocm_content::{
    Access, Blob, ByteStream, Error, ErrorKind, Host, Locator, Meter, Result, Source, Spool,
};
use ocm_specs::media_type::OCTET_STREAM;
use ocm_specs::{Algorithm, Digest, Hasher};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Method, StatusCode};
use url::Url;

use super::client::{Call, Client, Inner, Payload, Redirects, Reply};
use super::endpoint::{Endpoint, shown};
use super::errors::{Failure, is_passing};
use super::headers::{content_range, number};

/// An answer up to this many bytes is kept rather than asked for again: 64 KiB.
const KEPT: u64 = 64 << 10;
/// Bytes after which a body that broke counts as going on.
const PROGRESS: u64 = 64 << 10;
/// Most bytes of content whose length the server does not tell: 64 GiB.
const ENDLESS: u64 = 64 << 30;

/// One thing to ask of a web server.
#[derive(Clone, Debug)]
pub(crate) struct WebRequest {
    /// Where it is.
    pub(crate) url: Url,
    /// The type of consumer whose credentials are used.
    pub(crate) consumer: &'static str,
    /// The host whose credentials are used, where that is not the URL's own.
    pub(crate) known_as: Option<String>,
    /// The path that credentials are asked for by, where that is not the URL's own.
    pub(crate) path: Option<String>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    /// Are redirects followed?
    pub(crate) follow: bool,
    /// What it is for: `read https://charts.example/index.yaml`.
    pub(crate) doing: String,
}

impl WebRequest {
    /// A GET.
    pub(crate) fn get(url: Url, consumer: &'static str) -> Self {
        Self {
            doing: format!("read {}", shown(&url)),
            url,
            consumer,
            known_as: None,
            path: None,
            method: Method::GET,
            headers: HeaderMap::new(),
            body: None,
            follow: true,
        }
    }

    pub(crate) fn with_path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// May it be asked again without doing anything twice?
    fn is_read(&self) -> bool {
        self.method == Method::GET && self.body.is_none()
    }

    /// The request for the step that asks now.
    fn call(&self, inner: &Inner) -> Result<Call> {
        let (mut endpoint, url) = Endpoint::web(&inner.config, &self.url, self.consumer)?;
        if let Some(hostname) = &self.known_as {
            endpoint = endpoint.known_as(hostname);
        }
        let path = self.path.as_deref().unwrap_or_else(|| self.url.path());
        let endpoint = Arc::new(endpoint);
        let mut call = Call::new(
            &endpoint,
            path.trim_matches('/'),
            self.method.clone(),
            url,
            self.doing.clone(),
        );
        call.headers = self.headers.clone();
        call.redirects = match self.follow {
            true => Redirects::Follow,
            false => Redirects::Return,
        };
        Ok(call)
    }
}

/// What is known of content before it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Media type; the server's word counts where there is none.
    pub(crate) media_type: Option<String>,
    /// What the content must hash to.
    pub(crate) digest: Option<Digest>,
}

/// A short answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    doing: String,
}

impl Page {
    /// The body of a success.
    ///
    /// # Errors
    /// What any other answer means.
    pub(crate) fn success(self) -> Result<Bytes> {
        match self.status.is_success() {
            true => Ok(self.body),
            false => Err(refused(self.status, &HeaderMap::new(), &self.body)
                .error
                .context(self.doing)),
        }
    }
}

impl Client {
    /// Reads a short answer, whatever its status.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] beyond `limit` bytes, [`ErrorKind::Denied`] when credentials did not do, and what the way there gives.
    pub(crate) async fn page(&self, request: &WebRequest, limit: u64) -> Result<Page> {
        let call = request.call(self.inner())?;
        let answer = self.inner().exchange(&call, request.body.clone(), limit);
        let answer = answer.await.map_err(servers)?;
        Ok(Page {
            status: answer.status,
            body: answer.body,
            doing: call.doing,
        })
    }

    /// A handle to content. Asks for its first byte, which tells media type, length and whether the rest can be had in ranges;
    /// short content is there with that. What may be asked only once is read and kept.
    ///
    /// # Errors
    /// What the server answers; [`ErrorKind::Mismatch`] when short content is not what is expected.
    pub(crate) async fn content(&self, request: WebRequest, expected: Expected) -> Result<Blob> {
        match request.is_read() {
            true => self.probe(request, expected).await,
            false => self.keep(&request, expected).await,
        }
    }

    /// Reads an answer to its end without asking again, as it comes. The slots of the host are the caller's.
    ///
    /// # Errors
    /// What the server answers.
    pub(crate) async fn stream(&self, request: &WebRequest) -> Result<(HeaderMap, ByteStream)> {
        let call = request.call(self.inner())?.without_slot();
        let inner = self.inner().clone();
        let payload = request.body.clone().map_or(Payload::None, Payload::Bytes);
        let blame = |failure: Failure| servers(call.blame(failure.error, 1));
        let mut response = inner.attempt(&call, payload).await.map_err(blame)?.response;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let body = inner.error_body(&mut response).await;
            return Err(blame(refused(status, &headers, &body)));
        }
        let stall = inner.config.timeouts_of(&call.url).stall;
        let state = (response.bytes_stream().boxed(), call.clone(), 0);
        let chunks = stream::try_unfold(state, move |(mut chunks, call, seen)| async move {
            let next = tokio::time::timeout(stall, chunks.next()).await;
            let failure = match next {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(chunk))) => {
                    let seen = seen + chunk.len() as u64;
                    if seen <= ENDLESS {
                        return Ok(Some((chunk, (chunks, call, seen))));
                    }
                    Failure::last(endless())
                }
                Ok(Some(Err(error))) => Failure::transport(error),
                Err(_) => stalled(stall),
            };
            let error = failure.error.context(format!("at byte {seen}"));
            Err(servers(call.blame(error, 1)))
        });
        Ok((headers, Box::pin(chunks.fuse())))
    }

    /// The host that a request goes to.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when its URL is none that can be asked.
    pub(crate) fn host_of_request(&self, request: &WebRequest) -> Result<Host> {
        Ok(request.call(self.inner())?.endpoint.host.clone())
    }

    /// Does something that consists of several requests, again as a whole where that may help. `request` says to whom.
    ///
    /// # Errors
    /// What the last try gave.
    pub(crate) async fn again<T, F>(&self, request: &WebRequest, work: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let call = request.call(self.inner())?;
        let mut failed = 0;
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failed += 1;
            let failure = Failure {
                again: error.kind() == ErrorKind::Unavailable,
                ..Failure::last(error)
            };
            if !failure.again {
                return Err(failure.error);
            }
            let paused = self.inner().pause(&call, failure, failed);
            paused.await.map_err(servers)?;
        }
    }

    async fn probe(&self, request: WebRequest, expected: Expected) -> Result<Blob> {
        let first = HeaderValue::from_static("bytes=0-0");
        let call = request.call(self.inner())?.header(RANGE, first);
        let mut failed = 0;
        let head = loop {
            match self.head(&call).await {
                Ok(head) => break head,
                Err(failure) => {
                    failed += 1;
                    let paused = self.inner().pause(&call, failure, failed);
                    paused.await.map_err(servers)?;
                }
            }
        };
        self.inner().budgets.success(&call.endpoint.host);
        let media_type = expected.media_type.or(head.media_type);
        let media_type = media_type.unwrap_or_else(|| OCTET_STREAM.to_owned());
        if let Some(bytes) = head.body {
            check(&bytes, expected.digest.as_ref()).map_err(|error| call.blame(error, 1))?;
            return Ok(Blob::from_bytes(media_type, bytes));
        }
        let source = WebSource {
            client: self.clone(),
            host: call.endpoint.host.clone(),
            known: head.known.clone(),
            digest: expected.digest.clone(),
            request,
            opened: AtomicBool::new(false),
        };
        let mut blob = Blob::new(media_type, Arc::new(source));
        (blob.digest, blob.size) = (expected.digest, head.known.total);
        Ok(blob)
    }

    async fn head(&self, call: &Call) -> Result<Head, Failure> {
        let Reply { mut response, .. } = self.inner().attempt(call, Payload::None).await?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut head = Head {
            media_type: media_type(&headers),
            known: Known::of(&headers),
            body: None,
        };
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(&headers, &CONTENT_RANGE).and_then(content_range);
                let range = range.filter(|range| range.first == 0).ok_or_else(|| {
                    Failure::last(Error::mismatch("the server sends another range"))
                })?;
                head.known.total = range.total;
                Ok(head)
            }
            // Content of no bytes has no first one.
            StatusCode::RANGE_NOT_SATISFIABLE
                if text(&headers, &CONTENT_RANGE) == Some("bytes */0") =>
            {
                head.body = Some(Bytes::new());
                // The type is that of the error's page.
                head.media_type = None;
                Ok(head)
            }
            status if status.is_success() => {
                head.known.total = text(&headers, &CONTENT_LENGTH).and_then(number);
                if head.known.total.is_some_and(|total| total <= KEPT) {
                    head.body = Some(self.inner().body(&mut response, KEPT).await?);
                }
                Ok(head)
            }
            _ => {
                let body = self.inner().error_body(&mut response).await;
                Err(refused(status, &headers, &body))
            }
        }
    }

    async fn keep(&self, request: &WebRequest, expected: Expected) -> Result<Blob> {
        let limits = &self.inner().limits;
        let host = request.call(self.inner())?.endpoint.host.clone();
        let _slots = limits.transfer(&[host]).await;
        let (headers, mut chunks) = self.stream(request).await?;
        let algorithm = expected.digest.as_ref().map(Digest::algorithm);
        let mut hasher = Hasher::new(algorithm.unwrap_or(Algorithm::Sha256));
        let mut kept = Spool::new(limits);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            hasher.update(&chunk);
            kept.write(chunk).await?;
        }
        let (found, size) = (hasher.finish(), kept.len());
        matches(&found, expected.digest.as_ref())
            .map_err(|error| error.context(request.doing.clone()))?;
        let media_type = expected.media_type.or_else(|| media_type(&headers));
        let media_type = media_type.unwrap_or_else(|| OCTET_STREAM.to_owned());
        Ok(Blob::new(media_type, kept.finish()).expect_content(found, size))
    }
}

/// What the first answer says.
struct Head {
    media_type: Option<String>,
    known: Known,
    /// All of it, where it is short.
    body: Option<Bytes>,
}

/// What tells one state of content from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    etag: Option<String>,
    modified: Option<String>,
    total: Option<u64>,
}

impl Known {
    /// All but the length, which stands in different places.
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| text(headers, name).map(str::to_owned);
        Self {
            etag: text(&ETAG),
            modified: text(&LAST_MODIFIED),
            total: None,
        }
    }

    /// May content with this be asked for again?
    fn is_telling(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    /// Is `later` the same content, as far as both tell?
    fn fits(&self, later: &Self) -> bool {
        let fits = |one: &Option<String>, other: &Option<String>| {
            one.is_none() || other.is_none() || one == other
        };
        fits(&self.etag, &later.etag) && fits(&self.modified, &later.modified)
    }
}

/// Content of a web server.
#[derive(Debug)]
struct WebSource {
    client: Client,
    request: WebRequest,
    host: Host,
    known: Known,
    digest: Option<Digest>,
    /// Counts only where it may be opened once.
    opened: AtomicBool,
}

impl Source for WebSource {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let again = self.access() == Access::Once
            && (self.opened.swap(true, Ordering::AcqRel) || offset > 0);
        let reading = Reading {
            client: self.client.clone(),
            request: self.request.clone(),
            call: None,
            known: self.known.clone(),
            digest: self.digest.clone(),
            resumable: self.access() == Access::Reopenable,
            position: offset,
            broke_at: offset,
            body: None,
            failed: 0,
            ended: self.known.total.is_some_and(|total| offset >= total),
        };
        Box::pin(async move {
            if again {
                let error = "the server gives neither ETag nor Last-Modified, so its content can be read only once";
                return Err(Error::new(ErrorKind::Consumed, error));
            }
            if let Some(digest) = &reading.digest {
                Meter::with(|meter| meter.opened(digest));
            }
            let mut reading = reading;
            let call = reading.request.call(reading.client.inner())?;
            reading.call = Some(call.without_slot());
            if !reading.ended {
                reading.body = Some(reading.begin().await?);
            }
            let chunks = stream::try_unfold(reading, |mut reading| async move {
                Ok(reading.next().await?.map(|chunk| (chunk, reading)))
            });
            Ok(Box::pin(chunks.fuse()) as ByteStream)
        })
    }

    fn access(&self) -> Access {
        match self.digest.is_some() || self.known.is_telling() {
            true => Access::Reopenable,
            false => Access::Once,
        }
    }

    fn hosts(&self) -> Vec<Host> {
        vec![self.host.clone()]
    }

    fn locator(&self) -> Option<Locator> {
        Some(Locator {
            store: shown(&self.request.url),
            digest: self.digest.clone()?,
        })
    }
}

struct Body {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Bytes at its start that the reader has already.
    skip: u64,
}

/// How far reading has come.
struct Reading {
    client: Client,
    request: WebRequest,
    /// Made by whoever opens, so that it counts for that step.
    call: Option<Call>,
    known: Known,
    digest: Option<Digest>,
    /// May it go on after bytes were given out?
    resumable: bool,
    position: u64,
    broke_at: u64,
    body: Option<Body>,
    /// Failures since there was progress.
    failed: u32,
    ended: bool,
}

impl Reading {
    fn call(&self) -> Result<Call> {
        match &self.call {
            Some(call) => Ok(call.clone()),
            None => self.request.call(self.client.inner()),
        }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.begin().await?,
            };
            let times = self.client.inner().config.timeouts_of(&self.request.url);
            let stall = times.stall;
            let failure = match tokio::time::timeout(stall, body.chunks.next()).await {
                Ok(Some(Ok(mut chunk))) => {
                    let skipped = body.skip.min(chunk.len() as u64);
                    body.skip -= skipped;
                    self.body = Some(body);
                    // `skipped` is at most the chunk's length, which is a usize.
                    let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
                    if chunk.is_empty() {
                        continue;
                    }
                    self.position += chunk.len() as u64;
                    if self.position > self.known.total.unwrap_or(ENDLESS) {
                        return Err(servers(self.call()?.blame(self.too_long(), 1)));
                    }
                    if self.position - self.broke_at >= PROGRESS {
                        self.failed = 0;
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.known.total.is_none_or(|total| self.position >= total) => {
                    self.ended = true;
                    break;
                }
                Ok(None) => Failure::passing("the body ended early"),
                Ok(Some(Err(error))) => Failure::transport(error),
                Err(_) => stalled(stall),
            };
            self.broke(failure).await?;
        }
        Ok(None)
    }

    fn too_long(&self) -> Error {
        match self.known.total {
            Some(total) => Error::mismatch(format!(
                "the server sends more than the {total} bytes it announced"
            )),
            None => endless(),
        }
    }

    /// Waits before going on, or gives up.
    async fn broke(&mut self, failure: Failure) -> Result<()> {
        self.failed += 1;
        self.broke_at = self.position;
        let at = match self.known.total {
            Some(total) => format!("at byte {} of {total}", self.position),
            None => format!("at byte {}", self.position),
        };
        let mut failure = Failure {
            error: failure.error.context(at),
            ..failure
        };
        if self.position > 0 && !self.resumable {
            failure.again = false;
        }
        let call = self.call()?;
        let paused = self.client.inner().pause(&call, failure, self.failed).await;
        paused.map_err(servers)
    }

    /// Asks for the bytes from the position on, again where that may help.
    async fn begin(&mut self) -> Result<Body> {
        loop {
            match self.ask().await {
                Ok(body) => return Ok(body),
                Err(failure) if failure.again => self.broke(failure).await?,
                Err(failure) => {
                    let error = self.call()?.blame(failure.error, self.failed + 1);
                    return Err(servers(error));
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<Body, Failure> {
        let mut call = self.call().map_err(Failure::last)?;
        if self.position > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.position))
                .expect("digits are fine in a header");
            call = call.header(RANGE, range);
        }
        let inner = self.client.inner();
        let mut response = inner.attempt(&call, Payload::None).await?.response;
        let status = response.status();
        let headers = response.headers();
        let mut found = Known::of(headers);
        let skip = match status {
            StatusCode::PARTIAL_CONTENT if self.position > 0 => {
                let range = text(headers, &CONTENT_RANGE).and_then(content_range);
                let range = range.filter(|range| range.first == self.position);
                let range = range.ok_or_else(|| {
                    Failure::last(Error::mismatch(format!(
                        "the server sends another range than the one from byte {}",
                        self.position
                    )))
                })?;
                found.total = range.total;
                0
            }
            StatusCode::PARTIAL_CONTENT => {
                let error = "the server sends a range that was not asked for";
                return Err(Failure::last(Error::mismatch(error)));
            }
            status if status.is_success() => {
                found.total = text(headers, &CONTENT_LENGTH).and_then(number);
                self.position
            }
            _ => {
                let headers = headers.clone();
                let body = inner.error_body(&mut response).await;
                return Err(refused(status, &headers, &body));
            }
        };
        self.same(&found)?;
        Ok(Body {
            skip,
            chunks: response.bytes_stream().boxed(),
        })
    }

    /// Is it still the content that the first answer was about? Where the digest is known, that will tell.
    fn same(&mut self, found: &Known) -> Result<(), Failure> {
        let changed = |what: String| {
            let error = Error::mismatch(format!("the content changed: {what}"));
            Err(Failure::last(
                error.with_hint("try again when nobody writes to it"),
            ))
        };
        match (self.known.total, found.total) {
            (Some(before), Some(now)) if before != now => {
                return changed(format!("it had {before} bytes and has {now}"));
            }
            (None, now) => self.known.total = now,
            _ => {}
        }
        if self.digest.is_none() && !self.known.fits(found) {
            return changed("its ETag or Last-Modified is another one".to_owned());
        }
        Ok(())
    }
}

fn endless() -> Error {
    Error::limit(format!(
        "the server sends more than {ENDLESS} bytes without telling a length"
    ))
}

fn stalled(stall: std::time::Duration) -> Failure {
    Failure::passing(format!("no byte came for {} seconds", stall.as_secs_f64()))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The media type of an answer, without parameters.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let essence = text(headers, &CONTENT_TYPE)?.split(';').next()?.trim();
    let (kind, sub) = essence.split_once('/')?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text.len() < 128
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
    };
    (is_name(kind) && is_name(sub)).then(|| essence.to_ascii_lowercase())
}

fn check(bytes: &Bytes, expected: Option<&Digest>) -> Result<()> {
    match expected {
        Some(digest) => matches(&Digest::of(digest.algorithm(), bytes), Some(digest)),
        None => Ok(()),
    }
}

fn matches(found: &Digest, expected: Option<&Digest>) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::mismatch(format!(
            "content has digest {found}, expected {expected}"
        ))),
        _ => Ok(()),
    }
}

/// What an answer means that is no success. Pages of errors are for people with browsers and not repeated.
fn refused(status: StatusCode, headers: &HeaderMap, _body: &[u8]) -> Failure {
    let failure = Failure::answered(status, headers, &[]);
    Failure {
        error: servers(failure.error),
        again: is_passing(status),
        ..failure
    }
}

/// The same error about a server that is no registry.
fn servers(error: Error) -> Error {
    let message = error.to_string();
    if !message.contains("registry") {
        return error;
    }
    let words = |text: &str| {
        text.replace("the registry's", "the server's")
            .replace("the registry", "the server")
    };
    let renamed = Error::new(error.kind(), words(&message));
    match error.hint() {
        Some(hint) => renamed.with_hint(words(hint)),
        None => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_as_servers_tell_them() {
        for (header, expected) in [
            ("text/html; charset=utf-8", Some("text/html")),
            ("Application/GZIP", Some("application/gzip")),
            (
                "application/vnd.a.b+json;v=1",
                Some("application/vnd.a.b+json"),
            ),
            ("text", None),
            ("", None),
            ("a/b/c", None),
            ("text/\"x\"", None),
        ] {
            let value = HeaderValue::from_static(header);
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value)]);
            assert_eq!(media_type(&headers).as_deref(), expected, "{header}");
        }
    }

    #[test]
    fn content_that_changed_is_another_content() {
        let known = |etag: Option<&str>, modified: Option<&str>| Known {
            etag: etag.map(str::to_owned),
            modified: modified.map(str::to_owned),
            total: None,
        };
        let before = known(Some("\"a\""), Some("Sun"));
        for (now, expected) in [
            (known(Some("\"a\""), Some("Sun")), true),
            (known(Some("\"a\""), None), true),
            (known(None, None), true),
            (known(Some("\"b\""), Some("Sun")), false),
            (known(None, Some("Mon")), false),
        ] {
            assert_eq!(before.fits(&now), expected, "{now:?}");
        }
    }

    #[test]
    fn errors_speak_of_servers() {
        let error = Error::new(ErrorKind::Denied, "the registry answers 401")
            .with_hint("no credentials are configured for a.example")
            .context("read https://a.example/x");
        let error = servers(error);
        assert_eq!(
            error.to_string(),
            "read https://a.example/x: the server answers 401"
        );
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(
            error.hint(),
            Some("no credentials are configured for a.example")
        );
    }
}
