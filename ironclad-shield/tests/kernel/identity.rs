//! Needs root: the identity of processes, whatever their names and paths, and however they started.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use ironclad_bpf::probe::probe_helper;
use ironclad_bpf::uapi::{Helper, ProgramType};
use ironclad_core::SocketVerdict;
use ironclad_core::abi::{PROCESS_SEEDED, Process};
use ironclad_lab::Mounts;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::socket::{Direction, SocketAction, Subject};
use ironclad_shield::ShieldErrorKind;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use zerocopy::{FromBytes, IntoBytes};

use crate::testbed::{EPERM, Host, PATIENCE, only, policy, rule};
use ironclad_lab::harness::{Test, is_in_machine, skip};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(links_and_relative_paths_lead_to_the_same_file).shared(),
        test!(a_copy_in_memory_is_another_file).shared(),
        test!(a_deleted_program_keeps_its_identity_and_its_successor_has_another).shared(),
        test!(a_reused_inode_is_another_file).shared(),
        test!(content_written_over_a_program_has_its_identity).shared(),
        test!(a_replaced_program_is_unidentified_until_a_refresh).shared(),
        test!(a_script_is_its_interpreter).shared(),
        test!(a_program_behind_its_loader_is_the_loader).shared(),
        test!(other_names_in_a_mount_namespace_are_no_bypass).shared(),
        test!(a_pid_namespace_changes_nothing).shared(),
        test!(a_program_in_memory_is_identified),
        test!(a_program_on_an_overlay_is_the_file_below),
        test!(a_file_of_another_layer_with_the_same_number_is_another_file),
        test!(impersonation_does_not_help),
        test!(threads_and_children_are_their_program),
        test!(a_process_without_its_first_thread_is_its_program),
        test!(no_process_slips_through_a_start),
        test!(a_process_inherits_nothing_by_its_number).shared(),
        test!(a_missed_execve_is_noticed).shared().needs(&[stale_records]),
        test!(a_missed_exit_is_noticed).shared().needs(&[stale_records]),
        test!(a_missed_fork_is_noticed).shared(),
        test!(a_missed_fork_inherits_nothing_of_later_programs).shared(),
        test!(a_program_that_is_created_later_is_unidentified).shared(),
    ]
}

const NEAR: &str = "connect tcp 10.9.0.2:80";

impl Host {
    /// Asks a new process of this program.
    fn ask(&self, program: &Path) -> u64 {
        self.test_process(program).ask(NEAR).unwrap()
    }
}

fn near(test_process: &mut TestProcess) -> u64 {
    test_process.ask(NEAR).unwrap()
}

fn done(test_process: &mut TestProcess, order: &str) {
    assert_eq!(test_process.ask(order).unwrap(), 0, "{order}");
}

fn execute(test_process: &mut TestProcess, program: &Path) {
    done(test_process, &format!("exec {}", program.display()));
}

fn links_and_relative_paths_lead_to_the_same_file() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let [to_good, to_bad, hard] = ["to-good", "to-bad", "hard"].map(|name| host.path(name));
    symlink(&good, &to_good).unwrap();
    symlink(&bad, &to_bad).unwrap();
    fs::hard_link(&good, &hard).unwrap();
    assert_eq!((host.ask(&to_good), host.ask(&to_bad), host.ask(&hard)), (0, 0, 0));
    let shield = host.start(&only(&good));
    for named in [&to_good, &hard] {
        shield.apply(&only(named)).unwrap();
        for (path, answer) in
            [(&good, 0), (&to_good, 0), (&hard, 0), (&bad, EPERM), (&to_bad, EPERM)]
        {
            assert_eq!(host.ask(path), answer, "{}", path.display());
        }
        let mut test_process = host.test_process(&bad);
        done(&mut test_process, &format!("chdir {}", host.programs.path().display()));
        for (path, answer) in
            [("./good", 0), ("/proc/self/exe", 0), ("./bad", EPERM), ("/proc/self/exe", EPERM)]
        {
            execute(&mut test_process, path.as_ref());
            assert_eq!(near(&mut test_process), answer, "{path}");
        }
    }
}

