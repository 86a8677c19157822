//! Guests that mean ill, and guests that are broken: each is told by name, and nobody else is hurt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocm_plugins_wasm::Host;
use serde_json::json;

use crate::guests::{Ran, host_with, plan, plugin, prebuilt, quick, run, types};

/// A host with little patience and little memory.
fn strict() -> Arc<Host> {
    host_with(|config| {
        quick(&mut config.limits, 800);
        config.limits.memory = 8 << 20;
        config.limits.ask_memory = 4 << 20;
        config.limits.opens = 1000;
    })
}

/// Runs a misdeed beside an honest step.
async fn misdeed(host: &Arc<Host>, kind: &str, give: &str) -> Ran {
    let hostile = plugin(host, prebuilt("hostile.wasm"))
        .await
        .expect("its description is well");
    let basics = plugin(host, prebuilt("basics.wasm"))
        .await
        .expect("a plugin");
    run(
        &types(&[&hostile, &basics]),
        &format!(
            r#"
- {{id: give1, type: Give/v1, spec: {{times: 1000, {give}}}}}
- {{id: bad1, type: {kind}/v1, spec: {{data: "${{give1.output.data}}"}}}}
- {{id: take1, type: Take/v1, spec: {{data: "${{bad1.output.data}}"}}}}
- {{id: give2, type: Give/v1, spec: {{times: 1000}}}}
- {{id: good1, type: Rot13/v1alpha1, spec: {{data: "${{give2.output.data}}"}}}}
- {{id: good2, type: Take/v1, spec: {{data: "${{good1.output.data}}"}}}}
"#
        ),
    )
    .await
}

