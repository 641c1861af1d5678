use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use ironclad_bpf::{BpfError, private_directory};

use crate::error::SentinelError;

/// The directory of the self-test of hooks: an empty tmpfs that no other process sees. Others could take the lock, the
/// room or the inodes of a directory that they see.
pub(crate) struct Scratch(OwnedFd);

impl Scratch {
    pub(super) fn new() -> Result<Self, SentinelError> {
        let failed =
            |source| BpfError::system("mounting a tmpfs for the self-test of hooks", source);
        Ok(Self(private_directory().map_err(failed)?))
    }

    /// The path of this process to it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
