//! The short road for texts that are plain JSON: one pass, positions on every node.
//!
//! Invariant: strict RFC 8259. What is not JSON is left to the YAML reader, which may still make sense of it.

use super::limits::{Budget, Limits};
use super::scalar::{self, Plain, Scalars};
use super::{Map, Member, Node, Source, Span, Value, YamlError};

/// Why a text was not read as JSON.
pub(crate) enum NotRead {
    /// It is not JSON from this place on.
    Syntax {
        /// What JSON would have there.
        error: YamlError,
        /// Whether a value inside the outermost list or object was read before.
        began: bool,
    },
    /// It is JSON, and wrong all the same: a budget, a key twice.
    Refused(YamlError),
}

impl From<YamlError> for NotRead {
    fn from(error: YamlError) -> Self {
        Self::Refused(error)
    }
}

/// Whether the first character after blanks begins a JSON list, object or string.
pub(crate) fn looks_like_json(text: &str) -> bool {
    text.trim_start_matches(BLANKS).starts_with(['{', '[', '"'])
}

/// Reads the text from byte `start` on as exactly one JSON value.
pub(crate) fn read(source: &Source, start: usize, limits: &Limits) -> Result<Node, NotRead> {
    let mut reader = Reader {
        source,
        bytes: source.text().as_bytes(),
        at: start,
        limits,
        budget: Budget::default(),
        began: false,
    };
    reader.skip_blanks();
    let node = reader.value(1)?;
    reader.skip_blanks();
    if reader.at < reader.bytes.len() {
        return Err(reader.syntax("expected the end of the text"));
    }
    Ok(node)
}

/// Whether the text from byte `start` on is JSON.
pub(crate) fn is_json(source: &Source, start: usize) -> bool {
    read(source, start, &Limits::none()).is_ok()
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

struct Reader<'s> {
    source: &'s Source,
    bytes: &'s [u8],
    at: usize,
    limits: &'s Limits,
    budget: Budget,
    began: bool,
}

impl Reader<'_> {
    /// Reads one value; recursion ends at the depth limit.
    fn value(&mut self, depth: usize) -> Result<Node, NotRead> {
        let start = self.at;
        self.budget.node(self.limits, self.here())?;
        let value = match self.peek() {
            Some(b'{') => self.nested(depth, Self::object)?,
            Some(b'[') => self.nested(depth, Self::list)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err(self.syntax("expected a JSON value")),
        };
        self.began |= depth > 1;
        Ok(Node {
            value,
            span: self.since(start),
        })
    }

    fn nested(
        &mut self,
        depth: usize,
        read: fn(&mut Self, usize) -> Result<Value, NotRead>,
    ) -> Result<Value, NotRead> {
        self.limits.check_depth(depth, self.here())?;
        self.at += 1;
        self.skip_blanks();
        read(self, depth)
    }

    fn list(&mut self, depth: usize) -> Result<Value, NotRead> {
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_blanks();
            if self.eat(b']') {
                return Ok(Value::List(items));
            }
            self.comma("`,` or `]`")?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, NotRead> {
        let mut map = Map::new();
        if self.eat(b'}') {
            return Ok(Value::Map(map));
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.syntax("expected a key in double quotes"));
            }
            let name = self.string()?;
            let key = self.since(start);
            if let Some(first) = map.get(&name) {
                let first: &Member = first;
                return Err(duplicate_key(self.source, &name, first.key, key).into());
            }
            self.skip_blanks();
            if !self.eat(b':') {
                return Err(self.syntax("expected `:`"));
            }
            self.skip_blanks();
            let node = self.value(depth + 1)?;
            map.insert(name, Member { key, node });
            self.skip_blanks();
            if self.eat(b'}') {
                return Ok(Value::Map(map));
            }
            self.comma("`,` or `}`")?;
        }
    }

    fn comma(&mut self, expected: &str) -> Result<(), NotRead> {
        if !self.eat(b',') {
            return Err(self.syntax(format!("expected {expected}")));
        }
        self.skip_blanks();
        Ok(())
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotRead> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.syntax("expected a JSON value"));
        }
        self.at += word.len();
        Ok(value)
    }

    /// Go reads JSON through its YAML reader, so the number rules are the same.
    fn number(&mut self) -> Result<Value, NotRead> {
        let start = self.at;
        self.eat(b'-');
        let leading_zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || leading_zero && whole > 1 {
            return Err(self.syntax("expected a JSON number"));
        }
        if self.eat(b'.') && self.digits() == 0 {
            return Err(self.syntax("expected a digit"));
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            if self.digits() == 0 {
                return Err(self.syntax("expected a digit"));
            }
        }
        let text = self.slice(start, self.at);
        match scalar::resolve(Scalars::Go, text) {
            Plain::Number(number) => Ok(Value::Number(number)),
            _ => Err(NotRead::Refused(YamlError::new(
                self.since(start),
                format!("the number `{text}` is out of range"),
            ))),
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn string(&mut self) -> Result<String, NotRead> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let start = self.at;
            while self
                .peek()
                .is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f))
            {
                self.at += 1;
            }
            if text.is_empty() && self.peek() == Some(b'"') {
                text = self.slice(start, self.at).to_owned();
            } else {
                text.push_str(self.slice(start, self.at));
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.syntax("control characters must be escaped")),
                None => return Err(self.syntax("the string does not end")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotRead> {
        let start = self.at;
        self.at += 2;
        let escaped = match self.bytes.get(start + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => {
                self.at = start;
                return Err(self.syntax("unknown escape"));
            }
        };
        Ok(escaped)
    }

    /// One `\uXXXX`, or the two halves of a surrogate pair.
    fn unicode_escape(&mut self, start: usize) -> Result<char, NotRead> {
        let first = self.four_hex_digits()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            self.at += 2;
            units.push(self.four_hex_digits()?);
        }
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(character)), None) => Ok(character),
            _ => Err(NotRead::Refused(YamlError::new(
                self.since(start),
                "half of a surrogate pair is no character",
            ))),
        }
    }

    fn four_hex_digits(&mut self) -> Result<u16, NotRead> {
        let digits = self.bytes.get(self.at..self.at + 4);
        let value = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u16::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.syntax("expected four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Text between two offsets, both beside ASCII bytes and so on character boundaries.
    fn slice(&self, start: usize, end: usize) -> &str {
        self.source.text().get(start..end).unwrap_or_default()
    }

    fn here(&self) -> Span {
        self.since(self.at)
    }

    fn since(&self, start: usize) -> Span {
        Span {
            start: start as u32,
            end: self.at.max(start) as u32,
        }
    }

    fn syntax(&self, message: impl Into<String>) -> NotRead {
        let rest = self.source.text().get(self.at..).unwrap_or_default();
        let width = rest.chars().next().map_or(0, char::len_utf8);
        let span = Span {
            start: self.at as u32,
            end: (self.at + width) as u32,
        };
        NotRead::Syntax {
            error: YamlError::new(span, message),
            began: self.began,
        }
    }
}

/// The error for a key that a map has already, naming both places.
pub(crate) fn duplicate_key(source: &Source, name: &str, first: Span, second: Span) -> YamlError {
    let at = source.position(first.start);
    YamlError::new(
        second,
        format!(
            "the key `{name}` is here for the second time, first at line {} column {}",
            at.line, at.column
        ),
    )
    .with_hint("keep one of the two")
}
