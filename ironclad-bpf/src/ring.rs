use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::error::{BpfError, Failure};
use crate::map::{MapInfo, map_info};
use crate::mapping::Mapping;

/// Refuses sizes that libbpf would round up in silence.
pub(crate) fn check_size(bytes: u32) -> Result<(), BpfError> {
    const LARGEST: u32 = 1 << 31;
    let least = u32::try_from(rustix::param::page_size()).unwrap_or(LARGEST);
    if bytes >= least && bytes.is_power_of_two() {
        return Ok(());
    }
    let fits = bytes.max(least).checked_next_power_of_two().unwrap_or(LARGEST);
    let hint = format!("give `ring_bytes` a power of two from {least} on, such as {fits}");
    Err(BpfError::from(Failure::RingSize { bytes }).with_hint(hint))
}

/// Ids of the ring buffers that this process reads.
static READ_HERE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// The right to read a ring buffer, which one reader of this process has. Two readers would share the
/// consumer's position, and each would get some of the records, or one twice.
#[derive(Debug)]
struct Claim(u32);

impl Claim {
    fn of(info: MapInfo) -> Result<Self, BpfError> {
        let mut claimed = READ_HERE.lock().unwrap_or_else(PoisonError::into_inner);
        match claimed.insert(info.id) {
            true => Ok(Self(info.id)),
            false => Err(Failure::RingInUse { map: info.name }.into()),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        READ_HERE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

fn failed(source: io::Error) -> BpfError {
    BpfError::system("opening the ring buffer", source)
}

fn corrupt() -> BpfError {
    let what = "its positions or the length of a record are wrong";
    BpfError::system("reading the ring buffer", io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Bytes of the header before each record: its length with flags, and a number of the kernel's.
const HEADER: u64 = 8;
/// In the length: the record is not complete yet.
const BUSY: u32 = 1 << 31;
/// In the length: the record is to be skipped.
const DISCARDED: u32 = 1 << 30;

/// The reading end of a ring buffer. One reader at a time; it may move between threads.
///
/// It needs no epoll(7), whose watches each user has a limited number of, root included.
// The layout is in Documentation/bpf/ringbuf.rst of the kernel: a page with the consumer's position, one with the
// producer's, and the data twice, so that no record is split. Positions count bytes and are never reset.
#[derive(Debug)]
pub struct EventRing {
    /// The page of the consumer's position.
    consumer: Mapping,
    /// The page of the producer's position, and the data.
    producer: Mapping,
    /// Bytes of data, a power of two.
    size: u64,
    /// The record that is delivered: others may write to the shared memory.
    record: Vec<u64>,
    fd: OwnedFd,
    _claim: Claim,
}

impl EventRing {
    /// Opens the reading end of the ring buffer map `map`.
    ///
    /// The kernel lets other processes read the same map. For pinned maps the lock of
    /// [`PinDirectory`](crate::PinDirectory) keeps a second agent out.
    ///
    /// # Errors
    /// `BpfErrorKind::RingInUse` where this process reads it already; `BpfErrorKind::System` where it
    /// cannot be mapped.
    pub fn new(map: BorrowedFd<'_>) -> Result<Self, BpfError> {
        let info = map_info(map).map_err(failed)?;
        let is_ring = info.kind == libbpf_sys::BPF_MAP_TYPE_RINGBUF;
        let size = usize::try_from(info.max_entries).ok().filter(|it| it.is_power_of_two());
        let size = size.filter(|_| is_ring).ok_or_else(|| failed(Errno::INVAL.into()))?;
        let claim = Claim::of(info)?;
        let fd = map.try_clone_to_owned().map_err(failed)?;
        Self::map(fd, size, claim).map_err(failed)
    }

    fn map(fd: OwnedFd, size: usize, claim: Claim) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let twice = size.checked_mul(2).and_then(|data| data.checked_add(page));
        let consumer = Mapping::new(fd.as_fd(), page, true)?;
        let producer =
            Mapping::from_offset(fd.as_fd(), page as u64, twice.ok_or(Errno::NOMEM)?, false)?;
        let (size, record) = (size as u64, Vec::new());
        Ok(Self { consumer, producer, size, record, fd, _claim: claim })
    }

    /// Hands the records that are there to `deliver`, without waiting; returns how many. Ends after as many bytes as the
    /// ring buffer has, where records keep coming, and before a record that is not complete.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the ring buffer is corrupt.
    pub fn consume(&mut self, mut deliver: impl FnMut(&[u8])) -> Result<usize, BpfError> {
        let mut count = 0;
        let mut at = self.consumer.u64_at(0).load(Ordering::Acquire);
        let mut end = at;
        let mut has_moved = false;
        let begin = at;
        while at.wrapping_sub(begin) < self.size {
            if at == end {
                end = self.producer.u64_at(0).load(Ordering::Acquire);
                // Also where another process has written to either.
                if end.wrapping_sub(at) > self.size || at % HEADER != 0 {
                    return Err(corrupt());
                }
            }
            let length = match at == end {
                true => BUSY,
                false => self.producer.u32_at(self.place(at)).load(Ordering::Acquire),
            };
            if length & BUSY != 0 {
                if !std::mem::take(&mut has_moved) {
                    return Ok(count);
                }
                // The kernel completes a record, then wakes a reader whose position is at the record: a reader that
                // writes its position looks again afterwards.
                fence(Ordering::SeqCst);
                continue;
            }
            let bytes = length & !DISCARDED;
            let next = at.wrapping_add(HEADER + u64::from(bytes).next_multiple_of(HEADER));
            if next.wrapping_sub(at) > end.wrapping_sub(at) {
                return Err(corrupt());
            }
            let is_record = length & DISCARDED == 0;
            if is_record {
                self.copy(self.place(at.wrapping_add(HEADER)), bytes as usize);
            }
            self.consumer.u64_at(0).store(next, Ordering::Release);
            (at, has_moved) = (next, true);
            if is_record {
                deliver(&self.record.as_bytes()[..bytes as usize]);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Where a position is in the memory of the producer. What begins there has room for the size of the data.
    fn place(&self, position: u64) -> usize {
        rustix::param::page_size() + (position & (self.size - 1)) as usize
    }

    /// Copies a record, which ends within the data.
    fn copy(&mut self, from: usize, bytes: usize) {
        let words = bytes.div_ceil(size_of::<u64>());
        if self.record.len() < words {
            self.record.resize(words, 0);
        }
        self.producer.read_u64(from, &mut self.record[..words]);
    }

    /// Like [`consume`](Self::consume), but waits up to `timeout` for the first record.
    ///
    /// The kernel does not wake a reader for each record: a reader that waits in a loop should give
    /// a timeout of about 50 ms, after which it takes what is there.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the ring buffer is corrupt. A signal ends the wait without error.
    pub fn poll(
        &mut self,
        timeout: Duration,
        deliver: impl FnMut(&[u8]),
    ) -> Result<usize, BpfError> {
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => self.consume(deliver),
            Ok(_) => {
                let count = self.consume(deliver)?;
                if count == 0 {
                    // The first record is not complete: its process does not run at the moment.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(count)
            }
            Err(e) => Err(BpfError::system("waiting for the ring buffer", e.into())),
        }
    }
}

/// Readable when the ring buffer has records, also where the first is not complete.
impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for EventRing {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::BpfErrorKind;

    /// Memory as the kernel shares it.
    struct Producer {
        memory: Mapping,
        at: u64,
    }

    impl Producer {
        /// Of one page of data, where all bytes until `at` have been produced and consumed.
        fn new(at: u64) -> (Self, EventRing) {
            let page = rustix::param::page_size();
            let fd = memfd_create(c"ring", MemfdFlags::CLOEXEC).unwrap();
            ftruncate(&fd, 4 * page as u64).unwrap();
            let this = Self { memory: Mapping::new(fd.as_fd(), 4 * page, true).unwrap(), at };
            this.memory.u64_at(0).store(at, Ordering::Release);
            this.memory.u64_at(page).store(at, Ordering::Release);
            (this, EventRing::map(fd, page, Claim(u32::MAX)).unwrap())
        }

        fn store(&self, position: u64, word: u64) {
            let page = rustix::param::page_size();
            let place = 2 * page + position as usize % page;
            for place in [place, place + page] {
                self.memory.u64_at(place).store(word, Ordering::Release);
            }
        }

        /// Appends a record whose bytes have the value of its length; returns its position.
        fn add(&mut self, bytes: u32, flags: u32) -> u64 {
            let (at, words) = (self.at, u64::from(bytes).div_ceil(8));
            self.store(at, u64::from(bytes | flags));
            for word in 1..=words {
                self.store(at.wrapping_add(8 * word), u64::from_ne_bytes([bytes as u8; 8]));
            }
            self.produce(at.wrapping_add(8 + 8 * words));
            at
        }

        fn produce(&mut self, to: u64) {
            self.at = to;
            self.memory.u64_at(rustix::param::page_size()).store(to, Ordering::Release);
        }
    }

    /// The lengths of the records that are there.
    fn lengths(ring: &mut EventRing) -> Vec<usize> {
        let mut found = Vec::new();
        let count = ring.consume(|record| {
            assert!(record.iter().all(|&byte| byte == record.len() as u8), "{record:?}");
            found.push(record.len());
        });
        assert_eq!(count.unwrap(), found.len());
        found
    }

    #[test]
    fn records_are_delivered_in_their_order() {
        let page = rustix::param::page_size() as u64;
        // Also where records lie across the end of the data, and positions begin again.
        for start in [0, page - 8, page - 24, 7 * page - 16, u64::MAX - 7, u64::MAX - 31] {
            let (mut producer, mut ring) = Producer::new(start);
            assert_eq!(lengths(&mut ring), [0; 0], "{start}");
            for bytes in [0, 1, 8, 13, 200] {
                producer.add(bytes, 0);
            }
            assert_eq!(lengths(&mut ring), [0, 1, 8, 13, 200], "{start}");
            producer.add(5, 0);
            producer.add(6, DISCARDED);
            producer.add(7, 0);
            let busy = producer.add(9, BUSY);
            producer.add(10, 0);
            assert_eq!(lengths(&mut ring), [5, 7], "{start}");
            assert_eq!(lengths(&mut ring), [0; 0], "{start}");
            assert_eq!(ring.consumer.u64_at(0).load(Ordering::Acquire), busy);
            producer.store(busy, 9);
            assert_eq!(ring.poll(Duration::from_secs(60), |_| {}).unwrap(), 2, "{start}");
            assert_eq!(ring.consumer.u64_at(0).load(Ordering::Acquire), producer.at);
        }
    }

    #[test]
    fn the_largest_record_is_delivered() {
        let page = rustix::param::page_size() as u32;
        let (mut producer, mut ring) = Producer::new(8);
        producer.add(page - 8, 0);
        assert_eq!(ring.consume(|record| assert_eq!(record.len() as u32, page - 8)).unwrap(), 1);
    }

    #[test]
    fn a_corrupt_ring_buffer_is_an_error() {
        type Damage = fn(&mut Producer);
        let damages: [(&str, Damage); 6] = [
            ("a record longer than what was produced", |it| it.store(0, 17)),
            ("a record longer than the data", |it| it.store(0, u64::from(DISCARDED - 1))),
            ("a discarded record of such a length", |it| {
                it.store(0, u64::from(DISCARDED | (DISCARDED - 1)));
            }),
            ("more data than there is room for", |it| it.produce(1 << 40)),
            ("a consumer before the producer", |it| {
                it.memory.u64_at(0).store(64, Ordering::Release)
            }),
            ("a consumer within a word", |it| it.memory.u64_at(0).store(4, Ordering::Release)),
        ];
        for (name, damage) in damages {
            let (mut producer, mut ring) = Producer::new(0);
            producer.add(16, 0);
            damage(&mut producer);
            let error = ring.consume(|record| panic!("{name}: {record:?}")).unwrap_err();
            assert_eq!(error.kind(), BpfErrorKind::System, "{name}");
        }
    }

    #[test]
    fn sizes_that_would_be_rounded_up_are_refused() {
        for bytes in [1 << 12, 1 << 16, 1 << 20, 1 << 31] {
            let least = u32::try_from(rustix::param::page_size()).unwrap();
            assert_eq!(check_size(bytes).is_ok(), bytes >= least, "{bytes}");
        }
        for bytes in [0, 1, 5000, (1 << 20) - 1, u32::MAX] {
            let error = check_size(bytes).unwrap_err();
            assert_eq!(error.kind(), BpfErrorKind::RingSize);
            let (_, fits) = error.hint().unwrap().rsplit_once(' ').unwrap();
            check_size(fits.parse().unwrap()).unwrap();
        }
    }
}
