use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// setsockopt(2) with bytes, as they are.
///
/// # Errors
/// What the kernel says.
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the value lives until the call returns, and has the length that is given.
    let set =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
