//! What is refused of rules and of a start, with what to do, and what is reported of rules that lead to no file.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::testbed::{EPERM, Host, lsm};
use ironclad_core::RuleId;
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::warnings;
use ironclad_lab::{role, test};
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{Degraded, Missing, MissingKind, Sentinel, SentinelError, Status};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(rules_that_cannot_hold_are_refused_with_what_to_do)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(no_start_with_scripts_as_executables).in_machine().needs(&[lsm]),
        test!(trees_pass_over_devices_and_what_the_kernel_makes_up)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(paths_that_lead_to_no_file_are_reported).in_machine().needs(&[lsm]),
        test!(a_second_start_says_what_is_in_its_way).in_machine().needs(&[lsm]),
    ]
}

/// Where a second agent finds what it is to do.
const SECOND: &str = "IRONCLAD_TEST_SECOND";

/// Another agent.
pub(crate) const AGENT: Role = role!(second);

fn second() {
    let dir = PathBuf::from(std::env::var_os(SECOND).unwrap());
    let builder = Sentinel::builder("second").scratch(&dir).state_dir(dir.join("second"));
    let is_persistent = dir.join("persistent").exists();
    match builder.persistent(is_persistent).start(&policy([])) {
        Ok(_) => println!("@@ started @@"),
        Err(error) => println!("@@ {error} @@"),
    }
}

/// What it says.
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

fn told(missing: &[Missing]) -> Vec<(&Path, MissingKind)> {
    missing.iter().map(|it| (it.path.as_path(), it.kind)).collect()
}

