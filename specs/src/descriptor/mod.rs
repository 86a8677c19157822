//! Component descriptors: the document that describes a component version.
//!
//! *Invariant*: the document is the JSON that was read, whole. Typed accessors are views into it; an edit changes what it
//! names and nothing else; unknown fields stay. As long as nothing is edited, the bytes that were read stay with the
//! document, so that storing it again stores them (formats.md 1, traps T1, T28, T29).

mod digest;
mod element;
mod encoding;

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

pub use digest::{DigestSpec, EXCLUDED, GENERIC_BLOB_DIGEST, OCI_ARTIFACT_DIGEST, updated_digest};
pub use element::{Element, ElementKind, LookupError};
pub use encoding::{DESCRIPTOR_FILE, Encoded, Encoding};

use crate::identity::Identity;
use crate::json::{field, spelling};

/// Largest descriptor that is read, in bytes: ten times what a component of 20,000 resources needs.
pub const DESCRIPTOR_LIMIT: u64 = 64 << 20;

/// Which of the schemas a descriptor follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaVersion {
    /// `meta.schemaVersion: v2`, what is written.
    V2,
    /// `apiVersion: ocm.software/v3alpha1`, which is read.
    V3Alpha1,
}

/// Why something is no component descriptor.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DescriptorError {
    /// More bytes than are read.
    #[error(
        "component descriptor of {0} bytes is larger than the {DESCRIPTOR_LIMIT} that are read"
    )]
    TooLarge(u64),
    /// The media type is none of a descriptor.
    #[error("`{0}` is no media type of a component descriptor")]
    MediaType(String),
    /// The bytes are not what the media type says.
    #[error("component descriptor is not well formed: {0}")]
    Syntax(String),
    /// The document follows no schema known here.
    #[error(
        "component descriptor of unknown schema {0}: expected meta.schemaVersion v2 or apiVersion ocm.software/v3alpha1"
    )]
    Schema(String),
    /// A part of the document is missing or of the wrong kind.
    #[error("component descriptor: `{path}` is not {expected}")]
    Shape {
        /// Where.
        path: String,
        /// What should stand there.
        expected: &'static str,
    },
}

/// A component descriptor, lossless.
#[derive(Clone)]
pub struct ComponentDescriptor {
    document: Arc<Value>,
    schema: SchemaVersion,
    original: Option<Encoded>,
}

/// Who provides a component (formats.md 1.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// The provider's name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<Value>,
}

/// A look at one signature.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a>(&'a Map<String, Value>);

impl ComponentDescriptor {
    /// Reads a descriptor in the encoding that `media_type` names, and keeps the bytes.
    ///
    /// # Errors
    /// An unknown media type, more than [`DESCRIPTOR_LIMIT`] bytes, bad syntax, or a document that is no descriptor.
    pub fn decode(media_type: &str, bytes: impl Into<Arc<[u8]>>) -> Result<Self, DescriptorError> {
        let bytes = bytes.into();
        if bytes.len() as u64 > DESCRIPTOR_LIMIT {
            return Err(DescriptorError::TooLarge(bytes.len() as u64));
        }
        let encoding = Encoding::of(media_type)
            .ok_or_else(|| DescriptorError::MediaType(media_type.to_owned()))?;
        let mut document = encoding::read(encoding, &bytes)?;
        if encoding != Encoding::Json {
            restore_texts(&mut document);
        }
        let mut descriptor = Self::from_value(document)?;
        descriptor.original = Some(Encoded {
            media_type: media_type.to_owned(),
            bytes,
        });
        Ok(descriptor)
    }

