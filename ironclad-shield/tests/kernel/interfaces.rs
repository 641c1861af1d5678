//! Needs root: interfaces that appear while Shield runs, in namespaces of the tests' own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ironclad_bpf::{BPFFS, PinDirectory};
use ironclad_core::abi::{Loss, Reason};
use ironclad_core::audit::AuditAction;
use ironclad_core::{Action, ErrorChain, RuleId};
use ironclad_lab::harness::{Test, skip};
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_lab::{Cgroup, Lab, Namespace, PacketSocket, test, warnings};
use ironclad_policy::socket::SocketAction;
use ironclad_policy::{AddressSet, CompiledPolicy, Policy};
use ironclad_shield::{
    InterfaceChange, InterfaceStatus, Shield, ShieldBuilder, ShieldErrorKind, XdpMode,
};

use crate::recorder::Recorder;
use crate::testbed::{PATIENCE, policy as policy_of, provisional, rule};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(an_interface_that_is_created_again_is_protected_again),
        test!(interfaces_that_match_a_pattern_are_protected_when_they_appear),
        test!(an_unprotected_interface_is_not_protected_again),
        test!(a_renamed_interface_stays_protected),
        test!(an_interface_stays_protected_when_another_takes_its_name),
        test!(an_interface_stays_protected_in_another_namespace),
        test!(an_agent_adopts_interfaces_that_were_renamed_and_moved),
        test!(a_moved_interface_whose_number_another_one_takes_stays_protected).on_host(),
        test!(an_interface_that_cannot_be_protected_is_reported),
        test!(a_veth_device_is_protected_in_native_mode).on_host(),
        test!(a_pattern_that_is_none_is_refused).on_host(),
        test!(a_policy_without_packet_rules_decides_at_an_interface_that_comes_later).on_host(),
    ]
}

struct Net {
    host: Namespace,
    peer: Namespace,
    lab: Lab,
}

impl Net {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (host, peer) = (lab.namespace("host").unwrap(), lab.namespace("peer").unwrap());
        Self { host, peer, lab }
    }

    /// An interface of the host with a peer of the same name.
    fn add(&self, name: &str) {
        self.lab.veth((&self.host, name), (&self.peer, name)).unwrap();
    }

    fn remove(&self, name: &str) {
        self.host.ip(&["link", "del", name]).unwrap();
    }

    /// An interface of the host whose peer has another name: one of a former interface's has its own.
    fn add_with_peer(&self, name: &str, peer: &str) {
        self.lab.veth((&self.host, name), (&self.peer, peer)).unwrap();
    }

    fn rename(&self, name: &str, now: &str) {
        self.host.ip(&["link", "set", name, "down"]).unwrap();
        self.host.ip(&["link", "set", name, "name", now]).unwrap();
        self.host.ip(&["link", "set", now, "up"]).unwrap();
    }

    /// A namespace that an interface of the host is moved to.
    fn move_away(&self, name: &str) -> Namespace {
        let aside = self.lab.namespace(&format!("aside-{name}")).unwrap();
        self.host.ip(&["link", "set", name, "netns", aside.name()]).unwrap();
        aside.ip(&["link", "set", name, "up"]).unwrap();
        aside
    }

    fn start(&self, builder: ShieldBuilder) -> Shield {
        self.host.run(|| builder.start(&policy())).unwrap().unwrap()
    }

    /// Whether Shield drops a packet that arrives at an interface.
    fn drops(&self, shield: &Shield, name: &str) -> bool {
        // The kernel sends of itself: the rule's packets are the test's alone.
        let count = || Some(shield.counters().unwrap().rule(RuleId(1))?.matched.packets);
        let dropped = || count().unwrap_or(0);
        let before = dropped();
        let injector = self.peer.run(|| PacketSocket::open(name)).unwrap().unwrap();
        let frame = Frame::v4("10.9.0.2", "10.9.0.1").payload(UDP, udp(1, 9, b"hello")).build();
        injector.send(&frame).unwrap();
        // A veth pair delivers at once, or from a thread of the kernel's.
        let start = Instant::now();
        while dropped() == before && start.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(1));
        }
        dropped() > before
    }
}

fn policy() -> CompiledPolicy {
    let set =
        AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["10.9.0.2/32".parse().unwrap()]);
    Policy::builder().set(set).compile().unwrap()
}

fn status(shield: &Shield, name: &str) -> Option<InterfaceStatus> {
    let all = shield.status().unwrap().interfaces;
    all.into_iter().find(|status| status.interface.name == name)
}

