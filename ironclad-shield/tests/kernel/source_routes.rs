//! Needs root: source-routed packets. Rules are checked for the last stop; the packet goes to the first
//! one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;

use ironclad_core::SocketVerdict;
use ironclad_core::abi::SocketReason;
use ironclad_lab::PacketSocket;
use ironclad_lab::test_process::TestProcess;
use ironclad_policy::Policy;
use ironclad_policy::socket::{AddressGroup, Direction, SocketAction, Subject};
use ironclad_shield::{EventReceiver, Overflow, Shield, SocketRecord};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use socket2::{Domain, Socket, Type};

use crate::testbed::{EPERM, Host, PATIENCE, rule};
use ironclad_lab::harness::{Test, skip_part};
use ironclad_lab::test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(source_routes_do_not_leave).shared(),
        test!(source_routes_of_unprivileged_processes_do_not_leave).shared(),
        test!(connections_by_source_routes_do_not_leave).shared(),
        test!(replies_do_not_follow_source_routes).shared(),
        test!(source_routes_leave_where_no_rule_names_addresses).shared(),
        test!(headers_of_any_shape_are_read_to_their_end).shared(),
    ]
}

/// The first stop, of either family, which no process may reach.
const STOPS: [&str; 2] = ["10.9.0.2", "fd09::2"];
/// No other number in these packets is this one.
const PORT: u16 = 0xbeef;
const TO4: &str = "10.9.0.1:48879";
const TO6: &str = "[fd09::1]:48879";

/// Levels and options: `IP_OPTIONS`, `IP_RETOPTS`, `IPV6_HOPOPTS`, `IPV6_RTHDRDSTOPTS`, `IPV6_RTHDR`.
const OPTIONS4: &str = "0 4";
const SEND_OPTIONS4: &str = "0 7";
const HOPS6: &str = "41 54";
const STOP_OPTIONS6: &str = "41 55";
const ROUTE6: &str = "41 57";

/// Six bytes that say nothing.
const PADDING6: &str = "0000010400000000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A routing header of IPv6 (RFC 8754) with so many stops left.
fn routing_header(left: u8) -> String {
    let stop = STOPS[1].parse::<Ipv6Addr>().unwrap().octets();
    // The kernel sends to the stop with this number first.
    let stops = if left == 0 { [stop, [0; 16]] } else { [[0; 16], stop] };
    hex(&[&[0, 4, 4, left, 1, 0, 0, 0], &stops[0][..], &stops[1][..]].concat())
}

/// One of Mobile IPv6 (RFC 6275), which has but one stop.
fn home_address() -> String {
    let stop = STOPS[1].parse::<Ipv6Addr>().unwrap().octets();
    hex(&[&[0, 2, 2, 1, 0, 0, 0, 0], &stop[..]].concat())
}

/// A loose or strict source route of IPv4 (RFC 791), behind an option that says nothing.
fn source_route(kind: u8) -> String {
    let stop = STOPS[0].parse::<Ipv4Addr>().unwrap().octets();
    hex(&[&[1, kind, 7, 4][..], &stop].concat())
}

/// Orders for a socket of this family that send to the stop of the family in [`STOPS`].
#[derive(Debug)]
struct Route {
    family: &'static str,
    protocol: &'static str,
    /// Options of the socket, which stay set.
    options: Vec<String>,
    sends: Vec<String>,
}

impl Route {
    fn new<const N: usize>(family: &'static str, options: &[String], sends: [String; N]) -> Self {
        Self { family, protocol: "udp", options: options.to_vec(), sends: sends.to_vec() }
    }

    fn stop(&self) -> &'static str {
        STOPS[usize::from(self.family == "6")]
    }

    fn set(&self, test_process: &mut TestProcess, name: &str) -> u64 {
        let open = format!("open {name} {} {}", self.family, self.protocol);
        assert_eq!(test_process.ask(&open).unwrap(), 0, "{open}");
        orders(test_process, name, &self.options)
    }

    fn send(&self, test_process: &mut TestProcess, name: &str) -> u64 {
        orders(test_process, name, &self.sends)
    }

    fn go(&self, test_process: &mut TestProcess) -> u64 {
        match self.set(test_process, "s") {
            0 => self.send(test_process, "s"),
            refused => refused,
        }
    }
}

