//! What the tests of step types share: a run's surroundings, a chart in memory, a step run by its JSON.

use std::sync::Arc;

use bytes::Bytes;
use ocm_content::limits::LimitsConfig;
use ocm_content::{
    Artifact, Blob, Content, ContentStore, Limits, MemoryStores, RawManifest, Stored, Stores,
};
use ocm_engine::{Context, StepContext, StepError, StepTypes};
use ocm_specs::media_type::{HELM_CHART_LAYER, HELM_CONFIG, HELM_PROVENANCE_LAYER};
use ocm_specs::oci::{Descriptor, Manifest};
use serde_json::Value as Json;

/// The surroundings of a step `id`, with one CPU permit for all.
pub(crate) fn surroundings(id: &str) -> StepContext {
    let limits = Limits::new(LimitsConfig {
        cpu: 1,
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    });
    StepContext::alone(Context::new(limits, Arc::new(())), id)
}

/// Runs a step of the types of this crate.
pub(crate) async fn run(cx: &StepContext, step_type: &str, spec: Json) -> Result<Json, StepError> {
    let types = crate::with_conversions(StepTypes::new());
    let step_type = types.get(step_type).expect("a step type");
    Ok(step_type.run(cx.clone(), spec).await?.output)
}

/// The content behind an output field.
pub(crate) async fn content(cx: &StepContext, reference: &Json) -> Content {
    let reference = serde_json::from_value(reference.clone()).expect("a content reference");
    cx.content(&reference).await.expect("content")
}

/// The bytes behind an output field.
pub(crate) async fn bytes(cx: &StepContext, reference: &Json) -> Bytes {
    match content(cx, reference).await {
        Content::Blob(blob) => blob.read(1 << 24).await.expect("bytes"),
        other => panic!("{other:?} is no blob"),
    }
}

/// A store in memory.
pub(crate) fn store() -> Arc<dyn ContentStore> {
    MemoryStores::new().store("acme/charts").expect("a store")
}

/// Puts an artifact with these layers into `store`, under the tag `1.0.0`.
pub(crate) async fn put(
    store: &Arc<dyn ContentStore>,
    config: (&str, &str),
    layers: &[(&str, Bytes)],
) -> Stored {
    let blob = |media_type: &str, bytes: Bytes| Blob::from_bytes(media_type, bytes);
    let config = blob(config.0, Bytes::copy_from_slice(config.1.as_bytes()));
    let config = store.push(&config, &[]).await.expect("config").descriptor;
    let mut links = Vec::new();
    for (at, (media_type, bytes)) in layers.iter().enumerate() {
        let pushed = store.push(&blob(media_type, bytes.clone()), &[]).await;
        let mut link = pushed.expect("layer").descriptor;
        link.annotations = Some([("n".to_owned(), at.to_string())].into());
        links.push(link);
    }
    put_manifest(store, Manifest::image(config, links)).await
}

/// Puts a manifest or index under the tag `1.0.0`.
pub(crate) async fn put_manifest(store: &Arc<dyn ContentStore>, manifest: Manifest) -> Stored {
    let raw = RawManifest::write(&manifest);
    store
        .put_manifest(&raw, Some("1.0.0"))
        .await
        .expect("manifest");
    Stored {
        root: raw.descriptor(),
        store: store.clone(),
        tag: Some("1.0.0".to_owned()),
    }
}

/// A chart with a provenance file.
pub(crate) async fn chart(content: Bytes) -> Stored {
    let layers = [
        (HELM_PROVENANCE_LAYER, Bytes::from_static(b"signed")),
        (HELM_CHART_LAYER, content),
    ];
    put(&store(), (HELM_CONFIG, r#"{"name":"c"}"#), &layers).await
}

/// The layers of an artifact's manifest as it is known before anything is read.
pub(crate) async fn layers(artifact: &Artifact) -> Vec<Descriptor> {
    let manifest = match artifact {
        Artifact::Stored(stored) => {
            let digest = stored.root.digest.to_string();
            let raw = stored.store.manifest(&digest).await.expect("manifest");
            assert_eq!(raw.digest, stored.root.digest);
            raw.parse()
        }
        Artifact::Composed(composed) => composed.template.parse(),
    };
    manifest.expect("parses").layers.unwrap_or_default()
}
