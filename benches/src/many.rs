//! Many artifacts at once: how many requests and bytes they take, and whether the way to the registry is kept busy.
//!
//! *Invariant*: both sides are embedded registries that count what they are asked; nothing is known from an earlier run.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ocm_content::{Blob, ContentStore, RawManifest, Referrers, Stores};
use ocm_specs::media_type::{OCI_EMPTY, OCI_LAYER_TAR};
use ocm_specs::oci::Manifest;
use ocm_testdata::faults::{Fault, FaultyRegistry, Kind, Rule};
use ocm_testdata::fixtures::noise;

use crate::child::children_cpu_seconds;
use crate::report::Report;
use crate::requests::{Count, Embedded};
use crate::transfer::{Moved, relays_spec, transfer};
use crate::{Result, Sizes};

/// A round trip, as between continents is.
const ROUND_TRIP: Duration = Duration::from_millis(30);
/// Requests under way at once, on both sides together, that the makespan is compared with.
const UNDER_WAY: f64 = 64.0;

/// An artifact of the workloads: its repository and tag, and the seeds of its layers.
struct Item {
    repository: String,
    tag: String,
    layers: Vec<u64>,
}

impl Item {
    fn reference(&self, host: &str) -> String {
        format!("{host}/{}:{}", self.repository, self.tag)
    }
}

/// Images of five layers in a repository each, three of them shared in groups of ten.
fn images(count: u64) -> Vec<Item> {
    let layers = |image: u64| {
        let group = image / 10;
        let shared = (0..3).map(move |layer| 1_000_000 + group * 3 + layer);
        shared
            .chain((0..2).map(move |layer| image * 2 + layer))
            .collect()
    };
    let image = |image| Item {
        repository: format!("bench/image{image}"),
        tag: "v1".to_owned(),
        layers: layers(image),
    };
    (0..count).map(image).collect()
}

/// Artifacts of one layer, all in one repository.
fn tags(count: u64) -> Vec<Item> {
    let item = |tag| Item {
        repository: "bench/artifacts".to_owned(),
        tag: format!("v{tag}"),
        layers: vec![tag],
    };
    (0..count).map(item).collect()
}

/// Puts the artifacts where they are copied from; gives the bytes of all different blobs together.
async fn fill(stores: &dyn Stores, items: &[Item], size: usize, own: bool) -> Result<u64> {
    let mut digests = std::collections::BTreeMap::new();
    for item in items {
        let store = stores.store(&item.repository)?;
        // What it is made for is not told by the workloads: the empty one, or one of its own.
        let config = match own {
            true => format!(r#"{{"of":"{}:{}"}}"#, item.repository, item.tag),
            false => "{}".to_owned(),
        };
        let config = push(&store, &Blob::from_bytes(OCI_EMPTY, config)).await?;
        let mut layers = Vec::new();
        for seed in &item.layers {
            let blob = Blob::from_bytes(OCI_LAYER_TAR, noise(size, *seed));
            layers.push(push(&store, &blob).await?);
        }
        for link in layers.iter().chain([&config]) {
            digests.insert(link.digest.clone(), link.size);
        }
        let manifest = RawManifest::write(&Manifest::image(config, layers));
        store.put_manifest(&manifest, Some(&item.tag)).await?;
    }
    Ok(digests.values().sum())
}

async fn push(
    store: &std::sync::Arc<dyn ContentStore>,
    blob: &Blob,
) -> Result<ocm_specs::oci::Descriptor> {
    Ok(store.push(blob, &[]).await?.descriptor)
}

/// One step for each artifact, run as one plan.
async fn copy(items: &[Item], source: &str, target: &str) -> Result<Moved> {
    let pairs = items
        .iter()
        .map(|item| (item.reference(source), item.reference(target)));
    transfer(relays_spec(pairs), Referrers::All).await
}

/// Measures `b.*`.
pub(crate) fn measure_b(sizes: Sizes, report: &mut Report) -> Result<()> {
    let (count, size) = sizes.of((100, 1 << 20), (20, 4 << 10));
    let items = images(count);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (source, target) = (Embedded::start().await?, Embedded::start().await?);
        let bytes = fill(&source.stores, &items, size, false).await?;
        let counting = Count::start([&source, &target]);
        let moved = copy(&items, &source.host(), &target.host()).await?;
        let requests = counting.total();
        report.put("b.requests", requests as f64);
        report.put("b.wire_ratio", moved.bytes as f64 / (2 * bytes) as f64);

        let (other, beside) = (Embedded::start().await?, Embedded::start().await?);
        fill(&other.stores, &items, size, true).await?;
        let counting = Count::start([&other, &beside]);
        copy(&items, &other.host(), &beside.host()).await?;
        let with_configs = counting.total();
        let theirs = beside_skopeo(&items, &source).await?;
        report.note(
            "b.requests",
            format!("with a config of its own in each image {with_configs} requests; {theirs}"),
        );
        Ok(())
    })
}

