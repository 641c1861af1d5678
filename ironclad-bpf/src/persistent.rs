//! Maps that outlive an agent: one table for all products, and the names of their pins.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
pub(crate) const SHIELD: [&str; 8] = [
    ".data.ic_state",
    "ic_slots",
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

/// Counters of losses: Shield's, or those of the table of processes where there is no Shield.
pub(crate) const LOSSES: &str = "ic_losses";

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
    /// By the names that objects give them.
    pub(crate) fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, fd)| (*name, fd.as_fd()))
    }

    /// By the names of their pins.
    pub(crate) fn pins(&self) -> impl Iterator<Item = (String, BorrowedFd<'_>)> {
        self.maps().map(|(name, fd)| (pin_name(name).to_owned(), fd))
    }
}
