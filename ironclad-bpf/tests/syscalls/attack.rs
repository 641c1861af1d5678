//! Calls by which one process attacks another, or a file other than by its name.

use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

pub(crate) fn check(ret: c_int) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the attribute that chattr(1) calls `d`: not to be dumped.
///
/// # Errors
/// Where the kernel refuses, or the file system has no attributes.
pub fn chattr(file: &File) -> io::Result<()> {
    const FS_IOC_SETFLAGS: libc::Ioctl = 0x4008_6602;
    let flags = flags(file)? | FS_NODUMP_FL;
    // SAFETY: takes a pointer to a long, of which it reads the first four bytes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags) })
}

const FS_NODUMP_FL: libc::c_long = 0x40;

/// The attributes of a file, as lsattr(1) shows them.
fn flags(file: &File) -> io::Result<libc::c_long> {
    const FS_IOC_GETFLAGS: libc::Ioctl = 0x8008_6601;
    let mut flags: libc::c_long = 0;
    // SAFETY: takes a pointer to a long, of which it writes the first four bytes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags) })?;
    Ok(flags)
}

/// The generation of a file's inode, as lsattr(1) shows it with `-v`.
///
/// # Errors
/// Where the file system shows none.
pub fn version(file: &File) -> io::Result<u32> {
    const FS_IOC_GETVERSION: libc::Ioctl = 0x8008_7601;
    let mut version: libc::c_long = 0;
    // SAFETY: takes a pointer to a long, of which it writes the first four bytes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION, &raw mut version) })?;
    Ok(version as u32)
}

/// Gives a file's inode another, as chattr(1) does with `-v`.
///
/// # Errors
/// Where the kernel refuses, or the file system keeps what it has.
pub fn set_version(file: &File, version: u32) -> io::Result<()> {
    const FS_IOC_SETVERSION: libc::Ioctl = 0x4008_7602;
    let version = libc::c_long::from(version as i32);
    // SAFETY: takes a pointer to a long, of which it reads the first four bytes.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_SETVERSION, &raw const version) })
}

/// The same as [`chattr`] by the system call of 32-bit programs, which this one is not. Where the kernel has none, the process ends.
///
/// # Errors
/// As of [`chattr`].
#[cfg(target_arch = "x86_64")]
pub fn chattr_32(file: &File) -> io::Result<()> {
    const IOCTL: i64 = 54;
    const FS_IOC32_SETFLAGS: i32 = 0x4004_6602;
    // Without the attribute of extents, ext4 writes the file anew, which it may not be able to.
    let wanted = (flags(file)? | FS_NODUMP_FL) as u32;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // Where 32-bit pointers reach.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping that no other process uses, with room for the flags, which ioctl(2) reads; rbx is put
    // back, as the compiler wants it.
    let answer = unsafe {
        let at = libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        at.cast::<u32>().write(wanted);
        let mut answer = IOCTL;
        std::arch::asm!(
            "xchg rbx, {file}",
            "int 0x80",
            "xchg rbx, {file}",
            file = inout(reg) file.as_raw_fd() as i64 => _,
            inout("rax") answer,
            in("rcx") FS_IOC32_SETFLAGS as i64,
            in("rdx") at,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
        check(libc::munmap(at, 4096))?;
        answer as i32
    };
    if answer < 0 { Err(io::Error::from_raw_os_error(-answer)) } else { Ok(()) }
}

/// The same by file_setattr(2), of Linux 6.17 and later: never to note when it was read.
///
/// # Errors
/// Where the kernel refuses, or has no such call.
pub fn file_setattr(path: &Path) -> io::Result<()> {
    const FILE_SETATTR: libc::c_long = 469;
    const FS_XFLAG_NOATIME: u64 = 0x40;
    // struct file_attr of include/uapi/linux/fs.h: flags, then numbers that stay 0.
    let attr = [FS_XFLAG_NOATIME, 0, 0];
    let path = CString::new(path.as_os_str().as_bytes())?;
    let size = size_of_val(&attr);
    // SAFETY: path and attributes outlive the call, which reads so many bytes of them.
    let done = unsafe {
        libc::syscall(FILE_SETATTR, libc::AT_FDCWD, path.as_ptr(), attr.as_ptr(), size, 0)
    };
    check(done as c_int)
}

/// Enables fs-verity on a file: no process can write to it from then on.
///
/// # Errors
/// Where the kernel refuses, or the file system has none.
pub fn enable_verity(file: &File) -> io::Result<()> {
    const FS_IOC_ENABLE_VERITY: libc::Ioctl = 0x4080_6685;
    // struct fsverity_enable_arg: version 1, SHA-256, blocks of 4 KiB, neither salt nor signature.
    let mut how = [0u32; 32];
    how[..3].copy_from_slice(&[1, 1, 4096]);
    // SAFETY: the kernel reads the 128 bytes that the number says.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_ENABLE_VERITY, how.as_ptr()) })
}

/// Lets kexec(8) forget the kernel that it would boot: what kexec_load(2) does without one.
///
/// # Errors
/// Where the kernel refuses.
pub fn kexec_load() -> io::Result<()> {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: no segment is read.
    check(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, nothing, 0) } as c_int)
}

