use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::path::Path;

use ironclad_core::abi::{self, SockIdKey, SockIdVal, SockPolicy, SockRow, SockRule, SockStats};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::Processes;
use super::slot::CELL;
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::{Map, clone_fd};
use crate::mapping::Mapping;
use crate::object::{io_error, load};
use crate::probe::may_call;
use crate::program::Program;
use crate::shield::{Shared, kernel_hz};
use crate::skel::cgroup::CgroupSkelBuilder;
use crate::uapi::{AttachType, Helper, ProgramType};

/// The hooks, in the order of the programs.
const HOOKS: [(&str, libbpf_sys::bpf_attach_type); 7] = [
    ("connect4", libbpf_sys::BPF_CGROUP_INET4_CONNECT),
    ("connect6", libbpf_sys::BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", libbpf_sys::BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", libbpf_sys::BPF_CGROUP_UDP6_SENDMSG),
    ("bind4", libbpf_sys::BPF_CGROUP_INET4_BIND),
    ("bind6", libbpf_sys::BPF_CGROUP_INET6_BIND),
    ("sock_create", libbpf_sys::BPF_CGROUP_INET_SOCK_CREATE),
];

/// How the maps are made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Rules with counters of their own. Default 4,096.
    pub rule_slots: u32,
    /// Token buckets. Default 1,024.
    pub buckets: u32,
    /// Files, users, groups, control groups and names that the rules of two policies may name.
    /// Default 65,536.
    pub ids: u32,
    /// Rows of one policy, of 1,568 bytes each: one for each distinct set of rules that an
    /// address, a port, a file, a user and so on satisfies. Default 1,024.
    pub rows: u32,
    /// Cells of one policy's table of addresses, of 64 bytes each. Default 65,536.
    pub cells: u32,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { rule_slots: 4096, buckets: 1024, ids: 65_536, rows: 1024, cells: 65_536 }
    }
}

/// The programs of the cgroup hooks and their maps. A policy is what fills one of two slots.
#[derive(Debug)]
pub struct SocketShared {
    programs: Vec<Program>,
    pub(super) policy: Mapping,
    pub(super) rows: Mapping,
    pub(super) rows_each: usize,
    pub(super) flat: Mapping,
    pub(super) cells_each: usize,
    pub(super) ports: Mapping,
    pub(super) rules: Mapping,
    pub(super) logs: Mapping,
    pub(super) ids: Map<SockIdKey, SockIdVal>,
    /// Counters by rule slot.
    pub stats: Map<u32, SockStats>,
    /// Rule id to slot.
    pub rule_slots: Map<u32, u32>,
    /// A limit's digest to its bucket.
    pub bucket_slots: Map<u64, u32>,
}

/// Whether programs at control groups may look at the task that runs, which some kernels from 5.11
/// on allow. Where they may not, helpers tell the same.
fn may_look_at_tasks() -> bool {
    [
        (ProgramType::CGROUP_SOCK_ADDR, AttachType::CGROUP_INET4_CONNECT),
        (ProgramType::CGROUP_SOCK, AttachType::CGROUP_INET_SOCK_CREATE),
    ]
    .into_iter()
    .all(|(program, attach)| may_call(program, attach, Helper::GET_CURRENT_TASK_BTF))
}

impl SocketShared {
    /// Loads the programs. No policy is in force: everything is allowed.
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
                object: "cgroup",
                step,
                source: io_error(&e),
            }
        };
        let mut storage = MaybeUninit::uninit();
        let mut open =
            CgroupSkelBuilder::default().open(&mut storage).map_err(failed("opening"))?;
        let rodata = open.maps.rodata_data.as_mut().ok_or_else(|| BpfError::Object {
            object: "cgroup",
            step: "finding its constants",
            source: std::io::Error::other("no .rodata"),
        })?;
        rodata.ic_cfg_task_btf = u8::from(may_look_at_tasks());
        rodata.ic_cfg_report_hz = kernel_hz();
        rodata.ic_cfg_sock_rows = options.rows;
        rodata.ic_cfg_sock_cells = options.cells;
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
            (&mut maps.ic_sock_ids, options.ids),
            (&mut maps.ic_sock_rows, 2 * options.rows),
            (&mut maps.ic_sock_flat, 2 * options.cells),
        ] {
            map.set_max_entries(size).map_err(failed("sizing a map"))?;
        }
        load("cgroup", open.open_object_mut(), &Allowlist::sockets())?;
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
        let mapping = |map, name, each: usize, size: usize| {
            Mapping::new(clone_fd(map)?.as_fd(), 2 * each * size, true)
                .map_err(|e| BpfError::map(name, "mapping", e))
        };
        let rule = size_of::<SockRule>();
        Ok(Self {
            programs: programs
                .into_iter()
                .map(|program| Program::new(crate::program::clone_fd(program)?))
                .collect::<Result<_, _>>()?,
            policy: mapping(&maps.ic_sock_policy, "ic_sock_policy", 1, size_of::<SockPolicy>())?,
            rows: mapping(
                &maps.ic_sock_rows,
                "ic_sock_rows",
                options.rows as usize,
                size_of::<SockRow>(),
            )?,
            rows_each: options.rows as usize,
            flat: mapping(&maps.ic_sock_flat, "ic_sock_flat", options.cells as usize, CELL)?,
            cells_each: options.cells as usize,
            ports: mapping(&maps.ic_sock_ports, "ic_sock_ports", abi::SOCK_PORT_CELLS, 64)?,
            rules: mapping(&maps.ic_sock_rules, "ic_sock_rules", abi::SOCK_RULES_MAX, rule)?,
            logs: mapping(&maps.ic_sock_logs, "ic_sock_logs", abi::SOCK_LOGS_MAX, rule)?,
            ids: Map::new(clone_fd(&maps.ic_sock_ids)?, "ic_sock_ids")?,
            stats: Map::new(clone_fd(&maps.ic_sock_stats)?, "ic_sock_stats")?,
            rule_slots: Map::new(clone_fd(&maps.ic_sock_slots)?, "ic_sock_slots")?,
            bucket_slots: Map::new(clone_fd(&maps.ic_bucket_slots)?, "ic_bucket_slots")?,
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
            .zip(&self.programs)
            .map(|((name, kind), program)| HookLink::cgroup(program, dir.as_fd(), *kind, name))
            .collect()
    }

    /// The programs that are attached, in the order of the hooks.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }
}
