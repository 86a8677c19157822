//! Transfers as a user's spec describes them: real steps, run by the engine.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use ocm_content::Referrers;
use ocm_engine::{Context, Event, Status};
use ocm_repository::{Session, SessionConfig};
use ocm_transformers::storage::Files;

use crate::Result;
use crate::toys::plan;

/// What a run moved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    /// Bytes read from sources and sent to targets.
    pub(crate) bytes: u64,
}

/// A run of its own: nothing is known from an earlier one.
pub(crate) async fn transfer(spec: String, referrers: Referrers) -> Result<Moved> {
    let mut config = SessionConfig::new(".");
    config.copy.referrers = referrers;
    let session = Session::new(config)?;
    let plan = plan(spec, &ocm_transformers::step_types())?;
    let mut context = Context::new(session.limits().clone(), session.clone());
    context.files = Arc::new(Files(session));
    let moved = Arc::new(Mutex::new(Moved::default()));
    let counting = moved.clone();
    let observe = move |event| {
        if let Event::Finished { metered, .. } = event {
            let mut moved = counting.lock().unwrap_or_else(PoisonError::into_inner);
            moved.bytes += metered.bytes_read + metered.bytes_sent;
        }
    };
    let result = plan.run(context, Box::new(observe)).await;
    let moved = *moved.lock().unwrap_or_else(PoisonError::into_inner);
    match (result.status, result.failures.first()) {
        (Status::Succeeded, None) => Ok(moved),
        (_, Some((step, error))) => Err(format!("step `{step}`: {}", error.error).into()),
        (status, None) => Err(format!("the run {status:?}").into()),
    }
}

/// One artifact from a reference to another.
pub(crate) fn relay_spec(source: &str, target: &str) -> String {
    let (source, target) = (resource(source), resource(target));
    format!(
        "transformations:\n- id: transfer\n  type: TransferOCIArtifact/v1alpha1\n  spec:\n    \
         resource: {source}\n    targetResource: {target}\n"
    )
}

/// Many artifacts, each from a reference to another.
pub(crate) fn relays_spec(pairs: impl IntoIterator<Item = (String, String)>) -> String {
    let mut text = "transformations:\n".to_owned();
    for (at, (source, target)) in pairs.into_iter().enumerate() {
        let (source, target) = (resource(&source), resource(&target));
        let _ = write!(
            text,
            "- id: transfer{at}\n  type: TransferOCIArtifact/v1alpha1\n  spec:\n    \
             resource: {source}\n    targetResource: {target}\n"
        );
    }
    text
}

/// One artifact from a reference to several.
pub(crate) fn fan_out_spec(source: &str, targets: impl IntoIterator<Item = String>) -> String {
    let mut text = format!(
        "transformations:\n- id: get\n  type: GetOCIArtifact/v1alpha1\n  spec: {{resource: {}}}\n",
        resource(source)
    );
    for (at, target) in targets.into_iter().enumerate() {
        let _ = write!(
            text,
            "- id: add{at}\n  type: AddOCIArtifact/v1alpha1\n  spec:\n    resource: {}\n    \
             file: ${{get.output.file}}\n",
            resource(&target)
        );
    }
    text
}

fn resource(reference: &str) -> String {
    format!(
        "{{name: image, version: 1.0.0, type: ociImage, relation: external, \
         access: {{type: ociArtifact, imageReference: '{reference}'}}}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_fit_the_step_types() {
        let types = ocm_transformers::step_types();
        let targets = ["b.example/x:1".to_owned(), "c.example/x:1".to_owned()];
        for (spec, steps) in [
            (relay_spec("a.example/x:1", "b.example/x:1"), 1),
            (fan_out_spec("a.example/x:1", targets), 3),
        ] {
            let plan = plan(spec, &types).unwrap();
            assert_eq!(plan.step_names().count(), steps);
        }
    }
}
