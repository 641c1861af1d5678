//! Outcomes of attacks without Sentinel and with it, printed for `cargo xtask attacks`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ironclad_core::abi::SentinelVerdict;
use ironclad_lab::test_process::{TestProcess, outcome};
use ironclad_sentinel::{EventReceiver, SentinelRecord};
use rustix::time::{ClockId, clock_gettime};

use super::PATIENCE;

const SUCCEEDED: &str = "succeeded";
/// The outcome of a call that reports no error and has no effect.
pub(crate) const NO_EFFECT: &str = "no effect";

/// The attacks of one test. Each runs twice under one unique name: without Sentinel, where it has to succeed, and
/// with it, where it has to fail and to be reported.
#[derive(Default)]
pub(crate) struct Attacks {
    without: BTreeMap<String, String>,
}

impl Attacks {
    /// Runs an attack where Sentinel is not armed, or has no rule yet.
    pub(crate) fn without(&mut self, name: &str, attacker: &mut TestProcess, order: &str) {
        let outcome = outcome(order, attacker.ask(order).unwrap());
        self.record_without(name, &outcome);
    }

    /// Records the outcome of an attack that is observed by other means than the answer.
    pub(crate) fn record_without(&mut self, name: &str, outcome: &str) {
        self.without.insert(name.to_owned(), outcome.to_owned());
        if outcome != SUCCEEDED {
            print(name, outcome, "not tried", false);
            panic!("{name}: the attack fails without Sentinel, too: {outcome}");
        }
    }

    /// Runs an attack where Sentinel is armed. Returns the first alarm of the attacker, or of a child, from now on.
    pub(crate) fn with(
        &self,
        name: &str,
        attacker: &mut TestProcess,
        order: &str,
        events: &EventReceiver,
    ) -> SentinelRecord {
        let pid = attacker.pid();
        self.with_outcome(name, pid, events, || outcome(order, attacker.ask(order).unwrap()))
    }

    /// The same for an attack that is observed by other means than the answer.
    pub(crate) fn with_outcome(
        &self,
        name: &str,
        attacker: u32,
        events: &EventReceiver,
        attack: impl FnOnce() -> String,
    ) -> SentinelRecord {
        let since = now();
        let outcome = attack();
        // An attack that was not refused raises no alarm.
        let patience = if is_refusal(&outcome) { PATIENCE } else { Duration::ZERO };
        let alarm = alarm(attacker, since, events, patience);
        self.record_with(name, &outcome, alarm.is_some());
        alarm.unwrap_or_else(|| panic!("{name}: {outcome}, without an alarm"))
    }

    fn record_with(&self, name: &str, outcome: &str, is_reported: bool) {
        let without = self.without.get(name);
        let without = without.unwrap_or_else(|| panic!("{name}: never run without Sentinel"));
        print(name, without, outcome, is_reported);
        assert!(is_refusal(outcome), "{name}: {outcome}");
    }
}

/// `CLOCK_BOOTTIME`, nanoseconds, as alarms have it.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Some callers of a hook return another error number: open(2) of FUSE with passthrough EIO. The status of a tool shows only that it failed.
fn is_refusal(outcome: &str) -> bool {
    matches!(outcome, "EPERM" | "EACCES" | "EIO" | NO_EFFECT) || outcome.starts_with("exit ")
}

/// The first alarm of a process since a moment.
fn alarm(
    attacker: u32,
    since: u64,
    events: &EventReceiver,
    patience: Duration,
) -> Option<SentinelRecord> {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left)?.into_sentinel().unwrap();
        let is_own = event.pid == attacker || event.ppid == attacker;
        if event.verdict == SentinelVerdict::Denied && event.time_ns >= since && is_own {
            return Some(event);
        }
    }
}

/// `xtask/src/test/libtest.rs` reads it.
fn print(name: &str, without: &str, with: &str, is_reported: bool) {
    assert!(!name.contains('|'), "{name}: a bar separates columns");
    let alarm = if is_reported { "alarm" } else { "no alarm" };
    println!("ATTACK {name} | {without} | {with} | {alarm}");
}
