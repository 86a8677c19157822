//! The registry client against the embedded registry, over memory and over a CTF folder: the same contract as everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocm_content::conformance::{Capabilities, check_store};
use ocm_content::limits::LimitsConfig;
use ocm_content::{Limits, MemoryStores, Stores};
use ocm_repository::credentials::Anonymous;
use ocm_repository::ctf::{Access, Ctf, CtfOptions};
use ocm_repository::oci::ClientConfig;
use ocm_testdata::registry::{Registry, RegistryConfig};

use super::client;

/// Once with blobs in one request and once in chunks, each over stores of its own: where all repositories share their
/// blobs, what the first left would be there for the second.
async fn check(stores: impl AsyncFn(&str) -> Arc<dyn Stores>, able: Capabilities) {
    for (name, config) in [
        ("one-request", ClientConfig::default()),
        (
            "chunks",
            ClientConfig {
                chunk_threshold: 0,
                chunk_size: 300_000,
                replay_size: 200_000,
                ..ClientConfig::default()
            },
        ),
    ] {
        let config_of_registry = RegistryConfig::new(stores(name).await);
        let running = Registry::bind(config_of_registry, ([127, 0, 0, 1], 0).into())
            .await
            .expect("a free port");
        let host = running.addr.to_string();
        let client = client(config, Anonymous);
        let next = AtomicUsize::new(0);
        let make = async || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let repository = format!("{name}/store{number}");
            client.store(&host, &repository).expect("a store")
        };
        check_store(make, able).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_memory_it_keeps_the_contract_of_a_store() {
    let stores = async |_: &str| Arc::new(MemoryStores::new()) as Arc<dyn Stores>;
    check(stores, Capabilities::all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_ctf_it_keeps_the_contract_of_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = async |name: &str| {
        let options = CtfOptions {
            access: Access::Create,
            limits: Limits::new(LimitsConfig::default()),
        };
        let path = folder.path().join(name);
        Ctf::open(&path, options).await.expect("an archive") as Arc<dyn Stores>
    };
    // All repositories of an archive share its blobs.
    let able = Capabilities {
        isolated: false,
        ..Capabilities::all()
    };
    check(stores, able).await;
}
