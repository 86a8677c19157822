//! Normalised forms: the canonical bytes of a component descriptor that digests and signatures stand on.
//!
//! *Invariant*: where a component version is stored, and everything else that transport may change, does not reach these
//! bytes (formats.md 6.3). The canonical JSON forms are written directly from the document, without a copy of it.

mod entries;
mod identities;

use serde_json::{Map, Value};

use crate::descriptor::{ComponentDescriptor, Element, ElementKind};
use crate::digest::{Algorithm, Digest};
use crate::json::{Style, by_utf16, field, write_object, write_string, write_value};

/// The algorithms written here. They select the same fields and differ in what the two Go libraries keep of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Normalisation {
    /// `jsonNormalisation/v1`: follows the schema that the descriptor is stored in, in lists of one-key objects; without
    /// sources, and resources of the same name told apart by their versions.
    V1,
    /// `jsonNormalisation/v2`: as v3, but resources of the same name are told apart by their versions.
    V2,
    /// `jsonNormalisation/v3`, as the library v1 makes it: a label's `version` counts, so do nulls inside label values.
    V3,
    /// `jsonNormalisation/v4alpha1`, as the library v2 makes it: it loses a label's `version` and nulls (traps T1, T4), and
    /// writes an empty digest for a reference that has none (T3).
    V4Alpha1,
}

/// How a canonical form is made: as today, or as some program made it that left signatures behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// As the algorithm is defined.
    Current,
    /// `jsonNormalisation/v1` as it was before a missing extra identity counted as null (trap T34).
    WithoutForcedNulls,
    /// `jsonNormalisation/v4alpha1` with what the library v2 loses: the versions of labels, nulls inside label values
    /// (traps T1, T4).
    Lossless,
}

impl Normalisation {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::V1, Self::V2, Self::V3, Self::V4Alpha1];

    /// The name in digest triples.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "jsonNormalisation/v1",
            Self::V2 => "jsonNormalisation/v2",
            Self::V3 => "jsonNormalisation/v3",
            Self::V4Alpha1 => "jsonNormalisation/v4alpha1",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    /// The canonical bytes.
    pub fn normalise(self, descriptor: &ComponentDescriptor) -> String {
        self.normalise_as(Variant::Current, descriptor)
    }

    /// The canonical bytes as `variant` makes them; a variant that the algorithm does not have is the current one.
    pub fn normalise_as(self, variant: Variant, descriptor: &ComponentDescriptor) -> String {
        if self == Self::V1 {
            return entries::normalise(descriptor, variant != Variant::WithoutForcedNulls);
        }
        let mut writer = Writer {
            out: String::with_capacity(room(descriptor)),
            is_lossy: self == Self::V4Alpha1 && variant != Variant::Lossless,
            writes_empty_digests: self == Self::V4Alpha1,
            versioned: (self == Self::V2).then(|| identities::versioned(descriptor)),
            is_first: true,
        };
        writer.component(descriptor);
        writer.out
    }

    /// The digest of the canonical bytes.
    pub fn digest(self, descriptor: &ComponentDescriptor, algorithm: Algorithm) -> Digest {
        Digest::of(algorithm, self.normalise(descriptor).as_bytes())
    }

    /// The variant whose bytes have that digest, the current one first; `None` when the descriptor is not what was hashed.
    ///
    /// No variant looks at less than the current one but for nulls that say nothing, so trying them lets nothing pass that
    /// was changed since.
    pub fn variant_of(self, descriptor: &ComponentDescriptor, digest: &Digest) -> Option<Variant> {
        self.variants().iter().copied().find(|variant| {
            let bytes = self.normalise_as(*variant, descriptor);
            Digest::of(digest.algorithm(), bytes.as_bytes()) == *digest
        })
    }

    fn variants(self) -> &'static [Variant] {
        match self {
            Self::V1 => &[Variant::Current, Variant::WithoutForcedNulls],
            Self::V2 | Self::V3 => &[Variant::Current],
            Self::V4Alpha1 => &[Variant::Current, Variant::Lossless],
        }
    }
}

