//! What steps of plugins gave, kept from run to run: notes by a key, contents by their digest.
//!
//! Invariants: only this program writes here, into a folder that nobody else may write to; nothing is taken from it that has
//! not the digest it was kept under; what is damaged, lost or of another version is as if it had never been there; and what
//! is kept has bounds, one content and all of them. Nothing here makes a run fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::StreamExt;
use ocm_content::{Blob, Disk, Error, FileSource};
use ocm_specs::{Algorithm, Digest, Hasher};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tempfile::NamedTempFile;

use crate::folder::Folder;

/// Version of the notes; others are as if they were not there.
const FORMAT: u32 = 1;
/// Largest note, in bytes.
const NOTE: usize = 8 << 20;
/// Largest content that is kept, in bytes.
const CONTENT: u64 = 1 << 30;
/// Bytes of all that is kept; when there are more, what was not used for longest goes.
const TOTAL: u64 = 4 << 30;
/// Age of a file that is being written after which nobody writes it any more.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Start of the names of files that are being written.
const STAGED: &str = ".keeping-";

/// Results of steps in a folder.
#[derive(Debug)]
pub struct Results {
    folder: Folder,
    disk: Disk,
    total: u64,
    /// Bytes that were kept since the folder was opened.
    kept: AtomicU64,
    is_open: AtomicBool,
    known: AtomicU64,
    unknown: AtomicU64,
}

/// A note as it is written.
#[derive(Serialize, Deserialize)]
struct Note {
    format: u32,
    /// The plugin it is about, so that it goes with it.
    plugin: Digest,
    value: Json,
}

impl Results {
    /// Uses that folder; makes it when something is kept.
    pub fn new(folder: impl Into<PathBuf>, disk: Disk) -> Arc<Self> {
        Self::of_size(folder, disk, TOTAL)
    }

    /// The same with room for so many bytes.
    pub fn of_size(folder: impl Into<PathBuf>, disk: Disk, total: u64) -> Arc<Self> {
        Arc::new(Self {
            folder: Folder::new(folder),
            disk,
            total,
            kept: AtomicU64::new(0),
            is_open: AtomicBool::new(false),
            known: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        })
    }

