//! One execution of a plan: a loop that owns all state, and tasks that own only themselves.
//!
//! The loop starts ready steps up to the concurrency, evaluates their inputs, and takes results in. No locks around the
//! state, no rescans. A step's future is dropped when the run ends early.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ocm_content::{Error, ErrorKind, Meter};
use serde_json::Value as Json;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use crate::context::{ContentTable, Context, OnError, Shared, StepContext};
use crate::error::StepError;
use crate::event::{Event, Observer};
use crate::language::{Root, Scope, StepView};
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::step::{Outcome, Publish};
use crate::step_types::panicked;

/// Steps that may end at once before the loop looks at anything else.
const TURN: usize = 64;

/// How long the first poll of a step may take. Where it took longer, further steps of that type become tasks unpolled, so
/// that a type which computes before it waits holds up the loop once and not for every step.
const START_LIMIT: Duration = Duration::from_micros(200);

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The verdict.
    pub status: Status,
    /// Outputs of the steps that prepared, by id, in document order.
    pub outputs: Vec<(Arc<str>, Arc<Json>)>,
    /// Steps that failed, in the order they did.
    pub failures: Vec<(Arc<str>, StepError)>,
    /// Steps that were not run or not published, in document order.
    pub skipped: Vec<Arc<str>>,
}

/// The verdict on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every step ended well.
    Succeeded,
    /// Some steps failed; others ended well and what they publish is visible.
    Partial,
    /// A step failed and nothing that waited to be published is visible.
    Failed,
    /// The run was cancelled.
    Cancelled,
}

impl RunResult {
    fn gone() -> Self {
        Self {
            status: Status::Cancelled,
            outputs: Vec::new(),
            failures: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// The output of a step.
    pub fn output(&self, id: &str) -> Option<&Json> {
        self.outputs
            .iter()
            .find(|(step, _)| &**step == id)
            .map(|(_, output)| &**output)
    }
}

impl Plan {
    /// Runs the plan to its end and tells `observer` everything on the way.
    ///
    /// Cancelling (through [`Context::cancel`], or by dropping this future) drops all work in flight. The result carries
    /// failures; this never panics because of a step.
    pub async fn run(self, context: Context, observer: Observer) -> RunResult {
        // The loop is a task beside those of the steps: where it runs on a thread of theirs, a step that ends at once and
        // the loop that waits for it need not wake a thread for each other.
        let mut owner = JoinSet::new();
        owner.spawn(
            async move { Runner::new(&self, context, observer).run().await }.in_current_span(),
        );
        match owner.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going away, and everything in it.
            _ => RunResult::gone(),
        }
    }
}

enum Phase {
    Prepared(Result<Outcome<Json>, StepError>),
    Published(Result<(), StepError>),
}

struct Runner<'p> {
    plan: &'p Plan,
    schedule: Schedule,
    shared: Arc<Shared>,
    observer: Observer,
    steps: Vec<StepState>,
    running: JoinSet<(usize, Phase)>,
    /// Steps that ended at their first poll, in this turn of the loop.
    ended_here: usize,
    /// Prepared and free to publish, in the order they became so.
    publishable: std::collections::VecDeque<usize>,
    /// Prepared roots whose dependencies are settled, held until all steps have prepared.
    held: BTreeSet<usize>,
    /// Roots that have prepared and are not visible yet, by key.
    roots: BTreeMap<String, usize>,
    failed_roots: BTreeSet<String>,
    failures: Vec<(Arc<str>, StepError)>,
    skipped: BTreeSet<usize>,
    stopping: bool,
}

#[derive(Default)]
struct StepState {
    spec: Option<Arc<Json>>,
    output: Option<Arc<Json>>,
    publish: Option<Publish>,
    root: Option<String>,
    work: Option<Box<Work>>,
}

struct Work {
    started: Instant,
    meter: Arc<Meter>,
    warnings: Arc<Mutex<Vec<String>>>,
    announced: Arc<Mutex<Option<String>>>,
    told: u64,
}

struct RunScope<'a> {
    plan: &'a Plan,
    steps: &'a [StepState],
}

impl Scope for RunScope<'_> {
    fn root(&self, name: &str) -> Option<Root<'_>> {
        let Some(index) = self.plan.index_of(name) else {
            return (name == "environment").then(|| Root::Constants(self.plan.environment()));
        };
        let (planned, state) = (&self.plan.steps()[index], &self.steps[index]);
        Some(Root::Step(StepView {
            id: &planned.id,
            kind: &planned.bound.info().name,
            spec: state.spec.as_deref(),
            output: state.output.as_deref(),
        }))
    }
}

