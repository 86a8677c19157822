//! What an answer or a broken connection means to a caller.

use std::time::Duration;

use ocm_content::{Error, ErrorKind};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use url::Url;

use super::headers::{printable, retry_after};

/// Longest text of a registry that is repeated in a message, in characters.
const SHOWN: usize = 300;
/// Most entries of a registry's list of errors that are repeated.
const SHOWN_ENTRIES: usize = 3;

/// One try that did not work.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// May the same be tried again?
    pub(super) again: bool,
    /// What the registry asks to wait before.
    pub(super) after: Option<Duration>,
    /// What it answered, if it did.
    pub(super) status: Option<StatusCode>,
}

impl Failure {
    /// Trying again would not help.
    pub(super) fn last(error: Error) -> Self {
        Self {
            error,
            again: false,
            after: None,
            status: None,
        }
    }

    /// Trying again may help.
    pub(super) fn passing(message: impl Into<String>) -> Self {
        Self {
            again: true,
            ..Self::last(Error::new(ErrorKind::Unavailable, message))
        }
    }

    /// The request did not get an answer.
    pub(super) fn transport(error: reqwest::Error) -> Self {
        let text = chain(&error.without_url());
        let certificate = text.contains("certificate") || text.contains("Certificate");
        if certificate {
            let error = Error::new(ErrorKind::Unavailable, text).with_hint(
                "the registry's certificate is not trusted: add its authority to the CA certificates",
            );
            return Self::last(error);
        }
        Self::passing(text)
    }

    /// The same with the proxy that the request went through.
    pub(super) fn through(self, proxy: Option<&Url>) -> Self {
        let Some(proxy) = proxy else {
            return self;
        };
        let place = format!("through the proxy {}", super::endpoint::origin_of(proxy));
        if self.error.to_string().contains(PROXY_DENIES) {
            return Self::last(denied_by_proxy(proxy));
        }
        Self {
            error: self.error.context(place),
            ..self
        }
    }

    /// The registry answered something else than what was asked for.
    pub(super) fn answered(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        Self {
            error: answered(status, body),
            again: is_passing(status),
            after: retry_after(headers),
            status: Some(status),
        }
    }
}

/// What a proxy that wants credentials looks like below TLS.
const PROXY_DENIES: &str = "proxy authorization required";

/// The proxy wants (other) credentials.
pub(super) fn denied_by_proxy(proxy: &Url) -> Error {
    let given = !proxy.username().is_empty();
    let message = format!(
        "the proxy {} asks for credentials",
        super::endpoint::origin_of(proxy)
    );
    Error::new(ErrorKind::Denied, message).with_hint(match given {
        true => "those in the proxy's URL were refused",
        false => "put them into the proxy's URL: http://USER:PASSWORD@HOST:PORT",
    })
}

/// An error with its causes, printable.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    printable(&text, SHOWN)
}

/// Answers that may be different the next time.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// The error of an answer: its status, and the registry's own words (distribution-spec, "Error codes").
pub(super) fn answered(status: StatusCode, body: &[u8]) -> Error {
    let entries = entries(body);
    // `docker-registry` reads a link while another request writes it, and then finds its digest invalid and the blob unknown.
    // The latter is what can be helped.
    let is_missing = entries
        .iter()
        .any(|entry| entry.code == "MANIFEST_BLOB_UNKNOWN");
    let kind = entries
        .iter()
        .find_map(|entry| kind_of_code(&entry.code))
        .filter(|_| !is_missing)
        .unwrap_or_else(|| match is_missing {
            true => ErrorKind::NotFound,
            false => kind_of(status),
        });
    let mut message = match status.canonical_reason() {
        Some(reason) => format!("the registry answers {} {reason}", status.as_u16()),
        None => format!("the registry answers {}", status.as_u16()),
    };
    for entry in entries.iter().take(SHOWN_ENTRIES) {
        let words = [&entry.code, &entry.message].map(|text| printable(text, SHOWN));
        for word in words.iter().filter(|word| !word.is_empty()) {
            message.push_str(": ");
            message.push_str(word);
        }
    }
    Error::new(kind, message)
}

/// The codes in an answer's body.
pub(super) fn has_code(body: &[u8], code: &str) -> bool {
    entries(body).iter().any(|entry| entry.code == code)
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn entries(body: &[u8]) -> Vec<Entry> {
    serde_json::from_slice::<Body>(body).map_or_else(|_| Vec::new(), |body| body.errors)
}

fn kind_of_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "DIGEST_INVALID" | "SIZE_INVALID" => ErrorKind::Mismatch,
        "BLOB_UNKNOWN"
        | "MANIFEST_BLOB_UNKNOWN"
        | "MANIFEST_UNKNOWN"
        | "NAME_UNKNOWN"
        | "BLOB_UPLOAD_UNKNOWN" => ErrorKind::NotFound,
        "UNAUTHORIZED" | "DENIED" => ErrorKind::Denied,
        "UNSUPPORTED" => ErrorKind::Unsupported,
        "TOOMANYREQUESTS" => ErrorKind::Unavailable,
        _ => return None,
    })
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status.as_u16() {
        401 | 403 | 407 => ErrorKind::Denied,
        404 | 410 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::Unsupported,
        409 | 412 => ErrorKind::Conflict,
        413 => ErrorKind::Limit,
        408 | 425 | 429 | 500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_shown_and_judged() {
        for (status, body, kind, message) in [
            (
                404,
                "",
                ErrorKind::NotFound,
                "the registry answers 404 Not Found",
            ),
            (
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no \u001b[31m such\nname","detail":{}}]}"#,
                ErrorKind::NotFound,
                "the registry answers 404 Not Found: NAME_UNKNOWN: no  [31m such name",
            ),
            (
                400,
                r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#,
                ErrorKind::Mismatch,
                "the registry answers 400 Bad Request: DIGEST_INVALID",
            ),
            (
                400,
                r#"{"errors":[{"code":"DIGEST_INVALID"},{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#,
                ErrorKind::NotFound,
                "the registry answers 400 Bad Request: DIGEST_INVALID: MANIFEST_BLOB_UNKNOWN",
            ),
            (
                403,
                "<html>",
                ErrorKind::Denied,
                "the registry answers 403 Forbidden",
            ),
            (
                429,
                "[]",
                ErrorKind::Unavailable,
                "the registry answers 429 Too Many Requests",
            ),
            (
                599,
                r#"{"errors":7}"#,
                ErrorKind::Unavailable,
                "the registry answers 599",
            ),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let error = answered(status, body.as_bytes());
            assert_eq!(error.to_string(), message);
            assert_eq!(error.kind(), kind, "{message}");
        }
    }
}
