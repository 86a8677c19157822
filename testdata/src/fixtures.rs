//! Content to move around: an image index, a Helm chart, referrers, plain blobs. Made in memory, the same bytes each time.
//!
//! *Invariant*: archives have no time, no owner and a fixed order, so that equal inputs give equal digests.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ocm_content::{Blob, ContentStore, RawManifest, Result, Stored};
use ocm_specs::Digest;
use ocm_specs::media_type::{
    DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, HELM_CHART_LAYER, HELM_CONFIG, OCI_CONFIG, OCI_EMPTY,
    OCI_INDEX, OCI_LAYER_TAR, OCI_LAYER_TAR_GZIP, OCI_MANIFEST,
};
use ocm_specs::oci::{Annotations, Descriptor, Manifest};
use serde_json::{Value, json};

/// An artifact with all its parts, in memory.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The root: a manifest or an index.
    pub root: RawManifest,
    /// The manifests below an index, in its order.
    pub children: Vec<RawManifest>,
    /// Configs and layers, each once, in the order in which manifests name them.
    pub blobs: Vec<Blob>,
}

impl Fixture {
    /// The artifact in a tar, as component versions keep it beside their descriptor: an OCI image layout, or an artifact set
    /// as v1 writes it, compressed.
    pub async fn archive(&self, form: ArchiveForm, tag: &str) -> Blob {
        let layout = form == ArchiveForm::Layout;
        let mut blobs = std::collections::BTreeMap::new();
        for manifest in self.children.iter().chain([&self.root]) {
            blobs.insert(manifest.digest.clone(), manifest.bytes.clone());
        }
        for blob in &self.blobs {
            let bytes = blob.read(1 << 30).await.expect("it is in memory");
            blobs.insert(Digest::sha256(&bytes), bytes);
        }
        let mut link = self.root.descriptor();
        link.annotations = Some(if layout {
            annotations([("org.opencontainers.image.ref.name", tag)])
        } else {
            annotations([
                ("org.opencontainers.image.ref.name", tag),
                ("software.ocm/tags", tag),
            ])
        });
        let mut index = Manifest::index(vec![link]);
        if !layout {
            let main = self.root.digest.to_string();
            index.annotations = Some(annotations([("software.ocm/main", &main)]));
        }
        let index = RawManifest::write(&index).bytes;
        let separator = if layout { "/" } else { "." };
        let names = blobs.keys().map(|digest| {
            let (algorithm, hex) = (digest.algorithm(), digest.hex());
            format!("blobs/{algorithm}{separator}{hex}")
        });
        let names: Vec<String> = names.collect();
        let head = [
            ("index.json", index),
            (
                "oci-layout",
                Bytes::from(r#"{"imageLayoutVersion":"1.0.0"}"#),
            ),
        ];
        let body = names.iter().map(String::as_str).zip(blobs.into_values());
        let media_type = if layout {
            "application/vnd.ocm.software.oci.layout.v1+tar+gzip".to_owned()
        } else {
            format!("{}+tar+gzip", self.root.media_type)
        };
        Blob::from_bytes(media_type, gzip(&tar(head.into_iter().chain(body))))
    }

    fn single(root: RawManifest, blobs: Vec<Blob>) -> Self {
        Self {
            root,
            children: Vec::new(),
            blobs,
        }
    }

    /// Puts it into a store, parts first, and gives the artifact there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn push(&self, store: &Arc<dyn ContentStore>, tag: Option<&str>) -> Result<Stored> {
        for blob in &self.blobs {
            store.push(blob, &[]).await?;
        }
        for child in &self.children {
            store.put_manifest(child, None).await?;
        }
        store.put_manifest(&self.root, tag).await?;
        Ok(Stored {
            root: self.root.descriptor(),
            store: store.clone(),
            tag: tag.map(str::to_owned),
        })
    }
}

/// How an artifact is kept in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// An OCI image layout.
    Layout,
    /// An artifact set.
    Set,
}

