//! Needs root: real processes in cgroups of the tests' own, and what they may do.

use std::path::Path;
use std::sync::Arc;

use ironclad_core::abi::{SOCK_RULES_MAX, SocketOp, SocketReason};
use ironclad_core::audit::AuditAction;
use ironclad_core::{ErrorChain, RuleId, SocketVerdict};
use ironclad_policy::socket::{
    AddressGroup, Direction, RateLimit, SocketAction, SocketRule, Subject,
};
use ironclad_policy::{Limits, Policy, Protocol};
use ironclad_shield::{Overflow, Shield, ShieldErrorKind};
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::recorder::Recorder;
use crate::testbed::shared::maps;
use crate::testbed::{EPERM, Host, PATIENCE, count, policy, rule, rule_of};
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_program_is_allowed_what_its_copy_is_denied).shared(),
        test!(every_dimension_distinguishes_processes).shared(),
        test!(multipath_tcp_is_tcp).shared(),
        test!(events_name_process_and_rule).shared(),
        test!(logs_and_dry_runs_allow_and_limits_are_exact),
        test!(three_callers_never_exceed_a_limit).shared(),
        test!(loads_and_attachments_leave_audit_records),
        test!(a_rule_behind_many_partial_matches_decides),
        test!(as_many_socket_rules_as_a_policy_may_have),
        test!(a_table_that_is_full_names_its_setting),
    ]
}

fn a_program_is_allowed_what_its_copy_is_denied() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let (mut allowed, mut other) = (host.test_process(&good), host.test_process(&bad));
    // Without us, both may.
    for order in ["connect tcp 10.9.0.2:80", "send udp 10.9.0.2:53", "bind tcp 0.0.0.0:8080"] {
        assert_eq!((allowed.ask(order).unwrap(), other.ask(order).unwrap()), (0, 0), "{order}");
    }
    let subject = || Subject::new("good").exe(&good);
    let shield = host.start(&policy([
        rule(1, SocketAction::Allow).subject(subject()),
        rule(2, SocketAction::Allow).subject(subject()).direction(Direction::In),
        rule(3, SocketAction::Deny),
        rule(4, SocketAction::Deny).direction(Direction::In),
    ]));
    // Both ran before; a third comes after, as do what they become and what they start.
    let mut later = host.test_process(&good);
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

