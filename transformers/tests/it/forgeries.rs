//! Ways to forge a signature, one row each. The tests of the command line go through the same table.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocm_specs::Digest;
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_transformers::signing::SignatureAlgorithm::Pss;
use ocm_transformers::signing::{PrivateKey, SignOptions, sign};
use serde_json::{Value, json};

pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(bytes)
    )
}

/// Two keys that are made for the tests of this process, as PEM.
pub(crate) static KEYS: LazyLock<[String; 2]> = LazyLock::new(|| {
    [(), ()].map(|()| {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("its bytes");
        pem("PRIVATE KEY", der.as_ref())
    })
});

pub(crate) fn key() -> PrivateKey {
    PrivateKey::from_pem(&KEYS[0]).expect("a key")
}

pub(crate) fn document() -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "future": {"kept": [null]},
        "component": {
            "name": "acme.org/app", "version": "1.0.0", "provider": "acme",
            "creationTime": "2026-01-19T11:18:36Z",
            "repositoryContexts": [],
            "labels": [
                {"name": "signed", "value": {"a": 1, "b": [null, 1.5]}, "signing": true, "version": "v1"},
                {"name": "volatile", "value": "x"},
            ],
            "resources": [
                {"name": "tool", "version": "1.0.0", "type": "blob", "relation": "local",
                 "access": {"type": "localBlob", "localReference": "sha256:1", "mediaType": "x"},
                 "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "genericBlobDigest/v1", "value": "aa"}},
                {"name": "tool", "version": "2.0.0", "type": "blob", "relation": "local",
                 "access": {"type": "none"}},
            ],
            "sources": [],
            "componentReferences": [{"name": "dep", "componentName": "acme.org/dep", "version": "0.1.0",
                "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "jsonNormalisation/v3", "value": "bb"}}],
        },
        "signatures": [{"name": "other", "timestamp": {"value": "t"},
            "digest": {"hashAlgorithm": "SHA-256", "normalisationAlgorithm": "jsonNormalisation/v3", "value": "00"},
            "signature": {"algorithm": "GPG", "value": "ff", "mediaType": "x"}}],
    })
}

pub(crate) fn signed(options: &SignOptions) -> ComponentDescriptor {
    let mut descriptor = ComponentDescriptor::from_value(document()).expect("a descriptor");
    sign(&mut descriptor, &key(), options).expect("a signature");
    descriptor
}

/// One way to forge a signature: what is done to a signed document, and what the refusal says.
pub(crate) type Forgery = (&'static str, fn(&mut Value), &'static str);

pub(crate) const CHANGED: &str = "descriptor was changed";
pub(crate) const KEY: &str = "not made by this key";

pub(crate) fn own(document: &mut Value) -> &mut Value {
    &mut document["signatures"][1]
}

fn value(document: &mut Value) -> Vec<u8> {
    hex::decode(
        own(document)["signature"]["value"]
            .as_str()
            .expect("a text"),
    )
    .expect("hex")
}

fn set_value(document: &mut Value, bytes: &[u8]) {
    own(document)["signature"]["value"] = hex::encode(bytes).into();
}

/// The signature as PEM, between `before` and `after`, with these header lines.
pub(crate) fn set_pem(document: &mut Value, before: &str, headers: &str, after: &str) {
    let block = pem("SIGNATURE", &value(document));
    let block = block.replacen('\n', &format!("\n{headers}"), 1);
    own(document)["signature"]["mediaType"] = "application/x-pem-file".into();
    own(document)["signature"]["value"] = format!("{before}{block}{after}").into();
}

