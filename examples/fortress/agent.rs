//! The toy agent: Sentinel first, then Shield, whose objects are then protected from the start.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use ironclad::core::audit::JsonLinesSink;
use ironclad::core::{Action, RuleId};
use ironclad::policy::file::{FileAction, FileOps, FileRule};
use ironclad::policy::{AddressSet, CompiledPolicy, Policy, PolicyPart};
use ironclad::sentinel::{HookState, HookStatus, Overflow, Sentinel};
use ironclad::shield::Shield;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::Result;
use crate::testbed::{BAD, CONFIG, INTERFACE, Paths};

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    // The reader has ended, and this process will.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

fn policy(paths: &Paths) -> Result<CompiledPolicy> {
    let deny = |id, name| FileRule::new(RuleId(id), name, FileAction::Deny);
    let policy = Policy::builder()
        .set(AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs([BAD.parse()?]))
        .file_rule(deny(2, "configuration").tree(paths.config()))
        .file_rule(deny(3, "modes of the site").tree(paths.site()).operations(FileOps::METADATA))
        .file_rule(deny(4, "pins").tree(paths.bpffs()));
    Ok(policy.compile()?)
}

/// Orders of standard input, and the order to stop at SIGTERM or SIGINT. The end of standard input is no such order:
/// an attacker may cause that.
fn orders() -> Result<Receiver<String>> {
    let (sender, orders) = channel();
    let (mut signals, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    let by_signal = sender.clone();
    // The main thread may have ended by the other.
    std::thread::spawn(move || {
        signals.read_exact(&mut [0]).map(|()| drop(by_signal.send("stop".to_owned())))
    });
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(std::io::Result::ok);
        lines.for_each(|line| drop(sender.send(line)));
    });
    Ok(orders)
}

/// Runs until it has the order to stop, which only processes of the tour's executable may give by a signal.
pub(crate) fn run(dir: &Path, stopper: &Path, unprotected: bool) -> Result<bool> {
    // Away from the terminal, whose hang-up and ^C end a process without asking Sentinel.
    rustix::process::setsid()?;
    let orders = orders()?;
    let paths = Paths::new(dir);
    let policy = policy(&paths)?;
    let audit = Arc::new(JsonLinesSink::open(paths.audit())?);
    let sentinel = match unprotected {
        true => None,
        false => {
            let builder = Sentinel::builder("fortress").audit(audit.clone());
            // Shield has the same policy.
            let builder = builder.may_stop(stopper).unenforced([PolicyPart::Packets]);
            Some(builder.start(&policy)?)
        }
    };
    let alarms =
        sentinel.as_ref().map(|it| it.events(1 << 14, Overflow::DropNewest)).transpose()?;
    let _pump = alarms.map(|(pump, alarms)| {
        let report = move || {
            for alarm in alarms.iter().filter_map(|it| it.into_sentinel()) {
                say(&json!({ "alarm": alarm, "text": alarm.to_string() }));
            }
        };
        (pump, std::thread::spawn(report))
    });
    let shield = Shield::builder("fortress")
        .interface(INTERFACE)
        .unenforced([PolicyPart::Files])
        .bpffs(paths.bpffs())
        .persistent(true)
        .audit(audit)
        .start(&policy)?;
    let hooks = sentinel.as_ref().map(Sentinel::status).transpose()?;
    let runs = |hook: &&HookStatus| matches!(hook.state, HookState::InForce | HookState::Attached);
    let hooks = hooks.map(|status| status.hooks.iter().filter(runs).count());
    say(&json!({ "ready": { "hooks": hooks, "ids": ids(&paths)? } }));
    for order in orders {
        match order.as_str() {
            "work" => {
                std::fs::write(paths.config().join(CONFIG), "by the agent\n")?;
                // The same policy again, as a new generation.
                shield.apply(&policy)?;
                say(&json!({ "worked": shield.status()?.generation }));
            }
            "stop" => break,
            other => return Err(format!("unknown order: {other}").into()),
        }
    }
    // Shield stops first, while Sentinel still protects it.
    shield.stop()?;
    sentinel.map_or(Ok(()), Sentinel::stop)?;
    say(&json!({ "stopped": true }));
    Ok(true)
}

/// The kernel's ids of objects to attack. No other process may open the pins.
fn ids(paths: &Paths) -> Result<Value> {
    let map = |name: &str| -> Result<u32> {
        let map = libbpf_rs::MapHandle::from_pinned_path(paths.pin(name))?;
        Ok(libbpf_rs::MapCore::info(&map)?.info.id)
    };
    let mut link = None;
    for pin in std::fs::read_dir(paths.pin(""))? {
        let pin = pin?;
        if pin.file_name().to_string_lossy().starts_with("link_") {
            link = Some(libbpf_rs::Link::open(pin.path())?.info()?.id);
        }
    }
    Ok(json!({ "slots": map("ic_slots")?, "reasons": map("ic_reasons")?, "link": link }))
}
