//! What a socket rule may say.

use ironclad_core::{Protocol, SocketProtocol};

use super::rule::{Direction, Group, LimitScope, SocketAction, SocketRule};
use crate::error::{Failure, PolicyError, check_rule};

pub(super) fn unfit(rule: &SocketRule, what: impl Into<String>) -> PolicyError {
    Failure::SocketRule { rule: rule.rule, name: rule.name.clone(), what: what.into() }.into()
}

/// Refuses a rule that could never match, or that contradicts itself.
pub(super) fn fits(rule: &SocketRule) -> Result<(), PolicyError> {
    check_rule(rule.rule, &rule.name)?;
    let subject = &rule.subject;
    for path in
        subject.exes.iter().map(|exe| &exe.path).chain(&subject.parents).chain(&subject.ancestors)
    {
        if !path.is_absolute() {
            let path = path.display();
            return Err(unfit(rule, format!("`{path}` is relative: write the whole path")));
        }
    }
    subject.groups.iter().try_for_each(|group| group_fits(rule, group))?;
    let is_path = |group: &Group| matches!(group, Group::Path(_));
    if subject.groups.iter().any(is_path) && !subject.groups.iter().all(is_path) {
        let what = "a container is a cgroup: name it by `container` or by `cgroup`, not by both";
        return Err(unfit(rule, what));
    }
    for comm in &subject.comms {
        if comm.is_empty() || comm.len() > 15 || comm.contains('\0') {
            return Err(unfit(rule, format!("`{comm}` is no name of a thread: 1 to 15 bytes")));
        }
    }
    let is_create = rule.direction == Direction::Create;
    if is_create && !(rule.to.is_empty() && rule.cidrs.is_empty() && rule.ports.is_empty()) {
        return Err(unfit(rule, "socket(2) has neither address nor port"));
    }
    for ports in &rule.ports {
        if ports.is_empty() {
            let (first, last) = (ports.start(), ports.end());
            return Err(unfit(rule, format!("the ports {first}-{last} are none")));
        }
    }
    for &protocol in &rule.protocols {
        let has_hooks =
            [Protocol::TCP, Protocol::UDP].map(SocketProtocol::from).contains(&protocol);
        let (has, direction) = match is_create {
            true => (!has_hooks, "is decided where it names an address: direction `out` or `in`"),
            false => (has_hooks, "has no hook but socket(2): direction `create`"),
        };
        if !has {
            return Err(unfit(rule, format!("{protocol} {direction}")));
        }
    }
    if let Some(limit) = &rule.limit {
        if rule.action != SocketAction::Allow {
            return Err(unfit(rule, "a limit is for rules that allow"));
        }
        let fits = |number: u32| (1..=1_000_000).contains(&number);
        if !fits(limit.per_second) || !fits(limit.burst) {
            return Err(unfit(rule, "rate and burst of a limit are 1 to 1,000,000"));
        }
        if limit.scope != LimitScope::Rule && limit.name.is_empty() {
            return Err(unfit(rule, "a limit that rules share needs a name"));
        }
    }
    Ok(())
}

fn group_fits(rule: &SocketRule, group: &Group) -> Result<(), PolicyError> {
    let refuse = |name: &str, what: &str| Err(unfit(rule, format!("`{name}` is no {what}")));
    match group {
        Group::Path(path) => {
            if !path.starts_with('/') || path.split('/').any(|part| matches!(part, "." | "..")) {
                let what =
                    "cgroup: write its path from the root of the hierarchy, like `/system.slice`";
                return refuse(path, what);
            }
        }
        Group::Container(id) => {
            let is_digit = |digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
            if !(12..=64).contains(&id.len()) || !id.bytes().all(is_digit) {
                let what =
                    "container: write its id, or 12 or more of its first digits, 0-9 and a-f";
                return refuse(id, what);
            }
        }
    }
    Ok(())
}
