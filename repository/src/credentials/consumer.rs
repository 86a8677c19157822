//! The consumers of an `.ocmconfig`: credentials by identity, of both generations of the format.
//!
//! Which entry a request gets does not depend on map order. An entry *fits* when
//! - the types are equal, whatever their version (`OCIRegistry/v1` is `OCIRegistry`) and in v1's spelling, too;
//! - the host names are equal (Docker Hub's three names are one), the schemes are equal or one is open, and the ports are
//!   equal once `https` (or `oci`) means 443 and `http` means 80;
//! - each segment of the entry's `path` (with `*`, `?`, `[a-z]` inside a segment) matches the request's, from the start on; what
//!   the request has beyond that does not matter;
//! - all other attributes are equal.
//!
//! An entry with v1's `pathprefix` follows v1: scheme and port matter only where the entry has them.
//!
//! Of those that fit, an equal one comes first; then the one with most literal path segments, then most segments at all,
//! then with a port, then with a scheme, then the one that stands last.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use ocm_content::{Error, Result};
use ocm_specs::config::{ConfigEntry, place_of};
use serde_json::{Map, Value};

use super::{Considered, Credential, CredentialSource, Identity, Secret};

/// The type of entries about credentials, without its version.
const CREDENTIALS: &str = "credentials.config.ocm.software";
/// Attributes that say where something is; all others say what it is.
const PLACE: [&str; 6] = ["type", "scheme", "hostname", "port", "path", "pathprefix"];

/// What is configured for an identity: named values.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, Secret>);

impl Properties {
    /// A value that is not empty.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What a registry takes: an access token, else a refresh token (v1: `identityToken`), else user name and password.
    pub fn registry_credential(&self) -> Option<Credential> {
        if let Some(token) = self.get("accessToken") {
            return Some(Credential::Bearer(token.clone()));
        }
        if let Some(token) = self
            .get("refreshToken")
            .or_else(|| self.get("identityToken"))
        {
            return Some(Credential::IdentityToken(token.clone()));
        }
        self.basic_credential()
    }

    /// What a server takes that is no registry: a token in any of the names that OCM's consumers have for it, else user name
    /// and password.
    pub fn web_credential(&self) -> Option<Credential> {
        let mut names = ["token", "identityToken", "accessToken"].into_iter();
        match names.find_map(|name| self.get(name)) {
            Some(token) => Some(Credential::Bearer(token.clone())),
            None => self.basic_credential(),
        }
    }

    fn basic_credential(&self) -> Option<Credential> {
        let username = self.get("username")?.expose().to_owned();
        Some(Credential::Basic {
            username,
            password: self.get("password").cloned().unwrap_or_default(),
        })
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A Docker configuration that an `.ocmconfig` refers to.
#[derive(Clone, PartialEq, Eq)]
pub enum DockerConfigAt {
    /// A file, as it is written there: a leading `~` is not expanded.
    File(String),
    /// The document itself, as text.
    Inline(Secret),
    /// Wherever Docker has it.
    Default,
}

impl fmt::Debug for DockerConfigAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Inline(_) => f.write_str("Inline(***)"),
            Self::Default => f.write_str("Default"),
        }
    }
}

#[derive(Clone, Debug)]
struct Entry {
    identity: Identity,
    properties: Properties,
    /// Where it stands.
    at: String,
}

/// Credentials of consumers, in the order of their documents.
#[derive(Clone, Debug, Default)]
pub struct Consumers {
    entries: Vec<Entry>,
    docker: Vec<(DockerConfigAt, String)>,
    unsupported: Vec<String>,
}

