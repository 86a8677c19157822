//! Writes the steps of one component version after the other.

use std::collections::BTreeSet;

use ocm_content::Error;
use ocm_engine::{StepTypes, Transformer as _};
use ocm_repository::ComponentVersion;
use ocm_specs::access::AccessType;
use ocm_specs::descriptor::{ComponentDescriptor, Element, ElementKind, Encoding};
use ocm_specs::transfer::{Dialect, Environment, StepSpec, TransferSpec, Word};
use ocm_specs::yaml::{Member, Node, Source, Span, Value};
use ocm_specs::{Digest, Identity, RepositorySpec};
use serde_json::Value as Json;

use super::ids::{self, Ids};
use super::nodes::{data, field, fields_of, list, map, repository, step, text, value_of};
use super::route::{
    Fetch, access_of, access_text, hinted_name, image_below, is_inside, is_local_artifact,
    local_media_type,
};
use super::select::is_selected;
use super::statement::{Outside, Statement};
use super::transform::Given;
use super::uploads::{Overrides, Place};
use super::{Copy, Generated, Options, UploadAs, named};
use crate::component::ConflictPolicy;
use crate::inert;
use crate::platforms::FilterPlatforms;
use crate::resource::component_fields;
use crate::signing::OnBrokenSignature;

/// Writes a spec.
pub(super) struct Writer<'o> {
    options: &'o Options,
    types: &'o StepTypes,
    overrides: Overrides,
    ids: Ids,
    environment: Environment,
    steps: Vec<StepSpec>,
    /// Expressions for the files of the steps that have some: what the reference cleans up.
    files: Vec<String>,
    notes: Vec<String>,
    unreadable: Vec<String>,
    statement: Statement,
    referenced: BTreeSet<String>,
    /// Transformations that something goes through.
    transforms: BTreeSet<usize>,
}

/// The component version that is being written.
struct Current {
    version: ComponentVersion,
    /// `component:version`.
    name: String,
    /// For labels.
    label: String,
    base: String,
}

/// An element and where it stands.
struct Item {
    index: usize,
    value: Json,
    identity: Identity,
    /// The part of ids that tells it from others.
    id: String,
    kind: ElementKind,
}

/// Content that is carried by value.
struct Carried {
    way: Fetch,
    /// Which transformations it goes through.
    transforms: Vec<usize>,
    /// What gives it, once there is a step for it.
    given: Option<Given>,
}

impl Carried {
    /// Is the element to be composed, since its access will no longer be what it was?
    fn is_moved(&self) -> bool {
        self.way != Fetch::Local
    }
}

impl Item {
    fn access_type(&self) -> AccessType {
        AccessType::of(access_text(&self.value))
    }
}

/// What stands in the place of elements: expressions by index.
type Patches = Vec<(usize, String)>;

impl<'o> Writer<'o> {
    pub(super) fn new(options: &'o Options, types: &'o StepTypes, overrides: Overrides) -> Self {
        Self {
            options,
            types,
            overrides,
            ids: Ids::default(),
            environment: Environment::default(),
            steps: Vec::new(),
            files: Vec::new(),
            notes: Vec::new(),
            unreadable: Vec::new(),
            statement: Statement::default(),
            referenced: BTreeSet::new(),
            transforms: BTreeSet::new(),
        }
    }

    /// Elements that were to be carried by value and can't be read here.
    pub(super) fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    pub(super) fn finish(mut self) -> Generated {
        if !self.files.is_empty() {
            let id = self.ids.word("fileBufferCleanup");
            let files = list(self.files.iter().map(value_of));
            let label = "Cleanup temp files".to_owned();
            let cleanup = step(&id, "FileCleanup/v1alpha1", label, map([("files", files)]));
            self.steps.push(cleanup);
        }
        for (at, transform) in self.options.transforms.iter().enumerate() {
            if !self.transforms.contains(&at) {
                let note = format!("no resource goes through `{}`", transform.step_type);
                self.notes.push(note);
            }
        }
        let carried: BTreeSet<&String> = self.statement.versions.iter().collect();
        self.statement.not_carried = self
            .referenced
            .into_iter()
            .filter(|name| !carried.contains(name))
            .collect();
        let spec = TransferSpec {
            source: Source::new("generated spec", ""),
            dialect: Dialect::Native,
            plugins: Vec::new(),
            environment: self.environment,
            steps: self.steps,
            mappings: Vec::new(),
        };
        Generated {
            spec,
            notes: self.notes,
            statement: self.statement,
        }
    }

