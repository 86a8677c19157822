//! What one step moved: counted where it happens, read by reports.
//!
//! The engine runs each step inside [`Meter::scope`]; code below asks for [`Meter::current`]. A lazy read is therefore
//! counted for the step that pulls it, which is the step that moves the bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ocm_specs::Digest;
use serde::Serialize;

tokio::task_local! {
    static CURRENT: Arc<Meter>;
}

/// Counters of one step.
#[derive(Debug, Default)]
pub struct Meter {
    read: AtomicU64,
    sent: AtomicU64,
    requests: AtomicU64,
    skipped: AtomicU64,
    mounted: AtomicU64,
    spooled: AtomicU64,
    expected: AtomicU64,
    reads: Mutex<BTreeMap<Digest, u64>>,
}

/// A copy of the counters at one moment. All sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metered {
    /// Bytes pulled out of sources.
    pub bytes_read: u64,
    /// Bytes sent to targets.
    pub bytes_sent: u64,
    /// Requests to registries, tokens included.
    pub requests: u64,
    /// Blobs that the target had already.
    pub blobs_skipped: u64,
    /// Blobs that the target took over from another of its repositories.
    pub blobs_mounted: u64,
    /// Bytes written to temporary files.
    pub bytes_spooled: u64,
    /// How often each blob's source was opened.
    pub reads: BTreeMap<Digest, u64>,
}

impl Meter {
    /// Counters at zero.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Runs `future` with this meter as the current one.
    pub async fn scope<F: Future>(self: Arc<Self>, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Runs `work` with this meter as the current one.
    pub fn sync_scope<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// The meter of the step that is running here.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Does something with the current meter, if there is one.
    pub fn with(f: impl FnOnce(&Self)) {
        let _ = CURRENT.try_with(|meter| f(meter));
    }

    /// Bytes came out of a source.
    pub fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes went to a target.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A request was sent.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// The target had a blob already.
    pub fn skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// The target took a blob over from another of its repositories.
    pub fn mounted(&self) {
        self.mounted.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes went to a temporary file.
    pub fn spooled(&self, bytes: u64) {
        self.spooled.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A blob's source was opened.
    pub fn opened(&self, digest: &Digest) {
        *self
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(digest.clone())
            .or_default() += 1;
    }

    /// Bytes pulled so far: what progress shows.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// That many bytes are going to be pulled: what is left of them is the time left.
    pub fn expect(&self, bytes: u64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are not, after all: the target had them.
    pub fn expect_less(&self, bytes: u64) {
        self.expected.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes known so far to be pulled in all; `None` while nothing is known. A lower bound: sizes of what is still being
    /// computed are not in it.
    pub fn expected(&self) -> Option<u64> {
        Some(self.expected.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// All counters now.
    pub fn snapshot(&self) -> Metered {
        Metered {
            bytes_read: self.read.load(Ordering::Relaxed),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            blobs_skipped: self.skipped.load(Ordering::Relaxed),
            blobs_mounted: self.mounted.load(Ordering::Relaxed),
            bytes_spooled: self.spooled.load(Ordering::Relaxed),
            reads: self
                .reads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}
