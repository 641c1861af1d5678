//! Needs root: real interfaces, in namespaces of the tests' own.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ironclad_core::abi::{Loss, Reason};
use ironclad_core::audit::AuditAction;
use ironclad_core::{Action, Cidr, Protocol, RuleId, SocketVerdict, Verdict, WallTime};
use ironclad_events::decode;
use ironclad_lab::packet::{Frame, TCP, UDP, tcp, udp};
use ironclad_lab::{Cgroup, Lab, Namespace, PacketSocket};
use ironclad_policy::document::Document;
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::socket::Direction;
use ironclad_policy::{AddressSet, CompiledPolicy, Policy, TupleRule};
use ironclad_shield::{
    Interface, InterfaceChange, Overflow, PolicyPart, Record, Shield, ShieldBuilder,
    ShieldErrorKind, XdpMode,
};

use crate::recorder::Recorder;
use crate::testbed::provisional;
use ironclad_lab::harness::{Role, Test, is_in_machine};
use ironclad_lab::{role, test};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(blocked_peers_do_not_reach_a_socket),
        test!(generic_mode_drops_too),
        test!(a_gateway_gets_through_deny_all),
        test!(a_malformed_packet_that_the_kernel_accepts_meets_its_tuple),
        test!(no_packet_slips_through_a_swap),
        test!(a_provisional_policy_is_confirmed_reverted_or_expires),
        test!(drops_outlive_a_killed_agent_and_the_next_adopts_without_a_gap),
        test!(a_deadline_holds_without_an_agent),
        test!(the_next_agent_confirms_or_reverts_a_provisional_policy),
        test!(events_are_sampled_and_every_loss_is_counted),
        test!(an_event_is_described_by_names).on_host(),
        test!(an_event_of_a_replaced_policy_gets_no_other_rule).on_host(),
        test!(a_full_ring_loses_events_and_not_verdicts),
        test!(busy_and_missing_interfaces_are_named).on_host(),
        test!(a_start_that_fails_leaves_an_adopted_instance_as_it_was).on_host(),
        test!(a_re_created_interface_is_protected_again),
        test!(unusable_pin_directories_are_errors_with_a_hint),
        test!(an_interface_of_another_namespace_is_another_interface),
        test!(impossible_gateways_are_refused).on_host(),
        test!(a_policy_brings_its_gateways_and_takes_them_back),
        test!(a_policy_that_would_be_ignored_in_part_is_refused).on_host(),
        test!(every_action_leaves_an_audit_record).on_host(),
    ]
}

/// Ends waits for what should come at once and then fails; nothing is measured against it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A protected host and a peer, connected by a veth pair.
pub(crate) struct Net {
    pub(crate) host: Namespace,
    peer: Namespace,
    _lab: Lab,
}

impl Net {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let (host, peer) = (lab.namespace("host").unwrap(), lab.namespace("peer").unwrap());
        lab.veth((&host, "eth0"), (&peer, "eth0")).unwrap();
        host.address("eth0", "10.9.0.1/16").unwrap();
        host.address("eth0", "fd09::1/64").unwrap();
        for n in 2..6 {
            peer.address("eth0", &format!("10.9.0.{n}/16")).unwrap();
            peer.address("eth0", &format!("fd09::{n}/64")).unwrap();
        }
        Self { host, peer, _lab: lab }
    }

    /// A packet socket on the peer's end, whose frames arrive at the host's.
    pub(crate) fn injector(&self) -> PacketSocket {
        self.peer.run(|| PacketSocket::open("eth0")).unwrap().unwrap()
    }
}

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn dropping(texts: &[&str]) -> CompiledPolicy {
    Policy::builder()
        .set(AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(cidrs(texts)))
        .compile()
        .unwrap()
}

fn open() -> CompiledPolicy {
    Policy::builder().compile().unwrap()
}

pub(crate) fn frame_from(src: &str) -> Vec<u8> {
    let frame = match src.contains(':') {
        true => Frame::v6(src, "fd09::1"),
        false => Frame::v4(src, "10.9.0.1"),
    };
    frame.payload(UDP, udp(1, 9, b"flood")).build()
}

/// An instance of its own for each test, gone before and after.
struct Instance(String);

impl Instance {
    fn new(name: &str) -> Self {
        let this = Self(format!("test-{}-{name}", std::process::id()));
        this.purge();
        this
    }

    fn purge(&self) {
        ironclad_bpf::PinDirectory::purge("/sys/fs/bpf".as_ref(), &self.0).unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.purge();
        }
    }
}

/// Whether a UDP datagram and a TCP connection from `src` reach the host.
pub(crate) fn reaches(net: &Net, src: &str) -> (bool, bool) {
    let src: IpAddr = src.parse().unwrap();
    let here: IpAddr = if src.is_ipv4() { "10.9.0.1" } else { "fd09::1" }.parse().unwrap();
    let (datagrams, connections) = net
        .host
        .run(|| (UdpSocket::bind((here, 0)).unwrap(), TcpListener::bind((here, 0)).unwrap()))
        .unwrap();
    let (udp_to, tcp_to) = (datagrams.local_addr().unwrap(), connections.local_addr().unwrap());
    // Long enough for a loaded machine where it should arrive; where it should not, all is local
    // and has arrived long before.
    datagrams.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let tcp = net
        .peer
        .run(|| {
            let socket = UdpSocket::bind((src, 0)).unwrap();
            socket.send_to(b"hello", udp_to).unwrap();
            connect_from(src, tcp_to)
        })
        .unwrap();
    (datagrams.recv_from(&mut [0; 16]).is_ok(), tcp)
}

fn connect_from(src: IpAddr, to: SocketAddr) -> bool {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(src, 0).into()).unwrap();
    let connected = socket.connect_timeout(&to.into(), Duration::from_millis(700)).is_ok();
    drop(TcpStream::from(socket));
    connected
}

