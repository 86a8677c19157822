//! Bytes that a guest writes while `run` decides: kept in the run's spool.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use ocm_content::{Blob, Error, Limits, Spool};
use ocm_specs::{Algorithm, Hasher};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::activity::{Activity, SPOOL};

/// A place for bytes.
#[derive(Clone)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Stored {
    media_type: String,
    state: Arc<Mutex<State>>,
}

struct State {
    /// Here between two writes.
    spool: Option<Spool>,
    /// Here during one. Kept outside of who waits for it, so that a dropped wait loses nothing.
    writing: Option<BoxFuture<'static, (Spool, Result<(), Error>)>>,
    hasher: Option<Hasher>,
    length: u64,
    error: Option<Error>,
    sink: SinkState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SinkState {
    Unasked,
    Open,
    Closed,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("media_type", &self.media_type)
            .finish_non_exhaustive()
    }
}

impl Stored {
    pub(crate) fn new(media_type: String, limits: &Arc<Limits>) -> Self {
        Self {
            media_type,
            state: Arc::new(Mutex::new(State {
                spool: Some(Spool::new(limits)),
                writing: None,
                hasher: Some(Hasher::new(Algorithm::Sha256)),
                length: 0,
                error: None,
                sink: SinkState::Unasked,
            })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way in, once.
    pub(crate) fn sink(
        &self,
        window: usize,
        limit: u64,
        activity: Arc<Activity>,
    ) -> Option<StoredSink> {
        let mut state = self.lock();
        if state.sink != SinkState::Unasked {
            return None;
        }
        state.sink = SinkState::Open;
        Some(StoredSink {
            stored: self.clone(),
            window,
            limit,
            activity,
        })
    }

    fn poll_written(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if let Some(writing) = &mut state.writing {
            let (spool, result) = std::task::ready!(writing.as_mut().poll(context));
            state.writing = None;
            state.spool = Some(spool);
            if let Err(error) = result {
                state.error.get_or_insert(error);
            }
        }
        Poll::Ready(())
    }

    /// What was written, with its digest.
    pub(crate) async fn finish(self) -> Result<Blob, Error> {
        std::future::poll_fn(|context| self.poll_written(context)).await;
        let mut state = self.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.sink == SinkState::Open {
            return Err(Error::internal(
                "the sink of a stored content was still open when `run` returned",
            ));
        }
        let (Some(spool), Some(hasher)) = (state.spool.take(), state.hasher.take()) else {
            return Err(Error::internal("a stored content was given out twice"));
        };
        Ok(Blob::new(self.media_type.clone(), spool.finish())
            .expect_content(hasher.finish(), state.length))
    }
}

/// The guest's way into a [`Stored`].
pub(crate) struct StoredSink {
    stored: Stored,
    window: usize,
    limit: u64,
    activity: Arc<Activity>,
}

#[async_trait::async_trait]
impl Pollable for StoredSink {
    async fn ready(&mut self) {
        let _waiting = self.activity.wait();
        std::future::poll_fn(|context| self.stored.poll_written(context)).await;
    }
}

#[async_trait::async_trait]
impl OutputStream for StoredSink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut state = self.stored.lock();
        let Some(mut spool) = state.spool.take().filter(|_| bytes.len() <= self.window) else {
            return Err(StreamError::trap(
                "it wrote more bytes than `check-write` allowed",
            ));
        };
        self.activity.moved(bytes.len());
        state.length += bytes.len() as u64;
        if state.length > self.limit {
            return Err(StreamError::Trap(wasmtime::format_err!(
                "it wrote more than {} bytes to one output",
                self.limit
            )));
        }
        if let Some(hasher) = &mut state.hasher {
            hasher.update(&bytes);
        }
        state.writing = Some(Box::pin(async move {
            let result = spool.write(bytes).await;
            (spool, result)
        }));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let state = self.stored.lock();
        if let Some(error) = &state.error {
            self.activity.failed(SPOOL, error);
            let error = wasmtime::Error::msg(error.to_string());
            return Err(StreamError::LastOperationFailed(error));
        }
        Ok(if state.spool.is_some() {
            self.window
        } else {
            0
        })
    }
}

impl Drop for StoredSink {
    fn drop(&mut self) {
        self.stored.lock().sink = SinkState::Closed;
    }
}
