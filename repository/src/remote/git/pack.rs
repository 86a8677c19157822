//! A pack: many objects, compressed, some of them as differences to others (gitformat-pack).
//!
//! *Invariants*: every object is named by what it hashes to, never by what somebody says; memory is bounded by the largest
//! object that takes part in a difference; all sizes are checked before they are allocated.

use std::cell::Cell;
use std::collections::BTreeMap;

use flate2::{Decompress, FlushDecompress, Status};
use ocm_content::spool::RandomAccess;
use ocm_content::{Error, Result};

use super::id::{Format, Id, Naming};

/// Most objects of a pack.
const OBJECTS: u32 = 2_000_000;
/// Largest object that is held in memory: a tree, a commit, both sides of a difference. 128 MiB.
const HELD: u64 = 128 << 20;
/// Most bytes of all objects, unpacked: 16 GiB.
const UNPACKED: u64 = 16 << 30;
/// Longest chain of differences.
const CHAIN: usize = 4_096;
/// Most bytes that are handled for putting differences together: 32 GiB. A small pack may mean very much work.
const WORK: u64 = 32 << 30;
/// What a look at one object of a chain counts as.
const LOOK: u64 = 64;
/// Bytes read from the pack at once.
const WINDOW: usize = 64 << 10;
/// Bytes unpacked at once.
const CHUNK: usize = 64 << 10;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Commit,
    Tree,
    Blob,
    Tag,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// How an object is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Whole(Kind),
    /// A difference to the object with that number.
    Offset(u64),
    /// A difference to the object of that name.
    Named(Id),
}

#[derive(Debug)]
struct Entry {
    form: Form,
    /// Of what is written: the object, or the difference.
    size: u64,
    /// Where the compressed bytes begin.
    at: u64,
}

/// A pack whose objects can be asked for.
pub(super) struct Pack {
    bytes: RandomAccess,
    format: Format,
    entries: Vec<Entry>,
    /// Numbers of entries by where they begin.
    starts: BTreeMap<u64, usize>,
    names: BTreeMap<Id, usize>,
    /// What is left of [`WORK`].
    work: Cell<u64>,
}

impl Pack {
    /// Reads a pack through and names its objects. Blocks.
    pub(super) fn open(bytes: RandomAccess, format: Format) -> Result<Self> {
        let mut pack = Self {
            bytes,
            format,
            entries: Vec::new(),
            starts: BTreeMap::new(),
            names: BTreeMap::new(),
            work: Cell::new(WORK),
        };
        pack.index()?;
        pack.check_trailer()?;
        pack.name()?;
        Ok(pack)
    }

    /// The object of that name, which has to be of that kind; at most [`HELD`] bytes.
    pub(super) fn object(&self, id: Id, kind: Kind) -> Result<Vec<u8>> {
        let (found, bytes) = self.whole(self.number(id)?)?;
        match found == kind {
            true => Ok(bytes),
            false => Err(wrong(format!(
                "{id} is a {}, not a {}",
                found.as_str(),
                kind.as_str()
            ))),
        }
    }

    /// The length of a blob.
    pub(super) fn blob_size(&self, id: Id) -> Result<u64> {
        let number = self.number(id)?;
        match self.entries[number].form {
            Form::Whole(Kind::Blob) => Ok(self.entries[number].size),
            Form::Whole(kind) => Err(wrong(format!("{id} is a {}, not a blob", kind.as_str()))),
            _ => Ok(self.object(id, Kind::Blob)?.len() as u64),
        }
    }

    /// Hands a blob out piece by piece.
    pub(super) fn blob(&self, id: Id, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let number = self.number(id)?;
        match self.entries[number].form {
            Form::Whole(Kind::Blob) => {
                let entry = &self.entries[number];
                let mut reader = Reader::new(&self.bytes);
                reader.inflate(entry.at, entry.size, &mut take).map(drop)
            }
            _ => take(&self.object(id, Kind::Blob)?),
        }
    }

    fn number(&self, id: Id) -> Result<usize> {
        let found = self.names.get(&id).copied();
        found.ok_or_else(|| wrong(format!("object {id} is missing")))
    }