/// Each dimension on its own: what it names is refused, and nothing else.
fn every_dimension_distinguishes_processes() {
    let host = Host::new();
    let (one, two) = (host.program("one"), host.program("two"));
    let inner = host.cgroup.child("inner").unwrap();
    let (mut outside, mut inside) = (host.test_process(&one), host.test_process_in(&inner, &one));
    let shield = host.start(&policy([]));
    let mut next = 0;
    let mut apply = |narrow: &dyn Fn(SocketRule) -> SocketRule| {
        next += 1;
        let group = AddressGroup::new("second").cidrs([
            "10.9.0.2".parse().unwrap(),
            "fd09::2".parse().unwrap(),
            "10.8.0.0/16".parse().unwrap(),
        ]);
        let policy = Policy::builder()
            .addresses(group)
            .socket_rule(narrow(rule(next, SocketAction::Deny)))
            .danger_packet_sockets_unseen(true)
            .compile()
            .unwrap();
        shield.apply(&policy).unwrap();
    };
    let near = "connect udp 10.9.0.2:53";
    let fork = |program: &Path| format!("fork {} {near}", program.display());

    // Where, port, protocol, direction.
    apply(&|rule| rule.to("second"));
    assert_eq!(outside.ask(near).unwrap(), EPERM);
    assert_eq!(outside.ask("connect tcp [fd09::2]:80").unwrap(), EPERM);
    assert_eq!(outside.ask("connect udp 10.8.255.255:1").unwrap(), EPERM);
    for other in ["connect udp 10.9.0.1:53", "send udp [fd09::1]:53", "bind udp 10.9.0.2:0"] {
        assert_eq!(outside.ask(other).unwrap(), 0, "{other}");
    }
    apply(&|rule| rule.ports(50..=53).port(80));
    for (port, answer) in [(49, 0), (50, EPERM), (53, EPERM), (54, 0), (80, EPERM), (65535, 0)] {
        assert_eq!(outside.ask(&format!("connect udp 10.9.0.2:{port}")).unwrap(), answer, "{port}");
    }
    apply(&|rule| rule.protocol(Protocol::TCP));
    assert_eq!(outside.ask("connect tcp 10.9.0.2:80").unwrap(), EPERM);
    assert_eq!(outside.ask(near).unwrap(), 0);
    apply(&|rule| rule.direction(Direction::In).port(8080));
    assert_eq!(outside.ask("bind tcp 10.9.0.1:8080").unwrap(), EPERM);
    assert_eq!(outside.ask("bind tcp 10.9.0.1:8081").unwrap(), 0);
    assert_eq!(outside.ask("connect udp 10.9.0.2:8080").unwrap(), 0);

    // The unspecified address is one's own host.
    apply(&|rule| rule.to_cidr("127.0.0.0/8".parse().unwrap()).to_cidr("::1".parse().unwrap()));
    for loopback in ["127.0.0.1:9", "0.0.0.0:9", "[::1]:9", "[::]:9", "[::ffff:127.0.0.1]:9"] {
        for order in ["connect tcp", "connect udp", "send udp"] {
            assert_eq!(outside.ask(&format!("{order} {loopback}")).unwrap(), EPERM, "{loopback}");
        }
    }

    // Raw sockets and protocols without hooks of their own.
    apply(&|rule| rule.direction(Direction::Create));
    for (order, answer) in [
        ("create 4 3 1", EPERM),
        ("create 6 3 58", EPERM),
        ("create 4 3 255", EPERM),
        ("create 4 1 6", 0),
        ("create 6 2 17", 0),
    ] {
        assert_eq!(outside.ask(order).unwrap(), answer, "{order}");
    }
    apply(&|rule| rule.direction(Direction::Create).protocol(Protocol::ICMP));
    assert_eq!(outside.ask("create 4 3 1").unwrap(), 0, "a raw socket is raw, whatever it carries");

    // The process: cgroup, parent, ancestor, name.
    apply(&|rule| rule.subject(Subject::new("").cgroup(inner.path())));
    assert_eq!((outside.ask(near).unwrap(), inside.ask(near).unwrap()), (0, EPERM));
    apply(&|rule| rule.subject(Subject::new("").cgroup(host.cgroup.path())));
    assert_eq!((outside.ask(near).unwrap(), inside.ask(near).unwrap()), (EPERM, EPERM));
    apply(&|rule| rule.subject(Subject::new("").parent(&one)));
    assert_eq!(outside.ask(near).unwrap(), 0);
    assert_eq!(outside.ask(&fork(&two)).unwrap(), EPERM);
    let twice = format!("fork {} {}", two.display(), fork(&one));
    assert_eq!(outside.ask(&twice).unwrap(), 0, "a grandparent is no parent");
    apply(&|rule| rule.subject(Subject::new("").descendant_of(&two)));
    assert_eq!(outside.ask(near).unwrap(), 0);
    assert_eq!(outside.ask(&fork(&two)).unwrap(), 0, "a process is not its own ancestor");
    assert_eq!(outside.ask(&twice).unwrap(), EPERM);
    apply(&|rule| rule.subject(Subject::new("").spoofable_comm("evil")));
    assert_eq!(outside.ask(near).unwrap(), 0);
    assert_eq!(outside.ask("comm evil").unwrap(), 0);
    assert_eq!(outside.ask(near).unwrap(), EPERM);
    apply(&|rule| rule.subject(Subject::new("").uid(12345)));
    assert_eq!(outside.ask(near).unwrap(), 0);
    apply(&|rule| rule.subject(Subject::new("").uid(0).gid(0).exe(&one)));
    assert_eq!(outside.ask(near).unwrap(), EPERM);
    assert_eq!(outside.ask(&fork(&two)).unwrap(), 0);
    assert_eq!(shield.counters().unwrap().loss(ironclad_core::abi::Loss::Map), 0);
}

/// A kernel without it answers like this.
const EPROTONOSUPPORT: u64 = 93;

fn multipath_tcp_is_tcp() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let order = "connect mptcp 10.9.0.2:80";
    match test_process.ask(order).unwrap() {
        EPROTONOSUPPORT => {
            skip("this kernel has no Multipath TCP");
        }
        before => assert_eq!(before, 0),
    }
    let shield = host.start(&policy([rule(1, SocketAction::Deny).protocol(Protocol::UDP)]));
    assert_eq!(test_process.ask(order).unwrap(), 0);
    shield.apply(&policy([rule(1, SocketAction::Deny).protocol(Protocol::TCP)])).unwrap();
    assert_eq!(test_process.ask(order).unwrap(), EPERM);
}

