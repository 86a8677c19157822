//! Reading and writing tars in pieces, as they arrive.
//!
//! *Invariants:* nothing is buffered but headers, and those are bounded; an entry's size is what is read, never more; what
//! an entry is called is told and not trusted ([`TarEntry::safe_path`]). Formats: POSIX.1-1988 ustar, POSIX.1-2001 pax
//! (`path`, `linkpath`, `size`, `mtime`, `uid`, `gid`), GNU long names and base-256 numbers. Sparse files are refused.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use tar::{EntryType, Header};

use crate::error::{Error, Result};

/// A tar is a sequence of blocks of this many bytes.
pub const BLOCK: usize = 512;
/// Most entries of one tar.
pub const ENTRIES_LIMIT: usize = 1_000_000;
/// Longest path of an entry, in bytes.
pub const PATH_LIMIT: usize = 4 << 10;
/// Most bytes of extended headers of one entry: 1 MiB.
pub const EXTENSION_LIMIT: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarKind {
    /// A file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link to that.
    Symlink(String),
    /// Another name of that entry.
    Hardlink(String),
    /// A device, a pipe, or something unknown: the type flag.
    Other(u8),
}

/// One entry of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// The name as it is in the tar: hostile until [`TarEntry::safe_path`] has looked. Bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What it is.
    pub kind: TarKind,
    /// Bytes of content that follow.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Where the content begins, in bytes from the start of the tar.
    pub offset: u64,
    /// The header as it was read, with its extended headers: what an unchanged entry is written with. Empty for new ones.
    pub raw: Bytes,
}

impl TarEntry {
    /// A new file, mode 0644, time 0.
    pub fn file(path: impl Into<String>, size: u64) -> Self {
        Self {
            path: path.into(),
            kind: TarKind::File,
            size,
            mode: 0o644,
            mtime: 0,
            uid: 0,
            gid: 0,
            offset: 0,
            raw: Bytes::new(),
        }
    }

