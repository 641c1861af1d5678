use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ironclad_bpf::paths::interpreter;
use ironclad_bpf::sentinel::{Canary, Guard, GuardPins, Secret};
use ironclad_bpf::socket::Processes;
use ironclad_bpf::{BpfError, EventRing, PinDirectory, Program, cgroup_id};
use ironclad_core::abi::{self, FileId, FilePolicy, PreopenedDescriptor, SentinelHook};
use ironclad_core::audit::{AuditAction, AuditSink};
use ironclad_events::{EventPump, EventReceiver, Overflow};
#[cfg(feature = "signed")]
use ironclad_policy::bundle::{Permit, Token};
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;
use ironclad_policy::file::{CompiledFiles, FileRuleInfo};
use ironclad_policy::{CompiledPolicy, Provenance};
use serde::Serialize;

use crate::baseline::{Baseline, BaselineReport, FileChange, Scopes};
use crate::builder::{Launch, SentinelBuilder};
use crate::disks;
use crate::error::SentinelError;
use crate::inventory::{Foreign, OnSuspect};
use crate::oom::OomProtection;
use crate::own::{self, OwnPath};
use crate::privilege::{self, Claim};
use crate::resolve::{self, Coverage, resolve, scopes};
use crate::seal::SecretStore;
use crate::status::{Degraded, HookState, HookStatus, KernelStatus, Missing, MissingKind, Status};
use crate::tables::Tables;
use crate::trust::{Trust, warn_unsigned};
use crate::volumes;
use crate::watch::{Watch, Watched};

/// How often paths are looked up until they lead twice to the same files.
const LOOKS: usize = 5;
/// Bytes of an instance's name: with what is added to it, it is the name of a directory of pins.
const INSTANCE_MAX: usize = 64 - SUFFIX.len();
const SUFFIX: &str = "-sentinel";
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

/// What [`Sentinel::refresh`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refreshed {
    /// Files and directories that are covered by what they are, or lie on the way, and were not before.
    pub files: usize,
    /// Executables that are exempt now, and were not before.
    pub executables: usize,
    /// What changed since the last look, where a [baseline](SentinelBuilder::baseline) is kept.
    pub changes: Vec<FileChange>,
}

/// A directory in which hooks are tried, which no other process may change.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    fn new(within: &Path) -> Result<Self, SentinelError> {
        let failed =
            |source| BpfError::System { step: "making a directory to try hooks in", source };
        let mut random = [0; 8];
        random.copy_from_slice(&Secret::new()?.as_bytes()[..8]);
        let name = format!(".ironclad-{:016x}", u64::from_ne_bytes(random));
        let within = std::fs::canonicalize(within).map_err(|e| SentinelError::Path {
            rule: "`.scratch(…)`".to_owned(),
            path: within.to_owned(),
            what: format!("is no directory to make one in that hooks are tried in: {e}"),
        })?;
        let path = within.join(name);
        DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing is in it but what a canary could not take away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a persistent instance has outside of this process.
struct Kept {
    directory: PinDirectory,
    /// Of all instances.
    pins: PathBuf,
    state: PathBuf,
    seal: SecretStore,
    /// The cgroup that agents are started in, by id; 0: any.
    group: u64,
    /// That of the agent before, which is good until the next is there.
    presented: Option<Secret>,
}

impl Kept {
    /// Opens it; an earlier agent's secret entitles this process first, for no other process may.
    fn open(builder: &SentinelBuilder) -> Result<Option<Self>, SentinelError> {
        if !builder.persistent {
            privilege::may_load()?;
            return Ok(None);
        }
        let group = builder.launch_group.as_deref().map(cgroup_id).transpose()?.unwrap_or(0);
        let state = builder.state();
        let pins = builder.bpffs.join("ironclad");
        let name = format!("{}{SUFFIX}", builder.instance);
        let seal = SecretStore::new(&state);
        seal.prepare()?;
        let mut presented = None;
        // Whatever version it is of.
        let was_there = std::fs::symlink_metadata(pins.join(&name)).is_ok();
        if was_there {
            presented = seal.read()?;
            presented.iter().try_for_each(Secret::present)?;
        }
        privilege::may_load().map_err(|error| match error {
            SentinelError::Refused { .. } if was_there && presented.is_none() => {
                SentinelError::NoSecret { instance: builder.instance.clone(), state: state.clone() }
            }
            error => error,
        })?;
        let directory = PinDirectory::open(&builder.bpffs, &name)?;
        Ok(Some(Self { directory, pins, state: real(&state)?, seal, group, presented }))
    }
}

