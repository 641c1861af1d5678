//! The addresses of socket rules: which rules each address satisfies.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ironclad_core::Cidr;

use super::addresses::Classes;
use super::bits::{Place, RuleSet};
use super::dimensions::Placed;
use super::rule::{AddressGroup, Direction, SocketAction, SocketRule};
use crate::error::{Failure, PolicyError};

/// Whether something covers the unspecified address of IPv4, and of IPv6.
type Unspecified = [bool; 2];

pub(super) struct Wheres {
    pub(super) addresses: Classes,
    /// By class of address.
    pub(super) rows: Vec<RuleSet>,
    pub(super) is_used: bool,
}

/// Groups by number: those with a name, then one for each rule with prefixes of its own, then the two
/// unspecified addresses.
struct Numbered {
    /// The groups of each rule.
    by_rule: Vec<Vec<u32>>,
    /// The named groups of any rule.
    used: HashSet<u32>,
    /// The number of the first unspecified address.
    unspecified: u32,
}

impl Wheres {
    pub(super) fn build(groups: &[AddressGroup], placed: &Placed<'_>) -> Result<Self, PolicyError> {
        let mut numbered = Numbered::new(groups, placed)?;
        let entries = |group: u32| {
            let lists = &groups[group as usize].lists;
            lists.iter().flat_map(|list| list.entries()).map(|entry| entry.cidr)
        };
        let unspecified = numbered.cover_unspecified(entries, placed);
        let used = (0..groups.len() as u32).filter(|number| numbered.used.contains(number));
        let of_groups = used.flat_map(|number| entries(number).map(move |cidr| (number, cidr)));
        let with_own = placed.iter().map(|(_, rule)| rule).filter(|rule| !rule.cidrs.is_empty());
        let of_rules = with_own
            .zip(groups.len() as u32..)
            .flat_map(|(rule, number)| rule.cidrs.iter().map(move |&cidr| (number, cidr)));
        let addresses = Classes::build(of_groups.chain(of_rules).chain(unspecified));

        let mut anywhere = RuleSet::default();
        let mut by_group: HashMap<u32, Vec<Place>> = HashMap::new();
        for ((place, _), named) in placed.iter().zip(&numbered.by_rule) {
            if named.is_empty() {
                anywhere.insert(*place);
            }
            for &group in named {
                by_group.entry(group).or_default().push(*place);
            }
        }
        let satisfied = |groups: &Vec<u32>| {
            let rules = groups.iter().filter_map(|group| by_group.get(group)).flatten().copied();
            anywhere.with(rules)
        };
        let rows = addresses.groups.iter().map(satisfied).collect();
        Ok(Self { addresses, rows, is_used: !by_group.is_empty() })
    }
}

impl Numbered {
    fn new(groups: &[AddressGroup], placed: &Placed<'_>) -> Result<Self, PolicyError> {
        let numbers: HashMap<&str, u32> =
            groups.iter().enumerate().map(|(i, group)| (group.name.as_str(), i as u32)).collect();
        if numbers.len() < groups.len() {
            let mut seen = HashSet::new();
            let twice = groups.iter().find(|group| !seen.insert(&group.name));
            let name = twice.map(|group| group.name.clone()).unwrap_or_default();
            return Err(Failure::GroupTwice { name }.into());
        }
        let (mut by_rule, mut used) = (Vec::with_capacity(placed.len()), HashSet::new());
        let mut own = groups.len() as u32;
        for (_, rule) in placed {
            let mut named = Vec::new();
            for name in &rule.to {
                let number = numbers
                    .get(name.as_str())
                    .ok_or_else(|| Failure::UnknownGroup { rule: rule.rule, name: name.clone() })?;
                used.insert(*number);
                named.push(*number);
            }
            if !rule.cidrs.is_empty() {
                named.push(own);
                own += 1;
            }
            by_rule.push(named);
        }
        Ok(Self { by_rule, used, unspecified: own })
    }

    /// Lets rules that deny bind(2) to an address deny the unspecified address, too, and returns the
    /// unspecified addresses that rules deny.
    ///
    /// A socket that is bound to the unspecified address is reached at each address of the host, by `::`
    /// at those of IPv4, too. Only bind(2) has such an address.
    fn cover_unspecified<I: Iterator<Item = Cidr>>(
        &mut self,
        entries: impl Fn(u32) -> I,
        placed: &Placed<'_>,
    ) -> Vec<(u32, Cidr)> {
        let addresses =
            [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()].map(Cidr::host);
        let covers = |cidr: Cidr| addresses.map(|address| cidr.family() <= address.family());
        let either = |a: Unspecified, b: Unspecified| [a[0] || b[0], a[1] || b[1]];
        let of_group = |group| entries(group).map(covers).fold([false; 2], either);
        let of_groups: HashMap<u32, Unspecified> =
            self.used.iter().map(|&group| (group, of_group(group))).collect();
        let denies = |rule: &SocketRule| {
            rule.direction == Direction::In && rule.action != SocketAction::Allow
        };
        let (first, mut denied) = (self.unspecified, [false; 2]);
        for ((_, rule), named) in placed.iter().zip(&mut self.by_rule) {
            if !denies(rule) {
                continue;
            }
            let of_own = rule.cidrs.iter().map(|&cidr| covers(cidr));
            let of_named = named.iter().filter_map(|group| of_groups.get(group)).copied();
            let covered = of_own.chain(of_named).fold([false; 2], either);
            named.extend((first..).zip(covered).filter_map(|(group, is)| is.then_some(group)));
            denied = either(denied, covered);
        }
        let numbered = (first..).zip(addresses).zip(denied);
        numbered.filter_map(|(numbered, is_denied)| is_denied.then_some(numbered)).collect()
    }
}
