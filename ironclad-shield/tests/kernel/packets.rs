//! Needs root: processes in cgroups of the tests' own that open packet sockets. Where BPF LSM
//! does not run, the policies that speak of them are refused instead.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ironclad_bpf::probe::{State, probe_lsm};
use ironclad_bpf::{BPFFS, PinDirectory};
use ironclad_core::abi::{self, SocketOp, SocketReason};
use ironclad_core::audit::AuditAction;
use ironclad_core::{ErrorChain, RuleId, SocketVerdict};
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, Lab};
use ironclad_policy::socket::{Direction, RateLimit, SocketAction, SocketRule, Subject};
use ironclad_policy::{CompiledPolicy, Policy, SocketProtocol};
use ironclad_shield::{Overflow, Shield, ShieldErrorKind};

use crate::recorder::Recorder;

use crate::testbed::{lsm, rule_of};
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(packet_sockets_are_for_the_allowed_program).needs(&[lsm]),
        test!(tun_devices_are_for_the_allowed_program).needs(&[lsm]),
        test!(packet_sockets_change_with_the_policy).needs(&[lsm]),
        test!(subjects_and_limits_hold_for_packet_sockets).needs(&[lsm]),
        test!(packet_socket_programs_leave_audit_records).needs(&[lsm]),
        test!(without_bpf_lsm_policies_on_packet_sockets_are_refused),
    ]
}

const EPERM: u64 = 1;
/// A kernel without a family answers like this.
const EAFNOSUPPORT: u64 = 97;
/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The test that a test process runs.
/// Packet sockets that see all that is sent (`htons(ETH_P_ALL)`): raw, without link layer, by the
/// ancient name of the family and by its type alone.
const PACKET: [&str; 4] =
    ["create 17 3 768", "create 17 2 768", "create 17 10 768", "create 4 10 768"];
/// AF_XDP.
const XDP: &str = "create 44 3 0";
/// What has hooks of its own or stays in the host: Unix, netlink, UDP, the kernel's ciphers.
const OTHERS: [&str; 4] = ["create 1 1 0", "create 16 3 0", "create 4 2 17", "create 38 5 0"];
/// A raw socket, which the cgroup's own hook sees.
const RAW: &str = "create 4 3 1";

struct Host {
    cgroup: Cgroup,
    own: PathBuf,
    programs: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let own = std::env::current_exe().unwrap();
        let programs = tempfile::tempdir().unwrap();
        Self { cgroup: Cgroup::new("packets").unwrap(), own, programs }
    }

    /// A copy of the test's program: another file.
    fn program(&self, name: &str) -> PathBuf {
        let path = self.programs.path().join(name);
        std::fs::copy(&self.own, &path).unwrap();
        path
    }

    fn test_process(&self, program: &Path) -> TestProcess {
        TestProcess::start(&self.cgroup, program).unwrap()
    }

    fn start(&self, policy: &CompiledPolicy) -> Shield {
        Shield::builder("packets").cgroup(self.cgroup.dir()).start(policy).unwrap()
    }
}

fn rule(id: u32, action: SocketAction) -> SocketRule {
    SocketRule::new(RuleId(id), format!("rule {id}"), action).direction(Direction::Create)
}

fn packet(id: u32, action: SocketAction) -> SocketRule {
    rule(id, action).protocol(SocketProtocol::Packet)
}

fn policy(rules: impl IntoIterator<Item = SocketRule>) -> CompiledPolicy {
    rules.into_iter().fold(Policy::builder(), Policy::socket_rule).compile().unwrap()
}

fn default_drop() -> Policy {
    Policy::builder().socket_default(Direction::Create, SocketVerdict::Deny)
}

/// The orders that succeed on this kernel without rules.
fn known<'a>(
    test_process: &mut TestProcess,
    orders: impl IntoIterator<Item = &'a str>,
) -> Vec<&'a str> {
    orders
        .into_iter()
        .filter(|order| match test_process.ask(order).unwrap() {
            0 => true,
            EAFNOSUPPORT => {
                println!("not tested: {order}, whose family this kernel lacks");
                false
            }
            other => panic!("{order} without us: {other}"),
        })
        .collect()
}

