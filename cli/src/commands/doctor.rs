//! `ocm doctor credentials`: which credentials a place would get, and why.
//!
//! *Invariant*: it looks where a transfer would look, in the same order, asks the same programs, and shows nothing secret.

use std::fmt::Write;

use ocm_repository::credentials::{Considered, Identity};
use ocm_specs::RepositorySpec;
use ocm_specs::reference::{COMPONENT_DESCRIPTORS, ComponentReference, OciReference, Scheme};
use serde_json::{Value as Json, json};

use crate::args::{DoctorCredentialsArgs, DoctorFormat};
use crate::commands::session::{self, SessionOptions};
use crate::error::CliError;
use crate::ui::Ui;

/// A place in a registry.
struct Place {
    /// With a scheme where one was given.
    host: String,
    path: String,
}

/// Looks for credentials and tells what came of it.
pub(crate) async fn credentials(args: DoctorCredentialsArgs, ui: &Ui) -> Result<(), CliError> {
    let Some(place) = place(&args.reference)? else {
        let text = format!(
            "{}: an archive, which needs no credentials\n",
            args.reference
        );
        return ui.data(&match args.output {
            DoctorFormat::Text => text,
            DoctorFormat::Json => render(&args.reference, None, &[]),
        });
    };
    let session = session::open(ui, SessionOptions::default())?;
    let identity = session.client().identity(&place.host, &place.path)?;
    let looked = ui.config()?.credentials(ui)?.explain(&identity).await;
    ui.data(&match args.output {
        DoctorFormat::Text => text(&identity, &looked),
        DoctorFormat::Json => render(&args.reference, Some(&identity), &looked),
    })
}

/// What a reference names; `None` for archives.
fn place(reference: &str) -> Result<Option<Place>, CliError> {
    if let Ok(parsed) = ComponentReference::parse(reference, true) {
        return repository(&parsed.repository, Some(&parsed.component));
    }
    let is_web = ["http://", "https://", "oci://"]
        .iter()
        .any(|scheme| reference.starts_with(scheme));
    let spec: RepositorySpec = reference
        .parse()
        .map_err(|error| CliError::usage(format!("`{reference}`: {error}")))?;
    if matches!(spec, RepositorySpec::Ctf(_)) {
        return Ok(None);
    }
    // An image has a tag or a digest; what has neither may be a repository of component versions.
    match reference.parse::<OciReference>() {
        Ok(image) if !image.registry.is_empty() && !image.repository.is_empty() => {
            let scheme = match image.scheme {
                Some(Scheme::Http) => "http://",
                Some(Scheme::Https) => "https://",
                _ => "",
            };
            Ok(Some(Place {
                host: format!("{scheme}{}", image.registry),
                path: image.repository,
            }))
        }
        _ if is_web || !reference.contains("//") => repository(&spec, None),
        _ => Err(CliError::usage(format!("`{reference}` names no place"))
            .with_hint("write REPOSITORY//COMPONENT:VERSION, HOST/IMAGE:TAG or HOST")),
    }
}

fn repository(spec: &RepositorySpec, component: Option<&str>) -> Result<Option<Place>, CliError> {
    let RepositorySpec::Oci(oci) = spec else {
        return Ok(None);
    };
    let endpoint = oci
        .endpoint()
        .map_err(|error| CliError::usage(error.to_string()))?;
    let below = component.map(|component| format!("{COMPONENT_DESCRIPTORS}/{component}"));
    let parts = [Some(endpoint.prefix), below];
    let parts: Vec<String> = parts
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    Ok(Some(Place {
        host: match endpoint.scheme {
            Some(scheme) => format!("{scheme}://{}", endpoint.host),
            None => endpoint.host,
        },
        path: parts.join("/"),
    }))
}

fn text(identity: &Identity, looked: &[Considered]) -> String {
    let mut out = format!("looked for: {identity}\n");
    for one in looked {
        let mark = if one.used { "*" } else { "-" };
        let _ = writeln!(
            out,
            "{mark} {}\n    {}: {}",
            one.place, one.entry, one.reason
        );
    }
    out.push_str(&match looked.iter().find(|one| one.used) {
        Some(used) => format!("used: {}, {}\n", used.place, used.entry),
        None => format!(
            "used: none, requests are anonymous\n  hint: {}\n",
            crate::error::how_to_give_credentials(identity)
        ),
    });
    out
}

fn render(reference: &str, identity: Option<&Identity>, looked: &[Considered]) -> String {
    let considered: Vec<Json> = looked
        .iter()
        .map(|one| {
            json!({"place": one.place, "entry": one.entry, "used": one.used, "reason": one.reason})
        })
        .collect();
    let attributes = identity.map(|identity| {
        let attributes = identity.attributes();
        Json::Object(
            attributes
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
        )
    });
    let used = looked.iter().find(|one| one.used);
    let document = json!({
        "apiVersion": "ocm.software/credentials/v1alpha1",
        "reference": reference,
        "identity": attributes,
        "considered": considered,
        "used": used.map(|one| json!({"place": one.place, "entry": one.entry})),
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}
