//! What ran, in a table, as JSON and in one last line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::libtest::{Attack, Tests};
use crate::command::write;
use crate::failure::{Context, Result};

/// How many of the slowest tests are listed.
const SLOWEST: usize = 20;

/// One binary, check or fuzz target, in one place.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Where: `pure`, `host`, `fuzz`, `check` or a kernel.
    pub(crate) suite: String,
    pub(crate) target: String,
    pub(crate) passed: usize,
    pub(crate) failed: Vec<String>,
    pub(crate) skipped: Vec<(String, String)>,
    pub(crate) seconds: f64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) records: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) attacks: Vec<Attack>,
    /// Paths of tests that passed and were not skipped.
    #[serde(skip)]
    pub(crate) good: BTreeSet<String>,
    /// Seconds by test, where the harness tells.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) times: Vec<(String, f64)>,
}

impl Row {
    pub(crate) fn of_tests(suite: &str, target: &str, tests: Tests, seconds: f64) -> Self {
        let Tests { passed, failed, skipped, records, attacks, good, times, .. } = tests;
        let (suite, target) = (suite.to_owned(), target.to_owned());
        Self { suite, target, passed, failed, skipped, seconds, records, attacks, good, times }
    }

    /// Something that either holds or does not.
    pub(crate) fn single(suite: &str, target: &str, outcome: Outcome, seconds: f64) -> Self {
        let mut tests = Tests::default();
        match outcome {
            Outcome::Passed => tests.passed = 1,
            Outcome::Failed(why) => tests.failed.push(why),
            Outcome::Skipped(why) => tests.skipped.push((target.to_owned(), why)),
        }
        Self::of_tests(suite, target, tests, seconds)
    }
}

/// What became of one thing.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// All rows of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// Adds a row and says so at once: a run may take long.
    pub(crate) fn add(&mut self, row: Row) {
        let state = match (row.failed.is_empty(), row.skipped.is_empty()) {
            (false, _) => "FAILED",
            (true, false) => "ok, with skips",
            (true, true) => "ok",
        };
        eprintln!("{} {}: {state} in {:.1} s", row.suite, row.target, row.seconds);
        self.rows.push(row);
    }

    /// Takes the rows of another report, which were printed as they came.
    pub(crate) fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    fn totals(&self) -> [usize; 3] {
        self.rows.iter().fold([0; 3], |[passed, failed, skipped], row| {
            [passed + row.passed, failed + row.failed.len(), skipped + row.skipped.len()]
        })
    }

    pub(crate) fn has_failures(&self) -> bool {
        self.totals()[1] > 0
    }

    /// The table, then each failure and skip by name; the last line is the sum.
    pub(crate) fn text(&self) -> String {
        let width = self.rows.iter().map(|row| row.target.len()).max().unwrap_or(0).max(6);
        let mut text = format!(
            "\n{:12} {:width$} {:>7} {:>7} {:>7} {:>8}\n",
            "where", "what", "passed", "failed", "skipped", "seconds"
        );
        for row in &self.rows {
            text += &format!(
                "{:12} {:width$} {:>7} {:>7} {:>7} {:>8.1}\n",
                row.suite,
                row.target,
                row.passed,
                row.failed.len(),
                row.skipped.len(),
                row.seconds
            );
        }
        text.push('\n');
        text += &self.seconds();
        for row in &self.rows {
            for (test, reason) in &row.skipped {
                text += &format!("skipped: {} {}: {test}: {reason}\n", row.suite, row.target);
            }
        }
        for row in &self.rows {
            for failure in &row.failed {
                text += &format!("FAILED: {} {}: {failure}\n", row.suite, row.target);
            }
        }
        let [passed, failed, skipped] = self.totals();
        text + &format!("{passed} passed, {failed} failed, {skipped} skipped\n")
    }

    /// The seconds of each suite, and the tests that took most.
    fn seconds(&self) -> String {
        let mut suites: Vec<(&str, f64)> = Vec::new();
        // The row of a machine contains those of its programs.
        for row in self.rows.iter().filter(|row| !row.target.contains("machine")) {
            match suites.iter_mut().find(|(suite, _)| *suite == row.suite) {
                Some((_, seconds)) => *seconds += row.seconds,
                None => suites.push((&row.suite, row.seconds)),
            }
        }
        let mut text = String::from("seconds by suite:\n");
        for (suite, seconds) in suites {
            text += &format!("{seconds:>8.1} {suite}\n");
        }
        let times = |row: &'_ Row| -> Vec<_> {
            let place = |(test, seconds): &(String, f64)| {
                (*seconds, format!("{} {} {test}", row.suite, row.target))
            };
            row.times.iter().map(place).collect()
        };
        let mut slowest: Vec<_> = self.rows.iter().flat_map(times).collect();
        slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
        slowest.truncate(SLOWEST);
        if !slowest.is_empty() {
            text += &format!("\nthe {} slowest tests:\n", slowest.len());
        }
        for (seconds, test) in slowest {
            text += &format!("{seconds:>8.1} {test}\n");
        }
        text + "\n"
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let [passed, failed, skipped] = self.totals();
        let json = serde_json::json!({
            "passed": passed, "failed": failed, "skipped": skipped, "rows": self.rows,
        });
        write(path, serde_json::to_string_pretty(&json).context("JSON")? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_sum() {
        let mut report = Report::default();
        report.add(Row::single("check", "a", Outcome::Passed, 1.0));
        report.add(Row::single("check", "b", Outcome::Skipped("why".into()), 1.0));
        assert!(!report.has_failures());
        report.add(Row::single("check", "c", Outcome::Failed("because".into()), 1.0));
        assert!(report.has_failures());
        let text = report.text();
        assert!(text.ends_with("\n1 passed, 1 failed, 1 skipped\n"), "{text}");
        assert!(text.contains("FAILED: check c: because"), "{text}");
        assert!(text.contains("skipped: check b: b: why"), "{text}");
    }
}
