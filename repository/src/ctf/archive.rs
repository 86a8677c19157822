//! Reading the tar and tgz forms; `pack.rs` writes them. Component archives are read by the same walk.
//!
//! Invariant: an archive is walked once. Of a tar only headers and the index are read, blobs are read later at their
//! offsets; a tgz is unpacked once, its blobs going to one unlinked temporary file that counts as spooled bytes. Nothing is
//! ever created under a name taken from an archive.
//!
//! Archives are hostile: entry count, names, sizes and everything held in memory are bounded, and what two tar readers could
//! understand in two ways is refused: links, devices, sparse files, names that lead out, two entries of one name, two sizes
//! for one entry.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use ocm_content::limits::Expansion;
use ocm_content::tarball::PATH_LIMIT;
use ocm_content::{Error, ErrorKind, Limits, Meter, Result};
use ocm_specs::Digest;
use ocm_specs::descriptor::{DESCRIPTOR_FILE, DESCRIPTOR_LIMIT};
use tar::Header;
use tokio::sync::OnceCell;

use super::file::{CHUNK, Section, blocking, os};
use super::index::{INDEX_FILE, INDEX_LIMIT, Index};
use super::locks::Stamp;
use super::{digest_of_name, no_archive};

const BLOCK: usize = 512;

/// Most entries in an archive.
const ENTRY_LIMIT: u64 = 1 << 20;

/// Longest extended header, in bytes. It needs to hold a path.
const EXTENDED_LIMIT: u64 = 64 << 10;

/// Most bytes of entries without meaning that are decompressed just to get past them.
const IGNORED_LIMIT: u64 = 1 << 30;

/// Most bytes behind the end of a compressed tar that are read, to see whether the compressed data is whole.
const TRAILER_LIMIT: u64 = 1 << 20;

/// Most blobs of a component archive that are not named by their digest. Old archives have a handful.
const NAMES_LIMIT: usize = 10_000;

/// Longest name of such a blob, in bytes.
const NAME_LIMIT: usize = 1 << 10;

/// Steps of a walk in one visit to the blocking pool; each is a header or a piece of content.
const STEPS: usize = 256;

/// What an archive is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// A CTF.
    Ctf,
    /// A component archive.
    Component,
}

/// A CTF or a component archive in a tar file.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    gzip: bool,
    kept: Kept,
    /// Is nothing there as good as nothing in it?
    may_be_missing: bool,
    limits: Arc<Limits>,
    table: OnceCell<Result<Arc<Table>>>,
}

/// What is where.
#[derive(Debug)]
pub(super) struct Table {
    /// The index; empty for a component archive.
    pub(super) index: Arc<Index>,
    /// The component descriptor of a component archive.
    pub(super) descriptor: Bytes,
    /// What file it was read from; `None` for a file that is not there.
    pub(super) stamp: Option<Stamp>,
    blobs: BTreeMap<Digest, Place>,
    names: BTreeMap<String, Place>,
    content: Option<Arc<File>>,
    path: Arc<Path>,
    _spooled: Spooled,
}

impl Table {
    fn empty(path: &Path, limits: Arc<Limits>) -> Self {
        Self {
            index: Arc::default(),
            descriptor: Bytes::new(),
            stamp: None,
            blobs: BTreeMap::new(),
            names: BTreeMap::new(),
            content: None,
            path: path.into(),
            _spooled: Spooled::new(limits),
        }
    }

    /// The length of a blob, `None` if it isn't here.
    pub(super) fn size(&self, digest: &Digest) -> Option<u64> {
        self.blobs.get(digest).map(|place| place.len)
    }

    /// Where a blob can be read.
    pub(super) fn section(&self, digest: &Digest) -> Result<Section> {
        let place = self.blobs.get(digest);
        place
            .and_then(|place| self.at(place))
            .ok_or_else(|| Error::not_found(format!("not in {}", self.path.display())))
    }

    /// The blobs of a component archive that are not named by their digest: those called `name`, or in the folder of that
    /// name, sorted.
    pub(super) fn named<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a str, Section)> + 'a {
        let found = self.names.iter().filter(move |(path, _)| {
            let rest = path.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        found.filter_map(|(path, place)| Some((path.as_str(), self.at(place)?)))
    }

    fn at(&self, place: &Place) -> Option<Section> {
        Some(Section {
            file: self.content.clone()?,
            path: self.path.clone(),
            start: place.start,
            len: place.len,
        })
    }

    /// All blobs.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.blobs.keys()
    }
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    len: u64,
}

