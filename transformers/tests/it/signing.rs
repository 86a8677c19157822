//! Signatures: those that hold, and every way to forge one that we know of.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::rsa::KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocm_content::ErrorKind;
use ocm_engine::Status;
use ocm_repository::{Existing, Resolver};
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::{Algorithm, Digest, RepositorySpec};
use ocm_transformers::signing::{
    Closure, DigestOptions, Member, PrivateKey, PublicMaterial, SignOptions, SignatureAlgorithm,
    SignatureCheck, SignatureState, check, digest_of, gaps, select, sign,
};
use serde_json::{Value, json};

use crate::forgeries::{FORGERIES, KEYS, document, key, own, pem, set_pem, signed};
use crate::support;
use SignatureAlgorithm::{Pkcs1V15, Pss};

/// The folder of the vectors; `None`, with the reason printed, when it is absent and may be.
pub(crate) fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("OCM_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    if root.is_dir() {
        return Some(root.join("signatures"));
    }
    let required = std::env::var_os("OCM_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "no vectors at {}", root.display());
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    {
        eprintln!("skipped: no vectors at {}", root.display());
    }
    None
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the vectors have this file")
}

fn trusted() -> PublicMaterial {
    PublicMaterial::from_pem(&KEYS[0]).expect("its public half")
}

/// What `ocm verify` finds of the signature `default`.
fn verified(
    descriptor: &ComponentDescriptor,
    trusted: &PublicMaterial,
) -> Result<SignatureCheck, String> {
    let selected = select(descriptor, &["default".to_owned()]).map_err(|error| {
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        error.to_string()
    })?;
    let found = check(
        descriptor,
        None,
        &selected[0],
        Some(trusted),
        SystemTime::now(),
    );
    match found.state {
        SignatureState::Valid => Ok(found),
        SignatureState::Invalid => Err(found.reason.expect("a reason")),
        _ => Err(found.reason.expect("a reason")),
    }
}

#[test]
fn what_is_signed_holds_and_nothing_else_changes() {
    for algorithm in SignatureAlgorithm::ALL {
        for normalisation in Normalisation::ALL {
            for hash in [Algorithm::Sha256, Algorithm::Sha512] {
                let options = SignOptions {
                    algorithm,
                    normalisation,
                    hash,
                    ..SignOptions::default()
                };
                let descriptor = signed(&options);
                verified(&descriptor, &trusted()).expect("it holds");
                let mut left = descriptor.into_document();
                let list = left["signatures"].as_array_mut().expect("a list");
                let made = list.pop().expect("the new one");
                assert_eq!(
                    made["digest"]["normalisationAlgorithm"],
                    normalisation.as_str()
                );
                assert_eq!(made["digest"]["hashAlgorithm"], hash.ocm_name());
                assert_eq!(left, document());
            }
        }
    }
}

#[test]
fn a_name_is_used_once_unless_forced() {
    let mut descriptor = signed(&SignOptions::default());
    let again = sign(&mut descriptor, &key(), &SignOptions::default());
    assert_eq!(again.expect_err("a second one").kind(), ErrorKind::Conflict);
    let force = SignOptions {
        force: true,
        algorithm: Pkcs1V15,
        ..SignOptions::default()
    };
    sign(&mut descriptor, &key(), &force).expect("a signature");
    assert_eq!(descriptor.signatures().count(), 2);
    verified(&descriptor, &trusted()).expect("it holds");
}

#[test]
fn gaps_are_not_signed() {
    for (pointer, gap) in [
        (
            "/component/resources/0/digest",
            "resource `name=tool,version=1.0.0`",
        ),
        (
            "/component/componentReferences/0/digest",
            "reference `name=dep,version=0.1.0`",
        ),
    ] {
        for value in [
            json!(null),
            json!({"hashAlgorithm": "", "normalisationAlgorithm": "", "value": ""}),
        ] {
            let mut document = document();
            *document.pointer_mut(pointer).expect("a digest") = value;
            let mut descriptor = ComponentDescriptor::from_value(document).expect("a descriptor");
            assert_eq!(gaps(&descriptor), [format!("{gap} has no digest")]);
            let error = sign(&mut descriptor, &key(), &SignOptions::default()).expect_err(gap);
            assert!(error.to_string().contains(gap), "{error}");
        }
    }
    let mut excluded = document();
    excluded["component"]["resources"][0]["digest"] = json!({"hashAlgorithm": "NO-DIGEST",
        "normalisationAlgorithm": "EXCLUDE-FROM-SIGNATURE", "value": "NO-DIGEST"});
    let mut descriptor = ComponentDescriptor::from_value(excluded).expect("a descriptor");
    sign(&mut descriptor, &key(), &SignOptions::default()).expect("a signature");
    let found = verified(&descriptor, &trusted()).expect("it holds");
    assert!(
        found.not_checked.iter().any(|it| it.contains("left out")),
        "{found:?}"
    );
}

