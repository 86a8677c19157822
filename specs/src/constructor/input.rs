//! Inputs: content that comes from beside the constructor, or that is fetched when it is used (formats.md 9).

use base64::Engine as _;
use serde_json::{Map as JsonMap, Value as Json, json};

use super::reader::{Fields, Reader};
use crate::json::to_sorted;
use crate::media_type::OCTET_STREAM;
use crate::oci::escape_html;
use crate::transfer::Word;
use crate::yaml::{Member, Node};
use crate::{diagnostic::did_you_mean, platform, yaml};

/// Where the content of a resource or source comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// A file.
    File {
        /// Below the constructor's folder.
        path: String,
        /// Told by the content where none is given.
        media_type: Option<String>,
        /// Is it compressed?
        compress: bool,
    },
    /// A folder, packed as tar.
    Dir(DirInput),
    /// What stands in the constructor itself.
    Bytes {
        /// The content.
        bytes: Vec<u8>,
        /// Its media type.
        media_type: String,
        /// Is it compressed?
        compress: bool,
    },
    /// A Helm chart: a folder or a packed one.
    Chart {
        /// Below the constructor's folder.
        path: String,
        /// What it is called when it is uploaded.
        hint: Option<String>,
    },
    /// What an access specification describes, taken in.
    Fetched {
        /// The access specification.
        access: Json,
        /// Is it a Helm chart?
        chart: bool,
        /// Platforms (`os/architecture[/variant]`) that are taken of an index; all when empty.
        platforms: Vec<String>,
        /// What it is called when it is uploaded.
        hint: Option<String>,
    },
}

/// A folder and what of it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirInput {
    /// Below the constructor's folder.
    pub path: String,
    /// `application/x-tar` where none is given.
    pub media_type: Option<String>,
    /// Is the tar compressed?
    pub compress: bool,
    /// Is the folder itself in the tar?
    pub preserve_dir: bool,
    /// Are symbolic links replaced by what they name?
    pub follow_symlinks: bool,
    /// Only these files.
    pub include: Vec<String>,
    /// Not these files, whatever else is said.
    pub exclude: Vec<String>,
}

/// The names of all inputs that are read, as they are written.
const TYPES: [&str; 8] = [
    "file",
    "dir",
    "utf8",
    "helm",
    "wget",
    "binary",
    "ociArtifact",
    "git",
];

/// Those of v1 that need another program or another registry's protocol, and what to do instead.
const ELSEWHERE: [(&str, &str); 6] = [
    (
        "docker",
        "save the image as an OCI layout (`docker buildx build --output type=oci,dest=image.tar`, `skopeo copy docker-daemon:IMAGE oci-archive:image.tar`) and use `type: file` with `mediaType: application/vnd.ocm.software.oci.layout.v1+tar`",
    ),
    (
        "dockermulti",
        "build one multi-platform OCI layout (`docker buildx build --platform ... --output type=oci,dest=image.tar`) and use `type: file` with `mediaType: application/vnd.ocm.software.oci.layout.v1+tar`",
    ),
    (
        "maven",
        "download the artifact and use `type: file`, or `type: wget` with its URL",
    ),
    (
        "npm",
        "download the package (`npm pack`) and use `type: file`, or `type: wget` with its URL",
    ),
    (
        "ocm",
        "use `access: {type: ocm, ...}`, or `ocm download resource` and `type: file`",
    ),
    (
        "spiff",
        "process the template beforehand and use `type: file`",
    ),
];

