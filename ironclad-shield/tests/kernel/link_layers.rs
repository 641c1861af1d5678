//! Needs root: interfaces without Ethernet headers, in namespaces of the tests' own.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ironclad_core::abi::Reason;
use ironclad_core::{Action, ErrorChain, RuleId, Verdict};
use ironclad_lab::harness::Test;
use ironclad_lab::packet::{Frame, UDP, udp};
use ironclad_lab::{Lab, Namespace, test};
use ironclad_policy::{AddressSet, CompiledPolicy, Policy};
use ironclad_shield::{BpfErrorKind, Interface, LinkLayer, Shield, ShieldErrorKind, XdpMode};
use ironclad_syscalls::{set_tun_type, tun};

use crate::testbed::PATIENCE;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(every_source_at_a_tun_device_is_decided),
        test!(malformed_packets_at_a_tun_device_are_dropped),
        test!(a_tun_device_of_ethernet_type_is_parsed_from_the_ip_header),
        test!(a_tun_device_whose_packets_name_a_protocol_is_refused),
        test!(an_adopted_instance_decides_at_a_tun_device),
        test!(packets_in_an_ipip_tunnel_are_decided).needs(&[since_5_14, ipip]),
        test!(packets_in_a_sit_tunnel_are_decided).needs(&[since_5_14, sit]),
        test!(packets_in_an_ip6tnl_tunnel_are_decided).needs(&[since_5_14, ip6tnl]),
        test!(ipip_before_linux_5_14_is_refused).needs(&[before_5_14, ipip]),
        test!(sit_before_linux_5_14_is_refused).needs(&[before_5_14, sit]),
        test!(ip6tnl_before_linux_5_14_is_refused).needs(&[before_5_14, ip6tnl]),
        test!(packets_in_a_wireguard_tunnel_are_decided).needs(&[wireguard]),
        test!(devices_that_are_not_understood_are_refused_by_name),
        test!(gre_is_refused_by_name).needs(&[gre]),
        test!(vti_is_refused_by_name).needs(&[vti]),
    ]
}

const HERE: [&str; 2] = ["10.9.0.1", "fd09::1"];
const ALLOWED: [&str; 2] = ["10.9.0.2", "fd09::2"];
/// Where an Ethernet header would have its type, these have IPv4, IPv6, ARP, a VLAN tag, and none.
const OTHERS: [&str; 12] = [
    "8.0.69.0",
    "8.0.0.1",
    "134.221.96.0",
    "8.6.0.1",
    "129.0.0.1",
    "10.9.0.3",
    "fd09:0:800:4500::1",
    "fd09:0:86dd:6000::1",
    "fd09:0:806::1",
    "fd09:0:8100::1",
    "fd09::3",
    "2001:db8::1",
];

/// A host with a TUN device, whose packets the test writes.
struct Net {
    host: Namespace,
    device: File,
    sockets: [UdpSocket; 2],
    _lab: Lab,
}

impl Net {
    fn new() -> Self {
        Self::with(false, |_| {})
    }

    /// With a change of the device before it is up.
    fn with(packet_info: bool, change: impl Fn(&File)) -> Self {
        let lab = Lab::new().unwrap();
        let host = lab.namespace("host").unwrap();
        let device = host.run(|| tun("tun0", packet_info)).unwrap().unwrap();
        change(&device);
        host.ip(&["link", "set", "tun0", "up"]).unwrap();
        host.address("tun0", "10.9.0.1/16").unwrap();
        host.address("tun0", "fd09::1/64").unwrap();
        for family in ["-4", "-6"] {
            host.ip(&[family, "route", "add", "default", "dev", "tun0"]).unwrap();
        }
        let bind = || HERE.map(|here| UdpSocket::bind((here.parse::<IpAddr>().unwrap(), 9)));
        let sockets = host.run(bind).unwrap().map(|socket| {
            let socket = socket.unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        });
        Self { host, device, sockets, _lab: lab }
    }

    fn start(&self, policy: &CompiledPolicy) -> Shield {
        let start = || Shield::builder("tun").interface("tun0").start(policy);
        self.host.run(start).unwrap().unwrap()
    }

    fn write(&self, packet: &[u8]) {
        (&self.device).write_all(packet).unwrap();
    }

    /// Whether a datagram from `src` reaches the host's socket. The device delivers it before the write
    /// returns.
    fn reaches(&self, src: &str) -> bool {
        let packet = packet(src);
        let socket = &self.sockets[usize::from(packet[0] >> 4 == 6)];
        self.write(&packet);
        match socket.recv_from(&mut [0; 16]) {
            Ok((_, from)) => {
                assert_eq!(from.ip(), src.parse::<IpAddr>().unwrap());
                true
            }
            Err(_) => false,
        }
    }
}