/// Bytes without any pattern, the same for the same `seed`.
pub fn noise(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

/// The text of [`local_blob`].
pub const LOCAL_BLOB_TEXT: &str = "# deployed beside the application\nlevel: info\n";

/// A small text, as component versions keep it beside their descriptor.
pub fn local_blob() -> Blob {
    Blob::from_bytes("application/yaml", LOCAL_BLOB_TEXT)
}

/// The media types of one family.
struct Family {
    index: &'static str,
    manifest: &'static str,
    config: &'static str,
    layer: &'static str,
}

const OCI: Family = Family {
    index: OCI_INDEX,
    manifest: OCI_MANIFEST,
    config: OCI_CONFIG,
    layer: OCI_LAYER_TAR_GZIP,
};

const DOCKER: Family = Family {
    index: DOCKER_MANIFEST_LIST,
    manifest: DOCKER_MANIFEST,
    config: "application/vnd.docker.container.image.v1+json",
    layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
};

/// An image index for linux/amd64 and linux/arm64. The two images share their first layer; the second differs.
pub fn image_index() -> Fixture {
    platforms(&OCI)
}

/// The same as a Docker manifest list with Docker's media types all through.
pub fn docker_manifest_list() -> Fixture {
    platforms(&DOCKER)
}

fn platforms(family: &Family) -> Fixture {
    let layer = |files: &[(&str, &str)]| layer(family.layer, files);
    let base = layer(&[
        ("etc/os-release", "NAME=fixture\nVERSION_ID=1\n"),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ]);
    let mut blobs = Vec::new();
    let mut children = Vec::new();
    let mut links = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let program = format!("the program for {architecture}\n");
        let layers = [base.clone(), layer(&[("usr/bin/app", &program)])];
        let config = image_config(family, architecture, &layers);
        let manifest = image_manifest(family, &config, &layers);
        let mut link = manifest.descriptor();
        link.platform = Some(json!({"architecture": architecture, "os": "linux"}));
        links.push(link);
        children.push(manifest);
        for blob in [&config, &layers[0].blob, &layers[1].blob] {
            add(&mut blobs, blob);
        }
    }
    let mut index = Manifest::index(links);
    index.media_type = Some(family.index.to_owned());
    if family.index == OCI_INDEX {
        let title = "org.opencontainers.image.title";
        index.annotations = Some(annotations([(title, "a fixture for two platforms")]));
    }
    Fixture {
        root: RawManifest::write(&index),
        children,
        blobs,
    }
}

/// One image of `layers` uncompressed layers of `size` bytes each, without any pattern.
pub fn image(layers: usize, size: usize) -> Fixture {
    let layers: Vec<Layer> = (0..layers as u64)
        .map(|seed| {
            let bytes = noise(size, seed);
            Layer {
                content: Digest::sha256(&bytes),
                blob: Blob::from_bytes(OCI_LAYER_TAR, bytes),
            }
        })
        .collect();
    let config = image_config(&OCI, "amd64", &layers);
    let root = image_manifest(&OCI, &config, &layers);
    let mut blobs = vec![config];
    for layer in &layers {
        add(&mut blobs, &layer.blob);
    }
    Fixture::single(root, blobs)
}

/// An artifact that refers to `subject`: a signature, a bill of materials.
pub fn referrer(subject: &Descriptor, artifact_type: &str, payload: &str) -> Fixture {
    let config = Blob::from_bytes(OCI_EMPTY, "{}");
    let layer = Blob::from_bytes("application/json", payload.to_owned());
    let links = [&config, &layer].map(descriptor);
    let [config_link, layer_link] = links;
    let mut manifest = Manifest::image(config_link, vec![layer_link]);
    manifest.artifact_type = Some(artifact_type.to_owned());
    manifest.subject = Some(Descriptor::new(
        subject.media_type.clone(),
        subject.digest.clone(),
        subject.size,
    ));
    Fixture::single(RawManifest::write(&manifest), vec![config, layer])
}

/// Name of the chart.
pub const CHART_NAME: &str = "webapp";

/// Version of the chart.
pub const CHART_VERSION: &str = "1.4.0";

/// The chart's `values.yaml`: comments, three kinds of quotes, images in several places.
pub const CHART_VALUES: &str = "\
# Values of the web application.
# Comments, order and quotes matter to those who read it.
replicaCount: 2   # at least two

image:
  # where it comes from
  repository: ghcr.io/acme/webapp   # without the tag
  tag: \"1.4.0\"
  digest: ''
  pullPolicy: IfNotPresent