/// An event names the process, the address and the rule that refused.
fn events_name_process_and_rule() {
    let host = Host::new();
    let one = host.program("one");
    let mut test_process = host.test_process(&one);
    let shield = host.start(&policy([
        rule(7, SocketAction::Allow).port(80).report(true),
        rule(8, SocketAction::Deny).to_cidr("fd09::/16".parse().unwrap()),
    ]));
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    let next = || events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
    assert_eq!(test_process.ask("connect tcp [fd09::2]:443").unwrap(), EPERM);
    let denied = next();
    assert_eq!((denied.op, denied.verdict), (SocketOp::Connect, SocketVerdict::Deny));
    assert_eq!(denied.reason, SocketReason::Rule);
    assert_eq!(denied.addr, Some("[fd09::2]:443".parse().unwrap()));
    let rule = rule_of(&shield, &denied);
    assert_eq!((rule, denied.protocol), (Some(RuleId(8)), Protocol::TCP.into()));
    assert_eq!((denied.pid, denied.uid, denied.gid), (test_process.pid(), 0, 0));
    assert_ne!(denied.tid, denied.pid, "a thread of the test harness");
    assert_eq!(denied.ppid, std::process::id());
    use std::os::unix::fs::MetadataExt;
    assert_eq!(denied.cgroup, std::fs::metadata(host.cgroup.dir()).unwrap().ino());
    assert_eq!(denied.exe.ino, std::fs::metadata(&one).unwrap().ino());
    assert!(!denied.unidentified && !denied.log && !denied.dry_run);
    assert_eq!(test_process.ask("connect udp 10.9.0.2:80").unwrap(), 0);
    let allowed = next();
    assert_eq!((allowed.verdict, allowed.rule), (SocketVerdict::Allow, Some(0)));
    assert_eq!(test_process.ask("connect udp 10.9.0.2:81").unwrap(), 0);
    assert_eq!(events.try_recv(), None, "what the default allows is not reported");
}

/// A rule that reports lets the next decide, a dry run denies nothing, and a limit is a limit for all
/// CPUs together.
fn logs_and_dry_runs_allow_and_limits_are_exact() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let near = "connect udp 10.9.0.2:53";
    let shield = host.start(&policy([
        rule(1, SocketAction::Log).port(53),
        rule(2, SocketAction::Deny).port(53).protocol(Protocol::UDP),
        rule(3, SocketAction::Log),
        rule(4, SocketAction::Deny).port(54).dry_run(true),
    ]));
    assert_eq!(test_process.ask(near).unwrap(), EPERM);
    assert_eq!(test_process.ask("connect tcp 10.9.0.2:53").unwrap(), 0);
    assert_eq!(test_process.ask("connect udp 10.9.0.2:54").unwrap(), 0);
    assert_eq!((count(&shield, 1).logged, count(&shield, 2).denied), (2, 1));
    assert_eq!(count(&shield, 3).logged, 2, "only what comes before the rule that decides");
    assert_eq!((count(&shield, 4).would_deny, count(&shield, 4).denied), (1, 0));

    // A rate so slow that few tokens return while this runs.
    let limit = RateLimit::per_second(1).burst(1000);
    shield.apply(&policy([rule(5, SocketAction::Allow).port(53).limit(limit)])).unwrap();
    let (began, first) = (std::time::Instant::now(), monotonic_ns());
    assert_eq!(test_process.ask(near).unwrap(), 0);
    let first = first..=monotonic_ns();
    let allowed = 1 + test_process.ask("burst 2000 4 10.9.0.2:53").unwrap();
    let returned = began.elapsed().as_secs() + 1;
    assert!((1000..=1000 + returned).contains(&allowed), "{allowed}");
    let counted = count(&shield, 5);
    assert_eq!((counted.allowed, counted.limited), (allowed, 8001 - allowed));
    // Of the tokens that four threads took at once none is lost, and none was taken twice: the bucket,
    // which was never full again, is to be full that many seconds after the first.
    let is_exact = |full: u64| first.contains(&full.saturating_sub(allowed * 1_000_000_000));
    assert!(full_ns().any(is_exact), "{allowed} {first:?} {:?}", full_ns().collect::<Vec<_>>());

    // A debt of a thousand seconds to a slow limit becomes at most the burst of a faster one.
    let limit = RateLimit::per_second(1000).burst(1000);
    shield.apply(&policy([rule(5, SocketAction::Allow).port(53).limit(limit)])).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while test_process.ask(near).unwrap() == EPERM {
        assert!(std::time::Instant::now() < deadline, "the former limit's debt is not forgiven");
    }
}