/// A datagram to the host, from the IP header on.
fn packet(src: &str) -> Vec<u8> {
    let frame = match src.contains(':') {
        true => Frame::v6(src, HERE[1]),
        false => Frame::v4(src, HERE[0]),
    };
    frame.payload(UDP, udp(1, 9, b"hello")).build().split_off(14)
}

/// Drops all but the allowed sources.
fn closed() -> CompiledPolicy {
    let cidrs = ALLOWED.map(|text| text.parse().unwrap());
    let allowed = AddressSet::new(RuleId(1), "allowed", Action::Allow).cidrs(cidrs);
    Policy::builder().default_action(Verdict::Drop).set(allowed).compile().unwrap()
}

fn dropped(shield: &Shield, reason: Reason) -> u64 {
    shield.counters().unwrap().reason(reason).dropped.packets
}

fn every_source_at_a_tun_device_is_decided() {
    let net = Net::new();
    for src in ALLOWED.into_iter().chain(OTHERS) {
        assert!(net.reaches(src), "{src}, unprotected");
    }
    let shield = net.start(&closed());
    let status = shield.status().unwrap();
    assert_eq!(status.interfaces[0].link_layer, LinkLayer::Ip);
    assert_eq!(status.interfaces[0].mode, XdpMode::Generic);
    for src in OTHERS {
        assert!(!net.reaches(src), "{src}");
    }
    assert_eq!(dropped(&shield, Reason::Default), OTHERS.len() as u64);
    for src in ALLOWED {
        assert!(net.reaches(src), "{src}");
    }
    let rule = shield.counters().unwrap().rule(RuleId(1)).unwrap().matched.packets;
    assert_eq!(rule, ALLOWED.len() as u64);
    // The next policies decide, too: both slots.
    let open = Policy::builder().compile().unwrap();
    for (policy, closes) in [(&open, false), (&closed(), true), (&open, false)] {
        shield.apply(policy).unwrap();
        for src in OTHERS {
            assert_eq!(net.reaches(src), !closes, "{src}");
        }
    }
    // A block in an open policy.
    let blocks = OTHERS.map(|text| text.parse().unwrap());
    let set = AddressSet::new(RuleId(2), "bad", Action::Drop).cidrs(blocks);
    shield.apply(&Policy::builder().set(set).compile().unwrap()).unwrap();
    for src in OTHERS {
        assert!(!net.reaches(src), "{src}");
    }
    assert!(net.reaches(ALLOWED[0]) && net.reaches(ALLOWED[1]));
}

fn malformed_packets_at_a_tun_device_are_dropped() {
    let net = Net::new();
    let shield = net.start(&Policy::builder().compile().unwrap());
    // The driver refuses these without packet information; WireGuard delivers none either.
    for (runs, version) in (0..16u8).filter(|version| ![4, 6].contains(version)).enumerate() {
        let mut packet = packet(ALLOWED[0]);
        packet[0] = version << 4 | 5;
        assert_eq!(shield.test_run_ip(&packet, 1).unwrap().retval, 1, "{version}");
        assert_eq!(dropped(&shield, Reason::IpVersion), runs as u64 + 1, "{version}");
    }
    let packet4 = packet(ALLOWED[0]);
    let packet6 = packet(ALLOWED[1]);
    assert_eq!(shield.test_run_ip(&packet4, 1).unwrap().retval, 2);
    assert_eq!(shield.test_run_ip(&packet6, 1).unwrap().retval, 2);
    for (short, reason) in [
        (&packet4[..19], Reason::Ip4Short),
        (&packet4[..packet4.len() - 1], Reason::Ip4Length),
        (&packet6[..39], Reason::Ip6Short),
        (&packet6[..packet6.len() - 1], Reason::Ip6Length),
    ] {
        net.write(short);
        assert_eq!(dropped(&shield, reason), 1, "{reason:?}");
    }
}

/// The type of a TUN device is what its owner says.
fn a_tun_device_of_ethernet_type_is_parsed_from_the_ip_header() {
    let net = Net::with(false, |device| set_tun_type(device, 1).unwrap());
    let shield = net.start(&closed());
    assert_eq!(shield.status().unwrap().interfaces[0].link_layer, LinkLayer::Ip);
    for src in OTHERS {
        assert!(!net.reaches(src), "{src}");
    }
    assert!(net.reaches(ALLOWED[0]) && net.reaches(ALLOWED[1]));
}

