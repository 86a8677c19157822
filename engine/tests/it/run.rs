//! Single runs: what happens, in which order, and what is left.

use ocm_content::Limits;
use ocm_content::limits::LimitsConfig;
use ocm_engine::{Context, Event, OnError, RunOptions, Status};

use crate::toys::{Seen, options, plan, run};

async fn check(text: &str, options: RunOptions, status: Status, expected: &str) -> Seen {
    let seen = run(text, Limits::new(LimitsConfig::default()), options).await;
    let lines: Vec<String> = seen.events.iter().map(render).collect();
    assert_eq!(
        lines.join("\n"),
        expected.trim(),
        "{:?}",
        seen.result.failures
    );
    assert_eq!(seen.result.status, status);
    seen
}

fn render(event: &Event) -> String {
    match event {
        Event::Started { step } => format!("started {step}"),
        Event::Bytes { step, done, .. } => format!("bytes {step} {done}"),
        Event::Warning { step, message } => format!("warning {step} {message}"),
        Event::Prepared { step } => format!("prepared {step}"),
        Event::Finished { step, .. } => format!("finished {step}"),
        Event::Failed { step, error, .. } => format!("failed {step}: {error}"),
        Event::Skipped {
            step,
            because: Some(because),
        } => format!("skipped {step} because of {because}"),
        Event::Skipped {
            step,
            because: None,
        } => format!("skipped {step}"),
    }
}

const CHAIN: &str = "
transformations:
- {id: sink1, type: toy.sink/v1, spec: {name: one, host: b, data: '${plus1.output.data}'}}
- {id: plus1, type: toy.convert/v1, spec: {data: '${source1.output.data}'}}
- {id: source1, type: toy.source/v1, spec: {seed: 1, size: 1000, host: a}}
";