/// Asks for all I/O ports, by iopl(2) or ioperm(2).
///
/// # Errors
/// Where the kernel refuses.
#[cfg(target_arch = "x86_64")]
pub fn allow_ports(all: bool) -> io::Result<()> {
    // SAFETY: takes numbers. No port is used.
    check(unsafe { if all { libc::iopl(3) } else { libc::ioperm(0x80, 1, 1) } })
}

/// Hands a file to kexec_file_load(2).
///
/// # Errors
/// Where the kernel refuses; that it has looked into the file and found no kernel is no refusal.
pub fn kexec_file_load(file: &File) -> io::Result<()> {
    const KEXEC_FILE_NO_INITRAMFS: libc::c_long = 4;
    let (file, flags) = (file.as_raw_fd(), KEXEC_FILE_NO_INITRAMFS);
    // SAFETY: the command line is one zero, and has that length.
    let done =
        unsafe { libc::syscall(libc::SYS_kexec_file_load, file, -1, 1, c"".as_ptr(), flags) };
    match check(done as c_int) {
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
        done => done,
    }
}

/// Takes a process's right to make core dumps.
///
/// # Errors
/// Where the kernel refuses.
pub fn prlimit(pid: i32) -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limit outlives the call; the old one is not returned.
    check(unsafe { libc::prlimit(pid, libc::RLIMIT_CORE, &raw const none, std::ptr::null_mut()) })
}

/// Reads nothing of use from a process's memory.
///
/// # Errors
/// Where the kernel refuses; that there is nothing is no refusal.
pub fn read_memory(pid: i32) -> io::Result<()> {
    on_memory(pid, libc::process_vm_readv)
}

/// Writes a byte where a process's memory has nothing.
///
/// # Errors
/// As of [`read_memory`].
pub fn write_memory(pid: i32) -> io::Result<()> {
    on_memory(pid, libc::process_vm_writev)
}

/// Says of an address where a process's memory has nothing that it is cold, by process_madvise(2).
///
/// # Errors
/// As of [`read_memory`].
pub fn advise(pid: i32) -> io::Result<()> {
    match process_madvise(pid, 0..4096, libc::MADV_COLD) {
        Err(e) if e.raw_os_error() == Some(libc::ENOMEM) => Ok(()),
        advised => advised,
    }
}

/// Has the kernel take a process's pages out of memory, by process_madvise(2).
///
/// # Errors
/// As of [`read_memory`], and where the pages are locked.
pub fn page_out(pid: i32, addresses: Range<usize>) -> io::Result<()> {
    process_madvise(pid, addresses, libc::MADV_PAGEOUT)
}

fn process_madvise(pid: i32, addresses: Range<usize>, advice: c_int) -> io::Result<()> {
    let range = libc::iovec { iov_base: addresses.start as *mut c_void, iov_len: addresses.len() };
    // SAFETY: the calls take numbers and the range, which outlives them; the descriptor has no other owner.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid, 0) as c_int;
        check(process)?;
        let process = OwnedFd::from_raw_fd(process);
        let (fd, range) = (process.as_raw_fd(), &raw const range);
        check(libc::syscall(libc::SYS_process_madvise, fd, range, 1, advice, 0) as c_int)
    }
}

type OnMemory = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> isize;