pub(crate) const FORGERIES: &[Forgery] = &[
    (
        "resources emptied",
        |it| it["component"]["resources"] = json!([]),
        CHANGED,
    ),
    (
        "resources null",
        |it| it["component"]["resources"] = json!(null),
        CHANGED,
    ),
    (
        "references emptied",
        |it| it["component"]["componentReferences"] = json!([]),
        CHANGED,
    ),
    (
        "labels emptied",
        |it| it["component"]["labels"] = json!([]),
        CHANGED,
    ),
    (
        "number as text",
        |it| it["component"]["labels"][0]["value"]["a"] = json!("1"),
        CHANGED,
    ),
    (
        "number negated",
        |it| it["component"]["labels"][0]["value"]["a"] = json!(-1),
        CHANGED,
    ),
    (
        "null in place of a number",
        |it| it["component"]["labels"][0]["value"]["b"][1] = json!(null),
        CHANGED,
    ),
    (
        "label smuggled in",
        |it| {
            it["component"]["labels"].as_array_mut().unwrap().push(
                json!({"name": "smuggled", "value": {"run": "me"}, "signing": true, "version": "v1"}),
            );
        },
        CHANGED,
    ),
    (
        "label of a resource smuggled in",
        |it| {
            it["component"]["resources"][0]["labels"] =
                json!([{"name": "smuggled", "value": 1, "signing": true}]);
        },
        CHANGED,
    ),
    (
        "component renamed",
        |it| it["component"]["name"] = json!("acme.org/evil"),
        CHANGED,
    ),
    (
        "other version",
        |it| it["component"]["version"] = json!("1.0.1"),
        CHANGED,
    ),
    (
        "other provider",
        |it| it["component"]["provider"] = json!("evil"),
        CHANGED,
    ),
    (
        "created at another time",
        |it| it["component"]["creationTime"] = json!("2026-01-19T11:18:37Z"),
        CHANGED,
    ),
    (
        "resource swapped",
        |it| it["component"]["resources"][0]["digest"]["value"] = json!("ab"),
        CHANGED,
    ),
    (
        "digest relabelled",
        |it| {
            it["component"]["resources"][0]["digest"]["normalisationAlgorithm"] =
                json!("ociArtifactDigest/v1");
        },
        CHANGED,
    ),
    (
        "digest dropped",
        |it| it["component"]["resources"][0]["digest"] = json!(null),
        CHANGED,
    ),
    (
        "digest dropped by access none",
        |it| it["component"]["resources"][0]["access"] = json!({"type": "none"}),
        CHANGED,
    ),
    (
        "resource excluded",
        |it| {
            it["component"]["resources"][0]["digest"] = json!({"hashAlgorithm": "NO-DIGEST",
            "normalisationAlgorithm": "EXCLUDE-FROM-SIGNATURE", "value": "NO-DIGEST"});
        },
        CHANGED,
    ),
    (
        "resource added",
        |it| {
            let more = json!({"name": "more", "version": "1", "type": "blob", "relation": "local", "access": {"type": "none"}});
            it["component"]["resources"]
                .as_array_mut()
                .unwrap()
                .push(more);
        },
        CHANGED,
    ),
    (
        "resource removed",
        |it| {
            it["component"]["resources"].as_array_mut().unwrap().pop();
        },
        CHANGED,
    ),
    (
        "resources reordered",
        |it| {
            it["component"]["resources"]
                .as_array_mut()
                .unwrap()
                .reverse()
        },
        CHANGED,
    ),
    (
        "extra identity added",
        |it| it["component"]["resources"][0]["extraIdentity"] = json!({"a": "b"}),
        CHANGED,
    ),
    (
        "source added",
        |it| {
            it["component"]["sources"] =
                json!([{"name": "s", "version": "1", "type": "git", "access": {"type": "none"}}]);
        },
        CHANGED,
    ),
    (
        "reference to another",
        |it| it["component"]["componentReferences"][0]["componentName"] = json!("acme.org/evil"),
        CHANGED,
    ),
    (
        "digest of a reference",
        |it| it["component"]["componentReferences"][0]["digest"]["value"] = json!("bc"),
        CHANGED,
    ),
    (
        "label of a reference added",
        |it| {
            it["component"]["componentReferences"][0]["labels"] =
                json!([{"name": "l", "value": 1}]);
        },
        CHANGED,
    ),
    (
        "signed label changed",
        |it| it["component"]["labels"][0]["value"]["a"] = json!(2),
        CHANGED,
    ),
    (
        "signed label unsigned",
        |it| it["component"]["labels"][0]["signing"] = json!(false),
        CHANGED,
    ),
    (
        "label signed by text",
        |it| it["component"]["labels"][1]["signing"] = json!("true"),
        CHANGED,
    ),
    (
        "label signed in another case",
        |it| it["component"]["labels"][1]["Signing"] = json!(true),
        CHANGED,
    ),
    (
        "label version changed",
        |it| it["component"]["labels"][0]["version"] = json!("v2"),
        CHANGED,
    ),
    (
        "number one bit off",
        |it| it["component"]["labels"][0]["value"]["b"][1] = json!(1.500_000_000_000_000_2),
        CHANGED,
    ),
    (
        "field twice, other case first",
        |it| {
            let mut component =
                serde_json::Map::from_iter([("Version".to_owned(), json!("9.9.9"))]);
            component.extend(it["component"].as_object().unwrap().clone());
            it["component"] = Value::Object(component);
        },
        "ambiguous",
    ),
    (
        "field twice, other case last",
        |it| it["component"]["NAME"] = json!("acme.org/evil"),
        "ambiguous",
    ),
    (
        "list twice, other case",
        |it| it["component"]["Resources"] = json!([]),
        "ambiguous",
    ),
    (
        "digest twice, other case",
        |it| it["component"]["resources"][0]["Digest"] = json!(null),
        "ambiguous",
    ),
    (
        "component twice, other case",
        |it| {
            let component = it["component"].clone();
            it["Component"] = component;
        },
        "ambiguous",
    ),
    (
        "signature of the other algorithm",
        |it| {
            own(it)["signature"]["algorithm"] = json!("RSASSA-PKCS1-V1_5");
            own(it)["signature"]["mediaType"] = json!("application/vnd.ocm.signature.rsa");
        },
        KEY,
    ),
    (
        "algorithm and media type differ",
        |it| own(it)["signature"]["algorithm"] = json!("RSASSA-PKCS1-V1_5"),
        "does not go with",
    ),
    (
        "media type of nothing",
        |it| own(it)["signature"]["mediaType"] = json!("text/plain"),
        "does not go with",
    ),
    (
        "hash relabelled",
        |it| own(it)["digest"]["hashAlgorithm"] = json!("SHA-512"),
        "is no digest by",
    ),
    (
        "hash unknown",
        |it| own(it)["digest"]["hashAlgorithm"] = json!("MD5"),
        "is no digest by",
    ),
    (
        "hash NO-DIGEST",
        |it| own(it)["digest"]["hashAlgorithm"] = json!("NO-DIGEST"),
        "is no digest by",
    ),
    (
        "normalisation relabelled",
        |it| own(it)["digest"]["normalisationAlgorithm"] = json!("jsonNormalisation/v1"),
        CHANGED,
    ),
    (
        "normalisation unknown",
        |it| own(it)["digest"]["normalisationAlgorithm"] = json!("jsonNormalisation/v9"),
        "is unknown",
    ),
    (
        "normalisation empty",
        |it| own(it)["digest"]["normalisationAlgorithm"] = json!(""),
        "is unknown",
    ),
    (
        "digest swapped",
        |it| own(it)["digest"]["value"] = json!("0".repeat(64)),
        CHANGED,
    ),
    (
        "digest cut",
        |it| own(it)["digest"]["value"] = json!("00"),
        "is no digest by",
    ),
    (
        "digest absent",
        |it| {
            own(it).as_object_mut().unwrap().remove("digest");
        },
        "which digest",
    ),
    (
        "signature empty",
        |it| own(it)["signature"]["value"] = json!(""),
        KEY,
    ),
    (
        "signature absent",
        |it| {
            own(it).as_object_mut().unwrap().remove("signature");
        },
        "the algorithm `` is unknown",
    ),
    (
        "kind that is not verified",
        |it| own(it)["signature"]["algorithm"] = json!("sigstore"),
        "not verified here",
    ),
    (
        "kind that is unknown",
        |it| own(it)["signature"]["algorithm"] = json!("rsassa-pss"),
        "is unknown",
    ),
    (
        "signature no hex",
        |it| own(it)["signature"]["value"] = json!("zz"),
        "hex",
    ),
    (
        "signature with blanks",
        |it| {
            let text = own(it)["signature"]["value"].as_str().unwrap().to_owned();
            own(it)["signature"]["value"] = json!(format!(" {text}"));
        },
        "hex",
    ),
    (
        "one bit off",
        |it| {
            let mut bytes = value(it);
            bytes[100] ^= 1;
            set_value(it, &bytes);
        },
        KEY,
    ),
    (
        "zero in front",
        |it| {
            let mut bytes = value(it);
            bytes.insert(0, 0);
            set_value(it, &bytes);
        },
        KEY,
    ),
    (
        "zero behind",
        |it| {
            let mut bytes = value(it);
            bytes.push(0);
            set_value(it, &bytes);
        },
        KEY,
    ),
    (
        "cut",
        |it| {
            let mut bytes = value(it);
            bytes.pop();
            set_value(it, &bytes);
        },
        KEY,
    ),
    ("all zero", |it| set_value(it, &[0; 256]), KEY),
    (
        "one",
        |it| {
            let mut bytes = [0; 256];
            bytes[255] = 1;
            set_value(it, &bytes);
        },
        KEY,
    ),
    (
        "signature of another component",
        |it| {
            let mut other = document();
            other["component"]["name"] = json!("acme.org/other");
            let mut other = ComponentDescriptor::from_value(other).unwrap();
            let made = sign(&mut other, &key(), &SignOptions::default()).unwrap();
            *own(it) = made;
        },
        CHANGED,
    ),
    (
        "value of another component",
        |it| {
            let digest = Digest::sha256(b"another");
            let bytes = key().sign(Pss, &digest).unwrap();
            set_value(it, &bytes);
        },
        KEY,
    ),
    (
        "by another key",
        |it| {
            let other = PrivateKey::from_pem(&KEYS[1]).unwrap();
            let mut descriptor = ComponentDescriptor::from_value(it.clone()).unwrap();
            let options = SignOptions {
                force: true,
                ..SignOptions::default()
            };
            sign(&mut descriptor, &other, &options).unwrap();
            *it = descriptor.into_document();
        },
        KEY,
    ),
    (
        "two of one name",
        |it| {
            let copy = own(it).clone();
            it["signatures"].as_array_mut().unwrap().push(copy);
        },
        "two signatures `default`",
    ),
    (
        "renamed",
        |it| own(it)["name"] = json!("Default"),
        "no signature `default`",
    ),
    (
        "no signatures",
        |it| it["signatures"] = json!([]),
        "no signature",
    ),
    (
        "null signatures",
        |it| it["signatures"] = json!(null),
        "no signature",
    ),
    (
        "PEM with text in front",
        |it| set_pem(it, "junk\n", "", ""),
        "between the PEM blocks",
    ),
    (
        "PEM that says another algorithm",
        |it| {
            set_pem(it, "", "Signature Algorithm: RSASSA-PKCS1-V1_5\n\n", "");
        },
        "another algorithm",
    ),
    (
        "PEM that says two algorithms",
        |it| {
            set_pem(
                it,
                "",
                "Signature Algorithm: RSASSA-PSS\nSignature Algorithm: RSASSA-PKCS1-V1_5\n\n",
                "",
            );
        },
        "another algorithm",
    ),
    (
        "PEM with two signatures",
        |it| {
            let more = pem("SIGNATURE", &value(it));
            set_pem(it, "", "", &more);
        },
        "more than a signature",
    ),
    (
        "PEM with a key",
        |it| set_pem(it, "", "", &KEYS[1]),
        "more than a signature",
    ),
    (
        "PEM without an end",
        |it| {
            own(it)["signature"]["mediaType"] = json!("application/x-pem-file");
            own(it)["signature"]["value"] = json!("-----BEGIN SIGNATURE-----\nAAAA\n");
        },
        "has no end",
    ),
    (
        "PEM that is hex",
        |it| own(it)["signature"]["mediaType"] = json!("application/x-pem-file"),
        "between the PEM blocks",
    ),
];
