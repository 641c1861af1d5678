use std::collections::BTreeSet;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ironclad_core::abi::{
    self, Excepted, FileId, Mark, OpenBefore, SecretKey, SecretVal, Sentinel,
};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use zerocopy::FromBytes;

use super::hooks::{MissingHook, Variant, attach, choose};
use super::labels::FileTables;
use super::pins::{GuardPins, STATE, links_name};
use super::secret::Secret;
use crate::audit::Allowlist;
use crate::error::BpfError;
use crate::hook::HookLink;
use crate::map::{Map, clone_fd, map_info};
use crate::mapping::Mapping;
use crate::object::{constants, failed, load, share};
use crate::pin::PinDirectory;
use crate::probe::{KernelBtf, State, probe_lsm};
use crate::program::Program;
use crate::shield::boottime_ns;
use crate::skel::sentinel_before::SentinelBeforeSkelBuilder;
use crate::skel::sentinel_file::SentinelFileSkelBuilder;
use crate::skel::sentinel_gate::SentinelGateSkelBuilder;
use crate::skel::sentinel_host::SentinelHostSkelBuilder;
use crate::skel::sentinel_sysctl::SentinelSysctlSkelBuilder;
use crate::skel::sentinel_task::SentinelTaskSkelBuilder;
use crate::socket::{Kept, Processes, take};
use crate::sys;

const GATE: &str = "sentinel_gate";
const TASK: &str = "sentinel_task";
const BEFORE: &str = "sentinel_before";
const FILE: &str = "sentinel_file";
const HOST: &str = "sentinel_host";
const SYSCTL: &str = "sentinel_sysctl";

/// How the tables are made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GuardOptions {
    /// Bytes of the ring buffer of alarms: a power of two, at least a page. Default 1 MiB.
    pub ring_bytes: u32,
    /// Files and directories that two policies may name or lead through. Default 65,536.
    pub labels: u32,
    /// Names in directories that two policies may cover. Default 16,384.
    pub names: u32,
    /// Bit n: programs of type n are refused to others.
    pub gate: u64,
    /// Bit n: programs of type n that are not refused are told of.
    pub gate_log: u64,
    /// [`abi::REFUSE_MEMORY`] and its like: ways into the kernel that others are refused. Default: all.
    pub refuse: u32,
}

const ALL: u32 = abi::REFUSE_MEMORY
    | abi::REFUSE_MODULES
    | abi::REFUSE_KEXEC
    | abi::REFUSE_DISKS
    | abi::REFUSE_MAPPER;

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 1 << 20,
            labels: 65_536,
            names: 16_384,
            gate: 0,
            gate_log: 0,
            refuse: ALL,
        }
    }
}

/// The programs, attached, and what they read. Dropping it detaches them, and nothing is guarded any more, but
/// where they are pinned.
#[derive(Debug)]
pub struct Guard {
    state: Mapping,
    state_map: OwnedFd,
    kept: Vec<Kept>,
    marks: Map<u32, Mark>,
    objects: Map<u64, u32>,
    secrets: Map<SecretKey, SecretVal>,
    excepted: Map<FileId, Excepted>,
    guarded_links: Map<u32, u32>,
    alarms: OwnedFd,
    files: FileTables,
    before: Before,
    /// One thread at a time.
    adopting: Mutex<()>,
    /// Where links are pinned.
    links_at: Option<PathBuf>,
    programs: Vec<Program>,
    links: Vec<HookLink>,
    missing: Vec<MissingHook>,
}

/// What asks of files that were opened before they were covered.
#[derive(Debug)]
struct Before {
    look: Program,
    /// With the names of their links.
    programs: Vec<(Program, String)>,
    /// Once there was anything to ask for.
    links: Mutex<Vec<HookLink>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.links_at.is_some() {
            return;
        }
        if let Err(error) = self.retire() {
            tracing::warn!(%error, "what Sentinel guarded stays so until the kernel lets go of its programs");
        }
    }
}

/// What goes first: nobody is entitled for long who becomes another program, and nothing is made that
/// is not known.
const GATE_ORDER: [&str; 10] = [
    "bprm_committing_creds",
    "bpf_map_free_security",
    "bpf_map_free",
    "bpf_prog_free_security",
    "bpf_prog_free",
    "bpf_map_alloc_security",
    "bpf_map_create",
    "bpf_prog_alloc_security",
    "bpf_prog_load",
    "task_prctl",
];

