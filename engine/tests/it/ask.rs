//! What step types say while planning: of inputs that are known, and of content that they do not take.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use ocm_content::Error;
use ocm_engine::{
    CONTENT_KEYWORD, Effect, Outcome, Plan, Port, StepContext, StepError, StepType, StepTypeInfo,
};
use serde_json::{Value as Json, json};

use crate::toys::{World, read, step_types};

/// Takes text and gives a tar; likes even numbers only, and tells what it was asked.
struct Judge {
    info: StepTypeInfo,
    asked: Arc<Mutex<Vec<Json>>>,
}

impl Judge {
    fn new(asked: &Arc<Mutex<Vec<Json>>>) -> Self {
        let content = json!({"type": "object", CONTENT_KEYWORD: true});
        let port = |media_types: &[&str]| Port {
            name: "data".to_owned(),
            required: false,
            media_types: media_types.iter().map(ToString::to_string).collect(),
        };
        let numbers = json!({"type": "array", "items": {"type": "integer"}});
        Self {
            info: StepTypeInfo {
                name: "toy.judge/v1".to_owned(),
                aliases: Vec::new(),
                summary: "Judges.".to_owned(),
                example: String::new(),
                effect: Effect::None,
                deterministic: true,
                implementation: None,
                spec_schema: json!({"type": "object", "properties": {"numbers": numbers, "mood": {"type": "string"}, "data": content}, "additionalProperties": false}),
                output_schema: json!({"type": "object", "properties": {"data": content}}),
                inputs: vec![port(&["text/*", "application/json"])],
                outputs: vec![port(&["application/x-tar"])],
            },
            asked: asked.clone(),
        }
    }
}

impl StepType for Judge {
    fn info(&self) -> &StepTypeInfo {
        &self.info
    }

    fn run(&self, _: StepContext, _: Json) -> BoxFuture<'static, Result<Outcome<Json>, StepError>> {
        Box::pin(async { Ok(Outcome::new(json!({}))) })
    }

    fn validates(&self) -> bool {
        true
    }

    fn validate(&self, spec: Json) -> BoxFuture<'static, Result<Vec<StepError>, Error>> {
        self.asked.lock().unwrap().push(spec.clone());
        Box::pin(async move {
            match spec["mood"].as_str() {
                Some("silent") => return Err(Error::limit("it is silent").with_hint("sing")),
                Some("slow") => tokio::time::sleep(Duration::from_secs(25)).await,
                _ => {}
            }
            let numbers = spec["numbers"].as_array().into_iter().flatten();
            let odd = numbers
                .enumerate()
                .filter(|(_, number)| number.as_i64().unwrap_or(0) % 2 != 0);
            let error = |at| {
                StepError::at(
                    format!("numbers[{at}]"),
                    Error::invalid("this is odd").with_hint("add one"),
                )
            };
            Ok(odd.map(|(at, _)| error(at)).collect())
        })
    }
}

/// What is said, and what was asked.
async fn ask(steps: &str) -> (String, Vec<Json>) {
    let asked = Arc::default();
    let mut types = step_types(&Arc::new(World::default()));
    types.add(Arc::new(Judge::new(&asked))).unwrap();
    let spec = read(&format!(
        "environment: {{odd: 3, mood: good}}\ntransformations:\n{}",
        steps.trim_start_matches('\n')
    ))
    .unwrap();
    let said = match Plan::link_and_ask(spec, &types).await {
        Ok(plan) => plan.warnings().to_string(),
        Err(findings) => findings.to_string(),
    };
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    (said, asked)
}

