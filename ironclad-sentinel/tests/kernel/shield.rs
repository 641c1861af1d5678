//! Shield under Sentinel.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::testbed::{EPERM, Host, PATIENCE, lsm, next_denied};
use ironclad_core::abi::SentinelHook;
use ironclad_core::{Action, RuleId};
use ironclad_hostile::object;
use ironclad_lab::harness::{Role, Test};
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, Lab, Namespace, PacketSocket};
use ironclad_lab::{role, test};
use ironclad_policy::socket::{SocketAction, SocketRule};
use ironclad_policy::{AddressSet, CompiledPolicy, Policy, PolicyPart, Protocol};
use ironclad_sentinel::{EventReceiver, Launch, Sentinel, SentinelBuilder};
use ironclad_shield::{Overflow, Shield, ShieldBuilder};
use libbpf_rs::query::{LinkInfoIter, MapInfoIter, ProgInfoIter};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(shield_is_protected_from_root_and_a_successor_adopts_both).in_machine().needs(&[lsm]),
        test!(adopted_pins_are_protected).in_machine().needs(&[lsm]),
        test!(an_interface_stays_protected_in_another_namespace).in_machine().needs(&[lsm]),
        test!(no_program_runs_before_shield).in_machine().needs(&[lsm]),
    ]
}

/// The directory of an agent in another process.
const AGENT: &str = "IRONCLAD_TEST_AGENT";
const CGROUP: &str = "IRONCLAD_TEST_CGROUP";
const HERE: &str = "10.9.0.1";
const BAD: &str = "10.9.0.2";
const WORSE: &str = "10.9.0.3";
const GOOD: &str = "10.9.0.4";
/// A connection that the policy denies to processes of the cgroup.
const THERE: &str = "connect udp 10.9.0.4:53";

/// An agent that follows orders.
pub(crate) const ROLE: Role = role!(agent);

fn agent() {
    let dir = PathBuf::from(std::env::var_os(AGENT).unwrap());
    let dir = dir.as_path();
    let say = |words: &str| {
        println!("@@ {words}");
        std::io::stdout().flush().unwrap();
    };
    let first = policy(&[BAD]);
    let sentinel = sentinel(dir).start(&first).unwrap();
    let shield = shield(dir, Path::new(&std::env::var_os(CGROUP).unwrap())).start(&first).unwrap();
    say(&format!("generation {}", shield.status().unwrap().generation));
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "apply" => {
                shield.apply(&policy(&[BAD, WORSE])).unwrap();
                say("applied");
            }
            "stop" => {
                shield.stop().unwrap();
                sentinel.stop().unwrap();
                say("stopped");
                return;
            }
            other => panic!("no order: {other}"),
        }
    }
}

fn instance(dir: &Path) -> String {
    dir.file_name().unwrap().to_string_lossy().replace('.', "_")
}

fn sentinel(dir: &Path) -> SentinelBuilder {
    Sentinel::builder(&instance(dir))
        .persistent(true)
        .unenforced([PolicyPart::Packets, PolicyPart::Sockets])
        .launched_by(Launch::Trusted)
        .state_dir(dir.join("state"))
}

fn shield(dir: &Path, cgroup: &Path) -> ShieldBuilder {
    Shield::builder(&instance(dir)).interface("eth0").cgroup(cgroup).persistent(true)
}

fn pins(dir: &Path) -> PathBuf {
    Path::new("/sys/fs/bpf/ironclad").join(instance(dir))
}

/// A policy that drops packets from `bad` addresses and denies port 53.
fn policy(bad: &[&str]) -> CompiledPolicy {
    let bad = bad.iter().map(|text| text.parse().unwrap());
    let rule = SocketRule::new(RuleId(2), "no names", SocketAction::Deny);
    Policy::builder()
        .set(AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(bad))
        .socket_rule(rule.protocol(Protocol::UDP).port(53))
        .compile()
        .unwrap()
}

