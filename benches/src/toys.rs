//! Plans that are large and do nothing: layers of steps, each of which reads two of the layer before.
//!
//! *Invariant*: the text for a number of nodes is always the same.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ocm_engine::{Effect, Graph, Outcome, Plan, StepContext, StepError, StepTypes, Transformer};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{LoadOptions, Source, load};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Steps side by side in one layer: more than run at once, so that the heap of ready steps is never trivial.
const WIDTH: usize = 100;

/// The two nodes that `node` reads, if it is not in the first layer of `width`.
pub(crate) fn sources(node: usize, width: usize) -> Option<[usize; 2]> {
    let layer = node / width;
    let above = layer.checked_sub(1)? * width;
    Some([above + node % width, above + (node + 1) % width])
}

/// All edges of that many nodes, in the order of their targets.
pub(crate) fn edges(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(|node| {
        sources(node, WIDTH)
            .into_iter()
            .flatten()
            .map(move |source| (source, node))
    })
}

/// A step without work.
struct Noop;

/// Two values that it does not look at.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the step reads them and does nothing")]
struct NoopSpec {
    #[serde(default)]
    first: u64,
    #[serde(default)]
    second: u64,
}

/// A value.
#[derive(Serialize, JsonSchema)]
struct NoopOutput {
    value: u64,
}

impl Transformer for Noop {
    const TYPE: &'static str = "bench.noop/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Does nothing.";
    const EXAMPLE: &'static str = "{id: a, type: bench.noop/v1, spec: {}}";
    type Spec = NoopSpec;
    type Output = NoopOutput;

    async fn run(
        &self,
        _: StepContext,
        _: NoopSpec,
    ) -> std::result::Result<Outcome<NoopOutput>, StepError> {
        Ok(Outcome::new(NoopOutput { value: 1 }))
    }
}

/// A spec of no-op steps with two edges each.
pub(crate) fn noop_spec(nodes: usize) -> String {
    let mut text = String::from("transformations:\n");
    for node in 0..nodes {
        let _ = write!(text, "- id: n{node}\n  type: bench.noop/v1\n  spec:");
        match sources(node, WIDTH) {
            None => text.push_str(" {}\n"),
            Some([first, second]) => {
                let _ = writeln!(
                    text,
                    "\n    first: ${{n{first}.output.value}}\n    second: ${{n{second}.output.value}}"
                );
            }
        }
    }
    text
}

/// A step with fields of every common kind.
struct Typed;

/// A thing with fields.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Thing {
    name: String,
    version: String,
    size: u64,
    labels: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the step is checked and never run")]
struct TypedSpec {
    constant: String,
    path: String,
    object: Thing,
}

#[derive(Serialize, JsonSchema)]
struct TypedOutput {
    name: String,
    object: Thing,
}

impl Transformer for Typed {
    const TYPE: &'static str = "bench.typed/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Has fields.";
    const EXAMPLE: &'static str = "{id: a, type: bench.typed/v1, spec: {constant: c, path: p, \
        object: {name: n, version: v, size: 1, labels: []}}}";
    type Spec = TypedSpec;
    type Output = TypedOutput;

    async fn run(
        &self,
        _: StepContext,
        spec: TypedSpec,
    ) -> std::result::Result<Outcome<TypedOutput>, StepError> {
        Ok(Outcome::new(TypedOutput {
            name: spec.path,
            object: spec.object,
        }))
    }
}

/// A spec each step of which has a constant, a plain path link and a typed object link.
pub(crate) fn typed_spec(nodes: usize) -> String {
    let mut text = String::from("transformations:\n");
    for node in 0..nodes {
        let _ = write!(
            text,
            "- id: n{node}\n  type: bench.typed/v1\n  spec:\n    constant: value of {node}\n"
        );
        match sources(node, WIDTH) {
            None => text.push_str(
                "    path: start\n    object: {name: a, version: 1.0.0, size: 1, labels: [b]}\n",
            ),
            Some([first, second]) => {
                let _ = writeln!(
                    text,
                    "    path: ${{n{first}.output.name}}\n    object: ${{n{second}.output.object}}"
                );
            }
        }
    }
    text
}

/// A step that takes the time it is told to, and tells how long that was.
struct Sleep(Times);

/// How long each step took, by its number.
pub(crate) type Times = Arc<Mutex<Vec<(usize, Duration)>>>;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what it reads makes it wait")]
struct SleepSpec {
    node: usize,
    #[serde(default)]
    millis: u64,
    #[serde(default)]
    first: u64,
    #[serde(default)]
    second: u64,
}

impl Transformer for Sleep {
    const TYPE: &'static str = "bench.sleep/v1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Takes its time.";
    const EXAMPLE: &'static str = "{id: a, type: bench.sleep/v1, spec: {node: 0, millis: 100}}";
    type Spec = SleepSpec;
    type Output = NoopOutput;

    async fn run(
        &self,
        _: StepContext,
        spec: SleepSpec,
    ) -> std::result::Result<Outcome<NoopOutput>, StepError> {
        let start = Instant::now();
        if spec.millis > 0 {
            tokio::time::sleep(Duration::from_millis(spec.millis)).await;
        }
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.push((spec.node, start.elapsed()));
        Ok(Outcome::new(NoopOutput { value: 1 }))
    }
}

/// A spec of `layers` layers of `width` steps, in each of which `slow(layer)` takes `millis`.
pub(crate) fn sleep_spec(
    layers: usize,
    width: usize,
    millis: u64,
    slow: impl Fn(usize) -> usize,
) -> String {
    let mut text = String::from("transformations:\n");
    for node in 0..layers * width {
        let _ = write!(
            text,
            "- id: n{node}\n  type: bench.sleep/v1\n  spec:\n    node: {node}\n"
        );
        if slow(node / width) == node % width {
            let _ = writeln!(text, "    millis: {millis}");
        }
        if let Some([first, second]) = sources(node, width) {
            let _ = writeln!(
                text,
                "    first: ${{n{first}.output.value}}\n    second: ${{n{second}.output.value}}"
            );
        }
    }
    text
}

/// The step types of the specs above.
pub(crate) fn step_types(times: &Times) -> StepTypes {
    StepTypes::new()
        .with(Noop)
        .with(Typed)
        .with(Sleep(times.clone()))
}

/// From text to a checked plan, as a program does it.
pub(crate) fn plan(text: String, types: &StepTypes) -> Result<Plan> {
    let source = Source::new("bench.yaml", text);
    let document = load(&source, &LoadOptions::default())?;
    let (spec, _) = TransferSpec::read(&source, &document)?;
    Ok(Plan::new(Graph::link(spec)?, types)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_plans() {
        let types = step_types(&Times::default());
        for text in [
            noop_spec(250),
            typed_spec(250),
            sleep_spec(3, 10, 5, |layer| layer % 10),
        ] {
            let plan = plan(text, &types).unwrap();
            let edges = plan.edges().len();
            let steps = plan.step_names().count();
            let free = if steps == 30 { 10 } else { WIDTH };
            assert_eq!(edges, 2 * (steps - free));
        }
    }

    #[test]
    fn two_edges_each() {
        assert_eq!(sources(5, 10), None);
        assert_eq!(sources(25, 10), Some([15, 16]));
        assert_eq!(sources(29, 10), Some([19, 10]));
        assert_eq!(edges(2 * WIDTH).count(), 2 * WIDTH);
    }
}
