//! The transfer spec as it is written: three dialects, told apart by their structure.
//!
//! * *native*: each step has its inputs below `spec` (what the Go CLI v2 prints and replays);
//! * *inline*: a step's inputs stand beside its `type` and `id` (design 002, list form);
//! * *mapping*: `spec.mappings` (design 002, "Specification").
//!
//! The engine runs the native form only; the other two are lowered to it by those who know the step types.

mod environment;
mod plugins;

use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use crate::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use crate::yaml::{Map, Member, Node, Source, Span, Value};

pub use self::environment::Environment;
pub use self::plugins::PluginSpec;

/// How a transfer spec is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Inputs below `spec`.
    Native,
    /// Inputs beside `type` and `id`.
    Inline,
    /// `spec.mappings`.
    Mapping,
}

/// A transfer spec, read but not checked against any step type.
#[derive(Clone, Debug)]
pub struct TransferSpec {
    /// The text it was read from.
    pub source: Arc<Source>,
    /// How it is written.
    pub dialect: Dialect,
    /// Constants that expressions may use as `environment`.
    pub environment: Environment,
    /// The plugins whose step types it uses.
    pub plugins: Vec<PluginSpec>,
    /// The steps in document order (native and inline).
    pub steps: Vec<StepSpec>,
    /// The list below `spec.mappings` (mapping).
    pub mappings: Vec<Node>,
}

/// One step as written.
#[derive(Clone, Debug)]
pub struct StepSpec {
    /// Its id, if it has one.
    pub id: Option<Word>,
    /// Its type, `Name/version`.
    pub step_type: Word,
    /// A name for people.
    pub label: Option<String>,
    /// Steps that must have ended before this one starts, beyond those its expressions name.
    pub depends_on: Vec<Word>,
    /// Its inputs: always a map.
    pub spec: Node,
    /// Where the step stands.
    pub span: Span,
}

/// A piece of text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// A word at `span`.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self {
            text: text.into(),
            span,
        }
    }
}

const TYPES: [&str; 4] = [
    "transformation.ocm.component",
    "transformations.ocm.",
    "transformations.ocm.config.software",
    "transformation.ocm.config.software",
];
const TOP_KEYS: [&str; 7] = [
    "type",
    "metadata",
    "environment",
    "env",
    "transformations",
    "spec",
    "plugins",
];
const STEP_KEYS: [&str; 8] = [
    "type",
    "id",
    "label",
    "labels",
    "dependsOn",
    "spec",
    "output",
    "outputs",
];
const RESERVED_KEYS: [&str; 2] = ["when", "forEach"];

impl TransferSpec {
    /// Reads the structure of a loaded document; tells all that is wrong with it at once.
    ///
    /// # Errors
    /// Every structural mistake: unknown keys, missing `type`, lists that are none. Warnings come back beside the spec.
    pub fn read(source: &Arc<Source>, document: &Node) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut reader = Reader {
            findings: Vec::new(),
            step: None,
        };
        let spec = reader.document(source, document);
        let findings = Diagnostics::new(source.clone(), reader.findings);
        match spec {
            Some(spec) if !findings.has_errors() => Ok((spec, findings)),
            _ => Err(findings),
        }
    }

    /// The document in the native form: what a dry run prints, and what reading it again gives.
    pub fn to_json(&self) -> Json {
        let mut document = JsonMap::new();
        if !self.environment.is_empty() {
            document.insert("environment".into(), self.environment.to_json());
        }
        if !self.plugins.is_empty() {
            let plugins = self.plugins.iter().map(PluginSpec::to_json).collect();
            document.insert("plugins".into(), Json::Array(plugins));
        }
        let steps = self.steps.iter().map(StepSpec::to_json).collect();
        document.insert("transformations".into(), Json::Array(steps));
        Json::Object(document)
    }
}

impl StepSpec {
    /// The step's name in messages: its id, else its type.
    pub fn name(&self) -> &str {
        self.id.as_ref().map_or(&self.step_type.text, |id| &id.text)
    }

    fn to_json(&self) -> Json {
        let mut step = JsonMap::new();
        if let Some(id) = &self.id {
            step.insert("id".into(), id.text.clone().into());
        }
        if let Some(label) = &self.label {
            step.insert("label".into(), label.clone().into());
        }
        step.insert("type".into(), self.step_type.text.clone().into());
        if !self.depends_on.is_empty() {
            let ids = self
                .depends_on
                .iter()
                .map(|id| id.text.clone().into())
                .collect();
            step.insert("dependsOn".into(), Json::Array(ids));
        }
        step.insert("spec".into(), self.spec.to_json());
        Json::Object(step)
    }
}

