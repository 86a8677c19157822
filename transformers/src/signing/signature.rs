//! Signatures in descriptors: how they are made, and when one holds.
//!
//! *Invariant*: a signature holds only when the descriptor has one meaning, its normal form has the digest that was signed,
//! and a trusted key made the signature with the algorithm that is declared. What was not looked at is listed.

use std::time::SystemTime;

use ocm_content::{Error, ErrorKind};
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, Element, ElementKind, Signature};
use ocm_specs::normalisation::{Normalisation, Variant};
use ocm_specs::{Algorithm, Digest};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::certificate;
use super::pem::{self, Block};
use super::rsa::{PrivateKey, PublicKey, PublicMaterial, SignatureAlgorithm};
use super::unambiguous;

/// The media type of a signature as PEM, whatever its algorithm.
pub const PEM_MEDIA_TYPE: &str = "application/x-pem-file";
/// The name of a signature that got none.
pub const DEFAULT_SIGNATURE: &str = "default";
/// Algorithms of signatures that are kept and compared with the descriptor, and not verified (formats.md 7.2).
const KEPT: [&str; 4] = ["GPG", "Sigstore/v1alpha1", "sigstore", "sigstore-v2"];
/// The header of a signature's PEM block that names the algorithm.
const ALGORITHM_HEADER: &str = "Signature Algorithm";
/// The label of a signature's PEM block.
const SIGNATURE_LABEL: &str = "SIGNATURE";
/// Most certificates that come with a signature.
const CHAIN_LIMIT: usize = 16;
/// Most signatures of one descriptor that are looked at.
const SIGNATURES_LIMIT: usize = 256;

/// How a signature's value is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureEncoding {
    /// Lower-case hex.
    #[default]
    Plain,
    /// PEM, with the certificates of the key.
    Pem,
}

/// How to sign.
#[derive(Clone, Debug)]
pub struct SignOptions {
    /// The signature's name, unique within the descriptor.
    pub name: String,
    /// How the digest is signed.
    pub algorithm: SignatureAlgorithm,
    /// What is hashed.
    pub normalisation: Normalisation,
    /// How it is hashed.
    pub hash: Algorithm,
    /// How the value is written.
    pub encoding: SignatureEncoding,
    /// For [`SignatureEncoding::Pem`]: certificates in DER, that of the key first. Roots are left out of the signature.
    pub certificates: Vec<Vec<u8>>,
    /// May a signature of the same name be replaced?
    pub force: bool,
}

impl Default for SignOptions {
    /// The defaults of the CLI v2.
    fn default() -> Self {
        Self {
            name: DEFAULT_SIGNATURE.to_owned(),
            algorithm: SignatureAlgorithm::Pss,
            normalisation: Normalisation::V4Alpha1,
            hash: Algorithm::Sha256,
            encoding: SignatureEncoding::Plain,
            certificates: Vec::new(),
            force: false,
        }
    }
}

/// The digest of a descriptor as it stands.
pub fn digest_of(
    descriptor: &ComponentDescriptor,
    normalisation: Normalisation,
    hash: Algorithm,
) -> DigestSpec {
    DigestSpec {
        hash_algorithm: hash.ocm_name().to_owned(),
        normalisation_algorithm: normalisation.as_str().to_owned(),
        value: normalisation.digest(descriptor, hash).hex().to_owned(),
    }
}

/// What keeps a digest of `descriptor` from covering what it describes: references and resources without complete digests,
/// each as one fact.
pub fn gaps(descriptor: &ComponentDescriptor) -> Vec<String> {
    let references = descriptor.references().filter(|it| !is_complete(it));
    let resources = descriptor
        .resources()
        .filter(|it| has_content(it) && !is_complete(it));
    references
        .chain(resources)
        .map(|it| format!("{} `{}` has no digest", it.kind(), it.identity()))
        .collect()
}

/// Does the element have a digest with all its parts, or the mark of exclusion?
pub(super) fn is_complete(element: &Element<'_>) -> bool {
    element.digest().is_some_and(|digest| {
        !digest.hash_algorithm.is_empty()
            && !digest.normalisation_algorithm.is_empty()
            && !digest.value.is_empty()
    })
}

/// Resources with the access `none` have nothing to digest.
pub(super) fn has_content(element: &Element<'_>) -> bool {
    let access = element.access_value().and_then(|access| access.get("type"));
    !matches!(access.and_then(Json::as_str), Some("none" | "None"))
}

