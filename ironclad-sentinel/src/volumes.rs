//! Supported file systems, and the mounts of this host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::pseudo_fs::{PROC, namespace};
use ironclad_core::audit::AuditAction;
use rustix::fs::{Mode, OFlags, ioctl_getflags, open, statfs};
use rustix::io::Errno;
use serde::Serialize;

use crate::backing;
use crate::baseline::{Kind, Scopes, escaped};
use crate::lookup::{self, Lookup};
use crate::resolve::Coverage;

const EROFS: u64 = 0xe0f5_e1e2;

/// Supported file systems, by magic numbers of include/uapi/linux/magic.h and of fs/. An inode's number and
/// generation are unique on its device, and stat(2) and hooks see the same device.
const SUPPORTED: [(u64, &str); 8] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0xf2f5_2010, "f2fs"),
    (0x0102_1994, "tmpfs"),
    (0xcafe_4a11, "bpffs"),
    (0x6367_7270, "cgroup2"),
    (0x7371_7368, "squashfs"),
    (EROFS, "erofs"),
];

/// File systems that users often name, and why they are not supported.
const REFUSED: [(u64, &str); 13] = [
    (
        0x794c_7630,
        "overlayfs: its files have inode numbers of the layers; name the directory of the layer",
    ),
    (0x9123_683e, "btrfs: snapshots share the inode numbers of their originals"),
    (0x6969, "NFS: other hosts change its files"),
    (0xff53_4d42, "SMB: other hosts change its files"),
    (0x6573_5546, "FUSE: a process decides what its files contain"),
    (0x0102_1997, "9p: other hosts change its files"),
    (0x9fa0, "procfs: a pseudo file system that every process writes to"),
    (0x6265_6572, "sysfs: a pseudo file system; rules on it are not tested"),
    (0x6462_6720, "debugfs: a pseudo file system; rules on it are not tested"),
    (
        0x7472_6163,
        "tracefs: only trusted processes may open it, unless `dangerous(…)` allows `kernel_memory`",
    ),
    (0x7363_6673, "securityfs: a pseudo file system; rules on it are not tested"),
    (0x8584_58f6, "ramfs, which is not tested: use tmpfs"),
    (0x9660, "iso9660, which is not tested"),
];

/// Of include/uapi/linux/fs.h.
const FS_CASEFOLD_FL: u32 = 0x4000_0000;

/// Whether the file system of a path is on a block device. Since Linux 6.12, EROFS is also mounted from a file.
fn has_block_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|it| rustix::fs::major(it.dev()) != 0)
}

/// Why files at a path cannot be protected. None if they can.
pub(crate) fn unsupported(path: &Path) -> Option<String> {
    let magic = match statfs(path) {
        Ok(stat) => stat.f_type as u64 & 0xffff_ffff,
        Err(e) => return Some(format!("cannot be read: {e}")),
    };
    if magic == EROFS && !has_block_device(path) {
        return Some("is on EROFS in a file, which other processes may write".to_owned());
    }
    if SUPPORTED.iter().any(|(known, _)| *known == magic) {
        return None;
    }
    let why = REFUSED.iter().find(|(refused, _)| *refused == magic);
    let why = why.map_or_else(
        || format!("a file system of magic number {magic:#x}, which is not tested"),
        |(_, why)| (*why).to_owned(),
    );
    Some(format!("is on {why}"))
}

/// Why a file in a directory cannot be protected by its name: the directory folds case, and other names lead to it. The
/// directory is on a supported file system.
pub(crate) fn folds_case(dir: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let attributes = match open(dir, flags, Mode::empty()) {
        // Without the directory there are no names.
        Err(Errno::NOENT | Errno::NOTDIR) => return None,
        Err(e) => return Some(format!("is in a directory that cannot be opened: {e}")),
        // Of a file system that has no such attributes.
        Ok(opened) => ioctl_getflags(&opened).map_or(0, |it| it.bits()),
    };
    (attributes & FS_CASEFOLD_FL != 0).then(|| {
        "is in a directory whose names are the same in upper and lower case: cover the directory as a tree".to_owned()
    })
}

