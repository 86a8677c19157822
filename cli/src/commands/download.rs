//! `ocm download`: content of component versions into files.
//!
//! *Invariant*: what is under its name was verified to its last byte; until then it lies beside under another name.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{StreamExt, stream};
use ocm_content::unpack::unpack;
use ocm_content::{Artifact, Blob, ByteStream, Content, Error, gzip, layout_tar, open_archive};
use ocm_repository::{Existing, Session};
use ocm_specs::descriptor::Element;
use ocm_specs::media_type::{HELM_CHART_LAYER, is_artifact_archive};
use ocm_specs::{Identity, RepositorySpec};
use ocm_transformers::convert::content_layer;
use ocm_transformers::local_blob::expect_stated;
use tokio::io::AsyncWriteExt;

use crate::args::{ArtifactForm, DownloadComponentVersion, DownloadResource, ExtractionPolicy};
use crate::commands::elements::wanted;
use crate::commands::hash::read;
use crate::commands::session::{self, SessionOptions};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// Bytes that tell what a file is: a tar's header.
const HEAD: usize = 512;

/// What is to be written.
enum Payload {
    /// One file, and the ending that its name gets where the user gave none.
    File(ByteStream, &'static str),
    /// The files of a tar.
    Folder(ByteStream),
}

/// Writes one resource.
pub(crate) async fn resource(args: DownloadResource, ui: &Ui) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let wanted = identity_of(&args)?;
    let resolver = ui.config()?.resolver(&[])?;
    let version = read(&session, &resolver, &args.reference).await?;
    let candidates: Vec<Element<'_>> = version.descriptor.resources().collect();
    let element = one_of(&candidates, &wanted, &args.reference)?;
    let content = session.content(&version, &element).await?;
    let content = expect_stated(content, &element, session.limits()).await?;
    let payload = payload(content, &element, &args, &session).await?;
    if args.output.as_deref() == Some(Path::new("-")) {
        return to_stdout(payload).await;
    }
    let target = match &args.output {
        Some(path) => ui.working_directory().join(path),
        None => {
            let ending = match &payload {
                Payload::File(_, ending) => ending,
                Payload::Folder(..) => "",
            };
            let name = format!("{}{ending}", element.name());
            ui.working_directory().join(name)
        }
    };
    write(payload, &target, args.force).await?;
    ui.data(&format!("{}\n", target.display()))
}

/// The attributes of `--identity` and of the arguments.
fn identity_of(args: &DownloadResource) -> Result<Identity, CliError> {
    let mut texts = args.name.clone();
    for text in &args.identity {
        texts.extend(text.split(',').map(str::to_owned));
    }
    // Only an argument may be a bare name.
    if let Some(bare) = texts
        .iter()
        .skip(args.name.len())
        .find(|it| !it.contains('='))
    {
        return Err(CliError::usage(format!(
            "--identity {bare}: expected NAME=VALUE, as in name=image"
        )));
    }
    let identity = wanted(&texts)?;
    if identity.is_empty() {
        return Err(CliError::usage("which resource?").with_hint(
            "name it: `ocm download resource REFERENCE NAME`, or --identity name=NAME",
        ));
    }
    Ok(identity)
}

fn one_of<'a>(
    all: &[Element<'a>],
    wanted: &Identity,
    reference: &str,
) -> Result<Element<'a>, CliError> {
    let found: Vec<&Element<'a>> = all
        .iter()
        .filter(|element| wanted.selects(&element.identity()))
        .collect();
    let list = |elements: &[&Element<'_>]| {
        let lines = elements
            .iter()
            .take(20)
            .map(|it| format!("\n    {}", it.identity()));
        lines.collect::<String>()
    };
    match found.as_slice() {
        [only] => Ok(**only),
        [] => {
            let error = CliError::new(
                ExitCode::NotFound,
                format!("there is no resource `{wanted}` in {reference}"),
            );
            let all: Vec<&Element<'_>> = all.iter().collect();
            Err(match all.as_slice() {
                [] => error.with_hint("the component version has no resources"),
                some => error.with_hint(format!("it has{}", list(some))),
            })
        }
        several => Err(CliError::new(
            ExitCode::Invalid,
            format!("several resources are `{wanted}`"),
        )
        .with_hint(format!(
            "add attributes until one is left:{}",
            list(several)
        ))),
    }
}

async fn payload(
    content: Content,
    element: &Element<'_>,
    args: &DownloadResource,
    session: &Session,
) -> Result<Payload, CliError> {
    let is_auto = args.extraction_policy == ExtractionPolicy::Auto;
    match content {
        Content::Artifact(artifact) => of_artifact(artifact, args, session).await,
        Content::Blob(blob)
            if is_artifact_archive(&blob.media_type) && (is_auto || args.form.is_some()) =>
        {
            let artifact = open_archive(&blob, session.limits()).await?;
            of_artifact(artifact, args, session).await
        }
        Content::Blob(blob) => {
            if args.form.is_some() {
                let message = format!(
                    "--form: resource `{}` is no OCI artifact but `{}`",
                    element.identity(),
                    blob.media_type
                );
                return Err(CliError::usage(message));
            }
            let is_chart =
                blob.media_type == HELM_CHART_LAYER || element.type_name() == "helmChart";
            of_blob(blob, is_auto && !is_chart, session).await
        }
    }
}

