//! Leaving things out: resources of a component, layers of an artifact.
//!
//! Invariant: what stays is as it was, in its order; nothing is read but manifests.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use globset::GlobMatcher;
use ocm_content::{Artifact, Composed, Error, RawManifest, Stored};
use ocm_engine::language::Expression;
use ocm_engine::{ContentRef, Effect, Outcome, StepContext, StepError, Transformer};
use ocm_specs::media_type;
use ocm_specs::oci::{Descriptor, Manifest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::convert::DataOutput;
use crate::image::{artifact, glob, is_runnable};
use crate::overlay::Overlay;
use crate::resource::{component_fields, resources, resources_mut};

/// Indexes within indexes that are followed.
const INDEX_DEPTH: usize = 4;
/// Manifests that are looked at for one artifact.
const MANIFESTS: usize = 1000;

/// `filter.resource`: leaves resources out of a descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilterResource;

/// Inputs of [`FilterResource`]. A resource stays when everything that is given holds for it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterResourceSpec {
    /// The component descriptor.
    pub component_descriptor: Json,
    /// A condition over `resource` and `component`, written without `${}`: `resource.type == "ociImage"`.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The resource's name; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The resource's type; `*` stands for any characters.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// Labels that it has, with these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, Json>>,
}

/// Outputs of [`FilterResource`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterResourceOutput {
    /// The descriptor with the resources that stay.
    pub descriptor: Json,
    /// The resources that stay.
    pub resources: Vec<Json>,
    /// The resources that were left out.
    pub removed: Vec<Json>,
}

impl Transformer for FilterResource {
    const TYPE: &'static str = "filter.resource/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Leaves resources out of a component descriptor.";
    const EXAMPLE: &'static str = "\
- id: images
  type: filter.resource/v1alpha1
  spec:
    componentDescriptor: ${download1.output.descriptor}
    where: resource.type == \"ociImage\"
";

    type Spec = FilterResourceSpec;
    type Output = FilterResourceOutput;

    async fn run(
        &self,
        _: StepContext,
        mut spec: FilterResourceSpec,
    ) -> Result<Outcome<FilterResourceOutput>, StepError> {
        let mut descriptor = spec.component_descriptor.take();
        let filter = ResourceFilter::new(&spec)?;
        let at = |error| StepError::at("componentDescriptor", error);
        let all = resources(&descriptor).map_err(at)?;
        let component = component_fields(&descriptor);
        let (mut kept, mut removed) = (Vec::new(), Vec::new());
        for resource in all {
            if filter.keeps(resource, &component)? {
                kept.push(resource.clone());
            } else {
                removed.push(resource.clone());
            }
        }
        if let Some(list) = resources_mut(&mut descriptor).map_err(at)? {
            list.clone_from(&kept);
        }
        Ok(Outcome::new(FilterResourceOutput {
            descriptor,
            resources: kept,
            removed,
        }))
    }
}

struct ResourceFilter<'a> {
    condition: Option<Expression>,
    name: Option<GlobMatcher>,
    resource_type: Option<GlobMatcher>,
    labels: Option<&'a BTreeMap<String, Json>>,
}

impl<'a> ResourceFilter<'a> {
    fn new(spec: &'a FilterResourceSpec) -> Result<Self, StepError> {
        let pattern = |field: &str, text: &Option<String>| {
            let glob = text.as_deref().map(glob).transpose();
            glob.map_err(|error| StepError::at(field, error))
        };
        let condition = spec.condition.as_deref().map(Expression::parse).transpose();
        let condition = condition.map_err(|error| {
            let message = format!("at byte {}: {error}", error.offset);
            StepError::at("where", Error::invalid(message))
        })?;
        let filter = Self {
            condition,
            name: pattern("name", &spec.name)?,
            resource_type: pattern("type", &spec.resource_type)?,
            labels: spec.labels.as_ref(),
        };
        if filter.condition.is_none()
            && filter.name.is_none()
            && filter.resource_type.is_none()
            && filter.labels.is_none()
        {
            let error = Error::invalid("nothing says which resources stay")
                .with_hint("give one of `where`, `name`, `type`, `labels`");
            return Err(error.into());
        }
        Ok(filter)
    }

    fn keeps(&self, resource: &Json, component: &Json) -> Result<bool, StepError> {
        let text = |field: &str| {
            resource
                .get(field)
                .and_then(Json::as_str)
                .unwrap_or_default()
        };
        let matches = |glob: &Option<GlobMatcher>, field: &str| {
            glob.as_ref().is_none_or(|glob| glob.is_match(text(field)))
        };
        Ok(matches(&self.name, "name")
            && matches(&self.resource_type, "type")
            && self.has_labels(resource)
            && self.holds(resource, component)?)
    }

