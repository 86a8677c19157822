//! `ocm get component-version`: what is in a repository.

use std::fmt::Write;

use ocm_specs::yaml;
use serde_json::Value as Json;

use crate::args::{GetComponentVersion, ListFormat};
use crate::commands::select::{Found, flat, follow, roots};
use crate::commands::session::{self, SessionOptions};
use crate::error::CliError;
use crate::table::table;
use crate::ui::Ui;

/// Shows component versions.
pub(crate) async fn component_version(args: GetComponentVersion, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let roots = roots(&args.reference, &args.choice, &session, &resolver).await?;
    let found = follow(roots, args.recursive, &session, &resolver).await?;
    ui.data(&render(&found, args.output))
}

fn render(found: &[Found], format: ListFormat) -> String {
    match format {
        ListFormat::Table => table(["COMPONENT", "VERSION", "PROVIDER"], &rows(found)),
        ListFormat::Tree => tree(found),
        ListFormat::Yaml => yaml::to_string(&Json::Array(documents(found))),
        ListFormat::Json => {
            serde_json::to_string_pretty(&documents(found)).unwrap_or_default() + "\n"
        }
        ListFormat::Ndjson => documents(found)
            .iter()
            .map(|document| format!("{document}\n"))
            .collect(),
    }
}

fn documents(found: &[Found]) -> Vec<Json> {
    flat(found)
        .into_iter()
        .map(|version| version.descriptor.document().clone())
        .collect()
}

fn rows(found: &[Found]) -> Vec<[String; 3]> {
    flat(found)
        .into_iter()
        .map(|version| {
            let descriptor = &version.descriptor;
            [
                descriptor.name().to_owned(),
                descriptor.version().to_owned(),
                descriptor.provider().name,
            ]
        })
        .collect()
}

fn tree(found: &[Found]) -> String {
    let mut out = String::new();
    for one in found {
        branch(one, "", "", &mut out);
    }
    out
}

fn branch(one: &Found, fork: &str, indent: &str, out: &mut String) {
    let descriptor = &one.version.descriptor;
    let reference = if one.reference.is_empty() {
        String::new()
    } else {
        format!("{}: ", one.reference)
    };
    let _ = writeln!(
        out,
        "{fork}{reference}{}:{}  ({})",
        descriptor.name(),
        descriptor.version(),
        descriptor.provider().name
    );
    let resources = descriptor.resources().len();
    let items = resources + one.children.len();
    let forks = |at: usize| {
        if at + 1 == items {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        }
    };
    for (at, resource) in descriptor.resources().enumerate() {
        let _ = writeln!(
            out,
            "{indent}{}{} {} {}",
            forks(at).0,
            resource.type_name(),
            resource.name(),
            resource.version()
        );
    }
    for (at, child) in one.children.iter().enumerate() {
        let (fork, below) = forks(resources + at);
        branch(
            child,
            &format!("{indent}{fork}"),
            &format!("{indent}{below}"),
            out,
        );
    }
}