impl Archive {
    /// The archive in that file. No I/O.
    pub(super) fn new(
        path: PathBuf,
        gzip: bool,
        may_be_missing: bool,
        limits: Arc<Limits>,
    ) -> Arc<Self> {
        Arc::new(Self {
            path,
            gzip,
            kept: Kept::Ctf,
            may_be_missing,
            limits,
            table: OnceCell::new(),
        })
    }

    /// The component archive in that file. No I/O.
    pub(super) fn component(path: PathBuf, gzip: bool, limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            path,
            gzip,
            kept: Kept::Component,
            may_be_missing: false,
            limits,
            table: OnceCell::new(),
        })
    }

    /// What is in it, read once. A failure is kept like a success: the file is not walked again and again.
    pub(super) async fn table(&self) -> Result<&Arc<Table>> {
        let table = self
            .table
            .get_or_init(|| async { self.walk().await.map(Arc::new) });
        table.await.as_ref().map_err(Clone::clone)
    }

    async fn walk(&self) -> Result<Table> {
        let (path, gzip, limits) = (self.path.clone(), self.gzip, self.limits.clone());
        let kept = self.kept;
        let mut walk = match blocking(move || Walk::open(&path, gzip, kept, limits)).await {
            Err(error) if error.kind() == ErrorKind::NotFound && self.may_be_missing => {
                return Ok(Table::empty(&self.path, self.limits.clone()));
            }
            walk => walk?,
        };
        loop {
            let before = walk.medium.spooled();
            let (next, more) = blocking(move || {
                let more = walk.run(STEPS)?;
                Ok((walk, more))
            })
            .await?;
            walk = next;
            Meter::with(|meter| meter.spooled(walk.medium.spooled() - before));
            if !more {
                return walk.finish();
            }
        }
    }
}

/// Does the file hold a component archive? Looks at its entries until one tells, which is usually the first. What can't be
/// read is none. Blocks.
pub(super) fn holds_component(path: &Path, gzip: bool, limits: Arc<Limits>) -> bool {
    let Ok(mut walk) = Walk::open(path, gzip, Kept::Component, limits) else {
        return false;
    };
    while !walk.component_archive && !walk.has_index {
        match walk.run(1) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
    walk.component_archive
}

/// Is this block a tar header: does its checksum hold?
pub(super) fn is_header(block: &[u8; BLOCK]) -> bool {
    let header = Header::from_byte_slice(block);
    let sum =
        |range: std::ops::Range<usize>| block[range].iter().map(|b| u32::from(*b)).sum::<u32>();
    // The field itself counts as blanks (POSIX ustar).
    let expected = sum(0..148) + 8 * u32::from(b' ') + sum(156..BLOCK);
    header.cksum().is_ok_and(|found| found == expected)
}

/// Bytes taken from the budget for temporary files, given back when dropped.
#[derive(Debug)]
pub(super) struct Spooled {
    limits: Arc<Limits>,
    bytes: u64,
}

impl Spooled {
    /// Nothing yet.
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        Self { limits, bytes: 0 }
    }

    /// Takes over what another one holds.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes more, or tells that there is no more.
    pub(super) fn take(&mut self, bytes: u64) -> Result<()> {
        self.limits.spool().take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.limits.spool().give(self.bytes);
    }
}

/// What the entries are read from, and where blobs will be read from.
enum Medium {
    Plain {
        file: Arc<File>,
        position: u64,
        len: u64,
    },
    Gzip {
        decoder: Box<MultiGzDecoder<BufReader<Counted>>>,
        expansion: Expansion,
        spool: File,
    },
}