struct Reader {
    findings: Vec<Diagnostic>,
    /// The id of the step that is being read.
    step: Option<String>,
}

impl Reader {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.report(Diagnostic::error(span, message));
    }

    fn report(&mut self, mut finding: Diagnostic) {
        finding.step.clone_from(&self.step);
        self.findings.push(finding);
    }

    fn document(&mut self, source: &Arc<Source>, document: &Node) -> Option<TransferSpec> {
        let Some(top) = document.as_map() else {
            let message = format!("a transfer spec is a map, this is {}", a_kind(document));
            let hint = "start with `transformations:` and a list of steps";
            self.findings
                .push(Diagnostic::error(document.span, message).with_hint(hint));
            return None;
        };
        self.top_keys(top);
        let environment = self.environment(top);
        let plugins = match top.get("plugins") {
            Some(member) => self.plugins(&member.node),
            None => Vec::new(),
        };
        if let Some(mappings) = document.get("spec").and_then(|spec| spec.get("mappings")) {
            if let Some(member) = top.get("transformations") {
                self.error(
                    member.key,
                    "`transformations` beside `spec.mappings`: a document is written in one form",
                );
            }
            let mappings = self.list(mappings, "spec.mappings")?.to_vec();
            let dialect = Dialect::Mapping;
            return Some(TransferSpec {
                source: source.clone(),
                dialect,
                environment,
                plugins,
                steps: Vec::new(),
                mappings,
            });
        }
        let Some(list) = top.get("transformations") else {
            let hint = "start with `transformations:` and a list of steps";
            self.findings
                .push(Diagnostic::error(document.span, "no `transformations`").with_hint(hint));
            return None;
        };
        let list = self.list(&list.node, "transformations")?;
        let native = list.is_empty() || list.iter().any(|step| step.get("spec").is_some());
        let steps = list
            .iter()
            .filter_map(|step| self.step(step, native))
            .collect();
        let dialect = if native {
            Dialect::Native
        } else {
            Dialect::Inline
        };
        Some(TransferSpec {
            source: source.clone(),
            dialect,
            environment,
            plugins,
            steps,
            mappings: Vec::new(),
        })
    }

    fn top_keys(&mut self, top: &Map) {
        let known_type = top
            .get("type")
            .and_then(|member| member.node.as_str())
            .map(|text| {
                let name = text.split('/').next().unwrap_or_default();
                TYPES.contains(&name)
            });
        if known_type == Some(false) {
            let span = top
                .get("type")
                .map(|member| member.node.span)
                .unwrap_or_default();
            let hint =
                "a transfer spec has no `type`, or `type: transformation.ocm.component/v1alpha1`";
            self.findings.push(
                Diagnostic::error(span, "this is not the type of a transfer spec").with_hint(hint),
            );
        }
        for (key, member) in top
            .iter()
            .filter(|(key, _)| !TOP_KEYS.contains(&key.as_str()))
        {
            let message = format!("unknown key `{key}`");
            let hint = did_you_mean(key, TOP_KEYS).map(|known| format!("did you mean `{known}`?"));
            let mut finding = match known_type {
                Some(true) => Diagnostic::error(member.key, message),
                _ => Diagnostic::warning("W103", member.key, format!("{message} is ignored")),
            };
            finding.hint = hint;
            self.findings.push(finding);
        }
    }

    fn environment(&mut self, top: &Map) -> Environment {
        let member = match (top.get("environment"), top.get("env")) {
            (Some(_), Some(second)) => {
                self.error(second.key, "`env` beside `environment`: they are the same");
                None
            }
            (first, second) => first.or(second),
        };
        let Some(member) = member else {
            return Environment::default();
        };
        match &member.node.value {
            Value::Null => Environment::default(),
            Value::Map(map) => map
                .iter()
                .map(|(name, member)| (name, member.node.to_json()))
                .collect(),
            _ => {
                self.error(
                    member.node.span,
                    format!("`environment` is a map, this is {}", a_kind(&member.node)),
                );
                Environment::default()
            }
        }
    }

    fn list<'a>(&mut self, node: &'a Node, name: &str) -> Option<&'a [Node]> {
        match &node.value {
            Value::List(list) => Some(list),
            Value::Null => Some(&[]),
            _ => {
                self.error(
                    node.span,
                    format!("`{name}` is a list, this is {}", a_kind(node)),
                );
                None
            }
        }
    }

    fn step(&mut self, node: &Node, native: bool) -> Option<StepSpec> {
        let Some(map) = node.as_map() else {
            self.error(
                node.span,
                format!("a step is a map, this is {}", a_kind(node)),
            );
            return None;
        };
        let id = self.word(map, "id");
        self.step = id.as_ref().map(|id| id.text.clone());
        let step = self.fields(map, node.span, id, native);
        self.step = None;
        step
    }

    fn fields(
        &mut self,
        map: &Map,
        span: Span,
        id: Option<Word>,
        native: bool,
    ) -> Option<StepSpec> {
        let step_type = self.word(map, "type");
        if step_type.is_none() && !map.contains_key("type") {
            self.report(
                Diagnostic::error(span, "the step has no `type`")
                    .with_hint("`ocm get types` lists the step types"),
            );
        }
        for key in RESERVED_KEYS.iter().filter(|key| map.contains_key(**key)) {
            let span = map.get(*key).map(|member| member.key).unwrap_or_default();
            self.report(
                Diagnostic::error(span, format!("`{key}` is reserved and not available yet"))
                    .with_hint(format!("leave `{key}` out: every step runs, once")),
            );
        }
        let label = self.word(map, "label").map(|label| label.text);
        let depends_on = self.depends_on(map);
        let spec = if native {
            self.native_inputs(map, span)
        } else {
            Some(inline_inputs(map, span))
        };
        Some(StepSpec {
            id,
            step_type: step_type?,
            label,
            depends_on,
            spec: spec?,
            span,
        })
    }

    fn word(&mut self, map: &Map, key: &str) -> Option<Word> {
        let node = &map.get(key)?.node;
        match &node.value {
            Value::String(text) if !text.is_empty() => Some(Word::new(text.clone(), node.span)),
            Value::Null if key == "label" => None,
            Value::String(_) => {
                self.error(node.span, format!("`{key}` is empty"));
                None
            }
            _ => {
                let message = format!("`{key}` is a text, this is {}", a_kind(node));
                let finding = Diagnostic::error(node.span, message);
                self.report(match node.value {
                    Value::Bool(_) | Value::Number(_) => finding.with_hint("put it in quotes"),
                    _ => finding,
                });
                None
            }
        }
    }

    fn depends_on(&mut self, map: &Map) -> Vec<Word> {
        let Some(member) = map.get("dependsOn") else {
            return Vec::new();
        };
        let list = self.list(&member.node, "dependsOn").unwrap_or_default();
        let mut ids = Vec::new();
        for item in list {
            match item.as_str() {
                Some(id) => ids.push(Word::new(id, item.span)),
                None => self.error(
                    item.span,
                    format!("`dependsOn` lists step ids, this is {}", a_kind(item)),
                ),
            }
        }
        ids
    }

    fn native_inputs(&mut self, map: &Map, span: Span) -> Option<Node> {
        for (key, member) in map {
            if STEP_KEYS.contains(&key.as_str()) || RESERVED_KEYS.contains(&key.as_str()) {
                continue;
            }
            let hint = match did_you_mean(key, STEP_KEYS) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    "inputs stand below `spec`, as in the other steps of this document".to_owned()
                }
            };
            self.report(
                Diagnostic::error(member.key, format!("unknown key `{key}` of a step"))
                    .with_hint(hint),
            );
        }
        match map.get("spec").map(|member| &member.node) {
            Some(
                node @ Node {
                    value: Value::Map(_),
                    ..
                },
            ) => Some(node.clone()),
            Some(Node {
                value: Value::Null,
                span,
            }) => Some(Node {
                value: Value::Map(Map::new()),
                span: *span,
            }),
            None => Some(Node {
                value: Value::Map(Map::new()),
                span,
            }),
            Some(other) => {
                self.error(
                    other.span,
                    format!("`spec` is a map, this is {}", a_kind(other)),
                );
                None
            }
        }
    }
}

/// The kind of a value with its article.
fn a_kind(node: &Node) -> String {
    match node.kind() {
        kind @ "null" => kind.to_owned(),
        kind @ "integer" => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

fn inline_inputs(map: &Map, span: Span) -> Node {
    let inputs: Map = map
        .iter()
        .filter(|(key, _)| {
            !STEP_KEYS.contains(&key.as_str()) && !RESERVED_KEYS.contains(&key.as_str())
        })
        .map(|(key, member)| {
            (
                key.clone(),
                Member {
                    key: member.key,
                    node: member.node.clone(),
                },
            )
        })
        .collect();
    Node {
        value: Value::Map(inputs),
        span,
    }
}
