//! Bytes in and out: `Read` and `Write` over the host's streams, or over memory in tests.

use std::io::{self, BufRead, Read, Write};

use crate::error::Error;

/// What is asked for at once, in bytes: the host's window.
#[cfg(target_family = "wasm")]
pub(crate) const WINDOW: usize = 256 << 10;
/// What small writes are gathered to, in bytes.
const GATHER: usize = 64 << 10;

#[cfg(target_family = "wasm")]
pub(crate) use crate::wasm::{Handle, Kept, RawSink, RawSource};
#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::{Handle, Kept, RawSink, RawSource};

/// An input being read. Buffered already: small reads are cheap.
pub struct Source {
    raw: RawSource,
    chunk: Vec<u8>,
    at: usize,
}

impl Source {
    pub(crate) fn new(raw: RawSource) -> Self {
        Self { raw, chunk: Vec::new(), at: 0 }
    }

    /// The next bytes, as they come from the host; `None` at the end.
    ///
    /// # Errors
    /// What the source says: never take it for the end.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.at < self.chunk.len() {
            let rest = self.chunk.split_off(self.at);
            (self.chunk, self.at) = (Vec::new(), 0);
            return Ok(Some(rest));
        }
        self.raw.next_chunk()
    }

    /// All that is left, as a whole.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidContent`] for more than `limit` bytes, besides what the source says.
    pub fn read_all(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            all.extend_from_slice(&chunk);
            if all.len() > limit {
                return Err(Error::invalid_content(format!("it has more than {limit} bytes")));
            }
        }
        Ok(all)
    }

    /// The first `count` of the bytes to come, or all of them where there are fewer; they can still be read.
    ///
    /// # Errors
    /// What the source says.
    pub fn peek(&mut self, count: usize) -> Result<&[u8], Error> {
        while self.chunk.len() - self.at < count {
            let Some(more) = self.raw.next_chunk()? else {
                break;
            };
            self.chunk.drain(..self.at);
            self.at = 0;
            self.chunk.extend_from_slice(&more);
        }
        let end = self.chunk.len().min(self.at + count);
        Ok(&self.chunk[self.at..end])
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            self.chunk = self.raw.next_chunk()?.unwrap_or_default();
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// An output being written. Gathers small writes. A reader that went away is an error of kind
/// [`crate::Kind::ContentIo`]: return it.
pub struct Sink {
    raw: RawSink,
    gathered: Vec<u8>,
}

impl Sink {
    pub(crate) fn new(raw: RawSink) -> Self {
        Self { raw, gathered: Vec::new() }
    }

    /// Hands over what is gathered. Done for you when `produce` returns.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let gathered = std::mem::take(&mut self.gathered);
        self.raw.write(&gathered)
    }

    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn into_raw(self) -> RawSink {
        self.raw
    }

    /// Passes on all that is left of a source without looking at it: the bytes stay in the host.
    ///
    /// # Errors
    /// What the source says, or that the reader went away.
    pub fn pass_on(&mut self, source: &mut Source) -> Result<(), Error> {
        if source.at < source.chunk.len() {
            let rest = source.chunk.split_off(source.at);
            (source.chunk, source.at) = (Vec::new(), 0);
            self.write_all(&rest)?;
        }
        self.finish()?;
        self.raw.splice(&mut source.raw)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gathered.len() + bytes.len() > GATHER {
            self.finish()?;
        }
        if bytes.len() >= GATHER {
            self.raw.write(bytes)?;
        } else {
            self.gathered.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(self.finish()?)
    }
}
