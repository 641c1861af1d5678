//! Events, and what their numbers stand for.
use ironclad_bpf::EventRing;
use ironclad_core::{Cidr, RuleId};
use ironclad_events::{EventPump, EventReceiver, Overflow};

use super::Shield;
use crate::error::ShieldError;
use crate::pump;

impl Shield {
    /// A reader of the instance's events. Records go to one reader only: open one.
    ///
    /// Its descriptor can be polled by an async runtime; see [`EventRing`].
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the ring buffer cannot be mapped.
    pub fn event_ring(&self) -> Result<EventRing, ShieldError> {
        Ok(EventRing::new(self.shared.events())?)
    }

    /// Reads events in a thread of its own and hands them to a channel of `capacity` events.
    /// Records go to one reader only: call it once, or read an [`event_ring`](Self::event_ring).
    ///
    /// # Errors
    /// [`ShieldError::Bpf`] where the ring buffer cannot be mapped, [`ShieldError::Thread`].
    pub fn events(
        &self,
        capacity: usize,
        overflow: Overflow,
    ) -> Result<(EventPump, EventReceiver), ShieldError> {
        pump::start(self.event_ring()?, capacity, overflow)
    }

    /// The rule that an event's slot stands for; none for slot 0 and for slots of rules that are gone.
    pub fn rule_of_slot(&self, slot: u32) -> Option<RuleId> {
        self.lock().slots.owner(slot).map(RuleId)
    }

    /// The socket rule that an event names by its place, where the event's generation is in force.
    pub fn socket_rule(&self, generation: u64, rule: usize) -> Option<RuleId> {
        let control = self.lock();
        let loaded = control.policies.iter().flatten().find(|l| l.number == generation)?;
        Some(loaded.policy.as_ref()?.sockets()?.rules().get(rule)?.id)
    }

    /// The prefix that an event's entry stands for, where the event's generation is in force.
    pub fn prefix_of_entry(&self, generation: u64, entry: u32) -> Option<Cidr> {
        let control = self.lock();
        let loaded = control.policies.iter().flatten().find(|l| l.number == generation)?;
        loaded.policy.as_ref()?.entry_cidr(entry as usize)
    }
}
