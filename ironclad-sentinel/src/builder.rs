use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "signed")]
use std::sync::Mutex;
use std::time::Duration;

use ironclad_bpf::BPFFS;
use ironclad_bpf::sentinel::GuardOptions;
use ironclad_bpf::uapi::ProgramType;
use ironclad_core::abi;
use ironclad_core::audit::{AuditSink, NoAudit};
use ironclad_policy::CompiledPolicy;
#[cfg(feature = "signed")]
use ironclad_policy::bundle::TrustStore;
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;

use crate::baseline::BaselineOptions;
use crate::error::SentinelError;
use crate::inventory::OnSuspect;
use crate::sentinel::Sentinel;
use crate::trust::Trust;
use crate::watch::{Alarm, OnAlarm};

/// Types of programs that can undo what Sentinel does, read what it keeps, or keep its successor out.
const GATE: [ProgramType; 11] = [
    ProgramType::LSM,
    ProgramType::TRACING,
    ProgramType::EXT,
    ProgramType::STRUCT_OPS,
    ProgramType::KPROBE,
    ProgramType::TRACEPOINT,
    ProgramType::RAW_TRACEPOINT,
    ProgramType::RAW_TRACEPOINT_WRITABLE,
    ProgramType::PERF_EVENT,
    ProgramType::SYSCALL,
    // A cgroup has room for 64 of them, and a successor needs one at the root.
    ProgramType::CGROUP_SYSCTL,
];

/// What a [`Sentinel`] is to be: [`Sentinel::builder`].
#[derive(Clone)]
pub struct SentinelBuilder {
    pub(crate) instance: String,
    pub(crate) options: GuardOptions,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) degraded: bool,
    pub(crate) scratch: PathBuf,
    pub(crate) persistent: bool,
    pub(crate) bpffs: PathBuf,
    pub(crate) state: Option<PathBuf>,
    pub(crate) launch: Launch,
    pub(crate) launch_group: Option<PathBuf>,
    pub(crate) updaters: Vec<PathBuf>,
    pub(crate) may_stop: Vec<PathBuf>,
    pub(crate) group_managers: Vec<PathBuf>,
    pub(crate) trust: Trust,
    pub(crate) on_suspect: OnSuspect,
    pub(crate) baseline: Option<BaselineOptions>,
    pub(crate) watch_every: Duration,
    pub(crate) on_alarm: Option<OnAlarm>,
    pub(crate) allows_oom_kill: bool,
}

/// Who starts agents, and so may start one that takes over from one that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launch {
    /// PID 1, which is the service manager.
    #[default]
    Init,
    /// A trusted process: an agent that supervises others.
    Trusted,
}

impl SentinelBuilder {
    pub(crate) fn new(instance: &str) -> Self {
        let mut options = GuardOptions::default();
        options.gate = bits(&GATE);
        options.gate_log = !options.gate;
        Self {
            instance: instance.to_owned(),
            options,
            audit: Arc::new(NoAudit),
            degraded: false,
            scratch: std::env::temp_dir(),
            persistent: false,
            bpffs: BPFFS.into(),
            state: None,
            launch: Launch::Init,
            launch_group: None,
            updaters: Vec::new(),
            may_stop: Vec::new(),
            group_managers: Vec::new(),
            trust: Trust::default(),
            on_suspect: OnSuspect::default(),
            baseline: None,
            watch_every: Duration::from_secs(60),
            on_alarm: None,
            allows_oom_kill: false,
        }
    }

    /// The instance, and where its audit records go.
    pub(crate) fn audited(&self) -> (&str, &dyn AuditSink) {
        (&self.instance, &*self.audit)
    }

    /// Types of programs that others may not load while Sentinel is armed; of all others it tells.
    /// Default: LSM, tracing (fentry, fexit, fmod_ret, iterators), freplace, struct_ops, kprobes,
    /// tracepoints, perf events, syscall programs, programs of cgroups at sysctls.
    ///
    /// Whoever may load programs of these types can undo what Sentinel does, or read secrets in the
    /// kernel's memory.
    #[must_use]
    pub fn refuse_programs(mut self, types: impl IntoIterator<Item = ProgramType>) -> Self {
        let types: Vec<_> = types.into_iter().collect();
        self.options.gate = bits(&types);
        self.options.gate_log = !self.options.gate;
        self
    }

    /// What becomes of a start where others have programs of [these types](Self::refuse_programs) loaded
    /// already. Default: [`OnSuspect::Report`].
    ///
    /// Programs of which this process has descriptors are its own, as are those that a former agent of
    /// this instance attached.
    #[must_use]
    pub fn foreign_programs(mut self, on_suspect: OnSuspect) -> Self {
        self.on_suspect = on_suspect;
        self
    }

