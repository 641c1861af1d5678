use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::map_info;
use crate::persistent::{PROCESS, SOCKET, pin_names};
use crate::pin::{PinDirectory, SOCKETS};
use crate::sys;

use super::packets;

/// What an earlier agent of an instance has pinned for its socket rules.
#[derive(Debug)]
pub struct SocketPins {
    path: PathBuf,
    /// Until they are taken over.
    pub(super) tracepoints: Vec<HookLink>,
    /// Likewise, with the ids of their cgroups; 0 where that was removed.
    pub(super) cgroups: Vec<(u64, HookLink)>,
    /// Those of BPF LSM, likewise, and the pins of their maps of cgroups.
    pub(super) packets: Vec<HookLink>,
    pub(super) groups: Vec<PathBuf>,
}

impl SocketPins {
    /// Looks for them; `None` where the instance has none.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where some are missing, or others are there.
    pub fn find(directory: &PinDirectory) -> Result<Option<Self>, BpfError> {
        let Some(pins) = directory.sockets(&pin_names(&[&PROCESS, &SOCKET]), packets::GROUPS)?
        else {
            return Ok(None);
        };
        let is_map = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(packets::GROUPS))
        };
        let (groups, links): (Vec<PathBuf>, Vec<PathBuf>) = pins.into_iter().partition(is_map);
        let (tracepoints, cgroups, packets) = (Vec::new(), Vec::new(), Vec::new());
        let path = directory.path().join(SOCKETS);
        let mut this = Self { path, tracepoints, cgroups, packets, groups };
        for path in links {
            let link = HookLink::open(&path)?;
            match link.cgroup_id()? {
                Some(id) => this.cgroups.push((id, link)),
                None if link.hook() == packets::HOOK => this.packets.push(link),
                None => this.tracepoints.push(link),
            }
        }
        Ok(Some(this))
    }

    /// Whether packet sockets were asked for.
    pub fn has_packets(&self) -> bool {
        !self.packets.is_empty()
    }

    pub(super) fn maps_path(&self) -> &Path {
        &self.path
    }

    /// How many elements a map has room for.
    pub(super) fn size(&self, name: &str) -> Result<u32, BpfError> {
        let fd = self.map(name)?;
        map_info(fd.as_fd())
            .map(|info| info.max_entries)
            .map_err(|e| BpfError::map(name, "reading its info", e))
    }

    fn map(&self, name: &str) -> Result<OwnedFd, BpfError> {
        map(&self.path, name)
    }

    /// What the table of processes takes over, once.
    pub fn inherited(&mut self) -> Inherited {
        let former = std::mem::take(&mut self.tracepoints);
        Inherited { maps: self.path.clone(), links: self.path.clone(), former }
    }
}

/// What an earlier agent has pinned, for those who take it over.
#[derive(Debug)]
pub struct Inherited {
    /// Where its maps are.
    pub(crate) maps: PathBuf,
    /// Where the links are to be that take the place of its own.
    pub(crate) links: PathBuf,
    /// Its own.
    pub(crate) former: Vec<HookLink>,
}

fn map(dir: &Path, name: &str) -> Result<OwnedFd, BpfError> {
    let path = dir.join(name);
    sys::obj_get(&path).map_err(|source| BpfError::pin(path, "opening", source))
}
