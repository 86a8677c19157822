//! Where plugins come from: files, OCI artifacts, resources of component versions.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ocm_content::{Artifact, Blob, Content, ContentStore, Error};
use ocm_plugins_wasm::{COMPONENT_LIMIT, Cache};
use ocm_repository::{ComponentVersion, Session};
use ocm_specs::access::AccessType;
use ocm_specs::descriptor::Element;
use ocm_specs::oci::Manifest;
use ocm_specs::reference::{ComponentReference, OciReference};
use ocm_specs::{Digest, RepositorySpec};
use ocm_transformers::local_blob::expect_stated;
use ocm_transformers::signing::{SignatureState, algorithm_of, check, select};

use crate::commands::hash::read;
use crate::commands::keys::Keys;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// The media type of a component.
pub(crate) const MEDIA_TYPE: &str = "application/wasm";

/// How a plugin may be fetched.
pub(crate) struct SourceOptions<'a> {
    pub(crate) pinned: Option<&'a Digest>,
    pub(crate) signatures: &'a [String],
    pub(crate) keys: &'a [String],
    pub(crate) offline: bool,
}

/// A component's bytes.
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
}

/// Where a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file.
    File(String),
    /// An OCI artifact.
    Oci(String),
    /// A resource of a component version.
    Resource {
        version: String,
        resource: Option<String>,
    },
}

