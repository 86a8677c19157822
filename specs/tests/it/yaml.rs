use ocm_specs::yaml::{
    Edit, LoadOptions, Node, Path, Scalars, Segment, Source, Value, edit, load, load_all,
    to_string, to_string_sorted,
};
use proptest::prelude::*;
use serde_json::Value as Json;

use crate::vectors;

#[test]
fn every_yaml_and_json_vector_loads() {
    let Some(root) = vectors::root() else { return };
    let mut count = 0;
    for folder in [
        "normalisation",
        "encoding",
        "config",
        "constructor",
        "transform",
    ] {
        for path in vectors::files(&root.join(folder), &[".yaml", ".yml", ".json"]) {
            let source = Source::new(
                path.to_string_lossy(),
                std::fs::read_to_string(&path).unwrap(),
            );
            let documents = load_all(&source, &LoadOptions::default())
                .unwrap_or_else(|error| panic!("{}", error.located(&source)));
            if path.extension().is_some_and(|ending| ending == "json") {
                let expected: serde_json::Value = serde_json::from_str(source.text()).unwrap();
                assert_eq!(documents[0].to_json(), expected, "{}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 40, "{count} files");
}

#[test]
fn the_design_documents_load_as_one_document() {
    let Some(root) = vectors::root() else { return };
    for name in ["seed002-transformations.yaml", "seed002-mappings.yaml"] {
        let text = std::fs::read_to_string(root.join("transform").join(name)).unwrap();
        let source = Source::new(name, text);
        let node = load(&source, &LoadOptions::default())
            .unwrap_or_else(|error| panic!("{}", error.located(&source)));
        assert!(node.as_map().is_some(), "{name} is a {}", node.kind());
    }
}

#[test]
fn descriptors_come_out_as_go_writes_them() {
    let Some(root) = vectors::root() else { return };
    let mut count = 0;
    for path in vectors::files(&root.join("encoding"), &["encoded.json"]) {
        let data: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let expected = std::fs::read_to_string(path.with_file_name("encoded.yaml")).unwrap();
        assert_eq!(to_string_sorted(&data), expected, "{}", path.display());
        count += 1;
    }
    assert!(count >= 2, "{count} files");
}

/// Pieces of text that YAML readers trip over.
const NASTY: [&str; 66] = [
    "yes",
    "y",
    "no",
    "on",
    "true",
    "null",
    "~",
    "",
    "1:30",
    "1:30:00.5",
    "012",
    "0o17",
    "0x1F",
    "0b1",
    "1_000",
    "1.10",
    ".5",
    "1e3",
    ".inf",
    "-.inf",
    ".nan",
    "+1",
    "-1",
    "2001-01-01",
    "2001-1-1 1:1:1",
    "<<",
    "=",
    " ",
    "  ",
    "\t",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{a0}",
    "#",
    " #",
    ": ",
    ":",
    "- ",
    "-",
    "? ",
    "---",
    "...",
    "'",
    "\"",
    "\\",
    "|",
    ">",
    "%",
    "@",
    "`",
    "{",
    "]",
    "&a",
    "*a",
    "!t",
    "\u{feff}",
    "\u{7f}",
    "\u{0}",
    "😀",
    "\u{fffe}",
    "\u{9b}",
];

/// Pieces of YAML syntax.
const SYNTAX: [&str; 20] = [
    "\n", "\n  ", "a", "b: ", "- ", "[", "{", "}", "]", ",", "|\n", ">2-\n ", "\\x", "\"\\",
    "%TAG ! x", "%YAML 1", "!<", "!%4", "<<: ", "&a ",
];

fn nasty_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(&NASTY[..]).prop_map(str::to_owned),
        2 => "[a-c ]{0,5}",
        1 => "[a-z]{30,60}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn nasty_data() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        5 => nasty_text().prop_map(Json::String),
        1 => any::<i64>().prop_map(Json::from),
        1 => any::<u64>().prop_map(Json::from),
        1 => any::<f64>().prop_map(Json::from),
        1 => prop::sample::select(vec![Json::Null, Json::Bool(true), Json::Bool(false)]),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::Array),
            prop::collection::vec((nasty_text(), inner), 0..4)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

/// Equal data, where `1` and `1.0` are equal too: Go's encoder writes both as `1`.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

fn load_text(text: &str, scalars: Scalars) -> Result<Json, String> {
    let source = Source::new("text", text);
    let options = LoadOptions {
        scalars,
        ..LoadOptions::default()
    };
    load(&source, &options)
        .map(|node| node.to_json())
        .map_err(|error| error.located(&source))
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(count)
    }
}

/// Every scalar below `node` with the way to it.
fn leaves(node: &Node, way: &mut Vec<Segment>, found: &mut Vec<(Path, Node)>) {
    match &node.value {
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                way.push(Segment::Index(at));
                leaves(item, way, found);
                way.pop();
            }
        }
        Value::Map(map) => {
            for (key, member) in map {
                way.push(Segment::Key(key.clone()));
                leaves(&member.node, way, found);
                way.pop();
            }
        }
        _ => found.push((Path::new(way.iter().cloned()), node.clone())),
    }
}

