//! Needs root: processes that there is no memory to note. One test alone in its program: while Shield
//! starts, the whole program is in a cgroup whose memory is limited later.

use std::fs;
use std::path::Path;

use ironclad_core::abi::Loss;
use ironclad_lab::Cgroup;
use ironclad_lab::test_process::TestProcess;
use ironclad_shield::Shield;

use crate::testbed::{EPERM, Host, only};
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(a_process_that_cannot_be_recorded_is_unidentified).isolated()]
}

const THERE: &str = "connect udp 10.9.0.2:53";
/// Processes that no kernel keeps room for.
const CROWD: usize = 3000;

/// Why the memory of maps cannot be limited here.
fn limit_of(group: &Cgroup) -> Result<std::path::PathBuf, String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    if release.starts_with("5.10.") {
        return Err("Linux 5.10 charges maps to no cgroup".to_owned());
    }
    let root = group.dir().parent().unwrap();
    let has = |dir: &Path| {
        let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        controllers.split_whitespace().any(|name| name == "memory")
    };
    if !has(root) {
        return Err("the hierarchy of cgroups limits no memory".to_owned());
    }
    if !has(group.dir()) {
        fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
    }
    Ok(group.dir().join("memory.max"))
}

/// A process that cannot be entered is unidentified. A process that was entered earlier keeps its identity.
fn a_process_that_cannot_be_recorded_is_unidentified() {
    let group = Cgroup::new("memory").unwrap();
    let limit = match limit_of(&group) {
        Ok(limit) => limit,
        Err(why) => {
            skip(why.to_string());
        }
    };
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let own = group.dir().parent().unwrap().join(own).join("cgroup.procs");
    fs::write(group.dir().join("cgroup.procs"), "0").unwrap();
    let shield = host.start(&only(&good));
    fs::write(own, "0").unwrap();

    let mut test_processes: Vec<TestProcess> = (0..8).map(|_| host.test_process(&good)).collect();
    let lost = |shield: &Shield| shield.counters().unwrap().loss(Loss::Process);
    for test_process in &mut test_processes {
        assert_eq!(test_process.ask(THERE).unwrap(), 0);
    }
    fs::write(&limit, "0").unwrap();
    // The kernel keeps some memory for each CPU. A process is lost twice, as it forks and as it executes.
    let mut crowd = 0;
    while lost(&shield) < 400 {
        assert!(crowd < CROWD, "memory does not run out");
        assert_eq!(test_processes[0].ask("crowd 50").unwrap(), 0);
        crowd += 50;
    }
    // Known processes execute another program.
    let mut unrecorded = 0;
    for test_process in &mut test_processes {
        assert_eq!(test_process.ask(THERE).unwrap(), 0, "known already");
        let before = lost(&shield);
        let child = test_process.ask(&format!("fork {} {THERE}", good.display())).unwrap();
        if child != 0 {
            assert_eq!(child, EPERM);
            assert!(lost(&shield) > before, "an unidentified process that is not counted");
            unrecorded += 1;
        }
        assert_eq!(test_process.ask(&format!("exec {}", bad.display())).unwrap(), 0);
        assert_eq!(test_process.ask(THERE).unwrap(), EPERM);
        assert_eq!(test_process.ask(&format!("exec {}", good.display())).unwrap(), 0);
        assert_eq!(test_process.ask(THERE).unwrap(), 0);
        assert_eq!(test_process.ask(&format!("exec {}", bad.display())).unwrap(), 0);
    }
    assert!(unrecorded > 0, "each had memory left");
    // An unidentified process is not allowed.
    assert_eq!(test_processes[0].ask(&format!("fork {} {THERE}", bad.display())).unwrap(), EPERM);
    fs::write(&limit, "max").unwrap();
    assert_eq!(host.test_process(&good).ask(THERE).unwrap(), 0);
}