    /// Steps of this run whose result was known, and steps whose result was not.
    pub fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.known), count(&self.unknown))
    }

    pub(crate) fn count(&self, is_known: bool) {
        let counter = if is_known { &self.known } else { &self.unknown };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn note_path(&self, key: &Digest) -> PathBuf {
        self.folder.path().join(format!("{}.json", key.hex()))
    }

    fn content_path(&self, digest: &Digest) -> PathBuf {
        self.folder.path().join(format!("{}.bytes", digest.hex()))
    }

    /// Is the folder fit for use? The first who asks makes room.
    fn open(&self) -> Result<(), Error> {
        self.folder.make()?;
        if !self.is_open.swap(true, Ordering::Relaxed) {
            self.make_room(self.total)?;
        }
        Ok(())
    }

    /// The note of that key, if it is whole.
    pub(crate) async fn note<T: DeserializeOwned>(self: &Arc<Self>, key: &Digest) -> Option<T> {
        let (this, key) = (self.clone(), key.clone());
        let value = blocking(move || Ok(this.read_note(&key))).await.ok()??;
        serde_json::from_value(value).ok()
    }

    fn read_note(&self, key: &Digest) -> Option<Json> {
        self.folder.check().ok()?;
        let path = self.note_path(key);
        if fs::metadata(&path).ok()?.len() > NOTE as u64 {
            return None;
        }
        let note = parse(&fs::read_to_string(&path).ok()?)?;
        touch(&path);
        Some(note.value)
    }

    /// Keeps a note.
    pub(crate) async fn keep_note(
        self: &Arc<Self>,
        key: &Digest,
        plugin: &Digest,
        value: &impl Serialize,
    ) -> Result<(), Error> {
        let internal = |error| Error::internal(format!("a note on a step: {error}"));
        let note = Note {
            format: FORMAT,
            plugin: plugin.clone(),
            value: serde_json::to_value(value).map_err(internal)?,
        };
        let text = serde_json::to_string(&note).map_err(internal)?;
        let text = format!("{}\n{text}\n", Digest::sha256(text.as_bytes()));
        if text.len() > NOTE {
            return Err(Error::limit(format!("a note of {} bytes", text.len())));
        }
        let (this, path) = (self.clone(), self.note_path(key));
        blocking(move || {
            this.open()?;
            this.take(text.len() as u64)?;
            let written = this.disk.replace(&path, text.as_bytes());
            written.map_err(|error| Error::io(format!("write {}", path.display()), &error))
        })
        .await
    }

    /// The content of that digest, if it is whole: it is read once to be sure.
    pub(crate) async fn content(
        self: &Arc<Self>,
        media_type: &str,
        digest: &Digest,
        size: u64,
    ) -> Option<Blob> {
        let (this, wanted) = (self.clone(), digest.clone());
        let is_whole = blocking(move || Ok(this.is_whole(&wanted, size))).await;
        if !is_whole.ok()? {
            return None;
        }
        let source = FileSource::new(self.content_path(digest), 0, size);
        let source = source.with_digest(digest.clone());
        Some(Blob::new(media_type, Arc::new(source)).expect_content(digest.clone(), size))
    }

    fn is_whole(&self, digest: &Digest, size: u64) -> bool {
        let path = self.content_path(digest);
        let found = self.folder.check().and_then(|()| {
            digest_of(&path).map_err(|error| Error::io(format!("read {}", path.display()), &error))
        });
        match found {
            Ok((found, length)) if found == *digest && length == size => {
                touch(&path);
                true
            }
            Ok(_) => {
                tracing::warn!("{} was changed; it is made again", path.display());
                // Best effort: it will be written over.
                let _ = self.disk.remove_file(&path);
                false
            }
            Err(_) => false,
        }
    }

    /// Starts to keep a content.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<Keeping, Error> {
        let this = self.clone();
        blocking(move || {
            this.open()?;
            let mut builder = tempfile::Builder::new();
            let builder = builder.prefix(STAGED);
            let folder = this.folder.path();
            let file = this.disk.create_in(builder, folder).map_err(|error| {
                Error::io(format!("create a file in {}", folder.display()), &error)
            })?;
            Ok(Keeping {
                file,
                hasher: Hasher::new(Algorithm::Sha256),
                length: 0,
                results: this,
            })
        })
        .await
    }

    /// Keeps a content that is there already.
    pub(crate) async fn keep(self: &Arc<Self>, blob: &Blob) -> Result<(Digest, u64), Error> {
        let mut keeping = self.begin().await?;
        let mut stream = blob.open().await?;
        while let Some(chunk) = stream.next().await {
            keeping = keeping.write(chunk?).await?;
        }
        let kept = keeping.finish(|_, _| true).await?;
        kept.ok_or_else(|| Error::internal("a result that is wanted is kept"))
    }

    /// Counts bytes that are going to be kept.
    fn take(&self, bytes: u64) -> Result<(), Error> {
        let kept = self.kept.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if kept > self.total {
            return Err(Error::limit(format!(
                "more than {} bytes of results in one run",
                self.total
            )));
        }
        Ok(())
    }

    /// Removes what was not used for longest until there is a quarter of room, if there is more than `limit`.
    fn make_room(&self, limit: u64) -> Result<(), Error> {
        let mut files = self.files()?;
        let mut total: u64 = files.iter().map(|file| file.size).sum();
        let now = SystemTime::now();
        let age = |file: &Kept| now.duration_since(file.used).unwrap_or_default();
        files.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        let is_over = total > limit;
        for file in files {
            let is_abandoned = file.is_staged() && age(&file) > ABANDONED;
            let is_surplus = is_over && !file.is_staged() && total > limit / 4 * 3;
            if is_abandoned || is_surplus {
                self.remove(&file)?;
                total -= file.size;
            }
        }
        Ok(())
    }

    /// Removes the results of plugins that `keep` does not want, and contents that no note needs; gives the number of bytes.
    ///
    /// # Errors
    /// What removing files gives.
    pub fn prune(&self, keep: impl Fn(&Digest) -> bool) -> Result<u64, Error> {
        let mut freed = 0;
        let mut needed = std::collections::BTreeSet::new();
        let (notes, others): (Vec<Kept>, Vec<Kept>) =
            self.files()?.into_iter().partition(Kept::is_note);
        for file in notes {
            let note = fs::read_to_string(&file.path).ok();
            match note.as_deref().and_then(parse) {
                Some(note) if keep(&note.plugin) => digests(&note.value, &mut needed),
                _ => {
                    self.remove(&file)?;
                    freed += file.size;
                }
            }
        }
        for file in others {
            let name = file.path.file_stem().unwrap_or_default().to_string_lossy();
            if !needed.contains(&*name) {
                self.remove(&file)?;
                freed += file.size;
            }
        }
        Ok(freed)
    }

    fn remove(&self, file: &Kept) -> Result<(), Error> {
        match self.disk.remove_file(&file.path) {
            // Somebody else did.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .map_err(|error| Error::io(format!("remove {}", file.path.display()), &error)),
        }
    }

    fn files(&self) -> Result<Vec<Kept>, Error> {
        let doing = || format!("read {}", self.folder.path().display());
        let listing = match fs::read_dir(self.folder.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(|error| Error::io(doing(), &error))?,
        };
        let mut files = Vec::new();
        for file in listing {
            let file = file.map_err(|error| Error::io(doing(), &error))?;
            let path = file.path();
            let is_ours = path
                .extension()
                .is_some_and(|end| end == "json" || end == "bytes")
                || file.file_name().to_string_lossy().starts_with(STAGED);
            // What goes meanwhile is gone.
            let Some(metadata) = file
                .metadata()
                .ok()
                .filter(|found| is_ours && found.is_file())
            else {
                continue;
            };
            files.push(Kept {
                path,
                size: metadata.len(),
                used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
        Ok(files)
    }
}

/// A file of the folder.
struct Kept {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl Kept {
    fn is_staged(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(STAGED)
    }

    fn is_note(&self) -> bool {
        self.path.extension().is_some_and(|end| end == "json")
    }
}

/// A content that is being kept. Dropped before its end it leaves nothing.
pub(crate) struct Keeping {
    results: Arc<Results>,
    file: NamedTempFile,
    hasher: Hasher,
    length: u64,
}

impl Keeping {
    /// Appends.
    pub(crate) async fn write(mut self, chunk: Bytes) -> Result<Self, Error> {
        self.length += chunk.len() as u64;
        if self.length > CONTENT {
            return Err(Error::limit(format!(
                "a result of more than {CONTENT} bytes"
            )));
        }
        self.results.take(chunk.len() as u64)?;
        blocking(move || {
            self.hasher.update(&chunk);
            let name = self.file.path().to_owned();
            let disk = self.results.disk.clone();
            let written = disk.write_all(self.file.as_file_mut(), &name, &[chunk]);
            written.map_err(|error| Error::io(format!("write {}", name.display()), &error))?;
            Ok(self)
        })
        .await
    }

    /// What was kept, which is there as a whole from now on; nothing if `is_wanted` does not want it.
    pub(crate) async fn finish(
        self,
        is_wanted: impl FnOnce(&Digest, u64) -> bool + Send + 'static,
    ) -> Result<Option<(Digest, u64)>, Error> {
        blocking(move || {
            let digest = self.hasher.finish();
            if !is_wanted(&digest, self.length) {
                return Ok(None);
            }
            let path = self.results.content_path(&digest);
            let renamed = self.results.disk.rename(self.file, &path);
            renamed
                .map_err(|error| Error::io(format!("write {}", path.display()), &error.error))?;
            Ok(Some((digest, self.length)))
        })
        .await
    }
}

/// The note in a text that begins with the digest of its rest.
fn parse(text: &str) -> Option<Note> {
    let (digest, rest) = text.split_once('\n')?;
    let rest = rest.strip_suffix('\n')?;
    if Digest::sha256(rest.as_bytes()).to_string() != digest {
        return None;
    }
    let note: Note = serde_json::from_str(rest).ok()?;
    (note.format == FORMAT).then_some(note)
}

/// All digests in a note, without their algorithm.
fn digests(value: &Json, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Json::String(text) => found.extend(text.strip_prefix("sha256:").map(str::to_owned)),
        Json::Array(list) => list.iter().for_each(|item| digests(item, found)),
        Json::Object(map) => map.values().for_each(|item| digests(item, found)),
        _ => {}
    }
}

fn digest_of(path: &Path) -> std::io::Result<(Digest, u64)> {
    use std::io::Read;
    let mut file = fs::File::open(path)?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.finish(), length)),
            count => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

/// Notes that it was used. A folder that can't be written is used all the same.
fn touch(path: &Path) {
    let file = fs::File::open(path);
    let _ = file.and_then(|file| file.set_modified(SystemTime::now()));
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("a file of results: {error}")))?
}
