//! Which figures there are, what they should be, and why some of them are not.
//!
//! *Invariant*: every figure that is printed or written has its line here, and lines are in the order of the table.

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// That much or less.
    AtMost(f64),
    /// That much or more.
    AtLeast(f64),
    /// Nothing: it is there to be known.
    None,
}

/// One number about the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    /// Its name in the table and in the file.
    pub(crate) name: &'static str,
    /// What it counts, for people.
    pub(crate) unit: &'static str,
    /// What it should be.
    pub(crate) target: Target,
    /// Where the cost goes, as a profile told: printed when the target is missed. Empty where it was never missed.
    pub(crate) profile: &'static str,
}

const fn at_most(name: &'static str, unit: &'static str, most: f64) -> Figure {
    Figure {
        name,
        unit,
        target: Target::AtMost(most),
        profile: "",
    }
}

const fn at_least(name: &'static str, unit: &'static str, least: f64) -> Figure {
    Figure {
        name,
        unit,
        target: Target::AtLeast(least),
        profile: "",
    }
}

const fn known(name: &'static str, unit: &'static str) -> Figure {
    Figure {
        name,
        unit,
        target: Target::None,
        profile: "",
    }
}

impl Figure {
    const fn profile(self, profile: &'static str) -> Self {
        Self { profile, ..self }
    }
}

/// All figures, in the order of the table.
pub(crate) const FIGURES: &[Figure] = &[
    at_most("relay.floor_ratio", "x", 1.2).profile(RELAY_PROFILE),
    known("relay.cpu_s_per_gib", "s"),
    at_most("relay.peak_rss_mib", "MiB", 32.0),
    at_most("relay.rss_growth_mib", "MiB", 2.0),
    at_most("temp_bytes.direct", "bytes", 0.0),
    at_most("requests_per_new_blob", "requests", 3.0),
    at_most("requests_per_artifact_noop", "requests", 2.0),
    at_most("requests_per_artifact_noop.referrers", "requests", 4.0),
    at_most("tee.source_gets_per_blob", "reads", 1.0),
    at_most("b.requests", "requests", 1_500.0),
    at_most("b.wire_ratio", "x", 1.01),
    at_most("c.requests_per_artifact", "requests", 8.0),
    at_most("c.noop_requests_per_artifact", "requests", 4.0),
    at_most("latency.ratio", "x", 1.3),
    at_most("schedule.ns_per_node.1k", "ns", 2_500.0).profile(RUN_PROFILE),
    at_most("schedule.ns_per_node.10k", "ns", 2_500.0).profile(RUN_PROFILE),
    at_most("schedule.ns_per_node.100k", "ns", 2_500.0).profile(RUN_PROFILE),
    at_most("schedule.exponent", "", 1.05).profile(RUN_PROFILE),
    at_most("schedule.core_ns_per_node.100k", "ns", 1_000.0),
    at_most("check.us_per_node.1k", "us", 15.0),
    at_most("check.us_per_node.10k", "us", 15.0),
    at_most("check.us_per_node.100k", "us", 15.0),
    at_most("check.exponent", "", 1.05).profile(CHECK_PROFILE),
    at_most("check.peak_rss_mib.100k", "MiB", 600.0),
    at_most("generate.cpu_s.10000", "s", 5.0),
    at_most("generate.peak_rss_mib.10000", "MiB", 400.0),
    at_most("generate.exponent", "", 1.05),
    at_most("noop.requests_per_component_version", "requests", 1.0),
    at_most("straggler.ratio", "x", 1.02),
    at_most("cel_path.ns.20", "ns", 100.0),
    at_most("cel_path.ns.200", "ns", 100.0),
    at_most("cel_path.ns.2000", "ns", 100.0),
    at_most("normalise.ms.1000", "ms", 1.0),
    at_most("sign.ratio", "x", 1.2),
    at_least("wasm.identity_gb_s", "GB/s", 4.0),
    known("wasm.native_gb_s", "GB/s"),
    known("wasm.child_gb_s", "GB/s"),
    at_most("wasm.call_us", "us", 100.0).profile(CALL_PROFILE),
    at_most("wasm.cached_load_ms", "ms", 1.0),
    at_most("wasm.chain_peak_rss_mib", "MiB", 96.0),
    at_most("wasm.chain_temp_bytes", "bytes", 0.0),
    at_most("wasm.rss_mib_per_instance", "MiB", 0.5),
    at_most("start.version_ms", "ms", 5.0),
    at_most("start.dry_run_ms", "ms", 10.0).profile(START_PROFILE),
    at_most("skopeo.ratio", "x", 0.5),
];

/// About `schedule.*`.
const RUN_PROFILE: &str = "about a third of a run of 100,000 steps is freeing the plan. From 10,000 to 100,000 steps the \
    allocator's merging of what was freed (`unlink_chunk`, `malloc_consolidate`) grows from 9% to 14%, finding steps by name \
    from 3% to 6%: both touch memory that is not in the caches any longer";

/// About `check.exponent`.
const CHECK_PROFILE: &str = "as for `schedule.exponent`: the allocator and finding steps by name, in memory that is not in the \
    caches any longer; page faults take a tenth at both sizes";

/// About `relay.floor_ratio`.
const RELAY_PROFILE: &str = "of the threads that relay, 56% of the time is the program's own, hashing included, and 44% \
    the kernel's; runs on a busy machine gave 1.19 and 1.23";

/// About `start.dry_run_ms`.
const START_PROFILE: &str = "two milliseconds are the dynamic linker's, before the program begins: 124,000 addresses on 614 \
    pages, each of which the kernel copies. The rest is the command line, making the schemas of the step types that the spec \
    uses, and types of them";

/// About `wasm.call_us`.
const CALL_PROFILE: &str = "a third of the time is the kernel's (memory and stack of the instance), another third the host's, \
    18% the guest's own, 12% the allocator's";

/// The slope between two sizes on logarithmic axes: 1 means that twice as much takes twice as long.
pub(crate) fn exponent(small: (f64, f64), large: (f64, f64)) -> f64 {
    let ((small_size, small_time), (large_size, large_time)) = (small, large);
    (large_time / small_time).ln() / (large_size / small_size).ln()
}

/// The least of several: the one that was disturbed least.
pub(crate) fn least(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_is_the_slope() {
        for (power, expected) in [(1.0_f64, 1.0), (2.0, 2.0), (0.0, 0.0), (1.05, 1.05)] {
            let time = |size: f64| 3e-6 * size.powf(power);
            let found = exponent((1e4, time(1e4)), (1e5, time(1e5)));
            assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
        }
    }

    #[test]
    fn the_least_counts() {
        assert_eq!(least([3.0, 2.0, 4.0]), 2.0);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FIGURES.len());
    }
}