/// The first answer that is none of success.
fn orders(test_process: &mut TestProcess, name: &str, orders: &[String]) -> u64 {
    let mut answers =
        orders.iter().map(|order| test_process.ask(&format!("with {name} {order}")).unwrap());
    answers.find(|&answer| answer != 0).unwrap_or(0)
}

fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    let send = |to: &str| [format!("send {to}")];
    let write = |to: &str| [format!("connect {to}"), "write".to_owned()];
    for left in [0, 1] {
        let option = format!("option {ROUTE6} {}", routing_header(left));
        routes.push(Route::new("6", std::slice::from_ref(&option), send(TO6)));
        routes.push(Route::new("6", std::slice::from_ref(&option), write(TO6)));
        let [hops, stops] = [HOPS6, STOP_OPTIONS6].map(|name| format!("option {name} {PADDING6}"));
        routes.push(Route::new("6", &[hops, stops, option], send(TO6)));
    }
    let header = home_address();
    routes.push(Route::new("6", &[format!("option {ROUTE6} {header}")], send(TO6)));
    routes.push(Route::new("6", &[], [format!("send-with {ROUTE6} {header} {TO6}")]));
    for kind in [131, 137] {
        let route = source_route(kind);
        let option = [format!("option {OPTIONS4} {route}")];
        routes.push(Route::new("4", &option, send(TO4)));
        routes.push(Route::new("4", &option, write(TO4)));
        routes.push(Route::new("4", &[], [format!("send-with {SEND_OPTIONS4} {route} {TO4}")]));
    }
    routes
}

/// Routes that open a connection.
fn connections() -> [Route; 2] {
    let option4 = format!("option {OPTIONS4} {}", source_route(131));
    let option6 = format!("option {ROUTE6} {}", routing_header(1));
    let of = |family, option, to: &str| Route {
        protocol: "tcp",
        ..Route::new(family, &[option], [format!("connect {to}")])
    };
    [of("4", option4, TO4), of("6", option6, TO6)]
}

/// Waits for a packet to [`PORT`]; where it goes.
fn next(wire: &PacketSocket) -> String {
    loop {
        let frame = wire.receive().unwrap();
        let (to, protocol, rest) = match frame[14] >> 4 {
            4 => (IpAddr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap()), frame[23], 34),
            _ => (IpAddr::from(<[u8; 16]>::try_from(&frame[38..54]).unwrap()), frame[20], 54),
        };
        // Errors hold what they are about. Options and extensions come before the ports.
        let is_error = [1, 58].contains(&protocol);
        if !is_error && frame[rest..].chunks(2).any(|pair| pair == PORT.to_be_bytes()) {
            return to.to_string();
        }
    }
}

const EINVAL: u64 = 22;

struct Wired {
    host: Host,
    wire: PacketSocket,
    test_process: TestProcess,
}

impl Wired {
    fn new() -> Self {
        let host = Host::new();
        let wire = host.net.run(|| PacketSocket::listen("lo").unwrap()).unwrap();
        let test_process = host.test_process(&host.program("one"));
        Self { host, wire, test_process }
    }

    /// The routes that this kernel supports.
    fn routes(&mut self) -> Vec<Route> {
        let (there, lacking): (Vec<_>, Vec<_>) =
            routes().into_iter().partition(|route| route.go(&mut self.test_process) != EINVAL);
        // Kernels without Mobile IPv6.
        assert!(
            lacking.iter().all(|route| format!("{route:?}").contains(&home_address())),
            "{lacking:?}"
        );
        if !lacking.is_empty() {
            skip_part(&format!("{} routes of Mobile IPv6, which this kernel lacks", lacking.len()));
        }
        for route in &there {
            while next(&self.wire) != route.stop() {}
            next(&self.wire);
        }
        there
    }

    /// Checks that a route works.
    fn goes(&mut self, route: &Route, when: &str) {
        assert_eq!(route.go(&mut self.test_process), 0, "{when}: {route:?}");
        assert_eq!(next(&self.wire), route.stop(), "{when}: {route:?}");
        // On `lo` there is each packet twice.
        assert_eq!(next(&self.wire), route.stop(), "{when}: {route:?}");
    }
}

