//! The reference's cases of static analysis and execution, from text to the end of the run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ocm_content::Limits;
use ocm_content::limits::LimitsConfig;
use ocm_engine::{
    Context, Effect, Graph, Outcome, Plan, Status, StepContext, StepError, StepType, StepTypeInfo,
    StepTypes,
};
use ocm_specs::transfer::TransferSpec;
use ocm_specs::yaml::{LoadOptions, Source, load};
use serde_json::{Value as Json, json};

/// A step type whose schemas are files and whose work is a function.
struct Mock {
    info: StepTypeInfo,
    work: fn(&Json) -> Json,
}

impl StepType for Mock {
    fn info(&self) -> &StepTypeInfo {
        &self.info
    }

    fn run(
        &self,
        _: StepContext,
        spec: Json,
    ) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        let output = (self.work)(&spec);
        async move { Ok(Outcome::new(output)) }.boxed()
    }
}

fn get(spec: &Json) -> Json {
    json!({"object": {
        "name": spec["name"],
        "version": spec["version"],
        "content": "content of a get step",
    }})
}

fn add(spec: &Json) -> Json {
    json!({"object": spec["object"]})
}

fn custom(spec: &Json) -> Json {
    let mut object = spec["object"].as_object().cloned().unwrap_or_default();
    object.retain(|name, _| ["stringWithPattern", "oneOfStringOrNull"].contains(&&**name));
    object.insert("oneOfStringNumberOrNull".into(), "any text".into());
    json!({"object": object})
}

fn mock(schemas: &Path, name: &str, work: fn(&Json) -> Json) -> Arc<Mock> {
    let schema = |part: &str| -> Json {
        let path = schemas.join(format!("{name}{part}.schema.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    Arc::new(Mock {
        info: StepTypeInfo {
            name: format!("{name}/v1alpha1"),
            aliases: Vec::new(),
            summary: String::new(),
            example: String::new(),
            effect: Effect::None,
            deterministic: true,
            implementation: None,
            spec_schema: schema("Spec"),
            output_schema: schema("Output"),
            inputs: Vec::new(),
            outputs: Vec::new(),
        },
        work,
    })
}

/// The folder of vectors; `None` with a printed reason where there is none.
fn vectors() -> Option<PathBuf> {
    let folder = match std::env::var_os("OCM_VECTORS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
    };
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("OCM_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "no vectors at {}", folder.display());
    eprintln!("skipped: no vectors at {}", folder.display());
    None
}

fn plan(name: &str, text: &str, types: &StepTypes) -> Result<Plan, String> {
    let source = Source::new(name, text);
    let node = load(&source, &LoadOptions::default()).map_err(|error| error.to_string())?;
    let (spec, _) = TransferSpec::read(&source, &node).map_err(|errors| errors.to_string())?;
    let graph = Graph::link(spec).map_err(|errors| errors.to_string())?;
    Plan::new(graph, types).map_err(|errors| errors.to_string())
}

async fn runtime(plan: Plan) -> Result<(), String> {
    let context = Context::new(Limits::new(LimitsConfig::default()), Arc::new(()));
    let result = plan.run(context, Box::new(|_| {})).await;
    match result.status {
        Status::Succeeded => Ok(()),
        _ => Err(format!("{:?}", result.failures)),
    }
}

/// `ok`, `error`, or nothing where it is not reached.
fn verdict(expected: &Json) -> Option<bool> {
    match expected.as_str() {
        Some("ok") => Some(true),
        Some("error") => Some(false),
        None if expected.is_null() => None,
        _ => panic!("verdict {expected}"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_case_of_the_reference_ends_as_listed() {
    let Some(folder) = vectors().map(|folder| folder.join("transform")) else {
        return;
    };
    let schemas = folder.join("schemas/engine-mocks");
    let mut types = StepTypes::new();
    for (name, work) in [
        ("MockGetObjectTransformer", get as fn(&Json) -> Json),
        ("MockAddObjectTransformer", add),
        ("MockCustomSchemaObjectTransformer", custom),
    ] {
        types.add(mock(&schemas, name, work)).unwrap();
    }
    let text = std::fs::read_to_string(folder.join("engine-cases.yaml")).unwrap();
    let cases = load(
        &Source::new("engine-cases.yaml", text),
        &LoadOptions::default(),
    )
    .unwrap()
    .to_json();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 21);
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        let planned = plan(name, case["spec"].as_str().unwrap(), &types);
        let found_static = planned.as_ref().map(drop).map_err(Clone::clone);
        let found_runtime = match planned {
            Ok(plan) => Some(runtime(plan).await),
            Err(_) => None,
        };
        let fits = verdict(&case["static"]) == Some(found_static.is_ok())
            && verdict(&case["runtime"]) == found_runtime.as_ref().map(Result::is_ok);
        if !fits {
            wrong.push(format!(
                "{number} {name}: {found_static:?}, {found_runtime:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
