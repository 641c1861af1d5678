//! Executing other programs, namespaces, and impersonation.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use ironclad_syscalls::{Deed, Impostor, Lie, be_real_time};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{MemfdFlags, memfd_create};

use super::allowed;

/// Executes an open file, or a copy of it in memory, without a path.
pub(super) fn execute_open(how: &str, program: &str) -> io::Result<u64> {
    let mut file = File::open(program)?;
    if how == "memory" {
        let mut copy = File::from(memfd_create("copy", MemfdFlags::CLOEXEC)?);
        io::copy(&mut file, &mut copy)?;
        file = copy;
    }
    let args = [CString::new(program).expect("no zeros")];
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let both = [name.into_vec(), b"=".to_vec(), value.into_vec()].concat();
        CString::new(both).expect("no zeros")
    };
    let environment: Vec<_> = std::env::vars_os().map(variable).collect();
    match nix::unistd::fexecve(&file, &args, &environment) {
        Err(e) => Err(e.into()),
    }
}

/// Moves this thread into a new namespace.
pub(super) fn apart(what: &str) -> io::Result<u64> {
    let flag = match what {
        "mounts" => CloneFlags::CLONE_NEWNS,
        "pids" => CloneFlags::CLONE_NEWPID,
        "cgroups" => CloneFlags::CLONE_NEWCGROUP,
        other => panic!("unknown namespace: {other}"),
    };
    unshare(flag)?;
    if what == "mounts" {
        let (nothing, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, flags, nothing)?;
    }
    Ok(0)
}

/// Bind-mounts a file or directory at another path.
pub(super) fn bind(what: &str, at: &str, other: MsFlags) -> io::Result<u64> {
    let nothing = None::<&str>;
    mount(Some(what), at, nothing, MsFlags::MS_BIND | other, nothing)?;
    Ok(0)
}

/// Bind-mounts a file or directory at a path where meanwhile another is mounted, over which it is mounted then.
pub(super) fn bind_late(what: &str, at: &str, over: &str, fuse: &str) -> io::Result<u64> {
    let other = (over.to_owned(), at.to_owned());
    let meanwhile = move || drop(bind(&other.0, &other.1, MsFlags::empty()));
    ironclad_syscalls::bind_late(Path::new(what), Path::new(at), Path::new(fuse), meanwhile)?;
    Ok(0)
}

/// Mounts a new file system of a type.
pub(super) fn mount_new(kind: &str, at: &str) -> io::Result<u64> {
    mount(Some("none"), at, Some(kind), MsFlags::empty(), None::<&str>)?;
    Ok(0)
}

pub(super) fn move_mount(from: &str, to: &str) -> io::Result<u64> {
    let nothing = None::<&str>;
    mount(Some(from), to, nothing, MsFlags::MS_MOVE, nothing)?;
    Ok(0)
}

/// Changes the file system of a mount.
pub(super) fn remount(how: &str, at: &str) -> io::Result<u64> {
    let how = match how {
        "read-only" => MsFlags::MS_RDONLY,
        "writable" => MsFlags::empty(),
        other => panic!("unknown way: {other}"),
    };
    let nothing = None::<&str>;
    mount(nothing, at, nothing, MsFlags::MS_REMOUNT | how, nothing)?;
    Ok(0)
}

/// As systemd(1) does when it stops an automount unit.
pub(super) fn unmount(at: &str) -> io::Result<u64> {
    umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    Ok(0)
}

/// Mounts autofs(5) as systemd(1) does for an automount unit. No process mounts anything on it: a process that opens the directory
/// gets an error.
pub(super) fn automount(at: &str) -> io::Result<u64> {
    let (_requests, kernel) = rustix::pipe::pipe()?;
    let fd = kernel.as_raw_fd();
    let options = format!("fd={fd},minproto=5,maxproto=5,direct");
    mount(Some("pid-1"), at, Some("autofs"), MsFlags::empty(), Some(options.as_str()))?;
    Ok(0)
}

pub(super) fn chroot(to: &str) -> io::Result<u64> {
    nix::unistd::chroot(to)?;
    std::env::set_current_dir("/")?;
    Ok(0)
}

/// A child that impersonates `program`, and waits.
pub(super) fn impostor(program: &str, by: Lie, deed: Deed<'_>) -> io::Result<Impostor> {
    let child = Impostor::start(Path::new(program), by, deed)?;
    let shown = std::fs::read_link(format!("/proc/{}/exe", child.pid()))?;
    assert_eq!(shown, Path::new(program), "the executable that the kernel shows");
    Ok(child)
}

/// Computes at the highest real-time priority, until the process ends.
pub(super) fn hog(begun: &Barrier) {
    const AT_MOST: Duration = Duration::from_secs(60);
    begun.wait();
    be_real_time().expect("a privileged process");
    let until = Instant::now() + AT_MOST;
    while Instant::now() < until {}
}

pub(super) fn go_on(impostor: Option<Impostor>) -> io::Result<u64> {
    allowed(impostor.expect("an impostor").go())
}
