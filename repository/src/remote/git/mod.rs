//! Commits of git repositories, read over HTTP as `git clone --depth 1` reads them, as a compressed tar of their files.
//!
//! *Invariants*: what is handed out is what the commit's name says, hash by hash down to the last file; the pack is kept in a
//! spool, whose budget bounds it, and gone when the tar is made.

mod id;
mod pack;
mod packet;
mod server;
mod tree;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use ocm_content::gzip::gzip;
use ocm_content::spool::RandomAccess;
use ocm_content::{Blob, ByteStream, Error, Host, Limits, Result, Source, Spool};
use ocm_specs::Digest;
use ocm_specs::access::remote::Git;
use ocm_specs::media_type::TGZ;
use tokio::sync::{OnceCell, mpsc};

use super::GIT;
use crate::session::Session;
use id::Id;
use pack::Pack;
use server::Server;

/// How much to compress. Part of what makes equal commits equal bytes.
const LEVEL: u32 = 6;
/// Pieces of a tar that wait for being compressed.
const WAITING: usize = 8;

/// A commit of a git repository.
#[derive(Clone, Debug)]
pub struct GitCommit {
    /// Its name, in full.
    pub commit: String,
    /// Its files as a gzip-compressed tar, without history, times and owners.
    pub archive: Blob,
}

/// Finds a commit: the one that the access names, else the one that its reference names now.
pub(super) async fn commit(
    session: &Session,
    access: Git<'_>,
    stated: Option<Digest>,
) -> Result<GitCommit> {
    let server = Server::new(session.client().clone(), access.repository)?;
    let commit = match access.commit {
        Some(text) => Id::parse(text).ok_or_else(|| {
            Error::invalid(format!(
                "access.commit: `{}` is no commit: expected 40 or 64 hexadecimal digits",
                text.escape_debug()
            ))
        })?,
        None => server.resolve(access.reference).await?,
    };
    let host = session.client().host_of_request(&server.any_request())?;
    let source = CommitSource(Arc::new(Inner {
        server,
        commit,
        limits: session.limits().clone(),
        host,
        kept: OnceCell::new(),
    }));
    let mut archive = Blob::new(TGZ, Arc::new(source));
    archive.digest = stated;
    Ok(GitCommit {
        commit: commit.to_string(),
        archive,
    })
}

/// The tar of a commit, made when it is first read and kept for as long as somebody may read it again.
struct CommitSource(Arc<Inner>);

struct Inner {
    server: Server,
    commit: Id,
    limits: Arc<Limits>,
    host: Host,
    kept: OnceCell<Arc<dyn Source>>,
}

impl fmt::Debug for CommitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.0.commit, self.0.server.shown())
    }
}

impl Source for CommitSource {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let kept = inner.kept.get_or_try_init(|| inner.make()).await?;
            kept.open(offset).await
        })
    }

    fn hosts(&self) -> Vec<Host> {
        match self.0.kept.initialized() {
            true => Vec::new(),
            false => vec![self.0.host.clone()],
        }
    }
}

impl Inner {
    async fn make(&self) -> Result<Arc<dyn Source>> {
        let request = self.server.any_request();
        let read = || self.server.pack(self.commit, &self.limits);
        let bytes = self.server.client().again(&request, read).await?;
        let tar = archive(bytes, self.commit, &self.limits).await;
        tar.map_err(|error| {
            error.context(format!(
                "read git repository {}: commit {}",
                self.server.shown(),
                self.commit
            ))
        })
    }
}

/// Makes the compressed tar of a commit in a pack.
async fn archive(bytes: RandomAccess, commit: Id, limits: &Arc<Limits>) -> Result<Arc<dyn Source>> {
    let (send, receive) = mpsc::channel::<Bytes>(WAITING);
    // Ends by itself when nobody takes what it makes.
    let making = tokio::task::spawn_blocking(move || {
        let pack = Pack::open(bytes, commit.format())?;
        tree::tar(&pack, commit, &mut |piece| {
            send.blocking_send(piece)
                .map_err(|_| Error::new(ocm_content::ErrorKind::Cancelled, "nobody reads it"))
        })
    });
    let pieces = stream::unfold(receive, |mut receive| async move {
        let piece = receive.recv().await?;
        Some((Ok(piece), receive))
    });
    let mut compressed = gzip(Box::pin(pieces), LEVEL, limits);
    let mut kept = Spool::new(limits);
    let mut failed = None;
    while let Some(chunk) = compressed.next().await {
        let written = match chunk {
            Ok(chunk) => kept.write(chunk).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            failed = Some(error);
            break;
        }
    }
    drop(compressed);
    let made = making
        .await
        .map_err(|error| Error::internal(format!("unpacking a commit: {error}")))?;
    match failed {
        Some(error) => Err(error),
        None => made.map(|()| kept.finish()),
    }
}