impl Consumers {
    /// Collects what configuration documents say about credentials; what they say about other things is passed over. A
    /// document is a `generic.config.ocm.software` or a `credentials.config.ocm.software`, of any version.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] with the place of the mistake.
    pub fn from_documents<'a>(documents: impl IntoIterator<Item = &'a Value>) -> Result<Self> {
        let mut all = Vec::new();
        for document in documents {
            let found = ocm_specs::config::entries(document, &[]);
            all.extend(found.map_err(|error| Error::invalid(error.to_string()))?);
        }
        Self::from_entries(&all)
    }

    /// The same for entries, the one that counts least first. Their places are told in messages and by `explain`.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] with the place of the mistake.
    pub fn from_entries(entries: &[ConfigEntry<'_>]) -> Result<Self> {
        let mut consumers = Self::default();
        for entry in entries.iter().filter(|entry| entry.kind == CREDENTIALS) {
            consumers.credentials(entry.value, &entry.at)?;
        }
        Ok(consumers)
    }

    /// The best entry for `request`.
    pub fn find(&self, request: &Identity) -> Option<&Properties> {
        self.best(request).map(|entry| &entry.properties)
    }

    /// Where the best entry for `request` stands.
    pub fn place_of(&self, request: &Identity) -> Option<&str> {
        self.best(request).map(|entry| entry.at.as_str())
    }

    fn best(&self, request: &Identity) -> Option<&Entry> {
        let request = normalised(request);
        let fitting = self
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| {
                let rank = fit(&entry.identity, &request)?;
                Some(((rank, index), entry))
            });
        let best = fitting.max_by(|(a, _), (b, _)| a.cmp(b));
        best.map(|(_, entry)| entry)
    }

    /// The Docker configurations referred to, each with the place that refers to it, the one to ask first first: those of a later
    /// entry before those of an earlier one. They come after the consumers here.
    pub fn docker_configs(&self) -> &[(DockerConfigAt, String)] {
        &self.docker
    }

    /// Types of credentials and of credential repositories that nobody here understands, in order.
    pub fn unsupported(&self) -> &[String] {
        &self.unsupported
    }

    fn credentials(&mut self, document: &Value, at: &str) -> Result<()> {
        for (at, consumer) in list(document, "consumers", at)? {
            self.consumer(consumer, &at)?;
        }
        let mut docker = Vec::new();
        for (at, entry) in list(document, "repositories", at)? {
            let repository = entry.get("repository").unwrap_or(entry);
            let kind = text(repository, "type")
                .ok_or_else(|| Error::invalid(format!("{at}: a repository without a type")))?;
            if base(&kind) == "DockerConfig" {
                docker.push((docker_config(repository), at));
            } else {
                self.unsupported.push(kind);
            }
        }
        // What stands in a later entry counts more.
        self.docker.splice(0..0, docker);
        Ok(())
    }

    fn consumer(&mut self, consumer: &Value, at: &str) -> Result<()> {
        let mut identities = list(consumer, "identities", at)?;
        if let Some(identity) = consumer.get("identity").filter(|value| !value.is_null()) {
            identities.push((format!("{at}.identity"), identity));
        }
        if identities.is_empty() {
            return Err(Error::invalid(format!(
                "{at}: a consumer without an identity"
            )));
        }
        let mut direct = Properties::default();
        let mut typed = None;
        for (at, credentials) in list(consumer, "credentials", at)? {
            let kind = text(credentials, "type")
                .ok_or_else(|| Error::invalid(format!("{at}: credentials without a type")))?;
            match base(&kind) {
                "Credentials" | "DirectCredentials" => {
                    let values = credentials.get("properties").unwrap_or(&Value::Null);
                    direct
                        .0
                        .extend(strings(values, &format!("{at}.properties"))?);
                }
                "OCICredentials"
                | "HelmHTTPCredentials"
                | "GitHubCredentials"
                | "S3Credentials"
                | "WgetCredentials"
                | "RSACredentials"
                | "GPGCredentials"
                | "TrustedRoot"
                | "OIDCIdentityToken" => {
                    let mut values = strings(credentials, &at)?;
                    values.remove("type");
                    typed = Some(Properties(values));
                }
                _ => self.unsupported.push(kind),
            }
        }
        let properties = typed.unwrap_or(direct);
        for (at, identity) in identities {
            self.add(identity, &at, properties.clone())?;
        }
        Ok(())
    }

    /// Adds an entry, or what it says to the entry of the same identity.
    fn add(&mut self, identity: &Value, at: &str, properties: Properties) -> Result<()> {
        let attributes = strings(identity, at)?;
        let exposed = |(name, value): (String, Secret)| (name, value.expose().to_owned());
        let identity = normalised(&attributes.into_iter().map(exposed).collect());
        if identity.get("type").is_none() {
            return Err(Error::invalid(format!("{at}: an identity without a type")));
        }
        let mut merged = properties;
        if let Some(index) = self
            .entries
            .iter()
            .position(|entry| entry.identity == identity)
        {
            let mut earlier = self.entries.remove(index).properties;
            earlier.0.extend(merged.0);
            merged = earlier;
        }
        self.entries.push(Entry {
            identity,
            properties: merged,
            at: at.to_owned(),
        });
        Ok(())
    }
}