    /// The path without `./` in front and `/` behind, if it stays inside of the folder it is unpacked to.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for absolute paths, `..`, backslashes, drive letters and control characters.
    pub fn safe_path(&self) -> Result<&str> {
        let mut path = self.path.as_str();
        while let Some(rest) = path.strip_prefix("./") {
            path = rest;
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let drive = path.as_bytes().get(1) == Some(&b':');
        let safe = !path.starts_with('/')
            && !drive
            && path.split('/').all(|part| part != "..")
            && path.chars().all(|c| c != '\\' && !c.is_control());
        if safe {
            Ok(path)
        } else {
            Err(Error::invalid(format!(
                "archive entry `{}` would lie outside of the archive",
                self.path.escape_debug()
            )))
        }
    }

    /// The header blocks for this entry: ustar, with a pax header in front where a value does not fit.
    ///
    /// Content of `size` bytes and [`padding`] follow.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Limit`] for paths beyond [`PATH_LIMIT`].
    pub fn header(&self) -> Result<Bytes> {
        let (flag, link) = match &self.kind {
            TarKind::File => (EntryType::Regular, ""),
            TarKind::Directory => (EntryType::Directory, ""),
            TarKind::Symlink(target) => (EntryType::Symlink, target.as_str()),
            TarKind::Hardlink(target) => (EntryType::Link, target.as_str()),
            TarKind::Other(flag) => (EntryType::new(*flag), ""),
        };
        check_path(self.path.as_bytes())?;
        check_path(link.as_bytes())?;
        let mut pax = String::new();
        let mut header = Header::new_ustar();
        if !put_path(&mut header, &self.path) {
            pax.push_str(&pax_record("path", &self.path));
        }
        if link.len() <= 100 && link.is_ascii() {
            put(&mut header.as_old_mut().linkname, link.as_bytes());
        } else {
            pax.push_str(&pax_record("linkpath", link));
        }
        let mut number = |name: &str, value: u64, digits: u32| {
            let fits = value < 1 << (3 * digits);
            if !fits {
                pax.push_str(&pax_record(name, &value.to_string()));
            }
            if fits { value } else { 0 }
        };
        let (size, mtime) = (
            number("size", self.size, 11),
            number("mtime", self.mtime, 11),
        );
        let (uid, gid) = (number("uid", self.uid, 7), number("gid", self.gid, 7));
        header.set_size(size);
        header.set_mtime(mtime);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mode(self.mode & 0o7777);
        header.set_entry_type(flag);
        header.set_cksum();
        let mut out = BytesMut::new();
        if !pax.is_empty() {
            let mut extension = Header::new_ustar();
            put(&mut extension.as_old_mut().name, b"PaxHeaders.0/entry");
            extension.set_size(pax.len() as u64);
            extension.set_mode(0o644);
            extension.set_mtime(0);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_entry_type(EntryType::XHeader);
            extension.set_cksum();
            out.extend_from_slice(extension.as_bytes());
            out.extend_from_slice(pax.as_bytes());
            out.extend_from_slice(&padding(pax.len() as u64));
        }
        out.extend_from_slice(header.as_bytes());
        Ok(out.freeze())
    }

    /// The same as Go's `archive/tar` writes it: device numbers are zeros, not nothing, and the checksum has six digits.
    ///
    /// # Errors
    /// Those of [`Self::header`].
    pub fn header_like_go(&self) -> Result<Bytes> {
        let mut blocks = BytesMut::from(&self.header()?[..]);
        // An extended header may be in front.
        let start = blocks.len().saturating_sub(BLOCK);
        let block = &mut blocks[start..];
        for field in [329..337, 337..345] {
            block[field].copy_from_slice(b"0000000\0");
        }
        // The field itself counts as blanks (POSIX ustar).
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        Ok(blocks.freeze())
    }
}

/// The zeros that fill the last block of content of `size` bytes.
pub fn padding(size: u64) -> Bytes {
    Bytes::from_static(&ZEROS[..padding_len(size)])
}

/// The two empty blocks at the end of a tar.
pub fn end_of_tar() -> Bytes {
    Bytes::from_static(&ZEROS)
}

static ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

fn padding_len(size: u64) -> usize {
    // Smaller than a block.
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Writes a tar in pieces: what it returns is appended to the output in order. Refuses content that does not have the
/// size announced.
#[derive(Debug, Default)]
pub struct TarWriter {
    open: Option<(u64, u64)>,
}

impl TarWriter {
    /// At the start of a tar.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the entry before and starts another: gives the bytes up to its content. An entry with [`TarEntry::raw`] keeps
    /// the header it was read with.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] when the entry before did not get all of its content.
    pub fn entry(&mut self, entry: &TarEntry) -> Result<Bytes> {
        let before = self.close()?;
        let header = if entry.raw.is_empty() {
            entry.header()?
        } else {
            entry.raw.clone()
        };
        self.open = Some((entry.size, entry.size));
        Ok([before, header].concat().into())
    }

    /// Passes content of the current entry on.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] when there is more than announced.
    pub fn data(&mut self, chunk: Bytes) -> Result<Bytes> {
        let left = self.open.as_mut().map(|(_, left)| left);
        match left {
            Some(left) if *left >= chunk.len() as u64 => {
                *left -= chunk.len() as u64;
                Ok(chunk)
            }
            _ => Err(Error::internal(
                "tar entry gets more content than announced",
            )),
        }
    }

    /// Ends the last entry and the tar.
    pub fn finish(mut self) -> Result<Bytes> {
        Ok([self.close()?, end_of_tar()].concat().into())
    }

    fn close(&mut self) -> Result<Bytes> {
        match self.open.take() {
            None => Ok(Bytes::new()),
            Some((size, 0)) => Ok(padding(size)),
            Some((_, left)) => Err(Error::internal(format!("tar entry lacks {left} bytes"))),
        }
    }
}

/// What comes out of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TarEvent {
    /// An entry begins; its content follows.
    Entry(TarEntry),
    /// Content of the current entry.
    Data(Bytes),
    /// The current entry is complete.
    EntryEnd,
}

/// Takes a tar apart as it arrives: feed it chunks, and ask for events until there are none.
///
/// ```
/// use ocm_content::tarball::{TarEntry, TarEvent, TarReader, TarWriter};
/// let mut writer = TarWriter::new();
/// let mut tar = writer.entry(&TarEntry::file("a", 2))?.to_vec();
/// tar.extend(writer.data("hi".into())?);
/// tar.extend(writer.finish()?);
/// let mut reader = TarReader::new();
/// for chunk in tar.chunks(100) {
///     reader.feed(chunk.to_vec().into());
///     while let Some(event) = reader.next_event()? {
///         if let TarEvent::Entry(entry) = event {
///             assert_eq!(entry.path, "a");
///         }
///     }
/// }
/// reader.finish()?;
/// # Ok::<(), ocm_content::Error>(())
/// ```
#[derive(Debug)]
pub struct TarReader {
    input: VecDeque<Bytes>,
    /// Bytes taken out of the input so far.
    at: u64,
    state: ReadState,
    block: BytesMut,
    /// Headers read for the next entry.
    raw: BytesMut,
    next: Extensions,
    entries: usize,
}

#[derive(Debug)]
enum ReadState {
    Header,
    /// One empty block was seen.
    MaybeEnd,
    Extension {
        kind: EntryType,
        left: u64,
        padding: usize,
        bytes: BytesMut,
    },
    Data {
        left: u64,
        padding: usize,
    },
    Padding(usize),
    Ended,
}

/// What extended headers say about the next entry.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    mtime: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    bytes: u64,
}