/// May a signature of that name be added?
///
/// # Errors
/// [`ErrorKind::Conflict`] when there is one and `force` is off.
pub fn check_free(descriptor: &ComponentDescriptor, name: &str, force: bool) -> Result<(), Error> {
    if !force && descriptor.signatures().any(|it| it.name() == name) {
        return Err(Error::new(
            ErrorKind::Conflict,
            format!(
                "{}:{} has a signature `{name}` already",
                descriptor.name(),
                descriptor.version()
            ),
        )
        .with_hint("replace it with --force, or give another name with --signature"));
    }
    Ok(())
}

/// Signs a descriptor as it stands, and adds the signature to it. Nothing else in it changes.
///
/// # Errors
/// [`ErrorKind::Conflict`] when there is a signature of that name, [`ErrorKind::Invalid`] for a descriptor that can be read
/// in two ways or that leaves out digests, or when key and certificates do not belong together.
pub fn sign(
    descriptor: &mut ComponentDescriptor,
    key: &PrivateKey,
    options: &SignOptions,
) -> Result<Json, Error> {
    check_free(descriptor, &options.name, options.force)?;
    unambiguous::check(descriptor)?;
    if options.name.is_empty() {
        return Err(Error::invalid("a signature needs a name"));
    }
    if let Some(gap) = gaps(descriptor).into_iter().next() {
        return Err(Error::invalid(format!(
            "{gap}, so a signature would not cover it"
        )));
    }
    let digest = digest_of(descriptor, options.normalisation, options.hash);
    let address = digest
        .digest()
        .ok_or_else(|| Error::internal("a digest that was just made is none"))?;
    let bytes = key.sign(options.algorithm, &address)?;
    let (media_type, value) = match options.encoding {
        SignatureEncoding::Plain => (options.algorithm.media_type(), hex::encode(bytes)),
        SignatureEncoding::Pem => (PEM_MEDIA_TYPE, pem_value(key, options, bytes)?),
    };
    let signature = json!({
        "name": options.name,
        "digest": digest.to_value(),
        "signature": {
            "algorithm": options.algorithm.as_str(),
            "mediaType": media_type,
            "value": value,
        },
    });
    descriptor.put_signature(signature.clone());
    Ok(signature)
}

fn pem_value(key: &PrivateKey, options: &SignOptions, bytes: Vec<u8>) -> Result<String, Error> {
    let Some(leaf) = options.certificates.first() else {
        return Err(
            Error::invalid("a signature as PEM needs the certificate of its key")
                .with_hint("give it, and those it leads to, with --public-key"),
        );
    };
    if certificate::key(leaf)? != key.public_key() {
        return Err(Error::invalid(
            "the first certificate is not that of the private key",
        ));
    }
    let mut text = String::new();
    let signature = Block {
        label: SIGNATURE_LABEL.to_owned(),
        headers: vec![(
            ALGORITHM_HEADER.to_owned(),
            options.algorithm.as_str().to_owned(),
        )],
        bytes,
    };
    signature.write(&mut text);
    for (index, bytes) in options.certificates.iter().enumerate() {
        if index > 0 && certificate::is_self_signed(bytes)? {
            continue;
        }
        let certificate = Block {
            label: "CERTIFICATE".to_owned(),
            headers: Vec::new(),
            bytes: bytes.clone(),
        };
        certificate.write(&mut text);
    }
    Ok(text)
}

/// What came of looking at a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SignatureState {
    /// The descriptor is what was signed, and a trusted key signed it.
    Valid,
    /// It is not.
    Invalid,
    /// A kind of signature that is not verified here.
    NotChecked,
}

/// One signature, looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureCheck {
    /// The signature's name.
    pub name: String,
    /// Its algorithm, as written.
    pub algorithm: String,
    /// Its media type, as written.
    pub media_type: String,
    /// What it says was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<DigestSpec>,
    /// What came of it.
    pub state: SignatureState,
    /// Why it is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a valid state does not say.
    pub not_checked: Vec<String>,
}

/// The signatures to verify: those of the names in `wanted`, all without.
///
/// # Errors
/// [`ErrorKind::Mismatch`] when there is none, one of the names is missing or is there twice, or the descriptor can be read
/// in two ways.
pub fn select<'d>(
    descriptor: &'d ComponentDescriptor,
    wanted: &[String],
) -> Result<Vec<Signature<'d>>, Error> {
    let of = format!("{}:{}", descriptor.name(), descriptor.version());
    unambiguous::check(descriptor).map_err(|error| Error::mismatch(format!("{of}: {error}")))?;
    let all: Vec<Signature<'_>> = descriptor.signatures().collect();
    if all.is_empty() {
        return Err(Error::mismatch(format!("{of} has no signature")));
    }
    if all.len() > SIGNATURES_LIMIT {
        return Err(Error::limit(format!("{of} has {} signatures", all.len())));
    }
    for (index, one) in all.iter().enumerate() {
        if all[..index].iter().any(|other| other.name() == one.name()) {
            return Err(Error::mismatch(format!(
                "{of} has two signatures `{}`",
                one.name()
            )));
        }
    }
    if wanted.is_empty() {
        return Ok(all);
    }
    let mut selected = Vec::new();
    for name in wanted {
        let found = all.iter().find(|it| it.name() == name).copied();
        selected.push(found.ok_or_else(|| {
            let names: Vec<String> = all.iter().map(|it| format!("`{}`", it.name())).collect();
            Error::mismatch(format!("{of} has no signature `{name}`"))
                .with_hint(format!("it has {}", names.join(", ")))
        })?);
    }
    Ok(selected)
}

