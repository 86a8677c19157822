//! `http.config.ocm.software`: how long to wait for a registry and how often to ask again (formats.md 8.6).
//!
//! *Invariant*: a number that makes no sense is an error where it was written; nothing is bent into a default silently.

use std::collections::BTreeMap;
use std::time::Duration;

use ocm_repository::oci::{ClientConfig, HostConfig};
use ocm_specs::config::ConfigEntry;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::error::{CliError, ExitCode};

/// The type of the entry, without its version.
pub(super) const TYPE: &str = "http.config.ocm.software";

/// What entries say; what is absent stays as it was.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    /// Without a byte moving, and for an answer. The Go CLI counts the whole request, which no large blob survives.
    timeout: Option<Json>,
    tcp_dial_timeout: Option<Json>,
    tcp_keep_alive: Option<Json>,
    tls_handshake_timeout: Option<Json>,
    response_header_timeout: Option<Json>,
    idle_conn_timeout: Option<Json>,
    #[serde(default)]
    retry: Option<Retry>,
    insecure_skip_verify: Option<bool>,
    /// Ours: of a host only. The one token service that may have credentials for the registry there.
    token_service: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retry {
    /// Retries after the first try: 0 for as many as a host's budget allows, -1 for none.
    max_retries: Option<i64>,
    min_wait: Option<Json>,
    max_wait: Option<Json>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(flatten)]
    fields: Fields,
    #[serde(default)]
    hosts: BTreeMap<String, Fields>,
}

/// All entries together.
#[derive(Debug, Default)]
pub(super) struct HttpSettings {
    fields: Fields,
    hosts: BTreeMap<String, Fields>,
}

impl HttpSettings {
    /// What the entries of that type say together: a later one wins field by field, and for a host as a whole.
    pub(super) fn of(entries: &[ConfigEntry<'_>]) -> Result<Self, CliError> {
        let mut settings = Self::default();
        for entry in entries.iter().filter(|entry| entry.kind == TYPE) {
            let read = Entry::deserialize(entry.value)
                .map_err(|error| invalid("", error.to_string()).context(&entry.at))?;
            // Read for its mistakes alone, where their place is known.
            let alone = Self {
                fields: read.fields.clone(),
                hosts: read.hosts.clone(),
            };
            alone
                .apply(&mut ClientConfig::default())
                .map_err(|error| error.context(&entry.at))?;
            settings.fields = read.fields.over(&settings.fields);
            settings.hosts.extend(read.hosts);
        }
        Ok(settings)
    }

    /// Puts them over what `client` has.
    pub(super) fn apply(&self, client: &mut ClientConfig) -> Result<(), CliError> {
        let mut all = HostConfig {
            timeouts: client.timeouts.clone(),
            retry: client.retry.clone(),
            insecure_skip_verify: false,
            token_service: None,
        };
        if self.fields.token_service.is_some() {
            let why = "it belongs to a registry".to_owned();
            return Err(invalid("tokenService", why).with_hint("write it below hosts.HOST"));
        }
        self.fields.apply("", &mut all)?;
        for (name, fields) in &self.hosts {
            // What a host with a port does not say is as for the host.
            let host = name.rsplit_once(':').map(|(host, _)| host);
            let parent = host.and_then(|host| self.hosts.get(host));
            let mut own = all.clone();
            for fields in parent.into_iter().chain([fields]) {
                fields.apply(&format!("hosts[{name:?}]."), &mut own)?;
            }
            client.hosts.insert(name.to_ascii_lowercase(), own);
        }
        if all.insecure_skip_verify {
            client.insecure_skip_verify.insert("*".to_owned());
        }
        client.timeouts = all.timeouts;
        client.retry = all.retry;
        Ok(())
    }

    /// Are certificates of all hosts left unchecked?
    pub(super) fn is_careless(&self) -> bool {
        self.fields.insecure_skip_verify == Some(true)
    }
}

impl Fields {
    /// What is said here, else there.
    fn over(self, under: &Self) -> Self {
        let either = |own: Option<Json>, other: &Option<Json>| own.or_else(|| other.clone());
        let retry = match (self.retry, &under.retry) {
            (Some(own), Some(other)) => Some(Retry {
                max_retries: own.max_retries.or(other.max_retries),
                min_wait: either(own.min_wait, &other.min_wait),
                max_wait: either(own.max_wait, &other.max_wait),
            }),
            (own, other) => own.or_else(|| other.clone()),
        };
        Self {
            timeout: either(self.timeout, &under.timeout),
            tcp_dial_timeout: either(self.tcp_dial_timeout, &under.tcp_dial_timeout),
            tcp_keep_alive: either(self.tcp_keep_alive, &under.tcp_keep_alive),
            tls_handshake_timeout: either(self.tls_handshake_timeout, &under.tls_handshake_timeout),
            response_header_timeout: either(
                self.response_header_timeout,
                &under.response_header_timeout,
            ),
            idle_conn_timeout: either(self.idle_conn_timeout, &under.idle_conn_timeout),
            retry,
            insecure_skip_verify: self.insecure_skip_verify.or(under.insecure_skip_verify),
            token_service: self.token_service.or_else(|| under.token_service.clone()),
        }
    }

