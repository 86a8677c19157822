//! The event parser below the loader and the editor, made safe for any text.
//!
//! Invariant: no text makes it panic. The library takes three things for impossible: the end of the text
//! inside a block scalar, the end behind a backslash, and in a flow collection a comma right behind a tag.
//! The first two are met with a line break after the text, the third is looked for before parsing; what else
//! there may be is caught and reported as an error.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libyaml_safer::{Encoding, Event, Parser, Scanner, TokenData};

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
    foreseen: Option<Fault>,
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
            foreseen: tag_before_comma(text),
            done: 0,
        }
    }

    /// The next event; after the end of the stream or a fault there is nothing to ask for.
    pub(crate) fn next(&mut self) -> Result<Event, Fault> {
        if let Some(fault) = self.foreseen.take() {
            return Err(fault);
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

/// Bytes that the scanner may run ahead of the parser, with a wide margin: its own limit is 1,024.
const LOOK_AHEAD: u64 = 8192;

/// The first tag with a comma right behind it, or what keeps the scanner from getting there.
///
/// What looks like one may stand in a scalar or a comment. So the scanner reads the text with a letter in place of the
/// exclamation mark: where it then sees a scalar begin, it would have seen a tag, and nothing else changes.
fn tag_before_comma(text: &str) -> Option<Fault> {
    let candidates = candidates(text);
    let last = *candidates.last_key_value()?.0;
    let mut bytes = text.as_bytes().to_vec();
    for at in candidates.keys() {
        bytes[*at as usize] = b'x';
    }
    let altered = String::from_utf8(bytes).ok()?;
    let mut scanner = Scanner::new();
    scanner.set_encoding(Encoding::Utf8);
    scanner.set_input(Feed::new(&altered));
    let (mut depth, mut too_deep) = (0_usize, None);
    for token in scanner {
        let token = match token {
            Ok(token) => token,
            Err(error) => return Some(Fault::Syntax(error)),
        };
        let at = token.start_mark.index;
        match token.data {
            TokenData::Scalar { .. } => {
                if let Some(end) = candidates.get(&at) {
                    let span = Span {
                        start: at as u32,
                        end: *end,
                    };
                    return Some(Fault::Other(span, "a tag must be followed by a blank"));
                }
            }
            TokenData::FlowSequenceStart | TokenData::FlowMappingStart => depth += 1,
            TokenData::FlowSequenceEnd | TokenData::FlowMappingEnd => {
                depth = depth.saturating_sub(1)
            }
            _ => {}
        }
        // The scanner's work per token grows with the depth; the parser stops there, too.
        let is_too_deep =
            depth > DEPTH_CEILING && at > *too_deep.get_or_insert(at.saturating_add(LOOK_AHEAD));
        if at > last || is_too_deep {
            return None;
        }
    }
    None
}

/// Places that look like a tag with a comma right behind it: where they start, and where they end.
fn candidates(text: &str) -> BTreeMap<u64, u32> {
    let bytes = text.as_bytes();
    let mut found = BTreeMap::new();
    // The tag characters in a row end at the same place for all places among them; so does the next `>` behind them.
    let (mut end, mut close) = (0, 0);
    for (at, _) in text.match_indices('!') {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        let starts = before.is_none_or(|byte| !byte.is_ascii_alphanumeric() && byte != b'!');
        if at >= end {
            end = at + bytes[at..].iter().take_while(|byte| in_tag(**byte)).count();
        }
        if at >= close {
            close = text[at..]
                .find('>')
                .map_or(text.len(), |length| at + length);
        }
        // A tag written out in full may have commas in it.
        let end = match bytes.get(at + 1) {
            Some(b'<') => close + 1,
            _ => end,
        };
        if starts && bytes.get(end) == Some(&b',') {
            found.insert(at as u64, end as u32);
        }
    }
    found
}

fn in_tag(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!;/?:@&=+$.%~*'()_-<>".contains(&byte)
}
