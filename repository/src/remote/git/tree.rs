//! The files of a commit as a tar.
//!
//! *Invariant*: the same commit gives the same bytes: git's own order, no times, no owners, modes 0644 and 0755. Names that
//! would lie outside of the folder they are unpacked to are refused, as git refuses them.

use bytes::Bytes;
use ocm_content::tarball::{ENTRIES_LIMIT, PATH_LIMIT, TarEntry, TarKind, TarWriter};
use ocm_content::{Error, Result};

use super::id::Id;
use super::pack::{Kind, Pack};

/// Most folders within each other.
const DEPTH: usize = 256;
/// Most bytes of all files together: 16 GiB. A few objects may stand for very many files.
const TOTAL: u64 = 16 << 30;
/// Longest target of a symbolic link.
const LINK: u64 = PATH_LIMIT as u64;

/// Writes the tar of a commit's files piece by piece. Blocks.
pub(super) fn tar(
    pack: &Pack,
    commit: Id,
    take: &mut dyn FnMut(Bytes) -> Result<()>,
) -> Result<()> {
    let text = pack.object(commit, Kind::Commit)?;
    let root = tree_of(&text).ok_or_else(|| wrong(format!("commit {commit} has no tree")))?;
    let mut writing = Writing {
        pack,
        tar: TarWriter::new(),
        entries: 0,
        total: 0,
        take,
    };
    writing.folder(root, "", 0)?;
    let end = writing.tar.finish()?;
    take(end)
}

/// The tree that a commit names first.
fn tree_of(commit: &[u8]) -> Option<Id> {
    let line = commit.split(|byte| *byte == b'\n').next()?;
    Id::parse(std::str::from_utf8(line.strip_prefix(b"tree ")?).ok()?)
}

struct Writing<'a> {
    pack: &'a Pack,
    tar: TarWriter,
    entries: usize,
    total: u64,
    take: &'a mut dyn FnMut(Bytes) -> Result<()>,
}

