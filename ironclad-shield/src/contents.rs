//! What executables contain whose content a policy has pinned.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_bpf::socket::Processes;
use ironclad_core::abi::OpenFile;
use ironclad_policy::Sha256Sum;
use ironclad_policy::socket::BoundFile;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::error::ShieldError;

/// Files that are open at a time.
const AT_ONCE: usize = 128;
/// Looks at a file that changes.
const LOOKS: u32 = 20;
/// Between them: the longest tick of the clock that file systems take their times from.
const TICK: Duration = Duration::from_millis(10);

/// Pinned files.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Those that are there.
    pub(crate) files: BTreeMap<PathBuf, BoundFile>,
    /// Why the content of some of them cannot be told.
    pub(crate) unknown: Vec<(PathBuf, &'static str)>,
}

struct Candidate<'a> {
    path: &'a Path,
    /// As it was found, and to read from where it is a regular file.
    found: OwnedFd,
    file: Option<File>,
    why: &'static str,
}

impl Candidate<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().map_or(self.found.as_fd(), AsFd::as_fd)
    }
}

/// Identity, ctime and checksum of each of `paths`. The ctime is what the kernel's programs compare, so
/// whoever changes the file after this is noticed at its next execve(2). What is found as `keep` says
/// of it already is not read.
pub(crate) fn read(
    processes: &Processes,
    paths: &BTreeSet<&Path>,
    keep: impl Fn(&Path, &OpenFile) -> Option<BoundFile>,
) -> Result<Contents, ShieldError> {
    let paths: Vec<&Path> = paths.iter().copied().collect();
    let mut contents = Contents::default();
    for some in paths.chunks(AT_ONCE) {
        let mut pending = Vec::new();
        for path in some {
            pending.extend(open(path).map_err(|e| failed(path, e))?);
        }
        let found = states(processes, &pending)?;
        let mut found = found.iter();
        pending.retain(|candidate| {
            let kept = found.next().and_then(|file| keep(candidate.path, file));
            kept.map(|kept| contents.files.insert(candidate.path.to_owned(), kept)).is_none()
        });
        for look in 1..=LOOKS {
            if pending.is_empty() {
                break;
            }
            if look > 1 {
                std::thread::sleep(TICK);
            }
            pending = look_at(processes, pending, look == LOOKS, &mut contents)?;
        }
    }
    Ok(contents)
}

fn failed(path: &Path, source: io::Error) -> BpfError {
    let source = io::Error::new(source.kind(), format!("{}: {source}", path.display()));
    BpfError::System { step: "reading an executable", source }
}

fn open(path: &Path) -> io::Result<Option<Candidate<'_>>> {
    // Opening a device or a pipe for reading has effects: first looked at, then opened.
    let found = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
    let file = match kind {
        FileType::RegularFile => Some(File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?),
        _ => None,
    };
    Ok(Some(Candidate { path, found, file, why: "it is no regular file" }))
}

/// Takes down what does not change; the others are returned, unless this is the last look.
///
/// A file that was last changed in the present tick of the clock may change again and keep its ctime,
/// and who has mapped it for writing may change it without: neither can be told.
fn look_at<'a>(
    processes: &Processes,
    pending: Vec<Candidate<'a>>,
    is_last: bool,
    contents: &mut Contents,
) -> Result<Vec<Candidate<'a>>, ShieldError> {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let before = states(processes, &pending)?;
    let mut sums = Vec::with_capacity(pending.len());
    for (candidate, state) in pending.iter().zip(&before) {
        let is_still = state.writers <= 0 && state.changed_ns < now_ns;
        let file = candidate.file.as_ref().filter(|_| is_still);
        sums.push(match file {
            Some(file) => Some(checksum(file).map_err(|e| failed(candidate.path, e))?),
            None => None,
        });
    }
    let after = states(processes, &pending)?;
    let mut moving = Vec::new();
    for (i, mut candidate) in pending.into_iter().enumerate() {
        let (OpenFile { file: id, changed_ns, writers, .. }, sum) = (after[i], sums[i]);
        let sha256 = sum.filter(|_| writers <= 0 && changed_ns == before[i].changed_ns);
        if sha256.is_none() && candidate.file.is_some() {
            candidate.why = match writers {
                1.. => "somebody has it open for writing",
                _ if changed_ns >= now_ns => "it was changed just now, or its ctime lies ahead",
                _ => "it keeps changing",
            };
            if !is_last {
                moving.push(candidate);
                continue;
            }
        }
        if sha256.is_none() {
            contents.unknown.push((candidate.path.to_owned(), candidate.why));
        }
        let found = BoundFile { id, changed_ns, sha256, ..BoundFile::default() };
        contents.files.insert(candidate.path.to_owned(), found);
    }
    Ok(moving)
}

/// What the kernel knows of them.
fn states(
    processes: &Processes,
    candidates: &[Candidate<'_>],
) -> Result<Vec<OpenFile>, ShieldError> {
    let open: BTreeMap<u32, OpenFile> =
        processes.open_files()?.into_iter().map(|file| (file.fd, file)).collect();
    let state = |candidate: &Candidate<'_>| {
        let found = open.get(&(candidate.fd().as_raw_fd() as u32)).copied();
        let unlisted = || io::Error::other("the kernel does not list our open files");
        Ok(found.ok_or_else(|| failed(candidate.path, unlisted()))?)
    };
    candidates.iter().map(state).collect()
}

fn checksum(mut file: &File) -> io::Result<Sha256Sum> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 17]);
    file.rewind()?;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sha256Sum(hash.finalize().into())),
            Ok(some) => hash.update(&buffer[..some]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
