//! Bringing a blob into a repository: looking and mounting first, then one request or resumable chunks.
//!
//! A blob whose digest is known and that can be read again goes in one PUT up to the threshold, started over when it
//! breaks, and in large streamed PATCHes above it, resumed where the registry says it is. All other blobs go in chunks
//! that are kept in memory until the registry has them, since nobody could read them a second time.
//!
//! *Invariant*: a body ends well only after the source has ended well. One piece is always held back, so a source that
//! turns out wrong breaks the request and never completes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::name::check_repository;
use ocm_content::{Access, Blob, ByteStream, Error, ErrorKind, Meter, Outcome, Pushed, Result};
use ocm_specs::oci::Descriptor;
use ocm_specs::{Algorithm, Digest, Hasher};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, StatusCode};
use tokio::sync::oneshot;
use url::Url;

use super::auth::Scopes;
use super::client::{Answer, Call, PAGE_LIMIT, Payload};
use super::errors::{Failure, has_code, is_passing};
use super::headers::{number, upload_offset};
use super::store::{Repository, announced_digest};

/// The largest chunk that a registry may demand: it is kept in memory.
const CHUNK_MIN_MAX: u64 = 64 << 20;

/// Content whose digest and size are known.
#[derive(Clone)]
enum Known<'a> {
    Blob(&'a Blob),
    /// Read and checked already.
    Kept(Bytes),
}

impl Known<'_> {
    /// Can it be sent a second time?
    fn again(&self) -> bool {
        match self {
            Self::Blob(blob) => blob.access() == Access::Reopenable,
            Self::Kept(_) => true,
        }
    }
}

/// How looking for a blob came out.
enum Begun {
    There(Outcome),
    Open(Session),
}

/// An upload that a registry has opened.
#[derive(Clone, Debug)]
struct Session {
    location: Url,
    /// The least size of a chunk, except the last (`OCI-Chunk-Min-Length`).
    chunk_min: u64,
}

