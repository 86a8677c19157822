//! Component versions in a repository: the OCM mapping, written once above [`ContentStore`].
//!
//! *Invariant*: this module knows manifests and descriptors, and nothing of HTTP or files. What becomes visible under a
//! version is complete; equal descriptors give equal manifests, so that what is there already can be recognised by its
//! digest alone.
//!
//! A component version lies in the OCI repository `<prefix>/component-descriptors/<component>` under its version as tag
//! (formats.md 3). Reading is in `read`, writing in `write`, and what a manifest looks like in `layout`.

mod known;
mod layout;
mod read;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use ocm_content::{ContentStore, Error, ErrorKind, Result, Stores};
use ocm_specs::names::{Version, is_component_name};
use ocm_specs::reference::COMPONENT_DESCRIPTORS;
use ocm_specs::{Digest, RepositorySpec};

pub use known::Known;
pub(crate) use layout::{COMPONENT_VERSION, FILE_NAME, config_bytes, digests_of};
pub use layout::{CREATOR, component_index};
pub use read::ComponentVersion;
pub use write::{Existing, PreparedVersion, Published, VersionOutcome, predict_local_blob};

/// Requests of one listing or check that are under way at once.
const CONCURRENCY: usize = 8;

/// A repository of component versions. Cheap to clone.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    spec: RepositorySpec,
    location: String,
    stores: Arc<dyn Stores>,
    /// What all repositories of content have in front, without slashes at its ends.
    prefix: String,
    known: Arc<Known>,
}

impl Repository {
    /// The repository that lies in `stores` below `prefix`. `location` is its canonical text.
    pub fn new(
        spec: RepositorySpec,
        location: impl Into<String>,
        stores: Arc<dyn Stores>,
        prefix: &str,
        known: Arc<Known>,
    ) -> Self {
        Self(Arc::new(Inner {
            spec,
            location: location.into(),
            stores,
            prefix: prefix.trim_matches('/').to_owned(),
            known,
        }))
    }

    /// The specification it was opened by.
    pub fn spec(&self) -> &RepositorySpec {
        &self.0.spec
    }

    /// Canonical text for the place; equal for equal places.
    pub fn location(&self) -> &str {
        &self.0.location
    }

    /// The OCI repository that has the versions of `component`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when that is no component's name.
    pub fn store(&self, component: &str) -> Result<Arc<dyn ContentStore>> {
        if !is_component_name(component) {
            return Err(Error::invalid(format!(
                "`{component}` is not a component name"
            )));
        }
        self.0
            .stores
            .store(&self.below(&format!("{COMPONENT_DESCRIPTORS}/{component}")))
    }

    /// The OCI repository `path` below the prefix, for content beside component versions.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when that is no repository's name.
    pub fn content_store(&self, path: &str) -> Result<Arc<dyn ContentStore>> {
        self.0.stores.store(&self.below(path))
    }

    /// The names of all components here, sorted.
    ///
    /// # Errors
    /// What listing repositories gives; many registries do not allow it.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location()))]
    pub async fn components(&self) -> Result<Vec<String>> {
        let start = format!("{}/", self.below(COMPONENT_DESCRIPTORS));
        let repositories = self.0.stores.repositories().await?;
        let components: BTreeSet<String> = repositories
            .iter()
            .filter_map(|repository| repository.strip_prefix(&start))
            .filter(|component| is_component_name(component))
            .map(str::to_owned)
            .collect();
        Ok(components.into_iter().collect())
    }

    /// The versions of `component` that are semver by the relaxed rule, latest first; of equal ones (`1.0`, `1.0.0`) one.
    ///
    /// # Errors
    /// What reading tags and manifests gives. A component that is not here has no versions.
    pub async fn versions(&self, component: &str) -> Result<Vec<String>> {
        let all = self.all_versions(component).await?;
        let mut parsed: Vec<Version> = all.iter().filter_map(|text| Version::parse(text)).collect();
        parsed.sort_by(|a, b| b.cmp(a));
        parsed.dedup();
        Ok(parsed
            .into_iter()
            .map(|version| version.as_str().to_owned())
            .collect())
    }

    /// All versions of `component`, sorted as texts. The manifests say which version they are; a tag alone can't, since
    /// the mapping of `+` is not reversible (trap T18).
    ///
    /// # Errors
    /// What reading tags and manifests gives.
    #[tracing::instrument(level = "debug", skip_all, fields(repository = self.location(), component))]
    pub async fn all_versions(&self, component: &str) -> Result<Vec<String>> {
        let store = self.store(component)?;
        if self.0.known.lists_by_index()
            && let Some(versions) = self.versions_by_index(&store, component).await
        {
            return Ok(versions.into_iter().collect());
        }
        let tags = match store.tags().await {
            Ok(tags) => tags,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let versions: BTreeSet<String> = stream::iter(tags)
            .filter(|tag| std::future::ready(!is_referrers_tag(tag)))
            .map(|tag| {
                let store = store.clone();
                async move { self.version_behind(&store, component, &tag).await }
            })
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(|version| std::future::ready(Ok(version)))
            .try_collect()
            .await?;
        Ok(versions.into_iter().collect())
    }

    fn below(&self, path: &str) -> String {
        if self.0.prefix.is_empty() {
            path.to_owned()
        } else {
            format!("{}/{path}", self.0.prefix)
        }
    }

    /// Names the component version in an error that arose below.
    fn blame(&self, component: &str, version: &str, error: Error) -> Error {
        error.context(format!(
            "component version {component}:{version} in {}",
            self.location()
        ))
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Repository").field(&self.0.location).finish()
    }
}

/// The tag of a version: `+` may not stand in tags.
pub(crate) fn tag_of(version: &str) -> String {
    version.replace('+', ".build-")
}

/// `<algorithm>-<hex>` holds the referrers of a manifest where a registry has no API for them.
fn is_referrers_tag(tag: &str) -> bool {
    tag.replacen('-', ":", 1).parse::<Digest>().is_ok()
}
