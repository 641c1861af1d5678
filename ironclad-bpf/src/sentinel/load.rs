//! How Sentinel starts: load the object, attach the gate, trust this process, attach the other hooks.

use std::collections::BTreeSet;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use ironclad_core::abi::{self, SecretVal, Sentinel};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use zerocopy::IntoBytes;

use super::guard::Guard;
use super::hooks::{IDMAP, MissingHook, attach, attach_gate, choose};
use super::labels::FileTables;
use super::pins::GuardPins;
use super::preopened::Preopened;
use super::secret::Secret;
use crate::audit::{
    Allowlist, FORBIDDEN_HELPERS, OVERRIDING_HELPERS, READING_HELPERS, is_harmless,
};
use crate::clock::boottime_ns;
use crate::error::{BpfError, Failure};
use crate::hook::HookLink;
use crate::loader::{Loaded, Loader, constants, failed};
use crate::mapping::Mapping;
use crate::persistent::{LOSSES, SENTINEL};
use crate::probe::{KernelBtf, State, probe_lsm};
use crate::program::Program;
use crate::pseudo_fs::{SYS, check_paths};
use crate::ring::check_size;
use crate::skel::sentinel::SentinelSkelBuilder;
use crate::socket::Processes;
use crate::sys;

const OBJECT: &str = "sentinel";

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
    /// Bit n: programs of type n are refused to other processes.
    pub gate: u64,
    /// Bit n: programs of type n that are not refused are reported.
    pub gate_log: u64,
    /// [`abi::REFUSE_MEMORY`] and its like: access to the kernel that is refused to other processes. Default: all.
    pub refuse: u32,
}

const ALL: u32 = abi::REFUSE_MEMORY
    | abi::REFUSE_MODULES
    | abi::REFUSE_KEXEC
    | abi::REFUSE_DISKS
    | abi::REFUSE_MAPPER
    | abi::REFUSE_CALLS
    | abi::REFUSE_REWRITES;

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

/// Sizes of the tables of labels.
struct Sizes {
    labels: u32,
    names: u32,
    /// Words of the filter of labels.
    filter: u32,
}

impl Guard {
    /// Loads and attaches the programs: first the gate, which makes this process trusted, then the
    /// rest. Nothing is refused before [`arm`](Self::arm).
    ///
    /// Needs a kernel with BPF LSM among its active security modules.
    ///
    /// Programs that an earlier agent has pinned refuse until these do, and for a moment both do. This
    /// process has to be trusted by then: see [`Secret::present`].
    ///
    /// # Errors
    /// `BpfErrorKind::NoLsm` without BPF LSM, `BpfErrorKind::Load` with the verifier's log,
    /// `BpfErrorKind::Attach`, `BpfErrorKind::Map`.
    pub fn load(
        processes: &Processes,
        options: GuardOptions,
        pins: Option<GuardPins>,
    ) -> Result<Self, BpfError> {
        check_size(options.ring_bytes)?;
        let sizes = Sizes::new(&options, pins.as_ref())?;
        let (mut object, missing) = load_object(processes, &options, pins.as_ref(), &sizes)?;
        let number = boottime_ns();
        let preopened = Preopened::of(&mut object, number)?;
        let mut this = Self::assemble(&object, preopened, &sizes, missing)?;
        this.attach_gate(&mut object, number)?;
        this.trust_self(processes)?;
        this.initialise(&options)?;
        this.protect_object(processes, &mut object)?;
        this.attach_sysctl(&mut object, number)?;
        for (program, link) in attach(object.programs(), number)? {
            this.programs.push(program);
            this.links.push(link);
        }
        this.protect_links(this.links.iter().chain(processes.links()))?;
        if let Some(pins) = pins {
            this.supersede(pins, processes)?;
        }
        Ok(this)
    }

    fn assemble(
        object: &Loaded,
        preopened: Preopened,
        sizes: &Sizes,
        missing: Vec<MissingHook>,
    ) -> Result<Self, BpfError> {
        let state = object.fd(".data.ic_sentinel")?;
        let state = Mapping::new(state.as_fd(), size_of::<Sentinel>(), true)
            .map_err(|e| BpfError::map("ic_sentinel", "mapping it", e))?;
        let files = FileTables::new(
            object.map("ic_labels")?,
            object.fd("ic_label_bits")?,
            sizes.filter,
            object.map("ic_names")?,
            object.map("ic_volumes")?,
            object.map("ic_file_policy")?,
            object.map("ic_mounts")?,
        )?;
        Ok(Self {
            state,
            persistent: object.persistent()?,
            marks: object.map("ic_marks")?,
            objects: object.map("ic_objects")?,
            secrets: object.map("ic_secrets")?,
            exemptions: object.map("ic_exemptions")?,
            protected_links: object.map("ic_links")?,
            alarms: object.fd("ic_alarms")?,
            wakes: object.fd("ic_wakes")?,
            files,
            preopened,
            adopting: Mutex::new(()),
            links_at: None,
            programs: Vec::new(),
            links: Vec::new(),
            missing,
        })
    }

