//! Impersonation of the agent and of exempt executables.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::mem::offset_of;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::testbed::successor::{builder, policy};
use crate::testbed::{Attacks, EPERM, Host, LOADER, lsm};
use ironclad_core::RuleId;
use ironclad_core::abi::{Process, SentinelHook};
use ironclad_lab::harness::Test;
use ironclad_lab::test;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::file::{FileAction, FileOps, FileRule};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{Launch, Overflow};
use ironclad_syscalls::{Surroundings, surround, version};
use libbpf_rs::query::MapInfoIter;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(impersonation_does_not_help).shared().in_machine().needs(&[lsm]),
        test!(an_unidentified_process_has_no_exemption).shared().in_machine().needs(&[lsm]),
        test!(an_exempt_executable_starts_a_protected_program).shared().in_machine().needs(&[lsm]),
        test!(a_reused_inode_number_has_no_exemption).shared().in_machine().needs(&[lsm]),
        test!(the_agents_executable_in_other_surroundings_is_not_trusted)
            .in_machine()
            .needs(&[lsm]),
    ]
}

fn done(test_process: &mut TestProcess, order: &str) {
    assert_eq!(test_process.ask(order).unwrap(), 0, "{order}");
}

/// A policy by which only one executable may change the file.
fn only(exempt: &Path, file: &Path) -> CompiledPolicy {
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny).file(file).except(exempt);
    Policy::builder().file_rule(rule).compile().unwrap()
}

fn impersonation_does_not_help() {
    let host = Host::new();
    let (own, exempt) = (std::env::current_exe().unwrap(), host.program("exempt"));
    let file = host.path("file");
    std::fs::write(&file, "1").unwrap();
    let append = format!("append {}", file.display());
    let spoof =
        |exe: &Path, by: &str| format!("impostor-with {} {} {by}", file.display(), exe.display());
    let spoofs = [
        ("an exempt executable by PR_SET_MM_EXE_FILE", spoof(&exempt, "file")),
        ("an exempt executable by PR_SET_MM_MAP", spoof(&exempt, "map")),
        ("the agent's executable by PR_SET_MM_EXE_FILE", spoof(&own, "file")),
        ("the agent's executable by PR_SET_MM_MAP", spoof(&own, "map")),
    ];
    let name = |what: &str| format!("impersonate {what}");
    let name_before = |what: &str| format!("{} before Sentinel starts", name(what));
    let by_comm = "append to a protected file with the comm of an exempt executable";
    let program = host.program("other");
    let (mut attacker, mut attacks) = (host.test_process_by(&program), Attacks::default());
    let mut before = spoofs.each_ref().map(|_| host.test_process_by(&program));
    for ((what, spoof), early) in spoofs.iter().zip(&mut before) {
        done(&mut attacker, spoof);
        attacks.without(&name(what), &mut attacker, "go");
        done(early, spoof);
        attacks.without(&name_before(what), early, "go");
        done(early, spoof);
    }
    done(&mut attacker, "comm exempt");
    attacks.without(by_comm, &mut attacker, &append);
    let sentinel = host.start(&only(&exempt, &file));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(host.test_process_by(&exempt).ask(&append).unwrap(), 0);
    for ((what, spoof), early) in spoofs.iter().zip(&mut before) {
        attacks.with(&name_before(what), early, "go", &events);
        done(&mut attacker, spoof);
        attacks.with(&name(what), &mut attacker, "go", &events);
    }
    attacks.with(by_comm, &mut attacker, &append, &events);
}

/// The newest map with a name: the kernel may not have released the maps of earlier tests yet.
fn map(name: &str) -> MapHandle {
    let maps = MapInfoIter::default().filter(|map| map.name.to_string_lossy() == name);
    MapHandle::from_map_id(maps.last().unwrap().id).unwrap()
}

