//! The way from the root of a document to one of its values.

use std::fmt;
use std::str::FromStr;

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Into a map, by key.
    Key(String),
    /// Into a list, from zero.
    Index(usize),
}

/// A way from the root to a value, written `image.tag`, `hosts[0]`, `labels["app.kubernetes.io/name"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Vec<Segment>);

/// Why a text is no [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path `{text}`: {message} at byte {offset}")]
pub struct PathError {
    /// The text as given.
    pub text: String,
    /// Where reading stopped, in bytes.
    pub offset: usize,
    /// What was expected there.
    pub message: &'static str,
}

impl Path {
    /// The path that `segments` make; none is the root.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        Self(segments.into_iter().collect())
    }

    /// Reads keys joined by dots, `["key"]` or `['key']` for keys with dots and brackets, `[n]` for items.
    ///
    /// # Errors
    /// An empty text or key, a bracket that does not close, something behind a bracket that is no step.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let fail = |rest: &str, message| PathError {
            text: text.to_owned(),
            offset: text.len() - rest.len(),
            message,
        };
        let mut segments = Vec::new();
        let mut rest = text;
        loop {
            if let Some(inner) = rest.strip_prefix('[') {
                let (segment, after) = bracket(inner)
                    .ok_or_else(|| fail(inner, "expected `n]`, `\"key\"]` or `'key']`"))?;
                segments.push(segment);
                rest = after;
            } else {
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
                if end == 0 {
                    return Err(fail(rest, "expected a key"));
                }
                segments.push(Segment::Key(rest[..end].to_owned()));
                rest = &rest[end..];
            }
            match rest.chars().next() {
                None => return Ok(Self(segments)),
                Some('.') if !rest[1..].starts_with('[') => rest = &rest[1..],
                Some('[') => {}
                Some(_) => return Err(fail(rest, "expected `.`, `[` or the end")),
            }
        }
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }
}

/// What is between brackets, and what follows.
fn bracket(inner: &str) -> Option<(Segment, &str)> {
    let first = inner.chars().next()?;
    if first == '"' {
        let mut values = serde_json::Deserializer::from_str(inner).into_iter::<String>();
        let key = values.next()?.ok()?;
        let rest = inner.get(values.byte_offset()..)?;
        return Some((Segment::Key(key), rest.strip_prefix(']')?));
    }
    if first == '\'' {
        let (key, rest) = inner[1..].split_once("']")?;
        return Some((Segment::Key(key.to_owned()), rest));
    }
    let (index, rest) = inner.split_once(']')?;
    let digits = index.bytes().all(|byte| byte.is_ascii_digit());
    Some((Segment::Index(index.parse().ok().filter(|_| digits)?), rest))
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.is_empty() || key.contains(['.', '[', ']', '"']) => {
                    write!(f, "[{}]", serde_json::Value::from(key.as_str()))?;
                }
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_and_print() {
        for text in [
            "a",
            "image.tag",
            "hosts[0].name",
            "[1]",
            "[\"a.b\"].c",
            "a[\"x]y\"][2]",
            "ä.ö",
        ] {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Path::parse("a['b.c']").unwrap().to_string(), "a[\"b.c\"]");
        for text in [
            "", ".", "a.", "a..b", "a[", "a[]", "a[x]", "a[-1]", "a[+1]", "a[0]b", "a]", "a.[0]",
            "[\"a]",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
