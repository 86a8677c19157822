//! Archives with values set, compared byte for byte with archives built from the expected files.

use std::io::Write;

use ::tar::{Builder, EntryType, Header};
use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use futures::TryStreamExt;
use ocm_content::ErrorKind;
use serde_json::json;

use super::*;
use crate::testing::{content, run, surroundings};

const VALUES: &str =
    "# values\nimage:\n  repository: 'ghcr.io/acme/x'  # here\n  tag: \"1.0\"\nreplicas: 2\n";
const LOCAL: &str =
    "# values\nimage:\n  repository: 'local/x'  # here\n  tag: \"1.0\"\nreplicas: 2\n";

/// Bytes in pieces of a size, re-openable or not.
#[derive(Debug)]
struct Pieces {
    bytes: Bytes,
    size: usize,
    once: bool,
    opened: std::sync::atomic::AtomicUsize,
}

impl Source for Pieces {
    fn open(&self, _: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        let count = self
            .opened
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if self.once && count > 0 {
            return Box::pin(async { Err(Error::new(ErrorKind::Consumed, "opened again")) });
        }
        let pieces: Vec<_> = self
            .bytes
            .chunks(self.size)
            .map(|it| Ok(Bytes::copy_from_slice(it)))
            .collect();
        Box::pin(async move { Ok(stream::iter(pieces).boxed()) })
    }

    fn access(&self) -> Access {
        if self.once {
            Access::Once
        } else {
            Access::Reopenable
        }
    }
}

fn pieces(bytes: &[u8], size: usize, once: bool) -> Blob {
    let bytes = Bytes::copy_from_slice(bytes);
    Blob::new(
        "application/x",
        Arc::new(Pieces {
            bytes,
            size,
            once,
            opened: 0.into(),
        }),
    )
}

fn spec(file: Option<&str>) -> Json {
    let mappings = json!([{"path": "image.repository", "value": "local/x"}]);
    match file {
        Some(file) => json!({"file": file, "mappings": mappings}),
        None => json!({"mappings": mappings}),
    }
}

/// The output blob of a localization.
async fn localized(input: Blob, mut spec: Json) -> Result<Blob, StepError> {
    let cx = surroundings("localization1");
    spec["data"] = json!(cx.sibling("source").offer("data", input));
    let output = run(&cx, Localize::TYPE, spec).await?;
    match content(&cx, &output["data"]).await {
        Content::Blob(blob) => Ok(blob),
        other => panic!("{other:?}"),
    }
}

async fn bytes(input: &[u8], size: usize, spec: Json) -> Result<Bytes, Error> {
    let blob = localized(pieces(input, size, false), spec)
        .await
        .map_err(|it| it.error)?;
    blob.read(1 << 24).await
}

/// A file of an archive to be built: path, content, and how its header is written.
type File<'a> = (&'a str, &'a str, fn(&mut Builder<Vec<u8>>, &str, &str));

fn ustar(builder: &mut Builder<Vec<u8>>, path: &str, content: &str) {
    append(builder, Header::new_ustar(), path, content);
}

fn gnu(builder: &mut Builder<Vec<u8>>, path: &str, content: &str) {
    append(builder, Header::new_gnu(), path, content);
}

fn append(builder: &mut Builder<Vec<u8>>, mut header: Header, path: &str, content: &str) {
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    header.set_mtime(1_700_000_000);
    if path.ends_with('/') {
        header.set_entry_type(EntryType::Directory);
    }
    builder
        .append_data(&mut header, path, content.as_bytes())
        .expect("appends");
}

/// Path and size in PAX records, another one between them; the header's own path is cut.
fn pax(builder: &mut Builder<Vec<u8>>, path: &str, content: &str) {
    let size = content.len().to_string();
    builder
        .append_pax_extensions([
            ("path", path.as_bytes()),
            ("comment", b"x"),
            ("size", size.as_bytes()),
        ])
        .expect("appends");
    append(builder, Header::new_ustar(), "cut", content);
}

