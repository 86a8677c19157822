//! Sets values in the YAML files of an archive, as the built-in `yaml.engine.localization` does.
//!
//! A compressed archive comes out as a plain tar: to compress is the host's work, who does it faster and always in the same
//! way (`tar.to.oci.transformer` does it for every layer whose media type says so).
//!
//! Invariant: a file that is not changed comes out as it went in, and an archive in which nothing changes is handed on as
//! it is, compressed as it was.

#![forbid(unsafe_code)]

mod glob;

use std::io::{BufRead, Write};

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::Deserialize;
use ocm_plugin::serde_json::Value as Json;
use ocm_plugin::tar::{Keep, Reader, rewrite};
use ocm_plugin::{gzip, yaml};
use ocm_plugin::{Content, Error, Info, Nothing, Outcome, Port, Sink, Source, Step, Transformer};
use ocm_plugin::yaml::Key;

use crate::glob::Glob;

/// Most bytes of a file that is changed.
const FILE: u64 = 4 << 20;
/// Most files that a message lists.
const LISTED: usize = 8;

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", rename_all = "camelCase", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// Which files of the archive: `*` is a part of a name, `**` any number of names, besides `?` and `[..]`. Without it the
    /// data is a YAML document.
    #[serde(default)]
    file: String,
    /// What to set.
    mappings: Vec<Mapping>,
    /// Is it right that no file matches?
    #[serde(default)]
    allow_missing: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Mapping {
    /// Where: `image.tag`, `hosts[0]`, `labels["app.kubernetes.io/name"]`.
    path: String,
    /// The value: a text, a number, a truth value or null.
    value: Json,
}

/// What to change, checked.
struct Edits<'s> {
    spec: &'s Spec,
    file: Option<Glob>,
    edits: Vec<(Vec<Key>, &'s Mapping)>,
}

impl<'s> Edits<'s> {
    fn new(spec: &'s Spec) -> Result<Self, Vec<Error>> {
        let (mut errors, mut edits) = (Vec::new(), Vec::new());
        for (at, mapping) in spec.mappings.iter().enumerate() {
            if mapping.value.is_array() || mapping.value.is_object() {
                let error = Error::invalid_spec("this is no single value: a text, a number, true, false or null");
                errors.push(error.at(format!("/mappings/{at}/value")));
            }
            match yaml::path(&mapping.path) {
                Ok(path) => edits.push((path, mapping)),
                Err(why) => errors.push(Error::invalid_spec(why).at(format!("/mappings/{at}/path"))),
            }
        }
        let mut file = None;
        if !spec.file.is_empty() {
            match Glob::new(&spec.file) {
                Ok(glob) => file = Some(glob),
                Err(why) => errors.push(Error::invalid_spec(format!("this is no pattern: {why}")).at("/file")),
            }
        }
        if errors.is_empty() { Ok(Self { spec, file, edits }) } else { Err(errors) }
    }

    /// The text with the values set.
    fn apply(&self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        let in_file = |mut error: Error| {
            if !name.is_empty() {
                error.message = format!("file `{name}`: {}", error.message);
            }
            error.in_port("data")
        };
        let text = String::from_utf8(bytes)
            .map_err(|error| in_file(Error::invalid_content(format!("this is no UTF-8 text: {}", error.utf8_error()))))?;
        let scalars = yaml::scalars(&text).map_err(in_file)?;
        let mut edits = Vec::new();
        for (path, mapping) in &self.edits {
            let mut meant = scalars.iter().filter(|scalar| scalar.path == *path);
            let (Some(scalar), None) = (meant.next(), meant.next()) else {
                let count = scalars.iter().filter(|scalar| scalar.path == *path).count();
                let why = if count == 0 { "there is no such value".to_owned() } else { format!("{count} values are there") };
                return Err(in_file(Error::invalid_content(format!("{}: {why}", mapping.path))));
            };
            if !scalar.has(&mapping.value) {
                edits.push((scalar, mapping.value.clone()));
            }
        }
        yaml::set(&text, &edits).map(String::into_bytes).map_err(in_file)
    }

    fn is_meant(&self, path: &str) -> bool {
        self.file.as_ref().is_some_and(|glob| glob.is_match(path))
    }

