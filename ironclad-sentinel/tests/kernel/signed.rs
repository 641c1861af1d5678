//! Signed bundles and break-glass tokens.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use crate::testbed::{EPERM, Host, PATIENCE, lsm};
use ironclad_core::ErrorChain;
use ironclad_core::abi::{SentinelHook, SentinelVerdict};
use ironclad_core::audit::{AuditAction, AuditError, AuditSink};
use ironclad_lab::KeyPair;
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{role, test};
use ironclad_policy::bundle::{BundleError, Header, Permit, PublicKey, Token, TrustStore, now};
use ironclad_policy::document::Sources;
use ironclad_policy::{CompiledPolicy, Policy, PolicySource, Provenance};
use ironclad_sentinel::{
    Degraded, Launch, Overflow, Sentinel, SentinelBuilder, SentinelError, SentinelErrorKind,
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(only_signed_bundles_are_accepted_and_root_does_not_roll_back)
            .in_machine()
            .needs(&[lsm]),
        test!(the_last_bundle_starts_again_after_it_has_expired).in_machine().needs(&[lsm]),
        test!(without_a_trust_store_a_warning_is_printed).in_machine().needs(&[lsm]),
        test!(a_token_permits_ending_the_agent_for_a_while).in_machine().needs(&[lsm]),
        test!(uninstalling_needs_a_token).in_machine().needs(&[lsm]),
        test!(setting_the_clock_brings_no_older_bundle_back).in_machine().needs(&[lsm]),
    ]
}

/// The directory of an agent in another process.
const AGENT: &str = "IRONCLAD_TEST_AGENT";
/// SIGURG and SIGCONT, which do no harm, and two that do.
const URGENT: u32 = 23;
const CONTINUE: u32 = 18;
const STOP: u32 = 19;
const KILL: u32 = 9;

/// An agent that follows orders.
pub(crate) const ROLE: Role = role!(agent);

fn agent() {
    let dir = PathBuf::from(std::env::var_os(AGENT).unwrap());
    let dir = dir.as_path();
    let say = |words: &str| {
        println!("@@ {words}");
        std::io::stdout().flush().unwrap();
    };
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let sources = &mut Sources::new(".");
    let builder = builder(dir).persistent(dir.join("persistent").exists());
    let (bundle, signature) = (read("bundle"), read("bundle.minisig"));
    let signatures = [signature.as_str()];
    let policy = PolicySource::signed(bundle.as_bytes(), &signatures, sources);
    let sentinel = match builder.start(policy) {
        Ok(sentinel) => sentinel,
        Err(error) => return say(&ErrorChain::new(&error).to_string()),
    };
    say("ready");
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "break-glass" => {
                let accepted =
                    sentinel.break_glass(read("token").as_bytes(), &[&read("token.minisig")]);
                say(&accepted.map_or_else(|error| text(&error), |it| it.permits.to_string()));
            }
            "stop" => {
                let stopped = sentinel.stop();
                return say(&stopped.map_or_else(|error| text(&error), |()| "stopped".into()));
            }
            other => panic!("{other}"),
        }
    }
}

fn text(error: &SentinelError) -> String {
    ErrorChain::new(error).to_string()
}

