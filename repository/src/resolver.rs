//! Where component versions are looked for that no reference locates: repositories in order, with rules for names and versions
//! (formats.md 8.4).
//!
//! First come the repositories that are named for one call, then the entries of `resolvers.config.ocm.software` in their
//! order, then those of v1's `ocm.config.ocm.software` by priority. A repository that does not have a version is passed
//! over; any other error ends the search, so that a registry that is down never makes an older answer the right one.

use std::collections::BTreeSet;
use std::fmt;

use ocm_content::{Error, ErrorKind, Result};
use ocm_specs::config::{ConfigEntry, place_of};
use ocm_specs::names::{Version, is_version};
use ocm_specs::{Constraint, RepositorySpec};
use regex::Regex;
use serde_json::Value;

use crate::repository::{ComponentVersion, Repository};
use crate::session::Session;

/// Entry type of the CLI v2, without its version.
pub const RESOLVERS_CONFIG: &str = "resolvers.config.ocm.software";
/// Entry type of v1, without its version.
pub const OCM_CONFIG: &str = "ocm.config.ocm.software";
/// The priority of v1's entries that have none.
const PRIORITY: i64 = 10;
/// Largest compiled pattern, in bytes.
const PATTERN_LIMIT: usize = 1 << 20;

/// Repositories to look in, in order. The default one knows none.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    named: Vec<RepositorySpec>,
    /// v2's, in order.
    patterns: Vec<(Pattern, RepositorySpec)>,
    /// v1's, the highest priority first, those of one priority in order.
    prefixes: Vec<Prefix>,
}

#[derive(Clone)]
struct Pattern {
    text: String,
    names: Regex,
    versions: Option<Constraint>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Clone, Debug)]
struct Prefix {
    priority: i64,
    prefix: String,
    repository: RepositorySpec,
}

impl Resolver {
    /// Looks in these, whatever the component, before all others.
    pub fn new(named: impl IntoIterator<Item = RepositorySpec>) -> Self {
        Self {
            named: named.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Looks in this one, too, behind those that are named already.
    #[must_use]
    pub fn and(mut self, repository: RepositorySpec) -> Self {
        self.named.push(repository);
        self
    }

    /// Adds what configuration entries say; entries of other types are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the place of the mistake.
    pub fn configure<'d>(
        mut self,
        entries: impl IntoIterator<Item = &'d ConfigEntry<'d>>,
    ) -> Result<Self> {
        for entry in entries {
            let list = match (entry.kind, entry.value.get("resolvers")) {
                (RESOLVERS_CONFIG | OCM_CONFIG, Some(Value::Array(list))) => list,
                (RESOLVERS_CONFIG | OCM_CONFIG, Some(Value::Null) | None) => continue,
                (RESOLVERS_CONFIG | OCM_CONFIG, Some(_)) => {
                    let at = place_of(&entry.at, "resolvers");
                    return Err(Error::invalid(format!("{at}: expected a list")));
                }
                _ => continue,
            };
            for (index, rule) in list.iter().enumerate() {
                let at = place_of(&entry.at, &format!("resolvers[{index}]"));
                let added = match entry.kind {
                    RESOLVERS_CONFIG => self.pattern(rule),
                    _ => self.prefix(rule),
                };
                added.map_err(|error| error.context(at))?;
            }
        }
        // Stable: those of one priority keep their order.
        self.prefixes
            .sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        Ok(self)
    }

    fn pattern(&mut self, rule: &Value) -> Result<()> {
        let repository = repository(rule)?;
        let text = text(rule, "componentNamePattern")?.unwrap_or_default();
        let versions = text_of_constraint(rule)?;
        self.patterns.push((
            Pattern {
                names: glob(text)?,
                text: text.to_owned(),
                versions,
            },
            repository,
        ));
        Ok(())
    }

    fn prefix(&mut self, rule: &Value) -> Result<()> {
        let priority = match rule.get("priority") {
            None | Some(Value::Null) => PRIORITY,
            Some(value) => value
                .as_i64()
                .ok_or_else(|| Error::invalid("priority: expected a whole number"))?,
        };
        self.prefixes.push(Prefix {
            priority,
            prefix: text(rule, "prefix")?
                .unwrap_or_default()
                .trim_matches('/')
                .to_owned(),
            repository: repository(rule)?,
        });
        Ok(())
    }

    /// Is there nowhere to look?
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.patterns.is_empty() && self.prefixes.is_empty()
    }

