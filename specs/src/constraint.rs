//! Constraints on versions, in the language of the Go tools (Masterminds semver): `>=1.2, <2 || ~3.1`, `^1`, `1.x`,
//! `1.2 - 1.4`.
//!
//! *Invariant*: a pre-release is only allowed by a group of conditions that names one itself, as in `>0.0.0-0`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::names::Version;

/// Longest text that is read, in bytes.
const LENGTH_LIMIT: usize = 1024;

/// What a text of a constraint is wrong about.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConstraintError {
    /// Far longer than anything that could be meant.
    #[error("constraint of {0} bytes is too long")]
    TooLong(usize),
    /// Nothing stands where a condition has to.
    #[error("`{0}` has an empty condition")]
    Empty(String),
    /// One condition is not well formed.
    #[error(
        "`{0}` is not a condition on versions: expected one like `>=1.2`, `~1.2`, `^1`, `1.x` or `1.0 - 1.4`"
    )]
    Condition(String),
}

/// Which versions are allowed.
#[derive(Clone, Debug)]
pub struct Constraint {
    text: String,
    /// One of these groups has to hold, all of its conditions.
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    conditions: Vec<Condition>,
    with_prereleases: bool,
}

#[derive(Clone, Debug)]
struct Condition {
    operator: Operator,
    version: semver::Version,
    given: Given,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Tilde,
    Caret,
}

/// How many numbers of a version were given; the others may be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Given {
    Nothing,
    Major,
    Minor,
    Patch,
}

/// Longer spellings first: `>=` is not `>` and a version `=`.
const OPERATORS: [(&str, Operator); 13] = [
    ("!=", Operator::NotEqual),
    (">=", Operator::GreaterOrEqual),
    ("=>", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("=<", Operator::LessOrEqual),
    ("~>", Operator::Tilde),
    ("==", Operator::Equal),
    ("=", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("~", Operator::Tilde),
    ("^", Operator::Caret),
    ("", Operator::Equal),
];

impl Constraint {
    /// Does it allow this version?
    pub fn allows(&self, version: &Version) -> bool {
        let version = version.semver();
        self.groups.iter().any(|group| {
            (version.pre.is_empty() || group.with_prereleases)
                && group.conditions.iter().all(|it| it.holds(version))
        })
    }

    /// The text as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > LENGTH_LIMIT {
            return Err(ConstraintError::TooLong(text.len()));
        }
        let groups = text.split("||").map(|part| group(part, text));
        Ok(Self {
            text: text.to_owned(),
            groups: groups.collect::<Result<_, _>>()?,
        })
    }
}

fn group(part: &str, text: &str) -> Result<Group, ConstraintError> {
    let mut conditions = Vec::new();
    for listed in part.split(',') {
        if let Some((low, high)) = listed.split_once(" - ") {
            conditions.push(condition(&format!(">={}", low.trim()))?);
            conditions.push(condition(&format!("<={}", high.trim()))?);
            continue;
        }
        // A blank separates conditions, and may stand between an operator and its version.
        let mut pending = String::new();
        for word in listed.split_whitespace() {
            pending.push_str(word);
            if !is_operator(&pending) {
                conditions.push(condition(&pending)?);
                pending.clear();
            }
        }
        if !pending.is_empty() {
            return Err(ConstraintError::Condition(pending));
        }
    }
    if conditions.is_empty() || part.split(',').any(|listed| listed.trim().is_empty()) {
        return Err(ConstraintError::Empty(text.to_owned()));
    }
    Ok(Group {
        with_prereleases: conditions.iter().any(|it| !it.version.pre.is_empty()),
        conditions,
    })
}

fn is_operator(text: &str) -> bool {
    OPERATORS.iter().any(|(spelling, _)| *spelling == text)
}

fn condition(text: &str) -> Result<Condition, ConstraintError> {
    let wrong = || ConstraintError::Condition(text.to_owned());
    let (operator, version) = OPERATORS
        .iter()
        .find_map(|(spelling, operator)| Some((*operator, text.strip_prefix(spelling)?)))
        .ok_or_else(wrong)?;
    let (version, given) = partial(version).ok_or_else(wrong)?;
    Ok(Condition {
        operator,
        version,
        given,
    })
}

/// Reads a version whose last numbers may be missing, or be `x`, `X` or `*`.
fn partial(text: &str) -> Option<(semver::Version, Given)> {
    let numbers_end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(numbers_end);
    let numbers = numbers.strip_prefix('v').unwrap_or(numbers);
    let is_any = |part: &str| matches!(part, "x" | "X" | "*");
    let all: Vec<&str> = numbers.split('.').collect();
    let known: Vec<&str> = all.iter().copied().take_while(|it| !is_any(it)).collect();
    if all.len() > 3 || all[known.len()..].iter().any(|part| !is_any(part)) {
        return None;
    }
    let given = match known.len() {
        0 => Given::Nothing,
        1 => Given::Major,
        2 => Given::Minor,
        _ => Given::Patch,
    };
    if given < Given::Patch && known.len() < all.len() && !rest.is_empty() {
        return None;
    }
    if given == Given::Nothing {
        return Some((semver::Version::new(0, 0, 0), given));
    }
    let parsed = Version::parse(&format!("{}{rest}", known.join(".")))?;
    Some((parsed.semver().clone(), given))
}

