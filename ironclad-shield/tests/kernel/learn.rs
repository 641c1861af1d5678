//! Needs root: a learned policy allows what processes were seen to do, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironclad_bpf::probe::probe_lsm;
use ironclad_core::RuleId;
use ironclad_core::abi::FileId;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::document::Document;
use ironclad_policy::learn::LearnOptions;
use ironclad_policy::socket::{SocketAction, SocketRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::{DescribedProcess, EventReceiver, Learning, Overflow, Shield, SocketRecord};

use crate::testbed::Host;
use ironclad_lab::harness::{Test, skip_part};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_learned_policy_allows_what_was_done),
        test!(a_replaced_path_is_a_comment),
        test!(lost_events_are_reported),
    ]
}

const EPERM: u64 = 1;
/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);

fn loaded(text: &str) -> CompiledPolicy {
    let document = Document::parse("learned.yaml", text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    document.policy(Path::new("/")).unwrap().compile().unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Whether BPF LSM runs. Where it does not, packet sockets are left out, aloud.
fn has_lsm() -> bool {
    let lsm = probe_lsm();
    let has_it = lsm.is_available();
    if !has_it {
        skip_part(&lsm.reason.unwrap_or_default());
    }
    has_it
}

fn learning(policy: Policy) -> CompiledPolicy {
    policy.danger_packet_sockets_unseen(!has_lsm()).learning().compile().unwrap()
}

fn next(events: &EventReceiver) -> SocketRecord {
    events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap()
}

/// Each order is one event, which is learned from at once.
fn follow(
    test_process: &mut TestProcess,
    orders: &[&str],
    events: &EventReceiver,
    learning: &mut Learning<'_>,
) {
    for order in orders {
        assert_eq!(test_process.ask(order).unwrap(), 0, "{order}");
        learning.saw(&next(events)).unwrap();
    }
}

fn file(shield: &Shield, path: &Path) -> FileId {
    shield.described(&DescribedProcess::new().exe(path)).unwrap().process.unwrap().exe
}

const ORDERS: [&str; 8] = [
    "connect tcp 10.9.0.2:80",
    "connect tcp 10.9.0.2:443",
    "connect tcp [fd09::2]:443",
    "connect tcp [::ffff:10.9.0.3]:443",
    "send udp 10.9.0.2:53",
    "connect udp 0.0.0.0:54",
    "bind tcp 0.0.0.0:8080",
    "create 4 3 1",
];

fn a_learned_policy_allows_what_was_done() {
    let host = Host::new();
    let (one, two) = (host.program("one"), host.program("two"));
    let mut before = host.test_process(&one);
    let denied = SocketRule::new(RuleId(1), "no mail", SocketAction::Deny).port(25);
    let policy = learning(Policy::builder().socket_rule(denied));
    let shield = Shield::builder("learn").cgroup(host.cgroup.dir()).start(&policy).unwrap();
    let (_pump, events) = shield.events(256, Overflow::DropNewest).unwrap();
    let mut learning = shield.learn(LearnOptions::default()).unwrap();
    // One that ran before Shield, and one that was executed since.
    let mut after = host.test_process(&two);
    // AF_PACKET. Where it is checked it is learned like other protocols.
    let packet = ["create 17 3 768"];
    let packets = if has_lsm() { &packet[..] } else { &[] };
    let orders: Vec<&str> = ORDERS.iter().chain(packets).copied().collect();
    follow(&mut before, &orders, &events, &mut learning);
    follow(&mut after, &["connect tcp 10.9.0.2:81"], &events, &mut learning);
    for (program, file) in [(&one, file(&shield, &one)), (&two, file(&shield, &two))] {
        assert_eq!(shield.exe_path(&file).unwrap().as_ref(), Some(program));
    }
    // What the policy denied is not learned.
    assert_eq!(after.ask("connect tcp 10.9.0.2:25").unwrap(), EPERM);
    learning.saw(&next(&events)).unwrap();
    let text = learning.document().unwrap();
    let requests = orders.len() + 1;
    assert!(text.contains(&format!("# Learned from {requests} requests")), "{text}");
    assert!(text.contains("# 1 requests were denied"), "{text}");
    assert!(!text.contains("lost") && !text.contains("Not allowed"), "{text}");

    shield.apply(&loaded(&text)).unwrap();
    for order in &orders {
        assert_eq!(before.ask(order).unwrap(), 0, "{order}\n{text}");
        assert_eq!(after.ask(order).unwrap(), EPERM, "{order}\n{text}");
    }
    assert_eq!(after.ask("connect tcp 10.9.0.2:81").unwrap(), 0);
    for order in [
        "connect tcp 10.9.0.2:81",
        "connect tcp 10.9.0.2:25",
        "connect tcp 10.9.0.3:80",
        "connect udp 10.9.0.2:443",
        "connect tcp [fd09::2]:80",
        "connect tcp [fd09::3]:443",
        "send udp [fd09::2]:53",
        "bind tcp 10.9.0.1:8080",
        "bind udp 0.0.0.0:8080",
        "bind tcp 0.0.0.0:8081",
    ] {
        assert_eq!(before.ask(order).unwrap(), EPERM, "{order}\n{text}");
    }
    let mut unidentified = host.test_process(&host.program("three"));
    for order in &orders {
        assert_eq!(unidentified.ask(order).unwrap(), EPERM, "{order}");
    }
}

/// Paths that would let in another file, or none, are not written.
fn a_replaced_path_is_a_comment() {
    let host = Host::new();
    let shield = {
        let policy = learning(Policy::builder());
        Shield::builder("learn").cgroup(host.cgroup.dir()).start(&policy).unwrap()
    };
    let (_pump, events) = shield.events(256, Overflow::DropNewest).unwrap();
    let mut learning = shield.learn(LearnOptions::default()).unwrap();
    let order = ["connect tcp 10.9.0.2:80"];
    let test_process = |program: &Path, learning: &mut Learning<'_>, meanwhile: &dyn Fn()| {
        let mut test_process = host.test_process(program);
        meanwhile();
        follow(&mut test_process, &order, &events, learning);
        test_process
    };
    let mut paths: BTreeSet<PathBuf> = BTreeSet::new();

    // Gone, another one, and replaced after it was seen.
    let gone = host.program("gone");
    test_process(&gone, &mut learning, &|| std::fs::remove_file(&gone).unwrap());
    let (other, old) = (host.program("other"), host.program("old"));
    test_process(&other, &mut learning, &|| {
        std::fs::rename(&other, other.with_extension("moved")).unwrap();
        std::fs::rename(&old, &other).unwrap();
    });
    let removed = host.program("removed");
    let still = test_process(&removed, &mut learning, &|| ());
    std::fs::remove_file(&removed).unwrap();
    let late = host.program("late");
    let running = test_process(&late, &mut learning, &|| ());
    std::fs::rename(host.program("new"), &late).unwrap();
    // A link is reported by its target, which its owner cannot change.
    let target = host.program("target");
    let link = target.with_extension("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    test_process(&link, &mut learning, &|| ());
    assert_eq!(shield.exe_path(&file(&shield, &target)).unwrap(), Some(link));
    // By a relative path, which is no label: /proc knows better.
    let local = host.program("local");
    let mut becomes = host.test_process(&host.program("start"));
    assert_eq!(becomes.ask(&format!("exec {}", relative(&local))).unwrap(), 0);
    follow(&mut becomes, &order, &events, &mut learning);

    let text = learning.document().unwrap();
    let comment = |path: &Path, why: &str| {
        let expected = format!("# Not allowed, because of \"{}\": {why}", path.display());
        assert!(text.contains(&expected), "{expected}\n{text}");
    };
    comment(&gone, "the file was deleted");
    comment(&removed, "the file was deleted meanwhile");
    comment(&other, "the path leads to another file");
    comment(&late, "the file was replaced meanwhile");
    let policy = loaded(&text);
    paths.extend(policy.sockets().unwrap().files().cloned());
    assert_eq!(paths, [target, local].map(|path| path.canonicalize().unwrap()).into());
    drop((running, still));
}

/// From the working directory, which test processes share.
fn relative(path: &Path) -> String {
    let up = "../".repeat(std::env::current_dir().unwrap().components().count());
    format!("{up}{}", path.strip_prefix("/").unwrap().display())
}

fn lost_events_are_reported() {
    let host = Host::new();
    let one = host.program("one");
    let mut test_process = host.test_process(&one);
    let policy = learning(Policy::builder());
    // Room for a few dozen events, and no reader.
    let builder = Shield::builder("learn").ring_bytes(4096).cgroup(host.cgroup.dir());
    let shield = builder.start(&policy).unwrap();
    let learning = shield.learn(LearnOptions::default()).unwrap();
    assert_eq!(test_process.ask("burst 500 1 10.9.0.2:53").unwrap(), 500);
    let text = learning.document().unwrap();
    assert!(text.contains(" events were lost: it is not complete."), "{text}");
    let mut again = shield.learn(LearnOptions::default()).unwrap();
    assert!(!again.document().unwrap().contains("lost"), "that was before");
    again.lost(3);
    assert!(again.document().unwrap().contains("Up to 3 events were lost"));
}