fn blocked_peers_do_not_reach_a_socket() {
    let net = Net::new();
    let (bad, good) = (["10.9.0.2", "fd09::2"], ["10.9.0.3", "fd09::3"]);
    // The attack succeeds without us.
    for src in bad.iter().chain(&good) {
        assert_eq!(reaches(&net, src), (true, true), "{src}, unprotected");
    }
    let policy = dropping(&bad);
    let shield =
        net.host.run(|| Shield::builder("live").interface("eth0").start(&policy)).unwrap().unwrap();
    assert_eq!(shield.status().unwrap().interfaces[0].mode, XdpMode::Native, "veth has native XDP");
    for src in bad {
        assert_eq!(reaches(&net, src), (false, false), "{src}");
    }
    for src in good {
        assert_eq!(reaches(&net, src), (true, true), "{src}");
    }
    let counters = shield.counters().unwrap();
    let rule = counters.rule(RuleId(1)).unwrap();
    assert_eq!(rule.name, "bad");
    assert!(rule.matched.packets >= 4, "a datagram and a SYN of each family: {rule:?}");
    let busiest = shield.busiest_prefixes(10);
    assert_eq!(busiest.len(), 2);
    assert_eq!(busiest.iter().map(|c| c.packets).sum::<u64>(), rule.matched.packets);
    drop(shield);
    assert_eq!(reaches(&net, bad[0]), (true, true), "after the handle is dropped");
}

fn generic_mode_drops_too() {
    let net = Net::new();
    let policy = dropping(&["10.9.0.2"]);
    let shield = net
        .host
        .run(|| Shield::builder("generic").interface("eth0").mode(XdpMode::Generic).start(&policy))
        .unwrap()
        .unwrap();
    assert_eq!(shield.status().unwrap().interfaces[0].mode, XdpMode::Generic);
    assert_eq!(reaches(&net, "10.9.0.2"), (false, false));
    assert_eq!(reaches(&net, "10.9.0.3"), (true, true));
}

fn a_gateway_gets_through_deny_all() {
    let net = Net::new();
    let policy = Policy::builder().default_action(Verdict::Drop).compile().unwrap();
    let shield = net
        .host
        .run(|| {
            let gateways = ["10.9.0.2".parse().unwrap(), "fd09::2".parse().unwrap()];
            Shield::builder("gateway").interface("eth0").gateways(gateways).start(&policy)
        })
        .unwrap()
        .unwrap();
    assert_eq!(reaches(&net, "10.9.0.2"), (true, true));
    assert_eq!(reaches(&net, "fd09::2"), (true, true));
    assert_eq!(reaches(&net, "10.9.0.3"), (false, false));
    shield.set_gateways(&["10.9.0.3".parse().unwrap()]).unwrap();
    assert_eq!(reaches(&net, "10.9.0.2"), (false, false));
    assert_eq!(reaches(&net, "10.9.0.3"), (true, true));
}

/// Sends frames until it is stopped, and returns how many.
fn flood<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    socket: &'scope PacketSocket,
    frames: &'scope [Vec<u8>],
    stop: &'scope AtomicBool,
) -> std::thread::ScopedJoinHandle<'scope, u64> {
    scope.spawn(move || {
        let begin = Instant::now();
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) && begin.elapsed() < PATIENCE {
            for frame in frames {
                socket.send(frame).unwrap();
                sent += 1;
            }
        }
        sent
    })
}

/// Datagrams that a socket has got, without waiting.
fn arrived(socket: &UdpSocket) -> u64 {
    socket.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| socket.recv_from(&mut [0; 16]).ok()).count() as u64
}