fn on_memory(pid: i32, call: OnMemory) -> io::Result<()> {
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: 4096 as *mut _, iov_len: 1 };
    // SAFETY: the local part is writable; of the remote one the kernel sees whether it is there.
    let done = unsafe { call(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match check(done as c_int) {
        Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Ok(()),
        done => done,
    }
}

/// Becomes a process's tracer until this thread ends. The process runs on.
///
/// # Errors
/// Where the kernel refuses.
pub fn seize(pid: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the call takes numbers here.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) } as c_int)
}

/// Becomes a process's tracer, and releases it.
///
/// # Errors
/// Where the kernel refuses.
pub fn trace(pid: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the calls take numbers here; the process runs on all the while but for a moment.
    unsafe {
        check(libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) as c_int)?;
        check(libc::ptrace(libc::PTRACE_INTERRUPT, pid, none, none) as c_int)?;
        let mut status = 0;
        check(libc::waitpid(pid, &raw mut status, libc::__WALL))?;
        check(libc::ptrace(libc::PTRACE_DETACH, pid, none, none) as c_int)
    }
}

/// From now on this thread is root for file systems, and for nothing else.
///
/// # Errors
/// Where the kernel refuses.
pub fn be_root_of_files_alone() -> io::Result<()> {
    // include/uapi/linux/securebits.h: capabilities stay where users change. Then they are given up.
    const NO_SETUID_FIXUP: c_int = 1 << 2;
    // _LINUX_CAPABILITY_VERSION_3 and the caller; effective, permitted and inheritable ones, twice.
    let (header, none) = ([0x2008_0522u32, 0], [0u32; 6]);
    // SAFETY: numbers, and memory of the sizes that the calls read.
    unsafe {
        check(libc::prctl(libc::PR_SET_SECUREBITS, NO_SETUID_FIXUP, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_setresuid, -1, 1000, -1) as c_int)?;
        libc::setfsuid(0);
        check(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) as c_int)
    }
}

/// A file's handle, by which it is opened past all names.
pub struct Handle {
    /// A directory of the file's mount.
    around: File,
    handle: RawHandle,
}

#[repr(C)]
struct RawHandle {
    bytes: libc::c_uint,
    kind: c_int,
    handle: [u8; 128],
}

impl Handle {
    /// Of a file.
    ///
    /// # Errors
    /// Where the file system has no handles.
    pub fn of(path: &Path) -> io::Result<Self> {
        // Its mount's root, so that nothing keeps the directories between in memory.
        let around = path.ancestors().skip(1).take_while(|it| same_mount(it, path)).last();
        let around = File::open(around.unwrap_or(path))?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut handle = RawHandle { bytes: 128, kind: 0, handle: [0; 128] };
        let mut mount = 0;
        // SAFETY: the path ends with a zero; the handle has the room that it says, and its layout.
        check(unsafe {
            libc::name_to_handle_at(
                libc::AT_FDCWD,
                path.as_ptr(),
                (&raw mut handle).cast(),
                &raw mut mount,
                0,
            )
        })?;
        Ok(Self { around, handle })
    }

    /// Of a file of a cgroup, by the number that its directory shows: the kernel gets no name of it.
    ///
    /// # Errors
    /// Where the directory cannot be read, or does not have the file.
    pub fn by_number(path: &Path) -> io::Result<Self> {
        const FILEID_KERNFS: c_int = 0xfe;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        let entry = entries.iter().find(|it| it.file_name() == name);
        let number = entry.ok_or(io::ErrorKind::NotFound)?.ino();
        let mut handle = RawHandle { bytes: 8, kind: FILEID_KERNFS, handle: [0; 128] };
        handle.handle[..8].copy_from_slice(&number.to_ne_bytes());
        Ok(Self { around: File::open(directory)?, handle })
    }

    /// Opens it, to read and to write.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(&mut self) -> io::Result<File> {
        self.open_with(libc::O_RDWR)
    }

    /// Opens it to read.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open_to_read(&mut self) -> io::Result<File> {
        self.open_with(libc::O_RDONLY)
    }

    fn open_with(&mut self, access: c_int) -> io::Result<File> {
        let flags = access | libc::O_CLOEXEC;
        let handle = (&raw mut self.handle).cast();
        // SAFETY: a handle that the kernel has made; a new descriptor has no other owner.
        unsafe {
            let fd = libc::open_by_handle_at(self.around.as_raw_fd(), handle, flags);
            check(fd)?;
            Ok(File::from_raw_fd(fd))
        }
    }
}

