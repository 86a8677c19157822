//! The inline dialect: ids, content edges, components and patched descriptors that its authors leave out.
//!
//! Invariant: what an author wrote is never changed, but for the descriptor of a component upload, and that is reported.

use std::collections::{BTreeMap, BTreeSet};

use ocm_engine::language::{Key, Segment, Template};
use ocm_engine::{StepTypeInfo, StepTypes};
use ocm_specs::diagnostic::{Diagnostic, Diagnostics};
use ocm_specs::transfer::{Dialect, StepSpec, TransferSpec, Word};
use ocm_specs::yaml::{Map, Node, Value};
use serde_json::{Value as Json, json};

use super::roles::{REPOSITORY_FIELDS, Role, Roles};
use super::{member, text};
use crate::merge::MergeComponent;

/// The content field that steps are chained by.
const DATA: &str = "data";
const COMPONENT_DESCRIPTOR: &str = "componentDescriptor";
/// References that are followed through constants.
const CONSTANT_DEPTH: usize = 16;

/// Lowers a spec in the inline dialect.
pub(super) fn lower(
    spec: TransferSpec,
    types: &StepTypes,
    roles: &Roles,
) -> Result<(TransferSpec, Diagnostics), Diagnostics> {
    let mut lowering = Lowering::new(spec, types, roles);
    lowering.bind_content();
    lowering.infer_components();
    let inserts = lowering.thread_descriptors();
    lowering.insert(inserts);
    let Lowering {
        mut spec, findings, ..
    } = lowering;
    spec.dialect = Dialect::Native;
    let findings = Diagnostics::new(spec.source.clone(), findings);
    if findings.has_errors() {
        Err(findings)
    } else {
        Ok((spec, findings))
    }
}

struct Lowering<'t> {
    spec: TransferSpec,
    /// By step.
    facts: Vec<Facts<'t>>,
    /// Steps by id; of two with one id the first.
    index: BTreeMap<String, usize>,
    ids: Ids,
    findings: Vec<Diagnostic>,
}

/// What is known about a step.
struct Facts<'t> {
    info: Option<&'t StepTypeInfo>,
    role: Option<Role>,
    uses: Vec<Use>,
}

/// One reference to another step.
#[derive(Clone, Debug)]
struct Use {
    /// The input field it stands in.
    field: String,
    source: usize,
    /// The output field that is referred to; none where it is an input or the whole step.
    output: Option<String>,
}

/// Uploads that are written into a descriptor, and the downloads it stems from.
#[derive(Default)]
struct Chain {
    seen: BTreeSet<usize>,
    origins: BTreeSet<usize>,
    patched: BTreeSet<usize>,
}

impl<'t> Lowering<'t> {
    fn new(mut spec: TransferSpec, types: &'t StepTypes, roles: &Roles) -> Self {
        let mut ids = Ids::default();
        ids.name(&mut spec.steps);
        let mut index = BTreeMap::new();
        for (at, step) in spec.steps.iter().enumerate() {
            index.entry(step.name().to_owned()).or_insert(at);
        }
        let facts = spec.steps.iter().map(|step| {
            let info = types.get(&step.step_type.text).map(|it| it.info());
            let name = info.map_or(step.step_type.text.as_str(), |info| &info.name);
            Facts {
                info,
                role: roles.of(name),
                uses: Vec::new(),
            }
        });
        let mut lowering = Self {
            facts: facts.collect(),
            spec,
            index,
            ids,
            findings: Vec::new(),
        };
        for at in 0..lowering.spec.steps.len() {
            lowering.facts[at].uses = lowering.uses(at);
        }
        lowering
    }

    fn step(&self, at: usize) -> &StepSpec {
        &self.spec.steps[at]
    }

    fn inputs(&self, at: usize) -> Option<&Map> {
        self.step(at).spec.as_map()
    }

    fn has(&self, at: usize, field: &str) -> bool {
        self.inputs(at).is_some_and(|map| map.contains_key(field))
    }

    fn uses(&self, at: usize) -> Vec<Use> {
        let mut uses = Vec::new();
        for (field, member) in self.inputs(at).into_iter().flatten() {
            strings(&member.node, &mut |text| {
                // A malformed template is the engine's to report, with its place.
                let Ok(template) = Template::parse(text) else {
                    return;
                };
                for placed in template.expressions() {
                    for reference in placed.expression.references() {
                        if let Some(source) = self.index.get(reference.root) {
                            let output = self.output(*source, &reference.segments);
                            uses.push(Use {
                                field: field.clone(),
                                source: *source,
                                output,
                            });
                        }
                    }
                }
            });
        }
        uses
    }

