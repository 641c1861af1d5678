//! A host for Sentinel's tests: the agent is the test's own process, attackers are other processes.
#![allow(dead_code, unused_imports, reason = "each test uses some of it")]

pub(crate) mod attacks;
pub(crate) mod shared;
pub(crate) mod successor;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ironclad_bpf::probe::{State, probe_lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelVerdict;
use ironclad_lab::harness;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{EventReceiver, HeldFile, Sentinel, SentinelRecord};
use rustix::mount::{MountFlags, mount};

pub(crate) use attacks::Attacks;
pub(crate) use shared::Running;

pub(crate) const EPERM: u64 = 1;
/// The limit of waits for events that come at once. A test fails after it, and measures nothing by it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The dynamic loader.
#[cfg(target_arch = "x86_64")]
pub(crate) const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
pub(crate) const LOADER: &str = "/lib/ld-linux-aarch64.so.1";

pub(crate) struct Host {
    dir: tempfile::TempDir,
    own: PathBuf,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), own: std::env::current_exe().unwrap() }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A copy of the test's program: another executable.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::copy(&self.own, &path).unwrap();
        path
    }

    /// A process of root with the agent's executable, which is not trusted.
    pub(crate) fn test_process(&self) -> TestProcess {
        self.test_process_by(&self.own)
    }

    pub(crate) fn test_process_by(&self, program: &Path) -> TestProcess {
        TestProcess::start_as(Command::new(program)).unwrap()
    }

    /// Sentinel with a policy: the shared instance, where the test shares it.
    pub(crate) fn start(&self, policy: &CompiledPolicy) -> Running {
        if harness::is_shared() {
            return Running::shared(policy);
        }
        let builder = Sentinel::builder("test");
        Running::Own(builder.start(policy).unwrap())
    }
}

impl Drop for Host {
    /// Where a test fails, an instance that it made persistent would make every later test fail.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for dir in std::fs::read_dir("/sys/fs/bpf/ironclad").into_iter().flatten().flatten() {
                let removed = std::fs::remove_dir_all(dir.path());
                println!("{} is left, and removed: {removed:?}", dir.path().display());
            }
        }
    }
}

/// A policy that denies changes below a directory.
pub(crate) fn unchanged(dir: &Path) -> CompiledPolicy {
    let rule = FileRule::new(RuleId(1), "rule 1", FileAction::Deny);
    Policy::builder().file_rule(rule.tree(dir).operations(FileOps::CHANGE)).compile().unwrap()
}

/// Mounts FUSE at a directory. No request of it is answered before the server is dropped, and then with an error.
pub(crate) fn silent_server(at: &Path) -> File {
    let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let options = CString::new(options).unwrap();
    mount("none", at, "fuse", MountFlags::empty(), Some(&*options)).unwrap();
    server
}

/// A sysctl that has its former value again when dropped.
pub(crate) struct Sysctl(pub(crate) PathBuf, String);

impl Sysctl {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from("/proc/sys").join(name);
        let former = std::fs::read_to_string(&path).unwrap();
        Self(path, former)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        std::fs::write(&self.0, &self.1).unwrap();
    }
}

/// Has a process run an order that succeeds.
pub(crate) fn does(process: &mut TestProcess, order: &str) {
    assert_eq!(process.ask(order).unwrap(), 0, "{order}");
}

/// The names of what is open without a descriptor.
pub(crate) fn held_names(sentinel: &Sentinel) -> Vec<String> {
    let held = sentinel.status().unwrap().held;
    let name = |it| match it {
        HeldFile::File { name, .. } => name,
        other => other.to_string(),
    };
    held.into_iter().map(name).collect()
}

/// The next alarm of a denied access.
pub(crate) fn next_denied(events: &EventReceiver) -> SentinelRecord {
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        if event.verdict == SentinelVerdict::Denied {
            return event;
        }
    }
}

/// Whether BPF LSM runs, as far as the probe shows.
pub(crate) fn lsm() -> Result<(), String> {
    let lsm = probe_lsm();
    match lsm.state {
        State::Available | State::Unknown => Ok(()),
        _ => Err(lsm.reason.unwrap_or_default()),
    }
}
