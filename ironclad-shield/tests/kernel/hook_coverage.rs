//! Needs root: paths to the network, and the hooks that check them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ironclad_core::SocketVerdict;
use ironclad_core::abi::{SOCK_KERNEL, SocketReason};
use ironclad_lab::test_process::TestProcess;
use ironclad_lab::{Cgroup, PacketSocket};
use ironclad_policy::socket::{
    AddressGroup, Direction, SocketAction, SocketQuery, SocketRule, Subject,
};
use ironclad_policy::{CompiledPolicy, Policy, Protocol};
use ironclad_shield::{Overflow, Shield, ShieldErrorKind};
use socket2::{Domain, Socket, Type};

use crate::testbed::{EPERM, Host, PATIENCE, only, policy, provisional, rule};
use ironclad_lab::harness::{Test, skip, skip_part};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(fast_open_is_checked).shared(),
        test!(multipath_tcp_is_checked).shared(),
        test!(further_addresses_of_multipath_tcp_are_of_no_process).shared(),
        test!(datagrams_are_checked).shared(),
        test!(each_of_several_datagrams_is_checked).shared(),
        test!(each_connection_is_checked).shared(),
        test!(io_uring_is_checked).shared(),
        test!(the_process_that_connects_a_socket_is_checked).shared(),
        test!(sockets_created_before_the_start_are_checked_at_connect).shared(),
        test!(bind_is_checked_and_listen_is_not).shared(),
        test!(a_process_that_may_not_bind_an_address_may_not_bind_any).shared(),
        test!(raw_and_ping_sockets_are_checked_at_creation).shared(),
        test!(the_unspecified_address_leads_to_the_checked_address).shared(),
        test!(ping_sockets_that_may_be_created_may_connect).shared(),
        test!(udp_lite_is_checked_at_creation).shared(),
        test!(sctp_is_checked_at_creation).shared(),
        test!(dccp_is_checked_at_creation).shared(),
        test!(l2tp_is_checked_at_creation).shared(),
        test!(a_child_cgroup_is_no_escape).shared(),
        test!(a_socket_belongs_to_the_cgroup_of_its_creation).shared(),
        test!(instances_side_by_side_both_decide),
        test!(programs_of_other_agents_decide_too),
        test!(provisional_rules_end_at_their_deadline),
    ]
}

const NEAR: &str = "connect tcp 10.9.0.2:80";

/// What a kernel answers that lacks something.
const LACKING: [u64; 6] = [
    22, // EINVAL
    38, // ENOSYS
    93, // EPROTONOSUPPORT
    94, // ESOCKTNOSUPPORT
    95, // EOPNOTSUPP
    97, // EAFNOSUPPORT
];

fn ask(test_process: &mut TestProcess, order: &str) -> u64 {
    test_process.ask(order).unwrap()
}

/// Gives orders one after the other. All but the last have to succeed, unless the kernel cannot.
fn all(test_process: &mut TestProcess, orders: &[&str]) -> u64 {
    let Some((last, first)) = orders.split_last() else { return 0 };
    for order in first {
        match ask(test_process, order) {
            0 => {}
            lacking if LACKING.contains(&lacking) => return lacking,
            other => panic!("{order}: {other}"),
        }
    }
    ask(test_process, last)
}

/// An allowed process and another.
struct Pair {
    allowed: TestProcess,
    other: TestProcess,
}

impl Pair {
    fn new(host: &Host) -> Self {
        let [good, bad] = ["good", "bad"].map(|name| host.program(name));
        Self { allowed: host.test_process(&good), other: host.test_process(&bad) }
    }

    fn both(&mut self, orders: &[&str]) -> (u64, u64) {
        (all(&mut self.allowed, orders), all(&mut self.other, orders))
    }
}