    /// Which output field the path behind a step's name means (R2).
    fn output(&self, source: usize, segments: &[Segment]) -> Option<String> {
        let name = |at: usize| match &segments.get(at)?.key {
            Key::Field(name) => Some(name.to_string()),
            Key::Index(_) => None,
        };
        let first = name(0)?;
        match first.as_str() {
            "output" | "outputs" => name(1),
            "spec" | "id" | "type" => None,
            _ => {
                let fields = self.facts[source].info?.output_schema.get("properties")?;
                fields.get(&first).map(|_| first)
            }
        }
    }

    /// Uses in one input field of a step.
    fn uses_of<'a>(&'a self, at: usize, field: &'a str) -> impl Iterator<Item = &'a Use> {
        let uses = self.facts[at].uses.iter();
        uses.filter(move |it| it.field == field)
    }

    /// Writes an input that was implied: the reference to an output of another step.
    fn imply(&mut self, at: usize, field: &str, source: usize, output: &str) {
        let value = reference(self.step(source), output);
        let step = &mut self.spec.steps[at];
        let span = step.span;
        if let Value::Map(inputs) = &mut step.spec.value {
            inputs.insert(field.to_owned(), member(text(value, span), span));
        }
        self.facts[at].uses.push(Use {
            field: field.to_owned(),
            source,
            output: Some(output.to_owned()),
        });
    }

    /// R5: a step that leaves its primary content out takes it from the nearest step before, whose content nobody reads.
    fn bind_content(&mut self) {
        let read: BTreeSet<(usize, String)> = self
            .facts
            .iter()
            .flat_map(|facts| &facts.uses)
            .filter_map(|it| Some((it.source, it.output.clone()?)))
            .collect();
        // Steps so far whose content nobody reads.
        let mut unread: BTreeMap<usize, String> = BTreeMap::new();
        for at in 0..self.spec.steps.len() {
            let missing = self.facts[at].info.and_then(primary_input);
            if let Some(field) = missing.filter(|field| !self.has(at, field))
                // Without one the input stays missing, and the engine says so.
                && let Some((source, output)) = unread.pop_last()
            {
                let field = field.to_owned();
                self.imply(at, &field, source, &output);
                let message = format!(
                    "it is not given and bound to `{}`, the nearest content before that no step reads",
                    reference(self.step(source), &output)
                );
                let (span, name) = (self.step(at).span, self.step(at).name().to_owned());
                let warning = Diagnostic::warning("W101", span, message);
                self.findings
                    .push(warning.in_step(name).at_field(format!("spec.{field}")));
            }
            let output = self.primary_output(at);
            unread.extend(
                output
                    .filter(|output| !read.contains(&(at, output.clone())))
                    .map(|output| (at, output)),
            );
        }
    }

    /// The content output that other steps chain by. A descriptor's bytes are no resource.
    fn primary_output(&self, at: usize) -> Option<String> {
        let facts = &self.facts[at];
        if facts.role == Some(Role::ComponentDownload) {
            return None;
        }
        let outputs = &facts.info?.outputs;
        let port = outputs.iter().find(|port| port.name == DATA);
        let port = port.or_else(|| outputs.first().filter(|_| outputs.len() == 1))?;
        Some(port.name.clone())
    }

    /// R7: a resource step without a component takes the only one that its inputs stem from.
    fn infer_components(&mut self) {
        for at in 0..self.spec.steps.len() {
            let needs = matches!(
                self.facts[at].role,
                Some(Role::ResourceDownload | Role::LocalBlobUpload)
            );
            if !needs || self.has(at, COMPONENT_DESCRIPTOR) {
                continue;
            }
            let mut found = BTreeSet::new();
            self.closure(at, &mut BTreeSet::new(), &mut found);
            let downloads: Vec<usize> = found.into_iter().collect();
            if let [only] = downloads.as_slice() {
                self.imply(at, COMPONENT_DESCRIPTOR, *only, "descriptor");
                continue;
            }
            let step = self.step(at);
            let message = if downloads.is_empty() {
                "nothing says which component's resource this is".to_owned()
            } else {
                let names = downloads
                    .iter()
                    .map(|it| format!("`{}`", self.step(*it).name()));
                let names: Vec<String> = names.collect();
                format!("this could be a resource of {}", names.join(" or "))
            };
            let finding = Diagnostic::error(step.span, message)
                .in_step(step.name())
                .at_field(format!("spec.{COMPONENT_DESCRIPTOR}"))
                .with_hint("set `componentDescriptor: ${STEP.output.descriptor}`");
            self.findings.push(finding);
        }
    }