fn link(builder: &mut Builder<Vec<u8>>, path: &str, target: &str) {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder
        .append_link(&mut header, path, target)
        .expect("appends");
}

fn archive_of(files: &[File<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content, write) in files {
        write(&mut builder, path, content);
    }
    let mut bytes = builder.into_inner().expect("ends");
    bytes.extend_from_slice(&[0; 8192]); // what GNU tar fills its records with
    bytes
}

fn compressed_of(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new()
        .mtime(77)
        .filename("chart.tar")
        .write(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
    std::io::Read::read_to_end(&mut decoder, &mut plain).expect("decompresses");
    plain
}

const LONG: &str = "chart/a-directory-with-a-name-that-is-longer-than-the-hundred-bytes-of-a-header/of-which-there-are-too-few/values.yaml";

/// An archive in all dialects; `values` is what the matching files hold.
fn chart(values: &str) -> Vec<u8> {
    let long = "x".repeat(40_000);
    archive_of(&[
        ("chart/", "", ustar),
        ("chart/Chart.yaml", "name: chart\n", gnu),
        ("chart/link.yaml", "values.yaml", link),
        ("chart/templates/x.yaml", &long, ustar),
        ("./chart/values.yaml", values, gnu),
        ("chart/charts/sub/values.yaml", VALUES, ustar),
        (LONG, VALUES, gnu),
        ("other/values.yaml", values, pax),
        ("third/values.yaml", values, ustar),
        ("chart/empty", "", ustar),
    ])
}

#[tokio::test]
async fn only_the_files_asked_for_change_in_every_dialect_of_tar() {
    let (input, expected) = (chart(VALUES), chart(LOCAL));
    for size in [1, 7, 512, 1000, 1 << 20] {
        let found = bytes(&input, size, spec(Some("*/values.yaml")))
            .await
            .expect("edits");
        assert!(found == expected, "pieces of {size} bytes");
    }
    let compressed = bytes(&compressed_of(&input), 1000, spec(Some("*/values.yaml")))
        .await
        .expect("edits");
    assert!(gunzip(&compressed) == expected);
    assert_eq!(
        compressed[..10],
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255],
        "reproducible"
    );
    let again = bytes(&compressed_of(&input), 9, spec(Some("*/values.yaml")))
        .await
        .expect("edits");
    assert!(compressed == again, "the same for any pieces");
}

#[tokio::test]
async fn long_names_and_depth_are_matched() {
    let deep =
        |values: &str| archive_of(&[("a/b/c/values.yaml", values, ustar), (LONG, values, gnu)]);
    let found = bytes(&deep(VALUES), 512, spec(Some("**/values.yaml")))
        .await
        .expect("edits");
    assert!(found == deep(LOCAL));
}

#[tokio::test]
async fn edits_that_change_nothing_give_the_input() {
    for input in [chart(LOCAL), compressed_of(&chart(LOCAL))] {
        let found = bytes(&input, 1000, spec(Some("*/values.yaml")))
            .await
            .expect("passes");
        assert!(found == input);
        let mut missing = spec(Some("none"));
        missing["allowMissing"] = json!(true);
        assert!(bytes(&input, 1000, missing).await.expect("passes") == input);
    }
}

#[tokio::test]
async fn a_document_needs_no_archive() {
    let found = bytes(VALUES.as_bytes(), 10, spec(None))
        .await
        .expect("edits");
    assert_eq!(found, LOCAL);
    let mut create = spec(None);
    create["mappings"] =
        json!([{"path": "image.digest", "value": null}, {"path": "replicas", "value": 3}]);
    create["create"] = json!(true);
    let found = bytes(VALUES.as_bytes(), 10, create).await.expect("edits");
    assert_eq!(
        found,
        VALUES
            .replace("\"1.0\"\n", "\"1.0\"\n  digest: null\n")
            .replace('2', "3")
    );
}