/// The algorithm that a key is needed for; `None` for signatures that are not verified here.
pub fn algorithm_of(signature: &Signature<'_>) -> Option<SignatureAlgorithm> {
    SignatureAlgorithm::parse(signature.field("algorithm").unwrap_or_default())
}

/// Looks at one signature of `descriptor`. `completed` is the descriptor with digests of references filled in, for
/// signatures over those. `material` is what is trusted for this signature, `now` decides on certificates.
pub fn check(
    descriptor: &ComponentDescriptor,
    completed: Option<&ComponentDescriptor>,
    signature: &Signature<'_>,
    material: Option<&PublicMaterial>,
    now: SystemTime,
) -> SignatureCheck {
    let mut result = SignatureCheck {
        name: signature.name().to_owned(),
        algorithm: signature.field("algorithm").unwrap_or_default().to_owned(),
        media_type: signature.field("mediaType").unwrap_or_default().to_owned(),
        digest: signature.digest(),
        state: SignatureState::Invalid,
        reason: None,
        not_checked: Vec::new(),
    };
    let Some(algorithm) = algorithm_of(signature) else {
        // The digest is something, but anybody can write one.
        let digest = check_digest(descriptor, completed, signature, &mut Vec::new());
        let kind = &result.algorithm;
        (result.state, result.reason) = match digest {
            Err(error) => (SignatureState::Invalid, Some(error.to_string())),
            Ok(_) if KEPT.contains(&kind.as_str()) => (
                SignatureState::NotChecked,
                Some(format!(
                    "signatures of the kind `{kind}` are not verified here"
                )),
            ),
            Ok(_) => (
                SignatureState::Invalid,
                Some(format!("the algorithm `{kind}` is unknown")),
            ),
        };
        return result;
    };
    let checked = check_digest(descriptor, completed, signature, &mut result.not_checked).and_then(
        |digest| {
            let notes = &mut result.not_checked;
            check_value(signature, algorithm, &digest, material, now, notes)
        },
    );
    match checked {
        Ok(()) => result.state = SignatureState::Valid,
        Err(error) => result.reason = Some(error.to_string()),
    }
    result.not_checked.extend(gaps(descriptor));
    let excluded = |it: &Element<'_>| it.digest().is_some_and(|digest| digest.is_excluded());
    let excluded = descriptor.resources().filter(excluded);
    result.not_checked.extend(
        excluded.map(|it| format!("resource `{}` is left out of signatures", it.identity())),
    );
    if signature.fields().contains_key("timestamp") {
        result.not_checked.push("the time stamp".to_owned());
    }
    result
}

/// The digest that was signed, if it is that of the descriptor.
fn check_digest(
    descriptor: &ComponentDescriptor,
    completed: Option<&ComponentDescriptor>,
    signature: &Signature<'_>,
    notes: &mut Vec<String>,
) -> Result<Digest, Error> {
    let stated = signature
        .digest()
        .ok_or_else(|| Error::mismatch("the signature does not say which digest was signed"))?;
    let normalisation = Normalisation::parse(&stated.normalisation_algorithm).ok_or_else(|| {
        Error::mismatch(format!(
            "normalisation `{}` is unknown",
            stated.normalisation_algorithm
        ))
    })?;
    let digest = stated.digest().ok_or_else(|| {
        Error::mismatch(format!(
            "`{}` is no digest by `{}`",
            stated.value, stated.hash_algorithm
        ))
    })?;
    let found = match normalisation.variant_of(descriptor, &digest) {
        Some(variant) => Some(variant),
        None => completed.and_then(|completed| {
            notes
                .push("digests of references are not in the descriptor, they were computed".into());
            normalisation.variant_of(completed, &digest)
        }),
    };
    let Some(variant) = found else {
        let own = normalisation.digest(descriptor, digest.algorithm());
        return Err(Error::mismatch(format!(
            "the descriptor was changed: its digest is {}, {} was signed",
            own.short(),
            digest.short()
        )));
    };
    let is_lossy = normalisation == Normalisation::V4Alpha1 && variant == Variant::Current;
    if is_lossy
        && normalisation.normalise_as(Variant::Lossless, descriptor)
            != normalisation.normalise(descriptor)
    {
        notes.push("versions of labels: jsonNormalisation/v4alpha1 leaves them out".to_owned());
    }
    Ok(digest)
}

