//! Files that were open for writing before a rule covered them, by descriptors and otherwise.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::Test;
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, test};
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{HeldFile, Overflow, Sentinel};

use libbpf_rs::query::{LinkInfoIter, ProgInfoIter};

use crate::testbed::{Attacks, Host, PATIENCE, Running, lsm};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(preopened_descriptors_do_not_write).shared().in_machine().needs(&[lsm]),
        test!(descriptors_in_flight_do_not_write).shared().in_machine().needs(&[lsm]),
        test!(a_descriptor_in_flight_is_found_among_many_files).shared().in_machine().needs(&[lsm]),
        test!(a_file_that_is_open_when_it_gets_a_protected_name_is_found)
            .in_machine()
            .needs(&[lsm]),
        test!(kernel_files_that_were_opened_before_do_not_act).shared().in_machine().needs(&[lsm]),
        test!(files_of_cgroups_do_not_act_by_their_handles).shared().in_machine().needs(&[lsm]),
        test!(the_watch_thread_counts_again).in_machine().needs(&[lsm]),
        test!(kernel_threads_that_write_are_not_set_up_and_reported)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(devices_that_are_open_without_a_descriptor_are_not_written)
            .shared()
            .in_machine()
            .needs(&[lsm]),
    ]
}

fn tree(dir: &Path) -> CompiledPolicy {
    let rule = FileRule::new(RuleId(1), "rule 1", FileAction::Deny);
    Policy::builder().file_rule(rule.tree(dir)).compile().unwrap()
}

/// A protected file, and one elsewhere.
fn lay_out(host: &Host) {
    for name in ["protected/file", "elsewhere/other"] {
        let path = host.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "content").unwrap();
    }
}

fn follow(process: &mut TestProcess, orders: &[&str]) {
    for order in orders {
        assert_eq!(process.ask(order).unwrap(), 0, "{order}");
    }
}

/// What is open without a descriptor, by its name and how often.
fn held(sentinel: &Running) -> Vec<(String, u32)> {
    let held = sentinel.status().unwrap().held;
    held.into_iter()
        .map(|it| match it {
            HeldFile::File { name, count, .. } => (name, count),
            HeldFile::Device { device, count, .. } => (device, count),
            other => (other.to_string(), 0),
        })
        .collect()
}

