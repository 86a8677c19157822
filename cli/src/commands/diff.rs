//! `ocm diff`: what tells two component versions apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use ocm_specs::descriptor::{ComponentDescriptor, Element, ElementKind};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::{Identity, yaml};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::args::{DiffArgs, ReportFormat};
use crate::commands::hash::read;
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// Fields of elements that have lists or comparisons of their own, or are the identity by which two are the same.
const APART: [&str; 3] = ["name", "extraIdentity", "labels"];

/// How one thing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ChangeKind {
    Added,
    Removed,
    Changed,
}

/// One difference.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// What it is about, as in `resource name=image: digest`.
    subject: String,
    kind: ChangeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<Json>,
    /// Do signatures cover it?
    signed: bool,
}

/// Compares two component versions.
pub(crate) async fn diff(args: DiffArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&[])?;
    let first = read(&session, &resolver, &args.first).await?;
    let second = read(&session, &resolver, &args.second).await?;
    let mut changes = Changes::default();
    changes.descriptors(&first.descriptor, &second.descriptor);
    let mut changes = changes.0;
    if args.signed {
        changes.retain(|change| change.signed);
    }
    let same_normal_form =
        [&first, &second].map(|version| Normalisation::V4Alpha1.normalise(&version.descriptor));
    let is_covered_alike = same_normal_form[0] == same_normal_form[1];
    let document = json!({
        "apiVersion": "ocm.software/diff/v1alpha1",
        "first": args.first,
        "second": args.second,
        "equal": changes.is_empty(),
        "equalForSignatures": is_covered_alike,
        "changes": changes,
    });
    ui.data(&match args.output {
        ReportFormat::Text => text(&changes, is_covered_alike),
        ReportFormat::Json => serde_json::to_string_pretty(&document).unwrap_or_default() + "\n",
        ReportFormat::Yaml => yaml::to_string(&document),
    })?;
    match changes.len() {
        0 => Ok(()),
        count => Err(CliError::new(
            ExitCode::Difference,
            format!("{count} differences"),
        )),
    }
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn descriptors(&mut self, first: &ComponentDescriptor, second: &ComponentDescriptor) {
        let text = |value: &str| Some(Json::from(value));
        self.value("name", text(first.name()), text(second.name()), true);
        self.value(
            "version",
            text(first.version()),
            text(second.version()),
            true,
        );
        let provider = |it: &ComponentDescriptor| Some(Json::from(it.provider().name));
        self.value("provider", provider(first), provider(second), true);
        let created = |it: &ComponentDescriptor| it.creation_time().map(Json::from);
        self.value("creation time", created(first), created(second), true);
        let contexts = |it: &ComponentDescriptor| Some(Json::from(it.repository_contexts()));
        self.value(
            "repository contexts",
            contexts(first),
            contexts(second),
            false,
        );
        let nested = |it: &ComponentDescriptor| Some(Json::from(it.nested_digests()));
        self.value("nested digests", nested(first), nested(second), false);
        self.labels("", first.labels(), second.labels(), false);
        for kind in [
            ElementKind::Resource,
            ElementKind::Source,
            ElementKind::Reference,
        ] {
            self.elements(kind, first, second);
        }
        self.signatures(first, second);
    }

    /// Notes two values unless they are equal.
    fn value(&mut self, subject: &str, first: Option<Json>, second: Option<Json>, signed: bool) {
        if first == second {
            return;
        }
        let kind = match (&first, &second) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Changed,
        };
        self.0.push(Change {
            subject: subject.to_owned(),
            kind,
            first,
            second,
            signed,
        });
    }

    /// Labels by their names. Of references all are covered by signatures, else those that say so.
    fn labels(&mut self, of: &str, first: &[Json], second: &[Json], all_signed: bool) {
        let name = |label: &Json| label.get("name").and_then(Json::as_str).map(str::to_owned);
        let names: BTreeSet<String> = first.iter().chain(second).filter_map(name).collect();
        for wanted in names {
            let find = |labels: &[Json]| {
                let found = labels.iter().find(|it| name(it).as_ref() == Some(&wanted));
                found.cloned()
            };
            let (one, other) = (find(first), find(second));
            let is_signing = |label: &Option<Json>| {
                let label = label.as_ref().and_then(|label| label.get("signing"));
                label == Some(&Json::Bool(true)) || label == Some(&Json::from("true"))
            };
            let signed = all_signed || is_signing(&one) || is_signing(&other);
            self.value(&format!("{of}label {wanted}"), one, other, signed);
        }
    }

    fn elements<'a>(
        &mut self,
        kind: ElementKind,
        first: &'a ComponentDescriptor,
        second: &'a ComponentDescriptor,
    ) {
        let (first, second) = (keyed(kind, first), keyed(kind, second));
        let by_key = |all: &[(Identity, Element<'a>)]| -> BTreeMap<Identity, Element<'a>> {
            all.iter()
                .map(|(key, element)| (key.clone(), *element))
                .collect()
        };
        let (ones, others) = (by_key(&first), by_key(&second));
        for (key, one) in &first {
            let of = format!("{kind} {key}");
            match others.get(key) {
                Some(other) => self.element(&of, one, other),
                None => self.value(&of, Some(one.value().clone()), None, true),
            }
        }
        for (key, other) in second.iter().filter(|(key, _)| !ones.contains_key(key)) {
            let added = Some(other.value().clone());
            self.value(&format!("{kind} {key}"), None, added, true);
        }
        let common = |own: &[(Identity, Element<'a>)], of: &BTreeMap<Identity, Element<'a>>| {
            let shared = own.iter().filter(|(key, _)| of.contains_key(key));
            shared.map(|(key, _)| key.to_string()).collect::<Vec<_>>()
        };
        let (one, other) = (common(&first, &others), common(&second, &ones));
        self.value(
            &format!("order of {kind}s"),
            Some(one.into()),
            Some(other.into()),
            true,
        );
    }

    fn element(&mut self, of: &str, first: &Element<'_>, second: &Element<'_>) {
        let empty = Map::new();
        let fields = |element: &Element<'_>| element.value().as_object().cloned();
        let (one, other) = (
            fields(first).unwrap_or_else(|| empty.clone()),
            fields(second).unwrap_or(empty),
        );
        let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for name in names {
            if APART.contains(&name.as_str()) {
                continue;
            }
            let value =
                |fields: &Map<String, Json>| fields.get(name).filter(|it| !it.is_null()).cloned();
            let signed = !matches!(name.as_str(), "access" | "srcRefs" | "srcRef");
            self.value(&format!("{of}: {name}"), value(&one), value(&other), signed);
        }
        self.labels(
            &format!("{of}: "),
            first.labels(),
            second.labels(),
            first.kind() == ElementKind::Reference,
        );
    }

    fn signatures(&mut self, first: &ComponentDescriptor, second: &ComponentDescriptor) {
        let all = |descriptor: &ComponentDescriptor| -> Vec<(String, Json)> {
            let named = descriptor.signatures().map(|signature| {
                let fields = Json::Object(signature.fields().clone());
                (signature.name().to_owned(), fields)
            });
            named.collect()
        };
        let (first, second) = (all(first), all(second));
        let names: BTreeSet<&String> = first.iter().chain(&second).map(|(name, _)| name).collect();
        for name in names {
            let find = |of: &[(String, Json)]| {
                let found = of.iter().find(|(other, _)| other == name);
                found.map(|(_, value)| value.clone())
            };
            self.value(
                &format!("signature {name}"),
                find(&first),
                find(&second),
                false,
            );
        }
    }
}

/// Elements by name and extra identity, so that a new version of a resource is a change of it; by their whole identity
/// where that would not tell them apart.
fn keyed(kind: ElementKind, descriptor: &ComponentDescriptor) -> Vec<(Identity, Element<'_>)> {
    let short = |element: &Element<'_>| {
        let named = Identity::named(element.name());
        let extra = element.extra_identity();
        extra
            .iter()
            .fold(named, |all, (key, value)| all.with(key, value))
    };
    let mut counts: BTreeMap<Identity, usize> = BTreeMap::new();
    for element in descriptor.elements(kind) {
        *counts.entry(short(&element)).or_default() += 1;
    }
    descriptor
        .elements(kind)
        .map(|element| {
            let key = short(&element);
            let is_unique = counts.get(&key) == Some(&1);
            (if is_unique { key } else { element.identity() }, element)
        })
        .collect()
}

fn text(changes: &[Change], is_covered_alike: bool) -> String {
    let mut out = String::new();
    for change in changes {
        let mark = match change.kind {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed => '~',
        };
        let signed = if change.signed { "" } else { "  (not signed)" };
        let _ = writeln!(out, "{mark} {}{signed}", change.subject);
        for (sign, value) in [('-', &change.first), ('+', &change.second)] {
            if let Some(value) = value
                .as_ref()
                .filter(|_| change.kind == ChangeKind::Changed)
            {
                let _ = writeln!(out, "    {sign} {}", plain(value));
            }
        }
    }
    if changes.is_empty() {
        out.push_str("no differences\n");
    } else if is_covered_alike {
        out.push_str("what signatures cover is equal\n");
    }
    out
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}
