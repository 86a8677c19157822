//! Resources, sources and references of a component, and what they have in common.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value as Json};

use super::input::{self, Input};
use super::reader::{Fields, Reader};
use super::{component_name, version};
use crate::Identity;
use crate::access::{Access, AccessType};
use crate::descriptor::{DigestSpec, Element, ElementKind};
use crate::diagnostic::did_you_mean;
use crate::names::is_element_name;
use crate::transfer::Word;
use crate::yaml::{Node, Span};

/// A resource or a source.
#[derive(Clone, Debug)]
pub struct Item {
    /// Which of the two.
    pub kind: ElementKind,
    /// The element as the descriptor will have it, but for what follows from its content: access and digest.
    pub value: Json,
    /// Its content.
    pub content: ItemContent,
    /// The digest that its content must turn out to have.
    pub digest: Option<DigestSpec>,
    /// Shall the artifact say which component it belongs to?
    pub ownership: bool,
    /// Shall it have no digest?
    pub without_digest: bool,
    /// Where it stands.
    pub span: Span,
    /// The path of it in the document.
    pub path: String,
}

/// Where the content of an item is.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemContent {
    /// It stays where it is.
    Access(Json),
    /// It is taken in.
    Input(Input),
}

/// A reference to another component version.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The element as the descriptor will have it, but for its digest.
    pub value: Json,
    /// The component.
    pub component: String,
    /// Its version.
    pub version: String,
    /// The digest that it must turn out to have.
    pub digest: Option<DigestSpec>,
    /// Where it stands.
    pub span: Span,
    /// The path of it in the document.
    pub path: String,
}

impl Item {
    /// A look at it.
    pub fn element<'a>(&'a self, component_version: &'a str) -> Element<'a> {
        Element::new(self.kind, &self.value, component_version)
    }
}

const RESOURCE_KEYS: [&str; 11] = [
    "name",
    "version",
    "type",
    "relation",
    "extraIdentity",
    "labels",
    "srcRefs",
    "access",
    "input",
    "digest",
    "options",
];
const SOURCE_KEYS: [&str; 7] = [
    "name",
    "version",
    "type",
    "extraIdentity",
    "labels",
    "access",
    "input",
];
const REFERENCE_KEYS: [&str; 6] = [
    "name",
    "componentName",
    "version",
    "extraIdentity",
    "labels",
    "digest",
];
const LABEL_KEYS: [&str; 5] = ["name", "value", "signing", "version", "merge"];

pub(super) fn items(
    reader: &mut Reader<'_>,
    component: &mut Fields<'_>,
    kind: ElementKind,
    own: &str,
) -> Vec<Item> {
    let key = if kind == ElementKind::Resource {
        "resources"
    } else {
        "sources"
    };
    let nodes = reader.list(component, key);
    let items: Vec<Item> = nodes
        .into_iter()
        .filter_map(|(path, node)| item(reader, node, path, kind, own))
        .collect();
    let identities = items
        .iter()
        .map(|item| (item.element(own).identity(), item.span, item.path.as_str()));
    check_unique(reader, kind, identities);
    items
}

fn item(
    reader: &mut Reader<'_>,
    node: &Node,
    path: String,
    kind: ElementKind,
    own: &str,
) -> Option<Item> {
    let mut fields = reader.fields(node, path, &format!("a {kind}"))?;
    let mut value = JsonMap::new();
    let name = head(reader, &mut fields, &mut value, Some(own));
    let type_name = type_name(reader, &mut fields);
    if let Some(type_name) = &type_name {
        value.insert("type".into(), type_name.text.clone().into());
    }
    let is_resource = kind == ElementKind::Resource;
    let content = content(reader, &mut fields);
    let (mut digest, mut options) = (None, Options::default());
    if is_resource {
        let default = if matches!(content, Some(ItemContent::Input(_))) {
            "local"
        } else {
            "external"
        };
        if let Some(relation) = relation(reader, &mut fields, default) {
            value.insert("relation".into(), relation.into());
        }
        if let Some(references) = source_references(reader, &mut fields) {
            value.insert("srcRefs".into(), references);
        }
        digest = self::digest(reader, &mut fields);
        options = self::options(reader, &mut fields);
    }
    let known: &[&str] = if is_resource {
        &RESOURCE_KEYS
    } else {
        &SOURCE_KEYS
    };
    value.extend(reader.keep(&fields, known));
    name?;
    type_name?;
    Some(Item {
        kind,
        value: Json::Object(value),
        content: content?,
        digest,
        ownership: options.ownership,
        without_digest: options.without_digest,
        span: node.span,
        path: fields.path,
    })
}

