//! What names and versions may look like (formats.md 1.2).
//!
//! *Invariant*: every check is linear in the length of the text.

use std::cmp::Ordering;

/// Longest component name in characters.
const COMPONENT_NAME_LIMIT: usize = 255;

/// Is this a component name: a domain, then a path of at least one segment, lower case?
pub fn is_component_name(text: &str) -> bool {
    if text.len() > COMPONENT_NAME_LIMIT {
        return false;
    }
    let mut segments = text.split('/');
    let domain = segments.next().unwrap_or_default();
    let Some((rest, top)) = domain.rsplit_once('.') else {
        return false;
    };
    let top_level = top.len() >= 2 && top.bytes().all(|byte| byte.is_ascii_lowercase());
    let mut path = segments.peekable();
    top_level
        && rest.split('.').all(|label| is_label(label, b"-"))
        && path.peek().is_some()
        && path.all(|segment| segment.split('.').all(|label| is_label(label, b"-_")))
}

fn is_label(text: &str, extra: &[u8]) -> bool {
    text.bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || extra.contains(&byte))
}

/// Is this a name of a resource, source or reference, or a key of an extra identity?
pub fn is_element_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() >= 2
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
        && text
            .bytes()
            .all(|byte| inner(byte) || b"-_+".contains(&byte))
}

/// A version by the relaxed rule: `v` in front and missing minor and patch numbers are fine.
///
/// Ordered as semver orders; build metadata does not count, so `1.0` and `v1.0.0+x` are equal.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    parsed: semver::Version,
}

impl Version {
    /// Reads a version; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('v').unwrap_or(text);
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (numbers, pre) = match rest.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (rest, None),
        };
        let mut parts = [0; 3];
        for (index, number) in numbers.split('.').enumerate() {
            *parts.get_mut(index)? = parse_number(number)?;
        }
        let mut parsed = semver::Version::new(parts[0], parts[1], parts[2]);
        if let Some(pre) = pre {
            parsed.pre = semver::Prerelease::new(pre).ok()?;
        }
        if let Some(build) = build {
            parsed.build = semver::BuildMetadata::new(build).ok()?;
        }
        let complete = pre != Some("") && build != Some("");
        complete.then(|| Self {
            text: text.to_owned(),
            parsed,
        })
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As semver, for constraints.
    pub fn semver(&self) -> &semver::Version {
        &self.parsed
    }
}

fn parse_number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    let leading_zero = text.len() > 1 && text.starts_with('0');
    (plain && !leading_zero)
        .then(|| text.parse().ok())
        .flatten()
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parsed.cmp_precedence(&other.parsed)
    }
}

/// Is this a version by the relaxed rule?
pub fn is_version(text: &str) -> bool {
    Version::parse(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_names() {
        let long = format!("a.io/{}", "b".repeat(251));
        for (text, expected) in [
            ("ocm.software/cli", true),
            ("github.com/acme.org/hello_world-2", true),
            ("ocm.software", false),
            ("ocm.software/", false),
            ("ocm/cli", false),
            ("ocm.software/CLI", false),
            ("ocm.software/1cli", false),
            ("ocm.s0ftware/cli", false),
            ("ocm..software/cli", false),
            ("", false),
            (long.as_str(), false),
        ] {
            assert_eq!(is_component_name(text), expected, "{text}");
        }
    }

    #[test]
    fn versions() {
        for (text, expected) in [
            ("1.0.0", true),
            ("v1", true),
            ("1.2", true),
            ("1.2.3-rc.1+build.5", true),
            ("1.2.3-0a", true),
            ("0.0.1-20250108132333.build-af79499", true),
            ("1.2.3.4", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3-", false),
            ("1.2.3+", false),
            ("latest", false),
            ("v", false),
            ("", false),
        ] {
            assert_eq!(is_version(text), expected, "{text}");
        }
        let parse = |text| Version::parse(text).expect(text);
        assert_eq!(parse("1.0"), parse("v1.0.0+x"));
        assert!(parse("1.10.0") > parse("1.9"));
        assert!(parse("1.0.0-rc.1") < parse("1.0.0"));
    }
}
