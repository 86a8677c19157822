//! `http.config.ocm.software`: how long to wait for a registry and how often to ask again (formats.md 8.6).
//!
//! *Invariant*: a number that makes no sense is an error where it was written; nothing is bent into a default silently.

use std::collections::BTreeMap;
use std::time::Duration;

use ocm_repository::oci::ClientConfig;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::error::{CliError, ExitCode};

/// The type of the entry, without its version.
pub(crate) const TYPE: &str = "http.config.ocm.software";

/// One entry; what is absent stays as it was.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    /// Without a byte moving, and for an answer. The Go CLI counts the whole request, which no large blob survives.
    timeout: Option<Json>,
    tcp_dial_timeout: Option<Json>,
    response_header_timeout: Option<Json>,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    insecure_skip_verify: bool,
    #[serde(default)]
    hosts: BTreeMap<String, HostEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    /// Retries after the first try: 0 for as many as a host's budget allows, -1 for none.
    max_retries: Option<i64>,
    min_wait: Option<Json>,
    max_wait: Option<Json>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostEntry {
    #[serde(default)]
    insecure_skip_verify: bool,
    #[serde(flatten)]
    others: BTreeMap<String, Json>,
}

/// Puts one entry over what `client` has.
pub(crate) fn apply(entry: &Json, client: &mut ClientConfig) -> Result<(), CliError> {
    let entry = Entry::deserialize(entry).map_err(|error| invalid("", error.to_string()))?;
    let times = &mut client.timeouts;
    if let Some(timeout) = duration("timeout", entry.timeout.as_ref())? {
        (times.stall, times.answer) = (timeout, timeout);
    }
    set(
        &mut times.connect,
        "tcpDialTimeout",
        &entry.tcp_dial_timeout,
    )?;
    set(
        &mut times.answer,
        "responseHeaderTimeout",
        &entry.response_header_timeout,
    )?;
    set(
        &mut client.retry.base,
        "retry.minWait",
        &entry.retry.min_wait,
    )?;
    set(
        &mut client.retry.max,
        "retry.maxWait",
        &entry.retry.max_wait,
    )?;
    match entry.retry.max_retries {
        None => {}
        Some(-1) => client.retry.attempts = 1,
        Some(0) => client.retry.attempts = u32::MAX,
        Some(n) => {
            let attempts = u32::try_from(n).ok().and_then(|n| n.checked_add(1));
            let error = || {
                invalid(
                    "retry.maxRetries",
                    format!("{n} is neither -1, 0 nor a count"),
                )
            };
            client.retry.attempts = attempts.ok_or_else(error)?;
        }
    }
    if entry.insecure_skip_verify {
        let why = "certificates are not checked for single hosts only".to_owned();
        return Err(invalid("insecureSkipVerify", why)
            .with_hint("name the hosts: hosts: {HOST: {insecureSkipVerify: true}}"));
    }
    for (host, settings) in entry.hosts {
        if let Some(name) = settings.others.keys().next() {
            let why = "this can't be set for single hosts".to_owned();
            return Err(invalid(&format!("hosts[{host:?}].{name}"), why));
        }
        if settings.insecure_skip_verify {
            client.insecure_skip_verify.insert(host);
        }
    }
    Ok(())
}

fn invalid(field: &str, why: String) -> CliError {
    let place = match field {
        "" => TYPE.to_owned(),
        field => format!("{TYPE}: {field}"),
    };
    CliError::new(ExitCode::Invalid, format!("{place}: {why}"))
}

fn set(target: &mut Duration, field: &str, value: &Option<Json>) -> Result<(), CliError> {
    if let Some(value) = duration(field, value.as_ref())? {
        *target = value;
    }
    Ok(())
}

/// Go's text (`1m30s`, `200ms`) or nanoseconds.
fn duration(field: &str, value: Option<&Json>) -> Result<Option<Duration>, CliError> {
    let duration = match value {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::Number(number)) => number.as_u64().map(Duration::from_nanos),
        Some(Json::String(text)) => go_duration(text),
        Some(_) => None,
    };
    match (duration, value) {
        (Some(duration), _) => Ok(Some(duration)),
        (None, value) => {
            let value = value.map(Json::to_string).unwrap_or_default();
            Err(invalid(field, format!("{value} is not a duration"))
                .with_hint("write it as in 1m30s"))
        }
    }
}

fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (value, after) = rest.split_at(number);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let factor = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += value.parse::<f64>().ok()? * factor;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, millis) in [
            ("1m30s", Some(90_000)),
            ("200ms", Some(200)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("-1s", None),
            ("1d", None),
            ("s", None),
            ("1e9999s", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(go_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn entries_change_what_they_name() {
        let mut client = ClientConfig::default();
        let entry = json!({
            "type": TYPE, "timeout": "3s", "responseHeaderTimeout": 2_000_000_000_u64,
            "retry": {"maxRetries": 1, "minWait": "1ms"},
            "hosts": {"a.example": {"insecureSkipVerify": true}},
        });
        apply(&entry, &mut client).expect("a valid entry");
        assert_eq!(client.timeouts.stall, Duration::from_secs(3));
        assert_eq!(client.timeouts.answer, Duration::from_secs(2));
        assert_eq!(client.timeouts.connect, Duration::from_secs(10));
        assert_eq!(client.retry.attempts, 2);
        assert_eq!(client.retry.base, Duration::from_millis(1));
        assert!(client.insecure_skip_verify.contains("a.example"));
        for (entry, part) in [
            (
                json!({"timeout": "soon"}),
                "timeout: \"soon\" is not a duration",
            ),
            (json!({"retry": {"maxRetries": -2}}), "retry.maxRetries"),
            (json!({"insecureSkipVerify": true}), "single hosts"),
            (
                json!({"hosts": {"h": {"timeout": "1s"}}}),
                "hosts[\"h\"].timeout",
            ),
            (json!({"retry": 5}), TYPE),
        ] {
            let error = apply(&entry, &mut client).expect_err("an invalid entry");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
