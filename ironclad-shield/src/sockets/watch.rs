//! Tells when paths may have come to lead elsewhere: a file replaced by a rename, a link set anew, a
//! directory on the way moved.
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ironclad_bpf::paths::ways;
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};

/// What can change where a name in a directory leads, what its file holds, or the directory's own
/// place.
const WHAT: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Watches the directories on the ways that paths go.
#[derive(Debug)]
pub(crate) struct PathWatch {
    inotify: OwnedFd,
    /// By watch: the directory, and the names in it that lie on a way.
    watched: HashMap<i32, (PathBuf, BTreeSet<OsString>)>,
}

impl PathWatch {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify, watched: HashMap::new() })
    }

    /// Watches the ways of these paths, and no others. Whatever happens to them after this returns
    /// is told by [`changed`](Self::changed).
    pub(crate) fn set(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        // Until no way has changed while its directories were being watched.
        let steps_of = |paths: &[PathBuf]| ways(paths.iter().map(PathBuf::as_path));
        let mut steps = steps_of(paths);
        loop {
            let mut watched: HashMap<i32, (PathBuf, BTreeSet<OsString>)> = HashMap::new();
            for (dir, names) in &steps {
                match add_watch(&self.inotify, dir, WHAT) {
                    Ok(watch) => {
                        // Two paths may be one directory, which has one watch.
                        let known = watched.entry(watch).or_default();
                        known.0.clone_from(dir);
                        known.1.extend(names.iter().cloned());
                    }
                    // Gone meanwhile, which the directory above tells.
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                    Err(e) => {
                        let why = format!("watching {}: {e}", dir.display());
                        return Err(io::Error::new(io::Error::from(e).kind(), why));
                    }
                }
            }
            for watch in self.watched.keys().filter(|watch| !watched.contains_key(watch)) {
                // The kernel has removed that of a directory that is gone.
                let _ = remove_watch(&self.inotify, *watch);
            }
            self.watched = watched;
            let now = steps_of(paths);
            if now == steps {
                return Ok(());
            }
            steps = now;
        }
    }

    /// Whether anything has happened on a way since the last call.
    pub(crate) fn changed(&self) -> io::Result<bool> {
        let mut changed = false;
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(rustix::io::Errno::AGAIN) => return Ok(changed),
                Err(e) => return Err(e.into()),
            };
            let Some((_, names)) = self.watched.get(&event.wd()) else {
                // That of a watch removed since, or of none: so many events that some are lost.
                changed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                continue;
            };
            changed |= match event.file_name() {
                Some(name) => names.contains(OsStr::from_bytes(name.to_bytes())),
                // Of the directory itself, whose attributes lead to no file else.
                None => event.events() != ReadFlags::ATTRIB | ReadFlags::ISDIR,
            };
        }
    }
}

impl AsFd for PathWatch {
    /// Readable when there may be something to be told.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// root/a/b/file, and root/link -> a, on whose way the file is watched.
    fn tree() -> (tempfile::TempDir, PathBuf, PathWatch) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::create_dir_all(root.path().join("c/b")).unwrap();
        fs::write(root.path().join("a/b/file"), "1").unwrap();
        fs::write(root.path().join("c/b/file"), "2").unwrap();
        symlink("a", root.path().join("link")).unwrap();
        let path = root.path().join("link/b/file");
        let mut watch = PathWatch::new().unwrap();
        watch.set(&[path]).unwrap();
        let at = root.path().to_owned();
        (root, at, watch)
    }

    #[test]
    fn every_change_on_the_way_is_told_and_no_other() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 8] = [
            ("replaced by a rename", |root| {
                fs::write(root.join("a/b/new"), "3").unwrap();
                fs::rename(root.join("a/b/new"), root.join("a/b/file")).unwrap();
            }),
            ("removed", |root| fs::remove_file(root.join("a/b/file")).unwrap()),
            ("overwritten", |root| fs::write(root.join("a/b/file"), "3").unwrap()),
            ("another mode", |root| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
                fs::set_permissions(root.join("a/b/file"), mode).unwrap();
            }),
            ("its directory moved", |root| fs::rename(root.join("a/b"), root.join("d")).unwrap()),
            ("a directory above moved", |root| {
                fs::rename(root.join("a"), root.join("e")).unwrap();
            }),
            ("a link set anew", |root| {
                symlink("c", root.join("next")).unwrap();
                fs::rename(root.join("next"), root.join("link")).unwrap();
            }),
            ("a link removed", |root| fs::remove_file(root.join("link")).unwrap()),
        ];
        for (what, change) in changes {
            let (_root, at, watch) = tree();
            // Others in the same directories, and what is only read.
            fs::write(at.join("a/b/other"), "").unwrap();
            fs::write(at.join("a/other"), "").unwrap();
            fs::read(at.join("link/b/file")).unwrap();
            assert!(!watch.changed().unwrap(), "{what}: too early");
            change(&at);
            assert!(watch.changed().unwrap(), "{what}");
            assert!(!watch.changed().unwrap(), "{what}: told twice");
        }
    }

    #[test]
    fn what_is_not_there_yet_is_told_when_it_comes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x/y/z");
        let mut watch = PathWatch::new().unwrap();
        for part in ["x", "x/y"] {
            watch.set(std::slice::from_ref(&path)).unwrap();
            fs::create_dir(root.path().join(part)).unwrap();
            assert!(watch.changed().unwrap(), "{part}");
        }
        watch.set(std::slice::from_ref(&path)).unwrap();
        fs::write(&path, "").unwrap();
        assert!(watch.changed().unwrap());
        // A link that leads to itself ends.
        symlink("loop", root.path().join("loop")).unwrap();
        watch.set(&[root.path().join("loop/x")]).unwrap();
        // What is watched no more is told no more.
        watch.set(&[]).unwrap();
        assert!(watch.changed().is_ok());
        fs::write(&path, "again").unwrap();
        assert!(!watch.changed().unwrap());
    }
}
