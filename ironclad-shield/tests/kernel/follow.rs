//! Needs root: files and cgroups that change while rules name them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ironclad_core::audit::AuditAction;
use ironclad_core::{RuleId, SocketVerdict};
use ironclad_lab::Cgroup;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::socket::{Direction, SocketAction, SocketRule, Subject};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_shield::Shield;

use crate::recorder::Recorder;
use crate::testbed::{Host, provisional};
use ironclad_lab::harness::Test;
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(children_of_a_former_file_match_by_time_of_execve),
        test!(a_child_of_a_former_file_is_denied_when_its_parent_has_ended),
        test!(a_change_that_the_kernel_refuses_is_made_later).on_host(),
        test!(a_replaced_file_is_known_and_running_processes_keep_their_rights),
        test!(links_and_renamed_directories_are_followed_in_both_policies),
        test!(a_cgroup_that_is_created_again_is_known),
        test!(descendants_of_a_replaced_file_descend_from_its_path),
    ]
}

const EPERM: u64 = 1;
/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);
const THERE: &str = "connect udp 10.9.0.2:53";

fn policy(subject: Subject) -> CompiledPolicy {
    Policy::builder()
        .socket_rule(SocketRule::new(RuleId(1), "may", SocketAction::Allow).subject(subject))
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .compile()
        .unwrap()
}

struct Followed {
    shield: Shield,
    recorder: Arc<Recorder>,
}

impl Followed {
    fn start(host: &Host, policy: &CompiledPolicy) -> Self {
        let recorder = Arc::new(Recorder::default());
        let builder = Shield::builder("follow").cgroup(host.cgroup.dir()).audit(recorder.clone());
        Self { shield: builder.start(policy).unwrap(), recorder }
    }

    /// How often a path was found to lead elsewhere.
    fn changes(&self, path: &Path) -> usize {
        let path = path.display().to_string();
        let recorded = |action: &&AuditAction| matches!(action, AuditAction::MapWrite { purpose, .. } if purpose.starts_with(&path));
        self.recorder.0.lock().unwrap().iter().filter(recorded).count()
    }

    /// Does something to a path and waits until that is in the kernel.
    fn after(&self, path: &Path, change: impl FnOnce()) {
        let before = self.changes(path);
        change();
        let begin = Instant::now();
        while self.changes(path) == before {
            assert!(begin.elapsed() < PATIENCE, "not followed: {}", path.display());
            std::thread::yield_now();
        }
    }
}

/// Puts another file where one is, as package managers do.
fn upgrade(path: &Path) {
    let new = path.with_extension("new");
    std::fs::copy(std::env::current_exe().unwrap(), &new).unwrap();
    std::fs::rename(&new, path).unwrap();
}

fn ask(test_process: &mut TestProcess) -> u64 {
    test_process.ask(THERE).unwrap()
}

/// A child has the rights of one that the former file has, where its parent executed that before.
fn children_of_a_former_file_match_by_time_of_execve() {
    let host = Host::new();
    let (parent, child) = (host.program("parent"), host.program("child"));
    let old = parent.with_file_name("old");
    std::fs::hard_link(&parent, &old).unwrap();
    let followed = Followed::start(&host, &policy(Subject::new("").parent(&parent)));
    let fork = format!("fork {} {THERE}", child.display());
    let mut before = host.test_process(&parent);
    assert_eq!((before.ask(&fork).unwrap(), ask(&mut before)), (0, EPERM));
    followed.after(&parent, || upgrade(&parent));
    assert_eq!(host.test_process(&parent).ask(&fork).unwrap(), 0, "the new file");
    assert_eq!(before.ask(&fork).unwrap(), 0, "the parent runs since before");
    assert_eq!(host.test_process(&old).ask(&fork).unwrap(), EPERM, "the parent came later");
}

