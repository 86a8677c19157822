//! The traps of formats.md 10 that lie in signatures, each in a test named after it.

use std::time::SystemTime;

use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::{Algorithm, Digest};
use ocm_transformers::signing::{
    PublicMaterial, SignOptions, SignatureAlgorithm, SignatureState, check, select,
};
use serde_json::json;

use crate::forgeries::{KEYS, key, own, signed};

#[test]
fn t08_the_salt_of_a_signature_has_any_length() {
    let Some(folder) = crate::signing::vectors() else {
        return;
    };
    let text = |name: &str| {
        std::fs::read_to_string(folder.join(name)).expect("the vectors have this file")
    };
    let public = PublicMaterial::from_pem(&text("compat-rsa/rsa.pub")).expect("a key");
    let public = public.key.expect("a key");
    let hex_of = |name: &str| text(&format!("plain-hex/{name}")).trim().to_owned();
    let digest = Digest::new(Algorithm::Sha256, &hex_of("digest.hex")).expect("a digest");
    let pss = SignatureAlgorithm::Pss;
    for name in ["rsassa-pss.salt222.hex", "rsassa-pss.salt32.hex"] {
        let bytes = hex::decode(hex_of(name)).expect("hex");
        assert!(public.verifies(pss, &digest, &bytes), "{name}");
        assert!(
            !public.verifies(pss, &Digest::sha256(b"other"), &bytes),
            "{name}"
        );
    }
    // Ours has the salt that everybody reads.
    let ours = key().sign(pss, &digest).expect("a signature");
    assert!(key().public_key().verifies(pss, &digest, &ours));
}

/// The libraries disagree about whether it is the subject or the issuer of the certificate: nothing is concluded from it.
#[test]
fn t23_the_issuer_that_a_signature_names_is_told_and_not_believed() {
    let mut document = signed(&SignOptions::default()).into_document();
    own(&mut document)["signature"]["issuer"] = json!("CN=acme");
    let descriptor = ComponentDescriptor::from_value(document).expect("a descriptor");
    let trusted = PublicMaterial::from_pem(&KEYS[0]).expect("a key");
    let selected = select(&descriptor, &["default".to_owned()]).expect("a signature");
    let found = check(
        &descriptor,
        None,
        &selected[0],
        Some(&trusted),
        SystemTime::now(),
    );
    assert_eq!(found.state, SignatureState::Valid, "{found:?}");
    assert!(
        found.not_checked.iter().any(|it| it.contains("issuer")),
        "{found:?}"
    );
}
