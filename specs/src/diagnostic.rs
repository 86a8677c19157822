//! What is wrong with a document, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

use crate::yaml::{Position, Source, Span};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The document can't be used.
    Error,
    /// It can, but the author may have meant something else.
    Warning,
}

/// One finding in a document. Its text form is `file:line:column: step x: field: message`.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// A stable code, as in `W101`, for those that have one.
    pub code: Option<&'static str>,
    /// Where in the source.
    pub span: Span,
    /// The step it is about.
    pub step: Option<String>,
    /// The field path it is about, below the step, as in `spec.resource.name`.
    pub field: String,
    /// What is wrong and why: a lowercase fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code: None,
            span,
            step: None,
            field: String::new(),
            message: message.into(),
            hint: None,
        }
    }

    /// A warning at `span`, with its code.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            code: Some(code),
            ..Self::error(span, message)
        }
    }

    /// Names the step it is about.
    #[must_use]
    pub fn in_step(mut self, step: impl Into<String>) -> Self {
        self.step = Some(step.into());
        self
    }

    /// Names the field it is about.
    #[must_use]
    pub fn at_field(mut self, field: impl Into<String>) -> Self {
        self.field = field.into();
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// All findings of one reading, in document order, with the text they are about.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The text.
    pub source: Arc<Source>,
    /// The findings, sorted by place.
    pub findings: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Sorts `findings` by place and drops exact repetitions.
    pub fn new(source: Arc<Source>, mut findings: Vec<Diagnostic>) -> Self {
        findings.sort_by(|a, b| {
            (a.span, a.severity, &a.field, &a.message)
                .cmp(&(b.span, b.severity, &b.field, &b.message))
        });
        findings.dedup();
        Self { source, findings }
    }

    /// Is any of them an error?
    pub fn has_errors(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity == Severity::Error)
    }

    /// Line and column of a finding.
    pub fn position(&self, finding: &Diagnostic) -> Position {
        self.source.position(finding.span.start)
    }

    /// One finding as one line, its hint as a second, indented one.
    pub fn render(&self, finding: &Diagnostic) -> String {
        let Position { line, column } = self.position(finding);
        let mut out = format!("{}:{line}:{column}: ", self.source.name());
        if finding.severity == Severity::Warning {
            out.push_str("warning ");
            out.push_str(finding.code.unwrap_or_default());
            out.push_str(": ");
        }
        if let Some(step) = &finding.step {
            out.push_str(&format!("step `{step}`: "));
        }
        if !finding.field.is_empty() {
            out.push_str(&format!("{}: ", finding.field));
        }
        out.push_str(&finding.message);
        if let Some(hint) = &finding.hint {
            out.push_str(&format!("\n  hint: {hint}"));
        }
        out
    }
}

/// Findings that are shown; who has more of them will look again anyway.
const SHOWN: usize = 100;

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().take(SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.render(finding))?;
        }
        match self.findings.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more findings"),
        }
    }
}

impl std::error::Error for Diagnostics {}

/// Known names that are compared at most: a document may have very many keys.
const CANDIDATES: usize = 1_000;
/// Characters of a name that are compared at most, since the comparison is quadratic.
const COMPARED: usize = 80;

/// The known name nearest to a mistyped one, if any is near enough to be meant. Case does not count.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1) + 1;
    let name = comparable(name);
    known
        .into_iter()
        .take(CANDIDATES)
        .map(|candidate| {
            // Swapped neighbours count as one mistake.
            let distance = strsim::osa_distance(&name, &comparable(candidate));
            (distance, candidate)
        })
        .filter(|(distance, candidate)| *distance < limit.min(candidate.chars().count()))
        .min()
        .map(|(_, candidate)| candidate)
}

fn comparable(name: &str) -> String {
    let lower = name.chars().flat_map(char::to_lowercase);
    lower.take(COMPARED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_probably_meant() {
        let known = ["descriptor", "resource", "repository", "version"];
        for (name, expected) in [
            ("descritpor", Some("descriptor")),
            ("Resource", Some("resource")),
            ("resources", Some("resource")),
            ("verison", Some("version")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(name, known), expected, "{name}");
        }
    }

    #[test]
    fn a_flood_of_findings_is_dammed() {
        let source = Source::new("spec.yaml", "x".repeat(1000));
        let finding = |start| Diagnostic::error(Span { start, end: start }, "wrong");
        let all = Diagnostics::new(source, (0..250).map(finding).collect());
        let shown = all.to_string();
        assert_eq!(shown.lines().count(), SHOWN + 1);
        assert!(shown.ends_with("… and 150 more findings"), "{shown}");
    }

    #[test]
    fn a_finding_says_where_what_and_what_to_do() {
        let source = Source::new("spec.yaml", "a: 1\nb: 2\n");
        let finding = Diagnostic::error(Span { start: 8, end: 9 }, "unknown field `b`")
            .in_step("upload1")
            .at_field("spec.b")
            .with_hint("did you mean `a`?");
        let all = Diagnostics::new(source, vec![finding]);
        assert_eq!(
            all.to_string(),
            "spec.yaml:2:4: step `upload1`: spec.b: unknown field `b`\n  hint: did you mean `a`?"
        );
    }
}
