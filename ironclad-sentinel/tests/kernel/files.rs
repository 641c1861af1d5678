//! File rules: each attack succeeds without Sentinel, and fails with it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use crate::testbed::{Attacks, EPERM, Host, PATIENCE, does, lsm, next_denied};
use ironclad_core::RuleId;
use ironclad_core::abi::{FileOp, RENAME_SHIFT, SENTINEL_DEPTH, SentinelHook, SentinelVerdict};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{
    HookState, HookStatus, Overflow, Sentinel, SentinelError, SentinelErrorKind,
};
use ironclad_syscalls::replace_descriptor;
use libbpf_rs::query::{LinkInfoIter, ProgInfoIter};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::fs::{CWD, RenameFlags, renameat_with};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_protected_tree_is_not_changed).shared().in_machine().needs(&[lsm]),
        test!(a_file_is_covered_by_its_name_too).shared().in_machine().needs(&[lsm]),
        test!(reading_and_executing_are_denied_too).shared().in_machine().needs(&[lsm]),
        test!(path_components_and_overlays_are_protected).shared().in_machine().needs(&[lsm]),
        test!(unsupported_file_systems_are_refused).shared().in_machine().needs(&[lsm]),
        test!(no_start_with_unsupported_file_systems).in_machine().needs(&[lsm]),
        test!(names_of_every_length_are_covered).shared().in_machine().needs(&[lsm]),
        test!(files_are_covered_at_every_depth).shared().in_machine().needs(&[lsm]),
        test!(renamed_directories_and_hard_links_are_covered).shared().in_machine().needs(&[lsm]),
        // It detaches a program of its instance.
        test!(a_directory_whose_rename_was_missed_is_covered).in_machine().needs(&[lsm]),
        test!(a_web_server_writes_its_page_and_changes_no_modes)
            .shared()
            .in_machine()
            .needs(&[lsm]),
    ]
}

fn deny(id: u32) -> FileRule {
    FileRule::new(RuleId(id), format!("rule {id}"), FileAction::Deny)
}

/// An attack's name, and the order: `D` is the protected directory, `O` another.
type Change = (&'static str, &'static str, &'static [&'static str]);

/// Every operation that changes a file or a directory's content.
const CHANGES: [Change; 26] = [
    ("append to a protected file", "append", &["D/file"]),
    ("reopen a protected file to write through an O_PATH descriptor", "open-by-path", &["D/file"]),
    ("open a protected file to write by io_uring", "uring-open caller", &["D/file"]),
    ("open a protected file to write by an io_uring worker", "uring-open worker", &["D/file"]),
    ("set an ACL of a protected file", "set-acl", &["D/file"]),
    ("append to a file deep in a protected tree", "append", &["D/sub/deep"]),
    ("create a file in a protected tree", "create", &["D/new"]),
    ("create a file deep in a protected tree", "create", &["D/sub/new"]),
    ("truncate a protected file", "truncate", &["D/file"]),
    ("unlink a protected file", "unlink", &["D/file"]),
    ("remove a directory in a protected tree", "rmdir", &["D/empty"]),
    ("remove a protected tree", "remove-all", &["D"]),
    ("create a directory in a protected tree", "mkdir", &["D/newdir"]),
    ("create a FIFO in a protected tree", "mkfifo", &["D/fifo"]),
    ("create a symbolic link in a protected tree", "symlink", &["/", "D/link"]),
    ("rename a file out of a protected tree", "rename", &["D/file", "O/file"]),
    ("rename a directory out of a protected tree", "rename", &["D/sub", "O/sub"]),
    ("rename a protected tree", "rename", &["D", "O/whole"]),
    ("rename over a protected file", "rename", &["O/other", "D/file"]),
    ("rename a file into a protected tree", "rename", &["O/other", "D/other"]),
    ("exchange a protected file by renameat2(2)", "exchange", &["O/other", "D/file"]),
    ("link a protected file into another directory", "link", &["D/file", "O/link"]),
    ("link a file into a protected tree", "link", &["O/other", "D/link"]),
    ("chmod a protected file", "chmod", &["D/file"]),
    ("chown a protected file", "chown", &["D/sub/deep"]),
    ("set the times of a protected tree", "touch", &["D"]),
];

