//! What Rust's test harness prints, read as a person would.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One test binary's tests.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tests {
    pub(crate) passed: usize,
    /// Names and, where there is more to say, why.
    pub(crate) failed: Vec<String>,
    /// `SKIP <test>: <reason>` lines of tests that passed.
    pub(crate) skipped: Vec<(String, String)>,
    /// `RECORD <name> <number>` lines.
    pub(crate) records: BTreeMap<String, f64>,
    /// `ATTACK <name> | <outcome without> | <outcome with> | <alarm>` lines, in their order.
    pub(crate) attacks: Vec<Attack>,
    /// Paths of those that passed and were not skipped.
    pub(crate) good: BTreeSet<String>,
    /// `TIME <test> <seconds>` lines.
    pub(crate) times: Vec<(String, f64)>,
    /// `LEFT <number>: <reason>` lines: tests that were not to run.
    pub(crate) left: Vec<(usize, String)>,
    /// As the harness measured.
    pub(crate) seconds: f64,
}

/// What a test saw of one attack: without Sentinel, and with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Attack {
    pub(crate) attack: String,
    /// `succeeded`, an error's name, or what else came of it.
    pub(crate) without: String,
    pub(crate) with: String,
    /// Whether Sentinel raised an alarm.
    pub(crate) alarm: bool,
}

impl Attack {
    fn parse(text: &str) -> Option<Self> {
        let [attack, without, with, alarm] = text.split('|').collect::<Vec<_>>().try_into().ok()?;
        let [attack, without, with] = [attack, without, with].map(|word| word.trim().to_owned());
        Some(Self { attack, without, with, alarm: alarm.trim() == "alarm" })
    }
}

/// Reads the output of one binary. What did not finish, was ignored or was skipped without a reason
/// has failed.
pub(crate) fn parse(output: &str) -> Tests {
    let mut reading = Reading::default();
    for line in output.lines() {
        reading.line(line);
    }
    reading.finish()
}

