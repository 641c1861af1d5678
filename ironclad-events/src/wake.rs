//! The descriptor that tells poll(2) that events wait in a channel.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// An eventfd(2) that is readable where events wait, and once the channel is closed.
///
/// A sender pushes an event and then calls [`set`](Self::set); a receiver that finds the channel
/// empty calls [`clear`](Self::clear), and then checks the channel again and calls `set` where an
/// event has come. The flag spares the sender a system call for all events but the first. Both swap
/// the flag, so that a sender that finds it set happens before the receiver's second check.
#[derive(Debug)]
pub(crate) struct Wake {
    is_set: AtomicBool,
    #[cfg(target_os = "linux")]
    fd: OwnedFd,
}

impl Wake {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self {
            is_set: AtomicBool::new(false),
            #[cfg(target_os = "linux")]
            fd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Makes the descriptor readable.
    pub(crate) fn set(&self) {
        if !self.is_set.swap(true, Ordering::AcqRel) {
            // Fails only where the counter is at its maximum, and then the descriptor is readable.
            #[cfg(target_os = "linux")]
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Makes it not readable.
    pub(crate) fn clear(&self) {
        // Before the flag: a write between the two would be lost.
        #[cfg(target_os = "linux")]
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
        self.is_set.swap(false, Ordering::AcqRel);
    }
}

#[cfg(target_os = "linux")]
impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
