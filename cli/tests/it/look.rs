//! Looking at component versions: lists, descriptions, checks, differences, downloads.

use std::path::{Path, PathBuf};

use ocm_specs::Digest;
use ocm_testdata::components::{self, SHOP, SHOP_SETTINGS};
use serde_json::Value;

use crate::place::{Place, RUN_EXAMPLE, tree};

/// All of the shipped example's content, artifacts included, in one archive.
const ARCHIVE: &str = "target/example/archive";

/// A place with [`ARCHIVE`], made by running the shipped example.
async fn place() -> Place {
    let place = Place::new();
    components::write_example(&place.path("examples/localize/archive"))
        .await
        .unwrap();
    let spec = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/localize/transfer-spec.yaml"
    );
    place.put("spec.yaml", std::fs::read(spec).unwrap());
    place.run(&RUN_EXAMPLE).await.ok();
    place
}

fn shop() -> String {
    format!("{ARCHIVE}//{SHOP}:2.3.0")
}

#[tokio::test(flavor = "multi_thread")]
async fn elements_are_listed() {
    let place = place().await;
    let shop = shop();
    let table = place.run(&["get", "resources", &shop]).await.ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["NAME", "VERSION", "IDENTITY", "TYPE", "RELATION"]
    );
    assert_eq!(lines.len(), 4, "{table}");
    for (noun, expected) in [
        ("references", SHOP_SETTINGS),
        ("refs", "settings"),
        ("sources", "NAME"),
    ] {
        let listed = place.run(&["list", noun, &shop]).await.ok().stdout;
        assert!(listed.contains(expected), "{noun}: {listed}");
    }
    let wide = ["get", "resources", &shop, "--recursive", "-o", "wide"];
    let wide = place.run(&wide).await.ok().stdout;
    assert!(wide.contains("localBlob sha256:"), "{wide}");
    assert!(wide.contains(&format!("{SHOP_SETTINGS}:")), "{wide}");
    let one = ["get", "resources", &shop, "manual", "-o", "json"];
    let one = place.run(&one).await.ok().json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!(one[0]["element"]["name"], "manual");
    assert_eq!(one[0]["component"], SHOP);
    let none = place.run(&["get", "resources", &shop, "nothing"]).await;
    assert!(none.code(4).stderr.contains("no resource `name=nothing`"));
    let odd = place.run(&["get", "resources", &shop, "manual", "x"]).await;
    assert!(odd.code(2).stderr.contains("expected NAME=VALUE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_chosen_by_constraint() {
    let place = place().await;
    let all = format!("{ARCHIVE}//{SHOP}");
    for (constraint, code) in [(">=2, <3", 0), ("^2.1 || 9.x", 0), ("2.0 - 2.9", 0)] {
        let run = ["get", "cv", &all, "--semver-constraint", constraint];
        let listed = place.run(&run).await.code(code).stdout;
        assert!(listed.contains("2.3.0"), "{constraint}: {listed}");
    }
    let none = ["get", "cv", &all, "-c", "~3"];
    assert!(!place.run(&none).await.ok().stdout.contains("2.3.0"));
    let wrong = ["get", "cv", &all, "-c", ">>1"];
    let wrong = place.run(&wrong).await.code(2);
    assert!(
        wrong.stderr.contains("is not a condition on versions"),
        "{}",
        wrong.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_has_all_of_it() {
    let place = place().await;
    let text = place.run(&["describe", "cv", &shop()]).await.ok().stdout;
    for part in [
        "provider     acme.example",
        "manifest     sha256:",
        "jsonNormalisation/v4alpha1",
        "\nresources\n  image  2.3.0",
        "\nreferences\n  settings  ",
        "access     localBlob sha256:",
        "ociArtifactDigest/v1 SHA-256:",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        text.contains("not complete: reference `name=settings"),
        "{text}"
    );
    let settings = format!("{ARCHIVE}//{SHOP_SETTINGS}:1.0.0");
    let json = place
        .run(&["describe", "cv", &settings, "-o", "json"])
        .await;
    let json = json.ok().json();
    let hash = ["hash", "cv", &settings, "-o", "json"];
    let hash = place.run(&hash).await.ok().json();
    assert_eq!(json["digest"]["value"], hash["digest"]["value"]);
    assert_eq!(json["descriptor"]["component"]["name"], SHOP_SETTINGS);
}

/// The file of a blob in [`ARCHIVE`].
fn blob(place: &Place, digest: &str) -> PathBuf {
    let digest: Digest = digest.parse().unwrap();
    let name = format!("{}.{}", digest.algorithm(), digest.hex());
    place.path(&format!("{ARCHIVE}/blobs/{name}"))
}

/// The first digest that a report tells of an element.
fn part<'a>(report: &'a Value, identity: &str, at: usize) -> &'a str {
    let versions = report["versions"].as_array().unwrap();
    let mut elements = versions
        .iter()
        .flat_map(|it| it["contents"].as_array().unwrap());
    let element = elements.find(|it| it["identity"].as_str().unwrap().contains(identity));
    element.unwrap()["parts"][at]["digest"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_has_one_of_five_states() {
    let place = place().await;
    let check = ["check", "cv", &shop(), "-o", "json"];
    let whole = place.run(&check).await.ok().json();
    assert_eq!(whole["complete"], true);
    assert_eq!(whole["versions"].as_array().unwrap().len(), 2);
    type Damage = (&'static str, i32, fn(&Path));
    let damages: [Damage; 4] = [
        ("missing", 4, |path| std::fs::remove_file(path).unwrap()),
        ("size", 5, |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("digest", 5, |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[0] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }),
        ("unreadable", 5, |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    // A blob that is a resource; a layer of an image.
    for digest in [
        part(&whole, "name=manual", 0),
        part(&whole, "name=chart", 2),
    ] {
        let file = blob(&place, digest);
        let right = std::fs::read(&file).unwrap();
        for (state, code, damage) in damages {
            damage(&file);
            let found = place.run(&check).await.code(code).json();
            assert_eq!(found["complete"], false);
            let text = found.to_string();
            assert!(
                text.contains(&format!(r#""state":"{state}""#)),
                "{state}: {text}"
            );
            let text = place.run(&check[..3]).await.code(code).stdout;
            assert!(text.contains(state), "{state}: {text}");
            let _ = std::fs::remove_dir(&file);
            std::fs::write(&file, &right).unwrap();
        }
    }
    let all = place
        .run(&["check", "cv", ARCHIVE, "-o", "yaml"])
        .await
        .ok();
    assert!(all.stdout.contains("complete: true"), "{}", all.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closure_that_is_not_complete_is_told() {
    let place = place().await;
    let alone = ["download", "cv", &shop(), "-O", "alone.tgz"];
    let name = place.run(&alone).await.ok().stdout;
    assert_eq!(name, format!("alone.tgz//{SHOP}:2.3.0\n"));
    let alone = format!("alone.tgz//{SHOP}:2.3.0");
    let check = place.run(&["check", "cv", &alone]).await.code(4);
    assert!(
        check.stdout.contains("missing    reference settings"),
        "{}",
        check.stdout
    );
    let lookup = ["check", "cv", &alone, "--lookup", ARCHIVE];
    place.run(&lookup).await.ok();
    let tree = ["get", "cv", &alone, "-r", "-o", "tree", "--lookup", ARCHIVE];
    assert!(place.run(&tree).await.ok().stdout.contains(SHOP_SETTINGS));
    // What went into the archive is what it came from, to the byte.
    place.run(&["diff", &alone, &shop()]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_elsewhere_is_read_on_request() {
    let place = place().await;
    let source = format!("examples/localize/archive//{SHOP}:2.3.0");
    let check = place.run(&["check", "cv", &source]).await.ok().stdout;
    assert!(check.contains("elsewhere  resource name=image"), "{check}");
    assert!(
        check.contains("not checked: content that is stored elsewhere"),
        "{check}"
    );
    let external = [
        "check",
        "cv",
        &source,
        "--external",
        "--host-alias",
        "source.example=http://127.0.0.1:9",
    ];
    // Nobody is there: that is no statement about the content.
    let away = place.run(&external).await.code(7);
    assert!(away.stderr.contains("onnection refused"), "{}", away.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn differences_are_told_with_what_signatures_think_of_them() {
    let place = place().await;
    let (first, second) = (shop(), format!("examples/localize/archive//{SHOP}:2.3.0"));
    let same = place.run(&["diff", &first, &first]).await.ok();
    assert_eq!(same.stdout, "no differences\n");
    let diff = place.run(&["diff", &second, &first]).await.code(9).stdout;
    assert!(
        diff.contains("~ resource name=image: access  (not signed)"),
        "{diff}"
    );
    assert!(diff.contains("~ resource name=chart: digest\n"), "{diff}");
    let signed = ["diff", &second, &first, "--signed", "-o", "json"];
    let signed = place.run(&signed).await.code(9).json();
    assert_eq!(signed["equalForSignatures"], false);
    for change in signed["changes"].as_array().unwrap() {
        assert_eq!(change["signed"], true, "{change}");
    }
    let other = format!("{ARCHIVE}//{SHOP_SETTINGS}:1.0.0");
    let diff = place.run(&["diff", &first, &other]).await.code(9).stdout;
    for part in [
        "~ name",
        "- resource name=image",
        "+ resource name=settings",
        "- reference",
    ] {
        assert!(diff.contains(part), "{part}: {diff}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resources_become_files_and_folders() {
    let place = place().await;
    let shop = shop();
    let run = ["download", "resource", &shop, "--identity", "name=manual"];
    let named = place.run(&run).await.ok().stdout;
    assert_eq!(Path::new(named.trim()), place.path("manual"));
    let manual = std::fs::read(place.path("manual")).unwrap();
    let again = place.run(&run).await.code(8);
    assert!(
        again.stderr.contains("is there already"),
        "{}",
        again.stderr
    );
    place.run(&[&run[..], &["--force"]].concat()).await.ok();
    let out = ["download", "resources", &shop, "manual", "-O", "-"];
    assert_eq!(place.run(&out).await.ok().stdout.as_bytes(), manual);
    // A chart is its archive, whatever wraps it.
    place
        .run(&["download", "resource", &shop, "chart"])
        .await
        .ok();
    let chart = std::fs::read(place.path("chart.tgz")).unwrap();
    assert!(chart.starts_with(&[0x1f, 0x8b]));
    // An image is a layout.
    place
        .run(&["download", "resource", &shop, "image"])
        .await
        .ok();
    let layout = tree(&place.path("image"));
    assert!(
        layout.contains_key(Path::new("oci-layout")),
        "{:?}",
        layout.keys()
    );
    assert!(layout.keys().any(|path| path.starts_with("blobs/sha256")));
    let tar = [
        "download", "resource", &shop, "image", "--form", "tar", "-O", "i.tar",
    ];
    place.run(&tar).await.ok();
    let tar = std::fs::read(place.path("i.tar")).unwrap();
    assert_eq!(&tar[257..262], b"ustar");
    let names = std::fs::read_dir(place.path("")).unwrap();
    let left: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_make_no_sense_are_refused() {
    let place = place().await;
    let shop = shop();
    for (arguments, code, part) in [
        (vec!["manul"], 4, "it has\n    name=image"),
        (vec![], 2, "which resource?"),
        (vec!["--identity", "manual"], 2, "expected NAME=VALUE"),
        (
            vec!["--identity", "version=2.3.0"],
            3,
            "several resources are",
        ),
        (vec!["manual", "--form", "tar"], 2, "is no OCI artifact"),
        (
            vec!["image", "--output", "-"],
            2,
            "a folder can't go to stdout",
        ),
        (vec!["image", "--form", "layer"], 3, "index"),
        (
            vec!["manual", "-O", "no/such/folder/x"],
            4,
            "no/such/folder",
        ),
    ] {
        let run = [&["download", "resource", &shop], &arguments[..]].concat();
        let ran = place.run(&run).await.code(code);
        assert!(ran.stderr.contains(part), "{arguments:?}: {}", ran.stderr);
        assert!(!place.path("manual").exists() && !place.path("image").exists());
    }
    // A blob that was tampered with is not left behind.
    let check = ["check", "cv", &shop, "-o", "json"];
    let report = place.run(&check).await.ok().json();
    let file = blob(&place, part(&report, "name=manual", 0));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let run = ["download", "resource", &shop, "manual"];
    place.run(&run).await.code(5);
    assert!(!place.path("manual").exists());
}
