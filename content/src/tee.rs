//! Several readers of one port share one read.
//!
//! *Invariants:* no reader ever waits for another one: whoever needs the next bytes polls the one source itself, and any
//! of several may; memory for shared bytes is taken from [`Limits::window`] chunk by chunk and never waited for; what no
//! reader can need any more is freed at once.
//!
//! **A source that can be opened again** is read once while its readers stay within the window. When the budget is used
//! up, the oldest bytes go, and with them the reader that is furthest behind (or has not come yet): it goes on with its own
//! read from where it is. Bytes that are kept only for readers that have not come may also be taken by another tee.
//!
//! **A once source** must be kept for all: beyond the window its bytes go to a temporary file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;

use crate::artifact::{Artifact, Composed, Content, Stored};
use crate::blob::{Access, Blob, ByteStream, Locator, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::file::read_chunk;
use crate::limits::{Evictable, Host, Limits};
use crate::spool::TempFile;
use crate::store::{ContentStore, RawManifest};
use crate::view::{StoreView, Viewed};

/// Bytes of manifests that a shared artifact remembers: 16 MiB. Beyond, they are read anew.
const MANIFESTS_KEPT: usize = 16 << 20;

/// The same content for `readers` readers that share one read.
///
/// Each reader opens each blob once (a re-openable one as often as it likes); a reader that needs a once source twice
/// spools it ([`crate::spool()`]).
pub fn share(content: Content, readers: usize, limits: &Arc<Limits>) -> Content {
    if readers < 2 {
        return content;
    }
    match content {
        Content::Blob(blob) => Content::Blob(share_blob(&blob, readers, limits)),
        Content::Artifact(Artifact::Stored(stored)) => {
            Content::Artifact(Artifact::Stored(Stored {
                store: share_store(stored.store, readers, limits),
                ..stored
            }))
        }
        Content::Artifact(Artifact::Composed(composed)) => {
            let replaced = composed
                .replaced
                .iter()
                .map(|(part, blob)| (*part, share_blob(blob, readers, limits)))
                .collect();
            Content::Artifact(Artifact::Composed(Composed {
                store: share_store(composed.store, readers, limits),
                replaced,
                ..composed
            }))
        }
    }
}

fn share_blob(blob: &Blob, readers: usize, limits: &Arc<Limits>) -> Blob {
    if blob.source().bytes().is_some() {
        return blob.clone();
    }
    let tee = Tee::new(blob.source().clone(), readers, limits);
    blob.clone().with_source(Arc::new(Shared(tee)))
}

fn share_store(
    inner: Arc<dyn ContentStore>,
    readers: usize,
    limits: &Arc<Limits>,
) -> Arc<dyn ContentStore> {
    Arc::new(Viewed(SharedStore {
        inner,
        readers,
        limits: limits.clone(),
        blobs: Mutex::default(),
        manifests: Mutex::default(),
    }))
}

/// The source that readers see.
#[derive(Clone)]
struct Shared(Arc<Tee>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({:?})", self.0.source)
    }
}

impl Source for Shared {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let tee = self.0.clone();
        Box::pin(async move { tee.open(offset).await })
    }

    fn access(&self) -> Access {
        self.0.source.access()
    }

    /// One read takes one slot: the first reader that asks is to take it, the others read along. If they all waited for
    /// slots of the source, those who got none would fall behind those who did, until they had to read on their own.
    fn hosts(&self) -> Vec<Host> {
        if self.0.has_host_slot.swap(true, Ordering::Relaxed) {
            return Vec::new();
        }
        self.0.source.hosts()
    }

    fn locator(&self) -> Option<Locator> {
        self.0.source.locator()
    }
}

/// One source and those who read it.
struct Tee {
    source: Arc<dyn Source>,
    once: bool,
    limits: Arc<Limits>,
    wakers: Arc<Wakers>,
    /// Has a reader been told the hosts, so that it takes a slot there?
    has_host_slot: AtomicBool,
    state: Mutex<State>,
}

struct State {
    input: Input,
    /// Bytes from `base` to `end` are kept: first those in memory, then those in the file.
    base: u64,
    end: u64,
    memory: VecDeque<(u64, Bytes)>,
    overflow: Option<Overflow>,
    /// Readers that are expected and have not come.
    expected: usize,
    /// Positions of those that have come and read along.
    readers: BTreeMap<u64, u64>,
    next_reader: u64,
}