    /// Whether the kernel may choose the agent to be ended when memory is used up: whoever spares himself can use
    /// it up. Default: false, by an `oom_score_adj` of -1000 (proc(5)) from the start until the [`Sentinel`] is
    /// dropped, which takes `CAP_SYS_RESOURCE` where it is not so already. Children that the agent starts
    /// meanwhile begin with the same: where they are not to be spared, they write another to
    /// `/proc/self/oom_score_adj` before they execute anything.
    #[must_use]
    pub fn danger_out_of_memory(mut self, allow: bool) -> Self {
        self.allows_oom_kill = allow;
        self
    }

    /// Whether others may load modules from files that no rule keeps from being changed. Default: false.
    #[must_use]
    pub fn danger_any_module(mut self, allow: bool) -> Self {
        self.options.refuse = match allow {
            true => self.options.refuse & !abi::REFUSE_MODULES,
            false => self.options.refuse | abi::REFUSE_MODULES,
        };
        self
    }

    /// Whether others may read the kernel's memory, put probes into it, and sample all processes.
    /// Default: false.
    #[must_use]
    pub fn danger_kernel_memory(mut self, allow: bool) -> Self {
        self.options.refuse = match allow {
            true => self.options.refuse & !abi::REFUSE_MEMORY,
            false => self.options.refuse | abi::REFUSE_MEMORY,
        };
        self
    }

    /// Whether others may boot other kernels by kexec(8). Default: false.
    #[must_use]
    pub fn danger_kexec(mut self, allow: bool) -> Self {
        self.options.refuse = match allow {
            true => self.options.refuse & !abi::REFUSE_KEXEC,
            false => self.options.refuse | abi::REFUSE_KEXEC,
        };
        self
    }

    /// Whether others may send commands to the disks that guarded files lie on (SG_IO, NVMe, loop, partitions),
    /// open what sends them to any disk (`/dev/sg*`, `/dev/bsg/*`, `/dev/nvme0`, `/dev/ng*`), and make disks
    /// of NVMe targets. Default: false.
    ///
    /// Some of what smartctl(8), hdparm(8) and multipathd(8) do needs it.
    #[must_use]
    pub fn danger_disk_commands(mut self, allow: bool) -> Self {
        self.options.refuse = match allow {
            true => self.options.refuse & !abi::REFUSE_DISKS,
            false => self.options.refuse | abi::REFUSE_DISKS,
        };
        self
    }

    /// Whether others may open `/dev/mapper/control` where guarded files lie on a device that is mapped:
    /// LVM, LUKS. Default: false.
    ///
    /// Who may can map the device elsewhere, or map once more what it lies on and write to that.
    #[must_use]
    pub fn danger_device_mapper(mut self, allow: bool) -> Self {
        self.options.refuse = match allow {
            true => self.options.refuse & !abi::REFUSE_MAPPER,
            false => self.options.refuse | abi::REFUSE_MAPPER,
        };
        self
    }

    /// Starts although hooks are missing or do not answer: [`Sentinel::status`] names them. Default:
    /// false, and a start is refused.
    #[must_use]
    pub fn danger_degraded(mut self, degraded: bool) -> Self {
        self.degraded = degraded;
        self
    }

    /// A directory in which one is made in which hooks are tried. Default: that for temporary files.
    #[must_use]
    pub fn scratch(mut self, directory: impl Into<PathBuf>) -> Self {
        self.scratch = directory.into();
        self
    }

    /// Files and directories that the rules of two policies may name or lead through. Default: 65,536.
    #[must_use]
    pub fn labels(mut self, labels: u32) -> Self {
        self.options.labels = labels;
        self
    }

    /// Names in directories that the rules of two policies may cover. Default: 16,384.
    #[must_use]
    pub fn names(mut self, names: u32) -> Self {
        self.options.names = names;
        self
    }

