//! Blobs on their way out, and away (OCI distribution specification, "Pulling blobs", "Deleting blobs").

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use ocm_content::{ByteStream, ContentStore, Error};
use ocm_specs::Digest;
use ocm_specs::media_type::OCTET_STREAM;
use ocm_specs::oci::Descriptor;

use crate::Registry;
use crate::failure::{Code, Failure, Outcome};
use crate::router::{CONTENT_DIGEST, answer, text};

impl Registry {
    pub(crate) async fn head_blob(&self, name: &str, digest: &Digest) -> Outcome {
        let link = self.blob_link(name, digest).await?;
        Ok(describe(StatusCode::OK, &link, link.size, Body::empty()))
    }

    pub(crate) async fn get_blob(
        &self,
        name: &str,
        digest: &Digest,
        headers: &HeaderMap,
    ) -> Outcome {
        let link = self.blob_link(name, digest).await?;
        let blob = self.store(name)?.fetch(&link);
        let unreadable = |error: Error| match Failure::of_store(&error, Code::BlobUnknown) {
            // What can't be read is not the client's fault.
            failure if failure.status == StatusCode::BAD_REQUEST => Failure::internal(&error),
            failure => failure,
        };
        match Wanted::parse(headers, link.size) {
            Wanted::Whole => {
                let stream = blob.open().await.map_err(unreadable)?;
                let body = Body::from_stream(stream);
                Ok(describe(StatusCode::OK, &link, link.size, body))
            }
            Wanted::Part { start, length } => {
                let stream = blob.open_at(start).await.map_err(unreadable)?;
                let body = Body::from_stream(limit(stream, length));
                let mut response = describe(StatusCode::PARTIAL_CONTENT, &link, length, body);
                let end = start + length - 1;
                let range = text(&format!("bytes {start}-{end}/{}", link.size))?;
                response.headers_mut().insert(CONTENT_RANGE, range);
                Ok(response)
            }
            Wanted::Nothing => Err(Failure::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Code::SizeInvalid,
                format!("the blob has {} bytes", link.size),
            )
            .with(CONTENT_RANGE, text(&format!("bytes */{}", link.size))?)),
        }
    }

    pub(crate) async fn delete_blob(&self, name: &str, digest: &Digest) -> Outcome {
        let link = self.blob_link(name, digest).await?;
        self.store(name)?
            .delete(&link)
            .await
            .map_err(|error| Failure::of_store(&error, Code::BlobUnknown))?;
        Ok(answer(StatusCode::ACCEPTED))
    }

    /// The link to a blob that is there.
    async fn blob_link(&self, name: &str, digest: &Digest) -> Outcome<Descriptor> {
        let size = self.store(name)?.blob_size(digest).await;
        let size = size.map_err(|error| Failure::of_store(&error, Code::BlobUnknown))?;
        Ok(Descriptor::new(OCTET_STREAM, digest.clone(), size))
    }

    pub(crate) fn store(&self, name: &str) -> Outcome<std::sync::Arc<dyn ContentStore>> {
        self.config
            .stores
            .store(name)
            .map_err(|error| Failure::of_store(&error, Code::NameUnknown))
    }
}

fn describe(status: StatusCode, link: &Descriptor, length: u64, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTET_STREAM));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(digest) = HeaderValue::try_from(link.digest.to_string()) {
        headers.insert(CONTENT_DIGEST, digest);
    }
    response
}

/// The first `length` bytes; an error when there are fewer.
fn limit(stream: ByteStream, length: u64) -> ByteStream {
    let state = (stream, length);
    Box::pin(
        stream::try_unfold(state, |(mut stream, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            let Some(mut chunk) = stream.next().await.transpose()? else {
                return Err(Error::mismatch(format!("{left} bytes are missing")));
            };
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - chunk.len() as u64;
            Ok(Some((chunk, (stream, left))))
        })
        .into_stream(),
    )
}

/// Which bytes a request asks for (RFC 9110, section 14).
#[derive(Debug, PartialEq)]
enum Wanted {
    Whole,
    Part { start: u64, length: u64 },
    Nothing,
}

impl Wanted {
    fn parse(headers: &HeaderMap, size: u64) -> Self {
        // No answer of ours carries a validator, so a condition on one never holds.
        if headers.contains_key(IF_RANGE) {
            return Self::Whole;
        }
        headers
            .get(RANGE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| Self::of(value, size))
            .unwrap_or(Self::Whole)
    }

    /// `None` for what is malformed and for several ranges: a server may answer with the whole.
    fn of(value: &str, size: u64) -> Option<Self> {
        let (start, end) = value.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // A number beyond 64 bits is beyond every blob.
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        let (start, end) = match (start, end) {
            ("", end) => {
                let last = number(end)?.min(size);
                (size - last, size)
            }
            (start, "") => (number(start)?, size),
            (start, end) => {
                let (start, end) = (number(start)?, number(end)?);
                if end < start {
                    return None;
                }
                (start, end.saturating_add(1).min(size))
            }
        };
        Some(if start >= end {
            Self::Nothing
        } else {
            Self::Part {
                start,
                length: end - start,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |start, length| Some(Wanted::Part { start, length });
        for (value, size, expected) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=2-4", 10, part(2, 3)),
            ("bytes=2-", 10, part(2, 8)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=5-99999999999999999999999", 10, part(5, 5)),
            ("bytes=10-", 10, Some(Wanted::Nothing)),
            ("bytes=-0", 10, Some(Wanted::Nothing)),
            ("bytes=0-", 0, Some(Wanted::Nothing)),
            ("bytes=99999999999999999999999-", 10, Some(Wanted::Nothing)),
            (
                "bytes=18446744073709551615-18446744073709551615",
                10,
                Some(Wanted::Nothing),
            ),
            ("bytes=4-2", 10, None),
            ("bytes=0-1,3-4", 10, None),
            ("bytes=a-b", 10, None),
            ("bytes=+1-2", 10, None),
            ("lines=0-1", 10, None),
            ("", 10, None),
        ] {
            assert_eq!(Wanted::of(value, size), expected, "{value} of {size}");
        }
    }
}
