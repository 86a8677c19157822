//! Constants as a step, so that several steps can refer to one value.

use ocm_engine::{Effect, Outcome, StepContext, StepError, Transformer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

/// `attributes.transformation`: hands its attributes on (transformation.md 1.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes;

/// Inputs and outputs of [`Attributes`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttributesSpec {
    /// Any values, by name.
    pub attributes: Map<String, Json>,
}

impl Transformer for Attributes {
    const TYPE: &'static str = "attributes.transformation/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str = "Holds values that other steps refer to.";
    const EXAMPLE: &'static str = "\
- id: constants
  type: attributes.transformation/v1alpha1
  spec:
    attributes:
      targetFilePath: ./archive
";

    type Spec = AttributesSpec;
    type Output = AttributesSpec;

    async fn run(
        &self,
        _: StepContext,
        spec: AttributesSpec,
    ) -> Result<Outcome<AttributesSpec>, StepError> {
        Ok(Outcome::new(spec))
    }
}
