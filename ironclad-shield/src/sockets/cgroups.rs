//! Attaches to cgroups and detaches from them.
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ironclad_bpf::PinDirectory;
use ironclad_bpf::socket::{CgroupLinks, SocketGroups, SocketShared};

use super::Sockets;
use super::cgroup_paths::ROOT_ID;
use crate::error::{Failure, INACTIVE_HINT, INACTIVE_REASON, ShieldError};

/// A cgroup whose processes the socket rules decide for.
pub(crate) struct Protected {
    pub(crate) path: PathBuf,
    pub(crate) links: CgroupLinks,
    /// How often another cgroup was created at the path, and how long their processes were not checked.
    pub(crate) gaps: u64,
    pub(crate) unchecked: Duration,
}

impl Protected {
    pub(crate) fn new(path: PathBuf, links: CgroupLinks) -> Self {
        Self { path, links, gaps: 0, unchecked: Duration::ZERO }
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

    /// Attaches to a cgroup. Pins the links where other cgroups have theirs pinned.
    pub(crate) fn attach(
        &mut self,
        cgroup: &Path,
        directory: Option<&PinDirectory>,
    ) -> Result<Attached, ShieldError> {
        if self.position(cgroup)?.is_some() {
            return Ok(Attached::Already);
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
        let (mut new, mut attached) = (Protected::new(cgroup.to_owned(), links), Attached::New);
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
        // Also where the path leads to another cgroup by now, which would be attached to.
        let has_path = || self.cgroups.iter().position(|known| known.path == cgroup);
        let Some(at) = self.position(cgroup)?.or_else(has_path) else { return Ok(false) };
        self.unprotect_packets(self.cgroups[at].links.id)?;
        self.cgroups.remove(at).links.detach()?;
        Ok(true)
    }
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
