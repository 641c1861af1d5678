//! From a policy's socket rules to what a slot's tables hold.
use std::collections::BTreeSet;
use std::path::PathBuf;

use ironclad_bpf::socket::{SlotTables, SocketContent};
use ironclad_core::abi::{self, SockRule};
use ironclad_policy::CompiledPolicy;
use ironclad_policy::socket::{Bound, CompiledSockets, SocketAction, SocketImage, SocketRuleInfo};

use super::Sockets;
use super::bindings::{self, Bindings};
use super::contents::Contents;
use super::paths::{Paths, SlotBound, missing};
use crate::error::ShieldError;

/// A policy's socket rules, ready for a slot.
pub(crate) struct SocketPolicy {
    policy: CompiledPolicy,
    /// For a policy without socket rules.
    empty: CompiledSockets,
    bound: Bound,
    image: SocketImage,
    rules: Vec<SockRule>,
    logs: Vec<SockRule>,
    /// Files whose content is not the one that a rule pins, and why.
    mismatches: Vec<(PathBuf, &'static str)>,
}

impl SocketPolicy {
    pub(crate) fn compiled(&self) -> &CompiledSockets {
        self.policy.sockets().unwrap_or(&self.empty)
    }

    /// The number of map elements that it needs.
    pub(crate) fn elements(&self) -> usize {
        let SocketImage { rows, ports, ids, .. } = &self.image;
        let rules = self.rules.len() + self.logs.len();
        1 + rows.len() + ports.len() / 32 + ids.len() + rules + self.compiled().addresses().cells()
    }

    pub(crate) fn missing(&self) -> Vec<PathBuf> {
        missing(self.compiled(), &self.bound)
    }

    pub(crate) fn mismatches(&self) -> &[(PathBuf, &'static str)] {
        &self.mismatches
    }
}

impl Sockets {
    /// Resolves the socket rules of a policy, and lays them out for a slot.
    pub(crate) fn prepare(
        &mut self,
        policy: &CompiledPolicy,
        contents: &Contents,
        number: u64,
    ) -> Result<SocketPolicy, ShieldError> {
        let empty = CompiledSockets::empty();
        let compiled = policy.sockets().unwrap_or(&empty);
        self.assign(compiled)?;
        let Paths { bound, mismatches } = self.bind(compiled, contents, None)?;
        let before: Vec<Bound> = self.bound.iter().flatten().map(|k| k.bound.clone()).collect();
        for mut was in before {
            // Paths that only the other policy names were not resolved.
            was.files.retain(|path, _| compiled.files().any(|named| named == path));
            self.note_former(&was, &bound);
        }
        let mut image = bindings::image(compiled, &bound, &self.former)?;
        image.policy.generation = number;
        image.policy.epoch = self.next_epoch;
        self.next_epoch += 1;
        image.policy.rate = policy.settings().default_events_per_second;
        image.policy.dry_run = u8::from(policy.settings().dry_run);
        for (key, _) in &mut image.ids {
            key.generation = number as u32;
        }
        self.initialize_ancestry(&image)?;
        let (rules, logs) = self.rules(compiled);
        let policy = policy.clone();
        Ok(SocketPolicy { policy, empty, bound, image, rules, logs, mismatches })
    }

    /// Rules that decide, and rules that only report, as the kernel reads them.
    fn rules(&self, compiled: &CompiledSockets) -> (Vec<SockRule>, Vec<SockRule>) {
        let (mut rules, mut logs) = (Vec::new(), Vec::<SockRule>::new());
        for (number, rule) in compiled.in_order() {
            let raw = SockRule { number: number as u32 + 1, ..self.rule(rule) };
            match rule.action {
                SocketAction::Log => logs.push(raw),
                _ => rules.push(SockRule { logs: logs.len() as u8, ..raw }),
            }
        }
        (rules, logs)
    }

