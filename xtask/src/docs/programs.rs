//! What kernels make of Shield's programs, from the numbers that tests keep in xtask/records.json.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::command::read_text;
use crate::failure::{Context, Result};
use crate::kernels::MATRIX;

const FILE: &str = "xtask/records.json";
/// By what their records begin with.
const PROGRAMS: [(&str, &str); 5] = [
    ("dispatcher", "dispatcher"),
    ("policy_bare", "policy, bare"),
    ("policy_flat", "policy, flat"),
    ("policy_flat_all", "policy, flat, all"),
    ("policy_lpm_all", "policy, `LPM_TRIE`, all"),
];

type Records = BTreeMap<String, BTreeMap<String, f64>>;

pub(super) fn table() -> Result<String> {
    let records: Records = serde_json::from_str(&read_text(FILE.as_ref())?).context(FILE)?;
    let labels: Vec<_> = MATRIX.iter().map(|kernel| kernel.label).collect();
    let ruler = "---|".repeat(labels.len() + 1);
    let mut text = format!("| program | {} |\n|{ruler}\n", labels.join(" | "));
    for (prefix, name) in PROGRAMS {
        let record = |what: &str, label: &str| {
            let of = records.get(&format!("{prefix}_{what}"))?;
            of.get(&format!("linux {label}")).copied()
        };
        let cell = |label: &&str| match (record("instructions", label), record("verified", label)) {
            (Some(instructions), Some(verified)) => {
                format!("{}, walked {}", grouped(instructions), grouped(verified))
            }
            (Some(instructions), None) => grouped(instructions),
            _ => "–".to_owned(),
        };
        let cells: Vec<_> = labels.iter().map(cell).collect();
        writeln!(text, "| {name} | {} |", cells.join(" | ")).context("a table")?;
    }
    Ok(text)
}

/// With commas between thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands() {
        assert_eq!([47.0, 1478.0, 525_537.0].map(grouped), ["47", "1,478", "525,537"]);
    }
}
