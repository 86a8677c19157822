//! Signing, verifying and hashing from the command line, with `openssl` as second opinion.

use std::process::{Command, Stdio};

use ocm_repository::Existing;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::ComponentDescriptor;
use ocm_specs::media_type::DESCRIPTOR_YAML;
use serde_json::{Value, json};

use crate::place::{Peer, Place, Ran};

/// Is `openssl` there? A test that can't do without says so and ends.
pub(crate) fn has_openssl() -> bool {
    let found = Command::new("openssl").arg("version").output();
    if found.is_ok_and(|it| it.status.success()) {
        return true;
    }
    let required = std::env::var_os("OCM_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "no openssl");
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    {
        eprintln!("skipped: no openssl");
    }
    false
}

/// Runs `openssl` in the folder of `place`.
#[track_caller]
fn openssl(place: &Place, line: &str) -> String {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(place.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) = (output.stdout, output.stderr);
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    assert!(output.status.success(), "openssl {line}: {stderr}");
    String::from_utf8_lossy(&stdout).into_owned()
}

/// A folder with keys: `NAME.pem` and `NAME.pub` for each name.
pub(crate) fn with_keys(names: &[&str]) -> Place {
    let place = Place::new();
    for name in names {
        openssl(
            &place,
            &format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out {name}.pem"),
        );
        openssl(
            &place,
            &format!("pkey -in {name}.pem -pubout -out {name}.pub"),
        );
    }
    place
}

pub(crate) const APP: &str = "./ctf//acme.org/app:1.0.0";
pub(crate) const DEP: &str = "./ctf//acme.org/dep:0.1.0";

pub(crate) fn descriptor(name: &str, version: &str, references: Value) -> Value {
    json!({
        "meta": {"schemaVersion": "v2"},
        "future": {"kept": [null]},
        "component": {
            "name": name, "version": version, "provider": "acme",
            "repositoryContexts": [], "sources": [], "componentReferences": references,
            "resources": [{"name": "tool", "version": version, "type": "blob", "relation": "local", "future": 1,
                "access": {"type": "localBlob/v1", "mediaType": "text/plain"}}],
        },
    })
}

pub(crate) fn reference() -> Value {
    json!([{"name": "dep", "componentName": "acme.org/dep", "version": "0.1.0"}])
}

/// Stores a component version with its one resource, whose content is `content`.
pub(crate) async fn store(place: &Place, repository: &str, mut document: Value, content: &str) {
    let spec: RepositorySpec = repository.parse().unwrap();
    let repository = place.session().repository(&spec, true).await.unwrap();
    let name = document["component"]["name"].as_str().unwrap().to_owned();
    let blob = ocm_content::Blob::from_bytes("text/plain", content.to_owned().into_bytes());
    let kind = ocm_specs::descriptor::ElementKind::Resource;
    let resource = &mut document["component"]["resources"][0];
    let stored = repository
        .prepare_local_blob(&name, kind, resource, &blob.into())
        .await;
    *resource = stored.unwrap();
    put(place, &repository_text(&spec), document).await;
}

fn repository_text(spec: &RepositorySpec) -> String {
    match spec {
        RepositorySpec::Ctf(ctf) => ctf.path().to_owned(),
        other => panic!("{other:?}"),
    }
}

/// Stores a descriptor whose content is there.
pub(crate) async fn put(place: &Place, repository: &str, document: Value) {
    let spec: RepositorySpec = repository.parse().unwrap();
    let repository = place.session().repository(&spec, true).await.unwrap();
    let descriptor = ComponentDescriptor::from_value(document).unwrap();
    let prepared = repository
        .prepare_version(&descriptor, Existing::Overwrite)
        .await
        .unwrap();
    prepared.publish().await.unwrap();
}

pub(crate) async fn stored(place: &Place, reference: &str) -> Value {
    let ran = place
        .run(&["get", "cv", "-o", "json", reference])
        .await
        .ok();
    ran.json()[0].clone()
}

pub(crate) async fn run(place: &Place, line: &str) -> Ran {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    place.run(&arguments).await
}

#[tokio::test]
async fn openssl_and_we_agree() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", json!([])),
        "tool",
    )
    .await;
    for (algorithm, padding) in [("RSASSA-PSS", "pss"), ("RSASSA-PKCS1-V1_5", "pkcs1")] {
        for (hash, name) in [("SHA-256", "sha256"), ("SHA-512", "sha512")] {
            let salts: &[&str] = if padding == "pss" {
                &["max", "digest", "20", "0"]
            } else {
                &[""]
            };
            for salt in salts {
                both_ways(&place, [algorithm, padding, hash, name, salt]).await;
            }
        }
    }
}

