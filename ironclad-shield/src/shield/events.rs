//! Readers of events.
use ironclad_bpf::EventRing;
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
}
