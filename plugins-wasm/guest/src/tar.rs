//! Tars as streams: member by member, so that what is looked at is never whole in memory.
//!
//! Invariant: what is passed on is passed on byte for byte, headers, padding and what follows the end included; of the
//! header of a member that is changed the size and the checksum change, in the form they had, and nothing else.

use std::io::{BufRead, Write};

use crate::Error;

/// Size of a header and of what content is padded to, in bytes.
const BLOCK: usize = 512;
/// Longest extended header that is kept (long names), in bytes.
const EXTENDED: u64 = 1 << 20;

/// One member, before its content.
pub struct Member {
    /// Its path, as far as the header or an extended one says it; without `./` in front.
    pub path: String,
    /// Bytes of content.
    pub size: u64,
    /// Is it a regular file with its content as it is?
    pub is_file: bool,
    header: [u8; BLOCK],
    /// Extended headers in front of it.
    front: Vec<Extended>,
}

struct Extended {
    header: [u8; BLOCK],
    /// With its padding.
    content: Vec<u8>,
    size: usize,
}

/// What to do with a member's content.
pub enum Keep {
    /// Pass it on.
    AsIs,
    /// Leave the member out.
    Drop,
    /// Read it (at most so many bytes) and write what comes of it.
    Change(u64),
}

/// Walks through a tar and writes what is kept of it: from a [`crate::Source`] or a decompressor behind it, into a
/// [`crate::Sink`].
///
/// # Errors
/// [`crate::Kind::InvalidContent`] with the byte for what is no tar, and what reading and writing give.
pub fn rewrite(
    source: &mut dyn BufRead,
    sink: &mut dyn Write,
    keep: &mut dyn FnMut(&Member) -> Result<Keep, Error>,
    change: &mut dyn FnMut(&Member, Vec<u8>) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    let mut tar = Reader::new(source);
    while let Some(member) = tar.next_member()? {
        match keep(&member)? {
            Keep::AsIs => tar.pass_on(&member, sink)?,
            Keep::Drop => {}
            Keep::Change(limit) => {
                let content = tar.read(&member, limit)?;
                let changed = change(&member, content.clone())?;
                if changed == content {
                    member.write_front(sink)?;
                    sink.write_all(&content)?;
                    // What fills the last block is passed on as well, in case it is no zeroes.
                    tar.copy(Some(sink))?;
                } else {
                    member.write_changed(&changed, sink)?;
                }
            }
        }
    }
    tar.pass_on_end(sink)
}

/// Reads a tar member by member.
pub struct Reader<'s> {
    source: &'s mut dyn BufRead,
    /// Bytes read, for messages.
    at: u64,
    /// What is left of the member at hand, padding included.
    left: u64,
    /// The block of zeroes that ended the members, if there was one.
    end: Option<[u8; BLOCK]>,
    started: bool,
}

impl<'s> Reader<'s> {
    /// Nothing is read yet.
    pub fn new(source: &'s mut dyn BufRead) -> Self {
        Self { source, at: 0, left: 0, end: None, started: false }
    }

    /// The next member; what was not read of the one before is skipped.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidContent`] with the byte for what is no tar, and what reading gives.
    pub fn next_member(&mut self) -> Result<Option<Member>, Error> {
        self.copy(None)?;
        let (mut front, mut path, mut sized, mut sparse) = (Vec::new(), None, None, false);
        loop {
            let at = self.at;
            if self.source.fill_buf()?.is_empty() {
                return match (self.started, front.is_empty()) {
                    (false, _) => Err(broken("this is no tar: it is empty", at)),
                    (true, false) => Err(broken("the tar ends behind an extended header", at)),
                    (true, true) => Ok(None),
                };
            }
            let mut header = [0; BLOCK];
            self.read_exact(&mut header)?;
            if header.iter().all(|byte| *byte == 0) {
                if !front.is_empty() {
                    return Err(broken("the tar ends behind an extended header", at));
                }
                self.end = Some(header);
                return Ok(None);
            }
            if !checksum_fits(&header) {
                let what = if self.started { "the tar is damaged" } else { "this is no tar" };
                return Err(broken(&format!("{what}: a header has the wrong sum"), at));
            }
            self.started = true;
            let size = number(&header[124..136]).ok_or_else(|| broken("a size in the tar is no number", at))?;
            let kind = header[156];
            if !matches!(kind, b'x' | b'L' | b'K') {
                let size: u64 = sized.unwrap_or(size);
                // Of what is no file the size says nothing; a global header has content as a file has.
                let has_content = !matches!(kind, b'1'..=b'6');
                self.left = if has_content { size.saturating_add(pad(size)) } else { 0 };
                let mut member = Member {
                    path: path.unwrap_or_else(|| name(&header)),
                    size: if has_content { size } else { 0 },
                    is_file: matches!(kind, b'0' | b'7' | 0) && !sparse,
                    header,
                    front,
                };
                while let Some(shorter) = member.path.strip_prefix("./") {
                    member.path = shorter.to_owned();
                }
                member.is_file &= !member.path.ends_with('/');
                if kind == b'S' {
                    return Err(broken("sparse files are not read", at));
                }
                return Ok(Some(member));
            }
            if size > EXTENDED || front.len() >= 16 {
                return Err(broken(&format!("extended headers for one file are too many, or one has {size} bytes"), at));
            }
            let mut content = vec![0; (size + pad(size)) as usize];
            self.read_exact(&mut content)?;
            let extended = Extended { header, content, size: size as usize };
            match kind {
                b'L' => path = Some(text(&extended.content[..extended.size])),
                b'x' => {
                    for (key, value) in extended.records() {
                        match key {
                            b"path" => path = Some(String::from_utf8_lossy(value).into_owned()),
                            b"size" => sized = Some(decimal(value).ok_or_else(|| broken("a size in the tar is no number", at))?),
                            key => sparse |= key.starts_with(b"GNU.sparse."),
                        }
                    }
                }
                _ => {}
            }
            front.push(extended);
        }
    }

