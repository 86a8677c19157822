//! RSA over digests that exist already: RSASSA-PSS and RSASSA-PKCS1-v1_5 (RFC 8017), keys from PEM.
//!
//! *Invariant*: private keys never leave this module, and what is done with them takes constant time (`aws-lc-rs`).

use std::fmt;

use aws_lc_rs::digest as hash;
use aws_lc_rs::rsa::{KeyPair, PublicKey as RsaPublicKey};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA512, RsaEncoding, RsaParameters, RsaPssSaltLength, RsaSignatureEncoding,
    UnparsedPublicKey,
};
use ocm_content::Error;
use ocm_specs::{Algorithm, Digest};

use super::certificate;
use super::pem::{self, Block};

/// Key lengths in bits that are taken.
const BITS: std::ops::RangeInclusive<u32> = 2048..=8192;
/// Salts that are tried one by one, in bytes: all that an 8192-bit key has room for.
const SALTS: usize = 1024;

/// How a digest is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// RSASSA-PSS with MGF1 by the digest's own algorithm: the default of the CLI v2.
    Pss,
    /// RSASSA-PKCS1-v1_5: the default of the CLI v1.
    Pkcs1V15,
}

impl SignatureAlgorithm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Pss, Self::Pkcs1V15];

    /// The name in signatures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pss => "RSASSA-PSS",
            Self::Pkcs1V15 => "RSASSA-PKCS1-V1_5",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }

    /// The media type of a signature in plain hex.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Pss => "application/vnd.ocm.signature.rsa.pss",
            Self::Pkcs1V15 => "application/vnd.ocm.signature.rsa",
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that signs.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// The first private key in a PEM text, PKCS#1 or PKCS#8.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when there is none that can be used.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        for block in pem::blocks(text)? {
            if let Some(key) = Self::from_block(&block)? {
                return Ok(key);
            }
        }
        Err(Error::invalid("there is no private key in the PEM text")
            .with_hint("expected a block `RSA PRIVATE KEY` or `PRIVATE KEY`"))
    }

    /// `None` for blocks that are something else.
    fn from_block(block: &Block) -> Result<Option<Self>, Error> {
        let is_encrypted = block.label == "ENCRYPTED PRIVATE KEY"
            || block
                .header("Proc-Type")
                .is_some_and(|it| it.contains("ENCRYPTED"));
        if is_encrypted {
            return Err(Error::unsupported("the private key is encrypted")
                .with_hint("decrypt it first, as with `openssl pkey -in KEY -out PLAIN`"));
        }
        let pair = match block.label.as_str() {
            "RSA PRIVATE KEY" => KeyPair::from_der(&block.bytes),
            "PRIVATE KEY" => KeyPair::from_pkcs8(&block.bytes),
            _ => return Ok(None),
        };
        let pair = pair.map_err(|why| {
            Error::invalid(format!(
                "the private key is no RSA key of 2048 to 8192 bits: {why}"
            ))
        })?;
        Ok(Some(Self(pair)))
    }

    /// The key that verifies what this one signs.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }

    /// Signs a digest. PSS gets the longest salt that there is room for, as from Go.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Internal`] when the key can't, which none that was read does.
    pub fn sign(&self, algorithm: SignatureAlgorithm, digest: &Digest) -> Result<Vec<u8>, Error> {
        static PSS_SHA256: RsaSignatureEncoding =
            RSA_PSS_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
        static PSS_SHA512: RsaSignatureEncoding =
            RSA_PSS_SHA512.with_pss_salt_length(RsaPssSaltLength::Max);
        let encoding: &'static dyn RsaEncoding = match (algorithm, digest.algorithm()) {
            (SignatureAlgorithm::Pss, Algorithm::Sha256) => &PSS_SHA256,
            (SignatureAlgorithm::Pss, Algorithm::Sha512) => &PSS_SHA512,
            (SignatureAlgorithm::Pkcs1V15, Algorithm::Sha256) => &RSA_PKCS1_SHA256,
            (SignatureAlgorithm::Pkcs1V15, Algorithm::Sha512) => &RSA_PKCS1_SHA512,
        };
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign_digest(encoding, &prehashed(digest)?, &mut signature)
            .map_err(|_| Error::internal("the private key does not sign"))?;
        Ok(signature)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(***)")
    }
}

