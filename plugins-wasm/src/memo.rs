//! A step that need not run again: it is known by what it depends on, and what it gave is kept.
//!
//! Invariants: only steps that are deterministic and have no rights are remembered; a step is the same only if its type, the
//! bytes of its plugin, its configuration, its inputs and the digests of its contents are; and a guest that breaks its word
//! about being deterministic is not made to look as if it kept it: what was kept is what its first reader got.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_content::{
    Access, Artifact, Blob, ByteStream, Content, Error, Host, Limits, Source, spool,
};
use ocm_specs::Digest;
use ocm_specs::json::to_sorted;
use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value as Json, json};

use crate::bindings::exports::ocm::transformer::transform as wit;
use crate::bindings::ocm::transformer::types::ContentInfo;
use crate::results::{Keeping, Results};

/// What a step is known by.
#[derive(Clone)]
pub(crate) struct Memo {
    results: Arc<Results>,
    plugin: Digest,
    key: Digest,
}

/// What a step gave, as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    output: JsonMap<String, Json>,
    contents: Vec<(String, Given)>,
}

/// One content of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Given {
    /// That of an input.
    SameAs(String),
    /// Made when somebody reads it, by this state; kept under a note of its own when somebody did.
    #[serde(rename_all = "camelCase")]
    Lazy {
        media_type: String,
        size: Option<u64>,
        digest: Option<String>,
        state: String,
    },
    /// Kept.
    Kept(Bytes),
}

/// Bytes that are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Bytes {
    media_type: String,
    digest: Digest,
    size: u64,
}

impl Given {
    /// A lazy content as a guest gave it.
    pub(crate) fn lazy(lazy: &wit::LazyContent) -> Self {
        Self::Lazy {
            media_type: lazy.info.media_type.clone(),
            size: lazy.info.size,
            digest: lazy.info.digest.clone(),
            state: BASE64_STANDARD.encode(&lazy.state),
        }
    }

    /// And back.
    pub(crate) fn to_lazy(&self) -> Option<wit::LazyContent> {
        let Self::Lazy {
            media_type,
            size,
            digest,
            state,
        } = self
        else {
            return None;
        };
        Some(wit::LazyContent {
            info: ContentInfo {
                media_type: media_type.clone(),
                size: *size,
                digest: digest.clone(),
            },
            state: BASE64_STANDARD.decode(state).ok()?,
        })
    }
}

/// What has to be known of a step's plugin.
pub(crate) struct Subject<'a> {
    pub(crate) results: &'a Arc<Results>,
    pub(crate) plugin: &'a Digest,
    pub(crate) config: &'a str,
    pub(crate) step_type: &'a str,
}

impl Subject<'_> {
    fn key(&self, what: &str, spec: &Json, contents: &Json) -> Digest {
        let parts = json!([
            what,
            self.step_type,
            self.plugin.to_string(),
            self.config,
            spec,
            contents
        ]);
        Digest::sha256(to_sorted(&parts).as_bytes())
    }

    /// Did the plugin once have nothing against that spec?
    pub(crate) async fn was_valid(&self, spec: &Json) -> bool {
        let key = self.key("validate", spec, &Json::Null);
        self.results.note::<bool>(&key).await == Some(true)
    }

    /// It has nothing against it.
    pub(crate) async fn is_valid(&self, spec: &Json) {
        let key = self.key("validate", spec, &Json::Null);
        forgive(self.results.keep_note(&key, self.plugin, &true).await);
    }

    /// What a step is known by; nothing, where it reads an artifact that is still being put together. Contents without a
    /// digest are read to learn it, and those that can be read only once are kept in the run's spool for it.
    ///
    /// # Errors
    /// What reading gives.
    pub(crate) async fn memo(
        &self,
        spec: &Json,
        contents: &mut [(String, Content)],
        limits: &Arc<Limits>,
    ) -> Result<Option<Memo>, Error> {
        let mut known = Vec::with_capacity(contents.len());
        for (port, content) in contents {
            let identity = match content {
                // Its layout follows from its root and its tag.
                Content::Artifact(Artifact::Stored(stored)) => {
                    json!(["artifact", stored.root.digest.to_string(), stored.tag])
                }
                Content::Artifact(Artifact::Composed(_)) => return Ok(None),
                Content::Blob(blob) => {
                    let read = spool(blob, limits).await;
                    *blob = read.map_err(|error| error.context(format!("port `{port}`")))?;
                    json!(["blob", digest(blob)?, blob.media_type])
                }
            };
            known.push(json!([port, identity]));
        }
        Ok(Some(Memo {
            results: self.results.clone(),
            plugin: self.plugin.clone(),
            key: self.key("run", spec, &known.into()),
        }))
    }
}

fn digest(blob: &Blob) -> Result<String, Error> {
    let digest = blob.digest.as_ref().map(ToString::to_string);
    digest.ok_or_else(|| Error::internal("content that was read has a digest"))
}

impl Memo {
    /// What the step gave, if that is known and all that was kept of it is whole.
    pub(crate) async fn known(&self) -> Option<(JsonMap<String, Json>, Vec<(String, Given)>)> {
        let found: Option<Outcome> = self.results.note(&self.key).await;
        let mut is_whole = found.is_some();
        for (_, given) in found.iter().flat_map(|found| &found.contents) {
            if let Given::Kept(bytes) = given {
                is_whole &= self.kept(bytes).await.is_some();
            }
        }
        let found = found.filter(|_| is_whole);
        self.results.count(found.is_some());
        found.map(|found| (found.output, found.contents))
    }

