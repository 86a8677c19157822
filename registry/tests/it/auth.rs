use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocm_registry::{Auth, Users};
use ocm_specs::Digest;

use crate::client::{Answer, Server};

fn users() -> Users {
    Users::one("writer", "w:secret").with("reader", "r-secret", false)
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

async fn with_tokens(anonymous_pull: bool, lifetime: Duration) -> Server {
    let users = Users {
        anonymous_pull,
        ..users()
    };
    let auth = Auth::Token {
        users,
        lifetime,
        realm: None,
    };
    Server::with(|config| config.auth = auth).await
}

async fn get(server: &Server, path: &str, authorization: &str) -> Answer {
    send(server, "GET", path, authorization).await
}

async fn send(server: &Server, method: &str, path: &str, authorization: &str) -> Answer {
    let headers = [("authorization", authorization)];
    let headers: &[_] = if authorization.is_empty() {
        &[]
    } else {
        &headers
    };
    server.send(method, path, headers, b"").await
}

async fn token(server: &Server, scope: &str, authorization: &str) -> String {
    let path = format!("/token?service=x&scope={scope}");
    let answer = get(server, &path, authorization).await.is(200);
    let answer = answer.has("cache-control", "no-store").json();
    assert_eq!(answer["token"], answer["access_token"]);
    format!("Bearer {}", answer["token"].as_str().unwrap())
}

#[tokio::test]
async fn basic_authentication() {
    let auth = Auth::Basic { users: users() };
    let server = Server::with(|config| config.auth = auth).await;
    for wrong in [
        "",
        "Basic",
        "Basic !!!",
        "Bearer abc",
        &basic("writer", "wrong"),
        &basic("nobody", "w:secret"),
        &basic("writer", ""),
    ] {
        let answer = get(&server, "/v2/", wrong).await;
        let answer = answer.fails(401, "UNAUTHORIZED");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }
    let (writer, reader) = (basic("writer", "w:secret"), basic("reader", "r-secret"));
    let upload = "/v2/a/blobs/uploads/";
    get(&server, "/v2/", &writer).await.is(200);
    get(&server, "/v2/", &writer.replace("Basic", "bAsIc"))
        .await
        .is(200);
    send(&server, "POST", upload, &writer).await.is(202);
    get(&server, "/v2/_catalog", &reader).await.is(200);
    let refused = send(&server, "POST", upload, &reader).await;
    refused.fails(403, "DENIED");
}

#[tokio::test]
async fn tokens_are_for_what_they_say() {
    let server = with_tokens(false, Duration::from_secs(60)).await;
    let addr = server.addr();
    let answer = get(&server, "/v2/a/b/tags/list", "").await;
    let expected = format!(
        "Bearer realm=\"http://{addr}/token\",service=\"{addr}\",scope=\"repository:a/b:pull\""
    );
    answer
        .fails(401, "UNAUTHORIZED")
        .has("www-authenticate", &expected);
    let base = get(&server, "/v2/", "").await.is(401);
    assert!(!base.header("www-authenticate").unwrap().contains("scope"));

    let (writer, reader) = (basic("writer", "w:secret"), basic("reader", "r-secret"));
    let upload = "/v2/a/blobs/uploads/";
    let pull = token(&server, "repository:a:pull", &writer).await;
    let push = token(&server, "repository:a:pull,push", &writer).await;
    get(&server, "/v2/", &pull).await.is(200);
    send(&server, "POST", upload, &push).await.is(202);
    // The user may, this token doesn't: ask for another one.
    let answer = send(&server, "POST", upload, &pull).await.is(401);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.ends_with("scope=\"repository:a:pull,push\",error=\"insufficient_scope\""),
        "{challenge}"
    );
    send(&server, "POST", "/v2/b/blobs/uploads/", &push)
        .await
        .is(401);
    // The user may not, whatever the token was asked for.
    let weak = token(&server, "repository:a:pull,push", &reader).await;
    let refused = send(&server, "POST", upload, &weak).await;
    refused.fails(403, "DENIED");
    get(&server, "/v2/a/tags/list", &weak).await.is(404);
    // No password where a token belongs, and no invented token.
    get(&server, "/v2/", &writer).await.is(401);
    let invented = get(&server, "/v2/", "Bearer 0123").await.is(401);
    let challenge = invented.header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}

