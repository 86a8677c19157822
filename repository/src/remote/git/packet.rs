//! Lines of git's protocol: four hexadecimal digits that say how long the line is, and the line.
//!
//! *Invariant*: a line is at most 64 KiB, and nothing is kept but the line that is arriving.

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use ocm_content::{ByteStream, Error, Result};

/// Longest line, its length included (gitprotocol-common).
const LINE: usize = 65_520;

/// What comes in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Data(Bytes),
    /// The end of a message.
    Flush,
    /// The end of a section.
    Delimiter,
    /// The end of an answer.
    End,
}

impl Packet {
    /// The line as text, without its end; `None` for what is no line.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Data(bytes) => std::str::from_utf8(bytes)
                .ok()
                .map(|text| text.strip_suffix('\n').unwrap_or(text)),
            _ => None,
        }
    }
}

/// Takes lines apart as they arrive.
pub(super) struct Packets {
    stream: ByteStream,
    buffer: BytesMut,
}

impl Packets {
    pub(super) fn new(stream: ByteStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Lines of an answer that is here already.
    pub(super) fn of(body: Bytes) -> Self {
        Self::new(Box::pin(futures::stream::iter([Ok(body)])))
    }

    /// The next line; `None` at the end of the answer.
    pub(super) async fn next(&mut self) -> Result<Option<Packet>> {
        if !self.fill(4).await? {
            return match self.buffer.is_empty() {
                true => Ok(None),
                false => Err(wrong("it ends within a line")),
            };
        }
        let digits = std::str::from_utf8(&self.buffer[..4]).ok();
        let digits = digits.filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let length = length.ok_or_else(|| wrong("a line does not begin with its length"))?;
        let special = match length {
            0 => Packet::Flush,
            1 => Packet::Delimiter,
            2 => Packet::End,
            4..=LINE => {
                if !self.fill(length).await? {
                    return Err(wrong("it ends within a line"));
                }
                self.buffer.advance(4);
                let line = self.buffer.split_to(length - 4).freeze();
                return Ok(Some(Packet::Data(line)));
            }
            _ => return Err(wrong("a line has an impossible length")),
        };
        self.buffer.advance(4);
        Ok(Some(special))
    }

    /// The next line, which has to be there.
    pub(super) async fn expect(&mut self) -> Result<Packet> {
        self.next().await?.ok_or_else(|| wrong("it ends too early"))
    }

    /// Are there `length` bytes?
    async fn fill(&mut self, length: usize) -> Result<bool> {
        while self.buffer.len() < length {
            match self.stream.next().await {
                Some(chunk) => self.buffer.extend_from_slice(&chunk?),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

pub(super) fn wrong(what: &str) -> Error {
    Error::invalid(format!("the git server's answer is malformed: {what}"))
}

/// Writes lines.
#[derive(Default)]
pub(super) struct Message(BytesMut);

impl Message {
    #[must_use]
    pub(super) fn line(mut self, text: &str) -> Self {
        let line = format!("{:04x}{text}\n", text.len() + 5);
        self.0.extend_from_slice(line.as_bytes());
        self
    }

    #[must_use]
    pub(super) fn delimiter(mut self) -> Self {
        self.0.extend_from_slice(b"0001");
        self
    }

    #[must_use]
    pub(super) fn flush(mut self) -> Self {
        self.0.extend_from_slice(b"0000");
        self
    }

    pub(super) fn bytes(self) -> Bytes {
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: &[u8]) -> String {
        // In the smallest pieces.
        let chunks: Vec<Result<Bytes>> = body
            .chunks(1)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut packets = Packets::new(Box::pin(futures::stream::iter(chunks)));
        let mut found = String::new();
        loop {
            match packets.next().await {
                Ok(Some(packet)) => match packet.text() {
                    Some(text) => found.push_str(&format!("{text:?} ")),
                    None => found.push_str(&format!("{packet:?} ")),
                },
                Ok(None) => return found,
                Err(error) => {
                    let text = error.to_string();
                    return found + text.rsplit(": ").next().unwrap_or_default();
                }
            }
        }
    }

    #[tokio::test]
    async fn lines_are_read_as_they_were_written() {
        let message = Message::default()
            .line("want x")
            .delimiter()
            .line("")
            .flush();
        assert_eq!(
            read(&message.bytes()).await,
            r#""want x" Delimiter "" Flush "#
        );
        for (body, expected) in [
            ("", ""),
            ("0002", "End "),
            ("0004", r#""" "#),
            ("000", "it ends within a line"),
            ("0009a", "it ends within a line"),
            ("00x0", "a line does not begin with its length"),
            ("+00a", "a line does not begin with its length"),
            ("0003", "a line has an impossible length"),
            ("ffff", "a line has an impossible length"),
            ("<htm", "a line does not begin with its length"),
        ] {
            assert_eq!(read(body.as_bytes()).await, expected, "{body}");
        }
    }
}
