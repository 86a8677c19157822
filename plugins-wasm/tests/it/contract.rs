//! What the contract promises to guests that were built before.
//!
//! `tests/contract/0.1.0.wasm` was built from `examples/puppet` when the contract had its first version, and is never built
//! again: it calls every function of that version. Should a test here fail, the contract has changed in a way that needs
//! another version (`wit/transformer.wit` says what may change within one).

use std::path::Path;

use bytes::Bytes;
use ocm_specs::Digest;
use serde_json::json;

use crate::guests::{patient, plugin, run, types};

const DIGEST: &str = "sha256:c3fb6cc05df1afed9d2727f6a55036af2df128d9b36a6081e20cde5d95ddde89";

fn first() -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/0.1.0.wasm");
    std::fs::read(path).expect("it is committed").into()
}

/// A program of the guest: operations with their two arguments, as hexadecimal digits.
fn program(steps: &[[u8; 3]]) -> String {
    let bytes = steps.iter().flatten();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_of_0_1_0_is_understood_in_every_word() {
    assert_eq!(Digest::sha256(&first()).to_string(), DIGEST);
    let host = patient();
    let puppet = plugin(&host, first()).await.expect("a plugin");
    // `stored` with a sink, written and flushed; requests that are refused; log, progress, info.
    let decide = program(&[
        [26, 0, 5],
        [27, 0, 0],
        [6, 0, 12],
        [12, 0, 0],
        [6, 0, 12],
        [12, 0, 0],
        [10, 0, 100],
        [11, 0, 0],
        [23, 0, 0],
        [28, 3, 2],
        [29, 0, 0],
        [30, 0, 1],
        [30, 1, 0],
        [6, 0, 1],
        [23, 0, 0],
        [30, 2, 0],
        [25, 0, 2],
        [32, 7, 0],
    ]);
    // Everything that streams can do: read, skip, poll, write, splice.
    let produce = program(&[
        [1, 1, 0],
        [17, 0, 0],
        [19, 0, 0],
        [20, 0, 0],
        [21, 0, 1],
        [24, 0, 0],
        [2, 0, 3],
        [3, 0, 2],
        [4, 0, 0],
        [5, 0, 0],
        [22, 0, 0],
        [1, 1, 0],
        [18, 0, 0],
        [20, 0, 0],
        [24, 0, 0],
        [9, 0, 0],
        [15, 0, 0],
        [33, 40, 0],
        [16, 0, 0],
        [13, 0, 2],
        [12, 0, 0],
        [14, 0, 1],
    ]);
    let stored_and_lazy = "0802000000";
    let steps = format!(
        r#"
- {{id: give1, type: Give/v1, spec: {{times: 1000, chunk: 1001}}}}
- {{id: all1, type: Puppet/v1, spec: {{data: "${{give1.output.data}}", run: "{decide}", end: "{stored_and_lazy}", produce: "{produce}"}}}}
- {{id: take1, type: Take/v1, spec: {{data: "${{all1.output.data}}"}}}}
- {{id: take2, type: Take/v1, spec: {{data: "${{all1.output.other}}"}}}}
- {{id: same1, type: Puppet/v1, spec: {{data: "${{give1.output.data}}", end: "080300"}}}}
- {{id: take3, type: Take/v1, spec: {{data: "${{same1.output.data}}"}}}}
- {{id: error1, type: Puppet/v1, spec: {{data: "${{give1.output.data}}", run: "1f0100"}}}}
- {{id: error2, type: Puppet/v1, spec: {{data: "${{give1.output.data}}", end: "080000", produce: "0600061f0300"}}}}
- {{id: take4, type: Take/v1, spec: {{data: "${{error2.output.data}}"}}}}
"#
    );
    let ran = run(&types(&[&puppet]), &steps).await;
    let mut failures = ran.failures();
    failures.sort();
    assert_eq!(
        failures,
        [
            "error1: invalid: spec.program: as asked (port `data`, byte 1)",
            "take4: unavailable: after 64 bytes: spec.program: as asked (port `data`, byte 1)",
        ]
    );
    assert_eq!(ran.output("all1")["inputs"], json!(1));
    let digest = |bytes: &[u8]| json!(Digest::sha256(bytes).to_string());
    let pattern: Vec<u8> = (0..4096 + 4096 + 2000).map(|at| (at % 251) as u8).collect();
    assert_eq!(ran.output("take1")["digest"], digest(&pattern));
    assert_eq!(ran.output("take1")["mediaType"], json!("mmmmm"));
    let given = "Hello, World\n".repeat(1000).into_bytes();
    let zeroes = [&given[..], &[0; 4 + 20]].concat();
    assert_eq!(ran.output("take2")["digest"], digest(&zeroes));
    assert_eq!(ran.output("take3")["digest"], digest(&given));
    assert_eq!(ran.warnings.len(), 1, "{:?}", ran.warnings);
}