    /// A process could undo the other hooks before they are there: the gate is attached first.
    fn attach_gate(&mut self, object: &mut Loaded, number: u64) -> Result<(), BpfError> {
        let attached = attach_gate(object.programs(), number)?;

        (self.programs, self.links) = attached.into_iter().unzip();
        Ok(())
    }

    /// Presents a secret, unless this process is trusted by an earlier agent's programs.
    fn trust_self(&self, processes: &Processes) -> Result<(), BpfError> {
        let pid = std::process::id();
        let is_trusted = || -> Result<bool, BpfError> {
            let mark = self.marks.lookup(&pid)?;
            Ok(mark.is_some_and(|mark| mark.flags & abi::MARK_TRUSTED != 0))
        };
        if is_trusted()? {
            return Ok(());
        }
        let secret = Secret::new()?;
        let exe = processes.table.lookup(&pid)?.unwrap_or_default().exe;
        let val = SecretVal { exe, mark: abi::MARK_TRUSTED, flags: 0 };
        self.secrets.update(secret.key(), &val)?;
        secret.present()?;
        if is_trusted()? {
            return Ok(());
        }
        self.secrets.delete(secret.key())?;
        Err(Failure::NoLsm {
            why: "the programs are attached, but they did not run: is `bpf` in the kernel's lsm= and sysctl kernel.ftrace_enabled 1, and does no process trace this one?".to_owned(),
        }.into())
    }

    /// Writes the state that the programs read. An earlier agent may have ended while it wrote.
    fn initialise(&self, options: &GuardOptions) -> Result<(), BpfError> {
        let state = &self.state;
        state.u64_at(offset_of!(Sentinel, gate)).store(options.gate, Ordering::Release);
        state.u64_at(offset_of!(Sentinel, gate_log)).store(options.gate_log, Ordering::Release);
        // A program that one hook has refused may be on its way to the next hook still.
        let refuse = state.u32_at(offset_of!(Sentinel, refuse));
        let programs = refuse.load(Ordering::Acquire) & abi::REFUSE_PROGRAMS;
        refuse.store(options.refuse | programs, Ordering::Release);
        state.u32_at(offset_of!(Sentinel, adopting)).store(0, Ordering::Release);
        state.u32_at(offset_of!(Sentinel, canary)).store(0, Ordering::Release);
        state.u32_at(offset_of!(Sentinel, canary_hook)).store(0, Ordering::Release);
        for (index, pmu) in ["kprobe", "uprobe"].into_iter().enumerate() {
            let kind = performance_unit(pmu)
                .map_err(|e| BpfError::system(format!("reading the type of {pmu} events"), e))?;
            let at = offset_of!(Sentinel, probes) + 4 * index;
            state.u32_at(at).store(kind, Ordering::Release);
        }
        Ok(())
    }

    /// Protects the programs and maps that were made before this process was trusted.
    fn protect_object(&self, processes: &Processes, object: &mut Loaded) -> Result<(), BpfError> {
        let rest = object.programs().iter().map(|it| &it.program);
        let programs: Vec<&Program> = self
            .programs
            .iter()
            .chain(self.preopened.programs())
            .chain(processes.programs())
            .chain(rest)
            .collect();
        self.protect_programs(programs.iter().copied())?;
        let maps: BTreeSet<u32> =
            programs.iter().flat_map(|program| program.info().map_ids.iter().copied()).collect();
        self.protect_map_ids(maps)?;
        // No program reads one of them.
        self.protect_maps(processes.maps().map(|(_, map)| map))
    }

    /// Keeps sysctls that switch hooks off before most hooks are there.
    fn attach_sysctl(&mut self, object: &mut Loaded, number: u64) -> Result<(), BpfError> {
        let program = object.program("ic_sysctl")?;
        let root = sys::cgroup_root()
            .map_err(|source| BpfError::system("opening the root of the cgroups", source))?;
        let name = format!("{number}_sysctl");
        let kind = libbpf_sys::BPF_CGROUP_SYSCTL;
        self.links.push(HookLink::cgroup(&program, root.as_fd(), kind, &name)?);
        self.programs.push(program);
        Ok(())
    }

