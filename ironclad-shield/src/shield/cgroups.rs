//! Cgroups whose processes the socket rules decide for.
use std::path::{Path, PathBuf};
use std::time::Duration;

use ironclad_core::audit::AuditAction;
use serde::Serialize;

use super::{Core, Shield};
use crate::error::{Failure, ShieldError};
use crate::sockets::follow::Follower;
use crate::sockets::{Attached, Sockets};

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
    /// True where the path leads elsewhere: something is mounted over the cgroup, or a symbolic link on the
    /// way was changed. The cgroup is protected nevertheless, and the one that the path leads to as well.
    pub covered: bool,
    /// How often this agent has attached to another cgroup that was created at the path.
    pub gaps: u64,
    /// How long processes in those were not checked, in sum: from the creation of each on.
    pub unchecked: Duration,
}

impl Shield {
    /// Enforces the policy's socket rules for one more cgroup, by its directory; nothing
    /// happens where they are enforced already. A cgroup that is created again there is attached to within
    /// moments, unless [`follow_paths`](crate::ShieldBuilder::follow_paths) was turned off.
    ///
    /// # Errors
    /// `ShieldErrorKind::NoCgroup` where Shield was started without cgroups, `ShieldErrorKind::Inactive` where the
    /// kernel would not call its hooks, `ShieldErrorKind::Bpf`.
    pub fn protect_cgroup(&self, directory: &Path) -> Result<(), ShieldError> {
        let mut control = self.core.lock();
        let sockets = control.sockets.as_mut().ok_or(Failure::NoCgroup)?;
        self.core.attach_cgroup(sockets, directory)?;
        // A removed one is watched from now on.
        self.follower.iter().for_each(Follower::wake);
        Ok(())
    }

    /// Ends the enforcement of socket rules for a cgroup; nothing happens where they are not enforced.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where bpffs or the kernel refuses, `ShieldErrorKind::Audit`.
    pub fn unprotect_cgroup(&self, directory: &Path) -> Result<(), ShieldError> {
        let mut control = self.core.lock();
        let Some(sockets) = &mut control.sockets else { return Ok(()) };
        match sockets.detach(directory)? {
            true => self.core.record_cgroup_detach(directory),
            false => Ok(()),
        }
    }
}

impl Core {
    fn attach_cgroup(&self, sockets: &mut Sockets, directory: &Path) -> Result<(), ShieldError> {
        sockets.refuse_inactive(directory)?;
        let pins = self.directory.as_deref().filter(|pins| pins.has_sockets());
        let attached = sockets.attach(directory, pins)?;
        if matches!(attached, Attached::Already) {
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
        let Attached::Again { unchecked, processes } = attached else { return Ok(()) };
        let (instance, cgroup) = (self.audit.instance(), directory.display());
        tracing::warn!(
            instance,
            ?unchecked,
            processes,
            "cgroup {cgroup} was created again, and its processes were not checked until now: protect its parent, which outlives it"
        );
        self.record(AuditAction::Gap {
            hook: "cgroup".to_owned(),
            interface: directory.display().to_string(),
            unchecked_ms: unchecked.as_millis() as u64,
            processes,
        })
    }

    fn report_covered(&self, path: &Path, id: u64) -> Result<(), ShieldError> {
        let path = path.display();
        let change = format!(
            "its path does not lead to it any more (cgroup {id}): something is mounted there, or a link was changed"
        );
        let instance = self.audit.instance();
        tracing::error!(instance, "cgroup {path} stays protected: {change}");
        let (hook, interface) = ("cgroup".to_owned(), path.to_string());
        self.record(AuditAction::Displaced { hook, interface, change })
    }

    /// Attaches to cgroups that were created at the path of a protected one. One that fails leaves no
    /// other out.
    pub(super) fn refresh_cgroups(&self) -> Result<(), ShieldError> {
        let mut control = self.lock();
        let Some(sockets) = &mut control.sockets else { return Ok(()) };
        for (path, id) in sockets.covered()? {
            self.report_covered(&path, id)?;
        }
        let again = sockets.created_again();
        let attached: Vec<_> =
            again.iter().map(|directory| self.attach_cgroup(sockets, directory)).collect();
        attached.into_iter().collect()
    }
}
