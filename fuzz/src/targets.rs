//! What is fuzzed: every reader of what others wrote. A target must take any bytes without a panic, and hold what it claims.
//!
//! A test of the command line replays the corpus through these same functions with the usual compiler.

#[cfg(feature = "wasm")]
mod plugin;

use bytes::Bytes;
use ocm_content::RawManifest;
use ocm_content::tarball::{TarEvent, TarReader, TarWriter};
use ocm_engine::language::{Template, scan};
use ocm_repository::credentials::{DockerConfig, Helpers};
use ocm_repository::ctf::Index;
use ocm_repository::oci::headers;
use ocm_specs::Algorithm;
use ocm_specs::RepositorySpec;
use ocm_specs::descriptor::{ComponentDescriptor, Encoding};
use ocm_specs::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML};
use ocm_specs::normalisation::Normalisation;
use ocm_specs::oci::Manifest;
use ocm_specs::reference::{ComponentReference, OciReference};
use ocm_specs::yaml::{LoadOptions, Source, load, load_all, to_string};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("content_range", content_range),
    ("ctf_index", ctf_index),
    ("descriptor", descriptor),
    ("docker_config", docker_config),
    ("expression", expression),
    ("link", link),
    ("oci_manifest", oci_manifest),
    #[cfg(feature = "wasm")]
    ("plugin_host", plugin::plugin_host),
    #[cfg(feature = "wasm")]
    ("plugin_rights", plugin::plugin_rights),
    #[cfg(feature = "wasm")]
    ("plugin_schema", plugin::plugin_schema),
    ("reference", reference),
    ("retry_after", retry_after),
    ("tar", tar),
    ("www_authenticate", www_authenticate),
    ("yaml", yaml),
];

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// A component descriptor in any encoding: what was read is written as it was, written anew it says the same, and its
/// digests do not depend on the encoding.
fn descriptor(data: &[u8]) {
    let tar = Encoding::YamlTar.media_type();
    for media_type in [DESCRIPTOR_JSON, DESCRIPTOR_YAML, tar] {
        let Ok(read) = ComponentDescriptor::decode(media_type, data.to_vec()) else {
            continue;
        };
        let fresh = ComponentDescriptor::from_value(read.document().clone()).expect("it was one");
        for encoding in [Encoding::Json, Encoding::Yaml, Encoding::YamlTar] {
            let written = fresh.encode(encoding);
            let again = ComponentDescriptor::decode(&written.media_type, written.bytes.to_vec());
            let again = again.expect("what is written can be read");
            for normalisation in Normalisation::ALL {
                assert_eq!(
                    normalisation.digest(&again, Algorithm::Sha256),
                    normalisation.digest(&fresh, Algorithm::Sha256),
                );
            }
        }
    }
}

/// YAML and JSON: what was read and written again says the same.
fn yaml(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let source = Source::new("fuzz", text);
    let options = LoadOptions::default();
    let _ = load_all(&source, &options);
    let Ok(node) = load(&source, &options) else {
        return;
    };
    let value = node.to_json();
    let written = to_string(&value);
    let again =
        load(&Source::new("again", written), &options).expect("what is written can be read");
    // Go's encoder writes whole doubles as integers: compare what numbers mean.
    assert_eq!(same_numbers(again.to_json()), same_numbers(value));
}

fn same_numbers(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        // As integers they have no negative zero.
        Value::Number(number) => Value::String(format!("{:?}", number.as_f64().map(|it| it + 0.0))),
        Value::Array(list) => list.into_iter().map(same_numbers).collect(),
        Value::Object(map) => {
            let pairs = map
                .into_iter()
                .map(|(key, value)| (key, same_numbers(value)));
            Value::Object(pairs.collect())
        }
        other => other,
    }
}

/// Expressions in texts: what is found lies inside, and parsing ends.
fn expression(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(ranges) = scan(text) {
        assert!(ranges.iter().all(|range| text.get(range.clone()).is_some()));
    }
    match Template::parse(text) {
        Ok(template) => {
            let _ = template.evaluate(text, &serde_json::Map::new());
        }
        Err(error) => assert!(error.offset <= text.len()),
    }
}

