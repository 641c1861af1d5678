//! The calls to libbpf's thin wrappers of bpf(2) that libbpf-rs does not offer. Each returns the
//! kernel's error; none keeps a pointer.
use std::ffi::{CString, c_void};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::pseudo_fs::PROC;

pub(crate) fn check(ret: i32) -> io::Result<i32> {
    // libbpf returns −errno.
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret)) } else { Ok(ret) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path with a NUL byte"))
}

/// # Safety
/// `ret` is either negative or a descriptor that no other process owns.
unsafe fn owned(ret: i32) -> io::Result<OwnedFd> {
    let fd = check(ret)?;
    // SAFETY: by the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: a valid descriptor and a NUL-terminated path that outlives the call.
    check(unsafe { libbpf_sys::bpf_obj_pin(fd.as_raw_fd(), path.as_ptr()) })?;
    Ok(())
}

pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: a NUL-terminated path; the call returns a new descriptor.
    unsafe { owned(libbpf_sys::bpf_obj_get(path.as_ptr())) }
}

/// Descriptor of the program or map with a kernel id.
pub(crate) fn prog_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number and returns a new descriptor.
    unsafe { owned(libbpf_sys::bpf_prog_get_fd_by_id(id)) }
}

pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number and returns a new descriptor.
    unsafe { owned(libbpf_sys::bpf_map_get_fd_by_id(id)) }
}

/// Structs that BPF_OBJ_GET_INFO_BY_FD fills: plain numbers, for which zero is a value.
///
/// # Safety
/// Any bit pattern, all zeroes included, is a valid value of the type.
pub(crate) unsafe trait Info: Sized {}
// SAFETY: integers and arrays of integers only.
unsafe impl Info for libbpf_sys::bpf_map_info {}
// SAFETY: integers and arrays of integers only.
unsafe impl Info for libbpf_sys::bpf_prog_info {}
// SAFETY: integers and a union of structs of integers only.
unsafe impl Info for libbpf_sys::bpf_link_info {}

pub(crate) fn info<T: Info>(fd: BorrowedFd<'_>, mut request: T) -> io::Result<T> {
    let mut len = mem::size_of::<T>() as u32;
    // SAFETY: `request` is writable for `len` bytes; pointers in it are the caller's and null or valid.
    check(unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            fd.as_raw_fd(),
            (&raw mut request).cast::<c_void>(),
            &mut len,
        )
    })?;
    Ok(request)
}

pub(crate) fn zeroed<T: Info>() -> T {
    // SAFETY: `Info` promises that zeroes are a value.
    unsafe { mem::zeroed() }
}