fn refusing_stops() -> Policy {
    let stops = AddressGroup::new("stops").cidrs(STOPS.map(|stop| stop.parse().unwrap()));
    let deny = rule(1, SocketAction::Deny).to("stops");
    Policy::builder().default_events_per_second(1000).addresses(stops).socket_rule(deny)
}

fn routed(events: &EventReceiver) -> SocketRecord {
    loop {
        let event = events.recv_timeout(PATIENCE).unwrap().into_socket().unwrap();
        if event.reason == SocketReason::Route {
            return event;
        }
    }
}

fn refused(shield: &Shield) -> (u64, u64) {
    let counts = shield.socket_counts().unwrap();
    let default = counts.into_iter().find(|count| count.rule.is_none()).unwrap();
    (default.denied, default.would_deny)
}

fn source_routes_do_not_leave() {
    let mut wired = Wired::new();
    let routes = wired.routes();
    for route in &routes {
        wired.goes(route, "without us");
    }
    let named = |number: usize| format!("before{number}");
    for (number, route) in routes.iter().enumerate() {
        assert_eq!(route.set(&mut wired.test_process, &named(number)), 0, "{route:?}");
    }
    let shield = wired.host.start(&refusing_stops().compile().unwrap());
    let (_pump, events) = shield.events(64, Overflow::DropNewest).unwrap();
    for stop in ["udp 10.9.0.2:48879", "udp [fd09::2]:48879"] {
        assert_eq!(wired.test_process.ask(&format!("send {stop}")).unwrap(), EPERM);
    }
    let mut count = 0;
    let mut expect = |test_process: &mut TestProcess, route: &Route, answer, stop: Option<&str>| {
        count += 1;
        assert_eq!(answer, EPERM, "{route:?}");
        assert_eq!(refused(&shield), (count, 0), "{route:?}");
        let event = routed(&events);
        assert_eq!(event.addr.map(|addr| addr.ip().to_string()).as_deref(), stop, "{route:?}");
        assert_eq!((event.verdict, event.rule, event.uid), (SocketVerdict::Deny, None, 0));
        assert_eq!((event.pid, event.unidentified), (0, true));
        let explained = shield.explain_event(&event).unwrap();
        assert_eq!((explained.is_source_route, explained.agrees), (true, None));
        assert!(!explained.why.certain);
        assert_eq!(explained.cgroup.as_deref(), Some(wired.host.cgroup.path()));
        assert!(explained.to_string().contains("a source route"), "{explained}");
        // No other process is held up.
        assert_eq!(test_process.ask("send udp 10.9.0.1:1").unwrap(), 0);
    };
    for (number, route) in routes.iter().enumerate() {
        // An option that was set before leaves with the packets, and is refused there.
        let answer = route.send(&mut wired.test_process, &named(number));
        expect(&mut wired.test_process, route, answer, Some(route.stop()));
        // It cannot be set any more.
        let answer = route.go(&mut wired.test_process);
        let stop = route.options.is_empty().then(|| route.stop());
        expect(&mut wired.test_process, route, answer, stop);
    }
    // None of them was on the wire, where this comes next.
    assert_eq!(wired.test_process.ask(&format!("send udp {TO4}")).unwrap(), 0);
    assert_eq!(next(&wired.wire), "10.9.0.1");
    // A flow label may come with options, which every user of the label sends.
    let label = format!("option 41 32 {}", hex(&[0; 32]));
    assert_ne!(wired.test_process.ask(&format!("with before0 {label}")).unwrap(), EPERM);
    let with_options = format!("option 41 32 {}", hex(&[0; 33]));
    assert_eq!(wired.test_process.ask(&format!("with before0 {with_options}")).unwrap(), EPERM);
    // Removing it is allowed, and so are long options and other ones.
    for order in [
        format!("option {ROUTE6} "),
        format!("option 41 67 {}", hex(&1i32.to_ne_bytes())),
        format!("option 1 13 {}", hex(&[0; 5000])),
    ] {
        assert_eq!(wired.test_process.ask(&format!("with before0 {order}")).unwrap(), 0, "{order}");
    }
}

