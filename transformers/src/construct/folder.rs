//! Folders as tars that are the same on every machine: sorted, without owners and times of files.
//!
//! *Invariant*: what is packed is decided once, when the folder is looked at; reading again gives the same bytes or an error.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::tarball::{ENTRIES_LIMIT, TarEntry, TarKind, end_of_tar, padding};
use ocm_content::{Blob, ByteStream, Error, FileSource, Source};

use super::patterns::Decision;
use super::root::Root;
use crate::pipe::skip;

/// Deepest nesting of folders that is packed: far above any source tree, and walked by recursion.
const DEPTH_LIMIT: usize = 128;

/// What is in a folder, in the order of the tar.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    /// Seconds since 1970 of all entries.
    mtime: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    tar: TarEntry,
    /// Where the content of a file is.
    path: PathBuf,
}

/// How a folder is walked.
pub(super) struct Walk<'w> {
    pub(super) root: &'w Root,
    /// Are links replaced by what they name?
    pub(super) follow: bool,
    /// Are there entries for folders?
    pub(super) folders: bool,
    /// Stands before all paths, with a slash at its end; may be empty.
    pub(super) prefix: String,
    /// Seconds since 1970 of all entries.
    pub(super) mtime: u64,
}

impl Walk<'_> {
    /// Lists a folder; `decide` is asked with paths below it. Blocks.
    ///
    /// # Errors
    /// What the system says, names that are no UTF-8, devices, links that lead out of the root or into circles.
    pub(super) fn list(
        &self,
        folder: &Path,
        decide: &dyn Fn(&str, bool) -> Decision,
    ) -> Result<Listing, Error> {
        let mut listing = Listing {
            entries: Vec::new(),
            mtime: self.mtime,
        };
        let mut open = BTreeSet::from([folder.to_owned()]);
        if self.folders && !self.prefix.is_empty() {
            listing.push(self.prefix.clone(), TarKind::Directory, None)?;
        }
        self.folder(folder, "", decide, &mut open, &mut listing)?;
        Ok(listing)
    }

    fn folder(
        &self,
        folder: &Path,
        below: &str,
        decide: &dyn Fn(&str, bool) -> Decision,
        open: &mut BTreeSet<PathBuf>,
        listing: &mut Listing,
    ) -> Result<(), Error> {
        if below.matches('/').count() > DEPTH_LIMIT {
            return Err(Error::limit(format!(
                "{} is nested deeper than {DEPTH_LIMIT} folders",
                folder.display()
            )));
        }
        for name in names(folder)? {
            let (path, below) = (folder.join(&name), format!("{below}{name}"));
            let found =
                std::fs::symlink_metadata(&path).map_err(|error| read_error(&path, &error))?;
            if found.is_symlink() && !self.follow {
                if decide(&below, false) == Decision::Include {
                    let target =
                        std::fs::read_link(&path).map_err(|error| read_error(&path, &error))?;
                    let target = target
                        .into_os_string()
                        .into_string()
                        .map_err(|_| not_utf8(&path))?;
                    listing.push(
                        format!("{}{below}", self.prefix),
                        TarKind::Symlink(target),
                        None,
                    )?;
                }
                continue;
            }
            let real = path
                .canonicalize()
                .map_err(|error| read_error(&path, &error))?;
            let real = self.root.check(&below, real)?;
            let found = if found.is_symlink() {
                std::fs::metadata(&real).map_err(|error| read_error(&path, &error))?
            } else {
                found
            };
            self.entry(real, below, &found, decide, open, listing)?;
        }
        Ok(())
    }

    fn entry(
        &self,
        path: PathBuf,
        below: String,
        found: &Metadata,
        decide: &dyn Fn(&str, bool) -> Decision,
        open: &mut BTreeSet<PathBuf>,
        listing: &mut Listing,
    ) -> Result<(), Error> {
        let decision = decide(&below, found.is_dir());
        if decision == Decision::Exclude {
            return Ok(());
        }
        if found.is_file() {
            let name = format!("{}{below}", self.prefix);
            return listing.push(name, TarKind::File, Some((path, found)));
        }
        if !found.is_dir() {
            let message = format!("{} is neither file nor folder nor link", path.display());
            return Err(Error::invalid(message).with_hint("leave it out with `excludeFiles`"));
        }
        if !open.insert(path.clone()) {
            let message = format!("links lead in a circle at {}", path.display());
            return Err(Error::invalid(message)
                .with_hint("leave `followSymlinks` out, or exclude the link"));
        }
        let before = listing.entries.len();
        if self.folders {
            listing.push(format!("{}{below}/", self.prefix), TarKind::Directory, None)?;
        }
        self.folder(&path, &format!("{below}/"), decide, open, listing)?;
        open.remove(&path);
        let is_empty = listing.entries.len() == before + usize::from(self.folders);
        if decision == Decision::Enter && is_empty {
            listing.entries.truncate(before);
        }
        Ok(())
    }
}

