//! What a check costs per step: from text to a plan.

use crate::child::{Job, cpu_of};
use crate::figures::{exponent, least};
use crate::report::Report;
use crate::toys::{Times, plan, step_types, typed_spec};
use crate::{Result, Sizes};

/// Nodes and how often. The largest once more than once would need: its peak memory counts, too.
const FULL: [(usize, usize); 3] = [(1_000, 20), (10_000, 5), (100_000, 2)];
const SMOKE: [(usize, usize); 3] = [(100, 2), (200, 2), (1_000, 1)];

/// Measures `check.*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let names = [
        "check.us_per_node.1k",
        "check.us_per_node.10k",
        "check.us_per_node.100k",
    ];
    let mut times = Vec::new();
    for (name, (nodes, rounds)) in names.into_iter().zip(sizes.of(FULL, SMOKE)) {
        let sample = Job::Check { nodes, rounds }.measure()?;
        report.put(name, sample.cpu * 1e6 / nodes as f64);
        times.push((nodes as f64, sample.cpu));
        if name == names[2] {
            // The last plan of one round is gone before the next round begins.
            report.put("check.peak_rss_mib.100k", sample.peak_rss_mib());
        }
    }
    report.put("check.exponent", exponent(times[1], times[2]));
    Ok(())
}

/// CPU seconds of one check of that many nodes: the least of `rounds`.
pub(crate) fn check(nodes: usize, rounds: usize) -> Result<f64> {
    let types = step_types(&Times::default());
    let mut times = Vec::new();
    for _ in 0..rounds {
        let text = typed_spec(nodes);
        let (cpu, plan) = cpu_of(|| plan(text, &types));
        let steps = plan?.step_names().count();
        if steps != nodes {
            return Err(format!("the plan has {steps} steps instead of {nodes}").into());
        }
        times.push(cpu);
    }
    Ok(least(times))
}