    /// The component downloads that the inputs of a step stem from.
    fn closure(&self, at: usize, seen: &mut BTreeSet<usize>, found: &mut BTreeSet<usize>) {
        let mut stack = vec![at];
        while let Some(at) = stack.pop() {
            for it in &self.facts[at].uses {
                if self.facts[it.source].role == Some(Role::ComponentDownload) {
                    found.insert(it.source);
                } else if seen.insert(it.source) {
                    stack.push(it.source);
                }
            }
        }
    }

    /// R6: component uploads wait for the uploads of their resources and take what those give. Returns the merge steps and
    /// the steps that they stand before.
    fn thread_descriptors(&mut self) -> Vec<(usize, StepSpec)> {
        let mut uploads: BTreeMap<usize, Vec<Upload>> = BTreeMap::new();
        let mut roles = self.facts.iter().map(|facts| facts.role);
        let has_component = roles.any(|role| role == Some(Role::ComponentUpload));
        let all = self.facts.iter().flat_map(|facts| &facts.uses);
        let used = all.filter(|it| it.output.is_some()).map(|it| it.source);
        let used: BTreeSet<usize> = used.collect();
        for at in 0..self.spec.steps.len() {
            match self.upload(at) {
                Some(upload) => uploads.entry(upload.component).or_default().push(upload),
                None if has_component && !used.contains(&at) => self.warn_of_stray(at),
                None => {}
            }
        }
        let mut inserts = Vec::new();
        for at in 0..self.spec.steps.len() {
            if self.facts[at].role != Some(Role::ComponentUpload) {
                continue;
            }
            let field = if self.has(at, COMPONENT_DESCRIPTOR) {
                COMPONENT_DESCRIPTOR
            } else {
                DATA
            };
            let mut chain = Chain::default();
            for it in self.uses_of(at, field) {
                self.follow(it.source, &mut chain);
            }
            let patches = self.patches(at, &chain, &uploads);
            if patches.is_empty() {
                continue;
            }
            if let Some(merge) = self.merge(at, field, &chain, &patches) {
                inserts.push((at, merge));
            }
        }
        inserts
    }

    /// Walks the way of a descriptor back to the downloads it stems from.
    fn follow(&self, at: usize, chain: &mut Chain) {
        let mut stack = vec![at];
        while let Some(at) = stack.pop() {
            if !chain.seen.insert(at) {
                continue;
            }
            let facts = &self.facts[at];
            match facts.role {
                Some(Role::ComponentDownload) => {
                    chain.origins.insert(at);
                    continue;
                }
                Some(role) if role.is_upload() => {
                    chain.patched.insert(at);
                    if role == Role::ResourceUpload {
                        continue;
                    }
                }
                _ => {}
            }
            let field = facts.role.and_then(Role::descriptor_field);
            for it in &facts.uses {
                let on_the_way = field.is_none_or(|field| it.field == field);
                if on_the_way || it.output.as_deref() == Some("resource") {
                    stack.push(it.source);
                }
            }
        }
    }

    /// Which resource of which component an upload takes, if it is one and that can be told.
    fn upload(&self, at: usize) -> Option<Upload> {
        let role = self.facts[at].role.filter(|role| role.is_upload())?;
        let download = self.download_of(at);
        let resource = [Some(at), download]
            .into_iter()
            .flatten()
            .find_map(|step| self.inputs(step)?.get("resource"))?;
        let mut chain = Chain::default();
        let descriptor_of = |step: usize| self.uses_of(step, COMPONENT_DESCRIPTOR);
        let own = descriptor_of(at).next().map(|_| at);
        for it in own.or(download).into_iter().flat_map(descriptor_of) {
            self.follow(it.source, &mut chain);
        }
        let mut origins = chain.origins.into_iter();
        let (component, None) = (origins.next()?, origins.next()) else {
            return None;
        };
        Some(Upload {
            at,
            component,
            resource: resource.node.to_json(),
            repository: (role == Role::LocalBlobUpload).then(|| self.repository(at)),
        })
    }

    /// An upload whose resource can't be told, and whose result nobody uses, may surprise its author.
    fn warn_of_stray(&mut self, at: usize) {
        if !self.facts[at].role.is_some_and(Role::is_upload) {
            return;
        }
        let step = self.step(at);
        let message = "nothing says which resource of which component this is: no uploaded descriptor will name it";
        let warning = Diagnostic::warning("W105", step.span, message)
            .in_step(step.name())
            .with_hint("set `componentDescriptor` and `resource`");
        self.findings.push(warning);
    }

