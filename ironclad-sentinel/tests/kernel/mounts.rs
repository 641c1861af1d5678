//! Mounts over and below protected files, and permission events of fanotify(7).

use std::path::Path;
use std::sync::mpsc;

use crate::testbed::successor::{builder, policy};
use crate::testbed::{Attacks, Host, PATIENCE, does, lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::{SentinelHook, SentinelVerdict};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_sentinel::{Alarm, Degraded, Overflow, Sentinel};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_root_of_the_agents_namespace_is_not_replaced).shared().in_machine().needs(&[lsm]),
        test!(nothing_is_mounted_over_protected_files).shared().in_machine().needs(&[lsm]),
        test!(a_mount_stays_when_its_mount_point_is_removed_elsewhere)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(shared_peer_mounts_do_not_bypass_protection).shared().in_machine().needs(&[lsm]),
        test!(a_host_with_shared_mounts_works).shared().in_machine().needs(&[lsm]),
        test!(a_mount_in_an_entered_namespace_is_reported).shared().in_machine().needs(&[lsm]),
        test!(a_mount_that_no_hook_refuses_is_reported).in_machine().needs(&[lsm]),
        test!(pins_stay_when_a_shared_peer_mount_is_unmounted).in_machine().needs(&[lsm]),
        test!(fanotify_permission_events_are_refused).in_machine().needs(&[lsm]),
    ]
}

/// pivot_root(2) changes the root directory of every process that has the old one, the agent included.
fn the_root_of_the_agents_namespace_is_not_replaced() {
    let host = Host::new();
    let mut attacks = Attacks::default();
    let root = host.path("root");
    std::fs::create_dir(&root).unwrap();
    // pivot_root(2) needs a root with a parent mount, which the machine's root lacks and a copy has.
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
        ("pivot_root(2) in the agent's mount namespace", "tool pivot_root /new/root /new/root/old");
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
    // In another mount namespace it is allowed.
    does(&mut attacker, "apart mounts");
    does(&mut attacker, order);
    drop((sentinel, attacker));
    away();
}

fn nothing_is_mounted_over_protected_files() {
    let host = Host::new();
    let [volume, elsewhere] = ["volume", "elsewhere"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    });
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let own = format!("tool mount -t tmpfs none {volume}");
    let protected = format!("{volume}/protected");
    std::fs::write(format!("{elsewhere}/file"), "2").unwrap();
    let mount_own = |attacker: &mut TestProcess| {
        assert_eq!(attacker.ask(&own).unwrap(), 0);
        std::fs::create_dir_all(format!("{protected}/sub")).unwrap();
        std::fs::write(format!("{protected}/sub/file"), "1").unwrap();
    };
    mount_own(&mut attacker);
    // Newer tools mount by fsopen(2) and move_mount(2).
    let mounts = &[SentinelHook::SbMount, SentinelHook::MoveMount][..];
    let over = [
        ("mount over a protected tree", format!("tool mount -t tmpfs none {protected}")),
        (
            "mount over a directory in a protected tree",
            format!("tool mount -t tmpfs none {protected}/sub"),
        ),
        ("mount over the parent of a protected tree", own.clone()),
        (
            "bind a directory over a protected tree",
            format!("tool mount --bind {elsewhere} {protected}"),
        ),
        (
            "bind a file over a protected file",
            format!("tool mount --bind {elsewhere}/file {protected}/sub/file"),
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
            "append to a protected file through a bind mount",
            format!("append {elsewhere}/protected/sub/file"),
        ),
        (
            "unlink a protected file through a bind mount",
            format!("unlink {elsewhere}/protected/sub/file"),
        ),
    ];
    assert_eq!(attacker.ask(&bind).unwrap(), 0);
    for (name, order) in &by_bind {
        attacks.without(name, &mut attacker, order);
    }
    assert_eq!(attacker.ask(&format!("tool umount {elsewhere}")).unwrap(), 0);
    std::fs::write(format!("{protected}/sub/file"), "1").unwrap();
    // Each with the order that undoes it.
    let remount = format!("tool mount -o remount,ro {volume}");
    let away = [
        (
            "remount the mount of a protected tree",
            remount,
            format!("tool mount -o remount,rw {volume}"),
        ),
        (
            "move the mount of a protected tree",
            format!("tool mount --move {volume} {elsewhere}"),
            format!("tool mount --move {elsewhere} {volume}"),
        ),
        ("unmount the mount of a protected tree", format!("tool umount {volume}"), String::new()),
        (
            "lazily unmount the mount of a protected tree",
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
        .file_rule(FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected))
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
    // The mount of the protected tree is below.
    assert_ne!(attacker.ask("tool umount -l /tmp").unwrap(), 0);
    assert_eq!(std::fs::read_to_string(format!("{protected}/sub/file")).unwrap(), "1");
    // Mounts on other directories are allowed.
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    assert_eq!(ask(&format!("tool mount -t tmpfs none {elsewhere}")), 0);
    assert_eq!(ask(&format!("tool umount {elsewhere}")), 0);
    // Files are covered through a bind mount.
    assert_eq!(ask(&bind), 0);
    for (name, order) in &by_bind {
        attacks.with(name, &mut attacker, order, &events);
    }
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    assert_eq!(ask(&format!("tool umount {elsewhere}")), 0);
    drop(sentinel);
    assert_eq!(ask(&format!("tool umount {volume}")), 0);
}