/// Every size of key in both schemes: signed bytes, and a certificate that leads to a root.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_and_we_agree_on_every_size_of_key() {
    if !has_openssl() {
        return;
    }
    let sizes = ["2048", "3072", "4096", "8192"];
    futures::future::join_all(sizes.map(|bits| tokio::spawn(agree_on(bits))))
        .await
        .into_iter()
        .for_each(|done| done.expect("they agree"));
}

async fn agree_on(bits: &'static str) {
    let place = with_keys(&["root"]);
    if bits == "8192" {
        // One takes too long to make for every run; it protects nothing.
        place.put(
            "key.pem",
            include_str!("../../../testdata/keys/rsa-8192.pem"),
        );
    } else {
        openssl(
            &place,
            &format!("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:{bits} -out key.pem"),
        );
    }
    openssl(&place, "pkey -in key.pem -pubout -out key.pub");
    let told = openssl(&place, "pkey -in key.pem -noout -text");
    assert!(told.contains(&format!("({bits} bit")), "{told}");
    place.put("leaf.ext", "extendedKeyUsage=codeSigning\n");
    openssl(
        &place,
        "req -new -x509 -key root.pem -subj /CN=root -days 30 -out root.crt",
    );
    openssl(
        &place,
        "req -new -key key.pem -subj /CN=key/O=acme -out key.csr",
    );
    openssl(
        &place,
        "x509 -req -in key.csr -CA root.crt -CAkey root.pem -CAcreateserial -extfile leaf.ext -days 30 -out key.crt",
    );
    let document = descriptor("acme.org/app", "1.0.0", json!([]));
    store(&place, "./ctf", document, "tool").await;
    for (algorithm, padding) in [("RSASSA-PSS", "pss"), ("RSASSA-PKCS1-V1_5", "pkcs1")] {
        both_ways(&place, [algorithm, padding, "SHA-256", "sha256", "max"]).await;
        with_a_chain(&place, algorithm, padding).await;
    }
}

/// The digest is there already; signatures come with the certificate of their key.
async fn with_a_chain(place: &Place, algorithm: &str, padding: &str) {
    let mut options = format!("-pkeyopt rsa_padding_mode:{padding} -pkeyopt digest:sha256");
    if padding == "pss" {
        options.push_str(" -pkeyopt rsa_pss_saltlen:max");
    }
    let line = format!(
        "sign cv --private-key key.pem --public-key key.crt --encoding pem --algorithm {algorithm} --force -o json {APP}"
    );
    let ours = run(place, &line).await.ok().json();
    let value = ours["signature"]["value"].as_str().expect("a text");
    let (signature, chain) = split_signature(value);
    place.put("signature.b64", format!("{signature}\n"));
    place.put("chain.pem", chain);
    openssl(place, "base64 -d -in signature.b64 -out signature");
    openssl(place, "verify -purpose any -CAfile root.crt chain.pem");
    openssl(
        place,
        &format!(
            "pkeyutl -verify -certin -inkey chain.pem -sigfile signature -in digest {options}"
        ),
    );
    let verify = format!("verify cv --ca-cert root.crt {APP}");
    run(place, &verify).await.ok();

    openssl(
        place,
        &format!("pkeyutl -sign -inkey key.pem -in digest -out theirs {options}"),
    );
    let theirs = openssl(place, "base64 -in theirs");
    let mut document = stored(place, APP).await;
    let stored = &mut document["signatures"][0]["signature"]["value"];
    assert_eq!(stored, value);
    *stored = value.replacen(&signature, theirs.trim_end(), 1).into();
    assert!(padding == "pkcs1" || stored != value, "salts are random");
    put(place, "./ctf", document).await;
    run(place, &verify).await.ok();
}

/// The base64 of a signature in PEM, and the certificates after it.
fn split_signature(value: &str) -> (String, &str) {
    const END: &str = "-----END SIGNATURE-----\n";
    let (block, chain) = value.split_once(END).expect("a signature");
    let (_, text) = block.split_once("\n\n").expect("headers");
    assert!(block.starts_with("-----BEGIN SIGNATURE-----\n"), "{value}");
    (text.trim_end().to_owned(), chain)
}

