//! Every fault, as a client meets it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocm_content::{Blob, Stores as _};
use ocm_registry::{Auth, RegistryConfig, Users};
use ocm_specs::Digest;
use ocm_testdata::faults::{Fault, FaultyRegistry, Kind, Rule};
use ocm_testdata::fixtures::{chart, noise};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What came until the connection closed: status line, headers in lower case, body.
struct Answer {
    status: Option<u16>,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line == header)
    }
}

async fn open(registry: &FaultyRegistry, request: &str, body: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(registry.addr()).await.unwrap();
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nrange: bytes=1-\r\ncontent-length: {length}\r\n\r\n"
    );
    let bytes = [head.as_bytes(), body].concat();
    // The other side may close before it has read everything.
    let _ = socket.write_all(&bytes).await;
    socket
}

async fn send(registry: &FaultyRegistry, request: &str, body: &[u8]) -> Answer {
    let mut socket = open(registry, request, body).await;
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    // Ends at the end, or at a reset.
    while let Ok(count @ 1..) = socket.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..count]);
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        assert!(bytes.is_empty());
        let (head, body) = (String::new(), Vec::new());
        return Answer {
            status: None,
            head,
            body,
        };
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Answer {
        status: head.get(9..12).and_then(|status| status.parse().ok()),
        head: head.to_ascii_lowercase(),
        body: bytes[end + 4..].to_vec(),
    }
}

/// A registry with one blob of 100,000 bytes, and the request for it (from the second byte on).
async fn with_blob() -> (FaultyRegistry, Vec<u8>, String) {
    let registry = FaultyRegistry::start([]).await.unwrap();
    let bytes = noise(100_000, 1);
    let store = registry.stores.store("a").unwrap();
    let blob = Blob::from_bytes("text/plain", bytes.clone());
    let pushed = store.push(&blob, &[]).await.unwrap();
    let request = format!("GET /v2/a/blobs/{}", pushed.descriptor.digest);
    (registry, bytes.to_vec(), request)
}

#[tokio::test]
async fn answers() {
    let (registry, bytes, request) = with_blob().await;
    let mut flipped = bytes[1..].to_vec();
    flipped[70_000] ^= 1;
    let whole = bytes[1..].to_vec();
    let digest = format!("sha256:{}", "0".repeat(64));
    let header = |name: &str, value: &str| Fault::Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let named = |name: &str| name.to_owned();
    let redirect = Fault::Redirect {
        to: "http://elsewhere.example:5000/".to_owned(),
    };
    let path = request.strip_prefix("GET ").unwrap();
    let target = format!("location: http://elsewhere.example:5000{path}");
    let busy = Fault::status(429).header("Retry-After", "7").body("later");
    for (fault, status, headers, body) in [
        (busy, Some(429), vec!["retry-after: 7"], b"later".to_vec()),
        (Fault::status(503), Some(503), vec![], vec![]),
        (redirect, Some(307), vec![target.as_str()], vec![]),
        (Fault::Reset, None, vec![], vec![]),
        (Fault::LoseResponse, None, vec![], vec![]),
        (
            Fault::CutResponse { after: 70_000 },
            Some(206),
            vec!["content-length: 99999"],
            whole[..70_000].to_vec(),
        ),
        (Fault::CutResponse { after: 0 }, None, vec![], vec![]),
        (
            Fault::FlipBit { offset: 70_000 },
            Some(206),
            vec![],
            flipped,
        ),
        (
            header("docker-content-digest", &digest),
            Some(206),
            vec![&format!("docker-content-digest: {digest}")],
            whole.clone(),
        ),
        (
            header("content-type", "text/html"),
            Some(206),
            vec!["content-type: text/html"],
            whole.clone(),
        ),
        (
            Fault::ShortResponse { after: 70_000 },
            Some(206),
            vec!["content-length: 70000"],
            whole[..70_000].to_vec(),
        ),
        (
            Fault::OtherBody {
                body: Bytes::from_static(b"something else"),
            },
            Some(206),
            vec!["content-length: 14"],
            b"something else".to_vec(),
        ),
        (
            Fault::Late {
                by: Duration::from_millis(1),
            },
            Some(206),
            vec!["content-length: 99999"],
            whole.clone(),
        ),
        (
            header("content-length", "5"),
            Some(206),
            vec!["content-length: 5"],
            whole[..5].to_vec(),
        ),
        (
            header("content-length", "100001"),
            Some(206),
            vec!["content-length: 100001"],
            [&whole[..], &[0, 0]].concat(),
        ),
        (
            Fault::IgnoreHeader {
                name: named("range"),
            },
            Some(200),
            vec!["content-length: 100000"],
            bytes.clone(),
        ),
    ] {
        let name = format!("{fault:?}");
        registry.set([Rule::on(Kind::Blob).nth(2).then(fault)]);
        registry.log.clear();
        let answer = send(&registry, &request, b"").await;
        assert_eq!((answer.status, answer.body.len()), (Some(206), 99_999));
        let answer = send(&registry, &request, b"").await;
        assert_eq!(answer.status, status, "{name}");
        for header in headers {
            assert!(answer.has(header), "{name}: {}", answer.head);
        }
        assert!(answer.body == body, "{name}: {} bytes", answer.body.len());
        let log = registry.log.entries();
        let faulty: Vec<bool> = log.iter().map(|entry| entry.faulty).collect();
        assert_eq!(faulty, [false, true], "{name}");
        assert_eq!(log[0].status, Some(206));
        assert_eq!(log[1].header("range"), Some("bytes=1-"));
    }
    let without = Fault::WithoutHeader {
        name: named("docker-content-digest"),
    };
    registry.set([Rule::on(Kind::Any).then(without)]);
    let answer = send(&registry, &request, b"").await;
    assert!(!answer.head.contains("docker-content-digest"));
}