/// Why the content of a backing file is not the kernel's alone: a process or another host serves it, or it is a device
/// that other processes may use at the same time.
pub(crate) fn served(path: &Path) -> Option<String> {
    const SERVED: [u64; 4] = [0x6969, 0xff53_4d42, 0x6573_5546, 0x0102_1997];
    if std::fs::metadata(path).is_ok_and(|it| it.file_type().is_block_device()) {
        // The loop device does not hold it: another process mounts or maps it.
        let path = path.display();
        return Some(format!("a loop device over the block device `{path}`: mount that device"));
    }
    let magic = statfs(path).ok()?.f_type as u64 & 0xffff_ffff;
    let (_, why) = REFUSED.iter().find(|(it, _)| *it == magic && SERVED.contains(it))?;
    Some(format!("a loop device whose backing file `{}` is on {why}", path.display()))
}

/// Why files at a path have no stored content. None if they have.
pub(crate) fn unstored(path: &Path) -> Option<String> {
    const PSEUDO: [&str; 2] = ["bpffs", "cgroup2"];
    let magic = statfs(path).ok()?.f_type as u64 & 0xffff_ffff;
    let (_, name) =
        SUPPORTED.iter().find(|(known, name)| *known == magic && PSEUDO.contains(name))?;
    Some(format!("is on {name}, which stores no content"))
}

/// Why a rule on a tree does not cover file systems of a kind that are mounted below it: they store nothing,
/// and a host where nothing may write to them is unusable, or a process or another host serves them. None for kinds that
/// the rule covers.
pub(crate) fn not_covered(kind: &str) -> Option<String> {
    const PSEUDO: [&str; 8] =
        ["proc", "sysfs", "devtmpfs", "devpts", "debugfs", "tracefs", "securityfs", "binfmt_misc"];
    let is_pseudo = PSEUDO.contains(&kind);
    let why = is_pseudo.then(|| format!("is {kind}, which rules on trees above it do not cover"));
    why.or_else(|| lookup::served(kind))
}

/// The mount of a path. The last mount at a mount point hides the earlier ones.
pub(crate) fn at<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let on = mounts.iter().filter(|mount| path.starts_with(&mount.at));
    on.max_by_key(|mount| mount.at.components().count())
}

/// A file system that has protected files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VolumeStatus {
    /// The mount point.
    pub at: PathBuf,
    /// The file system's name.
    pub kind: String,
    /// Its device, as `major:minor`.
    pub device: String,
    /// Why its files cannot be protected: it is mounted below a protected directory. None if they are.
    pub refused: Option<String>,
    /// Whether the kernel may write its files to swap, which other processes may change: it is a tmpfs without the option
    /// `noswap`, and there is swap.
    pub is_swapped: bool,
}

/// The file systems of all scopes, and those that are mounted below trees.
pub(crate) fn of(scopes: &Scopes) -> std::io::Result<Vec<VolumeStatus>> {
    let mounts = mounts()?;
    let lookup = Lookup::new(&mounts);
    let mut found = BTreeMap::new();
    for scope in &scopes.0 {
        let paths = match (scope.kind, scope.real.to_str()) {
            (Kind::Glob, Some(pattern)) => lookup.matches(pattern).unwrap_or_default().paths,
            _ => BTreeSet::from([scope.real.clone()]),
        };
        for path in paths {
            let on = at(&mounts, &path);
            let is_below = |mount: &&Mount| scope.kind == Kind::Tree && mount.at.starts_with(&path);
            for mount in mounts.iter().filter(is_below) {
                found.insert(mount.at.clone(), (mount, not_covered(&mount.kind)));
            }
            // A rule covers what it names itself, of any kind.
            found.extend(on.map(|mount| (mount.at.clone(), (mount, None))));
        }
    }
    let has_swap = has_swap()?;
    let volume = |(at, (mount, refused)): (PathBuf, (&Mount, Option<String>))| VolumeStatus {
        kind: mount.kind.clone(),
        device: backing::major_minor(mount.device),
        is_swapped: has_swap && mount.may_swap,
        // statfs(2) would ask the server.
        refused: refused.or_else(|| lookup::served(&mount.kind)).or_else(|| unsupported(&at)),
        at,
    };
    Ok(found.into_iter().map(volume).collect())
}