fn a_copy_in_memory_is_another_file() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let execute = |from: &Path, how: &str, program: &Path| {
        let mut test_process = host.test_process(from);
        done(&mut test_process, &format!("execopen {how} {}", program.display()));
        near(&mut test_process)
    };
    assert_eq!((execute(&good, "memory", &good), execute(&bad, "file", &good)), (0, 0));
    let _shield = host.start(&only(&good));
    assert_eq!(execute(&good, "memory", &good), EPERM);
    assert_eq!(execute(&good, "file", &bad), EPERM);
    assert_eq!(execute(&bad, "file", &good), 0, "the file itself, without a name");
}

fn a_deleted_program_keeps_its_identity_and_its_successor_has_another() {
    let host = Host::new();
    let good = host.program("good");
    let mut old = host.test_process(&good);
    let shield = host.start_without_following(&only(&good));
    fs::remove_file(&good).unwrap();
    assert_eq!(near(&mut old), 0);
    execute(&mut old, "/proc/self/exe".as_ref());
    assert_eq!(near(&mut old), 0);
    host.program("good");
    assert_eq!(host.ask(&good), EPERM);
    drop(shield);
    assert_eq!(host.ask(&good), 0);
}

fn a_reused_inode_is_another_file() {
    let host = Host::new();
    let good = host.program("good");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let was = inode(&good);
    let _shield = host.start_without_following(&only(&good));
    assert_eq!(host.ask(&good), 0);
    fs::remove_file(&good).unwrap();
    // What has other numbers stays, so that the old one comes up.
    let successor = (0..64).map(|n| host.program(&format!("new-{n}")));
    let Some(successor) = successor.into_iter().find(|path| inode(path) == was) else {
        skip("this file system does not use an inode's number again");
    };
    fs::rename(successor, &good).unwrap();
    assert_eq!(inode(&good), was);
    assert_eq!(host.ask(&good), EPERM);
}

/// A limit that is stated: a file is known by its inode and not by what is in it.
fn content_written_over_a_program_has_its_identity() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let mut other = fs::read(&bad).unwrap();
    other.extend_from_slice(b"other");
    fs::write(&bad, &other).unwrap();
    let _shield = host.start(&only(&good));
    assert_eq!((host.ask(&good), host.ask(&bad)), (0, EPERM));
    fs::write(&good, &other).unwrap();
    assert_eq!(host.ask(&good), 0);
}

fn a_replaced_program_is_unidentified_until_a_refresh() {
    let host = Host::new();
    let (good, new) = (host.program("good"), host.program("new"));
    let mut old = host.test_process(&good);
    let shield = host.start_without_following(&only(&good));
    assert_eq!((near(&mut old), host.ask(&new)), (0, EPERM));
    fs::rename(&new, &good).unwrap();
    assert_eq!((near(&mut old), host.ask(&good)), (0, EPERM));
    shield.apply(&only(&good)).unwrap();
    assert_eq!((near(&mut old), host.ask(&good)), (0, 0), "what ran before keeps its rights");
}

fn a_script_is_its_interpreter() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let script = |name: &str, interpreter: &Path| {
        let path = host.path(name);
        fs::write(&path, format!("#!{}\n", interpreter.display())).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    };
    let (by_good, by_bad) = (script("by-good", &good), script("by-bad", &bad));
    assert_eq!((host.ask(&by_good), host.ask(&by_bad)), (0, 0));
    let shield = host.start(&only(&good));
    assert_eq!((host.ask(&by_good), host.ask(&by_bad)), (0, EPERM));

    for subject in [
        Subject::new("").exe(&by_bad),
        Subject::new("").parent(&by_bad),
        Subject::new("").descendant_of(&by_bad),
    ] {
        let refused =
            shield.apply(&policy([rule(1, SocketAction::Allow).subject(subject)])).unwrap_err();
        assert_eq!(refused.kind(), ShieldErrorKind::Script, "{refused}");
        let text = refused.to_string();
        assert!(text.starts_with("rule 1 ("), "{text}");
        let expected = format!("{} is a script (#!{})", by_bad.display(), bad.display());
        assert!(text.contains(&expected), "{text}");
    }
    assert_eq!((host.ask(&by_good), host.ask(&by_bad)), (0, EPERM), "as before");
}