/// The directories, as before any attack.
fn lay_out(host: &Host) {
    for dir in ["protected", "elsewhere"] {
        let _ = std::fs::remove_dir_all(host.path(dir));
    }
    for dir in ["protected/sub", "protected/empty", "elsewhere"] {
        std::fs::create_dir_all(host.path(dir)).unwrap();
    }
    for (file, text) in
        [("protected/file", "1"), ("protected/sub/deep", "2"), ("elsewhere/other", "3")]
    {
        std::fs::write(host.path(file), text).unwrap();
    }
}

fn order(host: &Host, verb: &str, paths: &[&str]) -> String {
    let place = |path: &str| {
        let path = path.replacen('D', "protected", 1).replacen('O', "elsewhere", 1);
        host.path(&path).display().to_string()
    };
    let words = paths.iter().map(|path| match *path {
        "/" => "/".to_owned(),
        path => place(path),
    });
    [verb.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn a_protected_tree_is_not_changed() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    for (name, verb, paths) in CHANGES {
        lay_out(&host);
        attacks.without(name, &mut attacker, &order(&host, verb, paths));
    }
    lay_out(&host);
    let policy = Policy::builder().file_rule(deny(7).tree(host.path("protected")));
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, verb, paths) in CHANGES {
        let event = attacks.with(name, &mut attacker, &order(&host, verb, paths), &events);
        assert_eq!(event.pid, attacker.pid(), "{name}: {event}");
        assert_eq!(sentinel.rule(event.rules[0]).unwrap().id, RuleId(7), "{name}: {event}");
    }
    // Nothing has changed, and reading is allowed.
    for (file, text) in
        [("protected/file", "1"), ("protected/sub/deep", "2"), ("elsewhere/other", "3")]
    {
        let path = host.path(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(attacker.ask(&format!("read {}", path.display())).unwrap(), 0);
    }
    // Pipes are in no directory, and can be opened by /proc/self/fd.
    assert_eq!(attacker.ask("open-to-write /proc/self/fd/1").unwrap(), 0);
    // Other files may be changed, and the agent may change all.
    assert_eq!(attacker.ask(&order(&host, "append", &["O/other"])).unwrap(), 0);
    std::fs::write(host.path("protected/sub/deep"), "4").unwrap();
    std::fs::rename(host.path("protected/file"), host.path("protected/sub/file")).unwrap();
    let moved = order(&host, "append", &["D/sub/file"]);
    assert_eq!(attacker.ask(&moved).unwrap(), EPERM);
    drop(sentinel);
    assert_eq!(attacker.ask(&moved).unwrap(), 0);
}

/// Attacks on a file that the agent has replaced since the policy was applied, or on its directory.
const REPLACED: [Change; 8] = [
    ("append to a protected file that was replaced", "append", &["D/file"]),
    ("unlink a protected file that was replaced", "unlink", &["D/file"]),
    ("rename over a protected file that was replaced", "rename", &["D/another", "D/file"]),
    ("rename a protected file that was replaced", "rename", &["D/file", "D/gone"]),
    ("link a protected file that was replaced", "link", &["D/file", "O/link"]),
    ("chmod a protected file that was replaced", "chmod", &["D/file"]),
    ("rename the directory of a protected file", "rename", &["D", "O/whole"]),
    ("exchange the directory of a protected file", "exchange", &["D", "O"]),
];

/// The same where it is gone.
const GONE: [Change; 3] = [
    ("create a removed protected file", "create", &["D/file"]),
    ("create a symbolic link at a removed protected file", "symlink", &["/", "D/file"]),
    ("rename to a removed protected file", "rename", &["D/another", "D/file"]),
];

fn a_file_is_covered_by_its_name_too() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let file = host.path("protected/file");
    // Another file with the same name.
    let replace = || {
        std::fs::write(host.path("protected/next"), "next").unwrap();
        std::fs::rename(host.path("protected/next"), &file).unwrap();
    };
    let remove = || std::fs::remove_file(&file).unwrap();
    for (changes, prepare) in [(&REPLACED[..], &replace as &dyn Fn()), (&GONE, &remove)] {
        for (name, verb, paths) in changes {
            lay_out(&host);
            std::fs::write(host.path("protected/another"), "4").unwrap();
            prepare();
            attacks.without(name, &mut attacker, &order(&host, verb, paths));
        }
    }
    lay_out(&host);
    let policy = Policy::builder().file_rule(deny(1).file(&file));
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let mut ask = |verb, paths: &[&str]| attacker.ask(&order(&host, verb, paths)).unwrap();
    assert_eq!(ask("append", &["D/file"]), EPERM);
    assert_eq!(ask("create", &["D/another"]), 0);
    for (changes, prepare) in [(&REPLACED[..], &replace as &dyn Fn()), (&GONE, &remove)] {
        prepare();
        for (name, verb, paths) in changes {
            attacks.with(name, &mut attacker, &order(&host, verb, paths), &events);
        }
    }
    std::fs::write(&file, "new").unwrap();
    let mut ask = |verb, paths: &[&str]| attacker.ask(&order(&host, verb, paths)).unwrap();
    assert_eq!(ask("append", &["D/file"]), EPERM);
    assert_eq!(ask("append", &["D/another"]), 0);
    drop(sentinel);
}

