use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::sync::Notify;

use super::*;
use crate::blob::{Access, ByteStream, Source};
use crate::limits::{Host, LimitsConfig};
use crate::memory::MemoryStores;
use crate::store::Stores;

/// A repository on a host that writes down what it is asked.
#[derive(Debug)]
struct Spy {
    inner: Arc<dyn ContentStore>,
    host: &'static str,
    calls: Mutex<Vec<&'static str>>,
    /// Blobs the host says it does not have, once each, when a manifest is put.
    lose: Mutex<Vec<Descriptor>>,
}

impl Spy {
    fn new(stores: &MemoryStores, host: &'static str, repository: &str) -> Arc<Self> {
        Arc::new(Self {
            inner: stores.store(repository).unwrap(),
            host,
            calls: Mutex::default(),
            lose: Mutex::default(),
        })
    }

    fn call(&self, name: &'static str) {
        self.calls.lock().unwrap().push(name);
    }

    fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

#[async_trait]
impl ContentStore for Spy {
    fn location(&self) -> String {
        format!("oci://{}/{}", self.host, self.inner.repository())
    }
    fn host(&self) -> Option<Host> {
        Some(Host::new(self.host))
    }
    fn repository(&self) -> String {
        self.inner.repository()
    }
    fn fetch(&self, descriptor: &Descriptor) -> Blob {
        self.inner.fetch(descriptor)
    }
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.call("exists");
        self.inner.exists(descriptor).await
    }
    async fn push(&self, blob: &Blob, mount_from: &[String]) -> Result<Pushed> {
        self.call("push");
        tokio::task::yield_now().await;
        self.inner.push(blob, mount_from).await
    }
    async fn manifest(&self, reference: &str) -> Result<RawManifest> {
        self.call("manifest");
        self.inner.manifest(reference).await
    }
    async fn put_manifest(&self, manifest: &RawManifest, tag: Option<&str>) -> Result<()> {
        self.call("put");
        let lost = std::mem::take(&mut *self.lose.lock().unwrap());
        for blob in lost {
            self.inner.delete(&blob).await?;
        }
        self.inner.put_manifest(manifest, tag).await
    }
    async fn resolve(&self, reference: &str) -> Result<Descriptor> {
        self.call("resolve");
        self.inner.resolve(reference).await
    }
    async fn tags(&self) -> Result<Vec<String>> {
        self.inner.tags().await
    }
    async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        self.call("referrers");
        self.inner.referrers(subject).await
    }
}

/// Two places and a copier between them.
struct Bench {
    from: Arc<Spy>,
    to: Arc<Spy>,
    target: Arc<dyn ContentStore>,
    target_stores: MemoryStores,
    copier: Copier,
}

fn bench() -> Bench {
    let target_stores = MemoryStores::with_limit("target", 1 << 30);
    let from = Spy::new(&MemoryStores::new(), "from.example", "acme/app");
    let to = Spy::new(&target_stores, "to.example", "mirror/app");
    let config = LimitsConfig {
        transfers_per_host: 1,
        small_transfers_per_host: 1,
        ..LimitsConfig::default()
    };
    Bench {
        from,
        target: to.clone(),
        to,
        target_stores,
        copier: Copier::new(Limits::new(config), Locations::new()),
    }
}

async fn push(store: &dyn ContentStore, media_type: &str, text: &str) -> Descriptor {
    let blob = Blob::from_bytes(media_type, text.to_owned());
    store.push(&blob, &[]).await.unwrap().descriptor
}

async fn image(store: &dyn ContentStore, name: &str, tag: Option<&str>) -> Descriptor {
    let config = push(
        store,
        media_type::OCI_CONFIG,
        &format!("{{\"n\":\"{name}\"}}"),
    )
    .await;
    let one = push(store, media_type::OCI_LAYER_TAR, &format!("{name} one")).await;
    let shared = push(store, media_type::OCI_LAYER_TAR, "shared layer").await;
    put(store, Manifest::image(config, vec![one, shared]), tag).await
}

async fn put(store: &dyn ContentStore, manifest: Manifest, tag: Option<&str>) -> Descriptor {
    let raw = RawManifest::write(&manifest);
    store.put_manifest(&raw, tag).await.unwrap();
    raw.descriptor()
}

/// Something that refers to `subject`.
async fn signature(store: &dyn ContentStore, subject: &Descriptor, name: &str) -> Descriptor {
    let config = push(store, media_type::OCI_EMPTY, "{}").await;
    let layer = push(store, "application/x-signature", name).await;
    let mut manifest = Manifest::image(config, vec![layer]);
    manifest.subject = Some(subject.clone());
    put(store, manifest, None).await
}

