//! The gate: programs of other processes that are loaded or attached.

use std::net::UdpSocket;

use ironclad_bpf::probe::probe_lsm;
use ironclad_core::RuleId;
use ironclad_core::abi::{self, SentinelHook, SentinelVerdict};
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::test_process::{TestProcess, ends_within};
use ironclad_lab::{Cgroup, role, test};
use ironclad_policy::socket::{SocketAction, SocketRule};
use ironclad_policy::{Policy, Protocol};
use ironclad_sentinel::{ForeignProgram, Overflow, Sentinel};
use ironclad_shield::Shield;
use libbpf_rs::btf::{Btf, BtfKind, BtfType};

use crate::status_and_alarms::Foreigner;
use crate::testbed::{Attacks, EPERM, Host, PATIENCE, lsm, next_denied};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(programs_that_could_bypass_sentinel_are_not_loaded)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(programs_of_every_type_may_not_call_what_acts_on_others)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(programs_that_were_loaded_before_are_not_attached)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(trampolines_of_programs_that_were_loaded_before_are_not_attached)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(programs_that_rewrite_addresses_are_not_attached).in_machine().needs(&[lsm]),
    ]
}

/// A process that loads a program of BPF LSM, and fails where it cannot.
pub(crate) const LSM_LOADER: Role = role!(load_lsm);

fn load_lsm() {
    let lsm = probe_lsm();
    assert!(lsm.is_available(), "{lsm:?}");
}

fn programs_that_could_bypass_sentinel_are_not_loaded() {
    let host = Host::new();
    let mut attacker = host.test_process();
    // Types by their numbers. LSM and tracing programs need more than this to load, but the gate is checked first.
    let load =
        |attacker: &mut TestProcess, kind: u32| attacker.ask(&format!("load {kind}")).unwrap();
    const SOCKET_FILTER: u32 = 1;
    const TRACEPOINT: u32 = 5;
    const CGROUP_SYSCTL: u32 = 23;
    const STRUCT_OPS: u32 = 27;
    const LSM: u32 = 29;
    let probes = [
        ("load a BPF program of type kprobe", KPROBE),
        ("load a BPF program of type tracepoint", TRACEPOINT),
        ("load a BPF program of type raw tracepoint", RAW_TRACEPOINT),
        ("load a BPF program of type cgroup sysctl", CGROUP_SYSCTL),
    ];
    let group = Cgroup::new("room").unwrap();
    let kept = [
        (
            "attach a cgroup sysctl program that was loaded before",
            format!("attach-kept {}", group.dir().display()),
        ),
        (
            "attach a cgroup sysctl program by a BPF link",
            format!("link-kept {}", group.dir().display()),
        ),
    ];
    let mut attacks = Attacks::default();
    for (name, kind) in probes {
        attacks.without(name, &mut attacker, &format!("load {kind}"));
    }
    let by_attributes = "load a BPF program by a command with common attributes";
    let load_with_attributes = format!("load-with-attributes {KPROBE}");
    let has_attributes = attacker.ask(&load_with_attributes).unwrap() == 0;
    match has_attributes {
        true => attacks.without(by_attributes, &mut attacker, &load_with_attributes),
        false => println!("not tried: this kernel has no BPF_COMMON_ATTRS"),
    }
    assert_eq!(attacker.ask("keep-program").unwrap(), 0);
    for (name, order) in &kept {
        attacks.without(name, &mut attacker, order);
    }
    let own = std::env::current_exe().unwrap();
    let by_lsm = "load a BPF LSM program";
    let load_lsm = format!("tool env {} {}", LSM_LOADER.env(), own.display());
    attacks.without(by_lsm, &mut attacker, &load_lsm);
    assert_eq!(load(&mut attacker, SOCKET_FILTER), 0);
    for kind in [TRACING, STRUCT_OPS, EXT, LSM] {
        assert_ne!(load(&mut attacker, kind), EPERM, "{kind}");
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, kind) in probes {
        let event = attacks.with(name, &mut attacker, &format!("load {kind}"), &events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, kind), "{event}");
    }
    if has_attributes {
        let event = attacks.with(by_attributes, &mut attacker, &load_with_attributes, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, KPROBE), "{event}");
    }
    for (name, order) in &kept {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, CGROUP_SYSCTL), "{event}");
    }
    for kind in [TRACING, STRUCT_OPS, EXT, LSM] {
        assert_eq!(load(&mut attacker, kind), EPERM, "{kind}");
        let event = next_denied(&events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, kind), "{event}");
    }
    let event = attacks.with(by_lsm, &mut attacker, &load_lsm, &events);
    assert_eq!((event.hook, event.target), (SentinelHook::Bpf, LSM), "{event}");
    // Other types are reported.
    assert_eq!(load(&mut attacker, SOCKET_FILTER), 0);
    let event = loop {
        let event = events.recv_timeout(crate::testbed::PATIENCE).unwrap().into_sentinel().unwrap();
        if event.pid == attacker.pid() {
            break event;
        }
    };
    assert_eq!((event.verdict, event.target), (SentinelVerdict::Logged, SOCKET_FILTER), "{event}");
}

