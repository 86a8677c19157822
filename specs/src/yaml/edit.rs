//! Edits of single values that leave every other byte of a YAML or JSON text as it is.
//!
//! Invariant: a text that comes back was read again and holds the same data but for the edited value;
//! otherwise there is an error and no text.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::emit::may_be_plain;
use super::loader::{TEMPLATE_HINT, bom_length, load_with_duplicates};
use super::parser::{BREAKS, is_readable};
use super::scalar::reads_as_text;
use super::{Node, Path, Segment, Source, Span, Value, YamlError, json};

/// One value to set.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// Which value.
    pub path: Path,
    /// Its new value: a text, number, truth value or null.
    pub value: Json,
    /// Whether a missing key is added, with the maps that lead to it.
    pub create: bool,
}

/// Why a text was not edited.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The text cannot be read.
    #[error("{0}")]
    Text(YamlError),
    /// The text is a template: `{{` stands outside quotes.
    #[error("`{{{{` outside quotes: a Go template is not YAML before it is rendered")]
    Template {
        /// Where it stands.
        span: Span,
    },
    /// The path leads nowhere.
    #[error("{path}: {message}")]
    Missing {
        /// The path of the edit.
        path: Path,
        /// How far it leads.
        message: String,
    },
    /// The value there, or the new one, is a list or a map.
    #[error("{path}: {message}")]
    NotScalar {
        /// The path of the edit.
        path: Path,
        /// Which of the two.
        message: String,
    },
    /// The value is written elsewhere and used here: by an alias or a merge.
    #[error("{path}: {message}")]
    Shared {
        /// The path of the edit.
        path: Path,
        /// What shares it.
        message: String,
    },
    /// A key on the path is in its map twice.
    #[error("{path}: the key at line {line} is there for the second time")]
    Duplicate {
        /// The path of the edit.
        path: Path,
        /// Line of the second key.
        line: u32,
    },
    /// Several documents of the text have the path.
    #[error("{path}: {count} documents of the text have this path")]
    Ambiguous {
        /// The path of the edit.
        path: Path,
        /// How many.
        count: usize,
    },
    /// No way to write the value there keeps all other data as it is.
    #[error("{path}: the value cannot be written there without changing others")]
    NotWritten {
        /// The path of the edit.
        path: Path,
    },
}

/// Sets values one after the other and changes nothing else: comments, order, quotes, line breaks stay.
///
/// A quoted value keeps its quotes; a bare one stays bare if Go and YAML 1.2 both read the new value as text.
/// In a text of several documents, an edit goes to the only document that has the path. Edits that change
/// nothing return the same text. Each edit that changes something reads the text twice.
///
/// # Errors
/// See [`EditError`]; the first edit that fails stops all.
pub fn edit(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    let mut current = Current::read(text.to_owned()).map_err(|unread| match unread {
        Unread::Text(error) => EditError::Text(error),
        Unread::Template(span) => EditError::Template { span },
    })?;
    for edit in edits {
        if let Some(next) = current.apply(edit)? {
            current = next;
        }
    }
    Ok(current.source.text().to_owned())
}

enum Unread {
    Text(YamlError),
    Template(Span),
}

/// A text and what it says.
struct Current {
    source: Arc<Source>,
    roots: Vec<Node>,
    duplicates: HashSet<Span>,
    /// Whether the text is JSON, and has to stay so.
    json: bool,
}

/// A replacement of bytes by text.
struct Splice {
    span: Span,
    text: String,
}

/// Where a path leads in one document.
enum Target<'t> {
    /// To a value, inside a flow collection or not.
    Value(&'t Node, bool),
    /// To a map without the next key: the map, what is left of the path, inside a flow collection or not.
    Gap(&'t Node, &'t [Segment], bool),
}

