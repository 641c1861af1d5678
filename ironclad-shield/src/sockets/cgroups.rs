//! Attaches to cgroups and detaches from them.
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ironclad_bpf::socket::{CgroupLinks, SocketGroups, SocketShared};
use ironclad_bpf::{CgroupDir, PinDirectory};
use ironclad_core::ErrorChain;

use super::Sockets;
use super::cgroup_paths::{CgroupTree, ROOT_ID};
use crate::error::{Failure, INACTIVE_HINT, INACTIVE_REASON, ShieldError};

/// A cgroup whose processes the socket rules decide for.
pub(crate) struct Protected {
    pub(crate) path: PathBuf,
    pub(crate) links: CgroupLinks,
    /// How often another cgroup was created at the path, and how long their processes were not checked.
    pub(crate) gaps: u64,
    pub(crate) unchecked: Duration,
    /// [`Protected::is_covered`] when it was last reported.
    was_covered: bool,
}

impl Protected {
    pub(crate) fn new(path: PathBuf, links: CgroupLinks) -> Self {
        Self { path, links, gaps: 0, unchecked: Duration::ZERO, was_covered: false }
    }

    /// Whether the cgroup exists, and its path does not lead to it: something is mounted over it, or a
    /// symbolic link on the way was changed.
    pub(crate) fn is_covered(&self) -> Result<bool, ShieldError> {
        let found = std::fs::metadata(&self.path).map(|found| found.ino());
        Ok(!found.is_ok_and(|id| id == self.links.id) && self.exists()?)
    }

    /// Whether the cgroup was not removed. Where the hierarchy cannot be opened, its links tell.
    fn exists(&self) -> Result<bool, ShieldError> {
        if !self.links.is_alive()? {
            return Ok(false);
        }
        // The kernel keeps the links of a removed one for the sockets that are left of it.
        match CgroupTree::open() {
            Ok(tree) => Ok(tree.by_id(self.links.id).is_some()),
            // In a cgroup namespace as well.
            Err(error) => {
                let (error, cgroup) = (ErrorChain::new(&error), self.path.display());
                tracing::warn!(%error, %cgroup, "it is unknown whether a protected cgroup exists");
                Ok(true)
            }
        }
    }
}

/// What [`Sockets::attach`] found.
pub(crate) enum Attached {
    Already,
    New,
    /// Another cgroup was attached to, which had this path.
    Again {
        /// Since the creation of the new one.
        unchecked: Duration,
        /// Processes that were in it already.
        processes: u64,
    },
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

    /// Paths of protected cgroups that lead to another cgroup by now.
    pub(crate) fn created_again(&self) -> Vec<PathBuf> {
        let is_another = |known: &&Protected| {
            std::fs::metadata(&known.path).is_ok_and(|found| found.ino() != known.links.id)
        };
        self.cgroups.iter().filter(is_another).map(|known| known.path.clone()).collect()
    }

    /// Paths of protected cgroups that lead elsewhere since the last call, and the ids of those cgroups.
    pub(crate) fn covered(&mut self) -> Result<Vec<(PathBuf, u64)>, ShieldError> {
        let mut covered = Vec::new();
        for known in &mut self.cgroups {
            let is_covered = known.is_covered()?;
            if is_covered && !known.was_covered {
                covered.push((known.path.clone(), known.links.id));
            }
            known.was_covered = is_covered;
        }
        Ok(covered)
    }

    /// Attaches to a cgroup. Pins the links where other cgroups have theirs pinned.
    pub(crate) fn attach(
        &mut self,
        cgroup: &Path,
        directory: Option<&PinDirectory>,
    ) -> Result<Attached, ShieldError> {
        if self.position(cgroup)?.is_some() {
            return Ok(Attached::Already);
        }
        let dir = CgroupDir::open(cgroup)?;
        let mut links = self.shared.attach(&dir)?;
        if let Some(packets) = &mut self.packets {
            packets.protect(&dir)?;
        }
        if let Some(directory) = directory {
            if let Err(failed) = SocketShared::persist_cgroup(directory, &mut links) {
                self.unprotect_packets(links.id)?;
                return Err(failed.into());
            }
        }
        // Links of a cgroup that was removed. One that the path does not lead to any more keeps them.
        let mut gone = Vec::new();
        for at in (0..self.cgroups.len()).rev() {
            let known = &self.cgroups[at];
            if known.path == cgroup && !known.exists()? {
                gone.push(self.cgroups.remove(at));
            }
        }
        let is_covering = self.cgroups.iter().any(|known| known.path == cgroup);
        let own_path = is_covering.then(|| own_path(links.id)).flatten();
        let path = own_path.unwrap_or_else(|| cgroup.to_owned());
        let (mut new, mut attached) = (Protected::new(path, links), Attached::New);
        for known in &gone {
            let (unchecked, processes) = (age(cgroup), processes_in(cgroup));
            new.gaps = known.gaps + 1;
            new.unchecked = known.unchecked + unchecked;
            attached = Attached::Again { unchecked, processes };
        }
        self.cgroups.push(new);
        for known in gone {
            self.unprotect_packets(known.links.id)?;
            known.links.detach()?;
        }
        Ok(attached)
    }

    /// False where it is not attached.
    pub(crate) fn detach(&mut self, cgroup: &Path) -> Result<bool, ShieldError> {
        // Also those that the path does not lead to any more: the one that it leads to would be attached to
        // again.
        let has_path = |it: &Self| it.cgroups.iter().position(|known| known.path == cgroup);
        let mut is_detached = false;
        while let Some(at) = self.position(cgroup)?.or_else(|| has_path(self)) {
            self.unprotect_packets(self.cgroups[at].links.id)?;
            self.cgroups.remove(at).links.detach()?;
            is_detached = true;
        }
        Ok(is_detached)
    }
}

/// The path of a cgroup that is mounted elsewhere, too.
fn own_path(id: u64) -> Option<PathBuf> {
    let tree = CgroupTree::open().ok()?;
    tree.by_id(id).map(|found| tree.path_of(&found.path))
}

/// Since the creation of a cgroup: no time of its directory is earlier.
fn age(cgroup: &Path) -> Duration {
    let Ok(found) = std::fs::metadata(cgroup) else { return Duration::ZERO };
    let at = |seconds: i64, ns: i64| Duration::new(seconds.max(0) as u64, ns as u32);
    let created = at(found.ctime(), found.ctime_nsec())
        .min(at(found.mtime(), found.mtime_nsec()))
        .min(at(found.atime(), found.atime_nsec()));
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(created)
}

/// Processes in a cgroup and those below it.
fn processes_in(cgroup: &Path) -> u64 {
    let own = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    own.lines().count() as u64 + below.map(|entry| processes_in(&entry.path())).sum::<u64>()
}

/// What [`SocketGroups::Lost`] means, and what to do.
fn lost() -> String {
    format!("{INACTIVE_REASON}: {INACTIVE_HINT}")
}
