//! Looks at accesses that lead out of OCM's own storage: Helm repositories, web servers, GitHub, git (formats.md 4).
//!
//! *Invariant*: keys match in any case, as in Go (`url` and `URL` are one field), and looking changes nothing.

use serde_json::{Map, Value};

use super::{AccessError, AccessType, text};
use crate::json::field;

/// A look at an access whose content other servers have.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Remote<'a> {
    /// A chart in a Helm repository.
    Helm(Helm<'a>),
    /// What a URL gives.
    Wget(Wget<'a>),
    /// A commit of a GitHub repository, as GitHub archives it.
    GitHub(GitHub<'a>),
    /// A commit of a git repository.
    Git(Git<'a>),
}

/// A look at a chart's access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helm<'a> {
    /// URL of the repository: `http(s)://` for one with an index, `oci://` for one in a registry; with an empty chart the URL of
    /// the chart archive itself.
    pub repository: &'a str,
    /// `name` or `name:version`.
    pub chart: &'a str,
    version: Option<&'a str>,
}

impl<'a> Helm<'a> {
    /// The chart's name; empty where the repository's URL is that of the chart.
    pub fn name(&self) -> &'a str {
        self.chart
            .split_once(':')
            .map_or(self.chart, |(name, _)| name)
    }

    /// The version asked for: the field of its own wins over the one behind the name.
    pub fn version(&self) -> Option<&'a str> {
        let behind = self.chart.split_once(':').map(|(_, version)| version);
        self.version
            .or(behind)
            .filter(|version| !version.is_empty())
    }
}

/// A look at the access of a URL.
#[derive(Clone, Debug, PartialEq)]
pub struct Wget<'a> {
    /// The URL.
    pub url: &'a str,
    /// Media type of the content, where it is not the one that the server tells.
    pub media_type: Option<&'a str>,
    /// Headers to send, each with one value, in the order they are written.
    pub header: Vec<(&'a str, &'a str)>,
    /// The HTTP method.
    pub verb: &'a str,
    /// The request's body, in base64.
    pub body: Option<&'a str>,
    /// Are redirects an error?
    pub no_redirect: bool,
}

/// A look at the access of a commit that GitHub archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GitHub<'a> {
    /// `[https://]host/owner/repository`.
    pub repo_url: &'a str,
    /// Host of the API, where it is not the usual one.
    pub api_hostname: Option<&'a str>,
    /// The commit.
    pub commit: Option<&'a str>,
    /// What the commit was found by.
    pub reference: Option<&'a str>,
}

/// A look at the access of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Git<'a> {
    /// URL of the repository.
    pub repository: &'a str,
    /// The commit; without one what `reference` names now.
    pub commit: Option<&'a str>,
    /// A branch, a tag or a whole reference name.
    pub reference: Option<&'a str>,
}

impl<'a> Remote<'a> {
    /// Looks at a specification; `None` for accesses of other types.
    ///
    /// # Errors
    /// No object, no type, or a field that the type needs is missing or malformed.
    pub fn parse(value: &'a Value) -> Result<Option<Self>, AccessError> {
        let fields = value.as_object().ok_or(AccessError::NotAnObject)?;
        let type_name = text(fields, "type").ok_or(AccessError::NoType)?;
        let needed = |name: &'static str| {
            text(fields, name).ok_or_else(|| AccessError::Missing {
                type_name: type_name.to_owned(),
                field: name,
            })
        };
        Ok(Some(match AccessType::of(type_name) {
            AccessType::Helm => Self::Helm(Helm {
                repository: needed("helmRepository")?,
                chart: text(fields, "helmChart").unwrap_or_default(),
                version: text(fields, "version"),
            }),
            AccessType::Wget => Self::Wget(Wget {
                url: needed("url")?,
                media_type: text(fields, "mediaType"),
                header: header(fields).ok_or_else(|| AccessError::Malformed {
                    type_name: type_name.to_owned(),
                    field: "header",
                    expected: "a map of lists of texts",
                })?,
                verb: text(fields, "verb").unwrap_or("GET"),
                body: text(fields, "body"),
                no_redirect: field(fields, "noRedirect").and_then(Value::as_bool) == Some(true),
            }),
            AccessType::GitHub => Self::GitHub(GitHub {
                repo_url: needed("repoUrl")?,
                api_hostname: text(fields, "apiHostname"),
                commit: text(fields, "commit"),
                reference: text(fields, "ref"),
            }),
            AccessType::Git => Self::Git(Git {
                // Some releases of v1 wrote `repoUrl`.
                repository: text(fields, "repoUrl").map_or_else(|| needed("repository"), Ok)?,
                commit: text(fields, "commit"),
                reference: text(fields, "ref"),
            }),
            _ => return Ok(None),
        }))
    }
}

