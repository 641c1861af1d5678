//! A host for the tests of socket rules: processes in cgroups, and what they may do.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod shared;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ironclad_bpf::probe::{State, probe_lsm};
use ironclad_core::{RuleId, SocketVerdict};
use ironclad_lab::harness;
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, Lab, Namespace};
use ironclad_policy::socket::{Direction, SocketAction, SocketRule, Subject};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::{ApplyOptions, Shield, SocketCount, SocketRecord};

pub(crate) use shared::Running;

pub(crate) const EPERM: u64 = 1;
/// Ends waits for events that come at once; no measurement depends on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A host of one namespace and one cgroup.
pub(crate) struct Host {
    pub(crate) net: Namespace,
    pub(crate) cgroup: Cgroup,
    pub(crate) programs: tempfile::TempDir,
    pub(crate) own: PathBuf,
    pub(crate) lab: Lab,
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
        Self { net, cgroup: Cgroup::new("host").unwrap(), own, programs, lab }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.programs.path().join(name)
    }

    /// A copy of the test's program: another file.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::copy(&self.own, &path).unwrap();
        path
    }

    pub(crate) fn directories<const N: usize>(&self, names: [&str; N]) -> [PathBuf; N] {
        names.map(|name| {
            let dir = self.path(name);
            std::fs::create_dir(&dir).unwrap();
            dir
        })
    }

    pub(crate) fn test_process(&self, program: &Path) -> TestProcess {
        self.test_process_in(&self.cgroup, program)
    }

    pub(crate) fn test_process_in(&self, cgroup: &Cgroup, program: &Path) -> TestProcess {
        self.net.run(|| TestProcess::start(cgroup, program)).unwrap().unwrap()
    }

    /// Shield with a policy for the host's cgroup: the shared instance, where the test shares it.
    pub(crate) fn start(&self, policy: &CompiledPolicy) -> Running {
        self.start_on(&self.cgroup, policy)
    }

    /// Without the thread that follows paths.
    pub(crate) fn start_without_following(&self, policy: &CompiledPolicy) -> Running {
        start(&self.cgroup, policy, false)
    }

    pub(crate) fn start_on(&self, cgroup: &Cgroup, policy: &CompiledPolicy) -> Running {
        start(cgroup, policy, true)
    }
}

fn start(cgroup: &Cgroup, policy: &CompiledPolicy, follows_paths: bool) -> Running {
    if harness::is_shared() {
        return Running::shared(cgroup.dir(), policy, follows_paths);
    }
    let builder = Shield::builder("sockets").cgroup(cgroup.dir()).follow_paths(follows_paths);
    Running::Own(Some(builder.start(policy).unwrap()))
}

/// Until a deadline.
pub(crate) fn provisional(deadline: Duration) -> ApplyOptions {
    ApplyOptions::new().provisional(deadline)
}

pub(crate) fn rule(id: u32, action: SocketAction) -> SocketRule {
    SocketRule::new(RuleId(id), format!("rule {id}"), action)
}

pub(crate) fn policy(rules: impl IntoIterator<Item = SocketRule>) -> CompiledPolicy {
    rules.into_iter().fold(Policy::builder(), Policy::socket_rule).compile().unwrap()
}

const DIRECTIONS: [Direction; 3] = [Direction::Out, Direction::In, Direction::Create];

/// Allows everything to this program, and nothing to other ones.
pub(crate) fn only(program: &Path) -> CompiledPolicy {
    let allow = (1..).zip(DIRECTIONS).map(|(id, direction)| {
        let subject = Subject::new("allowed").exe(program);
        rule(id, SocketAction::Allow).subject(subject).direction(direction)
    });
    let policy = allow.fold(Policy::builder(), Policy::socket_rule);
    let policy = DIRECTIONS
        .into_iter()
        .fold(policy, |policy, direction| policy.socket_default(direction, SocketVerdict::Deny));
    // On kernels without BPF LSM, too.
    policy.danger_packet_sockets_unseen(true).compile().unwrap()
}

pub(crate) fn count(shield: &Shield, id: u32) -> SocketCount {
    let counts = shield.socket_counts().unwrap();
    counts.into_iter().find(|count| count.rule == Some(RuleId(id))).unwrap()
}

/// The socket rule that an event names.
pub(crate) fn rule_of(shield: &Shield, event: &SocketRecord) -> Option<RuleId> {
    shield.describe(event.clone()).rule.map(|rule| rule.id)
}

/// BPF LSM runs, as far as is known.
pub(crate) fn lsm() -> Result<(), String> {
    let lsm = probe_lsm();
    match lsm.state {
        State::Available | State::Unknown => Ok(()),
        _ => Err(lsm.reason.unwrap_or_default()),
    }
}
