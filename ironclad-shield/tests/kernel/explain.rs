//! Needs root: explanations of what real processes were answered, from the tables in the kernel.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use ironclad_bpf::{BPFFS, PinDirectory};
use ironclad_core::abi::{SockIdKey, SocketOp};
use ironclad_core::{RuleId, SocketVerdict};
use ironclad_policy::socket::{
    AddressGroup, Cgroups, Decider, Dimension, Direction, SocketAction, SocketQuery, SocketRule,
    Standing, Subject,
};
use ironclad_policy::{CompiledPolicy, Policy, Protocol, SocketProtocol};
use ironclad_shield::{DescribedProcess, Overflow, Shield, ShieldErrorKind};
use libbpf_rs::MapCore;
use zerocopy::FromBytes;

use crate::testbed::{Host, provisional};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(an_explanation_agrees_with_the_kernel),
        test!(an_event_is_explained_by_the_rule_that_it_names).on_host(),
        test!(explanations_read_the_tables_in_the_kernel).on_host(),
        test!(without_cgroups_there_is_nothing_to_explain),
        test!(an_adopted_instance_explains_too).on_host(),
    ]
}

const EPERM: u64 = 1;
/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);

fn rule(id: u32, action: SocketAction) -> SocketRule {
    SocketRule::new(RuleId(id), format!("rule {id}"), action)
}

fn policy(rules: impl IntoIterator<Item = SocketRule>) -> CompiledPolicy {
    let near = AddressGroup::new("near").cidrs(["10.9.0.0/16".parse().unwrap()]);
    let policy = Policy::builder().addresses(near);
    rules.into_iter().fold(policy, Policy::socket_rule).compile().unwrap()
}

/// The query for an order of a test process.
fn query(order: &str) -> SocketQuery {
    let words: Vec<&str> = order.split(' ').collect();
    let protocol = Protocol::by_name(words[1]).unwrap_or(Protocol::TCP);
    match words[0] {
        "connect" => SocketQuery::connect(protocol, words[2].parse().unwrap()),
        "send" => SocketQuery::send(words[2].parse().unwrap()),
        "bind" => SocketQuery::bind(protocol, words[2].parse().unwrap()),
        _ => SocketQuery::create(if words[2] == "3" {
            SocketProtocol::Raw
        } else {
            SocketProtocol::by_name(words[3]).unwrap()
        }),
    }
}