/// Hooks that begin with the mount's idmap on some kernels: their parameters without it, and the two
/// programs of each.
const IDMAP: [Variant; 3] = [
    Variant { hook: "inode_setattr", parameters: 2, fits: "ic_setattr_5_10", more: "ic_setattr" },
    Variant {
        hook: "inode_setxattr",
        parameters: 5,
        fits: "ic_setxattr_5_10",
        more: "ic_setxattr",
    },
    Variant {
        hook: "inode_removexattr",
        parameters: 2,
        fits: "ic_removexattr_5_10",
        more: "ic_removexattr",
    },
];

impl Guard {
    /// Loads and attaches the programs: first the gate, by which this process is entitled, then the
    /// others. Nobody is refused anything before [`arm`](Self::arm).
    ///
    /// Needs a kernel with BPF LSM among its active security modules.
    ///
    /// What an earlier agent has pinned is taken over: its programs refuse until these do, for a
    /// moment both. This process has to be entitled by then: see [`Secret::present`].
    ///
    /// # Errors
    /// [`BpfError::NoLsm`] where it is not, [`BpfError::Load`] with the verifier's log,
    /// [`BpfError::AttachHook`], [`BpfError::Map`].
    pub fn load(
        processes: &Processes,
        mut options: GuardOptions,
        pins: Option<GuardPins>,
    ) -> Result<Self, BpfError> {
        let lsm = probe_lsm();
        if !matches!(lsm.state, State::Available | State::Unknown) {
            return Err(BpfError::NoLsm { why: lsm.reason.unwrap_or_default() });
        }
        let btf = KernelBtf::load().ok_or_else(|| BpfError::System {
            step: "reading the kernel's BTF",
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let number = boottime_ns();

        let mut storage = MaybeUninit::uninit();
        let mut gate = SentinelGateSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(GATE, "opening"))?;
        let maps = &mut gate.maps;
        if let Some(pins) = &pins {
            options.labels = pins.size("ic_labels")?;
            options.names = pins.size("ic_names")?;
            let state = pins.open(STATE)?;
            let reused = maps.data_ic_sentinel.reuse_fd(state.as_fd());
            reused.map_err(failed(GATE, "taking over its state"))?;
        }
        let dir = pins.as_ref().map(GuardPins::maps);
        take(
            dir,
            GATE,
            vec![
                (&mut maps.ic_alarms, Some(options.ring_bytes)),
                (&mut maps.ic_marks, None),
                (&mut maps.ic_moves, None),
                (&mut maps.ic_secrets, None),
                (&mut maps.ic_objects, None),
                (&mut maps.ic_links, None),
                (&mut maps.ic_excepted, None),
            ],
        )?;
        let known = [("ic_losses", processes.losses.as_fd())];
        share(GATE, gate.open_object_mut(), known.into_iter().chain(processes.maps()))?;
        let mut missing = choose(gate.open_object_mut(), &btf, &[]);
        load(GATE, gate.open_object_mut(), &Allowlist::sentinel())?;
        let maps = &gate.maps;
        let state_map = clone_fd(&maps.data_ic_sentinel)?;
        let state = Mapping::new(state_map.as_fd(), size_of::<Sentinel>(), true)
            .map_err(|e| BpfError::map("ic_sentinel", "mapping it", e))?;
        let marks = Map::<u32, Mark>::new(clone_fd(&maps.ic_marks)?, "ic_marks")?;
        let objects = Map::new(clone_fd(&maps.ic_objects)?, "ic_objects")?;
        let secrets = Map::<SecretKey, SecretVal>::new(clone_fd(&maps.ic_secrets)?, "ic_secrets")?;
        let guarded_links = Map::new(clone_fd(&maps.ic_links)?, "ic_links")?;
        let excepted_map = clone_fd(&maps.ic_excepted)?;
        let moves = clone_fd(&maps.ic_moves)?;
        let alarms = clone_fd(&maps.ic_alarms)?;
        let mut kept = vec![Kept::of(&[
            &maps.ic_marks,
            &maps.ic_moves,
            &maps.ic_secrets,
            &maps.ic_objects,
            &maps.ic_links,
            &maps.ic_excepted,
            &maps.ic_alarms,
            &maps.ic_losses,
        ])?];
        let attached = attach(GATE, gate.open_object_mut(), &GATE_ORDER, number)?;
        let (mut programs, mut links): (Vec<_>, Vec<_>) = attached.into_iter().unzip();

        let secret = Secret::new()?;
        let pid = std::process::id();
        let is_entitled = |pid| -> Result<bool, BpfError> {
            let mark = marks.lookup(&pid)?;
            Ok(mark.is_some_and(|mark| mark.flags & abi::MARK_ENTITLED != 0))
        };
        let exe = processes.table.lookup(&pid)?.unwrap_or_default().exe;
        if !is_entitled(pid)? {
            let val = SecretVal { exe, mark: abi::MARK_ENTITLED, flags: 0 };
            secrets.update(secret.key(), &val)?;
            secret.present()?;
        }
        if !is_entitled(pid)? {
            secrets.delete(secret.key())?;
            return Err(BpfError::NoLsm {
                why: "the programs are attached, but they did not run: is `bpf` in the kernel's lsm= and sysctl kernel.ftrace_enabled 1, and is nobody tracing this process?".to_owned(),
            });
        }
        state.u64_at(offset_of!(Sentinel, gate)).store(options.gate, Ordering::Release);
        state.u64_at(offset_of!(Sentinel, gate_log)).store(options.gate_log, Ordering::Release);
        state.u32_at(offset_of!(Sentinel, refuse)).store(options.refuse, Ordering::Release);
        // Of an agent that was cut off.
        state.u32_at(offset_of!(Sentinel, adopting)).store(0, Ordering::Release);
        state.u32_at(offset_of!(Sentinel, canary)).store(0, Ordering::Release);
        state.u32_at(offset_of!(Sentinel, canary_hook)).store(0, Ordering::Release);

        // From here on, what this process makes is guarded as it is made.
        let lent = [
            (".data.ic_sentinel", state_map.as_fd()),
            ("ic_marks", marks.as_fd()),
            ("ic_moves", moves.as_fd()),
            ("ic_excepted", excepted_map.as_fd()),
            ("ic_alarms", alarms.as_fd()),
            ("ic_losses", processes.losses.as_fd()),
        ];
        let lent = || lent.into_iter().chain(processes.maps());

        for (index, pmu) in ["kprobe", "uprobe"].into_iter().enumerate() {
            // Where the kernel has none, there is nothing to refuse.
            let kind = std::fs::read_to_string(format!("/sys/bus/event_source/devices/{pmu}/type"));
            let kind = kind.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            let at = offset_of!(Sentinel, probes) + 4 * index;
            state.u32_at(at).store(kind, Ordering::Release);
        }

        // What would switch hooks off, before those that matter most are there.
        let mut storage = MaybeUninit::uninit();
        let mut sysctl = SentinelSysctlSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(SYSCTL, "opening"))?;
        share(SYSCTL, sysctl.open_object_mut(), lent())?;
        load(SYSCTL, sysctl.open_object_mut(), &Allowlist::sentinel())?;
        let program = Program::new(crate::program::clone_fd(&sysctl.progs.ic_sysctl)?)?;
        let root = sys::cgroup_root().map_err(|source| BpfError::System {
            step: "opening the root of the control groups",
            source,
        })?;
        let name = format!("{number}_sysctl");
        links.push(HookLink::cgroup(&program, root.as_fd(), libbpf_sys::BPF_CGROUP_SYSCTL, &name)?);
        programs.push(program);

        let mut storage = MaybeUninit::uninit();
        let mut task = SentinelTaskSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(TASK, "opening"))?;
        share(TASK, task.open_object_mut(), lent())?;
        missing.extend(choose(task.open_object_mut(), &btf, &[]));
        load(TASK, task.open_object_mut(), &Allowlist::sentinel())?;
        let attached = attach(TASK, task.open_object_mut(), &[], number)?;

