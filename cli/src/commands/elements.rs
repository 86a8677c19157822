//! `ocm get resources`, `sources`, `references`: the lists of component versions.

use ocm_specs::descriptor::{Element, ElementKind};
use ocm_specs::{Identity, identity, yaml};
use serde_json::{Value as Json, json};

use crate::args::{ElementsArgs, ElementsFormat};
use crate::commands::select::{flat, follow, roots};
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::table::table;
use crate::ui::Ui;

/// An element with where it is from.
struct Row<'a> {
    component: &'a str,
    version: &'a str,
    element: Element<'a>,
}

/// Lists one kind of element.
pub(crate) async fn list(kind: ElementKind, args: ElementsArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let wanted = wanted(&args.identity)?;
    let roots = roots(&args.reference, &args.choice, &session, &resolver).await?;
    let found = follow(roots, args.recursive, &session, &resolver).await?;
    let versions = flat(&found);
    let rows: Vec<Row<'_>> = versions
        .iter()
        .flat_map(|version| {
            let descriptor = &version.descriptor;
            descriptor.elements(kind).map(|element| Row {
                component: descriptor.name(),
                version: descriptor.version(),
                element,
            })
        })
        .filter(|row| wanted.selects(&row.element.identity()))
        .collect();
    if rows.is_empty() && !args.identity.is_empty() {
        return Err(CliError::new(
            ExitCode::NotFound,
            format!("there is no {kind} `{wanted}` in {}", args.reference),
        ));
    }
    ui.data(&render(&rows, kind, versions.len() > 1, args.output))
}

/// A name, and attributes as `NAME=VALUE`.
pub(crate) fn wanted(texts: &[String]) -> Result<Identity, CliError> {
    let mut attributes = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                attributes.push((name.to_owned(), value.to_owned()));
            }
            None if at == 0 => attributes.push((identity::NAME.to_owned(), text.clone())),
            _ => {
                return Err(CliError::usage(format!(
                    "`{text}` is no attribute of an identity: expected NAME=VALUE"
                )));
            }
        }
    }
    Ok(attributes.into_iter().collect())
}

fn render(
    rows: &[Row<'_>],
    kind: ElementKind,
    with_version: bool,
    format: ElementsFormat,
) -> String {
    let documents = || rows.iter().map(document);
    match format {
        ElementsFormat::Table if kind == ElementKind::Reference => references(rows, with_version),
        ElementsFormat::Wide if kind == ElementKind::Reference => references(rows, true),
        ElementsFormat::Table => short(rows, with_version),
        ElementsFormat::Wide => wide(rows),
        ElementsFormat::Yaml => yaml::to_string(&documents().collect()),
        ElementsFormat::Json => {
            let all: Vec<Json> = documents().collect();
            serde_json::to_string_pretty(&all).unwrap_or_default() + "\n"
        }
        ElementsFormat::Ndjson => documents().map(|it| format!("{it}\n")).collect(),
    }
}

/// The element as it stands in the descriptor, beside the component version that it belongs to.
fn document(row: &Row<'_>) -> Json {
    json!({
        "component": row.component,
        "version": row.version,
        "element": row.element.value(),
    })
}

fn short(rows: &[Row<'_>], with_version: bool) -> String {
    let cells = |row: &Row<'_>| {
        [
            row.element.name().to_owned(),
            row.element.version().to_owned(),
            extra(&row.element),
            row.element.type_name().to_owned(),
            row.element.relation().unwrap_or_default().to_owned(),
        ]
    };
    if with_version {
        let head = [
            "COMPONENT",
            "NAME",
            "VERSION",
            "IDENTITY",
            "TYPE",
            "RELATION",
        ];
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let [name, version, extra, kind, relation] = cells(row);
                [of(row), name, version, extra, kind, relation]
            })
            .collect();
        table(head, &rows)
    } else {
        let rows: Vec<_> = rows.iter().map(cells).collect();
        table(["NAME", "VERSION", "IDENTITY", "TYPE", "RELATION"], &rows)
    }
}

fn wide(rows: &[Row<'_>]) -> String {
    let head = [
        "COMPONENT",
        "NAME",
        "VERSION",
        "IDENTITY",
        "TYPE",
        "RELATION",
        "ACCESS",
        "DIGEST",
    ];
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let element = &row.element;
            [
                of(row),
                element.name().to_owned(),
                element.version().to_owned(),
                extra(element),
                element.type_name().to_owned(),
                element.relation().unwrap_or_default().to_owned(),
                access(element),
                digest(element),
            ]
        })
        .collect();
    table(head, &rows)
}

fn references(rows: &[Row<'_>], with_version: bool) -> String {
    let cells = |row: &Row<'_>| {
        [
            row.element.name().to_owned(),
            row.element.component_name().unwrap_or_default().to_owned(),
            row.element.version().to_owned(),
            extra(&row.element),
            digest(&row.element),
        ]
    };
    if with_version {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let [name, component, version, extra, digest] = cells(row);
                [of(row), name, component, version, extra, digest]
            })
            .collect();
        let head = ["IN", "NAME", "COMPONENT", "VERSION", "IDENTITY", "DIGEST"];
        table(head, &rows)
    } else {
        let rows: Vec<_> = rows.iter().map(cells).collect();
        table(
            ["NAME", "COMPONENT", "VERSION", "IDENTITY", "DIGEST"],
            &rows,
        )
    }
}

fn of(row: &Row<'_>) -> String {
    format!("{}:{}", row.component, row.version)
}

fn extra(element: &Element<'_>) -> String {
    element.extra_identity().to_string()
}

/// The digest as one text; empty where there is none.
pub(crate) fn digest(element: &Element<'_>) -> String {
    match element.digest() {
        Some(digest) if digest.is_excluded() => "excluded".to_owned(),
        Some(digest) if !digest.value.is_empty() => {
            format!("{}:{}", digest.hash_algorithm, digest.value)
        }
        _ => String::new(),
    }
}

/// Where the content is, as one text: the type, and what of its fields names the place.
pub(crate) fn access(element: &Element<'_>) -> String {
    const PLACES: [&str; 10] = [
        "imageReference",
        "localReference",
        "ref",
        "reference",
        "url",
        "helmRepository",
        "repoUrl",
        "repository",
        "bucketName",
        "package",
    ];
    let Some(fields) = element.access_value().and_then(Json::as_object) else {
        return String::new();
    };
    let text = |name: &str| {
        let found = fields
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_str())
    };
    let kind = text("type").unwrap_or_default();
    match PLACES.iter().find_map(|name| text(name)) {
        Some(place) => format!("{kind} {place}"),
        None => kind.to_owned(),
    }
}
