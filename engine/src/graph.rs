//! A linked spec: every step has an id, every expression is parsed, every reference is an edge, and there is no cycle.
//!
//! Invariant: linking knows no step type; what types say is the plan's matter.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ocm_specs::diagnostic::{Diagnostic, Diagnostics, Severity, did_you_mean};
use ocm_specs::transfer::{Dialect, StepSpec, TransferSpec, Word};
use ocm_specs::yaml::{Node, Source, Span, Value};
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use serde_json::{Number, Value as Json};

use crate::language::{self, Document};
use crate::schedule::Edge;

/// Words that are no step ids, since the reference implementation gives them another meaning (transformation.md 2.3).
const RESERVED_IDS: [&str; 29] = [
    "apiVersion",
    "context",
    "dependency",
    "dependencies",
    "environment",
    "externalRef",
    "externalRefs",
    "externalReference",
    "externalReferences",
    "graph",
    "instance",
    "item",
    "items",
    "kind",
    "metadata",
    "namespace",
    "object",
    "resource",
    "resources",
    "root",
    "runtime",
    "schema",
    "self",
    "spec",
    "status",
    "this",
    "variables",
    "vars",
    "version",
];

/// A transfer spec in native form whose steps are linked.
#[derive(Debug)]
pub struct Graph {
    /// With the ids of all steps, generated ones included.
    pub(crate) spec: TransferSpec,
    pub(crate) steps: Vec<LinkedStep>,
    pub(crate) index: HashMap<Arc<str>, usize>,
    pub(crate) edges: Vec<(usize, usize, Edge)>,
    /// A topological order; empty when there is none.
    pub(crate) order: Vec<usize>,
    /// What is to be said; no errors in a graph that anyone outside gets.
    pub(crate) findings: Vec<Diagnostic>,
}

/// A step with its id and its parsed strings.
#[derive(Debug)]
pub(crate) struct LinkedStep {
    pub(crate) id: Arc<str>,
    /// The expressions in its inputs.
    pub(crate) document: Document,
}

impl Graph {
    /// Links a spec in native form. Steps without an id get one, as if it had been written.
    ///
    /// Names in expressions that are no steps are left to [`Plan::new`](crate::Plan::new): they may be variables.
    ///
    /// # Errors
    /// All of them at once: ids that are malformed, reserved or used twice, malformed expressions, names of no step,
    /// cycles with their whole path.
    pub fn link(spec: TransferSpec) -> Result<Self, Diagnostics> {
        let mut graph = Self::link_what_can_be(spec);
        let findings = std::mem::take(&mut graph.findings);
        let findings = Diagnostics::new(graph.spec.source.clone(), findings);
        if findings.has_errors() {
            return Err(findings);
        }
        graph.findings = findings.findings;
        Ok(graph)
    }

    /// Links a spec and keeps the findings, for who wants to look further nevertheless.
    pub(crate) fn link_what_can_be(mut spec: TransferSpec) -> Self {
        let source = spec.source.clone();
        let mut linker = Linker::new(&source);
        if spec.dialect == Dialect::Mapping {
            linker.findings.push(Diagnostic::error(
                Span::default(),
                "the mapping form is lowered before it is linked",
            ));
        }
        spec.environment.values_mut().for_each(whole_constants);
        for step in &mut spec.steps {
            whole_numbers(&mut step.spec);
        }
        let ids = linker.ids(&spec.steps);
        let steps = linker.steps(&spec.steps, ids);
        let edges = linker.edges(&spec.steps, &steps);
        let order = linker.order(&spec.steps, &steps, &edges);
        for (step, linked) in spec.steps.iter_mut().zip(&steps) {
            let generated = || Word::new(&*linked.id, step.step_type.span);
            step.id.get_or_insert_with(generated);
        }
        Self {
            spec,
            steps,
            index: linker.index,
            edges,
            order,
            findings: linker.findings,
        }
    }

    /// The ids in document order, generated ones included.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| &*step.id)
    }
}

/// Longest step id, in bytes: room for what generators make of the names of components and resources.
const ID_LIMIT: usize = 1_000;
/// Steps of a circle that are named at its start, and at its end.
const CIRCLE: usize = 8;

/// How many unknown names get a suggestion: finding one looks at every step.
pub(crate) const SUGGESTIONS: usize = 50;