async fn both_ways(place: &Place, [algorithm, padding, hash, name, salt]: [&str; 5]) {
    let normal = run(place, &format!("hash cv -o normalised --hash {hash} {APP}"))
        .await
        .ok();
    place.put("normal", &normal.stdout);
    openssl(place, &format!("dgst -{name} -binary -out digest normal"));
    let hashed = run(place, &format!("hash cv -o json --hash {hash} {APP}"))
        .await
        .ok()
        .json();
    let bytes = std::fs::read(place.path("digest")).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hashed["digest"]["value"], hex);

    let mut options = format!("-pkeyopt rsa_padding_mode:{padding} -pkeyopt digest:{name}");
    let mut signing = options.clone();
    if padding == "pss" {
        options.push_str(" -pkeyopt rsa_pss_saltlen:max");
        signing.push_str(&format!(" -pkeyopt rsa_pss_saltlen:{salt}"));
    }
    let line = format!(
        "sign cv --private-key key.pem --algorithm {algorithm} --hash {hash} --force -o json {APP}"
    );
    let ours = run(place, &line).await.ok().json();
    let value = ours["signature"]["value"].as_str().unwrap();
    place.put("signature", unhex(value));
    openssl(
        place,
        &format!("pkeyutl -verify -pubin -inkey key.pub -sigfile signature -in digest {options}"),
    );
    run(place, &format!("verify cv --public-key key.pub {APP}"))
        .await
        .ok();

    openssl(
        place,
        &format!("pkeyutl -sign -inkey key.pem -in digest -out theirs {signing}"),
    );
    let theirs = std::fs::read(place.path("theirs")).unwrap();
    let mut document = stored(place, APP).await;
    let hex: String = theirs.iter().map(|byte| format!("{byte:02x}")).collect();
    document["signatures"][0]["signature"]["value"] = hex.into();
    put(place, "./ctf", document).await;
    run(place, &format!("verify cv --public-key key.pub {APP}"))
        .await
        .ok();
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[tokio::test]
async fn exit_codes_and_what_stays() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key", "other"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", json!([])),
        "tool",
    )
    .await;
    let before = stored(&place, APP).await;
    let files = place.files();

    let dry = run(
        &place,
        &format!("sign cv --dry-run -o json --private-key key.pem {APP}"),
    )
    .await
    .ok();
    assert_eq!(dry.json()["name"], "default");
    assert!(
        dry.stderr
            .contains("would sign acme.org/app:1.0.0 as `default` with RSASSA-PSS"),
        "{dry:?}"
    );
    assert_eq!(place.files(), files, "a dry run writes nothing");

    run(&place, &format!("verify cv --public-key key.pub {APP}"))
        .await
        .code(5);
    let none = run(&place, &format!("sign cv {APP}")).await.code(4);
    assert!(
        none.stderr.contains("--private-key") && none.stderr.contains("RSA/v1alpha1"),
        "{none:?}"
    );
    run(&place, &format!("sign cv --private-key absent.pem {APP}"))
        .await
        .code(4);
    run(&place, &format!("sign cv --private-key key.pub {APP}"))
        .await
        .code(3);
    run(
        &place,
        "sign cv --private-key key.pem ./ctf//acme.org/app:9.9.9",
    )
    .await
    .code(4);
    run(&place, "sign cv --private-key key.pem acme.org/app")
        .await
        .code(2);
    run(
        &place,
        &format!("sign cv -S RSA --private-key key.pem {APP}"),
    )
    .await
    .code(2);

    let line = format!(
        "sign cv -s default -s second --private-key default=key.pem -K other.pem -o json {APP}"
    );
    let both = run(&place, &line).await.ok().json();
    assert_eq!(
        (&both[0]["name"], &both[1]["name"]),
        (&json!("default"), &json!("second"))
    );
    run(
        &place,
        &format!("sign componentversion --private-key key.pem {APP}"),
    )
    .await
    .code(8);
    run(&place, &format!("verify cv --public-key key.pub {APP}"))
        .await
        .code(5);
    run(
        &place,
        &format!("verify cv --public-key key.pub --public-key second=other.pub {APP}"),
    )
    .await
    .ok();
    run(
        &place,
        &format!("verify cv --signature default --public-key key.pub {APP}"),
    )
    .await
    .ok();
    run(
        &place,
        &format!("verify cv --signature third --public-key key.pub {APP}"),
    )
    .await
    .code(5);
    run(&place, &format!("verify cv --signature default {APP}"))
        .await
        .code(4);
    let wrong = run(
        &place,
        &format!("verify cv -s default -k other.pub -o json {APP}"),
    )
    .await
    .code(5);
    assert_eq!(wrong.json()["verified"], false);
    assert_eq!(wrong.json()["signatures"][0]["state"], "invalid");
    assert!(wrong.stderr.contains("not made by this key"), "{wrong:?}");

    let second = stored(&place, APP).await["signatures"][1].clone();
    run(
        &place,
        &format!("sign cv --force --private-key other.pem {APP}"),
    )
    .await
    .ok();
    let after = stored(&place, APP).await;
    assert_eq!(after["signatures"][1], second, "the other signature stays");
    let mut left = after;
    left.as_object_mut().unwrap().shift_remove("signatures");
    assert_eq!(left, before, "nothing else changes");
}

