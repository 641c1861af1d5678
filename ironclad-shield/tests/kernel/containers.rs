//! Needs root: processes in cgroups of the tests' own that are called as container runtimes
//! call those of containers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironclad_core::RuleId;
use ironclad_core::audit::AuditAction;
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, Mounts};
use ironclad_policy::socket::{SocketAction, SocketRule, Subject};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::{Shield, ShieldErrorKind};

use crate::recorder::Recorder;
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::{role, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(cgroups_are_not_named_from_within_a_namespace).on_host(),
        test!(a_container_is_the_cgroup_that_is_named_after_it).on_host(),
        test!(a_container_that_is_started_again_is_followed),
        test!(ids_are_checked_when_a_policy_is_compiled),
    ]
}

const EPERM: u64 = 1;
/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The test that a test process runs.
/// What the test processes do: it sends nothing.
const ORDER: &str = "connect udp 127.0.0.1:53";

/// An agent in a container, whose view of cgroups begins at its own.
pub(crate) const AGENT: Role = role!(contained);

fn contained() {
    let group = std::env::var_os(CONTAINED).unwrap();
    let group = Path::new(&group);
    let policy = deny(&id('4'));
    let refused = Mounts::apart(|mounts| {
        let root = tempfile::tempdir().unwrap();
        mounts.cgroups(root.path()).unwrap();
        let refused = Shield::builder("contained").cgroup(group).start(&policy).unwrap_err();
        mounts.unmount(root.path()).unwrap();
        refused.to_string()
    });
    println!("refused: {}", refused.unwrap());
}
const CONTAINED: &str = "IRONCLAD_CONTAINED";

/// Within a namespace, paths begin further down than the kernel counts from, and a rule would match no process.
fn cgroups_are_not_named_from_within_a_namespace() {
    let host = Cgroup::new("contained").unwrap();
    let group = host.child("container").unwrap();
    let mut contained = group.command(&std::env::current_exe().unwrap());
    AGENT.play(&mut contained).env(CONTAINED, group.dir());
    let output = contained.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("a cgroup namespace"), "{said}");
    assert!(said.contains("--cgroupns=host"), "{said}");
}

/// An id that no container of this machine has, and no other test that runs beside this one.
fn id(digit: char) -> String {
    format!("{digit}ab{:061x}", std::process::id())
}

fn test_process_in(cgroup: &Cgroup) -> TestProcess {
    let own: PathBuf = std::env::current_exe().unwrap();
    TestProcess::start(cgroup, &own).unwrap()
}

fn deny(id: &str) -> CompiledPolicy {
    let subject = Subject::new("").container(id);
    let rule = SocketRule::new(RuleId(1), "no container", SocketAction::Deny).subject(subject);
    Policy::builder().socket_rule(rule).compile().unwrap()
}

