//! Tars and compressed tars: names that lead out, links, devices, lies about sizes, bombs. Read as a CTF and as an OCI layout.

use std::sync::Arc;

use ocm_specs::Digest;
use ocm_testdata::fixtures::gzip;
use serde_json::json;

use crate::bad_input::{COPY, Row, TRANSFER, localize, row};
use crate::place::{Place, tree};

const FILE: u8 = b'0';
/// More than may be unpacked of anything.
const BOMB: u64 = 1100 << 20;

/// Exit codes of both forms: the archive is good, or invalid.
const GOOD: [i32; 2] = [0, 0];
const BAD: [i32; 2] = [3, 3];

/// An entry of a tar: name, type, content.
type Entry = (String, u8, Vec<u8>);

fn entry(name: &str, kind: u8, content: impl Into<Vec<u8>>) -> Entry {
    (name.to_owned(), kind, content.into())
}

fn header(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    // By hand: the library refuses the names that this is about.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut out = body_of(entries);
    out.resize(out.len() + 1024, 0);
    out
}

/// Entries without the end of a tar.
fn body_of(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, content) in entries {
        out.extend(header(name, *kind, content.len() as u64, ""));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out
}

/// A pax record; its length counts its own digits.
fn pax(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).map(|digits| rest + digits);
    let length = length
        .zip(1..)
        .find(|(length, digits)| length.to_string().len() == *digits);
    format!("{} {key}={value}\n", length.unwrap().0).into_bytes()
}

/// Changes the header at an offset and puts its checksum right.
fn patch(tar: &mut [u8], at: usize, change: impl FnOnce(&mut [u8])) {
    change(&mut tar[at..at + 512]);
    let mut fixed = tar::Header::from_byte_slice(&tar[at..at + 512]).clone();
    fixed.set_cksum();
    tar[at..at + 512].copy_from_slice(fixed.as_bytes());
}

/// What an archive is made of, and how it is read.
#[derive(Clone, Copy)]
enum Form {
    Ctf,
    Layout,
}

/// Reads an image out of an OCI layout.
const LAYOUT: &str = "\
transformations:
- id: get
  type: localblob.to.oci/v1alpha1
  spec: {data: {uri: source.tar, mediaType: application/vnd.ocm.software.oci.layout.v1+tar}}
- id: add
  type: CTFAddLocalResource/v1alpha1
  spec: {repository: {type: ctf, filePath: ./target}, component: acme.org/demo, version: 1.0.0, resource: {name: image, version: 1.0.0, type: ociImage, relation: local}, file: '${get.output.data}'}
- id: put
  type: CTFAddComponentVersion/v1alpha1
  spec:
    repository: {type: ctf, filePath: ./target}
    descriptor:
      meta: {schemaVersion: v2}
      component: {name: acme.org/demo, version: 1.0.0, provider: acme.org, repositoryContexts: [], sources: [], componentReferences: [], resources: ['${add.output.resource}']}
";

impl Form {
    fn entries(self, place: &Place) -> Vec<Entry> {
        match self {
            Self::Ctf => tree(&place.path("source"))
                .into_iter()
                .map(|(path, bytes)| entry(&path.display().to_string(), FILE, bytes))
                .collect(),
            Self::Layout => layout(),
        }
    }

