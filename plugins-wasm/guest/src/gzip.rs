//! Gzip behind a source: layers are compressed as a rule.
//!
//! There is no way back on purpose: the host compresses faster, and always in the same way. Give plain bytes, and let the step
//! that stores them (`tar.to.oci.transformer`, for example) compress them.
//!
//! Invariant: who reads to the end without an error has all bytes: checksum and length of every member are compared.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::Error;

/// What gzip data starts with.
pub const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// How far back deflate refers, in bytes.
const WINDOW: usize = 32 << 10;

/// Uncompresses one or more gzip members.
pub struct Reader<'s> {
    source: &'s mut dyn BufRead,
    inflate: Box<DecompressorOxide>,
    /// The last bytes of output, in a ring.
    window: Vec<u8>,
    /// Where the next byte goes.
    at: usize,
    /// Bytes that nobody has taken yet.
    ready: Range<usize>,
    stage: Stage,
    table: Vec<u32>,
    sum: u32,
    length: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In front of the first member, or of another one.
    First,
    Next,
    Body,
    End,
}

impl<'s> Reader<'s> {
    /// Nothing is read yet.
    pub fn new(source: &'s mut dyn BufRead) -> Self {
        // The polynomial of RFC 1952, least significant bit first.
        let step = |value: u32| if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
        Self {
            source,
            inflate: Box::default(),
            window: vec![0; WINDOW],
            at: 0,
            ready: 0..0,
            stage: Stage::First,
            table: (0..256).map(|byte| (0..8).fold(byte, |value, _| step(value))).collect(),
            sum: !0,
            length: 0,
        }
    }

    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes).map_err(cut_off)?;
        Ok(bytes)
    }

    /// Reads a header; `false` at the end.
    fn header(&mut self) -> io::Result<bool> {
        if self.stage == Stage::Next && self.source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let [m0, m1, method, flags, ..] = self.exactly::<10>()?;
        if [m0, m1] != MAGIC {
            let what = if self.stage == Stage::First { "this is no gzip data" } else { "gzip data has something else behind it" };
            return Err(damaged(what));
        }
        if method != 8 || flags & 0xe0 != 0 {
            return Err(damaged("gzip data of an unknown kind"));
        }
        if flags & 4 != 0 {
            let length = u16::from_le_bytes(self.exactly()?);
            for _ in 0..length {
                self.exactly::<1>()?;
            }
        }
        // A name and a comment, if they are there.
        for flag in [8, 16] {
            while flags & flag != 0 && self.exactly()? != [0] {}
        }
        if flags & 2 != 0 {
            self.exactly::<2>()?;
        }
        self.inflate.init();
        (self.sum, self.length) = (!0, 0);
        Ok(true)
    }

    /// Goes on until there is something to take, or nothing more to come.
    fn step(&mut self) -> io::Result<()> {
        if self.stage != Stage::Body {
            self.stage = if self.header()? { Stage::Body } else { Stage::End };
            return Ok(());
        }
        let input = self.source.fill_buf()?;
        let flags = if input.is_empty() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
        let (status, used, made) = decompress(&mut self.inflate, input, &mut self.window, self.at, flags);
        self.source.consume(used);
        self.ready = self.at..self.at + made;
        for byte in &self.window[self.ready.clone()] {
            self.sum = self.table[((self.sum ^ u32::from(*byte)) & 0xff) as usize] ^ (self.sum >> 8);
        }
        self.length = self.length.wrapping_add(made as u32);
        self.at = (self.at + made) % WINDOW;
        match status {
            TINFLStatus::Done => {
                let (sum, length) = (u32::from_le_bytes(self.exactly()?), u32::from_le_bytes(self.exactly()?));
                if (sum, length) != (!self.sum, self.length) {
                    return Err(damaged("gzip data is damaged: checksum or length differ"));
                }
                self.stage = Stage::Next;
                Ok(())
            }
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => Ok(()),
            TINFLStatus::FailedCannotMakeProgress => Err(damaged("gzip data is cut off")),
            _ => Err(damaged("gzip data is damaged")),
        }
    }
}

impl BufRead for Reader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.ready.is_empty() && self.stage != Stage::End {
            self.step()?;
        }
        Ok(&self.window[self.ready.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.ready.start = self.ready.end.min(self.ready.start + count);
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

fn damaged(message: &str) -> io::Error {
    Error::invalid_content(message).into()
}

fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("gzip data is cut off"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// `gzip -n` over this text, which has matches and literals: made by another program.
    const TEXT: &str = "hello hello hello hello, a longer text with hello in it\n";
    const GZIP: [u8; 56] = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x57, 0xc8, 0x40,
        0x27, 0x75, 0x14, 0x12, 0x15, 0x72, 0xf2, 0xf3, 0xd2, 0x53, 0x8b, 0x14, 0x4a, 0x52, 0x2b, 0x4a, 0x14, 0xca,
        0x33, 0x4b, 0x32, 0xa0, 0xf2, 0x99, 0x79, 0x0a, 0x99, 0x25, 0x5c, 0x00, 0x28, 0x0f, 0xb7, 0xdf, 0x38, 0x00,
        0x00, 0x00,
    ];

    fn read(bytes: &[u8], chunk: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut source = BufReader::with_capacity(chunk, bytes);
        Reader::new(&mut source).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Stored blocks: enough to go around the window several times.
    fn stored(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, 8 | 16 | 4 | 2, 0, 0, 0, 0, 0, 255, 3, 0, b'x', b'y', b'z'];
        out.extend_from_slice(b"name\0comment\0\x01\x02");
        for (at, block) in bytes.chunks(60_000).enumerate() {
            let length = block.len() as u16;
            out.push(u8::from((at + 1) * 60_000 >= bytes.len()));
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(&(!length).to_le_bytes());
            out.extend_from_slice(block);
        }
        let sum = bytes.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |value, _| if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 })
        });
        out.extend_from_slice(&(!sum).to_le_bytes());
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out
    }

    #[test]
    fn members_come_out_as_they_went_in() {
        let long: Vec<u8> = (0..300_000u32).map(|n| (n.wrapping_mul(n) / 7) as u8).collect();
        for chunk in [1, 7, 4096, 1 << 20] {
            assert_eq!(read(&GZIP, chunk).unwrap(), TEXT.as_bytes());
            let twice = [&GZIP[..], &stored(&long)].concat();
            assert!(read(&twice, chunk).unwrap() == [TEXT.as_bytes(), &long].concat(), "chunks of {chunk}");
        }
    }

    #[test]
    fn damage_is_found() {
        let mut sum = GZIP;
        sum[GZIP.len() - 8] ^= 1;
        let mut length = GZIP;
        length[GZIP.len() - 1] ^= 1;
        let trailing = [&GZIP[..], b"a longer tail"].concat();
        for (bytes, expected) in [
            (&b""[..], "cut off"),
            (b"hello, this is not gzip", "no gzip data"),
            (&GZIP[..5], "cut off"),
            (&GZIP[..20], "cut off"),
            (&GZIP[..GZIP.len() - 1], "cut off"),
            (&sum, "checksum or length"),
            (&length, "checksum or length"),
            (&trailing, "something else behind"),
        ] {
            let error = read(bytes, 7).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}