/// Sets every scalar of a text in turn; only bytes of that scalar may change.
fn check_edits(text: &str, value: &str) -> usize {
    let source = Source::new("text", text);
    let root = load(&source, &LoadOptions::default()).expect("the text was loaded before");
    let mut found = Vec::new();
    leaves(&root, &mut Vec::new(), &mut found);
    for (path, node) in &found {
        let edits = [Edit {
            path: path.clone(),
            value: Json::from(value),
            create: false,
        }];
        let new = edit(text, &edits).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let (before, after) = (
            &text[..node.span.start as usize],
            &text[node.span.end as usize..],
        );
        assert!(
            new.starts_with(before) && new.ends_with(after),
            "{path}\n{text}\n{new}"
        );
    }
    found.len()
}

#[test]
fn every_scalar_of_the_vectors_can_be_edited() {
    let Some(root) = vectors::root() else { return };
    let mut count = 0;
    for folder in [
        "normalisation",
        "constructor",
        "transform",
        "scenario/components",
    ] {
        for path in vectors::files(&root.join(folder), &[".yaml"]) {
            let text = std::fs::read_to_string(&path).unwrap();
            let template = path
                .components()
                .any(|part| part.as_os_str() == "templates");
            let source = Source::new("text", text.clone());
            let documents = load_all(&source, &LoadOptions::default());
            if template || documents.map_or(0, |documents| documents.len()) != 1 {
                continue;
            }
            count += check_edits(&text, "1.20");
            // Block scalars take lines.
            if text.contains(": |") || text.contains(": >") {
                count += check_edits(&text, "two\nlines\n");
            }
        }
    }
    assert!(count > 500, "{count} edits");
}

#[test]
fn templates_of_charts_are_refused() {
    let Some(root) = vectors::root() else { return };
    for path in vectors::files(&root.join("scenario/components"), &[".yaml"]) {
        if path
            .components()
            .any(|part| part.as_os_str() == "templates")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(edit(&text, &[]).is_err(), "{}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn written_data_can_be_edited(data in nasty_data(), value in nasty_text()) {
        // A bare `{{` makes a template of a text.
        prop_assume!(!data.to_string().contains("{{"));
        for text in [to_string(&data), data.to_string()] {
            check_edits(&text, &value);
        }
    }
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn what_is_written_reads_back(data in nasty_data()) {
        for text in [to_string(&data), to_string_sorted(&data), data.to_string()] {
            for scalars in [Scalars::Go, Scalars::Core] {
                let back = load_text(&text, scalars);
                let equal = back.as_ref().is_ok_and(|back| same(back, &data));
                prop_assert!(equal, "{data}\n{text}\n{back:?}");
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(pieces in prop::collection::vec(
        prop_oneof![prop::sample::select(&NASTY[..]), prop::sample::select(&SYNTAX[..])],
        0..20,
    )) {
        let text = pieces.concat();
        let source = Source::new("text", text.clone());
        if let Err(error) = load_all(&source, &LoadOptions::default()) {
            let (start, end) = (error.span.start as usize, error.span.end as usize);
            prop_assert!(text.get(start..end).is_some(), "{text:?} {error:?}");
        }
    }
}
