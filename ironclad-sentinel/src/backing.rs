//! Backing devices of protected files: partitions, disks, mapped and striped devices, backing files of loop
//! devices, external logs and journals; and the character devices that send commands to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::pseudo_fs::{PROC, SYS};
use ironclad_bpf::socket::Processes;
use ironclad_core::abi;
use ironclad_policy::file::{CompiledFiles, FileScope};
use rustix::io::Errno;

use crate::error::{Failure, SentinelError};
use crate::lookup::Lookup;
use crate::resolve::{Coverage, described};
use crate::volumes::{self, Mount};

pub(crate) const MINOR_BITS: u32 = 20;
/// `/dev/mapper/control`: `MISC_MAJOR` and `MAPPER_CTRL_MINOR` of include/linux/miscdevice.h.
const MAPPER: u32 = 10 << MINOR_BITS | 236;
/// `SCSI_GENERIC_MAJOR` of include/uapi/linux/major.h, whether or not its driver is loaded yet.
const SG: u32 = 21;
/// Character devices that send commands to disks and flash, as `/proc/devices` names them.
const COMMAND_DEVICES: [&str; 7] =
    ["bsg", "nvme", "nvme-generic", "raw", "mtd", "megaraid_sas_ioctl", "aac"];

/// Disks whose blocks a process or another host serves and changes, without a hook, by the beginnings of their names.
const SERVED: [(&str, &str); 2] = [
    ("nbd", "nbd: the server of the device changes its files"),
    ("ublkb", "ublk: the process that serves the device changes its files"),
];

/// Adds backing devices and backing files to what rules cover.
///
/// # Errors
/// `SentinelErrorKind::Path` where a rule denies changes of files whose content a process or another host serves.
pub(crate) fn cover(
    coverage: &mut Coverage,
    processes: &Processes,
    files: Option<&CompiledFiles>,
) -> Result<(), SentinelError> {
    let unfound = |source| BpfError::system("finding external logs and journals", source);
    let mounts = volumes::mounts().map_err(unfound)?;
    let beside = Beside::find(&mounts).map_err(unfound)?;
    let lookup = Lookup::new(&mounts);
    let labels = coverage.files.iter().map(|(id, it)| (id.dev, it.own | it.below));
    let names = coverage.names.iter().map(|(name, rules)| (name.dir.dev, *rules));
    let mut left: Vec<(u32, u64)> = labels.chain(names).collect();
    let mut covered: BTreeMap<u32, u64> = BTreeMap::new();
    let (mut on_disks, mut mapped, mut on_arrays) = (0, 0, 0);
    while !left.is_empty() {
        let mut behind: BTreeMap<PathBuf, u64> = BTreeMap::new();
        let mut writable = BTreeSet::new();
        while let Some((device, rules)) = left.pop() {
            let known = covered.entry(device).or_default();
            if *known | rules == *known {
                continue;
            }
            *known |= rules;
            let disk = Disk::find(device)
                .map_err(|source| BpfError::system("reading /sys/dev/block", source))?;
            let Some(disk) = disk else { continue };
            disk.served().map_or(Ok(()), |why| refuse(files, rules, why.to_owned()))?;
            for (other, by) in beside.of(device, &disk.name, &lookup) {
                coverage.beside.entry(other).or_default().insert(by);
                left.push((other, rules));
            }
            on_disks |= rules;
            mapped |= if disk.is_mapped { rules } else { 0 };
            on_arrays |= if disk.is_array { rules } else { 0 };
            left.extend(disk.on.into_iter().map(|below| (below, rules)));
            if let Some(file) = disk.file {
                if !disk.is_read_only {
                    writable.insert(file.clone());
                }
                *behind.entry(file).or_default() |= rules;
            }
        }
        let paths: Vec<&Path> = behind.keys().map(PathBuf::as_path).collect();
        for (path, rules) in &behind {
            volumes::served(path).map_or(Ok(()), |why| refuse(files, *rules, why))?;
        }
        for (id, (path, rules)) in processes.identify_themselves(&paths)?.iter().zip(&behind) {
            match id {
                Some(id) => {
                    if writable.contains(path) {
                        coverage.loops.insert(*id);
                    }
                    coverage.files.entry(*id).or_default().own |= rules;
                    left.push((id.dev, *rules));
                }
                None => tracing::warn!(
                    path = %path.display(),
                    "the backing file of a loop device below protected files does not exist and is not protected"
                ),
            }
        }
    }
    let mut put = |key, rules| {
        if rules != 0 {
            covered.insert(abi::VOLUME_CHARACTER | key, rules);
        }
    };
    put(MAPPER, mapped);
    put(abi::VOLUME_ARRAYS, on_arrays);
    put(abi::VOLUME_DISKS, on_disks);
    let devices = PROC
        .read_to_string("devices")
        .map_err(|source| BpfError::system("reading /proc/devices", source))?;
    for major in command_majors(&devices).chain([SG]) {
        put(major << MINOR_BITS | abi::VOLUME_ANY_MINOR, on_disks);
    }
    coverage.volumes = covered;
    Ok(())
}

