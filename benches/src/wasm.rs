//! What steps in WebAssembly cost, beside the same work done natively and by a child process.
//!
//! *Invariant*: the guest is the committed one, and its code comes from a cache that the parent has filled, as it does from
//! the second run of a program on.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use ocm_content::limits::LimitsConfig;
use ocm_content::{Content, Limits};
use ocm_engine::{Context, Plan, Status, StepContext, StepTypes};
use ocm_plugins_wasm::{Allowed, Cache, Granted, Host, HostConfig, Plugin};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::child::{Job, children_cpu_seconds, cpu_of, cpu_seconds};
use crate::figures::least;
use crate::report::Report;
use crate::streams::step_types;
use crate::toys::plan;
use crate::{Result, Sizes};

/// The guest: its `Identity` hands on what it gets, read and written, or without looking at it.
const GUEST: &[u8] = include_bytes!("../../plugins-wasm/examples/prebuilt/basics.wasm");
const IDENTITY: &str = "Identity/v1alpha1";
const NATIVE: &str = "bench.native/v1";
const CHILD: &str = "bench.child/v1";

/// Instances that are alive at once.
const INSTANCES: usize = 40;

/// Measures `wasm.*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache").display().to_string();
    runtime()?.block_on(plugin(&host(&cache)))?;
    measure_streams(sizes, &cache, report)?;
    let (steps, rounds) = sizes.of((1_000, 10), (10, 1));
    let call = Job::Call {
        cache: cache.clone(),
        steps,
        rounds,
    };
    report.put("wasm.call_us", call.measure()?.cpu * 1e6 / steps as f64);
    let rounds = sizes.of(50, 2);
    let load = Job::Load {
        cache: cache.clone(),
        rounds,
    };
    report.put("wasm.cached_load_ms", load.measure()?.cpu * 1e3);
    let alive = |count| {
        let cache = cache.clone();
        Job::Instances { cache, count }.measure()
    };
    let (one, more) = (alive(1)?, alive(1 + INSTANCES)?);
    let growth = more.peak_rss_mib() - one.peak_rss_mib();
    report.put("wasm.rss_mib_per_instance", growth / INSTANCES as f64);
    Ok(())
}

fn measure_streams(sizes: Sizes, cache: &str, report: &mut Report) -> Result<()> {
    let size = sizes.of(4 << 30, 16 << 20);
    let through = |steps: &[&str], once| {
        let job = Stream {
            cache: cache.to_owned(),
            size,
            once,
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        };
        Job::Stream(job).measure()
    };
    let rate = |cpu: f64| size as f64 / cpu / 1e9;
    for (name, step) in [
        ("wasm.identity_gb_s", IDENTITY),
        ("wasm.native_gb_s", NATIVE),
        ("wasm.child_gb_s", CHILD),
    ] {
        if report.wants(name) {
            report.put(name, rate(through(&[step], true)?.cpu));
        }
    }
    let name = "wasm.identity_gb_s";
    if report.wants(name) {
        let again = rate(through(&[IDENTITY], false)?.cpu);
        let note = format!(
            "where the source can be read again the output can, too, and is summed up to find a plugin that gives other \
             bytes then: {again:.2} GB/s"
        );
        report.note(name, note);
    }
    let chain = through(&[IDENTITY, IDENTITY], false)?;
    report.put("wasm.chain_peak_rss_mib", chain.peak_rss_mib());
    report.put("wasm.chain_temp_bytes", chain.temp_bytes as f64);
    Ok(())
}

/// Bytes through steps, one after the other, to one who takes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stream {
    cache: String,
    size: u64,
    /// Can the source be read once only?
    once: bool,
    /// Types of the steps.
    steps: Vec<String>,
}

impl Stream {
    /// CPU seconds of it all, children included.
    pub(crate) fn run(self, temp_bytes: &mut u64) -> Result<f64> {
        let mut text = format!(
            "transformations:\n- {{id: s0, type: bench.give/v1, spec: {{size: {}, once: {}}}}}\n",
            self.size, self.once
        );
        for (at, step) in self.steps.iter().enumerate() {
            text.push_str(&step_line(at + 1, step, at));
        }
        let last = self.steps.len();
        text.push_str(&step_line(last + 1, "bench.take/v1", last));
        let limits = Limits::new(LimitsConfig::default());
        let (start, cpu) = runtime()?.block_on(async {
            let types = types(&plugin(&host(&self.cache)).await?)?;
            let start = cpu_seconds();
            let taken = run(plan(text, &types)?, &limits).await?;
            let taken = taken.output(&format!("s{}", last + 1));
            if taken.is_none_or(|taken| taken["bytes"] != json!(self.size)) {
                return Err(format!("not all bytes arrived: {taken:?}").into());
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((start, cpu_seconds()))
        })?;
        *temp_bytes = limits.spool().peak();
        Ok(cpu - start + children_cpu_seconds()?)
    }
}

fn step_line(at: usize, step_type: &str, source: usize) -> String {
    format!("- {{id: s{at}, type: {step_type}, spec: {{data: '${{s{source}.output.data}}'}}}}\n")
}

/// CPU seconds of that many steps that do nothing: the least of `rounds`.
pub(crate) fn call(cache: &str, steps: usize, rounds: usize) -> Result<f64> {
    let runtime = runtime()?;
    let types = types(&runtime.block_on(plugin(&host(cache)))?)?;
    let mut text =
        "transformations:\n- {id: s0, type: bench.give/v1, spec: {size: 1}}\n".to_owned();
    for at in 1..=steps {
        text.push_str(&format!(
            "- {{id: s{at}, type: {IDENTITY}, spec: {{data: '${{s0.output.data}}', way: same}}}}\n"
        ));
    }
    let limits = Limits::new(LimitsConfig::default());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let plan = plan(text.clone(), &types)?;
        let (cpu, result) = cpu_of(|| runtime.block_on(run(plan, &limits)));
        result?;
        times.push(cpu);
    }
    Ok(least(times))
}