#[tokio::test]
async fn what_stops_without_an_end() {
    let (registry, bytes, request) = with_blob().await;
    registry.set([
        Rule::on(Kind::Blob)
            .nth(1)
            .then(Fault::Stall { after: 50_000 }),
        Rule::on(Kind::Blob).nth(2).then(Fault::Silence),
        Rule::on(Kind::Blob).nth(3).then(Fault::WithholdResponse),
        Rule::on(Kind::UploadStart).then(Fault::StallRequest { after: 10 }),
    ]);
    let mut socket = open(&registry, &request, b"").await;
    let mut received = Vec::new();
    let expected = &bytes[1..50_001];
    while !received.ends_with(expected) {
        assert_ne!(socket.read_buf(&mut received).await.unwrap(), 0);
    }
    let mut silent = open(&registry, &request, b"").await;
    let mut done = open(&registry, &request, b"").await;
    let whole = format!("POST /v2/a/blobs/uploads/?digest={}", Digest::sha256(b"0"));
    let mut stalled = open(&registry, &whole, b"twenty bytes or some").await;
    while registry.log.entries().len() < 4 {
        tokio::task::yield_now().await;
    }
    // None has anything to read, and none is closed.
    for socket in [&mut socket, &mut silent, &mut done, &mut stalled] {
        let error = socket.try_read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    assert_eq!(registry.log.entries()[1].status, None);
}

#[tokio::test]
async fn uploads() {
    let registry = FaultyRegistry::start([]).await.unwrap();
    let opened = send(&registry, "POST /v2/a/blobs/uploads/", b"").await;
    let location = opened
        .head
        .lines()
        .find_map(|line| line.strip_prefix("location: "))
        .unwrap()
        .to_owned();
    registry.set([Rule::on(Kind::Upload)
        .method("PATCH")
        .then(Fault::CutRequest { after: 600 })]);
    let bytes = noise(1000, 2);
    let answer = send(&registry, &format!("PATCH {location}"), &bytes).await;
    assert_eq!(answer.status, None);
    // What passed is there.
    let status = send(&registry, &format!("GET {location}"), b"").await;
    assert!(status.has("range: 0-599"), "{}", status.head);

    // What arrives is wrong, or seems to be less.
    let digest = Digest::sha256(&bytes);
    let whole = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    for fault in [
        Fault::FlipRequestBit { offset: 999 },
        Fault::ShortRequest { after: 999 },
    ] {
        registry.set([Rule::on(Kind::UploadStart).then(fault)]);
        let answer = send(&registry, &whole, &bytes).await;
        let body = String::from_utf8(answer.body).unwrap();
        assert!(body.contains("DIGEST_INVALID"), "{body}");
    }

    // It was done, but the client doesn't learn of it.
    registry.set([Rule::on(Kind::UploadStart).nth(1).then(Fault::LoseResponse)]);
    assert_eq!(send(&registry, &whole, &bytes).await.status, None);
    let store = registry.stores.store("a").unwrap();
    assert_eq!(store.blob_size(&digest).await.unwrap(), 1000);

    // A registry without mounts and single requests.
    registry.set([Rule::on(Kind::UploadStart).then(Fault::IgnoreQuery)]);
    assert_eq!(send(&registry, &whole, &bytes).await.status, Some(202));
}

#[tokio::test]
async fn other_registries_break_as_well() {
    let config = RegistryConfig {
        auth: Auth::Basic {
            users: Users::one("joe", "secret"),
        },
        ..RegistryConfig::new(Arc::new(ocm_content::MemoryStores::new()))
    };
    let rule = Rule::on(Kind::Any).path(r"\?n=1$").then(Fault::status(500));
    let registry = FaultyRegistry::over(config, [rule]).await.unwrap();
    let status = async |path: &str| send(&registry, &format!("GET {path}"), b"").await.status;
    assert_eq!(status("/v2/_catalog").await, Some(401));
    assert_eq!(status("/v2/_catalog?n=1").await, Some(500));
    let requests = registry.running.requests();
    assert_eq!(requests.total, 1, "the other one didn't get through");
    assert_eq!(registry.log.count("GET", Kind::Catalog), 2);
}

#[tokio::test]
async fn fixtures_travel() {
    let registry = FaultyRegistry::start([]).await.unwrap();
    let store = registry.stores.store("charts/webapp").unwrap();
    let chart = chart();
    chart.push(&store, Some("1.4.0")).await.unwrap();
    let answer = send(&registry, "GET /v2/charts/webapp/manifests/1.4.0", b"").await;
    assert_eq!(answer.body, chart.root.bytes);
}