impl<'p> Runner<'p> {
    fn new(plan: &'p Plan, context: Context, observer: Observer) -> Self {
        let schedule = Schedule::new(plan.steps().len(), plan.edges());
        let steps = plan.steps().iter().map(|_| StepState::default()).collect();
        Self {
            plan,
            schedule,
            shared: Arc::new(Shared {
                context,
                contents: ContentTable::default(),
            }),
            observer,
            steps,
            running: JoinSet::new(),
            ended_here: 0,
            publishable: std::collections::VecDeque::new(),
            held: BTreeSet::new(),
            roots: BTreeMap::new(),
            failed_roots: BTreeSet::new(),
            failures: Vec::new(),
            skipped: BTreeSet::new(),
            stopping: false,
        }
    }

    async fn run(mut self) -> RunResult {
        let cancel = self.shared.context.cancel.clone();
        let period = self.shared.context.options.progress;
        let mut ticks = tokio::time::interval(period.unwrap_or(Duration::from_secs(3600)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.stopping {
                self.start_ready();
            }
            // Fair to others on this thread, and to those who cancel.
            let pause = std::mem::take(&mut self.ended_here) >= TURN;
            if self.running.is_empty() && !pause {
                break;
            }
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    // Dropping the set drops every step in flight at its await point.
                    self.running.shutdown().await;
                    return self.finish(Some(Status::Cancelled));
                }
                Some(joined) = self.running.join_next() => {
                    self.take_in(joined);
                    // What has ended meanwhile is taken in before anything starts: one turn for many small steps.
                    while let Some(joined) = self.running.try_join_next() {
                        self.take_in(joined);
                    }
                }
                _ = ticks.tick(), if period.is_some() => self.tell_progress(),
                () = tokio::task::yield_now(), if pause => {}
            }
        }
        let cancelled = cancel.is_cancelled().then_some(Status::Cancelled);
        self.finish(cancelled)
    }

    fn take_in(&mut self, joined: Result<(usize, Phase), JoinError>) {
        match joined {
            Ok((node, Phase::Prepared(result))) => self.on_prepared(node, result),
            Ok((node, Phase::Published(result))) => self.on_published(node, result),
            // Steps are caught where they panic; this is a task that the runtime ended.
            Err(error) => self.stop_for(&error.to_string()),
        }
    }

    fn start_ready(&mut self) {
        let concurrency = self.shared.context.options.concurrency.max(1);
        while self.running.len() < concurrency && !self.stopping && self.ended_here < TURN {
            if let Some(node) = self.publishable.pop_front() {
                self.start_publishing(node);
            } else if let Some(node) = self.schedule.start() {
                self.start_step(node);
            } else if !self.release_held() {
                break;
            }
        }
    }

    fn start_step(&mut self, node: usize) {
        let planned = &self.plan.steps()[node];
        (self.observer)(Event::Started {
            step: planned.id.clone(),
        });
        let meter = Meter::new();
        let (warnings, announced) = (Arc::default(), Arc::default());
        self.steps[node].work = Some(Box::new(Work {
            started: Instant::now(),
            meter: meter.clone(),
            warnings: Arc::clone(&warnings),
            announced: Arc::clone(&announced),
            told: 0,
        }));
        let spec = match self.evaluate(node) {
            Ok(spec) => Arc::new(spec),
            Err(error) => return self.on_failed(node, error),
        };
        self.steps[node].spec = Some(spec.clone());
        let cx = StepContext {
            id: planned.id.clone(),
            run: self.shared.clone(),
            meter: meter.clone(),
            readers: planned.readers.clone(),
            allowed: planned
                .guard
                .as_ref()
                .map(|guard| Arc::new(guard.allowed(&spec))),
            warnings,
            announced,
        };
        let future = planned.bound.step_type.run(cx, Json::clone(&spec));
        let span = tracing::info_span!(
            "step",
            id = &*planned.id,
            kind = &*planned.bound.info().name
        );
        let task = meter
            .scope(async move {
                let caught = std::panic::AssertUnwindSafe(future).catch_unwind().await;
                let result = caught.unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
                (node, Phase::Prepared(result))
            })
            .instrument(span);
        if planned.bound.starts_slowly.load(Ordering::Relaxed) {
            self.running.spawn(task);
        } else {
            self.start_here(node, Box::pin(task));
        }
    }

    /// Polls a step once before it becomes a task: many steps only hand out handles and end at once. Nobody needs to be
    /// woken here, since the task's first poll follows.
    fn start_here(&mut self, node: usize, mut task: BoxFuture<'static, (usize, Phase)>) {
        let polled = task
            .as_mut()
            .poll(&mut std::task::Context::from_waker(Waker::noop()));
        let started = self.steps[node].work.as_ref().map(|work| work.started);
        if started.is_some_and(|started| started.elapsed() > START_LIMIT) {
            let bound = &self.plan.steps()[node].bound;
            bound.starts_slowly.store(true, Ordering::Relaxed);
        }
        match polled {
            Poll::Ready(ended) => {
                self.ended_here += 1;
                self.take_in(Ok(ended));
            }
            Poll::Pending => {
                self.running.spawn(task);
            }
        }
    }

    fn evaluate(&self, node: usize) -> Result<Json, StepError> {
        let scope = RunScope {
            plan: self.plan,
            steps: &self.steps,
        };
        self.plan.evaluate(node, &scope)
    }

    fn start_publishing(&mut self, node: usize) {
        let Some(publish) = self.steps[node].publish.take() else {
            return self.settle(node);
        };
        let Some(work) = &self.steps[node].work else {
            return;
        };
        let planned = &self.plan.steps()[node];
        let span = tracing::info_span!(
            "publish",
            id = &*planned.id,
            kind = &*planned.bound.info().name
        );
        let meter = work.meter.clone();
        self.running.spawn(
            meter
                .scope(async move {
                    let action =
                        std::panic::AssertUnwindSafe(async move { (publish.action)().await });
                    let result = action
                        .catch_unwind()
                        .await
                        .unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
                    (node, Phase::Published(result))
                })
                .instrument(span),
        );
    }

    fn on_prepared(&mut self, node: usize, result: Result<Outcome<Json>, StepError>) {
        self.tell_warnings(node);
        let planned = &self.plan.steps()[node];
        let checked = result.and_then(|outcome| {
            planned
                .bound
                .check_output(&outcome.output)
                .map(|()| outcome)
        });
        let outcome = match checked {
            Ok(outcome) => outcome,
            Err(error) => return self.on_failed(node, error),
        };
        if self.schedule.is_doomed(node) {
            // Announced as skipped when the step it depends on failed.
            self.schedule.end(node);
            self.steps[node].work = None;
            let key = outcome.publish.and_then(|publish| publish.key);
            self.failed_roots.extend(key);
            return;
        }
        let id = planned.id.clone();
        self.steps[node].output = Some(Arc::new(outcome.output));
        if let Some(key) = outcome
            .publish
            .as_ref()
            .and_then(|publish| publish.key.clone())
        {
            self.roots.insert(key.clone(), node);
            self.steps[node].root = Some(key);
        }
        self.steps[node].publish = outcome.publish;
        (self.observer)(Event::Prepared { step: id });
        if self.schedule.prepared(node) {
            self.may_publish(node);
        }
    }

    /// All that the node depends on is settled: it publishes, waits as a root, or is settled itself.
    fn may_publish(&mut self, node: usize) {
        match &self.steps[node].publish {
            None => self.settle(node),
            Some(publish) if publish.key.is_some() && !self.schedule.has_order_dependents(node) => {
                self.held.insert(node);
            }
            Some(_) => self.publishable.push_back(node),
        }
    }

    /// When every step has prepared or failed, roots may publish: those first whose `after` names nothing that is still
    /// held. Returns whether anything was released.
    fn release_held(&mut self) -> bool {
        if self.held.is_empty() || self.schedule.unprepared() > 0 {
            return false;
        }
        if !self.failures.is_empty() && self.shared.context.options.on_error == OnError::Stop {
            return false;
        }
        let mut orphaned = false;
        // Again until there are none: who refers to an orphan is one, too.
        loop {
            let orphans = self.orphans();
            if orphans.is_empty() {
                break;
            }
            orphaned = true;
            for node in orphans {
                self.held.remove(&node);
                let error = Error::new(
                    ErrorKind::NotFound,
                    "what it refers to was not published in this run",
                );
                self.on_failed(node, error.into());
            }
        }
        let mut free: Vec<usize> = self
            .held
            .iter()
            .copied()
            .filter(|node| !self.waits_for_a_root(*node))
            .collect();
        if free.is_empty() && self.running.is_empty() && self.publishable.is_empty() {
            // The names form a circle, which no order satisfies: document order, then.
            free.extend(self.held.first());
        }
        for node in &free {
            self.held.remove(node);
        }
        self.publishable.extend(&free);
        !free.is_empty() || orphaned
    }

    fn after(&self, node: usize) -> &[String] {
        self.steps[node]
            .publish
            .as_ref()
            .map(|publish| publish.after.as_slice())
            .unwrap_or_default()
    }

    fn waits_for_a_root(&self, node: usize) -> bool {
        self.after(node)
            .iter()
            .any(|key| self.roots.get(key).is_some_and(|root| *root != node))
    }

    /// Held roots that refer to one which failed.
    fn orphans(&self) -> Vec<usize> {
        let follows_a_failure = |node: &usize| {
            let mut after = self.after(*node).iter();
            after.any(|key| self.failed_roots.contains(key))
        };
        self.held
            .iter()
            .copied()
            .filter(follows_a_failure)
            .collect()
    }

    fn forget_root(&mut self, node: usize) -> Option<String> {
        let key = self.steps[node].root.take()?;
        self.roots.remove(&key);
        Some(key)
    }

    fn settle(&mut self, node: usize) {
        self.forget_root(node);
        let planned = &self.plan.steps()[node];
        if let Some(work) = self.steps[node].work.take() {
            (self.observer)(Event::Finished {
                step: planned.id.clone(),
                metered: Box::new(work.meter.snapshot()),
                took: work.started.elapsed(),
            });
        }
        for released in self.schedule.settled(node) {
            self.may_publish(released);
        }
    }

    fn on_published(&mut self, node: usize, result: Result<(), StepError>) {
        self.tell_warnings(node);
        match result {
            Ok(()) => self.settle(node),
            Err(error) => self.on_failed(node, error),
        }
    }

    fn on_failed(&mut self, node: usize, error: StepError) {
        let error = self.plan.placed(node, error);
        let id = self.plan.steps()[node].id.clone();
        let work = self.steps[node].work.take();
        let (metered, took, announced) = match work {
            Some(work) => (
                work.meter.snapshot(),
                work.started.elapsed(),
                lock(&work.announced).take(),
            ),
            None => Default::default(),
        };
        (self.observer)(Event::Failed {
            step: id.clone(),
            error: error.clone(),
            metered: Box::new(metered),
            took,
        });
        self.failures.push((id.clone(), error));
        let key = self.forget_root(node);
        self.failed_roots.extend(key.or(announced));
        for dependent in self.schedule.failed(node) {
            self.held.remove(&dependent);
            self.publishable.retain(|other| *other != dependent);
            let key = self.forget_root(dependent);
            self.failed_roots.extend(key);
            self.skip(dependent, Some(&id));
        }
        if self.shared.context.options.on_error == OnError::Stop {
            self.stop();
        }
    }

    fn skip(&mut self, node: usize, because: Option<&Arc<str>>) {
        if self.skipped.insert(node) {
            let step = self.plan.steps()[node].id.clone();
            (self.observer)(Event::Skipped {
                step,
                because: because.cloned(),
            });
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.running.abort_all();
    }

    fn stop_for(&mut self, why: &str) {
        if !self.stopping {
            let error = Error::new(
                ErrorKind::Internal,
                format!("a task of the run ended unexpectedly: {why}"),
            );
            self.failures.push(("".into(), error.into()));
            self.stop();
        }
    }

    fn tell_warnings(&mut self, node: usize) {
        let Some(work) = &self.steps[node].work else {
            return;
        };
        let warnings = std::mem::take(&mut *lock(&work.warnings));
        for message in warnings {
            (self.observer)(Event::Warning {
                step: self.plan.steps()[node].id.clone(),
                message,
            });
        }
    }

    fn tell_progress(&mut self) {
        for (node, state) in self.steps.iter_mut().enumerate() {
            let Some(work) = &mut state.work else {
                continue;
            };
            let done = work.meter.bytes_read();
            if done != work.told {
                work.told = done;
                (self.observer)(Event::Bytes {
                    step: self.plan.steps()[node].id.clone(),
                    done,
                    total: work.meter.expected(),
                });
            }
        }
    }

    fn finish(mut self, status: Option<Status>) -> RunResult {
        let failed: BTreeSet<&str> = self.failures.iter().map(|(id, _)| &**id).collect();
        let unfinished: Vec<usize> = (0..self.steps.len())
            .filter(|node| {
                let id = &*self.plan.steps()[*node].id;
                !self.schedule.is_settled(*node) && !failed.contains(id)
            })
            .collect();
        for node in unfinished {
            self.skip(node, None);
        }
        let outputs = self.plan.steps().iter().zip(&self.steps);
        let outputs: Vec<_> = outputs
            .filter_map(|(planned, state)| Some((planned.id.clone(), state.output.clone()?)))
            .collect();
        let settled = (0..self.steps.len()).any(|node| self.schedule.is_settled(node));
        let status = status.unwrap_or(
            match (
                self.failures.is_empty(),
                self.shared.context.options.on_error,
            ) {
                (true, _) => Status::Succeeded,
                (false, OnError::Continue) if settled => Status::Partial,
                (false, _) => Status::Failed,
            },
        );
        RunResult {
            status,
            outputs,
            failures: self.failures,
            skipped: self
                .skipped
                .iter()
                .map(|node| self.plan.steps()[*node].id.clone())
                .collect(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
