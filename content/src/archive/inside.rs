//! Holding a blob to the artifact inside of it, or to a second digest, while its bytes pass.
//!
//! *Invariant:* bytes are handed on before the verdict, which comes with the end: as with every digest here, whoever got the
//! end without an error has the right bytes. Who starts elsewhere than at the beginning verifies the whole by other means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, SinkExt, StreamExt, stream};
use ocm_specs::{Digest, Hasher};

use super::{ArchiveStore, Bounds, Contents, digest_of, uncompressed, wanted};
use crate::blob::{Access, Blob, ByteStream, Locator, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Host, Limits};
use crate::spool::Spool;
use crate::store::MANIFEST_LIMIT;
use crate::tarball::{TarEvent, TarReader};

/// The blob, held to a digest besides its own (which may be by another algorithm).
///
/// A stream that ends without an error has both; another one ends in [`ErrorKind::Mismatch`].
#[must_use]
pub fn expect_also(blob: Blob, digest: Digest) -> Blob {
    held(blob, Expected::Bytes(digest))
}

/// The blob, held to be an archive (an OCI layout or an artifact set, compressed or not) of the artifact `root`, each part of
/// which has the digest that it is stored by.
///
/// A stream that ends without an error is that; another one ends in [`ErrorKind::Mismatch`]. Costs a look at the bytes as they
/// pass, and memory for documents only.
#[must_use]
pub fn expect_artifact(blob: Blob, root: Digest, limits: &Arc<Limits>) -> Blob {
    held(blob, Expected::Artifact(root, limits.clone()))
}

fn held(blob: Blob, expected: Expected) -> Blob {
    let source = Arc::new(Held {
        source: blob.source().clone(),
        expected,
    });
    blob.with_source(source)
}

#[derive(Clone, Debug)]
enum Expected {
    Bytes(Digest),
    Artifact(Digest, Arc<Limits>),
}

/// What comes of looking at all bytes.
type Verdict = BoxFuture<'static, Result<()>>;

impl Expected {
    fn judge(self, bytes: ByteStream) -> Verdict {
        match self {
            Self::Bytes(digest) => has_digest(bytes, digest).boxed(),
            Self::Artifact(root, limits) => async move {
                let found = artifact_in(bytes, &limits).await.map_err(|error| {
                    let is_none = error.kind() == ErrorKind::Invalid;
                    let message =
                        format!("the descriptor says artifact {root}; content holds none: {error}");
                    if is_none {
                        Error::mismatch(message)
                    } else {
                        error
                    }
                })?;
                equal("the archive holds the artifact", &found, &root)
            }
            .boxed(),
        }
    }
}

fn equal(what: &str, found: &Digest, expected: &Digest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::mismatch(format!(
        "{what} {found}, expected {expected}"
    )))
}

async fn has_digest(mut bytes: ByteStream, digest: Digest) -> Result<()> {
    let mut hasher = Hasher::new(digest.algorithm());
    while let Some(chunk) = bytes.next().await {
        hasher.update(&chunk?);
    }
    equal("content has digest", &hasher.finish(), &digest)
}

#[derive(Debug)]
struct Held {
    source: Arc<dyn Source>,
    expected: Expected,
}

impl Source for Held {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let opening = self.source.open(offset);
        let expected = self.expected.clone();
        Box::pin(async move {
            let bytes = opening.await?;
            Ok(if offset == 0 {
                judged(bytes, expected)
            } else {
                bytes
            })
        })
    }

    fn access(&self) -> Access {
        self.source.access()
    }

    fn hosts(&self) -> Vec<Host> {
        self.source.hosts()
    }

    fn locator(&self) -> Option<Locator> {
        self.source.locator()
    }
}

struct Judged {
    bytes: ByteStream,
    judge: Option<mpsc::Sender<Result<Bytes>>>,
    verdict: Verdict,
}

/// Passes chunks on and shows each to the judge, who works while the next one is fetched or written.
fn judged(bytes: ByteStream, expected: Expected) -> ByteStream {
    let (judge, shown) = mpsc::channel(1);
    let state = Judged {
        bytes,
        judge: Some(judge),
        verdict: expected.judge(shown.boxed()),
    };
    Box::pin(stream::try_unfold(state, |mut state| async move {
        let chunk = match state.bytes.next().await {
            Some(chunk) => chunk?,
            None => {
                state.judge = None;
                state.verdict.await?;
                return Ok(None);
            }
        };
        state.show(chunk.clone()).await?;
        Ok(Some((chunk, state)))
    }))
}

