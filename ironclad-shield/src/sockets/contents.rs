//! Reads executables whose content a policy pins.
//!
//! The owner of a file decides how long reading takes, so files are read without Shield's lock. With
//! the lock, files are only checked: contents that were read hold for files that are unchanged.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_bpf::pseudo_fs::reopen;
use ironclad_bpf::socket::OpenFiles;
use ironclad_core::abi::OpenFile;
use ironclad_policy::Sha256Sum;
use ironclad_policy::socket::BoundFile;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::ShieldError;

/// Files that are open at a time.
const AT_ONCE: usize = 128;
/// Attempts to read a file that changes.
const ATTEMPTS: u32 = 20;
/// Time between them: the longest tick of the clock that file systems take their times from.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of the largest file that is read. A file that changes is not read again after as many.
const LARGEST: u64 = 1 << 30;
const TOO_LARGE: &str = "it is larger than 1 GiB";

/// Pinned files.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Those that exist.
    pub(crate) files: BTreeMap<PathBuf, BoundFile>,
    /// Why the content of some of them is not known.
    pub(crate) unknown: BTreeMap<PathBuf, &'static str>,
}

impl Contents {
    fn record(&mut self, path: &Path, file: &OpenFile, content: Result<Sha256Sum, &'static str>) {
        let (id, changed_ns, sha256) = (file.file, file.changed_ns, content.ok());
        let found = BoundFile { id, changed_ns, sha256, ..BoundFile::default() };
        self.files.insert(path.to_owned(), found);
        match content {
            Ok(_) => self.unknown.remove(path),
            Err(why) => self.unknown.insert(path.to_owned(), why),
        };
    }
}

/// The result of a check of files.
pub(crate) enum Checked {
    Contents(Contents),
    /// These have to be read first.
    Unread(BTreeSet<PathBuf>),
}

struct Candidate<'a> {
    path: &'a Path,
    found: OwnedFd,
    is_regular: bool,
    /// For reading. On an overlay, only this leads to the file below.
    file: Option<File>,
    /// Bytes that were read.
    read: u64,
    /// Why it is not read.
    refused: Option<&'static str>,
}

