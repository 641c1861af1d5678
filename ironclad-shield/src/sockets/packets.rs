//! Packet sockets, which only BPF LSM sees.
use ironclad_bpf::shield::Shared;
use ironclad_bpf::socket::{PacketSockets, Processes, SocketShared};
use ironclad_bpf::{BpfError, PinDirectory};
use ironclad_core::ErrorChain;
use ironclad_policy::socket::CompiledSockets;

use super::Sockets;
use super::cgroups::Protected;
use crate::error::ShieldError;

impl Sockets {
    pub(super) fn unprotect_packets(&mut self, id: u64) -> Result<(), BpfError> {
        self.packets.as_mut().map_or(Ok(()), |packets| packets.unprotect(id))
    }

    /// What sees packet sockets.
    pub(crate) fn packets(&self) -> Option<&PacketSockets> {
        self.packets.as_ref()
    }

    pub(crate) fn take_packets(&mut self) -> Option<PacketSockets> {
        self.packets.take()
    }

    /// Sees packet sockets from now on, where the policy decides of them; `None` where nothing
    /// changes. Pins where the others are pinned.
    pub(crate) fn watch_packets(
        &mut self,
        shared: &Shared,
        policy: &CompiledSockets,
        directory: Option<&PinDirectory>,
    ) -> Result<Option<&PacketSockets>, ShieldError> {
        let Some(asked) = policy.packet_sockets() else { return Ok(None) };
        let refuse =
            |why: String| ShieldError::PacketSockets { asked_by: asked.asked_by.clone(), why };
        let new = match &self.packets {
            Some(_) => None,
            None => {
                let loaded = load(shared, &self.processes, &self.shared, &self.cgroups, directory);
                Some(loaded.map_err(|e| refuse(ErrorChain::new(&e).to_string()))?)
            }
        };
        if let Some(rule) = &asked.limited_by {
            let may_limit = new.as_ref().or(self.packets.as_ref()).map(PacketSockets::may_limit);
            if may_limit == Some(false) {
                let why = format!("{rule} limits them, which needs Linux 5.11");
                return Err(refuse(why));
            }
        }
        let Some(new) = new else { return Ok(None) };
        self.packets = Some(new);
        Ok(self.packets.as_ref())
    }
}

/// What sees packet sockets, for the cgroups that ask.
pub(super) fn load(
    shared: &Shared,
    processes: &Processes,
    sockets: &SocketShared,
    cgroups: &[Protected],
    directory: Option<&PinDirectory>,
) -> Result<PacketSockets, BpfError> {
    let mut alive = Vec::new();
    for known in cgroups {
        if known.links.is_alive()? {
            alive.push(known.path.as_path());
        }
    }
    let mut new = PacketSockets::load(shared, processes, sockets, alive)?;
    directory.map_or(Ok(()), |directory| new.persist(directory))?;
    Ok(new)
}