/// The source, on its way.
enum Input {
    /// To be opened at the end of what is kept.
    Closed,
    Opening(BoxFuture<'static, Result<ByteStream>>),
    Open(ByteStream),
    /// The next chunk of a once source goes to the file.
    Writing {
        length: u64,
        write: BoxFuture<'static, Result<()>>,
        then: ByteStream,
    },
    /// A file is being made for this chunk.
    Spilling {
        chunk: Bytes,
        create: BoxFuture<'static, Result<TempFile>>,
        then: ByteStream,
    },
    Ended,
    Failed(Error),
    /// Polling the source did not come back.
    Lost,
}

/// The file behind the memory of a once source.
struct Overflow {
    file: TempFile,
    /// Position of the file's first byte in the stream.
    start: u64,
}

/// What a reader gets when it asks.
enum Given {
    Bytes(Bytes),
    /// The bytes are in the file: the reader fetches them itself.
    File(BoxFuture<'static, Result<Bytes>>),
    /// The bytes are gone: go on with an own read.
    Detached(u64),
    End,
    Failed(Error),
}

impl Tee {
    fn new(source: Arc<dyn Source>, readers: usize, limits: &Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            once: source.access() == Access::Once,
            source,
            limits: limits.clone(),
            wakers: Arc::default(),
            has_host_slot: AtomicBool::new(false),
            state: Mutex::new(State {
                input: Input::Closed,
                base: 0,
                end: 0,
                memory: VecDeque::new(),
                overflow: None,
                expected: readers,
                readers: BTreeMap::new(),
                next_reader: 0,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(self: Arc<Self>, offset: u64) -> Result<ByteStream> {
        let joined = self.lock().join(offset, self.once)?;
        let mode = match joined {
            Some(id) => Mode::Attached(id),
            None => Mode::Own(self.source.open(offset).await?),
        };
        Ok(Box::pin(Reader { tee: self, mode }))
    }

    /// The next bytes for a reader, pulled from the source if nobody has pulled them yet.
    fn poll(&self, id: u64, cx: &Context<'_>) -> Poll<Given> {
        let mut wake = false;
        let polled = {
            let mut state = self.lock();
            self.poll_state(&mut state, id, cx, &mut wake)
        };
        if wake {
            self.wakers.wake_all();
        }
        polled
    }

    fn poll_state(
        &self,
        state: &mut State,
        id: u64,
        cx: &Context<'_>,
        wake: &mut bool,
    ) -> Poll<Given> {
        loop {
            let Some(at) = state.readers.get(&id).copied() else {
                return Poll::Ready(Given::End);
            };
            if at < state.base {
                self.leave_state(state, id);
                return Poll::Ready(Given::Detached(at));
            }
            if at < state.end {
                return Poll::Ready(self.kept(state, id, at));
            }
            match &state.input {
                Input::Ended => {
                    self.leave_state(state, id);
                    return Poll::Ready(Given::End);
                }
                Input::Failed(error) => {
                    let error = error.clone();
                    self.leave_state(state, id);
                    return Poll::Ready(Given::Failed(error));
                }
                Input::Lost => {
                    self.leave_state(state, id);
                    return Poll::Ready(Given::Failed(Error::internal("the source panicked")));
                }
                _ => {}
            }
            // Registered before polling: the source wakes all who are registered, whoever polled it.
            self.wakers.register(id, cx.waker());
            let waker = Waker::from(self.wakers.clone());
            let pulled = self.pull(state, &mut Context::from_waker(&waker));
            let chunk = std::task::ready!(pulled);
            // Whatever came, it is news for those who wait: kept bytes, an end, or that they are left behind.
            *wake = true;
            if let Some(bytes) = chunk.and_then(|chunk| self.accept(state, chunk, id)) {
                return Poll::Ready(Given::Bytes(bytes));
            }
        }
    }

    /// Bytes that are kept, for a reader at `at`.
    fn kept(&self, state: &mut State, id: u64, at: u64) -> Given {
        let index = state.memory.partition_point(|(start, _)| *start <= at);
        let found = index
            .checked_sub(1)
            .and_then(|index| state.memory.get(index));
        if let Some((start, chunk)) = found {
            let skip = usize::try_from(at - start).unwrap_or(usize::MAX);
            if skip < chunk.len() {
                let bytes = chunk.slice(skip..);
                state.readers.insert(id, at + bytes.len() as u64);
                self.trim(state);
                return Given::Bytes(bytes);
            }
        }
        match &state.overflow {
            Some(overflow) => {
                let file = overflow.file.file().clone();
                let (from, to) = (at - overflow.start, state.end - overflow.start);
                Given::File(Box::pin(read_chunk(file, from, to)))
            }
            None => Given::Failed(Error::internal("shared bytes are neither here nor there")),
        }
    }

    /// Moves the input on by one step: gives a chunk, or nothing when only the input's state has changed.
    fn pull(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match std::mem::replace(&mut state.input, Input::Lost) {
            Input::Closed => {
                state.input = Input::Opening(self.source.open(state.end));
            }
            Input::Opening(mut opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => {
                    state.input = Input::Opening(opening);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(stream)) => state.input = Input::Open(stream),
                Poll::Ready(Err(error)) => state.input = Input::Failed(error),
            },
            Input::Open(mut stream) => match stream.as_mut().poll_next(cx) {
                Poll::Pending => {
                    state.input = Input::Open(stream);
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(chunk))) => {
                    state.input = Input::Open(stream);
                    return Poll::Ready(Some(chunk).filter(|chunk| !chunk.is_empty()));
                }
                Poll::Ready(Some(Err(error))) => state.input = Input::Failed(error),
                Poll::Ready(None) => state.input = Input::Ended,
            },
            Input::Spilling {
                chunk,
                mut create,
                then,
            } => match create.as_mut().poll(cx) {
                Poll::Pending => {
                    state.input = Input::Spilling {
                        chunk,
                        create,
                        then,
                    };
                    return Poll::Pending;
                }
                Poll::Ready(Ok(file)) => {
                    state.overflow = Some(Overflow {
                        file,
                        start: state.end,
                    });
                    state.write(chunk, then);
                }
                Poll::Ready(Err(error)) => state.input = Input::Failed(error),
            },
            Input::Writing {
                length,
                mut write,
                then,
            } => match write.as_mut().poll(cx) {
                Poll::Pending => {
                    state.input = Input::Writing {
                        length,
                        write,
                        then,
                    };
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {
                    state.end += length;
                    state.input = Input::Open(then);
                }
                Poll::Ready(Err(error)) => state.input = Input::Failed(error),
            },
            over @ (Input::Ended | Input::Failed(_) | Input::Lost) => state.input = over,
        }
        Poll::Ready(None)
    }

    /// Takes a chunk that came out of the source at the end of what is kept. Gives it to `id` right away where it is the
    /// only one to need it; keeps it else.
    fn accept(&self, state: &mut State, chunk: Bytes, id: u64) -> Option<Bytes> {
        let length = chunk.len() as u64;
        let others = state.needed(Some(id)).is_some();
        if !others {
            self.clear(state);
            state.base += length;
            state.end = state.base;
            let at = state.readers.get_mut(&id)?;
            let before = state.end - length;
            // A reader may have asked for a later offset than the source has reached.
            let skip = at.saturating_sub(before).min(length);
            *at = (*at).max(state.end);
            let rest = chunk.slice(usize::try_from(skip).unwrap_or(usize::MAX)..);
            return Some(rest).filter(|rest| !rest.is_empty());
        }
        if state.overflow.is_some() {
            state.spill(chunk);
            return None;
        }
        loop {
            if self.take(length) {
                state.memory.push_back((state.end, chunk));
                state.end += length;
                return None;
            }
            if self.once {
                let limits = self.limits.clone();
                let create = Box::pin(async move { TempFile::create(&limits).await });
                match std::mem::replace(&mut state.input, Input::Lost) {
                    Input::Open(then) => {
                        state.input = Input::Spilling {
                            chunk,
                            create,
                            then,
                        };
                    }
                    other => state.input = other,
                }
                return None;
            }
            if !self.evict_oldest(state) {
                // Nothing of ours is left to free: the reader that asked gets the chunk, the others read on their own.
                state.base = state.end + length;
                state.end = state.base;
                state.readers.insert(id, state.end);
                return Some(chunk);
            }
        }
    }

    /// Takes memory from the budget, from idle tees if there is no other.
    fn take(&self, bytes: u64) -> bool {
        let window = self.limits.window();
        window.take(bytes).is_ok() || (self.limits.reclaim(bytes) && window.take(bytes).is_ok())
    }

    /// Detaches whoever is furthest behind by freeing the oldest chunk and all that nobody else needs.
    fn evict_oldest(&self, state: &mut State) -> bool {
        let Some((start, chunk)) = state.memory.pop_front() else {
            return false;
        };
        let length = chunk.len() as u64;
        self.limits.window().give(length);
        state.base = start + length;
        self.trim(state);
        true
    }

    /// Frees what nobody can need any more.
    fn trim(&self, state: &mut State) {
        let Some(needed) = state.needed(None) else {
            return self.clear(state);
        };
        while let Some((start, chunk)) = state.memory.front() {
            let (after, length) = (start + chunk.len() as u64, chunk.len() as u64);
            if after > needed {
                break;
            }
            state.memory.pop_front();
            state.base = after;
            self.limits.window().give(length);
        }
    }

    /// Frees all that is kept: the next byte is the first.
    fn clear(&self, state: &mut State) {
        let held: u64 = state
            .memory
            .drain(..)
            .map(|(_, chunk)| chunk.len() as u64)
            .sum();
        self.limits.window().give(held);
        state.base = state.end;
        // A file that is being written belongs to bytes that are still to come.
        if !matches!(state.input, Input::Writing { .. }) {
            state.overflow = None;
        }
    }

    fn leave(self: &Arc<Self>, id: u64) {
        self.wakers.forget(id);
        let mut state = self.lock();
        self.leave_state(&mut state, id);
        let idle = state.is_idle();
        // A connection that nobody reads from is closed; what is kept stays for those who are expected.
        let closed = if state.readers.is_empty() && !self.once {
            match &state.input {
                Input::Open(_) | Input::Opening(_) => {
                    Some(std::mem::replace(&mut state.input, Input::Closed))
                }
                _ => None,
            }
        } else {
            None
        };
        drop(state);
        drop(closed);
        if idle && !self.once {
            let tee: Weak<dyn Evictable> = Arc::<Self>::downgrade(self);
            self.limits.offer(tee);
        }
    }

    fn leave_state(&self, state: &mut State, id: u64) {
        if state.readers.remove(&id).is_some() {
            self.trim(state);
        }
    }
}

impl Evictable for Tee {
    fn evict(&self) -> bool {
        // Whoever holds the lock is at work here, so this tee is not idle.
        let Ok(mut state) = self.state.try_lock() else {
            return false;
        };
        let idle = state.is_idle();
        if idle {
            self.clear(&mut state);
        }
        idle
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let held = state.memory.iter().map(|(_, chunk)| chunk.len() as u64);
        self.limits.window().give(held.sum());
    }
}

impl State {
    /// A new reader from `offset` on; `None` when it has to read on its own.
    fn join(&mut self, offset: u64, once: bool) -> Result<Option<u64>> {
        // A resumed read is one that was counted when it started.
        if offset == 0 {
            self.expected = self.expected.saturating_sub(1);
        }
        let within = self.base <= offset && (once || offset <= self.end);
        let failed = matches!(self.input, Input::Failed(_));
        if !within && once {
            return Err(Error::new(
                ErrorKind::Consumed,
                "content that can be read once was read by all its readers",
            ));
        }
        if !within || (failed && !once) {
            return Ok(None);
        }
        let id = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(id, offset);
        Ok(Some(id))
    }

    /// The first position that somebody but `except` may still ask for.
    fn needed(&self, except: Option<u64>) -> Option<u64> {
        let expected = (self.expected > 0 && self.base == 0).then_some(0);
        let others = self
            .readers
            .iter()
            // Those behind are detached and will find out.
            .filter(|(id, at)| Some(**id) != except && **at >= self.base)
            .map(|(_, at)| *at);
        others.chain(expected).min()
    }

    /// Are bytes kept that nobody is reading?
    fn is_idle(&self) -> bool {
        self.readers.is_empty() && !self.memory.is_empty()
    }

    fn spill(&mut self, chunk: Bytes) {
        match std::mem::replace(&mut self.input, Input::Lost) {
            Input::Open(then) => self.write(chunk, then),
            other => self.input = other,
        }
    }

    fn write(&mut self, chunk: Bytes, then: ByteStream) {
        let Some(overflow) = &mut self.overflow else {
            self.input = Input::Failed(Error::internal("no file to write to"));
            return;
        };
        let length = chunk.len() as u64;
        self.input = match overflow.file.reserve(length) {
            Ok(at) => Input::Writing {
                length,
                write: overflow.file.write(chunk, at),
                then,
            },
            Err(error) => Input::Failed(error),
        };
    }
}

/// Those who wait for the source. Waking it wakes them all, so that it does not matter who of them polled or is gone.
#[derive(Default)]
struct Wakers(Mutex<BTreeMap<u64, Waker>>);

impl Wakers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, id: u64, waker: &Waker) {
        // A replaced waker is dropped after the lock is released.
        let _replaced = self.lock().insert(id, waker.clone());
    }

    fn forget(&self, id: u64) {
        let _removed = self.lock().remove(&id);
    }

    fn wake_all(&self) {
        for waker in std::mem::take(&mut *self.lock()).into_values() {
            waker.wake();
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }
}

/// One reader's stream.
struct Reader {
    tee: Arc<Tee>,
    mode: Mode,
}

enum Mode {
    /// Reads along.
    Attached(u64),
    /// Reads along, and fetches a chunk from the file now.
    Fetching(u64, BoxFuture<'static, Result<Bytes>>),
    /// Was left behind, opens its own read.
    Opening(BoxFuture<'static, Result<ByteStream>>),
    /// Reads on its own.
    Own(ByteStream),
    Done,
}

impl Reader {
    fn end(&mut self) {
        if let Mode::Attached(id) | Mode::Fetching(id, _) =
            std::mem::replace(&mut self.mode, Mode::Done)
        {
            self.tee.leave(id);
        }
    }
}

impl Stream for Reader {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.mode {
                Mode::Attached(id) => {
                    let id = *id;
                    match std::task::ready!(this.tee.poll(id, cx)) {
                        Given::Bytes(bytes) => return Poll::Ready(Some(Ok(bytes))),
                        Given::File(fetch) => this.mode = Mode::Fetching(id, fetch),
                        Given::Detached(at) => {
                            this.end();
                            this.mode = Mode::Opening(this.tee.source.open(at));
                        }
                        Given::End => {
                            this.end();
                            return Poll::Ready(None);
                        }
                        Given::Failed(error) => {
                            this.end();
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
                Mode::Fetching(id, fetch) => {
                    let id = *id;
                    let fetched = std::task::ready!(fetch.as_mut().poll(cx));
                    match fetched {
                        Ok(bytes) => {
                            let mut state = this.tee.lock();
                            if let Some(at) = state.readers.get_mut(&id) {
                                *at += bytes.len() as u64;
                            }
                            this.tee.trim(&mut state);
                            drop(state);
                            this.mode = Mode::Attached(id);
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                        Err(error) => {
                            this.end();
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                }
                Mode::Opening(opening) => match std::task::ready!(opening.as_mut().poll(cx)) {
                    Ok(stream) => this.mode = Mode::Own(stream),
                    Err(error) => {
                        this.mode = Mode::Done;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Mode::Own(stream) => {
                    let polled = std::task::ready!(stream.as_mut().poll_next(cx));
                    if !matches!(polled, Some(Ok(_))) {
                        this.mode = Mode::Done;
                    }
                    return Poll::Ready(polled);
                }
                Mode::Done => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}

/// A store whose blobs are shared by the readers of one artifact.
#[derive(Debug)]
struct SharedStore {
    inner: Arc<dyn ContentStore>,
    readers: usize,
    limits: Arc<Limits>,
    blobs: Mutex<BTreeMap<Digest, Shared>>,
    manifests: Mutex<Manifests>,
}

/// Manifests that were read, each once for all readers, up to a size.
#[derive(Debug, Default)]
struct Manifests {
    kept: BTreeMap<String, Arc<tokio::sync::OnceCell<RawManifest>>>,
    bytes: usize,
}

#[async_trait]
impl StoreView for SharedStore {
    fn inner(&self) -> &dyn ContentStore {
        self.inner.as_ref()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        let blob = self.inner.fetch(descriptor);
        if blob.source().bytes().is_some() {
            return blob;
        }
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = blobs
            .entry(descriptor.digest.clone())
            .or_insert_with(|| Shared(Tee::new(blob.source().clone(), self.readers, &self.limits)))
            .clone();
        blob.with_source(Arc::new(shared))
    }

    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        let cell = {
            let mut manifests = self
                .manifests
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if manifests.bytes > MANIFESTS_KEPT {
                manifests.kept.clear();
                manifests.bytes = 0;
            }
            manifests
                .kept
                .entry(reference.to_owned())
                .or_default()
                .clone()
        };
        let read = || async {
            let manifest = self.inner.manifest(reference).await?;
            let mut manifests = self
                .manifests
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            manifests.bytes += manifest.bytes.len();
            Ok(manifest)
        };
        // Who waits here for another reader's request takes over when that one is dropped or fails.
        cell.get_or_try_init(read).await.cloned()
    }
}

#[cfg(test)]
mod tests;
