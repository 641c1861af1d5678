use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::error::BpfError;

/// The multicast group of interfaces' changes.
const RTMGRP_LINK: u32 = 1;

/// Reports when interfaces appear, change or are removed, in the network namespace of the thread that
/// made it.
#[derive(Debug)]
pub struct LinkWatch {
    socket: OwnedFd,
}

impl LinkWatch {
    /// Reports all changes from now on.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn new() -> Result<Self, BpfError> {
        let failed = |e: Errno| BpfError::system("watching interfaces by rtnetlink", e.into());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None);
        let socket = socket.map_err(failed)?;
        bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_LINK)).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Whether there was a change since the last call.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn changed(&self) -> Result<bool, BpfError> {
        let mut changed = false;
        loop {
            // What changed is queried afterwards: the rest of a notification is of no use.
            match recv(&self.socket, &mut [0u8; 16], RecvFlags::empty()) {
                // Some were lost.
                Ok(_) | Err(Errno::NOBUFS) => changed = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(changed),
                Err(e) => return Err(BpfError::system("reading from rtnetlink", e.into())),
            }
        }
    }
}

impl AsFd for LinkWatch {
    /// Readable when there is a change to report.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