fn reading_and_executing_are_denied_too() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let tool = host.program("tool");
    let secret = host.path("protected/file");
    let read = format!("read {}", secret.display());
    let handle = format!("open-by-handle {}", secret.display());
    let list = format!("list {}", host.path("protected").display());
    let execute = format!("execute {}", tool.display());
    let loader = format!("tool {} {} --list", crate::testbed::LOADER, tool.display());
    let tried = [
        ("read a protected file", &read, FileOp::Read),
        ("open a protected file by its file handle", &handle, FileOp::Read),
        ("list a protected directory", &list, FileOp::Read),
        ("execute a protected file", &execute, FileOp::Execute),
    ];
    let by_loader = "execute a protected file by the dynamic loader";
    for (name, order, _) in tried {
        attacks.without(name, &mut attacker, order);
    }
    attacks.without(by_loader, &mut attacker, &loader);
    let policy = Policy::builder()
        .file_rule(deny(1).tree(host.path("protected")).operations(FileOps::READ))
        .file_rule(deny(2).file(&tool).operations(FileOps::EXECUTE));
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order, op) in tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!((event.hook, event.op), (SentinelHook::FileOpen, Some(op)), "{name}: {event}");
        assert!(event.path.is_some(), "{event}");
    }
    attacks.with(by_loader, &mut attacker, &loader, &events);
    assert!(
        attacker.ask(&format!("append {}", host.path("protected/sub/deep").display())).unwrap()
            == 0
    );
    drop(sentinel);
}

