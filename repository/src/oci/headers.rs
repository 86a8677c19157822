//! Header values that registries send: challenges, links, ranges, waiting times.
//!
//! *Invariant*: every parser takes any text, never panics, does work linear in the text, and gives nothing rather than a
//! guess where the text is malformed.

use std::time::Duration;

use reqwest::header::HeaderMap;

/// Longest header value that is looked into, in bytes.
const VALUE_LIMIT: usize = 16 << 10;
/// Most challenges taken from one answer.
const CHALLENGES: usize = 16;
/// Most parameters taken of one challenge.
const PARAMETERS: usize = 32;

/// One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case.
    pub scheme: String,
    /// Parameters in order, names in lower case.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of that name that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(found, value)| found == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// The challenges of all `WWW-Authenticate` headers, in order.
pub(crate) fn challenges_of(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(reqwest::header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenges)
        .take(CHALLENGES)
        .collect()
}

/// The challenges in one header value; what follows a malformed place is left out.
pub fn challenges(value: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    if value.len() > VALUE_LIMIT {
        return found;
    }
    let mut cursor = Cursor(value);
    while found.len() <= CHALLENGES {
        cursor.skip(|c| c == ',' || is_space(c));
        let word = cursor.take(is_token);
        if word.is_empty() {
            break;
        }
        cursor.skip(is_space);
        match (cursor.parameter(), found.last_mut()) {
            (Parameter::None, _) => found.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            }),
            (Parameter::Value(text), Some(challenge)) => {
                if challenge.parameters.len() < PARAMETERS {
                    challenge.parameters.push((word.to_ascii_lowercase(), text));
                }
            }
            // A token68, as `Negotiate` has it: nothing here needs its value.
            (Parameter::Token68, Some(_)) => {}
            (Parameter::Malformed, _) | (_, None) => break,
        }
    }
    found.truncate(CHALLENGES);
    found
}

enum Parameter {
    None,
    Value(String),
    Token68,
    Malformed,
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, what: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn take(&mut self, what: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !what(c)).unwrap_or(self.0.len());
        let (head, tail) = self.0.split_at(end);
        self.0 = tail;
        head
    }

    fn parameter(&mut self) -> Parameter {
        let Some(rest) = self.0.strip_prefix('=') else {
            return Parameter::None;
        };
        self.0 = rest;
        self.skip(is_space);
        if let Some(rest) = self.0.strip_prefix('"') {
            self.0 = rest;
            return self.quoted().map_or(Parameter::Malformed, Parameter::Value);
        }
        let value = self.take(is_token);
        if value.is_empty() {
            self.skip(|c| c == '=');
            return Parameter::Token68;
        }
        Parameter::Value(value.to_owned())
    }

    /// The rest of a quoted string whose opening quote is gone; `None` where it is not closed.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut characters = self.0.char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    self.0 = &self.0[index + 1..];
                    return Some(text);
                }
                '\\' => text.push(characters.next()?.1),
                other => text.push(other),
            }
        }
        None
    }
}

fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// Characters of a token, and `/` which unquoted realms of some registries hold.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)
}

/// The target of the link with `rel=next` (RFC 8288), as it stands there.
pub(crate) fn next_link(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(reqwest::header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(link_next)
}

/// The target with `rel=next` in one `Link` value.
pub fn link_next(value: &str) -> Option<String> {
    if value.len() > VALUE_LIMIT {
        return None;
    }
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches(|c| c == ',' || is_space(c));
        let (target, after) = rest.strip_prefix('<')?.split_once('>')?;
        let mut cursor = Cursor(after);
        let mut is_next = false;
        loop {
            cursor.skip(is_space);
            let Some(after) = cursor.0.strip_prefix(';') else {
                break;
            };
            cursor.0 = after;
            cursor.skip(is_space);
            let name = cursor.take(is_token).to_ascii_lowercase();
            cursor.skip(is_space);
            match cursor.parameter() {
                Parameter::Value(text) if name == "rel" => {
                    is_next |= text
                        .split_ascii_whitespace()
                        .any(|rel| rel.eq_ignore_ascii_case("next"));
                }
                Parameter::Malformed => return None,
                _ => {}
            }
        }
        if is_next {
            return Some(target.to_owned());
        }
        rest = cursor.0.strip_prefix(',')?;
    }
}

/// How many bytes an upload session has, from its `Range: 0-<last>` (distribution-spec, "Pushing a blob in chunks").
///
/// `0-0` says one byte, but registries say it of an empty session, too; so it gives `None`.
pub fn upload_offset(value: &str) -> Option<u64> {
    let value = value.trim();
    let value = value.strip_prefix("bytes=").unwrap_or(value);
    match value.split_once('-')? {
        ("0", last) => number(last)?.checked_add(1).filter(|length| *length > 1),
        _ => None,
    }
}

/// A `Content-Range: bytes <first>-<last>/<total>` of a 206 (RFC 9110, 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte, from zero.
    pub first: u64,
    /// The last byte.
    pub last: u64,
    /// The length of the whole, where it is known.
    pub total: Option<u64>,
}

