//! The one way in which a run changes what is on a disk.
//!
//! *Invariant:* libraries here create, write, sync, rename and remove files through a [`Disk`] and nothing else, so that
//! whoever hands in a [`Gate`] sees every change before it is made and after it was made, in the order in which it is made,
//! and can refuse it with any error that a system has. Without a gate a `Disk` is the system, at no cost.
//!
//! What is done on the way out (a temporary file that goes when it is dropped, a lock that is let go of) does not pass:
//! it may fail silently anyhow, and a killed program does not do it.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::NamedTempFile;

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Act {
    /// A folder is made, with those above it.
    CreateFolder,
    /// A file is made; the path is that of its folder where it has no name of its own.
    CreateFile,
    /// Bytes are written. A gate sees each piece of work twice: before its first half and before its second.
    Write,
    /// The bytes of a file are made durable.
    Sync,
    /// The names in a folder are made durable.
    SyncFolder,
    /// A file gets its name; the path is the new one.
    Rename,
    /// A file goes.
    Remove,
}

impl Act {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::CreateFolder,
        Self::CreateFile,
        Self::Write,
        Self::Sync,
        Self::SyncFolder,
        Self::Rename,
        Self::Remove,
    ];

    /// The act as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateFolder => "create-folder",
            Self::CreateFile => "create-file",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SyncFolder => "sync-folder",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }
}

/// Stands before a disk. Called from any thread; must not block for long.
pub trait Gate: Debug + Send + Sync + 'static {
    /// Before something is changed. An error is taken for the system's own, and nothing is changed then.
    ///
    /// # Errors
    /// Whatever the disk is to say.
    fn before(&self, act: Act, path: &Path) -> io::Result<()>;

    /// After it was changed.
    fn after(&self, _act: Act, _path: &Path) {}
}

/// The disk, perhaps behind a gate. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Disk(Option<Arc<dyn Gate>>);

impl Disk {
    /// The disk behind `gate`.
    pub fn behind(gate: Arc<dyn Gate>) -> Self {
        Self(Some(gate))
    }

    fn pass<T>(
        &self,
        act: Act,
        path: &Path,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(gate) = &self.0 else {
            return make();
        };
        gate.before(act, path)?;
        let made = make()?;
        gate.after(act, path);
        Ok(made)
    }

    /// Makes a folder and those above it, unless it is there. Blocks.
    ///
    /// # Errors
    /// Those of the system, as for all of these.
    pub fn create_folder(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.pass(Act::CreateFolder, path, || std::fs::create_dir_all(path))
    }

    /// Makes a named temporary file in `folder`. Blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] where there is no such folder, besides the system's.
    pub fn create_in(
        &self,
        builder: &tempfile::Builder<'_, '_>,
        folder: &Path,
    ) -> io::Result<NamedTempFile> {
        self.pass(Act::CreateFile, folder, || builder.tempfile_in(folder))
    }

