//! The mapping dialect: components with their source and target, and what happens to their resources (transformation.md R11).
//!
//! Per mapping: the component is downloaded, each listed resource goes through its transformations and is uploaded, local
//! blobs that are not listed are copied, everything else stays by reference, and the component is uploaded with what its
//! resources have become. Equal steps become one, so that several targets share their downloads.
//!
//! Invariant: text of a descriptor never becomes an expression.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use ocm_content::{Error, ErrorKind};
use ocm_engine::language::Template;
use ocm_engine::{StepTypeInfo, StepTypes, Transformer};
use ocm_repository::Session;
use ocm_specs::access::AccessType;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics, did_you_mean};
use ocm_specs::transfer::{Dialect, StepSpec, TransferSpec, Word};
use ocm_specs::yaml::{Map, Node, Span, Value};
use ocm_specs::{Identity, RepositorySpec};
use serde_json::{Map as JsonMap, Value as Json, json};

use super::inline::Ids;
use super::member;
use super::roles::Roles;
use crate::generate::{hinted_name, image_below};
use crate::inert::{self, constant};
use crate::merge::MergeComponent;
use crate::resource::{ResourceSelector, component_fields, identity_of, resources};

const MAPPING_KEYS: [&str; 5] = ["component", "source", "target", "resources", "sources"];
const COMPONENT_KEYS: [&str; 2] = ["name", "version"];
const RESOURCE_KEYS: [&str; 3] = ["resource", "transformations", "target"];
const TARGET_KEYS: [&str; 2] = ["type", "imageReference"];
const TARGET_TYPES: [&str; 2] = ["localBlob", "ociArtifact"];

/// Reads descriptors for the lowering.
#[async_trait]
pub trait ReadDescriptor: Send + Sync {
    /// The descriptor of a component version as JSON, in the form in which steps hand it out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the repository does not have it; whatever else reading gives.
    async fn descriptor(
        &self,
        repository: &RepositorySpec,
        component: &str,
        version: &str,
    ) -> Result<Json, Error>;
}

#[async_trait]
impl ReadDescriptor for Session {
    async fn descriptor(
        &self,
        repository: &RepositorySpec,
        component: &str,
        version: &str,
    ) -> Result<Json, Error> {
        let repository = self.repository(repository, false).await?;
        let found = repository.get(component, version).await?;
        Ok(found.descriptor.document().clone())
    }
}

/// Lowers a spec in the mapping dialect.
///
/// # Errors
/// All of them at once: unknown keys, step types, resources and names in expressions, repositories and component versions
/// that can't be read.
pub async fn lower_mapping(
    spec: TransferSpec,
    types: &StepTypes,
    read: &dyn ReadDescriptor,
) -> Result<(TransferSpec, Diagnostics), Diagnostics> {
    let mut lowering = Lowering {
        types,
        roles: Roles::built_in(),
        environment: (!spec.environment.is_empty()).then(|| spec.environment.to_json()),
        ids: Ids::default(),
        steps: Vec::new(),
        made: BTreeMap::new(),
        uploads: BTreeMap::new(),
        references: Vec::new(),
        findings: Vec::new(),
    };
    for mapping in &spec.mappings {
        if let Some(mapping) = lowering.read(mapping, read).await {
            lowering.mapping(&mapping);
        }
    }
    lowering.order();
    let findings = Diagnostics::new(spec.source.clone(), lowering.findings);
    if findings.has_errors() {
        return Err(findings);
    }
    let spec = TransferSpec {
        dialect: Dialect::Native,
        steps: lowering.steps,
        mappings: Vec::new(),
        ..spec
    };
    Ok((spec, findings))
}

struct Lowering<'t> {
    types: &'t StepTypes,
    roles: Roles,
    environment: Option<Json>,
    ids: Ids,
    steps: Vec<StepSpec>,
    /// Ids by type and inputs.
    made: BTreeMap<(String, String), String>,
    /// Component uploads by name, version and target.
    uploads: BTreeMap<(String, String, String), usize>,
    /// Component uploads and what they refer to, in the same form.
    references: Vec<(usize, (String, String, String))>,
    findings: Vec<Diagnostic>,
}

