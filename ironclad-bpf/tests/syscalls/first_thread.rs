use std::io;

extern "C" fn end(_: libc::c_int) {
    // SAFETY: it ends the thread, which is not joined, and nothing else.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Ends the first thread of this process, and waits for that. The process goes on with its other threads.
///
/// # Errors
/// What the kernel says.
pub fn end_first_thread() -> io::Result<()> {
    let pid = std::process::id();
    // SAFETY: all zero is an action without flags and mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = end as extern "C" fn(libc::c_int) as usize;
    // SAFETY: the handler lives as long as the program, and ends the thread that it interrupts.
    let sent = unsafe {
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
        libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1)
    };
    if sent != 0 {
        return Err(io::Error::last_os_error());
    }
    let stat = format!("/proc/self/task/{pid}/stat");
    while !std::fs::read_to_string(&stat)?.contains(") Z ") {
        std::thread::yield_now();
    }
    Ok(())
}
