//! Executing other programs, namespaces, and impersonation.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use ironclad_syscalls::{Deed, Impostor, Lie};
use nix::mount::{MsFlags, mount};
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

pub(super) fn go_on(impostor: Option<Impostor>) -> io::Result<u64> {
    allowed(impostor.expect("an impostor").go())
}