    /// Pins the links, and ends those of the earlier agent.
    fn supersede(&mut self, pins: GuardPins, processes: &Processes) -> Result<(), BpfError> {
        self.links.iter_mut().try_for_each(|link| pins.pin(link))?;
        self.links_at = Some(pins.links().to_owned());
        // Writes by pre-opened descriptors are checked by these programs before the earlier ones end.
        self.check_writes(true)?;
        pins.supersede()?;
        self.forget_links(processes)
    }
}

impl Sizes {
    /// Those of pinned tables stay as they are.
    fn new(options: &GuardOptions, pins: Option<&GuardPins>) -> Result<Self, BpfError> {
        Ok(match pins {
            Some(pins) => Self {
                labels: pins.maps.size("ic_labels")?,
                names: pins.maps.size("ic_names")?,
                filter: pins.maps.size("ic_label_bits")?,
            },
            None => Self {
                labels: options.labels,
                names: options.names,
                filter: FileTables::filter_words(options.labels),
            },
        })
    }
}

/// The type of a performance unit's events. 0 where the kernel lacks it: there are no such events to refuse.
fn performance_unit(name: &str) -> io::Result<u32> {
    match SYS.read_to_string(format!("bus/event_source/devices/{name}/type")) {
        Ok(text) => text.trim().parse().map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// The programs in the kernel, not attached, and the hooks that it does not have.
fn load_object(
    processes: &Processes,
    options: &GuardOptions,
    pins: Option<&GuardPins>,
    sizes: &Sizes,
) -> Result<(Loaded, Vec<MissingHook>), BpfError> {
    check_paths().map_err(|e| BpfError::system("checking the kernel's files", e))?;
    let lsm = probe_lsm();
    if !matches!(lsm.state, State::Available | State::Unknown) {
        return Err(Failure::NoLsm { why: lsm.reason.unwrap_or_default() }.into());
    }
    let btf = KernelBtf::load().ok_or_else(|| {
        BpfError::system("reading the kernel's BTF", io::Error::from_raw_os_error(libc::ENOENT))
    })?;
    let mut storage = MaybeUninit::uninit();
    let mut open =
        SentinelSkelBuilder::default().open(&mut storage).map_err(failed(OBJECT, "opening"))?;
    let config = constants(OBJECT, &mut open.maps.rodata_data)?;
    config.ic_cfg_label_mask = sizes.filter - 1;
    config.ic_cfg_helpers = refused_helpers(options);
    // Where the map is adopted, the first agent's key stays.
    let state = constants(OBJECT, &mut open.maps.data_ic_sentinel_data)?;
    sys::random(state.ic_sentinel.name_key.as_mut_bytes())
        .map_err(|e| BpfError::system("making a key", e))?;
    let missing = choose(open.open_object_mut(), &btf, &IDMAP);
    let object = Loader::new(OBJECT, Allowlist::sentinel())
        .share([(LOSSES, processes.losses.as_fd())])
        .share(processes.maps())
        .persist(&SENTINEL, pins.map(|pins| &pins.maps))
        .size("ic_alarms", options.ring_bytes)
        .size("ic_labels", sizes.labels)
        .size("ic_names", sizes.names)
        .size("ic_label_bits", sizes.filter)
        .load(open.open_object_mut())?;
    let kfuncs = object.map("ic_kfuncs")?;
    for id in btf.functions(is_harmless) {
        kfuncs.update(&id, &1u32)?;
    }
    Ok((object, missing))
}

/// Words of the set of helpers.
const HELPER_WORDS: usize = abi::SENTINEL_HELPERS / 64;

/// Bit n: programs of other processes may not call helper n.
fn refused_helpers(options: &GuardOptions) -> [u64; HELPER_WORDS] {
    let reading = options.refuse & abi::REFUSE_MEMORY != 0;
    let reading = if reading { READING_HELPERS } else { &[] };
    let mut bits = [0; HELPER_WORDS];
    for helper in FORBIDDEN_HELPERS.iter().chain(OVERRIDING_HELPERS).chain(reading) {
        bits[helper.0 as usize / 64] |= 1 << (helper.0 % 64);
    }
    bits
}
