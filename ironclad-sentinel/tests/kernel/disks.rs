//! Backing devices of file systems: disks, disk commands, mapped devices, backing files of loop devices.

use std::path::{Path, PathBuf};

use crate::testbed::{Attacks, EPERM, Host, PATIENCE, does, lsm, next_denied};
use ironclad_core::RuleId;
use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::{Test, skip, skip_part};
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{Overflow, Sentinel};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(disk_commands_do_not_write_below_protected_files).shared().in_machine().needs(&[lsm]),
        test!(preopened_descriptors_change_nothing_on_a_protected_disk)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(commands_by_another_partition_do_not_reach_a_protected_file)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(a_new_cgroup_hierarchy_does_not_throttle_a_protected_disk)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(a_protected_disk_is_not_exported).shared().in_machine().needs(&[lsm]),
        test!(backing_files_of_loop_devices_are_protected).shared().in_machine().needs(&[lsm]),
        test!(file_systems_with_protected_files_are_not_frozen).shared().in_machine().needs(&[lsm]),
        test!(file_system_commands_do_not_change_protected_files)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(a_protected_file_is_no_file_of_quotas).shared().in_machine().needs(&[lsm]),
        test!(a_protected_disk_does_not_discard_by_io_uring).shared().in_machine().needs(&[lsm]),
        test!(backing_disks_of_partitions_and_mapped_devices_are_protected)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(members_of_an_array_are_not_replaced).shared().in_machine().needs(&[lsm]),
        test!(modules_whose_path_is_unknown_do_not_load).shared().in_machine().needs(&[lsm]),
        test!(a_file_that_replaced_a_named_file_is_covered_by_its_handle)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(ext4_finds_no_error_on_demand).shared().in_machine().needs(&[lsm]),
        test!(options_allow_disk_commands_or_the_device_mapper).in_machine().needs(&[lsm]),
    ]
}

pub(crate) fn tree(path: &Path, ops: FileOps) -> CompiledPolicy {
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(path).operations(ops);
    Policy::builder().file_rule(rule).compile().unwrap()
}

pub(crate) fn follow(attacker: &mut TestProcess, orders: &[String]) {
    for order in orders {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
}

/// Waits until udev or devtmpfs has created the devices.
pub(crate) fn wait_for_devices(paths: &[&str]) {
    let news = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&news, "/dev", inotify::WatchFlags::CREATE).unwrap();
    let patience = Timespec::try_from(PATIENCE).unwrap();
    while !paths.iter().all(|path| Path::new(path).exists()) {
        let mut ready = [PollFd::new(&news, PollFlags::IN)];
        let count = poll(&mut ready, Some(&patience)).unwrap();
        assert_eq!(count, 1, "none of {paths:?}: has the machine scsi_debug?");
        rustix::io::read(&news, &mut [0; 4096]).unwrap();
    }
}

const BY_IOCTL: [(&str, &str); 5] = [
    ("write to the disk of a protected file by SCSI_IOCTL_SEND_COMMAND", "scsi-send /dev/sda"),
    ("write to the disk of a protected file by SG_IO", "scsi-write /dev/sda"),
    ("add a partition over the blocks of a protected file", "add-partition /dev/sda"),
    ("remove a partition from the disk of a protected file", "remove-partition /dev/sda"),
    ("change the read-only flag of the disk of a protected file", "set-writable /dev/sda"),
];
const BY_OPEN: [(&str, &str); 2] = [
    ("write to the disk of a protected file by /dev/sg0", "scsi-write /dev/sg0"),
    ("open the bsg device of the disk of a protected file", "open-to-read /dev/bsg/0:0:0:0"),
];

/// Mounts the SCSI disk, and creates a directory with a file there.
fn mount_disk(host: &Host, attacker: &mut TestProcess) -> PathBuf {
    let volume = host.path("volume");
    std::fs::create_dir(&volume).unwrap();
    wait_for_devices(&["/dev/sda", "/dev/sg0"]);
    follow(
        attacker,
        &[
            "tool mke2fs -F -t ext4 /dev/sda".to_owned(),
            format!("tool mount -t ext4 /dev/sda {}", volume.display()),
        ],
    );
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    std::fs::write(protected.join("file"), "1").unwrap();
    protected
}

