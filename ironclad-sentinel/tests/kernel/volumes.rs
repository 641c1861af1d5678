//! What file systems add of their own: shared blocks on XFS, inode numbers that are used again.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::testbed::{Attacks, EPERM, Host, does, lsm, unchanged};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_sentinel::Overflow;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(files_on_xfs_are_protected).shared().in_machine().needs(&[lsm]),
        test!(a_reused_inode_number_is_another_file).shared().in_machine().needs(&[lsm]),
    ]
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