struct Agent {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let mut command = ROLE.command();
        command.env(AGENT, dir);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it has ended");
            if let Some((_, words)) = line.split_once("@@ ") {
                return words.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, words: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{words}").unwrap();
        self.says()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already. A process that may not end it closes its input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[derive(Default)]
struct Recorder(Mutex<Vec<AuditAction>>);

impl AuditSink for Recorder {
    fn record(&self, _instance: &str, action: &AuditAction) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(action.clone());
        Ok(())
    }
}

fn pair() -> KeyPair {
    KeyPair::new(1)
}

fn key() -> PublicKey {
    pair().public().parse().unwrap()
}

fn store(dir: &Path) -> TrustStore {
    TrustStore::open(&dir.join("trust.json"), "db-1", [key()], 1).unwrap()
}

fn builder(dir: &Path) -> SentinelBuilder {
    // One for each test.
    let instance = dir.file_name().unwrap().to_string_lossy().replace('.', "_");
    Sentinel::builder(&instance)
        .launched_by(Launch::Trusted)
        .state_dir(dir.join("state"))
        .signed(Arc::new(Mutex::new(store(dir))))
}

/// A bundle that denies writing to one file.
fn bundle(serial: u64, file: &Path) -> (Vec<u8>, String) {
    bundle_until(serial, file, now() + 86_400)
}

fn bundle_until(serial: u64, file: &Path, expires: u64) -> (Vec<u8>, String) {
    let header = Header::new(serial, expires - 86_460, expires, key().id());
    let rule =
        format!("files:\n  - {{ id: 1, name: a, action: deny, files: {} }}\n", file.display());
    let bytes = format!("{header}\n{rule}").into_bytes();
    let signature = pair().sign(&bytes);
    (bytes, signature)
}

fn apply(
    sentinel: &Sentinel,
    (bundle, signature): &(Vec<u8>, String),
) -> Result<(), SentinelError> {
    sentinel.apply(PolicySource::signed(bundle, &[signature], &mut Sources::new(".")))
}

fn bundle_error(error: &SentinelError) -> &BundleError {
    assert_eq!(error.kind(), SentinelErrorKind::Bundle, "{error}");
    error.source().unwrap().downcast_ref().unwrap()
}

fn serial(sentinel: &Sentinel) -> u64 {
    match sentinel.status().unwrap().provenance {
        Provenance::Bundle { serial, .. } => serial,
        other => panic!("{other:?}"),
    }
}

fn unsigned() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

/// Attacks on the trust store, with an older one in `old.json`.
fn attacks_on_store(host: &Host) -> [String; 11] {
    let path = |name: &str| host.path(name).display().to_string();
    let [trust, next, old, gone] = ["trust.json", "trust.next", "old.json", "gone"].map(path);
    let dir = host.dir().display();
    [
        format!("rename {old} {trust}"),
        format!("append {trust}"),
        format!("truncate {trust}"),
        format!("unlink {trust}"),
        format!("read {trust}"),
        format!("rename {trust} {gone}"),
        format!("link {trust} {gone}"),
        format!("create {next}"),
        format!("symlink {old} {next}"),
        format!("rename {old} {next}"),
        format!("rename {dir} {dir}.gone"),
    ]
}

/// After bundle 6: an older bundle, a changed one, one with an unknown key, an unsigned policy.
fn assert_others_are_refused(sentinel: &Sentinel, two: &Path) {
    let error = apply(sentinel, &bundle(2, two)).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::Replayed { last: 6, .. }), "{error}");
    let (bytes, signature) = bundle(7, two);
    let changed = String::from_utf8(bytes.clone()).unwrap().replace("two", "one").into_bytes();
    let error = apply(sentinel, &(changed, signature)).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::Forged(_)), "{error}");
    let unknown = KeyPair::new(2).sign(&bytes);
    let error = apply(sentinel, &(bytes, unknown)).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::UnknownKey { .. }), "{error}");
    let error = sentinel.apply(&unsigned()).unwrap_err();
    assert!(error.to_string().contains("`PolicySource::signed`"), "{error}");
}

/// A token allows signals of other processes, and each signal is reported.
fn assert_a_token_allows(sentinel: &Sentinel, attacker: &mut TestProcess, signal: &str) {
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let text = stop_for(1, 600).to_string();
    sentinel.break_glass(text.as_bytes(), &[&pair().sign(text.as_bytes())]).unwrap();
    assert!(sentinel.status().unwrap().open_for.is_some());
    assert_eq!(attacker.ask(signal).unwrap(), 0);
    let event = loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        if event.pid == attacker.pid() && event.verdict == SentinelVerdict::Logged {
            break event;
        }
    };
    assert_eq!((event.hook, event.detail), (SentinelHook::TaskKill, URGENT), "{event}");
}

