//! Content that other servers have: URLs, charts, commits, over real connections on loopback.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ocm_content::{
    Access, Blob, Content, Error, ErrorKind, MemoryStores, RawManifest, Result, Stores,
};
use ocm_repository::credentials::{Consumers, Credential, CredentialSource, Identity};
use ocm_repository::{Session, SessionConfig};
use ocm_specs::Digest;
use ocm_specs::descriptor::DigestSpec;
use ocm_testdata::fixtures::{chart, chart_archive, noise};
use ocm_testdata::web::{Answer, Asked, WebServer, helm_repository};
use serde_json::{Value, json};

/// Names that stand for servers.
type Aliases<'a> = &'a [(&'a str, &'a WebServer)];

fn config(aliases: Aliases<'_>) -> SessionConfig {
    let mut config = SessionConfig::new("/");
    config.limits.temp_folder = Some(std::env::temp_dir());
    config.client.retry.base = Duration::from_millis(1);
    config.client.host_aliases = aliases
        .iter()
        .map(|(host, server)| ((*host).to_owned(), server.url().parse().expect("a URL")))
        .collect();
    config
}

fn session(aliases: Aliases<'_>) -> Arc<Session> {
    Session::new(config(aliases)).expect("a session")
}

async fn blob(session: &Session, access: Value, stated: Option<&Digest>) -> Result<Blob> {
    let stated = stated.map(|digest| DigestSpec::new(digest, false));
    match session.remote_content(&access, stated.as_ref()).await? {
        Content::Blob(blob) => Ok(blob),
        Content::Artifact(_) => panic!("{access} is an artifact"),
    }
}

async fn read(session: &Session, access: Value, stated: Option<&Digest>) -> Result<Bytes> {
    blob(session, access, stated).await?.read(64 << 20).await
}

fn wget(server: &WebServer, path: &str) -> Value {
    json!({"type": "wget", "url": format!("{}{path}", server.url())})
}

#[tokio::test]
async fn a_url_gives_its_content_with_media_type_and_length() {
    let large = noise(300_000, 1);
    let files = [
        ("/large".to_owned(), large.clone()),
        ("/small".to_owned(), Bytes::from_static(b"hello")),
        ("/empty".to_owned(), Bytes::new()),
    ];
    let bodies: BTreeMap<String, Bytes> = files.iter().cloned().collect();
    let server = WebServer::start(move |asked| match bodies.get(&asked.path) {
        Some(body) => {
            Answer::file(&asked, body).header("content-type", "Text/Plain; charset=utf-8")
        }
        None => Answer::missing(),
    })
    .await;
    let session = session(&[]);
    for (path, body) in &files {
        for fields in [json!({}), json!({"mediaType": "application/x-own"})] {
            let mut access = wget(&server, path);
            access["mediaType"] = fields["mediaType"].clone();
            let blob = blob(&session, access, None).await.unwrap();
            assert_eq!(blob.size, Some(body.len() as u64), "{path}");
            let expected = match fields["mediaType"].as_str() {
                Some(own) => own,
                None if body.is_empty() => "application/octet-stream",
                None => "text/plain",
            };
            assert_eq!(blob.media_type, expected);
            assert_eq!(blob.access(), Access::Reopenable);
            for _ in 0..2 {
                assert_eq!(blob.read(1 << 20).await.unwrap(), body, "{path}");
            }
        }
    }
    for access in [
        wget(&server, "/none"),
        json!({"type": "Wget/v1", "URL": format!("{}/none", server.url())}),
    ] {
        let error = read(&session, access, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            format!(
                "read {}/none: the server answers 404 Not Found",
                server.url()
            )
        );
    }
}

#[tokio::test]
async fn a_stated_digest_is_what_is_read() {
    let large = noise(200_000, 2);
    let files = [
        ("/large".to_owned(), large.clone()),
        ("/small".to_owned(), Bytes::from_static(b"hello")),
    ];
    let server = WebServer::files(files.clone()).await;
    let session = session(&[]);
    for (path, body) in &files {
        let right = Digest::sha256(body);
        let found = read(&session, wget(&server, path), Some(&right)).await;
        assert_eq!(found.unwrap(), body);
        let wrong = Digest::sha256(b"another");
        let error = read(&session, wget(&server, path), Some(&wrong)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&wrong.to_string()) && text.contains(path.as_str()),
            "{text}"
        );
    }
}

