//! A web server that is no registry: files with ranges and ETags, answers as a test wants them, a Helm repository.
//!
//! *Invariant*: every request is in the [`WebServer::log`], with the headers it came with.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderName, HeaderValue, StatusCode};
use ocm_specs::Digest;
use tokio::net::TcpListener;

/// Time to write what is left before a connection breaks.
const FLUSH: Duration = Duration::from_millis(20);
/// Most bytes of a request's body.
const BODY: usize = 16 << 20;

/// One request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// The path, as it was sent.
    pub path: String,
    /// The query, without `?`.
    pub query: String,
    /// Headers by name in lower case; of several with one name the last.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Bytes,
}

impl Asked {
    /// A header's value; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Method and path, and the range that is asked for.
    pub fn line(&self) -> String {
        let range = self.header("range");
        let blank = if range.is_empty() { "" } else { " " };
        format!("{} {}{blank}{range}", self.method, self.path)
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    cut: Option<usize>,
    measured: bool,
}

impl Answer {
    /// An empty one.
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            cut: None,
            measured: true,
        }
    }

    /// Success.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(200).body(body)
    }

    /// There is nothing.
    pub fn missing() -> Self {
        Self::ok("<html>404</html>").status(404)
    }

    /// A file, or the part of it that is asked for, with an ETag.
    pub fn file(asked: &Asked, body: &Bytes) -> Self {
        let etag = format!("\"{}\"", Digest::sha256(body).short());
        let total = body.len();
        let range = asked.header("range").strip_prefix("bytes=");
        let answer = match range.and_then(|range| range.split_once('-')) {
            Some((first, last)) => {
                let first: usize = first.parse().unwrap_or(0);
                let last = last.parse().unwrap_or(total.saturating_sub(1));
                match first < total {
                    true => {
                        let last = last.min(total - 1);
                        let part = body.slice(first..=last);
                        let range = format!("bytes {first}-{last}/{total}");
                        Self::ok(part).status(206).header("content-range", range)
                    }
                    false => Self::new(416).header("content-range", format!("bytes */{total}")),
                }
            }
            None => Self::ok(body.clone()),
        };
        answer.header("etag", etag).header("accept-ranges", "bytes")
    }

    /// The same with a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same without headers of that name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| found != name);
        self
    }

    /// The same with that body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same with that status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The connection breaks after so many bytes of the body.
    #[must_use]
    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// The length is not told.
    #[must_use]
    pub fn unmeasured(mut self) -> Self {
        self.measured = false;
        self
    }

    fn response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("a status");
        let mut response = Response::builder().status(status);
        for (name, value) in self.headers {
            let name = HeaderName::try_from(name).expect("a header's name");
            let value = HeaderValue::try_from(value).expect("a header's value");
            response = response.header(name, value);
        }
        if self.measured {
            response = response.header("content-length", self.body.len());
        }
        let kept = self.cut.unwrap_or(self.body.len()).min(self.body.len());
        let pieces: Vec<io::Result<Bytes>> = self
            .body
            .slice(..kept)
            .chunks(16 << 10)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let end = stream::iter(self.cut).then(|_| async {
            // What is written already has to leave before the connection does.
            tokio::time::sleep(FLUSH).await;
            Err(io::Error::other("cut"))
        });
        let body = stream::iter(pieces).chain(end);
        response.body(Body::from_stream(body)).expect("a response")
    }
}

/// A server on loopback, which ends with this value.
#[derive(Debug)]
pub struct WebServer {
    /// Where it listens.
    pub addr: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WebServer {
    /// Starts one that answers like that.
    pub async fn start(answer: impl Fn(Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(move |asked| {
            let answer = answer(asked);
            async move { answer }
        })
        .await
    }

    /// Starts one that may take its time.
    pub async fn start_with<F>(answer: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (answer, noted) = (Arc::new(answer), log.clone());
        let router = Router::new().fallback(move |request: Request| {
            let (answer, noted) = (answer.clone(), noted.clone());
            async move {
                let asked = read(request).await;
                noted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(asked.clone());
                answer(asked).await.response()
            }
        });
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { addr, log, task }
    }

    /// A server of these files, by path with `/` in front.
    pub async fn files(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let files: BTreeMap<String, Bytes> = files.into_iter().collect();
        Self::start(move |asked| match files.get(&asked.path) {
            Some(body) => Answer::file(&asked, body),
            None => Answer::missing(),
        })
        .await
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The same as lines (see [`Asked::line`]).
    pub fn lines(&self) -> Vec<String> {
        self.log().iter().map(Asked::line).collect()
    }
}

async fn read(request: Request) -> Asked {
    let (parts, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter();
    Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: axum::body::to_bytes(body, BODY).await.unwrap_or_default(),
    }
}

/// The files of a Helm repository with one chart: its index, the archive, and a provenance file beside it where `signed`.
pub fn helm_repository(
    name: &str,
    version: &str,
    archive: &Bytes,
    signed: bool,
) -> Vec<(String, Bytes)> {
    let digest = Digest::sha256(archive);
    let index = format!(
        "apiVersion: v1\nentries:\n  {name}:\n  - apiVersion: v2\n    created: '2025-01-01T00:00:00Z'\n    digest: {}\n    \
         name: {name}\n    urls:\n    - {name}-{version}.tgz\n    version: {version}\n  - name: {name}\n    urls:\n    - \
         {name}-0.0.1.tgz\n    version: 0.0.1\ngenerated: '2025-01-01T00:00:00Z'\n",
        digest.hex()
    );
    let path = format!("/{name}-{version}.tgz");
    let mut files = vec![
        ("/index.yaml".to_owned(), index.into()),
        (path.clone(), archive.clone()),
    ];
    if signed {
        files.push((format!("{path}.prov"), provenance(name, version, &digest)));
    }
    files
}

/// A provenance file in form; nobody made the signature in it.
pub fn provenance(name: &str, version: &str, digest: &Digest) -> Bytes {
    format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nname: {name}\nversion: {version}\n\n...\nfiles:\n  \
         {name}-{version}.tgz: {digest}\n-----BEGIN PGP SIGNATURE-----\n\nnone\n-----END PGP SIGNATURE-----\n"
    )
    .into()
}