#[tokio::test]
async fn the_token_endpoint_checks_who_asks() {
    let server = with_tokens(false, Duration::from_secs(60)).await;
    for wrong in ["", "Basic x", &basic("writer", "wrong")] {
        let answer = get(&server, "/token?scope=repository:a:pull", wrong).await;
        let answer = answer.fails(401, "UNAUTHORIZED");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic "), "{challenge}");
    }
    let without = Server::start().await;
    without.call("GET", "/token").await.is(404);
}

#[tokio::test]
async fn tokens_by_form_and_refresh() {
    let server = with_tokens(false, Duration::from_secs(60)).await;
    let post = async |form: String| server.send("POST", "/token", &[], form.as_bytes()).await;
    let scope = "scope=repository%3Aa%3Apull%2Cpush&service=x";
    let password = "grant_type=password&username=writer&password=w%3Asecret";
    let answer = post(format!("{password}&access_type=offline&{scope}")).await;
    let refresh = answer.is(200).json()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let form = format!("grant_type=refresh_token&refresh_token={refresh}&{scope}");
    let answer = post(form).await.is(200).json();
    let bearer = format!("Bearer {}", answer["access_token"].as_str().unwrap());
    let upload = "/v2/a/blobs/uploads/";
    send(&server, "POST", upload, &bearer).await.is(202);
    // A refresh token opens nothing by itself.
    get(&server, "/v2/", &format!("Bearer {refresh}"))
        .await
        .is(401);
    post("grant_type=refresh_token&refresh_token=x".to_owned())
        .await
        .is(401);
    post("grant_type=password&username=writer".to_owned())
        .await
        .is(401);
    post(String::new()).await.is(400);
    post("x".repeat(100_000)).await.is(413);
}

#[tokio::test]
async fn tokens_end() {
    // Nothing waits here: a token of no length is over when it arrives.
    let server = with_tokens(false, Duration::ZERO).await;
    let token = token(&server, "repository:a:pull", &basic("writer", "w:secret")).await;
    get(&server, "/v2/", &token).await.is(401);
}

#[tokio::test]
async fn anybody_may_read_where_that_is_said() {
    let server = with_tokens(true, Duration::from_secs(60)).await;
    get(&server, "/v2/", "").await.is(200);
    get(&server, "/v2/a/tags/list", "").await.is(404);
    send(&server, "POST", "/v2/a/blobs/uploads/", "")
        .await
        .is(401);
    let token = token(&server, "repository:a:pull,push", "").await;
    get(&server, "/v2/a/tags/list", &token).await.is(404);
    let refused = send(&server, "POST", "/v2/a/blobs/uploads/", &token).await;
    assert_eq!(refused.status, 401, "with credentials it may work");
}

#[tokio::test]
async fn a_mount_needs_the_right_to_read_the_source() {
    let server = with_tokens(false, Duration::from_secs(60)).await;
    let writer = basic("writer", "w:secret");
    let digest = Digest::sha256(b"");
    let push = token(&server, "repository:secret:pull,push", &writer).await;
    let path = format!("/v2/secret/blobs/uploads/?digest={digest}");
    send(&server, "POST", &path, &push).await.is(201);
    let mount = format!("/v2/a/blobs/uploads/?mount={digest}&from=secret");
    let one = token(&server, "repository:a:pull,push", &writer).await;
    send(&server, "POST", &mount, &one).await.is(202);
    let scopes = "repository:a:pull,push&scope=repository:secret:pull";
    let both = token(&server, scopes, &writer).await;
    send(&server, "POST", &mount, &both).await.is(201);
}

#[tokio::test]
async fn the_realm_is_no_place_for_tricks() {
    let server = with_tokens(false, Duration::from_secs(60)).await;
    for host in ["evil\",x=\"y", "user@evil.example", "a b", ""] {
        let headers = [("host", host)];
        let answer = server.send("GET", "/v2/", &headers, b"").await;
        if answer.status == 401 {
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(
                challenge.starts_with("Bearer realm=\"http://localhost/token\""),
                "{host}: {challenge}"
            );
        } else {
            answer.is(400);
        }
    }
}