/// Modules load where a rule surely denies changes of their file: not where the path to the root is unknown or too long.
fn modules_whose_path_is_unknown_do_not_load() {
    const MODULE: &str = "/lib/modules/dummy.ko";
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let protected = mount_disk(&host, &mut attacker);
    let volume = protected.parent().unwrap().to_owned();
    let (module, named) = (protected.join("module.ko"), volume.join("module.ko"));
    // Deeper than the walk from a file to the root.
    let halves = ["one", "two"].map(|name| {
        let steps = std::iter::repeat_n("d", 40);
        let half = steps.fold(volume.join(name), |path, step| path.join(step));
        std::fs::create_dir_all(&half).unwrap();
        half
    });
    std::fs::copy(MODULE, halves[1].join("module.ko")).unwrap();
    std::fs::rename(volume.join("two"), halves[0].join("two")).unwrap();
    let below = halves[1].strip_prefix(&volume).unwrap();
    let deep = halves[0].join(below).join("module.ko");
    for path in [&module, &named] {
        std::fs::copy(MODULE, path).unwrap();
    }
    // A file whose directories are not in memory is opened without them.
    let forget = || {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    };
    let remove = "tool rmmod dummy";
    does(&mut attacker, remove);
    does(&mut attacker, &format!("keep-handle {}", named.display()));
    let tried = [
        (
            "load a kernel module deeper than 64 directories",
            format!("insert-module {}", deep.display()),
        ),
        ("load a kernel module by a file handle", "insert-handle".to_owned()),
    ];
    for (name, order) in &tried {
        forget();
        attacks.without(name, &mut attacker, order);
        does(&mut attacker, remove);
    }
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        forget();
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::KernelReadFile, "{name}: {event}");
    }
    does(&mut attacker, &format!("insert-module {}", module.display()));
    // The attacker has a descriptor of the disk.
    drop((sentinel, attacker));
    does(&mut host.test_process(), &format!("tool umount {}", volume.display()));
}

/// A rule names a file, and the agent, as an exempt program may, replaces it. By its handle, while no name of it is in
/// memory, the new file has neither a label nor a name.
fn a_file_that_replaced_a_named_file_is_covered_by_its_handle() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let protected = mount_disk(&host, &mut attacker);
    let [file, new] = ["file", "new"].map(|name| protected.join(name));
    let keep = format!("keep-handle {}", file.display());
    let forget = || {
        rustix::fs::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    };
    let replace = || {
        std::fs::write(&new, "2").unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    let (name, order) = ("open by its handle a file that replaced a protected one", "open-handle");
    replace();
    does(&mut attacker, &keep);
    forget();
    attacks.without(name, &mut attacker, order);
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny);
    let rule = rule.file(&file).operations(FileOps::CHANGE);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    replace();
    does(&mut attacker, &keep);
    forget();
    let event = attacks.with(name, &mut attacker, order, &events);
    assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    // By its name, another file is not covered.
    std::fs::write(&new, "1").unwrap();
    does(&mut attacker, &format!("append {}", new.display()));
    does(&mut attacker, &format!("keep-handle {}", new.display()));
    does(&mut attacker, &format!("append {}", new.display()));
    does(&mut attacker, order);
    drop((sentinel, attacker));
    let umount = format!("tool umount {}", host.path("volume").display());
    does(&mut host.test_process(), &umount);
}

/// An error of the file system of protected files, after which it is read-only, by a file of sysfs.
fn ext4_finds_no_error_on_demand() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let protected = mount_disk(&host, &mut attacker);
    let (name, order) = (
        "have ext4 find an error on the disk of a protected file",
        "open-to-write /sys/fs/ext4/sda/trigger_fs_error",
    );
    attacks.without(name, &mut attacker, order);
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let event = attacks.with(name, &mut attacker, order, &events);
    assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    does(&mut attacker, "open-to-write /sys/fs/ext4/sda/mb_order2_req");
    drop(sentinel);
    does(&mut attacker, &format!("tool umount {}", protected.parent().unwrap().display()));
}