impl Repository {
    /// See [`ocm_content::ContentStore::push`].
    pub(super) async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        match (&blob.digest, blob.size) {
            (Some(digest), Some(size)) => {
                let descriptor = Descriptor::new(blob.media_type.clone(), digest.clone(), size);
                self.push_known(Known::Blob(blob), descriptor, mount_from)
                    .await
            }
            _ => self.push_unknown(blob, mount_from).await,
        }
    }

    async fn push_known(
        &self,
        known: Known<'_>,
        descriptor: Descriptor,
        mount_from: &[String],
    ) -> Result<Pushed> {
        let outcome = self.bring(known, &descriptor, mount_from).await?;
        Meter::with(|meter| match outcome {
            Outcome::Present => meter.skipped(),
            Outcome::Mounted => meter.mounted(),
            Outcome::Sent => {}
        });
        Ok(Pushed {
            descriptor,
            outcome,
        })
    }

    async fn bring(
        &self,
        mut known: Known<'_>,
        descriptor: &Descriptor,
        mount_from: &[String],
    ) -> Result<Outcome> {
        let doing = format!("push blob {}", descriptor.digest);
        let call = self.upload_call(Method::PUT, None, doing);
        let config = &self.inner.config;
        let mut mount_from = mount_from;
        let mut failed = 0;
        loop {
            let session = match self.begin(Some(&descriptor.digest), mount_from).await? {
                Begun::There(outcome) => return Ok(outcome),
                Begun::Open(session) => session,
            };
            let mut upload = Upload::new(self, session, &call);
            if let Known::Blob(blob) = known
                && blob.access() == Access::Once
                && descriptor.size <= config.replay_size
            {
                known = Known::Kept(blob.read(config.replay_size).await?);
            }
            let sent = match &known {
                Known::Kept(bytes) => upload.put_kept(bytes, descriptor).await,
                Known::Blob(blob) if blob.access() == Access::Once => {
                    upload.replay(blob).await.map(drop)
                }
                Known::Blob(blob) if descriptor.size > config.chunk_threshold => {
                    upload.stream_chunks(blob, descriptor).await
                }
                Known::Blob(blob) => upload.put(blob, descriptor).await,
            };
            let failure = match sent {
                Ok(()) => {
                    self.inner.budgets.success(&self.endpoint.host);
                    return Ok(Outcome::Sent);
                }
                Err(failure) => failure,
            };
            upload.cancel().await;
            failed += 1;
            let failure = Failure {
                again: failure.again && known.again(),
                ..failure
            };
            self.inner.pause(&call, failure, failed).await?;
            // What can be mounted would have been; from now on the question is whether a try has arrived after all.
            mount_from = &[];
        }
    }

    /// Pushes what must be read to know its digest.
    async fn push_unknown(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        let call = self.upload_call(
            Method::PATCH,
            None,
            "push a blob of unknown digest".to_owned(),
        );
        let limit = self.inner.config.replay_size;
        let mut failed = 0;
        loop {
            let mut source = blob.open().await?;
            let first = gather(&mut source, limit).await?;
            if first.last {
                let mut all = BytesMut::new();
                first
                    .pieces
                    .iter()
                    .for_each(|piece| all.extend_from_slice(piece));
                // A digest that is known was checked by the source.
                let digest = blob.digest.clone().unwrap_or_else(|| Digest::sha256(&all));
                let descriptor = Descriptor::new(blob.media_type.clone(), digest, all.len() as u64);
                let known = Known::Kept(all.freeze());
                return self.push_known(known, descriptor, mount_from).await;
            }
            let session = match self.begin(blob.digest.as_ref(), mount_from).await? {
                Begun::Open(session) => session,
                Begun::There(outcome) => return self.there(blob, outcome).await,
            };
            let mut upload = Upload::new(self, session, &call);
            let failure = match upload.replay_from(blob, source, first).await {
                Ok(descriptor) => {
                    return Ok(Pushed {
                        descriptor,
                        outcome: Outcome::Sent,
                    });
                }
                Err(failure) => failure,
            };
            upload.cancel().await;
            failed += 1;
            let failure = Failure {
                again: failure.again && blob.access() == Access::Reopenable,
                ..failure
            };
            self.inner.pause(&call, failure, failed).await?;
        }
    }

    /// A blob of known digest but unknown size turned out to be here: the registry knows its size.
    async fn there(&self, blob: &Blob, outcome: Outcome) -> Result<Pushed> {
        let Some(digest) = &blob.digest else {
            return Err(Error::internal("a blob without digest can't be found"));
        };
        let size = self.blob_size(digest).await?;
        Ok(Pushed {
            descriptor: Descriptor::new(blob.media_type.clone(), digest.clone(), size),
            outcome,
        })
    }

    fn upload_call(&self, method: Method, location: Option<&Url>, doing: String) -> Call {
        let mut call = self.call(method, "blobs/uploads/", doing);
        if let Some(location) = location {
            call.url = location.clone();
        }
        call
    }

    /// Looks for the blob, mounts it, or opens an upload, with as few requests as the registry allows.
    async fn begin(&self, digest: Option<&Digest>, mount_from: &[String]) -> Result<Begun> {
        let Some(digest) = digest else {
            let opened = self.open(None, None).await;
            return opened.and_then(|answer| answer.begun(None));
        };
        let other = mount_from
            .first()
            .filter(|from| **from != self.name && check_repository(from).is_ok());
        if let Some(from) = other {
            match self
                .open(Some(digest), Some(from))
                .await?
                .begun(Some(Outcome::Mounted))
            {
                // It could not be mounted; it may be here already.
                Ok(Begun::Open(session)) => return self.look_first(digest, session).await,
                Ok(there) => return Ok(there),
                Err(error) => tracing::debug!(%error, from, "can't mount"),
            }
        }
        let mut stumbled = false;
        if !self.inner.abilities(&self.endpoint).no_self_mount {
            let answer = self.open(Some(digest), Some(&self.name)).await?;
            stumbled = matches!(answer.answer.status.as_u16(), 400 | 404 | 405 | 501);
            if !stumbled {
                return answer.begun(Some(Outcome::Present));
            }
        }
        let descriptor = Descriptor::new("", digest.clone(), 0);
        if self.exists(&descriptor).await? {
            return Ok(Begun::There(Outcome::Present));
        }
        let begun = self.open(Some(digest), None).await?.begun(None)?;
        if stumbled {
            self.inner
                .learn(&self.endpoint, |abilities| abilities.no_self_mount = true);
        }
        Ok(begun)
    }

    async fn look_first(&self, digest: &Digest, session: Session) -> Result<Begun> {
        let descriptor = Descriptor::new("", digest.clone(), 0);
        if !self.exists(&descriptor).await? {
            return Ok(Begun::Open(session));
        }
        let call = self.upload_call(Method::POST, None, format!("push blob {digest}"));
        Upload::new(self, session, &call).cancel().await;
        Ok(Begun::There(Outcome::Present))
    }

    /// `POST /blobs/uploads/`, with or without a mount.
    async fn open(&self, digest: Option<&Digest>, from: Option<&str>) -> Result<Opened<'_>> {
        let mount = digest.zip(from);
        let doing = match (digest, from) {
            (None, _) => "open an upload".to_owned(),
            (Some(digest), None) => format!("open an upload of blob {digest}"),
            (Some(digest), Some(from)) if *from == self.name => {
                format!("look for blob {digest} or open an upload")
            }
            (Some(digest), Some(from)) => {
                format!("mount blob {digest} from {from} or open an upload")
            }
        };
        let mut call = self.upload_call(Method::POST, None, doing);
        if let Some((digest, from)) = mount {
            call.url
                .query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", from);
            if *from != self.name {
                call.scopes = call.scopes.union(&Scopes::repository(from, "pull"));
            }
        }
        let answer = match self
            .inner
            .exchange(&call, Some(Bytes::new()), PAGE_LIMIT)
            .await
        {
            Ok(answer) => answer,
            // A token service may refuse to talk about the other repository at all.
            Err(error)
                if mount.is_some_and(|(_, from)| *from != self.name)
                    && error.kind() == ErrorKind::Denied =>
            {
                Box::pin(self.open(digest, None)).await?.answer
            }
            Err(error) => return Err(error),
        };
        Ok(Opened {
            repository: self,
            call,
            answer,
            digest: mount.map(|(digest, _)| digest.clone()),
        })
    }
}

