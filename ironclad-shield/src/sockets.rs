//! Socket rules: cgroup hooks, their policies in the kernel, the process table.
mod bindings;
pub(crate) mod cgroup_paths;
mod cgroups;
mod containers;
pub(crate) mod contents;
mod counters;
pub(crate) mod follow;
mod packets;
mod paths;
mod policy;
pub(crate) mod process_context;
pub(crate) mod scripts;
mod watch;

use std::os::fd::BorrowedFd;

use ironclad_bpf::shield::Shared;
use ironclad_bpf::socket::{
    PacketSockets, Processes, SocketGroups, SocketOptions, SocketPins, SocketShared,
};
use ironclad_bpf::{PinDirectory, Program};

use crate::error::ShieldError;
use crate::slots::Slots;
use bindings::Former;
use cgroup_paths::{CgroupPath, CgroupTree};
use cgroups::Protected;
use paths::SlotBound;

pub(crate) use cgroups::Attached;
pub use counters::SocketCount;
pub use paths::PathChange;
pub(crate) use policy::SocketPolicy;

/// What has slots that outlive policies: those of the policy in force, and of the next. With the next
/// step where there is no room.
const SOCKET_RULES: (&str, &str) = (
    "socket rules",
    "keep the ids of rules that stay; or stop the instance, and start it with this policy, or with more \
     `socket_rule_slots` (in a policy file `policy-limits.socket-rule-slots`)",
);
const LIMITS: (&str, &str) = (
    "limits",
    "let rules share them by a name; or stop the instance, and start it with this policy",
);
const ANCESTRIES: (&str, &str) =
    ("lists of `descendant_of`", "let rules share them, in this policy and with the one in force");

pub(crate) struct Sockets {
    processes: Processes,
    shared: SocketShared,
    rules: Slots<u32>,
    buckets: Slots<u64>,
    /// Bits of ancestries that processes carry; the bit is one less than the slot.
    ancestries: Slots<u64>,
    /// Files that paths led to earlier.
    former: Vec<Former>,
    /// By slot, where this agent has filled it.
    bound: [Option<SlotBound>; 2],
    next_epoch: u32,
    cgroups: Vec<Protected>,
    /// Whether the kernel calls hooks below the root, when it was last read.
    groups: SocketGroups,
    is_loss_logged: bool,
    /// None until a policy decides about packet sockets.
    packets: Option<PacketSockets>,
}

impl Sockets {
    /// Loads the programs, and adopts the pins of an earlier agent.
    pub(crate) fn load(
        shared: &Shared,
        options: SocketOptions,
        directory: Option<&PinDirectory>,
        mut pins: Option<&mut SocketPins>,
    ) -> Result<Self, ShieldError> {
        let processes =
            Processes::load(Some(&shared.losses), pins.as_deref_mut().map(SocketPins::inherited))?;
        let own = SocketShared::load(shared, &processes, options, pins.as_deref())?;
        let mut cgroups = Vec::new();
        for mut links in
            pins.as_deref_mut().map(|pins| own.adopt(pins)).transpose()?.into_iter().flatten()
        {
            let tree = CgroupTree::open()?;
            let found = tree.by_id(links.id).and_then(|found| Some((found, tree.dir(links.id)?)));
            let Some((CgroupPath { path, .. }, dir)) = found else {
                let id = links.id;
                tracing::warn!("protected cgroup {id} was removed while no agent ran");
                links.detach()?;
                continue;
            };
            let path = tree.path_of(&path);
            if !links.is_whole() {
                // An older agent attached fewer hooks, or an agent was killed between two of them.
                own.complete(&dir, &mut links)?;
                directory.map_or(Ok(()), |pins| SocketShared::persist_cgroup(pins, &mut links))?;
            }
            cgroups.push(Protected::new(path, links));
        }
        let has_packets = pins.as_ref().is_some_and(|pins| pins.has_packets());
        let mut packets = None;
        if has_packets {
            let dirs = packets::dirs(&cgroups)?;
            packets = Some(packets::load(shared, &processes, &own, &dirs, directory)?);
        }
        pins.map_or(Ok(()), |pins| PacketSockets::supersede(pins, packets.as_mut()))?;
        Ok(Self {
            rules: Slots::read(&own.rule_slots, SOCKET_RULES)?,
            buckets: Slots::read(&own.bucket_slots, LIMITS)?,
            ancestries: Slots::read(&processes.ancestry_ids, ANCESTRIES)?,
            former: Vec::new(),
            bound: [None, None],
            next_epoch: 1 + (0..2).map(|slot| own.epoch(slot)).max().unwrap_or(0),
            processes,
            shared: own,
            cgroups,
            groups: SocketGroups::Known,
            is_loss_logged: false,
            packets,
        })
    }

    /// The programs that are attached to cgroups.
    pub(crate) fn programs(&self) -> &[Program] {
        self.shared.programs()
    }

    /// The process table.
    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The objects to pin, with the names of their pins.
    pub(crate) fn pins(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let links = self.cgroups.iter().map(|known| &known.links);
        self.shared.pins(&self.processes, self.packets.as_ref(), links)
    }

    /// Records that all of [`pins`](Self::pins) is pinned.
    pub(crate) fn persisted(&mut self, directory: &PinDirectory) {
        let links = self.cgroups.iter_mut().map(|known| &mut known.links);
        SocketShared::persisted(directory, &mut self.processes, self.packets.as_mut(), links);
    }
}