impl Judged {
    async fn show(&mut self, chunk: Bytes) -> Result<()> {
        let Some(judge) = &mut self.judge else {
            return Ok(());
        };
        match select(judge.send(Ok(chunk)), &mut self.verdict).await {
            Either::Left((Ok(()), _)) => Ok(()),
            Either::Left((Err(_), verdict)) => verdict.await,
            Either::Right((verdict, _)) => {
                verdict.and(Err(Error::internal("a judge did not wait for the end")))
            }
        }
    }
}

/// Reads an archive to its end: the digest of the artifact that it is about. Every part has its digest.
async fn artifact_in(bytes: ByteStream, limits: &Arc<Limits>) -> Result<Digest> {
    let (bytes, _) = uncompressed(bytes, limits).await?;
    let (contents, parts) = documents(bytes, limits).await?;
    let index = contents.index().await?;
    let store = ArchiveStore::new("archive".to_owned(), &contents, &index).await?;
    let root = store.main(&index)?;
    if parts.contains(&root.digest) {
        return Ok(root.digest);
    }
    Err(Error::invalid(format!("it has no part {}", root.digest)))
}

/// The documents of an archive, and the names of all its parts.
async fn documents(
    mut bytes: ByteStream,
    limits: &Arc<Limits>,
) -> Result<(Contents, BTreeSet<Digest>)> {
    let (mut reader, mut bounds) = (TarReader::new(), Bounds::default());
    let (mut files, mut parts) = (BTreeMap::new(), BTreeSet::new());
    let mut spool = Spool::new(limits);
    let mut open: Option<Part> = None;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        bounds.bytes(&chunk)?;
        reader.feed(chunk);
        while let Some(event) = reader.next_event()? {
            match event {
                TarEvent::Entry(entry) => {
                    bounds.entry()?;
                    open = wanted(&entry)?.map(|path| Part::new(path, entry.size));
                }
                TarEvent::Data(data) => match &mut open {
                    Some(part) => part.data(data, &mut spool, &mut files).await?,
                    None => bounds.ignored(&data)?,
                },
                TarEvent::EntryEnd => {
                    if let Some(part) = open.take() {
                        part.end(&mut parts)?;
                    }
                }
            }
        }
    }
    reader.finish()?;
    let base = spool.finish();
    Ok((Contents { base, files }, parts))
}

/// A file of the archive while it passes.
struct Part {
    path: String,
    size: u64,
    /// What its name says it is.
    expected: Option<(Digest, Hasher)>,
    /// Known with the first byte: is it kept?
    is_document: Option<bool>,
}

impl Part {
    fn new(path: &str, size: u64) -> Self {
        let digest = digest_of(path);
        Self {
            path: path.to_owned(),
            size,
            expected: digest.map(|digest| {
                let hasher = Hasher::new(digest.algorithm());
                (digest, hasher)
            }),
            is_document: None,
        }
    }

    async fn data(
        &mut self,
        data: Bytes,
        spool: &mut Spool,
        files: &mut BTreeMap<String, (u64, u64)>,
    ) -> Result<()> {
        if let Some((_, hasher)) = &mut self.expected {
            hasher.update(&data);
        }
        let is_first = self.is_document.is_none();
        let is_document = *self
            .is_document
            .get_or_insert_with(|| self.size <= MANIFEST_LIMIT && data.first() == Some(&b'{'));
        if is_document {
            if is_first {
                let place = (spool.len(), self.size);
                if files.insert(self.path.clone(), place).is_some() {
                    return Err(Error::invalid(format!("archive has `{}` twice", self.path)));
                }
            }
            spool.write(data).await?;
        }
        Ok(())
    }

    fn end(self, parts: &mut BTreeSet<Digest>) -> Result<()> {
        let Some((digest, hasher)) = self.expected else {
            return Ok(());
        };
        equal(
            &format!("`{}` of the archive has digest", self.path),
            &hasher.finish(),
            &digest,
        )?;
        if !parts.insert(digest) {
            return Err(Error::invalid(format!("archive has `{}` twice", self.path)));
        }
        Ok(())
    }
}
