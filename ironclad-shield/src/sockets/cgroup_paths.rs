//! Finds cgroups by path and by id, and the mount point of their hierarchy.
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use ironclad_bpf::pseudo_fs::PROC;
use ironclad_bpf::{BpfError, CgroupDir};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, open, openat, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::ShieldError;

/// Id of the root cgroup: cgroup2's first inode.
pub(super) const ROOT_ID: u64 = 1;

/// A cgroup and its ancestors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    /// From the root of the hierarchy.
    pub(crate) path: String,
    /// Ids by depth, the root's first.
    pub(crate) ids: Vec<u64>,
}

impl CgroupPath {
    fn child(&self, name: &str, id: u64) -> Self {
        let path = format!("{}/{name}", self.path.trim_end_matches('/'));
        Self { path, ids: self.ids.iter().copied().chain([id]).collect() }
    }
}

/// The hierarchy of cgroups, version 2, without what is mounted over cgroups.
#[derive(Debug)]
pub(crate) struct CgroupTree {
    root: OwnedFd,
    /// Where it is mounted.
    at: PathBuf,
}

impl CgroupTree {
    /// Opens the hierarchy of the host.
    pub(crate) fn open() -> Result<Self, ShieldError> {
        let at = cgroup_root()?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        // A copy of one mount has no others in it. It takes CAP_SYS_ADMIN.
        match open_tree(CWD, &at, flags) {
            Ok(root) => Ok(Self { root, at }),
            Err(_) => Self::by_mounts(at),
        }
    }

    /// With what is mounted over cgroups.
    fn by_mounts(at: PathBuf) -> Result<Self, ShieldError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |e: Errno| BpfError::system("opening the root cgroup", e.into());
        Ok(Self { root: open(&at, flags, Mode::empty()).map_err(failed)?, at })
    }

    /// The path of a cgroup's directory, for display.
    pub(crate) fn path_of(&self, path: &str) -> PathBuf {
        self.at.join(path.trim_start_matches('/'))
    }

    /// The id of the cgroup of that path; none where it does not exist.
    pub(crate) fn id(&self, path: &str) -> Option<u64> {
        let found = statat(&self.root, below(path), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(found.st_mode) == FileType::Directory).then_some(found.st_ino)
    }

    /// The cgroup of that path; none where it does not exist.
    pub(crate) fn by_path(&self, path: &str) -> Option<CgroupPath> {
        let mut found = self.top()?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if matches!(name, "." | "..") {
                return None;
            }
            let child = found.child(name, 0);
            let id = self.id(&child.path)?;
            found = found.child(name, id);
        }
        Some(found)
    }

    /// The cgroup with that id; none where it was removed. The id is the inode number of its directory,
    /// and is not reused.
    pub(crate) fn by_id(&self, id: u64) -> Option<CgroupPath> {
        self.find(|cgroup| cgroup.ids.last() == Some(&id))
    }

    /// The directory of the cgroup with that id; none where it was removed.
    pub(crate) fn dir(&self, id: u64) -> Option<CgroupDir> {
        let path = self.by_id(id)?.path;
        let dir = File::from(self.open_dir(&path).ok()?);
        CgroupDir::new(dir, &self.path_of(&path)).ok().filter(|dir| dir.id() == id)
    }

    /// The first cgroup that `is_it` accepts, of all.
    pub(crate) fn find(&self, mut is_it: impl FnMut(&CgroupPath) -> bool) -> Option<CgroupPath> {
        let mut left = vec![self.top()?];
        while let Some(at) = left.pop() {
            if is_it(&at) {
                return Some(at);
            }
            // A cgroup may be removed meanwhile.
            let Ok(entries) = self.open_dir(&at.path).and_then(Dir::new) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_dir()) {
                match entry.file_name().to_str() {
                    Ok(name) if !matches!(name, "." | "..") => {
                        left.push(at.child(name, entry.ino()));
                    }
                    _ => {}
                }
            }
        }
        None
    }

    fn top(&self) -> Option<CgroupPath> {
        Some(CgroupPath { path: "/".to_owned(), ids: vec![self.id("/")?] })
    }

    fn open_dir(&self, path: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.root, below(path), flags, Mode::empty())
    }
}

/// A path from the root of the hierarchy as openat(2) takes it.
fn below(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    }
}

/// Where the hierarchy of cgroups, version 2, is mounted.
pub(crate) fn cgroup_root() -> Result<PathBuf, ShieldError> {
    let failed = |source| BpfError::system("reading /proc/thread-self/mountinfo", source);
    let mounts = PROC.read_to_string("thread-self/mountinfo").map_err(failed)?;
    // Fields of proc(5): the root within the file system is the fourth, the mount point the fifth; behind
    // the hyphen comes the type.
    let root = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let is_whole = after.starts_with("cgroup2 ") && fields.get(3) == Some(&"/");
        is_whole.then(|| PathBuf::from(fields[4]))
    });
    let root = root.ok_or_else(|| {
        let hint = "no hierarchy is mounted: `mount -t cgroup2 none /sys/fs/cgroup`";
        BpfError::no_cgroup("/sys/fs/cgroup", hint, None)
    })?;
    let failed = |source| BpfError::system("reading the root cgroup", source);
    if std::fs::metadata(&root).map_err(failed)?.ino() != ROOT_ID {
        // Its paths begin further down than the kernel counts from: rules would name other cgroups.
        let hint = "this process is in a cgroup namespace, and rules need the host's: start the \
                    agent outside of it, as by `docker run --cgroupns=host`";
        return Err(BpfError::no_cgroup(root, hint, None).into());
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_cgroup_is_found_by_path_and_by_id() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        fs::create_dir_all(root.path().join("d")).unwrap();
        fs::write(root.path().join("a/cgroup.procs"), "").unwrap();
        let tree = CgroupTree::by_mounts(root.path().to_owned()).unwrap();
        let ino = |path: &str| fs::metadata(root.path().join(path)).unwrap().ino();
        for (path, ids) in [
            ("/", vec![ino("")]),
            ("/a/b", vec![ino(""), ino("a"), ino("a/b")]),
            ("/d", vec![ino(""), ino("d")]),
        ] {
            let expected = CgroupPath { path: path.to_owned(), ids };
            assert_eq!(tree.by_path(path), Some(expected.clone()));
            let id = *expected.ids.last().unwrap();
            assert_eq!(tree.by_id(id), Some(expected));
        }
        let gone = ino("a/b/c");
        fs::remove_dir(root.path().join("a/b/c")).unwrap();
        assert_eq!(tree.by_id(gone), None);
        for none in ["/a/b/c", "/a/cgroup.procs", "/../a", "/a/./b"] {
            assert_eq!(tree.by_path(none), None, "{none}");
        }
    }
}
