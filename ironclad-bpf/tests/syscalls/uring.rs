use std::ffi::CStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use socket2::SockAddr;

/// Which thread executes requests of io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uring {
    /// The calling thread.
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
    unsafe { submit(Some(socket), entry.build(), how) }
}

/// write(2), where the file stands.
///
/// # Errors
/// As of [`uring_connect`].
pub fn uring_write(file: BorrowedFd<'_>, data: &[u8], how: Uring) -> io::Result<i32> {
    let entry = opcode::Write::new(types::Fixed(0), data.as_ptr(), data.len() as u32);
    // SAFETY: the data outlive the call.
    unsafe { submit(Some(file), entry.offset(u64::MAX).build(), how) }
}

/// A file that a ring has, and the process no descriptor of.
pub struct RegisteredFile(IoUring);

impl RegisteredFile {
    /// Registers a file, and closes its descriptor.
    ///
    /// # Errors
    /// As of [`uring_connect`].
    pub fn new(file: OwnedFd) -> io::Result<Self> {
        let ring = IoUring::new(2)?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self(ring))
    }

    /// write(2), where the file stands.
    ///
    /// # Errors
    /// As of [`uring_connect`].
    pub fn write(&mut self, data: &[u8]) -> io::Result<i32> {
        let entry = opcode::Write::new(types::Fixed(0), data.as_ptr(), data.len() as u32);
        // SAFETY: the data outlive the call.
        unsafe { run(&mut self.0, entry.offset(u64::MAX).build()) }
    }
}

/// Has a disk forget bytes: BLOCK_URING_CMD_DISCARD of Linux 6.12 and later.
///
/// # Errors
/// As of [`uring_connect`]; `EINVAL` or `EOPNOTSUPP` where the kernel or the disk has no such command.
pub fn uring_discard(disk: BorrowedFd<'_>, start: u64, bytes: u64) -> io::Result<i32> {
    const BLOCK_URING_CMD_DISCARD: u32 = 0x1200;
    let mut command = [0; 16];
    command[..8].copy_from_slice(&bytes.to_ne_bytes());
    let entry = opcode::UringCmd16::new(types::Fixed(0), BLOCK_URING_CMD_DISCARD);
    // SAFETY: the command has no pointers.
    unsafe { submit(Some(disk), entry.cmd(command).addr(Some(start)).build(), Uring::Caller) }
}

/// open(2), to write.
///
/// # Errors
/// As of [`uring_connect`].
pub fn uring_open(path: &CStr, how: Uring) -> io::Result<OwnedFd> {
    let entry = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr());
    // SAFETY: the path outlives the call; a new descriptor has no other owner.
    unsafe {
        let fd = submit(None, entry.flags(libc::O_WRONLY | libc::O_CLOEXEC).build(), how)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
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
    unsafe { submit(Some(socket), entry.build(), how) }
}

/// # Safety
/// What the entry points to has to outlive the call.
unsafe fn submit(file: Option<BorrowedFd<'_>>, entry: Entry, how: Uring) -> io::Result<i32> {
    let mut builder = IoUring::builder();
    if how == Uring::Poller {
        builder.setup_sqpoll(IDLE);
    }
    let mut ring: IoUring = builder.build(2)?;
    // Before Linux 5.11 a poller accepts no other files.
    if let Some(file) = file {
        ring.submitter().register_files(&[file.as_raw_fd()])?;
    }
    let flags = if how == Uring::Worker { Flags::ASYNC } else { Flags::empty() };
    // SAFETY: as promised to us.
    unsafe { run(&mut ring, entry.flags(flags)) }
}

/// # Safety
/// What the entry points to has to outlive the call.
unsafe fn run(ring: &mut IoUring, entry: Entry) -> io::Result<i32> {
    // SAFETY: as promised to us; and we wait until it is done.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
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
