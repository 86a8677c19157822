//! What one run changes about an archive file, before that is written.
//!
//! Invariant: blobs are in the staging folder, all else is in memory. Whoever finds a staging folder that a run left
//! finds content and no decisions: nothing of a run that did not end is ever published by another one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ocm_content::{Disk, Error, ErrorKind, Limits, RawManifest, Result};
use ocm_specs::Digest;

use super::archive::{Spooled, Table};
use super::digest_of_name;
use super::directory::{Change, Directory, lock};
use super::file::{Section, os};
use super::index::Index;
use super::pack::Slot;
use super::staging::hash_file;

/// The archive below a staging folder, and what the run has changed of it.
#[derive(Debug)]
pub(super) struct Over {
    /// The index with all changes. Held while one is made, so that it need not be copied.
    index: Mutex<Arc<Index>>,
    state: Mutex<State>,
    /// Blobs that a run before left in the folder, and that nobody has looked at yet.
    left_over: Mutex<BTreeSet<Digest>>,
    /// Blobs of the archive that go.
    forgotten: Mutex<BTreeSet<Digest>>,
    limits: Arc<Limits>,
    spooled: Mutex<Spooled>,
    pub(super) slot: Slot,
}

#[derive(Debug)]
struct State {
    base: Arc<Table>,
    /// All changes in order, should the archive have to be read again.
    notes: Vec<Noted>,
    pending: Pending,
    closed: bool,
}

/// What of an archive is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// Content without a name, as a failed run leaves it.
    Unnamed,
    /// Something that was published under a name, or removed.
    Named,
}

/// A change without its bytes, which are in the folder or the archive.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    change: Kind,
    named: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Put {
        repository: String,
        tag: Option<String>,
        digest: Digest,
        media_type: String,
    },
    Other(Change),
}

impl Noted {
    /// Takes down a change.
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::Put {
                repository,
                tag,
                manifest,
                ..
            } => Self {
                named: tag.is_some(),
                change: Kind::Put {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    digest: manifest.digest.clone(),
                    media_type: manifest.media_type.clone(),
                },
            },
            other => Self {
                named: true,
                change: Kind::Other(other.clone()),
            },
        }
    }

    fn restore(&self, directory: &Directory) -> Result<Change> {
        match &self.change {
            Kind::Other(change) => Ok(change.clone()),
            Kind::Put {
                repository,
                tag,
                digest,
                media_type,
            } => {
                let manifest = RawManifest {
                    media_type: media_type.clone(),
                    digest: digest.clone(),
                    bytes: directory.read_manifest(digest)?,
                };
                Ok(Change::Put {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    parsed: Arc::new(manifest.parse()?),
                    manifest,
                })
            }
        }
    }
}

