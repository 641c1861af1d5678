//! A host of one namespace and one control group, and processes that do what they are told.

use std::path::{Path, PathBuf};

use ironclad_lab::talk::Talker;
use ironclad_lab::{Cgroup, Lab, Namespace};

/// The test that a talker runs: each binary that starts some has one of this name.
pub(crate) const TALKER: &str = "talker";

pub(crate) struct Host {
    pub(crate) net: Namespace,
    pub(crate) cgroup: Cgroup,
    own: PathBuf,
    programs: tempfile::TempDir,
    _lab: Lab,
}

impl Host {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let net = lab.namespace("host").unwrap();
        for addr in ["10.9.0.1/16", "10.9.0.2/16", "fd09::1/64", "fd09::2/64"] {
            net.address("lo", addr).unwrap();
        }
        let own = std::env::current_exe().unwrap();
        let programs = tempfile::tempdir().unwrap();
        Self { net, cgroup: Cgroup::new("host").unwrap(), own, programs, _lab: lab }
    }

    /// A copy of the test's program: another file.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let path = self.programs.path().join(name);
        std::fs::copy(&self.own, &path).unwrap();
        path
    }

    pub(crate) fn talker(&self, program: &Path) -> Talker {
        self.talker_in(&self.cgroup, program)
    }

    pub(crate) fn talker_in(&self, cgroup: &Cgroup, program: &Path) -> Talker {
        self.net.run(|| Talker::start(cgroup, program, TALKER)).unwrap().unwrap()
    }
}
