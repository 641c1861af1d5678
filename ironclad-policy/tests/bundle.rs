//! Signed bundles: what is taken, and everything that is not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use ed25519_dalek::{Signer as _, SigningKey};
use ironclad_core::audit::{AuditAction, AuditError, AuditSink};
use ironclad_policy::bundle::{BundleError, Header, Permit, PublicKey, Token, TrustStore};
use ironclad_policy::document::Sources;

mod bundle_invariants;
mod bundle_trust;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// A key pair, as minisign would write it.
struct Pair {
    id: [u8; 8],
    secret: SigningKey,
}

impl Pair {
    fn new(seed: u8) -> Self {
        Self { id: [seed; 8], secret: SigningKey::from_bytes(&[seed; 32]) }
    }

    fn public(&self) -> PublicKey {
        let bytes = [&b"Ed"[..], &self.id, self.secret.verifying_key().as_bytes()].concat();
        STANDARD.encode(bytes).parse().unwrap()
    }

    fn sign(&self, bytes: &[u8]) -> String {
        self.sign_as(b"ED", &Blake2b512::digest(bytes))
    }

    fn sign_as(&self, algorithm: &[u8; 2], message: &[u8]) -> String {
        let comment = "timestamp:1 file:bundle hashed";
        let signature = self.secret.sign(message).to_bytes();
        let global = self.secret.sign(&[&signature[..], comment.as_bytes()].concat()).to_bytes();
        let line = STANDARD.encode([&algorithm[..], &self.id, &signature].concat());
        let global = STANDARD.encode(global);
        format!("untrusted comment: x\n{line}\ntrusted comment: {comment}\n{global}\n")
    }

    fn header(&self, serial: u64) -> Header {
        Header::new(serial, NOW - DAY, NOW + DAY, self.public().id())
    }
}

fn bundle(header: &Header, policy: &str) -> Vec<u8> {
    format!("{header}\n{policy}").into_bytes()
}

const POLICY: &str = "files:\n  - { id: 1, name: a, action: deny, files: /etc/shadow }\n";

struct Lab {
    dir: tempfile::TempDir,
    pair: Pair,
}

impl Lab {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), pair: Pair::new(1) }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("trust.json")
    }

    fn store(&self) -> TrustStore {
        TrustStore::open(&self.state(), "web-1", [self.pair.public()], 1).unwrap()
    }

    fn accept(&self, bytes: &[u8], now: u64) -> Result<u64, BundleError> {
        let signature = self.pair.sign(bytes);
        let accepted = self.store().accept(bytes, &[&signature], now)?;
        Ok(accepted.header().serial)
    }
}

/// What was audited.
#[derive(Default)]
struct Records(Mutex<Vec<AuditAction>>);

impl AuditSink for Records {
    fn record(&self, _: &str, action: &AuditAction) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(action.clone());
        Ok(())
    }
}

#[test]
fn a_bundle_becomes_a_policy_that_says_so() {
    let lab = Lab::new();
    let bytes = bundle(&lab.pair.header(7), POLICY);
    let mut store = lab.store();
    let accepted = store.accept(&bytes, &[&lab.pair.sign(&bytes)], NOW).unwrap();
    let policy = accepted.compile(&mut Sources::new(".")).unwrap();
    let signed = policy.signed().unwrap();
    assert_eq!((signed.serial, signed.expires), (7, NOW + DAY));
    assert_eq!(signed.signers, [lab.pair.public().id()]);
    assert_eq!(policy.files().unwrap().rules().len(), 1);
    assert_eq!(store.serial(), 7);
    // The text that it stands for is the same policy, and unsigned.
    let text = ironclad_policy::document::Document::parse("p", POLICY).unwrap();
    let unsigned = text.compile(&mut Sources::new(".")).unwrap();
    assert_eq!((unsigned.id(), unsigned.signed()), (policy.id(), None));
}

