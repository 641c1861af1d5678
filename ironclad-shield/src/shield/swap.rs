//! Replaces the policy: for good, or provisionally until it is confirmed or reverted.
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ironclad_bpf::boottime_ns;
use ironclad_bpf::shield::Selector;
use ironclad_core::audit::AuditAction;
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;
use ironclad_policy::socket::CompiledSockets;
use ironclad_policy::{CompiledPolicy, Provenance};

use super::audit::refused;
use super::paths::lock_with_contents;
use super::{Control, Loaded, Shield, packet_image};
use crate::error::ShieldError;
use crate::sockets::SocketPolicy;
use crate::sockets::contents::Contents;
use crate::sockets::follow::Follower;
use crate::sockets::scripts::refuse_scripts;
use crate::trust::warn_unsigned;

impl Shield {
    /// Replaces the whole policy. Each packet sees the old one or the new one.
    ///
    /// # Errors
    /// [`ShieldError::ProvisionalPending`] while a provisional policy waits; otherwise what the
    /// kernel said. The old policy is in force then. [`ShieldError::Unsigned`] where signed bundles
    /// alone are taken.
    pub fn apply(&self, policy: &CompiledPolicy) -> Result<(), ShieldError> {
        self.trust.only_signed("apply_signed")?;
        self.swap(policy, None)
    }

    /// Like [`apply`](Self::apply), with the policy of a bundle that is verified, and whose serial is
    /// kept, before.
    ///
    /// # Errors
    /// [`ShieldError::NoTrust`], [`ShieldError::Bundle`] where it is not taken,
    /// [`ShieldError::NotApplied`] with what [`apply`](Self::apply) would say.
    #[cfg(feature = "signed")]
    pub fn apply_signed(
        &self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<(), ShieldError> {
        let taken = self.trust.take(bundle, signatures, (&self.instance, &*self.audit))?;
        taken.put(sources, |policy| self.swap(policy, None))
    }

    /// Replaces the whole policy until `deadline` has passed. Unless [`confirm`](Self::confirm) is
    /// called before, the kernel itself returns to the previous policy, whether or not this
    /// process is alive.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply), and [`ShieldError::Deadline`].
    pub fn apply_provisional(
        &self,
        policy: &CompiledPolicy,
        deadline: Duration,
    ) -> Result<(), ShieldError> {
        self.trust.only_signed("apply_provisional_signed")?;
        self.swap(policy, Some(checked(deadline)?))
    }

    /// Like [`apply_provisional`](Self::apply_provisional), with the policy of a bundle as
    /// [`apply_signed`](Self::apply_signed) takes it. Its serial is kept, also where the kernel returns
    /// to the previous policy.
    ///
    /// # Errors
    /// As of [`apply_signed`](Self::apply_signed), and [`ShieldError::Deadline`].
    #[cfg(feature = "signed")]
    pub fn apply_provisional_signed(
        &self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
        deadline: Duration,
    ) -> Result<(), ShieldError> {
        let deadline = checked(deadline)?;
        let taken = self.trust.take(bundle, signatures, (&self.instance, &*self.audit))?;
        taken.put(sources, |policy| self.swap(policy, Some(deadline)))
    }

    /// Makes a provisional policy final.
    ///
    /// # Errors
    /// [`ShieldError::NotProvisional`], or [`ShieldError::Expired`] where it is too late.
    pub fn confirm(&self) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let selector = self.provisional(&mut control)?;
        let kept = Selector { active: selector.active, fallback: selector.active, deadline_ns: 0 };
        if !self.shared.select_if(selector, kept) {
            return Err(ShieldError::Expired);
        }
        let generation = self.shared.generation(selector.active).number;
        self.retire(&mut control, selector.fallback)?;
        self.record(AuditAction::Confirm { generation })
    }

