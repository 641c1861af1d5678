use ironclad_core::ErrorChain;
use ironclad_core::abi::{FileId, FilePolicy};
use ironclad_core::audit::AuditAction;
use ironclad_policy::CompiledPolicy;
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;
use ironclad_policy::file::CompiledFiles;
use serde::Serialize;

use super::{Sentinel, State};
use crate::baseline::{BaselineReport, FileChange};
use crate::disks;
use crate::error::SentinelError;
use crate::own;
use crate::resolve::{self, Coverage, resolve, scopes};
use crate::trust::warn_unsigned;

/// How often paths are looked up until they lead twice to the same files.
const LOOKS: usize = 5;

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

impl Sentinel {
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
    pub(super) fn compare(&self) -> Result<(), SentinelError> {
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
    pub(super) fn enforce(
        &self,
        policy: Option<&CompiledPolicy>,
    ) -> Result<(usize, usize), SentinelError> {
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
        let former = state.in_force.as_ref().map(|(coverage, _)| coverage.clone());
        let former = former.unwrap_or_default();
        if is_same && self.resolve(files)? == former {
            return Ok((0, 0));
        }
        let in_kernel = own::with_own(files.map(|files| files.policy()));
        let coverage = self.fill(state, files, in_kernel)?;
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

    /// What rules, the builder and Sentinel itself cover now.
    fn resolve(&self, files: Option<&CompiledFiles>) -> Result<Coverage, SentinelError> {
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
        Ok(coverage)
    }

    /// Fills the kernel's tables until they agree with what paths lead to. If that fails, what was in force comes back;
    /// of a first policy, nothing was.
    fn fill(
        &self,
        state: &mut State,
        files: Option<&CompiledFiles>,
        in_kernel: FilePolicy,
    ) -> Result<Coverage, SentinelError> {
        let mut fill = || {
            let mut coverage = self.resolve(files)?;
            for _ in 0..LOOKS {
                state.tables.put(&self.watched.guard, &coverage, in_kernel)?;
                // What was moved while it was being looked up is seen now, when it stays.
                let again = self.resolve(files)?;
                if again == coverage {
                    state.preopened = self.watched.guard.preopened()?;
                    return Ok(coverage);
                }
                coverage = again;
            }
            Err(SentinelError::UnstablePaths)
        };
        fill().inspect_err(|_| {
            if let Some((coverage, in_kernel)) = state.in_force.take() {
                let put = state.tables.put(&self.watched.guard, &coverage, in_kernel);
                if let Err(error) = put {
                    tracing::error!(error = %ErrorChain::new(&error), "the former file rules did not come back");
                }
                state.in_force = Some((coverage, in_kernel));
            }
        })
    }
}