fn check_value(
    signature: &Signature<'_>,
    algorithm: SignatureAlgorithm,
    digest: &Digest,
    material: Option<&PublicMaterial>,
    now: SystemTime,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let value = signature.field("value").unwrap_or_default();
    let media_type = signature.field("mediaType").unwrap_or_default();
    let material = material.ok_or_else(|| Error::mismatch("there is no key to verify it with"))?;
    let is_pem = media_type == PEM_MEDIA_TYPE;
    if !is_pem && media_type != algorithm.media_type() {
        return Err(Error::mismatch(format!(
            "media type `{media_type}` does not go with the algorithm {algorithm}"
        )));
    }
    let (key, bytes) = if is_pem {
        let (bytes, chain) = pem_parts(value, algorithm)?;
        (key_for_chain(&chain, material, now, notes)?, bytes)
    } else {
        let bytes = hex::decode(value)
            .map_err(|_| Error::mismatch("the signature's value is not written in hex"))?;
        (plain_key(material)?, bytes)
    };
    if !key.verifies(algorithm, digest, &bytes) {
        return Err(Error::mismatch(format!(
            "it was not made by this key with {algorithm}"
        )));
    }
    if signature.field("issuer").is_some_and(|it| !it.is_empty()) {
        notes.push("the issuer that it names".to_owned());
    }
    Ok(())
}

fn plain_key(material: &PublicMaterial) -> Result<PublicKey, Error> {
    match (&material.key, material.certificates.first()) {
        (Some(key), _) => Ok(key.clone()),
        (None, Some(certificate)) => certificate::key(certificate),
        (None, None) => Err(Error::mismatch("there is no key to verify it with")),
    }
}

/// A key that was given counts by itself; certificates count as [`certificate::verified_key`] says, and one that is the
/// signature's own counts as its key.
fn key_for_chain(
    chain: &[Vec<u8>],
    material: &PublicMaterial,
    now: SystemTime,
    notes: &mut Vec<String>,
) -> Result<PublicKey, Error> {
    let unchecked = "the certificates that it comes with: its key was given";
    if let Some(key) = &material.key {
        notes.push(unchecked.to_owned());
        return Ok(key.clone());
    }
    match (chain.first(), material.certificates.first()) {
        (Some(leaf), Some(given)) if leaf == given => {
            notes.push(unchecked.to_owned());
            certificate::key(leaf)
        }
        _ => certificate::verified_key(chain, &material.certificates, now),
    }
}

/// The bytes of a signature in PEM, and its certificates.
fn pem_parts(value: &str, algorithm: SignatureAlgorithm) -> Result<(Vec<u8>, Vec<Vec<u8>>), Error> {
    let bad = |why: &str| Error::mismatch(format!("the signature's PEM text {why}"));
    let blocks = pem::only_blocks(value).map_err(|error| Error::mismatch(error.to_string()))?;
    let mut blocks = blocks.into_iter();
    let first = blocks
        .next()
        .filter(|block| block.label == SIGNATURE_LABEL)
        .ok_or_else(|| bad("does not begin with a signature"))?;
    if first
        .headers
        .iter()
        .any(|(name, _)| name == ALGORITHM_HEADER)
        && first.header(ALGORITHM_HEADER) != Some(algorithm.as_str())
    {
        return Err(bad("names another algorithm than the signature"));
    }
    let mut chain = Vec::new();
    for block in blocks {
        if block.label != "CERTIFICATE" {
            return Err(bad("has more than a signature and certificates"));
        }
        chain.push(block.bytes);
    }
    if chain.len() > CHAIN_LIMIT {
        return Err(bad("has too many certificates"));
    }
    Ok((first.bytes, chain))
}

/// Sets the digest of the element at `index`.
pub(super) fn set_digest(
    descriptor: &mut ComponentDescriptor,
    kind: ElementKind,
    index: usize,
    digest: &DigestSpec,
) {
    let Some(mut new) = descriptor
        .elements(kind)
        .nth(index)
        .map(|it| it.value().clone())
    else {
        return;
    };
    if let Some(fields) = new.as_object_mut() {
        let key = ocm_specs::json::spelling(fields, "digest").to_owned();
        fields.insert(key, digest.to_value());
        descriptor.replace(kind, index, new);
    }
}