/// As if the process table had missed an execve(2), or the exit of a process whose id is reused.
fn an_unidentified_process_has_no_exemption() {
    let host = Host::new();
    let (exempt, other) = (host.program("exempt"), host.program("other"));
    let file = host.path("file");
    std::fs::write(&file, "1").unwrap();
    let (append, execute) =
        (format!("append {}", file.display()), format!("exec {}", other.display()));
    let sentinel = host.start(&only(&exempt, &file));
    let mut test_process = host.test_process_by(&exempt);
    assert_eq!(test_process.ask(&append).unwrap(), 0);
    let (table, pid) = (map("ic_processes"), test_process.pid().to_ne_bytes());
    let read = || table.lookup(&pid, MapFlags::ANY).unwrap().unwrap();
    let write = |record: &[u8]| table.update(&pid, record, MapFlags::ANY).unwrap();
    let right = read();
    for field in [offset_of!(Process, start_ns), offset_of!(Process, exec_id)] {
        let mut wrong = right.clone();
        wrong[field] ^= 1;
        write(&wrong);
        assert_eq!(test_process.ask(&append).unwrap(), EPERM);
        write(&right);
        assert_eq!(test_process.ask(&append).unwrap(), 0);
    }
    // A file that only the exempt executable may execute: checked before execve(2) replaces the program.
    let tool = host.program("tool");
    let rule = FileRule::new(RuleId(2), "two", FileAction::Deny).operations(FileOps::EXECUTE);
    let rule = rule.file(&tool).except(&exempt);
    let first = FileRule::new(RuleId(1), "one", FileAction::Deny).file(&file).except(&exempt);
    let both = Policy::builder().file_rule(first).file_rule(rule).compile().unwrap();
    sentinel.apply(&both).unwrap();
    done(&mut test_process, &execute);
    let (append_or_start, now) = ([&append, &format!("exec {}", tool.display())], read());
    for record in [&now, &right] {
        for order in append_or_start {
            write(record);
            assert_eq!(test_process.ask(order).unwrap(), EPERM, "{order}");
        }
    }
    write(&now);
    done(&mut test_process, &format!("exec {}", exempt.display()));
    assert_eq!(test_process.ask(&append).unwrap(), 0);
    drop(sentinel);
}

/// Mappings of execve(2) are checked as accesses of the old program until the process table has the new one.
fn an_exempt_executable_starts_a_protected_program() {
    let host = Host::new();
    let (starter, other, tool) =
        (host.program("starter"), host.program("other"), host.program("tool"));
    let rule = FileRule::new(RuleId(1), "one", FileAction::Deny);
    let rule = rule.file(&tool).operations(FileOps::EXECUTE).except(&starter);
    let sentinel = host.start(&Policy::builder().file_rule(rule).compile().unwrap());
    let execute = format!("exec {}", tool.display());
    let mut test_process = host.test_process_by(&starter);
    done(&mut test_process, &execute);
    assert_eq!(test_process.ask("comm tool").unwrap(), 0);
    assert_eq!(host.test_process_by(&other).ask(&execute).unwrap(), EPERM);
    drop(sentinel);
}

/// File systems on disks reuse inode numbers.
fn a_reused_inode_number_has_no_exemption() {
    let host = Host::new();
    let (image, volume, file) = (host.path("image"), host.path("volume"), host.path("file"));
    File::create(&image).unwrap().set_len(128 << 20).unwrap();
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(&file, "1").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let device = "/dev/loop1";
    for order in [
        format!("tool mke2fs -F {}", image.display()),
        format!("tool losetup {device} {}", image.display()),
        format!("tool mount -t ext4 {device} {}", volume.display()),
    ] {
        done(&mut attacker, &order);
    }
    let own = std::env::current_exe().unwrap();
    let (exempt, append) = (volume.join("exempt"), format!("append {}", file.display()));
    std::fs::copy(&own, &exempt).unwrap();
    let number = |path: &Path| path.metadata().unwrap().ino();
    let (wanted, generation) = (number(&exempt), version(&File::open(&exempt).unwrap()));
    let set_version = |path: &Path| {
        let generation = generation.as_ref().unwrap();
        format!("set-version {} {generation}", path.display())
    };
    let by_number =
        "append to a protected file by an executable with a reused inode number of an exempt one";
    let by_version = "set the inode generation of a removed exempt executable";
    attacks.without(by_number, &mut attacker, &append);
    let unidentified = volume.join("unidentified");
    File::create(&unidentified).unwrap();
    attacks.without(by_version, &mut attacker, &set_version(&unidentified));
    let sentinel = host.start(&only(&exempt, &file));
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    assert_eq!(host.test_process_by(&exempt).ask(&append).unwrap(), 0);
    done(&mut attacker, &format!("unlink {}", exempt.display()));
    // The inode number of the file that was removed last is reused last.
    let made = (0..100_000).map(|number| {
        let path = volume.join(number.to_string());
        File::create(&path).unwrap();
        path
    });
    let thief = made.into_iter().find(|path| number(path) == wanted).unwrap();
    std::fs::copy(&own, &thief).unwrap();
    assert_eq!(number(&thief), wanted);
    let event = attacks.with(by_number, &mut host.test_process_by(&thief), &append, &events);
    assert_eq!(event.exe.ino, wanted, "{event}");
    let event = attacks.with(by_version, &mut attacker, &set_version(&thief), &events);
    assert_eq!(event.hook, SentinelHook::FileIoctl, "{event}");
    assert_eq!(host.test_process_by(&thief).ask(&append).unwrap(), EPERM);
    drop(sentinel);
    done(&mut attacker, &set_version(&thief));
    done(&mut attacker, &format!("tool umount -l {}", volume.display()));
    done(&mut attacker, &format!("tool losetup -d {device}"));
}

