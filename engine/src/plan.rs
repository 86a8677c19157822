//! A checked spec: every step has its type, every value fits, every port has its readers.
//!
//! Invariant: planning does no I/O. A plan that exists can be run, printed and compared.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use ocm_content::Error;
use ocm_specs::Digest;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics, Severity, did_you_mean};
use ocm_specs::transfer::{Environment, TransferSpec};
use ocm_specs::yaml::{self, Node, Position, Value};
use serde_json::Value as Json;

use crate::error::StepError;
use crate::graph::{Graph, LinkedStep, SUGGESTIONS, in_step};
use crate::language::{
    self, Assignments, Document, Edit, Expression, Key, Object, Reference, Scope, Segment, Shapes,
    StepView, Type, TypeRoot, TypeScope, Validator, check_document,
};
use crate::ports::Connections;
use crate::provenance::{Guard, Provenance};
use crate::schedule::Edge;
use crate::step_types::{StepType, StepTypeInfo, StepTypes};

/// A spec that is ready to run.
pub struct Plan {
    pub(crate) spec: TransferSpec,
    steps: Vec<PlannedStep>,
    index: HashMap<Arc<str>, usize>,
    edges: Vec<(usize, usize, Edge)>,
    /// A topological order.
    pub(crate) order: Vec<usize>,
    warnings: Diagnostics,
    /// Made when somebody asks.
    pub(crate) identities: OnceLock<Vec<Digest>>,
}

/// One step of a plan.
pub(crate) struct PlannedStep {
    pub(crate) id: Arc<str>,
    pub(crate) bound: Arc<Bound>,
    pub(crate) document: Document,
    /// Steps that read each output port.
    pub(crate) readers: Arc<BTreeMap<String, usize>>,
    /// What it may open, where values of foreign code take part in its inputs.
    pub(crate) guard: Option<Arc<Guard>>,
}

/// A step type, ready to check and run steps of it. Made once per plan and type.
pub(crate) struct Bound {
    pub(crate) step_type: Arc<dyn StepType>,
    pub(crate) spec_type: Type,
    pub(crate) output_type: Type,
    spec_validator: Validator,
    output_validator: Validator,
    /// Has a step of this type kept the loop of the run too long with its first poll?
    pub(crate) starts_slowly: AtomicBool,
}

impl Bound {
    fn new(step_type: Arc<dyn StepType>) -> Self {
        let info = step_type.info();
        let spec_schema = Arc::new(info.spec_schema.clone());
        let output_schema = Arc::new(info.output_schema.clone());
        Self {
            spec_type: Type::of_shared_schema(&spec_schema),
            output_type: Type::of_shared_schema(&output_schema),
            spec_validator: Validator::of_checked(spec_schema),
            output_validator: Validator::of_checked(output_schema),
            starts_slowly: AtomicBool::new(false),
            step_type,
        }
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
    /// Binds every step to its type and checks everything that can be known before anything runs, but for what only the
    /// step types themselves know ([`StepType::validate`]).
    ///
    /// # Errors
    /// All of them at once, each with its place.
    pub fn new(graph: Graph, types: &StepTypes) -> Result<Self, Diagnostics> {
        Planner::checked(graph, types).finish()
    }

    /// Links and plans in one go, so that the mistakes that either finds are told together.
    ///
    /// # Errors
    /// Those of [`Graph::link`] and those of [`Plan::new`].
    pub fn link(spec: TransferSpec, types: &StepTypes) -> Result<Self, Diagnostics> {
        Self::new(Graph::link_what_can_be(spec), types)
    }

    /// [`Plan::link`] that also asks the step types what they have to say against the inputs of steps, where these are known
    /// before the run.
    ///
    /// # Errors
    /// Those of [`Plan::link`] together with what the step types say.
    pub async fn link_and_ask(spec: TransferSpec, types: &StepTypes) -> Result<Self, Diagnostics> {
        let mut planner = Planner::checked(Graph::link_what_can_be(spec), types);
        planner.ask().await;
        planner.finish()
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

    pub(crate) fn environment(&self) -> &Environment {
        &self.spec.environment
    }

    /// Says where the field of an error stands in the document, or the nearest one around it.
    pub(crate) fn placed(&self, step: usize, error: StepError) -> StepError {
        let node = error
            .field
            .as_deref()
            .and_then(|field| nearest(&self.spec.steps[step].spec, field));
        let place = node.map(|node| {
            let source = &self.spec.source;
            let Position { line, column } = source.position(node.span.start);
            format!("{}:{line}:{column}", source.name())
        });
        StepError { place, ..error }
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

/// The node at a path below `node`, or the last one on the way to it; `None` where not even the first part is there.
pub(crate) fn nearest<'n>(node: &'n Node, path: &str) -> Option<&'n Node> {
    let path = yaml::Path::parse(path).ok()?;
    let mut found = None;
    for segment in path.segments() {
        let inner = match (segment, &found.unwrap_or(node).value) {
            (yaml::Segment::Key(key), Value::Map(map)) => {
                map.get(key.as_str()).map(|member| &member.node)
            }
            (yaml::Segment::Index(index), Value::List(list)) => list.get(*index),
            _ => None,
        };
        if inner.is_none() {
            break;
        }
        found = inner;
    }
    found
}

/// A plan in the making.
pub(crate) struct Planner<'p> {
    types: &'p StepTypes,
    pub(crate) spec: TransferSpec,
    pub(crate) steps: Vec<LinkedStep>,
    pub(crate) index: HashMap<Arc<str>, usize>,
    edges: Vec<(usize, usize, Edge)>,
    order: Vec<usize>,
    pub(crate) bound: Vec<Option<Arc<Bound>>>,
    readers: Vec<BTreeMap<String, usize>>,
    guards: Vec<Option<Arc<Guard>>>,
    pub(crate) findings: Vec<Diagnostic>,
    /// How many unknown names were compared with all known ones.
    suggestions: Cell<usize>,
}

/// Findings after which nobody looks further.
const FINDINGS: usize = 10_000;

impl<'p> Planner<'p> {
    fn checked(graph: Graph, types: &'p StepTypes) -> Self {
        let mut planner = Self {
            types,
            spec: graph.spec,
            steps: graph.steps,
            index: graph.index,
            edges: graph.edges,
            order: graph.order,
            bound: Vec::new(),
            readers: Vec::new(),
            guards: Vec::new(),
            findings: graph.findings,
            suggestions: Cell::new(0),
        };
        planner.bind();
        planner.check();
        planner.connect();
        planner
    }