/// Refuses the first of these rules that denies. Files of the agent alone are where the host has them.
fn refuse(files: Option<&CompiledFiles>, rules: u64, why: String) -> Result<(), SentinelError> {
    let all = files.iter().flat_map(|files| files.rules()).enumerate();
    let mut denying = all.filter(|(index, rule)| rules >> index & 1 != 0 && rule.denies());
    let Some((_, rule)) = denying.next() else {
        tracing::warn!("the agent's files are on {why}");
        return Ok(());
    };
    let path = match rule.scopes.first() {
        Some(FileScope::File(path) | FileScope::Tree(path)) => path.clone(),
        Some(FileScope::Glob(pattern)) => pattern.into(),
        _ => PathBuf::new(),
    };
    let what = format!("has files on {why}");
    Err(Failure::Path { rule: described(rule), path, what }.into())
}

/// Devices that file systems use beside the one that they are on.
#[derive(Debug, Default)]
struct Beside {
    /// Names of log and realtime devices of XFS, by the device of the file system.
    xfs: BTreeMap<u32, BTreeSet<PathBuf>>,
    ext: BTreeSet<u32>,
    /// External journals of ext4. The kernel does not tell whose they are.
    journals: BTreeSet<u32>,
    /// Names of disks with file systems that have their journal inside.
    inside: BTreeSet<String>,
}

impl Beside {
    fn find(mounts: &[Mount]) -> io::Result<Self> {
        let mut this = Self::default();
        for mount in mounts {
            if mount.kind.starts_with("ext") {
                this.ext.insert(mount.device);
            }
            if !mount.beside.is_empty() {
                this.xfs.entry(mount.device).or_default().extend(mount.beside.iter().cloned());
            }
        }
        for name in found(PROC.names("fs/jbd2"))?.unwrap_or_default() {
            let Some(name) = name.to_str() else { continue };
            // `loop0`, or with an inode `loop0-8`; but `dm-0`.
            match found(SYS.read_to_string(format!("class/block/{name}/dev")))? {
                Some(device) => this.journals.extend(number(&device)),
                None => this.inside.extend(name.rsplit_once('-').map(|(disk, _)| disk.to_owned())),
            }
        }
        Ok(this)
    }

    /// Those of the file system on a device, and which file system has them open: 0, where one has, and it is unknown
    /// which. Only names of this file system are looked up: root may have mounted others by any name.
    fn of(&self, device: u32, name: &str, lookup: &Lookup<'_>) -> Vec<(u32, u32)> {
        let is_outside = self.ext.contains(&device) && !self.inside.contains(name);
        let journals = self.journals.iter().filter(|_| is_outside).map(|journal| (*journal, 0));
        let named = self.xfs.get(&device).into_iter().flatten();
        let of_xfs = named.filter_map(|path| Some((named_device(path, lookup)?, device)));
        of_xfs.chain(journals).collect()
    }
}

/// The device that a name of a mount leads to.
fn named_device(path: &Path, lookup: &Lookup<'_>) -> Option<u32> {
    let found = match path.is_absolute() {
        true => lookup.find(path).map_err(io::Error::from),
        // Of the directory of the process that mounted it.
        false => Err(io::ErrorKind::NotFound.into()),
    };
    let device = found.and_then(|found| found.device());
    let device = device.inspect_err(|error| {
        tracing::warn!(
            path = %path.display(), %error,
            "a device of a mounted file system is not found by its name, and not protected"
        );
    });
    device.ok().map(device_number)
}

/// The kernel's number of a device, by that of stat(2).
fn device_number(device: u64) -> u32 {
    rustix::fs::major(device) << MINOR_BITS | rustix::fs::minor(device)
}

/// A kernel's number of a device as `major:minor`.
pub(crate) fn major_minor(device: u32) -> String {
    format!("{}:{}", device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1))
}

/// A block device, as sysfs describes it.
#[derive(Debug, Default)]
struct Disk {
    /// `sda`, `dm-0`.
    name: String,
    /// Its backing devices.
    on: Vec<u32>,
    /// The backing file of a loop device.
    file: Option<PathBuf>,
    is_mapped: bool,
    /// Of md, or of bcache.
    is_array: bool,
    is_read_only: bool,
}

impl Disk {
    /// By the kernel's device number. None if it is no block device.
    fn find(device: u32) -> io::Result<Option<Self>> {
        let Some(dir) = directory(device)? else { return Ok(None) };
        let slaves = found(SYS.names(dir.join("slaves")))?.unwrap_or_default();
        let mut below: Vec<_> = slaves.iter().map(|name| dir.join("slaves").join(name)).collect();
        if SYS.exists(dir.join("partition"))? {
            below.extend(dir.parent().map(Path::to_owned));
        }
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_mapped = SYS.exists(dir.join("dm"))?;
        let is_array = SYS.exists(dir.join("md"))? || SYS.exists(dir.join("bcache"))?;
        let mut disk = Self { name, is_mapped, is_array, ..Self::default() };
        for dir in below {
            let text = found(SYS.read_to_string(dir.join("dev")))?;
            disk.on.extend(text.and_then(|text| number(&text)));
        }
        let file = found(SYS.read(dir.join("loop/backing_file")))?;
        disk.file = file.map(|text| path(&text));
        let read_only = found(SYS.read(dir.join("ro")))?;
        disk.is_read_only = read_only.is_some_and(|text| text.trim_ascii() == b"1");
        Ok(Some(disk))
    }
}

