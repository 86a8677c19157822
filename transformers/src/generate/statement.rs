//! The completeness statement: what of the component versions carried is not in the target.

use schemars::JsonSchema;
use serde::Serialize;

/// Most lines of each kind in a text.
const LISTED: usize = 10;

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn points(number: usize) -> String {
    match number {
        1 => "1 element points".to_owned(),
        _ => format!("{number} elements point"),
    }
}

/// What will still point outside when a transfer is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// The component versions that are carried, as `component:version`, children first.
    pub versions: Vec<String>,
    /// Elements whose content is elsewhere.
    pub outside: Vec<Outside>,
    /// Component versions that are referenced and not carried, sorted.
    pub not_carried: Vec<String>,
}

/// An element whose content is not in a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// The component version, as `component:version`.
    pub component_version: String,
    /// `resource` or `source`.
    pub kind: &'static str,
    /// The element, as `name=x,version=1`.
    pub identity: String,
    /// The type of its access, as written.
    pub access_type: String,
    /// Where its content is, as far as its access says so in one field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The target that it is not in.
    pub target: String,
}

impl Statement {
    /// Is everything that the component versions consist of in the target?
    pub fn is_complete(&self) -> bool {
        self.outside.is_empty() && self.not_carried.is_empty()
    }

    /// The statement for people: one line, and one for each thing that is missing.
    pub fn text(&self) -> String {
        let versions = count(self.versions.len(), "component version");
        if self.is_complete() {
            return format!("complete: nothing of {versions} points outside of the target\n");
        }
        let mut parts = Vec::new();
        if !self.outside.is_empty() {
            parts.push(format!(
                "{} outside of the target",
                points(self.outside.len())
            ));
        }
        if !self.not_carried.is_empty() {
            let missing = count(self.not_carried.len(), "referenced component version");
            parts.push(format!("{missing} not carried"));
        }
        let mut text = format!("not complete: {}\n", parts.join(", "));
        for it in self.outside.iter().take(LISTED) {
            let place = it.place.as_deref().map(|place| format!(" {place}"));
            text.push_str(&format!(
                "  {} `{}` of {}: {}{}\n",
                it.kind,
                it.identity,
                it.component_version,
                it.access_type,
                place.unwrap_or_default()
            ));
        }
        for it in self.not_carried.iter().take(LISTED) {
            text.push_str(&format!("  component version {it}\n"));
        }
        let more = self.outside.len().saturating_sub(LISTED)
            + self.not_carried.len().saturating_sub(LISTED);
        if more > 0 {
            text.push_str(&format!("  and {more} more, which the report lists\n"));
        }
        text
    }
}