fn same_mount(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|it| it.dev()).ok();
    device(one).is_some() && device(one) == device(other)
}

/// Presents a secret to Sentinel. The kernel answers that it knows no such option, whatever came of it.
///
/// # Errors
/// Where the answer is another.
pub fn hello(words: [u64; 4]) -> io::Result<()> {
    const HELLO: c_int = 0x4952_4f4e;
    let [one, two, three, four] = words;
    // SAFETY: the call takes numbers.
    match check(unsafe { libc::prctl(HELLO, one, two, three, four) }) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        answer => answer,
    }
}

/// Loads a program of a type that does nothing.
///
/// # Errors
/// Where the kernel refuses.
pub fn load_program(kind: u32) -> io::Result<()> {
    load(kind, 0, 0).map(drop)
}

/// Loads a program of BPF LSM that refuses nothing, for the hook with this number in the kernel's BTF.
///
/// # Errors
/// Where the kernel refuses.
pub fn load_lsm_program(hook: u32) -> io::Result<()> {
    // BPF_PROG_TYPE_LSM and BPF_LSM_MAC.
    load(29, 27, hook).map(drop)
}

pub(crate) fn load(kind: u32, attach_type: u32, function: u32) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    // r0 = 0; exit
    let code: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    // The beginning of union bpf_attr: type, instructions, where they are, the licence.
    let mut attr = [0u64; 15];
    attr[0] = u64::from(kind) | 2 << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    // The second half of these words: expected_attach_type and attach_btf_id.
    attr[8] = u64::from(attach_type) << 32;
    attr[13] = u64::from(function) << 32;
    // SAFETY: the attributes, and what they point to, outlive the call; the descriptor has no other owner.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, attr.as_ptr(), size_of_val(&attr));
        check(fd as c_int)?;
        Ok(OwnedFd::from_raw_fd(fd as c_int))
    }
}

/// Registers permission events for what is opened or read there: `what` is the mark's flags beside those to add it,
/// `mask` the events, by the numbers of include/uapi/linux/fanotify.h. Then it has no say any more.
///
/// # Errors
/// Where the kernel refuses.
pub fn decide_on_opens(path: &Path, what: u32, mask: u64) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let class = libc::FAN_CLASS_PRE_CONTENT | libc::FAN_CLOEXEC;
    // SAFETY: a path that ends with a zero; a new descriptor has no other owner.
    unsafe {
        let queue = libc::fanotify_init(class, libc::O_RDONLY as libc::c_uint);
        check(queue)?;
        let queue = OwnedFd::from_raw_fd(queue);
        let flags = libc::FAN_MARK_ADD | what;
        let fd = queue.as_raw_fd();
        check(libc::fanotify_mark(fd, flags, mask, libc::AT_FDCWD, path.as_ptr()))
    }
}

/// mount_setattr(2), of Linux 5.12 and later: what is mounted on a mount is mounted from now on wherever it
/// is bound to.
///
/// # Errors
/// Where the kernel refuses, or has no such call.
pub fn share_mount(path: &Path) -> io::Result<()> {
    const MOUNT_SETATTR: libc::c_long = 442;
    // struct mount_attr: what to set, to clear, the propagation, a user namespace.
    let attr = [0, 0, libc::MS_SHARED, 0];
    let path = CString::new(path.as_os_str().as_bytes())?;
    let size = size_of_val(&attr);
    // SAFETY: path and attributes outlive the call, which reads so many bytes of them.
    let done = unsafe {
        libc::syscall(MOUNT_SETATTR, libc::AT_FDCWD, path.as_ptr(), 0, attr.as_ptr(), size)
    };
    check(done as c_int)
}

/// finit_module(2): loads a kernel module from an open file. Of a compressed file, if `is_compressed`, since Linux 5.17.
///
/// # Errors
/// Where the kernel refuses.
pub fn insert_module(module: &File, is_compressed: bool) -> io::Result<()> {
    /// include/uapi/linux/module.h.
    const MODULE_INIT_COMPRESSED_FILE: c_int = 4;
    let none = c"";
    let flags = if is_compressed { MODULE_INIT_COMPRESSED_FILE } else { 0 };
    // SAFETY: a descriptor, a string that ends with a zero, and flags.
    let done =
        unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), none.as_ptr(), flags) };
    check(done as c_int)
}

