use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ironclad_core::{Action, Cidr, RuleId, abi};
use serde::Serialize;

use crate::compile::{CompiledPolicy, Inner};

/// What a prefix or a tuple means: the rule that decides, the rule that reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Meaning {
    /// The deciding action and its rule; none where nothing decides.
    pub decided: Option<(Action, RuleId)>,
    /// The reporting rule.
    pub logged: Option<RuleId>,
}

/// A prefix that differs between two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixChange {
    /// The prefix.
    pub cidr: Cidr,
    /// What it meant; none where it was not there.
    pub before: Option<Meaning>,
    /// What it means; none where it is gone.
    pub after: Option<Meaning>,
}

/// What differs between two compiled policies: what one would have to do to get from the first to
/// the second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PolicyDiff {
    /// Prefixes, in order.
    pub prefixes: Vec<PrefixChange>,
    /// Tuples that only the second has, or with another meaning.
    pub tuples_added: usize,
    /// Tuples that only the first has, or with another meaning.
    pub tuples_removed: usize,
    /// Whether a setting that is no rule differs, or a gateway.
    pub settings: bool,
    /// Rules whose rate of events differs, or that only one has.
    pub rules: Vec<RuleId>,
}

impl PolicyDiff {
    /// Whether the two policies do the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How many prefixes were added, removed and changed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: (bool, bool)| {
            let is = |change: &&PrefixChange| {
                (change.before.is_some(), change.after.is_some()) == wanted
            };
            self.prefixes.iter().filter(is).count()
        };
        (count((false, true)), count((true, false)), count((true, true)))
    }
}

impl fmt::Display for PolicyDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (added, removed, changed) = self.counts();
        write!(f, "prefixes: {added} added, {removed} removed, {changed} changed; ")?;
        write!(f, "tuples: {} added, {} removed; ", self.tuples_added, self.tuples_removed)?;
        let settings = if self.settings { "changed" } else { "the same" };
        write!(f, "settings {settings}; {} rules differ", self.rules.len())
    }
}

impl CompiledPolicy {
    /// What differs between this policy and `newer`.
    pub fn diff(&self, newer: &CompiledPolicy) -> PolicyDiff {
        let (old, new) = (self.inner(), newer.inner());
        PolicyDiff {
            prefixes: prefixes(old, new),
            tuples_added: unmatched(new, old),
            tuples_removed: unmatched(old, new),
            settings: old.settings != new.settings || gateways(old) != gateways(new),
            rules: rules(old, new),
        }
    }
}

impl Inner {
    fn meaning(&self, action: u8, rule: u16, log_rule: u16) -> Meaning {
        let id = |rule: u16| self.rules[usize::from(rule)].id;
        Meaning {
            decided: match action {
                abi::ACTION_DROP => Some((Action::Drop, id(rule))),
                abi::ACTION_ALLOW => Some((Action::Allow, id(rule))),
                _ => None,
            },
            logged: (log_rule != 0).then(|| id(log_rule)),
        }
    }

    fn prefixes(&self) -> impl Iterator<Item = (Cidr, Meaning)> + '_ {
        self.entries.iter().enumerate().skip(1).map(|(index, entry)| {
            (self.cidr(index), self.meaning(entry.action, entry.rule, entry.log_rule))
        })
    }
}

fn gateways(policy: &Inner) -> BTreeSet<IpAddr> {
    policy.gateways.addresses().collect()
}

/// Both are sorted alike: IPv4 before IPv6, then by address and length.
fn prefixes(old: &Inner, new: &Inner) -> Vec<PrefixChange> {
    let (mut before, mut after) = (old.prefixes().peekable(), new.prefixes().peekable());
    let mut changes = Vec::new();
    loop {
        let (was, is) = (before.peek().copied(), after.peek().copied());
        let change = match (was, is) {
            (None, None) => return changes,
            (Some((a, was)), Some((b, is))) if a == b => {
                before.next();
                after.next();
                if was == is {
                    continue;
                }
                PrefixChange { cidr: a, before: Some(was), after: Some(is) }
            }
            (Some((a, was)), is) if is.is_none_or(|(b, _)| a < b) => {
                before.next();
                PrefixChange { cidr: a, before: Some(was), after: None }
            }
            (_, Some((cidr, is))) => {
                after.next();
                PrefixChange { cidr, before: None, after: Some(is) }
            }
            (Some(_), None) => unreachable!("the arm above takes it"),
        };
        changes.push(change);
    }
}

/// Tuples of `one` that `other` has not, with the same meaning. Shapes are numbered anew in each
/// policy, so a key stands with its mask.
fn unmatched(one: &Inner, other: &Inner) -> usize {
    let all = |inner: &Inner| -> BTreeMap<Vec<u8>, Meaning> {
        let tuples = inner.tuples.tuples.iter();
        tuples
            .map(|tuple| {
                let key: [u8; 40] = zerocopy::transmute!(tuple.key);
                let mask: [u8; 40] =
                    zerocopy::transmute!(inner.tuples.masks[tuple.key.shape as usize]);
                // Without the number of the shape, the last four bytes.
                let meaning = inner.meaning(tuple.action, tuple.rule, tuple.log_rule.unwrap_or(0));
                ([&key[..36], &mask[..]].concat(), meaning)
            })
            .collect()
    };
    let other = all(other);
    all(one).iter().filter(|(key, meaning)| other.get(*key) != Some(meaning)).count()
}

fn rules(old: &Inner, new: &Inner) -> Vec<RuleId> {
    let rates = |inner: &Inner| -> BTreeMap<RuleId, u32> {
        inner.rules.iter().skip(1).map(|rule| (rule.id, rule.events_per_second)).collect()
    };
    let (was, is) = (rates(old), rates(new));
    let mut ids: Vec<RuleId> = was.keys().chain(is.keys()).copied().collect();
    ids.sort();
    ids.dedup();
    ids.retain(|id| was.get(id) != is.get(id));
    ids
}
