//! Counters as a table.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use ironclad::core::{Action, RuleId};
use ironclad::shield::{Count, Counters};

/// The time over which rates are computed.
const WINDOW: Duration = Duration::from_secs(1);

/// What passed and was dropped by reason, and what each rule did.
pub(crate) fn verdicts(counters: &Counters) -> String {
    Table::default().text(counters)
}

/// The same again and again, with what each rule does in a second.
#[derive(Default)]
pub(crate) struct Table {
    /// When, and the packets of each rule.
    before: Option<(Instant, BTreeMap<RuleId, u64>)>,
    rates: BTreeMap<RuleId, u64>,
}

impl Table {
    pub(crate) fn text(&mut self, counters: &Counters) -> String {
        self.measure(counters);
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
            let Count { packets, bytes } = rule.matched;
            let (id, name) = (rule.rule, &rule.name);
            let actions: Vec<String> = rule.actions.iter().map(Action::to_string).collect();
            let actions = actions.join("+");
            let _ = write!(
                out,
                "rule {id:<6} {name:<16} {actions:<10}{packets:>10} packets{bytes:>13} bytes"
            );
            let _ = match self.rates.get(&id) {
                Some(rate) => writeln!(out, "{rate:>9}/s"),
                None => writeln!(out),
            };
        }
        out
    }

    fn measure(&mut self, counters: &Counters) {
        let now = Instant::now();
        if self.before.as_ref().is_some_and(|(at, _)| now - *at < WINDOW) {
            return;
        }
        let rules = counters.rules.iter();
        let packets: BTreeMap<RuleId, u64> =
            rules.map(|rule| (rule.rule, rule.matched.packets)).collect();
        if let Some((at, before)) = self.before.replace((now, packets.clone())) {
            let seconds = (now - at).as_secs_f64();
            let rate = |(rule, packets): (RuleId, u64)| {
                let more = packets.saturating_sub(before.get(&rule).copied().unwrap_or(0));
                (rule, (more as f64 / seconds).round() as u64)
            };
            self.rates = packets.into_iter().map(rate).collect();
        }
    }
}
