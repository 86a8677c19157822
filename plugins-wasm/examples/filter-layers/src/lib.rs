//! Drops layers of an OCI image layout by their annotations: what is for developers stays with them.
//!
//! Invariant: only documents that lose something are written anew; their digests are followed up to `index.json`. Every
//! document is compared with its digest before it is believed.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::{Deserialize, Serialize};
use ocm_plugin::serde_json::{self, Map, Value as Json};
use ocm_plugin::tar::{Reader, write_file};
use ocm_plugin::{Content, Error, Info, Input, Nothing, Outcome, Port, Sink, Step, Transformer};
use sha2::{Digest, Sha256};

/// Largest document (manifest, index, config), in bytes.
const DOCUMENT: u64 = 4 << 20;
/// All documents together, in bytes.
const DOCUMENTS: usize = 64 << 20;
/// Indexes within indexes.
const DEPTH: usize = 8;
const INDEX: &str = "index.json";
const LAYOUT_TAR: &str = "application/vnd.ocm.software.oci.layout.v1+tar";

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// Layers with any of these annotations are dropped.
    #[schemars(length(min = 1, max = 100))]
    drop: Vec<Rule>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Rule {
    /// The annotation's name.
    annotation: String,
    /// Its value; any without.
    value: Option<String>,
}

#[derive(Serialize, JsonSchema, Default)]
#[serde(crate = "ocm_plugin::serde")]
#[schemars(crate = "ocm_plugin::schemars")]
struct Filtered {
    /// Digests of the layers that were dropped.
    layers: Vec<String>,
    /// Digest of the manifest or index that the layout is about, if it is about one.
    root: Option<String>,
}

/// Something by digest. One kind of map for everything, sets included: every other kind would be kilobytes of code.
type ByDigest = BTreeMap<String, Json>;

/// A layout as far as it is documents.
struct Layout {
    index: Json,
    documents: ByDigest,
}

impl Layout {
    fn read(input: &Input) -> Result<Self, Error> {
        let (mut index, mut documents, mut total) = (None, ByDigest::new(), 0);
        let mut source = input.open()?;
        let mut tar = Reader::new(&mut source);
        while let Some(member) = tar.next_member()? {
            let digest = digest_of(&member.path);
            let is_wanted = member.path == INDEX || digest.is_some();
            if !is_wanted || !member.is_file || member.size > DOCUMENT {
                continue;
            }
            let content = tar.read(&member, DOCUMENT)?;
            if content.first() != Some(&b'{') {
                continue;
            }
            total += content.len();
            if total > DOCUMENTS {
                return Err(wrong(format!("its documents have more than {DOCUMENTS} bytes")));
            }
            let Ok(document) = serde_json::from_slice::<Json>(&content) else {
                continue;
            };
            match digest {
                None => index = Some(document),
                Some(digest) if digest == sha256(&content) => drop(documents.insert(digest, document)),
                Some(digest) => return Err(wrong(format!("the bytes of `{}` do not have the digest {digest}", member.path))),
            }
        }
        let index = index.ok_or_else(|| wrong(format!("this is no OCI image layout: there is no `{INDEX}`")))?;
        Ok(Self { index, documents })
    }

    /// What is left of the layout when layers go.
    fn filter(&self, rules: &[Rule]) -> Result<Changes, Error> {
        let mut filter = Filter { layout: self, rules, done: ByDigest::new(), documents: ByDigest::new(), layers: ByDigest::new() };
        let mut index = self.index.clone();
        let changed = filter.index(&mut index, 0)?;
        let (mut before, mut after) = (ByDigest::new(), ByDigest::new());
        reach(&self.index, &|digest| self.documents.get(digest), &mut before, 0);
        reach(&index, &|digest| filter.documents.get(digest).or_else(|| self.documents.get(digest)), &mut after, 0);
        before.retain(|digest, _| !after.contains_key(digest));
        Ok(Changes {
            index: changed.then_some(index),
            dropped: before,
            documents: filter.documents,
            layers: filter.layers.into_keys().collect(),
        })
    }
}