struct Linker<'s> {
    source: &'s Source,
    index: HashMap<Arc<str>, usize>,
    findings: Vec<Diagnostic>,
    suggestions: usize,
}

impl<'s> Linker<'s> {
    fn new(source: &'s Source) -> Self {
        Self {
            source,
            index: HashMap::new(),
            findings: Vec::new(),
            suggestions: 0,
        }
    }

    fn ids(&mut self, steps: &[StepSpec]) -> Vec<Arc<str>> {
        let given: HashSet<&str> = steps
            .iter()
            .filter_map(|step| Some(step.id.as_ref()?.text.as_str()))
            .collect();
        let mut counters = BTreeMap::new();
        let mut ids = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let id: Arc<str> = match &step.id {
                Some(id) => {
                    self.check_id(id);
                    id.text.as_str().into()
                }
                None => generated_id(&step.step_type.text, &given, &mut counters).into(),
            };
            match self.index.entry(id.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(at);
                }
                Entry::Occupied(first) => {
                    let first = &steps[*first.get()];
                    self.findings.push(self.twice(first, step));
                }
            }
            ids.push(id);
        }
        ids
    }

    fn twice(&self, first: &StepSpec, second: &StepSpec) -> Diagnostic {
        let place = |step: &StepSpec| step.id.as_ref().map_or(step.span, |id| id.span);
        let line = self.source.position(place(first).start).line;
        let message = format!(
            "the id `{}` is used twice: line {line} has it, too",
            second.name()
        );
        Diagnostic::error(place(second), message)
            .in_step(second.name())
            .at_field("id")
            .with_hint("ids are unique within a spec; rename one of the steps")
    }

    fn check_id(&mut self, id: &Word) {
        let mut characters = id.text.chars();
        let well_formed = characters
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
            && characters.all(|character| character.is_ascii_alphanumeric());
        let finding = if id.text.len() > ID_LIMIT {
            let message = format!("the id has {} bytes", id.text.len());
            Diagnostic::error(id.span, message)
                .with_hint(format!("an id has {ID_LIMIT} bytes at most"))
        } else if !well_formed {
            Diagnostic::error(id.span, format!("`{}` is not a step id", id.text))
                .with_hint("an id starts with a lower-case letter, followed by letters and digits")
        } else if RESERVED_IDS.contains(&id.text.as_str()) {
            Diagnostic::error(id.span, format!("the id `{}` is reserved", id.text))
                .with_hint(format!("choose another one, such as `{}1`", id.text))
        } else {
            return;
        };
        self.findings.push(finding.in_step(&id.text).at_field("id"));
    }

    fn steps(&mut self, steps: &[StepSpec], ids: Vec<Arc<str>>) -> Vec<LinkedStep> {
        let mut linked = Vec::with_capacity(steps.len());
        for (step, id) in steps.iter().zip(ids) {
            let reading = Document::read(&step.spec, Some(self.source));
            let errors = reading.errors.into_iter();
            self.findings
                .extend(errors.map(|error| in_step(error, &id)));
            let unclosed = reading.unclosed.into_iter();
            self.findings.extend(unclosed.map(|note| Diagnostic {
                severity: Severity::Warning,
                code: Some("W107"),
                ..in_step(note, &id)
            }));
            let document = reading.document;
            linked.push(LinkedStep { id, document });
        }
        linked
    }

    fn edges(&mut self, specs: &[StepSpec], steps: &[LinkedStep]) -> Vec<(usize, usize, Edge)> {
        let mut edges = Vec::new();
        for (target, (spec, step)) in specs.iter().zip(steps).enumerate() {
            let mut sources = BTreeMap::new();
            step.document.visit(&spec.spec, &mut |site| {
                for placed in site.template.expressions() {
                    for root in placed.expression.roots() {
                        if let Some(source) = self.index.get(root) {
                            sources.entry(*source).or_insert(Edge::Value);
                        }
                    }
                }
            });
            for source in sources.keys().filter(|source| specs[**source].id.is_none()) {
                let finding = self.nameless(&specs[*source], &steps[*source].id);
                let span = self.place_of_use(spec, step, &steps[*source].id);
                let finding = Diagnostic { span, ..finding };
                self.findings.push(finding.in_step(&*step.id));
            }
            for word in &spec.depends_on {
                let finding = match self.index.get(word.text.as_str()) {
                    Some(source) if specs[*source].id.is_some() => {
                        sources.insert(*source, Edge::Order);
                        continue;
                    }
                    Some(source) => {
                        let finding = self.nameless(&specs[*source], &word.text);
                        Diagnostic {
                            span: word.span,
                            ..finding
                        }
                    }
                    None => self.unknown(word, steps),
                };
                self.findings
                    .push(finding.in_step(&*step.id).at_field("dependsOn"));
            }
            edges.extend(
                sources
                    .into_iter()
                    .map(|(source, edge)| (source, target, edge)),
            );
        }
        edges
    }

    /// A step is referred to by an id that the document does not give: it would name another step after the next edit.
    fn nameless(&self, step: &StepSpec, id: &str) -> Diagnostic {
        let line = self.source.position(step.span.start).line;
        Diagnostic::error(step.span, format!("no step has the id `{id}`"))
            .with_hint(format!("write `id: {id}` into the step in line {line}"))
    }

    fn unknown(&mut self, word: &Word, steps: &[LinkedStep]) -> Diagnostic {
        let finding = Diagnostic::error(word.span, format!("there is no step `{}`", word.text));
        self.suggestions += 1;
        if self.suggestions > SUGGESTIONS {
            return finding;
        }
        match did_you_mean(&word.text, steps.iter().map(|step| &*step.id)) {
            Some(known) => finding.with_hint(format!("did you mean `{known}`?")),
            None => finding.with_hint("`dependsOn` lists ids of steps of this document"),
        }
    }

    /// Where a step names another one: in an expression, else in `dependsOn`.
    fn place_of_use(&self, spec: &StepSpec, step: &LinkedStep, used: &str) -> Span {
        let mut found = None;
        step.document.visit(&spec.spec, &mut |site| {
            for placed in site.template.expressions() {
                let uses = placed.expression.references().into_iter();
                for reference in uses.filter(|reference| reference.root == used) {
                    let place = || site.place(Some(self.source), placed, &reference.at);
                    found.get_or_insert_with(place);
                }
            }
        });
        let word = || spec.depends_on.iter().find(|word| word.text == used);
        found
            .or_else(|| word().map(|word| word.span))
            .unwrap_or(spec.span)
    }

    fn order(
        &mut self,
        specs: &[StepSpec],
        steps: &[LinkedStep],
        edges: &[(usize, usize, Edge)],
    ) -> Vec<usize> {
        let mut graph = DiGraph::<(), ()>::with_capacity(steps.len(), edges.len());
        for _ in steps {
            graph.add_node(());
        }
        for (source, target, _) in edges {
            graph.add_edge(NodeIndex::new(*source), NodeIndex::new(*target), ());
        }
        match toposort(&graph, None) {
            Ok(order) => order.into_iter().map(NodeIndex::index).collect(),
            Err(_) => {
                // Not Tarjan's: that one is recursive, and a chain may be very long.
                for component in kosaraju_scc(&graph) {
                    if let Some(cycle) = cycle_in(&graph, &component) {
                        self.report_cycle(specs, steps, &cycle);
                    }
                }
                Vec::new()
            }
        }
    }

    /// Reports a cycle at its first step, where that uses the one before.
    fn report_cycle(&mut self, specs: &[StepSpec], steps: &[LinkedStep], cycle: &[usize]) {
        let path: Vec<&str> = cycle
            .iter()
            .chain(cycle.first())
            .map(|node| &*steps[*node].id)
            .collect();
        let (message, hint) = match path.as_slice() {
            [only, _] => (
                format!("the step depends on itself: {only} -> {only}"),
                "a step can not read its own inputs or outputs",
            ),
            _ => (
                format!(
                    "the steps depend on each other in a circle: {}",
                    shortened(&path)
                ),
                "an arrow points from a step to one that uses it; take one of the uses away",
            ),
        };
        let (Some(first), Some(last)) = (cycle.first(), cycle.last()) else {
            return;
        };
        let span = self.place_of_use(&specs[*first], &steps[*first], &steps[*last].id);
        let finding = Diagnostic::error(span, message)
            .in_step(&*steps[*first].id)
            .with_hint(hint);
        self.findings.push(finding);
    }
}

