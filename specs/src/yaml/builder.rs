//! From a YAML parser's events to a tree.
//!
//! *Invariant*: the tree is built without recursion and never deeper than the limits say.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use libyaml_safer::{Event, EventData, ScalarStyle};

use super::json::duplicate_key;
use super::limits::{Budget, Limits, Weight, measure};
use super::loader::{Stream, bom_length};
use super::parser::{BREAKS, Events, Fault, is_readable};
use super::scalar::{self, Plain, Scalars};
use super::{Map, Member, Node, Source, Span, Value, YamlError};

/// Builds the tree.
pub(super) struct Builder<'s> {
    source: &'s Source,
    scalars: Scalars,
    limits: &'s Limits,
    budget: Budget,
    /// Length of the byte order mark, which the parser does not see and its marks do not count.
    base: usize,
    anchors: HashMap<String, Anchor>,
    open: Vec<Frame>,
    root: Option<Node>,
    /// Keys that replace an earlier one, when that is no error.
    pub(super) duplicates: Option<HashSet<Span>>,
}

/// What an anchor stands for.
enum Anchor {
    /// The list or map that is being read.
    Open,
    /// A node that is complete, with what it takes and its depth.
    Done {
        node: Node,
        weight: Weight,
        depth: usize,
    },
}

/// A list or map that is being read.
struct Frame {
    kind: Kind,
    span: Span,
    /// End of the last child; of a merge, where it is written.
    last: u32,
    anchor: Option<String>,
}

enum Kind {
    List(Vec<Node>),
    Map(MapFrame),
}

#[derive(Default)]
struct MapFrame {
    map: Map,
    key: Option<Key>,
    /// Keys written in this map itself, kept from the first merge on.
    own: Option<HashSet<String>>,
}

enum Key {
    Name(String, Span),
    Merge,
}

impl<'s> Builder<'s> {
    pub(super) fn new(source: &'s Source, scalars: Scalars, limits: &'s Limits) -> Self {
        Self {
            source,
            scalars,
            limits,
            budget: Budget::default(),
            base: bom_length(source.text()),
            anchors: HashMap::new(),
            open: Vec::new(),
            root: None,
            duplicates: None,
        }
    }

    pub(super) fn run(self, one: bool) -> Result<Stream, YamlError> {
        let source = self.source;
        self.read(one).map_err(|mut error| {
            let line = source.position(error.span.start).line;
            error.hint = error.hint.or_else(|| hint_for(source.line(line)?));
            error
        })
    }

    fn read(mut self, one: bool) -> Result<Stream, YamlError> {
        let mut events = Events::new(&self.source.text()[self.base..]);
        let mut documents = Vec::new();
        loop {
            let event = events.next().map_err(|fault| self.fault(&fault))?;
            let span = self.span_of(&event);
            match event.data {
                EventData::StreamEnd => {
                    return Ok(Stream {
                        documents,
                        duplicates: self.duplicates.unwrap_or_default(),
                    });
                }
                EventData::DocumentStart { .. } if one && !documents.is_empty() => {
                    return Err(second_document(span));
                }
                EventData::DocumentStart { .. } => self.anchors.clear(),
                EventData::DocumentEnd { .. } => documents.extend(self.root.take()),
                other => self.take(other, span)?,
            }
        }
    }