impl Over {
    /// No change yet to what `base` says. Blobs that are in the folder of `slot` already count once they were looked at.
    /// Blocks.
    pub(super) fn new(base: Arc<Table>, slot: Slot, limits: Arc<Limits>) -> Result<Self> {
        let left_over = match fs::read_dir(slot.blobs()) {
            Ok(entries) => entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str().and_then(digest_of_name))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(os("list", &slot.blobs(), &error)),
        };
        Ok(Self {
            index: Mutex::new(base.index.clone()),
            state: Mutex::new(State {
                base,
                notes: Vec::new(),
                pending: Pending::Nothing,
                closed: false,
            }),
            left_over: Mutex::new(left_over),
            forgotten: Mutex::default(),
            spooled: Mutex::new(Spooled::new(limits.clone())),
            limits,
            slot,
        })
    }

    /// How files are written.
    pub(super) fn disk(&self) -> &Disk {
        self.limits.disk()
    }

    /// The index with what the run has changed.
    pub(super) fn index(&self) -> Arc<Index> {
        lock(&self.index).clone()
    }

    /// The archive below.
    pub(super) fn base(&self) -> Arc<Table> {
        lock(&self.state).base.clone()
    }

    /// The length of a blob of the archive below.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        if self.is_forgotten(digest) {
            return None;
        }
        self.base().size(digest)
    }

    /// Where a blob of the archive below can be read.
    pub(super) fn section(&self, digest: &Digest) -> Result<Section> {
        if self.is_forgotten(digest) {
            return Err(Error::not_found("it was removed"));
        }
        self.base().section(digest)
    }

    /// Is it a blob of the archive that goes?
    pub(super) fn is_forgotten(&self, digest: &Digest) -> bool {
        lock(&self.forgotten).contains(digest)
    }

    /// A blob of the archive goes.
    pub(super) fn forget(&self, digest: &Digest) {
        lock(&self.left_over).remove(digest);
        lock(&self.forgotten).insert(digest.clone());
    }

    /// Blobs of the archive go, which is a change of its own.
    pub(super) fn forget_all(&self, digests: BTreeSet<Digest>) {
        lock(&self.forgotten).extend(digests);
        lock(&self.state).pending = Pending::Named;
    }

    /// A blob came into the folder.
    pub(super) fn arrived(&self, digest: &Digest) {
        lock(&self.left_over).remove(digest);
    }

    /// A share of the budget for temporary files, empty so far.
    pub(super) fn spooled(&self) -> Spooled {
        Spooled::new(self.limits.clone())
    }

    /// Holds a share of the budget for as long as the run lasts.
    pub(super) fn keep(&self, spooled: Spooled) {
        lock(&self.spooled).absorb(spooled);
    }

    /// Reads a blob that a run before left, and removes it if it is not whole. Blocks.
    pub(super) fn check_left_over(&self, digest: &Digest, path: &Path) -> Result<()> {
        if !lock(&self.left_over).contains(digest) {
            return Ok(());
        }
        let len = match path.symlink_metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) => return Err(os("look at", path, &error)),
        };
        if hash_file(path, digest.algorithm())? == *digest {
            let mut spooled = self.spooled();
            spooled.take(len)?;
            // Of two that looked at it at once one counts.
            if lock(&self.left_over).remove(digest) {
                self.keep(spooled);
            }
        } else if lock(&self.left_over).remove(digest) {
            self.disk()
                .remove_file(path)
                .map_err(|error| os("remove", path, &error))?;
        }
        Ok(())
    }

    /// Makes a change in memory.
    pub(super) fn change(
        &self,
        make: impl FnOnce(&mut Index) -> Result<bool>,
        noted: Noted,
    ) -> Result<()> {
        if lock(&self.state).closed {
            return Err(Error::internal(
                "the archive was written already, and this change came behind",
            ));
        }
        let changed = make(Arc::make_mut(&mut lock(&self.index)))?;
        let mut state = lock(&self.state);
        if changed {
            let kind = if noted.named {
                Pending::Named
            } else {
                Pending::Unnamed
            };
            state.pending = state.pending.max(kind);
        }
        state.notes.push(noted);
        Ok(())
    }

    /// What is not written yet.
    pub(super) fn pending(&self) -> Pending {
        lock(&self.state).pending
    }

    /// The end: changes that come later are refused.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
    }

    /// Makes all changes again, over what another process made of the archive meanwhile. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when something is gone that the run relied on.
    pub(super) fn rebase(&self, directory: &Directory, base: Arc<Table>) -> Result<()> {
        let notes = {
            let mut state = lock(&self.state);
            state.base = base.clone();
            state.notes.clone()
        };
        lock(&self.forgotten).clear();
        let mut index = base.index.clone();
        for noted in notes {
            let made = noted
                .restore(directory)
                .and_then(|change| directory.change(Arc::make_mut(&mut index), change));
            match made {
                Ok(_) => {}
                // What was to be removed is gone.
                Err(error)
                    if error.kind() == ErrorKind::NotFound
                        && matches!(noted.change, Kind::Other(_)) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        format!("another process removed what this run relied on: {error}"),
                    )
                    .with_hint("run the same again"));
                }
                Err(error) => return Err(error),
            }
        }
        *lock(&self.index) = index;
        Ok(())
    }
}
