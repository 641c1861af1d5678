//! Mounts over procfs and sysfs, which show the agent what an attacker wants it to see.

use std::path::Path;

use crate::testbed::successor::{Successor, policy};
use crate::testbed::{Attacks, EPERM, Host, lsm};
use ironclad_core::abi::SentinelHook;
use ironclad_core::{ErrorChain, RuleId};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_sentinel::{Overflow, Sentinel};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_covered_sysfs_hides_no_backing_file).shared().in_machine().needs(&[lsm]),
        test!(a_forged_procfs_is_not_believed).shared().in_machine().needs(&[lsm]),
        test!(other_mounts_below_procfs_and_sysfs_work).shared().in_machine().needs(&[lsm]),
        test!(a_start_with_covered_kernel_files_is_refused).in_machine().needs(&[lsm]),
        test!(procfs_stays_mounted).shared().in_machine().needs(&[lsm]),
    ]
}

const BLOCK: &str = "/sys/dev/block";

fn does(test_process: &mut TestProcess, order: &str) {
    assert_eq!(test_process.ask(order).unwrap(), 0, "{order}");
}

/// Why a refresh fails.
fn refused(sentinel: &Sentinel) -> String {
    ErrorChain::new(&sentinel.refresh().unwrap_err()).to_string()
}

/// The backing file of a loop device is found by /sys/dev/block.
fn a_covered_sysfs_hides_no_backing_file() {
    let host = Host::new();
    let at = |name: &str| host.path(name).display().to_string();
    let (image, volume, empty) = (at("image"), at("volume"), at("empty"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    for dir in [&volume, &empty] {
        std::fs::create_dir(dir).unwrap();
    }
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    does(&mut attacker, &format!("tool losetup /dev/loop0 {image}"));
    does(&mut attacker, "tool mke2fs -F -t ext4 /dev/loop0");
    does(&mut attacker, &format!("tool mount -t ext4 /dev/loop0 {volume}"));
    let protected = format!("{volume}/protected");
    std::fs::create_dir(&protected).unwrap();
    let tried = [
        ("bind an empty directory over /sys/dev/block", format!("--bind {empty} {BLOCK}")),
        ("mount over /sys/dev/block", format!("-t tmpfs none {BLOCK}")),
        (
            "mount over the directory of a loop device in sysfs",
            "-t tmpfs none /sys/devices/virtual/block/loop0/loop".to_owned(),
        ),
        ("mount over the types of the kernel (BTF)", "-t tmpfs none /sys/kernel/btf".to_owned()),
        ("mount over /sys", "-t tmpfs none /sys".to_owned()),
    ]
    .map(|(name, what)| (name, format!("tool mount {what}")));
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
        does(&mut attacker, &format!("tool umount {}", order.rsplit(' ').next().unwrap()));
    }
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let write = format!("open-to-write {image}");
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        let is_mount = matches!(event.hook, SentinelHook::SbMount | SentinelHook::MoveMount);
        assert!(is_mount, "{name}: {event}");
        sentinel.refresh().unwrap();
        assert_eq!(attacker.ask(&write).unwrap(), EPERM, "{name}");
    }
    // What a trusted process mounts is not believed either.
    mount_bind(&empty, BLOCK).unwrap();
    let said = refused(&sentinel);
    unmount(BLOCK, UnmountFlags::empty()).unwrap();
    assert!(said.contains("/sys/dev/block is covered by a mount"), "{said}");
    assert_eq!(attacker.ask(&write).unwrap(), EPERM);
    sentinel.refresh().unwrap();
    drop(sentinel);
    does(&mut attacker, &format!("tool umount {volume}"));
    does(&mut attacker, "tool losetup -d /dev/loop0");
}