    fn take(&mut self, event: EventData, span: Span) -> Result<(), YamlError> {
        match event {
            EventData::Scalar {
                anchor,
                tag,
                value,
                style,
                ..
            } => self.scalar(anchor, tag, value, style, span),
            EventData::Alias { anchor } => self.alias(&anchor, span),
            EventData::SequenceStart { anchor, tag, .. } => {
                self.start(Kind::List(Vec::new()), anchor, tag.is_some(), span)
            }
            EventData::MappingStart { anchor, tag, .. } => {
                let kind = Kind::Map(MapFrame::default());
                self.start(kind, anchor, tag.is_some(), span)
            }
            EventData::SequenceEnd | EventData::MappingEnd => self.end(span),
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        kind: Kind,
        anchor: Option<String>,
        tagged: bool,
        span: Span,
    ) -> Result<(), YamlError> {
        let span = self.without_properties(span, anchor.is_some() || tagged);
        if self.expects_key() {
            return Err(complex_key(span));
        }
        self.budget.node(self.limits, span)?;
        self.limits.check_depth(self.open.len() + 1, span)?;
        if let Some(anchor) = &anchor {
            self.anchors.insert(anchor.clone(), Anchor::Open);
        }
        self.open.push(Frame {
            kind,
            span,
            last: span.end,
            anchor,
        });
        Ok(())
    }

    fn end(&mut self, end: Span) -> Result<(), YamlError> {
        let Some(frame) = self.open.pop() else {
            return Ok(());
        };
        let value = match frame.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map(MapFrame { map, .. }) => Value::Map(map),
        };
        // A block ends where the parser notices it: at the next token. Its last child knows better.
        let end = if end.end > end.start {
            end.end
        } else {
            frame.last
        };
        let span = Span {
            start: frame.span.start,
            end: end.max(frame.span.start),
        };
        let node = Node { value, span };
        self.keep(frame.anchor, &node)?;
        self.place(node)
    }

    fn scalar(
        &mut self,
        anchor: Option<String>,
        tag: Option<String>,
        text: String,
        style: ScalarStyle,
        span: Span,
    ) -> Result<(), YamlError> {
        let span = self.without_properties(span, anchor.is_some() || tag.is_some());
        let (text, span) = match style {
            ScalarStyle::Literal | ScalarStyle::Folded => self.block_scalar(text, span),
            _ => (text, span),
        };
        let plain = style == ScalarStyle::Plain;
        if self.expects_key() {
            if plain && text == "<<" && tag.is_none() || is_tag(tag.as_deref(), "merge") {
                self.set_key(Key::Merge);
                return Ok(());
            }
            let value = match scalar::resolve(self.scalars, &text) {
                // No number for JSON, but its text is a fine key.
                Plain::NotJson(name) if plain && tag.is_none() => Value::String(name.to_owned()),
                _ => self.resolve(text, plain, tag, span)?,
            };
            let node = Node { value, span };
            self.keep(anchor, &node)?;
            let name = key_text(node)?;
            self.set_key(Key::Name(name, span));
            return Ok(());
        }
        self.budget.node(self.limits, span)?;
        let value = self.resolve(text, plain, tag, span)?;
        let node = Node { value, span };
        self.keep(anchor, &node)?;
        self.place(node)
    }

    fn alias(&mut self, name: &str, span: Span) -> Result<(), YamlError> {
        let (node, weight, depth) = match self.anchors.get(name) {
            Some(Anchor::Done {
                node,
                weight,
                depth,
            }) => (node, *weight, *depth),
            Some(Anchor::Open) => {
                let message = format!("the anchor `{name}` contains itself");
                return Err(YamlError::new(span, message));
            }
            None => {
                // Unnamed: a password that begins with a star and lacks its quotes is one, too.
                let message = "no anchor of this name above this place".to_owned();
                return Err(YamlError::new(span, message));
            }
        };
        self.budget.copies(weight, self.limits, span)?;
        self.limits.check_depth(self.open.len() + depth, span)?;
        let node = Node {
            value: node.value.clone(),
            span,
        };
        if self.expects_key() {
            let name = key_text(node)?;
            self.set_key(Key::Name(name, span));
            return Ok(());
        }
        self.place(node)
    }

    /// Remembers a complete node for aliases.
    fn keep(&mut self, anchor: Option<String>, node: &Node) -> Result<(), YamlError> {
        let Some(anchor) = anchor else {
            return Ok(());
        };
        let (weight, depth) = measure(node);
        self.budget.keeps(weight, self.limits, node.span)?;
        let done = Anchor::Done {
            node: node.clone(),
            weight,
            depth,
        };
        self.anchors.insert(anchor, done);
        Ok(())
    }

