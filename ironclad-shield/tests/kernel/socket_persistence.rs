//! Needs root: socket rules that outlive their agent.

use std::ffi::OsStr;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironclad_bpf::{BPFFS, PinDirectory};
use ironclad_core::RuleId;
use ironclad_core::audit::AuditAction;
use ironclad_lab::Cgroup;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::socket::{Direction, SocketAction, SocketRule, Subject};
use ironclad_policy::{CompiledPolicy, Policy, SocketProtocol};
use ironclad_shield::{Shield, ShieldBuilder};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::recorder::Recorder;
use crate::testbed::{Host, lsm, provisional};
use ironclad_lab::harness::{Role, Test, is_in_machine};
use ironclad_lab::{moments_to_kill, role, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(rules_and_the_process_table_outlive_a_killed_agent),
        test!(a_kill_during_a_reload_leaves_one_of_two_policies),
        test!(packet_sockets_are_denied_without_an_agent).needs(&[lsm]),
        test!(packet_sockets_are_pinned_when_a_policy_decides_about_them).needs(&[lsm]),
        test!(a_deadline_holds_without_an_agent),
        test!(a_mount_point_that_is_not_utf_8_keeps_no_successor_out).in_machine(),
        test!(a_start_that_fails_leaves_an_adopted_instance_as_it_was).on_host(),
        test!(ancestry_bits_are_reused),
    ]
}

const EPERM: u64 = 1;
/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);
const THERE: &str = "connect udp 10.9.0.2:53";

/// An instance whose pins go with it.
struct Instance(String);

impl Instance {
    fn new(name: &str) -> Self {
        let this = Self(format!("test-{}-{name}", std::process::id()));
        PinDirectory::purge(Path::new(BPFFS), &this.0).unwrap();
        this
    }

    fn builder(&self, host: &Host) -> ShieldBuilder {
        Shield::builder(&self.0).cgroup(host.cgroup.dir()).persistent(true)
    }

    /// That of all versions of the ABI: nothing of it is left after a stop.
    fn root(&self) -> PathBuf {
        Path::new(BPFFS).join("ironclad").join(&self.0)
    }

    fn directory(&self) -> PathBuf {
        self.root().join(format!("v{}", ironclad_core::abi::VERSION))
    }

