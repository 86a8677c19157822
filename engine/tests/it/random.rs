//! Ten thousand random graphs: each ends, stays within its budgets, and gives what a serial run gives.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use ocm_content::Limits;
use ocm_content::limits::LimitsConfig;
use ocm_engine::{Context, OnError, Status};

use crate::toys::{Seen, World, options, plan, run};

/// How many graphs; each comes from its number, so a failing one is named by it.
const GRAPHS: u64 = 10_000;

/// Far beyond what any graph needs on the paused clock: only a deadlock gets there.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

/// A small generator with a full period: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

pub(crate) struct Generated {
    pub(crate) text: String,
    limits: LimitsConfig,
    concurrency: usize,
    on_error: OnError,
    fails: bool,
    cancel_after: Option<Duration>,
}

/// Sources, conversions, sinks and values, tied at random: tees, diamonds, once-sources, digest before upload, exclusive
/// sinks in any order, roots that refer to each other, failures; host limit and concurrency down to one.
pub(crate) fn generate(number: u64) -> Generated {
    let mut random = Random(number);
    let steps = 2 + random.below(11);
    let failing = random.one_in(3);
    let hosts = 1 + random.below(3);
    let (mut contents, mut values, mut sinks) = (Vec::new(), Vec::new(), Vec::new());
    let mut text = String::from("transformations:\n");
    let mut fails = false;
    for index in 0..steps {
        let id = format!("n{index}");
        let host = format!("h{}", random.below(hosts));
        let kind = if contents.is_empty() {
            0
        } else {
            random.below(10)
        };
        match kind {
            0..=1 => {
                let size = random.below(2000);
                let once = random.one_in(2);
                let fail = failing && random.one_in(4) && size > 0;
                fails |= fail;
                let _ = write!(
                    text,
                    "- {{id: {id}, type: toy.source/v1, spec: {{seed: {index}, size: {size}, once: {once}, host: {host}"
                );
                if fail {
                    let _ = write!(text, ", failAt: {}", random.below(size));
                }
                if !values.is_empty() && random.one_in(3) {
                    let _ = write!(
                        text,
                        ", after: '${{string({})}}'",
                        pick(&mut random, &values)
                    );
                }
                text.push_str("}}\n");
                contents.push(id);
            }
            2..=3 => {
                let from = pick(&mut random, &contents);
                let _ = writeln!(
                    text,
                    "- {{id: {id}, type: toy.convert/v1, spec: {{data: '${{{from}.output.data}}'}}}}"
                );
                contents.push(id);
            }
            4..=8 => {
                let from = pick(&mut random, &contents);
                let _ = write!(
                    text,
                    "- {{id: {id}, type: toy.sink/v1, spec: {{name: {id}, host: {host}, data: '${{{from}.output.data}}'"
                );
                if random.one_in(3) {
                    let _ = write!(text, ", exclusive: archive{}", random.below(2));
                }
                if random.one_in(3) {
                    text.push_str(", digestFirst: true");
                }
                if failing && random.one_in(5) {
                    fails = true;
                    text.push_str(if random.one_in(2) {
                        ", fail: true"
                    } else {
                        ", panic: true"
                    });
                }
                if random.one_in(3) {
                    let refers: Vec<String> = (0..random.below(3))
                        .map(|_| format!("n{}", random.below(steps)))
                        .collect();
                    let _ = write!(text, ", root: true, refersTo: [{}]", refers.join(", "));
                }
                if !values.is_empty() && random.one_in(3) {
                    let _ = write!(
                        text,
                        ", after: '${{string({})}}'",
                        pick(&mut random, &values)
                    );
                }
                text.push('}');
                if !sinks.is_empty() && random.one_in(5) {
                    let _ = write!(text, ", dependsOn: [{}]", pick(&mut random, &sinks));
                }
                text.push_str("}\n");
                values.push(format!("{id}.output.digest"));
                sinks.push(id);
            }
            _ => {
                let first = values.is_empty().then(|| "1".to_owned());
                let first =
                    first.unwrap_or_else(|| format!("'${{{}}}'", pick(&mut random, &values)));
                let _ = writeln!(
                    text,
                    "- {{id: {id}, type: toy.value/v1, spec: {{value: {first}}}}}"
                );
                values.push(format!("{id}.output.value"));
            }
        }
    }
    Generated {
        text,
        limits: LimitsConfig {
            transfers_per_host: 1 + random.below(3) as usize,
            small_transfers_per_host: 1 + random.below(3) as usize,
            requests_per_host: 1,
            cpu: 1,
            window: 64 << random.below(8),
            spool: 1 << 20,
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        },
        concurrency: 1 + random.below(6) as usize,
        on_error: if random.one_in(2) {
            OnError::Stop
        } else {
            OnError::Continue
        },
        fails,
        cancel_after: random
            .one_in(10)
            .then(|| Duration::from_millis(random.below(50))),
    }
}

