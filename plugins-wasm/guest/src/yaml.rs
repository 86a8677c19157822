//! Scalars in YAML and JSON texts, found by their paths and replaced where they stand: everything else stays as it is.
//!
//! This is no complete reader of YAML, and it is small for that: it knows how block and flow collections, quotes, comments
//! and block scalars are laid out, and refuses what it is not sure of.
//!
//! Invariant: a text that comes back was read again and differs in the values that were to be set, and in no other.

use std::ops::Range;

use serde_json::Value as Json;

use crate::Error;

/// Deepest nesting.
const DEPTH: usize = 100;
/// Names that are no text when they stand bare, in one version of YAML or another.
const WORDS: [&str; 10] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~"];

/// A step from the root of a document to a scalar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Into a map.
    Name(String),
    /// Into a list, from zero.
    Index(usize),
}

/// A scalar and where it stands.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The way to it.
    pub path: Vec<Key>,
    /// The document it is in, from zero.
    pub document: usize,
    /// What it says, as text; empty where it can't be told.
    pub value: String,
    span: Range<usize>,
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    /// Nothing behind a colon.
    Empty,
    /// Over several lines, with an anchor or a tag, an alias.
    Other(&'static str),
}

/// Reads `image.tag`, `hosts[0]`, `labels["app.kubernetes.io/name"]`.
///
/// # Errors
/// What is expected, in words.
pub fn path(text: &str) -> Result<Vec<Key>, &'static str> {
    let mut keys = Vec::new();
    let mut rest = text;
    loop {
        if let Some(inner) = rest.strip_prefix('[') {
            let (key, after) = bracket(inner).ok_or("expected `n]`, `\"key\"]` or `'key']`")?;
            keys.push(key);
            rest = after;
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
            if end == 0 {
                return Err("expected a key");
            }
            keys.push(Key::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        match rest.chars().next() {
            None => return Ok(keys),
            Some('.') if !rest[1..].starts_with('[') => rest = &rest[1..],
            Some('[') => {}
            Some(_) => return Err("expected `.`, `[` or the end"),
        }
    }
}

fn bracket(inner: &str) -> Option<(Key, &str)> {
    for quote in ['"', '\''] {
        if let Some(quoted) = inner.strip_prefix(quote) {
            let (key, rest) = quoted.split_once(quote)?;
            return Some((Key::Name(key.to_owned()), rest.strip_prefix(']')?));
        }
    }
    let (index, rest) = inner.split_once(']')?;
    let is_number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    Some((Key::Index(index.parse().ok().filter(|_| is_number)?), rest))
}

/// All scalars of a text, in its order.
///
/// # Errors
/// [`crate::Kind::InvalidContent`] with line and column for what is no YAML or is not understood here.
pub fn scalars(text: &str) -> Result<Vec<Scalar>, Error> {
    let mut reader = Reader { text, at: 0, levels: Vec::new(), found: Vec::new(), document: 0, open: Open::Root };
    reader.read().map_err(|(at, message)| placed(text, at, &message))?;
    Ok(reader.found)
}

fn placed(text: &str, at: usize, message: &str) -> Error {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Error::invalid_content(format!("line {line}, column {column}: {message}"))
}

impl Scalar {
    /// Has it that value already? A bare `1` is the number, a quoted one the text.
    pub fn has(&self, value: &Json) -> bool {
        let is_quoted = matches!(self.style, Style::Single | Style::Double);
        match value {
            Json::String(text) if is_quoted => *text == self.value,
            Json::String(text) => self.style == Style::Plain && *text == self.value && may_be_plain(text),
            other => self.style == Style::Plain && self.value == crate::written(other),
        }
    }

    /// Line and column in front of a message.
    pub fn refuse(&self, text: &str, message: &str) -> Error {
        placed(text, self.span.start, message)
    }
}

/// Sets values: texts, numbers, truth values, null.
///
/// A quoted text keeps its quotes; a bare one stays bare where every reader takes the new one for a text.
///
/// # Errors
/// [`crate::Kind::InvalidContent`] for a scalar that can't be replaced on its own (of several lines, with an anchor).
pub fn set(text: &str, edits: &[(&Scalar, Json)]) -> Result<String, Error> {
    let mut ordered: Vec<&(&Scalar, Json)> = Vec::with_capacity(edits.len());
    for edit in edits {
        let at = ordered.partition_point(|(scalar, _)| scalar.span.start < edit.0.span.start);
        ordered.insert(at, edit);
    }
    let edits = ordered;
    let (mut out, mut from) = (String::with_capacity(text.len() + 64), 0);
    for (scalar, value) in &edits {
        if scalar.span.start < from {
            return Err(scalar.refuse(text, "the value is set twice"));
        }
        out.push_str(&text[from..scalar.span.start]);
        out.push_str(&written(scalar, value).map_err(|why| scalar.refuse(text, why))?);
        from = scalar.span.end;
    }
    out.push_str(&text[from..]);
    check(text, &out, &edits)?;
    Ok(out)
}

/// Reads a new text again: the same scalars with the same values, but for those that were set.
fn check(old: &str, new: &str, edits: &[&(&Scalar, Json)]) -> Result<(), Error> {
    let (before, after) = (scalars(old)?, scalars(new)?);
    let same = before.len() == after.len()
        && before.iter().zip(&after).all(|(before, after)| {
            let edit = edits.iter().find(|(scalar, _)| scalar.span == before.span);
            let expected = edit.map_or_else(|| before.value.clone(), |(_, value)| plain_text(value));
            before.path == after.path && before.document == after.document && expected == after.value
        });
    if same { Ok(()) } else { Err(Error::internal("a value can't be written there without changing others")) }
}

fn plain_text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => crate::written(other),
    }
}