impl Current {
    fn read(text: String) -> Result<Self, Unread> {
        let source = Source::new("", text);
        let stream = load_with_duplicates(&source).map_err(|error| {
            if error.hint.as_deref() == Some(TEMPLATE_HINT) {
                Unread::Template(error.span)
            } else {
                Unread::Text(error)
            }
        })?;
        for root in &stream.documents {
            if let Some(span) = template(source.text(), root) {
                return Err(Unread::Template(span));
            }
        }
        let start = bom_length(source.text());
        let json = json::looks_like_json(&source.text()[start..]) && json::is_json(&source, start);
        Ok(Self {
            source,
            roots: stream.documents,
            duplicates: stream.duplicates,
            json,
        })
    }

    /// The text after one edit; `None` when it changes nothing.
    fn apply(&self, edit: &Edit) -> Result<Option<Self>, EditError> {
        if edit.value.is_array() || edit.value.is_object() {
            let message = "only a text, number, truth value or null can be written".to_owned();
            let path = edit.path.clone();
            return Err(EditError::NotScalar { path, message });
        }
        let (document, splices) = match self.find(edit)? {
            Some((document, Target::Value(node, flow))) => {
                if node.to_json() == edit.value {
                    return Ok(None);
                }
                (document, self.replacements(node, &edit.value, flow))
            }
            Some((document, Target::Gap(parent, rest, flow))) => {
                (document, self.insertion(parent, rest, &edit.value, flow))
            }
            None => (0, self.first_entry(edit)),
        };
        let expected = self.expected(document, edit);
        for splice in splices {
            let text = self.source.text();
            let (start, end) = (splice.span.start as usize, splice.span.end as usize);
            let new = [&text[..start], &splice.text, &text[end..]].concat();
            let Ok(next) = Self::read(new) else { continue };
            if next
                .roots
                .iter()
                .map(Node::to_json)
                .eq(expected.iter().cloned())
                && (next.json || !self.json)
            {
                return Ok(Some(next));
            }
        }
        let path = edit.path.clone();
        if self.source.text().contains('&') {
            let message = "the value is written once and used in several places".to_owned();
            return Err(EditError::Shared { path, message });
        }
        Err(EditError::NotWritten { path })
    }

    /// The data that the edited text must hold.
    fn expected(&self, document: usize, edit: &Edit) -> Vec<Json> {
        let mut data: Vec<Json> = self.roots.iter().map(Node::to_json).collect();
        if data.is_empty() {
            data.push(Json::Null);
        }
        if let Some(root) = data.get_mut(document) {
            set(root, edit.path.segments(), &edit.value);
        }
        data
    }