fn real(state: &Path) -> Result<PathBuf, BpfError> {
    let step = "looking at the agent's directory";
    std::fs::canonicalize(state).map_err(|source| BpfError::System { step, source })
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

impl Sentinel {
    /// Begins to describe one. The instance's name tells agents on one machine apart.
    pub fn builder(instance: &str) -> SentinelBuilder {
        SentinelBuilder::new(instance)
    }

    pub(crate) fn start(
        builder: SentinelBuilder,
        policy: &CompiledPolicy,
    ) -> Result<Self, SentinelError> {
        builder.trust.only_signed("start_signed")?;
        let (claim, kept) = Self::open(&builder)?;
        Self::start_with(builder, claim, kept, policy)
    }

    #[cfg(feature = "signed")]
    pub(crate) fn start_signed(
        builder: SentinelBuilder,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<Self, SentinelError> {
        // Before the trust store is written to, which no other process may.
        let (claim, kept) = Self::open(&builder)?;
        let trust = builder.trust.clone();
        let taken = trust.take(bundle, signatures, builder.audited())?;
        taken.put(sources, |policy| Self::start_with(builder, claim, kept, policy))
    }

    /// What has to be so before anything is loaded.
    fn open(builder: &SentinelBuilder) -> Result<(Claim, Option<Kept>), SentinelError> {
        let open = || {
            check_instance(&builder.instance)?;
            privilege::check()?;
            let claim = Claim::take()?;
            Ok((claim, Kept::open(builder)?))
        };
        open().inspect_err(|error| refuse(builder.audited(), error))
    }

    fn start_with(
        builder: SentinelBuilder,
        claim: Claim,
        kept: Option<Kept>,
        policy: &CompiledPolicy,
    ) -> Result<Self, SentinelError> {
        let refuse = |error: &SentinelError| refuse(builder.audited(), error);
        // Before what takes much memory.
        let spared = match builder.allows_oom_kill {
            true => None,
            false => Some(
                OomProtection::new().map_err(SentinelError::NoOomProtection).inspect_err(refuse)?,
            ),
        };
        let load = || {
            let pins = match &kept {
                Some(kept) => GuardPins::find(&kept.directory)?,
                None => None,
            };
            let (losses, inherited) = match &pins {
                Some(pins) => (Some(pins.losses()?), Some(pins.inherited()?)),
                None => (None, None),
            };
            let is_adopted = pins.is_some();
            let former = pins.as_ref().map(GuardPins::programs).transpose()?.unwrap_or_default();
            // Before anything is changed; what comes until Sentinel is armed is found then.
            if builder.on_suspect == OnSuspect::Refuse {
                Foreign::take(&former, &builder.bpffs, builder.options.gate)?.refuse()?;
            }
            let processes = Processes::load(losses.as_ref(), inherited)?;
            let guard = Guard::load(&processes, builder.options, pins)?;
            Ok::<_, SentinelError>((processes, guard, is_adopted, former))
        };
        let (processes, guard, is_adopted, former) = load().inspect_err(refuse)?;
        let scratch = Scratch::new(&builder.scratch)?;
        let state = match &kept {
            Some(kept) => Some(kept.state.clone()),
            None if builder.baseline.is_some() => {
                SecretStore::new(&builder.state()).prepare()?;
                Some(real(&builder.state())?)
            }
            None => None,
        };
        let pins = kept.as_ref().map(|kept| kept.pins.as_path());
        let trust_files = trust_files(&builder.trust)?;
        let own = own::paths(&scratch.0, state.as_deref(), pins, trust_files)
            .map_err(|source| BpfError::System { step: "finding the agent's own files", source })?;
        let tables = if is_adopted { Tables::read(&guard)? } else { Tables::default() };
        let baseline = state.zip(builder.baseline);
        let baseline =
            baseline.map(|(state, options)| Baseline::new(&state, &builder.instance, options));
        let mut this = Self {
            watch: None,
            watched: Arc::new(Watched {
                instance: builder.instance,
                audit: builder.audit,
                on_alarm: builder.on_alarm,
                scratch,
                state: Mutex::new(State {
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
                }),
                baseline,
                guard,
                trying: Mutex::new(()),
            }),
            own,
            updaters: builder.updaters,
            may_stop: builder.may_stop,
            group_managers: builder.group_managers,
            processes,
            kept,
            trust: builder.trust,
            _oom_protection: spared,
            _claim: claim,
        };
        for program in this.processes.programs().chain(this.watched.guard.programs()) {
            let info = program.info();
            this.record(&AuditAction::Load {
                program: info.name.clone(),
                tag: info.tag.clone(),
                instructions: info.xlated_len / 8,
            })?;
        }
        for (program, link) in this.watched.guard.programs().iter().zip(this.watched.guard.links())
        {
            this.record(&AuditAction::Attach {
                program: program.info().name.clone(),
                hook: "lsm".to_owned(),
                interface: link.hook().to_owned(),
                mode: String::new(),
            })?;
        }
        this.enforce(Some(policy))?;
        let wrong = this.watched.look()?;
        if !wrong.is_empty() && !builder.degraded {
            return Err(SentinelError::Degraded { what: wrong });
        }
        // From here on, nobody loads another.
        this.watched.guard.arm(true);
        let foreign = Foreign::take(&former, &builder.bpffs, builder.options.gate)?;
        foreign.records().try_for_each(|record| this.record(&record))?;
        if builder.on_suspect == OnSuspect::Refuse {
            foreign.refuse()?;
        }
        this.lock().foreign = foreign;
        // Who opened something until now.
        let before = this.watched.guard.preopened()?;
        this.lock().preopened = before;
        // Nobody but who may changes guarded files any more.
        this.compare()?;
        // Last: what is pinned is in force without this process, too.
        this.keep(builder.launch, is_adopted, policy)?;
        if !builder.watch_every.is_zero() {
            match Watch::start(&this.watched, builder.watch_every) {
                Ok(watch) => this.watch = Some(watch),
                Err(error) => {
                    if !is_adopted {
                        this.remove()?;
                    }
                    return Err(SentinelError::Thread(error));
                }
            }
        }
        Ok(this)
    }

    /// Lets a persistent instance outlive this process, and a successor take over.
    fn keep(
        &mut self,
        launch: Launch,
        is_adopted: bool,
        policy: &CompiledPolicy,
    ) -> Result<(), SentinelError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let launch = match launch {
            Launch::Init => abi::LAUNCH_INIT,
            Launch::Trusted => abi::LAUNCH_TRUSTED,
        };
        self.watched.guard.launch(launch, kept.group);
        // The former one is good until the next is there.
        if let Some(presented) = &kept.presented {
            self.watched.guard.only_restart_secret(presented)?;
        }
        let secret = Secret::new()?;
        self.watched.guard.add_restart_secret(&secret)?;
        if let Err(error) = kept.seal.write(&secret) {
            self.watched.guard.remove_secret(&secret)?;
            return Err(error);
        }
        self.watched.guard.only_restart_secret(&secret)?;
        let path = kept.directory.path();
        if is_adopted {
            let (path, policy) = (path.display().to_string(), policy.id().to_string());
            return self.record(&AuditAction::Adopt { path, policy });
        }
        let (object, path) = ("sentinel".to_owned(), path.display().to_string());
        self.record(&AuditAction::Pin { object, path })?;
        // The thread that shares it is not there yet.
        if let Some(watched) = Arc::get_mut(&mut self.watched) {
            watched.guard.persist(&mut self.processes, &kept.directory)?;
        }
        Ok(())
    }

    fn record(&self, action: &AuditAction) -> Result<(), SentinelError> {
        self.watched.record(action)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.watched.lock()
    }

    /// Puts the file rules of a policy into force, all at once: whoever asks meets the former ones or
    /// these. Who has a file open for writing that they deny to write is refused to write on, and named
    /// by [`status`](Self::status); what is mapped already to be written stays so.
    ///
    /// # Errors
    /// [`SentinelError::Path`] or [`SentinelError::Pattern`] with the rule, [`SentinelError::UnstablePaths`],
    /// [`SentinelError::Bpf`] where the kernel refuses; then the former ones stay.
    /// [`SentinelError::Unsigned`] where signed bundles alone are taken, [`SentinelError::Baseline`] where they are in
    /// force, and the baseline is not of them.
    pub fn apply(&self, policy: &CompiledPolicy) -> Result<(), SentinelError> {
        self.trust.only_signed("apply_signed")?;
        self.put(policy)
    }

    /// Like [`apply`](Self::apply), with the policy of a bundle that is verified, and whose serial is
    /// kept, before.
    ///
    /// # Errors
    /// [`SentinelError::NoTrust`], [`SentinelError::Bundle`] where it is not taken,
    /// [`SentinelError::NotApplied`] with what [`apply`](Self::apply) would say.
    #[cfg(feature = "signed")]
    pub fn apply_signed(
        &self,
        bundle: &[u8],
        signatures: &[&str],
        sources: &mut Sources<'_>,
    ) -> Result<(), SentinelError> {
        let taken = self.trust.take(bundle, signatures, self.watched.audited())?;
        taken.put(sources, |policy| self.put(policy))
    }

    /// Takes a signed token, once, and permits what it says: signals to the agent are let through for
    /// a while, or a persistent instance may be [`stop`](Self::stop)ped for good. It is audited first.
    ///
    /// # Errors
    /// [`SentinelError::NoTrust`], [`SentinelError::Token`] where it is not taken; then nothing is
    /// permitted.
    #[cfg(feature = "signed")]
    pub fn break_glass(&self, token: &[u8], signatures: &[&str]) -> Result<Token, SentinelError> {
        let audit = self.watched.audited();
        let taken = self.trust.lock()?.take_token_audited(token, signatures, audit);
        let token = taken.map_err(SentinelError::Token)?;
        tracing::warn!(
            instance = self.watched.instance,
            "break-glass token {}: {}",
            token.serial,
            token.permits
        );
        match token.permits {
            Permit::Stop { seconds } => self.watched.guard.open_for(Duration::from_secs(seconds)),
            Permit::Uninstall => self.lock().may_uninstall = true,
            // What this version does not know, it does not permit.
            _ => {}
        }
        Ok(token)
    }

    fn put(&self, policy: &CompiledPolicy) -> Result<(), SentinelError> {
        self.enforce(Some(policy))?;
        self.take_over().map(drop)
    }

    /// Looks the paths of the rules in force up anew, and those of the executables that they except:
    /// after an upgrade, whose files are others under the same names. What comes to match a pattern is
    /// covered from here on. Whoever asks meanwhile meets what was covered before, or what is now.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply); a path of a rule that leads to no file by now is one.
    pub fn refresh(&self) -> Result<Refreshed, SentinelError> {
        let (files, executables) = self.enforce(None)?;
        let changes = self.take_over()?;
        Ok(Refreshed { files, executables, changes })
    }

    /// Lets the baseline be of the rules in force.
    fn take_over(&self) -> Result<Vec<FileChange>, SentinelError> {
        let (scopes, policy) = {
            let state = self.lock();
            (state.scopes.clone(), state.policy.id().to_string())
        };
        self.watched.look_at_files(Some((scopes, &policy)))
    }

    /// Says what changed while nobody guarded it, and begins another baseline.
    fn compare(&self) -> Result<(), SentinelError> {
        let Some(baseline) = &self.watched.baseline else { return Ok(()) };
        let (scopes, policy) = {
            let state = self.lock();
            (state.scopes.clone(), state.policy.id().to_string())
        };
        let (report, records) =
            baseline.begin(scopes, &policy).map_err(|source| baseline.failed(source))?;
        records.iter().try_for_each(|record| self.record(record))?;
        let written =
            baseline.write(report.changes.len()).map_err(|source| baseline.failed(source))?;
        written.iter().try_for_each(|record| self.record(record))?;
        self.lock().baseline = Some(report);
        Ok(())
    }

    /// What changed of the files that rules name while Sentinel was away; none without a
    /// [baseline](SentinelBuilder::baseline).
    pub fn baseline(&self) -> Option<BaselineReport> {
        self.lock().baseline.clone()
    }

    /// The policy, or the one in force anew; then nothing is written where its paths lead where they led.
    /// Returns how many files and executables are known that were not before.
    fn enforce(&self, policy: Option<&CompiledPolicy>) -> Result<(usize, usize), SentinelError> {
        let mut state = self.lock();
        let state = &mut *state;
        let is_same = policy.is_none();
        let policy = policy.unwrap_or(&state.policy).clone();
        let provenance = Some(policy.provenance());
        if !is_same && state.provenance != provenance {
            warn_unsigned(&self.watched.instance, &*self.watched.audit, &policy)?;
        }
        let files = policy.files();
        self.refuse_no_programs(files)?;
        let is_first = state.in_force.is_none();
        let in_kernel = own::with_own(files.map(|files| files.policy()));
        let resolve = || {
            let mut coverage = resolve(files, &self.own, &self.processes)?;
            for (path, rules, may) in self.exemptions() {
                let found = self.processes.identify(&[path])?;
                // One that is not there is nobody yet, and told of.
                if let Some(id) = found.first().copied().flatten() {
                    let exemptions = coverage.exemptions.entry(id).or_default();
                    exemptions.0 |= rules;
                    exemptions.1 |= may;
                }
            }
            disks::cover(&mut coverage, &self.processes)?;
            Ok::<_, SentinelError>(coverage)
        };
        let former = state.in_force.as_ref().map(|(coverage, _)| coverage.clone());
        let former = former.unwrap_or_default();
        if is_same && resolve()? == former {
            return Ok((0, 0));
        }
        let mut settle = || {
            let mut coverage = resolve()?;
            for _ in 0..LOOKS {
                state.tables.put(&self.watched.guard, &coverage, in_kernel)?;
                // What was moved while it was being looked up is seen now, when it stays.
                let again = resolve()?;
                if again == coverage {
                    state.preopened = self.watched.guard.preopened()?;
                    return Ok(coverage);
                }
                coverage = again;
            }
            Err(SentinelError::UnstablePaths)
        };
        let coverage = settle().inspect_err(|_| {
            // What was in force comes back; of a first policy, nothing was.
            if let Some((coverage, in_kernel)) = state.in_force.take() {
                let put = state.tables.put(&self.watched.guard, &coverage, in_kernel);
                if let Err(error) = put {
                    tracing::error!(%error, "the former file rules did not come back");
                }
                state.in_force = Some((coverage, in_kernel));
            }
        })?;
        let files_new = coverage.files.keys().filter(|id| !former.files.contains_key(id)).count();
        let is_known = |id: &&FileId| !former.exemptions.contains_key(id);
        let executables_new = coverage.exemptions.keys().filter(is_known).count();
        state.in_force = Some((coverage, in_kernel));
        if !is_same {
            state.provenance = provenance;
        }
        state.policy = policy.clone();
        state.scopes = scopes(files)?;
        let rules = files.map(|files| files.rules().to_vec()).unwrap_or_default();
        let instance = &self.watched.instance;
        if rules.is_empty() && is_first {
            tracing::warn!(
                instance,
                "the policy has no file rules: Sentinel guards the agent alone"
            );
        } else if rules.is_empty() && !state.rules.is_empty() {
            tracing::warn!(
                instance,
                "a policy without file rules takes the place of one with {}: Sentinel guards the agent alone",
                state.rules.len()
            );
        }
        state.rules = rules;
        state.missing = resolve::missing(files);
        state.missing.extend(self.missing_executables());
        if !is_same {
            let absent = resolve::absent(files);
            absent.iter().chain(&state.missing).for_each(|it| tracing::warn!(instance, "{it}"));
        }
        self.record(&AuditAction::Swap {
            generation: self.watched.guard.epoch(),
            policy: policy.id().to_string(),
            provisional_ms: None,
        })?;
        Ok((files_new, executables_new))
    }

    /// Executables that Sentinel's own rules do not bind, from which, and what they may.
    fn exemptions(&self) -> impl Iterator<Item = (&Path, u64, u32)> {
        let updaters = self.updaters.iter().map(|path| (path.as_path(), own::UPDATED, 0));
        let stop = abi::MAY_KILL | abi::MAY_GROUP;
        let stoppers = self.may_stop.iter().map(move |path| (path.as_path(), own::MANAGED, stop));
        let managers = self.group_managers.iter();
        let managers = managers.map(|path| (path.as_path(), own::MANAGED, abi::MAY_GROUP));
        let executors = own::EXECUTORS.iter().map(|path| (Path::new(path), 0, abi::MAY_MANAGE));
        updaters.chain(stoppers).chain(managers).chain(executors)
    }

    /// Executables that the builder was given, and by which method.
    fn named(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let lists = [
            ("`.updater(…)`", &self.updaters),
            ("`.may_stop(…)`", &self.may_stop),
            ("`.group_manager(…)`", &self.group_managers),
        ];
        lists.into_iter().flat_map(|(by, paths)| paths.iter().map(move |path| (by, path)))
    }

    fn missing_executables(&self) -> impl Iterator<Item = Missing> {
        self.named().filter(|(_, path)| !path.is_file()).map(|(by, path)| Missing {
            path: path.clone(),
            by: by.to_owned(),
            kind: MissingKind::Executable,
        })
    }

    /// Whoever is named by a script or a directory is nobody.
    fn refuse_no_programs(&self, files: Option<&CompiledFiles>) -> Result<(), SentinelError> {
        let rules = files.iter().flat_map(|files| files.rules());
        let exemptions = rules.flat_map(|rule| rule.except.iter().map(move |path| (rule, path)));
        for (rule, path) in exemptions {
            refuse_no_program(|| resolve::described(rule), path)?;
        }
        self.named().try_for_each(|(by, path)| refuse_no_program(|| by.to_owned(), path))
    }

    /// What it is and does; each hook is tried anew.
    ///
    /// # Errors
    /// [`SentinelError::Bpf`] where the kernel refuses.
    pub fn status(&self) -> Result<Status, SentinelError> {
        self.watched.look()?;
        let volumes = volumes::of(&self.lock().scopes).map_err(|source| {
            let step = "reading /proc/self/mountinfo";
            BpfError::System { step, source }
        })?;
        let kernel = KernelStatus::look();
        let now = self.lock();
        let attached = self.watched.guard.links().iter().map(|link| {
            let name = link.hook().to_owned();
            let canary = now.canaries.iter().find(|it| it.hook.name() == name);
            let state = match canary.map(|it| it.silent.clone()) {
                None => HookState::Attached,
                Some(None) => HookState::InForce,
                Some(Some(why)) => HookState::Silent(why),
            };
            let answered = canary.and_then(|it| now.answered.get(&it.hook)).copied();
            HookStatus { name, state, answered_ns: answered }
        });
        let missing = self.watched.guard.missing().iter().map(|it| HookStatus {
            name: it.hook.clone(),
            state: HookState::Missing { is_optional: it.is_optional },
            answered_ns: None,
        });
        let unwatched = now.unwatched.iter().map(|why| Degraded::Watch { why: why.clone() });
        let mut nowhere = resolve::absent(now.policy.files());
        nowhere.extend_from_slice(&now.missing);
        let mut status = Status {
            instance: self.watched.instance.clone(),
            degraded: unwatched.collect(),
            kernel,
            is_armed: self.watched.guard.is_armed(),
            hooks: attached.chain(missing).collect(),
            policy: now.policy.id().to_string(),
            provenance: now.provenance.unwrap_or(Provenance::Unsigned),
            open_for: self.watched.guard.is_open_for(),
            labels: now.tables.labels(),
            volumes,
            baseline: now.baseline.clone(),
            missing: nowhere,
            preopened: now.preopened.clone(),
            foreign: now.foreign.clone(),
            alarms_lost: self.watched.guard.alarms_lost(),
        };
        status.find_degraded();
        Ok(status)
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
                .inspect_err(|error| tracing::error!(%error, "no more alarms"))
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
        refuse_no_program(|| "`admit`".to_owned(), exe)?;
        let found = self.processes.identify(&[exe])?;
        let id = found.first().copied().flatten().filter(|id| *id != FileId::NONE);
        let id = id.ok_or_else(|| {
            let source = std::io::Error::other(format!("{}: no such file", exe.display()));
            BpfError::System { step: "admitting a process", source }
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

    /// Disarms for good: others are refused nothing any more, and what was pinned is removed. This is
    /// how a persistent instance is uninstalled.
    ///
    /// # Errors
    /// [`SentinelError::Audit`] where the record was refused; then it is armed still.
    /// [`SentinelError::Bpf`] where bpffs refuses. `NotPermitted` of a persistent instance that takes
    /// signed bundles alone, unless a break-glass token permits it: then it is as if dropped, and all
    /// is refused to others still.
    pub fn stop(mut self) -> Result<(), SentinelError> {
        #[cfg(feature = "signed")]
        if self.kept.is_some() && self.trust.is_given() && !self.lock().may_uninstall {
            let error = SentinelError::NotPermitted;
            refuse(self.watched.audited(), &error);
            return Err(error);
        }
        self.watch.iter_mut().for_each(Watch::end);
        if let Err(error) = self.watched.look_at_files(None) {
            tracing::error!(%error, "the baseline of guarded files is older than they are");
        }
        for link in self.watched.guard.links() {
            let hook = "lsm".to_owned();
            self.record(&AuditAction::Detach { hook, interface: link.hook().to_owned() })?;
        }
        self.remove()
    }

    /// Lets go of everything, what is pinned too.
    fn remove(self) -> Result<(), SentinelError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        self.record(&AuditAction::Unpin { path: kept.directory.path().display().to_string() })?;
        let Self { watch, watched, processes, kept, .. } = self;
        drop(watch);
        let Watched { guard, .. } = Arc::into_inner(watched).ok_or_else(|| {
            let why = "a callback of `on_alarm` may not stop Sentinel: do it from another thread";
            SentinelError::Thread(std::io::Error::other(why))
        })?;
        if let Some(kept) = kept {
            guard.unpin(processes, &kept.directory)?;
            kept.seal.forget();
        }
        Ok(())
    }
}

fn refuse_no_program(by: impl FnOnce() -> String, path: &Path) -> Result<(), SentinelError> {
    if path.is_dir() {
        let what = "is a directory, which nobody executes: name the executables in it".to_owned();
        return Err(SentinelError::Path { rule: by(), path: path.to_owned(), what });
    }
    match interpreter(path) {
        Some(interpreter) => {
            Err(SentinelError::Script { by: by(), path: path.to_owned(), interpreter })
        }
        None => Ok(()),
    }
}

/// It is part of paths.
fn check_instance(name: &str) -> Result<(), SentinelError> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    match (1..=INSTANCE_MAX).contains(&name.len()) && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(SentinelError::Instance { name: name.to_owned() }),
    }
}

/// Leaves a record of a start, or an end, that was refused.
fn refuse((instance, audit): (&str, &dyn AuditSink), error: &SentinelError) {
    let program = "sentinel".to_owned();
    let refuse = AuditAction::Refuse { program, reason: error.to_string() };
    if let Err(error) = audit.record(instance, &refuse) {
        tracing::error!(%error, "no audit record of a refusal");
    }
}

/// The files of the trust store, without symbolic links on the way.
fn trust_files(trust: &Trust) -> Result<Vec<PathBuf>, SentinelError> {
    let real = |path: &PathBuf| {
        let wrong = |what| SentinelError::Path {
            rule: "the trust store".to_owned(),
            path: path.clone(),
            what,
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = std::fs::canonicalize(dir.unwrap_or(Path::new(".")));
        let dir = dir.map_err(|e| wrong(format!("lies in a directory that is not there: {e}")))?;
        match (volumes::unfit(&dir), path.file_name()) {
            (Some(why), _) => Err(wrong(why)),
            (None, Some(name)) => Ok(dir.join(name)),
            (None, None) => Err(wrong("is no path of a file".to_owned())),
        }
    };
    trust.files.iter().map(real).collect()
}

impl std::fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sentinel").field("instance", &self.watched.instance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_a_name_that_is_no_path() {
        let longest = "x".repeat(INSTANCE_MAX);
        for good in ["a", "web-1", "_tmp", &longest] {
            check_instance(good).unwrap();
        }
        let longer = "x".repeat(INSTANCE_MAX + 1);
        for bad in ["", ".", "..", "a/b", "../../srv/evil", "a b", "ä", &longer] {
            let said = check_instance(bad).unwrap_err().to_string();
            assert!(said.contains(&format!("`{bad}` is no name")), "{said}");
            assert!(said.contains(&format!("1 to {INSTANCE_MAX} letters")), "{said}");
        }
        // Before anything is looked at or made.
        let policy = ironclad_policy::Policy::builder().compile().unwrap();
        let error = Sentinel::builder("").start(&policy).unwrap_err();
        assert!(matches!(error, SentinelError::Instance { .. }), "{error}");
    }
}