/// A VLAN tag of priority 3 and the ethertype of IPv4 read as the first four bytes of an IPv6 header. The
/// kernel removes the tag, and delivers the IPv4 packet behind it, whose source no rule would see.
fn a_tun_device_whose_packets_name_a_protocol_is_refused() {
    let net = Net::with(true, |_| {});
    let inner = Frame::v4(OTHERS[5], HERE[0]).payload(UDP, udp(1, 9, &[0; 0x4600]));
    let inner = inner.build().split_off(14);
    net.write(&[&[0, 0, 0x81, 0, 0x60, 0, 0x08, 0][..], &inner].concat());
    let (_, from) = net.sockets[0].recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from.ip(), OTHERS[5].parse::<IpAddr>().unwrap());
    refused(&net.host, "tun0", "IFF_NO_PI");
}

fn an_adopted_instance_decides_at_a_tun_device() {
    let net = Net::new();
    let instance = format!("tun-{}", std::process::id());
    let start = |policy: &CompiledPolicy| {
        let start = || {
            let builder = Shield::builder(&instance).interface("tun0").persistent(true);
            builder.start(policy)
        };
        net.host.run(start).unwrap().unwrap()
    };
    drop(start(&closed()));
    assert!(!net.reaches(OTHERS[0]), "without an agent");
    let shield = start(&closed());
    assert_eq!(shield.status().unwrap().interfaces[0].link_layer, LinkLayer::Ip);
    assert!(!net.reaches(OTHERS[0]) && net.reaches(ALLOWED[0]));
    drop(shield);
    let shield = start(&Policy::builder().compile().unwrap());
    assert!(net.reaches(OTHERS[0]), "the next agent's policy");
    shield.stop().unwrap();
}

/// The kernel has the kind of interface.
fn has_kind(kind: &str, args: &[&str]) -> Result<(), String> {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("kind").unwrap();
    let all = [&["link", "add", "probe0", "type", kind], args].concat();
    host.ip(&all).map(drop).map_err(|_| format!("this kernel has no `{kind}` interfaces"))
}

/// The kernel has the kind of interface, from a module that is loaded for its tests alone: it creates an
/// interface in each namespace.
fn has_module(kind: &str, module: &str, args: &[&str]) -> Result<(), String> {
    // Fails where the kernel has the kind without a module; the attempt that follows decides.
    let _ = Command::new("modprobe").arg(module).stderr(Stdio::null()).status();
    has_kind(kind, args)
}

const OUTER4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const OUTER6: [&str; 2] = ["fd02::1", "fd02::2"];
const ENDS4: [&str; 4] = ["local", OUTER4[0], "remote", OUTER4[1]];

fn ipip() -> Result<(), String> {
    has_kind("ipip", &ENDS4)
}

fn sit() -> Result<(), String> {
    has_module("sit", "sit", &ENDS4)
}

fn ip6tnl() -> Result<(), String> {
    has_module("ip6tnl", "ip6_tunnel", &["local", OUTER6[0], "remote", OUTER6[1]])
}

fn gre() -> Result<(), String> {
    has_module("gre", "ip_gre", &ENDS4)
}

fn vti() -> Result<(), String> {
    has_module("vti", "ip_vti", &[&ENDS4[..], &["key", "1"]].concat())
}

fn wireguard() -> Result<(), String> {
    has_kind("wireguard", &[])?;
    let wg = Command::new("wg").arg("--version").output();
    wg.map(drop).map_err(|e| format!("no wg (install wireguard-tools): {e}"))
}

fn is_before_5_14() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.starts_with("5.10.")
}

fn since_5_14() -> Result<(), String> {
    match is_before_5_14() {
        true => Err("tunnels of IP in IP are refused before Linux 5.14".to_owned()),
        false => Ok(()),
    }
}

fn before_5_14() -> Result<(), String> {
    match is_before_5_14() {
        true => Ok(()),
        false => Err("tunnels of IP in IP are understood since Linux 5.14".to_owned()),
    }
}

