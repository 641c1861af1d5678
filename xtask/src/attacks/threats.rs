//! The table of Sentinel's threats: each row has an outcome, and what is said to be stopped has tests, which
//! passed.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::tree;
use crate::command::read_text;
use crate::failure::{Context, Result};
use crate::test::Report;

pub(super) const FILE: &str = "docs/threat-model.md";
const SECTION: &str = "# Sentinel";
/// Words with which an answer begins. The first three are shown by tests.
const OUTCOMES: [&str; 6] =
    ["stopped", "detected", "refused at start", "documented limit", "not tried", "out of scope"];
const SHOWN_BY_TESTS: usize = 3;
/// Begins modules of kernel tests.
const PREFIX: &str = "kernel/";
/// Stands for the tests of the row above.
const SAME: &str = "the same";
/// Lets the tests of a row be skipped.
const UNLESS_SKIPPED: &str = "unless skipped";

/// Test functions by their module: `kernel/files` of `tests/kernel/files.rs`.
pub(super) type Sources = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug, PartialEq)]
struct Test {
    /// Any, where none is named.
    module: Option<String>,
    name: String,
}

impl Test {
    fn is_in(&self, module: &str) -> bool {
        self.module.as_deref().is_none_or(|own| own == module)
    }

    /// By its path: `module::name`.
    fn is_called(&self, path: &str) -> bool {
        let (module, name) = path.rsplit_once("::").unwrap_or_default();
        name == self.name && self.is_in(&format!("{PREFIX}{module}"))
    }
}

#[derive(Debug)]
struct Threat {
    line: usize,
    outcome: Option<usize>,
    tests: Vec<Test>,
    may_be_skipped: bool,
}

/// The rows of the section's tables.
pub(super) struct Threats(Vec<Threat>);

impl Threats {
    pub(super) fn read() -> Result<Self> {
        Self::parse(&read_text(FILE.as_ref())?)
    }

    fn parse(text: &str) -> Result<Self> {
        let begin = text.lines().position(|line| line == SECTION);
        let begin = begin.context(format_args!("{FILE}: no section '{SECTION}'"))?;
        // Before it are empty lines, so that numbers are those of the file.
        let section: Vec<_> = (text.lines().enumerate())
            .map(|(number, line)| if number < begin { "" } else { line })
            .collect();
        let mut threats: Vec<Threat> = Vec::new();
        for (line, cells) in super::rows(&section.join("\n")) {
            let [attack, answer, shown_by] = cells.as_slice() else {
                return Err(format!("{FILE}:{line}: a row is: attack, answer, shown by").into());
            };
            if attack == "attack" {
                continue;
            }
            let mut tests = tests(shown_by);
            if let Some(above) = threats.last().filter(|_| shown_by.starts_with(SAME)) {
                let above = above.tests.iter();
                tests.extend(above.map(|Test { module, name }| Test {
                    module: module.clone(),
                    name: name.clone(),
                }));
            }
            let outcome = OUTCOMES.iter().position(|word| begins_with(answer, word));
            let may_be_skipped = shown_by.contains(UNLESS_SKIPPED);
            threats.push(Threat { line, outcome, tests, may_be_skipped });
        }
        Ok(Self(threats))
    }

    /// Rows without an outcome, without a test that they need, with a test that is not there.
    pub(super) fn problems(&self, sources: &Sources) -> Vec<String> {
        let mut problems = Vec::new();
        if self.0.is_empty() {
            problems.push(format!("{FILE}: no table in '{SECTION}'"));
        }
        for threat in &self.0 {
            let mut say = |what: String| problems.push(format!("{FILE}:{}: {what}", threat.line));
            match threat.outcome {
                None => say(format!("the answer begins with none of {}", OUTCOMES.join(", "))),
                Some(outcome) if outcome < SHOWN_BY_TESTS && threat.tests.is_empty() => {
                    say(format!("{}, and no test is named that shows it", OUTCOMES[outcome]));
                }
                Some(_) => {}
            }
            for test in &threat.tests {
                let has = |(module, tests): (&String, &BTreeSet<String>)| {
                    test.is_in(module) && tests.contains(&test.name)
                };
                if !sources.iter().any(has) {
                    let place = test.module.as_deref().unwrap_or("any module of kernel tests");
                    say(format!("there is no test {} in {place}", test.name));
                }
            }
        }
        problems
    }

