//! The `Chart.yaml` inside of a chart archive, and what Helm makes of it where it writes charts into registries.
//!
//! *Invariant*: an archive is read up to its `Chart.yaml` and no further, within bounds of bytes and of entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use ocm_content::gzip::gunzip;
use ocm_content::tarball::{TarEvent, TarKind, TarReader};
use ocm_content::{Blob, Error, Limits, Result};
use ocm_specs::oci::escape_html;
use ocm_specs::yaml::{LoadOptions, Node, Source, load};
use serde_json::{Map, Value, json};

use super::at;

/// Largest `Chart.yaml`, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// Most bytes of an unpacked chart that are looked through: 100 MiB, Helm's own limit.
const CHART_LIMIT: u64 = 100 << 20;
/// Fields of `Chart.yaml` in the order in which Helm writes them.
const FIELDS: [&str; 17] = [
    "name",
    "home",
    "sources",
    "version",
    "description",
    "keywords",
    "maintainers",
    "icon",
    "apiVersion",
    "condition",
    "tags",
    "appVersion",
    "deprecated",
    "annotations",
    "kubeVersion",
    "dependencies",
    "type",
];
const MAINTAINER: [&str; 3] = ["name", "email", "url"];
const DEPENDENCY: [&str; 8] = [
    "name",
    "version",
    "repository",
    "condition",
    "tags",
    "enabled",
    "import-values",
    "alias",
];
/// Lists of texts.
const LISTS: [&str; 3] = ["sources", "keywords", "tags"];

/// What a chart says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartMetadata(Map<String, Value>);

impl ChartMetadata {
    /// Reads a chart archive up to its `Chart.yaml`. Takes transfer slots on the blob's hosts meanwhile: hold none when calling
    /// this.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when this is no chart, [`ocm_content::ErrorKind::Limit`] when it is too large for one, besides
    /// what reading gives.
    pub async fn read(archive: &Blob, limits: &Arc<Limits>) -> Result<Self> {
        let text = chart_yaml(archive, limits).await?;
        Self::parse(&text)
    }

    /// Reads the text of a `Chart.yaml`.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`], with the place, when it is none or has no name or version.
    pub fn parse(text: &str) -> Result<Self> {
        let source = Source::new("Chart.yaml", text);
        let document =
            load(&source, &LoadOptions::default()).map_err(|error| at(&source, &error))?;
        let fields = fields(&document, &FIELDS);
        for name in ["name", "version"] {
            let given = fields.get(name).and_then(Value::as_str);
            if given.is_none_or(str::is_empty) {
                return Err(Error::invalid(format!("Chart.yaml has no `{name}`")));
            }
        }
        Ok(Self(fields))
    }

    /// The chart's name.
    pub fn name(&self) -> &str {
        self.text("name")
    }

    /// The chart's version.
    pub fn version(&self) -> &str {
        self.text("version")
    }

    /// The config blob of the chart as an OCI artifact: the fields that Helm knows, in its order and encoding.
    pub fn config(&self) -> Vec<u8> {
        escape_html(&Value::Object(self.0.clone()).to_string()).into_bytes()
    }

    /// The annotations of the manifest, as `helm push` writes them: what OCI has names for, and the chart's own ones. The
    /// time of writing is left out, so that one chart is one artifact.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut add = |name: &str, value: String| {
            if !value.is_empty() {
                found.insert(format!("org.opencontainers.image.{name}"), value);
            }
        };
        add("title", self.name().to_owned());
        add("version", self.version().to_owned());
        add("description", self.text("description").to_owned());
        add("url", self.text("home").to_owned());
        let sources = self.list("sources");
        let source = sources.first().and_then(Value::as_str).unwrap_or_default();
        add("source", source.to_owned());
        add("authors", self.authors());
        let fixed = [
            "org.opencontainers.image.title",
            "org.opencontainers.image.version",
        ];
        let own = self.0.get("annotations").and_then(Value::as_object);
        for (name, value) in own.into_iter().flatten() {
            if let (false, Some(value)) = (fixed.contains(&name.as_str()), value.as_str()) {
                found.insert(name.clone(), value.to_owned());
            }
        }
        found
    }

    fn authors(&self) -> String {
        let author = |maintainer: &Value| {
            let text = |name: &str| maintainer.get(name).and_then(Value::as_str);
            let name = text("name").unwrap_or_default();
            match text("email").filter(|email| !email.is_empty()) {
                Some(email) => format!("{name} ({email})"),
                None => name.to_owned(),
            }
        };
        let all: Vec<String> = self.list("maintainers").iter().map(author).collect();
        all.join(", ")
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn list(&self, name: &str) -> &[Value] {
        let list = self.0.get(name).and_then(Value::as_array);
        list.map(Vec::as_slice).unwrap_or_default()
    }
}

