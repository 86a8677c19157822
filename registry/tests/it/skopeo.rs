//! A client that others wrote, both ways.

use std::path::Path;
use std::process::{Command, Stdio};

use ocm_registry::{Auth, Users};
use ocm_specs::Digest;
use ocm_specs::media_type::{OCI_CONFIG, OCI_LAYER_TAR};
use ocm_specs::oci::{Descriptor, Manifest};
use serde_json::json;

use crate::client::Server;

/// Is the tool here? Where peers are required, it has to be.
fn skopeo() -> bool {
    let found = Command::new("skopeo")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let required = std::env::var("OCM_REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(found || !required, "skopeo is required and not installed");
    found
}

async fn run(arguments: &[&str]) {
    let output = tokio::process::Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "skopeo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An OCI image layout with one image tagged `v1`; gives the manifest.
fn layout(folder: &Path) -> Vec<u8> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let write = |media_type: &str, bytes: &[u8]| {
        let link = Descriptor::of(media_type, bytes);
        std::fs::write(blobs.join(link.digest.hex()), bytes).unwrap();
        link
    };
    let layers: Vec<Vec<u8>> = (1..4).map(|seed| vec![seed; 700_000]).collect();
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| Digest::sha256(layer).to_string())
        .collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = write(OCI_CONFIG, config.to_string().as_bytes());
    let layers = layers.iter().map(|layer| write(OCI_LAYER_TAR, layer));
    let manifest = Manifest::image(config, layers.collect());
    let bytes = manifest.to_bytes();
    let mut root = write(&manifest.media_type.unwrap(), &bytes);
    let name = "org.opencontainers.image.ref.name".to_owned();
    root.annotations = Some([(name, "v1".to_owned())].into());
    let index = Manifest::index(vec![root]).to_bytes();
    std::fs::write(folder.join("index.json"), index).unwrap();
    let marker = br#"{"imageLayoutVersion":"1.0.0"}"#;
    std::fs::write(folder.join("oci-layout"), marker).unwrap();
    bytes
}

async fn round_trip(server: &Server, credentials: &[&str; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let manifest = layout(&from);
    let from = format!("oci:{}:v1", from.display());
    let there = format!("docker://{}/acme/tools:v1", server.addr());
    let elsewhere = format!("docker://{}/acme/mounted:v1", server.addr());
    let back = format!("oci:{}:v1", to.display());
    let push = format!("--dest-{}", credentials[0]);
    let pull = format!("--src-{}", credentials[0]);
    let (push, pull) = (
        format!("{push}={}", credentials[1]),
        format!("{pull}={}", credentials[1]),
    );
    let (source, target) = ("--src-tls-verify=false", "--dest-tls-verify=false");
    // Otherwise it compresses.
    let keep = "--preserve-digests";
    run(&["copy", keep, target, &push, &from, &there]).await;
    run(&[
        "copy", keep, source, target, &pull, &push, &there, &elsewhere,
    ])
    .await;
    run(&["copy", keep, source, &pull, &elsewhere, &back]).await;
    let compressed = format!("docker://{}/acme/tools:small", server.addr());
    run(&["copy", target, &push, &from, &compressed]).await;
    let digest = Digest::sha256(&manifest);
    let copied = to.join("blobs/sha256").join(digest.hex());
    assert_eq!(std::fs::read(copied).unwrap(), manifest);
    let inspected = format!("docker://{}/acme/tools", server.addr());
    let option = format!("--{}={}", credentials[0], credentials[1]);
    run(&["list-tags", "--tls-verify=false", &option, &inspected]).await;
    let tagged = format!("{inspected}:v1");
    run(&["delete", "--tls-verify=false", &option, &tagged]).await;
    assert_eq!(server.names().await, ["acme/mounted", "acme/tools"]);
}

#[tokio::test]
async fn pushes_and_pulls() {
    if !skopeo() {
        eprintln!("skipped: skopeo is not installed");
        return;
    }
    let auths = [
        Auth::None,
        Auth::Basic {
            users: Users::one("joe", "secret"),
        },
        Auth::Token {
            users: Users::one("joe", "secret"),
            lifetime: std::time::Duration::from_secs(60),
            realm: None,
        },
    ];
    for auth in auths {
        let server = Server::with(|config| config.auth = auth).await;
        round_trip(&server, &["creds", "joe:secret"]).await;
    }
}