/// Root may send disk commands by a read-only descriptor.
fn disk_commands_do_not_write_below_protected_files() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let protected = mount_disk(&host, &mut attacker);
    for (name, order) in BY_IOCTL.into_iter().chain(BY_OPEN) {
        attacks.without(name, &mut attacker, order);
    }
    let allowed = [
        "open-to-read /dev/sda",
        "tool blockdev --getsize64 /dev/sda",
        "tool blockdev --flushbufs /dev/sda",
        "open-to-write /dev/null",
        "open-to-read /dev/tty0",
        "open-to-read /dev/urandom",
    ];
    let allowed: Vec<_> =
        allowed.into_iter().filter(|order| attacker.ask(order).unwrap() == 0).collect();
    assert!(allowed.len() >= 4, "{allowed:?}");
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in BY_IOCTL {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileIoctl, "{name}: {event}");
    }
    for (name, order) in BY_OPEN {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    for order in &allowed {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    // If no protected file is on a disk, disk commands are allowed.
    let elsewhere = host.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    sentinel.apply(&tree(&elsewhere, FileOps::CHANGE)).unwrap();
    for (_, order) in BY_IOCTL.into_iter().chain(BY_OPEN) {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    drop(sentinel);
    follow(&mut attacker, &[format!("tool umount {}", host.path("volume").display())]);
}

/// A disk takes commands by each of its partitions, and by what is mapped on these.
fn commands_by_another_partition_do_not_reach_a_protected_file() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let volume = host.path("volume");
    let (at, beside) = (volume.display(), host.path("beside"));
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(&beside, "0 2048 linear /dev/sda2 0\n").unwrap();
    wait_for_devices(&["/dev/sda"]);
    let disk = |bytes: &[u8]| {
        use std::os::unix::fs::FileExt;
        let disk = std::fs::OpenOptions::new().write(true).open("/dev/sda").unwrap();
        disk.write_all_at(bytes, 0).unwrap();
        disk.sync_all().unwrap();
    };
    let read_again = "tool blockdev --rereadpt /dev/sda";
    disk(&partitioned(&[(2048, 10240), (12288, 2048)], 1));
    does(&mut attacker, read_again);
    wait_for_devices(&["/dev/sda1", "/dev/sda2"]);
    let map = format!("tool dmsetup create --noudevsync beside {}", beside.display());
    follow(
        &mut attacker,
        &[
            "tool mke2fs -F -t ext4 /dev/sda1".to_owned(),
            format!("tool mount -t ext4 /dev/sda1 {at}"),
            map,
        ],
    );
    wait_for_devices(&["/dev/dm-0"]);
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let tried = [
        ("write to the disk of a protected file by SG_IO of another partition", "/dev/sda2"),
        ("write to the disk of a protected file by SG_IO of a device mapped on it", "/dev/dm-0"),
    ];
    let order = |device: &str| format!("scsi-write {device}");
    for (name, device) in tried {
        attacks.without(name, &mut attacker, &order(device));
    }
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, device) in tried {
        let event = attacks.with(name, &mut attacker, &order(device), &events);
        assert_eq!(event.hook, SentinelHook::FileIoctl, "{name}: {event}");
        // Of the device itself.
        follow(&mut attacker, &[format!("set-writable {device}"), format!("append {device}")]);
    }
    // If no protected file is on the disk, commands are allowed.
    let elsewhere = host.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    sentinel.apply(&tree(&elsewhere, FileOps::CHANGE)).unwrap();
    follow(&mut attacker, &tried.map(|(_, device)| order(device)));
    drop(sentinel);
    let unmap = "tool dmsetup remove --noudevsync beside".to_owned();
    follow(&mut attacker, &[unmap, format!("tool umount {at}")]);
    disk(&[0; 512]);
    does(&mut attacker, read_again);
}

/// The root of a hierarchy of cgroups has all processes, the agent too, also where it is mounted after the start.
fn a_new_cgroup_hierarchy_does_not_throttle_a_protected_disk() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let groups = host.path("groups");
    std::fs::create_dir(&groups).unwrap();
    let at = groups.display();
    let [mount, umount] =
        [format!("tool mount -t cgroup -o blkio none {at}"), format!("tool umount {at}")];
    if attacker.ask(&mount).unwrap() != 0 {
        skip("this kernel has no blkio of version 1, or version 2 uses it");
    }
    let protected = mount_disk(&host, &mut attacker);
    let limit = |rate: u32| {
        let script = host.path(&format!("limit-{rate}"));
        let line = format!("echo 8:0 {rate} > {at}/blkio.throttle.write_bps_device");
        std::fs::write(&script, line).unwrap();
        format!("tool sh {}", script.display())
    };
    let tried = [
        ("throttle the disk of a protected file by a new hierarchy of cgroups", limit(1 << 20)),
        ("chown a file of the root of a new hierarchy of cgroups", format!("chown {at}/tasks")),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    follow(&mut attacker, &[limit(0), umount.clone()]);
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    follow(&mut attacker, &[mount]);
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    // Cgroups of other processes are not protected.
    let other = groups.join("other");
    std::fs::create_dir(&other).unwrap();
    let read = format!("read {at}/blkio.throttle.write_bps_device");
    let inside = format!("open-to-write {}/blkio.throttle.write_bps_device", other.display());
    follow(&mut attacker, &[read, inside]);
    std::fs::remove_dir(&other).unwrap();
    drop(sentinel);
    follow(&mut attacker, &[umount, format!("tool umount {}", host.path("volume").display())]);
}

