//! From data to YAML text: block style, two blanks, lists at their parent's indentation.
//!
//! Invariant: what is written reads back as the same data, by Go's rules and by ours, and the bytes are
//! those of Go's `sigs.k8s.io/yaml` for the same order of keys. The one departure: a bare `<<`, which Go
//! writes and then reads as a merge, is quoted.

use std::cmp::Ordering;

use serde_json::Value as Json;

use super::scalar::{format_g_64, go_retypes};

/// Column after which a blank may become a line break; Go's default.
const WIDTH: usize = 80;
/// Blanks per level.
const STEP: usize = 2;
/// Longest key, in bytes, that may stand before its `:` on one line; longer ones get a `?`.
const SIMPLE_KEY_LIMIT: usize = 128;

/// Writes data as a YAML document, keys in the order they have.
///
/// Recursion follows the data's own depth, which every reader of this workspace bounds.
pub fn to_string(value: &Json) -> String {
    Emitter::new(false).document(value)
}

/// Writes data as a YAML document with the keys of every map in Go's order: letters by code point, digits
/// as numbers.
pub fn to_string_sorted(value: &Json) -> String {
    Emitter::new(true).document(value)
}

struct Emitter {
    out: String,
    /// Characters on the current line.
    column: usize,
    sorted: bool,
}

/// What a value follows; numbers are the indentation of the list or map around it.
#[derive(Clone, Copy)]
enum After {
    Nothing,
    Dash(usize),
    Key(usize),
    /// The `:` on a line of its own, below a `?`.
    LongKey(usize),
}

impl After {
    /// Indentation of continued lines of a scalar.
    fn scalar_indent(self) -> usize {
        match self {
            Self::Nothing => STEP,
            Self::Dash(indent) | Self::Key(indent) | Self::LongKey(indent) => indent + STEP,
        }
    }

    fn map_indent(self) -> usize {
        match self {
            Self::Nothing => 0,
            _ => self.scalar_indent(),
        }
    }

    fn list_indent(self) -> usize {
        match self {
            Self::Key(indent) => indent,
            _ => self.map_indent(),
        }
    }
}

impl Emitter {
    fn new(sorted: bool) -> Self {
        Self {
            out: String::new(),
            column: 0,
            sorted,
        }
    }

    fn document(mut self, value: &Json) -> String {
        self.value(value, After::Nothing);
        if self.column > 0 {
            self.out.push('\n');
        }
        self.out
    }

    fn value(&mut self, value: &Json, after: After) {
        match value {
            Json::Null => self.bare("null", after),
            Json::Bool(true) => self.bare("true", after),
            Json::Bool(false) => self.bare("false", after),
            Json::Number(number) => {
                let text = match number.as_f64() {
                    Some(value) if number.is_f64() => format_g_64(value),
                    _ => number.to_string(),
                };
                self.bare(&text, after);
            }
            Json::String(text) => {
                self.blank_unless(matches!(after, After::Nothing));
                self.scalar(text, after.scalar_indent(), false);
            }
            Json::Array(items) if items.is_empty() => self.bare("[]", after),
            Json::Array(items) => self.list(items, after),
            Json::Object(map) if map.is_empty() => self.bare("{}", after),
            Json::Object(map) => self.map(map, after),
        }
    }

    fn list(&mut self, items: &[Json], after: After) {
        let indent = after.list_indent();
        for (at, item) in items.iter().enumerate() {
            self.begin_entry(at == 0, indent, after);
            self.push('-');
            self.value(item, After::Dash(indent));
        }
    }

    fn map(&mut self, map: &serde_json::Map<String, Json>, after: After) {
        let indent = after.map_indent();
        let mut entries: Vec<(&String, &Json)> = map.iter().collect();
        if self.sorted {
            entries = merge_sort(entries, &|a, b| go_order(a.0, b.0));
        }
        for (at, (key, value)) in entries.into_iter().enumerate() {
            self.begin_entry(at == 0, indent, after);
            if key.len() <= SIMPLE_KEY_LIMIT && !key.contains(is_break) {
                self.scalar(key, indent + STEP, true);
                self.push(':');
                self.value(value, After::Key(indent));
            } else {
                self.push_str("? ");
                self.scalar(key, indent + STEP, false);
                self.line(indent);
                self.push(':');
                self.value(value, After::LongKey(indent));
            }
        }
    }