/// About how many bytes the canonical form has: elements are most of it.
fn room(descriptor: &ComponentDescriptor) -> usize {
    const ELEMENT: usize = 400;
    let kinds = [
        ElementKind::Resource,
        ElementKind::Source,
        ElementKind::Reference,
    ];
    let elements = kinds.map(|kind| descriptor.elements(kind).len());
    (elements.iter().sum::<usize>() + 1) * ELEMENT
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

struct Writer<'a> {
    out: String,
    /// Labels lose their versions and nulls.
    is_lossy: bool,
    /// A reference without digest gets an empty one (trap T3).
    writes_empty_digests: bool,
    /// For each resource, the version that its extra identity gets, if any.
    versioned: Option<Vec<Option<&'a str>>>,
    is_first: bool,
}

impl<'a> Writer<'a> {
    fn component(&mut self, descriptor: &'a ComponentDescriptor) {
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
        entries.sort_unstable_by(|a, b| by_utf16(a.0, b.0));
        self.open('{');
        for (key, value) in entries {
            match value {
                Value::Null => {}
                Value::Array(labels) if key == "labels" => self.labels(labels, Labels::Signing),
                value => {
                    self.item();
                    self.text(key);
                    self.out.push(':');
                    write_value(&mut self.out, value, Style::CanonicalWithoutNulls);
                }
            }
        }
        self.close('}');
    }

    fn elements(&mut self, descriptor: &'a ComponentDescriptor, kind: ElementKind) {
        self.open('[');
        for (index, element) in descriptor.elements(kind).enumerate() {
            let versioned = self.versioned.as_ref().and_then(|list| *list.get(index)?);
            self.item();
            self.element(element, versioned.filter(|_| kind == ElementKind::Resource));
        }
        self.close(']');
    }

    /// The fields that Go's structs have, in sorted order; anything else does not reach the normalised form.
    fn element(&mut self, element: Element<'_>, version: Option<&str>) {
        let kind = element.kind();
        let Some(fields) = element.value().as_object() else {
            return;
        };
        self.open('{');
        if kind == ElementKind::Reference {
            self.required(fields, "componentName");
        }
        self.digest(fields, &element);
        let extra = identities::extra_identity(fields, version);
        if !extra.is_empty() {
            self.key("extraIdentity");
            write_object(&mut self.out, &extra, Style::CanonicalWithoutNulls);
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
        let digest = field(fields, "digest").and_then(Value::as_object);
        match (element.kind(), digest) {
            (ElementKind::Source, _) => {}
            (ElementKind::Resource, _) if has_no_content(element) => {}
            (_, Some(digest)) => self.triple(digest),
            (ElementKind::Reference, None) if self.writes_empty_digests => {
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
        let labels = labels.iter().filter_map(Value::as_object);
        let mut kept = labels
            .filter(|label| rule == Labels::All || is_signing(label))
            .peekable();
        if kept.peek().is_none() {
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
        let style = if self.is_lossy {
            Style::CanonicalWithoutNulls
        } else {
            Style::Canonical
        };
        let keys: &[&'static str] = match (self.is_lossy, rule) {
            (false, Labels::All) => &["merge", "name", "signing", "value", "version"],
            (false, Labels::Signing) => &["name", "signing", "value", "version"],
            (true, _) => &["name", "signing", "value"],
        };
        self.open('{');
        for key in keys {
            if let Some(value) = label_field(label, key)
                && !(self.is_lossy && value.is_null())
            {
                self.key(key);
                write_value(&mut self.out, value, style);
            }
        }
        self.close('}');
    }

    /// A text that Go always writes, empty where it is missing.
    fn required(&mut self, fields: &Map<String, Value>, name: &'static str) {
        self.key(name);
        let value = field(fields, name).and_then(Value::as_str);
        self.text(value.unwrap_or_default());
    }

    fn text(&mut self, text: &str) {
        write_string(&mut self.out, text, Style::Canonical);
    }

    /// A key that needs no escape.
    fn key(&mut self, key: &'static str) {
        self.item();
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
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

/// A field of a label as Go has it: a false flag, an empty version and nulls outside of the value are not there.
fn label_field<'v>(label: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    let value = field(label, key)?;
    let is_absent = match value {
        Value::Null => key != "value",
        Value::Bool(false) => key == "signing",
        Value::String(text) => text.is_empty() && key == "version",
        _ => false,
    };
    (!is_absent).then_some(value)
}

/// Only the exact spellings count; `none/v1` does not (trap T26).
fn has_no_content(element: &Element<'_>) -> bool {
    element
        .access_value()
        .and_then(|access| access.get("type"))
        .and_then(Value::as_str)
        .is_some_and(|type_name| matches!(type_name, "none" | "None"))
}
