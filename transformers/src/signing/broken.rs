//! Signatures that a run broke: what was signed is no longer what is about to be uploaded.
//!
//! *Invariant*: a signature that did not hold where it was read is not this program's business; one that did is never
//! carried on silently over something else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ocm_content::Error;
use ocm_repository::Session;
use ocm_specs::Digest;
use ocm_specs::descriptor::{ComponentDescriptor, Element, Signature};
use ocm_specs::json::to_sorted;
use ocm_specs::normalisation::{Normalisation, is_signed_part_equal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::rsa::{PrivateKey, SignatureAlgorithm};
use super::signature::{SignOptions, gaps, sign};

/// What becomes of signatures that the steps of a run broke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBrokenSignature {
    /// The component version is not uploaded.
    #[default]
    Fail,
    /// They stay, broken.
    Keep,
    /// They are left out.
    Drop,
    /// They are made anew with the keys of the run.
    Resign,
}

/// How a run treats signatures that it broke; provided to its [`Session`].
#[derive(Default)]
pub struct BrokenSignatures {
    /// Unless a step says otherwise.
    pub policy: OnBrokenSignature,
    /// Keys for [`OnBrokenSignature::Resign`].
    pub keys: Option<Box<dyn SigningKeys>>,
}

/// Where the keys are that make signatures.
pub trait SigningKeys: Send + Sync {
    /// The key that makes the signature `name` with `algorithm`.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::NotFound`] when there is none; its hint says how to give one.
    fn private(&self, name: &str, algorithm: SignatureAlgorithm) -> Result<PrivateKey, Error>;
}

impl fmt::Debug for BrokenSignatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokenSignatures")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Which step changed the content of a resource, by the resource as it handed it on.
#[derive(Debug, Default)]
struct Makers(Mutex<BTreeMap<Digest, String>>);

/// Remembers that a step changed what a resource is, so that it can be named when a signature breaks over it.
pub(crate) fn note_change(session: &Session, step: &str, old: &Json, new: &Json) {
    if old.get("digest") == new.get("digest") {
        return;
    }
    let key = Digest::sha256(to_sorted(new).as_bytes());
    session
        .shared::<Makers>()
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, step.to_owned());
}

fn maker(session: &Session, resource: &Json) -> Option<String> {
    let makers = session.provided::<Makers>()?;
    let key = Digest::sha256(to_sorted(resource).as_bytes());
    let makers = makers.0.lock().unwrap_or_else(PoisonError::into_inner);
    makers.get(&key).cloned()
}

/// The descriptor as it may be uploaded; `policy` is the step's own.
///
/// # Errors
/// [`ocm_content::ErrorKind::Mismatch`] naming signature, resource and step when the policy is to fail;
/// [`ocm_content::ErrorKind::NotFound`] when there is no key to sign anew with.
pub(crate) fn settle(
    session: &Session,
    descriptor: ComponentDescriptor,
    policy: Option<OnBrokenSignature>,
) -> Result<ComponentDescriptor, Error> {
    if descriptor.signatures().next().is_none() {
        return Ok(descriptor);
    }
    let originals = session
        .known()
        .signed(descriptor.name(), descriptor.version());
    if originals
        .iter()
        .any(|it| it.document() == descriptor.document())
    {
        return Ok(descriptor);
    }
    let broken: Vec<String> = descriptor
        .signatures()
        .filter(|signature| is_broken(signature, &descriptor, &originals))
        .map(|signature| signature.name().to_owned())
        .collect();
    let Some(first) = broken.first() else {
        return Ok(descriptor);
    };
    let run = session.provided::<BrokenSignatures>();
    let policy = policy.or_else(|| run.as_ref().map(|run| run.policy));
    match policy.unwrap_or_default() {
        OnBrokenSignature::Keep => Ok(descriptor),
        OnBrokenSignature::Drop => drop_signatures(descriptor, &broken),
        OnBrokenSignature::Resign => resign(descriptor, &broken, run.as_deref()),
        OnBrokenSignature::Fail => {
            let why = reasons(session, &descriptor, first, &originals);
            Err(Error::mismatch(format!(
                "signature `{first}` of {}:{} no longer holds: {why}",
                descriptor.name(),
                descriptor.version()
            ))
            .with_hint(
                "sign it anew in a step (sign.component), or decide with --on-broken-signature resign, drop or keep",
            ))
        }
    }
}