    /// Writes the steps that carry a component version to every target.
    pub(super) fn version(&mut self, version: ComponentVersion) -> Result<(), Error> {
        let descriptor = version.descriptor.clone();
        let (name, number) = (descriptor.name(), descriptor.version());
        let current = Current {
            name: format!("{name}:{number}"),
            label: format!("{}@{number}", name.rsplit('/').next().unwrap_or(name)),
            base: self.ids.base(name, number),
            version,
        };
        self.statement.versions.push(current.name.clone());
        for reference in descriptor.references() {
            let component = reference.component_name().unwrap_or_default();
            self.referenced
                .insert(format!("{component}:{}", reference.version()));
        }
        let resources = items(&descriptor, ElementKind::Resource);
        let sources = items(&descriptor, ElementKind::Source);
        let items: Vec<Item> = resources.into_iter().chain(sources).collect();
        let mut carried: Vec<Option<Carried>> = Vec::with_capacity(items.len());
        let selected = self.selected(&current, &items)?;
        for (item, is_selected) in items.iter().zip(selected) {
            let mut found = self.carried(&current, item, is_selected);
            self.choose_transforms(&current, item, found.as_mut())?;
            carried.push(found);
        }
        let read = match carried.iter().all(Option::is_none) {
            true => self.read(&current),
            false => None,
        };
        for number in 0..self.options.targets.len() {
            self.target(&current, number, &items, &mut carried, read.as_deref())?;
        }
        self.environment
            .insert(current.base, descriptor.shared_document());
        Ok(())
    }

    /// What carries a component version to one target.
    fn target(
        &mut self,
        current: &Current,
        number: usize,
        items: &[Item],
        carried: &mut [Option<Carried>],
        read: Option<&str>,
    ) -> Result<(), Error> {
        let options = self.options;
        let target = &options.targets[number];
        let base = match options.targets.len() {
            1 => current.base.clone(),
            _ => format!("{}T{number}", current.base),
        };
        let (mut resources, mut sources) = (Patches::new(), Patches::new());
        for (item, carried) in items.iter().zip(carried) {
            let Some(carried) = carried else {
                self.note_outside(current, item, target);
                continue;
            };
            let added = self.add(current, &base, target, item, carried)?;
            match item.kind {
                ElementKind::Source => sources.push((item.index, added)),
                _ => resources.push((item.index, added)),
            }
        }
        let descriptor = if resources.is_empty() && sources.is_empty() {
            value_of(format!("environment.{}", current.base))
        } else {
            let document = current.version.descriptor.document();
            composed(document, &current.base, &resources, &sources)
        };
        let mut spec = vec![
            ("descriptor", descriptor),
            ("repository", repository(target, true)),
        ];
        if options.conflict_policy != ConflictPolicy::default() {
            spec.insert(0, ("conflictPolicy", word(&options.conflict_policy)));
        }
        if options.on_broken_signature != OnBrokenSignature::default() {
            spec.push(("onBrokenSignature", word(&options.on_broken_signature)));
        }
        let spec = map(spec);
        let mut upload = step(
            &self.ids.step(&base, "Upload", "", &current.name),
            &format!("{}AddComponentVersion/v1alpha1", prefix(target)),
            format!("{} [Upload]", current.label),
            spec,
        );
        let read = read.map(|read| Word::new(read, Span::default()));
        upload.depends_on.extend(read);
        self.steps.push(upload);
        Ok(())
    }

    /// Which elements the conditions choose, in their order. Sources are not asked about.
    fn selected(&self, current: &Current, items: &[Item]) -> Result<Vec<bool>, Error> {
        let (select, exclude) = (&self.options.select, &self.options.exclude);
        if select.is_empty() && exclude.is_empty() {
            return Ok(vec![true; items.len()]);
        }
        let mut scope = scope_of(current);
        let mut selected = Vec::with_capacity(items.len());
        for item in items {
            selected.push(match item.kind {
                ElementKind::Source => true,
                _ => {
                    scope.insert("resource".to_owned(), item.value.clone());
                    is_selected(select, exclude, &scope)
                        .map_err(|error| error.context(&*current.name))?
                }
            });
        }
        Ok(selected)
    }

