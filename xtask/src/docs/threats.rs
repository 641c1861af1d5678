//! docs/threats.toml: attacks, what becomes of each, and the tests that show it. The tables of
//! docs/threat-model.md are made from it, and `attacks` holds it against the tests.

use std::fmt::Write as _;

use serde::Deserialize;

use super::cell;
use crate::command::read_text;
use crate::failure::{Context, Result};

pub(crate) const FILE: &str = "docs/threats.toml";
/// Precedes the names of packages in paths of tests.
const PACKAGE_PREFIX: &str = "ironclad-";

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AttackOutcome {
    Stopped,
    Detected,
    RefusedAtStart,
    DocumentedLimit,
    NotTried,
    OutOfScope,
}

impl AttackOutcome {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Detected => "detected",
            Self::RefusedAtStart => "refused at start",
            Self::DocumentedLimit => "documented limit",
            Self::NotTried => "not tried",
            Self::OutOfScope => "out of scope",
        }
    }

    pub(crate) fn is_shown_by_tests(self) -> bool {
        matches!(self, Self::Stopped | Self::Detected | Self::RefusedAtStart)
    }
}

/// A kernel test: `sentinel::files::name` is `name` of ironclad-sentinel/tests/kernel/files.rs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct TestPath {
    pub(crate) package: String,
    /// `module::name`, as the program prints it.
    pub(crate) path: String,
}

impl TryFrom<String> for TestPath {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let parts = text.split_once("::").filter(|(_, path)| path.split("::").count() == 2);
        let (package, path) =
            parts.ok_or_else(|| format!("a test is package::module::name, and not '{text}'"))?;
        Ok(Self { package: format!("{PACKAGE_PREFIX}{package}"), path: path.to_owned() })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threat {
    pub(crate) attack: String,
    pub(crate) outcome: AttackOutcome,
    #[serde(default)]
    note: String,
    #[serde(default)]
    pub(crate) tests: Vec<TestPath>,
    /// Some kernels have no such thing to attack: the tests may be skipped there.
    #[serde(default)]
    pub(crate) may_be_skipped: bool,
}

/// Threats of one subject: a table of the page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    name: String,
    /// The tests have to pass on each kernel that runs all.
    #[serde(default)]
    pub(crate) is_proven: bool,
    #[serde(rename = "threat")]
    pub(crate) threats: Vec<Threat>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Threats {
    #[serde(rename = "subject")]
    pub(crate) subjects: Vec<Subject>,
}

impl Threats {
    pub(crate) fn read() -> Result<Self> {
        Self::parse(&read_text(FILE.as_ref())?)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context(FILE)
    }

    /// The table of a subject.
    pub(super) fn table(&self, name: &str) -> Result<String> {
        let subject = self.subjects.iter().find(|subject| subject.name == name);
        let subject = subject.context(format_args!("{FILE} has no subject '{name}'"))?;
        let mut text = "| attack | outcome | shown by |\n|---|---|---|\n".to_owned();
        for Threat { attack, outcome, note, tests, .. } in &subject.threats {
            let outcome = match note.as_str() {
                "" => outcome.text().to_owned(),
                note => format!("{}: {note}", outcome.text()),
            };
            let tests: Vec<_> = tests.iter().map(|test| format!("`{}`", test.path)).collect();
            let row = [attack, &outcome, &tests.join(", ")].map(|text| cell(text));
            writeln!(text, "| {} |", row.join(" | ")).context(name)?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_row_for_each_threat() {
        let threats = Threats::parse(
            "[[subject]]\nname = \"a\"\n[[subject.threat]]\nattack = \"write\"\noutcome = \"stopped\"\n\
             tests = [\"x::m::n\"]\n[[subject.threat]]\nattack = \"b|c\"\noutcome = \"not-tried\"\nnote = \"so\"\n",
        );
        let table = threats.unwrap().table("a").unwrap();
        let rows: Vec<_> = table.lines().skip(2).collect();
        assert_eq!(rows, ["| write | stopped | `m::n` |", "| b\\|c | not tried: so |  |"]);
    }

    #[test]
    fn outcomes_and_paths_that_are_none_are_refused() {
        let threat = |rest: &str| {
            let head = "[[subject]]\nname = \"a\"\n[[subject.threat]]\nattack = \"b\"\n";
            Threats::parse(&format!("{head}{rest}\n"))
        };
        assert!(threat("outcome = \"stopped\"\ntests = [\"x::m::n\"]").is_ok());
        assert!(threat("outcome = \"refused\"").is_err());
        assert!(threat("outcome = \"stopped\"\ntests = [\"m::n\"]").is_err());
        assert!(threat("outcome = \"stopped\"\nsays = \"x\"").is_err());
    }
}
