//! `ocm login`, `ocm logout`: credentials of registries in Docker's format.
//!
//! *Invariant*: a file is replaced as a whole, readable by its owner alone, and what it holds besides stays as it is. What
//! does not work is not stored, unless that was asked for.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use ocm_content::ErrorKind;
use ocm_repository::Session;
use ocm_repository::credentials::{
    Credential, CredentialSource, DockerFile, Identity, Secret, Server,
};

use crate::args::{LoginArgs, LogoutArgs};
use crate::commands::session;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// Longest password that is read, in bytes.
const PASSWORD_LIMIT: u64 = 64 << 10;

/// Checks credentials and keeps them.
pub(crate) async fn log_in(args: LoginArgs, ui: &Ui) -> Result<(), CliError> {
    let server = server(&args.server)?;
    let path = file(args.authfile.as_deref(), ui)?;
    // Read first: what can't be stored need not be typed.
    let mut docker = read(&path)?;
    let password = password(&args, &server, ui)?;
    if !args.no_verify {
        verify(&args, &server, &password, ui).await?;
    }
    let place = match docker.helper(&server).map(str::to_owned) {
        Some(helper) => {
            let helpers = ui.environment.helpers();
            let name = server.to_string();
            helpers
                .store(&helper, &name, &args.username, &password)
                .await?;
            docker.mark(&server);
            format!("docker-credential-{helper}")
        }
        None => {
            docker.set(&server, &args.username, &password);
            path.display().to_string()
        }
    };
    write(&path, &docker)?;
    ui.note(&format!("logged in to {server}: kept in {place}\n"));
    Ok(())
}

/// Forgets credentials.
pub(crate) async fn log_out(args: LogoutArgs, ui: &Ui) -> Result<(), CliError> {
    let server = server(&args.server)?;
    let path = file(args.authfile.as_deref(), ui)?;
    let mut docker = read(&path)?;
    let helper = docker.helper(&server).map(str::to_owned);
    if let Some(helper) = &helper {
        let helpers = ui.environment.helpers();
        helpers.erase(helper, &server.to_string()).await?;
    }
    if docker.remove(&server) {
        write(&path, &docker)?;
    } else if helper.is_none() {
        let place = path.display();
        ui.note(&format!(
            "there are no credentials for {server} in {place}\n"
        ));
        return Ok(());
    }
    ui.note(&format!("logged out of {server}\n"));
    Ok(())
}

fn server(text: &str) -> Result<Server, CliError> {
    text.parse().map_err(|error| {
        // What was typed may hold a password.
        CliError::usage(format!("HOST: {error}"))
            .with_hint("write it as in ghcr.io or localhost:5001")
    })
}

fn file(named: Option<&Path>, ui: &Ui) -> Result<PathBuf, CliError> {
    let path = match named {
        Some(path) => Some(path.to_owned()),
        None => ui.environment.login_file(),
    };
    let path = path.ok_or_else(|| {
        CliError::usage("there is no home folder to keep credentials in")
            .with_hint("name a file with --authfile, or set HOME or DOCKER_CONFIG")
    })?;
    Ok(ui.environment.working_directory.join(path))
}

fn read(path: &Path) -> Result<DockerFile, CliError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(CliError::file("read", path, &error)),
    };
    let parsed = DockerFile::parse(&text);
    Ok(parsed.map_err(|error| error.context(path.display().to_string()))?)
}

/// Writes a file that nobody else may read, in place of the one that is there.
fn write(path: &Path, docker: &DockerFile) -> Result<(), CliError> {
    // A link stays one.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder).and_then(|()| {
        // Made for its owner alone.
        let mut staged = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut staged, docker.to_text().as_bytes())?;
        staged.as_file().sync_all()?;
        staged.persist(&target)?;
        Ok(())
    });
    written.map_err(|error| CliError::file("write", path, &error))
}

/// Asks the person at the terminal; what is typed is not shown.
fn asked(username: &str, server: &Server) -> Result<String, CliError> {
    rpassword::prompt_password(format!("Password of {username} at {server}: ")).map_err(|error| {
        CliError::usage(format!("read the password: {error}"))
            .with_hint("read it from stdin with --password-stdin")
    })
}

fn password(args: &LoginArgs, server: &Server, ui: &Ui) -> Result<Secret, CliError> {
    let text = match &args.password {
        Some(password) => {
            ui.note("warning: others may see a password on the command line; --password-stdin is safer\n");
            password.clone()
        }
        None if args.password_stdin => from_stdin()?,
        None if std::io::stdin().is_terminal() => asked(&args.username, server)?,
        None => {
            return Err(CliError::usage("a password is needed")
                .with_hint("read it from stdin with --password-stdin"));
        }
    };
    match text.is_empty() {
        true => Err(CliError::usage("the password is empty")),
        false => Ok(Secret::new(text)),
    }
}

fn from_stdin() -> Result<String, CliError> {
    let mut text = String::new();
    let mut stdin = std::io::stdin().lock().take(PASSWORD_LIMIT + 1);
    stdin
        .read_to_string(&mut text)
        .map_err(|error| CliError::new(ExitCode::Failure, format!("read the password: {error}")))?;
    if text.len() as u64 > PASSWORD_LIMIT {
        let message = format!("the password is longer than {PASSWORD_LIMIT} bytes");
        return Err(CliError::usage(message));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// Asks the registry, with nothing but what is to be stored.
async fn verify(
    args: &LoginArgs,
    server: &Server,
    password: &Secret,
    ui: &Ui,
) -> Result<(), CliError> {
    let credential = Only(Credential::Basic {
        username: args.username.clone(),
        password: password.clone(),
    });
    let session: Arc<Session> = session::open_as(ui, Arc::new(credential))?;
    // A scheme that was typed says how to ask.
    let host = match args.server.split_once("://") {
        Some((scheme @ ("http" | "https"), _)) => format!("{scheme}://{}", server.authority()),
        _ => server.authority().to_owned(),
    };
    let asked = session.client().log_in(&host).await.map_err(|error| {
        let denied = error.kind() == ErrorKind::Denied;
        let error = CliError::from(error);
        match denied {
            true => error.with_hint(format!(
                "{} does not take this user name and password; nothing was stored",
                server.authority()
            )),
            false => error.with_hint("nothing was stored; --no-verify stores without asking"),
        }
    })?;
    if !asked {
        ui.note(&format!(
            "warning: {} lets everybody in: user name and password could not be checked\n",
            server.authority()
        ));
    }
    Ok(())
}

/// Knows one credential, for everything.
#[derive(Debug)]
struct Only(Credential);

#[async_trait]
impl CredentialSource for Only {
    async fn credential(&self, _: &Identity) -> ocm_content::Result<Option<Credential>> {
        Ok(Some(self.0.clone()))
    }
}
