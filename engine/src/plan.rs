//! A checked spec: every step has its type, every value fits, every port has its readers.
//!
//! Invariant: planning does no I/O. A plan that exists can be run, printed and compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ocm_content::Error;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{Node, Value};
use serde_json::{Map as JsonMap, Value as Json};

use crate::graph::{Graph, LinkedStep, in_step};
use crate::language::{
    Assignments, Document, Edit, Expression, Key, Object, Placed, Scope, StepView, Template, Type,
    TypeRoot, TypeScope, Validator, check_document, splice,
};
use crate::schedule::Edge;
use crate::step::StepError;
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
    pub(crate) bound: Arc<Bound>,
    document: Document,
    /// Steps that read each output port.
    pub(crate) readers: Arc<BTreeMap<String, usize>>,
}

/// A step type, ready to check and run steps of it. Made once per plan and type.
pub(crate) struct Bound {
    pub(crate) step_type: Arc<dyn StepType>,
    spec_type: Type,
    output_type: Type,
    spec_validator: Validator,
    output_validator: Validator,
}

impl Bound {
    fn new(step_type: Arc<dyn StepType>) -> Result<Self, Error> {
        let info = step_type.info();
        let compile = |schema| {
            let unusable = |error| Error::internal(format!("step type `{}`: {error}", info.name));
            Validator::new(schema).map_err(unusable)
        };
        Ok(Self {
            spec_type: Type::of_schema(&info.spec_schema),
            output_type: Type::of_schema(&info.output_schema),
            spec_validator: compile(&info.spec_schema)?,
            output_validator: compile(&info.output_schema)?,
            step_type,
        })
    }

    pub(crate) fn info(&self) -> &StepTypeInfo {
        self.step_type.info()
    }

    /// Judges inputs as they are before the step runs.
    pub(crate) fn check_spec(&self, spec: &Json) -> Result<(), StepError> {
        match self.spec_validator.validate_value(spec).into_iter().next() {
            None => Ok(()),
            Some(finding) => Err(StepError::at(finding.path, Error::invalid(finding.message))),
        }
    }

    /// Judges what a step gave.
    pub(crate) fn check_output(&self, output: &Json) -> Result<(), StepError> {
        match self
            .output_validator
            .validate_value(output)
            .into_iter()
            .next()
        {
            None => Ok(()),
            Some(finding) => Err(Error::internal(format!(
                "the output does not fit its own schema at `{}`: {}",
                finding.path, finding.message
            ))
            .into()),
        }
    }
}

impl Plan {
    /// Binds every step to its type and checks everything that can be known before anything runs.
    ///
    /// # Errors
    /// All of them at once, each with its place.
    pub fn new(graph: Graph, types: &StepTypes) -> Result<Self, Diagnostics> {
        let Graph {
            spec,
            steps,
            index,
            edges,
            order,
        } = graph;
        let mut planner = Planner {
            types,
            index: &index,
            spec,
            steps,
            bound: Vec::new(),
            findings: Vec::new(),
        };
        planner.bind();
        planner.resolve_aliases();
        planner.check(&order);
        let Planner {
            spec,
            steps,
            bound,
            findings,
            ..
        } = planner;
        let findings = Diagnostics::new(spec.source.clone(), findings);
        if findings.has_errors() {
            return Err(findings);
        }
        let readers = readers(&spec, &steps, &index, &bound);
        let steps =
            steps
                .into_iter()
                .zip(bound)
                .zip(readers)
                .filter_map(|((step, bound), readers)| {
                    Some(PlannedStep {
                        id: step.id,
                        bound: bound?,
                        document: step.document,
                        readers: Arc::new(readers),
                    })
                });
        let steps = steps.collect();
        let environment = environment(&spec);
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
        let specs = self.spec.steps.iter();
        self.steps
            .iter()
            .zip(specs)
            .map(|(step, spec)| (&step.id, &*spec.step_type.text, spec.label.as_deref()))
    }

    /// What the engine and its users know about a step's type.
    pub fn type_info(&self, id: &str) -> Option<&StepTypeInfo> {
        Some(self.steps[self.index_of(id)?].bound.info())
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

    /// A step's inputs, with every expression evaluated in `scope`, judged by the schema again as a whole: a computed
    /// value may break a pattern.
    pub(crate) fn evaluate(&self, step: usize, scope: &dyn Scope) -> Result<Json, StepError> {
        let planned = &self.steps[step];
        let node = &self.spec.steps[step].spec;
        let spec = planned
            .document
            .evaluate(node, &planned.bound.spec_type, scope)
            .map_err(|error| {
                let mut cause = Error::invalid(error.error.message);
                if let Some(hint) = error.error.hint {
                    cause = cause.with_hint(hint);
                }
                StepError::at(error.path, cause)
            })?;
        planned.bound.check_spec(&spec)?;
        Ok(spec)
    }
}

fn environment(spec: &TransferSpec) -> Json {
    spec.environment
        .as_ref()
        .map_or_else(|| Json::Object(JsonMap::new()), Node::to_json)
}

struct Planner<'p> {
    types: &'p StepTypes,
    index: &'p HashMap<Arc<str>, usize>,
    spec: TransferSpec,
    steps: Vec<LinkedStep>,
    bound: Vec<Option<Arc<Bound>>>,
    findings: Vec<Diagnostic>,
}

