//! Writing artifacts into tars.
//!
//! OCI image layouts: `oci-layout`, `index.json`, then blobs sorted by digest, time 0, mode 0644, no folder entries.
//! Artifact sets are as the Go library v1 writes them, to the byte (formats.md 3.5). Equal artifacts give equal bytes; still,
//! digests belong to manifests, other tools order tars otherwise (trap T22).

use std::collections::BTreeMap;
use std::sync::Arc;

use ocm_specs::Digest;
use ocm_specs::media_type;
use ocm_specs::oci::{Annotations, Manifest};

use super::{INDEX, LAYOUT, MAIN, REF_NAME, SET_INDEXES, TAGS};
use crate::artifact::Artifact;
use crate::blob::Blob;
use crate::copy::{
    self, DEPTH_LIMIT, MANIFEST_BYTES_LIMIT, MANIFESTS_LIMIT, REFERRERS_DEPTH_LIMIT, Referrers,
};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::segments::Segments;
use crate::store::{ContentStore, RawManifest};
use crate::tarball::{TarEntry, TarKind, end_of_tar, padding};

/// The time of all entries of an artifact set: 2022-01-01T00:00:00Z.
const SET_TIME: u64 = 1_640_995_200;

/// How an artifact lies in a tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveForm {
    /// An OCI image layout: what the library v2 hands on.
    Layout,
    /// An artifact set in its own form, with `artifact-descriptor.json`.
    OcmSet,
    /// The artifact set that the library v1 writes by default: files as in a layout, but blobs all in one folder.
    LegacySet,
    /// An artifact set that is an OCI image layout, too.
    OciSet,
}

impl ArchiveForm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Layout, Self::OcmSet, Self::LegacySet, Self::OciSet];

    /// The media type of an archive of an artifact of that media type, uncompressed.
    pub fn media_type(self, root: &str) -> String {
        match self {
            Self::Layout => media_type::OCI_LAYOUT_TAR.to_owned(),
            _ => format!("{}+tar", root.strip_suffix("+json").unwrap_or(root)),
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::OcmSet => SET_INDEXES[0],
            _ => INDEX,
        }
    }

    fn blob(self, digest: &Digest) -> String {
        let separator = match self {
            Self::Layout | Self::OciSet => '/',
            Self::OcmSet | Self::LegacySet => '.',
        };
        format!("blobs/{}{separator}{}", digest.algorithm(), digest.hex())
    }
}

/// The artifact as an OCI image layout tar, named `tag` in its index if given, without what refers to it.
///
/// # Errors
/// Those of [`archive`].
pub async fn layout_tar(
    artifact: &Artifact,
    tag: Option<&str>,
    limits: &Arc<Limits>,
) -> Result<Blob> {
    archive(artifact, ArchiveForm::Layout, tag, Referrers::None, limits).await
}

/// The artifact in a tar, named `tag` in its index if given.
///
/// Manifests are read here; blobs when the tar is read, so that nothing is buffered and the size is known beforehand. Of a
/// composed artifact the parts that can be read once only are spooled here, since the index comes first. Foreign layers
/// that the store lacks are left out.
///
/// # Errors
/// [`crate::ErrorKind::Limit`] for artifacts beyond the limits of [`crate::copy`], besides what reading gives.
pub async fn archive(
    artifact: &Artifact,
    form: ArchiveForm,
    tag: Option<&str>,
    referrers: Referrers,
    limits: &Arc<Limits>,
) -> Result<Blob> {
    let mut parts = Parts::default();
    let (root, store) = match artifact {
        Artifact::Stored(stored) => {
            let root = copy::read_manifest(stored.store.as_ref(), &stored.root).await?;
            (root, &stored.store)
        }
        Artifact::Composed(composed) => {
            let (root, blobs) = copy::complete(composed, limits).await?;
            for blob in blobs {
                if let Some(descriptor) = blob.descriptor() {
                    parts.blobs.insert(descriptor.digest, blob);
                }
            }
            (root, &composed.store)
        }
    };
    let mut listed = vec![root.clone()];
    let mut subjects = parts.collect(root.clone(), store).await?;
    // A composed artifact is new: nothing refers to it yet.
    if referrers == Referrers::All && matches!(artifact, Artifact::Stored(_)) {
        for _ in 0..REFERRERS_DEPTH_LIMIT {
            let mut next = Vec::new();
            for subject in std::mem::take(&mut subjects) {
                for link in store.referrers(&subject).await? {
                    if parts.blobs.contains_key(&link.digest) {
                        continue;
                    }
                    let referrer = copy::read_manifest(store.as_ref(), &link).await?;
                    next.extend(parts.collect(referrer.clone(), store).await?);
                    listed.push(referrer);
                }
            }
            subjects = next;
        }
    }
    // Whatever order the store lists them in.
    listed[1..].sort_by(|a, b| a.digest.cmp(&b.digest));
    segments(&index(form, &root, &listed, tag), form, parts)
        .map(|segments| segments.into_blob(form.media_type(&root.media_type)))
}

fn index(
    form: ArchiveForm,
    root: &RawManifest,
    listed: &[RawManifest],
    tag: Option<&str>,
) -> Manifest {
    let mut links: Vec<_> = listed.iter().map(RawManifest::descriptor).collect();
    if let (Some(tag), Some(link)) = (tag, links.first_mut()) {
        let mut names = Annotations::from([(REF_NAME.to_owned(), tag.to_owned())]);
        if form != ArchiveForm::Layout {
            names.insert(TAGS.to_owned(), tag.to_owned());
        }
        link.annotations = Some(names);
    }
    let mut index = Manifest::index(links);
    if form == ArchiveForm::Layout {
        // As the Go library v2 writes it.
        index.media_type = None;
    } else {
        let main = (MAIN.to_owned(), root.digest.to_string());
        index.annotations = Some(Annotations::from([main]));
    }
    index
}