/// A protected host and a peer, connected by a veth pair.
struct Net {
    host: Namespace,
    peer: Namespace,
    lab: Lab,
    here: UdpSocket,
    peers: Vec<(&'static str, UdpSocket)>,
}

impl Net {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (host, peer) = (lab.namespace("host").unwrap(), lab.namespace("peer").unwrap());
        lab.veth((&host, "eth0"), (&peer, "eth0")).unwrap();
        host.address("eth0", &format!("{HERE}/16")).unwrap();
        let bind = |addr: &str| UdpSocket::bind((addr.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let here = host.run(|| bind(HERE)).unwrap();
        here.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut peers = Vec::new();
        for addr in [BAD, WORSE, GOOD] {
            peer.address("eth0", &format!("{addr}/16")).unwrap();
            let socket = peer.run(|| bind(addr)).unwrap();
            socket.connect(here.local_addr().unwrap()).unwrap();
            peers.push((addr, socket));
        }
        Self { host, peer, lab, here, peers }
    }

    /// Whether a datagram from `src` arrives. A second datagram that always passes follows it on the same CPU,
    /// because each CPU has a queue of its own.
    fn passes(&self, src: &str) -> bool {
        let (all, mut first) = (sched_getaffinity(None).unwrap(), CpuSet::new());
        first.set(0);
        sched_setaffinity(None, &first).unwrap();
        let found = self.finds(src);
        sched_setaffinity(None, &all).unwrap();
        found
    }

    fn finds(&self, src: &str) -> bool {
        let send = |addr: &str| {
            let (_, socket) = self.peers.iter().find(|(known, _)| *known == addr).unwrap();
            socket.send(addr.as_bytes()).unwrap();
        };
        send(src);
        send(GOOD);
        let mut found = false;
        loop {
            let (_, from) = self.here.recv_from(&mut [0; 16]).unwrap();
            match from.ip().to_string().as_str() {
                GOOD => return found,
                other => found |= other == src,
            }
        }
    }
}

/// The BPF objects of the kernel.
#[derive(Default)]
struct Objects {
    maps: BTreeSet<u32>,
    programs: BTreeSet<u32>,
    links: BTreeSet<u32>,
    slots: u32,
}

impl Objects {
    fn all() -> Self {
        let mut this = Self::default();
        for map in MapInfoIter::default() {
            this.maps.insert(map.id);
            if map.name.as_encoded_bytes() == b"ic_slots" {
                this.slots = map.id;
            }
        }
        this.programs = ProgInfoIter::default().map(|it| it.id).collect();
        this.links = LinkInfoIter::default().map(|it| it.id).collect();
        this
    }