    /// The one document that the edit is for; `None` for a new entry in a text without documents.
    fn find<'t>(&'t self, edit: &'t Edit) -> Result<Option<(usize, Target<'t>)>, EditError> {
        let targets: Vec<_> = self
            .roots
            .iter()
            .map(|root| self.walk(root, &edit.path))
            .collect();
        if targets.is_empty() && edit.create {
            return Ok(None);
        }
        let mut first_error = None;
        let (mut values, mut gaps) = (Vec::new(), Vec::new());
        for (at, target) in targets.into_iter().enumerate() {
            match target {
                Ok(target @ Target::Value(..)) => values.push((at, target)),
                Ok(target @ Target::Gap(..)) => gaps.push((at, target)),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        if values.is_empty() && edit.create {
            // A new key goes where most of its path is.
            let left = |target: &Target<'_>| match target {
                Target::Gap(_, rest, _) => rest.len(),
                Target::Value(..) => 0,
            };
            let least = gaps.iter().map(|(_, gap)| left(gap)).min();
            values.extend(gaps.drain(..).filter(|(_, gap)| Some(left(gap)) == least));
        }
        let path = || edit.path.clone();
        match (values.len(), first_error) {
            (0, Some(error)) if gaps.is_empty() => Err(error),
            (0, _) => {
                let message = "there is no such key".to_owned();
                Err(EditError::Missing {
                    path: path(),
                    message,
                })
            }
            (1, _) => Ok(values.pop()),
            (count, _) => Err(EditError::Ambiguous {
                path: path(),
                count,
            }),
        }
    }

    fn walk<'t>(&'t self, root: &'t Node, path: &'t Path) -> Result<Target<'t>, EditError> {
        let mut node = root;
        let mut flow = false;
        for (at, segment) in path.segments().iter().enumerate() {
            let missing = |message: String| EditError::Missing {
                path: path.clone(),
                message,
            };
            let before = || Path::new(path.segments()[..at].iter().cloned());
            self.check_own(node, path)?;
            flow |= self.written(node).starts_with(['{', '[']);
            match (segment, &node.value) {
                (Segment::Key(_), Value::Null) => {
                    return Ok(Target::Gap(node, &path.segments()[at..], flow));
                }
                (Segment::Key(key), Value::Map(map)) => match map.get(key) {
                    None => return Ok(Target::Gap(node, &path.segments()[at..], flow)),
                    Some(member) => {
                        self.check_key(node, member.key, path)?;
                        node = &member.node;
                    }
                },
                (Segment::Index(index), Value::List(items)) => {
                    let message = || format!("`{}` has {} items", before(), items.len());
                    node = items.get(*index).ok_or_else(|| missing(message()))?;
                }
                (_, _) => return Err(missing(format!("`{}` is a {}", before(), node.kind()))),
            }
        }
        if matches!(node.value, Value::List(_) | Value::Map(_)) {
            self.check_own(node, path)?;
            let message = format!("the value there is a {}", node.kind());
            return Err(EditError::NotScalar {
                path: path.clone(),
                message,
            });
        }
        Ok(Target::Value(node, flow))
    }

    /// Refuses to go into what an alias stands for: it is written elsewhere.
    fn check_own(&self, node: &Node, path: &Path) -> Result<(), EditError> {
        let written = self.written(node);
        if !written.starts_with('*') {
            return Ok(());
        }
        let message =
            format!("the alias `{written}` on the way stands for a value written elsewhere");
        Err(EditError::Shared {
            path: path.clone(),
            message,
        })
    }

    fn check_key(&self, parent: &Node, key: Span, path: &Path) -> Result<(), EditError> {
        if self.duplicates.contains(&key) {
            let line = self.source.position(key.start).line;
            return Err(EditError::Duplicate {
                path: path.clone(),
                line,
            });
        }
        if key.start < parent.span.start || key.end > parent.span.end {
            let message = "a key on the way comes from a merge and is written elsewhere".to_owned();
            return Err(EditError::Shared {
                path: path.clone(),
                message,
            });
        }
        Ok(())
    }

    fn written(&self, node: &Node) -> &str {
        &self.source.text()[node.span.start as usize..node.span.end as usize]
    }

    /// Ways to write a value in place of another, best first.
    fn replacements(&self, node: &Node, value: &Json, flow: bool) -> Vec<Splice> {
        let old = self.written(node);
        let Json::String(text) = value else {
            let blank = if old.is_empty() { " " } else { "" };
            return vec![Splice {
                span: node.span,
                text: format!("{blank}{value}"),
            }];
        };
        let texts = match old.chars().next() {
            Some('"') => vec![Some(double(text))],
            Some('\'') => vec![single(text), Some(double(text))],
            Some('|' | '>') => vec![self.block(old, node.span, text), Some(double(text))],
            Some(_) => vec![self.plain(text, flow), Some(double(text))],
            None => [self.plain(text, flow), Some(double(text))]
                .map(|text| text.map(|text| format!(" {text}")))
                .to_vec(),
        };
        texts
            .into_iter()
            .flatten()
            .map(|text| Splice {
                span: node.span,
                text,
            })
            .collect()
    }

    fn plain(&self, text: &str, flow: bool) -> Option<String> {
        let fits = !self.json
            && may_be_plain(text)
            && reads_as_text(text)
            && !text.contains("{{")
            && !(flow && text.contains([',', '[', ']', '{', '}', '?']))
            && !(flow && text.starts_with(['-', ':']));
        fits.then(|| text.to_owned())
    }

    /// A new block scalar in place of an old one: same indentation, same comment behind the header.
    fn block(&self, old: &str, span: Span, text: &str) -> Option<String> {
        let line_break = if old.contains("\r\n") { "\r\n" } else { "\n" };
        let (header, lines) = old.split_once(line_break)?;
        let comment = header.find([' ', '\t']).map_or("", |at| &header[at..]);
        if header[..header.len() - comment.len()].contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let first = lines
            .split(BREAKS)
            .find(|line| !line.trim_start_matches(' ').is_empty())?;
        let indent = &first[..first.len() - first.trim_start_matches(' ').len()];
        let body = text.strip_suffix('\n').unwrap_or(text);
        let readable = |c: char| is_readable(c) && (c == '\n' || !BREAKS.contains(&c));
        if body.is_empty()
            || body.ends_with('\n')
            || body.starts_with([' ', '\t', '\n'])
            || !body.chars().all(readable)
        {
            return None;
        }
        let style = if body.contains('\n') {
            "|"
        } else {
            &header[..1]
        };
        let chomping = if body.len() == text.len() { "-" } else { "" };
        let mut new = format!("{style}{chomping}{comment}");
        for line in body.split('\n') {
            new.push_str(line_break);
            if !line.is_empty() {
                new.push_str(indent);
                new.push_str(line);
            }
        }
        if chomping.is_empty() && span.end as usize == self.source.text().len() {
            new.push_str(line_break);
        }
        Some(new)
    }

    /// Ways to add an entry to a map, to an empty value or to null.
    fn insertion(&self, parent: &Node, rest: &[Segment], value: &Json, flow: bool) -> Vec<Splice> {
        let old = self.written(parent);
        let Some(keys) = keys(rest) else {
            return Vec::new();
        };
        let text = match parent.as_map().map(|map| map.is_empty()) {
            None if old.is_empty() => format!(" {{{}}}", self.flow_entry(&keys, value)),
            None | Some(true) => format!("{{{}}}", self.flow_entry(&keys, value)),
            Some(false) if flow || old.starts_with('{') => {
                return self
                    .behind_flow_map(parent, &keys, value)
                    .into_iter()
                    .collect();
            }
            Some(false) => {
                return self
                    .behind_block_map(parent, &keys, value)
                    .into_iter()
                    .collect();
            }
        };
        vec![Splice {
            span: parent.span,
            text,
        }]
    }

    /// Behind the last entry of `{...}`.
    fn behind_flow_map(&self, parent: &Node, keys: &[&str], value: &Json) -> Option<Splice> {
        let inner = self.written(parent).strip_suffix('}')?;
        let content = inner.trim_end_matches(|c| c == ' ' || c == '\t' || BREAKS.contains(&c));
        let at = parent.span.start + content.len() as u32;
        let comma = if content.ends_with(',') { "" } else { "," };
        let text = format!("{comma} {}", self.flow_entry(keys, value));
        Some(Splice {
            span: Span { start: at, end: at },
            text,
        })
    }

    /// On lines of their own behind the line where the map ends.
    fn behind_block_map(&self, parent: &Node, keys: &[&str], value: &Json) -> Option<Splice> {
        let text = self.source.text();
        let first = parent.span.start as usize;
        let line_start = text[..first].rfind(BREAKS).map_or(0, |at| {
            at + text[at..].chars().next().map_or(1, char::len_utf8)
        });
        let before = text[line_start..first].trim_start_matches('\u{feff}');
        let indent = before.chars().count();
        if before.contains('\t') {
            return None;
        }
        let from = parent.span.end as usize;
        let at = from + text[from..].find(BREAKS).unwrap_or(text.len() - from);
        let line_break = self.line_break();
        let new = format!("{line_break}{}", self.block_entry(keys, value, indent));
        let at = at as u32;
        Some(Splice {
            span: Span { start: at, end: at },
            text: new,
        })
    }

    /// The first entry of a text that holds no data yet.
    fn first_entry(&self, edit: &Edit) -> Vec<Splice> {
        let text = self.source.text();
        let Some(keys) = keys(edit.path.segments()) else {
            return Vec::new();
        };
        let behind_line = text.len() > bom_length(text) && !text.ends_with(BREAKS);
        let before = if behind_line { self.line_break() } else { "" };
        let entry = self.block_entry(&keys, &edit.value, 0);
        let at = text.len() as u32;
        let text = format!("{before}{entry}{}", self.line_break());
        vec![Splice {
            span: Span { start: at, end: at },
            text,
        }]
    }

    fn line_break(&self) -> &'static str {
        if self.source.text().contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        }
    }

    fn block_entry(&self, keys: &[&str], value: &Json, indent: usize) -> String {
        let mut text = String::new();
        for (level, key) in keys.iter().enumerate() {
            if level > 0 {
                text.push_str(self.line_break());
            }
            text.push_str(&" ".repeat(indent + 2 * level));
            text.push_str(&self.bare_or_double(key, false));
            text.push(':');
        }
        text.push(' ');
        text.push_str(&self.scalar(value, false));
        text
    }

    fn flow_entry(&self, keys: &[&str], value: &Json) -> String {
        let Some((first, rest)) = keys.split_first() else {
            return self.scalar(value, true);
        };
        let inner = self.flow_entry(rest, value);
        let inner = if rest.is_empty() {
            inner
        } else {
            format!("{{{inner}}}")
        };
        format!("{}: {inner}", self.bare_or_double(first, true))
    }

    fn scalar(&self, value: &Json, flow: bool) -> String {
        match value {
            Json::String(text) => self.bare_or_double(text, flow),
            other => other.to_string(),
        }
    }

    fn bare_or_double(&self, text: &str, flow: bool) -> String {
        self.plain(text, flow).unwrap_or_else(|| double(text))
    }
}