    /// The first entry of a list or map goes on after a dash, all others get a line of their own.
    fn begin_entry(&mut self, first: bool, indent: usize, after: After) {
        if first && !matches!(after, After::Key(_)) {
            self.pad(indent);
        } else {
            self.line(indent);
        }
    }

    fn bare(&mut self, text: &str, after: After) {
        self.blank_unless(matches!(after, After::Nothing));
        self.push_str(text);
    }

    fn scalar(&mut self, text: &str, indent: usize, key: bool) {
        match style(text, key) {
            Style::Plain => self.plain(text, indent, !key),
            Style::Single => self.single(text, indent, !key),
            Style::Double => self.double(text, indent, !key),
            Style::Literal => self.literal(text, indent),
        }
    }

    /// Only texts of one line are plain.
    fn plain(&mut self, text: &str, indent: usize, fold: bool) {
        let mut characters = text.chars().peekable();
        let mut blanks = false;
        while let Some(character) = characters.next() {
            let folds = character == ' ' && fold && !blanks && self.column > WIDTH;
            if folds && characters.peek() != Some(&' ') {
                self.line(indent);
            } else {
                self.push(character);
            }
            blanks = character == ' ';
        }
    }

    /// Only texts whose line breaks are not beside blanks are in single quotes.
    fn single(&mut self, text: &str, indent: usize, fold: bool) {
        self.push('\'');
        let mut characters = text.chars().peekable();
        let (mut blanks, mut breaks, mut first) = (false, false, true);
        while let Some(character) = characters.next() {
            let next = characters.peek();
            if character == ' ' {
                let folds = fold && !blanks && self.column > WIDTH && !first;
                if folds && next.is_some_and(|next| *next != ' ') {
                    self.line(indent);
                } else {
                    self.push(' ');
                }
                blanks = true;
            } else if is_break(character) {
                self.push_break(character);
                breaks = true;
            } else {
                if breaks {
                    self.pad(indent);
                }
                if character == '\'' {
                    self.push('\'');
                }
                self.push(character);
                (blanks, breaks) = (false, false);
            }
            first = false;
        }
        self.push('\'');
    }

    fn double(&mut self, text: &str, indent: usize, fold: bool) {
        // Go takes every character of a text that starts with a byte order mark for one.
        let escape_all = text.starts_with('\u{feff}');
        self.push('"');
        let mut characters = text.chars().peekable();
        let (mut blanks, mut first) = (false, true);
        while let Some(character) = characters.next() {
            let special = !is_printable(character) || is_break(character) || escape_all;
            if special || matches!(character, '"' | '\\') {
                self.escape(character);
                blanks = false;
            } else if character == ' ' {
                let next = characters.peek();
                if fold && !blanks && self.column > WIDTH && !first && next.is_some() {
                    let escaped = next == Some(&' ');
                    self.line(indent);
                    if escaped {
                        self.push('\\');
                    }
                } else {
                    self.push(' ');
                }
                blanks = true;
            } else {
                self.push(character);
                blanks = false;
            }
            first = false;
        }
        self.push('"');
    }

