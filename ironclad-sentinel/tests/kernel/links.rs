//! BPF links of Sentinel's programs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::testbed::successor::{builder, policy};
use crate::testbed::{Attacks, EPERM, Host, lsm};
use ironclad_core::abi::SentinelHook;
use ironclad_lab::Cgroup;
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_sentinel::Overflow;
use ironclad_syscalls::{attach_to_group, link_by_id};
use libbpf_rs::query::{LinkInfo, LinkInfoIter, LinkTypeInfo};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(links_are_out_of_reach).in_machine().needs(&[lsm])]
}

/// A process that has received a link, as descriptor 2.
fn receiver(link: OwnedFd) -> TestProcess {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.stderr(Stdio::from(link));
    TestProcess::start_as(command).unwrap()
}

/// The files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn links_are_out_of_reach() {
    let host = Host::new();
    let dir = host.dir();
    std::fs::create_dir(host.path("protected")).unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let by_id = "open a protected BPF link by its id";
    let update = ("update a protected BPF link by a received descriptor", "update-link 2");
    let detach = ("detach a protected BPF link by a received descriptor", "detach-link 2");
    // Another link of a type that Sentinel has.
    let group = Cgroup::new("links").unwrap();
    let link = attach_to_group(&File::open(group.dir()).unwrap()).unwrap();
    let unprotected = LinkInfoIter::default().map(|link| link.id).max().unwrap();
    attacks.without(by_id, &mut attacker, &format!("link-by-id {unprotected}"));
    let mut other = receiver(link);
    for (name, order) in [update, detach] {
        attacks.without(name, &mut other, order);
    }

    // Otherwise other processes cannot load a program that the link could be updated to.
    let sentinel = builder(dir).refuse_programs([]).start(&policy(dir)).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let programs: Vec<u32> = sentinel.program_ids().collect();
    let links: Vec<_> =
        LinkInfoIter::default().filter(|link| programs.contains(&link.prog_id)).collect();
    // Iterators have none.
    assert!(links.len() > 40, "{links:?}");
    let of_group = links.iter().find(|link| matches!(link.info, LinkTypeInfo::Cgroup(_))).unwrap();
    let order = |link: &LinkInfo| format!("link-by-id {}", link.id);
    let event = attacks.with(by_id, &mut attacker, &order(of_group), &events);
    assert_eq!((event.hook, event.target), (SentinelHook::Bpf, of_group.id), "{event}");
    let mut one = receiver(link_by_id(of_group.id).unwrap());
    for (name, order) in [update, detach] {
        let event = attacks.with(name, &mut one, order, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, 2), "{name}: {event}");
    }
    for link in &links {
        assert_eq!(attacker.ask(&order(link)).unwrap(), EPERM, "{link:?}");
        let mut receiver = receiver(link_by_id(link.id).unwrap());
        for (name, order) in [update, detach] {
            assert_eq!(receiver.ask(order).unwrap(), EPERM, "{name}: {link:?}");
        }
    }
    // A known limitation: a process that knows the path of a link's pin can open it, and can do nothing else with it.
    let instance = dir.file_name().unwrap().to_string_lossy().replace('.', "_");
    let pins = files(&Path::new("/sys/fs/bpf/ironclad").join(format!("{instance}-sentinel")));
    assert!(pins.len() > links.len());
    for path in pins.iter().map(|path| path.display().to_string()) {
        let answer = if path.contains("/links_") { 0 } else { EPERM };
        assert_eq!(attacker.ask(&format!("open-pin {path}")).unwrap(), answer, "{path}");
    }
    assert_eq!(sentinel.status().unwrap().degraded, []);
    sentinel.stop().unwrap();
}