fn preopened_descriptors_do_not_write() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let file = host.path("protected/file");
    let from = |verb: &str| format!("{verb} {}", host.path("elsewhere/other").display());
    let tried = [
        ("fallocate(2) by a pre-opened descriptor", "allocate-kept".to_owned()),
        ("ftruncate(2) by a pre-opened descriptor", "truncate-kept".to_owned()),
        ("write(2) by a pre-opened descriptor", "write-kept 1".to_owned()),
        ("mmap(2) to write by a pre-opened descriptor", "map-kept".to_owned()),
        ("copy_file_range(2) to a pre-opened descriptor", from("copy-to-kept")),
        ("sendfile(2) to a pre-opened descriptor", from("send-to-kept")),
        ("splice(2) to a pre-opened descriptor", from("splice-to-kept")),
        ("write by io_uring to a pre-opened descriptor", "uring-write-kept caller 1".into()),
        (
            "write by an io_uring worker to a pre-opened descriptor",
            "uring-write-kept worker 1".into(),
        ),
    ];
    assert_eq!(attacker.ask(&format!("keep-open {}", file.display())).unwrap(), 0);
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let policy = |dir| tree(&host.path(dir));
    let sentinel = host.start(&policy("elsewhere"));
    assert_eq!(attacker.ask("write-kept 2").unwrap(), 0);
    assert_eq!(sentinel.status().unwrap().preopened, []);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    sentinel.apply(&policy("protected")).unwrap();
    let before = sentinel.status().unwrap().preopened;
    assert_eq!((before.len(), before[0].pid, before[0].rules), (1, attacker.pid(), 1));
    let content = std::fs::read(&file).unwrap();
    for (name, order) in &tried {
        assert_eq!(attacks.with(name, &mut attacker, order, &events).pid, attacker.pid(), "{name}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), content);
    drop(sentinel);
    assert_eq!(attacker.ask("map-kept").unwrap(), 0);
    assert_eq!(attacker.ask("write-kept 4").unwrap(), 0);
}

/// Files of the kernel's by which a process acts on the agent, and not on their content.
fn kernel_files_that_were_opened_before_do_not_act() {
    let host = Host::new();
    lay_out(&host);
    let group = Cgroup::new("before").unwrap();
    let (by_group, by_key) = (
        "move the agent to another cgroup by a descriptor of cgroup.procs that was opened before",
        "use sysrq by a descriptor that was opened before",
    );
    let mut attacks = Attacks::default();
    let (mut mover, mut presser) = (host.test_process(), host.test_process());
    let procs = group.dir().join("cgroup.procs");
    follow(&mut mover, &[&format!("keep-open {}", procs.display())]);
    follow(&mut presser, &["keep-open /proc/sysrq-trigger"]);
    let move_pid = |pid: u32| format!("write-kept {pid}");
    let victim = host.test_process();
    attacks.without(by_group, &mut mover, &move_pid(victim.pid()));
    drop(victim);
    // Help, in the kernel's log.
    attacks.without(by_key, &mut presser, "write-kept h");
    let sentinel = host.start(&tree(&host.path("protected")));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let before: BTreeSet<_> =
        sentinel.status().unwrap().preopened.iter().map(|it| it.pid).collect();
    assert_eq!(before, BTreeSet::from([mover.pid(), presser.pid()]));
    for (name, process, order) in [
        (by_group, &mut mover, move_pid(std::process::id())),
        (by_key, &mut presser, "write-kept h".to_owned()),
    ] {
        let event = attacks.with(name, process, &order, &events);
        assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    }
    // The shared instance has no pre-opened descriptors at the end.
    drop((mover, presser));
}

/// A file of a cgroup that is opened by its handle has no name and no directory, until a process looks it up.
fn files_of_cgroups_do_not_act_by_their_handles() {
    let host = Host::new();
    lay_out(&host);
    let (group, version_1) = (Cgroup::new("handle").unwrap(), host.path("version-1"));
    std::fs::create_dir(&version_1).unwrap();
    let [before, since, new, owner] = [
        "move the agent to another cgroup by cgroup.procs that was opened by its handle before",
        "open cgroup.procs by its handle",
        "open cgroup.procs of a new hierarchy by its handle",
        "chown cgroup.procs by its handle",
    ];
    let mut attacks = Attacks::default();
    let (mut mover, mut opener) = (host.test_process(), host.test_process());
    let find = |group: &Path| format!("keep-number {}", group.join("cgroup.procs").display());
    follow(&mut mover, &[&find(group.dir()), "keep-by-handle"]);
    let kept = std::fs::read_dir(format!("/proc/{}/fd", mover.pid())).unwrap();
    let mut kept = kept.map(|it| std::fs::read_link(it.unwrap().path()).unwrap());
    assert!(kept.all(|it| !it.ends_with("cgroup.procs")), "the file has a name");
    let move_pid = |pid: u32| format!("write-kept {pid}");
    let victim = host.test_process();
    attacks.without(before, &mut mover, &move_pid(victim.pid()));
    drop(victim);
    follow(&mut opener, &[&find(group.dir())]);
    attacks.without(since, &mut opener, "open-handle");
    attacks.without(owner, &mut opener, "chown-by-handle");
    let at = version_1.display();
    let [mount, umount] =
        [format!("tool mount -t cgroup -o freezer none {at}"), format!("tool umount {at}")];
    let ice = version_1.join("ice");
    let has_freezer = opener.ask(&mount).unwrap() == 0;
    if has_freezer {
        follow(&mut opener, &[&format!("mkdir {}", ice.display()), &find(&ice)]);
        attacks.without(new, &mut opener, "open-handle");
    } else {
        println!("not tried: this kernel has no freezer of version 1");
    }
    let sentinel = host.start(&tree(&host.path("protected")));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let preopened = sentinel.status().unwrap().preopened;
    assert!(preopened.iter().any(|it| it.pid == mover.pid()), "{preopened:?}");
    let event = attacks.with(before, &mut mover, &move_pid(std::process::id()), &events);
    assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    if has_freezer {
        attacks.with(new, &mut opener, "open-handle", &events);
    }
    follow(&mut opener, &[&find(group.dir())]);
    for (name, order, hook) in [
        (since, "open-handle", SentinelHook::FileOpen),
        (owner, "chown-by-handle", SentinelHook::InodeSetattr),
    ] {
        let event = attacks.with(name, &mut opener, order, &events);
        assert_eq!(event.hook, hook, "{event}");
    }
    // The shared instance has no pre-opened descriptors at the end.
    drop((mover, opener));
    drop(sentinel);
    if has_freezer {
        std::fs::remove_dir(&ice).unwrap();
        follow(&mut host.test_process(), &[&umount]);
    }
}

/// The only descriptor is in a socket's queue, or the file is registered with io_uring.
fn descriptors_in_flight_do_not_write() {
    let host = Host::new();
    lay_out(&host);
    let (mut by_queue, mut by_ring) = (host.test_process(), host.test_process());
    let mut attacks = Attacks::default();
    let file = host.path("protected/file");
    let (queued, registered) = (
        "write(2) by a descriptor that was in flight over a socket",
        "write by io_uring to a registered file without a descriptor",
    );
    let keep_open = format!("keep-open {}", file.display());
    follow(&mut by_queue, &[&keep_open, "queue-kept", "receive-kept"]);
    attacks.without(queued, &mut by_queue, "write-kept 1");
    follow(&mut by_queue, &["queue-kept"]);
    follow(&mut by_ring, &[&keep_open, "register-kept"]);
    attacks.without(registered, &mut by_ring, "write-registered 1");
    let sentinel = host.start(&tree(&host.path("protected")));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(held(&sentinel), [("file".to_owned(), 2)]);
    assert_eq!(sentinel.status().unwrap().preopened, []);
    follow(&mut by_queue, &["receive-kept"]);
    for (name, process, order) in
        [(queued, &mut by_queue, "write-kept 2"), (registered, &mut by_ring, "write-registered 2")]
    {
        let event = attacks.with(name, process, order, &events);
        assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    }
    // Once both are closed, nothing is left, and writes are not checked any more.
    drop((by_queue, by_ring));
    let patience = Instant::now() + PATIENCE;
    // The kernel releases what a ring has some time after its process.
    while !held(&sentinel).is_empty() {
        assert!(Instant::now() < patience);
        sentinel.apply(&tree(&host.path("elsewhere"))).unwrap();
        sentinel.apply(&tree(&host.path("protected"))).unwrap();
    }
    // Before Linux 5.13 a program that was detached is not attached again.
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    assert_eq!(checks_writes(), release.starts_with("5.10."));
}

/// A file system of its own: unmounted when dropped, with all files at once.
struct Volume(PathBuf);

impl Volume {
    fn new(at: PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        let options = ["-t", "tmpfs", "-o", "nr_inodes=0", "none"];
        assert!(Command::new("mount").args(options).arg(&at).status().unwrap().success());
        Self(at)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(&self.0).status().unwrap().success());
    }
}

