//! Status and alarms: foreign programs, changes while Sentinel was stopped, inactive hooks.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::testbed::{EPERM, Host, PATIENCE, lsm, next_denied};
use ironclad_bpf::BPFFS;
use ironclad_bpf::audit::open_object;
use ironclad_bpf::inventory::Inventory;
use ironclad_bpf::uapi::{AttachType, ProgramType};
use ironclad_core::abi::SentinelHook;
use ironclad_core::audit::{AuditAction, AuditError, AuditSink};
use ironclad_core::{ErrorChain, RuleId};
use ironclad_hostile::object;
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::{role, test};
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{
    Alarm, BaselineOptions, Change, Compared, Degraded, FileChange, Holder, HookState, Launch,
    OnSuspect, Overflow, Sentinel, SentinelBuilder, SentinelErrorKind,
};
use ironclad_syscalls::{fake_pivot_root, in_child, put_over};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(programs_loaded_before_sentinel_are_reported).in_machine().needs(&[lsm]),
        test!(programs_of_an_earlier_agent_are_not_foreign).in_machine().needs(&[lsm]),
        test!(an_inactive_hook_is_reported).in_machine().needs(&[lsm]),
        test!(a_start_is_refused_where_a_hook_is_inactive).in_machine().needs(&[lsm]),
        test!(a_hook_whose_test_is_refused_elsewhere_is_reported).in_machine().needs(&[lsm]),
        test!(a_start_is_refused_while_ftrace_is_off).in_machine().needs(&[lsm]),
        test!(the_self_test_of_hooks_waits_for_no_module).in_machine().needs(&[lsm]),
        test!(alarms_do_not_wait_for_an_audit_file_that_is_held).in_machine().needs(&[lsm]),
        test!(changes_made_while_sentinel_was_stopped_are_reported).in_machine().needs(&[lsm]),
        test!(a_first_start_that_fails_leaves_nothing).in_machine().needs(&[lsm]),
        test!(a_restored_older_baseline_is_found_by_its_checksum).in_machine().needs(&[lsm]),
        test!(files_that_an_upgrade_has_replaced_are_known_after_a_refresh)
            .in_machine()
            .needs(&[lsm]),
    ]
}

/// The program that a foreign process loads.
const FOREIGN: &str = "IRONCLAD_TEST_FOREIGN";
const FTRACE: &str = "/proc/sys/kernel/ftrace_enabled";

/// A process that loads a foreign program at each line that it reads, and attaches it where it has a place.
pub(crate) const FOREIGNER: Role = role!(foreigner);

fn foreigner() {
    let name = std::env::var(FOREIGN).unwrap();
    let mut kept = Vec::new();
    for line in std::io::stdin().lines() {
        line.unwrap();
        let open = open_object("foreign", object(&name)).unwrap();
        libbpf_rs::set_print(Some((libbpf_rs::PrintLevel::Warn, |_, text| print!("{text}"))));
        match open.load() {
            Ok(object) => {
                let attached = object.progs_mut().next().unwrap().attach();
                println!("@@ loaded");
                kept.push((object, attached));
            }
            Err(e) => println!("@@ not loaded: {e:?}"),
        }
        std::io::stdout().flush().unwrap();
    }
}

pub(crate) struct Foreigner {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Foreigner {
    pub(crate) fn new(name: &str) -> Self {
        let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
        let mut command = FOREIGNER.command();
        let mut child = command.env(FOREIGN, name).stdin(stdin).stdout(stdout).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the kernel loads its program.
    pub(crate) fn loads(&mut self) -> bool {
        writeln!(self.child.stdin.as_ref().unwrap()).unwrap();
        let mut answers = self.lines.by_ref().map(Result::unwrap).inspect(|it| println!("{it}"));
        let answer = answers.find(|line| line.contains("@@ ")).expect("it has ended");
        answer.contains("@@ loaded")
    }

    /// Ends the process, and with it its program.
    pub(crate) fn end(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        wait_for_no_programs();
    }
}

/// The kernel releases programs, also of other tests, some time after their processes have ended.
fn wait_for_no_programs() {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = Inventory::take(&BTreeSet::new(), Path::new(BPFFS)).unwrap().programs;
        if found.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "programs that stay: {found:?}");
        std::thread::yield_now();
    }
}

