//! What package managers write down: the few fields that name a package.

use ocm_plugin::serde::Deserialize;
use ocm_plugin::serde_json;

use crate::quoted;

/// A package.
pub(crate) struct Package {
    kind: Kind,
    name: String,
    version: String,
    architecture: String,
    license: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Apk,
    Deb,
    Npm,
    Pypi,
}

/// The system that the packages are of.
#[derive(Default)]
pub(crate) struct Release {
    id: String,
    version: String,
}

impl Release {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches(['"', '\'']);
            match key.trim() {
                "ID" => self.id = value.to_owned(),
                "VERSION_ID" => self.version = value.to_owned(),
                _ => {}
            }
        }
    }

    /// The system as a part of what the document is about.
    pub(crate) fn components(&self) -> String {
        if self.id.is_empty() {
            return String::new();
        }
        let (name, version) = (quoted(&self.id), quoted(&self.version));
        format!(r#","components":[{{"type":"operating-system","bom-ref":"system","name":{name},"version":{version}}}]"#)
    }
}

/// Is that a file that names packages, or the system?
pub(crate) fn is_database(path: &str) -> bool {
    kind_of(path).is_some() || is_release(path)
}

fn is_release(path: &str) -> bool {
    matches!(path, "etc/os-release" | "usr/lib/os-release")
}

fn kind_of(path: &str) -> Option<Kind> {
    match path {
        "var/lib/dpkg/status" => Some(Kind::Deb),
        "lib/apk/db/installed" => Some(Kind::Apk),
        _ if path.starts_with("var/lib/dpkg/status.d/") && !path.ends_with(".md5sums") => Some(Kind::Deb),
        _ if path.ends_with(".dist-info/METADATA") => Some(Kind::Pypi),
        _ if is_npm(path) => Some(Kind::Npm),
        _ => None,
    }
}

/// The `package.json` of a package, not one further inside of it.
fn is_npm(path: &str) -> bool {
    let Some(folder) = path.strip_suffix("/package.json") else {
        return false;
    };
    let Some((_, name)) = folder.rsplit_once("node_modules/") else {
        return false;
    };
    name.split('/').count() == if name.starts_with('@') { 2 } else { 1 }
}

/// The packages that a file names.
pub(crate) fn read(path: &str, text: &str, release: &mut Release) -> Vec<Package> {
    if is_release(path) {
        release.read(text);
        return Vec::new();
    }
    match kind_of(path) {
        Some(Kind::Npm) => npm(text).into_iter().collect(),
        // Behind the first empty line of METADATA the description begins.
        Some(Kind::Pypi) => text.split("\n\n").next().and_then(|head| stanza(Kind::Pypi, head)).into_iter().collect(),
        Some(kind) => text.split("\n\n").filter_map(|part| stanza(kind, part)).collect(),
        None => Vec::new(),
    }
}

#[derive(Deserialize)]
#[serde(crate = "ocm_plugin::serde")]
struct Npm {
    name: String,
    version: String,
}

fn npm(text: &str) -> Option<Package> {
    let Npm { name, version } = serde_json::from_str(text).ok()?;
    Some(Package { kind: Kind::Npm, name, version, architecture: String::new(), license: String::new() })
}

/// Lines of `key: value`.
fn stanza(kind: Kind, text: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    };
    let keys = match kind {
        Kind::Apk => ["P", "V", "A", "L"],
        Kind::Deb => ["Package", "Version", "Architecture", "-"],
        Kind::Pypi | Kind::Npm => ["Name", "Version", "-", "License"],
    };
    let status = field("Status");
    if kind == Kind::Deb && status.is_some_and(|status| !status.ends_with(" installed")) {
        return None;
    }
    Some(Package {
        kind,
        name: field(keys[0])?,
        version: field(keys[1])?,
        architecture: field(keys[2]).unwrap_or_default(),
        license: field(keys[3]).unwrap_or_default(),
    })
}

impl Package {
    /// Its package URL, and its entry in the document.
    pub(crate) fn component(&self, release: &Release) -> (String, String) {
        let purl = self.purl(release);
        let (name, version, shown) = (quoted(&self.name), quoted(&self.version), quoted(&purl));
        let license = match self.license.as_str() {
            "" => String::new(),
            license => format!(r#","licenses":[{{"license":{{"name":{}}}}}]"#, quoted(license)),
        };
        let component = format!(r#"{{"type":"library","bom-ref":{shown},"name":{name},"version":{version},"purl":{shown}{license}}}"#);
        (purl, component)
    }

    /// Its package URL.
    fn purl(&self, release: &Release) -> String {
        let (name, version) = (&self.name, encoded(&self.version));
        let distribution = |usual: &str| encoded(if release.id.is_empty() { usual } else { &release.id });
        match self.kind {
            Kind::Apk => {
                // A layer of one system has no packages of another; a mixture can only come from several layers.
                let system = if release.id == "debian" { "alpine".to_owned() } else { distribution("alpine") };
                format!("pkg:apk/{system}/{}@{version}{}", encoded(name), self.qualifiers(None))
            }
            Kind::Deb => {
                let release = (!release.version.is_empty()).then(|| format!("{}-{}", release.id, release.version));
                format!("pkg:deb/{}/{}@{version}{}", distribution("debian"), encoded(name), self.qualifiers(release))
            }
            Kind::Npm => match name.split_once('/') {
                Some((scope, name)) => format!("pkg:npm/{}/{}@{version}", encoded(scope), encoded(name)),
                None => format!("pkg:npm/{}@{version}", encoded(name)),
            },
            Kind::Pypi => format!("pkg:pypi/{}@{version}", encoded(&name.to_lowercase().replace('_', "-"))),
        }
    }

    fn qualifiers(&self, release: Option<String>) -> String {
        let mut out = String::new();
        for (name, value) in [("arch=", &self.architecture), ("distro=", &release.unwrap_or_default())] {
            if !value.is_empty() {
                out.push(if out.is_empty() { '?' } else { '&' });
                out.push_str(name);
                out.push_str(&encoded(value));
            }
        }
        out
    }
}

/// As package URLs have it: letters, digits and `.-_~` as they are.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => out.push(byte as char),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
