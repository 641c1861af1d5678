//! Protects real interfaces and cgroups by a policy file.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ironclad::policy::document::Document;
use ironclad::policy::socket::CompiledSockets;
use ironclad::policy::{CompiledPolicy, PolicyPart, PolicyWarning};
use ironclad::shield::{Overflow, Shield};

use crate::live::{Live, PERIOD, tell};
use crate::table::{Table, verdicts};
use crate::{Args, Part, Result, stop_flag};

/// Time between two tables without a terminal.
const PRINTED: Duration = Duration::from_secs(2);

pub(crate) fn protect(args: &Args, path: &Path) -> Result<bool> {
    let document = Document::read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let policy = document.policy(folder)?;
    for report in policy.reports() {
        if report.normalised + report.skipped > 0 || report.missing.is_some() {
            tell(&report);
        }
    }
    let policy = if args.dry_run { policy.dry_run(true) } else { policy };
    let policy = policy.compile()?;
    let unenforced = unenforced(args, &policy)?;
    let builder = args
        .interface
        .iter()
        .fold(Shield::builder("full_firewall"), |builder, name| builder.interface(name));
    let builder = args.cgroup.iter().fold(builder, |builder, dir| builder.cgroup(dir));
    // Before the start, which may end the operator's own connection.
    for warning in policy.warnings() {
        if args.gateway.is_empty() || *warning != PolicyWarning::NothingAllowed {
            tell(&format_args!("warning: {warning}"));
        }
    }
    for (rule, first) in policy.sockets().into_iter().flat_map(CompiledSockets::shadowed) {
        tell(&format_args!("warning: {rule} never matches: {first} decides everything before it"));
    }
    let gateways = args.gateway.iter().copied();
    let shield = builder.gateways(gateways).unenforced(unenforced).start(&policy)?;
    let status = shield.status()?;
    for path in &status.missing {
        let path = path.display();
        tell(&format_args!(
            "warning: {path} does not exist: rules that name it match no process until it does (paths of cgroups begin at the root of their hierarchy)"
        ));
    }
    for path in &status.mismatched {
        let path = path.display();
        tell(&format_args!(
            "warning: {path} has another content than its SHA-256 pins: processes that execute it are denied"
        ));
    }
    if let Some(why) = &status.inactive {
        tell(&format_args!("warning: socket rules are inactive below the root cgroup: {why}"));
    }
    for cgroup in &status.cgroups {
        let dry_run = if args.dry_run { " (dry run: nothing is denied)" } else { "" };
        tell(&format_args!("socket rules are enforced in {}{dry_run}", cgroup.path.display()));
    }
    for protected in &status.interfaces {
        tell(&format_args!(
            "{} is protected by {} prefixes ({} mode{})",
            protected.interface.name,
            policy.prefixes(),
            protected.mode,
            if args.dry_run { ", dry run: nothing is dropped" } else { "" }
        ));
    }
    let sees_packets = !status.interfaces.is_empty();
    let stop = stop_flag()?;
    let (_pump, events) = shield.events(4096, Overflow::DropNewest)?;
    let (mut live, mut table) = (Live::open(), Table::default());
    let begin = Instant::now();
    let mut drawn = begin;
    while !stop.load(Ordering::Relaxed)
        && args.seconds.is_none_or(|most| begin.elapsed() < Duration::from_secs(most))
    {
        if let Some(event) = events.recv_timeout(PERIOD) {
            say(&mut live, &shield.describe(event).to_string());
        }
        if sees_packets && drawn.elapsed() >= if live.is_some() { PERIOD } else { PRINTED } {
            drawn = Instant::now();
            show(&mut live, &table.text(&shield.counters()?));
        }
    }
    if sees_packets {
        show(&mut live, &verdicts(&shield.counters()?));
    }
    for count in shield.socket_counts()? {
        let rule =
            count.rule.map_or("no rule".to_owned(), |id| format!("rule {} ({})", id.0, count.name));
        tell(&format_args!(
            "{rule}: {} allowed, {} denied, {} over the limit, {} would be denied, {} logged",
            count.allowed, count.denied, count.limited, count.would_deny, count.logged
        ));
    }
    shield.stop()?;
    tell(&format_args!("detached"));
    Ok(true)
}

/// Parts of the policy that are not enforced here, each of which has to be meant.
fn unenforced(args: &Args, policy: &CompiledPolicy) -> Result<Vec<PolicyPart>> {
    let mut unenforced = Vec::new();
    for (part, word, is_enforced, next) in [
        (PolicyPart::Packets, Part::Packets, !args.interface.is_empty(), "name an --interface"),
        (PolicyPart::Sockets, Part::Sockets, !args.cgroup.is_empty(), "name a --cgroup"),
        (PolicyPart::Files, Part::Files, false, "give the policy to a Sentinel"),
    ] {
        if !policy.has_part(part) || is_enforced {
            continue;
        }
        let what = format!("what the policy says of {word} is not enforced here");
        if !args.unenforced.contains(&word) {
            return Err(format!("{what}: {next}, or say --unenforced {word}").into());
        }
        tell(&format_args!("warning: {what}"));
        unenforced.push(part);
    }
    Ok(unenforced)
}

fn say(live: &mut Option<Live>, line: &str) {
    match live {
        Some(live) => live.above(line),
        None => tell(&line),
    }
}

fn show(live: &mut Option<Live>, table: &str) {
    match live {
        Some(live) => live.draw(table),
        None => tell(&table),
    }
}
