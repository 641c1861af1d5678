//! Needs root: real processes in control groups of the tests' own, and what they may do.

use std::path::{Path, PathBuf};

use ironclad_core::RuleId;
use ironclad_lab::talk::{Talker, serve};
use ironclad_lab::{Cgroup, Lab, Namespace};
use ironclad_policy::socket::{Direction, SocketAction, SocketRule, Subject};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::{Shield, SocketCount};

const EPERM: u64 = 1;
/// The test that a talker runs.
const TALKER: &str = "talker";

/// Only for the other tests: a process that does what they say.
#[test]
fn talker() {
    serve(TALKER);
}

/// A host of one namespace and one control group.
struct Host {
    net: Namespace,
    cgroup: Cgroup,
    own: PathBuf,
    programs: tempfile::TempDir,
    _lab: Lab,
}

impl Host {
    fn new() -> Self {
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
    fn program(&self, name: &str) -> PathBuf {
        let path = self.programs.path().join(name);
        std::fs::copy(&self.own, &path).unwrap();
        path
    }

    fn talker(&self, program: &Path) -> Talker {
        self.talker_in(&self.cgroup, program)
    }

    fn talker_in(&self, cgroup: &Cgroup, program: &Path) -> Talker {
        self.net.run(|| Talker::start(cgroup, program, TALKER)).unwrap().unwrap()
    }

    fn start(&self, policy: &CompiledPolicy) -> Shield {
        Shield::builder("sockets").cgroup(self.cgroup.dir()).start(policy).unwrap()
    }
}

fn rule(id: u32, action: SocketAction) -> SocketRule {
    SocketRule::new(RuleId(id), format!("rule {id}"), action)
}

fn policy(rules: impl IntoIterator<Item = SocketRule>) -> CompiledPolicy {
    rules.into_iter().fold(Policy::builder(), Policy::socket_rule).compile().unwrap()
}

fn count(shield: &Shield, id: u32) -> SocketCount {
    let counts = shield.socket_counts().unwrap();
    counts.into_iter().find(|count| count.rule == Some(RuleId(id))).unwrap()
}

#[test]
fn a_program_may_what_its_copy_may_not() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let (mut allowed, mut other) = (host.talker(&good), host.talker(&bad));
    // Without us, both may.
    for order in ["connect tcp 10.9.0.2:80", "send udp 10.9.0.2:53", "bind tcp 0.0.0.0:8080"] {
        assert_eq!((allowed.ask(order).unwrap(), other.ask(order).unwrap()), (0, 0), "{order}");
    }
    let who = || Subject::new("good").exe(&good);
    let shield = host.start(&policy([
        rule(1, SocketAction::Allow).who(who()),
        rule(2, SocketAction::Allow).who(who()).direction(Direction::In),
        rule(3, SocketAction::Deny),
        rule(4, SocketAction::Deny).direction(Direction::In),
    ]));
    // Both ran before; a third comes after, as do what they become and what they start.
    let mut later = host.talker(&good);
    for order in [
        "connect tcp 10.9.0.2:80",
        "connect tcp [fd09::2]:80",
        "connect udp 10.9.0.2:80",
        "connect tcp [::ffff:10.9.0.2]:80",
        "fastopen tcp 10.9.0.2:80",
        "send udp 10.9.0.2:53",
        "send udp [fd09::2]:53",
        "send udp [::ffff:10.9.0.2]:53",
        "bind tcp 0.0.0.0:8080",
        "bind tcp [::]:8080",
        "bind udp 10.9.0.1:8080",
    ] {
        assert_eq!(allowed.ask(order).unwrap(), 0, "{order}");
        assert_eq!(later.ask(order).unwrap(), 0, "{order}");
        assert_eq!(other.ask(order).unwrap(), EPERM, "{order}");
        let fork = |program: &Path| format!("fork {} {order}", program.display());
        assert_eq!(allowed.ask(&fork(&bad)).unwrap(), EPERM, "{order}");
        assert_eq!(other.ask(&fork(&good)).unwrap(), 0, "{order}");
    }
    assert_eq!(later.ask(&format!("exec {}", bad.display())).unwrap(), 0);
    assert_eq!(later.ask("connect tcp 10.9.0.2:80").unwrap(), EPERM);
    let (first, third) = (count(&shield, 1), count(&shield, 3));
    assert_eq!((first.denied, third.allowed), (0, 0));
    assert_eq!((first.allowed, third.denied), (8 * 3, 8 * 2 + 1));
    assert_eq!((count(&shield, 2).allowed, count(&shield, 4).denied), (9, 6));
    drop(shield);
    assert_eq!(other.ask("connect tcp 10.9.0.2:80").unwrap(), 0);
}
