//! Tars as streams: member by member, so that what is looked at is never whole in memory.
//!
//! Invariant: what is passed on is passed on byte for byte, headers included; a member that is rewritten gets a header with
//! its new size and nothing else changed.

use std::io::{BufRead, Read, Write};

use crate::{Error, Sink, Source};

/// Size of a header and of what content is padded to, in bytes.
const BLOCK: usize = 512;
/// Longest extended header that is kept (long names), in bytes.
const EXTENDED: u64 = 1 << 20;

/// One member, before its content.
pub struct Member {
    /// Its path, as far as the header or an extended one says it.
    pub path: String,
    /// Bytes of content.
    pub size: u64,
    /// Is it a regular file?
    pub is_file: bool,
    header: [u8; BLOCK],
    /// Extended headers in front of it, with their content.
    front: Vec<u8>,
    /// Is the size in an extended header? Then it can't be changed here.
    is_sized_in_front: bool,
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

/// Walks through a tar and writes what is kept of it.
///
/// # Errors
/// [`crate::Kind::InvalidContent`] with the byte for what is no tar, and what reading and writing give.
pub fn rewrite(
    source: &mut Source,
    sink: &mut Sink,
    mut keep: impl FnMut(&Member) -> Result<Keep, Error>,
    mut change: impl FnMut(&Member, Vec<u8>) -> Result<Vec<u8>, Error>,
) -> Result<(), Error> {
    let mut at: u64 = 0;
    while let Some(mut member) = next(source, &mut at)? {
        let padded = member.size.div_ceil(BLOCK as u64) * BLOCK as u64;
        match keep(&member)? {
            Keep::AsIs => {
                sink.write_all(&member.front)?;
                sink.write_all(&member.header)?;
                copy(source, padded, Some(sink), at)?;
            }
            Keep::Drop => copy(source, padded, None, at)?,
            Keep::Change(limit) => {
                if member.size > limit {
                    return Err(broken(format!("`{}` has {} bytes, at most {limit} are read at once", member.path, member.size), at));
                }
                if member.is_sized_in_front {
                    return Err(broken(format!("`{}` has its size in an extended header", member.path), at));
                }
                let mut content = vec![0; member.size as usize];
                source.read_exact(&mut content).map_err(|error| ended(error, at))?;
                copy(source, padded - member.size, None, at)?;
                let content = change(&member, content)?;
                resize(&mut member.header, content.len() as u64);
                sink.write_all(&member.front)?;
                sink.write_all(&member.header)?;
                sink.write_all(&content)?;
                let rest = content.len().div_ceil(BLOCK) * BLOCK - content.len();
                sink.write_all(&[0; BLOCK][..rest])?;
            }
        }
        at += padded;
    }
    sink.write_all(&[0; 2 * BLOCK])?;
    Ok(())
}

fn broken(message: String, at: u64) -> Error {
    Error::invalid_content(message).in_port("data").at_byte(at)
}

/// A stream's own failure stays what it is; an early end is the tar's.
fn ended(error: std::io::Error, at: u64) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => broken("the tar ends within a member".to_owned(), at),
        _ => error.into(),
    }
}

fn next(source: &mut Source, at: &mut u64) -> Result<Option<Member>, Error> {
    let (mut front, mut path, mut sized) = (Vec::new(), None, None);
    loop {
        if source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; BLOCK];
        source.read_exact(&mut header).map_err(|error| ended(error, *at))?;
        if header.iter().all(|byte| *byte == 0) {
            // Zeroes up to the end: nothing else may follow.
            let mut rest = Vec::new();
            while let Some(chunk) = source.next_chunk()? {
                rest.clear();
                rest.extend_from_slice(&chunk);
                if rest.iter().any(|byte| *byte != 0) {
                    return Err(broken("there is something behind the end of the tar".to_owned(), *at));
                }
            }
            return Ok(None);
        }
        let sum: u64 = header.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        if number(&header[148..156]) != Some(sum) {
            return Err(broken("this is no tar: a header has the wrong sum".to_owned(), *at));
        }
        let size = number(&header[124..136]).ok_or_else(|| broken("a size in the tar is no number".to_owned(), *at))?;
        *at += BLOCK as u64;
        let kind = header[156];
        if !matches!(kind, b'x' | b'L' | b'K' | b'g') {
            let size = sized.unwrap_or(size);
            return Ok(Some(Member {
                path: path.unwrap_or_else(|| name(&header)),
                size,
                is_file: matches!(kind, b'0' | 0),
                header,
                front,
                is_sized_in_front: sized.is_some(),
            }));
        }
        if size > EXTENDED || front.len() as u64 > EXTENDED {
            return Err(broken(format!("an extended header has {size} bytes"), *at));
        }
        let padded = (size as usize).div_ceil(BLOCK) * BLOCK;
        let mut content = vec![0; padded];
        source.read_exact(&mut content).map_err(|error| ended(error, *at))?;
        *at += padded as u64;
        let text = String::from_utf8_lossy(&content[..size as usize]).into_owned();
        match kind {
            b'L' => path = Some(text.trim_end_matches('\0').to_owned()),
            b'x' => {
                for record in text.lines() {
                    let Some((key, value)) = record.split_once(' ').and_then(|(_, record)| record.split_once('=')) else {
                        continue;
                    };
                    match key {
                        "path" => path = Some(value.to_owned()),
                        "size" => sized = value.parse().ok(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        front.extend_from_slice(&header);
        front.extend_from_slice(&content);
    }
}

fn name(header: &[u8; BLOCK]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if header[257..262] == *b"ustar" && !prefix.is_empty() && header[263..265] != *b" \0" {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

/// Octal digits, or a number of the GNU form.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        return field[1..].iter().try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)));
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(|c| c == ' ' || c == '\0');
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn resize(header: &mut [u8; BLOCK], size: u64) {
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn copy(source: &mut Source, mut count: u64, mut sink: Option<&mut Sink>, at: u64) -> Result<(), Error> {
    while count > 0 {
        let chunk = source.fill_buf()?;
        if chunk.is_empty() {
            return Err(broken("the tar ends within a member".to_owned(), at));
        }
        let part = usize::try_from(count).map_or(chunk.len(), |count| count.min(chunk.len()));
        if let Some(sink) = &mut sink {
            sink.write_all(&chunk[..part])?;
        }
        source.consume(part);
        count -= part as u64;
    }
    Ok(())
}
