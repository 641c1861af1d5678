//! Character devices that send commands to disks, and NVMe disks, which take commands of their own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::file::FileOps;
use ironclad_sentinel::Overflow;

use crate::disks::{follow, partitioned, tree, wait_for_devices};
use crate::testbed::{Attacks, Host, does, lsm};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(nvme_commands_do_not_write_below_protected_files).shared().in_machine().needs(&[lsm]),
    ]
}

const DISK: &str = "/dev/nvme0n1";
/// Of the namespace: since Linux 5.13.
const GENERIC: &str = "/dev/ng0n1";
const READ_AGAIN: &str = "tool blockdev --rereadpt /dev/nvme0n1";

const BY_DISK: [(&str, &str); 3] = [
    ("write to the disk of a protected file by NVME_IOCTL_IO_CMD", "nvme-write /dev/nvme0n1"),
    ("write to the disk of a protected file by NVME_IOCTL_SUBMIT_IO", "nvme-submit /dev/nvme0n1"),
    (
        "write to the disk of a protected file by NVME_IOCTL_IO_CMD of another partition",
        "nvme-write /dev/nvme0n1p2",
    ),
];
const BY_OPEN: [(&str, &str); 3] = [
    ("write to the disk of a protected file by /dev/nvme0", "nvme-write /dev/nvme0"),
    ("write to the disk of a protected file by /dev/ng0n1", "nvme-write /dev/ng0n1"),
    ("write to the disk of a protected file by io_uring and /dev/ng0n1", "nvme-uring /dev/ng0n1"),
];
/// By descriptors that are older than the rule.
const BY_KEPT: [(&str, &str, &str, SentinelHook); 5] = [
    (
        "write to the disk of a protected file by a pre-opened /dev/nvme0",
        "/dev/nvme0",
        "nvme-write-kept",
        SentinelHook::FileIoctl,
    ),
    (
        "write to a disk by SG_IO of a pre-opened /dev/sg0",
        "/dev/sg0",
        "scsi-write-kept",
        SentinelHook::FileIoctl,
    ),
    (
        "write to a disk by write(2) to a pre-opened /dev/sg0",
        "/dev/sg0",
        "scsi-write-kept-by-write",
        SentinelHook::FilePermission,
    ),
    (
        "write to the disk of a protected file by a pre-opened /dev/ng0n1",
        GENERIC,
        "nvme-write-kept",
        SentinelHook::FileIoctl,
    ),
    (
        "write to the disk of a protected file by io_uring and a pre-opened /dev/ng0n1",
        GENERIC,
        "nvme-uring-kept",
        SentinelHook::UringCmd,
    ),
];

/// Whether a command wrote the first block of the NVMe disk, which is then empty again.
fn is_written(attacker: &mut TestProcess, disk: &File) -> bool {
    // Commands pass by the cache.
    does(attacker, "tool blockdev --flushbufs /dev/nvme0n1");
    let mut first = [0; 1];
    disk.read_exact_at(&mut first, 0).unwrap();
    disk.write_all_at(&[0; 512], 0).unwrap();
    disk.sync_all().unwrap();
    first == *b"m"
}

/// By the disk, another partition, and the character devices of the controller and the namespace.
fn nvme_commands_do_not_write_below_protected_files() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    wait_for_devices(&[DISK, "/dev/nvme0", "/dev/sg0"]);
    let disk = File::options().read(true).write(true).open(DISK).unwrap();
    disk.write_all_at(&partitioned(&[(2048, 40_960), (43_008, 2048)], 1), 0).unwrap();
    disk.sync_all().unwrap();
    does(&mut attacker, READ_AGAIN);
    wait_for_devices(&["/dev/nvme0n1p1", "/dev/nvme0n1p2"]);
    let volume = host.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let mount = format!("tool mount -t ext4 /dev/nvme0n1p1 {}", volume.display());
    follow(&mut attacker, &["tool mke2fs -F -t ext4 /dev/nvme0n1p1".to_owned(), mount]);
    let protected = volume.join("protected");
    std::fs::create_dir(&protected).unwrap();
    let has_generic = Path::new(GENERIC).exists();
    if !has_generic {
        println!("not tried: this kernel has no {GENERIC}");
    }
    let by_open = BY_OPEN.iter().filter(|(_, order)| has_generic || !order.contains(GENERIC));
    let by_kept = BY_KEPT.iter().filter(|(_, device, ..)| has_generic || *device != GENERIC);
    for (name, order) in BY_DISK.iter().chain(by_open.clone()) {
        attacks.without(name, &mut attacker, order);
        assert!(is_written(&mut attacker, &disk), "{name}");
    }
    let mut kept = Vec::new();
    for (name, device, order, hook) in by_kept {
        let mut holder = host.test_process();
        does(&mut holder, &format!("keep-open {device}"));
        attacks.without(name, &mut holder, order);
        assert!(*device == "/dev/sg0" || is_written(&mut attacker, &disk), "{name}");
        kept.push((*name, *order, *hook, holder));
    }
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let preopened = sentinel.status().unwrap().preopened;
    for (name, order, hook, holder) in &mut kept {
        assert!(preopened.iter().any(|it| it.pid == holder.pid()), "{name}: {preopened:?}");
        let event = attacks.with(name, holder, order, &events);
        assert_eq!(event.hook, *hook, "{name}: {event}");
        assert!(!is_written(&mut attacker, &disk), "{name}");
    }
    let by_disk = BY_DISK.iter().map(|it| (it, SentinelHook::FileIoctl));
    for ((name, order), hook) in by_disk.chain(by_open.map(|it| (it, SentinelHook::FileOpen))) {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, hook, "{name}: {event}");
        assert!(!is_written(&mut attacker, &disk), "{name}");
    }
    // If no protected file is on a disk, commands are allowed.
    let elsewhere = host.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    sentinel.apply(&tree(&elsewhere, FileOps::CHANGE)).unwrap();
    for (_, order, _, holder) in &mut kept {
        does(holder, order);
    }
    drop((sentinel, kept));
    does(&mut attacker, &format!("tool umount {}", volume.display()));
    assert!(is_written(&mut attacker, &disk));
    does(&mut attacker, READ_AGAIN);
}