    /// Whether the next node is a key of the map that is being read.
    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Frame {
                kind: Kind::Map(MapFrame { key: None, .. }),
                ..
            })
        )
    }

    fn set_key(&mut self, key: Key) {
        if let Some(Frame {
            kind: Kind::Map(frame),
            ..
        }) = self.open.last_mut()
        {
            frame.key = Some(key);
        }
    }

    /// Puts a complete node where it belongs.
    fn place(&mut self, node: Node) -> Result<(), YamlError> {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.last = node.span.end;
        match &mut frame.kind {
            Kind::List(items) => items.push(node),
            Kind::Map(frame) => match frame.key.take() {
                Some(Key::Name(name, key)) => {
                    if let Some(first) = frame.insert(&name, key, node) {
                        return self.duplicate(&name, first, key);
                    }
                }
                Some(Key::Merge) => return frame.merge(node),
                None => return Err(complex_key(node.span)),
            },
        }
        Ok(())
    }

    /// A key is there twice: an error, unless the caller wants to know all of them.
    fn duplicate(&mut self, name: &str, first: Span, second: Span) -> Result<(), YamlError> {
        match &mut self.duplicates {
            None => Err(duplicate_key(self.source, name, first, second)),
            Some(duplicates) => {
                duplicates.insert(second);
                Ok(())
            }
        }
    }

    fn resolve(
        &self,
        text: String,
        plain: bool,
        tag: Option<String>,
        span: Span,
    ) -> Result<Value, YamlError> {
        let value = match tag {
            None if !plain => return Ok(Value::String(text)),
            None => scalar::resolve(self.scalars, &text),
            Some(tag) => return self.tagged(text, &tag, span),
        };
        match value {
            Plain::Text => Ok(Value::String(text)),
            other => plain_value(other, &text, span),
        }
    }

    /// Tags of YAML's own types convert, unknown ones are ignored, as in Go.
    fn tagged(&self, text: String, tag: &str, span: Span) -> Result<Value, YamlError> {
        let Some(kind) = tag.strip_prefix("tag:yaml.org,2002:") else {
            return Ok(Value::String(text));
        };
        let plain = scalar::resolve(self.scalars, &text);
        match (kind, plain) {
            ("binary", _) => binary(&text, span).map(Value::String),
            ("float", Plain::Number(number)) => Ok(number
                .as_f64()
                .and_then(serde_json::Number::from_f64)
                .map_or(Value::Null, Value::Number)),
            ("int", plain @ Plain::Number(_)) if !is_float(&plain) => {
                plain_value(plain, &text, span)
            }
            ("bool", plain @ Plain::Bool(_))
            | ("null", plain @ Plain::Null)
            | ("float", plain @ Plain::NotJson(_)) => plain_value(plain, &text, span),
            ("timestamp", _) if scalar::is_timestamp(&text) => Ok(Value::String(text)),
            ("int" | "bool" | "null" | "float" | "timestamp", _) => {
                let message = format!("`{text}` is not of the type that its tag `!!{kind}` names");
                Err(YamlError::new(span, message))
            }
            _ => Ok(Value::String(text)),
        }
    }

    fn span_of(&self, event: &Event) -> Span {
        self.span(event.start_mark.index, event.end_mark.index)
    }

    /// From the parser's offsets to ours; the line break that the parser gets added is outside the text.
    fn span(&self, start: u64, end: u64) -> Span {
        let length = self.source.text().len();
        let place = |index: u64| (index as usize + self.base).min(length) as u32;
        Span {
            start: place(start),
            end: place(end.max(start)),
        }
    }

    /// Moves the start of a span behind the anchor and the tag.
    fn without_properties(&self, span: Span, any: bool) -> Span {
        if !any {
            return span;
        }
        let start = behind_properties(self.source.text(), span.start as usize) as u32;
        Span {
            start: start.min(span.end.max(span.start)),
            end: span.end,
        }
    }

    /// Corrects a block scalar: its span ends with its last line of content, and the line break that
    /// the parser gets added is not part of its value.
    fn block_scalar(&self, mut text: String, span: Span) -> (String, Span) {
        let source = self.source.text();
        let range = &source[span.start as usize..span.end as usize];
        if span.end as usize == source.len()
            && !source.ends_with(BREAKS)
            && added_break_counts(range, &text)
        {
            text.pop();
        }
        let length = range
            .trim_end_matches(|c| c == ' ' || BREAKS.contains(&c))
            .len();
        let span = Span {
            start: span.start,
            end: span.start + length as u32,
        };
        (text, span)
    }

    fn fault(&self, fault: &Fault) -> YamlError {
        match fault {
            Fault::Syntax(error) => self.syntax(error),
            Fault::Other(span, message) => {
                let span = self.span(u64::from(span.start), u64::from(span.end));
                YamlError::new(span, *message)
            }
        }
    }

    fn syntax(&self, error: &libyaml_safer::Error) -> YamlError {
        let Some(mark) = error.problem_mark() else {
            return self.refused_character(error);
        };
        let start = self.span(mark.index, mark.index).start;
        let text = self.source.text();
        let width = text[start as usize..]
            .chars()
            .next()
            .map_or(0, char::len_utf8);
        let span = Span {
            start,
            end: start + width as u32,
        };
        let mut message = error.problem().to_owned();
        let mut hint = None;
        if let (Some(context), Some(mark)) = (error.context(), error.context_mark()) {
            let line = self
                .source
                .position(self.span(mark.index, mark.index).start)
                .line;
            message = format!("{message} {context} that starts at line {line}");
            hint = self.source.line(line).and_then(hint_for);
        }
        YamlError {
            span,
            message,
            hint,
        }
    }

    /// The parser's reader gives no mark: look for the character it must have met.
    fn refused_character(&self, error: &libyaml_safer::Error) -> YamlError {
        let text = self.source.text();
        let found = text
            .char_indices()
            .skip(usize::from(self.base > 0))
            .find(|(_, character)| !is_readable(*character));
        let Some((at, character)) = found else {
            return YamlError::new(Span::default(), error.problem());
        };
        let span = Span {
            start: at as u32,
            end: (at + character.len_utf8()) as u32,
        };
        let message = format!("the character U+{:04X} is not allowed", character as u32);
        let error = YamlError::new(span, message);
        if character == '\0' {
            return error.with_hint("save the file as UTF-8");
        }
        error.with_hint("write it as an escape in double quotes")
    }
}

