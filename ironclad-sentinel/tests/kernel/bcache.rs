//! bcache: a cache on one device of the blocks of another.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use ironclad_core::abi::SentinelHook;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_policy::file::FileOps;
use ironclad_sentinel::Overflow;
use rustix::fs::OFlags;

use crate::disks::{follow, tree, wait_for_devices};
use crate::testbed::{Attacks, Host, PATIENCE, does, lsm};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(devices_of_bcache_are_protected).shared().in_machine().needs(&[lsm])]
}

const BACKING: &str = "/dev/sda";
const CACHE: &str = "/dev/nvme0n1";
const SET: [u8; 16] = [7; 16];
const SETTINGS: &str = "/sys/block/bcache0/bcache";

/// `struct cache_sb_disk` of the kernel's drivers/md/bcache, as make-bcache(8) writes it.
fn superblock(is_cache: bool) -> Vec<u8> {
    const AT: usize = 4096;
    const MAGIC: [u8; 16] = [
        0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d,
        0x81,
    ];
    // Versions of a cache, and of a backing device.
    let (version, own) = if is_cache { (3u64, [1; 16]) } else { (1, [2; 16]) };
    let mut block = vec![0; 4096];
    block[8..16].copy_from_slice(&(AT as u64 / 512).to_le_bytes());
    block[16..24].copy_from_slice(&version.to_le_bytes());
    block[24..40].copy_from_slice(&MAGIC);
    block[40..56].copy_from_slice(&own);
    block[56..72].copy_from_slice(&SET);
    let mut put = |at: usize, value: u16| block[at..at + 2].copy_from_slice(&value.to_le_bytes());
    // Blocks of 4 KiB.
    put(192, 8);
    if is_cache {
        // 1024 buckets of 32 KiB; one device; the first bucket.
        for (at, value) in [(184, 1024), (194, 64), (196, 1), (204, 1)] {
            put(at, value);
        }
    }
    // Of all up to the keys, of which there are none.
    let sum = crc64(&block[8..208]);
    block[..8].copy_from_slice(&sum.to_le_bytes());
    block
}

fn crc64(bytes: &[u8]) -> u64 {
    const ECMA: u64 = 0x42f0_e1eb_a9ea_3693;
    !bytes.iter().fold(u64::MAX, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte) << 56, |crc, _| {
            if crc >> 63 != 0 { crc << 1 ^ ECMA } else { crc << 1 }
        })
    })
}

/// Waits until nothing holds a device.
fn wait_until_free(device: &str) {
    let patience = Instant::now() + PATIENCE;
    let held = || File::options().read(true).custom_flags(OFlags::EXCL.bits() as i32).open(device);
    while held().is_err() {
        assert!(Instant::now() < patience, "{device} is held");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The cache has content that the backing device does not have.
fn devices_of_bcache_are_protected() {
    const BLOCK: [u8; 4096] = [b'm'; 4096];
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    if attacker.ask("tool modprobe bcache").unwrap() != 0 {
        skip("the machine has no module bcache");
    }
    wait_for_devices(&[BACKING, CACHE]);
    for (device, is_cache) in [(BACKING, false), (CACHE, true)] {
        let disk = File::options().write(true).open(device).unwrap();
        disk.write_all_at(&superblock(is_cache), 4096).unwrap();
        disk.sync_all().unwrap();
        does(&mut attacker, &format!("write /sys/fs/bcache/register {device}"));
    }
    wait_for_devices(&["/dev/bcache0"]);
    let set = "07070707-0707-0707-0707-070707070707";
    let volume = host.path("volume");
    fs::create_dir(&volume).unwrap();
    follow(
        &mut attacker,
        &[
            format!("write {SETTINGS}/cache_mode writeback"),
            "tool mke2fs -F -t ext4 -b 4096 /dev/bcache0".to_owned(),
            format!("tool mount -t ext4 /dev/bcache0 {}", volume.display()),
        ],
    );
    let protected = volume.join("protected");
    fs::create_dir(&protected).unwrap();
    fs::write(protected.join("file"), BLOCK).unwrap();
    rustix::fs::sync();
    let is_on = |device: &str| fs::read(device).unwrap().chunks(4096).any(|it| it == BLOCK);
    assert_eq!((is_on(CACHE), is_on(BACKING)), (true, false));
    let tried = [
        (
            "write to the cache device of a protected file on bcache",
            format!("open-to-write {CACHE}"),
            SentinelHook::FileOpen,
        ),
        (
            "write to the backing device of a protected file on bcache",
            format!("open-to-write {BACKING}"),
            SentinelHook::FileOpen,
        ),
        (
            "write to the backing device of a protected file by SG_IO of bcache",
            "scsi-write /dev/bcache0".to_owned(),
            SentinelHook::FileIoctl,
        ),
        (
            "send commands to the cache device of a protected file on bcache",
            format!("nvme-write {CACHE}"),
            SentinelHook::FileIoctl,
        ),
        (
            "change the cache of a protected file on bcache by sysfs",
            format!("write {SETTINGS}/writeback_delay 30"),
            SentinelHook::FileOpen,
        ),
        (
            "change the set of caches of a protected file by sysfs",
            format!("write /sys/fs/bcache/{set}/io_error_limit 8"),
            SentinelHook::FileOpen,
        ),
    ];
    for (name, order, _) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = host.start(&tree(&protected, FileOps::CHANGE));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order, hook) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, *hook, "{name}: {event}");
    }
    // The kernel's own threads write.
    fs::write(protected.join("own"), BLOCK).unwrap();
    rustix::fs::sync();
    drop(sentinel);
    follow(
        &mut attacker,
        &[
            format!("tool umount {}", volume.display()),
            format!("write {SETTINGS}/stop 1"),
            format!("write /sys/fs/bcache/{set}/stop 1"),
        ],
    );
    for device in [BACKING, CACHE] {
        wait_until_free(device);
        File::options().write(true).open(device).unwrap().write_all_at(&[0; 8192], 0).unwrap();
    }
    assert!(!Path::new("/dev/bcache0").exists());
}
