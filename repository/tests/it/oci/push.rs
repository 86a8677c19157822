//! Writing to registries that stumble, forget, lie and lead astray.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use ocm_content::{Access, Blob, ByteStream, Error, ErrorKind, Outcome, Result, Source};
use ocm_repository::credentials::Anonymous;
use ocm_repository::oci::ClientConfig;
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Reply, Request, Server};
use super::{client, config, outcome, sample, store};

const TYPE: &str = "application/x-test";

/// Bytes in pieces of 7, that can be read once or again, and may break.
#[derive(Debug)]
struct Pieces {
    bytes: Vec<u8>,
    access: Access,
    breaks: bool,
    opened: AtomicUsize,
}

impl Pieces {
    fn new(bytes: &[u8], access: Access) -> Arc<Self> {
        Arc::new(Self {
            bytes: bytes.to_owned(),
            access,
            breaks: false,
            opened: AtomicUsize::new(0),
        })
    }
}

impl Source for Pieces {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let before = self.opened.fetch_add(1, Ordering::SeqCst);
        let start = usize::try_from(offset)
            .expect("small")
            .min(self.bytes.len());
        let mut pieces: Vec<Result<_>> = self.bytes[start..]
            .chunks(7)
            .map(|piece| Ok(piece.to_vec().into()))
            .collect();
        if self.breaks {
            pieces.push(Err(Error::new(ErrorKind::Io, "the disk is gone")));
        }
        let consumed = self.access == Access::Once && before > 0;
        Box::pin(async move {
            match consumed {
                true => Err(Error::new(ErrorKind::Consumed, "read again")),
                false => Ok(Box::pin(stream::iter(pieces)) as ByteStream),
            }
        })
    }

    fn access(&self) -> Access {
        self.access
    }
}

/// What a small registry of one repository has.
#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    sessions: BTreeMap<String, Vec<u8>>,
    opened: usize,
}

/// Says something else than the registry would, if it wants to. Gets the request and how many of its method came before.
type Fault = fn(&Request, usize, &mut State) -> Option<Reply>;

/// A small registry that does what it should except where `fault` has its way.
async fn registry(fault: Fault) -> (Server, Arc<Mutex<State>>) {
    let state = Arc::new(Mutex::new(State::default()));
    let shared = state.clone();
    let counts = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let server = Server::start(move |request, _| {
        let mut counts = counts.lock().expect("a lock");
        let count = counts.entry(request.method.clone()).or_default();
        let mut state = shared.lock().expect("a lock");
        let reply =
            fault(&request, *count, &mut state).unwrap_or_else(|| good(&request, &mut state));
        *count += 1;
        async move { reply }
    })
    .await;
    (server, state)
}

fn parameter(request: &Request, name: &str) -> Option<String> {
    let url = url::Url::parse(&format!("http://h{}", request.target)).expect("a URL");
    let found = url.query_pairs().find(|(found, _)| found == name);
    found.map(|(_, value)| value.into_owned())
}