impl MapFrame {
    /// Puts an entry; gives the place of the key if this map has it already.
    fn insert(&mut self, name: &str, key: Span, node: Node) -> Option<Span> {
        let overrides = match &mut self.own {
            None => false,
            Some(own) => own.insert(name.to_owned()),
        };
        let old = self.map.insert(name.to_owned(), Member { key, node })?;
        (!overrides).then_some(old.key)
    }

    /// Merges as Go does: what comes later wins, except that earlier maps of a list win over later ones.
    fn merge(&mut self, node: Node) -> Result<(), YamlError> {
        let own = || self.map.keys().cloned().collect();
        if self.own.is_none() {
            self.own = Some(own());
        }
        let span = node.span;
        let maps = match node.value {
            Value::Map(map) => vec![map],
            Value::List(items) => items
                .into_iter()
                .rev()
                .map(|item| match item.value {
                    Value::Map(map) => Ok(map),
                    _ => Err(merge_of_no_map(item.span)),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(merge_of_no_map(span)),
        };
        for map in maps {
            self.map.extend(map);
        }
        Ok(())
    }
}

fn is_float(plain: &Plain) -> bool {
    matches!(plain, Plain::Number(number) if number.is_f64())
}

fn plain_value(plain: Plain, text: &str, span: Span) -> Result<Value, YamlError> {
    match plain {
        Plain::Null => Ok(Value::Null),
        Plain::Bool(value) => Ok(Value::Bool(value)),
        Plain::Number(number) => Ok(Value::Number(number)),
        Plain::Text => Ok(Value::String(text.to_owned())),
        Plain::NotJson(_) => Err(YamlError::new(
            span,
            format!("`{text}` is a number that JSON cannot hold"),
        )
        .with_hint("quote it if text is meant")),
    }
}

/// The text that Go makes of a key.
fn key_text(node: Node) -> Result<String, YamlError> {
    match node.value {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(number) => Ok(scalar::number_as_go_text(&number)),
        Value::Null => Err(YamlError::new(node.span, "a key is missing")
            .with_hint("quote the key if an empty text or the word `null` is meant")),
        Value::List(_) | Value::Map(_) => Err(complex_key(node.span)),
    }
}

fn complex_key(span: Span) -> YamlError {
    YamlError::new(span, "a list or map cannot be a key")
}

fn merge_of_no_map(span: Span) -> YamlError {
    YamlError::new(span, "`<<` takes a map or a list of maps")
}

fn second_document(span: Span) -> YamlError {
    YamlError::new(span, "a second document starts here, only one is expected")
        .with_hint("put each document into a file of its own")
}

fn is_tag(tag: Option<&str>, kind: &str) -> bool {
    tag.and_then(|tag| tag.strip_prefix("tag:yaml.org,2002:")) == Some(kind)
}

fn binary(text: &str, span: Span) -> Result<String, YamlError> {
    let compact: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|error| YamlError::new(span, format!("`!!binary` is not base64: {error}")))?;
    String::from_utf8(bytes)
        .map_err(|_| YamlError::new(span, "`!!binary` holds bytes that are not UTF-8 text"))
}

/// The offset behind an anchor and a tag at `at`, and behind the blanks and comments that follow them.
pub(crate) fn behind_properties(text: &str, mut at: usize) -> usize {
    while text[at..].starts_with(['&', '!']) {
        let rest = &text[at..];
        let blank = rest.find(|c: char| c == ' ' || c == '\t' || BREAKS.contains(&c));
        let property = &rest[..blank.unwrap_or(rest.len())];
        // In flow collections a property may touch what follows: `[&a]`.
        let flow = property.find([',', ']', '}']);
        let flow = flow.filter(|_| !property.starts_with("!<"));
        at += flow.unwrap_or(property.len());
        at = behind_blanks(text, at);
    }
    at
}

fn behind_blanks(text: &str, mut at: usize) -> usize {
    loop {
        let rest = text[at..].trim_start_matches(|c| c == ' ' || c == '\t' || BREAKS.contains(&c));
        at = text.len() - rest.len();
        if !rest.starts_with('#') {
            return at;
        }
        at += rest.find(BREAKS).unwrap_or(rest.len());
    }
}

/// Whether the line break added at the end of a text became part of the value of the block scalar there.
fn added_break_counts(range: &str, value: &str) -> bool {
    let Some(header_end) = range.find(BREAKS) else {
        return false;
    };
    let header = &range[..header_end];
    if !value.ends_with('\n') || header.contains('-') && !header.contains('#') {
        return false;
    }
    let keep = header
        .split('#')
        .next()
        .is_some_and(|marks| marks.contains('+'));
    let last = range.rsplit(BREAKS).next().unwrap_or_default();
    if keep || last.contains(|c| c != ' ') {
        return true;
    }
    // A last line of blanks has content when it is longer than the scalar's indentation, which is what a
    // line lost between the text and the value: the first line that is not blank, else the longest.
    let blanks = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let lines = || range[header_end..].split(BREAKS);
    let (written, read) = match lines().find(|line| line.contains(|c| c != ' ')) {
        Some(first) => (blanks(first), blanks(value.trim_start_matches('\n'))),
        None => (
            lines().map(str::len).max().unwrap_or_default(),
            value.split('\n').map(str::len).max().unwrap_or_default(),
        ),
    };
    (read > 0 || written < last.len()) && last.len() > written.saturating_sub(read)
}

/// Advice for a line that the parser cannot read.
fn hint_for(line: &str) -> Option<String> {
    if line.contains("${") {
        return Some(
            "quote the expression: `key: '${...}'`, with inner single quotes doubled".into(),
        );
    }
    if line.contains("{{") {
        return Some(
            "this looks like a Go template, which is not YAML before it is rendered".into(),
        );
    }
    let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
    if line[..indentation].contains('\t') {
        return Some("indent with spaces, tabs are not allowed there".into());
    }
    None
}
