//! What a plain field path costs, which should not depend on the document's size.

use ocm_engine::language::Expression;
use serde_json::{Map, Value, json};

use crate::child::{Job, cpu_of};
use crate::figures::least;
use crate::report::Report;
use crate::{Result, Sizes};

/// Evaluations per round: enough to be far above what a clock can tell.
const EVALUATIONS: u32 = 100_000;

/// Measures `cel_path.*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let rounds = sizes.of(15, 2);
    for (name, entries) in [
        ("cel_path.ns.20", 20),
        ("cel_path.ns.200", 200),
        ("cel_path.ns.2000", 2_000),
    ] {
        let sample = Job::CelPath { entries, rounds }.measure()?;
        report.put(name, sample.cpu * 1e9);
    }
    Ok(())
}

/// CPU seconds of one evaluation: the least of `rounds`.
pub(crate) fn evaluate(entries: usize, rounds: usize) -> Result<f64> {
    let document: Map<String, Value> = (0..entries)
        .map(|entry| {
            let value = json!({"name": format!("resource-{entry}"), "version": "1.0.0"});
            (format!("entry{entry}"), value)
        })
        .collect();
    let mut scope = Map::new();
    scope.insert("document".to_owned(), Value::Object(document));
    let expression = Expression::parse(&format!("document.entry{}.version", entries / 2))?;
    if expression.as_path().is_none() || expression.evaluate(&scope)? != json!("1.0.0") {
        return Err("the expression is not what it should be".into());
    }
    let times = (0..rounds).map(|_| {
        let (cpu, ()) = cpu_of(|| {
            for _ in 0..EVALUATIONS {
                let found = std::hint::black_box(&expression).evaluate(&scope);
                let _ = std::hint::black_box(found);
            }
        });
        cpu / f64::from(EVALUATIONS)
    });
    Ok(least(times))
}