/// The census visits each file of the file system that is in memory. A tree has one label, however many files it has.
fn a_descriptor_in_flight_is_found_among_many_files() {
    const BY_QUEUE: &str =
        "write(2) by a descriptor in flight to one of many files of a protected tree";
    let files: u32 = std::env::var("IRONCLAD_FILES").map_or(20_000, |text| text.parse().unwrap());
    let host = Host::new();
    let volume = Volume::new(host.path("protected"));
    std::fs::write(volume.0.join("file"), "content").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let keep_open = format!("keep-open {}", volume.0.join("file").display());
    follow(&mut attacker, &[&keep_open, "queue-kept", "receive-kept"]);
    attacks.without(BY_QUEUE, &mut attacker, "write-kept 1");
    follow(&mut attacker, &["queue-kept"]);
    std::fs::create_dir(host.path("elsewhere")).unwrap();
    let started = Instant::now();
    for number in 0..files {
        let dir = volume.0.join((number / 1000).to_string());
        if number % 1000 == 0 {
            std::fs::create_dir(&dir).unwrap();
        }
        std::fs::File::create(dir.join(number.to_string())).unwrap();
    }
    let created = started.elapsed();
    let sentinel = host.start(&tree(&host.path("elsewhere")));
    let (started, before) = (Instant::now(), sentinel.status().unwrap().labels);
    sentinel.apply(&tree(&volume.0)).unwrap();
    let (applied, labels) = (started.elapsed(), sentinel.status().unwrap().labels);
    println!("{files} files: created in {created:?}, applied in {applied:?}, {labels} labels");
    assert!(labels <= before + 2, "{labels} labels, and {before} before");
    assert_eq!(held(&sentinel), [("file".to_owned(), 1)]);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    follow(&mut attacker, &["receive-kept"]);
    let event = attacks.with(BY_QUEUE, &mut attacker, "write-kept 2", &events);
    assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    drop((sentinel, attacker));
}

