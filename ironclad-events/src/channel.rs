use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

use crate::decode::decode;
use crate::record::Record;
use crate::wake::Wake;

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
pub(crate) struct Counts {
    received: AtomicU64,
    lost: AtomicU64,
    undecodable: AtomicU64,
}

impl Counts {
    pub(crate) fn read(&self) -> Stats {
        Stats {
            received: self.received.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            undecodable: self.undecodable.load(Ordering::Relaxed),
        }
    }
}

/// The sending end of a channel: the reader of a ring buffer delivers records to it.
#[derive(Clone, Debug)]
pub struct EventSender {
    sender: Sender<Record>,
    /// To make room, and to keep counting after the receiver was dropped.
    oldest: Receiver<Record>,
    overflow: Overflow,
    counts: Arc<Counts>,
    /// The last two are dropped after `sender`, in this order: a receiver that wakes finds the
    /// channel closed.
    _alive: Arc<()>,
    wake: SetOnDrop,
}

#[derive(Clone, Debug)]
struct SetOnDrop(Arc<Wake>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// The receiving end of a channel. Each event goes to one of its clones.
///
/// `for record in &receiver` waits for events, and ends when the channel is closed and empty. An event
/// loop polls the descriptor of [`AsFd`] instead: it is readable while events wait, and once the
/// channel is closed. Call [`try_recv`](Self::try_recv) then until it returns none; only that makes
/// the descriptor not readable again.
#[derive(Clone, Debug)]
pub struct EventReceiver {
    receiver: Receiver<Record>,
    counts: Arc<Counts>,
    senders: Weak<()>,
    wake: Arc<Wake>,
}

/// A channel that holds at most `capacity` events (at least one).
///
/// # Errors
/// Where the process has no descriptor left for [`EventReceiver`]'s `AsFd`.
pub fn channel(capacity: usize, overflow: Overflow) -> io::Result<(EventSender, EventReceiver)> {
    let (sender, receiver) = bounded(capacity.max(1));
    let counts = Arc::new(Counts::default());
    let wake = Arc::new(Wake::new()?);
    let (oldest, alive) = (receiver.clone(), Arc::new(()));
    let senders = Arc::downgrade(&alive);
    Ok((
        EventSender {
            sender,
            oldest,
            overflow,
            counts: Arc::clone(&counts),
            _alive: alive,
            wake: SetOnDrop(Arc::clone(&wake)),
        },
        EventReceiver { receiver, counts, senders, wake },
    ))
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
        self.wake.0.set();
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.counts.read()
    }
}

impl EventReceiver {
    /// The next event; waits for it. None when the channel is closed and empty.
    pub fn recv(&self) -> Option<Record> {
        self.receiver.recv().ok()
    }

    /// The next event; waits for it at most `timeout`. None when the time is over, or the channel is
    /// closed and empty.
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Record> {
        self.receiver.recv_timeout(timeout).ok().or_else(|| self.try_recv())
    }

    /// The next event, where one waits.
    pub fn try_recv(&self) -> Option<Record> {
        match self.receiver.try_recv() {
            Ok(record) => return Some(record),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => self.wake.clear(),
        }
        // An event may have come, or the channel may have been closed, before the descriptor was cleared.
        let again = self.receiver.try_recv();
        if again != Err(TryRecvError::Empty) {
            self.wake.set();
        }
        again.ok()
    }

    /// Whether no sender is left and no event waits: there will be none.
    pub fn is_closed(&self) -> bool {
        self.senders.strong_count() == 0 && self.receiver.is_empty()
    }

    /// Waits for each event, and ends when the channel is closed and empty.
    pub fn iter(&self) -> Iter<'_> {
        Iter { receiver: self }
    }

    /// The events that wait.
    pub fn try_iter(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::from_fn(|| self.try_recv())
    }

    /// The crossbeam receiver, for `select!`. What it takes does not change whether the descriptor of
    /// [`AsFd`] is readable.
    #[cfg(feature = "crossbeam")]
    pub fn as_crossbeam(&self) -> &Receiver<Record> {
        &self.receiver
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.counts.read()
    }
}

/// Readable while events wait, and once the channel is closed. For poll(2) alone: do not read it.
#[cfg(target_os = "linux")]
impl AsFd for EventReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(target_os = "linux")]
impl AsRawFd for EventReceiver {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_fd().as_raw_fd()
    }
}

/// Events of an [`EventReceiver`]: see [`iter`](EventReceiver::iter).
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    receiver: &'a EventReceiver,
}