/// A process that runs a program through its loader executes the loader.
fn a_program_behind_its_loader_is_the_loader() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = maps.lines().filter_map(|line| line.split(' ').next_back());
    let Some(loader) = files.find(|file| file.contains("/ld-")) else {
        skip("this test is linked without a loader");
    };
    let host = Host::new();
    let good = host.program("good");
    let ask = || {
        let mut command = host.cgroup.command(loader.as_ref());
        command.arg(&good);
        let test_process = host.net.run(|| TestProcess::start_as(command));
        near(&mut test_process.unwrap().unwrap())
    };
    assert_eq!(ask(), 0);
    let shield = host.start(&only(&good));
    assert_eq!(ask(), EPERM);
    shield.apply(&only(loader.as_ref())).unwrap();
    assert_eq!(ask(), 0);
}

fn other_names_in_a_mount_namespace_are_no_bypass() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let mount_point = host.path("mount-point");
    fs::write(&mount_point, "").unwrap();
    let show = |what: &Path, at: &Path| format!("show {} {}", what.display(), at.display());
    let fork = |program: &Path| format!("fork {} {NEAR}", program.display());
    let apart = || {
        let mut test_process = host.test_process(&bad);
        done(&mut test_process, "apart mounts");
        test_process
    };
    let mut test_process = apart();
    done(&mut test_process, &show(&bad, &good));
    done(&mut test_process, &fork(&good));
    let _shield = host.start(&only(&good));

    assert_eq!(test_process.ask(&fork(&good)).unwrap(), EPERM, "the old name");
    let mut test_process = apart();
    assert_eq!(test_process.ask(&fork(&good)).unwrap(), 0);
    done(&mut test_process, &show(&good, &mount_point));
    assert_eq!(
        test_process.ask(&fork(&mount_point)).unwrap(),
        0,
        "the same file under another name"
    );
    done(&mut test_process, &show(&bad, &good));
    assert_eq!(test_process.ask(&fork(&good)).unwrap(), EPERM, "another file under its name");
    execute(&mut test_process, &good);
    assert_eq!(near(&mut test_process), EPERM);

    // A root whose names are the host's, but for one.
    let root = host.path("root");
    fs::create_dir(&root).unwrap();
    for (shown, answer) in [(&good, 0), (&bad, EPERM)] {
        let mut test_process = apart();
        done(&mut test_process, &show("/".as_ref(), &root));
        let inside = root.join(good.strip_prefix("/").unwrap());
        done(&mut test_process, &show(shown, &inside));
        done(&mut test_process, &format!("chroot {}", root.display()));
        assert_eq!(test_process.ask(&fork(&good)).unwrap(), answer);
        execute(&mut test_process, &good);
        assert_eq!(near(&mut test_process), answer);
    }
}

fn a_pid_namespace_changes_nothing() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let fork = |program: &Path| format!("fork {} {NEAR}", program.display());
    let mut test_process = host.test_process(&bad);
    done(&mut test_process, "apart pids");
    // The first of a namespace is its init(1): with it the namespace ends.
    assert_eq!(test_process.ask(&fork(&bad)).unwrap(), 0);
    let _shield = host.start(&only(&good));
    for (program, answer) in [(&good, 0), (&bad, EPERM)] {
        let mut test_process = host.test_process(&bad);
        done(&mut test_process, "apart pids");
        assert_eq!(test_process.ask(&fork(program)).unwrap(), answer);
    }
}

fn a_program_in_memory_is_identified() {
    let host = Host::new();
    Mounts::apart(|mounts| {
        mounts.tmpfs(host.programs.path()).unwrap();
        let (good, bad) = (host.program("good"), host.program("bad"));
        assert_eq!((host.ask(&good), host.ask(&bad)), (0, 0));
        let _shield = host.start(&only(&good));
        assert_eq!((host.ask(&good), host.ask(&bad)), (0, EPERM));
    })
    .unwrap();
}