    fn has_labels(&self, resource: &Json) -> bool {
        let labels = resource.get("labels").and_then(Json::as_array);
        self.labels.into_iter().flatten().all(|(name, value)| {
            labels.into_iter().flatten().any(|label| {
                label.get("name").and_then(Json::as_str) == Some(name)
                    && label.get("value").unwrap_or(&Json::Null) == value
            })
        })
    }

    fn holds(&self, resource: &Json, component: &Json) -> Result<bool, StepError> {
        let Some(condition) = &self.condition else {
            return Ok(true);
        };
        let scope = Map::from_iter([
            ("resource".to_owned(), resource.clone()),
            ("component".to_owned(), component.clone()),
        ]);
        let name = resource
            .get("name")
            .and_then(Json::as_str)
            .unwrap_or_default();
        let fail = |message: String, hint: Option<String>| {
            let error = Error::invalid(format!("resource `{name}`: {message}"));
            let error = match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            };
            StepError::at("where", error)
        };
        match condition.evaluate(&scope) {
            Ok(Json::Bool(verdict)) => Ok(verdict),
            Ok(other) => Err(fail(
                format!("the condition gives `{other}`, neither true nor false"),
                None,
            )),
            Err(error) => Err(fail(error.message.clone(), error.hint)),
        }
    }
}

/// `filter.layers.oci`: leaves layers out of an artifact, in all manifests of an index.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilterLayers;

/// Inputs of [`FilterLayers`]: either `remove` or `keep`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterLayersSpec {
    /// The artifact.
    pub data: ContentRef,
    /// Layers that go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<LayerCondition>,
    /// Layers that stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<LayerCondition>,
}

/// What is said about a layer. Everything that is given must hold; `*` stands for any characters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerCondition {
    /// Media types of which it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media_types: Vec<String>,
    /// Annotations that it has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Transformer for FilterLayers {
    const TYPE: &'static str = "filter.layers.oci/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Leaves layers out of an OCI artifact.";
    const EXAMPLE: &'static str = "\
- id: lean
  type: filter.layers.oci/v1alpha1
  spec:
    data: ${download1.output.data}
    remove:
      mediaTypes: [\"application/vnd.example.debug*\"]
";

    type Spec = FilterLayersSpec;
    type Output = DataOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: FilterLayersSpec,
    ) -> Result<Outcome<DataOutput>, StepError> {
        let filter = LayerFilter::new(&spec)?;
        let input = artifact(&cx, &spec.data, "data").await?;
        let mut work = Work::default();
        let output = work.artifact(input, &filter).await?;
        if work.runnable {
            cx.warn("an image lost layers that its config still lists: it will not run");
        }
        Ok(Outcome::new(DataOutput {
            data: cx.offer("data", output).with_lineage(spec.data.lineage),
        }))
    }
}

struct LayerFilter {
    keep: bool,
    media_types: Vec<GlobMatcher>,
    annotations: Vec<(String, GlobMatcher)>,
}

impl LayerFilter {
    fn new(spec: &FilterLayersSpec) -> Result<Self, StepError> {
        let (keep, field, condition) = match (&spec.remove, &spec.keep) {
            (Some(remove), None) => (false, "remove", remove),
            (None, Some(keep)) => (true, "keep", keep),
            _ => return Err(StepError::invalid("give either `remove` or `keep`")),
        };
        let fail = |error| StepError::at(field, error);
        if condition.media_types.is_empty() && condition.annotations.is_empty() {
            return Err(fail(Error::invalid("nothing is said about the layers")));
        }
        let media_types = condition.media_types.iter().map(|text| glob(text));
        let annotations = condition
            .annotations
            .iter()
            .map(|(name, value)| Ok((name.clone(), glob(value)?)));
        Ok(Self {
            keep,
            media_types: media_types.collect::<Result<_, _>>().map_err(fail)?,
            annotations: annotations.collect::<Result<_, Error>>().map_err(fail)?,
        })
    }

    fn keeps(&self, layer: &Descriptor) -> bool {
        let media_type = self.media_types.is_empty()
            || self
                .media_types
                .iter()
                .any(|glob| glob.is_match(&layer.media_type));
        let annotations = self.annotations.iter().all(|(name, glob)| {
            layer
                .annotation(name)
                .is_some_and(|value| glob.is_match(value))
        });
        (media_type && annotations) == self.keep
    }