/// Two hosts with a tunnel over a veth pair, in which each source that is given is an address of the peer.
fn tunnel(kind: &[&str], outer: [&str; 2], sources: &[&str]) -> (Lab, Namespace, Namespace) {
    let lab = Lab::new().unwrap();
    let (host, peer) = (lab.namespace("host").unwrap(), lab.namespace("peer").unwrap());
    lab.veth((&host, "eth0"), (&peer, "eth0")).unwrap();
    let [here, there] = outer;
    let length = |address: &str, v4, v6| if address.contains(':') { v6 } else { v4 };
    for (at, local, remote) in [(&host, here, there), (&peer, there, here)] {
        at.address("eth0", &format!("{local}/{}", length(local, 24, 64))).unwrap();
        let ends = ["local", local, "remote", remote];
        let ends = if kind == WIREGUARD { &[][..] } else { &ends };
        at.ip(&[&["link", "add", "tunnel0", "type"], kind, ends].concat()).unwrap();
        at.ip(&["link", "set", "tunnel0", "up"]).unwrap();
    }
    if kind == WIREGUARD {
        exchange_keys((&host, here), (&peer, there));
    }
    for (family, here) in ["-4", "-6"].into_iter().zip(HERE) {
        // Not the tunnel's own packets.
        if sources.iter().any(|src| src.contains(':') == here.contains(':')) {
            host.address("tunnel0", &format!("{here}/{}", length(here, 16, 64))).unwrap();
            host.ip(&[family, "route", "add", "default", "dev", "tunnel0"]).unwrap();
            peer.ip(&[family, "route", "add", here, "dev", "tunnel0"]).unwrap();
        }
    }
    for src in sources {
        peer.address("tunnel0", &format!("{src}/{}", length(src, 32, 128))).unwrap();
    }
    (lab, host, peer)
}

const WIREGUARD: &[&str] = &["wireguard"];