/// Path components of a rule are protected, and files are protected through overlayfs.
fn path_components_and_overlays_are_protected() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let at = |name: &str| host.path(name).display().to_string();
    let tried = [
        (
            "remove a path component of a protected file",
            format!("rmdir {}", at("protected/component")),
        ),
        (
            "rename a path component of a protected file",
            format!("rename {} {}", at("protected/component"), at("protected/gone")),
        ),
        (
            "create a protected file that never existed",
            format!("create {}", at("protected/component/absent")),
        ),
        (
            "unlink a symbolic link in the path of a protected file",
            format!("unlink {}", at("link")),
        ),
        (
            "rename a symbolic link in the path of a protected file",
            format!("rename {} {}", at("link"), at("gone")),
        ),
        (
            "rename over a symbolic link in the path of a protected file",
            format!("rename {} {}", at("other"), at("link")),
        ),
        (
            "exchange a symbolic link in the path of a protected file",
            format!("exchange {} {}", at("other"), at("link")),
        ),
        (
            "read a protected file through a symbolic link in its path",
            format!("read {}", at("link/file")),
        ),
    ];
    for (name, order) in &tried {
        lay_out_components(&host);
        attacks.without(name, &mut attacker, order);
    }
    lay_out_components(&host);
    let (lower, upper, work) = (at("lower"), at("protected"), at("work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let overlay = format!("tool mount -t overlay -o {options} none {}", at("merged"));
    let unmount = format!("tool umount {}", at("merged"));
    let by_overlay = [
        ("append to a protected file through overlayfs", format!("append {}", at("merged/file"))),
        ("read a protected file through overlayfs", format!("read {}", at("merged/file"))),
    ];
    let has_overlay = attacker.ask(&overlay).unwrap() == 0;
    if has_overlay {
        for (name, order) in &by_overlay {
            attacks.without(name, &mut attacker, order);
        }
        assert_eq!(attacker.ask(&unmount).unwrap(), 0);
    } else {
        // The virtual machines have overlayfs.
        assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
        println!("not tested: overlayfs cannot be mounted here");
    }
    let policy = Policy::builder()
        .file_rule(deny(1).file(host.path("protected/component/absent")))
        .file_rule(
            deny(2).file(host.path("link/file")).operations(FileOps::CHANGE | FileOps::READ),
        );
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    let another = format!("create {}", at("protected/component/another"));
    assert_eq!(attacker.ask(&another).unwrap(), 0);
    // Rights of a directory above may hide a file; other attributes do not.
    does(&mut attacker, &format!("setxattr {}", at("protected/component")));
    let mut tried = vec![("chmod", SentinelHook::InodeSetattr)];
    // Since Linux 6.2.
    let hooks = sentinel.status().unwrap().hooks;
    let is_missing = |it: &HookStatus| matches!(it.state, HookState::Missing { .. });
    let lacks_acl_hook = hooks.iter().any(|it| it.name == "inode_set_acl" && is_missing(it));
    let acl_hook = match lacks_acl_hook {
        true => SentinelHook::InodeSetxattr,
        false => SentinelHook::InodeSetAcl,
    };
    tried.push(("set-acl", acl_hook));
    for (verb, hook) in tried {
        does(&mut attacker, &format!("{verb} {}", at("protected/component")));
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        assert_eq!((event.verdict, event.hook), (SentinelVerdict::Logged, hook), "{event}");
        assert_eq!((event.pid, event.op), (attacker.pid(), Some(FileOp::Metadata)), "{event}");
    }
    if has_overlay {
        assert_eq!(attacker.ask(&overlay).unwrap(), 0);
        for (name, order) in &by_overlay {
            attacks.with(name, &mut attacker, order, &events);
        }
        assert_eq!(attacker.ask(&format!("append {}", at("merged/sub/deep"))).unwrap(), 0);
        assert_eq!(attacker.ask(&unmount).unwrap(), 0);
    }
    drop(sentinel);
}

/// Mount points of unsupported file systems, and the reasons.
const PLACES: [(&str, &str); 2] = [("merged", "overlayfs"), ("untested", "not tested")];

/// Mounts them; false where overlayfs cannot be mounted.
fn mount_places(host: &Host, attacker: &mut TestProcess) -> bool {
    lay_out_components(host);
    let at = |name: &str| host.path(name).display().to_string();
    std::fs::create_dir(host.path("untested")).unwrap();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("elsewhere"), at("work"));
    let overlay = format!("tool mount -t overlay -o {options} none {}", at("merged"));
    if attacker.ask(&overlay).unwrap() != 0 {
        // The virtual machines have overlayfs.
        assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
        println!("not tested: overlayfs cannot be mounted here");
        return false;
    }
    let untested = format!("tool mount -t mqueue none {}", at("untested"));
    assert_eq!(attacker.ask(&untested).unwrap(), 0);
    std::fs::write(host.path("lower/file"), "1").unwrap();
    true
}

fn unmount_places(host: &Host, attacker: &mut TestProcess) {
    for (place, _) in PLACES {
        let order = format!("tool umount {}", host.path(place).display());
        assert_eq!(attacker.ask(&order).unwrap(), 0, "{order}");
    }
}

/// Policies with a rule on a supported file system and one on an unsupported file system.
fn policies_of_place(host: &Host, place: &str) -> [CompiledPolicy; 3] {
    let place = host.path(place);
    let rules = [
        deny(2).tree(&place),
        deny(2).file(place.join("other")),
        deny(2).file(place.join("absent")),
    ];
    rules.map(|rule| {
        let policy = Policy::builder().file_rule(deny(1).tree(host.path("lower")));
        policy.file_rule(rule).compile().unwrap()
    })
}

