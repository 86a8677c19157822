//! Putting changed resources into a component descriptor.

use ocm_content::Error;
use ocm_engine::{Effect, Outcome, StepContext, StepError, Transformer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::resource::{identity_of, list, resources_mut, without_version};

/// `merge.component`: replaces resources of a descriptor by others of the same identity.
#[derive(Clone, Copy, Debug, Default)]
pub struct MergeComponent;

/// Inputs of [`MergeComponent`].
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MergeSpec {
    /// The component descriptor to start from.
    pub base: Json,
    /// Resources that take the place of those with the same identity.
    pub patches: Vec<Json>,
}

/// Outputs of [`MergeComponent`], and of others that change a descriptor.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DescriptorOutput {
    /// The component descriptor. What was not replaced is as it was, in its place.
    pub descriptor: Json,
}

impl Transformer for MergeComponent {
    const TYPE: &'static str = "merge.component/v1alpha1";
    const EFFECT: Effect = Effect::None;
    const DETERMINISTIC: bool = true;
    const SUMMARY: &'static str =
        "Replaces resources of a component descriptor by others of the same identity.";
    const EXAMPLE: &'static str = "\
- id: merge1
  type: merge.component/v1alpha1
  spec:
    base: ${download1.output.descriptor}
    patches:
      - ${upload1.output.resource}
";

    type Spec = MergeSpec;
    type Output = DescriptorOutput;

    async fn run(
        &self,
        _: StepContext,
        spec: MergeSpec,
    ) -> Result<Outcome<DescriptorOutput>, StepError> {
        let descriptor = merge(spec.base, spec.patches)?;
        Ok(Outcome::new(DescriptorOutput { descriptor }))
    }
}

/// Puts each patch in the place of the one resource with the same name and extra identity (and version, where that alone
/// is not unique).
///
/// # Errors
/// A patch without a place, with several, or two patches for one; `base` is no descriptor.
pub fn merge(mut base: Json, patches: Vec<Json>) -> Result<Json, StepError> {
    let mut none = Vec::new();
    let resources = resources_mut(&mut base)
        .map_err(|error| StepError::at("base", error))?
        .unwrap_or(&mut none);
    let mut patched: Vec<Option<usize>> = vec![None; resources.len()];
    for (number, patch) in patches.into_iter().enumerate() {
        let field = format!("patches[{number}]");
        let place = place(resources, &patch).map_err(|error| StepError::at(&field, error))?;
        if let Some(first) = patched[place].replace(number) {
            let message = format!("patches[{first}] replaces the same resource");
            return Err(StepError::at(field, Error::invalid(message)));
        }
        resources[place] = patch;
    }
    Ok(base)
}

fn place(resources: &[Json], patch: &Json) -> Result<usize, Error> {
    let wanted = identity_of(patch);
    if wanted.name().is_none() {
        return Err(Error::invalid("this is no resource: it has no `name`"));
    }
    let key = without_version(&wanted);
    let found: Vec<usize> = (0..resources.len())
        .filter(|at| without_version(&identity_of(&resources[*at])) == key)
        .collect();
    let exact: Vec<usize> = found
        .iter()
        .copied()
        .filter(|at| identity_of(&resources[*at]) == wanted)
        .collect();
    match (found.as_slice(), exact.as_slice()) {
        ([only], _) | (_, [only]) => Ok(*only),
        ([], _) => Err(
            Error::not_found(format!("the component has no resource `{wanted}`"))
                .with_hint(format!("it has {}", list(resources.iter()))),
        ),
        _ => {
            let found = list(found.iter().map(|at| &resources[*at]));
            Err(Error::invalid(format!(
                "several resources could be `{wanted}`: {found}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Json {
        json!({
            "meta": {"schemaVersion": "v2"},
            "x-unknown": [1],
            "component": {
                "name": "acme.org/x", "version": "1", "creationTime": "2024-01-01T00:00:00Z",
                "resources": [
                    {"name": "a", "version": "1", "n": 0},
                    {"name": "b", "version": "1", "n": 1},
                    {"name": "b", "version": "1", "extraIdentity": {"arch": "arm"}, "n": 2},
                    {"name": "c", "version": "1", "n": 3},
                    {"name": "c", "version": "2", "n": 4},
                ],
                "sources": null,
            },
            "signatures": [{"name": "s"}],
        })
    }

    fn check(patches: Json, expected: Result<&[usize], &str>) {
        let Json::Array(patches) = patches else {
            panic!("a list");
        };
        match (merge(base(), patches.clone()), expected) {
            (Ok(merged), Ok(places)) => {
                let mut wanted = base();
                for (patch, place) in patches.iter().zip(places) {
                    wanted["component"]["resources"][*place] = patch.clone();
                }
                assert_eq!(merged.to_string(), wanted.to_string());
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (merged, expected) => panic!("{patches:?}: {merged:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn each_patch_has_one_place() {
        check(json!([]), Ok(&[]));
        check(json!([{"name": "a", "version": "1", "p": 1}]), Ok(&[0]));
        check(json!([{"name": "a", "version": "7"}]), Ok(&[0]));
        check(json!([{"name": "b", "version": "1"}]), Ok(&[1]));
        check(
            json!([{"name": "b", "extraIdentity": {"arch": "arm"}}]),
            Ok(&[2]),
        );
        check(
            json!([{"name": "c", "version": "2"}, {"name": "a", "version": "1"}]),
            Ok(&[4, 0]),
        );
        check(
            json!([{"name": "c", "version": "3"}]),
            Err("several resources"),
        );
        check(
            json!([{"name": "d"}]),
            Err("patches[0]: the component has no resource `name=d`"),
        );
        check(
            json!([{"name": "a"}, {"name": "a"}]),
            Err("patches[0] replaces the same"),
        );
        check(json!([7]), Err("no resource"));
    }
}