/// Each option allows its own operation and not the other's.
fn options_allow_disk_commands_or_the_device_mapper() {
    let host = Host::new();
    let mut attacker = host.test_process();
    let protected = mount_disk(&host, &mut attacker);
    let mapped = map_devices(&host, &mut attacker);
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(&protected);
    let rule = mapped.iter().fold(rule, |rule, file| rule.file(file));
    let policy = Policy::builder().file_rule(rule).compile().unwrap();
    let builder = || Sentinel::builder("test");
    let sentinel = builder().dangerous(|it| it.disk_commands(true)).start(&policy).unwrap();
    for (_, order) in BY_IOCTL.into_iter().chain(BY_OPEN) {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    assert_eq!(attacker.ask("open-to-write /dev/sda").unwrap(), EPERM);
    assert_eq!(attacker.ask(CONTROL).unwrap(), EPERM);
    drop(sentinel);
    let sentinel = builder().dangerous(|it| it.device_mapper(true)).start(&policy).unwrap();
    assert_eq!(attacker.ask(CONTROL).unwrap(), 0);
    for (_, order) in BY_IOCTL.into_iter().chain(BY_OPEN) {
        assert_eq!(attacker.ask(order).unwrap(), EPERM, "{order}");
    }
    drop(sentinel);
    unmap_devices(&host, &mut attacker);
    follow(&mut attacker, &[format!("tool umount {}", host.path("volume").display())]);
}

/// Descriptors of the backing disk and of the file that were opened before the rule.
fn preopened_descriptors_change_nothing_on_a_protected_disk() {
    let host = Host::new();
    let volume = host.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let (mut of_disk, mut of_file) = (host.test_process(), host.test_process());
    let mut attacks = Attacks::default();
    wait_for_devices(&["/dev/sda"]);
    follow(
        &mut of_disk,
        &[
            "tool mke2fs -F -t ext4 /dev/sda".to_owned(),
            format!("tool mount -t ext4 /dev/sda {}", volume.display()),
            // Writes go to the bytes before the first file system block, which are unused.
            "keep-open /dev/sda".to_owned(),
        ],
    );
    let protected = volume.join("protected");
    let file = protected.join("file");
    std::fs::create_dir(&protected).unwrap();
    std::fs::write(&file, "1").unwrap();
    follow(&mut of_file, &[format!("keep-open {}", file.display())]);
    let to_disk = [
        ("write to the disk of a protected file by a pre-opened descriptor", "write-kept 1"),
        ("mmap(2) the disk of a protected file by a pre-opened descriptor", "map-kept"),
    ];
    let swap = "exchange a protected file and the boot loader inode by a pre-opened descriptor";
    for (name, order) in to_disk {
        attacks.without(name, &mut of_disk, order);
    }
    attacks.without(swap, &mut of_file, "swap-boot-kept");
    assert_eq!(std::fs::read(&file).unwrap(), b"");
    std::fs::write(&file, "1").unwrap();
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let before = sentinel.status().unwrap().preopened;
    let mut pids: Vec<_> = before.iter().map(|it| it.pid).collect();
    pids.sort_unstable();
    let mut expected = [of_disk.pid(), of_file.pid()];
    expected.sort_unstable();
    assert_eq!(pids, expected, "{before:?}");
    for (name, order) in to_disk {
        attacks.with(name, &mut of_disk, order, &events);
    }
    let event = attacks.with(swap, &mut of_file, "swap-boot-kept", &events);
    assert_eq!(event.hook, SentinelHook::FileIoctl, "{event}");
    assert_eq!(std::fs::read(&file).unwrap(), b"1");
    drop(sentinel);
    follow(&mut of_disk, &["write-kept 1".to_owned()]);
    drop((of_disk, of_file));
    follow(&mut host.test_process(), &[format!("tool umount {}", volume.display())]);
}

/// NVMe targets, and one kind of LIO, write to mounted disks without any check.
fn a_protected_disk_is_not_exported() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let at = host.path("config");
    std::fs::create_dir(&at).unwrap();
    let at = at.display();
    let subsystem = format!("{at}/nvmet/subsystems/one");
    follow(
        &mut attacker,
        &[format!("tool mount -t configfs none {at}"), format!("mkdir {subsystem}")],
    );
    let mut tried =
        vec![("export a disk by an NVMe target (nvmet)", format!("{subsystem}/namespaces/1"))];
    if attacker.ask("tool modprobe target_core_pscsi").unwrap() == 0 {
        tried.push((
            "make a target of LIO that names one disk and claims another (pscsi)",
            format!("{at}/target/core/pscsi_0"),
        ));
    } else {
        skip_part("this kernel has no pscsi");
    }
    for (name, place) in &tried {
        attacks.without(name, &mut attacker, &format!("mkdir {place}"));
        follow(&mut attacker, &[format!("rmdir {place}")]);
    }
    let policy = Policy::builder().compile().unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, place) in &tried {
        let event = attacks.with(name, &mut attacker, &format!("mkdir {place}"), &events);
        assert_eq!(event.hook, SentinelHook::InodeMkdir, "{event}");
    }
    follow(&mut attacker, &[format!("mkdir {subsystem}2"), format!("rmdir {subsystem}2")]);
    drop(sentinel);
    follow(
        &mut attacker,
        &[
            format!("mkdir {subsystem}/namespaces/1"),
            format!("rmdir {subsystem}/namespaces/1"),
            format!("rmdir {subsystem}"),
            format!("tool umount {at}"),
        ],
    );
}