    /// Takes a document that came some other way: as the output of a step, or made by code.
    ///
    /// # Errors
    /// A document that is no descriptor.
    pub fn from_value(document: Value) -> Result<Self, DescriptorError> {
        let schema = schema_of(&document)?;
        let descriptor = Self {
            document: Arc::new(document),
            schema,
            original: None,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// The whole document.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The whole document, for those who keep it, too.
    pub fn shared_document(&self) -> Arc<Value> {
        self.document.clone()
    }

    /// The whole document, taken out.
    pub fn into_document(self) -> Value {
        Arc::unwrap_or_clone(self.document)
    }

    /// Which schema it follows.
    pub fn schema(&self) -> SchemaVersion {
        self.schema
    }

    /// The bytes it was read from, as long as nothing was edited.
    pub fn original(&self) -> Option<&Encoded> {
        self.original.as_ref()
    }

    /// Takes over the bytes of `other` if both hold the same document: a descriptor that passed through a step as JSON is
    /// stored as it was read. Key order does not count.
    pub fn adopt_original(&mut self, other: &Self) -> bool {
        let same = self.original.is_none() && self.document == other.document;
        if same && other.original.is_some() {
            self.document = other.document.clone();
            self.original.clone_from(&other.original);
        }
        same
    }

    /// The component's name.
    pub fn name(&self) -> &str {
        self.meta_text("name").unwrap_or_default()
    }

    /// The component's version.
    pub fn version(&self) -> &str {
        self.meta_text("version").unwrap_or_default()
    }

    /// When it was created, as written.
    pub fn creation_time(&self) -> Option<&str> {
        self.meta_text("creationTime")
    }

    /// Who provides it. A text that starts with `{` is a JSON document with name and labels.
    pub fn provider(&self) -> Provider {
        let object = self.provider_object();
        Provider {
            name: text(&object, "name").unwrap_or_default().to_owned(),
            labels: list(&object, "labels").to_vec(),
        }
    }

    /// The provider as an object, whatever form it is stored in.
    pub(crate) fn provider_object(&self) -> Map<String, Value> {
        let stored = match field(self.component(), "provider") {
            Some(Value::Object(object)) => return object.clone(),
            Some(Value::String(text)) => text.as_str(),
            _ => "",
        };
        if stored.trim_start().starts_with('{')
            && let Ok(Value::Object(object)) = serde_json::from_str(stored)
        {
            return object;
        }
        Map::from_iter([("name".to_owned(), Value::from(stored))])
    }

    /// The component's labels.
    pub fn labels(&self) -> &[Value] {
        list(self.component(), "labels")
    }

    /// Where the component version has been; the last entry is the latest place.
    pub fn repository_contexts(&self) -> &[Value] {
        match self.schema {
            SchemaVersion::V2 => list(self.component(), "repositoryContexts"),
            SchemaVersion::V3Alpha1 => list(self.root(), "repositoryContexts"),
        }
    }

    /// Digests of referenced component versions that v1 collects at the top (formats.md 1.4).
    pub fn nested_digests(&self) -> &[Value] {
        list(self.root(), "nestedDigests")
    }

    /// The signatures.
    pub fn signatures(&self) -> impl Iterator<Item = Signature<'_>> {
        list(self.root(), "signatures")
            .iter()
            .filter_map(Value::as_object)
            .map(Signature)
    }

    /// The resources in order.
    pub fn resources(&self) -> impl ExactSizeIterator<Item = Element<'_>> {
        self.elements(ElementKind::Resource)
    }

