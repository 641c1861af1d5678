//! A firewall in a dozen lines: `embed_shield INTERFACE PREFIX…` drops what comes from the prefixes
//! until it is interrupted, and then detaches. Needs root.

use std::io::Write;
use std::process::ExitCode;

use ironclad::core::{Action, Cidr, ErrorChain, RuleId};
use ironclad::policy::{AddressSet, Policy};
use ironclad::shield::{Overflow, Shield};

fn main() -> ExitCode {
    run().map_or_else(
        |error| {
            eprintln!("error: {}", ErrorChain::new(error.as_ref()));
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    const USAGE: &str = "usage: embed_shield INTERFACE PREFIX…";
    let interface = args.next().filter(|it| !it.starts_with('-')).ok_or(USAGE)?;
    let bad = args.map(|prefix| prefix.parse()).collect::<Result<Vec<Cidr>, _>>()?;
    if bad.is_empty() {
        return Err(USAGE.into());
    }

    let set = AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(bad);
    let policy = Policy::builder().set(set).compile()?;
    let shield = Shield::builder("embed").interface(interface).start(&policy)?;
    let _ = writeln!(std::io::stderr(), "in force; Ctrl-C ends it");
    let (_pump, events) = shield.events(1024, Overflow::DropNewest)?;
    for event in &events {
        let dropped = shield.counters()?.dropped().packets;
        // A closed pipe ends no protection.
        let event = shield.describe(event);
        let _ = writeln!(std::io::stdout(), "{event}; {dropped} dropped so far");
    }
    Ok(())
}