/// Reads a `Content-Range`; `None` where it is malformed or contradicts itself.
pub fn content_range(value: &str) -> Option<ContentRange> {
    let (range, total) = value
        .trim()
        .strip_prefix("bytes ")?
        .trim()
        .split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = ContentRange {
        first: number(first)?,
        last: number(last)?,
        total: match total {
            "*" => None,
            total => Some(number(total)?),
        },
    };
    (range.first <= range.last && range.total.is_none_or(|total| range.last < total))
        .then_some(range)
}

/// A decimal number without sign.
pub fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// How long `Retry-After` asks to wait (RFC 9110, 10.2.3): seconds, or a date, which is compared with the answer's own
/// `Date`, so that our clock does not matter.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok();
    let value = text(reqwest::header::RETRY_AFTER)?;
    if let Some(seconds) = number(value) {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(value)?;
    let now = http_date(text(reqwest::header::DATE)?)?;
    Some(Duration::from_secs(until.saturating_sub(now)))
}

/// Seconds since 1970 of a date in the preferred form, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
pub fn http_date(value: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = value.trim().split_once(", ")?;
    let mut words = rest.split(' ');
    let day = number(words.next()?).filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year = number(words.next()?).filter(|year| (1970..=9999).contains(year))?;
    let mut time = words.next()?.split(':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_day = hour < 24 && minute < 60 && second <= 60;
    if !in_day || words.next() != Some("GMT") || time.next().is_some() {
        return None;
    }
    // Days since 1970 in the Gregorian calendar, counting years from March so that the leap day comes last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// `text` as it may be shown: control characters replaced, at most `limit` characters.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(limit)
        .map(|c| if c.is_control() || is_bidi(c) { ' ' } else { c })
        .collect();
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown.trim().to_owned()
}

/// Characters that change the order of what is shown after them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn challenges_as_registries_write_them() {
        for (value, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                "bearer realm=https://auth.docker.io/token service=registry.docker.io scope=repository:a/b:pull,push",
            ),
            (r#"Basic realm="a \"b\", c""#, r#"basic realm=a "b", c"#),
            (
                r#"Negotiate, Basic realm=x, Bearer realm = "y" , error="invalid_token""#,
                "negotiate | basic realm=x | bearer realm=y error=invalid_token",
            ),
            (
                "Negotiate YWJj==, BASIC Realm=r",
                "negotiate | yWJj | basic realm=r",
            ),
            ("Negotiate a2==,Basic", "negotiate | basic"),
            (r#"Bearer realm="unclosed"#, "bearer"),
            (r#"realm="no scheme""#, ""),
            (",,, ,", ""),
        ] {
            let found: Vec<String> = challenges(value)
                .into_iter()
                .map(|challenge| {
                    let parameters = challenge.parameters.iter();
                    parameters.fold(challenge.scheme.clone(), |text, (name, value)| {
                        format!("{text} {name}={value}")
                    })
                })
                .collect();
            // What stands in place of a token68 does not matter, as long as the schemes around it are found.
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let expected: Vec<&str> = expected
                .split(" | ")
                .filter(|text| !text.is_empty() && *text != "yWJj")
                .collect();
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn links() {
        for (value, expected) in [
            (
                r#"</v2/_catalog?last=b&n=1>; rel="next""#,
                Some("/v2/_catalog?last=b&n=1"),
            ),
            (
                r#"<a>; rel=prev, <b>; title="x, y"; rel="last NEXT""#,
                Some("b"),
            ),
            ("<a>; rel=prev", None),
            ("<a", None),
            (r#"<a>; rel="next"#, None),
            ("<>;rel=next", Some("")),
        ] {
            assert_eq!(link_next(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn ranges() {
        for (value, expected) in [
            ("0-1023", Some(1024)),
            ("bytes=0-9", Some(10)),
            ("0-0", None),
            ("1-9", None),
            ("0--1", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(upload_offset(value), expected, "{value}");
        }
        for (value, expected) in [
            ("bytes 2-9/10", Some((2, 9, Some(10)))),
            ("bytes 2-9/*", Some((2, 9, None))),
            ("bytes 9-2/10", None),
            ("bytes 2-10/10", None),
            ("bytes */10", None),
            ("items 2-9/10", None),
        ] {
            let found = content_range(value).map(|range| (range.first, range.last, range.total));
            assert_eq!(found, expected, "{value}");
        }
    }

    #[test]
    fn waiting_times() {
        for (date, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
        ] {
            assert_eq!(http_date(date), seconds, "{date}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        let until = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:40 GMT");
        headers.insert("retry-after", until);
        assert_eq!(retry_after(&headers), None, "no date to compare with");
        let now = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        headers.insert("date", now);
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(3)));
        headers.insert("retry-after", HeaderValue::from_static("7"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_shown_has_no_control_characters() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d", 100), "a [31mb c d");
        assert_eq!(printable("abcdef", 3), "abc…");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            exercise(&text);
        }

        #[test]
        fn nor_does_one_of_its_own_alphabet(text in r#"[ =,;:"\\<>a-c0-9/*-]{0,60}(bytes|Bearer|rel=)?[ =,;"\\<>0-9/-]{0,20}"#) {
            exercise(&text);
        }
    }

    fn exercise(text: &str) {
        let found = challenges(text);
        assert!(found.len() <= CHALLENGES);
        let _ = link_next(text);
        let _ = upload_offset(text);
        let _ = content_range(text);
        let _ = http_date(text);
        assert!(printable(text, 10).chars().count() <= 11);
    }
}
