//! Component constructors: documents that say what component versions are made of (formats.md 9).
//!
//! *Invariant*: what was read becomes part of a descriptor as it is written; everything that is wrong is told at once, with
//! its place. Reading knows both generations of the format and performs no I/O.

mod element;
mod input;
mod reader;
mod variables;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json, json};

pub use element::{Item, ItemContent, Reference};
pub use input::{DirInput, Input};
pub use variables::{Variables, is_variable_name};

use self::reader::{Fields, Reader, a_kind};
use crate::descriptor::ElementKind;
use crate::diagnostic::Diagnostics;
use crate::json::to_sorted;
use crate::names::{is_component_name, is_version};
use crate::transfer::Word;
use crate::yaml::{LoadOptions, Node, Source, Span, Value, load_all};

/// A constructor document.
#[derive(Clone, Debug)]
pub struct Constructor {
    /// The text it was read from.
    pub source: Arc<Source>,
    /// Its component versions in document order.
    pub components: Vec<Component>,
}

/// What one component version is made of.
#[derive(Clone, Debug)]
pub struct Component {
    /// The component's name.
    pub name: Word,
    /// Its version.
    pub version: Word,
    /// The provider as a descriptor of schema v2 stores it: a name, or a JSON document in a text (formats.md 1.3).
    pub provider: String,
    /// Labels, as they are written.
    pub labels: Vec<Json>,
    /// When it was created, where the document says.
    pub creation_time: Option<String>,
    /// What is delivered.
    pub resources: Vec<Item>,
    /// What it was built from.
    pub sources: Vec<Item>,
    /// Component versions that it contains.
    pub references: Vec<Reference>,
    /// Where it stands.
    pub span: Span,
}

impl Component {
    /// `<component>:<version>`.
    pub fn identity(&self) -> String {
        format!("{}:{}", self.name.text, self.version.text)
    }

    /// The document of a descriptor of schema v2 with these elements.
    pub fn descriptor(
        &self,
        creation_time: Option<&str>,
        resources: Vec<Json>,
        sources: Vec<Json>,
        references: Vec<Json>,
    ) -> Json {
        let mut component = JsonMap::new();
        component.insert("name".into(), self.name.text.clone().into());
        component.insert("version".into(), self.version.text.clone().into());
        if !self.labels.is_empty() {
            component.insert("labels".into(), self.labels.clone().into());
        }
        if let Some(time) = self.creation_time.as_deref().or(creation_time) {
            component.insert("creationTime".into(), time.into());
        }
        component.insert("repositoryContexts".into(), json!([]));
        component.insert("provider".into(), self.provider.clone().into());
        component.insert("resources".into(), resources.into());
        component.insert("sources".into(), sources.into());
        component.insert("componentReferences".into(), references.into());
        json!({"meta": {"schemaVersion": "v2"}, "component": component})
    }
}

const COMPONENT_KEYS: [&str; 8] = [
    "name",
    "version",
    "provider",
    "labels",
    "creationTime",
    "resources",
    "sources",
    "componentReferences",
];

impl Constructor {
    /// Reads a text: each of its documents is a list `components`, or one component.
    ///
    /// Without `variables` dollar signs have no meaning. `version` is the version of components that state none.
    ///
    /// # Errors
    /// All that is wrong. Warnings come back beside the constructor.
    pub fn read(
        source: &Arc<Source>,
        variables: Option<&Variables>,
        version: Option<&str>,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let documents = load_all(source, &LoadOptions::default())
            .map_err(|error| variables::syntax(source, error))?;
        let mut reader = Reader::new(source);
        let (mut nodes, mut faulty) = (Vec::new(), BTreeSet::new());
        for document in documents
            .iter()
            .filter(|document| document.value != Value::Null)
        {
            let Some(variables) = variables else {
                nodes.push(document.clone());
                continue;
            };
            let expanded = variables.expand(source, document);
            reader.findings.extend(expanded.findings);
            faulty.extend(expanded.faulty);
            nodes.push(expanded.node);
        }
        let unset = reader.findings.len();
        let components = components(&mut reader, &nodes, version);
        // What is wrong with a text that lacks a variable follows from that.
        let others = reader.findings.split_off(unset);
        reader
            .findings
            .extend(others.into_iter().filter(|it| !faulty.contains(&it.span)));
        let constructor = Self {
            source: source.clone(),
            components,
        };
        let findings = Diagnostics::new(source.clone(), reader.findings);
        if findings.has_errors() {
            Err(findings)
        } else {
            Ok((constructor, findings))
        }
    }
}

