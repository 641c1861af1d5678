//! The distinct prefixes of a policy's address sets, and which rule decides each.

use ironclad_core::abi;
use ironclad_core::{Action, Family};

use crate::policy::AddressSet;

/// Where a prefix was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) set: u32,
    pub(crate) list: u32,
    pub(crate) line: u32,
}

/// A distinct prefix: what decides addresses whose longest prefix it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) bits: u128,
    pub(crate) length: u8,
    pub(crate) action: u8,
    /// Index of the deciding rule, 0 where nothing decides.
    pub(crate) rule: u16,
    /// Index of the reporting rule, 0 where none reports.
    pub(crate) log_rule: u16,
    /// Where the prefix itself was written first.
    pub(crate) origin: Origin,
    /// The entry whose prefix decides, itself or one that covers it; 0 where nothing decides.
    pub(crate) decider: u32,
    /// The entry whose prefix reports; 0 where none does.
    pub(crate) logger: u32,
    /// The entry of the longest prefix that covers this one; 0 where none does.
    pub(crate) parent: u32,
    /// Where a log set wrote this very prefix.
    pub(crate) log_origin: Origin,
}

impl Resolved {
    const NONE: Self = Self {
        bits: 0,
        length: 0,
        action: abi::ACTION_NONE,
        rule: 0,
        log_rule: 0,
        origin: Origin { set: 0, list: 0, line: 0 },
        decider: 0,
        logger: 0,
        parent: 0,
        log_origin: Origin { set: 0, list: 0, line: 0 },
    };
}

struct Item {
    bits: u128,
    length: u8,
    /// Allow, then drop, then log.
    rank: u8,
    origin: Origin,
}

/// All distinct prefixes: first one that is none, then those of IPv4, then from the returned index on
/// those of IPv6, each family sorted. `set_rules` has the rule and the action of each set.
pub(crate) fn resolve(sets: &[AddressSet], set_rules: &[(u16, Action)]) -> (Vec<Resolved>, usize) {
    let (mut v4, mut v6) = items(sets);
    let by_prefix = |item: &Item| {
        let Origin { set, list, line } = item.origin;
        (item.bits, item.length, item.rank, set, list, line)
    };
    v4.sort_unstable_by_key(by_prefix);
    v6.sort_unstable_by_key(by_prefix);
    let mut entries = vec![Resolved::NONE];
    resolve_family(&v4, set_rules, &mut entries);
    let v6_from = entries.len();
    resolve_family(&v6, set_rules, &mut entries);
    (entries, v6_from)
}

fn items(sets: &[AddressSet]) -> (Vec<Item>, Vec<Item>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (set_index, set) in sets.iter().enumerate() {
        let rank = match set.action {
            Action::Allow => 0,
            Action::Drop => 1,
            _ => 2,
        };
        for (list_index, list) in set.lists.iter().enumerate() {
            for entry in list.entries() {
                let origin =
                    Origin { set: set_index as u32, list: list_index as u32, line: entry.line };
                let item =
                    Item { bits: entry.cidr.bits(), length: entry.cidr.length(), rank, origin };
                match entry.cidr.family() {
                    Family::V4 => v4.push(item),
                    Family::V6 => v6.push(item),
                }
            }
        }
    }
    (v4, v6)
}

/// Sorted items of one family to distinct prefixes. A prefix comes right before those that it
/// covers, so the prefixes that cover the present one form a stack.
fn resolve_family(items: &[Item], set_rules: &[(u16, Action)], entries: &mut Vec<Resolved>) {
    let mut stack: Vec<u32> = Vec::new();
    for same in items.chunk_by(|a, b| a.bits == b.bits && a.length == b.length) {
        let Item { bits, length, .. } = same[0];
        let covers = |entry: &Resolved| {
            let host = 128 - u32::from(entry.length);
            entry.length == 0 || (entry.bits ^ bits) >> host == 0
        };
        while stack.last().is_some_and(|&top| !covers(&entries[top as usize])) {
            stack.pop();
        }
        let parent = stack.last().copied().unwrap_or(0);
        let index = entries.len() as u32;
        let mut this =
            Resolved { bits, length, origin: same[0].origin, parent, ..entries[parent as usize] };
        if same[0].rank < 2 {
            let (rule, action) = set_rules[same[0].origin.set as usize];
            this.action = action.abi();
            this.rule = rule;
            this.decider = index;
        }
        if let Some(log) = same.iter().find(|item| item.rank == 2) {
            this.log_rule = set_rules[log.origin.set as usize].0;
            this.logger = index;
            this.log_origin = log.origin;
        }
        entries.push(this);
        stack.push(index);
    }
}