    /// The content of the member at hand.
    ///
    /// # Errors
    /// [`crate::Kind::InvalidContent`] where it has more than `limit` bytes, besides what reading gives.
    pub fn read(&mut self, member: &Member, limit: u64) -> Result<Vec<u8>, Error> {
        if member.size > limit {
            let message = format!("`{}` has {} bytes, at most {limit} are read at once", member.path, member.size);
            return Err(broken(&message, self.at));
        }
        let mut content = vec![0; member.size as usize];
        self.read_exact(&mut content)?;
        self.left -= member.size;
        Ok(content)
    }

    /// Writes the content of the member at hand, without headers and padding.
    ///
    /// # Errors
    /// What reading and writing give.
    pub fn read_into(&mut self, member: &Member, sink: &mut dyn Write) -> Result<(), Error> {
        let padding = self.left - member.size;
        self.left = member.size;
        self.copy(Some(sink))?;
        self.left = padding;
        Ok(())
    }

    /// Writes the member at hand as it is.
    ///
    /// # Errors
    /// What reading and writing give.
    pub fn pass_on(&mut self, member: &Member, sink: &mut dyn Write) -> Result<(), Error> {
        member.write_front(sink)?;
        self.copy(Some(sink))
    }

    /// Writes what ends the tar, as it is: zeroes, as a rule.
    ///
    /// # Errors
    /// What reading and writing give.
    pub fn pass_on_end(&mut self, sink: &mut dyn Write) -> Result<(), Error> {
        let Some(end) = self.end.take() else {
            return Ok(());
        };
        sink.write_all(&end)?;
        loop {
            let chunk = self.source.fill_buf()?;
            let count = chunk.len();
            if count == 0 {
                return Ok(());
            }
            sink.write_all(chunk)?;
            self.source.consume(count);
        }
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let at = self.at;
        self.source.read_exact(buffer).map_err(|error| ended(error, at))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    /// Copies or skips what is left of the member at hand.
    fn copy(&mut self, mut sink: Option<&mut dyn Write>) -> Result<(), Error> {
        while self.left > 0 {
            let chunk = self.source.fill_buf()?;
            if chunk.is_empty() {
                return Err(broken("the tar ends within a member", self.at));
            }
            let part = usize::try_from(self.left).map_or(chunk.len(), |left| left.min(chunk.len()));
            if let Some(sink) = &mut sink {
                sink.write_all(&chunk[..part])?;
            }
            self.source.consume(part);
            self.left -= part as u64;
            self.at += part as u64;
        }
        Ok(())
    }
}

impl Member {
    /// Writes the member with other content; its own is left to be skipped.
    ///
    /// # Errors
    /// What writing gives.
    pub fn write_changed(mut self, content: &[u8], sink: &mut dyn Write) -> Result<(), Error> {
        if self.front.iter().any(|extended| extended.header[156] == b'x' && extended.records().any(|(key, _)| key == b"size")) {
            return Err(broken("a file whose size is in an extended header can't be changed", 0));
        }
        set_size(&mut self.header, content.len() as u64);
        self.write_front(sink)?;
        sink.write_all(content)?;
        sink.write_all(&[0; BLOCK][..pad(content.len() as u64) as usize])?;
        Ok(())
    }