#[tokio::test]
async fn keys_of_the_configuration() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", json!([])),
        "tool",
    )
    .await;
    let consumer = |property: &str, file: &str| {
        format!(
            "type: generic.config.ocm.software/v1\nconfigurations:\n- type: credentials.config.ocm.software\n  consumers:\n  - identity: {{type: RSA/v1alpha1, algorithm: RSASSA-PKCS1-V1_5, signature: acme}}\n    credentials:\n    - type: Credentials/v1\n      properties: {{{property}: {file}}}\n- type: signing.config.ocm.software/v1alpha1\n  signer: {{type: RSASigningConfiguration/v1alpha1, signatureAlgorithm: RSASSA-PKCS1-V1_5}}\n"
        )
    };
    place.put("sign.yaml", consumer("private_key_pem_file", "key.pem"));
    place.put("verify.yaml", consumer("publicKeyPEMFile", "key.pub"));
    let signed = run(
        &place,
        &format!("sign cv --config sign.yaml -s acme -o json {APP}"),
    )
    .await
    .ok();
    assert_eq!(signed.json()["signature"]["algorithm"], "RSASSA-PKCS1-V1_5");
    run(&place, &format!("verify cv --config verify.yaml {APP}"))
        .await
        .ok();
    run(&place, &format!("sign cv --config sign.yaml -s else {APP}"))
        .await
        .code(4);
    place.put(
        "v1.yaml",
        "type: keys.config.ocm.software\npublicKeys: {acme: {path: key.pub}}\n",
    );
    run(&place, &format!("verify cv --config v1.yaml {APP}"))
        .await
        .ok();
}

#[tokio::test]
async fn children_are_signed_before_parents() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/dep", "0.1.0", json!([])),
        "dep",
    )
    .await;
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", reference()),
        "app",
    )
    .await;
    let computed = run(&place, &format!("hash cv -o json {APP}")).await.ok();
    assert!(
        computed
            .stderr
            .contains("reference `name=dep,version=0.1.0` has no digest"),
        "{computed:?}"
    );

    run(
        &place,
        &format!("sign cv --recursive --private-key key.pem {APP}"),
    )
    .await
    .ok();
    let app = stored(&place, APP).await;
    let dep = run(&place, &format!("hash cv -o json {DEP}"))
        .await
        .ok()
        .json();
    assert_eq!(
        app["component"]["componentReferences"][0]["digest"],
        dep["digest"]
    );
    assert_eq!(app["signatures"][0]["digest"], computed.json()["digest"]);
    run(&place, &format!("verify cv --public-key key.pub {DEP}"))
        .await
        .ok();

    let deep = run(
        &place,
        &format!("verify cv --deep -o json --public-key key.pub {APP}"),
    )
    .await
    .ok()
    .json();
    assert_eq!(
        deep["deep"]["versions"],
        json!(["acme.org/dep:0.1.0", "acme.org/app:1.0.0"])
    );
    assert!(
        deep["deep"]["resources"]
            .as_array()
            .unwrap()
            .iter()
            .all(|it| it["state"] == "ok"),
        "{deep}"
    );
    let flat = run(
        &place,
        &format!("verify cv -o json --public-key key.pub {APP}"),
    )
    .await
    .ok()
    .json();
    assert!(
        flat["notChecked"][0].as_str().unwrap().contains("--deep"),
        "{flat}"
    );

    // A referenced version that changed since is noticed by the deep check alone.
    store(
        &place,
        "./ctf",
        descriptor("acme.org/dep", "0.1.0", json!([])),
        "forged",
    )
    .await;
    run(&place, &format!("verify cv --public-key key.pub {APP}"))
        .await
        .ok();
    let forged = run(
        &place,
        &format!("verify cv --deep --public-key key.pub {APP}"),
    )
    .await
    .code(5);
    assert!(
        forged.stdout.contains("references: NOT VALID"),
        "{forged:?}"
    );
    run(
        &place,
        &format!("sign cv --force --private-key key.pem {APP}"),
    )
    .await
    .code(5);
}

