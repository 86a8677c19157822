//! Component versions made of the fixtures, to be written into an archive, with the artifacts they point at.
//!
//! *Invariant*: deterministic down to the bytes of the archive; every digest that a descriptor states is right.

use std::path::Path;
use std::sync::Arc;

use ocm_content::{Blob, Content, Limits, Result, Stores};
use ocm_repository::ctf::{Access, Ctf, CtfOptions};
use ocm_repository::{Existing, Session, SessionConfig};
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, ElementKind, Encoding};
use ocm_specs::reference::OciReference;
use serde_json::{Value, json};

use crate::fixtures::{ArchiveForm, Fixture, chart, chart_of, image_index, local_blob};

/// The component with the image and the chart.
pub const HELLOWORLD: &str = "github.com/acme.org/helloworld";

/// The component with the local blob, which [`HELLOWORLD`] references.
pub const HELLOEUROPE: &str = "github.com/acme.org/helloeurope";

/// The version of both, and of the components of [`example`].
pub const VERSION: &str = "1.0.0";

/// Component versions and everything that belongs to them.
#[derive(Clone, Debug, Default)]
pub struct Product {
    components: Vec<Component>,
    /// Artifacts by the image references that descriptors name.
    pub artifacts: Vec<(String, Fixture)>,
}

/// A component version whose local resources have no access yet.
#[derive(Clone, Debug)]
struct Component {
    document: Value,
    /// The content of the local resources, by resource name.
    blobs: Vec<(String, Blob)>,
}

impl Product {
    /// Writes the component versions into a repository, their descriptors encoded like that.
    ///
    /// # Errors
    /// What the repository says.
    pub async fn write(
        &self,
        session: &Session,
        target: &RepositorySpec,
        encoding: Encoding,
    ) -> Result<()> {
        let repository = session.repository(target, true).await?;
        for component in &self.components {
            let mut document = component.document.clone();
            let name = text(&document["component"]["name"]).to_owned();
            for (resource, blob) in &component.blobs {
                let element = resource_of(&mut document, resource);
                let content = Content::Blob(blob.clone());
                *element = repository
                    .prepare_local_blob(&name, ElementKind::Resource, element, &content)
                    .await?;
            }
            let descriptor = ComponentDescriptor::from_value(document).expect("a descriptor");
            let encoded = descriptor.encode(encoding);
            let descriptor = ComponentDescriptor::decode(&encoded.media_type, encoded.bytes)
                .expect("what was written can be read");
            let prepared = repository.prepare_version(&descriptor, Existing::Fail);
            prepared.await?.publish().await?;
        }
        Ok(())
    }

    /// Puts the artifacts where descriptors say they are; `session` knows the way there.
    ///
    /// # Errors
    /// What the stores say.
    pub async fn push(&self, session: &Session) -> Result<()> {
        for (reference, fixture) in &self.artifacts {
            push(session, reference, fixture).await?;
        }
        Ok(())
    }

    fn add_artifact(&mut self, reference: &str, fixture: Fixture) -> Value {
        let digest = DigestSpec::new(&fixture.root.digest, true).to_value();
        self.artifacts.push((reference.to_owned(), fixture));
        json!({
            "relation": "external",
            "access": {"type": "ociArtifact", "imageReference": reference},
            "digest": digest,
        })
    }
}

/// Puts an artifact under an image reference.
///
/// # Errors
/// What the store says.
pub async fn push(session: &Session, reference: &str, fixture: &Fixture) -> Result<()> {
    let reference: OciReference = reference.parse().expect("an image reference");
    let store = session.oci_store(&reference)?;
    fixture.push(&store, reference.tag.as_deref()).await?;
    Ok(())
}

/// The components of design 002's list spec: [`HELLOWORLD`] with `myimage` (an image index) and `mychart` (a Helm chart with
/// a subchart) in a registry, and [`HELLOEUROPE`] with the local blob `helloeurope`.
pub fn localization() -> Product {
    let mut product = Product::default();
    let image = product.add_artifact(
        "ghcr.io/fabianburth/source-image/myimage:6.7.1",
        image_index(),
    );
    let chart = product.add_artifact("ghcr.io/fabianburth/source-charts/mychart:1.4.0", chart());
    let image = with(image, "myimage", "6.7.1", "ociImage");
    let mut chart = with(chart, "mychart", "1.4.0", "helmChart");
    chart["labels"] =
        json!([{"name": "acme.org/tier", "value": {"z": 1, "a": [true, null]}, "signing": true}]);
    chart["acme.org/unknown"] = json!({"kept": "<&>"});
    let mut world = component(HELLOWORLD, vec![image, chart]);
    let fields = &mut world["component"];
    fields["labels"] = json!([{"name": "acme.org/stage", "value": "tested", "version": "v1"}]);
    fields["repositoryContexts"] = json!([{
        "type": "OCIRegistry", "baseUrl": "ghcr.io", "subPath": "acme/origin", "componentNameMapping": "urlPath"
    }]);
    fields["componentReferences"] =
        json!([{"name": "europe", "componentName": HELLOEUROPE, "version": VERSION}]);
    fields["acme.org/unknown"] = json!([1, 2.5, "three"]);
    product.components = vec![europe(), plain(world)];
    product
}

fn europe() -> Component {
    let resource = json!({"relation": "local"});
    let resource = with(resource, "helloeurope", VERSION, "yaml");
    Component {
        document: component(HELLOEUROPE, vec![resource]),
        blobs: vec![("helloeurope".to_owned(), local_blob())],
    }
}

