//! How many requests things take, and how often a blob is read for several targets.
//!
//! *Invariant*: both sides are embedded registries that count what they are asked; nothing is known from an earlier run.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ocm_content::{MemoryStores, Referrers, Stores};
use ocm_registry::{Registry, RegistryConfig, Requests, Running};
use ocm_testdata::fixtures::{Fixture, image, referrer};

use crate::null_registry::{Config, NullRegistries};
use crate::report::Report;
use crate::transfer::{fan_out_spec, relay_spec, transfer};
use crate::{Result, Sizes};

const REPOSITORY: &str = "bench/image";
const TAG: &str = "v1";

/// An embedded registry and its content.
pub(crate) struct Embedded {
    /// The content, for looking in from beside.
    pub(crate) stores: MemoryStores,
    running: Running,
}

impl Embedded {
    /// An empty registry on a free port.
    pub(crate) async fn start() -> Result<Self> {
        let stores = MemoryStores::new();
        let config = RegistryConfig::new(Arc::new(stores.clone()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let running = Registry::bind(config, address).await?;
        Ok(Self { stores, running })
    }

    /// `host:port`.
    pub(crate) fn host(&self) -> String {
        self.running.addr.to_string()
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Requests {
        self.running.requests()
    }

    fn reference(&self) -> String {
        format!("{}/{REPOSITORY}:{TAG}", self.host())
    }

    async fn fill(&self, fixture: &Fixture, tag: Option<&str>) -> Result<()> {
        let store = self.stores.store(REPOSITORY)?;
        fixture.push(&store, tag).await?;
        Ok(())
    }
}

/// Which requests came between two looks.
pub(crate) struct Count<'r> {
    registries: [&'r Embedded; 2],
    before: [Requests; 2],
}

impl<'r> Count<'r> {
    pub(crate) fn start(registries: [&'r Embedded; 2]) -> Self {
        let before = registries.map(|registry| registry.running.requests());
        Self { registries, before }
    }

    fn since(&self, matches: impl Fn(&str, &str) -> bool) -> u64 {
        let count = |requests: &Requests| -> u64 {
            let found = requests.by_path.iter();
            found
                .filter(|((method, path), _)| matches(method, path))
                .map(|(_, count)| count)
                .sum()
        };
        let now = self.registries.map(|registry| registry.running.requests());
        let now: u64 = now.iter().map(count).sum();
        now - self.before.iter().map(count).sum::<u64>()
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        let now = self
            .registries
            .map(|registry| registry.running.requests().total);
        let before: u64 = self.before.iter().map(|requests| requests.total).sum();
        now.iter().sum::<u64>() - before
    }

    fn list(&self) -> String {
        let mut lines = Vec::new();
        for (side, (registry, before)) in self.registries.iter().zip(&self.before).enumerate() {
            for ((method, path), count) in registry.running.requests().by_path {
                let key = (method, path);
                let count = count - before.by_path.get(&key).copied().unwrap_or_default();
                if count > 0 {
                    let side = ["source", "target"][side];
                    lines.push(format!("{count} x {side} {} {}", key.0, key.1));
                }
            }
        }
        lines.join(", ")
    }
}

async fn copy(source: &Embedded, target: &Embedded, referrers: Referrers) -> Result<()> {
    let spec = relay_spec(&source.reference(), &target.reference());
    transfer(spec, referrers).await.map(drop)
}

/// Measures `requests_*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        per_new_blob(sizes, report).await?;
        noop(report).await
    })
}

async fn per_new_blob(sizes: Sizes, report: &mut Report) -> Result<()> {
    /// Of one layer: more than a connection's buffers hold, so that nothing is answered before it is read.
    const SIZE: usize = 1 << 20;
    let layers = sizes.of(50, 3);
    let (source, target) = (Embedded::start().await?, Embedded::start().await?);
    let fixture = image(layers, SIZE);
    source.fill(&fixture, Some(TAG)).await?;
    let count = Count::start([&source, &target]);
    copy(&source, &target, Referrers::All).await?;
    let requests = count.since(|_, path| path.contains("/blobs/"));
    let blobs = fixture.blobs.len() as f64;
    report.put("requests_per_new_blob", requests as f64 / blobs);
    Ok(())
}

async fn noop(report: &mut Report) -> Result<()> {
    let (source, target) = (Embedded::start().await?, Embedded::start().await?);
    let image = image(2, 1 << 10);
    source.fill(&image, Some(TAG)).await?;
    let signature = referrer(&image.root.descriptor(), "application/vnd.bench", "{}");
    source.fill(&signature, None).await?;
    copy(&source, &target, Referrers::All).await?;
    for (name, referrers) in [
        ("requests_per_artifact_noop", Referrers::None),
        ("requests_per_artifact_noop.referrers", Referrers::All),
    ] {
        let count = Count::start([&source, &target]);
        copy(&source, &target, referrers).await?;
        report.put(name, count.since(|_, _| true) as f64);
        let written = count.since(|method, _| !matches!(method, "GET" | "HEAD"));
        if written > 0 {
            report.violated(name, format!("something was written: {}", count.list()));
        }
    }
    Ok(())
}

/// Measures `tee.*`.
pub(crate) fn measure_tee(sizes: Sizes, report: &mut Report) -> Result<()> {
    /// Twice the default window together, so that the window has to move on while the targets read.
    const FULL: (usize, usize) = (8, 16 << 20);
    const SMOKE: (usize, usize) = (2, 1 << 20);
    const TARGETS: usize = 4;
    let (layers, size) = sizes.of(FULL, SMOKE);
    let runtime = tokio::runtime::Runtime::new()?;
    let gets = runtime.block_on(async {
        let source = Embedded::start().await?;
        let fixture = image(layers, size);
        source.fill(&fixture, Some(TAG)).await?;
        let registries = NullRegistries::start(&Config {
            layers: Vec::new(),
            targets: TARGETS,
        })?;
        let targets = (0..TARGETS).map(|target| registries.target(target));
        let spec = fan_out_spec(&source.reference(), targets);
        transfer(spec, Referrers::All).await?;
        let gets = source.running.requests();
        let gets = gets.count("GET", |path| path.contains("/blobs/"));
        Result::Ok(gets as f64 / fixture.blobs.len() as f64)
    })?;
    report.put("tee.source_gets_per_blob", gets);
    Ok(())
}