#[async_trait]
impl CredentialSource for Consumers {
    async fn credential(&self, request: &Identity) -> Result<Option<Credential>> {
        Ok(self
            .find(request)
            .and_then(|properties| match request.kind() {
                "OCIRegistry" => properties.registry_credential(),
                _ => properties.web_credential(),
            }))
    }

    fn name(&self) -> String {
        "consumers of the configuration".to_owned()
    }

    async fn explain(&self, request: &Identity) -> Vec<Considered> {
        let asked = normalised(request);
        let best = self.best(request);
        let considered = |entry: &Entry| {
            let is_best = best.is_some_and(|best| std::ptr::eq(best, entry));
            let credential = entry.properties.registry_credential();
            let reason = match (is_best, &credential) {
                (true, Some(credential)) => format!("fits best: {}", credential.describe()),
                (true, None) => "fits best, but has nothing that a registry takes".to_owned(),
                (false, _) => why_not(&entry.identity, &asked).to_owned(),
            };
            Considered {
                place: entry.at.clone(),
                entry: entry.identity.to_string(),
                used: is_best && credential.is_some(),
                reason,
            }
        };
        self.entries.iter().map(considered).collect()
    }
}

/// Why an entry is not the one that is used.
fn why_not(entry: &Identity, request: &Identity) -> &'static str {
    let differs = |name: &str| entry.get(name) != request.get(name);
    match () {
        () if fit(entry, request).is_some() => "another entry fits better",
        () if differs("type") => "another type",
        () if differs("hostname") => "another host",
        () if !fits_origin(entry, request) => "another scheme or port",
        () => "another path, or attributes that were not asked for",
    }
}

/// A text in PEM, or the file that has it.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// The text itself.
    Inline(Secret),
    /// A file, as it is written there: a leading `~` is not expanded.
    File(String),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(***)"),
            Self::File(path) => write!(f, "File({path:?})"),
        }
    }
}

/// What is configured for TLS with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `host[:port]`.
    pub authority: String,
    /// Certificate and key to show there.
    pub identity: Option<(Pem, Pem)>,
    /// Certificates to trust, besides those of the system.
    pub trusted: Option<Pem>,
    /// Where it stands.
    pub at: String,
}

impl Consumers {
    /// Client certificates and certificate authorities of consumers that name a host, in order.
    ///
    /// # Errors
    /// [`ocm_content::ErrorKind::Invalid`] for a certificate without its key.
    pub fn client_certificates(&self) -> Result<Vec<ClientCertificate>> {
        let mut found = Vec::new();
        for entry in &self.entries {
            let Some(hostname) = entry.identity.get("hostname") else {
                continue;
            };
            let pem = |inline: &str, file: &str| {
                let text = entry.properties.get(inline).cloned().map(Pem::Inline);
                let path = entry.properties.get(file);
                text.or_else(|| Some(Pem::File(path?.expose().to_owned())))
            };
            let identity = match (pem("certificate", "certFile"), pem("privateKey", "keyFile")) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                _ => {
                    return Err(Error::invalid(format!(
                        "{}: a client certificate and its key belong together",
                        entry.at
                    )));
                }
            };
            let trusted = pem("certificateAuthority", "caFile");
            if identity.is_none() && trusted.is_none() {
                continue;
            }
            let own = entry
                .identity
                .get("scheme")
                .is_none_or(|scheme| scheme == "https");
            let port = entry
                .identity
                .get("port")
                .filter(|port| !(own && *port == "443"));
            found.push(ClientCertificate {
                authority: match port {
                    Some(port) => format!("{hostname}:{port}"),
                    None => hostname.to_owned(),
                },
                identity,
                trusted,
                at: entry.at.clone(),
            });
        }
        Ok(found)
    }
}

