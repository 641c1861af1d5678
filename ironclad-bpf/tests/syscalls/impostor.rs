use std::arch::global_asm;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};
use socket2::SockAddr;

use crate::fork::wait;

/// A system call, by number and arguments, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Call {
    number: u64,
    args: [u64; 6],
    result: i64,
}

fn call(number: i64, some: &[u64]) -> Call {
    let mut args = [0; 6];
    args[..some.len()].copy_from_slice(some);
    Call { number: number as u64, args, result: 0 }
}

// Makes calls one after the other; the last of them does not return.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".pushsection .text.ic_calls,\"ax\"",
    ".global ic_calls_begin",
    ".global ic_calls_end",
    "ic_calls_begin:",
    "mov r12, rdi",
    "2:",
    "mov rax, [r12]",
    "mov rdi, [r12 + 8]",
    "mov rsi, [r12 + 16]",
    "mov rdx, [r12 + 24]",
    "mov r10, [r12 + 32]",
    "mov r8, [r12 + 40]",
    "mov r9, [r12 + 48]",
    "syscall",
    "mov [r12 + 56], rax",
    "add r12, 64",
    "jmp 2b",
    "ic_calls_end:",
    ".popsection",
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".pushsection .text.ic_calls,\"ax\"",
    ".global ic_calls_begin",
    ".global ic_calls_end",
    "ic_calls_begin:",
    "mov x19, x0",
    "2:",
    "ldr x8, [x19]",
    "ldp x0, x1, [x19, #8]",
    "ldp x2, x3, [x19, #24]",
    "ldp x4, x5, [x19, #40]",
    "svc #0",
    "str x0, [x19, #56]",
    "add x19, x19, #64",
    "b 2b",
    "ic_calls_end:",
    ".popsection",
);

unsafe extern "C" {
    static ic_calls_begin: [u8; 0];
    static ic_calls_end: [u8; 0];
}

/// What an impostor does on an order.
#[derive(Clone, Copy, Debug)]
pub enum Deed<'a> {
    /// Connects a socket.
    Connect(BorrowedFd<'a>, SocketAddr),
    /// Opens a file to write.
    Write(&'a Path),
}

/// By what it says that it executes another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// `PR_SET_MM_EXE_FILE`.
    File,
    /// `PR_SET_MM_MAP`, which takes a capability less.
    Map,
}

/// A child of fork(2) that has nothing of its executable in memory any more: the kernel lets it say
/// that it executes another file. Then it waits, and then it does something.
#[derive(Debug)]
pub struct Impostor {
    pid: i32,
    test_process: UnixStream,
}

