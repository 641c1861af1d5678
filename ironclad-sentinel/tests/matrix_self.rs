//! The agent itself: its process, its maps and programs, and who is entitled.

mod host;

use std::os::fd::AsFd;

use host::{EPERM, Host, is_without_lsm, next_denied};
use ironclad_bpf::shield::{Shared, SharedOptions};
use ironclad_core::abi::{SentinelHook, SentinelVerdict};
use ironclad_lab::Cgroup;
use ironclad_policy::Policy;
use ironclad_sentinel::{Overflow, Sentinel};

/// Only for the other tests: a process that does what they say.
#[test]
fn talker() {
    host::serve();
}

/// SIGURG, which nobody minds.
const URGENT: i32 = 23;

#[test]
fn nobody_lays_hands_on_the_agent() {
    if is_without_lsm("nobody_lays_hands_on_the_agent") {
        return;
    }
    let host = Host::new();
    let mut attacker = host.talker();
    let other = host.talker();
    let attacks = [
        ("write /proc/PID/oom_score_adj 1000", SentinelHook::FileOpen),
        ("read-some /proc/PID/auxv", SentinelHook::FileOpen),
        ("read-some /proc/PID/task/PID/maps", SentinelHook::FileOpen),
        ("kill PID 23", SentinelHook::TaskKill),
        ("trace PID", SentinelHook::PtraceAccessCheck),
        ("read-memory PID", SentinelHook::PtraceAccessCheck),
        ("open-memory PID", SentinelHook::FileOpen),
        ("read-link /proc/PID/exe", SentinelHook::PtraceAccessCheck),
        ("read-some /proc/PID/maps", SentinelHook::FileOpen),
        ("read-some /proc/PID/environ", SentinelHook::FileOpen),
        ("limit PID", SentinelHook::TaskSetrlimit),
        ("bind-to-first PID", SentinelHook::TaskSetscheduler),
        ("prefer-others-to PID", SentinelHook::TaskSetnice),
    ];
    let agent = std::process::id();
    // Of another process: the agent would bear the marks of it.
    for (attack, _) in attacks {
        let order = attack.replace("PID", &other.pid().to_string());
        assert_eq!(attacker.ask(&order).unwrap(), 0, "{order}");
    }
    assert_eq!(attacker.ask(&format!("kill {agent} {URGENT}")).unwrap(), 0);
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for (attack, hook) in attacks {
        let order = attack.replace("PID", &agent.to_string());
        // Some callers of the hook have a number of their own.
        let answer = attacker.ask(&order).unwrap();
        assert!(answer == EPERM || answer == 13, "{order}: {answer}");
        let event = next_denied(&events);
        assert_eq!((event.hook, event.pid), (hook, attacker.pid()), "{order}: {event}");
        while events.try_recv().is_some() {}
    }
    for name in ["stat", "status", "cmdline", "cgroup", "mountinfo", "oom_score_adj"] {
        assert_eq!(attacker.ask(&format!("read /proc/{agent}/{name}")).unwrap(), 0, "{name}");
    }
    // Who is nobody's agent may be traced; whether the agent is there may be asked.
    assert_eq!(attacker.ask(&format!("read-memory {}", other.pid())).unwrap(), 0);
    assert_eq!(attacker.ask(&format!("kill {agent} 0")).unwrap(), 0);
    drop(sentinel);
    assert_eq!(attacker.ask(&format!("kill {agent} {URGENT}")).unwrap(), 0);
}

/// Nobody moves it to where it is frozen or killed, nor freezes where it is.
#[test]
fn control_groups_do_not_reach_the_agent() {
    if is_without_lsm("control_groups_do_not_reach_the_agent") {
        return;
    }
    let host = Host::new();
    let around = Cgroup::new("around").unwrap();
    let own = around.child("agent").unwrap();
    let trap = Cgroup::new("trap").unwrap();
    let agent = std::process::id();
    let mut attacker = host.talker();
    let mut other = host.talker();
    let write = |path: &std::path::Path, name: &str, text: &str| {
        format!("write {} {text}", path.join(name).display())
    };
    // Another process can be moved and frozen.
    let moved = write(trap.dir(), "cgroup.procs", &other.pid().to_string());
    for order in
        [&moved, &write(trap.dir(), "cgroup.freeze", "1"), &write(trap.dir(), "cgroup.freeze", "0")]
    {
        assert_eq!(attacker.ask(order).unwrap(), 0, "{order}");
    }
    assert_eq!(other.ask("kill 1 0").unwrap(), 0);
    std::fs::write(own.dir().join("cgroup.procs"), "0").unwrap();
    let runtime = host.program("runtime");
    let builder = Sentinel::builder("test").scratch(host.dir()).group_manager(&runtime);
    let sentinel = builder.start(&Policy::builder().compile().unwrap()).unwrap();
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let home = std::path::Path::new(own.dir()).parent().unwrap().parent().unwrap();
    for order in [
        write(trap.dir(), "cgroup.procs", &agent.to_string()),
        write(trap.dir(), "cgroup.procs", &other.pid().to_string()),
        write(home, "cgroup.procs", &agent.to_string()),
        write(own.dir(), "cgroup.freeze", "1"),
        write(around.dir(), "cgroup.freeze", "1"),
        write(around.dir(), "cgroup.max.depth", "1"),
        write(around.dir(), "cgroup.threads", "1"),
        format!("mkdir {}/below", own.dir().display()),
        format!("chmod {}/cgroup.procs", own.dir().display()),
        format!("rename {} {}", around.dir().display(), home.join("gone").display()),
    ] {
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
        assert_eq!(next_denied(&events).pid, attacker.pid(), "{order}");
    }
    // What belongs to others is theirs.
    assert_eq!(attacker.ask(&write(trap.dir(), "cgroup.freeze", "1")).unwrap(), 0);
    assert_eq!(attacker.ask(&write(trap.dir(), "cgroup.freeze", "0")).unwrap(), 0);
    let mut manager = host.talker_by(&runtime);
    assert_eq!(manager.ask(&moved).unwrap(), 0);
    drop(sentinel);
    std::fs::write(home.join("cgroup.procs"), "0").unwrap();
}