    /// The sources in order.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = Element<'_>> {
        self.elements(ElementKind::Source)
    }

    /// The references in order.
    pub fn references(&self) -> impl ExactSizeIterator<Item = Element<'_>> {
        self.elements(ElementKind::Reference)
    }

    /// The elements of one kind in order.
    pub fn elements(&self, kind: ElementKind) -> impl ExactSizeIterator<Item = Element<'_>> {
        let version = self.version();
        list(self.lists(), self.list_name(kind))
            .iter()
            .map(move |value| Element::new(kind, value, version))
    }

    /// The one element that a complete or partial identity selects.
    ///
    /// # Errors
    /// None or several; the error lists the candidates.
    pub fn find(&self, kind: ElementKind, wanted: &Identity) -> Result<Element<'_>, LookupError> {
        element::select(kind, self.elements(kind), wanted).map(|(_, found)| found)
    }

    /// The one resource that an identity selects.
    ///
    /// # Errors
    /// None or several; the error lists the candidates.
    pub fn resource(&self, wanted: &Identity) -> Result<Element<'_>, LookupError> {
        self.find(ElementKind::Resource, wanted)
    }

    /// Puts `new` in the place of the element that `wanted` selects. Where both are equal nothing happens; else keys that
    /// stay keep their order.
    ///
    /// # Errors
    /// No such element, or several.
    pub fn set(
        &mut self,
        kind: ElementKind,
        wanted: &Identity,
        new: Value,
    ) -> Result<(), LookupError> {
        let (index, found) = element::select(kind, self.elements(kind), wanted)?;
        if found.value() != &new {
            let slot = &mut self.edit_list(kind)[index];
            *slot = reordered(slot.take(), new);
        }
        Ok(())
    }

    /// Puts `new` in the place of the resource that `wanted` selects; see [`Self::set`].
    ///
    /// # Errors
    /// No such resource, or several.
    pub fn set_resource(&mut self, wanted: &Identity, new: Value) -> Result<(), LookupError> {
        self.set(ElementKind::Resource, wanted, new)
    }

    /// Puts `new` in the place of the element with the same complete identity, or at the end if there is none. Tells
    /// whether there was one.
    ///
    /// # Errors
    /// Several elements have that identity.
    pub fn merge(&mut self, kind: ElementKind, new: Value) -> Result<bool, LookupError> {
        let wanted = Element::new(kind, &new, self.version()).identity();
        match self.set(kind, &wanted, new.clone()) {
            Ok(()) => Ok(true),
            Err(LookupError::NotFound { .. }) => {
                self.edit_list(kind).push(new);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the elements that `keep` likes. Nothing else changes; nothing at all if it likes them all.
    pub fn retain(&mut self, kind: ElementKind, keep: impl Fn(&Element<'_>) -> bool) {
        let kept: Vec<bool> = self.elements(kind).map(|element| keep(&element)).collect();
        if kept.iter().all(|keep| *keep) {
            return;
        }
        let mut kept = kept.into_iter();
        self.edit_list(kind).retain(|_| kept.next().unwrap_or(true));
    }

    /// Puts `new` in the place of the element at `index` of its list; nothing happens where there is none. Keys that stay keep
    /// their order.
    pub fn replace(&mut self, kind: ElementKind, index: usize, new: Value) {
        let is_new = self
            .elements(kind)
            .nth(index)
            .is_some_and(|found| found.value() != &new);
        if is_new {
            let slot = &mut self.edit_list(kind)[index];
            *slot = reordered(slot.take(), new);
        }
    }

    /// Puts `new` in the place of the signature of its name, or at the end if there is none. Other signatures stay as they
    /// are, whole.
    pub fn put_signature(&mut self, new: Value) {
        self.original = None;
        let name = new.as_object().and_then(|new| text(new, "name"));
        let root = edit_object(Arc::make_mut(&mut self.document));
        let slot = edit_field(root, "signatures");
        if !slot.is_array() {
            *slot = Value::Array(Vec::new());
        }
        let list = slot.as_array_mut().expect("it was made a list just now");
        let named = |it: &&mut Value| it.as_object().and_then(|it| text(it, "name")) == name;
        match list.iter_mut().find(named) {
            Some(old) => *old = new,
            None => list.push(new),
        }
    }

    /// Any other change to the document. The original bytes stay if it is equal afterwards.
    ///
    /// # Errors
    /// The result is no descriptor; then nothing is changed.
    pub fn edit(&mut self, change: impl FnOnce(&mut Value)) -> Result<(), DescriptorError> {
        let mut document = Value::clone(&self.document);
        change(&mut document);
        if document != *self.document {
            *self = Self::from_value(document)?;
        }
        Ok(())
    }

    /// The descriptor in that encoding, as Go writes it; the original bytes if they are in that encoding.
    pub fn encode(&self, encoding: Encoding) -> Encoded {
        match &self.original {
            Some(original) if original.media_type == encoding.media_type() => original.clone(),
            _ => encoding::write(encoding, &self.document),
        }
    }

    /// What a repository should store: the original bytes in their encoding if there are any, else `encoding`.
    pub fn to_stored(&self, encoding: Encoding) -> Encoded {
        match &self.original {
            Some(original) => original.clone(),
            None => encoding::write(encoding, &self.document),
        }
    }

    fn root(&self) -> &Map<String, Value> {
        object_or_empty(Some(&self.document))
    }

    /// The object with name, version and provider.
    fn component(&self) -> &Map<String, Value> {
        object_or_empty(field(self.root(), self.meta_key()))
    }

    /// The object with the lists of elements.
    fn lists(&self) -> &Map<String, Value> {
        object_or_empty(field(self.root(), self.lists_key()))
    }

    fn meta_text(&self, name: &str) -> Option<&str> {
        text(self.component(), name)
    }

    fn meta_key(&self) -> &'static str {
        match self.schema {
            SchemaVersion::V2 => "component",
            SchemaVersion::V3Alpha1 => "metadata",
        }
    }

    fn lists_key(&self) -> &'static str {
        match self.schema {
            SchemaVersion::V2 => "component",
            SchemaVersion::V3Alpha1 => "spec",
        }
    }

    fn list_name(&self, kind: ElementKind) -> &'static str {
        match (kind, self.schema) {
            (ElementKind::Resource, _) => "resources",
            (ElementKind::Source, _) => "sources",
            (ElementKind::Reference, SchemaVersion::V2) => "componentReferences",
            (ElementKind::Reference, SchemaVersion::V3Alpha1) => "references",
        }
    }

    /// The list to change; from here on the original bytes no longer count. Made where it is missing or null.
    fn edit_list(&mut self, kind: ElementKind) -> &mut Vec<Value> {
        self.original = None;
        let (lists_key, name) = (self.lists_key(), self.list_name(kind));
        let root = edit_object(Arc::make_mut(&mut self.document));
        let lists = edit_field(root, lists_key);
        let slot = edit_field(edit_object(lists), name);
        if !slot.is_array() {
            *slot = Value::Array(Vec::new());
        }
        slot.as_array_mut().expect("it was made a list just now")
    }

    /// Everything that the accessors take for granted.
    fn check(&self) -> Result<(), DescriptorError> {
        let meta = self.meta_key();
        for name in ["name", "version"] {
            if self.meta_text(name).is_none_or(str::is_empty) {
                return Err(shape(format!("{meta}.{name}"), "a text"));
            }
        }
        for kind in [
            ElementKind::Resource,
            ElementKind::Source,
            ElementKind::Reference,
        ] {
            let path = format!("{}.{}", self.lists_key(), self.list_name(kind));
            for (index, item) in checked_list(self.lists(), self.list_name(kind), &path)?
                .iter()
                .enumerate()
            {
                let named = item
                    .as_object()
                    .and_then(|object| text(object, "name"))
                    .is_some_and(|name| !name.is_empty());
                if !named {
                    return Err(shape(format!("{path}[{index}].name"), "a text"));
                }
            }
        }
        checked_list(self.root(), "signatures", "signatures")?;
        Ok(())
    }
}

