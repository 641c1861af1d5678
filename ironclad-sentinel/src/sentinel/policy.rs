use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use ironclad_core::ErrorChain;
use ironclad_core::abi::{self, FileId, FilePolicy};
use ironclad_core::audit::AuditAction;
use ironclad_policy::file::CompiledFiles;
use ironclad_policy::{CompiledPolicy, PolicyPart, PolicySource};
use serde::Serialize;

use super::{Sentinel, State};
use crate::backing;
use crate::baseline::{BaselineReport, FileChange};
use crate::error::{Failure, SentinelError};
use crate::own;
use crate::preopened::Preopened;
use crate::resolve::{self, Coverage, resolve, scopes};
use crate::secret_store;
use crate::volumes::KnownMounts;

/// How often paths are resolved until two passes find the same files.
const PASSES: usize = 5;

/// What [`Sentinel::refresh`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Refreshed {
    /// Newly labelled files and directories, path components included.
    pub files: usize,
    /// Newly exempt executables.
    pub executables: usize,
    /// Files that changed since the last comparison, if there is a [baseline](crate::SentinelBuilder::baseline).
    pub changes: Vec<FileChange>,
}

/// Refuses a policy of which a part would be ignored.
pub(super) fn refuse_unenforced(
    policy: &CompiledPolicy,
    unenforced: &[PolicyPart],
) -> Result<(), SentinelError> {
    let elsewhere = [PolicyPart::Packets, PolicyPart::Sockets];
    match elsewhere.into_iter().find(|part| policy.has_part(*part) && !unenforced.contains(part)) {
        Some(part) => Err(Failure::Unenforced { part }.into()),
        None => Ok(()),
    }
}

