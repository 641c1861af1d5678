use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use socket2::SockAddr;

/// Which thread does what is asked of io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uring {
    /// The one that asks.
    Caller,
    /// A worker of the kernel's.
    Worker,
    /// The kernel's thread that polls the queue.
    Poller,
}

/// Milliseconds after which a poller without work sleeps.
const IDLE: u32 = 1000;

/// connect(2).
///
/// # Errors
/// What the kernel says; `ENOSYS` or `EPERM` where it has no io_uring or forbids it.
pub fn uring_connect(socket: BorrowedFd<'_>, to: SocketAddr, how: Uring) -> io::Result<i32> {
    let addr = SockAddr::from(to);
    let entry = opcode::Connect::new(types::Fixed(0), addr.as_ptr().cast(), addr.len());
    // SAFETY: the address outlives the call.
    unsafe { submit(socket, entry.build(), how) }
}

/// sendmsg(2).
///
/// # Errors
/// As of [`uring_connect`].
pub fn uring_send(
    socket: BorrowedFd<'_>,
    to: SocketAddr,
    data: &[u8],
    how: Uring,
) -> io::Result<i32> {
    let addr = SockAddr::from(to);
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: all zero is a header of nothing.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = addr.as_ptr().cast_mut().cast();
    header.msg_namelen = addr.len();
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    let entry = opcode::SendMsg::new(types::Fixed(0), &raw const header);
    // SAFETY: address, data and header outlive the call.
    unsafe { submit(socket, entry.build(), how) }
}

/// # Safety
/// What the entry points to has to outlive the call.
unsafe fn submit(socket: BorrowedFd<'_>, entry: Entry, how: Uring) -> io::Result<i32> {
    let mut builder = IoUring::builder();
    if how == Uring::Poller {
        builder.setup_sqpoll(IDLE);
    }
    let mut ring: IoUring = builder.build(2)?;
    // Before Linux 5.11 a poller takes no others.
    ring.submitter().register_files(&[socket.as_raw_fd()])?;
    let flags = if how == Uring::Worker { Flags::ASYNC } else { Flags::empty() };
    // SAFETY: as promised to us; and we wait until it is done.
    unsafe { ring.submission().push(&entry.flags(flags)) }.map_err(io::Error::other)?;
    loop {
        match ring.submit_and_wait(1) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
            Ok(_) => break,
        }
    }
    let done = ring.completion().next();
    let result = done.ok_or_else(|| io::Error::other("nothing was done"))?.result();
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
