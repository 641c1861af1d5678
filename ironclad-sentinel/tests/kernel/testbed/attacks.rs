//! What came of attacks without Sentinel and with it, printed for `cargo xtask attacks`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ironclad_core::abi::SentinelVerdict;
use ironclad_lab::test_process::{TestProcess, outcome};
use ironclad_sentinel::{EventReceiver, SentinelRecord};
use rustix::time::{ClockId, clock_gettime};

use super::PATIENCE;

const SUCCEEDED: &str = "succeeded";
/// Of calls that tell the caller nothing: what was to happen did not.
pub(crate) const NO_EFFECT: &str = "no effect";

/// The attacks of one test. Each is tried twice under one name, which no other attack has: without
/// Sentinel, where it has to succeed, and with it, where it has to fail and to be reported.
#[derive(Default)]
pub(crate) struct Attacks {
    without: BTreeMap<String, String>,
}

impl Attacks {
    /// Tries one where Sentinel is not, or has no rule yet.
    pub(crate) fn without(&mut self, name: &str, attacker: &mut TestProcess, order: &str) {
        let outcome = outcome(order, attacker.ask(order).unwrap());
        self.went_without(name, &outcome);
    }

    /// The same for one that is seen by other means than an answer.
    pub(crate) fn went_without(&mut self, name: &str, outcome: &str) {
        self.without.insert(name.to_owned(), outcome.to_owned());
        if outcome != SUCCEEDED {
            print(name, outcome, "not tried", false);
            panic!("{name}: it proves nothing, without Sentinel it ends in {outcome}");
        }
    }

    /// Tries one where Sentinel is. The alarm is the first that the attacker, or a process that it
    /// started, raises from now on.
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

    /// The same for one that is seen by other means than an answer.
    pub(crate) fn with_outcome(
        &self,
        name: &str,
        attacker: u32,
        events: &EventReceiver,
        attack: impl FnOnce() -> String,
    ) -> SentinelRecord {
        let since = now();
        let outcome = attack();
        // Where nothing was refused, there is nothing to wait for.
        let patience = if is_refusal(&outcome) { PATIENCE } else { Duration::ZERO };
        let alarm = alarm(attacker, since, events, patience);
        self.went_with(name, &outcome, alarm.is_some());
        alarm.unwrap_or_else(|| panic!("{name}: {outcome}, without an alarm"))
    }

    fn went_with(&self, name: &str, outcome: &str, is_told: bool) {
        let without = self.without.get(name);
        let without = without.unwrap_or_else(|| panic!("{name}: never tried without"));
        print(name, without, outcome, is_told);
        assert!(is_refusal(outcome), "{name}: {outcome}");
    }
}

/// `CLOCK_BOOTTIME`, nanoseconds, as alarms have it.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Some callers of a hook have a number of their own; a tool's status says that it failed, and the alarm why.
fn is_refusal(outcome: &str) -> bool {
    matches!(outcome, "EPERM" | "EACCES" | NO_EFFECT) || outcome.starts_with("exit ")
}

/// The first of somebody's that was raised since.
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
        let is_theirs = event.pid == attacker || event.ppid == attacker;
        if event.verdict == SentinelVerdict::Denied && event.time_ns >= since && is_theirs {
            return Some(event);
        }
    }
}

/// `xtask/src/test/libtest.rs` reads it.
fn print(name: &str, without: &str, with: &str, is_told: bool) {
    assert!(!name.contains('|'), "{name}: a bar stands between words");
    let alarm = if is_told { "alarm" } else { "no alarm" };
    println!("ATTACK {name} | {without} | {with} | {alarm}");
}