/// The component of design 002's mapping spec: `podinfo-image` (an image index) in a registry, `podinfo-chart` as an archive
/// of that form beside the descriptor, and `notes`, which the spec does not list.
pub async fn mapping(form: ArchiveForm) -> Product {
    let mut product = Product::default();
    let image = product.add_artifact("ghcr.io/acme/source/podinfo:6.9.1", image_index());
    let local = json!({"relation": "local"});
    let resources = vec![
        with(image, "podinfo-image", "6.9.1", "ociImage"),
        with(local.clone(), "podinfo-chart", "1.4.0", "helmChart"),
        with(local, "notes", VERSION, "yaml"),
    ];
    let archive = chart().archive(form, "1.4.0").await;
    product.components = vec![Component {
        document: component(HELLOWORLD, resources),
        blobs: vec![
            ("podinfo-chart".to_owned(), archive),
            ("notes".to_owned(), local_blob()),
        ],
    }];
    product
}

/// The component of the shipped example.
pub const SHOP: &str = "acme.example/shop";

/// The component that [`SHOP`] references.
pub const SHOP_SETTINGS: &str = "acme.example/shop-settings";

/// The registry in which the shipped example's artifacts are.
pub const SOURCE_HOST: &str = "source.example";

const SHOP_CHART: &[(&str, &str)] = &[
    (
        "Chart.yaml",
        "apiVersion: v2\nname: shop\ndescription: The shop's web server\ntype: application\nversion: 2.3.0\n",
    ),
    (
        "values.yaml",
        "\
# How the shop is deployed.
replicas: 2

image:
  repository: source.example/acme/shop   # a transfer changes this line, and no other
  tag: \"2.3.0\"

# Passed on to the web server as it is.
motd: 'Welcome!'
",
    ),
    (
        "templates/deployment.yaml",
        "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector:
    matchLabels: {app: shop}
  template:
    metadata:
      labels: {app: shop}
    spec:
      containers:
        - name: shop
          image: \"{{ .Values.image.repository }}:{{ .Values.image.tag }}\"
          env:
            - {name: MOTD, value: {{ .Values.motd | quote }}}
",
    ),
];

/// The components of the shipped example: [`SHOP`] with an image index and a Helm chart in the registry [`SOURCE_HOST`] and
/// the local blob `manual`, and [`SHOP_SETTINGS`] with the local blob `settings`.
pub fn example() -> Product {
    let mut product = Product::default();
    let config = json!({
        "apiVersion": "v2", "name": "shop", "description": "The shop's web server", "type": "application", "version": "2.3.0",
    });
    let chart = chart_of(&config, SHOP_CHART);
    let image = product.add_artifact(&format!("{SOURCE_HOST}/acme/shop:2.3.0"), image_index());
    let chart = product.add_artifact(&format!("{SOURCE_HOST}/acme/charts/shop:2.3.0"), chart);
    let local = json!({"relation": "local"});
    let resources = vec![
        with(image, "image", "2.3.0", "ociImage"),
        with(chart, "chart", "2.3.0", "helmChart"),
        with(local.clone(), "manual", "2.3.0", "plainText"),
    ];
    let mut shop = component(SHOP, resources);
    let fields = &mut shop["component"];
    fields["version"] = json!("2.3.0");
    fields["provider"] = json!("acme.example");
    fields["labels"] = json!([{"name": "acme.example/stage", "value": "tested"}]);
    fields["componentReferences"] =
        json!([{"name": "settings", "componentName": SHOP_SETTINGS, "version": VERSION}]);
    let settings = with(local, "settings", VERSION, "yaml");
    let mut settings = component(SHOP_SETTINGS, vec![settings]);
    settings["component"]["provider"] = json!("acme.example");
    let manual = "Open the shop at eight, close it at six.\n";
    let level = "# The shop's settings.\nlevel: info\n";
    product.components = vec![
        Component {
            document: settings,
            blobs: vec![(
                "settings".to_owned(),
                Blob::from_bytes("application/yaml", level),
            )],
        },
        Component {
            document: shop,
            blobs: vec![("manual".to_owned(), Blob::from_bytes("text/plain", manual))],
        },
    ];
    product
}

/// Writes the archive of the shipped example into an empty folder: component versions and artifacts side by side.
///
/// # Errors
/// What the archive says.
pub async fn write_example(folder: &Path) -> Result<()> {
    let session = Session::new(SessionConfig::new(folder))?;
    let stores = archive(folder).await?;
    let place = folder.display().to_string();
    session.register(&place, stores.clone());
    session.register(SOURCE_HOST, stores);
    let product = example();
    product.push(&session).await?;
    let target = RepositorySpec::ctf(&place);
    product.write(&session, &target, Encoding::Json).await
}

/// The archive in a folder, which is made if it is not there.
///
/// # Errors
/// What the archive says.
pub async fn archive(folder: &Path) -> Result<Arc<dyn Stores>> {
    let options = CtfOptions {
        access: Access::Create,
        limits: Limits::new(Default::default()),
    };
    Ok(Ctf::open(folder, options).await?)
}

fn plain(document: Value) -> Component {
    Component {
        document,
        blobs: Vec::new(),
    }
}

fn component(name: &str, resources: Vec<Value>) -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "component": {
            "name": name,
            "version": VERSION,
            "provider": "acme.org",
            "creationTime": "2024-03-18T09:44:42Z",
            "repositoryContexts": [],
            "resources": resources,
            "sources": [],
            "componentReferences": [],
        },
    })
}

fn with(mut resource: Value, name: &str, version: &str, kind: &str) -> Value {
    resource["name"] = json!(name);
    resource["version"] = json!(version);
    resource["type"] = json!(kind);
    resource
}

fn resource_of<'d>(document: &'d mut Value, name: &str) -> &'d mut Value {
    let resources = document["component"]["resources"].as_array_mut();
    resources
        .into_iter()
        .flatten()
        .find(|resource| text(&resource["name"]) == name)
        .expect("the component has that resource")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