/// Orders of which each is open to every process without us, and to the allowed program alone with us.
fn checked(host: &Host, all: &[&[&str]]) {
    let mut pair = Pair::new(host);
    let (mut supported, mut lacking) = (Vec::new(), Vec::new());
    for orders in all {
        match pair.both(orders) {
            (0, 0) => supported.push(orders),
            (allowed, other) if allowed == other && LACKING.contains(&other) => {
                lacking.push(format!("{orders:?} with {other}"));
            }
            answers => panic!("{orders:?}: {answers:?}"),
        }
    }
    if !lacking.is_empty() {
        skip_part(&format!("this kernel answers {}", lacking.join(", ")));
    }
    if supported.is_empty() {
        return;
    }
    let _shield = host.start(&only(&host.path("good")));
    for orders in supported {
        assert_eq!(pair.both(orders), (0, EPERM), "{orders:?}");
    }
}

fn fast_open_is_checked() {
    let host = Host::new();
    // Both ends, and without a cookie: what is sent first opens the connection.
    host.net.sysctl("net/ipv4/tcp_fastopen", "519").unwrap();
    let _listener = host.net.run(|| TcpListener::bind("10.9.0.2:80").unwrap()).unwrap();
    checked(
        &host,
        &[
            &["open s 4 tcp", "with s fastopen 10.9.0.2:80"],
            &["open s 6 tcp", "with s fastopen [fd09::2]:80"],
            &["open s 6 tcp", "with s fastopen [::ffff:10.9.0.2]:80"],
            &["open s 4 tcp", "with s fastopen-connect 10.9.0.2:80"],
            &["open s 6 tcp", "with s fastopen-connect [::ffff:10.9.0.2]:80"],
        ],
    );
}

fn multipath_tcp_is_checked() {
    let host = Host::new();
    host.net.sysctl("net/ipv4/tcp_fastopen", "519").unwrap();
    checked(
        &host,
        &[
            &["open s 4 mptcp", "with s connect 10.9.0.2:80"],
            &["open s 4 mptcp", "with s bind 10.9.0.1:0"],
            &["open s 4 mptcp", "with s fastopen 10.9.0.2:80"],
            &["open s 6 mptcp", "with s fastopen [fd09::2]:80"],
            &["open s 4 mptcp", "with s fastopen-connect 10.9.0.2:80"],
        ],
    );
}

/// Further addresses of the other end, which it announces: a thread of the kernel's connects to them,
/// as root, for a program that may not go there.
fn further_addresses_of_multipath_tcp_are_of_no_process() {
    let (far, further) = ("10.8.0.2", "10.8.0.3");
    let host = Host::new();
    let there = host.lab.namespace("there").unwrap();
    host.lab.veth((&host.net, "near"), (&there, "far")).unwrap();
    host.net.address("near", "10.8.0.1/24").unwrap();
    there.address("far", &format!("{far}/24")).unwrap();
    there.address("far", &format!("{further}/24")).unwrap();
    let mut root = host.test_process(&host.program("root"));
    let mut good = host.test_process(&host.program("good"));
    match ask(&mut good, "open s 4 mptcp") {
        0 => {}
        lacking => {
            skip(format!("this kernel has no Multipath TCP: {lacking}"));
        }
    }
    host.net.ip(&["mptcp", "limits", "set", "add_addr_accepted", "4", "subflows", "4"]).unwrap();
    there.ip(&["mptcp", "limits", "set", "subflows", "4"]).unwrap();
    there.ip(&["mptcp", "endpoint", "add", further, "dev", "far", "signal"]).unwrap();
    let listener = there
        .run(|| {
            let kind = (Domain::IPV4, Type::STREAM, Some(socket2::Protocol::from(262)));
            let listener = Socket::new(kind.0, kind.1, kind.2).unwrap();
            listener.bind(&SocketAddr::from(([0, 0, 0, 0], 80)).into()).unwrap();
            listener.listen(8).unwrap();
            listener
        })
        .unwrap();
    let wire = there.run(|| PacketSocket::listen("far").unwrap()).unwrap();
    let connect = |test_process: &mut TestProcess| {
        let connect = format!("with s connect-and-wait {far}:80");
        assert_eq!(all(test_process, &["open s 4 mptcp", &connect]), 0);
        let accepted = listener.accept().unwrap().0;
        assert_eq!(ask(test_process, "with s write"), 0);
        accepted
    };
    let unprotected = connect(&mut good);
    let is_syn_there = |frame: Vec<u8>| {
        let is_tcp = frame[12..14] == [8, 0] && frame[23] == 6;
        let to = further.parse::<Ipv4Addr>().unwrap().octets();
        is_tcp && frame[30..34] == to && frame[47] & 2 != 0
    };
    // Without us.
    while !is_syn_there(wire.receive().unwrap()) {}
    drop(unprotected);

    let allow = |id, subject: Subject| rule(id, SocketAction::Allow).subject(subject);
    let program = Subject::new("good").exe(host.path("good"));
    let policy = Policy::builder()
        .socket_rule(allow(1, program).to_cidr(far.parse().unwrap()))
        .socket_rule(allow(2, Subject::new("root").uid(0)))
        .socket_rule(allow(3, Subject::new("root's group").gid(0)))
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .compile()
        .unwrap();
    let shield = host.start(&policy);
    let (_pump, events) = shield.events(64, Overflow::DropNewest).unwrap();
    assert_eq!(ask(&mut root, &format!("connect tcp {further}:80")), 0, "root may");
    let _accepted = connect(&mut good);
    let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
    assert_eq!(event.addr, Some(format!("{further}:80").parse().unwrap()));
    assert_eq!((event.verdict, event.reason), (SocketVerdict::Deny, SocketReason::Default));
    assert_eq!((event.uid, event.gid, event.unidentified), (SOCK_KERNEL, SOCK_KERNEL, true));
    let explained = shield.explain_event(&event).unwrap();
    assert_eq!(explained.agrees, Some(true), "{explained}");
    // And as a process that runs.
    let query = SocketQuery::connect(Protocol::TCP, event.addr.unwrap());
    let explained = shield.explain_socket(&query.by(shield.process_context(2).unwrap())).unwrap();
    assert_eq!(explained.why.verdict, SocketVerdict::Deny, "{explained}");
}

