//! Attack × kernel × outcome: as tests saw it, as docs/attacks.md keeps it.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::command::read_text;
use crate::failure::{Context, Result};
use crate::kernels::MATRIX;
use crate::test::{Attack, Report};

pub(super) const FILE: &str = "docs/attacks.md";

const HEADING: &str = "# Attacks

Attacks that tests of Sentinel carry out as root on each kernel of the matrix, without Sentinel and with it. Without
Sentinel an attack that would harm the agent is carried out on another process, or on unprotected files of the same kind.
`exit N` is the exit status of a tool, `no effect` a call that returns no error. Every attack raised an alarm unless the
cell says otherwise. Written by `cargo xtask attacks --write`; `cargo xtask ci` compares the page with what it sees. The
[threat model](threat-model.md) lists what is not tried.

";
const UNTRIED: &str = "–";
const NO_ALARM: &str = ", no alarm";

/// One attack on one kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Found {
    pub(super) kernel: String,
    #[serde(flatten)]
    pub(super) seen: Attack,
}

impl Found {
    /// Why it does not show that the attack is stopped.
    fn problem(&self) -> Option<String> {
        let Attack { attack, without, with, .. } = &self.seen;
        let is_refusal = matches!(with.as_str(), "EPERM" | "EACCES" | "EIO" | "no effect");
        let why = if without != "succeeded" {
            format!("proves nothing: without Sentinel it ends in {without}")
        } else if !is_refusal && !with.starts_with("exit ") {
            format!("is not stopped: {with}")
        } else {
            return None;
        };
        Some(format!("'{attack}' on {} {why}", self.kernel))
    }

    fn cell(&self, usual: &str) -> String {
        let Attack { without, with, alarm, .. } = &self.seen;
        let before = if without == usual { String::new() } else { format!("{without} → ") };
        format!("{before}{with}{}", if *alarm { "" } else { NO_ALARM })
    }

    fn of_cell(attack: &str, usual: &str, kernel: &str, cell: &str) -> Option<Self> {
        if cell == UNTRIED {
            return None;
        }
        let (without, with) = cell.split_once(" → ").unwrap_or((usual, cell));
        let (with, alarm) = match with.strip_suffix(NO_ALARM) {
            Some(with) => (with, false),
            None => (with, true),
        };
        let [attack, without, with] = [attack, without, with].map(str::to_owned);
        Some(Self { kernel: kernel.into(), seen: Attack { attack, without, with, alarm } })
    }
}

/// All that were found, attacks in the order of their tests.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Table(Vec<Found>);

impl Table {
    pub(super) fn of_report(report: &Report) -> Self {
        let found =
            |kernel: &str, seen: &Attack| Found { kernel: kernel.into(), seen: seen.clone() };
        let rows =
            report.rows.iter().filter_map(|row| Some((row.suite.strip_prefix("linux ")?, row)));
        Self(
            rows.flat_map(|(kernel, row)| row.attacks.iter().map(move |it| found(kernel, it)))
                .collect(),
        )
    }

    /// What is kept; nothing where there is no file.
    pub(super) fn kept() -> Result<Self> {
        match Path::new(FILE).is_file() {
            true => Self::parse(&read_text(FILE.as_ref())?),
            false => Ok(Self::default()),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut rows = super::rows(text);
        let (_, header) = rows.next().context(format_args!("{FILE}: no table"))?;
        let mut found = Vec::new();
        for (line, cells) in rows {
            let [attack, usual, outcomes @ ..] = cells.as_slice() else {
                return Err(format!("{FILE}:{line}: no outcomes").into());
            };
            let kernels = header.iter().skip(2).zip(outcomes);
            found.extend(
                kernels.filter_map(|(kernel, cell)| Found::of_cell(attack, usual, kernel, cell)),
            );
        }
        Ok(Self(found))
    }

    pub(super) fn text(&self) -> String {
        let kernels = self.kernels();
        let mut lines = vec![vec!["attack", "without Sentinel"]];
        lines[0].extend(&kernels);
        let mut lines: Vec<Vec<String>> =
            lines.into_iter().map(|line| line.into_iter().map(str::to_owned).collect()).collect();
        for attack in self.attacks() {
            let usual = self.of(attack).next().map_or("", |found| &found.seen.without);
            let cells = kernels.iter().map(|kernel| {
                let found = self.of(attack).find(|found| found.kernel == *kernel);
                found.map_or(UNTRIED.to_owned(), |found| found.cell(usual))
            });
            lines.push([attack.to_owned(), usual.to_owned()].into_iter().chain(cells).collect());
        }
        let width =
            |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
        lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
        let mut text = String::new();
        for line in lines {
            for (cell, width) in line.iter().zip(&widths) {
                let _ = write!(text, "| {cell:width$} ");
            }
            text += "|\n";
        }
        text
    }

    pub(super) fn page(&self) -> String {
        format!("{HEADING}{}", self.text())
    }

    /// Takes another's findings of kernels that this one has none of.
    pub(super) fn fill_from(&mut self, other: Self) {
        let own: Vec<_> = self.kernels().into_iter().map(str::to_owned).collect();
        self.0.extend(other.0.into_iter().filter(|found| !own.contains(&found.kernel)));
    }

    /// What does not show an attack that is stopped, and names that two attacks have.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<_> = self.0.iter().filter_map(Found::problem).collect();
        for (at, found) in self.0.iter().enumerate() {
            let is_same = |other: &&Found| {
                other.kernel == found.kernel && other.seen.attack == found.seen.attack
            };
            if let Some(other) = self.0[..at].iter().find(is_same) {
                problems
                    .push(format!("two are called '{}' on {}", other.seen.attack, other.kernel));
            }
        }
        problems
    }

