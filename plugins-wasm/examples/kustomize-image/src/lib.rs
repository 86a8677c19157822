//! Sets images in Kubernetes YAML, as `images` of a kustomization do, and leaves every other byte as it is.

#![forbid(unsafe_code)]

use std::io::Write;

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::{Deserialize, Serialize};
use ocm_plugin::serde_json::Value as Json;
use ocm_plugin::yaml::{self, Key, Scalar};
use ocm_plugin::{Content, Error, Info, Nothing, Outcome, Port, Sink, Source, Step, Transformer};

/// Most bytes of manifests.
const LIMIT: usize = 16 << 20;
/// Lists whose items have an image.
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", rename_all = "camelCase", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// What is set; of several for one image the first counts.
    #[schemars(length(min = 1, max = 1000))]
    images: Vec<Image>,
    /// Is it right that an image is nowhere?
    #[serde(default)]
    allow_missing: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", rename_all = "camelCase", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Image {
    /// The image as the manifests have it, without tag and digest.
    name: String,
    /// Another name.
    new_name: Option<String>,
    /// Another tag; a digest that is there goes.
    new_tag: Option<String>,
    /// A digest; a tag that is there goes, but for a new one.
    digest: Option<String>,
}

impl Image {
    /// What becomes of `name` with `rest` (`:tag`, `@digest`) behind it.
    fn set(&self, rest: &str) -> String {
        let name = self.new_name.as_ref().unwrap_or(&self.name);
        match (&self.new_tag, &self.digest) {
            (None, None) => format!("{name}{rest}"),
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), Some(digest)) => format!("{name}:{tag}@{digest}"),
        }
    }
}

/// An image's name, and tag and digest behind it.
fn split(image: &str) -> (&str, &str) {
    let start = image.rfind('/').map_or(0, |at| at + 1);
    let end = image[start..].find([':', '@']).map_or(image.len(), |at| start + at);
    image.split_at(end)
}

/// Is that the image of a container?
fn is_image(scalar: &Scalar) -> bool {
    match scalar.path.as_slice() {
        [.., Key::Name(list), Key::Index(_), Key::Name(name)] => name == "image" && LISTS.contains(&list.as_str()),
        _ => false,
    }
}

/// The text with the images set, and how many there were.
fn set(text: &str, spec: &Spec) -> Result<(String, u64), Error> {
    let scalars = yaml::scalars(text).map_err(|error| error.in_port("data"))?;
    let mut used = vec![false; spec.images.len()];
    let mut edits = Vec::new();
    for scalar in scalars.iter().filter(|scalar| is_image(scalar)) {
        let (name, rest) = split(&scalar.value);
        if let Some(rule) = spec.images.iter().position(|rule| rule.name == name) {
            used[rule] = true;
            edits.push((scalar, Json::String(spec.images[rule].set(rest))));
        }
    }
    let missing = spec.images.iter().zip(used).find(|(_, used)| !used);
    if let Some((image, _)) = missing.filter(|_| !spec.allow_missing) {
        let error = Error::invalid_content(format!("no container has the image `{}`", image.name));
        return Err(error.in_port("data").with_hint("names are as the manifests have them; `allowMissing: true` lets this pass"));
    }
    let changed = yaml::set(text, &edits).map_err(|error| error.in_port("data"))?;
    Ok((changed, edits.len() as u64))
}

fn read(source: &mut Source) -> Result<String, Error> {
    let bytes = source.read_all(LIMIT).map_err(|error| error.in_port("data"))?;
    let told = |error: std::string::FromUtf8Error| {
        let at = error.utf8_error().valid_up_to() as u64;
        Error::invalid_content("this is no UTF-8 text").in_port("data").at_byte(at)
    };
    String::from_utf8(bytes).map_err(told)
}

#[derive(Serialize, JsonSchema, Default)]
#[serde(crate = "ocm_plugin::serde")]
#[schemars(crate = "ocm_plugin::schemars")]
struct Found {
    /// Containers whose image was set.
    containers: u64,
}

struct KustomizeImage;

