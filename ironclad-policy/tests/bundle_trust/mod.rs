//! Policy sources: what a product with and without a trust store accepts.

use std::error::Error;
use std::sync::{Arc, Mutex};

use ironclad_core::audit::{AuditAction, AuditLog};
use ironclad_policy::bundle::{BundleError, Header, now};
use ironclad_policy::document::Sources;
use ironclad_policy::trust::{Trust, TrustError, TrustErrorKind, UnsignedWarning};
use ironclad_policy::{CompiledPolicy, Policy, PolicySource, Provenance};

use super::{DAY, Lab, POLICY, Records, bundle};

/// What a product returns.
#[derive(Debug, thiserror::Error)]
enum ProductError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the kernel has no room")]
    Kernel,
}

impl ProductError {
    fn trust(&self) -> &TrustError {
        match self {
            Self::Trust(error) => error,
            Self::Kernel => panic!("{self}"),
        }
    }
}

struct Product {
    lab: Lab,
    trust: Trust,
    records: Arc<Records>,
    audit: AuditLog,
}

impl Product {
    fn new(has_store: bool) -> Self {
        let (lab, records) = (Lab::new(), Arc::new(Records::default()));
        let trust = match has_store {
            true => Trust::new(Arc::new(Mutex::new(lab.store()))),
            false => Trust::default(),
        };
        let audit = AuditLog::new("edge", records.clone());
        Self { lab, trust, records, audit }
    }

    fn bundle(&self, serial: u64, policy: &str) -> (Vec<u8>, String) {
        let (made, expires) = (now() - DAY, now() + DAY);
        let header = Header::new(serial, made, expires, self.lab.pair.public().id());
        let bundle = bundle(&header, policy);
        let signature = self.lab.pair.sign(&bundle);
        (bundle, signature)
    }

    fn apply<'a>(&self, source: impl Into<PolicySource<'a>>) -> Result<Provenance, ProductError> {
        self.trust.resolve(source.into(), &self.audit, |policy| Ok(policy.provenance()))
    }

    fn records(&self, of: fn(&AuditAction) -> bool) -> usize {
        self.records.0.lock().unwrap().iter().filter(|it| of(it)).count()
    }
}

fn unsigned() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

#[test]
fn with_a_store_signed_bundles_alone_are_accepted() {
    let product = Product::new(true);
    assert_eq!(product.trust.files(), product.lab.store().files());
    let (bundle, signature) = product.bundle(7, POLICY);
    let (signatures, sources) = ([signature.as_str()], &mut Sources::new("."));
    let provenance = product.apply(PolicySource::signed(&bundle, &signatures, sources)).unwrap();
    assert!(matches!(provenance, Provenance::Bundle { serial: 7, .. }), "{provenance:?}");
    assert_eq!(product.records(|it| matches!(it, AuditAction::BundleAccept { serial: 7, .. })), 1);

    let error = product.apply(&unsigned()).unwrap_err();
    assert_eq!(error.trust().kind(), TrustErrorKind::Unsigned);
    assert!(error.to_string().contains("`PolicySource::signed`"), "{error}");

    let (older, signature) = product.bundle(6, POLICY);
    let signatures = [signature.as_str()];
    let error = product.apply(PolicySource::signed(&older, &signatures, sources)).unwrap_err();
    assert_eq!(error.trust().kind(), TrustErrorKind::Bundle);
    let cause = error.trust().bundle_error().unwrap();
    assert!(matches!(cause, BundleError::Replayed { found: 6, last: 7 }), "{cause}");
    assert!(!error.to_string().contains(&cause.to_string()), "the cause prints once");
    assert_eq!(product.records(|it| matches!(it, AuditAction::BundleRefuse { .. })), 1);
}

#[test]
fn without_a_store_bundles_are_refused() {
    let product = Product::new(false);
    assert_eq!(product.apply(&unsigned()).unwrap(), Provenance::Unsigned);
    let (bundle, signature) = product.bundle(7, POLICY);
    let (signatures, sources) = ([signature.as_str()], &mut Sources::new("."));
    let source = PolicySource::signed(&bundle, &signatures, sources);
    assert_eq!(product.trust.check(&source).unwrap_err().kind(), TrustErrorKind::NoStore);
    let error = product.apply(source).unwrap_err();
    assert_eq!(error.trust().kind(), TrustErrorKind::NoStore);
    let error = product.trust.accept_token(b"", &[], &product.audit).unwrap_err();
    assert_eq!(error.kind(), TrustErrorKind::NoStore);
    assert_eq!(product.records(|_| true), 0);
}

#[test]
fn a_bundle_whose_policy_is_not_applied_may_be_applied_again() {
    let product = Product::new(true);
    let (bundle, signature) = product.bundle(3, POLICY);
    let (signatures, sources) = ([signature.as_str()], &mut Sources::new("."));
    let source = PolicySource::signed(&bundle, &signatures, sources);
    let failed: Result<(), _> =
        product.trust.resolve(source, &product.audit, |_| Err(ProductError::Kernel));
    let failed = failed.unwrap_err();
    let error = failed.trust();
    assert_eq!((error.kind(), error.serial()), (TrustErrorKind::NotApplied, Some(3)));
    let cause = error.source().unwrap().downcast_ref();
    assert!(matches!(cause, Some(ProductError::Kernel)), "{cause:?}");
    product.apply(PolicySource::signed(&bundle, &signatures, sources)).unwrap();

    // One that names a file that does not exist.
    let missing = "sets:\n  - { id: 1, name: bad, action: drop, lists: none.txt }\n";
    let (bundle, signature) = product.bundle(4, missing);
    let signatures = [signature.as_str()];
    let error = product.apply(PolicySource::signed(&bundle, &signatures, sources)).unwrap_err();
    assert_eq!(error.trust().kind(), TrustErrorKind::NotApplied);
}

#[test]
fn unsigned_policies_are_warned_of_once() {
    let (product, warning) = (Product::new(true), UnsignedWarning::default());
    let (bundle, signature) = product.bundle(1, POLICY);
    let (signatures, sources) = ([signature.as_str()], &mut Sources::new("."));
    let is_warning = |it: &AuditAction| matches!(it, AuditAction::PolicyUnsigned { .. });
    for expected in [1, 1] {
        warning.check(&unsigned(), &product.audit).unwrap();
        assert_eq!(product.records(is_warning), expected);
    }
    let source = PolicySource::signed(&bundle, &signatures, sources);
    let checked = |policy: &CompiledPolicy| -> Result<(), ProductError> {
        warning.check(policy, &product.audit).unwrap();
        Ok(())
    };
    product.trust.resolve(source, &product.audit, checked).unwrap();
    assert_eq!(product.records(is_warning), 1);
    warning.check(&unsigned(), &product.audit).unwrap();
    assert_eq!(product.records(is_warning), 2);
}
