use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::failed;
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::loader::Loader;
use crate::map::{map_memory, name_of};
use crate::skel::bench_lsm::BenchLsmSkelBuilder;
use crate::sys;

/// A program of BPF LSM at open(2) that does nothing: the floor for those that do something.
///
/// # Errors
/// [`BpfError`] where the kernel refuses.
pub fn attach_empty_open() -> Result<HookLink, BpfError> {
    let mut storage = MaybeUninit::uninit();
    let mut open = BenchLsmSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
    let loader = Loader::new("bench_lsm", Allowlist::sentinel());
    let program = loader.load(open.open_object_mut())?.program("ic_empty_open")?;
    HookLink::tracepoint(&program, "file_open")
}

/// Lets the kernel count how often programs run and how long, until what it gives is dropped.
///
/// # Errors
/// `BpfErrorKind::System` where the kernel refuses (needs Linux 5.8 and `CAP_SYS_ADMIN`).
pub fn count_runs() -> Result<OwnedFd, BpfError> {
    sys::count_runs().map_err(|source| BpfError::system("counting runs", source))
}

/// How often programs have run since counting began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// The kernel's id.
    pub id: u32,
    /// The name, at most 15 characters.
    pub name: String,
    /// How often.
    pub count: u64,
    /// How long in all, in nanoseconds of the kernel's clock, which is read twice for each run.
    pub ns: u64,
}

/// By the kernel's ids.
///
/// # Errors
/// `BpfErrorKind::System` where the kernel refuses.
pub fn runs_of_programs(ids: impl IntoIterator<Item = u32>) -> Result<Vec<ProgramRuns>, BpfError> {
    let of = |id| {
        let info =
            sys::info(sys::prog_by_id(id)?.as_fd(), sys::zeroed::<libbpf_sys::bpf_prog_info>())?;
        Ok(ProgramRuns { id, name: name_of(&info.name), count: info.run_cnt, ns: info.run_time_ns })
    };
    let failed = |source| BpfError::system("reading a program's info", source);
    ids.into_iter().map(of).collect::<std::io::Result<_>>().map_err(failed)
}

/// Kernel memory of maps in bytes, by the kernel's ids.
///
/// # Errors
/// `BpfErrorKind::System` where the kernel refuses.
pub fn memory_of_maps(ids: impl IntoIterator<Item = u32>) -> Result<u64, BpfError> {
    let of = |id| map_memory(sys::map_by_id(id)?.as_fd());
    let failed = |source| BpfError::system("reading a map's memory", source);
    ids.into_iter().map(of).sum::<std::io::Result<_>>().map_err(failed)
}
