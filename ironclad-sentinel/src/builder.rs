use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(feature = "signed")]
use std::sync::Mutex;
use std::time::Duration;

use ironclad_bpf::BPFFS;
use ironclad_bpf::sentinel::GuardOptions;
use ironclad_bpf::uapi::ProgramType;
use ironclad_core::audit::{AuditLog, AuditSink, NoAudit};
#[cfg(feature = "signed")]
use ironclad_policy::bundle::TrustStore;
use ironclad_policy::trust::Trust;
use ironclad_policy::{PolicyPart, PolicySource};

use crate::baseline::BaselineOptions;
use crate::dangerous::Dangerous;
use crate::error::SentinelError;
use crate::inventory::OnSuspect;
use crate::sentinel::{Executables, Sentinel};
use crate::watch::{Alarm, OnAlarm};

/// Types of programs that can bypass Sentinel, read its state, or block its successor.
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
    // A cgroup holds at most 64 of them, and a successor attaches one to the root cgroup.
    ProgramType::CGROUP_SYSCTL,
];

/// Options of a [`Sentinel`]: see [`Sentinel::builder`].
#[derive(Clone)]
pub struct SentinelBuilder {
    pub(crate) instance: String,
    pub(crate) options: GuardOptions,
    pub(crate) audit: Arc<dyn AuditSink>,
    pub(crate) dangerous: Dangerous,
    pub(crate) unenforced: Vec<PolicyPart>,
    pub(crate) persistent: bool,
    pub(crate) bpffs: PathBuf,
    pub(crate) state: Option<PathBuf>,
    pub(crate) launch: Launch,
    pub(crate) launch_group: Option<PathBuf>,
    pub(crate) executables: Executables,
    pub(crate) trust: Trust,
    /// The files of the trust store, which is locked while a bundle is applied.
    pub(crate) trust_files: Vec<PathBuf>,
    pub(crate) on_suspect: OnSuspect,
    pub(crate) baseline: Option<BaselineOptions>,
    pub(crate) watch_every: Duration,
    pub(crate) on_alarm: Option<OnAlarm>,
}