    /// Bytes of the ring buffer of alarms: a power of two, at least 4096. Default: 1 MiB.
    #[must_use]
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.options.ring_bytes = bytes;
        self
    }

    /// Where audit records go. Default: nowhere.
    #[must_use]
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = sink;
        self
    }

    /// Whether what is refused is refused however the process ends. Default: false.
    ///
    /// If true, everything is pinned in bpffs, and an agent of the same instance takes it over when it
    /// is started again: see [`launched_by`](Self::launched_by).
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Where bpffs is mounted. Default: `/sys/fs/bpf`.
    #[must_use]
    pub fn bpffs(mut self, path: impl Into<PathBuf>) -> Self {
        self.bpffs = path.into();
        self
    }

    /// The directory of what a persistent agent keeps, and of the [baseline](Self::baseline), which no other process may read or change. Default:
    /// `/var/lib/ironclad/<instance>`.
    #[must_use]
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state = Some(path.into());
        self
    }

    /// Who starts persistent agents. Only the agent's program, started so, traced by nobody and with
    /// nothing loaded into it but what the first agent had loaded, reads the secret by which the kernel
    /// knows it. Default: [`Launch::Init`].
    #[must_use]
    pub fn launched_by(mut self, launch: Launch) -> Self {
        self.launch = launch;
        self
    }

    /// The cgroup, by its directory, that persistent agents are started in: one that is started
    /// elsewhere does not read the secret. A further condition to [`launched_by`](Self::launched_by).
    /// Default: any.
    ///
    /// It must be the group itself, not one below it, and be there still when the agent is started
    /// again: a service manager that makes a new one for each start locks the agent out.
    #[must_use]
    pub fn launched_in(mut self, cgroup: impl Into<PathBuf>) -> Self {
        self.launch_group = Some(cgroup.into());
        self
    }

    /// Records what the files that rules name contain, in the [state directory](Self::state_dir), and
    /// says at the next start what changed while Sentinel was away: [`Sentinel::baseline`]. Default: off,
    /// because all these files are read at each start.
    #[must_use]
    pub fn baseline(mut self, options: BaselineOptions) -> Self {
        self.baseline = Some(options);
        self
    }

    /// How often a thread sees whether hooks answer, and looks at the files of the
    /// [baseline](Self::baseline). Default: 60 s; zero: never.
    #[must_use]
    pub fn watch_every(mut self, period: Duration) -> Self {
        self.watch_every = period;
        self
    }

    /// Who is told when a hook stops to answer, or begins again, and when files of the baseline have
    /// changed: by the thread that found it, which looks no further until this returns. Default: nobody;
    /// audit records are left in any case.
    #[must_use]
    pub fn on_alarm(mut self, tell: impl Fn(&Alarm) + Send + Sync + 'static) -> Self {
        self.on_alarm = Some(Arc::new(tell));
        self
    }

    /// An executable that may replace the agent's own executable and libraries: the package manager,
    /// and `ldconfig`. May be called again.
    #[must_use]
    pub fn updater(mut self, executable: impl Into<PathBuf>) -> Self {
        self.updaters.push(executable.into());
        self
    }

    /// An executable that may move processes between cgroups as root, and write what the agent's
    /// own group does: runtimes of containers, service managers in containers. May be called again. The
    /// first process always may, and what it forks until that executes something else than systemd's
    /// executor, which nobody but updaters may change.
    ///
    /// Who can move the agent into a group of their own can freeze it there, and kill it without a signal.
    #[must_use]
    pub fn group_manager(mut self, executable: impl Into<PathBuf>) -> Self {
        self.group_managers.push(executable.into());
        self
    }

    /// An executable that may send signals to the agent, give it other limits and write what its cgroup
    ///  does: the service manager; and that may have a say in what is opened by fanotify(7), also by
    /// the agent: a scanner. May be called again.
    #[must_use]
    pub fn may_stop(mut self, executable: impl Into<PathBuf>) -> Self {
        self.may_stop.push(executable.into());
        self
    }

    /// Takes policies in signed bundles alone, by [`start_signed`](Self::start_signed) and
    /// [`Sentinel::apply_signed`], and has the files of the trust store guarded as the agent's own.
    /// Default: whoever calls decides what is in force, which is told aloud.
    ///
    /// One store may be shared, also with a Shield: then each takes the same bundle. A file has one
    /// store.
    #[cfg(feature = "signed")]
    #[must_use]
    pub fn signed(mut self, trust: Arc<Mutex<TrustStore>>) -> Self {
        self.trust = Trust::new(trust);
        self
    }

    pub(crate) fn state(&self) -> PathBuf {
        let usual = || Path::new("/var/lib/ironclad").join(&self.instance);
        self.state.clone().unwrap_or_else(usual)
    }

    /// Loads and attaches the programs, the gate first, entitles this process, puts `policy`'s file
    /// rules into force, sees that each hook answers, and arms.
    ///
    /// If anything fails, what was refused before is refused still: of a first start, nothing.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] with what the kernel said and the next step, [`SentinelError::Degraded`],
    /// [`SentinelError::Path`] and [`SentinelError::Script`] with the rule, [`SentinelError::Unsigned`].
    /// Before anything is loaded: [`SentinelError::NotPrivileged`], [`SentinelError::Already`], and
    /// [`SentinelError::Refused`] where another Sentinel is armed.
    pub fn start(self, policy: &CompiledPolicy) -> Result<Sentinel, SentinelError> {
        Sentinel::start(self, policy)
    }

    /// Like [`start`](Self::start), with the policy of a bundle that is verified, and whose serial is
    /// kept, before. The last one that was taken may be handed over again.
    ///
    /// # Errors
    /// [`SentinelError::NoTrust`], [`SentinelError::Bundle`] where it is not taken,
    /// [`SentinelError::NotApplied`] with what [`start`](Self::start) would say.
    #[cfg(feature = "signed")]
    pub fn start_signed(
        self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<Sentinel, SentinelError> {
        Sentinel::start_signed(self, bundle, signatures, sources)
    }
}

fn bits(types: &[ProgramType]) -> u64 {
    types.iter().filter(|it| it.0 < 64).fold(0, |bits, it| bits | 1 << it.0)
}