/// The keys of a path without list items.
fn keys(segments: &[Segment]) -> Option<Vec<&str>> {
    segments
        .iter()
        .map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
        .collect()
}

/// Sets a value in data, adding the maps that lead to it.
fn set(data: &mut Json, segments: &[Segment], value: &Json) {
    let mut at = data;
    for segment in segments {
        let next = match segment {
            Segment::Key(key) => {
                if at.is_null() {
                    *at = Json::Object(serde_json::Map::new());
                }
                at.as_object_mut()
                    .map(|map| map.entry(key).or_insert(Json::Null))
            }
            Segment::Index(index) => at.as_array_mut().and_then(|items| items.get_mut(*index)),
        };
        let Some(next) = next else { return };
        at = next;
    }
    *at = value.clone();
}

/// The first `{{` of a Go template below a node: a map in a map's place, or part of a bare text.
fn template(text: &str, node: &Node) -> Option<Span> {
    let in_bare_text = |span: Span| {
        let written = text.get(span.start as usize..span.end as usize)?;
        let bare = !written.starts_with(['"', '\'', '|', '>']);
        (bare && written.contains("{{")).then_some(span)
    };
    match &node.value {
        Value::List(items) => items.iter().find_map(|item| template(text, item)),
        Value::Map(map) => {
            let written = &text[node.span.start as usize..node.span.end as usize];
            if written.starts_with("{{") {
                return Some(node.span);
            }
            map.values().find_map(|member| {
                in_bare_text(member.key).or_else(|| template(text, &member.node))
            })
        }
        _ => in_bare_text(node.span),
    }
}