    /// Which transformations an element goes through. One that is named for it must find it carried by value.
    fn choose_transforms(
        &mut self,
        current: &Current,
        item: &Item,
        mut carried: Option<&mut Carried>,
    ) -> Result<(), Error> {
        let options = self.options;
        if options.transforms.is_empty() || item.kind != ElementKind::Resource {
            return Ok(());
        }
        let mut scope = scope_of(current);
        scope.insert("resource".to_owned(), item.value.clone());
        for (at, transform) in options.transforms.iter().enumerate() {
            let is_meant = transform.is_for(&scope);
            if !is_meant.map_err(|error| error.context(&*current.name))? {
                continue;
            }
            match &mut carried {
                Some(carried) => {
                    carried.transforms.push(at);
                    self.transforms.insert(at);
                }
                None if transform.select.is_some() => {
                    let name = named(item.kind, &item.identity, &current.name);
                    let message = format!(
                        "{name} stays by reference, so it can't go through `{}`",
                        transform.step_type
                    );
                    return Err(Error::invalid(message)
                        .with_hint("carry it by value, as with --copy-resources"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The place that an override gives a resource.
    fn place(&self, current: &Current, item: &Item) -> Option<&Place> {
        let is_resource = item.kind == ElementKind::Resource;
        let key = (current.name.clone(), item.index);
        self.overrides.get(&key).filter(|_| is_resource)
    }

    /// A step that only reads the descriptor, so that a run that did not make the spec stores the bytes that the source
    /// has, where these are not the ones that writing it anew would give. `None` where they are.
    fn read(&mut self, current: &Current) -> Option<String> {
        let descriptor = &current.version.descriptor;
        let original = descriptor.original()?;
        let anew = ComponentDescriptor::from_value(descriptor.document().clone()).ok()?;
        if *original == anew.encode(Encoding::Json) {
            return None;
        }
        let id = self.ids.step(&current.base, "Read", "", &current.name);
        let source = current.version.repository.spec();
        let spec = map([
            ("component", text(descriptor.name())),
            ("repository", repository(source, false)),
            ("version", text(descriptor.version())),
        ]);
        self.steps.push(step(
            &id,
            &format!("{}GetComponentVersion/v1alpha1", prefix(source)),
            format!("{} [Read]", current.label),
            spec,
        ));
        Some(id)
    }

    /// How an element is carried by value; `None` for what stays by reference.
    fn carried(&mut self, current: &Current, item: &Item, is_selected: bool) -> Option<Carried> {
        let kind = item.access_type();
        let is_placed = self.place(current, item).is_some() && kind != AccessType::None;
        if !is_placed && !self.is_wanted(item, kind, is_selected) {
            return None;
        }
        let key = (current.name.clone(), item.kind, item.index);
        if self.options.absent.contains(&key) {
            return None;
        }
        let is_there = |way: &Fetch| self.types.get(&step_type(*way, current, item)).is_some();
        let way = Fetch::of(kind).filter(is_there);
        if way.is_none() {
            let name = named(item.kind, &item.identity, &current.name);
            let access = access_text(&item.value);
            self.unreadable
                .push(format!("{name}: access type `{access}`"));
        }
        way.map(|way| Carried {
            way,
            transforms: Vec::new(),
            given: None,
        })
    }

    /// What gives an element's content; its steps are written when it is asked for first.
    fn content(
        &mut self,
        current: &Current,
        item: &Item,
        carried: &mut Carried,
    ) -> Result<Given, Error> {
        if let Some(given) = &carried.given {
            return Ok(given.clone());
        }
        let id = self.step_id(&current.base, "Get", item);
        let label = self.label(current, "Get", item);
        let is_in_repository = matches!(carried.way, Fetch::Local | Fetch::Other);
        let spec = if is_in_repository || item.kind == ElementKind::Source {
            let descriptor = &current.version.descriptor;
            let field = match item.kind {
                ElementKind::Source => "sourceIdentity",
                _ => "resourceIdentity",
            };
            let source = current.version.repository.spec();
            map([
                ("component", text(descriptor.name())),
                ("repository", repository(source, false)),
                (field, identity(&item.identity)),
                ("version", text(descriptor.version())),
            ])
        } else {
            map([("resource", data(&item.value))])
        };
        let kind = step_type(carried.way, current, item);
        self.steps.push(step(&id, &kind, label, spec));
        let is_chart = carried.way == Fetch::Helm && item.kind == ElementKind::Resource;
        let id = if is_chart {
            self.convert(current, item, &id)
        } else if self.is_filtered(item, carried.way) {
            self.filter(current, item, &id)
        } else {
            id
        };
        let mut given = Given::by(id);
        for at in carried.transforms.clone() {
            given = self.transform(current, item, given, at)?;
        }
        carried.given = Some(given.clone());
        Ok(given)
    }

    /// Sends content through a step that the user wishes.
    fn transform(
        &mut self,
        current: &Current,
        item: &Item,
        given: Given,
        at: usize,
    ) -> Result<Given, Error> {
        let transform = &self.options.transforms[at];
        let (spec, output) = transform.step(self.types, &given.file)?;
        let number = if at == 0 {
            String::new()
        } else {
            (at + 1).to_string()
        };
        let id = self.step_id(&current.base, &format!("Transform{number}"), item);
        let label = self.label(current, "Transform", item);
        self.steps
            .push(step(&id, &transform.step_type, label, spec));
        Ok(Given {
            file: format!("{id}.output.{output}"),
            ..given
        })
    }

    /// May the content be an image for several platforms, of which only some are wanted?
    fn is_filtered(&self, item: &Item, way: Fetch) -> bool {
        let may_be_index = match way {
            Fetch::Image => true,
            Fetch::Local => is_local_artifact(&item.value),
            _ => false,
        };
        may_be_index && !self.options.platforms.is_empty() && item.kind == ElementKind::Resource
    }

    /// Leaves the platforms of an image that are wanted.
    fn filter(&mut self, current: &Current, item: &Item, get: &str) -> String {
        let id = self.step_id(&current.base, "Filter", item);
        let platforms = list(self.options.platforms.iter().map(|it| text(it)));
        let spec = map([
            ("file", value_of(format!("{get}.output.file"))),
            ("platforms", platforms),
            ("resource", value_of(format!("{get}.output.resource"))),
        ]);
        let label = self.label(current, "Filter", item);
        self.steps
            .push(step(&id, FilterPlatforms::TYPE, label, spec));
        id
    }

    /// A chart of a Helm repository becomes an OCI artifact.
    fn convert(&mut self, current: &Current, item: &Item, get: &str) -> String {
        let id = self.step_id(&current.base, "Convert", item);
        let spec = map([
            ("chartFile", value_of(format!("{get}.output.chartFile"))),
            ("provFile", value_of(format!("{get}.output.?provFile"))),
            ("resource", value_of(format!("{get}.output.resource"))),
        ]);
        let label = self.label(current, "Convert", item);
        self.steps
            .push(step(&id, "ConvertHelmToOCI/v1alpha1", label, spec));
        self.files.push(format!("{id}.spec.chartFile"));
        self.files.push(format!("{id}.spec.?provFile"));
        id
    }

    /// Is the element to be carried by value?
    fn is_wanted(&self, item: &Item, kind: AccessType, is_selected: bool) -> bool {
        match kind {
            AccessType::None => false,
            // What lies beside the descriptor can't be left behind: nobody would find it again.
            AccessType::LocalBlob
            | AccessType::LocalOciBlob
            | AccessType::LocalFilesystemBlob
            | AccessType::RelativeOciReference => true,
            _ if self.options.keep.contains(&kind) || !is_selected => false,
            _ if item.kind == ElementKind::Source => self.options.copy_sources,
            _ => match self.options.copy {
                Copy::LocalBlobs => false,
                Copy::LocalResources => {
                    item.value.get("relation").and_then(Json::as_str) == Some("local")
                }
                Copy::AllResources => true,
            },
        }
    }

    /// The step that puts content into a target; gives the expression for the element as it is there.
    fn add(
        &mut self,
        current: &Current,
        base: &str,
        target: &RepositorySpec,
        item: &Item,
        carried: &mut Carried,
    ) -> Result<String, Error> {
        let name = match item.kind {
            ElementKind::Source => "source",
            _ => "resource",
        };
        if let Some(below) = self.artifact(current, target, item, carried)? {
            // One target alone reads an image straight from its source; several share one read.
            let is_whole = self.options.platforms.is_empty() && carried.transforms.is_empty();
            if carried.way == Fetch::Image && self.options.targets.len() == 1 && is_whole {
                return Ok(self.transfer_artifact(current, base, item, &below));
            }
            return self.add_artifact(current, base, item, carried, &below);
        }
        let Given { id: get, file } = self.content(current, item, carried)?;
        let id = self.step_id(base, "Add", item);
        let descriptor = &current.version.descriptor;
        let element = if carried.is_moved() {
            let access = local_access(item, carried, &get);
            moved(item, &format!("{get}.output.{name}"), access)
        } else {
            value_of(format!("{get}.output.{name}"))
        };
        let spec = map([
            ("component", text(descriptor.name())),
            ("file", value_of(file)),
            ("repository", repository(target, true)),
            (name, element),
            ("version", text(descriptor.version())),
        ]);
        let kind = match item.kind {
            ElementKind::Source => "AddLocalSource/v1alpha1".to_owned(),
            _ => format!("{}AddLocalResource/v1alpha1", prefix(target)),
        };
        let label = self.label(current, "Add", item);
        self.steps.push(step(&id, &kind, label, spec));
        self.files.push(format!("{id}.spec.file"));
        Ok(format!("{id}.output.{name}"))
    }

    /// Where a resource goes that becomes an artifact of its own in a target; `None` for what is stored beside the
    /// descriptor.
    fn artifact(
        &self,
        current: &Current,
        target: &RepositorySpec,
        item: &Item,
        carried: &Carried,
    ) -> Result<Option<Below>, Error> {
        let hint = hinted_name(&item.value);
        if let Some(place) = self.place(current, item) {
            let element =
                Element::new(item.kind, &item.value, current.version.descriptor.version());
            let reference = place.reference(target, hint.as_deref(), element.version());
            let reference = reference.map_err(|why| {
                let name = named(item.kind, &item.identity, &current.name);
                Error::invalid(format!("upload configuration of {name}: {why}"))
            })?;
            return Ok(Some(Below::Named(reference)));
        }
        let is_artifact = match carried.way {
            Fetch::Image | Fetch::Helm => true,
            Fetch::Local => is_local_artifact(&item.value),
            Fetch::Other => item.access_type() == AccessType::RelativeOciReference,
            _ => false,
        };
        if !is_artifact || item.kind == ElementKind::Source {
            return Ok(None);
        }
        let media_type = local_media_type(&item.value);
        let handler = self
            .options
            .handlers
            .iter()
            .find(|it| it.is_for(&item.value, media_type, target));
        let below = |name: &str| match handler {
            Some(handler) => Some(format!("{}/{name}", handler.below)),
            None if self.options.upload_as == UploadAs::OciArtifact => image_below(target, name),
            None => None,
        };
        if carried.way == Fetch::Helm {
            let prefix = below("x");
            let prefix = prefix.and_then(|it| Some(it.strip_suffix('x')?.to_owned()));
            return Ok(prefix.map(Below::Converted));
        }
        Ok(hint.and_then(|hint| below(&hint)).map(Below::Named))
    }

    /// Copies an image from its source to its place.
    fn transfer_artifact(
        &mut self,
        current: &Current,
        base: &str,
        item: &Item,
        below: &Below,
    ) -> String {
        let id = self.step_id(base, "Transfer", item);
        let mut target = data(&item.value);
        if let Value::Map(fields) = &mut target.value {
            let key = fields
                .keys()
                .find(|key| key.eq_ignore_ascii_case("access"))
                .map_or("access", String::as_str)
                .to_owned();
            let node = artifact_access(below.reference(""));
            let member = Member {
                key: Span::default(),
                node,
            };
            fields.insert(key, member);
        }
        let spec = map([("resource", data(&item.value)), ("targetResource", target)]);
        let label = self.label(current, "Transfer", item);
        self.steps
            .push(step(&id, "TransferOCIArtifact/v1alpha1", label, spec));
        format!("{id}.output.resource")
    }

    /// Uploads an artifact that another step gives.
    fn add_artifact(
        &mut self,
        current: &Current,
        base: &str,
        item: &Item,
        carried: &mut Carried,
        below: &Below,
    ) -> Result<String, Error> {
        let Given { id: get, file } = self.content(current, item, carried)?;
        let id = self.step_id(base, "Add", item);
        let mut reference = below.reference(&get);
        // As the step does that copies an image from its source: the reference says what it must be.
        if carried.way == Fetch::Image
            && self.options.platforms.is_empty()
            && carried.transforms.is_empty()
            && let Value::String(text) = &mut reference.value
            && !text.contains('@')
            && let Some(digest) = digest_of(&item.value)
        {
            text.push_str(&format!("@{digest}"));
        }
        let access = artifact_access(reference);
        let resource = moved(item, &format!("{get}.output.resource"), access);
        let spec = map([("file", value_of(file)), ("resource", resource)]);
        let label = self.label(current, "Add", item);
        self.steps
            .push(step(&id, "AddOCIArtifact/v1alpha1", label, spec));
        self.files.push(format!("{id}.spec.file"));
        Ok(format!("{id}.output.resource"))
    }

    fn note_outside(&mut self, current: &Current, item: &Item, target: &RepositorySpec) {
        let Some(access) = access_of(&item.value).filter(|it| !is_inside(target, it)) else {
            return;
        };
        let place = [
            "imageReference",
            "url",
            "URL",
            "repoUrl",
            "helmRepository",
            "repository",
            "ref",
            "registry",
        ]
        .iter()
        .find_map(|field| access.get(field)?.as_str());
        self.statement.outside.push(Outside {
            component_version: current.name.clone(),
            kind: item.kind.as_str(),
            identity: item.identity.to_string(),
            access_type: access_text(&item.value).to_owned(),
            place: place.map(str::to_owned),
            target: target.to_string(),
        });
    }

    fn step_id(&mut self, base: &str, verb: &str, item: &Item) -> String {
        let salt = format!("{}/{}", item.kind, item.identity);
        self.ids.step(base, verb, &item.id, &salt)
    }

    fn label(&self, current: &Current, verb: &str, item: &Item) -> String {
        let name = item.identity.name().unwrap_or_default();
        match item.kind {
            ElementKind::Source => format!("{} [{verb} source {name}]", current.label),
            _ => format!("{} [{verb} {name}]", current.label),
        }
    }
}

/// What conditions see besides the resource.
fn scope_of(current: &Current) -> serde_json::Map<String, Json> {
    let document = current.version.descriptor.document();
    let component = ("component".to_owned(), component_fields(document));
    serde_json::Map::from_iter([component])
}

/// The type of the step that reads an element.
fn step_type(way: Fetch, current: &Current, item: &Item) -> String {
    let name = match (item.kind, way) {
        (ElementKind::Source, _) => "GetSource".to_owned(),
        (_, Fetch::Local) => {
            format!(
                "{}GetLocalResource",
                prefix(current.version.repository.spec())
            )
        }
        (_, Fetch::Image) => "GetOCIArtifact".to_owned(),
        (_, Fetch::Helm) => "GetHelmChart".to_owned(),
        (_, Fetch::Wget) => "DownloadWgetResource".to_owned(),
        (_, Fetch::GitHub) => "GetGitHubCommit".to_owned(),
        (_, Fetch::Other) => "GetResource".to_owned(),
    };
    name + "/v1alpha1"
}

/// A choice as specs spell it.
fn word(choice: &impl serde::Serialize) -> Node {
    data(&serde_json::to_value(choice).unwrap_or_default())
}

/// What step types for a kind of repository are called after.
fn prefix(spec: &RepositorySpec) -> &'static str {
    match spec {
        RepositorySpec::Ctf(_) => "CTF",
        RepositorySpec::Oci(_) => "OCI",
    }
}

fn items(descriptor: &ComponentDescriptor, kind: ElementKind) -> Vec<Item> {
    let elements = descriptor.elements(kind).enumerate();
    elements
        .map(|(index, element): (usize, Element<'_>)| {
            let identity = element.identity();
            Item {
                index,
                value: element.value().clone(),
                id: ids::element(&identity),
                identity,
                kind,
            }
        })
        .collect()
}

fn identity(identity: &Identity) -> Node {
    map(identity.iter().map(|(key, value)| (key, text(value))))
}

/// The image reference of an artifact in a target.
enum Below {
    /// By a name that is known.
    Named(String),
    /// Below this, by the name that a conversion gives.
    Converted(String),
}

impl Below {
    /// As a value of a spec; `from` is the step that converts.
    fn reference(&self, from: &str) -> Node {
        match self {
            Self::Named(reference) => text(reference),
            Self::Converted(prefix) => {
                let prefix = inert::text(prefix);
                let name = format!("${{{from}.output.resource.access.imageReference}}");
                Node::new(Value::String(prefix + &name))
            }
        }
    }
}

fn artifact_access(reference: Node) -> Node {
    map([
        ("imageReference", reference),
        ("type", text("ociArtifact/v1")),
    ])
}

/// The access of content that is going to be stored beside the descriptor: what it was called stays as a hint.
fn local_access(item: &Item, carried: &Carried, get: &str) -> Node {
    let hint = match carried.way {
        Fetch::Helm if item.kind == ElementKind::Resource => Some(value_of(format!(
            "{get}.output.resource.access.imageReference"
        ))),
        // Without a digest: what it names may be stored anew.
        _ => hinted_name(&item.value).map(|name| text(name.split('@').next().unwrap_or_default())),
    };
    let hint = hint.map(|hint| ("referenceName", hint));
    map(hint.into_iter().chain([("type", text("localBlob"))]))
}

fn digest_of(resource: &Json) -> Option<Digest> {
    let element = Element::new(ElementKind::Resource, resource, "");
    element.digest()?.digest()
}

/// An element, field by field as a step gives it, with another access. A digest that the step adds is taken.
fn moved(item: &Item, output: &str, access: Node) -> Node {
    let Some(fields) = item.value.as_object() else {
        return value_of(output);
    };
    let mut access = Some(access);
    let mut node = fields_of(fields, output, |key| {
        let is_access = key.eq_ignore_ascii_case("access");
        is_access.then(|| access.take()).flatten()
    });
    if let Value::Map(members) = &mut node.value
        && item.kind == ElementKind::Resource
        && !members.keys().any(|key| key.eq_ignore_ascii_case("digest"))
    {
        let digest = format!("has({output}.digest) ? {output}.digest : null");
        let member = Member {
            key: Span::default(),
            node: value_of(digest),
        };
        members.insert("digest".to_owned(), member);
    }
    node
}

/// The descriptor with other elements in some places; everything else by reference to the environment.
fn composed(document: &Json, base: &str, resources: &Patches, sources: &Patches) -> Node {
    let root = format!("environment.{base}");
    let lists = match document.get("apiVersion") {
        Some(_) => "spec",
        None => "component",
    };
    let Some(top) = document.as_object() else {
        return value_of(root);
    };
    fields_of(top, &root, |key| {
        let is_lists = key.eq_ignore_ascii_case(lists);
        let inner = top.get(key)?.as_object().filter(|_| is_lists)?;
        let path = format!("{root}{}", field(key));
        Some(fields_of(inner, &path, |key| {
            let patches = match key.to_ascii_lowercase().as_str() {
                "resources" => resources,
                "sources" => sources,
                _ => return None,
            };
            let count = inner.get(key)?.as_array().map(Vec::len)?;
            let path = format!("{path}{}", field(key));
            (!patches.is_empty()).then(|| patched(&path, count, patches))
        }))
    })
}

fn patched(path: &str, count: usize, patches: &Patches) -> Node {
    let mut patches = patches.iter().peekable();
    list((0..count).map(|index| match patches.peek() {
        Some((at, expression)) if *at == index => {
            patches.next();
            value_of(expression)
        }
        _ => value_of(format!("{path}[{index}]")),
    }))
}