/// The answer to a POST.
struct Opened<'a> {
    repository: &'a Repository,
    call: Call,
    answer: Answer,
    digest: Option<Digest>,
}

impl Opened<'_> {
    /// A 201 means `there`, a 202 is a session; anything else is an error.
    fn begun(self, there: Option<Outcome>) -> Result<Begun> {
        let Self {
            repository,
            call,
            answer,
            digest,
        } = self;
        match (answer.status, there) {
            (StatusCode::CREATED, Some(outcome)) => {
                match (announced_digest(&answer.headers), digest) {
                    (Some(said), Some(asked)) if said != asked => {
                        let error = Error::mismatch(format!("the registry says it mounted {said}"));
                        Err(call.blame(error, 1))
                    }
                    _ => Ok(Begun::There(outcome)),
                }
            }
            (StatusCode::ACCEPTED, _) => {
                let location = location(repository, &answer.url, &answer.headers)
                    .and_then(|location| {
                        location
                            .ok_or_else(|| Error::invalid("the registry names no upload location"))
                    })
                    .map_err(|error| call.blame(error, 1))?;
                let chunk_min = answer.header("oci-chunk-min-length").and_then(number);
                Ok(Begun::Open(Session {
                    location,
                    chunk_min: chunk_min.unwrap_or(0),
                }))
            }
            _ => Err(answer.error(&call)),
        }
    }
}

/// The checked `Location` of an answer, where it has one.
fn location(repository: &Repository, from: &Url, headers: &HeaderMap) -> Result<Option<Url>> {
    let Some(text) = headers.get(LOCATION) else {
        return Ok(None);
    };
    let text = text.to_str().unwrap_or("\\");
    repository
        .endpoint
        .own_url(from, text, "upload location")
        .map(Some)
}

/// Bytes read ahead from a source.
struct Gathered {
    pieces: Vec<Bytes>,
    length: u64,
    /// Did the source end well behind them?
    last: bool,
}

