//! The artifact index of a CTF: which repositories and tags there are, and the digests they stand for.
//!
//! Invariant: this module performs no I/O, and an index that is read and written without a change says the same,
//! keys this version does not know included.
//!
//! **Order of entries.** New entries go to their sorted place (repository, tag, digest; no tag first) within the
//! *longest sorted tail* of the list; the entries before that tail keep their places. An archive that only this program
//! wrote is therefore sorted, whichever task or process finished first, and an archive of another tool is not reshuffled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ocm_content::{Error, Result};
use ocm_specs::Digest;
use ocm_specs::oci::escape_html;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The name of the index in an archive.
pub const INDEX_FILE: &str = "artifact-index.json";

/// Largest index that is read, in bytes: room for a quarter of a million entries.
pub const INDEX_LIMIT: u64 = 64 << 20;

/// The only schema version there is.
const SCHEMA_VERSION: u64 = 1;

type Extra = Vec<(String, Box<RawValue>)>;

/// One line of the index: a manifest in a repository, perhaps under a tag.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The repository, relative to the archive.
    pub repository: String,
    /// The tag; `None` where the manifest is known by digest only.
    pub tag: Option<String>,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its media type. The Go library v1 doesn't write it.
    pub media_type: Option<String>,
    extra: Extra,
}

impl Entry {
    /// An entry of a manifest.
    pub fn new(
        repository: impl Into<String>,
        tag: Option<&str>,
        digest: Digest,
        media_type: Option<&str>,
    ) -> Self {
        Self {
            repository: repository.into(),
            tag: tag.filter(|tag| !tag.is_empty()).map(str::to_owned),
            digest,
            media_type: media_type.map(str::to_owned),
            extra: Extra::new(),
        }
    }

    fn key(&self) -> (&str, &str, &Digest) {
        let tag = self.tag.as_deref().unwrap_or_default();
        (&self.repository, tag, &self.digest)
    }
}

/// The entries of an archive, and the rules by which they change (schema version 1).
#[derive(Clone, Debug, Default)]
pub struct Index {
    entries: Vec<Entry>,
    /// Where the longest sorted tail of `entries` starts.
    tail: usize,
    /// Positions by repository of the entries before the tail.
    head: BTreeMap<String, Vec<usize>>,
    extra: Extra,
}

