//! Sentinel's own rules, which no policy changes.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::pseudo_fs::PROC;
use ironclad_core::abi::{self, FileOp, FilePolicy};
use ironclad_policy::file::FileOps;

use crate::volumes;

/// A path of a rule of Sentinel's own.
#[derive(Clone, Debug)]
pub(crate) struct OwnPath {
    pub(crate) path: PathBuf,
    pub(crate) is_tree: bool,
    /// The bit of the rule.
    pub(crate) bit: u64,
}

/// The audit file. The rule covers no operation: other processes may change the file, and not lock it.
const LOCKED: u64 = 1 << abi::OWN_LOCKED;
/// Of mount points: removing or renaming one in a mount namespace without the mount detaches the mount
/// everywhere.
pub(crate) const MOUNTS: u64 = 1 << abi::OWN_MOUNTS;
const GROUP: u64 = 1 << abi::OWN_GROUP;
const EXECUTABLE: u64 = 1 << abi::OWN_EXECUTABLE;
const CODE: u64 = 1 << abi::OWN_CODE;
const STATE: u64 = 1 << abi::OWN_STATE;
const PINS: u64 = 1 << abi::OWN_PINS;

/// The rules that updaters are exempt from.
pub(crate) const UPDATED: u64 = EXECUTABLE | CODE;
/// The rules that cgroup managers are exempt from.
pub(crate) const MANAGED: u64 = GROUP;

/// The program by which systemd starts services. It writes to their cgroups. systemd before 255 lacks it.
const EXECUTORS: [&str; 2] = ["/usr/lib/systemd/systemd-executor", "/lib/systemd/systemd-executor"];

/// The paths of executors, without symbolic links, also of missing ones in directories that exist: Sentinel covers these
/// names, and no others are exempt. Who creates a directory later creates no exempt executable in it.
pub(crate) fn executors() -> BTreeSet<PathBuf> {
    let real = |path: &Path| match std::fs::canonicalize(path) {
        Ok(path) => Some(path),
        Err(_) => {
            let dir = std::fs::canonicalize(path.parent()?).ok()?;
            volumes::unsupported(&dir).is_none().then_some(dir.join(path.file_name()?))
        }
    };
    EXECUTORS.iter().filter_map(|path| real(path.as_ref())).collect()
}

/// The agent's executable, the files that it has mapped as executable, and its cgroup; of a persistent
/// agent, its secret and pins; the baseline; `files` of the trust store; the file that the audit sink locks; and
/// [`executors`].
pub(crate) fn paths(
    state: Option<&Path>,
    pins: Option<&Path>,
    files: Vec<PathBuf>,
    locked: Option<PathBuf>,
    executors: &BTreeSet<PathBuf>,
) -> io::Result<Vec<OwnPath>> {
    let exe = std::fs::canonicalize(PROC.read_link("self/exe")?)?;
    let file = |path, bit| OwnPath { path, is_tree: false, bit };
    let mut found = vec![file(exe.clone(), EXECUTABLE)];
    let mut code = code()?;
    // The dynamic loader finds libraries by one, and preloads libraries from the other, also into PID 1.
    let of_loader = ["/etc/ld.so.cache", "/etc/ld.so.preload"].map(Path::new);
    let has_directory = |path: &&Path| path.parent().is_some_and(Path::is_dir);
    code.extend(of_loader.into_iter().filter(has_directory).map(Path::to_owned));
    code.extend(executors.iter().cloned());
    found.extend(code.into_iter().filter(|path| *path != exe).map(|path| file(path, CODE)));
    if let Some(group) = volumes::group_of("self")? {
        found.push(OwnPath { path: group, is_tree: true, bit: GROUP });
    }
    // Files of directories above a protected file are protected. A frozen PID 1 starts no successor.
    if let Some(group) = volumes::group_of("1")? {
        found.push(file(group.join("cgroup.procs"), GROUP));
    }
    let tree = |path: &Path, bit| OwnPath { path: path.to_owned(), is_tree: true, bit };
    found.extend(state.map(|path| tree(path, STATE)));
    found.extend(pins.map(|path| tree(path, PINS)));
    found.extend(files.into_iter().map(|path| file(path, STATE)));
    found.extend(locked.map(|path| file(path, LOCKED)));
    Ok(found)
}