/// Reads until at least `limit` bytes are there or the source ends.
async fn gather(source: &mut ByteStream, limit: u64) -> Result<Gathered> {
    let mut gathered = Gathered {
        pieces: Vec::new(),
        length: 0,
        last: false,
    };
    while gathered.length < limit.max(1) {
        match source.next().await.transpose()? {
            Some(piece) => {
                gathered.length += piece.len() as u64;
                gathered.pieces.push(piece);
            }
            None => {
                gathered.last = true;
                break;
            }
        }
    }
    Ok(gathered)
}

/// A session in use.
struct Upload<'a> {
    repository: &'a Repository,
    session: Session,
    call: &'a Call,
    /// Bytes that the registry has.
    offset: u64,
    /// Has the registry forgotten it, or turned it into a blob?
    over: bool,
}

impl<'a> Upload<'a> {
    fn new(repository: &'a Repository, session: Session, call: &'a Call) -> Self {
        Self {
            repository,
            session,
            call,
            offset: 0,
            over: false,
        }
    }

    fn request(&self, method: Method) -> Call {
        let doing = self.call.doing.clone();
        let mut call = self
            .repository
            .upload_call(method, Some(&self.session.location), doing);
        call.doing = self.call.doing.clone();
        call
    }

    fn closing(&self, digest: &Digest) -> Call {
        let mut call = self.request(Method::PUT);
        call.url
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        call.header(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        )
    }

    /// The whole blob in one request.
    async fn put(&mut self, blob: &Blob, descriptor: &Descriptor) -> Result<(), Failure> {
        let source = blob.open().await.map_err(Failure::last)?;
        self.put_stream(hold_back(source), descriptor).await
    }

    /// Content that was checked already, in one request.
    async fn put_kept(&mut self, bytes: &Bytes, descriptor: &Descriptor) -> Result<(), Failure> {
        let pieces = (!bytes.is_empty()).then(|| Ok(bytes.clone()));
        self.put_stream(Box::pin(stream::iter(pieces)), descriptor)
            .await
    }

    async fn put_stream(
        &mut self,
        source: ByteStream,
        descriptor: &Descriptor,
    ) -> Result<(), Failure> {
        let call = self
            .closing(&descriptor.digest)
            .header(CONTENT_LENGTH, HeaderValue::from(descriptor.size))
            .without_slot();
        let timeouts = self.repository.inner.config.timeouts_of(&call.url);
        let (body, outgoing) = outgoing(source, descriptor.size, &call.meter);
        let late = outgoing.clone().late(timeouts.stall, timeouts.commit);
        let sent = self
            .transfer(&call, Payload::Stream(body, Box::pin(late)))
            .await;
        let answer = outgoing.blame(sent)?;
        self.closed(answer, &descriptor.digest)
    }

    fn closed(&mut self, answer: Answer, digest: &Digest) -> Result<(), Failure> {
        self.over = true;
        match announced_digest(&answer.headers) {
            Some(said) if said.algorithm() == digest.algorithm() && said != *digest => {
                Err(Failure::last(Error::mismatch(format!(
                    "the registry says it is {said} now"
                ))))
            }
            _ => Ok(()),
        }
    }

    /// Sends a body once, and gives the answer if it is a good one.
    async fn transfer(&mut self, call: &Call, payload: Payload) -> Result<Answer, Failure> {
        let inner = &self.repository.inner;
        let mut response = inner.attempt(call, payload).await?.response;
        let (status, headers) = (response.status(), response.headers().clone());
        let url = response.url().clone();
        let body = inner.error_body(&mut response).await;
        if !matches!(status.as_u16(), 201 | 202 | 204) {
            let mut failure = Failure::answered(status, &headers, &body);
            // The session is gone, or is somewhere else than we thought: both can be looked into. Bytes that are wrong there
            // were right here, or their source would have said so.
            failure.again |= matches!(status.as_u16(), 404 | 416)
                || has_code(&body, "DIGEST_INVALID")
                || has_code(&body, "SIZE_INVALID")
                || has_code(&body, "BLOB_UPLOAD_INVALID");
            self.over |= status == StatusCode::NOT_FOUND;
            return Err(failure);
        }
        Ok(Answer {
            status,
            headers,
            body,
            url,
        })
    }

