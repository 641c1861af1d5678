//! The rows of the threat model and the tests that they name: there are such tests, and they passed.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::tree;
use crate::command::read_text;
use crate::docs::threats::{FILE, Threat, Threats};
use crate::failure::Result;
use crate::test::Report;

/// Paths of kernel tests, `module::name`, by package.
pub(super) type Sources = BTreeMap<String, BTreeSet<String>>;

/// Rows without a test that they need, or with a test that does not exist.
pub(super) fn problems(threats: &Threats, sources: &Sources) -> Vec<String> {
    let mut problems = Vec::new();
    for threat in all(threats) {
        let mut say = |what: String| problems.push(format!("{FILE}: '{}': {what}", threat.attack));
        if threat.outcome.is_shown_by_tests() && threat.tests.is_empty() {
            say(format!("{}, and no test is named that shows it", threat.outcome.text()));
        }
        for test in &threat.tests {
            if !sources.get(&test.package).is_some_and(|tests| tests.contains(&test.path)) {
                say(format!("there is no test {} in {}", test.path, test.package));
            }
        }
    }
    problems
}

/// Tests that did not pass in a suite of the report: failed, skipped or not run.
pub(super) fn unproven(threats: &Threats, report: &Report, suite: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let proven = threats.subjects.iter().filter(|subject| subject.is_proven);
    for threat in proven.flat_map(|it| &it.threats).filter(|it| it.outcome.is_shown_by_tests()) {
        for test in &threat.tests {
            let mut rows = report.rows.iter().filter(|row| row.suite == suite);
            let is_shown = rows.any(|row| {
                let is_skipped = || row.skipped.iter().any(|(name, _)| *name == test.path);
                row.good.contains(&test.path) || threat.may_be_skipped && is_skipped()
            });
            if !is_shown {
                problems.push(format!("{FILE}: '{}': {} did not pass", threat.attack, test.path));
            }
        }
    }
    problems
}

fn all(threats: &Threats) -> impl Iterator<Item = &Threat> {
    threats.subjects.iter().flat_map(|subject| &subject.threats)
}

/// Kernel tests in the files that git has.
pub(super) fn sources() -> Result<Sources> {
    let mut sources = Sources::new();
    for path in tree::files()? {
        let is_test = path.parent().is_some_and(|dir| dir.ends_with("tests/kernel"));
        let package = path.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let module = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if is_test {
            let tests = functions(&read_text(&path)?);
            let tests = tests.iter().map(|name| format!("{module}::{name}"));
            sources.entry(package.to_owned()).or_default().extend(tests);
        }
    }
    Ok(sources)
}

/// Functions that `test!(function)` lists.
fn functions(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| Some(rest.split_once(')')?.0.to_owned());
    text.split("test!(").skip(1).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{Outcome, Row, parse};

    fn threats(rows: &[(&str, &str)]) -> Threats {
        let rows: String = rows
            .iter()
            .map(|(outcome, rest)| {
                format!("[[subject.threat]]\nattack = \"write\"\noutcome = \"{outcome}\"\n{rest}\n")
            })
            .collect();
        Threats::parse(&format!("[[subject]]\nname = \"a\"\nis_proven = true\n{rows}")).unwrap()
    }

    #[test]
    fn rows_name_tests_that_exist() {
        let tests = functions("test!(one),\ntest!(two).shared()\nfn one() {\n}\nfn three() {}\n");
        let tests = tests.iter().map(|name| format!("a::{name}")).collect();
        let sources: Sources = [("ironclad-x".to_owned(), tests)].into();
        let problems = |outcome, rest| problems(&threats(&[(outcome, rest)]), &sources).join("; ");
        assert_eq!(problems("stopped", "tests = [\"x::a::one\", \"x::a::two\"]"), "");
        assert_eq!(problems("documented-limit", ""), "");
        for (outcome, tests, why) in [
            ("stopped", "", "stopped, and no test is named"),
            ("detected", "tests = []", "detected, and no test is named"),
            ("refused-at-start", "", "refused at start, and no test is named"),
            ("stopped", "tests = [\"x::a::three\"]", "there is no test a::three in ironclad-x"),
            ("not-tried", "tests = [\"x::b::one\"]", "there is no test b::one in ironclad-x"),
            ("stopped", "tests = [\"y::a::one\"]", "there is no test a::one in ironclad-y"),
        ] {
            let problems = problems(outcome, tests);
            assert!(problems.contains(why), "{tests}: {problems}");
        }
    }

    #[test]
    fn what_failed_was_skipped_or_did_not_run_is_not_proven() {
        let output = "running 3 tests\ntest a::one ... ok\ntest a::two ... ok\ntest a::four ... FAILED\n\
            SKIP a::two: no LSM here\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let mut report = Report::default();
        report.add(Row::of_tests("linux 6.1", "ironclad-x", parse(output), 1.0));
        report.add(Row::single("linux 5.10", "machine", Outcome::Passed, 1.0));
        let unproven_of =
            |outcome, rest: &str| unproven(&threats(&[(outcome, rest)]), &report, "linux 6.1");
        assert_eq!(unproven_of("stopped", "tests = [\"x::a::one\"]"), [""; 0]);
        assert_eq!(
            unproven_of("stopped", "tests = [\"x::a::two\"]\nmay_be_skipped = true"),
            [""; 0]
        );
        assert_eq!(unproven_of("documented-limit", "tests = [\"x::a::two\"]"), [""; 0]);
        for test in ["a::two", "a::four", "a::five", "b::one"] {
            let tests = format!("tests = [\"x::{test}\"]");
            assert_eq!(unproven_of("stopped", &tests).len(), 1, "{test}");
        }
        let both = ("stopped", "tests = [\"x::a::one\"]");
        assert_eq!(unproven(&threats(&[both, both]), &report, "linux 5.10").len(), 2);
    }
}