struct Changes {
    /// The new `index.json`; none where nothing changes.
    index: Option<Json>,
    /// Blobs that nothing refers to any more.
    dropped: ByDigest,
    /// Documents to add.
    documents: ByDigest,
    layers: Vec<String>,
}

impl Changes {
    fn root(&self, layout: &Layout) -> Option<String> {
        let index = self.index.as_ref().unwrap_or(&layout.index);
        match index.get("manifests")?.as_array()?.as_slice() {
            [one] => one.get("digest")?.as_str().map(str::to_owned),
            _ => None,
        }
    }
}

struct Filter<'l> {
    layout: &'l Layout,
    rules: &'l [Rule],
    /// Documents that were looked at: `null`, or new digest and size of those that changed.
    done: ByDigest,
    /// New documents.
    documents: ByDigest,
    layers: ByDigest,
}

impl Filter<'_> {
    /// Follows a link to a manifest or an index; gives it its new digest.
    fn link(&mut self, link: &mut Json, depth: usize) -> Result<bool, Error> {
        let Some(digest) = link.get("digest").and_then(Json::as_str).map(str::to_owned) else {
            return Ok(false);
        };
        if !self.done.contains_key(&digest) {
            let Some(mut document) = self.layout.documents.get(&digest).cloned() else {
                return Ok(false);
            };
            let changed = match (document.get("manifests").is_some(), document.get("layers").is_some()) {
                (true, _) => self.index(&mut document, depth + 1)?,
                (_, true) => self.manifest(&mut document)?,
                _ => false,
            };
            let new = if changed { self.add(document)? } else { Json::Null };
            self.done.insert(digest.clone(), new);
        }
        match self.done.get(&digest) {
            Some(new) if !new.is_null() => {
                point(link, new);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn index(&mut self, index: &mut Json, depth: usize) -> Result<bool, Error> {
        if depth > DEPTH {
            return Err(wrong(format!("indexes are nested deeper than {DEPTH}")));
        }
        let Some(links) = index.get_mut("manifests").and_then(Json::as_array_mut) else {
            return Ok(false);
        };
        let mut changed = false;
        for link in links.iter_mut() {
            changed |= self.link(link, depth)?;
        }
        // What refers to a manifest that is no more (a signature of it) has lost its meaning.
        let count = links.len();
        links.retain(|link| {
            let digest = link.get("digest").and_then(Json::as_str).unwrap_or_default();
            let document = self.documents.get(digest).or_else(|| self.layout.documents.get(digest));
            let subject = document.and_then(|document| document.get("subject")?.get("digest")?.as_str());
            !subject.and_then(|subject| self.done.get(subject)).is_some_and(|new| !new.is_null())
        });
        Ok(changed || links.len() != count)
    }

    fn manifest(&mut self, manifest: &mut Json) -> Result<bool, Error> {
        let Some(layers) = manifest.get_mut("layers").and_then(Json::as_array_mut) else {
            return Ok(false);
        };
        let goes: Vec<bool> = layers.iter().map(|layer| self.goes(layer)).collect();
        if !goes.contains(&true) {
            return Ok(false);
        }
        for (layer, _) in layers.iter().zip(&goes).filter(|(_, goes)| **goes) {
            let digest = layer.get("digest").and_then(Json::as_str).unwrap_or_default();
            self.layers.insert(digest.to_owned(), Json::Null);
        }
        let mut at = goes.iter();
        layers.retain(|_| at.next() != Some(&true));
        let Some(config) = manifest.get_mut("config") else {
            return Ok(true);
        };
        let digest = config.get("digest").and_then(Json::as_str).unwrap_or_default();
        if let Some(mut document) = self.layout.documents.get(digest).cloned()
            && without_layers(&mut document, &goes)
        {
            point(config, &self.add(document)?);
        }
        Ok(true)
    }

    fn goes(&self, layer: &Json) -> bool {
        let annotation = |rule: &Rule| layer.get("annotations")?.get(&rule.annotation)?.as_str().map(str::to_owned);
        self.rules.iter().any(|rule| annotation(rule).is_some_and(|found| rule.value.as_ref().is_none_or(|value| *value == found)))
    }

    /// Adds a document; gives its digest and size.
    fn add(&mut self, document: Json) -> Result<Json, Error> {
        let bytes = written(&document)?;
        let digest = sha256(&bytes);
        self.documents.insert(digest.clone(), document);
        Ok(Json::Array(vec![digest.into(), bytes.len().into()]))
    }
}

/// Takes layers out of an image's config; `false` where it does not list them.
fn without_layers(config: &mut Json, goes: &[bool]) -> bool {
    let listed = config.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids")).and_then(Json::as_array_mut);
    let Some(listed) = listed.filter(|listed| listed.len() == goes.len()) else {
        return false;
    };
    let mut at = goes.iter();
    listed.retain(|_| at.next() != Some(&true));
    if let Some(history) = config.get_mut("history").and_then(Json::as_array_mut) {
        let mut at = goes.iter();
        history.retain(|entry| {
            let is_empty = entry.get("empty_layer").and_then(Json::as_bool).unwrap_or_default();
            is_empty || at.next() != Some(&true)
        });
    }
    true
}

fn point(link: &mut Json, new: &Json) {
    if let Some(link) = link.as_object_mut() {
        link.insert("digest".to_owned(), new[0].clone());
        link.insert("size".to_owned(), new[1].clone());
        // The bytes that may stand in a link are the old ones.
        link.shift_remove("data");
    }
}

/// Everything that a document leads to.
fn reach<'d>(document: &'d Json, find: &dyn Fn(&str) -> Option<&'d Json>, found: &mut ByDigest, depth: usize) {
    let empty = Map::new();
    let fields = document.as_object().unwrap_or(&empty);
    let lists = ["manifests", "layers", "blobs"].into_iter().filter_map(|name| fields.get(name)?.as_array());
    for link in lists.flatten().chain(fields.get("config")) {
        let Some(digest) = link.get("digest").and_then(Json::as_str) else {
            continue;
        };
        if found.insert(digest.to_owned(), Json::Null).is_none() && depth <= DEPTH + 1 && let Some(document) = find(digest) {
            reach(document, find, found, depth + 1);
        }
    }
}

fn written(document: &Json) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(document).map_err(|error| Error::internal(error.to_string()))
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// `blobs/sha256/…` as a digest.
fn digest_of(path: &str) -> Option<String> {
    let hex = path.strip_prefix("blobs/sha256/")?;
    (hex.len() == 64 && !hex.contains('/')).then(|| format!("sha256:{hex}"))
}

fn wrong(message: String) -> Error {
    Error::invalid_content(message).in_port("data")
}

struct FilterLayers;

impl Transformer for FilterLayers {
    const TYPE: &'static str = "FilterLayers/v1alpha1";
    const DOCUMENTATION: &'static str = "Drops layers of an OCI artifact by their annotations.\n\nManifests, indexes and the configs of images follow, with new digests; what was attached to a manifest that changed (a signature, an SBOM) is dropped, too. Without a layer to drop the artifact is handed on as it is.";
    const INPUTS: &'static [Port] = &[Port::required("data", "an artifact, or an OCI image layout in a tar")];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the artifact without the layers, as an image layout")];
    const EXAMPLES: &'static [&'static str] = &[
        "- id: filter1\n  type: FilterLayers/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    drop:\n      - annotation: org.example.debug\n        value: \"true\"\n      - annotation: org.example.internal\n",
    ];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Filtered;

    fn validate(spec: &Spec, _config: &Nothing) -> Vec<Error> {
        let empty = |(at, rule): (usize, &Rule)| {
            let error = || Error::invalid_spec("an annotation has a name").at(format!("/drop/{at}/annotation"));
            rule.annotation.is_empty().then(error)
        };
        spec.drop.iter().enumerate().filter_map(empty).collect()
    }

    fn run(step: &Step<Self>) -> Result<Outcome<Filtered>, Error> {
        let layout = Layout::read(step.input("data")?)?;
        let changes = layout.filter(&step.spec.drop)?;
        let content = match changes.index {
            None => Content::same_as("data"),
            Some(_) => Content::lazy(Info { media_type: LAYOUT_TAR.to_owned(), ..Info::default() }),
        };
        let root = changes.root(&layout);
        Ok(Outcome::new(Filtered { layers: changes.layers, root }).with("data", content))
    }

    /// Reads the input twice: for what changes, and for passing on what does not.
    fn produce(step: &Step<Self>, _port: &str, _state: &[u8], sink: &mut Sink) -> Result<(), Error> {
        let input = step.input("data")?;
        let changes = Layout::read(input)?.filter(&step.spec.drop)?;
        let mut source = input.open()?;
        let mut tar = Reader::new(&mut source);
        while let Some(member) = tar.next_member()? {
            match (&changes.index, digest_of(&member.path)) {
                (Some(index), _) if member.path == INDEX => member.write_changed(&written(index)?, sink)?,
                (_, Some(digest)) if changes.dropped.contains_key(&digest) || changes.documents.contains_key(&digest) => {}
                _ => tar.pass_on(&member, sink)?,
            }
        }
        for (digest, document) in &changes.documents {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            write_file(sink, &path, &written(document)?)?;
        }
        tar.pass_on_end(sink)
    }
}