impl Origin {
    /// Reads the text of a source.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        if let Some(reference) = text.strip_prefix("oci://") {
            return Ok(Self::Oci(reference.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("ocm://") {
            let (version, query) = rest.split_once('?').unwrap_or((rest, ""));
            let resource = match query.split_once('=') {
                Some(("resource", name)) if !name.is_empty() => Some(name.to_owned()),
                None if query.is_empty() => None,
                _ => {
                    let message = format!("`?{query}` does not say which resource");
                    return Err(
                        CliError::new(ExitCode::Invalid, message).with_hint("write ?resource=NAME")
                    );
                }
            };
            return Ok(Self::Resource {
                version: version.to_owned(),
                resource,
            });
        }
        if let Some((scheme, _)) = text
            .split_once("://")
            .filter(|(scheme, _)| *scheme != "file")
        {
            let message = format!("plugins do not come from `{scheme}://`");
            return Err(CliError::new(ExitCode::Invalid, message)
                .with_hint("write a file, oci://… or ocm://…"));
        }
        let path = text.strip_prefix("file:").unwrap_or(text);
        Ok(Self::File(
            path.strip_prefix("//").unwrap_or(path).to_owned(),
        ))
    }
}

/// Gets the bytes of a component.
pub(crate) async fn fetch(
    source: Option<&str>,
    options: &SourceOptions<'_>,
    cache: Option<&Cache>,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Fetched, CliError> {
    let cached = options.pinned.and_then(|digest| cache?.component(digest));
    let Some(source) = source else {
        let missing = || {
            CliError::new(
                ExitCode::NotFound,
                "it has no `source`, and no installed plugin has its digest",
            )
            .with_hint("write where it is, or install it with `ocm plugin install`")
        };
        return cached.map(|bytes| Fetched { bytes }).ok_or_else(missing);
    };
    let origin = Origin::parse(source)?;
    let is_to_be_signed = !options.signatures.is_empty();
    if is_to_be_signed && !matches!(origin, Origin::Resource { .. }) {
        return Err(CliError::new(
            ExitCode::Verification,
            "a signature is wanted, and only component versions have some",
        )
        .with_hint(
            "take it from a component version: ocm://REPOSITORY//COMPONENT:VERSION?resource=NAME",
        ));
    }
    let bytes = match origin {
        Origin::File(path) => read_file(&ui.environment.working_directory.join(&path), &path)?,
        // What is pinned and kept need not be fetched again; a signature is judged where it is.
        Origin::Oci(_) if cached.is_some() => cached.unwrap_or_default(),
        Origin::Oci(_) if options.offline => return Err(offline()),
        Origin::Oci(reference) => of_artifact(&reference, session).await?,
        Origin::Resource { version, resource } => {
            let reference = ComponentReference::parse(&version, true)
                .map_err(|error| CliError::new(ExitCode::Invalid, error.to_string()))?;
            let is_remote = !matches!(&reference.repository, RepositorySpec::Ctf(_));
            match cached.filter(|_| !is_to_be_signed) {
                Some(bytes) => bytes,
                None if options.offline && is_remote => return Err(offline()),
                None => of_resource(&version, resource.as_deref(), options, session, ui).await?,
            }
        }
    };
    Ok(Fetched { bytes })
}

fn offline() -> CliError {
    CliError::new(
        ExitCode::NotFound,
        "it is not in the cache, and --offline forbids to fetch it",
    )
    .with_hint("fetch it with `ocm plugin install` while there is a network")
}

/// Reads a component file.
pub(crate) fn read_file(path: &Path, shown: &str) -> Result<Bytes, CliError> {
    let unreadable = |error: std::io::Error| CliError::file("read", Path::new(shown), &error);
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > COMPONENT_LIMIT {
        let message = format!("{shown} has {size} bytes, a plugin has at most {COMPONENT_LIMIT}");
        return Err(Error::limit(message).into());
    }
    Ok(std::fs::read(path).map_err(unreadable)?.into())
}

/// The component in an OCI artifact.
async fn of_artifact(reference: &str, session: &Session) -> Result<Bytes, CliError> {
    match session.artifact(reference).await? {
        Artifact::Stored(stored) => {
            let manifest = stored
                .store
                .manifest(&stored.root.digest.to_string())
                .await?;
            Ok(
                component_layer(&manifest.bytes, stored.store.as_ref(), reference)?
                    .read(COMPONENT_LIMIT)
                    .await?,
            )
        }
        Artifact::Composed(_) => Err(Error::internal("an artifact of a registry is stored").into()),
    }
}

/// The one layer that is a component.
fn component_layer(
    manifest: &[u8],
    store: &dyn ContentStore,
    shown: &str,
) -> Result<Blob, CliError> {
    let invalid = |why: &str| CliError::new(ExitCode::Invalid, format!("{shown} {why}"));
    let manifest =
        Manifest::parse(manifest).map_err(|error| invalid(&format!("is no artifact: {error}")))?;
    let layers = manifest
        .layers
        .iter()
        .flatten()
        .filter(|layer| layer.media_type == MEDIA_TYPE);
    match layers.collect::<Vec<_>>().as_slice() {
        [layer] => Ok(store.fetch(layer)),
        [] => Err(invalid("is no plugin: it has no layer `application/wasm`")),
        _ => Err(invalid("has several layers `application/wasm`")),
    }
}

/// The component in a resource, after the signature that is wanted.
async fn of_resource(
    reference: &str,
    resource: Option<&str>,
    options: &SourceOptions<'_>,
    session: &Arc<Session>,
    ui: &Ui,
) -> Result<Bytes, CliError> {
    let resolver = ui.config()?.resolver(&[])?;
    let version = read(session, &resolver, reference).await?;
    for name in options.signatures {
        verify(&version, name, options.keys, ui)?;
    }
    let element = choose(&version, resource, reference)?;
    if !options.signatures.is_empty() && !is_signed(&element) {
        let message = format!(
            "resource `{}` of {reference} states no digest of bytes or of an artifact, so no signature stands for it",
            element.name()
        );
        return Err(CliError::new(ExitCode::Verification, message));
    }
    let content = session.content(&version, &element).await?;
    let blob = match expect_stated(content, &element, session.limits()).await? {
        Content::Blob(blob) => blob,
        Content::Artifact(Artifact::Stored(stored)) => {
            let manifest = stored
                .store
                .manifest(&stored.root.digest.to_string())
                .await?;
            component_layer(&manifest.bytes, stored.store.as_ref(), reference)?
        }
        Content::Artifact(Artifact::Composed(_)) => {
            return Err(Error::internal("an artifact of a component version is stored").into());
        }
    };
    Ok(blob.read(COMPONENT_LIMIT).await?)
}

/// Does a signature of its component version stand for the content? Then [`expect_stated`] holds it to that.
fn is_signed(element: &Element<'_>) -> bool {
    let access = element.access_value().and_then(|access| access.get("type"));
    let is_chart =
        access.and_then(|kind| kind.as_str()).map(AccessType::of) == Some(AccessType::Helm);
    element.digest().is_some_and(|stated| {
        let is_known = stated.is_of_blob() || (stated.is_of_artifact() && !is_chart);
        is_known && stated.digest().is_some()
    })
}

fn choose<'v>(
    version: &'v ComponentVersion,
    name: Option<&str>,
    reference: &str,
) -> Result<Element<'v>, CliError> {
    let all: Vec<Element<'v>> = version.descriptor.resources().collect();
    let fits = |element: &&Element<'v>| match name {
        Some(name) => element.name() == name,
        None => element.type_name() == "wasmComponent",
    };
    let found: Vec<&Element<'v>> = all.iter().filter(fits).collect();
    let what = name.map_or_else(
        || "of type `wasmComponent`".to_owned(),
        |name| format!("`{name}`"),
    );
    match found.as_slice() {
        [only] => Ok(**only),
        [] => Err(CliError::new(
            ExitCode::NotFound,
            format!("there is no resource {what} in {reference}"),
        )
        .with_hint("name it: ?resource=NAME")),
        _ => Err(CliError::new(
            ExitCode::Invalid,
            format!("several resources are {what} in {reference}"),
        )
        .with_hint("name one: ?resource=NAME")),
    }
}