    /// The repositories that may have a component, in order. Rules for versions hold for `version`; without one, or with one that
    /// is not semver, rules that ask for certain versions do not apply.
    pub fn candidates(&self, component: &str, version: Option<&str>) -> Vec<&RepositorySpec> {
        let version = version.and_then(Version::parse);
        let patterns = self.patterns.iter().filter(|(pattern, _)| {
            let allows = |it: &Constraint| version.as_ref().is_some_and(|v| it.allows(v));
            pattern.names.is_match(component) && pattern.versions.as_ref().is_none_or(allows)
        });
        let prefixes = self
            .prefixes
            .iter()
            .filter(|rule| is_below(component, &rule.prefix));
        self.named
            .iter()
            .chain(patterns.map(|(_, repository)| repository))
            .chain(prefixes.map(|rule| &rule.repository))
            .collect()
    }

    /// Reads a component version from the first repository that has it: from `first`, which is where its parent was
    /// found or what a reference names, then from the candidates.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with all places that were looked at; any other error of the first place that has one.
    pub async fn resolve(
        &self,
        session: &Session,
        first: Option<&Repository>,
        component: &str,
        version: &str,
    ) -> Result<ComponentVersion> {
        let mut looked = BTreeSet::new();
        let mut order = Vec::new();
        if let Some(repository) = first {
            if let Some(found) = repository.find(component, version).await? {
                return Ok(found);
            }
            looked.insert(repository.location().to_owned());
            order.push(repository.location().to_owned());
        }
        for spec in self.candidates(component, Some(version)) {
            let repository = match session.repository(spec, false).await {
                // An archive that is not there has no versions.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    order.push(format!("{spec} (not there)"));
                    continue;
                }
                opened => opened?,
            };
            if !looked.insert(repository.location().to_owned()) {
                continue;
            }
            if let Some(found) = repository.find(component, version).await? {
                return Ok(found);
            }
            order.push(repository.location().to_owned());
        }
        Err(nowhere(component, version, &order))
    }

    /// Reads a component version that no reference locates.
    ///
    /// # Errors
    /// Those of [`Self::resolve`].
    pub async fn find(
        &self,
        session: &Session,
        component: &str,
        version: &str,
    ) -> Result<ComponentVersion> {
        self.resolve(session, None, component, version).await
    }

    /// The first repository that has versions of a component, with these, newest first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with all places that were looked at; any other error of the first place that has one.
    pub async fn versions(
        &self,
        session: &Session,
        component: &str,
    ) -> Result<(Repository, Vec<String>)> {
        let mut order = Vec::new();
        for spec in self.candidates(component, None) {
            let found = async {
                let repository = session.repository(spec, false).await?;
                let versions = repository.versions(component).await?;
                Ok::<_, Error>((repository, versions))
            };
            match found.await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Ok((_, versions)) if versions.is_empty() => {}
                found => return found,
            }
            order.push(spec.to_string());
        }
        Err(nowhere(component, "", &order))
    }
}

fn nowhere(component: &str, version: &str, order: &[String]) -> Error {
    let colon = if version.is_empty() { "" } else { ":" };
    let what = format!("component version {component}{colon}{version}");
    let error = match order {
        [] => Error::not_found(format!("{what}: no repository is configured for it")),
        [one] => Error::not_found(format!("{what} is not in {one}")),
        order => Error::not_found(format!("{what} is in none of {}", order.join(", "))),
    };
    error.with_hint(
        "name a repository with --lookup, or configure one in resolvers.config.ocm.software",
    )
}

fn text<'v>(rule: &'v Value, field: &str) -> Result<Option<&'v str>> {
    match rule.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(format!("{field}: expected a text"))),
    }
}