fn rules_that_cannot_hold_are_refused_with_what_to_do() {
    let host = Host::new();
    let (guarded, file, script) =
        (host.path("guarded"), host.path("guarded/file"), host.path("a.sh"));
    std::fs::create_dir(&guarded).unwrap();
    std::fs::write(&file, "1").unwrap();
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let sentinel = host.start(&policy([deny(1).tree(&guarded)]));
    let append = format!("append {}", file.display());
    let mut attacker = host.test_process();
    for (rule, expected) in [
        (deny(2).file(&guarded), "is a directory: cover it as a tree"),
        (rule(2, FileAction::Log).file(&guarded), "is a directory: cover it as a tree"),
        (deny(2).tree(&file), "is no directory: cover it as a file"),
        (deny(2).file(format!("{}/", file.display())), "cannot be covered: Not a directory"),
        (deny(2).tree("/"), "cover the directories that are not to change"),
        (deny(2).tree("/").dry_run(true), "cover the directories that are not to change"),
        (deny(2).tree("/dev"), "cover single devices as files"),
        (deny(2).tree("/proc"), "lies on procfs"),
        (deny(2).tree("/sys"), "lies on sysfs"),
        (rule(2, FileAction::Log).tree("/sys"), "lies on sysfs"),
        (deny(2).file(&file).except(&script), "is a script (#!/bin/sh)"),
        (deny(2).file(&file).except(host.dir()), "is a directory, which nobody executes"),
    ] {
        let error = sentinel.apply(&policy([rule])).unwrap_err().to_string();
        assert!(error.starts_with("rule 2 (`rule 2`): `/"), "{error}");
        assert!(error.contains(expected), "{error}");
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
    let builder = || Sentinel::builder("test").scratch(host.dir());
    for (builder, method) in [
        (builder().updater(&script), "updater"),
        (builder().may_stop(&script), "may_stop"),
        (builder().group_manager(&script), "group_manager"),
    ] {
        let error = builder.start(&policy([])).unwrap_err();
        assert!(matches!(error, SentinelError::Script { .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("`.{method}(…)`: ")), "{error}");
    }
    let error = builder().scratch("/nonexistent").start(&policy([])).unwrap_err().to_string();
    assert!(error.starts_with("`.scratch(…)`: `/nonexistent` is no directory"), "{error}");
}

/// What the kernel makes up below a tree stays as it was: hosts and containers write to it.
fn trees_pass_over_devices_and_what_the_kernel_makes_up() {
    let host = Host::new();
    let guarded = host.path("guarded");
    let places = [("dev", "devtmpfs"), ("proc", "proc"), ("sys", "sysfs"), ("tmp", "tmpfs")];
    for (name, kind) in places {
        let at = guarded.join(name);
        std::fs::create_dir_all(&at).unwrap();
        mount(kind, &at, kind, MountFlags::empty(), None).unwrap();
    }
    let mut attacker = host.test_process();
    let sentinel = host.start(&policy([deny(1).tree(&guarded)]));
    let place = |name: &str| guarded.join(name).display().to_string();
    for open in ["dev/null", "proc/self/comm", "sys/kernel/profiling"] {
        if guarded.join(open).exists() {
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
        let volume = volumes.iter().find(|it| it.at == guarded.join(name)).unwrap();
        assert_eq!(
            (&*volume.kind, volume.refused.is_none()),
            (kind, kind == "tmpfs"),
            "{volume:?}"
        );
    }
    let is_passed =
        |it: &&Degraded| matches!(it, Degraded::Volume { at, .. } if at.starts_with(&guarded));
    assert_eq!(degraded.iter().filter(is_passed).count(), 3, "{degraded:?}");

    // A rule that only tells may be on all that the host has.
    sentinel.apply(&policy([rule(1, FileAction::Log).tree("/")])).unwrap();
    assert_eq!(attacker.ask("open-to-write /dev/null").unwrap(), 0);
    // A device by itself may be guarded.
    sentinel.apply(&policy([deny(1).file("/dev/full")])).unwrap();
    assert_eq!(attacker.ask("open-to-write /dev/full").unwrap(), EPERM);
    assert_eq!(attacker.ask("open-to-write /dev/null").unwrap(), 0);
    let volumes = sentinel.status().unwrap().volumes;
    assert!(volumes.iter().all(|it| it.refused.is_none()), "{volumes:?}");
    drop(sentinel);
    for (name, _) in places {
        unmount(guarded.join(name), UnmountFlags::DETACH).unwrap();
    }
}

fn paths_that_lead_to_no_file_are_reported() {
    let host = Host::new();
    let (absent, dir, inside) = (host.path("absent"), host.path("d.conf"), host.path("d.conf/in"));
    let (none, updater) = (host.path("*.none"), host.path("updater"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&inside, "1").unwrap();
    let glob = |name: &str| host.path(name).display().to_string();
    let rules = policy([deny(1).file(&absent).glob(glob("*.none")), deny(2).glob(glob("*.conf"))]);
    let builder = Sentinel::builder("test").scratch(host.dir()).updater(&updater);
    let (sentinel, said) = warnings(|| builder.start(&rules).unwrap());
    let missing = sentinel.status().unwrap().missing;
    let expected = [
        (absent.as_path(), MissingKind::File),
        (&none, MissingKind::Pattern),
        (&dir, MissingKind::Directory),
        (&updater, MissingKind::Executable),
    ];
    assert_eq!(told(&missing), expected);
    let by: Vec<_> = missing.iter().map(|it| it.by.as_str()).collect();
    assert_eq!(
        by,
        ["rule 1 (`rule 1`)", "rule 1 (`rule 1`)", "rule 2 (`rule 2`)", "`.updater(…)`"]
    );
    for it in &missing {
        assert!(said.contains(&it.to_string()), "{it}: {said}");
    }
    // It is as it is told.
    let mut attacker = host.test_process();
    let mut ask =
        |verb: &str, path: &Path| attacker.ask(&format!("{verb} {}", path.display())).unwrap();
    assert_eq!(ask("create", &absent), EPERM);
    assert_eq!((ask("chmod", &dir), ask("append", &inside)), (EPERM, 0));
    let new = host.path("new.none");
    assert_eq!(ask("create", &new), 0);
    // What has come is not told any more: a file at once, the rest once it is known.
    std::fs::write(&absent, "1").unwrap();
    host.program("updater");
    let missing = sentinel.status().unwrap().missing;
    assert_eq!(told(&missing), expected[1..]);
    sentinel.refresh().unwrap();
    assert_eq!(ask("append", &new), EPERM);
    let missing = sentinel.status().unwrap().missing;
    assert_eq!(told(&missing), [(dir.as_path(), MissingKind::Directory)]);

    let ((), said) = warnings(|| sentinel.apply(&policy([])).unwrap());
    assert!(said.contains("a policy without file rules takes the place of one with 2"), "{said}");
    assert_eq!(ask("append", &new), 0);
    let ((), said) = warnings(|| sentinel.apply(&policy([])).unwrap());
    assert!(!said.contains("file rules"), "{said}");
    assert!(sentinel.status().unwrap().missing.iter().all(|it| it.path == updater));
}

fn a_second_start_says_what_is_in_its_way() {
    const NOBODY: u32 = 65534;
    let host = Host::new();
    let program = host.program("agent");
    // Whoever is not root finds the way to it.
    std::fs::set_permissions(host.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let said = second_says(&host, &program, NOBODY);
    assert_eq!(
        said,
        "Sentinel takes root of the host with CAP_SYS_ADMIN, and this process of user 65534 lacks it: start it as root"
    );
    assert_eq!(second_says(&host, &program, 0), "started");

    let sentinel = host.start(&policy([]));
    for persistent in [false, true] {
        if persistent {
            std::fs::write(host.path("persistent"), "").unwrap();
        }
        let said = second_says(&host, &program, 0);
        assert!(said.contains("most likely that of another armed Sentinel: stop that"), "{said}");
        assert!(!said.contains('\n') && !said.contains("audit"), "{said}");
    }
    std::fs::remove_file(host.path("persistent")).unwrap();
    for instance in ["test", "other"] {
        let builder = Sentinel::builder(instance).scratch(host.dir());
        let error = builder.start(&policy([])).unwrap_err();
        assert!(matches!(error, SentinelError::Already), "{error}");
        assert!(!error.to_string().contains("danger"), "{error}");
    }
    assert!(sentinel.status().unwrap().degraded.is_empty());
    drop(sentinel);
    drop(host.start(&policy([])));
}
