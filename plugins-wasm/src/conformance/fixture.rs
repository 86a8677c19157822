//! Steps in folders, with what they get and what they must give.
//!
//! ```text
//! NAME/step.yaml     the step as it stands in a spec; its ports may be left out
//! NAME/in/PORT       the bytes of an input
//! NAME/out/PORT      the bytes of an output
//! NAME/output.json   the output without ports
//! NAME/error.json    instead of the two: what the step is refused with
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ocm_content::{Error, ErrorKind};
use serde_json::Value as Json;

use super::trial::Output;

/// Largest file of a fixture, in bytes.
const FILE: u64 = 256 << 20;
/// Most fixtures in a folder.
const FIXTURES: usize = 1000;

/// A step with what it must give.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The name of its folder.
    pub name: String,
    pub(super) folder: PathBuf,
    pub(super) step: String,
    pub(super) inputs: BTreeMap<String, Bytes>,
    pub(super) outputs: BTreeMap<String, Bytes>,
    pub(super) output: Option<Json>,
    /// `Null` in a file that is empty: one that is to be blessed.
    pub(super) error: Option<Json>,
}

/// Reads the fixtures of a folder, by their names. A folder below it without `step.yaml` is none.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no such folder, and what reading gives.
pub fn read_fixtures(folder: &Path) -> Result<Vec<Fixture>, Error> {
    let mut fixtures = Vec::new();
    for (name, path) in listed(folder)? {
        if !path.join("step.yaml").is_file() {
            continue;
        }
        if fixtures.len() == FIXTURES {
            return Err(Error::limit(format!(
                "{} has more than {FIXTURES} fixtures",
                folder.display()
            )));
        }
        fixtures.push(Fixture::read(name, path)?);
    }
    Ok(fixtures)
}

/// What is in a folder, by name.
fn listed(folder: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let doing = || format!("read {}", folder.display());
    let listing = fs::read_dir(folder).map_err(|error| Error::io(doing(), &error))?;
    let mut found = BTreeMap::new();
    for entry in listing {
        let entry = entry.map_err(|error| Error::io(doing(), &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.insert(name, entry.path());
        }
    }
    Ok(found)
}

fn file(path: &Path) -> Result<Bytes, Error> {
    let read = || -> std::io::Result<Bytes> {
        if fs::metadata(path)?.len() > FILE {
            return Err(std::io::Error::other(format!(
                "it has more than {} MiB",
                FILE >> 20
            )));
        }
        Ok(fs::read(path)?.into())
    };
    read().map_err(|error| Error::io(format!("read {}", path.display()), &error))
}

/// A file that need not be there.
fn optional(path: &Path) -> Result<Option<Bytes>, Error> {
    match file(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn ports(folder: &Path) -> Result<BTreeMap<String, Bytes>, Error> {
    match listed(folder) {
        Ok(found) => found
            .into_iter()
            .map(|(name, path)| Ok((name, file(&path)?)))
            .collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

impl Fixture {
    fn read(name: String, folder: PathBuf) -> Result<Self, Error> {
        let document = |name: &str| -> Result<Option<Json>, Error> {
            let path = folder.join(name);
            let Some(bytes) = optional(&path)? else {
                return Ok(None);
            };
            if bytes.trim_ascii().is_empty() {
                return Ok(Some(Json::Null));
            }
            let read = serde_json::from_slice(&bytes);
            read.map(Some)
                .map_err(|error| Error::invalid(format!("{} is not JSON: {error}", path.display())))
        };
        let path = folder.join("step.yaml");
        let step = String::from_utf8(file(&path)?.into())
            .map_err(|_| Error::invalid(format!("{} is not UTF-8", path.display())))?;
        Ok(Self {
            step,
            inputs: ports(&folder.join("in"))?,
            outputs: ports(&folder.join("out"))?,
            output: document("output.json")?,
            error: document("error.json")?,
            name,
            folder,
        })
    }

    /// The type of its step; empty where that can't be read.
    pub(super) fn step_type(&self) -> String {
        let source = ocm_specs::yaml::Source::new(&*self.name, &*self.step);
        let Ok(node) = ocm_specs::yaml::load(&source, &Default::default()) else {
            return String::new();
        };
        let step = match node.as_list() {
            Some([step]) => step,
            Some(_) => return String::new(),
            None => &node,
        };
        let name = step.get("type").and_then(|name| name.as_str());
        name.unwrap_or_default().to_owned()
    }

    /// Has nobody said yet what it must give?
    pub(super) fn is_open(&self) -> bool {
        self.output.is_none() && self.outputs.is_empty() && self.error.is_none()
    }

    /// Compares what a step gave; says what differs.
    pub(super) fn compare(
        &self,
        output: &Json,
        outputs: &BTreeMap<String, Output>,
    ) -> Result<(), String> {
        if self.error.is_some() {
            return Err("it ran, and error.json says that it is refused".to_owned());
        }
        for (port, expected) in &self.outputs {
            match outputs.get(port) {
                None => return Err(format!("out/{port} is there, and the step gave none")),
                Some(found) if found.bytes != *expected => {
                    return Err(format!("out/{port} {}", difference(expected, &found.bytes)));
                }
                Some(_) => {}
            }
        }
        if let Some(port) = outputs
            .keys()
            .find(|port| !self.outputs.contains_key(*port))
        {
            return Err(format!(
                "the step gave `{port}`, and there is no out/{port}"
            ));
        }
        let empty = Json::Object(serde_json::Map::new());
        let expected = match &self.output {
            None | Some(Json::Null) => &empty,
            Some(expected) => expected,
        };
        if expected != output {
            return Err(format!(
                "the output is {output}, output.json has {expected}"
            ));
        }
        Ok(())
    }

    /// Writes what a step gave as what it must give.
    ///
    /// # Errors
    /// What writing gives.
    pub(super) fn bless(
        &self,
        output: &Json,
        outputs: &BTreeMap<String, Output>,
    ) -> Result<(), Error> {
        let folder = self.folder.join("out");
        for port in self
            .outputs
            .keys()
            .filter(|port| !outputs.contains_key(*port))
        {
            let path = folder.join(port);
            fs::remove_file(&path)
                .map_err(|error| Error::io(format!("remove {}", path.display()), &error))?;
        }
        for (port, found) in outputs {
            fs::create_dir_all(&folder)
                .map_err(|error| Error::io(format!("create {}", folder.display()), &error))?;
            write(&folder.join(port), &found.bytes)?;
        }
        self.write_document("output.json", output)
    }

    /// Writes a refusal as what it must come to.
    ///
    /// # Errors
    /// What writing gives.
    pub(super) fn bless_error(&self, error: &Json) -> Result<(), Error> {
        self.write_document("error.json", error)
    }

    fn write_document(&self, name: &str, document: &Json) -> Result<(), Error> {
        let mut text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::internal(format!("write {name}: {error}")))?;
        text.push('\n');
        write(&self.folder.join(name), text.as_bytes())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|error| Error::io(format!("write {}", path.display()), &error))
}

/// Where two texts or byte strings part.
fn difference(expected: &[u8], found: &[u8]) -> String {
    let same = expected
        .iter()
        .zip(found)
        .take_while(|(a, b)| a == b)
        .count();
    let line = expected[..same]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1;
    format!(
        "has {} bytes, the step gave {}; they part at byte {same} (line {line})",
        expected.len(),
        found.len()
    )
}
