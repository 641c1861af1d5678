use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use ironclad_core::Verdict;
use ironclad_core::abi::{self, FileId, SockExe, SockPorts, SockRule};
use libbpf_rs::OpenMapMut;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use zerocopy::IntoBytes;

use super::{Processes, SocketShared};
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::map::{Map, Plain, clone_fd};
use crate::mapping::Mapping;
use crate::object::{io_error, load};
use crate::program::Program;
use crate::shield::{Shared, kernel_hz};
use crate::skel::cgroup_policy::CgroupPolicySkelBuilder;
use crate::sys;

/// The constants that a policy's programs are compiled with. Cells are numbers of cells in
/// [`SocketMaps::rows`].
#[derive(Clone, Debug)]
pub struct SocketConfig<'a> {
    /// Of the policy.
    pub generation: u64,
    /// Of the maps that change while the policy is in force: no two of an instance are equal.
    pub epoch: u32,
    /// What becomes of what no rule matches, by [`abi::SocketOp`].
    pub defaults: [Verdict; 4],
    /// Events a second of what no rule decided.
    pub rate: u32,
    /// Whether nothing is denied.
    pub dry_run: bool,
    /// Bit d: some rule asks of dimension d.
    pub dims: u32,
    /// Cells of a row.
    pub stride: u32,
    /// Words of the summary that say anything.
    pub summary: u32,
    /// Steps of the longest search.
    pub steps: u32,
    /// First cells of each dimension's row of what no rule names.
    pub none: [u32; abi::DIM_MAX],
    /// First cells of the rows of each operation and protocol.
    pub kind: &'a [u32],
    /// Bit n: a rule names a control group at depth n.
    pub levels: u32,
    /// First cell of the flat table's IPv4 root.
    pub flat_root4: Option<u32>,
    /// First cell of the flat table's IPv6 root.
    pub flat_root6: Option<u32>,
}