/// # Safety
/// `key` and `value` are as large as the map's, the value's size times the CPUs for per-CPU maps.
pub(crate) unsafe fn map_lookup(
    fd: BorrowedFd<'_>,
    key: *const c_void,
    value: *mut c_void,
) -> io::Result<bool> {
    // SAFETY: by the caller's promise.
    match check(unsafe { libbpf_sys::bpf_map_lookup_elem(fd.as_raw_fd(), key, value) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// # Safety
/// `key` and `value` are as large as the map's.
pub(crate) unsafe fn map_update(
    fd: BorrowedFd<'_>,
    key: *const c_void,
    value: *const c_void,
    flags: u64,
) -> io::Result<()> {
    // SAFETY: by the caller's promise.
    check(unsafe { libbpf_sys::bpf_map_update_elem(fd.as_raw_fd(), key, value, flags) })?;
    Ok(())
}

/// # Safety
/// `key` is as large as the map's keys.
pub(crate) unsafe fn map_delete(fd: BorrowedFd<'_>, key: *const c_void) -> io::Result<bool> {
    // SAFETY: by the caller's promise.
    match check(unsafe { libbpf_sys::bpf_map_delete_elem(fd.as_raw_fd(), key) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// # Safety
/// `key` is null or as large as the map's keys, as is `next`.
pub(crate) unsafe fn map_next_key(
    fd: BorrowedFd<'_>,
    key: *const c_void,
    next: *mut c_void,
) -> io::Result<bool> {
    // SAFETY: by the caller's promise.
    match check(unsafe { libbpf_sys::bpf_map_get_next_key(fd.as_raw_fd(), key, next) }) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

pub(crate) fn map_freeze(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes a descriptor only.
    check(unsafe { libbpf_sys::bpf_map_freeze(fd.as_raw_fd()) })?;
    Ok(())
}

pub(crate) fn map_create(
    kind: libbpf_sys::bpf_map_type,
    name: &str,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: zeroes are a value of this struct of integers and null pointers.
    let mut opts: libbpf_sys::bpf_map_create_opts = unsafe { mem::zeroed() };
    opts.sz = mem::size_of_val(&opts) as _;
    opts.map_flags = flags;
    opts.inner_map_fd = inner.map_or(0, |fd| fd.as_raw_fd() as u32);
    // SAFETY: name and options outlive the call, which returns a new descriptor.
    unsafe {
        owned(libbpf_sys::bpf_map_create(
            kind,
            name.as_ptr(),
            key_size,
            value_size,
            max_entries,
            &opts,
        ))
    }
}

pub(crate) fn xdp_link_create(
    prog: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    // SAFETY: zeroes are a value of this struct of integers and null pointers.
    let mut opts: libbpf_sys::bpf_link_create_opts = unsafe { mem::zeroed() };
    opts.sz = mem::size_of_val(&opts) as _;
    opts.flags = flags;
    // SAFETY: the options outlive the call, which returns a new descriptor.
    unsafe {
        owned(libbpf_sys::bpf_link_create(
            prog.as_raw_fd(),
            ifindex as i32,
            libbpf_sys::BPF_XDP,
            &opts,
        ))
    }
}

/// A link of a program to a cgroup's hook; or, with no target, of an iterator.
pub(crate) fn link_create(
    prog: BorrowedFd<'_>,
    target: Option<BorrowedFd<'_>>,
    attach_type: libbpf_sys::bpf_attach_type,
) -> io::Result<OwnedFd> {
    let target = target.map_or(0, |fd| fd.as_raw_fd());
    // SAFETY: valid descriptors; null options are allowed; the call returns a new descriptor.
    unsafe {
        owned(libbpf_sys::bpf_link_create(prog.as_raw_fd(), target, attach_type, std::ptr::null()))
    }
}

/// A link of a program to the tracepoint that it was loaded for.
pub(crate) fn tracepoint_open(prog: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: programs with BTF know their tracepoint, so there is no name; a new descriptor.
    unsafe { owned(libbpf_sys::bpf_raw_tracepoint_open(std::ptr::null(), prog.as_raw_fd())) }
}

/// Creates a socket, so that its hooks are called.
pub(crate) fn try_socket(family: i32, kind: i32, protocol: i32) {
    // SAFETY: the call takes numbers; the descriptor, if there is one, has no other owner.
    drop(unsafe { owned(libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol)) });
}

/// Reading from it runs an iterator.
pub(crate) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the call takes a descriptor and returns a new one.
    unsafe { owned(libbpf_sys::bpf_iter_create(link.as_raw_fd())) }
}

pub(crate) fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: valid descriptors; null options are allowed.
    check(unsafe {
        libbpf_sys::bpf_link_update(link.as_raw_fd(), prog.as_raw_fd(), std::ptr::null())
    })?;
    Ok(())
}

pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes a descriptor only.
    check(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) })?;
    Ok(())
}

/// The XDP programs of an interface by mode.
pub(crate) fn xdp_query(ifindex: u32) -> io::Result<libbpf_sys::bpf_xdp_query_opts> {
    // SAFETY: zeroes are a value of this struct of integers.
    let mut opts: libbpf_sys::bpf_xdp_query_opts = unsafe { mem::zeroed() };
    opts.sz = mem::size_of_val(&opts) as _;
    // SAFETY: the options are writable and outlive the call.
    check(unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &mut opts) })?;
    Ok(opts)
}

/// One run of BPF_PROG_TEST_RUN.
pub(crate) fn test_run(prog: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
    // SAFETY: zeroes are a value of this struct of integers and null pointers.
    let mut opts: libbpf_sys::bpf_test_run_opts = unsafe { mem::zeroed() };
    opts.sz = mem::size_of_val(&opts) as _;
    opts.data_in = packet.as_ptr().cast();
    opts.data_size_in = packet.len() as u32;
    opts.repeat = repeat as i32;
    // SAFETY: the packet outlives the call, which only reads it.
    check(unsafe { libbpf_sys::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) })?;
    Ok((opts.retval, opts.duration))
}