/// A rule that denies by the parent holds when that is replaced, and when it has ended.
fn a_child_of_a_former_file_is_denied_when_its_parent_has_ended() {
    let host = Host::new();
    let (parent, child) = (host.program("parent"), host.program("child"));
    let deny = SocketRule::new(RuleId(1), "parent", SocketAction::Deny);
    let deny = deny.subject(Subject::new("").parent(&parent));
    let followed = Followed::start(&host, &Policy::builder().socket_rule(deny).compile().unwrap());
    let mut heir = host.test_process(&parent);
    assert_eq!(ask(&mut heir), 0, "its parent is none of them");
    heir.ask(&format!("heir {}", child.display())).unwrap();
    assert_eq!(ask(&mut heir), EPERM);
    // Twice: a file that no process runs is forgotten at a later change.
    for _ in 0..2 {
        followed.after(&parent, || upgrade(&parent));
        assert_eq!(ask(&mut heir), EPERM);
    }
}

/// What the kernel refuses changes nothing, and is tried again: here there is no room.
fn a_change_that_the_kernel_refuses_is_made_later() {
    // What rules of two policies may name.
    const ROOM: u32 = 65_536;
    let host = Host::new();
    let programs = ["a", "b", "c"].map(|name| host.program(name));
    let allow =
        |id, subject| SocketRule::new(RuleId(id), "programs", SocketAction::Allow).subject(subject);
    let named = programs.iter().fold(Subject::new("programs"), Subject::exe);
    // Room for two files more, once another policy names the three, too.
    let crowd = (1..=ROOM - 8).fold(Subject::new("crowd"), |crowd, n| crowd.uid(1_000_000 + n));
    let policy = Policy::builder()
        .socket_rule(allow(1, named))
        .socket_rule(allow(2, crowd))
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .compile()
        .unwrap();
    // The first policy sizes the tables.
    let shield = host.start_without_following(&Policy::builder().compile().unwrap());
    shield.apply(&policy).unwrap();
    let other = Subject::new("other").exe(&programs[0]).exe(&programs[1]).exe(&programs[2]);
    shield.apply_with(&self::policy(other), provisional(Duration::from_secs(3600))).unwrap();
    let mut before = programs.each_ref().map(|program| host.test_process(program));
    programs.iter().for_each(|program| upgrade(program));
    let each = |test_processes: &mut [TestProcess; 3]| test_processes.each_mut().map(ask);
    let after = || programs.each_ref().map(|program| ask(&mut host.test_process(program)));
    for _ in 0..2 {
        let refused = shield.refresh_paths().unwrap_err();
        assert!(refused.to_string().contains("65536"), "{refused}");
        assert_eq!((each(&mut before), after()), ([0; 3], [EPERM; 3]));
    }
    // Back to the first, which has room then.
    shield.revert().unwrap();
    assert_eq!((each(&mut before), after()), ([0; 3], [EPERM; 3]));
    assert_eq!(shield.refresh_paths().unwrap().len(), 3);
    assert_eq!((each(&mut before), after()), ([0; 3], [0; 3]));
}

fn a_replaced_file_is_known_and_running_processes_keep_their_rights() {
    let host = Host::new();
    let good = host.program("good");
    let old = good.with_file_name("old");
    std::fs::hard_link(&good, &old).unwrap();
    let followed = Followed::start(&host, &policy(Subject::new("").exe(&good)));
    let mut before = host.test_process(&good);
    assert_eq!(ask(&mut before), 0);
    for _ in 0..3 {
        followed.after(&good, || upgrade(&good));
        assert_eq!(ask(&mut host.test_process(&good)), 0, "the new file");
    }
    assert_eq!(ask(&mut before), 0, "it ran before");
    assert_eq!(ask(&mut host.test_process(&old)), EPERM, "no path leads to the old file");
    // It keeps its rights under another policy.
    followed.shield.apply(&policy(Subject::new("again").exe(&good))).unwrap();
    assert_eq!((ask(&mut before), ask(&mut host.test_process(&old))), (0, EPERM));
    before.ask(&format!("exec {}", old.display())).unwrap();
    assert_eq!(ask(&mut before), EPERM, "what it executed now is an unidentified process");

    // Removed and created again; and not followed where the option is off.
    assert!(followed.shield.status().unwrap().missing.is_empty());
    followed.after(&good, || std::fs::remove_file(&good).unwrap());
    assert_eq!(followed.shield.status().unwrap().missing, std::slice::from_ref(&good));
    followed.after(&good, || upgrade(&good));
    assert!(followed.shield.status().unwrap().missing.is_empty());
    assert_eq!(ask(&mut host.test_process(&good)), 0);
    drop(followed);
    let shield = Shield::builder("follow")
        .cgroup(host.cgroup.dir())
        .follow_paths(false)
        .start(&policy(Subject::new("").exe(&good)))
        .unwrap();
    upgrade(&good);
    assert_eq!(ask(&mut host.test_process(&good)), EPERM, "without the thread");
    let changes = shield.refresh_paths().unwrap();
    assert_eq!(changes.len(), 1);
    assert_eq!((&changes[0].path, changes[0].is_there), (&good, true));
    assert_eq!(ask(&mut host.test_process(&good)), 0);
    assert!(shield.refresh_paths().unwrap().is_empty());
}

