use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ironclad_core::abi::SockStats;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::{HOOKS, Processes, SocketProgram};
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::{Map, clone_fd};
use crate::object::{io_error, load};
use crate::program::Program;
use crate::shield::Shared;
use crate::skel::cgroup_dispatch::CgroupDispatchSkelBuilder;

/// How the maps are made that outlive a policy.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Rules with counters of their own, at most 16,384. Default 4,096.
    pub rule_slots: u32,
    /// Token buckets. Default 1,024.
    pub buckets: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { rule_slots: 4096, buckets: 1024 }
    }
}

/// The dispatchers of the cgroup hooks, and the maps that outlive a policy.
#[derive(Debug)]
pub struct SocketShared {
    dispatchers: Vec<Program>,
    slots: Vec<Map<u32, u32>>,
    /// Counters by rule slot.
    pub stats: Map<u32, SockStats>,
    /// Rule id to slot.
    pub rule_slots: Map<u32, u32>,
    /// A limit's digest to its bucket.
    pub bucket_slots: Map<u64, u32>,
    sample: OwnedFd,
    buckets: OwnedFd,
}

impl SocketShared {
    /// Loads the dispatchers. No policy is in force: everything is allowed.
    ///
    /// # Errors
    /// [`BpfError::Load`] with the verifier's log, [`BpfError::Object`] or [`BpfError::Map`].
    pub fn load(
        shared: &Shared,
        processes: &Processes,
        options: SocketOptions,
    ) -> Result<Self, BpfError> {
        let failed = |step| {
            move |e: libbpf_rs::Error| BpfError::Object {
                object: "cgroup_dispatch",
                step,
                source: io_error(&e),
            }
        };
        let mut storage = MaybeUninit::uninit();
        let mut open =
            CgroupDispatchSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
        let maps = &mut open.maps;
        for (map, fd) in [
            (&mut maps.data_ic_state, shared.state_fd()),
            (&mut maps.ic_reasons, shared.reasons.as_fd()),
            (&mut maps.ic_rules, shared.rules.as_fd()),
            (&mut maps.ic_losses, shared.losses.as_fd()),
            (&mut maps.ic_events, shared.events()),
            (&mut maps.ic_sample, shared.sample_fd()),
            (&mut maps.ic_processes, processes.table_fd()),
        ] {
            map.reuse_fd(fd).map_err(failed("sharing a map"))?;
        }
        for (map, size) in [
            (&mut maps.ic_sock_stats, options.rule_slots),
            (&mut maps.ic_sock_sample, options.rule_slots),
            (&mut maps.ic_sock_slots, options.rule_slots),
            (&mut maps.ic_buckets, options.buckets),
            (&mut maps.ic_bucket_slots, options.buckets),
        ] {
            map.set_max_entries(size).map_err(failed("sizing a map"))?;
        }
        load("cgroup_dispatch", open.open_object_mut(), &Allowlist::sockets())?;
        let (maps, progs) = (&open.maps, &open.progs);
        let programs = [
            &progs.ic_connect4,
            &progs.ic_connect6,
            &progs.ic_sendmsg4,
            &progs.ic_sendmsg6,
            &progs.ic_bind4,
            &progs.ic_bind6,
            &progs.ic_create,
        ];
        let slots = [
            (&maps.ic_at_connect4, "ic_at_connect4"),
            (&maps.ic_at_connect6, "ic_at_connect6"),
            (&maps.ic_at_sendmsg4, "ic_at_sendmsg4"),
            (&maps.ic_at_sendmsg6, "ic_at_sendmsg6"),
            (&maps.ic_at_bind4, "ic_at_bind4"),
            (&maps.ic_at_bind6, "ic_at_bind6"),
            (&maps.ic_at_create, "ic_at_create"),
        ];
        Ok(Self {
            dispatchers: programs
                .into_iter()
                .map(|program| Program::new(crate::program::clone_fd(program)?))
                .collect::<Result<_, _>>()?,
            slots: slots
                .into_iter()
                .map(|(map, name)| Map::new(clone_fd(map)?, name))
                .collect::<Result<_, _>>()?,
            stats: Map::new(clone_fd(&maps.ic_sock_stats)?, "ic_sock_stats")?,
            rule_slots: Map::new(clone_fd(&maps.ic_sock_slots)?, "ic_sock_slots")?,
            bucket_slots: Map::new(clone_fd(&maps.ic_bucket_slots)?, "ic_bucket_slots")?,
            sample: clone_fd(&maps.ic_sock_sample)?,
            buckets: clone_fd(&maps.ic_buckets)?,
        })
    }

    /// Attaches to a control group, by its directory: from now on every process in it, and in those
    /// below it, asks. What one of the hooks refuses leaves none attached.
    ///
    /// # Errors
    /// [`BpfError::NoCgroup`], [`BpfError::AttachHook`].
    pub fn attach(&self, cgroup: &Path) -> Result<Vec<HookLink>, BpfError> {
        /// Magic number of the file system (include/uapi/linux/magic.h).
        const CGROUP2: i64 = 0x6367_7270;
        let none = |why: String| BpfError::NoCgroup { path: cgroup.to_owned(), why };
        let dir = File::open(cgroup).map_err(|e| none(e.to_string()))?;
        match rustix::fs::fstatfs(&dir) {
            Ok(stat) if stat.f_type == CGROUP2 => {}
            _ => {
                let hint = "`mount -t cgroup2` shows where the hierarchy is".to_owned();
                return Err(none(hint));
            }
        }
        HOOKS
            .iter()
            .zip(&self.dispatchers)
            .map(|((name, kind), program)| HookLink::cgroup(program, dir.as_fd(), *kind, name))
            .collect()
    }

    /// Puts a policy's programs into a slot, which must not be in force.
    ///
    /// # Errors
    /// [`BpfError::Map`] where the kernel refuses; then the slot is empty.
    pub fn fill_slot(&self, slot: u32, policy: &SocketProgram) -> Result<(), BpfError> {
        for (map, program) in self.slots.iter().zip(policy.programs()) {
            if let Err(e) = map.update(&slot, &(program.as_fd().as_raw_fd() as u32)) {
                self.clear_slot(slot)?;
                return Err(e);
            }
        }
        Ok(())
    }

    /// Empties a slot, which must not be in force.
    ///
    /// # Errors
    /// [`BpfError::Map`] where the kernel refuses.
    pub fn clear_slot(&self, slot: u32) -> Result<(), BpfError> {
        self.slots.iter().try_for_each(|map| map.delete(&slot).map(|_| ()))
    }

    /// The programs to attach, in the order of the hooks.
    pub fn dispatchers(&self) -> &[Program] {
        &self.dispatchers
    }

    pub(crate) fn sample_fd(&self) -> BorrowedFd<'_> {
        self.sample.as_fd()
    }

    pub(crate) fn buckets_fd(&self) -> BorrowedFd<'_> {
        self.buckets.as_fd()
    }
}