    /// Finds who reads which content, content that does not fit where it is read, and what may not name content.
    fn connect(&mut self) {
        let connections = Connections::of(
            &self.spec,
            &self.steps,
            &self.index,
            &self.bound,
            &self.order,
        );
        self.readers = connections.readers;
        self.findings.extend(connections.findings);
        let provenance = Provenance::of(
            &self.spec,
            &self.steps,
            &self.index,
            &self.bound,
            &self.edges,
            &self.order,
        );
        self.guards = provenance.guards;
        self.findings.extend(provenance.findings);
    }

    fn finish(mut self) -> Result<Plan, Diagnostics> {
        if !self.findings.iter().any(is_error) {
            self.resolve_aliases();
        }
        let findings = Diagnostics::new(self.spec.source.clone(), self.findings);
        if findings.has_errors() {
            return Err(findings);
        }
        let nobody: Arc<BTreeMap<String, usize>> = Arc::default();
        let wired = self.readers.into_iter().zip(self.guards);
        let parts = self.steps.into_iter().zip(self.bound).zip(wired);
        let steps = parts.filter_map(|((step, bound), (readers, guard))| {
            Some(PlannedStep {
                id: step.id,
                bound: bound?,
                document: step.document,
                readers: match readers.is_empty() {
                    true => nobody.clone(),
                    false => Arc::new(readers),
                },
                guard,
            })
        });
        Ok(Plan {
            steps: steps.collect(),
            spec: self.spec,
            index: self.index,
            edges: self.edges,
            order: self.order,
            warnings: findings,
            identities: OnceLock::new(),
        })
    }

