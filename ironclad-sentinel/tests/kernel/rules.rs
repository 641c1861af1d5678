//! Rules and starts that are refused, with the next step, and missing paths that are reported.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::testbed::{EPERM, Host, PATIENCE, lsm, silent_server};
use ironclad_core::{Action, ErrorChain, RuleId};
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::warnings;
use ironclad_lab::{role, test};
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::socket::{SocketAction, SocketRule};
use ironclad_policy::{AddressSet, CompiledPolicy, Policy, PolicyPart};
use ironclad_sentinel::{
    Alarm, BaselineOptions, Degraded, Missing, MissingKind, Sentinel, SentinelErrorKind, Status,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(rules_that_cannot_be_enforced_are_refused_with_the_next_step)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(no_start_with_scripts_as_executables).in_machine().needs(&[lsm]),
        test!(trees_do_not_cover_pseudo_file_systems).shared().in_machine().needs(&[lsm]),
        test!(missing_paths_are_reported).in_machine().needs(&[lsm]),
        test!(a_server_that_never_answers_stops_nothing).shared().in_machine().needs(&[lsm]),
        test!(a_server_over_the_directory_of_a_file_stops_nothing).in_machine().needs(&[lsm]),
        test!(a_refused_start_names_the_obstacle).in_machine().needs(&[lsm]),
    ]
}

/// The directory of a second agent.
const SECOND: &str = "IRONCLAD_TEST_SECOND";

/// Another agent.
pub(crate) const AGENT: Role = role!(second);

fn second() {
    let dir = PathBuf::from(std::env::var_os(SECOND).unwrap());
    let builder = Sentinel::builder("second").state_dir(dir.join("second"));
    let is_persistent = dir.join("persistent").exists();
    match builder.persistent(is_persistent).start(&policy([])) {
        Ok(_) => println!("@@ started @@"),
        Err(error) => println!("@@ {} @@", ErrorChain::new(&error)),
    }
}

/// The output of a second agent.
fn second_says(host: &Host, program: &Path, user: u32) -> String {
    let mut command = Command::new(program);
    AGENT.play(&mut command).env(SECOND, host.dir()).uid(user);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    said.split("@@").nth(1).unwrap_or_else(|| panic!("{out:?}")).trim().to_owned()
}

fn rule(id: u32, action: FileAction) -> FileRule {
    FileRule::new(RuleId(id), format!("rule {id}"), action)
}

fn deny(id: u32) -> FileRule {
    rule(id, FileAction::Deny)
}

fn policy(rules: impl IntoIterator<Item = FileRule>) -> CompiledPolicy {
    rules
        .into_iter()
        .fold(Policy::builder(), |policy, rule| policy.file_rule(rule))
        .compile()
        .unwrap()
}

/// Policies with parts that Shield enforces, and Sentinel does not.
fn parts_of_shield() -> [(PolicyPart, CompiledPolicy); 2] {
    let bad = AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["192.0.2.1".parse().unwrap()]);
    let rule = SocketRule::new(RuleId(2), "no names", SocketAction::Deny).port(53);
    [
        (PolicyPart::Packets, Policy::builder().set(bad).compile().unwrap()),
        (PolicyPart::Sockets, Policy::builder().socket_rule(rule).compile().unwrap()),
    ]
}

fn summary(missing: &[Missing]) -> Vec<(&Path, MissingKind)> {
    missing.iter().map(|it| (it.path.as_path(), it.kind)).collect()
}

