//! The engine below all plugins: compiles components, asks them what they are, calls them.
//!
//! Invariant: before any code of a plugin runs, its bytes have the digest they are pinned to, and it imports nothing but
//! what is offered here. Every call runs in a fresh instance and ends: by itself, by a limit, or with who called.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use ocm_content::Error;
#[cfg(doc)]
use ocm_content::ErrorKind;
use ocm_specs::Digest;
use wasmtime::component::{Component, HasSelf, Linker, Resource, ResourceTableError};
use wasmtime::{Config, Engine, Store, Trap};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::DynOutputStream;

use crate::activity::Ended;
use crate::bindings::TransformerHttpPre;
use crate::bindings::exports::ocm::transformer::transform as wit;
use crate::bindings::ocm::transformer::{fetch, host, types};
use crate::cache::{Cache, Known};
use crate::description::Description;
use crate::fetch::Http;
use crate::limits::{PluginLimits, Usage};
use crate::results::Results;
use crate::rights::{Capability, Granted};
use crate::store::{Ctx, Setting, store};
use crate::watch::Watch;

/// Largest component, in bytes.
pub const COMPONENT_LIMIT: u64 = 64 << 20;
/// How often a computing guest yields.
const TICK: Duration = Duration::from_millis(10);
/// The contract that this host serves.
const CONTRACT: &str = "ocm:transformer";
const SERVED: &str = "0.1";

/// What a host is made of.
#[derive(Clone, Default)]
pub struct HostConfig {
    /// Where components and code are kept; nothing is without.
    pub cache: Option<Cache>,
    /// Limits of every call.
    pub limits: PluginLimits,
    /// How granted requests are made; without it they are refused.
    pub http: Option<Arc<dyn Http>>,
    /// Where results of steps are kept; without it every step is run.
    pub results: Option<Arc<Results>>,
}

/// The engine below the plugins of a program. Compiles nothing until a plugin has to be asked or run.
pub struct Host {
    config: HostConfig,
    usage: Arc<Usage>,
    runtime: OnceLock<Runtime>,
    /// Who looks at every call, if anybody does.
    watch: Option<Arc<Watch>>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("limits", &self.config.limits)
            .finish_non_exhaustive()
    }
}

struct Runtime {
    engine: Engine,
    linker: Linker<Ctx>,
    _ticker: Ticker,
}

impl Runtime {
    fn new() -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .epoch_interruption(true)
            .concurrency_support(false)
            .max_wasm_stack(512 << 10)
            .async_stack_size(1 << 20);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        types::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
        host::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
        fetch::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
        Ok(Self {
            _ticker: Ticker::start(&engine),
            engine,
            linker,
        })
    }
}

/// Lets computing guests yield. Ends with the host.
struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &Engine) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, engine) = (stop.clone(), engine.clone());
        let thread = std::thread::Builder::new()
            .name("wasm-epochs".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    engine.increment_epoch();
                    std::thread::park_timeout(TICK);
                }
            });
        Self {
            stop,
            thread: thread.ok(),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It can't have panicked: it only counts.
            let _ = thread.join();
        }
    }
}

/// A plugin's code, ready to make instances.
#[derive(Clone)]
pub(crate) struct Loaded(TransformerHttpPre<Ctx>);

/// A component whose bytes have the digest it is known by, and what it says of itself.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Bytes,
    /// What it says.
    pub description: Arc<Description>,
}

/// A call into a guest.
pub(crate) enum Ask {
    Describe,
    Validate {
        step_type: String,
        spec: String,
        config: String,
    },
    Run(wit::Step),
    Produce {
        step: wit::Step,
        port: String,
        state: Vec<u8>,
        sink: Resource<DynOutputStream>,
    },
}

/// What it came to.
pub(crate) enum Answer {
    Described(wit::Plugin),
    Validated(Vec<types::StepError>),
    Ran(Result<wit::Outcome, types::StepError>),
    Produced(Result<(), types::StepError>),
}

