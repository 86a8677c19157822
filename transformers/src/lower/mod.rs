//! Lowering: the dialects that people write become the native form that the engine runs (transformation.md 1.4).
//!
//! Invariant: what a dialect implies is written out. The lowered document, read again, means the same without its dialect.

mod inline;
mod mapping;
pub mod roles;

use ocm_engine::StepTypes;
use ocm_specs::diagnostic::{Diagnostic, Diagnostics};
use ocm_specs::transfer::{Dialect, TransferSpec};
use ocm_specs::yaml::{Member, Node, Span, Value};

pub use self::mapping::{ReadDescriptor, lower_mapping};
use self::roles::Roles;

/// Lowers a spec in the native or the inline dialect; the native one passes through as it is.
///
/// What was implied comes back as warnings: `W101` for a content input that was left out, `W102` for resources that a
/// component upload takes from other steps.
///
/// # Errors
/// All of them at once: a resource step whose component can't be told, two uploads of one resource; a spec in the mapping
/// dialect, which needs descriptors.
pub fn lower(
    spec: TransferSpec,
    types: &StepTypes,
) -> Result<(TransferSpec, Diagnostics), Diagnostics> {
    match spec.dialect {
        Dialect::Native => {
            let warnings = Diagnostics::new(spec.source.clone(), Vec::new());
            Ok((spec, warnings))
        }
        Dialect::Inline => inline::lower(spec, types, &Roles::built_in()),
        Dialect::Mapping => {
            let message = "the mapping form is lowered with the descriptors it names at hand";
            let finding = Diagnostic::error(Span::default(), message);
            Err(Diagnostics::new(spec.source, vec![finding]))
        }
    }
}

/// A text that stands at `span`.
fn text(text: impl Into<String>, span: Span) -> Node {
    Node {
        value: Value::String(text.into()),
        span,
    }
}

/// A field that stands at `span`.
fn member(node: Node, span: Span) -> Member {
    Member { key: span, node }
}

#[cfg(test)]
mod tests;
