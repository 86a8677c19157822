//! Documents: bombs, depth, width, length, and what YAML readers trip over.

use std::fmt::Write as _;

use crate::bad_input::{Row, row, spec};

const A: &str = "type: attributes.transformation/v1alpha1";

fn steps(lines: impl IntoIterator<Item = String>) -> String {
    let mut text = String::from("transformations:\n");
    for line in lines {
        text.push_str("- ");
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// One step with these attributes.
fn with(attributes: impl AsRef<str>) -> String {
    let attributes = attributes.as_ref();
    steps([format!(
        "{{id: a, {A}, spec: {{attributes: {attributes}}}}}"
    )])
}

fn bad(name: &'static str, says: &[&str], text: impl Into<Vec<u8>>) -> Row {
    let says: Vec<&str> = ["spec.yaml:"].iter().chain(says).copied().collect();
    spec(name, 3, &says, text)
}

/// A file of that many zeros that takes no room.
fn hole(name: &'static str, says: &[&str], size: u64) -> Row {
    row(name, 3, says, move |place| {
        let file = std::fs::File::create(place.path("spec.yaml")).unwrap();
        file.set_len(size).unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn documents() {
    let merges = {
        let mut text = String::from("a0: &a0 {x0: 1, y0: 1}\n");
        for level in 1..30 {
            let below = level - 1;
            let _ = writeln!(
                text,
                "a{level}: &a{level} {{<<: [*a{below}, *a{below}], b{level}: [*a{below}, *a{below}]}}"
            );
        }
        text + "transformations: []\n"
    };
    let wide = format!(
        "long: &long {}\ntransformations:\n- {{id: a, {A}, spec: {{attributes: {{x: [{}]}}}}}}\n",
        "y".repeat(1 << 20),
        "*long, ".repeat(20_000)
    );
    let references = |target: &str, count: usize| {
        let list = format!("'${{{target}.output.x}}', ").repeat(count);
        with(format!("{{x: [{list}]}}"))
    };
    let ring = |count: usize| {
        let step = |n: usize| {
            let next = (n + 1) % count;
            format!("{{id: s{n}, {A}, spec: {{attributes: {{x: '${{s{next}.output.x}}'}}}}}}")
        };
        steps((0..count).map(step))
    };
    let deep = |open: &str, close: &str, depth: usize| {
        with(format!(
            "{{x: {}1{}}}",
            open.repeat(depth),
            close.repeat(depth)
        ))
    };
    super::check(
        "specs",
        30,
        vec![
            bad("merged again and again", &["alias"], merges),
            bad("a long text again and again", &["alias"], wide),
            bad(
                "an anchor that holds itself",
                &[],
                "a: &a [*a]\ntransformations: []\n",
            ),
            bad("an anchor that is none", &[], "transformations: *nothing\n"),
            bad(
                "a merge with a text",
                &[],
                format!("<<: text\n{}", with("{}")),
            ),
            bad(
                "100,000 references to nothing",
                &["nothing"],
                references("nothing", 100_000),
            ),
            bad(
                "100,000 references to itself",
                &["a -> a"],
                references("a", 100_000),
            ),
            bad(
                "100,000 dependencies on nothing",
                &[],
                steps([format!(
                    "{{id: a, {A}, dependsOn: [{}], spec: {{attributes: {{}}}}}}",
                    "nothing, ".repeat(100_000)
                )]),
            ),
            bad(
                "10,000 dependencies on nothings",
                &["and 9"],
                steps([format!(
                    "{{id: a, {A}, dependsOn: [{}], spec: {{attributes: {{}}}}}}",
                    (0..10_000).map(|n| format!("n{n}, ")).collect::<String>()
                )]),
            ),
            bad("a ring of 2,000", &["circle", "1985 more"], ring(2_000)),
            bad(
                "20,000 steps that are none",
                &["and 1"],
                steps((0..20_000).map(|_| "{}".to_owned())),
            ),
            bad(
                "20,000 steps of one name",
                &["and 1"],
                steps((0..20_000).map(|_| format!("{{id: a, {A}, spec: {{attributes: {{}}}}}}"))),
            ),
            bad(
                "50,000 unknown fields",
                &["unknown"],
                steps([format!(
                    "{{id: a, {A}, spec: {{attributes: {{}}, {}}}}}",
                    (0..50_000)
                        .map(|n| format!("attribut{n}: 1, "))
                        .collect::<String>()
                )]),
            ),
            bad(
                "an unknown type of a mebibyte",
                &["unknown"],
                steps([format!(
                    "{{id: a, type: {}, spec: {{}}}}",
                    "attributes.transformation".repeat(40_000)
                )]),
            ),
            bad(
                "a name of a mebibyte",
                &[],
                steps([format!(
                    "{{id: {}, {A}, spec: {{attributes: {{}}}}}}",
                    "a".repeat(1 << 20)
                )]),
            ),
            bad(
                "a key of a mebibyte",
                &["spec.kkkk"],
                steps([format!(
                    "{{id: a, {A}, spec: {{attributes: {{}}, ? {} : 1}}}}",
                    "k".repeat(1 << 20)
                )]),
            ),
            bad(
                "names that terminals obey",
                &[],
                steps([
                    format!("{{id: \"a\\e[31m\\a\", {A}, spec: {{attributes: {{}}}}}}"),
                    format!("{{id: b, {A}, spec: {{\"\\e]0;x\\a\": 1, attributes: {{}}}}}}"),
                    "{id: c, type: \"\\u202Egpj.exe\\e[2J\", spec: {}}".to_owned(),
                ]),
            ),
            bad(
                "names that lead elsewhere",
                &[],
                steps([format!(
                    "{{id: ../../etc/passwd, {A}, spec: {{attributes: {{}}}}}}"
                )]),
            ),
            bad(
                "names that are none",
                &[],
                steps([format!("{{id: '', {A}, spec: {{attributes: {{}}}}}}")]),
            ),
            bad("lists", &["deep"], deep("[", "]", 100_000)),
            bad("maps", &["deep"], deep("{a: ", "}", 100_000)),
            bad(
                "keys of keys",
                &[],
                format!("{}a{} : 1\n", "? ".repeat(10_000), ""),
            ),
            bad("dashes", &["deep"], format!("{}a\n", "- ".repeat(10_000))),
            bad("open brackets", &[], "[".repeat(1 << 20)),
            bad("open quotes", &[], format!("a: \"{}", "x".repeat(1 << 20))),
            bad(
                "one long line",
                &[],
                format!("a: [{}", "1, ".repeat(400_000)),
            ),
            bad("tabs", &[], "transformations:\n\t- a\n"),
            bad(
                "text that is none",
                &["UTF-8"],
                b"transformations: \xf0\x28\x8c\x28\n".to_vec(),
            ),
            bad(
                "text in 16 bits",
                &["UTF-8"],
                "transformations: []"
                    .encode_utf16()
                    .flat_map(u16::to_le_bytes)
                    .collect::<Vec<u8>>(),
            ),
            bad("half a character", &[], "transformations: \"\\ud800\"\n"),
            bad(
                "a number without end",
                &[],
                format!("transformations: {}\n", "9".repeat(100_000)),
            ),
            spec("a number that is huge", 0, &[], with("{x: 1e999999999}")),
            bad(
                "keys that are no text",
                &[],
                "? [a, b]\n: c\ntransformations: []\n",
            ),
            spec(
                "tags of other languages",
                0,
                &[],
                format!("x: !!python/object/apply:os.system [id]\n{}", with("{}")),
            ),
            spec("binary", 0, &[], with("{x: !!binary bm9wZQ==}")),
            bad("directives", &[], "%YAML 9.9\n---\ntransformations: []\n"),
            bad(
                "10,000 documents",
                &[],
                "---\ntransformations: []\n".repeat(10_000),
            ),
            bad(
                "a bomb of the mapping dialect",
                &[],
                format!(
                    "metadata: {{version: v1alpha1}}\nspec: {{mappings: [{}]}}\n",
                    "{}, ".repeat(20_000)
                ),
            ),
            bad(
                "20 MiB of comments",
                &[],
                format!("{}a: 1\n", "# comment\n".repeat(2 << 20)),
            ),
            hole("a GiB of zeros", &["spec.yaml"], 1 << 30),
            hole("a TiB of zeros", &["spec.yaml"], 1 << 40),
            row("zeros without end", 3, &["/dev/zero"], |_| {}).reading("/dev/zero"),
            row("noise without end", 3, &["/dev/urandom"], |_| {}).reading("/dev/urandom"),
        ],
    )
    .await;
}

impl Row {
    fn reading(self, file: &'static str) -> Self {
        Self {
            arguments: vec!["transfer", "--transfer-spec", file],
            ..self
        }
    }
}
