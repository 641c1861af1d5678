//! Numbers that tests print per kernel (`RECORD name number`), beside those of the last record: how
//! many instructions the verifier saw, say. They tell of growth; they fail nothing.

use std::collections::BTreeMap;
use std::path::Path;

use super::report::Report;
use crate::command::{read_text, write};
use crate::failure::{Context, Result};

const FILE: &str = "xtask/records.json";

/// Numbers by name and by where they were printed.
type Records = BTreeMap<String, BTreeMap<String, f64>>;

fn of_report(report: &Report) -> Records {
    let mut records = Records::new();
    for row in &report.rows {
        for (name, &value) in &row.records {
            records.entry(name.clone()).or_default().insert(row.suite.clone(), value);
        }
    }
    records
}

/// A line for each number, with what it was when last recorded.
pub(crate) fn text(report: &Report) -> Result<String> {
    let before: Records = match Path::new(FILE).is_file() {
        true => serde_json::from_str(&read_text(FILE.as_ref())?).context(FILE)?,
        false => Records::new(),
    };
    Ok(compare(&before, &of_report(report)))
}

fn compare(before: &Records, now: &Records) -> String {
    let mut text = String::new();
    for (name, places) in now {
        for (place, value) in places {
            let then = before.get(name).and_then(|places| places.get(place));
            let growth = match then {
                Some(then) if then == value => "as recorded".to_owned(),
                Some(then) => {
                    format!("recorded {then}: {:+.1} %", (value - then) / then.max(1.0) * 100.0)
                }
                None => "not recorded yet".to_owned(),
            };
            text += &format!("{place:12} {name:32} {value:>10}  {growth}\n");
        }
    }
    text
}

/// Keeps this run's numbers for later runs to be compared with.
pub(crate) fn save(report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(&of_report(report)).context(FILE)?;
    write(FILE.as_ref(), json + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_shown() {
        let record = |value| {
            Records::from([(
                "insns.x".to_owned(),
                BTreeMap::from([("linux 6.1".to_owned(), value)]),
            )])
        };
        assert!(compare(&record(200.0), &record(210.0)).contains("recorded 200: +5.0 %"));
        assert!(compare(&record(200.0), &record(200.0)).contains("as recorded"));
        assert!(compare(&Records::new(), &record(1.0)).contains("not recorded yet"));
    }
}
