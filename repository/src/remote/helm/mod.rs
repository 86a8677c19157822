//! Charts of Helm repositories: those with an `index.yaml`, and those in OCI registries.
//!
//! *Invariant*: the chart archive is the bytes that the repository has. Where the index, the manifest or a descriptor states
//! a digest, nothing else is read.

mod index;
mod metadata;

use ocm_content::{Artifact, Blob, Error, Result};
use ocm_specs::Digest;
use ocm_specs::access::remote::Helm;
use ocm_specs::media_type::{HELM_CHART_LAYER, HELM_CONFIG, HELM_PROVENANCE_LAYER, is_index};
use ocm_specs::oci::{Descriptor, Manifest};
use ocm_specs::yaml::{Source, YamlError};
use url::Url;

pub(crate) use index::Indexes;
pub use metadata::ChartMetadata;

use super::{HELM, printable};
use crate::oci::{Expected, WebRequest};
use crate::session::Session;

/// Largest provenance file, in bytes.
const PROVENANCE_LIMIT: u64 = 1 << 20;
/// How provenance files begin: some servers answer with a page where there is none.
const SIGNED: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";

/// A chart as a repository has it.
#[derive(Clone, Debug)]
pub struct HelmChart {
    /// Its name.
    pub name: String,
    /// Its version, as the repository spells it.
    pub version: String,
    /// The archive.
    pub archive: Blob,
    /// The file that signs the archive.
    pub provenance: Option<Blob>,
    /// The manifest around it, where it is in a registry.
    manifest: Option<Digest>,
}

impl HelmChart {
    /// The same, sure to be what a descriptor states: the archive, or the manifest around it.
    pub(super) fn expect(mut self, stated: Option<Digest>) -> Result<Self> {
        let Some(stated) = stated else {
            return Ok(self);
        };
        let same = |known: &Option<Digest>| known.as_ref() == Some(&stated);
        if same(&self.manifest) {
            return Ok(self);
        }
        match &self.archive.digest {
            Some(known) if known.algorithm() == stated.algorithm() && *known != stated => {
                Err(Error::mismatch(format!(
                    "chart {} {} has digest {known}, its descriptor says {stated}",
                    self.name, self.version
                )))
            }
            Some(_) => Ok(self),
            None => {
                self.archive.digest = Some(stated);
                Ok(self)
            }
        }
    }
}

/// Finds a chart.
pub(super) async fn chart(
    session: &Session,
    access: Helm<'_>,
    with_provenance: bool,
) -> Result<HelmChart> {
    let found = match access.repository.strip_prefix("oci://") {
        Some(place) => in_registry(session, place, access).await,
        None => in_repository(session, access, with_provenance).await,
    };
    found.map_err(|error| {
        let version = access.version().unwrap_or_default();
        let colon = if version.is_empty() { "" } else { ":" };
        error.context(format!("chart `{}{colon}{version}`", access.name()))
    })
}

async fn in_repository(
    session: &Session,
    access: Helm<'_>,
    with_provenance: bool,
) -> Result<HelmChart> {
    let repository = Url::parse(access.repository).map_err(|error| {
        Error::invalid(format!(
            "access.helmRepository: `{}`: {error}",
            printable(access.repository)
        ))
    })?;
    if access.name().is_empty() {
        return by_url(session, repository, with_provenance).await;
    }
    let base = index::folder(&repository);
    let index = session.helm_indexes().get(session.client(), &base).await?;
    let entry = index.find(access.name(), access.version())?;
    let url = entry.url(&base)?;
    if url.scheme() == "oci" {
        let reference = url.as_str().trim_start_matches("oci://").to_owned();
        return by_reference(session, &reference, access.name(), &entry.version).await;
    }
    let mut chart = by_url_of(session, url, with_provenance, entry.digest()).await?;
    access.name().clone_into(&mut chart.name);
    chart.version.clone_from(&entry.version);
    Ok(chart)
}

/// The chart at a URL, which says itself what it is.
async fn by_url(session: &Session, url: Url, with_provenance: bool) -> Result<HelmChart> {
    let archive = url.path().ends_with(".tgz") || url.path().ends_with(".tar.gz");
    if !archive {
        return Err(Error::invalid("access.helmChart is missing")
            .with_hint("name the chart and its version: `helmChart: NAME:VERSION`"));
    }
    let mut chart = by_url_of(session, url, with_provenance, None).await?;
    let metadata = ChartMetadata::read(&chart.archive, session.limits()).await?;
    metadata.name().clone_into(&mut chart.name);
    metadata.version().clone_into(&mut chart.version);
    Ok(chart)
}