/// Name, version, extra identity and labels. A version that is not there is `own`, or a mistake without.
fn head(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    value: &mut JsonMap<String, Json>,
    own: Option<&str>,
) -> Option<()> {
    let name = element_name(reader, fields);
    let version = match own {
        Some(own) if fields.value("version").is_none() => Some(Word::new(own, fields.span)),
        _ => version(reader, fields),
    };
    let extra = extra_identity(reader, fields);
    let labels = labels(reader, fields);
    let (name, version) = (name?, version?);
    value.insert("name".into(), name.text.into());
    value.insert("version".into(), version.text.into());
    if let Some(extra) = extra.filter(|extra| !extra.is_empty()) {
        value.insert("extraIdentity".into(), Json::Object(extra));
    }
    if !labels.is_empty() {
        value.insert("labels".into(), labels.into());
    }
    Some(())
}

fn element_name(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Word> {
    let name = reader.needed(fields, "name")?;
    if is_element_name(&name.text) {
        return Some(name);
    }
    let message = format!("`{}` is not a name", name.text);
    reader.error(name.span, fields.below("name"), message).hint = Some(
        "at least two of a-z, 0-9, `-`, `_` and `+`, a letter or digit at both ends".to_owned(),
    );
    None
}

/// The type of a resource or source: free text that starts like a word.
fn type_name(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Word> {
    let word = reader.needed(fields, "type")?;
    if word.text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Some(word);
    }
    let message = format!("`{}` is not a type", word.text);
    reader.error(word.span, fields.below("type"), message).hint =
        Some("start with a letter or digit, as in ociImage, helmChart or blob".to_owned());
    None
}

fn extra_identity(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
) -> Option<JsonMap<String, Json>> {
    let path = fields.below("extraIdentity");
    let node = fields.value("extraIdentity")?;
    attributes(reader, node, &path, "`extraIdentity`")
}

/// A flat map of texts whose keys are names.
fn attributes(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    what: &str,
) -> Option<JsonMap<String, Json>> {
    let mut fields = reader.fields(node, path, what)?;
    let mut attributes = JsonMap::new();
    for (key, member) in fields.left() {
        fields.take(key);
        if !is_element_name(key) {
            let message = format!("`{key}` is not a name of an attribute");
            reader.error(member.key, path, message).hint = Some(
                "at least two of a-z, 0-9, `-`, `_` and `+`, a letter or digit at both ends"
                    .to_owned(),
            );
        }
        if let Some(word) = reader.as_text(&member.node, fields.below(key), key) {
            attributes.insert(key.to_owned(), word.text.into());
        }
    }
    Some(attributes)
}

/// Labels as they are written. Their values may be any data.
pub(super) fn labels(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<Json> {
    let nodes = reader.list(fields, "labels");
    let mut names: BTreeMap<String, Span> = BTreeMap::new();
    let mut labels = Vec::new();
    for (path, node) in nodes {
        let Some((name, label)) = label(reader, node, &path) else {
            continue;
        };
        if names.insert(name.text.clone(), name.span).is_some() {
            let message = format!("the label `{}` is there twice", name.text);
            reader.error(name.span, path, message).hint = Some("remove one of them".to_owned());
        }
        labels.push(label);
    }
    labels
}

fn label(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<(Word, Json)> {
    let mut fields = reader.fields(node, path, "a label")?;
    let name = reader.needed(&mut fields, "name");
    let mut label = JsonMap::new();
    if let Some(name) = &name {
        label.insert("name".into(), name.text.clone().into());
    }
    match fields.take("value") {
        Some(member) => {
            label.insert("value".into(), member.node.to_json());
        }
        None => {
            reader.error(fields.span, path, "the label has no `value`");
        }
    }
    if fields.value("signing").is_some() {
        let signing = reader.flag(&mut fields, "signing");
        label.insert("signing".into(), signing.into());
    }
    if let Some(version) = reader.text(&mut fields, "version") {
        let number = version.text.strip_prefix('v').unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            let message = format!("`{}` is not a version of a label", version.text);
            reader
                .error(version.span, fields.below("version"), message)
                .hint = Some("write v1, v2, ...".to_owned());
        }
        label.insert("version".into(), version.text.into());
    }
    if let Some(merge) = merge(reader, &mut fields) {
        label.insert("merge".into(), merge);
    }
    label.extend(reader.keep(&fields, &LABEL_KEYS));
    Some((name?, Json::Object(label)))
}

fn merge(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Json> {
    let path = fields.below("merge");
    let mut merge = reader.fields(fields.value("merge")?, path, "`merge`")?;
    let mut value = JsonMap::new();
    if let Some(algorithm) = reader.text(&mut merge, "algorithm") {
        let (first, rest) = (
            algorithm.text.bytes().next(),
            algorithm.text.bytes().skip(1),
        );
        let is_inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/_-".contains(&byte);
        if !first.is_some_and(|byte| byte.is_ascii_lowercase())
            || !rest.clone().all(is_inner)
            || rest.count() == 0
        {
            let message = format!("`{}` is not a merge algorithm", algorithm.text);
            reader.error(algorithm.span, merge.below("algorithm"), message);
        }
        value.insert("algorithm".into(), algorithm.text.into());
    }
    if let Some(config) = merge.take("config") {
        value.insert("config".into(), config.node.to_json());
    }
    reader.close(&merge, &["algorithm", "config"]);
    Some(Json::Object(value))
}

/// Exactly one of `access` and `input`.
fn content(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ItemContent> {
    let (access, input) = (fields.take("access"), fields.take("input"));
    match (access, input) {
        (Some(access), None) => {
            access_value(reader, &access.node, &fields.below("access")).map(ItemContent::Access)
        }
        (None, Some(input)) => {
            input::read(reader, input, &fields.below("input")).map(ItemContent::Input)
        }
        (Some(access), Some(input)) => {
            let second = access.key.max(input.key);
            let message = "`access` and `input` exclude each other";
            reader.error(second, fields.path.clone(), message).hint =
                Some("`access` leaves the content where it is, `input` takes it in".to_owned());
            None
        }
        (None, None) => {
            let message = "there is neither `access` nor `input`";
            reader.error(fields.span, fields.path.clone(), message).hint =
                Some("`access` says where the content is, `input` takes it in".to_owned());
            None
        }
    }
}

/// An access specification, kept as it is. Of types known here the fields are checked.
fn access_value(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Json> {
    let mut fields = reader.fields(node, path, "an access")?;
    let kind = reader.needed(&mut fields, "type")?;
    let value = node.to_json();
    let found = Access::parse(&value);
    if let Err(error) = found {
        reader.error(node.span, path, error.to_string());
        return None;
    }
    if AccessType::of(&kind.text) == AccessType::Other && !kind.text.contains('.') {
        let known = [
            "ociArtifact",
            "ociBlob",
            "localBlob",
            "helm",
            "gitHub",
            "wget",
            "s3",
            "git",
            "npm",
            "maven",
            "none",
            "ocm",
        ];
        if let Some(known) = did_you_mean(&kind.text, known) {
            reader
                .error(
                    kind.span,
                    fields.below("type"),
                    format!("unknown access type `{}`", kind.text),
                )
                .hint = Some(format!("did you mean `{known}`?"));
            return None;
        }
    }
    Some(value)
}

fn relation(reader: &mut Reader<'_>, fields: &mut Fields<'_>, default: &str) -> Option<String> {
    let Some(relation) = reader.text(fields, "relation") else {
        return Some(default.to_owned());
    };
    if matches!(relation.text.as_str(), "local" | "external") {
        return Some(relation.text);
    }
    let message = format!("`{}` is not a relation", relation.text);
    let hint = match did_you_mean(&relation.text, ["local", "external"]) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "write `local` or `external`".to_owned(),
    };
    reader
        .error(relation.span, fields.below("relation"), message)
        .hint = Some(hint);
    None
}

fn source_references(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Json> {
    let key = if fields.has("srcRefs") {
        "srcRefs"
    } else {
        "srcRef"
    };
    fields.value(key)?;
    let nodes = reader.list(fields, key);
    let mut references = Vec::new();
    for (path, node) in nodes {
        let Some(mut fields) = reader.fields(node, path, "a source reference") else {
            continue;
        };
        let mut value = JsonMap::new();
        let selector = fields.below("identitySelector");
        if let Some(node) = fields.value("identitySelector")
            && let Some(attributes) = attributes(reader, node, &selector, "`identitySelector`")
        {
            value.insert("identitySelector".into(), Json::Object(attributes));
        }
        let labels = labels(reader, &mut fields);
        if !labels.is_empty() {
            value.insert("labels".into(), labels.into());
        }
        reader.close(&fields, &["identitySelector", "labels"]);
        references.push(Json::Object(value));
    }
    Some(Json::Array(references))
}

/// A digest triple whose value fits its algorithm; the mark of exclusion passes.
fn digest(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<DigestSpec> {
    let path = fields.below("digest");
    let mut digest = reader.fields(fields.value("digest")?, path, "a digest")?;
    let hash = reader.needed(&mut digest, "hashAlgorithm");
    let normalisation = reader.needed(&mut digest, "normalisationAlgorithm");
    let value = reader.needed(&mut digest, "value");
    reader.close(
        &digest,
        &["hashAlgorithm", "normalisationAlgorithm", "value"],
    );
    let (hash, normalisation, value) = (hash?, normalisation?, value?);
    let spec = DigestSpec {
        hash_algorithm: hash.text,
        normalisation_algorithm: normalisation.text,
        value: value.text,
    };
    if spec.is_excluded() || spec.digest().is_some() {
        return Some(spec);
    }
    if spec.algorithm().is_none() {
        let message = format!(
            "`{}` is a hash algorithm that is not computed here",
            spec.hash_algorithm
        );
        reader
            .error(hash.span, digest.below("hashAlgorithm"), message)
            .hint = Some("write SHA-256 or SHA-512".to_owned());
    } else {
        let message = format!("`{}` is no value of {}", spec.value, spec.hash_algorithm);
        reader
            .error(value.span, digest.below("value"), message)
            .hint = Some("write all hex digits, without an algorithm in front".to_owned());
    }
    None
}

#[derive(Default)]
struct Options {
    ownership: bool,
    without_digest: bool,
}

fn options(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Options {
    let path = fields.below("options");
    let Some(mut fields) = fields
        .value("options")
        .and_then(|node| reader.fields(node, path, "`options`"))
    else {
        return Options::default();
    };
    let policy = reader.text(&mut fields, "ownershipPolicy");
    if let Some(policy) = policy
        .as_ref()
        .filter(|policy| !matches!(policy.text.as_str(), "Always" | "Never" | ""))
    {
        let message = format!("`{}` is not an ownership policy", policy.text);
        reader
            .error(policy.span, fields.below("ownershipPolicy"), message)
            .hint = Some("write Always or Never".to_owned());
    }
    let without_digest = reader.flag(&mut fields, "skipDigestGeneration");
    reader.close(&fields, &["ownershipPolicy", "skipDigestGeneration"]);
    Options {
        ownership: policy.is_some_and(|policy| policy.text == "Always"),
        without_digest,
    }
}

/// `componentReferences`, or `references` as v1 spells it.
pub(super) fn references(reader: &mut Reader<'_>, component: &mut Fields<'_>) -> Vec<Reference> {
    let mut nodes = reader.list(component, "componentReferences");
    nodes.extend(reader.list(component, "references"));
    let references: Vec<Reference> = nodes
        .into_iter()
        .filter_map(|(path, node)| reference(reader, node, path))
        .collect();
    let kind = ElementKind::Reference;
    let identities = references.iter().map(|it| {
        (
            Element::new(kind, &it.value, &it.version).identity(),
            it.span,
            it.path.as_str(),
        )
    });
    check_unique(reader, kind, identities);
    references
}

fn reference(reader: &mut Reader<'_>, node: &Node, path: String) -> Option<Reference> {
    let mut fields = reader.fields(node, path, "a reference")?;
    let mut value = JsonMap::new();
    let head = head(reader, &mut fields, &mut value, None);
    let component = component_name(reader, &mut fields, "componentName");
    let digest = digest(reader, &mut fields);
    reader.close(&fields, &REFERENCE_KEYS);
    head?;
    let component = component?.text;
    value.insert("componentName".into(), component.clone().into());
    let version = match value.get("version") {
        Some(Json::String(version)) => version.clone(),
        _ => String::new(),
    };
    Some(Reference {
        value: Json::Object(value),
        component,
        version,
        digest,
        span: node.span,
        path: fields.path,
    })
}

/// Two elements of one kind must differ in name, version or extra identity.
fn check_unique<'i>(
    reader: &mut Reader<'_>,
    kind: ElementKind,
    identities: impl Iterator<Item = (Identity, Span, &'i str)>,
) {
    let mut seen: BTreeMap<Identity, &str> = BTreeMap::new();
    for (identity, span, path) in identities {
        if let Some(first) = seen.get(&identity) {
            let message =
                format!("the {kind} `{identity}` is there twice, the first time as {first}");
            reader.error(span, path, message).hint =
                Some("tell them apart by name, version or `extraIdentity`".to_owned());
        } else {
            seen.insert(identity, path);
        }
    }
}
