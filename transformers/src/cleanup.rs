//! `FileCleanup`: the step with which the reference removes its temporary files. There are none here.

use ocm_engine::{Effect, Outcome, StepContext, StepError, Transformer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// `FileCleanup`: accepted, and without effect.
pub struct FileCleanup;

/// Inputs of [`FileCleanup`].
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Files that earlier steps made. Naming a step here reads its fields, not its content.
    files: Vec<Option<Json>>,
}

/// Outputs of [`FileCleanup`].
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Files removed: none, since bytes stream and no step leaves a file behind.
    cleaned_files: u64,
}

impl Transformer for FileCleanup {
    const TYPE: &'static str = "FileCleanup/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Does nothing: here no step leaves a temporary file behind.";
    const EXAMPLE: &'static str =
        "- {id: cleanup, type: FileCleanup/v1alpha1, spec: {files: ['${add1.spec.file}']}}";
    type Spec = Spec;
    type Output = Output;

    async fn run(&self, _: StepContext, spec: Spec) -> Result<Outcome<Output>, StepError> {
        drop(spec.files);
        Ok(Outcome::new(Output { cleaned_files: 0 }))
    }
}