fn only_signed_bundles_are_accepted_and_root_does_not_roll_back() {
    let host = Host::new();
    let dir = host.dir();
    let (one, two) = (host.path("one"), host.path("two"));
    std::fs::write(&one, "1").unwrap();
    std::fs::write(&two, "2").unwrap();
    let (trust, next, old) =
        (host.path("trust.json"), host.path("trust.next"), host.path("old.json"));
    let append = |path: &Path| format!("append {}", path.display());
    let mut attacker = host.test_process();
    let supervisor = host.program("supervisor");
    let mut supervisor_runs = host.test_process_by(&supervisor);

    // Without Sentinel, root restores an older trust store, and an older bundle is accepted again.
    let accept = |(bundle, signature): &(Vec<u8>, String)| {
        store(dir).accept(bundle, &[signature], now()).map(|accepted| accepted.header().serial)
    };
    // Signed once: another second would make other bytes with the same serial, which are refused.
    let first = bundle(1, &one);
    assert_eq!(accept(&first).unwrap(), 1);
    std::fs::copy(&trust, &old).unwrap();
    assert_eq!(accept(&bundle(2, &two)).unwrap(), 2);
    assert!(matches!(accept(&first), Err(BundleError::Replayed { .. })));
    let back = format!("rename {} {}", old.display(), trust.display());
    assert_eq!(attacker.ask(&back).unwrap(), 0);
    assert_eq!(accept(&first).unwrap(), 1);
    std::fs::copy(&trust, &old).unwrap();

    let recorder = Arc::new(Recorder::default());
    let builder = || builder(dir).audit(recorder.clone()).may_stop(&supervisor);
    let error = builder().start(&unsigned()).unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::Unsigned, "{error}");
    let (bytes, signature) = bundle(5, &one);
    let sentinel = builder()
        .start(PolicySource::signed(&bytes, &[&signature], &mut Sources::new(".")))
        .unwrap();
    assert_eq!(serial(&sentinel), 5);
    let is_first = |attacker: &mut TestProcess| {
        assert_eq!(attacker.ask(&append(&one)).unwrap(), EPERM);
        assert_eq!(attacker.ask(&append(&two)).unwrap(), 0);
    };
    is_first(&mut attacker);
    for order in attacks_on_store(&host) {
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
    }
    // The file that replaced it with the next bundle is protected, too.
    apply(&sentinel, &bundle(6, &one)).unwrap();
    for order in [&back, &append(&trust), &format!("create {}", next.display())] {
        assert_eq!(attacker.ask(order).unwrap(), EPERM, "{order}");
    }

    assert_others_are_refused(&sentinel, &two);
    assert_eq!(serial(&sentinel), 6);
    is_first(&mut attacker);

    // A bundle that cannot be applied: its serial is stored, and the old policy stays in force.
    let next_bundle = bundle(7, &host.path("later/file"));
    let error = apply(&sentinel, &next_bundle).unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::NotApplied, "{error}");
    assert!(error.to_string().starts_with("bundle 7 "), "{error}");
    assert_eq!((serial(&sentinel), store(dir).serial()), (6, 7));
    is_first(&mut attacker);
    let error = apply(&sentinel, &bundle(6, &one)).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::Replayed { last: 7, .. }), "{error}");
    std::fs::create_dir(host.path("later")).unwrap();
    apply(&sentinel, &next_bundle).unwrap();
    assert_eq!(serial(&sentinel), 7);
    assert_eq!(attacker.ask(&append(&one)).unwrap(), 0);
    let create = format!("create {}", host.path("later/file").display());
    assert_eq!(attacker.ask(&create).unwrap(), EPERM);

    // Only the executable that `.may_stop(…)` names may send signals.
    let signal = format!("kill {} {URGENT}", std::process::id());
    assert_eq!(attacker.ask(&signal).unwrap(), EPERM);
    let mut restarted = host.test_process_by(&supervisor);
    assert_eq!(restarted.ask(&signal).unwrap(), 0);
    // A process that started before Sentinel is not exempt: its executable is not known for sure.
    assert_eq!(supervisor_runs.ask(&signal).unwrap(), EPERM);
    assert_a_token_allows(&sentinel, &mut attacker, &signal);

    let actions = recorder.0.lock().unwrap().clone();
    let glass = |it: &AuditAction| matches!(it, AuditAction::TokenAccept { serial: 1, permits, .. } if permits == "stop for 600 s");
    assert!(actions.iter().any(glass));
    let accepted = |it: &&AuditAction| matches!(it, AuditAction::BundleAccept { .. });
    let refused = |it: &&AuditAction| matches!(it, AuditAction::BundleRefuse { .. });
    assert_eq!(actions.iter().filter(accepted).count(), 4);
    assert_eq!(actions.iter().filter(refused).count(), 4);
    assert!(!actions.iter().any(|it| matches!(it, AuditAction::PolicyUnsigned { .. })));
    drop(sentinel);
    assert_eq!(attacker.ask(&back).unwrap(), 0);
}

