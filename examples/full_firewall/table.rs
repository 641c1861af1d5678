//! Counters as a table.

use std::fmt::Write;

use ironclad::shield::{Count, Counters};

/// What passed and was dropped by reason, and what each rule did.
pub(crate) fn verdicts(counters: &Counters) -> String {
    let mut out =
        format!("{:<24}{:>14}{:>14}{:>14}\n", "reason", "passed", "dropped", "would drop");
    let mut row = |name: &str, cells: [Count; 3]| {
        if cells.iter().any(|cell| cell.packets > 0) {
            let [a, b, c] = cells.map(|cell| cell.packets);
            // Writing to a string does not fail.
            let _ = writeln!(out, "{name:<24}{a:>14}{b:>14}{c:>14}");
        }
    };
    for count in &counters.reasons {
        row(count.reason.name(), [count.passed, count.dropped, count.would_drop]);
    }
    row("all", [counters.passed(), counters.dropped(), counters.would_drop()]);
    for rule in &counters.rules {
        let _ = writeln!(
            out,
            "rule {:<6} {:<26}{:>10} packets{:>14} bytes",
            rule.rule, rule.name, rule.matched.packets, rule.matched.bytes
        );
    }
    out
}