fn rules_that_cannot_be_enforced_are_refused_with_the_next_step() {
    let host = Host::new();
    let (protected, file, script) =
        (host.path("protected"), host.path("protected/file"), host.path("a.sh"));
    std::fs::create_dir(&protected).unwrap();
    std::fs::write(&file, "1").unwrap();
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let sentinel = host.start(&policy([deny(1).tree(&protected)]));
    let append = format!("append {}", file.display());
    let mut attacker = host.test_process();
    for (rule, expected) in [
        (deny(2).file(&protected), "is a directory: cover it as a tree"),
        (rule(2, FileAction::Log).file(&protected), "is a directory: cover it as a tree"),
        (deny(2).tree(&file), "is no directory: cover it as a file"),
        (deny(2).file(format!("{}/", file.display())), "cannot be covered: Not a directory"),
        (deny(2).tree("/"), "cover single directories"),
        (deny(2).tree("/").dry_run(true), "cover single directories"),
        (deny(2).tree("/dev"), "cover single devices as files"),
        (deny(2).tree("/proc"), "is on procfs"),
        (deny(2).tree("/sys"), "is on sysfs"),
        (rule(2, FileAction::Log).tree("/sys"), "is on sysfs"),
        (deny(2).file(&file).except(&script), "is a script (#!/bin/sh)"),
        (deny(2).file(&file).except(host.dir()), "is a directory, which no process executes"),
    ] {
        let error = sentinel.apply(&policy([rule])).unwrap_err().to_string();
        assert!(error.starts_with("rule 2 (`rule 2`): `/"), "{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(attacker.ask(&append).unwrap(), EPERM, "{error}");
    }
    for (part, other) in parts_of_shield() {
        let error = sentinel.apply(&other).unwrap_err();
        assert_eq!(error.kind(), SentinelErrorKind::Unenforced, "{error}");
        assert!(error.to_string().contains(&format!("[PolicyPart::{part:?}]")), "{error}");
        assert_eq!(attacker.ask(&append).unwrap(), EPERM, "{error}");
    }
    let error = sentinel.admit(&script).unwrap_err().to_string();
    assert!(error.contains("is a script"), "{error}");
    drop(sentinel);
}

fn no_start_with_scripts_as_executables() {
    let host = Host::new();
    let script = host.path("a.sh");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let builder = || Sentinel::builder("test");
    for (builder, method) in [
        (builder().updater(&script), "updater"),
        (builder().may_stop(&script), "may_stop"),
        (builder().group_manager(&script), "group_manager"),
    ] {
        let error = builder.start(&policy([])).unwrap_err();
        assert_eq!(error.kind(), SentinelErrorKind::Script, "{error}");
        assert!(error.to_string().starts_with(&format!("`.{method}(…)`: ")), "{error}");
    }
    for (_, other) in parts_of_shield() {
        let error = builder().start(&other).unwrap_err();
        assert_eq!(error.kind(), SentinelErrorKind::Unenforced, "{error}");
    }
}

/// Pseudo file systems below a tree are not covered: hosts and containers write to them.
fn trees_do_not_cover_pseudo_file_systems() {
    let host = Host::new();
    let protected = host.path("protected");
    let places = [("dev", "devtmpfs"), ("proc", "proc"), ("sys", "sysfs"), ("tmp", "tmpfs")];
    for (name, kind) in places {
        let at = protected.join(name);
        std::fs::create_dir_all(&at).unwrap();
        mount(kind, &at, kind, MountFlags::empty(), None).unwrap();
    }
    let mut attacker = host.test_process();
    let sentinel = host.start(&policy([deny(1).tree(&protected)]));
    let place = |name: &str| protected.join(name).display().to_string();
    for open in ["dev/null", "proc/self/comm", "sys/kernel/profiling"] {
        if protected.join(open).exists() {
            assert_eq!(
                attacker.ask(&format!("open-to-write {}", place(open))).unwrap(),
                0,
                "{open}"
            );
        }
    }
    assert_eq!(attacker.ask(&format!("create {}", place("tmp/new"))).unwrap(), EPERM);
    assert_eq!(attacker.ask(&format!("tool umount {}", place("dev"))).unwrap(), 1);
    let Status { volumes, degraded, .. } = sentinel.status().unwrap();
    for (name, kind) in places {
        let volume = volumes.iter().find(|it| it.at == protected.join(name)).unwrap();
        assert_eq!(
            (&*volume.kind, volume.refused.is_none()),
            (kind, kind == "tmpfs"),
            "{volume:?}"
        );
    }
    let is_uncovered =
        |it: &&Degraded| matches!(it, Degraded::Volume { at, .. } if at.starts_with(&protected));
    assert_eq!(degraded.iter().filter(is_uncovered).count(), 3, "{degraded:?}");

    // A rule that only logs may cover the root directory.
    sentinel.apply(&policy([rule(1, FileAction::Log).tree("/")])).unwrap();
    assert_eq!(attacker.ask("open-to-write /dev/null").unwrap(), 0);
    // A rule may cover a single device.
    sentinel.apply(&policy([deny(1).file("/dev/full")])).unwrap();
    assert_eq!(attacker.ask("open-to-write /dev/full").unwrap(), EPERM);
    assert_eq!(attacker.ask("open-to-write /dev/null").unwrap(), 0);
    let volumes = sentinel.status().unwrap().volumes;
    assert!(volumes.iter().all(|it| it.refused.is_none()), "{volumes:?}");
    drop(sentinel);
    for (name, _) in places {
        unmount(protected.join(name), UnmountFlags::DETACH).unwrap();
    }
}

/// FUSE in a user's directory: the agent would wait for its server.
fn a_server_that_never_answers_stops_nothing() {
    let host = Host::new();
    let [users, tree] = ["users", "tree"].map(|name| host.path(name));
    for dir in [users.join("ann"), users.join("bob"), users.join("eve"), tree.join("served")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let keys = users.join("ann/keys");
    std::fs::write(&keys, "1").unwrap();
    std::os::unix::fs::symlink("../bob/keys", users.join("eve/keys")).unwrap();
    let mut attacker = host.test_process();
    attacker.ask("tool modprobe fuse").unwrap();
    let served = [users.join("bob"), tree.join("served")];
    let servers = served.each_ref().map(|at| silent_server(at));
    let pattern = users.join("*/keys").display().to_string();
    let everywhere = users.join("**/keys").display().to_string();
    let rules = [deny(1).glob(pattern).glob(everywhere), deny(2).tree(&tree)];
    let sentinel = host.start(&policy(rules));
    sentinel.refresh().unwrap();
    let Status { missing, volumes, .. } = sentinel.status().unwrap();
    let bob = (served[0].as_path(), MissingKind::Served);
    assert_eq!(summary(&missing), [bob, bob]);
    let volume = volumes.iter().find(|it| it.at == served[1]).unwrap();
    let why = "is on fuse, which a process serves";
    assert_eq!(volume.refused.as_deref(), Some(why), "{volume:?}");
    assert_eq!(attacker.ask(&format!("append {}", keys.display())).unwrap(), EPERM);
    drop(sentinel);
    // Without a server, its file system answers with an error.
    drop(servers);
    served.iter().for_each(|at| unmount(at, UnmountFlags::DETACH).unwrap());
}

/// A rule that logs protects no directory from a mount: a user may mount FUSE in his own.
fn a_server_over_the_directory_of_a_file_stops_nothing() {
    let host = Host::new();
    let dir = host.path("ann");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "1").unwrap();
    host.test_process().ask("tool modprobe fuse").unwrap();
    let rule = FileRule::new(RuleId(1), "log", FileAction::Log).file(dir.join("file"));
    let (changed, changes) = mpsc::channel();
    let sentinel = Sentinel::builder("test")
        .state_dir(host.path("state"))
        .baseline(BaselineOptions::default())
        .watch_every(Duration::from_secs(1))
        .on_alarm(move |alarm| drop(changed.send(alarm.clone())))
        .start(&policy([rule]))
        .unwrap();
    let server = silent_server(&dir);
    let (answered, answers) = mpsc::channel::<()>();
    let server = std::thread::spawn(move || {
        // When it ends, calls that wait for it return.
        let is_late = answers.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
        drop(server);
        is_late
    });
    let Status { missing, volumes, .. } = sentinel.status().unwrap();
    let refreshed = sentinel.refresh();
    // The baseline misses the file.
    let alarm = changes.recv_timeout(PATIENCE);
    drop(answered);
    assert!(!server.join().unwrap(), "the agent has waited for the server");
    assert_eq!(summary(&missing), [(dir.as_path(), MissingKind::Served)]);
    let why = "is on fuse, which a process serves";
    let volume = volumes.iter().find(|it| it.at == dir).unwrap();
    assert_eq!(volume.refused.as_deref(), Some(why), "{volume:?}");
    let error = ErrorChain::new(&refreshed.unwrap_err()).to_string();
    assert!(error.contains(why), "{error}");
    match alarm.unwrap() {
        Alarm::Files(changes) => assert_eq!(changes[0].path, dir.join("file"), "{changes:?}"),
        alarm => panic!("{alarm}"),
    }
    unmount(&dir, UnmountFlags::DETACH).unwrap();
}

fn missing_paths_are_reported() {
    let host = Host::new();
    let (absent, dir, inside) = (host.path("absent"), host.path("d.conf"), host.path("d.conf/in"));
    let (none, updater) = (host.path("*.none"), host.path("updater"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&inside, "1").unwrap();
    let glob = |name: &str| host.path(name).display().to_string();
    let rules = policy([deny(1).file(&absent).glob(glob("*.none")), deny(2).glob(glob("*.conf"))]);
    let builder = Sentinel::builder("test").updater(&updater);
    let (sentinel, said) = warnings(|| builder.start(&rules).unwrap());
    let missing = sentinel.status().unwrap().missing;
    let expected = [
        (absent.as_path(), MissingKind::File),
        (&none, MissingKind::Pattern),
        (&dir, MissingKind::Directory),
        (&updater, MissingKind::Executable),
    ];
    assert_eq!(summary(&missing), expected);
    let by: Vec<_> = missing.iter().map(|it| it.by.as_str()).collect();
    assert_eq!(
        by,
        ["rule 1 (`rule 1`)", "rule 1 (`rule 1`)", "rule 2 (`rule 2`)", "`.updater(…)`"]
    );
    for it in &missing {
        assert!(said.contains(&it.to_string()), "{it}: {said}");
    }
    // The report is true.
    let mut attacker = host.test_process();
    let mut ask =
        |verb: &str, path: &Path| attacker.ask(&format!("{verb} {}", path.display())).unwrap();
    assert_eq!(ask("create", &absent), EPERM);
    assert_eq!((ask("chmod", &dir), ask("append", &inside)), (EPERM, 0));
    let new = host.path("new.none");
    assert_eq!(ask("create", &new), 0);
    // Paths that exist now are not reported: a file at once, other paths after a refresh.
    std::fs::write(&absent, "1").unwrap();
    host.program("updater");
    let missing = sentinel.status().unwrap().missing;
    assert_eq!(summary(&missing), expected[1..]);
    sentinel.refresh().unwrap();
    assert_eq!(ask("append", &new), EPERM);
    let missing = sentinel.status().unwrap().missing;
    assert_eq!(summary(&missing), [(dir.as_path(), MissingKind::Directory)]);

    let ((), said) = warnings(|| sentinel.apply(&policy([])).unwrap());
    assert!(said.contains("a policy without file rules replaces one with 2"), "{said}");
    assert_eq!(ask("append", &new), 0);
    let ((), said) = warnings(|| sentinel.apply(&policy([])).unwrap());
    assert!(!said.contains("file rules"), "{said}");
    assert!(sentinel.status().unwrap().missing.iter().all(|it| it.path == updater));
}

fn a_refused_start_names_the_obstacle() {
    const UNPRIVILEGED: u32 = 65534;
    let host = Host::new();
    let program = host.program("agent");
    // Users other than root may search the directory.
    std::fs::set_permissions(host.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let said = second_says(&host, &program, UNPRIVILEGED);
    assert_eq!(
        said,
        "Sentinel needs root of the host with CAP_SYS_ADMIN, and this process of user 65534 lacks it (start it as root)"
    );

    let sentinel = host.start(&policy([]));
    for persistent in [false, true] {
        if persistent {
            std::fs::write(host.path("persistent"), "").unwrap();
        }
        let said = second_says(&host, &program, 0);
        assert!(said.contains("another armed Sentinel (stop that Sentinel first"), "{said}");
        assert!(!said.contains('\n') && !said.contains("audit"), "{said}");
    }
    std::fs::remove_file(host.path("persistent")).unwrap();
    for instance in ["test", "other"] {
        let builder = Sentinel::builder(instance);
        let error = builder.start(&policy([])).unwrap_err();
        assert_eq!(error.kind(), SentinelErrorKind::Already, "{error}");
        assert!(!error.to_string().contains("danger"), "{error}");
    }
    assert!(sentinel.status().unwrap().degraded.is_empty());
    drop(sentinel);
    assert_eq!(second_says(&host, &program, 0), "started");
}
