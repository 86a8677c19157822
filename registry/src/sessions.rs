//! Upload sessions: what was received of blobs that are not complete.
//!
//! *Invariant*: at most a fixed number of sessions; each is used by one request at a time and goes when nobody used it
//! for a while. A request that ends in the middle (its future is dropped, its body breaks) leaves the session as long as
//! what is staged is known to be whole up to its length, so that the client can go on there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ocm_content::{Staging, Stores};
use tokio::time::Instant;

use crate::failure::{Code, Failure, Outcome};

/// Bytes of chance in the name of a session.
const NAME_BYTES: usize = 16;

/// How long a full table is left alone after it was looked through.
const PURGE_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Sessions(Arc<Table>);

#[derive(Debug)]
struct Table {
    limit: usize,
    idle: Duration,
    sessions: Mutex<BTreeMap<String, Session>>,
    purged: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Session {
    repository: String,
    touched: Instant,
    slot: Slot,
}

#[derive(Debug)]
enum Slot {
    /// A request works on it.
    Busy,
    /// Nothing staged before the first byte: opening sessions costs no file.
    Idle(Option<Box<dyn Staging>>),
}

impl Sessions {
    pub(crate) fn new(limit: usize, idle: Duration) -> Self {
        Self(Arc::new(Table {
            limit,
            idle,
            sessions: Mutex::default(),
            purged: Mutex::default(),
        }))
    }

    /// Opens a session and gives its name.
    pub(crate) fn open(&self, repository: &str) -> Outcome<String> {
        let name = random_hex::<NAME_BYTES>()?;
        let mut sessions = self.0.lock();
        if sessions.len() >= self.0.limit && self.0.may_purge() {
            self.0.purge(&mut sessions);
        }
        if sessions.len() >= self.0.limit {
            return Err(Failure::too_many(format!(
                "{} uploads are under way, which is as many as there may be",
                self.0.limit
            )));
        }
        sessions.insert(
            name.clone(),
            Session {
                repository: repository.to_owned(),
                touched: Instant::now(),
                slot: Slot::Idle(None),
            },
        );
        Ok(name)
    }

    /// Takes a session for one request; it goes back when the [`Taken`] is dropped.
    pub(crate) fn take(&self, repository: &str, name: &str) -> Outcome<Taken> {
        let mut sessions = self.0.lock();
        let session = self.0.find(&mut sessions, repository, name)?;
        match std::mem::replace(&mut session.slot, Slot::Busy) {
            Slot::Busy => Err(Failure::too_many("another request works on this upload")),
            Slot::Idle(staging) => Ok(Taken {
                table: self.0.clone(),
                name: name.to_owned(),
                staging,
                keep: true,
            }),
        }
    }

    /// Ends a session, in use or not, and forgets its bytes.
    pub(crate) fn cancel(&self, repository: &str, name: &str) -> Outcome<()> {
        let mut sessions = self.0.lock();
        self.0.find(&mut sessions, repository, name)?;
        sessions.remove(name);
        Ok(())
    }

    /// Ends all sessions that nobody used for too long.
    pub(crate) fn purge(&self) {
        self.0.purge(&mut self.0.lock());
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, session: &Session) -> bool {
        matches!(session.slot, Slot::Idle(_)) && session.touched.elapsed() >= self.idle
    }

    /// Looking at all sessions for each of many refused requests would cost more than refusing them.
    fn may_purge(&self) -> bool {
        let mut purged = self.purged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = purged.is_none_or(|last| last.elapsed() >= PURGE_PAUSE);
        if may {
            *purged = Some(Instant::now());
        }
        may
    }

    fn purge(&self, sessions: &mut BTreeMap<String, Session>) {
        sessions.retain(|_, session| !self.is_over(session));
    }

