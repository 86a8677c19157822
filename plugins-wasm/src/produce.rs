//! A lazy output: a guest makes the bytes while somebody reads them.
//!
//! Invariant: a reader that got to the end without an error has all the bytes: only a guest that says `ok` ends them. Where
//! they are made a second time, they are compared with the first, block by block.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use ocm_content::{Access, ByteStream, Error, ErrorKind, Host, Meter, Source};
use tokio::task::JoinSet;
use wasmtime_wasi::p2::DynOutputStream;

use crate::host::{Answer, Ask, THEIRS, unusable};
use crate::pipe::{Output, pipe};
use crate::plugin::Plugin;
use crate::step::Told;
use crate::store::store;

/// What is compared at once, in bytes.
const BLOCK: usize = 1 << 20;

/// The bytes of one output port.
pub(crate) struct Produced {
    plugin: Arc<Plugin>,
    told: Told,
    port: String,
    state: Vec<u8>,
    reopenable: bool,
    opened: AtomicBool,
    seen: Arc<Mutex<Seen>>,
}

impl Produced {
    pub(crate) fn new(
        plugin: Arc<Plugin>,
        told: Told,
        port: &str,
        state: Vec<u8>,
        reopenable: bool,
    ) -> Self {
        Self {
            plugin,
            told,
            port: port.to_owned(),
            state,
            reopenable,
            opened: AtomicBool::new(false),
            seen: Arc::default(),
        }
    }
}

impl fmt::Debug for Produced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Produced")
            .field("plugin", &self.plugin.name)
            .field("step", &self.told.id)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Source for Produced {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        if self.opened.swap(true, Ordering::Relaxed) && !self.reopenable {
            let message = format!(
                "the output `{}` of step `{}` can be read only once",
                self.port, self.told.id
            );
            return Box::pin(async move { Err(Error::new(ErrorKind::Consumed, message)) });
        }
        let check = self
            .reopenable
            .then(|| Comparison::new(&self.plugin.name, &self.port, &self.seen));
        let job = Job {
            plugin: self.plugin.clone(),
            told: self.told.clone(),
            port: self.port.clone(),
            state: self.state.clone(),
        };
        Box::pin(async move { skip(job.start(check).await?, offset).await })
    }

    fn access(&self) -> Access {
        if self.reopenable {
            Access::Reopenable
        } else {
            Access::Once
        }
    }

    fn hosts(&self) -> Vec<Host> {
        self.told.inputs.hosts()
    }
}

/// One production.
struct Job {
    plugin: Arc<Plugin>,
    told: Told,
    port: String,
    state: Vec<u8>,
}

impl Job {
    async fn start(self, check: Option<Comparison>) -> Result<Producing, Error> {
        // Compiled before the pipe is there: an error here is one of opening.
        self.plugin.loaded().await?;
        let setting = self
            .plugin
            .setting(&self.told.id, self.told.seed.clone(), None);
        let (window, limit) = (setting.limits.window, setting.limits.output);
        let mut store = store(&self.plugin.host, setting).map_err(|error| unusable(&error))?;
        let (sink, output, end) = pipe(window, limit, store.data().activity.clone());
        let step = self.told.enter(store.data_mut(), self.plugin.config())?;
        let sink: DynOutputStream = Box::new(sink);
        let sink = store
            .data_mut()
            .table
            .push(sink)
            .map_err(|error| Error::limit(format!("more inputs than handles: {error}")))?;
        let ask = Ask::Produce {
            step,
            port: self.port,
            state: self.state,
            sink,
        };
        let plugin = self.plugin;
        let watch = plugin.host.watch().cloned();
        let work = async move {
            let ended = match plugin.loaded().await {
                Ok(loaded) => {
                    let (answer, store) = plugin.host.call(loaded, store, ask).await;
                    verdict(&plugin, answer, &store)
                }
                Err(error) => Err(error),
            };
            end.finish(ended);
        };
        let mut task = JoinSet::new();
        match Meter::current() {
            Some(meter) => task.spawn(meter.scope(work)),
            None => task.spawn(work),
        };
        Ok(Producing {
            output,
            check,
            _task: match watch {
                Some(watch) => watch.keep(task),
                None => Some(task),
            },
        })
    }
}