/// A mapping, with what it names at hand.
struct Mapping<'a> {
    name: String,
    version: String,
    source: RepositorySpec,
    targets: Vec<(RepositorySpec, Span)>,
    descriptor: Json,
    listed: Vec<Listed<'a>>,
    span: Span,
}

/// A resource that a mapping says something about.
struct Listed<'a> {
    /// How the mapping names it.
    selector: Json,
    resource: Json,
    transformations: Vec<&'a Node>,
    target: Option<&'a Node>,
    span: Span,
}

/// The names that expressions may use.
type Scope = JsonMap<String, Json>;

impl Lowering<'_> {
    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.findings.push(Diagnostic::error(span, message));
    }

    fn fail(&mut self, span: Span, error: &Error) {
        let mut finding = Diagnostic::error(span, error.to_string());
        finding.hint = error.hint().map(str::to_owned);
        self.findings.push(finding);
    }

    /// The map that `node` is, after a look at its keys.
    fn map<'a>(&mut self, node: &'a Node, what: &str, known: &[&str]) -> Option<&'a Map> {
        let Some(map) = node.as_map() else {
            self.error(
                node.span,
                format!("{what} is a map, this is a {}", node.kind()),
            );
            return None;
        };
        for (key, member) in map.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let finding = Diagnostic::error(member.key, format!("unknown key `{key}` of {what}"));
            let hint = did_you_mean(key, known.iter().copied()).map_or_else(
                || format!("known are `{}`", known.join("`, `")),
                |known| format!("did you mean `{known}`?"),
            );
            self.findings.push(finding.with_hint(hint));
        }
        Some(map)
    }

    fn field<'a>(&mut self, node: &'a Node, key: &str, what: &str) -> Option<&'a Node> {
        let found = node.get(key);
        if found.is_none() {
            self.error(node.span, format!("{what} has no `{key}`"));
        }
        found
    }

    fn list<'a>(&mut self, node: Option<&'a Node>, what: &str) -> &'a [Node] {
        match node.map(|node| (&node.value, node)) {
            None | Some((Value::Null, _)) => &[],
            Some((Value::List(list), _)) => list,
            Some((_, node)) => {
                self.error(
                    node.span,
                    format!("{what} is a list, this is a {}", node.kind()),
                );
                &[]
            }
        }
    }

    fn scope(&self, names: impl IntoIterator<Item = (&'static str, Json)>) -> Scope {
        let environment = self.environment.clone().map(|it| ("environment", it));
        names
            .into_iter()
            .chain(environment)
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The node with its expressions replaced by their values.
    fn substitute(&mut self, node: &Node, scope: &Scope) -> Node {
        let value = match &node.value {
            Value::String(text) => return self.evaluate(node, text, scope),
            Value::List(list) => {
                Value::List(list.iter().map(|it| self.substitute(it, scope)).collect())
            }
            Value::Map(map) => Value::Map(
                map.iter()
                    .map(|(key, it)| {
                        let node = self.substitute(&it.node, scope);
                        (key.clone(), member(node, it.key))
                    })
                    .collect(),
            ),
            other => other.clone(),
        };
        Node {
            value,
            span: node.span,
        }
    }

    fn evaluate(&mut self, node: &Node, text: &str, scope: &Scope) -> Node {
        let template = match Template::parse(text) {
            Ok(Template::Literal) => return node.clone(),
            Ok(template) => template,
            Err(error) => {
                self.error(node.span, error.message);
                return node.clone();
            }
        };
        match template.evaluate(text, scope) {
            Ok(value) => Node::from_json(&value, node.span),
            Err(error) => {
                let mut finding = Diagnostic::error(node.span, error.message);
                finding.hint = error.hint;
                self.findings.push(finding);
                node.clone()
            }
        }
    }

    /// A text with its expressions replaced.
    fn text(&mut self, node: &Node, what: &str, scope: &Scope) -> Option<String> {
        let errors = self.findings.len();
        let value = self.substitute(node, scope);
        match value.as_go_string() {
            Some(text) if !text.is_empty() => Some(text.into_owned()),
            _ => {
                if self.findings.len() == errors {
                    self.error(
                        node.span,
                        format!("{what} is a text, this is a {}", value.kind()),
                    );
                }
                None
            }
        }
    }

    /// One repository or a list of them.
    fn repositories(&mut self, node: &Node, scope: &Scope) -> Vec<(RepositorySpec, Span)> {
        let one = std::slice::from_ref(node);
        let nodes = node.as_list().unwrap_or(one);
        if nodes.is_empty() {
            self.error(node.span, "no repository is given");
        }
        let mut found = Vec::new();
        for node in nodes {
            let value = self.substitute(node, scope).to_json();
            match RepositorySpec::from_value(&value) {
                Ok(spec) => found.push((spec, node.span)),
                Err(error) => self.error(node.span, error.to_string()),
            }
        }
        found
    }

    /// Checks a mapping and reads what it names. `None` when something essential is missing, which has been reported.
    async fn read<'a>(&mut self, node: &'a Node, read: &dyn ReadDescriptor) -> Option<Mapping<'a>> {
        self.map(node, "a mapping", &MAPPING_KEYS)?;
        let component = self.field(node, "component", "the mapping");
        let source = self.field(node, "source", "the mapping");
        let target = self.field(node, "target", "the mapping");
        if let Some(first) = self.list(node.get("sources"), "`sources`").first() {
            let hint = "sources stay by reference; leave `sources` out";
            let finding = Diagnostic::error(first.span, "sources can't be transformed");
            self.findings.push(finding.with_hint(hint));
        }
        let component = component?;
        self.map(component, "a component", &COMPONENT_KEYS)?;
        let scope = self.scope([]);
        let name = self.field(component, "name", "the component");
        let name = name.and_then(|node| self.text(node, "a component's name", &scope));
        let version = self.field(component, "version", "the component");
        let version = version.and_then(|node| self.text(node, "a component's version", &scope));
        let (source, target, name, version) = (source?, target?, name?, version?);

        let identity = json!({"name": name, "version": version});
        let scope = self.scope([("component", identity.clone())]);
        let sources = self.repositories(source, &scope);
        let (source, descriptor) = self
            .descriptor(read, &sources, (&name, &version), component.span)
            .await?;
        let scope = self.scope([("component", identity), ("source", source.to_value())]);
        let targets = self.repositories(target, &scope);
        let listed = self.listed(node, &descriptor);
        Some(Mapping {
            name,
            version,
            source,
            targets,
            descriptor,
            listed,
            span: node.span,
        })
    }

    /// The descriptor from the first source that has it.
    async fn descriptor(
        &mut self,
        read: &dyn ReadDescriptor,
        sources: &[(RepositorySpec, Span)],
        (name, version): (&str, &str),
        span: Span,
    ) -> Option<(RepositorySpec, Json)> {
        let mut last = None;
        for (source, at) in sources {
            match read.descriptor(source, name, version).await {
                Ok(descriptor) => match resources(&descriptor) {
                    Ok(_) => return Some((source.clone(), descriptor)),
                    Err(error) => {
                        self.fail(span, &error);
                        return None;
                    }
                },
                Err(error) if error.kind() == ErrorKind::NotFound => last = Some((error, span)),
                Err(error) => {
                    self.fail(*at, &error);
                    return None;
                }
            }
        }
        let (error, at) = last?;
        self.fail(at, &error.context(format!("component `{name}:{version}`")));
        None
    }

    fn listed<'a>(&mut self, mapping: &'a Node, descriptor: &Json) -> Vec<Listed<'a>> {
        let scope = self.scope([("component", component_fields(descriptor))]);
        let mut listed = Vec::new();
        let mut seen: BTreeSet<Identity> = BTreeSet::new();
        for entry in self.list(mapping.get("resources"), "`resources`") {
            if self
                .map(entry, "an entry of `resources`", &RESOURCE_KEYS)
                .is_none()
            {
                continue;
            }
            let Some(selector) = self.field(entry, "resource", "the entry") else {
                continue;
            };
            let transformations = self.list(entry.get("transformations"), "`transformations`");
            let value = self.substitute(selector, &scope).to_json();
            let parsed = serde_json::from_value::<ResourceSelector>(value.clone());
            let Some(parsed) = parsed.ok().filter(|it| it.identity().name().is_some()) else {
                self.error(selector.span, "a resource is given by its `name`");
                continue;
            };
            match parsed.find(descriptor) {
                Ok(resource) if seen.insert(identity_of(resource)) => listed.push(Listed {
                    selector: value,
                    resource: resource.clone(),
                    transformations: transformations.iter().collect(),
                    target: entry.get("target"),
                    span: entry.span,
                }),
                Ok(_) => self.error(selector.span, "the resource is listed for the second time"),
                Err(error) => {
                    let span = selector.get("name").map_or(selector.span, |name| name.span);
                    self.fail(span, &error);
                }
            }
        }
        listed
    }

    fn mapping(&mut self, mapping: &Mapping<'_>) {
        let mut inputs = JsonMap::new();
        inputs.insert("name".to_owned(), constant(&mapping.name));
        inputs.insert("version".to_owned(), constant(&mapping.version));
        let (kind, place) = repository(&mapping.source);
        inputs.extend(place);
        let download = self.step(
            &format!("downloader.component.{kind}"),
            inputs,
            mapping.span,
        );
        for (target, span) in &mapping.targets {
            self.target(mapping, &download, target, *span);
        }
    }

    fn target(
        &mut self,
        mapping: &Mapping<'_>,
        download: &str,
        target: &RepositorySpec,
        span: Span,
    ) {
        let mut patches = Vec::new();
        let all = resources(&mapping.descriptor).unwrap_or_default();
        for resource in all {
            let listed = mapping.listed.iter().find(|it| it.resource == *resource);
            let upload = match listed {
                Some(listed) => self.listed_resource(mapping, download, target, listed),
                None => self.local_blob(mapping, download, target, resource),
            };
            patches.extend(upload.map(|id| output(&id, "resource")));
        }
        self.warn_of_sources(mapping);
        let descriptor = output(download, "descriptor");
        let (kind, mut inputs) = repository(target);
        if patches.is_empty() {
            // The bytes as they are: nothing of the descriptor changes.
            inputs.insert("data".to_owned(), output(download, "data"));
        } else {
            let merge = JsonMap::from_iter([
                ("base".to_owned(), descriptor),
                ("patches".to_owned(), Json::Array(patches)),
            ]);
            let name = MergeComponent::TYPE.trim_end_matches("/v1alpha1");
            let merge = self.step(name, merge, span);
            let descriptor = output(&merge, "descriptor");
            inputs.insert("componentDescriptor".to_owned(), descriptor);
        }
        let count = self.steps.len();
        self.step(&format!("uploader.component.{kind}"), inputs, span);
        if self.steps.len() > count {
            self.remember(mapping, target, count);
        }
    }

    /// Local blobs of sources have no step that copies them.
    fn warn_of_sources(&mut self, mapping: &Mapping<'_>) {
        for source in elements(&mapping.descriptor, &["sources"]) {
            if access_type(&source) == AccessType::LocalBlob {
                let message = format!(
                    "the source `{}` is a local blob, which is not copied",
                    identity_of(&source)
                );
                self.findings
                    .push(Diagnostic::warning("W104", mapping.span, message));
            }
        }
    }

    /// Notes a component upload and what it refers to, for [`Self::order`].
    fn remember(&mut self, mapping: &Mapping<'_>, target: &RepositorySpec, at: usize) {
        let place = target.to_value().to_string();
        let key = |name: &str, version: &str| (name.to_owned(), version.to_owned(), place.clone());
        self.uploads
            .insert(key(&mapping.name, &mapping.version), at);
        for reference in elements(&mapping.descriptor, &["componentReferences", "references"]) {
            let text = |field: &str| reference.get(field).and_then(Json::as_str);
            if let (Some(name), Some(version)) = (text("componentName"), text("version")) {
                self.references.push((at, key(name, version)));
            }
        }
    }

    /// R12: a component is uploaded after those it refers to.
    fn order(&mut self) {
        for (at, key) in std::mem::take(&mut self.references) {
            let Some(first) = self.uploads.get(&key).filter(|first| **first != at) else {
                continue;
            };
            let id = self.steps[*first].name().to_owned();
            let step = &mut self.steps[at];
            if !step.depends_on.iter().any(|word| word.text == id) {
                let span = step.span;
                step.depends_on.push(Word::new(id, span));
            }
        }
    }

    /// Copies a local blob; `None` for resources that stay by reference.
    fn local_blob(
        &mut self,
        mapping: &Mapping<'_>,
        download: &str,
        target: &RepositorySpec,
        resource: &Json,
    ) -> Option<String> {
        if access_type(resource) != AccessType::LocalBlob {
            return None;
        }
        let selector = selector(resource);
        let data = self.download(mapping, download, resource, selector, mapping.span)?;
        Some(self.upload_local_blob(download, target, &data, mapping.span))
    }

    fn upload_local_blob(
        &mut self,
        download: &str,
        target: &RepositorySpec,
        data: &Json,
        span: Span,
    ) -> String {
        let (kind, mut inputs) = repository(target);
        let descriptor = output(download, "descriptor");
        inputs.insert("componentDescriptor".to_owned(), descriptor);
        inputs.insert("data".to_owned(), data.clone());
        self.step(&format!("uploader.localblob.{kind}"), inputs, span)
    }

    /// The expression for a resource's content, with the step that gives it.
    fn download(
        &mut self,
        mapping: &Mapping<'_>,
        download: &str,
        resource: &Json,
        selector: Json,
        span: Span,
    ) -> Option<Json> {
        let (kind, place) = repository(&mapping.source);
        let (name, mut inputs) = match access_type(resource) {
            AccessType::LocalBlob => (format!("downloader.localblob.{kind}"), place),
            AccessType::OciArtifact => ("downloader.resource.oci".to_owned(), JsonMap::new()),
            AccessType::Helm => return Some(self.download_chart(resource, span)),
            AccessType::Wget => return Some(self.get("DownloadWgetResource", resource, span)),
            AccessType::GitHub => return Some(self.get("GetGitHubCommit", resource, span)),
            AccessType::Git => return Some(self.get("GetGitCommit", resource, span)),
            AccessType::OciBlob => return Some(self.get("GetOCIImageLayer", resource, span)),
            _ => {
                let access = resource.pointer("/access/type").and_then(Json::as_str);
                let message = format!(
                    "the resource's content can't be read: its access has the type `{}`",
                    access.unwrap_or_default()
                );
                self.error(span, message);
                return None;
            }
        };
        let descriptor = output(download, "descriptor");
        inputs.insert("componentDescriptor".to_owned(), descriptor);
        inputs.insert("resource".to_owned(), selector);
        Some(output(&self.step(&name, inputs, span), "data"))
    }

    /// The content of a resource whose access says itself where it is.
    fn get(&mut self, name: &str, resource: &Json, span: Span) -> Json {
        let resource = inert::json(resource.clone());
        let inputs = JsonMap::from_iter([("resource".to_owned(), resource)]);
        output(&self.step(name, inputs, span), "file")
    }

    /// A chart of a Helm repository, as the OCI artifact that it becomes.
    fn download_chart(&mut self, resource: &Json, span: Span) -> Json {
        let resource = inert::json(resource.clone());
        let inputs = JsonMap::from_iter([("resource".to_owned(), resource)]);
        let chart = self.step("GetHelmChart", inputs, span);
        let inputs = JsonMap::from_iter([
            ("chartFile".to_owned(), output(&chart, "chartFile")),
            ("provFile".to_owned(), output(&chart, "?provFile")),
            ("resource".to_owned(), output(&chart, "resource")),
        ]);
        output(&self.step("ConvertHelmToOCI", inputs, span), "file")
    }

    /// Sends a listed resource through its transformations; gives the upload.
    fn listed_resource(
        &mut self,
        mapping: &Mapping<'_>,
        download: &str,
        target: &RepositorySpec,
        listed: &Listed<'_>,
    ) -> Option<String> {
        let scope = self.scope([
            ("component", component_fields(&mapping.descriptor)),
            ("resource", listed.resource.clone()),
            ("source", mapping.source.to_value()),
            ("target", target.to_value()),
        ]);
        let selector = inert::json(listed.selector.clone());
        if listed.transformations.is_empty() && listed.target.is_none() {
            return self.local_blob(mapping, download, target, &listed.resource);
        }
        let mut data = self.download(mapping, download, &listed.resource, selector, listed.span)?;
        let mut upload = None;
        for node in &listed.transformations {
            if upload.is_some() {
                self.error(node.span, "nothing can follow an upload");
                return None;
            }
            let (id, is_upload) = self.transformation(node, &data, &scope)?;
            data = output(&id, "data");
            upload = is_upload.then_some(id);
        }
        match (upload, listed.target) {
            (Some(_), Some(target)) => {
                self.error(
                    target.span,
                    "`target` beside an upload among the `transformations`",
                );
                None
            }
            (Some(id), None) => Some(id),
            (None, None) => Some(self.upload_local_blob(download, target, &data, listed.span)),
            (None, Some(node)) => {
                self.upload_as(mapping, download, target, listed, node, &data, &scope)
            }
        }
    }

    /// One transformation as a step; tells whether it is an upload.
    fn transformation(
        &mut self,
        node: &Node,
        data: &Json,
        scope: &Scope,
    ) -> Option<(String, bool)> {
        let Some(map) = node.as_map() else {
            let message = format!("a transformation is a map, this is a {}", node.kind());
            self.error(node.span, message);
            return None;
        };
        let Some((word, at)) = map
            .get("type")
            .and_then(|it| Some((it.node.as_str()?, it.node.span)))
        else {
            self.error(node.span, "the transformation has no `type`");
            return None;
        };
        let Some(step_type) = self.types.get(word).cloned() else {
            let finding = Diagnostic::error(at, format!("there is no step type `{word}`"));
            let hint = did_you_mean(word, self.types.names()).map_or_else(
                || "see `ocm get types`".to_owned(),
                |known| format!("did you mean `{known}`?"),
            );
            self.findings.push(finding.with_hint(hint));
            return None;
        };
        if let Some(id) = map.get("id") {
            self.error(
                id.key,
                "a transformation of a mapping has no `id`: it can't be referred to",
            );
        }
        let mut inputs = Map::new();
        for (key, it) in map
            .iter()
            .filter(|(key, _)| !["type", "id"].contains(&key.as_str()))
        {
            let node = self.substitute(&it.node, scope);
            inputs.insert(key.clone(), member(inert::node(node), it.key));
        }
        let info = step_type.info();
        if info.inputs.iter().any(|port| port.name == "data") && !inputs.contains_key("data") {
            let data = Node::from_json(data, node.span);
            inputs.insert("data".to_owned(), member(data, node.span));
        }
        let is_upload = self.is_upload(info);
        if !is_upload && !info.outputs.iter().any(|port| port.name == "data") {
            self.error(
                at,
                format!("`{word}` gives no content that could be uploaded"),
            );
            return None;
        }
        Some((self.add(word, inputs, node.span), is_upload))
    }

    fn is_upload(&self, info: &StepTypeInfo) -> bool {
        let gives_resource = || info.output_schema.pointer("/properties/resource").is_some();
        match self.roles.of(&info.name) {
            Some(role) => role.is_upload(),
            None => info.outputs.is_empty() && gives_resource(),
        }
    }

    /// The upload that an entry's `target` asks for.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing, used once"
    )]
    fn upload_as(
        &mut self,
        mapping: &Mapping<'_>,
        download: &str,
        target: &RepositorySpec,
        listed: &Listed<'_>,
        node: &Node,
        data: &Json,
        scope: &Scope,
    ) -> Option<String> {
        self.map(node, "a resource's `target`", &TARGET_KEYS)?;
        let kind = self.field(node, "type", "the `target`")?;
        match kind.as_str() {
            Some("localBlob") => Some(self.upload_local_blob(download, target, data, listed.span)),
            Some("ociArtifact") => {
                let reference = match node.get("imageReference") {
                    Some(node) => self.text(node, "an image reference", scope)?,
                    None => self.image_reference(mapping, target, listed, node.span)?,
                };
                let inputs = JsonMap::from_iter([
                    ("imageReference".to_owned(), constant(&reference)),
                    ("data".to_owned(), data.clone()),
                ]);
                Some(self.step("uploader.resource.oci", inputs, listed.span))
            }
            other => {
                let finding = Diagnostic::error(kind.span, "unknown type of a resource's `target`");
                let hint = did_you_mean(other.unwrap_or_default(), TARGET_TYPES).map_or_else(
                    || "known are `localBlob` and `ociArtifact`".to_owned(),
                    |known| format!("did you mean `{known}`?"),
                );
                self.findings.push(finding.with_hint(hint));
                None
            }
        }
    }

    /// The place below an OCI target that a resource goes to: where it was, or what it is called.
    fn image_reference(
        &mut self,
        mapping: &Mapping<'_>,
        target: &RepositorySpec,
        listed: &Listed<'_>,
        span: Span,
    ) -> Option<String> {
        let name = hinted_name(&listed.resource).unwrap_or_else(|| {
            let field = |name: &str| listed.resource.get(name).and_then(Json::as_str);
            let version = field("version")
                .unwrap_or(&mapping.version)
                .replace('+', "-");
            format!("{}:{version}", field("name").unwrap_or_default())
        });
        let reference = image_below(target, &name);
        if reference.is_none() {
            let finding = Diagnostic::error(span, "an OCI artifact can't be put into this target");
            self.findings
                .push(finding.with_hint("give an `imageReference`"));
        }
        reference
    }

    /// Adds a step of one of our types with inputs made here.
    fn step(&mut self, name: &str, inputs: JsonMap<String, Json>, span: Span) -> String {
        let inputs = inputs
            .iter()
            .map(|(key, value)| (key.clone(), member(Node::from_json(value, span), span)))
            .collect();
        self.add(&format!("{name}/v1alpha1"), inputs, span)
    }

    /// Adds a step, or gives the id of the same one.
    fn add(&mut self, step_type: &str, inputs: Map, span: Span) -> String {
        let spec = Node {
            value: Value::Map(inputs),
            span,
        };
        let key = (step_type.to_owned(), spec.to_json().to_string());
        if let Some(id) = self.made.get(&key) {
            return id.clone();
        }
        let id = self.ids.next(step_type);
        self.made.insert(key, id.clone());
        self.steps.push(StepSpec {
            id: Some(Word::new(id.clone(), span)),
            step_type: Word::new(step_type, span),
            label: None,
            depends_on: Vec::new(),
            spec,
            span,
        });
        id
    }
}