#[test]
fn older_ones_do_not_come_again_after_a_restart_either() {
    let lab = Lab::new();
    let with = |serial, policy| bundle(&lab.pair.header(serial), policy);
    assert_eq!(lab.accept(&with(5, POLICY), NOW).unwrap(), 5);
    let replayed = |bytes: &[u8]| {
        let error = lab.accept(bytes, NOW).unwrap_err();
        assert!(matches!(error, BundleError::Replayed { last: 5, .. }), "{error}");
    };
    replayed(&with(4, POLICY));
    replayed(&with(5, "default: allow\n"));
    // A crash may have come between keeping and applying.
    assert_eq!(lab.accept(&with(5, POLICY), NOW).unwrap(), 5);
    assert_eq!(lab.accept(&with(6, POLICY), NOW).unwrap(), 6);
}

/// Of this serial, made and over at these times.
fn timed(lab: &Lab, serial: u64, made: u64, expires: u64) -> Vec<u8> {
    let mut header = lab.pair.header(serial);
    (header.made, header.expires) = (made, expires);
    bundle(&header, POLICY)
}

#[test]
fn its_time_ends_even_where_the_clock_is_set_back() {
    let lab = Lab::new();
    let over = timed(&lab, 1, NOW - DAY, NOW);
    let error = lab.accept(&over, NOW).unwrap_err();
    let said = "it expired at 1800000000, and the clock says 1800000000 (seconds since 1970 UTC)";
    assert_eq!(error.to_string(), said);
    // One that was made after its end says what time it is.
    lab.accept(&timed(&lab, 1, NOW + 5, NOW + 100 * DAY), NOW + 10).unwrap();
    let over = timed(&lab, 2, NOW - DAY, NOW);
    let error = lab.accept(&over, NOW - 100).unwrap_err();
    assert!(
        matches!(error, BundleError::Expired { expired: NOW, clock, signed }
            if clock == NOW - 100 && signed == NOW + 5),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "it expired at 1800000000, and it is no earlier than 1800000005 by what was accepted before: \
         the clock, which says 1799999900, is behind (seconds since 1970 UTC)"
    );
    // A token says it of bundles, too, and the other way round.
    let id = lab.pair.public().id();
    let token = Token::new(1, NOW - DAY, NOW + 1, id, Permit::Uninstall).to_string();
    let signature = lab.pair.sign(token.as_bytes());
    let error = lab.store().take_token(token.as_bytes(), &[&signature], NOW - 100).unwrap_err();
    assert!(matches!(error, BundleError::Expired { .. }), "{error}");
}

#[test]
fn what_is_made_in_the_future_is_refused_before_it_is_kept() {
    let lab = Lab::new();
    let take = |serial, made, expires, now| {
        let id = lab.pair.public().id();
        let text = Token::new(serial, made, expires, id, Permit::Uninstall).to_string();
        lab.store().take_token(text.as_bytes(), &[&lab.pair.sign(text.as_bytes())], now)
    };
    // A year ahead, and milliseconds.
    for made in [NOW + DAY + 1, NOW + 365 * DAY, NOW * 1000, u64::MAX - 1] {
        for error in [
            lab.accept(&timed(&lab, 1, made, u64::MAX), NOW).unwrap_err(),
            take(1, made, u64::MAX, NOW).unwrap_err(),
        ] {
            let is = matches!(error, BundleError::Ahead { made: found, clock: NOW, signed: 0 } if found == made);
            assert!(is, "{error}");
            let said = error.to_string();
            assert!(said.contains(&made.to_string()) && said.contains("says 1800000000"), "{said}");
        }
        assert!(!lab.state().exists());
    }
    // Clocks differ; who is ahead by less than a day has nothing else pass for expired.
    lab.accept(&timed(&lab, 1, NOW + DAY, NOW + 9 * DAY), NOW).unwrap();
    take(1, NOW + DAY, NOW + 9 * DAY, NOW).unwrap();
    lab.accept(&timed(&lab, 2, NOW - 60, NOW + 60), NOW).unwrap();
    take(2, NOW - 60, NOW + 60, NOW).unwrap();
}