    /// A process that starts an agent and then waits to be killed: this test binary again.
    fn agent(&self, host: &Host, good: &Path, role: &str) -> Child {
        let mut child = AGENT
            .command()
            .env("IRONCLAD_TEST_AGENT", role)
            .env("IRONCLAD_TEST_INSTANCE", &self.0)
            .env("IRONCLAD_TEST_CGROUP", host.cgroup.dir())
            .env("IRONCLAD_TEST_PROGRAM", good)
            .env("IRONCLAD_TEST_OTHER", host.path("bad"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        if !lines.map_while(Result::ok).any(|line| line == "agent ready") {
            panic!("agent ended: {:?}", child.wait());
        }
        child
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The failure of the test is what to report.
        let _ = PinDirectory::purge(Path::new(BPFFS), &self.0);
    }
}

/// What [`Instance::agent`] starts.
pub(crate) const AGENT: Role = role!(the_agent);

fn the_agent() {
    let role = std::env::var("IRONCLAD_TEST_AGENT").unwrap();
    let of = |name: &str| std::env::var(format!("IRONCLAD_TEST_{name}")).unwrap();
    let shield = Shield::builder(&of("INSTANCE"))
        .cgroup(of("CGROUP"))
        .persistent(true)
        .start(&match role.as_str() {
            "packets" => no_packets(),
            _ => only(Path::new(&of("PROGRAM"))),
        })
        .unwrap();
    if role == "provisional" {
        shield.apply_with(&no_rules(), provisional(Duration::from_millis(1500))).unwrap();
    }
    println!("agent ready");
    // Killed here.
    if role == "reloading" {
        loop {
            for program in ["OTHER", "PROGRAM"] {
                shield.apply(&only(Path::new(&of(program)))).unwrap();
            }
        }
    }
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn no_rules() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

/// Only this program may.
fn only(program: &Path) -> CompiledPolicy {
    Policy::builder()
        .socket_rule(
            SocketRule::new(RuleId(1), "good", SocketAction::Allow)
                .subject(Subject::new("good").exe(program)),
        )
        .socket_rule(SocketRule::new(RuleId(2), "other", SocketAction::Deny))
        .compile()
        .unwrap()
}

/// No process may open packet sockets.
fn no_packets() -> CompiledPolicy {
    let rule = SocketRule::new(RuleId(3), "no packets", SocketAction::Deny);
    let rule = rule.direction(Direction::Create).protocol(SocketProtocol::Packet);
    Policy::builder().socket_rule(rule).compile().unwrap()
}

fn answers(test_processes: &mut [&mut TestProcess]) -> Vec<u64> {
    test_processes.iter_mut().map(|test_process| test_process.ask(THERE).unwrap()).collect()
}

/// Any user may mount in his own directories.
fn a_mount_point_that_is_not_utf_8_keeps_no_successor_out() {
    let host = Host::new();
    let instance = Instance::new("odd-mount");
    let at = host.path("odd").join(OsStr::from_bytes(b"\xff"));
    std::fs::create_dir_all(&at).unwrap();
    let rule = SocketRule::new(RuleId(1), "a cgroup", SocketAction::Deny);
    let rule = rule.subject(Subject::new("a cgroup").cgroup("/none"));
    let policy = Policy::builder().socket_rule(rule).compile().unwrap();
    drop(instance.builder(&host).start(&policy).unwrap());
    mount("none", &at, "tmpfs", MountFlags::empty(), None).unwrap();
    String::from_utf8(std::fs::read("/proc/self/mountinfo").unwrap()).unwrap_err();
    let shield = instance.builder(&host).start(&policy).unwrap();
    shield.refresh_paths().unwrap();
    shield.stop().unwrap();
    unmount(&at, UnmountFlags::empty()).unwrap();
}

fn rules_and_the_process_table_outlive_a_killed_agent() {
    let host = Host::new();
    let instance = Instance::new("kept");
    let (good, bad) = (host.program("good"), host.program("bad"));
    let (mut one, mut other) = (host.test_process(&good), host.test_process(&bad));
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, 0], "without us");
    kill(instance.agent(&host, &good, "plain"));
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, EPERM]);
    // No agent runs that could enter these: programs in the kernel do.
    let (mut later, mut unidentified) = (host.test_process(&good), host.test_process(&bad));
    assert_eq!(answers(&mut [&mut later, &mut unidentified]), [0, EPERM]);
    later.ask(&format!("exec {}", bad.display())).unwrap();
    unidentified.ask(&format!("exec {}", good.display())).unwrap();
    assert_eq!(answers(&mut [&mut later, &mut unidentified]), [EPERM, 0]);

    // The next agents find it so; not one call is answered otherwise while they come and go.
    let (stop, policy) = (std::sync::atomic::AtomicBool::new(false), only(&good));
    let recorder = Arc::new(Recorder::default());
    let shield = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut count = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(answers(&mut [&mut one, &mut other]), [0, EPERM], "after {count}");
                count += 1;
            }
            count
        });
        kill(instance.agent(&host, &good, "plain"));
        kill(instance.agent(&host, &good, "plain"));
        let shield = instance.builder(&host).audit(recorder.clone()).start(&policy).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        shield
    });
    let counts = shield.socket_counts().unwrap();
    let count = |id| counts.iter().find(|count| count.rule == Some(RuleId(id))).unwrap();
    assert!(count(1).allowed > 3 && count(2).denied > 3, "counters are kept: {counts:?}");
    let replaced = |action: &&AuditAction| matches!(action, AuditAction::Replace { hook, .. } if hook == "cgroup");
    assert_eq!(recorder.0.lock().unwrap().iter().filter(replaced).count(), 9);
    let status = shield.status().unwrap();
    let groups: Vec<_> = status.cgroups.iter().map(|group| (&*group.path, group.alive)).collect();
    assert_eq!(groups, [(host.cgroup.dir(), true)]);
    // One copy of the programs keeps the table, and one is pinned.
    let pins = std::fs::read_dir(instance.directory().join("sockets")).unwrap();
    let names: Vec<_> = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap()).collect();
    let tracepoints = names.iter().filter(|name| name.contains("sched_process")).count();
    assert_eq!(tracepoints, 9, "{names:?}");

    // Stopping leaves nothing.
    shield.stop().unwrap();
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, 0]);
    assert!(!instance.root().exists());
}

/// An agent that is killed while it applies policies leaves one of them in force, whole.
fn a_kill_during_a_reload_leaves_one_of_two_policies() {
    // Where it is killed has nothing to do with the kernel's version, and emulated machines are slow.
    let kills = if is_in_machine() { 2 } else { 16 };
    let host = Host::new();
    let instance = Instance::new("reloaded");
    let (good, bad) = (host.program("good"), host.program("bad"));
    let (mut one, mut other) = (host.test_process(&good), host.test_process(&bad));
    let started = Instant::now();
    let shield = instance.builder(&host).start(&only(&good)).unwrap();
    let begun = Instant::now();
    shield.apply(&only(&bad)).unwrap();
    let whole = begun.elapsed();
    println!("a start and a reload took {:?}", started.elapsed());
    drop(shield);
    let mut left = [0; 2];
    // Within two reloads.
    for moment in moments_to_kill(2 * whole, kills) {
        let agent = instance.agent(&host, &good, "reloading");
        let begun = Instant::now();
        while begun.elapsed() < moment {
            answers(&mut [&mut one, &mut other]);
        }
        kill(agent);
        match answers(&mut [&mut one, &mut other])[..] {
            [0, EPERM] => left[0] += 1,
            [EPERM, 0] => left[1] += 1,
            ref neither => panic!("after a kill at {moment:?}: {neither:?}"),
        }
    }
    println!("{left:?} of the policies were left");
    let shield = instance.builder(&host).start(&only(&good)).unwrap();
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, EPERM]);
    shield.stop().unwrap();
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, 0]);
}

