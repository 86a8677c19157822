//! Examples of a plugin, planned: the steps they refer to are made up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::BoxFuture;
use ocm_content::Error;
use ocm_engine::language::{Document, Key};
use ocm_engine::{
    Effect, Outcome, Plan, StepContext, StepError, StepType, StepTypeInfo, StepTypes,
};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{LoadOptions, Member, Node, Source, Span, Value, load};
use serde_json::{Value as Json, json};

/// The type of the steps that examples refer to and do not have.
const STAND_IN: &str = "StandIn/v1";

/// One step of an example.
#[derive(Clone, Debug)]
pub(super) struct ExampleStep {
    pub(super) step_type: String,
    /// Without ports; `None` where an expression decides about it.
    pub(super) spec: Option<Json>,
}

/// Reads steps as they stand in a spec, a list of them or a single one, and plans them. Ports in `given` may be left out.
///
/// # Errors
/// What a plan would be refused with, with lines of `text`.
pub(super) fn plan(
    name: &str,
    text: &str,
    given: &BTreeSet<&str>,
    step_types: &[Arc<dyn StepType>],
) -> Result<Vec<ExampleStep>, String> {
    let source = Source::new(name, text);
    let node = load(&source, &LoadOptions::default()).map_err(|error| error.located(&source))?;
    let mut steps = match node.value {
        Value::List(steps) => steps,
        Value::Map(_) => vec![node],
        _ => return Err(format!("{name}: write a step, or a list of steps")),
    };
    let examples: Vec<ExampleStep> = steps
        .iter()
        .map(|step| example_step(step, step_types))
        .collect();
    let mut types = StepTypes::new();
    types
        .add(Arc::new(StandIn::new()))
        .map_err(|error| error.to_string())?;
    for step_type in step_types {
        types
            .add(step_type.clone())
            .map_err(|error| error.to_string())?;
    }
    for step in &mut steps {
        connect(step, given);
    }
    let document = complete(steps, &source);
    let (spec, _) = TransferSpec::read(&source, &document).map_err(|error| error.to_string())?;
    Plan::link(spec, &types).map_err(|error| error.to_string())?;
    Ok(examples)
}

fn example_step(step: &Node, step_types: &[Arc<dyn StepType>]) -> ExampleStep {
    let name = step.get("type").and_then(Node::as_str).unwrap_or_default();
    let ports: Vec<&str> = step_types
        .iter()
        .map(|known| known.info())
        .filter(|info| info.name == name)
        .flat_map(|info| info.inputs.iter().map(|port| port.name.as_str()))
        .collect();
    let mut spec = match step.get("spec").map(|spec| &spec.value) {
        Some(Value::Map(fields)) => fields.clone(),
        _ => Default::default(),
    };
    spec.retain(|field, _| !ports.contains(&field.as_str()));
    let spec = Node::new(Value::Map(spec));
    let is_constant = Document::read(&spec, None).document.is_constant();
    ExampleStep {
        step_type: name.to_owned(),
        spec: is_constant.then(|| spec.to_json()),
    }
}

/// Gives a step the ports that it leaves out.
fn connect(step: &mut Node, given: &BTreeSet<&str>) {
    let Value::Map(fields) = &mut step.value else {
        return;
    };
    let nowhere = |value| Member {
        key: Span::default(),
        node: Node::new(value),
    };
    if !fields.contains_key("id") {
        fields.insert("id".to_owned(), nowhere(Value::String("test1".to_owned())));
    }
    let spec = fields
        .entry("spec".to_owned())
        .or_insert_with(|| nowhere(Value::Map(Default::default())));
    if let Value::Map(spec) = &mut spec.node.value {
        for port in given {
            let expression = format!("${{given.output.{port}}}");
            spec.entry((*port).to_owned())
                .or_insert_with(|| nowhere(Value::String(expression)));
        }
    }
}

/// A whole spec: the steps, and stand-ins for all that they refer to.
fn complete(mut steps: Vec<Node>, source: &Arc<Source>) -> Node {
    let ids: BTreeSet<String> = steps
        .iter()
        .filter_map(|step| step.get("id").and_then(Node::as_str).map(str::to_owned))
        .collect();
    let (mut missing, mut environment) = (BTreeSet::new(), BTreeMap::new());
    for step in &steps {
        let Some(spec) = step.get("spec") else {
            continue;
        };
        let document = Document::read(spec, Some(source)).document;
        document.visit(spec, &mut |site| {
            for placed in site.template.expressions() {
                for reference in placed.expression.references() {
                    match reference.segments.first() {
                        Some(first) if reference.root == "environment" => {
                            if let Key::Field(name) = &first.key {
                                environment.insert(name.to_string(), json!("value"));
                            }
                        }
                        _ => {
                            missing.insert(reference.root.to_owned());
                        }
                    }
                }
            }
        });
    }
    let stand_ins = missing.difference(&ids).map(|id| {
        let step = json!({"id": id, "type": STAND_IN, "spec": {}});
        Node::from_json(&step, Span::default())
    });
    steps.extend(stand_ins.collect::<Vec<_>>());
    let member = |node| Member {
        key: Span::default(),
        node,
    };
    let environment = Node::from_json(&json!(environment), Span::default());
    let fields = [
        ("environment", environment),
        ("transformations", Node::new(Value::List(steps))),
    ];
    let fields = fields.map(|(name, node)| (name.to_owned(), member(node)));
    Node::new(Value::Map(fields.into_iter().collect()))
}

/// Gives whatever is asked of it, in plans that are never run.
struct StandIn(StepTypeInfo);

impl StandIn {
    fn new() -> Self {
        Self(StepTypeInfo {
            name: STAND_IN.to_owned(),
            aliases: Vec::new(),
            summary: "Stands for any other step.".to_owned(),
            example: String::new(),
            effect: Effect::None,
            deterministic: true,
            implementation: None,
            spec_schema: json!({"type": "object"}),
            output_schema: json!({"type": "object", "additionalProperties": true}),
            inputs: Vec::new(),
            outputs: Vec::new(),
        })
    }
}

impl StepType for StandIn {
    fn info(&self) -> &StepTypeInfo {
        &self.0
    }

    fn run(&self, _: StepContext, _: Json) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        Box::pin(async { Err(Error::internal("a stand-in is not run").into()) })
    }
}