#[test]
fn a_host_whose_clock_is_behind_takes_the_last_bundle() {
    let lab = Lab::new();
    let last = timed(&lab, 1, NOW - DAY, NOW + 100 * DAY);
    // Not the first, which says why.
    let error = lab.accept(&last, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "it was made at 1799913600, and the clock says 0 (seconds since 1970 UTC): set the clock \
         if it is behind; otherwise sign it anew with the right time"
    );
    lab.accept(&last, NOW).unwrap();
    let accepted = lab.store().accept(&last, &[], 0).unwrap();
    assert!(!accepted.is_expired());
    // What was taken says what time it is at least.
    lab.accept(&timed(&lab, 2, NOW, NOW + DAY), 0).unwrap();
    let error = lab.accept(&timed(&lab, 3, NOW + DAY, NOW + 9 * DAY), 0).unwrap_err();
    assert!(matches!(error, BundleError::Ahead { clock: 0, .. }), "{error}");
    assert!(error.to_string().contains("the clock, which says 0, is behind"), "{error}");
}

#[test]
fn the_last_bundle_comes_again_when_its_time_is_over() {
    let lab = Lab::new();
    let (last, later) = (lab.pair.header(1), lab.pair.header(2));
    let over = last.expires;
    let bytes = bundle(&last, POLICY);
    let signature = lab.pair.sign(&bytes);
    let first = lab.store().accept(&bytes, &[&signature], over - 1).unwrap();
    assert!(!first.is_expired());
    let again = lab.store().accept(&bytes, &[&signature], over).unwrap();
    assert!(again.is_expired());
    assert!(again.compile(&mut Sources::new(".")).unwrap().signed().is_some());
    // One that was not accepted before is refused as ever.
    let error = lab.accept(&bundle(&later, POLICY), over).unwrap_err();
    assert!(matches!(error, BundleError::Expired { .. }), "{error}");
    assert_eq!(lab.store().serial(), 1);
    // Products say so in their records, by the clock of here.
    let records = Records::default();
    let other = Lab::new();
    let bytes = timed(&other, 2, 1000, 2000);
    other.accept(&bytes, 1500).unwrap();
    other.store().accept_audited(&bytes, &[], ("web", &records)).unwrap();
    let said: Vec<_> = records.0.into_inner().unwrap();
    let expired = |it: &&AuditAction| matches!(it, AuditAction::BundleExpired { serial: 2, .. });
    assert_eq!((said.len(), said.iter().filter(expired).count()), (2, 1), "{said:?}");
}

#[test]
fn who_sets_the_clock_ahead_and_back_shuts_out_no_token() {
    let lab = Lab::new();
    let last = bundle(&lab.pair.header(1), POLICY);
    lab.accept(&last, NOW).unwrap();
    let token = |serial| {
        let id = lab.pair.public().id();
        Token::new(serial, NOW - 60, NOW + 3600, id, Permit::Uninstall).to_string()
    };
    let take = |text: &str, now| {
        lab.store().take_token(text.as_bytes(), &[&lab.pair.sign(text.as_bytes())], now)
    };
    // A year ahead the agent starts again, and a token is handed over in vain.
    let year = NOW + 365 * DAY;
    assert!(lab.store().accept(&last, &[], year).unwrap().is_expired());
    let error = take(&token(1), year).unwrap_err();
    assert!(matches!(error, BundleError::Expired { .. }), "{error}");
    // A bundle that is good for long is taken then, too.
    lab.accept(&timed(&lab, 2, NOW - 60, NOW + 1000 * DAY), year).unwrap();
    take(&token(1), NOW).unwrap();
    // Nor does setting it back before the start.
    lab.accept(&timed(&lab, 2, NOW - 60, NOW + 1000 * DAY), 0).unwrap();
    take(&token(2), NOW).unwrap();
}

