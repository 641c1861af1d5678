//! Needs root: executables whose content a rule has pinned.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ironclad_core::{RuleId, SocketVerdict};
use ironclad_lab::{Mounts, warnings};
use ironclad_policy::socket::{
    Direction, SHA256_MISMATCH, SocketAction, SocketQuery, SocketRule, Subject,
};
use ironclad_policy::{CompiledPolicy, Policy, Protocol, Sha256Sum};
use ironclad_shield::Overflow;

use crate::testbed::{EPERM, Host, PATIENCE, count, provisional, rule_of};
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(pinned_content_is_allowed_and_other_content_is_denied).shared(),
        test!(a_file_that_is_written_later_is_denied).shared(),
        test!(a_running_program_keeps_its_rights_when_the_inode_changes).shared(),
        test!(a_file_that_replaces_another_is_read).shared(),
        test!(unknown_content_is_a_mismatch).shared(),
        test!(dry_runs_and_logs_only_report).shared(),
        test!(a_file_that_is_too_large_is_denied_unread).on_host().shared(),
        test!(calls_do_not_wait_while_files_are_read).on_host().shared(),
        test!(stopping_does_not_wait_for_files).on_host(),
        test!(calls_do_not_wait_for_a_lease).shared(),
        test!(a_pinned_file_may_be_on_an_overlay).shared(),
    ]
}

const OUT: &str = "connect tcp 10.9.0.2:80";
const IN: &str = "bind tcp 10.9.0.1:0";
const CREATE: &str = "create 4 3 1";

fn policy(rules: impl IntoIterator<Item = SocketRule>) -> CompiledPolicy {
    let policy = Policy::builder().socket_default(Direction::Out, SocketVerdict::Deny);
    rules.into_iter().fold(policy, Policy::socket_rule).compile().unwrap()
}

fn allow(subject: Subject) -> SocketRule {
    SocketRule::new(RuleId(1), "the program", SocketAction::Allow).subject(subject)
}

fn pinned(path: &Path, sum: Sha256Sum) -> CompiledPolicy {
    policy([allow(Subject::new("").exe_sha256(path, sum))])
}

fn sum(path: &Path) -> Sha256Sum {
    Sha256Sum::of(&std::fs::read(path).unwrap())
}

/// Writes behind the program, which runs as before: another content of the same file.
fn append(path: &Path) {
    let before = std::fs::metadata(path).unwrap();
    OpenOptions::new().append(true).open(path).unwrap().write_all(b"!").unwrap();
    let after = std::fs::metadata(path).unwrap();
    assert_eq!((before.ino(), before.len() + 1), (after.ino(), after.len()));
}

const NONE: [PathBuf; 0] = [];
const WRONG: Sha256Sum = Sha256Sum([7; 32]);

fn pinned_content_is_allowed_and_other_content_is_denied() {
    let host = Host::new();
    let one = host.program("one");
    let mut before = host.test_process(&one);
    // Without us it may.
    for order in [OUT, IN, CREATE] {
        assert_eq!(before.ask(order).unwrap(), 0, "{order}");
    }
    let shield = host.start_without_following(&pinned(&one, sum(&one)));
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    let mut after = host.test_process(&one);
    for order in [OUT, IN, CREATE] {
        assert_eq!((before.ask(order).unwrap(), after.ask(order).unwrap()), (0, 0), "{order}");
    }
    let counted = count(&shield, SHA256_MISMATCH.0);
    assert_eq!((counted.name.as_str(), counted.denied), ("sha256-mismatch", 0));
    assert_eq!(count(&shield, 1).allowed, 2);

    // Of several contents one suffices; none of them does not.
    let two = Subject::new("").exe_sha256(&one, WRONG).exe_sha256(&one, sum(&one));
    shield.apply(&policy([allow(two)])).unwrap();
    assert_eq!((before.ask(OUT).unwrap(), after.ask(OUT).unwrap()), (0, 0));
    let another = SocketRule::new(RuleId(2), "any", SocketAction::Allow);
    shield.apply(&policy([allow(Subject::new("").exe_sha256(&one, WRONG)), another])).unwrap();
    for order in [OUT, IN, CREATE] {
        assert_eq!(after.ask(order).unwrap(), EPERM, "{order}");
        let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
        let rule = rule_of(&shield, &event);
        assert_eq!((rule, event.verdict), (Some(SHA256_MISMATCH), SocketVerdict::Deny), "{order}");
        assert_eq!(
            (event.pid, event.exe.ino),
            (after.pid(), std::fs::metadata(&one).unwrap().ino())
        );
        assert_eq!(shield.explain_event(&event).unwrap().agrees, Some(true), "{order}");
        assert_eq!(before.ask(order).unwrap(), EPERM, "{order}");
        let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
        assert_eq!(event.pid, before.pid());
    }
    assert_eq!(count(&shield, SHA256_MISMATCH.0).denied, 6);
    // Processes that execute another file are not affected.
    assert_eq!(host.test_process(&host.program("other")).ask(OUT).unwrap(), 0);
}

