//! Repository references: `[<type>::]<place>`, with the type guessed where it is not given (formats.md 2.6).
//!
//! *Invariant*: the parts are taken as typed; nothing is cleaned or completed.

use std::str::FromStr;

use thiserror::Error;

use crate::repository_spec::{OCI_TYPES, RepositorySpec, is_file_type};

/// Why a text names no repository.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepositoryReferenceError {
    /// Nothing was given.
    #[error("empty repository reference")]
    Empty,
    /// The text before `::` is no type.
    #[error(
        "unsupported repository type `{0}`: expected oci, ctf, OCIRepository, CommonTransportFormat or another of their spellings"
    )]
    Type(String),
    /// A place in a registry, without the registry.
    #[error("`{0}` names no registry host: expected [oci://|https://|http://]host[:port][/path]")]
    Host(String),
}

impl FromStr for RepositorySpec {
    type Err = RepositoryReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("::") {
            Some((type_name, place)) => typed(type_name, place),
            None => untyped(text),
        }
    }
}

/// Reads `place` as a repository of that type.
///
/// # Errors
/// An unknown type, or no place.
pub fn typed(type_name: &str, place: &str) -> Result<RepositorySpec, RepositoryReferenceError> {
    let mut spec = if place.is_empty() {
        return Err(RepositoryReferenceError::Empty);
    } else if OCI_TYPES.contains(&type_name) {
        oci(place)?
    } else if is_file_type(type_name) {
        RepositorySpec::ctf(place)
    } else if let Some((type_name @ ("ctf" | "ca"), format @ ("directory" | "tar" | "tgz"))) =
        type_name.split_once('+')
    {
        // The library v1 says the form of an archive with the type.
        let mut spec = typed(type_name, place)?;
        if let RepositorySpec::Ctf(spec) = &mut spec {
            spec.file_format = Some(format.to_owned());
        }
        return Ok(spec);
    } else {
        return Err(RepositoryReferenceError::Type(type_name.to_owned()));
    };
    match &mut spec {
        RepositorySpec::Oci(spec) => type_name.clone_into(&mut spec.type_name),
        RepositorySpec::Ctf(spec) => type_name.clone_into(&mut spec.type_name),
    }
    Ok(spec)
}

/// Reads `place` and guesses the type from its look.
///
/// # Errors
/// No place.
pub fn untyped(place: &str) -> Result<RepositorySpec, RepositoryReferenceError> {
    if place.is_empty() {
        return Err(RepositoryReferenceError::Empty);
    }
    if looks_like_file(place) {
        return Ok(RepositorySpec::ctf(place));
    }
    oci(place)
}

/// Does the text start like an absolute path on Windows (`C:\` or `C:/`)?
pub(super) fn is_windows_path(text: &str) -> bool {
    matches!(text.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
}

/// The guess, rule by rule in the order of formats.md 2.6.
fn looks_like_file(text: &str) -> bool {
    if is_windows_path(text) {
        return true;
    }
    if let Some(scheme) = scheme(text) {
        return scheme.eq_ignore_ascii_case("file");
    }
    if text.starts_with('/') || text.starts_with("./") || leaves_its_folder(text) {
        return true;
    }
    if text.contains(':') || text == "localhost" {
        return false;
    }
    let lower = text.to_ascii_lowercase();
    if [".tar.gz", ".tgz", ".tar"]
        .iter()
        .any(|ending| lower.ends_with(ending))
    {
        return true;
    }
    let looks_like_domain = text.contains('.') && text.chars().any(char::is_alphabetic);
    !looks_like_domain
}

/// The scheme by the rule of URLs: a letter, then letters, digits, `+`, `-`, `.`, up to a colon.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let well_formed = scheme
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let starts = scheme
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    (well_formed && starts).then_some(scheme)
}

/// Does the path, cleaned by its text alone, start with `..`?
fn leaves_its_folder(text: &str) -> bool {
    let mut depth = 0_usize;
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." if depth == 0 => return true,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

fn oci(place: &str) -> Result<RepositorySpec, RepositoryReferenceError> {
    let host_start = place.find("://").map_or(0, |at| at + 3);
    let (host, sub_path) = place[host_start..]
        .split_once('/')
        .unwrap_or((&place[host_start..], ""));
    if host.is_empty() || host.ends_with(':') {
        return Err(RepositoryReferenceError::Host(place.to_owned()));
    }
    let base_url = &place[..host_start + host.len()];
    Ok(RepositorySpec::oci(base_url, sub_path))
}