impl Sentinel {
    /// Applies the file rules of a policy: a compiled policy or, by [`PolicySource::signed`], a signed bundle.
    /// Concurrent accesses see either the old or the new rules.
    ///
    /// A write by a pre-opened descriptor of a file that the rules deny to write fails from now on, and
    /// [`status`](Self::status) lists such descriptors. A writable mapping that exists already stays
    /// writable.
    ///
    /// # Errors
    /// `SentinelErrorKind::Path` or `SentinelErrorKind::Pattern` with the rule, `SentinelErrorKind::UnstablePaths`,
    /// `SentinelErrorKind::Bpf` where the kernel refuses, `SentinelErrorKind::Unenforced` where the policy has a part
    /// that Sentinel does not enforce: the old rules stay in force.
    /// `SentinelErrorKind::Unsigned` where only signed bundles are accepted, `SentinelErrorKind::Bundle` where a
    /// bundle is refused, and `SentinelErrorKind::NotApplied` where its policy is. `SentinelErrorKind::Baseline`
    /// where the rules are in force and the baseline could not be written.
    pub fn apply<'a>(&self, policy: impl Into<PolicySource<'a>>) -> Result<(), SentinelError> {
        self.trust.resolve(policy.into(), &self.watched.audit, |policy| self.apply_accepted(policy))
    }

    fn apply_accepted(&self, policy: &CompiledPolicy) -> Result<(), SentinelError> {
        refuse_unenforced(policy, &self.unenforced)?;
        self.enforce(Some(policy))?;
        self.compare_files().map(drop)
    }

    /// Resolves the paths of rules and exempt executables again: after an upgrade that has replaced files.
    /// Files that match a pattern now are covered. Concurrent accesses see either the old or the new rules.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply); one is a path of a rule that no longer exists.
    pub fn refresh(&self) -> Result<Refreshed, SentinelError> {
        let (files, executables) = self.enforce(None)?;
        let changes = self.compare_files()?;
        Ok(Refreshed { files, executables, changes })
    }

    /// Updates the baseline to the files of the rules in force.
    fn compare_files(&self) -> Result<Vec<FileChange>, SentinelError> {
        let (scopes, policy) = {
            let state = self.lock();
            (state.scopes.clone(), state.policy.id().to_string())
        };
        self.watched.compare_files(Some((scopes, &policy)))
    }

    /// Compares protected files with the baseline of the earlier agent, and writes a new baseline.
    pub(super) fn begin_baseline(&self) -> Result<(), SentinelError> {
        let Some(baseline) = &self.watched.baseline else { return Ok(()) };
        let (scopes, policy) = {
            let state = self.lock();
            (state.scopes.clone(), state.policy.id().to_string())
        };
        let (mut report, records) =
            baseline.begin(scopes, &policy).map_err(|source| baseline.failed(source))?;
        records.iter().try_for_each(|record| self.record(record))?;
        match baseline.write(report.changes.len()) {
            Ok(written) => written.iter().try_for_each(|record| self.record(record))?,
            // Any process may use up the room of a file system: that keeps no agent from starting.
            Err(error) if secret_store::is_full(&error) => {
                report.unwritten = Some(ErrorChain::new(&baseline.failed(error)).to_string());
            }
            Err(error) => return Err(baseline.failed(error)),
        }
        self.lock().baseline = Some(report);
        Ok(())
    }

    /// Protected files that changed while Sentinel was stopped. None without a
    /// [baseline](crate::SentinelBuilder::baseline).
    pub fn baseline(&self) -> Option<BaselineReport> {
        self.lock().baseline.clone()
    }

    /// Applies a policy, or the one in force again: then nothing is written if its paths resolve as before.
    /// Returns the numbers of newly labelled files and newly exempt executables.
    pub(super) fn enforce(
        &self,
        policy: Option<&CompiledPolicy>,
    ) -> Result<(usize, usize), SentinelError> {
        let alone = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(policy) = policy {
            self.watched.unsigned.check(policy, &self.watched.audit)?;
        }
        let Some(new) = self.enforce_alone(policy)? else { return Ok((0, 0)) };
        let policy = self.lock().policy.id().to_string();
        let generation = self.watched.guard.epoch();
        // Nothing is locked: the sink may wait, and alarms may not, whose callback may apply a policy.
        drop(alone);
        self.record(&AuditAction::Swap { generation, policy, provisional_ms: None })?;
        Ok(new)
    }

    /// The same without the record of it. None where nothing was written.
    fn enforce_alone(
        &self,
        policy: Option<&CompiledPolicy>,
    ) -> Result<Option<(usize, usize)>, SentinelError> {
        let mut state = self.lock();
        let state = &mut *state;
        let is_same = policy.is_none();
        let policy = policy.unwrap_or(&state.policy).clone();
        let provenance = Some(policy.provenance());
        let files = policy.files();
        self.executables.check(files)?;
        let is_first = state.in_force.is_none();
        let former = state.in_force.as_ref().map(|(coverage, _)| coverage.clone());
        let former = former.unwrap_or_default();
        if is_same && self.resolve(files)? == former {
            return Ok(None);
        }
        let in_kernel = own::with_own(files.map(|files| files.policy()));
        // A mount that appears from here on is reported.
        let mounts = resolve::mounts()?;
        let coverage = self.fill(state, files, in_kernel)?;
        if !is_same || is_first {
            state.known_mounts = KnownMounts::new(&coverage, mounts);
        }
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
        let instance = self.watched.audit.instance();
        if rules.is_empty() && is_first {
            tracing::warn!(
                instance,
                "the policy has no file rules: Sentinel protects only the agent"
            );
        } else if rules.is_empty() && !state.rules.is_empty() {
            tracing::warn!(
                instance,
                "a policy without file rules replaces one with {}: Sentinel protects only the agent",
                state.rules.len()
            );
        }
        state.rules = rules;
        state.missing = resolve::missing(files);
        state.missing.extend(self.executables.missing());
        if !is_same {
            let absent = resolve::absent(files);
            absent.iter().chain(&state.missing).for_each(|it| tracing::warn!(instance, "{it}"));
        }
        Ok(Some((files_new, executables_new)))
    }

    /// What rules and Sentinel's own rules cover now, with all exemptions.
    fn resolve(&self, files: Option<&CompiledFiles>) -> Result<Coverage, SentinelError> {
        let mut coverage =
            resolve(files, &self.own, &self.processes, self.watched.guard.name_key())?;
        for (path, rules, may) in self.executables.exemptions() {
            let found = self.processes.identify(&[path])?;
            // A missing executable is reported, and exempt after a refresh.
            if let Some(id) = found.first().copied().flatten() {
                let exemptions = coverage.exemptions.entry(id).or_default();
                exemptions.0 |= rules;
                exemptions.1 |= may;
            }
        }
        // Sentinel covers these names, and not what a symbolic link by such a name leads to.
        let is_file = |path: &&Path| fs::symlink_metadata(path).is_ok_and(|it| it.is_file());
        let executors = self.executables.executors.iter().map(PathBuf::as_path);
        let executors: Vec<&Path> = executors.filter(is_file).collect();
        for id in self.processes.identify(&executors)?.into_iter().flatten() {
            coverage.exemptions.entry(id).or_default().1 |= abi::MAY_MANAGE;
        }
        backing::cover(&mut coverage, &self.processes, files)?;
        Ok(coverage)
    }

    /// Fills the kernel's tables until paths resolve to what the tables contain. On failure, restores the rules that were
    /// in force, if any.
    fn fill(
        &self,
        state: &mut State,
        files: Option<&CompiledFiles>,
        in_kernel: FilePolicy,
    ) -> Result<Coverage, SentinelError> {
        let mut fill = || {
            let mut coverage = self.resolve(files)?;
            for _ in 0..PASSES {
                state.tables.apply(&self.watched.guard, &coverage, in_kernel)?;
                // A file that moved during the first pass is found by the second: moves fail by now.
                let again = self.resolve(files)?;
                if again == coverage {
                    state.preopened = Preopened::find(&self.watched.guard, &coverage)?;
                    state.warn_of_preopened();
                    return Ok(coverage);
                }
                coverage = again;
            }
            Err(Failure::UnstablePaths.into())
        };
        fill().inspect_err(|_| {
            if let Some((coverage, in_kernel)) = state.in_force.take() {
                let restored = state.tables.apply(&self.watched.guard, &coverage, in_kernel);
                if let Err(error) = restored {
                    let error = ErrorChain::new(&error);
                    tracing::error!(%error, "the former file rules were not restored");
                }
                state.in_force = Some((coverage, in_kernel));
            }
        })
    }
}
