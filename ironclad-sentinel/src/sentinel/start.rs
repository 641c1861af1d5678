use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_bpf::sentinel::{Guard, GuardPins};
use ironclad_bpf::socket::Processes;
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;

use super::persistent::{Kept, SUFFIX, real};
use super::stop::refuse;
use super::{Scratch, Sentinel, State};
use crate::baseline::Baseline;
use crate::builder::SentinelBuilder;
use crate::error::SentinelError;
use crate::inventory::{Foreign, OnSuspect};
use crate::oom::OomProtection;
use crate::own;
use crate::privilege::{self, Claim};
use crate::seal::SecretStore;
use crate::tables::Tables;
use crate::trust::Trust;
use crate::volumes;
use crate::watch::{Watch, Watched};

/// Bytes of an instance's name: with what is added to it, it is the name of a directory of pins.
const INSTANCE_MAX: usize = 64 - SUFFIX.len();

impl Sentinel {
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
        let oom_protection = match builder.dangerous.oom_kill {
            true => None,
            false => Some(
                OomProtection::new().map_err(SentinelError::NoOomProtection).inspect_err(refuse)?,
            ),
        };
        let loaded = Loaded::new(&builder, kept.as_ref()).inspect_err(refuse)?;
        let (is_adopted, former) = (loaded.is_adopted, loaded.former.clone());
        let mut this = Self::assemble(&builder, loaded, kept, oom_protection, claim, policy)?;
        this.record_programs()?;
        this.enforce(Some(policy))?;
        let wrong = this.watched.look()?;
        if !wrong.is_empty() && !builder.dangerous.degraded {
            return Err(SentinelError::Degraded { what: wrong });
        }
        this.arm(&builder, &former)?;
        // Nobody but who may changes guarded files any more.
        this.compare()?;
        // Last: what is pinned is in force without this process, too.
        this.keep(builder.launch, is_adopted, policy)?;
        this.start_watch(builder.watch_every, is_adopted)
    }

    /// The handle, with programs attached and without a policy.
    fn assemble(
        builder: &SentinelBuilder,
        loaded: Loaded,
        kept: Option<Kept>,
        oom_protection: Option<OomProtection>,
        claim: Claim,
        policy: &CompiledPolicy,
    ) -> Result<Self, SentinelError> {
        let Loaded { processes, guard, is_adopted, .. } = loaded;
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
            .map_err(|source| BpfError::system("finding the agent's own files", source))?;
        let tables = if is_adopted { Tables::read(&guard)? } else { Tables::default() };
        let baseline = state.zip(builder.baseline.clone());
        let baseline =
            baseline.map(|(state, options)| Baseline::new(&state, &builder.instance, options));
        let watched = Watched {
            instance: builder.instance.clone(),
            audit: Arc::clone(&builder.audit),
            on_alarm: builder.on_alarm.clone(),
            scratch,
            state: Mutex::new(State::new(tables, policy)),
            baseline,
            guard,
            trying: Mutex::new(()),
        };
        Ok(Self {
            watch: None,
            watched: Arc::new(watched),
            own,
            updaters: builder.updaters.clone(),
            may_stop: builder.may_stop.clone(),
            group_managers: builder.group_managers.clone(),
            processes,
            kept,
            trust: builder.trust.clone(),
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

    /// Lets hooks refuse, and lists what was loaded and opened until then. `former` are programs of the agent before.
    fn arm(&self, builder: &SentinelBuilder, former: &BTreeSet<u32>) -> Result<(), SentinelError> {
        // From here on, nobody loads another.
        self.watched.guard.arm(true);
        let foreign = Foreign::take(former, &builder.bpffs, builder.options.gate)?;
        foreign.records().try_for_each(|record| self.record(&record))?;
        if builder.on_suspect == OnSuspect::Refuse {
            foreign.refuse()?;
        }
        self.lock().foreign = foreign;
        // Who opened something until now.
        let before = self.watched.guard.preopened()?;
        self.lock().preopened = before;
        Ok(())
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
                return Err(SentinelError::Thread(error));
            }
        }
        Ok(self)
    }
}

/// The programs, attached, that refuse nothing yet.
struct Loaded {
    processes: Processes,
    guard: Guard,
    /// Whether an earlier agent had pinned them.
    is_adopted: bool,
    /// The kernel's ids of the earlier agent's programs.
    former: BTreeSet<u32>,
}

impl Loaded {
    fn new(builder: &SentinelBuilder, kept: Option<&Kept>) -> Result<Self, SentinelError> {
        let pins = match kept {
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
        Ok(Self { processes, guard, is_adopted, former })
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
