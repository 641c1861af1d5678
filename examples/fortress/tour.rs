//! The tour: each attack without Sentinel and with it, then checks of normal operation.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ironclad::core::audit::verify_file;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::Result;
use crate::attacks::{ALL, Attack};
use crate::testbed::Testbed;

/// A module that only prepared virtual machines have.
const MODULE: &str = "/lib/modules/dummy.ko";

/// The outcome of an attack.
#[derive(Clone, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed(String),
}

impl Outcome {
    fn of(order: &str, answer: u64) -> Self {
        match (answer, order.starts_with("tool ")) {
            (0, _) => Self::Done,
            (status, true) => Self::Failed(format!("the tool ended with {status}")),
            (error, false) => Self::Failed(io::Error::from_raw_os_error(error as i32).to_string()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Done => "done",
            Self::Failed(why) => why,
        }
    }
}

struct Row {
    attack: &'static Attack,
    without: Outcome,
    with: Outcome,
    alarm: Option<Value>,
}

impl Row {
    /// The verdict.
    fn verdict(&self) -> &'static str {
        match (&self.without, &self.with, &self.alarm) {
            (_, Outcome::Done, _) => "NOT DENIED",
            (Outcome::Failed(_), ..) => "not possible here",
            (.., None) => "DENIED, NOT REPORTED",
            _ => "denied and reported",
        }
    }

    fn is_bad(&self) -> bool {
        self.verdict().starts_with(char::is_uppercase)
    }

    fn show(&self) {
        println!("{}: {}: {}", self.attack.on, self.attack.what, self.verdict());
        println!("    without  {}", self.without.text());
        println!("    with     {}", self.with.text());
        if let Some(alarm) = &self.alarm {
            println!("    record   {}", alarm["text"].as_str().unwrap_or_default());
        }
    }

    fn json(&self) -> Value {
        json!({
            "on": self.attack.on,
            "attack": self.attack.what,
            "without": self.without.text(),
            "with": self.with.text(),
            "verdict": self.verdict(),
            "record": self.alarm.as_ref().map(|alarm| &alarm["alarm"]),
        })
    }
}

/// Set by the first SIGINT or SIGTERM, which ends the tour in order. The second ends it at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn attempt(testbed: &mut Testbed, attack: &Attack) -> Result<Outcome> {
    let order = (attack.order)(testbed);
    let answer = testbed.ask(attack.by_web_server, &order)?;
    Ok(Outcome::of(&order, answer))
}

fn remove_module() {
    if Path::new(MODULE).exists() {
        // It may not be loaded.
        let _ = Command::new("rmmod").arg("dummy").stderr(Stdio::null()).status();
    }
}

/// Attacks an agent that has only Shield.
fn without(within: &Path, proceed: &impl Fn() -> Result<()>) -> Result<Vec<Outcome>> {
    let mut testbed = Testbed::new(within, true)?;
    if testbed.bad_arrives()? {
        return Err("Shield does not drop packets of the blocked peer".into());
    }
    let mut outcomes = Vec::new();
    remove_module();
    for attack in &ALL {
        proceed()?;
        outcomes.push(attempt(&mut testbed, attack)?);
        testbed.repair()?;
    }
    remove_module();
    Ok(outcomes)
}

pub(crate) fn run(within: &Path, is_json: bool) -> Result<bool> {
    let stop = stop_flag()?;
    let proceed = || match stop.load(Ordering::Relaxed) {
        true => Err("interrupted".into()),
        false => Ok(()),
    };
    let say = |text: &str| {
        if !is_json {
            println!("{text}");
        }
    };
    say(&format!("{} attacks without Sentinel, each on a repaired agent", ALL.len()));
    let outcomes = without(within, &proceed)?;
    let done = outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count();
    say(&format!("{done} of them succeed; now with Sentinel"));

    let mut testbed = Testbed::new(within, false)?;
    say(&format!(
        "agent: process {} in {}, {} hooks in force or attached\n",
        testbed.pid(),
        testbed.dir().display(),
        testbed.ready("/hooks")
    ));
    let mut rows = Vec::new();
    for (attack, without) in ALL.iter().zip(outcomes) {
        proceed()?;
        testbed.discard_alarms();
        let with = attempt(&mut testbed, attack)?;
        let is_expected = without == Outcome::Done && with != Outcome::Done;
        let alarm = if is_expected { testbed.alarm(attack.by_web_server) } else { None };
        let row = Row { attack, without, with, alarm };
        if !is_json {
            row.show();
        }
        rows.push(row);
    }
    let checks = afterwards(&mut testbed)?;
    drop(testbed);

    let bad = rows.iter().filter(|row| row.is_bad()).count();
    let stopped = rows.iter().filter(|row| row.verdict() == "denied and reported").count();
    let failed = checks.iter().filter(|(_, is_so)| !is_so).count();
    let is_good = bad == 0 && failed == 0 && stopped > 0;
    say("");
    for (what, is_so) in &checks {
        say(&format!("{} {what}", if *is_so { "yes" } else { "NO " }));
    }
    let elsewhere = rows.len() - bad - stopped;
    say(&format!(
        "\n{stopped} attacks denied and reported, {bad} not, {elsewhere} not possible here; {failed} of {} checks failed",
        checks.len()
    ));
    if is_json {
        let checks: Vec<_> =
            checks.iter().map(|(what, is_so)| json!({ "what": what, "is_so": is_so })).collect();
        let attacks: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{}", json!({ "is_good": is_good, "attacks": attacks, "checks": checks }));
    }
    Ok(is_good)
}

/// Checks of normal operation with Sentinel, and after the agent has stopped.
fn afterwards(testbed: &mut Testbed) -> Result<Vec<(&'static str, bool)>> {
    let mut checks = vec![
        ("the agent runs", testbed.is_alive()),
        ("the blocked peer is still blocked", !testbed.bad_arrives()?),
    ];
    let page = testbed.paths.site().join(crate::testbed::PAGE);
    let append = format!("append {}", page.display());
    checks.push(("the web server may write its page", testbed.ask(true, &append)? == 0));
    checks.push(("the agent changes its configuration and policy", testbed.work()?));
    checks.push(("the new policy blocks the peer, too", !testbed.bad_arrives()?));
    testbed.stop()?;
    let chmod = format!("chmod {}", page.display());
    checks.push((
        "after the agent has stopped, modes may be changed",
        testbed.ask(true, &chmod)? == 0,
    ));
    checks.push(("after the agent has stopped, no peer is blocked", testbed.bad_arrives()?));
    checks.push((
        "no pin is left",
        !testbed.paths.pins().join(format!("v{}", ironclad_core::abi::VERSION)).exists(),
    ));
    let verified = verify_file(testbed.paths.audit(), None);
    checks.push(("the chain of the audit file verifies", verified.is_ok()));
    Ok(checks)
}
