//! Names that OCI registries accept: repositories and tags (OCI distribution spec 1.1, "Pulling manifests").
//!
//! *Invariant*: a name that passes is safe as a relative path: no empty part, no `.` or `..`, no separator but `/`.

use crate::error::{Error, Result};

/// Longest repository name, in bytes. The specification leaves room for a host name within 255.
pub const REPOSITORY_LIMIT: usize = 255;

/// Longest tag, in bytes.
pub const TAG_LIMIT: usize = 128;

/// Checks the name of a repository, such as `acme/tools`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub fn check_repository(name: &str) -> Result<()> {
    if name.len() <= REPOSITORY_LIMIT && name.split('/').all(is_component) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not the name of a repository: expected lower-case letters and digits, separated by `.`, `_`, `-` or `/`",
        shown(name)
    )))
}

/// Checks a tag, such as `1.0.0`.
///
/// # Errors
/// [`crate::ErrorKind::Invalid`].
pub fn check_tag(tag: &str) -> Result<()> {
    let mut bytes = tag.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if first && rest && tag.len() <= TAG_LIMIT {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not a tag: expected at most {TAG_LIMIT} letters, digits, `.`, `_` or `-`, not starting with `.` or `-`",
        shown(tag)
    )))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_alphanumeric(first)
        && is_alphanumeric(last)
        && bytes
            .split(is_alphanumeric)
            .all(|separator| match separator {
                b"" | b"." | b"_" | b"__" => true,
                dashes => dashes.iter().all(|byte| *byte == b'-'),
            })
}

/// The start of a text of unknown length.
fn shown(text: &str) -> String {
    text.chars().take(REPOSITORY_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for (name, expected) in [
            ("acme", true),
            ("a/b/c", true),
            ("a.b_c__d-e---f/0", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            ("a/../b", false),
            ("A", false),
            ("a___b", false),
            ("a..b", false),
            ("a.-b", false),
            ("-a", false),
            ("a-", false),
            ("a b", false),
            ("ä", false),
            ("a\\b", false),
        ] {
            assert_eq!(check_repository(name).is_ok(), expected, "{name}");
        }
        assert!(check_repository(&"a".repeat(255)).is_ok());
        assert!(check_repository(&"a".repeat(256)).is_err());
    }

    #[test]
    fn tags() {
        for (tag, expected) in [
            ("1.0.0", true),
            ("_A", true),
            ("", false),
            (".a", false),
            ("-a", false),
            ("1.0.0+build", false),
            ("a/b", false),
            ("a:b", false),
        ] {
            assert_eq!(check_tag(tag).is_ok(), expected, "{tag}");
        }
        assert!(check_tag(&"a".repeat(128)).is_ok());
        assert!(check_tag(&"a".repeat(129)).is_err());
    }
}
