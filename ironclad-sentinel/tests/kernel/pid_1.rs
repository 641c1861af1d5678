//! What PID 1 may, which obeys every user of the service manager: an attacker has it mount, freeze and kill.

use crate::testbed::{Attacks, EPERM, Host, PATIENCE, does, lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::{SentinelHook, SentinelVerdict};
use ironclad_lab::harness::{Test, skip_part};
use ironclad_lab::test_process::{TestProcess, outcome};
use ironclad_lab::{Cgroup, test};
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{EventReceiver, Overflow, Sentinel, SentinelRecord};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(pid_1_mounts_nothing_over_protected_files).shared().in_machine().needs(&[lsm]),
        test!(pid_1_unmounts_with_an_alarm).shared().in_machine().needs(&[lsm]),
        test!(pid_1_does_not_freeze_or_kill_the_agent).in_machine().needs(&[lsm]),
        test!(pid_1_is_not_frozen_by_its_cgroup).in_machine().needs(&[lsm]),
        test!(a_user_who_may_move_processes_moves_the_agent_with_an_alarm)
            .in_machine()
            .needs(&[lsm]),
    ]
}

const PID_1: u32 = 1;
/// The error of a file system that is mounted read-only.
const EROFS: u64 = 30;

/// A file system with a protected tree. The test's process unmounts it.
struct Volume {
    host: Host,
    at: String,
    protected: String,
    elsewhere: String,
}

impl Volume {
    fn new() -> Self {
        let host = Host::new();
        let path = |name: &str| host.path(name).display().to_string();
        let (at, elsewhere) = (path("volume"), path("elsewhere"));
        for dir in [&at, &elsewhere] {
            std::fs::create_dir(dir).unwrap();
        }
        let this = Self { protected: format!("{at}/protected"), host, at, elsewhere };
        this.mount(&mut this.host.test_process());
        this
    }

    fn mount(&self, by: &mut TestProcess) {
        does(by, &format!("mount tmpfs {}", self.at));
        std::fs::create_dir_all(format!("{}/sub", self.protected)).unwrap();
        std::fs::write(self.file(), "1").unwrap();
    }

    fn file(&self) -> String {
        format!("{}/sub/file", self.protected)
    }

    fn is_there(&self) -> bool {
        std::fs::read_to_string(self.file()).is_ok_and(|text| text == "1")
    }

    fn policy(&self) -> CompiledPolicy {
        let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&self.protected);
        Policy::builder().file_rule(rule).compile().unwrap()
    }
}

/// What PID 1 does for the attacker with Sentinel: it is refused, with an alarm of PID 1.
fn refused(
    attacks: &Attacks,
    name: &str,
    attacker: &mut TestProcess,
    order: &str,
    events: &EventReceiver,
) -> SentinelRecord {
    attacks.with_outcome(name, PID_1, events, || outcome(order, attacker.ask(order).unwrap()))
}

/// The next alarm of what PID 1 or a child did.
fn next_logged(events: &EventReceiver) -> SentinelRecord {
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        assert_eq!(event.verdict, SentinelVerdict::Logged, "{event}");
        if [event.pid, event.ppid].contains(&PID_1) {
            return event;
        }
    }
}

