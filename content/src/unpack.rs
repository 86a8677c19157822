//! A tar into a folder, so that nothing of it lands outside.
//!
//! *Invariants:* no entry is written through a link: links are made when all files are there; what is there is never
//! replaced; no more is written than was read, and what comes out of compression is bounded there; a folder that could not be completed is removed by whoever made it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use futures::StreamExt;
use tokio::fs;
use tokio::io::AsyncWriteExt;

use crate::blob::ByteStream;
use crate::error::{Error, Result};
use crate::tarball::{TarEntry, TarEvent, TarKind, TarReader};

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files and links.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Unpacks a tar into `folder`, which must be there and should be empty.
///
/// Permissions are kept without set-user bits; owners and times are not. Links must stay inside.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`] for entries that would lie outside, that are there twice, or that are neither files,
/// folders nor links; what reading and writing gives.
pub async fn unpack(mut tar: ByteStream, folder: &Path) -> Result<Unpacked> {
    let mut reader = TarReader::new();
    let mut into = Into {
        folder,
        made: BTreeSet::new(),
        file: None,
        links: Vec::new(),
        done: Unpacked::default(),
    };
    loop {
        while let Some(event) = reader.next_event()? {
            match event {
                TarEvent::Entry(entry) => into.begin(entry).await?,
                TarEvent::Data(chunk) => into.data(&chunk).await?,
                TarEvent::EntryEnd => into.end().await?,
            }
        }
        match tar.next().await {
            Some(chunk) => reader.feed(chunk?),
            None => break,
        }
    }
    reader.finish()?;
    into.link().await
}

struct Into<'a> {
    folder: &'a Path,
    /// Folders that are known to be there.
    made: BTreeSet<PathBuf>,
    file: Option<(fs::File, PathBuf)>,
    links: Vec<(PathBuf, TarKind)>,
    done: Unpacked,
}

impl Into<'_> {
    async fn begin(&mut self, entry: TarEntry) -> Result<()> {
        let name = entry.safe_path()?.to_owned();
        if name.is_empty() || name == "." {
            return Ok(());
        }
        let path = self.folder.join(&name);
        match entry.kind {
            TarKind::Directory => self.make(&path).await,
            TarKind::File => {
                self.make_parent(&path).await?;
                let mut options = fs::OpenOptions::new();
                options.write(true).create_new(true);
                #[cfg(unix)]
                options.mode(entry.mode & 0o777 | 0o600);
                let file = options.open(&path).await;
                let file = file.map_err(|error| twice_or(&name, "create", &path, &error))?;
                self.file = Some((file, path));
                Ok(())
            }
            TarKind::Symlink(_) | TarKind::Hardlink(_) => {
                self.make_parent(&path).await?;
                self.links.push((path, entry.kind));
                Ok(())
            }
            TarKind::Other(flag) => Err(Error::invalid(format!(
                "archive entry `{}` is neither a file, a folder nor a link (type {})",
                name.escape_debug(),
                flag.escape_ascii()
            ))),
        }
    }

    async fn data(&mut self, chunk: &[u8]) -> Result<()> {
        self.done.bytes += chunk.len() as u64;
        match &mut self.file {
            Some((file, path)) => {
                let written = file.write_all(chunk).await;
                written.map_err(|error| Error::io(format!("write {}", path.display()), &error))
            }
            None => Ok(()),
        }
    }

    async fn end(&mut self) -> Result<()> {
        if let Some((mut file, path)) = self.file.take() {
            let flushed = file.flush().await;
            flushed.map_err(|error| Error::io(format!("write {}", path.display()), &error))?;
            self.done.files += 1;
        }
        Ok(())
    }

    async fn make_parent(&mut self, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) if parent != self.folder => self.make(parent).await,
            _ => Ok(()),
        }
    }

    async fn make(&mut self, path: &Path) -> Result<()> {
        if self.made.contains(path) {
            return Ok(());
        }
        let made = fs::create_dir_all(path).await;
        made.map_err(|error| Error::io(format!("create {}", path.display()), &error))?;
        self.made.insert(path.to_owned());
        Ok(())
    }

    /// Makes the links, now that nothing is written any more.
    async fn link(mut self) -> Result<Unpacked> {
        for (path, kind) in std::mem::take(&mut self.links) {
            let name = path
                .strip_prefix(self.folder)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            let linked = match &kind {
                TarKind::Symlink(target) => {
                    let from = path.parent().unwrap_or(self.folder);
                    inside(self.folder, from, target, &name)?;
                    symlink(target, &path).await
                }
                TarKind::Hardlink(target) => {
                    let target = inside(self.folder, self.folder, target, &name)?;
                    let meta = fs::symlink_metadata(&target).await;
                    if !meta.is_ok_and(|meta| meta.is_file()) {
                        return Err(outside(&name));
                    }
                    fs::hard_link(&target, &path).await
                }
                _ => Ok(()),
            };
            linked.map_err(|error| twice_or(&name, "link", &path, &error))?;
            self.done.files += 1;
        }
        Ok(self.done)
    }
}