/// They need no privilege.
fn source_routes_of_unprivileged_processes_do_not_leave() {
    const USER: u32 = 4711;
    let mut wired = Wired::new();
    assert_eq!(wired.test_process.ask(&format!("uid {USER}")).unwrap(), 0);
    // Those of IPv4 need a capability.
    let [_, route] = connections();
    let routes = [Route { protocol: "udp", sends: vec![format!("send {TO6}")], ..route }];
    for route in &routes {
        wired.goes(route, "without us");
        assert_eq!(route.set(&mut wired.test_process, route.family), 0);
    }
    let shield = wired.host.start(&refusing_stops().compile().unwrap());
    let (_pump, events) = shield.events(64, Overflow::DropNewest).unwrap();
    for route in &routes {
        assert_eq!(route.send(&mut wired.test_process, route.family), EPERM, "{route:?}");
        assert_eq!(routed(&events).uid, USER);
        assert_eq!(route.set(&mut wired.test_process, "s"), EPERM, "{route:?}");
        assert_eq!(routed(&events).uid, USER);
    }
}

/// A SYN, and each time that the kernel sends it again.
fn connections_by_source_routes_do_not_leave() {
    let mut wired = Wired::new();
    for route in connections() {
        assert_eq!(route.go(&mut wired.test_process), 0, "without us: {route:?}");
        while next(&wired.wire) != route.stop() {}
    }
    let mut wired = Wired::new();
    for route in connections() {
        assert_eq!(route.set(&mut wired.test_process, route.family), 0);
    }
    let shield = wired.host.start(&refusing_stops().compile().unwrap());
    let (_pump, events) = shield.events(64, Overflow::DropNewest).unwrap();
    for route in connections() {
        let answer = route.send(&mut wired.test_process, route.family);
        assert_eq!(answer, 0, "no answer yet: {route:?}");
        // The second by a timer of the kernel's, which belongs to no process. That of the connection
        // before goes on.
        let mut seen = 0;
        while seen < 2 {
            let event = routed(&events);
            let to = event.addr.unwrap().ip().to_string();
            assert!(STOPS.contains(&to.as_str()), "{event:?}");
            if to == route.stop() {
                assert_eq!(event.protocol.abi(), if route.family == "4" { 6 } else { 43 });
                seen += 1;
            }
        }
    }
    assert_eq!(wired.test_process.ask(&format!("send udp {TO6}")).unwrap(), 0);
    assert_eq!(next(&wired.wire), "fd09::1");
}

/// Replies to a SYN use the options of the listening socket, and belong to no socket.
fn replies_do_not_follow_source_routes() {
    let mut wired = Wired::new();
    let option = format!("with s option {ROUTE6} {}", routing_header(1));
    let bind = format!("with s bind {TO6}");
    let set = |test_process: &mut TestProcess| {
        assert_eq!(test_process.ask("open s 6 tcp").unwrap(), 0);
        assert_eq!(test_process.ask(&bind).unwrap(), 0);
        test_process.ask(&option).unwrap()
    };
    // The client is outside of the cgroup.
    let syn = |host: &Host| {
        let connect = || {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let to: SocketAddr = TO6.parse().unwrap();
            // The answer is not waited for.
            let _ = socket.connect(&to.into());
            socket
        };
        host.net.run(connect).unwrap()
    };
    assert_eq!(set(&mut wired.test_process), 0);
    assert_eq!(wired.test_process.ask("with s listen").unwrap(), 0);
    let _waits = syn(&wired.host);
    while next(&wired.wire) != STOPS[1] {}

    let mut wired = Wired::new();
    let _shield = wired.host.start(&refusing_stops().compile().unwrap());
    assert_eq!(set(&mut wired.test_process), EPERM);
    assert_eq!(wired.test_process.ask("with s listen").unwrap(), 0);
    let _waits = syn(&wired.host);
    // The SYN and its answer, each twice.
    for _ in 0..4 {
        assert_ne!(next(&wired.wire), STOPS[1]);
    }
}