#[tokio::test]
async fn bytes_that_rotted_fail_the_deep_check() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key"]);
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", json!([])),
        "the bytes of the tool",
    )
    .await;
    run(&place, &format!("sign cv --private-key key.pem {APP}"))
        .await
        .ok();
    run(
        &place,
        &format!("verify cv --deep --public-key key.pub {APP}"),
    )
    .await
    .ok();
    let (path, _) = place
        .files()
        .into_iter()
        .find(|(_, bytes)| bytes == b"the bytes of the tool")
        .unwrap();
    std::fs::write(place.path("").join(path), "the bytes of the fool").unwrap();
    run(&place, &format!("verify cv --public-key key.pub {APP}"))
        .await
        .ok();
    let rotten = run(
        &place,
        &format!("verify cv --deep --public-key key.pub {APP}"),
    )
    .await
    .code(5);
    assert!(rotten.stdout.contains("NOT VALID"), "{rotten:?}");
}

#[tokio::test]
async fn in_a_registry() {
    if !has_openssl() {
        return;
    }
    let place = with_keys(&["key"]);
    let peer = Peer::embedded().await;
    let repository = format!("{}//acme.org/app:1.0.0", peer.url());
    let spec: RepositorySpec = peer.url().parse().unwrap();
    let target = place.session().repository(&spec, true).await.unwrap();
    let mut document = descriptor("acme.org/app", "1.0.0", json!([]));
    document["component"]["resources"] = json!([]);
    let descriptor = ComponentDescriptor::from_value(document).unwrap();
    let prepared = target
        .prepare_version(&descriptor, Existing::Fail)
        .await
        .unwrap();
    prepared.publish().await.unwrap();
    run(
        &place,
        &format!("sign cv --private-key key.pem {repository}"),
    )
    .await
    .ok();
    run(
        &place,
        &format!("verify cv --public-key key.pub {repository}"),
    )
    .await
    .ok();
}

/// Certificates: `root` signs `middle`, `middle` signs `leaf`; `stranger` is another root.
fn with_certificates() -> Place {
    let place = with_keys(&["root", "middle", "leaf", "stranger"]);
    place.put(
        "ca.ext",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
    );
    place.put(
        "leaf.ext",
        "basicConstraints=CA:FALSE\nextendedKeyUsage=codeSigning\n",
    );
    place.put(
        "web.ext",
        "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
    );
    let request = |name: &str| {
        openssl(
            &place,
            &format!("req -new -key {name}.pem -subj /CN={name}/O=acme -out {name}.csr"),
        );
    };
    for name in ["root", "middle", "leaf", "stranger"] {
        request(name);
    }
    let issue = |name: &str, by: &str, extensions: &str, days: &str, out: &str| {
        let line = if by == name {
            format!(
                "x509 -req -in {name}.csr -signkey {name}.pem -extfile {extensions} -days {days} -out {out}"
            )
        } else {
            format!(
                "x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.pem -CAcreateserial -extfile {extensions} -days {days} -out {out}"
            )
        };
        openssl(&place, &line);
    };
    issue("root", "root", "ca.ext", "30", "root.crt");
    issue("stranger", "stranger", "ca.ext", "30", "stranger.crt");
    issue("middle", "root", "ca.ext", "30", "middle.crt");
    issue("leaf", "middle", "leaf.ext", "30", "good.crt");
    issue("leaf", "middle", "web.ext", "30", "web.crt");
    issue("leaf", "leaf", "leaf.ext", "30", "self.crt");
    place.put(
        "ca.cnf",
        "[ca]\ndefault_ca=it\n[it]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=optional\norganizationName=optional\n",
    );
    place.put("index.txt", "");
    place.put("serial", "01");
    openssl(
        &place,
        "ca -batch -notext -config ca.cnf -startdate 20200101000000Z -enddate 20200201000000Z -cert middle.crt -keyfile middle.pem -extfile leaf.ext -in leaf.csr -out expired.crt",
    );
    let middle = std::fs::read_to_string(place.path("middle.crt")).unwrap();
    for name in ["good", "web", "expired", "self"] {
        let own = std::fs::read_to_string(place.path(&format!("{name}.crt"))).unwrap();
        place.put(&format!("{name}.chain"), format!("{own}{middle}"));
    }
    place
}

