use std::sync::Arc;

use futures::{StreamExt as _, stream};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use ocm_content::{MemoryStores, Stores as _};
use ocm_registry::{Registry, RegistryConfig, RegistryLimits};
use ocm_specs::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Server, raw};

#[tokio::test]
async fn paths() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"");
    let long = "a".repeat(300);
    let deep = "a/".repeat(5000);
    for (path, status) in [
        ("/v2/../../etc/passwd".to_owned(), 404),
        ("/v2/../../etc/tags/list".to_owned(), 400),
        ("/v2/a/../b/tags/list".to_owned(), 400),
        ("/v2/%2e%2e/%2e%2e/etc/tags/list".to_owned(), 400),
        ("/v2/a%2f..%2fb/tags/list".to_owned(), 400),
        ("/v2/a%00b/tags/list".to_owned(), 400),
        ("/v2/a//b/tags/list".to_owned(), 400),
        ("/v2/UPPER/tags/list".to_owned(), 400),
        (format!("/v2/{long}/tags/list"), 400),
        (format!("/v2/{deep}tags/list"), 400),
        ("/v2/a/blobs/sha256:..".to_owned(), 400),
        ("/v2/a/blobs/../../secret".to_owned(), 404),
        (format!("/v2/a/blobs/sha256:{}", "g".repeat(64)), 400),
        (format!("/v2/a/blobs/sha256:{}", "0".repeat(60_000)), 400),
        (format!("/v2/a/manifests/{}", "x".repeat(60_000)), 404),
        ("/v2/a/manifests/a%20b".to_owned(), 404),
        ("/v2/a/blobs/uploads/../../../x".to_owned(), 404),
        ("/v2/a/blobs/uploads/%2e%2e".to_owned(), 404),
        (format!("/v2/a/tags/list?n={}", "9".repeat(30_000)), 414),
        (format!("//v2/a/blobs/{digest}"), 404),
        ("/".to_owned(), 404),
    ] {
        let shown: String = path.chars().take(60).collect();
        let answer = server.call("GET", &path).await;
        assert_eq!(answer.status, status, "{shown}");
        assert!(answer.json()["errors"][0]["code"].is_string(), "{shown}");
        assert!(answer.body.len() < 2000, "{shown} comes back whole");
    }
    assert!(server.names().await.is_empty());
}

#[tokio::test]
async fn what_is_no_http() {
    let server = Server::start().await;
    for request in [
        &b"\0\0\0\0\r\n\r\n"[..],
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"PUT /v2/a/manifests/x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, x\r\n\r\n",
    ] {
        let answer = raw(server.addr(), request, false).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(request));
    }
    server.call("GET", "/v2/").await.is(200);
}