fn datagrams_are_checked() {
    checked(
        &Host::new(),
        &[
            &["open s 4 udp", "with s connect 10.9.0.2:53"],
            &["open s 6 udp", "with s connect [fd09::2]:53"],
            &["open s 6 udp", "with s connect [::ffff:10.9.0.2]:53"],
            // An address of IPv4 on a socket of IPv6.
            &["open s 6 udp", "with s connect 10.9.0.2:53"],
            &["open s 4 udp", "with s send 10.9.0.2:53"],
            &["open s 4 udp", "with s send-unspec 10.9.0.2:53"],
            &["open s 4 udp", "with s sendmsg 10.9.0.2:53"],
            &["open s 6 udp", "with s send [fd09::2]:53"],
            &["open s 6 udp", "with s send [::ffff:10.9.0.2]:53"],
            &["open s 6 udp", "with s send 10.9.0.2:53"],
            &["open s 6 udp", "with s sendmsg [fd09::2]:53"],
        ],
    );
}

/// Of several messages in one call, each is checked: those before the first that is refused are sent.
fn each_of_several_datagrams_is_checked() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let several = ["open s 4 udp", "with s sendmmsg 10.9.0.2:53 10.9.0.2:54 10.9.0.2:53"];
    assert_eq!(all(&mut test_process, &several), 3);
    let deny = |port| rule(1, SocketAction::Deny).port(port);
    let shield = host.start(&policy([deny(54)]));
    assert_eq!(all(&mut test_process, &several), 1);
    shield.apply(&policy([deny(53)])).unwrap();
    assert_eq!(all(&mut test_process, &several), EPERM);
}

/// Each connect(2) is checked; a connected socket may send.
fn each_connection_is_checked() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let refused = "with s connect 10.9.0.2:53";
    let orders = ["open s 4 udp", "with s connect 10.9.0.1:53", refused];
    assert_eq!(all(&mut test_process, &orders), 0);
    let _shield =
        host.start(&policy([rule(1, SocketAction::Deny).to_cidr("10.9.0.2".parse().unwrap())]));
    assert_eq!(all(&mut test_process, &orders), EPERM);
    // Still connected to the first.
    assert_eq!(ask(&mut test_process, "with s send 10.9.0.2:53"), EPERM);
    assert_eq!(all(&mut test_process, &["with s disconnect", refused]), EPERM);
    assert_eq!(ask(&mut test_process, "with s send 10.9.0.2:53"), EPERM);

    let order = ["open t 4 tcp", "with t connect 10.9.0.1:80", "with t disconnect"];
    assert_eq!(all(&mut test_process, &order), 0);
    assert_eq!(ask(&mut test_process, "with t connect 10.9.0.2:80"), EPERM);
}