#[tokio::test]
async fn what_can_be_read_once_is_localized_once() {
    for (input, expected) in [
        (chart(VALUES), chart(LOCAL)),
        (compressed_of(&chart(VALUES)), chart(LOCAL)),
    ] {
        let is_gzip = input.starts_with(&MAGIC);
        let blob = localized(pieces(&input, 1000, true), spec(Some("*/values.yaml")))
            .await
            .expect("runs");
        assert_eq!(blob.access(), Access::Once);
        let found = blob.read(1 << 24).await.expect("reads");
        let found = if is_gzip {
            gunzip(&found)
        } else {
            found.to_vec()
        };
        assert!(found == expected);
        let error = blob.read(1 << 24).await.expect_err("read already");
        assert_eq!(error.kind(), ErrorKind::Consumed);
    }
}

#[tokio::test]
async fn the_output_is_opened_again_at_any_offset() {
    let input = compressed_of(&chart(VALUES));
    let blob = localized(pieces(&input, 1000, false), spec(Some("*/values.yaml")))
        .await
        .expect("runs");
    assert_eq!(blob.access(), Access::Reopenable);
    let whole = blob.read(1 << 24).await.expect("reads");
    for offset in [0, 1, 300, whole.len()] {
        let part: Vec<Bytes> = blob
            .open_at(offset as u64)
            .await
            .expect("opens")
            .try_collect()
            .await
            .expect("reads");
        assert_eq!(part.concat(), whole[offset..]);
    }
}

#[tokio::test]
async fn mistakes_are_told() {
    let tar = chart(VALUES);
    let template = archive_of(&[("c/values.yaml", "image: {{ .x }}\n", ustar)]);
    let mut odd = tar.clone();
    odd[0] ^= 1;
    let cut = &tar[..tar.len() - 12_000];
    for (input, spec, part) in [
        (
            tar.as_slice(),
            spec(Some("*.yaml")),
            "no file of the archive matches `*.yaml`",
        ),
        (
            &compressed_of(&tar),
            spec(Some("*.yaml")),
            "no file of the archive matches",
        ),
        (
            &tar,
            spec(Some("*/Chart.yaml")),
            "file `chart/Chart.yaml`: image",
        ),
        (
            &template,
            spec(Some("*/values.yaml")),
            "file `c/values.yaml`: ",
        ),
        (&odd, spec(Some("*/values.yaml")), "no tar archive"),
        (b"text", spec(Some("*/values.yaml")), "no tar archive"),
        (b"", spec(Some("*/values.yaml")), "no tar archive"),
        (cut, spec(Some("*/values.yaml")), "it is cut off"),
        (
            &compressed_of(&tar)[..300],
            spec(Some("*/values.yaml")),
            "gzip",
        ),
        (&tar, spec(None), "nothing says which file"),
        (&compressed_of(&tar), spec(None), "nothing says which file"),
        (b"\xff", spec(None), "no UTF-8"),
        (&tar, spec(Some("[")), "`[` is no pattern"),
        (
            &tar,
            json!({"mappings": [{"path": "a..b", "value": 1}]}),
            "path `a..b`",
        ),
        (
            &tar,
            json!({"mappings": [{"path": "a", "value": []}]}),
            "no single value",
        ),
    ] {
        let error = bytes(input, 1000, spec.clone()).await.expect_err(part);
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
}

/// Any bytes behind a valid header end in a result, never in a panic.
#[tokio::test]
async fn damaged_archives_end() {
    let tar = chart(VALUES);
    let mut seed = 1u64;
    for _ in 0..300 {
        let mut bad = tar[..6_000].to_vec();
        for _ in 0..8 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bad.len();
            bad[at] = (seed >> 20) as u8;
        }
        for block in bad.chunks_exact_mut(512) {
            if block.get(257..262) == Some(b"ustar".as_slice()) {
                let mut header = Header::from_byte_slice(block).clone();
                header.set_cksum();
                block.copy_from_slice(header.as_bytes());
            }
        }
        let _ = bytes(&bad, 1000, spec(Some("**"))).await;
    }
}