impl Default for TarReader {
    fn default() -> Self {
        Self::new()
    }
}

impl TarReader {
    /// At the start of a tar.
    pub fn new() -> Self {
        Self {
            input: VecDeque::new(),
            at: 0,
            state: ReadState::Header,
            block: BytesMut::with_capacity(BLOCK),
            raw: BytesMut::new(),
            next: Extensions::default(),
            entries: 0,
        }
    }

    /// Adds the next bytes of the tar.
    pub fn feed(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.input.push_back(chunk);
        }
    }

    /// The next event; `None` until more is fed.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] for what is no tar, [`crate::ErrorKind::Limit`] beyond the limits of this module,
    /// [`crate::ErrorKind::Unsupported`] for sparse files. The reader is of no use after that.
    pub fn next_event(&mut self) -> Result<Option<TarEvent>> {
        loop {
            match &mut self.state {
                ReadState::Ended => {
                    // Writers fill the last record with zeros; whatever is there is not ours.
                    self.input.clear();
                    return Ok(None);
                }
                ReadState::Header | ReadState::MaybeEnd => {
                    if !self.fill_block() {
                        return Ok(None);
                    }
                    if let Some(event) = self.header()? {
                        return Ok(Some(event));
                    }
                }
                ReadState::Extension { left, .. } => {
                    let left = *left;
                    if left == 0 {
                        self.extension()?;
                        continue;
                    }
                    let Some(chunk) = self.take(left) else {
                        return Ok(None);
                    };
                    if let ReadState::Extension { left, bytes, .. } = &mut self.state {
                        *left -= chunk.len() as u64;
                        bytes.extend_from_slice(&chunk);
                    }
                }
                ReadState::Data { left: 0, padding } => {
                    self.state = ReadState::Padding(*padding);
                    return Ok(Some(TarEvent::EntryEnd));
                }
                ReadState::Data { left, .. } => {
                    let left = *left;
                    let Some(chunk) = self.take(left) else {
                        return Ok(None);
                    };
                    if let ReadState::Data { left, .. } = &mut self.state {
                        *left -= chunk.len() as u64;
                    }
                    return Ok(Some(TarEvent::Data(chunk)));
                }
                ReadState::Padding(0) => self.state = ReadState::Header,
                ReadState::Padding(left) => {
                    let left = *left;
                    let Some(chunk) = self.take(left as u64) else {
                        return Ok(None);
                    };
                    if !self.raw.is_empty() {
                        self.raw.extend_from_slice(&chunk);
                    }
                    self.state = ReadState::Padding(left - chunk.len());
                }
            }
        }
    }

    /// Says that the tar has ended.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] when it was cut off inside of an entry. Missing empty blocks at the end are no error.
    pub fn finish(self) -> Result<()> {
        let between = matches!(self.state, ReadState::Header | ReadState::MaybeEnd)
            && self.block.is_empty()
            && self.raw.is_empty();
        if between || matches!(self.state, ReadState::Ended | ReadState::Padding(_)) {
            Ok(())
        } else {
            Err(Error::invalid(format!(
                "tar is cut off at byte {}",
                self.at
            )))
        }
    }

    fn take(&mut self, most: u64) -> Option<Bytes> {
        let mut chunk = self.input.pop_front()?;
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(chunk.len());
        let taken = chunk.split_to(length);
        if !chunk.is_empty() {
            self.input.push_front(chunk);
        }
        self.at += taken.len() as u64;
        Some(taken)
    }

    fn fill_block(&mut self) -> bool {
        while self.block.len() < BLOCK {
            let Some(chunk) = self.take((BLOCK - self.block.len()) as u64) else {
                return false;
            };
            self.block.extend_from_slice(&chunk);
        }
        true
    }

    /// Looks at the block that was filled.
    fn header(&mut self) -> Result<Option<TarEvent>> {
        let block = std::mem::replace(&mut self.block, BytesMut::with_capacity(BLOCK));
        let ending = matches!(self.state, ReadState::MaybeEnd);
        if block.iter().all(|byte| *byte == 0) {
            self.state = if ending {
                ReadState::Ended
            } else {
                ReadState::MaybeEnd
            };
            return Ok(None);
        }
        let malformed = |what: &str| {
            Error::invalid(format!(
                "tar header at byte {}: {what}",
                self.at - BLOCK as u64
            ))
        };
        if ending {
            return Err(malformed("something follows an empty block"));
        }
        let header = Header::from_byte_slice(&block);
        let sum: u32 = block[..148]
            .iter()
            .chain(&[b' '; 8])
            .chain(&block[156..])
            .map(|byte| u32::from(*byte))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(malformed("wrong checksum"));
        }
        let kind = header.entry_type();
        let stored = header
            .entry_size()
            .map_err(|_| malformed("size is not a number"))?;
        self.raw.extend_from_slice(&block);
        if kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink()
        {
            self.next.bytes = self.next.bytes.saturating_add(stored);
            if self.next.bytes > EXTENSION_LIMIT || self.raw.len() as u64 > EXTENSION_LIMIT {
                return Err(Error::limit(format!(
                    "extended tar headers have more than {EXTENSION_LIMIT} bytes"
                )));
            }
            self.state = ReadState::Extension {
                kind,
                left: stored,
                padding: padding_len(stored),
                bytes: BytesMut::new(),
            };
            return Ok(None);
        }
        if kind.is_gnu_sparse() {
            return Err(Error::unsupported("sparse files in a tar"));
        }
        self.entries += 1;
        if self.entries > ENTRIES_LIMIT {
            return Err(Error::limit(format!(
                "tar has more than {ENTRIES_LIMIT} entries"
            )));
        }
        let next = std::mem::take(&mut self.next);
        let path = next
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = match next.link {
            Some(link) => link,
            None => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        check_path(&path)?;
        check_path(&link)?;
        let link = String::from_utf8_lossy(&link).into_owned();
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => {
                // Before POSIX a folder was a file with a slash.
                TarKind::Directory
            }
            EntryType::Regular | EntryType::Continuous => TarKind::File,
            EntryType::Directory => TarKind::Directory,
            EntryType::Symlink => TarKind::Symlink(link),
            EntryType::Link => TarKind::Hardlink(link),
            other => TarKind::Other(other.as_byte()),
        };
        // Links and folders have no content, whatever the header says (POSIX pax, "size").
        let size = match kind {
            TarKind::File | TarKind::Other(_) => next.size.unwrap_or(stored),
            TarKind::Directory | TarKind::Symlink(_) | TarKind::Hardlink(_) => 0,
        };
        let entry = TarEntry {
            path: String::from_utf8_lossy(&path).into_owned(),
            kind,
            size,
            mode: header.mode().unwrap_or(0o644),
            mtime: next.mtime.or_else(|| header.mtime().ok()).unwrap_or(0),
            uid: next.uid.or_else(|| header.uid().ok()).unwrap_or(0),
            gid: next.gid.or_else(|| header.gid().ok()).unwrap_or(0),
            offset: self.at,
            raw: self.raw.split().freeze(),
        };
        self.state = ReadState::Data {
            left: size,
            padding: padding_len(size),
        };
        Ok(Some(TarEvent::Entry(entry)))
    }

    /// Takes in an extended header that is complete.
    fn extension(&mut self) -> Result<()> {
        let state = std::mem::replace(&mut self.state, ReadState::Header);
        let ReadState::Extension {
            kind,
            padding,
            bytes,
            ..
        } = state
        else {
            return Ok(());
        };
        self.raw.extend_from_slice(&bytes);
        self.state = ReadState::Padding(padding);
        let name = || {
            let end = bytes.iter().position(|byte| *byte == 0);
            bytes[..end.unwrap_or(bytes.len())].to_vec()
        };
        if kind.is_gnu_longname() {
            self.next.path = Some(name());
        } else if kind.is_gnu_longlink() {
            self.next.link = Some(name());
        } else if kind.is_pax_local_extensions() {
            self.next.pax(&bytes)?;
        }
        Ok(())
    }
}