    fn spec(self) -> String {
        match self {
            Self::Ctf => COPY.replace("./source", "./source.tar"),
            Self::Layout => LAYOUT.to_owned(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ctf => "CTF",
            Self::Layout => "layout",
        }
    }
}

/// An image of one layer.
fn layout() -> Vec<Entry> {
    layout_of(b"layer".to_vec())
}

fn layout_of(layer: Vec<u8>) -> Vec<Entry> {
    let config = b"{}".to_vec();
    let link = |media_type: &str, bytes: &[u8]| json!({"mediaType": media_type, "digest": Digest::sha256(bytes).to_string(), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": link("application/vnd.oci.image.config.v1+json", &config), "layers": [link("application/vnd.oci.image.layer.v1.tar", &layer)]});
    let manifest = manifest.to_string().into_bytes();
    let index = json!({"schemaVersion": 2, "manifests": [link("application/vnd.oci.image.manifest.v1+json", &manifest)]});
    let mut entries = vec![
        entry("oci-layout", FILE, r#"{"imageLayoutVersion":"1.0.0"}"#),
        entry("index.json", FILE, index.to_string()),
    ];
    for bytes in [config, layer, manifest] {
        let name = format!("blobs/sha256/{}", Digest::sha256(&bytes).hex());
        entries.push(entry(&name, FILE, bytes));
    }
    entries
}

/// A row per form: the archive is made of its good entries.
fn both(
    name: &str,
    codes: [i32; 2],
    says: &[&str],
    make: impl Fn(Vec<Entry>) -> Vec<u8> + Send + Sync + 'static,
) -> Vec<Row> {
    let make = Arc::new(make);
    [(Form::Ctf, codes[0]), (Form::Layout, codes[1])]
        .map(|(form, code)| {
            let make = make.clone();
            one(form, name, code, says, move |entries| make(entries))
        })
        .into()
}

fn one(
    form: Form,
    name: &str,
    code: i32,
    says: &[&str],
    make: impl Fn(Vec<Entry>) -> Vec<u8> + Send + Sync + 'static,
) -> Row {
    let says: Vec<&str> = ["step `"]
        .into_iter()
        .filter(|_| code != 0)
        .chain(says.iter().copied())
        .collect();
    row(
        format!("{name}: {}", form.name()),
        code,
        &says,
        move |place| {
            let bytes = make(form.entries(place));
            place.put("source.tar", bytes);
            place.put("spec.yaml", form.spec());
        },
    )
}

/// A small archive with a large file behind its good entries: [`BOMB`] bytes of zeros.
fn bomb(name: &str, entries: &[Entry]) -> Vec<u8> {
    let start = [body_of(entries), header(name, FILE, BOMB, "")].concat();
    [gzip(&start).to_vec(), gzip(&vec![0; 50 << 20]).repeat(22)].concat()
}

/// Bombs that are called a blob, are a layer, lie in another archive or are changed on the way.
fn bombs() -> Vec<Row> {
    let hex = Digest::sha256(b"nobody's").hex().to_owned();
    let blob = [format!("blobs/sha256.{hex}"), format!("blobs/sha256/{hex}")];
    let mut rows = both(
        "a bomb of zeros that nobody asked for",
        [1, 1],
        &[],
        |entries| bomb("README", &entries),
    );
    for (form, name) in [Form::Ctf, Form::Layout].into_iter().zip(blob) {
        let says = ["1073741824", "--unpack-limit"];
        let named = name.clone();
        rows.push(one(
            form,
            "a bomb that is called a blob",
            1,
            &says,
            move |entries| bomb(&named, &entries),
        ));
        let says = ["67108864", "--unpack-limit"];
        let small = one(
            form,
            "a bomb where less is allowed",
            1,
            &says,
            move |entries| bomb(&name, &entries),
        );
        rows.push(allowed_less(small));
        let says = ["budget for temporary files", "--temp-limit"];
        let mut kept = one(
            form,
            "more than temporary files may hold",
            1,
            &says,
            move |mut entries| {
                let name = format!("blobs/sha256.{}", "0".repeat(64));
                entries.push(entry(&name, FILE, vec![1; 4 << 20]));
                gzip(&tar_of(&entries)).to_vec()
            },
        );
        kept.arguments = [TRANSFER, &["--temp-limit", "1MiB"]].concat();
        rows.push(kept);
    }
    // What nobody unpacks is as small as it looks.
    let layer = bomb("zeros", &[]);
    let inside = layout_of(layer.clone());
    let (plain, twice) = (tar_of(&inside), gzip(&tar_of(&inside)).to_vec());
    rows.push(one(
        Form::Layout,
        "a bomb inside a layer",
        0,
        &[],
        move |_| plain.clone(),
    ));
    rows.push(one(Form::Layout, "a tgz in a tgz", 0, &[], move |_| {
        twice.clone()
    }));
    rows.extend(both("a bomb compressed twice", BAD, &[], |entries| {
        gzip(&bomb("README", &entries)).to_vec()
    }));
    let says = ["step `", "67108864", "--unpack-limit"];
    rows.push(allowed_less(row(
        "a bomb that is localized",
        1,
        &says,
        move |place| {
            place.put("data.tgz", &layer);
            place.put("spec.yaml", localize("*.yaml", "a"));
        },
    )));
    rows
}

/// The same where 64 MiB may always be unpacked, for speed.
fn allowed_less(mut row: Row) -> Row {
    row.arguments = [TRANSFER, &["--unpack-limit", "64MiB"]].concat();
    row
}

/// One more entry behind the good ones.
fn more(name: &str, says: &[&str], kind: u8, path: &str, content: impl Into<Vec<u8>>) -> Vec<Row> {
    let last = entry(path, kind, content);
    both(name, BAD, says, move |mut entries| {
        entries.push(last.clone());
        tar_of(&entries)
    })
}

/// One more entry behind the good ones, with an extended header in front.
fn extended(name: &str, codes: [i32; 2], says: &[&str], kind: u8, header: Vec<u8>) -> Vec<Row> {
    both(name, codes, says, move |mut entries| {
        entries.push(entry("extended", kind, header.clone()));
        entries.push(entry("blobs/x", FILE, "content"));
        tar_of(&entries)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tars() {
    let mut rows = Vec::new();
    rows.extend(both("good", GOOD, &[], |entries| tar_of(&entries)));
    rows.extend(both("good and compressed", GOOD, &[], |entries| {
        gzip(&tar_of(&entries)).to_vec()
    }));
    rows.extend(both("in members", GOOD, &[], |entries| {
        let tar = tar_of(&entries);
        let (one, two) = tar.split_at(700);
        [gzip(one), gzip(two)].concat()
    }));

    for (name, path) in [
        ("up", "../evil"),
        ("up below", "blobs/../../evil"),
        ("up at the end", "blobs/.."),
        ("absolute", "/etc/passwd"),
        ("a drive", "C:/evil"),
        ("backslashes", "..\\evil"),
    ] {
        rows.extend(more(name, &["out"], FILE, path, "x"));
    }
    for (name, path) in [
        ("line breaks", "blobs/a\nb"),
        ("escapes", "blobs/a\u{1b}[31mb"),
    ] {
        rows.extend(more(name, &["a"], FILE, path, "x"));
    }
    rows.extend(extended(
        "a zero byte in a name",
        BAD,
        &[],
        b'x',
        pax("path", "blobs/a\0b"),
    ));
    rows.extend(extended(
        "up by an extended name",
        BAD,
        &["out"],
        b'x',
        pax("path", "../../evil"),
    ));
    rows.extend(extended(
        "up by a long name",
        BAD,
        &["out"],
        b'L',
        b"../../evil\0".to_vec(),
    ));
    rows.extend(extended(
        "a name of 100,000 bytes",
        [3, 1],
        &[],
        b'L',
        vec![b'a'; 100_000],
    ));
    rows.extend(extended(
        "10,000 folders deep",
        [3, 1],
        &[],
        b'L',
        b"a/".repeat(10_000),
    ));

    for (name, kind) in [
        ("a link", b'2'),
        ("a hard link", b'1'),
        ("a character device", b'3'),
        ("a block device", b'4'),
        ("a pipe", b'6'),
        ("a volume", b'V'),
        ("a part of a file", b'M'),
        ("nothing known", b'Z'),
    ] {
        rows.extend(more(name, &[], kind, "blobs/x", ""));
    }
    rows.extend(both("a sparse file", [3, 1], &["sparse"], |mut entries| {
        entries.push(entry("blobs/x", b'S', ""));
        tar_of(&entries)
    }));
    rows.extend(both("an index that is a link", BAD, &[], |mut entries| {
        let at = entries
            .iter()
            .position(|(name, ..)| name.ends_with("index.json"))
            .unwrap();
        let link = header(&entries[at].0, b'2', 0, "/etc/passwd");
        entries.remove(at);
        [link, tar_of(&entries)].concat()
    }));
    rows.extend(extended(
        "sparse by an extended header",
        [3, 1],
        &["sparse"],
        b'x',
        pax("GNU.sparse.major", "1"),
    ));
    rows.extend(extended(
        "a size for ever",
        BAD,
        &[],
        b'x',
        pax("size", "9223372036854775807"),
    ));
    rows.extend(extended(
        "a size beyond",
        BAD,
        &[],
        b'x',
        pax("size", "18446744073709551615"),
    ));
    rows.extend(extended(
        "a size below zero",
        BAD,
        &[],
        b'x',
        pax("size", "-1"),
    ));
    rows.extend(extended(
        "a size that is none",
        BAD,
        &[],
        b'x',
        pax("size", "many"),
    ));
    rows.extend(extended(
        "a record beyond its header",
        BAD,
        &[],
        b'x',
        b"99 path=x\n".to_vec(),
    ));
    rows.extend(extended(
        "a record of no length",
        BAD,
        &[],
        b'x',
        b"0 path=x\n".to_vec(),
    ));
    rows.extend(extended(
        "a record without an end",
        BAD,
        &[],
        b'x',
        vec![b'9'; 300],
    ));
    rows.extend(both(
        "an extended header of 4 GiB",
        [3, 1],
        &[],
        |entries| [body_of(&entries), header("x", b'x', 4 << 30, "")].concat(),
    ));
    rows.extend(both(
        "extended headers without end",
        BAD,
        &[],
        |mut entries| {
            entries.extend((0..5_000).map(|_| entry("x", b'x', vec![b' '; 1000])));
            tar_of(&entries)
        },
    ));

    rows.extend(both("an entry twice", BAD, &[], |mut entries| {
        entries.push(entries[0].clone());
        tar_of(&entries)
    }));
    rows.extend(both("a blob twice", BAD, &[], |mut entries| {
        let mut last = entries.last().unwrap().clone();
        last.0 = format!("./{}", last.0);
        entries.push(last);
        tar_of(&entries)
    }));
    rows.extend(both(
        "an index in other case besides",
        GOOD,
        &[],
        |mut entries| {
            entries.push(entry("INDEX.JSON", FILE, "{}"));
            entries.push(entry("Artifact-Index.json", FILE, "{}"));
            tar_of(&entries)
        },
    ));
    rows.extend(both("a blob in capitals", [4, 0], &[], |mut entries| {
        for (name, _, bytes) in &mut entries {
            if bytes.ends_with(b"level: info\n") || bytes == b"layer" {
                *name = name.replace("sha256", "SHA256");
            }
        }
        tar_of(&entries)
    }));

    rows.extend(both("cut in a header", BAD, &[], |entries| {
        let body = body_of(&entries);
        let mut cut = body.clone();
        cut.extend(&header("blobs/x", FILE, 5, "")[..300]);
        cut
    }));
    rows.extend(both("cut in content", BAD, &[], |entries| {
        [
            body_of(&entries),
            header("blobs/x", FILE, 5000, ""),
            vec![0; 700],
        ]
        .concat()
    }));
    rows.extend(both("a tebibyte announced", BAD, &[], |entries| {
        [
            body_of(&entries),
            header("blobs/x", FILE, 1 << 40, ""),
            vec![0; 700],
        ]
        .concat()
    }));
    rows.extend(both("another bit in a header", BAD, &[], |entries| {
        let mut tar = tar_of(&entries);
        tar[3] ^= 1;
        tar
    }));
    rows.extend(both("a size that is no number", BAD, &[], |entries| {
        let mut tar = tar_of(&entries);
        patch(&mut tar, 0, |header| header[124..136].fill(b'z'));
        tar
    }));
    rows.extend(both("a size below zero in binary", BAD, &[], |entries| {
        let mut tar = tar_of(&entries);
        patch(&mut tar, 0, |header| header[124..136].fill(0xff));
        tar
    }));
    rows.extend(both("nothing", BAD, &[], |_| Vec::new()));
    rows.extend(both("zeros", BAD, &[], |_| vec![0; 10_240]));
    rows.extend(both("text", BAD, &[], |_| {
        b"I am no archive. ".repeat(1000)
    }));
    rows.extend(both("no index", BAD, &["index"], |entries| {
        let rest: Vec<Entry> = entries
            .into_iter()
            .filter(|(name, ..)| !name.ends_with("index.json"))
            .collect();
        tar_of(&rest)
    }));
    rows.extend(both("something behind the end", GOOD, &[], |entries| {
        [tar_of(&entries), b"junk".repeat(1000)].concat()
    }));

    rows.extend(both("compressed and cut", BAD, &[], |entries| {
        let whole = gzip(&tar_of(&entries));
        whole[..whole.len() / 2].to_vec()
    }));
    rows.extend(both("compressed with another bit", BAD, &[], |entries| {
        let mut whole = gzip(&tar_of(&entries)).to_vec();
        let at = whole.len() - 6;
        whole[at] ^= 1;
        whole
    }));
    rows.extend(both("compressed with junk behind", BAD, &[], |entries| {
        [gzip(&tar_of(&entries)).to_vec(), b"junk".to_vec()].concat()
    }));
    rows.extend(both("compressed twice", BAD, &[], |entries| {
        gzip(&gzip(&tar_of(&entries))).to_vec()
    }));
    rows.extend(bombs());
    rows.extend(both("a million entries", [1, 1], &[], |entries| {
        let one = header("x", b'5', 0, "").repeat(10_000);
        [gzip(&body_of(&entries)).to_vec(), gzip(&one).repeat(110)].concat()
    }));
    super::check("archives", 60, rows).await;
}
