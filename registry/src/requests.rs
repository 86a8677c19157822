//! Counts requests by method and path.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::Method;

/// Different requests that are told apart; further ones count into the total only.
const DISTINCT_LIMIT: usize = 16_384;

/// Longest path that is kept, in bytes.
const PATH_LIMIT: usize = 512;

/// Requests that a registry was asked, whatever it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// All of them.
    pub total: u64,
    /// By method and path (without query); the number of an upload session is `*`. At most some thousands are told apart.
    pub by_path: BTreeMap<(String, String), u64>,
}

impl Requests {
    /// How many had this method and a path that `matches`.
    pub fn count(&self, method: &str, matches: impl Fn(&str) -> bool) -> u64 {
        self.by_path
            .iter()
            .filter(|((found, path), _)| found == method && matches(path))
            .map(|(_, count)| count)
            .sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(Mutex<Requests>);

impl Counter {
    pub(crate) fn record(&self, method: &Method, path: &str) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.total += 1;
        if path.len() > PATH_LIMIT || method.as_str().len() > PATH_LIMIT {
            return;
        }
        let key = (method.to_string(), without_session(path));
        let is_full = requests.by_path.len() >= DISTINCT_LIMIT;
        if !is_full || requests.by_path.contains_key(&key) {
            *requests.by_path.entry(key).or_default() += 1;
        }
    }

    pub(crate) fn snapshot(&self) -> Requests {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn without_session(path: &str) -> String {
    match path.rsplit_once("/blobs/uploads/") {
        Some((name, session)) if !session.is_empty() => format!("{name}/blobs/uploads/*"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_count_together_and_memory_is_bounded() {
        let counter = Counter::default();
        for session in 0..20_000 {
            counter.record(&Method::PATCH, &format!("/v2/a/blobs/uploads/{session}"));
            counter.record(&Method::GET, &format!("/v2/{session}/tags/list"));
        }
        let requests = counter.snapshot();
        assert_eq!(requests.total, 40_000);
        assert_eq!(requests.count("PATCH", |path| path.ends_with("/*")), 20_000);
        assert_eq!(requests.by_path.len(), DISTINCT_LIMIT);
    }
}