/// Protected mounts are found by /proc/self/mountinfo.
fn a_forged_procfs_is_not_believed() {
    let host = Host::new();
    let at = |name: &str| host.path(name).display().to_string();
    let (volume, forged) = (at("volume"), at("mountinfo"));
    std::fs::write(&forged, "1 0 0:1 / / rw - rootfs none rw\n").unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    does(&mut attacker, &format!("tool mount -t tmpfs none {volume}"));
    let protected = format!("{volume}/protected");
    std::fs::create_dir(&protected).unwrap();
    let own = format!("/proc/{}", std::process::id());
    let tried = [
        ("mount over /proc", "mount -t tmpfs none /proc".to_owned(), "umount /proc".to_owned()),
        (
            "mount over the agent's directory of procfs",
            format!("mount -t tmpfs none {own}"),
            format!("umount {own}"),
        ),
        (
            "bind a forged file over the agent's mountinfo",
            format!("mount --bind {forged} {own}/mountinfo"),
            format!("umount {own}/mountinfo"),
        ),
        (
            "bind a file over /proc/devices",
            format!("mount --bind {forged} /proc/devices"),
            "umount /proc/devices".to_owned(),
        ),
        (
            "hide processes of other users in procfs by remount",
            "mount -o remount,hidepid=2 /proc".to_owned(),
            "mount -o remount,hidepid=0 /proc".to_owned(),
        ),
    ];
    for (name, order, undo) in &tried {
        attacks.without(name, &mut attacker, &format!("tool {order}"));
        does(&mut attacker, &format!("tool {undo}"));
    }
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let mut holds = |what: &str| {
        for order in [format!("mount -t tmpfs none {protected}"), format!("umount -l {volume}")] {
            assert_ne!(attacker.ask(&format!("tool {order}")).unwrap(), 0, "{what}: {order}");
        }
    };
    let mut other = host.test_process();
    for (name, order, _) in &tried {
        attacks.with(name, &mut other, &format!("tool {order}"), &events);
        sentinel.refresh().unwrap();
        holds(name);
    }
    // What a trusted process mounts is not believed either.
    mount("none", "/proc", "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::create_dir("/proc/self").unwrap();
    std::fs::copy(&forged, "/proc/self/mountinfo").unwrap();
    let said = refused(&sentinel);
    unmount("/proc", UnmountFlags::empty()).unwrap();
    assert!(said.contains("/proc is not procfs"), "{said}");
    holds("a mount of a trusted process");
    let mountinfo = format!("{own}/mountinfo");
    mount_bind(&forged, &mountinfo).unwrap();
    let said = refused(&sentinel);
    unmount(&mountinfo, UnmountFlags::empty()).unwrap();
    assert!(said.contains("mountinfo is covered by a mount"), "{said}");
    sentinel.refresh().unwrap();
    drop(sentinel);
    does(&mut attacker, &format!("tool umount {volume}"));
}

/// Service managers and containers mount file systems there.
fn other_mounts_below_procfs_and_sysfs_work() {
    let host = Host::new();
    let other = host.path("other");
    std::fs::create_dir(&other).unwrap();
    let other = other.display();
    let mut process = host.test_process();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let places = [
        "/sys/kernel/debug",
        "/sys/kernel/config",
        "/sys/fs/ext4",
        "/sys/firmware",
        "/proc/fs/ext4",
        "/proc/sys/fs/binfmt_misc",
    ];
    let places: Vec<_> = places.into_iter().filter(|at| Path::new(at).exists()).collect();
    assert!(places.len() >= 3, "{places:?}");
    for at in places {
        does(&mut process, &format!("tool mount -t tmpfs none {at}"));
        does(&mut process, &format!("tool umount {at}"));
    }
    for order in [
        // A container's procfs, which hides some files.
        format!("tool mount -t proc none {other}"),
        format!("tool mount -t tmpfs none {other}/sys"),
        format!("tool umount {other}/sys"),
        format!("tool umount {other}"),
        // In another mount namespace.
        "apart mounts".to_owned(),
        format!("tool mount -t tmpfs none {BLOCK}"),
        "tool mount -t tmpfs none /proc/sys".to_owned(),
        "tool umount -l /sys".to_owned(),
        "tool mount -t sysfs none /sys".to_owned(),
    ] {
        does(&mut process, &order);
    }
    drop(sentinel);
}

/// libbpf reads the kernel's types and the number of CPUs by their paths.
fn a_start_with_covered_kernel_files_is_refused() {
    const TYPES: &str = "/sys/kernel/btf/vmlinux";
    let host = Host::new();
    let dir = host.dir();
    let (forged, number) = (host.path("forged"), host.path("number"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::copy(TYPES, &forged).unwrap();
    std::fs::write(&number, "0\n").unwrap();
    let starts = || {
        // Found by /proc.
        let command = Successor::command(dir);
        move || Successor::start(command).says()
    };
    for (what, at) in [(&forged, TYPES), (&number, "/sys/devices/system/cpu/possible")] {
        let start = starts();
        mount_bind(what, at).unwrap();
        let said = start();
        unmount(at, UnmountFlags::empty()).unwrap();
        assert!(said.contains(&format!("{at} is covered by a mount")), "{said}");
    }
    let start = starts();
    mount("none", "/proc", "tmpfs", MountFlags::empty(), None).unwrap();
    let said = start();
    unmount("/proc", UnmountFlags::empty()).unwrap();
    assert!(said.contains("/proc is not procfs: mount procfs there"), "{said}");
    // Nothing is left behind.
    let sentinel = Sentinel::builder("test").start(&policy(dir)).unwrap();
    drop(sentinel);
}

/// The last test here: the procfs that is mounted again is not the one that the agent has open.
fn procfs_stays_mounted() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (name, order) = ("lazily unmount /proc", "tool umount -l /proc");
    attacks.without(name, &mut attacker, order);
    assert!(!Path::new("/proc/self").exists());
    does(&mut attacker, "tool mount -t proc proc /proc");
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let event = attacks.with(name, &mut attacker, order, &events);
    assert_eq!(event.hook, SentinelHook::SbUmount, "{event}");
    assert!(Path::new("/proc/self").exists());
    drop(sentinel);
}