    fn escape(&mut self, character: char) {
        let code = character as u32;
        let short = match character {
            '\0' => "\\0",
            '\u{7}' => "\\a",
            '\u{8}' => "\\b",
            '\t' => "\\t",
            '\n' => "\\n",
            '\u{b}' => "\\v",
            '\u{c}' => "\\f",
            '\r' => "\\r",
            '\u{1b}' => "\\e",
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{85}' => "\\N",
            '\u{a0}' => "\\_",
            '\u{2028}' => "\\L",
            '\u{2029}' => "\\P",
            _ => {
                let text = match code {
                    0..=0xff => format!("\\x{code:02X}"),
                    0x100..=0xffff => format!("\\u{code:04X}"),
                    _ => format!("\\U{code:08X}"),
                };
                return self.push_str(&text);
            }
        };
        self.push_str(short);
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.push('|');
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.push_str(&STEP.to_string());
        }
        let mut backwards = text.chars().rev();
        let last = backwards.next().is_some_and(is_break);
        let both = last && backwards.next().is_none_or(is_break);
        if !last {
            self.push('-');
        } else if both {
            self.push('+');
        }
        self.push_break('\n');
        for character in text.chars() {
            if is_break(character) {
                self.push_break(character);
            } else {
                if self.column == 0 {
                    self.pad(indent);
                }
                self.push(character);
            }
        }
    }

    fn blank_unless(&mut self, at_start: bool) {
        if !at_start {
            self.push(' ');
        }
    }

    /// A new line, unless the last scalar ended with one, and its indentation.
    fn line(&mut self, indent: usize) {
        if self.column > 0 {
            self.push_break('\n');
        }
        self.pad(indent);
    }

    fn pad(&mut self, indent: usize) {
        while self.column < indent {
            self.push(' ');
        }
    }

    fn push(&mut self, character: char) {
        self.out.push(character);
        self.column += 1;
    }

    fn push_str(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn push_break(&mut self, character: char) {
        self.out.push(character);
        self.column = 0;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str, key: bool) -> Style {
    let shape = Shape::of(text);
    if text.contains('\n') {
        return if shape.literal && !key {
            Style::Literal
        } else {
            Style::Double
        };
    }
    if go_retypes(text) || key && shape.breaks {
        Style::Double
    } else if shape.plain {
        Style::Plain
    } else if shape.single {
        Style::Single
    } else {
        Style::Double
    }
}

/// Whether a text, read as a string, may stand bare in block style.
pub(crate) fn may_be_plain(text: &str) -> bool {
    Shape::of(text).plain
}

/// Which styles the characters of a text allow, in block context.
struct Shape {
    plain: bool,
    single: bool,
    literal: bool,
    breaks: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut shape = Self {
            plain: !begins_like_syntax(text),
            single: true,
            literal: true,
            breaks: false,
        };
        let mut before = None;
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let next = characters.peek().copied();
            let after_blank = before.is_none_or(|c| is_blank(c) || is_break(c) || c == '\0');
            let before_blank = next.is_none_or(is_blank);
            match character {
                ':' if before_blank => shape.plain = false,
                '#' if after_blank => shape.plain = false,
                ' ' if before.is_none() => shape.plain = false,
                ' ' if before.is_some_and(is_break) => (shape.plain, shape.single) = (false, false),
                _ => {}
            }
            if character == ' ' && next.is_none() {
                (shape.plain, shape.literal) = (false, false);
            }
            if !is_printable(character) || is_break(character) && before == Some(' ') {
                (shape.plain, shape.single, shape.literal) = (false, false, false);
            }
            if is_break(character) {
                (shape.plain, shape.breaks) = (false, true);
            }
            before = Some(character);
        }
        shape
    }
}

