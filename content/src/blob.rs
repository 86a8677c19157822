//! A cheap handle to bytes that nobody has read yet.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt, stream};
use ocm_specs::oci::Descriptor;
use ocm_specs::{Digest, Hasher};
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::limits::Host;
use crate::meter::Meter;

/// Bytes as they arrive. Ends after the last byte, or with one error and nothing behind it.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// How often a source may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Again and again, at any offset, by any number of readers at once.
    Reopenable,
    /// One time, from the start: a plugin's output, a conversion that is being computed.
    Once,
}

/// Where content can be found again, by a later run or another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Locator {
    /// Canonical location of the store, as [`crate::ContentStore::location`] gives it.
    pub store: String,
    /// The digest to ask it for.
    pub digest: Digest,
}

/// Where the bytes of a [`Blob`] come from: the only thing a storage backend writes to offer content.
///
/// Implementors owe: `open` does no work before it is polled and may be dropped at any await point; a re-openable
/// source gives the same bytes at every opening; a once source answers a second opening with [`ErrorKind::Consumed`].
/// They count each opening with [`Meter::opened`] where the digest is known; they need not verify digests, [`Blob::open`]
/// does that.
pub trait Source: Debug + Send + Sync + 'static {
    /// Starts reading at `offset` bytes from the start.
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>>;

    /// How often that may be done.
    fn access(&self) -> Access {
        Access::Reopenable
    }

    /// Hosts that reading talks to: whoever moves the bytes takes a slot on all of them at once (see [`crate::limits`]).
    /// A conversion passes on what its input says.
    fn hosts(&self) -> Vec<Host> {
        Vec::new()
    }

    /// Where a later run finds these bytes again; `None` where it can't.
    fn locator(&self) -> Option<Locator> {
        None
    }

    /// The bytes, where they are in memory already.
    fn bytes(&self) -> Option<Bytes> {
        None
    }
}

/// A lazy handle to bytes: what they are, their digest and size where known, and a [`Source`].
#[derive(Clone, Debug)]
pub struct Blob {
    /// Media type; `application/octet-stream` where nothing is known.
    pub media_type: String,
    /// Digest, where it is known before reading.
    pub digest: Option<Digest>,
    /// Length in bytes, where it is known before reading.
    pub size: Option<u64>,
    source: Arc<dyn Source>,
    origin: Option<Arc<str>>,
}

impl Blob {
    /// A blob of unknown digest and size.
    pub fn new(media_type: impl Into<String>, source: Arc<dyn Source>) -> Self {
        Self {
            media_type: media_type.into(),
            digest: None,
            size: None,
            source,
            origin: None,
        }
    }

    /// A blob that must turn out to be what `descriptor` says.
    pub fn described(descriptor: &Descriptor, source: Arc<dyn Source>) -> Self {
        Self::new(descriptor.media_type.clone(), source)
            .expect_content(descriptor.digest.clone(), descriptor.size)
    }

    /// A blob over bytes in memory.
    pub fn from_bytes(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let (digest, size) = (Digest::sha256(&bytes), bytes.len() as u64);
        Self::new(media_type, Arc::new(Memory(bytes))).expect_content(digest, size)
    }

    /// Says what reading must give; anything else ends the stream with [`ErrorKind::Mismatch`].
    #[must_use]
    pub fn expect_content(mut self, digest: Digest, size: u64) -> Self {
        self.digest = Some(digest);
        self.size = Some(size);
        self
    }

    /// Names the step these bytes come from; errors of its streams carry the name.
    #[must_use]
    pub fn with_origin(mut self, step: Arc<str>) -> Self {
        self.origin.get_or_insert(step);
        self
    }

    /// The same content from another source (a shared read, a spool).
    #[must_use]
    pub fn with_source(mut self, source: Arc<dyn Source>) -> Self {
        self.source = source;
        self
    }

    /// The source below, for those who wrap it.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// How often it may be opened.
    pub fn access(&self) -> Access {
        self.source.access()
    }

    /// Hosts that reading talks to.
    pub fn hosts(&self) -> Vec<Host> {
        self.source.hosts()
    }

    /// Where a later run finds it again.
    pub fn locator(&self) -> Option<Locator> {
        self.source.locator()
    }

    /// The link to it, where digest and size are known.
    pub fn descriptor(&self) -> Option<Descriptor> {
        Some(Descriptor::new(
            self.media_type.clone(),
            self.digest.clone()?,
            self.size?,
        ))
    }

    /// Reads from the start. The stream ends in an error where length or digest differ from what is expected: a reader
    /// that got the end without an error has the right bytes.
    pub async fn open(&self) -> Result<ByteStream> {
        let stream = self
            .source
            .open(0)
            .await
            .map_err(|error| self.blame(error))?;
        Ok(Box::pin(Verified {
            inner: stream,
            source: self.source.clone(),
            hasher: self
                .digest
                .as_ref()
                .map(|digest| Hasher::new(digest.algorithm())),
            digest: self.digest.clone(),
            size: self.size,
            seen: 0,
            origin: self.origin.clone(),
            meter: Meter::current(),
            done: false,
        }))
    }

    /// Reads from `offset`, unverified: only for those who verify the whole themselves.
    pub async fn open_at(&self, offset: u64) -> Result<ByteStream> {
        self.source
            .open(offset)
            .await
            .map_err(|error| self.blame(error))
    }

