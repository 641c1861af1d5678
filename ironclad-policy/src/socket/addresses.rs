//! Overlapping groups of addresses to classes: addresses of one class are in the same groups.

use std::collections::HashMap;

use ironclad_core::{Cidr, Family};

use crate::flat::{FlatTable, Leaf};

/// Where each address leads, and what that means.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    /// From addresses to numbers of classes.
    pub(crate) table: FlatTable,
    /// For each class, the groups; the first is that of addresses in no group.
    pub(crate) groups: Vec<Vec<u32>>,
}

/// A prefix of a group.
struct Item {
    bits: u128,
    length: u8,
    group: u32,
}

impl Classes {
    /// Of prefixes and the numbers of their groups.
    pub(crate) fn build(prefixes: impl Iterator<Item = (u32, Cidr)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (group, cidr) in prefixes {
            let item = Item { bits: cidr.bits(), length: cidr.length(), group };
            match cidr.family() {
                Family::V4 => v4.push(item),
                Family::V6 => v6.push(item),
            }
        }
        let mut names = Names {
            groups: vec![Vec::new()],
            numbers: HashMap::from([(Vec::new(), 0)]),
            joined: HashMap::new(),
        };
        let leaves4 = leaves(&mut v4, &mut names);
        let leaves6 = leaves(&mut v6, &mut names);
        Self { table: FlatTable::build(&leaves4, &leaves6), groups: names.groups }
    }
}

/// Sets of groups by number.
struct Names {
    groups: Vec<Vec<u32>>,
    numbers: HashMap<Vec<u32>, u32>,
    /// What a class and more groups make.
    joined: HashMap<(u32, Vec<u32>), u32>,
}

impl Names {
    fn join(&mut self, class: u32, more: Vec<u32>) -> u32 {
        if let Some(&known) = self.joined.get(&(class, more.clone())) {
            return known;
        }
        let mut all = self.groups[class as usize].clone();
        all.extend(&more);
        all.sort_unstable();
        all.dedup();
        let groups = &mut self.groups;
        let number = *self.numbers.entry(all).or_insert_with_key(|all| {
            groups.push(all.clone());
            groups.len() as u32 - 1
        });
        self.joined.insert((class, more), number);
        number
    }
}

/// Of sorted prefixes, one comes right before those that it covers: a stack knows which do.
fn leaves(items: &mut [Item], names: &mut Names) -> Vec<Leaf> {
    items.sort_unstable_by_key(|item| (item.bits, item.length, item.group));
    let mut leaves = Vec::new();
    let mut stack: Vec<(u128, u8, u32)> = Vec::new();
    for same in items.chunk_by(|a, b| a.bits == b.bits && a.length == b.length) {
        let Item { bits, length, .. } = same[0];
        let covers = |&(top, length, _): &(u128, u8, u32)| {
            length == 0 || (top ^ bits) >> (128 - u32::from(length)) == 0
        };
        while stack.last().is_some_and(|top| !covers(top)) {
            stack.pop();
        }
        let outer = stack.last().map_or(0, |&(_, _, class)| class);
        let mut groups: Vec<u32> = same.iter().map(|item| item.group).collect();
        groups.dedup();
        let class = names.join(outer, groups);
        // One that says what the prefix around it says is no leaf.
        if class != outer {
            leaves.push(Leaf { bits, length, entry: class });
            stack.push((bits, length, class));
        }
    }
    leaves
}
