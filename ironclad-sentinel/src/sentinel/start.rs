use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::{Guard, GuardPins};
use ironclad_bpf::socket::Processes;
use ironclad_core::InstanceName;
use ironclad_core::audit::AuditAction;
use ironclad_policy::trust::UnsignedWarning;
use ironclad_policy::{CompiledPolicy, PolicySource};

use super::persistent::{Persistent, real};
use super::policy::refuse_unenforced;
use super::{Scratch, Sentinel, State};
use crate::baseline::Baseline;
use crate::builder::SentinelBuilder;
use crate::error::{Failure, SentinelError};
use crate::inventory::{Foreign, OnSuspect};
use crate::oom::OomProtection;
use crate::own;
use crate::privilege::{self, Claim};
use crate::resolve;
use crate::secret_store::SecretStore;
use crate::tables::Tables;
use crate::volumes;
use crate::watch::{Watch, Watched};

/// The name in audit records of a start or a stop that is refused.
pub(super) const PROGRAM: &str = "sentinel";

impl Sentinel {
    pub(crate) fn start(
        builder: SentinelBuilder,
        policy: PolicySource<'_>,
    ) -> Result<Self, SentinelError> {
        builder.trust.check(&policy)?;
        // Before the trust store is written: only a trusted process may write it.
        let (claim, persistent) = Self::open(&builder)?;
        let (trust, audit) = (builder.trust.clone(), builder.audit_log());
        trust.resolve(policy, &audit, |policy| Self::start_with(builder, claim, persistent, policy))
    }

    /// Checks everything that can be checked before programs are loaded.
    fn open(builder: &SentinelBuilder) -> Result<(Claim, Option<Persistent>), SentinelError> {
        let open = || {
            InstanceName::new(builder.instance.as_str()).map_err(Failure::Instance)?;
            privilege::check()?;
            if !builder.dangerous.terminal {
                privilege::leave_terminal()?;
            }
            if !builder.dangerous.terminal_descriptors {
                privilege::check_descriptors()?;
            }
            let claim = Claim::take()?;
            Ok((claim, Persistent::open(builder)?))
        };
        builder.audit_log().refused(PROGRAM, open())
    }

    /// Checks of a policy and of paths what can be checked before programs are loaded: that takes seconds.
    fn check_policy(
        builder: &SentinelBuilder,
        policy: &CompiledPolicy,
    ) -> Result<(), SentinelError> {
        refuse_unenforced(policy, &builder.unenforced)?;
        builder.executables.check(policy.files())?;
        resolve::check(policy.files())
    }

    fn start_with(
        builder: SentinelBuilder,
        claim: Claim,
        persistent: Option<Persistent>,
        policy: &CompiledPolicy,
    ) -> Result<Self, SentinelError> {
        let audit = builder.audit_log();
        audit.refused(PROGRAM, Self::check_policy(&builder, policy))?;
        // Before maps and programs use memory.
        let oom_protection = match builder.dangerous.oom_kill {
            true => None,
            false => {
                let protection = OomProtection::new().map_err(Failure::NoOomProtection);
                Some(audit.refused(PROGRAM, protection.map_err(SentinelError::from))?)
            }
        };
        if let Err(error) = own::keep_code_in_memory() {
            tracing::warn!(
                %error,
                "the agent's code may leave memory, and the agent ends where its disk is gone then: give it CAP_IPC_LOCK"
            );
        }
        let loaded = audit.refused(PROGRAM, Loaded::new(&builder, persistent.as_ref()))?;
        let (is_adopted, former) = (loaded.is_adopted, loaded.former.clone());
        let mut this = Self::assemble(&builder, loaded, persistent, oom_protection, claim, policy)?;
        this.record_programs()?;
        this.enforce(Some(policy))?;
        let wrong = this.watched.test_hooks()?;
        if !wrong.is_empty() && !builder.dangerous.degraded {
            return Err(Failure::Degraded { what: wrong }.into());
        }
        this.arm(&builder, &former)?;
        // From here on, only trusted and exempt processes change protected files.
        this.begin_baseline()?;
        // Last: pinned hooks refuse also without this process.
        this.persist(builder.launch, is_adopted, policy)?;
        this.start_watch(builder.watch_every, is_adopted)
    }

    /// The handle, before a policy is applied.
    fn assemble(
        builder: &SentinelBuilder,
        loaded: Loaded,
        persistent: Option<Persistent>,
        oom_protection: Option<OomProtection>,
        claim: Claim,
        policy: &CompiledPolicy,
    ) -> Result<Self, SentinelError> {
        let Loaded { processes, guard, is_adopted, .. } = loaded;
        let scratch = Scratch::new()?;
        let state = match &persistent {
            Some(persistent) => Some(persistent.state.clone()),
            None if builder.baseline.is_some() => {
                SecretStore::new(&builder.state()).prepare()?;
                Some(real(&builder.state())?)
            }
            None => None,
        };
        let pins = persistent.as_ref().map(|persistent| persistent.pins.as_path());
        let trust_files = real_files(&builder.trust_files)?;
        let locked = locked_file(builder);
        let mut executables = builder.executables.clone();
        executables.executors = own::executors();
        let executors = &executables.executors;
        let own = own::paths(state.as_deref(), pins, trust_files, locked, executors)
            .map_err(|source| BpfError::system("finding the agent's own files", source))?;
        let tables = if is_adopted { Tables::read(&guard)? } else { Tables::default() };
        let baseline = state.zip(builder.baseline.clone());
        let baseline =
            baseline.map(|(state, options)| Baseline::new(&state, &builder.instance, options));
        let watched = Watched {
            audit: builder.audit_log(),
            unsigned: UnsignedWarning::default(),
            on_alarm: builder.on_alarm.clone(),
            scratch,
            state: Mutex::new(State::new(tables, policy)),
            baseline,
            guard,
            testing: Mutex::new(()),
        };
        Ok(Self {
            watch: None,
            watched: Arc::new(watched),
            own,
            executables,
            applying: Mutex::new(()),
            processes,
            persistent,
            trust: builder.trust.clone(),
            unenforced: builder.unenforced.clone(),
            _oom_protection: oom_protection,
            _claim: claim,
        })
    }

