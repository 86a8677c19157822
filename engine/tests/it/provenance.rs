//! What foreign code says names no content: no file, and no port that it did not fill itself.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use ocm_content::limits::LimitsConfig;
use ocm_content::{Blob, Content, Error, Limits};
use ocm_engine::{
    CONTENT_KEYWORD, ContentRef, Context, Effect, OpenContent, Outcome, Plan, Port, StepContext,
    StepError, StepType, StepTypeInfo,
};
use serde_json::{Value as Json, json};

use crate::toys::{World, read, step_types};

/// A step type of foreign code: gives its `answer` as it stands, and bytes on `out`.
struct Forger(StepTypeInfo);

impl Forger {
    fn new() -> Self {
        let content = json!({"type": ["object", "null"], CONTENT_KEYWORD: true});
        let port = |name: &str| Port {
            name: name.to_owned(),
            required: false,
            media_types: Vec::new(),
        };
        Self(StepTypeInfo {
            name: "Forger/v1".to_owned(),
            aliases: Vec::new(),
            summary: String::new(),
            example: String::new(),
            effect: Effect::None,
            deterministic: true,
            implementation: Some("sha256:00".to_owned()),
            spec_schema: json!({"type": "object", "properties": {"answer": {}, "in": content}}),
            output_schema: json!({
                "type": "object",
                "properties": {"a": {}, "list": {}, "flag": {}, "text": {"type": "string"}, "marked": content, "out": content},
            }),
            inputs: vec![port("in")],
            outputs: vec![port("out")],
        })
    }
}

impl StepType for Forger {
    fn info(&self) -> &StepTypeInfo {
        &self.0
    }

    fn run(
        &self,
        cx: StepContext,
        spec: Json,
    ) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        async move {
            if let Some(input) = spec.get("in").filter(|input| !input.is_null()) {
                let input: ContentRef = serde_json::from_value(input.clone()).unwrap();
                cx.content(&input).await?;
            }
            let mut output = spec["answer"].clone();
            let bytes = Blob::from_bytes("k/from-a-plugin", "made");
            output["out"] = json!(cx.offer("out", bytes));
            Ok(Outcome::new(output))
        }
        .boxed()
    }
}

/// Files that are all there.
#[derive(Default)]
struct Opened(Mutex<Vec<String>>);

impl OpenContent for Opened {
    fn open(&self, reference: &ContentRef) -> BoxFuture<'static, Result<Content, Error>> {
        self.0.lock().unwrap().push(reference.uri.clone());
        async { Ok(Blob::from_bytes("text/plain", "secret").into()) }.boxed()
    }
}

/// Plans and runs; gives what is wrong, or the files that were opened.
async fn outcome(take: &str) -> String {
    let text = format!(
        r#"
environment: {{folder: ./given}}
transformations:
- {{id: source1, type: toy.source/v1, spec: {{seed: 1, size: 10}}}}
- id: evil
  type: Forger/v1
  spec:
    answer:
      text: secret
      a: {{uri: secret}}
      list: [{{uri: "content:source1/data"}}]
      flag: true
      marked: {{uri: secret}}
- {{id: echo1, type: toy.value/v1, spec: {{value: "${{evil.output.a}}"}}}}
- {{id: hand1, type: toy.value/v1, spec: {{value: "${{evil.output.out}}", second: "${{evil.output.a}}"}}}}
{take}
"#
    );
    let mut types = step_types(&Arc::new(World::default()));
    types.add(Arc::new(Forger::new())).unwrap();
    let plan = match Plan::link(read(&text).unwrap(), &types) {
        Ok(plan) => plan,
        Err(errors) => return format!("plan: {errors}"),
    };
    let opened = Arc::new(Opened::default());
    let mut context = Context::new(Limits::new(LimitsConfig::default()), Arc::new(()));
    context.files = opened.clone();
    let result = plan.run(context, Box::new(|_| {})).await;
    match result.failures.first() {
        Some((step, error)) => format!("{step}: {}: {error}", error.error.kind().as_str()),
        None => format!("opened {:?}", opened.0.lock().unwrap()),
    }
}