        let mut storage = MaybeUninit::uninit();
        let mut file = SentinelFileSkelBuilder::default()
            .open(&mut storage)
            .map_err(failed(FILE, "opening"))?;
        let words = match &pins {
            Some(pins) => pins.size("ic_label_bits")?,
            None => FileTables::filter_words(options.labels),
        };
        let rodata = constants(FILE, &mut file.maps.rodata_data)?;
        rodata.ic_cfg_label_mask = words - 1;
        let maps = &mut file.maps;
        take(
            pins.as_ref().map(GuardPins::maps),
            FILE,
            vec![
                (&mut maps.ic_labels, Some(options.labels)),
                (&mut maps.ic_names, Some(options.names)),
                (&mut maps.ic_label_bits, Some(words)),
                (&mut maps.ic_file_policy, None),
                (&mut maps.ic_volumes, None),
            ],
        )?;
        share(FILE, file.open_object_mut(), lent())?;
        missing.extend(choose(file.open_object_mut(), &btf, &IDMAP));
        load(FILE, file.open_object_mut(), &Allowlist::sentinel())?;
        let tables = [
            ("ic_labels", clone_fd(&file.maps.ic_labels)?),
            ("ic_label_bits", clone_fd(&file.maps.ic_label_bits)?),
            ("ic_names", clone_fd(&file.maps.ic_names)?),
            ("ic_volumes", clone_fd(&file.maps.ic_volumes)?),
            ("ic_dir_cache", clone_fd(&file.maps.ic_dir_cache)?),
            ("ic_file_policy", clone_fd(&file.maps.ic_file_policy)?),
        ];
        let mut host_storage = MaybeUninit::uninit();
        let mut host = SentinelHostSkelBuilder::default()
            .open(&mut host_storage)
            .map_err(failed(HOST, "opening"))?;
        constants(HOST, &mut host.maps.rodata_data)?.ic_cfg_label_mask = words - 1;
        let dir = pins.as_ref().map(GuardPins::maps);
        take(dir, HOST, vec![(&mut host.maps.ic_mounts, None)])?;
        let tables = tables.iter().map(|(name, fd)| (*name, fd.as_fd()));
        share(HOST, host.open_object_mut(), lent().chain(tables.clone()))?;
        missing.extend(choose(host.open_object_mut(), &btf, &[]));
        load(HOST, host.open_object_mut(), &Allowlist::sentinel())?;
        let maps = &file.maps;
        let files = FileTables::new(
            Map::new(clone_fd(&maps.ic_labels)?, "ic_labels")?,
            clone_fd(&maps.ic_label_bits)?,
            words,
            Map::new(clone_fd(&maps.ic_names)?, "ic_names")?,
            Map::new(clone_fd(&maps.ic_volumes)?, "ic_volumes")?,
            Map::new(clone_fd(&maps.ic_file_policy)?, "ic_file_policy")?,
            Map::new(clone_fd(&host.maps.ic_mounts)?, "ic_mounts")?,
        )?;
        let mut before_storage = MaybeUninit::uninit();
        let mut before = SentinelBeforeSkelBuilder::default()
            .open(&mut before_storage)
            .map_err(failed(BEFORE, "opening"))?;
        constants(BEFORE, &mut before.maps.rodata_data)?.ic_cfg_label_mask = words - 1;
        share(BEFORE, before.open_object_mut(), lent().chain(tables.clone()))?;
        load(BEFORE, before.open_object_mut(), &Allowlist::sentinel())?;
        let program = |program| Program::new(crate::program::clone_fd(program)?);
        let before = Before {
            look: program(&before.progs.ic_before)?,
            programs: vec![
                (program(&before.progs.ic_mmap_before)?, format!("{number}_mmap_before")),
                (program(&before.progs.ic_file_permission)?, format!("{number}_file_permission")),
            ],
            links: Mutex::default(),
        };
        let attached = attached
            .into_iter()
            .chain(attach(FILE, file.open_object_mut(), &[], number)?)
            .chain(attach(HOST, host.open_object_mut(), &[], number)?);
        for (program, link) in attached {
            programs.push(program);
            links.push(link);
        }
        kept.push(Kept::of(&[
            &file.maps.ic_labels,
            &file.maps.ic_label_bits,
            &file.maps.ic_names,
            &file.maps.ic_file_policy,
            &file.maps.ic_volumes,
            &host.maps.ic_mounts,
        ])?);
        if let Some(pins) = &pins {
            links.iter_mut().try_for_each(|link| pins.pin(link))?;
        }
        let links_at = pins.as_ref().map(|pins| pins.links().to_owned());