fn a_program_on_an_overlay_is_the_file_below() {
    let host = Host::new();
    Mounts::apart(|mounts| {
        // In memory: not every file system may be changed by an overlay.
        mounts.tmpfs(host.programs.path()).unwrap();
        let [lower, upper, work, all] = host.directories(["lower", "upper", "work", "all"]);
        for name in ["lower/good", "lower/bad"] {
            host.program(name);
        }
        if let Err(error) = mounts.overlay(&lower, &upper, &work, &all) {
            skip(format!("this kernel has no overlayfs here: {error}"));
        }
        let (good, bad) = (all.join("good"), all.join("bad"));
        assert_eq!((host.ask(&good), host.ask(&bad)), (0, 0));
        let mut old = host.test_process(&good);
        let shield = host.start_without_following(&only(&good));
        assert_eq!((near(&mut old), host.ask(&good), host.ask(&bad)), (0, 0, EPERM));
        assert_eq!(host.ask(&lower.join("good")), 0, "the same file by another name");

        // Copied up, it is another file.
        fs::set_permissions(&good, Permissions::from_mode(0o700)).unwrap();
        assert!(upper.join("good").exists());
        assert_eq!((near(&mut old), host.ask(&good)), (0, EPERM));
        shield.refresh_paths().unwrap();
        assert_eq!((near(&mut old), host.ask(&good), host.ask(&bad)), (0, 0, EPERM));
        assert_eq!(host.ask(&lower.join("good")), EPERM);
        drop(old);
        mounts.unmount(&all).unwrap();
        mounts.overlay(&lower, &upper, &work, &all).unwrap();
        assert_eq!((host.ask(&good), host.ask(&bad)), (0, EPERM), "whatever device that has");
    })
    .unwrap();
}

/// A process that may write to one layer may create files until one has the number of a file in another.
fn a_file_of_another_layer_with_the_same_number_is_another_file() {
    let host = Host::new();
    Mounts::apart(|mounts| {
        let [below, above, all] = host.directories(["below", "above", "all"]);
        mounts.tmpfs(&below).unwrap();
        mounts.tmpfs(&above).unwrap();
        let [upper, work] = host.directories(["above/upper", "above/work"]);
        for number in 0..64 {
            fs::write(below.join(number.to_string()), "").unwrap();
        }
        host.program("below/good");
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        // File systems in memory count.
        let wanted = inode(&below.join("good"));
        let made = (0..100).map(|number| {
            let path = upper.join(number.to_string());
            fs::write(&path, "").unwrap();
            path
        });
        let thief = made.into_iter().find(|path| inode(path) >= wanted).unwrap();
        assert_eq!(inode(&thief), wanted);
        let thief = thief.file_name().unwrap();
        fs::copy(&host.own, upper.join(thief)).unwrap();
        if let Err(error) = mounts.overlay(&below, &upper, &work, &all) {
            skip(format!("this kernel has no overlayfs here: {error}"));
        }
        let (good, thief) = (all.join("good"), all.join(thief));
        assert_eq!(inode(&good), inode(&thief));
        let _shield = host.start(&only(&good));
        assert_eq!((host.ask(&good), host.ask(&thief)), (0, EPERM));
    })
    .unwrap();
}

fn impersonation_does_not_help() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let mut test_process = host.test_process(&bad);
    let pretend = |test_process: &mut TestProcess, name: &str| {
        done(test_process, &format!("open {name} 4 tcp"));
        done(test_process, &format!("impostor {} {name} 10.9.0.2:80", good.display()));
    };
    pretend(&mut test_process, "first");
    done(&mut test_process, "go");
    let shield = host.start(&only(&good));
    done(&mut test_process, "comm good");
    assert_eq!(near(&mut test_process), EPERM);
    pretend(&mut test_process, "second");
    assert_eq!(test_process.ask("go").unwrap(), EPERM);
    drop(shield);

    // A process that impersonated a program before the start is unidentified: execve(2) has not opened that file.
    pretend(&mut test_process, "third");
    let mut honest = host.test_process(&good);
    let _shield = host.start(&only(&good));
    assert_eq!((near(&mut test_process), test_process.ask("go").unwrap()), (EPERM, EPERM));
    assert_eq!(near(&mut honest), 0);
}

