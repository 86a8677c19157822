//! A server on a free port, and a client that sends exactly what it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ocm_content::{MemoryStores, RawManifest, Stores};
use ocm_registry::{Registry, RegistryConfig, Running};
use ocm_specs::media_type::{OCI_EMPTY, OCI_LAYER_TAR};
use ocm_specs::oci::{Descriptor, Manifest};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) stores: MemoryStores,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// Did the body end as announced?
    pub(crate) complete: bool,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut RegistryConfig)) -> Self {
        let stores = MemoryStores::new();
        let mut config = RegistryConfig::new(Arc::new(stores.clone()));
        configure(&mut config);
        let running = Registry::bind(config, ([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        Self { running, stores }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.running.addr
    }

    pub(crate) async fn call(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, &[], b"").await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        call(self.addr(), method, path, headers, body).await
    }

    /// Pushes a blob and gives the link to it.
    pub(crate) async fn blob(&self, name: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
        let link = Descriptor::of(media_type, bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={}", link.digest);
        self.send("POST", &path, &[], bytes).await.is(201);
        link
    }

    /// An image with its parts pushed; `seed` makes it differ from others.
    pub(crate) async fn image(&self, name: &str, seed: &str) -> Manifest {
        let config = self.blob(name, OCI_EMPTY, b"{}").await;
        let layer = self.blob(name, OCI_LAYER_TAR, seed.as_bytes()).await;
        Manifest::image(config, vec![layer])
    }

    pub(crate) async fn put(&self, name: &str, reference: &str, manifest: &RawManifest) -> Answer {
        self.send(
            "PUT",
            &format!("/v2/{name}/manifests/{reference}"),
            &[("content-type", &manifest.media_type)],
            &manifest.bytes,
        )
        .await
    }

    /// Pushes an image under a tag.
    pub(crate) async fn tagged(&self, name: &str, tag: &str, seed: &str) -> RawManifest {
        let manifest = RawManifest::write(&self.image(name, seed).await);
        self.put(name, tag, &manifest).await.is(201);
        manifest
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        self.stores.repositories().await.unwrap()
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{:?} {body}", self.headers);
        self
    }

    /// An error with that status and code.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) -> Self {
        let answer = self.is(status);
        let errors = &answer.json()["errors"];
        assert_eq!(errors[0]["code"], code, "{errors}");
        assert!(errors[0]["message"].is_string(), "{errors}");
        answer
    }

    #[track_caller]
    pub(crate) fn has(self, header: &str, value: &str) -> Self {
        assert_eq!(self.header(header), Some(value), "{header}");
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Where an upload goes on.
    #[track_caller]
    pub(crate) fn location(&self) -> String {
        self.header("location").unwrap().to_owned()
    }
}

pub(crate) async fn call(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    let named = |name: &str| headers.iter().any(|(found, _)| *found == name);
    if !named("host") {
        head.push_str(&format!("host: {addr}\r\n"));
    }
    if !named("content-length") && !named("transfer-encoding") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    raw(addr, &[head.as_bytes(), body].concat(), method == "HEAD").await
}

/// Sends these bytes and reads until the server closes the connection.
pub(crate) async fn raw(addr: SocketAddr, request: &[u8], head_only: bool) -> Answer {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let mut answer = Vec::new();
    // A server may answer and close before it has read everything.
    let (_, _) = tokio::join!(writer.write_all(request), reader.read_to_end(&mut answer));
    parse(&answer, head_only)
}

fn parse(answer: &[u8], head_only: bool) -> Answer {
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(answer)));
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body = answer[end + 4..].to_vec();
    let announced = headers.get("content-length").map(|text| text.parse().ok());
    let complete = head_only || announced.is_none_or(|length| length == Some(body.len()));
    Answer {
        status: status.parse().unwrap(),
        headers,
        body,
        complete,
    }
}