fn docker_config(repository: &Value) -> DockerConfigAt {
    if let Some(path) = text(repository, "dockerConfigFile") {
        return DockerConfigAt::File(path);
    }
    match repository.get("dockerConfig") {
        Some(Value::String(document)) if !document.is_empty() => {
            DockerConfigAt::Inline(Secret::new(document.clone()))
        }
        Some(document @ Value::Object(_)) => {
            DockerConfigAt::Inline(Secret::new(document.to_string()))
        }
        _ => DockerConfigAt::Default,
    }
}

/// A type without its version.
fn base(kind: &str) -> &str {
    kind.split_once('/').map_or(kind, |(name, _)| name)
}

fn text(value: &Value, name: &str) -> Option<String> {
    let text = value.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// The entries of a list, each with its place.
fn list<'a>(value: &'a Value, name: &str, at: &str) -> Result<Vec<(String, &'a Value)>> {
    let at = place_of(at, name);
    match value.get(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(entries)) => {
            let entries = entries.iter().enumerate();
            Ok(entries
                .map(|(index, entry)| (format!("{at}[{index}]"), entry))
                .collect())
        }
        Some(_) => Err(Error::invalid(format!("{at}: expected a list"))),
    }
}

/// A map of texts. Numbers and booleans are taken as the texts they look like: an unquoted port is what it seems to be.
fn strings(value: &Value, at: &str) -> Result<BTreeMap<String, Secret>> {
    let empty = Map::new();
    let map = match value {
        Value::Object(map) => map,
        Value::Null => &empty,
        _ => return Err(Error::invalid(format!("{at}: expected a map of texts"))),
    };
    let mut strings = BTreeMap::new();
    for (name, value) in map {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null => continue,
            _ => return Err(Error::invalid(format!("{at}.{name}: expected a text"))),
        };
        strings.insert(name.clone(), Secret::new(text));
    }
    Ok(strings)
}

/// One spelling for what means the same; empty attributes are left out.
fn normalised(identity: &Identity) -> Identity {
    let attributes = identity.attributes().filter(|(_, value)| !value.is_empty());
    let attribute = |(name, value): (&str, &str)| {
        let value = match name {
            "type" => kind(value).to_owned(),
            "scheme" => match value.to_ascii_lowercase().as_str() {
                "oci" => "https".to_owned(),
                scheme => scheme.to_owned(),
            },
            "hostname" => match value.to_ascii_lowercase().as_str() {
                "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
                hostname => hostname.to_owned(),
            },
            "path" | "pathprefix" => value.trim_matches('/').to_owned(),
            _ => value.to_owned(),
        };
        (name.to_owned(), value)
    };
    attributes.map(attribute).collect()
}

fn kind(text: &str) -> &str {
    match base(text) {
        "wget" => "Wget",
        "Github" => "GitHubRepository",
        "S3" => "S3Bucket",
        name => name,
    }
}

/// How well an entry fits; `None` where it does not. Greater is better.
type Rank = (bool, usize, usize, bool, bool);

