//! Archives in the Common Transport Format of which one file is not what it should be: cut, changed, missing, of another kind.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::bad_input::{CONF, DESCRIPTOR, MANIFEST, Row, blob_with, forge, index, row, swap_root};
use crate::place::Place;

/// A file of the archive.
#[derive(Clone, Copy)]
enum File {
    Index,
    Manifest,
    Config,
    Descriptor,
    Content,
}

use File::{Config, Content, Descriptor, Index, Manifest};

impl File {
    const ALL: [(Self, &'static str); 5] = [
        (Index, "index"),
        (Manifest, "manifest"),
        (Config, "config"),
        (Descriptor, "descriptor"),
        (Content, "content"),
    ];

    fn path(self, place: &Place) -> PathBuf {
        match self {
            Index => place.path("source/artifact-index.json"),
            Manifest => blob_with(place, MANIFEST),
            Config => blob_with(place, "componentDescriptorLayer"),
            Descriptor => blob_with(place, DESCRIPTOR),
            Content => blob_with(place, CONF),
        }
    }

    /// What names it in an error.
    fn named(self) -> &'static str {
        match self {
            Index => "artifact-index.json",
            _ => "sha256:",
        }
    }

    /// Other bytes are invalid where nothing says what they should be, and a mismatch elsewhere.
    fn spoilt(self) -> i32 {
        match self {
            Index => 3,
            _ => 5,
        }
    }
}

/// Does something to the path of each file.
fn each(
    how: &str,
    code: impl Fn(File) -> i32,
    change: impl Fn(PathBuf) + Copy + Send + Sync + 'static,
) -> Vec<Row> {
    File::ALL
        .into_iter()
        .map(|(file, name)| {
            let says = ["step `", file.named()];
            row(format!("{name} {how}"), code(file), &says, move |place| {
                change(file.path(place));
            })
        })
        .collect()
}

/// Does something to the bytes of each file.
fn bytes(how: &str, change: impl Fn(&mut Vec<u8>) + Copy + Send + Sync + 'static) -> Vec<Row> {
    each(how, File::spoilt, move |path| {
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    })
}

/// An index with another entry.
fn entry(name: &'static str, code: i32, says: &[&str], change: fn(&mut Value)) -> Row {
    row(name, code, says, move |place| {
        index(place, |index| change(&mut index["artifacts"][0]));
    })
}

/// An index with these entries besides.
fn entries(name: &'static str, code: i32, says: &[&str], more: fn(&Value) -> Vec<Value>) -> Row {
    row(name, code, says, move |place| {
        index(place, |index| {
            let list = index["artifacts"].as_array_mut().unwrap();
            let more = more(&list[0]);
            list.extend(more);
        });
    })
}

/// A manifest that says something else of its parts.
fn manifest(name: &'static str, code: i32, says: &[&str], change: fn(&mut Value)) -> Row {
    row(name, code, says, move |place| {
        let text = std::fs::read_to_string(blob_with(place, MANIFEST)).unwrap();
        let mut manifest = serde_json::from_str(&text).unwrap();
        change(&mut manifest);
        swap_root(place, &manifest.to_string());
    })
}

