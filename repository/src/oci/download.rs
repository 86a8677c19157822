//! Reading a blob: one GET, and ranged GETs that go on where a body broke.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use ocm_content::{ByteStream, Error, Host, Locator, Meter, Result, Source};
use ocm_specs::oci::Descriptor;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use super::client::{Call, Payload};
use super::errors::Failure;
use super::headers::{content_range, number};
use super::store::Repository;

/// Bytes after which a body that broke counts as going on: less would let a registry keep a reader busy for ever.
const PROGRESS: u64 = 64 << 10;

/// A blob of a repository, or a manifest read as a blob.
#[derive(Debug)]
pub(super) struct BlobSource {
    repository: Arc<Repository>,
    descriptor: Descriptor,
}

impl BlobSource {
    pub(super) fn new(repository: Arc<Repository>, descriptor: &Descriptor) -> Self {
        let descriptor = Descriptor::new(
            descriptor.media_type.clone(),
            descriptor.digest.clone(),
            descriptor.size,
        );
        Self {
            repository,
            descriptor,
        }
    }
}

impl Source for BlobSource {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let (repository, descriptor) = (self.repository.clone(), self.descriptor.clone());
        Box::pin(async move {
            Meter::with(|meter| meter.opened(&descriptor.digest));
            let mut reading = Reading::new(repository, &descriptor, offset);
            if offset < reading.size || (offset == 0 && reading.size == 0) {
                reading.body = Some(reading.begin().await?);
            } else {
                reading.ended = true;
            }
            let chunks = stream::try_unfold(reading, |mut reading| async move {
                Ok(reading.next().await?.map(|chunk| (chunk, reading)))
            });
            Ok(Box::pin(chunks.fuse()) as ByteStream)
        })
    }

    fn hosts(&self) -> Vec<Host> {
        vec![self.repository.endpoint.host.clone()]
    }

    fn locator(&self) -> Option<Locator> {
        Some(Locator {
            store: format!("oci://{:?}", self.repository),
            digest: self.descriptor.digest.clone(),
        })
    }
}

/// A body that is being read.
struct Body {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Bytes at its start that the reader has already.
    skip: u64,
    /// Does its length say that it ends where the blob ends?
    announced: bool,
}

/// How far reading has come.
struct Reading {
    repository: Arc<Repository>,
    call: Call,
    /// What the blob's length should be.
    size: u64,
    /// Bytes given out, counted from the start of the blob.
    position: u64,
    body: Option<Body>,
    /// Where the last body broke.
    broke_at: u64,
    /// Failures since there was progress.
    failed: u32,
    ended: bool,
}

impl Reading {
    fn new(repository: Arc<Repository>, descriptor: &Descriptor, offset: u64) -> Self {
        let digest = &descriptor.digest;
        let is_manifest = descriptor.is_manifest();
        let kind = if is_manifest { "manifests" } else { "blobs" };
        let doing = format!("read blob {digest}");
        let mut call = repository
            .call(Method::GET, &format!("{kind}/{digest}"), doing)
            .without_slot();
        if is_manifest && let Ok(accept) = HeaderValue::from_str(&descriptor.media_type) {
            call = call.header(reqwest::header::ACCEPT, accept);
        }
        Self {
            repository,
            call,
            size: descriptor.size,
            position: offset,
            broke_at: offset,
            body: None,
            failed: 0,
            ended: false,
        }
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while !self.ended {
            let mut body = match self.body.take() {
                Some(body) => body,
                None => self.begin().await?,
            };
            let config = &self.repository.inner.config;
            let stall = config.timeouts_of(&self.call.url).stall;
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
                    if self.position - self.broke_at >= PROGRESS {
                        self.failed = 0;
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if body.announced || self.position >= self.size => {
                    self.repository
                        .inner
                        .budgets
                        .success(&self.call.endpoint.host);
                    self.ended = true;
                    break;
                }
                Ok(None) => Failure::passing("the body ended early"),
                Ok(Some(Err(error))) => Failure::transport(error),
                Err(_) => {
                    Failure::passing(format!("no byte came for {} seconds", stall.as_secs_f64()))
                }
            };
            self.broke(failure).await?;
        }
        Ok(None)
    }

    /// Waits before going on, or gives up.
    async fn broke(&mut self, failure: Failure) -> Result<()> {
        self.failed += 1;
        self.broke_at = self.position;
        let at = format!("at byte {} of {}", self.position, self.size);
        let failure = Failure {
            error: failure.error.context(at),
            ..failure
        };
        let inner = self.repository.inner.clone();
        inner.pause(&self.call, failure, self.failed).await
    }

    /// Asks for the bytes from the position on, again where that may help.
    async fn begin(&mut self) -> Result<Body> {
        loop {
            match self.ask().await {
                Ok(body) => return Ok(body),
                Err(failure) if failure.again => self.broke(failure).await?,
                Err(failure) => return Err(self.call.blame(failure.error, self.failed + 1)),
            }
        }
    }

    async fn ask(&mut self) -> Result<Body, Failure> {
        let mut call = self.call.clone();
        if self.position > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.position))
                .expect("digits are fine in a header");
            call = call.header(RANGE, range);
        }
        let inner = &self.repository.inner;
        let mut response = inner.attempt(&call, Payload::None).await?.response;
        let status = response.status();
        let header = |name| response.headers().get(name)?.to_str().ok();
        let length = header(CONTENT_LENGTH).and_then(number);
        let (skip, end, announced) = match status {
            StatusCode::OK => (self.position, length, length.is_some()),
            StatusCode::PARTIAL_CONTENT if self.position > 0 => {
                let range = header(CONTENT_RANGE).and_then(content_range);
                let end = self.check_range(range)?;
                // A body that is shorter than its range says does not end where the blob ends.
                let left = length.map(|length| self.position.saturating_add(length));
                let is_whole = left.is_none_or(|left| left == self.size);
                (0, end, end.is_some() && is_whole)
            }
            _ => {
                let body = inner.error_body(&mut response).await;
                return Err(Failure::answered(status, response.headers(), &body));
            }
        };
        if let Some(end) = end.filter(|end| *end != self.size) {
            return Err(Failure::last(Error::mismatch(format!(
                "the registry has {end} bytes, expected {}",
                self.size
            ))));
        }
        Ok(Body {
            skip,
            announced,
            chunks: response.bytes_stream().boxed(),
        })
    }

    /// Checks that a 206 starts where the reader is; gives the blob's length as far as it is told.
    fn check_range(
        &self,
        range: Option<super::headers::ContentRange>,
    ) -> Result<Option<u64>, Failure> {
        match range {
            Some(range) if range.first == self.position => match range.total {
                Some(total) if total != range.last + 1 => Ok(None),
                total => Ok(total),
            },
            _ => Err(Failure::last(Error::mismatch(format!(
                "the registry sends another range than the one from byte {}",
                self.position
            )))),
        }
    }
}