/// Without rules that name addresses, all routes lead to allowed addresses; and in a dry run.
fn source_routes_leave_where_no_rule_names_addresses() {
    let mut wired = Wired::new();
    let routes = wired.routes();
    let subject = Subject::new("one").exe(wired.host.path("one"));
    let by_program = Policy::builder()
        .socket_rule(rule(1, SocketAction::Allow).subject(subject))
        .socket_default(Direction::Out, SocketVerdict::Deny);
    let shield = wired.host.start(&by_program.compile().unwrap());
    for route in &routes {
        wired.goes(route, "no address in the rules");
    }
    assert_eq!(refused(&shield), (0, 0));
    shield.apply(&refusing_stops().dry_run(true).compile().unwrap()).unwrap();
    for route in &routes {
        wired.goes(route, "dry run");
    }
    // Once when the option is set, and once when the socket sends.
    let count = routes.iter().map(|route| 1 + u64::from(!route.options.is_empty())).sum();
    assert_eq!(refused(&shield), (0, count));
    // Other options are not refused, with rules that name addresses.
    shield.apply(&refusing_stops().compile().unwrap()).unwrap();
    let timestamps = hex(&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let option = format!("option {OPTIONS4} {timestamps}");
    let padding = format!("option {HOPS6} {PADDING6}");
    let other_options = [
        ("10.9.0.1", Route::new("4", &[option], [format!("send {TO4}")])),
        ("fd09::1", Route::new("6", &[padding], [format!("send {TO6}")])),
    ];
    for (to, route) in other_options {
        assert_eq!(route.go(&mut wired.test_process), 0, "{route:?}");
        assert_eq!(next(&wired.wire), to, "{route:?}");
        assert_eq!(next(&wired.wire), to, "{route:?}");
    }
}

/// A part of a header that a packet is made of, and whether the packet has to stay for it.
#[derive(Clone, Debug)]
struct Part {
    /// The number of its protocol, or the option's kind.
    kind: u8,
    bytes: Vec<u8>,
    stays: bool,
}

/// Extension headers (RFC 8200, 4302, 6275, 7401, 5533), whose first byte says what comes next.
fn extension() -> impl Strategy<Value = Part> {
    let fragment = any::<[u8; 3]>().prop_map(|rest| {
        // The first of several, with what belongs before the rest.
        let bytes = [&[0, rest[0], 0, 1][..], &[rest[1], rest[2], 0, 0]].concat();
        Part { kind: 44, bytes, stays: false }
    });
    let eights = (prop::sample::select(vec![0, 60, 135, 139, 140]), 0..4u8, any::<u8>());
    let eights = eights.prop_map(|(kind, len, fill)| {
        let mut bytes = vec![fill; 8 * (usize::from(len) + 1)];
        bytes[1] = len;
        Part { kind, bytes, stays: false }
    });
    let fours = (1..6u8, any::<u8>()).prop_map(|(len, fill)| {
        let mut bytes = vec![fill; 4 * (usize::from(len) + 2)];
        bytes[1] = len;
        Part { kind: 51, bytes, stays: false }
    });
    let routing = (0..3u8, any::<[u8; 6]>()).prop_map(|(len, rest)| {
        let mut bytes = vec![0; 8 * (usize::from(len) + 1)];
        bytes[1] = len;
        bytes[2..8].copy_from_slice(&rest);
        Part { kind: 43, bytes, stays: true }
    });
    prop_oneof![4 => eights, 2 => fours, 1 => fragment, 1 => routing]
}

fn option() -> impl Strategy<Value = Part> {
    let named = |kind: u8, len: u8, fill| {
        let mut bytes = vec![fill; usize::from(len)];
        (bytes[0], bytes[1]) = (kind, len);
        bytes
    };
    let other = (2..=255u8, 2..9u8, any::<u8>()).prop_map(move |(kind, len, fill)| {
        let stays = [131, 137].contains(&kind);
        Part { kind, bytes: named(kind, len, fill), stays }
    });
    let route = (prop::sample::select(vec![131u8, 137]), 3..12u8, any::<u8>());
    let route = route.prop_map(move |(kind, len, fill)| Part {
        kind,
        bytes: named(kind, len, fill),
        stays: true,
    });
    let nothing = Just(Part { kind: 1, bytes: vec![1], stays: false });
    // An option has at least two bytes.
    let short = (2..=255u8, 0..2u8).prop_map(|(kind, len)| Part {
        kind,
        bytes: vec![kind, len],
        stays: true,
    });
    prop_oneof![6 => other, 2 => route, 4 => nothing, 1 => short]
}

/// A packet of IPv6 with these extension headers and eight bytes of UDP, and whether it may leave.
fn packet6(parts: &[Part], cut: bool) -> (Vec<u8>, bool) {
    const DEPTH: usize = 8;
    let mut body: Vec<u8> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let begin = body.len();
        body.extend(&part.bytes);
        body[begin] = parts.get(at + 1).map_or(17, |next| next.kind);
    }
    let whole = body.len();
    body.extend([1, 2, 3, 4, 0, 8, 0, 0]);
    // Without the first bytes of the last extension, its kind is not known.
    let last = parts.last().map_or(0, |last| last.bytes.len());
    let cut = cut && last > 0;
    if cut {
        body.truncate(whole - last + 4);
    }
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
    packet[4..6].copy_from_slice(&(body.len() as u16).to_be_bytes());
    packet[6] = parts.first().map_or(17, |first| first.kind);
    for addr in ["fd09::1", "fd09::1"] {
        packet.extend(addr.parse::<Ipv6Addr>().unwrap().octets());
    }
    packet.extend(body);
    let stays = parts.iter().any(|part| part.stays) || parts.len() > DEPTH || cut;
    (packet, !stays)
}

