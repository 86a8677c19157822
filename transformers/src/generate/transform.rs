//! Steps that content goes through on its way, at the user's wish.

use ocm_content::Error;
#[cfg(doc)]
use ocm_content::ErrorKind;
use ocm_engine::{Port, StepTypeInfo, StepTypes};
use ocm_specs::diagnostic::did_you_mean;
use ocm_specs::yaml::{Member, Node, Span, Value};
use serde_json::{Map as JsonMap, Value as Json};

use super::nodes::{data, value_of};
use super::select::{Condition, is_selected};

/// A step for all resources that are carried by value, or for some.
#[derive(Debug)]
pub struct Transform {
    /// The step's type.
    pub step_type: String,
    /// Its inputs without the content.
    pub spec: JsonMap<String, Json>,
    /// Which resources; all that are carried by value without.
    pub select: Option<Condition>,
}

/// What a resource has become so far.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// The step that gives the resource as a value.
    pub(super) id: String,
    /// The expression for the content.
    pub(super) file: String,
}

impl Given {
    /// What a step gives that has both.
    pub(super) fn by(id: String) -> Self {
        let file = format!("{id}.output.file");
        Self { id, file }
    }
}

impl Transform {
    /// Is it meant for that resource?
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when its condition has no answer.
    pub(super) fn is_for(&self, scope: &JsonMap<String, Json>) -> Result<bool, Error> {
        match &self.select {
            Some(condition) => is_selected(std::slice::from_ref(condition), &[], scope),
            None => Ok(true),
        }
    }

    /// The inputs of the step that takes the content `file`, and the name under which it gives it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a type that is not there, and for one that takes or gives no content, or several.
    pub(super) fn step(&self, types: &StepTypes, file: &str) -> Result<(Node, String), Error> {
        let name = &self.step_type;
        let step_type = types.get(name).ok_or_else(|| {
            let error = Error::invalid(format!("there is no step type `{name}`"));
            error.with_hint(match did_you_mean(name, types.names()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => "`ocm get types` lists them; --plugin adds those of a plugin".to_owned(),
            })
        })?;
        let info: &StepTypeInfo = step_type.info();
        let one = |ports: &[Port], what: &str| {
            let port = the_one(ports).map(|port| port.name.clone());
            port.ok_or_else(|| {
                let message = format!("step type `{name}` does not {what} one content");
                Error::invalid(message)
                    .with_hint("print the plan with --dry-run and put the step in by hand")
            })
        };
        let (input, output) = (one(&info.inputs, "take")?, one(&info.outputs, "give")?);
        let mut spec = data(&Json::Object(self.spec.clone()));
        if let Value::Map(fields) = &mut spec.value {
            let member = Member {
                key: Span::default(),
                node: value_of(file),
            };
            fields.insert(input, member);
        }
        Ok((spec, output))
    }
}

/// The port that is meant where none is named.
fn the_one(ports: &[Port]) -> Option<&Port> {
    let named = |name: &str| ports.iter().find(|port| port.name == name);
    let mut required = ports.iter().filter(|port| port.required);
    match (required.next(), required.next()) {
        (Some(port), None) => Some(port),
        _ if ports.len() == 1 => ports.first(),
        _ => named("data").or_else(|| named("file")),
    }
}
