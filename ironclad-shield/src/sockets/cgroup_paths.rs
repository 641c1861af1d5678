//! Finds cgroups by path and by id, and the mount point of their hierarchy.
use std::fs::{self, Metadata};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::pseudo_fs::PROC;

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
    fn root(root: &Path) -> Option<Self> {
        let id = fs::metadata(root).ok()?.ino();
        Some(Self { path: "/".to_owned(), ids: vec![id] })
    }

    fn child(&self, name: &str, id: u64) -> Self {
        let path = format!("{}/{name}", self.path.trim_end_matches('/'));
        Self { path, ids: self.ids.iter().copied().chain([id]).collect() }
    }
}

/// The cgroup of that path; none where it does not exist.
pub(crate) fn by_path(root: &Path, path: &str) -> Option<CgroupPath> {
    let mut dir = root.to_owned();
    let mut found = CgroupPath::root(root)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        if matches!(name, "." | "..") {
            return None;
        }
        dir.push(name);
        let id = fs::metadata(&dir).ok().filter(Metadata::is_dir)?.ino();
        found = found.child(name, id);
    }
    Some(found)
}

/// The cgroup with that id; none where it was removed. The id is the inode number of its directory,
/// and is not reused.
pub(crate) fn by_id(root: &Path, id: u64) -> Option<CgroupPath> {
    let mut left = vec![CgroupPath::root(root)?];
    while let Some(at) = left.pop() {
        if at.ids.last() == Some(&id) {
            return Some(at);
        }
        let dir = root.join(at.path.trim_start_matches('/'));
        // A cgroup may be removed meanwhile.
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if let Some(name) = entry.file_name().to_str() {
                    left.push(at.child(name, entry.ino()));
                }
            }
        }
    }
    None
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
    use super::*;

    #[test]
    fn a_cgroup_is_found_by_path_and_by_id() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        fs::create_dir_all(root.path().join("d")).unwrap();
        fs::write(root.path().join("a/cgroup.procs"), "").unwrap();
        let ino = |path: &str| fs::metadata(root.path().join(path)).unwrap().ino();
        for (path, ids) in [
            ("/", vec![ino("")]),
            ("/a/b", vec![ino(""), ino("a"), ino("a/b")]),
            ("/d", vec![ino(""), ino("d")]),
        ] {
            let expected = CgroupPath { path: path.to_owned(), ids };
            assert_eq!(by_path(root.path(), path), Some(expected.clone()));
            let id = *expected.ids.last().unwrap();
            assert_eq!(by_id(root.path(), id), Some(expected));
        }
        let gone = ino("a/b/c");
        fs::remove_dir(root.path().join("a/b/c")).unwrap();
        assert_eq!(by_id(root.path(), gone), None);
        for none in ["/a/b/c", "/a/cgroup.procs", "/../a", "/a/./b"] {
            assert_eq!(by_path(root.path(), none), None, "{none}");
        }
    }
}