/// AF_PACKET.
const PACKET: &str = "create 17 3 768";
/// In a row, so that hardly a moment is without a call.
const PACKETS: &str = "repeat 100 create 17 3 768";

fn packet_sockets_are_denied_without_an_agent() {
    let host = Host::new();
    let elsewhere = Cgroup::new("elsewhere").unwrap();
    let instance = Instance::new("packets");
    let program = host.program("program");
    let mut before = host.test_process(&program);
    let mut outside = host.test_process_in(&elsewhere, &program);
    assert_eq!((before.ask(PACKET).unwrap(), before.ask(PACKETS).unwrap()), (0, 100), "without us");
    kill(instance.agent(&host, &program, "packets"));
    let mut after = host.test_process(&program);
    assert_eq!((before.ask(PACKET).unwrap(), after.ask(PACKET).unwrap()), (EPERM, EPERM));
    assert_eq!((outside.ask(PACKET).unwrap(), after.ask(THERE).unwrap()), (0, 0));

    // The next agents adopt it; every call is denied meanwhile.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let recorder = Arc::new(Recorder::default());
    let shield = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut count = 0u64;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert_eq!(before.ask(PACKETS).unwrap(), 0, "after {count}");
                count += 1;
            }
            count
        });
        kill(instance.agent(&host, &program, "packets"));
        let builder = instance.builder(&host).audit(recorder.clone());
        let shield = builder.start(&no_packets()).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
        shield
    });
    let pins = std::fs::read_dir(instance.directory().join("sockets")).unwrap();
    let names: Vec<_> = pins.map(|pin| pin.unwrap().file_name().into_string().unwrap()).collect();
    for of_lsm in ["_socket_create", "_tun_dev_create", "_tun_dev_open", "ic_cgroups_"] {
        assert_eq!(names.iter().filter(|name| name.contains(of_lsm)).count(), 1, "{names:?}");
    }
    // Of both copies, at once: the former one may live a moment longer.
    shield.unprotect_cgroup(host.cgroup.dir()).unwrap();
    assert_eq!(before.ask(PACKET).unwrap(), 0);
    shield.protect_cgroup(host.cgroup.dir()).unwrap();
    shield.protect_cgroup(elsewhere.dir()).unwrap();
    drop(shield);
    let mut ask = || (before.ask(PACKET).unwrap(), outside.ask(PACKET).unwrap());
    assert_eq!(ask(), (EPERM, EPERM));
    let shield = instance.builder(&host).audit(recorder.clone()).start(&no_packets()).unwrap();
    assert_eq!(ask(), (EPERM, EPERM));
    shield.stop().unwrap();
    assert_eq!(ask(), (0, 0));
    assert!(!instance.root().exists());
    let is_detached =
        |it: &AuditAction| matches!(it, AuditAction::Detach { hook, .. } if hook == "lsm");
    let detached = recorder.0.lock().unwrap().iter().filter(|it| is_detached(it)).count();
    assert_eq!(detached, 3);
}

fn packet_sockets_are_pinned_when_a_policy_decides_about_them() {
    let host = Host::new();
    let instance = Instance::new("later");
    let mut test_process = host.test_process(&host.program("program"));
    let shield = instance.builder(&host).start(&no_rules()).unwrap();
    assert_eq!(test_process.ask(PACKET).unwrap(), 0);
    shield.apply(&no_packets()).unwrap();
    drop(shield);
    assert_eq!(test_process.ask(PACKET).unwrap(), EPERM);
    // A policy without rules on them does not check them, and one with rules checks them again.
    let shield = instance.builder(&host).start(&no_rules()).unwrap();
    assert_eq!(test_process.ask(PACKET).unwrap(), 0);
    shield.apply(&no_packets()).unwrap();
    assert_eq!(test_process.ask(PACKET).unwrap(), EPERM);
    shield.stop().unwrap();
    assert_eq!(test_process.ask(PACKET).unwrap(), 0);
    assert!(!instance.root().exists());
}

