//! Attaches to cgroups and detaches from them.
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ironclad_bpf::PinDirectory;
use ironclad_bpf::socket::{CgroupLinks, SocketGroups, SocketShared};

use super::Sockets;
use super::cgroup_paths::ROOT_ID;
use crate::error::{Failure, INACTIVE_HINT, INACTIVE_REASON, ShieldError};

/// A cgroup whose processes the socket rules decide for.
pub(crate) struct Protected {
    pub(crate) path: PathBuf,
    pub(crate) links: CgroupLinks,
}

impl Sockets {
    /// Whether the kernel has stopped calling hooks of cgroups below the root, which lasts until the
    /// host is restarted.
    fn is_lost(&mut self) -> Result<bool, ShieldError> {
        if self.groups == SocketGroups::Known {
            self.groups = self.processes.socket_groups()?;
        }
        Ok(self.groups == SocketGroups::Lost)
    }

    /// Refuses a cgroup whose hooks the kernel would not call.
    pub(crate) fn refuse_inactive(&mut self, cgroup: &Path) -> Result<(), ShieldError> {
        // A socket that belongs to no cgroup belongs to the root.
        let is_root = std::fs::metadata(cgroup).is_ok_and(|found| found.ino() == ROOT_ID);
        match !is_root && self.is_lost()? {
            true => Err(Failure::Inactive { path: cgroup.to_owned() }.into()),
            false => Ok(()),
        }
    }

    /// Why the hooks of protected cgroups are inactive, where they are. Logs it once.
    pub(crate) fn inactive(&mut self) -> Result<Option<String>, ShieldError> {
        let is_below = |known: &Protected| known.links.id != ROOT_ID;
        let is_lost = self.cgroups.iter().any(is_below) && self.is_lost()?;
        if is_lost && !self.is_loss_logged {
            self.is_loss_logged = true;
            tracing::error!("socket rules are inactive below the root cgroup: {}", lost());
        }
        Ok(is_lost.then(lost))
    }

    /// The protected cgroups.
    pub(crate) fn cgroups(&self) -> &[Protected] {
        &self.cgroups
    }

    fn position(&self, cgroup: &Path) -> Result<Option<usize>, ShieldError> {
        let id = std::fs::metadata(cgroup).map(|found| found.ino()).ok();
        for (at, known) in self.cgroups.iter().enumerate() {
            // A cgroup that was removed and created again at that path has another id.
            if known.path == cgroup && (id.is_none() || id == Some(known.links.id))
                || id == Some(known.links.id) && known.links.is_alive()?
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// False where it is attached already. Pins the links where other cgroups have theirs pinned.
    pub(crate) fn attach(
        &mut self,
        cgroup: &Path,
        directory: Option<&PinDirectory>,
    ) -> Result<bool, ShieldError> {
        if self.position(cgroup)?.is_some() {
            return Ok(false);
        }
        let mut links = self.shared.attach(cgroup)?;
        if let Some(packets) = &mut self.packets {
            packets.protect(cgroup)?;
        }
        if let Some(directory) = directory {
            if let Err(failed) = SocketShared::persist_cgroup(directory, &mut links) {
                self.unprotect_packets(links.id)?;
                return Err(failed.into());
            }
        }
        // Links of a cgroup that was removed.
        let is_gone = |known: &Protected| known.path == cgroup;
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.cgroups).into_iter().partition(is_gone);
        self.cgroups = kept;
        for known in gone {
            self.unprotect_packets(known.links.id)?;
            known.links.detach()?;
        }
        self.cgroups.push(Protected { path: cgroup.to_owned(), links });
        Ok(true)
    }

    /// False where it is not attached.
    pub(crate) fn detach(&mut self, cgroup: &Path) -> Result<bool, ShieldError> {
        let Some(at) = self.position(cgroup)? else { return Ok(false) };
        self.unprotect_packets(self.cgroups[at].links.id)?;
        self.cgroups.remove(at).links.detach()?;
        Ok(true)
    }
}

/// What [`SocketGroups::Lost`] means, and what to do.
fn lost() -> String {
    format!("{INACTIVE_REASON}: {INACTIVE_HINT}")
}
