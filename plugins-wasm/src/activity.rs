//! Signs of life of one call, and the watch over them.
//!
//! A guest has stalled when, for the length of the stall limit, it moved no byte, told no progress, and was not waiting for
//! bytes: not for a source to give some, not for a reader to take some, not for an answer over HTTP. Whoever waits for bytes
//! is stopped by whoever owes them. One rule for endless computing and for sleeping: epochs only make a computing guest
//! yield, so that the watch beside it gets its turn.
//!
//! A call of the host that moves nothing is no sign: reading or writing no bytes, reading a stream that has ended. Progress is
//! one only if it goes on, and for [`TOLD`] stall limits at most. And whatever a guest shows, the time that it takes for itself
//! is limited in all: what it does while it is not waiting for bytes.

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
/// For how many stall limits a guest may go on without a byte if it tells of its progress.
const TOLD: u32 = 60;

/// Signs of life of one call.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Grows with every call that moved bytes.
    signs: AtomicU64,
    /// The most that was told to be done.
    done: AtomicU64,
    /// How many waits for bytes are going on.
    waiting: AtomicU64,
    /// Why reading a port failed, by port: a guest can only say that it did.
    failures: Mutex<BTreeMap<String, Error>>,
}

impl Activity {
    /// So many bytes moved.
    pub(crate) fn moved(&self, bytes: usize) {
        if bytes > 0 {
            self.signs.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The guest says that so much is done.
    pub(crate) fn told(&self, done: u64) {
        self.done.fetch_max(done, Ordering::Relaxed);
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

    /// Runs `call`, unless it stalls for as long as `stall`, or takes more than `time` for itself.
    pub(crate) async fn watch<T>(
        &self,
        stall: Duration,
        time: Duration,
        call: impl Future<Output = T>,
    ) -> Result<T, Ended> {
        let mut call = pin!(call);
        let look = || {
            let signs = self.signs.load(Ordering::Relaxed);
            (signs, self.done.load(Ordering::Relaxed))
        };
        let start = Instant::now();
        let (mut seen, mut moved, mut alive, mut last) = (look(), start, start, start);
        let mut taken = Duration::ZERO;
        // Often enough that an end is found within a tenth of its limit.
        let period = (stall.min(time) / 10).max(Duration::from_millis(1));
        loop {
            tokio::select! {
                biased;
                result = &mut call => return Ok(result),
                () = sleep(period) => {}
            }
            let (now, looked) = (Instant::now(), look());
            let is_waiting = self.waiting.load(Ordering::Relaxed) > 0;
            if looked.0 != seen.0 || is_waiting {
                (moved, alive) = (now, now);
            } else if looked.1 != seen.1 && now.duration_since(moved) < stall.saturating_mul(TOLD) {
                alive = now;
            }
            if !is_waiting {
                taken += now.duration_since(last);
            }
            (seen, last) = (looked, now);
            if now.duration_since(alive) >= stall {
                return Err(Ended::Stalled);
            }
            if taken >= time {
                return Err(Ended::Overtime);
            }
        }
    }
}

/// Why a call was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing went on.
    Stalled,
    /// Something did, for too long.
    Overtime,
}

/// A wait for bytes that is going on.
pub(crate) struct Waiting(Arc<Activity>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(30);
    const TIME: Duration = Duration::from_secs(3600);

    /// What a guest that does `sign` every second for `seconds` comes to, and after how many seconds.
    async fn check(
        seconds: u64,
        sign: impl Fn(&Arc<Activity>, u64) -> Option<Waiting>,
        expected: Result<(), Ended>,
        within: std::ops::Range<u64>,
    ) {
        let activity = Arc::new(Activity::default());
        let start = Instant::now();
        let call = async {
            for second in 0..seconds {
                let waiting = sign(&activity, second);
                sleep(Duration::from_secs(1)).await;
                drop(waiting);
            }
        };
        let ended = activity.watch(STALL, TIME, call).await;
        assert_eq!(ended, expected);
        let taken = start.elapsed().as_secs();
        assert!(within.contains(&taken), "{taken} s, expected {within:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_goes_on_is_a_sign_of_life() {
        let stalled = Err(Ended::Stalled);
        check(100_000, |_, _| None, stalled, 30..34).await;
        // Bytes count, calls without any do not.
        let moved = |bytes: usize| {
            move |activity: &Arc<Activity>, _: u64| {
                activity.moved(bytes);
                None
            }
        };
        check(3000, moved(1), Ok(()), 3000..3001).await;
        check(100_000, moved(0), stalled, 30..34).await;
        // Progress does if it grows, for half an hour.
        let told = |by: u64| {
            move |activity: &Arc<Activity>, second: u64| {
                activity.told(1 + second * by);
                None
            }
        };
        check(1000, told(1), Ok(()), 1000..1001).await;
        check(100_000, told(0), stalled, 30..37).await;
        check(100_000, told(1), stalled, 1800..1840).await;
        // Whoever waits for bytes is not to blame.
        check(
            100_000,
            |activity, _| Some(activity.wait()),
            Ok(()),
            100_000..100_001,
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_a_guest_takes_for_itself_is_limited() {
        let moved = |activity: &Arc<Activity>, _: u64| {
            activity.moved(1);
            None
        };
        check(100_000, moved, Err(Ended::Overtime), 3600..3604).await;
        // What it waits does not count: eight parts of ten.
        let mostly_waits = |activity: &Arc<Activity>, second: u64| {
            activity.moved(1);
            (second % 100 >= 20).then(|| activity.wait())
        };
        check(17_000, mostly_waits, Ok(()), 17_000..17_001).await;
        check(100_000, mostly_waits, Err(Ended::Overtime), 17_001..20_000).await;
    }
}
