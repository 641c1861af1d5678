//! What file systems add of their own: shared blocks on XFS, inode numbers that are used again.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use crate::testbed::{
    Attacks, EPERM, Host, PATIENCE, does, held_names, lsm, silent_server, unchanged,
};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::warnings;
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_sentinel::{Alarm, Degraded, Overflow, Sentinel, SentinelErrorKind};
use rustix::mount::{UnmountFlags, unmount as unmount_at};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(files_on_xfs_are_protected).shared().in_machine().needs(&[lsm]),
        test!(xfs_handles_do_not_change_protected_files).shared().in_machine().needs(&[lsm]),
        test!(cachefiles_does_not_use_a_protected_tree).shared().in_machine().needs(&[lsm]),
        test!(blocks_do_not_move_to_or_from_a_protected_file).shared().in_machine().needs(&[lsm]),
        test!(files_in_case_folding_directories_are_refused).shared().in_machine().needs(&[lsm]),
        test!(external_logs_and_journals_are_protected).shared().in_machine().needs(&[lsm]),
        test!(names_of_devices_of_xfs_stop_nothing).shared().in_machine().needs(&[lsm]),
        test!(files_on_a_loop_device_over_a_device_are_refused).shared().in_machine().needs(&[lsm]),
        test!(files_on_ublk_are_refused).shared().in_machine().needs(&[lsm]),
        test!(files_on_btrfs_are_refused).shared().in_machine().needs(&[lsm]),
        test!(files_on_a_network_block_device_are_refused).shared().in_machine().needs(&[lsm]),
        test!(swap_of_protected_files_is_reported).in_machine().needs(&[lsm]),
        test!(a_reused_inode_number_is_another_file).shared().in_machine().needs(&[lsm]),
    ]
}

/// Root writes to what the kernel has swapped out of a tmpfs: no hook sees that a file changes so.
fn swap_of_protected_files_is_reported() {
    const SWAP: &str = "/dev/loop6";
    let host = Host::new();
    let (volume, back) = (host.path("volume"), host.path("back"));
    std::fs::create_dir(&volume).unwrap();
    File::create(&back).unwrap().set_len(4 << 20).unwrap();
    let mut attacker = host.test_process();
    for order in [
        format!("tool mount -t tmpfs none {}", volume.display()),
        format!("tool losetup {SWAP} {}", back.display()),
        format!("tool mkswap {SWAP}"),
    ] {
        does(&mut attacker, &order);
    }
    std::fs::write(volume.join("file"), "1").unwrap();
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).file(volume.join("file"));
    let (sender, alarms) = mpsc::channel();
    let sentinel = Sentinel::builder("test")
        .on_alarm(move |alarm| sender.send(alarm.clone()).unwrap())
        .start(&Policy::builder().file_rule(rule).compile().unwrap())
        .unwrap();
    let swapped = || sentinel.status().unwrap().degraded;
    assert_eq!(swapped(), []);
    for _ in 0..2 {
        does(&mut attacker, &format!("tool swapon {SWAP}"));
        let alarm = alarms.recv_timeout(PATIENCE).unwrap();
        assert_eq!(alarm, Alarm::Swap { at: volume.clone() });
        assert_eq!(swapped(), [Degraded::Swap { at: volume.clone() }]);
        does(&mut attacker, &format!("tool swapoff {SWAP}"));
        assert_eq!(swapped(), []);
    }
    drop(sentinel);
    for order in [format!("tool losetup -d {SWAP}"), format!("tool umount {}", volume.display())] {
        does(&mut attacker, &order);
    }
}

const DEVICE: &str = "/dev/loop0";
const EXT4: &str = "mke2fs -F -t ext4 -N 64";
/// A small one, of which every kernel of the matrix knows all features.
const XFS: &str = "mkfs.xfs --unsupported -q -f -m bigtime=0,inobtcount=0,reflink=1 -i nrext64=0";

/// A file system on a loop device, with the directories `protected` and `open`.
fn mount(host: &Host, attacker: &mut TestProcess, make: &str) -> [PathBuf; 2] {
    let (image, volume) = (host.path("image"), host.path("volume"));
    File::create(&image).unwrap().set_len(32 << 20).unwrap();
    std::fs::create_dir_all(&volume).unwrap();
    does(attacker, &format!("tool {make} {}", image.display()));
    does(attacker, &format!("tool losetup {DEVICE} {}", image.display()));
    does(attacker, &format!("tool mount {DEVICE} {}", volume.display()));
    ["protected", "open"].map(|name| {
        let path = volume.join(name);
        std::fs::create_dir(&path).unwrap();
        path
    })
}

