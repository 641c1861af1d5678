//! The dimensions of socket rules: for each value that a rule may compare, the rules that it satisfies.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use ironclad_core::abi;

use super::bits::{Place, RuleSet};
use super::rule::SocketRule;
use crate::error::PolicyError;
use crate::limits::check;

/// Rules and where each has its number.
pub(super) type Placed<'a> = [(Place, &'a SocketRule)];

/// A dimension whose values are looked up in a hash.
#[derive(Clone, Debug)]
pub(crate) struct Named<K> {
    /// Rules that do not compare it.
    pub(crate) free: RuleSet,
    /// The rules that name each value.
    pub(crate) by_value: BTreeMap<K, Vec<Place>>,
}

impl<K: Ord + Clone> Named<K> {
    pub(super) fn build<'a>(placed: &Placed<'a>, values: impl Fn(&'a SocketRule) -> &'a [K]) -> Self
    where
        K: 'a,
    {
        let mut free = RuleSet::default();
        let mut by_value: BTreeMap<K, Vec<Place>> = BTreeMap::new();
        for &(place, rule) in placed {
            let named = values(rule);
            if named.is_empty() {
                free.insert(place);
            }
            for value in named {
                by_value.entry(value.clone()).or_default().push(place);
            }
        }
        Self { free, by_value }
    }

    /// What each value satisfies.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&K, RuleSet)> {
        self.by_value.iter().map(|(value, rules)| (value, self.free.with(rules.iter().copied())))
    }

    /// How many different sets of rules there are.
    pub(crate) fn distinct(&self) -> usize {
        self.by_value.values().collect::<HashSet<_>>().len()
    }

    pub(crate) fn is_used(&self) -> bool {
        !self.by_value.is_empty()
    }
}

/// A dimension whose values are numbers that index a table of classes.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// What each class satisfies. Class 0 is that of values that no rule names.
    pub(crate) rows: Vec<RuleSet>,
    /// The class of each value.
    pub(crate) class: Vec<u16>,
    numbers: HashMap<RuleSet, u16>,
}

impl Table {
    pub(super) fn new(free: RuleSet, values: usize) -> Self {
        let numbers = HashMap::from([(free.clone(), 0)]);
        Self { rows: vec![free], class: vec![0; values], numbers }
    }

    fn class_of(&mut self, set: &RuleSet) -> Result<u16, PolicyError> {
        if let Some(&class) = self.numbers.get(set) {
            return Ok(class);
        }
        let next = self.rows.len();
        check("distinct sets of ports", next as u64 + 1, 1 << 16, "let rules share their ports")?;
        self.rows.push(set.clone());
        self.numbers.insert(set.clone(), next as u16);
        Ok(next as u16)
    }
}

pub(super) fn ports(placed: &Placed<'_>) -> Result<Option<Table>, PolicyError> {
    if placed.iter().all(|(_, rule)| rule.ports.is_empty()) {
        return Ok(None);
    }
    let mut free = RuleSet::default();
    // Where a rule's ports begin and where they are over; between two such places nothing changes.
    let mut changes: BTreeMap<usize, Vec<(usize, i32)>> = BTreeMap::new();
    for (number, (place, rule)) in placed.iter().enumerate() {
        if rule.ports.is_empty() {
            free.insert(*place);
        }
        for ports in &rule.ports {
            let (first, after) = (usize::from(*ports.start()), usize::from(*ports.end()) + 1);
            changes.entry(first).or_default().push((number, 1));
            changes.entry(after).or_default().push((number, -1));
        }
    }
    let mut open: BTreeMap<usize, i32> = BTreeMap::new();
    let mut sets: Vec<(usize, RuleSet)> = vec![(0, free.clone())];
    for (port, changed) in changes {
        for (number, by) in changed {
            *open.entry(number).or_default() += by;
        }
        open.retain(|_, count| *count > 0);
        sets.push((port, free.with(open.keys().map(|&number| placed[number].0))));
    }
    // One set after the other, not one for each port: there may be thousands of rules.
    let mut table = Table::new(free, 1 << 16);
    for (i, (from, set)) in sets.iter().enumerate() {
        let to = sets.get(i + 1).map_or(1 << 16, |(next, _)| *next);
        if *from < to {
            let class = table.class_of(set)?;
            table.class[*from..to].fill(class);
        }
    }
    Ok(Some(table))
}

pub(super) fn kinds(placed: &Placed<'_>) -> Result<Table, PolicyError> {
    let mut by_op: [RuleSet; 4] = Default::default();
    let mut by_kind: HashMap<(usize, usize), Vec<Place>> = HashMap::new();
    for (place, rule) in placed {
        for &op in rule.direction.ops() {
            if rule.protocols.is_empty() {
                by_op[op as usize].insert(*place);
            }
            for protocol in &rule.protocols {
                by_kind.entry((op as usize, usize::from(protocol.abi()))).or_default().push(*place);
            }
        }
    }
    let mut table = Table::new(RuleSet::default(), by_op.len() * abi::SOCK_PROTOCOLS);
    for (op, all) in by_op.iter().enumerate() {
        for protocol in 0..abi::SOCK_PROTOCOLS {
            let named = by_kind.get(&(op, protocol)).into_iter().flatten();
            let class = table.class_of(&all.with(named.copied()))?;
            table.class[op * abi::SOCK_PROTOCOLS + protocol] = class;
        }
    }
    Ok(table)
}

pub(super) fn ancestries(
    placed: &Placed<'_>,
) -> Result<BTreeMap<Vec<PathBuf>, Vec<Place>>, PolicyError> {
    let mut ancestries: BTreeMap<Vec<PathBuf>, Vec<Place>> = BTreeMap::new();
    for (place, rule) in placed.iter().filter(|(_, rule)| !rule.subject.ancestors.is_empty()) {
        let mut files = rule.subject.ancestors.clone();
        files.sort();
        files.dedup();
        ancestries.entry(files).or_default().push(*place);
    }
    check(
        "distinct lists of executables to descend from",
        ancestries.len() as u64,
        abi::SOCK_ANCESTRIES as u64 * 8,
        "let rules share them",
    )?;
    Ok(ancestries)
}

/// The rules that compare no ancestry.
pub(super) fn without_ancestry(placed: &Placed<'_>) -> RuleSet {
    let free = placed.iter().filter(|(_, rule)| rule.subject.ancestors.is_empty());
    RuleSet::default().with(free.map(|(place, _)| *place))
}
