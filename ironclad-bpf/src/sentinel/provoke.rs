//! One harmless call for each hook.
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ironclad_core::abi::SentinelHook;
use rustix::fs::{
    CWD, FileType, FlockOperation, MemfdFlags, Mode, XattrFlags, chmodat, flock, inotify,
    memfd_create, mknodat, removexattr, setxattr,
};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::probe::{RETURN_0, is_confidential, load_program};
use crate::pseudo_fs::PROC;
use crate::sys;
use crate::uapi::ProgramType;

/// Where the calls are made, with what they need.
pub(super) struct Provoked {
    dir: PathBuf,
}

/// Version 2, and the three entries of mode 0600.
const ACL: [u8; 28] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 0, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255,
    255, 255, 255,
];

const FS_IOC_GETFLAGS: libc::Ioctl = 0x8008_6601;
const FS_IOC_SETFLAGS: libc::Ioctl = 0x4008_6602;

impl Provoked {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".ironclad-canary-{}-{name}", std::process::id()))
    }

    /// Makes the call; none where there is no harmless one: quota_on needs a file system with quotas, uring_cmd a ring of
    /// io_uring, which a sysctl may forbid.
    pub(super) fn provoke(&self, hook: SentinelHook) -> Option<io::Result<()>> {
        let (one, two) = (self.path("one"), self.path("two"));
        let clean = || {
            for path in [&one, &two] {
                let _ = fs::remove_file(path);
                let _ = fs::remove_dir(path);
            }
        };
        clean();
        let done =
            task(hook).or_else(|| file(hook, &one, &two)).or_else(|| self.system(hook, &one));
        clean();
        done
    }

    /// Why the call of a hook failed so without a hook, if the kernel's settings refuse it before the hook is called.
    pub(super) fn unreachable(hook: SentinelHook, error: &io::Error) -> Option<String> {
        use SentinelHook as Hook;
        let number = error.raw_os_error();
        let is_refused = matches!(number, Some(libc::EPERM | libc::EACCES));
        match hook {
            Hook::KernelLoadData | Hook::KernelReadFile if is_set(MODULES_DISABLED) => match number
            {
                Some(libc::ENOSYS) => Some(
                    "kernel.modules_disabled is 1, and the kernel has no such kexec(8)".to_owned(),
                ),
                _ if !is_refused => None,
                _ if is_set(KEXEC_DISABLED) => {
                    Some("kernel.modules_disabled and kernel.kexec_load_disabled are 1".to_owned())
                }
                _ => is(KEXEC_LIMIT, "0").then(|| {
                    "kernel.modules_disabled is 1, and kernel.kexec_load_limit_reboot is 0"
                        .to_owned()
                }),
            },
            Hook::LockedDown => (is_refused && is_confidential())
                .then(|| "the kernel is locked down for confidentiality".to_owned()),
            _ => None,
        }
    }

    /// Hooks of mounts, modules, events and sysctls.
    fn system(&self, hook: SentinelHook, one: &Path) -> Option<io::Result<()>> {
        use SentinelHook as Hook;
        Some(match hook {
            Hook::PerfEventAlloc => count_nothing()?,
            Hook::SbMount => mount_nothing(&self.dir),
            Hook::SbUmount => expire_proc(),
            Hook::SbPivotroot => pivot_root(),
            Hook::MoveMount => move_root(),
            Hook::LockedDown => match File::open("/proc/kcore") {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
                opened => opened.map(drop),
            },
            Hook::KernelLoadData if is_set(MODULES_DISABLED) => no_kernel(),
            Hook::KernelLoadData => no_module(true, one),
            Hook::KernelReadFile if is_set(MODULES_DISABLED) => no_kernel_file(one),
            Hook::KernelReadFile => no_module(false, one),
            Hook::Sysctl => write_sysctl()?,
            Hook::PathNotify => watch_nothing(&self.dir)?,
            _ => return None,
        })
    }
}