    /// Finds where objects begin and end.
    fn index(&mut self) -> Result<()> {
        let mut reader = Reader::new(&self.bytes);
        let header = reader.array::<12>(0)?;
        let number = |at: usize| {
            let four = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_be_bytes(four)
        };
        if &header[..4] != b"PACK" || !matches!(number(4), 2 | 3) {
            return Err(wrong("it does not begin as a pack"));
        }
        let count = number(8);
        if count > OBJECTS {
            return Err(Error::limit(format!(
                "the pack has {count} objects, more than {OBJECTS}"
            )));
        }
        let end = self
            .bytes
            .len()
            .checked_sub(self.format.length() as u64)
            .ok_or_else(|| wrong("it ends too early"))?;
        let (mut at, mut unpacked) = (12, 0_u64);
        for number in 0..count as usize {
            let start = at;
            let entry = header_of(&mut reader, start, self.format)?;
            unpacked = unpacked.saturating_add(entry.size);
            if unpacked > UNPACKED {
                return Err(Error::limit(format!(
                    "the pack has more than {UNPACKED} bytes, unpacked"
                )));
            }
            at = reader.inflate(entry.at, entry.size, &mut |_| Ok(()))?;
            if at > end {
                return Err(wrong("an object goes beyond its end"));
            }
            self.starts.insert(start, number);
            self.entries.push(entry);
        }
        match at == end {
            true => Ok(()),
            false => Err(wrong("there is something behind its last object")),
        }
    }

    /// The pack's own checksum: it arrived as it was sent.
    fn check_trailer(&self) -> Result<()> {
        let length = self.format.length();
        let end = self.bytes.len() - length as u64;
        let mut naming = Naming::new(self.format);
        let mut buffer = vec![0; WINDOW];
        let mut at = 0;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(WINDOW).min(WINDOW);
            let found = self.bytes.read_at(at, &mut buffer[..wanted])?;
            if found == 0 {
                return Err(wrong("it ends too early"));
            }
            naming.update(&buffer[..found]);
            at += found as u64;
        }
        let found = self.bytes.read_at(end, &mut buffer[..length])?;
        let stated = Id::from_bytes(self.format, &buffer[..found]);
        match stated == Some(naming.finish()?) {
            true => Ok(()),
            false => Err(Error::mismatch("the pack does not match its checksum")),
        }
    }

    /// Names all objects: whole ones first, then differences, whose bases may be named by then only.
    fn name(&mut self) -> Result<()> {
        let mut waiting = Vec::new();
        for number in 0..self.entries.len() {
            let entry = &self.entries[number];
            let Form::Whole(kind) = entry.form else {
                waiting.push(number);
                continue;
            };
            let mut naming = Naming::object(self.format, kind.as_str(), entry.size);
            let mut reader = Reader::new(&self.bytes);
            reader.inflate(entry.at, entry.size, &mut |chunk| {
                naming.update(chunk);
                Ok(())
            })?;
            self.names.insert(naming.finish()?, number);
        }
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut still = Vec::new();
            for number in waiting {
                match self.has_base(number)? {
                    true => {
                        let (kind, bytes) = self.whole(number)?;
                        let mut naming =
                            Naming::object(self.format, kind.as_str(), bytes.len() as u64);
                        naming.update(&bytes);
                        self.names.insert(naming.finish()?, number);
                    }
                    false => still.push(number),
                }
            }
            if still.len() == before {
                return Err(wrong("an object is a difference to one that is missing"));
            }
            waiting = still;
        }
        Ok(())
    }

    fn base(&self, form: Form) -> Option<usize> {
        match form {
            Form::Whole(_) => None,
            Form::Offset(start) => self.starts.get(&start).copied(),
            Form::Named(id) => self.names.get(&id).copied(),
        }
    }

    /// Is everything there that the entry is a difference to, in the end?
    fn has_base(&self, number: usize) -> Result<bool> {
        let mut number = number;
        for _ in 0..CHAIN {
            self.spend(LOOK)?;
            let form = self.entries[number].form;
            match (form, self.base(form)) {
                (Form::Whole(_), _) => return Ok(true),
                (_, Some(base)) => number = base,
                (_, None) => return Ok(false),
            }
        }
        // Whoever reads it says that it is too long.
        Ok(true)
    }

    fn spend(&self, work: u64) -> Result<()> {
        let left = self.work.get().checked_sub(work).ok_or_else(|| {
            Error::limit(format!(
                "putting the objects of the pack together takes more than {WORK} bytes of work"
            ))
        })?;
        self.work.set(left);
        Ok(())
    }

    /// An object with all its differences applied.
    fn whole(&self, number: usize) -> Result<(Kind, Vec<u8>)> {
        let mut chain = Vec::new();
        let mut number = number;
        let kind = loop {
            let entry = &self.entries[number];
            if entry.size > HELD {
                return Err(Error::limit(format!(
                    "an object has {} bytes, more than {HELD} that are held in memory",
                    entry.size
                )));
            }
            match entry.form {
                Form::Whole(kind) => break kind,
                form => {
                    chain.push(number);
                    if chain.len() > CHAIN {
                        return Err(Error::limit(format!(
                            "an object is a difference to a difference, more than {CHAIN} times"
                        )));
                    }
                    number = self
                        .base(form)
                        .ok_or_else(|| wrong("an object is a difference to one that is missing"))?;
                }
            }
        };
        let mut reader = Reader::new(&self.bytes);
        let mut bytes = reader.all(&self.entries[number])?;
        for number in chain.into_iter().rev() {
            let difference = reader.all(&self.entries[number])?;
            self.spend((bytes.len() + difference.len()) as u64)?;
            bytes = apply(&bytes, &difference)?;
        }
        Ok((kind, bytes))
    }
}