/// By ctime, which the kernel sets: the agent does nothing.
fn a_file_that_is_written_later_is_denied() {
    let host = Host::new();
    let one = host.program("one");
    let original = std::fs::read(&one).unwrap();
    // A rule without a pin knows the file, not its content.
    let shield = host.start_without_following(&policy([allow(Subject::new("").exe(&one))]));
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
    append(&one);
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0, "without a pin");

    let content = pinned(&one, sum(&one));
    shield.apply(&content).unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
    let times = std::fs::metadata(&one).unwrap();
    append(&one);
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    let mut changed = host.test_process(&one);
    assert_eq!(changed.ask(OUT).unwrap(), EPERM);
    let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
    let rule = rule_of(&shield, &event);
    assert_eq!((rule, event.exe.ino), (Some(SHA256_MISMATCH), times.ino()));
    drop(changed);
    // The former content, and its times as far as they can be set.
    let set = |length| {
        let file = OpenOptions::new().write(true).open(&one).unwrap();
        file.set_len(length).unwrap();
        let of = std::fs::FileTimes::new();
        file.set_times(
            of.set_modified(times.modified().unwrap()).set_accessed(times.accessed().unwrap()),
        )
        .unwrap();
    };
    set(original.len() as u64 + 1);
    assert_eq!(std::fs::metadata(&one).unwrap().modified().unwrap(), times.modified().unwrap());
    let mut again = host.test_process(&one);
    assert_eq!(again.ask(OUT).unwrap(), EPERM, "not known to be what it was");
    shield.apply(&content).unwrap();
    assert_eq!(again.ask(OUT).unwrap(), 0);
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
}

fn a_running_program_keeps_its_rights_when_the_inode_changes() {
    let host = Host::new();
    let one = host.program("one");
    let content = pinned(&one, sum(&one));
    let shield = host.start_without_following(&content);
    let mut runs = host.test_process(&one);
    assert_eq!(runs.ask(OUT).unwrap(), 0);
    let change = || std::fs::set_permissions(&one, PermissionsExt::from_mode(0o700)).unwrap();
    change();
    assert_eq!(runs.ask(OUT).unwrap(), 0);
    assert_eq!(runs.ask(&format!("fork {} {OUT}", one.display())).unwrap(), EPERM);
    let mut later = host.test_process(&one);
    assert_eq!(later.ask(OUT).unwrap(), EPERM);
    // Until a refresh: the content is the same.
    assert_eq!(shield.refresh_paths().unwrap().len(), 1);
    assert_eq!((runs.ask(OUT).unwrap(), later.ask(OUT).unwrap()), (0, 0));
    assert_eq!(shield.refresh_paths().unwrap(), []);
    change();
    shield.apply(&content).unwrap();
    assert_eq!((runs.ask(OUT).unwrap(), later.ask(OUT).unwrap()), (0, 0));
    // Four such moments are known.
    for _ in 0..2 {
        assert_eq!(runs.ask(OUT).unwrap(), 0);
        change();
        shield.refresh_paths().unwrap();
    }
    assert_eq!((runs.ask(OUT).unwrap(), later.ask(OUT).unwrap()), (EPERM, 0));
    assert_eq!(runs.ask(&format!("exec {}", one.display())).unwrap(), 0);
    assert_eq!(runs.ask(OUT).unwrap(), 0);
}

