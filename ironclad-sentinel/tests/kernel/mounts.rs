//! Mounts over what is guarded and below it, and those who decide on what is opened there.

use std::path::Path;

use crate::testbed::successor::{builder, policy};
use crate::testbed::{Attacks, Host, lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_sentinel::{Overflow, Sentinel};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_root_of_the_agents_namespace_is_not_replaced).shared().in_machine().needs(&[lsm]),
        test!(nothing_is_mounted_over_what_is_guarded).shared().in_machine().needs(&[lsm]),
        test!(a_mount_does_not_go_with_its_directory).shared().in_machine().needs(&[lsm]),
        test!(mounts_that_share_with_guarded_ones_are_no_way_around)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(a_host_that_shares_its_mounts_goes_on).shared().in_machine().needs(&[lsm]),
        test!(pins_do_not_go_with_a_mount_that_shares).in_machine().needs(&[lsm]),
        test!(others_have_no_say_in_what_is_opened).in_machine().needs(&[lsm]),
    ]
}

/// Of whoever has the same root, the agent with them, all paths lead elsewhere afterwards.
fn the_root_of_the_agents_namespace_is_not_replaced() {
    let host = Host::new();
    let mut attacks = Attacks::default();
    let root = host.path("root");
    std::fs::create_dir(&root).unwrap();
    // The machine's own root has no mount around it, as pivot_root(2) wants it: a copy has.
    let ready = || {
        let mut attacker = host.test_process();
        for order in [
            format!("tool mount --rbind / {}", root.display()),
            format!("chroot {}", root.display()),
            "chdir /".to_owned(),
            "mkdir /new".to_owned(),
            "tool mount -t tmpfs none /new".to_owned(),
            "mkdir /new/root".to_owned(),
            "tool mount -t tmpfs none /new/root".to_owned(),
            "mkdir /new/root/old".to_owned(),
        ] {
            does(&mut attacker, &order);
        }
        attacker
    };
    let away = || {
        let mut cleaner = host.test_process();
        does(&mut cleaner, &format!("tool umount -l {}", root.display()));
        does(&mut cleaner, "rmdir /new");
    };
    let (name, order) =
        ("exchange the root in the agent's namespace", "tool pivot_root /new/root /new/root/old");
    let mut attacker = ready();
    attacks.without(name, &mut attacker, order);
    assert_eq!(attacker.ask("list /old/new").unwrap(), 0, "it has another root");
    drop(attacker);
    away();
    let mut attacker = ready();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let event = attacks.with(name, &mut attacker, order, &events);
    assert_eq!(event.hook, SentinelHook::SbPivotroot, "{event}");
    // In a namespace of one's own it is nobody's business.
    does(&mut attacker, "apart mounts");
    does(&mut attacker, order);
    drop((sentinel, attacker));
    away();
}