    /// The resource download that an upload's content stems from, by primary content alone.
    fn download_of(&self, at: usize) -> Option<usize> {
        let mut seen = BTreeSet::new();
        let mut at = at;
        while seen.insert(at) {
            let facts = &self.facts[at];
            if facts.role == Some(Role::ResourceDownload) {
                return Some(at);
            }
            let inputs = &facts.info?.inputs;
            let port = inputs.iter().find(|port| port.name == DATA);
            let port = port.or_else(|| inputs.first())?;
            at = self.uses_of(at, &port.name).next()?.source;
        }
        None
    }

    /// The repository that a step talks to, with constants put in.
    fn repository(&self, at: usize) -> Vec<Option<Json>> {
        let field = |name: &&str| Some(self.constant(&self.inputs(at)?.get(*name)?.node, 0));
        REPOSITORY_FIELDS.iter().map(field).collect()
    }

    /// The value of a node that is a reference to a constant of another step; else the node as it is.
    fn constant(&self, node: &Node, depth: usize) -> Json {
        let resolve = || {
            let Ok(Template::Standalone(placed)) = Template::parse(node.as_str()?) else {
                return None;
            };
            let path = placed.expression.as_path()?;
            let source = *self.index.get(path.root())?;
            let mut segments = path.segments().iter();
            match &segments.next()?.key {
                Key::Field(field) if **field == *"spec" => {}
                _ => return None,
            }
            let mut target = &self.step(source).spec;
            for segment in segments {
                target = match &segment.key {
                    Key::Field(name) => target.get(name)?,
                    Key::Index(at) => target.as_list()?.get(usize::try_from(*at).ok()?)?,
                };
            }
            (depth < CONSTANT_DEPTH).then(|| self.constant(target, depth + 1))
        };
        resolve().unwrap_or_else(|| node.to_json())
    }

    /// The uploads that a component upload takes resources from and has not taken yet.
    fn patches(
        &mut self,
        at: usize,
        chain: &Chain,
        uploads: &BTreeMap<usize, Vec<Upload>>,
    ) -> Vec<usize> {
        let repository = self.repository(at);
        let uploads = || {
            let of_component = |origin| uploads.get(origin);
            chain.origins.iter().filter_map(of_component).flatten()
        };
        let fits = |upload: &&Upload| {
            let other = upload.repository.as_ref().filter(|it| **it != repository);
            other.is_none()
        };
        let named = &chain.patched;
        let mut patches = Vec::new();
        let mut taken: Vec<&Upload> = uploads().filter(|it| named.contains(&it.at)).collect();
        for upload in uploads().filter(fits) {
            if named.contains(&upload.at) {
                continue;
            }
            let same = taken.iter().find(|other| {
                other.component == upload.component && other.resource == upload.resource
            });
            match same.map(|other| other.at) {
                // A descriptor that its author merged says which upload counts.
                Some(first) if named.contains(&first) => {}
                Some(first) => {
                    let (first, second) = (self.step(first).name(), self.step(upload.at).name());
                    let message = format!(
                        "`{first}` and `{second}` upload the same resource of the component"
                    );
                    let step = self.step(at);
                    let finding = Diagnostic::error(step.span, message)
                        .in_step(step.name())
                        .with_hint(format!(
                            "say which one counts: a step of type `{}` with it among its `patches`",
                            <MergeComponent as ocm_engine::Transformer>::TYPE
                        ));
                    self.findings.push(finding);
                    return Vec::new();
                }
                None => {
                    taken.push(upload);
                    patches.push(upload.at);
                }
            }
        }
        patches
    }