fn unmount(host: &Host) {
    let mut tool = host.test_process();
    does(&mut tool, &format!("tool umount {}", host.path("volume").display()));
    does(&mut tool, &format!("tool losetup -d {DEVICE}"));
}

/// Files of XFS share blocks, and ioctl(2) exchanges them.
fn files_on_xfs_are_protected() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let [protected, open] = mount(&host, &mut attacker, XFS);
    let at = |dir: &Path, name: &str| dir.join(name).display().to_string();
    let [file, twin, single] = ["file", "twin", "single"].map(|name| at(&protected, name));
    let [source, same] = ["source", "same"].map(|name| at(&open, name));
    for (path, byte) in
        [(&file, b'1'), (&twin, b'2'), (&single, b'1'), (&source, b'3'), (&same, b'2')]
    {
        std::fs::write(path, [byte; 4096]).unwrap();
    }
    does(&mut attacker, &format!("keep-open {file}"));
    let deduplicate = format!("deduplicate {same} {twin}");
    let tried = [
        ("FICLONE to a pre-opened descriptor", format!("clone-to-kept {source}")),
        ("FICLONERANGE to a pre-opened descriptor", format!("clone-range-to-kept {source}")),
        ("copy_file_range(2) to a pre-opened descriptor on XFS", format!("copy-to-kept {source}")),
        ("XFS_IOC_SWAPEXT with a pre-opened descriptor", format!("swap-extents-to-kept {source}")),
        ("FIDEDUPERANGE to a protected file by a read-only descriptor", deduplicate.clone()),
        ("append to a protected file on XFS", format!("append {file}")),
        ("open a protected file on XFS by its file handle", format!("open-by-handle {file}")),
        ("chattr a protected file on XFS", format!("chattr {single}")),
        ("rename over a protected file on XFS", format!("rename {file} {single}")),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    std::fs::rename(&single, &file).unwrap();
    std::fs::write(&single, "1").unwrap();
    drop(attacker);
    let mut attacker = host.test_process();
    does(&mut attacker, &format!("keep-open {file}"));
    let content = std::fs::read(&file).unwrap();
    let sentinel = host.start(&unchanged(&protected));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    assert_eq!(std::fs::read(&file).unwrap(), content);
    // FICLONE between files that no rule protects.
    drop(attacker);
    let mut attacker = host.test_process();
    does(&mut attacker, &format!("keep-open {same}"));
    does(&mut attacker, &format!("clone-to-kept {source}"));
    assert_eq!(std::fs::read(&same).unwrap(), std::fs::read(&source).unwrap());
    // Without pre-opened descriptors, writes are not checked, and the content stays as it is.
    std::fs::write(&same, std::fs::read(&twin).unwrap()).unwrap();
    sentinel.apply(&unchanged(&protected)).unwrap();
    does(&mut attacker, &deduplicate);
    assert_eq!(std::fs::read(&twin).unwrap(), [b'2'; 4096]);
    drop(attacker);
    drop(sentinel);
    unmount(&host);
}

/// cachefiles asks for its directory whether it may create names there, and not for the names.
fn cachefiles_does_not_use_a_protected_tree() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    if attacker.ask("tool modprobe cachefiles").unwrap() != 0 {
        skip("this kernel has no module `cachefiles`");
    }
    let [protected, open] = mount(&host, &mut attacker, "mke2fs -F -t ext4");
    let script = host.path("bind");
    let bind = "exec 3<>/dev/cachefiles\n\
                printf \"dir $1\" >&3 && printf 'tag x' >&3 && printf 'bind' >&3\n";
    std::fs::write(&script, bind).unwrap();
    let order = |dir: &Path| format!("tool sh {} {}", script.display(), dir.display());
    let name = "have cachefiles create directories in a protected tree";
    attacks.without(name, &mut attacker, &order(&open));
    let sentinel = host.start(&unchanged(&protected));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // Nothing in the tree was used since the rule: no walk to the root is cached.
    let event = attacks.with(name, &mut attacker, &order(&protected), &events);
    assert_eq!(event.hook, SentinelHook::InodeMkdir, "{event}");
    // The walk that is cached now is that of the tree.
    let mkdir = format!("mkdir {}/plain", protected.display());
    assert_eq!(attacker.ask(&mkdir).unwrap(), EPERM);
    drop(sentinel);
    drop(attacker);
    unmount(&host);
}

