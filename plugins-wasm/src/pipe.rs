//! The bridges between the engine's byte streams and those of WASI.
//!
//! Invariant: between a guest and the other side lie at most [`crate::PluginLimits::window`] bytes, and no byte is copied
//! here. Waits can be dropped half-way without losing anything.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use ocm_content::{ByteStream, Error};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use crate::activity::Activity;

/// An input port being read: a byte stream as a WASI input stream.
pub(crate) struct Reading {
    port: String,
    stream: ByteStream,
    pending: Bytes,
    error: Option<Error>,
    done: bool,
    window: usize,
    activity: Arc<Activity>,
    /// Counts the streams of a call that are open.
    _open: Arc<()>,
}

impl Reading {
    pub(crate) fn new(
        port: &str,
        stream: ByteStream,
        window: usize,
        activity: Arc<Activity>,
        open: Arc<()>,
    ) -> Self {
        Self {
            port: port.to_owned(),
            stream,
            pending: Bytes::new(),
            error: None,
            done: false,
            window,
            activity,
            _open: open,
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Reading {
    async fn ready(&mut self) {
        if !self.pending.is_empty() || self.error.is_some() || self.done {
            return;
        }
        let _waiting = self.activity.wait();
        // An empty chunk says nothing: a `ready` after which `read` gives nothing counts against the guest.
        while self.pending.is_empty() && self.error.is_none() && !self.done {
            match self.stream.next().await {
                Some(Ok(chunk)) => self.pending = chunk,
                Some(Err(error)) => self.error = Some(error),
                None => self.done = true,
            }
        }
    }
}

#[async_trait::async_trait]
impl InputStream for Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if let Some(error) = self.error.take() {
            self.done = true;
            self.activity.failed(&self.port, &error);
            let error = wasmtime::Error::msg(error.to_string());
            return Err(StreamError::LastOperationFailed(error));
        }
        if self.pending.is_empty() && self.done {
            return Err(StreamError::Closed);
        }
        let count = size.min(self.window).min(self.pending.len());
        self.activity.moved(count);
        Ok(self.pending.split_to(count))
    }
}

/// What is between a guest that writes and who reads from it.
struct Pipe {
    queue: VecDeque<Bytes>,
    buffered: usize,
    /// Bytes that were written in all.
    written: u64,
    /// The writer is done: all is well, or why not.
    end: Option<Result<(), Error>>,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Pipe>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A pipe: the guest's end, the reader's end, and the handle that ends it. At most `limit` bytes go through.
pub(crate) fn pipe(window: usize, limit: u64, activity: Arc<Activity>) -> (Sink, Output, End) {
    let shared = Shared(Arc::new(Mutex::new(Pipe {
        queue: VecDeque::new(),
        buffered: 0,
        written: 0,
        end: None,
        reader_gone: false,
        reader: None,
        writer: None,
    })));
    let sink = Sink {
        pipe: shared.clone(),
        window,
        limit,
        activity,
    };
    (sink, Output(shared.clone()), End(shared))
}

/// The guest's end.
pub(crate) struct Sink {
    pipe: Shared,
    window: usize,
    limit: u64,
    activity: Arc<Activity>,
}

impl Sink {
    /// Room enough to be worth a write: below half a window the writer waits, so that permits stay large.
    fn permit(&self, pipe: &Pipe) -> usize {
        if pipe.buffered <= self.window / 2 {
            self.window - pipe.buffered
        } else {
            0
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {
        let _waiting = self.activity.wait();
        std::future::poll_fn(|context| {
            let mut pipe = self.pipe.lock();
            if pipe.reader_gone || self.permit(&pipe) > 0 {
                return Poll::Ready(());
            }
            pipe.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[async_trait::async_trait]
impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut pipe = self.pipe.lock();
        if pipe.reader_gone {
            return Err(StreamError::Closed);
        }
        if bytes.len() > self.window - pipe.buffered {
            return Err(StreamError::trap(
                "it wrote more bytes than `check-write` allowed",
            ));
        }
        pipe.written += bytes.len() as u64;
        if pipe.written > self.limit {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "it wrote more than {} bytes to one output",
                self.limit
            )));
        }
        pipe.buffered += bytes.len();
        self.activity.moved(bytes.len());
        if !bytes.is_empty() {
            pipe.queue.push_back(bytes);
        }
        wake(&mut pipe.reader);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let pipe = self.pipe.lock();
        if pipe.reader_gone {
            return Err(StreamError::Closed);
        }
        Ok(self.permit(&pipe))
    }
}

/// Says how the writing ended. Closing the sink says nothing: only who called the guest knows whether it was done.
pub(crate) struct End(Shared);

impl End {
    pub(crate) fn finish(&self, end: Result<(), Error>) {
        let mut pipe = self.0.lock();
        pipe.end.get_or_insert(end);
        wake(&mut pipe.reader);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // A writer that vanished must not look like one that is thinking.
        self.finish(Err(Error::internal("the writer is gone")));
    }
}

/// The reader's end: a byte stream.
pub(crate) struct Output(Shared);

impl Stream for Output {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut pipe = self.0.lock();
        if let Some(chunk) = pipe.queue.pop_front() {
            pipe.buffered -= chunk.len();
            wake(&mut pipe.writer);
            return Poll::Ready(Some(Ok(chunk)));
        }
        match &mut pipe.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        pipe.reader_gone = true;
        pipe.queue.clear();
        wake(&mut pipe.writer);
    }
}
