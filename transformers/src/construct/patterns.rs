//! Which files of a folder are meant: shell globs as v2 reads them, regular expressions as v1 does.

use globset::{GlobBuilder, GlobMatcher};
use ocm_content::Error;
use regex::{Regex, RegexBuilder};

/// Most bytes that one compiled expression may take.
const COMPILED_LIMIT: usize = 1 << 20;

/// What becomes of an entry of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is taken.
    Include,
    /// A folder that is taken if something in it is.
    Enter,
    /// It is left out, with all that is in it.
    Exclude,
}

/// What is included and what is excluded.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

#[derive(Debug)]
enum Pattern {
    /// `*` and `?` do not match a slash; the whole path must match.
    Glob(GlobMatcher),
    /// Any part of the path may match.
    Regex(Regex),
}

impl Patterns {
    pub(super) fn new(include: &[String], exclude: &[String]) -> Result<Self, Error> {
        let compile = |patterns: &[String]| {
            patterns
                .iter()
                .map(|it| Pattern::new(it))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            include: compile(include)?,
            exclude: compile(exclude)?,
        })
    }

    /// What becomes of the entry at a path below the folder. Exclusion comes first.
    pub(super) fn decide(&self, path: &str, is_folder: bool) -> Decision {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(path));
        if any(&self.exclude) {
            Decision::Exclude
        } else if self.include.is_empty() || any(&self.include) {
            Decision::Include
        } else if is_folder {
            Decision::Enter
        } else {
            Decision::Exclude
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, Error> {
        if is_regex(text) {
            let regex = RegexBuilder::new(text).size_limit(COMPILED_LIMIT).build();
            return regex.map(Self::Regex).map_err(|error| {
                Error::invalid(format!("`{text}` is no regular expression: {error}"))
            });
        }
        // Go's globs know no alternatives in braces.
        let plain = text.replace('{', "[{]").replace('}', "[}]");
        let glob = GlobBuilder::new(&plain)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        glob.map(|glob| Self::Glob(glob.compile_matcher()))
            .map_err(|error| Error::invalid(format!("`{text}` is no pattern: {}", error.kind())))
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Glob(glob) => glob.is_match(path),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// Is it a regular expression? Anchors, groups, alternatives, escapes and `.+` are signs of one that no glob has. `.*` is
/// none: as a glob it names hidden files.
fn is_regex(text: &str) -> bool {
    text.starts_with('^')
        || text.ends_with('$')
        || text.contains(['\\', '(', '|'])
        || text.contains(".+")
}

/// Is it a glob that may have been meant as a regular expression?
pub(super) fn is_ambiguous(text: &str) -> bool {
    !is_regex(text) && text.contains(".*") && text != ".*"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_and_regular_expressions() {
        for (pattern, path, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", "sub/a.yaml", false),
            ("sub/*", "sub/a.yaml", true),
            ("**/*.yaml", "sub/deep/a.yaml", true),
            ("[ab].txt", "b.txt", true),
            ("[^ab].txt", "b.txt", false),
            ("{a,b}", "a", false),
            ("{a,b}", "{a,b}", true),
            (".*", ".git", true),
            (".*", "file", false),
            ("^.*$", "sub/file", true),
            (r"\.yaml$", "sub/a.yaml", true),
            ("^sub/", "sub/a", true),
            ("a|b", "xbx", true),
        ] {
            let pattern_ = Pattern::new(pattern).expect(pattern);
            assert_eq!(pattern_.matches(path), expected, "{pattern} {path}");
        }
        assert!(Pattern::new("[").is_err());
        assert!(Pattern::new("(").is_err());
        assert!(is_ambiguous("templates/.*") && !is_ambiguous(".*") && !is_ambiguous("^a.*"));
    }

    #[test]
    fn exclusion_comes_first() {
        let list = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let patterns = Patterns::new(
            &list(&["*.yaml", "sub/*.yaml"]),
            &list(&["secret.yaml", "node_modules"]),
        )
        .expect("fine");
        for (path, is_folder, expected) in [
            ("a.yaml", false, Decision::Include),
            ("a.txt", false, Decision::Exclude),
            ("secret.yaml", false, Decision::Exclude),
            ("sub", true, Decision::Enter),
            ("sub/a.yaml", false, Decision::Include),
            ("node_modules", true, Decision::Exclude),
        ] {
            assert_eq!(patterns.decide(path, is_folder), expected, "{path}");
        }
        assert_eq!(Patterns::default().decide("x", false), Decision::Include);
    }
}
