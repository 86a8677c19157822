//! The folder that inputs are read from, and may not leave.
//!
//! *Invariant*: what is read lies in the folder after all symbolic links are followed.

use std::path::{Component, Path, PathBuf};

use ocm_content::Error;

/// A folder that confines paths.
#[derive(Clone, Debug)]
pub(super) struct Root {
    folder: PathBuf,
    canonical: PathBuf,
}

impl Root {
    /// Blocks.
    pub(super) fn open(folder: &Path) -> Result<Self, Error> {
        let canonical = canonical(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            canonical,
        })
    }

    /// The place of a path that a person wrote. Blocks.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::NotFound`], or [`ocm_content::ErrorKind::Invalid`] for what lies outside.
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, Error> {
        let full = self.folder.join(path);
        if path.contains('\0') || self.leaves(Path::new(path)) {
            return Err(self.outside(path, None));
        }
        let found = canonical(&full).map_err(|error| {
            error.with_hint(format!(
                "paths of inputs start at {}",
                self.folder.display()
            ))
        })?;
        self.check(path, found)
    }

    /// `found`, if it lies inside.
    pub(super) fn check(&self, path: &str, found: PathBuf) -> Result<PathBuf, Error> {
        if found.starts_with(&self.canonical) {
            Ok(found)
        } else {
            Err(self.outside(path, Some(&found)))
        }
    }

    /// Does the text alone lead out of the folder? Asked before anything outside is looked at.
    fn leaves(&self, path: &Path) -> bool {
        if path.is_absolute() {
            return !(path.starts_with(&self.folder) || path.starts_with(&self.canonical));
        }
        let mut depth = 0_usize;
        for component in path.components() {
            match component {
                Component::ParentDir if depth == 0 => return true,
                Component::ParentDir => depth -= 1,
                Component::Normal(_) => depth += 1,
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
        false
    }

    fn outside(&self, path: &str, found: Option<&Path>) -> Error {
        let leads = match found {
            Some(found) => format!(" leads to {}, which", found.display()),
            None => String::new(),
        };
        let root = self.canonical.display();
        Error::invalid(format!(
            "`{path}`{leads} is outside of {root}, where inputs have to be"
        ))
        .with_hint("copy it there, or give --working-directory a folder that has all inputs in it")
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize()
        .map_err(|error| Error::io(format!("read {}", path.display()), &error))
}

#[cfg(test)]
mod tests {
    use ocm_content::ErrorKind;

    use super::*;

    #[test]
    fn nothing_outside_is_reached() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("in");
        std::fs::create_dir_all(inside.join("sub")).expect("make it");
        std::fs::write(inside.join("sub/file"), "x").expect("write");
        std::fs::write(folder.path().join("secret"), "x").expect("write");
        let root = Root::open(&inside).expect("a root");
        let absolute = inside.join("sub/file").display().to_string();
        for path in [
            "sub/file",
            "./sub/../sub/file",
            "sub",
            ".",
            absolute.as_str(),
        ] {
            root.resolve(path).expect(path);
        }
        for (path, kind) in [
            ("nothing", ErrorKind::NotFound),
            ("../secret", ErrorKind::Invalid),
            ("../nothing", ErrorKind::Invalid),
            ("sub/../../secret", ErrorKind::Invalid),
            ("/etc/passwd", ErrorKind::Invalid),
            ("a\0b", ErrorKind::Invalid),
        ] {
            assert_eq!(root.resolve(path).expect_err(path).kind(), kind, "{path}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../secret", inside.join("link")).expect("link");
            std::os::unix::fs::symlink("..", inside.join("up")).expect("link");
            std::os::unix::fs::symlink("sub/file", inside.join("fine")).expect("link");
            for path in ["link", "up/secret"] {
                let error = root.resolve(path).expect_err(path);
                assert!(
                    error.to_string().contains(&format!("`{path}` leads to ")),
                    "{error}"
                );
            }
            root.resolve("fine").expect("a link that stays");
        }
    }
}