impl<'a> Candidate<'a> {
    /// None where it does not exist.
    fn find(path: &'a Path) -> Result<Option<Self>, ShieldError> {
        // Opening a device or a pipe for reading has effects: its type is checked first.
        let found = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(failed(path, e.into()).into()),
        };
        let mut this = Self { path, found, is_regular: false, file: None, read: 0, refused: None };
        this.check()?;
        this.open().map_err(|e| failed(path, e))?;
        Ok(Some(this))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().map_or(self.found.as_fd(), AsFd::as_fd)
    }

    /// Reads its type and size.
    fn check(&mut self) -> Result<(), ShieldError> {
        let found = rustix::fs::fstat(&self.found).map_err(|e| failed(self.path, e.into()))?;
        self.is_regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        self.refused = match self.is_regular {
            true => (found.st_size as u64 > LARGEST).then_some(TOO_LARGE),
            false => Some("it is no regular file"),
        };
        Ok(())
    }

    /// A lease is not waited for: breaking it may take fs.lease-break-time.
    fn is_leased(&self) -> bool {
        self.is_regular && self.file.is_none()
    }

    fn open(&mut self) -> io::Result<()> {
        if !self.is_regular || self.file.is_some() {
            return Ok(());
        }
        match reopen(self.found.as_fd()) {
            Ok(file) => self.file = Some(file.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {} // A lease.
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// None where it is not read, or cannot be read now.
    fn checksum(&mut self, stop: &AtomicBool) -> io::Result<Option<Sha256Sum>> {
        if self.refused.is_some() {
            return Ok(None);
        }
        self.open()?;
        let Some(file) = &mut self.file else { return Ok(None) };
        file.rewind()?;
        let (sum, read) = Sha256Sum::of_reader(file, LARGEST, stop)?;
        self.read += read;
        if sum.is_none() {
            self.refused = Some(TOO_LARGE);
        }
        Ok(sum)
    }
}

/// The contents of `paths` that were `read` or are `known`: nothing is read. A file that has changed
/// since has to be read; on the last attempt, its content is not known instead.
pub(crate) fn check(
    open_files: &OpenFiles,
    paths: &BTreeSet<&Path>,
    known: &[&BTreeMap<PathBuf, BoundFile>],
    read: &Contents,
    is_last: bool,
) -> Result<Checked, ShieldError> {
    let paths: Vec<&Path> = paths.iter().copied().collect();
    let (mut contents, mut unread) = (Contents::default(), BTreeSet::new());
    for some in paths.chunks(AT_ONCE) {
        for (Candidate { path, refused, .. }, now) in find(open_files, some)? {
            let is_still = |was: &&BoundFile| {
                now.writers <= 0 && was.id == now.file && was.changed_ns == now.changed_ns
            };
            let was_read = read.files.get(path).filter(|was| was.id == now.file);
            let known = known.iter().filter_map(|files| files.get(path)).chain(was_read);
            let sum = known.filter(is_still).find_map(|was| was.sha256);
            let why = was_read.and_then(|_| read.unknown.get(path));
            let why = refused.or(why.copied()).or(is_last.then_some("it keeps changing"));
            match (sum, why) {
                (Some(sum), _) => contents.record(path, &now, Ok(sum)),
                (None, Some(why)) => contents.record(path, &now, Err(why)),
                (None, None) => drop(unread.insert(path.to_owned())),
            }
        }
    }
    Ok(if unread.is_empty() { Checked::Contents(contents) } else { Checked::Unread(unread) })
}

/// Reads identity, ctime and checksum of each of `paths` into `contents`. The kernel's programs compare
/// the ctime, so a later change of the file is noticed at its next execve(2).
///
/// Fails soon after `stop` is set.
pub(crate) fn read(
    open_files: &OpenFiles,
    paths: &BTreeSet<PathBuf>,
    stop: &AtomicBool,
    contents: &mut Contents,
) -> Result<(), ShieldError> {
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    for some in paths.chunks(AT_ONCE) {
        let mut pending: Vec<_> =
            find(open_files, some)?.into_iter().map(|(candidate, _)| candidate).collect();
        for attempt in 1..=ATTEMPTS {
            if pending.is_empty() {
                break;
            }
            if attempt > 1 {
                std::thread::sleep(TICK);
            }
            pending = read_unchanged(open_files, pending, attempt == ATTEMPTS, stop, contents)?;
        }
    }
    Ok(())
}

/// The paths that exist, and their state in the kernel.
fn find<'a>(
    open_files: &OpenFiles,
    paths: &[&'a Path],
) -> Result<Vec<(Candidate<'a>, OpenFile)>, ShieldError> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        found.extend(Candidate::find(path)?);
    }
    let open = listed(open_files)?;
    // On an overlay, the file below is known once it is opened: a leased one counts as missing.
    found.retain(|one| !one.is_leased() || open.contains_key(&(one.fd().as_raw_fd() as u32)));
    let states = states(&open, &found)?;
    Ok(found.into_iter().zip(states).collect())
}

fn failed(path: &Path, source: io::Error) -> BpfError {
    BpfError::system(format!("reading {}", path.display()), source)
}

/// Records the files that do not change, and those that are refused; returns the other ones, unless
/// this is the last attempt.
///
/// A file that was last changed in the present tick of the clock may change again and keep its ctime,
/// and a process that has mapped it for writing may change it without: the content of neither is known.
fn read_unchanged<'a>(
    open_files: &OpenFiles,
    mut pending: Vec<Candidate<'a>>,
    is_last: bool,
    stop: &AtomicBool,
    contents: &mut Contents,
) -> Result<Vec<Candidate<'a>>, ShieldError> {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let before = states(&listed(open_files)?, &pending)?;
    let mut sums = Vec::with_capacity(pending.len());
    for (candidate, state) in pending.iter_mut().zip(&before) {
        candidate.check()?;
        let is_still = state.writers <= 0 && state.changed_ns < now_ns;
        sums.push(match is_still {
            true => candidate.checksum(stop).map_err(|e| failed(candidate.path, e))?,
            false => None,
        });
    }
    let after = states(&listed(open_files)?, &pending)?;
    let mut changing = Vec::new();
    for (i, candidate) in pending.into_iter().enumerate() {
        let OpenFile { changed_ns, writers, .. } = after[i];
        let sum = sums[i].filter(|_| writers <= 0 && changed_ns == before[i].changed_ns);
        let content = match (sum, candidate.refused) {
            (Some(sum), _) => Ok(sum),
            (None, Some(why)) => Err(why),
            (None, None) if !is_last && candidate.read < LARGEST => {
                changing.push(candidate);
                continue;
            }
            (None, None) => Err(match writers {
                1.. => "a process has it open for writing",
                _ if candidate.is_leased() => "a process has a lease on it",
                _ if changed_ns >= now_ns => "it was changed just now, or its ctime lies ahead",
                _ => "it keeps changing",
            }),
        };
        contents.record(candidate.path, &after[i], content);
    }
    Ok(changing)
}

/// The open files of this process, by descriptor.
fn listed(open_files: &OpenFiles) -> Result<BTreeMap<u32, OpenFile>, ShieldError> {
    Ok(open_files.list()?.into_iter().map(|file| (file.fd, file)).collect())
}

/// Their state in the kernel.
fn states(
    open: &BTreeMap<u32, OpenFile>,
    candidates: &[Candidate<'_>],
) -> Result<Vec<OpenFile>, ShieldError> {
    let state = |candidate: &Candidate<'_>| {
        let found = open.get(&(candidate.fd().as_raw_fd() as u32)).copied();
        let unlisted = || io::Error::other("the kernel does not list open files of this process");
        Ok(found.ok_or_else(|| failed(candidate.path, unlisted()))?)
    };
    candidates.iter().map(state).collect()
}
