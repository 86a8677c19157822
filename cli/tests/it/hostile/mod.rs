//! Input made to do harm: tables of it, one row per case.
//!
//! Every row runs the program as a process of its own. It must end by itself with a documented exit code and one error that
//! says what and where, use at most [`MEMORY`] more than a run of good input and at most [`SECONDS`] of the processor, write
//! nothing half, and send no byte to the terminal that the terminal would obey.

mod archives;
mod cel;
mod ctfs;
mod registries;
mod specs;

use futures::{StreamExt as _, stream};
use tokio::sync::OnceCell;

use crate::bad_input::{AT_ONCE, COPY, Row, TRANSFER, blunders, complain, copy, source, visible};
use crate::place::{Cost, Place, Ran};

/// KiB that bad input may cost more than good input.
const MEMORY: u64 = 64 << 10;
/// Seconds of the processor that a row may take, without optimisation, on a busy machine.
const SECONDS: f64 = 20.0;
/// Bytes that an error may have.
const TOLD: usize = 64 << 10;

/// What a run of good input takes.
async fn baseline() -> Cost {
    static BASELINE: OnceCell<Cost> = OnceCell::const_new();
    let measure = async || {
        let place = Place::new();
        copy(source().await.path(), &place.path("source"));
        place.put("spec.yaml", COPY);
        let (ran, cost) = place.run_measured(TRANSFER, &[]).await;
        ran.ok();
        cost
    };
    *BASELINE.get_or_init(measure).await
}

/// What is wrong with what a run took and told, whatever it was given.
fn harm(ran: &Ran, cost: Cost, baseline: Cost) -> Vec<String> {
    let mut wrong = Vec::new();
    if cost.peak_rss > baseline.peak_rss + MEMORY {
        let (used, good) = (cost.peak_rss >> 10, baseline.peak_rss >> 10);
        wrong.push(format!("it used {used} MiB, good input {good} MiB"));
    }
    if cost.cpu > SECONDS {
        wrong.push(format!("it took {} s", cost.cpu));
    }
    let is_log = |line: &&str| line.contains("Z TRACE ") || line.contains("Z DEBUG ");
    let told: usize = ran
        .stderr
        .lines()
        .filter(|line| !is_log(line))
        .map(str::len)
        .sum();
    if told > TOLD {
        wrong.push(format!("it tells {told} bytes of errors"));
    }
    let obeyed = |c: &char| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c);
    for text in [&ran.stdout, &ran.stderr] {
        if let Some(found) = text.chars().find(|c| obeyed(c) && *c != '\t') {
            wrong.push(format!("it prints {found:?}"));
        }
    }
    wrong
}

/// Runs the rows; tells all that is wrong at once, and otherwise how many there were.
async fn check(what: &str, at_least: usize, rows: Vec<Row>) {
    let count = rows.len();
    let source = source().await;
    let source = &source;
    let baseline = baseline().await;
    let failed: Vec<String> = stream::iter(rows)
        .map(|row| async move {
            let place = Place::new();
            copy(source, &place.path("source"));
            place.put("spec.yaml", COPY);
            (row.arrange)(&place);
            let (ran, cost) = place.run_measured(&row.arguments, &[]).await;
            let mut wrong = blunders(&ran, row.code, &row.says);
            wrong.extend(harm(&ran, cost, baseline));
            wrong.extend(visible(&place.path("target"), row.code != 0));
            complain(&row.name, &wrong, &short(ran))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    finish(what, count, at_least, &failed);
}

#[expect(clippy::print_stderr, reason = "the tables say how much is in them")]
fn finish(what: &str, count: usize, at_least: usize, failed: &[String]) {
    let bad = failed.len();
    assert!(
        failed.is_empty(),
        "{bad} of {count}:\n{}",
        failed.join("\n")
    );
    assert!(count >= at_least, "{count} cases of {what}, not {at_least}");
    eprintln!("hostile {what}: {count} cases");
}

/// What can be shown of a run that told too much: its end.
fn short(mut ran: Ran) -> Ran {
    for text in [&mut ran.stdout, &mut ran.stderr] {
        if let Some((start, _)) = text.char_indices().rev().nth(800) {
            text.replace_range(..start, "… ");
        }
    }
    ran
}
