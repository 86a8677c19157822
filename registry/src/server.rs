//! The socket: accepts connections and ends with its [`Running`].
//!
//! *Invariant*: every task belongs to the accept loop, and the loop to the [`Running`]: dropping that closes the socket and
//! all connections. A peer that neither sends nor reads for a while is cut off.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Sleep};

use crate::Registry;
use crate::requests::Requests;

/// How long to wait after the system had no connection to give (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A registry that is being served. Dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    registry: Arc<Registry>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    /// Accepts nothing new, waits for the requests that are under way, and ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = &mut self.task {
            // It only fails when it was aborted, which is what is wanted here.
            let _ = task.await;
        }
        self.task = None;
    }

    /// Which requests came so far.
    pub fn requests(&self) -> Requests {
        self.registry.requests()
    }

    /// The registry behind the socket.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

pub(crate) async fn serve(
    registry: Arc<Registry>,
    router: Router,
    addr: SocketAddr,
) -> io::Result<Running> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    // Aborted when the `Running` is dropped.
    let task = tokio::spawn(accept(listener, registry.clone(), router, stopped));
    Ok(Running {
        addr,
        registry,
        stop,
        task: Some(task),
    })
}

async fn accept(
    listener: TcpListener,
    registry: Arc<Registry>,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let limits = &registry.config.limits;
    let slots = Arc::new(Semaphore::new(limits.connections.max(1)));
    let mut connections = JoinSet::new();
    let mut purge = tokio::time::interval(limits.session_idle.max(Duration::from_secs(1)));
    purge.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        tokio::select! {
            _ = stopped.changed() => break,
            _ = purge.tick() => registry.sessions.purge(),
            Some(_) = connections.join_next() => {}
            (slot, accepted) = next => match accepted {
                Ok((stream, peer)) => {
                    tracing::trace!(%peer, "connected");
                    let connection = connect(stream, router.clone(), limits.stall, stopped.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connect(
    stream: TcpStream,
    router: Router,
    stall: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(stall)
        .serve_connection(
            TokioIo::new(Unstalled::new(stream, stall)),
            TowerToHyperService::new(router),
        );
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until_stopped(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, and then there is nothing to go on for either.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// A socket of which a write that makes no progress for a while fails.
struct Unstalled<S> {
    stream: S,
    stall: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Unstalled<S> {
    fn new(stream: S, stall: Duration) -> Self {
        Self {
            stream,
            stall,
            deadline: None,
        }
    }

    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let stall = self.stall;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + stall)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(1000);
        let mut ours = Unstalled::new(ours, STALL);
        let start = Instant::now();
        let error = ours.write_all(&[0; 2000]).await.expect_err("no reader");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let mut ours = Unstalled::new(ours, STALL);
        let read = async {
            for _ in 0..10 {
                tokio::time::sleep(STALL / 2).await;
                let mut bytes = [0; 1000];
                theirs.read_exact(&mut bytes).await.expect("a writer");
            }
        };
        let (written, ()) = tokio::join!(ours.write_all(&[0; 10_000]), read);
        written.expect("each write made progress in time");
    }
}
