//! What step types have to say against the inputs of steps before anything runs.
//!
//! Invariant: only inputs that the run could not change are asked about: constants, and expressions over nothing but the
//! environment. What content a step gets does not matter to this: ports are left out.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ocm_specs::diagnostic::Diagnostic;
use ocm_specs::yaml::{Map, Node, Value};
use serde_json::Value as Json;
use tokio::time::{Instant, timeout_at};

use crate::error::StepError;
use crate::language::Document;
use crate::plan::{Planner, is_error, nearest};

/// How long all step types of a plan may take for their answers. What is left then is judged when it runs.
const PATIENCE: Duration = Duration::from_secs(60);

impl Planner<'_> {
    /// Asks about every step that is well so far. Equal questions are asked once, and a type that could not answer is not
    /// asked again.
    pub(crate) async fn ask(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let wrong = self.wrong();
        let mut known: HashMap<(String, String), Vec<StepError>> = HashMap::new();
        let mut silent: BTreeSet<String> = BTreeSet::new();
        let mut findings = Vec::new();
        for at in 0..self.steps.len() {
            let Some(bound) = self.bound[at].clone() else {
                continue;
            };
            let (id, name) = (self.steps[at].id.clone(), bound.info().name.clone());
            let has_answer = bound.step_type.validates() && !silent.contains(&name);
            if !has_answer || wrong.contains(&*id) {
                continue;
            }
            let Some(spec) = self.closed(at) else {
                continue;
            };
            let question = (name, spec.to_string());
            if !known.contains_key(&question) {
                let answer = bound.step_type.validate(spec);
                let place = self.spec.steps[at].step_type.span;
                match timeout_at(deadline, answer).await {
                    Ok(Ok(errors)) => drop(known.insert(question.clone(), errors)),
                    Ok(Err(error)) => {
                        let mut finding = Diagnostic::error(place, error.to_string());
                        finding.hint = error.hint().map(str::to_owned);
                        findings.push(finding.in_step(&*id));
                        silent.insert(question.0);
                        continue;
                    }
                    Err(_) => {
                        let message = format!(
                            "the step types took longer than {} s to judge the inputs of all steps; from this one on that is \
                             left for the run",
                            PATIENCE.as_secs()
                        );
                        findings.push(Diagnostic::warning("W108", place, message).in_step(&*id));
                        break;
                    }
                }
            }
            let node = &self.spec.steps[at].spec;
            for error in known.get(&question).into_iter().flatten() {
                findings.push(placed(error, node).in_step(&*id));
            }
        }
        self.findings.extend(findings);
    }

    /// Steps whose inputs are wrong already, but for what is said of their ports alone.
    fn wrong(&self) -> BTreeSet<String> {
        let is_about_a_port = |finding: &Diagnostic, id: &str| {
            let field = finding.field.strip_prefix("spec.")?;
            let bound = self.bound[*self.index.get(id)?].as_ref()?;
            let first = field.split(['.', '[']).next()?;
            bound.info().inputs.iter().find(|port| port.name == first)
        };
        self.findings
            .iter()
            .filter(|finding| is_error(finding))
            .filter_map(|finding| Some((finding, finding.step.as_deref()?)))
            .filter(|(finding, id)| is_about_a_port(finding, id).is_none())
            .map(|(_, id)| id.to_owned())
            .collect()
    }

    /// A step's inputs without its ports, if they are known already.
    fn closed(&self, at: usize) -> Option<Json> {
        let bound = self.bound[at].as_ref()?;
        let node = &self.spec.steps[at].spec;
        let is_port = |name: &str| bound.info().inputs.iter().any(|port| port.name == name);
        let fields: Map = node
            .as_map()?
            .iter()
            .filter(|(name, _)| !is_port(name))
            .map(|(name, member)| (name.clone(), member.clone()))
            .collect();
        let node = Node {
            value: Value::Map(fields),
            span: node.span,
        };
        let document = Document::parse(&node, None).ok()?;
        let mut is_open = false;
        document.visit(&node, &mut |site| {
            for placed in site.template.expressions() {
                let roots = placed.expression.references();
                is_open |= roots.iter().any(|root| root.root != "environment");
            }
        });
        if is_open {
            return None;
        }
        // What has no value has none in the run either, which says so.
        let scope = &self.spec.environment;
        document.evaluate(&node, &bound.spec_type, scope).ok()
    }
}

/// The error at its field, or at the inputs as a whole.
fn placed(error: &StepError, node: &Node) -> Diagnostic {
    let field = error.field.as_deref().unwrap_or_default();
    let span = nearest(node, field).map_or(node.span, |node| node.span);
    let path = match field {
        "" => "spec".to_owned(),
        field if field.starts_with('[') => format!("spec{field}"),
        field => format!("spec.{field}"),
    };
    let mut finding = Diagnostic::error(span, error.error.to_string()).at_field(path);
    finding.hint = error.error.hint().map(str::to_owned);
    finding
}