/// The number of a function or structure in the kernel's BTF.
fn btf_id(name: &str, kind: BtfKind) -> Option<u32> {
    let btf = Btf::from_vmlinux().unwrap();
    let mut types = (1..btf.len() as u32).filter_map(|id| btf.type_by_id::<BtfType<'_>>(id.into()));
    let is_it = |it: &BtfType<'_>| it.kind() == kind && it.name().is_some_and(|it| it == name);
    types.find(is_it).map(|found| found.type_id().into())
}

/// Whether the kernel has kernel functions that act on others, for programs of packets.
fn kfunc(name: &str) -> Option<u32> {
    let found = btf_id(name, BtfKind::Func);
    if found.is_none() {
        println!("not tried: this kernel has no {name}");
    }
    found
}

/// `enum bpf_prog_type` and `enum bpf_func_id`.
const KPROBE: u32 = 2;
const SCHED_CLS: u32 = 3;
const RAW_TRACEPOINT: u32 = 17;
const TRACING: u32 = 26;
const EXT: u32 = 28;
const PROBE_READ_USER: u32 = 112;
const TRACE_PRINTK: u32 = 6;
const SET_RETVAL: u32 = 187;
/// Socket filters, XDP, programs at cgroups, of lightweight tunnels, of sockets and of netfilter.
const OTHER_TYPES: [u32; 10] = [1, 6, 8, 9, 10, 13, 14, 15, 16, 32];
/// SIGTERM.
const TERMINATE: i32 = 15;
const EINVAL: u64 = 22;

/// The type of a program does not bound what it can do.
fn programs_of_every_type_may_not_call_what_acts_on_others() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let mut tried: Vec<_> = [
        ("read user memory by bpf_probe_read_user in a program of packets", PROBE_READ_USER, 0),
        // In the last instructions of a long program.
        ("read user memory by bpf_probe_read_user after 9,000 instructions", PROBE_READ_USER, 9000),
        ("read kernel memory by bpf_trace_printk in a program of packets", TRACE_PRINTK, 0),
    ]
    .map(|(name, helper, before)| {
        (name.to_owned(), format!("read-by-helper {SCHED_CLS} {helper} {before}"), helper)
    })
    .into();
    if let Some(cast) = kfunc("bpf_rdonly_cast") {
        let structure = btf_id("task_struct", BtfKind::Struct).unwrap();
        tried.push((
            "read kernel memory by bpf_rdonly_cast in a program of packets".to_owned(),
            format!("read-by-kfunc {cast} {structure}"),
            cast | abi::CALL_KFUNC,
        ));
    }
    for (name, order, _) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let by_signal = "kill the agent by bpf_send_signal_task in a program of packets";
    let signal = kfunc("bpf_send_signal_task").map(|send| {
        let [find, release] = ["bpf_task_from_pid", "bpf_task_release"]
            .map(|name| btf_id(name, BtfKind::Func).unwrap());
        let victim = host.test_process();
        let order = |pid: u32| format!("signal-by-kfunc {pid} {TERMINATE} {find} {send} {release}");
        attacks.without(by_signal, &mut attacker, &order(victim.pid()));
        assert!(ends_within(victim.pid(), crate::testbed::PATIENCE).unwrap());
        (order(std::process::id()), find)
    });
    // Since Linux 5.18.
    let by_override = "override the verdict of Shield's programs by bpf_set_retval";
    let has_override = attacker.ask("override-verdict").unwrap() == 0;
    if has_override {
        attacks.without(by_override, &mut attacker, "override-verdict");
    }
    let of_type = |kind| format!("read-by-helper {kind} {PROBE_READ_USER} 0");
    let mut other_types = OTHER_TYPES.to_vec();
    // 5.10 has no programs of netfilter.
    other_types.retain(|&kind| attacker.ask(&of_type(kind)).unwrap() == 0);
    assert!(other_types.len() >= OTHER_TYPES.len() - 1, "{other_types:?}");
    // Its work queue copies the environment of PID 1.
    let mut queue = Foreigner::new("read_environment");
    let has_queue = queue.loads();
    if !has_queue {
        println!("not tried: this kernel does not load read_environment");
    }

    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for kind in other_types {
        assert_eq!(attacker.ask(&of_type(kind)).unwrap(), EPERM, "{kind}");
        let event = next_denied(&events);
        assert_eq!((event.hook, event.target), (SentinelHook::BpfProgLoad, kind), "{event}");
    }
    if has_queue {
        assert!(!queue.loads());
        let event = next_denied(&events);
        assert_eq!((event.hook, event.target), (SentinelHook::BpfProgLoad, SCHED_CLS), "{event}");
        assert!(event.kfunc().is_some(), "{event}");
    }
    for (name, order, call) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::BpfProgLoad, SCHED_CLS), "{event}");
        assert_eq!(event.detail, *call, "{event}");
    }
    if let Some((order, find)) = signal {
        let event = attacks.with(by_signal, &mut attacker, &order, &events);
        assert_eq!((event.hook, event.kfunc()), (SentinelHook::BpfProgLoad, Some(find)), "{event}");
        let explained = sentinel.explain_event(&event).unwrap().to_string();
        assert!(explained.contains("kernel function bpf_task_from_pid"), "{explained}");
        assert!(explained.contains("of a sched_cls program"), "{explained}");
    }
    if has_override {
        let event = attacks.with(by_override, &mut attacker, "override-verdict", &events);
        assert_eq!((event.hook, event.detail), (SentinelHook::BpfProgLoad, SET_RETVAL), "{event}");
    }
    // Long programs that call nothing are loaded.
    assert_eq!(attacker.ask(&format!("read-by-helper {SCHED_CLS} 5 9000")).unwrap(), 0);
}

