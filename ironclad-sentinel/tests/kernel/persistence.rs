//! Pins and state that outlive the agent, and the successors that may adopt them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use crate::testbed::successor::{
    AUDIT, BASELINE, GROUP, STATE, Successor, TREES, builder, one_of, policy,
};
use crate::testbed::{Attacks, EPERM, Host, PATIENCE, Sysctl, does, lsm, next_denied};
use ironclad_core::ErrorChain;
use ironclad_core::abi::{SENTINEL_MARKS, SentinelHook};
use ironclad_core::audit::{DeferredSink, JsonLinesSink, verify_file};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::{Cgroup, moments_to_kill};
use ironclad_sentinel::{BaselineOptions, Overflow};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(protection_outlives_the_agent_and_a_successor_adopts_it).in_machine().needs(&[lsm]),
        test!(a_lock_on_the_audit_file_keeps_no_successor_out).in_machine().needs(&[lsm]),
        test!(a_successor_may_be_bound_to_a_cgroup).in_machine().needs(&[lsm]),
        test!(a_full_file_system_keeps_no_successor_out).in_machine().needs(&[lsm]),
        test!(used_up_epoll_watches_keep_no_agent_out).in_machine().needs(&[lsm]),
        test!(names_that_are_not_utf_8_keep_no_agent_out).in_machine().needs(&[lsm]),
        test!(candidates_that_wait_keep_no_successor_out).in_machine().needs(&[lsm]),
        test!(a_successor_opens_a_protected_audit_file).in_machine().needs(&[lsm]),
        test!(a_kill_at_any_moment_leaves_an_instance_to_adopt).in_machine().needs(&[lsm]),
        test!(a_kill_during_a_reload_leaves_one_of_two_policies).in_machine().needs(&[lsm]),
    ]
}

/// State directory and pins of an agent.
struct Targets {
    state: PathBuf,
    bpffs: PathBuf,
    instance: String,
}

impl Targets {
    fn new(state: &Path, bpffs: &Path, instance: &str) -> Self {
        Self { state: state.into(), bpffs: bpffs.into(), instance: instance.into() }
    }

    fn pins(&self) -> PathBuf {
        self.bpffs.join("ironclad").join(&self.instance)
    }
}

/// The pin directory of this ABI version.
fn version() -> String {
    format!("v{}", ironclad_core::abi::VERSION)
}