/// Hooks of bpf(2) and of processes.
fn task(hook: SentinelHook) -> Option<io::Result<()>> {
    use SentinelHook as Hook;
    Some(match hook {
        Hook::Bpf => sys::next_program(0).map(drop),
        Hook::BpfMap => {
            let kind = libbpf_sys::BPF_MAP_TYPE_ARRAY;
            sys::map_create(kind, "ic_canary", 4, 4, 1, 0, None).map(drop)
        }
        Hook::BpfProgLoad => load_program(ProgramType::SOCKET_FILTER, &RETURN_0).map(drop),
        Hook::BpfProg => sys::next_program(0).and_then(sys::prog_by_id).map(drop),
        // SAFETY: returns a number.
        Hook::TaskPrctl => check(unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }),
        // SAFETY: takes numbers; signal 0 is none.
        Hook::TaskKill => check(unsafe { libc::kill(libc::getpid(), 0) }),
        Hook::PtraceAccessCheck => {
            // Access of a process to itself is not checked.
            let other = if std::process::id() == 1 { return None } else { 1 };
            fs::read_link(format!("/proc/{other}/exe")).map(drop)
        }
        Hook::TaskSetrlimit => {
            Ok(setrlimit(Resource::Core, getrlimit(Resource::Core))).and_then(|it| Ok(it?))
        }
        Hook::TaskSetscheduler => {
            let same = rustix::thread::sched_getaffinity(None);
            same.and_then(|set| rustix::thread::sched_setaffinity(None, &set)).map_err(Into::into)
        }
        Hook::TaskSetnice => {
            let nice = rustix::process::getpriority_process(None);
            nice.and_then(|nice| rustix::process::setpriority_process(None, nice))
                .map_err(Into::into)
        }
        Hook::TaskSetioprio => ioprio(),
        Hook::TaskSetpgid => set_same_group()?,
        Hook::TaskAlloc => no_process(),
        _ => return None,
    })
}

/// Hooks of files, by the paths of two that do not exist.
fn file(hook: SentinelHook, one: &Path, two: &Path) -> Option<io::Result<()>> {
    use SentinelHook as Hook;
    Some(match hook {
        Hook::FileOpen => File::create(one).map(drop),
        Hook::MmapFile => map_to_execute(),
        Hook::InodeUnlink => File::create(one).and_then(|_| fs::remove_file(one)),
        Hook::InodeRmdir => fs::create_dir(one).and_then(|()| fs::remove_dir(one)),
        Hook::InodeRename => File::create(one).and_then(|_| fs::rename(one, two)),
        Hook::InodeLink => File::create(one).and_then(|_| fs::hard_link(one, two)),
        Hook::InodeCreate => File::create(one).map(drop),
        Hook::InodeMkdir => fs::create_dir(one),
        Hook::InodeMknod => mknodat(CWD, one, FileType::Fifo, Mode::RUSR, 0).map_err(Into::into),
        Hook::InodeSymlink => std::os::unix::fs::symlink("/", one),
        Hook::InodeSetattr => File::create(one)
            .and_then(|_| Ok(chmodat(CWD, one, Mode::RUSR, rustix::fs::AtFlags::empty())?)),
        Hook::InodeSetxattr => {
            on_xattr(one, |path| setxattr(path, "user.ironclad", b"1", XattrFlags::empty()))
        }
        Hook::InodeRemovexattr => on_xattr(one, |path| removexattr(path, "user.ironclad")),
        Hook::InodeSetAcl => on_xattr(one, |path| {
            setxattr(path, "system.posix_acl_access", &ACL, XattrFlags::empty())
        }),
        Hook::InodeRemoveAcl => on_xattr(one, |path| removexattr(path, "system.posix_acl_access")),
        Hook::InodeFileSetattr => File::create(one).and_then(|_| file_setattr(one)),
        Hook::FileIoctl => File::create(one).and_then(|file| set_flags(&file)),
        Hook::FileLock => {
            File::create(one).and_then(|file| Ok(flock(&file, FlockOperation::LockShared)?))
        }
        _ => return None,
    })
}

fn check(ret: i32) -> io::Result<()> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A file system that has no such attributes says so after the hook was called.
fn on_xattr(path: &Path, act: impl FnOnce(&Path) -> rustix::io::Result<()>) -> io::Result<()> {
    use rustix::io::Errno;
    File::create(path)?;
    match act(path) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NODATA) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A child with the number of this process, which is taken.
fn no_process() -> io::Result<()> {
    /// `struct clone_args` of include/uapi/linux/sched.h.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags_to_child: [u64; 4],
        exit_signal: u64,
        stack_to_tls: [u64; 3],
        numbers: u64,
        numbers_len: u64,
        cgroup: u64,
    }
    let number = std::process::id();
    let numbers = (&raw const number) as u64;
    let exit_signal = libc::SIGCHLD as u64;
    let args = CloneArgs { exit_signal, numbers, numbers_len: 1, ..CloneArgs::default() };
    // SAFETY: the arguments and the number outlive the call. A child, which there cannot be, ends at once.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>());
        if child == 0 {
            libc::_exit(0);
        }
        child
    };
    passing(check(child as i32), libc::EEXIST)
}

