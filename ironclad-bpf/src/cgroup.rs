use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{BpfError, Failure};

/// The directory of a cgroup of version 2.
#[derive(Debug)]
pub struct CgroupDir {
    dir: File,
    id: u64,
}

impl CgroupDir {
    /// Opens the directory that a path leads to.
    ///
    /// # Errors
    /// `BpfErrorKind::NoCgroup` where it is none.
    pub fn open(cgroup: &Path) -> Result<Self, BpfError> {
        let dir = File::open(cgroup)
            .map_err(|e| Failure::NoCgroup { path: cgroup.to_owned(), source: Some(e) })?;
        Self::new(dir, cgroup)
    }

    /// A directory that is open for reading. `cgroup` names it in errors.
    ///
    /// # Errors
    /// `BpfErrorKind::NoCgroup` where it is none.
    pub fn new(dir: File, cgroup: &Path) -> Result<Self, BpfError> {
        /// Magic number of the file system (include/uapi/linux/magic.h).
        const CGROUP2: i64 = 0x6367_7270;
        let none = |source| Failure::NoCgroup { path: cgroup.to_owned(), source };
        match rustix::fs::fstatfs(&dir) {
            Ok(stat) if stat.f_type == CGROUP2 => {
                let id = dir.metadata().map_err(|e| none(Some(e)))?.ino();
                Ok(Self { dir, id })
            }
            _ => Err(none(None).into()),
        }
    }

    /// The cgroup's id, which is the inode number of the directory.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl AsFd for CgroupDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The id of a cgroup of version 2, by its directory.
///
/// # Errors
/// `BpfErrorKind::NoCgroup` where it is none.
pub fn cgroup_id(cgroup: &Path) -> Result<u64, BpfError> {
    CgroupDir::open(cgroup).map(|dir| dir.id)
}