/// How a server serves, how often its bodies break, and whether the content arrives.
#[tokio::test]
async fn a_body_that_breaks_goes_on_where_that_is_safe() {
    let body = noise(400_000, 3);
    for (name, ranges, validator, stated, cuts, expected) in [
        ("ranges and ETag", true, "etag", false, 3, Ok(())),
        ("ETag alone", false, "etag", false, 2, Ok(())),
        ("Last-Modified", true, "last-modified", false, 2, Ok(())),
        ("digest alone", true, "", true, 3, Ok(())),
        ("digest, no ranges", false, "", true, 2, Ok(())),
        ("nothing", true, "", false, 1, Err(ErrorKind::Unavailable)),
        ("nothing, whole", true, "", false, 0, Ok(())),
        (
            "too often",
            true,
            "etag",
            false,
            99,
            Err(ErrorKind::Unavailable),
        ),
    ] {
        let left = AtomicUsize::new(cuts);
        let served = body.clone();
        let server = WebServer::start(move |asked| {
            let mut asked = asked;
            let probe = asked.header("range") == "bytes=0-0";
            if !ranges {
                asked.headers.remove("range");
            }
            let mut answer = Answer::file(&asked, &served).without("etag");
            if !validator.is_empty() {
                answer = answer.header(validator, "\"Sun, 06 Nov 1994 08:49:37 GMT\"");
            }
            let cut = !probe
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok();
            // Less than what counts as progress for the one that breaks too often.
            if cut {
                answer.cut(if cuts > 10 { 1_000 } else { 100_000 })
            } else {
                answer
            }
        })
        .await;
        let session = session(&[]);
        let digest = Digest::sha256(&body);
        let found = read(&session, wget(&server, "/x"), stated.then_some(&digest)).await;
        match (found, expected) {
            (Ok(found), Ok(())) => assert!(found == body, "{name}"),
            (Err(error), Err(kind)) => assert_eq!(error.kind(), kind, "{name}: {error}"),
            (found, expected) => panic!("{name}: {:?}, expected {expected:?}", found.map(drop)),
        }
    }
}

#[tokio::test]
async fn content_that_changes_under_the_reader_is_told() {
    let (old, new) = (noise(300_000, 4), noise(300_000, 5));
    let count = AtomicUsize::new(0);
    let server = WebServer::start(move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::file(&asked, &old),
        1 => Answer::file(&asked, &old).cut(100_000),
        _ => Answer::file(&asked, &new),
    })
    .await;
    let error = read(&session(&[]), wget(&server, "/x"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("the content changed"), "{error}");
}

