//! A policy file, as text. Its texts are chosen by other processes: paths are quoted.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::Path;

use ironclad_core::{Cidr, Family, Protocol, SocketProtocol};

use super::merge::{Merged, Places, merge};
use super::{Learner, Name, Subject};
use crate::socket::Direction;

pub(super) fn document(learner: &Learner) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(learner, &mut text);
    text
}

fn write_all(learner: &Learner, out: &mut String) -> std::fmt::Result {
    let Learner { total, distinct, lost, denied, packets_unseen, .. } = learner;
    writeln!(out, "# Learned from {total} requests, {distinct} of them distinct.")?;
    writeln!(out, "# It allows what was seen. Whether that was right, it does not know: read it.")?;
    if *lost > 0 {
        writeln!(out, "# Up to {lost} events were lost: it is not complete.")?;
    }
    if *denied > 0 {
        writeln!(
            out,
            "# {denied} requests were denied, or would have been: it does not allow them."
        )?;
    }
    writeln!(out, "default: allow")?;
    let directions: BTreeSet<Direction> = learner.seen.keys().map(|by| by.direction).collect();
    if directions.is_empty() {
        return Ok(());
    }
    let defaults = directions.iter().map(|&direction| format!("{}: deny", word(direction)));
    writeln!(out, "socket-defaults: {{ {} }}", listed(defaults))?;
    if *packets_unseen && directions.contains(&Direction::Create) {
        writeln!(out, "# Packet sockets were not seen: which programs need them is not known.")?;
        writeln!(out, "danger-packet-sockets-unseen: true")?;
    }
    let mut rules = String::new();
    let mut comments = String::new();
    let mut id = 0;
    // By path: inode numbers differ on the next host.
    let mut subjects: Vec<_> = learner.seen.iter().collect();
    subjects.sort_by_key(|(by, _)| (by.exe.and_then(|exe| path(learner, exe)), **by));
    for (by, users) in subjects {
        let merged = merge(users, &learner.options);
        match nameable(learner, by) {
            Ok(exe) => {
                for rule in &merged {
                    id += 10;
                    write_rule(&mut rules, id, exe, by, rule)?;
                }
            }
            Err(why) => {
                for rule in &merged {
                    writeln!(comments, "# Not allowed, because {why}: {}", said(by, rule))?;
                }
            }
        }
    }
    out.push_str(&comments);
    if !rules.is_empty() {
        write!(out, "rules:\n{rules}")?;
    }
    Ok(())
}

fn path(learner: &Learner, exe: ironclad_core::abi::FileId) -> Option<&Path> {
    match learner.names.get(&exe)? {
        Name::Path(path) => Some(path),
        Name::None { .. } => None,
    }
}

/// The path that a rule can name, or why none can.
fn nameable<'a>(learner: &'a Learner, by: &Subject) -> Result<&'a str, String> {
    let has_hooks = [Protocol::TCP, Protocol::UDP].contains(&Protocol(by.protocol));
    if has_hooks == (by.direction == Direction::Create) {
        let (protocol, direction) = (SocketProtocol::from_abi(by.protocol), word(by.direction));
        return Err(format!("no rule of direction {direction} can name {protocol}"));
    }
    let Some(exe) = by.exe else {
        return Err("nothing is known of the process".to_owned());
    };
    match learner.names.get(&exe) {
        Some(Name::Path(path)) => path.to_str().ok_or_else(|| "its path is no text".to_owned()),
        Some(Name::None { label: Some(label), why }) => {
            Err(format!("of {}: {}", quoted(&label.to_string_lossy()), plain(why)))
        }
        Some(Name::None { label: None, why }) => Err(plain(why)),
        None => Err(format!("the path of inode {} is not known", exe.ino)),
    }
}

fn write_rule(
    out: &mut String,
    id: u32,
    exe: &str,
    by: &Subject,
    rule: &Merged,
) -> std::fmt::Result {
    let Subject { direction, protocol, .. } = by;
    let file: String = exe.rsplit('/').next().unwrap_or(exe).chars().take(80).collect();
    let file: String = file.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let name = format!("{file} {} {}", word(*direction), number_or_name(*protocol));
    let to = match &rule.places {
        Places::None => None,
        Places::These(cidrs) => Some(listed(cidrs.iter().map(address))),
        Places::Anywhere { most } => {
            writeln!(out, "  # With more than {most} addresses: anywhere.")?;
            None
        }
    };
    if rule.has_ephemeral {
        writeln!(out, "  # With a port of the range that is chosen for one: any of them.")?;
    }
    writeln!(out, "  - id: {id}")?;
    writeln!(out, "    name: {}", quoted(&name))?;
    let uid = match &rule.uids {
        Some(uids) => format!(", uid: [{}]", listed(uids.iter().map(u32::to_string))),
        None => String::new(),
    };
    writeln!(out, "    subject: {{ exe: {}{uid} }}", value(exe))?;
    if *direction != Direction::Out {
        writeln!(out, "    direction: {}", word(*direction))?;
    }
    writeln!(out, "    protocol: {}", number_or_name(*protocol))?;
    if let Some(to) = to {
        writeln!(out, "    to: [{to}]")?;
    }
    if !rule.ports.is_empty() {
        writeln!(out, "    ports: [{}]", listed(rule.ports.iter().map(ports)))?;
    }
    writeln!(out, "    action: allow")
}

/// What a rule would say, in a line.
fn said(by: &Subject, rule: &Merged) -> String {
    let mut said = format!("{} {}", word(by.direction), number_or_name(by.protocol));
    match &rule.places {
        Places::None => {}
        Places::These(cidrs) => said += &format!(" to {}", listed(cidrs.iter().map(address))),
        Places::Anywhere { .. } => said += " anywhere",
    }
    if !rule.ports.is_empty() {
        said += &format!(" ports {}", listed(rule.ports.iter().map(ports)));
    }
    if let Some(uids) = &rule.uids {
        said += &format!(" by uid {}", listed(uids.iter().map(u32::to_string)));
    }
    said
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "out",
        Direction::In => "in",
        Direction::Create => "create",
    }
}

fn number_or_name(protocol: u8) -> String {
    let name = SocketProtocol::from_abi(protocol).to_string();
    if SocketProtocol::by_name(&name).is_some() { name } else { protocol.to_string() }
}

fn address(cidr: &Cidr) -> String {
    let whole = match cidr.family() {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let text = if cidr.length() == whole { cidr.addr().to_string() } else { cidr.to_string() };
    if cidr.family() == Family::V6 { quoted(&text) } else { text }
}

fn ports(ports: &RangeInclusive<u16>) -> String {
    let (first, last) = (ports.start(), ports.end());
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// A path, without quotes where it cannot be misread.
fn value(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.bytes().all(is_plain) { path.to_owned() } else { quoted(path) }
}

/// A text in YAML's double quotes, on one line whatever it holds.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // What YAML takes for a line break or a mark, too.
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out += &format!("\\u{:04x}", c as u32);
            }
            _ if c.is_control() => out += &format!("\\u{:04x}", c as u32),
            _ => out.push(c),
        }
    }
    out + "\""
}

/// A text that ends no line.
fn plain(text: &str) -> String {
    let quoted = quoted(text);
    quoted[1..quoted.len() - 1].to_owned()
}