impl Index {
    /// Reads the bytes of an index. `artifacts: null`, missing media types and unknown keys are fine.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for malformed documents, digests that are none, and other schema versions;
    /// [`ocm_content::ErrorKind::Limit`] above [`INDEX_LIMIT`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > INDEX_LIMIT {
            return Err(Error::limit(format!(
                "{INDEX_FILE} is larger than {INDEX_LIMIT} bytes"
            )));
        }
        let document: Document = serde_json::from_slice(bytes).map_err(|error| {
            // A newer schema may look quite different: say that first.
            match serde_json::from_slice::<Version>(bytes) {
                Ok(Version { schema_version }) if schema_version != SCHEMA_VERSION => {
                    wrong_version(schema_version)
                }
                _ => Error::invalid(format!("{INDEX_FILE}: {error}")),
            }
        })?;
        match document.schema_version {
            Some(SCHEMA_VERSION) => {}
            Some(other) => return Err(wrong_version(other)),
            None => {
                return Err(Error::invalid(format!(
                    "{INDEX_FILE}: `schemaVersion` is missing"
                )));
            }
        }
        let mut index = Self {
            entries: document.artifacts,
            extra: document.extra,
            ..Self::default()
        };
        index.check_tags()?;
        index.arrange();
        Ok(index)
    }

    /// One tag stands for one thing: no tool writes two, and readers would disagree about which one counts.
    fn check_tags(&self) -> Result<()> {
        let mut tags = BTreeMap::new();
        for entry in &self.entries {
            let Some(tag) = &entry.tag else { continue };
            let before = tags.insert((&entry.repository, tag), &entry.digest);
            if let Some(before) = before.filter(|before| **before != entry.digest) {
                return Err(Error::invalid(format!(
                    "{INDEX_FILE}: the tag `{tag}` of {} stands for {before} and for {}",
                    entry.repository, entry.digest
                )));
            }
        }
        Ok(())
    }

    /// The bytes that go into the archive: compact JSON on one line, escaped as Go does, without a newline.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = String::with_capacity(64 + self.entries.len() * 256);
        out.push_str("{\"schemaVersion\":1,\"artifacts\":[");
        for (position, entry) in self.entries.iter().enumerate() {
            if position > 0 {
                out.push(',');
            }
            write_entry(&mut out, entry);
        }
        out.push(']');
        write_extra(&mut out, &self.extra);
        out.push('}');
        escape_html(&out).into_bytes()
    }

    /// All entries in file order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The repositories that have entries, sorted.
    pub fn repositories(&self) -> BTreeSet<&str> {
        self.entries
            .iter()
            .map(|entry| entry.repository.as_str())
            .collect()
    }

    /// The entries of one repository in file order.
    pub fn in_repository<'a>(&'a self, repository: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.positions(repository)
            .map(|position| &self.entries[position])
    }

    /// The entry behind a tag; the first, should there be several.
    pub fn tagged<'a>(&'a self, repository: &'a str, tag: &str) -> Option<&'a Entry> {
        self.in_repository(repository)
            .find(|entry| entry.tag.as_deref() == Some(tag))
    }

    /// An entry for a digest, whatever its tag.
    pub fn with_digest<'a>(&'a self, repository: &'a str, digest: &Digest) -> Option<&'a Entry> {
        self.in_repository(repository)
            .find(|entry| entry.digest == *digest)
    }

    /// Does any entry of any repository stand for the digest?
    pub fn mentions(&self, digest: &Digest) -> bool {
        self.entries.iter().any(|entry| entry.digest == *digest)
    }

    /// Adds an entry by the rules of the Go library v2; `false` when that changes nothing.
    ///
    /// - The same repository, tag and digest: nothing changes.
    /// - A tag that stands for another digest: that entry stays, without its tag.
    /// - A tag for a digest that has an untagged entry: that entry gets the tag.
    /// - No tag, and the repository has the digest already, tagged or not: nothing changes. (The Go library adds a
    ///   second entry when the tag came first; here the result must not depend on what came first.)
    pub fn add(&mut self, entry: Entry) -> bool {
        let Some(tag) = entry.tag.as_deref() else {
            let known = self.with_digest(&entry.repository, &entry.digest).is_some();
            if !known {
                self.insert(entry);
            }
            return !known;
        };
        let exact = |other: &Entry| other.tag == entry.tag && other.digest == entry.digest;
        if self.in_repository(&entry.repository).any(exact) {
            return false;
        }
        if let Some(position) =
            self.position(&entry.repository, |other| other.tag.as_deref() == Some(tag))
        {
            self.edit(position, |displaced| displaced.tag = None);
        }
        let untagged = self.position(&entry.repository, |other| {
            other.tag.is_none() && other.digest == entry.digest
        });
        match untagged {
            Some(position) => self.edit(position, |known| {
                known.tag = entry.tag;
                known.media_type = entry.media_type.or(known.media_type.take());
            }),
            None => self.insert(entry),
        }
        true
    }

    /// Lets a tag stand for another digest and forgets the digest it stood for: for lists that are replaced as a
    /// whole, such as those of the referrers tag schema. Gives the forgotten digest.
    pub fn replace(&mut self, entry: Entry) -> Option<Digest> {
        let tag = entry.tag.clone();
        let before = self.position(&entry.repository, |other| other.tag == tag);
        let forgotten = before.map(|position| self.remove_at(position).digest);
        self.insert(entry);
        forgotten
    }

    /// Removes the entry of a tag; `None` if there is none. (As in the Go library v2 the whole entry goes; the manifest
    /// itself can still be read by its digest.)
    pub fn untag(&mut self, repository: &str, tag: &str) -> Option<Entry> {
        let position = self.position(repository, |entry| entry.tag.as_deref() == Some(tag))?;
        Some(self.remove_at(position))
    }

    /// Removes all entries of a repository for a digest; `false` if there were none.
    pub fn remove(&mut self, repository: &str, digest: &Digest) -> bool {
        let before = self.entries.len();
        self.entries
            .retain(|entry| entry.repository != repository || entry.digest != *digest);
        let changed = self.entries.len() != before;
        if changed {
            self.arrange();
        }
        changed
    }

    fn positions(&self, repository: &str) -> impl Iterator<Item = usize> {
        let sorted = &self.entries[self.tail..];
        let start = sorted.partition_point(|entry| entry.repository.as_str() < repository);
        let count =
            sorted[start..].partition_point(|entry| entry.repository.as_str() == repository);
        let first = self.tail + start;
        let head = self.head.get(repository).into_iter().flatten().copied();
        head.chain(first..first + count)
    }

    fn position(&self, repository: &str, wanted: impl Fn(&Entry) -> bool) -> Option<usize> {
        self.positions(repository)
            .find(|position| wanted(&self.entries[*position]))
    }

    fn insert(&mut self, entry: Entry) {
        let place = self.entries[self.tail..].partition_point(|other| other.key() <= entry.key());
        // Even at the front of the tail this moves no boundary: what is before the tail is greater than its first.
        self.entries.insert(self.tail + place, entry);
    }

    fn remove_at(&mut self, position: usize) -> Entry {
        let entry = self.entries.remove(position);
        if position <= self.tail {
            self.arrange();
        }
        entry
    }

    /// Changes an entry: in the tail it moves to its new sorted place, before the tail it stays.
    fn edit(&mut self, position: usize, change: impl FnOnce(&mut Entry)) {
        if position < self.tail {
            change(&mut self.entries[position]);
            self.arrange();
        } else {
            let mut entry = self.remove_at(position);
            change(&mut entry);
            self.insert(entry);
        }
    }

    fn arrange(&mut self) {
        let pairs = self.entries.windows(2).rev();
        let sorted = pairs
            .take_while(|pair| pair[0].key() <= pair[1].key())
            .count();
        self.tail = self.entries.len().saturating_sub(sorted + 1);
        self.head.clear();
        for (position, entry) in self.entries[..self.tail].iter().enumerate() {
            self.head
                .entry(entry.repository.clone())
                .or_default()
                .push(position);
        }
    }
}