/// The backing file of a loop device on the file system of another loop device.
fn backing_files_of_loop_devices_are_protected() {
    let host = Host::new();
    let [outer, inner] = ["outer", "inner"].map(|name| host.path(name));
    let image = host.path("image");
    let (file, protected) = (outer.join("a file"), inner.join("protected"));
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let mib = |path: &Path, size: u64| {
        std::fs::File::create(path).unwrap().set_len(size << 20).unwrap();
    };
    let put = |attacker: &mut TestProcess, device: &str, file: &Path, at: &Path| {
        std::fs::create_dir(at).unwrap();
        // An order cannot have names with blanks.
        assert!(
            std::process::Command::new("losetup").arg(device).arg(file).status().unwrap().success()
        );
        follow(
            attacker,
            &[
                format!("tool mke2fs -F -t ext4 {device}"),
                format!("tool mount -t ext4 {device} {}", at.display()),
            ],
        );
    };
    mib(&image, 32);
    put(&mut attacker, "/dev/loop0", &image, &outer);
    mib(&file, 16);
    put(&mut attacker, "/dev/loop1", &file, &inner);
    std::fs::create_dir(&protected).unwrap();
    std::fs::write(protected.join("file"), "1").unwrap();
    // A name without blanks.
    let link = host.path("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let tried = [
        ("write to the backing file of a loop device", format!("open-to-write {}", link.display())),
        (
            "write to the device of the backing file of a loop device",
            "open-to-write /dev/loop0".to_owned(),
        ),
        (
            "write to the backing file of the device of a backing file",
            format!("open-to-write {}", image.display()),
        ),
        ("reconfigure a loop device", "set-up-again /dev/loop1".to_owned()),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let (read_below, read) =
        ("read the backing file of a loop device", format!("open-to-read {}", link.display()));
    attacks.without(read_below, &mut attacker, &read);
    // Writes by a pre-opened descriptor are checked; those of the loop device's kernel thread are not.
    let (preopened, write) =
        ("write to the backing file of a loop device by a pre-opened descriptor", "write-kept 1");
    follow(&mut attacker, &[format!("keep-open {}", link.display())]);
    attacks.without(preopened, &mut attacker, write);
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    assert_eq!(attacker.ask(&format!("truncate {}", link.display())).unwrap(), EPERM);
    attacks.with(preopened, &mut attacker, write, &events);
    assert_eq!(sentinel.status().unwrap().preopened.len(), 1);
    let own = std::fs::File::create(protected.join("own")).unwrap();
    own.set_len(1 << 20).unwrap();
    std::fs::write(protected.join("own"), vec![1; 1 << 20]).unwrap();
    own.sync_all().unwrap();
    follow(&mut attacker, &[read.clone(), "tool sync".to_owned()]);
    sentinel.apply(&tree(&protected, FileOps::ALL)).unwrap();
    attacks.with(read_below, &mut attacker, &read, &events);
    drop(sentinel);
    drop(own);
    drop(attacker);
    let mut attacker = host.test_process();
    follow(
        &mut attacker,
        &[
            read,
            format!("tool umount {}", inner.display()),
            "tool losetup -d /dev/loop1".to_owned(),
            format!("tool umount {}", outer.display()),
            "tool losetup -d /dev/loop0".to_owned(),
        ],
    );
}

/// A frozen file system blocks an agent that writes to it.
fn file_systems_with_protected_files_are_not_frozen() {
    let host = Host::new();
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let at = volume.display();
    let mount = format!("tool mount -t ext4 /dev/loop0 {at}");
    let umount = format!("tool umount {at}");
    follow(
        &mut attacker,
        &[
            format!("tool losetup /dev/loop0 {}", image.display()),
            "tool mke2fs -F -t ext4 /dev/loop0".to_owned(),
            mount.clone(),
        ],
    );
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let tried = [
        ("freeze a file system with protected files", format!("freeze {at}")),
        ("thaw a file system with protected files", format!("thaw {at}")),
        ("shut down a file system with protected files", format!("shut-down {at}")),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    follow(&mut attacker, &[umount.clone(), mount]);
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileIoctl, "{name}: {event}");
    }
    std::fs::write(protected.join("file"), "1").unwrap();
    drop(sentinel);
    follow(&mut attacker, &[umount, "tool losetup -d /dev/loop0".to_owned()]);
}

/// An ext4 file system on /dev/loop0, with a protected directory.
fn mount_loop(host: &Host, attacker: &mut TestProcess, before: &[&str], options: &str) -> PathBuf {
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    follow(
        attacker,
        &[
            format!("tool losetup /dev/loop0 {}", image.display()),
            "tool mke2fs -F -b 4096 -t ext4 /dev/loop0".to_owned(),
        ],
    );
    follow(attacker, &before.iter().map(ToString::to_string).collect::<Vec<_>>());
    follow(attacker, &[format!("tool mount -t ext4 -o {options} /dev/loop0 {}", volume.display())]);
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    protected
}

fn unmount_loop(host: &Host, attacker: &mut TestProcess) {
    let umount = format!("tool umount {}", host.path("volume").display());
    follow(attacker, &[umount, "tool losetup -d /dev/loop0".to_owned()]);
}

