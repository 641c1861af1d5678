//! Readers of events, and the rules and prefixes that numbers in events stand for.
use ironclad_bpf::EventRing;
use ironclad_core::{Cidr, RuleId};
use ironclad_events::{EventPump, EventReceiver, Overflow};

use super::Shield;
use crate::error::{Failure, ShieldError};

impl Shield {
    /// A reader of the instance's events. The ring buffer has one reader at a time.
    ///
    /// Its descriptor can be polled by an async runtime; see [`EventRing`].
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the ring buffer cannot be mapped.
    pub fn event_ring(&self) -> Result<EventRing, ShieldError> {
        Ok(EventRing::new(self.core.shared.events())?)
    }

    /// Starts a thread that reads events and sends them to a channel of `capacity` events.
    /// The ring buffer has one reader at a time: this one, or an [`event_ring`](Self::event_ring).
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the ring buffer cannot be mapped, `ShieldErrorKind::Thread`.
    pub fn events(
        &self,
        capacity: usize,
        overflow: Overflow,
    ) -> Result<(EventPump, EventReceiver), ShieldError> {
        let mut ring = self.event_ring()?;
        let started =
            EventPump::spawn(capacity, overflow, move |wait, deliver| ring.poll(wait, deliver));
        Ok(started.map_err(Failure::Thread)?)
    }

    /// The rule that an event's slot stands for; none for slot 0 and for slots without a rule.
    pub fn rule_of_slot(&self, slot: u32) -> Option<RuleId> {
        self.core.lock().slots.owner(slot).map(RuleId)
    }

    /// The socket rule that an event names by its index, where the event's generation is in force.
    pub fn socket_rule(&self, generation: u64, rule: usize) -> Option<RuleId> {
        let control = self.core.lock();
        let loaded = control.policies.iter().flatten().find(|l| l.number == generation)?;
        Some(loaded.policy.as_ref()?.sockets()?.rules().get(rule)?.id)
    }

    /// The prefix that an event's entry stands for, where the event's generation is in force.
    pub fn prefix_of_entry(&self, generation: u64, entry: u32) -> Option<Cidr> {
        let control = self.core.lock();
        let loaded = control.policies.iter().flatten().find(|l| l.number == generation)?;
        loaded.policy.as_ref()?.entry_cidr(entry as usize)
    }
}
