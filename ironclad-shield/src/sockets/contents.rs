//! What executables contain whose content a policy has pinned.
//!
//! How long reading takes is up to whoever owns a file, so nobody reads with Shield's lock. Whoever has
//! the lock only looks at files: what was read of them before holds where they are as they were.
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ironclad_bpf::BpfError;
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
/// Looks at a file that changes.
const LOOKS: u32 = 20;
/// Between them: the longest tick of the clock that file systems take their times from.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of the largest file that is read. One that changes is not begun again after as many.
const LARGEST: u64 = 1 << 30;
const TOO_LARGE: &str = "it is larger than 1 GiB";

/// Pinned files.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Those that are there.
    pub(crate) files: BTreeMap<PathBuf, BoundFile>,
    /// Why the content of some of them cannot be told.
    pub(crate) unknown: BTreeMap<PathBuf, &'static str>,
}

impl Contents {
    fn tell(&mut self, path: &Path, file: &OpenFile, content: Result<Sha256Sum, &'static str>) {
        let (id, changed_ns, sha256) = (file.file, file.changed_ns, content.ok());
        let found = BoundFile { id, changed_ns, sha256, ..BoundFile::default() };
        self.files.insert(path.to_owned(), found);
        match content {
            Ok(_) => self.unknown.remove(path),
            Err(why) => self.unknown.insert(path.to_owned(), why),
        };
    }
}

/// What a look at files tells.
pub(crate) enum Look {
    Contents(Contents),
    /// These are to be read first.
    Unread(BTreeSet<PathBuf>),
}

struct Candidate<'a> {
    path: &'a Path,
    found: OwnedFd,
    is_regular: bool,
    /// To read from; of what is on an overlay, only this leads to the file below.
    file: Option<File>,
    /// Bytes that were read of it.
    read: u64,
    /// Why it is not read.
    refused: Option<&'static str>,
}

impl<'a> Candidate<'a> {
    /// None where nothing is there.
    fn find(path: &'a Path) -> Result<Option<Self>, ShieldError> {
        // Opening a device or a pipe for reading has effects: first looked at, then opened.
        let found = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(failed(path, e.into()).into()),
        };
        let mut this = Self { path, found, is_regular: false, file: None, read: 0, refused: None };
        this.look()?;
        this.open().map_err(|e| failed(path, e))?;
        Ok(Some(this))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_ref().map_or(self.found.as_fd(), AsFd::as_fd)
    }

    /// Whether it may be read as it is now.
    fn look(&mut self) -> Result<(), ShieldError> {
        let found = rustix::fs::fstat(&self.found).map_err(|e| failed(self.path, e.into()))?;
        self.is_regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
        self.refused = match self.is_regular {
            true => (found.st_size as u64 > LARGEST).then_some(TOO_LARGE),
            false => Some("it is no regular file"),
        };
        Ok(())
    }

    /// Nobody waits until it is given back, which may take as long as fs.lease-break-time says.
    fn is_leased(&self) -> bool {
        self.is_regular && self.file.is_none()
    }

    fn open(&mut self) -> io::Result<()> {
        if !self.is_regular || self.file.is_some() {
            return Ok(());
        }
        let path = format!("/proc/self/fd/{}", self.found.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => self.file = Some(file.into()),
            Err(Errno::WOULDBLOCK) => {} // A lease.
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// None where it may not be read, or not now.
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

/// What `paths` contain, by what of them was `read` or is `known`: nothing is read. What is not as it
/// was then is to be read; where this is the last look, its content cannot be told.
pub(crate) fn look(
    open_files: &OpenFiles,
    paths: &BTreeSet<&Path>,
    known: &[&BTreeMap<PathBuf, BoundFile>],
    read: &Contents,
    is_last: bool,
) -> Result<Look, ShieldError> {
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
                (Some(sum), _) => contents.tell(path, &now, Ok(sum)),
                (None, Some(why)) => contents.tell(path, &now, Err(why)),
                (None, None) => drop(unread.insert(path.to_owned())),
            }
        }
    }
    Ok(if unread.is_empty() { Look::Contents(contents) } else { Look::Unread(unread) })
}

/// Identity, ctime and checksum of each of `paths` take the place of what `contents` say of them. The
/// ctime is what the kernel's programs compare, so whoever changes the file after this is noticed at its
/// next execve(2).
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
        for look in 1..=LOOKS {
            if pending.is_empty() {
                break;
            }
            if look > 1 {
                std::thread::sleep(TICK);
            }
            pending = look_at(open_files, pending, look == LOOKS, stop, contents)?;
        }
    }
    Ok(())
}

/// What is there, and what the kernel knows of it.
fn find<'a>(
    open_files: &OpenFiles,
    paths: &[&'a Path],
) -> Result<Vec<(Candidate<'a>, OpenFile)>, ShieldError> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        found.extend(Candidate::find(path)?);
    }
    let open = listed(open_files)?;
    // On an overlay, what is below is known of what was opened only: as if nothing were there.
    found.retain(|one| !one.is_leased() || open.contains_key(&(one.fd().as_raw_fd() as u32)));
    let states = states(&open, &found)?;
    Ok(found.into_iter().zip(states).collect())
}

fn failed(path: &Path, source: io::Error) -> BpfError {
    BpfError::system(format!("reading executable {}", path.display()), source)
}

/// Takes down what does not change, and what is refused; the others are returned, unless this is the
/// last look.
///
/// A file that was last changed in the present tick of the clock may change again and keep its ctime,
/// and who has mapped it for writing may change it without: neither can be told.
fn look_at<'a>(
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
        candidate.look()?;
        let is_still = state.writers <= 0 && state.changed_ns < now_ns;
        sums.push(match is_still {
            true => candidate.checksum(stop).map_err(|e| failed(candidate.path, e))?,
            false => None,
        });
    }
    let after = states(&listed(open_files)?, &pending)?;
    let mut moving = Vec::new();
    for (i, candidate) in pending.into_iter().enumerate() {
        let OpenFile { changed_ns, writers, .. } = after[i];
        let sum = sums[i].filter(|_| writers <= 0 && changed_ns == before[i].changed_ns);
        let content = match (sum, candidate.refused) {
            (Some(sum), _) => Ok(sum),
            (None, Some(why)) => Err(why),
            (None, None) if !is_last && candidate.read < LARGEST => {
                moving.push(candidate);
                continue;
            }
            (None, None) => Err(match writers {
                1.. => "somebody has it open for writing",
                _ if candidate.is_leased() => "somebody has a lease on it",
                _ if changed_ns >= now_ns => "it was changed just now, or its ctime lies ahead",
                _ => "it keeps changing",
            }),
        };
        contents.tell(candidate.path, &after[i], content);
    }
    Ok(moving)
}

/// Our open files by their descriptors.
fn listed(open_files: &OpenFiles) -> Result<BTreeMap<u32, OpenFile>, ShieldError> {
    Ok(open_files.list()?.into_iter().map(|file| (file.fd, file)).collect())
}

/// What the kernel knows of them.
fn states(
    open: &BTreeMap<u32, OpenFile>,
    candidates: &[Candidate<'_>],
) -> Result<Vec<OpenFile>, ShieldError> {
    let state = |candidate: &Candidate<'_>| {
        let found = open.get(&(candidate.fd().as_raw_fd() as u32)).copied();
        let unlisted = || io::Error::other("the kernel does not list our open files");
        Ok(found.ok_or_else(|| failed(candidate.path, unlisted()))?)
    };
    candidates.iter().map(state).collect()
}
