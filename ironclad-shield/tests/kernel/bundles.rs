//! Needs root: policies in signed bundles, and unsigned ones.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ironclad_core::audit::AuditAction;
use ironclad_lab::KeyPair;
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_policy::bundle::{BundleError, Header, PublicKey, TrustStore, now};
use ironclad_policy::document::{Document, Sources};
use ironclad_policy::{CompiledPolicy, PolicySource, Provenance};
use ironclad_shield::{PolicyPart, Shield, ShieldBuilder, ShieldError, ShieldErrorKind};

use crate::recorder::Recorder;
use crate::testbed::{EPERM, Host, PATIENCE, provisional};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(signed_bundles_alone_are_accepted).on_host(),
        test!(the_last_bundle_starts_again_after_it_expired).on_host(),
        test!(without_a_trust_store_a_warning_is_printed).on_host(),
    ]
}

/// Drops packets of one neighbour, and denies to connect to one address.
fn policy(source: &str, to: &str) -> String {
    format!(
        "sets:\n  - {{ id: 1, name: bad, action: drop, cidrs: {source} }}\n\
         addresses:\n  there: {{ cidrs: {to} }}\n\
         rules:\n  - {{ id: 2, name: not there, to: there, action: deny }}\n"
    )
}

fn compiled(text: &str) -> CompiledPolicy {
    Document::parse("p", text).unwrap().compile(&mut Sources::new(".")).unwrap()
}

struct Office {
    dir: tempfile::TempDir,
    pair: KeyPair,
}

impl Office {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), pair: KeyPair::new(1) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("trust.json")
    }

    fn key(&self) -> PublicKey {
        self.pair.public().parse().unwrap()
    }

    fn trust(&self) -> Arc<Mutex<TrustStore>> {
        let store = TrustStore::open(&self.path(), "web-1", [self.key()], 1).unwrap();
        Arc::new(Mutex::new(store))
    }

    fn bundle(&self, serial: u64, policy: &str) -> (Vec<u8>, String) {
        self.bundle_until(serial, policy, now() + 86_400)
    }

    fn bundle_until(&self, serial: u64, policy: &str, expires: u64) -> (Vec<u8>, String) {
        let header = Header::new(serial, expires - 86_460, expires, self.key().id());
        let bytes = format!("{header}\n{policy}").into_bytes();
        let signature = self.pair.sign(&bytes);
        (bytes, signature)
    }
}

fn apply(shield: &Shield, (bundle, signature): &(Vec<u8>, String)) -> Result<(), ShieldError> {
    shield.apply(PolicySource::signed(bundle, &[signature], &mut Sources::new(".")))
}

fn start(
    builder: ShieldBuilder,
    (bundle, signature): &(Vec<u8>, String),
) -> Result<Shield, ShieldError> {
    builder.start(PolicySource::signed(bundle, &[signature], &mut Sources::new(".")))
}

/// Why a bundle was not accepted.
fn refusal(error: &ShieldError) -> Option<&BundleError> {
    assert_eq!(error.kind(), ShieldErrorKind::Bundle, "{error}");
    error.trust_error()?.bundle_error()
}

fn serial(shield: &Shield) -> u64 {
    match shield.status().unwrap().provenance {
        Provenance::Bundle { serial, .. } => serial,
        other => panic!("{other:?}"),
    }
}

fn drops(shield: &Shield, source: &str) -> bool {
    let frame = Frame::v4(source, "10.9.0.1").payload(UDP, udp(1, 9, b"x")).build();
    // XDP_DROP.
    shield.test_run(&frame, 1).unwrap().retval == 1
}