fn is_broken(
    signature: &Signature<'_>,
    new: &ComponentDescriptor,
    originals: &[ComponentDescriptor],
) -> bool {
    let Some(stated) = signature.digest() else {
        return false;
    };
    let normalisation = Normalisation::parse(&stated.normalisation_algorithm);
    let (Some(normalisation), Some(digest)) = (normalisation, stated.digest()) else {
        return false;
    };
    if normalisation.variant_of(new, &digest).is_some() {
        return false;
    }
    match carrier(signature, originals) {
        // It may not have held there either (digests of references that were never stored): what it stands on is the same.
        Some(original) => !is_signed_part_equal(original, new),
        None => gaps(new).is_empty(),
    }
}

/// The descriptor that the signature was read with.
fn carrier<'o>(
    signature: &Signature<'_>,
    originals: &'o [ComponentDescriptor],
) -> Option<&'o ComponentDescriptor> {
    originals.iter().find(|original| {
        original
            .signatures()
            .any(|it| it.fields() == signature.fields())
    })
}

/// What changed, and by which step, as far as that is known.
fn reasons(
    session: &Session,
    new: &ComponentDescriptor,
    name: &str,
    originals: &[ComponentDescriptor],
) -> String {
    let signature = new.signatures().find(|it| it.name() == name);
    let original = signature.and_then(|signature| carrier(&signature, originals));
    let Some(original) = original else {
        return "the digest that it signs is not that of the descriptor".to_owned();
    };
    let changes: Vec<String> = new
        .resources()
        .filter(|resource| is_changed(resource, original))
        .map(|resource| {
            let step = maker(session, resource.value());
            let step = step.map(|step| format!(" by step `{step}`"));
            format!(
                "resource `{}` was changed{}",
                resource.identity(),
                step.unwrap_or_default()
            )
        })
        .collect();
    if changes.is_empty() {
        return "the descriptor was changed".to_owned();
    }
    changes.join(", ")
}

/// Does the resource differ in more than where it is?
fn is_changed(resource: &Element<'_>, original: &ComponentDescriptor) -> bool {
    let Ok(before) = original.resource(&resource.identity()) else {
        return true;
    };
    let signed = |element: &Element<'_>| {
        let mut value = element.value().clone();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|key, _| !["access", "srcRefs"].contains(&key.as_str()));
        }
        value
    };
    signed(&before) != signed(resource)
}

fn drop_signatures(
    mut descriptor: ComponentDescriptor,
    names: &[String],
) -> Result<ComponentDescriptor, Error> {
    let change = descriptor.edit(|document| {
        let list = document.get_mut("signatures").and_then(Json::as_array_mut);
        if let Some(list) = list {
            list.retain(|it| {
                let name = it.get("name").and_then(Json::as_str).unwrap_or_default();
                !names.iter().any(|broken| broken == name)
            });
        }
        if let Some(fields) = document.as_object_mut()
            && fields
                .get("signatures")
                .and_then(Json::as_array)
                .is_some_and(Vec::is_empty)
        {
            fields.shift_remove("signatures");
        }
    });
    change.map_err(|error| Error::internal(error.to_string()))?;
    Ok(descriptor)
}

fn resign(
    mut descriptor: ComponentDescriptor,
    names: &[String],
    run: Option<&BrokenSignatures>,
) -> Result<ComponentDescriptor, Error> {
    for name in names {
        let options = options_of(&descriptor, name);
        let keys = run.and_then(|run| run.keys.as_deref());
        let key = keys.map_or_else(
            || Err(Error::not_found("this run has no keys")),
            |keys| keys.private(name, options.algorithm),
        );
        let key =
            key.map_err(|error| error.context(format!("make the signature `{name}` anew")))?;
        sign(&mut descriptor, &key, &options)?;
    }
    Ok(descriptor)
}

/// The same algorithms as before, as far as they are ours.
fn options_of(descriptor: &ComponentDescriptor, name: &str) -> SignOptions {
    let mut options = SignOptions {
        name: name.to_owned(),
        force: true,
        ..SignOptions::default()
    };
    let Some(old) = descriptor.signatures().find(|it| it.name() == name) else {
        return options;
    };
    if let Some(digest) = old.digest() {
        let normalisation = Normalisation::parse(&digest.normalisation_algorithm);
        options.normalisation = normalisation.unwrap_or(options.normalisation);
        options.hash = digest.algorithm().unwrap_or(options.hash);
    }
    let algorithm = old.field("algorithm").and_then(SignatureAlgorithm::parse);
    options.algorithm = algorithm.unwrap_or(options.algorithm);
    options
}
