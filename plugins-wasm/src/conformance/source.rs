//! Bytes for the inputs of a step under test: made up or given, in chunks of any size, breaking off where that is wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_content::{Blob, ByteStream, Error, ErrorKind, Source};
use ocm_specs::Digest;

/// Length of what made-up bytes repeat, in bytes: no multiple of a block, a window or a chunk.
const PIECE: usize = (64 << 10) + 7;
/// Largest chunk of random size, in bytes.
const RANDOM: u64 = 20_000;
/// Chunks of nothing in particular, in bytes.
const PLAIN: usize = 64 << 10;

/// Sizes of the chunks in which bytes arrive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chunks {
    Of(usize),
    Random,
}

/// Bytes: `length` of them, repeating `piece`.
#[derive(Clone, Debug)]
pub(super) struct Data {
    piece: Bytes,
    pub(super) length: u64,
}

impl Data {
    pub(super) fn given(bytes: Bytes) -> Self {
        let length = bytes.len() as u64;
        Self {
            piece: bytes,
            length,
        }
    }

    /// Made-up bytes of all values, the same every time.
    pub(super) fn made(piece: &Bytes, length: u64) -> Self {
        Self {
            piece: piece.clone(),
            length,
        }
    }

    /// What made-up bytes repeat: lines of text between bytes of any value.
    pub(super) fn piece() -> Bytes {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut bytes = Vec::with_capacity(PIECE + 64);
        while bytes.len() < PIECE {
            state = next(state);
            if state.is_multiple_of(5) {
                bytes.extend_from_slice(b"key: value # a line of text\n");
            } else {
                bytes.extend_from_slice(&state.to_le_bytes());
            }
        }
        bytes.truncate(PIECE);
        bytes.into()
    }
}

fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

/// How bytes are handed to a step.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) data: Data,
    pub(super) media_type: String,
    pub(super) chunks: Chunks,
    /// After so many bytes the source breaks.
    pub(super) breaks_at: Option<u64>,
    /// Bytes that were taken, over all readings.
    pub(super) taken: Arc<AtomicU64>,
}

impl Feed {
    pub(super) fn new(data: Data, media_type: &str) -> Self {
        Self {
            data,
            media_type: media_type.to_owned(),
            chunks: Chunks::Of(PLAIN),
            breaks_at: None,
            taken: Arc::default(),
        }
    }

    /// The content, with its size stated, and its digest where the bytes are at hand.
    pub(super) fn blob(&self) -> Blob {
        let mut blob = Blob::new(self.media_type.clone(), Arc::new(self.clone()));
        blob.size = Some(self.data.length);
        if self.data.piece.len() as u64 == self.data.length {
            blob.digest = Some(Digest::sha256(&self.data.piece));
        }
        blob
    }

    fn chunk(&self, at: u64, state: u64) -> Bytes {
        let size = match self.chunks {
            Chunks::Of(size) => size,
            Chunks::Random => (state % RANDOM) as usize + 1,
        };
        let start = (at % self.data.piece.len() as u64) as usize;
        let left = usize::try_from(self.data.length - at).unwrap_or(usize::MAX);
        let end = (start + size.min(left)).min(self.data.piece.len());
        let chunk = self.data.piece.slice(start..end);
        self.taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        chunk
    }
}

impl Source for Feed {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        let feed = self.clone();
        Box::pin(async move {
            let start = (offset.min(feed.data.length), 0x9e37_79b9_7f4a_7c15);
            let bytes = stream::unfold(Some(start), move |place| {
                let feed = feed.clone();
                async move {
                    let (at, state) = place?;
                    if feed.breaks_at.is_some_and(|end| at >= end) {
                        let broken = Error::new(ErrorKind::Unavailable, "the source broke off");
                        return Some((Err(broken), None));
                    }
                    if at >= feed.data.length {
                        return None;
                    }
                    let chunk = feed.chunk(at, state);
                    let at = at + chunk.len() as u64;
                    Some((Ok(chunk), Some((at, next(state)))))
                }
            });
            Ok(bytes.boxed() as ByteStream)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn any_chunks_give_the_same_bytes() {
        let piece = Data::piece();
        assert_eq!(piece.len(), PIECE);
        let data = Data::made(&piece, 3 << 20);
        let mut seen = Vec::new();
        for chunks in [Chunks::Of(4096), Chunks::Of(1 << 24), Chunks::Random] {
            let feed = Feed {
                chunks,
                ..Feed::new(data.clone(), "x/y")
            };
            let bytes = feed.blob().read(1 << 24).await.expect("reads");
            assert_eq!(bytes.len(), 3 << 20);
            seen.push(Digest::sha256(&bytes));
        }
        seen.dedup();
        assert_eq!(seen.len(), 1);
        let broken = Feed {
            breaks_at: Some(1 << 20),
            ..Feed::new(data, "x/y")
        };
        let read: Result<Vec<Bytes>, Error> =
            broken.open(0).await.expect("opens").try_collect().await;
        assert_eq!(read.expect_err("breaks").kind(), ErrorKind::Unavailable);
        let empty = Feed::new(Data::given(Bytes::new()), "x/y").blob();
        assert_eq!(empty.read(1).await.expect("reads"), "");
    }
}
