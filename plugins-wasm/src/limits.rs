//! What one call into a plugin may use, and what all calls of a host use now.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What one call may use. Every call gets its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginLimits {
    /// Linear memory, all memories of the instance together, in bytes.
    pub memory: usize,
    /// Elements of one table. All tables of the instance count as memory, too.
    pub table: usize,
    /// Handles that the guest may hold: streams, inputs, pollables. Not below 64: guests with a garbage collector drop late.
    pub handles: usize,
    /// Streams of inputs and answers that are open at once. Not below the ports of a step, nor where a garbage collector is late.
    pub streams: usize,
    /// Streams that one call may open in all.
    pub opens: u64,
    /// Bytes that one call of the host may take from or give to the guest as strings and lists.
    pub per_call: usize,
    /// A JSON text from the guest, in bytes.
    pub json: usize,
    /// Bytes that a pipe holds between a guest and who reads from it; also the most that one read gives.
    pub window: usize,
    /// How long a guest may go on without moving a byte while it is not waiting for bytes. Computing and sleeping count,
    /// a slow source or a slow reader does not.
    pub stall: Duration,
    /// How long one call of `run` or `produce` may work in all, whatever it shows of it. Waiting for bytes does not count.
    pub time: Duration,
    /// How long it may take to compile a component.
    pub compile: Duration,
    /// How long `describe` and `validate` may take, and to judge what was described.
    pub ask: Duration,
    /// Memory for `describe` and `validate`, in bytes.
    pub ask_memory: usize,
    /// Bytes that a guest may write to one output.
    pub output: u64,
    /// Log lines of one call that are passed on; further ones are counted.
    pub log_lines: u64,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory: 256 << 20,
            table: 100_000,
            handles: 256,
            streams: 64,
            opens: 10_000,
            per_call: 4 << 20,
            json: 4 << 20,
            window: 256 << 10,
            stall: Duration::from_secs(30),
            time: Duration::from_secs(3600),
            compile: Duration::from_secs(600),
            ask: Duration::from_secs(10),
            ask_memory: 64 << 20,
            output: 1 << 40,
            log_lines: 1000,
        }
    }
}

/// What an element of a table counts as, in bytes.
pub(crate) const TABLE_ELEMENT: usize = 16;
/// Instances, memories and tables that a component may be made of: those of Python are made of some dozens.
pub(crate) const PARTS: (usize, usize, usize) = (512, 64, 512);
/// Longest log line that is passed on, in bytes.
pub(crate) const LOG_LINE: usize = 4 << 10;
/// Longest message, hint or field of an error from a guest, in bytes.
pub(crate) const ERROR_TEXT: usize = 2 << 10;
/// Largest `state` of a lazy content, in bytes: it is kept as long as the handle.
pub(crate) const STATE: usize = 64 << 10;
/// What is kept of standard output and error for a crash report, in bytes.
pub(crate) const TAIL: usize = 4 << 10;

/// What the calls of a host use at this moment: instances and their linear memory. For tests and measurements.
#[derive(Debug, Default)]
pub struct Usage {
    instances: AtomicUsize,
    made: AtomicU64,
    memory: AtomicU64,
}

impl Usage {
    /// Instances that are alive.
    pub fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    /// Instances that were made since the host is there.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Their linear memory in bytes.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }
}

/// One instance's part of the usage; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    usage: Arc<Usage>,
    pub(crate) memory: usize,
    pub(crate) peak: usize,
}

impl Share {
    pub(crate) fn new(usage: &Arc<Usage>) -> Self {
        usage.instances.fetch_add(1, Ordering::Relaxed);
        usage.made.fetch_add(1, Ordering::Relaxed);
        Self {
            usage: usage.clone(),
            memory: 0,
            peak: 0,
        }
    }

    pub(crate) fn grow(&mut self, bytes: usize) {
        self.memory += bytes;
        self.peak = self.peak.max(self.memory);
        self.usage.memory.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        self.memory -= bytes;
        self.usage.memory.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(self.memory);
        self.usage.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The text, cut to `limit` bytes at a character's border.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}
