//! Lists what is in a layer as a CycloneDX document: packages by what their managers wrote down, files by their digests.
//!
//! Invariant: the layer is handed on untouched; the list is made only if somebody reads it, and says the same for the same
//! layer: no time, no serial number.

#![forbid(unsafe_code)]

mod packages;

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use ocm_plugin::schemars::JsonSchema;
use ocm_plugin::serde::Deserialize;
use ocm_plugin::serde_json;
use ocm_plugin::gzip;
use ocm_plugin::tar::{Member, Reader};
use ocm_plugin::{Content, Error, Info, Nothing, Outcome, Port, Sink, Step, Transformer};
use sha2::{Digest, Sha256};

use crate::packages::{Package, Release};

/// Largest file that is read for what packages are in it, in bytes.
const DATABASE: u64 = 16 << 20;
/// Files that are listed at most.
const FILES: usize = 200_000;
const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

#[derive(Deserialize, JsonSchema)]
#[serde(crate = "ocm_plugin::serde", deny_unknown_fields)]
#[schemars(crate = "ocm_plugin::schemars")]
struct Spec {
    /// What the document is about, for its readers.
    name: Option<String>,
    /// Its version.
    version: Option<String>,
    /// Are files listed, too, with their digests?
    #[serde(default)]
    files: bool,
}

/// What was found in a layer.
#[derive(Default)]
struct Found {
    packages: Vec<Package>,
    release: Release,
    /// Digests by path.
    files: BTreeMap<String, String>,
}

impl Found {
    fn read(source: &mut dyn BufRead, with_files: bool) -> Result<Self, Error> {
        let mut found = Self::default();
        let mut tar = Reader::new(source);
        while let Some(member) = tar.next_member()? {
            if !member.is_file {
                continue;
            }
            let is_database = packages::is_database(&member.path);
            if is_database && member.size <= DATABASE {
                let content = tar.read(&member, DATABASE)?;
                if with_files {
                    found.add_file(&member, sha256(&content))?;
                }
                let text = String::from_utf8_lossy(&content);
                found.packages.extend(packages::read(&member.path, &text, &mut found.release));
            } else if with_files {
                let mut hash = Hash(Sha256::new());
                // With its header and padding left out.
                tar.read_into(&member, &mut hash)?;
                let digest = hex(&hash.0.finalize());
                found.add_file(&member, digest)?;
            }
        }
        Ok(found)
    }

    fn add_file(&mut self, member: &Member, digest: String) -> Result<(), Error> {
        if self.files.len() == FILES {
            return Err(Error::invalid_content(format!("it has more than {FILES} files")).in_port("layer"));
        }
        self.files.insert(member.path.clone(), digest);
        Ok(())
    }

    /// The document, in the order of what is in it. Written as text: there are few fields and many packages.
    fn document(&self, spec: &Spec) -> String {
        let mut all = BTreeMap::new();
        for package in &self.packages {
            let (purl, component) = package.component(&self.release);
            all.insert(purl, component);
        }
        let mut components = String::new();
        let mut add = |component: &str| {
            components.push_str(if components.is_empty() { "\n" } else { ",\n" });
            components.push_str(component);
        };
        all.values().for_each(|component| add(component));
        for (path, digest) in &self.files {
            let reference = quoted(&format!("file:{path}"));
            add(&format!(
                r#"{{"type":"file","bom-ref":{reference},"name":{},"hashes":[{{"alg":"SHA-256","content":"{digest}"}}]}}"#,
                quoted(path)
            ));
        }
        let name = quoted(spec.name.as_deref().unwrap_or("layer"));
        let version = spec.version.as_ref().map(|version| format!(r#","version":{}"#, quoted(version))).unwrap_or_default();
        format!(
            "{{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"version\":1,\"metadata\":{{\"component\":{{\"type\":\"container\",\"bom-ref\":\"layer\",\"name\":{name}{version}{}}}}},\n\"components\":[{components}\n]}}\n",
            self.release.components()
        )
    }
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A hash to write into.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| DIGITS[digit as usize] as char).collect()
}

struct Sbom;

impl Transformer for Sbom {
    const TYPE: &'static str = "Sbom/v1alpha1";
    const DOCUMENTATION: &'static str = "Lists the packages in a layer as a CycloneDX document.\n\nReads what dpkg, apk, pip and npm wrote down, and on request lists all files. The layer itself is handed on as it is, so that it can be stored beside its list.";
    const INPUTS: &'static [Port] = &[Port::required("layer", "a layer: a tar, compressed with gzip or not")];
    const OUTPUTS: &'static [Port] = &[
        Port::required("layer", "the same layer"),
        Port::required("sbom", "what is in it").of(&[CYCLONEDX]),
    ];
    const EXAMPLES: &'static [&'static str] = &[
        "- id: sbom1\n  type: Sbom/v1alpha1\n  spec:\n    layer: ${get1.output.data}\n    name: acme/web\n    version: 2.3.0\n",
    ];
    type Spec = Spec;
    type Config = Nothing;
    type Output = Nothing;

    fn run(_step: &Step<Self>) -> Result<Outcome<Nothing>, Error> {
        let info = Info { media_type: CYCLONEDX.to_owned(), ..Info::default() };
        Ok(Outcome::new(Nothing {}).with("layer", Content::same_as("layer")).with("sbom", Content::lazy(info)))
    }

    fn produce(step: &Step<Self>, _port: &str, _state: &[u8], sink: &mut Sink) -> Result<(), Error> {
        let mut source = step.input("layer")?.open()?;
        let found = match source.peek(2)? == gzip::MAGIC {
            true => Found::read(&mut gzip::Reader::new(&mut source), step.spec.files),
            false => Found::read(&mut source, step.spec.files),
        };
        // The reader of tars does not know what its port is called.
        let found = found.map_err(|error| if error.port.is_some() { error.in_port("layer") } else { error })?;
        sink.write_all(found.document(&step.spec).as_bytes())?;
        Ok(())
    }
}

