//! Blobs on their way in (OCI distribution specification, "Pushing blobs").
//!
//! *Invariant*: a blob becomes visible only after all of it was received and hashed to the digest that the client named.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ocm_content::{Blob, ContentStore, Error, ErrorKind, Staging};
use ocm_specs::Digest;
use ocm_specs::media_type::OCTET_STREAM;
use ocm_specs::oci::Descriptor;

use crate::Registry;
use crate::auth::Caller;
use crate::failure::{Code, Failure, Outcome};
use crate::route;
use crate::router::{CONTENT_DIGEST, Query, answer, text};
use crate::sessions::Taken;

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

impl Registry {
    /// Opens a session; or mounts, or takes the whole blob, when the query says so.
    pub(crate) async fn post_upload(
        &self,
        name: &str,
        query: &Query,
        caller: &Caller,
        body: Body,
    ) -> Outcome {
        if let Some(mount) = query.get("mount") {
            let digest = route::digest(mount)?;
            let from = query.get("from").map(route::repository).transpose()?;
            // A repository that the caller may not read is one that has nothing.
            let from = from.filter(|from| caller.may("pull", from));
            if self.mount(name, &digest, from.as_deref()).await? {
                return created(name, &digest);
            }
        } else if let Some(digest) = query.get("digest") {
            let digest = route::digest(digest)?;
            return self.receive_whole(name, &digest, body).await;
        }
        let session = self.sessions.open(name)?;
        state(StatusCode::ACCEPTED, name, &session, 0)
    }

    /// Where the client may go on.
    pub(crate) fn upload_status(&self, name: &str, session: &str) -> Outcome {
        let received = self.sessions.take(name, session)?.received();
        state(StatusCode::NO_CONTENT, name, session, received)
    }

    /// Appends a chunk.
    pub(crate) async fn patch_upload(
        &self,
        name: &str,
        session: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Outcome {
        let mut taken = self.sessions.take(name, session)?;
        self.append(name, session, &mut taken, headers, body)
            .await?;
        state(StatusCode::ACCEPTED, name, session, taken.received())
    }

    /// Appends what the request carries, and makes the blob visible.
    pub(crate) async fn put_upload(
        &self,
        name: &str,
        session: &str,
        query: &Query,
        headers: &HeaderMap,
        body: Body,
    ) -> Outcome {
        let digest = match query.get("digest") {
            Some(digest) => route::digest(digest)?,
            None => {
                let message = "the query has no `digest`";
                return Err(Failure::bad(Code::DigestInvalid, message));
            }
        };
        let mut taken = self.sessions.take(name, session)?;
        self.append(name, session, &mut taken, headers, body)
            .await?;
        self.commit(name, &digest, taken.finish()).await
    }

    pub(crate) fn delete_upload(&self, name: &str, session: &str) -> Outcome {
        self.sessions.cancel(name, session)?;
        Ok(answer(StatusCode::NO_CONTENT))
    }

    /// Is the blob in `name` now, without any byte from the client?
    async fn mount(&self, name: &str, digest: &Digest, from: Option<&str>) -> Outcome<bool> {
        let failed = |error| Failure::of_store(&error, Code::BlobUnknown);
        let target = self.store(name)?;
        let mut found = find(&target, digest).await.map_err(failed)?;
        if let (None, Some(from)) = (&found, from) {
            found = find(&self.store(from)?, digest).await.map_err(failed)?;
        }
        let Some(blob) = found else {
            return Ok(false);
        };
        // Also what is in the target: the store learns that somebody relies on it.
        let from: Vec<String> = from.map(str::to_owned).into_iter().collect();
        target.push(&blob, &from).await.map_err(failed)?;
        Ok(true)
    }

    /// A blob in one request has no session: what came of it goes with the request.
    async fn receive_whole(&self, name: &str, digest: &Digest, body: Body) -> Outcome {
        let failed = |error| Failure::of_store(&error, Code::BlobUploadInvalid);
        let mut staging = self.config.stores.stage().await.map_err(failed)?;
        let mut body = Incoming::new(body, self.config.limits.stall);
        while let Some(chunk) = body.next().await? {
            staging.write(chunk).await.map_err(failed)?;
        }
        self.commit(name, digest, Some(staging)).await
    }

    async fn append(
        &self,
        name: &str,
        session: &str,
        taken: &mut Taken,
        headers: &HeaderMap,
        body: Body,
    ) -> Outcome<()> {
        let start = taken.received();
        let announced = Announced::parse(headers)?;
        if announced.start.is_some_and(|announced| announced != start) {
            let message = format!("{start} bytes were received, the chunk starts elsewhere");
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let failure = Failure::new(status, Code::BlobUploadInvalid, message);
            return Err(failure
                .with(LOCATION, location(name, session)?)
                .with(RANGE, received(start)?));
        }
        let mut body = Incoming::new(body, self.config.limits.stall);
        while let Some(chunk) = body.next().await? {
            let total = taken.received() - start + chunk.len() as u64;
            if announced.length.is_some_and(|length| total > length) {
                taken.discard();
                return Err(other_length());
            }
            taken.write(self.config.stores.as_ref(), chunk).await?;
        }
        let total = taken.received() - start;
        if announced.length.is_some_and(|length| total != length) {
            taken.discard();
            return Err(other_length());
        }
        Ok(())
    }

    async fn commit(
        &self,
        name: &str,
        digest: &Digest,
        staging: Option<Box<dyn Staging>>,
    ) -> Outcome {
        let failed = |error| Failure::of_store(&error, Code::BlobUploadInvalid);
        let staging = match staging {
            Some(staging) => staging,
            None => self.config.stores.stage().await.map_err(failed)?,
        };
        staging.commit(name, digest).await.map_err(failed)?;
        created(name, digest)
    }
}

fn other_length() -> Failure {
    Failure::bad(
        Code::SizeInvalid,
        "the chunk has another length than its `Content-Range` says",
    )
}

/// What a request says of its chunk.
#[derive(Debug, Default, PartialEq)]
struct Announced {
    start: Option<u64>,
    length: Option<u64>,
}

impl Announced {
    fn parse(headers: &HeaderMap) -> Outcome<Self> {
        let Some(range) = headers.get(CONTENT_RANGE) else {
            return Ok(Self::default());
        };
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let announced = range.to_str().ok().and_then(Self::of);
        announced
            .filter(|announced| length.is_none() || announced.length == length)
            .ok_or_else(|| {
                Failure::bad(
                    Code::BlobUploadInvalid,
                    "`Content-Range` is not `<first byte>-<last byte>` of the body",
                )
            })
    }