impl Extensions {
    /// Reads records `<length> <key>=<value>\n` (POSIX.1-2001 pax, "pax Header Block").
    fn pax(&mut self, mut bytes: &[u8]) -> Result<()> {
        let malformed = || Error::invalid("malformed pax header");
        while !bytes.is_empty() {
            let blank = bytes
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or_else(malformed)?;
            let length: usize = std::str::from_utf8(&bytes[..blank])
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(malformed)?;
            let record = bytes.get(blank + 1..length).ok_or_else(malformed)?;
            let record = record.strip_suffix(b"\n").ok_or_else(malformed)?;
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(malformed)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let number = || {
            let text = std::str::from_utf8(value).ok()?;
            text.split('.').next()?.parse().ok()
        };
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => {
                let size = number().ok_or_else(|| Error::invalid("pax size is not a number"))?;
                self.size = Some(size);
            }
            b"mtime" => self.mtime = number(),
            b"uid" => self.uid = number(),
            b"gid" => self.gid = number(),
            other if other.starts_with(b"GNU.sparse.") => {
                return Err(Error::unsupported("sparse files in a tar"));
            }
            _ => {}
        }
        Ok(())
    }
}

fn check_path(path: &[u8]) -> Result<()> {
    if path.len() > PATH_LIMIT {
        return Err(Error::limit(format!(
            "a path in a tar is longer than {PATH_LIMIT} bytes"
        )));
    }
    Ok(())
}

