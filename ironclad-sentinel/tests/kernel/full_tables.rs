//! Tables of the kernel that have no room: access is denied all the same, and what found no room is counted.

use std::fs::File;
use std::mem::offset_of;
use std::process::Command;
use std::time::Duration;

use ironclad_core::abi::{self, Loss, SentinelHook};
use ironclad_core::{ErrorChain, RuleId};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{EventReceiver, HeldFile, Overflow, Sentinel};
use ironclad_syscalls::idle_child;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};
use rustix::process::{Pid, Resource, Signal, WaitOptions, kill_process, setrlimit, waitpid};

use crate::testbed::shared::own_map;
use crate::testbed::{Attacks, EPERM, Host, Running, lsm, next_denied};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(full_tables_deny_and_are_counted).in_machine().needs(&[lsm]),
        test!(more_mounts_than_the_table_has_room_for_are_refused)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(a_census_without_room_has_writes_checked).shared().in_machine().needs(&[lsm]),
    ]
}

/// `enum bpf_func_id`.
const PROBE_READ_USER: u32 = 112;
const KTIME_GET_NS: u32 = 5;
/// A type of programs of packets.
const SCHED_CLS: u32 = 3;
/// Room for the paths of the policy twice, and not for a crowd of files.
const LABELS: u32 = 256;
const CROWD: u32 = 2 * LABELS;

/// A table that has no room until it is dropped: elements that no program looks up.
struct Full {
    table: MapHandle,
    keys: Vec<u8>,
}

impl Full {
    /// `first` is above the keys in use, or below them.
    fn new(name: &str, first: u64) -> Self {
        let table = own_map(name);
        let (count, size) = (table.max_entries() + 1, table.key_size() as usize);
        let key = |number: u64| number.to_ne_bytes()[..size].to_vec();
        let keys: Vec<u8> = (first..first + u64::from(count)).flat_map(key).collect();
        let values = vec![0; count as usize * table.value_size() as usize];
        // At least the last one finds no room.
        table.update_batch(&keys, &values, count, MapFlags::ANY, MapFlags::ANY).unwrap_err();
        Self { table, keys }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let count = (self.keys.len() / self.table.key_size() as usize) as u32;
        // It ends at the first one that found no room.
        let _ = self.table.delete_batch(&self.keys, count, MapFlags::ANY, MapFlags::ANY);
    }
}

/// Children of this process that execute nothing, until dropped.
struct Children(Vec<u32>);

impl Drop for Children {
    fn drop(&mut self) {
        for pid in &self.0 {
            let pid = Pid::from_raw(*pid as i32).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            waitpid(Some(pid), WaitOptions::empty()).unwrap();
        }
    }
}

fn lost(sentinel: &Sentinel, loss: Loss) -> u64 {
    let losses = sentinel.status().unwrap().losses;
    losses.iter().find(|it| it.loss == loss).map_or(0, |it| it.count)
}

fn rule(number: u32) -> FileRule {
    FileRule::new(RuleId(number), format!("rule {number}"), FileAction::Deny)
}

const BY_CHILD: &str = "kill a child of the agent that found no room in the table of trust marks";
const BY_PROGRAM: &str =
    "load a BPF program with a refused call while the table of objects is full";
const BY_MOVE: &str =
    "append to a file that moved into a protected tree while the table of renames is full";
const BY_CROWD: &str = "append to a protected file after its rules found no room for more files";

