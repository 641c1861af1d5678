//! File rules: each attack succeeds without Sentinel, and fails with it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use crate::testbed::{Attacks, EPERM, Host, PATIENCE, lsm, next_denied};
use ironclad_core::RuleId;
use ironclad_core::abi::{FileOp, RENAME_SHIFT, SENTINEL_DEPTH, SentinelHook};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{Overflow, Sentinel, SentinelError};
use ironclad_syscalls::replace_descriptor;
use libbpf_rs::query::{LinkInfoIter, ProgInfoIter};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use rustix::fs::{CWD, RenameFlags, renameat_with};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(no_change_to_a_guarded_tree).shared().in_machine().needs(&[lsm]),
        test!(a_file_is_covered_by_its_name_too).shared().in_machine().needs(&[lsm]),
        test!(reading_and_executing_are_denied_too).shared().in_machine().needs(&[lsm]),
        test!(preopened_descriptors_do_not_write).shared().in_machine().needs(&[lsm]),
        test!(ways_and_overlays_lead_to_what_is_guarded).shared().in_machine().needs(&[lsm]),
        test!(places_that_cannot_be_guarded_are_refused).shared().in_machine().needs(&[lsm]),
        test!(no_start_with_places_that_cannot_be_guarded).in_machine().needs(&[lsm]),
        test!(names_of_every_length_are_covered).shared().in_machine().needs(&[lsm]),
        test!(files_are_covered_however_deep_they_lie).shared().in_machine().needs(&[lsm]),
        test!(directories_that_move_and_other_names_are_followed)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        // It detaches a program of its instance.
        test!(a_directory_whose_move_was_passed_over_is_covered).in_machine().needs(&[lsm]),
        test!(a_web_server_writes_its_page_and_changes_no_modes)
            .shared()
            .in_machine()
            .needs(&[lsm]),
    ]
}

fn deny(id: u32) -> FileRule {
    FileRule::new(RuleId(id), format!("rule {id}"), FileAction::Deny)
}

/// An attack's name, and the order: `D` is the guarded directory, `O` another.
type Change = (&'static str, &'static str, &'static [&'static str]);

/// Every way to change a file or what is in a directory.
const CHANGES: [Change; 26] = [
    ("append to a guarded file", "append", &["D/file"]),
    ("open a guarded file by O_PATH, then to write", "open-by-path", &["D/file"]),
    ("open a guarded file to write by io_uring", "uring-open caller", &["D/file"]),
    ("open a guarded file to write by a worker of io_uring", "uring-open worker", &["D/file"]),
    ("give a guarded file an access control list", "set-acl", &["D/file"]),
    ("append to a file deep in a guarded tree", "append", &["D/sub/deep"]),
    ("create a file in a guarded tree", "create", &["D/new"]),
    ("create a file deep in a guarded tree", "create", &["D/sub/new"]),
    ("truncate a guarded file", "truncate", &["D/file"]),
    ("unlink a guarded file", "unlink", &["D/file"]),
    ("remove a directory in a guarded tree", "rmdir", &["D/empty"]),
    ("remove a guarded tree", "remove-all", &["D"]),
    ("make a directory in a guarded tree", "mkdir", &["D/newdir"]),
    ("make a pipe in a guarded tree", "mkfifo", &["D/fifo"]),
    ("make a symbolic link in a guarded tree", "symlink", &["/", "D/link"]),
    ("rename a file out of a guarded tree", "rename", &["D/file", "O/file"]),
    ("rename a directory out of a guarded tree", "rename", &["D/sub", "O/sub"]),
    ("rename a guarded tree", "rename", &["D", "O/whole"]),
    ("rename over a guarded file", "rename", &["O/other", "D/file"]),
    ("rename a file into a guarded tree", "rename", &["O/other", "D/other"]),
    ("exchange a guarded file", "exchange", &["O/other", "D/file"]),
    ("link a guarded file elsewhere", "link", &["D/file", "O/link"]),
    ("link a file into a guarded tree", "link", &["O/other", "D/link"]),
    ("chmod a guarded file", "chmod", &["D/file"]),
    ("chown a guarded file", "chown", &["D/sub/deep"]),
    ("set the times of a guarded tree", "touch", &["D"]),
];