fn put(field: &mut [u8], value: &[u8]) {
    field.fill(0);
    field[..value.len()].copy_from_slice(value);
}

/// Puts the path into the header, split at a slash if need be; `false` when it does not fit.
fn put_path(header: &mut Header, path: &str) -> bool {
    let Some(ustar) = header.as_ustar_mut() else {
        return false;
    };
    if path.contains('\0') || !path.is_ascii() {
        return false;
    }
    if path.len() <= 100 {
        put(&mut ustar.name, path.as_bytes());
        return true;
    }
    let split = path
        .match_indices('/')
        .map(|(index, _)| index)
        .find(|index| (1..=155).contains(index) && (1..=100).contains(&(path.len() - index - 1)));
    if let Some(index) = split {
        put(&mut ustar.prefix, &path.as_bytes()[..index]);
        put(&mut ustar.name, &path.as_bytes()[index + 1..]);
    }
    split.is_some()
}

/// A pax record; its length counts its own digits.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read(tar: &[u8], piece: usize) -> Result<Vec<(TarEntry, Vec<u8>)>> {
        let mut reader = TarReader::new();
        let mut entries: Vec<(TarEntry, Vec<u8>)> = Vec::new();
        for chunk in tar.chunks(piece) {
            reader.feed(Bytes::copy_from_slice(chunk));
            while let Some(event) = reader.next_event()? {
                match event {
                    TarEvent::Entry(entry) => entries.push((entry, Vec::new())),
                    TarEvent::Data(data) => entries.last_mut().unwrap().1.extend(data),
                    TarEvent::EntryEnd => {
                        let (entry, data) = entries.last().unwrap();
                        assert_eq!(entry.size, data.len() as u64);
                    }
                }
            }
        }
        reader.finish()?;
        Ok(entries)
    }

    fn write(entries: &[(TarEntry, Vec<u8>)]) -> Vec<u8> {
        let mut writer = TarWriter::new();
        let mut tar = Vec::new();
        for (entry, data) in entries {
            tar.extend(writer.entry(entry).unwrap());
            tar.extend(writer.data(data.clone().into()).unwrap());
        }
        tar.extend(writer.finish().unwrap());
        tar
    }

    #[test]
    fn what_is_written_is_read_and_by_others_too() {
        let long = format!("{}/{}", "d".repeat(150), "n".repeat(90));
        let longest = "x/".repeat(500) + "end";
        let mut entries: Vec<(TarEntry, Vec<u8>)> = ["a", "ä/ö", &long, &longest]
            .iter()
            .enumerate()
            .map(|(n, path)| {
                (
                    TarEntry::file(*path, n as u64 * 400),
                    vec![n as u8; n * 400],
                )
            })
            .collect();
        let mut link = TarEntry::file("link", 0);
        link.kind = TarKind::Symlink("t".repeat(200));
        link.uid = 1 << 30;
        entries.push((link, Vec::new()));
        let tar = write(&entries);
        for piece in [1, 7, 512, 100_000] {
            let mut back = read(&tar, piece).unwrap();
            // Unchanged entries are written with the header they came with.
            assert!(write(&back) == tar);
            for (entry, data) in &mut back {
                let start = entry.offset as usize;
                assert!(tar[start..start + data.len()] == data[..]);
                entry.raw.clear();
                entry.offset = 0;
            }
            assert_eq!(back, entries, "pieces of {piece}");
        }
        let mut archive = tar::Archive::new(tar.as_slice());
        let paths: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path_bytes().into_owned())
            .collect();
        let expected: Vec<_> = entries
            .iter()
            .map(|(entry, _)| entry.path.as_bytes())
            .collect();
        assert_eq!(paths, expected);
    }

    #[test]
    fn gnu_long_names_are_read() {
        let name = "g/".repeat(120) + "file";
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, &name, &b"abc"[..])
            .unwrap();
        let back = read(&builder.into_inner().unwrap(), 100).unwrap();
        assert_eq!(
            (back[0].0.path.as_str(), &back[0].1[..]),
            (name.as_str(), &b"abc"[..])
        );
        assert_eq!(back[0].0.mode, 0o600);
    }

    #[test]
    fn hostile_tars_are_refused() {
        let good = write(&[(TarEntry::file("a", 1_000), vec![1; 1_000])]);
        let mut sum = good.clone();
        sum[0] ^= 1;
        let mut huge = Header::new_ustar();
        huge.set_size(EXTENSION_LIMIT + 1);
        huge.set_entry_type(EntryType::XHeader);
        huge.set_cksum();
        let pax = |record: &str| {
            let mut header = Header::new_ustar();
            header.set_size(record.len() as u64);
            header.set_entry_type(EntryType::XHeader);
            header.set_cksum();
            let padding = padding(record.len() as u64);
            [
                header.as_bytes().as_slice(),
                record.as_bytes(),
                &padding,
                &good,
            ]
            .concat()
        };
        for (name, tar, kind) in [
            ("cut", good[..1_200].to_vec(), ErrorKind::Invalid),
            ("cut header", good[..300].to_vec(), ErrorKind::Invalid),
            ("checksum", sum, ErrorKind::Invalid),
            ("huge extension", huge.as_bytes().to_vec(), ErrorKind::Limit),
            ("pax length 0", pax("0 path=x\n"), ErrorKind::Invalid),
            ("pax length beyond", pax("99 path=x\n"), ErrorKind::Invalid),
            ("pax size", pax("12 size=-30\n"), ErrorKind::Invalid),
            (
                "size lie",
                pax(&pax_record("size", "18446744073709551615")),
                ErrorKind::Invalid,
            ),
            (
                "sparse",
                pax(&pax_record("GNU.sparse.major", "1")),
                ErrorKind::Unsupported,
            ),
            ("text", vec![b'x'; 2_000], ErrorKind::Invalid),
        ] {
            assert_eq!(read(&tar, 64).expect_err(name).kind(), kind, "{name}");
        }
        for path in [
            "/etc/passwd",
            "a/../../b",
            "..",
            "C:\\x",
            "C:/x",
            "a\\..\\b",
            "a\nb",
        ] {
            assert!(TarEntry::file(path, 0).safe_path().is_err(), "{path}");
        }
        assert_eq!(TarEntry::file("././a/b/", 0).safe_path().unwrap(), "a/b");
    }
}
