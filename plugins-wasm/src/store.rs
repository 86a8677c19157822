//! What surrounds one instance: an empty world, its limits, and the functions of the host.
//!
//! Invariant: without rights a guest sees the same time and the same randomness at every run of the same step, and nothing
//! of the machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ocm_content::limits::TransferSlots;
use ocm_content::{ByteStream, Error, ErrorKind, Limits};
use ocm_specs::Digest;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView,
    WasiView,
};

use crate::activity::{Activity, FETCH};
use crate::bindings::ocm::transformer::types::{self, ContentInfo, StepError};
use crate::bindings::ocm::transformer::{fetch as wit_fetch, host as wit_host};
use crate::fetch::{Bodies, Exchange, Http};
use crate::host::Host;
use crate::input::Input;
use crate::limits::{LOG_LINE, PARTS, PluginLimits, Share, TABLE_ELEMENT, TAIL, cut};
use crate::pipe::Reading;
use crate::rights::Granted;
use crate::stored::Stored;

/// Where log lines of a guest go besides the program's log: warnings of its step.
pub(crate) type Warn = Arc<dyn Fn(String) + Send + Sync>;

/// What a call may do and who it is.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) plugin: Arc<str>,
    /// The step's id; empty when the plugin is only asked.
    pub(crate) step: Arc<str>,
    pub(crate) limits: PluginLimits,
    pub(crate) granted: Granted,
    pub(crate) http: Option<Arc<dyn Http>>,
    /// What clock and randomness follow from where they are not granted.
    pub(crate) seed: Digest,
    /// The run's limits while `run` decides: for spools and for reading. `None` in other calls.
    pub(crate) run: Option<Arc<Limits>>,
    pub(crate) warn: Option<Warn>,
}

/// The state of one instance.
pub(crate) struct Ctx {
    wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) setting: Setting,
    pub(crate) activity: Arc<Activity>,
    pub(crate) share: Share,
    /// The limit that was exceeded, in words: what the trap then says is of no use.
    pub(crate) exceeded: Option<String>,
    /// What it may not do, however much it is given.
    pub(crate) forbidden: Option<String>,
    pub(crate) tail: Arc<Mutex<Tail>>,
    logged: u64,
    /// Held by every stream that is open.
    open: Arc<()>,
    /// Streams that were opened.
    opened: u64,
    /// What bodies of requests take.
    bodies: Bodies,
    /// Slots for reading inputs in `run`; in `produce` the reader of the output has them.
    slots: Option<TransferSlots>,
}

/// A fresh store for one call.
pub(crate) fn store(host: &Host, setting: Setting) -> wasmtime::Result<Store<Ctx>> {
    let tail: Arc<Mutex<Tail>> = Arc::default();
    let mut table = ResourceTable::new();
    table.set_max_capacity(setting.limits.handles);
    let per_call = setting.limits.per_call;
    let ctx = Ctx {
        wasi: world(&setting, &tail),
        table,
        activity: Arc::default(),
        share: Share::new(host.usage()),
        exceeded: None,
        forbidden: None,
        tail,
        logged: 0,
        open: Arc::default(),
        opened: 0,
        bodies: Bodies::default(),
        slots: None,
        setting,
    };
    let mut store = Store::new(host.engine()?, ctx);
    store.limiter(|ctx| ctx);
    store.set_hostcall_fuel(per_call);
    // The deadline of a new store has passed already, and start functions run at instantiation.
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    Ok(store)
}

fn world(setting: &Setting, tail: &Arc<Mutex<Tail>>) -> WasiCtx {
    let mut builder = WasiCtxBuilder::new();
    builder
        .stdout(Kept(tail.clone()))
        .stderr(Kept(tail.clone()))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    if !setting.granted.clock() {
        builder
            .wall_clock(FixedClock)
            .monotonic_clock(CountingClock::default());
    }
    if !setting.granted.random() {
        let (number, derived) = seeded(&setting.seed);
        builder
            .secure_random(Deterministic::new(derived.clone()))
            .insecure_random(Deterministic::new(derived))
            .insecure_random_seed(number);
    }
    builder.build()
}