#[test]
fn errors_in_its_policy_have_the_lines_of_the_bundle() {
    let lab = Lab::new();
    let mut rotation = lab.pair.header(1);
    (rotation.next_keys, rotation.threshold) = (vec![lab.pair.public()], Some(1));
    for (header, line) in [(lab.pair.header(1), 7), (rotation, 9)] {
        let said = |policy: &str| {
            let bytes = bundle(&header, policy);
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert_eq!(text.lines().nth(line), policy.lines().next());
            lab.accept(&bytes, NOW).unwrap_err().to_string()
        };
        let (second, third) = (line + 2, line + 3);
        let unknown = said("files:\n  - { id: 1, nmae: a, action: deny, files: /x }\n");
        let expected = format!("bundle:{second}:14: files[0]: unknown key `nmae`");
        assert!(unknown.starts_with(&expected), "{unknown}");
        let twice = said("default: allow\n\ndefault: drop\n");
        let expected = format!("bundle:{third}:1: duplicate key `default`: line {}", line + 1);
        assert!(twice.starts_with(&expected), "{twice}");
        let open = said("default: allow\nfiles: [\n");
        assert!(open.starts_with(&format!("bundle:{third}:1: ")), "{open}");
        let control = said("default: allow\nfiles: \u{7}\n");
        assert!(control.starts_with(&format!("bundle:{second}:8: ")), "{control}");
        let clash = "rules:\n  - { id: 1, name: a, action: deny }\n  \
                     - { id: 1, name: b, action: deny }\n";
        let clash = said(clash);
        let is = clash.starts_with(&format!("bundle:{third}:"));
        assert!(is && clash.contains(&format!("line {second} has a rule 1")), "{clash}");
    }
    // What compiling finds has them, too.
    let missing =
        "default: allow\nsets:\n  - { id: 1, name: bad, action: drop, lists: none.txt }\n";
    let bytes = bundle(&lab.pair.header(1), missing);
    let accepted = lab.store().accept(&bytes, &[&lab.pair.sign(&bytes)], NOW).unwrap();
    let error = accepted.compile(&mut Sources::new("/nowhere")).unwrap_err();
    assert_eq!(error.place().map(|place| place.line), Some(10), "{error}");
}

#[test]
fn line_ends_of_others_are_named() {
    let lab = Lab::new();
    let text = String::from_utf8(bundle(&lab.pair.header(1), POLICY)).unwrap();
    let id = lab.pair.public().id();
    let token = Token::new(1, NOW - 1, NOW + 1, id, Permit::Uninstall).to_string();
    let said = |text: &str| lab.accept(text.as_bytes(), NOW).unwrap_err().to_string();
    let ends = "it ends in CR LF, and lines are to end in LF: sign it anew as it is then";
    assert_eq!(said(&text.replace('\n', "\r\n")), format!("line 1: {ends}"));
    assert_eq!(said(&text.replace("hosts: *\n", "hosts: *\r\n")), format!("line 5: {ends}"));
    let token = token.replace('\n', "\r\n");
    let signature = lab.pair.sign(token.as_bytes());
    let error = lab.store().take_token(token.as_bytes(), &[&signature], NOW).unwrap_err();
    assert_eq!(error.to_string(), format!("line 1: {ends}"));
    let signature = lab.pair.sign(text.as_bytes()).replace('\n', "\r\n");
    let error = lab.store().accept(text.as_bytes(), &[&signature], NOW).unwrap_err();
    assert_eq!(error.to_string(), "signature: its lines end in CR LF, and are to end in LF");
    // Of the policy it is no matter.
    let policy = text.replace(POLICY, &POLICY.replace('\n', "\r\n"));
    lab.accept(policy.as_bytes(), NOW).unwrap();
}

#[test]
fn it_is_for_its_hosts_alone() {
    let lab = Lab::new();
    let of = |serial, hosts: &[&str]| {
        let mut header = lab.pair.header(serial);
        header.hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        bundle(&header, POLICY)
    };
    for hosts in [&["db-1"][..], &["web", "web-11"], &["db-*"]] {
        let error = lab.accept(&of(1, hosts), NOW).unwrap_err();
        assert!(matches!(error, BundleError::Host { .. }), "{error}");
    }
    for (serial, hosts) in [(1, &["web-1"][..]), (2, &["db-1", "web-*"]), (3, &["*"])] {
        assert_eq!(lab.accept(&of(serial, hosts), NOW).unwrap(), serial);
    }
    assert_eq!(lab.store().serial(), 3);
}

