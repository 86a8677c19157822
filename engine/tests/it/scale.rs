//! How long planning takes, by hand: `cargo test --release -p ocm-engine --test it scale -- --ignored --nocapture`.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use ocm_engine::{Graph, Plan};

use crate::toys::{World, read, step_types};

/// Sources, conversions, and sinks that name both and some others.
fn text(steps: usize) -> String {
    let mut text = String::from("environment: {host: h, size: 10}\ntransformations:\n");
    for number in 0..steps / 3 {
        let before = number.saturating_sub(1);
        let _ = write!(
            text,
            "- {{id: s{number}, type: toy.source/v1, spec: {{seed: {number}, size: '${{environment.size}}', host: 'at ${{environment.host}}'}}}}\n\
             - {{id: c{number}, type: toy.convert/v1, spec: {{data: '${{s{number}.data}}'}}}}\n\
             - {{id: k{number}, type: toy.sink/v1, dependsOn: [s{before}], spec: {{name: 'x-${{c{before}.output.data.?digest.orValue(\"none\")}}', data: '${{c{number}.outputs.data}}'}}}}\n"
        );
    }
    text
}

#[test]
#[ignore = "a measurement, for release builds"]
fn planning_takes_the_same_time_per_step_however_many_there_are() {
    let types = step_types(&Arc::new(World::default()));
    for steps in [1_000, 10_000, 100_000] {
        let text = text(steps);
        let mut told = format!("{steps} steps, us per step:");
        let mut last = Instant::now();
        let mut lap = |what: &str| {
            let took = last.elapsed().as_secs_f64() * 1e6 / steps as f64;
            let _ = write!(told, " {what} {took:.2}");
            last = Instant::now();
        };
        let spec = read(&text).unwrap();
        lap("read");
        let graph = Graph::link(spec).unwrap();
        lap("link");
        let plan = Plan::new(graph, &types).unwrap_or_else(|errors| panic!("{errors}"));
        lap("plan");
        let json = plan.to_json();
        lap("to_json");
        plan.fingerprint();
        lap("fingerprint");
        plan.step_identity("s0");
        lap("identities");
        let text = ocm_specs::yaml::to_string(&json);
        lap("print");
        eprintln!("{told} ({} bytes)", text.len());
    }
}