/// Either end accepts any source from the other.
fn exchange_keys(one: (&Namespace, &str), other: (&Namespace, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let ends = [one, other].map(|(at, address)| {
        let private = folder.path().join(address).display().to_string();
        let public = format!("umask 077; wg genkey | tee {private} | wg pubkey");
        let public = at.exec("sh", &["-c", &public]).unwrap().trim().to_owned();
        (at, address, private, public)
    });
    let [one, other] = &ends;
    for ((at, _, private, _), (_, address, _, public)) in [(one, other), (other, one)] {
        let endpoint = format!("{address}:51820");
        let set =
            ["set", "tunnel0", "listen-port", "51820", "private-key", private.as_str(), "peer"];
        let peer = [public.as_str(), "allowed-ips", "0.0.0.0/0,::/0", "endpoint", &endpoint];
        at.exec("wg", &[&set[..], &peer].concat()).unwrap();
    }
}

const INNER4: [&str; 3] = [OTHERS[0], OTHERS[5], ALLOWED[0]];
const INNER6: [&str; 3] = [OTHERS[6], OTHERS[11], ALLOWED[1]];

fn packets_in_an_ipip_tunnel_are_decided() {
    decided(&["ipip"], OUTER4, &[INNER4]);
}

fn packets_in_a_sit_tunnel_are_decided() {
    decided(&["sit"], OUTER4, &[INNER6]);
}

fn packets_in_an_ip6tnl_tunnel_are_decided() {
    decided(&["ip6tnl", "mode", "any"], OUTER6, &[INNER4, INNER6]);
}

fn packets_in_a_wireguard_tunnel_are_decided() {
    decided(WIREGUARD, OUTER4, &[INNER4, INNER6]);
}

/// Of the sources of each family, the last alone is allowed.
fn decided(kind: &[&str], outer: [&str; 2], inner: &[[&str; 3]]) {
    let (_lab, host, peer) = tunnel(kind, outer, inner.as_flattened());
    let here = |src: &str| (HERE[usize::from(src.contains(':'))].parse::<IpAddr>().unwrap(), 9_u16);
    let sockets = inner.iter().map(|[src, ..]| {
        let socket = host.run(|| UdpSocket::bind(here(src))).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    let sockets: Vec<_> = sockets.collect();
    let send = |src: &str| {
        let send = || UdpSocket::bind((src, 0)).unwrap().send_to(b"hello", here(src));
        peer.run(send).unwrap().unwrap();
    };
    let received = |socket: &UdpSocket| socket.recv_from(&mut [0; 16]).unwrap().1.ip().to_string();
    for (socket, sources) in sockets.iter().zip(inner) {
        for src in sources {
            send(src);
            assert_eq!(received(socket), *src, "unprotected");
        }
    }
    // The tunnel's own packets, such as multicast reports, are dropped, too: those of the test are counted by a
    // rule that decides nothing.
    let others = inner.iter().flat_map(|sources| &sources[..2]);
    let others = others.map(|src| src.parse().unwrap());
    let seen = AddressSet::new(RuleId(2), "others", Action::Log).cidrs(others);
    let allowed = AddressSet::new(RuleId(1), "allowed", Action::Allow);
    let allowed = allowed.cidrs(ALLOWED.map(|text| text.parse().unwrap()));
    let policy = Policy::builder().default_action(Verdict::Drop).set(allowed).set(seen);
    let policy = policy.compile().unwrap();
    let start = || Shield::builder("tunnel").interface("tunnel0").start(&policy);
    let shield = host.run(start).unwrap().unwrap();
    assert_eq!(shield.status().unwrap().interfaces[0].link_layer, LinkLayer::Ip);
    let matched = |id| shield.counters().unwrap().rule(RuleId(id)).unwrap().matched.packets;
    let mut sent = 0;
    for (socket, [denied @ .., allowed]) in sockets.iter().zip(inner) {
        for src in denied {
            send(src);
            sent += 1;
            until(|| matched(2) == sent);
        }
        // Behind those that were dropped.
        send(allowed);
        assert_eq!(received(socket), *allowed);
    }
    assert_eq!(matched(1), inner.len() as u64);
    assert!(dropped(&shield, Reason::Default) >= sent);
}

fn until(is_done: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Frames begin with headers of the outer packet there.
fn ipip_before_linux_5_14_is_refused() {
    let (_lab, host, _peer) = tunnel(&["ipip"], OUTER4, &INNER4);
    refused(&host, "tunnel0", "kind `ipip`, device type 768 (IP in IP): before Linux 5.14");
}

fn sit_before_linux_5_14_is_refused() {
    let (_lab, host, _peer) = tunnel(&["sit"], OUTER4, &INNER6);
    refused(&host, "tunnel0", "kind `sit`, device type 776 (IPv6 in IPv4): before Linux 5.14");
}

fn ip6tnl_before_linux_5_14_is_refused() {
    let (_lab, host, _peer) = tunnel(&["ip6tnl"], OUTER6, &INNER6);
    refused(&host, "tunnel0", "kind `ip6tnl`, device type 769 (IP in IPv6): before Linux 5.14");
}

fn gre_is_refused_by_name() {
    let (_lab, host, _peer) = tunnel(&["gre"], OUTER4, &INNER4);
    refused(&host, "tunnel0", "kind `gre`, device type 778 (GRE over IPv4): the sender says");
}

/// It shares its device type with ipip.
fn vti_is_refused_by_name() {
    let (_lab, host, _peer) = tunnel(&["vti", "key", "1"], OUTER4, &INNER4);
    refused(&host, "tunnel0", "kind `vti`, device type 768 (IP in IP): its frames begin with");
}

fn refused(host: &Namespace, interface: &str, device: &str) {
    let start = || Shield::builder("unknown").interface(interface).start(&closed());
    let error = host.run(start).unwrap().unwrap_err();
    assert_eq!(error.kind(), ShieldErrorKind::Bpf);
    assert_eq!(error.bpf_error().unwrap().kind(), BpfErrorKind::LinkLayer);
    let text = ErrorChain::new(&error).to_string();
    let expected = format!("interface `{interface}` is of a device that Shield cannot parse: ");
    assert!(text.starts_with(&expected) && text.contains(device), "{text}");
    assert!(error.hint().is_some_and(|hint| hint.contains("nftables")), "{text}");
}

/// VXLAN without inner Ethernet headers shares its device type with WireGuard.
fn devices_that_are_not_understood_are_refused_by_name() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    // Packets of these come to no XDP program.
    host.ip(&["link", "add", "below0", "type", "veth", "peer", "name", "below1"]).unwrap();
    for args in [["vrf", "table", "10"], ["ipvlan", "mode", "l3s"], ["macvtap", "mode", "bridge"]] {
        let kind = args[0];
        let mut add = vec!["link", "add", "above0"];
        add.extend(["link", "below0"].iter().filter(|_| kind != "vrf"));
        add.push("type");
        add.extend(args);
        match host.ip(&add) {
            Ok(_) => {
                refused(&host, "above0", &format!("kind `{kind}`, device type 1"));
                host.ip(&["link", "del", "above0"]).unwrap();
            }
            Err(_) => println!("not tried: this kernel has no `{kind}` interfaces"),
        }
    }
    let vxlan = ["link", "add", "raw0", "type", "vxlan", "gpe", "external", "dstport", "4790"];
    if host.ip(&vxlan).is_err() {
        ironclad_lab::harness::skip("this kernel has no `vxlan` interfaces");
    }
    refused(&host, "raw0", "kind `vxlan`, device type 65534 (no link layer)");
    let here = host.run(|| Interface::by_name("raw0").unwrap().link_layer()).unwrap();
    assert_eq!(here.unwrap_err().kind(), BpfErrorKind::LinkLayer);
}
