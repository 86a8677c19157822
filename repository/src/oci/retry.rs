//! Trying again: delays that grow, jitter from outside, and a budget per host.
//!
//! *Invariant*: all waiting is `tokio::time`, so a paused clock drives it; nothing here looks at another clock or makes
//! random numbers of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ocm_content::Host;

/// How often and how long to try again.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// Tries of one request in all; a body that goes on after a break starts to count anew.
    pub attempts: u32,
    /// The first delay; each later one is twice as long.
    pub base: Duration,
    /// The longest delay of our own.
    pub max: Duration,
    /// The longest `Retry-After` that is waited for; a registry that asks for more fails the request at once.
    pub retry_after_max: Duration,
    /// Retries that one host may cost in a run before none is made any more. A success gives one back.
    pub budget_per_host: u32,
    /// Takes the rhythm out of many clients' retries.
    pub jitter: Jitter,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(200),
            max: Duration::from_secs(10),
            retry_after_max: Duration::from_secs(120),
            budget_per_host: 50,
            jitter: Jitter::none(),
        }
    }
}

impl RetryConfig {
    /// The delay after the `failed`-th failure, counted from 1: between half and all of the doubling sequence.
    pub(super) fn delay(&self, failed: u32) -> Duration {
        let factor = 2_u32.saturating_pow(failed.saturating_sub(1).min(20));
        let full = self.base.saturating_mul(factor).min(self.max);
        full.mul_f64(1.0 - self.jitter.next() / 2.0)
    }
}

/// A sequence of numbers in `0.0..1.0`.
#[derive(Clone)]
pub struct Jitter(Arc<dyn Fn() -> f64 + Send + Sync>);

impl Jitter {
    /// Always zero: full delays.
    pub fn none() -> Self {
        Self::new(|| 0.0)
    }

    /// Numbers from a function; what lies outside of `0.0..1.0` is brought inside.
    pub fn new(next: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(next))
    }

    /// A sequence that depends on `seed` alone (SplitMix64).
    pub fn seeded(seed: u64) -> Self {
        let state = AtomicU64::new(seed);
        Self::new(move || {
            let step = 0x9e37_79b9_7f4a_7c15_u64;
            let mut z = state.fetch_add(step, Ordering::Relaxed).wrapping_add(step);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        })
    }

    fn next(&self) -> f64 {
        let value = (self.0)();
        if value.is_finite() {
            value.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

impl fmt::Debug for Jitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jitter")
    }
}

/// Retries that were spent, per host.
#[derive(Debug, Default)]
pub(super) struct Budgets(Mutex<BTreeMap<Host, u32>>);

impl Budgets {
    /// Takes one retry; `false` when the host has used all of `limit`.
    pub(super) fn take(&self, host: &Host, limit: u32) -> bool {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = spent.entry(host.clone()).or_default();
        let free = *spent < limit;
        *spent += u32::from(free);
        free
    }

    /// A request went well: one retry comes back.
    pub(super) fn success(&self, host: &Host) {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = spent.get_mut(host) {
            *spent = spent.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let config = RetryConfig::default();
        let delays: Vec<u128> = (1..=8).map(|n| config.delay(n).as_millis()).collect();
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(config.delay(u32::MAX), config.max);
    }

    #[test]
    fn jitter_takes_at_most_half_and_depends_on_its_seed() {
        let sequence = |seed| {
            let config = RetryConfig {
                jitter: Jitter::seeded(seed),
                ..RetryConfig::default()
            };
            (0..100).map(|_| config.delay(1)).collect::<Vec<_>>()
        };
        assert!(
            sequence(1)
                .iter()
                .all(|delay| (100..=200).contains(&delay.as_millis()))
        );
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }

    #[test]
    fn a_dead_host_uses_its_budget_up_and_a_good_one_earns_it_back() {
        let (budgets, host) = (Budgets::default(), Host::new("a.example"));
        assert!(budgets.take(&host, 2) && budgets.take(&host, 2));
        assert!(!budgets.take(&host, 2));
        assert!(budgets.take(&Host::new("b.example"), 2));
        budgets.success(&host);
        assert!(budgets.take(&host, 2));
    }
}