ocm_plugin::plugin! {
    name: "filter-layers",
    documentation: "Drops layers of an OCI artifact by their annotations.",
    types: [FilterLayers],
}

#[cfg(test)]
mod tests {
    use ocm_plugin::serde_json::json;
    use ocm_plugin::testing::{fails, run, run_in_chunks};
    use ocm_plugin::Kind;

    use super::*;

    const SPEC: &str = r#"{"drop": [{"annotation": "debug", "value": "true"}, {"annotation": "internal"}]}"#;

    /// Blobs and an index, as a layout.
    #[derive(Default)]
    struct Made {
        blobs: BTreeMap<String, Vec<u8>>,
        manifests: Vec<Json>,
    }

    impl Made {
        fn blob(&mut self, bytes: &[u8]) -> Json {
            let digest = sha256(bytes);
            self.blobs.insert(digest.clone(), bytes.to_vec());
            json!({"mediaType": "x/y", "digest": digest, "size": bytes.len()})
        }

        fn document(&mut self, document: &Json) -> Json {
            // With blanks: what is not changed must stay as it is written.
            self.blob(serde_json::to_string_pretty(document).unwrap().as_bytes())
        }

        /// An image of layers with these annotations.
        fn image(&mut self, annotations: &[Json]) -> Json {
            let diff_ids: Vec<_> = (0..annotations.len()).map(|at| format!("sha256:{at}")).collect();
            let mut history = vec![json!({"created_by": "ENV", "empty_layer": true})];
            history.extend((0..annotations.len()).map(|at| json!({"created_by": format!("layer {at}")})));
            let config = self.document(&json!({"os": "linux", "rootfs": {"diff_ids": diff_ids}, "history": history}));
            let layers: Vec<_> = annotations
                .iter()
                .enumerate()
                .map(|(at, annotations)| {
                    let mut layer = self.blob(format!("content of layer {at}").as_bytes());
                    layer["annotations"] = annotations.clone();
                    layer
                })
                .collect();
            self.document(&json!({"schemaVersion": 2, "config": config, "layers": layers}))
        }