/// Rules that ask of everything, and processes of which each says something.
fn an_explanation_agrees_with_the_kernel() {
    let host = Host::new();
    let (one, two) = (host.program("one"), host.program("two"));
    let inner = host.cgroup.child("inner").unwrap();
    let (mut outside, mut inside) = (host.test_process(&one), host.test_process_in(&inner, &two));
    assert_eq!(outside.ask("comm evil").unwrap(), 0);
    let fd09 = "fd09::2".parse().unwrap();
    let rules = [
        rule(1, SocketAction::Deny).direction(Direction::Create).protocol(SocketProtocol::Raw),
        rule(2, SocketAction::Deny).direction(Direction::In).ports(8080..=8089),
        rule(3, SocketAction::Log).port(53),
        rule(4, SocketAction::Deny).port(53).subject(Subject::new("").exe(&two)),
        rule(5, SocketAction::Deny).port(81).subject(Subject::new("").parent(&two)),
        rule(6, SocketAction::Deny).port(82).subject(Subject::new("").uid(12345)),
        rule(7, SocketAction::Deny).port(82).subject(Subject::new("").gid(0).exe(&one)),
        rule(8, SocketAction::Deny).port(83).subject(Subject::new("").cgroup(inner.path())),
        rule(9, SocketAction::Deny).port(84).subject(Subject::new("").spoofable_comm("evil")),
        rule(10, SocketAction::Deny).port(85).subject(Subject::new("").descendant_of(&two)),
        rule(11, SocketAction::Deny).to("near").protocol(Protocol::TCP),
        rule(12, SocketAction::Deny).to_cidr(fd09).to_cidr("127.0.0.0/8".parse().unwrap()),
        rule(13, SocketAction::Allow).protocol(Protocol::UDP),
        rule(14, SocketAction::Deny).direction(Direction::Out).port(80),
    ];
    let shield =
        Shield::builder("explain").cgroup(host.cgroup.dir()).start(&policy(rules)).unwrap();
    let mut deciders = std::collections::BTreeSet::new();
    let mut ports: Vec<String> = (80..=85)
        .chain([53, 8079, 8080, 8089, 8090])
        .flat_map(|port| {
            ["10.9.0.2", "10.8.0.1", "[fd09::2]", "[fd09::1]", "[::ffff:10.9.0.2]", "0.0.0.0"]
                .map(|addr| format!("{addr}:{port}"))
        })
        .flat_map(|to| {
            ["connect tcp", "connect udp", "send udp", "bind tcp", "bind udp"]
                .map(|order| format!("{order} {to}"))
        })
        .collect();
    ports.extend(["create 4 3 1", "create 6 3 58"].map(str::to_owned));
    for (test_process, comm) in [(&mut outside, Some("evil")), (&mut inside, None)] {
        let mut process_context = shield.process_context(test_process.pid()).unwrap();
        // The harness runs a test in a thread, which has the name.
        process_context.comm =
            comm.map_or(process_context.comm, |comm: &str| comm.as_bytes().to_vec());
        for order in &ports {
            let answer = test_process.ask(order).unwrap();
            let explained =
                shield.explain_socket(&query(order).by(process_context.clone())).unwrap();
            assert_eq!(explained.is_enforced, Some(true));
            let why = explained.why;
            let expected = if answer == EPERM { SocketVerdict::Deny } else { SocketVerdict::Allow };
            assert_eq!(why.verdict, expected, "{order} answered {answer}: {why}");
            assert!(why.certain);
            if let Decider::Rule { place } = why.decided_by {
                assert_eq!(why.rule().unwrap().id, Some(RuleId(place as u32 + 1)));
                deciders.insert(place + 1);
            }
        }
    }
    // All that a process of these two can meet, so that agreement says something.
    assert_eq!(deciders, [1, 2, 4, 7, 8, 9, 11, 12, 13, 14].into());

    // Described instead of found: parent and ancestor, too.
    let described = |process: &DescribedProcess, order: &str| {
        let process_context = shield.described(process).unwrap();
        shield.explain_socket(&query(order).by(process_context)).unwrap()
    };
    let child = DescribedProcess::new().exe(&one).parent(&two).descendant_of(&two).uid(0).gid(0);
    for (port, id) in [(81, 5), (85, 10), (82, 7)] {
        let why = described(&child, &format!("connect udp 10.8.0.1:{port}"));
        assert_eq!(why.why.rule().unwrap().id, Some(RuleId(id)));
        let fork = format!("fork {} connect udp 10.8.0.1:{port}", one.display());
        assert_eq!(inside.ask(&fork).unwrap(), EPERM, "{port}");
        assert_eq!(why.is_enforced, None, "its cgroup is not specified");
    }
    let unidentified = described(&DescribedProcess::new(), "connect udp 10.8.0.1:82");
    let failed = |place: usize| unidentified.why.rules[place].standing;
    assert_eq!(failed(5), Standing::Fails { dimension: Dimension::Uid });
    assert_eq!(failed(6), Standing::Fails { dimension: Dimension::Exe });
    assert_eq!(failed(7), Standing::Fails { dimension: Dimension::Port });
    let in_it = DescribedProcess::new().cgroup(inner.path());
    assert_eq!(
        described(&in_it, "connect udp 10.8.0.1:83").why.rule().unwrap().id,
        Some(RuleId(8))
    );

    // This process is not protected: no rules are enforced for it.
    let own = shield.process_context(std::process::id()).unwrap();
    let free = shield.explain_socket(&query("connect tcp 10.9.0.2:80").by(own)).unwrap();
    assert_eq!((free.is_enforced, free.why.verdict), (Some(false), SocketVerdict::Deny));
    assert!(free.to_string().starts_with("not enforced, its cgroup is not protected"), "{free}");

    let gone = outside.pid();
    drop(outside);
    assert_eq!(shield.process_context(gone).unwrap_err().kind(), ShieldErrorKind::NoProcess);
    let refused = shield.described(&DescribedProcess::new().exe("/no/such/file")).unwrap_err();
    assert_eq!(refused.to_string(), "file /no/such/file does not exist");
    let refused = shield.described(&DescribedProcess::new().cgroup("/no/such/group")).unwrap_err();
    assert!(refused.to_string().contains("/no/such/group"), "{refused}");
}