fn fit(entry: &Identity, request: &Identity) -> Option<Rank> {
    if entry == request {
        return Some((true, 0, 0, false, false));
    }
    let other = |identity: &Identity| -> Vec<(String, String)> {
        let attributes = identity
            .attributes()
            .filter(|(name, _)| !PLACE.contains(name));
        attributes
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let same_thing = entry.get("type") == request.get("type")
        && entry.get("hostname") == request.get("hostname")
        && other(entry) == other(request);
    if !same_thing || !fits_origin(entry, request) {
        return None;
    }
    let path = request.get("path").unwrap_or_default();
    let (literal, all) = match (entry.get("pathprefix"), entry.get("path")) {
        (None, None) => (0, 0),
        (Some(prefix), _) => path_fit(prefix, path, |pattern, segment| pattern == segment)?,
        (None, Some(pattern)) => path_fit(pattern, path, glob)?,
    };
    Some((
        false,
        literal,
        all,
        entry.get("port").is_some(),
        entry.get("scheme").is_some(),
    ))
}

fn fits_origin(entry: &Identity, request: &Identity) -> bool {
    let (own, asked) = (entry.get("scheme"), request.get("scheme"));
    if own.is_some() && asked.is_some() && own != asked {
        return false;
    }
    let scheme = own.or(asked);
    let port = |identity: &Identity| -> Option<String> {
        let default = match scheme {
            Some("https") => Some("443"),
            Some("http") => Some("80"),
            _ => None,
        };
        identity.get("port").or(default).map(str::to_owned)
    };
    let any_port = entry.get("pathprefix").is_some() && entry.get("port").is_none();
    any_port || port(entry) == port(request)
}

/// Matches whole segments from the start; gives how many are literal, and how many there are.
fn path_fit(
    pattern: &str,
    path: &str,
    fits: impl Fn(&str, &str) -> bool,
) -> Option<(usize, usize)> {
    let mut segments = path.split('/');
    let (mut literal, mut all) = (0, 0);
    for pattern in pattern.split('/') {
        let segment = segments.next()?;
        if !fits(pattern, segment) {
            return None;
        }
        all += 1;
        literal += usize::from(pattern == segment);
    }
    Some((literal, all))
}

/// Go's `path.Match` for one segment: `*`, `?`, `[a-z]`, `[^a]`, `\c`. A malformed pattern matches nothing.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not match: the star takes one character more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            star = Some((p + 1, t));
            p += 1;
            continue;
        }
        if p == pattern.len() && t == text.len() {
            return true;
        }
        match text.get(t).and_then(|c| glob_one(&pattern[p..], *c)) {
            Some(length) => {
                p += length;
                t += 1;
            }
            None => match star {
                Some((after, taken)) if taken < text.len() => {
                    star = Some((after, taken + 1));
                    (p, t) = (after, taken + 1);
                }
                _ => return false,
            },
        }
    }
}

