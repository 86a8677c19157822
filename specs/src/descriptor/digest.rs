//! Digest triples of resources, references and signatures (formats.md 1.1, 6.2).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text;
use crate::digest::{Algorithm, Digest};

/// The normalisation of plain bytes.
pub const GENERIC_BLOB_DIGEST: &str = "genericBlobDigest/v1";
/// The normalisation of OCI artifacts: the digest of the root manifest.
pub const OCI_ARTIFACT_DIGEST: &str = "ociArtifactDigest/v1";
/// How it was spelled once.
const OCI_ARTEFACT_DIGEST: &str = "ociArtefactDigest/v1";
/// The normalisation that says that a resource is left out of signatures.
pub const EXCLUDED: &str = "EXCLUDE-FROM-SIGNATURE";

/// What was hashed, how, and the value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DigestSpec {
    /// The hash algorithm (`SHA-256`), as written.
    pub hash_algorithm: String,
    /// What was hashed (`genericBlobDigest/v1`), as written.
    pub normalisation_algorithm: String,
    /// The hash in hex.
    pub value: String,
}

impl DigestSpec {
    /// A new triple: `ociArtifactDigest/v1` for a root manifest, `genericBlobDigest/v1` for anything else.
    pub fn new(digest: &Digest, is_oci_root: bool) -> Self {
        let normalisation = if is_oci_root {
            OCI_ARTIFACT_DIGEST
        } else {
            GENERIC_BLOB_DIGEST
        };
        Self {
            hash_algorithm: digest.algorithm().ocm_name().to_owned(),
            normalisation_algorithm: normalisation.to_owned(),
            value: digest.hex().to_owned(),
        }
    }

    /// Reads a triple; `None` when the value is none.
    pub fn from_value(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let part = |name| text(object, name).map(str::to_owned);
        Some(Self {
            hash_algorithm: part("hashAlgorithm")?,
            normalisation_algorithm: part("normalisationAlgorithm")?,
            value: part("value")?,
        })
    }

    /// The triple as JSON.
    pub fn to_value(&self) -> Value {
        serde_json::json!({
            "hashAlgorithm": self.hash_algorithm,
            "normalisationAlgorithm": self.normalisation_algorithm,
            "value": self.value,
        })
    }

    /// The hash algorithm, when it is one that this program computes.
    pub fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::parse(&self.hash_algorithm)
    }

    /// Algorithm and value as an address; `None` for markers and unknown algorithms.
    pub fn digest(&self) -> Option<Digest> {
        Digest::new(self.algorithm()?, &self.value).ok()
    }

    /// Is it the digest of an artifact's root manifest? Under either spelling.
    pub fn is_of_artifact(&self) -> bool {
        [OCI_ARTIFACT_DIGEST, OCI_ARTEFACT_DIGEST].contains(&self.normalisation_algorithm.as_str())
    }

    /// Is it the digest of bytes?
    pub fn is_of_blob(&self) -> bool {
        self.normalisation_algorithm == GENERIC_BLOB_DIGEST
    }

    /// Does it say that the resource is left out of signatures?
    pub fn is_excluded(&self) -> bool {
        self.normalisation_algorithm == EXCLUDED
    }

    /// Are all parts empty? The library v2 writes that for references without digest.
    pub fn is_empty(&self) -> bool {
        self.hash_algorithm.is_empty()
            && self.normalisation_algorithm.is_empty()
            && self.value.is_empty()
    }
}

/// The triple for content that now has `value`. An existing triple stays as it is, label included, while its value holds;
/// the mark of exclusion stays always. Compute `value` by the algorithm of `old` where it has one: digests by different
/// algorithms cannot be compared and count as different.
pub fn updated_digest(old: Option<&DigestSpec>, value: &Digest, is_oci_root: bool) -> DigestSpec {
    match old {
        Some(old) if old.is_excluded() || old.digest().as_ref() == Some(value) => old.clone(),
        _ => DigestSpec::new(value, is_oci_root),
    }
}