/// Go's maximal salt, the salt of the digest's length, and the other algorithm (trap T8).
#[test]
fn signatures_of_other_programs() {
    let Some(folder) = vectors() else { return };
    let private = PrivateKey::from_pem(&text(&folder.join("compat-rsa/rsa.priv"))).expect("a key");
    let public =
        PublicMaterial::from_pem(&text(&folder.join("compat-rsa/rsa.pub"))).expect("a key");
    let public_key = public.key.clone().expect("a key");
    assert_eq!(private.public_key(), public_key);
    let hex_of = |name: &str| text(&folder.join("plain-hex").join(name)).trim().to_owned();
    let digest = Digest::new(Algorithm::Sha256, &hex_of("digest.hex")).expect("a digest");
    for (name, own, other) in [
        ("rsassa-pkcs1-v1_5.hex", Pkcs1V15, Pss),
        ("rsassa-pss.salt222.hex", Pss, Pkcs1V15),
        ("rsassa-pss.salt32.hex", Pss, Pkcs1V15),
    ] {
        let bytes = hex::decode(hex_of(name)).expect("hex");
        assert!(public_key.verifies(own, &digest, &bytes), "{name}");
        assert!(!public_key.verifies(other, &digest, &bytes), "{name}");
    }
    let again = private.sign(Pkcs1V15, &digest).expect("a signature");
    assert_eq!(hex::encode(again), hex_of("rsassa-pkcs1-v1_5.hex"));

    // Old but valid: `sha256` as a name, no nulls for extra identities.
    let file = folder.join("compat-rsa/component-archive/component-descriptor.yaml");
    let old = ComponentDescriptor::decode(DESCRIPTOR_YAML, std::fs::read(file).expect("a file"));
    let old = old.expect("a descriptor");
    let selected = select(&old, &[]).expect("a signature");
    let found = check(&old, None, &selected[0], Some(&public), SystemTime::now());
    assert_eq!(found.state, SignatureState::Valid, "{found:?}");
}

/// Sigstore's signatures stay as they are; their digests are compared, and nothing is claimed of the rest.
#[test]
fn signatures_that_are_data_here() {
    let Some(folder) = vectors() else { return };
    let file = folder.join("sigstore-v1/component-descriptor-signed.yaml");
    let descriptor =
        ComponentDescriptor::decode(DESCRIPTOR_YAML, std::fs::read(file).expect("a file"));
    let mut descriptor = descriptor.expect("a descriptor");
    let states = |descriptor: &ComponentDescriptor| -> Vec<SignatureState> {
        let selected = select(descriptor, &[]).expect("signatures");
        let of = |it| check(descriptor, None, it, None, SystemTime::now()).state;
        selected.iter().map(of).collect()
    };
    let before = descriptor.document()["signatures"].clone();
    assert!(
        states(&descriptor)
            .iter()
            .all(|it| *it == SignatureState::NotChecked)
    );
    sign(&mut descriptor, &key(), &SignOptions::default()).expect("a signature");
    let after = descriptor.document()["signatures"]
        .as_array()
        .expect("a list")
        .clone();
    assert_eq!(Value::from(after[..after.len() - 1].to_vec()), before);
    let changed = descriptor.edit(|it| it["component"]["version"] = json!("1.0.1"));
    changed.expect("a descriptor");
    assert!(
        states(&descriptor)
            .iter()
            .all(|it| *it == SignatureState::Invalid)
    );
}

#[test]
fn no_forgery_passes() {
    let v3 = SignOptions {
        normalisation: Normalisation::V3,
        ..SignOptions::default()
    };
    let original = signed(&v3).into_document();
    for (name, forge, expected) in FORGERIES {
        let mut forged = original.clone();
        forge(&mut forged);
        assert_ne!(forged, original, "{name} changes nothing");
        let descriptor = ComponentDescriptor::from_value(forged).expect(name);
        match verified(&descriptor, &trusted()) {
            Ok(found) => panic!("{name}: passed {found:?}"),
            Err(reason) => assert!(reason.contains(expected), "{name}: {reason}"),
        }
    }
}

