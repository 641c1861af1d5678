use std::sync::Arc;
#[cfg(feature = "signed")]
use std::time::Duration;

use ironclad_core::ErrorChain;
use ironclad_core::audit::{AuditAction, AuditSink};
#[cfg(feature = "signed")]
use ironclad_policy::bundle::{Permit, Token};

use super::Sentinel;
use crate::error::SentinelError;
use crate::watch::{Watch, Watched};

impl Sentinel {
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
    pub(super) fn remove(self) -> Result<(), SentinelError> {
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

/// Leaves a record of a start, or an end, that was refused.
pub(super) fn refuse((instance, audit): (&str, &dyn AuditSink), error: &SentinelError) {
    let program = "sentinel".to_owned();
    let refuse = AuditAction::Refuse { program, reason: ErrorChain::new(error).to_string() };
    if let Err(error) = audit.record(instance, &refuse) {
        tracing::error!(%error, "no audit record of a refusal");
    }
}