fn components(
    reader: &mut Reader<'_>,
    documents: &[Node],
    version: Option<&str>,
) -> Vec<Component> {
    let mut nodes = Vec::new();
    for document in documents {
        nodes.extend(component_nodes(reader, document));
    }
    if nodes.is_empty() && reader.findings.is_empty() {
        let hint = "start with `components:` and a list of components";
        reader
            .error(Span::default(), "", "there is no component in it")
            .hint = Some(hint.to_owned());
    }
    nodes
        .iter()
        .filter_map(|(path, node)| component(reader, node, path, version))
        .collect()
}

/// The components of a document with their paths.
fn component_nodes<'n>(reader: &mut Reader<'_>, document: &'n Node) -> Vec<(String, &'n Node)> {
    let hint = "start with `components:` and a list of components";
    let Value::Map(map) = &document.value else {
        let message = format!("a constructor is a map, this is {}", a_kind(document));
        reader.error(document.span, "", message).hint = Some(hint.to_owned());
        return Vec::new();
    };
    if !map.contains_key("components") {
        let is_component = map.keys().any(|key| COMPONENT_KEYS.contains(&key.as_str()));
        if is_component {
            return vec![(String::new(), document)];
        }
        let Some(mut fields) = reader.fields(document, "", "a constructor") else {
            return Vec::new();
        };
        if fields.has("components") {
            fields.take("components");
        }
        reader.close(&fields, &["components"]);
        let message = "there is neither `components` nor a component in it";
        reader.error(document.span, "", message).hint = Some(hint.to_owned());
        return Vec::new();
    }
    let Some(mut fields) = reader.fields(document, "", "a constructor") else {
        return Vec::new();
    };
    let components = reader.list(&mut fields, "components");
    reader.close(&fields, &["components"]);
    components
}

fn component(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    version: Option<&str>,
) -> Option<Component> {
    let mut fields = reader.fields(node, path, "a component")?;
    let name = component_name(reader, &mut fields, "name");
    let own = own_version(reader, &mut fields, version);
    let provider = provider(reader, &mut fields);
    let labels = element::labels(reader, &mut fields);
    let creation_time = creation_time(reader, &mut fields);
    let text = own
        .as_ref()
        .map(|version| version.text.as_str())
        .unwrap_or_default();
    let resources = element::items(reader, &mut fields, ElementKind::Resource, text);
    let sources = element::items(reader, &mut fields, ElementKind::Source, text);
    let references = element::references(reader, &mut fields);
    if let Some(member) = fields.take("signatures") {
        let message =
            "`signatures` is no part of a constructor and left out; sign with `ocm sign cv`";
        reader.warning("W202", member.key, fields.below("signatures"), message);
    }
    reader.close(&fields, &COMPONENT_KEYS);
    Some(Component {
        name: name?,
        version: own?,
        provider: provider?,
        labels,
        creation_time,
        resources,
        sources,
        references,
        span: node.span,
    })
}

/// The well-formed name of a component.
fn component_name(reader: &mut Reader<'_>, fields: &mut Fields<'_>, key: &str) -> Option<Word> {
    let name = reader.needed(fields, key)?;
    if is_component_name(&name.text) {
        return Some(name);
    }
    let message = format!("`{}` is not a component name", name.text);
    reader.error(name.span, fields.below(key), message).hint =
        Some("write a domain and a path in lower case, as in acme.org/shop".to_owned());
    None
}

fn own_version(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    default: Option<&str>,
) -> Option<Word> {
    if fields.value("version").is_none()
        && let Some(default) = default
    {
        return Some(Word::new(default, fields.span));
    }
    if fields.value("version").is_none() {
        let message = "the component has no `version`";
        reader.error(fields.span, fields.path.clone(), message).hint =
            Some("write one, or give --version for all that have none".to_owned());
        return None;
    }
    version(reader, fields)
}

