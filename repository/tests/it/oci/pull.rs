//! Reading from registries that cut, stall, lie and lead astray.

use std::sync::Arc;
use std::time::Duration;

use ocm_content::{Blob, Meter};
use ocm_repository::credentials::{Anonymous, Credential};
use ocm_repository::oci::{ClientConfig, RetryConfig, Timeouts};
use ocm_specs::Digest;
use ocm_specs::media_type::{DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use ocm_specs::oci::{Descriptor, Manifest};

use super::server::{Reply, Request, Server};
use super::{Knows, client, config, outcome, sample, store};

const TYPE: &str = "application/x-test";

fn range(request: &Request) -> usize {
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes="));
    let start = range.and_then(|range| range.strip_suffix('-'));
    start.map_or(0, |start| start.parse().expect("a number"))
}

/// Serves `bytes` from the asked offset on, as a 206 where one was asked for.
fn partial(request: &Request, bytes: &[u8]) -> Reply {
    match range(request) {
        0 => Reply::new(200).body(bytes),
        start => Reply::new(206)
            .header(
                "content-range",
                format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .body(&bytes[start..]),
    }
}

/// At most `count` bytes of a reply that announces all of them.
fn short(request: &Request, bytes: &[u8], count: usize) -> Reply {
    let start = range(request);
    let end = bytes.len().min(start + count);
    partial(request, bytes)
        .body(&bytes[start..end])
        .length(bytes.len() - start)
}

type Answer = fn(Request, usize, &[u8]) -> Reply;

/// Reads a blob of 100 bytes from a server that answers so; tells how it went and what was asked for.
async fn read(answer: Answer, config: ClientConfig) -> (String, Vec<usize>) {
    let bytes: Arc<[u8]> = sample(100).into();
    let served = bytes.clone();
    let server = Server::start(move |request, before| {
        let bytes = served.clone();
        async move { answer(request, before, &bytes) }
    })
    .await;
    let link = Descriptor::of(TYPE, &bytes);
    let found = store(&server, config).fetch(&link).read(1000).await;
    if let Ok(found) = &found {
        assert_eq!(found[..], bytes[..]);
    }
    (
        outcome(found),
        server.requests().iter().map(range).collect(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_gone_on_with() {
    let cases: [(&str, Answer, &str, &[usize]); 13] = [
        (
            "well",
            |request, _, bytes| partial(&request, bytes),
            "ok",
            &[0],
        ),
        (
            "cut once",
            |request, n, bytes| {
                if n == 0 {
                    short(&request, bytes, 40).cut()
                } else {
                    partial(&request, bytes)
                }
            },
            "ok",
            &[0, 40],
        ),
        (
            "cut twice",
            |request, n, bytes| {
                if n < 2 {
                    short(&request, bytes, 40).cut()
                } else {
                    partial(&request, bytes)
                }
            },
            "ok",
            &[0, 40, 80],
        ),
        (
            "cut, then unavailable",
            |request, n, bytes| match n {
                0 => short(&request, bytes, 40).cut(),
                1 => Reply::new(503),
                _ => partial(&request, bytes),
            },
            "ok",
            &[0, 40, 40],
        ),
        (
            "no ranges",
            |request, n, bytes| {
                if n == 0 {
                    short(&request, bytes, 40).cut()
                } else {
                    Reply::new(200).body(bytes)
                }
            },
            "ok",
            &[0, 40],
        ),
        (
            "cut before the first byte, always",
            |request, _, bytes| short(&request, bytes, 0).cut(),
            "at byte 0 of 100",
            &[0, 0, 0],
        ),
        (
            "one byte at a time",
            |request, _, bytes| short(&request, bytes, 1).cut(),
            "(3 attempts): at byte 3 of 100",
            &[0, 1, 2],
        ),
        (
            "another range",
            |request, n, bytes| match n {
                0 => short(&request, bytes, 40).cut(),
                _ => Reply::new(206)
                    .header("content-range", "bytes 41-99/100")
                    .body(&bytes[41..]),
            },
            "another range than the one from byte 40 (mismatch)",
            &[0, 40],
        ),
        (
            "another length",
            |request, n, bytes| match n {
                0 => short(&request, bytes, 40).cut(),
                _ => Reply::new(206)
                    .header("content-range", "bytes 40-200/201")
                    .body(&bytes[40..]),
            },
            "the registry has 201 bytes, expected 100 (mismatch)",
            &[0, 40],
        ),
        (
            "a partial answer nobody asked for",
            |_, _, bytes| {
                Reply::new(206)
                    .header("content-range", "bytes 0-99/100")
                    .body(bytes)
            },
            "the registry answers 206 Partial Content (invalid)",
            &[0],
        ),
        (
            "another length at once",
            |_, _, bytes| Reply::new(200).body(&bytes[1..]),
            "the registry has 99 bytes, expected 100 (mismatch)",
            &[0],
        ),
        (
            "other bytes",
            |_, _, bytes| {
                Reply::new(200).body(bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>())
            },
            "content has digest",
            &[0],
        ),
        (
            "other bytes behind a break",
            |request, n, bytes| match n {
                0 => short(&request, bytes, 40).cut(),
                _ => partial(
                    &request,
                    &bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>(),
                ),
            },
            "content has digest",
            &[0, 40],
        ),
    ];
    for (name, answer, expected, ranges) in cases {
        let (found, asked) = read(answer, config()).await;
        assert!(found.contains(expected), "{name}: {found}");
        assert_eq!(asked, ranges, "{name}: {found}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_gone_on_with() {
    let impatient = || ClientConfig {
        timeouts: Timeouts {
            stall: Duration::from_secs(30),
            ..config().timeouts
        },
        ..config()
    };
    let once: Answer = |request, n, bytes| match n {
        0 => short(&request, bytes, 40).stall(),
        _ => partial(&request, bytes),
    };
    let (found, asked) = read(once, impatient()).await;
    assert_eq!((found.as_str(), asked), ("ok", vec![0, 40]));
    let always: Answer = |request, _, bytes| short(&request, bytes, 0).stall();
    let (found, asked) = read(always, impatient()).await;
    assert!(
        found.contains("(3 attempts): at byte 0 of 100: no byte came for 30 seconds (unavailable)"),
        "{found}"
    );
    assert_eq!(asked.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_where_that_may_help() {
    let budget = |budget_per_host| ClientConfig {
        retry: RetryConfig {
            budget_per_host,
            ..config().retry
        },
        ..config()
    };
    let cases: [(&str, Answer, u32, &str, usize, u64); 8] = [
        (
            "429 with seconds",
            |request, n, bytes| match n {
                0 => Reply::new(429).header("retry-after", "7"),
                _ => partial(&request, bytes),
            },
            50,
            "ok",
            2,
            7,
        ),
        (
            "503 with a date",
            |request, n, bytes| match n {
                0 => Reply::new(503)
                    .header("date", "Sun, 06 Nov 1994 08:49:37 GMT")
                    .header("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT"),
                _ => partial(&request, bytes),
            },
            50,
            "ok",
            2,
            3,
        ),
        (
            "an hour is too long",
            |_, _, _| Reply::new(429).header("retry-after", "3600"),
            50,
            "429",
            1,
            0,
        ),
        (
            "always 500",
            |_, _, _| Reply::new(500),
            50,
            "(3 attempts): at byte 0 of 100: the registry answers 500",
            3,
            0,
        ),
        (
            "no budget",
            |_, _, _| Reply::new(500),
            1,
            "no more retries for 127.0.0.1",
            2,
            0,
        ),
        (
            "404",
            |_, _, _| Reply::new(404),
            50,
            "the registry answers 404 Not Found (not-found)",
            1,
            0,
        ),
        (
            "403",
            |_, _, _| {
                Reply::new(403).body(r#"{"errors":[{"code":"DENIED","message":"no\u0007pe"}]}"#)
            },
            50,
            "DENIED: no pe (denied)",
            1,
            0,
        ),
        (
            "cut before the answer",
            |request, n, bytes| match n {
                0 => Reply::none(),
                _ => partial(&request, bytes),
            },
            50,
            "ok",
            2,
            0,
        ),
    ];
    for (name, answer, limit, expected, requests, seconds) in cases {
        let start = tokio::time::Instant::now();
        let (found, asked) = read(answer, budget(limit)).await;
        assert!(found.contains(expected), "{name}: {found}");
        assert!(
            found == "ok" || found.contains("read blob sha256:"),
            "{name}: {found}"
        );
        assert_eq!(asked.len(), requests, "{name}: {found}");
        assert_eq!(start.elapsed().as_secs(), seconds, "{name}: {found}");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_without_credentials() {
    let bytes = sample(100);
    let link = Descriptor::of(TYPE, &bytes);
    let storage = Server::start(move |_, _| {
        let bytes = bytes.clone();
        async move { Reply::new(200).body(bytes) }
    })
    .await;
    let elsewhere = format!("http://{}/store?signature=1", storage.host);
    let registry = Server::start(move |request, _| {
        let reply = match request.header("authorization") {
            None => Reply::new(401).header("www-authenticate", "Basic realm=x"),
            Some(_) if request.target.contains("/here") => {
                Reply::new(307).header("location", elsewhere.clone())
            }
            Some(_) => Reply::new(302).header("location", "/here"),
        };
        async move { reply }
    })
    .await;
    let client = client(config(), Knows(Credential::basic("jo", "secret")));
    let store = client.store(&registry.host, "acme/x").expect("a store");
    let meter = Meter::new();
    let found = meter.clone().scope(store.fetch(&link).read(1000)).await;
    assert_eq!(outcome(found), "ok");
    assert_eq!(meter.snapshot().requests, 4);
    let [request] = &storage.requests()[..] else {
        panic!("{:?}", storage.lines());
    };
    assert_eq!(request.line(), "GET /store?signature=1");
    assert_eq!(request.header("authorization"), None);
    assert_eq!(request.header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn redirects_end_somewhere() {
    let link = Descriptor::of(TYPE, b"x");
    for (location, expected, requests) in [
        ("/again", "redirects more than 5 times (invalid)", 6),
        (
            "ftp://127.0.0.1/x",
            "redirects to what is no web address",
            1,
        ),
        (
            "http://jo:pw@127.0.0.1/x",
            "redirects to what is no web address",
            1,
        ),
        ("http://[", "redirects to what is no URL", 1),
    ] {
        let server =
            Server::start(move |_, _| async move { Reply::new(307).header("location", location) })
                .await;
        let found = outcome(store(&server, config()).fetch(&link).read(10).await);
        assert!(found.contains(expected), "{location}: {found}");
        assert_eq!(server.lines().len(), requests, "{location}");
    }
}

#[tokio::test]
async fn a_manifest_is_what_was_asked_for() {
    let document = Manifest::image(Descriptor::of(TYPE, b"c"), Vec::new());
    let bytes = document.to_bytes();
    let digest = Digest::sha256(&bytes).to_string();
    let other = Digest::sha256(b"other").to_string();
    let silent = Manifest {
        media_type: None,
        ..document.clone()
    }
    .to_bytes();
    let index = Manifest {
        media_type: None,
        ..Manifest::index(Vec::new())
    }
    .to_bytes();
    let old = Manifest {
        schema_version: 1,
        ..document
    }
    .to_bytes();
    let reply = |body: &[u8]| Reply::new(200).body(body);
    let typed = |body: &[u8], media_type: &str| reply(body).header("content-type", media_type);
    for (name, reference, reply, expected) in [
        ("right", "1.0", typed(&bytes, OCI_MANIFEST), OCI_MANIFEST),
        (
            "right, by digest",
            &digest,
            typed(&bytes, OCI_MANIFEST),
            OCI_MANIFEST,
        ),
        (
            "with a charset",
            "1.0",
            typed(
                &bytes,
                "application/vnd.oci.image.manifest.v1+json; charset=utf-8",
            ),
            OCI_MANIFEST,
        ),
        ("untyped", "1.0", reply(&bytes), OCI_MANIFEST),
        ("as text", "1.0", typed(&silent, "text/plain"), OCI_MANIFEST),
        (
            "an untyped index",
            "1.0",
            typed(&index, "application/json"),
            OCI_INDEX,
        ),
        (
            "typed by its header alone",
            "1.0",
            typed(&silent, DOCKER_MANIFEST),
            DOCKER_MANIFEST,
        ),
        (
            "two types",
            "1.0",
            typed(&bytes, OCI_INDEX),
            "the document itself",
        ),
        (
            "other bytes",
            &other,
            typed(&bytes, OCI_MANIFEST),
            "expected sha256:",
        ),
        (
            "another digest announced",
            "1.0",
            typed(&bytes, OCI_MANIFEST).header("docker-content-digest", other.as_str()),
            "(mismatch)",
        ),
        (
            "no JSON",
            "1.0",
            typed(b"<html>", OCI_MANIFEST),
            "(invalid)",
        ),
        (
            "schema 1",
            "1.0",
            typed(&old, "application/json"),
            "its schema version is 1",
        ),
        (
            "too large",
            "1.0",
            typed(&vec![b' '; (4 << 20) + 1], OCI_MANIFEST),
            "(limit)",
        ),
        (
            "too large by its word",
            "1.0",
            typed(b"{}", OCI_MANIFEST).length(5 << 20),
            "(limit)",
        ),
        ("no reference", "a b", reply(&bytes), "is not a tag"),
        ("a path", "../x", reply(&bytes), "is not a tag"),
    ] {
        let server = Server::start(move |_, _| {
            let reply = reply.clone();
            async move { reply }
        })
        .await;
        let found = match store(&server, config()).manifest(reference).await {
            Ok(manifest) => manifest.media_type,
            Err(error) => format!("{error:?}"),
        };
        assert!(found.contains(expected), "{name}: {found}");
    }
}

#[tokio::test]
async fn a_list_is_read_to_its_end_and_nowhere_else() {
    let link = |target: &str| format!("<{target}>; rel=\"next\"");
    for (name, first, second, expected) in [
        (
            "two pages",
            link("/v2/acme/x/tags/list?last=b"),
            String::new(),
            "a b c",
        ),
        ("relative", link("list?last=b"), String::new(), "a b c"),
        (
            "in a circle",
            link("list?last=b"),
            link("list?last=b"),
            "lead in a circle",
        ),
        (
            "elsewhere",
            link("http://127.0.0.1:1/v2/acme/x/tags/list?last=b"),
            String::new(),
            "which is another place",
        ),
        (
            "another scheme",
            link("https://registry.example/x"),
            String::new(),
            "which is another place",
        ),
    ] {
        let server = Server::start(move |request, _| {
            let (link, tags) = match request.target.contains("last=") {
                true => (second.clone(), r#"{"tags":["c","a"]}"#),
                false => (first.clone(), r#"{"name":"x","tags":["b"]}"#),
            };
            async move {
                let reply = Reply::new(200).body(tags);
                if link.is_empty() {
                    reply
                } else {
                    reply.header("link", link)
                }
            }
        })
        .await;
        let found = match store(&server, config()).tags().await {
            Ok(tags) => tags.join(" "),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{name}: {found}");
    }
}

#[tokio::test]
async fn an_alias_leads_elsewhere_and_references_stay() {
    let server = Server::start(|_, _| async { Reply::new(200) }).await;
    let mut config = config();
    let target = format!("http://{}/mirror/", server.host);
    config
        .host_aliases
        .insert("ghcr.io".to_owned(), target.parse().expect("a URL"));
    let client = client(config, Anonymous);
    let store = client.store("ghcr.io", "acme/x").expect("a store");
    assert_eq!(store.location(), "oci://ghcr.io/acme/x");
    assert_eq!(store.host().expect("a host").as_str(), server.host);
    let blob = Blob::from_bytes(TYPE, "x")
        .descriptor()
        .expect("known content");
    assert!(store.exists(&blob).await.expect("an answer"));
    assert_eq!(
        server.lines(),
        [format!("HEAD /mirror/v2/acme/x/blobs/{}", blob.digest)]
    );
}

#[tokio::test]
async fn a_proxy_is_used_for_what_is_not_near() {
    let proxy = Server::start(|_, _| async { Reply::new(200) }).await;
    let near = Server::start(|_, _| async { Reply::new(200) }).await;
    let mut config = config();
    config.proxies.http = Some(format!("http://{}", proxy.host).parse().expect("a URL"));
    let client = client(config, Anonymous);
    client
        .ping("http://registry.example")
        .await
        .expect("an answer");
    client.ping(&near.host).await.expect("an answer");
    assert_eq!(proxy.lines(), ["GET http://registry.example/v2/"]);
    assert_eq!(near.lines(), ["GET /v2/"]);
}
