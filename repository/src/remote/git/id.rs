//! Names of git's objects: SHA-1 with a look-out for collisions, or SHA-256.
//!
//! *Invariant*: an object is what its name says, or it is an error.

use std::fmt;

use ocm_content::{Error, Result};
use ocm_specs::Algorithm;
use sha1_checked::{Digest as _, Sha1};

/// How a repository names its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Sha1,
    Sha256,
}

impl Format {
    /// Bytes of a name.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// As the protocol spells it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }
}

/// The name of an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    format: Format,
    /// The first [`Format::length`] count, the others are zero.
    bytes: [u8; 32],
}

impl Id {
    /// Reads 40 or 64 hexadecimal digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let format = match text.len() {
            40 => Format::Sha1,
            64 => Format::Sha256,
            _ => return None,
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            // Two digits fit into a byte.
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        Some(Self { format, bytes })
    }

    /// Takes the bytes of a name; `None` when these are not as many as it has.
    pub(super) fn from_bytes(format: Format, name: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        bytes
            .get_mut(..format.length())?
            .copy_from_slice(Some(name).filter(|name| name.len() == format.length())?);
        Some(Self { format, bytes })
    }

    pub(super) fn format(self) -> Format {
        self.format
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.bytes[..self.format.length()] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Computes names.
pub(super) enum Naming {
    Sha1(Box<Sha1>),
    Sha256(Box<ocm_specs::Hasher>),
}

impl Naming {
    /// Of bytes that are no object: the end of a pack.
    pub(super) fn new(format: Format) -> Self {
        match format {
            Format::Sha1 => Self::Sha1(Box::new(Sha1::new())),
            Format::Sha256 => Self::Sha256(Box::new(ocm_specs::Hasher::new(Algorithm::Sha256))),
        }
    }

    /// Of an object of that kind and length.
    pub(super) fn object(format: Format, kind: &str, size: u64) -> Self {
        let mut naming = Self::new(format);
        naming.update(format!("{kind} {size}\0").as_bytes());
        naming
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The name.
    pub(super) fn finish(self) -> Result<Id> {
        match self {
            Self::Sha1(hasher) => {
                let found = hasher.try_finalize();
                if found.has_collision() {
                    return Err(Error::mismatch(
                        "an object was made to collide with another one under SHA-1",
                    ));
                }
                Id::from_bytes(Format::Sha1, found.hash())
            }
            Self::Sha256(hasher) => Id::parse(hasher.finish().hex()),
        }
        .ok_or_else(|| Error::internal("a hash has another length than names have"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_names_that_git_gives_them() {
        for (format, expected) in [
            (Format::Sha1, "ce013625030ba8dba906f756967f9e9ca394464a"),
            (
                Format::Sha256,
                "2cf8d83d9ee29543b34a87727421fdecb7e3f3a183d337639025de576db9ebb4",
            ),
        ] {
            let mut naming = Naming::object(format, "blob", 6);
            naming.update(b"hello\n");
            let id = naming.finish().expect("no collision");
            assert_eq!(id.to_string(), expected);
            assert_eq!(Id::parse(expected), Some(id));
            assert_eq!(Id::parse(&expected.to_uppercase()), Some(id));
        }
        for text in ["", "main", "ce01362503", &"g".repeat(40), &"ä".repeat(20)] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