async fn of_artifact(
    artifact: Artifact,
    args: &DownloadResource,
    session: &Session,
) -> Result<Payload, CliError> {
    let layer = match args.form {
        None | Some(ArtifactForm::Layer) => Some(content_layer(artifact.clone()).await),
        Some(_) => None,
    };
    match (args.form, layer) {
        (Some(ArtifactForm::Layer), Some(layer)) => {
            let (blob, _) = layer?;
            of_blob(blob, false, session).await
        }
        (None, Some(Ok((blob, true)))) => of_blob(blob, false, session).await,
        (form, _) => {
            let layout = layout_tar(&artifact, artifact.tag(), session.limits()).await?;
            let is_folder = form == Some(ArtifactForm::Layout)
                || (form.is_none() && args.extraction_policy == ExtractionPolicy::Auto);
            if is_folder {
                Ok(Payload::Folder(layout.open().await?))
            } else {
                Ok(Payload::File(layout.open().await?, ".tar"))
            }
        }
    }
}

/// A blob as it is, or taken out of what it is packed in.
async fn of_blob(blob: Blob, unpack: bool, session: &Session) -> Result<Payload, CliError> {
    let ending = if blob.media_type == HELM_CHART_LAYER {
        ".tgz"
    } else {
        ""
    };
    let (head, bytes) = peek(blob.open().await?).await?;
    if !unpack {
        return Ok(Payload::File(bytes, ending));
    }
    if !head.starts_with(&gzip::MAGIC) {
        return Ok(if is_tar(&head) {
            Payload::Folder(bytes)
        } else {
            Payload::File(bytes, ending)
        });
    }
    let (head, bytes) = peek(gzip::gunzip(bytes, session.limits())).await?;
    Ok(if is_tar(&head) {
        Payload::Folder(bytes)
    } else {
        Payload::File(bytes, ending)
    })
}

/// The first bytes of a stream, and the whole stream.
async fn peek(mut bytes: ByteStream) -> Result<(Vec<u8>, ByteStream), Error> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut head = Vec::new();
    while head.len() < HEAD {
        match bytes.next().await.transpose()? {
            Some(chunk) => {
                head.extend_from_slice(&chunk[..chunk.len().min(HEAD - head.len())]);
                chunks.push(chunk);
            }
            None => break,
        }
    }
    let again = stream::iter(chunks.into_iter().map(Ok)).chain(bytes);
    Ok((head, Box::pin(again)))
}

/// POSIX.1 and GNU tars say so at one place.
fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

async fn to_stdout(payload: Payload) -> Result<(), CliError> {
    let Payload::File(mut bytes, _) = payload else {
        return Err(CliError::usage("a folder can't go to stdout")
            .with_hint("add --extraction-policy disable, or --form tar for an OCI artifact"));
    };
    let mut stdout = tokio::io::stdout();
    let failed = |error: std::io::Error| Error::io("write to stdout", &error);
    while let Some(chunk) = bytes.next().await {
        match stdout.write_all(&chunk?).await {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(failed)?,
        }
    }
    Ok(stdout.flush().await.map_err(failed)?)
}

/// Writes beside the target, then puts it under its name.
async fn write(payload: Payload, target: &Path, force: bool) -> Result<(), CliError> {
    if tokio::fs::symlink_metadata(target).await.is_ok() {
        let is_replaceable = force && matches!(payload, Payload::File(..)) && !target.is_dir();
        if !is_replaceable {
            let message = format!("{} is there already", target.display());
            let hint = if force {
                "remove the folder first"
            } else {
                "choose another --output, or replace a file with --force"
            };
            return Err(CliError::new(ExitCode::Conflict, message).with_hint(hint));
        }
    }
    let staged = staged(target);
    let written = async {
        match payload {
            Payload::File(bytes, _) => write_file(bytes, &staged).await?,
            Payload::Folder(tar) => {
                let made = tokio::fs::create_dir(&staged).await;
                made.map_err(|error| Error::io(format!("create {}", staged.display()), &error))?;
                unpack(tar, &staged).await?;
            }
        }
        let renamed = tokio::fs::rename(&staged, target).await;
        renamed.map_err(|error| Error::io(format!("create {}", target.display()), &error))
    };
    let result = written.await;
    if result.is_err() {
        // Best effort: the first error is the one to tell.
        let _ = tokio::fs::remove_file(&staged).await;
        let _ = tokio::fs::remove_dir_all(&staged).await;
    }
    Ok(result?)
}

fn staged(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

async fn write_file(mut bytes: ByteStream, path: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::io(format!("write {}", path.display()), &error);
    let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
    while let Some(chunk) = bytes.next().await {
        file.write_all(&chunk?).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

/// Writes a component version and the content stored with it into an archive.
pub(crate) async fn component_version(
    args: DownloadComponentVersion,
    ui: &Ui,
) -> Result<(), CliError> {
    let session = session::open(ui, SessionOptions::default())?;
    let resolver = ui.config()?.resolver(&[])?;
    let version = read(&session, &resolver, &args.reference).await?;
    let descriptor = &version.descriptor;
    let target = match &args.output {
        Some(path) => path.clone(),
        None => {
            let name = descriptor.name();
            PathBuf::from(name.rsplit('/').next().unwrap_or(name))
        }
    };
    let spec = RepositorySpec::ctf(target.display().to_string());
    let repository = session.repository(&spec, true).await?;
    for element in descriptor.resources().chain(descriptor.sources()) {
        if !element
            .access()
            .is_ok_and(|access| access.local_blob().is_some())
        {
            continue;
        }
        let content = version.local_blob(&element)?;
        let (kind, value) = (element.kind(), element.value());
        repository
            .prepare_local_blob(descriptor.name(), kind, value, &content)
            .await?;
    }
    let prepared = repository
        .prepare_version(descriptor, Existing::default())
        .await?;
    prepared.publish().await?;
    session::finish(&session).await?;
    ui.data(&format!(
        "{}//{}:{}\n",
        target.display(),
        descriptor.name(),
        descriptor.version()
    ))
}