/// A file of which it is known how much was read.
struct Counted {
    file: File,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

/// One walk through all entries.
struct Walk {
    path: Arc<Path>,
    stamp: Stamp,
    medium: MediumAt,
    state: State,
    entries: u64,
    ignored: u64,
    extended: Extended,
    kept: Kept,
    index: Option<Index>,
    has_index: bool,
    descriptor: Option<Bytes>,
    blobs: BTreeMap<Digest, Place>,
    names: BTreeMap<String, Place>,
    component_archive: bool,
}

struct MediumAt {
    medium: Medium,
    spooled: Spooled,
    path: Arc<Path>,
}

enum State {
    Header,
    Content { kind: Kind, left: u64, padding: u64 },
    End,
}

enum Kind {
    Index(Vec<u8>),
    Descriptor(Vec<u8>),
    Blob,
    Pax(Vec<u8>),
    GlobalPax(Vec<u8>),
    LongName(Vec<u8>),
    Ignored,
}

/// What extended headers say of the entry behind them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
}

impl MediumAt {
    fn spooled(&self) -> u64 {
        self.spooled.bytes
    }

    /// Fills `buffer` as far as there is something.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let count = match &mut self.medium {
                Medium::Plain {
                    file,
                    position,
                    len,
                } => {
                    let section = Section {
                        file: file.clone(),
                        path: self.path.clone(),
                        start: 0,
                        len: *len,
                    };
                    let piece = section.read_at(*position, buffer.len() - filled)?;
                    buffer[filled..filled + piece.len()].copy_from_slice(&piece);
                    *position += piece.len() as u64;
                    piece.len()
                }
                Medium::Gzip {
                    decoder, expansion, ..
                } => match decoder.read(&mut buffer[filled..]) {
                    Ok(count) => {
                        let read = decoder.get_ref().get_ref().read;
                        let taken = expansion.take(count as u64, read);
                        taken.map_err(|error| error.context(self.path.display().to_string()))?;
                        count
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(damaged(&self.path, &error)),
                },
            };
            if count == 0 {
                break;
            }
            filled += count;
        }
        Ok(filled)
    }

    /// Where the next blob will be read from.
    fn place(&self) -> u64 {
        match &self.medium {
            Medium::Plain { position, .. } => *position,
            Medium::Gzip { .. } => self.spooled.bytes,
        }
    }

    /// Gets past `bytes` without reading, where that is possible. `None` where it is not.
    fn jump(&mut self, bytes: u64) -> Option<Result<()>> {
        let Medium::Plain { position, len, .. } = &mut self.medium else {
            return None;
        };
        let after = position.checked_add(bytes).filter(|after| after <= len);
        Some(match after {
            Some(after) => {
                *position = after;
                Ok(())
            }
            None => Err(truncated(&self.path)),
        })
    }

    fn keep(&mut self, piece: &[u8]) -> Result<()> {
        self.spooled.take(piece.len() as u64)?;
        match &mut self.medium {
            Medium::Gzip { spool, .. } => {
                let piece = Bytes::copy_from_slice(piece);
                let limits = &self.spooled.limits;
                let folder = limits.temp_folder()?;
                limits
                    .disk()
                    .write_all(spool, folder, &[piece])
                    .map_err(|error| os("write a temporary file in", folder, &error))
                    .map_err(|error| error.context(format!("unpack {}", self.path.display())))
            }
            Medium::Plain { .. } => Err(Error::internal("a plain tar is never copied")),
        }
    }
}

fn damaged(path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        UnexpectedEof => truncated(path),
        InvalidData | InvalidInput => Error::invalid(format!(
            "{}: damaged compressed data: {error}",
            path.display()
        )),
        _ => os("read", path, error),
    }
}

fn truncated(path: &Path) -> Error {
    Error::invalid(format!(
        "{} ends in the middle of an entry: it is truncated",
        path.display()
    ))
}

