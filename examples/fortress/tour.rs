//! The tour: everything once without Sentinel and once with it, then what has to go on.

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
use crate::ground::Ground;

/// Only machines that are made for it have one there.
const MODULE: &str = "/lib/modules/dummy.ko";

/// What became of an attempt.
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
    /// What is to be thought of it.
    fn verdict(&self) -> &'static str {
        match (&self.without, &self.with, &self.alarm) {
            (_, Outcome::Done, _) => "GOT THROUGH",
            (Outcome::Failed(_), ..) => "not possible here",
            (.., None) => "STOPPED IN SILENCE",
            _ => "stopped",
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

/// Set by the first SIGINT or SIGTERM, which end the tour in order; the second ends it at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

fn attempt(ground: &mut Ground, attack: &Attack) -> Result<Outcome> {
    let order = (attack.order)(ground);
    let answer = ground.ask(attack.by_web_server, &order)?;
    Ok(Outcome::of(&order, answer))
}

fn take_module_out() {
    if Path::new(MODULE).exists() {
        // It may not be there.
        let _ = Command::new("rmmod").arg("dummy").stderr(Stdio::null()).status();
    }
}

/// Attacks an agent that has Shield alone.
fn without(within: &Path, go_on: &impl Fn() -> Result<()>) -> Result<Vec<Outcome>> {
    let mut ground = Ground::new(within, true)?;
    if ground.bad_arrives()? {
        return Err("Shield does not drop what it is told to".into());
    }
    let mut outcomes = Vec::new();
    take_module_out();
    for attack in &ALL {
        go_on()?;
        outcomes.push(attempt(&mut ground, attack)?);
        ground.mend()?;
    }
    take_module_out();
    Ok(outcomes)
}

pub(crate) fn run(within: &Path, is_json: bool) -> Result<bool> {
    let stop = stop_flag()?;
    let go_on = || match stop.load(Ordering::Relaxed) {
        true => Err("interrupted".into()),
        false => Ok(()),
    };
    let say = |text: &str| {
        if !is_json {
            println!("{text}");
        }
    };
    say(&format!("{} attacks without Sentinel, each on an agent that is whole", ALL.len()));
    let outcomes = without(within, &go_on)?;
    let done = outcomes.iter().filter(|outcome| **outcome == Outcome::Done).count();
    say(&format!("{done} of them succeed; now with Sentinel"));

    let mut ground = Ground::new(within, false)?;
    say(&format!(
        "an agent of process {} in {}, {} hooks in force or attached\n",
        ground.pid(),
        ground.dir().display(),
        ground.ready("/hooks")
    ));
    let mut rows = Vec::new();
    for (attack, without) in ALL.iter().zip(outcomes) {
        go_on()?;
        ground.hush();
        let with = attempt(&mut ground, attack)?;
        let is_told = without == Outcome::Done && with != Outcome::Done;
        let alarm = if is_told { ground.alarm(attack.by_web_server) } else { None };
        let row = Row { attack, without, with, alarm };
        if !is_json {
            row.show();
        }
        rows.push(row);
    }
    let checks = afterwards(&mut ground)?;
    drop(ground);

    let bad = rows.iter().filter(|row| row.is_bad()).count();
    let stopped = rows.iter().filter(|row| row.verdict() == "stopped").count();
    let failed = checks.iter().filter(|(_, is_so)| !is_so).count();
    let is_good = bad == 0 && failed == 0 && stopped > 0;
    say("");
    for (what, is_so) in &checks {
        say(&format!("{} {what}", if *is_so { "yes" } else { "NO " }));
    }
    let elsewhere = rows.len() - bad - stopped;
    say(&format!(
        "\n{stopped} attacks stopped and told of, {bad} not, {elsewhere} not possible here; {failed} of {} checks failed",
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

/// What goes on while all is guarded, and what is left of it in the end.
fn afterwards(ground: &mut Ground) -> Result<Vec<(&'static str, bool)>> {
    let mut checks = vec![
        ("the agent runs", ground.is_alive()),
        ("the blocked peer is blocked still", !ground.bad_arrives()?),
    ];
    let page = ground.paths.site().join(crate::ground::PAGE);
    let append = format!("append {}", page.display());
    checks.push(("the web server may write its page", ground.ask(true, &append)? == 0));
    checks.push(("the agent changes its configuration and policy", ground.work()?));
    checks.push(("the blocked peer is blocked by the new one, too", !ground.bad_arrives()?));
    ground.stop()?;
    let chmod = format!("chmod {}", page.display());
    checks
        .push(("when the agent has stopped, modes may be changed", ground.ask(true, &chmod)? == 0));
    checks.push(("when the agent has stopped, everybody gets through", ground.bad_arrives()?));
    checks.push((
        "nothing is left pinned",
        !ground.paths.pins().join(format!("v{}", ironclad::core::abi::VERSION)).exists(),
    ));
    let verified = verify_file(ground.paths.audit(), None);
    checks.push(("the audit file's chain holds", verified.is_ok()));
    Ok(checks)
}
