//! File rules: each attack succeeds without Sentinel, and fails with it.

mod host;

use host::{EPERM, Host, is_without_lsm, next_denied};
use ironclad_core::RuleId;
use ironclad_core::abi::{FileOp, SentinelHook};
use ironclad_policy::Policy;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_sentinel::Overflow;

/// Only for the other tests: a process that does what they say.
#[test]
fn talker() {
    host::serve();
}

fn deny(id: u32) -> FileRule {
    FileRule::new(RuleId(id), format!("rule {id}"), FileAction::Deny)
}

/// Every way to change a file or what is in a directory, with what has to be there before.
const CHANGES: [(&str, &[&str]); 22] = [
    ("append", &["D/file"]),
    ("append", &["D/sub/deep"]),
    ("create", &["D/new"]),
    ("create", &["D/sub/new"]),
    ("truncate", &["D/file"]),
    ("unlink", &["D/file"]),
    ("rmdir", &["D/empty"]),
    ("remove-all", &["D"]),
    ("mkdir", &["D/newdir"]),
    ("mkfifo", &["D/fifo"]),
    ("symlink", &["/", "D/link"]),
    ("rename", &["D/file", "O/file"]),
    ("rename", &["D/sub", "O/sub"]),
    ("rename", &["D", "O/whole"]),
    ("rename", &["O/other", "D/file"]),
    ("rename", &["O/other", "D/other"]),
    ("exchange", &["O/other", "D/file"]),
    ("link", &["D/file", "O/link"]),
    ("link", &["O/other", "D/link"]),
    ("chmod", &["D/file"]),
    ("chown", &["D/sub/deep"]),
    ("touch", &["D"]),
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

#[test]
fn no_change_to_a_guarded_tree() {
    if is_without_lsm("no_change_to_a_guarded_tree") {
        return;
    }
    let host = Host::new();
    let mut attacker = host.talker();
    for (verb, paths) in CHANGES {
        lay_out(&host);
        assert_eq!(attacker.ask(&order(&host, verb, paths)).unwrap(), 0, "{verb} {paths:?}");
    }
    lay_out(&host);
    let policy = Policy::builder().file_rule(deny(7).tree(host.path("guarded")));
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (verb, paths) in CHANGES {
        let order = order(&host, verb, paths);
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
        let event = next_denied(&events);
        assert_eq!(event.pid, attacker.pid(), "{order}: {event}");
        assert_eq!(sentinel.rule(event.rules[0]).unwrap().id, RuleId(7), "{order}: {event}");
        while events.try_recv().is_some() {}
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

#[test]
fn a_file_is_covered_by_its_name_too() {
    if is_without_lsm("a_file_is_covered_by_its_name_too") {
        return;
    }
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.talker();
    let file = host.path("guarded/file");
    let policy = Policy::builder().file_rule(deny(1).file(&file));
    let sentinel = host.start(&policy.compile().unwrap());
    let mut ask = |verb, paths: &[&str]| attacker.ask(&order(&host, verb, paths)).unwrap();
    assert_eq!(ask("append", &["D/file"]), EPERM);
    assert_eq!(ask("create", &["D/another"]), 0);
    // Replaced by the agent: another file under its name.
    std::fs::write(host.path("guarded/next"), "next").unwrap();
    std::fs::rename(host.path("guarded/next"), &file).unwrap();
    for (verb, paths) in [
        ("append", &["D/file"][..]),
        ("unlink", &["D/file"]),
        ("rename", &["D/another", "D/file"]),
        ("rename", &["D/file", "D/gone"]),
        ("link", &["D/file", "O/link"]),
        ("chmod", &["D/file"]),
        // The way to it.
        ("rename", &["D", "O/whole"]),
        ("exchange", &["D", "O"]),
    ] {
        assert_eq!(ask(verb, paths), EPERM, "{verb} {paths:?}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask("create", &["D/file"]), EPERM);
    assert_eq!(ask("symlink", &["/", "D/file"]), EPERM);
    assert_eq!(ask("rename", &["D/another", "D/file"]), EPERM);
    std::fs::write(&file, "new").unwrap();
    assert_eq!(ask("append", &["D/file"]), EPERM);
    assert_eq!(ask("append", &["D/another"]), 0);
    drop(sentinel);
}

#[test]
fn reading_and_executing_are_denied_too() {
    if is_without_lsm("reading_and_executing_are_denied_too") {
        return;
    }
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.talker();
    let tool = host.program("tool");
    let secret = host.path("guarded/file");
    let read = format!("read {}", secret.display());
    let handle = format!("open-by-handle {}", secret.display());
    let list = format!("list {}", host.path("guarded").display());
    let execute = format!("execute {}", tool.display());
    let loader = format!("tool {} {} --list", host::LOADER, tool.display());
    for order in [&read, &handle, &list, &execute, &loader] {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    let policy = Policy::builder()
        .file_rule(deny(1).tree(host.path("guarded")).operations(FileOps::READ))
        .file_rule(deny(2).file(&tool).operations(FileOps::EXECUTE));
    let sentinel = host.start(&policy.compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (order, hook, op) in [
        (&read, SentinelHook::FileOpen, FileOp::Read),
        (&handle, SentinelHook::FileOpen, FileOp::Read),
        (&list, SentinelHook::FileOpen, FileOp::Read),
        (&execute, SentinelHook::FileOpen, FileOp::Execute),
    ] {
        assert_eq!(attacker.ask(order).unwrap(), EPERM, "{order}");
        let event = next_denied(&events);
        assert_eq!((event.hook, event.op), (hook, Some(op)), "{order}: {event}");
        assert!(event.path.is_some(), "{event}");
    }
    assert_ne!(attacker.ask(&loader).unwrap(), 0);
    assert!(
        attacker.ask(&format!("append {}", host.path("guarded/sub/deep").display())).unwrap() == 0
    );
    drop(sentinel);
}

#[test]
fn what_was_opened_before_is_written_no_more() {
    if is_without_lsm("what_was_opened_before_is_written_no_more") {
        return;
    }
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.talker();
    let file = host.path("guarded/file");
    assert_eq!(attacker.ask(&format!("keep-open {}", file.display())).unwrap(), 0);
    assert_eq!(attacker.ask("write-kept 1").unwrap(), 0);
    let policy = |dir| Policy::builder().file_rule(deny(1).tree(host.path(dir))).compile().unwrap();
    let sentinel = host.start(&policy("elsewhere"));
    assert_eq!(attacker.ask("write-kept 2").unwrap(), 0);
    assert_eq!(sentinel.status().unwrap().opened_before, []);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    sentinel.apply(&policy("guarded")).unwrap();
    let before = sentinel.status().unwrap().opened_before;
    assert_eq!((before.len(), before[0].pid, before[0].rules), (1, attacker.pid(), 1));
    for order in ["write-kept 3", "map-kept", "truncate-kept"] {
        assert_eq!(attacker.ask(order).unwrap(), EPERM, "{order}");
        assert_eq!(next_denied(&events).pid, attacker.pid(), "{order}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "12");
    drop(sentinel);
    assert_eq!(attacker.ask("map-kept").unwrap(), 0);
    assert_eq!(attacker.ask("write-kept 4").unwrap(), 0);
}

/// Neither the way that a rule was told, nor a mount of what lies on its end, leads elsewhere.
#[test]
fn ways_and_overlays_lead_to_what_is_guarded() {
    if is_without_lsm("ways_and_overlays_lead_to_what_is_guarded") {
        return;
    }
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.talker();
    let at = |name: &str| host.path(name).display().to_string();
    for dir in ["guarded/way", "lower", "work", "merged"] {
        std::fs::create_dir_all(host.path(dir)).unwrap();
    }
    std::os::unix::fs::symlink(host.path("guarded"), host.path("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", host.path("other")).unwrap();
    let mut ask = |order: &str| attacker.ask(order).unwrap();
    let (lower, upper, work) = (at("lower"), at("guarded"), at("work"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let overlay = format!("tool mount -t overlay -o {options} none {}", at("merged"));
    let (append, read) =
        (format!("append {}", at("merged/file")), format!("read {}", at("merged/file")));
    let has_overlay = ask(&overlay) == 0;
    if has_overlay {
        assert_eq!((ask(&append), ask(&read)), (0, 0));
        assert_eq!(ask(&format!("tool umount {}", at("merged"))), 0);
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
    for order in [
        format!("rmdir {}", at("guarded/way")),
        format!("rename {} {}", at("guarded/way"), at("guarded/gone")),
        format!("create {}", at("guarded/way/absent")),
        format!("unlink {}", at("link")),
        format!("rename {} {}", at("link"), at("gone")),
        format!("rename {} {}", at("other"), at("link")),
        format!("exchange {} {}", at("other"), at("link")),
        format!("read {}", at("link/file")),
    ] {
        assert_eq!(ask(&order), EPERM, "{order}");
    }
    assert_eq!(ask(&format!("create {}", at("guarded/way/another"))), 0);
    if has_overlay {
        assert_eq!(ask(&overlay), 0);
        assert_eq!((ask(&append), ask(&read)), (EPERM, EPERM));
        assert_eq!(ask(&format!("append {}", at("merged/sub/deep"))), 0);
        assert_eq!(ask(&format!("tool umount {}", at("merged"))), 0);
    }
    drop(sentinel);
}

/// Names are known by a hash that kernel and agent take in steps of eight bytes.
#[test]
fn names_of_every_length_are_covered() {
    if is_without_lsm("names_of_every_length_are_covered") {
        return;
    }
    let host = Host::new();
    lay_out(&host);
    let mut attacker = host.talker();
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

/// What lies where is known anew once a directory has moved; other names and roots change nothing.
#[test]
fn directories_that_move_and_other_names_are_followed() {
    if is_without_lsm("directories_that_move_and_other_names_are_followed") {
        return;
    }
    let host = Host::new();
    lay_out(&host);
    std::fs::create_dir(host.path("elsewhere/moves")).unwrap();
    std::fs::write(host.path("elsewhere/moves/file"), "1").unwrap();
    std::fs::hard_link(host.path("guarded/sub/deep"), host.path("elsewhere/deep")).unwrap();
    let mut attacker = host.talker();
    let mut ask = |paths: &[&str]| attacker.ask(&order(&host, "append", paths)).unwrap();
    let rules = |id| Policy::builder().file_rule(deny(id).tree(host.path("guarded")));
    let sentinel = host.start(&rules(1).compile().unwrap());
    assert_eq!(ask(&["O/moves/file"]), 0);
    std::fs::rename(host.path("elsewhere/moves"), host.path("guarded/moves")).unwrap();
    assert_eq!(ask(&["D/moves/file"]), EPERM);
    std::fs::rename(host.path("guarded/moves"), host.path("elsewhere/moves")).unwrap();
    assert_eq!(ask(&["O/moves/file"]), 0);
    // The name that it had before the rule.
    assert_eq!(ask(&["O/deep"]), EPERM);
    // A policy that names what is not there changes nothing.
    let wrong = rules(2).file_rule(deny(3).tree(host.path("absent"))).compile().unwrap();
    let error = sentinel.apply(&wrong).unwrap_err().to_string();
    assert!(error.contains("rule 3") && error.contains("absent"), "{error}");
    assert_eq!((ask(&["D/file"]), sentinel.rule(0).unwrap().id), (EPERM, RuleId(1)));
    let root = host.dir().display().to_string();
    assert_eq!(attacker.ask(&format!("chroot {root}")).unwrap(), 0);
    assert_eq!(attacker.ask("append /guarded/file").unwrap(), EPERM);
    assert_eq!(attacker.ask("append /elsewhere/other").unwrap(), 0);
    drop(sentinel);
}