impl Listing {
    fn push(
        &mut self,
        name: String,
        kind: TarKind,
        file: Option<(PathBuf, &Metadata)>,
    ) -> Result<(), Error> {
        if self.entries.len() == ENTRIES_LIMIT {
            return Err(Error::limit(format!(
                "more than {ENTRIES_LIMIT} files in one folder"
            )));
        }
        let (path, size, executable) = match file {
            Some((path, found)) => (path, found.len(), is_executable(found)),
            None => (PathBuf::new(), 0, false),
        };
        let mode = match (&kind, executable) {
            (TarKind::Symlink(_), _) => 0o777,
            (TarKind::Directory, _) | (_, true) => 0o755,
            _ => 0o644,
        };
        let tar = TarEntry {
            kind,
            mode,
            mtime: self.mtime,
            ..TarEntry::file(name, size)
        };
        // Found out here, where the path can be named.
        tar.header()?;
        self.entries.push(Entry { tar, path });
        Ok(())
    }

    /// Puts the entry of that path first.
    pub(super) fn put_first(&mut self, path: &str) {
        if let Some(at) = self.entries.iter().position(|entry| entry.tar.path == path) {
            self.entries[..=at].rotate_right(1);
        }
    }

    /// The folder as a tar, packed while it is read.
    pub(super) fn into_tar(self, media_type: &str) -> Result<Blob, Error> {
        let mut size = end_of_tar().len() as u64;
        for entry in &self.entries {
            let header = entry.tar.header()?.len() as u64;
            size += header + entry.tar.size + padding(entry.tar.size).len() as u64;
        }
        let mut blob = Blob::new(media_type, Arc::new(Packed(self.entries.into())));
        blob.size = Some(size);
        Ok(blob)
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|error| read_error(folder, &error))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| read_error(folder, &error))?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| not_utf8(&entry.path()))?;
        names.push(name);
        if names.len() > ENTRIES_LIMIT {
            return Err(Error::limit(format!(
                "more than {ENTRIES_LIMIT} files in one folder"
            )));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_error(path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("read {}", path.display()), error)
}

fn not_utf8(path: &Path) -> Error {
    Error::invalid(format!("the name of {} is not UTF-8", path.display()))
}