/// A mount point can be removed or renamed in a mount namespace where nothing is mounted on it. The kernel then
/// detaches or moves the mount in all namespaces.
fn a_mount_stays_when_its_mount_point_is_removed_elsewhere() {
    let host = Host::new();
    let (volume, gone) = (host.path("volume"), host.path("gone"));
    let file = volume.join("protected/file");
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (at, to) = (volume.display(), gone.display());
    let tried = [
        ("remove a mount point in another mount namespace", format!("rmdir {at}"), "InodeRmdir"),
        ("rename a mount point in another mount namespace", format!("mv {at} {to}"), "InodeRename"),
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
        std::fs::create_dir(volume.join("protected")).unwrap();
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
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(volume.join("protected"));
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

/// Mounts propagate between shared peers: a mount or unmount below one happens below all.
fn shared_peer_mounts_do_not_bypass_protection() {
    let host = Host::new();
    let at = |name: &str| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let [shared, private, peer, copy, junk] = ["shared", "private", "peer", "copy", "junk"].map(at);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    // The shared mount has a protected tree, and a mount with another.
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
        std::fs::create_dir(format!("{volume}/protected")).unwrap();
        std::fs::write(format!("{volume}/protected/file"), "1").unwrap();
    };
    mount_volume(&mut attacker);
    for dir in [&shared, &private] {
        std::fs::write(format!("{dir}/tree/file"), "1").unwrap();
    }
    std::fs::create_dir(format!("{junk}/copy")).unwrap();
    let is_there = |dir: &str| Path::new(dir).join("file").exists();
    let (protected, trees) = (format!("{volume}/protected"), [&shared, &private]);

    let over = "mount over a protected tree through a shared peer mount";
    let over_order = format!("tool mount -t tmpfs none {peer}/tree");
    // The kernel takes the first of several flags.
    let flagged =
        "mount over a protected tree through a shared peer mount, with MS_BIND and MS_SHARED";
    let flagged_order = format!("bind-as-shared {private} {peer}/tree");
    let late = "mount over a protected tree through a mount that became shared";
    // Each through a copy that is made for it.
    let away = [
        (
            "unmount the mount of a protected tree through a shared peer mount",
            format!("show {shared} {copy}"),
            format!("tool umount {copy}/volume"),
            format!("tool umount {copy}"),
        ),
        (
            "lazily unmount a bind mount of the parent of a protected tree",
            format!("show {shared} {copy}"),
            format!("tool umount -l {copy}"),
            String::new(),
        ),
        (
            "lazily unmount the mount below a bind mount of the parent of a protected tree",
            format!("show {shared} {junk}/copy"),
            format!("tool umount -l {junk}"),
            format!("tool mount -t tmpfs none {junk}"),
        ),
    ];
    does(&mut attacker, &format!("tool mount --bind {shared} {peer}"));
    attacks.without(over, &mut attacker, &over_order);
    assert!(!is_there(&format!("{shared}/tree")));
    does(&mut attacker, &format!("tool umount {peer}/tree"));
    attacks.without(flagged, &mut attacker, &flagged_order);
    assert!(!is_there(&format!("{shared}/tree")));
    does(&mut attacker, &format!("tool umount {peer}/tree"));
    does(&mut attacker, &format!("tool umount {peer}"));
    // A hook checks mount(2) that makes a mount shared, but not mount_setattr(2).
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
        println!("not tested: this kernel has no mount_setattr(2)");
    }
    for (name, before, order, after) in &away {
        does(&mut attacker, before);
        attacks.without(name, &mut attacker, order);
        assert!(!is_there(&protected), "{name}");
        if !after.is_empty() {
            does(&mut attacker, after);
        }
        mount_volume(&mut attacker);
    }
    std::fs::create_dir(format!("{junk}/copy")).unwrap();

    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let rule = trees.iter().fold(rule, |rule, dir| rule.tree(format!("{dir}/tree")));
    let policy = Policy::builder().file_rule(rule).compile().unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let mounts = [SentinelHook::SbMount, SentinelHook::MoveMount];
    does(&mut attacker, &format!("tool mount --bind {shared} {peer}"));
    for (name, order) in [(over, &over_order), (flagged, &flagged_order)] {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert!(mounts.contains(&event.hook), "{event}");
    }
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
        // Undone after the copy has become private.
        let top = before.rsplit(' ').next().unwrap();
        does(&mut attacker, &format!("tool mount --make-rprivate {top}"));
        does(&mut attacker, &format!("tool umount -l {top}"));
    }
    for dir in trees.map(|dir| format!("{dir}/tree")).iter().chain([&protected]) {
        assert!(is_there(dir), "{dir}");
    }
    drop(sentinel);
    for dir in [&volume, &shared, &private, &junk] {
        does(&mut attacker, &format!("tool umount {dir}"));
    }
}

