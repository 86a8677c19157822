//! PEM: blocks of base64 between two lines (RFC 7468), with the header lines of its ancestor (RFC 1421).
//!
//! *Invariant*: a block that is read is well formed from its first line to its last; nothing is guessed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocm_content::Error;

/// Longest text that is read, in bytes: far above any key with its chain.
const TEXT_LIMIT: usize = 1 << 20;
/// Most blocks in one text.
const BLOCK_LIMIT: usize = 64;
/// Characters of base64 in a line, as Go writes them.
const COLUMNS: usize = 64;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What stands behind `BEGIN`.
    pub(super) label: String,
    /// Header lines in order.
    pub(super) headers: Vec<(String, String)>,
    /// What the base64 stands for.
    pub(super) bytes: Vec<u8>,
}

impl Block {
    /// The value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// The block as text, as Go writes it.
    pub(super) fn write(&self, out: &mut String) {
        out.push_str(&format!("-----BEGIN {}-----\n", self.label));
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\n"));
        }
        if !self.headers.is_empty() {
            out.push('\n');
        }
        let text = STANDARD.encode(&self.bytes);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(COLUMNS));
            out.push_str(line);
            out.push('\n');
            rest = tail;
        }
        out.push_str(&format!("-----END {}-----\n", self.label));
    }
}

/// All blocks of a text, in order. What stands between them is passed over: keys come with comments.
///
/// # Errors
/// [`ocm_content::ErrorKind::Invalid`] for a block that is not well formed, [`ocm_content::ErrorKind::Limit`] for too much.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, Error> {
    read(text, |_| Ok(()))
}

/// Like [`blocks`], of a text that has nothing but blocks.
///
/// # Errors
/// As [`blocks`], and for anything between the blocks.
pub(super) fn only_blocks(text: &str) -> Result<Vec<Block>, Error> {
    read(text, |line| {
        if line.is_empty() {
            Ok(())
        } else {
            Err(Error::invalid("there is text between the PEM blocks"))
        }
    })
}

fn read(text: &str, between: impl Fn(&str) -> Result<(), Error>) -> Result<Vec<Block>, Error> {
    if text.len() > TEXT_LIMIT {
        return Err(Error::limit(format!(
            "PEM text is longer than the {TEXT_LIMIT} bytes that are read"
        )));
    }
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "BEGIN") else {
            between(line)?;
            continue;
        };
        if found.len() == BLOCK_LIMIT {
            return Err(Error::limit(format!("more than {BLOCK_LIMIT} PEM blocks")));
        }
        found.push(block(label, &mut lines)?);
    }
    Ok(found)
}

fn block<'a>(label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Block, Error> {
    let bad = |why: &str| Error::invalid(format!("PEM block `{label}` {why}"));
    let mut headers = Vec::new();
    let mut base64 = String::new();
    for line in lines {
        if let Some(end) = boundary(line, "END") {
            if end != label {
                return Err(bad("ends as another one"));
            }
            let bytes = STANDARD
                .decode(&base64)
                .map_err(|_| bad("holds no base64"))?;
            return Ok(Block {
                label: label.to_owned(),
                headers,
                bytes,
            });
        }
        if boundary(line, "BEGIN").is_some() {
            return Err(bad("has another one inside"));
        }
        match line.split_once(':') {
            Some(_) if !base64.is_empty() => return Err(bad("has a header behind its content")),
            Some((name, value)) => headers.push((name.trim().to_owned(), value.trim().to_owned())),
            None => base64.push_str(line.trim()),
        }
    }
    Err(bad("has no end"))
}

fn boundary<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?
        .strip_prefix(word)?
        .strip_prefix(' ')?
        .strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let block = Block {
            label: "SIGNATURE".to_owned(),
            headers: vec![("Signature Algorithm".to_owned(), "RSASSA-PSS".to_owned())],
            bytes: (0..=255).collect(),
        };
        let mut text = String::new();
        block.write(&mut text);
        assert!(
            text.starts_with(
                "-----BEGIN SIGNATURE-----\nSignature Algorithm: RSASSA-PSS\n\nAAECAwQF"
            )
        );
        assert_eq!(text.lines().nth(3).map(str::len), Some(COLUMNS));
        assert_eq!(only_blocks(&text).expect("blocks"), [block]);
    }

    #[test]
    fn blocks_are_well_formed_or_refused() {
        for (text, expected) in [
            ("", Ok(0)),
            (
                "a comment\n-----BEGIN A-----\nAAAA\n-----END A-----\n",
                Ok(1),
            ),
            ("-----BEGIN A-----\r\nAAAA\r\n-----END A-----\r\n", Ok(1)),
            (
                "-----BEGIN A-----\nAAAA\n-----END A-----\n-----BEGIN B-----\n-----END B-----",
                Ok(2),
            ),
            ("-----BEGIN A-----\nAAAA\n", Err("no end")),
            (
                "-----BEGIN A-----\nAAAA\n-----END B-----\n",
                Err("ends as another"),
            ),
            (
                "-----BEGIN A-----\nA*AA\n-----END A-----\n",
                Err("no base64"),
            ),
            (
                "-----BEGIN A-----\nAAA\n-----END A-----\n",
                Err("no base64"),
            ),
            (
                "-----BEGIN A-----\nAAAA\nx: y\n-----END A-----\n",
                Err("header behind"),
            ),
            (
                "-----BEGIN A-----\n-----BEGIN B-----\n",
                Err("another one inside"),
            ),
        ] {
            match (blocks(text), expected) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count, "{text}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert!(only_blocks("x\n-----BEGIN A-----\nAAAA\n-----END A-----\n").is_err());
        assert!(blocks(&"x\n".repeat(TEXT_LIMIT)).is_err());
        assert!(blocks(&"-----BEGIN A-----\n-----END A-----\n".repeat(BLOCK_LIMIT + 1)).is_err());
    }
}
