//! Content that is far larger than memory, and clients that have enough of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use ocm_content::{
    Blob, ByteStream, ContentStore, Error, Pushed, RawManifest, Result, Source, Staging, Stores,
};
use ocm_registry::{Registry, RegistryConfig};
use ocm_specs::Digest;
use ocm_specs::oci::Descriptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SIZE: u64 = 1 << 40;
const CHUNK: usize = 64 << 10;

/// More than a socket holds on both sides, far less than the content.
const BOUND: u64 = 256 << 20;

/// A place where every blob has a tebibyte, and which counts what it gives.
#[derive(Clone, Debug, Default)]
struct Endless {
    given: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
}

/// Tells that the stream it lives in is gone.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Source for Endless {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let (given, guard) = (self.given.clone(), Guard(self.closed.clone()));
        let chunks = (SIZE - offset).div_ceil(CHUNK as u64);
        let stream = stream::iter(0..chunks).map(move |_| {
            let _alive = &guard;
            given.fetch_add(CHUNK as u64, Ordering::Relaxed);
            Ok(Bytes::from_static(&[0; CHUNK]))
        });
        async move { Ok(Box::pin(stream) as ByteStream) }.boxed()
    }
}

fn unsupported<T>() -> Result<T> {
    Err(Error::unsupported("this place has one blob"))
}

#[async_trait]
impl ContentStore for Endless {
    fn location(&self) -> String {
        "endless".to_owned()
    }

    fn repository(&self) -> String {
        "endless".to_owned()
    }

    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        Blob::described(descriptor, Arc::new(self.clone()))
    }

    async fn exists(&self, _: &Descriptor) -> Result<bool> {
        Ok(true)
    }

    async fn blob_size(&self, _: &Digest) -> Result<u64> {
        Ok(SIZE)
    }

    async fn push(&self, _: &Blob, _: &[String]) -> Result<Pushed> {
        unsupported()
    }

    async fn manifest(&self, _: &str) -> Result<RawManifest> {
        unsupported()
    }

    async fn put_manifest(&self, _: &RawManifest, _: Option<&str>) -> Result<()> {
        unsupported()
    }

    async fn resolve(&self, _: &str) -> Result<Descriptor> {
        unsupported()
    }

    async fn tags(&self) -> Result<Vec<String>> {
        unsupported()
    }

    async fn referrers(&self, _: &Digest) -> Result<Vec<Descriptor>> {
        unsupported()
    }
}

#[async_trait]
impl Stores for Endless {
    fn store(&self, _: &str) -> Result<Arc<dyn ContentStore>> {
        Ok(Arc::new(self.clone()))
    }

    async fn repositories(&self) -> Result<Vec<String>> {
        unsupported()
    }

    async fn stage(&self) -> Result<Box<dyn Staging>> {
        unsupported()
    }
}

#[tokio::test]
async fn a_client_that_has_enough() {
    for range in ["", "range: bytes=1099511000000-\r\n", "range: bytes=5-\r\n"] {
        let stores = Endless::default();
        let config = RegistryConfig::new(Arc::new(stores.clone()));
        let addr = ([127, 0, 0, 1], 0).into();
        let running = Registry::bind(config, addr).await.unwrap();
        let mut socket = TcpStream::connect(running.addr).await.unwrap();
        let digest = Digest::sha256(b"");
        let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nhost: a\r\n{range}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut start = vec![0; 500_000];
        socket.read_exact(&mut start).await.unwrap();
        assert!(start.starts_with(b"HTTP/1.1 20"), "{range}");
        drop(socket);
        // The source is let go of, long before its end.
        while !stores.closed.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        let given = stores.given.load(Ordering::Relaxed);
        assert!(given < BOUND, "{range}: {given} bytes");
    }
}

#[tokio::test]
async fn what_a_store_can_not_do_is_said() {
    let config = RegistryConfig::new(Arc::new(Endless::default()));
    let addr = ([127, 0, 0, 1], 0).into();
    let running = Registry::bind(config, addr).await.unwrap();
    let digest = Digest::sha256(b"");
    for (method, path) in [
        ("DELETE", format!("/v2/a/blobs/{digest}")),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}")),
    ] {
        let answer = crate::client::call(running.addr, method, &path, &[], b"").await;
        answer.fails(405, "UNSUPPORTED");
    }
}