#[tokio::test]
async fn passing_failures_pass_and_others_do_not() {
    for (status, header, tries, expected) in [
        (503, None, 2, None),
        (429, Some(("retry-after", "0")), 2, None),
        (500, None, 99, Some(ErrorKind::Unavailable)),
        (404, None, 99, Some(ErrorKind::NotFound)),
        (410, None, 99, Some(ErrorKind::NotFound)),
        (403, None, 99, Some(ErrorKind::Denied)),
        (401, None, 99, Some(ErrorKind::Denied)),
        (400, None, 99, Some(ErrorKind::Invalid)),
    ] {
        let count = AtomicUsize::new(0);
        let server = WebServer::start(move |asked| {
            if count.fetch_add(1, Ordering::SeqCst) < tries {
                let answer = Answer::new(status);
                return match header {
                    Some((name, value)) => answer.header(name, value),
                    None => answer,
                };
            }
            Answer::file(&asked, &Bytes::from_static(b"hello"))
        })
        .await;
        let found = read(&session(&[]), wget(&server, "/x"), None).await;
        match (found, expected) {
            (Ok(found), None) => assert_eq!(found, "hello"),
            (Err(error), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{status}: {error}");
                let attempts = if kind == ErrorKind::Unavailable { 5 } else { 1 };
                assert_eq!(server.log().len(), attempts, "{status}");
                assert!(!error.to_string().contains("registry"), "{error}");
            }
            (found, expected) => panic!("{status}: {found:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_a_read_is_asked_once_and_kept() {
    let server = WebServer::start(|asked| match asked.path.as_str() {
        "/fails" => Answer::new(503),
        "/moved" => Answer::new(303).header("location", "/there"),
        "/kept" => Answer::new(307).header("location", "/there"),
        _ => {
            let body = format!(
                "{} {} {:?}",
                asked.method,
                asked.header("x-own"),
                asked.body
            );
            Answer::ok(body)
                .header("content-type", "text/plain")
                .unmeasured()
        }
    })
    .await;
    let session = session(&[]);
    let access = |path: &str| {
        let mut access = wget(&server, path);
        access["verb"] = json!("post");
        access["body"] = json!("aGk=");
        access["header"] = json!({"X-Own": ["1"]});
        access
    };
    let found = blob(&session, access("/x"), None).await.unwrap();
    assert_eq!(found.media_type, "text/plain");
    for _ in 0..2 {
        assert_eq!(found.read(100).await.unwrap(), "POST 1 b\"hi\"");
    }
    assert_eq!(found.digest, Some(Digest::sha256(b"POST 1 b\"hi\"")));
    assert_eq!(server.lines(), ["POST /x"]);

    let error = read(&session, access("/fails"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let moved = read(&session, access("/moved"), None).await.unwrap();
    assert_eq!(moved, "GET 1 b\"\"");
    assert!(read(&session, access("/kept"), None).await.is_err());
    let wrong = Digest::sha256(b"x");
    let error = read(&session, access("/x"), Some(&wrong))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert_eq!(
        server.lines(),
        [
            "POST /x",
            "POST /fails",
            "POST /moved",
            "GET /there",
            "POST /kept",
            "POST /x"
        ]
    );
}

#[tokio::test]
async fn redirects_take_no_secrets_along() {
    let other = WebServer::start(|asked| Answer::file(&asked, &Bytes::from_static(b"there"))).await;
    let to = other.url();
    let server = WebServer::start(move |asked| match asked.path.as_str() {
        "/loop" => Answer::new(302).header("location", "/loop"),
        "/file" => Answer::new(302).header("location", "file:///etc/passwd"),
        "/own" => Answer::file(&asked, &Bytes::from_static(b"own")),
        "/to-own" => Answer::new(308).header("location", "/own"),
        _ => Answer::new(302).header("location", format!("{to}/x?signature=1")),
    })
    .await;
    let mut config = config(&[]);
    config.credentials = Arc::new(Everywhere);
    let session = Session::new(config).unwrap();
    let access = |path: &str| {
        let mut access = wget(&server, path);
        access["header"] = json!({"X-Api-Key": ["k"], "Accept": ["a/b"], "Cookie": "c"});
        access
    };
    assert_eq!(
        read(&session, access("/away"), None).await.unwrap(),
        "there"
    );
    assert_eq!(
        read(&session, access("/to-own"), None).await.unwrap(),
        "own"
    );
    for asked in server.log() {
        assert_eq!(asked.header("x-api-key"), "k", "{}", asked.line());
        assert_eq!(asked.header("authorization"), "Basic am86cHc=");
    }
    let there = other.log();
    assert!(!there.is_empty());
    for asked in there {
        for name in ["x-api-key", "cookie", "authorization"] {
            assert_eq!(asked.header(name), "", "{name}");
        }
        assert_eq!(asked.header("accept"), "a/b");
    }
    for (path, expected) in [
        ("/loop", "redirects more than"),
        ("/file", "no web address"),
    ] {
        let error = read(&session, access(path), None).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut still = access("/away");
    still["noRedirect"] = json!(true);
    let error = read(&session, still, None).await.unwrap_err();
    assert!(
        error.to_string().ends_with("the server answers 302 Found"),
        "{error}"
    );
}

/// All that an error says, as text and in full, with what is behind it.
pub(crate) fn everything(error: &Error) -> String {
    let mut all = format!("{error} {error:?} {error:#?} {:?}", error.hint());
    let mut source = std::error::Error::source(error);
    while let Some(behind) = source {
        all.push_str(&format!(" {behind} {behind:?}"));
        source = behind.source();
    }
    all
}

/// Knows a secret for everybody.
#[derive(Debug)]
struct Secretive;

#[async_trait]
impl CredentialSource for Secretive {
    async fn credential(&self, _: &Identity) -> Result<Option<Credential>> {
        Ok(Some(Credential::basic("jo", "hunter2")))
    }
}

/// Whatever is wrong with a place, nothing that was written for it or is configured for it is in the error.
#[tokio::test]
async fn errors_have_no_secret_in_them() {
    let server = WebServer::start(|asked| match asked.path.as_str() {
        path if path.contains("/moved") => {
            Answer::new(302).header("location", "http://jo:hunter2@127.0.0.1:1/?sig=hunter2")
        }
        path if path.contains("/signed") => {
            Answer::new(302).header("location", "http://127.0.0.1:1/x?sig=hunter2")
        }
        path if path.contains("/odd") => Answer::ok("neither an index nor a pack"),
        path if path.contains("/denied") => Answer::new(403),
        path if path.contains("/refused") => Answer::new(401),
        _ => Answer::new(500),
    })
    .await;
    let mut config = config(&[]);
    config.credentials = Arc::new(Secretive);
    config.client.retry.attempts = 1;
    let session = Session::new(config).unwrap();
    let with_user = server.url().replace("http://", "http://jo:hunter2@");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let mut errors = 0;
    for base in [
        server.url(),
        with_user,
        "http://jo:hunter2@[nonsense".to_owned(),
    ] {
        for path in ["moved", "signed", "odd", "denied", "refused", "oops"] {
            for access in [
                json!({"type": "wget", "url": format!("{base}/{path}?sig=hunter2"), "verb": "POST", "body": "hunter2",
                    "header": {"X-Api-Key": ["hunter2"]}}),
                json!({"type": "wget", "url": format!("{base}/{path}"), "header": {"bad name": ["hunter2"]}}),
                json!({"type": "wget", "url": format!("{base}/{path}"), "header": {"X-Api-Key": ["hunter2\n"]}}),
                json!({"type": "helm", "helmRepository": format!("{base}/{path}"), "helmChart": "x:1.0.0"}),
                json!({"type": "gitHub", "repoUrl": format!("{base}/acme/{path}"), "commit": commit}),
                json!({"type": "git", "repository": format!("{base}/{path}.git"), "ref": "refs/heads/main", "commit": commit}),
            ] {
                // A wrong answer may be as good as any to an access that takes all.
                if let Err(error) = read(&session, access.clone(), None).await {
                    errors += 1;
                    let all = everything(&error);
                    for secret in ["hunter2", "am86aHVudGVyMg", "68756e74657232"] {
                        assert!(!all.contains(secret), "{access}: {all}");
                    }
                }
            }
        }
    }
    assert!(errors > 80, "{errors} errors");
}

/// Knows the same for everybody.
#[derive(Debug)]
struct Everywhere;

#[async_trait]
impl CredentialSource for Everywhere {
    async fn credential(&self, _: &Identity) -> Result<Option<Credential>> {
        Ok(Some(Credential::basic("jo", "pw")))
    }
}

#[tokio::test]
async fn credentials_go_to_whom_they_are_configured_for() {
    let server = WebServer::start(|asked| {
        let wants_password = asked.path.starts_with("/git");
        match asked.header("authorization") {
            "Basic am86cHc=" | "Bearer t" if !wants_password => Answer::ok("in"),
            "Basic eC1hY2Nlc3MtdG9rZW46dA==" if wants_password => Answer::ok("in"),
            _ => Answer::new(401).header("www-authenticate", "Basic realm=x"),
        }
    })
    .await;
    let port = server.addr.port().to_string();
    let consumer = |kind: &str, credentials: Value| {
        json!({"identity": {"type": kind, "hostname": "127.0.0.1", "port": port, "scheme": "http"},
            "credentials": [credentials]})
    };
    let direct = |properties: Value| json!({"type": "Credentials/v1", "properties": properties});
    for (consumer, path, expected) in [
        (
            consumer("Wget", direct(json!({"username": "jo", "password": "pw"}))),
            "/x",
            true,
        ),
        (
            consumer(
                "wget",
                json!({"type": "WgetCredentials/v1", "identityToken": "t"}),
            ),
            "/x",
            true,
        ),
        // What the server asks for decides how a token travels.
        (
            consumer(
                "Wget/v1",
                json!({"type": "WgetCredentials/v1", "identityToken": "t"}),
            ),
            "/git/x",
            true,
        ),
        (
            consumer(
                "OCIRegistry",
                direct(json!({"username": "jo", "password": "pw"})),
            ),
            "/x",
            false,
        ),
        (
            consumer(
                "HelmChartRepository",
                direct(json!({"username": "jo", "password": "pw"})),
            ),
            "/x",
            false,
        ),
        (
            consumer(
                "Wget",
                direct(json!({"username": "jo", "password": "other"})),
            ),
            "/x",
            false,
        ),
    ] {
        let document = json!({"type": "credentials.config.ocm.software", "consumers": [consumer]});
        let mut config = config(&[]);
        config.credentials = Arc::new(Consumers::from_documents([&document]).unwrap());
        let session = Session::new(config).unwrap();
        let found = read(&session, wget(&server, path), None).await;
        match (found, expected) {
            (Ok(body), true) => assert_eq!(body, "in"),
            (Err(error), false) => {
                assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
                assert!(
                    error
                        .hint()
                        .is_some_and(|hint| hint.contains("credentials")),
                    "{error}"
                );
            }
            (found, expected) => panic!("{document}: {found:?}, expected {expected}"),
        }
    }
    let mut access = wget(&server, "/x");
    access["url"] = json!(format!("http://jo:pw@{}/x", server.addr));
    let error = read(&session(&[]), access, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!error.to_string().contains("pw"), "{error}");
}

#[tokio::test]
async fn charts_come_from_their_repositories() {
    let archive = chart_archive();
    for signed in [true, false] {
        let files = helm_repository("webapp", "1.4.0", &archive, signed);
        let server = WebServer::files(files).await;
        let session = session(&[("charts.example.org", &server)]);
        for access in [
            json!({"type": "helm", "helmRepository": "https://charts.example.org", "helmChart": "webapp:1.4.0"}),
            json!({"type": "Helm/v1", "helmRepository": "https://charts.example.org/", "helmChart": "webapp"}),
            json!({"type": "helm/v1", "helmRepository": "https://charts.example.org/webapp-1.4.0.tgz"}),
        ] {
            let chart = session.helm_chart(&access, None).await.unwrap();
            assert_eq!(
                (chart.name.as_str(), chart.version.as_str()),
                ("webapp", "1.4.0")
            );
            assert_eq!(
                chart.archive.read(1 << 20).await.unwrap(),
                archive,
                "{access}"
            );
            assert_eq!(
                chart.archive.media_type,
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
            );
            assert_eq!(chart.provenance.is_some(), signed, "{access}");
            let found = read(&session, access.clone(), Some(&Digest::sha256(&archive))).await;
            assert_eq!(found.unwrap(), archive);
            let wrong = Digest::sha256(b"x");
            let error = read(&session, access, Some(&wrong)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        }
        let indexes = server
            .lines()
            .iter()
            .filter(|line| line.ends_with("index.yaml"))
            .count();
        assert_eq!(indexes, 1, "an index is read once");
        for (chart, expected) in [
            (
                "webapp:9",
                "chart `webapp:9`: the repository has no version 9",
            ),
            (
                "webap:1.4.0",
                "chart `webap:1.4.0`: the repository has no chart `webap`",
            ),
            (
                "webapp:0.0.1",
                "chart `webapp:0.0.1`: read https://charts.example.org/webapp-0.0.1.tgz: the server answers 404",
            ),
        ] {
            let access = json!({"type": "helm", "helmRepository": "https://charts.example.org", "helmChart": chart});
            let error = session.helm_chart(&access, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}

#[tokio::test]
async fn an_index_that_lies_about_an_archive_is_found_out() {
    let mut files = helm_repository("webapp", "1.4.0", &chart_archive(), false);
    files[1].1 = noise(100_000, 1);
    let server = WebServer::files(files).await;
    let access =
        json!({"type": "helm", "helmRepository": server.url(), "helmChart": "webapp:1.4.0"});
    let error = read(&session(&[]), access, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("webapp-1.4.0.tgz"), "{error}");
}

#[tokio::test]
async fn charts_in_registries_are_found_by_name_and_version() {
    let session = session(&[]);
    let stores = MemoryStores::new();
    session.register("reg.example", Arc::new(stores.clone()));
    let store = stores.store("acme/charts/webapp").unwrap();
    let fixture = chart();
    fixture.push(&store, Some("1.4.0")).await.unwrap();
    let image: RawManifest = ocm_testdata::fixtures::image_index().root;
    let other = stores.store("acme/image").unwrap();
    ocm_testdata::fixtures::image_index()
        .push(&other, Some("1"))
        .await
        .unwrap();

    for access in [
        json!({"type": "helm", "helmRepository": "oci://reg.example/acme/charts", "helmChart": "webapp:1.4.0"}),
        json!({"type": "helm", "helmRepository": "oci://reg.example/acme/charts/", "helmChart": "webapp", "version": "1.4.0"}),
        json!({"type": "helm", "helmRepository": "oci://reg.example/acme/charts/webapp:1.4.0"}),
    ] {
        let chart = session.helm_chart(&access, None).await.unwrap();
        assert_eq!(
            (chart.name.as_str(), chart.version.as_str()),
            ("webapp", "1.4.0")
        );
        let bytes = chart.archive.read(1 << 20).await.unwrap();
        assert_eq!(bytes, chart_archive(), "{access}");
        // Descriptors state the digest of the archive or of the manifest around it.
        for stated in [Digest::sha256(&bytes), fixture.root.digest.clone()] {
            read(&session, access.clone(), Some(&stated)).await.unwrap();
        }
        let error = read(&session, access, Some(&image.digest))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
    }
    for (chart, expected) in [("webapp", "has to be named"), ("webapp:2.0.0", "2.0.0")] {
        let access = json!({"type": "helm", "helmRepository": "oci://reg.example/acme/charts", "helmChart": chart});
        let error = session.helm_chart(&access, None).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let access =
        json!({"type": "helm", "helmRepository": "oci://reg.example/acme", "helmChart": "image:1"});
    let error = session.helm_chart(&access, None).await.unwrap_err();
    assert!(error.to_string().contains("is no Helm chart"), "{error}");
}

#[tokio::test]
async fn commits_come_as_github_archives_them() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let archive = noise(100_000, 7);
    let served = archive.clone();
    // Archives are made as they are asked for: no length, no ranges.
    let files = WebServer::start(move |_: Asked| {
        Answer::ok(served.clone())
            .unmeasured()
            .header("etag", "W/\"1\"")
    })
    .await;
    let to = files.url();
    let api = WebServer::start(move |asked| {
        let path = format!("/repos/acme/app/tarball/{COMMIT}");
        let found = asked.path == path || asked.path == format!("/api/v3{path}");
        match found && asked.header("authorization") == "Bearer t" {
            true => Answer::new(302).header("location", format!("{to}/acme-app.tgz?token=1")),
            false => Answer::missing(),
        }
    })
    .await;
    let identity = |server: &WebServer| json!({"type": "Github", "hostname": "127.0.0.1", "port": server.addr.port().to_string(), "scheme": "http"});
    let document = json!({"type": "credentials.config.ocm.software", "consumers": [{
        "identity": identity(&api), "credentials": [{"type": "GitHubCredentials/v1", "token": "t"}],
    }]});
    let mut config = config(&[("api.github.com", &api), ("git.example", &api)]);
    config.credentials = Arc::new(Consumers::from_documents([&document]).unwrap());
    let known = Session::new(config).unwrap();
    for url in ["https://github.com/acme/app", "git.example/acme/app.git"] {
        let access = json!({"type": "gitHub", "repoUrl": url, "commit": COMMIT});
        let found = blob(&known, access.clone(), None).await.unwrap();
        assert_eq!(found.media_type, "application/x-tgz");
        for _ in 0..2 {
            assert!(found.read(1 << 20).await.unwrap() == archive, "{url}");
        }
        let stated = Digest::sha256(&archive);
        assert!(read(&known, access, Some(&stated)).await.unwrap() == archive);
    }
    assert!(
        files
            .log()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );

    let stranger = session(&[("api.github.com", &api)]);
    let access = json!({"type": "GitHub", "repoUrl": "github.com/acme/app", "commit": COMMIT});
    let error = read(&stranger, access, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .contains("read commit 0123456789ab of github.com/acme/app"),
        "{error}"
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("GitHubRepository")),
        "{error}"
    );
}