sidecars:
  - name: 'proxy'
    image: \"ghcr.io/acme/proxy:2.1\"
  - {name: metrics, image: 'ghcr.io/acme/metrics:0.9'}

service: {type: ClusterIP, port: 8080}

motd: |
  Welcome to the web application,
  # this is no comment.

# The subchart below; its own values are in charts/cache.
cache:
  enabled: true
  image:
    repository: 'docker.io/library/redis'
";

/// The subchart's `values.yaml`.
pub const SUBCHART_VALUES: &str = "\
image:
  repository: docker.io/library/redis
  tag: '7.2'   # quoted: not a number

persistence:
  size: 1Gi
";

/// The chart's files below its folder, in the order of the archive.
pub const CHART_FILES: &[(&str, &str)] = &[
    (
        "Chart.yaml",
        "\
apiVersion: v2
name: webapp
description: A web application for tests
type: application
version: 1.4.0
appVersion: \"1.4.0\"
dependencies:
  - name: cache
    version: 0.3.1
    repository: \"\"
    condition: cache.enabled
",
    ),
    ("values.yaml", CHART_VALUES),
    (
        "templates/_helpers.tpl",
        "\
{{- define \"webapp.image\" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag }}{{ end }}
{{- end }}
",
    ),
    (
        "templates/deployment.yaml",
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-webapp
spec:
  replicas: {{ .Values.replicaCount }}
  selector:
    matchLabels: {app: webapp}
  template:
    metadata:
      labels: {app: webapp}
    spec:
      containers:
        - name: webapp
          image: {{ include \"webapp.image\" . | quote }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
        {{- range .Values.sidecars }}
        - name: {{ .name }}
          image: {{ .image | quote }}
        {{- end }}
",
    ),
    (
        "charts/cache/Chart.yaml",
        "\
apiVersion: v2
name: cache
description: A cache for tests
version: 0.3.1
",
    ),
    ("charts/cache/values.yaml", SUBCHART_VALUES),
    (
        "charts/cache/templates/pod.yaml",
        "\
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-cache
spec:
  containers:
    - name: cache
      image: \"{{ .Values.image.repository }}:{{ .Values.image.tag }}\"
",
    ),
];

/// The chart as `helm package` gives it: a gzip-compressed tar of [`CHART_FILES`] below a folder of the chart's name.
pub fn chart_archive() -> Bytes {
    packaged(CHART_NAME, CHART_FILES)
}

fn packaged(name: &str, files: &[(&str, &str)]) -> Bytes {
    let files: Vec<(String, &str)> = files
        .iter()
        .map(|(path, text)| (format!("{name}/{path}"), *text))
        .collect();
    let files = files.iter().map(|(path, text)| (path.as_str(), *text));
    gzip(&tar(files))
}

/// The chart as `helm push` puts it into a registry.
pub fn chart() -> Fixture {
    let config = json!({
        "name": CHART_NAME,
        "version": CHART_VERSION,
        "description": "A web application for tests",
        "apiVersion": "v2",
        "appVersion": "1.4.0",
        "dependencies": [{"name": "cache", "version": "0.3.1", "repository": "", "condition": "cache.enabled"}],
        "type": "application",
    });
    chart_of(&config, CHART_FILES)
}

/// A chart of these files, with `Chart.yaml` as JSON for its config: `name`, `version` and `description` at least.
pub fn chart_of(config: &Value, files: &[(&str, &str)]) -> Fixture {
    let field = |name: &str| config[name].as_str().unwrap_or_default();
    let layer = Blob::from_bytes(HELM_CHART_LAYER, packaged(field("name"), files));
    let annotations = annotations([
        ("org.opencontainers.image.description", field("description")),
        ("org.opencontainers.image.title", field("name")),
        ("org.opencontainers.image.version", field("version")),
    ]);
    let config = Blob::from_bytes(HELM_CONFIG, config.to_string());
    let mut manifest = Manifest::image(descriptor(&config), vec![descriptor(&layer)]);
    manifest.annotations = Some(annotations);
    Fixture::single(RawManifest::write(&manifest), vec![config, layer])
}

/// A tar of these files, without times and owners.
pub fn tar<'a, C: AsRef<[u8]>>(files: impl IntoIterator<Item = (&'a str, C)>) -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    let written = files.into_iter().try_for_each(|(path, content)| {
        let content = content.as_ref();
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, path, content)
    });
    let bytes: io::Result<Vec<u8>> = written.and_then(|()| archive.into_inner());
    bytes.expect("writing to memory can't fail").into()
}

