//! Bodies that go wrong on their way.

use std::io;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use http::HeaderValue;

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "broken on purpose")
}

type Chunks = stream::BoxStream<'static, Result<Bytes, io::Error>>;

/// The first `length` bytes, without the end.
fn head(body: Body, length: u64) -> Chunks {
    let state = (body.into_data_stream(), length);
    let chunks = stream::unfold(state, |(mut body, left)| async move {
        if left == 0 {
            return None;
        }
        let mut chunk = match body.next().await? {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(io::Error::other(error)), (body, 0))),
        };
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - chunk.len() as u64;
        Some((Ok(chunk), (body, left)))
    });
    chunks.boxed()
}

pub(super) fn cut(body: Body, after: u64) -> Body {
    let end = stream::once(async move {
        if after > 0 {
            // Lets the server send what it has before it learns of the end.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        }
        Err(broken())
    });
    Body::from_stream(head(body, after).chain(end))
}

pub(super) fn stall(body: Body, after: u64) -> Body {
    Body::from_stream(head(body, after).chain(stream::pending()))
}

pub(super) fn flip(body: Body, offset: u64) -> Body {
    let mut seen = 0;
    let chunks = body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        let start = seen;
        seen += chunk.len() as u64;
        if !(start..seen).contains(&offset) {
            return Ok(chunk);
        }
        let mut wrong = BytesMut::from(&chunk[..]);
        if let Some(byte) = usize::try_from(offset - start)
            .ok()
            .and_then(|index| wrong.get_mut(index))
        {
            *byte ^= 1;
        }
        Ok::<_, axum::Error>(wrong.freeze())
    });
    Body::from_stream(chunks)
}

/// As many bytes as the header says: cut off, or followed by zeros.
pub(super) fn pad(body: Body, length: &HeaderValue) -> Body {
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    let mut left: u64 = length.expect("a test gives a length in bytes");
    let zeros = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])));
    let all = body
        .into_data_stream()
        .map(|chunk| chunk.map_err(io::Error::other))
        .chain(zeros);
    let chunks = all.map(move |chunk| {
        let mut chunk = chunk?;
        chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= chunk.len() as u64;
        Ok::<_, io::Error>(chunk)
    });
    // The first chunk with nothing left in it is behind the end.
    Body::from_stream(chunks.take_while(|chunk| {
        let more = chunk.as_ref().map_or(true, |chunk| !chunk.is_empty());
        std::future::ready(more)
    }))
}

/// The first bytes, which end well.
pub(super) fn short(body: Body, length: u64) -> Body {
    Body::from_stream(head(body, length))
}