/// Header names with their values; `None` where it is something else than a map of texts or of lists of texts.
fn header(fields: &Map<String, Value>) -> Option<Vec<(&str, &str)>> {
    let map = match field(fields, "header") {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(value) => value.as_object()?,
    };
    let mut all = Vec::new();
    for (name, value) in map {
        match value {
            Value::String(value) => all.push((name.as_str(), value.as_str())),
            Value::Array(values) => {
                for value in values {
                    all.push((name.as_str(), value.as_str()?));
                }
            }
            _ => return None,
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `expected` is in the debug form, or is the error.
    fn check(access: Value, expected: &str) {
        let found = match Remote::parse(&access) {
            Ok(access) => format!("{access:?}"),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{access}: {found}");
    }

    #[test]
    fn every_spelling_of_types_and_fields() {
        for type_name in ["Wget/v1", "Wget", "wget/v1", "wget"] {
            for name in ["url", "URL"] {
                check(
                    json!({"type": type_name, name: "https://a.example/x", "header": {"A": ["1", "2"], "B": "3"}}),
                    "url: \"https://a.example/x\", media_type: None, header: [(\"A\", \"1\"), (\"A\", \"2\"), (\"B\", \"3\")], verb: \"GET\", body: None, no_redirect: false",
                );
            }
        }
        for type_name in ["Helm/v1", "Helm", "helm/v1", "helm"] {
            check(
                json!({"type": type_name, "helmRepository": "https://a.example", "helmChart": "c:1"}),
                "Helm(Helm { repository: \"https://a.example\", chart: \"c:1\"",
            );
        }
        for type_name in ["GitHub/v1", "github", "gitHub/v1"] {
            check(
                json!({"type": type_name, "repoUrl": "github.com/a/b", "commit": "1"}),
                "GitHub(GitHub { repo_url: \"github.com/a/b\", api_hostname: None, commit: Some(\"1\")",
            );
        }
        for name in ["repository", "repoUrl"] {
            check(
                json!({"type": "git/v1alpha1", name: "https://a.example/b.git", "ref": "main"}),
                "Git(Git { repository: \"https://a.example/b.git\", commit: None, reference: Some(\"main\")",
            );
        }
        check(json!({"type": "localBlob"}), "None");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (access, expected) in [
            (json!({"type": "wget"}), "`wget` has no `url`"),
            (
                json!({"type": "wget", "url": "x", "header": ["A"]}),
                "`header` of access type `wget` is not a map of lists of texts",
            ),
            (json!({"type": "helm"}), "has no `helmRepository`"),
            (json!({"type": "git"}), "has no `repository`"),
            (json!({"type": "gitHub"}), "has no `repoUrl`"),
            (json!(1), "access is no object"),
        ] {
            check(access, expected);
        }
    }

    #[test]
    fn a_charts_version_stands_behind_its_name_or_alone() {
        for (chart, version, expected) in [
            ("c:1.0.0", None, ("c", Some("1.0.0"))),
            ("c", Some("2"), ("c", Some("2"))),
            ("c:1.0.0", Some("2"), ("c", Some("2"))),
            ("c", None, ("c", None)),
            ("c:", None, ("c", None)),
            ("", None, ("", None)),
        ] {
            let helm = Helm {
                repository: "https://a.example",
                chart,
                version,
            };
            assert_eq!((helm.name(), helm.version()), expected, "{chart}");
        }
    }
}
