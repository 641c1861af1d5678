use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::OpenMapMut;

use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::{clone_fd, map_info};
use crate::object::failed;
use crate::pin::{PinDirectory, SOCKETS};
use crate::sys;

use super::packets;

/// Maps that outlive an agent: what is known of processes, and the socket rules of both slots.
const MAPS: [&str; 17] = [
    "ic_processes",
    "ic_process_ctl",
    "ic_lineages",
    "ic_lineage_bits",
    "ic_exe_names",
    "ic_sock_policy",
    "ic_sock_rows",
    "ic_sock_flat",
    "ic_sock_ports",
    "ic_sock_rules",
    "ic_sock_logs",
    "ic_sock_ids",
    "ic_sock_stats",
    "ic_sock_sample",
    "ic_sock_slots",
    "ic_buckets",
    "ic_bucket_slots",
];

/// What an earlier agent of an instance has pinned for its socket rules.
#[derive(Debug)]
pub struct SocketPins {
    path: PathBuf,
    /// Until they are taken over.
    pub(super) tracepoints: Vec<HookLink>,
    /// Likewise, with the ids of their control groups; 0 where that was removed.
    pub(super) cgroups: Vec<(u64, HookLink)>,
    /// Those of BPF LSM, likewise, and the pins of their maps of control groups.
    pub(super) packets: Vec<HookLink>,
    pub(super) groups: Vec<PathBuf>,
}

impl SocketPins {
    /// Looks for them; `None` where the instance has none.
    ///
    /// # Errors
    /// [`BpfError::PinDirectory`] where some are missing, or others are there.
    pub fn find(directory: &PinDirectory) -> Result<Option<Self>, BpfError> {
        let Some(pins) = directory.sockets(&MAPS, packets::GROUPS)? else { return Ok(None) };
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
    sys::obj_get(&path).map_err(|source| BpfError::Pin { path, step: "opening", source })
}

/// Maps of an object that is about to be loaded: those that an earlier agent pinned are taken as
/// they are, and of the others those that have no size get one.
pub(crate) fn take(
    pins: Option<&Path>,
    object: &'static str,
    maps: Vec<(&mut OpenMapMut<'_>, Option<u32>)>,
) -> Result<(), BpfError> {
    for (map, size) in maps {
        if let Some(pins) = pins {
            let fd = self::map(pins, &map.name().to_string_lossy())?;
            map.reuse_fd(fd.as_fd()).map_err(failed(object, "taking over a map"))?;
        } else if let Some(size) = size {
            map.set_max_entries(size).map_err(failed(object, "sizing a map"))?;
        }
    }
    Ok(())
}

/// Descriptors of maps that are to be pinned, by name.
#[derive(Debug)]
pub(crate) struct Kept(Vec<(String, OwnedFd)>);

impl Kept {
    pub(crate) fn of(maps: &[&OpenMapMut<'_>]) -> Result<Self, BpfError> {
        let one =
            |map: &&OpenMapMut<'_>| Ok((map.name().to_string_lossy().into_owned(), clone_fd(map)?));
        maps.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()))
    }

    /// With the names of their pins within the instance's directory.
    pub(super) fn pins(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd)| (format!("{SOCKETS}/{name}"), fd.as_fd()))
    }
}
