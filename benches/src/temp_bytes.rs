//! Does content go straight from a source to a target, or does it rest on a disk between?

use std::path::Path;
use std::sync::Arc;

use ocm_content::{Artifact, Blob, Content, Meter, Stored};
use ocm_repository::{Existing, Repository, Session, SessionConfig};
use ocm_specs::descriptor::{ComponentDescriptor, ElementKind};
use ocm_specs::{Identity, RepositorySpec};
use ocm_testdata::fixtures::{image, noise};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::report::Report;
use crate::requests::Embedded;
use crate::{Result, Sizes};

const COMPONENT: &str = "acme.org/bench";
const VERSION: &str = "1.0.0";
const RESOURCE: &str = "blob";
const IMAGE: &str = "bench/image";

/// Measures `temp_bytes.direct`: what was spooled, and what is left in the folder for temporary files and in the staging
/// folders of archives, over all pairs.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    // Above every threshold up to which something might be kept in memory instead.
    let size = sizes.of(32 << 20, 1 << 20);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut bytes = 0;
    for source in [Kind::Oci, Kind::Ctf] {
        for target in [Kind::Oci, Kind::Ctf] {
            let found = runtime.block_on(pair(source, target, size))?;
            if found > 0 {
                let name = "temp_bytes.direct";
                report.note(name, format!("{source:?} to {target:?}: {found} bytes"));
            }
            bytes += found;
        }
    }
    report.put("temp_bytes.direct", bytes as f64);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Oci,
    Ctf,
}

/// A registry or an archive, and how to open it.
struct Place {
    spec: RepositorySpec,
    _registry: Option<Embedded>,
}

impl Place {
    async fn new(kind: Kind, archive: &str) -> Result<Self> {
        let registry = match kind {
            Kind::Oci => Some(Embedded::start().await?),
            Kind::Ctf => None,
        };
        let spec = match &registry {
            Some(registry) => RepositorySpec::oci(format!("http://{}", registry.host()), "acme"),
            None => RepositorySpec::ctf(archive),
        };
        Ok(Self {
            spec,
            _registry: registry,
        })
    }
}

fn session(folder: &Path) -> Result<Arc<Session>> {
    let mut config = SessionConfig::new(folder);
    config.limits.temp_folder = Some(folder.join("temp"));
    Ok(Session::new(config)?)
}

async fn pair(source: Kind, target: Kind, size: usize) -> Result<u64> {
    let folder = TempDir::new()?;
    std::fs::create_dir(folder.path().join("temp"))?;
    let source = Place::new(source, "source").await?;
    let target = Place::new(target, "target").await?;
    let earlier = session(folder.path())?;
    fill(&earlier, &source, size).await?;
    drop(earlier);
    let meter = Meter::new();
    let copying = async {
        let session = session(folder.path())?;
        let from = session.repository(&source.spec, false).await?;
        let to = session.repository(&target.spec, true).await?;
        copy_artifact(&session, &from, &to).await?;
        copy_local_blob(&from, &to).await
    };
    meter.clone().scope(copying).await?;
    let mut found = meter.snapshot().bytes_spooled;
    for rest in ["temp", "source/.staging", "target/.staging"] {
        found += size_of(&folder.path().join(rest))?;
    }
    Ok(found)
}

/// A component version with a local blob, and an image beside it.
async fn fill(session: &Session, place: &Place, size: usize) -> Result<()> {
    let repository = session.repository(&place.spec, true).await?;
    let blob = Blob::from_bytes("application/octet-stream", noise(size, 1));
    publish(&repository, &blob.into()).await?;
    let images = repository.content_store(IMAGE)?;
    image(2, size / 2).push(&images, Some("v1")).await?;
    Ok(())
}

async fn publish(repository: &Repository, content: &Content) -> Result<()> {
    let resource = json!({"name": RESOURCE, "version": VERSION, "type": "blob", "relation": "local",
        "access": {"type": "none"}});
    let stored = repository
        .prepare_local_blob(COMPONENT, ElementKind::Resource, &resource, content)
        .await?;
    let descriptor = descriptor(vec![stored])?;
    let prepared = repository.prepare_version(&descriptor, Existing::Fail);
    prepared.await?.publish().await?;
    Ok(())
}

fn descriptor(resources: Vec<Value>) -> Result<ComponentDescriptor> {
    Ok(ComponentDescriptor::from_value(json!({
        "meta": {"schemaVersion": "v2"},
        "component": {"name": COMPONENT, "version": VERSION, "provider": "acme", "repositoryContexts": [],
            "resources": resources, "sources": [], "componentReferences": []},
    }))?)
}

async fn copy_artifact(session: &Session, from: &Repository, to: &Repository) -> Result<()> {
    let store = from.content_store(IMAGE)?;
    let artifact = Artifact::Stored(Stored {
        root: store.resolve("v1").await?,
        store,
        tag: None,
    });
    let target = to.content_store(IMAGE)?;
    session
        .copier()
        .copy(&artifact, &target, Some("v1"))
        .await?;
    Ok(())
}

async fn copy_local_blob(from: &Repository, to: &Repository) -> Result<()> {
    let version = from.get(COMPONENT, VERSION).await?;
    let resource = version.descriptor.resource(&Identity::named(RESOURCE))?;
    publish(to, &version.local_blob(&resource)?).await
}

/// Bytes of all files below a folder, which need not be there.
fn size_of(folder: &Path) -> Result<u64> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let mut size = 0;
    for entry in entries {
        let entry = entry?;
        let metadata = entry.metadata()?;
        size += if metadata.is_dir() {
            size_of(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(size)
}