/// Nothing of the guests is left. Who was dropped is gone at the next yield.
async fn nothing_is_left(host: &Arc<Host>, kind: &str) {
    for _ in 0..200 {
        if host.usage().instances() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        (host.usage().instances(), host.usage().memory()),
        (0, 0),
        "{kind}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misdeeds_are_the_steps_own_errors() {
    let host = strict();
    let mut wrong = Vec::new();
    for (kind, expected) in [
        // While it decides.
        (
            "Loop",
            "bad1: limit: plugin `hostile-plugin` stalled: no byte moved in 0.8 s, and it was not waiting for any",
        ),
        (
            "HostileFirst",
            "bad1: limit: plugin `hostile-plugin` took longer than 2 s to answer",
        ),
        (
            "Memory",
            "bad1: limit: plugin `hostile-plugin` exceeded the memory limit of 8 MiB",
        ),
        ("Panic", "bad1: internal: plugin `hostile-plugin` crashed: "),
        (
            "Recurse",
            "bad1: internal: plugin `hostile-plugin` crashed: out-of-bounds memory access (often a stack overflow)",
        ),
        (
            "Handles",
            "bad1: limit: plugin `hostile-plugin` exceeded the limit of 256 handles",
        ),
        (
            "Streams",
            "bad1: limit: plugin `hostile-plugin` broke the contract: it held more than 64 open streams at once",
        ),
        (
            "Opens",
            "bad1: limit: plugin `hostile-plugin` broke the contract: it opened more than 1000 streams in one call",
        ),
        (
            "MemoryAtOnce",
            "bad1: limit: plugin `hostile-plugin` exceeded the memory limit of 8 MiB",
        ),
        // Calls that move nothing.
        (
            "ReadsNothing",
            "bad1: limit: plugin `hostile-plugin` stalled",
        ),
        (
            "ReadsClosed",
            "bad1: limit: plugin `hostile-plugin` stalled",
        ),
        (
            "TellsTheSame",
            "bad1: limit: plugin `hostile-plugin` stalled",
        ),
        ("Huge", "bad1: limit: plugin `hostile-plugin` exceeded the "),
        (
            "NotJson",
            "bad1: internal: plugin `hostile-plugin` gave an output that is not JSON: ",
        ),
        (
            "NotFitting",
            "bad1: internal: plugin `hostile-plugin` gave an output that does not fit its own schema at `number`: ",
        ),
        (
            "NotAnObject",
            "bad1: internal: plugin `hostile-plugin` gave an output that does not fit its own schema at `the whole`: ",
        ),
        ("Calls", "bad1: limit: plugin `hostile-plugin` stalled"),
        (
            "Exit",
            "bad1: internal: plugin `hostile-plugin` called exit",
        ),
        ("Sleep", "bad1: limit: plugin `hostile-plugin` stalled"),
        (
            "OtherPort",
            "bad1: internal: plugin `hostile-plugin` gave content on `secret`, which is no output of `OtherPort/v1`",
        ),
        (
            "Twice",
            "bad1: internal: plugin `hostile-plugin` gave content on `data` twice",
        ),
        (
            "SameAsNothing",
            "bad1: internal: plugin `hostile-plugin` gave `data` as the same as `give1/data`, which is no input it has",
        ),
        (
            "NoDigest",
            "bad1: internal: plugin `hostile-plugin` states the digest `sha256:zz` for `data`, which is none",
        ),
        (
            "BigState",
            "bad1: internal: plugin `hostile-plugin` keeps 100000 bytes for `data`, at most 65536 are kept",
        ),
        (
            "OpenSink",
            "bad1: internal: plugin `hostile-plugin` the sink of a stored content was still open when `run` returned",
        ),
        (
            "Missing",
            "bad1: internal: plugin `hostile-plugin` gave no content on `data`",
        ),
        (
            "BlockOnNothing",
            "bad1: internal: plugin `hostile-plugin` broke the contract: ",
        ),
        (
            "OtherType",
            "bad1: internal: plugin `hostile-plugin` gave `data` as `text/html`, which it does not say it gives",
        ),
        // While it makes bytes.
        (
            "Overrun",
            "take1: internal: after 0 bytes: plugin `hostile-plugin` broke the contract: it wrote more bytes than `check-write` allowed",
        ),
        (
            "BigBlocking",
            "take1: internal: after 0 bytes: plugin `hostile-plugin` broke the contract: Buffer too large",
        ),
        (
            "Half",
            "take1: internal: after 4096 bytes: plugin `hostile-plugin` crashed: ",
        ),
        ("HalfErr", "take1: invalid: after 4096 bytes: a bad rule"),
        (
            "Zeroes",
            "take1: internal: after 0 bytes: plugin `hostile-plugin` broke the contract: cannot write more zeroes",
        ),
        (
            "TooLong",
            "take1: mismatch: after 0 bytes: content is longer than the 10 bytes announced",
        ),
        (
            "TooShort",
            "take1: mismatch: after 20 bytes: content ended after 20 of 30 bytes",
        ),
        (
            "WrongDigest",
            "take1: mismatch: after 20 bytes: content has digest ",
        ),
        (
            "WritesNothing",
            "take1: limit: after 0 bytes: plugin `hostile-plugin` stalled",
        ),
        (
            "NeverEnds",
            "take1: limit: after 10 bytes: plugin `hostile-plugin` stalled",
        ),
    ] {
        let ran = misdeed(&host, kind, "").await;
        let failures = ran.failures();
        let told = failures.iter().any(|failure| failure.starts_with(expected));
        if failures.len() != 1 || !told {
            wrong.push(format!("{kind}: {failures:#?}, expected {expected}"));
        }
        let error = &ran.result.failures[0].1.error;
        if error.kind() == ocm_content::ErrorKind::Internal
            && error.hint() != Some("this is a fault of the plugin, not of ocm: tell its author")
        {
            wrong.push(format!("{kind}: hint {:?}", error.hint()));
        }
        assert!(
            ran.output("good2")["bytes"].as_u64() == Some(13_000),
            "{kind}: others are not hurt"
        );
        assert_eq!(ran.limits.spool().used(), 0, "{kind}");
        drop(ran);
        nothing_is_left(&host, kind).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_looks_bad_is_let_through() {
    let host = strict();
    // A sink that is never closed.
    let ran = misdeed(&host, "ForgetsSink", "").await;
    assert_eq!(ran.failures(), [] as [&str; 0]);
    assert_eq!(ran.output("take1")["bytes"], json!(20));
    // A flood of lines is cut, and what they say can't reach the terminal as it is.
    let patient = host_with(|config| quick(&mut config.limits, 60_000));
    let ran = misdeed(&patient, "Log", "").await;
    assert_eq!(ran.failures(), [] as [&str; 0]);
    assert_eq!(ran.warnings.len(), 501, "{:?}", ran.warnings.last());
    assert!(
        ran.warnings[0].ends_with(": \u{20}[31mred alert"),
        "{:?}",
        ran.warnings[0]
    );
    assert!(ran.warnings[500].ends_with("more than 1000 log lines: further ones are dropped"));
    let ran = misdeed(&host, "Terminal", "").await;
    let failures = ran.failures();
    assert!(
        failures[0].len() < 4096 && !failures[0].chars().any(char::is_control),
        "{failures:?}"
    );
    assert!(
        ran.result.failures[0]
            .1
            .error
            .hint()
            .is_some_and(|hint| hint.len() < 4096)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_sees_nothing_and_the_same_nothing_each_time() {
    let host = strict();
    let first = misdeed(&host, "Look", "").await.failures();
    assert!(
        first[0].starts_with("bad1: invalid: file true write true env 0 args 0 tcp true udp true time 315532800 seed "),
        "{first:?}"
    );
    assert_eq!(first, misdeed(&host, "Look", "").await.failures());
    let other = misdeed(&host, "Look", "text: other").await.failures();
    assert_eq!(first.len(), other.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_output_stops_with_its_reader() {
    let host = strict();
    let hostile = plugin(&host, prebuilt("hostile.wasm"))
        .await
        .expect("its description is well");
    let ran = run(
        &types(&[&hostile]),
        r#"
- {id: give1, type: Give/v1, spec: {}}
- {id: bad1, type: Bomb/v1, spec: {data: "${give1.output.data}"}}
- {id: take1, type: Take/v1, spec: {data: "${bad1.output.data}", leavesAt: 50000000}}
"#,
    )
    .await;
    assert_eq!(ran.failures(), [] as [&str; 0]);
    assert_eq!(ran.limits.spool().peak(), 0);
    nothing_is_left(&host, "Bomb").await;
    // Who would read for ever is stopped by the cap.
    let capped = host_with(|config| config.limits.output = 10_000_000);
    let ran = misdeed(&capped, "Bomb", "").await;
    assert!(
        ran.failures()[0].contains("it wrote more than 10000000 bytes to one output"),
        "{:?}",
        ran.failures()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_moves_does_not_buy_it_all_time() {
    let host = host_with(|config| {
        quick(&mut config.limits, 60_000);
        config.limits.time = Duration::from_millis(800);
    });
    for (kind, expected) in [
        (
            "Loop",
            "bad1: limit: plugin `hostile-plugin` took more than 0.8 s for one call, without the time that it waited for bytes",
        ),
        (
            "TellsTheSame",
            "bad1: limit: plugin `hostile-plugin` took more than 0.8 s",
        ),
        (
            "WritesNothing",
            "take1: limit: after 0 bytes: plugin `hostile-plugin` took more than 0.8 s",
        ),
    ] {
        let ran = misdeed(&host, kind, "").await;
        assert!(
            ran.failures()[0].starts_with(expected),
            "{:?}",
            ran.failures()
        );
        let hint = ran.result.failures[0].1.error.hint();
        assert_eq!(
            hint,
            Some("if its work takes that long, raise --plugin-timeout")
        );
        drop(ran);
        nothing_is_left(&host, kind).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_held_holds_up_nobody() {
    let host = strict();
    let hostile = plugin(&host, prebuilt("hostile.wasm"))
        .await
        .expect("its description is well");
    // More than any window between readers that share one, and to be read once only.
    let ran = run(
        &types(&[&hostile]),
        r#"
- {id: give1, type: Give/v1, spec: {times: 1000000, once: true}}
- {id: bad1, type: HoldsInput/v1, spec: {data: "${give1.output.data}"}}
- {id: take1, type: Take/v1, spec: {data: "${bad1.output.data}"}}
- {id: take2, type: Take/v1, spec: {data: "${give1.output.data}"}}
"#,
    )
    .await;
    assert_eq!(ran.failures(), [] as [&str; 0]);
    assert_eq!(ran.output("take1")["bytes"], json!(20));
    assert_eq!(ran.output("take2")["bytes"], json!(13 * (1 << 16) * 16));
    drop(ran);
    nothing_is_left(&host, "HoldsInput").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_forges_is_no_content() {
    let host = strict();
    let hostile = plugin(&host, prebuilt("hostile.wasm"))
        .await
        .expect("its description is well");
    let types = types(&[&hostile]);
    let steps = |data: &str| {
        format!(
            r#"
- {{id: give1, type: Give/v1, spec: {{}}}}
- {{id: bad1, type: ForgesContent/v1, spec: {{data: "${{give1.output.data}}"}}}}
- {{id: take1, type: Take/v1, spec: {{data: "{data}"}}}}
"#
        )
    };
    let planned = plan(&types, &steps("${bad1.output.forged}"));
    let told = planned.map(drop).expect_err("it is no port");
    assert!(
        told.contains("`bad1.output.forged` is a value that a plugin may have made"),
        "{told}"
    );
    let ran = run(&types, &steps("${[bad1.output].map(it, it.forged)[0]}")).await;
    let failures = ran.failures();
    assert!(
        failures[0].starts_with(
            "take1: denied: a value that a plugin may have made names the content `secret.txt`"
        ),
        "{failures:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swallowed_error_of_the_source_is_still_an_error() {
    let host = strict();
    let ran = misdeed(&host, "Swallows", "breaksAt: 5000, chunk: 1000").await;
    let failures = ran.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(
        failures[0].starts_with("take1: unavailable: "),
        "{failures:?}"
    );
    assert!(failures[0].ends_with("the source broke"), "{failures:?}");
}

/// The component with some of its texts replaced by others of the same length.
fn patched(texts: &[(&str, &str)]) -> Bytes {
    let mut bytes = prebuilt("hostile.wasm").to_vec();
    for (old, new) in texts {
        let new = format!("{new:<width$}", width = old.len());
        assert_eq!(old.len(), new.len(), "{old}");
        replace(&mut bytes, old.as_bytes(), new.as_bytes());
    }
    bytes.into()
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let places: Vec<usize> = (0..bytes.len() - old.len())
        .filter(|at| bytes[*at..].starts_with(old))
        .collect();
    assert!(!places.is_empty(), "{}", String::from_utf8_lossy(old));
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
}

const DESCRIBE: &str = "describe=well....";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptions_are_judged_before_anything_is_believed() {
    let host = strict();
    let mut wrong = Vec::new();
    // What it says of itself is judged in the tests of the description's check.
    for (texts, expected) in [
        (
            [(DESCRIBE, "describe=endless!")],
            "limit: asked for its description: the plugin stalled|took longer",
        ),
        (
            [(DESCRIBE, "describe=memory!!")],
            "limit: asked for its description: the plugin exceeded the memory limit of 4 MiB",
        ),
        (
            [(DESCRIBE, "describe=crash!!!")],
            "internal: asked for its description: the plugin crashed: ",
        ),
        (
            [(DESCRIBE, "describe=sleep!!!")],
            "limit: asked for its description: the plugin stalled|took longer",
        ),
        (
            [("hostile-plugin", "hostile\u{1b}plugin")],
            "invalid: the plugin calls itself `hostile\\u{1b}plugin`",
        ),
        (
            [("OtherPort", "OtherType")],
            "conflict: plugin `hostile-plugin`: it describes the step type `OtherType/v1` twice",
        ),
        (
            [(
                "ocm:transformer/transform@0.1.0",
                "ocm:transformer/transform@0.3.0",
            )],
            "unsupported: it was built for ocm:transformer 0.3.0, this ocm knows 0.1",
        ),
        (
            [("ocm:transformer/host@0.1.0", "ocm:transformer/hose@0.1.0")],
            "invalid: it imports `ocm:transformer/hose@0.1.0`, which is not offered to plugins",
        ),
    ] {
        let bytes = patched(&texts);
        let got = match host.inspect(bytes, None).await {
            Ok(inspected) => format!("fine: {}", inspected.description.name),
            Err(error) => format!("{}: {error}", error.kind().as_str()),
        };
        let (first, rest) = expected
            .split_once('|')
            .map_or((expected, ""), |(first, rest)| (first, rest));
        let is_told = got.starts_with(first) || (!rest.is_empty() && got.contains(rest));
        if !is_told {
            wrong.push(format!("{texts:.80?}: {got}, expected {expected}"));
        }
        nothing_is_left(&host, expected).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_plugin_is_told_so() {
    let host = strict();
    let whole = prebuilt("hostile.wasm");
    let mut not_utf8 = whole.to_vec();
    replace(&mut not_utf8, b"hostile-plugin", b"hostile\xff\xfeplugi");
    let mut flipped = whole.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    for (bytes, expected) in [
        (Bytes::from_static(b""), "invalid: this is not WebAssembly"),
        (
            Bytes::from_static(b"#!/bin/sh\n"),
            "invalid: this is not WebAssembly",
        ),
        (
            Bytes::from_static(b"(component)"),
            "invalid: this is WebAssembly text, not a component",
        ),
        (
            Bytes::from_static(b"\0asm\x01\0\0\0"),
            "invalid: this is a core module, not a component",
        ),
        (
            Bytes::from_static(b"\0asm\x0d\0\x01\0"),
            "invalid: it is no plugin: it does not export `ocm:transformer/transform`",
        ),
        (
            Bytes::from_static(b"\0asm\x09\0\x01\0"),
            "invalid: this is WebAssembly of an unknown version",
        ),
        (
            Bytes::from_static(b"\x7fELF\x02\x01\x01"),
            "invalid: this is native or precompiled code, which is never taken from outside",
        ),
        (
            whole.slice(..whole.len() / 2),
            "invalid: this is not a component that can be run: ",
        ),
        (
            flipped.into(),
            "invalid: this is not a component that can be run: ",
        ),
        (
            not_utf8.into(),
            "internal: asked for its description: the plugin broke the contract: ",
        ),
        (
            vec![0; (64 << 20) + 1].into(),
            "limit: the component has 67108865 bytes",
        ),
        (prebuilt("probe.wasm"), "fine"),
    ] {
        let shown = format!("{:?}", &bytes[..bytes.len().min(12)]);
        let got = match host.inspect(bytes, None).await {
            Ok(_) => "fine".to_owned(),
            Err(error) => format!("{}: {error}", error.kind().as_str()),
        };
        assert!(
            got.starts_with(expected),
            "{shown}: {got}, expected {expected}"
        );
    }
    // Replaced after it was looked at.
    let pinned = ocm_specs::Digest::sha256(&whole);
    let error = host
        .inspect(
            patched(&[("hostile-plugin", "hostile-plugim")]),
            Some(&pinned),
        )
        .await
        .expect_err("another");
    assert_eq!(error.kind(), ocm_content::ErrorKind::Mismatch);
    assert!(
        error
            .hint()
            .expect("a hint")
            .contains("somebody replaced it")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_taken_is_not_given_again() {
    let host = strict();
    let hostile = plugin(&host, prebuilt("hostile.wasm")).await;
    let hostile = hostile.expect("well in itself");
    let mut table = types(&[&hostile]);
    for step_type in hostile.step_types().expect("schemas") {
        let error = table.add(step_type).expect_err("there already");
        assert_eq!(error.kind(), ocm_content::ErrorKind::Conflict);
    }
}
