//! What a plugin may do beside computing: what it asks for, what a spec narrows, what the user allows.
//!
//! Invariant: a right is had only if the plugin asks for it *and* the spec does not leave it out *and* the user allows it. A
//! spec is input from others: it can take rights away, never give them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ocm_content::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// A kind of right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// HTTPS requests through the host.
    Http,
    /// The real time.
    Clock,
    /// Real randomness.
    Random,
}

impl Capability {
    /// The word for it in specs and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Clock => "clock",
            Self::Random => "random",
        }
    }
}

/// Which hosts: `name` (on the scheme's own port), `name:port`, `name:*`, with `*.domain` or `*` for a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// Which ports of a host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// The scheme's own.
    Own,
    Any,
    One(u16),
}

impl Ports {
    fn covers(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

impl HostPattern {
    /// Is it that host? `port` is `None` for the scheme's own.
    pub fn matches(&self, host: &str, port: Option<u16>) -> bool {
        let (name, ports) = self.parts();
        let wanted = port.map_or(Ports::Own, Ports::One);
        ports.covers(wanted) && covers_name(name, &host.to_ascii_lowercase())
    }

    /// Is every host of `other` one of this?
    fn covers(&self, other: &Self) -> bool {
        let ((name, ports), (other, others)) = (self.parts(), other.parts());
        ports.covers(others) && covers_name(name, other)
    }

    fn parts(&self) -> (&str, Ports) {
        match self.0.rsplit_once(':') {
            None => (&self.0, Ports::Own),
            Some((name, "*")) => (name, Ports::Any),
            // Parsing let nothing else through.
            Some((name, port)) => (name, port.parse().map_or(Ports::Own, Ports::One)),
        }
    }
}

/// `*.acme.example` is what is below, not `acme.example` itself and not `evilacme.example`.
fn covers_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(domain) => {
            let name = name.strip_prefix('*').unwrap_or(name);
            name == domain || (name.len() > domain.len() && name.ends_with(domain))
        }
        None => pattern == name,
    }
}

impl FromStr for HostPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || {
            Error::invalid(format!("`{}` is not a host", text.escape_debug())).with_hint(
                "write `name`, `name:port` or `name:*`; `*.domain` and `*` stand for several names",
            )
        };
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        if port.is_some_and(|port| port != "*" && port.parse::<u16>().is_err()) {
            return Err(invalid());
        }
        let labels = name.strip_prefix("*.").unwrap_or(name);
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name == "*" || (name.len() <= 253 && labels.split('.').all(is_label)) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(invalid())
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A right that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// Which.
    pub capability: Capability,
    /// For `http`: to which hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<HostPattern>,
    /// Why.
    pub reason: String,
    /// Does the plugin do something useful without it?
    pub optional: bool,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.capability.as_str())?;
        for (at, host) in self.scope.iter().enumerate() {
            write!(f, "{}{host}", if at == 0 { " to " } else { ", " })?;
        }
        Ok(())
    }
}

/// A set of rights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// Hosts.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<HostPattern>,
    /// The real time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clock: bool,
    /// Real randomness.
    #[serde(default, skip_serializing_if = "is_false")]
    pub random: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Rights {
    /// Everything that is asked for.
    pub fn asked(needs: &[Need]) -> Self {
        let mut rights = Self::default();
        for need in needs {
            match need.capability {
                Capability::Http => rights.http.extend(need.scope.iter().cloned()),
                Capability::Clock => rights.clock = true,
                Capability::Random => rights.random = true,
            }
        }
        rights
    }

    /// Reads `http:HOST,clock,random`, as the command line has it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for other words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut rights = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match (word, word.strip_prefix("http:")) {
                ("clock", _) => rights.clock = true,
                ("random", _) => rights.random = true,
                (_, Some(host)) => drop(rights.http.insert(host.parse()?)),
                _ => {
                    let message = format!("`{}` is not a right", word.escape_debug());
                    return Err(Error::invalid(message)
                        .with_hint("write `http:HOST`, `clock` or `random`, separated by commas"));
                }
            }
        }
        Ok(rights)
    }

    /// Adds others.
    pub fn extend(&mut self, other: &Self) {
        self.http.extend(other.http.iter().cloned());
        self.clock |= other.clock;
        self.random |= other.random;
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && !self.clock && !self.random
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.http.iter().map(|host| format!("http:{host}"));
        let clock = self.clock.then(|| "clock".to_owned());
        let random = self.random.then(|| "random".to_owned());
        let words: Vec<String> = hosts.chain(clock).chain(random).collect();
        match words.as_slice() {
            [] => f.write_str("none"),
            words => f.write_str(&words.join(",")),
        }
    }
}

