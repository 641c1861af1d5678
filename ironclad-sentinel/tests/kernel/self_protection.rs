//! The agent itself: its process, its maps and programs, and trusted processes.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::testbed::attacks::NO_EFFECT;
use crate::testbed::shared::own_map;
use crate::testbed::successor::{Successor, builder, policy};
use crate::testbed::{Attacks, EPERM, Host, PATIENCE, Sysctl, does, lsm, next_denied};
use ironclad_bpf::shield::{Shared, SharedOptions};
use ironclad_core::abi::{SentinelHook, SentinelVerdict};
use ironclad_lab::harness::{Role, Test, skip};
use ironclad_lab::test_process::{TestProcess, ends_within};
use ironclad_lab::{Cgroup, Terminal, role, test};
use ironclad_policy::{CompiledPolicy, Policy};
use ironclad_sentinel::{Overflow, Secret, Sentinel};
use ironclad_syscalls::command;
use libbpf_rs::{MapCore, MapHandle};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(the_agent_is_protected_from_other_processes).shared().in_machine().needs(&[lsm]),
        test!(the_oom_killer_does_not_end_the_agent).in_machine().needs(&[lsm]),
        test!(the_nice_value_of_the_agents_session_is_not_changed)
            .isolated()
            .in_machine()
            .needs(&[lsm]),
        test!(pid_1_is_not_traced).shared().in_machine().needs(&[lsm]),
        test!(a_child_of_the_agent_is_protected_until_it_executes)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(the_agent_is_not_moved_frozen_or_killed_by_cgroups).in_machine().needs(&[lsm]),
        test!(real_time_processes_leave_the_agent_time).shared().in_machine().needs(&[lsm]),
        test!(an_agent_without_processes_and_descriptors_protects).in_machine().needs(&[lsm]),
        test!(a_missing_executor_is_not_created).in_machine().needs(&[lsm]),
        test!(a_process_that_executes_the_executor_is_not_pid_1).in_machine().needs(&[lsm]),
        test!(signals_of_files_and_perf_events_do_not_reach_the_agent)
            .shared()
            .in_machine()
            .needs(&[lsm]),
        test!(monitors_raise_no_alarms).shared().in_machine().needs(&[lsm]),
        test!(an_agent_works_while_every_device_is_denied).in_machine().needs(&[lsm]),
        test!(an_agent_has_no_terminal_that_ends_it).in_machine().needs(&[lsm]),
        test!(an_agent_has_no_descriptor_of_a_console).in_machine().needs(&[lsm]),
        test!(presented_secrets_are_not_traced).shared().in_machine().needs(&[lsm]),
        test!(maps_and_programs_are_out_of_reach).in_machine().needs(&[lsm]),
        test!(a_secret_is_good_once_and_for_one_program).shared().in_machine().needs(&[lsm]),
    ]
}

/// SIGURG, which is ignored by default.
const URGENT: i32 = 23;
/// SIGTERM.
const TERMINATE: i32 = 15;

/// Attacks on a process: name, order, and the hook that refuses it.
const TASK_ATTACKS: [(&str, &str, SentinelHook); 17] = {
    use SentinelHook::{
        FileOpen, PtraceAccessCheck, TaskKill, TaskSetnice, TaskSetrlimit, TaskSetscheduler,
    };
    [
        ("raise oom_score_adj of the agent", "write /proc/PID/oom_score_adj 1000", FileOpen),
        ("read /proc/PID/auxv of the agent", "read-some /proc/PID/auxv", FileOpen),
        (
            "read /proc/PID/task/TID/maps of the agent",
            "read-some /proc/PID/task/PID/maps",
            FileOpen,
        ),
        ("send a signal to the agent by kill(2)", "kill PID 23", TaskKill),
        ("attach to the agent by ptrace(2)", "trace PID", PtraceAccessCheck),
        ("read memory of the agent by process_vm_readv(2)", "read-memory PID", PtraceAccessCheck),
        (
            "write memory of the agent by process_vm_writev(2)",
            "write-memory PID",
            PtraceAccessCheck,
        ),
        ("open /proc/PID/mem of the agent to write", "open-memory PID", FileOpen),
        (
            "open /proc/PID/mem of the agent to write by io_uring",
            "uring-open caller /proc/PID/mem",
            FileOpen,
        ),
        (
            "open /proc/PID/mem of the agent to write by an io_uring worker",
            "uring-open worker /proc/PID/mem",
            FileOpen,
        ),
        ("copy a descriptor of the agent by pidfd_getfd(2)", "take it PID 1", PtraceAccessCheck),
        ("open /proc/PID/exe of the agent", "open-to-read /proc/PID/exe", PtraceAccessCheck),
        ("read /proc/PID/maps of the agent", "read-some /proc/PID/maps", FileOpen),
        ("read /proc/PID/environ of the agent", "read-some /proc/PID/environ", FileOpen),
        ("change resource limits of the agent by prlimit(2)", "limit PID", TaskSetrlimit),
        ("change the CPU affinity of the agent", "bind-to-first PID", TaskSetscheduler),
        ("lower the priority of the agent by setpriority(2)", "prefer-others-to PID", TaskSetnice),
    ]
};

/// The executable mappings of this test's program in a process, from proc_pid_smaps(5).
fn code_in(pid: u32) -> String {
    let own = std::env::current_exe().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let begin =
        maps.lines().position(|it| it.contains("r-xp") && it.ends_with(own.to_str().unwrap()));
    let lines: Vec<_> = maps.lines().skip(begin.unwrap()).take(30).collect();
    lines.join("\n")
}

/// Where it begins and ends.
fn code_of(pid: u32) -> String {
    code_in(pid).split_once(' ').unwrap().0.replace('-', " ")
}

fn is_code_locked(pid: u32) -> bool {
    let code = code_in(pid);
    let flags = code.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
    flags.split_whitespace().any(|flag| flag == "lo")
}

