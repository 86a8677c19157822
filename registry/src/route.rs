//! Which endpoint a path names (OCI distribution specification, "Endpoints").
//!
//! *Invariant*: nothing from a path reaches a store before its grammar was checked here.

use ocm_content::name::{check_repository, check_tag};
use ocm_specs::Digest;

use crate::failure::{Code, Failure, Outcome};

/// An endpoint with its checked parts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Route {
    Base,
    Token,
    Catalog,
    Tags(String),
    Manifest(String, Reference),
    Blob(String, Digest),
    Uploads(String),
    Upload(String, String),
    Referrers(String, Digest),
}

/// How a manifest is named.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reference {
    Digest(Digest),
    Tag(String),
    /// No tag by the grammar: nothing has it, and nothing gets it.
    Impossible(String),
}

impl Reference {
    fn parse(text: &str) -> Outcome<Self> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        Ok(match check_tag(text) {
            Ok(()) => Self::Tag(text.to_owned()),
            Err(_) => Self::Impossible(text.to_owned()),
        })
    }
}

impl Route {
    /// The repository that is asked for.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            Self::Base | Self::Token | Self::Catalog => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }

    pub(crate) fn parse(path: &str) -> Outcome<Self> {
        // Some clients encode the colon of a digest. Nothing else in a valid path needs encoding.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        if path == "/token" {
            return Ok(Self::Token);
        }
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some("/_catalog") => return Ok(Self::Catalog),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        };
        rest.and_then(split)
            .map_or_else(|| Err(no_endpoint()), |parts| parts.check())
    }
}

fn no_endpoint() -> Failure {
    Failure::not_found(Code::Unsupported, "there is no such endpoint")
}

/// The repository's name may hold the words of the endpoints, so the path is read from its end.
fn split(path: &str) -> Option<Parts<'_>> {
    let part = |name, kind, last| Some(Parts { name, kind, last });
    if let Some(name) = path.strip_suffix("/tags/list") {
        return part(name, Kind::Tags, "");
    }
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if let Some(name) = trimmed.strip_suffix("/blobs/uploads") {
        return part(name, Kind::Uploads, "");
    }
    let (head, last) = path.rsplit_once('/')?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        return part(name, Kind::Upload, last);
    }
    let (name, word) = head.rsplit_once('/')?;
    let kind = match word {
        "manifests" => Kind::Manifest,
        "blobs" => Kind::Blob,
        "referrers" => Kind::Referrers,
        _ => return None,
    };
    part(name, kind, last)
}

struct Parts<'a> {
    name: &'a str,
    kind: Kind,
    last: &'a str,
}

#[derive(Clone, Copy)]
enum Kind {
    Tags,
    Uploads,
    Upload,
    Manifest,
    Blob,
    Referrers,
}

impl Parts<'_> {
    fn check(&self) -> Outcome<Route> {
        let name = repository(self.name)?;
        Ok(match self.kind {
            Kind::Tags => Route::Tags(name),
            Kind::Uploads => Route::Uploads(name),
            Kind::Upload => Route::Upload(name, self.last.to_owned()),
            Kind::Manifest => Route::Manifest(name, Reference::parse(self.last)?),
            Kind::Blob => Route::Blob(name, digest(self.last)?),
            Kind::Referrers => Route::Referrers(name, digest(self.last)?),
        })
    }
}

/// Checks the name of a repository.
pub(crate) fn repository(text: &str) -> Outcome<String> {
    match check_repository(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(Failure::bad(Code::NameInvalid, error.to_string())),
    }
}

/// Checks a digest.
pub(crate) fn digest(text: &str) -> Outcome<Digest> {
    // As written it could be a megabyte long.
    let shown: String = text.chars().take(160).collect();
    text.parse().map_err(|_| {
        Failure::bad(
            Code::DigestInvalid,
            format!("`{shown}` is not a digest by sha256 or sha512"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &str) {
        let found = match Route::parse(path) {
            Ok(route) => format!("{route:?}"),
            Err(failure) => format!("{} {:?}", failure.status.as_u16(), failure.code),
        };
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn paths() {
        let digest = Digest::sha256(b"");
        check("/v2", "Base");
        check("/v2/", "Base");
        check("/token", "Token");
        check("/v2/_catalog", "Catalog");
        check("/v2/a/b/tags/list", r#"Tags("a/b")"#);
        check("/v2/a/manifests/tags/list", r#"Tags("a/manifests")"#);
        check("/v2/a/blobs/uploads/", r#"Uploads("a")"#);
        check("/v2/a/blobs/uploads", r#"Uploads("a")"#);
        check("/v2/a/blobs/uploads/x1", r#"Upload("a", "x1")"#);
        check("/v2/a/manifests/v1", r#"Manifest("a", Tag("v1"))"#);
        check("/v2/a/manifests/.x", r#"Manifest("a", Impossible(".x"))"#);
        check(
            &format!("/v2/a/blobs/{digest}"),
            &format!(r#"Blob("a", {digest})"#),
        );
        check(
            &format!("/v2/a/blobs/sha256%3A{}", digest.hex()),
            &format!(r#"Blob("a", {digest})"#),
        );
        check(
            &format!("/v2/a/referrers/{digest}"),
            &format!(r#"Referrers("a", {digest})"#),
        );
    }

    #[test]
    fn paths_that_lead_nowhere() {
        check("/", "404 Unsupported");
        check("/v1/a/tags/list", "404 Unsupported");
        check("/v2x/a/tags/list", "404 Unsupported");
        check("/v2/tags/list", "404 Unsupported");
        check("/v2//tags/list", "400 NameInvalid");
        check("/v2/A/tags/list", "400 NameInvalid");
        check("/v2/../etc/passwd/tags/list", "400 NameInvalid");
        check("/v2/%2e%2e/tags/list", "400 NameInvalid");
        check("/v2/a%2Fb/tags/list", "400 NameInvalid");
        check("/v2/a/blobs/sha256:xyz", "400 DigestInvalid");
        check("/v2/a/blobs/..", "400 DigestInvalid");
        check("/v2/a/manifests/md5:00", "400 DigestInvalid");
        check("/v2/a/referrers/latest", "400 DigestInvalid");
    }
}