#[test]
fn signals_by_way_of_files_and_counters_do_not_reach_the_agent() {
    if is_without_lsm("signals_by_way_of_files_and_counters_do_not_reach_the_agent") {
        return;
    }
    let host = Host::new();
    let (mut attacker, other) = (host.talker(), host.talker());
    let agent = std::process::id();
    let signal = |pid: u32| format!("signal-by-file {pid} {URGENT}");
    let count = |pid: u32| format!("count {pid}");
    assert_eq!(attacker.ask(&signal(other.pid())).unwrap(), 0);
    assert_eq!(attacker.ask(&count(other.pid())).unwrap(), 0);
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // The kernel tells the sender nothing.
    assert_eq!(attacker.ask(&signal(agent)).unwrap(), 0);
    let event = next_denied(&events);
    assert_eq!((event.hook, event.target), (SentinelHook::FileSendSigiotask, agent), "{event}");
    assert_eq!(event.detail, URGENT as u32);
    assert_ne!(attacker.ask(&count(agent)).unwrap(), 0);
    // The ends of the pipe send some more when they close.
    while next_denied(&events).hook != SentinelHook::PerfEventAlloc {}
    assert_eq!(attacker.ask(&count(other.pid())).unwrap(), 0);
    assert_eq!(attacker.ask("open-to-write /proc/sysrq-trigger").unwrap(), EPERM);
    drop(sentinel);
    assert_eq!(attacker.ask("open-to-write /proc/sysrq-trigger").unwrap(), 0);
}