    /// Rewrites a tar.
    fn rewrite(&self, source: &mut dyn BufRead, sink: &mut dyn Write) -> Result<(), Error> {
        let mut files = Files::default();
        // Two closures that both note something.
        let edited = std::cell::Cell::new(0);
        rewrite(
            source,
            sink,
            &mut |member| {
                let is_meant = member.is_file && self.is_meant(&member.path);
                if member.is_file && !is_meant {
                    files.note(&member.path);
                }
                Ok(if is_meant { Keep::Change(FILE) } else { Keep::AsIs })
            },
            &mut |member, content| {
                edited.set(edited.get() + 1);
                self.apply(&member.path, content)
            },
        )?;
        self.check_found(edited.get(), &files)
    }

    /// Reads until some file of a tar would change; tells whether one would.
    fn changes(&self, source: &mut dyn BufRead) -> Result<bool, Error> {
        let (mut files, mut edited) = (Files::default(), 0);
        let mut tar = Reader::new(source);
        while let Some(member) = tar.next_member()? {
            if !member.is_file || !self.is_meant(&member.path) {
                if member.is_file {
                    files.note(&member.path);
                }
                continue;
            }
            let content = tar.read(&member, FILE)?;
            edited += 1;
            if self.apply(&member.path, content.clone())? != content {
                return Ok(true);
            }
        }
        self.check_found(edited, &files)?;
        Ok(false)
    }

    fn check_found(&self, edited: usize, files: &Files) -> Result<(), Error> {
        if edited > 0 || self.spec.allow_missing {
            return Ok(());
        }
        let error = Error::invalid_content(format!("no file of the archive matches `{}`", self.spec.file));
        Err(error.in_port("data").with_hint(files.told()))
    }
}

/// Files that are not meant, for a message.
#[derive(Default)]
struct Files {
    listed: String,
    count: usize,
}

impl Files {
    fn note(&mut self, path: &str) {
        self.count += 1;
        if self.count <= LISTED {
            self.listed.push_str(if self.count == 1 { "it has `" } else { ", `" });
            self.listed.push_str(path);
            self.listed.push('`');
        }
    }

    fn told(&self) -> String {
        match self.count {
            0 => "it has no files at all".to_owned(),
            count if count <= LISTED => self.listed.clone(),
            count => format!("{} and {} more", self.listed, count - LISTED),
        }
    }
}

fn is_gzip(source: &mut Source) -> Result<bool, Error> {
    Ok(source.peek(2)? == gzip::MAGIC)
}

struct Localize;

impl Transformer for Localize {
    const TYPE: &'static str = "Localize/v1alpha1";
    const DOCUMENTATION: &'static str = "Sets values in YAML files, keeping everything else byte for byte.\n\nIn the files of a tar, compressed with gzip or not, or in a YAML document. A compressed tar in which something changes comes out as a plain one: `tar.to.oci.transformer/v1alpha1` compresses it again.";
    const INPUTS: &'static [Port] = &[Port::required("data", "a tar, compressed or not; without `file` a YAML document")];
    const OUTPUTS: &'static [Port] = &[Port::required("data", "the same with the values set")];
    const EXAMPLES: &'static [&'static str] = &[
        "- id: localize1\n  type: Localize/v1alpha1\n  spec:\n    data: ${ocitotar1.output.data}\n    file: \"*/values.yaml\"\n    mappings:\n      - path: image.repository\n        value: ${upload1.output.imageReference.parseRef().repository}\n",
        "- id: localize1\n  type: Localize/v1alpha1\n  spec:\n    data: ${get1.output.data}\n    mappings:\n      - path: replicas\n        value: 3\n",
    ];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Nothing;

    fn validate(spec: &Spec, _config: &Nothing) -> Vec<Error> {
        Edits::new(spec).err().unwrap_or_default()
    }

    /// Of a compressed archive the first file that changes must be found before the first byte can go out: until then the
    /// input itself may be the answer.
    fn run(step: &Step<Self>) -> Result<Outcome<Nothing>, Error> {
        let edits = Edits::new(&step.spec).map_err(first)?;
        let input = step.input("data")?;
        let mut media_type = input.info().media_type;
        if edits.file.is_some() {
            let mut source = input.open()?;
            if is_gzip(&mut source)? {
                if !edits.changes(&mut gzip::Reader::new(&mut source))? {
                    return Ok(Outcome::new(Nothing {}).with("data", Content::same_as("data")));
                }
                media_type = "application/x-tar".to_owned();
            }
        }
        Ok(Outcome::new(Nothing {}).with("data", Content::lazy(Info { media_type, ..Info::default() })))
    }

    fn transform(step: &Step<Self>, source: &mut Source, sink: &mut Sink) -> Result<(), Error> {
        let edits = Edits::new(&step.spec).map_err(first)?;
        let is_gzip = is_gzip(source)?;
        if edits.file.is_none() {
            let text = source.read_all(FILE as usize).map_err(|error| error.in_port("data"))?;
            let is_tar = text.get(257..262) == Some(b"ustar");
            if is_gzip || is_tar {
                let error = Error::invalid_content("this is an archive, and nothing says which file in it to change");
                return Err(error.in_port("data").with_hint("set `file`, as in `file: \"*/values.yaml\"`"));
            }
            sink.write_all(&edits.apply("", text)?)?;
            return Ok(());
        }
        if !is_gzip {
            return edits.rewrite(source, sink);
        }
        edits.rewrite(&mut gzip::Reader::new(source), sink)
    }
}

