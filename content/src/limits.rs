//! Limits of one run: slots per host, CPU work, memory of shared reads, bytes in temporary files.
//!
//! **The rule that keeps a run from deadlocking: no permit is held while waiting for another permit.** A transfer that
//! reads from one host and writes to another asks for both slots in one call and gets both or waits with none
//! ([`Limits::transfer`]). A short request (a HEAD, a manifest, a token) holds a slot of its own class for its round trip
//! and waits for nothing else meanwhile ([`Limits::request`]). CPU permits are taken for one chunk of work. Memory of
//! shared reads and temporary bytes are never waited for while something else is held: the first makes a slow reader read
//! on its own, the second is reserved before a step starts and refused when it runs over.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::disk::Disk;
use crate::error::{Error, Result};

/// A host that requests go to: `name[:port]` in lower case. It names a budget, not an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(Arc<str>);

impl Host {
    /// The host of that authority.
    pub fn new(authority: &str) -> Self {
        Self(authority.to_ascii_lowercase().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The numbers.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Transfers of large blobs, and of those of unknown size, at once per host.
    pub transfers_per_host: usize,
    /// Transfers at once per host of blobs that are known to be small ([`SMALL`]): what they wait for is the way, not the line.
    pub small_transfers_per_host: usize,
    /// Short requests at once per host.
    pub requests_per_host: usize,
    /// Chunks of CPU work at once (compression, archive rewriting).
    pub cpu: usize,
    /// Memory of all shared reads together, in bytes.
    pub window: u64,
    /// Bytes in temporary files at most, all together.
    pub spool: u64,
    /// Bytes that compressed content may always unpack to. Above, it is a matter of [`RATIO_LIMIT`].
    pub unpacked: u64,
    /// Where temporary files go; without one, what needs a temporary file fails.
    pub temp_folder: Option<PathBuf>,
    /// How files are written, temporary ones and those of archives.
    pub disk: Disk,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            transfers_per_host: 8,
            small_transfers_per_host: 32,
            requests_per_host: 32,
            cpu: std::thread::available_parallelism().map_or(2, usize::from),
            window: 64 << 20,
            spool: 64 << 30,
            unpacked: 1 << 30,
            temp_folder: None,
            disk: Disk::default(),
        }
    }
}

/// How many times larger than what it came in content may be, above [`LimitsConfig::unpacked`].
pub const RATIO_LIMIT: u64 = 200;

/// Up to this many bytes a blob is small: 64 KiB.
pub const SMALL: u64 = 64 << 10;

/// Transfers that count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Small,
    Large,
}

/// The limits of one run, shared by everything that runs in it.
pub struct Limits {
    config: LimitsConfig,
    transfers: Mutex<BTreeMap<(Host, Class), usize>>,
    released: Notify,
    requests: Mutex<BTreeMap<Host, Arc<Semaphore>>>,
    cpu: Arc<Semaphore>,
    window: Budget,
    spool: Budget,
    idle: Mutex<Vec<Weak<dyn Evictable>>>,
}

/// Something that keeps bytes of the window for readers that may never come.
pub(crate) trait Evictable: Send + Sync {
    /// Gives the bytes back, unless they are in use now.
    fn evict(&self) -> bool;
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limits")
            .field("config", &self.config)
            .field("window", &self.window)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

impl Limits {
    /// Limits by these numbers; a zero counts as one.
    pub fn new(config: LimitsConfig) -> Arc<Self> {
        Arc::new(Self {
            transfers: Mutex::default(),
            released: Notify::new(),
            requests: Mutex::default(),
            cpu: Arc::new(Semaphore::new(config.cpu.max(1))),
            window: Budget::new("memory for shared reads", config.window),
            spool: Budget {
                hint: Some("give the run more with --temp-limit"),
                ..Budget::new("temporary files", config.spool)
            },
            idle: Mutex::default(),
            config,
        })
    }