fn an_event_is_explained_by_the_rule_that_it_names() {
    let host = Host::new();
    let one = host.program("one");
    let inner = host.cgroup.child("inner").unwrap();
    let path = inner.path().to_owned();
    let mut test_process = host.test_process_in(&inner, &one);
    let to = "connect tcp 10.9.0.2:443";
    assert_eq!(test_process.ask(to).unwrap(), 0, "without us");
    let rules = || {
        [
            rule(1, SocketAction::Allow).port(80),
            rule(2, SocketAction::Allow).subject(Subject::new("").cgroup("/no/such/group")),
            rule(3, SocketAction::Deny)
                .to("near")
                .subject(Subject::new("").cgroup(&path).exe(&one)),
            rule(4, SocketAction::Deny),
        ]
    };
    let shield =
        Shield::builder("explain").cgroup(host.cgroup.dir()).start(&policy(rules())).unwrap();
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    assert_eq!(test_process.ask(to).unwrap(), EPERM);
    let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
    assert_eq!((event.op, event.rule), (SocketOp::Connect, Some(2)));
    let explained = shield.explain_event(&event).unwrap();
    assert_eq!((explained.agrees, explained.is_replaced), (Some(true), false));
    assert_eq!(explained.cgroup.as_deref(), Some(inner.path()));
    assert_eq!(
        explained.to_string(),
        "deny tcp connect 10.9.0.2:443: rule #3\n  \
         rule #1 (id 1, `rule 1`) does not match: port\n  \
         rule #2 (id 2, `rule 2`) does not match: cgroup\n  \
         rule #3 (id 3, `rule 3`) decides"
    );
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["rules"][0]["dimension"], "port");

    // Its cgroup was removed: the match is unknown.
    drop(test_process);
    drop(inner);
    let explained = shield.explain_event(&event).unwrap();
    assert_eq!((explained.cgroup.as_deref(), explained.agrees), (None, None));
    let open = Standing::Open { dimension: Dimension::Cgroup };
    assert_eq!((explained.why.rules[1].standing, explained.why.rules[2].standing), (open, open));
    assert!(!explained.why.certain);
    let text = explained.to_string();
    assert!(text.contains("rule #3 (id 3, `rule 3`) may match: the cgroup is not known"), "{text}");
    assert!(text.ends_with("the event names rule #3"), "{text}");

    // Its policy was replaced: the one in force decides, and the explanation says so.
    shield.apply(&policy([rule(9, SocketAction::Allow)])).unwrap();
    let explained = shield.explain_event(&event).unwrap();
    assert_eq!((explained.is_replaced, explained.agrees), (true, None));
    assert_eq!(explained.why.verdict, SocketVerdict::Allow);
}