impl Condition {
    fn holds(&self, version: &semver::Version) -> bool {
        let order = version.cmp_precedence(&self.version);
        if self.given == Given::Nothing {
            return !matches!(
                self.operator,
                Operator::NotEqual | Operator::Greater | Operator::Less
            );
        }
        match self.operator {
            Operator::Equal if self.given < Given::Patch => self.starts(version),
            Operator::Equal => order == Ordering::Equal,
            Operator::NotEqual if self.given < Given::Patch => !self.starts(version),
            Operator::NotEqual => order != Ordering::Equal,
            Operator::Greater => order == Ordering::Greater && !self.starts(version),
            Operator::GreaterOrEqual => order != Ordering::Less,
            Operator::Less => order == Ordering::Less,
            Operator::LessOrEqual => order != Ordering::Greater || self.starts(version),
            Operator::Tilde => order != Ordering::Less && self.same(version, self.tilde()),
            Operator::Caret => order != Ordering::Less && self.same(version, self.caret()),
        }
    }

    /// Is the version one of those that a partial version stands for?
    fn starts(&self, version: &semver::Version) -> bool {
        self.given < Given::Patch && self.same(version, self.given)
    }

    /// Are the numbers equal up to `until`?
    fn same(&self, version: &semver::Version, until: Given) -> bool {
        let own = [self.version.major, self.version.minor, self.version.patch];
        let other = [version.major, version.minor, version.patch];
        let count = until as usize;
        own[..count] == other[..count]
    }

    /// `~1.2.3` stays within 1.2, `~1` within 1. Of `~0.0.0` the Go library makes an exception: it allows all.
    fn tilde(&self) -> Given {
        let is_zero = self.version == semver::Version::new(0, 0, 0);
        match self.given {
            Given::Patch if is_zero => Given::Nothing,
            given => given.min(Given::Minor),
        }
    }

    /// `^1.2.3` keeps the first number that is not zero.
    fn caret(&self) -> Given {
        if self.version.major > 0 || self.given == Given::Major {
            Given::Major
        } else if self.version.minor > 0 || self.given == Given::Minor {
            Given::Minor
        } else {
            Given::Patch
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(constraint: &str, allowed: &[&str], refused: &[&str]) {
        let parsed: Constraint = constraint.parse().expect(constraint);
        let allows = |text: &str| parsed.allows(&Version::parse(text).expect(text));
        for version in allowed {
            assert!(allows(version), "`{constraint}` allows {version}");
        }
        for version in refused {
            assert!(!allows(version), "`{constraint}` does not allow {version}");
        }
    }

    #[test]
    fn the_language_of_the_go_tools() {
        check("1.2.3", &["1.2.3", "v1.2.3+x"], &["1.2.4", "1.2.3-a"]);
        check("1.2", &["1.2.0", "1.2.9"], &["1.3.0"]);
        check("=1.x", &["1.0.0", "1.9.9"], &["2.0.0"]);
        check("*", &["0.0.0", "9.9.9"], &["1.0.0-a"]);
        check("!=1.2", &["1.3.0"], &["1.2.0", "1.2.7"]);
        check(">1", &["2.0.0"], &["1.0.0", "1.9.9"]);
        check(">1.2.3", &["1.2.4"], &["1.2.3"]);
        check(">= 1.2", &["1.2.0", "3.0.0"], &["1.1.9"]);
        check("<=1.2", &["1.2.9", "1.0.0"], &["1.3.0"]);
        check("<2", &["1.9.9"], &["2.0.0"]);
        check(">=1.0, <2", &["1.5.0"], &["2.0.0", "0.9.0"]);
        check(">=1.0 <2", &["1.5.0"], &["2.0.0", "0.9.0"]);
        check("<1 || >= 3", &["0.9.0", "3.0.0"], &["1.0.0", "2.9.9"]);
        check("1.2 - 1.4.5", &["1.2.0", "1.4.5"], &["1.1.9", "1.4.6"]);
        check("~1.2.3", &["1.2.3", "1.2.9"], &["1.2.2", "1.3.0"]);
        check("~> 1", &["1.0.0", "1.9.0"], &["2.0.0"]);
        check("^1.2.3", &["1.2.3", "1.9.0"], &["1.2.2", "2.0.0"]);
        check("^0.2.3", &["0.2.3", "0.2.9"], &["0.3.0"]);
        check("^0.0.3", &["0.0.3"], &["0.0.4", "0.0.2"]);
        check("^0.0", &["0.0.0", "0.0.9"], &["0.1.0"]);
        check("^0", &["0.0.0", "0.9.9"], &["1.0.0"]);
    }

    #[test]
    fn pre_releases_are_asked_for() {
        check(">=1.0", &["1.0.0"], &["2.0.0-rc.1"]);
        check(
            "> 0.0.0-0",
            &["1.0.0", "2.0.0-rc.1", "0.0.0-1"],
            &["0.0.0-0"],
        );
        check(
            ">=1.0.0-a <2",
            &["1.0.0-b", "1.5.0-x"],
            &["1.0.0-A", "2.0.0"],
        );
    }

    #[test]
    fn what_is_no_constraint_is_named() {
        for (text, part) in [
            ("", "empty condition"),
            (">=1,,<2", "empty condition"),
            ("||1", "empty condition"),
            (">", "`>` is not a condition"),
            ("one", "`one` is not a condition"),
            ("1.2.3.4", "`1.2.3.4`"),
            ("1.x.3", "`1.x.3`"),
            ("1.x-a", "`1.x-a`"),
            (">01", "`>01`"),
            ("><1", "`><1`"),
        ] {
            let error = text.parse::<Constraint>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = ">1 ".repeat(1000);
        assert!(matches!(
            long.parse::<Constraint>(),
            Err(ConstraintError::TooLong(3000))
        ));
    }
}