/// Reads what stands in front of an object's bytes.
fn header_of(reader: &mut Reader<'_>, start: u64, format: Format) -> Result<Entry> {
    let mut at = start;
    let mut next = |reader: &mut Reader<'_>| -> Result<u8> {
        let byte = reader.byte(at)?;
        at += 1;
        Ok(byte)
    };
    let first = next(reader)?;
    let (mut size, mut shift, mut more) = (u64::from(first & 15), 4, first & 0x80 != 0);
    while more {
        let byte = next(reader)?;
        if shift > 57 {
            return Err(wrong("an object's size is too large to be one"));
        }
        size |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        more = byte & 0x80 != 0;
    }
    let form = match (first >> 4) & 7 {
        1 => Form::Whole(Kind::Commit),
        2 => Form::Whole(Kind::Tree),
        3 => Form::Whole(Kind::Blob),
        4 => Form::Whole(Kind::Tag),
        6 => {
            let mut byte = next(reader)?;
            let mut back = u64::from(byte & 0x7f);
            while byte & 0x80 != 0 {
                byte = next(reader)?;
                back = back
                    .checked_add(1)
                    .and_then(|back| back.checked_mul(128))
                    .map(|back| back | u64::from(byte & 0x7f))
                    .ok_or_else(|| wrong("a difference is to nothing"))?;
            }
            let base = start.checked_sub(back).filter(|_| back > 0);
            Form::Offset(base.ok_or_else(|| wrong("a difference is to nothing"))?)
        }
        7 => {
            let mut name = [0; 32];
            for byte in &mut name[..format.length()] {
                *byte = next(reader)?;
            }
            let id = Id::from_bytes(format, &name[..format.length()]);
            Form::Named(id.ok_or_else(|| wrong("a difference is to nothing"))?)
        }
        _ => return Err(wrong("an object is of no known kind")),
    };
    Ok(Entry { form, size, at })
}