fn io_uring_is_checked() {
    let host = Host::new();
    let mut pair = Pair::new(&host);
    let orders_by = |by: &str| {
        [
            [String::from("open s 4 tcp"), format!("with s uring-connect {by} 10.9.0.2:80")],
            [String::from("open s 4 udp"), format!("with s uring-send {by} 10.9.0.2:53")],
        ]
    };
    let mut orders = Vec::new();
    for by in ["caller", "worker", "poller"] {
        for [open, order] in orders_by(by) {
            match pair.both(&[&open, &order]) {
                (0, 0) => orders.push([open, order]),
                (1 | 38, other) => {
                    skip(format!("this kernel allows no io_uring: {other}"));
                }
                (22, 22) => skip_part(&format!("this kernel cannot {order}")),
                answers => panic!("{order}: {answers:?}"),
            }
        }
    }
    let shield = host.start(&only(&host.path("good")));
    for [open, order] in &orders {
        assert_eq!(pair.both(&[open, order]), (0, EPERM), "{order}");
    }
    // Nor is the process unidentified.
    let subject = Subject::new("").exe(host.path("bad"));
    shield.apply(&policy([rule(1, SocketAction::Deny).subject(subject)])).unwrap();
    for [open, order] in &orders {
        assert_eq!(pair.both(&[open, order]), (0, EPERM), "{order}");
    }
}

/// The process that connects is checked, whatever process created the socket.
fn the_process_that_connects_a_socket_is_checked() {
    let host = Host::new();
    let mut pair = Pair::new(&host);
    let (good, bad) = (host.path("good"), host.path("bad"));
    let Pair { allowed, other } = &mut pair;
    let listener = host.net.run(|| TcpListener::bind("10.9.0.2:80").unwrap()).unwrap();
    for (name, test_process) in [("allowed", &mut *allowed), ("other", &mut *other)] {
        assert_eq!(ask(test_process, &format!("mailbox {}", host.path(name).display())), 0);
    }
    let hand_over = |from: &mut TestProcess, orders: &[&str], name: &str, to: &mut TestProcess| {
        assert_eq!(all(from, orders), 0);
        assert_eq!(ask(from, &format!("post s {}", host.path(name).display())), 0);
        assert_eq!(ask(to, "receive s"), 0);
    };
    let (open, connect) = ("open s 4 tcp", "with s connect 10.9.0.2:80");
    hand_over(allowed, &[open], "other", other);
    assert_eq!(ask(other, connect), 0, "without us");
    let _shield = host.start(&only(&good));

    hand_over(allowed, &[open], "other", other);
    assert_eq!(ask(other, connect), EPERM);
    hand_over(other, &[open], "allowed", allowed);
    assert_eq!(ask(allowed, connect), 0);
    // A documented limit: an established connection is not checked.
    drop(listener);
    let listener = host.net.run(|| TcpListener::bind("10.9.0.2:80").unwrap()).unwrap();
    hand_over(allowed, &[open, "with s connect-and-wait 10.9.0.2:80"], "other", other);
    listener.accept().unwrap();
    assert_eq!(ask(other, "with s write"), 0);

    // Out of another process.
    assert_eq!(ask(allowed, open), 0);
    let number = ask(allowed, "number s");
    let take = format!("take s {} {number}", allowed.pid());
    assert_eq!(all(other, &[&take, connect]), EPERM);

    // Through execve(2), there and back.
    for (program, answer) in [(&bad, EPERM), (&good, 0)] {
        let exec = format!("exec {}", program.display());
        let orders = [&*exec, &*format!("take s self {number}"), "with s connect 10.9.0.2:81"];
        assert_eq!(all(allowed, &orders), answer);
    }
}

