//! JSON as Go writes it, and canonical JSON.
//!
//! *Invariant*: equal values give equal bytes, whatever the order of their keys.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// Compact JSON with the keys of every object sorted by their bytes and HTML characters escaped: what Go's `json.Marshal`
/// writes for a generic value (formats.md 1.6). No trailing newline.
pub fn to_sorted(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, Style::Go);
    out
}

/// Canonical JSON by RFC 8785 (JCS): keys sorted by UTF-16 code units, nothing escaped that need not be, numbers as IEEE
/// doubles in ECMAScript's form. Only for hashing: integers above 2^53 lose digits, as the rule says.
pub fn to_canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, Style::Canonical);
    out
}

/// The value below `key`: the exact spelling first, else one that differs in case only, as Go's decoder matches keys.
pub fn field<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    /// Up to so many keys, looking at each is faster than hashing the one.
    const FEW: usize = 16;
    if object.len() > FEW
        && let Some(value) = object.get(key)
    {
        return Some(value);
    }
    let mut other = None;
    for (name, value) in object.iter().filter(|(name, _)| name.len() == key.len()) {
        if name == key {
            return Some(value);
        }
        if other.is_none() && name.eq_ignore_ascii_case(key) {
            other = Some(value);
        }
    }
    other
}

/// The spelling under which `key` is present, by the rule of [`field`]; `key` itself where it is absent.
pub fn spelling<'a>(object: &'a Map<String, Value>, key: &'a str) -> &'a str {
    if object.contains_key(key) {
        return key;
    }
    object
        .keys()
        .find(|name| name.eq_ignore_ascii_case(key))
        .map_or(key, String::as_str)
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Style {
    /// As Go writes generic values.
    Go,
    /// By RFC 8785.
    Canonical,
    /// By RFC 8785, members whose value is null left out; nulls in lists stay.
    CanonicalWithoutNulls,
    /// As Go writes it, but objects as lists of one-key objects and all numbers as doubles (`jsonNormalisation/v1`).
    Entries,
}

pub(crate) fn write_value(out: &mut String, value: &Value, style: Style) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number, style)),
        Value::String(text) => write_string(out, text, style),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, item, style);
            }
            out.push(']');
        }
        Value::Object(object) => write_object(out, object, style),
    }
}

pub(crate) fn write_object(out: &mut String, object: &Map<String, Value>, style: Style) {
    let mut entries: Vec<(&String, &Value)> = object
        .iter()
        .filter(|(_, value)| style != Style::CanonicalWithoutNulls || !value.is_null())
        .collect();
    match style {
        Style::Go | Style::Entries => entries.sort_unstable_by(|a, b| a.0.cmp(b.0)),
        Style::Canonical | Style::CanonicalWithoutNulls => {
            entries.sort_unstable_by(|a, b| by_utf16(a.0, b.0));
        }
    }
    let (open, between, close) = match style {
        Style::Entries => ("[", "},{", "]"),
        _ => ("{", ",", "}"),
    };
    let wrapped = style == Style::Entries && !entries.is_empty();
    out.push_str(open);
    if wrapped {
        out.push('{');
    }
    for (index, (key, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push_str(between);
        }
        write_string(out, key, style);
        out.push(':');
        write_value(out, value, style);
    }
    if wrapped {
        out.push('}');
    }
    out.push_str(close);
}

/// The order of UTF-16 code units (RFC 8785, 3.2.3).
pub(crate) fn by_utf16(a: &str, b: &str) -> Ordering {
    // From U+E000 on characters stand elsewhere than by the bytes of UTF-8.
    let is_apart = |text: &str| text.bytes().any(|byte| byte >= 0xee);
    if is_apart(a) || is_apart(b) {
        a.encode_utf16().cmp(b.encode_utf16())
    } else {
        a.cmp(b)
    }
}

/// Can the text stand between quotes as it is, in every style?
fn is_plain(text: &str) -> bool {
    let is_special = |byte: u8| {
        !(0x20..0x80).contains(&byte) || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
    };
    // In blocks that are looked at as a whole: no branch for each byte.
    let mut blocks = text.as_bytes().chunks(32);
    blocks.all(|block| {
        !block
            .iter()
            .fold(false, |found, byte| found | is_special(*byte))
    })
}

pub(crate) fn write_string(out: &mut String, text: &str, style: Style) {
    out.push('"');
    // Nearly all texts need no escape at all.
    if is_plain(text) {
        out.push_str(text);
        out.push('"');
        return;
    }
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}'
                if matches!(style, Style::Go | Style::Entries) =>
            {
                escape(out, character);
            }
            character if (character as u32) < 0x20 => escape(out, character),
            character => out.push(character),
        }
    }
    out.push('"');
}

fn escape(out: &mut String, character: char) {
    // Writing to a string does not end in an error.
    let _ = write!(out, "\\u{:04x}", character as u32);
}

