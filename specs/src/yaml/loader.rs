//! From text to [`Node`]s: the events of a YAML parser, or JSON directly, made into a tree with positions.
//!
//! Invariant: work and memory are bounded by [`LoadOptions`] before they are spent; the tree is built
//! without recursion and never deeper than [`DEPTH_CEILING`], so walking it by recursion is safe.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use libyaml_safer::{Event, EventData, ScalarStyle};

use super::json::{self, NotRead, duplicate_key};
use super::parser::{BREAKS, Events, Fault, is_readable};
use super::scalar::{self, Plain, Scalars};
use super::{Map, Member, Node, Source, Span, Value, YamlError};

/// Default limit on the text, in bytes: 100,000 long steps or 20,000 long resources fit five times over.
pub const TEXT_LIMIT: usize = 128 << 20;
/// Default limit on nesting, in lists and maps within each other: hand-written documents stay below 20.
pub const DEPTH_LIMIT: usize = 128;
/// Highest nesting that options may ask for: trees are walked by recursion, and stacks are 2 MiB in threads.
pub const DEPTH_CEILING: usize = 256;
/// Default limit on nodes (scalars, lists, maps): a plan of 100,000 steps has about 1,500,000.
pub const NODE_LIMIT: usize = 4_000_000;
/// Default limit on nodes that aliases copy, and on nodes kept for them: far above honest use, far below a bomb.
pub const ALIAS_NODE_LIMIT: usize = 400_000;
/// Limit on bytes of text that aliases copy, and on those kept for them: a long text behind many aliases is a bomb, too.
pub(super) const ALIAS_TEXT_LIMIT: usize = 16 << 20;

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

/// The limits in force for one text.
pub(crate) struct Limits {
    depth: usize,
    nodes: usize,
    alias_nodes: usize,
}

impl Limits {
    /// For a text that was read within limits before.
    pub(crate) fn none() -> Self {
        Self {
            depth: DEPTH_CEILING,
            nodes: usize::MAX,
            alias_nodes: 0,
        }
    }

    /// Refuses a list or map that is the `depth`th from the root.
    pub(crate) fn check_depth(&self, depth: usize, at: Span) -> Result<(), YamlError> {
        if depth > self.depth {
            let message = format!("nested deeper than {} levels", self.depth);
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }
}

/// What of the limits is spent.
#[derive(Default)]
pub(crate) struct Budget {
    nodes: usize,
    copied: Weight,
    kept: Weight,
}

/// What a node takes, with everything in it.
#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    /// Bytes of keys and scalars.
    text: usize,
}

impl Weight {
    fn add(&mut self, more: Self) {
        self.nodes = self.nodes.saturating_add(more.nodes);
        self.text = self.text.saturating_add(more.text);
    }
}

impl Budget {
    /// Spends one node.
    pub(crate) fn node(&mut self, limits: &Limits, at: Span) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > limits.nodes {
            let message = format!("more than {} values", limits.nodes);
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }

    fn copies(&mut self, weight: Weight, limits: &Limits, at: Span) -> Result<(), YamlError> {
        self.copied.add(weight);
        self.nodes = self.nodes.saturating_add(weight.nodes);
        if self.copied.nodes > limits.alias_nodes || self.nodes > limits.nodes {
            let message = format!("aliases expand to more than {} values", limits.alias_nodes);
            return Err(YamlError::new(at, message));
        }
        if self.copied.text > ALIAS_TEXT_LIMIT {
            let message = format!("aliases expand to more than {ALIAS_TEXT_LIMIT} bytes of text");
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }

    fn keeps(&mut self, weight: Weight, limits: &Limits, at: Span) -> Result<(), YamlError> {
        self.kept.add(weight);
        if self.kept.nodes > limits.alias_nodes {
            let message = format!("anchors hold more than {} values", limits.alias_nodes);
            return Err(YamlError::new(at, message));
        }
        if self.kept.text > ALIAS_TEXT_LIMIT {
            let message = format!("anchors hold more than {ALIAS_TEXT_LIMIT} bytes of text");
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }
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

struct Builder<'s> {
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
    duplicates: Option<HashSet<Span>>,
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
    fn new(source: &'s Source, scalars: Scalars, limits: &'s Limits) -> Self {
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

    fn run(self, one: bool) -> Result<Stream, YamlError> {
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

/// Number of nodes and depth in lists and maps; recursion is bounded by [`DEPTH_CEILING`].
fn measure(node: &Node) -> (Weight, usize) {
    let mut weight = Weight { nodes: 1, text: 0 };
    let mut depth = 0;
    let mut children: Vec<&Node> = Vec::new();
    match &node.value {
        Value::String(text) => weight.text = text.len(),
        Value::List(items) => {
            depth = 1;
            children.extend(items);
        }
        Value::Map(map) => {
            depth = 1;
            weight.text = map.keys().map(String::len).sum();
            children.extend(map.values().map(|member| &member.node));
        }
        _ => {}
    }
    for child in children {
        let (more, below) = measure(child);
        weight.add(more);
        depth = depth.max(below + 1);
    }
    (weight, depth)
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

/// Advice for a line with `{{`.
pub(crate) const TEMPLATE_HINT: &str =
    "this looks like a Go template, which is not YAML before it is rendered";

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
