//! What the engine itself costs per step: runs of plans that do nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use ocm_content::Limits;
use ocm_content::limits::LimitsConfig;
use ocm_engine::{Context, Edge, Schedule, Status};

use crate::child::{Job, cpu_of};
use crate::figures::{exponent, least};
use crate::report::Report;
use crate::toys::{Times, edges, noop_spec, plan, step_types};
use crate::{Result, Sizes};

/// Nodes and how often: small plans more often, since a busy moment weighs more there.
const FULL: [(usize, usize); 3] = [(1_000, 40), (10_000, 10), (100_000, 3)];
const SMOKE: [(usize, usize); 3] = [(100, 2), (200, 2), (1_000, 1)];

/// Measures `schedule.*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let sizes = sizes.of(FULL, SMOKE);
    let names = [
        "schedule.ns_per_node.1k",
        "schedule.ns_per_node.10k",
        "schedule.ns_per_node.100k",
    ];
    let mut times = Vec::new();
    for (name, (nodes, rounds)) in names.into_iter().zip(sizes) {
        let sample = Job::Run { nodes, rounds }.measure()?;
        report.put(name, sample.cpu * 1e9 / nodes as f64);
        times.push((nodes as f64, sample.cpu));
    }
    report.put("schedule.exponent", exponent(times[1], times[2]));
    let (nodes, rounds) = sizes[2];
    let sample = Job::Schedule { nodes, rounds }.measure()?;
    let name = "schedule.core_ns_per_node.100k";
    report.put(name, sample.cpu * 1e9 / nodes as f64);
    Ok(())
}

/// CPU seconds of one run of that many no-op steps: the least of `rounds`.
pub(crate) fn run(nodes: usize, rounds: usize) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let types = step_types(&Times::default());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let plan = plan(noop_spec(nodes), &types)?;
        let limits = Limits::new(LimitsConfig::default());
        let context = Context::new(limits, Arc::new(()));
        let (cpu, result) = cpu_of(|| runtime.block_on(plan.run(context, Box::new(|_| {}))));
        if result.status != Status::Succeeded || result.outputs.len() != nodes {
            return Err(format!("the run {:?}: {:?}", result.status, result.failures).into());
        }
        times.push(cpu);
    }
    Ok(least(times))
}

/// CPU seconds of the schedule alone, with a closure for each node: the least of `rounds`.
pub(crate) fn core(nodes: usize, rounds: usize) -> f64 {
    let edges: Vec<_> = edges(nodes)
        .map(|(source, target)| (source, target, Edge::Value))
        .collect();
    let times = (0..rounds).map(|_| {
        let mut done = 0_usize;
        let (cpu, ()) = cpu_of(|| drive(nodes, &edges, || done += 1));
        assert_eq!(done, nodes, "every node runs once");
        cpu
    });
    least(times)
}

/// Starts, prepares and settles every node; as many are under way at once as in a run.
fn drive(nodes: usize, edges: &[(usize, usize, Edge)], mut work: impl FnMut()) {
    const CONCURRENCY: usize = 16;
    let mut schedule = Schedule::new(nodes, edges);
    let mut under_way = VecDeque::with_capacity(CONCURRENCY);
    loop {
        while under_way.len() < CONCURRENCY {
            let Some(node) = schedule.start() else { break };
            under_way.push_back(node);
        }
        let Some(node) = under_way.pop_front() else {
            return;
        };
        work();
        let mut settled = Vec::new();
        if schedule.prepared(node) {
            settled.push(node);
        }
        while let Some(node) = settled.pop() {
            settled.extend(schedule.settled(node));
        }
    }
}