impl Writing<'_> {
    fn folder(&mut self, tree: Id, path: &str, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::limit(format!(
                "folders lie more than {DEPTH} levels deep"
            )));
        }
        let bytes = self.pack.object(tree, Kind::Tree)?;
        for entry in entries(&bytes, tree)? {
            let path = format!("{path}{}", entry.name);
            match entry.mode {
                Mode::Folder => {
                    self.entry(&format!("{path}/"), TarKind::Directory, 0o755, 0)?;
                    self.folder(entry.id, &format!("{path}/"), depth + 1)?;
                }
                // What a submodule has is somewhere else; git archives an empty folder, too.
                Mode::Submodule => {
                    self.entry(&format!("{path}/"), TarKind::Directory, 0o755, 0)?;
                }
                Mode::File(mode) => {
                    let size = self.pack.blob_size(entry.id)?;
                    self.entry(&path, TarKind::File, mode, size)?;
                    let (tar, take) = (&mut self.tar, &mut self.take);
                    self.pack.blob(entry.id, |chunk| {
                        take(tar.data(Bytes::copy_from_slice(chunk))?)
                    })?;
                }
                Mode::Link => {
                    if self.pack.blob_size(entry.id)? > LINK {
                        return Err(wrong(format!("the link `{path}` is too long")));
                    }
                    let target = self.pack.object(entry.id, Kind::Blob)?;
                    let target = String::from_utf8(target)
                        .ok()
                        .filter(|target| !target.contains('\0'))
                        .ok_or_else(|| {
                            wrong(format!("the target of the link `{path}` is no text"))
                        })?;
                    self.entry(&path, TarKind::Symlink(target), 0o777, 0)?;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, kind: TarKind, mode: u32, size: u64) -> Result<()> {
        self.entries += 1;
        self.total = self.total.saturating_add(size);
        if self.entries > ENTRIES_LIMIT || self.total > TOTAL {
            return Err(Error::limit(format!(
                "the commit has more than {ENTRIES_LIMIT} files or {TOTAL} bytes"
            )));
        }
        let mut entry = TarEntry::file(path, size);
        (entry.kind, entry.mode) = (kind, mode);
        let bytes = self.tar.entry(&entry)?;
        (self.take)(bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Folder,
    File(u32),
    Link,
    Submodule,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    name: &'a str,
    mode: Mode,
    id: Id,
}

/// The entries of a tree, in its order.
fn entries(tree: &[u8], id: Id) -> Result<Vec<Entry<'_>>> {
    let mut found = Vec::new();
    let mut rest = tree;
    let length = id.format().length();
    while !rest.is_empty() {
        let entry = (|| {
            let blank = rest.iter().position(|byte| *byte == b' ')?;
            let end = rest
                .iter()
                .position(|byte| *byte == 0)
                .filter(|end| *end > blank)?;
            let mode = mode_of(&rest[..blank])?;
            let name = std::str::from_utf8(&rest[blank + 1..end]).ok()?;
            let object = Id::from_bytes(id.format(), rest.get(end + 1..end + 1 + length)?)?;
            rest = &rest[end + 1 + length..];
            Some(Entry {
                name,
                mode,
                id: object,
            })
        })();
        let entry = entry.ok_or_else(|| wrong(format!("tree {id} is malformed")))?;
        if !is_safe(entry.name) {
            return Err(wrong(format!(
                "tree {id} has an entry `{}`",
                entry.name.escape_debug()
            )));
        }
        found.push(entry);
    }
    Ok(found)
}

/// Names that git itself would not check out.
fn is_safe(name: &str) -> bool {
    let reserved = name.eq_ignore_ascii_case(".git") || matches!(name, "" | "." | "..");
    !reserved && !name.contains(['/', '\\']) && !name.chars().any(char::is_control)
}

fn mode_of(digits: &[u8]) -> Option<Mode> {
    Some(match digits {
        b"40000" | b"040000" => Mode::Folder,
        b"100755" => Mode::File(0o755),
        // Old repositories have modes that git has given up.
        b"100644" | b"100664" | b"100600" => Mode::File(0o644),
        b"120000" => Mode::Link,
        b"160000" => Mode::Submodule,
        _ => return None,
    })
}

fn wrong(what: String) -> Error {
    Error::invalid(format!("the repository's content is malformed: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_read_and_bad_names_refused() {
        let id = Id::parse(&"1".repeat(40)).expect("a name");
        let entry = |mode: &str, name: &str| {
            let mut bytes = format!("{mode} {name}\0").into_bytes();
            bytes.extend([0x11; 20]);
            bytes
        };
        for (mode, name, expected) in [
            ("100644", "a", Some(Mode::File(0o644))),
            ("100755", "run.sh", Some(Mode::File(0o755))),
            ("40000", "folder", Some(Mode::Folder)),
            ("120000", "link", Some(Mode::Link)),
            ("160000", "module", Some(Mode::Submodule)),
            ("100644", "with blank ä", Some(Mode::File(0o644))),
            ("100644", "..", None),
            ("40000", ".", None),
            ("40000", ".GIT", None),
            ("100644", "a/b", None),
            ("100644", "a\\b", None),
            ("100644", "a\nb", None),
            ("100644", "", None),
            ("777", "a", None),
        ] {
            let bytes = [entry("100644", "first"), entry(mode, name)].concat();
            let found = entries(&bytes, id).ok().map(|found| found[1].mode);
            assert_eq!(found, expected, "{mode} {name}");
        }
        for bytes in [&b"100644 a"[..], b"100644 a\0short", b"100644\0", b"\0 "] {
            assert!(entries(bytes, id).is_err());
        }
    }

    #[test]
    fn commits_name_their_tree_first() {
        let tree = "1".repeat(40);
        let commit = format!("tree {tree}\nparent {}\n\nmessage\n", "2".repeat(40));
        assert_eq!(tree_of(commit.as_bytes()), Id::parse(&tree));
        for text in ["", "parent x", "tree x", "tree"] {
            assert_eq!(tree_of(text.as_bytes()), None, "{text}");
        }
    }
}
