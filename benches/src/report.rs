//! What was measured, as a table for people and a document for programs.
//!
//! *Invariant*: a figure that misses its target is shown like any other, with the reason below the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::figures::{FIGURES, Figure, Target};

/// Everything that one call measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    values: BTreeMap<&'static str, f64>,
    left_out: BTreeMap<&'static str, String>,
    notes: BTreeMap<&'static str, String>,
    broken: BTreeMap<&'static str, String>,
    prefix: String,
}

/// What a figure came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    Missed,
    ForInformation,
    LeftOut,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Missed => "MISSED",
            Self::ForInformation => "-",
            Self::LeftOut => "left out",
        }
    }
}

impl Report {
    /// An empty report about figures whose names start with `prefix`.
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..Self::default()
        }
    }

    /// Is this figure asked for?
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// Is any figure whose name starts so asked for?
    pub(crate) fn wants_any(&self, start: &str) -> bool {
        FIGURES
            .iter()
            .any(|figure| figure.name.starts_with(start) && self.wants(figure.name))
    }

    /// Takes a figure.
    pub(crate) fn put(&mut self, name: &'static str, value: f64) {
        debug_assert!(
            FIGURES.iter().any(|figure| figure.name == name),
            "{name} is no figure"
        );
        if self.wants(name) {
            self.values.insert(name, value);
        }
    }

    /// Takes a figure that could not be measured here, and why.
    pub(crate) fn leave_out(&mut self, name: &'static str, why: impl Into<String>) {
        if self.wants(name) {
            self.left_out.insert(name, why.into());
        }
    }

    /// Takes something to be said about a figure, whatever its value.
    pub(crate) fn note(&mut self, name: &'static str, note: impl Into<String>) {
        if self.wants(name) {
            self.notes.insert(name, note.into());
        }
    }

    /// Takes a condition beside the number that does not hold: the figure counts as missed.
    pub(crate) fn violated(&mut self, name: &'static str, condition: impl Into<String>) {
        if self.wants(name) {
            self.broken.insert(name, condition.into());
        }
    }

    fn verdict(&self, figure: &Figure) -> Verdict {
        let Some(value) = self.values.get(figure.name) else {
            return Verdict::LeftOut;
        };
        match figure.target {
            _ if self.broken.contains_key(figure.name) => Verdict::Missed,
            Target::None => Verdict::ForInformation,
            Target::AtMost(most) if *value <= most => Verdict::Reached,
            Target::AtLeast(least) if *value >= least => Verdict::Reached,
            Target::AtMost(_) | Target::AtLeast(_) => Verdict::Missed,
        }
    }

    fn figures(&self) -> impl Iterator<Item = &'static Figure> + '_ {
        FIGURES.iter().filter(|figure| {
            self.values.contains_key(figure.name) || self.left_out.contains_key(figure.name)
        })
    }

    /// The table, and below it what there is to say about single figures.
    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        let width = FIGURES.iter().map(|figure| figure.name.len()).max();
        let width = width.unwrap_or_default();
        let mut line = |name: &str, value: &str, unit: &str, target: &str, verdict: &str| {
            let line = format!("{name:<width$}  {value:>10} {unit:<8}  {target:>10}  {verdict}");
            let _ = writeln!(table, "{}", line.trim_end());
        };
        line("figure", "value", "", "target", "verdict");
        for figure in self.figures() {
            let value = self.values.get(figure.name);
            let value = value.map_or_else(|| "-".to_owned(), |value| number(*value));
            let target = match figure.target {
                Target::AtMost(most) => format!("<= {}", number(most)),
                Target::AtLeast(least) => format!(">= {}", number(least)),
                Target::None => "-".to_owned(),
            };
            let verdict = self.verdict(figure).text();
            line(figure.name, &value, figure.unit, &target, verdict);
        }
        let remarks = self.figures().flat_map(|figure| self.remarks(figure));
        for (at, remark) in remarks.enumerate() {
            let space = if at == 0 { "\n" } else { "" };
            let _ = writeln!(table, "{space}{remark}");
        }
        table
    }

    fn remarks(&self, figure: &'static Figure) -> Vec<String> {
        let missed = self.verdict(figure) == Verdict::Missed;
        let profile = (missed && !figure.profile.is_empty()).then_some(figure.profile);
        [&self.left_out, &self.broken, &self.notes]
            .into_iter()
            .filter_map(|texts| texts.get(figure.name).map(String::as_str))
            .chain(profile)
            .map(|text| format!("{}: {text}", figure.name))
            .collect()
    }

    /// Names of the figures that miss their targets.
    pub(crate) fn missed(&self) -> Vec<&'static str> {
        self.figures()
            .filter(|figure| self.verdict(figure) == Verdict::Missed)
            .map(|figure| figure.name)
            .collect()
    }

    /// The document: a number for each figure that was measured.
    pub(crate) fn json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures()
            .filter_map(|figure| {
                let value = self.values.get(figure.name)?;
                Some((figure.name.to_owned(), json!(rounded(*value))))
            })
            .collect();
        json!({ "figures": figures })
    }
}

/// Four significant digits, which is more than any of these are good for.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    if digits <= 0 {
        return value.round();
    }
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

fn number(value: f64) -> String {
    rounded(value).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(prefix: &str) -> Report {
        let mut report = Report::new(prefix);
        report.put("relay.peak_rss_mib", 14.2);
        report.put("relay.cpu_s_per_gib", 0.712_345);
        report.put("requests_per_artifact_noop", 2.0);
        report.violated("requests_per_artifact_noop", "a PUT was sent");
        report.put("straggler.ratio", 1.5);
        report.put("wasm.identity_gb_s", 3.9);
        report.note("straggler.ratio", "makespan 3 s");
        report.leave_out("skopeo.ratio", "skopeo is not installed");
        report
    }

    #[test]
    fn the_table_hides_nothing() {
        let expected = "
figure                                     value               target  verdict
relay.cpu_s_per_gib                       0.7123 s                  -  -
relay.peak_rss_mib                          14.2 MiB            <= 32  reached
requests_per_artifact_noop                     2 requests        <= 2  MISSED
straggler.ratio                              1.5 x            <= 1.02  MISSED
wasm.identity_gb_s                           3.9 GB/s            >= 4  MISSED
skopeo.ratio                                   - x             <= 0.5  left out

requests_per_artifact_noop: a PUT was sent
straggler.ratio: makespan 3 s
skopeo.ratio: skopeo is not installed
";
        assert_eq!(report("").table(), expected.trim_start());
        assert_eq!(
            report("").missed(),
            [
                "requests_per_artifact_noop",
                "straggler.ratio",
                "wasm.identity_gb_s"
            ]
        );
    }

    #[test]
    fn the_document_has_what_was_measured() {
        assert_eq!(
            report("re").json(),
            json!({"figures": {
                "relay.cpu_s_per_gib": 0.7123, "relay.peak_rss_mib": 14.2, "requests_per_artifact_noop": 2.0,
            }})
        );
    }

    #[test]
    fn a_prefix_chooses() {
        let report = report("relay.");
        assert!(report.wants_any("relay"));
        assert!(!report.wants_any("check"));
        assert!(report.wants("relay.floor_ratio"));
        assert!(Report::new("schedule.exponent").wants_any("schedule."));
    }

    #[test]
    fn four_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (1234.56, "1235"),
            (123_456.7, "123457"),
            (0.012_345, "0.01235"),
            (99.996, "100"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