#[test]
fn other_keys_are_not_taken() {
    let (lab, other) = (Lab::new(), Pair::new(2));
    let bytes = bundle(&other.header(1), POLICY);
    let accept = |signature: &str| lab.store().accept(&bytes, &[signature], NOW).unwrap_err();
    assert!(matches!(accept(&other.sign(&bytes)), BundleError::UnknownKey { .. }));
    // One that says that it is ours.
    let liar = Pair { id: lab.pair.id, secret: SigningKey::from_bytes(&[9; 32]) };
    assert!(matches!(accept(&liar.sign(&bytes)), BundleError::Forged(_)));
    // A good signature of a bundle that names another key.
    assert!(matches!(accept(&lab.pair.sign(&bytes)), BundleError::Form { line: 6, .. }));
    // Points of small order, under which anything can be signed.
    for point in [[0u8; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let text = STANDARD.encode([&b"Ed"[..], &[1; 8], &point].concat());
        let error = text.parse::<PublicKey>().unwrap_err();
        assert!(error.to_string().contains("weak"), "{error}");
    }
    assert!(!lab.state().exists());
}

#[test]
fn every_change_shows() {
    let lab = Lab::new();
    let bytes = bundle(&lab.pair.header(1), POLICY);
    let signature = lab.pair.sign(&bytes);
    let accept = |bytes: &[u8], signature: &str| {
        let mut store = lab.store();
        store.accept(bytes, &[signature], NOW).map(|_| ())
    };
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(accept(&changed, &signature).is_err(), "byte {at}");
        assert!(accept(&bytes[..at], &signature).is_err(), "cut at {at}");
    }
    for at in 0..signature.len() {
        let mut changed = signature.clone().into_bytes();
        changed[at] ^= 2;
        let Ok(changed) = String::from_utf8(changed) else { continue };
        let is_in_comment = changed.starts_with("untrusted comment: ") && at < 20;
        assert_eq!(accept(&bytes, &changed).is_ok(), is_in_comment, "signature, byte {at}");
        assert!(!lab.state().exists() || is_in_comment);
        let _ = std::fs::remove_file(lab.state());
    }
    assert!(accept(&bytes, "").is_err());
    accept(&bytes, &signature).unwrap();
}

#[test]
fn the_legacy_format_is_refused() {
    let lab = Lab::new();
    let bytes = bundle(&lab.pair.header(1), POLICY);
    let legacy = lab.pair.sign_as(b"Ed", &bytes);
    let error = lab.store().accept(&bytes, &[&legacy], NOW).unwrap_err();
    assert_eq!(error.to_string(), "signature: it is of the legacy format: sign without `-l`");
}

#[test]
fn a_header_is_written_in_one_way() {
    let lab = Lab::new();
    let text = String::from_utf8(bundle(&lab.pair.header(1), POLICY)).unwrap();
    for (from, to, line) in [
        ("serial: 1\n", "serial: 01\n", 2),
        ("serial: 1\n", "serial:  1\n", 2),
        ("serial: 1\n", "serial: 0\n", 2),
        ("serial: 1\n", "serial: 1 \n", 2),
        ("serial: 1\n", "", 2),
        ("hosts: *\n", "hosts: *,web\n", 5),
        ("hosts: *\n", "hosts: \n", 5),
        ("ironclad-bundle: 1\n", "ironclad-bundle: 2\n", 1),
        ("\n\n", "\nmore: 1\n\n", 7),
        ("\n\n", "\nthreshold: 1\n\n", 7),
        ("\n\n", "\n", 1),
        ("key: 01", "key: 0x1", 6),
    ] {
        let bytes = text.replacen(from, to, 1).into_bytes();
        assert_ne!(bytes, text.as_bytes(), "{from:?}");
        match lab.accept(&bytes, NOW) {
            Err(BundleError::Form { line: found, .. }) => {
                assert_eq!(found, line, "{from:?} {to:?}")
            }
            other => panic!("{from:?} {to:?}: {other:?}"),
        }
    }
    let error = lab.accept(&bundle(&lab.pair.header(1), "files: 3\n"), NOW).unwrap_err();
    assert!(matches!(error, BundleError::Policy(_)), "{error}");
    assert!(!lab.state().exists());
}