    /// How what was seen on a kernel differs from what is kept.
    pub(super) fn differences(&self, kept: &Self, kernel: &str) -> Vec<String> {
        let on_kernel = |table: &'_ Self, attack: &str| {
            table.of(attack).find(|found| found.kernel == kernel).map(|found| found.seen.clone())
        };
        let mut attacks = self.attacks();
        attacks
            .extend(kept.attacks().into_iter().filter(|attack| self.of(attack).next().is_none()));
        let said = |seen: Option<Attack>| match seen {
            Some(Attack { without, with, alarm, .. }) => {
                format!("{without} → {with}{}", if alarm { "" } else { NO_ALARM })
            }
            None => "nothing".to_owned(),
        };
        let difference = |attack: &str| {
            let (now, then) = (on_kernel(self, attack), on_kernel(kept, attack));
            (now != then)
                .then(|| format!("'{attack}': {}, and {FILE} has {}", said(now), said(then)))
        };
        attacks.into_iter().filter_map(difference).collect()
    }

    fn of(&self, attack: &str) -> impl Iterator<Item = &Found> {
        self.0.iter().filter(move |found| found.seen.attack == attack)
    }

    fn attacks(&self) -> Vec<&str> {
        let mut attacks: Vec<&str> = Vec::new();
        for found in &self.0 {
            if !attacks.contains(&found.seen.attack.as_str()) {
                attacks.push(&found.seen.attack);
            }
        }
        attacks
    }

    /// In the order of the matrix.
    fn kernels(&self) -> Vec<&'static str> {
        let labels = MATRIX.iter().map(|wanted| wanted.label);
        labels.filter(|label| self.0.iter().any(|found| found.kernel == *label)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(attack: &str, kernel: &str, without: &str, with: &str, alarm: bool) -> Found {
        let [attack, without, with] = [attack, without, with].map(str::to_owned);
        Found { kernel: kernel.into(), seen: Attack { attack, without, with, alarm } }
    }

    #[test]
    fn what_is_written_is_read() {
        let table = Table(vec![
            found("write", "5.10", "succeeded", "EPERM", true),
            found("write", "6.1", "EINVAL", "EPERM", false),
            found("mount", "6.1", "succeeded", "exit 32", true),
        ]);
        let page = table.page();
        assert!(
            page.contains("| write  | succeeded        | EPERM | EINVAL → EPERM, no alarm |"),
            "{page}"
        );
        assert_eq!(Table::parse(&page).unwrap(), table);
    }

    #[test]
    fn as_json_it_is_a_list() {
        let table = Table(vec![found("write", "5.10", "succeeded", "EPERM", true)]);
        let list = serde_json::json!([{
            "attack": "write", "kernel": "5.10", "without": "succeeded", "with": "EPERM", "alarm": true,
        }]);
        assert_eq!(serde_json::to_value(table).unwrap(), list);
    }

    #[test]
    fn what_is_not_stopped_is_a_problem() {
        let problem = |without, with, alarm| {
            Table(vec![found("it", "6.1", without, with, alarm)]).problems().join("")
        };
        assert_eq!(problem("succeeded", "EPERM", true), "");
        assert_eq!(problem("succeeded", "exit 1", true), "");
        assert!(problem("succeeded", "succeeded", true).contains("is not stopped"));
        assert!(problem("succeeded", "ENOENT", true).contains("is not stopped: ENOENT"));
        // Tests name these operations, and fail where any other raises no alarm.
        assert_eq!(problem("succeeded", "EPERM", false), "");
        assert!(problem("EINVAL", "EPERM", true).contains("proves nothing"));
        let one = found("it", "6.1", "succeeded", "EPERM", true);
        assert_eq!(Table(vec![one.clone(), one]).problems(), ["two are called 'it' on 6.1"]);
    }

    #[test]
    fn differences_of_a_kernel_are_named() {
        let stopped = |attack| found(attack, "6.1", "succeeded", "EPERM", true);
        let kept = Table(vec![stopped("a"), stopped("b"), found("a", "5.10", "x", "y", true)]);
        assert_eq!(Table(vec![stopped("a"), stopped("b")]).differences(&kept, "6.1"), [""; 0]);
        let now = Table(vec![found("a", "6.1", "succeeded", "EACCES", true), stopped("c")]);
        let differences = now.differences(&kept, "6.1");
        assert_eq!(differences.len(), 3, "{differences:?}");
        assert!(
            differences[0]
                .contains("succeeded → EACCES, and docs/attacks.md has succeeded → EPERM")
        );
        assert!(differences[1].starts_with("'c'") && differences[2].starts_with("'b': nothing"));
    }

    #[test]
    fn other_kernels_stay() {
        let mut now = Table(vec![found("a", "6.1", "succeeded", "EACCES", true)]);
        now.fill_from(Table(vec![
            found("a", "5.10", "succeeded", "EPERM", true),
            found("a", "6.1", "succeeded", "EPERM", true),
        ]));
        assert_eq!(now.kernels(), ["5.10", "6.1"]);
        assert_eq!(now.0.len(), 2);
    }
}
