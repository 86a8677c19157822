//! Ids of generated steps: the reference's scheme (transformation.md 4.1), made valid and unique where that is neither.
//!
//! *Invariant*: the same component versions in the same order get the same ids.

use std::collections::HashSet;

use ocm_specs::{Digest, Identity};

/// What every id starts with.
const PREFIX: &str = "transform";
/// Hex digits that tell ids apart which the scheme makes equal.
const TELLTALE: usize = 8;

/// Ids that are taken.
#[derive(Debug, Default)]
pub(super) struct Ids {
    bases: HashSet<String>,
    steps: HashSet<String>,
}

impl Ids {
    /// The id that a component version's steps start with, and its key in the environment.
    pub(super) fn base(&mut self, name: &str, version: &str) -> String {
        claim(
            &mut self.bases,
            words(&[name, version]),
            &format!("{name}:{version}"),
        )
    }

    /// The id of a step: what it does with which element.
    pub(super) fn step(&mut self, base: &str, verb: &str, element: &str, salt: &str) -> String {
        claim(&mut self.steps, format!("{base}{verb}{element}"), salt)
    }

    /// An id as it is, or with a number behind it where that is taken.
    pub(super) fn word(&mut self, id: &str) -> String {
        claim(&mut self.steps, id.to_owned(), id)
    }
}

/// The part of an id that an element's identity gives.
pub(super) fn element(identity: &Identity) -> String {
    let values: Vec<&str> = identity.iter().map(|(_, value)| value).collect();
    words(&values)
}

/// The prefix and the words of some texts: lower case, each with a capital.
fn words(texts: &[&str]) -> String {
    let mut id = PREFIX.to_owned();
    for word in texts
        .iter()
        .flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric()))
        .filter(|word| !word.is_empty())
    {
        let (first, rest) = word.split_at(1);
        id.push_str(&first.to_ascii_uppercase());
        id.push_str(&rest.to_ascii_lowercase());
    }
    id
}

/// `id`, with a hash of `salt` behind it where another has that id (`a-b` and `a.b` have the same words).
fn claim(taken: &mut HashSet<String>, id: String, salt: &str) -> String {
    let mut id = id;
    for round in 0_u32.. {
        if taken.insert(id.clone()) {
            break;
        }
        let hash = Digest::sha256(format!("{round}/{salt}").as_bytes());
        id = format!("{id}x{}", &hash.hex()[..TELLTALE]);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_reference() {
        let mut ids = Ids::default();
        let base = ids.base("ocm.software/test", "1.0.0");
        assert_eq!(base, "transformOcmSoftwareTest100");
        let icons = Identity::named("icons").with("version", "0.1.0");
        let icons = ids.step(&base, "Get", &element(&icons), "icons");
        assert_eq!(icons, "transformOcmSoftwareTest100GettransformIcons010");
    }

    #[test]
    fn ids_are_valid_and_differ() {
        let names = [
            ("acme.org/a-b", "1.0.0"),
            ("acme.org/a.b", "1.0.0"),
            ("acme.org/a_b", "1.0.0"),
            ("acme.org/a-b", "1.0.0+x"),
            ("acme.org/a-b", "1.0.0-x"),
            ("acme.org/a-b", "1.0.0"),
        ];
        let made = || {
            let mut ids = Ids::default();
            names.map(|(name, version)| ids.base(name, version))
        };
        let ids = made();
        assert_eq!(ids, made());
        let different: HashSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len(), "{ids:?}");
        let valid = |id: &String| id.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(ids.iter().all(valid), "{ids:?}");
        assert_eq!(words(&["\u{e4}\u{f6} x", "+"]), "transformX");
    }
}