    /// Keeps what the step gave.
    pub(crate) async fn keep(
        &self,
        output: &JsonMap<String, Json>,
        contents: Vec<(String, Given)>,
    ) {
        let outcome = Outcome {
            output: output.clone(),
            contents,
        };
        forgive(
            self.results
                .keep_note(&self.key, &self.plugin, &outcome)
                .await,
        );
    }

    /// Keeps bytes that are there already.
    pub(crate) async fn keep_bytes(&self, blob: &Blob) -> Option<Given> {
        let kept = self.results.keep(blob).await;
        let (digest, size) = forgive(kept)?;
        Some(Given::Kept(Bytes {
            media_type: blob.media_type.clone(),
            digest,
            size,
        }))
    }

    /// Bytes that were kept, if they are whole.
    pub(crate) async fn kept(&self, bytes: &Bytes) -> Option<Blob> {
        let Bytes {
            media_type,
            digest,
            size,
        } = bytes;
        self.results.content(media_type, digest, *size).await
    }

    /// A lazy content that is kept when it is read, or was.
    pub(crate) async fn lazy(&self, port: &str, made: Blob) -> Blob {
        // What states another kind of digest would get another one when it is kept.
        let stated = made.digest.as_ref().map(Digest::algorithm);
        if stated.is_some_and(|algorithm| algorithm != ocm_specs::Algorithm::Sha256) {
            return made;
        }
        let key = Digest::sha256(json!(["produce", self.key, port]).to_string().as_bytes());
        let kept: Option<Bytes> = self.results.note(&key).await;
        let is_meant = |bytes: &Bytes| {
            bytes.media_type == made.media_type && fits(&made, &bytes.digest, bytes.size)
        };
        if let Some(bytes) = kept.filter(is_meant)
            && let Some(blob) = self.kept(&bytes).await
        {
            return blob;
        }
        let source = Captured(Arc::new(Capture {
            memo: self.clone(),
            key,
            made: made.clone(),
            state: Mutex::new(State::Unread),
        }));
        made.with_source(Arc::new(source))
    }
}

/// Is that what the guest says that it makes?
fn fits(made: &Blob, digest: &Digest, size: u64) -> bool {
    made.size.is_none_or(|stated| stated == size)
        && made.digest.as_ref().is_none_or(|stated| stated == digest)
}

/// What can't be kept costs time later and nothing else.
fn forgive<T>(kept: Result<T, Error>) -> Option<T> {
    kept.inspect_err(|error| tracing::debug!("a result is not kept: {error}"))
        .ok()
}

/// A content that is kept while its first reader reads it.
struct Captured(Arc<Capture>);

struct Capture {
    memo: Memo,
    key: Digest,
    made: Blob,
    state: Mutex<State>,
}

enum State {
    Unread,
    /// Somebody reads and keeps.
    Busy,
    Kept(Bytes),
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Captured").field(&self.0.made).finish()
    }
}

impl Capture {
    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Takes the part of the one who keeps, if it is free; what is kept, if it is.
    fn enter(&self, offset: u64) -> (bool, Option<Bytes>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Kept(bytes) => (false, Some(bytes.clone())),
            State::Unread if offset == 0 => {
                *state = State::Busy;
                (true, None)
            }
            _ => (false, None),
        }
    }

    async fn finish(&self, keeping: Keeping) {
        // A guest that made other bytes than it said is told of by who reads them.
        let made = self.made.clone();
        let finished = keeping.finish(move |digest, size| fits(&made, digest, size));
        let Some((digest, size)) = forgive(finished.await).flatten() else {
            return self.set(State::Unread);
        };
        let bytes = Bytes {
            media_type: self.made.media_type.clone(),
            digest,
            size,
        };
        let (results, plugin) = (&self.memo.results, &self.memo.plugin);
        forgive(results.keep_note(&self.key, plugin, &bytes).await);
        self.set(State::Kept(bytes));
    }
}

impl Source for Captured {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        let capture = self.0.clone();
        Box::pin(async move {
            let (is_first, kept) = capture.enter(offset);
            // Made ready before anything that can fail: gives the part back when it is dropped.
            let place = is_first.then(|| Place(capture.clone()));
            if let Some(bytes) = kept
                && let Some(blob) = capture.memo.kept(&bytes).await
            {
                return blob.source().open(offset).await;
            }
            let inner = capture.made.source().open(offset).await?;
            let Some(place) = place else {
                return Ok(inner);
            };
            let Some(keeping) = forgive(capture.memo.results.begin().await) else {
                return Ok(inner);
            };
            let capturing = Capturing {
                inner,
                keeping: Some(keeping),
                place,
            };
            Ok(stream::unfold(Some(capturing), Capturing::next).boxed())
        })
    }

    fn access(&self) -> Access {
        self.0.made.access()
    }

    fn hosts(&self) -> Vec<Host> {
        self.0.made.hosts()
    }
}

/// The part of the one who keeps.
struct Place(Arc<Capture>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*state, State::Busy) {
            *state = State::Unread;
        }
    }
}

struct Capturing {
    inner: ByteStream,
    keeping: Option<Keeping>,
    place: Place,
}

impl Capturing {
    async fn next(this: Option<Self>) -> Option<(Result<bytes::Bytes, Error>, Option<Self>)> {
        let mut this = this?;
        match this.inner.next().await {
            Some(Ok(chunk)) => {
                if let Some(keeping) = this.keeping.take() {
                    this.keeping = forgive(keeping.write(chunk.clone()).await);
                }
                Some((Ok(chunk), Some(this)))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => {
                if let Some(keeping) = this.keeping.take() {
                    this.place.0.finish(keeping).await;
                }
                None
            }
        }
    }
}
