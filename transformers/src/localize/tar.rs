//! Changing single files inside of a tar stream.
//!
//! Invariant: every byte that does not belong to a changed file comes out as it went in: headers of all dialects, padding,
//! whatever follows the end. Of a changed file's header the size and the checksum change, nothing else.

use ocm_content::Error;
use tar::{EntryType, Header};

use crate::pipe::Stage;

/// Size of a block: what headers and padding are made of.
const BLOCK: usize = 512;
/// Most bytes of a file that is changed; more than any file that people write by hand.
pub(super) const MEMBER_LIMIT: u64 = 4 << 20;
/// Most bytes of one extended header (a PAX record list, a long name).
const EXTENSION_LIMIT: u64 = 1 << 20;
/// Extended headers in front of one member.
const EXTENSIONS: usize = 16;
/// Where a GNU header, and each of its sparse extensions, says that one more follows.
const SPARSE_MORE: (usize, usize) = (482, 504);

/// Decides about the files of an archive.
pub(super) trait Rewrite: Send {
    /// Is this a file to look at? `path` is as archived, without a leading `./`.
    fn wants(&mut self, path: &str) -> bool;

    /// The new bytes of a file; `None` leaves it as it is.
    fn rewrite(&mut self, path: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// The archive has ended.
    fn end(&mut self) -> Result<(), Error>;
}

/// Passes a tar stream on and gives some of its files to a [`Rewrite`].
pub(super) struct Tar<R> {
    rewrite: R,
    state: State,
    /// Bytes of the block or file that is being collected.
    held: Vec<u8>,
    /// Extended headers of the member to come, as they were read.
    extensions: Vec<Extension>,
    /// Was there any header yet?
    started: bool,
}

enum State {
    /// Collecting a header.
    Header,
    /// Collecting an extended header's content, padding included.
    Extension { header: Box<Header>, left: u64 },
    /// Passing sparse extensions on; then that many bytes of content.
    Sparse { size: u64 },
    /// Passing content and padding on.
    Pass { left: u64 },
    /// Collecting a wanted file, padding included.
    Member(Box<Member>),
    /// Behind the end.
    Tail,
}

struct Member {
    header: Header,
    path: String,
    size: u64,
    left: u64,
}

/// An extended header: its own header, and its content without padding.
struct Extension {
    header: Header,
    content: Vec<u8>,
    /// Header, content and padding as they were read.
    raw: Vec<u8>,
}

impl<R: Rewrite> Tar<R> {
    pub(super) fn new(rewrite: R) -> Self {
        Self {
            rewrite,
            state: State::Header,
            held: Vec::new(),
            extensions: Vec::new(),
            started: false,
        }
    }

    pub(super) fn rewrite(&self) -> &R {
        &self.rewrite
    }

    /// Collects until `held` has `size` bytes; tells whether it has.
    fn collect(&mut self, bytes: &mut &[u8], size: u64) -> bool {
        let missing = usize::try_from(size).map_or(usize::MAX, |size| size - self.held.len());
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        self.held.extend_from_slice(part);
        *bytes = rest;
        self.held.len() as u64 == size
    }

    fn header(&mut self, out: &mut Vec<u8>) -> Result<State, Error> {
        let block = std::mem::take(&mut self.held);
        if block.iter().all(|byte| *byte == 0) {
            if !self.extensions.is_empty() {
                return Err(damaged("it ends behind an extended header"));
            }
            out.extend_from_slice(&block);
            return Ok(State::Tail);
        }
        let header = Header::from_byte_slice(&block).clone();
        if !checksum_fits(&header, &block) {
            return Err(if self.started {
                damaged("a header's checksum is wrong")
            } else {
                Error::invalid("this is no tar archive")
            });
        }
        self.started = true;
        let kind = header.entry_type();
        if kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink() {
            let size = size_of(&header)?;
            if size > EXTENSION_LIMIT || self.extensions.len() == EXTENSIONS {
                return Err(Error::limit(format!(
                    "the tar archive has more than {EXTENSIONS} extended headers for one file, or one of more than {EXTENSION_LIMIT} bytes"
                )));
            }
            let left = padded(size);
            let header = Box::new(header);
            return Ok(State::Extension { header, left });
        }
        self.member(header, block, out)
    }

    fn member(
        &mut self,
        header: Header,
        block: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<State, Error> {
        let kind = header.entry_type();
        let size = match self.record("size") {
            Some(text) => text
                .parse()
                .map_err(|_| damaged("the size in an extended header is no number"))?,
            None => size_of(&header)?,
        };
        let path = self.path(&header);
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous)
            && !path.ends_with('/')
            && !self.is_sparse();
        if is_file && self.rewrite.wants(&path) {
            if size > MEMBER_LIMIT {
                return Err(Error::limit(format!(
                    "`{path}` has {size} bytes, at most {MEMBER_LIMIT} can be changed"
                )));
            }
            let left = padded(size);
            return Ok(State::Member(Box::new(Member {
                header,
                path,
                size,
                left,
            })));
        }
        self.release(out);
        let more = kind.is_gnu_sparse() && block[SPARSE_MORE.0] != 0;
        out.extend_from_slice(&block);
        Ok(match kind {
            _ if more => State::Sparse { size },
            // Their size, where they have one, is no content.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => State::Header,
            _ => State::Pass { left: padded(size) },
        })
    }