/// In single quotes, when a reader gets the same text back.
fn single(text: &str) -> Option<String> {
    let fits = |c: char| is_readable(c) && !BREAKS.contains(&c) && c != '\u{feff}';
    let quoted = || format!("'{}'", text.replace('\'', "''"));
    text.chars().all(fits).then(quoted)
}

/// In double quotes, with escapes that JSON and YAML share.
fn double(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if !is_readable(c) || BREAKS.contains(&c) || c == '\u{feff}' => {
                quoted.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(text: &str, path: &str, value: Json, create: bool) -> Result<String, EditError> {
        let path = Path::parse(path).unwrap();
        edit(
            text,
            &[Edit {
                path,
                value,
                create,
            }],
        )
    }

    /// One text value set, all else the same.
    fn check(text: &str, path: &str, value: &str, expected: &str) {
        check_json(text, path, json!(value), expected);
    }

    fn check_json(text: &str, path: &str, value: Json, expected: &str) {
        let new = run(text, path, value.clone(), false);
        assert_eq!(new.as_deref(), Ok(expected), "{text:?}");
        // The same edit again changes nothing.
        assert_eq!(run(expected, path, value, false).as_deref(), Ok(expected));
    }

    fn check_create(text: &str, path: &str, value: Json, expected: &str) {
        assert!(run(text, path, value.clone(), false).is_err(), "{text:?}");
        let new = run(text, path, value, true);
        assert_eq!(new.as_deref(), Ok(expected), "{text:?}");
    }

    fn check_error(text: &str, path: &str, expected: &str) {
        let error = run(text, path, json!("new"), true)
            .expect_err(text)
            .to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }

    #[test]
    fn the_style_of_the_old_value_stays() {
        check("a: x # c\nb: y\n", "a", "new", "a: new # c\nb: y\n");
        check("a:   x   # c", "a", "new", "a:   new   # c");
        check("a: 'x' # c\n", "a", "it's", "a: 'it''s' # c\n");
        check(
            "a: \"x\" # c\n",
            "a",
            "q\"\\\t",
            "a: \"q\\\"\\\\\\t\" # c\n",
        );
        check("a: 'x'\n", "a", "1\n2", "a: \"1\\n2\"\n");
        check("a: one\n  two\nb: 1\n", "a", "new", "a: new\nb: 1\n");
        check(
            "a: \"one\n  two\"\nb: 1\n",
            "a",
            "new",
            "a: \"new\"\nb: 1\n",
        );
        check("a: 'x'\n", "a", "yes", "a: 'yes'\n");
        check(
            "'a': x\n\"b.c\": y\n",
            "[\"b.c\"]",
            "new",
            "'a': x\n\"b.c\": new\n",
        );
    }

    #[test]
    fn bare_text_stays_bare_only_where_every_reader_sees_text() {
        for text in [
            "1.20",
            "yes",
            "012",
            "1:30",
            "~",
            "",
            "2024-01-01",
            "<<",
            "a: b",
            "a #b",
            " a",
            "- a",
            "{{ .x }}",
            "0x1F",
            "!t",
            "*a",
        ] {
            check(
                "tag: x # c\n",
                "tag",
                text,
                &format!("tag: {} # c\n", json!(text)),
            );
        }
        for text in [
            "1.2.3",
            "a:b",
            "a#b",
            "x y",
            "sha256:ab",
            "-a",
            "ä",
            "{x",
            "a,b",
        ] {
            let bare = !text.starts_with('{');
            let written = if bare {
                text.to_owned()
            } else {
                json!(text).to_string()
            };
            check("tag: 1.10\n", "tag", text, &format!("tag: {written}\n"));
        }
        check("tag: 1.10\n", "tag", "1.10", "tag: \"1.10\"\n");
        check_json("a: x\n", "a", json!(5), "a: 5\n");
        check_json("a: 'x'\n", "a", json!(true), "a: true\n");
        check_json("a: 012 # c\n", "a", Json::Null, "a: null # c\n");
    }

    #[test]
    fn flow_and_json_stay_what_they_are() {
        check(
            "a: {b: x, c: [y, z]} # c\n",
            "a.b",
            "k:v",
            "a: {b: k:v, c: [y, z]} # c\n",
        );
        check(
            "a: {b: x, c: [y, z]}\n",
            "a.c[1]",
            "p,q",
            "a: {b: x, c: [y, \"p,q\"]}\n",
        );
        check(
            "{\"a\":{\"b\":\"x\"},\"c\":1}",
            "a.b",
            "\u{7f}/ü",
            "{\"a\":{\"b\":\"\\u007f/ü\"},\"c\":1}",
        );
        check("{\"a\": 1}", "a", "x", "{\"a\": \"x\"}");
        check("[x]", "[0]", "z", "[z]");
        check_json("[x]", "[0]", json!(1), "[1]");
    }

    #[test]
    fn lists_and_empty_values() {
        check(
            "a:\n- x\n- b: y # c\n",
            "a[1].b",
            "new",
            "a:\n- x\n- b: new # c\n",
        );
        check("a:\nb: 1\n", "a", "new", "a: new\nb: 1\n");
        check("a:   # c\nb:\n", "b", "new", "a:   # c\nb: new\n");
        check("a:\n-\n- x\n", "a[0]", "new", "a:\n- new\n- x\n");
        check("a: &x\nb: 1\n", "a", "new", "a: &x new\nb: 1\n");
        check("a: !!str 5 # c\n", "a", "new", "a: !!str new # c\n");
        check("a: ~\n", "a", "new", "a: new\n");
    }

    #[test]
    fn bytes_around_stay() {
        check(
            "a: x\r\n# c\r\nb: y\r\n",
            "a",
            "new",
            "a: new\r\n# c\r\nb: y\r\n",
        );
        check("\u{feff}a: x\nb: y\n", "b", "new", "\u{feff}a: x\nb: new\n");
        check(
            "ä: ö # ü\nß: x # 😀\n",
            "ß",
            "new",
            "ä: ö # ü\nß: new # 😀\n",
        );
        check("a:\tx\t# c\nb: y", "a", "new", "a:\tnew\t# c\nb: y");
        check(
            "# head\n\n---\n# c\na: x\n...\n# tail\n",
            "a",
            "new",
            "# head\n\n---\n# c\na: new\n...\n# tail\n",
        );
        check("? a\n: x\n", "a", "new", "? a\n: new\n");
        check(
            "a: x\u{85}b: y\u{2028}c: z\n",
            "c",
            "new",
            "a: x\u{85}b: y\u{2028}c: new\n",
        );
        check(
            "a: x\nb: {{\"{{\"}}\n"
                .replace("{{\"{{\"}}", "'{{ .x }}'")
                .as_str(),
            "a",
            "new",
            "a: new\nb: '{{ .x }}'\n",
        );
    }

    #[test]
    fn block_scalars_keep_their_tail() {
        check(
            "a: |\n  x\n  y\n\n\n# c\nb: 1\n",
            "a",
            "new",
            "a: |-\n  new\n\n\n# c\nb: 1\n",
        );
        check(
            "a: | # c\n  x\n\nb: 1\n",
            "a",
            "1\n2\n",
            "a: | # c\n  1\n  2\n\nb: 1\n",
        );
        check(
            "a: >-\n    x\n    y\nb: 1\n",
            "a",
            "new",
            "a: >-\n    new\nb: 1\n",
        );
        check(
            "a: >\n  x\nb: 1\n",
            "a",
            "1\n\n2",
            "a: |-\n  1\n\n  2\nb: 1\n",
        );
        check(
            "a: |+\n  x\n\n\nb: 1\n",
            "a",
            "new\n",
            "a: |\n  new\n\n\nb: 1\n",
        );
        check("a: |2\n   x\nb: 1\n", "a", "new", "a: \"new\"\nb: 1\n");
        check(
            "a: |\r\n  x\r\nb: 1\r\n",
            "a",
            "1\n2\n",
            "a: |\r\n  1\r\n  2\r\nb: 1\r\n",
        );
        check("a: |\n  x", "a", "new\n", "a: |\n  new\n");
        check(
            "a: |\n  {{ .x }}\nb: x\n",
            "b",
            "new",
            "a: |\n  {{ .x }}\nb: new\n",
        );
    }

    #[test]
    fn documents_anchors_merges() {
        check("a: x\n---\nb: x\n", "b", "new", "a: x\n---\nb: new\n");
        check("a: &x 1\nb: *x\n", "b", "new", "a: &x 1\nb: new\n");
        check(
            "a: &x {c: 1}\nb:\n  <<: *x\n  d: 2\n",
            "b.d",
            "new",
            "a: &x {c: 1}\nb:\n  <<: *x\n  d: new\n",
        );
        check("a: 1\na: 2\nb: x\n", "b", "new", "a: 1\na: 2\nb: new\n");
        check_error(
            "a: x\n---\na: y\n",
            "a",
            "2 documents of the text have this path",
        );
        check_error("a: &x 1\nb: *x\n", "a", "used in several places");
        check_error("a: &x {c: 1}\nb: *x\n", "a.c", "used in several places");
        check_error("a: &x {c: 1}\nb: *x\n", "b.c", "the alias `*x` on the way");
        check_error("a: &x {c: 1}\nb:\n  <<: *x\n", "b.c", "comes from a merge");
        check_error(
            "a: {c: 1}\na: {c: 2}\n",
            "a.c",
            "the key at line 2 is there for the second time",
        );
    }

    #[test]
    fn templates_and_wrong_paths_are_refused() {
        for text in [
            "a: {{ .x }}\n",
            "a: x\nb: {{ .y }}-z\n",
            "{{- if .a }}\na: x\n{{- end }}\n",
            "a: x-{{ .y }}\n",
            "{{ .k }}: 1\na: x\n",
        ] {
            check_error(text, "a", "a Go template");
        }
        check_error("a: [x", "a", "expected");
        check_error("a: x\n", "a.b", "`a` is a string");
        check_error("a: [x]\n", "a[1]", "`a` has 1 items");
        check_error("a: [x]\n", "a.b", "`a` is a list");
        check_error("a: {b: 1}\n", "a", "the value there is a map");
        check_error("a: \0x\n", "a", "U+0000");
        assert!(matches!(
            run("a: 1\n", "a", json!([1]), true),
            Err(EditError::NotScalar { .. })
        ));
        assert!(matches!(
            run("a: 1\n", "b", json!(1), false),
            Err(EditError::Missing { .. })
        ));
    }

    #[test]
    fn missing_keys_are_made_on_request() {
        check_create(
            "a: 1 # c\n\n# tail\n",
            "b",
            json!("x"),
            "a: 1 # c\nb: x\n\n# tail\n",
        );
        check_create(
            "a:\n  b: 1\nc: 2\n",
            "a.d",
            json!("yes"),
            "a:\n  b: 1\n  d: \"yes\"\nc: 2\n",
        );
        check_create(
            "a:\n  b: 1\n",
            "a.c.d",
            json!(1),
            "a:\n  b: 1\n  c:\n    d: 1\n",
        );
        check_create(
            "- a: 1\n- b: 2\n",
            "[0].c",
            json!(1),
            "- a: 1\n  c: 1\n- b: 2\n",
        );
        check_create("a: {b: 1}\n", "a.c.d", json!("x"), "a: {b: 1, c: {d: x}}\n");
        check_create("{\"a\": {}}", "a.c", json!("x"), "{\"a\": {\"c\": \"x\"}}");
        check_create("a:\nb: 1\n", "a.c", json!("x"), "a: {c: x}\nb: 1\n");
        check_create("a: 1", "b", json!(2), "a: 1\nb: 2");
        check_create("a: 1\r\n", "b.c", json!(2), "a: 1\r\nb:\r\n  c: 2\r\n");
        check_create(
            "# only this\n",
            "b.c",
            json!(2),
            "# only this\nb:\n  c: 2\n",
        );
        check_create("", "b", json!(2), "b: 2\n");
        check_create(
            "a: |\n  x\n\nb:\n  c: |\n    y\n\n\nd: 1\n",
            "b.e",
            json!(2),
            "a: |\n  x\n\nb:\n  c: |\n    y\n  e: 2\n\n\nd: 1\n",
        );
        check_create(
            "a: 1\n---\nb: {c: 1}\n",
            "b.d",
            json!(2),
            "a: 1\n---\nb: {c: 1, d: 2}\n",
        );
    }

    #[test]
    fn edits_build_on_each_other() {
        let edits = ["image.repository", "image.tag"].map(|path| Edit {
            path: Path::parse(path).unwrap(),
            value: json!("x"),
            create: true,
        });
        assert_eq!(
            edit("a: 1\n", &edits).as_deref(),
            Ok("a: 1\nimage:\n  repository: x\n  tag: x\n")
        );
        assert!(edit("a: {{ b\n", &[]).is_err());
        assert_eq!(edit("a: 1\n\n", &[]).as_deref(), Ok("a: 1\n\n"));
    }
}