fn written(scalar: &Scalar, value: &Json) -> Result<String, &'static str> {
    let text = match (value, scalar.style) {
        (_, Style::Other(why)) => return Err(why),
        (Json::Array(_) | Json::Object(_), _) => return Err("only a text, a number, a truth value or null can be written"),
        (Json::String(text), Style::Single) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "''")),
        (Json::String(text), Style::Plain | Style::Empty) if may_be_plain(text) => text.clone(),
        // The escapes of JSON are among those of YAML. So are its numbers.
        (value, _) => crate::written(value),
    };
    Ok(if scalar.style == Style::Empty { format!(" {text}") } else { text })
}

/// Is a bare text the same text to every reader?
fn may_be_plain(text: &str) -> bool {
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "_./:@+-".contains(c);
    let first = text.chars().next().unwrap_or(' ');
    let is_version = text.matches('.').count() > 1 && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.chars().all(is_harmless)
        && !text.ends_with(':')
        && (first.is_ascii_alphabetic() || first == '/' || first == '_' || (first.is_ascii_digit() && is_version))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// A map or list that is open, with the way into it.
struct Level {
    indent: usize,
    is_list: bool,
    key: Key,
}

/// What may follow on deeper lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Anything: nothing is there yet.
    Root,
    /// The value of the last key or item, which had none so far.
    Value,
    /// More of the last plain scalar.
    Plain,
    /// Nothing.
    Closed,
}

type Fault = (usize, String);

struct Reader<'t> {
    text: &'t str,
    at: usize,
    levels: Vec<Level>,
    found: Vec<Scalar>,
    document: usize,
    open: Open,
}

impl<'t> Reader<'t> {
    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err((self.at, message.into()))
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// The rest of the line.
    fn line(&self) -> &'t str {
        let line = self.rest().split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn next_line(&mut self) {
        self.at += self.rest().find('\n').map_or(self.rest().len(), |end| end + 1);
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn read(&mut self) -> Result<(), Fault> {
        let is_other_break = |(at, c): &(usize, char)| match c {
            '\r' => !self.text[at + 1..].starts_with('\n'),
            c => matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}'),
        };
        if let Some((at, _)) = self.text.char_indices().find(is_other_break) {
            return Err((at, "a line break of a kind that not every reader knows".to_owned()));
        }
        self.at += self.text.starts_with('\u{feff}').then_some(3).unwrap_or_default();
        while self.at < self.text.len() {
            self.whole_line()?;
            self.next_line();
        }
        Ok(())
    }