/// quotactl(2) has the kernel write to any file of ext4, in the old format of quotas.
fn a_protected_file_is_no_file_of_quotas() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    if attacker.ask("tool modprobe quota_v1").unwrap() != 0 {
        skip("the machine has no module quota_v1");
    }
    let protected = mount_loop(&host, &mut attacker, &[], "usrquota");
    let [file, other] = [protected.join("file"), host.path("volume/other")];
    // Whole entries of the format, which has no other mark.
    std::fs::write(&file, [0; 4000]).unwrap();
    std::fs::write(&other, [0; 4000]).unwrap();
    let order = |file: &Path| format!("quota-on /dev/loop0 {}", file.display());
    let name = "make a protected file the file of quotas by quotactl(2)";
    attacks.without(name, &mut attacker, &order(&file));
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let event = attacks.with(name, &mut attacker, &order(&file), &events);
    assert_eq!(event.hook, SentinelHook::QuotaOn, "{event}");
    follow(&mut attacker, &[order(&other)]);
    drop(sentinel);
    unmount_loop(&host, &mut attacker);
}

/// A disk discards blocks without a write.
fn a_protected_disk_does_not_discard_by_io_uring() {
    const BLOCK: usize = 4096;
    const CONTENT: [u8; BLOCK] = [b'm'; BLOCK];
    const EINVAL: u64 = 22;
    const EOPNOTSUPP: u64 = 95;
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let protected = mount_loop(&host, &mut attacker, &["keep-open /dev/loop0"], "rw");
    let (file, image) = (protected.join("file"), host.path("image"));
    let write = |attacker: &mut TestProcess| {
        std::fs::write(&file, CONTENT).unwrap();
        follow(attacker, &["tool sync".to_owned()]);
        let blocks = std::fs::read(&image).unwrap();
        blocks.chunks_exact(BLOCK).position(|block| block == CONTENT).unwrap()
    };
    let is_there = |block: usize| {
        let image = std::fs::read(&image).unwrap();
        image[block * BLOCK..][..BLOCK] == CONTENT
    };
    let name = "discard blocks of a protected disk by io_uring";
    let order = |block: usize| format!("uring-discard-kept {} {BLOCK}", block * BLOCK);
    let block = write(&mut attacker);
    let has_command = match attacker.ask(&order(block)).unwrap() {
        EINVAL | EOPNOTSUPP => false,
        answer => {
            assert_eq!((answer, is_there(block)), (0, false));
            attacks.without(name, &mut attacker, &order(block));
            true
        }
    };
    std::fs::remove_file(&file).unwrap();
    let block = write(&mut attacker);
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    if has_command {
        let event = attacks.with(name, &mut attacker, &order(block), &events);
        assert_eq!((event.hook, is_there(block)), (SentinelHook::UringCmd, true), "{event}");
    }
    drop(sentinel);
    drop(attacker);
    unmount_loop(&host, &mut host.test_process());
    if !has_command {
        skip("this kernel has no BLOCK_URING_CMD_DISCARD");
    }
}

/// Root changes a file system by ioctl(2) on descriptors that only read.
fn file_system_commands_do_not_change_protected_files() {
    let host = Host::new();
    let (image, volume) = (host.path("image"), host.path("volume"));
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let set_up = format!("tool losetup /dev/loop0 {}", image.display());
    follow(&mut attacker, &[format!("tool mke2fs -F -t ext4 -O encrypt {}", image.display())]);
    follow(&mut attacker, &[set_up, format!("tool mount -t ext4 /dev/loop0 {}", volume.display())]);
    let [protected, one, two] = ["protected", "one", "two"].map(|name| volume.join(name));
    let [empty, inner] = ["empty", "file"].map(|name| protected.join(name));
    for dir in [&protected, &empty, &one, &two] {
        std::fs::create_dir(dir).unwrap();
    }
    let other = volume.join("other");
    std::fs::write(&inner, "1").unwrap();
    std::fs::write(&other, "1").unwrap();
    // FS_IOC_SET_ENCRYPTION_POLICY: version 0, AES-256-XTS, AES-256-CTS, and a key that does not exist.
    let encrypt = |dir: &Path| format!("command {} 800c6613 0001040041414141", dir.display());
    // FS_IOC_SETFSLABEL, and EXT4_IOC_SET_TUNE_SB_PARAM of EXT4_TUNE_FL_MAX_MNT_COUNT.
    let label = format!("command {} 41009432 6d69736368696566", other.display());
    let tune = format!("command {} 40e8662e 04000000000000000000000001", other.display());
    let by_policy = "encrypt an empty protected directory";
    attacks.without(by_policy, &mut attacker, &encrypt(&one));
    let tried = [
        ("set the label of a file system with protected files", label, "FS_IOC_SETFSLABEL of ext4"),
        (
            "tune a file system with protected files by another file of it",
            tune,
            "EXT4_IOC_SET_TUNE_SB_PARAM",
        ),
    ];
    const ENOTTY: u64 = 25;
    let mut known = Vec::new();
    for (name, order, command) in &tried {
        if attacker.ask(order).unwrap() == ENOTTY {
            println!("not tried: this kernel has no {command}");
            continue;
        }
        attacks.without(name, &mut attacker, order);
        known.push((*name, order));
    }
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // Of protected files: FS_IOC_GETFLAGS, _FSGETXATTR, _GETVERSION, _FIEMAP, of lsattr(1) and filefrag(8); TCGETS of
    // isatty(3).
    let ordinary = ["80086601", "801c581f", "80087601", "c020660b", "5401"];
    // Of others on the file system: FS_IOC_SETFLAGS of no flag, as by chattr(1); FICLONE, as by cp(1); FITRIM.
    let elsewhere = ["40086602", "40049409", "c0185879"];
    let ordinary = ordinary.iter().map(|number| (&inner, number));
    for (file, number) in ordinary.chain(elsewhere.iter().map(|number| (&other, number))) {
        let order = format!("command {} {number} 00", file.display());
        assert_ne!(attacker.ask(&order).unwrap(), EPERM, "{order}");
    }
    follow(&mut attacker, &[encrypt(&two)]);
    // The first alarm is that of the first attack.
    let first = encrypt(&empty);
    assert_eq!(attacker.ask(&first).unwrap(), EPERM);
    assert_eq!(next_denied(&events).detail, 0x800c_6613);
    let event = attacks.with(by_policy, &mut attacker, &first, &events);
    assert_eq!((event.hook, event.detail), (SentinelHook::FileIoctl, 0x800c_6613), "{event}");
    for (name, order) in known {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileIoctl, "{name}: {event}");
    }
    // Numbers that no kernel has yet: of 'f' and 'X', of a file system's own commands.
    for number in ["400866f0", "400858f0"] {
        let order = format!("command {} {number} 00", other.display());
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
        assert_eq!(next_denied(&events).hook, SentinelHook::FileIoctl, "{order}");
    }
    // If no protected file is on the file system, its directories are anyone's.
    let elsewhere = host.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    sentinel.apply(&tree(&elsewhere, FileOps::CHANGE)).unwrap();
    follow(&mut attacker, &[first]);
    drop(sentinel);
    let umount = format!("tool umount {}", volume.display());
    follow(&mut attacker, &[umount, "tool losetup -d /dev/loop0".to_owned()]);
}

