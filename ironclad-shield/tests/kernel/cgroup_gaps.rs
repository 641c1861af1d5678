//! Needs root: protected cgroups that are removed and created again, as systemd does when it restarts a
//! service.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironclad_bpf::{BPFFS, PinDirectory};
use ironclad_core::SocketVerdict;
use ironclad_core::audit::AuditAction;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::{Cgroup, Mounts};
use ironclad_policy::socket::{Direction, SocketAction, Subject};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::{CgroupStatus, Shield, ShieldBuilder};

use crate::recorder::Recorder;
use crate::testbed::{EPERM, Host, PATIENCE, policy, rule};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_cgroup_that_is_created_again_is_protected_again),
        test!(a_protected_parent_leaves_no_gap),
        test!(a_persistent_instance_attaches_to_a_cgroup_again),
        test!(an_unprotected_cgroup_is_not_attached_to_again),
        test!(a_cgroup_stays_protected_below_a_mount),
        test!(an_agent_adopts_cgroups_that_are_below_a_mount),
        test!(a_rule_names_the_cgroup_below_a_mount),
        // It takes what all processes of the user share.
        test!(a_cgroup_is_followed_where_inotify_is_used_up).in_machine(),
    ]
}

const THERE: &str = "connect udp 10.9.0.2:53";

fn closed() -> CompiledPolicy {
    let policy = Policy::builder().socket_default(Direction::Out, SocketVerdict::Deny);
    policy.compile().unwrap()
}

/// What connect(2) gives a process that is started in a cgroup.
fn connect(host: &Host, cgroup: &Cgroup) -> u64 {
    host.test_process_in(cgroup, &host.own).ask(THERE).unwrap()
}

fn status(shield: &Shield) -> CgroupStatus {
    let [status] = &*shield.status().unwrap().cgroups else { panic!("one cgroup") };
    status.clone()
}

fn until(is_done: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The service's cgroup is removed with its processes, and created again.
fn restart(host: &Host, service: Cgroup) -> Cgroup {
    drop(service);
    host.cgroup.child("service").unwrap()
}

fn a_cgroup_that_is_created_again_is_protected_again() {
    let host = Host::new();
    let service = host.cgroup.child("service").unwrap();
    assert_eq!(connect(&host, &service), 0, "unprotected");
    // Without the thread: the attack succeeds.
    let builder = || Shield::builder("gaps").cgroup(service.dir());
    let shield = builder().follow_paths(false).start(&closed()).unwrap();
    assert_eq!(connect(&host, &service), EPERM);
    let service = restart(&host, service);
    assert_eq!(connect(&host, &service), 0, "not followed");
    // By hand.
    shield.refresh_paths().unwrap();
    assert_eq!(connect(&host, &service), EPERM);
    drop(shield);

    let recorder = Arc::new(Recorder::default());
    let builder = Shield::builder("gaps").cgroup(service.dir()).audit(recorder.clone());
    let shield = builder.start(&closed()).unwrap();
    let first = status(&shield);
    assert_eq!((first.gaps, first.unchecked, first.alive), (0, Duration::ZERO, true));
    let mut service = service;
    for gaps in 1..=3 {
        service = restart(&host, service);
        until(|| status(&shield).gaps == gaps);
        assert_eq!(connect(&host, &service), EPERM);
        assert!(status(&shield).alive && status(&shield).id != first.id);
    }
    let unchecked = status(&shield).unchecked;
    assert!(!unchecked.is_zero() && unchecked < 3 * PATIENCE, "{unchecked:?}");
    let place = service.dir().display().to_string();
    let actions = recorder.0.lock().unwrap().clone();
    let is_gap = |action: &&AuditAction| matches!(action, AuditAction::Gap { interface, hook, .. } if *interface == place && hook == "cgroup");
    assert_eq!(actions.iter().filter(is_gap).count(), 3);
    shield.stop().unwrap();
    assert_eq!(connect(&host, &service), 0, "stopped");
}

/// Another process of the user, as root of a container is, takes all inotify(7) instances.
fn a_cgroup_is_followed_where_inotify_is_used_up() {
    let host = Host::new();
    let service = host.cgroup.child("service").unwrap();
    let init = || rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC);
    let taken: Vec<_> = std::iter::from_fn(|| init().ok()).collect();
    assert_eq!(init().unwrap_err(), rustix::io::Errno::MFILE);
    let shield = Shield::builder("gaps").cgroup(service.dir()).start(&closed()).unwrap();
    let service = restart(&host, service);
    until(|| status(&shield).gaps == 1);
    assert_eq!(connect(&host, &service), EPERM);
    drop(taken);
}