#[tokio::test]
async fn a_hundred_thousand_sessions() {
    let stores = MemoryStores::new();
    let registry = Registry::new(RegistryConfig::new(Arc::new(stores.clone())));
    let service = TowerToHyperService::new(registry.routes());
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..100_000 {
        let request = http::Request::post("/v2/a/blobs/uploads/")
            .body(axum::body::Body::empty())
            .unwrap();
        let answer = service.call(request).await.unwrap();
        match answer.status().as_u16() {
            202 => opened += 1,
            429 => {
                assert!(answer.headers().contains_key("retry-after"));
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((opened, refused), (1000, 99_000));
    assert_eq!(stores.used(), 0);
}

/// Five bytes, and then nothing more, ever.
fn stalled() -> axum::body::Body {
    let start = stream::iter([Ok::<_, std::io::Error>("12345")]);
    axum::body::Body::from_stream(start.chain(stream::pending()))
}

// The clock runs by itself while everything waits.
#[tokio::test(start_paused = true)]
async fn a_stalled_body_is_given_up() {
    let stores = MemoryStores::new();
    let registry = Registry::new(RegistryConfig::new(Arc::new(stores.clone())));
    let service = TowerToHyperService::new(registry.routes());
    let call = async |method: &str, path: &str, body: axum::body::Body| {
        let request = http::Request::builder().method(method).uri(path);
        service.call(request.body(body).unwrap()).await.unwrap()
    };
    let opened = call("POST", "/v2/a/blobs/uploads/", axum::body::Body::empty()).await;
    let location = opened.headers()["location"].to_str().unwrap().to_owned();
    let whole = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256(b""));
    for (method, path) in [
        ("PATCH", &location),
        ("PUT", &"/v2/a/manifests/v1".to_owned()),
        ("POST", &whole),
    ] {
        let answer = call(method, path, stalled()).await;
        assert_eq!(answer.status().as_u16(), 408, "{method}");
    }
    // What the session had received it keeps; what had none is gone.
    assert_eq!(stores.used(), 5);
    let status = call("GET", &location, axum::body::Body::empty()).await;
    assert_eq!(status.headers()["range"], "0-4");
    // In the end nobody comes back for it.
    tokio::time::advance(RegistryLimits::default().session_idle).await;
    let status = call("GET", &location, axum::body::Body::empty()).await;
    assert_eq!((status.status().as_u16(), stores.used()), (404, 0));
}

/// Waits for what other tasks do; the test's runner is the deadline.
async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_can_go_on() {
    let server = Server::start().await;
    let location = server.call("POST", "/v2/a/blobs/uploads/").await.location();
    let whole = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256(b""));
    for (method, path, kept) in [("PATCH", &location, 5), ("POST", &whole, 5)] {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n12345");
        let mut socket = TcpStream::connect(server.addr()).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let before = if method == "PATCH" { 0 } else { 5 };
        until(async || server.stores.used() == before + 5).await;
        drop(socket);
        until(async || server.stores.used() == kept).await;
    }
    until(async || server.call("GET", &location).await.status == 204).await;
    let range = [("content-range", "5-8")];
    let path = format!("{location}?digest={}", Digest::sha256(b"123456789"));
    server.send("PUT", &path, &range, b"6789").await.is(201);
}

#[tokio::test]
async fn one_request_at_a_time_works_on_a_session() {
    let server = Server::start().await;
    let location = server.call("POST", "/v2/a/blobs/uploads/").await.location();
    let head = format!("PATCH {location} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n12345");
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    until(async || server.stores.used() == 5).await;
    server
        .send("PATCH", &location, &[], b"x")
        .await
        .fails(429, "TOOMANYREQUESTS");
    // Ending it doesn't wait; the bytes go when the other request lets go of them.
    server.call("DELETE", &location).await.is(204);
    drop(socket);
    until(async || server.stores.used() == 0).await;
    server.call("GET", &location).await.is(404);
}

#[tokio::test]
async fn a_graceful_stop_waits_for_what_is_under_way() {
    let server = Server::start().await;
    let addr = server.addr();
    let digest = Digest::sha256(b"123456789");
    let head = format!(
        "POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n12345"
    );
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let _idle = TcpStream::connect(addr).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    until(async || server.stores.used() == 5).await;
    let Server { running, stores } = server;
    let finish = async {
        until(async || TcpStream::connect(addr).await.is_err()).await;
        socket.write_all(b"6789").await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    };
    let ((), ()) = tokio::join!(running.stop(), finish);
    let store = stores.store("a").unwrap();
    assert_eq!(store.blob_size(&digest).await.unwrap(), 9);
}

#[tokio::test]
async fn dropping_the_server_cuts_everything() {
    let server = Server::start().await;
    let addr = server.addr();
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket
        .write_all(b"GET /v2/ HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    socket.read_exact(&mut byte).await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    // Ends, with or without an error.
    let _ = socket.read_to_end(&mut rest).await;
    until(async || TcpStream::connect(addr).await.is_err()).await;
}

#[tokio::test]
async fn a_full_store_says_so() {
    let stores = MemoryStores::with_limit("small", 1000);
    let config = RegistryConfig::new(Arc::new(stores.clone()));
    let running = Registry::bind(config, ([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let server = Server { running, stores };
    let bytes = [0; 2000];
    let path = format!("/v2/a/blobs/uploads/?digest={}", Digest::sha256(&bytes));
    let answer = server.send("POST", &path, &[], &bytes).await;
    answer.fails(413, "SIZE_INVALID");
    assert_eq!(server.stores.used(), 0);
}