/// ioctl(2) of XFS names files by handles of its own.
fn xfs_handles_do_not_change_protected_files() {
    const ENOTTY: u64 = 25;
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let [protected, open] = mount(&host, &mut attacker, XFS);
    let (file, other) = (protected.join("file"), open.join("other"));
    for path in [&file, &other] {
        std::fs::write(path, "1").unwrap();
    }
    let [file, other, open] = [&file, &other, &open].map(|path| path.display());
    let tried = [
        (
            "open a protected file to write by XFS_IOC_OPEN_BY_HANDLE",
            format!("open-by-xfs-handle {file} {open}"),
        ),
        (
            "set an attribute of a protected file by XFS_IOC_ATTRMULTI_BY_HANDLE",
            format!("change-attribute {file} {open}"),
        ),
    ];
    let secret = (
        "read a protected file by XFS_IOC_OPEN_BY_HANDLE with the flag of execve(2)",
        format!("read-as-executed {file} {open}"),
    );
    // XFS_IOC_FSSETDM_BY_HANDLE, which has the number of FITRIM.
    let state = format!("command {open} 40405879 00");
    assert_eq!(attacker.ask(&state).unwrap(), ENOTTY);
    for (name, order) in tried.iter().chain([&secret]) {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = host.start(&unchanged(&protected));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    does(&mut attacker, &secret.1);
    // Reading is denied, executing is not.
    let rule = FileRule::new(RuleId(1), "secret", FileAction::Deny).tree(&protected);
    let unread = Policy::builder().file_rule(rule.operations(FileOps::READ));
    sentinel.apply(&unread.compile().unwrap()).unwrap();
    attacks.with(secret.0, &mut attacker, &secret.1, &events);
    // Another file by its handle.
    does(&mut attacker, &format!("open-by-xfs-handle {other} {open}"));
    drop(sentinel);
    drop(attacker);
    unmount(&host);
}

/// e4defrag(8) has ext4 exchange the blocks of two files: the other file gets the content.
fn blocks_do_not_move_to_or_from_a_protected_file() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let [protected, open] = mount(&host, &mut attacker, "mke2fs -F -t ext4 -b 4096");
    let (file, other) = (protected.join("file"), open.join("other"));
    let fill = || {
        for (path, byte) in [(&file, b'1'), (&other, b'2')] {
            std::fs::write(path, [byte; 4096]).unwrap();
            File::open(path).unwrap().sync_all().unwrap();
        }
    };
    let tried = [
        (
            "move blocks of another file to a protected file by a pre-opened descriptor",
            format!("move-extents-to-kept {}", other.display()),
        ),
        (
            "move blocks of a protected file to another by a pre-opened descriptor",
            format!("give-extents-to-kept {}", other.display()),
        ),
    ];
    // The cache has the former content.
    let is_kept = || {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
        std::fs::read(&file).unwrap() == [b'1'; 4096]
    };
    fill();
    does(&mut attacker, &format!("keep-open {}", file.display()));
    for ((name, order), keeps) in tried.iter().zip([false, true]) {
        fill();
        attacks.without(name, &mut attacker, order);
        assert_eq!(is_kept(), keeps, "{name}");
    }
    fill();
    let sentinel = host.start(&unchanged(&protected));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileIoctl, "{name}: {event}");
    }
    assert!(is_kept());
    drop(sentinel);
    drop(attacker);
    unmount(&host);
}

