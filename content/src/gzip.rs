//! Compressing and uncompressing streams.
//!
//! *Invariants:* a CPU permit is held for one chunk of work and never while waiting for input; output is bounded per
//! step, whatever the ratio; equal bytes give equal compressed bytes, whatever pieces they came in.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flate2::write::{GzEncoder, MultiGzDecoder};
use flate2::{Compression, GzBuilder};
use futures::{StreamExt, stream};

use crate::blob::ByteStream;
use crate::error::{Error, Result};
use crate::limits::{Expansion, Limits};

/// What gzip data starts with (RFC 1952, 2.3.1).
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Bytes of input that are compressed in one go. Fixed, so that the result does not depend on how the input arrives.
const BLOCK: usize = 64 << 10;

/// Bytes of output after which a step ends; the decoder adds at most half as much per call.
const STEP: usize = 128 << 10;

/// Uncompresses a stream of one or more gzip members.
///
/// The stream ends in [`crate::ErrorKind::Invalid`] for data that is not gzip, is damaged or cut off, and in
/// [`crate::ErrorKind::Limit`] for a bomb ([`Expansion`]).
pub fn gunzip(input: ByteStream, limits: &Arc<Limits>) -> ByteStream {
    let state = Gunzip {
        input,
        limits: limits.clone(),
        decoder: MultiGzDecoder::new(Vec::new()),
        expansion: Expansion::new(limits),
        read: 0,
        chunk: Bytes::new(),
        done: false,
    };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        Ok(state.step().await?.map(|bytes| (bytes, state)))
    }))
}

struct Gunzip {
    input: ByteStream,
    limits: Arc<Limits>,
    decoder: MultiGzDecoder<Vec<u8>>,
    expansion: Expansion,
    /// Bytes that went into the decoder.
    read: u64,
    chunk: Bytes,
    done: bool,
}

impl Gunzip {
    async fn step(&mut self) -> Result<Option<Bytes>> {
        while !self.done {
            if self.chunk.is_empty() {
                match self.input.next().await {
                    Some(chunk) => self.chunk = chunk?,
                    None => {
                        self.done = true;
                        self.decoder.try_finish().map_err(|error| damaged(&error))?;
                    }
                }
            }
            let permit = self.limits.cpu().await;
            self.decode()?;
            drop(permit);
            let out = std::mem::take(self.decoder.get_mut());
            if !out.is_empty() {
                self.expansion.take(out.len() as u64, self.read)?;
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }

    fn decode(&mut self) -> Result<()> {
        while !self.chunk.is_empty() && self.decoder.get_ref().len() < STEP {
            let used = self
                .decoder
                .write(&self.chunk)
                .map_err(|error| damaged(&error))?;
            if used == 0 {
                return Err(Error::invalid("gzip data has something else behind it"));
            }
            self.read += used as u64;
            self.chunk = self.chunk.slice(used..);
        }
        Ok(())
    }
}

fn damaged(error: &std::io::Error) -> Error {
    Error::invalid(format!("gzip data is damaged: {error}"))
}

/// Compresses a stream as one gzip member, without name and time; `level` from 0 to 9.
pub fn gzip(input: ByteStream, level: u32, limits: &Arc<Limits>) -> ByteStream {
    let state = Gzip {
        input,
        limits: limits.clone(),
        encoder: Some(
            GzBuilder::new()
                .mtime(0)
                .operating_system(255)
                .write(Vec::new(), Compression::new(level.min(9))),
        ),
        queue: VecDeque::new(),
        queued: 0,
    };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        Ok(state.step().await?.map(|bytes| (bytes, state)))
    }))
}

struct Gzip {
    input: ByteStream,
    limits: Arc<Limits>,
    encoder: Option<GzEncoder<Vec<u8>>>,
    queue: VecDeque<Bytes>,
    queued: usize,
}

