//! Step types that hash, sign and verify component descriptors.
//!
//! *Invariant*: private keys stay in files: no value of a run, and so no plan, report or log, ever has one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use ocm_content::Error;
use ocm_engine::{Effect, Outcome, StepContext, StepError, Transformer};
use ocm_repository::Session;
use ocm_specs::Algorithm;
use ocm_specs::descriptor::{ComponentDescriptor, DigestSpec, ElementKind};
use ocm_specs::normalisation::Normalisation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rsa::{PrivateKey, PublicMaterial, SignatureAlgorithm};
use super::signature::{
    DEFAULT_SIGNATURE, SignOptions, SignatureCheck, SignatureState, algorithm_of, check, digest_of,
    select, set_digest, sign,
};
use crate::fields::DescriptorField;

/// Largest key file that is read, in bytes.
const KEY_LIMIT: u64 = 1 << 20;

/// `hash.component`: the digest of a component descriptor, digests of its references included.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashComponent;

/// Inputs of [`HashComponent`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashSpec {
    /// The component descriptor.
    descriptor: DescriptorField,
    /// Descriptors of referenced component versions: their references get the digests that these have now.
    #[serde(default)]
    references: Vec<DescriptorField>,
    /// What is hashed (default jsonNormalisation/v4alpha1).
    #[serde(default)]
    normalisation: Option<String>,
    /// How it is hashed (default SHA-256).
    #[serde(default)]
    hash: Option<String>,
}

/// Outputs of [`HashComponent`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct HashOutput {
    /// The digest.
    digest: DigestSpec,
    /// The component descriptor with the digests of `references`.
    descriptor: DescriptorField,
}

impl Transformer for HashComponent {
    const TYPE: &'static str = "hash.component/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Computes the digest of a component descriptor, and puts digests of others into its references.";
    const EXAMPLE: &'static str = "\
- id: hash1
  type: hash.component/v1alpha1
  spec:
    descriptor: ${download1.output.descriptor}
    references:
      - ${merge1.output.descriptor}
";
    type Spec = HashSpec;
    type Output = HashOutput;

    async fn run(&self, cx: StepContext, spec: HashSpec) -> Result<Outcome<HashOutput>, StepError> {
        let session = cx.session::<Session>()?;
        let mut descriptor = spec.descriptor.descriptor(&session, "descriptor")?;
        let normalisation = normalisation(spec.normalisation.as_deref())?;
        let hash = hash(spec.hash.as_deref())?;
        for (index, child) in spec.references.iter().enumerate() {
            let field = format!("references[{index}]");
            let child = child.descriptor(&session, &field)?;
            refer(&mut descriptor, &child, normalisation, hash)
                .map_err(|error| StepError::at(field, error))?;
        }
        let digest = digest_of(&descriptor, normalisation, hash);
        let descriptor = DescriptorField(descriptor.into_document());
        Ok(Outcome::new(HashOutput { digest, descriptor }))
    }
}

/// Gives the references to `child` its digest. One that holds stays as it is, by whatever algorithm it is.
fn refer(
    descriptor: &mut ComponentDescriptor,
    child: &ComponentDescriptor,
    normalisation: Normalisation,
    hash: Algorithm,
) -> Result<(), Error> {
    let mut places = Vec::new();
    let mut is_referenced = false;
    for (index, reference) in descriptor.references().enumerate() {
        if reference.component_name() != Some(child.name())
            || reference.version() != child.version()
        {
            continue;
        }
        is_referenced = true;
        let stated = reference.digest().and_then(|stated| {
            let by = Normalisation::parse(&stated.normalisation_algorithm)?;
            by.variant_of(child, &stated.digest()?)
        });
        if stated.is_none() {
            places.push(index);
        }
    }
    if !is_referenced {
        return Err(Error::not_found(format!(
            "{}:{} has no reference to {}:{}",
            descriptor.name(),
            descriptor.version(),
            child.name(),
            child.version()
        )));
    }
    let digest = digest_of(child, normalisation, hash);
    for index in places {
        set_digest(descriptor, ElementKind::Reference, index, &digest);
    }
    Ok(())
}

/// `sign.component`: adds a signature to a component descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignComponent;

/// Inputs of [`SignComponent`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignSpec {
    /// The component descriptor.
    descriptor: DescriptorField,
    /// PEM file with the private key.
    private_key_file: String,
    /// Name of the signature (default `default`).
    #[serde(default)]
    signature: Option<String>,
    /// RSASSA-PSS (default) or RSASSA-PKCS1-V1_5.
    #[serde(default)]
    algorithm: Option<String>,
    /// What is hashed (default jsonNormalisation/v4alpha1).
    #[serde(default)]
    normalisation: Option<String>,
    /// How it is hashed (default SHA-256).
    #[serde(default)]
    hash: Option<String>,
    /// Replace a signature of the same name?
    #[serde(default)]
    force: bool,
}

/// Outputs of [`SignComponent`].
#[derive(Debug, Serialize, JsonSchema)]
pub struct SignOutput {
    /// The component descriptor with the signature.
    descriptor: DescriptorField,
    /// What was signed.
    digest: DigestSpec,
}

impl Transformer for SignComponent {
    const TYPE: &'static str = "sign.component/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str = "Adds a signature to a component descriptor.";
    const EXAMPLE: &'static str = "\
- id: sign1
  type: sign.component/v1alpha1
  spec:
    descriptor: ${hash1.output.descriptor}
    privateKeyFile: ./acme.pem
    signature: acme
    force: true
";
    type Spec = SignSpec;
    type Output = SignOutput;