/// A mount of this process's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    /// The directory of the file system that is mounted.
    pub(crate) root: PathBuf,
    pub(crate) at: PathBuf,
    /// The file system's name.
    pub(crate) kind: String,
    /// Its device, by the kernel's number.
    pub(crate) device: u32,
    /// Its other devices: the log and the realtime device of XFS.
    pub(crate) beside: Vec<PathBuf>,
    /// A tmpfs, without the option `noswap`.
    pub(crate) may_swap: bool,
}

/// All mounts, in the order of mounting, and those of PID 1 if its mount namespace is another.
pub(crate) fn mounts() -> std::io::Result<Vec<Mount>> {
    let mut found = mounts_of("self")?;
    let of_init = match namespace("1", "mnt") {
        // Without CAP_SYS_PTRACE; procfs may hide the process, too (`hidepid=`).
        Err(e) if matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) => None,
        read => Some(read?),
    };
    if of_init.is_some() && of_init != Some(namespace("self", "mnt")?) {
        found.extend(mounts_of("1")?);
    }
    Ok(found)
}

/// `/proc/self/mountinfo`: poll(2) reports `POLLPRI` after mounts have changed, once to each open file.
pub(crate) fn changes() -> Result<File, BpfError> {
    PROC.open("self/mountinfo")
        .map_err(|source| BpfError::system("opening /proc/self/mountinfo", source))
}

/// `/proc/swaps`: poll(2) reports `POLLPRI` after swap was switched on or off, once to each open file. None where the
/// kernel has no swap.
pub(crate) fn swap_changes() -> Result<Option<File>, BpfError> {
    match PROC.open("swaps") {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BpfError::system("opening /proc/swaps", source)),
    }
}

/// Whether there is swap. The first line has titles.
pub(crate) fn has_swap() -> std::io::Result<bool> {
    match PROC.read("swaps") {
        Ok(text) => {
            Ok(text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).count() > 1)
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A mount over protected files that appeared after the policy was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MountOver {
    /// The mount point.
    pub at: PathBuf,
    /// The file system's name.
    pub kind: String,
    #[serde(skip)]
    id: u32,
}

impl MountOver {
    pub(crate) fn record(&self) -> AuditAction {
        AuditAction::MountOver { at: escaped(&self.at), kind: self.kind.clone() }
    }
}

impl fmt::Display for MountOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, .. } = self;
        write!(f, "{kind} was mounted over protected files at {}", at.display())
    }
}

/// The mounts over protected files when the policy was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownMounts(Vec<Mount>);

impl KnownMounts {
    pub(crate) fn new(coverage: &Coverage, mounts: Vec<Mount>) -> Self {
        Self(mounts.into_iter().filter(|mount| coverage.is_over(mount)).collect())
    }

    /// Other mounts over protected files.
    pub(crate) fn unknown(&self, coverage: &Coverage, mounts: Vec<Mount>) -> Vec<MountOver> {
        let is_new = |mount: &Mount| coverage.is_over(mount) && !self.0.contains(mount);
        let new = mounts.into_iter().filter(is_new);
        new.map(|Mount { at, kind, id, .. }| MountOver { at, kind, id }).collect()
    }
}

fn mounts_of(process: &str) -> std::io::Result<Vec<Mount>> {
    let text = PROC.read(format!("{process}/mountinfo"))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(mount).collect())
}

