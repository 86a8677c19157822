//! Does a slow step hold up those that do not wait for it?

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ocm_content::Limits;
use ocm_content::limits::LimitsConfig;
use ocm_engine::{Context, Status};

use crate::child::millis;
use crate::report::Report;
use crate::toys::{Times, plan, sleep_spec, sources, step_types};
use crate::{Result, Sizes};

/// Steps in a layer.
const WIDTH: usize = 10;
/// What the slow step of each layer takes.
const SLOW_MILLIS: u64 = 100;

/// The slow step of a layer. Seven is prime to ten: neighbours rarely follow each other, so that the longest way is much
/// shorter than all slow steps together, and an engine that waits for whole layers shows.
fn slow(layer: usize) -> usize {
    layer * 7 % WIDTH
}

/// Measures `straggler.ratio`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let layers = sizes.of(100, 10);
    let times = Times::default();
    let plan = plan(
        sleep_spec(layers, WIDTH, SLOW_MILLIS, slow),
        &step_types(&times),
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let limits = Limits::new(LimitsConfig::default());
    let context = Context::new(limits, Arc::new(()));
    let start = Instant::now();
    let result = runtime.block_on(plan.run(context, Box::new(|_| {})));
    let makespan = start.elapsed();
    if result.status != Status::Succeeded {
        return Err(format!("the run {:?}: {:?}", result.status, result.failures).into());
    }
    let mut took = vec![Duration::ZERO; layers * WIDTH];
    for (node, time) in &*times.lock().unwrap_or_else(PoisonError::into_inner) {
        took[*node] = *time;
    }
    let critical = critical_path(&took);
    report.put(
        "straggler.ratio",
        makespan.as_secs_f64() / critical.as_secs_f64(),
    );
    report.note(
        "straggler.ratio",
        format!(
            "makespan {:.0} ms, critical path {:.0} ms; layer by layer it would be {} ms",
            millis(makespan),
            millis(critical),
            layers as u64 * SLOW_MILLIS
        ),
    );
    Ok(())
}

/// The longest way through the layers, by what the steps took.
fn critical_path(took: &[Duration]) -> Duration {
    let mut longest: Vec<Duration> = Vec::with_capacity(took.len());
    for (node, time) in took.iter().enumerate() {
        let before = sources(node, WIDTH).into_iter().flatten();
        let before = before.map(|source| longest[source]).max();
        longest.push(before.unwrap_or_default() + *time);
    }
    longest.into_iter().max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_way_decides() {
        let mut took = vec![Duration::ZERO; 3 * WIDTH];
        // Two on one way, one beside it.
        for (node, millis) in [(3, 5), (13, 7), (22, 1), (27, 8)] {
            took[node] = Duration::from_millis(millis);
        }
        assert_eq!(critical_path(&took), Duration::from_millis(13));
    }
}
