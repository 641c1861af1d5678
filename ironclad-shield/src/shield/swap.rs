//! Replaces the policy: for good, or provisionally until it is confirmed or reverted.
use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ironclad_bpf::boottime_ns;
use ironclad_bpf::shield::{PolicyProgram, Selector};
use ironclad_core::audit::AuditAction;
use ironclad_policy::socket::CompiledSockets;
use ironclad_policy::{CompiledPolicy, PolicyPart, PolicySource, PolicyWarning};

use super::paths::lock_with_contents;
use super::{Control, Loaded, Shield, packet_image};
use crate::error::{Failure, ShieldError};
use crate::sockets::SocketPolicy;
use crate::sockets::contents::Contents;
use crate::sockets::follow::Follower;
use crate::sockets::scripts::refuse_scripts;

/// How [`Shield::apply_with`] applies a policy. By default for good, as [`Shield::apply`] does.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct ApplyOptions {
    provisional: Option<Duration>,
}

impl ApplyOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Until `deadline` has passed, from 1 ms to 365 days. Unless [`Shield::confirm`] is called
    /// before, the kernel itself returns to the previous policy, whether or not this process is
    /// alive. The first policy of an instance has none to return to, and stays in force.
    pub fn provisional(mut self, deadline: Duration) -> Self {
        self.provisional = Some(deadline);
        self
    }

    fn check(self) -> Result<Self, ShieldError> {
        const SHORTEST: Duration = Duration::from_millis(1);
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        match self.provisional {
            Some(deadline) if !(SHORTEST..=LONGEST).contains(&deadline) => {
                Err(Failure::Deadline(deadline).into())
            }
            _ => Ok(self),
        }
    }
}

