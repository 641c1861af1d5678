//! Files that another file system passes through to protected ones: overlays, and FUSE with passthrough.

use std::fs;
use std::path::Path;

use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_sentinel::{EventReceiver, Overflow};

use crate::testbed::{Attacks, Host, does, held_names, lsm, unchanged};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(files_of_overlays_that_were_open_before_do_not_write)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(files_of_fuse_that_pass_through_do_not_write).shared().in_machine().needs(&[lsm]),
    ]
}

/// Ways to write by a kept descriptor, and their orders.
fn ways(by: &str, source: &Path) -> Vec<(String, String)> {
    let source = source.display();
    [
        ("write(2)", "write-kept 1".to_owned()),
        ("io_uring write", "uring-write-kept caller 1".to_owned()),
        ("io_uring worker write", "uring-write-kept worker 1".to_owned()),
        ("splice(2)", format!("splice-to-kept {source}")),
        ("mmap(2) to write", "map-kept".to_owned()),
    ]
    .map(|(way, order)| (format!("{way} {by}"), order))
    .to_vec()
}

fn try_all(
    attacks: &Attacks,
    ways: &[(String, String)],
    attacker: &mut TestProcess,
    events: &EventReceiver,
) {
    for (name, order) in ways {
        let event = attacks.with(name, attacker, order, events);
        assert_eq!(event.pid, attacker.pid(), "{name}");
    }
}

fn files_of_overlays_that_were_open_before_do_not_write() {
    let host = Host::new();
    for dir in ["protected", "lower", "work", "merged"] {
        fs::create_dir(host.path(dir)).unwrap();
    }
    let (file, source) = (host.path("protected/file"), host.path("source"));
    fs::write(&file, "content").unwrap();
    fs::write(&source, "content").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let at = |name: &str| host.path(name).display().to_string();
    let (lower, upper, work, merged) = (at("lower"), at("protected"), at("work"), at("merged"));
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    does(&mut attacker, &format!("tool mount -t overlay -o {options} none {merged}"));
    does(&mut attacker, &format!("keep-open {merged}/file"));
    let mut ways = ways("by a pre-opened file of an overlay", &source);
    ways.push((
        "fallocate(2) by a pre-opened file of an overlay".to_owned(),
        "allocate-kept".to_owned(),
    ));
    ways.push((
        "ftruncate(2) by a pre-opened file of an overlay".to_owned(),
        "truncate-kept".to_owned(),
    ));
    for (name, order) in &ways {
        attacks.without(name, &mut attacker, order);
    }
    does(&mut attacker, "write-kept content");
    let content = fs::read(&file).unwrap();
    let sentinel = host.start(&unchanged(&host.path("protected")));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(held_names(&sentinel), ["file"]);
    let preopened = sentinel.status().unwrap().preopened;
    assert_eq!(preopened.iter().map(|it| it.pid).collect::<Vec<_>>(), [attacker.pid()]);
    try_all(&attacks, &ways, &mut attacker, &events);
    assert_eq!(fs::read(&file).unwrap(), content);
    drop(sentinel);
    drop(attacker);
    does(&mut host.test_process(), &format!("tool umount {merged}"));
}

/// ENOENT, ENODEV and EOPNOTSUPP of `pass-kept-through`.
const NO_PASSTHROUGH: [u64; 3] = [2, 19, 95];

fn files_of_fuse_that_pass_through_do_not_write() {
    let host = Host::new();
    for dir in ["protected", "fuse"] {
        fs::create_dir(host.path(dir)).unwrap();
    }
    let (file, source) = (host.path("protected/file"), host.path("source"));
    fs::write(&file, "content").unwrap();
    fs::write(&source, "content").unwrap();
    let (mut server, mut attacks) = (host.test_process(), Attacks::default());
    let fuse = host.path("fuse").display().to_string();
    does(&mut server, &format!("keep-open {}", file.display()));
    match server.ask(&format!("pass-kept-through {fuse}")).unwrap() {
        0 => {}
        error if NO_PASSTHROUGH.contains(&error) => {
            server.ask(&format!("tool umount {fuse}")).unwrap();
            skip("this kernel has no FUSE with passthrough")
        }
        error => panic!("{error}"),
    }
    let mut attacker = host.test_process();
    let ways = ways("by a pre-opened file of FUSE with passthrough", &source);
    let (open, by_open) =
        (format!("open-to-write {fuse}/file"), "open a protected file by FUSE with passthrough");
    attacks.without(by_open, &mut attacker, &open);
    does(&mut attacker, &format!("keep-open {fuse}/file"));
    for (name, order) in &ways {
        attacks.without(name, &mut attacker, order);
    }
    let content = fs::read(&file).unwrap();
    let sentinel = host.start(&unchanged(&host.path("protected")));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(held_names(&sentinel), ["file"]);
    let preopened = sentinel.status().unwrap().preopened;
    assert_eq!(preopened.iter().map(|it| it.pid).collect::<Vec<_>>(), [attacker.pid()]);
    try_all(&attacks, &ways, &mut attacker, &events);
    assert_eq!(fs::read(&file).unwrap(), content);
    attacks.with(by_open, &mut host.test_process(), &open, &events);
    drop(sentinel);
    drop(attacker);
    does(&mut server, &format!("tool umount {fuse}"));
}
