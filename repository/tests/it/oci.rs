//! The registry client, against Debian's `docker-registry` and against servers that misbehave on purpose.

mod auth;
pub(crate) mod debian;
mod embedded;
mod matrix;
mod proxy;
mod pull;
mod push;
mod server;

use std::sync::Arc;
use std::time::Duration;

use ocm_content::limits::LimitsConfig;
use ocm_content::{ContentStore, Limits, Result};
use ocm_repository::credentials::{Anonymous, Credential, CredentialSource, Identity};
use ocm_repository::oci::{Client, ClientConfig, RetryConfig, Timeouts};

use server::Server;

/// Everything slower than a test: only tests about time make it run out, on a paused clock.
const NEVER: Duration = Duration::from_secs(1_000_000);

fn config() -> ClientConfig {
    ClientConfig {
        timeouts: Timeouts {
            connect: NEVER,
            answer: NEVER,
            commit: NEVER,
            stall: NEVER,
            ..Timeouts::default()
        },
        retry: RetryConfig {
            attempts: 3,
            ..RetryConfig::default()
        },
        ..ClientConfig::default()
    }
}

fn client(config: ClientConfig, credentials: impl CredentialSource + 'static) -> Client {
    let limits = Limits::new(LimitsConfig {
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    });
    Client::new(config, Arc::new(credentials), limits).expect("a client")
}

fn store(server: &Server, config: ClientConfig) -> Arc<dyn ContentStore> {
    let client = client(config, Anonymous);
    client.store(&server.host, "acme/x").expect("a store")
}

/// Bytes that differ from their neighbours.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// What came out, in a line: `ok` or the kind and the message.
fn outcome<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// Knows one credential, for one path where that is given.
#[derive(Debug)]
struct Knows(Credential);

#[async_trait::async_trait]
impl CredentialSource for Knows {
    async fn credential(&self, _: &Identity) -> Result<Option<Credential>> {
        Ok(Some(self.0.clone()))
    }
}