#[derive(Default)]
struct Records(Mutex<Vec<AuditAction>>);

impl Records {
    fn take(&self) -> Vec<AuditAction> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl AuditSink for Records {
    fn record(&self, _: &str, action: &AuditAction) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(action.clone());
        Ok(())
    }
}

fn policy(host: &Host) -> CompiledPolicy {
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).tree(host.path("protected"));
    Policy::builder().file_rule(rule).compile().unwrap()
}

fn builder(host: &Host) -> SentinelBuilder {
    let instance = host.dir().file_name().unwrap().to_string_lossy().replace('.', "_");
    let quiet = Sentinel::builder(&instance).watch_every(Duration::ZERO);
    quiet.state_dir(host.path("state")).launched_by(Launch::Trusted)
}

fn programs_loaded_before_sentinel_are_reported() {
    let host = Host::new();
    let records = Arc::new(Records::default());
    let builder = || builder(&host).audit(records.clone());
    let file = host.path("protected/file");
    fs::create_dir(host.path("protected")).unwrap();
    fs::write(&file, "1").unwrap();
    let append = format!("append {}", file.display());
    wait_for_no_programs();
    for (name, program, kind, at, why) in [
        ("lsm", "opened", ProgramType::LSM, Some(AttachType::LSM_MAC), "lsm"),
        ("fentry", "entered", ProgramType::TRACING, Some(AttachType::TRACE_FENTRY), "tracing"),
        ("read_user", "reader", ProgramType::SCHED_CLS, None, "calls bpf_probe_read_user"),
        ("read_environment", "evil", ProgramType::SCHED_CLS, None, "calls bpf_copy_from_user_task"),
    ] {
        let mut foreigner = Foreigner::new(name);
        if !foreigner.loads() {
            assert_eq!(name, "read_environment");
            println!("not tried: this kernel does not load {name}");
            foreigner.end();
            continue;
        }
        let refusing = builder().foreign_programs(OnSuspect::Refuse);
        let error = refusing.start(&policy(&host)).unwrap_err();
        assert_eq!(error.kind(), SentinelErrorKind::Suspect, "{error}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("program `{program}` (id ")), "{text}");
        assert!(text.contains(&format!("process {}", foreigner.pid())), "{text}");
        assert!(text.contains(why), "{text}");
        let refused = records.take();
        let is_recorded = |it: &AuditAction| matches!(it, AuditAction::Refuse { reason, .. } if reason.contains(program));
        assert!(refused.iter().any(is_recorded), "{refused:?}");
        assert_eq!(host.test_process().ask(&append).unwrap(), 0, "nothing is refused");

        let sentinel = builder().start(&policy(&host)).unwrap();
        let status = sentinel.status().unwrap();
        let [one] = &status.foreign.programs[..] else { panic!("{:?}", status.foreign) };
        assert!(one.is_suspect);
        let id = one.program.id;
        assert_eq!(one.program.name.as_str(), program);
        assert!(text.contains(&format!("(id {id})")), "{text}");
        assert_eq!((one.program.program_type, one.program.uid), (kind, 0));
        assert_eq!(one.program.attached, at.into_iter().collect());
        assert!(one.program.loaded_ns > 0 && one.program.tag.len() == 16, "{one:?}");
        let [Holder::Process { pid, .. }] = one.program.holders.iter().collect::<Vec<_>>()[..]
        else {
            panic!("{one:?}")
        };
        assert_eq!(*pid, foreigner.pid());
        let links = usize::from(at.is_some());
        assert_eq!((status.foreign.links, status.foreign.closed.len()), (links, 0));
        let is_it =
            |it: &Degraded| matches!(it, Degraded::Suspect { program, .. } if *program == id);
        assert!(status.degraded.iter().any(is_it), "{:?}", status.degraded);
        let found = records.take();
        let is_it = |it: &AuditAction| matches!(it, AuditAction::ForeignProgram { id: it, is_suspect: true, .. } if *it == id);
        assert!(found.iter().any(is_it), "{found:?}");
        drop(sentinel);
        foreigner.end();
    }
}

fn programs_of_an_earlier_agent_are_not_foreign() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let start = || {
        let builder = builder(&host).persistent(true).foreign_programs(OnSuspect::Refuse);
        builder.start(&policy(&host)).unwrap()
    };
    let first = start();
    let others = |sentinel: &Sentinel| sentinel.status().unwrap().foreign.programs;
    assert_eq!(others(&first), []);
    let own: BTreeSet<_> = first.program_ids().collect();
    drop(first);
    // The pinned programs exist still.
    let found = Inventory::take(&BTreeSet::new(), Path::new(BPFFS)).unwrap();
    let found: BTreeSet<_> = found.programs.iter().map(|it| it.id).collect();
    assert!(found.len() > 20 && found.is_subset(&own), "{found:?} of {own:?}");
    let second = start();
    assert_eq!(others(&second), []);
    second.stop().unwrap();
}

/// The number of this process's link of a program for sysctls.
fn sysctl_link() -> i32 {
    let open = fs::read_dir("/proc/self/fdinfo").unwrap().map(|it| it.unwrap());
    let text = |entry: &fs::DirEntry| fs::read_to_string(entry.path()).unwrap_or_default();
    let is_it = |entry: &fs::DirEntry| {
        let text = text(entry);
        text.contains("link_type:\tcgroup")
            && text.contains(&format!("attach_type:\t{}", AttachType::CGROUP_SYSCTL.0))
    };
    let found = open.filter(is_it).map(|it| it.file_name().to_str().unwrap().parse().unwrap());
    let found: Vec<_> = found.collect();
    let [one] = found[..] else { panic!("{found:?}") };
    one
}

fn an_inactive_hook_is_reported() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let (sender, alarms) = mpsc::channel();
    let records = Arc::new(Records::default());
    let mut attacker = host.test_process();
    // Another hook refuses later opens.
    assert_eq!(attacker.ask(&format!("keep-open {FTRACE}")).unwrap(), 0);
    let sentinel = builder(&host)
        .audit(records.clone())
        .watch_every(Duration::from_millis(100))
        .on_alarm(move |alarm| sender.send(alarm.clone()).unwrap())
        .start(&policy(&host))
        .unwrap();
    let state = |hook: &str| {
        let hooks = sentinel.status().unwrap().hooks;
        hooks.into_iter().find(|it| it.name == hook).unwrap()
    };
    let until = |is_it: &dyn Fn(&Alarm) -> bool| loop {
        let alarm = alarms.recv_timeout(PATIENCE).unwrap();
        println!("{alarm}");
        if is_it(&alarm) {
            break;
        }
    };
    let first = state("sysctl");
    assert_eq!(first.state, HookState::InForce);
    assert!(first.answered_ns.is_some(), "{first:?}");
    assert_eq!(sentinel.status().unwrap().degraded, []);
    assert!(alarms.try_recv().is_err());
    assert_eq!(attacker.ask("write-kept 0").unwrap(), EPERM);

    // The agent itself releases a link, which raises no event.
    put_over(&fs::File::open("/dev/null").unwrap(), sysctl_link()).unwrap();
    until(&|it| matches!(it, Alarm::HookInactive { hook, .. } if hook == "sysctl"));
    let now = state("sysctl");
    assert!(matches!(now.state, HookState::Inactive(_)), "{now:?}");
    let degraded = sentinel.status().unwrap().degraded;
    let [Degraded::Hook { hook, .. }] = &degraded[..] else { panic!("{degraded:?}") };
    assert_eq!(hook, "sysctl");
    let is_it =
        |it: &AuditAction| matches!(it, AuditAction::HookInactive { hook, .. } if hook == "sysctl");
    assert!(records.take().iter().any(is_it));

    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // Without that hook, another process can switch all hooks of BPF LSM off, if the kernel allows it.
    const EBUSY: u64 = 16;
    const EOPNOTSUPP: u64 = 95;
    match attacker.ask("write-kept 0").unwrap() {
        // 5.10 and 7.3.
        EBUSY | EOPNOTSUPP => {
            println!("this kernel keeps ftrace on while programs need it");
            assert_eq!(state("file_open").state, HookState::InForce);
        }
        0 => {
            until(&|it| matches!(it, Alarm::HookInactive { hook, .. } if hook == "file_open"));
            let status = sentinel.status().unwrap();
            let is_it = |it: &Degraded| matches!(it, Degraded::Kernel { feature, .. } if feature == "ftrace_enabled");
            assert!(status.degraded.iter().any(is_it), "{:?}", status.degraded);
            assert_eq!(attacker.ask(&format!("write {FTRACE} 1")).unwrap(), 0);
            until(&|it| matches!(it, Alarm::HookActive { hook } if hook == "file_open"));
            let is_it = |it: &AuditAction| matches!(it, AuditAction::HookActive { hook } if hook == "file_open");
            assert!(records.take().iter().any(is_it));
            assert_eq!(state("file_open").state, HookState::InForce);
        }
        // Where open files could not be counted, each write is checked, and this alarm says so.
        EPERM => while next_denied(&events).hook != SentinelHook::FilePermission {},
        other => panic!("{other}"),
    }
    // The watch thread ends with the handle, and drops the callback.
    drop(sentinel);
    while alarms.try_recv().is_ok() {}
    assert_eq!(alarms.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

/// A seccomp(2) filter refuses a system call to the agent, as another security module may, before the hook is called.
fn a_hook_whose_test_is_refused_elsewhere_is_reported() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let status = in_child(|| {
        fake_pivot_root(EPERM as u16).unwrap();
        let sentinel = builder(&host).start(&policy(&host)).unwrap();
        let status = sentinel.status().unwrap();
        let hook = status.hooks.iter().find(|it| it.name == "sb_pivotroot").unwrap();
        let HookState::RefusedElsewhere(why) = &hook.state else { panic!("{hook:?}") };
        assert!(why.contains("not permitted"), "{why}");
        let [Degraded::Hook { hook, .. }] = &status.degraded[..] else { panic!("{status:?}") };
        assert_eq!(hook, "sb_pivotroot");
        0
    });
    assert_eq!(status.unwrap(), 0);
}

/// A seccomp(2) filter lets a system call of the agent succeed without making it.
fn a_start_is_refused_where_a_hook_is_inactive() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let status = in_child(|| {
        fake_pivot_root(0).unwrap();
        let error = builder(&host).start(&policy(&host)).err().unwrap();
        println!("{error}");
        assert_eq!(error.kind(), SentinelErrorKind::Degraded, "{error}");
        let text = error.to_string();
        assert_eq!(text.matches("hook ").count(), 1, "{text}");
        assert!(text.contains("hook sb_pivotroot: "), "{text}");
        // Nothing is left of it, and a start with the option succeeds.
        let sentinel =
            builder(&host).dangerous(|it| it.degraded(true)).start(&policy(&host)).unwrap();
        let degraded = sentinel.status().unwrap().degraded;
        let [Degraded::Hook { hook, .. }] = &degraded[..] else { panic!("{degraded:?}") };
        assert_eq!(hook, "sb_pivotroot");
        0
    });
    assert_eq!(status.unwrap(), 0);
}

