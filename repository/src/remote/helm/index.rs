//! The `index.yaml` of a chart repository: which versions of which charts there are, and where.
//!
//! *Invariant*: an index is read once per run, however many charts are looked up in it, and kept as what look-ups need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ocm_content::{Error, Result};
use ocm_specs::Digest;
use ocm_specs::diagnostic::did_you_mean;
use ocm_specs::names::Version;
use ocm_specs::yaml::{LoadOptions, Node, Source, load};
use semver::VersionReq;
use tokio::sync::OnceCell;
use url::Url;

use super::super::{HELM, printable};
use super::at;
use crate::oci::{Client, WebRequest};

/// Largest index, in bytes: 32 MiB. The largest public ones have about 20.
const INDEX_LIMIT: u64 = 32 << 20;
/// Most values in it, which bounds the memory for reading it.
const INDEX_NODES: usize = 1_500_000;
/// Most versions that are listed in a message.
const LISTED: usize = 5;

/// The indexes that a run has read, by the URL of their repository.
#[derive(Default)]
pub(crate) struct Indexes(Mutex<BTreeMap<String, Arc<OnceCell<Arc<Index>>>>>);

impl Indexes {
    /// The index of the repository at `base` (see [`folder`]).
    pub(super) async fn get(&self, client: &Client, base: &Url) -> Result<Arc<Index>> {
        let cell = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(base.to_string()).or_default().clone()
        };
        let read = || async {
            let mut url = below(base, "index.yaml")?;
            url.set_query(base.query());
            let request = WebRequest::get(url, HELM).with_path(base.path());
            let body = client.page(&request, INDEX_LIMIT).await?.success()?;
            Index::parse(&body)
                .map(Arc::new)
                .map_err(|error| error.context(request.doing))
        };
        cell.get_or_try_init(read).await.cloned()
    }
}

/// The URL of a repository with a slash at its end, which relative URLs start from.
pub(super) fn folder(repository: &Url) -> Url {
    let mut base = repository.clone();
    base.set_fragment(None);
    base.set_path(&format!("{}/", repository.path().trim_end_matches('/')));
    base
}

fn below(base: &Url, path: &str) -> Result<Url> {
    base.join(path)
        .map_err(|error| Error::invalid(format!("`{}`: {error}", printable(path))))
}

/// What an index says, as far as it matters.
#[derive(Debug, Default)]
pub(crate) struct Index(BTreeMap<String, Vec<Entry>>);

/// One version of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) version: String,
    url: Option<String>,
    digest: Option<String>,
}

impl Entry {
    /// Where the archive is.
    pub(super) fn url(&self, base: &Url) -> Result<Url> {
        let text = self.url.as_deref().ok_or_else(|| {
            Error::invalid(format!("the index has no URL for version {}", self.version))
        })?;
        if let Ok(absolute) = Url::parse(text) {
            return Ok(absolute);
        }
        let mut url = below(base, text)?;
        if url.query().is_none() {
            url.set_query(base.query());
        }
        Ok(url)
    }

    /// What the archive must hash to; what is no digest says nothing.
    pub(super) fn digest(&self) -> Option<Digest> {
        let text = self.digest.as_deref()?;
        match text.contains(':') {
            true => text.parse().ok(),
            false => format!("sha256:{text}").parse().ok(),
        }
    }
}

impl Index {
    fn parse(body: &Bytes) -> Result<Self> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Error::invalid("the index is no text in UTF-8"))?;
        let source = Source::new("index.yaml", text);
        let options = LoadOptions {
            node_limit: INDEX_NODES,
            ..LoadOptions::default()
        };
        let document = load(&source, &options).map_err(|error| at(&source, &error))?;
        let entries = document.get("entries");
        if entries.is_none() && document.get("apiVersion").is_none() {
            return Err(Error::invalid("this is no index of a Helm repository"));
        }
        let mut index = Self::default();
        for (name, versions) in entries.and_then(Node::as_map).into_iter().flatten() {
            let versions = versions.node.as_list().unwrap_or_default();
            let versions = versions.iter().filter_map(entry).collect();
            index.0.insert(name.clone(), versions);
        }
        Ok(index)
    }

    /// The version asked for: of that text, else equal to it, else the latest that it allows as a constraint. Without one the
    /// latest that is no pre-release.
    pub(super) fn find(&self, name: &str, version: Option<&str>) -> Result<&Entry> {
        let versions = self.0.get(name).ok_or_else(|| {
            let error = Error::not_found(format!("the repository has no chart `{name}`"));
            match did_you_mean(name, self.0.keys().map(String::as_str)) {
                Some(similar) => error.with_hint(format!("did you mean `{similar}`?")),
                None => error,
            }
        })?;
        let found = match version {
            Some(version) => {
                let exact = versions.iter().find(|entry| entry.version == version);
                exact
                    .or_else(|| equal(versions, version))
                    .or_else(|| latest(versions, &constraint(version)?))
            }
            None => latest(versions, &VersionReq::STAR),
        };
        found.ok_or_else(|| {
            let wanted = version.unwrap_or("that is no pre-release");
            Error::not_found(format!(
                "the repository has no version {wanted} of chart `{name}`"
            ))
            .with_hint(listed(versions))
        })
    }
}