fn nothing_is_mounted_over_what_is_guarded() {
    let host = Host::new();
    let [volume, elsewhere] = ["volume", "elsewhere"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    });
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let own = format!("tool mount -t tmpfs none {volume}");
    let guarded = format!("{volume}/guarded");
    std::fs::write(format!("{elsewhere}/file"), "2").unwrap();
    let mount_own = |attacker: &mut TestProcess| {
        assert_eq!(attacker.ask(&own).unwrap(), 0);
        std::fs::create_dir_all(format!("{guarded}/sub")).unwrap();
        std::fs::write(format!("{guarded}/sub/file"), "1").unwrap();
    };
    mount_own(&mut attacker);
    // Newer tools mount by fsopen(2) and move_mount(2).
    let mounts = &[SentinelHook::SbMount, SentinelHook::MoveMount][..];
    let over = [
        ("mount over a guarded tree", format!("tool mount -t tmpfs none {guarded}")),
        (
            "mount over a directory in a guarded tree",
            format!("tool mount -t tmpfs none {guarded}/sub"),
        ),
        ("mount over what lies around a guarded tree", own.clone()),
        (
            "bind a directory over a guarded tree",
            format!("tool mount --bind {elsewhere} {guarded}"),
        ),
        (
            "bind a file over a guarded file",
            format!("tool mount --bind {elsewhere}/file {guarded}/sub/file"),
        ),
    ];
    for (name, order) in &over {
        attacks.without(name, &mut attacker, order);
        let at = order.rsplit(' ').next().unwrap();
        assert_eq!(attacker.ask(&format!("tool umount {at}")).unwrap(), 0, "{order}");
    }
    let bind = format!("tool mount --bind {volume} {elsewhere}");
    let by_bind = [
        (
            "append to a guarded file by another mount",
            format!("append {elsewhere}/guarded/sub/file"),
        ),
        ("unlink a guarded file by another mount", format!("unlink {elsewhere}/guarded/sub/file")),
    ];
    assert_eq!(attacker.ask(&bind).unwrap(), 0);
    for (name, order) in &by_bind {
        attacks.without(name, &mut attacker, order);
    }
    assert_eq!(attacker.ask(&format!("tool umount {elsewhere}")).unwrap(), 0);
    std::fs::write(format!("{guarded}/sub/file"), "1").unwrap();
    // Each has to be undone by another order.
    let remount = format!("tool mount -o remount,ro {volume}");
    let away = [
        (
            "remount what a guarded tree lies on",
            remount,
            format!("tool mount -o remount,rw {volume}"),
        ),
        (
            "move the mount that a guarded tree lies on",
            format!("tool mount --move {volume} {elsewhere}"),
            format!("tool mount --move {elsewhere} {volume}"),
        ),
        ("unmount what a guarded tree lies on", format!("tool umount {volume}"), String::new()),
        (
            "unmount lazily what a guarded tree lies on",
            format!("tool umount -l {volume}"),
            String::new(),
        ),
    ];
    for (name, order, undo) in &away {
        attacks.without(name, &mut attacker, order);
        match undo.as_str() {
            "" => mount_own(&mut attacker),
            undo => assert_eq!(attacker.ask(undo).unwrap(), 0, "{undo}"),
        }
    }
    let policy = Policy::builder()
        .file_rule(FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&guarded))
        .compile()
        .unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in &over {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert!(mounts.contains(&event.hook), "{name}: {event}");
    }
    for (name, order, _) in &away {
        let event = attacks.with(name, &mut attacker, order, &events);
        let is_there = mounts.contains(&event.hook) || event.hook == SentinelHook::SbUmount;
        assert!(is_there, "{name}: {event}");
    }
    // With it, everything below would go.
    assert_ne!(attacker.ask("tool umount -l /tmp").unwrap(), 0);
    assert_eq!(std::fs::read_to_string(format!("{guarded}/sub/file")).unwrap(), "1");
    // Elsewhere, and in another namespace, everybody may.
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    assert_eq!(ask(&format!("tool mount -t tmpfs none {elsewhere}")), 0);
    assert_eq!(ask(&format!("tool umount {elsewhere}")), 0);
    // By another mount, it is covered all the same.
    assert_eq!(ask(&bind), 0);
    for (name, order) in &by_bind {
        attacks.with(name, &mut attacker, order, &events);
    }
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    assert_eq!(ask(&format!("tool umount {elsewhere}")), 0);
    drop(sentinel);
    assert_eq!(ask(&format!("tool umount {volume}")), 0);
}

/// Where nothing is mounted on it, in another namespace, a directory can be removed and renamed: then a mount
/// goes from all namespaces, or along.
fn a_mount_does_not_go_with_its_directory() {
    let host = Host::new();
    let (volume, gone) = (host.path("volume"), host.path("gone"));
    let file = volume.join("guarded/file");
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (at, to) = (volume.display(), gone.display());
    let tried = [
        ("remove the directory below a mount elsewhere", format!("rmdir {at}"), "InodeRmdir"),
        ("rename the directory below a mount elsewhere", format!("mv {at} {to}"), "InodeRename"),
    ]
    .map(|(name, command, hook)| {
        let script = host.path(hook);
        let text = format!("mount --make-rprivate /; umount {at} && exec {command}\n");
        std::fs::write(&script, text).unwrap();
        (name, format!("tool unshare -m sh {}", script.display()), hook)
    });
    let mount = |attacker: &mut TestProcess| {
        std::fs::create_dir_all(&volume).unwrap();
        does(attacker, &format!("tool mount -t tmpfs none {at}"));
        std::fs::create_dir(volume.join("guarded")).unwrap();
        std::fs::write(&file, "1").unwrap();
    };
    for (name, order, _) in &tried {
        mount(&mut attacker);
        attacks.without(name, &mut attacker, order);
        assert!(!file.exists(), "{name}: it is there still");
    }
    does(&mut attacker, &format!("tool umount {to}"));
    std::fs::remove_dir(&gone).unwrap();
    mount(&mut attacker);
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(volume.join("guarded"));
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order, hook) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(format!("{:?}", event.hook), *hook, "{name}: {event}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1", "{name}");
    }
    drop(sentinel);
    does(&mut attacker, &format!("tool umount {at}"));
}

