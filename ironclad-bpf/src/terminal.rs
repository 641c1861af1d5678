use std::ffi::c_uint;
use std::os::fd::RawFd;

/// Major and minor number of the terminal that a descriptor of this process leads to. `/dev/console`, `/dev/tty` and
/// the master of a pseudo-terminal lead to the terminal that they stand for. None of what is no terminal.
pub fn terminal_device(fd: RawFd) -> Option<(u32, u32)> {
    let mut device: c_uint = 0;
    // SAFETY: the kernel writes one number to `device`, or nothing.
    let found = unsafe { libc::ioctl(fd, libc::TIOCGDEV, &raw mut device) } == 0;
    // `new_encode_dev()` of include/linux/kdev_t.h.
    found.then_some((device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_file_is_no_terminal() {
        for path in ["/dev/null", "/proc/self/stat"] {
            assert_eq!(terminal_device(File::open(path).unwrap().as_raw_fd()), None);
        }
        assert_eq!(terminal_device(-1), None);
        if let Ok(master) = File::open("/dev/ptmx") {
            let (major, _) = terminal_device(master.as_raw_fd()).unwrap();
            assert!((136..144).contains(&major), "{major}");
        }
    }
}
