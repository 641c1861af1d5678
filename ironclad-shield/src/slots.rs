//! Assigns slots that outlive policies: counters of rules, token buckets, bits of ancestries.
use std::collections::{BTreeMap, BTreeSet};

use ironclad_bpf::{BpfError, Map, Plain};

use crate::error::{Failure, ShieldError};

/// Slots by owner. Slot 0 has none.
#[derive(Debug)]
pub(crate) struct Slots<K> {
    slots: BTreeMap<K, u16>,
    /// The number of slots, the first included.
    count: u32,
    /// The owners, and the next step where there is no room for them.
    what: (&'static str, &'static str),
}

impl<K: Plain + Ord> Slots<K> {
    /// Reads the instance's map.
    pub(crate) fn read(
        map: &Map<K, u32>,
        what: (&'static str, &'static str),
    ) -> Result<Self, ShieldError> {
        let mut slots = BTreeMap::new();
        for id in map.keys()? {
            if let Some(slot) = map.lookup(&id)? {
                slots.insert(id, slot as u16);
            }
        }
        Ok(Self { slots, count: map.info().max_entries, what })
    }

    #[cfg(test)]
    pub(crate) fn with(slots: impl IntoIterator<Item = (K, u16)>) -> Self {
        Self { slots: slots.into_iter().collect(), count: 0, what: ("", "") }
    }

    pub(crate) fn of(&self, id: K) -> Option<u16> {
        self.slots.get(&id).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, u16)> + '_ {
        self.slots.iter().map(|(id, slot)| (*id, *slot))
    }

    pub(crate) fn owner(&self, slot: u32) -> Option<K> {
        self.slots.iter().find(|(_, s)| u32::from(**s) == slot).map(|(id, _)| *id)
    }

    /// Gives each of `wanted` a slot, cleared by `clear`. An owner that is in neither `wanted` nor `in_use`
    /// loses its slot only when none is free.
    pub(crate) fn assign(
        &mut self,
        map: &Map<K, u32>,
        wanted: &BTreeSet<K>,
        in_use: &BTreeSet<K>,
        clear: impl Fn(u32) -> Result<(), BpfError>,
    ) -> Result<(), ShieldError> {
        let taken: BTreeSet<u16> = self.slots.values().copied().collect();
        let mut free =
            (1..self.count as u16).filter(|slot| !taken.contains(slot)).collect::<Vec<_>>();
        free.reverse();
        for &id in wanted {
            if self.slots.contains_key(&id) {
                continue;
            }
            let slot = match free.pop() {
                Some(slot) => slot,
                None => self.recycle(map, wanted, in_use)?,
            };
            clear(u32::from(slot))?;
            map.update(&id, &u32::from(slot))?;
            self.slots.insert(id, slot);
        }
        Ok(())
    }

    fn recycle(
        &mut self,
        map: &Map<K, u32>,
        wanted: &BTreeSet<K>,
        in_use: &BTreeSet<K>,
    ) -> Result<u16, ShieldError> {
        let is_idle = |id: &&K| !wanted.contains(id) && !in_use.contains(id);
        let Some(id) = self.slots.keys().find(is_idle).copied() else {
            let needed = wanted.union(in_use).count();
            let capacity = self.count as usize - 1;
            let (what, next) = self.what;
            return Err(Failure::Slots { what, next, needed, capacity }.into());
        };
        map.delete(&id)?;
        let (what, next) = self.what;
        let none = Failure::Slots { what, next, needed: 1, capacity: 0 };
        Ok(self.slots.remove(&id).ok_or(none)?)
    }
}
