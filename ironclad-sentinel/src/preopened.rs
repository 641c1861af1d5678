//! What has protected files open for writing since before the rules covered them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::{Census, Guard};
use ironclad_core::abi::{self, FileId, Held, OpenDescriptor};
use serde::Serialize;

use crate::backing::{self, MINOR_BITS};
use crate::error::SentinelError;
use crate::resolve::Coverage;

/// A pre-opened descriptor: of a file that a rule denies to write, opened for writing before the rule covered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PreopenedDescriptor {
    /// Bit n: rule n denies writing.
    pub rules: u64,
    /// The process, by its thread group.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
}

/// A file or device that is open, and not by a descriptor that a process has: the descriptor is on its way over a
/// socket, or the file belongs to io_uring, a loop device, an overlay, swapon(2), acct(2) or a shared mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeldFile {
    /// A file that a rule denies to write is open for writing.
    File {
        /// Its name, without directories, cut to 63 bytes.
        name: String,
        /// Bit n: rule n denies writing.
        rules: u64,
        /// How often it is open.
        count: u32,
    },
    /// A block device below files that a rule denies to write is open.
    Device {
        /// Its device, as `major:minor`.
        device: String,
        /// Bit n: rule n denies writing.
        rules: u64,
        /// How often it is open.
        count: u32,
    },
    /// The kernel's lists changed while files were counted: there may be more.
    NotCounted,
}

