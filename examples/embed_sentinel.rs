//! An agent that is protected from other processes on this host, root included, and a directory that only the agent
//! may change: `embed_sentinel /etc/my-agent`. Needs root and BPF LSM. From a shell, start it by `setsid --wait`: an
//! agent with a controlling terminal is refused, as is one with a descriptor of a virtual console or serial line.
//!
//! SIGTERM or SIGINT ends it, and Sentinel with it. Sentinel denies both to other processes, root included, so that
//! the second argument names an executable that may send them: `embed_sentinel /etc/my-agent
//! /usr/lib/systemd/systemd` for a service. Neither a command on standard input nor its
//! end stops the agent: a process that closes the pipe would uninstall Sentinel. `examples/fortress` attacks such an
//! agent.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use ironclad::core::{ErrorChain, RuleId};
use ironclad::events::Record;
use ironclad::policy::Policy;
use ironclad::policy::file::{FileAction, FileRule};
use ironclad::sentinel::{Overflow, Sentinel};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// A closed pipe ends no protection.
fn tell(line: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let dir = args.next().ok_or("usage: embed_sentinel DIRECTORY [EXECUTABLE-THAT-MAY-STOP-IT]")?;
    // Before the start: a signal that comes meanwhile ends it in order, too.
    let (mut signals, writer) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    let rule = FileRule::new(RuleId(1), "my agent's", FileAction::Deny).tree(dir);
    let policy = Policy::builder().file_rule(rule).compile()?;
    let builder = Sentinel::builder("embed-sentinel");
    let builder = args.fold(builder, |builder, executable| builder.may_stop(executable));
    let sentinel = builder.start(&policy)?;
    let status = sentinel.status()?;
    for hook in status.hooks {
        tell(&format_args!("{}: {}", hook.name, hook.state));
    }
    for degraded in status.degraded {
        tell(&format_args!("degraded: {degraded}"));
    }
    let (pump, events) = sentinel.events(1024, Overflow::DropNewest)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for alarm in events.iter().filter_map(Record::into_sentinel) {
                match sentinel.explain_event(&alarm) {
                    Ok(explained) => tell(&explained),
                    Err(error) => tell(&format_args!("{alarm} ({})", ErrorChain::new(&error))),
                }
            }
        });
        let ended = signals.read_exact(&mut [0]);
        drop(pump);
        ended
    })?;
    Ok(sentinel.stop()?)
}
