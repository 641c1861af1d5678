//! From what was seen to rules: the same by fewer words, and no more than options permit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ironclad_core::Cidr;

use super::{LearnOptions, Seen};

/// What a rule says of where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Places {
    /// socket(2) has none.
    None,
    These(Vec<Cidr>),
    /// More than the option says were seen at one of the ports.
    Anywhere {
        most: usize,
    },
}

/// A rule's ports, addresses and users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Merged {
    /// None: any.
    pub(super) uids: Option<Vec<u32>>,
    pub(super) ports: Vec<RangeInclusive<u16>>,
    pub(super) places: Places,
    /// One of the ports stands for the whole range.
    pub(super) has_ephemeral: bool,
}

/// A port, or all of a range.
type Ports = (u16, u16);
/// What a user did, port by port.
type ByPort = BTreeMap<Ports, Places>;

/// Rules for what the users of one executable did in one direction with one protocol.
pub(super) fn merge(users: &BTreeMap<u32, Seen>, options: &LearnOptions) -> Vec<Merged> {
    let mut by_user: BTreeMap<Option<u32>, BTreeMap<Ports, BTreeSet<IpAddr>>> = BTreeMap::new();
    let mut by_port: BTreeMap<Ports, BTreeSet<IpAddr>> = BTreeMap::new();
    let mut has_place = true;
    for (uid, seen) in users {
        let uid = (!options.any_user).then_some(*uid);
        for &(port, addr, chosen) in seen {
            let ports = ports(port, chosen, options);
            let places = by_user.entry(uid).or_default().entry(ports).or_default();
            places.extend(addr);
            by_port.entry(ports).or_default().extend(addr);
            has_place &= addr.is_some();
        }
    }
    let places = |ports: &Ports, addrs: &BTreeSet<IpAddr>| match by_port[ports].len() {
        _ if !has_place => Places::None,
        count if count > options.anywhere_after => {
            Places::Anywhere { most: options.anywhere_after }
        }
        _ => Places::These(prefixes(addrs)),
    };
    // Users that did the same, and then ports with which they did the same.
    let mut classes: BTreeMap<ByPort, Vec<Option<u32>>> = BTreeMap::new();
    for (uid, by_port) in &by_user {
        let merged = by_port.iter().map(|(ports, addrs)| (*ports, places(ports, addrs))).collect();
        classes.entry(merged).or_default().push(*uid);
    }
    let mut merged = Vec::new();
    for (by_port, uids) in classes {
        let mut by_places: BTreeMap<Places, Vec<Ports>> = BTreeMap::new();
        for (ports, places) in by_port {
            by_places.entry(places).or_default().push(ports);
        }
        for (places, ports) in by_places {
            merged.push(Merged {
                uids: uids.iter().copied().collect(),
                has_ephemeral: ports.iter().any(|(first, last)| first != last),
                ports: if places == Places::None { Vec::new() } else { ranges(ports) },
                places,
            });
        }
    }
    let first_port = |rule: &Merged| rule.ports.first().map(|ports| *ports.start());
    merged.sort_by_cached_key(|rule| (rule.uids.clone(), first_port(rule), rule.places.clone()));
    merged
}

fn ports(port: u16, chosen: bool, options: &LearnOptions) -> Ports {
    match &options.ephemeral {
        Some(range) if chosen && range.contains(&port) => (*range.start(), *range.end()),
        _ => (port, port),
    }
}

/// Sorted ports with consecutive ones as one range.
fn ranges(ports: Vec<Ports>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for (first, last) in ports {
        match ranges.last_mut() {
            Some(before) if u32::from(first) <= u32::from(*before.end()) + 1 => {
                *before = *before.start()..=last.max(*before.end());
            }
            _ => ranges.push(first..=last),
        }
    }
    ranges
}

/// The fewest prefixes that cover these addresses and no other.
fn prefixes(addrs: &BTreeSet<IpAddr>) -> Vec<Cidr> {
    let mut stack: Vec<Cidr> = Vec::new();
    for &addr in addrs {
        let mut next = Cidr::host(addr);
        while let Some(before) = stack.last().filter(|before| are_halves(before, &next)) {
            let Ok(both) = Cidr::new(before.addr(), next.length() - 1) else { break };
            stack.pop();
            next = both;
        }
        stack.push(next);
    }
    stack
}

fn are_halves(one: &Cidr, other: &Cidr) -> bool {
    let length = other.length();
    one.family() == other.family()
        && one.length() == length
        && length > 0
        && one.bits() ^ other.bits() == 1 << (128 - u32::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(addrs: &[&str]) -> Vec<String> {
        let addrs = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
        prefixes(&addrs).iter().map(Cidr::to_string).collect()
    }

    #[test]
    fn prefixes_are_reported_only_when_they_are_complete() {
        assert_eq!(merged(&["192.0.2.1", "192.0.2.2"]), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(
            merged(&["192.0.2.3", "192.0.2.2", "192.0.2.1"]),
            ["192.0.2.1/32", "192.0.2.2/31"]
        );
        let quarter: Vec<String> = (64..128).map(|last| format!("192.0.2.{last}")).collect();
        let quarter: Vec<&str> = quarter.iter().map(String::as_str).collect();
        assert_eq!(merged(&quarter), ["192.0.2.64/26"]);
        assert_eq!(
            merged(&["2001:db8::", "2001:db8::1", "0.0.0.0"]),
            ["0.0.0.0/32", "2001:db8::/127"]
        );
        // Neighbours, but of different halves.
        assert_eq!(merged(&["0.0.0.1", "0.0.0.2"]).len(), 2);
        // Alike but for their family.
        assert_eq!(merged(&["0.0.0.0", "::", "::1"]), ["0.0.0.0/32", "::/127"]);
    }

    #[test]
    fn ports_that_follow_each_other_are_a_range() {
        let ports =
            vec![(0, 0), (80, 80), (81, 81), (83, 83), (1000, 2000), (1500, 1500), (65535, 65535)];
        assert_eq!(ranges(ports), [0..=0, 80..=81, 83..=83, 1000..=2000, 65535..=65535]);
    }
}