/// What transport may change, and other spellings of the same.
#[test]
fn what_is_not_signed_may_change() {
    let v3 = SignOptions {
        normalisation: Normalisation::V3,
        ..SignOptions::default()
    };
    let original = signed(&v3).into_document();
    let changes: [fn(&mut Value); 8] = [
        |it| {
            it["component"]["resources"][0]["access"] =
                json!({"type": "ociArtifact", "imageReference": "r.io/x:1"})
        },
        |it| {
            it["component"]["repositoryContexts"] =
                json!([{"type": "OCIRegistry", "baseUrl": "r.io"}])
        },
        |it| it["component"]["labels"][1]["value"] = json!("y"),
        |it| it["component"]["sources"] = json!(null),
        |it| it["signatures"][0]["name"] = json!("renamed"),
        |it| it["component"]["resources"][0]["labels"] = json!([{"name": "l", "value": 1}]),
        |it| it["component"]["labels"][0]["signing"] = json!("true"),
        |it| {
            let text = own(it)["signature"]["value"]
                .as_str()
                .unwrap()
                .to_uppercase();
            own(it)["signature"]["value"] = text.into();
        },
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = original.clone();
        change(&mut changed);
        assert_ne!(changed, original, "{index}");
        let descriptor = ComponentDescriptor::from_value(changed).expect("a descriptor");
        if index == 6 {
            // The text counts as the flag, and is hashed as the text that it is.
            verified(&descriptor, &trusted()).expect_err("other bytes");
        } else {
            verified(&descriptor, &trusted()).unwrap_or_else(|why| panic!("{index}: {why}"));
        }
    }
    let mut pem_form = original;
    set_pem(&mut pem_form, "", "Signature Algorithm: RSASSA-PSS\n\n", "");
    let descriptor = ComponentDescriptor::from_value(pem_form).expect("a descriptor");
    verified(&descriptor, &trusted()).expect("PEM holds, too");
}