/// Parses a line of proc_pid_mountinfo(5).
fn mount(line: &[u8]) -> Option<Mount> {
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let id = std::str::from_utf8(words.first()?).ok()?.parse().ok()?;
    let path = |word: &[u8]| OsString::from_vec(unescaped(word)).into();
    let (root, at) = (path(words.get(3)?), path(words.get(4)?));
    let device = backing::number(std::str::from_utf8(words.get(2)?).ok()?)?;
    // After optional fields and a hyphen: the file system, its source, its options.
    let mut rest = words.iter().skip_while(|word| **word != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let options = rest.nth(1).copied().unwrap_or_default();
    let options = || options.split(|&byte| byte == b',');
    let other = |option: &[u8]| {
        let names = [&b"logdev="[..], b"rtdev="];
        names.iter().find_map(|name| option.strip_prefix(*name)).map(path)
    };
    let beside = if kind == "xfs" { options().filter_map(other).collect() } else { Vec::new() };
    let may_swap = kind == "tmpfs" && !options().any(|option| option == b"noswap");
    Some(Mount { id, root, at, kind, device, beside, may_swap })
}

/// The directory of a process's cgroup of version 2; `process` is its name in procfs. None if the process is in the root
/// cgroup, or if no hierarchy is mounted.
pub(crate) fn group_of(process: &str) -> std::io::Result<Option<PathBuf>> {
    let text = PROC.read(format!("{process}/cgroup"))?;
    let mut lines = text.split(|&byte| byte == b'\n');
    let group = lines.find_map(|line| line.strip_prefix(b"0::"));
    let group = group.map(|group| Path::new(OsStr::from_bytes(group)));
    let Some(group) = group.filter(|group| *group != Path::new("/")) else { return Ok(None) };
    let mounts = mounts()?;
    let mut found = mounts.iter().filter(|mount| mount.kind == "cgroup2").filter_map(|mount| {
        let inside = group.strip_prefix(&mount.root).ok()?;
        Some(mount.at.join(inside)).filter(|path| path.is_dir())
    });
    Ok(found.next())
}

/// Decodes octal escapes.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        let octal = |digits: &[u8]| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        };
        match tail.get(..3).filter(|_| *first == b'\\').and_then(octal) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_mount_points_are_read() {
        assert_eq!(unescaped(br"/a\040b\134\011"), b"/a b\\\t");
        assert_eq!(unescaped(br"/a\9\04"), br"/a\9\04");
        let line = br"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:77 - ext3 /dev/root rw";
        let (root, kind) = ("/mnt1".into(), "ext3".to_owned());
        let (device, beside) = (98 << backing::MINOR_BITS, Vec::new());
        let at = "/mnt 2".into();
        let expected = Mount { id: 36, root, at, kind, device, beside, may_swap: false };
        assert_eq!(mount(line), Some(expected));
        assert_eq!(mount(br"1 0 0:1 / / rw - rootfs none rw").unwrap().kind, "rootfs");
        let line = br"36 35 7:1 / /x rw - xfs /dev/a rw,logdev=/dev/b\0401,noquota,rtdev=/dev/c";
        assert_eq!(mount(line).unwrap().beside, [Path::new("/dev/b 1"), Path::new("/dev/c")]);
        let may_swap = |line: &[u8]| mount(line).unwrap().may_swap;
        assert!(may_swap(b"36 35 0:9 / /run rw - tmpfs tmpfs rw,size=8k"));
        assert!(!may_swap(b"36 35 0:9 / /run rw - tmpfs tmpfs rw,noswap,size=8k"));
        assert!(mounts().unwrap().iter().any(|mount| mount.at == Path::new("/proc")));
    }

    #[test]
    fn unsupported_file_systems_are_refused() {
        assert!(unsupported(Path::new("/proc")).unwrap().contains("procfs: a pseudo file system"));
        assert!(unsupported(Path::new("/sys")).unwrap().contains("sysfs: a pseudo file system"));
        assert!(unsupported(Path::new("/none")).unwrap().contains("cannot be read"));
    }
}