fn a_file_that_replaces_another_is_read() {
    let host = Host::new();
    let (one, new) = (host.program("one"), host.path("new"));
    let shield = host.start_without_following(&pinned(&one, sum(&one)));
    let mut runs = host.test_process(&one);
    std::fs::copy(&one, &new).unwrap();
    std::fs::rename(&new, &one).unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), EPERM, "an unidentified process");
    shield.refresh_paths().unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
    std::fs::copy(&one, &new).unwrap();
    append(&new);
    std::fs::rename(&new, &one).unwrap();
    shield.refresh_paths().unwrap();
    assert_eq!(count(&shield, SHA256_MISMATCH.0).denied, 0);
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), EPERM);
    assert_eq!(count(&shield, SHA256_MISMATCH.0).denied, 1);
    assert_eq!(runs.ask(OUT).unwrap(), 0, "it runs since before");
}

fn unknown_content_is_a_mismatch() {
    let host = Host::new();
    let one = host.program("one");
    let content = pinned(&one, sum(&one));
    let shield = host.start_without_following(&policy([]));
    // A process that has mapped it may write without notice.
    let writer = OpenOptions::new().write(true).open(&one).unwrap();
    shield.apply(&content).unwrap();
    drop(writer);
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), EPERM);
    shield.refresh_paths().unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);

    // A pipe is not waited for, and a missing file may be created later.
    let pipe = one.with_file_name("pipe");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let status = || shield.status().unwrap();
    let dir = host.programs.path();
    shield.apply(&policy([allow(Subject::new("").exe(&pipe).exe(dir).exe(&one))])).unwrap();
    assert_eq!(status().missing, [dir.to_owned(), pipe.clone()]);
    assert!(status().mismatched.is_empty());
    let absent = pipe.with_file_name("absent");
    let subject = Subject::new("").exe_sha256(&absent, WRONG).exe_sha256(&one, sum(&one));
    shield.apply(&policy([allow(subject)])).unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
    assert_eq!((status().missing, status().mismatched), (vec![absent.clone()], vec![]));
    // Reading it then does not wait, either.
    std::fs::rename(&pipe, &absent).unwrap();
    shield.refresh_paths().unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
    std::fs::rename(&one, &absent).unwrap();
    shield.refresh_paths().unwrap();
    assert_eq!((status().missing, status().mismatched), (vec![one.clone()], vec![absent.clone()]));
}

/// Rules that deny nothing make no mismatch that does.
fn dry_runs_and_logs_only_report() {
    let host = Host::new();
    let one = host.program("one");
    let mut test_process = host.test_process(&one);
    let wrong = || Subject::new("").exe_sha256(&one, WRONG);
    let any = || SocketRule::new(RuleId(2), "any", SocketAction::Allow);
    let log = SocketRule::new(RuleId(3), "log", SocketAction::Log).subject(wrong());
    let shield = host.start_without_following(&policy([any()]));
    let (_pump, events) = shield.events(16, Overflow::DropNewest).unwrap();
    for tried in [allow(wrong()).dry_run(true), log] {
        shield.apply(&policy([tried, any()])).unwrap();
        assert_eq!(test_process.ask(OUT).unwrap(), 0);
        let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
        assert!(event.log);
        let rule = rule_of(&shield, &event);
        assert_eq!(rule, Some(SHA256_MISMATCH));
    }
    assert_eq!(count(&shield, SHA256_MISMATCH.0).logged, 2);
    assert_eq!(count(&shield, 2).allowed, 2);
}