/// Does the pattern's first element match the character? Gives the element's length.
fn glob_one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '\\' => (pattern.get(1) == Some(&c)).then_some(2),
        '[' => {
            let end = 2 + pattern.get(2..)?.iter().position(|c| *c == ']')?;
            let set = &pattern[1..end];
            let (negated, set) = match set.first() {
                Some('^') => (true, &set[1..]),
                _ => (false, set),
            };
            let mut found = false;
            let mut rest = set;
            while let Some((first, after)) = rest.split_first() {
                (found, rest) = match after {
                    ['-', last, after @ ..] => (found || (*first..=*last).contains(&c), after),
                    _ => (found || *first == c, after),
                };
            }
            (found != negated).then_some(end + 1)
        }
        first => (*first == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn config(identities: &[Value]) -> Consumers {
        let consumer = |(index, identity): (usize, &Value)| {
            json!({"identity": identity, "credentials": [
                {"type": "Credentials/v1", "properties": {"username": index.to_string(), "password": "p"}}
            ]})
        };
        let consumers: Vec<Value> = identities.iter().enumerate().map(consumer).collect();
        let document =
            json!({"type": "credentials.config.ocm.software/v1", "consumers": consumers});
        Consumers::from_documents([&document]).expect("a good configuration")
    }

    fn oci(attributes: Value) -> Value {
        let mut identity = json!({"type": "OCIRegistry"});
        let map = identity.as_object_mut().expect("a map");
        map.extend(attributes.as_object().expect("a map").clone());
        identity
    }

    /// Trap T24: one generation has literal prefixes, the other patterns, and both write types in their own words.
    #[test]
    fn t24_entries_of_both_generations_mean_the_same() {
        let consumers = config(&[
            oci(json!({"hostname": "old.example", "pathprefix": "acme"})),
            oci(json!({"hostname": "old.example", "pathprefix": "b*"})),
            json!({"type": "OCIRegistry/v1", "hostname": "new.example", "path": "acme/*"}),
            json!({"type": "Github", "hostname": "github.com"}),
            json!({"type": "wget", "hostname": "web.example"}),
        ]);
        let oci = |hostname, path| Identity::oci("https", hostname, None, path);
        let other = |kind, hostname| Identity::new(kind).with("hostname", hostname);
        for (request, expected) in [
            (oci("old.example", "acme"), Some("0")),
            (oci("old.example", "acme/x/y"), Some("0")),
            (oci("old.example", "acmes/x"), None),
            (oci("old.example", "b*/x"), Some("1")),
            (oci("old.example", "bx"), None),
            (oci("new.example", "acme/x"), Some("2")),
            (oci("new.example", "other/x"), None),
            (other("GitHubRepository", "github.com"), Some("3")),
            (other("Wget", "web.example"), Some("4")),
            (other("HelmChartRepository", "web.example"), None),
        ] {
            let found = consumers.find(&request).and_then(|it| it.get("username"));
            assert_eq!(found.map(Secret::expose), expected, "{request}");
        }
    }

    /// Trap T25: among several entries that fit, the library v2 takes any.
    #[test]
    fn t25_the_most_specific_entry_wins_in_any_order() {
        let identities = [
            oci(json!({"hostname": "r.example"})),
            oci(json!({"hostname": "r.example", "path": "acme/*"})),
            oci(json!({"hostname": "r.example", "path": "acme/x"})),
            oci(json!({"hostname": "r.example", "scheme": "https"})),
            oci(json!({"hostname": "r.example", "port": "8443"})),
            json!({"type": "OCIRegistry/v1", "hostname": "v.example"}),
            oci(json!({"hostname": "old.example", "pathprefix": "acme"})),
            oci(json!({"hostname": "index.docker.io"})),
            oci(json!({"hostname": "p.example", "scheme": "http", "port": 5000})),
            json!({"type": "HelmChartRepository", "hostname": "r.example"}),
        ];
        for (request, expected) in [
            (("https", "r.example", None, "other"), Some(3)),
            (("https", "r.example", None, "acme/y"), Some(1)),
            (("https", "r.example", None, "acme/y/z"), Some(1)),
            (("https", "r.example", None, "acme/x"), Some(2)),
            (("https", "r.example", None, "acme/x/y"), Some(2)),
            (("https", "r.example", None, "acme"), Some(3)),
            (("https", "R.example", Some(443), ""), Some(3)),
            (("http", "r.example", None, "acme"), Some(0)),
            (("https", "r.example", Some(8443), "acme/x"), Some(4)),
            (("https", "r.example", Some(9443), "acme/x"), None),
            (("https", "v.example", None, "a"), Some(5)),
            (("https", "old.example", Some(5000), "acme/x"), Some(6)),
            (("https", "old.example", None, "acmes"), None),
            (("https", "docker.io", None, "library/x"), Some(7)),
            (("http", "p.example", Some(5000), "x"), Some(8)),
            (("https", "p.example", Some(5000), "x"), None),
            (("https", "unknown.example", None, "x"), None),
        ] {
            let (scheme, hostname, port, path) = request;
            let identity = Identity::oci(scheme, hostname, port, path);
            let forward = config(&identities);
            let reversed: Vec<Value> = identities.iter().rev().cloned().collect();
            let backward = config(&reversed);
            let name = |consumers: &Consumers| -> Option<usize> {
                let found = consumers.find(&identity)?.get("username")?;
                found.expose().parse().ok()
            };
            assert_eq!(name(&forward), expected, "{identity}");
            let mirrored = expected.map(|index| identities.len() - 1 - index);
            assert_eq!(name(&backward), mirrored, "{identity}, reversed");
        }
    }

    #[test]
    fn credentials_merge_and_typed_ones_win() {
        let direct = |name: &str, value: &str| json!({"type": "DirectCredentials", "properties": {name: value}});
        for (credentials, expected) in [
            (
                json!([
                    direct("username", "a"),
                    direct("password", "b"),
                    direct("username", "c")
                ]),
                "c:b",
            ),
            (
                json!([{"type": "OCICredentials/v1", "username": "t", "password": "u"}, direct("username", "c")]),
                "t:u",
            ),
            (
                json!([{"type": "OCICredentials/v1", "refreshToken": "r"}]),
                "identity r",
            ),
            (json!([direct("identityToken", "i")]), "identity i"),
            (
                json!([{"type": "OCICredentials/v1", "accessToken": "a", "refreshToken": "r"}]),
                "bearer a",
            ),
            (json!([{"type": "HashiCorpVault/v1"}]), "none"),
        ] {
            let document = json!({"type": "generic.config.ocm.software/v1", "configurations": [
                {"type": "unknown.config"},
                {"type": "generic.config.ocm.software", "configurations": [{"type": "credentials.config.ocm.software",
                    "consumers": [{"identities": [{"type": "OCIRegistry", "hostname": "h"}], "credentials": credentials}]}]},
            ]});
            let consumers = Consumers::from_documents([&document]).expect("a good configuration");
            let found = consumers
                .find(&Identity::oci("https", "h", None, ""))
                .expect("an entry");
            let found = match found.registry_credential() {
                Some(Credential::Basic { username, password }) => {
                    format!("{username}:{}", password.expose())
                }
                Some(Credential::Bearer(token)) => format!("bearer {}", token.expose()),
                Some(Credential::IdentityToken(token)) => format!("identity {}", token.expose()),
                None => "none".to_owned(),
            };
            assert_eq!(found, expected);
            assert!(!format!("{consumers:?}").contains("\"b\""));
        }
    }

    #[test]
    fn signing_keys_are_found_by_their_attributes() {
        let identity =
            json!({"type": "RSA/v1alpha1", "algorithm": "RSASSA-PSS", "signature": "acme"});
        let consumers = config(&[identity]);
        let request = |signature| {
            Identity::new("RSA/v1alpha1")
                .with("algorithm", "RSASSA-PSS")
                .with("signature", signature)
        };
        assert!(consumers.find(&request("acme")).is_some());
        assert!(consumers.find(&request("other")).is_none());
    }

    #[test]
    fn mistakes_have_a_place() {
        let consumers = |consumers: Value| json!({"type": "credentials.config.ocm.software", "consumers": consumers});
        let nested = (0..20).fold(
            json!({}),
            |inner, _| json!({"type": "generic.config.ocm.software", "configurations": [inner]}),
        );
        for (document, expected) in [
            (consumers(json!({})), "consumers: expected a list"),
            (
                consumers(json!([{}])),
                "consumers[0]: a consumer without an identity",
            ),
            (
                consumers(json!([{"identity": 7}])),
                "consumers[0].identity: expected a map of texts",
            ),
            (
                consumers(json!([{"identity": {"type": ["x"]}}])),
                "consumers[0].identity.type: expected a text",
            ),
            (
                consumers(json!([{"identity": {"hostname": "h"}}])),
                "consumers[0].identity: an identity without a type",
            ),
            (
                consumers(json!([{"identity": {"type": "x"}, "credentials": [{}]}])),
                "consumers[0].credentials[0]: credentials without a type",
            ),
            (nested, "configurations are nested too deeply"),
        ] {
            let error = Consumers::from_documents([&document]).expect_err(expected);
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[]x", "]x", false),
            ("[a", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_matching_panic(pattern in r"[\[\]a-c*?^\\-]{0,12}", text in "[a-c]{0,12}") {
            let _ = glob(&pattern, &text);
            prop_assert!(glob("*", &text));
        }
    }
}
