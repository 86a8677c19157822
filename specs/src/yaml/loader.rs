//! From text to [`Node`]s: the events of a YAML parser, or JSON directly, made into a tree with positions.
//!
//! Invariant: work and memory are bounded by [`LoadOptions`] before they are spent; the tree is built
//! without recursion and never deeper than [`DEPTH_CEILING`], so walking it by recursion is safe.

use std::collections::HashSet;
use std::sync::Arc;

use super::builder::Builder;
use super::json::{self, NotRead};
use super::limits::{ALIAS_NODE_LIMIT, DEPTH_CEILING, DEPTH_LIMIT, Limits, NODE_LIMIT, TEXT_LIMIT};
use super::scalar::Scalars;
use super::{Node, Source, Span, Value, YamlError};

/// How to read a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The rules for plain scalars.
    pub scalars: Scalars,
    /// Most bytes of text.
    pub text_limit: usize,
    /// Most lists and maps within each other; values above [`DEPTH_CEILING`] count as that.
    pub depth_limit: usize,
    /// Most nodes, copies by aliases included.
    pub node_limit: usize,
    /// Most nodes that aliases may copy, and most that may be kept for aliases.
    pub alias_node_limit: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            scalars: Scalars::Go,
            text_limit: TEXT_LIMIT,
            depth_limit: DEPTH_LIMIT,
            node_limit: NODE_LIMIT,
            alias_node_limit: ALIAS_NODE_LIMIT,
        }
    }
}

/// Reads exactly one document; an empty text is null, as it is to Go.
///
/// # Errors
/// The first fault, with its place: syntax, a key twice in a map, a second document, a breached limit.
pub fn load(source: &Arc<Source>, options: &LoadOptions) -> Result<Node, YamlError> {
    let mut documents = documents(source, options, true)?;
    Ok(documents.pop().unwrap_or(Node::new(Value::Null)))
}

/// Reads every document of a stream; an empty text has none, an explicit empty document is null.
///
/// # Errors
/// The first fault, with its place: syntax, a key twice in a map, a breached limit.
pub fn load_all(source: &Arc<Source>, options: &LoadOptions) -> Result<Vec<Node>, YamlError> {
    documents(source, options, false)
}

/// The documents of a text, for readers that look closer.
pub(crate) struct Stream {
    pub(crate) documents: Vec<Node>,
    /// Keys that replace an earlier one of the same map.
    pub(crate) duplicates: HashSet<Span>,
}

/// Reads every document; in YAML, keys that are there twice are reported, not refused.
pub(crate) fn load_with_duplicates(source: &Source) -> Result<Stream, YamlError> {
    stream(source, &LoadOptions::default(), false, true)
}

fn documents(source: &Source, options: &LoadOptions, one: bool) -> Result<Vec<Node>, YamlError> {
    stream(source, options, one, false).map(|stream| stream.documents)
}

fn stream(
    source: &Source,
    options: &LoadOptions,
    one: bool,
    duplicates: bool,
) -> Result<Stream, YamlError> {
    let text = source.text();
    let text_limit = options.text_limit.min(u32::MAX as usize - 1);
    if text.len() > text_limit {
        let message = format!(
            "the text has {} bytes, more than the limit of {text_limit}",
            text.len()
        );
        return Err(YamlError::new(Span::default(), message));
    }
    let limits = Limits {
        depth: options.depth_limit.min(DEPTH_CEILING),
        nodes: options.node_limit,
        alias_nodes: options.alias_node_limit,
    };
    let start = bom_length(text);
    let builder = || {
        let mut builder = Builder::new(source, options.scalars, &limits);
        builder.duplicates = duplicates.then(HashSet::new);
        builder
    };
    if !json::looks_like_json(&text[start..]) {
        return builder().run(one);
    }
    match json::read(source, start, &limits) {
        Ok(node) => Ok(Stream {
            documents: vec![node],
            duplicates: HashSet::new(),
        }),
        Err(NotRead::Refused(error)) => Err(error),
        Err(NotRead::Syntax { error, began }) => builder()
            .run(one)
            // Both readers failed: if values were read as JSON, it is JSON with a slip.
            .map_err(|as_yaml| if began { error } else { as_yaml }),
    }
}

/// Length of a byte order mark at the start.
pub(crate) fn bom_length(text: &str) -> usize {
    if text.starts_with('\u{feff}') { 3 } else { 0 }
}

