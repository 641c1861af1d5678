use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ironclad_core::ErrorChain;

use crate::channel::{Counts, EventReceiver, EventSender, Overflow, Stats, channel};

/// How long a read waits: the kernel wakes a reader fifty times a second at most, and records that came
/// without a wakeup are read then.
const WAIT: Duration = Duration::from_millis(50);

/// A thread that carries events from a ring buffer to a channel. Dropping it stops the thread, and closes
/// the channel.
#[must_use = "dropping the pump ends the events"]
#[derive(Debug)]
pub struct EventPump {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl EventPump {
    /// Starts the thread. `read` waits for records for the given time at most, and passes those that are
    /// there on: `EventRing::poll` of `ironclad-bpf` does. The thread ends, and the channel is closed,
    /// after an error, which is logged.
    ///
    /// # Errors
    /// Where the thread cannot be started, or the process has no descriptor left.
    pub fn spawn<E: Error + 'static>(
        capacity: usize,
        overflow: Overflow,
        mut read: impl FnMut(Duration, &mut dyn FnMut(&[u8])) -> Result<usize, E> + Send + 'static,
    ) -> io::Result<(Self, EventReceiver)> {
        Self::start(capacity, overflow, move |sender| {
            read(WAIT, &mut |bytes| sender.deliver(bytes))
                .inspect_err(
                    |error| tracing::error!(error = %ErrorChain::new(error), "no more events"),
                )
                .is_ok()
        })
    }

    /// Starts the thread. `carry` waits a moment for events, delivers those that are there, and returns
    /// whether there will be more.
    ///
    /// # Errors
    /// Where the thread cannot be started, or the process has no descriptor left.
    pub fn start(
        capacity: usize,
        overflow: Overflow,
        mut carry: impl FnMut(&EventSender) -> bool + Send + 'static,
    ) -> io::Result<(Self, EventReceiver)> {
        let (sender, receiver) = channel(capacity, overflow)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (counts, stopped) = (sender.counts(), Arc::clone(&stop));
        let thread = ironclad_core::thread("ironclad-events")
            .spawn(move || while !stopped.load(Ordering::Acquire) && carry(&sender) {})?;
        Ok((Self { stop, counts, thread: Some(thread) }, receiver))
    }

    /// What happened to events so far.
    pub fn stats(&self) -> Stats {
        self.counts.read()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_ends_the_thread_and_closes_the_channel() {
        let mut reads = 0;
        let (pump, receiver) = EventPump::spawn(8, Overflow::DropNewest, move |_, deliver| {
            reads += 1;
            deliver(b"no event");
            if reads < 3 { Ok(1) } else { Err(io::Error::other("corrupt")) }
        })
        .unwrap();
        assert!(receiver.recv().is_none());
        assert!(receiver.is_closed());
        assert_eq!(pump.stats(), Stats { undecodable: 3, ..Stats::default() });
    }
}