    /// Large chunks, streamed from a source that can be read again.
    async fn stream_chunks(&mut self, blob: &Blob, descriptor: &Descriptor) -> Result<(), Failure> {
        let size = descriptor.size;
        let chunk = self
            .repository
            .inner
            .config
            .chunk_size
            .max(self.session.chunk_min)
            .max(1);
        let mut feed = Some(blob.open().await.map(Feed::new).map_err(Failure::last)?);
        let mut failed = 0;
        while self.offset < size {
            let length = chunk.min(size - self.offset);
            let source = match feed.take() {
                Some(feed) => feed,
                // Behind a break the registry alone checks the digest, when the upload is closed.
                None => blob
                    .open_at(self.offset)
                    .await
                    .map(Feed::new)
                    .map_err(Failure::last)?,
            };
            let before = self.offset;
            let (body, outgoing, back) = source.piece(length, &self.call.meter);
            match outgoing.blame(self.patch(body, &outgoing, length).await) {
                Ok(()) if self.offset == before + length => {
                    feed = back.await.ok();
                    failed = 0;
                }
                Ok(()) if self.offset > before => failed = 0,
                Ok(()) => {
                    failed += 1;
                    let failure = Failure::passing("the registry took none of a chunk");
                    self.wait(failure, failed).await?;
                }
                Err(failure) => {
                    failed += 1;
                    self.recover(failure, failed, before..=before + length)
                        .await?;
                }
            }
        }
        self.close(&descriptor.digest).await
    }

    /// Small chunks, kept until the registry has them; for what is read only once. Gives the digest and size seen.
    async fn replay(&mut self, blob: &Blob) -> Result<Descriptor, Failure> {
        let mut source = blob.open().await.map_err(Failure::last)?;
        let limit = self.repository.inner.config.replay_size;
        let first = gather(&mut source, limit).await.map_err(Failure::last)?;
        self.replay_from(blob, source, first).await
    }

    async fn replay_from(
        &mut self,
        blob: &Blob,
        mut source: ByteStream,
        first: Gathered,
    ) -> Result<Descriptor, Failure> {
        if self.session.chunk_min > CHUNK_MIN_MAX {
            return Err(Failure::last(Error::limit(format!(
                "the registry wants chunks of at least {} bytes, and {CHUNK_MIN_MAX} are kept in memory at most",
                self.session.chunk_min
            ))));
        }
        let limit = self
            .repository
            .inner
            .config
            .replay_size
            .max(self.session.chunk_min);
        // A known digest is checked below, by the source; hashing it here again would be for nothing.
        let mut hasher = blob
            .digest
            .is_none()
            .then(|| Hasher::new(Algorithm::Sha256));
        let mut chunk = first;
        if chunk.length < limit && !chunk.last {
            let more = gather(&mut source, limit - chunk.length)
                .await
                .map_err(Failure::last)?;
            chunk.pieces.extend(more.pieces);
            chunk.length += more.length;
            chunk.last = more.last;
        }
        loop {
            if let Some(hasher) = &mut hasher {
                chunk.pieces.iter().for_each(|piece| hasher.update(piece));
            }
            self.send_kept(&chunk).await?;
            if chunk.last {
                break;
            }
            chunk = gather(&mut source, limit).await.map_err(Failure::last)?;
        }
        let digest = match (hasher, &blob.digest) {
            (Some(hasher), _) => hasher.finish(),
            (None, Some(digest)) => digest.clone(),
            (None, None) => return Err(Failure::last(Error::internal("no digest was computed"))),
        };
        self.close(&digest).await?;
        Ok(Descriptor::new(
            blob.media_type.clone(),
            digest,
            self.offset,
        ))
    }

    async fn send_kept(&mut self, chunk: &Gathered) -> Result<(), Failure> {
        let start = self.offset;
        let end = start + chunk.length;
        let mut failed = 0;
        while self.offset < end {
            let before = self.offset;
            let left = after(&chunk.pieces, before - start);
            let pieces: ByteStream = Box::pin(stream::iter(left.into_iter().map(Ok)));
            let (body, outgoing) = outgoing(pieces, end - before, &self.call.meter);
            match self.patch(body, &outgoing, end - before).await {
                Ok(()) if self.offset > before => failed = 0,
                Ok(()) => {
                    failed += 1;
                    let failure = Failure::passing("the registry took none of a chunk");
                    self.wait(failure, failed).await?;
                }
                Err(failure) => {
                    failed += 1;
                    self.recover(failure, failed, start..=end).await?;
                }
            }
        }
        Ok(())
    }

