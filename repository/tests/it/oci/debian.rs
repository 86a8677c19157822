//! Against a real registry: Debian's `docker-registry`, started here on loopback.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ocm_content::conformance::{Capabilities, check_store};
use ocm_content::{Blob, ContentStore, ErrorKind, Meter, Outcome, RawManifest};
use ocm_repository::credentials::{Anonymous, Credential, Secret};
use ocm_repository::oci::ClientConfig;
use ocm_specs::oci::{Descriptor, Manifest};

use super::{Knows, client, sample};

/// A registry that ends with the test.
pub(crate) struct Registry {
    process: Child,
    pub(crate) host: String,
    data: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the program there? Says so if it is not, and fails where it must be.
#[expect(
    clippy::print_stderr,
    reason = "who runs the tests should know what was left out"
)]
fn installed(program: &str) -> bool {
    let found = Path::new("/usr/bin").join(program).exists();
    if !found {
        let required = std::env::var("OCM_REQUIRE_PEERS").is_ok_and(|value| value == "1");
        assert!(!required, "{program} is required and not installed");
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Starts one, if there is one.
pub(crate) async fn registry(auth: &str) -> Option<Registry> {
    if !installed("docker-registry") {
        return None;
    }
    // Another process may take the port between our look and its start: then another port is tried.
    for _ in 0..5 {
        if let Some(registry) = start(auth).await {
            return Some(registry);
        }
    }
    panic!("docker-registry does not start");
}

async fn start(auth: &str) -> Option<Registry> {
    let data = tempfile::tempdir().expect("a temporary folder");
    if auth.contains("tls:") {
        certificates(data.path());
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let folder = data.path().display();
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n\
         http:\n  addr: '127.0.0.1:{port}'\n{}",
        auth.replace("FOLDER", &folder.to_string())
    );
    let path = data.path().join("config.yml");
    std::fs::write(&path, config).expect("write the configuration");
    // The password is `secret`.
    let user = "jo:$2b$05$AFFqKxCQe3/F2gxfbU8f6.JM.kZ8s0iLn7hoEAHtToWTXwwwhxns6\n";
    std::fs::write(data.path().join("htpasswd"), user).expect("write the passwords");
    let mut process = Command::new("/usr/bin/docker-registry")
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start docker-registry");
    let host = format!("127.0.0.1:{port}");
    for _ in 0..500 {
        if process.try_wait().expect("ask for the process").is_some() {
            return None;
        }
        if tokio::net::TcpStream::connect(&host).await.is_ok() {
            return Some(Registry {
                process,
                host,
                data,
            });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = process.kill();
    let _ = process.wait();
    None
}

/// An authority `ca.pem`, and a certificate of 127.0.0.1 that it signed.
fn certificates(folder: &Path) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out request.pem -subj /CN=registry
        printf 'subjectAltName=IP:127.0.0.1\n' > names
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile names
        cat cert.pem key.pem > both.pem";
    let made = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(folder)
        .output();
    let made = made.expect("run openssl");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked() {
    if !installed("openssl") {
        return;
    }
    let tls =
        "  tls: {certificate: FOLDER/cert.pem, key: FOLDER/key.pem, clientcas: [FOLDER/ca.pem]}\n";
    let Some(registry) = registry(tls).await else {
        return;
    };
    let file = |name: &str| std::fs::read(registry.data.path().join(name)).expect("a file");
    let host = format!("https://{}", registry.host);
    let shown = Secret::new(String::from_utf8(file("both.pem")).expect("PEM"));
    let certificate = BTreeMap::from([(registry.host.clone(), shown)]);
    let trusting = ClientConfig {
        ca_certificates: vec![file("ca.pem")],
        ..ClientConfig::default()
    };
    let error = client(ClientConfig::default(), Anonymous)
        .ping(&host)
        .await
        .expect_err("unknown authority");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("is not trusted")),
        "{error}"
    );
    // In TLS 1.3 the refusal comes after the handshake and races with the request: the words depend on who is first.
    client(trusting.clone(), Anonymous)
        .ping(&host)
        .await
        .expect_err("no client certificate");
    let full = ClientConfig {
        client_certificates: certificate.clone(),
        ..trusting
    };
    client(full, Anonymous)
        .ping(&host)
        .await
        .expect("both trust each other");
    let careless = ClientConfig {
        insecure_skip_verify: [registry.host.clone()].into(),
        client_certificates: certificate,
        ..ClientConfig::default()
    };
    client(careless, Anonymous)
        .ping(&host)
        .await
        .expect("not checked");
}

/// It has no tags to remove alone, and takes SHA-512 for blobs by name only.
const ABLE: Capabilities = Capabilities {
    delete: true,
    untag: false,
    sha512: false,
    checks_parts: true,
    mount: true,
    isolated: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_a_store() {
    let Some(registry) = registry("").await else {
        return;
    };
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
        let client = client(config, Anonymous);
        let next = AtomicUsize::new(0);
        let make = async || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let repository = format!("{name}/store{number}");
            client.store(&registry.host, &repository).expect("a store")
        };
        check_store(make, ABLE).await;
        let names = client.catalog(&registry.host).await.expect("the catalog");
        assert!(
            names.iter().any(|found| found.starts_with(name)),
            "{names:?}"
        );
    }
}

/// Requests of one push or copy, as the figures define them.
#[tokio::test(flavor = "multi_thread")]
async fn few_requests_do() {
    let Some(registry) = registry("").await else {
        return;
    };
    let client = client(ClientConfig::default(), Anonymous);
    let store = client.store(&registry.host, "acme/x").expect("a store");
    let other = client.store(&registry.host, "acme/y").expect("a store");
    let bytes = sample(100_000);
    let blob = Blob::from_bytes("application/x-test", bytes.clone());
    let here = ["acme/x".to_owned()];
    let nowhere = ["acme/nowhere".to_owned()];
    type Push<'a> = (
        &'a Arc<dyn ContentStore>,
        &'a Blob,
        &'a [String],
        Outcome,
        u64,
    );
    let pushes: [Push<'_>; 5] = [
        (&store, &blob, &[], Outcome::Sent, 2),
        (&store, &blob, &[], Outcome::Present, 1),
        (&other, &blob, &here, Outcome::Mounted, 1),
        (&other, &blob, &nowhere, Outcome::Present, 3),
        (
            &other,
            &Blob::from_bytes("application/x-test", ""),
            &nowhere,
            Outcome::Sent,
            3,
        ),
    ];
    for (store, blob, from, outcome, requests) in pushes {
        let meter = Meter::new();
        let pushed = meter.clone().scope(store.push(blob, from)).await;
        assert_eq!(pushed.expect("push").outcome, outcome);
        let metered = meter.snapshot();
        assert_eq!(metered.requests, requests, "{outcome:?} {metered:?}");
        let sent = if outcome == Outcome::Sent {
            blob.size
        } else {
            Some(0)
        };
        assert_eq!(Some(metered.bytes_sent), sent, "{outcome:?}");
    }
    // From one repository to another, streamed: a look, a GET, a PUT.
    let third = client.store(&registry.host, "acme/z").expect("a store");
    let link = blob.descriptor().expect("known content");
    let meter = Meter::new();
    let streamed = store.fetch(&link);
    meter
        .clone()
        .scope(third.push(&streamed, &[]))
        .await
        .expect("stream");
    let metered = meter.snapshot();
    assert_eq!(
        (metered.requests, metered.bytes_read, metered.bytes_sent),
        (3, 100_000, 100_000)
    );
    assert_eq!(metered.reads.values().sum::<u64>(), 1);
    let found = third.fetch(&link).read(1 << 20).await.expect("read");
    assert_eq!(found, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_work_without_the_api() {
    let Some(registry) = registry("").await else {
        return;
    };
    let client = client(ClientConfig::default(), Anonymous);
    let store = client.store(&registry.host, "acme/x").expect("a store");
    let subject = Descriptor::of("application/vnd.oci.image.manifest.v1+json", b"absent yet");
    let empty = Blob::from_bytes("application/vnd.oci.empty.v1+json", "{}");
    let config = store.push(&empty, &[]).await.expect("push").descriptor;
    let mut expected = Vec::new();
    for number in 0..3 {
        let mut manifest = Manifest::image(config.clone(), Vec::new());
        manifest.subject = Some(subject.clone());
        manifest.artifact_type = Some(format!("application/x-{number}"));
        let manifest = RawManifest::write(&manifest);
        store.put_manifest(&manifest, None).await.expect("put");
        store
            .put_manifest(&manifest, None)
            .await
            .expect("put again");
        expected.push(manifest.digest);
    }
    let found = store.referrers(&subject.digest).await.expect("referrers");
    let digests: Vec<_> = found.iter().map(|link| link.digest.clone()).collect();
    assert_eq!(digests, expected);
    let typed = client.oci(&registry.host, "acme/x").expect("a store");
    let typed = typed
        .referrers_of_type(&subject.digest, Some("application/x-1"))
        .await;
    assert_eq!(typed.expect("referrers"), found[1..2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_shown_when_asked_for() {
    let auth = "auth: {htpasswd: {realm: test, path: FOLDER/htpasswd}}\n";
    let Some(registry) = registry(auth).await else {
        return;
    };
    let nobody = client(ClientConfig::default(), Anonymous);
    let error = nobody.ping(&registry.host).await.expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("no credentials are configured")),
        "{error}"
    );
    let wrong = client(
        ClientConfig::default(),
        Knows(Credential::basic("jo", "wrong")),
    );
    let error = wrong
        .ping(&registry.host)
        .await
        .expect_err("a wrong password");
    assert_eq!(error.kind(), ErrorKind::Denied);
    let right = client(
        ClientConfig::default(),
        Knows(Credential::basic("jo", "secret")),
    );
    right
        .ping(&registry.host)
        .await
        .expect("the right password");
    let store = right.store(&registry.host, "acme/x").expect("a store");
    let blob = Blob::from_bytes("application/x-test", "hello");
    store.push(&blob, &[]).await.expect("push");
}