/// The steps of a circle; of a very long one its start and its end.
fn shortened(path: &[&str]) -> String {
    let (Some(start), Some(end)) = (path.first_chunk::<CIRCLE>(), path.last_chunk::<CIRCLE>())
    else {
        return path.join(" -> ");
    };
    match path.len().saturating_sub(2 * CIRCLE) {
        0 | 1 => path.join(" -> "),
        more => format!(
            "{} -> … {more} more … -> {}",
            start.join(" -> "),
            end.join(" -> ")
        ),
    }
}

/// Makes `1.0` the integer `1`: to the reference, which prints it so, they are the same; and a printed plan must mean what
/// its original does.
fn whole_numbers(node: &mut Node) {
    match &mut node.value {
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        Value::List(list) => list.iter_mut().for_each(whole_numbers),
        Value::Map(map) => map
            .values_mut()
            .for_each(|member| whole_numbers(&mut member.node)),
        _ => {}
    }
}

/// [`whole_numbers`] for a constant, which is copied only if it has one and somebody else holds it, too.
fn whole_constants(constant: &mut Arc<Json>) {
    fn has_some(value: &Json) -> bool {
        match value {
            Json::Number(number) => whole(number).is_some(),
            Json::Array(list) => list.iter().any(has_some),
            Json::Object(map) => map.values().any(has_some),
            _ => false,
        }
    }
    fn change(value: &mut Json) {
        match value {
            Json::Number(number) => {
                if let Some(whole) = whole(number) {
                    *number = whole;
                }
            }
            Json::Array(list) => list.iter_mut().for_each(change),
            Json::Object(map) => map.values_mut().for_each(change),
            _ => {}
        }
    }
    if has_some(constant) {
        change(Arc::make_mut(constant));
    }
}