fn the_agent_is_protected_from_other_processes() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let other = host.test_process();
    // A child of PID 1 inherits its limits: the successor.
    let by_parent = "change resource limits of PID 1 by prlimit(2)";
    attacks.without(by_parent, &mut attacker, "limit 1");
    let agent = std::process::id();
    // On another process: the attacks would change the agent.
    for (name, order, _) in TASK_ATTACKS {
        attacks.without(name, &mut attacker, &order.replace("PID", &other.pid().to_string()));
    }
    assert_eq!(attacker.ask(&format!("kill {agent} {URGENT}")).unwrap(), 0);
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order, hook) in TASK_ATTACKS {
        let order = order.replace("PID", &agent.to_string());
        let event = attacks.with(name, &mut attacker, &order, &events);
        assert_eq!((event.hook, event.pid), (hook, attacker.pid()), "{name}: {event}");
    }
    let event = attacks.with(by_parent, &mut attacker, "limit 1", &events);
    assert_eq!((event.hook, event.target), (SentinelHook::TaskSetrlimit, 1), "{event}");
    for name in ["stat", "status", "cmdline", "cgroup", "mountinfo", "oom_score_adj"] {
        assert_eq!(attacker.ask(&format!("read /proc/{agent}/{name}")).unwrap(), 0, "{name}");
    }
    // process_madvise(2): later kernels allow it to CAP_PERFMON without the hook.
    assert_eq!(attacker.ask(&format!("advise {}", other.pid())).unwrap(), 0);
    if rustix::system::uname().release().to_string_lossy().starts_with("5.10.") {
        assert_eq!(attacker.ask(&format!("advise {agent}")).unwrap(), EACCES);
    }
    // Nor are the agent's pages taken out of memory, where reading them anew would need its disk.
    let page_out = |pid: u32| format!("page-out {pid} {}", code_of(pid));
    assert_eq!(attacker.ask(&page_out(other.pid())).unwrap(), 0);
    assert_ne!(attacker.ask(&page_out(agent)).unwrap(), 0);
    assert!(is_code_locked(agent) && !is_code_locked(other.pid()));
    // Other processes may be traced, and signal 0 to the agent is allowed.
    assert_eq!(attacker.ask(&format!("read-memory {}", other.pid())).unwrap(), 0);
    assert_eq!(attacker.ask(&format!("kill {agent} 0")).unwrap(), 0);
    drop(sentinel);
    assert_eq!(attacker.ask(&format!("kill {agent} {URGENT}")).unwrap(), 0);
}

/// ps(1), top(1) and pidof(8) read what shows nothing secret of all processes.
fn monitors_raise_no_alarms() {
    let host = Host::new();
    let mut monitor = host.test_process();
    let agent = std::process::id();
    let link = format!("read-link /proc/{agent}/exe");
    assert_eq!(monitor.ask(&link).unwrap(), 0);
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for order in ["tool ps aux", "tool ps", "tool top -b -n 1", "tool pidof init"] {
        let status = monitor.ask(order).unwrap();
        assert!(status == 0 || order.contains("pidof"), "{order}: {status}");
    }
    for name in ["stat", "status", "cmdline", "wchan"] {
        assert_eq!(monitor.ask(&format!("read /proc/{agent}/{name}")).unwrap(), 0, "{name}");
    }
    // journald reads the executable's name of each process that logs. It is denied, without an alarm.
    assert_eq!(monitor.ask(&link).unwrap(), EACCES);
    // The first alarm is that of the first attack, by a program of many names.
    let kill = format!("tool kill -9 {agent}");
    assert_ne!(monitor.ask(&kill).unwrap(), 0);
    let event = next_denied(&events);
    assert_eq!((event.hook, event.target), (SentinelHook::TaskKill, agent), "{event}");
    let explained = sentinel.explain_event(&event).unwrap().to_string();
    assert!(
        explained.contains("SIGKILL by") && explained.contains("(kill), user 0"),
        "{explained}"
    );
    // A process that opens the file reads it.
    assert_eq!(monitor.ask(&format!("open-to-read /proc/{agent}/exe")).unwrap(), EACCES);
    let event = next_denied(&events);
    assert_eq!(event.hook, SentinelHook::PtraceAccessCheck, "{event}");
}

/// Starts a Sentinel, and waits for SIGTERM. `IRONCLAD_TEST_TERMINAL` says how: `none` without Sentinel, or `allowed`.
pub(crate) const ON_TERMINAL: Role = role!(on_terminal);
const HOW: &str = "IRONCLAD_TEST_TERMINAL";

fn on_terminal() {
    let how = std::env::var(HOW).unwrap();
    let builder = Sentinel::builder("test").may_stop(busybox());
    let started = match how.as_str() {
        "none" => Ok(None),
        "allowed" => builder
            .dangerous(|it| it.terminal(true).terminal_descriptors(true))
            .start(&empty())
            .map(Some),
        _ => builder.start(&empty()).map(Some),
    };
    match &started {
        Ok(_) => println!("@@ ready"),
        Err(error) => println!("@@ {:?}: {error}", error.kind()),
    }
    std::io::stdout().flush().unwrap();
    if started.is_ok() {
        loop {
            std::thread::park();
        }
    }
}

fn busybox() -> PathBuf {
    std::fs::canonicalize("/bin/busybox").unwrap()
}

fn empty() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

/// A process that a terminal may end.
struct Reader {
    child: Child,
    says: String,
}

impl Reader {
    fn start(mut command: Command, how: &str) -> Self {
        ON_TERMINAL.play(&mut command).env(HOW, how);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let says = lines.find_map(|line| {
            line.unwrap().split_once("@@ ").map(|(_, words)| words.trim().to_owned())
        });
        Self { child, says: says.unwrap() }
    }

    /// The signal that ends it.
    fn ended_by(mut self) -> Option<i32> {
        assert!(ends_within(self.child.id(), PATIENCE).unwrap());
        self.child.wait().unwrap().signal()
    }
}