    fn bind(&mut self) {
        let mut by_name: HashMap<&str, Option<Arc<Bound>>> = HashMap::new();
        for (step, linked) in self.spec.steps.iter().zip(&self.steps) {
            let name = step.step_type.text.as_str();
            let bind = || {
                let step_type = self.types.get(name)?;
                Some(Arc::new(Bound::new(step_type.clone())))
            };
            let bound = by_name.entry(name).or_insert_with(bind).clone();
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
    /// the printed plan says what is meant (transformation.md, R2). Last: positions are those of the text as written.
    fn resolve_aliases(&mut self) {
        let (aliases, source) = (
            Aliases {
                index: &self.index,
                bound: &self.bound,
            },
            &self.spec.source,
        );
        for (step, spec) in self.steps.iter_mut().zip(&mut self.spec.steps) {
            if step.document.is_constant() {
                continue;
            }
            step.document.visit(&spec.spec, &mut |site| {
                for placed in site.template.expressions() {
                    for (at, message) in aliases.ambiguous(&placed.expression) {
                        let span = site.place(Some(source), placed, &at);
                        let finding = Diagnostic::warning("W106", span, message);
                        self.findings.push(finding.in_step(&*step.id));
                    }
                }
            });
            let rewritten = step
                .document
                .rewrite(&mut spec.spec, &mut |expression| aliases.edits(expression));
            if let Err(errors) = rewritten {
                let errors = errors.into_iter().map(|error| in_step(error, &step.id));
                self.findings.extend(errors);
            }
        }
    }

    /// Checks the inputs of every step. In document order: what a type says of a step does not depend on other steps.
    fn check(&mut self) {
        let environment = Shapes::default().environment(&self.spec.environment);
        let specs: Vec<Option<Type>> = (0..self.steps.len()).map(|at| self.spec_view(at)).collect();
        let scope = PlanScope {
            planner: self,
            environment: &environment,
            specs: &specs,
        };
        let mut assignments = Assignments::default();
        let mut findings = Vec::new();
        let steps = self.spec.steps.iter().zip(&self.steps).zip(&self.bound);
        for ((spec, step), bound) in steps {
            let found = check_document(
                bound.as_ref().map_or(&UNKNOWN, |bound| &bound.spec_type),
                &spec.spec,
                &step.document,
                &scope,
                Some(&self.spec.source),
                &mut assignments,
            );
            let demands = bound.as_ref().map_or_else(Vec::new, |bound| {
                bound
                    .spec_validator
                    .validate_literals(&spec.spec, &step.document)
            });
            if findings.len() >= FINDINGS {
                break;
            }
            // The schema repeats in its words what the type said in better ones, at the same place or around it.
            let is_new = |demand: &language::Diagnostic| {
                !found.iter().any(|known| {
                    demand.span.start <= known.span.start && known.span.end <= demand.span.end
                })
            };
            let demands: Vec<_> = demands.into_iter().filter(is_new).collect();
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
        let (node, document) = (&self.spec.steps[at].spec, &self.steps[at].document);
        let is_open = |ty: &Type| match ty.resolved() {
            Type::Dyn => true,
            Type::Map(values) => values.is_dyn(),
            _ => false,
        };
        let mut refined = None;
        for name in map.keys() {
            if object
                .fields
                .get(name.as_str())
                .is_some_and(|field| is_open(&field.ty))
            {
                let fields = refined.get_or_insert_with(|| object.fields.clone());
                if let (Some(field), Some(ty)) = (
                    fields.get_mut(name.as_str()),
                    document.type_of_field(node, name),
                ) {
                    field.ty = ty;
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
        // Looking at every step for every mistake would take long in a large spec with many.
        let told = self
            .planner
            .suggestions
            .replace(self.planner.suggestions.get() + 1);
        if told >= SUGGESTIONS {
            return Vec::new();
        }
        let steps = self.planner.steps.iter().map(|step| step.id.to_string());
        steps.chain(["environment".to_owned()]).collect()
    }
}

pub(crate) fn is_error(finding: &Diagnostic) -> bool {
    finding.severity == Severity::Error
}

/// Other words for the fields of steps.
struct Aliases<'a> {
    index: &'a HashMap<Arc<str>, usize>,
    bound: &'a [Option<Arc<Bound>>],
}

impl Aliases<'_> {
    fn of<'e>(&self, reference: &'e Reference<'_>) -> Option<(&'e Segment, &'e str, &Bound)> {
        let bound = self.bound[*self.index.get(reference.root)?].as_ref()?;
        let first = reference.segments.first()?;
        match &first.key {
            Key::Field(name) => Some((first, name, bound)),
            Key::Index(_) => None,
        }
    }

    fn edits(&self, expression: &Expression) -> Vec<Edit> {
        let mut edits = Vec::new();
        for reference in expression.references() {
            let Some((first, name, bound)) = self.of(&reference) else {
                continue;
            };
            if name == "outputs" {
                let is_bracketed = first.range().len() != name.len();
                let text = if is_bracketed { "'output'" } else { "output" };
                edits.push(Edit {
                    at: first.range(),
                    text: text.to_owned(),
                });
                continue;
            }
            if StepView::FIELDS.contains(&name) {
                continue;
            }
            let part = if bound.output_type.field(name).is_some() {
                ".output"
            } else if bound.spec_type.field(name).is_some() {
                ".spec"
            } else {
                continue; // the type check says what is wrong
            };
            // Right behind the variable, which fits every way of going on: `.name`, `.?name`, `["name"]`.
            edits.push(Edit {
                at: reference.at.end..reference.at.end,
                text: part.to_owned(),
            });
        }
        edits
    }

    /// Uses of a name that stands for an output although there is an input of that name, too.
    fn ambiguous(&self, expression: &Expression) -> Vec<(Range<usize>, String)> {
        let mut found = Vec::new();
        for reference in expression.references() {
            let Some((first, name, bound)) = self.of(&reference) else {
                continue;
            };
            let is_alias = name != "outputs" && !StepView::FIELDS.contains(&name);
            let is_field = |ty: &Type| ty.field(name).is_some();
            if is_alias && is_field(&bound.output_type) && is_field(&bound.spec_type) {
                let step = reference.root;
                let message = format!(
                    "`{step}.{name}` is taken for `{step}.output.{name}`, not for `{step}.spec.{name}`"
                );
                found.push((first.range(), message));
            }
        }
        found
    }
}
