//! Bytes of any length that cost nothing to make: one block, again and again.

use bytes::Bytes;
use ocm_specs::{Algorithm, Digest, Hasher};
use ocm_testdata::fixtures::noise;
use serde::{Deserialize, Serialize};

/// Length of the block: it fits into a processor's cache, as bytes that come from a network do.
const BLOCK: usize = 1 << 20;

/// What gzip files begin with (RFC 1952): a client that looks takes the content as compressed already.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// A blob that is generated while it is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generated {
    /// Tells one from another.
    pub(crate) seed: u64,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// The digest of all its bytes.
    pub(crate) digest: String,
}

impl Generated {
    /// A blob; reads it once for its digest.
    pub(crate) fn new(seed: u64, size: u64) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        for chunk in chunks(seed, size) {
            hasher.update(&chunk);
        }
        Self {
            seed,
            size,
            digest: hasher.finish().to_string(),
        }
    }

    /// The parsed digest.
    pub(crate) fn parsed_digest(&self) -> crate::Result<Digest> {
        Ok(self.digest.parse()?)
    }

    /// All bytes, in pieces that share one block.
    pub(crate) fn chunks(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        chunks(self.seed, self.size)
    }
}

/// Bytes of a blob of that seed, in pieces that share one block.
pub(crate) fn chunks(seed: u64, size: u64) -> impl Iterator<Item = Bytes> + Send {
    /// What a server hands to a socket at once.
    const CHUNK: usize = 256 << 10;
    let mut block = noise(BLOCK, seed).to_vec();
    block[..GZIP.len()].copy_from_slice(&GZIP);
    let block = Bytes::from(block);
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = (at % BLOCK as u64) as usize;
        let length = (size - at).min(CHUNK as u64) as usize;
        at += length as u64;
        (length > 0).then(|| block.slice(start..start + length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_its_size_and_digest() {
        for size in [0, 1, 256 << 10, (3 << 20) + 17] {
            let generated = Generated::new(7, size);
            let bytes: Vec<u8> = generated.chunks().flatten().collect();
            assert_eq!(bytes.len() as u64, size);
            assert_eq!(Digest::sha256(&bytes).to_string(), generated.digest);
        }
        assert_ne!(Generated::new(1, 100).digest, Generated::new(2, 100).digest);
    }
}
