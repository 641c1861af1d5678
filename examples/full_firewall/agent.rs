//! Protects real interfaces and control groups by a policy file.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ironclad::policy::document::Document;
use ironclad::shield::{Overflow, Shield};

use crate::live::{Live, PERIOD};
use crate::table::{Table, verdicts};
use crate::{Args, Result, stop_flag};

/// Between two tables where there is no terminal.
const PRINTED: Duration = Duration::from_secs(2);

pub(crate) fn protect(args: &Args, path: &Path) -> Result<bool> {
    let document = Document::read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let policy = document.policy(folder)?;
    for report in policy.reports() {
        if report.normalised + report.skipped > 0 || report.missing.is_some() {
            println!("{report}");
        }
    }
    let policy = if args.dry_run { policy.dry_run(true) } else { policy };
    let policy = policy.compile()?;
    let gateways = document.gateways.iter().chain(&args.gateway).copied();
    let builder = args
        .interface
        .iter()
        .fold(Shield::builder("full_firewall"), |builder, name| builder.interface(name));
    let builder = args.cgroup.iter().fold(builder, |builder, dir| builder.cgroup(dir));
    let shield = builder.gateways(gateways).start(&policy)?;
    for cgroup in shield.status()?.cgroups {
        println!("whoever is in {} is asked", cgroup.path.display());
    }
    for protected in shield.status()?.interfaces {
        println!(
            "{} is protected by {} prefixes ({} mode{})",
            protected.interface.name,
            policy.prefixes(),
            protected.mode,
            if args.dry_run { ", dry run: nothing is dropped" } else { "" }
        );
    }
    let stop = stop_flag()?;
    let (_pump, events) = shield.events(4096, Overflow::DropNewest)?;
    let (mut live, mut table) = (Live::open(), Table::default());
    let begin = Instant::now();
    let (mut drawn, mut looked) = (begin, begin);
    while !stop.load(Ordering::Relaxed)
        && args.seconds.is_none_or(|most| begin.elapsed() < Duration::from_secs(most))
    {
        if let Some(event) = events.recv_timeout(PERIOD) {
            say(&mut live, &event.to_string());
        }
        if drawn.elapsed() >= if live.is_some() { PERIOD } else { PRINTED } {
            drawn = Instant::now();
            show(&mut live, &table.text(&shield.counters()?));
        }
        if looked.elapsed() >= PRINTED {
            looked = Instant::now();
            for change in shield.refresh_interfaces()? {
                say(&mut live, &serde_json::to_string(&change)?);
            }
        }
    }
    show(&mut live, &verdicts(&shield.counters()?));
    for count in shield.socket_counts()? {
        let rule =
            count.rule.map_or("no rule".to_owned(), |id| format!("rule {} ({})", id.0, count.name));
        println!(
            "{rule}: {} allowed, {} denied, {} over the limit, {} would be denied",
            count.allowed, count.denied, count.limited, count.would_deny
        );
    }
    shield.stop()?;
    println!("detached");
    Ok(true)
}

fn say(live: &mut Option<Live>, line: &str) {
    match live {
        Some(live) => live.above(line),
        None => println!("{line}"),
    }
}

fn show(live: &mut Option<Live>, table: &str) {
    match live {
        Some(live) => live.draw(table),
        None => println!("{table}"),
    }
}
