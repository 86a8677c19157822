//! `ocm hash component-version`: the digest that signatures stand on.

use ocm_repository::resolver::bare_component;
use ocm_repository::{ComponentVersion, Resolver, Session};
use ocm_specs::reference::ComponentReference;
use ocm_specs::yaml;
use ocm_transformers::signing::{Closure, DigestOptions, digest_of, gaps};
use serde_json::json;

use crate::args::{HashArgs, HashFormat};
use crate::commands::session::{self, SessionOptions};
use crate::error::CliError;
use crate::ui::Ui;

/// Computes a digest and prints it. Digests that are missing are computed in memory.
pub(crate) async fn component_version(args: HashArgs, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&args.lookup)?;
    let version = read(&session, &resolver, &args.reference).await?;
    let mut descriptor = version.descriptor.clone();
    let computed = gaps(&descriptor);
    if !computed.is_empty() {
        let options = DigestOptions {
            normalisation: args.normalisation,
            hash: args.hash,
            resources: true,
        };
        let closure = Closure::read(&session, version, &resolver, options).await?;
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

/// The component version that an argument names: with its repository, or without where the resolver knows one.
pub(crate) async fn read(
    session: &Session,
    resolver: &Resolver,
    reference: &str,
) -> Result<ComponentVersion, CliError> {
    let error = match reference.parse::<ComponentReference>() {
        Ok(parsed) => return Ok(session.component(&parsed).await?),
        Err(error) => error,
    };
    if let Some((component, version)) = bare_component(reference)
        && !resolver.candidates(component, version).is_empty()
    {
        return match version {
            Some(version) => Ok(resolver.find(session, component, version).await?),
            None => {
                let (repository, versions) = resolver.versions(session, component).await?;
                let newest = versions.first().map(String::as_str).unwrap_or_default();
                Ok(repository.get(component, newest).await?)
            }
        };
    }
    Err(
        CliError::usage(format!("`{reference}`: {error}")).with_hint(
            "write REPOSITORY//COMPONENT:VERSION, as in ./archive//acme.org/helloworld:1.0.0",
        ),
    )
}