    /// The numbers.
    pub fn config(&self) -> &LimitsConfig {
        &self.config
    }

    /// Where temporary files go.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when the run was given no such folder.
    pub fn temp_folder(&self) -> Result<&Path> {
        self.config
            .temp_folder
            .as_deref()
            .ok_or_else(|| Error::unsupported("no folder for temporary files is set"))
    }

    /// How files are written.
    pub fn disk(&self) -> &Disk {
        &self.config.disk
    }

    /// Takes one transfer slot on each of `hosts`, all at once: waits with none until all are free.
    pub async fn transfer(self: &Arc<Self>, hosts: &[Host]) -> TransferSlots {
        self.transfer_of(hosts, None).await
    }

    /// The same for a blob of that size, as far as it is known.
    pub async fn transfer_of(self: &Arc<Self>, hosts: &[Host], size: Option<u64>) -> TransferSlots {
        let class = match size {
            Some(size) if size <= SMALL => Class::Small,
            _ => Class::Large,
        };
        let mut hosts = hosts.to_vec();
        hosts.sort();
        hosts.dedup();
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // Registered before looking, so that a release between the look and the wait is not missed.
            released.as_mut().enable();
            if self.try_take(&hosts, class) {
                return TransferSlots {
                    limits: self.clone(),
                    hosts,
                    class,
                };
            }
            released.await;
        }
    }

    fn try_take(&self, hosts: &[Host], class: Class) -> bool {
        let limit = match class {
            Class::Small => self.config.small_transfers_per_host.max(1),
            Class::Large => self.config.transfers_per_host.max(1),
        };
        let mut taken = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let free = hosts
            .iter()
            .all(|host| taken.get(&(host.clone(), class)).copied().unwrap_or(0) < limit);
        if free {
            for host in hosts {
                *taken.entry((host.clone(), class)).or_default() += 1;
            }
        }
        free
    }

    fn give_back(&self, hosts: &[Host], class: Class) {
        let mut taken = self
            .transfers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for host in hosts {
            if let Some(count) = taken.get_mut(&(host.clone(), class)) {
                *count = count.saturating_sub(1);
            }
        }
        drop(taken);
        self.released.notify_waiters();
    }

    /// Takes a slot for one short request to `host`; nothing may be waited for under it but the answer.
    pub async fn request(&self, host: &Host) -> OwnedSemaphorePermit {
        let slots = {
            let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            let limit = self.config.requests_per_host.max(1);
            requests
                .entry(host.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(limit)))
                .clone()
        };
        slots
            .acquire_owned()
            .await
            .expect("this semaphore is never closed")
    }

    /// Takes a permit for one chunk of CPU work.
    pub async fn cpu(&self) -> OwnedSemaphorePermit {
        self.cpu
            .clone()
            .acquire_owned()
            .await
            .expect("this semaphore is never closed")
    }

    /// Memory that shared reads may hold.
    pub fn window(&self) -> &Budget {
        &self.window
    }

    /// Remembers who keeps bytes of the window that others may have when they need them.
    pub(crate) fn offer(&self, keeper: Weak<dyn Evictable>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|other| other.strong_count() > 0 && !other.ptr_eq(&keeper));
        idle.push(keeper);
    }

    /// Takes bytes of the window back from those who offered them, oldest first, until `bytes` are free. Did anyone give?
    pub(crate) fn reclaim(&self, bytes: u64) -> bool {
        let mut given = false;
        while self.window.limit().saturating_sub(self.window.used()) < bytes {
            let keeper = {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.is_empty() {
                    break;
                }
                idle.remove(0)
            };
            // The lock is released: the last handle may be dropped here, and its owner with it.
            given |= keeper.upgrade().is_none_or(|keeper| keeper.evict());
        }
        given
    }

    /// Bytes that temporary files may hold.
    pub fn spool(&self) -> &Budget {
        &self.spool
    }
}

