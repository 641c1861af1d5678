//! Reports when paths may lead to another file: a file was replaced by a rename, a link was replaced, a
//! directory among their components was renamed.
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ironclad_bpf::paths::components;
use rustix::fs::inotify::{
    CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch,
};

/// Events after which a name in a directory may lead to another file, its file may have another content,
/// or the directory may be at another path.
const WHAT: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// Watches the directories that paths lead through.
#[derive(Debug)]
pub(crate) struct PathWatch {
    inotify: OwnedFd,
    /// By watch: the directory, and the names in it that are components of paths.
    watched: HashMap<i32, (PathBuf, BTreeSet<OsString>)>,
}

impl PathWatch {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self { inotify, watched: HashMap::new() })
    }

    /// Watches the components of these paths, and no others. [`changed`](Self::changed) reports all
    /// changes after this returns.
    pub(crate) fn set(&mut self, paths: &[PathBuf]) -> io::Result<()> {
        // Until no component has changed while the directories were being watched.
        let steps_of = |paths: &[PathBuf]| components(paths.iter().map(PathBuf::as_path));
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
                    // Removed meanwhile, which the directory above reports.
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
                    Err(e) => {
                        let why = format!("watching {}: {e}", dir.display());
                        return Err(io::Error::new(io::Error::from(e).kind(), why));
                    }
                }
            }
            for watch in self.watched.keys().filter(|watch| !watched.contains_key(watch)) {
                // The kernel has removed the watch of a directory that was removed.
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

    /// Whether a component of a path has changed since the last call.
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
                // The watch was removed since, or the queue overflowed and has no watch.
                changed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                continue;
            };
            changed |= match event.file_name() {
                Some(name) => names.contains(OsStr::from_bytes(name.to_bytes())),
                // Of the directory itself, whose attributes do not change where paths lead.
                None => event.events() != ReadFlags::ATTRIB | ReadFlags::ISDIR,
            };
        }
    }
}

impl AsFd for PathWatch {
    /// Readable when there may be a change to report.
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

    /// root/a/b/file, and root/link -> a; the file is watched by the path through the link.
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
    fn every_change_of_a_component_is_reported_and_no_other() {
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
            ("its directory renamed", |root| fs::rename(root.join("a/b"), root.join("d")).unwrap()),
            ("a directory above renamed", |root| {
                fs::rename(root.join("a"), root.join("e")).unwrap();
            }),
            ("a link replaced", |root| {
                symlink("c", root.join("next")).unwrap();
                fs::rename(root.join("next"), root.join("link")).unwrap();
            }),
            ("a link removed", |root| fs::remove_file(root.join("link")).unwrap()),
        ];
        for (what, change) in changes {
            let (_root, at, watch) = tree();
            // Other files in the same directories, and a file that is only read.
            fs::write(at.join("a/b/other"), "").unwrap();
            fs::write(at.join("a/other"), "").unwrap();
            fs::read(at.join("link/b/file")).unwrap();
            assert!(!watch.changed().unwrap(), "{what}: too early");
            change(&at);
            assert!(watch.changed().unwrap(), "{what}");
            assert!(!watch.changed().unwrap(), "{what}: reported twice");
        }
    }

    #[test]
    fn a_missing_path_is_reported_when_it_is_created() {
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
        // Paths that are not watched any more are not reported.
        watch.set(&[]).unwrap();
        assert!(watch.changed().is_ok());
        fs::write(&path, "again").unwrap();
        assert!(!watch.changed().unwrap());
    }
}