/// Writes are not checked any more once the last pre-opened descriptor is closed, without a call of the agent.
fn the_watch_thread_counts_again() {
    let host = Host::new();
    lay_out(&host);
    let mut holder = host.test_process();
    let keep_open = format!("keep-open {}", host.path("protected/file").display());
    follow(&mut holder, &[&keep_open, "queue-kept"]);
    let builder = Sentinel::builder("test");
    let builder = builder.watch_every(Duration::from_millis(100));
    let sentinel = Running::Own(builder.start(&tree(&host.path("protected"))).unwrap());
    assert_eq!(held(&sentinel), [("file".to_owned(), 1)]);
    drop(holder);
    let patience = Instant::now() + PATIENCE;
    while !held(&sentinel).is_empty() {
        assert!(Instant::now() < patience);
        std::thread::yield_now();
    }
}

/// An exempt program may rename a file that another process has open for writing over a protected one. The agent is
/// woken, long before it counts by itself.
fn a_file_that_is_open_when_it_gets_a_protected_name_is_found() {
    const BY_RENAME: &str =
        "write(2) by a descriptor of a file that was renamed to a protected name afterwards";
    const BY_LINK: &str =
        "write(2) by a descriptor of a file that was linked to a protected name afterwards";
    const BY_DIRECTORY: &str = "write(2) by a descriptor of a file whose directory was renamed to a protected name afterwards";
    let host = Host::new();
    lay_out(&host);
    let policy = tree(&host.path("protected"));
    let mut attacks = Attacks::default();
    let dir = host.path("open");
    let moves: [(&str, &dyn Fn()); 3] = [
        (BY_RENAME, &|| std::fs::rename(dir.join("1"), host.path("protected/file")).unwrap()),
        (BY_LINK, &|| std::fs::hard_link(dir.join("1"), host.path("protected/link")).unwrap()),
        (BY_DIRECTORY, &|| std::fs::rename(&dir, host.path("protected/dir")).unwrap()),
    ];
    let attacker = || {
        std::fs::create_dir_all(&dir).unwrap();
        // The former one may have a protected name, too.
        let _ = std::fs::remove_file(dir.join("1"));
        std::fs::write(dir.join("1"), "content").unwrap();
        let mut attacker = host.test_process();
        follow(&mut attacker, &[&format!("keep-open {}", dir.join("1").display())]);
        attacker
    };
    for (name, _) in moves {
        attacks.without(name, &mut attacker(), "write-kept 1");
    }
    let builder = Sentinel::builder("test");
    let builder = builder.watch_every(Duration::from_secs(3600));
    let sentinel = builder.start(&policy).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, get_protected) in moves {
        // Writes are not checked any more.
        sentinel.apply(&policy).unwrap();
        assert!(sentinel.status().unwrap().preopened.is_empty());
        let mut attacker = attacker();
        follow(&mut attacker, &["write-kept 2"]);
        // This process is the agent, and exempt.
        get_protected();
        let (renamed, patience) = (Instant::now(), Instant::now() + PATIENCE);
        while attacker.ask("write-kept 2").unwrap() == 0 {
            assert!(Instant::now() < patience, "{name}");
        }
        println!("{name}: {:?}", renamed.elapsed());
        let event = attacks.with(name, &mut attacker, "write-kept 2", &events);
        assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
        while sentinel.status().unwrap().preopened.is_empty() {
            assert!(Instant::now() < patience, "{name}");
        }
    }
}

