//! Expressions: deep, long, costly, and of things that do not exist.

use crate::bad_input::{Row, spec};

/// A spec with one value.
fn value(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        "transformations:\n- {{id: a, type: attributes.transformation/v1alpha1, spec: {{attributes: {{x: {text}}}}}}}\n"
    )
}

/// An expression that is refused, and what is said of it besides its place.
fn refused(name: &'static str, says: &[&str], expression: impl AsRef<str>) -> Row {
    let text = value(&format!("${{{}}}", expression.as_ref()));
    let says: Vec<&str> = ["spec.yaml:2:", "step `a`"]
        .iter()
        .chain(says)
        .copied()
        .collect();
    spec(name, 3, &says, text)
}

/// An expression that is refused when it is evaluated.
fn fails(name: &'static str, says: &[&str], expression: impl AsRef<str>) -> Row {
    let text = value(&format!("${{{}}}", expression.as_ref()));
    let says: Vec<&str> = ["step `a`: spec.attributes.x: "]
        .iter()
        .chain(says)
        .copied()
        .collect();
    spec(name, 3, &says, text)
}

/// An expression that is all right, however it looks.
fn fine(name: &'static str, expression: impl AsRef<str>) -> Row {
    spec(
        name,
        0,
        &[],
        value(&format!("${{{}}}", expression.as_ref())),
    )
}

/// `0` to `9` for each `0` to `9`, and so on.
fn loops(macro_name: &str, depth: usize) -> String {
    let list = "[0,1,2,3,4,5,6,7,8,9]";
    let open: String = (0..depth)
        .map(|level| format!("{list}.{macro_name}(v{level}, "))
        .collect();
    let inner = if macro_name == "map" { "v0" } else { "v0 < 10" };
    format!("{open}{inner}{}", ")".repeat(depth))
}

/// Doubles a value again and again.
fn doubled(start: &str, times: usize) -> String {
    let steps: String = (0..times).map(|_| ".optMap(v, v + v)".to_owned()).collect();
    format!("optional.of({start}){steps}")
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions() {
    let many = |text: &str, count: usize| text.repeat(count);
    super::check("expressions", 30, vec![
        refused("brackets", &["operators"], format!("{}1{}", many("(", 5_000), many(")", 5_000))),
        refused("lists", &["operators"], format!("{}1{}", many("[", 5_000), many("]", 5_000))),
        refused("maps", &["operators"], format!("{}1{}", many("{'a':", 2_000), many("}", 2_000))),
        refused("calls", &["operators"], format!("{}1{}", many("string(", 2_000), many(")", 2_000))),
        refused("not", &[], format!("{}true", many("!", 10_001))),
        refused("minus", &[], format!("{}1", many("-", 10_001))),
        refused("choices", &[], format!("{}1", many("true ? 1 : ", 1_200))),
        refused("operators", &["operators"], format!("1{}", many("+1", 5_000))),
        refused("or", &["operators"], format!("true{}", many("||true", 2_000))),
        refused("indexes", &[], format!("[1]{}", many("[0]", 4_000))),
        refused("a long text", &["long"], format!("'{}' + ''", many("a", 70_000))),
        refused("a long path", &[], format!("a{}", many(".b", 40_000))),
        refused("a path with very many parts", &[], format!("a{}", many(".b", 200))),
        fails("loops", &["work"], loops("map", 9)),
        fails("loops that only look", &["work"], loops("all", 9)),
        fails("loops that look for one", &["work"], loops("exists_one", 9)),
        fails("a text that doubles", &["work"], doubled("'0123456789abcdef'", 60)),
        fails("a list that doubles", &["work"], doubled("[0, 1, 2, 3]", 60)),
        fails("maps in lists that double", &["work"], doubled("[{'a': [1, 2, 3]}]", 60)),
        fails("a pattern that is long", &["pattern"], format!("'a'.matches('{}')", many("a?", 4_000))),
        fails("a pattern that grows", &["regular expression"], "'a'.matches('((a{1000}){1000}){1000}')"),
        fails("a pattern that is none", &["regular expression"], "'a'.matches('(')"),
        fails("a pattern that looks back", &["regular expression"], r"'aa'.matches('(a)\\1')"),
        fine("a pattern that backtracks elsewhere", format!("'{}b'.matches('^(a+)+$')", many("a", 5_000))),
        refused("patterns without end", &["work"],
            format!("{}.map(x, [0,1,2,3,4,5,6,7,8,9].map(y, 'a'.matches(string(x) + string(y) + '{}')))", loops("map", 4), many("[a-z]", 500))),
        fails("too large", &[], "9223372036854775807 + 1"),
        fails("too small", &[], "-9223372036854775808 - 1"),
        fails("times too large", &[], "9223372036854775807 * 9223372036854775807"),
        refused("a number of many digits", &[], many("9", 5_000)),
        fails("by zero", &[], "1 / 0"),
        fails("rest by zero", &[], "1 % 0"),
        fails("the least by minus one", &[], "(-9223372036854775807 - 1) / -1"),
        fails("not a number", &[], "0.0 / 0.0"),
        fails("endless", &[], "1.0 / 0.0"),
        fails("no integer", &[], "int(1e300)"),
        fails("an index far out", &[], "[1][9223372036854775807]"),
        fails("an index below", &[], "[1][-1]"),
        refused("a duration without end", &[], "duration('99999999999999999999h')"),
        refused("a time without end", &[], "timestamp('99999-01-01T00:00:00Z')"),
        fails("a time beyond", &[], "timestamp('9999-12-31T23:59:59Z') + duration('9999999h')"),
        refused("the environment", &["unknown variable `env`"], "env.HOME"),
        refused("a function that is none", &["system"], "system('rm -rf /')"),
        refused("a method that is none", &["exec"], "'a'.exec('b')"),
        refused("a macro that is none", &[], "[1].forEach(x, x)"),
        refused("a text that is open", &[], "'a"),
        refused("control characters", &[], "a\u{0}\u{7}\u{1b}[31mb"),
        refused("reading order turned", &[], "a\u{202e}b"),
        refused("one in another", &["within another"], "a ${b}"),
        fails("a key twice", &[], "{'a': 1, 'a': 2}"),
        refused("unlike things", &[], "1 < 'a'"),
        refused("bytes", &[], r"b'\xff'"),
        refused("itself", &["a -> a"], "a.output.x"),
        spec("expressions without end", 3, &["spec.yaml:2:", "step `a`"],
            value(&"${'a'}${nothing.b}".repeat(70_000))),
        spec("a template without end", 0, &[], value(&"${'a'}".repeat(50_000))),
    ])
    .await;
}