/// A call that this kernel does not have.
const ENOSYS: u64 = 38;

fn does(test_process: &mut TestProcess, order: &str) {
    assert_eq!(test_process.ask(order).unwrap(), 0, "{order}");
}

/// What is mounted on a mount, or unmounted from it, is so on those that share that, too.
fn mounts_that_share_with_guarded_ones_are_no_way_around() {
    let host = Host::new();
    let at = |name: &str| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let [shared, private, peer, copy, junk] = ["shared", "private", "peer", "copy", "junk"].map(at);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    // On one, a guarded tree, and another mount with one.
    let volume = format!("{shared}/volume");
    for dir in [&shared, &private, &junk] {
        does(&mut attacker, &format!("tool mount -t tmpfs none {dir}"));
    }
    does(&mut attacker, &format!("tool mount --make-shared {shared}"));
    for dir in [format!("{shared}/tree"), format!("{private}/tree"), volume.clone()] {
        std::fs::create_dir(dir).unwrap();
    }
    let mount_volume = |attacker: &mut TestProcess| {
        does(attacker, &format!("tool mount -t tmpfs none {volume}"));
        std::fs::create_dir(format!("{volume}/guarded")).unwrap();
        std::fs::write(format!("{volume}/guarded/file"), "1").unwrap();
    };
    mount_volume(&mut attacker);
    for dir in [&shared, &private] {
        std::fs::write(format!("{dir}/tree/file"), "1").unwrap();
    }
    std::fs::create_dir(format!("{junk}/copy")).unwrap();
    let is_there = |dir: &str| Path::new(dir).join("file").exists();
    let (guarded, trees) = (format!("{volume}/guarded"), [&shared, &private]);

    let over = "mount over a guarded tree by a mount that shares";
    let over_order = format!("tool mount -t tmpfs none {peer}/tree");
    let late = "mount over a guarded tree by a mount that came to share";
    // Each by a copy that is made for it.
    let away = [
        (
            "unmount what a guarded tree lies on from a mount that shares",
            format!("show {shared} {copy}"),
            format!("tool umount {copy}/volume"),
            format!("tool umount {copy}"),
        ),
        (
            "unmount lazily a copy of what lies around a guarded tree",
            format!("show {shared} {copy}"),
            format!("tool umount -l {copy}"),
            String::new(),
        ),
        (
            "unmount lazily what such a copy lies on",
            format!("show {shared} {junk}/copy"),
            format!("tool umount -l {junk}"),
            format!("tool mount -t tmpfs none {junk}"),
        ),
    ];
    does(&mut attacker, &format!("tool mount --bind {shared} {peer}"));
    attacks.without(over, &mut attacker, &over_order);
    assert!(!is_there(&format!("{shared}/tree")));
    does(&mut attacker, &format!("tool umount {peer}/tree"));
    does(&mut attacker, &format!("tool umount {peer}"));
    // Who shares by mount(2) is asked, and so shares by another call, where there is one.
    let share = format!("share-mount {private}");
    let has_call = attacker.ask(&share).unwrap() != ENOSYS;
    let bind = format!("tool mount --bind {private} {peer}");
    if has_call {
        does(&mut attacker, &bind);
        attacks.without(late, &mut attacker, &over_order);
        assert!(!is_there(&format!("{private}/tree")));
        does(&mut attacker, &format!("tool umount {peer}/tree"));
        does(&mut attacker, &format!("tool umount {peer}"));
        does(&mut attacker, &format!("tool mount --make-private {private}"));
    } else {
        println!("not tried: mount_setattr(2), which this kernel has not");
    }
    for (name, before, order, after) in &away {
        does(&mut attacker, before);
        attacks.without(name, &mut attacker, order);
        assert!(!is_there(&guarded), "{name}");
        if !after.is_empty() {
            does(&mut attacker, after);
        }
        mount_volume(&mut attacker);
    }
    std::fs::create_dir(format!("{junk}/copy")).unwrap();

    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&guarded);
    let rule = trees.iter().fold(rule, |rule, dir| rule.tree(format!("{dir}/tree")));
    let policy = Policy::builder().file_rule(rule).compile().unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let mounts = [SentinelHook::SbMount, SentinelHook::MoveMount];
    does(&mut attacker, &format!("tool mount --bind {shared} {peer}"));
    let event = attacks.with(over, &mut attacker, &over_order, &events);
    assert!(mounts.contains(&event.hook), "{event}");
    does(&mut attacker, &format!("tool umount {peer}"));
    if has_call {
        does(&mut attacker, &share);
        does(&mut attacker, &bind);
        let event = attacks.with(late, &mut attacker, &over_order, &events);
        assert!(mounts.contains(&event.hook), "{event}");
        does(&mut attacker, &format!("tool umount {peer}"));
    }
    for (name, before, order, _) in &away {
        does(&mut attacker, before);
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::SbUmount, "{name}: {event}");
        // As it was, by a copy whose parent shares no more.
        let top = before.rsplit(' ').next().unwrap();
        does(&mut attacker, &format!("tool mount --make-rprivate {top}"));
        does(&mut attacker, &format!("tool umount -l {top}"));
    }
    for dir in trees.map(|dir| format!("{dir}/tree")).iter().chain([&guarded]) {
        assert!(is_there(dir), "{dir}");
    }
    drop(sentinel);
    for dir in [&volume, &shared, &private, &junk] {
        does(&mut attacker, &format!("tool umount {dir}"));
    }
}

