//! `ocm ctf`: looking after archives.

use ocm_content::{Limits, Stores};
use ocm_repository::ctf::{Access, Ctf, CtfOptions, Form, Garbage};
use serde_json::json;

use crate::args::{GcArgs, GcFormat};
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;
use crate::{commands, units};

/// Removes what nothing refers to.
pub(crate) async fn collect_garbage(args: GcArgs, ui: &Ui) -> Result<(), CliError> {
    let path = ui.working_directory().join(&args.archive);
    let options = CtfOptions {
        access: Access::ReadWrite,
        limits: Limits::new(commands::session::limits(ui)),
    };
    let archive = Ctf::open(&path, options).await?;
    let found = if args.dry_run {
        archive.find_garbage(args.grace).await?
    } else {
        archive.collect_garbage(args.grace).await?
    };
    ui.data(&render(&args, found))
}

fn render(args: &GcArgs, found: Garbage) -> String {
    let archive = args.archive.display().to_string();
    if args.output == GcFormat::Json {
        let answer = json!({
            "archive": archive,
            "files": found.files,
            "bytes": found.bytes,
            "dryRun": args.dry_run,
        });
        return format!("{answer:#}\n");
    }
    if found.files == 0 {
        return format!("nothing to remove in {archive}\n");
    }
    let done = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    let files = units::count(usize::try_from(found.files).unwrap_or(usize::MAX), "file");
    format!(
        "{done} {files}, {}, from {archive}\n",
        units::size(found.bytes)
    )
}

/// An archive that is served can only be a directory: a file is written at the end of a run, and a server has none.
///
/// # Errors
/// Says so.
pub(crate) fn check_served(archive: &Ctf) -> Result<(), CliError> {
    if archive.writable() && archive.form() != Form::Directory {
        let message = format!(
            "{} is an archive file, and a registry can't write into one",
            archive.path().display()
        );
        return Err(CliError::new(ExitCode::Failure, message).with_hint(
            "serve a directory, or the file read-only with `ocm registry serve --ctf`",
        ));
    }
    Ok(())
}