        let excepted = Map::new(excepted_map, "ic_excepted")?;
        let this = Self {
            state,
            state_map,
            kept,
            marks,
            objects,
            secrets,
            excepted,
            guarded_links,
            alarms,
            files,
            before,
            adopting: Mutex::new(()),
            links_at,
            programs,
            links,
            missing,
        };
        // What was made before this process was entitled.
        let before = this.before.programs.iter().map(|(program, _)| program);
        let before = || before.clone().chain([&this.before.look]);
        let programs = || this.programs.iter().chain(processes.programs()).chain(before());
        this.guard_programs(programs())?;
        let maps: BTreeSet<u32> =
            programs().flat_map(|program| program.info().map_ids.iter().copied()).collect();
        this.guard_map_ids(maps)?;
        // One of them no program reads.
        this.guard_maps(processes.maps().map(|(_, map)| map))?;
        this.guard_links(this.links.iter().chain(processes.links()))?;
        if let Some(pins) = pins {
            // What is asked of descriptors of before is asked by ours, too, before theirs end.
            this.open_before()?;
            pins.supersede()?;
            this.forget_links(processes)?;
        }
        Ok(this)
    }

    /// Takes out the links that have ended.
    fn forget_links(&self, processes: &Processes) -> Result<(), BpfError> {
        let before = self.before.links.lock().unwrap_or_else(PoisonError::into_inner);
        let links = self.links.iter().chain(processes.links()).chain(before.iter());
        let ids = links.map(|link| link_id(link.as_fd())).collect::<Result<BTreeSet<_>, _>>()?;
        for id in self.guarded_links.keys()?.iter().filter(|id| !ids.contains(id)) {
            self.guarded_links.delete(id)?;
        }
        Ok(())
    }

    /// Files that rules in force deny to write, and that others have open for writing since before. Where
    /// there are any, writes are asked from now on, which costs every read and write of all processes a
    /// little.
    ///
    /// # Errors
    /// [`BpfError::System`], [`BpfError::AttachHook`] where the kernel refuses.
    pub fn open_before(&self) -> Result<Vec<OpenBefore>, BpfError> {
        let bytes = self.before.look.iterate()?;
        let found: Vec<_> = bytes
            .chunks_exact(size_of::<OpenBefore>())
            .filter_map(|chunk| OpenBefore::read_from_bytes(chunk).ok())
            .collect();
        let mut links = self.before.links.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.is_empty() && links.is_empty() {
            let mut attached = Vec::new();
            for (program, name) in &self.before.programs {
                let mut link = HookLink::tracepoint(program, name)?;
                if let Some(dir) = &self.links_at {
                    link.pin(&dir.join(link.pin_name()))?;
                }
                attached.push(link);
            }
            self.guard_links(&attached)?;
            *links = attached;
        }
        Ok(found)
    }

    /// Pins everything, so that it outlives this process: all of it, or nothing.
    ///
    /// # Errors
    /// [`BpfError::Pin`] where bpffs refuses.
    pub fn persist(
        &mut self,
        processes: &mut Processes,
        directory: &PinDirectory,
    ) -> Result<(), BpfError> {
        let dir = links_name();
        let mut before = self.before.links.lock().unwrap_or_else(PoisonError::into_inner);
        let links = self.links.iter().chain(processes.links()).chain(before.iter());
        let links = links.map(|link| (format!("{dir}/{}", link.pin_name()), link.as_fd()));
        let maps = self.kept.iter().flat_map(Kept::maps).chain(processes.maps());
        let maps = maps.map(|(name, fd)| (name.to_owned(), fd));
        let state = (STATE.to_owned(), self.state_map.as_fd());
        let pins: Vec<_> = maps.chain([state]).chain(links).collect();
        directory.persist(&pins)?;
        let dir = directory.path().join(dir);
        self.links_at = Some(dir.clone());
        let links = self.links.iter_mut().chain(processes.links_mut()).chain(before.iter_mut());
        for link in links {
            link.pinned_at(&dir.join(link.pin_name()));
        }
        Ok(())
    }

    /// Detaches, and removes what is pinned.
    ///
    /// # Errors
    /// [`BpfError::Pin`] where bpffs refuses.
    pub fn unpin(mut self, processes: Processes, directory: &PinDirectory) -> Result<(), BpfError> {
        self.links_at = None;
        drop((self, processes));
        directory.unpin()
    }

    /// The kernel lets go of programs some time after their links. Until then they refuse nothing, and
    /// guard nothing that is new.
    fn retire(&self) -> Result<(), BpfError> {
        self.arm(false);
        for pid in self.marks.keys()? {
            self.marks.delete(&pid)?;
        }
        for address in self.objects.keys()? {
            self.objects.delete(&address)?;
        }
        Ok(())
    }

    /// Another secret is good for agents that are restarted from now on, beside those that were.
    ///
    /// # Errors
    /// [`BpfError::Map`] where there is no room.
    pub fn add_restart_secret(&self, secret: &Secret) -> Result<(), BpfError> {
        let flags = abi::SECRET_RESTART;
        let val = SecretVal { exe: FileId::NONE, mark: abi::MARK_ENTITLED, flags };
        self.secrets.update(secret.key(), &val)
    }

    /// It is good no more.
    ///
    /// # Errors
    /// [`BpfError::Map`] where the kernel refuses.
    pub fn remove_secret(&self, secret: &Secret) -> Result<(), BpfError> {
        self.secrets.delete(secret.key()).map(drop)
    }

    /// No other is good for them any more.
    ///
    /// # Errors
    /// [`BpfError::Map`] where the kernel refuses.
    pub fn only_restart_secret(&self, secret: &Secret) -> Result<(), BpfError> {
        for key in self.secrets.keys()? {
            let val = self.secrets.lookup(&key)?.unwrap_or_default();
            if key != *secret.key() && val.flags & abi::SECRET_RESTART != 0 {
                self.secrets.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Who starts agents: [`abi::LAUNCH_INIT`] and its like, and in which control group, by id.
    pub fn launch(&self, by: u32, group: u64) {
        self.state.u64_at(offset_of!(Sentinel, group)).store(group, Ordering::SeqCst);
        self.state.u32_at(offset_of!(Sentinel, launch)).store(by, Ordering::SeqCst);
    }

    /// Guards maps that were made before this process was entitled.
    ///
    /// # Errors
    /// [`BpfError::Map`] where the kernel refuses.
    pub fn guard_maps<'a>(
        &self,
        maps: impl IntoIterator<Item = BorrowedFd<'a>>,
    ) -> Result<(), BpfError> {
        let id = |fd| map_info(fd).map_err(|e| BpfError::map("", "guarding it", e));
        let ids =
            maps.into_iter().map(|fd| Ok(id(fd)?.id)).collect::<Result<Vec<_>, BpfError>>()?;
        self.guard_map_ids(ids)
    }

    fn guard_map_ids(&self, ids: impl IntoIterator<Item = u32>) -> Result<(), BpfError> {
        self.adopting(|| {
            for id in ids {
                sys::map_by_id(id).map_err(|e| BpfError::map("", "guarding it", e))?;
            }
            Ok(())
        })
    }

    /// Guards programs that were loaded before this process was entitled.
    ///
    /// # Errors
    /// [`BpfError::System`] where the kernel refuses.
    pub fn guard_programs<'a>(
        &self,
        programs: impl IntoIterator<Item = &'a Program>,
    ) -> Result<(), BpfError> {
        self.adopting(|| {
            for program in programs {
                sys::prog_by_id(program.info().id)
                    .map_err(|source| BpfError::System { step: "guarding a program", source })?;
            }
            Ok(())
        })
    }

    /// Guards links.
    ///
    /// # Errors
    /// [`BpfError::System`] or [`BpfError::Map`] where the kernel refuses.
    pub fn guard_links(&self, links: impl IntoIterator<Item = impl AsFd>) -> Result<(), BpfError> {
        for link in links {
            self.guarded_links.update(&link_id(link.as_fd())?, &1)?;
        }
        Ok(())
    }

    /// Guards maps and programs of which this thread gets descriptors while `act` runs.
    pub fn adopting<T>(&self, act: impl FnOnce() -> T) -> T {
        /// Also where `act` panics.
        struct Adopting<'a>(&'a AtomicU32);
        impl Drop for Adopting<'_> {
            fn drop(&mut self) {
                self.0.store(0, Ordering::SeqCst);
            }
        }
        let word = self.state.u32_at(offset_of!(Sentinel, adopting));
        let _alone = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let _adopting = Adopting(word);
        word.store(sys::thread_id(), Ordering::SeqCst);
        act()
    }

    /// From now on, others are refused what is guarded; `false`: no more.
    pub fn arm(&self, armed: bool) {
        let word = self.state.u32_at(offset_of!(Sentinel, is_armed));
        word.store(u32::from(armed), Ordering::SeqCst);
    }

    /// Whether others are refused.
    pub fn is_armed(&self) -> bool {
        self.state.u32_at(offset_of!(Sentinel, is_armed)).load(Ordering::SeqCst) != 0
    }

    /// Signals to entitled processes are let through for so long from now on, whatever was said before.
    pub fn open_for(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let until = boottime_ns().saturating_add(time);
        self.state.u64_at(offset_of!(Sentinel, open_until_ns)).store(until, Ordering::SeqCst);
    }

    /// For how long they are let through still.
    pub fn is_open_for(&self) -> Option<Duration> {
        let until = self.state.u64_at(offset_of!(Sentinel, open_until_ns)).load(Ordering::SeqCst);
        let left = until.saturating_sub(boottime_ns());
        (left != 0).then(|| Duration::from_nanos(left))
    }

    /// Alarms that found no room.
    pub fn alarms_lost(&self) -> u64 {
        self.state.u64_at(offset_of!(Sentinel, lost)).load(Ordering::SeqCst)
    }

    /// The word of [`Sentinel::word`].
    pub fn word(&self) -> u64 {
        self.word_at().load(Ordering::SeqCst)
    }

    /// The epoch of what the tables mean, which never goes back.
    pub fn epoch(&self) -> u64 {
        (self.word() & ((1 << abi::WORD_MOVES) - 1)) >> 1
    }

    pub(super) fn word_at(&self) -> &std::sync::atomic::AtomicU64 {
        self.state.u64_at(offset_of!(Sentinel, word))
    }

    /// The other half comes into force, with all that its tables say by now. When this returns, nobody
    /// reads the former one any more.
    ///
    /// # Errors
    /// [`BpfError::System`] where the kernel cannot say when that is.
    pub fn flip(&self) -> Result<(), BpfError> {
        let word = self.word_at();
        // The kernel adds to it when a directory moves.
        let flipped = |word| Some((word + 2) ^ 1);
        let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, flipped);
        sys::grace_period()
            .map_err(|source| BpfError::System { step: "waiting for programs that run", source })
    }

    pub(super) fn set_canary(&self, thread: u32, hook: u32) {
        self.state.u32_at(offset_of!(Sentinel, canary_hook)).store(hook, Ordering::SeqCst);
        self.state.u32_at(offset_of!(Sentinel, canary)).store(thread, Ordering::SeqCst);
    }

    /// A secret for another process that executes `exe`.
    ///
    /// # Errors
    /// [`BpfError::System`], [`BpfError::Map`].
    pub fn admit(&self, exe: FileId) -> Result<Secret, BpfError> {
        let secret = Secret::new()?;
        let val = SecretVal { exe, mark: abi::MARK_ENTITLED, flags: 0 };
        self.secrets.update(secret.key(), &val)?;
        Ok(secret)
    }

    /// What executables may do in spite of rules.
    pub fn excepted(&self) -> &Map<FileId, Excepted> {
        &self.excepted
    }

    /// The tables of file rules.
    pub fn files(&self) -> &FileTables {
        &self.files
    }

    /// The ring buffer of alarms.
    pub fn alarms(&self) -> BorrowedFd<'_> {
        self.alarms.as_fd()
    }

    /// All programs.
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// Where they are attached.
    pub fn links(&self) -> &[HookLink] {
        &self.links
    }

    /// Hooks that this kernel does not have.
    pub fn missing(&self) -> &[MissingHook] {
        &self.missing
    }
}

fn link_id(link: BorrowedFd<'_>) -> Result<u32, BpfError> {
    let info = sys::info(link, sys::zeroed::<libbpf_sys::bpf_link_info>());
    let info = info.map_err(|source| BpfError::System { step: "guarding a link", source })?;
    Ok(info.id)
}
