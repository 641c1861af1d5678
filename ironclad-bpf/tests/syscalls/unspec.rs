use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

/// sendto(2), to an address that says of itself to be of no family. Linux takes it for IPv4's where
/// the socket is.
///
/// # Errors
/// What the kernel says.
pub fn send_to_unspec(socket: BorrowedFd<'_>, to: SocketAddr, data: &[u8]) -> io::Result<usize> {
    let addr = SockAddr::from(to);
    let len = addr.len();
    let mut storage = addr.as_storage();
    let family = (&raw mut storage).cast::<libc::sa_family_t>();
    // SAFETY: the family is the storage's first field.
    unsafe { family.write(libc::AF_UNSPEC as libc::sa_family_t) };
    let addr = (&raw const storage).cast();
    // SAFETY: both live until the call returns, and have the lengths that are given.
    let sent =
        unsafe { libc::sendto(socket.as_raw_fd(), data.as_ptr().cast(), data.len(), 0, addr, len) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}