fn sockets_created_before_the_start_are_checked_at_connect() {
    let host = Host::new();
    let mut pair = Pair::new(&host);
    let listener = host.net.run(|| TcpListener::bind("10.9.0.2:80").unwrap()).unwrap();
    // Without a receiver, datagrams would be answered with an error.
    let _receiver = host.net.run(|| UdpSocket::bind("10.9.0.2:53").unwrap()).unwrap();
    for order in [
        "open stands 4 tcp",
        "with stands connect-and-wait 10.9.0.2:80",
        "open sends 4 udp",
        "with sends connect 10.9.0.2:53",
        "open stream 4 tcp",
        "open datagram 6 udp",
        "open bound 4 tcp",
        "with bound bind 10.9.0.1:8080",
    ] {
        assert_eq!(pair.both(&[order]), if order.ends_with("8080") { (0, 98) } else { (0, 0) });
    }
    let shield = host.start(&only(&host.path("good")));
    for order in [
        "with stream connect 10.9.0.2:81",
        "with datagram connect [fd09::2]:53",
        "with datagram send [fd09::2]:53",
        "with sends connect 10.9.0.2:54",
    ] {
        assert_eq!(pair.both(&[order]), (0, EPERM), "{order}");
    }
    // A limit that is stated: what stood before stands, and what was bound may listen.
    for order in ["with stands write", "with sends write"] {
        assert_eq!(pair.both(&[order]), (0, 0), "{order}");
    }
    listener.accept().unwrap();
    shield.apply(&only(&host.path("no-program"))).unwrap();
    assert_eq!(ask(&mut pair.allowed, "with bound listen"), 0);
}

/// bind(2) is checked. A documented limit: listen(2) without it is not.
fn bind_is_checked_and_listen_is_not() {
    let host = Host::new();
    checked(
        &host,
        &[
            &["open s 4 tcp", "with s bind 10.9.0.1:0"],
            &["open s 6 tcp", "with s bind [::ffff:10.9.0.1]:0"],
            &["open s 6 udp", "with s bind [fd09::1]:0"],
        ],
    );
    let mut test_process = host.test_process(&host.path("bad"));
    let _shield = host.start(&only(&host.path("good")));
    assert_eq!(all(&mut test_process, &["open s 4 tcp", "with s listen"]), 0);
}

/// A socket that is bound to the unspecified address is reached at each address of the host.
fn a_process_that_may_not_bind_an_address_may_not_bind_any() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let mut binds = || {
        ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80", "10.9.0.1:80", "[fd09::1]:80"].map(|at| {
            let family = if at.starts_with('[') { 6 } else { 4 };
            all(&mut test_process, &[&format!("open s {family} tcp"), &format!("with s bind {at}")])
        })
    };
    assert_eq!(binds(), [0; 5]);
    let ports = |rule: SocketRule| rule.direction(Direction::In).port(80);
    let at = |to: &str, action| ports(rule(1, action)).to_cidr(to.parse().unwrap());
    let deny4 = policy([at("10.9.0.1", SocketAction::Deny)]);
    let shield = host.start(&deny4);
    assert_eq!(binds(), [EPERM, EPERM, EPERM, EPERM, 0], "`::` serves IPv4, too");
    shield.apply(&policy([at("fd09::1", SocketAction::Deny)])).unwrap();
    assert_eq!(binds(), [0, EPERM, 0, 0, EPERM]);
    let may = |to: &str| policy([at(to, SocketAction::Allow), ports(rule(2, SocketAction::Deny))]);
    shield.apply(&may("10.9.0.1")).unwrap();
    assert_eq!(binds(), [EPERM, EPERM, EPERM, 0, EPERM]);
    shield.apply(&may("0.0.0.0/0")).unwrap();
    assert_eq!(binds(), [0, EPERM, 0, 0, EPERM]);
}

/// Protocols without a hook for addresses are checked at socket(2).
fn raw_and_ping_sockets_are_checked_at_creation() {
    let host = Host::new();
    host.net.sysctl("net/ipv4/ping_group_range", "0 0").unwrap();
    checked(
        &host,
        &[
            &["create 4 3 1"],   // ICMP, raw
            &["create 6 3 58"],  // ICMPv6, raw
            &["create 4 3 253"], // for experiments, raw
            &["create 4 3 6"],   // TCP, raw
            &["create 4 2 1"],   // ping
            &["create 6 2 58"],  // ping
        ],
    );
    // These are checked when they have a peer. A protocol that this kernel does not know, or only as
    // another one (SCTP), cannot be created.
    let _shield = host.start(&only(&host.path("good")));
    let mut test_process = host.test_process(&host.path("bad"));
    for order in ["create 4 1 0", "create 6 2 0", "create 4 1 6", "create 4 2 17"] {
        assert_eq!(ask(&mut test_process, order), 0, "{order}");
    }
    for order in ["create 4 5 0", "create 4 1 200", "create 4 2 6"] {
        assert_ne!(ask(&mut test_process, order), 0, "{order}");
    }
}

