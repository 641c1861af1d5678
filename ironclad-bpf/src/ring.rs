use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{BpfError, Failure};
use crate::map::map_info;

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
    fn of(map: BorrowedFd<'_>) -> Result<Self, BpfError> {
        let info = map_info(map).map_err(failed)?;
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

/// The reading end of a ring buffer. One reader at a time; it may move between threads.
#[derive(Debug)]
pub struct EventRing {
    ring: NonNull<libbpf_sys::ring_buffer>,
    // libbpf keeps its address for the callback.
    sink: Box<Sink>,
    fd: OwnedFd,
    /// Dropped last: `Drop` has freed the ring buffer by then.
    _claim: Claim,
}

type Deliver<'a> = dyn FnMut(&[u8]) + 'a;

#[derive(Debug, Default)]
struct Sink {
    /// Set while `consume` runs, and only then does libbpf call back.
    deliver: Option<NonNull<Deliver<'static>>>,
}

// SAFETY: libbpf's ring buffer is not tied to a thread, and `&mut self` admits one at a time.
unsafe impl Send for EventRing {}

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
        let claim = Claim::of(map)?;
        let fd = map.try_clone_to_owned().map_err(failed)?;
        let sink = Box::<Sink>::default();
        // SAFETY: the descriptor is open; the context lives in a box that `self` keeps, so that
        // its address stays valid for as long as the ring buffer does.
        let ring = unsafe {
            libbpf_sys::ring_buffer__new(
                fd.as_raw_fd(),
                Some(on_sample),
                std::ptr::from_ref::<Sink>(&sink).cast_mut().cast(),
                std::ptr::null(),
            )
        };
        let ring = NonNull::new(ring).ok_or_else(|| failed(io::Error::last_os_error()))?;
        Ok(Self { ring, sink, fd, _claim: claim })
    }

    /// Hands every record that is there to `deliver`, without waiting; returns how many.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the ring buffer is corrupt.
    pub fn consume(&mut self, mut deliver: impl FnMut(&[u8])) -> Result<usize, BpfError> {
        self.with(&mut deliver, |ring| {
            // SAFETY: the ring buffer is open.
            unsafe { libbpf_sys::ring_buffer__consume(ring) }
        })
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
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<usize, BpfError> {
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        let woken = self.with(&mut deliver, |ring| {
            // SAFETY: the ring buffer is open.
            unsafe { libbpf_sys::ring_buffer__poll(ring, millis) }
        })?;
        Ok(woken + self.consume(deliver)?)
    }

    fn with(
        &mut self,
        deliver: &mut Deliver<'_>,
        read: impl FnOnce(*mut libbpf_sys::ring_buffer) -> c_int,
    ) -> Result<usize, BpfError> {
        let deliver = NonNull::from(deliver);
        // SAFETY: only the lifetime changes; the pointer is cleared below before it ends.
        self.sink.deliver = Some(unsafe {
            std::mem::transmute::<NonNull<Deliver<'_>>, NonNull<Deliver<'static>>>(deliver)
        });
        let ret = read(self.ring.as_ptr());
        self.sink.deliver = None;
        match ret {
            n if n >= 0 => Ok(n as usize),
            n if n == -libc::EINTR => Ok(0),
            n => Err(BpfError::system("reading the ring buffer", io::Error::from_raw_os_error(-n))),
        }
    }
}

/// Readable when the kernel has woken its readers.
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

impl Drop for EventRing {
    fn drop(&mut self) {
        // SAFETY: opened by `new` and freed nowhere else.
        unsafe { libbpf_sys::ring_buffer__free(self.ring.as_ptr()) };
    }
}

unsafe extern "C" fn on_sample(
    context: *mut c_void,
    data: *mut c_void,
    len: libbpf_sys::size_t,
) -> c_int {
    // SAFETY: the context that `new` registered, alive as long as the ring buffer.
    let sink = unsafe { &*context.cast::<Sink>() };
    if let Some(mut deliver) = sink.deliver {
        // SAFETY: libbpf gives `len` readable bytes; `with` keeps the closure alive during the call.
        unsafe { deliver.as_mut()(std::slice::from_raw_parts(data.cast::<u8>(), len as usize)) };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::check_size;
    use crate::BpfErrorKind;

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