fn index_text(
    name: &'static str,
    code: i32,
    says: &[&str],
    text: impl Fn() -> String + Send + Sync + 'static,
) -> Row {
    row(name, code, says, move |place| {
        place.put("source/artifact-index.json", text())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    let mut rows = Vec::new();
    rows.extend(bytes("empty", Vec::clear));
    rows.extend(bytes("cut in half", |bytes| {
        bytes.truncate(bytes.len() / 2)
    }));
    rows.extend(bytes("without its last byte", |bytes| {
        bytes.truncate(bytes.len() - 1)
    }));
    rows.extend(bytes("with another first bit", |bytes| bytes[0] ^= 0x80));
    rows.extend(bytes("with another byte", |bytes| {
        let at = bytes.len() / 2;
        bytes[at] ^= 0x80;
    }));
    rows.extend(bytes("with a byte more", |bytes| bytes.push(b'}')));
    let missing = each("missing", |_| 4, |path| std::fs::remove_file(path).unwrap());
    rows.extend(missing.into_iter().map(|mut row| {
        // An archive without an index is an empty one.
        row.says[1] = row.says[1].replace("artifact-index.json", "no `1.0.0`");
        row
    }));
    rows.extend(each(
        "is a folder",
        |_| 3,
        |path| {
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(path).unwrap();
        },
    ));
    rows.extend(each(
        "is a link",
        |_| 3,
        |path| {
            std::fs::remove_file(&path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        },
    ));
    rows.extend(each(
        "is a link to nothing",
        |_| 3,
        |path| {
            std::fs::remove_file(&path).unwrap();
            symlink("nowhere", path).unwrap();
        },
    ));
    rows.extend(each(
        "is a link to zeros without end",
        |_| 3,
        |path| {
            std::fs::remove_file(&path).unwrap();
            symlink("/dev/zero", path).unwrap();
        },
    ));
    rows.extend(each(
        "is a pipe",
        |_| 3,
        |path| {
            std::fs::remove_file(&path).unwrap();
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        },
    ));
    rows.extend(each(
        "is a tebibyte long",
        |file| {
            if matches!(file, Index | Manifest) {
                1
            } else {
                5
            }
        },
        |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(1 << 40).unwrap();
        },
    ));
    super::check("archive files", 60, rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_they_say() {
    super::check("archive contents", 30, vec![
        entries("an entry twice", 0, &[], |entry| vec![entry.clone()]),
        entries("a tag twice", 3, &["1.0.0", "artifact-index.json"], |entry| {
            let mut other = entry.clone();
            other["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
            vec![other]
        }),
        entries("an entry for nothing", 0, &[], |_| vec![
            json!({"repository": "other/thing", "tag": "1", "digest": format!("sha256:{}", "0".repeat(64))}),
        ]),
        entries("100,000 entries for nothing", 0, &[], |_| (0..100_000).map(|n| {
            json!({"repository": format!("r{n}"), "tag": "1", "digest": format!("sha256:{:064x}", n)})
        }).collect()),
        entries("an entry that is none", 3, &["artifact-index.json"], |_| vec![json!(5)]),
        entries("an entry that is null", 3, &["artifact-index.json"], |_| vec![json!(null)]),
        entry("a digest that leads out", 3, &["artifact-index.json", "digest"], |it| it["digest"] = json!("sha256:../../../../etc/passwd")),
        entry("a digest of another algorithm", 3, &["artifact-index.json", "digest"], |it| it["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
        entry("a digest that is short", 3, &["artifact-index.json", "digest"], |it| it["digest"] = json!("sha256:00")),
        entry("a digest in capitals", 4, &["sha256:aaaa"], |it| it["digest"] = json!(format!("sha256:{}", "A".repeat(64)))),
        entry("a digest that is a list", 3, &["artifact-index.json"], |it| it["digest"] = json!([])),
        entry("no digest", 3, &["artifact-index.json", "digest"], |it| { it.as_object_mut().unwrap().remove("digest"); }),
        entry("no repository", 3, &["artifact-index.json", "repository"], |it| { it.as_object_mut().unwrap().remove("repository"); }),
        entry("a repository that leads out", 4, &["acme.org/demo"], |it| it["repository"] = json!("../../etc")),
        entry("a tag that leads out", 4, &["acme.org/demo"], |it| it["tag"] = json!("../../../1.0.0")),
        entry("the digest of the content", 3, &["acme.org/demo"], |it| it["digest"] = json!(ocm_specs::Digest::sha256("level: info\n".repeat(20).as_bytes()).to_string())),
        entry("a media type of something else", 0, &[], |it| it["mediaType"] = json!("text/plain")),
        entry("a media type of an index", 5, &["acme.org/demo"], |it| it["mediaType"] = json!("application/vnd.oci.image.index.v1+json")),
        entry("a digest that is nowhere", 4, &["sha256:0000"], |it| it["digest"] = json!(format!("sha256:{}", "0".repeat(64)))),
        index_text("an index that is a list", 3, &["artifact-index.json"], || "[]".into()),
        index_text("an index that is null", 3, &["artifact-index.json"], || "null".into()),
        index_text("an index without a version", 3, &["artifact-index.json", "schemaVersion"], || r#"{"artifacts":[]}"#.into()),
        index_text("an index of version 2", 3, &["artifact-index.json", "2"], || r#"{"schemaVersion":2,"artifacts":[]}"#.into()),
        index_text("an index that is deep", 3, &["artifact-index.json"], || format!(r#"{{"schemaVersion":1,"artifacts":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000))),
        index_text("unknown values that are deep", 4, &["acme.org/demo"], || format!(r#"{{"schemaVersion":1,"artifacts":[],"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000))),
        index_text("an index of 65 MiB", 1, &["artifact-index.json", "larger"], || " ".repeat(65 << 20)),
        index_text("a million entries that are none", 3, &["artifact-index.json"], || format!(r#"{{"schemaVersion":1,"artifacts":[{}{{}}]}}"#, "{},".repeat(1_000_000))),
        index_text("a version that is a text", 3, &["artifact-index.json"], || r#"{"schemaVersion":"1","artifacts":[]}"#.into()),
        manifest("a config that is nowhere", 4, &["sha256:0000"], |it| it["config"]["digest"] = json!(format!("sha256:{}", "0".repeat(64)))),
        manifest("a config that leads out", 3, &["acme.org/demo"], |it| it["config"]["digest"] = json!("sha256:../../../../etc/passwd")),
        manifest("a config of another size", 5, &["sha256:"], |it| it["config"]["size"] = json!(1)),
        manifest("a config of a negative size", 3, &["acme.org/demo"], |it| it["config"]["size"] = json!(-1)),
        manifest("a config of every size", 1, &["acme.org/demo"], |it| it["config"]["size"] = json!(u64::MAX)),
        manifest("content of another size", 5, &["sha256:"], |it| it["layers"][1]["size"] = json!(1)),
        manifest("content of every size", 5, &["sha256:"], |it| it["layers"][1]["size"] = json!(i64::MAX)),
        manifest("no layers", 4, &["acme.org/demo", "has no layer"], |it| it["layers"] = json!([])),
        manifest("layers that are a text", 3, &["acme.org/demo"], |it| it["layers"] = json!("x")),
        manifest("layers that are deep", 3, &["acme.org/demo"], |it| {
            let mut deep = json!(1);
            for _ in 0..110 { deep = json!([deep]); }
            it["layers"] = deep;
        }),
        manifest("40,000 layers", 1, &["acme.org/demo"], |it| {
            let one = it["layers"][0].clone();
            it["layers"] = json!(vec![one; 40_000]);
        }),
        manifest("a manifest and an index in one", 3, &["acme.org/demo"], |it| it["manifests"] = it["layers"].clone()),
        manifest("a media type that contradicts", 5, &["acme.org/demo"], |it| it["mediaType"] = json!("application/vnd.oci.image.index.v1+json")),
        manifest("a manifest of the future", 1, &["acme.org/demo", "schema version is 3"], |it| it["schemaVersion"] = json!(3)),
        row("a descriptor of which all is deep", 3, &["acme.org/demo"], |place| {
            crate::bad_input::swap_descriptor(place, |_| format!("{{\"meta\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000)));
        }),
        row("a descriptor that is a bomb", 3, &["acme.org/demo"], |place| {
            crate::bad_input::swap_descriptor(place, |_| {
                let mut text = String::from("{a0: &a0 [x, x, x, x, x, x, x, x, x, x], ");
                for level in 1..12 {
                    text.push_str(&format!("a{level}: &a{level} [{}], ", format!("*a{}, ", level - 1).repeat(10)));
                }
                text + "z: 1}"
            });
        }),
        row("a descriptor whose content is another's", 5, &["sha256:"], |place| {
            forge(place, CONF, |bytes| bytes.reverse());
        }),
    ])
    .await;
}