fn threads_and_children_are_their_program() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let orders =
        ["thread", "child", "thread child", "child child"].map(|by| format!("{by} {NEAR}"));
    let mut before = [host.test_process(&good), host.test_process(&bad)];
    for test_process in &mut before {
        orders.iter().for_each(|order| done(test_process, order));
    }
    let _shield = host.start(&only(&good));
    let mut after = [host.test_process(&good), host.test_process(&bad)];
    for test_processes in [&mut before, &mut after] {
        for (test_process, answer) in test_processes.iter_mut().zip([0, EPERM]) {
            for order in &orders {
                assert_eq!(test_process.ask(order).unwrap(), answer, "{order}");
            }
        }
    }
    // posix_spawn(3), by which a test process starts another, is vfork(2).
    let [allowed, other] = &mut before;
    for (program, answer) in [(&good, 0), (&bad, EPERM)] {
        let order = format!("fork {} {NEAR}", program.display());
        assert_eq!(allowed.ask(&order).unwrap(), answer);
        assert_eq!(other.ask(&format!("thread {order}")).unwrap(), answer);
    }
    // The thread that executes is not the first, and gets its number.
    for (program, answer) in [(&bad, EPERM), (&good, 0), (&bad, EPERM)] {
        let pid = allowed.pid();
        done(allowed, &format!("thread exec {}", program.display()));
        assert_eq!((near(allowed), allowed.pid()), (answer, pid));
    }
}

/// A process may go on without its first thread.
fn a_process_without_its_first_thread_is_its_program() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let mut before = [host.test_process(&good), host.test_process(&bad)];
    for test_process in &mut before {
        done(test_process, "leaderless");
        assert_eq!(near(test_process), 0);
    }
    let shield = host.start(&only(&good));
    let mut after = [host.test_process(&good), host.test_process(&bad)];
    after.iter_mut().for_each(|test_process| done(test_process, "leaderless"));
    for test_processes in [&mut before, &mut after] {
        let [allowed, other] = test_processes;
        assert_eq!((near(allowed), near(other)), (0, EPERM));
    }
    let deny = rule(1, SocketAction::Deny).subject(Subject::new("").exe(&bad));
    shield.apply(&policy([deny])).unwrap();
    for test_processes in [&mut before, &mut after] {
        let [allowed, other] = test_processes;
        assert_eq!((near(allowed), near(other)), (0, EPERM));
        execute(other, &good);
        assert_eq!(near(other), 0);
    }
}

/// Whatever begins while Shield starts is known by the time that it has started.
fn no_process_slips_through_a_start() {
    /// What each process has to have found each time: of the program that is allowed, of the other.
    const FINDINGS: [u32; 2] = [2, 2];
    let host = Host::new();
    let (good, bad, period) = (host.program("good"), host.program("bad"), host.path("period"));
    let to = "10.9.0.2:80".parse().unwrap();
    fs::write(&period, "0").unwrap();
    let mut runners: Vec<_> = [("exec", &good), ("spawn", &good), ("fork", &bad)]
        .into_iter()
        .map(|(start, program)| {
            let mut test_process = host.test_process(program);
            // What starts gets its turn where there are few processors.
            done(&mut test_process, "nice");
            test_process.run(start, &period, (&good, &bad), to).unwrap();
            (start, test_process)
        })
        .collect();
    let starts = if is_in_machine() { 2 } else { 3 };
    for number in 1..=starts {
        let shield = host.start(&only(&good));
        let now = 2 * number - 1;
        fs::write(&period, now.to_string()).unwrap();
        for (start, test_process) in &mut runners {
            let (mut found, mut wanted) = ([0, 0], FINDINGS);
            if *start == "fork" {
                wanted[0] = 0;
            }
            while found.iter().zip(wanted).any(|(&found, wanted)| found < wanted) {
                let finding = test_process.finding().unwrap();
                assert!(!finding.is_wrong, "{start}, number {number}: {finding:?}");
                if finding.period == now {
                    found[usize::from(finding.is_bad)] += 1;
                }
            }
        }
        fs::write(&period, (2 * number).to_string()).unwrap();
        drop(shield);
    }
}