/// Service managers let all mounts of a host be shared.
fn a_host_that_shares_its_mounts_goes_on() {
    let host = Host::new();
    let [guarded, elsewhere, other] = ["guarded", "elsewhere", "other"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    });
    std::fs::write(format!("{guarded}/file"), "1").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (over, order) = (
        "mount over a guarded tree of a host that shares its mounts",
        format!("tool mount -t tmpfs none {guarded}"),
    );
    does(&mut attacker, "tool mount --make-rshared /");
    attacks.without(over, &mut attacker, &order);
    does(&mut attacker, &format!("tool umount {guarded}"));
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&guarded);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    attacks.with(over, &mut attacker, &order, &events);
    // What others do with their mounts, and with copies of these.
    for order in [
        format!("tool mount -t tmpfs none {elsewhere}"),
        format!("mkdir {elsewhere}/sub"),
        format!("tool mount -t tmpfs none {elsewhere}/sub"),
        format!("tool mount --bind {elsewhere} {other}"),
        format!("tool umount {other}"),
        format!("tool umount -l {elsewhere}"),
        format!("tool mount --bind {} {elsewhere}", host.dir().display()),
        format!("tool umount {elsewhere}"),
        format!("tool mount --bind /proc {other}"),
        format!("tool umount {other}"),
        // And in a namespace of their own.
        "apart mounts".to_owned(),
        format!("tool mount -t tmpfs none {guarded}"),
        format!("tool umount {guarded}"),
        "tool umount -l /tmp".to_owned(),
    ] {
        does(&mut attacker, &order);
    }
    assert!(Path::new(&guarded).join("file").exists());
    drop(sentinel);
    does(&mut host.test_process(), "tool mount --make-rprivate /");
}