fn full_tables_deny_and_are_counted() {
    let host = Host::new();
    for name in ["protected/file", "outside/moved/file", "outside/later/file"] {
        let path = host.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "content").unwrap();
    }
    let exempt = host.program("exempt");
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let refused_call = format!("read-by-helper {SCHED_CLS} {PROBE_READ_USER} 0");
    let append = |path: &str| format!("append {}", host.path(path).display());
    let mut parent = host.test_process();
    let child = parent.ask("idle-child").unwrap();
    attacks.without(BY_CHILD, &mut attacker, &format!("kill {child} 9"));
    attacks.without(BY_PROGRAM, &mut attacker, &refused_call);
    attacks.without(BY_MOVE, &mut attacker, &append("protected/file"));
    attacks.without(BY_CROWD, &mut attacker, &append("protected/file"));

    let only = |rule: FileRule| Policy::builder().file_rule(rule);
    let protected = || only(rule(1).tree(host.path("protected")).except(&exempt));
    let policy = protected().compile().unwrap();
    let builder = Sentinel::builder("test").watch_every(Duration::ZERO);
    let sentinel = builder.labels(LABELS).start(&policy).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(sentinel.status().unwrap().losses, []);

    // Each child of a trusted process has a mark.
    let children = Children((0..=abi::SENTINEL_MARKS).map(|_| idle_child().unwrap()).collect());
    let last = children.0.last().unwrap();
    let event = attacks.with(BY_CHILD, &mut attacker, &format!("kill {last} 9"), &events);
    assert_eq!((event.hook, event.target), (SentinelHook::TaskKill, *last), "{event}");
    assert!(lost(&sentinel, Loss::Map) > 0);
    drop(children);

    objects_without_room_are_not_made(&sentinel, &events, |events| {
        attacks.with(BY_PROGRAM, &mut attacker, &refused_call, events);
        attacker.ask(&format!("read-by-helper {SCHED_CLS} {KTIME_GET_NS} 0")).unwrap()
    });

    // A directory of which the cache says that no rule covers it.
    let full = Full::new("ic_dir_renames", 1);
    let before = lost(&sentinel, Loss::Map);
    for (from, to) in [("outside/moved", "protected/moved"), ("outside/later", "protected/later")] {
        let (file, moved) = (append(&format!("{from}/file")), append(&format!("{to}/file")));
        assert_eq!(attacker.ask(&file).unwrap(), 0);
        std::fs::rename(host.path(from), host.path(to)).unwrap();
        assert_eq!(attacker.ask(&moved).unwrap(), EPERM);
    }
    attacks.with(BY_MOVE, &mut attacker, &append("protected/moved/file"), &events);
    assert_eq!(lost(&sentinel, Loss::Map), before + 2);
    drop(full);

    // A process without a record has no exemption.
    assert_eq!(host.test_process_by(&exempt).ask(&append("protected/file")).unwrap(), 0);
    let full = Full::new("ic_processes", 1 << 23);
    let mut unrecorded = host.test_process_by(&exempt);
    assert_eq!(unrecorded.ask(&append("protected/file")).unwrap(), EPERM);
    assert_eq!(next_denied(&events).pid, unrecorded.pid());
    assert!(lost(&sentinel, Loss::Process) > 0);
    drop(full);
    assert_eq!(host.test_process_by(&exempt).ask(&append("protected/file")).unwrap(), 0);

    // A process adds files that a pattern matches, until there is no room.
    std::fs::create_dir(host.path("crowd")).unwrap();
    let matched = host.path("crowd/*");
    let more = protected().file_rule(rule(2).glob(matched.to_str().unwrap())).compile().unwrap();
    sentinel.apply(&more).unwrap();
    for number in 0..CROWD {
        File::create(host.path(&format!("crowd/{number}"))).unwrap();
    }
    let error = sentinel.refresh().unwrap_err();
    let text = ErrorChain::new(&error).to_string();
    assert!(text.contains("ic_labels") && text.contains("`.labels(…)`"), "{text}");
    attacks.with(BY_CROWD, &mut attacker, &append("protected/file"), &events);
    std::fs::remove_dir_all(host.path("crowd")).unwrap();
    sentinel.apply(&policy).unwrap();
    assert_eq!(attacker.ask(&append("protected/file")).unwrap(), EPERM);
}