    fn whole_line(&mut self) -> Result<(), Fault> {
        let line = self.line();
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        if content.trim_start().is_empty() || content.trim_start().starts_with('#') {
            return Ok(());
        }
        if content.starts_with('\t') {
            return self.fault("a tab in the indentation");
        }
        if indent == 0 && (line == "---" || line.starts_with("--- ") || line == "..." || line.starts_with('%')) {
            let is_start = line.starts_with("---");
            self.document += usize::from(is_start && !self.found.is_empty());
            self.levels.clear();
            self.open = Open::Root;
            self.at += if is_start { 3 } else { line.len() };
            self.blanks();
            return self.nothing_more("content behind `---` is not understood here");
        }
        self.at += indent;
        while self.levels.last().is_some_and(|level| level.indent > indent) {
            self.levels.pop();
        }
        let is_item = is_item(content);
        match self.levels.last() {
            Some(level) if level.indent < indent && self.open == Open::Plain => {
                self.last_is("the value goes over several lines");
                return Ok(());
            }
            Some(level) if level.indent < indent && self.open != Open::Value => return self.fault("this is indented too far"),
            Some(level) if level.indent == indent && level.is_list && !is_item => {
                self.levels.pop();
            }
            None if self.open != Open::Root => return self.fault("this is indented less than what is above"),
            _ => {}
        }
        self.entry(indent)
    }

    fn last_is(&mut self, why: &'static str) {
        if let Some(last) = self.found.last_mut() {
            last.style = Style::Other(why);
            last.value.clear();
        }
    }

    /// What starts in that column: items, keys, or a scalar.
    fn entry(&mut self, mut column: usize) -> Result<(), Fault> {
        loop {
            if self.levels.len() > DEPTH {
                return self.fault(format!("nested deeper than {DEPTH}"));
            }
            if is_item(self.line()) {
                self.enter(column, true, Key::Index(0))?;
                let start = self.at;
                self.at += 1;
                self.blanks();
                column += self.at - start;
                if self.is_line_done() {
                    self.value_to_come(start + 1);
                    return Ok(());
                }
                self.open = Open::Value;
                continue;
            }
            let Some((key, length)) = self.key()? else {
                return self.scalar();
            };
            self.enter(column, false, Key::Name(key))?;
            self.at += length;
            return self.value();
        }
    }

    /// Goes on in the map or list of that column, or opens one.
    fn enter(&mut self, column: usize, is_list: bool, key: Key) -> Result<(), Fault> {
        let open = self.open;
        match self.levels.last_mut() {
            Some(level) if level.indent == column && level.is_list == is_list => {
                level.key = match (&level.key, key) {
                    (Key::Index(index), Key::Index(_)) => Key::Index(index + 1),
                    (_, key) => key,
                };
            }
            Some(level) if level.indent == column && (!is_list || open != Open::Value) => {
                return self.fault("a list and a map in one place");
            }
            _ if open == Open::Closed || open == Open::Plain => return self.fault("this does not belong to anything"),
            _ => {
                // The value that was to come is a collection.
                if self.found.last().is_some_and(|last| last.style == Style::Empty && last.path == self.way()) {
                    self.found.pop();
                }
                self.levels.push(Level { indent: column, is_list, key });
            }
        }
        Ok(())
    }

    fn way(&self) -> Vec<Key> {
        self.levels.iter().map(|level| level.key.clone()).collect()
    }

    fn is_line_done(&self) -> bool {
        let line = self.line();
        let is_comment = line.starts_with('#') && (self.at == 0 || self.text[..self.at].ends_with([' ', '\t']));
        line.trim().is_empty() || is_comment
    }

    fn nothing_more(&mut self, message: &str) -> Result<(), Fault> {
        self.blanks();
        if self.is_line_done() { Ok(()) } else { self.fault(message) }
    }

    fn value_to_come(&mut self, at: usize) {
        self.push(String::new(), at..at, Style::Empty);
        self.open = Open::Value;
    }

    fn push(&mut self, value: String, span: Range<usize>, style: Style) {
        let (path, document) = (self.way(), self.document);
        self.found.push(Scalar { path, document, value, span, style });
    }