/// The signature must be there and hold.
fn verify(
    version: &ComponentVersion,
    name: &str,
    keys: &[String],
    ui: &Ui,
) -> Result<(), CliError> {
    let descriptor = &version.descriptor;
    let failed = |why: &str| {
        let message = format!(
            "signature `{name}` of {}:{}: {why}",
            descriptor.name(),
            descriptor.version()
        );
        CliError::new(ExitCode::Verification, message)
            .with_hint("do not run a plugin whose signature does not hold")
    };
    let selected =
        select(descriptor, &[name.to_owned()]).map_err(|error| failed(&error.to_string()))?;
    let keys = Keys::new(ui, &[], keys, &[])?;
    for signature in selected {
        let Some(algorithm) = algorithm_of(&signature) else {
            return Err(failed("its algorithm is not known"));
        };
        // Keys for plugins have a flag of their own.
        let material = keys
            .public(signature.name(), algorithm)
            .map_err(|error| CliError {
                hint: error
                    .hint
                    .map(|hint| hint.replace("--public-key", "--plugin-key")),
                ..error
            })?;
        let checked = check(
            descriptor,
            None,
            &signature,
            Some(&material),
            SystemTime::now(),
        );
        if checked.state != SignatureState::Valid {
            return Err(failed(
                checked.reason.as_deref().unwrap_or("it does not hold"),
            ));
        }
    }
    Ok(())
}

/// The place of an artifact to push to.
pub(crate) fn target(text: &str) -> Result<OciReference, CliError> {
    let text = text.strip_prefix("oci://").unwrap_or(text);
    text.parse::<OciReference>()
        .map_err(|error| CliError::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_files_artifacts_and_resources() {
        let file = |path: &str| Origin::File(path.to_owned());
        for (text, expected) in [
            ("./scrub.wasm", file("./scrub.wasm")),
            ("file:./scrub.wasm", file("./scrub.wasm")),
            ("file:///opt/scrub.wasm", file("/opt/scrub.wasm")),
            (
                "oci://registry.example/acme/scrub:1.4.0",
                Origin::Oci("registry.example/acme/scrub:1.4.0".to_owned()),
            ),
            (
                "ocm://registry.example/ocm//acme.org/scrub:1.4.0?resource=plugin",
                Origin::Resource {
                    version: "registry.example/ocm//acme.org/scrub:1.4.0".to_owned(),
                    resource: Some("plugin".to_owned()),
                },
            ),
        ] {
            assert_eq!(Origin::parse(text).expect(text), expected);
        }
        for wrong in [
            "https://example.com/x.wasm",
            "ocm://r//c:1?name=x",
            "ocm://r//c:1?resource=",
        ] {
            assert!(Origin::parse(wrong).is_err(), "{wrong}");
        }
    }
}
