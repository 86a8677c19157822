//! Bytes kept for a second reading: in memory while they are few, then in one temporary file without a name.
//!
//! *Invariant:* every byte that is kept is taken from a budget of [`Limits`] before it is kept and given back when the last
//! reader is gone; a budget is never waited for. The file has no name, so nothing is left behind by a killed program.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_specs::{Algorithm, Hasher};

use crate::blob::{Access, Blob, ByteStream, Source};
use crate::error::{Error, Result};
use crate::file::{blocking, read_at, read_range};
use crate::limits::Limits;
use crate::meter::Meter;

/// Bytes that one spool keeps in memory at most before it turns to a file: 1 MiB.
pub const MEMORY_THRESHOLD: u64 = 1 << 20;

/// Keeps what is written to it.
#[derive(Debug)]
pub struct Spool(Kept);

/// What is kept, and what was taken from the budgets for it.
#[derive(Debug)]
struct Kept {
    limits: Arc<Limits>,
    memory: Vec<Bytes>,
    /// Bytes of `memory`, taken from the window.
    held: u64,
    /// Everything, once there is too much for memory.
    file: Option<TempFile>,
    length: u64,
}

impl Spool {
    /// An empty one.
    pub fn new(limits: &Arc<Limits>) -> Self {
        Self(Kept {
            limits: limits.clone(),
            memory: Vec::new(),
            held: 0,
            file: None,
            length: 0,
        })
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.0.length
    }

    /// Is nothing written yet?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] when the budget for temporary files is used up, [`crate::ErrorKind::Io`] when the disk
    /// says no. The spool is of no use after that.
    pub async fn write(&mut self, chunk: Bytes) -> Result<()> {
        let kept = &mut self.0;
        let size = chunk.len() as u64;
        if kept.file.is_none() {
            let fits = kept.length + size <= MEMORY_THRESHOLD;
            if fits && kept.limits.window().take(size).is_ok() {
                kept.held += size;
                kept.length += size;
                kept.memory.push(chunk);
                return Ok(());
            }
            let mut file = TempFile::create(&kept.limits).await?;
            for chunk in std::mem::take(&mut kept.memory) {
                file.append(chunk).await?;
            }
            kept.limits.window().give(std::mem::take(&mut kept.held));
            kept.file = Some(file);
        }
        if let Some(file) = &mut kept.file {
            file.append(chunk).await?;
        }
        kept.length += size;
        Ok(())
    }

    /// The bytes as a source that may be read by any number of readers. They are freed with its last user.
    pub fn finish(self) -> Arc<dyn Source> {
        Arc::new(Spooled(Arc::new(self.0)))
    }

    /// The bytes to be read here and there, from threads that may block.
    pub fn into_random(self) -> RandomAccess {
        let mut kept = self.0;
        let memory = Bytes::from(std::mem::take(&mut kept.memory).concat());
        RandomAccess { kept, memory }
    }
}

/// Kept bytes that are read here and there. They are freed with this.
#[derive(Debug)]
pub struct RandomAccess {
    kept: Kept,
    /// Everything, where there is no file.
    memory: Bytes,
}