#[tokio::test(start_paused = true)]
async fn inputs_that_are_known_are_judged_while_planning() {
    for (name, steps, expected, questions) in [
        (
            "together with everything else that is wrong, at their fields",
            r#"
- {id: judge1, type: toy.judge/v1, spec: {numbers: [2, 1, 4, 5]}}
- {id: sink1, type: toy.sink/v1, spec: {nmae: a}}
"#,
            "toys.yaml:3:56: step `judge1`: spec.numbers[1]: this is odd
  hint: add one
toys.yaml:3:62: step `judge1`: spec.numbers[3]: this is odd
  hint: add one
toys.yaml:4:40: step `sink1`: spec: missing field `data`
toys.yaml:4:40: step `sink1`: spec: missing field `name`
toys.yaml:4:41: step `sink1`: spec.nmae: unknown field `nmae`
  hint: did you mean `name`?",
            vec![json!({"numbers": [2, 1, 4, 5]})],
        ),
        (
            "the environment is known, ports do not matter",
            r#"
- {id: source1, type: toy.source/v1, spec: {seed: 1, size: 1}}
- {id: judge1, type: toy.judge/v1, spec: {data: "${source1.output.data}", numbers: ["${environment.odd}"], mood: "${environment.mood}"}}
"#,
            "toys.yaml:4:85: step `judge1`: spec.numbers[0]: this is odd
  hint: add one",
            vec![json!({"numbers": [3], "mood": "good"})],
        ),
        (
            "what other steps give is not known",
            r#"
- {id: source1, type: toy.source/v1, spec: {seed: 1, size: 1}}
- {id: judge1, type: toy.judge/v1, spec: {numbers: [1, "${source1.spec.size}"]}}
"#,
            "",
            vec![],
        ),
        (
            "equal questions are asked once",
            r#"
- {id: judge1, type: toy.judge/v1, spec: {numbers: [2]}}
- {id: judge2, type: toy.judge/v1, spec: {numbers: [2]}}
"#,
            "",
            vec![json!({"numbers": [2]})],
        ),
        (
            "a type that has no answer is asked no more",
            r#"
- {id: judge1, type: toy.judge/v1, spec: {mood: silent}}
- {id: judge2, type: toy.judge/v1, spec: {mood: good}}
"#,
            "toys.yaml:3:22: step `judge1`: it is silent\n  hint: sing",
            vec![json!({"mood": "silent"})],
        ),
        (
            "what is wrong with content does not hide the rest",
            "- {id: judge1, type: toy.judge/v1, spec: {numbers: [1], data: '${environment.mood}'}}\n",
            "toys.yaml:3:53: step `judge1`: spec.numbers[0]: this is odd
  hint: add one
toys.yaml:3:66: step `judge1`: spec.data: expected content, found string",
            vec![json!({"numbers": [1]})],
        ),
        (
            "wrong inputs are not asked about",
            "- {id: judge1, type: toy.judge/v1, spec: {numbers: [1], mood: [1]}}\n",
            "toys.yaml:3:63: step `judge1`: spec.mood: expected string, found list",
            vec![],
        ),
        (
            "patience ends",
            r#"
- {id: judge1, type: toy.judge/v1, spec: {mood: slow, numbers: [2]}}
- {id: judge2, type: toy.judge/v1, spec: {mood: slow, numbers: [4]}}
- {id: judge3, type: toy.judge/v1, spec: {mood: slow, numbers: [6]}}
- {id: judge4, type: toy.judge/v1, spec: {numbers: [1]}}
"#,
            "toys.yaml:5:22: warning W108: step `judge3`: the step types took longer than 60 s to judge the inputs of all steps; from this one on that is left for the run",
            vec![
                json!({"mood": "slow", "numbers": [2]}),
                json!({"mood": "slow", "numbers": [4]}),
                json!({"mood": "slow", "numbers": [6]}),
            ],
        ),
    ] {
        let (said, asked) = ask(steps).await;
        assert_eq!(said, expected, "{name}");
        assert_eq!(asked, questions, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_can_not_fit_is_found_while_planning() {
    let misfit = |place: &str, given: &str| {
        format!(
            "toys.yaml:{place}: step `judge2`: spec.data: {given}, this port takes `text/*`, `application/json`
  hint: put a step between the two that makes the one of the other"
        )
    };
    let gives = "`judge1.output.data` gives `application/x-tar`";
    for (data, expected) in [
        ("judge1.output.data", misfit("5:49", gives)),
        // Spelled otherwise, and handed on.
        ("judge1.data", misfit("5:49", gives)),
        ("judge1.outputs.data", misfit("5:49", gives)),
        ("sink1.spec.data", misfit("5:49", gives)),
        // Not known, or perhaps.
        ("source1.output.data", String::new()),
        (
            "environment.odd == 3 ? judge1.output.data : source1.output.data",
            String::new(),
        ),
    ] {
        let (said, _) = ask(&format!(
            "
- {{id: source1, type: toy.source/v1, spec: {{seed: 1, size: 1}}}}
- {{id: judge1, type: toy.judge/v1, spec: {{data: '${{source1.output.data}}'}}}}
- {{id: judge2, type: toy.judge/v1, spec: {{data: '${{{data}}}'}}}}
- {{id: sink1, type: toy.sink/v1, spec: {{name: a, data: '${{judge1.output.data}}'}}}}
"
        ))
        .await;
        assert_eq!(said, expected, "{data}");
    }
}
