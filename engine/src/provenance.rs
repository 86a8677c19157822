//! Which content a step may open, where values that plugins made take part in its inputs.
//!
//! Invariant: code that is not part of this program names content by the ports of its steps alone. Whatever else comes from
//! such a step, as a whole, in parts, or put together by an expression, opens no file and no port that the spec does not
//! name in the same inputs. What stands behind a step of foreign code may carry its values and is judged the same way.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ocm_specs::diagnostic::Diagnostic;
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::Node;
use serde_json::Value as Json;

use crate::graph::LinkedStep;
use crate::language::{Expression, Key, Reference, Site};
use crate::plan::Bound;
use crate::ports::{Part, meant, output};
use crate::schedule::Edge;

/// Most ports that one field may name. Beyond, what is named is not open to it.
const NAMED: usize = 256;

/// What one step may open.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    /// Fields of its inputs in which values of foreign code take part.
    fields: BTreeSet<Box<str>>,
    /// Do they in the inputs as a whole?
    whole: bool,
    /// The ports that its inputs name.
    ports: BTreeSet<String>,
}

impl Guard {
    /// The URIs that it may open, now that its inputs are known: ports that they name, and what stands in fields of which
    /// every part is the spec's own.
    pub(crate) fn allowed(&self, spec: &Json) -> BTreeSet<String> {
        let mut allowed = self.ports.clone();
        let own = spec.as_object().into_iter().flatten();
        let own = own.filter(|(name, _)| !self.whole && !self.fields.contains(name.as_str()));
        let uris = own.filter_map(|(_, value)| value.get("uri")?.as_str());
        allowed.extend(uris.map(str::to_owned));
        allowed
    }
}

/// What the expressions of a spec say of it.
#[derive(Default)]
pub(crate) struct Provenance {
    /// For each step; `None` where no foreign code can have a part in its inputs.
    pub(crate) guards: Vec<Option<Arc<Guard>>>,
    /// Ports for content that get nothing but values of foreign code.
    pub(crate) findings: Vec<Diagnostic>,
}

impl Provenance {
    pub(crate) fn of(
        spec: &TransferSpec,
        steps: &[LinkedStep],
        index: &HashMap<Arc<str>, usize>,
        bound: &[Option<Arc<Bound>>],
        edges: &[(usize, usize, Edge)],
        order: &[usize],
    ) -> Self {
        let mut found = Self {
            guards: vec![None; steps.len()],
            findings: Vec::new(),
        };
        let Some(foreign) = after_foreign(bound, edges, order) else {
            return found;
        };
        let mut origins = Origins {
            index,
            bound,
            foreign,
            named: HashMap::new(),
            fields: vec![BTreeSet::new(); steps.len()],
        };
        for at in order.iter().copied() {
            let (node, linked) = (&spec.steps[at].spec, &steps[at]);
            let guard = origins.step(at, node, linked, &mut |site, part| {
                let span = site.place(Some(&spec.source), part.placed, &part.reference.at);
                let message = format!(
                    "`{}` is a value that a plugin may have made: it can't stand for content",
                    written(part.reference)
                );
                let finding = Diagnostic::error(span, message)
                    .in_step(&*linked.id)
                    .at_field(format!("spec.{}", part.field))
                    .with_hint(HINT);
                found.findings.push(finding);
            });
            found.guards[at] = guard.map(|(guard, named)| {
                let id = |step: usize| &*steps[step].id;
                let ports = named.iter().map(|(step, port)| uri(id(*step), port));
                Arc::new(Guard {
                    ports: ports.collect(),
                    ..guard
                })
            });
        }
        found
    }
}

pub(crate) const HINT: &str = "use an output port of the step, as in `${step.output.PORT}`, or write the file's path in the spec";

fn uri(step: &str, port: &str) -> String {
    format!("content:{step}/{port}")
}

/// The steps of code that is not part of this program, and all that run after them; `None` where there are none.
fn after_foreign(
    bound: &[Option<Arc<Bound>>],
    edges: &[(usize, usize, Edge)],
    order: &[usize],
) -> Option<Vec<bool>> {
    let is_foreign = |bound: &Option<Arc<Bound>>| {
        let bound = bound.as_ref();
        bound.is_some_and(|bound| bound.info().implementation.is_some())
    };
    let mut after: Vec<bool> = bound.iter().map(is_foreign).collect();
    if !after.contains(&true) {
        return None;
    }
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); bound.len()];
    for (from, to, _) in edges {
        next[*from].push(*to);
    }
    for at in order.iter().copied().filter(|at| *at < next.len()) {
        if after[at] {
            for to in &next[at] {
                after[*to] = true;
            }
        }
    }
    Some(after)
}