fn wrong_version(found: u64) -> Error {
    Error::invalid(format!(
        "{INDEX_FILE} has schema version {found}, only {SCHEMA_VERSION} is known"
    ))
}

fn write_entry(out: &mut String, entry: &Entry) {
    out.push_str("{\"repository\":");
    write_text(out, &entry.repository);
    if let Some(tag) = &entry.tag {
        out.push_str(",\"tag\":");
        write_text(out, tag);
    }
    out.push_str(",\"digest\":\"");
    out.push_str(&entry.digest.to_string());
    out.push('"');
    if let Some(media_type) = &entry.media_type {
        out.push_str(",\"mediaType\":");
        write_text(out, media_type);
    }
    write_extra(out, &entry.extra);
    out.push('}');
}

fn write_text(out: &mut String, text: &str) {
    // A string always has a JSON form.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

fn write_extra(out: &mut String, extra: &Extra) {
    for (key, value) in extra {
        out.push(',');
        write_text(out, key);
        out.push(':');
        write_compact(out, value.get());
    }
}

/// Drops the blanks outside strings.
fn write_compact(out: &mut String, json: &str) {
    let (mut inside, mut escaped) = (false, false);
    for character in json.chars() {
        if inside || !character.is_ascii_whitespace() {
            out.push(character);
        }
        match character {
            '"' if !escaped => inside = !inside,
            '\\' if inside && !escaped => {
                escaped = true;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
}

#[derive(serde::Deserialize)]
struct Version {
    #[serde(rename = "schemaVersion")]
    schema_version: u64,
}

/// The whole document. Unknown values stay text: as trees they could take many times the memory of the file.
struct Document {
    schema_version: Option<u64>,
    artifacts: Vec<Entry>,
    extra: Extra,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an artifact index")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut document = Document {
                    schema_version: None,
                    artifacts: Vec::new(),
                    extra: Extra::new(),
                };
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "schemaVersion" => document.schema_version = map.next_value()?,
                        "artifacts" => {
                            let artifacts: Option<Vec<Entry>> = map.next_value()?;
                            document.artifacts = artifacts.unwrap_or_default();
                        }
                        _ => document.extra.push((key, map.next_value()?)),
                    }
                }
                Ok(document)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an entry with repository and digest")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
                let (mut repository, mut tag, mut digest, mut media_type) =
                    (None, None::<String>, None, None::<String>);
                let mut extra = Extra::new();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "repository" => repository = Some(map.next_value()?),
                        "tag" => tag = map.next_value()?,
                        "digest" => digest = Some(map.next_value()?),
                        "mediaType" => media_type = map.next_value()?,
                        _ => extra.push((key, map.next_value()?)),
                    }
                }
                Ok(Entry {
                    repository: repository.ok_or_else(|| A::Error::missing_field("repository"))?,
                    tag: tag.filter(|tag| !tag.is_empty()),
                    digest: digest.ok_or_else(|| A::Error::missing_field("digest"))?,
                    media_type: media_type.filter(|text| !text.is_empty()),
                    extra,
                })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: char) -> Digest {
        Digest::sha256(name.to_string().as_bytes())
    }

    /// `repository:tag=letter`, the digest being that of the letter.
    fn entry(text: &str) -> Entry {
        let (name, letter) = text.split_once('=').expect("a letter");
        let (repository, tag) = name.split_once(':').unwrap_or((name, ""));
        let letter = letter.chars().next().expect("one letter");
        Entry::new(repository, Some(tag), digest(letter), None)
    }

    fn show(index: &Index) -> String {
        let letter = |wanted: &Digest| ('a'..='z').find(|c| digest(*c) == *wanted).unwrap_or('?');
        let lines = index.entries.iter().map(|entry| {
            let tag = entry.tag.as_ref().map(|tag| format!(":{tag}"));
            let tag = tag.unwrap_or_default();
            format!("{}{tag}={}", entry.repository, letter(&entry.digest))
        });
        lines.collect::<Vec<_>>().join(" ")
    }

    fn of(text: &str) -> Index {
        let mut index = Index {
            entries: text.split_whitespace().map(entry).collect(),
            ..Index::default()
        };
        index.arrange();
        index
    }

    #[test]
    fn adding_follows_the_rules_of_the_reference() {
        for (before, added, after) in [
            ("", "r:1=a", "r:1=a"),
            // exact duplicates, with and without tag
            ("r:1=a", "r:1=a", "r:1=a"),
            ("r=a", "r=a", "r=a"),
            // the old entry of a tag stays without it
            ("r:1=a", "r:1=b", "r=a r:1=b"),
            // an untagged entry gets the tag
            ("r=a", "r:1=a", "r:1=a"),
            // both at once
            ("r=b r:1=a", "r:1=b", "r=a r:1=b"),
            // several tags for one digest
            ("r:1=a", "r:2=a", "r:1=a r:2=a"),
            // no second, untagged entry for what is there
            ("r:1=a", "r=a", "r:1=a"),
            // other repositories are not concerned
            ("q:1=a", "r:1=b", "q:1=a r:1=b"),
            ("q=a", "r:1=a", "q=a r:1=a"),
            // the sorted tail of a foreign list is `q:1`; what is before keeps its place
            ("z:1=a m:1=b q:1=c", "n:1=d", "z:1=a m:1=b n:1=d q:1=c"),
            ("z:1=a m:1=b", "z:1=c", "z=a m:1=b z:1=c"),
            ("z=a m:1=b", "z:1=a", "z:1=a m:1=b"),
        ] {
            let mut index = of(before);
            let changed = index.add(entry(added));
            assert_eq!(show(&index), after, "{before} + {added}");
            assert_eq!(changed, before != after, "{before} + {added}");
        }
    }

    #[test]
    fn removing_takes_whole_entries() {
        let mut index = of("r:1=a r:2=a r:3=b");
        assert!(index.untag("r", "1").is_some());
        assert!(index.untag("r", "1").is_none());
        assert_eq!(show(&index), "r:2=a r:3=b");
        assert!(index.remove("r", &digest('a')));
        assert!(!index.remove("r", &digest('a')));
        assert_eq!(show(&index), "r:3=b");
        assert_eq!(index.replace(entry("r:3=c")), Some(digest('b')));
        assert_eq!(show(&index), "r:3=c");
    }

    #[test]
    fn the_order_of_additions_does_not_matter() {
        let entries = ["p:1=a", "p=b", "q:1=a", "q:2=c", "q=d", "a:1=z", "p:2=b"];
        for base in ["", "x:1=q b:1=r", "b:1=r x:1=q"] {
            let mut expected: Option<String> = None;
            // Rotations and reversals: enough orders to meet every pair both ways round.
            for turn in 0..entries.len() * 2 {
                let mut order = entries;
                order.rotate_left(turn % entries.len());
                if turn >= entries.len() {
                    order.reverse();
                }
                let mut index = of(base);
                for text in order {
                    index.add(entry(text));
                }
                let found = show(&index);
                assert_eq!(*expected.get_or_insert(found.clone()), found, "{order:?}");
            }
        }
    }

    #[test]
    fn lookups_see_both_parts_of_a_list() {
        let index = of("z:1=a m:1=b z:2=c n:1=d q:1=e z:3=f");
        let tags = |name| {
            let entries = index.in_repository(name);
            entries.filter_map(|e| e.tag.clone()).collect::<String>()
        };
        assert_eq!(
            [tags("z"), tags("m"), tags("q"), tags("x")],
            ["123", "1", "1", ""]
        );
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let text = format!(
            r#"{{ "x": {{"a b": [1, "\" c"]}}, "schemaVersion": 1, "artifacts": [
                {{"note": 1e400, "digest": "{}", "repository": "r", "tag": ""}}] }}"#,
            digest('a')
        );
        let mut index = Index::parse(text.as_bytes()).expect("tolerated");
        index.add(Entry::new("s", Some("<1>"), digest('b'), Some("t/x")));
        assert_eq!(
            String::from_utf8(index.to_bytes()).expect("text"),
            format!(
                r#"{{"schemaVersion":1,"artifacts":[{{"repository":"r","digest":"{}","note":1e400}},{{"repository":"s","tag":"\u003c1\u003e","digest":"{}","mediaType":"t/x"}}],"x":{{"a b":[1,"\" c"]}}}}"#,
                digest('a'),
                digest('b')
            )
        );
    }

    #[test]
    fn refuses_what_it_cannot_keep_apart() {
        for (text, message) in [
            (r#"{"artifacts":[]}"#, "`schemaVersion` is missing"),
            (r#"{"schemaVersion":2,"artifacts":[]}"#, "schema version 2"),
            (
                r#"{"schemaVersion":3,"artifacts":{"a":1}}"#,
                "schema version 3",
            ),
            (
                r#"{"schemaVersion":1,"artifacts":[{"repository":"r","digest":"sha256:../x"}]}"#,
                "is not a digest",
            ),
            (
                r#"{"schemaVersion":1,"artifacts":[{"repository":"r"}]}"#,
                "missing field `digest`",
            ),
            (r#"{"schemaVersion":1"#, "EOF"),
            (r#"[]"#, "an artifact index"),
        ] {
            let error = Index::parse(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        let empty = Index::parse(br#"{"schemaVersion":1,"artifacts":null}"#).expect("empty");
        assert!(empty.entries().is_empty());
    }
}