impl Impostor {
    /// Starts one, which says that it executes `exe`.
    ///
    /// # Errors
    /// What the kernel says to any of it.
    pub fn start(exe: &Path, by: Lie, deed: Deed<'_>) -> io::Result<Self> {
        const PR_SET_MM_EXE_FILE: u64 = 13;
        const PR_SET_MM_MAP: u64 = 14;
        let exe = File::open(exe)?;
        let (test_process, theirs) = UnixStream::pair()?;
        let fd = theirs.as_raw_fd() as u64;
        // On the heap, all of it: constants are in the executable.
        let about: Box<[u8]> = match deed {
            Deed::Connect(_, to) => bytes_of(&SockAddr::from(to)).into(),
            Deed::Write(path) => [path.as_os_str().as_bytes(), &[0]].concat().into(),
        };
        let deed = match deed {
            Deed::Connect(socket, _) => call(
                libc::SYS_connect,
                &[socket.as_raw_fd() as u64, about.as_ptr() as u64, about.len() as u64],
            ),
            Deed::Write(_) => {
                let (here, flags) = (libc::AT_FDCWD as u64, libc::O_WRONLY as u64);
                call(libc::SYS_openat, &[here, about.as_ptr() as u64, flags])
            }
        };
        let unmap = |(start, end)| call(libc::SYS_munmap, &[start, end - start]);
        let mut calls: Vec<Call> =
            mapped(&std::env::current_exe()?)?.into_iter().map(unmap).collect();
        let first = calls.len();
        let map = Box::new(map(exe.as_raw_fd())?);
        let (place, size) = (map.as_ptr() as u64, size_of_val(&*map) as u64);
        let lie = match by {
            Lie::File => [PR_SET_MM_EXE_FILE, exe.as_raw_fd() as u64, 0],
            Lie::Map => [PR_SET_MM_MAP, place, size],
        };
        let prctl = [libc::PR_SET_MM as u64, lie[0], lie[1], lie[2]];
        calls.extend([
            call(libc::SYS_prctl, &prctl),
            call(libc::SYS_write, &[fd, 0, 8]),
            call(libc::SYS_read, &[fd, 0, 8]),
            deed,
            call(libc::SYS_write, &[fd, 0, 8]),
            call(libc::SYS_exit_group, &[0]),
        ]);
        let result = |of: usize| (&raw const calls[first + of].result) as u64;
        let (said, unused, done) = (result(0), result(2), result(3));
        calls[first + 1].args[1] = said;
        calls[first + 2].args[1] = unused;
        calls[first + 4].args[1] = done;
        let code = code()?;
        // SAFETY: the child uses its copy of the calls, of what they point to, and of the code, none
        // of which is in the executable.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => code(calls.as_mut_ptr()),
            pid => pid,
        };
        let mut this = Self { pid, test_process };
        this.answer()?;
        Ok(this)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }

    /// Lets it do what it is to do.
    ///
    /// # Errors
    /// What the kernel says to that.
    pub fn go(&mut self) -> io::Result<()> {
        self.test_process.write_all(&[0; 8])?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<()> {
        let mut result = [0; 8];
        self.test_process.read_exact(&mut result)?;
        match i64::from_ne_bytes(result) {
            0.. => Ok(()),
            errno => Err(io::Error::from_raw_os_error(-errno as i32)),
        }
    }
}

/// `struct prctl_mm_map` of this process, but for the file.
fn map(exe: i32) -> io::Result<[u64; 13]> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // What is before the parenthesis may have spaces. Numbers as in proc(5).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |number: usize| {
        let field = fields.get(number - 3).and_then(|field| field.parse().ok());
        field.ok_or_else(|| io::Error::other("a field of /proc/self/stat is missing"))
    };
    let (start_brk, stack): (u64, u64) = (field(47)?, field(28)?);
    Ok([
        field(26)?,
        field(27)?,
        field(45)?,
        field(46)?,
        start_brk,
        start_brk,
        stack,
        field(48)?,
        field(49)?,
        field(50)?,
        field(51)?,
        0,
        (exe as u64) << 32,
    ])
}

/// A copy of the code above that is not in the executable.
fn code() -> io::Result<extern "C" fn(*mut Call) -> !> {
    // SAFETY: the assembler has put both there, one after the other.
    let code = unsafe {
        let (begin, end) = (&raw const ic_calls_begin, &raw const ic_calls_end);
        let len = end.cast::<u8>().offset_from(begin.cast::<u8>());
        std::slice::from_raw_parts(begin.cast::<u8>(), len as usize)
    };
    let mut file = File::from(memfd_create("calls", MemfdFlags::CLOEXEC)?);
    file.write_all(code)?;
    let (prot, fd) = (libc::PROT_READ | libc::PROT_EXEC, file.as_raw_fd());
    // SAFETY: a new mapping, of a file that no other process has.
    let place =
        unsafe { libc::mmap(std::ptr::null_mut(), code.len(), prot, libc::MAP_PRIVATE, fd, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the code takes a pointer and does not return.
    Ok(unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(*mut Call) -> !>(place) })
}

fn bytes_of(addr: &SockAddr) -> &[u8] {
    // SAFETY: so long is what it points to.
    unsafe { std::slice::from_raw_parts(addr.as_ptr().cast(), addr.len() as usize) }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        // SAFETY: it is a child of this process that has not been waited for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ = wait(self.pid);
    }
}

/// Where a file is in this process's memory.
fn mapped(file: &Path) -> io::Result<Vec<(u64, u64)>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let file = file.to_string_lossy();
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        Some((address(start)?, address(end)?))
    };
    Ok(maps.lines().filter(|line| line.ends_with(&*file)).filter_map(range).collect())
}