impl Walk {
    fn open(path: &Path, gzip: bool, kept: Kept, limits: Arc<Limits>) -> Result<Self> {
        let file = File::open(path).map_err(|error| os("open", path, &error))?;
        let metadata = file.metadata().map_err(|error| os("open", path, &error))?;
        let medium = if gzip {
            let folder = limits.temp_folder()?.to_owned();
            let spool = limits
                .disk()
                .create_unnamed(&folder)
                .map_err(|error| os("create a temporary file in", &folder, &error))?;
            let file = Counted { file, read: 0 };
            Medium::Gzip {
                decoder: Box::new(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, file))),
                expansion: Expansion::new(&limits),
                spool,
            }
        } else {
            Medium::Plain {
                file: Arc::new(file),
                position: 0,
                len: metadata.len(),
            }
        };
        let path: Arc<Path> = path.into();
        Ok(Self {
            medium: MediumAt {
                medium,
                spooled: Spooled::new(limits),
                path: path.clone(),
            },
            path,
            stamp: Stamp::of(&metadata),
            state: State::Header,
            entries: 0,
            ignored: 0,
            extended: Extended::default(),
            kept,
            index: None,
            has_index: false,
            descriptor: None,
            blobs: BTreeMap::new(),
            names: BTreeMap::new(),
            component_archive: false,
        })
    }

    /// Goes some steps; `false` at the end.
    fn run(&mut self, steps: usize) -> Result<bool> {
        for _ in 0..steps {
            self.state = match std::mem::replace(&mut self.state, State::End) {
                State::Header => self.header()?,
                State::Content {
                    kind,
                    left,
                    padding,
                } => self.content(kind, left, padding)?,
                State::End => return Ok(false),
            };
        }
        Ok(true)
    }

    fn finish(self) -> Result<Table> {
        let index = match (self.kept, self.index) {
            (Kept::Ctf, Some(index)) => index,
            (Kept::Ctf, None) if self.component_archive => {
                return Err(no_archive(&self.path, "it is a component archive"));
            }
            (Kept::Ctf, None) => {
                return Err(no_archive(&self.path, "it has no artifact-index.json"));
            }
            (Kept::Component, _) if self.has_index => {
                return Err(Error::invalid(format!(
                    "{} has {INDEX_FILE} and {DESCRIPTOR_FILE}: it may be an archive of either kind",
                    self.path.display()
                )));
            }
            (Kept::Component, _) => Index::default(),
        };
        let file = match self.medium.medium {
            Medium::Plain { file, .. } => file,
            Medium::Gzip { spool, .. } => Arc::new(spool),
        };
        Ok(Table {
            index: Arc::new(index),
            descriptor: self.descriptor.unwrap_or_default(),
            stamp: Some(self.stamp),
            blobs: self.blobs,
            names: self.names,
            content: Some(file),
            path: self.path,
            _spooled: self.medium.spooled,
        })
    }

    fn header(&mut self) -> Result<State> {
        let mut block = [0; BLOCK];
        match self.medium.read(&mut block)? {
            // Some writers leave the end mark out.
            0 => return Ok(State::End),
            BLOCK => {}
            _ => return Err(truncated(&self.path)),
        }
        if block.iter().all(|byte| *byte == 0) {
            self.drain()?;
            return Ok(State::End);
        }
        self.entries += 1;
        if self.entries > ENTRY_LIMIT {
            return Err(Error::limit(format!(
                "{} has more than {ENTRY_LIMIT} entries",
                self.path.display()
            )));
        }
        if !is_header(&block) {
            return Err(self.refuse("has a header whose checksum is wrong"));
        }
        let header = Header::from_byte_slice(&block);
        let size = header
            .entry_size()
            .map_err(|_| self.refuse("has a header without a valid size"))?;
        let (kind, size) = self.classify(header, size)?;
        Ok(State::Content {
            kind,
            left: size,
            padding: size.next_multiple_of(BLOCK as u64) - size,
        })
    }

    /// What an entry is and how long it is.
    fn classify(&mut self, header: &Header, size: u64) -> Result<(Kind, u64)> {
        let entry_type = header.entry_type().as_byte();
        let extended = match entry_type {
            b'x' => Some(Kind::Pax(Vec::new())),
            b'g' => Some(Kind::GlobalPax(Vec::new())),
            b'L' => Some(Kind::LongName(Vec::new())),
            _ => None,
        };
        if let Some(kind) = extended {
            if size > EXTENDED_LIMIT {
                return Err(self.refuse(&format!("has an extended header of {size} bytes")));
            }
            return Ok((kind, size));
        }
        let Extended { name, size: stated } = std::mem::take(&mut self.extended);
        let name = match name {
            Some(name) => name,
            None => String::from_utf8(header.path_bytes().into_owned())
                .map_err(|_| self.refuse("has a name that is not UTF-8"))?,
        };
        let name = self.check_name(&name)?;
        let size = match stated {
            Some(stated) if size != 0 && stated != size => {
                return Err(self.refuse(&format!("gives `{name}` two sizes, {size} and {stated}")));
            }
            stated => stated.unwrap_or(size),
        };
        // The sum of content and padding has to stay a number.
        if size > i64::MAX as u64 {
            return Err(self.refuse(&format!("gives `{name}` {size} bytes")));
        }
        let what = match entry_type {
            b'0' | b'\0' | b'7' => return Ok((self.file(&name, size)?, size)),
            b'5' if size == 0 => return Ok((Kind::Ignored, 0)),
            b'5' => "a directory with content",
            b'1' | b'2' => "a link",
            b'3' | b'4' | b'6' => "a device or pipe",
            b'S' => "a sparse file",
            _ => "an entry of unknown type",
        };
        Err(self.refuse(&format!("has {what}, `{name}`")))
    }

    fn file(&mut self, name: &str, size: u64) -> Result<Kind> {
        if name == INDEX_FILE {
            if self.has_index {
                return Err(self.refuse(&format!("has two entries `{name}`")));
            }
            if size > INDEX_LIMIT {
                return Err(Error::limit(format!(
                    "{INDEX_FILE} in {} is larger than {INDEX_LIMIT} bytes",
                    self.path.display()
                )));
            }
            self.has_index = true;
            return Ok(Kind::Index(Vec::new()));
        }
        if name == DESCRIPTOR_FILE {
            return self.descriptor(size);
        }
        let Some(blob) = name.strip_prefix("blobs/") else {
            return Ok(Kind::Ignored);
        };
        let place = Place {
            start: self.medium.place(),
            len: size,
        };
        let before = match digest_of_name(blob) {
            Some(digest) => self.blobs.insert(digest, place),
            None if self.kept == Kept::Component => {
                if self.names.len() >= NAMES_LIMIT || blob.len() > NAME_LIMIT {
                    return Err(Error::limit(format!(
                        "{} has more than {NAMES_LIMIT} blobs that are not named by their digest, or one with a name of more than {NAME_LIMIT} bytes",
                        self.path.display()
                    )));
                }
                self.names.insert(blob.to_owned(), place)
            }
            None => return Ok(Kind::Ignored),
        };
        match before {
            None => Ok(Kind::Blob),
            Some(_) => Err(self.refuse(&format!("has two entries `{name}`"))),
        }
    }

    fn descriptor(&mut self, size: u64) -> Result<Kind> {
        if std::mem::replace(&mut self.component_archive, true) && self.kept == Kept::Component {
            return Err(self.refuse(&format!("has two entries `{DESCRIPTOR_FILE}`")));
        }
        if self.kept == Kept::Ctf {
            return Ok(Kind::Ignored);
        }
        if size > DESCRIPTOR_LIMIT {
            return Err(Error::limit(format!(
                "{DESCRIPTOR_FILE} in {} is larger than {DESCRIPTOR_LIMIT} bytes",
                self.path.display()
            )));
        }
        Ok(Kind::Descriptor(Vec::new()))
    }

    /// The name in its plain form.
    fn check_name(&self, name: &str) -> Result<String> {
        if name.len() > PATH_LIMIT {
            return Err(self.refuse(&format!("has a name of {} bytes", name.len())));
        }
        let escapes = name.split(['/', '\\']).any(|part| part == "..");
        let drive = name.as_bytes().get(1) == Some(&b':');
        if escapes || drive || name.starts_with(['/', '\\']) {
            return Err(self.refuse(&format!("has the name {name:?}, which leads out of it")));
        }
        if name.contains(char::is_control) {
            return Err(self.refuse(&format!("has the name {name:?}, which no file has")));
        }
        let parts: Vec<&str> = name
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        Ok(parts.join("/"))
    }

    fn content(&mut self, mut kind: Kind, left: u64, padding: u64) -> Result<State> {
        if left == 0 {
            let mut rest = [0; BLOCK];
            // At most a block less one byte.
            let rest = &mut rest[..usize::try_from(padding).unwrap_or(0).min(BLOCK)];
            // Padding of the very last entry may be missing, like the end mark.
            let read = self.medium.read(rest)?;
            let ended = read < rest.len() && read > 0;
            if ended {
                return Err(truncated(&self.path));
            }
            self.complete(kind)?;
            return Ok(State::Header);
        }
        if matches!(kind, Kind::Blob | Kind::Ignored)
            && let Some(jumped) = self.medium.jump(left)
        {
            jumped?;
            return Ok(State::Content {
                kind,
                left: 0,
                padding,
            });
        }
        let mut piece = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        if self.medium.read(&mut piece)? < piece.len() {
            return Err(truncated(&self.path));
        }
        match &mut kind {
            Kind::Index(bytes)
            | Kind::Descriptor(bytes)
            | Kind::Pax(bytes)
            | Kind::GlobalPax(bytes)
            | Kind::LongName(bytes) => bytes.extend_from_slice(&piece),
            Kind::Blob => self.medium.keep(&piece)?,
            Kind::Ignored => {
                self.ignored += piece.len() as u64;
                if self.ignored > IGNORED_LIMIT {
                    return Err(Error::limit(format!(
                        "{} has more than {IGNORED_LIMIT} bytes that are no part of it",
                        self.path.display()
                    )));
                }
            }
        }
        Ok(State::Content {
            kind,
            left: left - piece.len() as u64,
            padding,
        })
    }

    fn complete(&mut self, kind: Kind) -> Result<()> {
        match kind {
            Kind::Index(bytes) => {
                let index = Index::parse(&bytes);
                let context = |error: Error| error.context(self.path.display().to_string());
                self.index = Some(index.map_err(context)?);
            }
            Kind::Descriptor(bytes) => self.descriptor = Some(bytes.into()),
            Kind::Pax(bytes) => self.pax(&bytes, false)?,
            Kind::GlobalPax(bytes) => self.pax(&bytes, true)?,
            Kind::LongName(mut bytes) => {
                while bytes.last() == Some(&0) {
                    bytes.pop();
                }
                let name = String::from_utf8(bytes)
                    .map_err(|_| self.refuse("has a name that is not UTF-8"))?;
                self.set_name(name)?;
            }
            Kind::Blob | Kind::Ignored => {}
        }
        Ok(())
    }

    fn set_name(&mut self, name: String) -> Result<()> {
        match self.extended.name.replace(name) {
            None => Ok(()),
            Some(_) => Err(self.refuse("gives an entry two names")),
        }
    }

    /// Takes what matters out of extended header records `<length> <key>=<value>\n` (POSIX pax).
    fn pax(&mut self, records: &[u8], global: bool) -> Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            let (key, value, after) =
                pax_record(rest).ok_or_else(|| self.refuse("has a malformed extended header"))?;
            rest = after;
            match key {
                "path" | "size" | "linkpath" if global => {
                    return Err(self.refuse(&format!("sets `{key}` for all its entries")));
                }
                "path" => self.set_name(value.to_owned())?,
                "size" => {
                    let size = value.parse();
                    let size = size.map_err(|_| self.refuse("has a malformed extended header"))?;
                    if self.extended.size.replace(size).is_some() {
                        return Err(self.refuse("gives an entry two sizes"));
                    }
                }
                _ if key.starts_with("GNU.sparse.") => {
                    return Err(self.refuse("has a sparse file"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what is behind the end, so that a compressed archive that was cut or damaged there is noticed.
    fn drain(&mut self) -> Result<()> {
        if matches!(self.medium.medium, Medium::Plain { .. }) {
            return Ok(());
        }
        let mut left = TRAILER_LIMIT;
        let mut piece = vec![0; CHUNK];
        while left > 0 {
            let count = self.medium.read(&mut piece)? as u64;
            if count < CHUNK as u64 {
                break;
            }
            left = left.saturating_sub(count);
        }
        Ok(())
    }

    fn refuse(&self, what: &str) -> Error {
        Error::invalid(format!("{} {what}", self.path.display()))
    }
}

/// Key, value and what follows.
fn pax_record(records: &[u8]) -> Option<(&str, &str, &[u8])> {
    let blank = records.iter().position(|byte| *byte == b' ')?;
    let len: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
    let record = records.get(blank + 1..len)?.strip_suffix(b"\n")?;
    let (key, value) = std::str::from_utf8(record).ok()?.split_once('=')?;
    Some((key, value, &records[len..]))
}