fn the_last_bundle_starts_again_after_it_has_expired() {
    let host = Host::new();
    let file = host.path("file");
    std::fs::write(&file, "1").unwrap();
    let append = format!("append {}", file.display());
    let mut attacker = host.test_process();
    let recorder = Arc::new(Recorder::default());
    let start = |(bundle, signature): &(Vec<u8>, String)| {
        let builder = builder(host.dir()).audit(recorder.clone());
        builder.start(PolicySource::signed(bundle, &[signature], &mut Sources::new(".")))
    };
    let expired = |sentinel: &Sentinel| {
        let degraded = sentinel.status().unwrap().degraded;
        degraded.into_iter().find(|it| matches!(it, Degraded::Bundle { .. }))
    };
    let reports = || {
        let actions = recorder.0.lock().unwrap();
        let expired =
            |it: &&AuditAction| matches!(it, AuditAction::BundleExpired { serial: 1, .. });
        actions.iter().filter(expired).count()
    };
    let last = bundle_until(1, &file, now() - 60);
    let never_accepted = bundle_until(2, &file, now() - 60);
    // It was accepted before it expired.
    let accepted = store(host.dir()).accept(&last.0, &[&last.1], now() - 3600).unwrap();
    assert!(!accepted.is_expired());
    let error = start(&never_accepted).err().unwrap();
    assert!(matches!(bundle_error(&error), BundleError::Expired { .. }), "{error}");
    assert_eq!(attacker.ask(&append).unwrap(), 0);
    let sentinel = start(&last).unwrap();
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    let degraded = expired(&sentinel).unwrap().to_string();
    assert!(degraded.starts_with("bundle 1 expired at "), "{degraded}");
    assert_eq!(reports(), 1);
    // A later bundle ends the state.
    apply(&sentinel, &bundle(2, &file)).unwrap();
    assert_eq!((expired(&sentinel), reports()), (None, 1));
}

fn without_a_trust_store_a_warning_is_printed() {
    let host = Host::new();
    let recorder = Arc::new(Recorder::default());
    let builder = || Sentinel::builder("test").audit(recorder.clone());
    let (bytes, signature) = bundle(1, &host.path("one"));
    let started =
        builder().start(PolicySource::signed(&bytes, &[&signature], &mut Sources::new(".")));
    assert_eq!(started.unwrap_err().kind(), SentinelErrorKind::NoTrust);
    let sentinel = builder().start(&unsigned()).unwrap();
    sentinel.apply(&unsigned()).unwrap();
    let applied = apply(&sentinel, &(bytes.clone(), signature.clone()));
    assert_eq!(applied.unwrap_err().kind(), SentinelErrorKind::NoTrust);
    let broken = sentinel.break_glass(&bytes, &[&signature]);
    assert_eq!(broken.unwrap_err().kind(), SentinelErrorKind::NoTrust);
    assert_eq!(sentinel.status().unwrap().provenance, Provenance::Unsigned);
    let unsigned = |it: &&AuditAction| matches!(it, AuditAction::PolicyUnsigned { .. });
    assert_eq!(recorder.0.lock().unwrap().iter().filter(unsigned).count(), 1, "once");
    sentinel.stop().unwrap();
}