/// A key that verifies. Equal keys compare equal, whatever they were read from.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// A key in PKCS#1 or PKIX form.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when it is no RSA key of 2048 to 8192 bits.
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        let bad = |why: String| {
            Error::invalid(format!(
                "the public key is no RSA key of 2048 to 8192 bits: {why}"
            ))
        };
        let key = RsaPublicKey::from_der(bytes).map_err(|why| bad(why.to_string()))?;
        let bits =
            RsaParameters::public_modulus_len(key.as_ref()).map_err(|why| bad(why.to_string()))?;
        if !BITS.contains(&bits) {
            return Err(bad(format!("it has {bits} bits")));
        }
        Ok(Self(key.as_ref().to_vec()))
    }

    /// Is `signature` one of `digest` by this key? PSS salts of any length are taken, the usual ones first.
    pub fn verifies(
        &self,
        algorithm: SignatureAlgorithm,
        digest: &Digest,
        signature: &[u8],
    ) -> bool {
        let bits = RsaParameters::public_modulus_len(&self.0).unwrap_or_default() as usize;
        let Ok(prehashed) = prehashed(digest) else {
            return false;
        };
        if signature.len() != bits.div_ceil(8) {
            return false;
        }
        let is_good = |parameters: &'static RsaParameters| {
            UnparsedPublicKey::new(parameters, &self.0)
                .verify_digest(&prehashed, signature)
                .is_ok()
        };
        match (algorithm, digest.algorithm()) {
            (SignatureAlgorithm::Pkcs1V15, Algorithm::Sha256) => {
                is_good(&RSA_PKCS1_2048_8192_SHA256)
            }
            (SignatureAlgorithm::Pkcs1V15, Algorithm::Sha512) => {
                is_good(&RSA_PKCS1_2048_8192_SHA512)
            }
            (SignatureAlgorithm::Pss, Algorithm::Sha256) => {
                salts(&PSS_SHA256, bits, 32).any(is_good)
            }
            (SignatureAlgorithm::Pss, Algorithm::Sha512) => {
                salts(&PSS_SHA512, bits, 64).any(is_good)
            }
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", Digest::sha256(&self.0).short())
    }
}

/// Parameters by salt length.
static PSS_SHA256: [RsaParameters; SALTS] = {
    let mut table = [const { RSA_PSS_2048_8192_SHA256 }; SALTS];
    let mut salt = 0;
    while salt < SALTS {
        let length = RsaPssSaltLength::Custom(salt as u16);
        table[salt] = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(length);
        salt += 1;
    }
    table
};
/// Parameters by salt length.
static PSS_SHA512: [RsaParameters; SALTS] = {
    let mut table = [const { RSA_PSS_2048_8192_SHA512 }; SALTS];
    let mut salt = 0;
    while salt < SALTS {
        let length = RsaPssSaltLength::Custom(salt as u16);
        table[salt] = RSA_PSS_2048_8192_SHA512.with_pss_salt_length(length);
        salt += 1;
    }
    table
};

/// The parameters for all salts that fit: the longest (Go's), that of the digest's length, then the others.
fn salts(
    table: &'static [RsaParameters; SALTS],
    bits: usize,
    digest: usize,
) -> impl Iterator<Item = &'static RsaParameters> {
    // emLen - hLen - 2, where emLen = ceil((bits - 1) / 8).
    let longest = ((bits + 6) / 8).saturating_sub(digest + 2).min(SALTS - 1);
    let others = (0..longest).rev().filter(move |salt| *salt != digest);
    [longest, digest]
        .into_iter()
        .chain(others)
        .map(|salt| &table[salt])
}

fn prehashed(digest: &Digest) -> Result<hash::Digest, Error> {
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => &hash::SHA256,
        Algorithm::Sha512 => &hash::SHA512,
    };
    let bytes = hex::decode(digest.hex()).unwrap_or_default();
    hash::Digest::import_less_safe(&bytes, algorithm)
        .map_err(|_| Error::internal("a digest is not as long as its algorithm says"))
}

/// What a verifier is given to trust: a key, or certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicMaterial {
    /// The key itself, where it is given: the first one.
    pub key: Option<PublicKey>,
    /// Certificates in DER, in their order.
    pub certificates: Vec<Vec<u8>>,
}

impl PublicMaterial {
    /// Everything usable in a PEM text: `RSA PUBLIC KEY`, `PUBLIC KEY`, `CERTIFICATE`; of a private key its public half.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] when there is nothing usable, or something malformed.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let mut found = Self::default();
        for block in pem::blocks(text)? {
            match block.label.as_str() {
                "RSA PUBLIC KEY" | "PUBLIC KEY" if found.key.is_none() => {
                    found.key = Some(PublicKey::from_der(&block.bytes)?);
                }
                "CERTIFICATE" => {
                    certificate::key(&block.bytes)?;
                    found.certificates.push(block.bytes);
                }
                _ if found.key.is_none() => {
                    found.key = PrivateKey::from_block(&block)?.map(|key| key.public_key());
                }
                _ => {}
            }
        }
        if found == Self::default() {
            return Err(Error::invalid("there is no public key in the PEM text")
                .with_hint("expected a block `PUBLIC KEY`, `RSA PUBLIC KEY` or `CERTIFICATE`"));
        }
        Ok(found)
    }
}
