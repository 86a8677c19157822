//! The event parser below the loader and the editor, made safe for any text.
//!
//! Invariant: no text makes it panic. The library takes three things for impossible: the end of the text
//! inside a block scalar, the end behind a backslash, and in a flow collection a comma right behind a tag.
//! The first two are met with a line break after the text, the third is looked for before parsing; what else
//! there may be is caught and reported as an error.

use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libyaml_safer::{Encoding, Event, Parser, Scanner, TokenData};

use super::builder::behind_properties;
use super::{DEPTH_CEILING, Span};

/// Line breaks as YAML 1.1 and its parser see them.
pub(crate) const BREAKS: [char; 5] = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// Why there is no next event.
pub(crate) enum Fault {
    /// The library's own error.
    Syntax(libyaml_safer::Error),
    /// Something that the library cannot cope with, and where, in bytes after the byte order mark.
    Other(Span, &'static str),
}

/// Events of one text.
pub(crate) struct Events<'s> {
    parser: Parser<Feed<'s>>,
    tag: Option<Span>,
    done: u32,
}

impl<'s> Events<'s> {
    /// Starts at the beginning of a text without byte order mark.
    pub(crate) fn new(text: &'s str) -> Self {
        let mut parser = Parser::new();
        // Left to guess, the library takes a text that starts with U+F000 or above for a damaged mark.
        parser.set_encoding(Encoding::Utf8);
        parser.set_input(Feed::new(text));
        Self {
            parser,
            tag: tag_before_comma(text),
            done: 0,
        }
    }

    /// The next event; after the end of the stream or a fault there is nothing to ask for.
    pub(crate) fn next(&mut self) -> Result<Event, Fault> {
        if let Some(span) = self.tag {
            return Err(Fault::Other(span, "a tag must be followed by a blank"));
        }
        match catch_unwind(AssertUnwindSafe(|| self.parser.parse())) {
            Ok(Ok(event)) => {
                self.done = event.end_mark.index as u32;
                Ok(event)
            }
            Ok(Err(error)) => Err(Fault::Syntax(error)),
            Err(_) => {
                let span = Span {
                    start: self.done,
                    end: self.done,
                };
                Err(Fault::Other(span, "the text behind this place is not YAML"))
            }
        }
    }
}

/// Feeds the parser the text, and a line break at the end.
struct Feed<'s> {
    text: &'s str,
    at: usize,
    tail: &'static [u8],
}

/// Bytes handed over at once. The parser turns them into characters of four bytes, so small pieces stay in
/// the processor's cache.
const FEED_BYTES: usize = 4096;

impl<'s> Feed<'s> {
    fn new(text: &'s str) -> Self {
        let tail: &[u8] = if text.ends_with(BREAKS) { b"" } else { b"\n" };
        Self { text, at: 0, tail }
    }
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Feed<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.text.len() {
            return Ok(self.tail);
        }
        let end = self.text.floor_char_boundary(self.at + FEED_BYTES);
        Ok(&self.text.as_bytes()[self.at..end])
    }

    fn consume(&mut self, amount: usize) {
        if self.at == self.text.len() {
            self.tail = &self.tail[amount.min(self.tail.len())..];
        } else {
            self.at = (self.at + amount).min(self.text.len());
        }
    }
}

/// Whether the parser's reader lets a character through.
pub(crate) fn is_readable(character: char) -> bool {
    matches!(
        character,
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
    )
}

/// Most places that are looked at closely; each costs one scan of the text before it.
const CANDIDATES: usize = 16;
/// Bytes that the scanner may run ahead of the parser, with a wide margin: its own limit is 1,024.
const LOOK_AHEAD: u64 = 8192;

/// Whether the text ends inside of a list or map that can only be a key: the scanner misses the key's colon before it tells
/// the tag. No such key is taken, whatever is in it.
fn is_in_key(text: &str, error: &libyaml_safer::Error) -> bool {
    let key = error
        .context_mark()
        .filter(|_| error.to_string().contains("could not find expected ':'"))
        .and_then(|mark| usize::try_from(mark.index).ok())
        .filter(|at| text.is_char_boundary(*at));
    key.is_some_and(|at| text[behind_properties(text, at)..].starts_with(['[', '{']))
}

/// The first tag with a comma right behind it.
fn tag_before_comma(text: &str) -> Option<Span> {
    let bytes = text.as_bytes();
    let mut candidates = 0;
    // The tag characters in a row end at the same place for all places among them.
    let mut end = 0;
    for (at, _) in text.match_indices('!') {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let starts = before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'!');
        if at >= end {
            end = at + bytes[at..].iter().take_while(|byte| in_tag(**byte)).count();
        }
        if !starts || bytes.get(end) != Some(&b',') {
            continue;
        }
        candidates += 1;
        if candidates > CANDIDATES {
            return None;
        }
        if is_tag(&text[..end], at as u64) {
            return Some(Span {
                start: at as u32,
                end: end as u32,
            });
        }
    }
    None
}

fn in_tag(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!;/?:@&=+$.%~*'()_-<>".contains(&byte)
}

/// Whether the scanner sees a tag at byte `at`; the text ends behind it.
fn is_tag(text: &str, at: u64) -> bool {
    let mut scanner = Scanner::new();
    scanner.set_encoding(Encoding::Utf8);
    scanner.set_input(Feed::new(text));
    let (mut depth, mut too_deep) = (0_usize, None);
    while let Some(token) = scanner.next() {
        let token = match token {
            Ok(token) => token,
            Err(error) => return is_in_key(text, &error),
        };
        match token.data {
            TokenData::Tag { .. } if token.start_mark.index == at => return true,
            TokenData::StreamEnd => return false,
            TokenData::FlowSequenceStart | TokenData::FlowMappingStart => depth += 1,
            TokenData::FlowSequenceEnd | TokenData::FlowMappingEnd => {
                depth = depth.saturating_sub(1)
            }
            _ => {}
        }
        // The scanner's work per token grows with the depth; the parser stops there, too.
        if depth > DEPTH_CEILING {
            let limit = *too_deep.get_or_insert(token.start_mark.index + LOOK_AHEAD);
            if token.start_mark.index > limit {
                return false;
            }
        }
    }
    false
}
