//! What makes a plan, and each step of it, the same as another.
//!
//! *Invariant*: an identity depends on nothing that does not change the work: not on the order of steps or of keys, not on
//! labels, and on ids only where an expression reads one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ocm_specs::Digest;
use ocm_specs::json::to_sorted;
use ocm_specs::transfer::Environment;
use ocm_specs::yaml::Node;
use serde_json::{Value as Json, json};

use crate::language::{Document, Edit, Key, Reference};
use crate::plan::Plan;

impl Plan {
    /// The digest (`sha256:...`) of the whole plan: equal plans, as [`Plan::to_json`] gives them, have equal fingerprints,
    /// whatever the order of keys in the document they came from.
    pub fn fingerprint(&self) -> String {
        digest(&self.to_json()).to_string()
    }

    /// The identity (`sha256:...`) of the work that a step does: its type, its inputs as written, the constants of the
    /// environment that it uses, and the identities of the steps it depends on, in place of their ids. `None` if there is
    /// no such step.
    ///
    /// It stays the same from plan to plan whatever else changes, renamed ids and labels included, so that what is known
    /// of the work can be found again. Two steps that do the same work have the same identity.
    pub fn step_identity(&self, id: &str) -> Option<String> {
        let step = self.index_of(id)?;
        let identities = self.identities.get_or_init(|| self.identify());
        identities.get(step).map(ToString::to_string)
    }

    fn identify(&self) -> Vec<Digest> {
        let mut ordered: HashMap<usize, Vec<usize>> = HashMap::new();
        for (source, target, _) in self.edges() {
            ordered.entry(*target).or_default().push(*source);
        }
        let mut known: Vec<Option<Digest>> = vec![None; self.steps().len()];
        for step in self.order.iter().copied() {
            let dependencies = ordered.get(&step).map(Vec::as_slice).unwrap_or_default();
            known[step] = Some(self.identity(step, dependencies, &known));
        }
        // Every step is in the order of a plan.
        known
            .into_iter()
            .map(|identity| identity.unwrap_or_else(|| Digest::sha256(b"")))
            .collect()
    }

    fn identity(&self, step: usize, dependencies: &[usize], known: &[Option<Digest>]) -> Digest {
        let (planned, node) = (&self.steps()[step], &self.spec.steps[step].spec);
        let identity_of = |step: usize| {
            known[step]
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default()
        };
        let mut uses = Uses::default();
        let spec = self.template(node, &planned.document, &identity_of, &mut uses);
        let dependencies: BTreeSet<String> =
            dependencies.iter().map(|step| identity_of(*step)).collect();
        let mut identity = json!({
            "type": planned.bound.info().name,
            "spec": spec,
            "dependencies": dependencies,
            "environment": uses.environment,
            "ids": uses.ids,
        });
        if let Some(implementation) = &planned.bound.info().implementation {
            identity["implementation"] = implementation.as_str().into();
        }
        digest(&identity)
    }

    /// The inputs as written, every name of a step replaced by its identity. No expression can contain the `#` that marks
    /// one, so no two different inputs look the same afterwards.
    fn template(
        &self,
        node: &Node,
        document: &Document,
        identity_of: &dyn Fn(usize) -> String,
        uses: &mut Uses,
    ) -> Json {
        document.edited(node, &mut |expression| {
            let references = expression.references();
            let edits = references.iter().filter_map(|reference| {
                if reference.root == "environment" {
                    uses.constant(reference, self.environment());
                    return None;
                }
                let identity = identity_of(self.index_of(reference.root)?);
                let text = format!("#{identity}");
                if reads_id(reference) {
                    uses.ids.insert((identity, reference.root.to_owned()));
                }
                Some(Edit {
                    at: reference.at.clone(),
                    text,
                })
            });
            edits.collect()
        })
    }
}

/// What expressions read besides other steps' inputs and outputs.
#[derive(Default)]
struct Uses {
    /// Constants by their paths; in a list, which is empty where there is nothing.
    environment: BTreeMap<String, Json>,
    /// Identities and ids of steps whose id is read.
    ids: BTreeSet<(String, String)>,
}

impl Uses {
    fn constant(&mut self, reference: &Reference<'_>, environment: &Environment) {
        let path: String = reference.segments.iter().map(ToString::to_string).collect();
        let found = match reference.segments.split_first() {
            None => Some(environment.to_json()),
            Some((first, rest)) => {
                let first = match &first.key {
                    Key::Field(name) => environment.get(name),
                    Key::Index(_) => None,
                };
                let found = rest
                    .iter()
                    .fold(first, |value, segment| match &segment.key {
                        Key::Field(name) => value?.get(&**name),
                        Key::Index(index) => value?.get(*index as usize),
                    });
                found.cloned()
            }
        };
        let found = found.into_iter().collect();
        self.environment.insert(path, Json::Array(found));
    }
}

/// May the expression read the step's id?
fn reads_id(reference: &Reference<'_>) -> bool {
    match reference.segments.first().map(|segment| &segment.key) {
        Some(Key::Field(name)) => &**name == "id",
        Some(Key::Index(_)) => false,
        None => true,
    }
}

/// Of JSON with sorted keys. Not of the canonical form (RFC 8785): that one makes different large integers equal.
fn digest(value: &Json) -> Digest {
    Digest::sha256(to_sorted(value).as_bytes())
}
