//! Shared vectors, sessions, and specs that run.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ocm_content::MemoryStores;
use ocm_engine::{Context, Graph, Plan, RunResult};
use ocm_repository::{Session, SessionConfig};
use ocm_specs::transfer::{Dialect, TransferSpec};
use ocm_specs::yaml::{LoadOptions, Source, load};
use ocm_transformers::lower::{lower, lower_mapping};
use ocm_transformers::step_types;

/// A shared vector as text, or `None` with a reason printed.
pub(crate) fn vector(name: &str) -> Option<String> {
    let bytes = bytes(name)?;
    Some(String::from_utf8(bytes.to_vec()).expect("text"))
}

/// A shared vector, or `None` with a reason printed.
pub(crate) fn bytes(name: &str) -> Option<Bytes> {
    let path = vector_path(name)?;
    Some(std::fs::read(&path).expect("it is there").into())
}

/// Where a shared vector lies, or `None` with a reason printed.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
pub(crate) fn vector_path(name: &str) -> Option<String> {
    let root = std::env::var("OCM_VECTORS").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors").to_owned()
    });
    let path = format!("{root}/{name}");
    match std::fs::metadata(&path) {
        Ok(_) => Some(path),
        Err(error) => {
            let required = std::env::var("OCM_REQUIRE_PEERS").as_deref() == Ok("1");
            assert!(!required, "{path}: {error}");
            eprintln!("skipped: {path}: {error}");
            None
        }
    }
}

/// A session in `folder`, with `registry` for ghcr.io.
pub(crate) fn session(folder: &Path, registry: &MemoryStores) -> Arc<Session> {
    let session = Session::new(SessionConfig::new(folder)).expect("a session");
    session.register("ghcr.io", Arc::new(registry.clone()));
    session
}

/// Lowers and runs a spec; gives the number of warnings, too.
pub(crate) async fn run(session: &Arc<Session>, text: &str) -> (RunResult, usize) {
    let source = Source::new("spec.yaml", text);
    let document = load(&source, &LoadOptions::default()).expect("yaml");
    let (spec, _) = TransferSpec::read(&source, &document).expect("a spec");
    let types = step_types();
    let lowered = match spec.dialect {
        Dialect::Mapping => lower_mapping(spec, &types, session.as_ref()).await,
        _ => lower(spec, &types),
    };
    let (spec, warnings) = lowered.expect("lowers");
    let plan = Plan::new(Graph::link(spec).expect("links"), &step_types()).expect("plans");
    let context = Context::new(session.limits().clone(), session.clone());
    let result = plan.run(context, Box::new(|_| {})).await;
    (result, warnings.findings.len())
}
