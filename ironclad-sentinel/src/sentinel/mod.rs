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
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use ironclad_bpf::sentinel::{Canary, Secret};
use ironclad_bpf::socket::Processes;
use ironclad_bpf::{BpfError, EventRing, Program};
use ironclad_core::ErrorChain;
use ironclad_core::abi::{FileId, FilePolicy, PreopenedDescriptor, SentinelHook};
use ironclad_core::audit::AuditAction;
use ironclad_events::{EventPump, EventReceiver, Overflow};
use ironclad_policy::file::FileRuleInfo;
use ironclad_policy::{CompiledPolicy, Provenance};

use crate::baseline::{BaselineReport, Scopes};
use crate::builder::SentinelBuilder;
use crate::error::SentinelError;
use crate::inventory::Foreign;
use crate::oom::OomProtection;
use crate::own::OwnPath;
use crate::privilege::Claim;
use crate::resolve::Coverage;
use crate::status::Missing;
use crate::tables::Tables;
use crate::trust::Trust;
use crate::watch::{Watch, Watched};

use persistent::Kept;
pub use policy::Refreshed;
pub(crate) use scratch::Scratch;

const PATIENCE: Duration = Duration::from_millis(50);

/// A running Sentinel. Dropping it disarms and detaches it, unless it is persistent: then all is
/// refused to others until an agent takes over, and [`stop`](Self::stop)s.
pub struct Sentinel {
    /// Ends first.
    watch: Option<Watch>,
    watched: Arc<Watched>,
    own: Vec<OwnPath>,
    updaters: Vec<PathBuf>,
    may_stop: Vec<PathBuf>,
    group_managers: Vec<PathBuf>,
    processes: Processes,
    kept: Option<Kept>,
    trust: Trust,
    _oom_protection: Option<OomProtection>,
    /// Ends last.
    _claim: Claim,
}

pub(crate) struct State {
    tables: Tables,
    /// What they say, once a policy of this agent's is in force.
    in_force: Option<(Coverage, FilePolicy)>,
    policy: CompiledPolicy,
    /// None before the first.
    provenance: Option<Provenance>,
    /// Whether a token has permitted to uninstall.
    #[cfg(feature = "signed")]
    may_uninstall: bool,
    rules: Vec<FileRuleInfo>,
    /// What led nowhere when they were looked up, but for files.
    missing: Vec<Missing>,
    scopes: Scopes,
    pub(crate) canaries: Vec<Canary>,
    /// When hooks refused what they were told to: `CLOCK_BOOTTIME`, nanoseconds.
    pub(crate) answered: BTreeMap<SentinelHook, u64>,
    /// Why the thread that looks could not.
    pub(crate) unwatched: Option<String>,
    baseline: Option<BaselineReport>,
    preopened: Vec<PreopenedDescriptor>,
    foreign: Foreign,
}

impl State {
    /// Before a policy is in force.
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
            answered: BTreeMap::new(),
            unwatched: None,
            baseline: None,
            preopened: Vec::new(),
            foreign: Foreign::default(),
        }
    }
}

impl Sentinel {
    /// Begins to describe one. The instance's name tells agents on one machine apart.
    pub fn builder(instance: &str) -> SentinelBuilder {
        SentinelBuilder::new(instance)
    }

    fn record(&self, action: &AuditAction) -> Result<(), SentinelError> {
        self.watched.record(action)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.watched.lock()
    }

    /// Alarms, through a channel: who was refused what, what rules that log have seen, and who
    /// presented a secret.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where the ring buffer cannot be opened, [`SentinelError::Thread`].
    pub fn events(
        &self,
        capacity: usize,
        overflow: Overflow,
    ) -> Result<(EventPump, EventReceiver), SentinelError> {
        let mut ring = EventRing::new(self.watched.guard.alarms())?;
        EventPump::start(capacity, overflow, move |deliver| {
            ring.poll(PATIENCE, |bytes| deliver.deliver(bytes))
                .inspect_err(
                    |error| tracing::error!(error = %ErrorChain::new(error), "no more alarms"),
                )
                .is_ok()
        })
        .map_err(SentinelError::Thread)
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The rule at a place of the policy in force, as events name it.
    pub fn rule(&self, place: usize) -> Option<FileRuleInfo> {
        self.lock().rules.get(place).cloned()
    }

    /// A secret by which another process that executes `exe` becomes trusted, once: give it to it by
    /// a pipe, and let it [`present`](Secret::present) it.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where there is no such file, or no room.
    pub fn admit(&self, exe: &Path) -> Result<Secret, SentinelError> {
        exemptions::refuse_no_program(|| "`admit`".to_owned(), exe)?;
        let found = self.processes.identify(&[exe])?;
        let id = found.first().copied().flatten().filter(|id| *id != FileId::NONE);
        let id = id.ok_or_else(|| {
            let source = std::io::Error::other(format!("{}: no such file", exe.display()));
            BpfError::system("admitting a process", source)
        })?;
        Ok(self.watched.guard.admit(id)?)
    }

    /// Guards maps and programs that this process made before Sentinel was started; what it makes
    /// since is guarded as it is made.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where the kernel refuses.
    pub fn guard<'a>(
        &self,
        maps: impl IntoIterator<Item = BorrowedFd<'a>>,
        programs: impl IntoIterator<Item = &'a Program>,
    ) -> Result<(), SentinelError> {
        self.watched.guard.guard_maps(maps)?;
        Ok(self.watched.guard.guard_programs(programs)?)
    }

    /// Guards maps and programs that this thread opens while `work` runs, whoever made them: what an
    /// agent adopts that had pinned it before it had Sentinel. `work` may neither call this nor
    /// [`guard`](Self::guard).
    pub fn guard_opened<T>(&self, work: impl FnOnce() -> T) -> T {
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
        f.debug_struct("Sentinel").field("instance", &self.watched.instance).finish_non_exhaustive()
    }
}
