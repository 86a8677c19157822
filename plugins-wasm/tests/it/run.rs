//! The steps of `basics` in plans: every part of the contract, and what the engine makes of it.

use ocm_plugins_wasm::Allowed;
use serde_json::json;

use crate::guests::{
    asked, host, host_with, patient, plan, plugin, prebuilt, quick, run, types, vector,
};
use crate::languages::basics;

const ROT13: &str = "Uryyb, Jbeyq\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_of_handing_on_gives_the_right_bytes() {
    let host = patient();
    for basics in basics(&host).await {
        let ran = run(
        &types(&[&basics]),
        r#"
- {id: give1, type: Give/v1, spec: {times: 100000, chunk: 10007, stated: true}}
- {id: same1, type: Identity/v1alpha1, spec: {data: "${give1.output.data}", way: same}}
- {id: splice1, type: Identity/v1alpha1, spec: {data: "${same1.output.data}", way: splice}}
- {id: copy1, type: Identity/v1alpha1, spec: {data: "${splice1.output.data}"}}
- {id: rot1, type: Rot13/v1alpha1, spec: {data: "${copy1.output.data}"}}
- {id: rot2, type: Rot13/v1alpha1, spec: {data: "${rot1.output.data}"}}
- {id: count1, type: Count/v1alpha1, spec: {data: "${rot2.output.data}"}}
- {id: split1, type: Split/v1alpha1, spec: {data: "${count1.output.data}", at: "${count1.output.lines}"}}
- {id: take1, type: Take/v1, spec: {data: "${count1.output.data}"}}
- {id: take2, type: Take/v1, spec: {data: "${rot1.output.data}"}}
- {id: take3, type: Take/v1, spec: {data: "${split1.output.head}"}}
- {id: take4, type: Take/v1, spec: {data: "${split1.output.tail}"}}
"#,
    )
    .await;
        assert_eq!(ran.failures(), [] as [&str; 0]);
        let piece = "Hello, World\n".repeat(1 << 16);
        let all = piece.repeat(2);
        assert_eq!(ran.output("count1")["bytes"], json!(all.len()));
        assert_eq!(ran.output("count1")["lines"], json!(2 << 16));
        let digest = ocm_specs::Digest::sha256(all.as_bytes()).to_string();
        assert_eq!(ran.output("take1")["digest"], json!(digest));
        assert_eq!(ran.output("take1")["mediaType"], json!("text/plain"));
        assert!(
            ran.output("take2")["head"]
                .as_str()
                .expect("a text")
                .starts_with(ROT13)
        );
        assert_eq!(ran.output("take3")["bytes"], json!(2 << 16));
        assert_eq!(ran.output("take4")["bytes"], json!(all.len() - (2 << 16)));
        drop(ran);
        assert_eq!((host.usage().instances(), host.usage().memory()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_costs_no_temporary_bytes() {
    let host = host();
    let basics = plugin(&host, prebuilt("basics.wasm"))
        .await
        .expect("a plugin");
    for once in [false, true] {
        let ran = run(
            &types(&[&basics]),
            &format!(
                r#"
- {{id: give1, type: Give/v1, spec: {{times: 6000000, once: {once}}}}}
- {{id: rot1, type: Rot13/v1alpha1, spec: {{data: "${{give1.output.data}}"}}}}
- {{id: rot2, type: Rot13/v1alpha1, spec: {{data: "${{rot1.output.data}}"}}}}
- {{id: take1, type: Take/v1, spec: {{data: "${{rot2.output.data}}"}}}}
"#
            ),
        )
        .await;
        assert_eq!(ran.failures(), [] as [&str; 0]);
        assert_eq!(ran.limits.spool().peak(), 0, "once: {once}");
        assert_eq!(ran.limits.window().peak(), 0, "once: {once}");
        assert!(ran.output("take1")["bytes"].as_u64().expect("a number") > 70_000_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_are_read_again_and_from_the_middle() {
    let host = patient();
    for basics in basics(&host).await {
        let ran = run(
            &types(&[&basics]),
            r#"
- {id: give1, type: Give/v1, spec: {times: 300000}}
- {id: rot1, type: Rot13/v1alpha1, spec: {data: "${give1.output.data}"}}
- {id: take1, type: Take/v1, spec: {data: "${rot1.output.data}", times: 2}}
- {id: give2, type: Give/v1, spec: {times: 300000}}
- {id: rot2, type: Rot13/v1alpha1, spec: {data: "${give2.output.data}"}}
- {id: take2, type: Take/v1, spec: {data: "${rot2.output.data}", from: 1300007}}
- {id: give3, type: Give/v1, spec: {times: 300000, once: true}}
- {id: rot3, type: Rot13/v1alpha1, spec: {data: "${give3.output.data}"}}
- {id: take3, type: Take/v1, spec: {data: "${rot3.output.data}", times: 2}}
- {id: give4, type: Give/v1, spec: {times: 300000}}
- {id: rot4, type: Rot13/v1alpha1, spec: {data: "${give4.output.data}"}}
- {id: take4, type: Take/v1, spec: {data: "${rot4.output.data}", leavesAt: 5000}}
"#,
        )
        .await;
        assert_eq!(
            ran.failures(),
            ["take3: consumed: the output `data` of step `rot3` can be read only once"]
        );
        assert!(
            ran.output("take2")["head"]
                .as_str()
                .expect("a text")
                .starts_with("Jbeyq")
        );
        assert!(ran.output("take4")["bytes"].as_u64().expect("a number") >= 5000);
        drop(ran);
        // Whoever left took the guest with him.
        for _ in 0..100 {
            if host.usage().instances() == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(host.usage().instances(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_breaks_is_its_own_fault() {
    let host = patient();
    for basics in basics(&host).await {
        for (kind, spec) in [
            ("Rot13", ""),
            ("Identity", ", way: splice"),
            ("Identity", ""),
        ] {
            let ran = run(
                &types(&[&basics]),
                &format!(
                    r#"
- {{id: give1, type: Give/v1, spec: {{times: 100000, breaksAt: 700000}}}}
- {{id: step1, type: {kind}/v1alpha1, spec: {{data: "${{give1.output.data}}"{spec}}}}}
- {{id: take1, type: Take/v1, spec: {{data: "${{step1.output.data}}"}}}}
"#
                ),
            )
            .await;
            let failures = ran.failures();
            let [failure] = failures.as_slice() else {
                panic!("{kind}{spec}: {failures:?}")
            };
            assert!(
                failure.starts_with("take1: unavailable: after "),
                "{kind}{spec}: {failure}"
            );
            assert!(
                failure.ends_with("the source broke"),
                "{kind}{spec}: {failure}"
            );
            let error = &ran.result.failures[0].1.error;
            assert_eq!(error.origin(), Some("give1"), "{kind}{spec}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_found_where_they_are() {
    let host = patient();
    for basics in basics(&host).await {
        let types = types(&[&basics]);
        let refused = |steps: &str, expected: &str| {
            let got = plan(&types, steps).err().unwrap_or_default();
            assert!(got.contains(expected), "{got}");
        };
        refused(
            "- {id: split1, type: Split/v1alpha1, spec: {at: many, data: '${give1.output.data}'}}\n- {id: give1, type: Give/v1, spec: {}}",
            "spec.yaml:2:49: step `split1`: spec.at: expected integer, found string",
        );
        refused(
            "- {id: split1, type: Split/v1alpha1, spec: {at: 1, data: '${split2.output.bytes}'}}\n- {id: split2, type: Split/v1alpha1, spec: {at: 1}}",
            "bytes",
        );
        refused(
            "- {id: split1, type: Split/v1alpha1, spec: {at: 1}}",
            "data",
        );
        refused(
            "- {id: split1, type: Splti/v1alpha1, spec: {at: 1}}",
            "did you mean `Split/v1alpha1`?",
        );
        let ran = run(
        &types,
        r#"
- {id: give1, type: Give/v1, spec: {}}
- {id: count1, type: Count/v1alpha1, spec: {data: "${give1.output.data}"}}
- {id: split1, type: Split/v1alpha1, spec: {data: "${give1.output.data}", at: "${count1.output.bytes - 13}"}}
- {id: split2, type: Split/v1alpha1, spec: {data: "${give1.output.data}", at: 14}}
- {id: take2, type: Take/v1, spec: {data: "${split2.output.head}"}}
"#,
    )
    .await;
        let mut failures = ran.failures();
        failures.sort();
        assert_eq!(
            failures,
            [
                "split1: invalid: spec.at: the first part would be empty",
                "take2: invalid: after 0 bytes: there are only 13 bytes (port `data`, byte 13)",
            ]
        );
        let mut failures = ran.result.failures.iter();
        assert!(failures.any(|(_, error)| error.error.hint() == Some("write 1 or more")));
    }
}

/// A guest that was built against the first version of the contract, in another place and with another kit, goes on
/// working.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_of_the_first_version_goes_on_working() {
    let Some(bytes) = vector("identity.wasm") else {
        return;
    };
    let pinned = "sha256:357bf00f45f28685b1213aeb3b4c81fcb1d2e63671488adcf1811e8acea363f8"
        .parse()
        .expect("a digest");
    let host = host();
    let inspected = host.inspect(bytes, Some(&pinned)).await.expect("a plugin");
    assert_eq!(inspected.description.name, "identity");
    let granted = ocm_plugins_wasm::Granted::new("identity", &[], None, &Allowed::default())
        .expect("nothing is asked");
    let identity =
        ocm_plugins_wasm::Plugin::new(&host, inspected, granted, None).expect("a plugin");
    let ran = run(
        &types(&[&identity]),
        r#"
- {id: give1, type: Give/v1, spec: {times: 100000, chunk: 7001}}
- {id: copy1, type: Identity/v1alpha1, spec: {data: "${give1.output.data}", mode: splice}}
- {id: scrub1, type: Scrub/v1alpha1, spec: {data: "${copy1.output.data}", literal: World}}
- {id: count1, type: Count/v1alpha1, spec: {data: "${scrub1.output.data}"}}
- {id: take1, type: Take/v1, spec: {data: "${count1.output.data}"}}
- {id: scrub2, type: Scrub/v1alpha1, spec: {data: "${give1.output.data}", literal: "w\u00f6rld"}}
"#,
    )
    .await;
    assert_eq!(
        ran.failures(),
        ["scrub2: invalid: spec.literal: literal must be ASCII text"]
    );
    let expected = "Hello, *****\n".repeat(2 << 16);
    assert_eq!(
        ran.output("take1")["digest"],
        json!(ocm_specs::Digest::sha256(expected.as_bytes()).to_string())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_and_a_slow_source_are_no_stall() {
    let host = host_with(|config| quick(&mut config.limits, 50));
    let basics = plugin(&host, prebuilt("basics.wasm"))
        .await
        .expect("a plugin");
    let types = types(&[&basics]);
    let plan = plan(
        &types,
        r#"
- {id: give1, type: Give/v1, spec: {times: 200000}}
- {id: rot1, type: Rot13/v1alpha1, spec: {data: "${give1.output.data}"}}
"#,
    )
    .expect("a plan");
    let cx = ocm_engine::StepContext::alone(
        ocm_engine::Context::new(crate::guests::limits(), std::sync::Arc::new(())),
        "rot1",
    );
    drop(plan);
    let blob = ocm_content::Blob::from_bytes("text/plain", vec![b'a'; 2 << 20]);
    let input = cx.sibling("give1").offer("data", blob);
    let step_type = types.get("Rot13/v1alpha1").expect("there");
    let outcome = step_type
        .run(cx.clone(), json!({"data": input}))
        .await
        .expect("runs");
    let reference = serde_json::from_value(outcome.output["data"].clone()).expect("content");
    let ocm_content::Content::Blob(blob) = cx.content(&reference).await.expect("there") else {
        panic!("bytes");
    };
    let mut stream = blob.open().await.expect("opens");
    let mut bytes = 0;
    while let Some(chunk) = futures::StreamExt::next(&mut stream).await {
        bytes += chunk.expect("no stall").len();
        if bytes < 1 << 20 {
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
    }
    assert_eq!(bytes, 2 << 20);
}

/// What a plugin says against inputs that are known is told before anything runs, with all else that is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_are_judged_while_planning() {
    let host = host();
    let basics = plugin(&host, prebuilt("basics.wasm"))
        .await
        .expect("a plugin");
    let hostile = plugin(&host, prebuilt("hostile.wasm"))
        .await
        .expect("its description is well");
    let types = types(&[&basics, &hostile]);
    for (steps, expected) in [
        (
            "- {id: split1, type: Split/v1alpha1, spec: {data: '${give1.output.data}', at: 0}}",
            "spec.yaml:3:79: step `split1`: spec.at: the first part would be empty\n  hint: write 1 or more",
        ),
        (
            "- {id: split1, type: Split/v1alpha1, spec: {data: '${give1.output.data}', at: '${environment.none}'}}\n- {id: split2, type: Split/v1alpha1, spec: {data: '${give1.output.dta}', at: 0}}",
            "spec.yaml:3:94: step `split1`: spec.at: `environment` has no field `none`\nspec.yaml:4:67: step `split2`: spec.data: `give1.output` has no field `dta`\n  hint: did you mean `data`?\nspec.yaml:4:78: step `split2`: spec.at: the first part would be empty",
        ),
        (
            "- {id: split1, type: Split/v1alpha1, spec: {data: '${give1.output.data}', at: '${give1.spec.times - 1}'}}",
            "",
        ),
        (
            "- {id: bad1, type: HostileFirst/v1, spec: {}}",
            "spec.yaml:3:20: step `bad1`: plugin `hostile-plugin` took longer than 2 s to answer\n  hint: this is a fault of the plugin, not of ocm: tell its author",
        ),
        (
            "- {id: other1, type: OtherType/v1, spec: {data: '${give1.output.data}'}}\n- {id: split1, type: Split/v1alpha1, spec: {data: '${other1.output.data}', at: 1}}\n- {id: other2, type: OtherType/v1, spec: {data: '${other1.output.data}'}}",
            "",
        ),
    ] {
        let got = asked(
            &types,
            &format!("- {{id: give1, type: Give/v1, spec: {{}}}}\n{steps}"),
        )
        .await;
        let got = got.err().unwrap_or_default();
        assert!(
            got.starts_with(expected) && got.is_empty() == expected.is_empty(),
            "{steps}: {got}"
        );
    }
    assert_eq!((host.usage().instances(), host.usage().memory()), (0, 0));
}