/// A version by the relaxed rule; must be there.
fn version(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Word> {
    let version = reader.needed(fields, "version")?;
    if is_version(&version.text) {
        return Some(version);
    }
    let message = format!("`{}` is not a version", version.text);
    reader
        .error(version.span, fields.below("version"), message)
        .hint = Some(
        "write a semantic version, as in 1.2.3; minor and patch number may be left out".to_owned(),
    );
    None
}

/// The provider as it is stored.
fn provider(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<String> {
    let path = fields.below("provider");
    let Some(node) = fields.value("provider") else {
        let message = "the component has no `provider`";
        reader.error(fields.span, fields.path.clone(), message).hint =
            Some("write `provider: {name: acme.org}`".to_owned());
        return None;
    };
    // v1 takes a plain name, too.
    if !matches!(node.value, Value::Map(_)) {
        let name = reader.as_text(node, path.clone(), "provider")?;
        if name.text.is_empty() {
            reader.error(node.span, path, "`provider` is empty");
            return None;
        }
        return Some(name.text);
    }
    let mut fields = reader.fields(node, path, "a provider")?;
    let name = reader.needed(&mut fields, "name");
    let labels = element::labels(reader, &mut fields);
    let kept = reader.keep(&fields, &["name", "labels"]);
    let name = name?;
    if labels.is_empty() && kept.is_empty() {
        return Some(name.text);
    }
    Some(provider_text(&name.text, &labels, &kept))
}

/// The JSON document in the order in which Go writes its structs.
fn provider_text(name: &str, labels: &[Json], kept: &[(String, Json)]) -> String {
    let member =
        |key: &str, value: &Json| format!("{}:{}", to_sorted(&key.into()), to_sorted(value));
    let mut members = vec![member("name", &name.into())];
    if !labels.is_empty() {
        let labels: Vec<String> = labels
            .iter()
            .filter_map(Json::as_object)
            .map(|label| {
                let order = ["name", "value", "signing", "version", "merge"];
                let known = order
                    .iter()
                    .filter_map(|key| Some(member(key, label.get(*key)?)));
                let others = label
                    .iter()
                    .filter(|(key, _)| !order.contains(&key.as_str()));
                let others = others.map(|(key, value)| member(key, value));
                format!("{{{}}}", known.chain(others).collect::<Vec<_>>().join(","))
            })
            .collect();
        members.push(format!("\"labels\":[{}]", labels.join(",")));
    }
    members.extend(kept.iter().map(|(key, value)| member(key, value)));
    format!("{{{}}}", members.join(","))
}

fn creation_time(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<String> {
    let time = reader.text(fields, "creationTime")?;
    if is_timestamp(&time.text) {
        return Some(time.text);
    }
    let message = format!("`{}` is no time", time.text);
    reader
        .error(time.span, fields.below("creationTime"), message)
        .hint = Some("write it as in 2025-03-18T09:44:42Z (RFC 3339)".to_owned());
    None
}

/// Is it a date and a time with zone by RFC 3339? Days of a month are not counted.
fn is_timestamp(text: &str) -> bool {
    let number = |range: std::ops::Range<usize>, most: u32| {
        text.get(range).is_some_and(|part| {
            part.bytes().all(|byte| byte.is_ascii_digit())
                && part.parse::<u32>().is_ok_and(|it| it <= most)
        })
    };
    let marks = [(4, "-"), (7, "-"), (10, "Tt"), (13, ":"), (16, ":")];
    let marked = marks
        .iter()
        .all(|(at, any)| text.get(*at..at + 1).is_some_and(|mark| any.contains(mark)));
    let numbers = number(0..4, 9999)
        && number(5..7, 12)
        && number(8..10, 31)
        && number(11..13, 23)
        && number(14..16, 59)
        && number(17..19, 60);
    if !marked || !numbers {
        return false;
    }
    let rest = &text[19..];
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let zone = match rest.strip_prefix('.') {
        Some(fraction) if digits(fraction) > 0 => &fraction[digits(fraction)..],
        Some(_) => return false,
        None => rest,
    };
    let is_offset = |zone: &str| {
        let parts = zone
            .strip_prefix(['+', '-'])
            .and_then(|zone| zone.split_once(':'));
        parts.is_some_and(|(hours, minutes)| {
            [hours, minutes]
                .iter()
                .all(|part| part.len() == 2 && digits(part) == 2)
        })
    };
    matches!(zone, "Z" | "z") || is_offset(zone)
}

#[cfg(test)]
mod tests;
