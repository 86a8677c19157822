use ocm_specs::media_type::{DOCKER_MANIFEST, OCI_MANIFEST, OCTET_STREAM};
use ocm_specs::{Algorithm, Digest};

use crate::client::Server;

#[tokio::test]
async fn the_base_answers() {
    let server = Server::start().await;
    for path in ["/v2", "/v2/"] {
        server
            .call("GET", path)
            .await
            .is(200)
            .has("docker-distribution-api-version", "registry/2.0");
    }
}

#[tokio::test]
async fn blobs() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    for bytes in [&b""[..], b"x", &bytes] {
        let link = server.blob("a/b", OCTET_STREAM, bytes).await;
        let path = format!("/v2/a/b/blobs/{}", link.digest);
        for method in ["HEAD", "GET"] {
            let answer = server
                .call(method, &path)
                .await
                .is(200)
                .has("content-length", &bytes.len().to_string())
                .has("content-type", "application/octet-stream")
                .has("docker-content-digest", &link.digest.to_string());
            assert!(answer.complete);
            assert_eq!(answer.header("etag"), None);
            let expected = if method == "HEAD" { b"" } else { bytes };
            assert!(answer.body == expected, "{method}");
        }
        // Another repository doesn't show it.
        let elsewhere = format!("/v2/a/blobs/{}", link.digest);
        server
            .call("GET", &elsewhere)
            .await
            .fails(404, "BLOB_UNKNOWN");
        assert!(
            server
                .call("HEAD", &elsewhere)
                .await
                .is(404)
                .body
                .is_empty()
        );
    }
}

#[tokio::test]
async fn parts_of_blobs() {
    let server = Server::start().await;
    let link = server.blob("a", OCTET_STREAM, b"0123456789").await;
    let path = format!("/v2/a/blobs/{}", link.digest);
    for (range, status, content_range, body) in [
        ("bytes=0-3", 206, Some("bytes 0-3/10"), "0123"),
        ("bytes=8-", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=-2", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=5-500", 206, Some("bytes 5-9/10"), "56789"),
        ("bytes=0-1,4-5", 200, None, "0123456789"),
        ("chars=0-1", 200, None, "0123456789"),
        ("bytes=3-1", 200, None, "0123456789"),
    ] {
        let answer = server.send("GET", &path, &[("range", range)], b"").await;
        let answer = answer.is(status);
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.body, body.as_bytes(), "{range}");
        assert!(answer.complete, "{range}");
    }
    for range in ["bytes=10-", "bytes=99999999999999999999999-", "bytes=-0"] {
        server
            .send("GET", &path, &[("range", range)], b"")
            .await
            .fails(416, "SIZE_INVALID")
            .has("content-range", "bytes */10");
    }
}

#[tokio::test]
async fn manifests_by_tag_and_digest() {
    let server = Server::start().await;
    let manifest = server.tagged("a/b", "v1", "layer").await;
    for reference in ["v1".to_owned(), manifest.digest.to_string()] {
        let path = format!("/v2/a/b/manifests/{reference}");
        for method in ["HEAD", "GET"] {
            let answer = server
                .call(method, &path)
                .await
                .is(200)
                .has("content-type", OCI_MANIFEST)
                .has("content-length", &manifest.bytes.len().to_string())
                .has("docker-content-digest", &manifest.digest.to_string());
            let expected = if method == "HEAD" {
                &b""[..]
            } else {
                &manifest.bytes
            };
            assert_eq!(answer.body, expected);
        }
    }
    let unknown = Digest::sha256(b"unknown").to_string();
    for reference in ["v2", ".INVALID_MANIFEST_NAME", &unknown] {
        let path = format!("/v2/a/b/manifests/{reference}");
        server
            .call("GET", &path)
            .await
            .fails(404, "MANIFEST_UNKNOWN");
        server.call("HEAD", &path).await.is(404);
    }
}

#[tokio::test]
async fn bytes_and_media_types_are_kept() {
    let server = Server::start().await;
    let mut document = server.image("a", "layer").await;
    document.media_type = None;
    let text = String::from_utf8(document.to_bytes()).unwrap();
    let odd = format!("\n {{\"x-more\" : [1.0, 1e2],\t{}\r\n", &text[1..]);
    let path = "/v2/a/manifests/odd";
    for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
        server
            .send("PUT", path, &[("content-type", media_type)], odd.as_bytes())
            .await
            .is(201);
        let answer = server.call("GET", path).await.is(200);
        assert_eq!(answer.body, odd.as_bytes());
        assert_eq!(answer.header("content-type"), Some(media_type));
    }
}

#[tokio::test]
async fn sha512_addresses_blobs_and_manifests() {
    let server = Server::start().await;
    let digest = Digest::of(Algorithm::Sha512, b"content");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    server.send("POST", &path, &[], b"content").await.is(201);
    let path = format!("/v2/a/blobs/{digest}");
    assert_eq!(server.call("GET", &path).await.is(200).body, b"content");

    let bytes = server.image("a", "layer").await.to_bytes();
    let digest = Digest::of(Algorithm::Sha512, &bytes).to_string();
    let path = format!("/v2/a/manifests/{digest}");
    let json = [("content-type", OCI_MANIFEST)];
    server
        .send("PUT", &path, &json, &bytes)
        .await
        .is(201)
        .has("docker-content-digest", &digest);
    assert_eq!(server.call("GET", &path).await.is(200).body, bytes);
}