/// Service managers make all mounts of a host shared.
fn a_host_with_shared_mounts_works() {
    let host = Host::new();
    let [protected, elsewhere, other] = ["protected", "elsewhere", "other"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path.display().to_string()
    });
    std::fs::write(format!("{protected}/file"), "1").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (over, order) = (
        "mount over a protected tree on a host with shared mounts",
        format!("tool mount -t tmpfs none {protected}"),
    );
    does(&mut attacker, "tool mount --make-rshared /");
    attacks.without(over, &mut attacker, &order);
    does(&mut attacker, &format!("tool umount {protected}"));
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    attacks.with(over, &mut attacker, &order, &events);
    // Mounts of other directories, and copies of them.
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
        // In another mount namespace.
        "apart mounts".to_owned(),
        format!("tool mount -t tmpfs none {protected}"),
        format!("tool umount {protected}"),
        "tool umount -l /tmp".to_owned(),
    ] {
        does(&mut attacker, &order);
    }
    assert!(Path::new(&protected).join("file").exists());
    drop(sentinel);
    does(&mut host.test_process(), "tool mount --make-rprivate /");
}

/// A mount in another namespace is allowed, and changes what processes there find.
fn a_mount_in_an_entered_namespace_is_reported() {
    let host = Host::new();
    let outer = host.path("outer");
    let (protected, elsewhere) = (outer.join("protected"), host.path("elsewhere"));
    std::fs::create_dir_all(protected.join("own")).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(protected.join("file"), "1").unwrap();
    let (mut service, mut attacker) = (host.test_process(), host.test_process());
    does(&mut service, "apart mounts");
    // The orders' thread alone is in that namespace, and so is its child.
    let enter = format!("tool nsenter -m -t {}", service.ask("idle-child").unwrap());
    let mount = |at: &Path| format!("{enter} mount -t tmpfs none {}", at.display());
    let unmount = |at: &Path| format!("{enter} umount {}", at.display());
    let read = format!("read {}", protected.join("file").display());
    does(&mut attacker, &mount(&protected));
    assert_ne!(service.ask(&read).unwrap(), 0, "the service finds another directory");
    does(&mut attacker, &unmount(&protected));
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // What a service mounts before anything enters its namespace is not reported, nor is a mount elsewhere.
    let own = protected.join("own").display().to_string();
    does(&mut service, &format!("tool mount -t tmpfs none {own}"));
    does(&mut service, &format!("tool umount {own}"));
    does(&mut attacker, &mount(&elsewhere));
    does(&mut attacker, &unmount(&elsewhere));
    for at in [&protected, &outer] {
        does(&mut attacker, &mount(at));
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        assert_eq!(event.verdict, SentinelVerdict::Logged, "{event}");
        assert!([SentinelHook::SbMount, SentinelHook::MoveMount].contains(&event.hook), "{event}");
        let name = at.file_name().unwrap();
        assert!(event.path.as_ref().is_some_and(|path| path.ends_with(name)), "{event}");
        assert_ne!(service.ask(&read).unwrap(), 0, "the service finds another directory");
        does(&mut attacker, &unmount(at));
    }
    drop(sentinel);
}