impl Gzip {
    async fn step(&mut self) -> Result<Option<Bytes>> {
        while let Some(mut encoder) = self.encoder.take() {
            let mut ended = false;
            while self.queued < BLOCK && !ended {
                match self.input.next().await {
                    Some(chunk) => {
                        let chunk = chunk?;
                        self.queued += chunk.len();
                        self.queue.push_back(chunk);
                    }
                    None => ended = true,
                }
            }
            let block = self.block();
            let permit = self.limits.cpu().await;
            let written = encoder.write_all(&block);
            let out = match (written, ended) {
                (Err(error), _) => Err(error),
                (Ok(()), true) => encoder.finish(),
                (Ok(()), false) => {
                    let out = std::mem::take(encoder.get_mut());
                    self.encoder = Some(encoder);
                    Ok(out)
                }
            };
            drop(permit);
            let out = out.map_err(|error| Error::internal(format!("compress: {error}")))?;
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }

    /// Exactly one block, or what is left of the input.
    fn block(&mut self) -> Bytes {
        let mut block = BytesMut::with_capacity(BLOCK.min(self.queued));
        while block.len() < BLOCK
            && let Some(mut chunk) = self.queue.pop_front()
        {
            let taken = chunk.split_to(chunk.len().min(BLOCK - block.len()));
            block.extend_from_slice(&taken);
            if !chunk.is_empty() {
                self.queue.push_front(chunk);
            }
        }
        self.queued -= block.len();
        block.freeze()
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::limits::LimitsConfig;

    fn limits() -> Arc<Limits> {
        Limits::new(LimitsConfig {
            cpu: 1,
            ..LimitsConfig::default()
        })
    }

    fn pieces(bytes: &[u8], size: usize) -> ByteStream {
        let pieces: Vec<_> = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        Box::pin(stream::iter(pieces.into_iter().map(Ok)))
    }

    async fn all(stream: ByteStream) -> Result<Vec<u8>> {
        let chunks: Vec<Bytes> = stream.try_collect().await?;
        assert!(chunks.iter().all(|chunk| chunk.len() <= 2 * STEP));
        Ok(chunks.concat())
    }

    #[tokio::test]
    async fn any_pieces_give_the_same_and_members_are_joined() {
        let limits = limits();
        let text: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        for level in [0, 1, 6, 9] {
            let whole = all(gzip(pieces(&text, text.len()), level, &limits))
                .await
                .unwrap();
            // Time, and no name: RFC 1952.
            assert_eq!(whole[3..8], [0, 0, 0, 0, 0]);
            for size in [1_000, 65_537, 100_000] {
                let other = all(gzip(pieces(&text, size), level, &limits))
                    .await
                    .unwrap();
                assert!(whole == other, "level {level}, pieces of {size}");
            }
            let twice = [whole.clone(), whole].concat();
            let back = all(gunzip(pieces(&twice, 777), &limits)).await.unwrap();
            assert!(
                back == [text.clone(), text.clone()].concat(),
                "level {level}"
            );
        }
        let nothing = all(gzip(pieces(&[], 1), 6, &limits)).await.unwrap();
        assert_eq!(
            all(gunzip(pieces(&nothing, 3), &limits)).await.unwrap(),
            b""
        );
    }

    #[tokio::test]
    async fn a_bomb_ends_in_an_error() {
        let limits = Limits::new(LimitsConfig {
            unpacked: 1 << 20,
            ..LimitsConfig::default()
        });
        let zeros = vec![0; 3 << 20];
        let bomb = all(gzip(pieces(&zeros, 70_000), 6, &limits)).await.unwrap();
        for size in [10, 1_000, bomb.len()] {
            let mut stream = gunzip(pieces(&bomb, size), &limits);
            let mut seen = 0;
            let error = loop {
                match stream.next().await.expect("an error before the end") {
                    Ok(chunk) => seen += chunk.len(),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::Limit);
            assert!(seen <= 1 << 20, "{seen} bytes came out before");
        }
        let fine = all(gzip(pieces(&zeros[..1 << 20], 70_000), 6, &limits)).await;
        let fine = gunzip(pieces(&fine.unwrap(), 1_000), &limits);
        assert_eq!(all(fine).await.unwrap().len(), 1 << 20);
    }

    #[tokio::test]
    async fn damaged_data_is_an_error() {
        let limits = limits();
        let good = all(gzip(pieces(&[1; 5_000], 100), 6, &limits))
            .await
            .unwrap();
        let mut flipped = good.clone();
        let at = good.len() - 6;
        flipped[at] ^= 1;
        let trailing = [good.as_slice(), b"tail"].concat();
        for (name, bytes) in [
            ("cut", &good[..good.len() - 1]),
            ("cut in the header", &good[..5]),
            ("flipped", &flipped),
            ("trailing", &trailing),
            ("text", b"hello, this is not gzip"),
            ("empty", b""),
        ] {
            let error = all(gunzip(pieces(bytes, 10), &limits)).await;
            assert_eq!(error.expect_err(name).kind(), ErrorKind::Invalid, "{name}");
        }
    }
}