    fn find<'a>(
        &self,
        sessions: &'a mut BTreeMap<String, Session>,
        repository: &str,
        name: &str,
    ) -> Outcome<&'a mut Session> {
        if sessions
            .get(name)
            .is_some_and(|session| self.is_over(session))
        {
            sessions.remove(name);
        }
        sessions
            .get_mut(name)
            .filter(|session| session.repository == repository)
            .ok_or_else(|| {
                Failure::not_found(Code::BlobUploadUnknown, "there is no such upload here")
            })
    }
}

/// A session in the hands of one request.
pub(crate) struct Taken {
    table: Arc<Table>,
    name: String,
    staging: Option<Box<dyn Staging>>,
    keep: bool,
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Taken({})", self.name)
    }
}

impl Taken {
    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.staging.as_ref().map_or(0, |staging| staging.len())
    }

    /// Appends. A write that is dropped or refused ends the session: nobody knows how much of it was staged.
    pub(crate) async fn write(&mut self, stores: &dyn Stores, chunk: Bytes) -> Outcome<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        let kept = std::mem::replace(&mut self.keep, false);
        let result = async {
            if self.staging.is_none() {
                self.staging = Some(stores.stage().await?);
            }
            match &mut self.staging {
                Some(staging) => staging.write(chunk).await,
                None => Ok(()),
            }
        };
        result
            .await
            .map_err(|error| Failure::of_store(&error, Code::BlobUploadUnknown))?;
        self.keep = kept;
        Ok(())
    }

    /// Ends the session when this is dropped.
    pub(crate) fn discard(&mut self) {
        self.keep = false;
    }

    /// Ends the session and gives what it holds.
    pub(crate) fn finish(mut self) -> Option<Box<dyn Staging>> {
        self.keep = false;
        self.staging.take()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut sessions = self.table.lock();
        if !self.keep {
            sessions.remove(&self.name);
            return;
        }
        // Gone meanwhile when it was cancelled.
        if let Some(session) = sessions.get_mut(&self.name) {
            session.slot = Slot::Idle(self.staging.take());
            session.touched = Instant::now();
        }
    }
}

/// `N` bytes that nobody can guess, in hex.
pub(crate) fn random_hex<const N: usize>() -> Outcome<String> {
    use std::fmt::Write as _;
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Failure::internal(&error))?;
    let mut text = String::with_capacity(2 * N);
    for byte in bytes {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocm_content::MemoryStores;

    #[tokio::test(start_paused = true)]
    async fn sessions_are_bounded_in_number_and_time() {
        let sessions = Sessions::new(2, Duration::from_secs(60));
        let first = sessions.open("a").expect("room for two");
        sessions.open("a").expect("room for two");
        let failure = sessions.open("a").expect_err("no room for three");
        assert_eq!(failure.status.as_u16(), 429);
        assert!(sessions.take("b", &first).is_err(), "another repository");
        let taken = sessions.take("a", &first).expect("it is there");
        assert!(sessions.take("a", &first).is_err(), "it is in use");
        tokio::time::advance(Duration::from_secs(61)).await;
        sessions.open("a").expect("the second one timed out");
        drop(taken);
        sessions.take("a", &first).expect("it was in use all along");
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(sessions.take("a", &first).is_err(), "it timed out");
    }

    #[tokio::test]
    async fn what_was_received_stays_until_the_session_ends() {
        let stores = MemoryStores::new();
        let sessions = Sessions::new(2, Duration::from_secs(60));
        let name = sessions.open("a").expect("room");
        let mut taken = sessions.take("a", &name).expect("it is there");
        taken
            .write(&stores, Bytes::from_static(b"abc"))
            .await
            .expect("three bytes");
        drop(taken);
        let taken = sessions.take("a", &name).expect("it is there");
        assert_eq!((taken.received(), stores.used()), (3, 3));
        sessions.cancel("a", &name).expect("it is there");
        drop(taken);
        assert_eq!(stores.used(), 0);
        assert!(sessions.take("a", &name).is_err());
    }
}