/// An automount unit has PID 1 mount.
fn pid_1_mounts_nothing_over_protected_files() {
    let volume = Volume::new();
    let Volume { host, at, protected, elsewhere } = &volume;
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let moved = host.path("moved").display().to_string();
    std::fs::create_dir(&moved).unwrap();
    std::fs::write(format!("{elsewhere}/file"), "2").unwrap();
    does(&mut attacker, &format!("mount tmpfs {moved}"));
    let (over, file) = (format!("mount tmpfs {protected}"), volume.file());
    // Each with where it mounts.
    let mut tried = vec![
        ("have PID 1 mount over a protected tree", over.clone(), protected),
        ("have a child of PID 1 mount over a protected tree", format!("child {over}"), protected),
        ("have PID 1 mount over the parent of a protected tree", format!("mount tmpfs {at}"), at),
        (
            "have PID 1 bind a directory over a protected tree",
            format!("show {elsewhere} {protected}"),
            protected,
        ),
        (
            "have PID 1 bind a file over a protected file",
            format!("show {elsewhere}/file {file}"),
            &file,
        ),
    ];
    attacker.ask("tool modprobe autofs4").unwrap();
    if std::fs::read_to_string("/proc/filesystems").unwrap().contains("autofs") {
        let by_unit = "have PID 1 mount autofs(5) over a protected tree: an automount unit";
        tried.push((by_unit, format!("automount {protected}"), protected));
    } else {
        skip_part("this kernel has no autofs");
    }
    // Each with the order that undoes it.
    let moves = [
        (
            "have PID 1 move a mount over a protected tree",
            format!("move-mount {moved} {protected}"),
            format!("move-mount {protected} {moved}"),
        ),
        (
            "have PID 1 move the mount of a protected tree",
            format!("move-mount {at} {elsewhere}"),
            format!("move-mount {elsewhere} {at}"),
        ),
    ];
    let undone = tried.iter().map(|(name, order, at)| (*name, order, format!("unmount {at}")));
    let undone: Vec<_> = undone
        .chain(moves.iter().map(|(name, order, undo)| (*name, order, undo.clone())))
        .collect();
    for (name, order, undo) in &undone {
        attacks.without(name, &mut attacker, &format!("by-pid-1 {order}"));
        assert!(!volume.is_there(), "{name}: nothing is mounted");
        does(&mut attacker, undo);
        assert!(volume.is_there(), "{name}: it is not undone");
    }
    let sentinel = host.start(&volume.policy());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order, _) in &undone {
        let order = format!("by-pid-1 {order}");
        let event = refused(&attacks, name, &mut attacker, &order, &events);
        assert_eq!(event.hook, SentinelHook::SbMount, "{name}: {event}");
        assert!(volume.is_there(), "{name}");
    }
    // Elsewhere it may.
    does(&mut attacker, &format!("by-pid-1 mount tmpfs {elsewhere}"));
    does(&mut attacker, &format!("by-pid-1 unmount {elsewhere}"));
    drop(sentinel);
    does(&mut attacker, &format!("unmount {moved}"));
    does(&mut attacker, &format!("unmount {at}"));
}

/// At shutdown PID 1 unmounts, remounts and changes the root, and so do its children until they execute a program.
fn pid_1_unmounts_with_an_alarm() {
    let volume = Volume::new();
    let Volume { host, at, .. } = &volume;
    let mut attacker = host.test_process();
    let append = format!("append {}", volume.file());
    let remount = |how: &str| format!("remount {how} {at}");
    let sentinel = host.start(&volume.policy());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for order in [remount("read-only"), format!("unmount {at}")] {
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
        assert_eq!(next_denied(&events, attacker.pid()).verdict, SentinelVerdict::Denied);
    }
    for by in ["by-pid-1", "by-pid-1 child"] {
        does(&mut attacker, &format!("{by} {}", remount("read-only")));
        let hooks = [next_logged(&events).hook, next_logged(&events).hook];
        assert_eq!(hooks, [SentinelHook::SbMount, SentinelHook::SbRemount]);
        assert_eq!(attacker.ask(&format!("create {at}/new")).unwrap(), EROFS);
        does(&mut attacker, &format!("{by} {}", remount("writable")));
        let hooks = [next_logged(&events).hook, next_logged(&events).hook];
        assert_eq!(hooks, [SentinelHook::SbMount, SentinelHook::SbRemount]);
    }
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    next_denied(&events, attacker.pid());
    // A root with a parent mount, which the machine's root lacks and a copy has.
    let root = host.path("root").display().to_string();
    std::fs::create_dir(&root).unwrap();
    does(&mut attacker, &format!("show / {root}"));
    let orders = [
        &format!("chroot {root}"),
        "mkdir /new",
        "mount tmpfs /new",
        "mkdir /new/root",
        "mount tmpfs /new/root",
        "mkdir /new/root/old",
        "pivot-root /new/root /new/root/old",
        "list /old/new",
    ];
    does(&mut attacker, &format!("by-pid-1 child all {}", orders.join(" ; ")));
    let event = next_logged(&events);
    assert_eq!((event.hook, event.ppid), (SentinelHook::SbPivotroot, PID_1), "{event}");
    does(&mut attacker, &format!("by-pid-1 unmount {at}"));
    let event = next_logged(&events);
    assert_eq!((event.hook, event.pid), (SentinelHook::SbUmount, PID_1), "{event}");
    assert!(!volume.is_there());
    drop(sentinel);
    does(&mut attacker, &format!("unmount {root}"));
    does(&mut attacker, "rmdir /new");
}