/// Where a link leads, from `from` on, without looking at the disk: it may not leave `folder`.
fn inside(folder: &Path, from: &Path, target: &str, name: &str) -> Result<PathBuf> {
    let mut path = from.to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir if path != folder => {
                path.pop();
            }
            _ => return Err(outside(name)),
        }
    }
    Ok(path)
}

fn outside(name: &str) -> Error {
    Error::invalid(format!(
        "archive entry `{}` is a link to something outside of the archive",
        name.escape_debug()
    ))
}

fn twice_or(name: &str, doing: &str, path: &Path, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        let name = name.escape_debug();
        return Error::invalid(format!("the archive has the entry `{name}` twice"));
    }
    Error::io(format!("{doing} {}", path.display()), error)
}

#[cfg(unix)]
async fn symlink(target: &str, path: &Path) -> std::io::Result<()> {
    fs::symlink(target, path).await
}

#[cfg(not(unix))]
async fn symlink(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "symbolic links are not made on this system",
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tarball::TarWriter;

    fn entry(path: &str, kind: TarKind) -> TarEntry {
        TarEntry {
            kind,
            ..TarEntry::file(path, 0)
        }
    }

    async fn unpacked(
        entries: &[(TarEntry, &'static str)],
    ) -> Result<(tempfile::TempDir, Unpacked)> {
        let mut writer = TarWriter::new();
        let mut tar = Vec::new();
        for (entry, text) in entries {
            let mut entry = entry.clone();
            entry.size = text.len() as u64;
            tar.extend_from_slice(&writer.entry(&entry)?);
            if !text.is_empty() {
                tar.extend_from_slice(&writer.data(Bytes::from_static(text.as_bytes()))?);
            }
        }
        tar.extend_from_slice(&writer.finish()?);
        let folder = tempfile::tempdir().expect("folder");
        let stream = futures::stream::iter([Ok(Bytes::from(tar))]);
        let into = folder.path().join("in");
        std::fs::create_dir(&into).expect("folder");
        let done = unpack(Box::pin(stream), &into).await?;
        Ok((folder, done))
    }

    #[tokio::test]
    async fn files_folders_and_links_arrive() {
        let link = |target: &str| TarKind::Symlink(target.to_owned());
        let (folder, done) = unpacked(&[
            (entry("a/", TarKind::Directory), ""),
            (entry("./a/b/c.txt", TarKind::File), "text"),
            (entry("a/up", link("../a/b/c.txt")), ""),
            (entry("hard", TarKind::Hardlink("a/b/c.txt".to_owned())), ""),
        ])
        .await
        .expect("unpacked");
        assert_eq!((done.files, done.bytes), (3, 4));
        for path in ["a/b/c.txt", "a/up", "hard"] {
            let text = std::fs::read_to_string(folder.path().join("in").join(path));
            assert_eq!(text.expect(path), "text");
        }
    }

    #[tokio::test]
    async fn nothing_leaves_the_folder() {
        let symlink = |path: &str, target: &str| entry(path, TarKind::Symlink(target.to_owned()));
        let hardlink = |path: &str, target: &str| entry(path, TarKind::Hardlink(target.to_owned()));
        for (entries, part) in [
            (vec![(entry("../x", TarKind::File), "x")], "outside"),
            (vec![(entry("/x", TarKind::File), "x")], "outside"),
            (
                vec![(symlink("x", "../y"), "")],
                "link to something outside",
            ),
            (
                vec![(symlink("x", "/etc"), "")],
                "link to something outside",
            ),
            (
                vec![(symlink("a/x", "../../y"), "")],
                "link to something outside",
            ),
            (
                vec![(hardlink("x", "../y"), "")],
                "link to something outside",
            ),
            (
                vec![(hardlink("x", "nothing"), "")],
                "link to something outside",
            ),
            // A link that is there first is no way out for what comes behind it.
            (
                vec![(symlink("x", "y"), ""), (entry("x/z", TarKind::File), "z")],
                "twice",
            ),
            (
                vec![
                    (entry("x", TarKind::File), "x"),
                    (entry("x", TarKind::File), "y"),
                ],
                "twice",
            ),
            (vec![(entry("x", TarKind::Other(b'3')), "")], "neither"),
        ] {
            let error = unpacked(&entries).await.err().map(|it| it.to_string());
            let error = error.unwrap_or_default();
            assert!(error.contains(part), "{entries:?}: {error}");
        }
    }
}