#[tokio::test(start_paused = true)]
async fn a_chain_hands_on_handles_and_the_sink_pulls() {
    check(
        CHAIN,
        options(4, OnError::Stop),
        Status::Succeeded,
        "
started source1
prepared source1
finished source1
started plus1
prepared plus1
finished plus1
started sink1
prepared sink1
finished sink1
",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_stream_names_the_step_it_arose_in() {
    let text = CHAIN.replace("host: a", "host: a, failAt: 500");
    let seen = check(
        &text,
        options(4, OnError::Stop),
        Status::Failed,
        "
started source1
prepared source1
finished source1
started plus1
prepared plus1
finished plus1
started sink1
failed sink1: the source broke
",
    )
    .await;
    assert_eq!(seen.result.failures[0].1.error.origin(), Some("source1"));
    assert!(seen.world.published.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_that_steps_error() {
    let text = CHAIN.replace("name: one", "name: one, panic: true");
    let seen = run(
        &text,
        Limits::new(LimitsConfig::default()),
        options(4, OnError::Stop),
    )
    .await;
    assert!(
        seen.result.failures[0]
            .1
            .to_string()
            .contains("a toy that panics"),
        "{:?}",
        seen.result.failures
    );
}

const TWO_PRODUCTS: &str = "
transformations:
- {id: a1, type: toy.source/v1, spec: {seed: 1, size: 300}}
- {id: a2, type: toy.sink/v1, spec: {name: a, root: true, fail: true, data: '${a1.output.data}'}}
- {id: a3, type: toy.value/v1, spec: {value: '${a2.output.digest}'}}
- {id: b1, type: toy.source/v1, spec: {seed: 2, size: 900}}
- {id: b2, type: toy.sink/v1, spec: {name: b, root: true, data: '${b1.output.data}'}}
";

#[tokio::test(start_paused = true)]
async fn after_a_failure_nothing_that_waits_is_published() {
    let seen = run(
        TWO_PRODUCTS,
        Limits::new(LimitsConfig::default()),
        options(4, OnError::Stop),
    )
    .await;
    assert_eq!(seen.result.status, Status::Failed);
    assert!(seen.world.published.lock().unwrap().is_empty());
    assert_eq!(
        seen.result
            .skipped
            .iter()
            .map(|id| &**id)
            .collect::<Vec<_>>(),
        ["a3", "b2"]
    );
}

#[tokio::test(start_paused = true)]
async fn continuing_publishes_what_is_complete_in_itself() {
    let seen = run(
        TWO_PRODUCTS,
        Limits::new(LimitsConfig::default()),
        options(4, OnError::Continue),
    )
    .await;
    assert_eq!(seen.result.status, Status::Partial);
    assert_eq!(*seen.world.published.lock().unwrap(), ["b"]);
    assert_eq!(
        seen.result
            .skipped
            .iter()
            .map(|id| &**id)
            .collect::<Vec<_>>(),
        ["a3"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_root_is_not_published_without_those_it_refers_to() {
    // The child fails before it has prepared; no edge leads from it to its parents.
    let text = "
transformations:
- {id: s, type: toy.source/v1, spec: {seed: 1, size: 64}}
- {id: p, type: toy.sink/v1, spec: {name: parent, root: true, refersTo: [child], data: '${s.output.data}'}}
- {id: c, type: toy.sink/v1, spec: {name: child, root: true, fail: true, data: '${s.output.data}'}}
- {id: g, type: toy.sink/v1, spec: {name: grandparent, root: true, refersTo: [parent], data: '${s.output.data}'}}
- {id: o, type: toy.sink/v1, spec: {name: other, root: true, refersTo: [elsewhere], data: '${s.output.data}'}}
";
    for concurrency in [1, 8] {
        let seen = run(
            text,
            Limits::new(LimitsConfig::default()),
            options(concurrency, OnError::Continue),
        )
        .await;
        assert_eq!(seen.result.status, Status::Partial);
        assert_eq!(*seen.world.published.lock().unwrap(), ["other"]);
        let failed: Vec<_> = seen.result.failures.iter().map(|(id, _)| &**id).collect();
        assert_eq!(failed, ["c", "p", "g"]);
    }
}

#[tokio::test(start_paused = true)]
async fn roots_are_published_after_those_they_refer_to() {
    // No edge says so: `parent` stands first and is prepared first.
    let text = "
transformations:
- {id: s, type: toy.source/v1, spec: {seed: 1, size: 64}}
- {id: p, type: toy.sink/v1, spec: {name: parent, root: true, refersTo: [child, elsewhere], data: '${s.output.data}'}}
- {id: t, type: toy.source/v1, spec: {seed: 1, size: 6400}}
- {id: c, type: toy.sink/v1, spec: {name: child, root: true, refersTo: [grandchild], data: '${t.output.data}'}}
- {id: g, type: toy.sink/v1, spec: {name: grandchild, root: true, data: '${t.output.data}'}}
";
    let seen = run(
        text,
        Limits::new(LimitsConfig::default()),
        options(8, OnError::Stop),
    )
    .await;
    assert_eq!(
        *seen.world.published.lock().unwrap(),
        ["grandchild", "child", "parent"]
    );
    // A circle of names has no right order; it must still end.
    let text = text.replace("refersTo: [grandchild]", "refersTo: [grandchild, parent]");
    let seen = run(
        &text,
        Limits::new(LimitsConfig::default()),
        options(8, OnError::Stop),
    )
    .await;
    assert_eq!(seen.result.status, Status::Succeeded);
    assert_eq!(seen.world.published.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn depends_on_waits_for_what_is_published() {
    let text = "
transformations:
- {id: s, type: toy.source/v1, spec: {seed: 1, size: 64}}
- {id: first, type: toy.sink/v1, spec: {name: first, root: true, data: '${s.output.data}'}}
- {id: second, type: toy.value/v1, dependsOn: [first], spec: {value: 1}}
";
    check(
        text,
        options(8, OnError::Stop),
        Status::Succeeded,
        "
started s
prepared s
finished s
started first
prepared first
finished first
started second
prepared second
finished second
",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_drops_what_is_in_flight() {
    let world = std::sync::Arc::new(crate::toys::World::default());
    let text = CHAIN.replace("size: 1000", "size: 100000000");
    let plan = crate::toys::plan(&text, &world).unwrap();
    let context = ocm_engine::Context::new(
        Limits::new(LimitsConfig::default()),
        std::sync::Arc::new(()),
    );
    let cancel = context.cancel.clone();
    let started = tokio::time::Instant::now();
    let (result, ()) = tokio::join!(plan.run(context, Box::new(|_| {})), async {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        cancel.cancel();
    });
    assert_eq!(result.status, Status::Cancelled);
    assert!(started.elapsed() < std::time::Duration::from_secs(6));
    assert_eq!(
        world.dropped.load(std::sync::atomic::Ordering::SeqCst),
        1,
        "the sink's future is dropped"
    );
    assert_eq!(
        result.skipped.iter().map(|id| &**id).collect::<Vec<_>>(),
        ["sink1"]
    );
}

#[tokio::test(start_paused = true)]
async fn concurrency_bounds_the_steps_at_work() {
    let mut text =
        "transformations:\n- {id: s, type: toy.source/v1, spec: {seed: 1, size: 640}}\n".to_owned();
    for index in 0..20 {
        let sink = format!(
            "- {{id: k{index}, type: toy.sink/v1, spec: {{name: k{index}, data: '${{s.output.data}}'}}}}\n"
        );
        text.push_str(&sink);
    }
    for concurrency in [1, 3, 16] {
        let seen = run(
            &text,
            Limits::new(LimitsConfig::default()),
            options(concurrency, OnError::Stop),
        )
        .await;
        let most = seen
            .world
            .most_at_work
            .load(std::sync::atomic::Ordering::SeqCst);
        assert!(
            most <= concurrency && (concurrency == 1 || most > 1),
            "{most} of {concurrency}"
        );
    }
}

#[tokio::test]
async fn steps_that_end_at_once_do_not_keep_a_cancel_from_being_heard() {
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};
    let mut text = String::from("transformations:\n");
    for index in 0..1_000 {
        let _ = writeln!(
            text,
            "- {{id: v{index}, type: toy.value/v1, spec: {{value: 1}}}}"
        );
    }
    let plan = plan(&text, &Arc::default()).unwrap();
    let context = Context::new(Limits::new(LimitsConfig::default()), Arc::new(()));
    let (cancel, finished) = (context.cancel.clone(), Arc::new(Mutex::new(0)));
    let counter = finished.clone();
    let observer = move |event| {
        if matches!(event, Event::Finished { .. }) {
            *counter.lock().unwrap() += 1;
            cancel.cancel();
        }
    };
    let result = plan.run(context, Box::new(observer)).await;
    assert_eq!(result.status, Status::Cancelled);
    let finished = *finished.lock().unwrap();
    assert!((1..500).contains(&finished), "{finished} of 1000");
    assert_eq!(result.skipped.len(), 1_000 - finished);
}