/// The disk of a partition, and the backing devices of a mapped device.
fn backing_disks_of_partitions_and_mapped_devices_are_protected() {
    let host = Host::new();
    let at = |name: &str| host.path(name).display().to_string();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let ask = |attacker: &mut TestProcess, order: &str| attacker.ask(order).unwrap();
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny);
    let files = map_devices(&host, &mut attacker);
    let rule = files.iter().fold(rule, |rule, file| rule.file(file));
    std::fs::write(host.path("other-table"), table("/dev/loop2")).unwrap();
    let tried = [
        ("write to the partition of a protected file", "open-to-write /dev/loop0p1"),
        ("write to the disk of the partition of a protected file", "open-to-write /dev/loop0"),
        ("write to the mapped device of a protected file", "open-to-write /dev/dm-0"),
        (
            "write to the backing device of the mapped device of a protected file",
            "open-to-write /dev/loop1",
        ),
    ];
    for (name, order) in tried {
        attacks.without(name, &mut attacker, order);
    }
    let (elsewhere, load) = (
        "load another table for the mapped device of a protected file",
        format!("tool dmsetup load mapped {}", at("other-table")),
    );
    attacks.without(elsewhere, &mut attacker, &load);
    assert_eq!(ask(&mut attacker, "tool dmsetup clear mapped"), 0);
    std::fs::write(host.path("thief"), table("/dev/loop1")).unwrap();
    let (once_more, steal) = (
        "map the backing device of a protected file again",
        format!("tool dmsetup create --noudevsync thief {}", at("thief")),
    );
    attacks.without(once_more, &mut attacker, &steal);
    assert_eq!(ask(&mut attacker, "tool dmsetup remove --noudevsync thief"), 0);
    // A mounted disk is busy, with Sentinel or without.
    std::fs::write(host.path("other-thief"), table("/dev/loop0")).unwrap();
    let taken = format!("tool dmsetup create --noudevsync thief {}", at("other-thief"));
    assert_ne!(ask(&mut attacker, &taken), 0);

    let policy = |rule| Policy::builder().file_rule(rule).compile().unwrap();
    // If no protected file is on a mapped device, every process may.
    let not_mapped = FileRule::new(RuleId(1), "one", FileAction::Deny);
    let sentinel = host.start(&policy(not_mapped.file(host.path("partition").join("file"))));
    assert_eq!(ask(&mut attacker, CONTROL), 0);
    sentinel.apply(&policy(rule)).unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    attacks.with(elsewhere, &mut attacker, &load, &events);
    attacks.with(once_more, &mut attacker, &steal, &events);
    // Opening the device is all that commands need.
    assert_eq!(ask(&mut attacker, CONTROL), EPERM);
    assert_eq!(ask(&mut attacker, "open-to-write /dev/loop2"), 0);
    drop(sentinel);
    unmap_devices(&host, &mut attacker);
}