#[test]
fn keys_follow_each_other() {
    let (lab, next, third) = (Lab::new(), Pair::new(2), Pair::new(3));
    let mut rotation = lab.pair.header(1);
    rotation.next_keys = vec![next.public(), third.public()];
    rotation.threshold = Some(2);
    lab.accept(&bundle(&rotation, POLICY), NOW).unwrap();
    // It may come again itself, for it may not have been applied.
    lab.accept(&bundle(&rotation, POLICY), NOW).unwrap();
    let mut store = lab.store();
    assert_eq!(store.keys().count(), 2);
    // The former one is trusted no more.
    let bytes = bundle(&lab.pair.header(2), POLICY);
    let error = store.accept(&bytes, &[&lab.pair.sign(&bytes)], NOW).unwrap_err();
    assert!(matches!(error, BundleError::UnknownKey { .. }), "{error}");
    // Both are needed, and one twice is one.
    let bytes = bundle(&next.header(2), POLICY);
    let (one, two) = (next.sign(&bytes), third.sign(&bytes));
    for signatures in [vec![], vec![one.as_str()], vec![one.as_str(), one.as_str()]] {
        let error = store.accept(&bytes, &signatures, NOW).unwrap_err();
        assert!(matches!(error, BundleError::TooFew { needed: 2, .. }), "{error}");
    }
    store.accept(&bytes, &[&one, &two], NOW).unwrap();
    // What was damaged is no beginning.
    std::fs::write(lab.state(), b"{}").unwrap();
    let opened = TrustStore::open(&lab.state(), "web-1", [lab.pair.public()], 1);
    assert!(matches!(opened, Err(BundleError::State { .. })));
    let none = TrustStore::open(Path::new("/nowhere/x"), "h", [lab.pair.public()], 2);
    assert!(matches!(none, Err(BundleError::Key(_))));
}

#[test]
fn a_token_is_good_once() {
    let lab = Lab::new();
    let stop = Permit::Stop { seconds: 60 };
    let token =
        |serial, permits| Token::new(serial, NOW - DAY, NOW + DAY, lab.pair.public().id(), permits);
    let take = |bytes: &[u8], signature: &str, now| {
        lab.store().take_token(bytes, &[signature], now).map(|token| token.permits)
    };
    let signed = |token: &Token| {
        let text = token.to_string();
        take(text.as_bytes(), &lab.pair.sign(text.as_bytes()), NOW)
    };
    assert_eq!(signed(&token(3, stop)).unwrap(), stop);
    for serial in [3, 2] {
        let error = signed(&token(serial, Permit::Uninstall)).unwrap_err();
        assert!(matches!(error, BundleError::Replayed { last: 3, .. }), "{error}");
    }
    assert_eq!(signed(&token(4, Permit::Uninstall)).unwrap(), Permit::Uninstall);
    // Bundles count by themselves, and forget nothing of tokens.
    lab.accept(&bundle(&lab.pair.header(1), POLICY), NOW).unwrap();
    let mut elsewhere = token(5, stop);
    elsewhere.hosts = vec!["db-*".parse().unwrap()];
    assert!(matches!(signed(&elsewhere), Err(BundleError::Host { .. })));
    let text = token(5, stop).to_string();
    let (bytes, signature) = (text.as_bytes(), lab.pair.sign(text.as_bytes()));
    assert!(matches!(take(bytes, &signature, NOW + DAY), Err(BundleError::Expired { .. })));
    assert!(matches!(
        take(bytes, &Pair::new(2).sign(bytes), NOW),
        Err(BundleError::UnknownKey { .. })
    ));
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        assert!(take(&changed, &signature, NOW).is_err(), "byte {at}");
    }
    for (from, to, line) in [
        ("seconds: 60\n", "seconds: 060\n", 8),
        ("seconds: 60\n", "seconds: 0\n", 8),
        ("seconds: 60\n", "seconds: 86401\n", 8),
        ("seconds: 60\n", "", 8),
        ("seconds: 60\n", "seconds: 60\nmore: 1\n", 9),
        ("permits: stop\n", "permits: all\n", 7),
        ("permits: stop\n", "permits: uninstall\n", 8),
    ] {
        let text = text.replacen(from, to, 1);
        let taken = take(text.as_bytes(), &lab.pair.sign(text.as_bytes()), NOW);
        assert!(
            matches!(taken, Err(BundleError::Form { line: found, .. }) if found == line),
            "{from:?} {to:?}: {taken:?}"
        );
    }
    // Neither passes for the other.
    let policy = bundle(&lab.pair.header(9), POLICY);
    assert!(matches!(take(&policy, &lab.pair.sign(&policy), NOW), Err(BundleError::Form { .. })));
    let with_policy = format!("{text}\n{POLICY}").into_bytes();
    assert!(matches!(lab.accept(&with_policy, NOW), Err(BundleError::Form { .. })));
    assert_eq!(signed(&token(5, stop)).unwrap(), stop);
}