#[cfg(unix)]
fn is_executable(found: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    found.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn is_executable(_: &Metadata) -> bool {
    false
}

/// A tar that is computed from files while it is read.
#[derive(Debug)]
struct Packed(Arc<[Entry]>);

impl Source for Packed {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream, Error>> {
        let entries = self.0.clone();
        let count = entries.len();
        let packed = stream::iter(0..count)
            .then(move |at| packed(entries[at].clone()))
            .try_flatten();
        let all = packed.chain(stream::once(async { Ok(end_of_tar()) }));
        Box::pin(skip(Box::pin(all), offset))
    }
}

/// Header, content and padding of one entry.
async fn packed(entry: Entry) -> Result<ByteStream, Error> {
    let header = entry.tar.header()?;
    let size = entry.tar.size;
    let content: ByteStream = if size > 0 {
        FileSource::new(entry.path, 0, size).open(0).await?
    } else {
        Box::pin(stream::empty())
    };
    let pieces = |bytes: Bytes| stream::iter((!bytes.is_empty()).then_some(Ok(bytes)));
    Ok(Box::pin(
        pieces(header).chain(content).chain(pieces(padding(size))),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::construct::patterns::Patterns;

    fn tree() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().expect("a folder");
        for path in ["sub/deep", "empty"] {
            std::fs::create_dir_all(folder.path().join(path)).expect("make it");
        }
        for (path, text) in [
            ("b.txt", "b"),
            ("a.yaml", "a: 1\n"),
            ("sub/c.yaml", "c"),
            ("sub/deep/d", ""),
        ] {
            std::fs::write(folder.path().join(path), text).expect("write");
        }
        let root = Root::open(folder.path()).expect("a root");
        (folder, root)
    }

    fn walk(root: &Root) -> Walk<'_> {
        Walk {
            root,
            follow: false,
            folders: true,
            prefix: String::new(),
            mtime: 0,
        }
    }

    async fn paths(
        walk: &Walk<'_>,
        folder: &Path,
        patterns: &Patterns,
    ) -> Result<Vec<String>, Error> {
        let listing = walk.list(folder, &|path, is_folder| patterns.decide(path, is_folder))?;
        let blob = listing.into_tar("application/x-tar")?;
        let bytes = blob.read(1 << 20).await?;
        for offset in [1, 511, 700, bytes.len() as u64] {
            let rest: Vec<Bytes> = blob.open_at(offset).await?.try_collect().await?;
            assert!(rest.concat() == bytes[offset as usize..], "{offset}");
        }
        let mut archive = tar::Archive::new(bytes.as_ref());
        let entries = archive
            .entries()
            .expect("a tar")
            .map(|entry| entry.expect("an entry"));
        Ok(entries
            .map(|entry| {
                assert_eq!(entry.header().uid().ok(), Some(0));
                String::from_utf8_lossy(&entry.path_bytes()).into_owned()
            })
            .collect())
    }

    #[tokio::test]
    async fn a_folder_is_packed_in_order() {
        let (folder, root) = tree();
        let all = paths(&walk(&root), folder.path(), &Patterns::default())
            .await
            .expect("packed");
        assert_eq!(
            all,
            [
                "a.yaml",
                "b.txt",
                "empty/",
                "sub/",
                "sub/c.yaml",
                "sub/deep/",
                "sub/deep/d"
            ]
        );
        let only = Patterns::new(&["**/*.yaml".to_owned()], &[]).expect("patterns");
        let some = paths(&walk(&root), folder.path(), &only)
            .await
            .expect("packed");
        assert_eq!(some, ["a.yaml", "sub/", "sub/c.yaml"]);
        let without = Patterns::new(&[], &["sub".to_owned()]).expect("patterns");
        let walk = Walk {
            prefix: "top/".into(),
            ..walk(&root)
        };
        let rest = paths(&walk, folder.path(), &without).await.expect("packed");
        assert_eq!(rest, ["top/", "top/a.yaml", "top/b.txt", "top/empty/"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_kept_or_followed_but_not_out_and_not_in_circles() {
        use std::os::unix::fs::symlink;
        let (folder, root) = tree();
        let at = |path: &str| folder.path().join(path);
        symlink("../a.yaml", at("sub/link")).expect("link");
        symlink("sub", at("other")).expect("link");
        let kept = paths(&walk(&root), folder.path(), &Patterns::default())
            .await
            .expect("packed");
        assert!(kept.contains(&"other".to_owned()) && kept.contains(&"sub/link".to_owned()));
        let follow = Walk {
            follow: true,
            ..walk(&root)
        };
        let followed = paths(&follow, folder.path(), &Patterns::default())
            .await
            .expect("packed");
        assert!(
            followed.contains(&"other/deep/d".to_owned()),
            "{followed:?}"
        );
        symlink("..", at("sub/up")).expect("link");
        let error = paths(&follow, folder.path(), &Patterns::default())
            .await
            .expect_err("a circle");
        assert!(error.to_string().contains("in a circle"), "{error}");
        std::fs::remove_file(at("sub/up")).expect("remove");
        symlink("/etc/hostname", at("out")).expect("link");
        let error = paths(&follow, folder.path(), &Patterns::default())
            .await
            .expect_err("outside");
        assert!(error.to_string().contains("is outside of"), "{error}");
    }

    #[test]
    fn depth_is_bounded() {
        let (folder, root) = tree();
        let deep = folder.path().join("d/".repeat(DEPTH_LIMIT));
        std::fs::create_dir_all(&deep).expect("make it");
        let list = || walk(&root).list(folder.path(), &|_, _| Decision::Include);
        assert!(list().is_ok());
        std::fs::create_dir(deep.join("more")).expect("make it");
        let error = list().expect_err("too deep");
        assert_eq!(error.kind(), ocm_content::ErrorKind::Limit);
    }

    #[tokio::test]
    async fn a_file_that_shrinks_meanwhile_is_an_error() {
        let (folder, root) = tree();
        let listing = walk(&root)
            .list(folder.path(), &|_, _| Decision::Include)
            .expect("listed");
        std::fs::write(folder.path().join("a.yaml"), "").expect("write");
        let blob = listing.into_tar("application/x-tar").expect("a tar");
        assert!(blob.read(1 << 20).await.is_err());
    }
}