/// The directory with files for an agent in another process.
struct Desk<'a> {
    dir: &'a Path,
}

impl Desk<'_> {
    fn write(&self, name: &str, bytes: &[u8], signature: &str) {
        std::fs::write(self.dir.join(name), bytes).unwrap();
        std::fs::write(self.dir.join(format!("{name}.minisig")), signature).unwrap();
    }

    fn bundle(&self, serial: u64, file: &Path) {
        let (bytes, signature) = bundle(serial, file);
        self.write("bundle", &bytes, &signature);
    }

    fn token(&self, token: &Token, by: &KeyPair) {
        let text = token.to_string();
        self.write("token", text.as_bytes(), &by.sign(text.as_bytes()));
    }
}

fn token(serial: u64, permits: Permit) -> Token {
    Token::new(serial, now() - 60, now() + 3600, key().id(), permits)
}

fn stop_for(serial: u64, seconds: u64) -> Token {
    token(serial, Permit::Stop { seconds })
}

fn a_token_permits_ending_the_agent_for_a_while() {
    let host = Host::new();
    let (file, desk) = (host.path("file"), Desk { dir: host.dir() });
    std::fs::write(&file, "1").unwrap();
    let append = format!("append {}", file.display());
    let mut attacker = host.test_process();
    let mut other = host.test_process();
    desk.bundle(1, &file);
    // Another process can be stopped.
    for signal in [STOP, CONTINUE] {
        assert_eq!(attacker.ask(&format!("kill {} {signal}", other.pid())).unwrap(), 0);
    }
    assert_eq!(other.ask("kill 1 0").unwrap(), 0);
    let mut agent = Agent::start(host.dir());
    assert_eq!(agent.says(), "ready");
    let pid = agent.child.id();
    let kill = |signal: u32| format!("kill {pid} {signal}");
    for signal in [STOP, KILL] {
        assert_eq!(attacker.ask(&kill(signal)).unwrap(), EPERM, "{signal}");
    }

    // A token for another host, an expired one, and one with an unknown key permit nothing.
    let mut elsewhere = stop_for(1, 600);
    elsewhere.hosts = vec!["web-*".parse().unwrap()];
    let expired = Token::new(1, now() - 60, now() - 30, key().id(), Permit::Stop { seconds: 600 });
    let pair = pair();
    for (token, by, why) in [
        (&elsewhere, &pair, "it is for web-*"),
        (&expired, &pair, "it expired"),
        (&stop_for(1, 600), &KeyPair::new(2), "not trusted here"),
    ] {
        desk.token(token, by);
        let said = agent.ask("break-glass");
        assert!(said.contains(why), "{said}");
        assert_eq!(attacker.ask(&kill(STOP)).unwrap(), EPERM, "{why}");
    }
    // A bundle is no token.
    let (bytes, signature) = bundle(2, &file);
    desk.write("token", &bytes, &signature);
    let said = agent.ask("break-glass");
    assert!(said.contains("expected `ironclad-break-glass"), "{said}");
    assert_eq!(attacker.ask(&kill(STOP)).unwrap(), EPERM);

    desk.token(&stop_for(1, 600), &pair);
    assert_eq!(agent.ask("break-glass"), "stop for 600 s");
    for signal in [STOP, CONTINUE] {
        assert_eq!(attacker.ask(&kill(signal)).unwrap(), 0, "{signal}");
    }
    // Only signals: other operations are refused as before.
    assert_eq!(attacker.ask(&format!("trace {pid}")).unwrap(), EPERM);
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    let said = agent.ask("break-glass");
    assert!(said.contains("it has serial 1, and 1 was accepted before"), "{said}");

    // The permission ends by itself.
    desk.token(&stop_for(2, 1), &pair);
    assert_eq!(agent.ask("break-glass"), "stop for 1 s");
    let since = std::time::Instant::now();
    while attacker.ask(&kill(URGENT)).unwrap() != EPERM {
        assert!(since.elapsed() < PATIENCE, "it does not end");
    }
    for signal in [STOP, KILL] {
        assert_eq!(attacker.ask(&kill(signal)).unwrap(), EPERM, "{signal}");
    }

    desk.token(&stop_for(3, 600), &pair);
    assert_eq!(agent.ask("break-glass"), "stop for 600 s");
    assert_eq!(attacker.ask(&kill(KILL)).unwrap(), 0);
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(agent.child.wait().unwrap().signal(), Some(KILL as i32));
    // It was not persistent: protection has ended with it.
    assert_eq!(attacker.ask(&append).unwrap(), 0);
}

