//! A checked spec: every step has its type, every value fits, every port has its readers.
//!
//! Invariant: planning does no I/O. A plan that exists can be run, printed and compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ocm_specs::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{Node, Value};
use serde_json::{Map as JsonMap, Value as Json};

use crate::graph::{Graph, LinkedStep, Strings};
use crate::inputs::{Field, Inputs};
use crate::language::{Expression, Key, Template};
use crate::schedule::Edge;
use crate::step_types::{StepType, StepTypeInfo, StepTypes};

/// A spec that is ready to run.
pub struct Plan {
    spec: TransferSpec,
    environment: Json,
    steps: Vec<PlannedStep>,
    index: HashMap<Arc<str>, usize>,
    edges: Vec<(usize, usize, Edge)>,
    warnings: Diagnostics,
}

/// One step of a plan.
pub(crate) struct PlannedStep {
    pub(crate) id: Arc<str>,
    pub(crate) type_name: Arc<str>,
    pub(crate) step_type: Arc<dyn StepType>,
    pub(crate) inputs: Inputs,
    /// Steps that read each output port.
    pub(crate) readers: Arc<BTreeMap<String, usize>>,
}

impl Plan {
    /// Binds every step to its type and checks everything that can be known before anything runs.
    ///
    /// # Errors
    /// All of them at once, each with its place.
    pub fn new(graph: Graph, types: &StepTypes) -> Result<Self, Diagnostics> {
        let Graph {
            spec,
            steps: linked,
            index,
            edges,
            order,
            warnings,
        } = graph;
        let mut planner = Planner {
            types,
            findings: warnings,
            bound: Vec::new(),
        };
        planner.bind(&spec, &linked);
        let _ = order;
        let findings = Diagnostics::new(spec.source.clone(), planner.findings);
        if findings.has_errors() {
            return Err(findings);
        }
        let readers = readers(&spec, &linked, &index, &planner.bound);
        let bound = planner.bound.into_iter().flatten();
        let steps = linked.into_iter().zip(&spec.steps).zip(bound).zip(readers);
        let steps = steps
            .map(|(((linked, step), step_type), readers)| PlannedStep {
                inputs: inputs(&step.spec, linked.strings, &step_type.info().spec_schema),
                id: linked.id,
                type_name: step.step_type.text.as_str().into(),
                step_type,
                readers: Arc::new(readers),
            })
            .collect();
        let environment = spec
            .environment
            .as_ref()
            .map_or_else(|| Json::Object(JsonMap::new()), Node::to_json);
        Ok(Self {
            spec,
            environment,
            steps,
            index,
            edges,
            warnings: findings,
        })
    }

    /// The plan as a spec in native form: what a dry run prints, and what gives an equal plan again.
    pub fn to_json(&self) -> Json {
        self.spec.to_json()
    }

    /// What the author may want to know.
    pub fn warnings(&self) -> &Diagnostics {
        &self.warnings
    }

    /// Ids, types and labels of the steps in document order.
    pub fn step_names(&self) -> impl Iterator<Item = (&Arc<str>, &str, Option<&str>)> {
        let labels = self.spec.steps.iter().map(|step| step.label.as_deref());
        self.steps
            .iter()
            .zip(labels)
            .map(|(step, label)| (&step.id, &*step.type_name, label))
    }

    /// What the engine and its users know about a step's type.
    pub fn type_info(&self, id: &str) -> Option<&StepTypeInfo> {
        Some(self.steps[self.index_of(id)?].step_type.info())
    }

    /// The edges, from a step to one that depends on it, by position in the document.
    pub fn edges(&self) -> &[(usize, usize, Edge)] {
        &self.edges
    }

    pub(crate) fn steps(&self) -> &[PlannedStep] {
        &self.steps
    }

    pub(crate) fn index_of(&self, id: &str) -> Option<usize> {
        self.index.get(id).copied()
    }

    pub(crate) fn environment(&self) -> &Json {
        &self.environment
    }
}

struct Planner<'t> {
    types: &'t StepTypes,
    findings: Vec<Diagnostic>,
    bound: Vec<Option<Arc<dyn StepType>>>,
}