/// Names that differ in case alone lead to one file.
fn files_in_case_folding_directories_are_refused() {
    let host = Host::new();
    if !Path::new("/sys/fs/ext4/features/casefold").exists() {
        skip("ext4 of this kernel has no case folding");
    }
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let make = "mke2fs -F -t ext4 -O casefold -E encoding=utf8";
    let [protected, open] = mount(&host, &mut attacker, make);
    // FS_IOC_SETFLAGS: EXT4_CASEFOLD_FL and EXT4_EXTENTS_FL.
    let fold = |dir: &Path| format!("command {} 40086602 00000840", dir.display());
    for dir in [&protected, &open] {
        does(&mut attacker, &fold(dir));
    }
    std::fs::write(open.join("there"), "1").unwrap();
    let file = protected.join("file");
    let tried = [
        (
            "append to a file in a case-folding tree by a name in another case",
            format!("append {}", protected.join("FILE").display()),
        ),
        (
            "create a file in a case-folding tree by a name in another case",
            format!("create {}", protected.join("ABSENT").display()),
        ),
    ];
    std::fs::write(&file, "1").unwrap();
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    std::fs::remove_file(protected.join("absent")).unwrap();
    let sentinel = host.start(&unchanged(&protected));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // A file is covered by one name.
    for name in ["there", "absent"] {
        let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).file(open.join(name));
        let rule = rule.operations(FileOps::CHANGE);
        let policy = Policy::builder().file_rule(rule).compile().unwrap();
        let error = sentinel.apply(&policy).unwrap_err();
        assert_eq!(error.kind(), SentinelErrorKind::Path);
        assert!(error.to_string().contains("whose names are the same in upper"), "{error}");
    }
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    drop(sentinel);
    drop(attacker);
    unmount(&host);
}

/// Creates files until one has this inode number. XFS frees inodes in the background.
fn create_numbered(dir: &Path, wanted: u64) -> Option<PathBuf> {
    (0..8).find_map(|_| create_all(dir, wanted))
}

/// Creates as many files as there is room for, at most 512, and removes all but that with this number.
fn create_all(dir: &Path, wanted: u64) -> Option<PathBuf> {
    let made = (0..512).map_while(|number| {
        let path = dir.join(format!("{wanted}-{number}"));
        File::create(&path).ok().map(|_| path)
    });
    let mut made = made.collect::<Vec<_>>();
    let found = made.iter().position(|path| path.metadata().unwrap().ino() == wanted);
    let found = found.map(|at| made.swap_remove(at));
    made.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    found
}

/// A file with the inode number of a protected one that is gone is neither protected, nor takes its place.
fn a_reused_inode_number_is_another_file() {
    for (kind, make) in [("ext4", EXT4), ("XFS", XFS)] {
        let host = Host::new();
        let mut attacker = host.test_process();
        let [protected, _] = mount(&host, &mut attacker, make);
        // XFS takes inodes near the directory: this one is in the allocation group of `protected`.
        let open = host.path("volume");
        let [by_agent, by_others] = ["agent", "others"].map(|name| protected.join(name));
        for path in [&by_agent, &by_others] {
            std::fs::write(path, "1").unwrap();
        }
        let number = |path: &Path| path.metadata().unwrap().ino();
        let (first, second) = (number(&by_agent), number(&by_others));
        let sentinel = host.start(&unchanged(&protected));
        // Removed while the rule is in force, and between two policies that have it.
        std::fs::remove_file(&by_agent).unwrap();
        let one = create_numbered(&open, first).unwrap_or_else(|| panic!("{kind}: no {first}"));
        does(&mut attacker, &format!("append {}", one.display()));
        sentinel.apply(&Policy::builder().compile().unwrap()).unwrap();
        does(&mut attacker, &format!("unlink {}", by_others.display()));
        let two = create_numbered(&open, second).unwrap_or_else(|| panic!("{kind}: no {second}"));
        sentinel.apply(&unchanged(&protected)).unwrap();
        for path in [&one, &two] {
            does(&mut attacker, &format!("append {}", path.display()));
        }
        sentinel.refresh().unwrap();
        for (path, name) in [(&one, &by_agent), (&two, &by_others)] {
            let (path, name) = (path.display(), name.display());
            does(&mut attacker, &format!("chmod {path}"));
            assert_eq!(attacker.ask(&format!("rename {path} {name}")).unwrap(), EPERM, "{kind}");
            assert_eq!(attacker.ask(&format!("link {path} {name}")).unwrap(), EPERM, "{kind}");
        }
        std::fs::rename(&one, &by_agent).unwrap();
        let append = format!("append {}", by_agent.display());
        assert_eq!(attacker.ask(&append).unwrap(), EPERM, "{kind}");
        drop(sentinel);
        drop(attacker);
        unmount(&host);
    }
}

