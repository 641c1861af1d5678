use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::channel::{EventReceiver, EventSender, Overflow, Stats, channel};

/// A thread that carries events from a ring buffer to a channel. Dropping it stops the thread.
#[must_use = "dropping the pump ends the events"]
#[derive(Debug)]
pub struct EventPump {
    stop: Arc<AtomicBool>,
    sender: EventSender,
    thread: Option<JoinHandle<()>>,
}

impl EventPump {
    /// Starts it. `carry` waits a moment for events, delivers those that are there, and answers whether
    /// there will be more.
    ///
    /// # Errors
    /// Where the thread cannot be started.
    pub fn start(
        capacity: usize,
        overflow: Overflow,
        mut carry: impl FnMut(&EventSender) -> bool + Send + 'static,
    ) -> io::Result<(Self, EventReceiver)> {
        let (sender, receiver) = channel(capacity, overflow);
        let stop = Arc::new(AtomicBool::new(false));
        let (deliver, stopped) = (sender.clone(), Arc::clone(&stop));
        let thread = Builder::new()
            .name("ironclad-events".to_owned())
            .spawn(move || while !stopped.load(Ordering::Acquire) && carry(&deliver) {})?;
        Ok((Self { stop, sender, thread: Some(thread) }, receiver))
    }

    /// What happened to events on their way.
    pub fn stats(&self) -> Stats {
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