impl Planner<'_> {
    fn bind(&mut self) {
        let mut by_name: HashMap<&str, Option<Arc<Bound>>> = HashMap::new();
        for (step, linked) in self.spec.steps.iter().zip(&self.steps) {
            let name = step.step_type.text.as_str();
            if !by_name.contains_key(name) {
                let bound = self
                    .types
                    .get(name)
                    .map(|step_type| Bound::new(step_type.clone()).map(Arc::new));
                if let Some(Err(error)) = &bound {
                    self.findings
                        .push(Diagnostic::error(step.step_type.span, error.to_string()));
                }
                by_name.insert(name, bound.and_then(Result::ok));
            }
            let bound = by_name.get(name).cloned().flatten();
            if bound.is_none() {
                let finding =
                    Diagnostic::error(step.step_type.span, format!("unknown step type `{name}`"));
                let finding = finding.with_hint(self.type_hint(name)).in_step(&*linked.id);
                self.findings.push(finding);
            }
            self.bound.push(bound);
        }
    }

    fn type_hint(&self, name: &str) -> String {
        let base = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
        let other_version = self.types.names().find(|known| base(known) == base(name));
        match other_version.or_else(|| did_you_mean(name, self.types.names())) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "`ocm get types` lists the step types".to_owned(),
        }
    }

    /// Rewrites `x.name` to `x.output.name` or `x.spec.name`, whichever `x` has, and `x.outputs` to `x.output`, so that
    /// the printed plan says what is meant (transformation.md, R2).
    fn resolve_aliases(&mut self) {
        for at in 0..self.steps.len() {
            let mut rewritten = Vec::new();
            self.steps[at]
                .document
                .visit(&self.spec.steps[at].spec, &mut |site| {
                    let Some(text) = site.node.as_str() else {
                        return;
                    };
                    let edits: Vec<Edit> = site
                        .template
                        .expressions()
                        .flat_map(|placed| self.alias_edits(placed))
                        .collect();
                    if !edits.is_empty()
                        && let Some(new) = splice(text, &edits)
                    {
                        rewritten.push((site.node.span, text.to_owned(), new));
                    }
                });
            for (span, old, new) in rewritten {
                replace_text(&mut self.spec.steps[at].spec, span, &old, &new);
                self.reparse(at);
            }
        }
    }

    fn reparse(&mut self, at: usize) {
        match Document::parse(&self.spec.steps[at].spec, Some(&self.spec.source)) {
            Ok(document) => self.steps[at].document = document,
            Err(errors) => {
                let id = self.steps[at].id.clone();
                self.findings
                    .extend(errors.into_iter().map(|error| in_step(error, &id)));
            }
        }
    }

    fn alias_edits(&self, placed: &Placed) -> Vec<Edit> {
        let mut edits = Vec::new();
        for reference in placed.expression.references() {
            let Some(bound) = self
                .index
                .get(reference.root)
                .and_then(|step| self.bound[*step].as_ref())
            else {
                continue;
            };
            let Some(first) = reference.segments.first() else {
                continue;
            };
            let Key::Field(name) = &first.key else {
                continue;
            };
            let at = first.range();
            let at = at.start + placed.offset..at.end + placed.offset;
            if &**name == "outputs" {
                edits.push(Edit {
                    at,
                    text: "output".to_owned(),
                });
                continue;
            }
            if StepView::FIELDS.contains(&&**name) {
                continue;
            }
            let part = if bound.output_type.field(name).is_some() {
                "output"
            } else if bound.spec_type.field(name).is_some() {
                "spec"
            } else {
                continue; // the type check says what is wrong
            };
            edits.push(Edit {
                at: at.start..at.start,
                text: format!("{part}."),
            });
        }
        edits
    }

    /// Types every step in topological order, so that what a step refers to is known when it is looked at.
    fn check(&mut self, order: &[usize]) {
        let environment = match &self.spec.environment {
            Some(node) => Type::of_node(node),
            None => Type::Object(Arc::new(Object::default())),
        };
        let specs: Vec<Option<Type>> = (0..self.steps.len()).map(|at| self.spec_view(at)).collect();
        let mut assignments = Assignments::default();
        let mut findings = Vec::new();
        for at in order.iter().copied() {
            let Some(bound) = &self.bound[at] else {
                continue;
            };
            let (step, node) = (&self.steps[at], &self.spec.steps[at].spec);
            let scope = PlanScope {
                planner: self,
                environment: &environment,
                specs: &specs,
            };
            let found = check_document(
                &bound.spec_type,
                node,
                &step.document,
                &scope,
                Some(&self.spec.source),
                &mut assignments,
            );
            let demands = match found.is_empty() {
                true => bound.spec_validator.validate_literals(node, &step.document),
                false => Vec::new(),
            };
            findings.extend(
                found
                    .into_iter()
                    .chain(demands)
                    .map(|finding| in_step(finding, &step.id)),
            );
        }
        self.findings.extend(findings);
    }

    /// What others see of a step's inputs: its type's schema, and where that leaves a field open, the constants given.
    fn spec_view(&self, at: usize) -> Option<Type> {
        let bound = self.bound[at].as_ref()?;
        let (Some(object), Some(map)) = (
            bound.spec_type.as_object(),
            self.spec.steps[at].spec.as_map(),
        ) else {
            return None;
        };
        if !self.steps[at].document.is_constant() {
            return None;
        }
        let is_open = |ty: &Type| match ty.resolved() {
            Type::Dyn => true,
            Type::Map(values) => values.is_dyn(),
            _ => false,
        };
        let mut refined = None;
        for (name, member) in map {
            if object
                .fields
                .get(name.as_str())
                .is_some_and(|field| is_open(&field.ty))
            {
                let object = refined.get_or_insert_with(|| object.fields.clone());
                if let Some(field) = object.get_mut(name.as_str()) {
                    field.ty = Type::of_node(&member.node);
                }
            }
        }
        let fields = refined?;
        Some(Type::Object(Arc::new(Object {
            fields,
            title: object.title.clone(),
            additional: object.additional.clone(),
        })))
    }
}