fn entry(node: &Node) -> Option<Entry> {
    let text = |node: &Node| node.as_go_string().map(std::borrow::Cow::into_owned);
    let urls = node.get("urls").and_then(Node::as_list).unwrap_or_default();
    Some(Entry {
        version: node.get("version").and_then(text)?,
        url: urls.first().and_then(text),
        digest: node.get("digest").and_then(text),
    })
}

fn equal<'a>(versions: &'a [Entry], wanted: &str) -> Option<&'a Entry> {
    let wanted = Version::parse(wanted)?;
    versions.iter().find(|entry| {
        Version::parse(&entry.version).is_some_and(|version| version.semver() == wanted.semver())
    })
}

/// Masterminds separates by blanks, too.
fn constraint(text: &str) -> Option<VersionReq> {
    let spaced = text.split_whitespace().collect::<Vec<_>>().join(" ");
    VersionReq::parse(&spaced).ok()
}

fn latest<'a>(versions: &'a [Entry], allowed: &VersionReq) -> Option<&'a Entry> {
    let parsed = versions.iter().filter_map(|entry| {
        let version = Version::parse(&entry.version)?;
        allowed
            .matches(version.semver())
            .then(|| (version.semver().clone(), entry))
    });
    // Of equal ones the first: indexes have the newest first.
    let best = parsed.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, entry)| entry)
}

fn listed(versions: &[Entry]) -> String {
    let all: Vec<&str> = versions
        .iter()
        .map(|entry| entry.version.as_str())
        .collect();
    match all.len() {
        0 => "it has none at all".to_owned(),
        count if count > LISTED => {
            format!(
                "it has {} and {} more",
                all[..LISTED].join(", "),
                count - LISTED
            )
        }
        _ => format!("it has {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "
apiVersion: v1
entries:
  app:
  - {version: 2.0.0-rc.1, urls: [app-2.0.0-rc.1.tgz]}
  - {version: 1.10.0, urls: [charts/app-1.10.0.tgz], digest: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}
  - {version: v1.2, urls: ['https://cdn.example/app.tgz?sig=1'], digest: nonsense}
  - {version: 1.0.0+build.1, urls: ['oci://r.example/charts/app:1.0.0_build.1']}
  - {version: 0.9.0}
  - {urls: [x]}
  other: null
generated: 2025-01-01T00:00:00Z
";

    fn index() -> Index {
        Index::parse(&Bytes::from_static(INDEX.as_bytes())).expect("an index")
    }

    #[test]
    fn versions_are_found_as_helm_finds_them() {
        for (version, expected) in [
            (None, "1.10.0"),
            (Some("1.10.0"), "1.10.0"),
            (Some("v1.10"), "1.10.0"),
            (Some("1.2.0"), "v1.2"),
            (Some("1.0.0+build.1"), "1.0.0+build.1"),
            (Some("2.0.0-rc.1"), "2.0.0-rc.1"),
            (Some("^1.0"), "1.10.0"),
            (Some(">=1.0,  <1.5"), "v1.2"),
            (
                Some("3.0.0"),
                "the repository has no version 3.0.0 of chart `app`",
            ),
        ] {
            let index = index();
            let found = match index.find("app", version) {
                Ok(entry) => entry.version.clone(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{version:?}");
        }
        for (name, hint) in [("apq", Some("did you mean `app`?")), ("zzzzzz", None)] {
            let index = index();
            let error = index.find(name, None).expect_err("there is none");
            assert_eq!(error.hint(), hint, "{error}");
        }
        let error = index().find("other", None).map(drop).expect_err("none");
        assert_eq!(error.hint(), Some("it has none at all"));
    }

    #[test]
    fn archives_are_where_their_entries_say() {
        let repository = Url::parse("https://charts.example/stable?token=1").expect("a URL");
        let base = folder(&repository);
        let index = index();
        for (version, url, known) in [
            (
                "1.10.0",
                "https://charts.example/stable/charts/app-1.10.0.tgz?token=1",
                true,
            ),
            ("v1.2", "https://cdn.example/app.tgz?sig=1", false),
            (
                "1.0.0+build.1",
                "oci://r.example/charts/app:1.0.0_build.1",
                false,
            ),
        ] {
            let entry = index.find("app", Some(version)).expect("there");
            assert_eq!(entry.url(&base).expect("a URL").as_str(), url);
            assert_eq!(entry.digest().is_some(), known, "{version}");
        }
        let bare = index.find("app", Some("0.9.0")).expect("there");
        assert!(bare.url(&base).is_err());
    }

    #[test]
    fn what_is_no_index_is_told() {
        for text in ["<html>", "a: b", "- 1", "entries: [", "\u{0}"] {
            assert!(
                Index::parse(&Bytes::copy_from_slice(text.as_bytes())).is_err(),
                "{text}"
            );
        }
        assert!(Index::parse(&Bytes::from_static(b"apiVersion: v1")).is_ok());
        assert!(Index::parse(&Bytes::from_static(b"\xff")).is_err());
        let json = r#"{"entries":{"app":[{"version":"1.0.0","urls":["a.tgz"]}]}}"#;
        let index = Index::parse(&Bytes::from_static(json.as_bytes())).expect("an index");
        assert_eq!(index.find("app", None).expect("there").version, "1.0.0");
    }
}