async fn check(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (data, expected) in cases {
        let take = format!("- {{id: take1, type: toy.sink/v1, spec: {{name: x, data: {data}}}}}");
        let found = outcome(&take).await;
        if !found.starts_with(expected) {
            wrong.push(format!("{data}\n  found {found}\n  expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn values_of_foreign_code_are_no_content() {
    let refused = |what: &str| {
        format!(
            "plan: toys.yaml:16:59: step `take1`: spec.data: `{what}` is a value that a plugin may have made"
        )
    };
    let placed = |what: &str, column: usize| refused(what).replace(":59:", &format!(":{column}:"));
    let cases = [
        // A field that the schema leaves open, or calls content; parts of one.
        (r#""${evil.output.a}""#, refused("evil.output.a")),
        (r#""${evil.a}""#, refused("evil.a")),
        (r#""${evil.output.marked}""#, refused("evil.output.marked")),
        (
            r#""${evil.output.list[0]}""#,
            refused("evil.output.list[0]"),
        ),
        // Put together from its words.
        (
            r#"{uri: "${evil.output.text}"}"#,
            placed("evil.output.text", 65),
        ),
        (
            r#"{uri: "./${evil.output.text}"}"#,
            placed("evil.output.text", 67),
        ),
        (
            r#""${ {'uri': evil.output.text} }""#,
            placed("evil.output.text", 68),
        ),
        // Behind a step of ours.
        (r#""${echo1.output.value}""#, refused("echo1.output.value")),
        (r#""${echo1.spec.value}""#, refused("echo1.spec.value")),
        (
            r#"{uri: "${echo1.output.value.uri}"}"#,
            placed("echo1.output.value.uri", 65),
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(data, told)| (*data, &**told)).collect();
    check(&cases).await;
}

#[tokio::test(start_paused = true)]
async fn what_only_looks_like_a_port_is_refused_when_it_is_there() {
    let denied = "take1: denied: a value that a plugin may have made names the content `";
    check(&[
        // The whole has ports; what is taken out of it may be none.
        (r#""${evil.output['a']}""#, "plan: "),
        (r#""${[evil.output].map(it, it.a)[0]}""#, denied),
        (r#""${[evil].map(it, it.output.list[0])[0]}""#, denied),
        // The media type is the plugin's own word.
        (r#"{uri: "${evil.output.out.mediaType}"}"#, denied),
        (
            r#""${[evil.output.out].map(it, {'uri': it.mediaType})[0]}""#,
            denied,
        ),
        (r#"{uri: "${hand1.spec.value.mediaType}"}"#, denied),
        (
            r#""${evil.output.flag ? evil.output.a : source1.output.data}""#,
            denied,
        ),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn ports_and_what_the_spec_says_itself_are_open() {
    check(&[
        (r#""${evil.output.out}""#, "opened []"),
        (r#""${evil.out}""#, "opened []"),
        (r#""${hand1.spec.value}""#, "opened []"),
        (r#""${[evil.output].map(it, it.out)[0]}""#, "opened []"),
        (r#"{uri: "${evil.output.out.uri}"}"#, "opened []"),
        // The plugin chooses among what the spec names.
        (
            r#""${evil.output.flag ? source1.output.data : evil.output.out}""#,
            "opened []",
        ),
        // Paths that it has no part in, in a step that it has one in.
        (
            r#"{uri: ./own}, after: "${evil.output.text}""#,
            "opened [\"./own\"]",
        ),
        (
            r#"{uri: "${environment.folder}/own"}, after: "${evil.output.text}""#,
            "opened [\"./given/own\"]",
        ),
    ])
    .await;
    // Where no plugin runs before, nothing changes: a step of ours may give a path.
    let apart = r#"
- {id: own1, type: toy.value/v1, spec: {value: {uri: ./own}}}
- {id: take1, type: toy.sink/v1, spec: {name: x, data: "${own1.output.value}"}}"#;
    assert_eq!(outcome(apart).await, "opened [\"./own\"]");
}

#[tokio::test(start_paused = true)]
async fn other_plugins_are_given_no_forged_content_either() {
    let second = r#"- {id: second, type: Forger/v1, spec: {in: "${[evil.output].map(it, it.a)[0]}", answer: {}}}"#;
    let found = outcome(second).await;
    assert!(found.starts_with("second: denied: "), "{found}");
}
