//! Needs root: interfaces without Ethernet headers, in namespaces of the tests' own.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
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
        test!(packets_in_an_ipip_tunnel_are_decided).needs(&[ipip]),
        test!(ipip_before_linux_5_14_is_refused).needs(&[old_ipip]),
        test!(wireguard_is_parsed_from_the_ip_header).needs(&[wireguard]),
        test!(devices_that_are_not_understood_are_refused_by_name),
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
fn has_kind(args: &[&str]) -> Result<(), String> {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("kind").unwrap();
    let all = [&["link", "add", "probe0", "type"], args].concat();
    host.ip(&all).map(drop).map_err(|_| format!("this kernel has no `{}` interfaces", args[0]))
}

fn is_before_5_14() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    release.starts_with("5.10.")
}

fn ipip() -> Result<(), String> {
    match is_before_5_14() {
        true => Err("ipip is refused before Linux 5.14".to_owned()),
        false => has_kind(&["ipip", "local", "192.0.2.1", "remote", "192.0.2.2"]),
    }
}

fn old_ipip() -> Result<(), String> {
    match is_before_5_14() {
        true => has_kind(&["ipip", "local", "192.0.2.1", "remote", "192.0.2.2"]),
        false => Err("ipip is understood since Linux 5.14".to_owned()),
    }
}

fn wireguard() -> Result<(), String> {
    has_kind(&["wireguard"])
}

/// Two hosts with an ipip tunnel over a veth pair.
fn tunnel() -> (Lab, Namespace, Namespace) {
    let lab = Lab::new().unwrap();
    let (host, peer) = (lab.namespace("host").unwrap(), lab.namespace("peer").unwrap());
    lab.veth((&host, "eth0"), (&peer, "eth0")).unwrap();
    for (at, here, there) in [(&host, "192.0.2.1", "192.0.2.2"), (&peer, "192.0.2.2", "192.0.2.1")]
    {
        at.address("eth0", &format!("{here}/24")).unwrap();
        at.ip(&["link", "add", "ipip0", "type", "ipip", "local", here, "remote", there]).unwrap();
        at.ip(&["link", "set", "ipip0", "up"]).unwrap();
    }
    host.address("ipip0", "10.9.0.1/16").unwrap();
    host.ip(&["route", "add", "default", "dev", "ipip0"]).unwrap();
    peer.ip(&["route", "add", "10.9.0.1", "dev", "ipip0"]).unwrap();
    for src in [ALLOWED[0], OTHERS[0], OTHERS[5]] {
        peer.address("ipip0", &format!("{src}/32")).unwrap();
    }
    (lab, host, peer)
}

fn packets_in_an_ipip_tunnel_are_decided() {
    let (_lab, host, peer) = tunnel();
    let socket = host.run(|| UdpSocket::bind("10.9.0.1:9")).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let send = |src: &str| {
        let send = || UdpSocket::bind((src, 0)).unwrap().send_to(b"hello", "10.9.0.1:9");
        peer.run(send).unwrap().unwrap();
    };
    let received = || socket.recv_from(&mut [0; 16]).unwrap().1.ip().to_string();
    for src in [OTHERS[0], OTHERS[5], ALLOWED[0]] {
        send(src);
        assert_eq!(received(), src, "unprotected");
    }
    let start = || Shield::builder("ipip").interface("ipip0").start(&closed());
    let shield = host.run(start).unwrap().unwrap();
    assert_eq!(shield.status().unwrap().interfaces[0].link_layer, LinkLayer::Ip);
    for (sent, src) in [OTHERS[0], OTHERS[5]].into_iter().enumerate() {
        send(src);
        until(|| dropped(&shield, Reason::Default) == sent as u64 + 1);
    }
    send(ALLOWED[0]);
    assert_eq!(received(), ALLOWED[0]);
}

fn until(is_done: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Frames begin with the outer packet's Ethernet header there.
fn ipip_before_linux_5_14_is_refused() {
    let (_lab, host, _peer) = tunnel();
    refused(&host, "ipip0", "kind `ipip`, device type 768 (IP in IP): before Linux 5.14");
}

fn wireguard_is_parsed_from_the_ip_header() {
    let lab = Lab::new().unwrap();
    let host = lab.namespace("host").unwrap();
    host.ip(&["link", "add", "wg0", "type", "wireguard"]).unwrap();
    let start = || Shield::builder("wireguard").interface("wg0").start(&closed());
    let shield = host.run(start).unwrap().unwrap();
    assert_eq!(shield.status().unwrap().interfaces[0].link_layer, LinkLayer::Ip);
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
