//! `ocm describe component-version`: all about one component version.

use std::fmt::Write;

use ocm_repository::ComponentVersion;
use ocm_specs::Algorithm;
use ocm_specs::descriptor::{ComponentDescriptor, Element, ElementKind};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::yaml;
use ocm_transformers::signing::gaps;
use serde_json::{Value as Json, json};

use crate::args::{DescribeArgs, ReportFormat};
use crate::commands::elements::{access, digest};
use crate::commands::hash::read;
use crate::commands::session::{self, SessionOptions};
use crate::error::CliError;
use crate::ui::Ui;

/// Longest label value that is shown in text, in characters.
const VALUE_SHOWN: usize = 120;

/// Describes a component version.
pub(crate) async fn component_version(args: DescribeArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&[])?;
    let version = read(&session, &resolver, &args.reference).await?;
    ui.data(&match args.output {
        ReportFormat::Text => text(&version),
        ReportFormat::Json => {
            serde_json::to_string_pretty(&document(&version)).unwrap_or_default() + "\n"
        }
        ReportFormat::Yaml => yaml::to_string(&document(&version)),
    })
}

fn document(version: &ComponentVersion) -> Json {
    json!({
        "apiVersion": "ocm.software/description/v1alpha1",
        "repository": version.repository.location(),
        "manifest": {
            "digest": version.root.digest,
            "mediaType": version.root.media_type,
            "size": version.root.bytes.len(),
        },
        "digest": {
            "hashAlgorithm": Algorithm::Sha256.ocm_name(),
            "normalisationAlgorithm": Normalisation::V4Alpha1.as_str(),
            "value": normal_digest(&version.descriptor),
        },
        "descriptor": version.descriptor.document(),
    })
}

fn normal_digest(descriptor: &ComponentDescriptor) -> String {
    let digest = Normalisation::V4Alpha1.digest(descriptor, Algorithm::Sha256);
    digest.hex().to_owned()
}

fn text(version: &ComponentVersion) -> String {
    let descriptor = &version.descriptor;
    let provider = descriptor.provider();
    let mut out = format!("{}:{}\n", descriptor.name(), descriptor.version());
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<13}{value}");
    };
    line("provider", &provider.name);
    if let Some(time) = descriptor.creation_time() {
        line("created", time);
    }
    line("repository", version.repository.location());
    line("manifest", &version.root.digest.to_string());
    line(
        "digest",
        &format!(
            "{} {} {}",
            Algorithm::Sha256.ocm_name(),
            Normalisation::V4Alpha1.as_str(),
            normal_digest(descriptor)
        ),
    );
    for gap in gaps(descriptor) {
        line("", &format!("not complete: {gap}"));
    }
    for context in descriptor.repository_contexts() {
        line("was in", &one_line(context));
    }
    labels(descriptor.labels(), "  ", &mut out);
    for (title, kind) in [
        ("resources", ElementKind::Resource),
        ("sources", ElementKind::Source),
        ("references", ElementKind::Reference),
    ] {
        if descriptor.elements(kind).len() > 0 {
            let _ = writeln!(out, "{title}");
        }
        for element in descriptor.elements(kind) {
            describe(&element, &mut out);
        }
    }
    signatures(descriptor, &mut out);
    out
}

fn describe(element: &Element<'_>, out: &mut String) {
    let mut facts = vec![element.version().to_owned()];
    let extra = element.extra_identity();
    if !extra.is_empty() {
        facts.push(extra.to_string());
    }
    match element.component_name() {
        Some(component) => facts.insert(0, component.to_owned()),
        None => facts.push(element.type_name().to_owned()),
    }
    facts.extend(element.relation().map(str::to_owned));
    let _ = writeln!(out, "  {}  {}", element.name(), facts.join("  "));
    let access = access(element);
    let media_type = element
        .access_value()
        .and_then(|access| access.get("mediaType")?.as_str());
    if !access.is_empty() {
        let media_type = media_type.map(|it| format!(" ({it})")).unwrap_or_default();
        let _ = writeln!(out, "    access     {access}{media_type}");
    }
    if let Some(stated) = element.digest().filter(|it| !it.is_empty()) {
        let _ = writeln!(
            out,
            "    digest     {} {}",
            stated.normalisation_algorithm,
            digest(element)
        );
    }
    labels(element.labels(), "    ", out);
}

fn labels(labels: &[Json], indent: &str, out: &mut String) {
    for label in labels {
        let name = label.get("name").and_then(Json::as_str).unwrap_or_default();
        let is_signed = label.get("signing").and_then(Json::as_bool) == Some(true);
        let value = label.get("value").map(one_line).unwrap_or_default();
        let mark = if is_signed { " (signed)" } else { "" };
        let _ = writeln!(out, "{indent}label      {name}{mark} = {value}");
    }
}

fn signatures(descriptor: &ComponentDescriptor, out: &mut String) {
    let mut title = Some("signatures\n");
    for signature in descriptor.signatures() {
        out.push_str(title.take().unwrap_or_default());
        let algorithm = signature.field("algorithm").unwrap_or_default();
        let _ = writeln!(out, "  {}  {algorithm}", signature.name());
        if let Some(digest) = signature.digest() {
            let _ = writeln!(
                out,
                "    digest     {} {}:{}",
                digest.normalisation_algorithm, digest.hash_algorithm, digest.value
            );
        }
        if let Some(issuer) = signature.field("issuer") {
            let _ = writeln!(out, "    issuer     {issuer}");
        }
    }
}

/// A value as compact JSON, cut where it gets long; a text without its quotes.
fn one_line(value: &Json) -> String {
    let text = match value {
        Json::String(text) if !text.contains('\n') => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