fn uninstalling_needs_a_token() {
    let host = Host::new();
    let (file, desk) = (host.path("file"), Desk { dir: host.dir() });
    std::fs::write(&file, "1").unwrap();
    std::fs::write(host.path("persistent"), "").unwrap();
    let append = format!("append {}", file.display());
    let mut attacker = host.test_process();
    assert_eq!(attacker.ask(&append).unwrap(), 0);
    desk.bundle(1, &file);
    // This process is the first agent, and stays trusted when successors adopt the instance.
    let (bytes, signature) = bundle(1, &file);
    desk.write("bundle", &bytes, &signature);
    let first = builder(host.dir()).persistent(true);
    let sentinel =
        first.start(PolicySource::signed(&bytes, &[&signature], &mut Sources::new("."))).unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // A stop without a token changes nothing.
    assert_eq!(sentinel.stop().unwrap_err().kind(), SentinelErrorKind::NotPermitted);
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    drop(events);
    // A successor with the same bundle needs a token, too. Root cannot remove the trust store.
    desk.token(&stop_for(1, 600), &pair());
    let mut agent = Agent::start(host.dir());
    assert_eq!(agent.says(), "ready");
    assert_eq!(agent.ask("break-glass"), "stop for 600 s");
    let said = agent.ask("stop");
    assert!(said.contains("permits `uninstall`"), "{said}");
    drop(agent);
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    let trust = host.path("trust.json");
    assert_eq!(attacker.ask(&format!("unlink {}", trust.display())).unwrap(), EPERM);

    // Another successor, with a token.
    let mut agent = Agent::start(host.dir());
    assert_eq!(agent.says(), "ready");
    desk.token(&token(1, Permit::Uninstall), &pair());
    assert!(agent.ask("break-glass").contains("it has serial 1, and 1 was accepted before"));
    desk.token(&token(2, Permit::Uninstall), &pair());
    assert_eq!(agent.ask("break-glass"), "uninstall");
    assert_eq!(agent.ask("stop"), "stopped");
    drop(agent);
    assert_eq!(attacker.ask(&append).unwrap(), 0);
    let name = host.dir().file_name().unwrap().to_string_lossy().replace('.', "_");
    let pins = format!("/sys/fs/bpf/ironclad/{name}-sentinel/v{}", ironclad_core::abi::VERSION);
    assert!(!Path::new(&pins).exists());
}

/// The clock, which another process sets. It is right again when dropped.
struct Clock {
    began: u64,
    since: std::time::Instant,
    setter: TestProcess,
}

impl Clock {
    fn new(host: &Host) -> Self {
        Self { began: now(), since: std::time::Instant::now(), setter: host.test_process() }
    }

