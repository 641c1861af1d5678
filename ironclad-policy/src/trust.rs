//! Where policies come from, and which of them a product accepts: for Shield and Sentinel.
//!
//! A [`PolicySource`] is a compiled policy or a signed bundle. [`Trust`] is what a product holds: a
//! trust store, or none. With a store, the product accepts signed bundles alone.

#[cfg(feature = "signed")]
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "signed")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ironclad_core::audit::{AuditAction, AuditError, AuditLog};

#[cfg(feature = "signed")]
use crate::bundle::{Accepted, BundleError, Token, TrustStore};
use crate::compile::{CompiledPolicy, Provenance};
#[cfg(feature = "signed")]
use crate::document::{DocumentError, Sources};

/// A policy for `start` and `apply`: a compiled policy, or a signed bundle.
///
/// ```
/// use ironclad_policy::{Policy, PolicySource};
///
/// fn apply<'a>(policy: impl Into<PolicySource<'a>>) {
///     let _source: PolicySource<'a> = policy.into();
/// }
/// let policy = Policy::builder().compile()?;
/// apply(&policy);
/// # Ok::<(), ironclad_policy::PolicyError>(())
/// ```
#[derive(Debug)]
pub struct PolicySource<'a>(Source<'a>);

enum Source<'a> {
    Compiled(&'a CompiledPolicy),
    #[cfg(feature = "signed")]
    Bundle {
        bundle: &'a [u8],
        signatures: &'a [&'a str],
        compile: Compile<'a>,
    },
}

/// Compiles the policy of a bundle that was verified.
#[cfg(feature = "signed")]
type Compile<'a> = Box<dyn FnOnce(&Accepted) -> Result<CompiledPolicy, DocumentError> + 'a>;

impl<'a> PolicySource<'a> {
    /// A signed bundle, its signatures of minisign, and what its policy refers to.
    ///
    /// The bundle is verified, and its serial is kept, before its policy comes into force. The last
    /// bundle that was accepted may be used again.
    #[cfg(feature = "signed")]
    pub fn signed(
        bundle: &'a [u8],
        signatures: &'a [&'a str],
        sources: &'a mut Sources<'_>,
    ) -> Self {
        let compile: Compile<'a> = Box::new(|accepted: &Accepted| accepted.compile(sources));
        Self(Source::Bundle { bundle, signatures, compile })
    }

    /// Whether it is a signed bundle.
    pub fn is_signed(&self) -> bool {
        !matches!(self.0, Source::Compiled(_))
    }
}

impl<'a> From<&'a CompiledPolicy> for PolicySource<'a> {
    fn from(policy: &'a CompiledPolicy) -> Self {
        Self(Source::Compiled(policy))
    }
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Compiled(policy) => f.debug_tuple("Compiled").field(&policy.id()).finish(),
            #[cfg(feature = "signed")]
            Self::Bundle { .. } => f.debug_struct("Bundle").finish_non_exhaustive(),
        }
    }
}

/// Which policies a product accepts: those of its caller by default, or signed bundles alone.
///
/// Clones share the store.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    #[cfg(feature = "signed")]
    store: Option<Arc<Mutex<TrustStore>>>,
}

impl Trust {
    /// Accepts bundles alone that `store` verifies.
    #[cfg(feature = "signed")]
    pub fn new(store: Arc<Mutex<TrustStore>>) -> Self {
        Self { store: Some(store) }
    }

    /// Whether there is a trust store, so that signed bundles alone are accepted.
    pub fn has_store(&self) -> bool {
        #[cfg(feature = "signed")]
        return self.store.is_some();
        #[cfg(not(feature = "signed"))]
        false
    }

    /// The files that the store writes; none without a store.
    #[cfg(feature = "signed")]
    pub fn files(&self) -> Vec<PathBuf> {
        self.store.iter().flat_map(|store| lock(store).files()).collect()
    }

    /// Checks the kind of a source, before anything is done: nothing is verified by it.
    ///
    /// # Errors
    /// [`TrustErrorKind::Unsigned`] of a compiled policy where there is a store,
    /// [`TrustErrorKind::NoStore`] of a bundle where there is none.
    pub fn check(&self, source: &PolicySource<'_>) -> Result<(), TrustError> {
        match (self.has_store(), source.is_signed()) {
            (true, false) => Err(TrustError::unsigned()),
            #[cfg(feature = "signed")]
            (false, true) => Err(TrustError::no_store()),
            _ => Ok(()),
        }
    }

    /// Passes the policy of `source` to `apply`. A bundle is verified, and its serial is kept, before
    /// that; the store accepts no other bundle until `apply` returns.
    ///
    /// # Errors
    /// Those of [`check`](Self::check); [`TrustErrorKind::Bundle`] where the bundle is not accepted;
    /// [`TrustErrorKind::NotApplied`] where it is, and its policy cannot be compiled or `apply` fails.
    /// Of a compiled policy, the error of `apply` as it is.
    // Only bundles leave audit records.
    #[cfg_attr(not(feature = "signed"), allow(unused_variables))]
    pub fn resolve<T, E>(
        &self,
        source: PolicySource<'_>,
        audit: &AuditLog,
        apply: impl FnOnce(&CompiledPolicy) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: std::error::Error + From<TrustError> + Send + Sync + 'static,
    {
        self.check(&source)?;
        match source.0 {
            Source::Compiled(policy) => apply(policy),
            #[cfg(feature = "signed")]
            Source::Bundle { bundle, signatures, compile } => {
                let mut store = self.lock()?;
                let accepted = store
                    .accept_audited(bundle, signatures, (audit.instance(), audit.sink()))
                    .map_err(TrustError::bundle)?;
                let (serial, expired) = (accepted.header().serial, accepted.header().expires);
                if accepted.is_expired() {
                    tracing::warn!(
                        instance = audit.instance(),
                        serial,
                        expired,
                        "the last bundle has expired, and its policy stays in force: sign a later one"
                    );
                }
                let policy = compile(&accepted).map_err(|e| TrustError::not_applied(serial, e))?;
                apply(&policy).map_err(|e| TrustError::not_applied(serial, e).into())
            }
        }
    }

    /// Verifies a break-glass token, keeps its serial, and leaves an audit record of it: it is good
    /// once.
    ///
    /// # Errors
    /// [`TrustErrorKind::NoStore`], [`TrustErrorKind::Token`] where the token is not accepted.
    #[cfg(feature = "signed")]
    pub fn accept_token(
        &self,
        token: &[u8],
        signatures: &[&str],
        audit: &AuditLog,
    ) -> Result<Token, TrustError> {
        let audit = (audit.instance(), audit.sink());
        self.lock()?.take_token_audited(token, signatures, audit).map_err(TrustError::token)
    }

    #[cfg(feature = "signed")]
    fn lock(&self) -> Result<MutexGuard<'_, TrustStore>, TrustError> {
        self.store.as_deref().map(lock).ok_or_else(TrustError::no_store)
    }
}