    /// The key that starts here, and its length with the colon.
    fn key(&self) -> Result<Option<(String, usize)>, Fault> {
        let line = self.line();
        if line.starts_with("? ") || line == "?" {
            return self.fault("keys behind `?` are not understood here");
        }
        if line.starts_with(['"', '\'']) {
            let Some(end) = closing(line) else {
                return Ok(None);
            };
            let rest = &line[end..];
            let colon = rest.len() - rest.trim_start().len();
            return match rest[colon..].strip_prefix(':') {
                Some(behind) if behind.is_empty() || behind.starts_with([' ', '\t']) => {
                    let key = unquoted(&line[..end]).ok_or((self.at, "an escape in a key that is not known here".to_owned()))?;
                    Ok(Some((key, end + colon + 1)))
                }
                _ => Ok(None),
            };
        }
        if line.starts_with(['[', '{', '&', '*', '!', '|', '>', '%', '@', '`', '#']) {
            return Ok(None);
        }
        let end = line.match_indices(':').map(|(at, _)| at).find(|at| {
            let behind = &line[at + 1..];
            behind.is_empty() || behind.starts_with([' ', '\t'])
        });
        let comment = line.find(" #").unwrap_or(line.len());
        let Some(end) = end.filter(|end| *end < comment) else {
            return Ok(None);
        };
        let key = line[..end].trim_end();
        if key.contains("{{") {
            return self.fault(TEMPLATE);
        }
        Ok(Some((key.to_owned(), end + 1)))
    }

    /// What stands behind a colon.
    fn value(&mut self) -> Result<(), Fault> {
        let colon = self.at;
        self.blanks();
        if self.is_line_done() {
            self.value_to_come(colon);
            return Ok(());
        }
        if self.at == colon {
            return self.fault("a blank is missing behind `:`");
        }
        if is_item(self.line()) {
            return self.fault("a list can't start behind a key");
        }
        self.scalar()
    }

    /// A scalar or a flow collection.
    fn scalar(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let mut marked = None;
        while self.line().starts_with(['&', '!']) {
            marked = Some(if self.line().starts_with('&') { "the value has an anchor: it is used elsewhere, too" } else { "the value has a tag" });
            self.at += self.line().find([' ', '\t']).unwrap_or(self.line().len());
            self.blanks();
        }
        self.open = Open::Closed;
        if self.is_line_done() {
            // A map or a list with an anchor may follow; a value that does not come is one that is not touched.
            self.open = Open::Value;
            return Ok(());
        }
        let line = self.line();
        let count = self.found.len();
        match line.as_bytes()[0] {
            b'"' | b'\'' => self.quoted()?,
            b'{' | b'[' => {
                let mut path = self.way();
                self.flow(&mut path)?;
                if marked.is_some() {
                    self.found[count..].iter_mut().for_each(|scalar| scalar.style = Style::Other("it is in a value with an anchor or a tag"));
                }
                return self.nothing_more("there is something behind a flow collection");
            }
            b'|' | b'>' => {
                self.push(String::new(), start..start, Style::Other("the value is a block of lines"));
                let parent = self.levels.last().map(|level| level.indent);
                self.skip_block(parent);
                return Ok(());
            }
            b'*' => {
                self.push(line.to_owned(), start..start, Style::Other("the value is an alias: it is written elsewhere"));
                self.at += line.len();
            }
            b'@' | b'`' | b'%' => return self.fault("no text starts with this character"),
            _ => self.plain()?,
        }
        if let (Some(why), Some(last)) = (marked, self.found.last_mut()) {
            last.style = Style::Other(why);
        }
        self.nothing_more("there is something behind the value")
    }

    fn quoted(&mut self) -> Result<(), Fault> {
        let Some(length) = closing(self.rest()) else {
            return self.fault("a quote does not close");
        };
        let quoted = &self.rest()[..length];
        let style = match (quoted.contains('\n'), unquoted(quoted).is_some(), quoted.starts_with('"')) {
            (true, ..) => Style::Other("the value goes over several lines"),
            (_, false, _) => Style::Other("the value has an escape that is not known here"),
            (_, _, true) => Style::Double,
            (_, _, false) => Style::Single,
        };
        self.push(unquoted(quoted).unwrap_or_default(), self.at..self.at + length, style);
        self.at += length;
        Ok(())
    }