    /// Passes the extended headers on as they were read.
    fn release(&mut self, out: &mut Vec<u8>) {
        for extension in self.extensions.drain(..) {
            out.extend_from_slice(&extension.raw);
        }
    }

    fn path(&self, header: &Header) -> String {
        let long = self.extensions.iter().rev().find_map(|it| {
            it.header.entry_type().is_gnu_longname().then(|| {
                it.content
                    .split(|byte| *byte == 0)
                    .next()
                    .unwrap_or_default()
            })
        });
        let path = match (self.record("path"), long) {
            (Some(path), _) => path,
            (None, Some(long)) => String::from_utf8_lossy(long).into_owned(),
            (None, None) => String::from_utf8_lossy(&header.path_bytes()).into_owned(),
        };
        let mut rest = path.as_str();
        while let Some(shorter) = rest.strip_prefix("./") {
            rest = shorter;
        }
        rest.to_owned()
    }

    /// The last value of a PAX record for the member to come.
    fn record(&self, key: &str) -> Option<String> {
        let pax = |it: &&Extension| it.header.entry_type().is_pax_local_extensions();
        self.extensions
            .iter()
            .filter(pax)
            .flat_map(|it| records(&it.content))
            .filter(|record| record.key == key.as_bytes())
            .last()
            .map(|record| String::from_utf8_lossy(record.value).into_owned())
    }

    fn is_sparse(&self) -> bool {
        self.extensions
            .iter()
            .flat_map(|it| records(&it.content))
            .any(|record| record.key.starts_with(b"GNU.sparse."))
    }

    /// A wanted file is here as a whole.
    fn changed(&mut self, mut member: Member, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut held = std::mem::take(&mut self.held);
        let size = usize::try_from(member.size).map_or(held.len(), |size| size.min(held.len()));
        let Some(new) = self.rewrite.rewrite(&member.path, &held[..size])? else {
            self.release(out);
            out.extend_from_slice(member.header.as_bytes());
            out.append(&mut held);
            return Ok(());
        };
        for extension in &mut self.extensions {
            extension.resize(new.len())?;
        }
        self.release(out);
        set_size(&mut member.header, new.len() as u64);
        out.extend_from_slice(member.header.as_bytes());
        pad(&new, out);
        Ok(())
    }
}

impl<R: Rewrite> Stage for Tar<R> {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let next = match std::mem::replace(&mut self.state, State::Tail) {
                State::Header if self.collect(&mut bytes, BLOCK as u64) => self.header(out)?,
                State::Extension { header, left } if self.collect(&mut bytes, left) => {
                    let content = std::mem::take(&mut self.held);
                    self.extensions.push(Extension::new(*header, content)?);
                    State::Header
                }
                State::Sparse { size } if self.collect(&mut bytes, BLOCK as u64) => {
                    let more = self.held[SPARSE_MORE.1] != 0;
                    out.append(&mut self.held);
                    if more {
                        State::Sparse { size }
                    } else {
                        State::Pass { left: padded(size) }
                    }
                }
                State::Member(member) if self.collect(&mut bytes, member.left) => {
                    self.changed(*member, out)?;
                    State::Header
                }
                State::Pass { left } => {
                    let count = usize::try_from(left).map_or(bytes.len(), |it| it.min(bytes.len()));
                    let (part, rest) = bytes.split_at(count);
                    out.extend_from_slice(part);
                    bytes = rest;
                    match left - count as u64 {
                        0 => State::Header,
                        left => State::Pass { left },
                    }
                }
                State::Tail => {
                    out.extend_from_slice(bytes);
                    return Ok(());
                }
                waiting => waiting,
            };
            self.state = next;
            self.empty(out)?;
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), Error> {
        let between = matches!(self.state, State::Header) && self.held.is_empty();
        let complete = matches!(self.state, State::Tail)
            || (between && self.started && self.extensions.is_empty());
        if !complete {
            return Err(if self.started {
                damaged("it is cut off")
            } else {
                Error::invalid("this is no tar archive")
            });
        }
        self.rewrite.end()
    }
}

impl<R: Rewrite> Tar<R> {
    /// Steps over states that wait for no bytes.
    fn empty(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.state = match std::mem::replace(&mut self.state, State::Tail) {
            State::Pass { left: 0 } => State::Header,
            State::Extension { header, left: 0 } => {
                self.extensions.push(Extension::new(*header, Vec::new())?);
                State::Header
            }
            State::Member(member) if member.left == 0 => {
                self.changed(*member, out)?;
                State::Header
            }
            other => other,
        };
        Ok(())
    }
}

