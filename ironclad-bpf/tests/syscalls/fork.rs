use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a closure in a child of fork(2) that executes nothing else, and gives the status that it
/// ended with.
///
/// # Errors
/// Where the kernel makes no child, or the child was killed.
pub fn in_child(work: impl FnOnce() -> u8) -> io::Result<u8> {
    // SAFETY: the C library keeps its allocator usable after fork(2), and the child has nothing else
    // that another thread could have locked: it does what the closure says and ends.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = catch_unwind(AssertUnwindSafe(work)).unwrap_or(u8::MAX);
            // SAFETY: always. What the parent wants done at its end is not done here.
            unsafe { libc::_exit(status.into()) }
        }
        child => wait(child),
    }
}

/// A child of fork(2) that executes nothing, and waits for the end of this process. Gives its process id.
///
/// # Errors
/// Where the kernel makes no child.
pub fn idle_child() -> io::Result<u32> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, of which the writing one stays open until this process ends. The
    // child makes system calls only.
    unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) < 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let mut byte = 0u8;
                libc::close(ends[1]);
                while libc::read(ends[0], (&raw mut byte).cast(), 1) < 0 {}
                libc::_exit(0)
            }
            child => Ok(child as u32),
        }
    }
}

/// Gives this thread the highest real-time priority.
///
/// # Errors
/// The kernel's.
pub fn be_real_time() -> io::Result<()> {
    let param = libc::sched_param { sched_priority: 99 };
    // SAFETY: the parameter outlives the call, and 0 is the thread that calls.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has a child of clone3(2), which runs in another cgroup from its first instruction on, touch so many
/// bytes of memory. Says whether it came to that, or was killed.
///
/// # Errors
/// Where the kernel makes no child there, or the child ends otherwise.
pub fn eat_in_group(group: &File, bytes: usize) -> io::Result<bool> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const PAGE: usize = 4096;
    /// struct clone_args of include/uapi/linux/sched.h.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        unused: [u64; 3],
        exit_signal: u64,
        stack_and_more: [u64; 5],
        cgroup: u64,
    }
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: group.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the arguments have the size that is given. The child makes system calls, and writes to a new
    // mapping that no other process uses.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>());
        if child == 0 {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), bytes, rights, flags, -1, 0);
            if at == libc::MAP_FAILED {
                libc::_exit(1);
            }
            for page in (0..bytes).step_by(PAGE) {
                at.cast::<u8>().add(page).write_volatile(1);
            }
            libc::_exit(0);
        }
        child
    };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut status = 0;
    // SAFETY: a number that we own.
    if unsafe { libc::waitpid(child as i32, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    match libc::WIFSIGNALED(status) {
        true if libc::WTERMSIG(status) == libc::SIGKILL => Ok(false),
        false if libc::WEXITSTATUS(status) == 0 => Ok(true),
        _ => Err(io::Error::other(format!("the child ended with {status:#x}"))),
    }
}

pub(crate) fn wait(child: i32) -> io::Result<u8> {
    let mut status = 0;
    // SAFETY: a number that we own.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    match libc::WIFEXITED(status) {
        true => Ok(libc::WEXITSTATUS(status) as u8),
        false => Err(io::Error::other("the child was killed")),
    }
}
