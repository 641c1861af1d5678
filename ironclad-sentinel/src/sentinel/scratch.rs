use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::Secret;

use crate::error::{Failure, SentinelError};

/// The directory of the self-test of hooks, which no other process may change.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(super) fn new(within: &Path) -> Result<Self, SentinelError> {
        let failed =
            |source| BpfError::system("creating a directory for the self-test of hooks", source);
        let mut random = [0; 8];
        random.copy_from_slice(&Secret::new()?.as_bytes()[..8]);
        let name = format!(".ironclad-{:016x}", u64::from_ne_bytes(random));
        let path = Self::within(within)?.join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self(path))
    }

    /// The directory to create it in.
    pub(super) fn within(path: &Path) -> Result<PathBuf, SentinelError> {
        let failed = |e| Failure::Path {
            rule: "`.scratch(…)`".to_owned(),
            path: path.to_owned(),
            what: format!("is no directory for the self-test of hooks: {e}"),
        };
        Ok(std::fs::canonicalize(path).map_err(failed)?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The directory holds what a self-test could not remove.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