        fn tar(&self) -> Vec<u8> {
            let mut out = Vec::new();
            write_file(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
            write_file(&mut out, INDEX, json!({"schemaVersion": 2, "manifests": self.manifests}).to_string().as_bytes()).unwrap();
            for (digest, bytes) in &self.blobs {
                write_file(&mut out, &format!("blobs/{}", digest.replace(':', "/")), bytes).unwrap();
            }
            out.resize(out.len() + 1024, 0);
            out
        }
    }

    /// Everything in a layout by path, each blob compared with its name.
    fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut source = tar;
        let mut reader = Reader::new(&mut source);
        let mut files = BTreeMap::new();
        while let Some(member) = reader.next_member().unwrap() {
            let content = reader.read(&member, 1 << 20).unwrap();
            if let Some(digest) = digest_of(&member.path) {
                assert_eq!(digest, sha256(&content));
            }
            files.insert(member.path, content);
        }
        files
    }

    fn read(files: &BTreeMap<String, Vec<u8>>, link: &Json) -> Json {
        let path = format!("blobs/{}", link["digest"].as_str().unwrap().replace(':', "/"));
        let bytes = &files[&path];
        assert_eq!(link["size"], bytes.len());
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn layers_go_and_digests_follow_up_to_the_root() {
        let mut made = Made::default();
        let first = made.image(&[json!({}), json!({"debug": "true"}), json!({"debug": "false"}), json!({"internal": ""})]);
        let second = made.image(&[json!({"other": "x"})]);
        let subject = first.clone();
        let signature = made.blob(b"signature");
        let signature = made.document(&json!({"layers": [signature], "subject": subject}));
        let root = made.document(&json!({"manifests": [first, second, signature]}));
        made.manifests = vec![root];
        let tar = made.tar();
        let ran = run::<FilterLayers>(SPEC, &[("data", &tar)]).unwrap();
        let after = files(&ran.contents["data"]);
        let index: Json = serde_json::from_slice(&after[INDEX]).unwrap();
        assert_eq!(ran.output["root"], index["manifests"][0]["digest"]);
        let root = read(&after, &index["manifests"][0]);
        let links = root["manifests"].as_array().unwrap();
        assert_eq!(links.len(), 2, "the signature of what is no more is gone");
        assert_eq!(links[1], second, "an image that lost nothing is the same to the byte");
        let image = read(&after, &links[0]);
        assert_eq!(image["layers"].as_array().unwrap().len(), 2);
        let config = read(&after, &image["config"]);
        assert_eq!(config["rootfs"]["diff_ids"], json!(["sha256:0", "sha256:2"]));
        let history: Vec<_> = config["history"].as_array().unwrap().iter().map(|entry| entry["created_by"].as_str().unwrap()).collect();
        assert_eq!(history, ["ENV", "layer 0", "layer 2"]);
        assert_eq!(ran.output["layers"].as_array().unwrap().len(), 2);
        for content in ["content of layer 1", "content of layer 3", "signature"] {
            assert!(!after.values().any(|bytes| bytes == content.as_bytes()), "{content} is still there");
        }
        // A layer that another image has stays: "content of layer 0" is in both.
        assert!(after.values().any(|bytes| bytes == b"content of layer 0"));
        for chunk in [1, 7, 513] {
            let again = run_in_chunks::<FilterLayers>(SPEC, &[("data", &tar)], chunk).unwrap();
            assert!(again.contents == ran.contents, "chunks of {chunk}");
        }
        let twice = run::<FilterLayers>(SPEC, &[("data", &ran.contents["data"])]).unwrap();
        assert!(twice.contents == ran.contents, "with nothing to drop it is the same");
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let error = run::<FilterLayers>(r#"{"drop": [{"annotation": ""}]}"#, &[("data", b"")]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("/drop/0/annotation"));
        let mut no_index = Vec::new();
        write_file(&mut no_index, "a", b"b").unwrap();
        let mut lie = Vec::new();
        write_file(&mut lie, INDEX, b"{}").unwrap();
        write_file(&mut lie, &format!("blobs/sha256/{}", "0".repeat(64)), b"{}").unwrap();
        let mut ring = Made::default();
        ring.manifests = vec![json!({"digest": "sha256:none"})];
        for (bytes, refused) in [(&b"no tar"[..], true), (&no_index, true), (&lie, true), (&ring.tar(), false)] {
            let ran = run::<FilterLayers>(SPEC, &[("data", bytes)]);
            assert_eq!(fails(&ran, Kind::InvalidContent), refused);
        }
    }
}
