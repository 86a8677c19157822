use ocm_content::RawManifest;
use ocm_registry::RegistryLimits;
use ocm_specs::Digest;
use ocm_specs::media_type::{OCI_INDEX, OCI_MANIFEST, OCTET_STREAM};
use ocm_specs::oci::{Descriptor, Manifest};

use crate::client::{Answer, Server};

const BYTES: &[u8] = b"the bytes of a blob";

async fn open(server: &Server) -> String {
    let answer = server.call("POST", "/v2/a/blobs/uploads/").await.is(202);
    assert!(answer.header("docker-upload-uuid").is_some());
    answer.location()
}

async fn close(server: &Server, location: &str, digest: &Digest, body: &[u8]) -> Answer {
    let path = format!("{location}?digest={digest}");
    server.send("PUT", &path, &[], body).await
}

async fn has_blob(server: &Server, bytes: &[u8]) -> bool {
    let path = format!("/v2/a/blobs/{}", Digest::sha256(bytes));
    let answer = server.call("GET", &path).await;
    answer.status == 200 && answer.body == bytes
}

#[tokio::test]
async fn in_one_request() {
    let server = Server::start().await;
    let digest = Digest::sha256(BYTES);
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    for _ in 0..2 {
        server
            .send("POST", &path, &[], BYTES)
            .await
            .is(201)
            .has("location", &format!("/v2/a/blobs/{digest}"))
            .has("docker-content-digest", &digest.to_string());
    }
    assert!(has_blob(&server, BYTES).await);
    server
        .send("POST", &path, &[], b"other bytes")
        .await
        .fails(400, "DIGEST_INVALID");
    assert!(!has_blob(&server, b"other bytes").await);
}