/// A trusted process gets an error instead of an object that other processes may open. `load` loads a program with a
/// refused call, and then another one.
fn objects_without_room_are_not_made(
    sentinel: &Sentinel,
    events: &EventReceiver,
    load: impl FnOnce(&EventReceiver) -> u64,
) {
    const NO_SPACE: i32 = 28;
    let create = || {
        let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
            ..Default::default()
        };
        let made = MapHandle::create(MapType::Array, Some("spare"), 4, 4, 1, &options);
        made.map(drop).map_err(|_| std::io::Error::last_os_error().raw_os_error())
    };
    create().unwrap();
    let before = lost(sentinel, Loss::Map);
    let full = Full::new("ic_objects", 1);
    assert_eq!(create().unwrap_err(), Some(NO_SPACE));
    // Before Linux 6.9 one hook finds the call, and another one refuses the program: from now on, all programs.
    let other = load(events);
    let btf = Btf::from_vmlinux().unwrap();
    let refuses_at_once = btf.type_by_name::<Func<'_>>("bpf_lsm_bpf_prog_load").is_some();
    assert_eq!(other, if refuses_at_once { 0 } else { EPERM });
    assert!(lost(sentinel, Loss::Map) > before);
    let state = own_map(".data.ic_sentin").lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    let at = offset_of!(abi::Sentinel, refuse);
    let refuse = u32::from_ne_bytes(state.unwrap()[at..at + 4].try_into().unwrap());
    assert_eq!(refuse & abi::REFUSE_PROGRAMS == 0, refuses_at_once);
    drop(full);
    create().unwrap();
}

/// More protected files are open for writing than the census has room for.
fn a_census_without_room_has_writes_checked() {
    const BY_QUEUE: &str =
        "write(2) by a descriptor in flight while the census of open files has no room";
    let host = Host::new();
    let dir = host.path("protected");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "content").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let keep_open = format!("keep-open {}", dir.join("file").display());
    for order in [&keep_open, "queue-kept", "receive-kept"] {
        assert_eq!(attacker.ask(order).unwrap(), 0);
    }
    attacks.without(BY_QUEUE, &mut attacker, "write-kept 1");
    assert_eq!(attacker.ask("queue-kept").unwrap(), 0);
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let create = |number| File::create(dir.join(format!("{number}"))).unwrap();
    let open: Vec<_> = (0..abi::SENTINEL_HELD).map(create).collect();
    let policy = |dir| -> CompiledPolicy {
        Policy::builder().file_rule(rule(1).tree(dir)).compile().unwrap()
    };
    let sentinel: Running = host.start(&policy(&dir));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let held = sentinel.status().unwrap().held;
    assert!(held.contains(&HeldFile::NotCounted), "{held:?}");
    assert_eq!(attacker.ask("receive-kept").unwrap(), 0);
    let event = attacks.with(BY_QUEUE, &mut attacker, "write-kept 2", &events);
    assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    drop(open);
}

/// Another process mounts so many file systems below a directory that no rule can cover it.
fn more_mounts_than_the_table_has_room_for_are_refused() {
    const BY_MOUNTS: &str = "append to a protected file after a rule met too many mounts";
    let host = Host::new();
    for name in ["protected", "crowd"] {
        std::fs::create_dir(host.path(name)).unwrap();
    }
    std::fs::write(host.path("protected/file"), "content").unwrap();
    let append = format!("append {}", host.path("protected/file").display());
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    attacks.without(BY_MOUNTS, &mut attacker, &append);
    let tree = |name| rule(1).tree(host.path(name));
    let only = |name| Policy::builder().file_rule(tree(name)).compile().unwrap();
    let crowd = host.path("crowd");
    let sentinel = host.start(&only("protected"));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // 64 mounts, all of which are bound 64 times more.
    let shell = format!(
        "mount -t tmpfs none {0} && cd {0} && mkdir all && mount -t tmpfs none all && \
         for n in $(seq 64); do mkdir all/$n && mount --bind all/$n all/$n; done && \
         for n in $(seq 64); do mkdir $n && mount --rbind all $n; done",
        crowd.display(),
    );
    assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap().lines().count();
    assert!(mounts > abi::SENTINEL_MOUNTS as usize, "{mounts}");
    let error = sentinel.apply(&only("crowd")).unwrap_err();
    let text = ErrorChain::new(&error).to_string();
    assert!(text.contains("ic_mounts") && text.contains("mounts"), "{text}");
    attacks.with(BY_MOUNTS, &mut attacker, &append, &events);
    drop(sentinel);
    assert!(Command::new("umount").arg("-l").arg(&crowd).status().unwrap().success());
}
