//! `jsonNormalisation/v1`: the descriptor in the schema that it is stored in, as lists of one-key objects.
//!
//! *Invariant*: only fields that the library v1 has in its structs get in, in the two shapes that it knows.

use serde_json::{Map, Value};

use super::{Labels, has_no_content, identities, is_signing, label_field};
use crate::descriptor::{ComponentDescriptor, Element, ElementKind, SchemaVersion};
use crate::json::{Style, field, write_value};

/// The canonical bytes. `force_nulls`: an element without extra identity has one that is null (trap T34).
pub(super) fn normalise(descriptor: &ComponentDescriptor, force_nulls: bool) -> String {
    let maker = Maker {
        descriptor,
        versioned: identities::versioned(descriptor),
        force_nulls: force_nulls && descriptor.schema() == SchemaVersion::V2,
    };
    let document = match descriptor.schema() {
        SchemaVersion::V2 => maker.v2(),
        SchemaVersion::V3Alpha1 => maker.v3alpha1(),
    };
    let mut out = String::new();
    write_value(&mut out, &Value::Object(document), Style::Entries);
    out
}

struct Maker<'a> {
    descriptor: &'a ComponentDescriptor,
    versioned: Vec<Option<&'a str>>,
    force_nulls: bool,
}

impl Maker<'_> {
    /// Without sources, whatever they say.
    fn v2(&self) -> Map<String, Value> {
        let mut component = self.meta();
        component.insert("provider".to_owned(), self.provider_text());
        for (key, kind) in [
            ("componentReferences", ElementKind::Reference),
            ("resources", ElementKind::Resource),
        ] {
            component.insert(key.to_owned(), Value::Array(self.elements(kind)));
        }
        let root = self.descriptor.document().as_object();
        let schema = root
            .and_then(|root| field(root, "meta"))
            .and_then(Value::as_object)
            .and_then(|meta| field(meta, "schemaVersion"))
            .cloned();
        let meta = Map::from_iter([("schemaVersion".to_owned(), schema.unwrap_or_default())]);
        Map::from_iter([
            ("component".to_owned(), Value::Object(component)),
            ("meta".to_owned(), Value::Object(meta)),
        ])
    }

    /// Labels of the provider are not filtered here, and empty lists are not there.
    fn v3alpha1(&self) -> Map<String, Value> {
        let mut metadata = self.meta();
        let provider = self.descriptor.provider();
        metadata.insert(
            "provider".to_owned(),
            provider_object(&provider.name, labels(&provider.labels, Labels::All)),
        );
        let mut spec = Map::new();
        for (key, kind) in [
            ("references", ElementKind::Reference),
            ("resources", ElementKind::Resource),
            ("sources", ElementKind::Source),
        ] {
            let elements = self.elements(kind);
            if !elements.is_empty() {
                spec.insert(key.to_owned(), Value::Array(elements));
            }
        }
        let root = self.descriptor.document().as_object();
        let text = |name: &str| {
            root.and_then(|root| field(root, name))
                .cloned()
                .unwrap_or_default()
        };
        Map::from_iter([
            ("apiVersion".to_owned(), text("apiVersion")),
            ("kind".to_owned(), text("kind")),
            ("metadata".to_owned(), Value::Object(metadata)),
            ("spec".to_owned(), Value::Object(spec)),
        ])
    }

    /// What both schemas say of the component itself, but for the provider.
    fn meta(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("name".to_owned(), self.descriptor.name().into());
        fields.insert("version".to_owned(), self.descriptor.version().into());
        if let Some(time) = self.descriptor.creation_time() {
            fields.insert("creationTime".to_owned(), time.into());
        }
        if let Some(labels) = labels(self.descriptor.labels(), Labels::Signing) {
            fields.insert("labels".to_owned(), labels);
        }
        fields
    }

    /// The provider's name, or an object where it has labels.
    fn provider_text(&self) -> Value {
        let provider = self.descriptor.provider();
        if provider.labels.is_empty() {
            return Value::from(provider.name);
        }
        provider_object(&provider.name, labels(&provider.labels, Labels::Signing))
    }

    fn elements(&self, kind: ElementKind) -> Vec<Value> {
        self.descriptor
            .elements(kind)
            .enumerate()
            .filter_map(|(index, element)| self.element(index, &element))
            .collect()
    }

    fn element(&self, index: usize, element: &Element<'_>) -> Option<Value> {
        let fields = element.value().as_object()?;
        let kind = element.kind();
        let mut out = Map::new();
        for name in ["name", "version"] {
            out.insert(name.to_owned(), text(fields, name));
        }
        if kind == ElementKind::Reference {
            out.insert("componentName".to_owned(), text(fields, "componentName"));
        } else {
            out.insert("type".to_owned(), text(fields, "type"));
        }
        if kind == ElementKind::Resource && !element.relation().unwrap_or_default().is_empty() {
            out.insert("relation".to_owned(), text(fields, "relation"));
        }
        let version = self.versioned.get(index).copied().flatten();
        let extra =
            identities::extra_identity(fields, version.filter(|_| kind == ElementKind::Resource));
        if !extra.is_empty() {
            out.insert(
                "extraIdentity".to_owned(),
                Value::Object(extra.into_owned()),
            );
        } else if self.force_nulls {
            out.insert("extraIdentity".to_owned(), Value::Null);
        }
        if let Some(labels) = labels(element.labels(), Labels::Signing) {
            out.insert("labels".to_owned(), labels);
        }
        let digest = field(fields, "digest").and_then(Value::as_object);
        let is_empty = kind == ElementKind::Resource && has_no_content(element);
        if let Some(digest) = digest.filter(|_| kind != ElementKind::Source && !is_empty) {
            let part = |name: &str| (name.to_owned(), text(digest, name));
            let triple = ["hashAlgorithm", "normalisationAlgorithm", "value"].map(part);
            out.insert(
                "digest".to_owned(),
                Value::Object(triple.into_iter().collect()),
            );
        }
        Some(Value::Object(out))
    }
}

fn provider_object(name: &str, labels: Option<Value>) -> Value {
    let mut out = Map::from_iter([("name".to_owned(), Value::from(name))]);
    out.extend(labels.map(|labels| ("labels".to_owned(), labels)));
    Value::Object(out)
}

/// The labels that stay by `rule`; `None` when there is none. Where all stay, they stay whole.
fn labels(labels: &[Value], rule: Labels) -> Option<Value> {
    let keys: &[&str] = match rule {
        Labels::Signing => &["name", "signing", "value", "version"],
        Labels::All => &["merge", "name", "signing", "value", "version"],
    };
    let kept: Vec<Value> = labels
        .iter()
        .filter_map(Value::as_object)
        .filter(|label| rule == Labels::All || is_signing(label))
        .map(|label| {
            let of = |key: &str| Some((key.to_owned(), label_field(label, key)?.clone()));
            Value::Object(keys.iter().copied().filter_map(of).collect())
        })
        .collect();
    (!kept.is_empty()).then_some(Value::Array(kept))
}

/// A text that Go always writes, empty where it is missing.
fn text(fields: &Map<String, Value>, name: &str) -> Value {
    let value = field(fields, name).and_then(Value::as_str);
    Value::from(value.unwrap_or_default())
}