/// The directory under attack, as if nobody had tried.
fn lay_out(host: &Host) {
    for dir in ["guarded", "elsewhere"] {
        let _ = std::fs::remove_dir_all(host.path(dir));
    }
    for dir in ["guarded/sub", "guarded/empty", "elsewhere"] {
        std::fs::create_dir_all(host.path(dir)).unwrap();
    }
    for (file, text) in [("guarded/file", "1"), ("guarded/sub/deep", "2"), ("elsewhere/other", "3")]
    {
        std::fs::write(host.path(file), text).unwrap();
    }
}

fn order(host: &Host, verb: &str, paths: &[&str]) -> String {
    let place = |path: &str| {
        let path = path.replacen('D', "guarded", 1).replacen('O', "elsewhere", 1);
        host.path(&path).display().to_string()
    };
    let words = paths.iter().map(|path| match *path {
        "/" => "/".to_owned(),
        path => place(path),
    });
    [verb.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn no_change_to_a_guarded_tree() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    for (name, verb, paths) in CHANGES {
        lay_out(&host);
        attacks.without(name, &mut attacker, &order(&host, verb, paths));
    }
    lay_out(&host);
    let policy = Policy::builder().file_rule(deny(7).tree(host.path("guarded")));
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, verb, paths) in CHANGES {
        let event = attacks.with(name, &mut attacker, &order(&host, verb, paths), &events);
        assert_eq!(event.pid, attacker.pid(), "{name}: {event}");
        assert_eq!(sentinel.rule(event.rules[0]).unwrap().id, RuleId(7), "{name}: {event}");
    }
    // All is as it was, and others may read.
    for (file, text) in [("guarded/file", "1"), ("guarded/sub/deep", "2"), ("elsewhere/other", "3")]
    {
        let path = host.path(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        assert_eq!(attacker.ask(&format!("read {}", path.display())).unwrap(), 0);
    }
    // Pipes lie nowhere, and are opened by their descriptors' names.
    assert_eq!(attacker.ask("open-to-write /proc/self/fd/1").unwrap(), 0);
    // What is elsewhere may be changed, and by the agent everything may.
    assert_eq!(attacker.ask(&order(&host, "append", &["O/other"])).unwrap(), 0);
    std::fs::write(host.path("guarded/sub/deep"), "4").unwrap();
    std::fs::rename(host.path("guarded/file"), host.path("guarded/sub/file")).unwrap();
    let moved = order(&host, "append", &["D/sub/file"]);
    assert_eq!(attacker.ask(&moved).unwrap(), EPERM);
    drop(sentinel);
    assert_eq!(attacker.ask(&moved).unwrap(), 0);
}

/// What is done to a file that the agent has replaced since the rule, or to the way to it.
const REPLACED: [Change; 8] = [
    ("append to a guarded file that was replaced", "append", &["D/file"]),
    ("unlink a guarded file that was replaced", "unlink", &["D/file"]),
    ("rename over a guarded file that was replaced", "rename", &["D/another", "D/file"]),
    ("rename a guarded file that was replaced", "rename", &["D/file", "D/gone"]),
    ("link a guarded file that was replaced", "link", &["D/file", "O/link"]),
    ("chmod a guarded file that was replaced", "chmod", &["D/file"]),
    ("rename the directory of a guarded file", "rename", &["D", "O/whole"]),
    ("exchange the directory of a guarded file", "exchange", &["D", "O"]),
];

/// The same where it is gone.
const GONE: [Change; 3] = [
    ("create a guarded file that is gone", "create", &["D/file"]),
    ("make a link in place of a guarded file that is gone", "symlink", &["/", "D/file"]),
    ("rename to a guarded file that is gone", "rename", &["D/another", "D/file"]),
];

fn a_file_is_covered_by_its_name_too() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let file = host.path("guarded/file");
    // Another file under its name.
    let replace = || {
        std::fs::write(host.path("guarded/next"), "next").unwrap();
        std::fs::rename(host.path("guarded/next"), &file).unwrap();
    };
    let remove = || std::fs::remove_file(&file).unwrap();
    for (changes, prepare) in [(&REPLACED[..], &replace as &dyn Fn()), (&GONE, &remove)] {
        for (name, verb, paths) in changes {
            lay_out(&host);
            std::fs::write(host.path("guarded/another"), "4").unwrap();
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
    let secret = host.path("guarded/file");
    let read = format!("read {}", secret.display());
    let handle = format!("open-by-handle {}", secret.display());
    let list = format!("list {}", host.path("guarded").display());
    let execute = format!("execute {}", tool.display());
    let loader = format!("tool {} {} --list", crate::testbed::LOADER, tool.display());
    let tried = [
        ("read a guarded file", &read, FileOp::Read),
        ("open a guarded file by its handle", &handle, FileOp::Read),
        ("list a guarded directory", &list, FileOp::Read),
        ("execute a guarded file", &execute, FileOp::Execute),
    ];
    let by_loader = "execute a guarded file by the loader";
    for (name, order, _) in tried {
        attacks.without(name, &mut attacker, order);
    }
    attacks.without(by_loader, &mut attacker, &loader);
    let policy = Policy::builder()
        .file_rule(deny(1).tree(host.path("guarded")).operations(FileOps::READ))
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
        attacker.ask(&format!("append {}", host.path("guarded/sub/deep").display())).unwrap() == 0
    );
    drop(sentinel);
}

fn preopened_descriptors_do_not_write() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let file = host.path("guarded/file");
    let from = |verb: &str| format!("{verb} {}", host.path("elsewhere/other").display());
    let tried = [
        ("allocate by a pre-opened descriptor", "allocate-kept".to_owned()),
        ("truncate by a pre-opened descriptor", "truncate-kept".to_owned()),
        ("write by a pre-opened descriptor", "write-kept 1".to_owned()),
        ("map to write by a pre-opened descriptor", "map-kept".to_owned()),
        ("copy_file_range(2) to a pre-opened descriptor", from("copy-to-kept")),
        ("sendfile(2) to a pre-opened descriptor", from("send-to-kept")),
        ("splice(2) to a pre-opened descriptor", from("splice-to-kept")),
        ("write by io_uring to a pre-opened descriptor", "uring-write-kept caller 1".into()),
        ("write by a worker of io_uring to the same", "uring-write-kept worker 1".into()),
    ];
    assert_eq!(attacker.ask(&format!("keep-open {}", file.display())).unwrap(), 0);
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let policy = |dir| Policy::builder().file_rule(deny(1).tree(host.path(dir))).compile().unwrap();
    let sentinel = host.start(&policy("elsewhere"));
    assert_eq!(attacker.ask("write-kept 2").unwrap(), 0);
    assert_eq!(sentinel.status().unwrap().preopened, []);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    sentinel.apply(&policy("guarded")).unwrap();
    let before = sentinel.status().unwrap().preopened;
    assert_eq!((before.len(), before[0].pid, before[0].rules), (1, attacker.pid(), 1));
    let content = std::fs::read(&file).unwrap();
    for (name, order) in &tried {
        assert_eq!(attacks.with(name, &mut attacker, order, &events).pid, attacker.pid(), "{name}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), content);
    drop(sentinel);
    assert_eq!(attacker.ask("map-kept").unwrap(), 0);
    assert_eq!(attacker.ask("write-kept 4").unwrap(), 0);
}

/// Neither the way that a rule was told, nor a mount of what lies on its end, leads elsewhere.
fn ways_and_overlays_lead_to_what_is_guarded() {
    let host = Host::new();
    lay_out(&host);
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let at = |name: &str| host.path(name).display().to_string();
    let tried = [
        ("remove the way to a guarded file", format!("rmdir {}", at("guarded/way"))),
        (
            "rename the way to a guarded file",
            format!("rename {} {}", at("guarded/way"), at("guarded/gone")),
        ),
        (
            "create a guarded file that was never there",
            format!("create {}", at("guarded/way/absent")),
        ),
        ("unlink a link on the way to a guarded file", format!("unlink {}", at("link"))),
        (
            "rename a link on the way to a guarded file",
            format!("rename {} {}", at("link"), at("gone")),
        ),
        (
            "rename over a link on the way to a guarded file",
            format!("rename {} {}", at("other"), at("link")),
        ),
        (
            "exchange a link on the way to a guarded file",
            format!("exchange {} {}", at("other"), at("link")),
        ),
        ("read a guarded file by a link on the way", format!("read {}", at("link/file"))),
    ];
    for (name, order) in &tried {
        lay_out_ways(&host);
        attacks.without(name, &mut attacker, order);
    }
    lay_out_ways(&host);
    let (lower, upper, work) = (at("lower"), at("guarded"), at("work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let overlay = format!("tool mount -t overlay -o {options} none {}", at("merged"));
    let unmount = format!("tool umount {}", at("merged"));
    let by_overlay = [
        ("append to a guarded file by an overlay", format!("append {}", at("merged/file"))),
        ("read a guarded file by an overlay", format!("read {}", at("merged/file"))),
    ];
    let has_overlay = attacker.ask(&overlay).unwrap() == 0;
    if has_overlay {
        for (name, order) in &by_overlay {
            attacks.without(name, &mut attacker, order);
        }
        assert_eq!(attacker.ask(&unmount).unwrap(), 0);
    } else {
        // The machines of the matrix have it.
        assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
        println!("not tried: overlayfs, which cannot be mounted here");
    }
    let policy =
        Policy::builder().file_rule(deny(1).file(host.path("guarded/way/absent"))).file_rule(
            deny(2).file(host.path("link/file")).operations(FileOps::CHANGE | FileOps::READ),
        );
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        attacks.with(name, &mut attacker, order, &events);
    }
    let another = format!("create {}", at("guarded/way/another"));
    assert_eq!(attacker.ask(&another).unwrap(), 0);
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

/// Places that cannot be guarded, and why not.
const PLACES: [(&str, &str); 2] = [("merged", "overlayfs"), ("untried", "not tried")];

/// Mounts them; false where overlayfs cannot be mounted.
fn mount_places(host: &Host, attacker: &mut TestProcess) -> bool {
    lay_out_ways(host);
    let at = |name: &str| host.path(name).display().to_string();
    std::fs::create_dir(host.path("untried")).unwrap();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("elsewhere"), at("work"));
    let overlay = format!("tool mount -t overlay -o {options} none {}", at("merged"));
    if attacker.ask(&overlay).unwrap() != 0 {
        // The machines of the matrix have it.
        assert!(std::env::var_os("IRONCLAD_MACHINE").is_none());
        println!("not tried: overlayfs, which cannot be mounted here");
        return false;
    }
    let untried = format!("tool mount -t mqueue none {}", at("untried"));
    assert_eq!(attacker.ask(&untried).unwrap(), 0);
    std::fs::write(host.path("lower/file"), "1").unwrap();
    true
}

fn unmount_places(host: &Host, attacker: &mut TestProcess) {
    for (place, _) in PLACES {
        let order = format!("tool umount {}", host.path(place).display());
        assert_eq!(attacker.ask(&order).unwrap(), 0, "{order}");
    }
}

/// Policies that name one of them after a place that can be guarded.
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
    let told = error.to_string();
    let at = host.path(place).display().to_string();
    assert!(matches!(error, SentinelError::Path { .. }), "{told}");
    assert!(told.contains("rule 2") && told.contains(&at) && told.contains(why), "{told}");
    println!("{told}");
}

/// What comes of changes to a guarded place, and to one that a refused policy names.
fn change_places(host: &Host, attacker: &mut TestProcess) -> [u64; 2] {
    [
        attacker.ask(&order(host, "append", &["D/file"])).unwrap(),
        attacker.ask(&format!("append {}", host.path("lower/file").display())).unwrap(),
    ]
}

/// What a file system does not keep apart cannot be guarded: that is said, and nothing changes.
fn places_that_cannot_be_guarded_are_refused() {
    let host = Host::new();
    let mut attacker = host.test_process();
    if !mount_places(&host, &mut attacker) {
        return;
    }
    let first = Policy::builder().file_rule(deny(1).tree(host.path("guarded"))).compile().unwrap();
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

fn no_start_with_places_that_cannot_be_guarded() {
    let host = Host::new();
    let mut attacker = host.test_process();
    if !mount_places(&host, &mut attacker) {
        return;
    }
    for place in PLACES {
        let [policy, ..] = policies_of_place(&host, place.0);
        let builder = Sentinel::builder("test").scratch(host.dir());
        assert_place_refused(&host, &builder.start(&policy).err().unwrap(), place);
        assert_eq!(change_places(&host, &mut attacker), [0, 0]);
    }
    unmount_places(&host, &mut attacker);
}

/// As [`lay_out`], with ways that lead to the guarded directory.
fn lay_out_ways(host: &Host) {
    lay_out(host);
    for link in ["link", "other", "gone"] {
        // Whatever the attack before has left.
        let _ = std::fs::remove_file(host.path(link));
    }
    for dir in ["guarded/way", "lower", "work", "merged"] {
        std::fs::create_dir_all(host.path(dir)).unwrap();
    }
    std::os::unix::fs::symlink(host.path("guarded"), host.path("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.path("other")).unwrap();
}

/// Names are known by a hash that kernel and agent take in steps of eight bytes.
fn names_of_every_length_are_covered() {
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.test_process();
    let lengths = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 128, 247, 248, 254, 255];
    let name = |length: usize, last: char| {
        let all = "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(length - 1);
        host.path(&format!("guarded/{}{last}", all.collect::<String>()))
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

/// Where the way to a root is too long to be known, a file may be below whatever rules cover.
fn files_are_covered_however_deep_they_lie() {
    let host = Host::new();
    lay_out(&host);
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    let is_inside = |path: &&Path| device(path) == device(host.dir());
    let around = host.dir().ancestors().take_while(is_inside).count();
    // Directories below a name in the host's, of which the last has a file.
    let lowest = SENTINEL_DEPTH - around - 1;
    let depths = [1, lowest - 1, lowest, lowest + 1, lowest + 2, 2 * lowest];
    let file = |top: &str, depth: usize| {
        let below = ["d"].repeat(depth).join("/");
        host.path(top).join(below).join("file")
    };
    for (top, depth) in depths.iter().flat_map(|&depth| [("guarded", depth), ("elsewhere", depth)])
    {
        let file = file(top, depth);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "1").unwrap();
    }
    let mut attacker = host.test_process();
    let mut append =
        |top: &str, depth| attacker.ask(&format!("append {}", file(top, depth).display())).unwrap();
    for depth in depths {
        assert_eq!((append("guarded", depth), append("elsewhere", depth)), (0, 0), "{depth}");
    }
    let rule = deny(1).tree(host.path("guarded"));
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    for depth in depths {
        let elsewhere = if depth <= lowest { 0 } else { EPERM };
        assert_eq!(
            (append("guarded", depth), append("elsewhere", depth)),
            (EPERM, elsewhere),
            "{depth}"
        );
    }
    drop(sentinel);
}

/// What lies where is known anew once a directory has moved; other names and roots change nothing.
fn directories_that_move_and_other_names_are_followed() {
    let host = Host::new();
    lay_out(&host);
    std::fs::create_dir(host.path("elsewhere/moves")).unwrap();
    std::fs::write(host.path("elsewhere/moves/file"), "1").unwrap();
    std::fs::hard_link(host.path("guarded/sub/deep"), host.path("elsewhere/deep")).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let old_name = "append to a guarded file by a name from before the rule";
    let chroot = format!("chroot {}", host.dir().display());
    let (from_chroot, inside) =
        ("append to a guarded file from a chroot(2)", "append /guarded/file");
    attacks.without(old_name, &mut attacker, &order(&host, "append", &["O/deep"]));
    let mut elsewhere = host.test_process();
    assert_eq!(elsewhere.ask(&chroot).unwrap(), 0);
    attacks.without(from_chroot, &mut elsewhere, inside);
    let mut ask = |paths: &[&str]| attacker.ask(&order(&host, "append", paths)).unwrap();
    let rules = |id| Policy::builder().file_rule(deny(id).tree(host.path("guarded")));
    let sentinel = host.start(&rules(1).compile().unwrap());
    assert_eq!(ask(&["O/moves/file"]), 0);
    std::fs::rename(host.path("elsewhere/moves"), host.path("guarded/moves")).unwrap();
    assert_eq!(ask(&["D/moves/file"]), EPERM);
    std::fs::rename(host.path("guarded/moves"), host.path("elsewhere/moves")).unwrap();
    assert_eq!(ask(&["O/moves/file"]), 0);
    // A policy that names what is not there changes nothing.
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

/// How many directories are being moved, as the programs count.
fn moves() -> u64 {
    let maps = libbpf_rs::query::MapInfoIter::default();
    // Of what earlier tests had, the kernel may not have taken all away yet.
    let newest = maps.filter(|map| map.name.to_string_lossy().starts_with(".data.ic_sent")).last();
    let state = MapHandle::from_map_id(newest.unwrap().id).unwrap();
    let bytes = state.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
    u64::from_ne_bytes(bytes[..8].try_into().unwrap()) >> RENAME_SHIFT
}

/// Ends a program of this process's, as if the kernel passed it over each time.
fn pass_over(name: &str) {
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

/// The kernel passes over a program at the return of a function that another task on the processor is within.
fn a_directory_whose_move_was_passed_over_is_covered() {
    let host = Host::new();
    lay_out(&host);
    let [outside, inside, other] =
        ["elsewhere/moves", "guarded/moves", "guarded/sub"].map(|path| host.path(path));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "1").unwrap();
    let mut attacker = host.test_process();
    let mut ask = |path| attacker.ask(&order(&host, "append", &[path])).unwrap();
    let rule = deny(1).tree(host.path("guarded"));
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    assert_eq!(ask("O/moves/file"), 0);
    for (from, to) in [(&outside, &inside), (&inside, &outside)] {
        std::fs::rename(from, to).unwrap();
    }
    // The kernel asks twice of an exchange, and does not come to the end of what fails.
    let exchange = || renameat_with(CWD, &outside, CWD, &other, RenameFlags::EXCHANGE);
    assert_eq!((exchange(), exchange()), (Ok(()), Ok(())));
    assert!(std::fs::rename(&outside, host.path("guarded")).is_err());
    assert_eq!((moves(), ask("O/moves/file")), (0, 0));

    pass_over("ic_renamed");
    let (go, may_end) = mpsc::channel::<()>();
    let (moved, has_moved) = mpsc::channel();
    let (from, to) = (outside, inside);
    let mover = std::thread::spawn(move || {
        std::fs::rename(from, to).unwrap();
        moved.send(()).unwrap();
        may_end.recv().unwrap();
    });
    has_moved.recv().unwrap();
    assert_eq!((moves(), ask("D/moves/file")), (1, EPERM));
    go.send(()).unwrap();
    mover.join().unwrap();
    // The kernel tells of its end once nobody refers to it.
    let since = Instant::now();
    while moves() > 0 {
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert_eq!(ask("D/moves/file"), EPERM);
    drop(sentinel);
}

/// Whom a file belongs to may change its mode, but for a rule.
fn a_web_server_writes_its_page_and_changes_no_modes() {
    const WEB: u32 = 33;
    let host = Host::new();
    let (site, page) = (host.path("site"), host.path("site/page"));
    std::fs::create_dir(&site).unwrap();
    std::fs::write(&page, "1").unwrap();
    // Whoever is not root finds the way to it.
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
    // Not even by a shell of root's that it was made to start, but by what deploys.
    assert_eq!(host.test_process().ask(&chmod).unwrap(), EPERM);
    let owner = chmod.replace("chmod", "chown");
    assert_eq!(host.test_process().ask(&owner).unwrap(), EPERM);
    assert_eq!(host.test_process_by(&tool).ask(&chmod).unwrap(), 0);
}