/// The group that it is in already; the first of a session may not even that.
fn set_same_group() -> Option<io::Result<()>> {
    // SAFETY: the calls take numbers, and 0 is the process that calls.
    unsafe {
        let group = libc::getpgid(0);
        // That of whom the kernel itself has started is 0, which means another one here.
        let has_none = group <= 0 || libc::getsid(0) == libc::getpid();
        (!has_none).then(|| check(libc::setpgid(0, group)))
    }
}

fn ioprio() -> io::Result<()> {
    const PROCESS: libc::c_long = 1;
    const CLASS: u32 = 13;
    // SAFETY: both take numbers: of the thread that calls.
    unsafe {
        let now = libc::syscall(libc::SYS_ioprio_get, PROCESS, 0);
        if now < 0 {
            return Err(io::Error::last_os_error());
        }
        // Without a class, older kernels take no number.
        let now = if now >> CLASS == 0 { 0 } else { now };
        check(libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, now) as i32)
    }
}

fn map_to_execute() -> io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let file = match PROC.read_link("self/exe").and_then(File::open) {
        Ok(file) => file.into(),
        // A policy of IMA may refuse to open files.
        Err(_) => memfd_create(c"ironclad-canary", MemfdFlags::CLOEXEC)?,
    };
    let prot = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: a new mapping where the kernel likes, which nothing uses and which is unmapped.
    unsafe {
        let at = mmap(std::ptr::null_mut(), 4096, prot, MapFlags::PRIVATE, file.as_fd(), 0)?;
        munmap(at, 4096)?;
    }
    Ok(())
}

fn set_flags(file: &File) -> io::Result<()> {
    let mut flags: libc::c_long = 0;
    // SAFETY: both calls take a pointer to a long, of which they use the first four bytes.
    let set = unsafe {
        libc::ioctl(file.as_raw_fd(), FS_IOC_GETFLAGS, &raw mut flags);
        check(libc::ioctl(file.as_raw_fd(), FS_IOC_SETFLAGS, &raw const flags))
    };
    // A file system without flags says so after the hook was called.
    match set {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(()),
        set => set,
    }
}

/// file_setattr(2), of which libc knows nothing yet: with nothing to set.
fn file_setattr(path: &Path) -> io::Result<()> {
    const SYS_FILE_SETATTR: libc::c_long = 469;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // struct file_attr of include/uapi/linux/fs.h.
    let attr = [0u64; 3];
    // SAFETY: a path and a struct of 24 bytes, both of which outlive the call.
    let ret = unsafe {
        libc::syscall(
            SYS_FILE_SETATTR,
            libc::AT_FDCWD,
            path.as_ptr(),
            attr.as_ptr(),
            size_of_val(&attr),
            0,
        )
    };
    match check(ret as i32) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOTTY)) => Ok(()),
        done => done,
    }
}

/// A mount without a type: the hook is called before the kernel finds out. Of a type that it does not know, the kernel
/// would wait for modprobe(8), whose configuration may name a command that does not end.
fn mount_nothing(dir: &Path) -> io::Result<()> {
    let dir = CString::new(dir.as_os_str().as_bytes())?;
    let (device, kind) = (c"ironclad-none", std::ptr::null());
    // SAFETY: strings that end with zeros; the kernel takes the null pointers as absent.
    let done =
        check(unsafe { libc::mount(device.as_ptr(), dir.as_ptr(), kind, 0, std::ptr::null()) });
    passing(done, libc::EINVAL)
}

/// What is in use does not expire.
fn expire_proc() -> io::Result<()> {
    let in_use = File::open("/proc")?;
    // SAFETY: a string that ends with a zero.
    let done = check(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_EXPIRE) });
    drop(in_use);
    passing(done, libc::EBUSY)
}

/// The root does not change places with itself.
fn pivot_root() -> io::Result<()> {
    let root = c"/".as_ptr();
    // SAFETY: strings that end with zeros.
    let done = check(unsafe { libc::syscall(libc::SYS_pivot_root, root, root) } as i32);
    passing(passing(done, libc::EINVAL), libc::EBUSY)
}