fn stored(bench: &Bench, root: &Descriptor, tag: &str) -> Artifact {
    Artifact::Stored(Stored {
        root: root.clone(),
        store: bench.from.clone(),
        tag: Some(tag.to_owned()),
    })
}

#[tokio::test]
async fn an_index_arrives_whole_and_the_second_time_costs_one_request() {
    let bench = bench();
    let source = bench.from.inner.clone();
    let (a, b) = (
        image(source.as_ref(), "a", None).await,
        image(source.as_ref(), "b", None).await,
    );
    let inner = put(source.as_ref(), Manifest::index(vec![b]), None).await;
    let index = Manifest::index(vec![a.clone(), inner, a.clone()]);
    let root = put(source.as_ref(), index, Some("1.0")).await;
    let artifact = stored(&bench, &root, "1.0");

    let prepared = bench
        .copier
        .prepare(&artifact, &bench.target, Some("1.0"))
        .await
        .unwrap();
    assert!(bench.target.tags().await.unwrap().is_empty());
    assert!(!bench.target.exists(&root).await.unwrap());
    prepared.publish(Some("1.0")).await.unwrap();
    let raw = bench.target.manifest("1.0").await.unwrap();
    assert_eq!(raw, source.manifest("1.0").await.unwrap());
    assert!(bench.target.exists(&a).await.unwrap());

    // With referrers off and on: contracts.md 9, `requests_per_artifact_noop`.
    for (referrers, calls) in [
        (Referrers::None, vec![]),
        (Referrers::All, vec!["referrers"]),
    ] {
        bench.to.take_calls();
        bench.from.take_calls();
        let copier = Copier::new(bench.copier.limits.clone(), Locations::new())
            .with_options(CopyOptions { referrers });
        copier
            .copy(&artifact, &bench.target, Some("1.0"))
            .await
            .unwrap();
        assert_eq!(bench.to.take_calls(), ["resolve"]);
        assert_eq!(bench.from.take_calls(), calls);
    }
    // Another tag of the same artifact moves no blob.
    bench
        .copier
        .copy(&artifact, &bench.target, Some("latest"))
        .await
        .unwrap();
    assert_eq!(bench.target.tags().await.unwrap(), ["1.0", "latest"]);
    assert!(!bench.to.take_calls().contains(&"push"));
}

#[tokio::test]
async fn referrers_follow_their_subject_and_those_of_referrers_too() {
    let bench = bench();
    let source = bench.from.inner.clone();
    let child = image(source.as_ref(), "a", None).await;
    let index = Manifest::index(vec![child.clone()]);
    let root = put(source.as_ref(), index, Some("1")).await;
    let sbom = signature(source.as_ref(), &root, "sbom").await;
    let of_sbom = signature(source.as_ref(), &sbom, "signature of the sbom").await;
    let of_child = signature(source.as_ref(), &child, "signature of the child").await;
    let artifact = stored(&bench, &root, "1");
    bench
        .copier
        .copy(&artifact, &bench.target, Some("1"))
        .await
        .unwrap();
    for (subject, referrer) in [(&root, &sbom), (&sbom, &of_sbom), (&child, &of_child)] {
        let listed = bench.target.referrers(&subject.digest).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].digest, referrer.digest);
    }
    // All there: one request more on either side.
    bench.to.take_calls();
    bench.from.take_calls();
    let copy = bench.copier.copy(&artifact, &bench.target, Some("1"));
    copy.await.unwrap();
    assert_eq!(bench.to.take_calls(), ["resolve", "referrers"]);
    assert_eq!(bench.from.take_calls(), ["referrers"]);
    // A new one comes alone.
    let late = signature(source.as_ref(), &root, "late").await;
    let copy = bench.copier.copy(&artifact, &bench.target, Some("1"));
    copy.await.unwrap();
    assert!(bench.target.exists(&late).await.unwrap());
}

#[tokio::test]
async fn a_blob_that_was_collected_before_the_manifest_is_pushed_again() {
    let bench = bench();
    let source = bench.from.inner.clone();
    let root = image(source.as_ref(), "a", None).await;
    let artifact = stored(&bench, &root, "1");
    let prepared = bench
        .copier
        .prepare(&artifact, &bench.target, None)
        .await
        .unwrap();
    let manifest = prepared.manifest().await.unwrap().parse().unwrap();
    *bench.to.lose.lock().unwrap() = manifest.layers.unwrap();
    prepared.publish(Some("1")).await.unwrap();
    assert!(bench.target.exists(&root).await.unwrap());
}

/// Bytes that can be read once.
#[derive(Debug)]
struct OnceBytes(Mutex<Option<Bytes>>);

