//! The encodings of a stored descriptor: JSON, YAML, YAML in a tar (formats.md 1.6).
//!
//! *Invariant*: what is written here is what the Go libraries write for the same document, byte for byte.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{DESCRIPTOR_LIMIT, DescriptorError};
use crate::media_type::{DESCRIPTOR_JSON, DESCRIPTOR_YAML, DESCRIPTOR_YAML_TAR};
use crate::yaml::{LoadOptions, Source, load};

/// The file in the tar form, and the file that people keep.
pub const DESCRIPTOR_FILE: &str = "component-descriptor.yaml";

/// Length of a tar block in bytes.
const BLOCK: usize = 512;

/// How a descriptor becomes bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Compact JSON, sorted keys: the default of the library v2.
    #[default]
    Json,
    /// YAML, sorted keys.
    Yaml,
    /// The YAML as the one file of a tar: what the library v1 writes.
    YamlTar,
}

/// A descriptor as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// How they are to be read.
    pub media_type: String,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

impl Encoding {
    /// The encoding behind a media type, those of old times included.
    pub fn of(media_type: &str) -> Option<Self> {
        let base = media_type.split(';').next().unwrap_or_default().trim();
        match base {
            DESCRIPTOR_JSON
            | "application/vnd.gardener.cloud.cnudie.component-descriptor.v2+json" => {
                Some(Self::Json)
            }
            DESCRIPTOR_YAML
            | "application/vnd.gardener.cloud.cnudie.component-descriptor.v2+yaml" => {
                Some(Self::Yaml)
            }
            DESCRIPTOR_YAML_TAR
            | "application/vnd.gardener.cloud.cnudie.component-descriptor.v2+yaml+tar"
            | "application/vnd.oci.gardener.cloud.cnudie.component-descriptor.config.v2+yaml+tar" => {
                Some(Self::YamlTar)
            }
            _ => None,
        }
    }

    /// The media type that is written.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => DESCRIPTOR_JSON,
            Self::Yaml => DESCRIPTOR_YAML,
            Self::YamlTar => DESCRIPTOR_YAML_TAR,
        }
    }
}

pub(super) fn read(encoding: Encoding, bytes: &[u8]) -> Result<Value, DescriptorError> {
    match encoding {
        Encoding::Json => {
            let mut document = serde_json::from_slice(bytes)
                .map_err(|error| DescriptorError::Syntax(error.to_string()))?;
            compact(&mut document);
            Ok(document)
        }
        Encoding::Yaml => read_yaml(bytes),
        Encoding::YamlTar => read_yaml(tar_entry(bytes)?),
    }
}

/// Gives back the room that lists and maps have left from growing, a third of all: documents stay for a whole run.
fn compact(value: &mut Value) {
    match value {
        Value::Array(list) => {
            list.iter_mut().for_each(compact);
            list.shrink_to_fit();
        }
        Value::Object(map) => {
            let mut exact = Map::with_capacity(map.len());
            for (name, mut value) in std::mem::take(map) {
                compact(&mut value);
                exact.insert(name, value);
            }
            *map = exact;
        }
        _ => {}
    }
}

pub(super) fn write(encoding: Encoding, document: &Value) -> Encoded {
    let bytes = match encoding {
        Encoding::Json => crate::json::to_sorted(document).into_bytes(),
        Encoding::Yaml => crate::yaml::to_string_sorted(document).into_bytes(),
        Encoding::YamlTar => tar(crate::yaml::to_string_sorted(document).as_bytes()),
    };
    Encoded {
        media_type: encoding.media_type().to_owned(),
        bytes: bytes.into(),
    }
}

fn read_yaml(bytes: &[u8]) -> Result<Value, DescriptorError> {
    let syntax = |message: String| DescriptorError::Syntax(message);
    let text = std::str::from_utf8(bytes).map_err(|error| syntax(error.to_string()))?;
    let source = Source::new(DESCRIPTOR_FILE, text);
    let options = LoadOptions {
        text_limit: DESCRIPTOR_LIMIT as usize,
        ..LoadOptions::default()
    };
    load(&source, &options)
        .map(|node| node.to_json())
        .map_err(|error| syntax(error.located(&source)))
}

/// The content of the descriptor's entry. Other entries are skipped; nothing is unpacked.
fn tar_entry(bytes: &[u8]) -> Result<&[u8], DescriptorError> {
    let syntax = |message: &str| DescriptorError::Syntax(message.to_owned());
    let mut rest = bytes;
    while let Some((header, tail)) = rest.split_at_checked(BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        let size = octal(&header[124..136]).ok_or_else(|| syntax("tar entry with a bad size"))?;
        let content = tail
            .get(..size)
            .ok_or_else(|| syntax("tar ends within an entry"))?;
        let name = header[..100].split(|byte| *byte == 0).next();
        let name = name.unwrap_or_default();
        let name = name.strip_prefix(b"./").unwrap_or(name);
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let is_file = matches!(header[156], b'0' | 0);
        if is_file && name == DESCRIPTOR_FILE.as_bytes() {
            return Ok(content);
        }
        rest = tail.get(size.div_ceil(BLOCK) * BLOCK..).unwrap_or_default();
    }
    Err(syntax("tar has no component-descriptor.yaml"))
}

fn octal(field: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(field).ok()?;
    usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

/// One regular file, mode 0, no owner, 2022-01-01T00:00:00Z; two zero blocks at the end.
fn tar(content: &[u8]) -> Vec<u8> {
    const MTIME: u64 = 1_640_995_200;
    let mut header = [0_u8; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, DESCRIPTOR_FILE);
    for mode_and_owner in [100, 108, 116] {
        put(mode_and_owner, "0000000");
    }
    put(124, &format!("{:011o}", content.len()));
    put(136, &format!("{MTIME:011o}"));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    put(329, "0000000");
    put(337, "0000000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = Vec::with_capacity(content.len() + 4 * BLOCK);
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    out
}
