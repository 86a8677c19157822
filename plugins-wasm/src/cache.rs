//! What is kept of plugins from run to run: components, their descriptions, and their precompiled code.
//!
//! Invariant: precompiled code is code of ours. It is written here only, into a folder that nobody else may write to, and
//! mapped only if it still has the digest that was noted when it was written. It is never taken from anywhere else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ocm_content::Error;
use ocm_specs::Digest;
use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::description::Description;
use crate::folder::Folder;

/// Version of the notes and of what descriptions in them were judged by; others are as if they were not there.
const FORMAT: u32 = 2;
/// Largest notes that are read, in bytes.
const NOTES_LIMIT: u64 = 32 << 20;

/// The folder.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: Folder,
}

/// What is noted about a component, beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Notes {
    format: u32,
    description: Description,
    /// Does the component import `fetch`?
    fetches: bool,
    /// Digests of precompiled code, by the key of the engine that made it.
    #[serde(default)]
    code: BTreeMap<String, String>,
}

/// What is known of a component without compiling it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) description: Description,
    pub(crate) fetches: bool,
}

/// One entry, as `ocm plugin ls` shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The component's digest.
    pub digest: Digest,
    /// What it says of itself.
    pub description: Description,
    /// Bytes of all files of the entry.
    pub size: u64,
}

impl Cache {
    /// Uses that folder; makes it when something is written.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Folder::new(folder),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, digest: &Digest, end: &str) -> PathBuf {
        self.folder
            .path()
            .join(format!("{}-{}{end}", digest.algorithm(), digest.hex()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.folder.make()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let staged = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let written = (|| {
            let mut file = fs::File::create(&staged)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            drop(file);
            fs::rename(&staged, path)
        })();
        written.map_err(|error| {
            // Best effort: the first error is the one to tell.
            let _ = fs::remove_file(&staged);
            Error::io(format!("write {}", path.display()), &error)
        })
    }

    fn notes(&self, digest: &Digest) -> Option<Notes> {
        let path = self.file(digest, ".json");
        if fs::metadata(&path).ok()?.len() > NOTES_LIMIT {
            return None;
        }
        let notes: Notes = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        (notes.format == FORMAT).then_some(notes)
    }

    /// What is known of that component.
    pub(crate) fn known(&self, digest: &Digest) -> Option<Known> {
        self.folder.check().ok()?;
        let notes = self.notes(digest)?;
        Some(Known {
            description: notes.description,
            fetches: notes.fetches,
        })
    }

    /// The component itself, if its bytes still have the digest.
    pub fn component(&self, digest: &Digest) -> Option<Bytes> {
        let bytes = fs::read(self.file(digest, ".wasm")).ok()?;
        (Digest::of(digest.algorithm(), &bytes) == *digest).then(|| bytes.into())
    }

    /// Keeps a component.
    ///
    /// # Errors
    /// What writing files gives.
    pub(crate) fn keep(&self, digest: &Digest, bytes: &[u8], known: &Known) -> Result<(), Error> {
        self.write(&self.file(digest, ".wasm"), bytes)?;
        let notes = Notes {
            format: FORMAT,
            description: known.description.clone(),
            fetches: known.fetches,
            code: self
                .notes(digest)
                .map(|notes| notes.code)
                .unwrap_or_default(),
        };
        self.write_notes(digest, &notes)
    }

    fn write_notes(&self, digest: &Digest, notes: &Notes) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(notes)
            .map_err(|error| Error::internal(format!("write the notes of a plugin: {error}")))?;
        self.write(&self.file(digest, ".json"), &text)
    }