/// Runs of an XDP program on frames that go where it sends them, and the mean nanoseconds of one.
/// Linux 5.18.
#[cfg(feature = "bench")]
pub(crate) fn run_live(prog: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<u32> {
    // SAFETY: zeroes are a value of this struct of integers and null pointers.
    let mut opts: libbpf_sys::bpf_test_run_opts = unsafe { mem::zeroed() };
    opts.sz = mem::size_of_val(&opts) as _;
    opts.data_in = frame.as_ptr().cast();
    opts.data_size_in = frame.len() as u32;
    opts.repeat = repeat as i32;
    opts.flags = libbpf_sys::BPF_F_TEST_XDP_LIVE_FRAMES;
    // SAFETY: the frame outlives the call, which only reads it.
    check(unsafe { libbpf_sys::bpf_prog_test_run_opts(prog.as_raw_fd(), &mut opts) })?;
    Ok(opts.duration)
}

/// Waits until no CPU runs a program that could still see what was in force before the call.
///
/// Updating a map of maps makes the kernel wait for just that (`maybe_wait_bpf_programs` in
/// kernel/bpf/syscall.c, since 4.20). membarrier(2) would too, but not with `nohz_full`.
pub(crate) fn grace_period() -> io::Result<()> {
    let inner = map_create(libbpf_sys::BPF_MAP_TYPE_ARRAY, "ic_grace_inner", 4, 4, 1, 0, None)?;
    let outer = map_create(
        libbpf_sys::BPF_MAP_TYPE_ARRAY_OF_MAPS,
        "ic_grace",
        4,
        4,
        1,
        0,
        Some(inner.as_fd()),
    )?;
    let (key, value) = (0u32, inner.as_raw_fd());
    // SAFETY: key and value are four bytes, as the map was made for.
    unsafe {
        map_update(outer.as_fd(), (&raw const key).cast(), (&raw const value).cast(), 0)?;
    }
    Ok(())
}

/// The kernel's number of the thread that calls.
pub(crate) fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: the rest of the buffer is writable for its length.
        let ret = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(ret) {
            Ok(count) => filled += count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Keeps the pages of this process at the addresses in memory: mlock(2).
///
/// # Errors
/// Where the kernel refuses: without `CAP_IPC_LOCK`, above `RLIMIT_MEMLOCK`.
pub fn keep_in_memory(addresses: Range<usize>) -> io::Result<()> {
    // SAFETY: changes neither contents nor rights, and of addresses without a mapping it is an error.
    check(unsafe { libc::mlock(addresses.start as *const c_void, addresses.len()) }).map(drop)
}

/// Overwrites memory that is not read again.
pub(crate) fn clear(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: a byte that is borrowed mutably. Volatile, so that the compiler does not leave it out.
        unsafe { std::ptr::write_volatile(byte, 0) };
    }
}

pub(crate) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number and returns a new descriptor.
    unsafe { owned(libbpf_sys::bpf_link_get_fd_by_id(id)) }
}

/// Presents a secret to Sentinel: the kernel itself knows no such option.
pub(crate) fn hello(secret: &ironclad_core::abi::SecretKey) -> io::Result<()> {
    let [one, two, three, four] = secret.word;
    // SAFETY: the call takes numbers.
    let ret = unsafe { libc::prctl(ironclad_core::abi::SENTINEL_HELLO, one, two, three, four) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The id of the next program.
pub(crate) fn next_program(id: u32) -> io::Result<u32> {
    let mut next = 0;
    // SAFETY: the call writes one number.
    check(unsafe { libbpf_sys::bpf_prog_get_next_id(id, &mut next) })?;
    Ok(next)
}

/// The id of the next link.
pub(crate) fn next_link(id: u32) -> io::Result<u32> {
    let mut next = 0;
    // SAFETY: the call writes one number.
    check(unsafe { libbpf_sys::bpf_link_get_next_id(id, &mut next) })?;
    Ok(next)
}

/// The id of the next map.
pub(crate) fn next_map(id: u32) -> io::Result<u32> {
    let mut next = 0;
    // SAFETY: the call writes one number.
    check(unsafe { libbpf_sys::bpf_map_get_next_id(id, &mut next) })?;
    Ok(next)
}

/// The kernel counts the runs of programs while the descriptor is open.
#[cfg(feature = "bench")]
pub(crate) fn count_runs() -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number and returns a new descriptor.
    unsafe { owned(libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME)) }
}

/// An empty tmpfs of mode 0700 that is mounted nowhere, so that no other process sees it. It ends with its
/// last descriptor. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// Those of fsopen(2), fsconfig(2) and fsmount(2), which Linux 5.2 has.
pub fn private_directory() -> io::Result<OwnedFd> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
        fsopen,
    };
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "mode", "0700")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The root of the cgroups of version 2, as this process's namespace has it, by a mount that
/// no other process sees.
pub(crate) fn cgroup_root() -> io::Result<OwnedFd> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsmount,
        fsopen,
    };
    /// A mount without them switches them off in the whole hierarchy: apply_cgroup_root_flags() of
    /// kernel/cgroup/cgroup.c.
    const KEPT: [&str; 6] = [
        "nsdelegate",
        "favordynmods",
        "memory_localevents",
        "memory_recursiveprot",
        "memory_hugetlb_accounting",
        "pids_localevents",
    ];
    let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mounts = PROC.read_to_string("thread-self/mountinfo")?;
    let of_cgroups = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let options = of_cgroups.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    for option in options.split(',').filter(|option| KEPT.contains(option)) {
        fsconfig_set_flag(context.as_fd(), option)?;
    }
    fsconfig_create(context.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(fsmount(context.as_fd(), flags, MountAttrFlags::empty())?)
}