fn assert_place_refused(host: &Host, error: &SentinelError, (place, why): (&str, &str)) {
    let text = error.to_string();
    let at = host.path(place).display().to_string();
    assert_eq!(error.kind(), SentinelErrorKind::Path, "{text}");
    assert!(text.contains("rule 2") && text.contains(&at) && text.contains(why), "{text}");
    println!("{text}");
}

/// Results of changes to a protected file, and to one that only a refused policy names.
fn change_places(host: &Host, attacker: &mut TestProcess) -> [u64; 2] {
    [
        attacker.ask(&order(host, "append", &["D/file"])).unwrap(),
        attacker.ask(&format!("append {}", host.path("lower/file").display())).unwrap(),
    ]
}

/// A rule on a file system that does not identify files is refused, and the policy in force stays.
fn unsupported_file_systems_are_refused() {
    let host = Host::new();
    let mut attacker = host.test_process();
    if !mount_places(&host, &mut attacker) {
        return;
    }
    let first =
        Policy::builder().file_rule(deny(1).tree(host.path("protected"))).compile().unwrap();
    let sentinel = host.start(&first);
    for place in PLACES {
        for policy in policies_of_place(&host, place.0) {
            assert_place_refused(&host, &sentinel.apply(&policy).unwrap_err(), place);
            assert_eq!(change_places(&host, &mut attacker), [EPERM, 0]);
        }
    }
    assert_eq!(sentinel.status().unwrap().policy, first.id().to_string());
    drop(sentinel);
    unmount_places(&host, &mut attacker);
}

fn no_start_with_unsupported_file_systems() {
    let host = Host::new();
    let mut attacker = host.test_process();
    if !mount_places(&host, &mut attacker) {
        return;
    }
    for place in PLACES {
        let [policy, ..] = policies_of_place(&host, place.0);
        let builder = Sentinel::builder("test");
        assert_place_refused(&host, &builder.start(&policy).err().unwrap(), place);
        assert_eq!(change_places(&host, &mut attacker), [0, 0]);
    }
    unmount_places(&host, &mut attacker);
}

/// [`lay_out`], with symbolic links to the protected directory.
fn lay_out_components(host: &Host) {
    lay_out(host);
    for link in ["link", "other", "gone"] {
        // An earlier attack may have left it.
        let _ = std::fs::remove_file(host.path(link));
    }
    for dir in ["protected/component", "lower", "work", "merged"] {
        std::fs::create_dir_all(host.path(dir)).unwrap();
    }
    std::os::unix::fs::symlink(host.path("protected"), host.path("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.path("other")).unwrap();
}

/// Kernel and agent hash names in steps of eight bytes.
fn names_of_every_length_are_covered() {
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.test_process();
    let lengths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 128, 247, 248, 254, 255];
    let name = |length: usize, last: char| {
        let all = "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(length - 1);
        host.path(&format!("protected/{}{last}", all.collect::<String>()))
    };
    let rule = lengths.iter().fold(deny(1), |rule, &length| rule.file(name(length, 'A')));
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    for length in lengths {
        let mut create = |last| attacker.ask(&format!("create {}", name(length, last).display()));
        assert_eq!(create('A').unwrap(), EPERM, "{length} bytes");
        assert_eq!(create('B').unwrap(), 0, "{length} bytes, another name");
    }
    drop(sentinel);
}

/// A file with too many path components may be below any directory that rules cover, and is denied.
fn files_are_covered_at_every_depth() {
    let host = Host::new();
    lay_out(&host);
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    let is_inside = |path: &&Path| device(path) == device(host.dir());
    let around = host.dir().ancestors().take_while(is_inside).count();
    // Numbers of nested directories, of which the last has a file.
    let lowest = SENTINEL_DEPTH - around - 1;
    let depths = [1, lowest - 1, lowest, lowest + 1, lowest + 2, 2 * lowest];
    let file = |top: &str, depth: usize| {
        let below = ["d"].repeat(depth).join("/");
        host.path(top).join(below).join("file")
    };
    for (top, depth) in
        depths.iter().flat_map(|&depth| [("protected", depth), ("elsewhere", depth)])
    {
        let file = file(top, depth);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "1").unwrap();
    }
    let mut attacker = host.test_process();
    let mut append =
        |top: &str, depth| attacker.ask(&format!("append {}", file(top, depth).display())).unwrap();
    for depth in depths {
        assert_eq!((append("protected", depth), append("elsewhere", depth)), (0, 0), "{depth}");
    }
    let rule = deny(1).tree(host.path("protected"));
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    for depth in depths {
        let elsewhere = if depth <= lowest { 0 } else { EPERM };
        assert_eq!(
            (append("protected", depth), append("elsewhere", depth)),
            (EPERM, elsewhere),
            "{depth}"
        );
    }
    drop(sentinel);
}