/// The burst lasts 2.5 ms, so that the bucket is full again whenever all callers are without a processor for longer.
fn three_callers_never_exceed_a_limit() {
    const INTERVAL_NS: u64 = 50_000;
    const BURST: u64 = 50;
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let limit = RateLimit::per_second(20_000).burst(BURST as u32);
    let shield = host.start(&policy([rule(20_050, SocketAction::Allow).port(53).limit(limit)]));
    let (began, mut asked, mut allowed) = (monotonic_ns(), 0, 0);
    // The last moment before and the first after a round are the kernel's own clock, however long it takes.
    for _ in 0..20 {
        let before = monotonic_ns();
        let round = test_process.ask("burst 2000 3 10.9.0.2:53").unwrap();
        let most = BURST + (monotonic_ns() - before) / INTERVAL_NS;
        assert!(round <= most, "{round} of at most {most}");
        (asked, allowed) = (asked + 6000, allowed + round);
    }
    let ended = monotonic_ns();
    assert!(allowed <= BURST + (ended - began) / INTERVAL_NS, "{allowed}");
    let counted = count(&shield, 20_050);
    assert_eq!((counted.allowed, counted.limited), (allowed, asked - allowed));
    // No token was given twice: each moved the bucket by an interval. What moved it further was lost while it was full.
    let given = began + allowed * INTERVAL_NS..=ended + BURST * INTERVAL_NS;
    let full = full_ns().find(|full| given.contains(full));
    let full = full.unwrap_or_else(|| panic!("{given:?} {:?}", full_ns().collect::<Vec<_>>()));
    let lost = (full - began) / INTERVAL_NS - allowed;
    println!(
        "{allowed} of {asked} allowed, and {lost} tokens lost by a full bucket or between rounds"
    );
    if counted.limited == 0 {
        skip("three callers ask for less than 20,000 a second here");
    }
    assert!(allowed > BURST, "tokens return");
}

/// The clock of token buckets.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// When the token buckets of all instances will be full, those that were never used aside.
fn full_ns() -> impl Iterator<Item = u64> {
    let full = |map: &MapHandle, index: u32| {
        let bucket = map.lookup(&index.to_ne_bytes(), MapFlags::ANY).ok()??;
        Some(u64::from_ne_bytes(bucket[..8].try_into().unwrap())).filter(|&full| full != 0)
    };
    maps("ic_buckets").flat_map(move |map| {
        let count = map.max_entries();
        (0..count).filter_map(|index| full(&map, index)).collect::<Vec<_>>()
    })
}

fn loads_and_attachments_leave_audit_records() {
    let host = Host::new();
    let recorder = Arc::new(Recorder::default());
    let builder = || Shield::builder("sockets").audit(recorder.clone()).cgroup(host.cgroup.dir());
    let rules = policy([rule(1, SocketAction::Deny)]);
    drop(builder().start(&rules).unwrap());
    let actions = recorder.0.lock().unwrap().clone();
    let loaded = |name: &str| {
        let is_it = |action: &&AuditAction| matches!(action, AuditAction::Load { program, .. } if program == name);
        actions.iter().filter(is_it).count()
    };
    for name in
        ["ic_exec", "ic_exec_4", "ic_fork", "ic_exit", "ic_seed", "ic_connect4", "ic_sock_create"]
    {
        assert_eq!(loaded(name), 1, "{name}");
    }
    let attached = |at: &str| {
        let is_it = |action: &&AuditAction| matches!(action, AuditAction::Attach { hook, .. } if hook == at);
        actions.iter().filter(is_it).count()
    };
    // Four of execve(2), four of fork(2), one of the end.
    assert_eq!((attached("tracepoint"), attached("cgroup")), (9, 9));
    let wrote = |action: &AuditAction| matches!(action, AuditAction::MapWrite { map, .. } if map.contains("ic_sock_rows"));
    assert!(actions.iter().any(wrote));
    let interface = host.cgroup.dir().display().to_string();
    let detached = AuditAction::Detach { hook: "cgroup".to_owned(), interface };
    assert_eq!(actions.last(), Some(&detached));

    // Socket rules without a cgroup are refused.
    let refused = Shield::builder("sockets").start_unattached(&rules).unwrap_err();
    assert_eq!(refused.kind(), ShieldErrorKind::NoCgroup, "{refused}");
    let refused = Shield::builder("sockets").cgroup("/tmp").start(&rules).unwrap_err();
    assert!(refused.to_string().contains("no cgroup of version 2"), "{refused}");
}