/// A number and bytes that follow from a digest: the same at every run, of no use as secrets. Made for every call, so by
/// splitmix64, which takes a microsecond, not by hashing.
fn seeded(seed: &Digest) -> (u128, Vec<u8>) {
    /// How many bytes there are before they begin again.
    const BYTES: usize = 4 << 10;
    let mut state = u64::from_str_radix(&seed.hex()[..16], 16).unwrap_or_default();
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let number = (u128::from(next()) << 64) | u128::from(next());
    let bytes = (0..BYTES / 8).flat_map(|_| next().to_le_bytes()).collect();
    (number, bytes)
}

/// 1980-01-01: the first day that zip files can name.
struct FixedClock;

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(315_532_800)
    }
}

/// A microsecond later at every look.
#[derive(Default)]
struct CountingClock(AtomicU64);

impl HostMonotonicClock for CountingClock {
    fn resolution(&self) -> u64 {
        1000
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(1000, Ordering::Relaxed)
    }
}

/// The last bytes of standard output and error: what a crash is explained with.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    last: Vec<u8>,
    /// Bytes that were written in all.
    pub(crate) written: u64,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        let start = bytes.len().saturating_sub(TAIL);
        self.last.extend_from_slice(&bytes[start..]);
        let excess = self.last.len().saturating_sub(TAIL);
        self.last.drain(..excess);
    }

    /// The last lines, on one line.
    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.last);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let last = &lines[lines.len().saturating_sub(3)..];
        last.join("; ")
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

#[derive(Clone)]
struct Kept(Arc<Mutex<Tail>>);

impl IsTerminal for Kept {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Kept {
    // Only WASI 0.3 asks for this one.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for Kept {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for Kept {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(TAIL)
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl ResourceLimiter for Ctx {
    // An error rather than a refusal: a guest that is refused memory aborts, and nobody knows why.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.take(desired.saturating_sub(current))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.setting.limits.table;
        if desired > limit {
            return Err(self.exceed(format!("limit of {limit} table elements")));
        }
        let more = desired.saturating_sub(current);
        self.take(more.saturating_mul(TABLE_ELEMENT))
    }

    fn instances(&self) -> usize {
        PARTS.0
    }

    fn memories(&self) -> usize {
        PARTS.1
    }

    fn tables(&self) -> usize {
        PARTS.2
    }
}

impl Ctx {
    fn exceed(&mut self, what: String) -> wasmtime::Error {
        let error = wasmtime::Error::msg(what.clone());
        self.exceeded = Some(what);
        error
    }

    /// Takes memory for the instance.
    fn take(&mut self, bytes: usize) -> wasmtime::Result<bool> {
        let limit = self.setting.limits.memory;
        if self.share.memory.saturating_add(bytes) > limit {
            return Err(self.exceed(format!("memory limit of {} MiB", limit >> 20)));
        }
        self.share.grow(bytes);
        Ok(true)
    }

    /// Lets one more stream be opened.
    fn may_open(&mut self) -> wasmtime::Result<()> {
        let PluginLimits { streams, opens, .. } = self.setting.limits;
        self.opened += 1;
        if self.opened > opens {
            return Err(self.contract(format!("it opened more than {opens} streams in one call")));
        }
        // One is the store's own.
        if Arc::strong_count(&self.open) > streams {
            return Err(self.contract(format!("it held more than {streams} open streams at once")));
        }
        Ok(())
    }

    /// A limit that no option raises.
    fn contract(&mut self, what: String) -> wasmtime::Error {
        let error = wasmtime::Error::msg(what.clone());
        self.forbidden = Some(what);
        error
    }

    /// Starts reading an input. From the start everything is verified; who starts elsewhere gets what the source gives.
    async fn open_input(&mut self, input: &Input, offset: u64) -> Result<ByteStream, Error> {
        if let (Some(run), None) = (&self.setting.run, &self.slots) {
            self.slots = Some(input.inputs.prepare(run).await?);
        }
        match offset {
            0 => input.blob()?.open().await,
            offset => input.blob()?.open_at(offset).await,
        }
    }

