//! Conversions of byte streams: a stage takes bytes and gives bytes, a pipe pulls them through.
//!
//! Invariant: a CPU permit is taken for one piece of work and never held while waiting for input; what a stage holds back
//! is bounded by the stage itself.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::gzip::{MAGIC, gzip};
use ocm_content::{Access, Blob, ByteStream, Error, Host, Limits, Source};

/// Bytes that a stage gets at once.
pub(crate) const PIECE: usize = 64 << 10;
/// The level at which everything is compressed: part of what makes the output reproducible.
pub(crate) const GZIP_LEVEL: u32 = 6;

/// One step of a conversion.
pub(crate) trait Stage: Send {
    /// Takes some bytes and appends what follows from them.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error>;

    /// There is no more: appends the rest.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// Pulls `input` through `stage`.
pub(crate) fn pipe(
    input: ByteStream,
    stage: impl Stage + 'static,
    limits: Arc<Limits>,
) -> ByteStream {
    let state = Pipe {
        input,
        stage: Box::new(stage),
        limits,
        rest: Bytes::new(),
        ended: false,
    };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        let piece = state.next().await?;
        Ok(piece.map(|bytes| (bytes, state)))
    }))
}

struct Pipe {
    input: ByteStream,
    stage: Box<dyn Stage>,
    limits: Arc<Limits>,
    rest: Bytes,
    ended: bool,
}

impl Pipe {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut out = Vec::new();
        while out.is_empty() && !self.ended {
            if self.rest.is_empty() {
                match self.input.next().await.transpose()? {
                    Some(chunk) => self.rest = chunk,
                    None => self.ended = true,
                }
            }
            let _permit = self.limits.cpu().await;
            if self.ended {
                self.stage.finish(&mut out)?;
            } else {
                let piece = self.rest.split_to(PIECE.min(self.rest.len()));
                self.stage.push(&piece, &mut out)?;
            }
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

/// The stream without its first `count` bytes.
pub(crate) async fn skip(mut input: ByteStream, mut count: u64) -> Result<ByteStream, Error> {
    while count > 0 {
        let Some(mut chunk) = input.try_next().await? else {
            break;
        };
        let part = usize::try_from(count).map_or(chunk.len(), |count| count.min(chunk.len()));
        let rest = chunk.split_off(part);
        count -= part as u64;
        if !rest.is_empty() {
            return Ok(stream::iter([Ok(rest)]).chain(input).boxed());
        }
    }
    Ok(input)
}

/// Reads chunks until there are `count` bytes or the end; gives the chunks and the stream with them in front again.
pub(crate) async fn peek(
    mut input: ByteStream,
    count: usize,
) -> Result<(Vec<u8>, ByteStream), Error> {
    let mut seen = VecDeque::new();
    let mut head = Vec::with_capacity(count);
    while head.len() < count {
        let Some(chunk) = input.try_next().await? else {
            break;
        };
        head.extend_from_slice(&chunk[..chunk.len().min(count - head.len())]);
        seen.push_back(Ok(chunk));
    }
    Ok((head, stream::iter(seen).chain(input).boxed()))
}

/// Bytes compressed while they are read, unless they are gzip already. Reading again computes again.
#[derive(Debug)]
pub(crate) struct Compressed {
    pub(crate) inner: Blob,
    pub(crate) limits: Arc<Limits>,
}

impl Source for Compressed {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        let (inner, limits) = (self.inner.clone(), self.limits.clone());
        Box::pin(async move {
            let (head, input) = peek(inner.open().await?, MAGIC.len()).await?;
            let output = if head == MAGIC {
                input
            } else {
                gzip(input, GZIP_LEVEL, &limits)
            };
            skip(output, offset).await
        })
    }

    fn access(&self) -> Access {
        self.inner.access()
    }

    fn hosts(&self) -> Vec<Host> {
        self.inner.hosts()
    }
}

#[cfg(test)]
mod tests {
    use ocm_content::gzip::gunzip;
    use ocm_content::limits::LimitsConfig;

    use super::*;

    fn limits() -> Arc<Limits> {
        Limits::new(LimitsConfig {
            cpu: 1,
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        })
    }

    fn kept_stream(bytes: &Bytes) -> ByteStream {
        Box::pin(stream::iter([Ok(bytes.clone())]))
    }

    fn compressed(bytes: Bytes) -> Blob {
        let inner = Blob::from_bytes("application/x-tar", bytes);
        Blob::new(
            "application/gzip",
            Arc::new(Compressed {
                inner,
                limits: limits(),
            }),
        )
    }

    #[tokio::test]
    async fn compression_is_reproducible_and_done_once() {
        let plain: Bytes = (0..200_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect::<Vec<_>>()
            .into();
        let first = compressed(plain.clone())
            .read(1 << 24)
            .await
            .expect("compresses");
        let again = compressed(plain.clone())
            .read(1 << 24)
            .await
            .expect("compresses");
        assert_eq!(first, again);
        // Magic, deflate, no flags, no time, fastest/best hint none, unknown system.
        assert_eq!(first[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        let kept = compressed(first.clone())
            .read(1 << 24)
            .await
            .expect("passes");
        assert_eq!(first, kept);
        let back: Vec<Bytes> = gunzip(kept_stream(&first), &limits())
            .try_collect()
            .await
            .expect("gzip");
        assert_eq!(back.concat(), plain);
        for offset in [0, 1, 10, 70_000, first.len() as u64, 1 << 40] {
            let part: Vec<Bytes> = compressed(again.clone())
                .open_at(offset)
                .await
                .expect("opens")
                .try_collect()
                .await
                .expect("reads");
            let start = usize::try_from(offset).expect("small").min(first.len());
            assert_eq!(part.concat(), first[start..], "{offset}");
        }
    }
}
