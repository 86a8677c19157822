//! Loose OCI image references: `[scheme://][registry/]repository[:tag][@digest]`, or a bare digest.
//!
//! *Invariant*: the text is split, never rewritten. There is no Docker Hub magic (`library/alpine` has the registry
//! `library`), a tag stays beside a digest, and what `Display` writes reads back as the same reference.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::digest::{Digest, DigestError};

/// Longest reference text that is looked at, in bytes. Registries cap repository names at 255 and tags at 128.
const LENGTH_LIMIT: usize = 4096;

/// Longest tag, in characters (OCI distribution spec, "Pulling manifests").
const TAG_LIMIT: usize = 128;

/// How a registry is spoken to, where the reference says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `oci://`: whatever the registry's configuration says.
    Oci,
    /// `http://`.
    Http,
    /// `https://`.
    Https,
}

impl Scheme {
    /// The word in front of `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Oci, Self::Http, Self::Https]
            .into_iter()
            .find(|scheme| scheme.as_str() == text)
    }
}

/// A loosely read OCI reference (formats.md 2.8). Parts that the text does not have are empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OciReference {
    /// The part before `://`.
    pub scheme: Option<Scheme>,
    /// What stands before the first `/`, port included; empty without a `/`.
    pub registry: String,
    /// The path within the registry; empty only for a bare digest.
    pub repository: String,
    /// The tag, kept even beside a digest.
    pub tag: Option<String>,
    /// The digest; takes precedence over the tag in look-ups.
    pub digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OciReferenceError {
    /// Nothing was given.
    #[error("empty reference")]
    Empty,
    /// Far longer than any registry takes.
    #[error("reference of {0} bytes is too long")]
    TooLong(usize),
    /// A `://` with something unknown before it.
    #[error("unknown scheme `{0}`: expected oci, http or https")]
    Scheme(String),
    /// No repository, or one with characters that no registry takes.
    #[error("`{0}` is not a repository")]
    Repository(String),
    /// A registry with characters that no host has.
    #[error("`{0}` is not a registry")]
    Registry(String),
    /// A name or password in front of the registry. The message repeats neither.
    #[error("credentials stand in front of the registry `{0}`; they do not belong in a reference")]
    Credentials(String),
    /// A tag that breaks the tag rule.
    #[error(
        "`{0}` is not a tag: expected a letter, digit or `_`, then at most 127 of these, `.` and `-`"
    )]
    Tag(String),
    /// A digest that is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl OciReference {
    /// What a look-up uses: the digest if there is one, else the tag, else nothing.
    pub fn reference(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Some(digest.to_string()),
            (None, tag) => tag.clone(),
        }
    }

    /// Tag and digest as they are written: `tag@digest`, the one that is there, or an empty text.
    pub fn version(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => format!("{tag}@{digest}"),
            (Some(tag), None) => tag.clone(),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => String::new(),
        }
    }

    /// The last segment of the repository.
    pub fn name(&self) -> &str {
        self.repository
            .rsplit_once('/')
            .map_or(self.repository.as_str(), |(_, name)| name)
    }
}

impl FromStr for OciReference {
    type Err = OciReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(OciReferenceError::Empty);
        }
        if text.len() > LENGTH_LIMIT {
            return Err(OciReferenceError::TooLong(text.len()));
        }
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(Self {
                digest: Some(digest),
                ..Self::default()
            });
        }
        let (scheme, rest) = split_scheme(text)?;
        let (registry, path) = rest.split_once('/').unwrap_or(("", rest));
        if let Some((_, host)) = registry.rsplit_once('@') {
            return Err(OciReferenceError::Credentials(host.to_owned()));
        }
        if rest.contains('/') && !is_registry(registry) {
            return Err(OciReferenceError::Registry(registry.to_owned()));
        }
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => (path, Some(digest.parse()?)),
            None => (path, None),
        };
        let (repository, tag) = match path.split_once(':') {
            Some((_, tag)) if !is_tag(tag) => return Err(OciReferenceError::Tag(tag.to_owned())),
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(OciReferenceError::Repository(repository.to_owned()));
        }
        Ok(Self {
            scheme,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://", scheme.as_str())?;
        }
        if !self.registry.is_empty() {
            write!(f, "{}/", self.registry)?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) if self.repository.is_empty() => write!(f, "{digest}"),
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn split_scheme(text: &str) -> Result<(Option<Scheme>, &str), OciReferenceError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok((None, text));
    };
    let scheme =
        Scheme::parse(scheme).ok_or_else(|| OciReferenceError::Scheme(scheme.to_owned()))?;
    Ok((Some(scheme), rest))
}

