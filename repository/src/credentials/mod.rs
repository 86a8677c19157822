//! Who may do what where: credentials, the identities they are asked for by, and where they come from.
//!
//! *Invariant*: nothing here reads the environment, a home directory or a file by itself; documents and paths are handed
//! in. A [`Secret`] is never printed.

mod consumer;
mod docker;
mod docker_file;
mod helper;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use ocm_content::Result;

pub use consumer::{ClientCertificate, Consumers, DockerConfigAt, Pem, Properties};
pub use docker::DockerConfig;
pub use docker_file::{DockerFile, Server};
pub use helper::Helpers;

/// A text that `Debug` and `Display` hide.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Is there nothing to hide?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// What proves to a registry who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credential {
    /// A user name and a password (or a personal access token in its place).
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that the registry itself takes as it is (`Authorization: Bearer`).
    Bearer(Secret),
    /// A refresh token, which the token service changes into access tokens (OAuth2).
    IdentityToken(Secret),
}

impl Credential {
    /// A user name and a password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Basic {
            username: username.into(),
            password: Secret::new(password),
        }
    }

    /// What it is, for people; nothing secret.
    pub fn describe(&self) -> String {
        match self {
            Self::Basic { username, .. } => {
                format!("user `{}` and password", username.escape_debug())
            }
            Self::Bearer(_) => "an access token".to_owned(),
            Self::IdentityToken(_) => "an identity token".to_owned(),
        }
    }
}

/// The thing that credentials are asked for: a type and attributes, as in OCM's consumer identities.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Identity(BTreeMap<String, String>);

impl Identity {
    /// An identity of that type without attributes.
    pub fn new(kind: impl Into<String>) -> Self {
        Self::default().with("type", kind)
    }

    /// A path in an OCI registry; `port` where the URL names one.
    pub fn oci(scheme: &str, hostname: &str, port: Option<u16>, path: &str) -> Self {
        let identity = Self::new("OCIRegistry")
            .with("scheme", scheme)
            .with("hostname", hostname);
        let identity = match port {
            Some(port) => identity.with("port", port.to_string()),
            None => identity,
        };
        match path.trim_matches('/') {
            "" => identity,
            path => identity.with("path", path),
        }
    }

    /// The same with one attribute more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// An attribute's value; `None` where it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The type, without a version behind `/`.
    pub fn kind(&self) -> &str {
        let kind = self.get("type").unwrap_or_default();
        kind.split_once('/').map_or(kind, |(name, _)| name)
    }

    /// All attributes, the type among them, sorted by name.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Identity {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(attributes: I) -> Self {
        Self(attributes.into_iter().collect())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// Something that may know credentials.
///
/// Implementors owe: `Ok(None)` where they know nothing, an error only where looking broke; they may be asked concurrently
/// and again for the same identity, and their futures may be dropped at any await point.
#[async_trait]
pub trait CredentialSource: Send + Sync + fmt::Debug {
    /// The credential for `request`.
    async fn credential(&self, request: &Identity) -> Result<Option<Credential>>;

    /// What it is called, for people.
    fn name(&self) -> String {
        "credentials".to_owned()
    }

    /// What is looked at for `request`, in order, and what becomes of it. Programs that would be asked are asked. Nothing
    /// secret is in it.
    async fn explain(&self, request: &Identity) -> Vec<Considered> {
        let _ = request;
        Vec::new()
    }
}

/// One entry that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Where it stands.
    pub place: String,
    /// What it is for.
    pub entry: String,
    /// Is it the one that is used?
    pub used: bool,
    /// Why, or why not.
    pub reason: String,
}

/// Knows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Anonymous;

#[async_trait]
impl CredentialSource for Anonymous {
    async fn credential(&self, _request: &Identity) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// Asks one after the other; the first that knows something wins.
#[derive(Clone, Debug, Default)]
pub struct Chain(pub Vec<Arc<dyn CredentialSource>>);

#[async_trait]
impl CredentialSource for Chain {
    async fn credential(&self, request: &Identity) -> Result<Option<Credential>> {
        for source in &self.0 {
            if let Some(credential) = source.credential(request).await? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    async fn explain(&self, request: &Identity) -> Vec<Considered> {
        let mut all: Vec<Considered> = Vec::new();
        for source in &self.0 {
            if all.iter().any(|one| one.used) {
                // Not asked: explaining would run programs that nobody needs.
                all.push(Considered {
                    place: source.name(),
                    entry: "all".to_owned(),
                    used: false,
                    reason: "not looked at: what comes earlier has credentials".to_owned(),
                });
                continue;
            }
            all.extend(source.explain(request).await);
        }
        all
    }
}
