//! Who is trusted to sign what comes into force.

use std::path::PathBuf;
#[cfg(feature = "signed")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironclad_core::audit::{AuditAction, AuditSink};
#[cfg(feature = "signed")]
use ironclad_policy::bundle::{Accepted, TrustStore};
#[cfg(feature = "signed")]
use ironclad_policy::document::Sources;
use ironclad_policy::{CompiledPolicy, Provenance};

use crate::error::{Failure, SentinelError};

/// Whom the builder names; nobody: whoever calls is trusted.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    #[cfg(feature = "signed")]
    store: Option<Arc<Mutex<TrustStore>>>,
    /// What keeps who is trusted, and what was taken.
    pub(crate) files: Vec<PathBuf>,
}

impl Trust {
    pub(crate) fn is_given(&self) -> bool {
        #[cfg(feature = "signed")]
        return self.store.is_some();
        #[cfg(not(feature = "signed"))]
        false
    }

    /// Refuses a policy that was not handed over in a bundle.
    pub(crate) fn only_signed(&self, instead: &'static str) -> Result<(), SentinelError> {
        match self.is_given() {
            true => Err(Failure::Unsigned { instead }.into()),
            false => Ok(()),
        }
    }
}

#[cfg(feature = "signed")]
impl Trust {
    pub(crate) fn new(store: Arc<Mutex<TrustStore>>) -> Self {
        let files = lock(&store).files().into();
        Self { store: Some(store), files }
    }

    pub(crate) fn lock(&self) -> Result<MutexGuard<'_, TrustStore>, SentinelError> {
        let store = self.store.as_ref().ok_or(Failure::NoTrust)?;
        Ok(lock(store))
    }

    /// Verifies a bundle and keeps its serial. Until it is [`put`](Taken::put), no other is taken.
    pub(crate) fn take(
        &self,
        bundle: &[u8],
        signatures: &[&str],
        audit: (&str, &dyn AuditSink),
    ) -> Result<Taken<'_>, SentinelError> {
        let mut store = self.lock()?;
        let accepted = store.accept_audited(bundle, signatures, audit).map_err(Failure::Bundle)?;
        if accepted.is_expired() {
            let (instance, header) = (audit.0, accepted.header());
            let (serial, expired) = (header.serial, header.expires);
            tracing::warn!(
                instance,
                serial,
                expired,
                "the last bundle has expired, and is in force all the same: a later one is needed"
            );
        }
        Ok(Taken { _store: store, accepted })
    }
}

#[cfg(feature = "signed")]
fn lock(store: &Mutex<TrustStore>) -> MutexGuard<'_, TrustStore> {
    // What it holds is what it has kept.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "signed")]
pub(crate) struct Taken<'a> {
    _store: MutexGuard<'a, TrustStore>,
    accepted: Accepted,
}

#[cfg(feature = "signed")]
impl Taken<'_> {
    /// Lets its policy come into force.
    pub(crate) fn put<T>(
        self,
        sources: &mut Sources<'_>,
        put: impl FnOnce(&CompiledPolicy) -> Result<T, SentinelError>,
    ) -> Result<T, SentinelError> {
        let policy = self.accepted.compile(sources);
        let policy = policy.map_err(|e| SentinelError::from(Failure::Bundle(e.into())));
        Ok(policy.and_then(|policy| put(&policy)).map_err(|source| Failure::NotApplied {
            serial: self.accepted.header().serial,
            source,
        })?)
    }
}

/// Says aloud that nobody signed a policy.
pub(crate) fn warn_unsigned(
    instance: &str,
    audit: &dyn AuditSink,
    policy: &CompiledPolicy,
) -> Result<(), SentinelError> {
    if policy.provenance() != Provenance::Unsigned {
        return Ok(());
    }
    tracing::warn!(
        instance,
        "the policy is unsigned: whoever can change it decides what it refuses"
    );
    let action = AuditAction::PolicyUnsigned { policy: policy.id().to_string() };
    Ok(audit.record(instance, &action)?)
}