fn a_process_inherits_nothing_by_its_number() {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    // Other processes use numbers, too.
    let again = |pid: u32, program: &Path| {
        let start = || {
            fs::write(LAST, (pid - 1).to_string()).ok()?;
            Some(TestProcess::start(&host.cgroup, program).unwrap())
        };
        (0..100).find_map(|_| {
            host.net.run(start).unwrap().filter(|test_process| test_process.pid() == pid)
        })
    };
    let _shield = host.start(&only(&good));
    for (first, second, answer) in [(&good, &bad, EPERM), (&bad, &good, 0)] {
        let mut test_process = host.test_process(first);
        assert_eq!(near(&mut test_process), EPERM - answer);
        let pid = test_process.pid();
        drop(test_process);
        let Some(mut test_process) = again(pid, second) else {
            skip("this kernel does not reuse a number on request");
        };
        assert_eq!(near(&mut test_process), answer);
    }
}

/// The entry of a process in the process table. A test changes it as root, as if the kernel had missed an
/// event.
struct Record {
    maps: Vec<MapHandle>,
    pid: [u8; 4],
}

impl Record {
    fn of(test_process: &TestProcess) -> Self {
        Self::of_process(test_process.pid())
    }

    fn of_process(pid: u32) -> Self {
        let pid = pid.to_ne_bytes();
        let maps = libbpf_rs::query::MapInfoIter::default();
        let maps = maps.filter(|info| info.name == "ic_processes");
        // Maps of other tests come and go.
        let maps = maps.filter_map(|info| MapHandle::from_map_id(info.id).ok());
        let has = |map: &MapHandle| map.lookup(&pid, MapFlags::ANY).is_ok_and(|it| it.is_some());
        let maps = maps.filter(has).collect::<Vec<_>>();
        assert!(!maps.is_empty());
        Self { maps, pid }
    }

    fn read(&self) -> Vec<Process> {
        let read = |map: &MapHandle| {
            Process::read_from_bytes(&map.lookup(&self.pid, MapFlags::ANY).unwrap().unwrap())
                .unwrap()
        };
        self.maps.iter().map(read).collect()
    }

    fn write(&self, records: &[Process]) {
        for (map, record) in self.maps.iter().zip(records) {
            map.update(&self.pid, record.as_bytes(), MapFlags::ANY).unwrap();
        }
    }

    fn delete(&self) {
        self.maps.iter().for_each(|map| map.delete(&self.pid).unwrap());
    }
}

/// Whether hooks can notice that an entry is not of the executable of a process. Where they cannot, the
/// kernel misses no event.
fn stale_records() -> Result<(), String> {
    let task = probe_helper(ProgramType::CGROUP_SOCK_ADDR, Helper::GET_CURRENT_TASK_BTF);
    if task.is_available() {
        return Ok(());
    }
    Err("programs at cgroups cannot read the task on this kernel".into())
}

fn a_missed_execve_is_noticed() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let _shield = host.start(&only(&good));
    let mut test_process = host.test_process(&good);
    assert_eq!(near(&mut test_process), 0);
    let record = Record::of(&test_process);
    for (program, answer) in [(&bad, EPERM), (&good, 0), (&bad, EPERM)] {
        let before = record.read();
        execute(&mut test_process, program);
        let right = record.read();
        record.write(&before);
        assert_eq!(near(&mut test_process), answer, "{}", program.display());
        let orders = ["thread", "child"].map(|by| format!("{by} {NEAR}"));
        for order in &orders {
            record.write(&before);
            assert_eq!(test_process.ask(order).unwrap(), answer, "{order}");
        }
        for (learned, right) in record.read().into_iter().zip(right) {
            assert!(learned.exec_ns >= right.exec_ns);
            let learned = Process { exec_ns: right.exec_ns, ..learned };
            let flags = right.flags | PROCESS_SEEDED;
            let no_rows = Process { exe_row: 0, user_row: 0, user_epoch: 0, ..learned };
            assert_eq!(no_rows, Process { flags, ..right });
        }
    }
}