/// Files of sysfs replace a member of an array of md, and have all writes wait.
fn members_of_an_array_are_not_replaced() {
    const ARRAY: &str = "/sys/block/md_test/md";
    let host = Host::new();
    let at = |name: &str| host.path(name).display().to_string();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    if attacker.ask("tool modprobe raid1").unwrap() != 0 {
        skip("the machine has no module raid1");
    }
    let write = |file: &str, text: &str| format!("write {ARRAY}/{file} {text}");
    for (device, image) in [("/dev/loop3", "one"), ("/dev/loop4", "two")] {
        std::fs::File::create(host.path(image)).unwrap().set_len(16 << 20).unwrap();
        follow(&mut attacker, &[format!("tool losetup {device} {}", at(image))]);
    }
    std::fs::create_dir(host.path("volume")).unwrap();
    follow(
        &mut attacker,
        &[
            "write /sys/module/md_mod/parameters/new_array md_test".to_owned(),
            write("metadata_version", "none"),
            write("level", "raid1"),
            write("raid_disks", "2"),
            write("component_size", "16384"),
            write("new_dev", "7:3"),
            write("new_dev", "7:4"),
            write("dev-loop3/slot", "0"),
            write("dev-loop4/slot", "1"),
            write("array_state", "active"),
        ],
    );
    wait_for_devices(&["/dev/md_test"]);
    let mount = format!("tool mount -t ext4 /dev/md_test {}", at("volume"));
    follow(&mut attacker, &["tool mke2fs -F -t ext4 /dev/md_test".to_owned(), mount]);
    std::fs::create_dir(host.path("volume/protected")).unwrap();
    let tried = [
        (
            "fail a member of the array of a protected file by sysfs",
            write("dev-loop4/state", "faulty"),
        ),
        ("have all writes to the array of a protected file wait", write("suspend_hi", "0")),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    // If no protected file is on an array, every process may.
    std::fs::create_dir(host.path("elsewhere")).unwrap();
    let sentinel = host.start(&tree(&host.path("elsewhere"), FileOps::CHANGE));
    follow(&mut attacker, &[write("suspend_hi", "0")]);
    sentinel.apply(&tree(&host.path("volume/protected"), FileOps::CHANGE)).unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    drop(sentinel);
    let umount = format!("tool umount {}", at("volume"));
    follow(&mut attacker, &[umount, write("array_state", "clear")]);
    follow(&mut attacker, &["/dev/loop3", "/dev/loop4"].map(|it| format!("tool losetup -d {it}")));
}

/// What dmsetup(8) needs.
const CONTROL: &str = "open-to-read /dev/mapper/control";
const SECTORS: u32 = 16 << 11;

/// The table of a device that is mapped on another.
fn table(device: &str) -> String {
    format!("0 {SECTORS} linear {device} 0\n")
}

/// Makes a file system on a partition and one on a mapped device, and a file on each.
fn map_devices(host: &Host, attacker: &mut TestProcess) -> [PathBuf; 2] {
    let at = |name: &str| host.path(name).display().to_string();
    let one = [(2048, SECTORS - 2048)];
    std::fs::write(host.path("disk"), partitioned(&one, SECTORS)).unwrap();
    std::fs::File::create(host.path("part")).unwrap().set_len(u64::from(SECTORS) << 9).unwrap();
    std::fs::write(host.path("table"), table("/dev/loop1")).unwrap();
    for (device, file) in [("/dev/loop0", "disk"), ("/dev/loop1", "part"), ("/dev/loop2", "part")] {
        follow(attacker, &[format!("tool losetup -P {device} {}", at(file))]);
    }
    follow(attacker, &[format!("tool dmsetup create --noudevsync mapped {}", at("table"))]);
    [("/dev/loop0p1", "partition"), ("/dev/dm-0", "mapped")].map(|(device, name)| {
        std::fs::create_dir(host.path(name)).unwrap();
        follow(
            attacker,
            &[
                format!("tool mke2fs -F {device}"),
                format!("tool mount -t ext4 {device} {}", at(name)),
            ],
        );
        let file = host.path(name).join("file");
        std::fs::write(&file, "1").unwrap();
        file
    })
}

/// Undoes [`map_devices`].
fn unmap_devices(host: &Host, attacker: &mut TestProcess) {
    let at = |name: &str| host.path(name).display().to_string();
    follow(
        attacker,
        &[
            format!("tool umount {}", at("partition")),
            format!("tool umount {}", at("mapped")),
            "tool dmsetup remove --noudevsync mapped".to_owned(),
            "tool losetup -d /dev/loop0".to_owned(),
            "tool losetup -d /dev/loop1".to_owned(),
            "tool losetup -d /dev/loop2".to_owned(),
        ],
    );
}

/// The first sectors of a disk, which names partitions by their first sectors and lengths.
pub(crate) fn partitioned(partitions: &[(u32, u32)], sectors: u32) -> Vec<u8> {
    const LINUX: u8 = 0x83;
    let mut disk = vec![0; sectors as usize * 512];
    for (entry, (first, length)) in disk[446..510].chunks_exact_mut(16).zip(partitions) {
        entry[4] = LINUX;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&length.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}