fn a_container_is_the_cgroup_that_is_named_after_it() {
    let host = Cgroup::new("containers").unwrap();
    let (one, two) = (id('1'), id('2'));
    let docker = host.child(&format!("docker-{one}.scope")).unwrap();
    // What a container makes in its own group is within it, whatever the name.
    let within = docker.child(&format!("docker-{one}.scope")).unwrap();
    let pods = host.child("kubepods").unwrap();
    let pod = pods.child("pod1234").unwrap();
    let kube = pod.child(&two).unwrap();
    let (mut outside, mut first) = (test_process_in(&host), test_process_in(&docker));
    let (mut inner, mut second) = (test_process_in(&within), test_process_in(&kube));
    let mut ask = || {
        [&mut outside, &mut first, &mut inner, &mut second]
            .map(|process| process.ask(ORDER).unwrap())
    };
    let none = Policy::builder().compile().unwrap();
    // Paths are refreshed on request alone.
    let builder = Shield::builder("containers").cgroup(host.dir()).follow_paths(false);
    let shield = builder.start(&none).unwrap();
    assert_eq!(ask(), [0; 4]);
    shield.apply(&deny(&one)).unwrap();
    assert_eq!(ask(), [0, EPERM, EPERM, 0]);
    shield.apply(&deny(&two)).unwrap();
    assert_eq!(ask(), [0, 0, 0, EPERM]);
    // The process's number is in the last digits, so that the first are those of all tests.
    shield.apply(&deny(&two[..63])).unwrap();
    assert_eq!(ask(), [0, 0, 0, EPERM]);

    // A container that starts later matches after a refresh.
    let later = id('3');
    shield.apply(&deny(&later)).unwrap();
    assert_eq!(ask(), [0; 4]);
    let crio = host.child(&format!("crio-{later}.scope")).unwrap();
    let conmon = host.child(&format!("crio-conmon-{later}.scope")).unwrap();
    let (mut third, mut monitor) = (test_process_in(&crio), test_process_in(&conmon));
    assert_eq!(third.ask(ORDER).unwrap(), 0, "not refreshed yet");
    let changes = shield.refresh_paths().unwrap();
    let changed: Vec<_> = changes.iter().map(|it| (it.path.as_path(), it.is_there)).collect();
    assert_eq!(changed, [(Path::new(&later), true)]);
    assert!(shield.refresh_paths().unwrap().is_empty());
    assert_eq!((third.ask(ORDER).unwrap(), monitor.ask(ORDER).unwrap()), (EPERM, 0));

    // Two of one name: either may be meant, and the policy in force stays.
    let _twin = host.child(&format!("libpod-{later}.scope")).unwrap();
    let refused = shield.apply(&deny(&later)).unwrap_err();
    assert_eq!(refused.kind(), ShieldErrorKind::Container, "{refused}");
    let text = refused.to_string();
    assert!(text.starts_with("rule 1 ("), "{text}");
    let (_, found) = text.split_once("may be any of ").unwrap();
    let found: Vec<_> = found.split(" (").next().unwrap().split(", ").collect();
    assert!(found.contains(&crio.path()) && found.len() == 2, "{text}");
    assert_eq!((third.ask(ORDER).unwrap(), monitor.ask(ORDER).unwrap()), (EPERM, 0));
    // Nor does the second take the name from the first.
    assert!(shield.refresh_paths().unwrap().is_empty());
    assert_eq!(third.ask(ORDER).unwrap(), EPERM);
}

fn a_container_that_is_started_again_is_followed() {
    let host = Cgroup::new("containers").unwrap();
    let id = id('4');
    let name = format!("libpod-{id}.scope");
    let container = host.child(&name).unwrap();
    let recorder = Arc::new(Recorder::default());
    let builder = Shield::builder("containers").cgroup(host.dir()).audit(recorder.clone());
    let _shield = builder.start(&deny(&id)).unwrap();
    assert_eq!(test_process_in(&container).ask(ORDER).unwrap(), EPERM);
    let recorded = |outcome: &str| {
        let words = format!("{id} {outcome}");
        let is_it = |it: &AuditAction| matches!(it, AuditAction::MapWrite { purpose, .. } if *purpose == words);
        recorder.0.lock().unwrap().iter().filter(|it| is_it(it)).count()
    };
    let wait = |outcome: &str| {
        let begin = Instant::now();
        while recorded(outcome) == 0 {
            assert!(begin.elapsed() < PATIENCE, "no record says `{id} {outcome}`");
            std::thread::yield_now();
        }
    };
    drop(container);
    wait("no longer resolves");
    let container = host.child(&name).unwrap();
    wait("resolves to a new target");
    assert_eq!(test_process_in(&container).ask(ORDER).unwrap(), EPERM);
    assert_eq!(test_process_in(&host).ask(ORDER).unwrap(), 0);
}

fn ids_are_checked_when_a_policy_is_compiled() {
    let refuse = |subject: Subject| {
        let rule = SocketRule::new(RuleId(1), "one", SocketAction::Deny).subject(subject);
        Policy::builder().socket_rule(rule).compile().unwrap_err().to_string()
    };
    let long = "a".repeat(65);
    for id in ["0123456789a", "0123456789AB", "my-container-1", &long, ""] {
        let refused = refuse(Subject::new("").container(id));
        assert!(refused.contains("is no container"), "{refused}");
    }
    let refused = refuse(Subject::new("").container("0123456789ab").cgroup("/a"));
    assert!(refused.contains("not by both"), "{refused}");
}