    fn pass_on(&self, level: wit_host::Level, message: &str) {
        let (plugin, step) = (&*self.setting.plugin, &*self.setting.step);
        match level {
            wit_host::Level::Trace => tracing::trace!(plugin, step, "{message}"),
            wit_host::Level::Debug => tracing::debug!(plugin, step, "{message}"),
            wit_host::Level::Info => tracing::info!(plugin, step, "{message}"),
            wit_host::Level::Warn | wit_host::Level::Error => match &self.setting.warn {
                Some(warn) => warn(format!("plugin {plugin}: {message}")),
                None => tracing::warn!(plugin, step, "{message}"),
            },
        }
    }
}

/// One line without what could move a cursor.
fn one_line(message: String) -> String {
    cut(message, LOG_LINE)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

impl types::Host for Ctx {}

impl wit_host::Host for Ctx {
    async fn log(&mut self, level: wit_host::Level, message: String) -> wasmtime::Result<()> {
        self.logged += 1;
        let limit = self.setting.limits.log_lines;
        if self.logged <= limit {
            self.pass_on(level, &one_line(message));
        } else if self.logged == limit + 1 {
            self.pass_on(
                wit_host::Level::Warn,
                &format!("more than {limit} log lines: further ones are dropped"),
            );
        }
        Ok(())
    }

    async fn progress(
        &mut self,
        message: String,
        done: u64,
        total: Option<u64>,
    ) -> wasmtime::Result<()> {
        self.activity.told(done);
        let (plugin, step, message) = (
            &*self.setting.plugin,
            &*self.setting.step,
            one_line(message),
        );
        tracing::debug!(plugin, step, done, total, "{message}");
        Ok(())
    }
}

impl wit_host::HostInput for Ctx {
    async fn info(&mut self, this: Resource<Input>) -> wasmtime::Result<ContentInfo> {
        Ok(self.table.get(&this)?.info()?)
    }

    async fn open(
        &mut self,
        this: Resource<Input>,
        offset: u64,
    ) -> wasmtime::Result<Result<Resource<DynInputStream>, StepError>> {
        self.may_open()?;
        let input = self.table.get(&this)?.clone();
        let waiting = self.activity.wait();
        let opened = self.open_input(&input, offset).await;
        drop(waiting);
        let port = input.port;
        let stream = match opened {
            Ok(stream) => stream,
            Err(error) => {
                self.activity.failed(&port, &error);
                return Ok(Err(step_error(
                    types::ErrorKind::ContentIo,
                    &error,
                    Some(port),
                )));
            }
        };
        let window = self.setting.limits.window;
        let (activity, open) = (self.activity.clone(), self.open.clone());
        let reading: DynInputStream = Box::new(Reading::new(&port, stream, window, activity, open));
        Ok(Ok(self.table.push(reading)?))
    }

    async fn drop(&mut self, this: Resource<Input>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit_host::HostStored for Ctx {
    async fn new(&mut self, media_type: String) -> wasmtime::Result<Resource<Stored>> {
        let Some(run) = &self.setting.run else {
            return Err(wasmtime::Error::msg("content can be stored in `run` only"));
        };
        let stored = Stored::new(cut(media_type, 255), run);
        Ok(self.table.push(stored)?)
    }

    async fn sink(
        &mut self,
        this: Resource<Stored>,
    ) -> wasmtime::Result<Result<Resource<DynOutputStream>, StepError>> {
        let PluginLimits { window, output, .. } = self.setting.limits;
        let sink = self
            .table
            .get(&this)?
            .sink(window, output, self.activity.clone());
        let Some(sink) = sink else {
            let error = Error::internal("the sink of a stored content is there once");
            return Ok(Err(step_error(types::ErrorKind::Internal, &error, None)));
        };
        let sink: DynOutputStream = Box::new(sink);
        Ok(Ok(self.table.push(sink)?))
    }

    async fn drop(&mut self, this: Resource<Stored>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl wit_fetch::Host for Ctx {}

impl wit_fetch::HostExchange for Ctx {
    async fn new(&mut self, request: wit_fetch::Request) -> wasmtime::Result<Resource<Exchange>> {
        let Setting {
            plugin, granted, ..
        } = &self.setting;
        let exchange = Exchange::new(request, plugin, granted, &self.bodies);
        Ok(self.table.push(exchange)?)
    }

    async fn body(
        &mut self,
        this: Resource<Exchange>,
    ) -> wasmtime::Result<Result<Resource<DynOutputStream>, StepError>> {
        match self.table.get_mut(&this)?.body() {
            Ok(sink) => {
                let sink: DynOutputStream = Box::new(sink);
                Ok(Ok(self.table.push(sink)?))
            }
            Err(error) => Ok(Err(step_error(kind_of(&error), &error, None))),
        }
    }

    async fn response(
        &mut self,
        this: Resource<Exchange>,
    ) -> wasmtime::Result<Result<wit_fetch::Response, StepError>> {
        self.may_open()?;
        let request = self.table.get_mut(&this)?.take();
        let Setting {
            plugin,
            granted,
            http,
            ..
        } = self.setting.clone();
        let waiting = self.activity.wait();
        let answered = match request {
            Ok(request) => crate::fetch::exchange(&plugin, &granted, http.as_ref(), request).await,
            Err(error) => Err(error),
        };
        drop(waiting);
        let response = match answered {
            Ok(response) => response,
            Err(error) => {
                self.activity.failed(FETCH, &error);
                return Ok(Err(step_error(kind_of(&error), &error, None)));
            }
        };
        let window = self.setting.limits.window;
        let body: DynInputStream = Box::new(Reading::new(
            FETCH,
            response.body,
            window,
            self.activity.clone(),
            self.open.clone(),
        ));
        Ok(Ok(wit_fetch::Response {
            status: response.status,
            headers: response.headers,
            body: self.table.push(body)?,
        }))
    }

    async fn drop(&mut self, this: Resource<Exchange>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

fn kind_of(error: &Error) -> types::ErrorKind {
    match error.kind() {
        ErrorKind::Denied => types::ErrorKind::Denied,
        ErrorKind::Invalid => types::ErrorKind::Internal,
        _ => types::ErrorKind::Unavailable,
    }
}

fn step_error(kind: types::ErrorKind, error: &Error, port: Option<String>) -> StepError {
    StepError {
        kind,
        message: error.to_string(),
        field: None,
        port,
        offset: None,
        hint: error.hint().map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tables_count_as_memory() {
        let host = Host::new(crate::host::HostConfig::default());
        let setting = || Setting {
            plugin: "p".into(),
            step: "s".into(),
            limits: PluginLimits {
                memory: 1 << 20,
                ..PluginLimits::default()
            },
            granted: Granted::default(),
            http: None,
            seed: Digest::sha256(b""),
            run: None,
            warn: None,
        };
        let mut one = store(&host, setting()).unwrap();
        let error = one.data_mut().table_growing(0, 100_001, None).unwrap_err();
        assert_eq!(error.to_string(), "limit of 100000 table elements");
        // Each within its limit, together more than there is.
        let mut many = store(&host, setting()).unwrap();
        let ctx = many.data_mut();
        assert!(ctx.table_growing(0, 40_000, None).unwrap());
        assert_eq!(ctx.share.memory, 640_000);
        let error = ctx.table_growing(0, 40_000, None).unwrap_err();
        assert_eq!(error.to_string(), "memory limit of 1 MiB");
        assert!(ctx.memory_growing(0, 500_000, None).is_err());
        assert_eq!((ctx.instances(), ctx.memories(), ctx.tables()), PARTS);
        drop((one, many));
        assert_eq!(host.usage().memory(), 0);
    }

    #[test]
    fn seeded_randomness_follows_from_the_seed() {
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        assert_eq!(seeded(&one), seeded(&one));
        assert_ne!(seeded(&one).0, seeded(&two).0);
        let (_, bytes) = seeded(&one);
        assert_eq!(bytes.len(), 4 << 10);
        // All 256 values, none of them often.
        let mut counts = [0; 256];
        bytes
            .iter()
            .for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(
            counts.iter().all(|count| (1..50).contains(count)),
            "{counts:?}"
        );
    }
}
