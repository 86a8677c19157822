//! Normalised forms: the canonical bytes of a component descriptor that digests and signatures stand on.
//!
//! *Invariant*: where a component version is stored, and everything else that transport may change, does not reach these
//! bytes (formats.md 6.3). They are written directly from the document, without a copy of it.

use serde_json::{Map, Value};

use crate::descriptor::{ComponentDescriptor, Element, ElementKind};
use crate::digest::{Algorithm, Digest};
use crate::json::{Style, field, write_object, write_string, write_value};

/// The algorithms written here. They select the same fields and differ in what the two Go libraries keep of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Normalisation {
    /// `jsonNormalisation/v3`, as the library v1 makes it: a label's `version` counts, so do nulls inside label values.
    V3,
    /// `jsonNormalisation/v4alpha1`, as the library v2 makes it: it loses a label's `version` and nulls (traps T1, T4), and
    /// writes an empty digest for a reference that has none (T3).
    V4Alpha1,
}

impl Normalisation {
    /// The name in digest triples.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "jsonNormalisation/v3",
            Self::V4Alpha1 => "jsonNormalisation/v4alpha1",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::V3, Self::V4Alpha1]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    /// The canonical bytes.
    pub fn normalise(self, descriptor: &ComponentDescriptor) -> String {
        let mut writer = Writer {
            out: String::new(),
            algorithm: self,
            is_first: true,
        };
        writer.component(descriptor);
        writer.out
    }

    /// The digest of the canonical bytes.
    pub fn digest(self, descriptor: &ComponentDescriptor, algorithm: Algorithm) -> Digest {
        Digest::of(algorithm, self.normalise(descriptor).as_bytes())
    }
}

/// Do both descriptors say the same where signatures look? What else differs is unsigned: places, labels without
/// `signing`, signatures.
pub fn is_signed_part_equal(a: &ComponentDescriptor, b: &ComponentDescriptor) -> bool {
    // v3 is the one that looks at more.
    Normalisation::V3.normalise(a) == Normalisation::V3.normalise(b)
}

/// Which labels stay.
#[derive(Clone, Copy, PartialEq)]
enum Labels {
    /// Those for signing.
    Signing,
    /// All: the rule for references, which the running code has against the text of the specification (trap T2).
    All,
}

struct Writer {
    out: String,
    algorithm: Normalisation,
    is_first: bool,
}

impl Writer {
    fn component(&mut self, descriptor: &ComponentDescriptor) {
        self.out.push_str("{\"component\":");
        self.open('{');
        self.key("componentReferences");
        self.elements(descriptor, ElementKind::Reference);
        if let Some(time) = descriptor.creation_time() {
            self.key("creationTime");
            self.text(time);
        }
        self.labels(descriptor.labels(), Labels::Signing);
        self.key("name");
        self.text(descriptor.name());
        self.key("provider");
        self.provider(&descriptor.provider_object());
        self.key("resources");
        self.elements(descriptor, ElementKind::Resource);
        self.key("sources");
        self.elements(descriptor, ElementKind::Source);
        self.key("version");
        self.text(descriptor.version());
        self.close('}');
        self.out.push('}');
    }

    /// All keys that a provider's object has; its labels by the rule.
    fn provider(&mut self, provider: &Map<String, Value>) {
        let mut entries: Vec<(&String, &Value)> = provider.iter().collect();
        entries.sort_unstable_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
        self.open('{');
        for (key, value) in entries {
            match value {
                Value::Null => {}
                Value::Array(labels) if key == "labels" => self.labels(labels, Labels::Signing),
                value => {
                    self.key(key);
                    write_value(&mut self.out, value, Style::CanonicalWithoutNulls);
                }
            }
        }
        self.close('}');
    }

    fn elements(&mut self, descriptor: &ComponentDescriptor, kind: ElementKind) {
        self.open('[');
        for element in descriptor.elements(kind) {
            self.item();
            self.element(element);
        }
        self.close(']');
    }