fn is_protected(shield: &Shield, name: &str) -> bool {
    status(shield, name).is_some_and(|status| status.alive)
}

fn until(is_done: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Generic XDP passes packets that tc(8) redirected: root in the peer's namespace sends past it.
fn a_veth_device_is_protected_in_native_mode() {
    let net = Net::new();
    net.add("veth0");
    let mtu = |mtu: &str| {
        for end in [&net.host, &net.peer] {
            end.ip(&["link", "set", "veth0", "mtu", mtu]).unwrap();
        }
    };
    net.peer.ip(&["link", "add", "aside", "type", "veth", "peer", "name", "sink"]).unwrap();
    net.peer.ip(&["link", "set", "aside", "up"]).unwrap();
    net.peer.exec("tc", &["qdisc", "add", "dev", "aside", "clsact"]).unwrap();
    let redirect = "filter add dev aside egress protocol all u32 match u32 0 0 action mirred egress redirect dev veth0";
    net.peer.exec("tc", &redirect.split(' ').collect::<Vec<_>>()).unwrap();
    let builder = || Shield::builder("veth").interface("veth0");

    let generic = || builder().mode(XdpMode::Generic).start(&policy()).unwrap();
    let (shield, said) = net.host.run(|| warnings(generic)).unwrap();
    assert!(said.contains("redirects to the peer"), "{said}");
    assert!(net.drops(&shield, "veth0") && !net.drops(&shield, "aside"), "the attack succeeds");
    drop(shield);
    // The driver refuses native mode.
    mtu("9000");
    let error = net.host.run(|| builder().start(&policy())).unwrap().unwrap_err();
    let said = ErrorChain::new(&error).to_string();
    assert!(said.contains("lower the MTU of the peer to 3,498"), "{said}");
    mtu("3498");
    let shield = net.start(builder());
    assert_eq!(status(&shield, "veth0").unwrap().mode, XdpMode::Native);
    assert!(net.drops(&shield, "veth0") && net.drops(&shield, "aside"));
}

fn an_interface_that_is_created_again_is_protected_again() {
    let net = Net::new();
    net.add("eth0");
    // Without the thread it is not.
    let shield = net.start(Shield::builder("again").interface("eth0").follow_interfaces(false));
    net.remove("eth0");
    net.add("eth0");
    assert!(!net.drops(&shield, "eth0") && !is_protected(&shield, "eth0"));
    drop(shield);

    let recorder = Arc::new(Recorder::default());
    let instance = format!("again-{}", std::process::id());
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
    let builder = || Shield::builder(&instance).interface("eth0").persistent(true);
    let shield = net.start(builder().audit(recorder.clone()));
    for gaps in 1..=3 {
        net.remove("eth0");
        net.add("eth0");
        until(|| status(&shield, "eth0").is_some_and(|it| it.gaps == gaps && it.alive));
        assert!(net.drops(&shield, "eth0"));
    }
    let actions = recorder.0.lock().unwrap().clone();
    let is_attach =
        |action: &&AuditAction| matches!(action, AuditAction::Attach { hook, .. } if hook == "xdp");
    assert_eq!(actions.iter().filter(is_attach).count(), 4);
    // Pinned: the next agent finds it.
    drop(shield);
    let shield = net.start(builder());
    assert!(net.drops(&shield, "eth0"));
    assert_eq!(shield.status().unwrap().interfaces.len(), 1);
    shield.stop().unwrap();
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
}

fn interfaces_that_match_a_pattern_are_protected_when_they_appear() {
    let net = Net::new();
    net.add("vm0");
    net.add("eth0");
    let builder = || Shield::builder("pattern").interface_pattern("vm*");
    // Without the thread only those that there are.
    let shield = net.start(builder().follow_interfaces(false));
    net.add("vm1");
    assert!(net.drops(&shield, "vm0"));
    assert!(!net.drops(&shield, "vm1") && !is_protected(&shield, "vm1"));
    drop(shield);
    let shield = net.start(builder());
    assert!(net.drops(&shield, "vm0") && net.drops(&shield, "vm1"));
    net.add("vm2");
    net.add("eth1");
    until(|| is_protected(&shield, "vm2"));
    assert!(net.drops(&shield, "vm2"));
    for name in ["eth0", "eth1"] {
        assert!(!net.drops(&shield, name) && status(&shield, name).is_none(), "{name}");
    }
    assert_eq!(status(&shield, "vm2").unwrap().gaps, 0);
}

/// Such a policy has no program for packets until an interface is protected.
fn a_policy_without_packet_rules_decides_at_an_interface_that_comes_later() {
    let net = Net::new();
    net.add("eth0");
    let cgroup = Cgroup::new("later").unwrap();
    let instance = format!("later-{}", std::process::id());
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
    let only = |id| policy_of([rule(id, SocketAction::Allow)]);
    let recorder = Arc::new(Recorder::default());
    let loads = || {
        let actions = std::mem::take(&mut *recorder.0.lock().unwrap());
        let is_load = |it: &&AuditAction| matches!(it, AuditAction::Load { program, .. } if program == "ic_policy");
        actions.iter().filter(is_load).count()
    };
    let start = |policy: &CompiledPolicy, interface: Option<&str>| {
        let builder = Shield::builder(&instance).cgroup(cgroup.dir()).persistent(true);
        let builder = interface.into_iter().fold(builder, ShieldBuilder::interface);
        net.host.run(|| builder.audit(recorder.clone()).start(policy)).unwrap().unwrap()
    };
    // Too short for IPv4: any policy drops it.
    let drops = |shield: &Shield| {
        let injector = net.peer.run(|| PacketSocket::open("eth0")).unwrap().unwrap();
        let frame = Frame::v4("10.9.0.2", "10.9.0.1").payload(UDP, udp(1, 9, b"")).build();
        let short = || shield.counters().unwrap().reason(Reason::Ip4Short).dropped.packets;
        let before = short();
        injector.send(&frame[..20]).unwrap();
        until(|| short() > before);
        assert_eq!(shield.counters().unwrap().loss(Loss::NoPolicy), 0);
    };

    let shield = start(&only(1), None);
    shield.apply(&only(2)).unwrap();
    assert_eq!(loads(), 0);
    net.host.run(|| shield.protect("eth0")).unwrap().unwrap();
    assert_eq!(loads(), 1);
    drops(&shield);
    shield.apply(&only(3)).unwrap();
    assert_eq!(loads(), 1);
    drops(&shield);
    net.host.run(|| shield.unprotect("eth0")).unwrap().unwrap();
    drop(shield);

    // The next agents adopt what has a program and what has none, of policies that they do not know.
    for id in [4, 5] {
        drop(start(&only(id), None));
        assert_eq!(loads(), 0);
    }
    let shield = start(&only(6), Some("eth0"));
    drops(&shield);
    // That of the start's own policy, and that of the policy which it would return to.
    assert_eq!(loads(), 2);
    // A deadline returns to a policy that was in force before the interface was protected.
    net.host.run(|| shield.unprotect("eth0")).unwrap().unwrap();
    drop(shield);
    let shield = start(&only(7), None);
    shield.apply_with(&only(8), provisional(Duration::from_secs(3600))).unwrap();
    assert_eq!(loads(), 0);
    net.host.run(|| shield.protect("eth0")).unwrap().unwrap();
    assert_eq!(loads(), 2);
    drops(&shield);
    shield.revert().unwrap();
    drops(&shield);
    assert_eq!(loads(), 0);
    shield.stop().unwrap();

    // A test run needs the program, too.
    let nothing = Policy::builder().compile().unwrap();
    let shield = Shield::builder("later").start_unattached(&nothing).unwrap();
    shield.test_run(&[0; 60], 1).unwrap();
    assert_eq!(shield.counters().unwrap().loss(Loss::NoPolicy), 0);
}

fn an_unprotected_interface_is_not_protected_again() {
    let net = Net::new();
    net.add("vm0");
    let shield = net.start(Shield::builder("released").interface_pattern("vm?"));
    assert!(net.drops(&shield, "vm0"));
    net.host.run(|| shield.unprotect("vm0").unwrap()).unwrap();
    net.add("vm1");
    until(|| is_protected(&shield, "vm1"));
    assert!(!net.drops(&shield, "vm0"));
    net.host.run(|| shield.protect("vm0").unwrap()).unwrap();
    net.remove("vm0");
    net.add("vm0");
    until(|| is_protected(&shield, "vm0"));
    assert!(net.drops(&shield, "vm0"));
}

fn a_renamed_interface_stays_protected() {
    let net = Net::new();
    net.add("vm0");
    let shield = net.start(Shield::builder("renamed").interface_pattern("vm*"));
    net.rename("vm0", "vm7");
    net.add("vm1");
    until(|| is_protected(&shield, "vm1"));
    assert!(net.drops(&shield, "vm0"));
    assert_eq!(shield.status().unwrap().unprotected, []);
}

/// The attack: the agent detached from the renamed interface.
fn an_interface_stays_protected_when_another_takes_its_name() {
    let net = Net::new();
    net.add("eth0");
    let recorder = Arc::new(Recorder::default());
    let builder = Shield::builder("taken").interface("eth0").audit(recorder.clone());
    let shield = net.start(builder.follow_interfaces(false));
    let refresh = || net.host.run(|| shield.refresh_interfaces().unwrap()).unwrap();
    assert_eq!(refresh(), []);
    net.rename("eth0", "real0");
    net.add_with_peer("eth0", "other");
    assert!(net.drops(&shield, "eth0") && !net.drops(&shield, "other"));
    let (interface, former) = ("real0".to_owned(), "eth0".to_owned());
    let renamed = InterfaceChange::Renamed { interface, former };
    let reattached =
        InterfaceChange::Reattached { interface: "eth0".to_owned(), mode: XdpMode::Native };
    assert_eq!(refresh(), [renamed, reattached]);
    assert_eq!(refresh(), []);
    assert!(net.drops(&shield, "eth0") && net.drops(&shield, "other"));
    let found = |name| status(&shield, name).map(|it| (it.alive, it.moved, it.gaps));
    assert_eq!(found("real0"), Some((true, false, 0)));
    assert_eq!(found("eth0"), Some((true, false, 1)));
    let actions = recorder.0.lock().unwrap().clone();
    let is_detach = |action: &&AuditAction| matches!(action, AuditAction::Detach { .. });
    let is_displaced = |action: &&AuditAction| matches!(action, AuditAction::Displaced { interface, change, .. } if interface == "eth0" && change.contains("real0"));
    assert_eq!(actions.iter().filter(is_detach).count(), 0);
    assert_eq!(actions.iter().filter(is_displaced).count(), 1);
    // Names that are exchanged.
    net.rename("eth0", "tmp0");
    net.rename("real0", "eth0");
    net.rename("tmp0", "real0");
    assert_eq!(refresh().len(), 2);
    assert_eq!(
        (found("eth0"), shield.status().unwrap().interfaces.len()),
        (Some((true, false, 1)), 2)
    );
    assert!(net.drops(&shield, "eth0") && net.drops(&shield, "other"));
    // By the name that it has, and no more.
    net.host.run(|| shield.unprotect("real0").unwrap()).unwrap();
    assert!(net.drops(&shield, "eth0") && !net.drops(&shield, "other"));
    net.host.run(|| shield.unprotect("eth0").unwrap()).unwrap();
    assert!(!net.drops(&shield, "eth0"));
    assert_eq!((refresh(), shield.status().unwrap().interfaces), (vec![], vec![]));
}

fn an_interface_stays_protected_in_another_namespace() {
    let net = Net::new();
    net.add("eth0");
    let recorder = Arc::new(Recorder::default());
    let shield = net.start(Shield::builder("moved").interface("eth0").audit(recorder.clone()));
    let aside = net.move_away("eth0");
    net.add_with_peer("eth0", "other");
    let interfaces = || shield.status().unwrap().interfaces;
    let count = |moved| interfaces().iter().filter(|it| it.alive && it.moved == moved).count();
    until(|| count(true) == 1 && count(false) == 1);
    assert!(net.drops(&shield, "eth0") && net.drops(&shield, "other"));
    let actions = recorder.0.lock().unwrap().clone();
    let is_displaced = |action: &AuditAction| matches!(action, AuditAction::Displaced { interface, change, .. } if interface == "eth0" && change.contains("namespace"));
    assert!(actions.iter().any(is_displaced));
    // Back again, under another name.
    aside.ip(&["link", "set", "eth0", "down"]).unwrap();
    aside.ip(&["link", "set", "eth0", "name", "back0"]).unwrap();
    aside.ip(&["link", "set", "back0", "netns", net.host.name()]).unwrap();
    net.host.ip(&["link", "set", "back0", "up"]).unwrap();
    until(|| is_protected(&shield, "back0") && count(true) == 0);
    assert!(net.drops(&shield, "eth0") && net.drops(&shield, "other"));
    // One that is removed elsewhere is forgotten: another has its name.
    net.host.ip(&["link", "set", "back0", "netns", aside.name()]).unwrap();
    until(|| count(true) == 1);
    aside.ip(&["link", "del", "back0"]).unwrap();
    net.add("eth1");
    until(|| interfaces().len() == 1 && is_protected(&shield, "eth0"));
    assert!(net.drops(&shield, "other"));
}

fn an_agent_adopts_interfaces_that_were_renamed_and_moved() {
    let net = Net::new();
    let instance = format!("displaced-{}", std::process::id());
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
    let names = ["eth0", "eth1"];
    names.iter().for_each(|name| net.add(name));
    let builder = || {
        let builder = Shield::builder(&instance).persistent(true);
        names.into_iter().fold(builder, ShieldBuilder::interface)
    };
    // No agent runs while it happens.
    drop(net.start(builder()));
    let displace = |round: &str| {
        net.rename("eth0", &format!("real{round}"));
        net.add_with_peer("eth0", &format!("a{round}"));
        let aside = net.move_away("eth1");
        net.add_with_peer("eth1", &format!("b{round}"));
        aside
    };
    let aside = displace("1");
    let every = |shield: &Shield, peers: &[&str]| {
        let unprotected: Vec<_> = peers.iter().filter(|peer| !net.drops(shield, peer)).collect();
        assert!(unprotected.is_empty(), "{unprotected:?}");
        assert_eq!(shield.status().unwrap().interfaces.len(), peers.len());
    };
    let shield = net.start(builder());
    every(&shield, &["eth0", "eth1", "a1", "b1"]);
    assert!(is_protected(&shield, "real1"));
    // Pinned, all of them, and found by an agent without changes meanwhile.
    drop(shield);
    let shield = net.start(builder());
    every(&shield, &["eth0", "eth1", "a1", "b1"]);
    // While it runs.
    drop(aside);
    net.add("eth2");
    until(|| shield.status().unwrap().interfaces.len() == 3);
    let aside = displace("2");
    until(|| shield.status().unwrap().interfaces.len() == 5);
    every(&shield, &["eth0", "a1", "b1", "a2", "b2"]);
    drop(shield);
    let shield = net.start(builder());
    every(&shield, &["eth0", "a1", "b1", "a2", "b2"]);
    drop(aside);
    shield.stop().unwrap();
    PinDirectory::purge(BPFFS.as_ref(), &instance).unwrap();
}

/// The kernel reports the number of a link's interface, and not its namespace.
fn a_moved_interface_whose_number_another_one_takes_stays_protected() {
    let net = Net::new();
    net.add("eth0");
    let builder = Shield::builder("number").interface("eth0").follow_interfaces(false);
    let shield = net.start(builder);
    let number = status(&shield, "eth0").unwrap().interface.index.to_string();
    let _aside = net.move_away("eth0");
    let peer = net.peer.name();
    let new =
        ["link", "add", "eth0", "index", &number, "type", "veth", "peer", "other", "netns", peer];
    net.host.ip(&new).unwrap();
    net.host.ip(&["link", "set", "eth0", "address", "02:00:00:00:00:01", "up"]).unwrap();
    net.peer.ip(&["link", "set", "other", "up"]).unwrap();
    let refresh = || net.host.run(|| shield.refresh_interfaces().unwrap()).unwrap();
    assert_eq!(refresh().len(), 2);
    assert_eq!(refresh(), []);
    let interfaces = shield.status().unwrap().interfaces;
    assert_eq!(interfaces.iter().map(|it| it.moved).collect::<Vec<_>>(), [false, true]);
    assert!(net.drops(&shield, "eth0") && net.drops(&shield, "other"));
}

fn an_interface_that_cannot_be_protected_is_reported() {
    let net = Net::new();
    let raw = ["link", "add", "vmraw", "type", "vxlan", "gpe", "external", "dstport", "4790"];
    if net.host.ip(&raw).is_err() {
        skip("this kernel has no `vxlan` interfaces");
    }
    let shield = net.start(Shield::builder("reported").interface_pattern("vm*"));
    let unprotected = || shield.status().unwrap().unprotected;
    let [one] = &*unprotected() else { panic!("{:?}", unprotected()) };
    assert_eq!(one.interface.name, "vmraw");
    assert!(one.error.contains("kind `vxlan`"), "{}", one.error);
    // It does not keep others from being protected.
    net.add("vm1");
    until(|| is_protected(&shield, "vm1"));
    assert_eq!(unprotected().len(), 1);
    net.remove("vmraw");
    until(|| unprotected().is_empty());
}

fn a_pattern_that_is_none_is_refused() {
    let net = Net::new();
    let builder = Shield::builder("none").interface_pattern("eth[");
    let error = net.host.run(|| builder.start(&policy())).unwrap().unwrap_err();
    assert_eq!(error.kind(), ShieldErrorKind::Pattern);
    assert!(error.to_string().starts_with("`eth[` is no pattern"), "{error}");
}