impl PartialEq for ComponentDescriptor {
    /// The same document; key order and bytes do not count.
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl fmt::Debug for ComponentDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComponentDescriptor")
            .field("name", &self.name())
            .field("version", &self.version())
            .field("original", &self.original.is_some())
            .finish_non_exhaustive()
    }
}

impl<'a> Signature<'a> {
    /// Its name, unique within the descriptor.
    pub fn name(&self) -> &'a str {
        text(self.0, "name").unwrap_or_default()
    }

    /// What was signed.
    pub fn digest(&self) -> Option<DigestSpec> {
        field(self.0, "digest").and_then(DigestSpec::from_value)
    }

    /// A field of the signature proper: `algorithm`, `value`, `mediaType`, `issuer`.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        text(object_or_empty(field(self.0, "signature")), name)
    }

    /// All of it.
    pub fn fields(&self) -> &'a Map<String, Value> {
        self.0
    }
}

fn schema_of(document: &Value) -> Result<SchemaVersion, DescriptorError> {
    let root = document
        .as_object()
        .ok_or_else(|| shape("the document", "an object"))?;
    let meta = object_or_empty(field(root, "meta"));
    if let Some(version) = text(meta, "schemaVersion") {
        return if version.starts_with("v2") {
            Ok(SchemaVersion::V2)
        } else {
            Err(DescriptorError::Schema(format!("`{version}`")))
        };
    }
    match text(root, "apiVersion") {
        Some("ocm.software/v3alpha1") => Ok(SchemaVersion::V3Alpha1),
        Some(version) => Err(DescriptorError::Schema(format!("`{version}`"))),
        None => Err(DescriptorError::Schema("(none is given)".to_owned())),
    }
}