/// After a directory rename its files are covered by their new path. Hard links and chroot(2) change nothing.
fn renamed_directories_and_hard_links_are_covered() {
    let host = Host::new();
    lay_out(&host);
    std::fs::create_dir(host.path("elsewhere/moves")).unwrap();
    std::fs::write(host.path("elsewhere/moves/file"), "1").unwrap();
    std::fs::hard_link(host.path("protected/sub/deep"), host.path("elsewhere/deep")).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let old_name = "append to a protected file by a hard link that is older than the rule";
    let chroot = format!("chroot {}", host.dir().display());
    let (from_chroot, inside) =
        ("append to a protected file from a chroot(2)", "append /protected/file");
    attacks.without(old_name, &mut attacker, &order(&host, "append", &["O/deep"]));
    let mut elsewhere = host.test_process();
    assert_eq!(elsewhere.ask(&chroot).unwrap(), 0);
    attacks.without(from_chroot, &mut elsewhere, inside);
    let mut ask = |paths: &[&str]| attacker.ask(&order(&host, "append", paths)).unwrap();
    let rules = |id| Policy::builder().file_rule(deny(id).tree(host.path("protected")));
    let sentinel = host.start(&rules(1).compile().unwrap());
    assert_eq!(ask(&["O/moves/file"]), 0);
    std::fs::rename(host.path("elsewhere/moves"), host.path("protected/moves")).unwrap();
    assert_eq!(ask(&["D/moves/file"]), EPERM);
    std::fs::rename(host.path("protected/moves"), host.path("elsewhere/moves")).unwrap();
    assert_eq!(ask(&["O/moves/file"]), 0);
    // A policy with a missing path changes nothing.
    let wrong = rules(2).file_rule(deny(3).tree(host.path("absent"))).compile().unwrap();
    let error = sentinel.apply(&wrong).unwrap_err().to_string();
    assert!(error.contains("rule 3") && error.contains("absent"), "{error}");
    assert_eq!((ask(&["D/file"]), sentinel.rule(0).unwrap().id), (EPERM, RuleId(1)));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    attacks.with(old_name, &mut attacker, &order(&host, "append", &["O/deep"]), &events);
    assert_eq!(attacker.ask(&chroot).unwrap(), 0);
    attacks.with(from_chroot, &mut attacker, inside, &events);
    assert_eq!(attacker.ask("append /elsewhere/other").unwrap(), 0);
    drop(sentinel);
}

/// The rename counter of the programs.
fn renames() -> u64 {
    let maps = libbpf_rs::query::MapInfoIter::default();
    // The kernel may not have released the maps of earlier tests yet.
    let newest = maps.filter(|map| map.name.to_string_lossy().starts_with(".data.ic_sent")).last();
    let state = MapHandle::from_map_id(newest.unwrap().id).unwrap();
    let bytes = state.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    u64::from_ne_bytes(bytes[..8].try_into().unwrap()) >> RENAME_SHIFT
}