/// One of IPv4 with these options, as far as they fit, and perhaps an end before the rest.
fn packet4(parts: &[Part], end: Option<usize>) -> (Vec<u8>, bool) {
    let (mut options, mut leaves, mut ended) = (Vec::new(), true, false);
    for (at, part) in parts.iter().enumerate() {
        let takes_end = end == Some(at);
        if options.len() + part.bytes.len() + usize::from(takes_end) > 40 {
            break;
        }
        if takes_end {
            options.push(0);
            ended = true;
        }
        options.extend(&part.bytes);
        leaves &= ended || !part.stays;
        if part.stays && part.bytes.len() == 2 && !ended {
            break;
        }
    }
    options.resize(options.len().next_multiple_of(4), 0);
    let len = 20 + options.len();
    let mut packet = vec![0x40 | (len / 4) as u8, 0, 0, (len + 8) as u8, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend([10, 9, 0, 1, 10, 9, 0, 1]);
    packet.extend(options);
    packet.extend([1, 2, 3, 4, 0, 8, 0, 0]);
    (packet, leaves)
}

/// A process that may create raw sockets may write any headers.
fn headers_of_any_shape_are_read_to_their_end() {
    let wired = Wired::new();
    let mut test_process = wired.test_process;
    for family in ["4", "6"] {
        assert_eq!(test_process.ask(&format!("open raw{family} {family} raw")).unwrap(), 0);
    }
    let shapes = (
        prop::collection::vec(extension(), 0..11),
        prop::bool::weighted(0.1),
        prop::collection::vec(option(), 0..8),
        prop::option::weighted(0.3, 0..8usize),
    );
    let seen = Mutex::new([[0u32; 2]; 2]);
    let test_process = Mutex::new(test_process);
    let check = |is_with: bool, cases: u32| {
        let config = Config { failure_persistence: None, ..Config::with_cases(cases) };
        let ran = TestRunner::new(config).run(&shapes, |(extensions, cut, options, end)| {
            let packets = [
                ("4", "10.9.0.1:0", packet4(&options, end)),
                ("6", "[fd09::1]:0", packet6(&extensions, cut)),
            ];
            for (at, (family, to, (bytes, leaves))) in packets.into_iter().enumerate() {
                let order = format!("with raw{family} send-bytes {} {to}", hex(&bytes));
                let answer = test_process.lock().unwrap().ask(&order).unwrap();
                let expected = if leaves || !is_with { 0 } else { EPERM };
                prop_assert_eq!(answer, expected, "{}", order);
                seen.lock().unwrap()[at][usize::from(leaves)] += 1;
            }
            Ok(())
        });
        ran.unwrap();
    };
    check(false, 50);
    let _shield = wired.host.start(&refusing_stops().compile().unwrap());
    check(true, 4000);
    let seen = seen.into_inner().unwrap();
    assert!(seen.iter().flatten().all(|&count| count > 400), "{seen:?}");
}