    fn plain(&mut self) -> Result<(), Fault> {
        let line = self.line();
        let end = line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len());
        let text = line[..end].trim_end();
        if text.contains("{{") {
            self.at += text.find("{{").unwrap_or_default();
            return self.fault(TEMPLATE);
        }
        if text.contains(": ") || text.ends_with(':') {
            return self.fault("a map can't start here");
        }
        self.push(text.to_owned(), self.at..self.at + text.len(), Style::Plain);
        self.at += text.len();
        self.open = Open::Plain;
        Ok(())
    }

    /// Goes to the end of the last line of a block scalar.
    fn skip_block(&mut self, parent: Option<usize>) {
        loop {
            let end = self.at + self.rest().find('\n').map_or(self.rest().len(), |end| end + 1);
            let next = self.text[end..].split('\n').next().unwrap_or_default();
            let content = next.trim_start_matches(' ');
            let is_in = content.trim_end().is_empty() || parent.is_none_or(|parent| next.len() - content.len() > parent);
            let is_border = next.starts_with("---") || next.starts_with("...");
            if end >= self.text.len() || !is_in || is_border {
                return;
            }
            self.at = end;
        }
    }

    /// A flow collection, from its bracket to behind the closing one.
    fn flow(&mut self, path: &mut Vec<Key>) -> Result<(), Fault> {
        if path.len() > DEPTH {
            return self.fault(format!("nested deeper than {DEPTH}"));
        }
        let is_map = self.rest().starts_with('{');
        let end = if is_map { '}' } else { ']' };
        self.at += 1;
        if is_map && self.rest().starts_with('{') {
            self.at -= 1;
            return self.fault(TEMPLATE);
        }
        let mut index = 0;
        loop {
            self.flow_blanks();
            if self.rest().starts_with(end) {
                self.at += 1;
                return Ok(());
            }
            let key = if is_map { Key::Name(self.flow_key()?) } else { Key::Index(index) };
            index += 1;
            path.push(key);
            self.flow_value(path)?;
            path.pop();
            self.flow_blanks();
            match self.rest().chars().next() {
                Some(',') => self.at += 1,
                Some(c) if c == end => {}
                _ => return self.fault(format!("expected `,` or `{end}`")),
            }
        }
    }

    fn flow_blanks(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return;
            }
            self.next_line();
        }
    }

    fn flow_key(&mut self) -> Result<String, Fault> {
        let key = match self.rest().chars().next() {
            Some('"' | '\'') => {
                let length = closing(self.rest()).ok_or((self.at, "a quote does not close".to_owned()))?;
                let key = unquoted(&self.rest()[..length]);
                self.at += length;
                key.ok_or((self.at, "an escape in a key that is not known here".to_owned()))?
            }
            _ => {
                let end = self.rest().find([':', ',', '}', ']', '\n', '{', '[', '#']).unwrap_or(self.rest().len());
                let key = self.rest()[..end].trim_end().to_owned();
                if key.is_empty() || key.starts_with(['&', '*', '!', '?']) {
                    return self.fault("a key is expected");
                }
                self.at += end;
                key
            }
        };
        self.flow_blanks();
        if !self.rest().starts_with(':') {
            return self.fault("expected `:`");
        }
        self.at += 1;
        Ok(key)
    }

    fn flow_value(&mut self, path: &mut Vec<Key>) -> Result<(), Fault> {
        let colon = self.at;
        self.flow_blanks();
        let count = self.found.len();
        match self.rest().chars().next() {
            Some('{' | '[') => return self.flow(path),
            Some('"' | '\'') => self.quoted()?,
            Some(',' | '}' | ']') => self.push(String::new(), colon..colon, Style::Empty),
            Some('&' | '*' | '!' | '|' | '>' | '@' | '`' | '%') => return self.fault("this is not understood in a flow collection"),
            None => return self.fault("a flow collection does not close"),
            Some(_) => {
                let end = self.rest().find([',', '}', ']', '{', '[', '\n']).unwrap_or(self.rest().len());
                let line = &self.rest()[..end];
                let text = line[..line.find(" #").unwrap_or(line.len())].trim_end();
                if text.contains(": ") || text.ends_with(':') {
                    return self.fault("a map within a list needs braces here");
                }
                let span = self.at..self.at + text.len();
                self.push(text.to_owned(), span, Style::Plain);
                self.at += text.len();
                self.flow_blanks();
                if !self.rest().starts_with([',', '}', ']']) {
                    return self.fault("a text over several lines is not understood in a flow collection");
                }
            }
        }
        for scalar in &mut self.found[count..] {
            scalar.path.clone_from(path);
        }
        Ok(())
    }
}

