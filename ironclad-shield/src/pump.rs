use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ironclad_bpf::EventRing;
use ironclad_events::{EventReceiver, EventSender, Overflow, channel};

use crate::error::ShieldError;

/// The kernel wakes a reader fifty times a second at most; what came without a wakeup is read then.
const PATIENCE: Duration = Duration::from_millis(50);

/// The thread that carries events from the ring buffer to a channel. Dropping it stops the thread.
#[must_use = "dropping the pump ends the events"]
#[derive(Debug)]
pub struct EventPump {
    stop: Arc<AtomicBool>,
    sender: EventSender,
    thread: Option<JoinHandle<()>>,
}

impl EventPump {
    pub(crate) fn start(
        mut ring: EventRing,
        capacity: usize,
        overflow: Overflow,
    ) -> Result<(Self, EventReceiver), ShieldError> {
        let (sender, receiver) = channel(capacity, overflow);
        let stop = Arc::new(AtomicBool::new(false));
        let (deliver, stopped) = (sender.clone(), Arc::clone(&stop));
        let thread = Builder::new()
            .name("ironclad-events".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    if let Err(error) = ring.poll(PATIENCE, |bytes| deliver.deliver(bytes)) {
                        tracing::error!(%error, "no more events");
                        return;
                    }
                }
            })
            .map_err(ShieldError::Thread)?;
        Ok((Self { stop, sender, thread: Some(thread) }, receiver))
    }

    /// What happened to events on their way.
    pub fn stats(&self) -> ironclad_events::Stats {
        self.sender.stats()
    }
}

impl Drop for EventPump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}
