//! `ocm registry serve`: the embedded registry in the foreground.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ocm_content::{Limits, MemoryStores, Stores};
use ocm_registry::{Auth, Registry, RegistryConfig, Users};
use ocm_repository::ctf::{Access, Ctf, CtfOptions};

use crate::args::ServeArgs;
use crate::error::{CliError, ExitCode};
use crate::ui::Ui;

/// How long a token is good for: long enough for a large blob, short enough to be of little use to a finder.
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);

/// Serves until SIGINT or SIGTERM.
pub(crate) async fn serve(args: ServeArgs, ui: &Ui) -> Result<(), CliError> {
    let stores = stores(&args, ui).await?;
    let config = RegistryConfig {
        auth: auth(&args)?,
        read_only: args.read_only || !stores.writable(),
        ..RegistryConfig::new(stores)
    };
    let running = Registry::bind(config, args.listen).await.map_err(|error| {
        CliError::new(
            ExitCode::Failure,
            format!("listen on {}: {error}", args.listen),
        )
    })?;
    ui.note(&format!("serving on http://{}\n", running.addr));
    let code = crate::commands::transfer::signal().await;
    running.stop().await;
    // Being told to stop is how a server ends well.
    let _ = code;
    Ok(())
}

async fn stores(args: &ServeArgs, ui: &Ui) -> Result<Arc<dyn Stores>, CliError> {
    let open = |path: &Path, access| {
        let path = ui.working_directory().join(path);
        let limits = Limits::new(super::session::limits(ui));
        async move { Ctf::open(&path, CtfOptions { access, limits }).await }
    };
    Ok(match (&args.data, &args.ctf) {
        (Some(data), _) => {
            let archive = open(data, Access::Create).await?;
            super::ctf::check_served(&archive)?;
            archive
        }
        (None, Some(archive)) => open(archive, Access::ReadOnly).await?,
        (None, None) => Arc::new(MemoryStores::new()),
    })
}

fn auth(args: &ServeArgs) -> Result<Auth, CliError> {
    let Some(path) = &args.users else {
        return Ok(Auth::None);
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| CliError::file("read", path, &error))?;
    let mut users = Users::default();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let (user, password) = line.split_once(':').ok_or_else(|| {
            let place = format!("{}:{}", path.display(), number + 1);
            CliError::new(
                ExitCode::Invalid,
                format!("{place}: the line is not `user:password`"),
            )
        })?;
        users = users.with(user, password, true);
    }
    Ok(match args.tokens {
        true => Auth::Token {
            users,
            lifetime: TOKEN_LIFETIME,
            realm: None,
        },
        false => Auth::Basic { users },
    })
}