/// The fields of `names` that are there and not empty, in that order, typed as Helm types them.
fn fields(node: &Node, names: &[&str]) -> Map<String, Value> {
    let mut all = Map::new();
    for name in names {
        let Some(value) = node.get(name) else {
            continue;
        };
        let typed = match *name {
            "maintainers" => objects(value, &MAINTAINER),
            "dependencies" => objects(value, &DEPENDENCY),
            "deprecated" | "enabled" => value.to_json(),
            "import-values" => value.to_json(),
            "annotations" => annotations(value),
            // A chart's `tags` is a text, a dependency's a list.
            name if LISTS.contains(&name) && value.as_list().is_some() => texts(value),
            _ => value.as_go_string().map_or(Value::Null, |text| json!(text)),
        };
        let is_empty = match &typed {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !is_empty {
            all.insert((*name).to_owned(), typed);
        }
    }
    all
}

fn objects(node: &Node, names: &[&str]) -> Value {
    let list = node.as_list().unwrap_or_default().iter();
    Value::Array(
        list.map(|entry| Value::Object(fields(entry, names)))
            .collect(),
    )
}

fn texts(node: &Node) -> Value {
    let list = node.as_list().unwrap_or_default().iter();
    Value::Array(
        list.filter_map(|entry| Some(json!(entry.as_go_string()?)))
            .collect(),
    )
}

/// Texts by name, sorted as Go writes maps.
fn annotations(node: &Node) -> Value {
    let map = node.as_map().into_iter().flatten();
    let mut all: Vec<(String, Value)> = map
        .filter_map(|(name, member)| Some((name.clone(), json!(member.node.as_go_string()?))))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Object(all.into_iter().collect())
}

/// The text of `<chart>/Chart.yaml`.
async fn chart_yaml(archive: &Blob, limits: &Arc<Limits>) -> Result<String> {
    let _slots = limits.transfer(&archive.hosts()).await;
    // Whoever wants all of it verifies it; here it ends early.
    let mut stream = gunzip(archive.open().await?, limits);
    let mut reader = TarReader::new();
    let (mut seen, mut wanted, mut found) = (0_u64, false, Vec::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        seen += chunk.len() as u64;
        if seen > CHART_LIMIT {
            return Err(Error::limit(format!(
                "there is no Chart.yaml in the first {CHART_LIMIT} bytes of the archive"
            )));
        }
        reader.feed(chunk);
        while let Some(event) = reader.next_event()? {
            match event {
                TarEvent::Entry(entry) => {
                    wanted = entry.kind == TarKind::File && is_chart_yaml(&entry.path);
                    if wanted && entry.size > FILE_LIMIT {
                        return Err(Error::limit(format!(
                            "Chart.yaml is larger than {FILE_LIMIT} bytes"
                        )));
                    }
                }
                TarEvent::Data(data) if wanted => found.extend_from_slice(&data),
                TarEvent::EntryEnd if wanted => {
                    return String::from_utf8(found)
                        .map_err(|_| Error::invalid("Chart.yaml is no text in UTF-8"));
                }
                _ => {}
            }
        }
    }
    Err(Error::invalid(
        "this is no chart: the archive has no Chart.yaml",
    ))
}

/// Charts lie in one folder; subcharts lie deeper.
fn is_chart_yaml(path: &str) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    path.split_once('/')
        .is_some_and(|(_, file)| file == "Chart.yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_and_annotations_are_those_of_helm() {
        let chart = ChartMetadata::parse(
            "
apiVersion: v2
name: app
version: 1.2.3
appVersion: 1.10
description: An <app> & more
home: https://app.example
sources: [https://git.example/app, https://other.example]
keywords: []
deprecated: false
maintainers:
- {name: Jo, email: jo@app.example}
- {name: Al}
dependencies:
- {name: db, version: 1.x, repository: 'https://charts.example', tags: [a], unknown: 1}
annotations: {z: '1', a: x, org.opencontainers.image.title: other, org.opencontainers.image.url: https://own.example}
unknown: {x: 1}
type: application
",
        )
        .expect("a chart");
        assert_eq!((chart.name(), chart.version()), ("app", "1.2.3"));
        assert_eq!(
            String::from_utf8(chart.config()).expect("text"),
            concat!(
                r#"{"name":"app","home":"https://app.example","sources":["https://git.example/app","https://other.example"],"#,
                r#""version":"1.2.3","description":"An \u003capp\u003e \u0026 more","#,
                r#""maintainers":[{"name":"Jo","email":"jo@app.example"},{"name":"Al"}],"apiVersion":"v2","appVersion":"1.1","#,
                r#""annotations":{"a":"x","org.opencontainers.image.title":"other","org.opencontainers.image.url":"https://own.example","z":"1"},"#,
                r#""dependencies":[{"name":"db","version":"1.x","repository":"https://charts.example","tags":["a"]}],"type":"application"}"#,
            )
        );
        let annotations = chart.annotations();
        let annotations: Vec<String> = annotations
            .iter()
            .map(|(name, value)| {
                let name = name
                    .strip_prefix("org.opencontainers.image.")
                    .unwrap_or(name);
                format!("{name}={value}")
            })
            .collect();
        assert_eq!(
            annotations,
            [
                "a=x",
                "authors=Jo (jo@app.example), Al",
                "description=An <app> & more",
                "source=https://git.example/app",
                "title=app",
                "url=https://own.example",
                "version=1.2.3",
                "z=1",
            ]
        );
    }

    #[test]
    fn charts_have_names_and_versions() {
        for (text, expected) in [
            ("version: 1.0.0", "Chart.yaml has no `name`"),
            ("{name: a, version: ''}", "Chart.yaml has no `version`"),
            ("{name: a, version: [1]}", "Chart.yaml has no `version`"),
            ("a: [", "Chart.yaml:1"),
        ] {
            let error = ChartMetadata::parse(text).expect_err(text);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn subcharts_are_not_the_chart() {
        for (path, expected) in [
            ("app/Chart.yaml", true),
            ("./app/Chart.yaml", true),
            ("Chart.yaml", false),
            ("app/charts/db/Chart.yaml", false),
            ("app/Chart.yaml.bak", false),
        ] {
            assert_eq!(is_chart_yaml(path), expected, "{path}");
        }
    }
}