fn first(mut errors: Vec<Error>) -> Error {
    errors.remove(0)
}

ocm_plugin::plugin! {
    name: "localize",
    documentation: "Sets values in YAML files, keeping everything else byte for byte.",
    types: [Localize],
}

#[cfg(test)]
mod tests {
    use ocm_plugin::tar::write_file;
    use ocm_plugin::testing::{fails, run, run_in_chunks};
    use ocm_plugin::Kind;

    use super::*;

    const SPEC: &str = r#"{"file": "*/values.yaml", "mappings": [{"path": "image.repository", "value": "local/x"}]}"#;
    const VALUES: &str = "# values\nimage:\n  repository: 'ghcr.io/acme/x'  # here\n";
    const LOCAL: &str = "# values\nimage:\n  repository: 'local/x'  # here\n";

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, text) in files {
            write_file(&mut out, path, text.as_bytes()).unwrap();
        }
        // What GNU tar fills its records with.
        out.resize(out.len() + 8192, 0);
        out
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new().mtime(77).write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn values_are_set_and_everything_else_stays() {
        let before = tar(&[("c/Chart.yaml", "name: c\n"), ("c/values.yaml", VALUES), ("c/x/values.yaml", VALUES)]);
        let after = tar(&[("c/Chart.yaml", "name: c\n"), ("c/values.yaml", LOCAL), ("c/x/values.yaml", VALUES)]);
        for chunk in [1, 7, 511, 513, 4096] {
            let ran = run_in_chunks::<Localize>(SPEC, &[("data", &before)], chunk).unwrap();
            assert!(ran.contents["data"] == after, "chunks of {chunk}");
            let ran = run_in_chunks::<Localize>(SPEC, &[("data", &compressed(&before))], chunk).unwrap();
            assert!(ran.contents["data"] == after, "chunks of {chunk}, compressed");
        }
        let ran = run::<Localize>(SPEC, &[("data", &compressed(&after))]).unwrap();
        assert!(ran.contents["data"] == compressed(&after), "what is not changed stays compressed as it was");
        let plain = r#"{"mappings": [{"path": "image.repository", "value": "local/x"}]}"#;
        let ran = run::<Localize>(plain, &[("data", VALUES.as_bytes())]).unwrap();
        assert_eq!(ran.contents["data"], LOCAL.as_bytes());
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_place() {
        let tar = tar(&[("c/values.yaml", VALUES), ("c/other.yaml", "a: {{ .x }}")]);
        for (spec, field, expected) in [
            (r#"{"mappings": [{"path": "a..b", "value": 1}]}"#, Some("/mappings/0/path"), "expected a key"),
            (r#"{"mappings": [{"path": "a", "value": []}]}"#, Some("/mappings/0/value"), "no single value"),
            (r#"{"file": "[", "mappings": []}"#, Some("/file"), "no pattern"),
            (r#"{"file": "*/none.yaml", "mappings": []}"#, None, "no file of the archive matches"),
            (r#"{"file": "*/values.yaml", "mappings": [{"path": "image.tag", "value": 1}]}"#, None, "file `c/values.yaml`: image.tag: there is no such value"),
            (r#"{"file": "*/other.yaml", "mappings": [{"path": "a", "value": 1}]}"#, None, "file `c/other.yaml`: line 1, column 4"),
            (r#"{"mappings": [{"path": "a", "value": 1}]}"#, None, "this is an archive"),
        ] {
            let error = run::<Localize>(spec, &[("data", &tar)]).unwrap_err();
            assert_eq!(error.field.as_deref(), field, "{spec}");
            assert!(error.message.contains(expected), "{spec}: {}", error.message);
        }
        for data in [&b""[..], &[1; 600], &tar[..700], &compressed(&tar)[..100]] {
            assert!(fails(&run::<Localize>(SPEC, &[("data", data)]), Kind::InvalidContent));
        }
    }
}