/// The kernel connects the unspecified address to an address of the host, and rules are checked for that
/// one: from a bound socket it would lead to the address that the socket is bound to.
fn the_unspecified_address_leads_to_the_checked_address() {
    let host = Host::new();
    let bound = [
        ("4 udp", "10.9.0.1:0", "0.0.0.0:53", "10.9.0.1:53", "127.0.0.1:53"),
        ("6 udp", "[::ffff:10.9.0.1]:0", "[::]:53", "[::ffff:127.0.0.1]:53", "[::1]:53"),
    ];
    let connected = |test_process: &mut TestProcess,
                     (socket, own, to, ..): (_, _, _, &str, &str)| {
        let orders: [&str; 3] = [
            &format!("open s {socket}"),
            &format!("with s bind {own}"),
            &format!("with s connect {to}"),
        ];
        all(test_process, &orders)
    };
    let program = host.program("program");
    let mut test_process = host.test_process(&program);
    for case in bound {
        assert_eq!(connected(&mut test_process, case), 0, "without us: {case:?}");
        let peer = ask(&mut test_process, &format!("with s is-connected-to {}", case.3));
        assert_eq!(peer, 0, "without us: {case:?}");
    }
    let own = AddressGroup::new("own").cidrs(["127.0.0.1", "::1"].map(|own| own.parse().unwrap()));
    let policy = Policy::builder()
        .addresses(own)
        .socket_rule(rule(1, SocketAction::Allow).to("own"))
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .compile()
        .unwrap();
    let _shield = host.start(&policy);
    for case in bound {
        // What is bound to IPv4 cannot reach IPv6's own address.
        if connected(&mut test_process, case) == 0 {
            let own = ask(&mut test_process, &format!("with s is-connected-to {}", case.4));
            assert_eq!(own, 0, "{case:?}");
        }
    }
    assert_eq!(ask(&mut test_process, "connect udp 0.0.0.0:53"), 0);
    assert_eq!(ask(&mut test_process, "connect udp 10.9.0.1:53"), EPERM);
}

/// Sockets that are checked at creation are not checked again: no rule could allow them.
fn ping_sockets_that_may_be_created_may_connect() {
    let host = Host::new();
    host.net.sysctl("net/ipv4/ping_group_range", "0 0").unwrap();
    let program = host.program("program");
    let mut test_process = host.test_process(&program);
    let ping = |test_process: &mut TestProcess| {
        all(test_process, &["open s 4 ping", "with s connect 10.9.0.2:0"])
    };
    assert_eq!(ping(&mut test_process), 0, "without us");
    let create = rule(1, SocketAction::Allow).direction(Direction::Create);
    let policy = Policy::builder()
        .socket_rule(create.protocol(Protocol::ICMP))
        .socket_default(Direction::Out, SocketVerdict::Deny)
        .socket_default(Direction::Create, SocketVerdict::Deny)
        .danger_packet_sockets_unseen(true)
        .compile()
        .unwrap();
    let shield = host.start(&policy);
    assert_eq!(ping(&mut test_process), 0);
    assert_eq!(ask(&mut test_process, "connect udp 10.9.0.2:53"), EPERM);
    shield.apply(&only(&host.path("no-program"))).unwrap();
    assert_eq!(ask(&mut test_process, "create 4 2 1"), EPERM);
}

fn udp_lite_is_checked_at_creation() {
    let orders: [&[&str]; 2] = [&["create 4 2 136"], &["create 6 2 136"]];
    checked(&Host::new(), &orders);
}

fn sctp_is_checked_at_creation() {
    // As a stream, and as packets in sequence.
    let orders: [&[&str]; 2] = [&["create 4 1 132"], &["create 6 5 132"]];
    checked(&Host::new(), &orders);
}

