//! Behaviour of templates and expressions, mostly as tables.

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

mod types;

/// The text of a vector file, or `None` (with a reason) where there are no vectors.
pub(super) fn vector(path: &str) -> Option<String> {
    let base = std::env::var_os("OCM_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    match std::fs::read_to_string(base.join(path)) {
        Ok(text) => Some(text),
        Err(error) => {
            let required = std::env::var("OCM_REQUIRE_PEERS").as_deref() == Ok("1");
            assert!(!required, "{}: {error}", base.join(path).display());
            eprintln!("skipped: {}: {error}", base.join(path).display());
            None
        }
    }
}

#[test]
fn extracts_as_the_reference_does() {
    let Some(text) = vector("transform/expression-extraction.json") else {
        return;
    };
    let cases: Json = serde_json::from_str(&text).expect("vector is JSON");
    let extract = cases["extract"].as_array().expect("extract");
    let standalone = cases["standalone"].as_array().expect("standalone");
    assert_eq!((extract.len(), standalone.len()), (34, 12));
    for case in extract {
        let input = case["input"].as_str().expect("input");
        let found = scan(input).map(|ranges| {
            ranges
                .into_iter()
                .map(|range| input[range].to_owned())
                .collect::<Vec<_>>()
        });
        match found {
            Err(_) => assert_eq!(case["error"], true, "{input}"),
            Ok(found) => assert_eq!(json!(found), case["expressions"], "{input}"),
        }
    }
    for case in standalone {
        let input = case["input"].as_str().expect("input");
        match Template::parse(input) {
            Err(_) => assert_eq!(case["error"], true, "{input}"),
            Ok(template) => assert_eq!(
                json!(matches!(template, Template::Standalone(_))),
                case["standalone"],
                "{input}"
            ),
        }
    }
}

#[test]
fn template_errors_have_a_place() {
    for (text, offset, message) in [
        (
            "a ${b ${c}",
            6,
            "an expression cannot stand within another one",
        ),
        ("a ${'b}", 4, "string literal is not closed"),
        ("a ${'${b}'", 2, "expression is not closed: `}` is missing"),
        ("\u{e4} ${}", 5, "expression is empty"),
        ("\u{e4} ${'\u{e4}' + }", 11, "syntax error"),
    ] {
        let error = Template::parse(text).expect_err(text);
        assert_eq!(error.offset, offset, "{text}: {error}");
        assert!(error.message.starts_with(message), "{text}: {error}");
    }
}

#[test]
fn an_unclosed_expression_is_text() {
    let template = Template::parse("${a} ${b").expect("template");
    let scope = json!({"a": 1});
    let scope = scope.as_object().expect("map");
    assert_eq!(template.evaluate("${a} ${b", scope), Ok(json!("1 ${b")));
}

fn documents() -> serde_json::Map<String, Json> {
    let documents = json!({
        "n": 5,
        "big": 18_446_744_073_709_551_615_u64,
        "half": 0.5,
        "text": "ghcr.io/acme/charts/app:1.0",
        "list": [3, 1, 2],
        "none": null,
        "items": [{"name": "a", "size": 1}, {"name": "b", "size": 20}],
        "doc": {
            "name": "x",
            "labels": {"a.b/c": "dotted", "my-key": "dashed"},
            "none": null,
            "access": {"type": "ociArtifact", "imageReference": "ghcr.io/acme/app:2"},
            "blob": {"type": "localBlob/v1", "globalAccess": {"imageReference": "r.io/a:3"}},
            "local": {"type": "localBlob/v1"},
        },
    });
    match documents {
        Json::Object(map) => map,
        _ => unreachable!("an object is written above"),
    }
}

struct Steps {
    documents: serde_json::Map<String, Json>,
    spec: Json,
    output: Json,
}