    /// `^[0-9]+-[0-9]+$` in the specification; a client or two write `bytes` in front.
    fn of(text: &str) -> Option<Self> {
        let text = text
            .strip_prefix("bytes=")
            .or_else(|| text.strip_prefix("bytes "))
            .unwrap_or(text);
        let (start, end) = text.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            if digits { text.parse().ok() } else { None }
        };
        let (start, end) = (number(start)?, number(end)?);
        Some(Self {
            start: Some(start),
            length: Some(end.checked_sub(start)?.checked_add(1)?),
        })
    }
}

/// A request's body, with a deadline for every chunk.
pub(crate) struct Incoming {
    stream: BodyDataStream,
    stall: Duration,
}

impl Incoming {
    pub(crate) fn new(body: Body, stall: Duration) -> Self {
        Self {
            stream: body.into_data_stream(),
            stall,
        }
    }

    pub(crate) async fn next(&mut self) -> Outcome<Option<Bytes>> {
        match tokio::time::timeout(self.stall, self.stream.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
            Ok(Some(Err(error))) => Err(Failure::bad(
                Code::BlobUploadInvalid,
                format!("the body ended early: {error}"),
            )),
            Err(_) => Err(Failure::new(
                StatusCode::REQUEST_TIMEOUT,
                Code::BlobUploadInvalid,
                "the body makes no progress",
            )),
        }
    }
}

fn created(name: &str, digest: &Digest) -> Outcome {
    let mut response = answer(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(LOCATION, text(&format!("/v2/{name}/blobs/{digest}"))?);
    headers.insert(CONTENT_DIGEST, text(&digest.to_string())?);
    Ok(response)
}

fn state(status: StatusCode, name: &str, session: &str, bytes: u64) -> Outcome<Response> {
    let mut response = answer(status);
    let headers = response.headers_mut();
    headers.insert(LOCATION, location(name, session)?);
    headers.insert(RANGE, received(bytes)?);
    headers.insert(UPLOAD_UUID, text(session)?);
    Ok(response)
}

fn location(name: &str, session: &str) -> Outcome<HeaderValue> {
    text(&format!("/v2/{name}/blobs/uploads/{session}"))
}

/// The header can't say "nothing": `0-0` is what the reference implementation answers then.
/// A handle to a blob that is in `store`, with its length: stores compare that, too.
async fn find(store: &Arc<dyn ContentStore>, digest: &Digest) -> Result<Option<Blob>, Error> {
    match store.blob_size(digest).await {
        Ok(size) => {
            let link = Descriptor::new(OCTET_STREAM, digest.clone(), size);
            Ok(Some(store.fetch(&link)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn received(bytes: u64) -> Outcome<HeaderValue> {
    text(&format!("0-{}", bytes.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        for (text, expected) in [
            ("0-0", Some((0, 1))),
            ("5-9", Some((5, 5))),
            ("bytes=5-9", Some((5, 5))),
            ("0-18446744073709551615", None),
            ("0-99999999999999999999999999999999", None),
            ("9-5", None),
            ("-5", None),
            ("5-", None),
            ("+1-2", None),
            ("", None),
        ] {
            let expected = expected.map(|(start, length)| Announced {
                start: Some(start),
                length: Some(length),
            });
            assert_eq!(Announced::of(text), expected, "{text}");
        }
    }
}