struct PlanScope<'a> {
    planner: &'a Planner<'a>,
    environment: &'a Type,
    specs: &'a [Option<Type>],
}

static UNKNOWN: Type = Type::Dyn;

impl TypeScope for PlanScope<'_> {
    fn root(&self, name: &str) -> Option<TypeRoot<'_>> {
        if name == "environment" {
            return Some(TypeRoot::Value(self.environment));
        }
        let step = *self.planner.index.get(name)?;
        // A step of an unknown type is reported once, as such; what it gives may be anything.
        let Some(bound) = &self.planner.bound[step] else {
            return Some(TypeRoot::Value(&UNKNOWN));
        };
        let spec = self.specs[step].as_ref().unwrap_or(&bound.spec_type);
        Some(TypeRoot::Step {
            spec,
            output: &bound.output_type,
        })
    }

    fn names(&self) -> Vec<String> {
        let steps = self.planner.steps.iter().map(|step| step.id.to_string());
        steps.chain(["environment".to_owned()]).collect()
    }
}

/// Replaces the string `old` that stands at `span`.
fn replace_text(node: &mut Node, span: ocm_specs::yaml::Span, old: &str, new: &str) {
    match &mut node.value {
        Value::String(text) if node.span == span && text == old => new.clone_into(text),
        Value::List(list) => list
            .iter_mut()
            .for_each(|item| replace_text(item, span, old, new)),
        Value::Map(map) => map
            .values_mut()
            .for_each(|member| replace_text(&mut member.node, span, old, new)),
        _ => {}
    }
}

/// How many steps read each output port of each step. A plain path into a port field counts; so does every port that a
/// longer expression in a port field names. A port field that hands on another step's port field is followed.
fn readers(
    spec: &TransferSpec,
    steps: &[LinkedStep],
    index: &HashMap<Arc<str>, usize>,
    bound: &[Option<Arc<Bound>>],
) -> Vec<BTreeMap<String, usize>> {
    let ports = Ports {
        spec,
        steps,
        index,
        bound,
    };
    let mut readers = vec![BTreeMap::new(); steps.len()];
    for (at, bound) in bound.iter().enumerate() {
        let inputs = bound.iter().flat_map(|bound| &bound.info().inputs);
        for template in inputs.filter_map(|port| ports.template(at, &port.name)) {
            for placed in template.expressions() {
                for (source, output) in ports.sources(&placed.expression, HOPS) {
                    *readers[source].entry(output).or_default() += 1;
                }
            }
        }
    }
    readers
}

/// How often a field that hands on another step's input is followed. Behind that, content is not counted as read by
/// several: a re-openable one is read twice then, a once one says so.
const HOPS: usize = 16;

struct Ports<'a> {
    spec: &'a TransferSpec,
    steps: &'a [LinkedStep],
    index: &'a HashMap<Arc<str>, usize>,
    bound: &'a [Option<Arc<Bound>>],
}

impl<'a> Ports<'a> {
    /// The template in a top-level input field of a step.
    fn template(&self, step: usize, field: &str) -> Option<&'a Template> {
        self.steps[step]
            .document
            .template_at(&self.spec.steps[step].spec, &[field])
    }

    /// The output ports that an expression may give.
    fn sources(&self, expression: &Expression, hops: usize) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for reference in expression.references() {
            let Some(step) = self.index.get(reference.root).copied() else {
                continue;
            };
            let Some(bound) = &self.bound[step] else {
                continue;
            };
            let mut names = reference
                .segments
                .iter()
                .map_while(|segment| match &segment.key {
                    Key::Field(name) => Some(&**name),
                    Key::Index(_) => None,
                });
            let is_port = |name: &str| bound.info().outputs.iter().any(|port| port.name == name);
            match (names.next(), names.next(), names.next()) {
                (Some("output"), Some(name), None) if is_port(name) => {
                    found.push((step, name.to_owned()))
                }
                (Some("spec"), Some(name), None) if hops > 0 => {
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