#[tokio::test]
async fn in_two_requests() {
    let server = Server::start().await;
    let location = open(&server).await;
    let digest = Digest::sha256(BYTES);
    close(&server, &location, &digest, BYTES).await.is(201);
    assert!(has_blob(&server, BYTES).await);
    server
        .call("GET", &location)
        .await
        .fails(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn an_empty_blob_without_any_body() {
    let server = Server::start().await;
    let location = open(&server).await;
    let digest = Digest::sha256(b"");
    close(&server, &location, &digest, b"").await.is(201);
    assert!(has_blob(&server, b"").await);
}

#[tokio::test]
async fn in_a_stream_of_unknown_length() {
    let server = Server::start().await;
    let location = open(&server).await;
    let chunked = [("transfer-encoding", "chunked")];
    server
        .send(
            "PATCH",
            &location,
            &chunked,
            b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        )
        .await
        .is(202)
        .has("range", "0-5");
    let digest = Digest::sha256(b"hello!");
    close(&server, &location, &digest, b"").await.is(201);
    assert!(has_blob(&server, b"hello!").await);
}

#[tokio::test]
async fn in_chunks() {
    let server = Server::start().await;
    let location = open(&server).await;
    let (first, second) = BYTES.split_at(7);
    let digest = Digest::sha256(BYTES);
    let patch = async |range: &str, body: &[u8]| {
        server
            .send("PATCH", &location, &[("content-range", range)], body)
            .await
    };
    // Not in order.
    patch("7-18", second)
        .await
        .fails(416, "BLOB_UPLOAD_INVALID")
        .has("range", "0-0");
    patch("0-6", first)
        .await
        .is(202)
        .has("range", "0-6")
        .has("location", &location);
    // Once more, and with a hole: neither spoils what is there.
    patch("0-6", first).await.is(416);
    patch("8-19", second).await.is(416).has("range", "0-6");
    server
        .call("GET", &location)
        .await
        .is(204)
        .has("range", "0-6")
        .has("location", &location);
    let range = [("content-range", "7-18")];
    let path = format!("{location}?digest={digest}");
    server.send("PUT", &path, &range, second).await.is(201);
    assert!(has_blob(&server, BYTES).await);
}

#[tokio::test]
async fn chunks_that_lie_about_themselves() {
    let server = Server::start().await;
    for (range, body, code) in [
        ("0-9", &b"12345"[..], "BLOB_UPLOAD_INVALID"),
        ("0-1", b"12345", "BLOB_UPLOAD_INVALID"),
        ("x-y", b"12345", "BLOB_UPLOAD_INVALID"),
        ("4-0", b"12345", "BLOB_UPLOAD_INVALID"),
        (
            "0-99999999999999999999999999",
            b"12345",
            "BLOB_UPLOAD_INVALID",
        ),
        ("0-18446744073709551615", b"12345", "BLOB_UPLOAD_INVALID"),
    ] {
        let location = open(&server).await;
        let headers = [("content-range", range)];
        let answer = server.send("PATCH", &location, &headers, body).await;
        answer.fails(400, code);
        // Nothing was taken, and the session goes on.
        server
            .call("GET", &location)
            .await
            .is(204)
            .has("range", "0-0");
    }
    for range in ["0-9", "0-1"] {
        let location = open(&server).await;
        let headers = [("content-range", range), ("transfer-encoding", "chunked")];
        let body = b"5\r\n12345\r\n0\r\n\r\n";
        let answer = server.send("PATCH", &location, &headers, body).await;
        answer.fails(400, "SIZE_INVALID");
        server.call("GET", &location).await.is(404);
    }
    assert_eq!(server.stores.used(), 0);
}

#[tokio::test]
async fn what_does_not_match_its_digest_is_not_there() {
    let server = Server::start().await;
    let location = open(&server).await;
    let digest = Digest::sha256(b"something else");
    close(&server, &location, &digest, BYTES)
        .await
        .fails(400, "DIGEST_INVALID");
    assert!(!has_blob(&server, BYTES).await);
    assert!(!has_blob(&server, b"something else").await);
    let location = open(&server).await;
    server
        .send("PUT", &location, &[], BYTES)
        .await
        .fails(400, "DIGEST_INVALID");
    for bad in ["", "sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e"] {
        server
            .send("PUT", &format!("{location}?digest={bad}"), &[], BYTES)
            .await
            .fails(400, "DIGEST_INVALID");
    }
    // The session is still good.
    let digest = Digest::sha256(BYTES);
    close(&server, &location, &digest, BYTES).await.is(201);
}

#[tokio::test]
async fn a_session_can_be_ended() {
    let server = Server::start().await;
    let location = open(&server).await;
    server.send("PATCH", &location, &[], BYTES).await.is(202);
    assert_eq!(server.stores.used(), BYTES.len() as u64);
    server.call("DELETE", &location).await.is(204);
    assert_eq!(server.stores.used(), 0);
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = server.call(method, &location).await;
        answer.fails(404, "BLOB_UPLOAD_UNKNOWN");
    }
    // A session belongs to its repository.
    let elsewhere = open(&server).await.replace("/v2/a/", "/v2/b/");
    server.call("GET", &elsewhere).await.is(404);
}

#[tokio::test]
async fn mounts() {
    let server = Server::start().await;
    let link = server.blob("from/here", OCTET_STREAM, BYTES).await;
    let unknown = Digest::sha256(b"unknown");
    let post = async |query: String| {
        let path = format!("/v2/a/blobs/uploads/?{query}");
        server.call("POST", &path).await
    };
    // Without `from`, from elsewhere, and what isn't there: an upload starts instead.
    for query in [
        format!("mount={}", link.digest),
        format!("mount={}&from=nobody", link.digest),
        format!("mount={unknown}&from=from/here"),
        format!("mount={}&from=a", link.digest),
    ] {
        let answer = post(query).await.is(202);
        server.call("GET", &answer.location()).await.is(204);
    }
    assert!(!has_blob(&server, BYTES).await);
    for from in ["from/here", "from%2Fhere", "a"] {
        post(format!("mount={}&from={from}", link.digest))
            .await
            .is(201)
            .has("location", &format!("/v2/a/blobs/{}", link.digest));
        assert!(has_blob(&server, BYTES).await);
    }
    post("mount=nonsense&from=a".to_owned())
        .await
        .fails(400, "DIGEST_INVALID");
    post(format!("mount={unknown}&from=../etc"))
        .await
        .fails(400, "NAME_INVALID");
    assert_eq!(server.stores.used(), BYTES.len() as u64, "kept once");
}

#[tokio::test]
async fn manifests() {
    let server = Server::start().await;
    let manifest = RawManifest::write(&server.image("a", "layer").await);
    for reference in ["v1", "v1", &manifest.digest.to_string()] {
        server
            .put("a", reference, &manifest)
            .await
            .is(201)
            .has("location", &format!("/v2/a/manifests/{reference}"))
            .has("docker-content-digest", &manifest.digest.to_string());
    }
    let index = RawManifest::write(&Manifest::index(vec![manifest.descriptor()]));
    server.put("a", "many", &index).await.is(201);
    server
        .call("HEAD", "/v2/a/manifests/many")
        .await
        .is(200)
        .has("content-type", OCI_INDEX);
    let other = Digest::sha256(b"other").to_string();
    server
        .put("a", &other, &manifest)
        .await
        .fails(400, "DIGEST_INVALID");
    server
        .put("a", ".bad", &manifest)
        .await
        .fails(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn manifests_without_their_parts() {
    let server = Server::start().await;
    let good = server.image("a", "layer").await;
    let gone = Descriptor::of(OCTET_STREAM, b"not here");
    let layer = good.layers.clone().unwrap();
    let foreign = Descriptor {
        urls: Some(vec!["https://elsewhere.example/x".to_owned()]),
        ..gone.clone()
    };
    let config = good.config.clone().unwrap();
    for (document, status) in [
        (Manifest::image(gone.clone(), layer), 404),
        (Manifest::image(config.clone(), vec![gone.clone()]), 404),
        (Manifest::image(config, vec![foreign]), 201),
        (
            Manifest::index(vec![Descriptor::of(OCI_MANIFEST, b"{}")]),
            404,
        ),
    ] {
        let manifest = RawManifest::write(&document);
        let answer = server.put("a", "v1", &manifest).await.is(status);
        if status == 404 {
            answer.fails(404, "MANIFEST_BLOB_UNKNOWN");
        }
    }
}

#[tokio::test]
async fn what_is_no_manifest() {
    let limits = RegistryLimits {
        manifest_size: 10_000,
        ..RegistryLimits::default()
    };
    let server = Server::with(|config| config.limits = limits).await;
    let document = server.image("a", "layer").await;
    let good = document.to_bytes();
    let silent = Manifest {
        media_type: None,
        ..document.clone()
    };
    let old = Manifest {
        schema_version: 1,
        ..document
    };
    let nested = format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(9_000));
    let long = vec![b' '; 10_001];
    for (content_type, body, status, code) in [
        (OCI_MANIFEST, &b""[..], 400, "MANIFEST_INVALID"),
        (OCI_MANIFEST, b"[]", 400, "MANIFEST_INVALID"),
        (
            OCI_MANIFEST,
            b"{\"schemaVersion\":2,",
            400,
            "MANIFEST_INVALID",
        ),
        (OCI_MANIFEST, nested.as_bytes(), 400, "MANIFEST_INVALID"),
        (OCI_MANIFEST, &old.to_bytes(), 400, "MANIFEST_INVALID"),
        (OCI_INDEX, &good, 400, "MANIFEST_INVALID"),
        ("text/plain", &silent.to_bytes(), 400, "MANIFEST_INVALID"),
        ("", &silent.to_bytes(), 400, "MANIFEST_INVALID"),
        (OCI_MANIFEST, &long, 413, "SIZE_INVALID"),
    ] {
        let headers = [("content-type", content_type)];
        let answer = server
            .send("PUT", "/v2/a/manifests/v1", &headers, body)
            .await;
        answer.fails(status, code);
    }
    // The document's own word is enough, and parameters don't matter.
    for content_type in ["", &format!("{OCI_MANIFEST}; charset=utf-8")] {
        let headers = [("content-type", content_type)];
        let answer = server
            .send("PUT", "/v2/a/manifests/v1", &headers, &good)
            .await;
        answer.is(201);
    }
}