/// Whether the program that checks writes is attached.
fn checks_writes() -> bool {
    let programs = ProgInfoIter::default();
    let programs: BTreeSet<_> = programs
        .filter(|program| program.name.as_encoded_bytes() == b"ic_file_permiss")
        .map(|program| program.id)
        .collect();
    LinkInfoIter::default().any(|link| programs.contains(&link.prog_id))
}

/// Kernel threads write for loop devices and acct(2) without a hook.
fn kernel_threads_that_write_are_not_set_up_and_reported() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let file = host.path("protected/file");
    let give = "give-kept-to-loop set /dev/loop7";
    let by_loops = [
        ("give a pre-opened descriptor to a loop device", give),
        (
            "give a pre-opened descriptor to a loop device by LOOP_CONFIGURE",
            "give-kept-to-loop configure /dev/loop7",
        ),
    ];
    let (by_acct, account) = (
        "start acct(2) with a protected file",
        format!("account {}", host.path("protected/log").display()),
    );
    std::fs::write(host.path("protected/log"), "").unwrap();
    follow(&mut attacker, &[&format!("keep-open {}", file.display())]);
    for (name, order) in by_loops {
        attacks.without(name, &mut attacker, order);
    }
    attacks.without(by_acct, &mut attacker, &account);
    let sentinel = host.start(&tree(&host.path("protected")));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // What was started before goes on, and is reported.
    assert_eq!(held(&sentinel), [("log".to_owned(), 1)]);
    for (name, order) in by_loops {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileIoctl, "{event}");
    }
    follow(&mut attacker, &["account off"]);
    attacks.with(by_acct, &mut attacker, &account, &events);
    // Without pre-opened descriptors loop devices are set up.
    drop(attacker);
    let mut attacker = host.test_process();
    sentinel.apply(&tree(&host.path("elsewhere"))).unwrap();
    assert_eq!(held(&sentinel), []);
    follow(&mut attacker, &[&format!("keep-open {}", file.display()), give]);
}

/// A descriptor of the loop device below a protected file is in a socket's queue.
fn devices_that_are_open_without_a_descriptor_are_not_written() {
    let host = Host::new();
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let device = "/dev/loop6";
    follow(
        &mut attacker,
        &[
            &format!("tool losetup {device} {}", image.display()),
            &format!("tool mke2fs -F -t ext4 {device}"),
            &format!("tool mount -t ext4 {device} {}", volume.display()),
            &format!("keep-open {device}"),
        ],
    );
    let name = "write to the loop device of a protected file by a descriptor that was in flight";
    attacks.without(name, &mut attacker, "write-kept 1");
    follow(&mut attacker, &["queue-kept"]);
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let sentinel = host.start(&tree(&protected));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(held(&sentinel), [("7:6".to_owned(), 1)]);
    follow(&mut attacker, &["receive-kept"]);
    let event = attacks.with(name, &mut attacker, "write-kept 2", &events);
    assert_eq!(event.hook, SentinelHook::FilePermission, "{event}");
    drop(attacker);
    sentinel.apply(&tree(&protected)).unwrap();
    assert_eq!(held(&sentinel), []);
    drop(sentinel);
    let mut attacker = host.test_process();
    follow(
        &mut attacker,
        &[&format!("tool umount {}", volume.display()), &format!("tool losetup -d {device}")],
    );
}