/// Nor is it moved.
fn move_root() -> io::Result<()> {
    let root = c"/".as_ptr();
    let here = libc::AT_FDCWD;
    // SAFETY: strings that end with zeros.
    let done =
        check(unsafe { libc::syscall(libc::SYS_move_mount, here, root, here, root, 0) } as i32);
    passing(done, libc::EINVAL)
}

/// The removal of a directory, which no process waits for.
fn watch_nothing(dir: &Path) -> Option<io::Result<()>> {
    match inotify::init(inotify::CreateFlags::CLOEXEC) {
        // A kernel without inotify(7), or a user with too many.
        Err(_) => None,
        Ok(queue) => {
            let added = inotify::add_watch(&queue, dir, inotify::WatchFlags::DELETE_SELF);
            Some(added.map(drop).map_err(Into::into))
        }
    }
}

/// Kernels that kexec(8) cannot boot: `kernel.modules_disabled` does not refuse them. Too many segments, which the
/// kernel counts after it has called the hook.
fn no_kernel() -> io::Result<()> {
    /// One more than `KEXEC_SEGMENT_MAX` of include/uapi/linux/kexec.h.
    const SEGMENTS: libc::c_long = 17;
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: numbers, and a pointer that the kernel does not use for so many segments.
    let done = check(unsafe { libc::syscall(libc::SYS_kexec_load, 0, SEGMENTS, none, 0) } as i32);
    passing(done, libc::EINVAL)
}

/// A file that is no kernel.
fn no_kernel_file(path: &Path) -> io::Result<()> {
    const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
    fs::write(path, [0u8; 4096])?;
    let file = File::open(path)?;
    // SAFETY: descriptors, and a string of one byte that ends with a zero.
    let done = check(unsafe {
        let (kernel, none) = (file.as_raw_fd(), -1);
        let flags = KEXEC_FILE_NO_INITRAMFS;
        libc::syscall(libc::SYS_kexec_file_load, kernel, none, 1, c"".as_ptr(), flags)
    } as i32);
    passing(done, libc::ENOEXEC)
}

const MODULES_DISABLED: &str = "modules_disabled";
const KEXEC_DISABLED: &str = "kexec_load_disabled";

/// Of calls without `KEXEC_ON_CRASH`, since Linux 6.3. It only goes down.
const KEXEC_LIMIT: &str = "kexec_load_limit_reboot";

/// Whether a sysctl of the kernel is 1.
fn is_set(sysctl: &str) -> bool {
    is(sysctl, "1")
}

fn is(sysctl: &str, expected: &str) -> bool {
    let value = PROC.read_to_string(format!("sys/kernel/{sysctl}"));
    value.is_ok_and(|value| value.trim() == expected)
}

fn no_module(memory: bool, path: &Path) -> io::Result<()> {
    let zeros = [0u8; 256];
    let none = c"".as_ptr();
    let done = if memory {
        // SAFETY: readable memory of that length, and a string that ends with a zero.
        check(unsafe { libc::syscall(libc::SYS_init_module, zeros.as_ptr(), zeros.len(), none) }
            as i32)
    } else {
        fs::write(path, zeros)?;
        let file = File::open(path)?;
        // SAFETY: a descriptor, a string that ends with a zero, and no flags.
        check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), none, 0) } as i32)
    };
    passing(done, libc::ENOEXEC)
}

/// Its present value.
fn write_sysctl() -> Option<io::Result<()>> {
    const NAME: &str = "/proc/sys/kernel/ftrace_enabled";
    let value = fs::read(NAME).ok()?;
    Some(OpenOptions::new().write(true).open(NAME).and_then(|mut file| file.write_all(&value)))
}

/// That the kernel goes on, and then finds nothing to do.
fn passing(done: io::Result<()>, number: i32) -> io::Result<()> {
    match done {
        Err(e) if e.raw_os_error() == Some(number) => Ok(()),
        done => done,
    }
}

/// A counter of this thread's own time.
fn count_nothing() -> Option<io::Result<()>> {
    // struct perf_event_attr (include/uapi/linux/perf_event.h), version 0: type software, its size,
    // and PERF_COUNT_SW_TASK_CLOCK.
    let mut attr = [0u32; 16];
    (attr[0], attr[1], attr[2]) = (1, size_of_val(&attr) as u32, 1);
    // SAFETY: a struct of the size that it says; the descriptor has no other owner.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), 0, -1, -1, 0) };
    match check(fd as i32) {
        // A kernel without performance events.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => None,
        opened => Some(opened.map(|()| {
            // SAFETY: a new descriptor.
            drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) });
        })),
    }
}