    /// Tests that did not pass in a suite of the report: failed, skipped or not run.
    pub(super) fn unproven(&self, report: &Report, suite: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for threat in
            self.0.iter().filter(|threat| threat.outcome.is_some_and(|it| it < SHOWN_BY_TESTS))
        {
            for test in &threat.tests {
                let mut rows = report.rows.iter().filter(|row| row.suite == suite);
                let is_shown = rows.any(|row| {
                    let is_skipped = || row.skipped.iter().any(|(name, _)| test.is_called(name));
                    row.good.iter().any(|name| test.is_called(name))
                        || threat.may_be_skipped && is_skipped()
                });
                if !is_shown {
                    problems.push(format!("{FILE}:{}: {} did not pass", threat.line, test.name));
                }
            }
        }
        problems
    }
}

/// Whether a word stands there as a whole.
fn begins_with(answer: &str, word: &str) -> bool {
    let rest = answer.strip_prefix(word);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', ',', ';', ' ']))
}

/// `` `package`: `kernel/module`: `test`, `test` ``
fn tests(cell: &str) -> Vec<Test> {
    let (mut tests, mut module) = (Vec::new(), None);
    for name in cell.split('`').skip(1).step_by(2) {
        if name.starts_with(PREFIX) {
            module = Some(name.to_owned());
        } else if !name.starts_with("ironclad") {
            tests.push(Test { module: module.clone(), name: name.to_owned() });
        }
    }
    tests
}

/// Those of kernel tests, in the files that git has.
pub(super) fn sources() -> Result<Sources> {
    let mut sources = Sources::new();
    for path in tree::files()? {
        let is_test = path.parent().is_some_and(|dir| dir.ends_with("tests/kernel"));
        let module = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if is_test {
            let tests = sources.entry(format!("{PREFIX}{module}")).or_default();
            tests.extend(functions(&read_text(&path)?));
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

    const ROWS: &str = "# Shield\n| attack | answer | shown by |\n|---|---|---|\n| other | dropped | x |\n\n\
        # Sentinel\n\n| attack | answer | shown by |\n|---|---|---|\n";

    fn threats(rows: &str) -> Threats {
        Threats::parse(&format!("{ROWS}{rows}\n")).unwrap()
    }

    fn sources() -> Sources {
        let tests = functions("test!(one),\ntest!(two).shared()\nfn one() {\n}\nfn three() {}\n");
        [("kernel/a".to_owned(), tests), ("kernel/b".to_owned(), BTreeSet::new())].into()
    }

    #[test]
    fn rows_have_an_outcome_and_tests_that_are_there() {
        let problems = |row: &str| threats(row).problems(&sources()).join("; ");
        for good in [
            "| write | stopped | `kernel/a`: `one` |",
            "| write | stopped: not by all | `two` |\n| again | detected | the same |",
            "| start | refused at start | `ironclad-x`: `kernel/a`: `one`, `two` |",
            "| write | documented limit: stays so | nothing |\n| x | not tried | nothing |\n| y | out of scope | |",
        ] {
            assert_eq!(problems(good), "", "{good}");
        }
        for (bad, why) in [
            ("| write | refused | `one` |", ":10: the answer begins with none of stopped, "),
            ("| write | stoppedly | `one` |", "the answer begins with none"),
            ("| write | stopped | nothing |", "stopped, and no test is named"),
            ("| x | detected | the same |", "detected, and no test is named"),
            ("| write | stopped | `three` |", "there is no test three in any module"),
            ("| write | stopped | `kernel/b`: `one` |", "there is no test one in kernel/b"),
        ] {
            assert!(problems(bad).contains(why), "{bad}: {}", problems(bad));
        }
        assert!(threats("").problems(&sources())[0].contains("no table"));
        assert!(Threats::parse(&format!("{ROWS}| write | stopped |\n")).is_err());
    }

    #[test]
    fn what_failed_was_skipped_or_did_not_run_is_not_proven() {
        let output = "running 3 tests\ntest a::one ... ok\ntest a::two ... ok\ntest a::four ... FAILED\n\
            SKIP a::two: no LSM here\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";
        let mut report = Report::default();
        report.add(Row::of_tests("linux 6.1", "ironclad-x", parse(output), 1.0));
        report.add(Row::single("linux 5.10", "machine", Outcome::Passed, 1.0));
        let unproven = |row: &str| threats(row).unproven(&report, "linux 6.1");
        assert_eq!(unproven("| a | stopped | `kernel/a`: `one` |"), [""; 0]);
        assert_eq!(unproven("| a | stopped | `two`, unless skipped |"), [""; 0]);
        assert_eq!(unproven("| a | documented limit | `two` |"), [""; 0]);
        for test in ["two", "four", "five", "kernel/b`: `one"] {
            assert_eq!(unproven(&format!("| a | stopped | `{test}` |")).len(), 1, "{test}");
        }
        let stopped = threats("| a | stopped | `one` |\n| b | stopped | the same |");
        assert_eq!(stopped.unproven(&report, "linux 5.10").len(), 2);
    }
}