    /// Sets it to so many seconds after the right time.
    fn set(&mut self, seconds: i64) {
        let right = self.began + self.since.elapsed().as_secs();
        let time = right.saturating_add_signed(seconds);
        assert_eq!(self.setter.ask(&format!("tool date -s @{time}")).unwrap(), 0);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Root may set the clock. What counts is `made` of what was accepted, serials, and the time since the boot.
fn setting_the_clock_brings_no_older_bundle_back() {
    const DAY: i64 = 86_400;
    let host = Host::new();
    let [old, new] = ["old", "new"].map(|name| host.path(name));
    for file in [&old, &new] {
        std::fs::write(file, "1").unwrap();
    }
    let append = |path: &Path| format!("append {}", path.display());
    let (mut attacker, mut clock) = (host.test_process(), Clock::new(&host));
    // Expired since an hour, never accepted, with a later serial.
    let expired = bundle_until(9, &old, now() - 3600);
    let (first, last, next) = (bundle(1, &old), bundle(5, &new), bundle(10, &new));
    let (token, late) = (stop_for(1, 600), stop_for(2, 600));
    let elsewhere = tempfile::tempdir().unwrap();
    let fresh = || store(elsewhere.path()).accept(&expired.0, &[&expired.1], now());
    assert!(matches!(fresh(), Err(BundleError::Expired { .. })));
    let start = || {
        builder(host.dir()).start(PolicySource::signed(&last.0, &[&last.1], &mut Sources::new(".")))
    };
    let is_last = |sentinel: &Sentinel, attacker: &mut TestProcess| {
        assert_eq!(serial(sentinel), 5);
        assert_eq!(attacker.ask(&append(&new)).unwrap(), EPERM);
        assert_eq!(attacker.ask(&append(&old)).unwrap(), 0);
    };
    let glass = |sentinel: &Sentinel, token: &Token| {
        let text = token.to_string();
        sentinel.break_glass(text.as_bytes(), &[&pair().sign(text.as_bytes())])
    };
    let sentinel = start().unwrap();
    is_last(&sentinel, &mut attacker);

    clock.set(-2 * DAY);
    // A store that has accepted nothing knows the clock alone.
    fresh().unwrap();
    let error = apply(&sentinel, &expired).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::Expired { .. }), "{error}");
    let error = apply(&sentinel, &first).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::Replayed { last: 5, .. }), "{error}");
    is_last(&sentinel, &mut attacker);
    // A restart meanwhile.
    drop(sentinel);
    let sentinel = start().unwrap();
    is_last(&sentinel, &mut attacker);

    clock.set(2 * DAY);
    for refused in [&next, &expired] {
        let error = apply(&sentinel, refused).unwrap_err();
        assert!(matches!(bundle_error(&error), BundleError::Expired { .. }), "{error}");
    }
    assert_eq!(glass(&sentinel, &token).unwrap_err().kind(), SentinelErrorKind::Token);
    // The policy in force stays, and the status says that its bundle has expired.
    let is_expired = |it: &Degraded| matches!(it, Degraded::Bundle { serial: 5, .. });
    assert!(sentinel.status().unwrap().degraded.iter().any(is_expired));
    is_last(&sentinel, &mut attacker);

    // Nothing of it stays. The clock does not lengthen what a token permits, nor end it.
    clock.set(0);
    let whole = std::time::Duration::from_secs(600);
    let signal = format!("kill {} {URGENT}", std::process::id());
    assert_eq!(attacker.ask(&signal).unwrap(), EPERM);
    glass(&sentinel, &token).unwrap();
    for days in [-2, 2, 0] {
        clock.set(days * DAY);
        assert!(sentinel.status().unwrap().open_for.unwrap() <= whole);
        assert_eq!(attacker.ask(&signal).unwrap(), 0);
    }
    assert_eq!(glass(&sentinel, &token).unwrap_err().kind(), SentinelErrorKind::Token);
    glass(&sentinel, &late).unwrap();
    apply(&sentinel, &next).unwrap();
    assert_eq!(serial(&sentinel), 10);
    clock.set(-2 * DAY);
    let error = apply(&sentinel, &last).unwrap_err();
    assert!(matches!(bundle_error(&error), BundleError::Replayed { last: 10, .. }), "{error}");
}