impl Host {
    /// A host; nothing is compiled or started yet.
    pub fn new(config: HostConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            usage: Arc::default(),
            runtime: OnceLock::new(),
            watch: None,
        })
    }

    /// A host whose calls are told to `watch`.
    pub(crate) fn watched(config: HostConfig, watch: &Arc<Watch>) -> Arc<Self> {
        Arc::new(Self {
            config,
            usage: Arc::default(),
            runtime: OnceLock::new(),
            watch: Some(watch.clone()),
        })
    }

    pub(crate) fn watch(&self) -> Option<&Arc<Watch>> {
        self.watch.as_ref()
    }

    /// What all calls use now.
    pub fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Limits of every call.
    pub fn limits(&self) -> &PluginLimits {
        &self.config.limits
    }

    /// Where components and code are kept.
    pub fn cache(&self) -> Option<&Cache> {
        self.config.cache.as_ref()
    }

    /// Where results of steps are kept.
    pub fn results(&self) -> Option<&Arc<Results>> {
        self.config.results.as_ref()
    }

    pub(crate) fn http(&self) -> Option<Arc<dyn Http>> {
        self.config.http.clone()
    }

    fn runtime(&self) -> wasmtime::Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = Runtime::new()?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    pub(crate) fn engine(&self) -> wasmtime::Result<&Engine> {
        Ok(&self.runtime()?.engine)
    }

    /// Asks a component what it is. It has no right while it is asked; the answer is kept under its digest.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when the bytes do not have the digest `pinned`, [`ErrorKind::Invalid`] for what is no plugin
    /// or says nonsense, [`ErrorKind::Limit`] when it takes too much to answer.
    pub async fn inspect(
        self: &Arc<Self>,
        bytes: Bytes,
        pinned: Option<&Digest>,
    ) -> Result<Inspected, Error> {
        let digest = match pinned {
            Some(pinned) => Digest::of(pinned.algorithm(), &bytes),
            None => Digest::sha256(&bytes),
        };
        if let Some(pinned) = pinned.filter(|pinned| **pinned != digest) {
            return Err(Error::mismatch(format!(
                "the component has digest {digest}, it is pinned to {pinned}"
            ))
            .with_hint("somebody replaced it: do not run it before you know who and why; then pin the new digest"));
        }
        check_form(&bytes)?;
        let known = self
            .config
            .cache
            .as_ref()
            .and_then(|cache| cache.known(&digest));
        let known = match known {
            Some(known) => known,
            None => self.ask(&bytes, &digest).await?,
        };
        check_rights(&known.description, known.fetches)?;
        Ok(Inspected {
            digest,
            bytes,
            description: Arc::new(known.description),
        })
    }

    async fn ask(self: &Arc<Self>, bytes: &Bytes, digest: &Digest) -> Result<Known, Error> {
        let (loaded, component) = self.compile(bytes.clone()).await?;
        let engine = self.engine().map_err(|error| unusable(&error))?;
        let fetches = fetches(engine, &component);
        let plugin = self.describe(&loaded, Granted::default(), b"").await?;
        let known = Known {
            description: self.judge(plugin).await?,
            fetches,
        };
        if let Some(cache) = &self.config.cache {
            // A cache that can't be written costs time and nothing else.
            let kept = cache
                .keep(digest, bytes, &known)
                .and_then(|()| cache.keep_code(engine, digest, &component));
            if let Err(error) = kept {
                tracing::warn!("plugin `{}` is not kept: {error}", known.description.name);
            }
        }
        Ok(known)
    }

    /// Judges what a plugin said. Its schemas are bounded, and so is the time for them; the thread goes on to the end of it.
    async fn judge(&self, plugin: wit::Plugin) -> Result<Description, Error> {
        let limit = self.config.limits.ask;
        let judged = tokio::task::spawn_blocking(move || Description::check(plugin));
        match tokio::time::timeout(limit, judged).await {
            Ok(judged) => {
                judged.map_err(|error| Error::internal(format!("judge a description: {error}")))?
            }
            Err(_) => Err(Error::limit(format!(
                "its schemas take longer than {} s to be made ready",
                limit.as_secs_f64()
            ))
            .with_hint(THEIRS)),
        }
    }

    /// Does a plugin ask for the rights that its code needs?
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it does not.
    pub(crate) fn check_needs(
        &self,
        description: &Description,
        loaded: &Loaded,
    ) -> Result<(), Error> {
        let engine = self.engine().map_err(|error| unusable(&error))?;
        let component = loaded.0.instance_pre().component();
        check_rights(description, fetches(engine, component))
    }

    /// What the component says of itself. It has no right when it counts; clock and randomness follow from `seed`.
    pub(crate) async fn describe(
        self: &Arc<Self>,
        loaded: &Loaded,
        granted: Granted,
        seed: &[u8],
    ) -> Result<wit::Plugin, Error> {
        let limits = &self.config.limits;
        let setting = Setting {
            plugin: "?".into(),
            step: "".into(),
            limits: PluginLimits {
                memory: limits.ask_memory,
                stall: limits.ask,
                ..limits.clone()
            },
            granted,
            http: None,
            seed: Digest::sha256(seed),
            run: None,
            warn: None,
        };
        let store = store(self, setting).map_err(|error| unusable(&error))?;
        let (answer, _) = self
            .call_within(limits.ask, loaded, store, Ask::Describe)
            .await;
        match answer.map_err(|error| error.context("asked for its description"))? {
            Answer::Described(plugin) => Ok(plugin),
            _ => Err(Error::internal("a plugin answered another question")),
        }
    }

    /// The code of a component that was inspected.
    pub(crate) async fn load(
        self: &Arc<Self>,
        digest: &Digest,
        bytes: &Bytes,
    ) -> Result<Loaded, Error> {
        let runtime = self.runtime().map_err(|error| unusable(&error))?;
        let cached = self
            .config
            .cache
            .as_ref()
            .and_then(|cache| cache.code(&runtime.engine, digest));
        if let Some(component) = cached {
            return link(&runtime.linker, &component);
        }
        let (loaded, component) = self.compile(bytes.clone()).await?;
        if let Some(cache) = &self.config.cache
            && let Err(error) = cache.keep_code(&runtime.engine, digest, &component)
        {
            tracing::warn!("precompiled code is not kept: {error}");
        }
        Ok(loaded)
    }

    /// Compiles in the pool for blocking work. Who drops this gets no component; the thread goes on to the end of it.
    async fn compile(self: &Arc<Self>, bytes: Bytes) -> Result<(Loaded, Component), Error> {
        let host = self.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            let runtime = host.runtime().map_err(|error| unusable(&error))?;
            let component = Component::new(&runtime.engine, &bytes).map_err(|error| {
                let why = crate::limits::cut(error.root_cause().to_string(), 300);
                Error::invalid(format!("this is not a component that can be run: {why}"))
            })?;
            check_interface(&runtime.engine, &component)?;
            let loaded = link(&runtime.linker, &component)?;
            Ok((loaded, component))
        });
        let limit = self.config.limits.compile;
        match tokio::time::timeout(limit, compiled).await {
            Ok(compiled) => {
                compiled.map_err(|error| Error::internal(format!("compile a plugin: {error}")))?
            }
            Err(_) => Err(Error::limit(format!(
                "it takes longer than {} s to compile",
                limit.as_secs_f64()
            ))
            .with_hint("build it smaller: with optimization, without debug information")),
        }
    }

    /// Calls a guest; gives the store back for what its answer refers to.
    pub(crate) async fn call(
        &self,
        loaded: &Loaded,
        mut store: Store<Ctx>,
        ask: Ask,
    ) -> (Result<Answer, Error>, Store<Ctx>) {
        let (activity, limits) = (
            store.data().activity.clone(),
            store.data().setting.limits.clone(),
        );
        let called = activity
            .watch(limits.stall, limits.time, enter(loaded, &mut store, ask))
            .await;
        let answer = match called {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(explain(store.data(), &error)),
            Err(Ended::Stalled) => Err(stalled(store.data(), limits.stall)),
            Err(Ended::Overtime) => Err(overtime(store.data(), limits.time)),
        };
        if let Some(watch) = &self.watch {
            watch.saw(&answer, store.data());
        }
        (answer, store)
    }

    /// The same, for at most that long however busy the guest looks.
    pub(crate) async fn call_within(
        &self,
        limit: Duration,
        loaded: &Loaded,
        store: Store<Ctx>,
        ask: Ask,
    ) -> (Result<Answer, Error>, Option<Store<Ctx>>) {
        let plugin = store.data().setting.plugin.clone();
        match tokio::time::timeout(limit, self.call(loaded, store, ask)).await {
            Ok((answer, store)) => (answer, Some(store)),
            Err(_) => {
                let message = format!(
                    "{} took longer than {} s to answer",
                    called(&plugin),
                    limit.as_secs_f64()
                );
                (Err(Error::limit(message).with_hint(THEIRS)), None)
            }
        }
    }
}