fn is_registry(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte))
}

/// Looser than the distribution spec (upper case passes, as it does in paths that templates build), but nothing that
/// could leave the path: no empty segment, no `.` or `..`.
fn is_repository(text: &str) -> bool {
    text.split('/').all(|segment| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    })
}

/// `^[\w][\w.-]{0,127}$`
fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_LIMIT
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// `expected` is `scheme|registry|repository|tag|digest`; the text must come back as it was.
    fn check(text: &str, expected: &str) {
        let text = text.replace("HEX", HEX);
        let reference: OciReference = text.parse().expect(&text);
        let parts = format!(
            "{}|{}|{}|{}|{}",
            reference.scheme.map_or("", Scheme::as_str),
            reference.registry,
            reference.repository,
            reference.tag.as_deref().unwrap_or_default(),
            reference
                .digest
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        );
        assert_eq!(parts, expected.replace("HEX", HEX), "{text}");
        assert_eq!(reference.to_string(), text);
    }

    #[test]
    fn splits_without_rewriting() {
        for (text, expected) in [
            ("ghcr.io/acme/app:1.0", "|ghcr.io|acme/app|1.0|"),
            ("library/alpine", "|library|alpine||"),
            ("alpine", "||alpine||"),
            ("alpine:3", "||alpine|3|"),
            ("localhost:5000/app", "|localhost:5000|app||"),
            ("[::1]:5000/app", "|[::1]:5000|app||"),
            ("oci://reg.example/a/b:v1", "oci|reg.example|a/b|v1|"),
            ("http://reg.example/a", "http|reg.example|a||"),
            ("https://reg.example/a", "https|reg.example|a||"),
            ("r.io/a@sha256:HEX", "|r.io|a||sha256:HEX"),
            ("r.io/a:v1@sha256:HEX", "|r.io|a|v1|sha256:HEX"),
            ("sha256:HEX", "||||sha256:HEX"),
            (
                "r.io/component-descriptors/acme.org/x:1.0.build-2",
                "|r.io|component-descriptors/acme.org/x|1.0.build-2|",
            ),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn refuses_what_is_no_reference() {
        let long_tag = format!("r.io/a:{}", "t".repeat(129));
        let long = format!("r.io/{}", "a".repeat(5000));
        for text in [
            "",
            "/a",
            "r.io/",
            "r.io/a:",
            "r.io/a:-x",
            "r.io/a@sha256:00",
            "r.io/a@",
            "ftp://r.io/a",
            "r.io/../etc",
            "r.io/a//b",
            "r.io/a b",
            "r\u{e4}.io/a",
            &long_tag,
            &long,
        ] {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn looks_up_by_digest_before_tag() {
        let both: OciReference = format!("r.io/a/b:v1@sha256:{HEX}").parse().expect("both");
        assert_eq!(both.reference(), Some(format!("sha256:{HEX}")));
        assert_eq!(both.version(), format!("v1@sha256:{HEX}"));
        assert_eq!(both.name(), "b");
        let neither: OciReference = "r.io/a".parse().expect("neither");
        assert_eq!(
            (neither.reference(), neither.version()),
            (None, String::new())
        );
    }
}