fn packet_sockets_are_for_the_allowed_program() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let elsewhere = Cgroup::new("elsewhere").unwrap();
    let (mut allowed, mut other) = (host.test_process(&good), host.test_process(&bad));
    let mut outside = TestProcess::start(&elsewhere, &bad).unwrap();
    let sockets = known(&mut other, PACKET.into_iter().chain([XDP]));
    assert!(sockets.len() >= PACKET.len());
    let other_orders = known(&mut other, OTHERS);
    let shield = host.start(&policy([
        packet(7, SocketAction::Allow).subject(Subject::new("good").exe(&good)),
        packet(8, SocketAction::Deny),
    ]));
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    for order in &sockets {
        assert_eq!(allowed.ask(order).unwrap(), 0, "{order}");
        assert_eq!(other.ask(order).unwrap(), EPERM, "{order}");
        assert_eq!(outside.ask(order).unwrap(), 0, "{order}");
        let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
        assert_eq!((event.op, event.verdict), (SocketOp::Create, SocketVerdict::Deny));
        assert_eq!((event.protocol, event.addr), (SocketProtocol::Packet, None));
        assert_eq!((event.pid, event.reason), (other.pid(), SocketReason::Rule));
        let rule = rule_of(&shield, &event);
        assert_eq!(rule, Some(RuleId(8)));
    }
    for order in other_orders.into_iter().chain([RAW]) {
        assert_eq!(other.ask(order).unwrap(), 0, "{order}");
    }
    let counts = shield.socket_counts().unwrap();
    let of = |id| counts.iter().find(|count| count.rule == Some(RuleId(id))).unwrap();
    assert_eq!((of(7).allowed, of(8).denied), (sockets.len() as u64, sockets.len() as u64));

    // The protected cgroups change while it runs.
    shield.protect_cgroup(elsewhere.dir()).unwrap();
    assert_eq!(outside.ask(PACKET[0]).unwrap(), EPERM);
    shield.unprotect_cgroup(host.cgroup.dir()).unwrap();
    assert_eq!((other.ask(PACKET[0]).unwrap(), outside.ask(PACKET[0]).unwrap()), (0, EPERM));
    drop(shield);
    assert_eq!(outside.ask(PACKET[0]).unwrap(), 0);
}

/// What is written to a TUN device reaches other hosts by no socket.
fn tun_devices_are_for_the_allowed_program() {
    if !Path::new("/dev/net/tun").exists() {
        skip("this kernel has no TUN devices");
    }
    let host = Host::new();
    let lab = Lab::new().unwrap();
    let net = lab.namespace("tun").unwrap();
    let start = |cgroup: &Cgroup, program: &Path| {
        net.run(|| TestProcess::start(cgroup, program)).unwrap().unwrap()
    };
    let (good, bad) = (host.program("good"), host.program("bad"));
    let elsewhere = Cgroup::new("elsewhere").unwrap();
    let (mut allowed, mut other) = (start(&host.cgroup, &good), start(&host.cgroup, &bad));
    let mut outside = start(&elsewhere, &bad);
    // One that is created, and one that exists.
    net.ip(&["tuntap", "add", "dev", "kept0", "mode", "tun"]).unwrap();
    let orders = ["tun new0", "tun kept0"];
    for order in orders {
        assert_eq!(other.ask(order).unwrap(), 0, "{order}: the attack succeeds");
    }
    let instance = format!("tun-{}", std::process::id());
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
    let policy = policy([
        packet(7, SocketAction::Allow).subject(Subject::new("good").exe(&good)),
        packet(8, SocketAction::Deny),
    ]);
    let start = || {
        let builder = Shield::builder(&instance).cgroup(host.cgroup.dir()).persistent(true);
        builder.start(&policy).unwrap()
    };
    let shield = start();
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    let mut check = |when: &str| {
        for order in orders {
            assert_eq!(allowed.ask(order).unwrap(), 0, "{order} {when}");
            assert_eq!(other.ask(order).unwrap(), EPERM, "{order} {when}");
            assert_eq!(outside.ask(order).unwrap(), 0, "{order} {when}");
        }
    };
    check("with an agent");
    for _ in orders {
        let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
        assert_eq!((event.op, event.verdict), (SocketOp::Create, SocketVerdict::Deny));
        assert_eq!((event.protocol, event.addr), (SocketProtocol::Packet, None));
        assert_eq!(rule_of(&shield, &event), Some(RuleId(8)));
    }
    drop(shield);
    check("without an agent");
    let shield = start();
    check("with the next agent");
    shield.stop().unwrap();
    for order in orders {
        assert_eq!(other.ask(order).unwrap(), 0, "{order}: stopped");
    }
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
}

/// What a policy says of packet sockets comes and goes with it, and with what other hooks see.
fn packet_sockets_change_with_the_policy() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    assert_eq!((test_process.ask(PACKET[0]).unwrap(), test_process.ask(RAW).unwrap()), (0, 0));
    let shield = host.start(&policy([]));
    let mut apply = |policy: Policy| {
        shield.apply(&policy.compile().unwrap()).unwrap();
        (test_process.ask(PACKET[0]).unwrap(), test_process.ask(RAW).unwrap())
    };
    assert_eq!(apply(Policy::builder()), (0, 0));
    assert_eq!(apply(default_drop()), (EPERM, EPERM));
    assert_eq!(apply(default_drop().danger_packet_sockets_unseen(true)), (0, EPERM));
    let raw =
        Policy::builder().socket_rule(rule(1, SocketAction::Deny).protocol(SocketProtocol::Raw));
    assert_eq!(apply(raw), (0, EPERM));
    let any = Policy::builder().socket_rule(rule(1, SocketAction::Deny));
    assert_eq!(apply(any.clone()), (EPERM, EPERM));
    assert_eq!(apply(any.dry_run(true)), (0, 0));
    assert_eq!(apply(Policy::builder()), (0, 0));
}