    /// The fields that Go's structs have, in sorted order; anything else does not reach the normalised form.
    fn element(&mut self, element: Element<'_>) {
        let kind = element.kind();
        let Some(fields) = element.value().as_object() else {
            return;
        };
        self.open('{');
        if kind == ElementKind::Reference {
            self.required(fields, "componentName");
        }
        self.digest(fields, &element);
        if let Some(Value::Object(extra)) = field(fields, "extraIdentity")
            && !extra.is_empty()
        {
            self.key("extraIdentity");
            write_object(&mut self.out, extra, Style::CanonicalWithoutNulls);
        }
        let rule = match kind {
            ElementKind::Reference => Labels::All,
            ElementKind::Resource | ElementKind::Source => Labels::Signing,
        };
        if let Some(Value::Array(labels)) = field(fields, "labels") {
            self.labels(labels, rule);
        }
        self.required(fields, "name");
        if kind == ElementKind::Resource {
            self.required(fields, "relation");
        }
        if kind != ElementKind::Reference {
            self.required(fields, "type");
        }
        self.required(fields, "version");
        self.close('}');
    }

    /// Resources without content have no digest; `none/v1` does not count as such (trap T26).
    fn digest(&mut self, fields: &Map<String, Value>, element: &Element<'_>) {
        let has_no_content = element
            .access_value()
            .and_then(|access| access.get("type"))
            .and_then(Value::as_str)
            .is_some_and(|type_name| matches!(type_name, "none" | "None"));
        let digest = field(fields, "digest").and_then(Value::as_object);
        match (element.kind(), digest) {
            (ElementKind::Source, _) => {}
            (ElementKind::Resource, _) if has_no_content => {}
            (_, Some(digest)) => self.triple(digest),
            (ElementKind::Reference, None) if self.algorithm == Normalisation::V4Alpha1 => {
                self.triple(&Map::new());
            }
            (_, None) => {}
        }
    }

    fn triple(&mut self, digest: &Map<String, Value>) {
        self.key("digest");
        self.open('{');
        for name in ["hashAlgorithm", "normalisationAlgorithm", "value"] {
            self.required(digest, name);
        }
        self.close('}');
    }

    /// The key goes when no label stays.
    fn labels(&mut self, labels: &[Value], rule: Labels) {
        let kept: Vec<&Map<String, Value>> = labels
            .iter()
            .filter_map(Value::as_object)
            .filter(|label| rule == Labels::All || is_signing(label))
            .collect();
        if kept.is_empty() {
            return;
        }
        self.key("labels");
        self.open('[');
        for label in kept {
            self.item();
            self.label(label, rule);
        }
        self.close(']');
    }

    fn label(&mut self, label: &Map<String, Value>, rule: Labels) {
        let is_v3 = self.algorithm == Normalisation::V3;
        let style = if is_v3 {
            Style::Canonical
        } else {
            Style::CanonicalWithoutNulls
        };
        let keys: &[&str] = match (is_v3, rule) {
            (true, Labels::All) => &["merge", "name", "signing", "value", "version"],
            (true, Labels::Signing) => &["name", "signing", "value", "version"],
            (false, _) => &["name", "signing", "value"],
        };
        self.open('{');
        for key in keys {
            let Some(value) = field(label, key) else {
                continue;
            };
            let is_dropped = match value {
                Value::Null => !(is_v3 && *key == "value"),
                // Go leaves a false flag and an empty text out.
                Value::Bool(false) => *key == "signing",
                Value::String(text) => text.is_empty() && *key == "version",
                _ => false,
            };
            if !is_dropped {
                self.key(key);
                write_value(&mut self.out, value, style);
            }
        }
        self.close('}');
    }

    /// A text that Go always writes, empty where it is missing.
    fn required(&mut self, fields: &Map<String, Value>, name: &str) {
        self.key(name);
        let value = field(fields, name).and_then(Value::as_str);
        self.text(value.unwrap_or_default());
    }

    fn text(&mut self, text: &str) {
        write_string(&mut self.out, text, Style::Canonical);
    }

    fn key(&mut self, key: &str) {
        self.item();
        self.text(key);
        self.out.push(':');
    }

    fn item(&mut self) {
        if !self.is_first {
            self.out.push(',');
        }
        self.is_first = false;
    }

    fn open(&mut self, bracket: char) {
        self.out.push(bracket);
        self.is_first = true;
    }

    fn close(&mut self, bracket: char) {
        self.out.push(bracket);
        self.is_first = false;
    }
}

fn is_signing(label: &Map<String, Value>) -> bool {
    match field(label, "signing") {
        Some(Value::Bool(signing)) => *signing,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}
