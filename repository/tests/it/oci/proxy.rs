//! Requests that go through a proxy.

use ocm_content::ErrorKind;
use ocm_repository::credentials::Credential;
use ocm_repository::oci::{ClientConfig, Proxies};
use url::Url;

use super::server::{Reply, Server};
use super::{Knows, client, config};

fn through(proxy: &str, bypass: &[&str]) -> ClientConfig {
    let proxy: Url = proxy.parse().expect("a URL");
    ClientConfig {
        proxies: Proxies {
            http: Some(proxy.clone()),
            https: Some(proxy),
            bypass: bypass.iter().map(|entry| (*entry).to_owned()).collect(),
        },
        plain_http: ["plain.example".to_owned(), "10.1.2.3:5000".to_owned()].into(),
        ..config()
    }
}

/// A proxy that lets `jo` through, and answers for the registries behind it.
async fn proxy() -> Server {
    Server::start(|request, _| async move {
        // `jo:hunter2`
        if request.header("proxy-authorization") != Some("Basic am86aHVudGVyMg==") {
            return Reply::new(407).header("proxy-authenticate", "Basic realm=proxy");
        }
        match request.header("authorization") {
            Some("Basic YW5uOnNlY3JldA==") => Reply::new(200),
            _ => Reply::new(401).header("www-authenticate", "Basic realm=registry"),
        }
    })
    .await
}

#[tokio::test]
async fn a_proxy_gets_its_own_credentials_and_the_registry_its_own() {
    let proxy = proxy().await;
    let url = format!("http://jo:hunter2@{}", proxy.host);
    let credential = Knows(Credential::basic("ann", "secret"));
    let client = client(through(&url, &[]), credential);
    client.ping("plain.example").await.expect("let through");
    let lines = proxy.lines();
    assert_eq!(lines, ["GET http://plain.example/v2/"; 2]);
    assert_eq!(proxy.requests()[0].header("authorization"), None);
    assert!(!format!("{client:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let proxy = proxy().await;
    for (userinfo, hint) in [("", "put them into"), ("jo:wrong1@", "were refused")] {
        let url = format!("http://{userinfo}{}", proxy.host);
        for registry in ["plain.example", "tls.example"] {
            let before = proxy.lines().len();
            let client = client(
                through(&url, &[]),
                Knows(Credential::basic("ann", "secret")),
            );
            let error = client.ping(registry).await.expect_err("not let through");
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            let expected = format!("the proxy http://{} asks for credentials", proxy.host);
            assert!(error.to_string().ends_with(&expected), "{error}");
            assert!(error.hint().is_some_and(|it| it.contains(hint)), "{error}");
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(!shown.contains("wrong1"), "{shown}");
            assert_eq!(proxy.lines().len(), before + 1, "it is not asked again");
        }
    }
}

#[tokio::test]
async fn some_are_asked_directly() {
    let proxy = proxy().await;
    let server = Server::start(|_, _| async { Reply::new(200) }).await;
    let url = format!("http://jo:hunter2@{}", proxy.host);
    let client = client(
        through(&url, &[]),
        Knows(Credential::basic("ann", "secret")),
    );
    // Loopback hosts are never behind a proxy.
    client.ping(&server.host).await.expect("an answer");
    assert!(proxy.lines().is_empty());
    client.ping("10.1.2.3:5000").await.expect("an answer");
    assert_eq!(proxy.lines().len(), 2);
    let odd = super::client(
        through("socks5://jo:hunter2@127.0.0.1:1", &[]),
        Knows(Credential::basic("ann", "secret")),
    );
    let error = odd.ping("plain.example").await.expect_err("no such proxy");
    assert!(
        error
            .to_string()
            .ends_with("the proxy socks5://127.0.0.1:1 is no http proxy"),
        "{error}"
    );
}