fn a_protected_parent_leaves_no_gap() {
    let host = Host::new();
    let service = host.cgroup.child("service").unwrap();
    let shield = Shield::builder("gaps").cgroup(host.cgroup.dir()).start(&closed()).unwrap();
    let service = restart(&host, service);
    assert_eq!(connect(&host, &service), EPERM);
    assert_eq!(status(&shield).gaps, 0);
}

/// What an agent would be: dropped, its pins stay.
fn start(instance: &str, cgroup: &Path) -> Shield {
    let builder: ShieldBuilder = Shield::builder(instance).cgroup(cgroup).persistent(true);
    builder.start(&closed()).unwrap()
}

fn a_persistent_instance_attaches_to_a_cgroup_again() {
    let host = Host::new();
    let service = host.cgroup.child("service").unwrap();
    let instance = format!("gaps-{}", std::process::id());
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
    let shield = start(&instance, service.dir());
    let service = restart(&host, service);
    until(|| status(&shield).gaps == 1);
    let id = status(&shield).id;
    drop(shield);
    assert_eq!(connect(&host, &service), EPERM, "pinned");
    // The pins are those of the cgroup that exists, and no others.
    let version = format!("v{}", ironclad_core::abi::VERSION);
    let pins = Path::new(BPFFS).join("ironclad").join(&instance).join(version).join("sockets");
    let names = std::fs::read_dir(pins).unwrap().map(|pin| pin.unwrap().file_name());
    let links: Vec<String> = names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.starts_with("link_") && name.ends_with("_connect4"))
        .collect();
    assert_eq!(links, [format!("link_{id}_connect4")]);
    // Without an agent the new cgroup is not checked.
    let service = restart(&host, service);
    assert_eq!(connect(&host, &service), 0, "no agent");
    let shield = start(&instance, service.dir());
    assert_eq!(connect(&host, &service), EPERM, "the next agent");
    assert!(status(&shield).alive && status(&shield).id != id);
    shield.stop().unwrap();
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
}

fn an_unprotected_cgroup_is_not_attached_to_again() {
    let host = Host::new();
    let service = host.cgroup.child("service").unwrap();
    let builder = Shield::builder("gaps").cgroup(service.dir()).follow_paths(false);
    let shield = builder.start(&closed()).unwrap();
    let service = restart(&host, service);
    // While the agent still has the links of the removed one.
    shield.unprotect_cgroup(service.dir()).unwrap();
    shield.refresh_paths().unwrap();
    assert_eq!(connect(&host, &service), 0);
    assert!(shield.status().unwrap().cgroups.is_empty());
}