    /// Reads all of it into memory, at most `limit` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when there is more, besides what reading gives.
    pub async fn read(&self, limit: u64) -> Result<Bytes> {
        if self.size.is_some_and(|size| size > limit) {
            return Err(self.blame(self.too_large(limit)));
        }
        let mut stream = self.open().await?;
        let mut all = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(self.blame(self.too_large(limit)));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    fn blame(&self, error: Error) -> Error {
        match &self.origin {
            Some(step) => error.with_origin(step),
            None => error,
        }
    }

    fn too_large(&self, limit: u64) -> Error {
        let what = named(self.digest.as_ref());
        Error::limit(format!(
            "{what} is larger than the {limit} bytes that are read at once here"
        ))
    }
}

/// What content is called in an error.
fn named(digest: Option<&Digest>) -> String {
    digest.map_or_else(
        || "content".to_owned(),
        |digest| format!("content {digest}"),
    )
}

#[derive(Debug)]
struct Memory(Bytes);

impl Source for Memory {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.0.len());
        let bytes = self.0.slice(start..);
        Box::pin(async move {
            Ok(Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))) as ByteStream)
        })
    }

    fn bytes(&self) -> Option<Bytes> {
        Some(self.0.clone())
    }
}

/// Passes chunks on and looks at each: the one place where bytes are counted and hashed.
struct Verified {
    inner: ByteStream,
    source: Arc<dyn Source>,
    hasher: Option<Hasher>,
    digest: Option<Digest>,
    size: Option<u64>,
    seen: u64,
    origin: Option<Arc<str>>,
    meter: Option<Arc<Meter>>,
    done: bool,
}

impl Verified {
    fn chunk(&mut self, chunk: Bytes) -> Result<Bytes> {
        self.seen += chunk.len() as u64;
        if let Some(size) = self.size.filter(|size| self.seen > *size) {
            let what = named(self.digest.as_ref());
            return Err(self.lie(format!("{what} is longer than the {size} bytes announced")));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        if let Some(meter) = &self.meter {
            meter.read(chunk.len() as u64);
        }
        Ok(chunk)
    }

    fn end(&mut self) -> Result<()> {
        if let Some(size) = self.size.filter(|size| self.seen < *size) {
            let what = named(self.digest.as_ref());
            return Err(self.lie(format!("{what} ended after {} of {size} bytes", self.seen)));
        }
        let found = self.hasher.take().map(Hasher::finish);
        match (&self.digest, found) {
            (Some(expected), Some(found)) if *expected != found => {
                Err(self.lie(format!("content has digest {found}, expected {expected}")))
            }
            _ => Ok(()),
        }
    }

    /// Says where the wrong bytes came from, since whoever reads them often writes somewhere else.
    fn lie(&self, message: String) -> Error {
        let error = Error::mismatch(message);
        match self.source.locator() {
            Some(locator) => {
                error.context(format!("read {} from {}", locator.digest, locator.store))
            }
            None => error,
        }
    }
}

impl Stream for Verified {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        // Whoever polls this may be the task of a connection, which belongs to no step.
        let Self { inner, meter, .. } = &mut *self;
        let polled = match meter {
            Some(meter) => meter.sync_scope(|| inner.as_mut().poll_next(cx)),
            None => inner.as_mut().poll_next(cx),
        };
        let polled = std::task::ready!(polled);
        let result = match polled {
            Some(Ok(chunk)) => Some(self.chunk(chunk)),
            Some(Err(error)) => Some(Err(error)),
            None => self.end().err().map(Err),
        };
        self.done = !matches!(result, Some(Ok(_)));
        let origin = self.origin.clone();
        Poll::Ready(result.map(|item| {
            item.map_err(|error| match &origin {
                Some(step) => error.with_origin(step),
                None => error,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[derive(Debug)]
    struct Lying(Bytes);

    impl Source for Lying {
        fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
            let bytes = self.0.clone();
            Box::pin(async move { Ok(Box::pin(stream::iter([Ok(bytes)])) as ByteStream) })
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_well_has_the_right_bytes() {
        for (served, expected) in [
            ("right", None),
            ("wrong", Some("content has digest")),
            ("short", Some("content has digest")),
            ("righ", Some("ended after 4 of 5 bytes")),
            ("right!", Some("is longer than the 5 bytes announced")),
        ] {
            let blob = Blob::new(
                "text/plain",
                Arc::new(Lying(Bytes::from_static(served.as_bytes()))),
            )
            .expect_content(Digest::sha256(b"right"), 5)
            .with_origin("download1".into());
            match (blob.read(100).await, expected) {
                (Ok(bytes), None) => assert_eq!(bytes, served),
                (Err(error), Some(message)) => {
                    assert!(error.to_string().contains(message), "{error}");
                    assert_eq!(error.kind(), ErrorKind::Mismatch);
                    assert_eq!(error.origin(), Some("download1"));
                }
                (result, expected) => panic!("{served}: {result:?}, expected {expected:?}"),
            }
        }
    }

    #[tokio::test]
    async fn reading_at_once_is_bounded() {
        let error = Blob::from_bytes("text/plain", "12345")
            .read(4)
            .await
            .expect_err("five bytes do not fit in four");
        assert_eq!(error.kind(), ErrorKind::Limit);
    }
}