/// Transfer slots on some hosts; given back when dropped.
#[derive(Debug)]
pub struct TransferSlots {
    limits: Arc<Limits>,
    hosts: Vec<Host>,
    class: Class,
}

impl Drop for TransferSlots {
    fn drop(&mut self) {
        self.limits.give_back(&self.hosts, self.class);
    }
}

/// Tells bombs: how much may come out of compressed content, by what went in.
///
/// [`LimitsConfig::unpacked`] bytes may come out of anything, and above that [`RATIO_LIMIT`] times what went in so far: nobody
/// knows how much is still to come, or believes what is said of it.
#[derive(Debug)]
pub struct Expansion {
    free: u64,
    out: u64,
}

impl Expansion {
    /// Nothing came out yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            free: limits.config.unpacked,
            out: 0,
        }
    }

    /// Counts `more` bytes that came out, of `read` bytes that went in since the beginning.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`]: this is too much.
    pub fn take(&mut self, more: u64, read: u64) -> Result<()> {
        self.out = self.out.saturating_add(more);
        if self.out <= self.free.max(read.saturating_mul(RATIO_LIMIT)) {
            return Ok(());
        }
        Err(Error::limit(format!(
            "{read} compressed bytes unpack to more than {RATIO_LIMIT} times as many, and more than {}",
            self.free
        ))
        .with_hint("where it is no bomb, hand it over uncompressed, or allow for what it unpacks to with --unpack-limit"))
    }
}

/// A number of bytes that may be in use. Never waited for.
#[derive(Debug)]
pub struct Budget {
    what: &'static str,
    hint: Option<&'static str>,
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
}

impl Budget {
    fn new(what: &'static str, limit: u64) -> Self {
        Self {
            what,
            hint: None,
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    /// Takes `bytes`, or tells that they are not to be had.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`].
    pub fn take(&self, bytes: u64) -> Result<()> {
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            });
        match taken {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::AcqRel);
                Ok(())
            }
            Err(used) => {
                let error = Error::limit(format!(
                    "{bytes} more bytes exceed the budget for {}: {used} of {} bytes are in use",
                    self.what, self.limit
                ));
                Err(match self.hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
        }
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// Most bytes that were in use at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Acquire)
    }

    /// Most bytes that may be in use.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_relays_in_opposite_directions_do_not_block_each_other() {
        let limits = Limits::new(LimitsConfig {
            transfers_per_host: 1,
            ..LimitsConfig::default()
        });
        let (a, b) = (Host::new("a.example"), Host::new("b.example"));
        let relay = |hosts: [Host; 2]| {
            let limits = limits.clone();
            async move {
                for _ in 0..100 {
                    let slots = limits.transfer(&hosts).await;
                    tokio::task::yield_now().await;
                    drop(slots);
                }
            }
        };
        tokio::join!(relay([a.clone(), b.clone()]), relay([b, a]));
    }

    #[test]
    fn what_unpacks_to_a_multiple_is_taken_up_to_a_limit() {
        let limits = Limits::new(LimitsConfig {
            unpacked: 10_000,
            ..LimitsConfig::default()
        });
        // Bytes that came out and bytes that went in, again and again; how often that goes well.
        for (out, read, expected) in [
            (5_000, 1, 2),
            (10_000, 0, 1),
            (10_001, 50, 0),
            (200, 1, 1_000),
            (201, 1, 49),
            (u64::MAX, u64::MAX, 1_000),
        ] {
            let mut expansion = Expansion::new(&limits);
            let went = (1..=1_000_u64)
                .take_while(|n| expansion.take(out, read.saturating_mul(*n)).is_ok());
            assert_eq!(went.count(), expected, "{out} of {read}");
        }
    }

    #[test]
    fn a_budget_refuses_and_does_not_wait() {
        let budget = Budget::new("tests", 10);
        budget.take(7).expect("seven of ten");
        assert!(budget.take(4).is_err());
        budget.give(7);
        budget.take(10).expect("all of it");
        assert_eq!(budget.peak(), 10);
    }
}