pub(super) fn read(reader: &mut Reader<'_>, member: &Member, path: &str) -> Option<Input> {
    let mut fields = reader.fields(&member.node, path, "an input")?;
    let kind = reader.needed(&mut fields, "type")?;
    let base = kind.text.split('/').next().unwrap_or_default();
    let version = kind.text.strip_prefix(base).unwrap_or_default();
    if !matches!(version, "" | "/v1" | "/v1alpha1") {
        reader
            .error(
                kind.span,
                fields.below("type"),
                format!("`{}` has a version that is not known here", kind.text),
            )
            .hint = Some(format!("write `{base}` or `{base}/v1`"));
        return None;
    }
    match base.to_ascii_lowercase().as_str() {
        "file" => file(reader, &mut fields),
        "dir" => dir(reader, &mut fields),
        "utf8" => utf8(reader, &mut fields),
        "binary" => binary(reader, &mut fields),
        "helm" => helm(reader, &mut fields),
        "wget" => wget(reader, &mut fields),
        "git" => git(reader, &mut fields),
        "ociartifact" | "ociimage" => oci_artifact(reader, &mut fields),
        other => {
            unknown_type(reader, &fields, &kind, other);
            None
        }
    }
}

fn unknown_type(reader: &mut Reader<'_>, fields: &Fields<'_>, kind: &Word, base: &str) {
    let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == base);
    let (message, hint) = match elsewhere {
        Some((_, hint)) => (
            format!("inputs of type `{}` are not made here", kind.text),
            (*hint).to_owned(),
        ),
        None => {
            let known = TYPES.iter().copied();
            let hint = match did_you_mean(base, known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known are {}", super::reader::joined(&TYPES)),
            };
            (format!("unknown input type `{}`", kind.text), hint)
        }
    };
    reader.error(kind.span, fields.below("type"), message).hint = Some(hint);
}