const TEMPLATE: &str = "`{{` outside quotes: a template is not YAML before it is rendered";

fn is_item(line: &str) -> bool {
    line == "-" || line.starts_with("- ") || line.starts_with("-\t")
}

/// The length of a quoted text.
fn closing(text: &str) -> Option<usize> {
    let quote = text.chars().next()?;
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            '\\' if quote == '"' => drop(rest.next()),
            '\'' if quote == '\'' && rest.peek().is_some_and(|(_, next)| *next == '\'') => drop(rest.next()),
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// What a quoted text says; `None` for escapes that only YAML knows.
fn unquoted(quoted: &str) -> Option<String> {
    match quoted.strip_prefix('\'') {
        Some(inner) => Some(inner.strip_suffix('\'')?.replace("''", "'")),
        None => serde_json::from_str(quoted).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets the value at a path, `document` counted from zero.
    fn edited(text: &str, at: &str, value: &Json) -> Result<String, String> {
        let found = scalars(text).map_err(|error| error.message)?;
        let wanted = path(at).map_err(str::to_owned)?;
        let meant: Vec<_> = found.iter().filter(|scalar| scalar.path == wanted).collect();
        let [one] = meant.as_slice() else {
            return Err(format!("{} scalars", meant.len()));
        };
        set(text, &[(one, value.clone())]).map_err(|error| error.message)
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        let text = Json::from("x/y");
        for (before, at, value, after) in [
            ("a: b\n", "a", text.clone(), "a: x/y\n"),
            ("a:  'b'   # why\nc: d", "a", text.clone(), "a:  'x/y'   # why\nc: d"),
            ("a: \"b\"\r\nc: d\r\n", "a", text.clone(), "a: \"x/y\"\r\nc: d\r\n"),
            ("# top\na:\n  # in\n  b:\n    - c: 1\n      d: e # f\n    - c: 2\n", "a.b[0].d", text.clone(), "# top\na:\n  # in\n  b:\n    - c: 1\n      d: x/y # f\n    - c: 2\n"),
            ("a:\n- b\n- c\nd: e\n", "a[1]", text.clone(), "a:\n- b\n- x/y\nd: e\n"),
            ("a:\n-   - b\n    - c\n", "a[0][1]", text.clone(), "a:\n-   - b\n    - x/y\n"),
            ("- \n  a: b\n-\n  a: c\n", "[1].a", text.clone(), "- \n  a: b\n-\n  a: x/y\n"),
            ("a: {b: c, d: [e, 'f']} # g\n", "a.d[1]", text.clone(), "a: {b: c, d: [e, 'x/y']} # g\n"),
            ("a: {b: c,\n  d: e }\nf: g\n", "a.d", text.clone(), "a: {b: c,\n  d: x/y }\nf: g\n"),
            ("{\n\t\"a\": {\"b\": \"c\"},\n\t\"d\": 1\n}\n", "d", Json::from(2), "{\n\t\"a\": {\"b\": \"c\"},\n\t\"d\": 2\n}\n"),
            ("a: |\n  b: c\n  ---\n\n  d\nb: c\n", "b", text.clone(), "a: |\n  b: c\n  ---\n\n  d\nb: x/y\n"),
            ("- |\n a: b\n- a: c\n", "[1].a", text.clone(), "- |\n a: b\n- a: x/y\n"),
            ("a: b\n  c\nd: e\n", "d", text.clone(), "a: b\n  c\nd: x/y\n"),
            ("a: 'b\n\n  c: d'\nd: e\n", "d", text.clone(), "a: 'b\n\n  c: d'\nd: x/y\n"),
            ("a:\nb: c\n", "a", text.clone(), "a: x/y\nb: c\n"),
            ("a: # d\nb: c\n", "a", text.clone(), "a: x/y # d\nb: c\n"),
            ("a: &x\n  b: c\nd: *x\n", "a.b", text.clone(), "a: &x\n  b: x/y\nd: *x\n"),
            ("\"a b\": c\n", "[\"a b\"]", text.clone(), "\"a b\": x/y\n"),
            ("a: http://b:80/c#d\n", "a", text.clone(), "a: x/y\n"),
            ("%YAML 1.2\n---\na: b\n...\n", "a", text.clone(), "%YAML 1.2\n---\na: x/y\n...\n"),
            ("\u{feff}a: b\n", "a", text.clone(), "\u{feff}a: x/y\n"),
            ("a: b\n", "a", Json::from("1.20"), "a: \"1.20\"\n"),
            ("a: b\n", "a", Json::from("1.20.3"), "a: 1.20.3\n"),
            ("a: b\n", "a", Json::from("yes"), "a: \"yes\"\n"),
            ("a: b\n", "a", Json::from("c: d"), "a: \"c: d\"\n"),
            ("a: b\n", "a", Json::from(true), "a: true\n"),
            ("a: 'b'\n", "a", Json::from("it's"), "a: 'it''s'\n"),
            ("a: 'b'\n", "a", Json::from("c\nd"), "a: \"c\\nd\"\n"),
            ("a: \"b\"\n", "a", Json::Null, "a: null\n"),
        ] {
            assert_eq!(edited(before, at, &value).as_deref(), Ok(after), "{before}");
        }
    }

    #[test]
    fn what_is_not_sure_is_refused() {
        let long = format!("{}a{}", "[".repeat(200), "]".repeat(200));
        for (text, at, expected) in [
            ("a: b\n  c\n", "a", "line 1, column 4: the value goes over several lines"),
            ("a: |\n  b\n", "a", "a block of lines"),
            ("a: &x b\n", "a", "has an anchor"),
            ("a: !t b\n", "a", "has a tag"),
            ("a: &x {b: c}\n", "a.b", "with an anchor"),
            ("a: *x\n", "a", "is an alias"),
            ("a: b\na: c\n", "a", "2 scalars"),
            ("a: b\n---\na: c\n", "a", "2 scalars"),
            ("a: {{ .b }}\n", "a", "line 1, column 4: `{{` outside quotes"),
            ("a: x{{ .b }}\n", "a", "line 1, column 5: `{{` outside quotes"),
            ("{{ a }}: b\n", "a", "`{{` outside quotes"),
            ("a: b: c\n", "a", "a map can't start here"),
            ("a: 'b' c\n", "a", "something behind the value"),
            ("a: [b, c\n", "a", "line 2, column 1: a text over several lines"),
            ("a: 'b\n", "a", "a quote does not close"),
            ("a: b\n  c: d\ne: f\n", "e", "ok"),
            ("a: 'b'\n  c: d\n", "a", "line 2, column 3: this is indented too far"),
            ("\ta: b\n", "a", "a tab in the indentation"),
            ("  a: b\nc: d\n", "c", "indented less"),
            ("- a\nb: c\n", "b", "does not belong"),
            ("? a\n: b\n", "a", "keys behind `?`"),
            ("--- a\n", "a", "content behind `---`"),
            ("a: \"\\x41\"\n", "a", "an escape that is not known"),
            ("a: b\u{85}c: d\n", "a", "a line break of a kind"),
            ("a: b\rc: d\n", "a", "a line break of a kind"),
            (&long, "a", "nested deeper"),
        ] {
            let got = edited(text, at, &Json::from("x")).map_or_else(|error| error, |_| "ok".to_owned());
            assert!(got.contains(expected), "{text:?}: {got}");
        }
    }
}