fn verdict(
    plugin: &Plugin,
    answer: Result<Answer, Error>,
    store: &wasmtime::Store<crate::store::Ctx>,
) -> Result<(), Error> {
    match answer? {
        Answer::Produced(Ok(())) => match store.data().activity.failed_input() {
            Some(error) => Err(error),
            None => Ok(()),
        },
        Answer::Produced(Err(error)) => {
            let cause = store.data().activity.failure(error.port.as_deref());
            let told = plugin.step_error(error, cause);
            Err(match told.field {
                Some(field) => told.error.context(format!("spec.{field}")),
                None => told.error,
            })
        }
        _ => Err(Error::internal("a plugin answered another question")),
    }
}

/// Bytes while they are made. Dropping it ends the guest.
struct Producing {
    output: Output,
    check: Option<Comparison>,
    _task: Option<JoinSet<()>>,
}

impl Stream for Producing {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(Pin::new(&mut self.output).poll_next(context));
        let Some(check) = &mut self.check else {
            return Poll::Ready(next);
        };
        Poll::Ready(match next {
            Some(Ok(chunk)) => Some(check.look(&chunk).map(|()| chunk)),
            Some(Err(error)) => Some(Err(error)),
            None => match self.check.take().map(Comparison::end) {
                Some(Err(error)) => Some(Err(error)),
                _ => None,
            },
        })
    }
}

/// The stream without its first `count` bytes.
async fn skip(mut stream: Producing, mut count: u64) -> Result<ByteStream, Error> {
    while count > 0 {
        let Some(mut chunk) = stream.next().await.transpose()? else {
            break;
        };
        let part = usize::try_from(count).map_or(chunk.len(), |count| count.min(chunk.len()));
        let rest = chunk.split_off(part);
        count -= part as u64;
        if !rest.is_empty() {
            return Ok(futures::stream::iter([Ok(rest)]).chain(stream).boxed());
        }
    }
    Ok(stream.boxed())
}

/// What the first production gave: checksums of its blocks, and of the end with the length. They find a plugin that is not
/// deterministic by mistake; what is stored has the digest that its reader computed in any case.
#[derive(Debug, Default)]
struct Seen {
    blocks: Vec<u32>,
    end: Option<(u32, u64)>,
}

struct Comparison {
    plugin: Arc<str>,
    port: String,
    seen: Arc<Mutex<Seen>>,
    block: crc32fast::Hasher,
    filled: usize,
    at: usize,
    length: u64,
}

impl Comparison {
    fn new(plugin: &Arc<str>, port: &str, seen: &Arc<Mutex<Seen>>) -> Self {
        Self {
            plugin: plugin.clone(),
            port: port.to_owned(),
            seen: seen.clone(),
            block: crc32fast::Hasher::new(),
            filled: 0,
            at: 0,
            length: 0,
        }
    }

    fn look(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.block.update(part);
            self.filled += part.len();
            bytes = rest;
            if self.filled == BLOCK {
                let sum = std::mem::take(&mut self.block).finalize();
                self.filled = 0;
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                match seen.blocks.get(self.at) {
                    Some(known) if *known != sum => {
                        drop(seen);
                        return Err(self.differs());
                    }
                    Some(_) => {}
                    None => seen.blocks.push(sum),
                }
                self.at += 1;
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), Error> {
        let sum = std::mem::take(&mut self.block).finalize();
        let end = (sum, self.length);
        let known = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen.end.get_or_insert(end)
        };
        if known == end {
            Ok(())
        } else {
            Err(self.differs())
        }
    }

    fn differs(&self) -> Error {
        Error::mismatch(format!(
            "plugin `{}` calls itself deterministic and made other bytes for `{}` at a second reading",
            self.plugin, self.port
        ))
        .with_hint(THEIRS)
    }
}