    /// Returns from a provisional policy to the previous one at once.
    ///
    /// # Errors
    /// [`ShieldError::NotProvisional`], or [`ShieldError::Expired`] where it has returned already.
    pub fn revert(&self) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let selector = self.provisional(&mut control)?;
        let back =
            Selector { active: selector.fallback, fallback: selector.fallback, deadline_ns: 0 };
        self.shared.select(back);
        let generation = self.shared.generation(selector.fallback).number;
        self.retire(&mut control, selector.active)?;
        self.record(AuditAction::Revert { generation, reason: "by request".to_owned() })
    }

    fn provisional(&self, control: &mut Control) -> Result<Selector, ShieldError> {
        if self.settle(control)? {
            return Err(ShieldError::Expired);
        }
        let selector = self.shared.selector();
        if selector.deadline_ns == 0 { Err(ShieldError::NotProvisional) } else { Ok(selector) }
    }

    /// Once, and again where a signed one was there meanwhile.
    pub(super) fn warn_unsigned(&self, policy: &CompiledPolicy) -> Result<(), ShieldError> {
        let is_unsigned = policy.provenance() == Provenance::Unsigned;
        if self.is_told_unsigned.swap(is_unsigned, Ordering::Relaxed) {
            return Ok(());
        }
        warn_unsigned(&self.instance, &*self.audit, policy)
    }

    pub(super) fn swap(
        &self,
        policy: &CompiledPolicy,
        provisional: Option<Duration>,
    ) -> Result<(), ShieldError> {
        self.warn_unsigned(policy)?;
        // Before files are read, and again: they are read without the lock.
        self.may_swap(&mut self.lock(), policy)?;
        let silent = CompiledSockets::silent();
        let rules = policy.sockets().unwrap_or(&silent);
        refuse_scripts(rules)?;
        let (mut control, contents) =
            lock_with_contents(&self.control, Some(rules), &AtomicBool::new(false))?;
        let selector = self.may_swap(&mut control, policy)?;
        let (active, slot) = (selector.active, 1 - selector.active);
        let first = control.policies[active as usize].is_none();
        // The first policy goes into the slot that is selected already.
        let slot = if first { active } else { slot };

        self.watch_packets(&mut control, policy)?;
        fn ids(policy: &CompiledPolicy) -> impl Iterator<Item = u32> {
            policy.rules().iter().skip(1).map(|rule| rule.id.0)
        }
        let in_use: BTreeSet<u32> = control
            .policies
            .iter()
            .flatten()
            .filter_map(|loaded| loaded.policy.as_ref())
            .flat_map(ids)
            .collect();
        let (rules, slots) = (&self.shared.rules, &self.shared.rule_slots);
        let clear = |slot: u32| rules.clear(&slot);
        control.slots.assign(slots, &ids(policy).collect(), &in_use, clear)?;
        let number = control.next_generation;
        let loaded = packet_image::load(&self.shared, policy, &control.slots, number);
        let (program, generation) = refused(&*self.audit, &self.instance, "ic_policy", loaded)?;
        self.record_load(program.program())?;
        let sockets =
            Self::prepare_sockets(&self.instance, &mut control, policy, &contents, number)?;
        self.record(AuditAction::MapWrite {
            map: "ic_flat, ic_entries, ic_tuples".to_owned(),
            elements: u64::from(generation.cells)
                + u64::from(generation.entries)
                + u64::from(generation.tuples),
            purpose: format!("policy {} of generation {number}", policy.id()),
        })?;
        if let Some(sockets) = &sockets {
            self.record(AuditAction::MapWrite {
                map: "ic_sock_policy, ic_sock_rows, ic_sock_ids, …".to_owned(),
                elements: sockets.elements() as u64,
                purpose: format!("socket rules of generation {number}"),
            })?;
        }
        self.record(AuditAction::Swap {
            generation: number,
            policy: policy.id().to_string(),
            provisional_ms: provisional.map(|d| d.as_millis() as u64),
        })?;
        self.shared.fill_slot(slot, program.program(), &generation)?;
        if let (Some(all), Some(sockets)) = (&mut control.sockets, &sockets) {
            all.fill_slot(slot, sockets)?;
        }
        control.next_generation += 1;
        control.policies[slot as usize] =
            Some(Loaded { number, program, policy: Some(policy.clone()) });
        let deadline_ns = match provisional {
            // The first policy has none to return to.
            Some(after) if !first => boottime_ns() + after.as_nanos() as u64,
            _ => 0,
        };
        let fallback = if deadline_ns == 0 { slot } else { active };
        self.shared.select(Selector { active: slot, fallback, deadline_ns });
        if deadline_ns == 0 && !first {
            self.retire(&mut control, active)?;
        }
        self.follower.iter().for_each(Follower::wake);
        Ok(())
    }

    /// Whether a policy may take the place of the one in force.
    fn may_swap(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<Selector, ShieldError> {
        self.settle(control)?;
        let selector = self.shared.selector();
        if selector.deadline_ns != 0 {
            let left = selector.deadline_ns.saturating_sub(boottime_ns());
            return Err(ShieldError::ProvisionalPending { left: Duration::from_nanos(left) });
        }
        if policy.sockets().is_some() && control.sockets.is_none() {
            return Err(ShieldError::NoCgroup);
        }
        Ok(selector)
    }

    /// Sees packet sockets from now on, where a policy that is about to be decides of them. The one
    /// in force goes on as before: it says itself whether it does.
    fn watch_packets(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<(), ShieldError> {
        let Some((sockets, rules)) = control.sockets.as_mut().zip(policy.sockets()) else {
            return Ok(());
        };
        let pins = self.directory.as_ref().filter(|pins| pins.has_sockets());
        let watched = sockets.watch_packets(&self.shared, rules, pins);
        match refused(&*self.audit, &self.instance, "ic_packet", watched)? {
            Some(new) => self.record_packets(new),
            None => Ok(()),
        }
    }

    /// The socket rules of a policy that is about to be, where cgroups ask.
    fn prepare_sockets(
        instance: &str,
        control: &mut Control,
        policy: &CompiledPolicy,
        contents: &Contents,
        number: u64,
    ) -> Result<Option<SocketPolicy>, ShieldError> {
        let Some(sockets) = &mut control.sockets else { return Ok(None) };
        let loaded = sockets.prepare(policy, contents, number)?;
        let others = loaded.compiled().shadowed().count().saturating_sub(1);
        if let Some((rule, first)) = loaded.compiled().shadowed().next() {
            tracing::warn!(
                instance,
                others,
                "{rule} never matches: {first} decides of everything before it"
            );
        }
        for what in loaded.missing() {
            let what = what.display();
            tracing::warn!(
                instance,
                "{what} is not there (a directory is no file, and paths of cgroups begin at the root of their hierarchy): rules that name it match no process until it is"
            );
        }
        for (path, why) in loaded.mismatches() {
            let path = path.display();
            tracing::warn!(instance, "{path} is not the file that is pinned, {why}: it is denied");
        }
        Ok(Some(loaded))
    }

    /// Makes final what the kernel has done at a deadline; drops what nothing refers to.
    pub(super) fn settle(&self, control: &mut Control) -> Result<bool, ShieldError> {
        let selector = self.shared.selector();
        let expired = selector.is_expired();
        if selector.deadline_ns != 0 && !expired {
            return Ok(false);
        }
        let active = selector.in_force();
        if expired {
            self.shared.select_if(selector, Selector { active, fallback: active, deadline_ns: 0 });
            let generation = self.shared.generation(active).number;
            self.record(AuditAction::Revert {
                generation,
                reason: "the deadline passed without confirmation".to_owned(),
            })?;
        }
        let other = 1 - active;
        if control.policies[other as usize].is_some() {
            self.retire(control, other)?;
        }
        Ok(expired)
    }

    /// Empties a slot that is no longer selected, once no packet is in it.
    fn retire(&self, control: &mut Control, slot: u32) -> Result<(), ShieldError> {
        self.shared.wait_for_packets()?;
        self.shared.clear_slot(slot)?;
        if let Some(sockets) = &mut control.sockets {
            sockets.clear_slot(slot)?;
        }
        control.policies[slot as usize] = None;
        Ok(())
    }
}

/// A time that a policy may have to be confirmed.
fn checked(deadline: Duration) -> Result<Duration, ShieldError> {
    const MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    match (Duration::from_millis(1)..=MOST).contains(&deadline) {
        true => Ok(deadline),
        false => Err(ShieldError::Deadline(deadline)),
    }
}