/// The kernel finds the mount point after the hook. A file system of FUSE has it wait between.
fn a_mount_that_no_hook_refuses_is_reported() {
    let host = Host::new();
    let [volume, evil, place, fuse] = ["volume", "evil", "place", "fuse"].map(|name| {
        let path = host.path(name);
        std::fs::create_dir(&path).unwrap();
        path
    });
    let [volume_at, evil_at, place_at, fuse_at] =
        [&volume, &evil, &place, &fuse].map(|path| path.display());
    let protected = volume.join("protected");
    let mut attacker = host.test_process();
    attacker.ask("tool modprobe fuse").unwrap();
    for order in [
        format!("tool mount -t tmpfs none {volume_at}"),
        format!("tool mount --make-shared {volume_at}"),
        format!("mkdir {}", protected.display()),
        format!("write {}/file genuine", protected.display()),
        format!("write {evil_at}/file forged"),
    ] {
        does(&mut attacker, &order);
    }
    let read = || std::fs::read_to_string(protected.join("file")).unwrap();
    let order = format!("bind-late {evil_at} {place_at} {} {fuse_at}", protected.display());
    // What hides what is unmounted first. The agent may.
    let undo = || {
        for at in [&place, &place, &fuse] {
            unmount(at, UnmountFlags::DETACH).unwrap();
        }
    };
    does(&mut attacker, &order);
    assert_eq!(read(), "forged");
    undo();
    assert_eq!(read(), "genuine");

    let (sender, alarms) = mpsc::channel();
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let policy = Policy::builder().file_rule(rule).compile().unwrap();
    let sentinel = Sentinel::builder("mounts")
        .on_alarm(move |alarm| sender.send(alarm.clone()).unwrap())
        .start(&policy)
        .unwrap();
    assert_eq!(sentinel.status().unwrap().degraded, []);
    does(&mut attacker, &order);
    assert_eq!(read(), "forged");
    let alarm = alarms.recv_timeout(PATIENCE).unwrap();
    let Alarm::MountOver(mount) = &alarm else { panic!("{alarm}") };
    assert_eq!(mount.at, protected);
    sentinel.refresh().unwrap();
    let is_it = |it: &Degraded| *it == Degraded::MountOver(mount.clone());
    assert!(sentinel.status().unwrap().degraded.iter().any(is_it));
    undo();
    assert_eq!(sentinel.status().unwrap().degraded, []);
    // One of the agent's own, which it accepts by applying the policy again.
    mount_bind(&evil, &protected).unwrap();
    assert_eq!(sentinel.status().unwrap().degraded.len(), 1);
    sentinel.apply(&policy).unwrap();
    assert_eq!(sentinel.status().unwrap().degraded, []);
    drop(sentinel);
    does(&mut attacker, &format!("tool umount {}", protected.display()));
    does(&mut attacker, &format!("tool umount {volume_at}"));
}

/// Without the mount of bpffs, the pins of maps and links cannot be opened.
fn pins_stay_when_a_shared_peer_mount_is_unmounted() {
    const PINS: &str = "/sys/fs/bpf";
    let host = Host::new();
    std::fs::create_dir(host.path("protected")).unwrap();
    let copy = host.path("copy");
    std::fs::create_dir(&copy).unwrap();
    let copy = copy.display();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let away = "unmount bpffs through a shared peer mount";
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
    // The mounts below stay.
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

/// A process that answers fanotify(7) permission events, or has a lease, delays or denies opens.
fn fanotify_permission_events_are_refused() {
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
        (
            "answer fanotify permission events for opens of a protected file",
            decide(INODE, OPEN_PERM, &file),
        ),
        (
            "answer fanotify permission events for opens on the mount of a protected file",
            decide(MOUNT, OPEN_PERM, &volume),
        ),
        (
            "answer fanotify permission events for opens on the file system of a protected file",
            decide(FILESYSTEM, OPEN_PERM, &volume),
        ),
        (
            "answer fanotify permission events for reads of a protected file",
            decide(INODE, ACCESS_PERM, &file),
        ),
        (
            "answer fanotify permission events for execution of the agent",
            decide(INODE, OPEN_EXEC_PERM, &own),
        ),
        (
            "answer fanotify permission events for opens on sysfs",
            decide(FILESYSTEM, OPEN_PERM, "/sys"),
        ),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let (leased, lease) = ("take a lease on a protected file", format!("lease {file}"));
    // The lease ends with the process.
    attacks.without(leased, &mut host.test_process(), &lease);
    let scanner = host.program("scanner");
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).file(&file);
    let policy = Policy::builder().file_rule(rule).compile().unwrap();
    let sentinel = Sentinel::builder("test").may_stop(&scanner);
    let sentinel = sentinel.start(&policy).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::PathNotify, "{name}: {event}");
    }
    let event = attacks.with(leased, &mut attacker, &lease, &events);
    assert_eq!(event.hook, SentinelHook::FileLock, "{event}");
    // Notification events, and permission events of other files, are allowed. A scanner may answer all.
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