/// The index of an archive: what was read is written and reads as the same.
fn ctf_index(data: &[u8]) {
    let Ok(index) = Index::parse(data) else {
        return;
    };
    let written = index.to_bytes();
    let again = Index::parse(&written).expect("what is written can be read");
    assert_eq!(again.to_bytes(), written);
}

/// A manifest: one that is accepted has one meaning.
fn oci_manifest(data: &[u8]) {
    let _ = Manifest::parse(data);
    let raw = RawManifest::new("", data.to_vec());
    if let Ok(known) = raw.identified(None) {
        let parsed = known.parse().expect("it was identified");
        assert!(parsed.manifests.is_none() || parsed.layers.is_none());
        assert_eq!(known.bytes, data);
    }
}

/// References to components, repositories and images: what is shown reads back as the same.
fn reference(data: &[u8]) {
    let Some(text) = text(data) else { return };
    for any_version in [false, true] {
        if let Ok(read) = ComponentReference::parse(text, any_version) {
            let shown = read.to_string();
            let again = ComponentReference::parse(&shown, any_version).expect("it reads back");
            assert_eq!(again.to_string(), shown);
        }
    }
    let _ = text.parse::<RepositorySpec>();
    if let Ok(read) = text.parse::<OciReference>() {
        let shown = read.to_string();
        let again: OciReference = shown.parse().expect("it reads back");
        assert_eq!(again.to_string(), shown);
    }
}

/// A tar, in pieces of two sizes: the same entries, and written as it was.
fn tar(data: &[u8]) {
    let whole = entries(data, usize::MAX);
    let pieces = entries(data, 333);
    assert_eq!(whole.is_some(), pieces.is_some());
    if let (Some(whole), Some(pieces)) = (whole, pieces) {
        assert!(whole == pieces);
    }
}

/// The paths and contents of a tar, and what it is when it is written again; `None` for what is none.
fn entries(data: &[u8], piece: usize) -> Option<Vec<u8>> {
    let mut reader = TarReader::new();
    let mut writer = TarWriter::new();
    let mut out = Vec::new();
    for chunk in data.chunks(piece.min(data.len().max(1))) {
        reader.feed(Bytes::copy_from_slice(chunk));
        while let Some(event) = reader.next_event().ok()? {
            match event {
                TarEvent::Entry(entry) => {
                    let _ = entry.safe_path();
                    out.extend(writer.entry(&entry).ok()?);
                }
                TarEvent::Data(data) => out.extend(writer.data(data).expect("it fits")),
                TarEvent::EntryEnd => {}
            }
        }
    }
    reader.finish().ok()?;
    out.extend(writer.finish().expect("all entries are complete"));
    Some(out)
}

/// `WWW-Authenticate`.
fn www_authenticate(data: &[u8]) {
    let Some(text) = text(data) else { return };
    for challenge in headers::challenges(text) {
        assert!(!challenge.scheme.is_empty());
        assert_eq!(challenge.scheme, challenge.scheme.to_ascii_lowercase());
    }
}

/// `Link`.
fn link(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Some(target) = headers::link_next(text) {
        assert!(text.contains(&target));
    }
}

/// `Range` of uploads and `Content-Range` of parts.
fn content_range(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = headers::upload_offset(text);
    if let Some(range) = headers::content_range(text) {
        assert!(range.first <= range.last);
        assert!(range.total.is_none_or(|total| range.last < total));
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let _ = headers::number(text);
    if let Some(seconds) = headers::http_date(text) {
        assert!(seconds <= 253_402_300_800);
    }
}

/// A Docker configuration; its errors never have its secrets.
fn docker_config(data: &[u8]) {
    let Ok(document) = serde_json::from_slice(data) else {
        return;
    };
    let _ = DockerConfig::parse(&document, Helpers::default());
}
