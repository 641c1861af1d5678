//! Cgroups whose processes the socket rules decide for.
use std::path::{Path, PathBuf};

use ironclad_core::audit::AuditAction;
use serde::Serialize;

use super::Shield;
use crate::error::{Failure, ShieldError};

/// A cgroup whose processes the socket rules decide for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CgroupStatus {
    /// Its directory.
    pub path: PathBuf,
    /// Its id, which is the inode number of the directory.
    pub id: u64,
    /// False where it was removed.
    pub alive: bool,
}

impl Shield {
    /// Enforces the policy's socket rules for one more cgroup, by its directory; nothing
    /// happens where they are enforced already.
    ///
    /// # Errors
    /// `ShieldErrorKind::NoCgroup` where Shield was started without cgroups, `ShieldErrorKind::Inactive` where the
    /// kernel would not call its hooks, `ShieldErrorKind::Bpf`.
    pub fn protect_cgroup(&self, directory: &Path) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let sockets = control.sockets.as_mut().ok_or(Failure::NoCgroup)?;
        sockets.refuse_inactive(directory)?;
        let pins = self.directory.as_ref().filter(|pins| pins.has_sockets());
        if !sockets.attach(directory, pins)? {
            return Ok(());
        }
        for program in sockets.programs() {
            self.record(AuditAction::Attach {
                program: program.info().name.clone(),
                hook: "cgroup".to_owned(),
                interface: directory.display().to_string(),
                mode: "link".to_owned(),
            })?;
        }
        Ok(())
    }

    /// Ends the enforcement of socket rules for a cgroup; nothing happens where they are not enforced.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where bpffs or the kernel refuses, `ShieldErrorKind::Audit`.
    pub fn unprotect_cgroup(&self, directory: &Path) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let Some(sockets) = &mut control.sockets else { return Ok(()) };
        match sockets.detach(directory)? {
            true => self.record_cgroup_detach(directory),
            false => Ok(()),
        }
    }
}