fn text_of_constraint(rule: &Value) -> Result<Option<Constraint>> {
    let given = text(rule, "versionConstraint")?.filter(|text| !text.trim().is_empty());
    given
        .map(str::parse)
        .transpose()
        .map_err(|error| Error::invalid(format!("versionConstraint: {error}")))
}

/// A rule's repository: a specification, or a reference as people type it.
fn repository(rule: &Value) -> Result<RepositorySpec> {
    let wrong = |why: &dyn fmt::Display| Error::invalid(format!("repository: {why}"));
    match rule.get("repository") {
        Some(Value::String(text)) => text.parse().map_err(|error| wrong(&error)),
        Some(value) => RepositorySpec::from_value(value).map_err(|error| wrong(&error)),
        None => Err(wrong(&"it is missing")),
    }
}

/// Is `component` at `prefix` or below it, by whole segments?
fn is_below(component: &str, prefix: &str) -> bool {
    match component.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// A shell pattern without separators: `*` takes slashes, too; `?`, `[a-z]`, `[!a-z]`, `{a,b}` and `\` as usual. As in v2, an
/// empty pattern fits the empty name only.
fn glob(pattern: &str) -> Result<Regex> {
    let wrong = |why: &str| {
        Error::invalid(format!(
            "componentNamePattern `{}`: {why}",
            pattern.escape_debug()
        ))
    };
    let mut regex = String::from(r"\A(?s:");
    let mut open = 0_usize;
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => regex.push_str(".*"),
            '?' => regex.push('.'),
            '{' => {
                open += 1;
                regex.push_str("(?:");
            }
            '}' if open > 0 => {
                open -= 1;
                regex.push(')');
            }
            ',' if open > 0 => regex.push('|'),
            '[' => {
                let (class, after) = rest
                    .as_str()
                    .split_once(']')
                    .ok_or_else(|| wrong("`[` is not closed"))?;
                regex.push_str(&class_of(class).ok_or_else(|| wrong("`[]` is empty"))?);
                rest = after.chars();
            }
            '\\' => {
                let literal = rest.next().ok_or_else(|| wrong("it ends in `\\`"))?;
                regex.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
            }
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    if open > 0 {
        return Err(wrong("`{` is not closed"));
    }
    regex.push_str(r")\z");
    regex::RegexBuilder::new(&regex)
        .size_limit(PATTERN_LIMIT)
        .build()
        .map_err(|_| wrong("it is malformed or too large"))
}

fn class_of(class: &str) -> Option<String> {
    let (negated, set) = match class.strip_prefix(['!', '^']) {
        Some(set) => ("^", set),
        None => ("", class),
    };
    if set.is_empty() {
        return None;
    }
    let inner: String = set
        .chars()
        .map(|c| match c {
            '-' => "-".to_owned(),
            c => regex::escape(c.encode_utf8(&mut [0; 4])),
        })
        .collect();
    Some(format!("[{negated}{inner}]"))
}

/// A component that is named without a repository: `COMPONENT[:VERSION]`.
pub fn bare_component(text: &str) -> Option<(&str, Option<&str>)> {
    let (component, version) = match text.rsplit_once(':') {
        Some((component, version)) if is_version(version) => (component, Some(version)),
        _ => (text, None),
    };
    ocm_specs::names::is_component_name(component).then_some((component, version))
}

#[cfg(test)]
mod tests {
    use ocm_specs::config::entries;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn resolver(lookup: &[&str], document: &Value) -> Result<Resolver> {
        let named = lookup.iter().map(|text| text.parse().expect(text));
        let entries = entries(document, &[]).expect("a good document");
        Resolver::new(named).configure(&entries)
    }

    #[test]
    fn rules_decide_by_name_and_version() {
        let document = json!({"type": "generic.config.ocm.software/v1", "configurations": [
            {"type": "ocm.config.ocm.software", "resolvers": [
                {"repository": {"type": "OCIRegistry", "baseUrl": "ten"}, "prefix": "acme.org"},
                {"repository": {"type": "CTF", "filePath": "./first"}, "prefix": "acme.org/x/", "priority": 200},
                {"repository": {"type": "OCIRegistry", "baseUrl": "all"}},
            ]},
            {"type": "resolvers.config.ocm.software/v1alpha1", "resolvers": [
                {"repository": {"type": "OCIRepository/v1", "baseUrl": "old.example"}, "componentNamePattern": "acme.org/*", "versionConstraint": "<2"},
                {"repository": "new.example/sub", "componentNamePattern": "{acme,evil}.org/[a-x]*"},
                {"repository": {"type": "OCIRepository/v1", "baseUrl": "never"}},
            ]},
        ]});
        let resolver = resolver(&["./named"], &document).expect("good rules");
        for (component, version, expected) in [
            (
                "acme.org/x",
                Some("1.0.0"),
                "./named old.example new.example/sub ./first ten all",
            ),
            (
                "acme.org/x/y",
                Some("2.0.0"),
                "./named new.example/sub ./first ten all",
            ),
            ("acme.org/z", Some("v1"), "./named old.example ten all"),
            ("acme.org/z", None, "./named ten all"),
            ("acme.org/z", Some("latest"), "./named ten all"),
            ("evil.org/a/b", None, "./named new.example/sub all"),
            ("acme.organic/a", Some("1.0.0"), "./named all"),
        ] {
            let found = resolver.candidates(component, version);
            let found: Vec<String> = found.iter().map(|spec| spec.to_string()).collect();
            assert_eq!(found.join(" "), expected, "{component} {version:?}");
        }
        assert!(Resolver::default().is_empty() && !resolver.is_empty());
    }

    #[test]
    fn mistakes_have_a_place() {
        for (kind, rules, expected) in [
            (RESOLVERS_CONFIG, json!({}), "resolvers: expected a list"),
            (
                RESOLVERS_CONFIG,
                json!([{}]),
                "resolvers[0]: repository: it is missing",
            ),
            (
                RESOLVERS_CONFIG,
                json!([{"repository": {"type": "S3"}}]),
                "unknown repository type `S3`",
            ),
            (
                RESOLVERS_CONFIG,
                json!([{"repository": "x", "componentNamePattern": "[a"}]),
                "componentNamePattern `[a`: `[` is not closed",
            ),
            (
                RESOLVERS_CONFIG,
                json!([{"repository": "x", "componentNamePattern": "{a"}]),
                "`{` is not closed",
            ),
            (
                RESOLVERS_CONFIG,
                json!([{"repository": "x", "versionConstraint": "soon"}]),
                "versionConstraint: `soon` is not a condition",
            ),
            (
                OCM_CONFIG,
                json!([{"repository": "x"}, {"repository": "x", "priority": "high"}]),
                "resolvers[1]: priority: expected a whole number",
            ),
        ] {
            let document = json!({"type": kind, "resolvers": rules});
            let error = resolver(&[], &document).expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn patterns_have_no_separators() {
        for (pattern, name, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "acme.org/x/y", true),
            ("acme.org/*", "acme.org/x/y", true),
            ("acme.org/*", "acme.org", false),
            ("acme?org/*", "acme.org/x", true),
            ("*/[!x]", "acme.org/y", true),
            ("*/[!x]", "acme.org/x", false),
            ("{a,b{c,d}}.org/*", "bd.org/x", true),
            ("{a,b{c,d}}.org/*", "b.org/x", false),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            ("a,b", "a,b", true),
            ("a.b", "axb", false),
            ("[a&&b]", "&", true),
        ] {
            let regex = glob(pattern).expect(pattern);
            assert_eq!(regex.is_match(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn components_without_a_repository() {
        for (text, expected) in [
            ("acme.org/x:1.0.0", Some(("acme.org/x", Some("1.0.0")))),
            ("acme.org/x", Some(("acme.org/x", None))),
            ("./archive", None),
            ("acme.org", None),
            ("acme.org/x:latest", None),
            ("localhost:5000/x", None),
        ] {
            assert_eq!(bare_component(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in r"[\[\]{},a-c*?!^\\&~.-]{0,16}") {
            if let Ok(regex) = glob(&pattern) {
                let _ = regex.is_match("a.b/c");
            }
        }
    }
}
