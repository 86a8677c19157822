//! Digests written into specs: what was found at a plugin's source becomes what it is pinned to.
//!
//! *Invariant*: nothing but these digests changes in the file, comments and line breaks included, and the file is there as a
//! whole at every moment. What changed since it was read is not written over.

use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use ocm_content::Disk;
use ocm_specs::Digest;
use ocm_specs::yaml::{self, Edit, Source};

use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// A plugin that its spec names without a digest.
pub(crate) struct Pin {
    /// Which entry of `plugins`.
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) digest: Digest,
}

impl Pin {
    /// What is said of it: name and digest.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.name, self.digest)
    }
}

/// Writes the digests into the file that `source` was read from, and says so.
pub(crate) fn write(
    file: &Path,
    source: &Source,
    pins: &[Pin],
    disk: &Disk,
    ui: &Ui,
) -> Result<(), CliError> {
    let shown = source.name();
    if pins.is_empty() {
        ui.note(&format!(
            "nothing to lock in {shown}: all its plugins have a digest\n"
        ));
        return Ok(());
    }
    let text = pinned(source, pins)?;
    replace(
        &ui.environment.working_directory.join(file),
        source,
        &text,
        disk,
    )?;
    for Pin { name, digest, .. } in pins {
        ui.note(&format!("locked in {shown}: plugin {name} is {digest}\n"));
    }
    Ok(())
}

/// The text with the digests.
fn pinned(source: &Source, pins: &[Pin]) -> Result<String, CliError> {
    let mut text = source.text().to_owned();
    for Pin { at, name, digest } in pins {
        let unwritten = |why: String| {
            let message = format!(
                "{}: the digest of plugin `{name}` can't be written: {why}",
                source.name()
            );
            CliError::new(ExitCode::Invalid, message).with_hint(format!(
                "write `digest: {digest}` into its entry of `plugins`"
            ))
        };
        let path = yaml::Path::parse(&format!("plugins[{at}].digest"));
        let edit = Edit {
            path: path.map_err(|error| unwritten(error.to_string()))?,
            value: digest.to_string().into(),
            create: true,
        };
        text = yaml::edit(&text, &[edit]).map_err(|error| unwritten(error.to_string()))?;
    }
    Ok(text)
}

/// Puts the text in place of what `source` was read from, with the permissions that the file has.
fn replace(path: &Path, source: &Source, text: &str, disk: &Disk) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::file("write", Path::new(source.name()), &error);
    // Behind a link, so that it stays one.
    let path = path.canonicalize().map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut staged = disk
        .create_in(tempfile::Builder::new().prefix(".").suffix(".tmp"), folder)
        .map_err(failed)?;
    let permissions = std::fs::metadata(&path).map_err(failed)?.permissions();
    staged
        .as_file()
        .set_permissions(permissions)
        .map_err(failed)?;
    let name = staged.path().to_owned();
    let bytes = Bytes::copy_from_slice(text.as_bytes());
    disk.write_all(staged.as_file_mut(), &name, &[bytes])
        .and_then(|()| disk.sync(staged.as_file(), &name, false))
        .map_err(failed)?;
    if !is_still(&path, source.text()).map_err(failed)? {
        let message = format!("{} was changed while it was locked", source.name());
        return Err(CliError::new(ExitCode::Conflict, message).with_hint("run it again"));
    }
    disk.rename(staged, &path)
        .map_err(|error| failed(error.error))?;
    disk.sync_folder(folder).map_err(failed)
}

fn is_still(path: &Path, text: &str) -> std::io::Result<bool> {
    let mut now = Vec::new();
    let limit = text.len() as u64 + 1;
    std::fs::File::open(path)?
        .take(limit)
        .read_to_end(&mut now)?;
    Ok(now == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_goes_into_its_entry_and_nothing_else_changes() {
        let digest = Digest::sha256(b"plugin");
        for (before, at, after) in [
            (
                "plugins:\n- name: a # the one\n  source: a.wasm\n\n# steps\ntransformations: []\n",
                0,
                "plugins:\n- name: a # the one\n  source: a.wasm\n  digest: DIGEST\n\n# steps\ntransformations: []\n",
            ),
            (
                "plugins: [{name: a, source: a.wasm}, {name: 'b'}]\r\ntransformations: []\r\n",
                1,
                "plugins: [{name: a, source: a.wasm}, {name: 'b', digest: DIGEST}]\r\ntransformations: []\r\n",
            ),
            (
                "plugins:\n  - digest:\n    name: a\n",
                0,
                "plugins:\n  - digest: DIGEST\n    name: a\n",
            ),
            (
                "{\"plugins\": [{\"name\": \"a\"}]}",
                0,
                "{\"plugins\": [{\"name\": \"a\", \"digest\": \"DIGEST\"}]}",
            ),
        ] {
            let pin = Pin {
                at,
                name: "a".to_owned(),
                digest: digest.clone(),
            };
            let text = pinned(&Source::new("spec.yaml", before), &[pin]).expect(before);
            assert_eq!(
                text,
                after.replace("DIGEST", &digest.to_string()),
                "{before}"
            );
        }
        let shared = Source::new("spec.yaml", "x: &x {name: a}\nplugins: [*x]\n");
        let pin = Pin {
            at: 0,
            name: "a".to_owned(),
            digest: digest.clone(),
        };
        let error = pinned(&shared, &[pin]).expect_err("it is written elsewhere");
        assert!(
            error
                .message
                .starts_with("spec.yaml: the digest of plugin `a` can't be written: "),
            "{}",
            error.message
        );
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains(&digest.to_string()))
        );
    }
}