async fn enter(loaded: &Loaded, store: &mut Store<Ctx>, ask: Ask) -> wasmtime::Result<Answer> {
    let guest = loaded.0.instantiate_async(&mut *store).await?;
    let transform = guest.ocm_transformer_transform();
    Ok(match ask {
        Ask::Describe => Answer::Described(transform.call_describe(store).await?),
        Ask::Validate {
            step_type,
            spec,
            config,
        } => Answer::Validated(
            transform
                .call_validate(store, &step_type, &spec, &config)
                .await?,
        ),
        Ask::Run(step) => Answer::Ran(transform.call_run(store, &step).await?),
        Ask::Produce {
            step,
            port,
            state,
            sink,
        } => Answer::Produced(
            transform
                .call_produce(store, &step, &port, &state, sink)
                .await?,
        ),
    })
}

fn fetches(engine: &Engine, component: &Component) -> bool {
    let ty = component.component_type();
    let mut imports = ty.imports(engine);
    imports.any(|(name, _)| name.starts_with(&format!("{CONTRACT}/fetch")))
}

fn check_rights(description: &Description, fetches: bool) -> Result<(), Error> {
    if fetches && !description.asks_for(Capability::Http) {
        return Err(Error::invalid(format!(
            "plugin `{}` imports `{CONTRACT}/fetch` and does not ask for the right `http`",
            description.name
        )));
    }
    Ok(())
}