fn segments(index: &Manifest, form: ArchiveForm, parts: Parts) -> Result<Segments> {
    let mut writer = Writer {
        segments: Segments::new(),
        is_set: form != ArchiveForm::Layout,
    };
    let layout = match form {
        ArchiveForm::Layout => Some(r#"{"imageLayoutVersion":"1.0.0"}"#),
        ArchiveForm::OcmSet => None,
        ArchiveForm::LegacySet | ArchiveForm::OciSet => {
            Some("{\n    \"imageLayoutVersion\": \"1.0.0\"\n}\n")
        }
    };
    let layout = layout.map(|text| (LAYOUT, Blob::from_bytes("", text)));
    let index = (form.index(), Blob::from_bytes("", index.to_bytes()));
    let mut head = vec![index];
    head.extend(layout);
    if form == ArchiveForm::Layout {
        head.reverse();
    }
    for (path, blob) in head {
        writer.file(path, blob)?;
    }
    if writer.is_set {
        writer.folder("blobs")?;
    }
    let mut folder = None;
    for (digest, blob) in parts.blobs {
        if form == ArchiveForm::OciSet && folder != Some(digest.algorithm()) {
            writer.folder(&format!("blobs/{}", digest.algorithm()))?;
            folder = Some(digest.algorithm());
        }
        writer.file(&form.blob(&digest), blob)?;
    }
    writer.segments.push(Blob::from_bytes("", end_of_tar()))?;
    Ok(writer.segments)
}

/// Tar entries in the manner of the library that the form is from.
struct Writer {
    segments: Segments,
    is_set: bool,
}

impl Writer {
    fn file(&mut self, path: &str, blob: Blob) -> Result<()> {
        let size = blob
            .size
            .ok_or_else(|| Error::internal("the size of a part is not known"))?;
        self.header(TarEntry::file(path, size))?;
        self.segments.push(blob)?;
        self.segments.push(Blob::from_bytes("", padding(size)))
    }

    fn folder(&mut self, path: &str) -> Result<()> {
        self.header(TarEntry {
            kind: TarKind::Directory,
            mode: 0o755,
            ..TarEntry::file(path, 0)
        })
    }

    fn header(&mut self, entry: TarEntry) -> Result<()> {
        let bytes = if self.is_set {
            let entry = TarEntry {
                mtime: SET_TIME,
                ..entry
            };
            entry.header_like_go()?
        } else {
            entry.header()?
        };
        self.segments.push(Blob::from_bytes("", bytes))
    }
}

/// What goes into the archive.
#[derive(Default)]
struct Parts {
    blobs: BTreeMap<Digest, Blob>,
    manifests: usize,
    manifest_bytes: u64,
}

impl Parts {
    /// Adds a manifest and all that is below it, unless it is there. Gives the manifests that are new.
    async fn collect(
        &mut self,
        root: RawManifest,
        store: &Arc<dyn ContentStore>,
    ) -> Result<Vec<Digest>> {
        self.count(&root)?;
        let mut added = Vec::new();
        let mut level = vec![root];
        for depth in 0.. {
            if level.is_empty() {
                break;
            }
            if depth > DEPTH_LIMIT {
                return Err(Error::limit(format!(
                    "index nests deeper than {DEPTH_LIMIT} levels"
                )));
            }
            let mut next = Vec::new();
            for raw in std::mem::take(&mut level) {
                added.push(raw.digest.clone());
                self.add(raw, store, &mut next).await?;
            }
            level = next;
        }
        Ok(added)
    }

    /// Counts a manifest when it is read: from then on it is in memory.
    fn count(&mut self, raw: &RawManifest) -> Result<()> {
        self.manifests += 1;
        self.manifest_bytes += raw.bytes.len() as u64;
        if self.manifests > MANIFESTS_LIMIT || self.manifest_bytes > MANIFEST_BYTES_LIMIT {
            return Err(Error::limit(format!(
                "artifact has more than {MANIFESTS_LIMIT} manifests, or more than {MANIFEST_BYTES_LIMIT} bytes of them"
            )));
        }
        Ok(())
    }

    async fn add(
        &mut self,
        raw: RawManifest,
        store: &Arc<dyn ContentStore>,
        next: &mut Vec<RawManifest>,
    ) -> Result<()> {
        let manifest = raw.parse()?;
        let own = Blob::from_bytes(raw.media_type.clone(), raw.bytes.clone())
            .expect_content(raw.digest.clone(), raw.bytes.len() as u64);
        self.blobs.insert(raw.digest, own);
        for link in manifest.blobs() {
            if self.blobs.contains_key(&link.digest)
                || (copy::is_foreign(link) && !store.exists(link).await?)
            {
                continue;
            }
            let blob = copy::inline(link).unwrap_or_else(|| store.fetch(link));
            self.blobs.insert(link.digest.clone(), blob);
        }
        for link in manifest.children() {
            let expected = next.iter().any(|raw| raw.digest == link.digest);
            if expected || self.blobs.contains_key(&link.digest) {
                continue;
            }
            if !link.is_manifest() {
                self.blobs.insert(link.digest.clone(), store.fetch(link));
                continue;
            }
            let child = copy::read_manifest(store.as_ref(), link).await?;
            self.count(&child)?;
            next.push(child);
        }
        Ok(())
    }
}