/// A root directory with the files that the agent's executable needs, and the agent's state directory.
fn root(host: &Host, mounter: &mut TestProcess) -> PathBuf {
    let root = host.path("root");
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files: Vec<&str> =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    files.retain(|path| path.starts_with('/'));
    files.push(LOADER);
    files.sort_unstable();
    files.dedup();
    let place = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    for path in files.into_iter().map(Path::new) {
        let place = place(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        File::create(&place).unwrap();
        done(mounter, &format!("show {} {}", path.display(), place.display()));
    }
    let state = host.path("state");
    std::fs::create_dir_all(place(&state)).unwrap();
    done(mounter, &format!("show {} {}", state.display(), place(&state).display()));
    root
}

/// Starts the agent's executable, as a child of a trusted process.
fn begin(program: &Path, arguments: Option<&Path>, by: Option<&Surroundings>) -> TestProcess {
    let mut command = Command::new(program);
    command.args(arguments);
    if let Some(by) = by {
        surround(&mut command, by.clone());
    }
    TestProcess::start_as(command).unwrap()
}

/// Another name of the same length, and of the same multiplicative hash over words of eight bytes whatever its
/// initial value is: a highest bit changes no other bit of a product.
fn confused_name(name: &OsStr) -> OsString {
    let mut name = name.as_bytes().to_vec();
    for at in [7, 11, 15] {
        name[at] ^= 0x80;
    }
    OsString::from_vec(name)
}

fn the_agents_executable_in_other_surroundings_is_not_trusted() {
    let host = Host::new();
    let (dir, own) = (host.dir(), std::env::current_exe().unwrap());
    std::fs::create_dir(host.path("protected")).unwrap();
    DirBuilder::new().mode(0o700).create(host.path("state")).unwrap();
    let twin = host.path("state/twin");
    std::fs::write(&twin, "1").unwrap();
    let read = |name: &str| format!("read {}", host.path("state").join(name).display());
    let root = root(&host, &mut host.test_process());
    let root = CString::new(root.as_os_str().as_bytes()).unwrap();
    let loader = (Path::new(LOADER), Some(own.as_path()));
    let itself = (own.as_path(), None);
    let confused = own.with_file_name(confused_name(own.file_name().unwrap()));
    std::fs::copy(&own, &confused).unwrap();
    let tried = [
        ("by a name of the same unkeyed hash", (&*confused, None), None),
        ("in another mount namespace", itself, Some(Surroundings::Mounts)),
        ("in another user namespace", itself, Some(Surroundings::Users)),
        ("in another root directory", itself, Some(Surroundings::Root(root))),
        ("with shared directories (CLONE_FS)", itself, Some(Surroundings::SharedNames)),
        ("with another seccomp(2) filter", itself, Some(Surroundings::Filter)),
        ("by the dynamic loader", loader, None),
    ];
    let name = |surroundings: &str| {
        format!("read the agent's secret by the agent's executable {surroundings}")
    };
    let mut attacks = Attacks::default();
    for (surroundings, (program, argument), by) in &tried {
        let mut attacker = begin(program, *argument, by.as_ref());
        attacks.without(&name(surroundings), &mut attacker, &read("twin"));
    }
    let by_orphan = "read the agent's secret by the agent's executable, reparented to PID 1";
    let orphan = || {
        // The reader of its standard error has ended.
        let mut command = Command::new(&own);
        command.stderr(Stdio::null());
        let mut orphan = TestProcess::start_as(command).unwrap();
        for order in ["heir", "exec"] {
            done(&mut orphan, &format!("{order} {}", own.display()));
        }
        orphan
    };
    attacks.without(by_orphan, &mut orphan(), &read("twin"));

    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    let (pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // In the surroundings of the agent, the executable reads the secret.
    assert_eq!(begin(&own, None, None).ask(&read("secret")).unwrap(), 0);
    for (surroundings, (program, argument), by) in &tried {
        let mut attacker = begin(program, *argument, by.as_ref());
        let event = attacks.with(&name(surroundings), &mut attacker, &read("secret"), &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{surroundings}: {event}");
    }
    drop((pump, events, sentinel));

    let builder = builder(dir).launched_by(Launch::Init);
    let sentinel = builder.start(&policy(dir)).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    attacks.with(by_orphan, &mut orphan(), &read("secret"), &events);
    sentinel.stop().unwrap();
    std::fs::remove_file(&confused).unwrap();
}
