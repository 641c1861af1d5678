use std::time::Duration;

use ironclad_bpf::EventRing;
use ironclad_core::ErrorChain;
use ironclad_events::{EventPump, EventReceiver, Overflow};

use crate::error::ShieldError;

/// The kernel wakes a reader fifty times a second at most; what came without a wakeup is read then.
const PATIENCE: Duration = Duration::from_millis(50);

pub(crate) fn start(
    mut ring: EventRing,
    capacity: usize,
    overflow: Overflow,
) -> Result<(EventPump, EventReceiver), ShieldError> {
    EventPump::start(capacity, overflow, move |deliver| {
        ring.poll(PATIENCE, |bytes| deliver.deliver(bytes))
            .inspect_err(|error| tracing::error!(error = %ErrorChain::new(error), "no more events"))
            .is_ok()
    })
    .map_err(ShieldError::Thread)
}