    /// One PATCH of `length` bytes; afterwards `offset` is where the registry says it is.
    async fn patch(
        &mut self,
        body: reqwest::Body,
        outgoing: &Arc<Outgoing>,
        length: u64,
    ) -> Result<(), Failure> {
        let range = format!("{}-{}", self.offset, self.offset + length - 1);
        let range = HeaderValue::try_from(range).expect("digits are fine in a header");
        let call = self
            .request(Method::PATCH)
            .header(
                CONTENT_TYPE,
                HeaderValue::from_static("application/octet-stream"),
            )
            .header(CONTENT_LENGTH, HeaderValue::from(length))
            .header(CONTENT_RANGE, range)
            .without_slot();
        let timeouts = self.repository.inner.config.timeouts_of(&call.url);
        let late = outgoing.clone().late(timeouts.stall, timeouts.commit);
        let answer = self
            .transfer(&call, Payload::Stream(body, Box::pin(late)))
            .await?;
        let told = answer.header(RANGE.as_str()).and_then(upload_offset);
        let end = self.offset + length;
        let now = told.unwrap_or(end);
        if !(self.offset..=end).contains(&now) {
            return Err(Failure::last(Error::invalid(format!(
                "the registry says that it has {now} bytes of an upload of which {end} were sent"
            ))));
        }
        self.moved(&answer)?;
        self.offset = now;
        Ok(())
    }

    fn moved(&mut self, answer: &Answer) -> Result<(), Failure> {
        if let Some(location) =
            location(self.repository, &answer.url, &answer.headers).map_err(Failure::last)?
        {
            self.session.location = location;
        }
        Ok(())
    }

    /// After a failed PATCH: waits, then asks the session how far it is. An answer outside of `possible` ends the upload.
    async fn recover(
        &mut self,
        failure: Failure,
        failed: u32,
        possible: std::ops::RangeInclusive<u64>,
    ) -> Result<(), Failure> {
        if self.over {
            return Err(failure);
        }
        let unauthorized = failure.status == Some(StatusCode::UNAUTHORIZED);
        self.wait(failure, failed).await?;
        let mut call = self.request(Method::GET);
        "ask how far the upload came".clone_into(&mut call.doing);
        let inner = &self.repository.inner;
        let answer = inner.exchange(&call, None, PAGE_LIMIT).await;
        // A session that does not answer may be in the hands of a connection that is gone: another one is begun.
        let answer = answer.map_err(|error| Failure {
            again: error.kind() == ErrorKind::Unavailable,
            ..Failure::last(error)
        })?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::ACCEPTED | StatusCode::OK => {
                let told = answer.header(RANGE.as_str()).and_then(upload_offset);
                self.moved(&answer)?;
                // Nothing told: the session may be empty, which is as good as known only where nothing was sent before.
                match told.or((*possible.start() == 0).then_some(0)) {
                    Some(offset) if possible.contains(&offset) => self.offset = offset,
                    _ => {
                        return Err(Failure::passing(
                            "the registry does not tell how far an upload came",
                        ));
                    }
                }
                Ok(())
            }
            // It can't tell; a request that it did not take has left the session where it was.
            _ if unauthorized => Ok(()),
            status => {
                self.over = status == StatusCode::NOT_FOUND;
                Err(Failure {
                    again: true,
                    ..Failure::answered(status, &answer.headers, &answer.body)
                })
            }
        }
    }

    async fn wait(&self, failure: Failure, failed: u32) -> Result<(), Failure> {
        let inner = &self.repository.inner;
        // `pause` names the upload, and so does whoever gets this error: once is enough.
        let unnamed = Call {
            doing: format!("at byte {}", self.offset),
            ..self.call.clone()
        };
        inner
            .pause(&unnamed, failure, failed)
            .await
            .map_err(Failure::last)
    }

    /// Ends a chunked upload. When the answer is lost, the blob itself tells whether it worked.
    async fn close(&mut self, digest: &Digest) -> Result<(), Failure> {
        let inner = &self.repository.inner;
        let call = self
            .closing(digest)
            .header(CONTENT_LENGTH, HeaderValue::from(0));
        let mut failed = 0;
        loop {
            let late = late_commit(inner.config.timeouts_of(&call.url).commit);
            let payload = Payload::Stream(reqwest::Body::from(Bytes::new()), Box::pin(late));
            let failure = match self.transfer(&call, payload).await {
                Ok(answer) => return self.closed(answer, digest),
                Err(failure) => failure,
            };
            let lost = failure.again || failure.status.is_some_and(is_passing);
            // Wrong bytes can't be closed again, but sent.
            if !lost || failure.error.kind() == ErrorKind::Mismatch {
                return Err(failure);
            }
            failed += 1;
            let unauthorized = failure.status == Some(StatusCode::UNAUTHORIZED);
            self.wait(failure, failed).await?;
            if unauthorized {
                continue;
            }
            let descriptor = Descriptor::new("", digest.clone(), 0);
            if self
                .repository
                .exists(&descriptor)
                .await
                .map_err(Failure::last)?
            {
                self.over = true;
                return Ok(());
            }
            if self.over {
                return Err(Failure::passing("the registry has forgotten the upload"));
            }
        }
    }

    /// Tells the registry that nothing more will come. Best effort: registries clean up by themselves, too.
    async fn cancel(&mut self) {
        if self.over {
            return;
        }
        self.over = true;
        let mut call = self.request(Method::DELETE);
        call.scopes = self.call.scopes.clone();
        if let Err(failure) = self.repository.inner.attempt(&call, Payload::None).await {
            tracing::debug!(error = %failure.error, "can't cancel an upload");
        }
    }
}