fn shape(path: impl Into<String>, expected: &'static str) -> DescriptorError {
    DescriptorError::Shape {
        path: path.into(),
        expected,
    }
}

pub(crate) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(object, name).and_then(Value::as_str)
}

/// The list below `name`; null and absence are the empty list.
pub(crate) fn list<'a>(object: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    field(object, name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn checked_list<'a>(
    object: &'a Map<String, Value>,
    name: &str,
    path: &str,
) -> Result<&'a [Value], DescriptorError> {
    match field(object, name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(shape(path, "a list")),
    }
}

fn object_or_empty(value: Option<&Value>) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.and_then(Value::as_object).unwrap_or(&EMPTY)
}

fn edit_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value
        .as_object_mut()
        .expect("it was made an object just now")
}

fn edit_field<'a>(object: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    let key = spelling(object, name).to_owned();
    object.entry(key).or_insert(Value::Null)
}

/// `new` with the keys that `old` has in the order of `old`.
fn reordered(old: Value, new: Value) -> Value {
    match (old, new) {
        (Value::Object(old), Value::Object(mut new)) => {
            let mut out = Map::new();
            for (key, old_value) in old {
                if let Some(new_value) = new.shift_remove(&key) {
                    out.insert(key, reordered(old_value, new_value));
                }
            }
            out.extend(new);
            Value::Object(out)
        }
        (_, new) => new,
    }
}

/// Turns scalars that YAML typed back into text where the schema has text, as Go does (formats.md 1.6 "Reading traps").
fn restore_texts(document: &mut Value) {
    const TEXTS: [&str; 14] = [
        "name",
        "version",
        "provider",
        "creationTime",
        "schemaVersion",
        "componentName",
        "type",
        "relation",
        "hashAlgorithm",
        "normalisationAlgorithm",
        "value",
        "algorithm",
        "mediaType",
        "issuer",
    ];
    /// Below these stands free data, which keeps its types: accesses and contexts are raw objects, labels hold any value.
    const RAW: [&str; 2] = ["access", "repositoryContexts"];
    match document {
        Value::Array(items) => items.iter_mut().for_each(restore_texts),
        Value::Object(object) => {
            let is_label = object.contains_key("signing")
                || (object.contains_key("value") && object.contains_key("name"));
            for (key, value) in object.iter_mut() {
                let free = RAW.contains(&key.as_str()) || (is_label && key == "value");
                if free {
                    continue;
                }
                if key == "extraIdentity" || key == "identitySelector" {
                    if let Value::Object(attributes) = value {
                        attributes.values_mut().for_each(restore_text);
                    }
                } else if TEXTS.contains(&key.as_str()) && !value.is_object() {
                    restore_text(value);
                } else {
                    restore_texts(value);
                }
            }
        }
        _ => {}
    }
}

fn restore_text(value: &mut Value) {
    if matches!(value, Value::Bool(_) | Value::Number(_)) {
        *value = Value::String(crate::json::to_sorted(value));
    }
}

#[cfg(test)]
mod tests;
