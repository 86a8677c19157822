//! Registries that cost next to nothing: a source whose layers are generated, and targets that forget what they are sent.
//!
//! *Invariant*: a process of its own with one thread, so that the processor time of whoever is measured is not theirs. They
//! know as much of the distribution specification as a copy needs.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ocm_content::RawManifest;
use ocm_specs::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_TAR_GZIP};
use ocm_specs::oci::{Descriptor, Manifest};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::Result;
use crate::child::Server;
use crate::content::Generated;

const DIGEST_HEADER: &str = "docker-content-digest";

/// What is served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    /// The layers of the one image of the source.
    pub(crate) layers: Vec<Generated>,
    /// How many targets there are.
    pub(crate) targets: usize,
}

/// Where the registries of a process listen.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Addresses {
    source: SocketAddr,
    targets: Vec<SocketAddr>,
}

/// A process with a source and targets. It ends with this.
#[derive(Debug)]
pub(crate) struct NullRegistries {
    addresses: Addresses,
    _server: Server,
}

impl NullRegistries {
    /// Starts them.
    pub(crate) fn start(config: &Config) -> Result<Self> {
        let server = Server::start("null-registry", &serde_json::to_string(config)?)?;
        Ok(Self {
            addresses: serde_json::from_str(&server.greeting)?,
            _server: server,
        })
    }

    /// The image at the source.
    pub(crate) fn source(&self) -> String {
        format!("{}/bench/source:v1", self.addresses.source)
    }

    /// A name for the image at a target.
    pub(crate) fn target(&self, index: usize) -> String {
        format!("{}/bench/target:v1", self.addresses.targets[index])
    }
}

/// Serves until standard input ends, which is when the parent does.
pub(crate) fn serve(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let image = Arc::new(Image::new(config.layers)?);
        let source = listen().await?;
        let mut addresses = Addresses {
            source: source.local_addr()?,
            targets: Vec::new(),
        };
        let mut serving = JoinSet::new();
        serving.spawn(accept(source, Some(image)));
        for _ in 0..config.targets {
            let target = listen().await?;
            addresses.targets.push(target.local_addr()?);
            serving.spawn(accept(target, None));
        }
        writeln!(io::stdout(), "{}", serde_json::to_string(&addresses)?)?;
        io::stdout().flush()?;
        let mut stdin = tokio::io::stdin();
        tokio::io::copy(&mut stdin, &mut tokio::io::sink()).await?;
        serving.shutdown().await;
        Ok(())
    })
}

/// The one image of a source.
#[derive(Debug)]
struct Image {
    manifest: RawManifest,
    config: Bytes,
    config_digest: String,
    layers: Vec<Generated>,
}

impl Image {
    fn new(layers: Vec<Generated>) -> Result<Self> {
        let ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = Bytes::from(config.to_string());
        let link = Descriptor::of(OCI_CONFIG, &config);
        let config_digest = link.digest.to_string();
        let links = layers.iter().map(|layer| {
            let digest = layer.parsed_digest()?;
            Ok(Descriptor::new(OCI_LAYER_TAR_GZIP, digest, layer.size))
        });
        let manifest = Manifest::image(link, links.collect::<Result<_>>()?);
        Ok(Self {
            manifest: RawManifest::write(&manifest),
            config,
            config_digest,
            layers,
        })
    }
}

async fn accept(listener: TcpListener, image: Option<Arc<Image>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(connect(stream, image.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(stream: TcpStream, image: Option<Arc<Image>>) {
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let image = image.clone();
        async move { Ok::<_, Infallible>(answer(request, image.as_deref()).await) }
    });
    // A client that leaves is no concern of a registry.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, image: Option<&Image>) -> Response<Generator> {
    let path = request.uri().path().to_owned();
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if path == "/v2/" {
        return status(StatusCode::OK);
    }
    if path.contains("/referrers/") {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        return bytes(OCI_INDEX, None, Bytes::from_static(index.as_bytes()));
    }
    match image {
        Some(image) if reading => read(&path, image),
        None if !reading => write(request, &path).await,
        _ => status(StatusCode::NOT_FOUND),
    }
}

fn read(path: &str, image: &Image) -> Response<Generator> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/manifests/") {
        let manifest = &image.manifest;
        let digest = manifest.digest.to_string();
        return bytes(&manifest.media_type, Some(&digest), manifest.bytes.clone());
    }
    if name == image.config_digest {
        return bytes(OCI_CONFIG, Some(name), image.config.clone());
    }
    match image.layers.iter().find(|layer| layer.digest == name) {
        Some(layer) => stream(OCI_LAYER_TAR_GZIP, Some(name), Generator::new(layer)),
        None => status(StatusCode::NOT_FOUND),
    }
}

/// Takes an upload and forgets it.
async fn write(request: Request<Incoming>, path: &str) -> Response<Generator> {
    let session = "/v2/bench/target/blobs/uploads/1";
    let query = request.uri().query().unwrap_or_default().to_owned();
    let last = request
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok()?.rsplit('-').next()?.parse::<u64>().ok());
    let method = request.method().clone();
    let received = drain(request.into_body()).await;
    let mut response = status(match method {
        Method::PUT => StatusCode::CREATED,
        Method::POST | Method::PATCH => StatusCode::ACCEPTED,
        _ => StatusCode::NOT_FOUND,
    });
    let mut header = |name: &str, value: String| {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value.parse()) {
            response.headers_mut().insert(name, value);
        }
    };
    if method == Method::PUT && !path.contains("/manifests/") {
        let digest = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("digest="))
            .unwrap_or_default()
            .replace("%3A", ":");
        header(
            LOCATION.as_str(),
            format!("/v2/bench/target/blobs/{digest}"),
        );
        header(DIGEST_HEADER, digest);
    } else if method != Method::PUT {
        header(LOCATION.as_str(), session.to_owned());
        let last = last.unwrap_or_else(|| received.saturating_sub(1));
        header(RANGE.as_str(), format!("0-{last}"));
    }
    response
}

async fn drain(mut body: Incoming) -> u64 {
    let mut received = 0;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    received
}

fn status(status: StatusCode) -> Response<Generator> {
    let mut response = Response::new(Generator::empty());
    *response.status_mut() = status;
    response
}

fn bytes(media_type: &str, digest: Option<&str>, content: Bytes) -> Response<Generator> {
    stream(media_type, digest, Generator::of(content))
}

fn stream(media_type: &str, digest: Option<&str>, body: Generator) -> Response<Generator> {
    let mut response = Response::builder()
        .header(CONTENT_TYPE, media_type)
        .header(CONTENT_LENGTH, body.left);
    if let Some(digest) = digest {
        response = response.header(DIGEST_HEADER, digest);
    }
    response
        .body(body)
        .unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

/// A body that is made while it is sent.
struct Generator {
    left: u64,
    chunks: Box<dyn Iterator<Item = Bytes> + Send>,
}

impl Generator {
    fn new(content: &Generated) -> Self {
        Self {
            left: content.size,
            chunks: Box::new(content.chunks()),
        }
    }

    fn of(content: Bytes) -> Self {
        Self {
            left: content.len() as u64,
            chunks: Box::new(std::iter::once(content)),
        }
    }

    fn empty() -> Self {
        Self {
            left: 0,
            chunks: Box::new(std::iter::empty()),
        }
    }
}

impl Body for Generator {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.chunks.next();
        self.left -= chunk.as_ref().map_or(0, Bytes::len) as u64;
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
