//! Reads protected files, and compares two passes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use ironclad_bpf::pseudo_fs::reopen;
use ironclad_policy::Sha256Sum;
use rustix::time::{ClockId, clock_gettime};

use super::scope::Kind;
use super::{BaselineOptions, Change, FileChange, FileState, Progress, Scopes, Unread};
use crate::lookup::{Found, Lookup, Unreached};
use crate::volumes;

/// How often a file that changes during a read is read.
const READS: usize = 3;

/// The files of one pass.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) files: BTreeMap<PathBuf, Seen>,
    pub(super) unread: Vec<Unread>,
    pub(super) bytes: u64,
    pub(super) is_cut: bool,
}

/// A file, and what shows that it has not changed.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) state: FileState,
    /// Device, inode, ctime, and whether the ctime is in the past: a change within the same tick of the clock
    /// would have the same ctime.
    is: (u64, u64, i64, i64, bool),
}

impl Seen {
    fn is_still(&self, other: &(u64, u64, i64, i64, bool), size: u64) -> bool {
        self.is.4 && self.is == *other && self.state.size == size
    }
}

struct Walk<'a> {
    found: Snapshot,
    known: Option<&'a Snapshot>,
    /// Devices whose files are not read, and why.
    devices: BTreeMap<u64, Option<String>>,
    lookup: Lookup<'a>,
    /// The directory of the last file.
    dir: Option<Found>,
    /// The directory of the baseline itself, which is not read.
    own: &'a Path,
    options: &'a BaselineOptions,
    stop: &'a AtomicBool,
}

/// Reads the files in `scopes`. A file that has not changed since `known` is not read again.
pub(super) fn read(
    scopes: &Scopes,
    known: Option<&Snapshot>,
    own: &Path,
    options: &BaselineOptions,
    stop: &AtomicBool,
) -> io::Result<Snapshot> {
    let (found, devices) = (Snapshot::default(), BTreeMap::new());
    let mounts = volumes::mounts()?;
    let lookup = Lookup::new(&mounts);
    let mut walk = Walk { found, known, devices, lookup, dir: None, own, options, stop };
    let mut paths = BTreeSet::new();
    for scope in &scopes.0 {
        match scope.kind {
            Kind::File => drop(paths.insert(scope.real.clone())),
            Kind::Tree => walk.below(&scope.real, &mut paths),
            // Files that match now. A directory that cannot be read has none.
            Kind::Glob => {
                let found = scope.real.to_str().map(|pattern| walk.lookup.matches(pattern));
                let found = found.and_then(Result::ok).unwrap_or_default();
                let unread = |(path, why)| Unread { path, why };
                walk.found.unread.extend(found.served.into_iter().map(unread));
                let real = |path: PathBuf| walk.lookup.find(&path).ok().map(|found| found.path);
                paths.extend(found.paths.into_iter().filter_map(real));
            }
        }
    }
    walk.found.is_cut |= paths.len() > options.files;
    for path in paths.iter().take(options.files) {
        walk.file(path)?;
    }
    Ok(walk.found)
}

