//! Links of BPF, by the system calls themselves.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::attack::{check, load};
use crate::program::UDP4_SENDMSG;

const BPF_OBJ_GET: c_int = 7;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_QUERY: c_int = 16;
const BPF_PROG_DETACH: c_int = 9;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_MAP_GET_FD_BY_ID: c_int = 14;
const BPF_LINK_CREATE: c_int = 28;
const BPF_LINK_UPDATE: c_int = 29;
const BPF_LINK_GET_FD_BY_ID: c_int = 30;
const BPF_LINK_DETACH: c_int = 34;

const BPF_PROG_TYPE_CGROUP_SYSCTL: u32 = 23;
const BPF_CGROUP_SYSCTL: u32 = 18;

fn bpf(cmd: c_int, attr: [u32; 4]) -> io::Result<c_int> {
    // SAFETY: the attributes outlive the call, and so does what they point to, as callers see to.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, cmd, attr.as_ptr(), size_of_val(&attr)) };
    check(answer as c_int)?;
    Ok(answer as c_int)
}

fn descriptor(cmd: c_int, attr: [u32; 4]) -> io::Result<OwnedFd> {
    let fd = bpf(cmd, attr)?;
    // SAFETY: a new descriptor has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A program that refuses every write to sysctls where it is attached; Sentinel has one of that kind.
///
/// # Errors
/// Where the kernel refuses.
pub fn sysctl_program() -> io::Result<OwnedFd> {
    load(BPF_PROG_TYPE_CGROUP_SYSCTL, 0, 0)
}

/// Attaches one to a cgroup.
///
/// # Errors
/// Where the kernel refuses.
pub fn attach_to_group(group: &File) -> io::Result<OwnedFd> {
    link_program(&sysctl_program()?, group)
}

/// Attaches this one, by a link.
///
/// # Errors
/// Where the kernel refuses.
pub fn link_program(program: &OwnedFd, group: &File) -> io::Result<OwnedFd> {
    let (program, group) = (program.as_raw_fd() as u32, group.as_raw_fd() as u32);
    descriptor(BPF_LINK_CREATE, [program, group, BPF_CGROUP_SYSCTL, 0])
}

/// The same for a program of [`address_program`](crate::address_program).
///
/// # Errors
/// Where the kernel refuses.
pub fn link_address_program(program: &OwnedFd, group: &File) -> io::Result<OwnedFd> {
    let (program, group) = (program.as_raw_fd() as u32, group.as_raw_fd() as u32);
    descriptor(BPF_LINK_CREATE, [program, group, UDP4_SENDMSG, 0])
}

/// Gives such a link another program.
///
/// # Errors
/// Where the kernel refuses.
pub fn update_address_link(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    bpf(BPF_LINK_UPDATE, [link.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0]).map(drop)
}

/// Attaches a program of a kind without a link, and detaches it again.
///
/// # Errors
/// Where the kernel refuses.
pub fn attach_program(program: &OwnedFd, group: &File, kind: u32) -> io::Result<()> {
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let (program, group) = (program.as_raw_fd() as u32, group.as_raw_fd() as u32);
    bpf(BPF_PROG_ATTACH, [group, program, kind, BPF_F_ALLOW_MULTI])?;
    bpf(BPF_PROG_DETACH, [group, program, kind, 0]).map(drop)
}

/// Attaches a program that denies every device to a cgroup. It stays until the cgroup is removed.
///
/// # Errors
/// Where the kernel refuses.
pub fn deny_devices(group: &File) -> io::Result<()> {
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    let program = load(BPF_PROG_TYPE_CGROUP_DEVICE, 0, 0)?;
    let (program, group) = (program.as_raw_fd() as u32, group.as_raw_fd() as u32);
    bpf(BPF_PROG_ATTACH, [group, program, BPF_CGROUP_DEVICE, 0]).map(drop)
}

/// Asks which programs that deny devices are attached to a cgroup.
///
/// # Errors
/// Where the kernel refuses.
pub fn query_devices(group: &File) -> io::Result<()> {
    const BPF_CGROUP_DEVICE: u32 = 6;
    let mut attr = [0u32; 16];
    [attr[0], attr[1]] = [group.as_raw_fd() as u32, BPF_CGROUP_DEVICE];
    let at = attr.as_mut_ptr();
    // SAFETY: the attributes, into which the kernel writes, outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, at, size_of_val(&attr)) };
    check(answer as c_int)
}

/// Opens what is pinned there.
///
/// # Errors
/// Where the kernel refuses.
pub fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let [a, b, c, d, e, f, g, h] = (path.as_ptr() as u64).to_ne_bytes();
    let [first, second] = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes);
    descriptor(BPF_OBJ_GET, [first, second, 0, 0])
}

/// Opens the link with this id.
///
/// # Errors
/// Where the kernel refuses.
pub fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    descriptor(BPF_LINK_GET_FD_BY_ID, [id, 0, 0, 0])
}

/// Opens the map with this id. `flags` are those of `BPF_MAP_GET_FD_BY_ID`.
///
/// # Errors
/// Where the kernel refuses.
pub fn map_by_id(id: u32, flags: u32) -> io::Result<OwnedFd> {
    descriptor(BPF_MAP_GET_FD_BY_ID, [id, 0, flags, 0])
}

/// Opens the program with this id.
///
/// # Errors
/// Where the kernel refuses.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    descriptor(BPF_PROG_GET_FD_BY_ID, [id, 0, 0, 0])
}

/// Has the link of this descriptor run a program that refuses every write to sysctls.
///
/// # Errors
/// Where the kernel refuses.
pub fn update_link(number: u32) -> io::Result<()> {
    let program = sysctl_program()?;
    bpf(BPF_LINK_UPDATE, [number, program.as_raw_fd() as u32, 0, 0]).map(drop)
}

/// Detaches the link of this descriptor.
///
/// # Errors
/// Where the kernel refuses.
pub fn detach_link(number: u32) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, [number, 0, 0, 0]).map(drop)
}

/// dup2(2): what had this number is closed, and the number is another name of what `by` is, though the process that
/// owns it does not know.
///
/// # Errors
/// Where the kernel refuses.
pub fn replace_descriptor(number: RawFd, by: impl AsFd) -> io::Result<()> {
    // SAFETY: both are numbers; no memory is behind them.
    match unsafe { libc::dup2(by.as_fd().as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
