mod exemptions;
mod persistent;
mod policy;
mod scratch;
mod start;
mod status;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use ironclad_bpf::sentinel::{Canary, Secret};
use ironclad_bpf::socket::Processes;
use ironclad_bpf::{BpfError, EventRing, Program};
use ironclad_core::abi::{FileId, FilePolicy, SentinelHook};
use ironclad_core::audit::AuditAction;
use ironclad_events::{EventPump, EventReceiver, Overflow};
use ironclad_policy::file::FileRuleInfo;
use ironclad_policy::trust::Trust;
use ironclad_policy::{CompiledPolicy, PolicyPart, Provenance};

use crate::baseline::{BaselineReport, Scopes};
use crate::builder::SentinelBuilder;
use crate::error::{Failure, SentinelError};
use crate::inventory::Foreign;
use crate::oom::OomProtection;
use crate::own::OwnPath;
use crate::preopened::Preopened;
use crate::privilege::Claim;
use crate::resolve::Coverage;
use crate::status::Missing;
use crate::tables::Tables;
use crate::volumes::{KnownMounts, MountOver};
use crate::watch::{Watch, Watched};

pub(crate) use exemptions::Executables;
use persistent::Persistent;
pub use policy::Refreshed;
pub(crate) use scratch::Scratch;

/// A running Sentinel.
///
/// Dropping it disarms and detaches the hooks. A persistent instance stays armed: hooks refuse until the
/// next agent adopts the instance and [`stop`](Self::stop)s it.
pub struct Sentinel {
    /// Dropped first.
    watch: Option<Watch>,
    watched: Arc<Watched>,
    own: Vec<OwnPath>,
    executables: Executables,
    /// Held while a policy is applied.
    applying: Mutex<()>,
    processes: Processes,
    persistent: Option<Persistent>,
    trust: Trust,
    unenforced: Vec<PolicyPart>,
    _oom_protection: Option<OomProtection>,
    /// Dropped last.
    _claim: Claim,
}

pub(crate) struct State {
    tables: Tables,
    /// The content of the tables, once a policy of this agent is in force.
    in_force: Option<(Coverage, FilePolicy)>,
    policy: CompiledPolicy,
    /// None before the first policy.
    provenance: Option<Provenance>,
    /// Whether a token has permitted uninstalling.
    #[cfg(feature = "signed")]
    may_uninstall: bool,
    rules: Vec<FileRuleInfo>,
    /// Paths that did not exist when the rules were resolved, except files.
    missing: Vec<Missing>,
    pub(crate) scopes: Scopes,
    pub(crate) canaries: Vec<Canary>,
    /// When hooks last passed their self-test: `CLOCK_BOOTTIME`, nanoseconds.
    pub(crate) last_active: BTreeMap<SentinelHook, u64>,
    /// Why the last run of the watch thread failed.
    pub(crate) watch_error: Option<String>,
    /// Why the thread that is woken has ended.
    pub(crate) wake_error: Option<String>,
    baseline: Option<BaselineReport>,
    pub(crate) preopened: Preopened,
    foreign: Foreign,
    /// The mounts over protected files when the policy was applied, and those that appeared since.
    pub(crate) known_mounts: KnownMounts,
    pub(crate) mounts_over: Vec<MountOver>,
    /// Each tmpfs with protected files that may be swapped out.
    pub(crate) swapped: BTreeSet<PathBuf>,
}

impl State {
    /// The state before a policy is in force.
    fn new(tables: Tables, policy: &CompiledPolicy) -> Self {
        Self {
            tables,
            in_force: None,
            policy: policy.clone(),
            provenance: None,
            #[cfg(feature = "signed")]
            may_uninstall: false,
            rules: Vec::new(),
            missing: Vec::new(),
            scopes: Scopes::default(),
            canaries: Vec::new(),
            last_active: BTreeMap::new(),
            watch_error: None,
            wake_error: None,
            baseline: None,
            preopened: Preopened::default(),
            foreign: Foreign::default(),
            known_mounts: KnownMounts::default(),
            mounts_over: Vec::new(),
            swapped: BTreeSet::new(),
        }
    }