    /// The precompiled component, if there is one that this engine can use.
    pub(crate) fn code(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        self.folder.check().ok()?;
        let key = key(engine);
        let noted = self.notes(digest)?.code.remove(&key)?;
        let path = self.file(digest, &format!("-{key}.cwasm"));
        let mut file = fs::File::open(&path).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let found = Digest::sha256(&bytes);
        drop(bytes);
        if found.to_string() != noted {
            tracing::warn!("{} was changed; it is compiled again", path.display());
            return None;
        }
        #[expect(
            unsafe_code,
            reason = "the one exception of the house: mapping precompiled code is unsafe by its signature"
        )]
        // SAFETY: the file is what `Component::serialize` gave this program: it was written by `keep_code` into a folder
        // that only this user may write to (`Folder::check`), and its bytes have the digest noted then. It is replaced by
        // rename only, never changed in place, and what is mapped is the file that was read, where the system can say so:
        // the mapping keeps what was checked. wasmtime itself refuses code of another version or configuration.
        let component = unsafe { Component::deserialize_file(engine, opened(&file, &path)) };
        component.ok()
    }

    /// Keeps precompiled code of a component that is kept already.
    pub(crate) fn keep_code(
        &self,
        engine: &Engine,
        digest: &Digest,
        component: &Component,
    ) -> Result<(), Error> {
        let Some(mut notes) = self.notes(digest) else {
            return Ok(());
        };
        let code = component
            .serialize()
            .map_err(|error| Error::internal(format!("precompiled code of a plugin: {error}")))?;
        let key = key(engine);
        self.write(&self.file(digest, &format!("-{key}.cwasm")), &code)?;
        notes.code.insert(key, Digest::sha256(&code).to_string());
        self.write_notes(digest, &notes)
    }

    /// All entries, by name and digest.
    ///
    /// # Errors
    /// What reading the folder gives; a folder that is not there is empty.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for (digest, files) in self.files()? {
            let Some(notes) = self.notes(&digest) else {
                continue;
            };
            entries.push(Entry {
                size: files.iter().map(|(_, size)| size).sum(),
                description: notes.description,
                digest,
            });
        }
        entries.sort_by(|a, b| {
            (&a.description.name, &a.digest).cmp(&(&b.description.name, &b.digest))
        });
        Ok(entries)
    }

    /// Removes what `keep` does not want, and what is no entry; gives the number of bytes.
    ///
    /// # Errors
    /// What removing files gives.
    pub fn prune(&self, keep: impl Fn(&Digest) -> bool) -> Result<u64, Error> {
        let mut freed = 0;
        for (digest, files) in self.files()? {
            if keep(&digest) && self.notes(&digest).is_some() {
                continue;
            }
            for (path, size) in files {
                fs::remove_file(&path)
                    .map_err(|error| Error::io(format!("remove {}", path.display()), &error))?;
                freed += size;
            }
        }
        Ok(freed)
    }

    fn files(&self) -> Result<BTreeMap<Digest, Vec<(PathBuf, u64)>>, Error> {
        let doing = || format!("read {}", self.folder.path().display());
        let mut files: BTreeMap<Digest, Vec<(PathBuf, u64)>> = BTreeMap::new();
        let listing = match fs::read_dir(self.folder.path()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
            listing => listing.map_err(|error| Error::io(doing(), &error))?,
        };
        for file in listing {
            let file = file.map_err(|error| Error::io(doing(), &error))?;
            let name = file.file_name().to_string_lossy().into_owned();
            let mut parts = name.splitn(3, ['-', '.']);
            let (algorithm, hex) = (
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            );
            if let Ok(digest) = format!("{algorithm}:{hex}").parse() {
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                files.entry(digest).or_default().push((file.path(), size));
            }
        }
        Ok(files)
    }
}

/// A path to the file that is open, whatever has its name by now.
#[cfg(target_os = "linux")]
fn opened(file: &fs::File, path: &Path) -> PathBuf {
    use std::os::fd::AsRawFd;
    let opened = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if opened.exists() {
        opened
    } else {
        path.to_owned()
    }
}

#[cfg(not(target_os = "linux"))]
fn opened(_: &fs::File, path: &Path) -> PathBuf {
    path.to_owned()
}

/// What code depends on: version of wasmtime, target, configuration.
fn key(engine: &Engine) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