fn signed_bundles_alone_are_accepted() {
    let (host, office) = (Host::new(), Office::new());
    let mut test_process = host.test_process(&host.program("one"));
    let (near, far) = ("connect tcp 10.9.0.1:80", "connect tcp 10.9.0.2:80");
    assert_eq!((test_process.ask(near).unwrap(), test_process.ask(far).unwrap()), (0, 0));
    let (recorder, trust) = (Arc::new(Recorder::default()), office.trust());
    let builder = || -> ShieldBuilder {
        let builder =
            Shield::builder("signed").cgroup(host.cgroup.dir()).unenforced([PolicyPart::Packets]);
        builder.audit(recorder.clone()).signed(trust.clone())
    };
    let (first, other) = (policy("10.9.0.7", "10.9.0.2"), policy("10.9.0.8", "10.9.0.1"));

    // Unsigned policies do not start it.
    for refused in
        [builder().start(&compiled(&first)), builder().start_unattached(&compiled(&first))]
    {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ShieldErrorKind::Unsigned, "{error}");
    }
    let (bundle, signature) = office.bundle(5, &first);
    let shield = start(builder(), &(bundle.clone(), signature.clone())).unwrap();
    let is_first = |shield: &Shield, test_process: &mut ironclad_lab::test_process::TestProcess| {
        assert!(drops(shield, "10.9.0.7") && !drops(shield, "10.9.0.8"));
        assert_eq!((test_process.ask(near).unwrap(), test_process.ask(far).unwrap()), (0, EPERM));
    };
    is_first(&shield, &mut test_process);
    assert_eq!(serial(&shield), 5);

    // A second instance that shares the store accepts the same bundle.
    let inner = host.cgroup.child("inner").unwrap();
    let second = Shield::builder("second").cgroup(inner.dir()).signed(trust.clone());
    let second = second.unenforced([PolicyPart::Packets]);
    let second = start(second, &(bundle, signature)).unwrap();
    assert_eq!(serial(&second), 5);
    drop(second);

    // A changed bundle, an older one, one with an unknown key, and unsigned policies.
    let (mut changed, signature) = office.bundle(6, &other);
    let at = changed.iter().rposition(|&byte| byte == b'1').unwrap();
    changed[at] = b'2';
    let error = apply(&shield, &(changed, signature)).unwrap_err();
    assert!(matches!(refusal(&error), Some(BundleError::Forged(_))), "{error}");
    let error = apply(&shield, &office.bundle(4, &other)).unwrap_err();
    assert!(matches!(refusal(&error), Some(BundleError::Replayed { .. })), "{error}");
    let (bundle, _) = office.bundle(6, &other);
    let unidentified = KeyPair::new(2).sign(&bundle);
    let error = apply(&shield, &(bundle, unidentified)).unwrap_err();
    assert!(matches!(refusal(&error), Some(BundleError::UnknownKey { .. })), "{error}");
    for error in [
        shield.apply(&compiled(&other)).unwrap_err(),
        shield.apply_with(&compiled(&other), provisional(PATIENCE)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ShieldErrorKind::Unsigned, "{error}");
        assert!(error.to_string().contains("`PolicySource::signed`"), "{error}");
    }
    is_first(&shield, &mut test_process);

    // A bundle that cannot come into force: its serial is kept, and the former policy stays.
    let missing = "sets:\n  - { id: 1, name: bad, action: drop, lists: none.txt }\n";
    let signed = office.bundle(6, missing);
    let error = apply(&shield, &signed).unwrap_err();
    assert_eq!(error.kind(), ShieldErrorKind::NotApplied, "{error}");
    assert_eq!(error.trust_error().unwrap().serial(), Some(6));
    assert_eq!(serial(&shield), 5);
    is_first(&shield, &mut test_process);
    let error = apply(&shield, &office.bundle(5, &first)).unwrap_err();
    assert!(matches!(refusal(&error), Some(BundleError::Replayed { last: 6, .. })), "{error}");
    // It is accepted again, once the cause is repaired.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("none.txt"), "10.9.0.8\n").unwrap();
    let (bundle, signature) = &signed;
    let mut sources = Sources::new(dir.path());
    shield.apply(PolicySource::signed(bundle, &[signature], &mut sources)).unwrap();
    assert!(drops(&shield, "10.9.0.8") && !drops(&shield, "10.9.0.7"));
    assert_eq!((serial(&shield), test_process.ask(far).unwrap()), (6, 0));

    // A provisional one, and its revert.
    let (bundle, signature) = office.bundle(7, &first);
    let signatures = [&*signature];
    let mut sources = Sources::new(".");
    let source = PolicySource::signed(&bundle, &signatures, &mut sources);
    shield.apply_with(source, provisional(PATIENCE)).unwrap();
    assert_eq!((serial(&shield), drops(&shield, "10.9.0.7")), (7, true));
    shield.revert().unwrap();
    assert_eq!((serial(&shield), drops(&shield, "10.9.0.7")), (6, false));

    let actions = recorder.0.lock().unwrap().clone();
    let accepted: Vec<u64> = actions
        .iter()
        .filter_map(|it| match it {
            AuditAction::BundleAccept { serial, signers, .. } => {
                assert_eq!(*signers, [office.key().id().to_string()]);
                Some(*serial)
            }
            _ => None,
        })
        .collect();
    assert_eq!(accepted, [5, 6, 6, 7]);
    let refused = |it: &&AuditAction| matches!(it, AuditAction::BundleRefuse { .. });
    assert_eq!(actions.iter().filter(refused).count(), 4);
    assert!(!actions.iter().any(|it| matches!(it, AuditAction::PolicyUnsigned { .. })));
    drop(shield);

    // After a restart, too.
    let (bundle, signature) = office.bundle(6, &first);
    let again = builder().signed(office.trust());
    let error = start(again, &(bundle, signature)).unwrap_err();
    assert!(matches!(refusal(&error), Some(BundleError::Replayed { last: 7, .. })), "{error}");
    assert_eq!(test_process.ask(far).unwrap(), 0);
}

