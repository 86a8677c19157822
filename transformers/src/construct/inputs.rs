//! From inputs to content: lazily wherever that is possible.

use std::path::Path;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use ocm_content::{Artifact, Blob, Content, Error, open_archive};
use ocm_repository::Session;
use ocm_specs::access::{Access, AccessType};
use ocm_specs::constructor::{DirInput, Input};
use ocm_specs::media_type::{OCI_LAYOUT_TAR, OCI_LAYOUT_TAR_GZIP, is_gzip};
use serde_json::Value as Json;

use super::folder::Walk;
use super::patterns::{Patterns, is_ambiguous};
use super::root::Root;
use super::{chart, remote, sniff};
use crate::pipe::Compressed;
use crate::platforms;

/// Media type of a folder's tar, where none is given.
const TAR: &str = "application/x-tar";

/// Content and what it is called when it is uploaded.
pub(super) struct Taken {
    pub(super) content: Content,
    pub(super) hint: Option<String>,
    /// What the author may not have meant.
    pub(super) warnings: Vec<String>,
}

/// What inputs need.
pub(super) struct Inputs<'s> {
    pub(super) session: &'s Session,
    /// Seconds since 1970 that packed files have.
    pub(super) mtime: u64,
}

impl Inputs<'_> {
    /// Is there what an input names beside the constructor? Cheap, so that all mistakes are told before anything is moved.
    pub(super) fn look(root: &Root, input: &Input) -> Result<(), Error> {
        match input {
            Input::File { path, .. } => {
                let found = root.resolve(path)?;
                if found.is_dir() {
                    return Err(Error::invalid(format!("`{path}` is a folder"))
                        .with_hint("use `type: dir` for folders"));
                }
            }
            Input::Dir(dir) => {
                Patterns::new(&dir.include, &dir.exclude)?;
                if !root.resolve(&dir.path)?.is_dir() {
                    return Err(Error::invalid(format!("`{}` is no folder", dir.path))
                        .with_hint("use `type: file` for files"));
                }
            }
            Input::Chart { path, .. } => {
                root.resolve(path)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The content of an input.
    ///
    /// # Errors
    /// What files, folders and registries give; content that is not what it is announced as.
    pub(super) async fn take(&self, root: &Root, input: &Input) -> Result<Taken, Error> {
        let limits = self.session.limits();
        let (content, hint) = match input {
            Input::File {
                path,
                media_type,
                compress,
            } => {
                let found = root.resolve(path)?;
                let mut blob = Blob::from_file("", &found).await?;
                blob.media_type = match media_type {
                    Some(media_type) => media_type.clone(),
                    None => self.sniffed(&blob).await?,
                };
                (self.opened(self.compressed(blob, *compress)).await?, None)
            }
            Input::Dir(dir) => (self.folder(root, dir).await?.into(), None),
            Input::Bytes {
                bytes,
                media_type,
                compress,
            } => {
                let blob = Blob::from_bytes(media_type.clone(), bytes.clone());
                (self.opened(self.compressed(blob, *compress)).await?, None)
            }
            Input::Chart { path, hint } => {
                let artifact = chart::local(root, &root.resolve(path)?, self.mtime, limits).await?;
                (artifact.into(), hint.clone())
            }
            Input::Fetched {
                access,
                chart,
                platforms,
                hint,
            } => {
                let content = if *chart {
                    self.fetched_chart(access).await?
                } else {
                    let content = remote::content(self.session, access).await?;
                    only_platforms(content, platforms).await?
                };
                (content, hint.clone())
            }
            _ => return Err(Error::unsupported("this kind of input is not known here")),
        };
        let warnings = match input {
            Input::Dir(dir) => ambiguous(dir),
            _ => Vec::new(),
        };
        Ok(Taken {
            content,
            hint,
            warnings,
        })
    }

    /// A chart that is an artifact stays one; a packed one becomes one, with its provenance where there is one.
    async fn fetched_chart(&self, access: &Json) -> Result<Content, Error> {
        let limits = self.session.limits();
        if matches!(
            remote::parse(access)?,
            Access::Other {
                kind: AccessType::Helm,
                ..
            }
        ) {
            let chart = self.session.helm_chart(access, None).boxed().await?;
            let provenance = chart.provenance.as_ref();
            return Ok(chart::packed(&chart.archive, provenance, limits)
                .await?
                .into());
        }
        match remote::content(self.session, access).await? {
            Content::Blob(blob) => Ok(chart::packed(&blob, None, limits).await?.into()),
            artifact => Ok(artifact),
        }
    }

    /// An OCI layout becomes the artifact that it holds (formats.md 3.5); all else stays as it is.
    async fn opened(&self, blob: Blob) -> Result<Content, Error> {
        if !matches!(
            blob.media_type.as_str(),
            OCI_LAYOUT_TAR | OCI_LAYOUT_TAR_GZIP
        ) {
            return Ok(blob.into());
        }
        let artifact: Artifact = open_archive(&blob, self.session.limits())
            .await
            .map_err(|error| error.context(format!("it is announced as {}", blob.media_type)))?;
        Ok(artifact.into())
    }

    fn compressed(&self, blob: Blob, compress: bool) -> Blob {
        if !compress {
            return blob;
        }
        // Who names the type of the compressed content has named it already.
        let media_type = if is_gzip(&blob.media_type) {
            blob.media_type.clone()
        } else {
            sniff::gzipped(&blob.media_type)
        };
        let limits = self.session.limits().clone();
        Blob::new(
            media_type,
            Arc::new(Compressed {
                inner: blob,
                limits,
            }),
        )
    }

    async fn sniffed(&self, blob: &Blob) -> Result<String, Error> {
        let mut head = Vec::new();
        let mut stream = blob.open_at(0).await?;
        while head.len() < sniff::SNIFFED
            && let Some(chunk) = stream.next().await
        {
            head.extend_from_slice(&chunk?);
        }
        let complete = head.len() <= sniff::SNIFFED && blob.size == Some(head.len() as u64);
        head.truncate(sniff::SNIFFED);
        Ok(sniff::media_type(&head, complete).to_owned())
    }

    async fn folder(&self, root: &Root, dir: &DirInput) -> Result<Blob, Error> {
        let (root, input, mtime) = (root.clone(), dir.clone(), self.mtime);
        let listed = tokio::task::spawn_blocking(move || {
            let folder = root.resolve(&input.path)?;
            let patterns = Patterns::new(&input.include, &input.exclude)?;
            let prefix = if input.preserve_dir {
                prefix(&folder)
            } else {
                String::new()
            };
            let walk = Walk {
                root: &root,
                follow: input.follow_symlinks,
                folders: true,
                prefix: prefix.clone(),
                mtime,
            };
            // v2 compares paths as they are in the tar, v1 paths below the folder.
            let listing =
                walk.list(&folder, &|path, is_folder| patterns.decide(path, is_folder))?;
            listing.into_tar(input.media_type.as_deref().unwrap_or(TAR))
        });
        let blob = listed
            .await
            .map_err(|error| Error::internal(format!("file work ended: {error}")))??;
        Ok(self.compressed(blob, dir.compress))
    }
}

/// The folder's own name, as the start of paths.
fn prefix(folder: &Path) -> String {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.map(|name| format!("{name}/")).unwrap_or_default()
}

/// Patterns that v1 would read as regular expressions, and that mean something else as globs.
fn ambiguous(dir: &DirInput) -> Vec<String> {
    let patterns = dir
        .include
        .iter()
        .chain(&dir.exclude)
        .filter(|pattern| is_ambiguous(pattern));
    patterns
        .map(|pattern| {
            format!("`{pattern}` is read as a glob; as a regular expression write `^{pattern}`")
        })
        .collect()
}

/// Of an image for several platforms, those that are wanted.
async fn only_platforms(content: Content, wanted: &[String]) -> Result<Content, Error> {
    match content {
        Content::Artifact(artifact) if !wanted.is_empty() => {
            platforms::filter(artifact, wanted).await.map(Into::into)
        }
        other => Ok(other),
    }
}
