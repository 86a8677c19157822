//! A linked spec: every step has an id, every expression is parsed, every reference is an edge, and there is no cycle.
//!
//! Invariant: linking knows no step type; what types say is the plan's matter.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ocm_specs::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use ocm_specs::transfer::{Dialect, StepSpec, TransferSpec, Word};
use ocm_specs::yaml::{Node, Source, Span};
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

use crate::language::{self, Document, Placed};
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
    pub(crate) spec: TransferSpec,
    pub(crate) steps: Vec<LinkedStep>,
    pub(crate) index: HashMap<Arc<str>, usize>,
    pub(crate) edges: Vec<(usize, usize, Edge)>,
    /// A topological order.
    pub(crate) order: Vec<usize>,
}

/// A step with its id and its parsed strings.
#[derive(Debug)]
pub(crate) struct LinkedStep {
    pub(crate) id: Arc<str>,
    /// The expressions in its inputs.
    pub(crate) document: Document,
}

impl Graph {
    /// Links a spec in native form.
    ///
    /// # Errors
    /// All of them at once: ids that are malformed, reserved or used twice, malformed expressions, names of no step,
    /// cycles with their whole path.
    pub fn link(spec: TransferSpec) -> Result<Self, Diagnostics> {
        let source = spec.source.clone();
        let mut linker = Linker::default();
        if spec.dialect == Dialect::Mapping {
            let finding = Diagnostic::error(
                Span::default(),
                "the mapping form is lowered before it is linked",
            );
            return Err(Diagnostics::new(source, vec![finding]));
        }
        linker.ids(&spec.steps);
        let steps = linker.steps(&source, &spec.steps);
        let edges = linker.edges(&spec.steps, &steps);
        let order = linker.order(&spec.steps, &steps, &edges);
        if !linker.findings.is_empty() {
            return Err(Diagnostics::new(source, linker.findings));
        }
        Ok(Self {
            spec,
            steps,
            index: linker.index,
            edges,
            order,
        })
    }

    /// The ids in document order, generated ones included.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| &*step.id)
    }
}

#[derive(Default)]
struct Linker {
    ids: Vec<Arc<str>>,
    index: HashMap<Arc<str>, usize>,
    findings: Vec<Diagnostic>,
}

impl Linker {
    fn ids(&mut self, steps: &[StepSpec]) {
        let given: BTreeSet<&str> = steps
            .iter()
            .filter_map(|step| Some(step.id.as_ref()?.text.as_str()))
            .collect();
        let mut counters = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            let id: Arc<str> = match &step.id {
                Some(id) => {
                    self.check_id(id, step);
                    id.text.as_str().into()
                }
                None => generated_id(&step.step_type.text, &given, &mut counters).into(),
            };
            if let Some(first) = self.index.insert(id.clone(), at) {
                let span = step.id.as_ref().map_or(step.span, |id| id.span);
                let message = format!(
                    "the id `{id}` is used twice: the first time by step number {}",
                    first + 1
                );
                self.findings.push(
                    Diagnostic::error(span, message).with_hint("ids are unique within a spec"),
                );
            }
            self.ids.push(id);
        }
    }

    fn check_id(&mut self, id: &Word, step: &StepSpec) {
        let mut characters = id.text.chars();
        let well_formed = characters
            .next()
            .is_some_and(|first| first.is_ascii_lowercase())
            && characters.all(|character| character.is_ascii_alphanumeric());
        let finding = if !well_formed {
            Diagnostic::error(id.span, format!("`{}` is not a step id", id.text))
                .with_hint("an id starts with a lower-case letter, followed by letters and digits")
        } else if RESERVED_IDS.contains(&id.text.as_str()) {
            Diagnostic::error(id.span, format!("the id `{}` is reserved", id.text))
                .with_hint(format!("choose another one, such as `{}1`", id.text))
        } else {
            return;
        };
        self.findings.push(finding.in_step(step.name()));
    }

    fn steps(&mut self, source: &Source, steps: &[StepSpec]) -> Vec<LinkedStep> {
        let mut linked = Vec::with_capacity(steps.len());
        for (step, id) in steps.iter().zip(self.ids.clone()) {
            let document = Document::parse(&step.spec, Some(source)).unwrap_or_else(|errors| {
                self.findings
                    .extend(errors.into_iter().map(|error| in_step(error, &id)));
                Document::default()
            });
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
                    self.references(&step.id, site.node, placed, &mut sources);
                }
            });
            for word in &spec.depends_on {
                match self.index.get(word.text.as_str()) {
                    Some(source) => {
                        sources.insert(*source, Edge::Order);
                    }
                    None => {
                        let finding = self
                            .unknown(word.span, &word.text)
                            .in_step(&*step.id)
                            .at_field("dependsOn");
                        self.findings.push(finding);
                    }
                }
            }
            edges.extend(
                sources
                    .into_iter()
                    .map(|(source, edge)| (source, target, edge)),
            );
        }
        edges
    }

    fn references(
        &mut self,
        id: &str,
        node: &Node,
        placed: &Placed,
        sources: &mut BTreeMap<usize, Edge>,
    ) {
        for root in placed.expression.roots() {
            if root == "environment" {
                continue;
            }
            match self.index.get(root) {
                Some(source) => {
                    sources.entry(*source).or_insert(Edge::Value);
                }
                None => {
                    let finding = self.unknown(node.span, root).in_step(id);
                    self.findings.push(finding);
                }
            }
        }
    }

    fn unknown(&self, span: Span, name: &str) -> Diagnostic {
        let finding = Diagnostic::error(span, format!("there is no step `{name}`"));
        let known = self.ids.iter().map(|id| &**id).chain(["environment"]);
        match did_you_mean(name, known) {
            Some(known) => finding.with_hint(format!("did you mean `{known}`?")),
            None => finding,
        }
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
                for component in tarjan_scc(&graph) {
                    if let Some(cycle) = cycle_in(&graph, &component) {
                        self.report_cycle(specs, steps, &cycle);
                    }
                }
                Vec::new()
            }
        }
    }

    fn report_cycle(&mut self, specs: &[StepSpec], steps: &[LinkedStep], cycle: &[usize]) {
        let path: Vec<&str> = cycle
            .iter()
            .chain(cycle.first())
            .map(|node| &*steps[*node].id)
            .collect();
        let message = match path.as_slice() {
            [only, _] => format!("the step depends on itself: {only} -> {only}"),
            _ => format!(
                "the steps depend on each other in a circle: {}",
                path.join(" -> ")
            ),
        };
        let at = cycle.iter().copied().min().unwrap_or_default();
        let finding = Diagnostic::error(specs[at].span, message)
            .in_step(&*steps[at].id)
            .with_hint(
                "an arrow points from a step to one that uses it; take one of the uses away",
            );
        self.findings.push(finding);
    }
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
    given: &BTreeSet<&str>,
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