fn pick(random: &mut Random, from: &[String]) -> String {
    from[random.below(from.len() as u64) as usize].clone()
}

fn names<'a>(ids: impl IntoIterator<Item = &'a std::sync::Arc<str>>) -> BTreeSet<String> {
    ids.into_iter().map(ToString::to_string).collect()
}

async fn ends(number: u64, generated: &Generated, concurrency: usize) -> Seen {
    let limits = Limits::new(generated.limits.clone());
    let run = run(
        &generated.text,
        limits.clone(),
        options(concurrency, generated.on_error),
    );
    let seen = tokio::time::timeout(FOREVER, run).await;
    let seen = seen.unwrap_or_else(|_| panic!("graph {number} does not end:\n{}", generated.text));
    let (window, spool) = (limits.window(), limits.spool());
    assert!(
        window.peak() <= window.limit() && spool.peak() <= spool.limit(),
        "graph {number} left its budget"
    );
    assert_eq!(
        (window.used(), spool.used()),
        (0, 0),
        "graph {number} gave not all back:\n{}",
        generated.text
    );
    seen
}

async fn check(number: u64) {
    let generated = generate(number);
    if let Some(after) = generated.cancel_after {
        return check_cancel(number, &generated, after).await;
    }
    let parallel = ends(number, &generated, generated.concurrency).await;
    let serial = ends(number, &generated, 1).await;
    let context = || {
        format!(
            "graph {number}, concurrency {}:\n{}",
            generated.concurrency, generated.text
        )
    };
    let published = |seen: &Seen| {
        seen.world
            .published
            .lock()
            .unwrap()
            .iter()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    if !generated.fails {
        assert_eq!(
            parallel.result.status,
            Status::Succeeded,
            "{:?}\n{}",
            parallel.result.failures,
            context()
        );
    }
    if generated.fails && generated.on_error == OnError::Stop {
        // Which steps were reached depends on timing; what must hold does not.
        assert_eq!(
            parallel.result.status,
            serial.result.status,
            "{}",
            context()
        );
        return;
    }
    assert_eq!(
        parallel.result.status,
        serial.result.status,
        "{}",
        context()
    );
    assert_eq!(
        parallel.result.outputs,
        serial.result.outputs,
        "{}",
        context()
    );
    assert_eq!(published(&parallel), published(&serial), "{}", context());
    assert_eq!(
        *parallel.world.received.lock().unwrap(),
        *serial.world.received.lock().unwrap(),
        "{}",
        context()
    );
    assert_eq!(
        names(&parallel.result.skipped),
        names(&serial.result.skipped),
        "{}",
        context()
    );
    let failed = |seen: &Seen| names(seen.result.failures.iter().map(|(step, _)| step));
    assert_eq!(failed(&parallel), failed(&serial), "{}", context());
}

async fn check_cancel(number: u64, generated: &Generated, after: Duration) {
    let world = std::sync::Arc::new(World::default());
    let plan = plan(&generated.text, &world)
        .unwrap_or_else(|errors| panic!("{errors}\n{}", generated.text));
    let limits = Limits::new(generated.limits.clone());
    let mut context = Context::new(limits.clone(), std::sync::Arc::new(()));
    context.options = options(generated.concurrency, generated.on_error);
    let cancel = context.cancel.clone();
    let started = tokio::time::Instant::now();
    let run = plan.run(context, Box::new(|_| {}));
    let canceller = async {
        tokio::time::sleep(after).await;
        cancel.cancel();
    };
    let (_, ()) = tokio::time::timeout(FOREVER, async { tokio::join!(run, canceller) })
        .await
        .unwrap_or_else(|_| {
            panic!(
                "graph {number} does not end when cancelled:\n{}",
                generated.text
            )
        });
    assert!(
        started.elapsed() <= after + Duration::from_secs(1),
        "graph {number} lingers"
    );
    assert_eq!(
        world.at_work.load(std::sync::atomic::Ordering::SeqCst),
        0,
        "graph {number} left a step at work"
    );
    assert_eq!(
        (limits.window().used(), limits.spool().used()),
        (0, 0),
        "graph {number} gave not all back"
    );
}

/// One quarter of the graphs, so that the test runner spreads them over the cores.
async fn check_quarter(quarter: u64) {
    for number in (0..GRAPHS).filter(|number| number % 4 == quarter) {
        check(number).await;
    }
}

#[tokio::test(start_paused = true)]
async fn random_graphs_end_within_budget_and_as_in_a_serial_run_1() {
    check_quarter(0).await;
}

#[tokio::test(start_paused = true)]
async fn random_graphs_end_within_budget_and_as_in_a_serial_run_2() {
    check_quarter(1).await;
}

#[tokio::test(start_paused = true)]
async fn random_graphs_end_within_budget_and_as_in_a_serial_run_3() {
    check_quarter(2).await;
}

#[tokio::test(start_paused = true)]
async fn random_graphs_end_within_budget_and_as_in_a_serial_run_4() {
    check_quarter(3).await;
}
