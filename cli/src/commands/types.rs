//! `ocm get types`, `ocm describe types`, `ocm get schema`.

use std::fmt::Write;
use std::sync::Arc;

use ocm_engine::{StepTypeInfo, StepTypes, spec_schema};
use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use crate::args::{SchemaName, TypesArgs, TypesFormat};
use crate::error::{CliError, ExitCode};
use crate::plugins;
use crate::report::Report;
use crate::ui::Ui;

/// A line per type, or the whole of one.
pub(crate) async fn list(args: &TypesArgs, ui: &Ui) -> Result<(), CliError> {
    if args.name.is_some() || args.output != TypesFormat::Text {
        return describe(args, ui).await;
    }
    let types = plugins::types(&args.plugins.plugin, ui).await?;
    let width = types
        .iter()
        .map(|step_type| step_type.info().name.len())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    for info in types.iter().map(|step_type| step_type.info()) {
        let _ = writeln!(out, "{:<width$}  {}", info.name, info.summary);
    }
    ui.data(&out)
}

/// Everything about one type, or about all of them.
pub(crate) async fn describe(args: &TypesArgs, ui: &Ui) -> Result<(), CliError> {
    let types = plugins::types(&args.plugins.plugin, ui).await?;
    let chosen = choose(&types, args.name.as_deref())?;
    let text = match args.output {
        TypesFormat::Text => chosen
            .iter()
            .map(|info| text(info))
            .collect::<Vec<_>>()
            .join("\n"),
        TypesFormat::Examples => chosen
            .iter()
            .map(|info| format!("{}\n", info.example.trim()))
            .collect(),
        TypesFormat::Json => pretty(&one_or_all(&chosen, as_json)),
        TypesFormat::Jsonschema => pretty(&one_or_all(&chosen, |info| info.spec_schema.clone())),
    };
    ui.data(&text)
}

/// The JSON Schema of a document.
pub(crate) async fn schema(name: SchemaName, plugins: &[String], ui: &Ui) -> Result<(), CliError> {
    let schema = match name {
        SchemaName::TransferSpec => spec_schema(&plugins::types(plugins, ui).await?),
        SchemaName::Report => SchemaSettings::draft2020_12()
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<Report>()
            .to_value(),
    };
    ui.data(&pretty(&schema))
}

fn choose<'t>(types: &'t StepTypes, name: Option<&str>) -> Result<Vec<&'t StepTypeInfo>, CliError> {
    let Some(name) = name else {
        return Ok(types.iter().map(|step_type| step_type.info()).collect());
    };
    let exact = types.get(name);
    let by_base = || {
        types
            .iter()
            .find(|step_type| step_type.info().name.split('/').next() == Some(name))
    };
    match exact.or_else(by_base) {
        Some(step_type) => Ok(vec![Arc::as_ref(step_type).info()]),
        None => {
            let error = CliError::new(
                ExitCode::NotFound,
                format!("there is no step type `{name}`"),
            );
            // Who left the version out meant a name without it.
            let versioned = name.contains('/');
            let known = types.names().map(|known| match known.split_once('/') {
                Some((base, _)) if !versioned => base,
                _ => known,
            });
            Err(match ocm_specs::diagnostic::did_you_mean(name, known) {
                Some(known) => error.with_hint(format!("did you mean `{known}`?")),
                None => error.with_hint("`ocm get types` lists them"),
            })
        }
    }
}

fn one_or_all(chosen: &[&StepTypeInfo], render: impl Fn(&StepTypeInfo) -> Json) -> Json {
    match chosen {
        [only] => render(only),
        many => many
            .iter()
            .map(|info| (info.name.clone(), render(info)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

fn as_json(info: &StepTypeInfo) -> Json {
    json!({
        "name": info.name,
        "aliases": info.aliases,
        "summary": info.summary,
        "effect": info.effect,
        "deterministic": info.deterministic,
        "spec": info.spec_schema,
        "output": info.output_schema,
        "example": info.example,
    })
}

/// A step type for people.
pub(crate) fn text(info: &StepTypeInfo) -> String {
    let mut out = format!("{}\n  {}\n", info.name, info.summary);
    if !info.aliases.is_empty() {
        let _ = writeln!(out, "  also spelled {}", info.aliases.join(", "));
    }
    fields(&mut out, "spec", &info.spec_schema);
    fields(&mut out, "output", &info.output_schema);
    let _ = writeln!(
        out,
        "  example\n    {}",
        indent(info.example.trim(), "    ")
    );
    out
}

/// A field of a schema.
pub(crate) struct Row<'s> {
    pub(crate) name: &'s str,
    pub(crate) kind: String,
    pub(crate) required: bool,
    /// The first line of its description; for content, its media types.
    pub(crate) about: String,
}

/// The fields of a schema.
pub(crate) fn rows(schema: &Json) -> Vec<Row<'_>> {
    let properties = schema.get("properties").and_then(Json::as_object);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    properties
        .into_iter()
        .flatten()
        .map(|(name, field)| Row {
            name,
            kind: kind(field),
            required: required.contains(&name.as_str()),
            about: about(field),
        })
        .collect()
}

fn about(field: &Json) -> String {
    let text = field.get("description").and_then(Json::as_str);
    let line = text.unwrap_or_default().lines().next().unwrap_or_default();
    let types = field.get(ocm_engine::MEDIA_TYPES_KEYWORD);
    let types = types.and_then(Json::as_array).into_iter().flatten();
    match types.filter_map(Json::as_str).collect::<Vec<_>>() {
        types if types.is_empty() => line.to_owned(),
        types => format!("{line} ({})", types.join(", ")),
    }
}

fn fields(out: &mut String, title: &str, schema: &Json) {
    let rows = rows(schema);
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(out, "  {title}");
    let width = rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or_default()
        + 1;
    for row in rows {
        let marked = format!("{}{}", row.name, if row.required { "*" } else { "" });
        let _ = writeln!(out, "    {marked:<width$}  {:<8} {}", row.kind, row.about);
    }
}

fn kind(field: &Json) -> String {
    if field.get(ocm_engine::CONTENT_KEYWORD).is_some() {
        return "content".to_owned();
    }
    match field.get("type") {
        Some(Json::String(kind)) => kind.clone(),
        Some(Json::Array(kinds)) => kinds
            .iter()
            .filter_map(Json::as_str)
            .find(|kind| *kind != "null")
            .unwrap_or("any")
            .to_owned(),
        _ => match field.get("anyOf").and_then(Json::as_array) {
            Some(branches) => branches.first().map_or_else(|| "any".to_owned(), kind),
            None if field.get("$ref").is_some() => "object".to_owned(),
            None => "any".to_owned(),
        },
    }
}

fn indent(text: &str, by: &str) -> String {
    let mut out = text.lines().collect::<Vec<_>>().join(&format!("\n{by}"));
    if by.len() == 2 {
        out.push('\n');
    }
    out
}

fn pretty(value: &Json) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