    /// Numbers of the layers that go.
    fn dropped(&self, manifest: &Manifest) -> BTreeSet<usize> {
        let layers = manifest.layers.iter().flatten().enumerate();
        layers
            .filter(|(_, layer)| !self.keeps(layer))
            .map(|(at, _)| at)
            .collect()
    }
}

/// Changed manifests of one artifact.
#[derive(Default)]
struct Work {
    seen: usize,
    changed: Vec<RawManifest>,
    /// Did an image to be run lose a layer?
    runnable: bool,
}

impl Work {
    async fn artifact(
        &mut self,
        input: Artifact,
        filter: &LayerFilter,
    ) -> Result<Artifact, StepError> {
        match input {
            Artifact::Stored(stored) => {
                let root = self.link(&stored, stored.root.clone(), filter, 0).await?;
                if root == stored.root {
                    return Ok(Artifact::Stored(stored));
                }
                let store = Overlay::new(stored.store, std::mem::take(&mut self.changed));
                Ok(Artifact::Stored(Stored {
                    root,
                    store,
                    tag: stored.tag,
                }))
            }
            Artifact::Composed(mut composed) => {
                let manifest = composed.template.parse()?;
                let gone = self.gone(&manifest, filter, &composed.dropped)?;
                composed.dropped.extend(gone);
                Ok(Artifact::Composed(Composed { ..composed }))
            }
        }
    }