/// What the maps of a policy are filled with. Those that are empty are not made.
#[derive(Clone, Debug)]
pub struct SocketMaps<'a> {
    /// The flat table of addresses, sixteen words a cell.
    pub flat: &'a [u32],
    /// The rows, eight words a cell.
    pub rows: &'a [u64],
    /// The row of each port.
    pub ports: &'a [SockPorts],
    /// The rules, in their order.
    pub rules: &'a [SockRule],
    /// What executables mean, and how many more may be added later.
    pub exes: (&'a [(FileId, SockExe)], u32),
    /// What the executables of parents mean, likewise.
    pub parents: (&'a [(FileId, SockExe)], u32),
    /// First cells of the rows of users.
    pub uids: &'a [(u32, u32)],
    /// Of groups.
    pub gids: &'a [(u32, u32)],
    /// Of control groups, by id.
    pub cgroups: &'a [(u64, u32)],
    /// Of names of threads.
    pub comms: &'a [([u8; 16], u32)],
}

/// A policy's programs in the kernel, one for each hook, and the maps that are theirs alone.
#[derive(Debug)]
pub struct SocketProgram {
    programs: Vec<Program>,
    /// What executables mean; none where no rule asks.
    pub exes: Option<Map<FileId, SockExe>>,
    /// What the executables of parents mean; none where no rule asks.
    pub parents: Option<Map<FileId, SockExe>>,
    globals: Mapping,
    /// Where in them the epoch is.
    epoch_at: usize,
}

fn fill<K: Plain, V: Plain>(
    map: &OpenMapMut<'_>,
    name: &str,
    size: usize,
    elements: &[(K, V)],
) -> Result<Option<Map<K, V>>, BpfError> {
    if size == 0 {
        return Ok(None);
    }
    let map = Map::new(clone_fd(map)?, name)?;
    for (key, value) in elements {
        map.update(key, value)?;
    }
    Ok(Some(map))
}

impl SocketProgram {
    /// Loads a policy beside those that there are. It is in force only when a slot is selected.
    ///
    /// # Errors
    /// [`BpfError::Load`] with the verifier's log, [`BpfError::Map`] where memory or a limit of the
    /// kernel does not suffice.
    pub fn load(
        shared: &Shared,
        processes: &Processes,
        sockets: &SocketShared,
        config: &SocketConfig<'_>,
        content: &SocketMaps<'_>,
    ) -> Result<Self, BpfError> {
        let failed = |step| {
            move |e: libbpf_rs::Error| BpfError::Object {
                object: "cgroup_policy",
                step,
                source: io_error(&e),
            }
        };
        let missing = |what| BpfError::Object {
            object: "cgroup_policy",
            step: "finding its variables",
            source: std::io::Error::other(what),
        };
        let mut storage = MaybeUninit::uninit();
        let mut open =
            CgroupPolicySkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
        let rodata = open.maps.rodata_data.as_mut().ok_or_else(|| missing("no .rodata"))?;
        rodata.ic_cfg_generation = config.generation;
        rodata.ic_cfg_dry_run = u8::from(config.dry_run);
        rodata.ic_cfg_report_hz = kernel_hz();
        rodata.ic_cfg_sock_default = config.defaults.map(Verdict::abi);
        rodata.ic_cfg_sock_rate = config.rate;
        rodata.ic_cfg_sock_dims = config.dims;
        rodata.ic_cfg_sock_stride = config.stride;
        rodata.ic_cfg_sock_summary = config.summary;
        rodata.ic_cfg_sock_steps = config.steps;
        rodata.ic_cfg_sock_none = config.none;
        rodata.ic_cfg_sock_kind.copy_from_slice(config.kind);
        rodata.ic_cfg_sock_levels = config.levels;
        rodata.ic_cfg_flat_root4 = config.flat_root4.unwrap_or(u32::MAX);
        rodata.ic_cfg_flat_root6 = config.flat_root6.unwrap_or(u32::MAX);
        let bss = open.maps.bss_data.as_mut().ok_or_else(|| missing("no .bss"))?;
        bss.ic_sock_epoch = config.epoch;
        let epoch_at = std::ptr::from_ref(&bss.ic_sock_epoch) as usize
            - std::ptr::from_ref::<crate::skel::cgroup_policy::types::bss>(bss) as usize;
        let bss_len = size_of::<crate::skel::cgroup_policy::types::bss>();

        let maps = &mut open.maps;
        for (map, fd) in [
            (&mut maps.data_ic_state, shared.state_fd()),
            (&mut maps.ic_reasons, shared.reasons.as_fd()),
            (&mut maps.ic_rules, shared.rules.as_fd()),
            (&mut maps.ic_losses, shared.losses.as_fd()),
            (&mut maps.ic_events, shared.events()),
            (&mut maps.ic_sample, shared.sample_fd()),
            (&mut maps.ic_processes, processes.table_fd()),
            (&mut maps.ic_sock_stats, sockets.stats.as_fd()),
            (&mut maps.ic_sock_sample, sockets.sample_fd()),
            (&mut maps.ic_buckets, sockets.buckets_fd()),
        ] {
            map.reuse_fd(fd).map_err(failed("sharing a map"))?;
        }
        let asks = |dim: usize| config.dims >> dim & 1 == 1;
        let of_files = |dim, (files, more): (&[(FileId, SockExe)], u32)| {
            if asks(dim) { (files.len() + more as usize).max(1) } else { 0 }
        };
        let of = |dim, len: usize| if asks(dim) { len.max(1) } else { 0 };
        let exes = of_files(abi::DIM_EXE, content.exes);
        let parents = of_files(abi::DIM_PARENT, content.parents);
        let uids = of(abi::DIM_UID, content.uids.len());
        let gids = of(abi::DIM_GID, content.gids.len());
        let cgroups = if config.levels == 0 { 0 } else { content.cgroups.len() };
        let comms = of(abi::DIM_COMM, content.comms.len());
        // What is off is not created; the verifier never sees the code that would use it.
        for (map, size) in [
            (&mut maps.ic_flat, content.flat.len() / 16),
            (&mut maps.ic_sock_rows, content.rows.len() / 8),
            (&mut maps.ic_sock_rules, content.rules.len()),
            (&mut maps.ic_sock_ports, content.ports.len()),
            (&mut maps.ic_sock_exes, exes),
            (&mut maps.ic_sock_parents, parents),
            (&mut maps.ic_sock_uids, uids),
            (&mut maps.ic_sock_gids, gids),
            (&mut maps.ic_sock_cgroups, cgroups),
            (&mut maps.ic_sock_comms, comms),
        ] {
            map.set_autocreate(size > 0).map_err(failed("choosing maps"))?;
            if size > 0 {
                map.set_max_entries(size as u32).map_err(failed("sizing a map"))?;
            }
        }
        load("cgroup_policy", open.open_object_mut(), &Allowlist::sockets())?;

        let maps = &open.maps;
        for (map, name, bytes) in [
            (&maps.ic_flat, "ic_flat", content.flat.as_bytes()),
            (&maps.ic_sock_rows, "ic_sock_rows", content.rows.as_bytes()),
        ] {
            if bytes.is_empty() {
                continue;
            }
            let fd = clone_fd(map)?;
            let mut mapping = Mapping::new(fd.as_fd(), bytes.len(), true)
                .map_err(|e| BpfError::map(name, "mapping", e))?;
            mapping.fill(bytes);
            drop(mapping);
            sys::map_freeze(fd.as_fd()).map_err(|e| BpfError::map(name, "freezing", e))?;
        }
        let numbered = |len: usize| 0..len as u32;
        let rules: Vec<(u32, SockRule)> =
            numbered(content.rules.len()).zip(content.rules.iter().copied()).collect();
        fill(&maps.ic_sock_rules, "ic_sock_rules", rules.len(), &rules)?;
        let ports: Vec<(u32, SockPorts)> =
            numbered(content.ports.len()).zip(content.ports.iter().copied()).collect();
        fill(&maps.ic_sock_ports, "ic_sock_ports", ports.len(), &ports)?;
        fill(&maps.ic_sock_uids, "ic_sock_uids", uids, content.uids)?;
        fill(&maps.ic_sock_gids, "ic_sock_gids", gids, content.gids)?;
        fill(&maps.ic_sock_cgroups, "ic_sock_cgroups", cgroups, content.cgroups)?;
        fill(&maps.ic_sock_comms, "ic_sock_comms", comms, content.comms)?;
        let globals = Mapping::new(clone_fd(&maps.bss)?.as_fd(), bss_len, true)
            .map_err(|e| BpfError::map(".bss", "mapping", e))?;
        let progs = &open.progs;
        let programs = [
            &progs.ic_p_connect4,
            &progs.ic_p_connect6,
            &progs.ic_p_sendmsg4,
            &progs.ic_p_sendmsg6,
            &progs.ic_p_bind4,
            &progs.ic_p_bind6,
            &progs.ic_p_create,
        ];
        Ok(Self {
            programs: programs
                .into_iter()
                .map(|program| Program::new(crate::program::clone_fd(program)?))
                .collect::<Result<_, _>>()?,
            exes: fill(&maps.ic_sock_exes, "ic_sock_exes", exes, content.exes.0)?,
            parents: fill(&maps.ic_sock_parents, "ic_sock_parents", parents, content.parents.0)?,
            globals,
            epoch_at,
        })
    }

    /// Lets no process go on with what the maps of executables said before. Call it after each
    /// change, with a number that no policy of the instance had before.
    pub fn begin_epoch(&self, epoch: u32) {
        self.globals.u32_at(self.epoch_at).store(epoch, Ordering::Release);
    }

    /// The programs, in the order of the hooks.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }
}
