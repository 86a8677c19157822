//! Which content goes where: who reads which output port, and whether it fits.
//!
//! Invariant: this looks at expressions only. A handle that reaches a port by a way that can't be seen here is read all the
//! same, by itself, and is judged when it is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ocm_specs::diagnostic::Diagnostic;
use ocm_specs::transfer::TransferSpec;

use crate::graph::LinkedStep;
use crate::language::{Expression, Key, Reference, StepView};
use crate::plan::Bound;
use crate::step_types::Port;

/// Most contents that one field may stand for. Beyond, content is not counted as read by several: a re-openable one is
/// read twice then, a once one says so.
const SOURCES: usize = 256;

/// What the expressions of a spec say of content.
pub(crate) struct Connections {
    /// How many steps read each output port of each step: those whose input port is, or may be, that content. A step that
    /// hands on another step's input is followed.
    pub(crate) readers: Vec<BTreeMap<String, usize>>,
    /// Ports whose media types exclude each other.
    pub(crate) findings: Vec<Diagnostic>,
}

impl Connections {
    pub(crate) fn of(
        spec: &TransferSpec,
        steps: &[LinkedStep],
        index: &HashMap<Arc<str>, usize>,
        bound: &[Option<Arc<Bound>>],
        order: &[usize],
    ) -> Self {
        let mut ports = Ports {
            steps: index,
            bound,
            known: HashMap::new(),
        };
        let mut readers: Vec<BTreeMap<String, usize>> = vec![BTreeMap::new(); steps.len()];
        let mut findings = Vec::new();
        for at in order.iter().copied() {
            let (Some(bound), Some(inputs)) = (&bound[at], spec.steps[at].spec.as_map()) else {
                continue;
            };
            for (name, member) in inputs {
                let Some(template) = steps[at]
                    .document
                    .template_at(&spec.steps[at].spec, &[name])
                else {
                    continue;
                };
                let mut sources = BTreeSet::new();
                for placed in template.expressions() {
                    ports.sources(&placed.expression, &mut sources);
                }
                if sources.is_empty() {
                    continue;
                }
                if let Some(input) = bound.info().inputs.iter().find(|port| port.name == *name) {
                    for (source, port) in &sources {
                        *readers[*source].entry((*port).to_owned()).or_default() += 1;
                    }
                    let misfit = ports.misfit(input, &sources, &|step| &*steps[step].id);
                    findings.extend(misfit.map(|message| {
                        let id = &steps[at].id;
                        Diagnostic::error(member.node.span, message)
                            .in_step(&**id)
                            .at_field(format!("spec.{name}"))
                            .with_hint("put a step between the two that makes the one of the other")
                    }));
                }
                ports.known.insert((at, name), sources);
            }
        }
        Self { readers, findings }
    }
}

/// Which contents the fields of the steps so far may stand for.
struct Ports<'a> {
    steps: &'a HashMap<Arc<str>, usize>,
    bound: &'a [Option<Arc<Bound>>],
    known: HashMap<(usize, &'a str), BTreeSet<(usize, &'a str)>>,
}

impl<'a> Ports<'a> {
    /// Adds the output ports that an expression may give.
    fn sources(&self, expression: &Expression, found: &mut BTreeSet<(usize, &'a str)>) {
        for reference in expression.references() {
            let Some(step) = self.steps.get(reference.root).copied() else {
                continue;
            };
            let Some(bound) = &self.bound[step] else {
                continue;
            };
            let meant = meant(bound, &reference);
            let Some(name) = meant.name.filter(|_| !meant.deeper) else {
                continue;
            };
            match meant.part {
                Part::Output => {
                    let port = output(bound, name);
                    found.extend(port.map(|port| (step, port.name.as_str())));
                }
                Part::Spec => {
                    let handed_on = self.known.get(&(step, name)).into_iter().flatten();
                    found.extend(handed_on.take(SOURCES.saturating_sub(found.len())));
                }
                Part::Step | Part::Other => {}
            }
        }
    }

    /// Why none of the contents that a port may get is one that it takes.
    fn misfit<'s>(
        &self,
        input: &Port,
        sources: &BTreeSet<(usize, &'a str)>,
        id: &dyn Fn(usize) -> &'s str,
    ) -> Option<String> {
        if input.media_types.is_empty() {
            return None;
        }
        let mut given = Vec::new();
        for (step, name) in sources {
            let port = output(self.bound[*step].as_ref()?, name)?;
            let is_open = port.media_types.is_empty();
            if is_open || overlap(&port.media_types, &input.media_types) {
                return None;
            }
            let types = listed(&port.media_types);
            given.push(format!("`{}.output.{name}` gives {types}", id(*step)));
        }
        let wanted = listed(&input.media_types);
        Some(format!("{}, this port takes {wanted}", given.join(", ")))
    }
}

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Step,
    /// What it gave.
    Output,
    /// Its inputs.
    Spec,
    /// Its name or type.
    Other,
}

/// What a reference to a step means.
pub(crate) struct Meant<'r> {
    pub(crate) part: Part,
    /// The field of that part; `None` for the part as a whole.
    pub(crate) name: Option<&'r str>,
    /// Does the reference go on below it?
    pub(crate) deeper: bool,
}

/// What a reference to a step of that type means, short forms included.
pub(crate) fn meant<'r>(bound: &Bound, reference: &'r Reference<'_>) -> Meant<'r> {
    let field = |at: usize| match &reference.segments.get(at)?.key {
        Key::Field(name) => Some(&**name),
        Key::Index(_) => None,
    };
    let length = reference.segments.len();
    let (part, name, deeper) = match field(0) {
        None => (Part::Step, None, length > 0),
        Some("output" | "outputs") => (Part::Output, field(1), length > 2),
        Some("spec") => (Part::Spec, field(1), length > 2),
        Some(name) if StepView::FIELDS.contains(&name) => (Part::Other, None, false),
        // Short for one of them.
        Some(name) => match bound.output_type.field(name) {
            Some(_) => (Part::Output, Some(name), length > 1),
            None => (Part::Spec, Some(name), length > 1),
        },
    };
    Meant { part, name, deeper }
}

pub(crate) fn output<'b>(bound: &'b Bound, name: &str) -> Option<&'b Port> {
    let mut outputs = bound.info().outputs.iter();
    outputs.find(|port| port.name == name)
}

fn listed(media_types: &[String]) -> String {
    format!("`{}`", media_types.join("`, `"))
}

/// May something be of both?
fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter()
        .any(|one| other.iter().any(|other| may_be_both(one, other)))
}

fn may_be_both(one: &str, other: &str) -> bool {
    match (one.strip_suffix('*'), other.strip_suffix('*')) {
        (None, None) => one == other,
        (Some(start), None) => other.starts_with(start),
        (None, Some(start)) => one.starts_with(start),
        (Some(one), Some(other)) => one.starts_with(other) || other.starts_with(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_exclude_each_other_or_not() {
        for (one, other, expected) in [
            ("text/plain", "text/plain", true),
            ("text/plain", "text/html", false),
            ("text/*", "text/html", true),
            ("text/html", "text/*", true),
            ("text/*", "application/*", false),
            ("application/*", "application/vnd.oci.*", true),
            ("*", "text/plain", true),
        ] {
            assert_eq!(may_be_both(one, other), expected, "{one} {other}");
            assert_eq!(may_be_both(other, one), expected, "{other} {one}");
        }
    }
}