impl Extension {
    fn new(header: Header, padded: Vec<u8>) -> Result<Self, Error> {
        let size = usize::try_from(size_of(&header)?).unwrap_or(usize::MAX);
        let content = padded[..size.min(padded.len())].to_vec();
        let raw = [header.as_bytes().as_slice(), &padded].concat();
        Ok(Self {
            header,
            content,
            raw,
        })
    }

    /// Puts the member's new size where this header says the old one.
    fn resize(&mut self, size: usize) -> Result<(), Error> {
        let is_pax = self.header.entry_type().is_pax_local_extensions();
        if !is_pax || !records(&self.content).any(|record| record.key == b"size") {
            return Ok(());
        }
        let mut content = Vec::with_capacity(self.content.len());
        for record in records(&self.content) {
            if record.key == b"size" {
                content.extend_from_slice(write_record("size", &size.to_string()).as_bytes());
            } else {
                content.extend_from_slice(record.raw);
            }
        }
        let mut header = self.header.clone();
        set_size(&mut header, content.len() as u64);
        self.raw = header.as_bytes().to_vec();
        pad(&content, &mut self.raw);
        Ok(())
    }
}

struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    raw: &'a [u8],
}

/// The records of a PAX header, `<length> <key>=<value>\n`, up to the first that is malformed.
fn records(content: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let blank = rest.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
        let raw = rest.get(..length)?;
        let body = raw.get(blank + 1..)?.strip_suffix(b"\n")?;
        let equals = body.iter().position(|byte| *byte == b'=')?;
        rest = &rest[length..];
        Some(Record {
            key: &body[..equals],
            value: &body[equals + 1..],
            raw,
        })
    })
}

fn write_record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = body + 1;
    while body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

/// Writes the size in the form it has, octal or binary, and the checksum in the form it has.
fn set_size(header: &mut Header, size: u64) {
    let old = header.as_old_mut();
    let binary = old.size[0] & 0x80 != 0;
    if binary {
        header.set_size(size);
        let field = &mut header.as_old_mut().size;
        if field[0] & 0x80 == 0 {
            // `set_size` chooses octal for what fits.
            let mut bytes = [0; 12];
            bytes[4..].copy_from_slice(&size.to_be_bytes());
            bytes[0] = 0x80;
            *field = bytes;
        }
    } else {
        old.size = number(old.size, size);
    }
    let sum = u64::from(sum(header.as_bytes(), false));
    let field = header.as_old_mut().cksum;
    header.as_old_mut().cksum = number(field, sum);
}

/// An octal number in the form that `field` has now: digits up to what ends them, and that.
fn number<const N: usize>(field: [u8; N], value: u64) -> [u8; N] {
    let is_digit = |byte: &u8| (b'0'..=b'7').contains(byte);
    let start = field.iter().take_while(|byte| **byte == b' ').count();
    let digits = field[start.min(N)..]
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    let text = format!("{value:o}");
    let mut out = field;
    // Numbers with leading blanks use the blanks; all others have leading zeros.
    let (end, fill) = (start + digits, if start > 0 { b' ' } else { b'0' });
    let end = if text.len() <= end {
        end
    } else {
        N.min(text.len())
    };
    out[..end].fill(fill);
    let from = end.saturating_sub(text.len());
    out[from..end].copy_from_slice(&text.as_bytes()[text.len() - (end - from)..]);
    if end > start + digits && end < N {
        out[end..].fill(0);
    }
    out
}

/// The sum of a header's bytes with blanks for the checksum; historic writers added signed bytes.
fn sum(block: &[u8; BLOCK], signed: bool) -> u32 {
    let mut sum = 0i64;
    for (at, byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&at) {
            b' '
        } else {
            *byte
        };
        sum += if signed {
            i64::from(byte as i8)
        } else {
            i64::from(byte)
        };
    }
    sum as u32
}

fn checksum_fits(header: &Header, block: &[u8]) -> bool {
    let Ok(block) = <&[u8; BLOCK]>::try_from(block) else {
        return false;
    };
    header
        .cksum()
        .is_ok_and(|found| found == sum(block, false) || found == sum(block, true))
}

fn size_of(header: &Header) -> Result<u64, Error> {
    header
        .entry_size()
        .map_err(|_| damaged("a size is no number"))
}

/// The size with padding to whole blocks; sizes near the end of the number range stay as they are, no input is that long.
fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK as u64).unwrap_or(size)
}

fn pad(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes);
    let padding = bytes.len().next_multiple_of(BLOCK) - bytes.len();
    out.resize(out.len() + padding, 0);
}

fn damaged(what: &str) -> Error {
    Error::invalid(format!("the tar archive is damaged: {what}"))
}