    fn rule(&self, rule: &SocketRuleInfo) -> SockRule {
        let flag = |is: bool, bit| if is { bit } else { 0 };
        let mut raw = SockRule {
            slot: u32::from(self.rules.of(rule.id.0).unwrap_or(0)),
            report_rate: rule.events_per_second,
            action: match rule.action {
                SocketAction::Deny => abi::SOCK_DENY,
                _ => abi::SOCK_ALLOW,
            },
            flags: flag(rule.report, abi::SOCK_RULE_REPORT)
                | flag(rule.dry_run, abi::SOCK_RULE_DRY),
            ..SockRule::default()
        };
        if let Some(limit) = &rule.limit {
            raw.flags |= abi::SOCK_RULE_LIMITED;
            raw.interval_ns = limit.interval_ns();
            raw.burst_ns = raw.interval_ns * u64::from(limit.at_once());
            raw.bucket = u32::from(self.buckets.of(rule.bucket).unwrap_or(0));
        }
        raw
    }

    /// Assigns slots to what outlives policies: counters, buckets, ancestries. Policies in the kernel
    /// keep theirs.
    fn assign(&mut self, compiled: &CompiledSockets) -> Result<(), ShieldError> {
        let (mut rules, mut buckets, mut ancestries) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for used in (0..2).filter_map(|slot| self.shared.in_use(slot)) {
            rules.extend(used.rules.iter().filter_map(|rule| self.rules.owner(rule.slot)));
            let limited = used.rules.iter().filter(|rule| rule.flags & abi::SOCK_RULE_LIMITED != 0);
            buckets.extend(limited.filter_map(|rule| self.buckets.owner(rule.bucket)));
            let bits = (0..16).filter(|bit| used.ancestries >> bit & 1 == 1);
            ancestries.extend(bits.filter_map(|bit| self.ancestries.owner(bit + 1)));
        }
        let wanted = compiled.rules().iter().map(|rule| rule.id.0).collect();
        let stats = &self.shared.stats;
        self.rules.assign(&self.shared.rule_slots, &wanted, &rules, |slot| stats.clear(&slot))?;
        let limited = compiled.rules().iter().filter(|rule| rule.limit.is_some());
        let wanted = limited.map(|rule| rule.bucket).collect();
        // The kernel caps the debt of a reused bucket at what its new limit permits.
        self.buckets.assign(&self.shared.bucket_slots, &wanted, &buckets, |_| Ok(()))?;
        let wanted = compiled.ancestry_digests().into_iter().collect();
        let processes = &self.processes;
        // Processes carry the bit for the list that had the slot.
        let forget = |slot: u32| processes.forget(1 << (slot - 1));
        self.ancestries.assign(&processes.ancestry_ids, &wanted, &ancestries, forget)
    }

    pub(crate) fn fill_slot(
        &mut self,
        slot: u32,
        policy: &SocketPolicy,
    ) -> Result<(), ShieldError> {
        self.bound[slot as usize] = None;
        self.shared.fill_slot(
            slot,
            &SocketContent {
                policy: &policy.image.policy,
                rows: &policy.image.rows,
                flat: policy.compiled().addresses().words(),
                ports: &policy.image.ports,
                rules: &policy.rules,
                logs: &policy.logs,
                ids: &policy.image.ids,
            },
        )?;
        self.bound[slot as usize] = Some(SlotBound {
            policy: policy.policy.clone(),
            bound: policy.bound.clone(),
            last_seen: policy.bound.containers.clone(),
            bindings: Bindings::of(&policy.image),
        });
        Ok(())
    }

    /// The tables in the kernel.
    pub(crate) fn read_slot(&self, slot: u32) -> SlotTables<'_> {
        self.shared.read_slot(slot)
    }

    pub(crate) fn clear_slot(&mut self, slot: u32) -> Result<(), ShieldError> {
        self.bound[slot as usize] = None;
        Ok(self.shared.clear_slot(slot)?)
    }
}