fn the_last_bundle_starts_again_after_it_expired() {
    let (host, office) = (Host::new(), Office::new());
    let recorder = Arc::new(Recorder::default());
    let start = |bundle: &(Vec<u8>, String)| {
        let builder = Shield::builder("over")
            .cgroup(host.cgroup.dir())
            .unenforced([PolicyPart::Packets])
            .audit(recorder.clone());
        start(builder.signed(office.trust()), bundle)
    };
    let text = policy("10.9.0.7", "10.9.0.2");
    let (last, never_accepted) =
        (office.bundle_until(1, &text, now() - 60), office.bundle_until(2, &text, now() - 60));
    // It was accepted before it expired.
    let accepted = office.trust().lock().unwrap().accept(&last.0, &[&last.1], now() - 3600);
    assert!(!accepted.unwrap().is_expired());
    let error = start(&never_accepted).err().unwrap();
    assert!(matches!(refusal(&error), Some(BundleError::Expired { .. })), "{error}");
    let shield = start(&last).unwrap();
    assert!(serial(&shield) == 1 && drops(&shield, "10.9.0.7"));
    let recorded = |it: &&AuditAction| matches!(it, AuditAction::BundleExpired { serial: 1, .. });
    assert_eq!(recorder.0.lock().unwrap().iter().filter(recorded).count(), 1);
}

fn without_a_trust_store_a_warning_is_printed() {
    let (host, office) = (Host::new(), Office::new());
    let recorder = Arc::new(Recorder::default());
    let builder = || {
        Shield::builder("unsigned")
            .cgroup(host.cgroup.dir())
            .unenforced([PolicyPart::Packets])
            .audit(recorder.clone())
    };
    let text = policy("10.9.0.7", "10.9.0.2");
    let bundle = office.bundle(1, &text);
    let error = start(builder(), &bundle).unwrap_err();
    assert_eq!(error.kind(), ShieldErrorKind::NoTrust, "{error}");
    let shield = builder().start(&compiled(&text)).unwrap();
    shield.apply(&compiled(&policy("10.9.0.8", "10.9.0.2"))).unwrap();
    assert_eq!(apply(&shield, &bundle).unwrap_err().kind(), ShieldErrorKind::NoTrust);
    assert_eq!(shield.status().unwrap().provenance, Provenance::Unsigned);
    let recorded = |it: &&AuditAction| matches!(it, AuditAction::PolicyUnsigned { .. });
    assert_eq!(recorder.0.lock().unwrap().iter().filter(recorded).count(), 1, "once");
}
