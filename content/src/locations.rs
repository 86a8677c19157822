//! What a run knows about who has what, and who is bringing it right now.
//!
//! *Invariant:* of all steps that bring one digest to one host at the same time, one sends it and the others wait, holding
//! no permit; when the one fails or is dropped, the next of them takes over. What is known here is a hint: a wrong entry
//! costs a request, never wrong content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocm_specs::Digest;
use tokio::sync::OwnedMutexGuard;

use crate::limits::Host;
use crate::store::ContentStore;

/// Most repositories that are named as places to mount a blob from: registries try one, a few are enough.
const MOUNT_LIMIT: usize = 4;

/// Which repositories are known to have which blobs, for the length of a run.
#[derive(Debug, Default)]
pub struct Locations(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: BTreeMap<Place, BTreeMap<Digest, BTreeSet<String>>>,
    flights: BTreeMap<(Place, Digest), Arc<tokio::sync::Mutex<()>>>,
}

/// Where blobs are shared between repositories: a host; a store without one stands for itself.
type Place = Arc<str>;

impl Locations {
    /// Knows nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Remembers that `repository` of `host` has the blob.
    pub fn note(&self, host: &Host, digest: &Digest, repository: &str) {
        self.insert(host.as_str().into(), digest, repository);
    }

    /// Repositories of `host` that are known to have the blob, sorted, at most a few.
    pub fn repositories(&self, host: &Host, digest: &Digest) -> Vec<String> {
        self.lock()
            .known
            .get(host.as_str())
            .and_then(|digests| digests.get(digest))
            .into_iter()
            .flatten()
            .take(MOUNT_LIMIT)
            .cloned()
            .collect()
    }

    /// Remembers that `store` has the blob.
    pub(crate) fn note_store(&self, store: &dyn ContentStore, digest: &Digest) {
        self.insert(place(store), digest, &store.repository());
    }

    /// Has this run seen the blob in `store`?
    pub(crate) fn has(&self, store: &dyn ContentStore, digest: &Digest) -> bool {
        self.lock()
            .known
            .get(&place(store))
            .and_then(|digests| digests.get(digest))
            .is_some_and(|repositories| repositories.contains(&store.repository()))
    }

    /// Forgets what is known about the blob in `store`, which turned out not to have it.
    pub(crate) fn forget(&self, store: &dyn ContentStore, digest: &Digest) {
        let mut state = self.lock();
        if let Some(digests) = state.known.get_mut(&place(store))
            && let Some(repositories) = digests.get_mut(digest)
        {
            repositories.remove(&store.repository());
            if repositories.is_empty() {
                digests.remove(digest);
            }
        }
    }

    /// Waits until nobody else brings the blob to this host; `None` when somebody has brought it meanwhile, so that
    /// it need not be sent again. Hold no permit while waiting here.
    pub(crate) async fn board(
        self: &Arc<Self>,
        store: &dyn ContentStore,
        digest: &Digest,
    ) -> Option<Flight> {
        let key = (place(store), digest.clone());
        let mutex = {
            let mut state = self.lock();
            if state.is_known(&key) {
                return None;
            }
            state.flights.entry(key.clone()).or_default().clone()
        };
        // The flight exists before the wait, so that one which is dropped while waiting cleans up, too.
        let mut flight = Flight {
            locations: self.clone(),
            mutex: Some(mutex.clone()),
            guard: None,
            key,
        };
        flight.guard = Some(mutex.lock_owned().await);
        let known = self.lock().is_known(&flight.key);
        (!known).then_some(flight)
    }

    /// Is nothing under way?
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().flights.is_empty()
    }

    fn insert(&self, place: Place, digest: &Digest, repository: &str) {
        self.lock()
            .known
            .entry(place)
            .or_default()
            .entry(digest.clone())
            .or_default()
            .insert(repository.to_owned());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_known(&self, (place, digest): &(Place, Digest)) -> bool {
        self.known
            .get(place)
            .is_some_and(|digests| digests.contains_key(digest))
    }
}

fn place(store: &dyn ContentStore) -> Place {
    match store.host() {
        Some(host) => host.as_str().into(),
        None => store.location().into(),
    }
}

/// The right to bring one digest to one place. Dropping it lets the next one look.
#[derive(Debug)]
pub(crate) struct Flight {
    locations: Arc<Locations>,
    key: (Place, Digest),
    mutex: Option<Arc<tokio::sync::Mutex<()>>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut state = self.locations.lock();
        self.guard = None;
        self.mutex = None;
        // New clones are made under the lock that is held here: a count of one means nobody flies or waits.
        if let Some(mutex) = state.flights.get(&self.key)
            && Arc::strong_count(mutex) == 1
        {
            state.flights.remove(&self.key);
        }
    }
}