    /// The link to what is left of the manifest or index behind `link`.
    fn link<'a>(
        &'a mut self,
        stored: &'a Stored,
        link: Descriptor,
        filter: &'a LayerFilter,
        depth: usize,
    ) -> BoxFuture<'a, Result<Descriptor, StepError>> {
        Box::pin(async move {
            self.seen += 1;
            if self.seen > MANIFESTS || depth > INDEX_DEPTH {
                let message = format!(
                    "the artifact has more than {MANIFESTS} manifests, or indexes more than {INDEX_DEPTH} levels deep"
                );
                return Err(StepError::at("data", Error::limit(message)));
            }
            let raw = stored.store.manifest(&link.digest.to_string()).await?;
            let before = raw.parse()?;
            let mut after = before.clone();
            if media_type::is_index(&link.media_type) {
                let mut children = Vec::new();
                for child in before.manifests.iter().flatten() {
                    children.push(self.link(stored, child.clone(), filter, depth + 1).await?);
                }
                after.manifests = before.manifests.as_ref().map(|_| children);
            } else {
                let gone = self.gone(&before, filter, &[])?;
                if let Some(layers) = &mut after.layers {
                    let mut at = 0..;
                    layers.retain(|_| at.next().is_some_and(|at| !gone.contains(&at)));
                }
            }
            if after == before {
                return Ok(link);
            }
            let raw = RawManifest::new(raw.media_type, after.to_bytes());
            let changed = Descriptor {
                digest: raw.digest.clone(),
                size: raw.bytes.len() as u64,
                data: None,
                ..link
            };
            self.changed.push(raw);
            Ok(changed)
        })
    }

    /// Numbers of the layers of a manifest that go; not all of them may.
    fn gone(
        &mut self,
        manifest: &Manifest,
        filter: &LayerFilter,
        dropped: &[usize],
    ) -> Result<Vec<usize>, StepError> {
        let mut gone = filter.dropped(manifest);
        gone.retain(|at| !dropped.contains(at));
        let count = manifest.layers.as_ref().map_or(0, Vec::len) - dropped.len();
        if !gone.is_empty() && gone.len() == count {
            let error = Error::invalid("no layer would be left");
            return Err(StepError::at("data", error));
        }
        self.runnable |= !gone.is_empty() && is_runnable(manifest);
        Ok(gone.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ocm_content::Content;
    use serde_json::json;

    use super::*;
    use crate::testing::{content, layers, put, put_manifest, run, store, surroundings};

    async fn check_resources(mut spec: Json, expected: Result<&[&str], &str>) {
        let descriptor = json!({"component": {"name": "acme.org/x", "version": "1", "resources": [
            {"name": "image", "type": "ociImage", "labels": [{"name": "tier", "value": 1}]},
            {"name": "chart", "type": "helmChart", "relation": "local"},
            {"name": "image-debug", "type": "ociImage"},
        ], "other": [1]}, "signatures": []});
        spec["componentDescriptor"] = descriptor.clone();
        let result = run(&surroundings("f"), FilterResource::TYPE, spec.clone()).await;
        match (result, expected) {
            (Ok(output), Ok(names)) => {
                let kept = output["resources"].as_array().expect("a list");
                let found: Vec<&str> = kept.iter().filter_map(|it| it["name"].as_str()).collect();
                assert_eq!(found, names, "{spec}");
                assert_eq!(
                    output["removed"].as_array().map(Vec::len),
                    Some(3 - names.len())
                );
                let mut wanted = descriptor;
                wanted["component"]["resources"] = output["resources"].clone();
                assert_eq!(output["descriptor"], wanted);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (result, expected) => panic!("{spec}: {result:?}, expected {expected:?}"),
        }
    }

    #[tokio::test]
    async fn resources_stay_when_everything_holds() {
        for (spec, expected) in [
            (
                json!({"where": "resource.type == 'ociImage'"}),
                Ok(&["image", "image-debug"][..]),
            ),
            (
                json!({"where": "resource.name.endsWith(component.name)"}),
                Ok(&[]),
            ),
            (json!({"type": "*Chart"}), Ok(&["chart"])),
            (
                json!({"type": "ociImage", "name": "*-debug"}),
                Ok(&["image-debug"]),
            ),
            (json!({"labels": {"tier": 1}}), Ok(&["image"])),
            (json!({"labels": {"tier": "1"}}), Ok(&[])),
            (json!({}), Err("nothing says")),
            (
                json!({"where": "resource.typ == 'x'"}),
                Err("resource `image`"),
            ),
            (
                json!({"where": "resource.name"}),
                Err("neither true nor false"),
            ),
            (json!({"where": "resource. =="}), Err("spec.where: at byte")),
            (json!({"when": "x"}), Err("unknown field `when`")),
        ] {
            check_resources(spec, expected).await;
        }
    }

    const CONFIG: (&str, &str) = ("application/vnd.acme.config", "{}");

    #[tokio::test]
    async fn layers_go_in_all_manifests_of_an_index() {
        let cx = surroundings("f");
        let store = store();
        let layer = |kind: &'static str| (kind, Bytes::from_static(kind.as_bytes()));
        let a = put(
            &store,
            CONFIG,
            &[layer("a/x"), layer("a/debug"), layer("b/y")],
        )
        .await;
        let b = put(&store, CONFIG, &[layer("b/y")]).await;
        let index = Manifest::index(vec![a.root.clone(), b.root.clone()]);
        let index = put_manifest(&store, index).await;
        let data = cx.offer("in", Artifact::Stored(index.clone()));
        for (spec, expected) in [
            (
                json!({"remove": {"mediaTypes": ["a/*"]}}),
                Some(vec![vec!["b/y"], vec!["b/y"]]),
            ),
            (
                json!({"remove": {"annotations": {"n": "1"}}}),
                Some(vec![vec!["a/x", "b/y"], vec!["b/y"]]),
            ),
            (
                json!({"keep": {"mediaTypes": ["?/y", "a/x"]}}),
                Some(vec![vec!["a/x", "b/y"], vec!["b/y"]]),
            ),
            (json!({"remove": {"mediaTypes": ["none"]}}), None),
        ] {
            let mut spec = spec;
            spec["data"] = json!(data);
            let output = run(&cx, FilterLayers::TYPE, spec.clone())
                .await
                .expect("filters");
            let Content::Artifact(Artifact::Stored(found)) = content(&cx, &output["data"]).await
            else {
                panic!("an artifact with a root");
            };
            let Some(expected) = expected else {
                assert_eq!(found.root, index.root);
                continue;
            };
            assert_eq!(output["data"]["digest"], found.root.digest.to_string());
            assert_ne!(found.store.location(), store.location());
            let raw = found
                .store
                .manifest(&found.root.digest.to_string())
                .await
                .expect("index");
            let children = raw.parse().expect("parses").manifests.expect("children");
            assert_eq!(children[1], b.root, "what loses nothing keeps its digest");
            let mut types = Vec::new();
            for root in children {
                let child = Artifact::Stored(Stored {
                    root,
                    ..found.clone()
                });
                types.push(
                    layers(&child)
                        .await
                        .into_iter()
                        .map(|it| it.media_type)
                        .collect::<Vec<_>>(),
                );
            }
            assert_eq!(types, expected, "{spec}");
        }
        for (spec, part) in [
            (
                json!({"remove": {"mediaTypes": ["*"]}}),
                "no layer would be left",
            ),
            (json!({"remove": {}}), "nothing is said"),
            (json!({"remove": {"mediaTypes": ["[z"]}}), "no pattern"),
            (json!({}), "either"),
        ] {
            let mut spec = spec;
            spec["data"] = json!(data);
            let error = run(&cx, FilterLayers::TYPE, spec).await.expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
