//! `ocm hash component-version`: the digest that signatures stand on.

use ocm_repository::{ComponentVersion, Repository, Session};
use ocm_specs::reference::ComponentReference;
use ocm_specs::{RepositorySpec, yaml};
use ocm_transformers::signing::{Closure, DigestOptions, digest_of, gaps};
use serde_json::json;

use crate::args::{HashArgs, HashFormat};
use crate::commands::session::{self, SessionOptions};
use crate::error::CliError;
use crate::ui::Ui;

/// Computes a digest and prints it. Digests that are missing are computed in memory.
pub(crate) async fn component_version(args: HashArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let version = read(&session, &args.reference).await?;
    let mut descriptor = version.descriptor.clone();
    let computed = gaps(&descriptor);
    if !computed.is_empty() {
        let lookup = repositories(&session, &args.lookup).await?;
        let options = DigestOptions {
            normalisation: args.normalisation,
            hash: args.hash,
            resources: true,
        };
        let closure = Closure::read(&session, version, &lookup, options).await?;
        descriptor = closure.root().descriptor.clone();
        for gap in &computed {
            ui.note(&format!("note: {gap}, it was computed\n"));
        }
    }
    let digest = digest_of(&descriptor, args.normalisation, args.hash);
    let document = json!({
        "component": descriptor.name(),
        "version": descriptor.version(),
        "digest": digest.to_value(),
        "computed": computed,
    });
    ui.data(&match args.output {
        HashFormat::Text => format!(
            "{}:{} {} {} {}\n",
            descriptor.name(),
            descriptor.version(),
            digest.hash_algorithm,
            digest.normalisation_algorithm,
            digest.value
        ),
        HashFormat::Json => serde_json::to_string_pretty(&document).unwrap_or_default() + "\n",
        HashFormat::Yaml => yaml::to_string(&document),
        HashFormat::Normalised => args.normalisation.normalise(&descriptor),
    })
}

/// The component version that an argument names.
pub(super) async fn read(session: &Session, reference: &str) -> Result<ComponentVersion, CliError> {
    let parsed: ComponentReference = reference.parse().map_err(|error| {
        CliError::usage(format!("`{reference}`: {error}")).with_hint(
            "write REPOSITORY//COMPONENT:VERSION, as in ./archive//acme.org/helloworld:1.0.0",
        )
    })?;
    Ok(session.component(&parsed).await?)
}

/// The repositories of `--lookup`.
pub(super) async fn repositories(
    session: &Session,
    texts: &[String],
) -> Result<Vec<Repository>, CliError> {
    let mut found = Vec::new();
    for text in texts {
        let spec: RepositorySpec = text
            .parse()
            .map_err(|error| CliError::usage(format!("`{text}`: {error}")))?;
        found.push(session.repository(&spec, false).await?);
    }
    Ok(found)
}
