//! Digests of component versions, and signatures over them (formats.md 6 and 7).
//!
//! *Invariant*: what is signed is a digest of the descriptor as it is stored; nothing in it is changed but what signing
//! adds, and what could not be checked is said.

pub(crate) mod broken;
mod certificate;
mod closure;
mod content;
mod pem;
mod rsa;
mod signature;
pub mod steps;
mod unambiguous;

pub use broken::{BrokenSignatures, OnBrokenSignature, SigningKeys};
pub use closure::{Closure, DigestOptions, Member};
pub use content::{ContentCheck, ContentState, check_content};
pub use rsa::{PrivateKey, PublicKey, PublicMaterial, SignatureAlgorithm};
pub use signature::{
    DEFAULT_SIGNATURE, PEM_MEDIA_TYPE, SignOptions, SignatureCheck, SignatureEncoding,
    SignatureState, algorithm_of, check, check_free, digest_of, gaps, select, sign,
};