/// IPv6 and UDP with a length of 0: the kernel takes what the frame has.
fn a_malformed_packet_that_the_kernel_accepts_meets_its_tuple() {
    let net = Net::new();
    let frame = Frame::v6("fd09::2", "fd09::1").extension(0, &[0, 1, 4, 0, 0, 0, 0]);
    let mut no_ip_length = frame.payload(UDP, udp(1, 9, b"ip")).build();
    no_ip_length[18..20].fill(0);
    let mut datagram = udp(1, 9, b"udp");
    datagram[4..6].fill(0);
    let no_udp_length = Frame::v6("fd09::2", "fd09::1").payload(UDP, datagram).build();
    let end = Frame::v6("fd09::2", "fd09::1").payload(UDP, udp(1, 10, b"end")).build();
    let open = Policy::builder().malformed(Verdict::Allow);
    let closed = open
        .clone()
        .tuple(TupleRule::new(RuleId(1), "discard", Action::Drop).protocol(Protocol::UDP).dport(9));
    let shield = net
        .host
        .run(|| Shield::builder("lengths").interface("eth0").start(&open.compile().unwrap()))
        .unwrap()
        .unwrap();
    let bind = |port: u16| {
        let socket = net.host.run(|| UdpSocket::bind(("fd09::1", port))).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (listener, other) = (bind(9), bind(10));
    let socket = net.injector();
    let arrived = || {
        for frame in [&no_ip_length, &no_udp_length, &end] {
            socket.send(frame).unwrap();
        }
        // Frames of one sender arrive in their order.
        other.recv_from(&mut [0; 16]).unwrap();
        arrived(&listener)
    };
    // Linux 7.3 accepts only the second, older kernels both.
    assert_ne!(arrived(), 0);
    shield.apply(&closed.compile().unwrap()).unwrap();
    assert_eq!(arrived(), 0);
}

fn no_packet_slips_through_a_swap() {
    let swaps = if is_in_machine() { 10 } else { 40 };
    let net = Net::new();
    // Both drop the /24 from which the flood comes, by different entries.
    let always = "10.9.77.0/24";
    let many: Vec<String> = (0..50_000u32)
        .map(|n| format!("172.{}.{}.{}/32", 16 + n / 65536, n / 256 % 256, n % 256))
        .collect();
    let mut long: Vec<&str> = many.iter().map(String::as_str).collect();
    long.push("10.9.77.0/25");
    long.push("10.9.77.128/25");
    let policies = [dropping(&[always]), dropping(&long)];
    let shield = net
        .host
        .run(|| Shield::builder("swap").interface("eth0").start(&policies[0]))
        .unwrap()
        .unwrap();
    let listener = net.host.run(|| UdpSocket::bind("10.9.0.1:9")).unwrap().unwrap();
    let socket = net.injector();
    let frames: Vec<_> = (0..256).map(|n| frame_from(&format!("10.9.77.{n}"))).collect();
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let flood = flood(scope, &socket, &frames, &stop);
        for round in 0..swaps {
            shield.apply(&policies[(round + 1) % 2]).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    assert!(sent > 250 * swaps as u64, "{sent}");
    assert_eq!(arrived(&listener), 0, "of {sent} sent");
    let counters = shield.counters().unwrap();
    assert_eq!(
        counters.rule(RuleId(1)).unwrap().matched.packets,
        sent,
        "counts go on from policy to policy"
    );
    assert_eq!(counters.loss(Loss::NoPolicy), 0);
    assert_eq!(shield.status().unwrap().generation, swaps as u64 + 1);
    // The socket would have got them: a policy that does not drop lets them in.
    shield.apply(&dropping(&["192.0.2.0/24"])).unwrap();
    socket.send(&frame_from("10.9.0.4")).unwrap();
    listener.set_nonblocking(false).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    listener.recv_from(&mut [0; 16]).unwrap();
}

/// The verdict of the running policy on a packet from `src`.
fn drops(shield: &Shield, src: &str) -> bool {
    shield.test_run(&frame_from(src), 1).unwrap().retval == 1
}

fn a_provisional_policy_is_confirmed_reverted_or_expires() {
    let (old, new) = (dropping(&["192.0.2.1"]), dropping(&["192.0.2.2"]));
    let shield = Shield::builder("provisional").start_unattached(&old).unwrap();
    let is_new = || (drops(&shield, "192.0.2.1"), drops(&shield, "192.0.2.2")) == (false, true);
    let is_old = || (drops(&shield, "192.0.2.1"), drops(&shield, "192.0.2.2")) == (true, false);
    assert!(is_old());
    assert_eq!(shield.confirm().unwrap_err().kind(), ShieldErrorKind::NotProvisional);

    shield.apply_with(&new, provisional(PATIENCE)).unwrap();
    assert!(is_new());
    assert!(shield.status().unwrap().provisional.is_some());
    assert_eq!(shield.apply(&old).unwrap_err().kind(), ShieldErrorKind::ProvisionalPending);
    shield.revert().unwrap();
    assert!(is_old());

    shield.apply_with(&new, provisional(PATIENCE)).unwrap();
    shield.confirm().unwrap();
    assert!(is_new());
    assert_eq!(shield.status().unwrap().provisional, None);

    shield.apply_with(&old, provisional(Duration::from_millis(300))).unwrap();
    assert!(is_old());
    let begin = Instant::now();
    while is_old() {
        assert!(begin.elapsed() < PATIENCE, "the deadline does not come");
    }
    assert!(begin.elapsed() >= Duration::from_millis(200), "not before its time");
    assert!(is_new(), "the kernel alone has returned to the previous policy");
    assert_eq!(shield.confirm().unwrap_err().kind(), ShieldErrorKind::Expired);
    assert_eq!(shield.status().unwrap().policy, new.id());
    shield.apply(&old).unwrap();
    assert!(is_old());
    for wrong in [Duration::ZERO, Duration::from_secs(u64::MAX)] {
        assert_eq!(
            shield.apply_with(&new, provisional(wrong)).unwrap_err().kind(),
            ShieldErrorKind::Deadline
        );
    }
}

/// A process that starts an agent and then waits to be killed: this test binary again.
fn agent(net: &Net, instance: &Instance, role: &str) -> Child {
    let mut command = AGENT.command();
    command
        .env("IRONCLAD_TEST_AGENT", role)
        .env("IRONCLAD_TEST_INSTANCE", &instance.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = net.host.run(|| command.spawn().unwrap()).unwrap();
    use std::io::BufRead;
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == "agent ready");
    if !ready {
        panic!("agent ended: {:?}", child.wait());
    }
    child
}

/// What [`agent`] starts.
pub(crate) const AGENT: Role = role!(the_agent);

fn the_agent() {
    let role = std::env::var("IRONCLAD_TEST_AGENT").unwrap();
    let instance = std::env::var("IRONCLAD_TEST_INSTANCE").unwrap();
    let policy = dropping(&["10.9.77.0/24"]);
    let builder = Shield::builder(&instance).interface("eth0").persistent(true);
    let shield = builder.start(&policy).unwrap();
    match role.as_str() {
        "provisional" => {
            shield.apply_with(&open(), provisional(Duration::from_millis(1500))).unwrap()
        }
        "waiting" => shield.apply_with(&open(), provisional(Duration::from_secs(3600))).unwrap(),
        _ => {}
    }
    println!("agent ready");
    // Killed here.
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn drops_outlive_a_killed_agent_and_the_next_adopts_without_a_gap() {
    let net = Net::new();
    let instance = Instance::new("adopt");
    let listener = net.host.run(|| UdpSocket::bind("10.9.0.1:9")).unwrap().unwrap();
    let socket = net.injector();
    let frames: Vec<_> = (0..256).map(|n| frame_from(&format!("10.9.77.{n}"))).collect();
    let first = agent(&net, &instance, "plain");
    let stop = AtomicBool::new(false);
    let policy = dropping(&["10.9.77.0/24"]);
    let (sent, shield) = std::thread::scope(|scope| {
        let flood = flood(scope, &socket, &frames, &stop);
        kill(first);
        for _ in 0..3 {
            kill(agent(&net, &instance, "plain"));
        }
        let shield = net
            .host
            .run(|| Shield::builder(&instance.0).interface("eth0").persistent(true).start(&policy))
            .unwrap()
            .unwrap();
        stop.store(true, Ordering::Relaxed);
        (flood.join().unwrap(), shield)
    });
    assert_eq!(arrived(&listener), 0, "of {sent}");
    let counters = shield.counters().unwrap();
    let rule = counters.rule(RuleId(1)).unwrap();
    assert_eq!((rule.matched.packets, &*rule.actions), (sent, &[Action::Drop][..]));
    assert_eq!(shield.status().unwrap().generation, 1, "the same policy is not loaded again");
    // Two agents cannot run one instance.
    let second = net
        .host
        .run(|| Shield::builder(&instance.0).interface("eth0").persistent(true).start(&policy))
        .unwrap();
    let refused = second.unwrap_err().to_string();
    let holder = format!("process {} (", std::process::id());
    assert!(refused.contains(&holder) && refused.contains("runs this instance"), "{refused}");
    // Stopping leaves nothing.
    shield.stop().unwrap();
    assert!(!Path::new("/sys/fs/bpf/ironclad").join(&instance.0).exists());
    assert_eq!(reaches(&net, "10.9.0.2"), (true, true));
    socket.send(&frames[0]).unwrap();
    listener.set_nonblocking(false).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    listener.recv_from(&mut [0; 16]).unwrap();
}

fn a_deadline_holds_without_an_agent() {
    let net = Net::new();
    let instance = Instance::new("deadline");
    let listener = net.host.run(|| UdpSocket::bind("10.9.0.1:9")).unwrap().unwrap();
    let socket = net.injector();
    let child = agent(&net, &instance, "provisional");
    kill(child);
    // The open policy is in force, and no agent runs that could revert it.
    socket.send(&frame_from("10.9.77.1")).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    listener.recv_from(&mut [0; 16]).unwrap();
    // A mark from an address that both policies pass ends each round.
    let begin = Instant::now();
    let mark = Frame::v4("10.9.0.3", "10.9.0.1").payload(UDP, udp(1, 9, b"mark")).build();
    loop {
        assert!(begin.elapsed() < PATIENCE, "the deadline does not come");
        socket.send(&frame_from("10.9.77.1")).unwrap();
        socket.send(&mark).unwrap();
        let mut buffer = [0; 16];
        let (len, _) = listener.recv_from(&mut buffer).unwrap();
        if &buffer[..len] == b"mark" {
            break;
        }
        let (len, _) = listener.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"mark");
    }
    // The next agent finds the kernel's decision and keeps it.
    let policy = dropping(&["10.9.77.0/24"]);
    let shield = net
        .host
        .run(|| Shield::builder(&instance.0).interface("eth0").persistent(true).start(&policy))
        .unwrap()
        .unwrap();
    let status = shield.status().unwrap();
    assert_eq!((status.generation, status.provisional), (1, None));
    shield.stop().unwrap();
}

fn the_next_agent_confirms_or_reverts_a_provisional_policy() {
    let net = Net::new();
    let start = |instance: &Instance, policy: &CompiledPolicy| {
        let builder = Shield::builder(&instance.0).interface("eth0").persistent(true);
        net.host.run(|| builder.start(policy)).unwrap().unwrap()
    };
    let (old, other) = (dropping(&["10.9.77.0/24"]), dropping(&["10.9.78.0/24"]));
    let both = |shield: &Shield| (drops(shield, "10.9.77.1"), drops(shield, "10.9.78.1"));

    // Given the same: it is still provisional, and may be confirmed.
    let instance = Instance::new("waiting");
    kill(agent(&net, &instance, "waiting"));
    let shield = start(&instance, &open());
    assert!(shield.status().unwrap().provisional.is_some());
    shield.confirm().unwrap();
    assert_eq!(shield.status().unwrap().provisional, None);
    assert_eq!(both(&shield), (false, false));
    shield.stop().unwrap();

    // Given the previous one, or a third.
    for (policy, generation, expected) in [(&old, 1, (true, false)), (&other, 3, (false, true))] {
        kill(agent(&net, &instance, "waiting"));
        let shield = start(&instance, policy);
        let status = shield.status().unwrap();
        assert_eq!((status.generation, status.provisional), (generation, None));
        assert_eq!(both(&shield), expected);
        shield.stop().unwrap();
    }
}

fn events_are_sampled_and_every_loss_is_counted() {
    let net = Net::new();
    let set = AddressSet::new(RuleId(5), "noisy", Action::Drop).cidrs(cidrs(&["10.9.77.0/24"]));
    let policy = Policy::builder().set(set.events_per_second(20)).compile().unwrap();
    let shield = net
        .host
        .run(|| Shield::builder("events").interface("eth0").start(&policy))
        .unwrap()
        .unwrap();
    let (pump, events) = shield.events(4096, Overflow::DropNewest).unwrap();
    let socket = net.injector();
    let sent = 20_000u64;
    let begin = Instant::now();
    for n in 0..sent {
        socket.send(&frame_from(&format!("10.9.77.{}", n % 256))).unwrap();
    }
    let windows = begin.elapsed().as_secs() + 2;
    while shield.counters().unwrap().rule(RuleId(5)).unwrap().matched.packets < sent {
        assert!(begin.elapsed() < PATIENCE);
    }
    let first = events.recv_timeout(PATIENCE).unwrap().into_shield().unwrap();
    assert_eq!(first.src, Some("10.9.77.0".parse().unwrap()), "the first packet is reported");
    assert_eq!((first.verdict, first.reason), (Verdict::Drop, Reason::Set));
    assert_eq!(first.ports, Some((1, 9)));
    let counters = shield.counters().unwrap();
    let reported = sent - counters.loss(Loss::SampledOut) - counters.loss(Loss::RingFull);
    assert_eq!(counters.loss(Loss::RingFull), 0);
    assert!(reported >= 20, "{reported}");
    assert!(
        reported <= 20 * windows,
        "the rate is the host's, not a CPU's: {reported} in {windows} s"
    );
    let mut seen = 1;
    while seen < reported {
        events.recv_timeout(PATIENCE).expect("every reported event arrives");
        seen += 1;
    }
    assert_eq!(pump.stats().received, reported);
    assert_eq!(events.try_recv(), None);
}

/// Drops what a set, a tuple and the default drop, and reports it.
fn reporting() -> CompiledPolicy {
    let set = |id, name: &str, prefixes: &[&str]| {
        AddressSet::new(RuleId(id), name, Action::Drop).cidrs(cidrs(prefixes))
    };
    let telnet = TupleRule::new(RuleId(7), "no telnet", Action::Drop)
        .src("10.9.0.4/30".parse().unwrap())
        .dst("10.9.0.0/16".parse().unwrap())
        .protocol(Protocol::TCP)
        .dport(23);
    let no_ping = TupleRule::new(RuleId(8), "no ping", Action::Log).protocol(Protocol::ICMP);
    Policy::builder()
        .set(set(5, "noisy", &["10.9.77.0/24", "fd09:0:0:77::/64"]))
        .set(set(6, "worse", &["10.9.77.128/25"]))
        .tuple(telnet)
        .tuple(no_ping)
        .default_action(Verdict::Drop)
        .default_events_per_second(1000)
        .compile()
        .unwrap()
}

fn an_event_is_described_by_names() {
    let net = Net::new();
    let policy = reporting();
    let shield = net
        .host
        .run(|| Shield::builder("described").interface("eth0").start(&policy))
        .unwrap()
        .unwrap();
    let (_pump, events) = shield.events(4096, Overflow::DropNewest).unwrap();
    let socket = net.injector();
    let telnet = Frame::v4("10.9.0.5", "10.9.0.1").payload(TCP, tcp(40_000, 23)).build();
    let ping = Frame::v4("10.9.78.3", "10.9.0.1").payload(1, vec![8; 24]).build();
    let ospf = Frame::v4("10.9.78.2", "10.9.0.1").payload(89, vec![0; 24]).build();
    let cases = [
        (frame_from("10.9.77.1"), "10.9.77.1", "udp", Some((5, "noisy")), Some("10.9.77.0/24")),
        (
            frame_from("10.9.77.200"),
            "10.9.77.200",
            "udp",
            Some((6, "worse")),
            Some("10.9.77.128/25"),
        ),
        (
            frame_from("fd09:0:0:77::1"),
            "fd09:0:0:77::1",
            "udp",
            Some((5, "noisy")),
            Some("fd09:0:0:77::/64"),
        ),
        (telnet, "10.9.0.5", "tcp", Some((7, "no telnet")), Some("10.9.0.4/30")),
        (ping, "10.9.78.3", "icmp", Some((8, "no ping")), None),
        (frame_from("10.9.78.1"), "10.9.78.1", "udp", None, None),
        (ospf, "10.9.78.2", "89", None, None),
    ];
    let (before, slack) = (SystemTime::now(), Duration::from_secs(1));
    let index = net.host.run(|| Interface::by_name("eth0").unwrap().index).unwrap();
    for (frame, src, protocol, rule, prefix) in cases {
        let src: IpAddr = src.parse().unwrap();
        socket.send(&frame).unwrap();
        // The namespaces' own neighbour discovery is reported, too.
        let event = loop {
            let event = events.recv_timeout(PATIENCE).unwrap().into_shield().unwrap();
            if event.src == Some(src) {
                break event;
            }
        };
        assert_eq!(event.ifindex, index);
        let described = shield.describe(event.clone());
        let named = described.rule.as_ref().map(|rule| (rule.id.0, rule.name.as_str()));
        assert_eq!(named, rule, "{described}");
        assert_eq!(described.prefix, prefix.map(|text| text.parse().unwrap()), "{described}");
        let is_telnet = described.rule.as_ref().is_some_and(|rule| rule.id == RuleId(7));
        let dst_prefix = is_telnet.then(|| "10.9.0.0/16".parse().unwrap());
        assert_eq!(described.dst_prefix, dst_prefix, "{described}");
        assert_eq!(described.protocol.as_deref(), Some(protocol));
        assert_eq!(described.interface.as_deref(), Some("eth0"));
        assert!(!described.is_replaced);
        let WallTime(time) = described.time;
        assert!(before - slack < time && time < SystemTime::now() + slack, "{described}");
        assert_eq!(described.event, Record::Shield(event));
    }
}

fn an_event_of_a_replaced_policy_gets_no_other_rule() {
    let net = Net::new();
    let policy = reporting();
    let shield = net
        .host
        .run(|| Shield::builder("replaced").interface("eth0").start(&policy))
        .unwrap()
        .unwrap();
    let mut ring = shield.event_ring().unwrap();
    let mut read = Vec::new();
    let mut reported = |shield: &Shield| {
        shield.test_run(&frame_from("10.9.77.1"), 1).unwrap();
        ring.consume(|bytes| read.push(Record::from(&decode(bytes).unwrap()))).unwrap();
        read.pop().unwrap()
    };
    let event = reported(&shield);
    let rule = |event: &Record| shield.describe(event.clone()).rule.map(|rule| rule.name);
    assert_eq!(rule(&event).as_deref(), Some("noisy"));
    // The same id, slot and entry, and another name.
    let other = AddressSet::new(RuleId(5), "quiet", Action::Drop).cidrs(cidrs(&["0.0.0.0/0"]));
    let other = Policy::builder().set(other.events_per_second(1000)).compile().unwrap();
    shield.apply_with(&other, provisional(PATIENCE)).unwrap();
    let of_other = reported(&shield);
    assert_eq!(rule(&of_other).as_deref(), Some("quiet"));
    // Both are in the kernel while it is provisional.
    let described = shield.describe(event.clone());
    assert_eq!(described.prefix, Some("10.9.77.0/24".parse().unwrap()));
    assert!(!described.is_replaced);
    shield.confirm().unwrap();
    let described = shield.describe(event.clone());
    assert_eq!(described.rule.as_ref().map(|rule| rule.name.as_str()), Some("noisy"));
    assert_eq!((described.prefix, described.is_replaced), (None, true));
    assert!(described.to_string().ends_with("by a policy that was replaced"), "{described}");
    // More policies than it remembers.
    for _ in 0..9 {
        shield.apply(&other).unwrap();
    }
    let described = shield.describe(event);
    assert_eq!((described.rule.as_ref(), described.is_replaced), (None, true), "{described}");
    assert_eq!(rule(&reported(&shield)).as_deref(), Some("quiet"));
    // Not protected any more.
    net.host.run(|| shield.unprotect("eth0").unwrap()).unwrap();
    assert_eq!(shield.describe(of_other).interface, None);
}

fn a_full_ring_loses_events_and_not_verdicts() {
    let set = AddressSet::new(RuleId(5), "noisy", Action::Drop).cidrs(cidrs(&["10.9.77.0/24"]));
    let policy = Policy::builder().set(set.events_per_second(u32::MAX)).compile().unwrap();
    let shield = Shield::builder("full").ring_bytes(4096).start_unattached(&policy).unwrap();
    let frame = frame_from("10.9.77.1");
    for _ in 0..1000 {
        assert_eq!(shield.test_run(&frame, 1).unwrap().retval, 1);
    }
    let lost = shield.counters().unwrap().loss(Loss::RingFull);
    let mut ring = shield.event_ring().unwrap();
    let mut read = 0;
    ring.consume(|_| read += 1).unwrap();
    assert!(read > 0 && lost > 0);
    assert_eq!(read + lost, 1000);
}

fn busy_and_missing_interfaces_are_named() {
    let net = Net::new();
    let policy = dropping(&["10.9.0.2"]);
    net.host
        .run(|| {
            let error = Shield::builder("a").interface("eth7").start(&policy).unwrap_err();
            assert!(error.to_string().contains("no interface `eth7`"), "{error}");
            let error = Shield::builder("a").start(&policy).unwrap_err();
            assert_eq!(error.kind(), ShieldErrorKind::NoInterface);
            let first = Shield::builder("a").interface("eth0").start(&policy).unwrap();
            let error =
                Shield::builder("b").interface("eth0").start(&policy).unwrap_err().to_string();
            assert!(error.contains("eth0") && error.contains("`ic_xdp` (id "), "{error}");
            assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
            drop(first);
            let instance = Instance::new("holding");
            let builder = Shield::builder(&instance.0).interface("eth0").persistent(true);
            let _kept = builder.start(&policy).unwrap();
            let error =
                Shield::builder("b").interface("eth0").start(&policy).unwrap_err().to_string();
            assert!(error.contains(&format!("instance `{}`", instance.0)), "{error}");
        })
        .unwrap();
    // The refused instances leave nothing.
    assert_eq!(reaches(&net, "10.9.0.2"), (true, true));
}

fn a_start_that_fails_leaves_an_adopted_instance_as_it_was() {
    let net = Net::new();
    let lab = Lab::new().unwrap();
    lab.veth((&net.host, "eth1"), (&net.peer, "eth1")).unwrap();
    let instance = Instance::new("failing");
    let builder = || Shield::builder(&instance.0).persistent(true);
    let (old, new) = (dropping(&["10.9.0.2"]), open());
    let start = |builder: ShieldBuilder, policy: &CompiledPolicy| {
        net.host.run(|| builder.start(policy)).unwrap()
    };
    let gateway: IpAddr = "10.9.0.9".parse().unwrap();
    drop(start(builder().interface("eth0").gateways([gateway]), &old).unwrap());

    let wanted = builder().interface("eth0").interface("eth1").interface("eth7").gateways([]);
    let error = start(wanted, &new).unwrap_err().to_string();
    assert!(error.contains("no interface `eth7`"), "{error}");
    assert_eq!(reaches(&net, "10.9.0.2"), (false, false), "the old policy holds");

    let shield = start(builder().interface("eth0"), &old).unwrap();
    let status = shield.status().unwrap();
    assert_eq!((status.generation, status.provisional), (1, None));
    assert_eq!(shield.gateways(), [gateway]);
    let protected: Vec<_> = status.interfaces.iter().map(|i| &i.interface.name).collect();
    assert_eq!(protected, ["eth0"]);
    shield.stop().unwrap();
}

fn a_re_created_interface_is_protected_again() {
    let net = Net::new();
    let lab = Lab::new().unwrap();
    let policy = dropping(&["10.9.0.2"]);
    let start = || {
        let builder = Shield::builder("gone").interface("eth0").follow_interfaces(false);
        builder.start(&policy)
    };
    let shield = net.host.run(start).unwrap().unwrap();
    let refresh = || net.host.run(|| shield.refresh_interfaces().unwrap()).unwrap();
    assert_eq!(refresh(), []);
    net.host.ip(&["link", "del", "eth0"]).unwrap();
    assert_eq!(refresh(), [InterfaceChange::Gone { interface: "eth0".into() }]);
    lab.veth((&net.host, "eth0"), (&net.peer, "eth0")).unwrap();
    net.host.address("eth0", "10.9.0.1/16").unwrap();
    net.peer.address("eth0", "10.9.0.2/16").unwrap();
    assert_eq!(reaches(&net, "10.9.0.2"), (true, true), "before the refresh");
    let expected = InterfaceChange::Reattached { interface: "eth0".into(), mode: XdpMode::Native };
    assert_eq!(refresh(), [expected]);
    assert_eq!(reaches(&net, "10.9.0.2"), (false, false));
}

fn unusable_pin_directories_are_errors_with_a_hint() {
    let net = Net::new();
    let instance = Instance::new("pins");
    let policy = dropping(&["10.9.0.2"]);
    let start = || {
        net.host
            .run(|| Shield::builder(&instance.0).interface("eth0").persistent(true).start(&policy))
            .unwrap()
    };
    let path = format!("/sys/fs/bpf/ironclad/{}/v{}", instance.0, ironclad_core::abi::VERSION);
    drop(start().unwrap());
    assert_eq!(reaches(&net, "10.9.0.2"), (false, false), "the handle is gone, the pins are not");
    std::fs::remove_file(format!("{path}/ic_rules")).unwrap();
    let error = start().unwrap_err().to_string();
    assert!(error.contains("incomplete: ic_rules missing") && error.contains("purge"), "{error}");
    assert_eq!(reaches(&net, "10.9.0.2"), (false, false), "a refused start drops no protection");
    instance.purge();
    assert_eq!(reaches(&net, "10.9.0.2"), (true, true));
    drop(start().unwrap());
    // An upgrade that was killed half-way.
    std::fs::hard_link(format!("{path}/ic_xdp"), format!("{path}/ic_xdp_new")).unwrap();
    drop(start().unwrap());
    for other in ["other", "link_eth0"] {
        std::fs::create_dir(format!("{path}/{other}")).unwrap();
        let error = start().unwrap_err().to_string();
        assert!(error.contains(&format!("not Ironclad's: {other}")), "{error}");
        std::fs::remove_dir(format!("{path}/{other}")).unwrap();
    }
    instance.purge();
    std::fs::create_dir_all(format!("/sys/fs/bpf/ironclad/{}/v999", instance.0)).unwrap();
    let error = start().unwrap_err().to_string();
    let version = format!("not of ABI version {}", ironclad_core::abi::VERSION);
    assert!(error.contains(&version), "{error}");
    instance.purge();
    // Of another user, or writable by other users.
    let own = format!("/sys/fs/bpf/ironclad/{}", instance.0);
    std::fs::create_dir_all(&own).unwrap();
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = start().unwrap_err().to_string();
    assert!(error.contains("other users can write to it (mode 0777)"), "{error}");
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&own, Some(65534), None).unwrap();
    let error = start().unwrap_err().to_string();
    assert!(error.contains("belongs to user 65534"), "{error}");
    std::fs::remove_dir(&own).unwrap();
    let error = Shield::builder("a/b").interface("eth0").persistent(true).start(&policy);
    assert!(error.unwrap_err().to_string().contains("no name for an instance"));
    let error =
        Shield::builder("a").interface("eth0").persistent(true).bpffs("/tmp").start(&policy);
    assert!(error.unwrap_err().to_string().contains("no bpffs is mounted here"));
}

fn an_interface_of_another_namespace_is_another_interface() {
    let (first, second) = (Net::new(), Net::new());
    let instance = Instance::new("namespaces");
    let policy = dropping(&["10.9.0.2"]);
    let start = |net: &Net, mode| {
        let builder = Shield::builder(&instance.0).interface("eth0").persistent(true);
        net.host.run(|| builder.mode(mode).start(&policy)).unwrap().unwrap()
    };
    drop(start(&first, XdpMode::Generic));
    assert_eq!(reaches(&first, "10.9.0.2"), (false, false));
    assert_eq!(reaches(&second, "10.9.0.2"), (true, true));
    // The same name, and most likely the same number.
    let shield = start(&second, XdpMode::Native);
    assert_eq!(reaches(&second, "10.9.0.2"), (false, false), "of the same name elsewhere");
    assert_eq!(reaches(&first, "10.9.0.2"), (false, false), "what was protected stays so");
    let interfaces = shield.status().unwrap().interfaces;
    let mut modes: Vec<_> = interfaces.iter().map(|i| i.mode.name()).collect();
    modes.sort_unstable();
    assert_eq!(modes, ["generic", "native"], "each in its own");
    assert_ne!(interfaces[0].interface.namespace, interfaces[1].interface.namespace);
    second.host.run(|| shield.unprotect("eth0")).unwrap().unwrap();
    assert_eq!(reaches(&second, "10.9.0.2"), (true, true));
    assert_eq!(reaches(&first, "10.9.0.2"), (false, false));
    shield.stop().unwrap();
    assert_eq!(reaches(&first, "10.9.0.2"), (true, true));
}

fn impossible_gateways_are_refused() {
    let shield = Shield::builder("gateways").start_unattached(&open()).unwrap();
    for wrong in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:10.0.0.1"] {
        let error = shield.set_gateways(&[wrong.parse().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("is no gateway"), "{wrong}: {error}");
    }
    assert!(shield.gateways().is_empty());
}

fn a_policy_brings_its_gateways_and_takes_them_back() {
    let text = "default: drop\ngateways: [10.9.0.2, \"fd09::2\"]\n";
    let document = Document::parse("p.yaml", text).unwrap();
    let policy = document.policy(Path::new("/")).unwrap().compile().unwrap();
    let builder = Shield::builder("own-gateways").gateways(["10.9.0.3".parse().unwrap()]);
    let shield = builder.start_unattached(&policy).unwrap();
    let passing = || {
        let all = ["10.9.0.2", "fd09::2", "10.9.0.3", "10.9.0.4", "fd09::4"];
        let passes = |src: &&str| !drops(&shield, src);
        all.into_iter().filter(passes).collect::<Vec<_>>()
    };
    assert_eq!(passing(), ["10.9.0.2", "fd09::2", "10.9.0.3"]);
    // Those of the agent alone.
    shield.set_gateways(&[]).unwrap();
    assert_eq!(passing(), ["10.9.0.2", "fd09::2"]);

    let closed = || Policy::builder().default_action(Verdict::Drop);
    let other = closed().gateways(["10.9.0.4", "fd09::4"].map(|text| text.parse().unwrap()));
    let other = other.compile().unwrap();
    assert_ne!(other.id(), closed().compile().unwrap().id());
    assert!(closed().compile().unwrap().diff(&other).settings);
    shield.apply_with(&other, provisional(PATIENCE)).unwrap();
    assert_eq!(passing(), ["10.9.0.4", "fd09::4"]);
    shield.revert().unwrap();
    assert_eq!(passing(), ["10.9.0.2", "fd09::2"]);
    // The kernel alone returns to the former.
    shield.apply_with(&other, provisional(Duration::from_millis(300))).unwrap();
    let begin = Instant::now();
    while passing() == ["10.9.0.4", "fd09::4"] {
        assert!(begin.elapsed() < PATIENCE, "the deadline does not come");
    }
    assert_eq!(passing(), ["10.9.0.2", "fd09::2"]);
    shield.apply(&other).unwrap();
    assert_eq!(passing(), ["10.9.0.4", "fd09::4"]);
}

fn a_policy_that_would_be_ignored_in_part_is_refused() {
    let cgroup = Cgroup::new("parts").unwrap();
    let net = Net::new();
    let compile = |policy: Policy| policy.compile().unwrap();
    let plain = Policy::builder;
    let packets = [
        compile(plain().set(AddressSet::new(RuleId(1), "a", Action::Log).cidrs([any4()]))),
        compile(plain().tuple(TupleRule::new(RuleId(1), "a", Action::Drop))),
        compile(plain().gateways(["10.9.0.2".parse().unwrap()])),
        compile(plain().default_action(Verdict::Drop)),
        compile(plain().non_ip(Verdict::Drop)),
        compile(plain().malformed(Verdict::Allow)),
        compile(plain().neighbour_discovery(false)),
        compile(
            plain().set(AddressSet::new(RuleId(1), "without prefixes", Action::Drop).cidrs([])),
        ),
    ];
    // What decides nothing, said or not.
    let defaults = plain().default_action(Verdict::Allow).malformed(Verdict::Drop);
    let defaults = compile(defaults.non_ip(Verdict::Allow).neighbour_discovery(true));
    let in_cgroup = || Shield::builder("parts").cgroup(cgroup.dir());
    let shield = in_cgroup().start(&compile(plain())).unwrap();
    shield.apply(&defaults).unwrap();
    for policy in &packets {
        for refused in [in_cgroup().start(policy).map(drop), shield.apply(policy)] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ShieldErrorKind::Unenforced, "{refused}");
            assert!(refused.to_string().contains("`.interface(…)`"), "{refused}");
        }
        in_cgroup().unenforced([PolicyPart::Packets]).start(policy).unwrap();
    }
    drop(shield);
    let rule = FileRule::new(RuleId(1), "a", FileAction::Deny).file("/etc/shadow");
    let files = compile(plain().file_rule(rule));
    let sockets = compile(plain().socket_default(Direction::Out, SocketVerdict::Deny));
    let at_interface = || Shield::builder("parts").interface("eth0");
    for (policy, part, kind) in [
        (files, PolicyPart::Files, ShieldErrorKind::Unenforced),
        (sockets, PolicyPart::Sockets, ShieldErrorKind::NoCgroup),
    ] {
        let start = |builder: ShieldBuilder| net.host.run(|| builder.start(&policy)).unwrap();
        let refused = start(at_interface()).unwrap_err();
        assert_eq!(refused.kind(), kind, "{refused}");
        assert!(refused.to_string().contains(&format!("PolicyPart::{part:?}")), "{refused}");
        start(at_interface().unenforced([part])).unwrap();
    }
}