impl Scope for Steps {
    fn root(&self, name: &str) -> Option<Root<'_>> {
        match name {
            "done" => Some(Root::Step(StepView {
                id: "done",
                kind: "Get/v1",
                spec: Some(&self.spec),
                output: Some(&self.output),
            })),
            "waiting" => Some(Root::Step(StepView {
                id: "waiting",
                kind: "Get/v1",
                spec: None,
                output: None,
            })),
            name => self.documents.root(name),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.documents.names();
        names.extend(["done".to_owned(), "waiting".to_owned()]);
        names
    }
}

fn steps() -> Steps {
    Steps {
        documents: documents(),
        spec: json!({"name": "app"}),
        output: json!({"resource": {"name": "r", "labels": [{"name": "l", "value": 1}]}}),
    }
}

fn evaluate(text: &str) -> Result<Json, EvalError> {
    Expression::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error} at {}", error.offset))
        .evaluate(&steps())
}

#[test]
fn evaluates() {
    for (text, expected) in [
        // Paths, plain and not.
        ("doc.name", json!("x")),
        (" doc . name ", json!("x")),
        ("doc\n.labels[ 'a.b/c' ]", json!("dotted")),
        ("doc.labels.my__dash__key", json!("dashed")),
        ("(doc.labels).my__dash__key", json!("dashed")),
        ("items[1].name", json!("b")),
        ("items[0 + 1].name", json!("b")),
        ("doc.?name", json!("x")),
        ("doc.?nope", json!(null)),
        ("doc.?nope.deeper[3]", json!(null)),
        ("(doc.?nope).deeper", json!(null)),
        ("(doc.?labels)['my-key']", json!("dashed")),
        ("doc[?'nope']", json!(null)),
        ("list[?9]", json!(null)),
        ("list[?1]", json!(1)),
        ("none.?x", json!(null)),
        ("done.output.resource.labels[0].value", json!(1)),
        ("done.outputs.resource.name", json!("r")),
        ("(done).output.resource.name", json!("r")),
        ("done.spec", json!({"name": "app"})),
        ("done.id", json!("done")),
        ("done.type + '!'", json!("Get/v1!")),
        ("has(done.output.resource)", json!(true)),
        ("has(waiting.output)", json!(false)),
        ("waiting.?output", json!(null)),
        (
            "done",
            json!({"id": "done", "type": "Get/v1", "spec": {"name": "app"},
                "output": {"resource": {"name": "r", "labels": [{"name": "l", "value": 1}]}}}),
        ),
        // Numbers.
        ("n + 1", json!(6)),
        ("size(list) + n", json!(8)),
        ("7 / 2 + 7 % 2", json!(4)),
        ("-n", json!(-5)),
        ("half * 4.0", json!(2.0)),
        ("big", json!(18_446_744_073_709_551_615_u64)),
        ("big - 1u", json!(18_446_744_073_709_551_614_u64)),
        ("n == 5.0 && 5u == n && n != 6", json!(true)),
        ("n < 5.5 && big > n", json!(true)),
        ("int('42') + int(2.9) + int(3u)", json!(47)),
        ("double(n) / 2.0", json!(2.5)),
        ("uint(n)", json!(5)),
        ("string(1.0) + string(true) + string(n)", json!("1true5")),
        ("bool('true')", json!(true)),
        // Text.
        (
            "text.startsWith('ghcr') && text.endsWith(':1.0')",
            json!(true),
        ),
        ("text.contains('acme')", json!(true)),
        ("text.matches('^ghcr[.]io/.*:[0-9.]+$')", json!(true)),
        ("matches(text, 'nope')", json!(false)),
        ("size('\u{e4}b') + 'ab'.size()", json!(4)),
        (r#""tab\t" + 'q"' + r'\n' + "x""#, json!("tab\tq\"\\nx")),
        // Lists and maps.
        ("[1, 2] + list", json!([1, 2, 3, 1, 2])),
        ("[?doc.?name, ?doc.?nope, 1]", json!(["x", 1])),
        ("{'b': 1, 'a': 2, ?'c': doc.?nope}", json!({"a": 2, "b": 1})),
        ("2 in list && !(4 in list) && 'name' in doc", json!(true)),
        ("[1, {'a': [2]}] == [1.0, {'a': [2u]}]", json!(true)),
        ("{1: 'one'}[1]", json!("one")),
        // Macros.
        (
            "has(doc.name) && !has(doc.nope) && has(doc.none)",
            json!(true),
        ),
        ("list.all(x, x > 0) && list.exists(x, x == 2)", json!(true)),
        ("list.exists_one(x, x > 2)", json!(true)),
        ("list.map(x, x * 2)", json!([6, 2, 4])),
        ("list.map(x, x > 1, x * 2)", json!([6, 4])),
        ("items.filter(i, i.size > 10).map(i, i.name)", json!(["b"])),
        ("doc.labels.map(k, k)", json!(["a.b/c", "my-key"])),
        ("list.map(n, n) + [n]", json!([3, 1, 2, 5])),
        (
            "[[1], [2, 3]].map(l, l.map(x, x + size(l)))",
            json!([[2], [4, 5]]),
        ),
        // Logic absorbs errors of the other side.
        ("doc.nope.x == 1 || true", json!(true)),
        ("false && doc.nope.x == 1", json!(false)),
        ("list.exists(x, 1 / (x - 1) > 0 || x == 1)", json!(true)),
        ("n > 3 ? 'many' : doc.nope", json!("many")),
        // Optionals.
        ("doc.?nope.orValue('d')", json!("d")),
        ("doc.?name.orValue(doc.nope)", json!("x")),
        ("doc.?nope.or(doc.?name)", json!("x")),
        ("doc.?name.hasValue()", json!(true)),
        ("doc.?name.value()", json!("x")),
        ("optional.of(1)", json!(1)),
        ("optional.none()", json!(null)),
        ("optional.ofNonZeroValue('').orValue('z')", json!("z")),
        ("doc.?name.optMap(v, v + '!')", json!("x!")),
        ("doc.?labels.optFlatMap(v, v[?'my-key'])", json!("dashed")),
        // Types, timestamps, durations, bytes.
        ("type(n) == int && type('') != int", json!(true)),
        (
            "timestamp('2026-01-02T03:04:05Z').getFullYear()",
            json!(2026),
        ),
        ("duration('90s') < duration('2m')", json!(true)),
        ("string(duration('90s'))", json!("90s")),
        ("size(b'abc')", json!(3)),
        // References.
        ("text.parseRef().registry", json!("ghcr.io")),
        ("doc.access.parseRef(). repository", json!("acme/app")),
        ("doc.blob.toOCI().repository", json!("a")),
        ("parseRef(text).name", json!("app")),
        (
            "text.parseRef()",
            json!({"digest": "", "name": "app", "reference": "1.0", "registry": "ghcr.io",
                "repository": "acme/charts/app", "tag": "1.0"}),
        ),
        (
            "doc.access.toOCI()",
            json!({"digest": "", "host": "ghcr.io", "reference": "2", "registry": "ghcr.io",
                "repository": "acme/app", "tag": "2"}),
        ),
    ] {
        assert_eq!(evaluate(text), Ok(expected), "{text}");
    }
}

#[test]
fn failures_name_the_smallest_part() {
    for (text, part, message, hint) in [
        (
            "docs.name",
            "docs",
            "unknown variable `docs`",
            "did you mean `doc`?",
        ),
        (
            "docs.name + ''",
            "docs",
            "unknown variable `docs`",
            "did you mean `doc`?",
        ),
        (
            "doc.nam",
            "nam",
            "`doc` has no field `nam`",
            "did you mean `name`?",
        ),
        (
            "'a' + doc.nam",
            "nam",
            "`doc` has no field `nam`",
            "did you mean `name`?",
        ),
        (
            "doc.name.deep",
            "deep",
            "`doc.name` is a string, it has no field `deep`",
            "",
        ),
        ("items[7]", "7", "`items` has 2 elements, no [7]", ""),
        (
            "items[3 + 4]",
            "3 + 4",
            "`items` has 2 elements, not that one",
            "",
        ),
        (
            "doc['nam' + '']",
            "'nam' + ''",
            "`doc` has no field `nam`",
            "did you mean `name`?",
        ),
        (
            "done.ouptut",
            "ouptut",
            "step `done` has no `ouptut`",
            "did you mean `output`?",
        ),
        (
            "waiting.output.x",
            "output",
            "`waiting.output` is not there yet",
            "",
        ),
        (
            "1 + (doc.name + 1)",
            "doc.name + 1",
            "`+` does not work on (string, int)",
            "",
        ),
        ("n / 0", "n / 0", "division by zero", ""),
        (
            "9223372036854775807 + n",
            "9223372036854775807 + n",
            "integer overflow",
            "",
        ),
        (
            "list.map(x, x.y)",
            "y",
            "`x` is a int, it has no field `y`",
            "",
        ),
        (
            "doc.name.startWith('x')",
            "doc.name.startWith('x')",
            "unknown function `startWith`",
            "did you mean `startsWith`?",
        ),
        (
            "doc.local.parseRef()",
            "doc.local.parseRef()",
            "`parseRef` needs an access with an `imageReference`",
            "",
        ),
        ("int('x')", "int('x')", "`x` is no int", ""),
        (
            "timestamp('2026-01-02T03:04:05Z')",
            "timestamp('2026-01-02T03:04:05Z')",
            "unsupported result: a Timestamp is no JSON value, convert it with `string`",
            "",
        ),
        (
            "b'x'",
            "b'x'",
            "unsupported result: a bytes is no JSON value, convert it with `string`",
            "",
        ),
        ("{1: 2}", "{1: 2}", "the key 1 of a map is no string", ""),
        (
            "'x'.matches('(')",
            "'x'.matches('(')",
            "`(` is no regular expression of supported size",
            "",
        ),
        ("n ? 1 : 2", "n", "expected a bool, found a int", ""),
    ] {
        let error = evaluate(text).expect_err(text);
        assert_eq!(error.message, message, "{text}");
        assert_eq!(&text[error.at.clone()], part, "{text}");
        assert_eq!(error.hint.as_deref().unwrap_or_default(), hint, "{text}");
    }
}

#[test]
fn work_is_bounded() {
    let doubling = format!("['0123456789abcdef']{}[0]", ".map(t, t + t)".repeat(60));
    let loops = "[0,1,2,3,4,5,6,7,8,9]";
    let nested = format!(
        "{loops}.all(a, {loops}.all(b, {loops}.all(c, {loops}.all(d, {loops}.all(e, {loops}.all(f, {loops}.all(g, g >= 0)))))))"
    );
    let absorbed = format!("({nested}) || true");
    let lists = format!("[{loops}]") + &".map(l, l + l)".repeat(60);
    let patterns = format!(
        "{loops}.all(a, {loops}.all(b, {loops}.all(c, {loops}.all(d, !'x'.matches('(a|b){{1,50}}' + string(a) + string(b) + string(c) + string(d))))))"
    );
    for text in [doubling, nested, absorbed, lists, patterns] {
        let error = evaluate(&text).expect_err(&text);
        assert_eq!(error.kind, EvalErrorKind::Limit, "{text}: {error}");
    }
}

#[test]
fn hostile_expressions_are_refused() {
    let sum = vec!["1"; 5000].join("+");
    let parens = format!("{}1{}", "(".repeat(5000), ")".repeat(5000));
    let path = format!("a{}", ".b".repeat(5000));
    let long = format!("'{}'", "x".repeat(20_000));
    let nots = format!("{}true", "!".repeat(5000));
    for text in [
        sum,
        parens,
        path,
        long,
        nots,
        String::new(),
        "  ".to_owned(),
    ] {
        assert!(Expression::parse(&text).is_err(), "{:.40}", text);
    }
    // The most that passes the count of operators must not exhaust the stack.
    let sum = vec!["1"; 990].join("+");
    assert!(Expression::parse(&sum).is_err());
    let sum = vec!["1"; 150].join("+");
    assert_eq!(evaluate(&sum), Ok(json!(150)));
}

#[test]
fn references_are_what_the_expression_needs() {
    for (text, expected) in [
        ("a.output.b", "a.output.b"),
        ("a", "a"),
        (" a.b[0]['c']", "a.b[0].c"),
        ("a.output.b.parseRef().registry", "a.output.b"),
        ("a.x + c.spec.y", "a.x c.spec.y"),
        ("[1].map(x, x + a.y)", "a.y"),
        ("a.items.filter(a, a.ok).size() + b", "a.items b"),
        (
            "a.list.exists(x, x.y == z.w && b.c.exists(z, z.q))",
            "a.list z.w b.c",
        ),
        ("has(a.b.c) ? a.b.c : null", "a.b.?c a.b.c"),
        ("a[b.c].d", "a b.c"),
        ("a.?b.orValue(c)", "a.?b c"),
        ("optional.of(a.b)", "a.b"),
        ("{'k': a.b, c.d: [e]}", "a.b c.d e"),
        ("int(a.b) == 1", "a.b"),
        ("type(a) == int", "a int"),
    ] {
        let expression = Expression::parse(text).expect(text);
        let found: Vec<String> = expression
            .references()
            .iter()
            .map(|reference| {
                assert_eq!(&text[reference.at.clone()], reference.root, "{text}");
                for segment in reference.segments.iter() {
                    if let Key::Field(name) = &segment.key {
                        let written = text[segment.range()].trim_matches(['\'', '"']);
                        assert_eq!(written, &**name, "{text}");
                    }
                }
                let segments: String = reference.segments.iter().map(Segment::to_string).collect();
                format!("{}{segments}", reference.root)
            })
            .collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }
}

#[test]
fn references_can_be_made_explicit() {
    for (text, expected) in [
        ("download.descriptor", "download.output.descriptor"),
        (
            "up.resource.access.imageReference.parseRef(). registry",
            "up.output.resource.access.imageReference.parseRef(). registry",
        ),
        (
            "'\u{e4}' + up . ?descriptor",
            "'\u{e4}' + up . output.?descriptor",
        ),
        (
            "[1].map(up, up.x) + [ up.x ]",
            "[1].map(up, up.x) + [ up.output.x ]",
        ),
    ] {
        let expression = Expression::parse(text).expect(text);
        let edits: Vec<Edit> = expression
            .references()
            .iter()
            .filter_map(|reference| {
                let first = reference.segments.first()?;
                // Before the name, and before its question mark.
                let start = first.range().start - usize::from(first.optional);
                Some(Edit {
                    at: start..start,
                    text: "output.".to_owned(),
                })
            })
            .collect();
        assert_eq!(splice(text, &edits).as_deref(), Some(expected));
    }
    let overlapping = [
        Edit {
            at: 0..2,
            text: String::new(),
        },
        Edit {
            at: 1..3,
            text: String::new(),
        },
    ];
    assert_eq!(splice("abc", &overlapping), None);
    assert_eq!(
        splice(
            "\u{e4}",
            &[Edit {
                at: 1..1,
                text: String::new()
            }]
        ),
        None
    );
}

#[test]
fn mixed_templates_format_like_go() {
    for (text, expected) in [
        ("${done.output.resource.name}-${n}", "r-5"),
        (
            "${text.parseRef().registry}/dir/${done.id}",
            "ghcr.io/dir/done",
        ),
        (
            "a ${list} b ${doc.labels}",
            "a [3 1 2] b map[a.b/c:dotted my-key:dashed]",
        ),
        ("x${none}y${half}", "x<nil>y0.5"),
        ("\u{e4}${'\u{e4}'}\u{e4}", "\u{e4}\u{e4}\u{e4}"),
    ] {
        let template = Template::parse(text).expect(text);
        assert_eq!(template.evaluate(text, &steps()), Ok(json!(expected)));
    }
    let text = "\u{e4}${n} ${doc.nam}";
    let error = Template::parse(text)
        .expect("template")
        .evaluate(text, &steps())
        .expect_err("no such field");
    assert_eq!(&text[error.at], "nam");
}

#[test]
fn paths_do_not_copy() {
    let steps = steps();
    let expression = Expression::parse("done.output.resource").expect("path");
    let path = expression.as_path().expect("plain");
    let value = path.resolve(&steps).expect("value").expect("there");
    assert!(
        matches!(value, std::borrow::Cow::Borrowed(found) if std::ptr::eq(found, &steps.output["resource"]))
    );
}

/// Expressions that are mostly well-formed.
fn expression_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z]{1,3}(\\.[?]?[a-z]{1,4}){0,3}",
        Just("doc.labels".to_owned()),
        Just("list".to_owned()),
        Just("done.output.resource".to_owned()),
        Just("n".to_owned()),
        "-?[0-9]{1,20}u?",
        "[0-9]{1,3}\\.[0-9]{1,3}",
        "'[a-z\u{e4} \\\\n]{0,4}'",
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("b'x'".to_owned()),
        Just("duration('1s')".to_owned()),
    ];
    leaf.prop_recursive(4, 40, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                "[-+*/%<>]|==|!=|<=|&&|\\|\\|| in ",
                inner.clone()
            )
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (
                inner.clone(),
                "all|exists|map|filter|exists_one|optMap|optFlatMap",
                inner.clone()
            )
                .prop_map(|(a, name, b)| format!("({a}).{name}(x, {b})")),
            (
                inner.clone(),
                "size|string|int|parseRef|toOCI|type|has|dyn|timestamp|nope"
            )
                .prop_map(|(a, name)| format!("{name}({a})")),
            (
                inner.clone(),
                "orValue|or|startsWith|matches|contains",
                inner.clone()
            )
                .prop_map(|(a, name, b)| format!("({a}).{name}({b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[?{b}]")),
            proptest::collection::vec(inner.clone(), 0..3)
                .prop_map(|list| format!("[{}]", list.join(", "))),
            (inner.clone(), inner).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_template_or_an_error(text in "[a$\\{\\}'\"\\\\.\\[\\]?() +\u{e4}\n0-9b]{0,40}") {
        match Template::parse(&text) {
            Ok(template) => {
                for placed in template.expressions() {
                    for reference in placed.expression.references() {
                        let at = reference.at.start + placed.offset..reference.at.end + placed.offset;
                        prop_assert_eq!(&text[at], reference.root);
                    }
                }
                let _ = template.evaluate(&text, &steps());
            }
            Err(error) => prop_assert!(error.offset <= text.len()),
        }
    }

    #[test]
    fn any_text_is_an_expression_or_an_error(text in "\\PC{0,30}") {
        match Expression::parse(&text) {
            Ok(expression) => { let _ = expression.evaluate(&steps()); }
            Err(error) => prop_assert!(error.offset <= text.len()),
        }
    }

    #[test]
    fn any_expression_has_a_value_or_an_error(text in expression_text()) {
        if let Ok(expression) = Expression::parse(&text) {
            for reference in expression.references() {
                prop_assert_eq!(&text[reference.at.clone()], reference.root);
            }
            if let Err(error) = expression.evaluate(&steps()) {
                prop_assert!(text.get(error.at.clone()).is_some(), "{}: {:?}", text, error);
            }
        }
    }
}