#[test]
fn what_cannot_be_kept_is_not_taken() {
    let lab = Lab::new();
    let bytes = bundle(&lab.pair.header(1), POLICY);
    let path = lab.dir.path().join("missing/trust.json");
    let mut store = TrustStore::open(&path, "web-1", [lab.pair.public()], 1).unwrap();
    let error = store.accept(&bytes, &[&lab.pair.sign(&bytes)], NOW).unwrap_err();
    assert!(matches!(error, BundleError::State { .. }), "{error}");
    assert_eq!(store.serial(), 0);
}

/// The ordinary tool makes keys and signatures that are taken, and its legacy ones are not.
#[test]
fn minisign_signs() {
    let tool = |lab: &Lab, arguments: &[&str]| {
        Command::new("minisign").args(arguments).current_dir(lab.dir.path()).output()
    };
    let lab = Lab::new();
    let make = ["-G", "-W", "-p", "key.pub", "-s", "key.sec"];
    let Ok(made) = tool(&lab, &make) else {
        println!("SKIP minisign_signs: there is no minisign: cargo xtask setup installs it");
        return;
    };
    assert!(made.status.success(), "{made:?}");
    let public = std::fs::read_to_string(lab.dir.path().join("key.pub")).unwrap();
    let key: PublicKey = public.parse().unwrap();
    // It writes them without leading zeros.
    let id = key.id().to_string();
    assert!(public.contains(id.trim_start_matches('0')), "{public} {id}");
    assert!(public.contains(&key.to_string()));
    let bytes = bundle(&Header::new(1, NOW - 1, NOW + 1, key.id()), POLICY);
    std::fs::write(lab.dir.path().join("bundle"), &bytes).unwrap();
    let mut store = TrustStore::open(&lab.state(), "web-1", [key], 1).unwrap();
    let mut signed = |more: &[&str]| {
        let sign = [&["-S", "-W", "-s", "key.sec", "-m", "bundle"], more].concat();
        let done = tool(&lab, &sign).unwrap();
        assert!(done.status.success(), "{done:?}");
        let text = std::fs::read_to_string(lab.dir.path().join("bundle.minisig")).unwrap();
        store.accept(&bytes, &[&text], NOW)
    };
    assert!(matches!(signed(&["-l"]), Err(BundleError::Signature(_))));
    signed(&["-t", "for the web servers"]).unwrap();
}

#[test]
fn the_fuzz_corpus_keeps_the_invariants() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/bundle");
    let Ok(files) = std::fs::read_dir(&dir) else {
        println!("SKIP the_fuzz_corpus_keeps_the_invariants: no {}", dir.display());
        return;
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        println!("{}", path.display());
        bundle_invariants::check(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 10, "{count} files in the corpus");
}
