//! What outlives an agent: one table of the names of all products' pins, and the maps behind them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::BpfError;
use crate::map::{Map, Plain, map_info};
use crate::sys;

/// Of `progs/process`: the table of processes.
pub(crate) const PROCESS: [&str; 5] =
    ["ic_processes", "ic_process_ctl", "ic_ancestries", "ic_ancestry_ids", "ic_exe_names"];

/// Of `progs/cgroup`: socket rules of both slots, and their counters.
pub(crate) const SOCKET: [&str; 12] = [
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

/// Of `progs/xdp_dispatch`.
pub(crate) const SHIELD: [&str; 9] = [
    STATE,
    "ic_slots",
    "ic_slots_ip",
    "ic_reasons",
    "ic_rules",
    LOSSES,
    "ic_rule_slots",
    "ic_events",
    "ic_sample",
];

/// Of `progs/sentinel`.
pub(crate) const SENTINEL: [&str; 14] = [
    ".data.ic_sentinel",
    "ic_marks",
    "ic_dir_renames",
    "ic_secrets",
    "ic_objects",
    "ic_links",
    "ic_exemptions",
    "ic_alarms",
    "ic_labels",
    "ic_label_bits",
    "ic_names",
    "ic_volumes",
    "ic_file_policy",
    "ic_mounts",
];

/// The map of Shield's state: the section that holds it.
pub(crate) const STATE: &str = ".data.ic_state";

/// Counters of losses: Shield's, or those of the table of processes where there is no Shield.
pub(crate) const LOSSES: &str = "ic_losses";

/// Shield's dispatchers, by [`LinkLayer`](crate::LinkLayer): for frames that begin with an Ethernet header, and with the
/// IP header.
pub(crate) const DISPATCHERS: [&str; 2] = ["ic_xdp", "ic_xdp_ip"];

/// The next dispatchers, until they are renamed.
pub(crate) const DISPATCHERS_STAGED: [&str; 2] = ["ic_xdp_new", "ic_xdp_ip_new"];

/// The directory of the pins for Shield's socket rules, within Shield's.
pub(crate) const SOCKETS: &str = "sockets";

/// The same, until it is complete and renamed.
pub(crate) const SOCKETS_STAGED: &str = "sockets_new";

/// Prefix of the maps of cgroups whose packet sockets are checked; the number of the link follows.
pub(crate) const PACKET_CGROUPS: &str = "ic_cgroups_";

/// Prefix of links.
pub(crate) const LINK_PREFIX: &str = "link_";

/// Prefix of Sentinel's directories of links; a number follows that no two agents have.
pub(crate) const LINK_DIRECTORY_PREFIX: &str = "links_";

/// The name of a map's pin. bpffs reserves the dots in the names of data sections.
pub(crate) fn pin_name(map: &str) -> &str {
    if map.starts_with(".data.") { "state" } else { map }
}

/// The names of the pins of several objects' maps.
pub(crate) fn pin_names(objects: &[&[&'static str]]) -> Vec<&'static str> {
    objects.iter().copied().flatten().map(|map| pin_name(map)).collect()
}

/// Descriptors of an object's persistent maps.
#[derive(Debug)]
pub(crate) struct PersistentMaps(pub(crate) Vec<(&'static str, OwnedFd)>);

impl PersistentMaps {
    /// Opens the pins of `names`.
    pub(crate) fn open(names: &[&'static str], pins: &PinnedMaps) -> Result<Self, BpfError> {
        let one = |name: &&'static str| Ok((*name, pins.open(name)?));
        names.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// By the names that objects give them.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd)| (*name, fd.as_fd()))
    }

    /// By the names of their pins.
    pub(crate) fn pins(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.maps().map(|(name, fd)| (pin_name(name).to_owned(), fd))
    }

    /// One of them.
    pub(crate) fn fd(&self, name: &str) -> BorrowedFd<'_> {
        let found = self.maps().find(|(map, _)| *map == name);
        found.map(|(_, fd)| fd).unwrap_or_else(|| panic!("`{name}` is not in the table of pins"))
    }

    /// One of them, with these types of keys and values.
    pub(crate) fn map<K: Plain, V: Plain>(&self, name: &str) -> Result<Map<K, V>, BpfError> {
        let fd = self.fd(name).try_clone_to_owned();
        Map::new(fd.map_err(|e| BpfError::map(name, "duplicating its descriptor", e))?, name)
    }
}

/// The directory where an earlier agent has pinned maps.
#[derive(Clone, Debug)]
pub(crate) struct PinnedMaps(PathBuf);

impl PinnedMaps {
    pub(crate) fn in_directory(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A map, by the name that objects give it.
    pub(crate) fn open(&self, map: &str) -> Result<OwnedFd, BpfError> {
        let path = self.0.join(pin_name(map));
        sys::obj_get(&path).map_err(|source| BpfError::pin(path, "opening", source))
    }

    /// The number of elements that a map has room for.
    pub(crate) fn size(&self, map: &str) -> Result<u32, BpfError> {
        let info = map_info(self.open(map)?.as_fd());
        Ok(info.map_err(|e| BpfError::map(map, "reading its info", e))?.max_entries)
    }
}
