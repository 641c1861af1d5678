//! Rules on connections in two dozen lines: `embed_identity CGROUP PROGRAM PREFIX` lets only PROGRAM
//! connect to PREFIX from a cgroup, explains each refusal, and ends when it is interrupted. Needs
//! root.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ironclad::core::{Cidr, ErrorChain, RuleId};
use ironclad::events::Record;
use ironclad::policy::Policy;
use ironclad::policy::socket::{SocketAction, SocketRule, Subject};
use ironclad::shield::{Overflow, Shield};

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("error: {}", ErrorChain::new(&*error));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("usage: embed_identity CGROUP PROGRAM PREFIX");
    let (cgroup, program): (PathBuf, PathBuf) = (next()?.into(), next()?.into());
    let prefix: Cidr = next()?.parse()?;

    let rule = |id, name, action| SocketRule::new(RuleId(id), name, action).to_cidr(prefix);
    let policy = Policy::builder()
        .socket_rule(
            rule(1, "allow", SocketAction::Allow).subject(Subject::new("program").exe(program)),
        )
        .socket_rule(rule(2, "deny", SocketAction::Deny))
        .compile()?;
    let shield = Shield::builder("embed-identity").cgroup(cgroup).start(&policy)?;
    for what in shield.status()?.missing {
        let what = what.display();
        let _ =
            writeln!(std::io::stderr(), "warning: {what} does not exist: no process matches it");
    }
    let _ = writeln!(std::io::stderr(), "in force; Ctrl-C ends it");
    let (_pump, events) = shield.events(1024, Overflow::DropNewest)?;
    for event in &events {
        if let Record::Socket(event) = event {
            let explained = shield.explain_event(&event)?;
            // A closed pipe ends no protection.
            let _ = writeln!(std::io::stdout(), "{event}\n{explained}");
        }
    }
    Ok(())
}