/// Advice for a line with `{{`.
pub(crate) const TEMPLATE_HINT: &str =
    "this looks like a Go template, which is not YAML before it is rendered";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, String> {
        let source = Source::new("t", text);
        load(&source, &LoadOptions::default()).map_err(|error| error.located(&source))
    }

    /// The text as Go's library turns it into JSON (every expectation was taken from it).
    fn check(text: &str, json: &str) {
        let node = read(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let expected: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(node.to_json(), expected, "{text:?}");
    }

    fn check_error(text: &str, expected: &str) {
        let error = read(text).expect_err(text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }

    #[test]
    fn plain_scalars_follow_go() {
        check("[y, Yes, on, TRUE, yEs]", r#"[true,true,true,true,"yEs"]"#);
        check(
            "[n, No, off, FALSE, nO]",
            r#"[false,false,false,false,"nO"]"#,
        );
        check(
            "a:\nb: ~\nc: null\nd: NULL\ne: nULL",
            r#"{"a":null,"b":null,"c":null,"d":null,"e":"nULL"}"#,
        );
        check("[012, 0o17, 0b11, 0x1F, +5, -0x1F]", "[10,15,3,31,5,-31]");
        check(
            "[1_000, 1__0, 1_0.5, _1, .5_5, 08, 0_8]",
            r#"[1000,10,10.5,"_1",0.55,8.0,8.0]"#,
        );
        check(
            "[0x, 1e, .e, 1e400, +-5, --1, 0b2, 0o8]",
            r#"["0x","1e",".e","1e400","+-5","--1","0b2","0o8"]"#,
        );
        check(
            "[1:30, 2024-01-01, 1.2.3, 1.10, .5, 1., 1e3]",
            r#"["1:30","2024-01-01","1.2.3",1.1,0.5,1.0,1000.0]"#,
        );
        check(
            "[18446744073709551615, -9223372036854775808]",
            "[18446744073709551615,-9223372036854775808]",
        );
        check("12345678901234567890123", "1.2345678901234568e22");
        check("['y', \"012\", '']", r#"["y","012",""]"#);
        check_error("a: .inf", "t:1:4: `.inf` is a number that JSON cannot hold");
        check_error("a: -.Inf", "t:1:4: ");
    }

    #[test]
    fn the_core_schema_is_narrower() {
        let source = Source::new(
            "t",
            "[yes, 012, 0o17, 0x1F, 1_000, 1.10, true, ~, +5, 0x+1]",
        );
        let options = LoadOptions {
            scalars: Scalars::Core,
            ..LoadOptions::default()
        };
        let node = load(&source, &options).unwrap();
        let expected = r#"["yes",12,15,31,"1_000",1.1,true,null,5,"0x+1"]"#;
        assert_eq!(node.to_json().to_string(), expected);
    }

    #[test]
    fn tags_convert() {
        check(
            "a: !!str 12\nb: !!int \"3\"\nc: !!float 1\nd: !!bool yes\ne: ! 12\nf: !foo 12\ng: !!null ''\nh: !!binary aGk=",
            r#"{"a":"12","b":3,"c":1.0,"d":true,"e":"12","f":"12","g":null,"h":"hi"}"#,
        );
        check_error("a: !!int x", "t:1:10: `x` is not of the type");
        check_error("a: !!binary x", "t:1:13: `!!binary` is not base64");
    }

    #[test]
    fn keys_become_text() {
        check(
            "1.5: a\n1e10: b\ny: c\n012: d\n2001-01-01: e",
            r#"{"1.5":"a","1e+10":"b","true":"c","10":"d","2001-01-01":"e"}"#,
        );
        check_error("~: b", "t:1:1: a key is missing");
        check_error("? [a]\n: b", "t:1:3: a list or map cannot be a key");
        check_error("{{ .x }}: b", "t:1:1: a list or map cannot be a key");
        check_error(
            "a: 1\nb: 2\na: 3",
            "t:3:1: the key `a` is here for the second time, first at line 1 column 1",
        );
        check_error(
            "1: a\n'1': b",
            "t:2:1: the key `1` is here for the second time",
        );
    }

    #[test]
    fn aliases_and_merges_follow_go() {
        check("a: &a 1\nb: &a 2\nc: *a", r#"{"a":1,"b":2,"c":2}"#);
        check("a: &a {x: [1]}\nb: *a", r#"{"a":{"x":[1]},"b":{"x":[1]}}"#);
        check("&k a: 1\nb: *k", r#"{"a":1,"b":"a"}"#);
        check("a: 1\n<<: {a: 2, b: 3}", r#"{"a":2,"b":3}"#);
        check("<<: {a: 2, b: 3}\na: 1", r#"{"a":1,"b":3}"#);
        check("<<: [{a: 1}, {a: 2, b: 3}]", r#"{"a":1,"b":3}"#);
        check("'<<': {a: 1}", r#"{"<<":{"a":1}}"#);
        check_error("<<: {a: 2}\na: 1\na: 3", "t:3:1: the key `a` is here");
        check_error("<<: 1", "t:1:5: `<<` takes a map");
        check_error("a: &a [*a]", "t:1:8: the anchor `a` contains itself");
        check_error("a: *b", "t:1:4: no anchor of this name");
    }

    #[test]
    fn the_end_of_the_text_is_a_place_like_others() {
        check("a: |\n  x", r#"{"a":"x"}"#);
        check("a: |\n  x\n", r#"{"a":"x\n"}"#);
        check("a: |\n  x\n   ", r#"{"a":"x\n "}"#);
        check("a: |\n  x\n  ", r#"{"a":"x\n"}"#);
        check("a: |+\n  x\n  ", r#"{"a":"x\n"}"#);
        check("a: |+\n  x", r#"{"a":"x"}"#);
        check("a: |-\n  x", r#"{"a":"x"}"#);
        check("a: >\n  x\n  y", r#"{"a":"x y"}"#);
        check("a: |", r#"{"a":""}"#);
        check("", "null");
        check("# only this", "null");
        check("a: 1\n...\n# end", r#"{"a":1}"#);
        check_error("[!x, 1]", "t:1:2: a tag must be followed by a blank");
        check_error("a: 1\n[b: !x, 1]", "t:2:11: could not find expected ':'");
        check_error(
            &format!("['!a, {}', !x, 1]", "!b, ".repeat(100)),
            "t:1:410: a tag must be followed by a blank",
        );
        check("[!<tag:yaml.org,2002:str> 1]", r#"["1"]"#);
        check("a: 1\nb:!x, c: 2", r#"{"a":1,"b:!x, c":2}"#);
        check(
            "a: 'x !x, y' # !x,\nb: |\n !x, y\nc: [a !x, b]",
            r#"{"a":"x !x, y","b":"!x, y\n","c":["a !x","b"]}"#,
        );
        check_error("\"\\", "t:1:3: found unexpected end of stream");
        check_error("a: 1\n---\nb: 2", "t:2:1: a second document starts here");
    }

    #[test]
    fn streams_have_any_number_of_documents() {
        let count = |text: &str| {
            let source = Source::new("t", text);
            load_all(&source, &LoadOptions::default()).map(|documents| documents.len())
        };
        assert_eq!(count("").unwrap(), 0);
        assert_eq!(count("a: 1\n---\nb: 1\n").unwrap(), 2);
        assert_eq!(count("---\n---\na: 1").unwrap(), 2);
        assert_eq!(count("{\"a\": 1}\n---\n{\"a\": 2}").unwrap(), 2);
        // Anchors end with their document.
        assert!(count("a: &a 1\n---\nb: *a\n").is_err());
    }

    #[test]
    fn json_reads_right() {
        check(
            r#" {"a":"\ud83d\ude00\/\u00e4","b":[1,-0.5,1e3,true,null]}"#,
            r#"{"a":"😀/ä","b":[1,-0.5,1000.0,true,null]}"#,
        );
        check("[\"a\u{7f}b\"]", "[\"a\u{7f}b\"]");
        check("{a: 1, \"b\": [x]}", r#"{"a":1,"b":["x"]}"#);
        check("\u{feff}{\"a\": 1}", r#"{"a":1}"#);
        check_error(r#"{"a": "\ud83d"}"#, "t:1:8: half of a surrogate pair");
        check_error(
            r#"{"a": 1, "a": 2}"#,
            "t:1:10: the key `a` is here for the second time",
        );
        check_error(
            r#"{"a": 1e400}"#,
            "t:1:7: the number `1e400` is out of range",
        );
        check_error("{\"a\": 1,\n \"b\": [1 2}", "t:2:10: expected `,` or `]`");
        check_error("{\"a\": 1", "t:1:8: expected `,` or `}`");
    }

    #[test]
    fn bad_texts_say_where_and_what_to_do() {
        let hint = |text: &str| {
            let source = Source::new("t", text);
            let error = load(&source, &LoadOptions::default()).expect_err(text);
            error.hint.unwrap_or_default()
        };
        assert!(hint("x: ${a ? 'b' : 'c'}").starts_with("quote the expression"));
        assert!(hint("a: 1\nx: {{ .x }} b: c").contains("Go template"));
        assert!(hint("a:\n\tb: 1").starts_with("indent with spaces"));
        check_error(
            "x: ${a ? 'b' : 'c'}",
            "t:1:14: mapping values are not allowed in this context",
        );
        check_error(
            "a: 1\nb: \u{7f}",
            "t:2:4: the character U+007F is not allowed",
        );
        check_error(
            "a: \"x",
            "t:1:6: found unexpected end of stream while scanning a quoted scalar that starts at line 1",
        );
    }

    #[test]
    fn limits_hold() {
        let deep = |count: usize| "[".repeat(count) + &"]".repeat(count);
        assert!(read(&deep(DEPTH_LIMIT)).is_ok());
        check_error(
            &deep(DEPTH_LIMIT + 1),
            "t:1:129: nested deeper than 128 levels",
        );
        check_error(&deep(1_000_000), "t:1:129: nested deeper");
        check_error(&"[a,".repeat(1_000_000), "t:1:385: nested deeper");
        check_error(&"- ".repeat(10_000), "t:1:257: nested deeper");
        check_error(&"? ".repeat(10_000), "t:1:3: a list or map");
        let mut indented = String::new();
        for depth in 0..1_000 {
            indented.push_str(&format!("{}a:\n", " ".repeat(depth)));
        }
        check_error(&indented, "t:129:129: nested deeper");

        let small = |options: LoadOptions, text: &str| {
            let source = Source::new("t", text);
            load(&source, &options).map_err(|error| error.located(&source))
        };
        let options = LoadOptions {
            text_limit: 5,
            ..LoadOptions::default()
        };
        assert!(
            small(options, "a: 1\n\n")
                .unwrap_err()
                .contains("more than the limit of 5")
        );
        for text in ["[1, 2, 3]", "[1, 2, a]", "- 1\n- 2\n- 3"] {
            let options = LoadOptions {
                node_limit: 3,
                ..LoadOptions::default()
            };
            assert!(
                small(options, text)
                    .unwrap_err()
                    .contains("more than 3 values")
            );
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        let mut merges = String::from("a0: &a0 {x: 1}\n");
        let mut tower = String::from("a0: &a0 [x]\n");
        for level in 1..200 {
            let below = level - 1;
            let aliases = vec![format!("*a{below}"); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
            merges.push_str(&format!(
                "a{level}: &a{level} {{b{level}: *a{below}, <<: [{aliases}]}}\n"
            ));
            tower.push_str(&format!("a{level}: &a{level} [*a{below}]\n"));
        }
        assert!(
            read(&bomb)
                .unwrap_err()
                .contains("aliases expand to more than")
        );
        assert!(read(&merges).is_err());
        assert!(read(&tower).unwrap_err().contains("nested deeper than"));
        // Work that grows faster than the text would take minutes here.
        let anchors: String = (0..50_000).map(|n| format!("- &a{n} !t x\n")).collect();
        assert!(read(&anchors).is_ok());
        assert!(read(&"-!".repeat(500_000)).is_ok());
        let nested: String = (0..120).map(|n| format!("&n{n} [")).collect();
        let wide = format!("{nested}{}{}", "1,".repeat(10_000), "]".repeat(120));
        assert!(read(&wide).unwrap_err().contains("anchors hold more than"));
        // Few values, but long ones.
        let long = "y".repeat(1 << 20);
        let many = format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(20));
        assert!(read(&many).unwrap_err().contains("bytes of text"));
        let held = format!("{nested}{long}{}", "]".repeat(120));
        assert!(read(&held).unwrap_err().contains("bytes of text"));
    }

    #[test]
    fn every_node_knows_its_place() {
        fn walk(node: &Node, text: &str, found: &mut Vec<String>) {
            found.push(text[node.span.start as usize..node.span.end as usize].to_owned());
            for child in node.as_list().unwrap_or_default() {
                walk(child, text, found);
            }
            for (name, member) in node.as_map().into_iter().flatten() {
                let key = &text[member.key.start as usize..member.key.end as usize];
                assert!(key.contains(name.as_str()), "{key} {name}");
                walk(&member.node, text, found);
            }
        }
        let places = |text: &str| {
            let mut found = Vec::new();
            walk(&read(text).unwrap(), text, &mut found);
            found
        };
        let text = "\u{feff}ä: &x !!str # c\n  ö\nb:\n- 1\n- [2, 'x''y']\n\n# tail\nc:\nd: |\n  t\n\n\ne: *x\n";
        assert_eq!(
            places(text),
            [
                text[3..text.len() - 1].trim_end().to_owned(),
                "ö".into(),
                "- 1\n- [2, 'x''y']".into(),
                "1".into(),
                "[2, 'x''y']".into(),
                "2".into(),
                "'x''y'".into(),
                String::new(),
                "|\n  t".into(),
                "*x".into(),
            ]
        );
        let json = " {\"a\": [1, {\"b\": \"\\u00e4\"}], \"c\": null} ";
        assert_eq!(
            places(json),
            [
                json.trim(),
                "[1, {\"b\": \"\\u00e4\"}]",
                "1",
                "{\"b\": \"\\u00e4\"}",
                "\"\\u00e4\"",
                "null"
            ]
        );
    }
}