/// The process that starts agents, and so may start the successor of one that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launch {
    /// PID 1, the service manager.
    #[default]
    Init,
    /// A trusted process: an agent that supervises other agents.
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
            dangerous: Dangerous::none(),
            unenforced: Vec::new(),
            persistent: false,
            bpffs: BPFFS.into(),
            state: None,
            launch: Launch::Init,
            launch_group: None,
            executables: Executables::default(),
            trust: Trust::default(),
            trust_files: Vec::new(),
            on_suspect: OnSuspect::default(),
            baseline: None,
            watch_every: Duration::from_secs(60),
            on_alarm: None,
        }
    }

    pub(crate) fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.instance.as_str(), Arc::clone(&self.audit))
    }

    /// BPF program types that other processes may not load while Sentinel is armed. Programs of every
    /// other type are reported. Default: LSM, tracing (fentry, fexit, fmod_ret, iterators), freplace,
    /// struct_ops, kprobes, tracepoints, perf events, syscall programs, cgroup sysctl programs.
    ///
    /// In place of the default list: name its types, too. Programs of these types can bypass Sentinel, or read secrets in
    /// kernel memory. With cgroup sysctl programs, other processes may not ask which programs are attached somewhere
    /// (BPF_PROG_QUERY), but for tcx and netkit.
    #[must_use]
    pub fn refuse_programs(mut self, types: impl IntoIterator<Item = ProgramType>) -> Self {
        let types: Vec<_> = types.into_iter().collect();
        self.options.gate = bits(&types);
        self.options.gate_log = !self.options.gate;
        self
    }

    /// Whether the start fails where other processes have loaded programs of
    /// [these types](Self::refuse_programs). Default: [`OnSuspect::Report`].
    ///
    /// Programs of which this process has descriptors are its own. So are programs that an earlier agent
    /// of this instance attached.
    #[must_use]
    pub fn foreign_programs(mut self, on_suspect: OnSuspect) -> Self {
        self.on_suspect = on_suspect;
        self
    }

    /// Gives up protections: see [`Dangerous`]. May be called again; options add up.
    #[must_use]
    pub fn dangerous(mut self, allow: impl FnOnce(Dangerous) -> Dangerous) -> Self {
        self.dangerous = allow(self.dangerous);
        self.options.refuse = self.dangerous.refuse;
        self
    }

    /// Capacity for files and directories that the rules of two policies name, path components included.
    /// Default: 65,536.
    #[must_use]
    pub fn labels(mut self, labels: u32) -> Self {
        self.options.labels = labels;
        self
    }

    /// Capacity for names in directories that the rules of two policies cover. Default: 16,384.
    #[must_use]
    pub fn names(mut self, names: u32) -> Self {
        self.options.names = names;
        self
    }

    /// Size of the ring buffer of alarms in bytes: a power of two, at least 4096. Default: 1 MiB.
    #[must_use]
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.options.ring_bytes = bytes;
        self
    }

    /// The sink of audit records. Default: none.
    ///
    /// Of a [persistent](Self::persistent) agent, and where a rule protects the audit file, the sink opens the file at the
    /// first record, as `DeferredSink` of `ironclad_core::audit` does: before its successor is admitted, the kernel does
    /// not let it open the file.
    #[must_use]
    pub fn audit(mut self, sink: Arc<dyn AuditSink>) -> Self {
        self.audit = sink;
        self
    }

    /// Whether protection continues after the agent's process ends. Default: false.
    ///
    /// If true, programs and maps are pinned in bpffs, and the next agent of the instance adopts them: see
    /// [`launched_by`](Self::launched_by).
    #[must_use]
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// The mount point of bpffs. Default: `/sys/fs/bpf`.
    #[must_use]
    pub fn bpffs(mut self, path: impl Into<PathBuf>) -> Self {
        self.bpffs = path.into();
        self
    }

    /// The directory of a persistent agent's secret and of the [baseline](Self::baseline). No other process may
    /// read or change it. Default: `/var/lib/ironclad/<instance>`.
    #[must_use]
    pub fn state_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.state = Some(path.into());
        self
    }

    /// The process that starts persistent agents. An agent reads the secret of its predecessor if that process
    /// started it, it executes the first agent's program, it maps no executable file that the first agent
    /// did not map, and no process traces it. Default: [`Launch::Init`].
    #[must_use]
    pub fn launched_by(mut self, launch: Launch) -> Self {
        self.launch = launch;
        self
    }

    /// The cgroup, by its directory, in which persistent agents are started, as a further condition to
    /// [`launched_by`](Self::launched_by): an agent elsewhere does not read the secret. Default: any.
    ///
    /// The agent must be in this cgroup, not in a descendant, and the cgroup must exist until the
    /// successor starts: a service manager that makes another cgroup for each start locks the agent out.
    #[must_use]
    pub fn launched_in(mut self, cgroup: impl Into<PathBuf>) -> Self {
        self.launch_group = Some(cgroup.into());
        self
    }

    /// Records digests of protected files in the [state directory](Self::state_dir). The next start reports
    /// what changed while Sentinel was stopped: [`Sentinel::baseline`]. Default: off, because each start reads
    /// all these files.
    #[must_use]
    pub fn baseline(mut self, options: BaselineOptions) -> Self {
        self.baseline = Some(options);
        self
    }

    /// How often a thread tests hooks and compares the files of the [baseline](Self::baseline). Default: 60 s;
    /// zero: never. With zero, mounts and swap are looked at by `status` alone, and writes are not checked where a file that is open for writing gets a protected name.
    #[must_use]
    pub fn watch_every(mut self, period: Duration) -> Self {
        self.watch_every = period;
        self
    }

    /// A callback for hooks that become inactive or active again, for mounts over protected files, for swap of these, for
    /// changed files of the baseline, and for an audit sink that does not return. The thread that found it checks nothing
    /// until the callback returns. Default: none. Audit records of all but the last and swap are written in any case, and
    /// before, unless the sink takes longer than 5 s.
    #[must_use]
    pub fn on_alarm(mut self, call: impl Fn(&Alarm) + Send + Sync + 'static) -> Self {
        self.on_alarm = Some(Arc::new(call));
        self
    }

    /// An executable that may replace the agent's executable and libraries: the package manager, `ldconfig`.
    /// May be called again.
    #[must_use]
    pub fn updater(mut self, executable: impl Into<PathBuf>) -> Self {
        self.executables.updaters.push(executable.into());
        self
    }

    /// An executable that may move processes between cgroups as root, and write to files of the agent's
    /// cgroup, and ask which BPF programs are attached: container runtimes, service managers in containers. May be called
    /// again.
    ///
    /// PID 1 always may. So may its children until they execute a program other than systemd's executor, which only
    /// updaters may change. Neither may freeze or kill the agent's cgroup and those above.
    ///
    /// A process that moves the agent into its own cgroup can freeze it there, or kill it without a signal.
    #[must_use]
    pub fn group_manager(mut self, executable: impl Into<PathBuf>) -> Self {
        self.executables.group_managers.push(executable.into());
        self
    }

    /// An executable that may send signals to the agent, change its limits, and write to files of its
    /// cgroup: the service manager. It may also answer permission events of fanotify(7) for files that the agent
    /// opens: a scanner. May be called again.
    #[must_use]
    pub fn may_stop(mut self, executable: impl Into<PathBuf>) -> Self {
        self.executables.may_stop.push(executable.into());
        self
    }

    /// Accepts only policies in signed bundles, and protects the files of the trust store like the agent's
    /// own. Default: unsigned policies are accepted, with a warning.
    ///
    /// One store may be shared, also with a Shield: then each accepts the same bundle. A file has one store.
    #[cfg(feature = "signed")]
    #[must_use]
    pub fn signed(mut self, trust: Arc<Mutex<TrustStore>>) -> Self {
        self.trust = Trust::new(trust);
        self.trust_files = self.trust.files();
        self
    }

    pub(crate) fn state(&self) -> PathBuf {
        let usual = || Path::new("/var/lib/ironclad").join(&self.instance);
        self.state.clone().unwrap_or_else(usual)
    }

    /// Parts of policies that this Sentinel leaves to a Shield that has the same policy: packets and sockets. May
    /// be called again. Default: none, and a policy with a part that Sentinel does not enforce is refused.
    #[must_use]
    pub fn unenforced(mut self, parts: impl IntoIterator<Item = PolicyPart>) -> Self {
        self.unenforced.extend(parts);
        self
    }

    /// Loads and attaches the programs, the gate first, marks this process as trusted, applies the file rules
    /// of `policy`, tests each hook, and arms.
    ///
    /// `policy` is a compiled policy or, by [`PolicySource::signed`], a signed bundle. The bundle is verified, and
    /// its serial is stored, before its policy is applied. The last bundle may be used again.
    ///
    /// A start that fails changes nothing: a persistent instance stays as its last agent left it.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` with the kernel's error and the next step, `SentinelErrorKind::Degraded`,
    /// `SentinelErrorKind::Path` and `SentinelErrorKind::Script` with the rule. Before anything is loaded:
    /// `SentinelErrorKind::Unsigned`, `SentinelErrorKind::NotPrivileged`, `SentinelErrorKind::Already`,
    /// `SentinelErrorKind::Unenforced` where the policy has a part that Sentinel does not enforce, and that is not said
    /// to be [`unenforced`](Self::unenforced), and `SentinelErrorKind::Refused` where another Sentinel is armed.
    /// `SentinelErrorKind::Bundle` where a bundle is refused, and `SentinelErrorKind::NotApplied` where its policy is.
    pub fn start<'a>(self, policy: impl Into<PolicySource<'a>>) -> Result<Sentinel, SentinelError> {
        Sentinel::start(self, policy.into())
    }
}

fn bits(types: &[ProgramType]) -> u64 {
    types.iter().filter(|it| it.0 < 64).fold(0, |bits, it| bits | 1 << it.0)
}