    /// Makes the merge step and binds the component upload to it.
    fn merge(
        &mut self,
        at: usize,
        field: &str,
        chain: &Chain,
        patches: &[usize],
    ) -> Option<StepSpec> {
        let (span, name) = (self.step(at).span, self.step(at).name().to_owned());
        let base = if field == COMPONENT_DESCRIPTOR {
            self.inputs(at)?.get(field)?.node.clone()
        } else {
            let sources: BTreeSet<usize> = self.uses_of(at, field).map(|it| it.source).collect();
            let mut sources = sources.iter().filter(|it| chain.origins.contains(it));
            let (Some(origin), None) = (sources.next(), sources.next()) else {
                let message = "resources were uploaded elsewhere, and the bytes of this descriptor can't be changed";
                let finding = Diagnostic::error(span, message)
                    .in_step(name)
                    .at_field(format!("spec.{field}"))
                    .with_hint("give it as `componentDescriptor`");
                self.findings.push(finding);
                return None;
            };
            text(reference(self.step(*origin), "descriptor"), span)
        };
        let list: Vec<String> = patches
            .iter()
            .map(|patch| reference(self.step(*patch), "resource"))
            .collect();
        let mut inputs = Map::new();
        inputs.insert("base".to_owned(), member(base, span));
        inputs.insert(
            "patches".to_owned(),
            member(Node::from_json(&json!(list), span), span),
        );
        let step_type = <MergeComponent as ocm_engine::Transformer>::TYPE;
        let merge = StepSpec {
            id: Some(Word::new(self.ids.next(step_type), span)),
            step_type: Word::new(step_type, span),
            label: None,
            depends_on: Vec::new(),
            spec: Node {
                value: Value::Map(inputs),
                span,
            },
            span,
        };
        let descriptor = reference(&merge, "descriptor");
        if let Value::Map(inputs) = &mut self.spec.steps[at].spec.value {
            let place = inputs.get_index_of(field)?;
            inputs.shift_remove(field);
            let value = member(text(descriptor, span), span);
            inputs.shift_insert(place, COMPONENT_DESCRIPTOR.to_owned(), value);
        }
        let names = patches
            .iter()
            .map(|it| format!("`{}`", self.step(*it).name()));
        let names: Vec<String> = names.collect();
        let message = format!(
            "the uploaded descriptor takes resources from other steps: {}",
            names.join(", ")
        );
        let warning = Diagnostic::warning("W102", span, message);
        self.findings.push(warning.in_step(name));
        Some(merge)
    }

    fn insert(&mut self, inserts: Vec<(usize, StepSpec)>) {
        let mut inserts = inserts.into_iter().peekable();
        let steps = std::mem::take(&mut self.spec.steps);
        for (at, step) in steps.into_iter().enumerate() {
            while let Some((_, merge)) = inserts.next_if(|(before, _)| *before == at) {
                self.spec.steps.push(merge);
            }
            self.spec.steps.push(step);
        }
    }
}

/// A step that puts a resource somewhere.
struct Upload {
    at: usize,
    /// The download of the component that the resource belongs to.
    component: usize,
    /// The resource as the spec names it.
    resource: Json,
    /// The repository outside of which it can't be found; `None` for an access that is valid everywhere.
    repository: Option<Vec<Option<Json>>>,
}

/// Ids that are taken, and how many were made of each kind.
#[derive(Default)]
pub(super) struct Ids {
    taken: BTreeSet<String>,
    counters: BTreeMap<String, u32>,
}

impl Ids {
    /// Gives an id to every step that has none.
    fn name(&mut self, steps: &mut [StepSpec]) {
        let given = steps.iter().filter_map(|step| step.id.as_ref());
        self.taken = given.map(|id| id.text.clone()).collect();
        for step in steps.iter_mut().filter(|step| step.id.is_none()) {
            let id = self.next(&step.step_type.text);
            step.id = Some(Word::new(id, step.span));
        }
    }

    /// `<slug of the type><n>`, as the engine would count.
    pub(super) fn next(&mut self, step_type: &str) -> String {
        let name = step_type.split('/').next().unwrap_or_default();
        let mut slug: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        slug.make_ascii_lowercase();
        let slug = slug.trim_start_matches(|first: char| first.is_ascii_digit());
        let slug = if slug.is_empty() { "step" } else { slug };
        let counter = self.counters.entry(slug.to_owned()).or_default();
        loop {
            *counter += 1;
            let id = format!("{slug}{counter}");
            if self.taken.insert(id.clone()) {
                return id;
            }
        }
    }
}

/// The content input that a step can't do without.
fn primary_input(info: &StepTypeInfo) -> Option<&str> {
    let mut required = info.inputs.iter().filter(|port| port.required);
    let data = required.clone().find(|port| port.name == DATA);
    let port = data.or_else(|| {
        let first = required.next()?;
        required.next().is_none().then_some(first)
    })?;
    Some(&port.name)
}

fn reference(step: &StepSpec, output: &str) -> String {
    format!("${{{}.output.{output}}}", step.name())
}

/// Calls `visit` with every text of a tree.
fn strings<'a>(node: &'a Node, visit: &mut impl FnMut(&'a str)) {
    match &node.value {
        Value::String(text) => visit(text),
        Value::List(list) => list.iter().for_each(|item| strings(item, visit)),
        Value::Map(map) => map.values().for_each(|member| strings(&member.node, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
