//! What a program is started in that is not what its starter is in.

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::attack::check;

/// What is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// A mount namespace of its own.
    Mounts,
    /// A user namespace of its own.
    Users,
    /// Another root directory.
    Root(CString),
    /// It shares its root and working directory with another process, which could change them.
    SharedNames,
    /// One seccomp(2) filter more, which lets everything go on.
    Filter,
}

/// Has a command start its program there.
pub fn surround(command: &mut Command, by: Surroundings) {
    // SAFETY: the closure makes system calls and nothing else; memory that they use is there.
    unsafe { command.pre_exec(move || enter(&by)) };
}

fn enter(surroundings: &Surroundings) -> io::Result<()> {
    match surroundings {
        Surroundings::Mounts => unshare(libc::CLONE_NEWNS),
        Surroundings::Users => unshare(libc::CLONE_NEWUSER),
        Surroundings::Root(root) => chroot(root),
        Surroundings::SharedNames => share_names(),
        Surroundings::Filter => filter(),
    }
}

fn unshare(flags: c_int) -> io::Result<()> {
    // SAFETY: takes a number.
    check(unsafe { libc::unshare(flags) })
}

fn chroot(root: &CStr) -> io::Result<()> {
    // SAFETY: both paths end with a zero.
    unsafe {
        check(libc::chroot(root.as_ptr()))?;
        check(libc::chdir(c"/".as_ptr()))
    }
}

/// With a child that does nothing, and ends when no process has the writing end of a pipe any more.
fn share_names() -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors; what the child has is a copy but for the directories, and it makes
    // system calls only. It closes what the starter waits for.
    unsafe {
        check(libc::pipe(ends.as_mut_ptr()))?;
        let flags = libc::CLONE_FS | libc::SIGCHLD;
        match libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) {
            0 => {
                let mut byte = 0u8;
                libc::dup2(ends[0], 0);
                libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
                libc::read(0, (&raw mut byte).cast(), 1);
                libc::_exit(0)
            }
            pid => check(pid as c_int),
        }
    }
}

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const ALLOW: libc::sock_filter =
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };

fn filter() -> io::Result<()> {
    install(&mut [ALLOW])
}

/// From now on, pivot_root(2) returns an error to this thread and to those that it starts, or success for 0, and does
/// nothing.
///
/// # Errors
/// Where the kernel refuses.
pub fn fake_pivot_root(error: u16) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    install(&mut [
        // The first of struct seccomp_data.
        libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: IS, jt: 0, jf: 1, k: libc::SYS_pivot_root as u32 },
        libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ERRNO | u32::from(error),
        },
        ALLOW,
    ])
}

fn install(code: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: the program outlives the call, and so does its code.
    check(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    })
}