/// Keeps the executable and the libraries of this process in memory. The kernel ends a process with SIGBUS where it
/// cannot read a page of them, because the disk is gone.
pub(crate) fn keep_code_in_memory() -> io::Result<()> {
    let maps = PROC.read("self/maps")?;
    let mappings: Vec<Mapping> = mappings(&maps).collect();
    let code: BTreeSet<&OsStr> =
        mappings.iter().filter(|it| it.is_code).map(|it| it.path).collect();
    let mut ranges = mappings.iter().filter(|it| code.contains(it.path)).map(|it| &it.addresses);
    ranges.try_for_each(|addresses| ironclad_bpf::keep_in_memory(addresses.clone()))
}

/// Files that this process has mapped as executable.
fn code() -> io::Result<BTreeSet<PathBuf>> {
    let maps = PROC.read("self/maps")?;
    Ok(mappings(&maps).filter(|it| it.is_code).map(|it| it.path.into()).collect())
}

/// A mapping of a file that has its name still.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    addresses: Range<usize>,
    is_code: bool,
    path: &'a OsStr,
}

/// Those of proc_pid_maps(5).
fn mappings(maps: &[u8]) -> impl Iterator<Item = Mapping<'_>> {
    maps.split(|&byte| byte == b'\n').filter_map(Mapping::parse)
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.splitn(6, |&byte| byte == b' ');
        let (begin, end) = std::str::from_utf8(words.next()?).ok()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let addresses = address(begin)?..address(end)?;
        let is_code = words.next()?.contains(&b'x');
        let path = words.nth(3)?.trim_ascii_start();
        let is_file = path.starts_with(b"/") && !path.ends_with(b" (deleted)");
        is_file.then(|| Self { addresses, is_code, path: OsStr::from_bytes(path) })
    }
}

/// The rules of a policy together with Sentinel's own.
pub(crate) fn with_own(policy: Option<FilePolicy>) -> FilePolicy {
    let mut policy =
        policy.unwrap_or(FilePolicy { op: [0; FileOp::ALL.len()], deny: 0, log: 0, below: 0 });
    let all = GROUP | EXECUTABLE | CODE | STATE | PINS;
    for op in FileOps::CHANGE.iter().chain([FileOp::Mount]) {
        policy.op[op as usize] |= all;
    }
    for op in [FileOp::Delete, FileOp::Rename] {
        policy.op[op as usize] |= MOUNTS;
    }
    policy.op[FileOp::Read as usize] |= STATE | PINS;
    policy.op[FileOp::Mount as usize] |= LOCKED;
    policy.deny |= all | LOCKED | MOUNTS;
    policy.below |= GROUP | STATE | PINS;
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_files_are_found() {
        let path =
            |line| Mapping::parse(line).map(|it| (it.addresses, it.is_code, it.path.to_owned()));
        let line = b"7f00-7f01 r-xp 00000000 08:01 42                         /usr/lib/a b.so";
        assert_eq!(path(line), Some((0x7f00..0x7f01, true, "/usr/lib/a b.so".into())));
        let line = b"7f00-7f01 r--p 00000000 08:01 42         /usr/lib/a.so";
        assert_eq!(path(line), Some((0x7f00..0x7f01, false, "/usr/lib/a.so".into())));
        for line in [
            &b"7f00-7f01 r-xp 00000000 08:01 42         /usr/lib/a.so (deleted)"[..],
            b"7f00-7f01 r-xp 00000000 00:00 0          [vdso]",
            b"7f00-7f01 r-xp 00000000 00:00 0 ",
            b"x-7f01 r-xp 00000000 08:01 42 /usr/lib/a.so",
            b"",
        ] {
            assert_eq!(path(line), None);
        }
        let own = std::env::current_exe().unwrap();
        assert!(code().unwrap().contains(&own), "{:?}", code());
    }
}
