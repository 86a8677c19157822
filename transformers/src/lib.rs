//! The built-in step types: download, convert, localize, filter, merge, upload, and the lowering of the dialects to them.
//!
//! Invariant: a step that only passes content on hands out handles and ends; bytes flow when a target pulls.

pub mod attributes;
pub mod convert;
pub mod filter;
mod image;
pub mod merge;
mod overlay;
mod pipe;
pub mod resource;

use ocm_engine::StepTypes;

/// Adds the step types that read no repository: constants, conversions, filters, merges.
///
/// # Panics
/// When `types` has one of their names already: a mistake of the program.
#[must_use]
pub fn with_conversions(types: StepTypes) -> StepTypes {
    types
        .with(attributes::Attributes)
        .with(convert::OciToTar)
        .with(convert::TarToOci)
        .with(convert::LocalBlobToOci)
        .with(filter::FilterResource)
        .with(filter::FilterLayers)
        .with(merge::MergeComponent)
}

#[cfg(test)]
mod testing;
