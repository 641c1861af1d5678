use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::failed;
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::loader::Loader;
use crate::skel::bench_cgroup::BenchCgroupSkelBuilder;

/// A program at connect(2) of IPv4 that does nothing: the floor for those that do something.
///
/// # Errors
/// [`BpfError`] where the kernel refuses.
pub fn attach_empty_connect(cgroup: &Path) -> Result<HookLink, BpfError> {
    let mut storage = MaybeUninit::uninit();
    let mut open =
        BenchCgroupSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
    let loader = Loader::new("bench_cgroup", Allowlist::sockets());
    let program = loader.load(open.open_object_mut())?.program("ic_empty")?;
    let dir = File::open(cgroup)
        .map_err(|e| BpfError::no_cgroup(cgroup, "name the directory of one", Some(e)))?;
    let kind = libbpf_sys::BPF_CGROUP_INET4_CONNECT;
    HookLink::cgroup(&program, dir.as_fd(), kind, "connect4")
}