fn media_type(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<String> {
    reader
        .text(fields, "mediaType")
        .map(|word| word.text)
        .filter(|text| !text.is_empty())
}

fn file(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let path = reader.needed(fields, "path");
    let media_type = media_type(reader, fields);
    let compress = reader.flag(fields, "compress");
    reader.close(fields, &["type", "path", "mediaType", "compress"]);
    Some(Input::File {
        path: path?.text,
        media_type,
        compress,
    })
}

fn dir(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let path = reader.needed(fields, "path");
    let media_type = media_type(reader, fields);
    let texts = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect();
    let input = DirInput {
        path: String::new(),
        media_type,
        compress: reader.flag(fields, "compress"),
        preserve_dir: reader.flag(fields, "preserveDir"),
        follow_symlinks: reader.flag(fields, "followSymlinks"),
        include: texts(reader.texts(fields, "includeFiles")),
        exclude: texts(reader.texts(fields, "excludeFiles")),
    };
    // Every tar is reproducible here.
    reader.flag(fields, "reproducible");
    let known = [
        "type",
        "path",
        "mediaType",
        "compress",
        "preserveDir",
        "followSymlinks",
        "includeFiles",
        "excludeFiles",
        "reproducible",
    ];
    reader.close(fields, &known);
    Some(Input::Dir(DirInput {
        path: path?.text,
        ..input
    }))
}

fn utf8(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    const FORMS: [&str; 5] = ["text", "json", "formattedJson", "yaml", "formattedYaml"];
    let given: Vec<&str> = FORMS.into_iter().filter(|form| fields.has(form)).collect();
    let content = match given.as_slice() {
        [form] => utf8_content(reader, fields, form),
        several => {
            for form in several {
                fields.take(form);
            }
            let message = match several {
                [] => "the input has no content".to_owned(),
                _ => format!("{} exclude each other", super::reader::joined(several)),
            };
            let hint = format!("give one of {}", super::reader::joined(&FORMS));
            reader.error(fields.span, fields.path.clone(), message).hint = Some(hint);
            None
        }
    };
    let stated = media_type(reader, fields);
    let compress = reader.flag(fields, "compress");
    reader.close(
        fields,
        &[
            "type",
            "text",
            "json",
            "formattedJson",
            "yaml",
            "formattedYaml",
            "mediaType",
            "compress",
        ],
    );
    let (bytes, own) = content?;
    let media_type = stated.unwrap_or_else(|| own.to_owned());
    Some(Input::Bytes {
        bytes: bytes.into_bytes(),
        media_type,
        compress,
    })
}

/// The text of one of the forms, as Go writes it, and its media type.
fn utf8_content(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    form: &str,
) -> Option<(String, &'static str)> {
    let member = fields.take(form)?;
    let data = || member.node.to_json();
    Some(match form {
        "text" => {
            let text = reader.as_text(&member.node, fields.below(form), form)?;
            (text.text, "text/plain")
        }
        "json" => (to_sorted(&data()), "application/json"),
        "formattedJson" => {
            // Sorted first: the pretty form keeps the order it finds.
            let sorted: Json = serde_json::from_str(&to_sorted(&data())).unwrap_or_default();
            let text = serde_json::to_string_pretty(&sorted).unwrap_or_default();
            (escape_html(&text), "application/json")
        }
        _ => (yaml::to_string_sorted(&data()), "application/x-yaml"),
    })
}

fn binary(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let data = reader.needed(fields, "data");
    let media_type = media_type(reader, fields).unwrap_or_else(|| OCTET_STREAM.to_owned());
    let compress = reader.flag(fields, "compress");
    reader.close(fields, &["type", "data", "mediaType", "compress"]);
    let data = data?;
    let plain: String = data
        .text
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .collect();
    let engine = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    match engine.decode(plain) {
        Ok(bytes) => Some(Input::Bytes {
            bytes,
            media_type,
            compress,
        }),
        Err(error) => {
            let message = format!("`data` is no base64: {error}").to_lowercase();
            reader.error(data.span, fields.below("data"), message).hint =
                Some("encode the bytes with `base64`, or use `type: utf8` for text".to_owned());
            None
        }
    }
}

fn helm(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let path = reader
        .text(fields, "path")
        .filter(|path| !path.text.is_empty());
    let place = reader
        .text(fields, "helmRepository")
        .filter(|place| !place.text.is_empty());
    let version = reader
        .text(fields, "version")
        .map(|word| word.text)
        .filter(|text| !text.is_empty());
    let hint = reader
        .text(fields, "repository")
        .map(|word| word.text)
        .filter(|text| !text.is_empty());
    let certificate = reader.text(fields, "caCert").map(|word| word.text);
    if let Some(file) = reader.text(fields, "caCertFile") {
        reader
            .error(
                file.span,
                fields.below("caCertFile"),
                "certificates are not read from files of the constructor",
            )
            .hint = Some("trust it with --ca-file FILE, or put it into `caCert`".to_owned());
    }
    reader.close(
        fields,
        &[
            "type",
            "path",
            "helmRepository",
            "version",
            "repository",
            "caCert",
            "caCertFile",
        ],
    );
    match (path, place) {
        (Some(path), None) => Some(Input::Chart {
            path: path.text,
            hint,
        }),
        (path, Some(place)) => {
            let access = chart_access(
                path.map(|path| path.text),
                &place.text,
                version,
                certificate,
            );
            match access {
                Ok(access) => Some(Input::Fetched {
                    access,
                    chart: true,
                    platforms: Vec::new(),
                    hint,
                }),
                Err(message) => {
                    reader.error(place.span, fields.below("helmRepository"), message).hint = Some(
                        "name the chart with `path`, or give the URL of a packed chart or an `oci://` reference".to_owned(),
                    );
                    None
                }
            }
        }
        (None, None) => {
            reader
                .error(
                    fields.span,
                    fields.path.clone(),
                    "the chart has neither `path` nor `helmRepository`",
                )
                .hint = Some("give the `path` of a chart's folder or packed chart".to_owned());
            None
        }
    }
}

/// v1 names a chart in a repository, v2 gives one address of the chart itself.
fn chart_access(
    chart: Option<String>,
    place: &str,
    version: Option<String>,
    certificate: Option<String>,
) -> Result<Json, String> {
    let registry = place.strip_prefix("oci://");
    let mut access = match (chart, registry) {
        (Some(chart), Some(registry)) => {
            let tag = version.ok_or("a chart in a registry needs a `version`")?;
            json!({"type": "ociArtifact", "imageReference": format!("{}/{chart}:{tag}", registry.trim_end_matches('/'))})
        }
        (None, Some(registry)) => {
            let last = registry.rsplit('/').next().unwrap_or_default();
            let tagged = last.contains(':') || last.contains('@');
            let reference = match (tagged, version) {
                (true, _) => registry.to_owned(),
                (false, Some(version)) => format!("{registry}:{version}"),
                (false, None) => return Err("the reference has no tag".to_owned()),
            };
            json!({"type": "ociArtifact", "imageReference": reference})
        }
        (Some(chart), None) => {
            let chart = match version {
                Some(version) => format!("{chart}:{version}"),
                None => chart,
            };
            json!({"type": "helm", "helmRepository": place, "helmChart": chart})
        }
        (None, None) if place.ends_with(".tgz") || place.ends_with(".tar.gz") => {
            json!({"type": "wget", "url": place})
        }
        (None, None) => return Err(format!("`{place}` names a repository, but no chart in it")),
    };
    if let Some(certificate) = certificate.filter(|_| access["type"] == "helm") {
        access["caCert"] = certificate.into();
    }
    Ok(access)
}

fn wget(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let url = reader.needed(fields, "url");
    let mut access = JsonMap::from_iter([("type".to_owned(), json!("wget"))]);
    for key in ["mediaType", "verb", "body"] {
        if let Some(word) = reader.text(fields, key) {
            access.insert(key.to_owned(), word.text.into());
        }
    }
    for key in ["noRedirect", "noredirect"] {
        if fields.has(key) && reader.flag(fields, key) {
            access.insert("noRedirect".to_owned(), true.into());
        }
    }
    if let Some(header) = fields
        .value("header")
        .and_then(|node| header(reader, node, &fields.below("header")))
    {
        access.insert("header".to_owned(), header);
    }
    reader.close(
        fields,
        &[
            "type",
            "url",
            "mediaType",
            "header",
            "verb",
            "body",
            "noRedirect",
        ],
    );
    access.insert("url".to_owned(), url?.text.into());
    Some(Input::Fetched {
        access: Json::Object(access),
        chart: false,
        platforms: Vec::new(),
        hint: None,
    })
}

/// Headers: names with lists of values.
fn header(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<Json> {
    let mut fields = reader.fields(node, path, "`header`")?;
    let mut headers = JsonMap::new();
    for (name, _) in fields.left() {
        let values = reader.texts(&mut fields, name);
        headers.insert(
            name.to_owned(),
            values
                .into_iter()
                .map(|word| Json::from(word.text))
                .collect(),
        );
    }
    Some(Json::Object(headers))
}

fn git(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let repository = reader.needed(fields, "repository");
    let mut access = JsonMap::from_iter([("type".to_owned(), json!("git"))]);
    for (key, name) in [("ref", "ref"), ("commit", "commit"), ("version", "ref")] {
        if let Some(word) = reader
            .text(fields, key)
            .filter(|word| !word.text.is_empty())
        {
            access.insert(name.to_owned(), word.text.into());
        }
    }
    reader.close(fields, &["type", "repository", "ref", "commit", "version"]);
    access.insert("repository".to_owned(), repository?.text.into());
    Some(Input::Fetched {
        access: Json::Object(access),
        chart: false,
        platforms: Vec::new(),
        hint: None,
    })
}

fn oci_artifact(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Input> {
    let path = reader.needed(fields, "path");
    let hint = reader
        .text(fields, "repository")
        .map(|word| word.text)
        .filter(|text| !text.is_empty());
    let mut platforms = Vec::new();
    for word in reader.texts(fields, "platforms") {
        match platform::check(&word.text) {
            Ok(()) => platforms.push(word.text),
            Err(message) => {
                reader
                    .error(word.span, fields.below("platforms"), message)
                    .hint = Some(platform::HINT.to_owned());
            }
        }
    }
    reader.close(fields, &["type", "path", "repository", "platforms"]);
    let access = crate::access::oci_artifact(&path?.text);
    Some(Input::Fetched {
        access,
        chart: false,
        platforms,
        hint,
    })
}
