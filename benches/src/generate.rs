//! What it costs to plan the transfer of many component versions, and to find out that it was made before.
//!
//! *Invariant*: the archive is made by the parent, so that the child's processor and memory are those of planning alone.

use std::path::Path;
use std::sync::Arc;

use ocm_content::Error;
use ocm_engine::{Context, Plan, Status};
use ocm_repository::{Resolver, Session, SessionConfig};
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, Encoding};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::{Algorithm, Digest, RepositorySpec};
use ocm_transformers::generate::{Options, generate};
use ocm_transformers::signing::{Closure, DigestOptions};
use ocm_transformers::storage::Files;
use serde_json::{Value as Json, json};

use crate::child::{Job, cpu_seconds};
use crate::figures::exponent;
use crate::report::Report;
use crate::requests::Embedded;
use crate::{Result, Sizes};

/// Component versions of the two archives.
const FULL: [usize; 2] = [1_000, 10_000];
const SMOKE: [usize; 2] = [20, 100];
/// References of a component version that has all of them.
const BRANCHES: usize = 10;
/// Resources of a component version, of which the first is stored beside the descriptor.
const RESOURCES: usize = 5;

/// Measures `generate.*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    for count in sizes.of(FULL, SMOKE) {
        let folder = tempfile::tempdir()?;
        write_archive(folder.path(), count)?;
        let folder = folder.path().display().to_string();
        let sample = Job::Generate { folder, count }.measure()?;
        times.push((count as f64, sample.cpu));
        if times.len() == 2 {
            report.put("generate.cpu_s.10000", sample.cpu);
            report.put("generate.peak_rss_mib.10000", sample.peak_rss_mib());
        }
    }
    report.put("generate.exponent", exponent(times[0], times[1]));
    Ok(())
}

/// Measures `noop.*`.
pub(crate) fn measure_noop(sizes: Sizes, report: &mut Report) -> Result<()> {
    let count = sizes.of(50, 5);
    let folder = tempfile::tempdir()?;
    write_archive(folder.path(), count)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let requests = runtime.block_on(async {
        let target = Embedded::start().await?;
        let spec = RepositorySpec::oci(target.host(), "bench");
        carry(folder.path(), &spec).await?;
        let before = target.requests().total;
        carry(folder.path(), &spec).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(target.requests().total - before)
    })?;
    let name = "noop.requests_per_component_version";
    report.put(name, requests as f64 / count as f64);
    Ok(())
}

/// CPU seconds from an archive to a checked plan.
pub(crate) fn plan_of(folder: &str, count: usize) -> Result<f64> {
    let runtime = tokio::runtime::Runtime::new()?;
    let start = cpu_seconds();
    let plan = runtime.block_on(plan(Path::new(folder), &RepositorySpec::ctf("./target")))?;
    let cpu = cpu_seconds() - start;
    let steps = plan.0.step_names().count();
    // Read, add, upload; one more cleans up.
    if steps != 3 * count + 1 {
        return Err(format!("the plan has {steps} steps for {count} component versions").into());
    }
    Ok(cpu)
}

async fn plan(folder: &Path, target: &RepositorySpec) -> Result<(Plan, Arc<Session>)> {
    let session = Session::new(SessionConfig::new(folder))?;
    let source = session
        .repository(&RepositorySpec::ctf(folder.display().to_string()), false)
        .await?;
    let root = source.get(&name(0), VERSION).await?;
    let resolver = Resolver::default();
    let closure = Closure::read(&session, root, &resolver, DigestOptions::default()).await?;
    let versions = closure.into_members().into_iter();
    let options = Options {
        targets: vec![target.clone()],
        ..Options::default()
    };
    let types = ocm_transformers::step_types();
    let versions = versions.map(|member| member.version).collect();
    let generated = generate(versions, &options, &types)?;
    let plan = Plan::link(generated.spec, &types).map_err(|error| error.to_string())?;
    Ok((plan, session))
}