    /// What the rules in force cover.
    pub(crate) fn coverage(&self) -> Option<&Coverage> {
        self.in_force.as_ref().map(|(coverage, _)| coverage)
    }

    pub(crate) fn warn_of_preopened(&self) {
        for held in &self.preopened.held {
            tracing::warn!("{held}: writes are checked until it is closed");
        }
    }
}

impl Sentinel {
    /// Options of a Sentinel. The name of the instance distinguishes agents on one host.
    pub fn builder(instance: &str) -> SentinelBuilder {
        SentinelBuilder::new(instance)
    }

    fn record(&self, action: &AuditAction) -> Result<(), SentinelError> {
        self.watched.record(action)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.watched.lock()
    }

    /// Alarms, through a channel: denied accesses, accesses that rules log, and presented secrets.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` where the ring buffer cannot be opened, `SentinelErrorKind::Thread`.
    pub fn events(
        &self,
        capacity: usize,
        overflow: Overflow,
    ) -> Result<(EventPump, EventReceiver), SentinelError> {
        let mut ring = EventRing::new(self.watched.guard.alarms())?;
        let pump =
            EventPump::spawn(capacity, overflow, move |wait, deliver| ring.poll(wait, deliver));
        Ok(pump.map_err(Failure::Thread)?)
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The rule at an index of the policy in force: alarms have indexes of rules.
    pub fn rule(&self, index: usize) -> Option<FileRuleInfo> {
        self.lock().rules.get(index).cloned()
    }

    /// A secret by which one other process that executes `exe` becomes trusted. Pass it through a pipe to the
    /// process, which [`present`](Secret::present)s it.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` where there is no such file, or no room.
    pub fn admit(&self, exe: &Path) -> Result<Secret, SentinelError> {
        exemptions::check_executable(|| "`admit(…)`".to_owned(), exe)?;
        let found = self.processes.identify(&[exe])?;
        let id = found.first().copied().flatten().filter(|id| *id != FileId::NONE);
        let id = id.ok_or_else(|| {
            let source = std::io::Error::other(format!("{}: no such file", exe.display()));
            BpfError::system("admitting a process", source)
        })?;
        Ok(self.watched.guard.admit(id)?)
    }

    /// Protects maps and programs that this process created before Sentinel started. Maps and programs that the
    /// process creates later are protected from the start.
    ///
    /// # Errors
    /// `SentinelErrorKind::Bpf` where the kernel refuses.
    pub fn protect<'a>(
        &self,
        maps: impl IntoIterator<Item = BorrowedFd<'a>>,
        programs: impl IntoIterator<Item = &'a Program>,
    ) -> Result<(), SentinelError> {
        self.watched.guard.protect_maps(maps)?;
        Ok(self.watched.guard.protect_programs(programs)?)
    }

    /// Protects maps and programs that this thread opens while `work` runs, whichever process created them: pins that
    /// an agent adopts and that are older than Sentinel. `work` may neither call this method nor
    /// [`protect`](Self::protect).
    pub fn protect_opened<T>(&self, work: impl FnOnce() -> T) -> T {
        self.watched.guard.adopting(work)
    }

    /// The kernel's ids of Sentinel's own maps.
    pub fn map_ids(&self) -> BTreeSet<u32> {
        let programs = self.processes.programs().chain(self.watched.guard.programs());
        programs.flat_map(|program| program.info().map_ids.iter().copied()).collect()
    }

    /// The kernel's ids of Sentinel's own programs.
    pub fn program_ids(&self) -> impl Iterator<Item = u32> {
        self.processes
            .programs()
            .chain(self.watched.guard.programs())
            .map(|program| program.info().id)
    }
}

impl std::fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sentinel")
            .field("instance", &self.watched.audit.instance())
            .finish_non_exhaustive()
    }
}
