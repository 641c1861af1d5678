//! An agent that is protected from other processes on this host, root included, and a directory that only the agent
//! may change: `embed_sentinel /etc/my-agent`. Needs root and BPF LSM. Ends with the first line on its
//! standard input. `examples/fortress` attacks such an agent.

use std::io::Write;
use std::process::ExitCode;

use ironclad::core::{ErrorChain, RuleId};
use ironclad::events::Record;
use ironclad::policy::Policy;
use ironclad::policy::file::{FileAction, FileRule};
use ironclad::sentinel::{Overflow, Sentinel};

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// That nobody reads it any more ends no protection.
fn tell(line: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let dir = dir.ok_or("usage: embed_sentinel DIRECTORY")?;
    let rule = FileRule::new(RuleId(1), "my agent's", FileAction::Deny).tree(dir);
    let policy = Policy::builder().file_rule(rule).compile()?;
    let sentinel = Sentinel::builder("embed-sentinel").start(&policy)?;
    for hook in sentinel.status()?.hooks {
        tell(&format_args!("{}: {}", hook.name, hook.state));
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
        let ended = std::io::stdin().read_line(&mut String::new());
        drop(pump);
        ended
    })?;
    Ok(sentinel.stop()?)
}
