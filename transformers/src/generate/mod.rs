//! From component versions to the transfer spec that carries them: what `ocm transfer component-version` runs.
//!
//! The spec is one like any other: the reference's step types and ids (transformation.md 4), descriptors in the environment,
//! one step per thing that happens. What it does not say does not happen, so printing and replaying it gives the same.
//!
//! *Invariant*: the same component versions and options give the same spec to the byte, and its size is linear in theirs.

mod ids;
mod nodes;
mod route;
mod select;
mod statement;
mod transform;
mod uploads;
mod writer;

use std::collections::BTreeSet;

use ocm_content::{Error, ErrorKind};
use ocm_engine::StepTypes;
use ocm_repository::ComponentVersion;
use ocm_specs::RepositorySpec;
use ocm_specs::access::AccessType;
use ocm_specs::descriptor::ElementKind;
use ocm_specs::transfer::TransferSpec;

use crate::component::ConflictPolicy;
use crate::signing::OnBrokenSignature;

pub(crate) use self::route::{hinted_name, image_below};
pub use self::select::Condition;
pub use self::statement::{Outside, Statement};
pub use self::transform::Transform;
pub use self::uploads::{Handler, OVERRIDE_TYPE, Override, Place};
use self::writer::Writer;

/// Most elements that an error names.
const LISTED: usize = 20;

/// Which resources are carried by value. What is stored beside the descriptor always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copy {
    /// Those that are stored beside the descriptor.
    #[default]
    LocalBlobs,
    /// Those with the relation `local`, too.
    LocalResources,
    /// All of them.
    AllResources,
}

/// What becomes of resources that are OCI artifacts in a target that is a registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UploadAs {
    /// Content stored beside the descriptor.
    #[default]
    LocalBlob,
    /// An artifact of its own below the target.
    OciArtifact,
}

/// How component versions are carried.
#[derive(Debug, Default)]
pub struct Options {
    /// Where to.
    pub targets: Vec<RepositorySpec>,
    /// Which resources by value.
    pub copy: Copy,
    /// Sources by value, too.
    pub copy_sources: bool,
    /// As what.
    pub upload_as: UploadAs,
    /// Kinds of access that stay by reference whatever else is asked for.
    pub keep: Vec<AccessType>,
    /// What can't be read here stays by reference instead of being an error.
    pub allow_external: bool,
    /// Elements that stay by reference since nobody has their content: `component:version`, the list, and the place in it.
    pub absent: BTreeSet<(String, ElementKind, usize)>,
    /// Resources that one of these is true of are carried by value, all where there is none. What lies beside a descriptor
    /// always is.
    pub select: Vec<Condition>,
    /// Resources that one of these is true of stay by reference.
    pub exclude: Vec<Condition>,
    /// Resources that land at a place of their own; they are carried by value.
    pub overrides: Vec<Override>,
    /// Where kinds of artifacts land; the first that fits decides.
    pub handlers: Vec<Handler>,
    /// Of images for several platforms, only these (`os/architecture[/variant]`) are carried; all where there is none.
    pub platforms: Vec<String>,
    /// Steps that resources go through which are carried by value, one after the other.
    pub transforms: Vec<Transform>,
    /// What becomes of component versions that are at a target already. Part of the spec unless it is the default, since
    /// the reference does not know the field.
    pub conflict_policy: ConflictPolicy,
    /// What becomes of signatures that do not survive; part of the spec as the conflict policy is.
    pub on_broken_signature: OnBrokenSignature,
}

/// A generated spec and what is to be said about it.
#[derive(Debug)]
pub struct Generated {
    /// The spec, in native form.
    pub spec: TransferSpec,
    /// What the user may want to know.
    pub notes: Vec<String>,
    /// What will still point outside of the target.
    pub statement: Statement,
}

/// Writes the spec that carries `versions`, children before parents, to the targets.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when content is to be carried by value that no step type of `types` reads: all such elements
/// are named. [`ErrorKind::Invalid`] for descriptors whose lists are none.
pub fn generate(
    versions: Vec<ComponentVersion>,
    options: &Options,
    types: &StepTypes,
) -> Result<Generated, Error> {
    let overrides = uploads::resolve(&options.overrides, &versions)?;
    let mut writer = Writer::new(options, types, overrides);
    for version in versions {
        writer.version(version)?;
    }
    let unreadable = writer.unreadable();
    if !unreadable.is_empty() && !options.allow_external {
        return Err(cannot_carry(unreadable));
    }
    Ok(writer.finish())
}

fn cannot_carry(unreadable: &[String]) -> Error {
    let mut list = unreadable
        .iter()
        .take(LISTED)
        .map(|it| format!("\n  {it}"))
        .collect::<String>();
    if unreadable.len() > LISTED {
        list.push_str(&format!("\n  and {} more", unreadable.len() - LISTED));
    }
    let message = format!("content that was asked for can't be read:{list}");
    Error::new(ErrorKind::Unsupported, message).with_hint(
        "leave it by reference with --allow-external, or name its access type with --omit-access-types",
    )
}

/// An element in words: `resource `name=x,version=1` of acme.org/y:1`.
fn named(kind: ElementKind, identity: &impl std::fmt::Display, component: &str) -> String {
    format!("{kind} `{identity}` of {component}")
}