fn any4() -> Cidr {
    "0.0.0.0/0".parse().unwrap()
}

fn every_action_leaves_an_audit_record() {
    let net = Net::new();
    let recorder = Arc::new(Recorder::default());
    let policy = dropping(&["10.9.0.2"]);
    let shield = net
        .host
        .run(|| Shield::builder("audit").interface("eth0").audit(recorder.clone()).start(&policy))
        .unwrap()
        .unwrap();
    shield.apply_with(&dropping(&["10.9.0.3"]), provisional(PATIENCE)).unwrap();
    shield.confirm().unwrap();
    shield.set_gateways(&["10.9.0.4".parse().unwrap()]).unwrap();
    // In another network namespace.
    let refused = shield.unprotect("eth0").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "interface `eth0` of this network namespace is not protected; protected: `eth0`"
    );
    net.host.run(|| shield.unprotect("eth0")).unwrap().unwrap();
    let refused = net.host.run(|| shield.unprotect("eth0")).unwrap().unwrap_err();
    assert!(refused.to_string().ends_with("no interface is"), "{refused}");
    net.host.run(|| shield.protect("eth0")).unwrap().unwrap();
    // Dropping it detaches too.
    drop(shield);
    let kinds: Vec<&str> = recorder
        .0
        .lock()
        .unwrap()
        .iter()
        .map(|action| match action {
            AuditAction::Load { .. } => "load",
            AuditAction::MapWrite { .. } => "write",
            AuditAction::Swap { .. } => "swap",
            AuditAction::Attach { .. } => "attach",
            AuditAction::Confirm { .. } => "confirm",
            AuditAction::Detach { .. } => "detach",
            AuditAction::PolicyUnsigned { .. } => "unsigned",
            _ => "other",
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "unsigned", "load", "load", "write", "swap", "attach", "load", "write", "swap",
            "confirm", "write", "detach", "attach", "detach"
        ]
    );
}