#[tokio::test]
async fn certificates_lead_to_a_root_that_is_configured() {
    if !has_openssl() {
        return;
    }
    let place = with_certificates();
    store(
        &place,
        "./ctf",
        descriptor("acme.org/app", "1.0.0", json!([])),
        "tool",
    )
    .await;
    for (certificates, trust, code, expected) in [
        (
            "good.chain",
            "--ca-cert root.crt",
            0,
            "signature default: valid",
        ),
        (
            "good.crt",
            "--ca-cert root.crt --public-key middle.crt",
            0,
            "signature default: valid",
        ),
        (
            "good.crt",
            "--ca-cert root.crt",
            5,
            "does not lead to a root",
        ),
        (
            "good.chain",
            "--ca-cert stranger.crt",
            5,
            "does not lead to a root",
        ),
        (
            "good.chain",
            "--public-key middle.crt",
            5,
            "no root certificate",
        ),
        (
            "good.chain",
            "--public-key leaf.pub",
            0,
            "not checked: the certificates",
        ),
        (
            "good.chain",
            "--public-key stranger.pub",
            5,
            "not made by this key",
        ),
        ("good.chain", "", 4, ""),
        ("web.chain", "--ca-cert root.crt", 5, "not for signing code"),
        ("expired.chain", "--ca-cert root.crt", 5, "has expired"),
        ("self.crt", "--ca-cert root.crt", 5, "self-signed"),
        (
            "self.crt",
            "--public-key self.crt",
            0,
            "not checked: the certificates",
        ),
    ] {
        let line = format!(
            "sign cv --force --encoding pem --private-key leaf.pem --public-key {certificates} -o json {APP}"
        );
        let signed = run(&place, &line).await.ok().json();
        assert_eq!(signed["signature"]["mediaType"], "application/x-pem-file");
        let found = run(&place, &format!("verify cv {trust} {APP}"))
            .await
            .code(code);
        let all = format!("{}{}", found.stdout, found.stderr);
        assert!(all.contains(expected), "{certificates} {trust}: {all}");
    }
    let line = format!(
        "sign cv --force --encoding pem --private-key leaf.pem --public-key middle.crt {APP}"
    );
    run(&place, &line).await.code(3);
    run(
        &place,
        &format!(
            "sign cv --force --encoding pem --private-key leaf.pem --public-key leaf.pub {APP}"
        ),
    )
    .await
    .code(3);
}

/// What the Go CLI v1 signed years ago holds, and stays as it is when a signature is added.
#[tokio::test]
async fn old_but_valid() {
    let Some(vectors) = vectors() else { return };
    let place = Place::new();
    let folder = vectors.join("signatures/compat-rsa");
    let bytes = std::fs::read(folder.join("component-archive/component-descriptor.yaml")).unwrap();
    let old = ComponentDescriptor::decode(DESCRIPTOR_YAML, bytes).unwrap();
    let mut document = old.document().clone();
    // Component archives name blobs by their files, archives by digest: an access is not part of what was signed.
    let content = std::fs::read_to_string(
        folder.join("component-archive/blobs/sha256.c893900c1106f13d55648a425f502dd6518e40eaa3ac7d24023d4c73d55dc12e"),
    )
    .unwrap();
    document["component"]["resources"][0]["access"]["mediaType"] = json!("text/plain");
    store(&place, "./ctf", document, &content).await;
    let key = folder.join("rsa.pub").display().to_string();
    let reference = "./ctf//github.com/mandelsoft/test:1.0.0";
    run(
        &place,
        &format!("verify cv --deep --public-key {key} {reference}"),
    )
    .await
    .ok();
    let private = folder.join("rsa.priv").display().to_string();
    run(
        &place,
        &format!("sign cv -s new --private-key {private} {reference}"),
    )
    .await
    .ok();
    run(&place, &format!("verify cv --public-key {key} {reference}"))
        .await
        .ok();
}

/// The folder of the vectors; `None`, with the reason printed, when it is absent and may be.
pub(crate) fn vectors() -> Option<std::path::PathBuf> {
    let root = std::env::var_os("OCM_VECTORS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        std::path::PathBuf::from,
    );
    if root.is_dir() {
        return Some(root);
    }
    let required = std::env::var_os("OCM_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "no vectors at {}", root.display());
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    {
        eprintln!("skipped: no vectors at {}", root.display());
    }
    None
}