/// What these bytes are, before anybody parses them.
pub(crate) fn check_form(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() as u64 > COMPONENT_LIMIT {
        return Err(Error::limit(format!(
            "the component has {} bytes, at most {COMPONENT_LIMIT} are taken",
            bytes.len()
        )));
    }
    let hint = "build it for `wasm32-wasip2`, or wrap it with `wasm-tools component new`";
    match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            Err(Error::invalid("this is a core module, not a component").with_hint(hint))
        }
        [0, b'a', b's', b'm', ..] => {
            Err(Error::invalid("this is WebAssembly of an unknown version").with_hint(hint))
        }
        [0x7f, b'E', b'L', b'F', ..] => Err(Error::invalid(
            "this is native or precompiled code, which is never taken from outside",
        )
        .with_hint("use the component that it was compiled from")),
        [b'(', ..] => {
            Err(Error::invalid("this is WebAssembly text, not a component").with_hint(hint))
        }
        _ => Err(Error::invalid("this is not WebAssembly").with_hint(hint)),
    }
}

/// Judges what a component imports and exports.
fn check_interface(engine: &Engine, component: &Component) -> Result<(), Error> {
    let ty = component.component_type();
    let offered = |interface: &str| ["types", "host", "fetch"].contains(&interface);
    for (name, _) in ty.imports(engine) {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        match interface.split_once('/') {
            Some((CONTRACT, part)) if offered(part) => check_version(version)?,
            Some((package, _)) if package.starts_with("wasi:") && version.starts_with("0.2.") => {}
            _ => {
                let shown = crate::limits::cut(name.to_owned(), 120);
                return Err(Error::invalid(format!(
                    "it imports `{}`, which is not offered to plugins",
                    shown.escape_debug()
                )));
            }
        }
    }
    let export = format!("{CONTRACT}/transform@");
    let versions: Vec<&str> = ty
        .exports(engine)
        .filter_map(|(name, _)| name.strip_prefix(&*export))
        .collect();
    match versions.as_slice() {
        [] => Err(Error::invalid(format!(
            "it is no plugin: it does not export `{CONTRACT}/transform`"
        ))),
        versions => versions
            .iter()
            .map(|version| check_version(version))
            .find(Result::is_ok)
            .unwrap_or_else(|| check_version(versions[0])),
    }
}

fn check_version(version: &str) -> Result<(), Error> {
    let track: Vec<&str> = version.splitn(3, '.').take(2).collect();
    if track.join(".") == SERVED {
        return Ok(());
    }
    let shown = crate::limits::cut(version.to_owned(), 40);
    Err(Error::unsupported(format!(
        "it was built for {CONTRACT} {}, this ocm knows {SERVED}",
        shown.escape_debug()
    ))
    .with_hint("use a version of the plugin for this ocm, or another ocm"))
}