async fn late_commit(patience: Duration) -> Failure {
    tokio::time::sleep(patience).await;
    Failure::passing(format!(
        "no answer within {} seconds",
        patience.as_secs_f64()
    ))
}

/// What is left of `pieces` after `skip` bytes.
fn after(pieces: &[Bytes], skip: u64) -> Vec<Bytes> {
    let mut skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let mut left = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        if skipped < piece.len() {
            left.push(piece.slice(skipped..));
        }
    }
    left
}

/// Gives each piece only when the next one, or a good end, is there.
fn hold_back(source: ByteStream) -> ByteStream {
    let held: Option<Bytes> = None;
    Box::pin(stream::try_unfold(
        (source, held, false),
        |(mut source, mut held, ended)| async move {
            if ended {
                return Ok(None);
            }
            loop {
                match source.next().await.transpose()? {
                    Some(next) if next.is_empty() => {}
                    Some(next) => {
                        if let Some(piece) = held.replace(next) {
                            return Ok(Some((piece, (source, held, false))));
                        }
                    }
                    None => return Ok(held.map(|piece| (piece, (source, None, true)))),
                }
            }
        },
    ))
}

/// A source that one chunk after the other is taken from.
struct Feed {
    source: ByteStream,
    /// The rest of a piece that was longer than its chunk.
    rest: Bytes,
}

impl Feed {
    fn new(source: ByteStream) -> Self {
        Self {
            source: hold_back(source),
            rest: Bytes::new(),
        }
    }

    /// A body of the next `length` bytes. The feed comes back when the last of them was taken.
    fn piece(
        self,
        length: u64,
        meter: &Option<Arc<Meter>>,
    ) -> (reqwest::Body, Arc<Outgoing>, oneshot::Receiver<Self>) {
        let (back, receiver) = oneshot::channel();
        let state = (Some((self, back)), length);
        let pieces: ByteStream = Box::pin(stream::try_unfold(state, |(state, left)| async move {
            let Some((mut feed, back)) = state else {
                return Ok(None);
            };
            let mut piece = match feed.rest.is_empty() {
                true => feed.source.next().await.transpose()?,
                false => Some(std::mem::take(&mut feed.rest)),
            };
            let Some(piece) = piece.as_mut() else {
                return Ok(None);
            };
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            feed.rest = piece.split_off(taken);
            let left = left - taken as u64;
            let piece = std::mem::take(piece);
            if left == 0 {
                // Nobody waits for it when the request was given up.
                let _ = back.send(feed);
                return Ok(Some((piece, (None, 0))));
            }
            Ok(Some((piece, (Some((feed, back)), left))))
        }));
        let (body, outgoing) = outgoing(pieces, length, meter);
        (body, outgoing, receiver)
    }
}