    fn since(&self) -> Self {
        let all = Self::all();
        let new = |all: &BTreeSet<u32>, old: &BTreeSet<u32>| all - old;
        Self {
            maps: new(&all.maps, &self.maps),
            programs: new(&all.programs, &self.programs),
            links: new(&all.links, &self.links),
            slots: all.slots,
        }
    }
}

fn bpftool(attacker: &mut TestProcess, words: &str) -> u64 {
    attacker.ask(&format!("tool bpftool {words}")).unwrap()
}

fn slot_is_emptied(attacker: &mut TestProcess, objects: &Objects) -> bool {
    let emptied = (0..2).filter(|slot| {
        let slots = objects.slots;
        bpftool(attacker, &format!("map delete id {slots} key {slot} 0 0 0")) == 0
    });
    emptied.count() > 0
}

/// Asserts that an order reaches its object, if that exists still: the kernel releases objects of probes later.
fn is_reached(attacker: &mut TestProcess, order: &str, is_there: impl Fn(&Objects) -> bool) {
    assert!(attacker.ask(order).unwrap() == 0 || !is_there(&Objects::all()), "{order}");
}

/// Asserts that no object can be opened by its id.
fn nothing_is_reached(
    attacker: &mut TestProcess,
    events: Option<&EventReceiver>,
    objects: &Objects,
) {
    type Kind = fn(&Objects) -> &BTreeSet<u32>;
    let mut gone = BTreeSet::new();
    let mut refused = |order: &str, kind: Kind, id: u32, hook: SentinelHook| {
        assert_ne!(attacker.ask(order).unwrap(), 0, "{order}");
        let Some(events) = events else { return };
        // The kernel releases replaced objects later. An object that does not exist raises no alarm; whether it
        // existed still is not known.
        if !kind(&Objects::all()).contains(&id) {
            println!("{order}: gone");
            gone.insert(id);
            return;
        }
        let mut event = next_denied(events);
        while event.target != id && gone.contains(&event.target) {
            event = next_denied(events);
        }
        assert_eq!(event.hook, hook, "{order}: {event}");
        // The target of a link is its descriptor.
        assert!(hook == SentinelHook::Bpf || event.target == id, "{order}: {event}");
    };
    assert!(objects.maps.len() > 10 && objects.programs.len() > 5 && objects.links.len() > 5);
    for id in &objects.maps {
        refused(&format!("map-by-id {id} 0"), |all| &all.maps, *id, SentinelHook::BpfMap);
    }
    for id in &objects.programs {
        refused(&format!("program-by-id {id}"), |all| &all.programs, *id, SentinelHook::BpfProg);
    }
    for id in &objects.links {
        // The existence of a link is no secret.
        let order = format!("detach-link-by-id {id}");
        refused(&order, |all| &all.links, *id, SentinelHook::Bpf);
    }
}

struct Agent {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Agent {
    fn start(net: &Net, dir: &Path, cgroup: &Path) -> Self {
        let mut command = ROLE.command();
        command.env(AGENT, dir).env(CGROUP, cgroup).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = net.host.run(|| command.spawn()).unwrap().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it has ended");
            if let Some((_, words)) = line.split_once("@@ ") {
                return words.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, words: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{words}").unwrap();
        self.says()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host with processes in a cgroup, one of which has left it.
struct Scene {
    host: Host,
    net: Net,
    cgroup: Cgroup,
    attacker: TestProcess,
    bound: TestProcess,
}

impl Scene {
    fn new() -> Self {
        let (host, net, cgroup) = (Host::new(), Net::new(), Cgroup::new("bound").unwrap());
        let own = std::env::current_exe().unwrap();
        let inside = || net.host.run(|| TestProcess::start(&cgroup, &own)).unwrap().unwrap();
        let attacker = net.host.run(|| host.test_process()).unwrap();
        let bound = inside();
        Self { host, net, cgroup, attacker, bound }
    }

    /// An order that moves a process out of the cgroup.
    fn leave(&self) -> String {
        let root = self.cgroup.dir().parent().unwrap().display();
        format!("write {root}/cgroup.procs {}", self.bound.pid())
    }

    fn is_bound(&mut self) -> bool {
        !self.net.passes(BAD) && self.bound.ask(THERE).unwrap() == EPERM
    }
}

fn shield_is_protected_from_root_and_a_successor_adopts_both() {
    let mut scene = Scene::new();
    let (dir, group) = (scene.host.dir().to_owned(), scene.cgroup.dir().to_owned());
    let remove = format!("remove-all {}", pins(&dir).display());
    assert!(scene.net.passes(BAD) && scene.bound.ask(THERE).unwrap() == 0, "unprotected");

    // Without Sentinel, root bypasses Shield.
    let before = Objects::all();
    // Its thread would attach again what is detached.
    let builder = shield(&dir, &group).follow_interfaces(false).follow_paths(false);
    let shield_alone = scene.net.host.run(|| builder.start(&policy(&[BAD]))).unwrap().unwrap();
    assert!(scene.is_bound());
    let objects = before.since();
    for id in &objects.maps {
        let order = format!("map-by-id {id} 0");
        is_reached(&mut scene.attacker, &order, |all| all.maps.contains(id));
    }
    for id in &objects.programs {
        let order = format!("program-by-id {id}");
        is_reached(&mut scene.attacker, &order, |all| all.programs.contains(id));
    }
    assert!(slot_is_emptied(&mut scene.attacker, &objects));
    assert!(scene.net.passes(BAD), "its policy is gone");
    shield_alone.apply(&policy(&[BAD, WORSE])).unwrap();
    assert!(!scene.net.passes(BAD));
    let leave = scene.leave();
    assert_eq!(scene.attacker.ask(&leave).unwrap(), 0);
    assert_eq!(scene.bound.ask(THERE).unwrap(), 0, "it has left");
    std::fs::write(group.join("cgroup.procs"), scene.bound.pid().to_string()).unwrap();
    assert!(scene.is_bound());
    // Links of tracepoints cannot be detached.
    for id in &objects.links {
        scene.attacker.ask(&format!("detach-link-by-id {id}")).unwrap();
    }
    assert!(scene.net.passes(BAD) && scene.bound.ask(THERE).unwrap() == 0, "detached");
    assert_eq!(scene.attacker.ask(&remove).unwrap(), 0);
    drop(shield_alone);

    // Sentinel first, then Shield: its objects are protected from the start.
    let first = sentinel(&dir).start(&policy(&[BAD])).unwrap();
    let (pump, events) = first.events(1 << 14, Overflow::DropNewest).unwrap();
    let before = Objects::all();
    let builder = shield(&dir, &group);
    let protected = scene.net.host.run(|| builder.start(&policy(&[BAD]))).unwrap().unwrap();
    let (_reports, reported) = protected.events(1024, Overflow::DropNewest).unwrap();
    assert!(scene.is_bound() && scene.net.passes(WORSE));
    let objects = before.since();
    while events.try_recv().is_some() {}
    nothing_is_reached(&mut scene.attacker, Some(&events), &objects);
    attacks_fail(&mut scene, &dir);
    assert!(scene.is_bound());
    // The agent may change the policy.
    protected.apply(&policy(&[BAD, WORSE])).unwrap();
    assert!(scene.is_bound() && !scene.net.passes(WORSE));
    reported.recv_timeout(PATIENCE).unwrap();
    while reported.try_recv().is_some() {}
    assert!(scene.is_bound());
    reported.recv_timeout(PATIENCE).expect("events go on");
    assert!(protected.counters().unwrap().dropped().packets > 0);
    drop((protected, reported, pump, events, first));

    // Without an agent.
    let pinned = Objects { slots: objects.slots, ..before.since() };
    nothing_is_reached(&mut scene.attacker, None, &pinned);
    attacks_fail(&mut scene, &dir);
    assert!(scene.is_bound() && !scene.net.passes(WORSE));

    // A killed agent, and a successor that adopts both instances.
    let mut agent = Agent::start(&scene.net, &dir, &group);
    assert_eq!(agent.says(), "generation 3", "the first policy again");
    assert!(scene.is_bound() && scene.net.passes(WORSE));
    assert_eq!(agent.ask("apply"), "applied");
    let pid = agent.child.id();
    assert_eq!(scene.attacker.ask(&format!("kill {pid} 9")).unwrap(), EPERM);
    drop(agent);
    attacks_fail(&mut scene, &dir);
    assert!(scene.is_bound() && !scene.net.passes(WORSE));
    let mut agent = Agent::start(&scene.net, &dir, &group);
    assert!(agent.says().starts_with("generation "));
    attacks_fail(&mut scene, &dir);
    assert!(scene.is_bound());
    assert_eq!(agent.ask("stop"), "stopped");
    drop(agent);
    assert!(scene.net.passes(BAD) && scene.bound.ask(THERE).unwrap() == 0);
    assert_eq!(scene.attacker.ask(&leave).unwrap(), 0);
}

/// Attacks by pins, which succeed without Sentinel, and attacks that the kernel refuses by itself.
fn attacks_fail(scene: &mut Scene, dir: &Path) {
    let pins = pins(dir);
    let leave = scene.leave();
    let attacker = &mut scene.attacker;
    for order in [
        format!("remove-all {}", pins.display()),
        format!("list {}", pins.display()),
        format!("unlink {}/v{}/ic_xdp", pins.display(), ironclad_core::abi::VERSION),
        format!("rename {} {0}-gone", pins.display()),
        leave,
    ] {
        assert_eq!(attacker.ask(&order).unwrap(), EPERM, "{order}");
    }
    let slots = pins.join(format!("v{}/ic_slots", ironclad_core::abi::VERSION));
    for tool in [
        format!("rm -rf {}", pins.display()),
        format!("bpftool map delete pinned {} key 0 0 0 0", slots.display()),
        format!("bpftool map dump pinned {}", slots.display()),
        "ip link set dev eth0 xdp off".to_owned(),
        "ip link set dev eth0 xdpdrv off".to_owned(),
        "bpftool net detach xdp dev eth0".to_owned(),
    ] {
        assert_ne!(attacker.ask(&format!("tool {tool}")).unwrap(), 0, "{tool}");
    }
}

fn adopted_pins_are_protected() {
    let mut scene = Scene::new();
    let (dir, group) = (scene.host.dir().to_owned(), scene.cgroup.dir().to_owned());
    let policy = policy(&[BAD]);
    let start = || shield(&dir, &group).start(&policy).unwrap();
    let before = Objects::all();
    drop(scene.net.host.run(start).unwrap());
    let pinned = before.since();
    let sentinel = sentinel(&dir).start(&policy).unwrap();
    let adopted = scene.net.host.run(|| sentinel.protect_opened(start)).unwrap();
    assert!(scene.is_bound());
    let (_pump, events) = sentinel.events(1 << 14, Overflow::DropNewest).unwrap();
    let own = sentinel.map_ids();
    let programs: BTreeSet<_> = sentinel.program_ids().collect();
    let all = before.since();
    assert!(pinned.maps.intersection(&all.maps).count() > 10, "they are the same");
    let objects = Objects { maps: &all.maps - &own, programs: &all.programs - &programs, ..all };
    nothing_is_reached(&mut scene.attacker, Some(&events), &objects);
    attacks_fail(&mut scene, &dir);
    assert!(scene.is_bound());
    adopted.stop().unwrap();
    sentinel.stop().unwrap();
    assert!(scene.net.passes(BAD));
}

fn an_interface_stays_protected_in_another_namespace() {
    let mut scene = Scene::new();
    let (dir, group) = (scene.host.dir().to_owned(), scene.cgroup.dir().to_owned());
    let third = scene.net.lab.namespace("third").unwrap();
    let mut elsewhere = third.run(|| scene.host.test_process()).unwrap();
    let policy = policy(&[BAD]);
    let sentinel = sentinel(&dir).start(&policy).unwrap();
    let start = || shield(&dir, &group).start(&policy).unwrap();
    let shield = scene.net.host.run(start).unwrap();
    assert!(scene.is_bound());
    let is_alive = |shield: &Shield| shield.status().unwrap().interfaces[0].alive;
    let dropped = |shield: &Shield| shield.counters().unwrap().dropped().packets;
    let injector = scene.net.peer.run(|| PacketSocket::open("eth0")).unwrap().unwrap();
    let frame = Frame::v4(BAD, HERE).payload(UDP, udp(1, 9, b"moved")).build();

    let order = format!("tool ip link set dev eth0 netns {}", elsewhere.pid());
    assert_eq!(scene.attacker.ask(&order).unwrap(), 0);
    assert_eq!(elsewhere.ask("tool ip link set dev eth0 up").unwrap(), 0);
    let (before, until) = (dropped(&shield), Instant::now() + PATIENCE);
    while dropped(&shield) == before {
        assert!(Instant::now() < until, "it is not protected there");
        // Fails until the interface is up.
        let _ = injector.send(&frame);
    }
    assert!(is_alive(&shield));
    assert_ne!(elsewhere.ask("tool ip link set dev eth0 xdp off").unwrap(), 0);
    assert_eq!(elsewhere.ask("tool ip link del dev eth0").unwrap(), 0);
    assert!(!is_alive(&shield));
    shield.stop().unwrap();
    sentinel.stop().unwrap();
}

/// Filters of tc(8) run after XDP, and an interface has one XDP program.
fn no_program_runs_before_shield() {
    let mut scene = Scene::new();
    let (dir, group) = (scene.host.dir().to_owned(), scene.cgroup.dir().to_owned());
    let (program, filter) = (dir.join("pass.o"), dir.join("pass.filter"));
    std::fs::write(&program, object("unused_function")).unwrap();
    // One instruction of classic BPF: all of the packet matches.
    std::fs::write(&filter, "1,6 0 0 4294967295").unwrap();
    let tc = |words: &str| format!("tool tc {words}");
    let xdp = |mode: &str| {
        format!("tool ip -force link set dev eth0 {mode} obj {} sec xdp", program.display())
    };
    for mode in ["xdpgeneric", "xdpdrv"] {
        assert_eq!(scene.attacker.ask(&xdp(mode)).unwrap(), 0, "{mode}");
        let off = format!("tool ip link set dev eth0 {mode} off");
        assert_eq!(scene.attacker.ask(&off).unwrap(), 0, "{off}");
    }
    let policy = policy(&[BAD]);
    let sentinel = sentinel(&dir).start(&policy).unwrap();
    let start = || shield(&dir, &group).start(&policy).unwrap();
    let shield = scene.net.host.run(start).unwrap();
    assert!(scene.is_bound());
    let add = format!(
        "filter add dev eth0 ingress prio 1 bpf bytecode-file {} flowid 1:1",
        filter.display()
    );
    for order in [tc("qdisc add dev eth0 clsact"), tc(&add)] {
        assert_eq!(scene.attacker.ask(&order).unwrap(), 0, "{order}");
    }
    assert!(scene.is_bound() && scene.net.passes(WORSE));
    for mode in ["xdpgeneric", "xdpdrv", "xdp"] {
        assert_ne!(scene.attacker.ask(&xdp(mode)).unwrap(), 0, "{mode}");
    }
    assert!(scene.is_bound());
    shield.stop().unwrap();
    sentinel.stop().unwrap();
    assert!(scene.net.passes(BAD));
}