impl fmt::Display for HeldFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = "by no descriptor of a process: one in flight, io_uring, a loop device, an overlay, acct(2) or a mapping";
        match self {
            Self::File { name, .. } => {
                write!(f, "file `{}` is open for writing {by}", name.escape_debug())
            }
            Self::Device { device, .. } => write!(f, "block device {device} is open {by}"),
            Self::NotCounted => f.write_str("open files could not be counted"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Preopened {
    pub(crate) descriptors: Vec<PreopenedDescriptor>,
    pub(crate) held: Vec<HeldFile>,
}

/// Open files that the kernel needs, and that are no descriptors.
#[derive(Debug, Default)]
struct Expected<'a> {
    /// Backing files of loop devices that can write.
    loops: Option<&'a BTreeSet<FileId>>,
    /// How many devices are made of a device: mapped, striped; and how many file systems have it beside their own.
    holders: BTreeMap<u32, u32>,
}

impl Preopened {
    /// Counts, and has writes checked where something was found; where nothing was, no longer.
    pub(crate) fn find(guard: &Guard, coverage: &Coverage) -> Result<Self, SentinelError> {
        let is_block = |it: &&u32| **it & abi::VOLUME_CHARACTER == 0;
        let volumes: Vec<_> = coverage.volumes.keys().filter(is_block).copied().collect();
        let census = guard.census(&volumes)?;
        let devices = census.held.iter().filter(|it| it.kind == abi::HELD_DEVICE && it.rules != 0);
        let holders = devices.map(|it| {
            let beside = coverage.beside.get(&it.file.dev).map_or(0, |by| by.len() as u32);
            Ok((it.file.dev, backing::holders(it.file.dev)? + beside))
        });
        let holders = holders
            .collect::<std::io::Result<_>>()
            .map_err(|source| BpfError::system("reading the holders of a device", source))?;
        let expected = Expected { loops: Some(&coverage.loops), holders };
        let found = Self::of(&census, &expected);
        guard.check_writes(found != Self::default() || may_write(&census, &expected))?;
        Ok(found)
    }

    fn of(census: &Census, expected: &Expected<'_>) -> Self {
        let is_preopened = |it: &&OpenDescriptor| {
            it.flags & (abi::OPEN_WRITES | abi::OPEN_TRUSTED) == abi::OPEN_WRITES
        };
        let descriptors = census.descriptors.iter().filter(is_preopened);
        let descriptors =
            descriptors.map(|it| PreopenedDescriptor { rules: it.rules, pid: it.pid, fd: it.fd });
        let held = census.held.iter().filter_map(|it| unexplained(it, census, expected, &|_| true));
        let not_counted = (!census.is_complete).then_some(HeldFile::NotCounted);
        Self { descriptors: descriptors.collect(), held: held.chain(not_counted).collect() }
    }
}

/// Whether a process that is not trusted may still have a protected file or a device below one open for writing. Only
/// descriptors of trusted processes explain a count: another process could open a device for reading after it was
/// counted, and so stand for a descriptor that is hidden.
fn may_write(census: &Census, expected: &Expected<'_>) -> bool {
    let is_trusted = |it: &OpenDescriptor| it.flags & abi::OPEN_TRUSTED != 0;
    let is_open = |held: &Held| unexplained(held, census, expected, &is_trusted).is_some();
    census.held.iter().any(is_open)
}

/// An entry of the census that is open more often than is known, and than the descriptors that count explain.
fn unexplained(
    held: &Held,
    census: &Census,
    expected: &Expected<'_>,
    counts: &dyn Fn(&OpenDescriptor) -> bool,
) -> Option<HeldFile> {
    let is_device = held.kind == abi::HELD_DEVICE;
    if held.rules == 0 || held.kind == abi::HELD_MOUNT {
        return None;
    }
    let of_it = census.descriptors.iter().filter(|it| {
        it.file == held.file && (it.flags & abi::OPEN_DEVICE != 0) == is_device && counts(it)
    });
    // Several descriptors may share an open file.
    let seen = of_it.map(|it| it.open_file).collect::<BTreeSet<_>>().len() as u32;
    let known = match is_device {
        true => {
            let entries = |is_it: &dyn Fn(&Held) -> bool| {
                census.held.iter().filter(|it| is_it(it)).count() as u32
            };
            let device = held.file.dev;
            let mounts = entries(&|it| it.kind == abi::HELD_MOUNT && it.file.dev == device);
            // Before Linux 5.11 an open partition opens its disk once, and since as often as it is open itself.
            let partitions = entries(&|it| it.kind == abi::HELD_DEVICE && it.whole == device);
            mounts + partitions + expected.holders.get(&device).copied().unwrap_or(0)
        }
        false => u32::from(expected.loops.is_some_and(|loops| loops.contains(&held.file))),
    };
    let count = held.count.saturating_sub(seen + known);
    let (rules, device) = (held.rules, held.file.dev);
    (count != 0).then(|| match is_device {
        true => {
            let device = format!("{}:{}", device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1));
            HeldFile::Device { device, rules, count }
        }
        false => {
            let name = held.name.split(|&byte| byte == 0).next().unwrap_or_default();
            HeldFile::File { name: String::from_utf8_lossy(name).into_owned(), rules, count }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId { ino: 7, dev: 1, generation: 3 };
    const DISK: FileId = FileId { ino: 0, dev: 8 << MINOR_BITS, generation: 0 };
    const PARTITION: FileId = FileId { ino: 0, dev: 8 << MINOR_BITS | 1, generation: 0 };

    fn held(kind: u32, file: FileId, count: u32) -> Held {
        let mut name = [0; 64];
        name[..4].copy_from_slice(b"name");
        Held { rules: 1, file, kind, count, whole: 0, _pad: 0, name }
    }

    fn descriptor(file: FileId, open_file: u64, flags: u32) -> OpenDescriptor {
        OpenDescriptor { rules: 1, open_file, file, pid: 5, fd: 6, flags, _pad: 0 }
    }

    fn found(held: Vec<Held>, descriptors: Vec<OpenDescriptor>) -> Preopened {
        let mut census = Census::default();
        (census.held, census.descriptors, census.is_complete) = (held, descriptors, true);
        Preopened::of(&census, &Expected::default())
    }

    #[test]
    fn open_files_are_descriptors_or_reported() {
        let shared = descriptor(FILE, 11, abi::OPEN_WRITES);
        let own = descriptor(FILE, 12, abi::OPEN_WRITES | abi::OPEN_TRUSTED);
        let is_held = |count, descriptors: &[OpenDescriptor]| {
            let found = found(vec![held(abi::HELD_FILE, FILE, count)], descriptors.to_vec());
            (found.descriptors.len(), found.held.len())
        };
        assert_eq!(is_held(1, &[]), (0, 1));
        // Two descriptors of one open file are one, and the agent's own is no finding.
        assert_eq!(is_held(1, &[shared, shared]), (2, 0));
        assert_eq!(is_held(2, &[shared, own]), (1, 0));
        assert_eq!(is_held(3, &[shared, own]), (1, 1));
        // A device with the number of the file's is another one.
        let device = descriptor(FileId { ino: 0, ..FILE }, 13, abi::OPEN_DEVICE);
        assert_eq!(is_held(1, &[device]), (0, 1));
        let text = found(vec![held(abi::HELD_FILE, FILE, 1)], Vec::new()).held[0].to_string();
        assert!(text.contains("file `name` is open for writing by no descriptor"), "{text}");
    }

    #[test]
    fn devices_are_open_by_mounts_partitions_and_holders() {
        let mut partition = held(abi::HELD_DEVICE, PARTITION, 1);
        partition.whole = DISK.dev;
        let mount = held(abi::HELD_MOUNT, PARTITION, 0);
        let known = vec![held(abi::HELD_DEVICE, DISK, 1), partition, mount];
        assert_eq!(found(known.clone(), Vec::new()), Preopened::default());
        let mut more = known.clone();
        more[0].count = 2;
        let reader = descriptor(DISK, 14, abi::OPEN_DEVICE);
        assert_eq!(found(more.clone(), vec![reader]), Preopened::default());
        // It could have been opened after the count, to stand for a descriptor that is hidden.
        let census = |descriptors| Census { held: more.clone(), descriptors, is_complete: true };
        assert!(may_write(&census(vec![reader]), &Expected::default()));
        let own = descriptor(DISK, 14, abi::OPEN_DEVICE | abi::OPEN_TRUSTED);
        assert!(!may_write(&census(vec![own]), &Expected::default()));
        let device = "8:0".to_owned();
        assert_eq!(
            found(more.clone(), Vec::new()).held,
            [HeldFile::Device { device, rules: 1, count: 1 }]
        );
        let census = Census { held: more, is_complete: false, ..Census::default() };
        let holders = BTreeMap::from([(DISK.dev, 1)]);
        let expected = Expected { loops: None, holders };
        assert_eq!(Preopened::of(&census, &expected).held, [HeldFile::NotCounted]);
    }

    #[test]
    fn a_loop_device_that_can_write_has_its_file_open() {
        let loops = BTreeSet::from([FILE]);
        let expected = Expected { loops: Some(&loops), ..Expected::default() };
        for (count, is_held) in [(1, false), (2, true)] {
            let mut census = Census::default();
            (census.held, census.is_complete) = (vec![held(abi::HELD_FILE, FILE, count)], true);
            assert_eq!(!Preopened::of(&census, &expected).held.is_empty(), is_held);
        }
    }
}