fn dccp_is_checked_at_creation() {
    checked(&Host::new(), &[&["create 4 6 33"]]);
}

fn l2tp_is_checked_at_creation() {
    checked(&Host::new(), &[&["create 4 2 115"]]);
}

fn procs(dir: &Path) -> String {
    format!("write {}/cgroup.procs 0", dir.display())
}

fn a_child_cgroup_is_no_escape() {
    let host = Host::new();
    let bad = host.program("bad");
    let _shield = host.start(&only(&host.program("good")));
    for namespace in [false, true] {
        let mut test_process = host.test_process(&bad);
        if namespace {
            assert_eq!(ask(&mut test_process, "apart cgroups"), 0);
        }
        let mut dir = host.cgroup.dir().to_owned();
        for name in ["below", "further"] {
            dir.push(format!("{name}-{namespace}"));
            let make = format!("mkdir {}", dir.display());
            assert_eq!(all(&mut test_process, &[&make, &procs(&dir), NEAR]), EPERM);
        }
    }
}

/// Limits that are stated: a socket belongs to the group in which it was made, and root may leave.
fn a_socket_belongs_to_the_cgroup_of_its_creation() {
    let host = Host::new();
    let outside = Cgroup::new("outside").unwrap();
    let bad = host.program("bad");
    let mut test_process = host.test_process(&bad);
    let connect = |name: &str| format!("with {name} connect 10.9.0.2:80");
    let orders = ["open s 4 tcp", &procs(outside.dir()), &connect("s"), &procs(host.cgroup.dir())];
    assert_eq!(all(&mut test_process, &orders), 0);
    let _shield = host.start(&only(&host.program("good")));
    assert_eq!(
        all(&mut test_process, &["open s 4 tcp", &procs(outside.dir()), &connect("s")]),
        EPERM
    );
    assert_eq!(all(&mut test_process, &["open t 4 tcp", &connect("t")]), 0, "outside");
    let orders = ["open u 4 tcp", &procs(host.cgroup.dir()), &connect("u")];
    assert_eq!(all(&mut test_process, &orders), 0, "made outside");
    assert_eq!(ask(&mut test_process, NEAR), EPERM, "made inside");
}

fn denying(port: u16) -> CompiledPolicy {
    policy([rule(1, SocketAction::Deny).port(port)])
}

fn answers(test_process: &mut TestProcess) -> [u64; 3] {
    [80, 81, 82].map(|port| ask(test_process, &format!("connect tcp 10.9.0.2:{port}")))
}

/// Of two instances both have to allow, and neither needs the other.
fn instances_side_by_side_both_decide() {
    let host = Host::new();
    let one = host.program("one");
    let inner = host.cgroup.child("inner").unwrap();
    let (mut outside, mut inside) = (host.test_process(&one), host.test_process_in(&inner, &one));
    let start = |instance: &str, cgroup: &Path, port: u16| {
        Shield::builder(instance).cgroup(cgroup).start(&denying(port)).unwrap()
    };
    assert_eq!((answers(&mut outside), answers(&mut inside)), ([0, 0, 0], [0, 0, 0]));
    let first = start("first", host.cgroup.dir(), 80);
    let second = start("second", inner.dir(), 81);
    assert_eq!(answers(&mut outside), [EPERM, 0, 0]);
    assert_eq!(answers(&mut inside), [EPERM, EPERM, 0]);
    let third = start("third", host.cgroup.dir(), 81);
    assert_eq!(answers(&mut outside), [EPERM, EPERM, 0]);
    drop(first);
    assert_eq!((answers(&mut outside), answers(&mut inside)), ([0, EPERM, 0], [0, EPERM, 0]));
    drop(third);
    assert_eq!((answers(&mut outside), answers(&mut inside)), ([0, 0, 0], [0, EPERM, 0]));
    drop(second);
    assert_eq!(answers(&mut inside), [0, 0, 0]);
}

