//! The completeness statement: what of the component versions carried is not in the target.

use serde::Serialize;

/// What will still point outside when a transfer is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
}
