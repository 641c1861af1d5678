use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::decode::decode;
use crate::record::Record;

/// What becomes of an event that finds the channel full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// It is lost; those that wait stay.
    DropNewest,
    /// The one that waits longest is lost; it takes its place.
    DropOldest,
    /// The pump waits for room this long at most, and then the event is lost. Meanwhile events
    /// gather in the kernel's ring buffer, and are lost and counted there when that is full.
    Block(Duration),
}

/// What happened to events between the ring buffer and the receiver.
///
/// `received + undecodable` came from the kernel; of those received, `lost` never reached the
/// receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Events that were decoded.
    pub received: u64,
    /// Events that found no room, or no receiver any more.
    pub lost: u64,
    /// Records that were no event.
    pub undecodable: u64,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    lost: AtomicU64,
    undecodable: AtomicU64,
}

impl Counts {
    fn read(&self) -> Stats {
        Stats {
            received: self.received.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            undecodable: self.undecodable.load(Ordering::Relaxed),
        }
    }
}

/// The end into which the ring buffer's reader puts records.
#[derive(Clone, Debug)]
pub struct EventSender {
    sender: Sender<Record>,
    /// To make room, and to keep counting when the receiver is gone.
    oldest: Receiver<Record>,
    overflow: Overflow,
    counts: Arc<Counts>,
}

/// The end from which an agent takes events. Clones share the events between them.
#[derive(Clone, Debug)]
pub struct EventReceiver {
    receiver: Receiver<Record>,
    counts: Arc<Counts>,
}

/// A channel that holds at most `capacity` events (at least one).
pub fn channel(capacity: usize, overflow: Overflow) -> (EventSender, EventReceiver) {
    let (sender, receiver) = bounded(capacity.max(1));
    let counts = Arc::new(Counts::default());
    (
        EventSender { sender, oldest: receiver.clone(), overflow, counts: Arc::clone(&counts) },
        EventReceiver { receiver, counts },
    )
}

impl EventSender {
    /// Decodes a record and passes it on, as the overflow policy says.
    pub fn deliver(&self, bytes: &[u8]) {
        match decode(bytes) {
            Ok(event) => self.send(Record::from(&event)),
            Err(_) => {
                self.counts.undecodable.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn send(&self, mut record: Record) {
        self.counts.received.fetch_add(1, Ordering::Relaxed);
        let lost = || {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        };
        match self.overflow {
            Overflow::DropNewest => {
                if self.sender.try_send(record).is_err() {
                    lost();
                }
            }
            Overflow::Block(patience) => {
                if self.sender.send_timeout(record, patience).is_err() {
                    lost();
                }
            }
            Overflow::DropOldest => {
                while let Err(TrySendError::Full(back)) = self.sender.try_send(record) {
                    record = back;
                    // The receiver may have made room just now: then nothing is lost.
                    if self.oldest.try_recv().is_ok() {
                        lost();
                    }
                }
            }
        }
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.counts.read()
    }
}

impl EventReceiver {
    /// The next event; waits for it at most `timeout`. None in time, or none ever again.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Record> {
        self.receiver.recv_timeout(timeout).ok()
    }

    /// The next event, where one waits.
    pub fn try_recv(&self) -> Option<Record> {
        self.receiver.try_recv().ok()
    }

    /// The crossbeam receiver, for `select!`.
    pub fn as_crossbeam(&self) -> &Receiver<Record> {
        &self.receiver
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.counts.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironclad_core::abi::{self, Reason};
    use zerocopy::IntoBytes;

    fn event(number: u64) -> abi::ShieldEvent {
        let mut event = abi::ShieldEvent { reason: Reason::Set as u8, ..Default::default() };
        event.hdr.kind = abi::EV_SHIELD;
        event.hdr.len = size_of::<abi::ShieldEvent>() as u16;
        event.hdr.time_ns = number;
        event
    }

    fn drain(receiver: &EventReceiver) -> Vec<u64> {
        std::iter::from_fn(|| receiver.try_recv()).map(|record| record.time_ns()).collect()
    }

    #[test]
    fn the_newest_or_the_oldest_is_lost() {
        for (overflow, kept) in
            [(Overflow::DropNewest, [0, 1, 2]), (Overflow::DropOldest, [7, 8, 9])]
        {
            let (sender, receiver) = channel(3, overflow);
            (0..10).for_each(|n| sender.deliver(event(n).as_bytes()));
            assert_eq!(drain(&receiver), kept);
            assert_eq!(sender.stats(), Stats { received: 10, lost: 7, undecodable: 0 });
        }
    }

    #[test]
    fn nothing_is_lost_while_a_receiver_keeps_up() {
        let (sender, receiver) = channel(2, Overflow::Block(Duration::from_secs(60)));
        let reader = std::thread::spawn(move || {
            (0..1000)
                .map(|_| receiver.recv_timeout(Duration::from_secs(60)).unwrap().time_ns())
                .collect::<Vec<_>>()
        });
        (0..1000).for_each(|n| sender.deliver(event(n).as_bytes()));
        assert_eq!(reader.join().unwrap(), (0..1000).collect::<Vec<_>>());
        assert_eq!(sender.stats().lost, 0);
    }

    #[test]
    fn every_event_is_received_or_lost() {
        for overflow in
            [Overflow::DropNewest, Overflow::DropOldest, Overflow::Block(Duration::from_micros(50))]
        {
            let (sender, receiver) = channel(8, overflow);
            let senders: Vec<_> = (0..3)
                .map(|_| {
                    let sender = sender.clone();
                    std::thread::spawn(move || {
                        (0..5000).for_each(|n| sender.deliver(event(n).as_bytes()))
                    })
                })
                .collect();
            let mut got = 0;
            while senders.iter().any(|thread| !thread.is_finished()) {
                got += drain(&receiver).len() as u64;
            }
            senders.into_iter().for_each(|thread| thread.join().unwrap());
            got += drain(&receiver).len() as u64;
            let stats = receiver.stats();
            assert_eq!(stats.received, 15_000, "{overflow:?}");
            assert_eq!(got + stats.lost, 15_000, "{overflow:?}");
        }
    }
}