/// A sysctl that was written before makes all hooks inactive, while links are listed.
fn a_start_is_refused_while_ftrace_is_off() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let mut attacker = host.test_process();
    let append = format!("append {}", host.path("protected/new").display());
    const EOPNOTSUPP: u64 = 95;
    match attacker.ask(&format!("write {FTRACE} 0")).unwrap() {
        EOPNOTSUPP => println!("this kernel cannot switch ftrace off"),
        0 => {
            let start = || builder(&host).dangerous(|it| it.degraded(true)).start(&policy(&host));
            let error = start().err().unwrap();
            let error = ErrorChain::new(&error).to_string();
            println!("{error}");
            assert!(error.contains("sysctl kernel.ftrace_enabled=1"), "{error}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(attacker.ask(&append.replace("append", "create")).unwrap(), 0);
    assert_eq!(attacker.ask(&format!("write {FTRACE} 1")).unwrap(), 0);
    let sentinel = builder(&host).start(&policy(&host)).unwrap();
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    drop(sentinel);
}

/// The kernel waits for modprobe(8), which runs any command that its configuration names.
fn the_self_test_of_hooks_waits_for_no_module() {
    const HELPER: &str = "/proc/sys/kernel/modprobe";
    let host = Host::new();
    let (helper, asked) = (host.path("modprobe"), host.path("asked"));
    fs::write(&helper, format!("#!/bin/sh\necho \"$@\" >>{}\n", asked.display())).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let usual = fs::read_to_string(HELPER).unwrap();
    fs::write(HELPER, helper.display().to_string()).unwrap();
    // A file system that the kernel does not know.
    let mut other = host.test_process();
    assert_ne!(
        other.ask(&format!("tool mount -t ironclad-none none {}", host.dir().display())).unwrap(),
        0
    );
    assert!(fs::read_to_string(&asked).unwrap().contains("ironclad-none"));
    fs::remove_file(&asked).unwrap();

    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let status = sentinel.status().unwrap();
    drop(sentinel);
    fs::write(HELPER, usual.trim()).unwrap();
    let hook = status.hooks.iter().find(|hook| hook.name == "sb_mount").unwrap();
    assert_eq!(hook.state, HookState::InForce);
    assert_eq!(fs::read_to_string(&asked).unwrap_or_default(), "");
}

/// A sink whose file another process may hold.
#[derive(Default)]
struct Held {
    is_held: Mutex<bool>,
    changed: Condvar,
}

impl Held {
    fn set(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.changed.notify_all();
    }
}

impl AuditSink for Held {
    fn record(&self, _: &str, _: &AuditAction) -> Result<(), AuditError> {
        let is_held = self.is_held.lock().unwrap();
        drop(self.changed.wait_while(is_held, |is_held| *is_held).unwrap());
        Ok(())
    }
}

/// A reader of a file holds the lock that writers wait for, while its memory does not come.
fn alarms_do_not_wait_for_an_audit_file_that_is_held() {
    let host = Host::new();
    let protected = host.path("protected");
    fs::create_dir(&protected).unwrap();
    let (sink, (sender, alarms)) = (Arc::new(Held::default()), mpsc::channel());
    let builder = Sentinel::builder("test").audit(sink.clone());
    let builder = builder.on_alarm(move |alarm| sender.send(alarm.clone()).unwrap());
    let sentinel = builder.start(&policy(&host)).unwrap();
    let next = || alarms.recv_timeout(PATIENCE).unwrap();
    sink.set(true);
    std::thread::scope(|scope| {
        let empty = Policy::builder().compile().unwrap();
        let applying = scope.spawn({
            let (sentinel, empty) = (&sentinel, empty.clone());
            move || sentinel.apply(&empty)
        });
        assert_eq!(next(), Alarm::AuditWaits);
        // The rules are in force, and the state is not locked.
        assert_eq!(sentinel.status().unwrap().policy, empty.id().to_string());
        assert!(!applying.is_finished());
        sink.set(false);
        applying.join().unwrap().unwrap();
    });
    sentinel.apply(&policy(&host)).unwrap();
    sink.set(true);
    mount("none", &protected, "tmpfs", MountFlags::empty(), None).unwrap();
    assert_eq!(next(), Alarm::AuditWaits);
    assert!(matches!(next(), Alarm::MountOver(over) if over.at == protected));
    sink.set(false);
    unmount(&protected, UnmountFlags::DETACH).unwrap();
}

fn summary(changes: &[FileChange]) -> Vec<(String, &'static str)> {
    let name = |it: &FileChange| it.path.file_name().unwrap().to_string_lossy().into_owned();
    let what = |change: &Change| match change {
        Change::Added(_) => "added",
        Change::Removed(_) => "removed",
        Change::Content { .. } => "content",
        Change::Metadata { .. } => "metadata",
        _ => "other",
    };
    let mut summary: Vec<_> = changes.iter().map(|it| (name(it), what(&it.change))).collect();
    summary.sort();
    summary
}

fn changes_made_while_sentinel_was_stopped_are_reported() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let protected = |name: &str| host.path("protected").join(name);
    for name in ["agents", "late", "changed", "gone", "moded", "same"] {
        fs::write(protected(name), name).unwrap();
    }
    let (sender, alarms) = mpsc::channel();
    let records = Arc::new(Records::default());
    let watching = |every: Duration| {
        let sender = sender.clone();
        builder(&host)
            .persistent(true)
            .audit(records.clone())
            .watch_every(every)
            .on_alarm(move |alarm| sender.send(alarm.clone()).unwrap())
            .baseline(BaselineOptions::default())
            .start(&policy(&host))
            .unwrap()
    };
    let mut attacker = host.test_process();

    let first = watching(Duration::from_millis(100));
    let report = first.baseline().unwrap();
    assert_eq!((report.compared, report.files, report.changes), (Compared::Missing, 6, vec![]));
    let baseline: PathBuf = host.path("state/baseline");
    for order in ["read", "append", "unlink"] {
        assert_eq!(
            attacker.ask(&format!("{order} {}", baseline.display())).unwrap(),
            EPERM,
            "{order}"
        );
    }
    assert_eq!(attacker.ask(&format!("append {}", protected("changed").display())).unwrap(), EPERM);
    // A change by the agent is reported at once, and not after a restart.
    fs::write(protected("agents"), "other").unwrap();
    let Alarm::Files(changes) = alarms.recv_timeout(PATIENCE).unwrap() else { panic!("no change") };
    assert_eq!(summary(&changes), [("agents".to_owned(), "content")]);
    // As if the agent were killed: no thread compares files, and they are protected still.
    drop(first);
    let second = watching(Duration::ZERO);
    assert_eq!(summary(&second.baseline().unwrap().changes), []);
    fs::write(protected("late"), "other").unwrap();
    second.stop().unwrap();

    for order in [
        format!("append {}", protected("changed").display()),
        format!("create {}", protected("new").display()),
        format!("unlink {}", protected("gone").display()),
        format!("chmod {}", protected("moded").display()),
    ] {
        assert_eq!(attacker.ask(&order).unwrap(), 0, "{order}");
    }
    records.take();
    let third = watching(Duration::ZERO);
    let report = third.baseline().unwrap();
    assert!(matches!(report.compared, Compared::With { .. }), "{report:?}");
    let expected =
        [("changed", "content"), ("gone", "removed"), ("moded", "metadata"), ("new", "added")];
    let expected = expected.map(|(name, what)| (name.to_owned(), what));
    assert_eq!(summary(&report.changes), expected);
    let found = records.take();
    let away = found.iter().filter(|it| matches!(it, AuditAction::FileChange { away: true, .. }));
    assert_eq!(away.count(), 4, "{found:?}");
    let status = third.status().unwrap();
    assert_eq!(status.degraded, []);
    assert!(status.volumes.iter().all(|it| it.refused.is_none()) && !status.volumes.is_empty());
    third.stop().unwrap();

    assert_eq!(attacker.ask(&format!("append {}", baseline.display())).unwrap(), 0);
    let fourth = watching(Duration::ZERO);
    let report = fourth.baseline().unwrap();
    assert!(matches!(report.compared, Compared::Damaged(_)), "{report:?}");
    let degraded = fourth.status().unwrap().degraded;
    assert!(matches!(&degraded[..], [Degraded::Baseline { .. }]), "{degraded:?}");
    fourth.stop().unwrap();
}

/// Neither pins nor programs: the next start succeeds.
fn a_first_start_that_fails_leaves_nothing() {
    let host = Host::new();
    let file = host.path("protected/file");
    fs::create_dir(host.path("protected")).unwrap();
    fs::write(&file, "1").unwrap();
    let baseline = host.path("state/baseline");
    // Directories: the baseline can be neither read nor renamed.
    let in_the_way = [baseline.clone(), host.path("state/baseline.damaged")];
    for path in &in_the_way {
        fs::create_dir_all(path.join("something")).unwrap();
    }
    fs::set_permissions(host.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let start = || {
        let builder = builder(&host).persistent(true).baseline(BaselineOptions::default());
        builder.start(&policy(&host))
    };
    let error = start().unwrap_err();
    assert_eq!(error.kind(), SentinelErrorKind::Baseline, "{error}");
    assert!(error.to_string().contains("/baseline`"), "{error}");
    wait_for_no_programs();
    let mut attacker = host.test_process();
    assert_eq!(attacker.ask(&format!("append {}", file.display())).unwrap(), 0);
    for path in &in_the_way {
        fs::remove_dir_all(path).unwrap();
    }
    let sentinel = start().unwrap();
    assert_eq!(attacker.ask(&format!("append {}", file.display())).unwrap(), EPERM);
    sentinel.stop().unwrap();
}

/// An attacker restores an older baseline, and the files that it names.
fn a_restored_older_baseline_is_found_by_its_checksum() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let (file, baseline) = (host.path("protected/file"), host.path("state/baseline"));
    let (records, mut attacker) = (Arc::new(Records::default()), host.test_process());
    let start = || {
        let builder = builder(&host).persistent(true).audit(records.clone());
        builder.baseline(BaselineOptions::default()).start(&policy(&host)).unwrap()
    };
    // The checksums of the baseline that was read, and of the one that was written last.
    let checksums = || {
        let (mut read, mut left) = (None, None);
        for record in records.take() {
            if let AuditAction::Baseline { written, sha256, .. } = record {
                *(if written { &mut left } else { &mut read }) = Some(sha256);
            }
        }
        (read, left)
    };
    let run = |content: &str| {
        fs::write(&file, content).unwrap();
        start().stop().unwrap();
        (checksums().1, fs::read(&baseline).unwrap())
    };
    let (_, older) = run("older");
    let (left, _) = run("newer");
    // While Sentinel is stopped.
    fs::write(host.path("older"), older).unwrap();
    let put_back = format!("rename {} {}", host.path("older").display(), baseline.display());
    assert_eq!(attacker.ask(&put_back).unwrap(), 0);
    fs::write(&file, "older").unwrap();

    let sentinel = start();
    let report = sentinel.baseline().unwrap();
    let Compared::With { sha256, .. } = report.compared else { panic!("{report:?}") };
    assert_eq!(summary(&report.changes), []);
    let (read, left_now) = checksums();
    assert_eq!(read, Some(sha256.to_string()));
    assert!(left.is_some() && read != left, "only the checksum shows it");
    sentinel.stop().unwrap();
    // Without an attack, the checksums are equal.
    let left = checksums().1.or(left_now);
    start().stop().unwrap();
    assert_eq!(checksums().0, left);
}

fn files_that_an_upgrade_has_replaced_are_known_after_a_refresh() {
    let host = Host::new();
    fs::create_dir(host.path("protected")).unwrap();
    let file = host.path("protected/file");
    fs::write(&file, "1").unwrap();
    let updater = host.program("updater");
    let pattern = host.path("*.conf").display().to_string();
    let deny = |id, name| FileRule::new(RuleId(id), name, FileAction::Deny);
    let policy = Policy::builder()
        .file_rule(deny(1, "one").tree(host.path("protected")).except(&updater))
        .file_rule(deny(2, "two").glob(pattern))
        .compile()
        .unwrap();
    let builder = builder(&host).persistent(true).baseline(BaselineOptions::default());
    let sentinel = builder.start(&policy).unwrap();
    let append = |path: &Path| format!("append {}", path.display());
    assert_eq!(host.test_process().ask(&append(&file)).unwrap(), EPERM);
    assert_eq!(host.test_process_by(&updater).ask(&append(&file)).unwrap(), 0);
    let refreshed = sentinel.refresh().unwrap();
    assert_eq!((refreshed.files, refreshed.executables), (0, 0));
    assert_eq!(summary(&refreshed.changes), [("file".to_owned(), "content")]);

    // The updater is replaced, and a file exists that the pattern matches.
    let next = host.program("next");
    fs::rename(next, &updater).unwrap();
    let new = host.path("new.conf");
    fs::write(&new, "").unwrap();
    let mut attacker = host.test_process();
    assert_eq!(host.test_process_by(&updater).ask(&append(&file)).unwrap(), EPERM);
    assert_eq!(attacker.ask(&append(&new)).unwrap(), 0);
    let refreshed = sentinel.refresh().unwrap();
    assert_eq!((refreshed.files, refreshed.executables), (1, 1));
    assert_eq!(summary(&refreshed.changes), [("new.conf".to_owned(), "added")]);
    assert_eq!(host.test_process_by(&updater).ask(&append(&file)).unwrap(), 0);
    assert_eq!(attacker.ask(&append(&new)).unwrap(), EPERM);
    assert_eq!(attacker.ask(&append(&file)).unwrap(), EPERM);
    sentinel.stop().unwrap();
}