/// Keys that JSON has twice: the last one counts for most readers, not for all.
#[test]
fn doubled_keys_in_the_stored_bytes() {
    let original = signed(&SignOptions::default());
    let bytes = original.encode(ocm_specs::descriptor::Encoding::Json).bytes;
    let stored = String::from_utf8(bytes.to_vec()).expect("text");
    for (from, to) in [
        (
            r#""name":"acme.org/app""#,
            r#""name":"acme.org/evil","name":"acme.org/app""#,
        ),
        (r#""a":1"#, r#""a":2,"a":1"#),
        (r#""component":"#, r#""component":{},"component":"#),
    ] {
        let doubled = stored.replacen(from, to, 1);
        assert_ne!(doubled, stored);
        let descriptor = ComponentDescriptor::decode(DESCRIPTOR_JSON, doubled.into_bytes());
        let descriptor = descriptor.expect("the last one counts");
        assert_eq!(descriptor, original);
        let reason = verified(&descriptor, &trusted()).expect_err(from);
        assert!(reason.contains("there twice"), "{reason}");
    }
}

/// With the exponent 3, a padding that is not checked to its end has a cube root (Bleichenbacher's forgery).
#[test]
fn cube_roots_are_no_signatures() {
    let digest = Digest::sha256(b"anything");
    // DigestInfo of SHA-256 (RFC 8017, 9.2, note 1).
    let info = hex::decode("3031300d060960864801650304020105000420").expect("hex");
    let mut wanted = vec![0x00, 0x01];
    wanted.extend([0xff; 8]);
    wanted.push(0x00);
    wanted.extend(info);
    wanted.extend(hex::decode(digest.hex()).expect("hex"));
    let checked = wanted.len();
    wanted.resize(256, 0xff);
    let root = cube_root(&wanted);
    let cube = multiply(&multiply(&root, &root), &root);
    let mut cube_bytes = vec![0; 256 - cube.len().min(256)];
    cube_bytes.extend(&cube);
    assert_eq!(
        cube_bytes[..checked],
        wanted[..checked],
        "the forgery is a good one"
    );
    let mut signature = vec![0; 256 - root.len()];
    signature.extend(&root);

    let public = with_exponent_3();
    assert!(!public.verifies(Pkcs1V15, &digest, &signature));
    assert!(!public.verifies(Pss, &digest, &signature));
}

/// The first test key's modulus with the exponent 3.
fn with_exponent_3() -> ocm_transformers::signing::PublicKey {
    use aws_lc_rs::signature::KeyPair as _;
    let der = STANDARD
        .decode(
            KEYS[0]
                .lines()
                .filter(|line| !line.starts_with('-'))
                .collect::<String>(),
        )
        .expect("base64");
    let pair = KeyPair::from_pkcs8(&der).expect("a key");
    let mut public = pair.public_key().as_ref().to_vec();
    assert!(public.ends_with(&[0x02, 0x03, 0x01, 0x00, 0x01]));
    public.truncate(public.len() - 5);
    public.extend([0x02, 0x01, 0x03]);
    public[3] -= 2;
    ocm_transformers::signing::PublicKey::from_der(&public).expect("a key")
}

/// Numbers as big-endian bytes.
fn multiply(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut out = vec![0_u8; a.len() + b.len()];
    for (i, x) in a.iter().rev().enumerate() {
        let mut carry = 0_u32;
        for (j, y) in b.iter().rev().enumerate() {
            let at = out.len() - 1 - i - j;
            let sum = u32::from(out[at]) + u32::from(*x) * u32::from(*y) + carry;
            out[at] = sum as u8;
            carry = sum >> 8;
        }
        let at = out.len() - 1 - i - b.len();
        out[at] = carry as u8;
    }
    let zeros = out.iter().take_while(|byte| **byte == 0).count();
    out.split_off(zeros)
}

/// The greatest number whose cube is not above `of`.
fn cube_root(of: &[u8]) -> Vec<u8> {
    let zeros = of.iter().take_while(|byte| **byte == 0).count();
    let of = &of[zeros..];
    let mut root = vec![0_u8; of.len().div_ceil(3)];
    for bit in 0..root.len() * 8 {
        root[bit / 8] |= 0x80 >> (bit % 8);
        let cube = multiply(&multiply(&root, &root), &root);
        if (cube.len(), cube.as_slice()) > (of.len(), of) {
            root[bit / 8] &= !(0x80 >> (bit % 8));
        }
    }
    root
}

#[test]
fn keys_are_usable_or_refused() {
    for (text, expected) in [
        (String::new(), "no private key"),
        (pem("PUBLIC KEY", b"x"), "no private key"),
        (pem("ENCRYPTED PRIVATE KEY", b"x"), "encrypted"),
        (pem("PRIVATE KEY", b"x"), "no RSA key"),
        (pem("RSA PRIVATE KEY", b"x"), "no RSA key"),
    ] {
        let error = PrivateKey::from_pem(&text).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    }
    for text in [
        String::new(),
        pem("PUBLIC KEY", b"x"),
        pem("CERTIFICATE", b"x"),
    ] {
        PublicMaterial::from_pem(&text).expect_err(&text);
    }
    // The first key of several counts, whatever stands in front.
    let text = format!("# keys\n{}{}{}", pem("OTHER", b"x"), KEYS[1], KEYS[0]);
    let first = PrivateKey::from_pem(&text).expect("a key").public_key();
    assert_ne!(first, key().public_key());
    assert_eq!(
        PublicMaterial::from_pem(&text).expect("a key").key,
        Some(first)
    );
    assert_eq!(
        digest_of(
            &signed(&SignOptions::default()),
            Normalisation::V3,
            Algorithm::Sha512
        )
        .value
        .len(),
        128
    );
}

/// One run changes a component, hashes it and what references it, signs, verifies and uploads.
#[tokio::test]
async fn a_run_signs_again_what_it_changed() {
    let version = |name: &str, references: Value| {
        json!({"meta": {"schemaVersion": "v2"}, "component": {
            "name": format!("acme.org/{name}"), "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "sources": [], "componentReferences": references, "resources": [
                {"name": "tool", "version": "1.0.0", "type": "blob", "relation": "external",
                 "access": {"type": "wget", "url": "https://x.example"},
                 "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": "00"}},
            ],
        }})
    };
    let stale = json!([{"name": "dep", "version": "1.0.0", "componentName": "acme.org/dep",
        "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "jsonNormalisation/v3", "value": "0".repeat(64)}}]);
    let mut changed = version("dep", json!([]))["component"]["resources"][0].clone();
    changed["digest"]["value"] = json!("11");
    let run = async |trusted: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key.pem"), &KEYS[0]).unwrap();
        std::fs::write(folder.path().join("trusted.pem"), trusted).unwrap();
        let stores = ocm_content::MemoryStores::new();
        let session = support::session(folder.path(), &stores);
        let spec = json!({"transformations": [
            {"id": "dep", "type": "merge.component/v1alpha1", "spec": {"base": version("dep", json!([])), "patches": [changed]}},
            {"id": "hash", "type": "hash.component/v1alpha1",
             "spec": {"descriptor": version("app", stale.clone()), "references": ["${dep.output.descriptor}"]}},
            {"id": "sign", "type": "sign.component/v1alpha1", "spec": {"descriptor": "${hash.output.descriptor}",
             "privateKeyFile": "key.pem", "signature": "acme"}},
            {"id": "verify", "type": "verify.component/v1alpha1", "spec": {"descriptor": "${sign.output.descriptor}",
             "trust": {"acme": "trusted.pem"}}},
            {"id": "up1", "type": "uploader.component.oci/v1alpha1",
             "spec": {"baseUrl": "ghcr.io", "subPath": "x", "componentDescriptor": "${dep.output.descriptor}"}},
            {"id": "up2", "type": "uploader.component.oci/v1alpha1",
             "spec": {"baseUrl": "ghcr.io", "subPath": "x", "componentDescriptor": "${verify.output.descriptor}"}},
        ]});
        let (result, _) = support::run(&session, &spec.to_string()).await;
        (session, result)
    };

    let (session, result) = run(&KEYS[0]).await;
    assert_eq!(result.status, Status::Succeeded, "{:?}", result.failures);
    let place: RepositorySpec = "ghcr.io/x".parse().unwrap();
    let repository = session.repository(&place, false).await.unwrap();
    let app = repository.get("acme.org/app", "1.0.0").await.unwrap();
    let selected = select(&app.descriptor, &["acme".to_owned()]).unwrap();
    let found = check(
        &app.descriptor,
        None,
        &selected[0],
        Some(&trusted()),
        SystemTime::now(),
    );
    assert_eq!(found.state, SignatureState::Valid, "{found:?}");
    let closure = Closure::read(
        &session,
        app,
        &Resolver::default(),
        DigestOptions::default(),
    )
    .await
    .unwrap();
    let names: Vec<String> = closure.members().iter().map(Member::name).collect();
    assert_eq!(names, ["acme.org/dep:1.0.0", "acme.org/app:1.0.0"]);

    let (session, result) = run(&KEYS[1]).await;
    assert_eq!(result.status, Status::Failed);
    let failures = format!("{:?}", result.failures);
    assert!(failures.contains("not made by this key"), "{failures}");
    let repository = session.repository(&place, false).await.unwrap();
    assert!(
        repository
            .find("acme.org/app", "1.0.0")
            .await
            .unwrap()
            .is_none()
    );
}

/// A version that references itself by way of another ends the reading; so does a digest that is not that of the child.
#[tokio::test]
async fn closures_end() {
    let folder = tempfile::tempdir().unwrap();
    let session = support::session(folder.path(), &ocm_content::MemoryStores::new());
    let place: RepositorySpec = "ghcr.io/x".parse().unwrap();
    let repository = session.repository(&place, true).await.unwrap();
    let version = |name: &str, child: &str, digest: Value| {
        json!({"meta": {"schemaVersion": "v2"}, "component": {
            "name": format!("acme.org/{name}"), "version": "1.0.0", "provider": "acme", "repositoryContexts": [],
            "sources": [], "resources": [], "componentReferences": [
                {"name": child, "version": "1.0.0", "componentName": format!("acme.org/{child}"), "digest": digest}],
        }})
    };
    let wrong = json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "jsonNormalisation/v3", "value": "0".repeat(64)});
    let odd = json!({"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "myNormalisation", "value": "0".repeat(64)});
    let mut leaf = version("leaf", "none", json!(null));
    leaf["component"]["componentReferences"] = json!([]);
    for document in [
        leaf,
        version("a", "b", json!(null)),
        version("b", "a", json!(null)),
        version("wrong", "leaf", wrong),
        version("odd", "leaf", odd),
        version("lost", "nowhere", json!(null)),
        version(
            "fine",
            "leaf",
            json!({"hashAlgorithm": "", "normalisationAlgorithm": "", "value": ""}),
        ),
    ] {
        let descriptor = ComponentDescriptor::from_value(document).unwrap();
        let prepared = repository
            .prepare_version(&descriptor, Existing::Fail)
            .await
            .unwrap();
        prepared.publish().await.unwrap();
    }
    for (name, expected) in [
        ("a", Some((ErrorKind::Invalid, "references itself"))),
        (
            "wrong",
            Some((
                ErrorKind::Mismatch,
                "reference `leaf` of acme.org/wrong:1.0.0",
            )),
        ),
        ("odd", Some((ErrorKind::Mismatch, "can't be checked"))),
        ("lost", Some((ErrorKind::NotFound, "acme.org/nowhere"))),
        ("fine", None),
    ] {
        let root = repository
            .get(&format!("acme.org/{name}"), "1.0.0")
            .await
            .unwrap();
        let found = Closure::read(
            &session,
            root,
            &Resolver::default(),
            DigestOptions::default(),
        )
        .await;
        match (found, expected) {
            (Ok(closure), None) => {
                assert!(closure.root().is_changed());
                assert!(gaps(&closure.root().descriptor).is_empty());
            }
            (Err(error), Some((kind, part))) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(part), "{error}");
            }
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}