/// The number of the program that a link of ours has attached for connect(2).
fn connect4_of(cgroup: &Cgroup) -> String {
    const BPF_CGROUP_INET4_CONNECT: &str = "10";
    let group = fs::metadata(cgroup.dir()).unwrap().ino().to_string();
    let of_link = |text: String| {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.map(str::to_owned)
        };
        let kind = field("attach_type")?;
        let is_it = field("cgroup_id")? == group && kind == BPF_CGROUP_INET4_CONNECT;
        if is_it { field("prog_id") } else { None }
    };
    // A file may be closed meanwhile.
    let files = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).find_map(of_link).unwrap()
}

fn programs_of_other_agents_decide_too() {
    let host = Host::new();
    let one = host.program("one");
    let inner = host.cgroup.child("inner").unwrap();
    let elsewhere = Cgroup::new("elsewhere").unwrap();
    // Another agent's program that refuses a port: one of ours, attached by another instance.
    let _theirs = Shield::builder("theirs").cgroup(elsewhere.dir()).start(&denying(81)).unwrap();
    if Command::new("bpftool").arg("version").output().is_err() {
        skip("no bpftool here");
    }
    let id = &*connect4_of(&elsewhere);
    let (outer, inner_dir) = (host.cgroup.dir().to_str().unwrap(), inner.dir().to_str().unwrap());
    let at = |what: &str, group: &str, how: &[&str]| {
        let words = ["cgroup", what, group, "connect4", "id", id];
        let ran = Command::new("bpftool").args(words).args(how).output().unwrap();
        assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    let mut test_process = host.test_process_in(&inner, &one);
    assert_eq!(answers(&mut test_process), [0, 0, 0]);
    at("attach", inner_dir, &[]);
    assert_eq!(answers(&mut test_process), [0, EPERM, 0]);
    // Ours is above theirs, which was attached without flags.
    let ours = host.start(&denying(80));
    assert_eq!(answers(&mut test_process), [EPERM, EPERM, 0]);
    drop(ours);
    // There and below, ours may not attach: the error names the hook, and nothing of ours stays.
    let refused = Shield::builder("ours").cgroup(inner.dir()).start(&denying(80)).unwrap_err();
    assert_eq!(refused.kind(), ShieldErrorKind::Bpf, "{refused}");
    assert!(refused.to_string().contains("connect4"), "{refused}");
    assert_eq!(answers(&mut test_process), [0, EPERM, 0]);
    at("detach", inner_dir, &[]);
    at("attach", outer, &[]);
    let refused = Shield::builder("ours").cgroup(inner.dir()).start(&denying(80)).unwrap_err();
    assert!(refused.to_string().contains("connect4"), "{refused}");
    at("detach", outer, &[]);
    // Beside programs of other agents.
    at("attach", inner_dir, &["multi"]);
    let ours = host.start_on(&inner, &denying(80));
    assert_eq!(answers(&mut test_process), [EPERM, EPERM, 0]);
    at("detach", inner_dir, &[]);
    assert_eq!(answers(&mut test_process), [EPERM, 0, 0]);
    drop(ours);
    assert_eq!(answers(&mut test_process), [0, 0, 0]);
}

/// The kernel alone returns to the former rules.
fn provisional_rules_end_at_their_deadline() {
    let host = Host::new();
    let mut test_process = host.test_process(&host.program("one"));
    let shield = host.start(&denying(80));
    let open = Policy::builder().compile().unwrap();
    for (mend, before, after) in [(&open, EPERM, 0), (&denying(81), EPERM, 0)] {
        assert_eq!(ask(&mut test_process, NEAR), before);
        shield.apply_with(mend, provisional(Duration::from_secs(2))).unwrap();
        assert_eq!(ask(&mut test_process, NEAR), after);
        let began = Instant::now();
        while ask(&mut test_process, NEAR) == after {
            assert!(began.elapsed() < PATIENCE, "the deadline does not come");
        }
        assert_eq!(answers(&mut test_process), [EPERM, 0, 0]);
        assert_eq!(shield.confirm().unwrap_err().kind(), ShieldErrorKind::Expired);
    }
    shield.apply_with(&open, provisional(PATIENCE)).unwrap();
    assert_eq!(ask(&mut test_process, NEAR), 0);
    shield.confirm().unwrap();
    assert_eq!(ask(&mut test_process, NEAR), 0);
}
