//! Signs of life of one call, and the watch over them.
//!
//! A guest has stalled when, for the length of the stall limit, it moved no byte, told no progress, and was not waiting for
//! bytes: not for a source to give some, not for a reader to take some, not for an answer over HTTP. Whoever waits for bytes
//! is stopped by whoever owes them. One rule for endless computing and for sleeping: epochs only make a computing guest
//! yield, so that the watch beside it gets its turn.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ocm_content::Error;
use tokio::time::{Instant, sleep};

/// Names under which other failures than those of inputs are kept: a spool, and requests, which a guest may try again.
pub(crate) const SPOOL: &str = "";
pub(crate) const FETCH: &str = "fetch ";
const NOT_INPUTS: [&str; 2] = [SPOOL, FETCH];

/// Signs of life of one call.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Grows with every byte moved and every progress told.
    signs: AtomicU64,
    /// How many waits for bytes are going on.
    waiting: AtomicU64,
    /// Why reading a port failed, by port: a guest can only say that it did.
    failures: Mutex<BTreeMap<String, Error>>,
}

impl Activity {
    /// Something moved.
    pub(crate) fn sign(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// Marks a wait for bytes; ends when dropped.
    pub(crate) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self.clone())
    }

    /// Keeps why a port failed.
    pub(crate) fn failed(&self, port: &str, error: &Error) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures
            .entry(port.to_owned())
            .or_insert_with(|| error.clone());
    }

    /// Why that port failed, or, without a port, any.
    pub(crate) fn failure(&self, port: Option<&str>) -> Option<Error> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        port.and_then(|port| failures.get(port))
            .or_else(|| failures.values().next())
            .cloned()
    }

    /// Why an input failed, with its port: a guest that says all is well after that has taken a failure for the end.
    pub(crate) fn failed_input(&self) -> Option<Error> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inputs = failures
            .iter()
            .filter(|(port, _)| !NOT_INPUTS.contains(&port.as_str()));
        inputs
            .next()
            .map(|(port, error)| error.clone().context(format!("port `{port}`")))
    }

    /// Runs `call`, unless it stalls.
    pub(crate) async fn watch<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = T>,
    ) -> Option<T> {
        let mut call = pin!(call);
        let mut seen = (self.signs.load(Ordering::Relaxed), Instant::now());
        // Often enough that a stall is found within a tenth of the limit.
        let period = (limit / 10).max(Duration::from_millis(1));
        loop {
            tokio::select! {
                biased;
                result = &mut call => return Some(result),
                () = sleep(period) => {}
            }
            let (signs, now) = (self.signs.load(Ordering::Relaxed), Instant::now());
            if signs != seen.0 || self.waiting.load(Ordering::Relaxed) > 0 {
                seen = (signs, now);
            } else if now.duration_since(seen.1) >= limit {
                return None;
            }
        }
    }
}

/// A wait for bytes that is going on.
pub(crate) struct Waiting(Arc<Activity>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