impl Transformer for KustomizeImage {
    const TYPE: &'static str = "KustomizeImage/v1alpha1";
    const DOCUMENTATION: &'static str = "Sets images in Kubernetes YAML.\n\nWherever there is a list of `containers`, `initContainers` or `ephemeralContainers`, in any kind of object and any number of documents. Comments, quotes and order stay as they are.";
    const INPUTS: &'static [Port] = &[Port::required("data", "manifests in YAML or JSON, one or several documents")];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the manifests with the images set")];
    const EXAMPLES: &'static [&'static str] = &[
        "- id: images1\n  type: KustomizeImage/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    images:\n      - name: ghcr.io/acme/web\n        newName: ${upload1.output.imageReference.parseRef().registry}/web\n        newTag: 2.3.0\n",
        "- id: images1\n  type: KustomizeImage/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    images:\n      - name: nginx\n        newTag: 1.29.0\n    allowMissing: true\n",
    ];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Found;

    fn validate(spec: &Spec, _config: &Nothing) -> Vec<Error> {
        let mut errors = Vec::new();
        for (at, image) in spec.images.iter().enumerate() {
            let mut wrong = |field: &str, message: &str| {
                errors.push(Error::invalid_spec(message).at(format!("/images/{at}{field}")));
            };
            if image.name.is_empty() || !split(&image.name).1.is_empty() {
                wrong("/name", "this is no name of an image: write it without tag and digest");
            }
            if image.new_name.as_ref().is_some_and(|name| name.is_empty() || !split(name).1.is_empty()) {
                wrong("/newName", "this is no name of an image: `newTag` and `digest` are fields of their own");
            }
            let is_tag = |tag: &String| !tag.is_empty() && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if image.new_tag.as_ref().is_some_and(|tag| !is_tag(tag)) {
                wrong("/newTag", "this is no tag");
            }
            let is_digest = |digest: &String| digest.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
            if image.digest.as_ref().is_some_and(|digest| !is_digest(digest)) {
                wrong("/digest", "this is no digest: it is `sha256:` and 64 digits");
            }
            if image.new_name.is_none() && image.new_tag.is_none() && image.digest.is_none() {
                wrong("", "nothing is set: write `newName`, `newTag` or `digest`");
            }
        }
        errors
    }

    /// How many there are is a value that other steps may use, so the manifests are read while the step runs.
    fn run(step: &Step<Self>) -> Result<Outcome<Found>, Error> {
        let input = step.input("data")?;
        let text = read(&mut input.open()?)?;
        let (changed, containers) = set(&text, &step.spec)?;
        let content = match changed == text {
            true => Content::same_as("data"),
            false => Content::lazy(Info { media_type: input.info().media_type, size: Some(changed.len() as u64), digest: None }),
        };
        Ok(Outcome::new(Found { containers }).with("data", content))
    }

    fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let (changed, _) = set(&read(source)?, &step.spec)?;
        sink.write_all(changed.as_bytes())?;
        Ok(())
    }
}

ocm_plugin::plugin! {
    name: "kustomize-image",
    documentation: "Sets images in Kubernetes YAML.",
    types: [KustomizeImage],
}

#[cfg(test)]
mod tests {
    use ocm_plugin::testing::{run, run_in_chunks};

    use super::*;

    const MANIFESTS: &str = include_str!("../examples/deployment/in/data");

    #[test]
    fn images_are_set_and_everything_else_stays() {
        let spec = r#"{"images": [{"name": "ghcr.io/acme/web", "newName": "local/web", "newTag": "2.0"}, {"name": "busybox", "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000001"}]}"#;
        for chunk in [1, 7, 4096] {
            let ran = run_in_chunks::<KustomizeImage>(spec, &[("data", MANIFESTS.as_bytes())], chunk).unwrap();
            let after = String::from_utf8(ran.contents["data"].clone()).unwrap();
            assert_eq!(ran.output["containers"], 3);
            let differ: Vec<_> = MANIFESTS.lines().zip(after.lines()).filter(|(a, b)| a != b).map(|(_, b)| b.trim()).collect();
            assert_eq!(differ, [
                "image: busybox@sha256:0000000000000000000000000000000000000000000000000000000000000001 # waits",
                "- image: \"local/web:2.0\"   # the shop",
                "image: 'local/web:2.0'",
            ]);
            assert_eq!(MANIFESTS.lines().count(), after.lines().count());
        }
    }

    #[test]
    fn names_are_split_from_tags_and_digests() {
        for (image, name, rest) in [
            ("nginx", "nginx", ""),
            ("nginx:1", "nginx", ":1"),
            ("localhost:5000/a/b:1@sha256:x", "localhost:5000/a/b", ":1@sha256:x"),
            ("localhost:5000/a", "localhost:5000/a", ""),
        ] {
            assert_eq!(split(image), (name, rest));
        }
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_place() {
        for (spec, data, field, expected) in [
            (r#"{"images": [{"name": "a:1", "newTag": "2"}]}"#, "", Some("/images/0/name"), "without tag"),
            (r#"{"images": [{"name": "a", "newTag": "x y"}]}"#, "", Some("/images/0/newTag"), "no tag"),
            (r#"{"images": [{"name": "a", "newName": "b:1"}]}"#, "", Some("/images/0/newName"), "no name"),
            (r#"{"images": [{"name": "a", "digest": "1"}]}"#, "", Some("/images/0/digest"), "no digest"),
            (r#"{"images": [{"name": "a"}]}"#, "", Some("/images/0"), "nothing is set"),
            (r#"{"images": [{"name": "a", "newTag": "1"}]}"#, "a: b\n", None, "no container has the image `a`"),
            (r#"{"images": [{"name": "a", "newTag": "1"}]}"#, "a: b\n---\nc: [\n", None, "line 4, column 1"),
            (r#"{"images": [{"name": "a", "newTag": "1"}]}"#, "containers:\n- image: a\n- image: {{ .x }}\n", None, "line 3, column 10"),
        ] {
            let error = run::<KustomizeImage>(spec, &[("data", data.as_bytes())]).unwrap_err();
            assert_eq!(error.field.as_deref(), field, "{spec}");
            assert!(error.message.contains(expected), "{spec}: {}", error.message);
        }
    }
}
