//! Which counter belongs to which rule: by id, kept in the kernel from policy to policy.
use std::collections::{BTreeMap, BTreeSet};

use ironclad_bpf::shield::Shared;
use ironclad_core::RuleId;
use ironclad_core::abi::RULES_MAX;

use crate::error::ShieldError;

/// Slot 0 counts for no rule.
#[derive(Debug, Default)]
pub(crate) struct RuleSlots {
    slots: BTreeMap<RuleId, u16>,
}

impl RuleSlots {
    /// What the instance's map says.
    pub(crate) fn read(shared: &Shared) -> Result<Self, ShieldError> {
        let mut slots = BTreeMap::new();
        for id in shared.rule_slots.keys()? {
            if let Some(slot) = shared.rule_slots.lookup(&id)? {
                slots.insert(RuleId(id), slot as u16);
            }
        }
        Ok(Self { slots })
    }

    pub(crate) fn of(&self, rule: RuleId) -> Option<u16> {
        self.slots.get(&rule).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RuleId, u16)> + '_ {
        self.slots.iter().map(|(id, slot)| (*id, *slot))
    }

    pub(crate) fn rule(&self, slot: u32) -> Option<RuleId> {
        self.slots.iter().find(|(_, s)| u32::from(**s) == slot).map(|(id, _)| *id)
    }

    /// Gives every rule of `wanted` a slot. Rules that are in neither `wanted` nor `in_use` lose
    /// theirs, with the counts, only when slots run out.
    pub(crate) fn assign(
        &mut self,
        shared: &Shared,
        wanted: &[RuleId],
        in_use: &BTreeSet<RuleId>,
    ) -> Result<(), ShieldError> {
        let taken: BTreeSet<u16> = self.slots.values().copied().collect();
        let mut free =
            (1..RULES_MAX as u16).filter(|slot| !taken.contains(slot)).collect::<Vec<_>>();
        free.reverse();
        let needed: BTreeSet<RuleId> = wanted.iter().copied().collect();
        for &rule in &needed {
            if self.slots.contains_key(&rule) {
                continue;
            }
            let slot = match free.pop() {
                Some(slot) => slot,
                None => self.recycle(shared, &needed, in_use)?,
            };
            shared.rules.clear(&u32::from(slot))?;
            shared.rule_slots.update(&rule.0, &u32::from(slot))?;
            self.slots.insert(rule, slot);
        }
        Ok(())
    }

    fn recycle(
        &mut self,
        shared: &Shared,
        needed: &BTreeSet<RuleId>,
        in_use: &BTreeSet<RuleId>,
    ) -> Result<u16, ShieldError> {
        let old = self
            .slots
            .iter()
            .find(|(id, _)| !needed.contains(id) && !in_use.contains(id))
            .map(|(id, slot)| (*id, *slot));
        let Some((id, slot)) = old else {
            let rules = needed.union(in_use).count();
            return Err(ShieldError::RuleSlots { rules, slots: RULES_MAX - 1 });
        };
        shared.rule_slots.delete(&id.0)?;
        self.slots.remove(&id);
        Ok(slot)
    }
}