impl RandomAccess {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.kept.length
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads from `at` on, as much as fits into `buffer` and is there; blocks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Io`] when the disk says no.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<usize> {
        if let Some(file) = &self.kept.file {
            return read_at(&file.file, buffer, at)
                .map_err(|error| Error::io("read a temporary file", &error));
        }
        let start = usize::try_from(at)
            .unwrap_or(usize::MAX)
            .min(self.memory.len());
        let length = buffer.len().min(self.memory.len() - start);
        buffer[..length].copy_from_slice(&self.memory[start..start + length]);
        Ok(length)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.limits.window().give(self.held);
    }
}

/// A file without a name. Its bytes are taken from the budget for temporary files and given back with it.
#[derive(Debug)]
pub(crate) struct TempFile {
    limits: Arc<Limits>,
    file: Arc<File>,
    length: u64,
    taken: u64,
}

impl TempFile {
    pub(crate) async fn create(limits: &Arc<Limits>) -> Result<Self> {
        let (folder, disk) = (limits.temp_folder()?.to_owned(), limits.disk().clone());
        let file = blocking(move || {
            disk.create_unnamed(&folder)
                .map_err(|error| temporary("create", &folder, &error))
        })
        .await?;
        Ok(Self {
            limits: limits.clone(),
            file: Arc::new(file),
            length: 0,
            taken: 0,
        })
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Takes the bytes from the budget; gives the place where they go.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<u64> {
        self.limits.spool().take(bytes)?;
        self.taken += bytes;
        Meter::with(|meter| meter.spooled(bytes));
        let at = self.length;
        self.length += bytes;
        Ok(at)
    }

    async fn append(&mut self, chunk: Bytes) -> Result<()> {
        let at = self.reserve(chunk.len() as u64)?;
        self.write(chunk, at).await
    }
}

impl TempFile {
    /// Writes all of `chunk` at a place that was reserved.
    pub(crate) fn write(&self, chunk: Bytes, at: u64) -> BoxFuture<'static, Result<()>> {
        let (file, limits) = (self.file.clone(), self.limits.clone());
        Box::pin(blocking(move || {
            let folder = limits.temp_folder()?;
            let written = limits.disk().write_at(&file, folder, &chunk, at);
            written.map_err(|error| temporary("write", folder, &error))
        }))
    }
}

fn temporary(doing: &str, folder: &Path, error: &std::io::Error) -> Error {
    let doing = format!("{doing} a temporary file in {}", folder.display());
    Error::io(doing, error)
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.limits.spool().give(self.taken);
    }
}

#[derive(Debug)]
struct Spooled(Arc<Kept>);

impl Source for Spooled {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let kept = self.0.clone();
        Box::pin(async move {
            let stream: ByteStream = match &kept.file {
                Some(file) => read_range(file.file.clone(), offset.min(kept.length), kept.length),
                None => memory_from(&kept.memory, offset),
            };
            // The budget stays taken while somebody reads.
            Ok(Box::pin(stream.map(move |chunk| {
                let _ = &kept;
                chunk
            })) as ByteStream)
        })
    }
}

fn memory_from(memory: &[Bytes], offset: u64) -> ByteStream {
    let mut skip = offset;
    let mut rest = Vec::new();
    for chunk in memory {
        let size = chunk.len() as u64;
        if skip < size {
            // Smaller than a chunk in memory, so it fits.
            rest.push(Ok(chunk.slice(skip as usize..)));
        }
        skip = skip.saturating_sub(size);
    }
    Box::pin(stream::iter(rest))
}

/// A blob of the same content that may be opened again and again, with digest and size.
///
/// A once blob is read to its end and kept; one that can be opened again is read only where digest or size are missing.
/// Takes transfer slots on the blob's hosts while it reads: hold none when calling this.
///
/// # Errors
/// What reading gives, [`crate::ErrorKind::Limit`] when the budget for temporary files is used up.
pub async fn spool(blob: &Blob, limits: &Arc<Limits>) -> Result<Blob> {
    let keep = blob.access() == Access::Once;
    if !keep && blob.descriptor().is_some() {
        return Ok(blob.clone());
    }
    let algorithm = blob.digest.as_ref().map(|digest| digest.algorithm());
    let mut hasher = Hasher::new(algorithm.unwrap_or(Algorithm::Sha256));
    let mut kept = Spool::new(limits);
    let mut size = 0;
    let _slots = limits.transfer(&blob.hosts()).await;
    let mut stream = blob.open().await?;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        size += chunk.len() as u64;
        if blob.digest.is_none() {
            hasher.update(&chunk);
        }
        if keep {
            kept.write(chunk).await?;
        }
    }
    // A known digest was verified by the stream.
    let digest = blob.digest.clone().unwrap_or_else(|| hasher.finish());
    let same = if keep {
        blob.clone().with_source(kept.finish())
    } else {
        blob.clone()
    };
    Ok(same.expect_content(digest, size))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::{FutureExt, TryStreamExt};
    use ocm_specs::Digest;

    use super::*;
    use crate::error::ErrorKind;
    use crate::limits::{Host, LimitsConfig};

    #[derive(Debug)]
    struct Once(Mutex<Option<Vec<Bytes>>>);

    impl Source for Once {
        fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
            let chunks = self.0.lock().unwrap().take();
            Box::pin(async move {
                let chunks = chunks.ok_or_else(|| Error::new(ErrorKind::Consumed, "again"))?;
                Ok(Box::pin(stream::iter(chunks.into_iter().map(Ok))) as ByteStream)
            })
        }
        fn access(&self) -> Access {
            Access::Once
        }
    }

    fn limits(window: u64, spool: u64) -> Arc<Limits> {
        Limits::new(LimitsConfig {
            window,
            spool,
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        })
    }

    fn once(size: usize) -> (Blob, Vec<u8>) {
        let bytes: Vec<u8> = (0..size).map(|n| (n % 253) as u8).collect();
        let chunks = bytes.chunks(60_000).map(Bytes::copy_from_slice).collect();
        let source = Once(Mutex::new(Some(chunks)));
        (Blob::new("text/plain", Arc::new(source)), bytes)
    }

    #[tokio::test]
    async fn small_things_stay_in_memory_large_ones_go_to_a_file_and_all_is_freed() {
        // size, window, bytes in memory, bytes in the file
        for (size, window, memory, file) in [
            (0, 1 << 20, 0, 0),
            (100_000, 1 << 20, 100_000, 0),
            (100_000, 70_000, 0, 100_000),
            (3 << 20, 8 << 20, 0, 3 << 20),
        ] {
            let limits = limits(window, 1 << 30);
            let meter = Meter::new();
            let (blob, bytes) = once(size);
            let kept = meter.clone().scope(spool(&blob, &limits)).await.unwrap();
            assert_eq!(limits.window().used(), memory, "{size}");
            assert_eq!(limits.spool().used(), file, "{size}");
            assert_eq!(meter.snapshot().bytes_spooled, file);
            assert_eq!(kept.digest, Some(Digest::sha256(&bytes)));
            assert_eq!(kept.access(), Access::Reopenable);
            for _ in 0..2 {
                assert!(kept.read(1 << 30).await.unwrap() == bytes);
            }
            for offset in [0, 1, 60_000, 60_001, size] {
                let offset = offset.min(size);
                let stream = kept.open_at(offset as u64).await.unwrap();
                let read: Vec<Bytes> = stream.try_collect().await.unwrap();
                assert!(read.concat() == bytes[offset..], "{size} from {offset}");
            }
            let reading = kept.open().await.unwrap();
            drop(kept);
            assert_eq!(
                limits.window().used() + limits.spool().used(),
                memory + file
            );
            drop(reading);
            assert_eq!((limits.window().used(), limits.spool().used()), (0, 0));
        }
    }

    #[tokio::test]
    async fn kept_bytes_are_read_here_and_there() {
        for size in [0, 1_000, 3 << 20] {
            let limits = limits(8 << 20, 1 << 30);
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let mut kept = Spool::new(&limits);
            for chunk in bytes.chunks(70_000) {
                kept.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            let kept = kept.into_random();
            assert_eq!(kept.len(), size as u64);
            for at in [0, 1, 999, size, size + 5] {
                let mut buffer = [0; 10];
                let found = kept.read_at(at as u64, &mut buffer).unwrap();
                let start = at.min(size);
                let expected = &bytes[start..(start + 10).min(size)];
                assert_eq!(&buffer[..found], expected, "{size} at {at}");
            }
            drop(kept);
            assert_eq!((limits.window().used(), limits.spool().used()), (0, 0));
        }
    }

    /// Looks whether its host's only slot is taken when it is opened.
    #[derive(Debug)]
    struct Remote(Arc<Limits>);

    impl Source for Remote {
        fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
            let taken = self.0.transfer(&self.hosts()).now_or_never().is_none();
            Box::pin(async move {
                assert!(taken, "who reads from a host has a slot there");
                Ok(Box::pin(stream::iter([Ok(Bytes::from_static(b"x"))])) as ByteStream)
            })
        }
        fn hosts(&self) -> Vec<Host> {
            vec![Host::new("one.example")]
        }
    }

    #[tokio::test]
    async fn reading_from_a_host_takes_a_slot_and_gives_it_back() {
        let limits = Limits::new(LimitsConfig {
            transfers_per_host: 1,
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        });
        let blob = Blob::new("x/y", Arc::new(Remote(limits.clone())));
        for _ in 0..2 {
            let known = spool(&blob, &limits).await.unwrap();
            assert_eq!(known.digest, Some(Digest::sha256(b"x")));
        }
    }

    #[tokio::test]
    async fn a_spool_beyond_its_budget_is_refused_and_leaves_nothing() {
        let limits = limits(0, 100_000);
        let error = spool(&once(200_000).0, &limits).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(limits.spool().used(), 0);
    }
}
