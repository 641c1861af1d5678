//! Socket rules that outlive an agent: what is pinned, and where.

use std::os::fd::{AsFd, BorrowedFd};

use super::shared::{CgroupLinks, SocketShared};
use super::{PacketSockets, Processes};
use crate::error::BpfError;
use crate::persistent::SOCKETS;
use crate::pin::PinDirectory;

impl SocketShared {
    /// Pins the links of a cgroup that are not pinned yet.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn persist_cgroup(
        directory: &PinDirectory,
        cgroup: &mut CgroupLinks,
    ) -> Result<(), BpfError> {
        cgroup
            .links
            .iter_mut()
            .filter(|link| !link.is_pinned())
            .try_for_each(|link| link.pin(&directory.socket_path(&link.pin_name())))
    }

    /// Everything that outlives an agent, with the names of the pins.
    pub fn pins<'a>(
        &'a self,
        processes: &'a Processes,
        packets: Option<&'a PacketSockets>,
        cgroups: impl Iterator<Item = &'a CgroupLinks>,
    ) -> Vec<(String, BorrowedFd<'a>)> {
        let links = cgroups.flat_map(|cgroup| &cgroup.links);
        let links = links.map(|link| (format!("{SOCKETS}/{}", link.pin_name()), link.as_fd()));
        let packets = packets.into_iter().flat_map(PacketSockets::pins);
        self.persistent
            .pins()
            .map(|(name, fd)| (format!("{SOCKETS}/{name}"), fd))
            .chain(processes.pins())
            .chain(packets)
            .chain(links)
            .collect()
    }

    /// All of it has been pinned.
    pub fn persisted<'a>(
        directory: &PinDirectory,
        processes: &mut Processes,
        packets: Option<&mut PacketSockets>,
        cgroups: impl Iterator<Item = &'a mut CgroupLinks>,
    ) {
        let links = cgroups.flat_map(|cgroup| &mut cgroup.links);
        for link in links.chain(processes.links_mut()) {
            link.pinned_at(&directory.socket_path(&link.pin_name()));
        }
        if let Some(packets) = packets {
            packets.pinned_in(directory);
        }
    }
}
