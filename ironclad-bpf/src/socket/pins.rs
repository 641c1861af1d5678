use std::path::PathBuf;

use crate::error::BpfError;
use crate::hook::HookLink;
use crate::persistent::{PACKET_CGROUPS, PROCESS, PinnedMaps, SOCKET, SOCKETS, pin_names};
use crate::pin::PinDirectory;

/// The hooks of BPF LSM for packet sockets and TUN devices, and the programs. No hook of a cgroup and no
/// tracepoint has such a name.
pub(super) const PACKET_HOOKS: [(&str, &str); 3] = [
    ("socket_create", "ic_packet"),
    ("tun_dev_create", "ic_tun_create"),
    ("tun_dev_open", "ic_tun_open"),
];

/// What an earlier agent of an instance has pinned for its socket rules.
#[derive(Debug)]
pub struct SocketPins {
    pub(super) maps: PinnedMaps,
    /// Until they are adopted.
    pub(super) tracepoints: Vec<HookLink>,
    /// Likewise, with the ids of their cgroups; 0 where that was removed.
    pub(super) cgroups: Vec<(u64, HookLink)>,
    /// Those of BPF LSM, likewise, and the pins of their maps of cgroups.
    pub(super) packets: Vec<HookLink>,
    pub(super) groups: Vec<PathBuf>,
}

impl SocketPins {
    /// Finds them; `None` where the instance has none.
    ///
    /// # Errors
    /// `BpfErrorKind::PinDirectory` where some are missing, or foreign ones are there.
    pub fn find(directory: &PinDirectory) -> Result<Option<Self>, BpfError> {
        let Some(pins) = directory.sockets(&pin_names(&[&PROCESS, &SOCKET]), PACKET_CGROUPS)?
        else {
            return Ok(None);
        };
        let is_map = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PACKET_CGROUPS))
        };
        let (groups, links): (Vec<PathBuf>, Vec<PathBuf>) = pins.into_iter().partition(is_map);
        let (tracepoints, cgroups, packets) = (Vec::new(), Vec::new(), Vec::new());
        let maps = PinnedMaps::in_directory(directory.path().join(SOCKETS));
        let mut this = Self { maps, tracepoints, cgroups, packets, groups };
        let is_packets = |hook: &str| PACKET_HOOKS.iter().any(|(known, _)| *known == hook);
        for path in links {
            let link = HookLink::open(&path)?;
            match link.cgroup_id()? {
                Some(id) => this.cgroups.push((id, link)),
                None if is_packets(link.hook()) => this.packets.push(link),
                None => this.tracepoints.push(link),
            }
        }
        Ok(Some(this))
    }

    /// Whether packet sockets were checked.
    pub fn has_packets(&self) -> bool {
        !self.packets.is_empty()
    }

    /// What the table of processes adopts, once.
    pub fn inherited(&mut self) -> Inherited {
        let former = std::mem::take(&mut self.tracepoints);
        Inherited { links: self.maps.path().to_owned(), maps: self.maps.clone(), former }
    }
}

/// What an earlier agent has pinned for the table of processes.
#[derive(Debug)]
pub struct Inherited {
    /// Where its maps are.
    pub(crate) maps: PinnedMaps,
    /// Where the links are to be that take the place of its own.
    pub(crate) links: PathBuf,
    /// Its own.
    pub(crate) former: Vec<HookLink>,
}