    /// Makes a file without a name in `folder`. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn create_unnamed(&self, folder: &Path) -> io::Result<File> {
        self.pass(Act::CreateFile, folder, || tempfile::tempfile_in(folder))
    }

    /// Opens a file by `options`, which make it if it is not there. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(&self, options: &std::fs::OpenOptions, path: &Path) -> io::Result<File> {
        self.pass(Act::CreateFile, path, || options.open(path))
    }

    /// Writes all pieces at the file's position, with as few calls as possible. Blocks.
    ///
    /// # Errors
    /// Those of the system; part of the bytes may be written then.
    pub fn write_all(&self, file: &mut File, path: &Path, pieces: &[Bytes]) -> io::Result<()> {
        let Some(gate) = &self.0 else {
            return write_all(file, pieces);
        };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let (first, rest) = halves(pieces, length / 2);
        for half in [first, rest] {
            gate.before(Act::Write, path)?;
            write_all(file, &half)?;
            gate.after(Act::Write, path);
        }
        Ok(())
    }

    /// Writes all of `chunk` at a place of the file. Blocks.
    ///
    /// # Errors
    /// Those of the system; part of the bytes may be written then.
    pub fn write_at(&self, file: &File, path: &Path, chunk: &[u8], at: u64) -> io::Result<()> {
        self.pass(Act::Write, path, || write_all_at(file, chunk, at))
    }

    /// Makes a file's bytes durable, and what else belongs to it if `all`. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn sync(&self, file: &File, path: &Path, all: bool) -> io::Result<()> {
        self.pass(Act::Sync, path, || match all {
            true => file.sync_all(),
            false => file.sync_data(),
        })
    }

    /// Makes the names in a folder durable, where a system has that. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if !cfg!(unix) {
            return Ok(());
        }
        self.pass(Act::SyncFolder, path, || File::open(path)?.sync_all())
    }

    /// Gives a temporary file its name, in place of what had it. Blocks.
    ///
    /// # Errors
    /// Those of the system, with the file, which is as it was.
    pub fn rename(&self, file: NamedTempFile, path: &Path) -> Result<File, tempfile::PersistError> {
        if let Some(gate) = &self.0
            && let Err(error) = gate.before(Act::Rename, path)
        {
            return Err(tempfile::PersistError { error, file });
        }
        let file = file.persist(path)?;
        if let Some(gate) = &self.0 {
            gate.after(Act::Rename, path);
        }
        Ok(file)
    }

    /// Removes a file. Blocks.
    ///
    /// # Errors
    /// Those of the system.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.pass(Act::Remove, path, || std::fs::remove_file(path))
    }

    /// Puts a small file in place as a whole: written beside, then renamed. Others may read it as far as the process's
    /// mask allows. Blocks.
    ///
    /// # Errors
    /// Those of the system; what was there is still there then, and nothing is left beside it.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".").suffix(".tmp");
        #[cfg(unix)]
        let everyone = {
            use std::os::unix::fs::PermissionsExt;
            std::fs::Permissions::from_mode(0o666)
        };
        #[cfg(unix)]
        builder.permissions(everyone);
        let mut temp = self.create_in(&builder, folder)?;
        let name = temp.path().to_owned();
        self.write_all(temp.as_file_mut(), &name, &[Bytes::copy_from_slice(bytes)])?;
        self.rename(temp, path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// The first `length` bytes of `pieces`, and the others.
fn halves(pieces: &[Bytes], length: usize) -> (Vec<Bytes>, Vec<Bytes>) {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    let mut left = length;
    for piece in pieces {
        let taken = left.min(piece.len());
        left -= taken;
        first.push(piece.slice(..taken));
        rest.push(piece.slice(taken..));
    }
    (first, rest)
}

fn write_all(file: &mut File, pieces: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn write_all_at(file: &File, buffer: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, buffer, at)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut buffer: &[u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, buffer, at)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        buffer = &buffer[written..];
        at += written as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Writes down what passes; refuses the n-th.
    #[derive(Debug, Default)]
    struct Noting {
        acts: Mutex<Vec<Act>>,
        refused: Option<usize>,
    }

    impl Gate for Noting {
        fn before(&self, act: Act, _: &Path) -> io::Result<()> {
            let mut acts = self.acts.lock().unwrap();
            acts.push(act);
            match self.refused == Some(acts.len()) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    #[test]
    fn a_file_is_replaced_or_stays_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.json");
        let steps = [Act::CreateFile, Act::Write, Act::Write, Act::Rename];
        for refused in 1..=steps.len() + 1 {
            std::fs::write(&path, "old").unwrap();
            let gate = Arc::new(Noting {
                refused: Some(refused),
                ..Noting::default()
            });
            let done = Disk::behind(gate.clone()).replace(&path, b"new");
            let expected = if refused > steps.len() { "new" } else { "old" };
            assert_eq!(done.is_ok(), expected == "new");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
            let seen = gate.acts.lock().unwrap();
            assert_eq!(seen[..], steps[..refused.min(steps.len())]);
        }
    }

    #[test]
    fn a_write_that_is_refused_in_its_middle_leaves_half() {
        let pieces = ["ab", "", "cdef", "g"].map(Bytes::from);
        for (refused, expected) in [(1, ""), (2, "abc"), (3, "abcdefg")] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let path = file.path().to_owned();
            let gate = Noting {
                refused: Some(refused),
                ..Noting::default()
            };
            let disk = Disk::behind(Arc::new(gate));
            let done = disk.write_all(file.as_file_mut(), &path, &pieces);
            assert_eq!(done.is_ok(), refused == 3);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
    }
}
