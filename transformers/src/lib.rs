//! The built-in step types: download, convert, localize, filter, merge, upload, and the lowering of the dialects to them.
//!
//! Invariant: a step that only passes content on hands out handles and ends; bytes flow when a target pulls.

pub mod attributes;
pub mod cleanup;
pub mod component;
pub mod construct;
pub mod convert;
pub mod fields;
pub mod filter;
pub mod generate;
pub mod get;
pub mod helm;
mod image;
mod inert;
pub mod local_blob;
pub mod localize;
pub mod lower;
pub mod merge;
pub mod oci_artifact;
mod overlay;
mod pipe;
pub mod platforms;
pub mod remote;
pub mod resource;
pub mod signing;
pub mod storage;

use std::marker::PhantomData;

use ocm_engine::StepTypes;

use crate::component::{Ctf, Oci, Storage};

/// All built-in step types.
#[must_use]
pub fn step_types() -> StepTypes {
    let types = with_conversions(StepTypes::new())
        .with(oci_artifact::GetOciArtifact)
        .with(oci_artifact::AddOciArtifact)
        .with(oci_artifact::TransferOciArtifact)
        .with(oci_artifact::DownloadResource)
        .with(oci_artifact::UploadResource)
        .with(helm::GetHelmChart)
        .with(helm::ConvertHelmToOci)
        .with(remote::DownloadWgetResource)
        .with(remote::GetGitHubCommit)
        .with(remote::GetGitCommit)
        .with(remote::GetOciImageLayer)
        .with(cleanup::FileCleanup)
        .with(get::GetResource)
        .with(platforms::FilterPlatforms)
        .with(get::GetSource)
        .with(get::AddLocalSource)
        .with(signing::steps::HashComponent)
        .with(signing::steps::SignComponent)
        .with(signing::steps::VerifyComponent);
    with_storage::<Oci>(with_storage::<Ctf>(types))
}

/// Adds the step types that exist once per kind of repository.
fn with_storage<S: Storage>(types: StepTypes) -> StepTypes {
    types
        .with(component::GetComponentVersion::<S>(PhantomData))
        .with(component::AddComponentVersion::<S>(PhantomData))
        .with(component::DownloadComponent::<S>(PhantomData))
        .with(component::UploadComponent::<S>(PhantomData))
        .with(local_blob::GetLocalResource::<S>(PhantomData))
        .with(local_blob::AddLocalResource::<S>(PhantomData))
        .with(local_blob::DownloadLocalBlob::<S>(PhantomData))
        .with(local_blob::UploadLocalBlob::<S>(PhantomData))
}

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
        .with(convert::OciToLocalBlob)
        .with(filter::FilterResource)
        .with(filter::FilterLayers)
        .with(localize::Localize)
        .with(merge::MergeComponent)
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ocm_specs::transfer::TransferSpec;
    use ocm_specs::yaml::{LoadOptions, Source, load};

    #[test]
    fn examples_are_specs_that_fit_their_schemas() {
        for step_type in crate::step_types().iter() {
            let info = step_type.info();
            let text = format!("transformations:\n{}", info.example);
            let source = Source::new(info.name.clone(), text);
            let document = load(&source, &LoadOptions::default()).expect(&info.name);
            let (spec, warnings) = TransferSpec::read(&source, &document).expect(&info.name);
            assert!(warnings.findings.is_empty(), "{warnings}");
            let [step] = spec.steps.as_slice() else {
                panic!("{}: one step", info.name);
            };
            assert!(
                info.name == step.step_type.text || info.aliases.contains(&step.step_type.text)
            );
            let fields = |schema: &str| -> BTreeSet<String> {
                match (
                    schema,
                    &info.spec_schema["properties"],
                    &info.spec_schema["required"],
                ) {
                    ("required", _, list) => list
                        .as_array()
                        .into_iter()
                        .flatten()
                        .filter_map(|it| it.as_str().map(str::to_owned))
                        .collect(),
                    (_, map, _) => map
                        .as_object()
                        .into_iter()
                        .flat_map(|map| map.keys().cloned())
                        .collect(),
                }
            };
            let given: BTreeSet<String> =
                step.spec.as_map().expect("a map").keys().cloned().collect();
            assert!(given.is_subset(&fields("properties")), "{}", info.name);
            assert!(given.is_superset(&fields("required")), "{}", info.name);
            assert!(!info.summary.is_empty(), "{}", info.name);
        }
    }
}