/// Measures `c.*`.
pub(crate) fn measure_c(sizes: Sizes, report: &mut Report) -> Result<()> {
    const SIZE: usize = 10 << 10;
    let items = tags(sizes.of(1_000, 20));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (source, target) = (Embedded::start().await?, Embedded::start().await?);
        fill(&source.stores, &items, SIZE, false).await?;
        for name in ["c.requests_per_artifact", "c.noop_requests_per_artifact"] {
            let counting = Count::start([&source, &target]);
            copy(&items, &source.host(), &target.host()).await?;
            report.put(name, counting.total() as f64 / items.len() as f64);
        }
        let theirs = beside_skopeo(&items, &source).await?;
        report.note("c.requests_per_artifact", theirs);
        Ok(())
    })
}

/// The same copies by skopeo, where it is installed: one process for each repository.
async fn beside_skopeo(items: &[Item], source: &Embedded) -> Result<String> {
    let target = Embedded::start().await?;
    let hosts = (source.host(), target.host());
    let mut repositories: Vec<String> = items.iter().map(|item| item.repository.clone()).collect();
    repositories.dedup();
    let counting = Count::start([source, &target]);
    let before = children_cpu_seconds()?;
    let copies = tokio::task::spawn_blocking(move || -> Result<bool> {
        let (source, target) = hosts;
        for repository in repositories {
            let status = Command::new("skopeo")
                .args([
                    "--insecure-policy",
                    "sync",
                    "--all",
                    "--src",
                    "docker",
                    "--dest",
                    "docker",
                ])
                .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
                .args([format!("{source}/{repository}"), format!("{target}/bench")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => return Err(format!("skopeo: {status}").into()),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    });
    if !copies.await?? {
        return Ok("skopeo is not installed".to_owned());
    }
    let cpu = children_cpu_seconds()? - before;
    let mut text = String::new();
    let _ = write!(
        text,
        "skopeo sync: {} requests, {cpu:.1} s of the processor",
        counting.total()
    );
    Ok(text)
}

/// Measures `latency.ratio`.
pub(crate) fn measure_latency(sizes: Sizes, report: &mut Report) -> Result<()> {
    const NAME: &str = "latency.ratio";
    let items = tags(sizes.of(1_000, 40));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let late = || Rule::on(Kind::Any).then(Fault::Late { by: ROUND_TRIP });
        let source = FaultyRegistry::start([late()]).await?;
        let target = FaultyRegistry::start([late()]).await?;
        fill(&source.stores, &items, 1 << 10, false).await?;
        let start = Instant::now();
        copy(&items, &source.host(), &target.host()).await?;
        let wall = start.elapsed();
        let requests = source.log.count_all() + target.log.count_all();
        let least = requests as f64 * ROUND_TRIP.as_secs_f64() / UNDER_WAY;
        report.put(NAME, wall.as_secs_f64() / least);
        report.note(
            NAME,
            format!("{requests} requests in {:.2} s", wall.as_secs_f64()),
        );
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn layers_are_shared_in_groups_of_ten() {
        let items = images(100);
        let all: Vec<u64> = items.iter().flat_map(|item| item.layers.clone()).collect();
        assert_eq!(all.len(), 500);
        let different: BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(different.len(), 200 + 30);
        assert_eq!(items[0].layers[..3], items[9].layers[..3]);
        assert_ne!(items[0].layers[..3], items[10].layers[..3]);
    }
}