impl Planner<'_> {
    fn bind(&mut self, spec: &TransferSpec, linked: &[LinkedStep]) {
        for (step, linked) in spec.steps.iter().zip(linked) {
            let bound = self.types.get(&step.step_type.text).cloned();
            if bound.is_none() {
                let finding = self.unknown_type(&step.step_type.text);
                self.findings.push(
                    Diagnostic {
                        span: step.step_type.span,
                        ..finding
                    }
                    .in_step(&*linked.id),
                );
            }
            self.bound.push(bound);
        }
    }

    fn unknown_type(&self, name: &str) -> Diagnostic {
        let finding = Diagnostic::error(Default::default(), format!("unknown step type `{name}`"));
        let base = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let other_version = self.types.names().find(|known| base(known) == base(name));
        match other_version.or_else(|| did_you_mean(name, self.types.names())) {
            Some(known) => finding.with_hint(format!("did you mean `{known}`?")),
            None => finding.with_hint("`ocm get types` lists the step types"),
        }
    }
}

/// A step's inputs with its strings parsed.
fn inputs(node: &Node, strings: Strings, schema: &Json) -> Inputs {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    input(node, strings, &required)
}

fn input(node: &Node, strings: Strings, required: &[&str]) -> Inputs {
    match (strings, &node.value) {
        (Strings::Template(template), Value::String(text)) => {
            Inputs::Template(template, text.as_str().into())
        }
        (Strings::List(strings), Value::List(list)) => Inputs::List(
            list.iter()
                .zip(strings)
                .map(|(node, strings)| input(node, strings, &[]))
                .collect(),
        ),
        (Strings::Map(strings), Value::Map(map)) => {
            let fields = map.iter().zip(strings).map(|((key, member), strings)| {
                let field = if required.contains(&key.as_str()) {
                    Field::Required
                } else {
                    Field::Optional
                };
                (key.clone(), input(&member.node, strings, &[]), field)
            });
            Inputs::Map(fields.collect())
        }
        _ => Inputs::Constant(node.to_json()),
    }
}

/// How many steps read each output port of each step. A plain path into a port field counts; so does every port that a
/// longer expression in a port field names. A port field that hands on another step's port field is followed.
fn readers(
    spec: &TransferSpec,
    linked: &[LinkedStep],
    index: &HashMap<Arc<str>, usize>,
    bound: &[Option<Arc<dyn StepType>>],
) -> Vec<BTreeMap<String, usize>> {
    let ports = Ports {
        spec,
        linked,
        index,
        bound,
    };
    let mut readers = vec![BTreeMap::new(); linked.len()];
    for (at, step_type) in bound.iter().enumerate() {
        let Some(step_type) = step_type else { continue };
        for port in &step_type.info().inputs {
            let Some(template) = ports.template(at, &port.name) else {
                continue;
            };
            for placed in template.expressions() {
                for (source, output) in ports.sources(&placed.expression, linked.len()) {
                    *readers[source].entry(output).or_default() += 1;
                }
            }
        }
    }
    readers
}

struct Ports<'a> {
    spec: &'a TransferSpec,
    linked: &'a [LinkedStep],
    index: &'a HashMap<Arc<str>, usize>,
    bound: &'a [Option<Arc<dyn StepType>>],
}

impl<'a> Ports<'a> {
    /// The template in a top-level input field of a step.
    fn template(&self, step: usize, field: &str) -> Option<&'a Template> {
        let Strings::Map(strings) = &self.linked[step].strings else {
            return None;
        };
        let position = self.spec.steps[step].spec.as_map()?.get_index_of(field)?;
        match strings.get(position)? {
            Strings::Template(template) => Some(template),
            _ => None,
        }
    }

    /// The output ports that an expression may give. `hops` bounds how often a field that hands on another is followed.
    fn sources(&self, expression: &Expression, hops: usize) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for reference in expression.references() {
            let Some(step) = self.index.get(reference.root).copied() else {
                continue;
            };
            let mut names = reference
                .segments
                .iter()
                .map_while(|segment| match &segment.key {
                    Key::Field(name) => Some(&**name),
                    Key::Index(_) => None,
                });
            let Some(info) = self.bound[step].as_ref().map(|bound| bound.info()) else {
                continue;
            };
            let is_output = |name: &str| info.outputs.iter().any(|port| port.name == name);
            match (names.next(), names.next()) {
                (Some("output" | "outputs"), Some(name)) if is_output(name) => {
                    found.push((step, name.to_owned()))
                }
                (Some("spec"), Some(name)) if hops > 0 => {
                    let handed_on = self
                        .template(step, name)
                        .into_iter()
                        .flat_map(Template::expressions);
                    found.extend(
                        handed_on.flat_map(|placed| self.sources(&placed.expression, hops - 1)),
                    );
                }
                _ => {}
            }
        }
        found
    }
}
