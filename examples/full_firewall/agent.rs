//! Protects real interfaces by a policy file.

use std::path::Path;
use std::time::{Duration, Instant};

use ironclad::policy::document::Document;
use ironclad::shield::{Overflow, Shield};

use crate::{Args, Result, table};

pub(crate) fn protect(args: &Args, path: &Path) -> Result<bool> {
    let document = Document::read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let policy = document.policy(folder)?;
    let policy = if args.dry_run { policy.dry_run(true) } else { policy };
    let policy = policy.compile()?;
    let gateways = document.gateways.iter().chain(&args.gateway).copied();
    let builder = args
        .interface
        .iter()
        .fold(Shield::builder("full_firewall"), |builder, name| builder.interface(name));
    let shield = builder.gateways(gateways).start(&policy)?;
    for protected in shield.status()?.interfaces {
        println!(
            "{} is protected by {} prefixes ({} mode{})",
            protected.interface.name,
            policy.prefixes(),
            protected.mode,
            if args.dry_run { ", dry run: nothing is dropped" } else { "" }
        );
    }
    let (_pump, events) = shield.events(4096, Overflow::DropNewest)?;
    let begin = Instant::now();
    let mut shown = Instant::now();
    while args.seconds.is_none_or(|most| begin.elapsed() < Duration::from_secs(most)) {
        if let Some(event) = events.recv_timeout(Duration::from_millis(200)) {
            println!("{event}");
        }
        if shown.elapsed() >= Duration::from_secs(2) {
            shown = Instant::now();
            println!("{}", table::verdicts(&shield.counters()?));
            for change in shield.refresh_interfaces()? {
                println!("{}", serde_json::to_string(&change)?);
            }
        }
    }
    println!("{}", table::verdicts(&shield.counters()?));
    Ok(true)
}
