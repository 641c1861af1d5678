//! Needs root: which processes are in the table of processes, and for how long.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use ironclad_bpf::shield::{Shared, SharedOptions};
use ironclad_bpf::socket::Processes;
use ironclad_core::abi::FileId;
use ironclad_lab::Cgroup;
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use libbpf_rs::query::ProgInfoIter;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(a_process_is_in_the_table_until_it_ends),
        test!(a_process_whose_exit_was_missed_is_removed),
        test!(ended_processes_leave_no_record),
        test!(an_iterator_reads_on_after_a_million_descriptors).in_machine(),
    ]
}

fn load() -> (Shared, Processes) {
    let shared = Shared::load(SharedOptions::default()).unwrap();
    let processes = Processes::load(Some(&shared.losses), None).unwrap();
    (shared, processes)
}

fn identity(processes: &Processes, path: &Path) -> FileId {
    processes.identify(&[path]).unwrap()[0].unwrap()
}

fn exe(processes: &Processes, pid: u32) -> Option<FileId> {
    processes.table.lookup(&pid).unwrap().map(|process| process.exe)
}

/// How many exits the kernel passed the program over, as it counts them since Linux 5.12.
fn missed_exits(processes: &Processes) -> u64 {
    let exit = processes.programs().find(|program| program.info().name == "ic_exit").unwrap();
    let id = exit.info().id;
    ProgInfoIter::default().find(|program| program.id == id).unwrap().recursion_misses
}

/// Asserts that a process has left the table. The kernel passes over a program at a tracepoint that another task on the
/// same CPU is within: only where it counted a miss, the next pass over all processes removes the record.
fn has_left(processes: &Processes, pid: u32) {
    if exe(processes, pid).is_some() {
        assert_ne!(missed_exits(processes), 0, "no exit was missed");
        processes.seed().unwrap();
    }
    assert_eq!(exe(processes, pid), None);
}

fn a_process_is_in_the_table_until_it_ends() {
    let cgroup = Cgroup::new("table").unwrap();
    let own = std::env::current_exe().unwrap();
    let start = || TestProcess::start(&cgroup, &own).unwrap();
    let mut before = start();
    let (_shared, processes) = load();
    let (known, shell) = (identity(&processes, &own), identity(&processes, "/bin/sh".as_ref()));
    let mut after = start();
    // Killed, with many threads.
    for test_process in [&mut before, &mut after] {
        assert_eq!(test_process.ask("threads 16").unwrap(), 0);
        assert_eq!(exe(&processes, test_process.pid()), Some(known));
    }
    for test_process in [before, after] {
        let pid = test_process.pid();
        drop(test_process);
        has_left(&processes, pid);
    }
    // Without its first thread, then killed.
    let mut leaderless = start();
    assert_eq!(leaderless.ask("leaderless").unwrap(), 0);
    let pid = leaderless.pid();
    assert_eq!(exe(&processes, pid), Some(known));
    drop(leaderless);
    has_left(&processes, pid);
    // At its own end.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo begins && read line"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // vfork(2) ends a moment before the table knows, and the program begins after that.
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let pid = child.id();
    assert_eq!(exe(&processes, pid), Some(shell));
    drop(child.stdin.take());
    child.wait().unwrap();
    has_left(&processes, pid);
}

/// The kernel may pass over the program that sees the end of a process.
fn a_process_whose_exit_was_missed_is_removed() {
    if std::fs::metadata("/proc/self/ns/pid").unwrap().ino() != 0xefff_fffc {
        skip("the kernel lists all processes in the initial pid namespace alone");
    }
    let (_shared, processes) = load();
    // No process has it: numbers are lower than this.
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let (ended, own) = (most.trim().parse::<u32>().unwrap(), std::process::id());
    let record = processes.table.lookup(&own).unwrap().unwrap();
    processes.table.update(&ended, &record).unwrap();
    assert_eq!(exe(&processes, ended), Some(record.exe));
    processes.seed().unwrap();
    assert_eq!((exe(&processes, ended), exe(&processes, own)), (None, Some(record.exe)));
}

/// Processes that end while the table is filled leave nothing behind.
fn ended_processes_leave_no_record() {
    const ROUNDS: u32 = 6000;
    let (_shared, processes) = load();
    let done = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut ended = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let mut child = Command::new("/bin/true").spawn().unwrap();
                ended.insert(child.id());
                child.wait().unwrap();
            }
            ended
        });
        for _ in 0..ROUNDS {
            processes.seed().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        storm.join().unwrap()
    });
    let known: BTreeSet<u32> = processes.table.keys().unwrap().into_iter().collect();
    // A number may be another's by now.
    let is_gone = |pid: &u32| !Path::new("/proc").join(pid.to_string()).exists();
    for pid in ended.intersection(&known).copied().filter(is_gone) {
        has_left(&processes, pid);
    }
}

/// The kernel ends a read that has visited a million objects and written nothing.
fn an_iterator_reads_on_after_a_million_descriptors() {
    /// More than a million, and less than `fs.nr_open` is by default.
    const MANY: u32 = 1_010_000;
    let (_shared, processes) = load();
    let own = std::env::current_exe().unwrap();
    let before = identity(&processes, &own);
    let mut crowd = TestProcess::start_as(Command::new(&own)).unwrap();
    assert_eq!(crowd.ask(&format!("descriptors {MANY}")).unwrap(), 0);
    assert_eq!(identity(&processes, &own), before);
}