/// Before the rule that matches come words of rules in which each dimension matches, but never of the same rule.
fn a_rule_behind_many_partial_matches_decides() {
    let host = Host::new();
    let (one, two) = (host.program("one"), host.program("two"));
    let mut process = host.test_process(&one);
    let mut ask = |port: u16| process.ask(&format!("connect udp 10.9.0.2:{port}")).unwrap();
    let of = |program: &Path| Subject::new("").exe(program);
    let builder = Shield::builder("many-rules").cgroup(host.cgroup.dir()).socket_rule_slots(10_000);
    let shield = builder.start(&policy([])).unwrap();
    // A word has 64 rules, and a summary leads to 64 words.
    for partial in [3 * 64, 4 * 64, 5 * 64, 64 * 64 - 1, 64 * 64 + 5 * 64] {
        let rules = (0..partial).map(|number| match number % 2 {
            0 => rule(3 + number, SocketAction::Deny).subject(of(&one)).port(1),
            _ => rule(3 + number, SocketAction::Deny).subject(of(&two)).port(53),
        });
        let last = |id, action| rule(id, action).subject(of(&one)).port(53);
        let denied = rules.clone().chain([last(1, SocketAction::Deny)]);
        shield.apply(&policy(denied)).unwrap();
        assert_eq!((ask(1), ask(53), ask(54)), (EPERM, EPERM, 0), "behind {partial} rules");
        let allowed = rules.chain([last(2, SocketAction::Allow), last(1, SocketAction::Deny)]);
        shield.apply(&policy(allowed)).unwrap();
        assert_eq!((ask(1), ask(53)), (EPERM, 0), "the first of two behind {partial} rules");
    }
}

/// Also where each rule of the next policy has another id, and two policies have counters.
fn as_many_socket_rules_as_a_policy_may_have() {
    let host = Host::new();
    let mut process = host.test_process(&host.program("one"));
    let mut ask = |port: u16| process.ask(&format!("connect udp 10.9.0.2:{port}")).unwrap();
    let rules = |first: u32, port: u16| {
        let most = SOCK_RULES_MAX as u32;
        policy((0..most).map(|number| match most - number {
            1 => rule(first + number, SocketAction::Deny).port(port),
            _ => rule(first + number, SocketAction::Deny).port(1),
        }))
    };
    let builder = Shield::builder("most-rules").cgroup(host.cgroup.dir());
    let shield = builder.start(&rules(1, 53)).unwrap();
    assert_eq!((ask(53), ask(54)), (EPERM, 0));
    shield.apply(&rules(1 << 20, 54)).unwrap();
    assert_eq!((ask(53), ask(54)), (0, EPERM));
}

fn a_table_that_is_full_names_its_setting() {
    let host = Host::new();
    let all =
        |rules: [SocketRule; 8]| rules.into_iter().fold(Policy::builder(), Policy::socket_rule);
    let deny = |number: u16| rule(number.into(), SocketAction::Deny);
    let rules = || all(std::array::from_fn(|n| deny(n as u16 + 1).port(n as u16 + 1)));
    let networks = all(std::array::from_fn(|n| {
        deny(n as u16 + 1).to_cidr(format!("10.{n}.9.0/24").parse().unwrap())
    }));
    let cells = networks.clone().compile().unwrap().sockets().unwrap().addresses().cells() as u32;
    type Set = fn(Limits, u32) -> Limits;
    let settings: [(&str, Set, Policy, [u32; 2]); 3] = [
        ("socket-rule-slots", Limits::socket_rule_slots, rules(), [7, 8]),
        ("socket-rows", Limits::socket_rows, rules(), [2, 40]),
        ("socket-cells", Limits::socket_cells, networks, [cells - 1, cells]),
    ];
    let builder = || Shield::builder("full").cgroup(host.cgroup.dir());
    for (key, set, policy, [few, enough]) in settings {
        let with = |room| {
            let limits = set(Limits::default(), room);
            builder().start(&policy.clone().limits(limits).compile().unwrap())
        };
        let refused = ErrorChain::new(&with(few).unwrap_err()).to_string();
        assert!(
            refused.contains(&format!("(in a policy file `policy-limits.{key}`)")),
            "{refused}"
        );
        with(enough).unwrap();
    }
    // The embedder's word comes first.
    let few = rules().limits(Limits::default().socket_rule_slots(1)).compile().unwrap();
    builder().socket_rule_slots(8).start(&few).unwrap();
    let refused = builder().socket_rule_slots(40_000).start(&few).unwrap_err().to_string();
    assert!(refused.contains("`socket_rule_slots`"), "{refused}");
}