fn a_deadline_holds_without_an_agent() {
    let host = Host::new();
    let instance = Instance::new("deadline");
    let (good, bad) = (host.program("good"), host.program("bad"));
    let mut other = host.test_process(&bad);
    let agent = instance.agent(&host, &good, "plain");
    assert_eq!(other.ask(THERE).unwrap(), EPERM);
    kill(agent);
    kill(instance.agent(&host, &good, "provisional"));
    assert_eq!(other.ask(THERE).unwrap(), 0, "the provisional policy is in force");
    let begin = Instant::now();
    while other.ask(THERE).unwrap() == 0 {
        assert!(begin.elapsed() < PATIENCE, "the deadline does not come");
    }
    let shield = instance.builder(&host).start(&only(&good)).unwrap();
    assert_eq!(shield.status().unwrap().provisional, None);
    assert_eq!(other.ask(THERE).unwrap(), EPERM);
    shield.stop().unwrap();
}

fn a_start_that_fails_leaves_an_adopted_instance_as_it_was() {
    let host = Host::new();
    let instance = Instance::new("half");
    let (good, bad) = (host.program("good"), host.program("bad"));
    let (mut one, mut other) = (host.test_process(&good), host.test_process(&bad));
    // An instance that protects no cgroup, until an agent names one.
    let plain = Shield::builder(&instance.0).persistent(true);
    drop(plain.clone().start_unattached(&no_rules()).unwrap());
    assert!(!instance.directory().join("sockets").exists());
    let refused = instance.builder(&host).cgroup("/nowhere").start(&only(&good)).unwrap_err();
    assert!(refused.to_string().contains("/nowhere"), "{refused}");
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, 0]);
    drop(instance.builder(&host).start(&only(&good)).unwrap());
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, EPERM]);
    // Of an agent that knew fewer hooks: what is missing comes, and the rest stays.
    let pin = |hook: &str| {
        let pins = std::fs::read_dir(instance.directory().join("sockets")).unwrap();
        let mut pins = pins.map(|pin| pin.unwrap().path());
        pins.find(|path| path.to_string_lossy().ends_with(&format!("_{hook}")))
    };
    std::fs::remove_file(pin("egress").unwrap()).unwrap();
    assert!(pin("egress").is_none());
    drop(plain.clone().start_unattached(&only(&good)).unwrap());
    assert!(pin("egress").is_some());
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, EPERM]);
    // The next one names no cgroup, and another policy: the pinned hooks stay.
    let refused = instance.builder(&host).cgroup("/nowhere").start(&only(&bad)).unwrap_err();
    assert!(refused.to_string().contains("/nowhere"), "{refused}");
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, EPERM], "as it was");
    let shield = plain.clone().start_unattached(&only(&bad)).unwrap();
    assert_eq!(answers(&mut [&mut one, &mut other]), [EPERM, 0]);
    // A group of that path that was made anew is another group.
    shield.unprotect_cgroup(host.cgroup.dir()).unwrap();
    assert_eq!(answers(&mut [&mut one, &mut other]), [0, 0]);
    drop(shield);

    // A directory of which a part is missing is an error, with a hint.
    std::fs::remove_file(instance.directory().join("sockets/ic_sock_rows")).unwrap();
    let refused = plain.start_unattached(&no_rules()).unwrap_err().to_string();
    assert!(refused.contains("ic_sock_rows missing") && refused.contains("purge"), "{refused}");
}

fn ancestry_bits_are_reused() {
    let host = Host::new();
    let programs = ["first", "second", "third"].map(|name| host.program(name));
    // No process executes these.
    let other_files = (0..16).map(|n| {
        let path = programs[0].with_file_name(format!("other {n}"));
        std::fs::write(&path, "").unwrap();
        path
    });
    let descend = |of: &Path| {
        let subject = Subject::new("").descendant_of(of);
        let allow = SocketRule::new(RuleId(1), "child", SocketAction::Allow).subject(subject);
        let deny = SocketRule::new(RuleId(2), "other", SocketAction::Deny);
        Policy::builder().socket_rule(allow).socket_rule(deny).compile().unwrap()
    };
    let shield = Shield::builder("ancestries")
        .cgroup(host.cgroup.dir())
        .start(&descend(&programs[0]))
        .unwrap();
    let mut child = host.test_process(&programs[0]);
    child.ask(&format!("exec {}", programs[1].display())).unwrap();
    assert_eq!(child.ask(THERE).unwrap(), 0, "it descends from the first");
    // More lists than there are ancestries: bits are reused, and no process inherits another's.
    for of in other_files {
        shield.apply(&descend(&of)).unwrap();
        assert_eq!(child.ask(THERE).unwrap(), EPERM, "{}", of.display());
    }
    shield.apply(&descend(&programs[1])).unwrap();
    assert_eq!(child.ask(THERE).unwrap(), EPERM, "it is that, and does not descend from it");
    child.ask(&format!("exec {}", programs[2].display())).unwrap();
    assert_eq!(child.ask(THERE).unwrap(), 0);
}
