//! Registries that ask who is asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ocm_content::{Blob, ContentStore};
use ocm_repository::credentials::{Anonymous, Credential, CredentialSource, Secret};
use ocm_specs::oci::Descriptor;

use super::server::{Reply, Request, Server};
use super::{Knows, client, config, outcome};
use crate::remote::everything;

/// A registry with a token service of its own; token number n is `t<n>`, and is good while `good` says so.
async fn registry(good: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let (tokens, good) = (Arc::new(AtomicUsize::new(0)), Arc::new(good));
    Server::start(move |request, _| {
        let (tokens, good) = (tokens.clone(), good.clone());
        async move { answer(&request, &tokens, &*good) }
    })
    .await
}

fn answer(request: &Request, tokens: &AtomicUsize, good: &(dyn Fn(&str) -> bool + Sync)) -> Reply {
    let host = request.header("host").unwrap_or_default();
    if request.target.starts_with("/token") {
        let number = tokens.fetch_add(1, Ordering::SeqCst) + 1;
        return Reply::new(200).body(format!(r#"{{"token":"t{number}","expires_in":300}}"#));
    }
    let token = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    if !token.is_some_and(good) {
        let challenge = format!(
            r#"Bearer realm="http://{host}/token?x=1",service="the registry",scope="extra:y:z""#
        );
        return Reply::new(401).header("www-authenticate", challenge);
    }
    match request.method.as_str() {
        "POST" => Reply::new(202).header("location", "/v2/session"),
        "PUT" => Reply::new(201),
        _ => Reply::new(200),
    }
}

fn link() -> Descriptor {
    Descriptor::of("application/x-test", b"hello")
}

fn acme(server: &Server, credentials: impl CredentialSource + 'static) -> Arc<dyn ContentStore> {
    let client = client(config(), credentials);
    client.store(&server.host, "acme/x").expect("a store")
}

fn tokens(server: &Server) -> Vec<Request> {
    let mut requests = server.requests();
    requests.retain(|request| request.target.starts_with("/token"));
    requests
}

#[tokio::test(start_paused = true)]
async fn many_requests_share_a_token_until_it_expires() {
    let server = registry(|_| true).await;
    let store = acme(&server, Knows(Credential::basic("jo", "secret")));
    let link = link();
    for found in join_all((0..8).map(|_| store.exists(&link))).await {
        assert!(found.expect("an answer"));
    }
    let asked = tokens(&server);
    assert_eq!(asked.len(), 1, "{:?}", server.lines());
    assert_eq!(
        asked[0].target,
        "/token?x=1&service=the+registry&scope=extra%3Ay%3Az&scope=repository%3Aacme%2Fx%3Apull&client_id=ocm"
    );
    assert_eq!(asked[0].header("authorization"), Some("Basic am86c2VjcmV0"));
    tokio::time::advance(Duration::from_secs(289)).await;
    let before = server.lines().len();
    // The challenge named a scope of its own, which the next request does not ask for.
    store.exists(&link).await.expect("an answer");
    store.exists(&link).await.expect("an answer");
    assert_eq!(tokens(&server).len(), 2);
    assert_eq!(server.lines().len(), before + 3);
    tokio::time::advance(Duration::from_secs(291)).await;
    store.exists(&link).await.expect("an answer");
    assert_eq!(tokens(&server).len(), 3);
}

#[tokio::test]
async fn a_token_that_is_refused_in_mid_run_is_replaced_once() {
    let uses = AtomicUsize::new(0);
    let server = registry(move |token| {
        // The first token is good for two requests.
        token != "t1" || uses.fetch_add(1, Ordering::SeqCst) < 2
    })
    .await;
    let store = acme(&server, Anonymous);
    for _ in 0..4 {
        assert!(store.exists(&link()).await.expect("an answer"));
    }
    let server = registry(|_| false).await;
    let store = acme(&server, Anonymous);
    let error = store.exists(&link()).await.expect_err("no token will do");
    assert!(
        outcome::<()>(Err(error.clone())).contains("401 Unauthorized (denied)"),
        "{error}"
    );
    assert_eq!(server.lines().len(), 3, "{:?}", server.lines());
}

#[tokio::test]
async fn a_push_asks_for_what_a_mount_needs() {
    let server = registry(|_| true).await;
    let store = acme(&server, Anonymous);
    let blob = Blob::from_bytes("application/x-test", "hello");
    store
        .push(&blob, &["acme/y".to_owned()])
        .await
        .expect("push");
    let scopes: Vec<String> = tokens(&server)
        .iter()
        .map(|token| token.target.clone())
        .collect();
    assert!(
        scopes[0].contains(
            "scope=repository%3Aacme%2Fx%3Apull%2Cpush&scope=repository%3Aacme%2Fy%3Apull"
        ),
        "{scopes:?}"
    );
}

#[tokio::test]
async fn a_refresh_token_is_posted_and_a_bearer_token_used_as_it_is() {
    let server = registry(|_| true).await;
    let store = acme(
        &server,
        Knows(Credential::IdentityToken(Secret::new("a/b"))),
    );
    store.exists(&link()).await.expect("an answer");
    let asked = tokens(&server);
    assert_eq!(asked[0].line(), "POST /token?x=1");
    assert_eq!(
        String::from_utf8_lossy(&asked[0].body),
        "grant_type=refresh_token&client_id=ocm&refresh_token=a%2Fb&service=the+registry&scope=extra%3Ay%3Az+repository%3Aacme%2Fx%3Apull"
    );
    let server = registry(|token| token == "mine").await;
    let store = acme(&server, Knows(Credential::Bearer(Secret::new("mine"))));
    store.exists(&link()).await.expect("an answer");
    assert!(tokens(&server).is_empty());
}

#[tokio::test]
async fn challenges_that_are_not_met() {
    for (challenge, expected, requests) in [
        ("", "no credentials are configured", 1),
        ("Negotiate", "no credentials are configured", 1),
        ("Basic realm=x", "were not enough", 2),
        (
            r#"Bearer realm="http://registry.example/token""#,
            "is not trusted with credentials",
            1,
        ),
        (
            r#"Bearer realm="ftp://127.0.0.1/token""#,
            "is not trusted with credentials",
            1,
        ),
        (
            r#"Bearer realm="http://u:p@127.0.0.1/token""#,
            "is not trusted with credentials",
            1,
        ),
        ("Bearer service=x", "names no token service", 1),
        (r#"Bearer realm="/token""#, "its token service is no URL", 1),
        (
            r#"Bearer realm="HERE/refuses""#,
            "the token service answers 400",
            2,
        ),
        (r#"Bearer realm="HERE/moves""#, "307", 2),
        (r#"Bearer realm="HERE/empty""#, "has no token", 2),
        (r#"Bearer realm="HERE/odd""#, "no header may have", 2),
    ] {
        let server = Server::start(move |request, _| async move {
            let here = format!("http://{}", request.header("host").unwrap_or_default());
            match request.target.split('?').next().unwrap_or_default() {
                "/refuses" => Reply::new(400),
                "/moves" => Reply::new(307).header("location", "/token"),
                "/empty" => Reply::new(200).body("{}"),
                "/odd" => Reply::new(200).body(r#"{"token":"a\nb"}"#),
                _ if challenge.is_empty() => Reply::new(401),
                _ => Reply::new(401).header("www-authenticate", challenge.replace("HERE", &here)),
            }
        })
        .await;
        let store = match challenge {
            "" | "Negotiate" => acme(&server, Anonymous),
            _ => acme(&server, Knows(Credential::basic("jo", "secret"))),
        };
        let error = store.exists(&link()).await.expect_err("a refusal");
        let found = format!("{error} ({})", error.hint().unwrap_or_default());
        assert!(found.contains(expected), "{challenge}: {found}");
        let all = everything(&error);
        for shown in ["secret", "am86c2VjcmV0"] {
            assert!(!all.contains(shown) && !found.contains(shown), "{all}");
        }
        assert_eq!(
            server.lines().len(),
            requests,
            "{challenge}: {:?}",
            server.lines()
        );
    }
}

/// A token that ends while a blob streams: the rest is asked for with another one, and a running digest goes on.
#[tokio::test]
async fn a_token_that_ends_in_mid_blob_is_replaced_and_the_blob_goes_on() {
    let bytes = super::sample(100_000);
    let link = Descriptor::of("application/x-test", &bytes);
    let tokens_given = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request, _| {
        let (bytes, given) = (bytes.clone(), tokens_given.clone());
        async move {
            let host = request.header("host").unwrap_or_default().to_owned();
            if request.target.starts_with("/token") {
                let number = given.fetch_add(1, Ordering::SeqCst) + 1;
                return Reply::new(200)
                    .body(format!(r#"{{"token":"t{number}","expires_in":300}}"#));
            }
            let denied = Reply::new(401).header(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token",service=s"#),
            );
            let range = request.header("range");
            match (request.header("authorization"), range) {
                // The first token is good for the first part only.
                (Some("Bearer t1"), None) => {
                    let part = bytes[..40_000].to_vec();
                    Reply::new(200).body(part).length(bytes.len()).cut()
                }
                (Some("Bearer t2"), Some(range)) => {
                    assert_eq!(range, "bytes=40000-");
                    let rest = bytes[40_000..].to_vec();
                    Reply::new(206)
                        .header("content-range", "bytes 40000-99999/100000")
                        .body(rest)
                }
                _ => denied,
            }
        }
    })
    .await;
    let store = acme(&server, Knows(Credential::basic("jo", "secret")));
    let blob = store.fetch(&link);
    blob.read(1 << 20).await.expect("the whole blob, verified");
    assert_eq!(tokens(&server).len(), 2, "{:?}", server.lines());
}

/// A token service that takes a refresh token once gets the next one that it gave.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_renewed() {
    let server = Server::start(|request, _| async move {
        let host = request.header("host").unwrap_or_default().to_owned();
        if request.target.starts_with("/token") {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let next = match body.contains("refresh_token=first") {
                true => "second",
                false => "third",
            };
            return Reply::new(200).body(format!(
                r#"{{"access_token":"a","expires_in":60,"refresh_token":"{next}"}}"#
            ));
        }
        match request.header("authorization") {
            Some("Bearer a") => Reply::new(200),
            _ => Reply::new(401).header(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token""#),
            ),
        }
    })
    .await;
    let store = acme(
        &server,
        Knows(Credential::IdentityToken(Secret::new("first"))),
    );
    for _ in 0..3 {
        store.exists(&link()).await.expect("an answer");
        tokio::time::advance(Duration::from_secs(61)).await;
    }
    let sent: Vec<String> = tokens(&server)
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body).into_owned())
        .map(|body| {
            let from = body.find("refresh_token=").expect("a token") + 14;
            body[from..]
                .split('&')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(sent, ["first", "second", "third"]);
}

/// Several credentials on one host, told apart by the path; tokens of one are never used for the other.
#[tokio::test]
async fn each_part_of_a_registry_has_its_own_credentials() {
    let server = Server::start(|request, _| async move {
        let host = request.header("host").unwrap_or_default().to_owned();
        let authorization = request.header("authorization").unwrap_or_default();
        if request.target.starts_with("/token") {
            let user = match authorization {
                "Basic YW5uOnB3" => "ann",
                "Basic Ym9iOnB3" => "bob",
                "" => "nobody",
                _ => return Reply::new(401),
            };
            return Reply::new(200).body(format!(r#"{{"token":"{user}","expires_in":300}}"#));
        }
        let mut parts = request.target.split('/').skip(2);
        let wanted = match (parts.next(), parts.next()) {
            (Some("acme"), Some("secret")) => "Bearer ann",
            (Some("acme"), _) => "Bearer bob",
            _ => "Bearer nobody",
        };
        match authorization == wanted {
            true => Reply::new(200),
            false => Reply::new(401).header(
                "www-authenticate",
                format!(r#"Bearer realm="http://{host}/token""#),
            ),
        }
    })
    .await;
    let (hostname, port) = server.host.split_once(':').expect("a port");
    let consumer = |path: &str, user: &str| {
        serde_json::json!({
            "identity": {"type": "OCIRegistry", "hostname": hostname, "port": port, "scheme": "http", "path": path},
            "credentials": [{"type": "Credentials/v1", "properties": {"username": user, "password": "pw"}}],
        })
    };
    let document = serde_json::json!({"type": "credentials.config.ocm.software/v1", "consumers": [
        consumer("acme/*", "bob"), consumer("acme/secret", "ann"),
    ]});
    let consumers =
        ocm_repository::credentials::Consumers::from_documents([&document]).expect("consumers");
    let client = client(config(), consumers);
    for repository in [
        "acme/secret",
        "acme/x",
        "acme/secret/below",
        "free",
        "acme/x",
    ] {
        let store = client.store(&server.host, repository).expect("a store");
        store.exists(&link()).await.expect(repository);
    }
    let users: Vec<Option<String>> = tokens(&server)
        .iter()
        .map(|request| request.header("authorization").map(str::to_owned))
        .collect();
    let (ann, bob) = ("Basic YW5uOnB3".to_owned(), "Basic Ym9iOnB3".to_owned());
    assert_eq!(
        users,
        [Some(ann.clone()), Some(bob), Some(ann), None],
        "{:?}",
        server.lines()
    );
}