/// Shield is not notified of a passed deadline, nor of writes of another process to its tables.
fn explanations_read_the_tables_in_the_kernel() {
    let host = Host::new();
    let one = host.program("one");
    let mut test_process = host.test_process(&one);
    let to = "connect tcp 10.9.0.2:443";
    let deny = policy([
        rule(1, SocketAction::Deny).subject(Subject::new("").exe(&one)),
        rule(2, SocketAction::Allow),
    ]);
    let shield = Shield::builder("explain").cgroup(host.cgroup.dir()).start(&deny).unwrap();
    let explain = |pid| {
        let process_context = shield.process_context(pid).unwrap();
        assert!(matches!(process_context.cgroups, Cgroups::Known(_)));
        shield.explain_socket(&query(to).by(process_context)).unwrap().why
    };
    assert_eq!(test_process.ask(to).unwrap(), EPERM);
    let before = explain(test_process.pid());
    assert_eq!(before.verdict, SocketVerdict::Deny);
    let allow = policy([rule(3, SocketAction::Allow)]);
    shield.apply_with(&allow, provisional(Duration::from_secs(4))).unwrap();
    let meanwhile = explain(test_process.pid());
    assert!(meanwhile.generation > before.generation);
    assert_eq!(meanwhile.rule().unwrap().id, Some(RuleId(3)));
    while test_process.ask(to).unwrap() != EPERM {
        std::thread::yield_now();
    }
    assert_eq!(explain(test_process.pid()), before, "the kernel has returned by itself");

    // Another process removes the file from the table of names.
    let ino = std::fs::metadata(&one).unwrap().ino();
    let mut removed = 0;
    for info in libbpf_rs::query::MapInfoIter::default().filter(|info| info.name == "ic_sock_ids") {
        let map = libbpf_rs::MapHandle::from_map_id(info.id).unwrap();
        for key in map.keys().collect::<Vec<_>>() {
            let known = SockIdKey::read_from_bytes(&key).unwrap();
            if known.value[0] == ino && known.generation == before.generation as u32 {
                map.delete(&key).unwrap();
                removed += 1;
            }
        }
    }
    assert_eq!(removed, 1);
    let mut later = host.test_process(&one);
    assert_eq!(later.ask(to).unwrap(), 0, "the kernel has no file to refuse");
    let after = explain(later.pid());
    assert_eq!(after.rule().unwrap().id, Some(RuleId(2)));
    assert_eq!(after.rules[0].standing, Standing::Fails { dimension: Dimension::Exe });
}

fn without_cgroups_there_is_nothing_to_explain() {
    let shield = Shield::builder("explain").start_unattached(&Policy::builder().compile().unwrap());
    let shield = shield.unwrap();
    let refused = shield.explain_socket(&query("connect tcp 10.9.0.2:80")).unwrap_err();
    assert_eq!(refused.kind(), ShieldErrorKind::NoCgroup, "{refused}");
}

/// Pins that go with the test.
struct Pins(String);

impl Drop for Pins {
    fn drop(&mut self) {
        // The failure of the test is what to report.
        let _ = PinDirectory::purge(Path::new(BPFFS), &self.0);
    }
}

/// The next agent has the tables, and the labels of what was executed before it.
fn an_adopted_instance_explains_too() {
    let host = Host::new();
    let one = host.program("one");
    let name = format!("test-{}-explain", std::process::id());
    let start = |policy: &CompiledPolicy| {
        let builder = Shield::builder(&name).cgroup(host.cgroup.dir()).persistent(true);
        builder.start(policy).unwrap()
    };
    let _pins = Pins(name.clone());
    let rules = || policy([rule(1, SocketAction::Allow).port(80), rule(2, SocketAction::Deny)]);
    let shield = start(&rules());
    let mut test_process = host.test_process(&one);
    let exe = shield.process_context(test_process.pid()).unwrap().process.unwrap().exe;
    drop(shield);
    let to = "connect tcp 10.9.0.2:443";
    assert_eq!(test_process.ask(to).unwrap(), EPERM, "no agent runs");
    let shield = start(&rules());
    let process_context = shield.process_context(test_process.pid()).unwrap();
    let explained = shield.explain_socket(&query(to).by(process_context)).unwrap();
    assert_eq!(explained.is_enforced, Some(true));
    let decider = explained.why.rule().unwrap();
    assert_eq!((decider.id, decider.name.as_str()), (Some(RuleId(2)), "rule 2"));
    drop(test_process);
    assert_eq!(shield.exe_path(&exe).unwrap(), Some(one));
    shield.stop().unwrap();
}