/// The technology that step types are named after, and the fields that say which repository.
fn repository(spec: &RepositorySpec) -> (&'static str, JsonMap<String, Json>) {
    let mut fields = JsonMap::new();
    match spec {
        RepositorySpec::Ctf(spec) => {
            fields.insert("filePath".to_owned(), constant(&spec.file_path));
            ("ctf", fields)
        }
        RepositorySpec::Oci(spec) => {
            fields.insert("baseUrl".to_owned(), constant(&spec.base_url));
            if let Some(sub_path) = &spec.sub_path {
                fields.insert("subPath".to_owned(), constant(sub_path));
            }
            ("oci", fields)
        }
    }
}

fn output(id: &str, field: &str) -> Json {
    format!("${{{id}.output.{field}}}").into()
}

/// The elements of the list with one of these names.
fn elements(descriptor: &Json, names: &[&str]) -> Vec<Json> {
    let component = component_fields(descriptor);
    let list = names
        .iter()
        .find_map(|name| component.get(name)?.as_array());
    list.cloned().unwrap_or_default()
}

fn access_type(element: &Json) -> AccessType {
    let text = element.pointer("/access/type").and_then(Json::as_str);
    match AccessType::of(text.unwrap_or_default()) {
        local if local.is_local() => AccessType::LocalBlob,
        // Relative to the component's repository, and read with it.
        AccessType::RelativeOciReference => AccessType::LocalBlob,
        other => other,
    }
}

/// The whole identity of a resource, as a step names it.
fn selector(resource: &Json) -> Json {
    let mut fields = JsonMap::new();
    for key in ["name", "version", "extraIdentity"] {
        let value = resource.get(key).filter(|value| !value.is_null());
        fields.extend(value.map(|value| (key.to_owned(), inert::json(value.clone()))));
    }
    Json::Object(fields)
}