/// Compresses, without a time in the header.
pub fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(bytes);
    let compressed: io::Result<Vec<u8>> = written.and_then(|()| encoder.finish());
    compressed.expect("writing to memory can't fail").into()
}

/// A layer, and the digest of its content without compression.
#[derive(Clone)]
struct Layer {
    blob: Blob,
    content: Digest,
}

fn layer(media_type: &str, files: &[(&str, &str)]) -> Layer {
    let content = tar(files.iter().copied());
    Layer {
        blob: Blob::from_bytes(media_type, gzip(&content)),
        content: Digest::sha256(&content),
    }
}

fn image_config(family: &Family, architecture: &str, layers: &[Layer]) -> Blob {
    let contents: Vec<Value> = layers
        .iter()
        .map(|layer| layer.content.to_string().into())
        .collect();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/usr/bin/app"]},
        "rootfs": {"type": "layers", "diff_ids": contents},
    });
    Blob::from_bytes(family.config, config.to_string())
}

fn image_manifest(family: &Family, config: &Blob, layers: &[Layer]) -> RawManifest {
    let layers = layers.iter().map(|layer| descriptor(&layer.blob));
    let mut manifest = Manifest::image(descriptor(config), layers.collect());
    manifest.media_type = Some(family.manifest.to_owned());
    RawManifest::write(&manifest)
}

fn descriptor(blob: &Blob) -> Descriptor {
    blob.descriptor()
        .expect("a blob made of bytes has a digest and a size")
}

fn add(blobs: &mut Vec<Blob>, blob: &Blob) {
    if blobs.iter().all(|known| known.digest != blob.digest) {
        blobs.push(blob.clone());
    }
}

fn annotations<const N: usize>(pairs: [(&str, &str); N]) -> Annotations {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use ocm_content::{MemoryStores, Stores as _};

    use super::*;

    #[tokio::test]
    async fn fixtures_are_whole() {
        let stores = MemoryStores::new();
        let store = stores.store("fixtures").expect("a valid name");
        let index = image_index();
        for (fixture, tag) in [
            (index.clone(), "index"),
            (docker_manifest_list(), "docker"),
            (image(3, 10_000), "image"),
            (chart(), "chart"),
            (referrer(&index.root.descriptor(), "x/sbom", "{}"), "sbom"),
        ] {
            // The store refuses what lacks a part.
            let stored = fixture.push(&store, Some(tag)).await.expect("whole");
            assert_eq!(store.resolve(tag).await.expect("it is there"), stored.root);
        }
        let referrers = store.referrers(&index.root.digest).await;
        assert_eq!(referrers.expect("a list").len(), 1);
        let shared = index.children.iter().map(|child| child.parse());
        let shared: Vec<Manifest> = shared.collect::<Result<_>>().expect("manifests");
        let layers: Vec<_> = shared.iter().map(|image| image.blobs().nth(1)).collect();
        assert_eq!(layers[0], layers[1]);
        assert_eq!(index.blobs.len(), 5, "two configs, three layers");
    }

    #[test]
    fn fixtures_are_the_same_each_time() {
        assert_eq!(image_index().root, image_index().root);
        assert_eq!(chart().root, chart().root);
        assert_eq!(noise(1001, 1), noise(2000, 1).slice(..1001));
        assert_ne!(noise(100, 1), noise(100, 2));
    }

    #[test]
    fn the_chart_unpacks() {
        let archive = chart_archive();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&archive[..]));
        let mut found = Vec::new();
        for entry in archive.entries().expect("a tar") {
            let mut entry = entry.expect("a tar entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            found.push((path, text));
        }
        let expected: Vec<_> = CHART_FILES
            .iter()
            .map(|(path, text)| (format!("webapp/{path}"), (*text).to_owned()))
            .collect();
        assert_eq!(found, expected);
    }
}
