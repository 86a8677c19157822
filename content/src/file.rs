//! Bytes in files: a range of a file as a source, and positioned reads off the async threads.
//!
//! *Invariant:* no thread is held between two chunks, and a file that turns out shorter than announced is an error, never
//! a silent end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use ocm_specs::Digest;

use crate::blob::{Blob, ByteStream, Source};
use crate::error::{Error, Result};
use crate::meter::Meter;

/// Bytes read at once: large enough that the hop to the blocking pool does not show, small enough for many readers.
const CHUNK: u64 = 256 << 10;

/// A range of a file, opened anew for every reader.
#[derive(Clone, Debug)]
pub struct FileSource {
    path: PathBuf,
    offset: u64,
    length: u64,
    digest: Option<Digest>,
}

impl FileSource {
    /// The `length` bytes from `offset` on in the file at `path`.
    pub fn new(path: impl Into<PathBuf>, offset: u64, length: u64) -> Self {
        Self {
            path: path.into(),
            offset,
            length,
            digest: None,
        }
    }

    /// Says which digest the range has, so that openings are counted for it.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

impl Source for FileSource {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let this = self.clone();
        Box::pin(async move {
            if let Some(digest) = &this.digest {
                Meter::with(|meter| meter.opened(digest));
            }
            let path = this.path.clone();
            let file = blocking(move || {
                File::open(&path)
                    .map_err(|error| Error::io(format!("open {}", path.display()), &error))
            })
            .await?;
            let start = this.offset.saturating_add(offset.min(this.length));
            let end = this.offset.saturating_add(this.length);
            Ok(read_range(Arc::new(file), start, end))
        })
    }
}

impl Blob {
    /// A blob over a whole file, of the size it has now; the digest is not known before reading.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotFound`], [`crate::ErrorKind::Denied`] or [`crate::ErrorKind::Invalid`] for what is no file.
    pub async fn from_file(media_type: impl Into<String>, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let shown = path.display().to_string();
        let found = path.clone();
        let metadata = blocking(move || {
            std::fs::metadata(&found)
                .map_err(|error| Error::io(format!("open {}", found.display()), &error))
        })
        .await?;
        if !metadata.is_file() {
            return Err(Error::invalid(format!("{shown} is not a file")));
        }
        let size = metadata.len();
        let mut blob = Self::new(media_type, Arc::new(FileSource::new(path, 0, size)));
        blob.size = Some(size);
        Ok(blob)
    }
}

/// Streams the bytes from `start` to `end` of an open file.
pub(crate) fn read_range(file: Arc<File>, start: u64, end: u64) -> ByteStream {
    Box::pin(stream::try_unfold(start, move |at| {
        let file = file.clone();
        async move {
            if at >= end {
                return Ok(None);
            }
            let chunk = read_chunk(file, at, end).await?;
            let next = at + chunk.len() as u64;
            Ok(Some((chunk, next)))
        }
    }))
}

/// One chunk from `at` on, not beyond `end`, never empty.
pub(crate) async fn read_chunk(file: Arc<File>, at: u64, end: u64) -> Result<Bytes> {
    let length = usize::try_from((end - at).min(CHUNK)).unwrap_or(usize::MAX);
    blocking(move || {
        let mut buffer = BytesMut::zeroed(length);
        let read =
            read_at(&file, &mut buffer, at).map_err(|error| Error::io("read file", &error))?;
        if read == 0 {
            return Err(Error::mismatch(format!(
                "file ended at byte {at}, expected {end}"
            )));
        }
        buffer.truncate(read);
        Ok(buffer.freeze())
    })
    .await
}

/// Runs file work on the pool for blocking calls.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::internal(format!("file work ended: {error}"))))
}

#[cfg(unix)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    loop {
        match std::os::unix::fs::FileExt::read_at(file, buffer, at) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(windows)]
pub(crate) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use futures::TryStreamExt;

    use super::*;
    use crate::error::ErrorKind;

    async fn collect(stream: ByteStream) -> Result<Vec<u8>> {
        stream
            .try_fold(Vec::new(), |mut all, chunk| async move {
                all.extend_from_slice(&chunk);
                Ok(all)
            })
            .await
    }

    #[tokio::test]
    async fn a_range_is_read_again_and_again_at_any_offset() {
        let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let source = FileSource::new(file.path(), 100, 600_000);
        for offset in [0, 1, 300_000, 599_999, 600_000, 700_000] {
            let read = collect(source.open(offset).await.unwrap()).await.unwrap();
            let start = (100 + offset as usize).min(600_100);
            assert!(read == bytes[start..600_100], "offset {offset}");
        }
        let lying = FileSource::new(file.path(), 0, 800_000);
        let error = collect(lying.open(0).await.unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        let blob = Blob::from_file("text/plain", file.path()).await.unwrap();
        assert_eq!(blob.read(1 << 20).await.unwrap(), bytes);
        let missing = Blob::from_file("text/plain", "/nowhere/at/all").await;
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
