//! Packet sockets, which only BPF LSM sees.
use ironclad_bpf::shield::Shared;
use ironclad_bpf::socket::{PacketSockets, Processes, SocketShared};
use ironclad_bpf::{BpfError, CgroupDir, PinDirectory};
use ironclad_policy::socket::CompiledSockets;

use super::Sockets;
use super::cgroup_paths::CgroupTree;
use super::cgroups::Protected;
use crate::error::{Failure, ShieldError};

impl Sockets {
    pub(super) fn unprotect_packets(&mut self, id: u64) -> Result<(), BpfError> {
        self.packets.as_mut().map_or(Ok(()), |packets| packets.unprotect(id))
    }

    /// The program that observes packet sockets.
    pub(crate) fn packets(&self) -> Option<&PacketSockets> {
        self.packets.as_ref()
    }

    pub(crate) fn take_packets(&mut self) -> Option<PacketSockets> {
        self.packets.take()
    }

    /// Observes packet sockets from now on, where the policy decides about them; `None` where nothing
    /// changes. Pins the program where cgroups have their links pinned.
    pub(crate) fn watch_packets(
        &mut self,
        shared: &Shared,
        policy: &CompiledSockets,
        directory: Option<&PinDirectory>,
    ) -> Result<Option<&PacketSockets>, ShieldError> {
        let Some(needed) = policy.packet_sockets() else { return Ok(None) };
        let new = match &self.packets {
            Some(_) => None,
            None => {
                let dirs = dirs(&self.cgroups)?;
                let loaded = load(shared, &self.processes, &self.shared, &dirs, directory);
                let decided_by = needed.decided_by.clone();
                Some(loaded.map_err(|source| Failure::PacketSocketsUnseen { decided_by, source })?)
            }
        };
        if let Some(rule) = &needed.limited_by {
            let can_limit = new.as_ref().or(self.packets.as_ref()).map(PacketSockets::may_limit);
            if can_limit == Some(false) {
                return Err(Failure::PacketSocketsUnlimited { rule: rule.clone() }.into());
            }
        }
        let Some(new) = new else { return Ok(None) };
        self.packets = Some(new);
        Ok(self.packets.as_ref())
    }
}

/// The directories of protected cgroups, without those that were removed: no process is in them.
pub(super) fn dirs(cgroups: &[Protected]) -> Result<Vec<CgroupDir>, ShieldError> {
    let tree = CgroupTree::open()?;
    Ok(cgroups.iter().filter_map(|known| tree.dir(known.links.id)).collect())
}

/// Loads the program that observes packet sockets, for the protected cgroups.
pub(super) fn load(
    shared: &Shared,
    processes: &Processes,
    sockets: &SocketShared,
    cgroups: &[CgroupDir],
    directory: Option<&PinDirectory>,
) -> Result<PacketSockets, BpfError> {
    let mut new = PacketSockets::load(shared, processes, sockets, cgroups)?;
    directory.map_or(Ok(()), |directory| new.persist(directory))?;
    Ok(new)
}
