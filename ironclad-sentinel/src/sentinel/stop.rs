use std::sync::Arc;
#[cfg(feature = "signed")]
use std::time::Duration;

use ironclad_core::ErrorChain;
use ironclad_core::audit::AuditAction;
#[cfg(feature = "signed")]
use ironclad_policy::bundle::{Permit, Token};

use super::Sentinel;
#[cfg(feature = "signed")]
use super::start::PROGRAM;
use crate::error::{Failure, SentinelError};
use crate::watch::{Watch, Watched};

impl Sentinel {
    /// Accepts a signed token, once, and permits what it names: signals to the agent for some time, or to
    /// [`stop`](Self::stop) a persistent instance. An audit record is written before.
    ///
    /// # Errors
    /// `SentinelErrorKind::NoTrust`, `SentinelErrorKind::Token` where the token is refused: nothing is
    /// permitted.
    #[cfg(feature = "signed")]
    pub fn break_glass(&self, token: &[u8], signatures: &[&str]) -> Result<Token, SentinelError> {
        let audit = &self.watched.audit;
        let token = self.trust.accept_token(token, signatures, audit)?;
        tracing::warn!(
            instance = audit.instance(),
            "break-glass token {}: {}",
            token.serial,
            token.permits
        );
        match token.permits {
            Permit::Stop { seconds } => self.watched.guard.open_for(Duration::from_secs(seconds)),
            Permit::Uninstall => self.lock().may_uninstall = true,
            // A permission that this version does not know is not granted.
            _ => {}
        }
        Ok(token)
    }

    /// Disarms, and removes the pins: a persistent instance is uninstalled.
    ///
    /// # Errors
    /// `SentinelErrorKind::Audit` where a sink refused the record: Sentinel is armed still.
    /// `SentinelErrorKind::Bpf` where bpffs refuses. `NotPermitted` for a persistent instance that accepts only
    /// signed bundles, unless a break-glass token permits it: the handle is dropped, and hooks refuse still.
    pub fn stop(mut self) -> Result<(), SentinelError> {
        #[cfg(feature = "signed")]
        if self.persistent.is_some() && self.trust.has_store() && !self.lock().may_uninstall {
            return self
                .watched
                .audit
                .refused(PROGRAM, Err(SentinelError::from(Failure::NotPermitted)));
        }
        self.watch.iter_mut().for_each(Watch::end);
        if let Err(error) = self.watched.compare_files(None) {
            let error = ErrorChain::new(&error);
            tracing::error!(%error, "the baseline of protected files is outdated");
        }
        for link in self.watched.guard.links() {
            let hook = "lsm".to_owned();
            self.record(&AuditAction::Detach { hook, interface: link.hook().to_owned() })?;
        }
        self.remove()
    }

    /// Detaches the hooks and removes the pins.
    pub(super) fn remove(self) -> Result<(), SentinelError> {
        let Some(persistent) = &self.persistent else { return Ok(()) };
        self.record(&AuditAction::Unpin {
            path: persistent.directory.path().display().to_string(),
        })?;
        let Self { watch, watched, processes, persistent, .. } = self;
        drop(watch);
        let Watched { guard, .. } = Arc::into_inner(watched).ok_or_else(|| {
            let why = "a callback of `on_alarm` may not stop Sentinel: do it from another thread";
            Failure::Thread(std::io::Error::other(why))
        })?;
        if let Some(persistent) = persistent {
            guard.unpin(processes, &persistent.directory)?;
            persistent.secrets.remove();
        }
        Ok(())
    }
}