async fn by_url_of(
    session: &Session,
    url: Url,
    with_provenance: bool,
    digest: Option<Digest>,
) -> Result<HelmChart> {
    let path = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let request = |url: &Url| WebRequest::get(url.clone(), HELM).with_path(path);
    let expected = Expected {
        media_type: Some(HELM_CHART_LAYER.to_owned()),
        digest,
    };
    let archive = session.client().content(request(&url), expected).await?;
    let mut beside = url.clone();
    beside.set_path(&format!("{}.prov", url.path()));
    let provenance = match with_provenance {
        true => provenance(session, request(&beside)).await?,
        false => None,
    };
    Ok(HelmChart {
        name: String::new(),
        version: String::new(),
        archive,
        provenance,
        manifest: None,
    })
}

/// The provenance file, if there is one. Stores that may not be listed say 403 where there is nothing.
async fn provenance(session: &Session, request: WebRequest) -> Result<Option<Blob>> {
    let page = session.client().page(&request, PROVENANCE_LIMIT).await?;
    if matches!(page.status.as_u16(), 403 | 404 | 410) {
        return Ok(None);
    }
    let body = page.success()?;
    let is_signed = body.trim_ascii_start().starts_with(SIGNED);
    Ok(is_signed.then(|| Blob::from_bytes(HELM_PROVENANCE_LAYER, body)))
}

async fn in_registry(session: &Session, place: &str, access: Helm<'_>) -> Result<HelmChart> {
    let place = place.trim_end_matches('/');
    let (reference, version) = match (access.name(), access.version()) {
        ("", _) => (place.to_owned(), place.rsplit_once(':').map(|(_, tag)| tag)),
        (name, version) => (format!("{place}/{name}"), version),
    };
    let version = version
        .filter(|version| !version.contains('/'))
        .ok_or_else(|| {
            Error::invalid("the version of a chart in a registry has to be named")
                .with_hint("write it behind the chart's name: `helmChart: NAME:VERSION`")
        })?;
    let reference = match access.name() {
        "" => reference,
        // Tags have no `+`.
        _ => format!("{reference}:{}", version.replace('+', "_")),
    };
    let path = reference.rsplit_once(':').map_or("", |(path, _)| path);
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    by_reference(session, &reference, &name, &version.replace('_', "+")).await
}

/// The chart behind an image reference.
async fn by_reference(
    session: &Session,
    reference: &str,
    name: &str,
    version: &str,
) -> Result<HelmChart> {
    let Artifact::Stored(stored) = session.artifact(reference).await? else {
        return Err(Error::internal("an artifact in a registry has no root"));
    };
    if is_index(&stored.root.media_type) {
        return Err(no_chart(reference));
    }
    let raw = stored
        .store
        .manifest(&stored.root.digest.to_string())
        .await?;
    let manifest = raw.parse()?;
    let is_chart = manifest
        .config
        .as_ref()
        .is_some_and(|config| config.media_type == HELM_CONFIG);
    let archive = layer(&manifest, HELM_CHART_LAYER).filter(|_| is_chart);
    let archive = archive.ok_or_else(|| no_chart(reference))?;
    Ok(HelmChart {
        name: name.to_owned(),
        version: version.to_owned(),
        archive: stored.store.fetch(archive),
        provenance: layer(&manifest, HELM_PROVENANCE_LAYER).map(|layer| stored.store.fetch(layer)),
        manifest: Some(raw.digest),
    })
}

/// What is wrong with a document of a repository, and where.
fn at(source: &Source, error: &YamlError) -> Error {
    let place = source.position(error.span.start);
    Error::invalid(format!(
        "{}:{}:{}: {}",
        source.name(),
        place.line,
        place.column,
        error.message
    ))
}

fn layer<'a>(manifest: &'a Manifest, media_type: &str) -> Option<&'a Descriptor> {
    let mut layers = manifest.layers.iter().flatten();
    layers.find(|layer| layer.media_type == media_type)
}

fn no_chart(reference: &str) -> Error {
    Error::invalid(format!("{reference} is no Helm chart"))
}
