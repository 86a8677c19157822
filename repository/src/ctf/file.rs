//! Files on the blocking pool, piece by piece.
//!
//! Invariant: no thread of the pool is held between two pieces, so slow readers and writers cost memory for one piece
//! each and no thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use ocm_content::{ByteStream, Disk, Error, Result};
use tempfile::NamedTempFile;

/// Bytes that are read or written in one visit to the blocking pool.
pub(super) const CHUNK: usize = 256 << 10;

/// Runs `work` on the blocking pool.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("file work ended early: {error}"))),
    }
}

/// An operating system error: what was done to which path, and what to do about it.
pub(super) fn os(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::io(format!("{doing} {}", path.display()), error)
}

/// Opens a regular file for reading. Neither follows a link at the end of `path` nor waits for a pipe.
pub(super) fn open_regular(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    no_follow(&mut options);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) => return Err(not_followed(path).unwrap_or_else(|| os("open", path, &error))),
    };
    let metadata = file.metadata().map_err(|error| os("open", path, &error))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!(
            "{} is not a regular file",
            path.display()
        )));
    }
    Ok(file)
}

/// Makes `options` refuse a symbolic link at the end of the path, and not wait for the other end of a pipe.
#[cfg(unix)]
pub(super) fn no_follow(options: &mut OpenOptions) {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    options.custom_flags(flags.bits().cast_signed());
}

/// Makes `options` refuse a symbolic link at the end of the path.
#[cfg(not(unix))]
pub(super) fn no_follow(_options: &mut OpenOptions) {}

/// The error for a path that is a symbolic link.
pub(super) fn not_followed(path: &Path) -> Option<Error> {
    let is_link = path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.is_symlink());
    is_link.then(|| {
        Error::invalid(format!(
            "{} is a symbolic link, and links inside an archive are not followed",
            path.display()
        ))
    })
}

/// A part of an open file.
#[derive(Clone, Debug)]
pub(super) struct Section {
    /// The file; readers share it, each has its own position.
    pub(super) file: Arc<File>,
    /// What to call it in errors.
    pub(super) path: Arc<Path>,
    /// Where the part starts.
    pub(super) start: u64,
    /// How long it is.
    pub(super) len: u64,
}

impl Section {
    /// Reads up to `limit` bytes at `offset` of the part; nothing at its end. Blocks.
    pub(super) fn read_at(&self, offset: u64, limit: usize) -> Result<Bytes> {
        let left = self.len.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(limit);
        if count == 0 {
            return Ok(Bytes::new());
        }
        read_at(&self.file, self.start + offset, count)
            .map_err(|error| os("read", &self.path, &error))
    }
}

#[cfg(unix)]
fn read_at(file: &File, position: u64, count: usize) -> io::Result<Bytes> {
    let mut buffer = Vec::with_capacity(count);
    loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut buffer), position) {
            Ok(_) => return Ok(buffer.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(windows)]
fn read_at(file: &File, position: u64, count: usize) -> io::Result<Bytes> {
    use std::os::windows::fs::FileExt;
    let mut buffer = vec![0; count];
    let read = file.seek_read(&mut buffer, position)?;
    buffer.truncate(read);
    Ok(buffer.into())
}

/// Starts reading at `offset` of the section that `open` gives: opening and the first piece are one visit to the pool.
pub(super) async fn stream(
    open: impl FnOnce() -> Result<Section> + Send + 'static,
    offset: u64,
) -> Result<ByteStream> {
    let (section, first) = blocking(move || {
        let section = open()?;
        let first = section.read_at(offset, CHUNK)?;
        Ok((section, first))
    })
    .await?;
    let position = offset.saturating_add(first.len() as u64);
    let rest = stream::try_unfold((section, position), |(section, position)| async move {
        if position >= section.len {
            return Ok(None);
        }
        let (section, piece) = blocking(move || {
            let piece = section.read_at(position, CHUNK)?;
            Ok((section, piece))
        })
        .await?;
        // A file that got shorter ends here; whoever knows digest or size tells.
        let next = position + piece.len() as u64;
        Ok((!piece.is_empty()).then_some((piece, (section, next))))
    });
    let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
    Ok(Box::pin(first.chain(rest)))
}

/// Writes all pieces to a temporary file. Blocks.
pub(super) fn write_all(disk: &Disk, file: &mut NamedTempFile, pieces: &[Bytes]) -> Result<()> {
    let path = file.path().to_owned();
    disk.write_all(file.as_file_mut(), &path, pieces)
        .map_err(|error| os("write", &path, &error))
}

/// Makes the names in a folder durable. Blocks.
pub(super) fn sync_folder(disk: &Disk, path: &Path) -> Result<()> {
    disk.sync_folder(path)
        .map_err(|error| os("sync", path, &error))
}

/// Makes a folder and those above it. Blocks.
pub(super) fn make_folder(disk: &Disk, path: &Path) -> Result<()> {
    disk.create_folder(path)
        .map_err(|error| os("create", path, &error))
}