fn attacks_without_an_agent(targets: &Targets, copy: &Path) -> [(&'static str, String); 12] {
    let (state, bpffs) = (targets.state.display(), targets.bpffs.display());
    let (pins, read) = (format!("{bpffs}/ironclad"), format!("read {state}/secret"));
    let own = std::env::current_exe().unwrap();
    [
        ("read the agent's secret", read.clone()),
        // A process with the agent's executable is not trusted.
        (
            "read the agent's secret by the agent's executable",
            format!("fork {} {read}", own.display()),
        ),
        (
            "read the agent's secret by a copy of the agent's executable",
            format!("fork {} {read}", copy.display()),
        ),
        ("list the agent's state directory", format!("list {state}")),
        ("unlink the agent's secret", format!("unlink {state}/secret")),
        ("rename the agent's state directory", format!("rename {state} {state}-gone")),
        ("remove the pins", format!("remove-all {pins}")),
        ("remove the pins by rm(1)", format!("tool rm -rf {pins}")),
        ("list the pins", format!("list {}", targets.pins().join(version()).display())),
        ("rename the pins", format!("rename {pins} {bpffs}/gone")),
        ("unmount bpffs", format!("tool umount -l {bpffs}")),
        ("mount over bpffs", format!("tool mount -t tmpfs none {bpffs}")),
    ]
}

fn protection_outlives_the_agent_and_a_successor_adopts_it() {
    let host = Host::new();
    let (dir, file) = (host.dir(), host.path("protected/file"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(&file, "1").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let append = format!("append {}", file.display());
    // Unprotected twins: a file, and a bpffs with a pin.
    let twin = Targets::new(&host.path("twin"), &host.path("bpffs"), "twin");
    std::fs::create_dir(&twin.state).unwrap();
    std::fs::create_dir(&twin.bpffs).unwrap();
    let mount_twin = format!("tool mount -t bpf none {}", twin.bpffs.display());
    let copy = host.program("copy");
    let tried = |targets| attacks_without_an_agent(targets, &copy);
    let protected_file = "append to a protected file while no agent runs";
    attacks.without(protected_file, &mut attacker, &append);
    for (name, order) in tried(&twin) {
        std::fs::create_dir_all(&twin.state).unwrap();
        std::fs::write(twin.state.join("secret"), "1").unwrap();
        assert_eq!(attacker.ask(&mount_twin).unwrap(), 0);
        std::fs::create_dir_all(twin.pins().join(version())).unwrap();
        let pin = twin.pins().join(version()).join("map");
        let create = "type array key 4 value 4 entries 1 name twin";
        let create = format!("tool bpftool map create {} {create}", pin.display());
        assert_eq!(attacker.ask(&create).unwrap(), 0);
        attacks.without(name, &mut attacker, &order);
        // It may be mounted still, or several times.
        while attacker.ask(&format!("tool umount -l {}", twin.bpffs.display())).unwrap() == 0 {}
    }

    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    drop(sentinel);
    // No agent runs, and hooks refuse still. Alarms are read from the ring buffer that was mapped before.
    let instance = dir.file_name().unwrap().to_string_lossy().replace('.', "_");
    let own_pins = format!("{instance}-sentinel");
    let own = Targets::new(&host.path("state"), Path::new("/sys/fs/bpf"), &own_pins);
    attacks.with(protected_file, &mut attacker, &append, &events);
    for (name, order) in tried(&own) {
        attacks.with(name, &mut attacker, &order, &events);
    }
    assert_ne!(attacker.ask("tool umount -l /sys").unwrap(), 0);

    // A successor that a trusted process starts is trusted.
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    let pid = successor.child.id();
    assert_eq!(attacker.ask(&format!("kill {pid} 9")).unwrap(), EPERM);
    drop(successor);
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    // With a preloaded library it is not.
    let mut command = Successor::command(dir);
    let library = host.path("library.so");
    std::fs::copy(preloadable(), &library).unwrap();
    command.env("LD_PRELOAD", &library);
    let mut preloaded = Successor::start(command);
    let said = preloaded.says();
    assert!(said.contains("not trusted to adopt"), "{said}");
    drop(preloaded);

    // A successor with another state directory finds no secret.
    let mut command = Successor::command(dir);
    command.env(STATE, host.path("elsewhere"));
    let mut elsewhere = Successor::start(command);
    let said = elsewhere.says();
    let named = format!("`{}` has no secret", host.path("elsewhere").display());
    assert!(said.contains(&named) && said.contains("`.state_dir(…)`"), "{said}");
    drop(elsewhere);

    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    drop(successor);
    assert_eq!(attacker.ask(&append).unwrap(), 0);
    assert!(!own.pins().exists());
}

/// A lock that waits for the agent's is granted when the agent ends.
fn a_lock_on_the_audit_file_keeps_no_successor_out() {
    let host = Host::new();
    std::fs::create_dir(host.path("protected")).unwrap();
    let [file, audit] = ["protected/file", "audit.jsonl"].map(|name| host.path(name));
    std::fs::write(&file, "1").unwrap();
    let start = || {
        let mut command = Successor::command(host.dir());
        command.env(AUDIT[0], &audit);
        let mut successor = Successor::start(command);
        (successor.says(), successor)
    };
    let mut attacks = Attacks::default();
    let locks = [
        ("lock the agent's audit file by flock(2)", format!("lock flock {}", audit.display())),
        ("lock the agent's audit file by fcntl(2)", format!("lock fcntl {}", audit.display())),
    ];
    drop(JsonLinesSink::open(&audit).unwrap());
    let mut attacker = host.test_process();
    for (name, order) in &locks {
        attacks.without(name, &mut attacker, order);
    }
    let (said, _) = start();
    assert!(said.contains("another process"), "{said}");
    drop(attacker);
    let mut attacker = host.test_process();
    let sink = Arc::new(JsonLinesSink::open(&audit).unwrap());
    let sentinel = builder(host.dir()).audit(sink).start(&policy(host.dir())).unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &locks {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileLock, "{event}");
    }
    drop(sentinel);
    // No agent holds the lock.
    for (_, order) in &locks {
        assert_eq!(attacker.ask(order).unwrap(), EPERM, "{order}");
    }
    let (said, mut successor) = start();
    assert_eq!(said, "ready");
    // Readers lock other protected files.
    does(&mut attacker, &format!("lock flock {}", file.display()));
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
}

fn a_successor_may_be_bound_to_a_cgroup() {
    let host = Host::new();
    let dir = host.dir();
    std::fs::create_dir(host.path("protected")).unwrap();
    let error = builder(dir).launched_in(dir).start(&policy(dir)).unwrap_err().to_string();
    assert!(error.contains("no cgroup of version 2"), "{error}");
    drop(builder(dir).start(&policy(dir)).unwrap());
    let group = Cgroup::new("agents").unwrap();
    let start = || {
        let mut command = Successor::command(dir);
        command.env(GROUP, group.dir());
        let mut successor = Successor::start(command);
        (successor.says(), successor)
    };
    // The cgroup is not checked yet for the first agent that names it.
    let (said, first) = start();
    assert_eq!(said, "ready");
    drop(first);
    let (said, outside) = start();
    assert!(said.contains("not trusted to adopt"), "{said}");
    drop(outside);
    // Only a trusted process may move processes: this one moves a successor that waits.
    let mut waiting = Command::new("/bin/sh");
    waiting.args(["-c", r#"read -r _ && exec "$@""#, "sh"]).arg(std::env::current_exe().unwrap());
    let mut waiting = Successor::command_by(waiting, dir);
    waiting.env(GROUP, group.dir());
    let mut inside = Successor::start(waiting);
    std::fs::write(group.dir().join("cgroup.procs"), inside.child.id().to_string()).unwrap();
    inside.send("go on");
    assert_eq!(inside.says(), "ready");
    inside.send("stop");
    assert_eq!(inside.says(), "stopped");
}

/// Any process may use up the room of the file system that has the state directory.
fn a_full_file_system_keeps_no_successor_out() {
    let host = Host::new();
    let (dir, volume) = (host.dir(), host.path("volume"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let mut attacker = host.test_process();
    does(&mut attacker, &format!("tool mount -t tmpfs -o size=256k none {}", volume.display()));
    let state = volume.join("state");
    std::fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    let fill = format!("tool dd if=/dev/zero of={} bs=4k", volume.join("fill").display());
    let builder = || builder(dir).state_dir(&state);
    assert_ne!(attacker.ask(&fill).unwrap(), 0);
    // There is no former secret to write over.
    let error = builder().start(&policy(dir)).unwrap_err();
    let said = ErrorChain::new(&error).to_string();
    assert!(
        said.contains("making room for the secret") && said.contains("No space left"),
        "{said}"
    );
    std::fs::remove_file(volume.join("fill")).unwrap();
    drop(builder().baseline(BaselineOptions::default()).start(&policy(dir)).unwrap());
    assert_ne!(attacker.ask(&fill).unwrap(), 0);
    let secret = || std::fs::read(state.join("secret")).unwrap();
    for order in ["degraded", "stop"] {
        let former = secret();
        let mut command = Successor::command(dir);
        command.env(STATE, &state).env(BASELINE, "1");
        // Nor does what a manager's environment says.
        command.env("TMPDIR", &volume).env("RUST_MIN_STACK", "1");
        let mut successor = Successor::start(command);
        assert_eq!(successor.says(), "ready");
        assert_ne!(secret(), former);
        successor.send(order);
        let said = successor.says();
        match order {
            "stop" => assert_eq!(said, "stopped"),
            _ => assert!(said.contains("No space left on device"), "{said}"),
        }
    }
    does(&mut attacker, &format!("tool umount {}", volume.display()));
}

/// The kernel limits the watches of epoll(7) of each user, root included.
fn used_up_epoll_watches_keep_no_agent_out() {
    const FEW: &str = "32";
    const TAKE: &str = "take-epoll-watches";
    let host = Host::new();
    let (dir, file) = (host.dir(), host.path("protected/file"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(&file, "1").unwrap();
    let limit = Sysctl::new("fs/epoll/max_user_watches");
    std::fs::write(&limit.0, FEW).unwrap();
    let (mut attacker, mut other) = (host.test_process(), host.test_process());
    attacker.ask(TAKE).unwrap();
    assert_eq!(other.ask(TAKE).unwrap(), 0, "a watch is left");
    let append = format!("append {}", file.display());
    assert_eq!(attacker.ask(&append).unwrap(), 0);
    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    let (pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    assert_eq!(next_denied(&events).pid, attacker.pid());
    drop((events, pump, sentinel));
    assert_eq!(other.ask(TAKE).unwrap(), 0, "a watch is left");
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
}

/// Names that other processes choose are in the kernel's lists of mounts and cgroups.
fn names_that_are_not_utf_8_keep_no_agent_out() {
    let host = Host::new();
    let dir = host.dir();
    std::fs::create_dir(host.path("protected")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let [point, group] = [&b"\xff"[..], b"group"].map(|name| {
        let path = elsewhere.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&path).unwrap();
        path
    });
    mount("none", &point, "tmpfs", MountFlags::empty(), None).unwrap();
    // The kernel takes letters of Latin-1.
    let hierarchy = c"none,name=\xe9";
    mount("none", &group, "cgroup", MountFlags::empty(), Some(hierarchy)).unwrap();
    for list in ["/proc/self/mountinfo", "/proc/self/cgroup"] {
        String::from_utf8(std::fs::read(list).unwrap()).unwrap_err();
    }
    drop(builder(dir).start(&policy(dir)).unwrap());
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    successor.send("degraded");
    assert_eq!(successor.says(), "[]");
    drop(successor);
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    [point, group].iter().for_each(|at| unmount(at, UnmountFlags::empty()).unwrap());
}

/// Processes that were started as agents are and execute the agent's program, and that present no secret.
fn candidates_that_wait_keep_no_successor_out() {
    let host = Host::new();
    let dir = host.dir();
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(host.path("protected/file"), "1").unwrap();
    drop(builder(dir).start(&policy(dir)).unwrap());
    let mut attacker = host.test_process();
    let append = format!("append {}", host.path("protected/file").display());
    let waiting: Vec<_> = (0..=SENTINEL_MARKS).map(|_| host.test_process()).collect();
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    drop(waiting);
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
}

/// Before the kernel knows a successor, it may not open a file that a rule protects.
fn a_successor_opens_a_protected_audit_file() {
    let host = Host::new();
    let (dir, file) = (host.dir(), host.path("protected/audit.jsonl"));
    std::fs::create_dir(host.path("protected")).unwrap();
    let start = |how| {
        let mut command = Successor::command(dir);
        command.env(how, &file);
        Successor::start(command)
    };
    let sink = Arc::new(DeferredSink::new(&file));
    drop(builder(dir).audit(sink).start(&policy(dir)).unwrap());
    let records = || verify_file(&file, None).unwrap().records;
    let [first, deferred] = AUDIT;
    let said = start(first).says();
    assert!(said.contains("cannot open or create it"), "{said}");
    let before = records();
    let mut successor = start(deferred);
    assert_eq!(successor.says(), "ready");
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    assert!(records() > before);
}

/// Any library: one that this program has mapped.
fn preloadable() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut libraries = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    libraries.find(|path| path.contains("libgcc_s")).unwrap().into()
}

/// Attacks while an agent does something: without pauses they would take half of the processors of an emulated
/// machine, and the agent would be killed in the first half of its work alone.
const PAUSES: u32 = 32;

/// An agent that is killed at any moment leaves the instance protected, and a successor adopts it.
fn a_kill_at_any_moment_leaves_an_instance_to_adopt() {
    let host = Host::new();
    let (dir, file) = (host.dir(), host.path("protected/file"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(&file, "1").unwrap();
    let mut attacker = host.test_process();
    let append = format!("append {}", file.display());
    let started = Instant::now();
    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    let whole = started.elapsed();
    drop(sentinel);
    // A successor's start takes twice as long: it ends the former programs, too.
    for moment in moments_to_kill(2 * whole, 4) {
        let (successor, started) = (Successor::start(Successor::command(dir)), Instant::now());
        while started.elapsed() < moment {
            assert_eq!(attacker.ask(&append).unwrap(), EPERM, "before a kill at {moment:?}");
            std::thread::sleep(whole / PAUSES);
        }
        drop(successor);
        assert_eq!(attacker.ask(&append).unwrap(), EPERM, "after a kill at {moment:?}");
    }
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    assert_eq!(attacker.ask(&append).unwrap(), 0);
}

/// An agent that is killed while it applies policies leaves one of them in force, whole.
fn a_kill_during_a_reload_leaves_one_of_two_policies() {
    let host = Host::new();
    let dir = host.dir();
    for tree in TREES.iter().chain(&["protected"]) {
        std::fs::create_dir(dir.join(tree)).unwrap();
        std::fs::write(dir.join(tree).join("file"), "1").unwrap();
    }
    let mut attacker = host.test_process();
    let mut append = |tree: &str| {
        attacker.ask(&format!("append {}", dir.join(tree).join("file").display())).unwrap()
    };
    assert_eq!((append("protected"), append(TREES[0])), (0, 0));
    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    let started = Instant::now();
    sentinel.apply(&one_of(dir, TREES[0])).unwrap();
    let whole = started.elapsed();
    drop(sentinel);
    let mut left = [0; 2];
    // Within two reloads, after the first one.
    for moment in moments_to_kill(2 * whole, 3) {
        let mut agent = Successor::start(Successor::command(dir));
        assert_eq!(agent.says(), "ready");
        agent.send("reload");
        let started = Instant::now();
        while started.elapsed() < whole + moment {
            assert_eq!(append("protected"), EPERM, "before a kill at {moment:?}");
            std::thread::sleep(whole / PAUSES);
        }
        drop(agent);
        assert_eq!(append("protected"), EPERM, "after a kill at {moment:?}");
        match TREES.map(&mut append) {
            [EPERM, 0] => left[0] += 1,
            [0, EPERM] => left[1] += 1,
            // The policy of its start.
            [0, 0] => {}
            other => panic!("after a kill at {moment:?}: {other:?}"),
        }
    }
    println!("{left:?} of the policies were left");
    // On a busy machine no reload may have come to its end by then.
    let mut agent = Successor::start(Successor::command(dir));
    assert_eq!(agent.says(), "ready");
    agent.send("reload");
    let started = Instant::now();
    while TREES.map(&mut append) == [0, 0] {
        assert!(started.elapsed() < PATIENCE, "no reload came to an end");
    }
    drop(agent);
    assert!([[EPERM, 0], [0, EPERM]].contains(&TREES.map(&mut append)));
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    assert_eq!([append("protected"), append(TREES[0]), append(TREES[1])], [EPERM, 0, 0]);
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    assert_eq!(append("protected"), 0);
}
