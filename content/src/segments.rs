//! Several blobs as one: what tars are written from, and what v1 split into several layers.
//!
//! *Invariant:* nothing is buffered; a part is opened when its turn comes.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream;

use crate::archive::exactly;
use crate::blob::{Access, Blob, ByteStream, Source};
use crate::error::{Error, Result};
use crate::limits::Host;

/// Blobs of known size, one behind the other.
///
/// The whole is sized, and can be opened again at any offset if all of them can. A blob that is read from its start is
/// verified by its own digest.
#[derive(Clone, Debug, Default)]
pub struct Segments {
    /// With the offset of their first byte.
    all: Arc<Vec<(u64, Blob)>>,
    length: u64,
}

impl Segments {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] for a blob of unknown size, [`crate::ErrorKind::Limit`] for more bytes than can be counted.
    pub fn push(&mut self, blob: Blob) -> Result<()> {
        let too_large = || Error::limit("content is larger than can be counted");
        let size = blob
            .size
            .ok_or_else(|| Error::internal("the size of a part is not known"))?;
        if size > 0 {
            Arc::make_mut(&mut self.all).push((self.length, blob));
            self.length = self.length.checked_add(size).ok_or_else(too_large)?;
        }
        Ok(())
    }

    /// All of it as one blob. Its digest is not known before reading.
    pub fn into_blob(self, media_type: impl Into<String>) -> Blob {
        let size = self.length;
        let mut blob = Blob::new(media_type, Arc::new(self));
        blob.size = Some(size);
        blob
    }
}

impl Source for Segments {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let all = self.all.clone();
        let first = all
            .partition_point(|(start, _)| *start <= offset)
            .saturating_sub(1);
        let open = move |index: usize| {
            let all = all.clone();
            async move {
                let Some((start, blob)) = all.get(index) else {
                    return Ok::<_, Error>(None);
                };
                let (size, skip) = (blob.size.unwrap_or(0), offset.saturating_sub(*start));
                let stream = match skip {
                    0 => blob.open().await?,
                    skip if skip >= size => Box::pin(stream::empty()),
                    // Only the rest is read; who resumes verifies the whole.
                    skip => exactly(blob.open_at(skip).await?, size - skip),
                };
                Ok(Some((stream, index + 1)))
            }
        };
        Box::pin(async move {
            let streams = stream::try_unfold(first, open);
            let bytes = futures::TryStreamExt::try_flatten(streams);
            Ok(Box::pin(bytes) as ByteStream)
        })
    }

    fn access(&self) -> Access {
        let once = |(_, blob): &(u64, Blob)| blob.access() == Access::Once;
        if self.all.iter().any(once) {
            Access::Once
        } else {
            Access::Reopenable
        }
    }

    fn hosts(&self) -> Vec<Host> {
        let mut hosts: Vec<Host> = self.all.iter().flat_map(|(_, blob)| blob.hosts()).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}