fn number_text(number: &Number, style: Style) -> String {
    let is_exact = number.is_i64() || number.is_u64();
    if style == Style::Go && is_exact {
        return number.to_string();
    }
    number
        .as_f64()
        .map_or_else(|| number.to_string(), |value| double_text(value, style))
}

/// ECMAScript's `Number::toString` (RFC 8785, 3.2.2.3). Go's encoder differs for negative zero only.
fn double_text(value: f64, style: Style) -> String {
    if value == 0.0 {
        let negative = matches!(style, Style::Go | Style::Entries) && value.is_sign_negative();
        return if negative { "-0" } else { "0" }.to_owned();
    }
    let magnitude = value.abs();
    if (1e-6..1e21).contains(&magnitude) {
        // Rust prints the shortest digits that read back, without an exponent.
        return format!("{value}");
    }
    let text = format!("{value:e}");
    let signed: Cow<'_, str> = match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => {
            Cow::Owned(format!("{digits}e+{exponent}"))
        }
        _ => Cow::Borrowed(text.as_str()),
    };
    signed.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_and_canonical_forms() {
        for (input, go, canonical) in [
            (
                r#"{"b":1,"a":null}"#,
                r#"{"a":null,"b":1}"#,
                r#"{"a":null,"b":1}"#,
            ),
            (r#""<&>""#, r#""\u003c\u0026\u003e""#, r#""<&>""#),
            ("[1.50,1e21,-0.0]", "[1.5,1e+21,-0]", "[1.5,1e+21,0]"),
            (
                "[1e-7,0.000001,1e20]",
                "[1e-7,0.000001,100000000000000000000]",
                "[1e-7,0.000001,100000000000000000000]",
            ),
            (
                "12345678901234567890",
                "12345678901234567890",
                "12345678901234567000",
            ),
            (
                r#""\u0001\n\u2028""#,
                r#""\u0001\n\u2028""#,
                "\"\\u0001\\n\u{2028}\"",
            ),
            (
                "{\"\u{10000}\":1,\"\u{ffee}\":2}",
                "{\"\u{ffee}\":2,\"\u{10000}\":1}",
                "{\"\u{10000}\":1,\"\u{ffee}\":2}",
            ),
        ] {
            let value: Value = serde_json::from_str(input).expect(input);
            assert_eq!(to_sorted(&value), go, "{input}");
            assert_eq!(to_canonical(&value), canonical, "{input}");
        }
    }

    #[test]
    fn every_byte_is_escaped_where_it_must_be() {
        for at in [0, 1, 31, 32, 40] {
            for character in (0..0x180).filter_map(char::from_u32) {
                let text = format!("{}{character}{}", "a".repeat(at), "b".repeat(5));
                let written = to_canonical(&Value::from(text.as_str()));
                assert_eq!(written, serde_json::to_string(&text).expect("a text"));
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_utf16() {
        let keys = [
            "",
            "a",
            "ab",
            "a\u{7f}",
            "\u{e9}",
            "\u{d7ff}",
            "\u{10000}",
            "\u{10ffff}",
            "\u{e000}",
            "\u{ffff}",
        ];
        for (at, a) in keys.iter().enumerate() {
            for (other, b) in keys.iter().enumerate() {
                assert_eq!(by_utf16(a, b), at.cmp(&other), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn entry_lists() {
        for (input, expected) in [
            ("{}", "[]"),
            (
                r#"{"b":{"d":1,"c":[{}]},"a":null}"#,
                r#"[{"a":null},{"b":[{"c":[[]]},{"d":1}]}]"#,
            ),
            (r#"{"k":"<&>"}"#, r#"[{"k":"\u003c\u0026\u003e"}]"#),
            ("[12345678901234567890,1.50]", "[12345678901234567000,1.5]"),
        ] {
            let value: Value = serde_json::from_str(input).expect(input);
            let mut out = String::new();
            write_value(&mut out, &value, Style::Entries);
            assert_eq!(out, expected, "{input}");
        }
    }

    #[test]
    fn keys_match_in_any_case_but_exactly_first() {
        let value: Value = serde_json::from_str(r#"{"URL":1,"url":2,"FileName":3}"#).expect("json");
        let object = value.as_object().expect("object");
        assert_eq!(field(object, "url"), Some(&Value::from(2)));
        assert_eq!(field(object, "filename"), Some(&Value::from(3)));
        let many: Map<String, Value> = (0..40).map(|n| (format!("Key{n}"), n.into())).collect();
        assert_eq!(field(&many, "Key39"), Some(&Value::from(39)));
        assert_eq!(field(&many, "key39"), Some(&Value::from(39)));
        assert_eq!(field(&many, "key40"), None);
        assert_eq!(spelling(object, "fileName"), "FileName");
        assert_eq!(field(object, "absent"), None);
    }
}
