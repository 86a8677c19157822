//! Files as content.
//!
//! *Invariant*: a file is opened anew for every reader, and one that changes its length meanwhile ends in an error.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use futures::future::BoxFuture;
use futures::stream;
use ocm_content::{Blob, ByteStream, Error, Result, Source};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes per chunk.
const CHUNK: usize = 256 << 10;

/// A handle to the file at `path`.
pub(crate) async fn blob(path: &Path, media_type: &str) -> Result<Blob> {
    let found = tokio::fs::metadata(path)
        .await
        .map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
    // Reading a pipe or a device may never end.
    if !found.is_file() {
        return Err(Error::invalid(format!(
            "{} is no regular file",
            path.display()
        )));
    }
    let mut blob = Blob::new(media_type, Arc::new(FileSource(path.to_owned())));
    blob.size = Some(found.len());
    Ok(blob)
}

#[derive(Debug)]
struct FileSource(PathBuf);

impl Source for FileSource {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let path = self.0.clone();
        Box::pin(async move {
            let failed = |error| Error::io(format!("read {}", path.display()), &error);
            let mut file = File::open(&path).await.map_err(failed)?;
            if offset > 0 {
                file.seek(SeekFrom::Start(offset)).await.map_err(failed)?;
            }
            let chunks = stream::try_unfold((file, path), |(mut file, path)| async move {
                let mut chunk = BytesMut::with_capacity(CHUNK);
                let read = file
                    .read_buf(&mut chunk)
                    .await
                    .map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
                Ok((read > 0).then(|| (chunk.freeze(), (file, path))))
            });
            Ok(Box::pin(chunks) as ByteStream)
        })
    }
}