fn a_missed_exit_is_noticed() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let _shield = host.start(&only(&good));
    let mut test_processes = [host.test_process(&good), host.test_process(&bad)];
    let records = test_processes.each_ref().map(Record::of);
    // As if each had the number of another that executed the other's program after as many calls.
    let [first, second] = records.each_ref().map(Record::read);
    let as_other = |record: &[Process], other: &[Process]| -> Vec<Process> {
        let both = record.iter().zip(other);
        both.map(|(own, other)| Process { exec_id: own.exec_id, ..*other }).collect()
    };
    records[0].write(&as_other(&first, &second));
    records[1].write(&as_other(&second, &first));
    assert_eq!(test_processes.each_mut().map(near), [0, EPERM]);
}

fn a_missed_fork_is_noticed() {
    let host = Host::new();
    let bad = host.program("bad");
    let [thread, child] = ["thread", "child"].map(|by| format!("{by} {NEAR}"));
    for (subject, orders) in [
        (Subject::new("").exe(&bad), &[NEAR, &thread, &child][..]),
        (Subject::new("").parent(&host.own), &[NEAR, &thread]),
        (Subject::new("").descendant_of(&host.own), &[NEAR, &thread, &child]),
    ] {
        let _shield = host.start(&policy([rule(1, SocketAction::Deny).subject(subject.clone())]));
        let mut test_process = host.test_process(&bad);
        assert_eq!(near(&mut test_process), EPERM, "{subject:?}");
        for order in orders {
            Record::of(&test_process).delete();
            assert_eq!(test_process.ask(order).unwrap(), EPERM, "{subject:?}: {order}");
        }
    }
}

/// What a parent executes after its fork(2) is nothing of the child's.
fn a_missed_fork_inherits_nothing_of_later_programs() {
    let host = Host::new();
    let (good, bad) = (host.program("good"), host.program("bad"));
    let (starter, never) = (host.path("starter"), host.path("never"));
    // Its child is the test process; it itself executes what waits for orders that never come.
    let script = format!(
        "#!/bin/sh\nexec 3<&0\n\"{}\" \"$@\" <&3 &\nexec 3<&-\nexec \"{}\" \"$@\" <>\"{}\" >/dev/null\n",
        bad.display(),
        good.display(),
        never.display()
    );
    fs::write(&starter, script).unwrap();
    fs::set_permissions(&starter, Permissions::from_mode(0o755)).unwrap();
    done(&mut host.test_process(&bad), &format!("mkfifo {}", never.display()));
    for subject in [Subject::new("").parent(&good), Subject::new("").descendant_of(&good)] {
        let allow = rule(1, SocketAction::Allow).subject(subject.clone());
        let policy = Policy::builder().socket_rule(allow);
        let policy = policy.socket_default(Direction::Out, SocketVerdict::Deny).compile().unwrap();
        let _shield = host.start(&policy);
        let mut test_process = host.test_process(&starter);
        assert_eq!(near(&mut test_process), EPERM, "{subject:?}");
        let parent = test_process.pid();
        let is_good = || fs::read_link(format!("/proc/{parent}/exe")).is_ok_and(|exe| exe == good);
        let since = Instant::now();
        while !is_good() {
            assert!(since.elapsed() < PATIENCE);
            std::thread::yield_now();
        }
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let child = children.unwrap().trim().parse().unwrap();
        Record::of_process(child).delete();
        assert_eq!(near(&mut test_process), EPERM, "{subject:?}");
        // Of the parent it is so.
        let order = format!("fork {} {NEAR}", good.display());
        assert_eq!(host.test_process(&good).ask(&order).unwrap(), 0, "{subject:?}");
    }
}

/// A file that does not exist when a policy is applied matches no process.
fn a_program_that_is_created_later_is_unidentified() {
    let host = Host::new();
    let good = host.path("good");
    let shield = host.start_without_following(&only(&good));
    host.program("good");
    assert_eq!(host.ask(&good), EPERM);
    shield.apply(&only(&good)).unwrap();
    assert_eq!(host.ask(&good), 0);
}