/// What the user allows a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Whatever it asks for.
    Everything,
    /// These.
    Only(Rights),
}

impl Default for Allowed {
    fn default() -> Self {
        Self::Only(Rights::default())
    }
}

/// The rights that a plugin has in a run: those in all three sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    http: Vec<BTreeSet<HostPattern>>,
    /// Which of them the user stands behind: that of the user, else what was asked for.
    own: usize,
    clock: bool,
    random: bool,
}

impl Granted {
    /// What is asked for, named and allowed.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when something is missing that the plugin can't do without.
    pub fn new(
        plugin: &str,
        needs: &[Need],
        named: Option<&Rights>,
        allowed: &Allowed,
    ) -> Result<Self, Error> {
        let asked = Rights::asked(needs);
        let mut sets = vec![asked];
        sets.extend(named.cloned());
        if let Allowed::Only(rights) = allowed {
            sets.push(rights.clone());
        }
        let own = match allowed {
            Allowed::Only(_) => sets.len() - 1,
            _ => 0,
        };
        let has = |need: &Need, set: &Rights| match need.capability {
            Capability::Clock => set.clock,
            Capability::Random => set.random,
            Capability::Http => need.scope.iter().any(|host| {
                set.http
                    .iter()
                    .any(|known| known.covers(host) || host.covers(known))
            }),
        };
        for need in needs.iter().filter(|need| !need.optional) {
            if named.is_some_and(|named| !has(need, named)) {
                let message = format!(
                    "plugin `{plugin}` needs {need}, which the spec leaves out: {}",
                    need.reason
                );
                return Err(Error::new(ErrorKind::Denied, message)
                    .with_hint("name it below `rights`, or use a plugin that does without"));
            }
            if sets.iter().any(|set| !has(need, set)) {
                let message = format!(
                    "plugin `{plugin}` needs {need}, which is not allowed: {}",
                    need.reason
                );
                let words = Rights::asked(std::slice::from_ref(need));
                return Err(Error::new(ErrorKind::Denied, message)
                    .with_hint(format!("to allow it: --allow-plugin {plugin}={words}")));
            }
        }
        let everywhere = |flag: fn(&Rights) -> bool| sets.iter().all(flag);
        let http: Vec<_> = sets.iter().map(|set| set.http.clone()).collect();
        Ok(Self {
            clock: everywhere(|set| set.clock),
            random: everywhere(|set| set.random),
            http: if http.iter().any(BTreeSet::is_empty) {
                Vec::new()
            } else {
                http
            },
            own,
        })
    }

    /// The real time and real randomness, to find out whether they make a difference.
    pub(crate) fn surroundings() -> Self {
        Self {
            http: Vec::new(),
            own: 0,
            clock: true,
            random: true,
        }
    }

    /// May it see the time?
    pub fn clock(&self) -> bool {
        self.clock
    }

    /// May it have randomness?
    pub fn random(&self) -> bool {
        self.random
    }

    /// May it talk to anyone?
    pub fn http(&self) -> bool {
        !self.http.is_empty()
    }

    /// May it talk to that host? `port` is `None` for the scheme's own.
    pub fn permits(&self, host: &str, port: Option<u16>) -> bool {
        let permits =
            |set: &BTreeSet<HostPattern>| set.iter().any(|pattern| pattern.matches(host, port));
        self.http() && self.http.iter().all(permits)
    }

