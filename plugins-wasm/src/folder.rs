//! A folder that nobody else may write to: what is in it is trusted as far as it is checked.

use std::fs;
use std::path::{Path, PathBuf};

use ocm_content::{Error, ErrorKind};

/// A folder of the user's own.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Is it there, ours, and closed to others?
    pub(crate) fn check(&self) -> Result<(), Error> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = fs::symlink_metadata(&self.0)
                .map_err(|error| Error::io(format!("look at {}", self.0.display()), &error))?;
            let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
            if !metadata.is_dir() || !is_ours || metadata.mode() & 0o022 != 0 {
                let message = format!(
                    "the folder {} for plugins can be written by others",
                    self.0.display()
                );
                return Err(Error::new(ErrorKind::Denied, message)
                    .with_hint("remove it, or make it a folder of yours with mode 0700"));
            }
        }
        Ok(())
    }

    /// Makes it, if it is not there, and checks it.
    pub(crate) fn make(&self) -> Result<(), Error> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .create(&self.0)
            .map_err(|error| Error::io(format!("create {}", self.0.display()), &error))?;
        self.check()
    }
}