/// Whether the first characters would be taken for something else than text.
fn begins_like_syntax(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    let blank_follows = characters.next().is_none_or(is_blank);
    text.starts_with("---")
        || text.starts_with("...")
        || match first {
            None => true,
            Some('?' | ':' | '-') => blank_follows,
            Some(first) => "#,[]{}&*!|>'\"%@`".contains(first),
        }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t')
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What Go's encoder writes as it is; characters above U+FFFF are not among it.
fn is_printable(character: char) -> bool {
    matches!(
        character,
        '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}'
    )
}

/// The order in which Go's encoder writes keys.
fn go_order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = (0..a.len().min(b.len())).find(|at| a[*at] != b[*at]) else {
        return a.len().cmp(&b.len());
    };
    let (left, right) = (a[at], b[at]);
    match (left.is_alphabetic(), right.is_alphabetic()) {
        (true, true) => return left.cmp(&right),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero inside a number counts as a digit, not as a leading zero.
    let inside = (left == '0' || right == '0')
        && a[..at]
            .iter()
            .rev()
            .take_while(|c| c.is_ascii_digit())
            .any(|c| *c != '0');
    let number = |text: &[char]| {
        let digits = text.iter().take_while(|c| c.is_ascii_digit());
        digits.fold((i64::from(inside), 0), |(value, count), digit| {
            let digit = i64::from(digit.to_digit(10).unwrap_or_default());
            (value.wrapping_mul(10).wrapping_add(digit), count + 1)
        })
    };
    number(&a[at..])
        .cmp(&number(&b[at..]))
        .then(left.cmp(&right))
}

/// Sorts by an order that need not be total: Go's is not for numbers above 64 bits, and the standard
/// library may panic on such.
fn merge_sort<T: Copy>(items: Vec<T>, order: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let (left, right) = items.split_at(items.len() / 2);
    let left = merge_sort(left.to_vec(), order);
    let right = merge_sort(right.to_vec(), order);
    let mut merged = Vec::with_capacity(items.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if order(b, a) == Ordering::Less {
            right.next()
        } else {
            left.next()
        };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data as JSON, and the bytes that Go's library writes for it.
    fn check(json: &str, yaml: &str) {
        let data: Json = serde_json::from_str(json).unwrap();
        assert_eq!(to_string_sorted(&data), yaml, "{json}");
    }

    #[test]
    fn structure_is_as_go_writes_it() {
        check("null", "null\n");
        check("[]", "[]\n");
        check(
            r#"{"a":{},"b":[],"c":null,"d":[[1,[2]],{"x":[3],"y":{"z":1}}]}"#,
            "a: {}\nb: []\nc: null\nd:\n- - 1\n  - - 2\n- x:\n  - 3\n  \"y\":\n    z: 1\n",
        );
        check(
            "[1.0, 1e6, 1.5, 1e-7, 18446744073709551615, -0.0]",
            "- 1\n- 1e+06\n- 1.5\n- 1e-07\n- 18446744073709551615\n- -0\n",
        );
    }

    #[test]
    fn strings_are_quoted_only_where_needed() {
        check(
            r#"["yes","1:30","012","~","","2025-03-18T11:47:12Z","1.0","<<","1.2.3","nope"]"#,
            "- \"yes\"\n- \"1:30\"\n- \"012\"\n- \"~\"\n- \"\"\n- \"2025-03-18T11:47:12Z\"\n- \"1.0\"\n- \"<<\"\n- 1.2.3\n- nope\n",
        );
        check(
            r##"["# a","a #b","a: b","a:","- a","-a","'a'","a'b"," a","a ","[a","a,b","@a","---a"]"##,
            "- '# a'\n- 'a #b'\n- 'a: b'\n- 'a:'\n- '- a'\n- -a\n- '''a'''\n- a'b\n- ' a'\n- 'a '\n- '[a'\n- a,b\n- '@a'\n- '---a'\n",
        );
        check(
            r#"["a\tb","\u0000\u007f","😀","\ufeffa","ä"]"#,
            "- \"a\\tb\"\n- \"\\0\\x7F\"\n- \"\\U0001F600\"\n- \"\\uFEFF\\x61\"\n- ä\n",
        );
    }

    #[test]
    fn lines_are_literal_blocks() {
        check(
            r#"{"a":"x\ny","b":"x\n","c":"x\n\n","d":" x\ny\n","e":"x \ny","f":"\n"}"#,
            "a: |-\n  x\n  y\nb: |\n  x\nc: |+\n  x\n\nd: |2\n   x\n  y\ne: \"x \\ny\"\nf: |2+\n\n",
        );
        check(
            r#"[["x\ny"],{"k":["x\ny"]},{"a\nb":1}]"#,
            "- - |-\n    x\n    y\n- k:\n  - |-\n    x\n    y\n- ? |-\n    a\n    b\n  : 1\n",
        );
    }

    #[test]
    fn long_lines_fold_behind_column_80() {
        let word = "a".repeat(50);
        check(
            &format!(
                r#"{{"k":"{word} {word} {word}","q":"{word} {word} 'x: {word}","d":"{word}\t {word}  {word}"}}"#
            ),
            &format!(
                "d: \"{word}\\t {word}\n  \\ {word}\"\nk: {word} {word}\n  {word}\nq: '{word} {word}\n  ''x: {word}'\n"
            ),
        );
        let key = "k".repeat(129);
        check(&format!(r#"{{"{key}":[1]}}"#), &format!("? {key}\n: - 1\n"));
    }

    #[test]
    fn keys_are_in_gos_order() {
        check(
            r#"{"b":1,"a10":1,"a2":1,"B":1,"_":1,"a-":1,"ab":1,"a":1,"1":1}"#,
            "_: 1\n\"1\": 1\nB: 1\na: 1\na-: 1\na2: 1\na10: 1\nab: 1\nb: 1\n",
        );
        let data: Json = serde_json::from_str(r#"{"b":1,"a":{"d":1,"c":2}}"#).unwrap();
        assert_eq!(to_string(&data), "b: 1\na:\n  d: 1\n  c: 2\n");
    }
}