/// A part of an expression that may be foreign.
struct Suspect<'s> {
    field: &'s str,
    placed: &'s crate::language::Placed,
    reference: &'s Reference<'s>,
}

/// Ports, by step and name.
type Named<'a> = BTreeSet<(usize, &'a str)>;

struct Origins<'a> {
    index: &'a HashMap<Arc<str>, usize>,
    bound: &'a [Option<Arc<Bound>>],
    /// Steps whose values may be foreign.
    foreign: Vec<bool>,
    /// Ports that the fields of the steps so far name.
    named: HashMap<(usize, &'a str), Named<'a>>,
    /// Fields of the steps so far in which foreign values take part.
    fields: Vec<BTreeSet<&'a str>>,
}

impl<'a> Origins<'a> {
    /// Judges the inputs of one step, after those of all steps before it. Tells `finding` what can't be content.
    fn step(
        &mut self,
        at: usize,
        node: &'a Node,
        linked: &'a LinkedStep,
        finding: &mut dyn FnMut(Site<'a>, Suspect<'_>),
    ) -> Option<(Guard, Named<'a>)> {
        let bound = self.bound[at].as_ref()?;
        let is_port = |name: &str| bound.info().inputs.iter().any(|port| port.name == name);
        let mut all = Named::new();
        let mut whole = false;
        // Inputs that are one expression have no fields to tell apart.
        let fields: Vec<&'a str> = match node.as_map() {
            Some(map) => map.keys().map(String::as_str).collect(),
            None => vec![""],
        };
        for field in fields {
            let mut sites = Vec::new();
            match node.as_map() {
                Some(_) => linked
                    .document
                    .visit_field(node, field, &mut |site| sites.push(site)),
                None => linked.document.visit(node, &mut |site| sites.push(site)),
            }
            let (mut named, mut suspects) = (Named::new(), Vec::new());
            for site in sites {
                for placed in site.template.expressions() {
                    for reference in placed.expression.references() {
                        if self.judge(&placed.expression, &reference, &mut named) {
                            suspects.push((site, placed, reference));
                        }
                    }
                }
            }
            if let Some((site, placed, reference)) = suspects.first() {
                if is_port(field) && named.is_empty() {
                    let suspect = Suspect {
                        field,
                        placed,
                        reference,
                    };
                    finding(*site, suspect);
                }
                whole |= node.as_map().is_none();
                self.fields[at].insert(field);
            }
            all.extend(named.iter().copied());
            if !named.is_empty() {
                self.named.insert((at, field), named);
            }
        }
        let fields = self.fields[at].iter().copied().map(Into::into);
        let guard = Guard {
            fields: fields.collect(),
            whole,
            ports: BTreeSet::new(),
        };
        (!guard.fields.is_empty()).then_some((guard, all))
    }

    /// Adds the ports that a reference names; is what it stands for perhaps made by foreign code?
    fn judge(
        &self,
        expression: &Expression,
        reference: &Reference<'_>,
        named: &mut Named<'a>,
    ) -> bool {
        let Some(step) = self.index.get(reference.root).copied() else {
            return false;
        };
        let Some(bound) = &self.bound[step] else {
            return false;
        };
        let meant = meant(bound, reference);
        let room = NAMED.saturating_sub(named.len());
        match (meant.part, meant.name) {
            (Part::Output, Some(name)) => {
                named.extend(output(bound, name).map(|port| (step, port.name.as_str())));
            }
            (Part::Spec, Some(name)) => {
                let handed_on = self.named.get(&(step, name)).into_iter().flatten();
                named.extend(handed_on.copied().take(room));
            }
            (Part::Output | Part::Step, _) => {
                let ports = bound.info().outputs.iter();
                named.extend(ports.map(|port| (step, port.name.as_str())).take(room));
            }
            _ => {}
        }
        if !self.foreign[step] {
            return false;
        }
        // A handle is the run's own as it is; its parts, such as a media type, may be words of the plugin.
        let as_it_is = expression.as_path().is_some() && !meant.deeper;
        match (meant.part, meant.name) {
            (Part::Output, Some(name)) => !as_it_is || output(bound, name).is_none(),
            (Part::Spec, Some(name)) => !as_it_is || self.fields[step].contains(name),
            (Part::Other, _) => false,
            _ => true,
        }
    }
}

/// The reference as its author wrote it, more or less.
fn written(reference: &Reference<'_>) -> String {
    let mut text = reference.root.to_owned();
    for segment in reference.segments.iter() {
        match &segment.key {
            Key::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Key::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}