fn subjects_and_limits_hold_for_packet_sockets() {
    let host = Host::new();
    let one = host.program("one");
    let around = host.cgroup.child("around").unwrap();
    let inner = around.child("inner").unwrap();
    let mut outside = host.test_process(&one);
    let mut inside = TestProcess::start(&inner, &one).unwrap();
    let shield = host.start(&policy([]));
    let mut ask = |subject: Subject| {
        shield.apply(&policy([packet(1, SocketAction::Deny).subject(subject)])).unwrap();
        (outside.ask(PACKET[0]).unwrap(), inside.ask(PACKET[0]).unwrap())
    };
    let whose = || Subject::new("");
    assert_eq!(ask(whose().cgroup(inner.path())), (0, EPERM));
    assert_eq!(ask(whose().cgroup(host.cgroup.path())), (EPERM, EPERM));
    assert_eq!(ask(whose().uid(0).exe(&one)), (EPERM, EPERM));
    assert_eq!(ask(whose().uid(12345)), (0, 0));
    assert_eq!(ask(whose().gid(0).spoofable_comm("other")), (0, 0));

    // A rate so slow that no token returns while this runs.
    let limit = RateLimit::per_second(1).burst(100);
    let limited = policy([packet(2, SocketAction::Allow).limit(limit)]);
    match shield.apply(&limited) {
        Ok(()) => {
            let allowed = (0..300).filter(|_| outside.ask(PACKET[0]).unwrap() == 0).count();
            assert!((100..300).contains(&allowed), "{allowed}");
        }
        Err(refused) => {
            let words = "rule 2 (`rule 2`) limits packet sockets, which needs Linux 5.11";
            assert!(refused.to_string().contains(words), "{refused}");
            let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
            assert!(kernel.starts_with("5.10."), "{kernel}: {refused}");
        }
    }
    assert_eq!(shield.counters().unwrap().loss(abi::Loss::Map), 0);
}

fn packet_socket_programs_leave_audit_records() {
    let host = Host::new();
    let recorder = Arc::new(Recorder::default());
    let builder = Shield::builder("packets").audit(recorder.clone()).cgroup(host.cgroup.dir());
    let shield = builder.start(&policy([packet(1, SocketAction::Deny)])).unwrap();
    // Once, however many policies speak of them.
    shield.apply(&default_drop().compile().unwrap()).unwrap();
    drop(shield);
    let actions = recorder.0.lock().unwrap().clone();
    let count =
        |is_it: &dyn Fn(&AuditAction) -> bool| actions.iter().filter(|it| is_it(it)).count();
    let programs = ["ic_packet", "ic_tun_create", "ic_tun_open"];
    let hooks = ["socket_create", "tun_dev_create", "tun_dev_open"];
    let loads = |it: &AuditAction| matches!(it, AuditAction::Load { program, .. } if programs.contains(&&**program));
    let attaches = |it: &AuditAction| matches!(it, AuditAction::Attach { hook, interface, .. } if hook == "lsm" && hooks.contains(&&**interface));
    let detaches =
        |it: &AuditAction| matches!(it, AuditAction::Detach { hook, .. } if hook == "lsm");
    assert_eq!((count(&loads), count(&attaches), count(&detaches)), (3, 3, 3));
}

/// Nothing goes unseen in silence.
fn without_bpf_lsm_policies_on_packet_sockets_are_refused() {
    let lsm = probe_lsm();
    if matches!(lsm.state, State::Available | State::Unknown) {
        skip("BPF LSM runs here");
    }
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let refused = |policy: Policy, by: &str| {
        let recorder = Arc::new(Recorder::default());
        let builder = Shield::builder("packets").audit(recorder.clone()).cgroup(host.cgroup.dir());
        let refused = builder.start(&policy.compile().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ShieldErrorKind::PacketSockets, "{refused}");
        let text = ErrorChain::new(&refused).to_string();
        for words in [by, lsm.reason.as_deref().unwrap(), "danger-packet-sockets-unseen: true"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let actions = recorder.0.lock().unwrap();
        let is_it = |it: &AuditAction| matches!(it, AuditAction::Refuse { program, reason } if program == "ic_packet" && *reason == text);
        assert!(actions.iter().any(is_it));
    };
    refused(default_drop(), "the default of `create`");
    refused(default_drop().socket_rule(rule(3, SocketAction::Allow)), "rule 3 (`rule 3`)");
    refused(Policy::builder().socket_rule(packet(4, SocketAction::Log)), "rule 4 (`rule 4`)");

    // The alternatives; and the policy in force stays.
    let shield = host.start(&policy([rule(1, SocketAction::Deny).protocol(SocketProtocol::Raw)]));
    assert_eq!((test_process.ask(PACKET[0]).unwrap(), test_process.ask(RAW).unwrap()), (0, EPERM));
    assert!(shield.apply(&default_drop().compile().unwrap()).is_err());
    assert_eq!(test_process.ask(RAW).unwrap(), EPERM);
    let unseen = default_drop().danger_packet_sockets_unseen(true).compile().unwrap();
    shield.apply(&unseen).unwrap();
    assert_eq!((test_process.ask(PACKET[0]).unwrap(), test_process.ask(RAW).unwrap()), (0, EPERM));
}