/// What happens to a body that the connection takes from us.
#[derive(Debug)]
struct Outgoing {
    /// Bytes the connection has taken.
    taken: AtomicU64,
    /// Bytes there are.
    length: u64,
    /// Is the connection waiting for our source right now?
    hungry: AtomicU64,
    /// What went wrong with the source.
    fault: Mutex<Option<Error>>,
}

/// A body of exactly `length` bytes over `source`, and the view of it that remains here.
fn outgoing(
    source: ByteStream,
    length: u64,
    meter: &Option<Arc<Meter>>,
) -> (reqwest::Body, Arc<Outgoing>) {
    let outgoing = Arc::new(Outgoing {
        taken: AtomicU64::new(0),
        length,
        hungry: AtomicU64::new(0),
        fault: Mutex::default(),
    });
    let state = (source, outgoing.clone(), meter.clone());
    let pieces = stream::try_unfold(state, |(mut source, outgoing, meter)| async move {
        let hungry = Hungry::new(outgoing);
        let next = source.next().await;
        let outgoing = hungry.fed();
        match outgoing.check(next) {
            Ok(Some(piece)) => {
                if let Some(meter) = &meter {
                    meter.sent(piece.len() as u64);
                }
                Ok(Some((piece, (source, outgoing, meter))))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                let text = error.to_string();
                outgoing.fail(error);
                Err(std::io::Error::other(text))
            }
        }
    });
    (reqwest::Body::wrap_stream(pieces.into_stream()), outgoing)
}

/// Marks that a connection waits for our source, as long as it does.
struct Hungry(Arc<Outgoing>);

impl Hungry {
    fn new(outgoing: Arc<Outgoing>) -> Self {
        outgoing.hungry.store(1, Ordering::Release);
        Self(outgoing)
    }

    fn fed(self) -> Arc<Outgoing> {
        self.0.hungry.store(0, Ordering::Release);
        self.0
    }
}

impl Outgoing {
    /// Counts a piece; an end before its time is an error.
    fn check(&self, next: Option<Result<Bytes>>) -> Result<Option<Bytes>> {
        let piece = next.transpose()?;
        let length = piece.as_ref().map_or(0, Bytes::len) as u64;
        let taken = self.taken.fetch_add(length, Ordering::AcqRel) + length;
        if taken > self.length || (piece.is_none() && taken < self.length) {
            return Err(Error::mismatch(format!(
                "content ended after {taken} of {} bytes",
                self.length
            )));
        }
        Ok(piece)
    }

    fn fail(&self, error: Error) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// A request that failed because of its source failed for the source's reason, and is not to be sent again.
    fn blame<T>(&self, sent: Result<T, Failure>) -> Result<T, Failure> {
        let fault = self
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (sent, fault) {
            (Err(_), Some(error)) => Err(Failure::last(error)),
            (sent, _) => sent,
        }
    }

    /// Resolves when the registry takes nothing for `stall` although there is something to take, or does not answer within
    /// `commit` after it has taken all. A slow source is not the registry's fault.
    async fn late(self: Arc<Self>, stall: Duration, commit: Duration) -> Failure {
        let mut before = None;
        loop {
            tokio::time::sleep(stall).await;
            let taken = self.taken.load(Ordering::Acquire);
            if taken >= self.length {
                tokio::time::sleep(commit).await;
                return Failure::passing(format!(
                    "the registry has all bytes and does not answer for {} seconds",
                    commit.as_secs_f64()
                ));
            }
            let waiting = self.hungry.load(Ordering::Acquire) != 0;
            if before == Some(taken) && !waiting {
                return Failure::passing(format!(
                    "the registry takes no byte for {} seconds",
                    stall.as_secs_f64()
                ));
            }
            before = Some(taken);
        }
    }
}