impl Disk {
    /// Why its content is not the kernel's alone.
    fn served(&self) -> Option<&'static str> {
        let served = SERVED.iter().find(|(name, _)| self.name.starts_with(name));
        served.map(|(_, why)| *why)
    }
}

/// How many devices are made of a block device: mapped, striped.
pub(crate) fn holders(device: u32) -> io::Result<u32> {
    let Some(dir) = directory(device)? else { return Ok(0) };
    let holders = found(SYS.names(dir.join("holders")))?;
    Ok(holders.unwrap_or_default().len() as u32)
}

/// The directory of a block device in sysfs. None if the device is none.
fn directory(device: u32) -> io::Result<Option<PathBuf>> {
    let (major, minor) = (device >> MINOR_BITS, device & 0xf_ffff);
    let target = found(SYS.read_link(format!("dev/block/{major}:{minor}")))?;
    Ok(target.map(|target| joined(Path::new("dev/block"), &target)))
}

/// None of what does not exist, or ends meanwhile.
fn found<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        read => read.map(Some),
    }
}

/// A directory below another, by the target of a symbolic link there. sysfs has no links on the way.
fn joined(dir: &Path, target: &Path) -> PathBuf {
    let mut path = dir.to_owned();
    for name in target {
        if name == ".." {
            path.pop();
        } else {
            path.push(name);
        }
    }
    path
}

pub(crate) fn number(text: &str) -> Option<u32> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(major.parse::<u32>().ok()? << MINOR_BITS | minor.parse::<u32>().ok()?)
}

/// A path that ends with a newline.
fn path(text: &[u8]) -> PathBuf {
    OsString::from_vec(text.strip_suffix(b"\n").unwrap_or(text).to_vec()).into()
}

/// Major numbers of [`COMMAND_DEVICES`], from proc_devices(5).
fn command_majors(devices: &str) -> impl Iterator<Item = u32> {
    let characters = devices.lines().take_while(|line| !line.starts_with("Block"));
    let named = characters.filter_map(|line| line.trim().split_once(' '));
    named
        .filter(|(_, name)| COMMAND_DEVICES.contains(name))
        .filter_map(|(major, _)| major.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_devices_are_found_among_character_devices() {
        let text = "Character devices:\n  1 mem\n 21 sg\n241 nvme-generic\n242 nvme\n246 bsg\n\n\
                    Block devices:\n  8 sd\n259 nvme\n";
        assert_eq!(command_majors(text).collect::<Vec<_>>(), [241, 242, 246]);
    }

    #[test]
    fn a_backing_file_is_read_up_to_its_newline() {
        assert_eq!(path(b"/a b\n\n"), Path::new("/a b\n"));
        assert_eq!(path(b"/a"), Path::new("/a"));
        assert!(Disk::find(0).unwrap().is_none());
    }

    #[test]
    fn served_disks_are_known_by_their_names() {
        let served = |name: &str| Disk { name: name.to_owned(), ..Disk::default() }.served();
        assert!(served("nbd0").is_some() && served("ublkb12").is_some());
        assert!(["sda", "dm-0", "nvme0n1"].iter().all(|name| served(name).is_none()));
    }

    #[test]
    fn an_external_journal_may_be_of_any_ext4_without_one_inside() {
        let mounts = volumes::mounts().unwrap();
        let lookup = Lookup::new(&mounts);
        let devices = ["/dev/null", "/dev/zero", "null", "/dev/none"].map(PathBuf::from);
        let beside = Beside {
            xfs: BTreeMap::from([(1, BTreeSet::from(devices))]),
            ext: BTreeSet::from([5, 6]),
            journals: BTreeSet::from([9]),
            inside: BTreeSet::from(["loop5".to_owned()]),
        };
        let of = |device, name| beside.of(device, name, &lookup);
        let (null, zero) = (1 << MINOR_BITS | 3, 1 << MINOR_BITS | 5);
        assert_eq!((of(1, "loop1"), of(4, "loop4")), (vec![(null, 1), (zero, 1)], vec![]));
        assert_eq!((of(5, "loop5"), of(6, "loop6")), (vec![], vec![(9, 0)]));
    }

    #[test]
    fn the_directory_of_a_device_is_found_by_its_link() {
        let dir = |target: &str| joined(Path::new("dev/block"), Path::new(target));
        let partition = "devices/pci0000:00/0000:00:05.0/ata1/block/sda/sda1";
        assert_eq!(dir(&format!("../../{partition}")), Path::new(partition));
        assert_eq!(number("8:1\n"), Some(8 << MINOR_BITS | 1));
        assert_eq!(number("8"), None);
    }
}
