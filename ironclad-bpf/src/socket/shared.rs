use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use ironclad_core::abi::{self, SockIdKey, SockIdVal, SockPolicy, SockRow, SockRule, SockStats};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};

use super::Processes;
use super::pins::SocketPins;
use crate::audit::Allowlist;
use crate::cgroup::CgroupDir;
use crate::clock::kernel_hz;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::loader::{Loader, constants, failed};
use crate::map::Map;
use crate::mapping::Mapping;
use crate::persistent::{PersistentMaps, SOCKET};
use crate::probe::may_call;
use crate::program::Program;
use crate::shield::Shared;
use crate::skel::cgroup::CgroupSkelBuilder;
use crate::uapi::{AttachType, Helper, ProgramType};

const OBJECT: &str = "cgroup";

/// Bytes of a cell of a flat table, which is a cache line.
pub(super) const CELL: usize = 64;

/// The hooks, in the order of the programs.
const HOOKS: [(&str, libbpf_sys::bpf_attach_type); 9] = [
    ("connect4", libbpf_sys::BPF_CGROUP_INET4_CONNECT),
    ("connect6", libbpf_sys::BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", libbpf_sys::BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", libbpf_sys::BPF_CGROUP_UDP6_SENDMSG),
    ("bind4", libbpf_sys::BPF_CGROUP_INET4_BIND),
    ("bind6", libbpf_sys::BPF_CGROUP_INET6_BIND),
    ("sock_create", libbpf_sys::BPF_CGROUP_INET_SOCK_CREATE),
    ("egress", libbpf_sys::BPF_CGROUP_INET_EGRESS),
    ("setsockopt", libbpf_sys::BPF_CGROUP_SETSOCKOPT),
];

/// How the maps are made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Rules with counters of their own, those without a rule among them. Default 4,097, at most
    /// 32,769.
    pub rule_slots: u32,
    /// Token buckets, the one of no rule among them. Default 1,025, at most 32,769.
    pub buckets: u32,
    /// Files, users, groups, cgroups and names that the rules of two policies may name.
    /// Default 65,536.
    pub ids: u32,
    /// Rows of one policy, of 1,568 bytes each: one for each distinct set of rules that an
    /// address, a port, a file, a user and so on satisfies. Default 1,024, at most 65,536.
    pub rows: u32,
    /// Cells of one policy's table of addresses, of 64 bytes each. Default 65,536.
    pub cells: u32,
}

/// Rules, and limits, that may have a slot of their own, and slot 0, which belongs to none.
const SLOTS_MAX: u32 = 32_769;

impl Default for SocketOptions {
    fn default() -> Self {
        Self { rule_slots: 4097, buckets: 1025, ids: 65_536, rows: 1024, cells: 65_536 }
    }
}