ocm_plugin::plugin! {
    name: "sbom",
    documentation: "Lists what is in a layer.",
    types: [Sbom],
}

#[cfg(test)]
mod tests {
    use ocm_plugin::tar::write_file;
    use ocm_plugin::testing::{fails, run_in_chunks};
    use ocm_plugin::{Kind, testing::run};

    use super::*;

    const FILES: [(&str, &str); 7] = [
        ("etc/os-release", "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n"),
        (
            "var/lib/dpkg/status",
            "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u10\nDescription: C library\n more of it\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
        ),
        ("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nArchitecture: all\nVersion: 2025b\n"),
        ("lib/apk/db/installed", "C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\n\nP:busybox\nV:1.37.0-r12\nA:x86_64\n"),
        ("usr/lib/python3/site-packages/Flask-3.1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: Flask\nVersion: 3.1.0\n\nVersion: not this\n"),
        ("app/node_modules/@acme/ui/package.json", "{\"name\": \"@acme/ui\", \"version\": \"1.0.0+b\", \"license\": \"MIT\"}"),
        ("app/package.json", "{\"name\": \"app\", \"version\": \"9\"}"),
    ];

    fn tar() -> Vec<u8> {
        let mut out = Vec::new();
        for (path, text) in FILES {
            write_file(&mut out, path, text.as_bytes()).unwrap();
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packages_are_listed_and_the_layer_stays() {
        let mut documents = Vec::new();
        for (layer, chunk) in [(tar(), 1), (tar(), 513), (compressed(&tar()), 7), (compressed(&tar()), 4096)] {
            let ran = run_in_chunks::<Sbom>(r#"{"name": "acme/web"}"#, &[("layer", &layer)], chunk).unwrap();
            assert!(ran.contents["layer"] == layer);
            documents.push(ran.contents["sbom"].clone());
        }
        documents.dedup();
        assert_eq!(documents.len(), 1);
        let document: serde_json::Value = serde_json::from_slice(&documents[0]).unwrap();
        assert_eq!(document["metadata"]["component"]["name"], "acme/web");
        assert_eq!(document["metadata"]["component"]["components"][0]["version"], "12");
        let purls: Vec<_> = document["components"].as_array().unwrap().iter().map(|it| it["purl"].as_str().unwrap()).collect();
        assert_eq!(purls, [
            "pkg:apk/alpine/busybox@1.37.0-r12?arch=x86_64",
            "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64",
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12",
            "pkg:deb/debian/tzdata@2025b?arch=all&distro=debian-12",
            "pkg:npm/%40acme/ui@1.0.0%2Bb",
            "pkg:pypi/flask@3.1.0",
        ]);
    }

    #[test]
    fn files_are_listed_with_their_digests() {
        let ran = run::<Sbom>(r#"{"files": true}"#, &[("layer", &tar())]).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&ran.contents["sbom"]).unwrap();
        let files: Vec<_> = document["components"].as_array().unwrap().iter().filter(|it| it["type"] == "file").collect();
        assert_eq!(files.len(), FILES.len());
        for (path, text) in FILES {
            let file = files.iter().find(|file| file["name"] == path).unwrap();
            assert_eq!(file["hashes"][0]["content"], sha256(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_layer_is_refused() {
        for bytes in [&b"no tar"[..], b"", &compressed(b"no tar"), &compressed(&tar())[..200]] {
            let ran = run::<Sbom>("{}", &[("layer", bytes)]);
            assert!(fails(&ran, Kind::InvalidContent));
        }
    }
}