/// With bpffs all pins would go, of maps and of links.
fn pins_do_not_go_with_a_mount_that_shares() {
    const PINS: &str = "/sys/fs/bpf";
    let host = Host::new();
    std::fs::create_dir(host.path("guarded")).unwrap();
    let copy = host.path("copy");
    std::fs::create_dir(&copy).unwrap();
    let copy = copy.display();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let away = "unmount bpffs from a mount that shares with that which it is mounted on";
    let (show, order) = (format!("show /sys {copy}"), format!("tool umount {copy}/fs/bpf"));
    let marker = host.path("marker").display().to_string();
    let is_bpffs = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.lines().any(|line| line.split(' ').nth(4) == Some(PINS))
    };
    does(&mut attacker, "tool mount --make-shared /sys");
    does(&mut attacker, &show);
    attacks.without(away, &mut attacker, &order);
    assert!(!is_bpffs());
    // What is below stays where it was.
    does(&mut attacker, &format!("tool mount --make-rprivate {copy}"));
    does(&mut attacker, &format!("tool umount -l {copy}"));
    does(&mut attacker, &format!("tool mount -t bpf bpf {PINS}"));
    std::fs::write(&marker, "1").unwrap();
    assert!(is_bpffs());
    let sentinel = builder(host.dir()).start(&policy(host.dir())).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    does(&mut attacker, &show);
    let event = attacks.with(away, &mut attacker, &order, &events);
    assert_eq!(event.hook, SentinelHook::SbUmount, "{event}");
    assert!(is_bpffs());
    does(&mut attacker, &format!("tool mount --make-rprivate {copy}"));
    does(&mut attacker, &format!("tool umount -l {copy}"));
    assert!(is_bpffs());
    sentinel.stop().unwrap();
    does(&mut attacker, "tool mount --make-private /sys");
}

/// fanotify(7) asks others before a file is opened, and a lease lets whoever opens it wait.
fn others_have_no_say_in_what_is_opened() {
    const INODE: u32 = 0;
    const MOUNT: u32 = 0x10;
    const FILESYSTEM: u32 = 0x100;
    const OPEN: u32 = 0x20;
    const OPEN_PERM: u32 = 0x1_0000;
    const ACCESS_PERM: u32 = 0x2_0000;
    const OPEN_EXEC_PERM: u32 = 0x4_0000;
    let host = Host::new();
    let [volume, elsewhere] = ["volume", "elsewhere"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    });
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    for dir in [&volume, &elsewhere] {
        does(&mut attacker, &format!("tool mount -t tmpfs none {dir}"));
    }
    let file = format!("{volume}/file");
    std::fs::write(&file, "1").unwrap();
    let decide = |what: u32, mask: u32, path: &str| format!("decide-on-opens {what} {mask} {path}");
    let own = std::env::current_exe().unwrap().display().to_string();
    let tried = [
        ("decide on opens of a guarded file", decide(INODE, OPEN_PERM, &file)),
        ("decide on opens by a mount with a guarded file", decide(MOUNT, OPEN_PERM, &volume)),
        (
            "decide on opens on a file system with a guarded file",
            decide(FILESYSTEM, OPEN_PERM, &volume),
        ),
        ("decide on reads of a guarded file", decide(INODE, ACCESS_PERM, &file)),
        ("decide on who executes the agent", decide(INODE, OPEN_EXEC_PERM, &own)),
        ("decide on opens of what the kernel tells", decide(FILESYSTEM, OPEN_PERM, "/sys")),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let (leased, lease) = ("lease a guarded file", format!("lease {file}"));
    // It is leased until they end.
    attacks.without(leased, &mut host.test_process(), &lease);
    let scanner = host.program("scanner");
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).file(&file);
    let policy = Policy::builder().file_rule(rule).compile().unwrap();
    let sentinel = Sentinel::builder("test").scratch(host.dir()).may_stop(&scanner);
    let sentinel = sentinel.start(&policy).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::PathNotify, "{name}: {event}");
    }
    let event = attacks.with(leased, &mut attacker, &lease, &events);
    assert_eq!(event.hook, SentinelHook::FileLock, "{event}");
    // Who only wants to know may, and of other files everybody decides; a scanner does of these.
    does(&mut attacker, &decide(FILESYSTEM, OPEN, &volume));
    does(&mut attacker, &decide(FILESYSTEM, OPEN_PERM, &elsewhere));
    let mut scanner = host.test_process_by(&scanner);
    for (_, order) in &tried {
        does(&mut scanner, order);
    }
    drop(sentinel);
    for dir in [&volume, &elsewhere] {
        does(&mut attacker, &format!("tool umount {dir}"));
    }
}