    /// Writes the headers.
    fn write_front(&self, sink: &mut dyn Write) -> Result<(), Error> {
        for extended in &self.front {
            sink.write_all(&extended.header)?;
            sink.write_all(&extended.content)?;
        }
        sink.write_all(&self.header)?;
        Ok(())
    }
}

/// Writes a member of its own: a regular file with a name of at most 100 bytes, as plain as can be.
///
/// # Errors
/// [`crate::Kind::Internal`] for a longer name, besides what writing gives.
pub fn write_file(sink: &mut dyn Write, path: &str, content: &[u8]) -> Result<(), Error> {
    if path.len() > 100 {
        return Err(Error::internal(format!("the name `{path}` is too long for a plain header")));
    }
    let mut header = [0; BLOCK];
    header[..path.len()].copy_from_slice(path.as_bytes());
    for (at, text) in [(100, "0000644"), (108, "0000000"), (116, "0000000"), (124, "00000000000"), (136, "00000000000"), (148, "0000000")] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    set_size(&mut header, content.len() as u64);
    sink.write_all(&header)?;
    sink.write_all(content)?;
    sink.write_all(&[0; BLOCK][..pad(content.len() as u64) as usize])?;
    Ok(())
}

impl Extended {
    /// Key and value of every PAX record, `<length> <key>=<value>\n`, up to the first that is malformed.
    fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &self.content[..self.size.min(self.content.len())];
        std::iter::from_fn(move || {
            let blank = rest.iter().take(20).position(|byte| *byte == b' ')?;
            let length = usize::try_from(decimal(&rest[..blank])?).ok()?;
            let raw = rest.get(..length)?;
            let body = raw.get(blank + 1..)?.strip_suffix(b"\n")?;
            let equals = body.iter().position(|byte| *byte == b'=')?;
            rest = &rest[length..];
            Some((&body[..equals], &body[equals + 1..]))
        })
    }
}

fn broken(message: &str, at: u64) -> Error {
    Error::invalid_content(message).in_port("data").at_byte(at)
}

/// A stream's own failure stays what it is; an early end is the tar's.
fn ended(error: std::io::Error, at: u64) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => broken("the tar ends within a header or a file", at),
        _ => error.into(),
    }
}

/// Bytes that fill the last block; none for sizes near the end of the number range, no input is that long.
fn pad(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).map_or(0, |padded| padded - size)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn name(header: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if header[257..263] == *b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Octal digits, or a number of the GNU form.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let bytes = field[1..].iter();
        return bytes.fold(Some(u64::from(field[0] & 0x7f)), |sum, byte| sum?.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// The sum of a header's bytes with blanks for the checksum; historic writers added signed bytes.
fn sum(header: &[u8; BLOCK], signed: bool) -> i64 {
    let byte = |(at, byte): (usize, &u8)| match (148..156).contains(&at) {
        true => i64::from(b' '),
        false if signed => i64::from(*byte as i8),
        false => i64::from(*byte),
    };
    header.iter().enumerate().map(byte).sum()
}

fn checksum_fits(header: &[u8; BLOCK]) -> bool {
    number(&header[148..156]).is_some_and(|found| [false, true].iter().any(|signed| sum(header, *signed) == found as i64))
}

/// Writes the size in the form it has, octal or binary, and the checksum in the form it has.
fn set_size(header: &mut [u8; BLOCK], size: u64) {
    if header[124] & 0x80 != 0 {
        header[124..136].fill(0);
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
    } else {
        set_octal(&mut header[124..136], size);
    }
    let sum = sum(header, false) as u64;
    set_octal(&mut header[148..156], sum);
}

/// An octal number in the form that `field` has now: digits up to what ends them, and that.
fn set_octal(field: &mut [u8], value: u64) {
    let start = field.iter().take_while(|byte| **byte == b' ').count();
    let digits = field[start..].iter().take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
    let text = format!("{value:o}");
    // Numbers with leading blanks use the blanks; all others have leading zeros.
    let (end, fill) = (start + digits, if start > 0 { b' ' } else { b'0' });
    let (end, is_longer) = if text.len() <= end { (end, false) } else { (field.len().min(text.len()), true) };
    field[..end].fill(fill);
    let from = end.saturating_sub(text.len());
    field[from..end].copy_from_slice(&text.as_bytes()[text.len() - (end - from)..]);
    if is_longer {
        field[end..].fill(0);
    }
}