/// CPU seconds until a plugin that is in the cache can be called: the least of `rounds`.
pub(crate) fn load(cache: &str, rounds: usize) -> Result<f64> {
    let (runtime, host) = (runtime()?, host(cache));
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (cpu, plugin) = cpu_of(|| runtime.block_on(plugin(&host)));
        plugin?;
        times.push(cpu);
    }
    Ok(least(times))
}

/// Makes instances that have handed on 64 KiB, which guests do not gather any longer, and wait for more; takes the time, which is of no interest.
pub(crate) fn instances(cache: &str, count: usize) -> Result<f64> {
    let (runtime, host) = (runtime()?, host(cache));
    let types = types(&runtime.block_on(plugin(&host))?)?;
    let alive = runtime.block_on(async {
        let context = Context::new(Limits::new(LimitsConfig::default()), Arc::new(()));
        let cx = StepContext::alone(context, "s0");
        let given = step(
            &types,
            "bench.give/v1",
            &cx,
            json!({"size": 64 << 10, "endless": true}),
        );
        let given = given.await?;
        let mut alive = Vec::new();
        for at in 1..=count {
            let cx = cx.sibling(&format!("s{at}"));
            let handed_on = step(&types, IDENTITY, &cx, given.clone()).await?;
            let reference = serde_json::from_value(handed_on["data"].clone())?;
            let content = cx.content(&reference).await.map_err(|error| error.error)?;
            let Content::Blob(blob) = content else {
                return Err("a plugin gave an artifact".into());
            };
            let mut stream = blob.open().await?;
            stream.next().await.ok_or("nothing came")??;
            alive.push(stream);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(alive)
    })?;
    let found = host.usage().instances();
    if found != count {
        return Err(format!("{found} instances are alive instead of {count}").into());
    }
    drop(alive);
    Ok(cpu_seconds())
}

/// Runs one step by itself.
async fn step(types: &StepTypes, name: &str, cx: &StepContext, spec: Json) -> Result<Json> {
    let step_type = types.get(name).ok_or("a step type is missing")?;
    let outcome = step_type.run(cx.clone(), spec).await;
    Ok(outcome.map_err(|error| error.error)?.output)
}

/// As the command line has it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

fn host(cache: &str) -> Arc<Host> {
    Host::new(HostConfig {
        cache: Some(Cache::new(cache)),
        ..HostConfig::default()
    })
}

/// The guest, ready to be called.
async fn plugin(host: &Arc<Host>) -> Result<Arc<Plugin>> {
    let inspected = host.inspect(Bytes::from_static(GUEST), None).await?;
    let granted = Granted::new("basics", &[], None, &Allowed::default())?;
    let plugin = Plugin::new(host, inspected, granted, None)?;
    plugin.prepare().await?;
    Ok(plugin)
}

fn types(plugin: &Arc<Plugin>) -> Result<StepTypes> {
    let mut types = step_types();
    for step_type in plugin.step_types()? {
        types.add(step_type)?;
    }
    Ok(types)
}

async fn run(plan: Plan, limits: &Arc<Limits>) -> Result<ocm_engine::RunResult> {
    let context = Context::new(limits.clone(), Arc::new(()));
    let result = plan.run(context, Box::new(|_| {})).await;
    match (result.status, result.failures.first()) {
        (Status::Succeeded, _) => Ok(result),
        (_, Some((step, error))) => Err(format!("step `{step}`: {}", error.error).into()),
        (status, None) => Err(format!("the run {status:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_every_kind_of_step() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache").display().to_string();
        for (steps, once) in [
            (&[NATIVE, CHILD][..], true),
            (&[IDENTITY, NATIVE], false),
            (&[IDENTITY, IDENTITY], true),
        ] {
            let job = Stream {
                cache: cache.clone(),
                size: (1 << 20) + 1,
                once,
                steps: steps.iter().map(|step| (*step).to_owned()).collect(),
            };
            let mut temp_bytes = 1;
            assert!(job.run(&mut temp_bytes).unwrap() > 0.0);
            assert_eq!(temp_bytes, 0);
        }
    }
}