    fn record_programs(&self) -> Result<(), SentinelError> {
        let guard = &self.watched.guard;
        for program in self.processes.programs().chain(guard.programs()) {
            let info = program.info();
            self.record(&AuditAction::Load {
                program: info.name.clone(),
                tag: info.tag.clone(),
                instructions: info.xlated_len / 8,
            })?;
        }
        for (program, link) in guard.programs().iter().zip(guard.links()) {
            self.record(&AuditAction::Attach {
                program: program.info().name.clone(),
                hook: "lsm".to_owned(),
                interface: link.hook().to_owned(),
                mode: String::new(),
            })?;
        }
        Ok(())
    }

    /// Arms the hooks, and lists foreign programs and pre-opened descriptors. `former` has the ids of programs of the
    /// earlier agent.
    fn arm(&self, builder: &SentinelBuilder, former: &BTreeSet<u32>) -> Result<(), SentinelError> {
        privilege::release_cad_pid()?;
        // From here on, no other process traces them, or loads a program.
        self.watched.guard.arm(true);
        privilege::check_cad_pid()?;
        privilege::check_tracers()?;
        let foreign = Foreign::list(former, &builder.bpffs, &builder.options)?;
        foreign.records().try_for_each(|record| self.record(&record))?;
        if builder.on_suspect == OnSuspect::Refuse {
            foreign.refuse()?;
        }
        self.lock().foreign = foreign;
        self.watched.find_preopened()
    }

    fn start_watch(mut self, every: Duration, is_adopted: bool) -> Result<Self, SentinelError> {
        if every.is_zero() {
            return Ok(self);
        }
        match Watch::start(&self.watched, every) {
            Ok(watch) => self.watch = Some(watch),
            Err(error) => {
                if !is_adopted {
                    self.remove()?;
                }
                return Err(error);
            }
        }
        Ok(self)
    }
}

/// Attached programs, not armed yet.
struct Loaded {
    processes: Processes,
    guard: Guard,
    /// Whether an earlier agent had pinned them.
    is_adopted: bool,
    /// The kernel's ids of the earlier agent's programs.
    former: BTreeSet<u32>,
}

impl Loaded {
    fn new(
        builder: &SentinelBuilder,
        persistent: Option<&Persistent>,
    ) -> Result<Self, SentinelError> {
        let pins = match persistent {
            Some(persistent) => GuardPins::find(&persistent.directory)?,
            None => None,
        };
        let (losses, inherited) = match &pins {
            Some(pins) => (Some(pins.losses()?), Some(pins.inherited()?)),
            None => (None, None),
        };
        let is_adopted = pins.is_some();
        let former = pins.as_ref().map(GuardPins::programs).transpose()?.unwrap_or_default();
        // Before anything is changed. Programs that are loaded until Sentinel is armed are found then.
        if builder.on_suspect == OnSuspect::Refuse {
            Foreign::list(&former, &builder.bpffs, &builder.options)?.refuse()?;
        }
        let processes = Processes::load(losses.as_ref(), inherited)?;
        let guard = Guard::load(&processes, builder.options, pins)?;
        Ok(Self { processes, guard, is_adopted, former })
    }
}

/// The files of the trust store, without symbolic links in their directories.
fn real_files(files: &[PathBuf]) -> Result<Vec<PathBuf>, SentinelError> {
    let real = |path: &PathBuf| {
        let wrong = |what| {
            let (rule, path) = ("the trust store".to_owned(), path.clone());
            SentinelError::from(Failure::Path { rule, path, what })
        };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = std::fs::canonicalize(dir.unwrap_or(Path::new(".")));
        let dir = dir.map_err(|e| wrong(format!("is in a directory that does not exist: {e}")))?;
        match (volumes::unsupported(&dir), path.file_name()) {
            (Some(why), _) => Err(wrong(why)),
            (None, Some(name)) => Ok(dir.join(name)),
            (None, None) => Err(wrong("is no path of a file".to_owned())),
        }
    };
    files.iter().map(real).collect()
}

/// The file that the audit sink locks. None on a file system whose files cannot be covered.
fn locked_file(builder: &SentinelBuilder) -> Option<PathBuf> {
    let path = builder.audit.locked_file()?;
    let real = std::fs::canonicalize(path).map_err(|e| e.to_string());
    let real = real.and_then(|path| volumes::unsupported(&path).map_or(Ok(path), Err));
    real.inspect_err(|why| {
        let (instance, path) = (&*builder.instance, path.display());
        tracing::warn!(instance, "other processes may lock the audit file {path}: {why}");
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SentinelErrorKind;

    #[test]
    fn an_instance_name_is_one_path_component() {
        let policy = ironclad_policy::Policy::builder().compile().unwrap();
        let longer = "x".repeat(InstanceName::MAX + 1);
        // Before anything is checked or created.
        for bad in ["", ".", "..", "a/b", "../x", "../../srv/evil", "a b", "ä", &longer] {
            let error = Sentinel::builder(bad).start(&policy).unwrap_err();
            assert_eq!(error.kind(), SentinelErrorKind::Instance, "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("`{bad}` is no name")), "{text}");
            assert!(text.contains("1 to 55 letters"), "{text}");
        }
    }
}