impl Walk<'_> {
    /// Regular files below a directory. A directory that is mounted several times is read once.
    fn below(&mut self, root: &Path, paths: &mut BTreeSet<PathBuf>) {
        let (mut left, mut known) = (vec![root.to_owned()], HashSet::new());
        while let Some(dir) = left.pop() {
            let place = match self.lookup.find(&dir) {
                Ok(place) if place.is_dir && place.path == dir => place,
                Err(Unreached::Served { why, .. }) => {
                    self.found.unread.push(Unread { path: dir, why });
                    continue;
                }
                // It was removed or replaced meanwhile.
                Ok(_) | Err(Unreached::Failed(_)) => continue,
            };
            let Ok((device, inode)) = place.id() else { continue };
            if dir == self.own || !known.insert((device, inode)) {
                continue;
            }
            if let Some(why) = self.refused(device, &dir) {
                self.found.unread.push(Unread { path: dir, why });
                continue;
            }
            let entries = match place.entries("".as_ref()) {
                Ok(entries) => entries,
                Err(e) => {
                    self.found.unread.push(Unread { path: dir, why: e.to_string() });
                    continue;
                }
            };
            for entry in entries {
                let path = dir.join(&entry.name);
                if entry.is_dir {
                    left.push(path);
                // One more than the limit shows that there are more.
                } else if entry.is_file && paths.len() <= self.options.files {
                    paths.insert(path);
                }
            }
        }
    }

    /// Why files of a device are not read: their content is not stored, or another host or process decides it.
    fn refused(&mut self, device: u64, at: &Path) -> Option<String> {
        let why = || volumes::unsupported(at).or_else(|| volumes::unstored(at));
        self.devices.entry(device).or_insert_with(why).clone()
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        let seen = match self.seen(path) {
            Ok(Some(seen)) => seen,
            // The file was removed meanwhile, or is no regular file.
            Ok(None) => return Ok(()),
            Err(e) => {
                if self.stop.load(std::sync::atomic::Ordering::Acquire) {
                    return Err(e);
                }
                self.found.unread.push(Unread { path: path.to_owned(), why: e.to_string() });
                let place = self.place(path).ok().flatten();
                let Some(is) = place.and_then(|place| place.metadata().ok()) else { return Ok(()) };
                let state = FileState { unread: Some(e.to_string()), ..state_of(&is) };
                Seen { state, is: identity(&is, false) }
            }
        };
        self.found.files.insert(path.to_owned(), seen);
        let files = self.found.files.len();
        if files % Progress::FILES == 0 {
            let progress = Progress { files, bytes: self.found.bytes };
            tracing::info!(files, bytes = progress.bytes, "comparing protected files");
            self.options.progress.iter().for_each(|call| call(progress));
        }
        Ok(())
    }

    /// A path without symbolic links, as a place. None where the file was removed or replaced meanwhile.
    fn place(&mut self, path: &Path) -> io::Result<Option<File>> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let gone = |unreached| match io::Error::from(unreached) {
            e if is_gone(&e) => Ok(None),
            e => Err(e),
        };
        let known = self.dir.take().filter(|it| it.path == dir);
        let found = match known.map_or_else(|| self.lookup.find(dir), Ok) {
            Ok(found) if found.path == dir => self.dir.insert(found),
            Ok(_) => return Ok(None),
            Err(unreached) => return gone(unreached),
        };
        match self.lookup.find_in(found, name) {
            Ok(place) => Ok(Some(place.into_place())),
            Err(unreached) => gone(unreached),
        }
    }

    fn seen(&mut self, path: &Path) -> io::Result<Option<Seen>> {
        let Some(place) = self.place(path)? else { return Ok(None) };
        let is = place.metadata()?;
        if !is.is_file() {
            return Ok(None);
        }
        if let Some(why) = self.refused(is.dev(), path) {
            return Err(io::Error::other(why));
        }
        let file = match reopen(place.as_fd()) {
            Ok(file) => File::from(file),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::other("a process has a lease on it"));
            }
            Err(e) => return Err(e),
        };
        for _ in 0..READS {
            let now = clock_gettime(ClockId::RealtimeCoarse);
            let is = file.metadata()?;
            if !is.is_file() {
                return Ok(None);
            }
            let is_past = (is.ctime(), is.ctime_nsec()) < (now.tv_sec, now.tv_nsec);
            let (state, id) = (state_of(&is), identity(&is, is_past));
            let known = self.known.and_then(|known| known.files.get(path));
            if let Some(seen) = known.filter(|seen| seen.is_still(&id, is.len())) {
                let mut seen = seen.clone();
                seen.state =
                    FileState { sha256: seen.state.sha256, unread: seen.state.unread, ..state };
                return Ok(Some(seen));
            }
            let left = self.options.total_bytes.saturating_sub(self.found.bytes);
            let most = self.options.file_bytes.min(left);
            if is.len() > most {
                let why = match is.len() > self.options.file_bytes {
                    true => "it is larger than the limit for one file",
                    false => "the limit for all files is reached",
                };
                return Ok(Some(Seen { state: unread(state, why), is: id }));
            }
            use std::io::Seek;
            (&file).rewind()?;
            let (sum, read) = Sha256Sum::of_reader(&file, most, self.stop)?;
            self.found.bytes += read;
            let after = file.metadata()?;
            if identity(&after, is_past) == id && after.len() == is.len() {
                let state = match sum {
                    Some(_) => FileState { sha256: sum, ..state },
                    None => unread(state, "it grew while it was read"),
                };
                return Ok(Some(Seen { state, is: id }));
            }
        }
        Err(io::Error::other("it changes while it is read"))
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unread(state: FileState, why: &str) -> FileState {
    FileState { unread: Some(why.to_owned()), ..state }
}

fn state_of(is: &fs::Metadata) -> FileState {
    let mode = is.mode() & 0o7777;
    FileState { mode, uid: is.uid(), gid: is.gid(), size: is.len(), sha256: None, unread: None }
}

fn identity(is: &fs::Metadata, is_past: bool) -> (u64, u64, i64, i64, bool) {
    (is.dev(), is.ino(), is.ctime(), is.ctime_nsec(), is_past)
}

/// Changes of the files for which `named` holds, and the number of new files for which it does not. If either pass
/// was cut, missing files may be beyond the limit, and are not reported.
pub(super) fn compare(
    before: &BTreeMap<PathBuf, FileState>,
    after: &Snapshot,
    is_cut: bool,
    named: impl Fn(&Path) -> bool,
) -> (Vec<FileChange>, usize) {
    let (mut changes, mut newly_named) = (Vec::new(), 0);
    let paths: BTreeSet<_> = before.keys().chain(after.files.keys()).collect();
    for path in paths {
        let change = match (before.get(path), after.files.get(path)) {
            (Some(before), Some(after)) => changed(before, &after.state),
            (None, Some(after)) if named(path) => {
                (!is_cut).then(|| Change::Added(after.state.clone()))
            }
            (None, Some(_)) => {
                newly_named += 1;
                None
            }
            (Some(before), None) if named(path) && !is_cut => Some(Change::Removed(before.clone())),
            _ => None,
        };
        changes.extend(change.map(|change| FileChange { path: path.clone(), change }));
    }
    (changes, newly_named)
}

fn changed(before: &FileState, after: &FileState) -> Option<Change> {
    let (was, is) = (before.clone(), after.clone());
    if before.sha256.is_some() && before.sha256 != after.sha256 {
        return Some(Change::Content { before: was, after: is });
    }
    let metadata = |it: &FileState| (it.mode, it.uid, it.gid, it.size);
    (metadata(before) != metadata(after)).then_some(Change::Metadata { before: was, after: is })
}
