//! Localization: setting values in the YAML files of an archive while it streams (transformation.md R8, R9).
//!
//! *What is promised.* Every byte that was not asked to change comes out as it went in, but for the compression around it:
//! gzip in gives gzip out, of one reproducible form. Edits that change nothing give back the input, compressed as it was.
//!
//! *How.* A tar is edited while it passes. Of a compressed one the first changed file must be found before the first byte
//! can go out, since until then the input itself may be the answer: a first reading looks for it and stops there, a second
//! one converts. Charts have their values near the start, so that the first reading is short. Input that can be read once
//! only is kept for the second reading (within the run's budget). Reading the output again computes it again, so nothing
//! is kept for that.
//!
//! The edited files are known only then; they are told by a `tracing` event, not by an output.
//!
//! Invariant: a stream that ends without an error had its file, and every mapping was applied to it.

mod tar;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use globset::{GlobBuilder, GlobMatcher};
use ocm_content::gzip::{MAGIC, gunzip, gzip};
use ocm_content::spool::Spool;
use ocm_content::{Access, Blob, ByteStream, Content, Error, Host, Limits, Source};
use ocm_engine::{ContentRef, Effect, Outcome, StepContext, StepError, Transformer};
use ocm_specs::yaml::{Edit, EditError, Path, Source as YamlSource, edit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use self::tar::{MEMBER_LIMIT, Rewrite, Tar};
use crate::convert::DataOutput;
use crate::pipe::{GZIP_LEVEL, PIECE, Stage, peek, pipe, skip};

/// Most files that are listed in a message.
const LISTED: usize = 8;
/// Where a tar archive of these days says that it is one.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// `yaml.engine.localization`: sets values in YAML files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Localize;

/// Inputs of [`Localize`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalizeSpec {
    /// A tar archive, compressed with gzip or not; without `file` a YAML document.
    pub data: ContentRef,
    /// Which files of the archive: `*` is one part of a path, `**` any number of parts, besides `?` and `[..]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What to set.
    pub mappings: Vec<Mapping>,
    /// Is it right that no file matches?
    #[serde(default)]
    pub allow_missing: bool,
    /// Are missing keys added?
    #[serde(default)]
    pub create: bool,
}

/// One value to set.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mapping {
    /// Where: `image.tag`, `hosts[0]`, `labels["app.kubernetes.io/name"]`.
    pub path: String,
    /// The value: a text, a number, a truth value or null.
    pub value: Json,
}

impl Transformer for Localize {
    const TYPE: &'static str = "yaml.engine.localization/v1alpha1";
    const ALIASES: &'static [&'static str] = &["yaml.engine.localization/v1"];
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str =
        "Sets values in YAML files, keeping everything else byte for byte.";
    const EXAMPLE: &'static str = "\
- id: localization1
  type: yaml.engine.localization/v1alpha1
  spec:
    data: ${ocitotar1.output.data}
    file: \"*/values.yaml\"
    mappings:
      - path: image.repository
        value: ${upload1.output.imageReference.parseRef().repository}
";

    type Spec = LocalizeSpec;
    type Output = DataOutput;

    async fn run(
        &self,
        cx: StepContext,
        spec: LocalizeSpec,
    ) -> Result<Outcome<DataOutput>, StepError> {
        let edits = Arc::new(Edits::new(&cx, &spec)?);
        let Content::Blob(input) = cx.content(&spec.data).await? else {
            let error =
                Error::invalid("this is a whole OCI artifact, an archive of files is needed")
                    .with_hint("take its layer out with `oci.to.tar.transformer/v1alpha1`");
            return Err(StepError::at("data", error));
        };
        let source = Localized {
            edits,
            limits: cx.limits().clone(),
            input: input.clone(),
        };
        let output = Blob::new(input.media_type, Arc::new(source));
        Ok(Outcome::new(DataOutput {
            data: cx.offer("data", output).with_lineage(spec.data.lineage),
        }))
    }
}

/// What to change, checked.
#[derive(Debug)]
struct Edits {
    step: String,
    file: Option<(String, GlobMatcher)>,
    edits: Vec<Edit>,
    allow_missing: bool,
}

impl Edits {
    fn new(cx: &StepContext, spec: &LocalizeSpec) -> Result<Self, StepError> {
        let file = spec.file.as_ref().map(|pattern| {
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(|error| {
                    let message = format!("`{pattern}` is no pattern: {}", error.kind());
                    StepError::at("file", Error::invalid(message))
                })?;
            Ok::<_, StepError>((pattern.clone(), glob.compile_matcher()))
        });
        let edits = spec.mappings.iter().enumerate().map(|(at, mapping)| {
            let field = |name: &str| format!("mappings[{at}].{name}");
            let path = Path::parse(&mapping.path)
                .map_err(|error| StepError::at(field("path"), Error::invalid(error.to_string())))?;
            if mapping.value.is_array() || mapping.value.is_object() {
                let error = Error::invalid(
                    "this is no single value: a text, a number, true, false or null",
                );
                return Err(StepError::at(field("value"), error));
            }
            Ok(Edit {
                path,
                value: mapping.value.clone(),
                create: spec.create,
            })
        });
        Ok(Self {
            step: cx.id().to_owned(),
            file: file.transpose()?,
            edits: edits.collect::<Result<_, _>>()?,
            allow_missing: spec.allow_missing,
        })
    }

    /// The text with the values set; `None` where it has them already.
    fn apply(&self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::invalid(format!("this is no UTF-8 text: {error}")))?;
        let edited = edit(text, &self.edits).map_err(|error| refused(text, &error))?;
        Ok((edited != text).then(|| edited.into_bytes()))
    }
}

