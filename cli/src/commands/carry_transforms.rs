//! Steps that resources go through on their way: what `--transform` names.

use std::sync::Arc;

use ocm_specs::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use ocm_specs::yaml::{self, LoadOptions, Map, Member, Source, Value};
use ocm_transformers::generate::{Condition, Transform};
use serde_json::{Map as JsonMap, Value as Json};

use crate::commands::transfer::read_spec;
use crate::error::CliError;
use crate::ui::Ui;

const KEYS: [&str; 3] = ["type", "spec", "select"];

/// Reads all of them, in their order.
pub(crate) fn read(texts: &[String], ui: &Ui) -> Result<Vec<Transform>, CliError> {
    texts.iter().map(|text| one(text, ui)).collect()
}

fn one(text: &str, ui: &Ui) -> Result<Transform, CliError> {
    let is_named_as_file = [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| text.ends_with(end));
    if !is_named_as_file && !ui.environment.working_directory.join(text).is_file() {
        return Ok(Transform {
            step_type: text.to_owned(),
            spec: JsonMap::new(),
            select: None,
        });
    }
    let source = read_spec(text.as_ref(), ui)?;
    let mut reader = Reader {
        source: source.clone(),
        findings: Vec::new(),
    };
    match reader.transform() {
        Some(transform) if reader.findings.is_empty() => Ok(transform),
        _ => Err(Diagnostics::new(source, reader.findings).into()),
    }
}

struct Reader {
    source: Arc<Source>,
    findings: Vec<Diagnostic>,
}

impl Reader {
    fn transform(&mut self) -> Option<Transform> {
        let node = match yaml::load(&self.source, &LoadOptions::default()) {
            Ok(node) => node,
            Err(error) => {
                self.findings
                    .push(Diagnostic::error(error.span, error.message));
                return None;
            }
        };
        let Some(map) = node.as_map() else {
            let hint = "write `type: …`, and `spec:` and `select:` where they are wanted";
            let finding = Diagnostic::error(
                node.span,
                format!("a step is a map, this is a {}", node.kind()),
            );
            self.findings.push(finding.with_hint(hint));
            return None;
        };
        for (key, member) in map.iter().filter(|(key, _)| !KEYS.contains(&key.as_str())) {
            let mut finding = Diagnostic::error(member.key, format!("unknown key `{key}`"));
            finding.hint = did_you_mean(key, KEYS).map(|known| format!("did you mean `{known}`?"));
            self.findings.push(finding);
        }
        let spec = map
            .get("spec")
            .map(|member| (member, member.node.to_json()));
        let spec = match spec {
            None | Some((_, Json::Null)) => JsonMap::new(),
            Some((_, Json::Object(fields))) => fields,
            Some((member, _)) => {
                self.findings.push(Diagnostic::error(
                    member.node.span,
                    "`spec` is a map of inputs",
                ));
                return None;
            }
        };
        let select = self.text(map, "select").and_then(|(text, member)| {
            let parsed = Condition::parse(text);
            parsed
                .map_err(|error| {
                    let mut finding = Diagnostic::error(member.node.span, error.to_string());
                    finding.hint = error.hint().map(str::to_owned);
                    self.findings.push(finding);
                })
                .ok()
        });
        let step_type = self.text(map, "type");
        if !map.contains_key("type") {
            self.findings
                .push(Diagnostic::error(node.span, "the step has no `type`"));
        }
        Some(Transform {
            step_type: step_type?.0.to_owned(),
            spec,
            select,
        })
    }

    fn text<'m>(&mut self, map: &'m Map, key: &str) -> Option<(&'m str, &'m Member)> {
        let member = map.get(key)?;
        match &member.node.value {
            Value::String(text) => Some((text, member)),
            _ => {
                let message = format!("`{key}` is a text, this is a {}", member.node.kind());
                self.findings
                    .push(Diagnostic::error(member.node.span, message));
                None
            }
        }
    }
}