    fn apply(&self, place: &str, host: &mut HostConfig) -> Result<(), CliError> {
        let read = |name: &str, value: &Option<Json>| duration(&format!("{place}{name}"), value);
        let times = &mut host.timeouts;
        if let Some(timeout) = read("timeout", &self.timeout)? {
            let timeout = or_never(timeout);
            (times.stall, times.answer) = (timeout, timeout);
        }
        let dial = read("tcpDialTimeout", &self.tcp_dial_timeout)?;
        let handshake = read("tlsHandshakeTimeout", &self.tls_handshake_timeout)?;
        if dial.or(handshake).is_some() {
            // One clock runs for both.
            let dial = dial.map_or(times.connect, or_never);
            times.connect = dial.saturating_add(handshake.unwrap_or_default());
        }
        if let Some(keep_alive) = read("tcpKeepAlive", &self.tcp_keep_alive)? {
            times.keep_alive = (!keep_alive.is_zero()).then_some(keep_alive);
        }
        if let Some(answer) = read("responseHeaderTimeout", &self.response_header_timeout)? {
            times.answer = or_never(answer);
        }
        if let Some(idle) = read("idleConnTimeout", &self.idle_conn_timeout)? {
            times.idle = or_never(idle);
        }
        if let Some(insecure) = self.insecure_skip_verify {
            host.insecure_skip_verify = insecure;
        }
        if let Some(service) = &self.token_service {
            if service.is_empty() || service.contains(['/', '@', ' ']) {
                let why = format!("{service:?} is no host");
                return Err(invalid(&format!("{place}tokenService"), why)
                    .with_hint("write it as in auth.example.com or auth.example.com:8443"));
            }
            host.token_service = Some(service.clone());
        }
        let Some(retry) = &self.retry else {
            return Ok(());
        };
        if let Some(wait) = read("retry.minWait", &retry.min_wait)? {
            host.retry.base = wait;
        }
        if let Some(wait) = read("retry.maxWait", &retry.max_wait)? {
            host.retry.max = wait;
        }
        match retry.max_retries {
            None => {}
            Some(-1) => host.retry.attempts = 1,
            Some(0) => host.retry.attempts = u32::MAX,
            Some(n) => {
                let attempts = u32::try_from(n).ok().and_then(|n| n.checked_add(1));
                host.retry.attempts = attempts.ok_or_else(|| {
                    let why = format!("{n} is neither -1, 0 nor a count");
                    invalid(&format!("{place}retry.maxRetries"), why)
                })?;
            }
        }
        Ok(())
    }
}

/// Zero means that there is no end, as in Go.
fn or_never(duration: Duration) -> Duration {
    match duration.is_zero() {
        true => Duration::from_secs(365 * 24 * 3600),
        false => duration,
    }
}

fn invalid(field: &str, why: String) -> CliError {
    let place = match field {
        "" => TYPE.to_owned(),
        field => format!("{TYPE}: {field}"),
    };
    CliError::new(ExitCode::Invalid, format!("{place}: {why}"))
}

/// Go's text (`1m30s`, `200ms`) or nanoseconds.
fn duration(field: &str, value: &Option<Json>) -> Result<Option<Duration>, CliError> {
    let value = value.as_ref();
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

    fn settings(documents: &[Json]) -> Result<HttpSettings, CliError> {
        let entry = |value| ConfigEntry {
            kind: TYPE,
            version: None,
            value,
            at: "f: x".to_owned(),
        };
        HttpSettings::of(&documents.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn entries_change_what_they_name() {
        let mut client = ClientConfig::default();
        let documents = [
            json!({
                "type": TYPE, "timeout": "3s", "responseHeaderTimeout": 2_000_000_000_u64,
                "retry": {"maxRetries": 1, "minWait": "1ms"}, "tcpKeepAlive": "0",
                "hosts": {
                    "a.example": {"insecureSkipVerify": true},
                    "b.example": {"timeout": "5s"},
                    "b.example:5000": {"timeout": "1s"},
                },
            }),
            json!({
                "idleConnTimeout": "1s", "tcpDialTimeout": "2s", "tlsHandshakeTimeout": "1s",
                "retry": {"minWait": "2ms"}, "hosts": {"b.example": {"retry": {"maxRetries": 7}, "timeout": "0s"}},
            }),
        ];
        let settings = settings(&documents).expect("valid entries");
        settings.apply(&mut client).expect("valid entries");
        let seconds = Duration::from_secs;
        let times = &client.timeouts;
        assert_eq!((times.stall, times.answer), (seconds(3), seconds(2)));
        assert_eq!((times.connect, times.idle), (seconds(3), seconds(1)));
        assert_eq!(times.keep_alive, None);
        assert_eq!(client.retry.attempts, 2);
        assert_eq!(client.retry.base, Duration::from_millis(2));
        assert!(client.hosts["a.example"].insecure_skip_verify && !settings.is_careless());
        let host = &client.hosts["b.example"];
        assert_eq!(host.retry.attempts, 8);
        assert_eq!(host.retry.base, Duration::from_millis(2));
        assert!(host.timeouts.stall > seconds(3600));
        let port = &client.hosts["b.example:5000"];
        assert_eq!((port.timeouts.stall, port.retry.attempts), (seconds(1), 8));
    }

    #[test]
    fn mistakes_have_a_place() {
        for (entry, part) in [
            (
                json!({"timeout": "soon"}),
                "timeout: \"soon\" is not a duration",
            ),
            (json!({"retry": {"maxRetries": -2}}), "retry.maxRetries"),
            (
                json!({"hosts": {"h": {"timeout": "1x"}}}),
                "hosts[\"h\"].timeout",
            ),
            (
                json!({"tokenService": "auth.example"}),
                "tokenService: it belongs to a registry",
            ),
            (
                json!({"hosts": {"h": {"tokenService": "https://auth.example/"}}}),
                "hosts[\"h\"].tokenService",
            ),
            (json!({"retry": 5}), TYPE),
            (json!({"insecureSkipVerify": "yes"}), TYPE),
        ] {
            let error = settings(&[entry]).expect_err("an invalid entry");
            assert!(error.to_string().contains(part), "{error}");
            assert!(error.to_string().starts_with("f: x: "), "{error}");
        }
        let careless = settings(&[json!({"insecureSkipVerify": true})]).expect("as Go reads it");
        let mut client = ClientConfig::default();
        careless.apply(&mut client).expect("valid entries");
        assert!(careless.is_careless() && client.insecure_skip_verify.contains("*"));
    }
}