    /// Does the user stand behind that very host, not only behind a pattern that it fits?
    pub(crate) fn names(&self, host: &str, port: Option<u16>) -> bool {
        let mut own = self.http.get(self.own).into_iter().flatten();
        own.any(|pattern| !pattern.0.starts_with('*') && pattern.matches(host, port))
    }

    /// Nothing at all?
    pub fn is_empty(&self) -> bool {
        !self.http() && !self.clock && !self.random
    }

    /// The rights in words: hosts that are in some set and covered by all others.
    pub fn rights(&self) -> Rights {
        let all = self.http.iter().flatten();
        let in_all = |host: &&HostPattern| {
            self.http
                .iter()
                .all(|set| set.iter().any(|pattern| pattern.covers(host)))
        };
        Rights {
            http: all.filter(in_all).cloned().collect(),
            clock: self.clock,
            random: self.random,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_hosts_and_nothing_like_them() {
        for (pattern, host, port, expected) in [
            ("scan.acme.example", "scan.acme.example", None, true),
            ("scan.acme.example", "SCAN.acme.example", None, true),
            ("scan.acme.example", "scan.acme.example", Some(8443), false),
            (
                "scan.acme.example:8443",
                "scan.acme.example",
                Some(8443),
                true,
            ),
            ("scan.acme.example", "scan.acme.example.evil", None, false),
            ("*.acme.example", "scan.acme.example", None, true),
            ("*.acme.example", "acme.example", None, false),
            ("*.acme.example", "evilacme.example", None, false),
            ("127.0.0.1:*", "127.0.0.1", Some(8080), true),
            ("127.0.0.1:*", "127.0.0.2", Some(8080), false),
            ("*:*", "anything", Some(1), true),
            ("*", "anything", None, true),
            ("*", "anything", Some(1), false),
        ] {
            let pattern: HostPattern = pattern.parse().expect(pattern);
            assert_eq!(
                pattern.matches(host, port),
                expected,
                "{pattern} {host} {port:?}"
            );
        }
        for wrong in [
            "",
            "a b",
            "https://a",
            "a/b",
            "*.*",
            "a*",
            "a:port",
            "a:",
            ".a",
            "a:1*",
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rights_are_what_is_asked_named_and_allowed() {
        let need = |capability, scope: &[&str], optional| Need {
            capability,
            scope: scope
                .iter()
                .map(|host| host.parse().expect("a host"))
                .collect(),
            reason: "because".to_owned(),
            optional,
        };
        let needs = [
            need(Capability::Http, &["*.acme.example"], false),
            need(Capability::Clock, &[], true),
        ];
        let check = |named: Option<&str>, allowed: &str, expected: &str| {
            let named = named.map(|text| Rights::parse(text).expect(text));
            let allowed = match allowed {
                "all" => Allowed::Everything,
                text => Allowed::Only(Rights::parse(text).expect(text)),
            };
            let got = match Granted::new("p", &needs, named.as_ref(), &allowed) {
                Ok(granted) => granted.rights().to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expected, "{named:?} {allowed:?}");
        };
        check(None, "all", "http:*.acme.example,clock");
        check(None, "http:*.acme.example", "http:*.acme.example");
        check(None, "http:a.acme.example,random", "http:a.acme.example");
        check(Some("http:a.acme.example"), "all", "http:a.acme.example");
        check(
            None,
            "clock",
            "plugin `p` needs http to *.acme.example, which is not allowed: because",
        );
        check(
            Some("clock"),
            "all",
            "plugin `p` needs http to *.acme.example, which the spec leaves out: because",
        );
        check(
            None,
            "http:other.example",
            "plugin `p` needs http to *.acme.example, which is not allowed: because",
        );
    }

    #[test]
    fn the_spec_gives_no_rights() {
        let all = Rights::parse("http:a.example,clock,random").expect("rights");
        let granted =
            Granted::new("p", &[], Some(&all), &Allowed::Everything).expect("nothing is missing");
        assert!(granted.is_empty());
    }
}