/// Detaches a program of this process, as if the kernel missed each of its calls.
fn detach(name: &str) {
    let program = ProgInfoIter::default()
        .filter(|program| program.name.to_string_lossy() == name)
        .last()
        .unwrap();
    let line = format!("prog_id:\t{}", program.id);
    let link = std::fs::read_dir("/proc/self/fdinfo").unwrap().map(|fd| fd.unwrap()).find(|fd| {
        let info = std::fs::read_to_string(fd.path()).unwrap_or_default();
        info.contains("link_id:") && info.lines().any(|is| is == line)
    });
    let fd = link.unwrap().file_name().into_string().unwrap().parse().unwrap();
    replace_descriptor(fd, File::open("/dev/null").unwrap()).unwrap();
    let has_ended = || !LinkInfoIter::default().any(|link| link.prog_id == program.id);
    let since = Instant::now();
    while !has_ended() {
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

/// The kernel misses a program at the return of a function that another task on the same CPU is within.
fn a_directory_whose_rename_was_missed_is_covered() {
    let host = Host::new();
    lay_out(&host);
    let [outside, inside, other] =
        ["elsewhere/moves", "protected/moves", "protected/sub"].map(|path| host.path(path));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "1").unwrap();
    let mut attacker = host.test_process();
    let mut ask = |path| attacker.ask(&order(&host, "append", &[path])).unwrap();
    let rule = deny(1).tree(host.path("protected"));
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    assert_eq!(ask("O/moves/file"), 0);
    for (from, to) in [(&outside, &inside), (&inside, &outside)] {
        std::fs::rename(from, to).unwrap();
    }
    // The kernel calls the hook twice for an exchange, and not the end for a rename that fails.
    let exchange = || renameat_with(CWD, &outside, CWD, &other, RenameFlags::EXCHANGE);
    assert_eq!((exchange(), exchange()), (Ok(()), Ok(())));
    assert!(std::fs::rename(&outside, host.path("protected")).is_err());
    assert_eq!((renames(), ask("O/moves/file")), (0, 0));

    detach("ic_renamed");
    let (go, may_end) = mpsc::channel::<()>();
    let (moved, has_moved) = mpsc::channel();
    let (from, to) = (outside, inside);
    let mover = std::thread::spawn(move || {
        std::fs::rename(from, to).unwrap();
        moved.send(()).unwrap();
        may_end.recv().unwrap();
    });
    has_moved.recv().unwrap();
    assert_eq!((renames(), ask("D/moves/file")), (1, EPERM));
    go.send(()).unwrap();
    mover.join().unwrap();
    // The kernel reports the exit of the thread once nothing refers to it.
    let since = Instant::now();
    while renames() > 0 {
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert_eq!(ask("D/moves/file"), EPERM);
    drop(sentinel);
}

/// The owner of a file may change its mode, unless a rule denies it.
fn a_web_server_writes_its_page_and_changes_no_modes() {
    const WEB: u32 = 33;
    let host = Host::new();
    let (site, page) = (host.path("site"), host.path("site/page"));
    std::fs::create_dir(&site).unwrap();
    std::fs::write(&page, "1").unwrap();
    // Users other than root may search the directory.
    std::fs::set_permissions(host.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    chown(&page, Some(WEB), Some(WEB)).unwrap();
    let (server, tool) = (host.program("web-server"), host.program("deploy"));
    let mut web = host.test_process_by(&server);
    assert_eq!(web.ask(&format!("uid {WEB}")).unwrap(), 0);
    let chmod = format!("chmod {}", page.display());
    let append = format!("append {}", page.display());
    let touch = chmod.replace("chmod", "touch");
    assert_eq!((web.ask(&chmod).unwrap(), web.ask(&touch).unwrap()), (0, 0));

    let rule = deny(1).tree(&site).operations(FileOps::METADATA).except(&tool);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let mode = || std::fs::metadata(&page).unwrap().mode();
    let before = mode();
    assert_eq!(web.ask(&touch).unwrap(), EPERM);
    next_denied(&events);
    assert_eq!(web.ask(&chmod).unwrap(), EPERM);
    let event = next_denied(&events);
    let what = (event.hook, event.op, event.uid, event.pid);
    let expected = (SentinelHook::InodeSetattr, Some(FileOp::Metadata), WEB, web.pid());
    assert_eq!((what, event.rules.as_slice()), (expected, &[0][..]), "{event}");
    assert_eq!(mode(), before);
    assert_eq!(web.ask(&append).unwrap(), 0);
    // Root may not change the mode either, but the exempt executable may.
    assert_eq!(host.test_process().ask(&chmod).unwrap(), EPERM);
    let owner = chmod.replace("chmod", "chown");
    assert_eq!(host.test_process().ask(&owner).unwrap(), EPERM);
    assert_eq!(host.test_process_by(&tool).ask(&chmod).unwrap(), 0);
}