/// The attack: a mount in the agent's mount namespace made it detach from the cgroup below.
fn a_cgroup_stays_protected_below_a_mount() {
    let host = Host::new();
    let [guard, other] = ["guard", "other"].map(|name| host.cgroup.child(name).unwrap());
    let mut in_guard = host.test_process_in(&guard, &host.own);
    let mut in_other = host.test_process_in(&other, &host.own);
    let mut reach = || [&mut in_guard, &mut in_other].map(|process| process.ask(THERE).unwrap());
    let recorder = Arc::new(Recorder::default());
    Mounts::apart(|mounts| {
        let builder = Shield::builder("covered").cgroup(guard.dir()).audit(recorder.clone());
        let shield = builder.follow_paths(false).start(&closed()).unwrap();
        let covered = || {
            let cgroups = shield.status().unwrap().cgroups;
            cgroups.iter().map(|it| (it.alive, it.covered, it.gaps)).collect::<Vec<_>>()
        };
        assert_eq!((reach(), covered()), ([EPERM, 0], vec![(true, false, 0)]));
        mounts.bind(other.dir(), guard.dir()).unwrap();
        for _ in 0..2 {
            shield.refresh_paths().unwrap();
            assert_eq!(reach(), [EPERM, EPERM]);
            assert_eq!(covered(), [(true, true, 0), (true, false, 0)]);
        }
        // What is no cgroup is an error, and changes nothing.
        mounts.tmpfs(guard.dir()).unwrap();
        shield.refresh_paths().unwrap_err();
        assert_eq!(reach(), [EPERM, EPERM]);
        mounts.unmount(guard.dir()).unwrap();
        mounts.unmount(guard.dir()).unwrap();
        shield.refresh_paths().unwrap();
        assert_eq!((reach(), covered()), ([EPERM, EPERM], vec![(true, false, 0); 2]));
        let actions = recorder.0.lock().unwrap().clone();
        let place = guard.dir().display().to_string();
        let is_covered = |action: &&AuditAction| matches!(action, AuditAction::Displaced { interface, hook, .. } if *interface == place && hook == "cgroup");
        assert_eq!(actions.iter().filter(is_covered).count(), 1);
        // By the path of each, and by the one that leads to the other.
        shield.unprotect_cgroup(guard.dir()).unwrap();
        assert_eq!(reach(), [0, EPERM]);
        shield.unprotect_cgroup(other.dir()).unwrap();
        assert_eq!((reach(), covered()), ([0, 0], vec![]));
        shield.protect_cgroup(guard.dir()).unwrap();
        mounts.bind(other.dir(), guard.dir()).unwrap();
        shield.refresh_paths().unwrap();
        assert_eq!(reach(), [EPERM, EPERM]);
        shield.unprotect_cgroup(guard.dir()).unwrap();
        shield.refresh_paths().unwrap();
        assert_eq!((reach(), covered()), ([0, 0], vec![]));
    })
    .unwrap();
}

fn an_agent_adopts_cgroups_that_are_below_a_mount() {
    let host = Host::new();
    let [outer, aside] = ["outer", "aside"].map(|name| host.cgroup.child(name).unwrap());
    let [guard, other] = [&outer, &aside].map(|outer| outer.child("guard").unwrap());
    let mut in_guard = host.test_process_in(&guard, &host.own);
    let mut in_other = host.test_process_in(&other, &host.own);
    let mut reach = || [&mut in_guard, &mut in_other].map(|process| process.ask(THERE).unwrap());
    let instance = format!("covered-{}", std::process::id());
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
    drop(start(&instance, guard.dir()));
    assert_eq!(reach(), [EPERM, 0]);
    Mounts::apart(|mounts| {
        mounts.bind(aside.dir(), outer.dir()).unwrap();
        for _ in 0..2 {
            let shield = start(&instance, guard.dir());
            assert_eq!(reach(), [EPERM, EPERM]);
            let cgroups = shield.status().unwrap().cgroups;
            let count = |covered| cgroups.iter().filter(|it| it.covered == covered).count();
            assert_eq!((count(true), count(false)), (1, 1), "{cgroups:?}");
        }
        start(&instance, guard.dir()).stop().unwrap();
        assert_eq!(reach(), [0, 0]);
    })
    .unwrap();
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
}

fn a_rule_names_the_cgroup_below_a_mount() {
    let host = Host::new();
    let [guard, other] = ["guard", "other"].map(|name| host.cgroup.child(name).unwrap());
    let mut in_guard = host.test_process_in(&guard, &host.own);
    let mut in_other = host.test_process_in(&other, &host.own);
    let mut reach = || [&mut in_guard, &mut in_other].map(|process| process.ask(THERE).unwrap());
    let named = rule(1, SocketAction::Deny).subject(Subject::new("").cgroup(guard.path()));
    Mounts::apart(|mounts| {
        let builder = Shield::builder("named").cgroup(host.cgroup.dir()).follow_paths(false);
        let shield = builder.start(&policy([named])).unwrap();
        assert_eq!(reach(), [EPERM, 0]);
        mounts.bind(other.dir(), guard.dir()).unwrap();
        assert_eq!(shield.refresh_paths().unwrap(), []);
        assert_eq!(reach(), [EPERM, 0]);
    })
    .unwrap();
}