/// A program that a process keeps is attached by a perf event, or by a link of a newer attach type.
fn programs_that_were_loaded_before_are_not_attached() {
    const SESSIONS: &str = "bpf_session_is_return";
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let tracepoint = "/sys/kernel/tracing/events/syscalls/sys_enter_personality/id";
    let tracepoint = std::fs::read_to_string(tracepoint).unwrap();
    let by_event = "attach a program that was loaded before to a perf event";
    assert_eq!(attacker.ask(&format!("keep-probe {} 2", tracepoint.trim())).unwrap(), 0);
    attacks.without(by_event, &mut attacker, "attach-probe");
    let by_session = "attach a program that was loaded before by a kprobe session";
    let link_session = "link-session ksys_sync_helper";
    let query = "ask which programs a cgroup has: the answer's memory may never come";
    let group = Cgroup::new("room").unwrap();
    let query_order = format!("query-devices {}", group.dir().display());
    attacks.without(query, &mut attacker, &query_order);
    let sessions = kfunc(SESSIONS).map(|_| host.test_process());
    let sessions = sessions.map(|mut other| {
        assert_eq!(other.ask("keep-session").unwrap(), 0);
        attacks.without(by_session, &mut other, link_session);
        other
    });
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let event = attacks.with(by_event, &mut attacker, "attach-probe", &events);
    assert_eq!(event.hook, SentinelHook::FileIoctl, "{event}");
    assert!(event.to_string().contains("PERF_EVENT_IOC_SET_BPF of a kprobe program"), "{event}");
    let event = attacks.with(query, &mut attacker, &query_order, &events);
    assert!(event.to_string().contains("bpf BPF_PROG_QUERY by"), "{event}");
    if let Some(mut other) = sessions {
        let event = attacks.with(by_session, &mut other, link_session, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, KPROBE), "{event}");
        assert!(event.to_string().contains("BPF_LINK_CREATE of a kprobe program"), "{event}");
    }
}