/// The parts of `cargo test`'s output that belong to one binary or one crate's doctests each, with
/// its name.
pub(crate) fn sections(output: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in output.lines() {
        let name = if let Some(binary) = line.trim_start().strip_prefix("Running ") {
            // `unittests src/lib.rs (target/debug/deps/ironclad_core-0123456789abcdef)`
            let file = binary.rsplit(['/', '(']).next().unwrap_or(binary).trim_end_matches(')');
            let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
            let is_unit = binary.starts_with("unittests ");
            is_cargo(line).then(|| if is_unit { format!("{name} (unit)") } else { name.to_owned() })
        } else if let Some(name) = line.trim_start().strip_prefix("Doc-tests ") {
            is_cargo(line).then(|| format!("{name} (doc)"))
        } else {
            None
        };
        match name {
            Some(name) => sections.push((name, String::new())),
            None => {
                if let Some((_, text)) = sections.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    sections
}

/// Cargo's own words stand right-aligned before column 12.
fn is_cargo(line: &str) -> bool {
    line.starts_with("   ")
}

#[derive(Default)]
struct Reading {
    promised: usize,
    /// A test that began and said nothing of its end yet.
    open: Option<String>,
    /// In the order of their ends: one that fails may make others fail.
    failed: Vec<String>,
    reasons: BTreeMap<String, String>,
    ignored: BTreeSet<String>,
    passed: BTreeSet<String>,
    skipped: BTreeMap<String, String>,
    records: BTreeMap<String, f64>,
    attacks: Vec<Attack>,
    times: Vec<(String, f64)>,
    left: Vec<(usize, String)>,
    /// Passed, failed and ignored, of the last line.
    summary: Option<[usize; 3]>,
    seconds: f64,
}

impl Reading {
    fn line(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("running ") {
            let count = rest.split(' ').next().and_then(|count| count.parse::<usize>().ok());
            self.promised += count.unwrap_or(0);
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.summary = summary(rest);
            self.seconds = rest
                .rsplit_once("finished in ")
                .and_then(|(_, time)| time.trim_end().trim_end_matches('s').parse().ok())
                .unwrap_or_default();
        } else if let Some(rest) = line.strip_prefix("SKIP ") {
            // Not at the colons of a test's path.
            let (test, reason) = rest.split_once(": ").unwrap_or((rest, ""));
            self.skipped.insert(test.trim().into(), reason.trim().into());
        } else if let Some(rest) = line.strip_prefix("WHY ") {
            // The first: that of a process of the test's own.
            if let Some((test, why)) = rest.split_once(": ") {
                self.reasons.entry(test.to_owned()).or_insert_with(|| why.to_owned());
            }
        } else if let Some(rest) = line.strip_prefix("RECORD ") {
            if let Some((name, value)) = rest.trim().rsplit_once(' ') {
                self.records.extend(value.parse().ok().map(|value| (name.trim().into(), value)));
            }
        } else if let Some(rest) = line.strip_prefix("TIME ") {
            let time = rest
                .rsplit_once(' ')
                .and_then(|(test, time)| Some((test.to_owned(), time.trim().parse().ok()?)));
            self.times.extend(time);
        } else if let Some(rest) = line.strip_prefix("LEFT ") {
            let left = rest.split_once(": ").and_then(|(number, reason)| {
                Some((number.parse().ok()?, reason.trim().to_owned()))
            });
            self.left.extend(left);
        } else if let Some(rest) = line.strip_prefix("ATTACK ") {
            self.attacks.extend(Attack::parse(rest));
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            // libtest-mimic aligns verdicts with spaces after the names.
            let name = name.trim_end();
            if !self.verdict(name, verdict) {
                self.open = Some(name.to_owned());
            }
        } else if let Some(name) = self.open.take() {
            // What the test wrote past the harness stands between its name and its verdict.
            if !self.verdict(&name, line) {
                self.open = Some(name);
            }
        }
    }

    fn verdict(&mut self, name: &str, verdict: &str) -> bool {
        // Doctests of one file and line may share a name.
        let name = name.trim_end_matches(" - should panic").to_owned();
        match verdict.split([',', ' ', '<']).next() {
            Some("ok") => drop(self.passed.insert(name)),
            Some("FAILED") if self.failed.contains(&name) => {}
            Some("FAILED") => self.failed.push(name),
            Some("ignored") => drop(self.ignored.insert(name)),
            _ => return false,
        }
        true
    }

    /// Names explain, the harness's own sums count.
    fn finish(self) -> Tests {
        let seen = self.passed.len() + self.failed.len() + self.ignored.len();
        let with_reason = |name: String| match self.reasons.get(&name) {
            Some(why) => format!("{name}: {why}"),
            None => name,
        };
        let mut failed: Vec<_> = self.failed.into_iter().map(with_reason).collect();
        let mut passed = self.passed.len();
        match self.summary {
            Some([sum_passed, sum_failed, sum_ignored]) => {
                passed = sum_passed;
                for number in failed.len()..sum_failed {
                    failed.push(format!("failed test {}", number + 1));
                }
                let mut ignored = self.ignored.into_iter();
                for _ in 0..sum_ignored {
                    let name = ignored.next().unwrap_or_else(|| "a test".into());
                    failed.push(format!("{name}: ignored, which counts as failed"));
                }
            }
            None => {
                let unfinished = self.promised.saturating_sub(seen);
                if let Some(name) = self.open {
                    failed.push(format!("{name}: did not finish"));
                }
                match unfinished {
                    0 if self.promised == 0 => failed.push("no tests ran".into()),
                    0 | 1 => {}
                    more => failed.push(format!("{more} tests had no result")),
                }
                if failed.is_empty() && unfinished > 0 {
                    failed.push("a test had no result".into());
                }
            }
        }
        let last = |name: &str| name.rsplit("::").next().unwrap_or(name).to_owned();
        let mut good = self.passed.clone();
        let mut skipped = Vec::new();
        for (test, reason) in self.skipped {
            // A test may name itself without its module.
            if !good.remove(&test) {
                good.retain(|path| last(path) != last(&test));
            }
            if reason.is_empty() {
                failed.push(format!("{test}: skipped without a reason"));
            } else {
                skipped.push((test, reason));
            }
            passed = passed.saturating_sub(1);
        }
        let Self { records, attacks, times, left, seconds, .. } = self;
        Tests { passed, failed, skipped, records, attacks, good, times, left, seconds }
    }
}

/// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn summary(rest: &str) -> Option<[usize; 3]> {
    let count = |what: &str| {
        let before = rest.split_once(what)?.0;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some([count("passed")?, count("failed")?, count("ignored")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "
running 3 tests
test a::b      ... ok
test src/lib.rs - x (line 3) - compile ... ok
test c ... ok

successes:

---- c stdout ----
SKIP m::c: no lists here: set IRONCLAD_DATA
ATTACK write to it | succeeded | EPERM | alarm
ATTACK cut in the
RECORD insns.ic_policy 1234
TIME a::b 0.25
LEFT 12: they run elsewhere

successes:
    c

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s
";

    #[test]
    fn skips_are_taken_from_the_passed() {
        let tests = parse(FINE);
        assert_eq!(tests.passed, 2);
        assert_eq!(tests.failed, [""; 0]);
        assert_eq!(tests.skipped, [("m::c".into(), "no lists here: set IRONCLAD_DATA".into())]);
        assert_eq!(tests.records["insns.ic_policy"], 1234.0);
        assert_eq!(tests.seconds, 1.5);
        assert!(tests.good.contains("a::b") && !tests.good.contains("c"), "{:?}", tests.good);
        assert_eq!(tests.times, [("a::b".into(), 0.25)]);
        assert_eq!(tests.left, [(12, "they run elsewhere".into())]);
        let attack = Attack {
            attack: "write to it".into(),
            without: "succeeded".into(),
            with: "EPERM".into(),
            alarm: true,
        };
        assert_eq!(tests.attacks, [attack]);
    }

    #[test]
    fn ignored_and_unexplained_fail() {
        let tests = parse(
            "running 3 tests\ntest a ... ignored, why\nWHY b: f.rs:1: not so\ntest b ... FAILED\n\
             test c ... ok\nSKIP c\ntest result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((tests.passed, tests.skipped.len()), (0, 0));
        assert_eq!(
            tests.failed,
            [
                "b: f.rs:1: not so",
                "a: ignored, which counts as failed",
                "c: skipped without a reason"
            ]
        );
    }

    #[test]
    fn what_did_not_finish_failed() {
        let tests = parse("running 4 tests\ntest a ... ok\ntest b ... SIGSEGV\n");
        assert_eq!(tests.passed, 1);
        assert_eq!(tests.failed, ["b: did not finish", "3 tests had no result"]);
        assert_eq!(parse("").failed, ["no tests ran"]);
        assert_eq!(
            parse("running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored;").failed,
            [""; 0]
        );
        assert_eq!(parse("running 1 test\n").failed, ["a test had no result"]);
    }

    #[test]
    fn noise_between_name_and_verdict() {
        let text = "running 1 test\ntest a ... noise\nmore\nok\n\n\
                    test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!((parse(text).passed, parse(text).failed.len()), (1, 0));
    }

    #[test]
    fn sections_of_cargo_test() {
        let text = "   Compiling x v0.1.0\n     Running unittests src/lib.rs \
                    (target/debug/deps/ironclad_core-0abc)\n\nrunning 1 test\n     Running tests/a.rs \
                    (/t/deps/a_b-1f)\nx\n   Doc-tests ironclad_core\n";
        let sections = sections(text);
        let names: Vec<_> = sections.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ironclad_core (unit)", "a_b", "ironclad_core (doc)"]);
        assert_eq!(sections[0].1, "\nrunning 1 test\n");
    }
}