/// Applies a difference: copies from the base and new bytes.
fn apply(base: &[u8], difference: &[u8]) -> Result<Vec<u8>> {
    let broken = || wrong("a difference is malformed");
    let mut rest = difference;
    let next = |rest: &mut &[u8]| -> Result<u8> {
        let (first, behind) = rest.split_first().ok_or_else(broken)?;
        *rest = behind;
        Ok(*first)
    };
    let mut sizes = [0_u64; 2];
    for size in &mut sizes {
        let mut shift = 0;
        loop {
            let byte = next(&mut rest)?;
            if shift > 56 {
                return Err(broken());
            }
            *size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    if sizes[0] != base.len() as u64 {
        return Err(broken());
    }
    if sizes[1] > HELD {
        return Err(Error::limit(format!(
            "an object has {} bytes, more than {HELD} that are held in memory",
            sizes[1]
        )));
    }
    // At most `HELD`.
    let length = sizes[1] as usize;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let code = next(&mut rest)?;
        let piece = match code {
            0 => return Err(broken()),
            1..=0x7f => {
                let (piece, behind) = rest
                    .split_at_checked(usize::from(code))
                    .ok_or_else(broken)?;
                rest = behind;
                piece
            }
            _ => {
                let mut number = |bits: std::ops::Range<u8>| -> Result<usize> {
                    let mut number = 0;
                    for (index, bit) in bits.enumerate() {
                        if code & (1 << bit) != 0 {
                            number |= usize::from(next(&mut rest)?) << (8 * index);
                        }
                    }
                    Ok(number)
                };
                let start = number(0..4)?;
                let size = match number(4..7)? {
                    0 => 0x1_0000,
                    size => size,
                };
                let end = start.checked_add(size).ok_or_else(broken)?;
                base.get(start..end).ok_or_else(broken)?
            }
        };
        if out.len() + piece.len() > length {
            return Err(broken());
        }
        out.extend_from_slice(piece);
    }
    match out.len() == length {
        true => Ok(out),
        false => Err(broken()),
    }
}

/// Reads a pack through a window, so that many small objects in a row cost one read.
struct Reader<'a> {
    bytes: &'a RandomAccess,
    window: Vec<u8>,
    start: u64,
    length: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a RandomAccess) -> Self {
        Self {
            bytes,
            window: Vec::new(),
            start: 0,
            length: 0,
        }
    }

    /// Bytes from `at` on: some, unless it is the end.
    fn fill(&mut self, at: u64) -> Result<&[u8]> {
        let inside = at >= self.start && at < self.start + self.length as u64;
        if !inside {
            self.window.resize(WINDOW, 0);
            self.length = self.bytes.read_at(at, &mut self.window)?;
            self.start = at;
        }
        // Smaller than the window.
        let skip = (at - self.start) as usize;
        Ok(&self.window[skip..self.length])
    }

    fn byte(&mut self, at: u64) -> Result<u8> {
        let found = self.fill(at)?.first().copied();
        found.ok_or_else(|| wrong("it ends too early"))
    }

    fn array<const N: usize>(&mut self, at: u64) -> Result<[u8; N]> {
        let mut found = [0; N];
        for (index, byte) in found.iter_mut().enumerate() {
            *byte = self.byte(at + index as u64)?;
        }
        Ok(found)
    }

    /// Unpacks `size` bytes that begin at `at`; gives where the next object begins.
    fn inflate(
        &mut self,
        at: u64,
        size: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<u64> {
        let broken = || wrong("an object can't be unpacked");
        let mut inflate = Decompress::new(true);
        let mut out = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK).max(64))];
        loop {
            let (read, written) = (inflate.total_in(), inflate.total_out());
            let input = self.fill(at + read)?;
            let is_end = input.is_empty();
            let status = inflate
                .decompress(input, &mut out, FlushDecompress::None)
                .map_err(|_| broken())?;
            let fresh = inflate.total_out() - written;
            if inflate.total_out() > size {
                return Err(wrong("an object is longer than it says"));
            }
            // At most the buffer's length.
            if fresh > 0 {
                take(&out[..fresh as usize])?;
            }
            match status {
                Status::StreamEnd if inflate.total_out() == size => {
                    return Ok(at + inflate.total_in());
                }
                Status::StreamEnd => return Err(wrong("an object is shorter than it says")),
                _ if is_end && fresh == 0 => return Err(wrong("it ends too early")),
                _ if fresh == 0 && inflate.total_in() == read => return Err(broken()),
                _ => {}
            }
        }
    }

    fn all(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.inflate(entry.at, entry.size, &mut |chunk| {
            all.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(all)
    }
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the pack is malformed: {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use bytes::Bytes;
    use futures::FutureExt;
    use ocm_content::limits::LimitsConfig;
    use ocm_content::{Limits, Spool};
    use proptest::prelude::*;

    use super::*;

    fn kept(bytes: &[u8]) -> RandomAccess {
        let limits = Limits::new(LimitsConfig::default());
        let mut spool = Spool::new(&Arc::clone(&limits));
        let write = spool.write(Bytes::copy_from_slice(bytes));
        write.now_or_never().expect("at once").expect("kept");
        spool.into_random()
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    /// An object: kind, what is between header and bytes, bytes.
    type Object<'a> = (u8, &'a [u8], &'a [u8]);

    fn pack_of(count: u32, objects: &[Object<'_>]) -> Vec<u8> {
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(count.to_be_bytes());
        for (kind, between, bytes) in objects {
            let mut size = bytes.len();
            let mut byte = (kind << 4) | (size & 15) as u8;
            size >>= 4;
            while size > 0 {
                pack.push(byte | 0x80);
                byte = (size & 0x7f) as u8;
                size >>= 7;
            }
            pack.push(byte);
            pack.extend(*between);
            pack.extend(deflated(bytes));
        }
        signed(pack)
    }

    fn signed(mut pack: Vec<u8>) -> Vec<u8> {
        let mut naming = Naming::new(Format::Sha1);
        naming.update(&pack);
        let id = naming.finish().expect("no collision").to_string();
        for pair in id.as_bytes().chunks(2) {
            let pair = std::str::from_utf8(pair).expect("digits");
            pack.push(u8::from_str_radix(pair, 16).expect("digits"));
        }
        pack
    }

    fn id(kind: Kind, bytes: &[u8]) -> Id {
        let mut naming = Naming::object(Format::Sha1, kind.as_str(), bytes.len() as u64);
        naming.update(bytes);
        naming.finish().expect("no collision")
    }

    #[test]
    fn differences_by_name_and_by_place_are_applied() {
        let base = b"hello, world, hello again";
        // Copies 5 bytes from 0, adds ` there`.
        let difference = [25, 11, 0x90, 5, 6, b' ', b't', b'h', b'e', b'r', b'e'];
        let name: Vec<u8> = {
            let text = id(Kind::Blob, base).to_string();
            let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
            (0..20).map(|index| pair(2 * index)).collect()
        };
        let whole_length = (pack_of(1, &[(3, b"", base)]).len() - 12 - 20) as u8;
        for pack in [
            pack_of(2, &[(3, b"", base), (7, &name, &difference)]),
            // The base may come later.
            pack_of(2, &[(7, &name, &difference), (3, b"", base)]),
            pack_of(2, &[(3, b"", base), (6, &[whole_length], &difference)]),
        ] {
            let pack = Pack::open(kept(&pack), Format::Sha1).expect("a pack");
            for bytes in [&base[..], b"hello there"] {
                let id = id(Kind::Blob, bytes);
                assert_eq!(pack.object(id, Kind::Blob).expect("there"), bytes);
                assert_eq!(pack.blob_size(id).expect("there"), bytes.len() as u64);
                let mut found = Vec::new();
                pack.blob(id, |chunk| {
                    found.extend_from_slice(chunk);
                    Ok(())
                })
                .expect("there");
                assert_eq!(found, bytes);
                assert!(pack.object(id, Kind::Tree).is_err());
            }
        }
    }

    #[test]
    fn what_is_no_pack_is_told() {
        let good = pack_of(1, &[(3, b"", b"hello")]);
        let end = good.len() - 20;
        let mut flipped = good.clone();
        flipped[end] ^= 1;
        let mut more = good[..end].to_vec();
        more.push(0);
        let mut huge = b"PACK\0\0\0\x02".to_vec();
        huge.extend([0xff; 4]);
        for (pack, expected) in [
            (good.clone(), ""),
            (good[..end].to_vec(), "malformed"),
            (good[..20].to_vec(), "malformed"),
            (b"PACK".to_vec(), "it ends too early"),
            (b"<html><body>".to_vec(), "it does not begin as a pack"),
            (flipped, "does not match its checksum"),
            (signed(more), "there is something behind its last object"),
            (signed(huge), "more than 2000000"),
            (pack_of(2, &[(3, b"", b"hello")]), "malformed"),
            (pack_of(1, &[(5, b"", b"hello")]), "no known kind"),
            (pack_of(1, &[(7, &[1; 20], b"\0\0")]), "one that is missing"),
            (pack_of(1, &[(6, &[5], b"\0\0")]), "one that is missing"),
            (
                pack_of(1, &[(6, &[0], b"\0\0")]),
                "a difference is to nothing",
            ),
            (
                pack_of(1, &[(6, &[0x7f], b"\0\0")]),
                "a difference is to nothing",
            ),
        ] {
            let found = match Pack::open(kept(&pack), Format::Sha1) {
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{expected}: {found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{expected}");
        }
    }

    #[test]
    fn objects_that_lie_about_their_size_are_refused() {
        let good = pack_of(1, &[(3, b"", b"hello")]);
        for size in [4, 6] {
            let mut pack = good[..good.len() - 20].to_vec();
            pack[12] = (3 << 4) | size;
            let error = Pack::open(kept(&signed(pack)), Format::Sha1).map(drop);
            let error = error.expect_err("it lies").to_string();
            assert!(error.contains("than it says"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much_for_it(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Pack::open(kept(&bytes), Format::Sha1);
            let mut with_header = b"PACK\0\0\0\x02\0\0\0\x02".to_vec();
            with_header.extend(&bytes);
            let _ = Pack::open(kept(&signed(with_header)), Format::Sha1);
        }

        #[test]
        fn no_difference_is_too_much_for_it(base in proptest::collection::vec(any::<u8>(), 0..100), difference in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut whole = vec![base.len() as u8];
            whole.extend(&difference);
            let _ = apply(&base, &whole);
            let _ = apply(&base, &difference);
        }
    }
}