impl Shield {
    /// Replaces the whole policy. Each packet sees the old one or the new one.
    ///
    /// A bundle is verified, and its serial is kept, before its policy comes into force.
    ///
    /// # Errors
    /// `ShieldErrorKind::ProvisionalPending` while a provisional policy waits;
    /// `ShieldErrorKind::Unenforced` and `ShieldErrorKind::NoCgroup` where Shield does not enforce a part
    /// of the policy, and the builder did not say so;
    /// `ShieldErrorKind::Unsigned`, `ShieldErrorKind::NoTrust` and `ShieldErrorKind::Bundle`
    /// where the policy is not accepted; otherwise what the kernel reported. Of a bundle that was
    /// accepted, this is the source of `ShieldErrorKind::NotApplied`. The old policy is in force
    /// then.
    pub fn apply<'a>(&self, policy: impl Into<PolicySource<'a>>) -> Result<(), ShieldError> {
        self.apply_with(policy, ApplyOptions::new())
    }

    /// Like [`apply`](Self::apply), with options: a provisional policy ends at its deadline unless it
    /// is confirmed.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use ironclad_policy::Policy;
    /// use ironclad_shield::{ApplyOptions, Shield};
    ///
    /// let shield = Shield::builder("agent").interface("eth0").start(&Policy::builder().compile()?)?;
    /// let policy = Policy::builder().compile()?;
    /// shield.apply_with(&policy, ApplyOptions::new().provisional(Duration::from_secs(60)))?;
    /// // Check that the host is still reachable.
    /// shield.confirm()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The serial of a bundle is kept, also where the kernel returns to the previous policy.
    ///
    /// # Errors
    /// As of [`apply`](Self::apply), and `ShieldErrorKind::Deadline`.
    pub fn apply_with<'a>(
        &self,
        policy: impl Into<PolicySource<'a>>,
        options: ApplyOptions,
    ) -> Result<(), ShieldError> {
        let source = policy.into();
        self.trust.check(&source)?;
        let ApplyOptions { provisional } = options.check()?;
        self.trust.resolve(source, &self.core.audit, |policy| self.swap(policy, provisional))
    }

    /// Makes a provisional policy final.
    ///
    /// # Errors
    /// `ShieldErrorKind::NotProvisional`, or `ShieldErrorKind::Expired` where it is too late.
    pub fn confirm(&self) -> Result<(), ShieldError> {
        let mut control = self.core.lock();
        let selector = self.provisional(&mut control)?;
        let kept = Selector { active: selector.active, fallback: selector.active, deadline_ns: 0 };
        if !self.core.shared.select_if(selector, kept) {
            return Err(Failure::Expired.into());
        }
        let generation = self.core.shared.generation(selector.active).number;
        self.retire(&mut control, selector.fallback)?;
        self.core.record(AuditAction::Confirm { generation })
    }

    /// Returns from a provisional policy to the previous one at once.
    ///
    /// # Errors
    /// `ShieldErrorKind::NotProvisional`, or `ShieldErrorKind::Expired` where it has returned
    /// already.
    pub fn revert(&self) -> Result<(), ShieldError> {
        let mut control = self.core.lock();
        let selector = self.provisional(&mut control)?;
        let back =
            Selector { active: selector.fallback, fallback: selector.fallback, deadline_ns: 0 };
        self.core.shared.select(back);
        let generation = self.core.shared.generation(selector.fallback).number;
        self.retire(&mut control, selector.active)?;
        self.core.record(AuditAction::Revert { generation, reason: "by request".to_owned() })
    }

    fn provisional(&self, control: &mut Control) -> Result<Selector, ShieldError> {
        if self.reconcile(control)? {
            return Err(Failure::Expired.into());
        }
        let selector = self.core.shared.selector();
        match selector.deadline_ns {
            0 => Err(Failure::NotProvisional.into()),
            _ => Ok(selector),
        }
    }

    pub(super) fn swap(
        &self,
        policy: &CompiledPolicy,
        provisional: Option<Duration>,
    ) -> Result<(), ShieldError> {
        self.unsigned.check(policy, &self.core.audit)?;
        // Before files are read, and again: they are read without the lock.
        self.check_replaceable(&mut self.core.lock(), policy)?;
        let empty = CompiledSockets::empty();
        let rules = policy.sockets().unwrap_or(&empty);
        refuse_scripts(rules)?;
        let (mut control, contents) =
            lock_with_contents(&self.core.control, Some(rules), &AtomicBool::new(false))?;
        let active = self.check_replaceable(&mut control, policy)?.active;
        let is_first = control.policies[active as usize].is_none();
        // The first policy goes into the slot that is selected already.
        let slot = if is_first { active } else { 1 - active };

        self.warn(policy);
        self.watch_packets(&mut control, policy)?;
        self.assign_rule_slots(&mut control, policy)?;
        let number = control.next_generation;
        let generation = packet_image::generation(policy, number);
        let program = self.load_packets(&control, policy, number)?;
        let sockets = self.prepare_sockets(&mut control, policy, &contents, number)?;
        self.core.record_swap(policy, &generation, sockets.as_ref(), provisional)?;
        self.core.shared.fill_slot(slot, program.as_ref(), &generation)?;
        if let (Some(all), Some(sockets)) = (&mut control.sockets, &sockets) {
            all.fill_slot(slot, sockets)?;
        }
        control.next_generation += 1;
        let Control { names, slots, .. } = &mut *control;
        names.add(number, policy, slots);
        control.policies[slot as usize] =
            Some(Loaded { number, program, policy: Some(policy.clone()) });
        let deadline_ns = match provisional {
            // The first policy has none to return to.
            Some(after) if !is_first => boottime_ns() + after.as_nanos() as u64,
            _ => 0,
        };
        let fallback = if deadline_ns == 0 { slot } else { active };
        self.core.shared.select(Selector { active: slot, fallback, deadline_ns });
        if deadline_ns == 0 && !is_first {
            self.retire(&mut control, active)?;
        }
        self.follower.iter().for_each(Follower::wake);
        Ok(())
    }

    /// Loads what decides on packets; nothing where no interface is protected and the policy treats packets
    /// as an empty one does. Loading is most of the time of a swap of socket rules.
    fn load_packets(
        &self,
        control: &Control,
        policy: &CompiledPolicy,
        number: u64,
    ) -> Result<Option<PolicyProgram>, ShieldError> {
        if !control.has_links && packet_image::is_empty(policy)? {
            return Ok(None);
        }
        let counter = |rule| control.slots.of(rule);
        let loaded = packet_image::load(&self.core.shared, policy, counter, number);
        let mut program = self.core.audit.refused("ic_policy", loaded)?;
        self.core.record_load(program.program())?;
        if control.has_ip_links {
            self.core.load_ip(&mut program, None)?;
        }
        Ok(Some(program))
    }

    /// Whether `policy` may replace the one in force.
    fn check_replaceable(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<Selector, ShieldError> {
        self.reconcile(control)?;
        let selector = self.core.shared.selector();
        if selector.deadline_ns != 0 {
            let left = selector.deadline_ns.saturating_sub(boottime_ns());
            return Err(Failure::ProvisionalPending { left: Duration::from_nanos(left) }.into());
        }
        self.refuse_unenforced(control, policy)?;
        Ok(selector)
    }

    /// Logs likely mistakes in the policy. The agent's gateways are allowed whatever it says.
    fn warn(&self, policy: &CompiledPolicy) {
        let has_gateways = !self.core.shared.gateways().is_empty();
        let is_meant = |it: &&PolicyWarning| has_gateways && **it == PolicyWarning::NothingAllowed;
        for warning in policy.warnings().iter().filter(|it| !is_meant(it)) {
            tracing::warn!(instance = self.core.audit.instance(), "{warning}");
        }
    }

    /// Refuses a policy of which a part would be ignored.
    fn refuse_unenforced(
        &self,
        control: &Control,
        policy: &CompiledPolicy,
    ) -> Result<(), ShieldError> {
        for (part, is_enforced, failure) in [
            (
                PolicyPart::Packets,
                self.has_interfaces || !control.links.is_empty(),
                Failure::NoInterfaceForPackets,
            ),
            (PolicyPart::Sockets, control.sockets.is_some(), Failure::NoCgroup),
            (PolicyPart::Files, false, Failure::FileRules),
        ] {
            if policy.has_part(part) && !is_enforced && !self.unenforced.contains(&part) {
                return Err(failure.into());
            }
        }
        Ok(())
    }

    /// Observes packet sockets from now on, where the policy to be applied decides about them. The
    /// policy in force is not affected: its tables say whether it decides about them.
    fn watch_packets(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<(), ShieldError> {
        let Some((sockets, rules)) = control.sockets.as_mut().zip(policy.sockets()) else {
            return Ok(());
        };
        let pins = self.core.directory.as_deref().filter(|pins| pins.has_sockets());
        let watched = sockets.watch_packets(&self.core.shared, rules, pins);
        match self.core.audit.refused("ic_packet", watched)? {
            Some(new) => self.core.record_packets(new),
            None => Ok(()),
        }
    }

    /// Assigns counters to the packet rules of a policy. Policies in the kernel keep theirs.
    fn assign_rule_slots(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
    ) -> Result<(), ShieldError> {
        fn ids(policy: &CompiledPolicy) -> impl Iterator<Item = u32> {
            policy.rules().iter().skip(1).map(|rule| rule.id.0)
        }
        let loaded = control.policies.iter().flatten();
        let in_use: BTreeSet<u32> =
            loaded.filter_map(|loaded| loaded.policy.as_ref()).flat_map(ids).collect();
        let (rules, slots) = (&self.core.shared.rules, &self.core.shared.rule_slots);
        control.slots.assign(slots, &ids(policy).collect(), &in_use, |slot| rules.clear(&slot))
    }

    /// The socket rules of the policy to be applied, where Shield has cgroups.
    fn prepare_sockets(
        &self,
        control: &mut Control,
        policy: &CompiledPolicy,
        contents: &Contents,
        number: u64,
    ) -> Result<Option<SocketPolicy>, ShieldError> {
        let instance = self.core.audit.instance();
        let Some(sockets) = &mut control.sockets else { return Ok(None) };
        let prepared = sockets.prepare(policy, contents, number)?;
        let more = prepared.compiled().shadowed().count().saturating_sub(1);
        if let Some((rule, first)) = prepared.compiled().shadowed().next() {
            tracing::warn!(
                instance,
                more,
                "{rule} never matches: {first} decides everything before it"
            );
        }
        for path in prepared.missing() {
            let path = path.display();
            tracing::warn!(
                instance,
                "{path} does not exist (a directory is no file, and paths of cgroups begin at the root of their hierarchy): rules that name it match no process until it does"
            );
        }
        for (path, why) in prepared.mismatches() {
            let path = path.display();
            tracing::warn!(instance, "{path} is not the file that is pinned, {why}: it is denied");
        }
        Ok(Some(prepared))
    }

    /// Makes final what the kernel has done at a deadline, and retires a policy that the selector does
    /// not name. Returns whether a deadline had passed.
    pub(super) fn reconcile(&self, control: &mut Control) -> Result<bool, ShieldError> {
        let selector = self.core.shared.selector();
        let is_expired = selector.is_expired();
        if selector.deadline_ns != 0 && !is_expired {
            return Ok(false);
        }
        let active = selector.in_force();
        if is_expired {
            self.core
                .shared
                .select_if(selector, Selector { active, fallback: active, deadline_ns: 0 });
            let generation = self.core.shared.generation(active).number;
            self.core.record(AuditAction::Revert {
                generation,
                reason: "the deadline passed without confirmation".to_owned(),
            })?;
        }
        let other = 1 - active;
        if control.policies[other as usize].is_some() {
            self.retire(control, other)?;
        }
        Ok(is_expired)
    }

    /// Empties a slot that the selector does not name, once no packet is in its program.
    fn retire(&self, control: &mut Control, slot: u32) -> Result<(), ShieldError> {
        self.core.shared.wait_for_packets()?;
        self.core.shared.clear_slot(slot)?;
        if let Some(sockets) = &mut control.sockets {
            sockets.clear_slot(slot)?;
        }
        control.policies[slot as usize] = None;
        Ok(())
    }
}