/// The programs of the cgroup hooks and their maps. A policy is what fills one of two slots.
#[derive(Debug)]
pub struct SocketShared {
    programs: Vec<Program>,
    pub(super) persistent: PersistentMaps,
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

/// Whether programs at cgroups may read the running task, which some kernels from 5.11 on allow. Where
/// they may not, helpers return the same.
fn may_read_tasks() -> bool {
    [
        (ProgramType::CGROUP_SOCK_ADDR, AttachType::CGROUP_INET4_CONNECT),
        (ProgramType::CGROUP_SOCK, AttachType::CGROUP_INET_SOCK_CREATE),
    ]
    .into_iter()
    .all(|(program, attach)| may_call(program, attach, Helper::GET_CURRENT_TASK_BTF))
}

impl SocketShared {
    /// Loads the programs. No policy is in force, unless an earlier agent has pinned what holds it:
    /// then its links have these programs from now on, and the sizes are what they were.
    ///
    /// # Errors
    /// `BpfErrorKind::Limit`, `BpfErrorKind::Load` with the verifier's log, `BpfErrorKind::Object` or
    /// `BpfErrorKind::Map`.
    pub fn load(
        shared: &Shared,
        processes: &Processes,
        options: SocketOptions,
        pins: Option<&SocketPins>,
    ) -> Result<Self, BpfError> {
        let mut storage = MaybeUninit::uninit();
        let mut open =
            CgroupSkelBuilder::default().open(&mut storage).map_err(failed(OBJECT, "opening"))?;
        let rodata = constants(OBJECT, &mut open.maps.rodata_data)?;
        rodata.ic_cfg_task_btf = u8::from(may_read_tasks());
        rodata.ic_cfg_report_hz = kernel_hz();
        let size = |name, wanted| match pins {
            Some(pins) => pins.maps.size(name).map(|entries| entries / 2),
            None => Ok(wanted),
        };
        let (rows, cells) =
            (size("ic_sock_rows", options.rows)?, size("ic_sock_flat", options.cells)?);
        for (what, value, limit) in [
            ("rows of socket rules (`socket_rows`)", rows, abi::SOCK_ROWS_MAX),
            ("socket rules with counters (`socket_rule_slots`)", options.rule_slots, SLOTS_MAX),
            ("limits of socket rules", options.buckets, SLOTS_MAX),
        ] {
            if value > limit {
                return Err(BpfError::limit(what, value.into(), limit.into()));
            }
        }
        rodata.ic_cfg_sock_rows = rows;
        rodata.ic_cfg_sock_cells = cells;
        let mut object = Loader::new(OBJECT, Allowlist::sockets())
            .share(shared.maps())
            .share(processes.maps())
            .persist(&SOCKET, pins.map(|pins| &pins.maps))
            .size("ic_sock_rows", 2 * rows)
            .size("ic_sock_flat", 2 * cells)
            .size("ic_sock_ids", options.ids)
            .size("ic_sock_stats", options.rule_slots)
            .size("ic_sock_sample", options.rule_slots)
            .size("ic_sock_slots", options.rule_slots)
            .size("ic_buckets", options.buckets)
            .size("ic_bucket_slots", options.buckets)
            .load(open.open_object_mut())?;
        // Of both slots.
        let mapping = |name, each: usize, size: usize| {
            Mapping::new(object.fd(name)?.as_fd(), 2 * each * size, true)
                .map_err(|e| BpfError::map(name, "mapping", e))
        };
        let rule = size_of::<SockRule>();
        Ok(Self {
            policy: mapping("ic_sock_policy", 1, size_of::<SockPolicy>())?,
            rows: mapping("ic_sock_rows", rows as usize, size_of::<SockRow>())?,
            rows_each: rows as usize,
            flat: mapping("ic_sock_flat", cells as usize, CELL)?,
            cells_each: cells as usize,
            ports: mapping("ic_sock_ports", abi::SOCK_PORT_CELLS, 64)?,
            rules: mapping("ic_sock_rules", abi::SOCK_RULES_MAX, rule)?,
            logs: mapping("ic_sock_logs", abi::SOCK_LOGS_MAX, rule)?,
            ids: object.map("ic_sock_ids")?,
            stats: object.map("ic_sock_stats")?,
            rule_slots: object.map("ic_sock_slots")?,
            bucket_slots: object.map("ic_bucket_slots")?,
            persistent: object.persistent()?,
            programs: HOOKS
                .iter()
                .map(|(hook, _)| object.program(&format!("ic_{hook}")))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Attaches what is missing to a cgroup, by its directory.
    ///
    /// # Errors
    /// `BpfErrorKind::Attach`.
    pub fn complete(&self, cgroup: &CgroupDir, links: &mut CgroupLinks) -> Result<(), BpfError> {
        let id = cgroup.id();
        for ((hook, kind), program) in HOOKS.iter().zip(&self.programs) {
            if !links.links.iter().any(|link| link.hook() == *hook) {
                let name = format!("{id}_{hook}");
                links.links.push(HookLink::cgroup(program, cgroup.as_fd(), *kind, &name)?);
            }
        }
        Ok(())
    }

    /// Attaches to a cgroup, by its directory: from now on the rules apply to every process in it and in
    /// those below it. Where one hook fails, none is attached.
    ///
    /// # Errors
    /// `BpfErrorKind::Attach`.
    pub fn attach(&self, cgroup: &CgroupDir) -> Result<CgroupLinks, BpfError> {
        let id = cgroup.id();
        let one = |((hook, kind), program): (&(&str, _), &Program)| {
            HookLink::cgroup(program, cgroup.as_fd(), *kind, &format!("{id}_{hook}"))
        };
        let links = HOOKS.iter().zip(&self.programs).map(one).collect::<Result<_, _>>()?;
        Ok(CgroupLinks { id, links })
    }

    /// Adopts the links that an earlier agent has pinned: each gets this build's program. Those
    /// of cgroups that were removed are removed too, and those of which some are missing are
    /// reported by [`CgroupLinks::is_whole`].
    ///
    /// # Errors
    /// `BpfErrorKind::Attach`, `BpfErrorKind::Pin`.
    pub fn adopt(&self, pins: &mut SocketPins) -> Result<Vec<CgroupLinks>, BpfError> {
        let mut found: BTreeMap<u64, Vec<HookLink>> = BTreeMap::new();
        for (id, link) in std::mem::take(&mut pins.cgroups) {
            let at = HOOKS.iter().position(|(hook, _)| *hook == link.hook());
            match at.and_then(|at| self.programs.get(at)).filter(|_| id != 0) {
                Some(program) => match link.replace(program) {
                    // The cgroup was removed meanwhile.
                    Err(error) if error.errno() == Some(libc::ENOLINK) => link.detach()?,
                    replaced => {
                        replaced?;
                        found.entry(id).or_default().push(link);
                    }
                },
                None => link.detach()?,
            }
        }
        Ok(found.into_iter().map(|(id, links)| CgroupLinks { id, links }).collect())
    }

    pub(super) fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.persistent.maps()
    }

    /// The programs that are attached, in the order of the hooks.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }
}

/// What is attached to one cgroup.
#[must_use = "dropping the links detaches the programs"]
#[derive(Debug)]
pub struct CgroupLinks {
    /// The cgroup's id, which is the inode number of its directory.
    pub id: u64,
    pub(super) links: Vec<HookLink>,
}

impl CgroupLinks {
    /// Whether the cgroup is still there.
    ///
    /// # Errors
    /// `BpfErrorKind::System` where the kernel refuses.
    pub fn is_alive(&self) -> Result<bool, BpfError> {
        let mut ids = self.links.iter().map(HookLink::cgroup_id);
        ids.try_fold(true, |all, id| Ok(all && id? != Some(0)))
    }

    /// Whether it stays attached when the process ends.
    pub fn is_pinned(&self) -> bool {
        self.links.iter().all(HookLink::is_pinned)
    }

    /// Whether every hook is attached.
    pub fn is_whole(&self) -> bool {
        self.links.len() == HOOKS.len()
    }

    /// Detaches at once, and removes the pins.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses.
    pub fn detach(self) -> Result<(), BpfError> {
        self.links.into_iter().try_for_each(HookLink::detach)
    }
}