fn set_length(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Works in a thread of its own. What would go on for ever ends by `undo`, and fails.
fn in_time<T: Send>(work: impl FnOnce() -> T + Send, undo: impl FnOnce()) -> T {
    let (done, answer) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || done.send(work()));
        let answer = answer.recv_timeout(PATIENCE);
        if answer.is_err() {
            undo();
        }
        answer.expect("it would have gone on")
    })
}

/// The owner may make a file as large as the file system permits: it is not read.
fn a_file_that_is_too_large_is_denied_unread() {
    let host = Host::new();
    let one = host.program("one");
    let (content, length) = (pinned(&one, sum(&one)), std::fs::metadata(&one).unwrap().len());
    let shield = host.start_without_following(&content);
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
    let large =
        format!("{} is not the file that is pinned, it is larger than 1 GiB", one.display());
    for (most, is_applied) in [((1 << 30) + 1, true), (1 << 42, true), (1 << 41, false)] {
        set_length(&one, most);
        let look = || match is_applied {
            true => shield.apply(&content).unwrap(),
            false => drop(shield.refresh_paths().unwrap()),
        };
        let said = in_time(|| warnings(look).1, || set_length(&one, length));
        assert!(said.contains(&large), "{said}");
        assert_eq!(shield.status().unwrap().mismatched, std::slice::from_ref(&one));
        assert_eq!(host.test_process(&one).ask(OUT).unwrap(), EPERM);
        set_length(&one, length);
        shield.refresh_paths().unwrap();
        assert_eq!(shield.status().unwrap().mismatched, NONE);
        assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0, "it has the former content");
    }
}

/// Files that take longer to read than a test waits, and a policy that pins them.
struct Holes {
    host: Host,
    one: PathBuf,
    holes: Vec<PathBuf>,
    policy: CompiledPolicy,
}

impl Holes {
    /// Empty ones.
    fn new() -> Self {
        let host = Host::new();
        let one = host.program("one");
        let holes: Vec<PathBuf> = (0..500).map(|n| host.path(&format!("hole-{n:03}"))).collect();
        holes.iter().for_each(|hole| std::fs::write(hole, "").unwrap());
        let subject = Subject::new("").exe_sha256(&one, sum(&one));
        let subject = holes
            .iter()
            .fold(subject, |subject, hole| subject.exe_sha256(hole, Sha256Sum::of(b"")));
        Self { host, one, holes, policy: policy([allow(subject)]) }
    }

    fn set_lengths(&self, length: u64) {
        self.holes.iter().for_each(|hole| set_length(hole, length));
    }

    /// The position of a hole that this process has open.
    fn position(&self) -> Option<u64> {
        std::fs::read_dir("/proc/self/fd").unwrap().find_map(|fd| {
            let fd = fd.unwrap();
            // Other threads close descriptors meanwhile.
            let path = std::fs::read_link(fd.path()).ok()?;
            let number = fd.file_name().into_string().unwrap();
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
            let position = info.lines().next()?.strip_prefix("pos:")?.trim().parse().ok()?;
            (self.holes.contains(&path) && position > 0).then_some(position)
        })
    }

    fn wait_until_read(&self) {
        let begin = Instant::now();
        while self.position().is_none() {
            assert!(begin.elapsed() < PATIENCE, "no file is read");
            std::thread::yield_now();
        }
    }
}

