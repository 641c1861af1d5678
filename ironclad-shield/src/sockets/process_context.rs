//! The process context of a running process, or of a described one.
use std::io;
use std::path::{Path, PathBuf};

use ironclad_bpf::pseudo_fs::PROC;
use ironclad_bpf::socket::Processes;
use ironclad_bpf::{BpfError, boottime_ns};
use ironclad_core::abi::{Process, SOCK_KERNEL};
use ironclad_policy::socket::{Cgroups, ProcessContext};

use super::cgroup_paths::CgroupTree;
use crate::error::{Failure, ShieldError};

/// A process that need not exist. Unspecified attributes match no rule.
///
/// ```
/// use ironclad_shield::DescribedProcess;
///
/// let process = DescribedProcess::new().exe("/usr/bin/curl").uid(1000).cgroup("/user.slice");
/// # let _ = process;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DescribedProcess {
    exe: Option<PathBuf>,
    parent: Option<PathBuf>,
    ancestors: Vec<PathBuf>,
    uid: Option<u32>,
    gid: Option<u32>,
    cgroup: Option<String>,
    comm: String,
}

impl DescribedProcess {
    /// A process without attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file that it executes, since now.
    pub fn exe(mut self, path: impl Into<PathBuf>) -> Self {
        self.exe = Some(path.into());
        self
    }

    /// The file that its parent executed when it forked.
    pub fn parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.parent = Some(path.into());
        self
    }

    /// A file that an ancestor executed.
    pub fn descendant_of(mut self, path: impl Into<PathBuf>) -> Self {
        self.ancestors.push(path.into());
        self
    }

    /// Its real user.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Its real group.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Its cgroup, by its path from the root of the hierarchy.
    pub fn cgroup(mut self, path: impl Into<String>) -> Self {
        self.cgroup = Some(path.into());
        self
    }

    /// The name of its thread, which the thread can set.
    pub fn spoofable_comm(mut self, comm: impl Into<String>) -> Self {
        self.comm = comm.into();
        self
    }

    pub(crate) fn process_context(
        &self,
        processes: &Processes,
    ) -> Result<ProcessContext, ShieldError> {
        let named = [&self.exe, &self.parent].into_iter().flatten().chain(&self.ancestors);
        let paths: Vec<&Path> = named.map(PathBuf::as_path).collect();
        let mut files = Vec::with_capacity(paths.len());
        for (path, file) in paths.iter().zip(processes.look_at(&paths)?) {
            files.push(file.ok_or_else(|| Failure::NoFile { path: (*path).to_owned() })?);
        }
        let mut files = files.into_iter();
        let mut next = |said: bool| if said { files.next() } else { None }.unwrap_or_default();
        let (exe, parent) = (next(self.exe.is_some()), next(self.parent.is_some()));
        let mut ancestry = 0;
        for ancestor in files {
            ancestry |= processes.ancestries.lookup(&ancestor.file)?.unwrap_or(0);
        }
        let process = Process {
            exe: exe.file,
            exe_changed_ns: exe.changed_ns,
            parent: parent.file,
            ancestry,
            exec_ns: boottime_ns(),
            ..Process::default()
        };
        let cgroups = match &self.cgroup {
            Some(path) => {
                let found = CgroupTree::open()?.by_path(path);
                found.ok_or_else(|| no_such_cgroup(path))?.ids
            }
            None => Vec::new(),
        };
        Ok(ProcessContext {
            process: (!paths.is_empty()).then_some(process),
            uid: self.uid,
            gid: self.gid,
            cgroups: Cgroups::Known(cgroups),
            comm: self.comm.as_bytes().to_vec(),
        })
    }
}

fn no_such_cgroup(path: &str) -> BpfError {
    BpfError::no_cgroup(path, "`systemd-cgls` lists the cgroups that exist", None)
}

/// Whether `/proc/PID/stat` is that of a kernel thread (proc_pid_stat(5): the ninth field).
fn is_kernel(stat: &[u8]) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    // The second is a name in parentheses, with anything inside.
    let rest = stat.rsplit(|&byte| byte == b')').next().unwrap_or_default();
    let rest = String::from_utf8_lossy(rest);
    let flags = rest.split_whitespace().nth(6).and_then(|flags| flags.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// A running process, by its number in the initial pid namespace.
pub(crate) fn running(processes: &Processes, pid: u32) -> Result<ProcessContext, ShieldError> {
    let failed = |source| Failure::NoProcess { pid, source };
    let read = |name: &str| PROC.read(format!("{pid}/{name}")).map_err(failed);
    let status = read("status")?;
    let status = String::from_utf8_lossy(&status);
    let real = |name: &str| {
        let fields = status.lines().find_map(|line| line.strip_prefix(name))?;
        fields.split_whitespace().next()?.parse().ok()
    };
    let (Some(uid), Some(gid)) = (real("Uid:"), real("Gid:")) else {
        return Err(failed(io::ErrorKind::InvalidData.into()).into());
    };
    let (uid, gid) =
        if is_kernel(&read("stat")?) { (SOCK_KERNEL, SOCK_KERNEL) } else { (uid, gid) };
    let mut comm = read("comm")?;
    comm.truncate(comm.strip_suffix(b"\n").unwrap_or(&comm).len());
    let groups = read("cgroup")?;
    let groups = String::from_utf8_lossy(&groups);
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let tree = CgroupTree::open()?;
    let found = path.and_then(|path| tree.by_path(path));
    Ok(ProcessContext {
        process: processes.table.lookup(&pid)?,
        uid: Some(uid),
        gid: Some(gid),
        cgroups: found.map_or(Cgroups::Unknown, |found| Cgroups::Known(found.ids)),
        comm,
    })
}