/// The kernel writes what a log or journal on another device has to the file system.
fn external_logs_and_journals_are_protected() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (volume, log) = (host.path("volume"), "/dev/loop1");
    std::fs::create_dir_all(&volume).unwrap();
    for (image, device) in [("image", DEVICE), ("log", log)] {
        let image = host.path(image);
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        does(&mut attacker, &format!("tool losetup {device} {}", image.display()));
    }
    let on_xfs = [
        format!("{XFS} -l logdev={log} {DEVICE}"),
        format!("mount -t xfs -o logdev={log} {DEVICE} {}", volume.display()),
    ];
    let on_ext4 = [
        format!("mke2fs -F -b 4096 -O journal_dev {log}"),
        format!("mke2fs -F -b 4096 -t ext4 -J device={log} {DEVICE}"),
        format!("mount -t ext4 {DEVICE} {}", volume.display()),
    ];
    for (name, tools) in [
        ("write to the external log of XFS with protected files", &on_xfs[..]),
        ("write to the external journal of ext4 with protected files", &on_ext4[..]),
    ] {
        for tool in tools {
            does(&mut attacker, &format!("tool {tool}"));
        }
        let order = format!("open-to-write {log}");
        attacks.without(name, &mut attacker, &order);
        let protected = volume.join("protected");
        std::fs::create_dir(&protected).unwrap();
        let sentinel = host.start(&unchanged(&protected));
        let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
        // The file system has it open.
        assert_eq!(held_names(&sentinel), Vec::<String>::new());
        attacks.with(name, &mut attacker, &order, &events);
        drop(sentinel);
        does(&mut attacker, &format!("tool umount {}", volume.display()));
    }
    for device in [DEVICE, log] {
        does(&mut attacker, &format!("tool losetup -d {device}"));
    }
}

/// Root mounts XFS by any names of its devices, which may lead to a server later.
fn names_of_devices_of_xfs_stop_nothing() {
    let host = Host::new();
    let [volume, links, protected] = ["volume", "links", "protected"].map(|name| host.path(name));
    for dir in [&volume, &links, &protected] {
        std::fs::create_dir(dir).unwrap();
    }
    let (mut attacker, log) = (host.test_process(), "/dev/loop1");
    attacker.ask("tool modprobe fuse").unwrap();
    for (image, device) in [("image", DEVICE), ("log", log)] {
        let image = host.path(image);
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        does(&mut attacker, &format!("tool losetup {device} {}", image.display()));
    }
    let name = links.join("log");
    std::os::unix::fs::symlink(log, &name).unwrap();
    does(&mut attacker, &format!("tool {XFS} -l logdev={log} {DEVICE}"));
    let (name, at) = (name.display(), volume.display());
    does(&mut attacker, &format!("tool mount -t xfs -o logdev={name} {DEVICE} {at}"));
    let server = silent_server(&links);
    // Of no protected file's file system, then of one.
    let sentinel = host.start(&unchanged(&protected));
    sentinel.refresh().unwrap();
    let inside = volume.join("protected");
    std::fs::create_dir(&inside).unwrap();
    let ((), said) = warnings(|| sentinel.apply(&unchanged(&inside)).unwrap());
    let why = "a device of a mounted file system is not found by its name";
    assert!(said.contains(why) && said.contains("is on fuse"), "{said}");
    drop(sentinel);
    drop(server);
    unmount_at(&links, UnmountFlags::DETACH).unwrap();
    does(&mut attacker, &format!("tool umount {at}"));
    for device in [DEVICE, log] {
        does(&mut attacker, &format!("tool losetup -d {device}"));
    }
}

/// The server of the device changes its blocks, and no hook is called.
fn files_on_a_network_block_device_are_refused() {
    let host = Host::new();
    let (mut server, volume) = (host.test_process(), host.path("volume"));
    if server.ask("tool modprobe nbd").unwrap() != 0 {
        skip("the machine has no module nbd");
    }
    let image = host.path("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir_all(volume.join("elsewhere")).unwrap();
    does(&mut server, &format!("serve-nbd /dev/nbd0 {}", image.display()));
    let mut tool = host.test_process();
    // The device has its size once the connection is there.
    let make = "tool mke2fs -F -t ext4 /dev/nbd0";
    let patience = Instant::now() + PATIENCE;
    while tool.ask(make).unwrap() != 0 {
        assert!(Instant::now() < patience);
    }
    does(&mut tool, &format!("tool mount -t ext4 /dev/nbd0 {}", volume.display()));
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let error = sentinel.apply(&unchanged(&protected)).unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::Path);
    assert!(error.to_string().contains("has files on nbd"), "{error}");
    drop(sentinel);
    does(&mut tool, &format!("tool umount {}", volume.display()));
}

