use std::sync::Arc;

use async_trait::async_trait;
use ocm_content::{ContentStore, MemoryStores, Result, Staging, Stores};
use ocm_specs::Digest;
use ocm_specs::media_type::OCTET_STREAM;

use crate::client::Server;

#[tokio::test]
async fn tags_go_and_leave_the_manifest() {
    let server = Server::start().await;
    let manifest = server.tagged("a", "v1", "layer").await;
    server.put("a", "v2", &manifest).await.is(201);
    server.call("DELETE", "/v2/a/manifests/v1").await.is(202);
    let gone = server.call("GET", "/v2/a/manifests/v1").await;
    gone.fails(404, "MANIFEST_UNKNOWN");
    server.call("GET", "/v2/a/manifests/v2").await.is(200);
    let again = server.call("DELETE", "/v2/a/manifests/v1").await;
    again.fails(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn manifests_go_with_their_tags() {
    let server = Server::start().await;
    let manifest = server.tagged("a", "v1", "layer").await;
    server.put("a", "v2", &manifest).await.is(201);
    let path = format!("/v2/a/manifests/{}", manifest.digest);
    server.call("DELETE", &path).await.is(202);
    for path in [&path, "/v2/a/manifests/v1", "/v2/a/manifests/v2"] {
        let gone = server.call("GET", path).await;
        gone.fails(404, "MANIFEST_UNKNOWN");
    }
    server.call("DELETE", &path).await.is(404);
}

#[tokio::test]
async fn blobs_go() {
    let server = Server::start().await;
    let link = server.blob("a", OCTET_STREAM, b"content").await;
    let path = format!("/v2/a/blobs/{}", link.digest);
    server.call("DELETE", &path).await.is(202);
    server.call("HEAD", &path).await.is(404);
    server
        .call("DELETE", &path)
        .await
        .fails(404, "BLOB_UNKNOWN");
    assert_eq!(server.stores.used(), 0);
}

/// Content that can only be read, such as an archive.
#[derive(Debug)]
struct Frozen(MemoryStores);

#[async_trait]
impl Stores for Frozen {
    fn store(&self, repository: &str) -> Result<Arc<dyn ContentStore>> {
        self.0.store(repository)
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        self.0.repositories().await
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        self.0.stage().await
    }

    fn writable(&self) -> bool {
        false
    }
}

async fn check_read_only(server: Server) {
    let digest = Digest::sha256(b"");
    for (method, path) in [
        ("POST", "/v2/a/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
        ("PATCH", "/v2/a/blobs/uploads/1".to_owned()),
        ("PUT", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", "/v2/a/manifests/v1".to_owned()),
        ("DELETE", format!("/v2/a/blobs/{digest}")),
    ] {
        let answer = server.call(method, &path).await;
        answer.fails(405, "UNSUPPORTED").has("allow", "GET, HEAD");
    }
    server.call("GET", "/v2/_catalog").await.is(200);
    assert!(server.names().await.is_empty());
}

#[tokio::test]
async fn a_read_only_registry_refuses_all_writes() {
    check_read_only(Server::with(|config| config.read_only = true).await).await;
    let frozen = Arc::new(Frozen(MemoryStores::new()));
    check_read_only(Server::with(|config| config.stores = frozen).await).await;
}

#[tokio::test]
async fn methods_that_an_endpoint_has_not() {
    let server = Server::start().await;
    let blob = format!("/v2/a/blobs/{}", Digest::sha256(b""));
    for (method, path, allowed) in [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", blob.as_str(), "GET, HEAD, DELETE"),
        ("GET", "/v2/a/blobs/uploads/", "POST"),
        ("PATCH", "/v2/a/manifests/v1", "GET, HEAD, PUT, DELETE"),
        ("DELETE", "/v2/a/tags/list", "GET, HEAD"),
        ("BREW", "/v2/_catalog", "GET, HEAD"),
    ] {
        let answer = server.call(method, path).await;
        answer.fails(405, "UNSUPPORTED").has("allow", allowed);
    }
}

#[tokio::test]
async fn requests_are_counted() {
    let server = Server::start().await;
    server.tagged("a", "v1", "layer").await;
    for _ in 0..3 {
        server.call("HEAD", "/v2/a/manifests/v1").await.is(200);
    }
    for _ in 0..2 {
        let opened = server.call("POST", "/v2/a/blobs/uploads/").await;
        server.call("DELETE", &opened.location()).await.is(204);
    }
    let requests = server.running.requests();
    assert_eq!(
        requests.count("HEAD", |path| path == "/v2/a/manifests/v1"),
        3
    );
    assert_eq!(
        requests.count("PUT", |path| path.contains("/manifests/")),
        1
    );
    assert_eq!(
        requests.count("DELETE", |path| path.ends_with("/uploads/*")),
        2
    );
    assert_eq!(requests.total, 3 + 4 + 3);
}