fn links_and_renamed_directories_are_followed_in_both_policies() {
    let host = Host::new();
    let (one, two) = (host.program("one"), host.program("two"));
    let dir = one.parent().unwrap();
    for (release, program) in [("release-1", &one), ("release-2", &two)] {
        std::fs::create_dir(dir.join(release)).unwrap();
        std::fs::hard_link(program, dir.join(release).join("server")).unwrap();
    }
    let current = dir.join("current");
    let point = |to: &str| {
        let next = dir.join("next");
        std::os::unix::fs::symlink(to, &next).unwrap();
        std::fs::rename(&next, &current).unwrap();
    };
    point("release-1");
    let path: PathBuf = current.join("server");
    let followed = Followed::start(&host, &policy(Subject::new("").exe(&path)));
    let (mut first, mut second) = (host.test_process(&one), host.test_process(&two));
    assert_eq!((ask(&mut first), ask(&mut second)), (0, EPERM));
    // The policy to return to is followed as well.
    let until_deadline = policy(Subject::new("provisional").exe(&path));
    followed.shield.apply_with(&until_deadline, provisional(Duration::from_secs(3600))).unwrap();
    followed.after(&path, || point("release-2"));
    assert_eq!((ask(&mut first), ask(&mut second)), (0, 0), "the first runs since before");
    assert_eq!(ask(&mut host.test_process(&one)), EPERM);
    followed.shield.revert().unwrap();
    assert_eq!((ask(&mut first), ask(&mut host.test_process(&two))), (0, 0));
    assert_eq!(ask(&mut host.test_process(&one)), EPERM);
    // Back: the path leads to the first again.
    followed.after(&path, || point("release-1"));
    assert_eq!(ask(&mut host.test_process(&one)), 0);
    assert_eq!(ask(&mut host.test_process(&two)), EPERM);
}

fn a_cgroup_that_is_created_again_is_known() {
    let host = Host::new();
    let program = host.program("program");
    let service = host.cgroup.child("service").unwrap();
    let (dir, path) = (service.dir().to_owned(), service.path().to_owned());
    let followed = Followed::start(&host, &policy(Subject::new("").cgroup(&path)));
    let test_process = |group: &Cgroup| ask(&mut host.test_process_in(group, &program));
    assert_eq!((test_process(&service), test_process(&host.cgroup)), (0, EPERM));
    followed.after(Path::new(&path), || drop(service));
    assert!(!dir.exists());
    let again = followed.changes(Path::new(&path));
    let service = host.cgroup.child("service").unwrap();
    let begin = Instant::now();
    while followed.changes(Path::new(&path)) == again {
        assert!(begin.elapsed() < PATIENCE, "it is not followed");
        std::thread::yield_now();
    }
    assert_eq!((test_process(&service), test_process(&host.cgroup)), (0, EPERM));
}

fn descendants_of_a_replaced_file_descend_from_its_path() {
    let host = Host::new();
    let (shell, tool) = (host.program("shell"), host.program("tool"));
    let followed = Followed::start(&host, &policy(Subject::new("").descendant_of(&shell)));
    let mut before = host.test_process(&shell);
    followed.after(&shell, || upgrade(&shell));
    let mut later = host.test_process(&shell);
    for test_process in [&mut before, &mut later] {
        assert_eq!(ask(test_process), EPERM, "it is the shell itself");
        test_process.ask(&format!("exec {}", tool.display())).unwrap();
        assert_eq!(ask(test_process), 0);
    }
    assert_eq!(ask(&mut host.test_process(&tool)), EPERM);
}
