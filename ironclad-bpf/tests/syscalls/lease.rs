use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Of asm-generic/fcntl.h.
const F_SETSIG: i32 = 10;

/// fcntl(2)'s lease of a file that no other process has open: a process that opens it waits until it is given back.
/// A signal reports that; it is ignored unless it is caught.
///
/// # Errors
/// What the kernel says.
pub fn lease(file: &File) -> io::Result<()> {
    for (command, argument) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_WRLCK)] {
        // SAFETY: neither command takes a pointer, and the descriptor is open.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