fn link(linker: &Linker<Ctx>, component: &Component) -> Result<Loaded, Error> {
    let pre = linker
        .instantiate_pre(component)
        .and_then(TransformerHttpPre::new);
    pre.map(Loaded).map_err(|error| {
        let why = crate::limits::cut(error.root_cause().to_string(), 300);
        Error::invalid(format!(
            "it does not fit the contract {CONTRACT} {SERVED}: {why}"
        ))
    })
}

/// Whose fault it is: hints go by it.
pub(crate) const THEIRS: &str = "this is a fault of the plugin, not of ocm: tell its author";

pub(crate) fn unusable(error: &wasmtime::Error) -> Error {
    Error::internal(format!("the WebAssembly engine: {error:#}"))
}

fn called(plugin: &str) -> String {
    match plugin {
        "?" => "the plugin".to_owned(),
        name => format!("plugin `{name}`"),
    }
}

fn stalled(ctx: &Ctx, limit: Duration) -> Error {
    let plugin = called(&ctx.setting.plugin);
    let seconds = limit.as_secs_f64();
    Error::limit(format!(
        "{plugin} stalled: no byte moved in {seconds} s, and it was not waiting for any"
    ))
    .with_hint("if its work takes that long, raise --plugin-stall")
}

fn overtime(ctx: &Ctx, limit: Duration) -> Error {
    let plugin = called(&ctx.setting.plugin);
    let seconds = limit.as_secs_f64();
    Error::limit(format!(
        "{plugin} took more than {seconds} s for one call, without the time that it waited for bytes"
    ))
    .with_hint("if its work takes that long, raise --plugin-timeout")
}

/// Why a call ended that did not end by itself.
fn explain(ctx: &Ctx, error: &wasmtime::Error) -> Error {
    let plugin = called(&ctx.setting.plugin);
    let limits = &ctx.setting.limits;
    if let Some(what) = &ctx.exceeded {
        return Error::limit(format!("{plugin} exceeded the {what}"))
            .with_hint("if it needs that much, raise --plugin-memory");
    }
    if let Some(what) = &ctx.forbidden {
        return Error::limit(format!("{plugin} broke the contract: {what}")).with_hint(THEIRS);
    }
    let root = error.root_cause().to_string();
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full))
        || root.contains("no free keys")
    {
        return Error::limit(format!(
            "{plugin} exceeded the limit of {} handles",
            limits.handles
        ))
        .with_hint(THEIRS);
    }
    if root.contains("fuel allocated for hostcalls") {
        let message = format!(
            "{plugin} exceeded the limit of {} KiB of data in one call",
            limits.per_call >> 10
        );
        return Error::limit(message).with_hint(THEIRS);
    }
    if error.downcast_ref::<I32Exit>().is_some() {
        return Error::internal(format!("{plugin} called exit")).with_hint(THEIRS);
    }
    let why = match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) => {
            let tail = ctx
                .tail
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .text();
            if tail.is_empty() {
                "it gave up".to_owned()
            } else {
                tail
            }
        }
        Some(Trap::MemoryOutOfBounds | Trap::StackOverflow) => {
            "out-of-bounds memory access (often a stack overflow)".to_owned()
        }
        Some(trap) => trap.to_string(),
        None => {
            let why = crate::limits::cut(root, 300);
            return Error::internal(format!("{plugin} broke the contract: {why}"))
                .with_hint(THEIRS);
        }
    };
    Error::internal(format!("{plugin} crashed: {why}")).with_hint(THEIRS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_imports_fetch_has_to_ask_for_it() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prebuilt/probe.wasm");
        let host = Host::new(HostConfig::default());
        let bytes = std::fs::read(path).unwrap();
        let (loaded, _) = host.compile(bytes.into()).await.unwrap();
        let plugin = host
            .describe(&loaded, Granted::default(), b"")
            .await
            .unwrap();
        let mut description = Description::check(plugin).unwrap();
        host.check_needs(&description, &loaded).unwrap();
        description.needs.clear();
        let error = host.check_needs(&description, &loaded).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("does not ask for the right `http`"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_takes_too_long_to_make_ready_is_told() {
        let limits = PluginLimits {
            compile: Duration::ZERO,
            ..PluginLimits::default()
        };
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prebuilt/probe.wasm");
        let config = HostConfig {
            limits,
            ..HostConfig::default()
        };
        let host = Host::new(config);
        let error = host
            .compile(std::fs::read(path).unwrap().into())
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(error.to_string(), "it takes longer than 0 s to compile");
    }
}