fn good(request: &Request, state: &mut State) -> Reply {
    let path = request
        .target
        .split('?')
        .next()
        .unwrap_or_default()
        .to_owned();
    let session = path
        .strip_prefix("/session/")
        .unwrap_or_default()
        .to_owned();
    let there = |bytes: &[u8]| {
        Reply::new(204)
            .header(
                "location",
                format!("/session/{session}?state={}", bytes.len()),
            )
            .header("range", format!("0-{}", bytes.len().max(1) - 1))
    };
    match (request.method.as_str(), session.is_empty()) {
        ("HEAD", _) => {
            let digest = path.rsplit('/').next().unwrap_or_default();
            Reply::new(if state.blobs.contains_key(digest) {
                200
            } else {
                404
            })
        }
        ("POST", _) => {
            if parameter(request, "mount").is_some_and(|digest| state.blobs.contains_key(&digest)) {
                return Reply::new(201);
            }
            state.opened += 1;
            state.sessions.insert(state.opened.to_string(), Vec::new());
            Reply::new(202).header("location", format!("/session/{}?state=new", state.opened))
        }
        ("PATCH", false) => {
            let Some(bytes) = state.sessions.get_mut(&session) else {
                return Reply::new(404);
            };
            let range = request.header("content-range").unwrap_or_default();
            assert!(
                range.starts_with(&format!("{}-", bytes.len())),
                "{range} at {}",
                bytes.len()
            );
            bytes.extend_from_slice(&request.body);
            there(bytes)
        }
        ("GET", false) => state
            .sessions
            .get(&session)
            .map_or(Reply::new(404), |bytes| there(bytes)),
        ("PUT", false) => {
            let Some(mut bytes) = state.sessions.remove(&session) else {
                return Reply::new(404);
            };
            bytes.extend_from_slice(&request.body);
            let digest = parameter(request, "digest").unwrap_or_default();
            if Digest::sha256(&bytes).to_string() != digest {
                return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
            }
            state.blobs.insert(digest, bytes);
            Reply::new(201)
        }
        ("DELETE", false) => {
            state.sessions.remove(&session);
            Reply::new(204)
        }
        _ => Reply::new(405),
    }
}

/// Methods of the requests, in order.
fn methods(server: &Server) -> String {
    let methods: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.method)
        .collect();
    methods.join(" ")
}