#[test]
fn maps_and_programs_are_out_of_reach() {
    if is_without_lsm("maps_and_programs_are_out_of_reach") {
        return;
    }
    let host = Host::new();
    let mut attacker = host.talker();
    let before = Shared::load(SharedOptions::default()).unwrap();
    let tool = |attacker: &mut ironclad_lab::talk::Talker, words: &str| {
        attacker.ask(&format!("tool bpftool {words}")).unwrap()
    };
    let map = before.reasons.info().id;
    let update = format!("map update id {map} key 0 0 0 0 value hex");
    // One value, for each processor.
    let update = format!("{update}{}", " 00".repeat(32));
    let dump = format!("map dump id {map}");
    let program = format!("prog dump xlated id {}", before.dispatcher().info().id);
    for words in [&update, &dump, &program] {
        assert_eq!(tool(&mut attacker, words), 0, "{words}");
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    // Made before: not guarded until that is said.
    assert_eq!(tool(&mut attacker, &dump), 0);
    sentinel.guard([before.reasons.as_fd()], [before.dispatcher()]).unwrap();
    for (words, hook) in [
        (&update, SentinelHook::BpfMap),
        (&dump, SentinelHook::BpfMap),
        (&program, SentinelHook::BpfProg),
    ] {
        assert_ne!(tool(&mut attacker, words), 0, "{words}");
        assert_eq!(next_denied(&events).hook, hook, "{words}");
    }
    // Made since: guarded from the first moment.
    let after = Shared::load(SharedOptions::default()).unwrap();
    let map = after.reasons.info().id;
    assert_ne!(tool(&mut attacker, &format!("map dump id {map}")), 0);
    assert_eq!(next_denied(&events).target, map);
    after.reasons.lookup_all(&0).unwrap();
    // Sentinel's own.
    for id in sentinel.map_ids() {
        assert_ne!(tool(&mut attacker, &format!("map dump id {id}")), 0, "{id}");
        assert_eq!(next_denied(&events).target, id);
    }
    let own: Vec<_> = sentinel.program_ids().collect();
    assert!(own.len() > 20);
    for id in own {
        assert_ne!(tool(&mut attacker, &format!("prog dump xlated id {id}")), 0, "{id}");
        assert_eq!(next_denied(&events).target, id);
    }
    // Others' maps are theirs.
    let name = format!("/sys/fs/bpf/test-{}", std::process::id());
    let create = format!("map create {name} type array key 4 value 4 entries 1 name other");
    assert_eq!(tool(&mut attacker, &create), 0);
    assert_eq!(tool(&mut attacker, &format!("map dump pinned {name}")), 0);
    std::fs::remove_file(name).unwrap();
    drop(sentinel);
    assert_eq!(tool(&mut attacker, &dump), 0);
}

#[test]
fn a_secret_entitles_once_and_whom_it_is_for() {
    if is_without_lsm("a_secret_entitles_once_and_whom_it_is_for") {
        return;
    }
    let host = Host::new();
    let own = std::env::current_exe().unwrap();
    let mut agent = host.talker();
    let mut copy = host.talker_by(&host.program("copy"));
    let file = host.path("file");
    std::fs::write(&file, "1").unwrap();
    let append = format!("append {}", file.display());
    let rule = ironclad_policy::file::FileRule::new(
        ironclad_core::RuleId(1),
        "one",
        ironclad_policy::file::FileAction::Deny,
    );
    let policy = Policy::builder().file_rule(rule.file(&file)).compile().unwrap();
    let sentinel = host.start(&policy);
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    let hello = |secret: &ironclad_sentinel::Secret| {
        let words: Vec<String> = secret
            .as_bytes()
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()).to_string())
            .collect();
        format!("hello {}", words.join(" "))
    };
    let presented = || loop {
        let event = events.recv_timeout(host::PATIENCE).unwrap().into_sentinel().unwrap();
        if event.hook == SentinelHook::TaskPrctl && event.pid != std::process::id() {
            return event.verdict;
        }
    };
    // The agent's program is not the agent, nor is a guess.
    assert_eq!(agent.ask(&append).unwrap(), EPERM);
    let guess = ironclad_sentinel::Secret::new().unwrap();
    agent.ask(&hello(&guess)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Refused);
    assert_eq!(agent.ask(&append).unwrap(), EPERM);
    // A copy of it is another program, which does not use the secret up.
    let secret = sentinel.admit(&own).unwrap();
    copy.ask(&hello(&secret)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Refused);
    assert_eq!(copy.ask(&append).unwrap(), EPERM);
    agent.ask(&hello(&secret)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Granted);
    assert_eq!(agent.ask(&append).unwrap(), 0);
    // Once.
    let mut second = host.talker();
    second.ask(&hello(&secret)).unwrap();
    assert_eq!(presented(), SentinelVerdict::Refused);
    assert_eq!(second.ask(&append).unwrap(), EPERM);
    // Neither children nor what it becomes are entitled; it itself is.
    assert_eq!(agent.ask(&format!("child {append}")).unwrap(), EPERM);
    assert_eq!(agent.ask(&format!("fork {} {append}", own.display())).unwrap(), EPERM);
    assert_eq!(agent.ask(&append).unwrap(), 0);
    assert_eq!(agent.ask(&format!("exec {}", own.display())).unwrap(), 0);
    assert_eq!(agent.ask(&append).unwrap(), EPERM);
}

#[test]
fn programs_that_could_undo_it_are_not_loaded() {
    if is_without_lsm("programs_that_could_undo_it_are_not_loaded") {
        return;
    }
    let host = Host::new();
    let mut attacker = host.talker();
    // Types by their numbers: LSM and tracing want more than this to load; what is asked first is the
    // gate.
    let load = |attacker: &mut ironclad_lab::talk::Talker, kind: u32| {
        attacker.ask(&format!("load {kind}")).unwrap()
    };
    const SOCKET_FILTER: u32 = 1;
    const KPROBE: u32 = 2;
    const TRACEPOINT: u32 = 5;
    const RAW_TRACEPOINT: u32 = 17;
    const TRACING: u32 = 26;
    const STRUCT_OPS: u32 = 27;
    const EXT: u32 = 28;
    const LSM: u32 = 29;
    for kind in [SOCKET_FILTER, KPROBE, TRACEPOINT, RAW_TRACEPOINT] {
        assert_eq!(load(&mut attacker, kind), 0, "{kind}");
    }
    for kind in [TRACING, STRUCT_OPS, EXT, LSM] {
        assert_ne!(load(&mut attacker, kind), EPERM, "{kind}");
    }
    let sentinel = host.start(&Policy::builder().compile().unwrap());
    let (_pump, events) = sentinel.events(1024, Overflow::DropNewest).unwrap();
    for kind in [KPROBE, TRACEPOINT, RAW_TRACEPOINT, TRACING, STRUCT_OPS, EXT, LSM] {
        assert_eq!(load(&mut attacker, kind), EPERM, "{kind}");
        let event = next_denied(&events);
        assert_eq!((event.hook, event.target), (SentinelHook::Bpf, kind), "{event}");
    }
    // The rest is told of.
    assert_eq!(load(&mut attacker, SOCKET_FILTER), 0);
    let event = loop {
        let event = events.recv_timeout(host::PATIENCE).unwrap().into_sentinel().unwrap();
        if event.pid == attacker.pid() {
            break event;
        }
    };
    assert_eq!((event.verdict, event.target), (SentinelVerdict::Logged, SOCKET_FILTER), "{event}");
}