/// Has the kernel send a signal to a process when a pipe can be read.
///
/// # Errors
/// Where the kernel refuses; it does not report whether the signal is sent.
pub fn signal_by_file(pid: i32, signal: c_int) -> io::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors, which have no other owner; the rest are numbers.
    unsafe {
        check(libc::pipe(ends.as_mut_ptr()))?;
        let [reader, writer] = ends.map(|fd| OwnedFd::from_raw_fd(fd));
        check(libc::fcntl(reader.as_raw_fd(), libc::F_SETOWN, pid))?;
        // F_SETSIG of include/uapi/asm-generic/fcntl.h.
        check(libc::fcntl(reader.as_raw_fd(), 10, signal))?;
        check(libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, libc::O_ASYNC))?;
        check(libc::write(writer.as_raw_fd(), c"1".as_ptr().cast(), 1) as c_int)
    }
}

/// Counts a process's page faults.
///
/// # Errors
/// Where the kernel refuses.
pub fn count(pid: i32) -> io::Result<()> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
    perf_event(pid, PERF_TYPE_SOFTWARE, [PERF_COUNT_SW_PAGE_FAULTS, 0, 0])
}

/// Samples the stack of a process at its page faults.
///
/// # Errors
/// Where the kernel refuses.
pub fn sample_stack(pid: i32) -> io::Result<()> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_PAGE_FAULTS: u64 = 2;
    const PERF_SAMPLE_STACK_USER: u64 = 1 << 13;
    sampled(pid, PERF_TYPE_SOFTWARE, [PERF_COUNT_SW_PAGE_FAULTS, 0, 0], PERF_SAMPLE_STACK_USER)
}

/// Puts a probe by perf, of a kind that has this number, into a function of the kernel or a file, and takes it
/// out again. Without a process it is for every process.
///
/// # Errors
/// Where the kernel refuses.
pub fn probe(pid: Option<i32>, kind: u32, place: &CStr, offset: u64) -> io::Result<()> {
    perf_event(pid.unwrap_or(-1), kind, [0, place.as_ptr() as u64, offset])
}

/// Watches a tracepoint of the kernel that has this number, as one process reaches it or any process does: what it
/// is called with, or, without samples, how often.
///
/// # Errors
/// Where the kernel refuses.
pub fn watch_tracepoint(pid: Option<i32>, number: u64, samples: bool) -> io::Result<()> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_SAMPLE_RAW: u64 = 1 << 10;
    let sample = if samples { PERF_SAMPLE_RAW } else { 0 };
    sampled(pid.unwrap_or(-1), PERF_TYPE_TRACEPOINT, [number, 0, 0], sample)
}

/// An event with its config, config1 and config2.
fn perf_event(pid: i32, kind: u32, config: [u64; 3]) -> io::Result<()> {
    sampled(pid, kind, config, 0)
}

fn sampled(pid: i32, kind: u32, config: [u64; 3], sample: u64) -> io::Result<()> {
    // struct perf_event_attr, version 1.
    let mut attr = [0u64; 9];
    attr[0] = u64::from(kind) | (size_of_val(&attr) as u64) << 32;
    (attr[1], attr[7], attr[8]) = (config[0], config[1], config[2]);
    // With a sample each time.
    (attr[2], attr[3]) = (u64::from(sample != 0), sample);
    let processor = if pid < 0 { 0 } else { -1 };
    // SAFETY: a struct of the size that it says; the descriptor has no other owner.
    unsafe {
        let fd = libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), pid, processor, -1, 0);
        check(fd as c_int)?;
        drop(OwnedFd::from_raw_fd(fd as c_int));
    }
    Ok(())
}

/// Maps a page of a file, so that what is stored there is written to it.
///
/// # Errors
/// Where the kernel refuses.
pub fn map_to_write(file: &File) -> io::Result<()> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes, which nothing uses and which is unmapped.
    unsafe {
        let at =
            libc::mmap(std::ptr::null_mut(), 4096, rights, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        check(libc::munmap(at, 4096))
    }
}

/// Makes the descriptor of this number that of `file`: the former file is closed.
///
/// # Errors
/// Where the kernel refuses.
pub fn put_over(file: &File, number: c_int) -> io::Result<()> {
    // SAFETY: takes numbers; the owner of the descriptor closes a descriptor still.
    check(unsafe { libc::dup2(file.as_raw_fd(), number) })
}