/// A program at a cgroup of a socket rule runs after Shield's, and has an allowed datagram go where a rule denies it.
fn programs_that_rewrite_addresses_are_not_attached() {
    const CGROUP_SOCK_ADDR: u32 = 18;
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let group = Cgroup::new("rewritten").unwrap();
    let at = group.dir().display();
    let denied = UdpSocket::bind("127.0.0.1:0").unwrap();
    denied.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = denied.local_addr().unwrap().port();
    let rule = SocketRule::new(RuleId(1), "one", SocketAction::Deny);
    let policy = Policy::builder().socket_rule(rule.protocol(Protocol::UDP).port(port));
    let shield = Shield::builder("test").cgroup(group.dir());
    let shield = shield.start(&policy.compile().unwrap()).unwrap();
    let mut victim = TestProcess::start(&group, &std::env::current_exe().unwrap()).unwrap();
    let send = |port: u16| format!("send udp 127.0.0.1:{port}");
    assert_eq!(victim.ask(&send(port)).unwrap(), EPERM);
    let other = if port == 9 { 10 } else { 9 };
    let by_link = "rewrite an address that Shield has allowed by a program at its cgroup";
    let tried = [
        (by_link, format!("link-rewriting {at}")),
        ("attach such a program without a link", format!("attach-rewriting {at}")),
        ("give such a program to a link at the cgroup", "update-rewriting".to_owned()),
    ];
    assert_eq!(attacker.ask(&format!("keep-rewriting {port}")).unwrap(), 0);
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    assert_eq!(victim.ask(&send(other)).unwrap(), 0);
    let mut said = [0; 8];
    assert_eq!(denied.recv(&mut said).unwrap(), 5);
    // A link of a harmless program, whose place the rewriting one takes.
    assert_eq!(attacker.ask("keep-rewriting 0").unwrap(), 0);
    assert_eq!(attacker.ask(&format!("link-rewriting {at}")).unwrap(), 0);
    assert_eq!(attacker.ask(&format!("keep-rewriting {port}")).unwrap(), 0);
    let sentinel = Sentinel::builder("test");
    let sentinel = sentinel.start(&Policy::builder().compile().unwrap()).unwrap();
    let foreign = sentinel.status().unwrap().foreign;
    let suspect = |it: &ForeignProgram| (it.program.rewrites_addresses, it.is_suspect);
    let of_type = |it: &&ForeignProgram| it.program.program_type.0 == CGROUP_SOCK_ADDR;
    let mut suspects: Vec<_> = foreign.programs.iter().filter(of_type).map(suspect).collect();
    suspects.sort_unstable();
    assert_eq!(suspects, [(false, false), (true, true)], "{foreign:?}");
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::Bpf, "{event}");
    }
    // Without threads, the gate reads the program.
    assert_eq!(attacker.ask("leaderless").unwrap(), 0);
    for (_, order) in &tried {
        assert_eq!(attacker.ask(order).unwrap(), EPERM, "{order}");
        assert_eq!(next_denied(&events).hook, SentinelHook::Bpf);
    }
    assert_eq!(attacker.ask("keep-rewriting 0").unwrap(), 0);
    for order in ["update-rewriting", &tried[1].1, &tried[0].1] {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    assert_eq!(victim.ask(&send(port)).unwrap(), EPERM);
    drop((sentinel, shield));
}

/// Ways to attach a program of a trampoline that was loaded before, and the type that the alarm names.
const BY_MODIFIER: [(&str, &str, u32); 2] = [
    ("attach an fmod_ret program that was loaded before", "open-kept", RAW_TRACEPOINT),
    (
        "attach an fmod_ret program that was loaded before by a BPF link",
        "link-kept-as 26 none",
        TRACING,
    ),
];
const BY_REPLACER: [(&str, &str, u32); 5] = [
    ("attach an freplace program that was loaded before", "open-kept", RAW_TRACEPOINT),
    ("attach an freplace program by a BPF link", "link-kept-as 0 none", EXT),
    ("attach an freplace program by a BPF link with a target", "link-kept-as 0 named", EXT),
    ("attach an freplace program by a BPF link of another type", "link-kept-as 1 none", EXT),
    (
        "attach an freplace program by a BPF link of another type with a target",
        "link-kept-as 1 named",
        EXT,
    ),
];

/// Programs that change the result of a function of the kernel (fmod_ret), or replace one of another program
/// (freplace).
fn trampolines_of_programs_that_were_loaded_before_are_not_attached() {
    let host = Host::new();
    let mut attacks = Attacks::default();
    let function = btf_id("security_bpf", BtfKind::Func).unwrap();
    let modify = format!("keep-modify-return {function}");
    let mut attackers = [
        ("load an fmod_ret program for security_bpf", modify.as_str(), BY_MODIFIER.as_slice()),
        ("load an freplace program", "keep-replacement", &BY_REPLACER),
    ]
    .map(|(load, keep, by)| (host.test_process(), load, keep, by.to_vec()));
    for (attacker, load, keep, by) in &mut attackers {
        attacks.without(load, attacker, keep);
        by.retain(|(name, order, _)| {
            // 5.10 has links of the load's attach type alone, and none of fmod_ret.
            if attacker.ask(order).unwrap() == EINVAL {
                println!("not tried: this kernel cannot {name}");
                return false;
            }
            // A program that names no target may be attached once.
            assert_eq!(attacker.ask(keep).unwrap(), 0);
            attacks.without(name, attacker, order);
            assert_eq!(attacker.ask(keep).unwrap(), 0);
            true
        });
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for ((attacker, load, keep, by), kind) in attackers.iter_mut().zip([TRACING, EXT]) {
        for (name, order, kind) in by {
            let event = attacks.with(name, attacker, order, &events);
            assert_eq!((event.hook, event.target), (SentinelHook::Bpf, *kind), "{event}");
        }
        let event = attacks.with(load, attacker, keep, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, kind), "{event}");
    }
    // Without threads, the gate reads the program's type.
    let (replacer, ..) = &mut attackers[1];
    assert_eq!(replacer.ask("leaderless").unwrap(), 0);
    assert_eq!(replacer.ask("link-kept-as 1 named").unwrap(), EPERM);
    let event = next_denied(&events);
    assert_eq!((event.hook, event.target), (SentinelHook::Bpf, EXT), "{event}");
}