/// The owner of a file decides how long reading takes.
fn calls_do_not_wait_while_files_are_read() {
    let holes = Holes::new();
    let host = &holes.host;
    let shield = host.start_without_following(&policy([]));
    shield.apply_with(&holes.policy, provisional(Duration::from_secs(3600))).unwrap();
    assert_eq!(shield.status().unwrap().mismatched, NONE);
    let mut test_process = host.test_process(&holes.one);
    // By a refresh, and by applying a policy.
    for is_applied in [false, true] {
        holes.set_lengths(1 << 30);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| match is_applied {
                true => shield.apply(&holes.policy),
                false => shield.refresh_paths().map(drop),
            });
            holes.wait_until_read();
            let other_calls = || {
                let provisional = shield.status().unwrap().provisional;
                let query = SocketQuery::connect(Protocol::TCP, "10.9.0.2:80".parse().unwrap());
                shield.explain_socket(&query).unwrap();
                assert_eq!(test_process.ask(OUT).unwrap(), 0);
                match is_applied {
                    true => shield.apply(&policy([allow(Subject::new(""))])).unwrap(),
                    false => shield.confirm().unwrap(),
                }
                provisional.is_some()
            };
            let was_provisional = in_time(other_calls, || holes.set_lengths(0));
            let is_read = holes.position().is_some();
            holes.set_lengths(0);
            assert_eq!(was_provisional, !is_applied);
            assert!(is_read, "reading was over before the other calls");
            reader.join().unwrap().unwrap();
        });
        // What changed while it was read is read again.
        shield.refresh_paths().unwrap();
        assert_eq!(shield.status().unwrap().mismatched, NONE);
        assert_eq!(shield.policy().unwrap().id(), holes.policy.id());
    }
}

fn stopping_does_not_wait_for_files() {
    let holes = Holes::new();
    let shield = holes.host.start(&holes.policy);
    holes.set_lengths(1 << 30);
    holes.wait_until_read();
    in_time(|| shield.stop().unwrap(), || holes.set_lengths(0));
    assert_eq!(holes.position(), None);
}

/// Usually open(2) waits for a lease of another process.
fn calls_do_not_wait_for_a_lease() {
    let host = Host::new();
    let (one, two) = (host.program("one"), host.program("two"));
    let content = pinned(&one, sum(&one));
    let shield = host.start_without_following(&policy([]));
    let mut owner = host.test_process(&two);
    assert_eq!(owner.ask(&format!("lease {}", one.display())).unwrap(), 0);
    let ((), said) = warnings(|| shield.apply(&content).unwrap());
    assert!(said.contains("a process has a lease on it"), "{said}");
    assert_eq!(shield.status().unwrap().mismatched, std::slice::from_ref(&one));
    drop(owner);
    shield.refresh_paths().unwrap();
    assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
}

/// Which is the file below, as fstat(2) of an open descriptor shows.
fn a_pinned_file_may_be_on_an_overlay() {
    let host = Host::new();
    Mounts::apart(|mounts| {
        mounts.tmpfs(host.programs.path()).unwrap();
        let [lower, upper, work, all] = host.directories(["lower", "upper", "work", "all"]);
        let (below, other) = (host.program("lower/one"), host.program("other"));
        if let Err(error) = mounts.overlay(&lower, &upper, &work, &all) {
            skip(format!("this kernel has no overlayfs here: {error}"));
        }
        let one = all.join("one");
        let content = pinned(&one, sum(&one));
        let shield = host.start_without_following(&policy([]));
        let status = || shield.status().unwrap();
        let mut owner = host.test_process(&other);
        assert_eq!(owner.ask(&format!("lease {}", below.display())).unwrap(), 0);
        shield.apply(&content).unwrap();
        assert_eq!((status().missing, status().mismatched), (vec![one.clone()], vec![]));
        drop(owner);
        shield.refresh_paths().unwrap();
        assert_eq!((status().missing, status().mismatched), (vec![], vec![]));
        assert_eq!(host.test_process(&one).ask(OUT).unwrap(), 0);
        // Copied up, and written to.
        append(&one);
        assert_eq!(host.test_process(&one).ask(OUT).unwrap(), EPERM);
        shield.refresh_paths().unwrap();
        assert_eq!(status().mismatched, std::slice::from_ref(&one));
        set_length(&one, (1 << 30) + 1);
        let ((), said) = warnings(|| shield.apply(&content).unwrap());
        assert!(said.contains("it is larger than 1 GiB"), "{said}");
    })
    .unwrap();
}