/// The kernel itself sends the signals of a controlling terminal.
fn an_agent_has_no_terminal_that_ends_it() {
    const HANG_UP: i32 = 1;
    const INTERRUPT: i32 = 2;
    let own = std::env::current_exe().unwrap();
    let on = |terminal: &Terminal, how| Reader::start(terminal.command(&own).unwrap(), how);
    let hang_up =
        |terminal: &Terminal| command(&terminal.open().unwrap(), TIOCVHANGUP, &[]).unwrap();
    let mut terminal = Terminal::new().unwrap();
    let (reader, other) = (on(&terminal, "none"), Terminal::new().unwrap());
    assert_eq!(reader.says, "ready");
    hang_up(&other);
    terminal.type_in(b"\x03").unwrap();
    assert_eq!(reader.ended_by(), Some(INTERRUPT));
    let reader = on(&terminal, "none");
    drop(terminal);
    assert_eq!(reader.ended_by(), Some(HANG_UP));
    // Without Sentinel, and with one that accepts it.
    for how in ["none", "allowed"] {
        let terminal = Terminal::new().unwrap();
        let reader = on(&terminal, how);
        assert_eq!(reader.says, "ready");
        hang_up(&terminal);
        assert_eq!(reader.ended_by(), Some(HANG_UP), "{how}");
    }
    let mut terminal = Terminal::new().unwrap();
    let refused = on(&terminal, "");
    assert!(refused.says.starts_with("Terminal: this process has a controlling terminal"));
    assert!(refused.says.contains("setsid(1)"), "{}", refused.says);
    assert_eq!(refused.ended_by(), None);
    // The leader of its process group cannot become the leader of a session, which no other process gives a terminal.
    // A tracer of PID 1 from before the start.
    let mut tracer = TestProcess::start_as(Command::new(&own)).unwrap();
    assert_eq!(tracer.ask("seize 1").unwrap(), 0);
    let refused = Reader::start(Command::new(&own), "");
    assert!(refused.says.starts_with("Traced: PID 1 is traced by process"), "{}", refused.says);
    assert_eq!(refused.ended_by(), None);
    drop(tracer);
    let mut leader = Command::new(&own);
    leader.process_group(0);
    let refused = Reader::start(leader, "");
    assert!(refused.says.starts_with("Terminal: this process leads a process group"));
    assert_eq!(refused.ended_by(), None);
    // The same terminal as standard input alone: the start makes the process the leader of a session.
    let mut apart = Command::new(&own);
    apart.stdin(terminal.open().unwrap());
    let mut agent = Reader::start(apart, "");
    assert_eq!(agent.says, "ready");
    let process = rustix::process::Pid::from_raw(agent.child.id() as i32).unwrap();
    assert_eq!(rustix::process::getsid(Some(process)).unwrap(), process);
    terminal.type_in(b"\x03").unwrap();
    hang_up(&terminal);
    drop(terminal);
    // Signals that are pending end a process before it reports to another: it is alive, and still refuses others.
    let pid = agent.child.id();
    let mut attacker = TestProcess::start_as(Command::new(&own)).unwrap();
    assert_eq!(attacker.ask(&format!("kill {pid} {TERMINATE}")).unwrap(), EPERM);
    assert!(agent.child.try_wait().unwrap().is_none());
    // By an executable that may stop it.
    let killed = Command::new(busybox()).args(["kill", "-TERM", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(agent.ended_by(), Some(TERMINATE));
}

/// The console in front, whose keyboard and sysrq(4) have the secure attention key.
const CONSOLE: &str = "/dev/tty1";

/// The kernel sends SIGKILL to every process that has the terminal open.
fn an_agent_has_no_descriptor_of_a_console() {
    const KILL: i32 = 9;
    let own = std::env::current_exe().unwrap();
    let console = || {
        let flags = rustix::fs::OFlags::NOCTTY.bits() as i32;
        std::fs::OpenOptions::new().read(true).write(true).custom_flags(flags).open(CONSOLE)
    };
    if let Err(error) = console() {
        skip(format!("{CONSOLE}: {error}"));
    }
    let on = |how| {
        let mut command = Command::new(&own);
        command.stdin(console().unwrap());
        Reader::start(command, how)
    };
    let reader = on("none");
    assert_eq!(reader.says, "ready");
    std::fs::write("/proc/sysrq-trigger", "k").unwrap();
    assert_eq!(reader.ended_by(), Some(KILL));
    let refused = on("");
    let says = format!("TerminalDescriptor: descriptor 0 of this process is `{CONSOLE}`");
    assert!(refused.says.starts_with(&says), "{}", refused.says);
    assert!(refused.says.contains("redirect it to a file"), "{}", refused.says);
    assert_eq!(refused.ended_by(), None);
    let agent = on("allowed");
    assert_eq!(agent.says, "ready");
    let pid = agent.child.id().to_string();
    assert!(Command::new(busybox()).args(["kill", "-KILL", &pid]).status().unwrap().success());
    assert_eq!(agent.ended_by(), Some(KILL));
}

/// Denies every device to every process, while it exists: `devices` of cgroups of version 1.
struct NoDevices(PathBuf);

impl NoDevices {
    fn at(dir: PathBuf, attacker: &mut TestProcess) -> Option<Self> {
        std::fs::create_dir(&dir).unwrap();
        let mount = format!("tool mount -t cgroup -o devices none {}", dir.display());
        if attacker.ask(&mount).unwrap() != 0 {
            return None;
        }
        Some(Self(dir))
    }

    /// By the agent: no other process may.
    fn deny(&self, attacker: &mut TestProcess) {
        let file = self.0.join("devices.deny");
        let order = format!("write {} a", file.display());
        assert_eq!(attacker.ask(&order).unwrap(), EPERM);
        std::fs::write(file, "a").unwrap();
    }
}

impl Drop for NoDevices {
    fn drop(&mut self) {
        std::fs::write(self.0.join("devices.allow"), "a").unwrap();
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

/// Sentinel needs no device: to start, to apply, to refresh, and to be adopted.
fn an_agent_works_while_every_device_is_denied() {
    let host = Host::new();
    let (dir, file) = (host.dir(), host.path("protected/file"));
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(&file, "1").unwrap();
    let mut attacker = host.test_process();
    let group = Cgroup::new("room").unwrap();
    let version_1 = NoDevices::at(host.path("devices"), &mut attacker);
    let moved = Moved::to(&group);
    let append = format!("append {}", file.display());
    let deny = |attacker: &mut TestProcess| {
        let by_program = format!("deny-devices {}", group.dir().display());
        assert_eq!(attacker.ask(&by_program).unwrap(), 0);
        match &version_1 {
            Some(devices) => devices.deny(attacker),
            None => println!("not tried: this kernel has no devices of version 1"),
        }
    };
    // A running agent.
    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    deny(&mut attacker);
    let denied = std::fs::File::open("/dev/null").unwrap_err();
    assert_eq!(denied.raw_os_error(), Some(EPERM as i32));
    assert_eq!(sentinel.status().unwrap().degraded, []);
    sentinel.apply(&policy(dir)).unwrap();
    sentinel.refresh().unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    assert_eq!(next_denied(&events).hook, SentinelHook::FileOpen);
    // Its successors.
    drop(sentinel);
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    let mut successor = Successor::start(Successor::command(dir));
    assert_eq!(successor.says(), "ready");
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    successor.send("stop");
    assert_eq!(successor.says(), "stopped");
    assert_eq!(attacker.ask(&append).unwrap(), 0);
    // A first agent.
    let sentinel = builder(dir).start(&policy(dir)).unwrap();
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    sentinel.stop().unwrap();
    drop((version_1, moved));
    drop(attacker);
}

/// `TIOCVHANGUP` of include/uapi/asm-generic/ioctls.h.
const TIOCVHANGUP: u32 = 0x5437;

/// Moves this process to a cgroup, and back when dropped, because the cgroup is removed.
struct Moved {
    former: String,
}

impl Moved {
    fn to(group: &Cgroup) -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let former = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        std::fs::write(group.dir().join("cgroup.procs"), "0").unwrap();
        Self { former: format!("{}{former}", group.dir().parent().unwrap().display()) }
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        std::fs::write(format!("{}/cgroup.procs", self.former), "0").unwrap();
    }
}

/// All processes of a session have one nice value: autogroup of sched(7). The test begins a session, which a process
/// cannot leave.
fn the_nice_value_of_the_agents_session_is_not_changed() {
    rustix::process::setsid().unwrap();
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let tried = [
        (
            "write /proc/PID/autogroup of the agent",
            format!("write /proc/{}/autogroup 0", std::process::id()),
        ),
        (
            "write /proc/PID/autogroup of a process of the agent's session",
            "write /proc/self/autogroup 0".to_owned(),
        ),
    ];
    let script = host.path("script");
    std::fs::write(&script, "#!/bin/sh\necho 0 > /proc/self/autogroup\n").unwrap();
    std::fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
    let in_another = format!("tool setsid {}", script.display());
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    does(&mut attacker, &in_another);
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    }
    does(&mut attacker, &in_another);
}

/// A process with an `oom_score_adj` of -999 joins the agent's cgroup and uses up its memory: the OOM killer ends that
/// process and not the agent.
fn the_oom_killer_does_not_end_the_agent() {
    const HELD: usize = 96 << 20;
    const LEFT: usize = 16 << 20;
    const KILLED: u64 = 255;
    let host = Host::new();
    let mut attacker = host.test_process();
    let limited = |name| {
        let group = Cgroup::new(name).unwrap();
        let all = group.dir().parent().unwrap().join("cgroup.subtree_control");
        std::fs::write(all, "+memory").unwrap();
        group
    };
    let limit = |group: &Cgroup| {
        let current = std::fs::read_to_string(group.dir().join("memory.current")).unwrap();
        let most = current.trim().parse::<usize>().unwrap() + LEFT;
        std::fs::write(group.dir().join("memory.max"), most.to_string()).unwrap();
    };
    let eat = |group: &Cgroup| format!("eat-in {} {HELD}", group.dir().display());
    assert_eq!(attacker.ask("write /proc/self/oom_score_adj -999").unwrap(), 0);

    let group = limited("victim");
    let mut victim =
        TestProcess::start_as(group.command(&std::env::current_exe().unwrap())).unwrap();
    assert_eq!(victim.ask(&format!("hold {HELD}")).unwrap(), 0);
    limit(&group);
    // Some kernels kill a second process before the memory of the first is free.
    let answer = attacker.ask(&eat(&group)).unwrap();
    assert!([0, KILLED].contains(&answer), "{answer}");
    assert!(victim.ask("read /dev/null").is_err());

    let score = || std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let (former, group) = (score(), limited("agent"));
    let mut eater =
        TestProcess::start_as(group.command(&std::env::current_exe().unwrap())).unwrap();
    assert_eq!(eater.ask("write /proc/self/oom_score_adj -999").unwrap(), 0);
    let moved = Moved::to(&group);
    let held = std::hint::black_box(vec![1u8; HELD]);
    let mut attacks = Attacks::default();
    let (join, into) = (
        "join the agent's cgroup by clone3(2) with CLONE_INTO_CGROUP",
        format!("eat-in {} 4096", group.dir().display()),
    );
    attacks.without(join, &mut attacker, &into);
    // Options of the hierarchy stay as they are.
    does(&mut attacker, "tool mount -o remount,nsdelegate /sys/fs/cgroup");
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let event = attacks.with(join, &mut attacker, &into, &events);
    assert_eq!(event.hook, SentinelHook::TaskAlloc, "{event}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let options = mounts.lines().find(|line| line.contains(" cgroup2 ")).unwrap();
    assert!(options.contains("nsdelegate"), "{options}");
    // The test of this hook has a fork(2) of the agent fail. The agent stays trusted.
    assert!(sentinel.status().unwrap().is_armed);
    own_map("ic_marks");
    // A process that is there already.
    limit(&group);
    assert!(eater.ask(&format!("hold {HELD}")).is_err(), "it is killed");
    assert_eq!(score().trim(), "-1000");
    assert_eq!(attacker.ask(&format!("kill {} {URGENT}", std::process::id())).unwrap(), EPERM);
    drop(sentinel);
    assert_eq!(score(), former);
    std::fs::write(group.dir().join("memory.max"), "max").unwrap();
    let unprotected = Sentinel::builder("test").dangerous(|it| it.oom_kill(true));
    // What Ctrl-Alt-Delete would end.
    let cad_pid = "/proc/sys/kernel/cad_pid";
    std::fs::write(cad_pid, std::process::id().to_string()).unwrap();
    let sentinel = unprotected.start(&Policy::builder().compile().unwrap()).unwrap();
    assert_eq!(score(), former);
    assert_eq!(std::fs::read_to_string(cad_pid).unwrap().trim(), "1");
    sentinel.stop().unwrap();
    drop((held, moved));
}

/// PID 1 may mount, and move the agent to another cgroup, so no other process may take control of it.
fn pid_1_is_not_traced() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let tried = [
        ("attach to PID 1 by ptrace(2)", "trace 1"),
        ("open /proc/1/mem to write", "open-memory 1"),
        ("copy a descriptor of PID 1 by pidfd_getfd(2)", "take it 1 1"),
    ];
    for (name, order) in tried {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!((event.hook, event.target), (SentinelHook::PtraceAccessCheck, 1), "{name}");
    }
    for order in ["read-some /proc/1/maps", "read-link /proc/1/exe", "kill 1 0"] {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    drop(sentinel);
    assert_eq!(attacker.ask("trace 1").unwrap(), 0);
}

/// The error of some files of /proc.
const EACCES: u64 = 13;

/// A child has the agent's memory and descriptors until it executes a program.
fn a_child_of_the_agent_is_protected_until_it_executes() {
    let host = Host::new();
    let (mut attacker, mut agent) = (host.test_process(), host.test_process());
    let mut attacks = Attacks::default();
    let by_file = "signal the agent's child by F_SETOWN and F_SETSIG";
    let signal = |pid: u32| format!("signal-by-file {pid} {TERMINATE}");
    let tried = |pid: u32| {
        TASK_ATTACKS.map(|(name, order, hook)| {
            let name = name.replace("the agent", "the agent's child");
            (name, order.replace("PID", &pid.to_string()), hook)
        })
    };
    let child = agent.ask("idle-child").unwrap() as u32;
    for (name, order, _) in tried(child) {
        attacks.without(&name, &mut attacker, &order);
    }
    assert_eq!(attacker.ask(&signal(child)).unwrap(), 0);
    let has_ended = ends_within(child, crate::testbed::PATIENCE).unwrap();
    attacks.record_without(by_file, if has_ended { "succeeded" } else { NO_EFFECT });
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let secret = sentinel.admit(&std::env::current_exe().unwrap()).unwrap();
    assert_eq!(agent.ask(&hello(&secret)).unwrap(), 0);
    let child = agent.ask("idle-child").unwrap() as u32;
    for (name, order, hook) in tried(child) {
        let event = attacks.with(&name, &mut attacker, &order, &events);
        assert_eq!((event.hook, event.pid), (hook, attacker.pid()), "{name}: {event}");
    }
    let event = attacks.with_outcome(by_file, attacker.pid(), &events, || {
        assert_eq!(attacker.ask(&signal(child)).unwrap(), 0);
        NO_EFFECT.to_owned()
    });
    assert_eq!((event.hook, event.target), (SentinelHook::FileSendSigiotask, child), "{event}");
    assert_eq!(attacker.ask(&format!("kill {child} 0")).unwrap(), 0);
    // As if the tracepoint program had missed the fork.
    let maps = libbpf_rs::query::MapInfoIter::default();
    let marks = maps.filter(|map| map.name.to_string_lossy() == "ic_marks").last().unwrap();
    MapHandle::from_map_id(marks.id).unwrap().delete(&child.to_ne_bytes()).unwrap();
    for (name, order, _) in tried(child) {
        let answer = attacker.ask(&order).unwrap();
        assert!([EPERM, EACCES].contains(&answer), "{name}: {answer}");
    }
    // After execve(2) the child is an ordinary process.
    let started = host.test_process();
    assert_eq!(attacker.ask(&format!("read-memory {}", started.pid())).unwrap(), 0);
}

/// Limits of a cgroup: a name, the file, a limit that does the test no harm, and the usual value.
const STARVING: [(&str, &str, &str, &str); 7] = [
    ("limit the CPU time of the agent's cgroup", "cpu.max", "90000", "max"),
    ("limit the CPU time of a cgroup above the agent's", "cpu.max", "90000", "max"),
    ("lower the CPU weight of the agent's cgroup", "cpu.weight", "90", "100"),
    ("limit the memory of the agent's cgroup", "memory.max", "1000000000", "max"),
    ("throttle the agent's cgroup by its memory", "memory.high", "1000000000", "max"),
    ("limit the memory of a cgroup above the agent's", "memory.max", "1000000000", "max"),
    ("limit the processes of the agent's cgroup", "pids.max", "10000", "max"),
];

/// No other process moves the agent to another cgroup, or freezes, limits or kills its cgroup.
fn the_agent_is_not_moved_frozen_or_killed_by_cgroups() {
    let host = Host::new();
    let around = Cgroup::new("around").unwrap();
    let own = around.child("agent").unwrap();
    let trap = Cgroup::new("trap").unwrap();
    let agent = std::process::id();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let mut other = host.test_process();
    let write = |path: &std::path::Path, name: &str, text: &str| {
        format!("write {} {text}", path.join(name).display())
    };
    let home = std::path::Path::new(own.dir()).parent().unwrap().parent().unwrap();
    for group in [home, around.dir()] {
        std::fs::write(group.join("cgroup.subtree_control"), "+cpu +memory +pids").unwrap();
    }
    let dir_of = |name: &str| if name.contains("above") { around.dir() } else { own.dir() };
    // On a process in `own`: first another process, then the agent.
    let kills = own.dir().join("cgroup.kill").exists();
    let tried = |pid: u32| {
        let pid = pid.to_string();
        let mut tried = vec![
            ("move the agent to another cgroup", write(trap.dir(), "cgroup.procs", &pid)),
            ("move the agent to the root cgroup", write(home, "cgroup.procs", &pid)),
            ("freeze the agent's cgroup", write(own.dir(), "cgroup.freeze", "1")),
            ("freeze a cgroup above the agent's", write(around.dir(), "cgroup.freeze", "1")),
            ("create a cgroup below the agent's", format!("mkdir {}/below", own.dir().display())),
            (
                "set cgroup.max.depth of a cgroup above the agent's",
                write(around.dir(), "cgroup.max.depth", "1"),
            ),
            (
                "chmod a file of the agent's cgroup",
                format!("chmod {}/cgroup.procs", own.dir().display()),
            ),
            (
                "chown a file of a cgroup above the agent's",
                format!("chown {}/cgroup.max.descendants", around.dir().display()),
            ),
            (
                "chmod a file of a cgroup above the agent's",
                format!("chmod {}/cgroup.procs", around.dir().display()),
            ),
            ("chmod a file of the root cgroup", format!("chmod {}/cgroup.procs", home.display())),
        ];
        tried.extend(
            STARVING.map(|(name, file, limit, _)| (name, write(dir_of(name), file, limit))),
        );
        if kills {
            tried.push((
                "kill the agent's cgroup by cgroup.kill",
                write(own.dir(), "cgroup.kill", "1"),
            ));
        } else {
            println!("not tried: this kernel has no cgroup.kill");
        }
        tried
    };
    // By a process that is root only by its fsuid.
    let by_files = |pid: u32| {
        [
            (
                "move the agent to another cgroup by setfsuid(2)",
                write(trap.dir(), "cgroup.procs", &pid.to_string()),
            ),
            (
                "freeze a cgroup above the agent's by setfsuid(2)",
                write(around.dir(), "cgroup.freeze", "1"),
            ),
        ]
    };
    let mut owner = host.test_process();
    assert_eq!(owner.ask("be-root-of-files-alone").unwrap(), 0);
    // A frozen process can be moved, too.
    for (name, order) in tried(other.pid()) {
        attacks.without(name, &mut attacker, &order);
    }
    for (name, order) in by_files(other.pid()) {
        attacks.without(name, &mut owner, &order);
    }
    // Undoes the attacks.
    std::fs::remove_dir(own.dir().join("below")).unwrap();
    let owners = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(home.join("cgroup.procs"), owners).unwrap();
    for order in [
        write(own.dir(), "cgroup.freeze", "0"),
        write(around.dir(), "cgroup.freeze", "0"),
        write(around.dir(), "cgroup.max.depth", "max"),
    ] {
        assert_eq!(attacker.ask(&order).unwrap(), 0, "{order}");
    }
    for (name, file, _, usual) in STARVING {
        std::fs::write(dir_of(name).join(file), usual).unwrap();
    }
    let moved = write(trap.dir(), "cgroup.procs", &other.pid().to_string());
    assert_eq!(attacker.ask(&moved).unwrap(), 0);
    assert_eq!(other.ask("kill 1 0").unwrap(), 0);
    std::fs::write(own.dir().join("cgroup.procs"), "0").unwrap();
    let runtime = host.program("runtime");
    let builder = Sentinel::builder("test").group_manager(&runtime);
    let sentinel = builder.start(&Policy::builder().compile().unwrap()).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (name, order) in tried(agent) {
        assert_eq!(
            attacks.with(name, &mut attacker, &order, &events).pid,
            attacker.pid(),
            "{name}"
        );
    }
    for (name, order) in by_files(agent) {
        let event = attacks.with(name, &mut owner, &order, &events);
        assert_eq!(event.hook, SentinelHook::FileOpen, "{name}: {event}");
    }
    for order in [
        write(trap.dir(), "cgroup.procs", &other.pid().to_string()),
        write(around.dir(), "cgroup.threads", "1"),
        format!("rename {} {}", around.dir().display(), home.join("gone").display()),
    ] {
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
    }
    // Cgroups of other processes are not protected.
    assert_eq!(attacker.ask(&write(trap.dir(), "cgroup.freeze", "1")).unwrap(), 0);
    assert_eq!(attacker.ask(&write(trap.dir(), "cgroup.freeze", "0")).unwrap(), 0);
    let mut manager = host.test_process_by(&runtime);
    assert_eq!(manager.ask(&moved).unwrap(), 0);
    drop(sentinel);
    std::fs::write(home.join("cgroup.procs"), "0").unwrap();
}

/// Systemd's executor writes to cgroups of services. A process that PID 1 did not fork may not by executing it.
fn a_process_that_executes_the_executor_is_not_pid_1() {
    let executor = std::path::Path::new("/usr/lib/systemd/systemd-executor");
    if executor.exists() {
        skip(format!("the test creates {}, which exists", executor.display()));
    }
    std::fs::create_dir_all(executor.parent().unwrap()).unwrap();
    let host = Host::new();
    std::fs::copy(host.program("executor"), executor).unwrap();
    let trap = Cgroup::new("trap").unwrap();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (mut posing, other) = (host.test_process_by(executor), host.test_process());
    let moved = |pid: u32| format!("write {}/cgroup.procs {pid}", trap.dir().display());
    let gone = executor.with_extension("gone");
    let put_away = format!("rename {} {}", executor.display(), gone.display());
    let (executed, replaced) =
        ("move the agent to another cgroup as systemd's executor", "replace systemd's executor");
    attacks.without(executed, &mut posing, &moved(other.pid()));
    attacks.without(replaced, &mut attacker, &put_away);
    std::fs::rename(&gone, executor).unwrap();
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // Executed before and since.
    let agent = std::process::id();
    assert_eq!(posing.ask(&moved(agent)).unwrap(), EPERM);
    let mut posing = host.test_process_by(executor);
    let event = attacks.with(executed, &mut posing, &moved(agent), &events);
    assert_eq!(event.hook, SentinelHook::FileOpen, "{event}");
    let event = attacks.with(replaced, &mut attacker, &put_away, &events);
    assert_eq!(event.hook, SentinelHook::InodeRename, "{event}");
    drop(sentinel);
    std::fs::remove_file(executor).unwrap();
}

/// Hosts whose systemd has no executor have its directory.
fn a_missing_executor_is_not_created() {
    let host = Host::new();
    let executor = std::path::Path::new("/usr/lib/systemd/systemd-executor");
    let dir = executor.parent().unwrap();
    if executor.exists() {
        skip(format!("{} exists", executor.display()));
    }
    let had_directory = dir.exists();
    if had_directory && std::fs::read_dir(dir).unwrap().next().is_some() {
        skip(format!("the test removes {}, which has files", dir.display()));
    }
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let name = "create systemd's executor where systemd has none";
    let create = format!("symlink /bin/sh {}", executor.display());
    std::fs::create_dir_all(dir).unwrap();
    attacks.without(name, &mut attacker, &create);
    std::fs::remove_file(executor).unwrap();
    let empty = Policy::builder().compile().unwrap();
    let sentinel = Sentinel::builder("test").start(&empty).unwrap();
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    let event = attacks.with(name, &mut attacker, &create, &events);
    assert_eq!(event.hook, SentinelHook::InodeSymlink, "{event}");
    let copy = format!("create {}", executor.display());
    assert_eq!(attacker.ask(&copy).unwrap(), EPERM);
    assert_eq!(attacker.ask(&format!("rmdir {}", dir.display())).unwrap(), EPERM);
    // One of the agent's own, as of an updater, is exempt after a refresh.
    std::fs::copy(host.program("executor"), executor).unwrap();
    assert_eq!(sentinel.refresh().unwrap().executables, 1);
    drop(sentinel);
    std::fs::remove_file(executor).unwrap();

    // Without the directory, one that appears later is not exempt.
    std::fs::remove_dir(dir).unwrap();
    let sentinel = Sentinel::builder("test").start(&empty).unwrap();
    does(&mut attacker, &format!("mkdir {}", dir.display()));
    does(&mut attacker, &create);
    assert_eq!(sentinel.refresh().unwrap().executables, 0);
    drop(sentinel);
    std::fs::remove_file(executor).unwrap();
    if !had_directory {
        std::fs::remove_dir(dir).unwrap();
    }
}

fn signals_of_files_and_perf_events_do_not_reach_the_agent() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let (other, victim) = (host.test_process(), host.test_process());
    let agent = std::process::id();
    let signal = |pid: u32| format!("signal-by-file {pid} {TERMINATE}");
    let count = |pid: u32| format!("count {pid}");
    let (by_file, by_counter) =
        ("signal the agent by F_SETOWN and F_SETSIG", "open a perf counter on the agent");
    let (sysrq, trigger) =
        ("open /proc/sysrq-trigger to write", "open-to-write /proc/sysrq-trigger");
    let own = std::env::current_exe().unwrap();
    let probe = |pid: u32| format!("probe-program {pid} {}", own.display());
    let by_probe = "open a uprobe on the agent by perf_event_open(2)";
    let everywhere = [
        ("open a uprobe on the agent's executable by perf_event_open(2)", probe(0)),
        ("open a kprobe by perf_event_open(2)", "probe-kernel security_bpf".to_owned()),
    ];
    attacks.without(by_probe, &mut attacker, &probe(other.pid()));
    for (name, order) in &everywhere {
        attacks.without(name, &mut attacker, order);
    }
    // The kernel reports no error to the sender. A process that receives the signal ends.
    assert_eq!(attacker.ask(&signal(victim.pid())).unwrap(), 0);
    let has_ended = victim.ends_within(crate::testbed::PATIENCE).unwrap();
    attacks.record_without(by_file, if has_ended { "succeeded" } else { NO_EFFECT });
    attacks.without(by_counter, &mut attacker, &count(other.pid()));
    // Its children inherit the event, which can signal them (`sigtrap`).
    let of_init = "open a perf counter on PID 1";
    attacks.without(of_init, &mut attacker, &count(1));
    attacks.without(sysrq, &mut attacker, trigger);
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // The agent is this process, which would end.
    let pid = attacker.pid();
    let event = attacks.with_outcome(by_file, pid, &events, || {
        assert_eq!(attacker.ask(&signal(agent)).unwrap(), 0);
        NO_EFFECT.to_owned()
    });
    assert_eq!((event.hook, event.target), (SentinelHook::FileSendSigiotask, agent), "{event}");
    assert_eq!(event.detail, TERMINATE as u32);
    let event = attacks.with(by_counter, &mut attacker, &count(agent), &events);
    assert_eq!(event.hook, SentinelHook::PerfEventAlloc, "{event}");
    let event = attacks.with(of_init, &mut attacker, &count(1), &events);
    assert_eq!(event.hook, SentinelHook::PerfEventAlloc, "{event}");
    assert_eq!(attacker.ask(&count(other.pid())).unwrap(), 0);
    let probes = [(by_probe, probe(agent))];
    for (name, order) in probes.iter().chain(&everywhere) {
        let event = attacks.with(name, &mut attacker, order, &events);
        // Some kernels call the lockdown hook first.
        let hooks = [SentinelHook::PerfEventAlloc, SentinelHook::LockedDown];
        assert!(hooks.contains(&event.hook), "{name}: {event}");
    }
    attacks.with(sysrq, &mut attacker, trigger, &events);
    drop(sentinel);
    assert_eq!(attacker.ask(trigger).unwrap(), 0);
}

/// A secret is an argument of prctl(2), which tracepoints show.
fn presented_secrets_are_not_traced() {
    let host = Host::new();
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    let other = host.test_process();
    let number = "/sys/kernel/tracing/events/syscalls/sys_enter_prctl/id";
    let number = std::fs::read_to_string(number).unwrap();
    let number = number.trim();
    let tried = [
        ("trace prctl(2) arguments of all processes by perf", format!("watch 0 {number}")),
        (
            "trace prctl(2) arguments of another process by perf",
            format!("watch {} {number}", other.pid()),
        ),
        // PID 1 starts the agent's successor, which inherits its events.
        ("sample the stack of PID 1 by perf", "sample 1".to_owned()),
        // A filter reveals bits of the arguments.
        ("count prctl(2) calls by perf", format!("count-calls 0 {number}")),
    ];
    for (name, order) in &tried {
        attacks.without(name, &mut attacker, order);
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    for (name, order) in &tried {
        let event = attacks.with(name, &mut attacker, order, &events);
        assert_eq!(event.hook, SentinelHook::PerfEventAlloc, "{name}: {event}");
    }
    // A process may trace itself.
    let own = format!("watch {} {number}", attacker.pid());
    assert_eq!(attacker.ask(&own).unwrap(), 0);
    assert_eq!(attacker.ask(&format!("sample {}", attacker.pid())).unwrap(), 0);
    assert_eq!(attacker.ask(&format!("count {}", other.pid())).unwrap(), 0);
}

/// `BPF_MAP_GET_FD_BY_ID`: only to read.
const BPF_F_RDONLY: u32 = 8;

fn maps_and_programs_are_out_of_reach() {
    let host = Host::new();
    let mut attacker = host.test_process();
    let before = Shared::load(SharedOptions::default()).unwrap();
    let tool = |attacker: &mut ironclad_lab::test_process::TestProcess, words: &str| {
        attacker.ask(&format!("tool bpftool {words}")).unwrap()
    };
    let map = before.reasons.info().id;
    let update = format!("map update id {map} key 0 0 0 0 value hex");
    // One value, for each processor.
    let update = format!("{update}{}", " 00".repeat(32));
    let dump = format!("map dump id {map}");
    let program = format!("prog dump xlated id {}", before.dispatcher().info().id);
    let tried = [
        ("update a protected BPF map by its id", &update, SentinelHook::BpfMap),
        ("dump a protected BPF map by its id", &dump, SentinelHook::BpfMap),
        ("dump a protected BPF program by its id", &program, SentinelHook::BpfProg),
    ];
    let mut attacks = Attacks::default();
    for (name, words, _) in tried {
        attacks.without(name, &mut attacker, &format!("tool bpftool {words}"));
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // Created before: not protected until `protect` is called.
    assert_eq!(tool(&mut attacker, &dump), 0);
    sentinel.protect([before.reasons.as_fd()], [before.dispatcher()]).unwrap();
    for (name, words, hook) in tried {
        let event = attacks.with(name, &mut attacker, &format!("tool bpftool {words}"), &events);
        assert_eq!(event.hook, hook, "{name}: {event}");
    }
    // Created since: protected from the start.
    let after = Shared::load(SharedOptions::default()).unwrap();
    let map = after.reasons.info().id;
    assert_ne!(tool(&mut attacker, &format!("map dump id {map}")), 0);
    assert_eq!(next_denied(&events).target, map);
    after.reasons.lookup_all(&0).unwrap();
    // Sentinel's own.
    for id in sentinel.map_ids() {
        for flags in [0, BPF_F_RDONLY] {
            assert_eq!(attacker.ask(&format!("map-by-id {id} {flags}")).unwrap(), EPERM, "{id}");
            let event = next_denied(&events);
            assert_eq!((event.hook, event.target), (SentinelHook::BpfMap, id), "{event}");
        }
    }
    let own: Vec<_> = sentinel.program_ids().collect();
    assert!(own.len() > 20);
    for id in own {
        assert_eq!(attacker.ask(&format!("program-by-id {id}")).unwrap(), EPERM, "{id}");
        let event = next_denied(&events);
        assert_eq!((event.hook, event.target), (SentinelHook::BpfProg, id), "{event}");
    }
    // Maps of other processes are not protected.
    let name = format!("/sys/fs/bpf/test-{}", std::process::id());
    let create = format!("map create {name} type array key 4 value 4 entries 1 name other");
    assert_eq!(tool(&mut attacker, &create), 0);
    assert_eq!(tool(&mut attacker, &format!("map dump pinned {name}")), 0);
    std::fs::remove_file(name).unwrap();
    drop(sentinel);
    // From that moment, whenever the kernel releases its programs.
    let later = Shared::load(SharedOptions::default()).unwrap();
    for shared in [&before, &after, &later] {
        let map = shared.reasons.info().id;
        assert_eq!(tool(&mut attacker, &format!("map dump id {map}")), 0, "{map}");
    }
}

/// The order to present a secret.
fn hello(secret: &Secret) -> String {
    let words = secret.as_bytes().chunks_exact(8);
    let words = words.map(|word| u64::from_ne_bytes(word.try_into().unwrap()).to_string());
    format!("hello {}", words.collect::<Vec<_>>().join(" "))
}

fn a_secret_is_good_once_and_for_one_program() {
    let host = Host::new();
    let own = std::env::current_exe().unwrap();
    let (mut agent, mut attacks) = (host.test_process(), Attacks::default());
    let mut copy = host.test_process_by(&host.program("copy"));
    let file = host.path("file");
    std::fs::write(&file, "1").unwrap();
    let append = format!("append {}", file.display());
    let child = format!("child {append}");
    let fork = format!("fork {} {append}", own.display());
    let by_program = "change a protected file by the agent's executable";
    let by_guess = "change a protected file after presenting a guessed secret";
    let by_copy = "change a protected file after presenting a secret of another executable";
    let by_second = "change a protected file after presenting a used secret";
    let by_child = "change a protected file as a child of a trusted process";
    let by_fork = "change a protected file as a program that a trusted process starts";
    let by_exec = "change a protected file after execve(2) by a trusted process";
    for name in [by_program, by_guess, by_second, by_exec] {
        attacks.without(name, &mut agent, &append);
    }
    attacks.without(by_copy, &mut copy, &append);
    attacks.without(by_child, &mut agent, &child);
    attacks.without(by_fork, &mut agent, &fork);
    let rule = ironclad_policy::file::FileRule::new(
        ironclad_core::RuleId(1),
        "one",
        ironclad_policy::file::FileAction::Deny,
    );
    let policy = Policy::builder().file_rule(rule.file(&file)).compile().unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let presented = || loop {
        let event = events.recv_timeout(crate::testbed::PATIENCE).unwrap().into_sentinel().unwrap();
        if event.hook == SentinelHook::TaskPrctl && event.pid != std::process::id() {
            return event.verdict;
        }
    };
    // A process with the agent's executable is not trusted, and a guessed secret is refused.
    attacks.with(by_program, &mut agent, &append, &events);
    let guess = Secret::new().unwrap();
    agent.ask(&hello(&guess)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Refused);
    attacks.with(by_guess, &mut agent, &append, &events);
    // A copy is another executable. A refused presentation does not use the secret up.
    let secret = sentinel.admit(&own).unwrap();
    copy.ask(&hello(&secret)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Refused);
    attacks.with(by_copy, &mut copy, &append, &events);
    agent.ask(&hello(&secret)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Granted);
    assert_eq!(agent.ask(&append).unwrap(), 0);
    // Once.
    let mut second = host.test_process();
    second.ask(&hello(&secret)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Refused);
    attacks.with(by_second, &mut second, &append, &events);
    // Children are not trusted, nor is the process after execve(2).
    attacks.with(by_child, &mut agent, &child, &events);
    attacks.with(by_fork, &mut agent, &fork, &events);
    assert_eq!(agent.ask(&append).unwrap(), 0);
    assert_eq!(agent.ask(&format!("exec {}", own.display())).unwrap(), 0);
    attacks.with(by_exec, &mut agent, &append, &events);
}

/// Real-time processes compute on all processors.
fn real_time_processes_leave_the_agent_time() {
    const APPEND: &str = "append to a protected file while real-time processes compute";
    let host = Host::new();
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(host.path("protected/file"), "1").unwrap();
    let append = format!("append {}", host.path("protected/file").display());
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    attacks.without(APPEND, &mut attacker, &append);
    let sentinel = host.start(&policy(host.dir()));
    let (_pump, events) = sentinel.events(64, Overflow::DropNewest).unwrap();
    // Kernel threads that get no time hold others up: changes of their scheduling are reported.
    let threads = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let at = entry.unwrap().path();
        let name = std::fs::read_to_string(at.join("comm")).ok()?;
        (name.trim() == "kswapd0").then(|| at.file_name().unwrap().to_str().unwrap().to_owned())
    });
    let thread = threads.last().expect("the kernel has this thread");
    does(&mut attacker, &format!("tool renice -n 1 -p {thread}"));
    let event = loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_sentinel().unwrap();
        if event.hook == SentinelHook::TaskSetnice {
            break event;
        }
    };
    assert_eq!(event.target.to_string(), thread, "{event}");
    assert_eq!(event.verdict, SentinelVerdict::Logged, "{event}");
    let mut hogs = host.test_process();
    let processors = std::thread::available_parallelism().unwrap();
    does(&mut hogs, &format!("hogs {processors}"));
    // The alarm arrives while they compute.
    attacks.with(APPEND, &mut attacker, &append, &events);
    assert!(!hogs.ends_within(std::time::Duration::ZERO).unwrap());
}

/// Another process takes what an agent needs: process ids, and descriptors of higher numbers.
fn an_agent_without_processes_and_descriptors_protects() {
    const APPEND: &str = "append to a protected file while the agent can start no process";
    const WITHOUT_DESCRIPTORS: &str = "append to a protected file while the agent can open no file";
    /// The lowest value of both.
    const PIDS: u32 = 301;
    const DESCRIPTORS: u32 = 64;
    /// EMFILE.
    const TOO_MANY_FILES: i32 = 24;
    let host = Host::new();
    std::fs::create_dir(host.path("protected")).unwrap();
    std::fs::write(host.path("protected/file"), "1").unwrap();
    let append = format!("append {}", host.path("protected/file").display());
    let (pids, descriptors) = (Sysctl::new("kernel/pid_max"), Sysctl::new("fs/nr_open"));
    let (mut attacker, mut attacks) = (host.test_process(), Attacks::default());
    attacks.without(APPEND, &mut attacker, &append);
    attacks.without(WITHOUT_DESCRIPTORS, &mut attacker, &append);
    let builder = Sentinel::builder("test");
    let sentinel = builder.start(&policy(host.dir())).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let hooks = sentinel.status().unwrap().hooks;

    let mut crowd = host.test_process();
    assert_eq!(attacker.ask(&format!("write {} {PIDS}", pids.0.display())).unwrap(), 0);
    let children = crowd.ask(&format!("repeat {PIDS} idle-child")).unwrap();
    assert!(children < u64::from(PIDS), "{children} children, and there is room for more");
    attacks.with(APPEND, &mut attacker, &append, &events);
    assert_eq!(sentinel.status().unwrap().degraded, []);
    drop(crowd);
    drop(pids);

    assert_eq!(
        attacker.ask(&format!("write {} {DESCRIPTORS}", descriptors.0.display())).unwrap(),
        0
    );
    let mut open = Vec::new();
    let mut take_all = || open.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
    take_all();
    attacks.with(WITHOUT_DESCRIPTORS, &mut attacker, &append, &events);
    // The agent reports it, and the rules stay in force.
    let started = Instant::now();
    let error = loop {
        take_all();
        match sentinel.status() {
            Err(error) => break error,
            // A thread of the agent has closed a descriptor meanwhile, and the self-tests need several.
            Ok(status) => assert_ne!(status.degraded, []),
        }
        assert!(started.elapsed() < PATIENCE, "a descriptor is left");
    };
    assert_eq!(error.errno(), Some(TOO_MANY_FILES));
    take_all();
    let error = sentinel.apply(&Policy::builder().compile().unwrap()).unwrap_err();
    assert_eq!(error.errno(), Some(TOO_MANY_FILES));
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
    drop((open, descriptors));
    assert_eq!(sentinel.status().unwrap().hooks.len(), hooks.len());
    assert_eq!(attacker.ask(&append).unwrap(), EPERM);
}