fn next_denied(events: &EventReceiver, pid: u32) -> SentinelRecord {
    let event = crate::testbed::next_denied(events);
    assert_eq!(event.pid, pid, "{event}");
    event
}

/// `systemctl freeze` and `kill` have PID 1 write to the cgroup of a unit.
fn pid_1_does_not_freeze_or_kill_the_agent() {
    let host = Host::new();
    let around = Cgroup::new("around").unwrap();
    let own = around.child("agent").unwrap();
    let above_trap = Cgroup::new("above-trap").unwrap();
    let trap = above_trap.child("trap").unwrap();
    let agent = std::process::id();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let write = |group: &Cgroup, name: &str, text: &str| {
        format!("by-pid-1 write {} {text}", group.dir().join(name).display())
    };
    // The test does not stay frozen where this succeeds.
    let freeze = |by: &str, group: &Cgroup| {
        let file = group.dir().join("cgroup.freeze");
        format!("{by} all write {0} 1 ; write {0} 0", file.display())
    };
    let mut tried = vec![
        ("have PID 1 freeze the agent's cgroup", freeze("by-pid-1", &own)),
        ("have PID 1 freeze a cgroup above the agent's", freeze("by-pid-1", &around)),
        ("have a child of PID 1 freeze the agent's cgroup", freeze("by-pid-1 child", &own)),
    ];
    if own.dir().join("cgroup.kill").exists() {
        tried.push(("have PID 1 kill the agent's cgroup", write(&own, "cgroup.kill", "1")));
        tried.push((
            "have PID 1 kill a cgroup above the agent's",
            write(&around, "cgroup.kill", "1"),
        ));
    } else {
        println!("not tried: this kernel has no cgroup.kill");
    }
    let by_attacker = |group| freeze("by-pid-1", group).replace("by-pid-1 ", "");
    let there = [
        ("freeze a cgroup that PID 1 moved the agent to", by_attacker(&trap)),
        ("freeze a cgroup above one that PID 1 moved the agent to", by_attacker(&above_trap)),
        ("have PID 1 freeze a cgroup that it moved the agent to", freeze("by-pid-1", &trap)),
    ];
    // On another process first.
    for (name, order) in &tried {
        let mut victim =
            TestProcess::start_as(own.command(&std::env::current_exe().unwrap())).unwrap();
        attacks.without(name, &mut attacker, order);
        if name.contains("kill") {
            assert!(victim.ends_within(PATIENCE).unwrap(), "{name}");
        } else {
            does(&mut victim, "kill 1 0");
        }
    }
    for group in [&own, &around] {
        let file = group.dir().join("cgroup.freeze");
        does(&mut attacker, &write(group, "cgroup.freeze", "1"));
        wait_until_frozen(group);
        std::fs::write(file, "0").unwrap();
    }
    for (name, order) in &there {
        attacks.without(name, &mut attacker, order);
    }
    // By descriptors from before the start.
    let keep_open =
        |group: &Cgroup| format!("keep-open {}", group.dir().join("cgroup.freeze").display());
    let mut kept = [
        (
            "freeze a cgroup above the agent's by a descriptor that was opened before",
            host.test_process(),
            &around,
        ),
        (
            "have PID 1 freeze the agent's cgroup by a descriptor that was opened before",
            TestProcess::pid_1().unwrap(),
            &own,
        ),
        (
            "have PID 1 freeze a cgroup above the agent's by a descriptor that was opened before",
            TestProcess::pid_1().unwrap(),
            &around,
        ),
    ];
    let freeze_kept = "all write-kept 1 ; write-kept 0";
    for (name, process, group) in &mut kept {
        does(process, &keep_open(group));
        attacks.without(name, process, freeze_kept);
    }
    std::fs::write(own.dir().join("cgroup.procs"), "0").unwrap();
    let home = around.dir().parent().unwrap().join("cgroup.procs");
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = refused(&attacks, name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    for (name, process, _) in &mut kept {
        let event = attacks.with(name, process, freeze_kept, &events);
        assert_eq!(event.hook, SentinelHook::FilePermission, "{name}: {event}");
    }
    // PID 1 and its children move the agent, as their service, with an alarm.
    let moved = |group: &Cgroup| write(group, "cgroup.procs", &agent.to_string());
    let target = |event: &SentinelRecord| (event.hook, event.target);
    let is_moved = (SentinelHook::CgroupAttachTask, agent);
    does(&mut attacker, &moved(&trap));
    assert_eq!(target(&next_logged(&events)), is_moved);
    // It is protected where it is then, and in the cgroups above.
    for (name, order) in &there {
        let by = if order.contains("by-pid-1") { PID_1 } else { attacker.pid() };
        let attack = || outcome(order, attacker.ask(order).unwrap());
        let event = attacks.with_outcome(name, by, &events, attack);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    does(&mut attacker, &moved(&own).replace("by-pid-1", "by-pid-1 child"));
    assert_eq!(target(&next_logged(&events)), is_moved);
    // It may limit the agent, in every cgroup.
    does(&mut attacker, &write(&trap, "cgroup.max.depth", "5"));
    drop((kept, sentinel));
    // Where PID 1 may stop the agent, it may freeze it.
    let sentinel = Sentinel::builder("test").may_stop("/init");
    let sentinel = sentinel.start(&Policy::builder().compile().unwrap()).unwrap();
    does(&mut attacker, &freeze("by-pid-1", &own));
    drop(sentinel);
    std::fs::write(home, "0").unwrap();
}

/// systemd(1) is in a cgroup of its own, `init.scope`. A frozen one starts no successor.
fn pid_1_is_not_frozen_by_its_cgroup() {
    let host = Host::new();
    let init = Cgroup::new("init").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let write =
        |name: &str, text: &str| format!("write {} {text}", init.dir().join(name).display());
    let freeze = format!("all {} ; {}", write("cgroup.freeze", "1"), write("cgroup.freeze", "0"));
    let tried = [
        ("freeze the cgroup of PID 1", freeze),
        ("limit the cgroup of PID 1", write("cgroup.max.depth", "7")),
    ];
    let home = init.dir().parent().unwrap().join("cgroup.procs");
    // systemd(1) takes it for a fault of its own, and does nothing more.
    const SIGFPE: &str = "kill 1 8";
    let crash = "send PID 1 the signal of a fault";
    attacks.without(crash, &mut attacker, SIGFPE);
    does(&mut attacker, &write("cgroup.procs", "1"));
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    let event = attacks.with(crash, &mut attacker, SIGFPE, &events);
    assert_eq!((event.hook, event.target), (SentinelHook::TaskKill, PID_1), "{event}");
    does(&mut attacker, &format!("by-pid-1 {}", write("cgroup.max.depth", "8")));
    drop(sentinel);
    std::fs::write(home, "1").unwrap();
}

/// A user owns a cgroup, and may write the agent's number there, by the modes of files from before the start.
fn a_user_who_may_move_processes_moves_the_agent_with_an_alarm() {
    let host = Host::new();
    let around = Cgroup::new("around").unwrap();
    let (own, trap) = (around.child("agent").unwrap(), around.child("trap").unwrap());
    let procs = |group: &Cgroup| group.dir().join("cgroup.procs");
    let (mut attacker, mut user) = (host.test_process(), host.test_process());
    for group in [&around, &trap] {
        does(&mut attacker, &format!("chmod {}", procs(group).display()));
    }
    std::fs::write(procs(&own), "0").unwrap();
    does(&mut user, "uid 1000");
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let agent = std::process::id();
    does(&mut user, &format!("write {} {agent}", procs(&trap).display()));
    let event = loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        if event.pid == user.pid() {
            break event;
        }
    };
    assert_eq!((event.hook, event.target), (SentinelHook::CgroupAttachTask, agent), "{event}");
    assert_eq!(event.verdict, SentinelVerdict::Logged, "{event}");
    let freeze = trap.dir().join("cgroup.freeze");
    assert_eq!(attacker.ask(&format!("write {} 1", freeze.display())).unwrap(), EPERM);
    next_denied(&events, attacker.pid());
    std::fs::write(procs(&own), "0").unwrap();
    drop(sentinel);
    std::fs::write(around.dir().parent().unwrap().join("cgroup.procs"), "0").unwrap();
}

fn wait_until_frozen(group: &Cgroup) {
    let events = group.dir().join("cgroup.events");
    let until = std::time::Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&events).unwrap().contains("frozen 1") {
        assert!(std::time::Instant::now() < until, "{} is not frozen", group.dir().display());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