fn once(text: &'static str) -> Blob {
    let source = OnceBytes(Mutex::new(Some(Bytes::from_static(text.as_bytes()))));
    Blob::new(media_type::OCTET_STREAM, Arc::new(source))
}

impl Source for OnceBytes {
    fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let taken = self.0.lock().unwrap().take();
        Box::pin(async move {
            let bytes = taken.ok_or_else(|| Error::new(ErrorKind::Consumed, "read before"))?;
            Ok(Box::pin(stream::iter([Ok(bytes)])) as ByteStream)
        })
    }
    fn access(&self) -> Access {
        Access::Once
    }
}

#[tokio::test]
async fn a_composed_manifest_changes_where_its_parts_do() {
    let bench = bench();
    let source = bench.from.inner.clone();
    let config = push(source.as_ref(), media_type::OCI_CONFIG, "{}").await;
    let mut layers = Vec::new();
    for text in ["zero", "one", "two"] {
        layers.push(push(source.as_ref(), media_type::OCI_LAYER_TAR, text).await);
    }
    let link = |d: &Descriptor, extra: &str| {
        format!(
            r#"{{{extra}"size":{},"digest":"{}","mediaType":"{}"}}"#,
            d.size, d.digest, d.media_type
        )
    };
    let text = format!(
        r#"{{"zeta":[1,{{"b":1,"a":2}}],"layers":[{},{},{}],"config":{},"schemaVersion":2,"x":"<&>"}}"#,
        link(&layers[0], ""),
        link(
            &layers[1],
            r#""data":"b25l","annotations":{"b":"1","a":"2"},"#
        ),
        link(&layers[2], ""),
        link(&config, "")
    );
    let template = RawManifest::new(media_type::OCI_MANIFEST, text.clone());
    let composed = |replaced: BTreeMap<Part, Blob>, dropped: Vec<usize>| Composed {
        template: template.clone(),
        store: source.clone(),
        replaced,
        dropped,
        tag: None,
    };
    let new = Descriptor::of(media_type::OCI_LAYER_TAR, b"other");
    let changed = text
        .replace(&format!("{},", link(&layers[0], "")), "")
        .replace(r#""data":"b25l","#, "")
        .replace(&layers[1].digest.to_string(), &new.digest.to_string())
        .replace("<&>", "\\u003c\\u0026\\u003e")
        .replacen(
            &format!(r#""size":3,"digest":"{}""#, new.digest),
            &format!(r#""size":5,"digest":"{}""#, new.digest),
            1,
        );
    for (composed, expected) in [
        (composed(BTreeMap::new(), vec![]), text.clone()),
        // Replaced by the same bytes: nothing changes, not even the encoding.
        (
            composed([(Part::Layer(1), once("one"))].into(), vec![]),
            text.clone(),
        ),
        (
            composed([(Part::Layer(1), once("other"))].into(), vec![0]),
            changed,
        ),
    ] {
        let artifact = Artifact::Composed(composed);
        let prepared = bench
            .copier
            .prepare(&artifact, &bench.target, None)
            .await
            .unwrap();
        prepared.publish(Some("t")).await.unwrap();
        let raw = bench.target.manifest("t").await.unwrap();
        assert_eq!(std::str::from_utf8(&raw.bytes).unwrap(), expected);
        assert_eq!(raw.digest, prepared.root.digest);
    }
    for (replaced, dropped, message) in [
        (Some(Part::Layer(3)), vec![], "there is no layer 3"),
        (None, vec![7], "there is no layer 7"),
        (Some(Part::Layer(1)), vec![1], "both replaced and dropped"),
    ] {
        let replaced = replaced.into_iter().map(|part| (part, once("x"))).collect();
        let artifact = Artifact::Composed(composed(replaced, dropped));
        let error = bench.copier.prepare(&artifact, &bench.target, None).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn foreign_layers_are_left_out_with_a_warning_and_inline_data_serves() {
    let bench = bench();
    let source = bench.from.inner.clone();
    let mut foreign = Descriptor::of(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        b"windows",
    );
    foreign.urls = Some(vec!["https://elsewhere.example/base".to_owned()]);
    let mut config = Descriptor::of(media_type::OCI_EMPTY, b"{}");
    config.data = Some("e30=".to_owned());
    let raw = RawManifest::write(&Manifest::image(config.clone(), vec![foreign]));
    // Stores refuse a manifest without its parts: this one comes from a store that has none of them.
    let artifact = Artifact::Composed(Composed {
        template: raw,
        store: source,
        replaced: BTreeMap::new(),
        dropped: vec![],
        tag: None,
    });
    let prepared = bench
        .copier
        .prepare(&artifact, &bench.target, None)
        .await
        .unwrap();
    assert_eq!(prepared.warnings.len(), 1, "{:?}", prepared.warnings);
    assert!(bench.target.exists(&config).await.unwrap());
}

/// Counts its openings; fails the first ones; waits for a word before it gives bytes.
#[derive(Debug)]
struct Slow {
    opened: Arc<AtomicUsize>,
    failures: usize,
    go: Arc<Notify>,
}

impl Source for Slow {
    fn open(&self, _offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let number = self.opened.fetch_add(1, Ordering::SeqCst);
        let (fails, go) = (number < self.failures, self.go.clone());
        Box::pin(async move {
            go.notified().await;
            if fails {
                return Err(Error::new(ErrorKind::Unavailable, "not now"));
            }
            let bytes = Bytes::from_static(b"large");
            Ok(Box::pin(stream::iter([Ok(bytes)])) as ByteStream)
        })
    }
}

#[tokio::test]
async fn one_digest_goes_to_one_host_once_and_a_failure_lets_the_next_try() {
    for (failures, openings, drop_first) in [(0, 1, false), (1, 2, false), (0, 2, true)] {
        let bench = bench();
        let opened = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let slow = Slow {
            opened: opened.clone(),
            failures,
            go: go.clone(),
        };
        let blob =
            Blob::new("text/plain", Arc::new(slow)).expect_content(Digest::sha256(b"large"), 5);
        let targets: Vec<Arc<dyn ContentStore>> = ["a", "b", "c", "c"]
            .iter()
            .map(|name| Spy::new(&bench.target_stores, "to.example", name) as Arc<dyn ContentStore>)
            .collect();
        let first = bench.copier.push(&blob, &targets[0]);
        let mut first = Box::pin(first);
        assert!(futures::poll!(first.as_mut()).is_pending());
        // The store yields before it opens.
        assert!(futures::poll!(first.as_mut()).is_pending());
        let others = join_all(targets[1..].iter().map(|to| bench.copier.push(&blob, to)));
        let mut others = Box::pin(others);
        assert!(futures::poll!(others.as_mut()).is_pending());
        assert_eq!(opened.load(Ordering::SeqCst), 1, "only one reads");
        if drop_first {
            drop(first);
            go.notify_one();
            let outcomes: Vec<_> = others.await.into_iter().map(Result::unwrap).collect();
            assert_eq!(outcomes[0].outcome, Outcome::Sent);
        } else {
            let (first, others) = tokio::join!(first, async {
                go.notify_one();
                tokio::task::yield_now().await;
                if failures > 0 {
                    let feed = async {
                        loop {
                            tokio::task::yield_now().await;
                            go.notify_one();
                        }
                    };
                    tokio::select! { others = others => others, () = feed => unreachable!() }
                } else {
                    others.await
                }
            });
            assert_eq!(first.is_err(), failures > 0);
            for pushed in others {
                let expected = [Outcome::Sent, Outcome::Mounted, Outcome::Present];
                assert!(expected.contains(&pushed.unwrap().outcome));
            }
        }
        assert_eq!(opened.load(Ordering::SeqCst), openings);
        assert!(bench.copier.locations.is_idle(), "no flight is left behind");
    }
}

#[tokio::test]
async fn deep_and_wide_artifacts_are_refused() {
    let bench = bench();
    let source = bench.from.inner.clone();
    let mut link = image(source.as_ref(), "a", None).await;
    for _ in 0..=DEPTH_LIMIT {
        link = put(source.as_ref(), Manifest::index(vec![link]), None).await;
    }
    let error = bench
        .copier
        .prepare(&stored(&bench, &link, "t"), &bench.target, None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");

    let children = (0..=MANIFESTS_LIMIT)
        .map(|n| Descriptor::of(media_type::OCI_MANIFEST, n.to_string().as_bytes()))
        .collect();
    let artifact = Artifact::Composed(Composed {
        template: RawManifest::write(&Manifest::index(children)),
        store: source,
        replaced: BTreeMap::new(),
        dropped: vec![],
        tag: None,
    });
    let error = bench.copier.prepare(&artifact, &bench.target, None).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn a_link_that_lies_about_the_size_is_refused() {
    let bench = bench();
    let one = image(bench.from.as_ref(), "one", None).await;
    let mut lying = one.clone();
    lying.size += 1;
    let index = put(
        bench.from.as_ref(),
        Manifest::index(vec![lying.clone()]),
        None,
    )
    .await;
    for root in [lying, index] {
        let artifact = stored(&bench, &root, "1");
        let refused = bench.copier.copy(&artifact, &bench.target, Some("1")).await;
        let error = refused.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(bench.to.tags().await.unwrap_or_default().is_empty());
    }
}
