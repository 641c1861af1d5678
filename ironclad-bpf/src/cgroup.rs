use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::{BpfError, Failure};

/// The id of a cgroup of version 2, by its directory.
///
/// # Errors
/// `BpfErrorKind::NoCgroup` where it is none.
pub fn cgroup_id(cgroup: &Path) -> Result<u64, BpfError> {
    open_cgroup(cgroup).map(|(_, id)| id)
}

/// The directory of a cgroup, version 2, and the group's id.
pub(crate) fn open_cgroup(cgroup: &Path) -> Result<(File, u64), BpfError> {
    /// Magic number of the file system (include/uapi/linux/magic.h).
    const CGROUP2: i64 = 0x6367_7270;
    let none = |source| Failure::NoCgroup { path: cgroup.to_owned(), source };
    let dir = File::open(cgroup).map_err(|e| none(Some(e)))?;
    match rustix::fs::fstatfs(&dir) {
        Ok(stat) if stat.f_type == CGROUP2 => {
            let id = dir.metadata().map_err(|e| none(Some(e)))?.ino();
            Ok((dir, id))
        }
        _ => Err(none(None).into()),
    }
}