    async fn run(&self, cx: StepContext, spec: SignSpec) -> Result<Outcome<SignOutput>, StepError> {
        let session = cx.session::<Session>()?;
        let mut descriptor = spec.descriptor.descriptor(&session, "descriptor")?;
        let algorithm = match spec.algorithm.as_deref() {
            None => SignatureAlgorithm::Pss,
            Some(name) => {
                SignatureAlgorithm::parse(name).ok_or_else(|| unknown("algorithm", name))?
            }
        };
        let options = SignOptions {
            name: spec
                .signature
                .unwrap_or_else(|| DEFAULT_SIGNATURE.to_owned()),
            algorithm,
            normalisation: normalisation(spec.normalisation.as_deref())?,
            hash: hash(spec.hash.as_deref())?,
            force: spec.force,
            ..SignOptions::default()
        };
        let text = key_text(&session, "privateKeyFile", &spec.private_key_file).await?;
        let key =
            PrivateKey::from_pem(&text).map_err(|error| StepError::at("privateKeyFile", error))?;
        sign(&mut descriptor, &key, &options)
            .map_err(|error| StepError::at("descriptor", error))?;
        let digest = digest_of(&descriptor, options.normalisation, options.hash);
        let descriptor = DescriptorField(descriptor.into_document());
        Ok(Outcome::new(SignOutput { descriptor, digest }))
    }
}

/// `verify.component`: passes a component descriptor on when its signatures hold, and fails otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyComponent;

/// Inputs of [`VerifyComponent`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifySpec {
    /// The component descriptor.
    descriptor: DescriptorField,
    /// PEM files with what is trusted, by the names of the signatures to verify: keys or root certificates.
    trust: BTreeMap<String, String>,
}

/// Outputs of [`VerifyComponent`].
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyOutput {
    /// The component descriptor as it came in.
    descriptor: DescriptorField,
    /// What the signatures do not say, each with the signature's name in front.
    not_checked: Vec<String>,
}

impl Transformer for VerifyComponent {
    const TYPE: &'static str = "verify.component/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const SUMMARY: &'static str =
        "Passes a component descriptor on when the named signatures hold, and fails otherwise.";
    const EXAMPLE: &'static str = "\
- id: verify1
  type: verify.component/v1alpha1
  spec:
    descriptor: ${download1.output.descriptor}
    trust:
      acme: ./acme.pub
";
    type Spec = VerifySpec;
    type Output = VerifyOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: VerifySpec,
    ) -> Result<Outcome<VerifyOutput>, StepError> {
        let session = cx.session::<Session>()?;
        let descriptor = spec.descriptor.descriptor(&session, "descriptor")?;
        if spec.trust.is_empty() {
            return Err(StepError::at(
                "trust",
                Error::invalid("names no signature, so nothing would be verified"),
            ));
        }
        let names: Vec<String> = spec.trust.keys().cloned().collect();
        let at = |error: Error| StepError::at("descriptor", error);
        let mut not_checked = Vec::new();
        for signature in select(&descriptor, &names).map_err(at)? {
            let field = format!("trust.{}", signature.name());
            let material = match (algorithm_of(&signature), spec.trust.get(signature.name())) {
                (Some(_), Some(file)) => {
                    let text = key_text(&session, &field, file).await?;
                    let parsed = PublicMaterial::from_pem(&text);
                    Some(parsed.map_err(|error| StepError::at(field, error))?)
                }
                _ => None,
            };
            let found = check(
                &descriptor,
                None,
                &signature,
                material.as_ref(),
                SystemTime::now(),
            );
            let name = found.name.clone();
            let notes = hold(found).map_err(at)?;
            not_checked.extend(notes.into_iter().map(|note| format!("{name}: {note}")));
        }
        let descriptor = spec.descriptor;
        Ok(Outcome::new(VerifyOutput {
            descriptor,
            not_checked,
        }))
    }
}

/// What a signature that holds does not say.
fn hold(found: SignatureCheck) -> Result<Vec<String>, Error> {
    if found.state == SignatureState::Valid {
        return Ok(found.not_checked);
    }
    let reason = found.reason.unwrap_or_default();
    Err(Error::mismatch(format!(
        "signature `{}`: {reason}",
        found.name
    )))
}

async fn key_text(session: &Session, field: &str, path: &str) -> Result<String, StepError> {
    let read = async {
        let bytes = session.file(path, None).await?.read(KEY_LIMIT).await?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Error::invalid(format!("{path} is no text")))
    };
    read.await.map_err(|error| StepError::at(field, error))
}

fn normalisation(name: Option<&str>) -> Result<Normalisation, StepError> {
    name.map_or(Ok(Normalisation::V4Alpha1), |name| {
        Normalisation::parse(name).ok_or_else(|| unknown("normalisation", name))
    })
}

fn hash(name: Option<&str>) -> Result<Algorithm, StepError> {
    name.map_or(Ok(Algorithm::Sha256), |name| {
        Algorithm::parse(name).ok_or_else(|| unknown("hash", name))
    })
}

fn unknown(field: &str, name: &str) -> StepError {
    StepError::at(field, Error::invalid(format!("`{name}` is unknown")))
}