async fn carry(folder: &Path, target: &RepositorySpec) -> Result<()> {
    let (plan, session) = plan(folder, target).await?;
    let mut context = Context::new(session.limits().clone(), session.clone());
    context.files = Arc::new(Files(session));
    let result = plan.run(context, Box::new(|_| {})).await;
    match (result.status, result.failures.first()) {
        (Status::Succeeded, _) => Ok(()),
        (_, Some((step, error))) => Err(format!("step `{step}`: {}", error.error).into()),
        (status, None) => Err(format!("the run {status:?}").into()),
    }
}

const VERSION: &str = "1.0.0";

fn name(number: usize) -> String {
    format!("bench.example/part{number}")
}

/// Writes an archive file by file: publishing one version after the other would rewrite its index as often.
fn write_archive(folder: &Path, count: usize) -> Result<()> {
    let blobs = folder.join("blobs");
    std::fs::create_dir_all(&blobs)?;
    let store = |bytes: &[u8]| -> Result<Digest> {
        let digest = Digest::sha256(bytes);
        std::fs::write(blobs.join(digest.to_string().replace(':', ".")), bytes)?;
        Ok(digest)
    };
    let mut digests: Vec<Option<DigestSpec>> = vec![None; count];
    let mut index = Vec::with_capacity(count);
    // Children have larger numbers and come first.
    for number in (0..count).rev() {
        let text = format!("content of part {number}\n");
        let blob = store(text.as_bytes())?;
        let document = document(number, &blob, &digests);
        let descriptor = ComponentDescriptor::from_value(document)
            .map_err(|error| Error::internal(error.to_string()))?;
        let normalisation = Normalisation::V4Alpha1;
        let digest = normalisation.digest(&descriptor, Algorithm::Sha256);
        digests[number] = Some(DigestSpec {
            normalisation_algorithm: normalisation.as_str().to_owned(),
            ..DigestSpec::new(&digest, false)
        });
        let encoded = descriptor.encode(Encoding::Json);
        let layer = link(
            &encoded.media_type,
            &store(&encoded.bytes)?,
            encoded.bytes.len(),
        );
        let config = serde_json::to_vec(&json!({"componentDescriptorLayer": layer}))?;
        let config_type = "application/vnd.ocm.software.component.config.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": link(config_type, &store(&config)?, config.len()),
            "layers": [layer, link("text/plain", &blob, text.len())],
        });
        let digest = store(&serde_json::to_vec(&manifest)?)?;
        index.push(json!({
            "repository": format!("component-descriptors/{}", name(number)),
            "tag": VERSION, "digest": digest, "mediaType": MANIFEST,
        }));
    }
    let index = json!({"schemaVersion": 1, "artifacts": index});
    std::fs::write(folder.join("artifact-index.json"), index.to_string())?;
    Ok(())
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn link(media_type: &str, digest: &Digest, size: usize) -> Json {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn document(number: usize, blob: &Digest, digests: &[Option<DigestSpec>]) -> Json {
    let mut resources = vec![json!({
        "name": "notes", "version": VERSION, "type": "plainText", "relation": "local",
        "access": {"type": "localBlob", "localReference": blob, "mediaType": "text/plain"},
        "digest": DigestSpec::new(blob, false).to_value(),
    })];
    for image in 1..RESOURCES {
        let reference = format!("registry.example/bench/part{number}/image{image}:{VERSION}");
        resources.push(json!({
            "name": format!("image{image}"), "version": VERSION, "type": "ociImage", "relation": "external",
            "access": {"type": "ociArtifact", "imageReference": reference},
            "digest": DigestSpec::new(&Digest::sha256(reference.as_bytes()), true).to_value(),
        }));
    }
    let first = number * BRANCHES + 1;
    let references = (first..(first + BRANCHES).min(digests.len())).filter_map(|child| {
        let digest = digests[child].as_ref()?.to_value();
        Some(json!({
            "name": format!("part{child}"), "componentName": name(child), "version": VERSION, "digest": digest,
        }))
    });
    json!({
        "meta": {"schemaVersion": "v2"},
        "component": {
            "name": name(number), "version": VERSION, "provider": "bench.example", "creationTime": "2024-03-18T09:44:42Z",
            "repositoryContexts": [], "sources": [], "resources": resources,
            "componentReferences": references.collect::<Vec<_>>(),
        },
    })
}