/// Says where in the file the trouble is, as far as that is known.
fn refused(text: &str, error: &EditError) -> Error {
    let span = match error {
        EditError::Text(error) => Some(error.span),
        EditError::Template { span } => Some(*span),
        _ => None,
    };
    let place = span.map(|span| YamlSource::new("", text).position(span.start));
    let message = match place {
        Some(at) => format!("line {}, column {}: {error}", at.line, at.column),
        None => error.to_string(),
    };
    let refused = Error::invalid(message);
    match error {
        EditError::Missing { .. } => refused.with_hint("`create: true` adds what is missing"),
        _ => refused,
    }
}

/// An archive or a document with values set, computed while it is read.
#[derive(Debug)]
struct Localized {
    edits: Arc<Edits>,
    limits: Arc<Limits>,
    input: Blob,
}

impl Source for Localized {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        let (edits, limits, input) = (self.edits.clone(), self.limits.clone(), self.input.clone());
        Box::pin(async move {
            let stream = if edits.file.is_some() {
                archive(edits, limits, input).await?
            } else {
                document(&edits, &limits, &input).await?
            };
            skip(stream, offset).await
        })
    }

    fn access(&self) -> Access {
        self.input.access()
    }

    fn hosts(&self) -> Vec<Host> {
        self.input.hosts()
    }
}

async fn document(edits: &Edits, limits: &Limits, input: &Blob) -> Result<ByteStream, Error> {
    let bytes = input.read(MEMBER_LIMIT).await?;
    let tar = bytes.get(TAR_MAGIC.0..).unwrap_or_default();
    if bytes.starts_with(&MAGIC) || tar.starts_with(TAR_MAGIC.1) {
        return Err(Error::invalid(
            "this is an archive, and nothing says which file in it to change",
        )
        .with_hint("set `file`, as in `file: \"*/values.yaml\"`"));
    }
    let _permit = limits.cpu().await;
    let bytes = edits.apply(&bytes)?.map_or(bytes, Into::into);
    Ok(stream::iter([Ok(bytes)]).boxed())
}

async fn archive(edits: Arc<Edits>, limits: Arc<Limits>, input: Blob) -> Result<ByteStream, Error> {
    let (head, stream) = peek(input.open().await?, MAGIC.len()).await?;
    if head != MAGIC {
        return Ok(pipe(stream, Tar::new(Files::new(edits)), limits));
    }
    let (input, stream) = match input.access() {
        Access::Reopenable => (input, stream),
        Access::Once => {
            let kept = keep(stream, &input, &limits).await?;
            let stream = kept.open().await?;
            (kept, stream)
        }
    };
    if !changes(stream, edits.clone(), &limits).await? {
        return input.open().await;
    }
    let plain = gunzip(input.open().await?, &limits);
    let edited = pipe(plain, Tar::new(Files::new(edits)), limits.clone());
    Ok(gzip(edited, GZIP_LEVEL, &limits))
}

/// Keeps what can be read once only.
async fn keep(mut stream: ByteStream, input: &Blob, limits: &Arc<Limits>) -> Result<Blob, Error> {
    let mut spool = Spool::new(limits);
    while let Some(chunk) = stream.next().await {
        spool.write(chunk?).await?;
    }
    Ok(input.clone().with_source(spool.finish()))
}

/// Reads until some file of a compressed archive would change; tells whether one would.
async fn changes(
    stream: ByteStream,
    edits: Arc<Edits>,
    limits: &Arc<Limits>,
) -> Result<bool, Error> {
    let mut stream = gunzip(stream, limits);
    let mut stage = Tar::new(Files::new(edits));
    let mut unused = Vec::new();
    while let Some(chunk) = stream.next().await {
        for piece in chunk?.chunks(PIECE) {
            let _permit = limits.cpu().await;
            stage.push(piece, &mut unused)?;
            unused.clear();
            if stage.rewrite().changed {
                return Ok(true);
            }
        }
    }
    stage.finish(&mut unused)?;
    Ok(stage.rewrite().changed)
}

/// The files of one archive, as they pass.
struct Files {
    edits: Arc<Edits>,
    changed: bool,
    edited: Vec<String>,
    others: Vec<String>,
    count: usize,
}

impl Files {
    fn new(edits: Arc<Edits>) -> Self {
        Self {
            edits,
            changed: false,
            edited: Vec::new(),
            others: Vec::new(),
            count: 0,
        }
    }
}

impl Rewrite for Files {
    fn wants(&mut self, path: &str) -> bool {
        let glob = self.edits.file.as_ref();
        let wanted = glob.is_some_and(|(_, glob)| glob.is_match(path));
        if !wanted {
            self.count += 1;
            if self.others.len() < LISTED {
                self.others.push(path.to_owned());
            }
        }
        wanted
    }

    fn rewrite(&mut self, path: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let edited = self.edits.apply(bytes);
        let edited = edited.map_err(|error| error.context(format!("file `{path}`")))?;
        self.changed |= edited.is_some();
        self.edited.push(path.to_owned());
        Ok(edited)
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some((pattern, _)) = &self.edits.file else {
            return Ok(());
        };
        if !self.edited.is_empty() || self.edits.allow_missing {
            tracing::debug!(step = self.edits.step, files = ?self.edited, "localized");
            return Ok(());
        }
        let mut hint = match self.others.as_slice() {
            [] => "it has no files at all".to_owned(),
            others => format!("it has `{}`", others.join("`, `")),
        };
        if self.count > self.others.len() {
            hint.push_str(&format!(" and {} more", self.count - self.others.len()));
        }
        let error = Error::not_found(format!("no file of the archive matches `{pattern}`"));
        Err(error.with_hint(hint))
    }
}

#[cfg(test)]
mod tests;