/// The integer that a double is, if it is one.
fn whole(number: &Number) -> Option<Number> {
    /// Below, a double is the number that was meant.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = number.as_f64().filter(|_| number.is_f64())?;
    (value.fract() == 0.0 && value.abs() < EXACT).then(|| (value as i64).into())
}

/// A cycle through the first node of a strongly connected component, in the direction of the edges; `None` for a single
/// node without an edge to itself.
fn cycle_in(graph: &DiGraph<(), ()>, component: &[NodeIndex]) -> Option<Vec<usize>> {
    let members: BTreeSet<NodeIndex> = component.iter().copied().collect();
    let start = *members.first()?;
    if graph.contains_edge(start, start) {
        return Some(vec![start.index()]);
    }
    // Breadth first from the start back to it: the shortest cycle, which is the easiest to understand.
    let mut came_from: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in graph.neighbors(node).filter(|next| members.contains(next)) {
            if next == start {
                let mut path = vec![node.index()];
                let mut at = node;
                while at != start {
                    at = *came_from.get(&at)?;
                    path.push(at.index());
                }
                path.reverse();
                return Some(path);
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                entry.insert(node);
                queue.push_back(next);
            }
        }
    }
    None
}

/// A finding of the language, which knows the document only, as one of the spec.
pub(crate) fn in_step(finding: language::Diagnostic, id: &str) -> Diagnostic {
    let field = match finding.path.as_str() {
        "" => "spec".to_owned(),
        path if path.starts_with('[') => format!("spec{path}"),
        path => format!("spec.{path}"),
    };
    let mut diagnostic = Diagnostic::error(finding.span, finding.message)
        .in_step(id)
        .at_field(field);
    diagnostic.hint = finding.hint;
    diagnostic
}

/// `<slug of the type><n>`, counting per slug in document order, around the ids that were given.
fn generated_id(
    step_type: &str,
    given: &HashSet<&str>,
    counters: &mut BTreeMap<String, u32>,
) -> String {
    let name = step_type.split('/').next().unwrap_or_default();
    let mut slug: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    slug.make_ascii_lowercase();
    let slug = slug.trim_start_matches(|first: char| first.is_ascii_digit());
    let slug = if slug.is_empty() { "step" } else { slug };
    let counter = counters.entry(slug.to_owned()).or_default();
    loop {
        *counter += 1;
        let id = format!("{slug}{counter}");
        if !given.contains(id.as_str()) {
            return id;
        }
    }
}