/// The process that serves the device changes its blocks, and no hook is called.
fn files_on_ublk_are_refused() {
    let host = Host::new();
    let (mut server, mut tool, volume) =
        (host.test_process(), host.test_process(), host.path("volume"));
    if tool.ask("tool modprobe ublk_drv").unwrap() != 0 {
        skip("the machine has no module ublk_drv");
    }
    let image = host.path("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    does(&mut server, &format!("serve-ublk {}", image.display()));
    does(&mut tool, "tool mke2fs -F -t ext4 -b 4096 /dev/ublkb0");
    does(&mut tool, &format!("tool mount -t ext4 /dev/ublkb0 {}", volume.display()));
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let error = sentinel.apply(&unchanged(&protected)).unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::Path);
    assert!(error.to_string().contains("has files on ublk"), "{error}");
    drop(sentinel);
    does(&mut tool, &format!("tool umount {}", volume.display()));
}

/// Files of other file systems are not cloned to btrfs, whose own files cannot be protected.
fn files_on_btrfs_are_refused() {
    const EXDEV: u64 = 18;
    let host = Host::new();
    let mut attacker = host.test_process();
    if attacker.ask("tool modprobe btrfs").unwrap() != 0 {
        skip("the machine has no module btrfs");
    }
    let (image, volume, protected) =
        (host.path("image"), host.path("volume"), host.path("protected"));
    File::create(&image).unwrap().set_len(128 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    std::fs::create_dir(&protected).unwrap();
    does(&mut attacker, &format!("tool losetup {DEVICE} {}", image.display()));
    does(&mut attacker, &format!("tool mkfs.btrfs -q {DEVICE}"));
    does(&mut attacker, &format!("tool mount -t btrfs {DEVICE} {}", volume.display()));
    let [file, copy, source] = [protected.join("file"), volume.join("copy"), volume.join("source")];
    for path in [&file, &copy, &source] {
        std::fs::write(path, [b'1'; 4096]).unwrap();
    }
    let sentinel = host.start(&unchanged(&protected));
    for (kept, from) in [(&copy, &file), (&copy, &source)] {
        does(&mut attacker, &format!("keep-open {}", kept.display()));
        let clone = format!("clone-to-kept {}", from.display());
        let expected = if from == &file { EXDEV } else { 0 };
        assert_eq!(attacker.ask(&clone).unwrap(), expected, "{clone}");
    }
    let error = sentinel.apply(&unchanged(&volume)).unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::Path);
    assert!(error.to_string().contains("btrfs: snapshots share"), "{error}");
    drop(sentinel);
    drop(attacker);
    unmount(&host);
}

/// The loop device below does not hold the device: another process mounts it, too.
fn files_on_a_loop_device_over_a_device_are_refused() {
    let host = Host::new();
    let (image, volume, other) = (host.path("image"), host.path("volume"), host.path("other"));
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    for dir in [&volume, &other] {
        std::fs::create_dir(dir).unwrap();
    }
    let mut attacker = host.test_process();
    for order in [
        &format!("tool losetup /dev/loop1 {}", image.display()),
        "tool losetup /dev/loop2 /dev/loop1",
        "tool mke2fs -F -t ext4 /dev/loop2",
        &format!("tool mount -t ext4 /dev/loop2 {}", volume.display()),
        // The attack.
        &format!("tool mount -t ext4 /dev/loop1 {}", other.display()),
        &format!("tool umount {}", other.display()),
    ] {
        does(&mut attacker, order);
    }
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let error = sentinel.apply(&unchanged(&protected)).unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::Path);
    assert!(error.to_string().contains("over the block device `/dev/loop1`"), "{error}");
    drop(sentinel);
    for order in [
        &format!("tool umount {}", volume.display()),
        "tool losetup -d /dev/loop2",
        "tool losetup -d /dev/loop1",
    ] {
        does(&mut attacker, order);
    }
}
