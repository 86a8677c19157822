//! Content that other servers have: charts in Helm repositories, what URLs give, commits that GitHub archives.
//!
//! *Invariant*: nothing here opens a connection of its own. Every request goes through the session's client, and so does
//! what it does about failures, redirects, credentials, limits and names that stand for others.

mod git;
mod github;
mod helm;
mod wget;

use ocm_content::{Content, Error, Result};
use ocm_specs::Digest;
use ocm_specs::access::remote::Remote;
use ocm_specs::descriptor::DigestSpec;
use serde_json::Value;

pub use git::GitCommit;
pub(crate) use helm::Indexes;
pub use helm::{ChartMetadata, HelmChart};

use crate::session::Session;

/// Consumers of credentials for Helm repositories with an index.
const HELM: &str = "HelmChartRepository";
/// Consumers of credentials for web servers.
const WGET: &str = "Wget";
/// Consumers of credentials for git repositories.
const GIT: &str = "Git";
/// Consumers of credentials for GitHub.
const GITHUB: &str = "GitHubRepository";

/// A URL that can't be parsed, without what may be a secret in it.
fn printable(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let shown = match path.rsplit_once('@') {
        Some((_, rest)) => rest,
        None => path,
    };
    shown.escape_debug().to_string()
}

impl Session {
    /// The content of an access that leads to another server: Helm repositories (the chart archive), URLs, commits. Lazy:
    /// little more than a look-up, but for what may be asked for only once. `stated` is the digest that a descriptor states
    /// for it; reading anything else is an error.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Unsupported`] for accesses of other types, [`ocm_content::ErrorKind::Invalid`] for a malformed one, besides
    /// what the server gives.
    pub async fn remote_content(
        &self,
        access: &Value,
        stated: Option<&DigestSpec>,
    ) -> Result<Content> {
        let digest = stated.and_then(blob_digest);
        match parse(access)? {
            Remote::Helm(helm) => {
                let chart = helm::chart(self, helm, false).await?;
                chart.expect(digest).map(|chart| chart.archive.into())
            }
            Remote::Wget(wget) => wget::content(self, &wget, digest).await.map(Content::from),
            Remote::GitHub(github) => github::archive(self, github, digest)
                .await
                .map(Content::from),
            Remote::Git(git) => {
                let commit = git::commit(self, git, digest).await?;
                Ok(commit.archive.into())
            }
            _ => Err(not_read(access)),
        }
    }

    /// The commit of a git repository that an access names: its commit, else what its reference names now. The repository is
    /// asked for references only; the commit is read when somebody reads the archive, and kept then.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Unsupported`] when the access is no git repository's or is not read over HTTP,
    /// [`ocm_content::ErrorKind::NotFound`] when there is no such reference, besides what the server gives.
    pub async fn git_commit(
        &self,
        access: &Value,
        stated: Option<&DigestSpec>,
    ) -> Result<GitCommit> {
        match parse(access)? {
            Remote::Git(git) => git::commit(self, git, stated.and_then(blob_digest)).await,
            _ => Err(not_read(access).with_hint("a git repository has access type `git`")),
        }
    }

    /// The chart that an access names, with its provenance file where there is one.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Unsupported`] when the access is no chart's, [`ocm_content::ErrorKind::NotFound`] when the repository has no
    /// such chart or version, besides what the server gives.
    pub async fn helm_chart(
        &self,
        access: &Value,
        stated: Option<&DigestSpec>,
    ) -> Result<HelmChart> {
        match parse(access)? {
            Remote::Helm(helm) => {
                let chart = helm::chart(self, helm, true).await?;
                chart.expect(stated.and_then(blob_digest))
            }
            _ => Err(not_read(access).with_hint("a chart has access type `helm`")),
        }
    }
}

fn parse(access: &Value) -> Result<Remote<'_>> {
    let parsed = Remote::parse(access).map_err(|error| Error::invalid(error.to_string()))?;
    parsed.ok_or_else(|| not_read(access))
}

fn not_read(access: &Value) -> Error {
    let type_name = access.get("type").and_then(Value::as_str);
    Error::unsupported(format!(
        "content with access type `{}` is not read here",
        type_name.unwrap_or_default()
    ))
}

/// The digest of the bytes, where a descriptor states that.
fn blob_digest(stated: &DigestSpec) -> Option<Digest> {
    if stated.is_excluded() || !stated.is_of_blob() {
        return None;
    }
    stated.digest()
}