fn chunked() -> ClientConfig {
    ClientConfig {
        chunk_threshold: 40,
        chunk_size: 30,
        replay_size: 30,
        ..config()
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_survive_what_registries_do() {
    let known = |access| (access, true);
    let unknown = |access| (access, false);
    let (again, once) = (Access::Reopenable, Access::Once);
    let well: Fault = |_, _, _| None;
    let busy: Fault = |request, n, _| (request.method == "PUT" && n == 0).then(|| Reply::new(503));
    let lost: Fault = |request, n, state| {
        (request.method == "PUT" && n == 0).then(|| {
            good(request, state);
            Reply::none()
        })
    };
    let forgets: Fault = |request, n, state| {
        (request.method == "PATCH" && n == 1).then(|| {
            state.sessions.clear();
            Reply::new(404)
        })
    };
    let half: Fault = |request, n, state| {
        (request.method == "PATCH" && n == 1).then(|| {
            let request = Request {
                body: request.body[..10].to_vec(),
                ..request.clone()
            };
            good(&request, state);
            Reply::new(500)
        })
    };
    let takes_part: Fault = |request, n, state| {
        (request.method == "PATCH" && n == 1).then(|| {
            let request = Request {
                body: request.body[..10].to_vec(),
                ..request.clone()
            };
            good(&request, state)
        })
    };
    let wants_more: Fault = |request, _, state| {
        (request.method == "POST")
            .then(|| good(request, state).header("oci-chunk-min-length", "64"))
    };
    let first: Fault =
        |request, n, _| (request.method == "PATCH" && n == 0).then(|| Reply::new(502));
    for (name, fault, size, (access, has_digest), expected) in [
        ("one request", well, 40, known(again), "POST PUT"),
        (
            "busy, one request",
            busy,
            40,
            known(again),
            "POST PUT DELETE POST PUT",
        ),
        (
            "answer lost, one request",
            lost,
            40,
            known(again),
            "POST PUT DELETE POST",
        ),
        (
            "chunks",
            well,
            100,
            known(again),
            "POST PATCH PATCH PATCH PATCH PUT",
        ),
        (
            "a chunk half arrived",
            half,
            100,
            known(again),
            "POST PATCH PATCH GET PATCH PATCH PUT",
        ),
        (
            "a chunk half taken",
            takes_part,
            100,
            known(again),
            "POST PATCH PATCH PATCH PATCH PUT",
        ),
        (
            "the first chunk refused",
            first,
            100,
            known(again),
            "POST PATCH GET PATCH PATCH PATCH PATCH PUT",
        ),
        (
            "session forgotten",
            forgets,
            100,
            known(again),
            "POST PATCH PATCH POST PATCH PATCH PATCH PATCH PUT",
        ),
        (
            "closed twice",
            busy,
            100,
            known(again),
            "POST PATCH PATCH PATCH PATCH PUT HEAD PUT",
        ),
        (
            "closed, answer lost",
            lost,
            100,
            known(again),
            "POST PATCH PATCH PATCH PATCH PUT HEAD",
        ),
        (
            "large chunks wanted",
            wants_more,
            100,
            known(again),
            "POST PATCH PATCH PUT",
        ),
        (
            "read once",
            well,
            100,
            known(once),
            "POST PATCH PATCH PATCH PUT",
        ),
        ("read once, small", well, 30, known(once), "POST PUT"),
        (
            "read once, half arrived",
            half,
            100,
            known(once),
            "POST PATCH PATCH GET PATCH PATCH PUT",
        ),
        (
            "unknown digest",
            well,
            100,
            unknown(once),
            "POST PATCH PATCH PATCH PUT",
        ),
        ("unknown digest, small", well, 29, unknown(once), "POST PUT"),
        ("unknown digest, empty", well, 0, unknown(once), "POST PUT"),
        (
            "unknown digest, half arrived",
            half,
            100,
            unknown(once),
            "POST PATCH PATCH GET PATCH PATCH PUT",
        ),
        (
            "unknown digest, half taken",
            takes_part,
            100,
            unknown(once),
            "POST PATCH PATCH PATCH PATCH PUT",
        ),
        (
            "unknown digest, large chunks",
            wants_more,
            100,
            unknown(once),
            "POST PATCH PATCH PUT",
        ),
        (
            "unknown digest, forgotten",
            forgets,
            100,
            unknown(again),
            "POST PATCH PATCH POST PATCH PATCH PATCH PUT",
        ),
    ] {
        let bytes = sample(size);
        let link = Descriptor::of(TYPE, &bytes);
        let source = Pieces::new(&bytes, access);
        let blob = match has_digest {
            true => Blob::described(&link, source),
            false => Blob::new(TYPE, source),
        };
        let (server, state) = registry(fault).await;
        match store(&server, chunked()).push(&blob, &[]).await {
            Ok(pushed) => assert_eq!(pushed.descriptor, link, "{name}"),
            Err(error) => panic!("{name}: {error:?} {}", methods(&server)),
        }
        assert_eq!(methods(&server), expected, "{name}");
        let state = state.lock().expect("a lock");
        assert_eq!(
            state.blobs.get(&link.digest.to_string()),
            Some(&bytes),
            "{name}"
        );
        assert!(state.sessions.is_empty(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn uploads_that_can_not_work_leave_nothing() {
    let bytes = sample(100);
    let link = Descriptor::of(TYPE, &bytes);
    let source = |breaks, access| {
        Arc::new(Pieces {
            bytes: bytes.clone(),
            access,
            breaks,
            opened: AtomicUsize::new(0),
        })
    };
    let good_source = || Blob::described(&link, Pieces::new(&bytes, Access::Reopenable));
    let well: Fault = |_, _, _| None;
    let elsewhere: Fault = |request, _, _| {
        (request.method == "POST")
            .then(|| Reply::new(202).header("location", "http://127.0.0.1:1/s"))
    };
    let nowhere: Fault = |request, _, _| (request.method == "POST").then(|| Reply::new(202));
    let moves: Fault = |request, _, _| {
        (request.method == "PUT").then(|| Reply::new(307).header("location", "/other"))
    };
    let lies: Fault = |request, _, state| {
        (request.method == "PUT").then(|| {
            good(request, state);
            let other = Digest::sha256(b"other").to_string();
            Reply::new(201).header("docker-content-digest", other)
        })
    };
    let mounts_another: Fault = |request, _, _| {
        let other = Digest::sha256(b"other").to_string();
        (request.method == "POST").then(|| Reply::new(201).header("docker-content-digest", other))
    };
    let busy: Fault = |request, _, _| (request.method == "PUT").then(|| Reply::new(503));
    let boasts: Fault = |request, _, _| {
        (request.method == "PATCH").then(|| Reply::new(202).header("range", "0-999"))
    };
    let full: Fault = |request, _, _| (request.method == "PUT").then(|| Reply::new(413));
    let wrong = Descriptor::new(TYPE, Digest::sha256(b"promised"), 100);
    let long = Descriptor::new(TYPE, link.digest.clone(), 101);
    let whole = config;
    for (name, fault, blob, config, expected, asked) in [
        (
            "broken source",
            well,
            Blob::described(&link, source(true, Access::Reopenable)),
            whole(),
            "the disk is gone (io)",
            "POST PUT DELETE",
        ),
        (
            "broken source, chunks",
            well,
            Blob::described(&link, source(true, Access::Reopenable)),
            chunked(),
            "the disk is gone (io)",
            "POST PATCH PATCH PATCH PATCH DELETE",
        ),
        (
            "broken source, read once",
            well,
            Blob::new(TYPE, source(true, Access::Once)),
            chunked(),
            "the disk is gone (io)",
            "POST PATCH PATCH PATCH DELETE",
        ),
        (
            "wrong bytes",
            well,
            Blob::described(&wrong, source(false, Access::Reopenable)),
            whole(),
            "(mismatch)",
            "POST PUT DELETE",
        ),
        (
            "wrong bytes, chunks",
            well,
            Blob::described(&wrong, source(false, Access::Reopenable)),
            chunked(),
            "(mismatch)",
            "POST PATCH PATCH PATCH PATCH DELETE",
        ),
        (
            "too few bytes",
            well,
            Blob::described(&long, source(false, Access::Reopenable)),
            whole(),
            "ended after 100 of 101 bytes (mismatch)",
            "POST PUT DELETE",
        ),
        (
            "location elsewhere",
            elsewhere,
            good_source(),
            whole(),
            "which is another place (invalid)",
            "POST",
        ),
        (
            "no location",
            nowhere,
            good_source(),
            whole(),
            "names no upload location (invalid)",
            "POST",
        ),
        (
            "a redirected upload",
            moves,
            good_source(),
            whole(),
            "followed for reads only (invalid)",
            "POST PUT DELETE",
        ),
        (
            "another digest",
            lies,
            good_source(),
            whole(),
            "(mismatch)",
            "POST PUT",
        ),
        (
            "another digest mounted",
            mounts_another,
            good_source(),
            whole(),
            "(mismatch)",
            "POST",
        ),
        (
            "always busy",
            busy,
            good_source(),
            whole(),
            "(3 attempts): the registry answers 503",
            "POST PUT DELETE POST PUT DELETE POST PUT DELETE",
        ),
        (
            "too large",
            full,
            good_source(),
            whole(),
            "413 Payload Too Large (limit)",
            "POST PUT DELETE",
        ),
        (
            "more than was sent",
            boasts,
            good_source(),
            chunked(),
            "has 1000 bytes of an upload of which 30 were sent",
            "POST PATCH DELETE",
        ),
    ] {
        let (server, state) = registry(fault).await;
        let found = outcome(store(&server, config).push(&blob, &[]).await);
        assert!(found.contains(expected), "{name}: {found}");
        assert!(
            found.contains("push") || found.contains("upload") || found.contains("disk"),
            "{name}: {found}"
        );
        // A request that our side breaks off may be seen by the server or not.
        let seen = methods(&server);
        let unbroken = |text: &str| {
            text.replacen("PUT ", "", 1)
                .replacen("PATCH DELETE", "DELETE", 1)
        };
        assert!(
            seen == asked || seen == unbroken(asked),
            "{name}: {seen}, expected {asked}"
        );
        let state = state.lock().expect("a lock");
        assert!(
            name.starts_with("another digest") || state.blobs.is_empty(),
            "{name}"
        );
        assert!(
            state.sessions.is_empty()
                || asked.contains("POST PUT DELETE")
                || !asked.contains("DELETE"),
            "{name}"
        );
    }
}

/// A registry that opens sessions and then takes no byte of a body.
async fn deaf() -> (String, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let host = listener.local_addr().expect("an address").to_string();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).await.unwrap_or(0);
            if head[..length].starts_with(b"POST") {
                let answer = b"HTTP/1.1 202 Yes\r\nlocation: /s\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(answer).await;
            } else if head[..length].starts_with(b"DELETE") {
                let answer = b"HTTP/1.1 204 Yes\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            } else {
                open.push(stream);
            }
        }
    });
    (host, tasks)
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_takes_ends() {
    let (host, _tasks) = deaf().await;
    let mut config = config();
    config.timeouts.stall = Duration::from_secs(20);
    config.timeouts.commit = Duration::from_secs(500);
    let client = client(config, Anonymous);
    let store = client.store(&host, "acme/x").expect("a store");
    // More than the buffers on the way hold; and little enough that they do hold it.
    for (size, expected) in [
        (
            64 << 20,
            "(3 attempts): the registry takes no byte for 20 seconds (unavailable)",
        ),
        (
            10,
            "the registry has all bytes and does not answer for 500 seconds (unavailable)",
        ),
    ] {
        let blob = Blob::from_bytes(TYPE, vec![0; size]);
        let chunks: Vec<Bytes> = {
            let bytes = blob.read(1 << 30).await.expect("memory");
            (0..size)
                .step_by(1 << 16)
                .map(|at| bytes.slice(at..size.min(at + (1 << 16))))
                .collect()
        };
        let blob = blob.with_source(Arc::new(Slices(chunks)));
        let found = outcome(store.push(&blob, &[]).await);
        assert!(found.contains(expected), "{found}");
    }
}

/// The same pieces again and again.
#[derive(Debug)]
struct Slices(Vec<Bytes>);

impl Source for Slices {
    fn open(&self, _: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let pieces = self.0.clone().into_iter().map(Ok);
        Box::pin(async move { Ok(Box::pin(stream::iter(pieces)) as ByteStream) })
    }
}

#[tokio::test]
async fn a_registry_that_stumbles_over_a_mount_is_remembered() {
    for status in [400, 404, 405] {
        let fault: Fault = match status {
            400 => |request, _, _| request.target.contains("mount=").then(|| Reply::new(400)),
            404 => |request, _, _| request.target.contains("mount=").then(|| Reply::new(404)),
            _ => |request, _, _| request.target.contains("mount=").then(|| Reply::new(405)),
        };
        let (server, _) = registry(fault).await;
        let store = store(&server, config());
        for (text, expected) in [
            ("a", Outcome::Sent),
            ("a", Outcome::Present),
            ("b", Outcome::Sent),
        ] {
            let pushed = store.push(&Blob::from_bytes(TYPE, text), &[]).await;
            assert_eq!(pushed.expect("push").outcome, expected, "{status}");
        }
        assert_eq!(
            methods(&server),
            "POST HEAD POST PUT HEAD HEAD POST PUT",
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_can_not_be_mounted_is_looked_for_and_sent() {
    let refuses: Fault = |request, _, _| {
        request
            .target
            .contains("from=acme%2Fy")
            .then(|| Reply::new(403))
    };
    let opens: Fault = |request, _, state| {
        let plain = Request {
            target: "/v2/acme/x/blobs/uploads/".to_owned(),
            ..request.clone()
        };
        request
            .target
            .contains("from=acme%2Fy")
            .then(|| good(&plain, state))
    };
    for (fault, requests) in [
        (refuses, ["POST POST PUT", "POST POST"]),
        (opens, ["POST HEAD PUT", "POST HEAD DELETE"]),
    ] {
        let (server, _) = registry(fault).await;
        let store = store(&server, config());
        let mut before = 0;
        for (expected, outcome) in requests.iter().zip([Outcome::Sent, Outcome::Present]) {
            let blob = Blob::from_bytes(TYPE, "a");
            let pushed = store.push(&blob, &["acme/y".to_owned()]).await;
            assert_eq!(pushed.expect("push").outcome, outcome);
            let all = server.requests();
            let methods: Vec<&str> = all[before..]
                .iter()
                .map(|request| request.method.as_str())
                .collect();
            assert_eq!(methods.join(" "), *expected);
            before = all.len();
        }
    }
}