impl Iterator for Iter<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.receiver.recv()
    }
}

impl<'a> IntoIterator for &'a EventReceiver {
    type Item = Record;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Events of an [`EventReceiver`] that it owns.
#[derive(Clone, Debug)]
pub struct IntoIter {
    receiver: EventReceiver,
}

impl Iterator for IntoIter {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.receiver.recv()
    }
}

impl IntoIterator for EventReceiver {
    type Item = Record;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { receiver: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ironclad_core::abi::{self, Reason};
    use zerocopy::IntoBytes;

    fn channel(capacity: usize, overflow: Overflow) -> (EventSender, EventReceiver) {
        super::channel(capacity, overflow).unwrap()
    }

    /// By poll(2); waits for it at most `timeout`.
    #[cfg(target_os = "linux")]
    fn is_readable(receiver: &EventReceiver, timeout: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec::try_from(timeout).unwrap();
        let mut fds = [PollFd::new(receiver, PollFlags::IN)];
        poll(&mut fds, Some(&timeout)).unwrap() == 1 && fds[0].revents().contains(PollFlags::IN)
    }

    fn event(number: u64) -> abi::ShieldEvent {
        let mut event = abi::ShieldEvent { reason: Reason::Set as u8, ..Default::default() };
        event.hdr.kind = abi::EV_SHIELD;
        event.hdr.len = size_of::<abi::ShieldEvent>() as u16;
        event.hdr.time_ns = number;
        event
    }

    fn drain(receiver: &EventReceiver) -> Vec<u64> {
        receiver.try_iter().map(|record| record.time_ns()).collect()
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

    #[test]
    fn iterators_end_when_the_channel_is_closed() {
        let (sender, receiver) = channel(8, Overflow::DropNewest);
        let clone = receiver.clone();
        (0..4).for_each(|n| sender.deliver(event(n).as_bytes()));
        assert_eq!(receiver.iter().take(2).map(|it| it.time_ns()).collect::<Vec<_>>(), [0, 1]);
        drop(sender);
        let mut seen = Vec::new();
        for record in &receiver {
            seen.push(record.time_ns());
        }
        assert_eq!(seen, [2, 3]);
        assert_eq!(clone.into_iter().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_descriptor_is_readable_while_events_wait() {
        let now = Duration::ZERO;
        let (sender, receiver) = channel(8, Overflow::DropNewest);
        assert!(!is_readable(&receiver, now));
        (0..3).for_each(|n| sender.deliver(event(n).as_bytes()));
        for n in 0..3 {
            assert!(is_readable(&receiver, now));
            assert_eq!(receiver.try_recv().unwrap().time_ns(), n);
        }
        assert!(receiver.try_recv().is_none());
        assert!(!is_readable(&receiver, now));
        sender.deliver(event(3).as_bytes());
        assert!(is_readable(&receiver, now));
        assert_eq!(receiver.recv_timeout(now).unwrap().time_ns(), 3);
        assert!(receiver.recv_timeout(now).is_none());
        assert!(!is_readable(&receiver, now));
        sender.deliver(b"no event");
        assert!(!is_readable(&receiver, now));
        drop(sender);
        assert!(receiver.try_recv().is_none());
        assert!(is_readable(&receiver, now), "a closed channel");
    }

    /// An event loop that waits by poll(2) alone misses no event, whatever the threads' order.
    #[cfg(target_os = "linux")]
    #[test]
    fn an_event_loop_misses_no_event() {
        const EVENTS: u64 = 20_000;
        let (sender, receiver) = channel(4, Overflow::Block(Duration::from_secs(60)));
        let senders: Vec<_> = [sender.clone(), sender]
            .into_iter()
            .map(|sender| {
                std::thread::spawn(move || {
                    (0..EVENTS).for_each(|n| sender.deliver(event(n).as_bytes()))
                })
            })
            .collect();
        let loops: Vec<_> = [receiver.clone(), receiver.clone()]
            .into_iter()
            .map(|receiver| {
                std::thread::spawn(move || {
                    let mut seen = 0;
                    loop {
                        assert!(is_readable(&receiver, Duration::from_secs(60)), "a lost wakeup");
                        match receiver.try_iter().count() as u64 {
                            0 if receiver.is_closed() => return seen,
                            some => seen += some,
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|thread| thread.join().unwrap());
        let seen: u64 = loops.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!((seen, receiver.stats().lost), (2 * EVENTS, 0));
    }
}