#[cfg(feature = "signed")]
fn lock(store: &Mutex<TrustStore>) -> MutexGuard<'_, TrustStore> {
    // Its state changes by one assignment, after it was written.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Warns of unsigned policies: of the first, and of the first after a signed one.
#[derive(Debug, Default)]
pub struct UnsignedWarning {
    was_unsigned: AtomicBool,
}

impl UnsignedWarning {
    /// Logs a warning and leaves an audit record where `policy` is unsigned and the last one was not.
    ///
    /// # Errors
    /// [`AuditError`] of the sink.
    pub fn check(&self, policy: &CompiledPolicy, audit: &AuditLog) -> Result<(), AuditError> {
        let is_unsigned = policy.provenance() == Provenance::Unsigned;
        if self.was_unsigned.swap(is_unsigned, Ordering::Relaxed) || !is_unsigned {
            return Ok(());
        }
        tracing::warn!(
            instance = audit.instance(),
            "the policy is unsigned: every process that can change it decides what it denies"
        );
        let action = AuditAction::PolicyUnsigned { policy: policy.id().to_string() };
        audit.sink().record(audit.instance(), &action)
    }
}

/// What went wrong: [`TrustError::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrustErrorKind {
    /// An unsigned policy, where signed bundles alone are accepted.
    Unsigned,
    /// A bundle or a token, and there is no trust store.
    NoStore,
    /// A bundle is not accepted.
    Bundle,
    /// A break-glass token is not accepted.
    Token,
    /// A bundle was accepted, but its policy did not come into force.
    NotApplied,
}

/// Why a policy or a token of a [`Trust`] was not accepted, or a bundle's policy did not come into force.
///
/// Display gives the context and the next step; `source` gives the cause.
#[derive(Debug)]
pub struct TrustError {
    kind: TrustErrorKind,
    #[cfg(feature = "signed")]
    serial: Option<u64>,
    #[cfg(feature = "signed")]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TrustError {
    /// What went wrong.
    pub fn kind(&self) -> TrustErrorKind {
        self.kind
    }

    /// The serial of the bundle whose policy did not come into force.
    pub fn serial(&self) -> Option<u64> {
        #[cfg(feature = "signed")]
        return self.serial;
        #[cfg(not(feature = "signed"))]
        None
    }

    /// Why a bundle or a token was not accepted.
    #[cfg(feature = "signed")]
    pub fn bundle_error(&self) -> Option<&BundleError> {
        self.source.as_deref()?.downcast_ref()
    }

    fn unsigned() -> Self {
        Self::new(TrustErrorKind::Unsigned)
    }

    fn new(kind: TrustErrorKind) -> Self {
        Self {
            kind,
            #[cfg(feature = "signed")]
            serial: None,
            #[cfg(feature = "signed")]
            source: None,
        }
    }
}

#[cfg(feature = "signed")]
impl TrustError {
    fn no_store() -> Self {
        Self::new(TrustErrorKind::NoStore)
    }

    fn bundle(source: BundleError) -> Self {
        Self { source: Some(Box::new(source)), ..Self::new(TrustErrorKind::Bundle) }
    }

    fn token(source: BundleError) -> Self {
        Self { source: Some(Box::new(source)), ..Self::new(TrustErrorKind::Token) }
    }

    fn not_applied(serial: u64, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        let kind = TrustErrorKind::NotApplied;
        Self { kind, serial: Some(serial), source: Some(Box::new(source)) }
    }
}

impl std::fmt::Display for TrustError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            TrustErrorKind::Unsigned => f.write_str(
                "the policy is unsigned, and `.signed(…)` names a trust store: pass a bundle and its \
                 signatures by `PolicySource::signed`",
            ),
            TrustErrorKind::NoStore => f.write_str(
                "no key is trusted to sign: name a trust store with `.signed(…)` when it is built",
            ),
            TrustErrorKind::Bundle => f.write_str("the bundle is not accepted"),
            TrustErrorKind::Token => f.write_str("the break-glass token is not accepted"),
            TrustErrorKind::NotApplied => {
                let serial = self.serial().unwrap_or_default();
                write!(
                    f,
                    "bundle {serial} was verified, and no earlier one is accepted any more, but its \
                     policy did not come into force. The former policy is still in force: repair the \
                     cause and apply the same bundle again, or a later one"
                )
            }
        }
    }
}

impl std::error::Error for TrustError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        #[cfg(feature = "signed")]
        return self.source.as_deref().map(|source| source as _);
        #[cfg(not(feature = "signed"))]
        None
    }
}
