//! Needs root: what the program in the kernel makes of frames, whole, cut off and contradictory.

use ironclad_core::abi::Reason;
use ironclad_core::{Action, RuleId, Verdict};
use ironclad_lab::harness::Test;
use ironclad_lab::packet::{
    Frame, ICMP, ICMPV6, SCTP, TCP, UDP, arp, ethernet, icmp, sctp, tcp, udp,
};
use ironclad_lab::test;
use ironclad_policy::{AddressSet, Backend, Policy, Protocol, TupleRule};
use ironclad_shield::Shield;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test!(whole_packets_meet_the_policy),
        test!(every_truncation_is_malformed),
        test!(every_short_transport_header_is_malformed),
        test!(extension_headers_are_followed_to_their_end),
        test!(contradictory_headers_are_malformed),
        test!(a_link_lives_under_deny_all),
        test!(malformed_may_pass_but_is_no_bypass),
        test!(tuples_see_the_ports_of_malformed_packets),
        test!(a_frame_runs_whole_or_not_at_all),
        test!(longer_header_chains_than_are_parsed_never_pass),
        test!(tuples_open_a_closed_firewall),
        test!(a_dry_run_drops_nothing_and_counts),
        test!(gateways_pass_whatever_the_policy_says),
    ]
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

const BAD4: &str = "192.0.2.1";
const BAD6: &str = "2001:db8:bad::1";
const HERE4: &str = "198.51.100.1";
const HERE6: &str = "2001:db8::1";

fn v4() -> Frame {
    Frame::v4("203.0.113.1", HERE4)
}

fn v6() -> Frame {
    Frame::v6("2001:db8:1::1", HERE6)
}

fn open_policy() -> Policy {
    Policy::builder().set(
        AddressSet::new(RuleId(1), "bad", Action::Drop)
            .cidrs(["192.0.2.0/24".parse().unwrap(), "2001:db8:bad::/48".parse().unwrap()]),
    )
}

fn shield(policy: Policy) -> Shield {
    Shield::builder("parse").start_unattached(&policy.compile().unwrap()).unwrap()
}

/// Runs a frame and asserts the one counter that moved, and how.
#[track_caller]
fn expect(shield: &Shield, what: &str, frame: &[u8], reason: Reason, verdict: Verdict) {
    let before = shield.counters().unwrap();
    let retval = shield.test_run(frame, 1).unwrap().retval;
    let after = shield.counters().unwrap();
    let moved: Vec<Reason> = Reason::ALL
        .into_iter()
        .filter(|&reason| after.reason(reason) != before.reason(reason))
        .collect();
    assert_eq!(moved, [reason], "{what}: {frame:02x?}");
    let (was, is) = (before.reason(reason), after.reason(reason));
    let bytes = frame.len() as u64;
    let (expected, moved) = match verdict {
        Verdict::Allow => (XDP_PASS, (was.passed, is.passed)),
        Verdict::Drop => (XDP_DROP, (was.dropped, is.dropped)),
    };
    assert_eq!(retval, expected, "{what}: {frame:02x?}");
    assert_eq!(moved.1.packets, moved.0.packets + 1, "{what}");
    assert_eq!(moved.1.bytes, moved.0.bytes + bytes, "{what}");
}

/// A chain of all extension headers that there are, in the order of RFC 8200, before `payload`.
fn long_chain() -> Frame {
    v6().extension(0, &[0, 1, 4, 0, 0, 0, 0])
        .extension(60, &[0, 1, 4, 0, 0, 0, 0])
        .extension(43, &[0, 4, 0, 0, 0, 0, 0])
        .fragment6(0, false)
        .extension(51, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])
        .extension(135, &[0, 0, 0, 0, 0, 0, 0])
        .extension(139, &[0, 0, 0, 0, 0, 0, 0])
        .extension(140, &[0, 0, 0, 0, 0, 0, 0])
}

/// Whole packets of every protocol.
fn whole() -> Vec<(&'static str, Frame)> {
    let transports: [(&str, u8, Vec<u8>); 5] = [
        ("tcp", TCP, tcp(40_000, 443)),
        ("udp", UDP, udp(40_000, 53, b"question")),
        ("sctp", SCTP, sctp(40_000, 9)),
        ("dccp", 33, sctp(40_000, 9)),
        ("gre, without ports", 47, vec![0; 4]),
    ];
    let mut frames = Vec::new();
    for (name, protocol, payload) in transports {
        frames.push((name, v4().payload(protocol, payload.clone())));
        frames.push((name, v6().payload(protocol, payload.clone())));
        frames.push((name, v4().vlan(5).payload(protocol, payload.clone())));
        frames.push((name, v6().tag(0x88a8, 5).vlan(6).payload(protocol, payload.clone())));
        frames.push((name, v4().options(&[1; 40]).payload(protocol, payload.clone())));
        frames.push((name, long_chain().payload(protocol, payload)));
    }
    frames.push(("icmp", v4().payload(ICMP, icmp(8, 0))));
    frames.push(("icmpv6", v6().payload(ICMPV6, icmp(128, 0))));
    frames.push(("no next header", v6()));
    frames.push(("esp", v6().payload(50, vec![0; 16])));
    frames.push(("first fragment", v4().fragment4(0, true).payload(UDP, udp(1, 53, &[0; 24]))));
    frames.push(("first fragment", v6().fragment6(0, true).payload(UDP, udp(1, 53, &[0; 24]))));
    frames.push(("later fragment", v4().fragment4(1480, false).payload(UDP, vec![0; 5])));
    frames.push(("later fragment", v6().fragment6(1448, true).payload(TCP, vec![0; 8])));
    frames
}

fn whole_packets_meet_the_policy() {
    for backend in [Backend::Flat, Backend::LpmTrie] {
        let shield = shield(open_policy().backend(backend));
        for (what, frame) in whole() {
            expect(&shield, what, &frame.build(), Reason::Default, Verdict::Allow);
        }
        for (bad, here) in [(BAD4, HERE4), (BAD6, HERE6)] {
            let frame = Frame::between(bad.parse().unwrap(), here.parse().unwrap());
            let frame = frame.payload(TCP, tcp(1, 2));
            expect(&shield, bad, &frame.build(), Reason::Set, Verdict::Drop);
            let frame = frame.vlan(1).vlan(2);
            expect(&shield, bad, &frame.build(), Reason::Set, Verdict::Drop);
        }
    }
}

/// Cut at every length: the counter says where, and nothing cut off passes.
fn every_truncation_is_malformed() {
    let shield = shield(open_policy());
    let mut runs = 0;
    for (what, frame) in whole() {
        let bytes = frame.build();
        let tags =
            bytes[12..].chunks(4).take_while(|c| matches!(c, [0x81, 0, ..] | [0x88, 0xa8, ..]));
        let link = 14 + 4 * tags.count();
        let v4 = bytes[link - 2] == 0x08;
        let header = if v4 { usize::from(bytes[link] & 0xf) * 4 } else { 40 };
        // The kernel accepts no frames shorter than an Ethernet header here.
        for length in 14..bytes.len() {
            let reason = match length {
                _ if length < link => Reason::VlanShort,
                _ if length < link + header && v4 => Reason::Ip4Short,
                _ if length < link + header => Reason::Ip6Short,
                _ if v4 => Reason::Ip4Length,
                _ => Reason::Ip6Length,
            };
            expect(
                &shield,
                &format!("{what} cut at {length}"),
                &bytes[..length],
                reason,
                Verdict::Drop,
            );
            runs += 1;
        }
    }
    assert!(runs > 1500, "{runs}");
}

/// Cut by a sender that keeps its lengths right: the transport header is what is missing.
fn every_short_transport_header_is_malformed() {
    let shield = shield(open_policy());
    for (protocol, payload, needed) in [
        (TCP, tcp(1, 443), 20),
        (UDP, udp(1, 53, &[]), 8),
        (SCTP, sctp(1, 9), 12),
        (33, sctp(1, 9), 12),
        (136, udp(1, 9, &[]), 8),
    ] {
        for length in 0..=payload.len() {
            let cut = payload[..length].to_vec();
            let (reason, verdict) = if length < needed {
                (Reason::L4Short, Verdict::Drop)
            } else {
                (Reason::Default, Verdict::Allow)
            };
            for frame in [
                v4(),
                v6(),
                v4().options(&[1; 4]),
                v6().vlan(3),
                v4().fragment4(0, true),
                v6().fragment6(0, true),
            ] {
                let frame = frame.payload(protocol, cut.clone());
                expect(
                    &shield,
                    &format!("{protocol} of {length}"),
                    &frame.build(),
                    reason,
                    verdict,
                );
            }
        }
    }
    for length in 0..8 {
        let cut = |kind| icmp(kind, 0)[..length].to_vec();
        expect(
            &shield,
            "icmp",
            &v4().payload(ICMP, cut(8)).build(),
            Reason::L4Short,
            Verdict::Drop,
        );
        expect(
            &shield,
            "icmpv6",
            &v6().payload(ICMPV6, cut(128)).build(),
            Reason::L4Short,
            Verdict::Drop,
        );
    }
}

fn extension_headers_are_followed_to_their_end() {
    let shield = shield(open_policy());
    let chain = long_chain().payload(TCP, tcp(1, 443));
    // Eight headers are followed, a ninth is not.
    expect(&shield, "eight", &chain.build(), Reason::Default, Verdict::Allow);
    let deep = chain.clone().extension(60, &[0, 1, 4, 0, 0, 0, 0]);
    expect(&shield, "nine", &deep.build(), Reason::ExtDeep, Verdict::Drop);
    // The payload ends within a header, with all lengths right.
    for headers in 1..=8usize {
        let sizes = [8usize, 8, 8, 8, 12, 8, 8, 8];
        let all: usize = sizes[..headers].iter().sum();
        for missing in 1..=sizes[headers - 1] {
            let mut bytes = chain.build();
            bytes.truncate(54 + all - missing);
            let payload = (all - missing) as u16;
            bytes[18..20].copy_from_slice(&payload.to_be_bytes());
            expect(
                &shield,
                &format!("{headers} headers, {missing} missing"),
                &bytes,
                Reason::ExtShort,
                Verdict::Drop,
            );
        }
    }
    let late = v6().extension(60, &[0, 1, 4, 0, 0, 0, 0]).extension(0, &[0, 1, 4, 0, 0, 0, 0]);
    let late = late.payload(TCP, tcp(1, 443));
    expect(&shield, "hop-by-hop second", &late.build(), Reason::ExtOrder, Verdict::Drop);
    // What a blocked source hides behind eight headers is blocked all the same.
    let bad = Frame::v6(BAD6, HERE6).extension(0, &[0, 1, 4, 0, 0, 0, 0]).payload(TCP, tcp(1, 443));
    expect(&shield, "blocked", &bad.build(), Reason::Set, Verdict::Drop);
    // The longest header there is.
    let long = v6().extension(60, &[&[255u8][..], &[0; 2046]].concat()).payload(TCP, tcp(1, 443));
    expect(&shield, "2048 bytes", &long.build(), Reason::Default, Verdict::Allow);
}

fn contradictory_headers_are_malformed() {
    let shield = shield(open_policy());
    let change = |frame: Frame, at: usize, value: u8| {
        let mut bytes = frame.payload(UDP, udp(1, 53, b"12345678")).build();
        bytes[at] = value;
        bytes
    };
    let drop =
        |what: &str, bytes: &[u8], reason| expect(&shield, what, bytes, reason, Verdict::Drop);
    drop("version 5", &change(v4(), 14, 0x55), Reason::Ip4Header);
    drop("header of 16", &change(v4(), 14, 0x44), Reason::Ip4Header);
    drop("total below header", &change(v4(), 17, 19), Reason::Ip4Header);
    drop("total beyond frame", &change(v4(), 17, 200), Reason::Ip4Length);
    drop("version 4 in IPv6", &change(v6(), 14, 0x45), Reason::Ip6Header);
    let mapped = Frame::v6("::ffff:203.0.113.1", HERE6).payload(UDP, udp(1, 2, b"x"));
    drop("an IPv4-mapped source", &mapped.build(), Reason::Ip6Header);
    drop("payload beyond frame", &change(v6(), 19, 200), Reason::Ip6Length);
    drop("udp length 7", &change(v4(), 14 + 20 + 5, 7), Reason::L4Header);
    drop("udp length beyond", &change(v4(), 14 + 20 + 5, 17), Reason::L4Header);
    drop("udp length 7", &change(v6(), 14 + 40 + 5, 7), Reason::L4Header);
    let mut small = v4().payload(TCP, tcp(1, 443)).build();
    small[14 + 20 + 12] = 0x40;
    drop("tcp offset 4", &small, Reason::L4Header);
    small[14 + 20 + 12] = 0x60;
    drop("tcp offset beyond", &small, Reason::L4Short);
    drop(
        "three tags",
        &v4().vlan(1).vlan(2).vlan(3).payload(TCP, tcp(1, 2)).build(),
        Reason::VlanDeep,
    );
    // Teardrop, ping of death, and rewriting a TCP header (RFC 3128).
    drop(
        "beyond 65535",
        &v4().fragment4(65_528, false).payload(UDP, vec![0; 8]).build(),
        Reason::Fragment,
    );
    drop(
        "beyond 65535",
        &v6().fragment6(65_528, false).payload(UDP, vec![0; 8]).build(),
        Reason::Fragment,
    );
    drop("empty", &v4().fragment4(8, false).payload(UDP, vec![]).build(), Reason::Fragment);
    drop(
        "tcp at offset 8",
        &v4().fragment4(8, false).payload(TCP, vec![0; 16]).build(),
        Reason::Fragment,
    );
    drop(
        "tcp at offset 8",
        &v6().fragment6(8, false).payload(TCP, vec![0; 16]).build(),
        Reason::Fragment,
    );
    // Padding behind the packet is none of its business.
    let mut padded = v4().payload(UDP, udp(1, 53, &[])).build();
    padded.resize(60, 0);
    expect(&shield, "padded", &padded, Reason::Default, Verdict::Allow);
}

fn a_link_lives_under_deny_all() {
    let shield = shield(Policy::builder().default_action(Verdict::Drop));
    expect(&shield, "arp", &arp(), Reason::Arp, Verdict::Allow);
    for length in 14..arp().len() {
        expect(&shield, "arp", &arp()[..length], Reason::ArpShort, Verdict::Drop);
    }
    for kind in 133..=137 {
        let nd = Frame::v6("fe80::1", "ff02::1").payload(ICMPV6, icmp(kind, 0));
        expect(&shield, "nd", &nd.clone().hops(255).build(), Reason::Neighbour, Verdict::Allow);
        // From afar it is not neighbour discovery.
        expect(&shield, "nd", &nd.clone().hops(254).build(), Reason::Default, Verdict::Drop);
        // RFC 6980: never in fragments.
        let fragment = nd.hops(255).fragment6(0, true);
        expect(&shield, "nd", &fragment.build(), Reason::Default, Verdict::Drop);
    }
    expect(
        &shield,
        "echo",
        &v6().hops(255).payload(ICMPV6, icmp(128, 0)).build(),
        Reason::Default,
        Verdict::Drop,
    );
    expect(&shield, "lldp", &ethernet(0x88cc, &[0; 46]), Reason::NonIp, Verdict::Allow);
    expect(&shield, "tcp", &v4().payload(TCP, tcp(1, 22)).build(), Reason::Default, Verdict::Drop);
}

fn malformed_may_pass_but_is_no_bypass() {
    let shield = shield(open_policy().malformed(Verdict::Allow).default_action(Verdict::Drop));
    let cut = |src: &str| {
        let frame = Frame::between(src.parse().unwrap(), HERE4.parse().unwrap());
        frame.payload(TCP, tcp(1, 2)[..10].to_vec()).build()
    };
    // From a blocked source the set decides, from other sources the default, not `malformed`.
    expect(&shield, "blocked", &cut(BAD4), Reason::Set, Verdict::Drop);
    expect(&shield, "other", &cut("203.0.113.1"), Reason::L4Short, Verdict::Drop);
    // Without addresses there is nothing else to ask.
    expect(&shield, "no addresses", &v4().build()[..20], Reason::Ip4Short, Verdict::Allow);
    // A frame that ends anywhere behind the addresses, a header that is too long or too short.
    for (src, here, reason) in [(BAD4, HERE4, Reason::Ip4Short), (BAD6, HERE6, Reason::Ip6Short)] {
        let frame = Frame::between(src.parse().unwrap(), here.parse().unwrap());
        let frame = frame.payload(TCP, tcp(1, 2)).build();
        let header = 14 + if reason == Reason::Ip4Short { 20 } else { 40 };
        for length in 15..frame.len() {
            let cut = &frame[..length];
            match length < header {
                true => expect(&shield, "without addresses", cut, reason, Verdict::Allow),
                false => expect(&shield, "blocked", cut, Reason::Set, Verdict::Drop),
            }
        }
    }
    let bad4 = || Frame::between(BAD4.parse().unwrap(), HERE4.parse().unwrap());
    for (at, value) in [(14, 0x44), (14, 0x4f), (16, 0xff), (17, 19)] {
        let mut frame = bad4().payload(TCP, tcp(1, 2)).build();
        frame[at] = value;
        expect(&shield, "a wrong length", &frame, Reason::Set, Verdict::Drop);
    }
    let mut other = bad4().payload(TCP, tcp(1, 2)).build();
    other[14] = 0x55;
    expect(&shield, "another version", &other, Reason::Ip4Header, Verdict::Allow);
}

/// Packets that the kernel accepts and Shield calls malformed.
fn tuples_see_the_ports_of_malformed_packets() {
    let policy = || Policy::builder().malformed(Verdict::Allow);
    let tuple = |protocol, rule| {
        TupleRule::new(RuleId(rule), "port", Action::Drop).protocol(protocol).dport(9)
    };
    let closed = shield(
        policy()
            .tuple(tuple(Protocol::TCP, 1))
            .tuple(tuple(Protocol::UDP, 2))
            .tuple(tuple(Protocol::SCTP, 3)),
    );
    let open = shield(policy());
    let pad = [0, 1, 4, 0, 0, 0, 0];
    let no_length = |frame: Frame| {
        let mut frame = frame.build();
        frame[18..20].fill(0);
        frame
    };
    let mut short = udp(1, 9, b"length 0");
    short[4..6].fill(0);
    for (what, frame, reason) in [
        (
            "IPv6 without a length",
            no_length(v6().extension(0, &pad).payload(UDP, udp(1, 9, b"x"))),
            Reason::Ip6Length,
        ),
        (
            "IPv6 without a length, two headers",
            no_length(v6().extension(0, &pad).extension(60, &pad).payload(TCP, tcp(1, 9))),
            Reason::Ip6Length,
        ),
        ("UDP without a length", v6().payload(UDP, short).build(), Reason::L4Header),
        (
            "eight bytes of TCP",
            v4().fragment4(0, true).payload(TCP, tcp(1, 9)[..8].to_vec()).build(),
            Reason::L4Short,
        ),
        (
            "eight bytes of TCP",
            v6().fragment6(0, true).payload(TCP, tcp(1, 9)[..8].to_vec()).build(),
            Reason::L4Short,
        ),
        (
            "eight bytes of SCTP",
            v4().fragment4(0, true).payload(SCTP, sctp(1, 9)[..8].to_vec()).build(),
            Reason::L4Short,
        ),
    ] {
        expect(&open, what, &frame, reason, Verdict::Allow);
        expect(&closed, what, &frame, Reason::Tuple, Verdict::Drop);
        let strict = shield(Policy::builder());
        expect(&strict, what, &frame, reason, Verdict::Drop);
    }
    // Nothing but a hop-by-hop header may follow a length of 0.
    let empty = no_length(v6().payload(UDP, udp(1, 9, b"x")));
    expect(&open, "no header", &empty, Reason::L4Short, Verdict::Allow);
}

/// The kernel gives the program the beginning of a longer frame, which would be malformed.
fn a_frame_runs_whole_or_not_at_all() {
    let shield = shield(open_policy());
    let frame = |src: &str, here: &str, length: usize| {
        let frame = Frame::between(src.parse().unwrap(), here.parse().unwrap());
        let header = 14 + if src == BAD4 || here == HERE4 { 20 } else { 40 };
        frame.payload(47, vec![0; length - header]).build()
    };
    let most = rustix::param::page_size() - 576;
    for (good, bad, here) in [("203.0.113.1", BAD4, HERE4), ("2001:db8:1::1", BAD6, HERE6)] {
        let allowed = frame(good, here, most);
        assert_eq!(allowed.len(), most);
        expect(&shield, "long", &allowed, Reason::Default, Verdict::Allow);
        expect(&shield, "long", &frame(bad, here, most), Reason::Set, Verdict::Drop);
        let before = shield.counters().unwrap();
        let refused = shield.test_run(&frame(good, here, most + 1), 1).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("{} is over the limit of {most}", most + 1)),
            "{refused}"
        );
        assert_eq!(shield.counters().unwrap().dropped(), before.dropped());
    }
}

fn longer_header_chains_than_are_parsed_never_pass() {
    let shield = shield(open_policy().malformed(Verdict::Allow));
    let tagged = (0..3).fold(v4(), |frame, _| frame.tag(0x8100, 0)).payload(UDP, udp(1, 2, b"x"));
    expect(&shield, "three tags", &tagged.build(), Reason::VlanDeep, Verdict::Drop);
    let deep = (0..9).fold(v6(), |frame, _| frame.extension(60, &[0, 1, 4, 0, 0, 0, 0]));
    let deep = deep.payload(UDP, udp(1, 2, b"x")).build();
    expect(&shield, "nine headers", &deep, Reason::ExtDeep, Verdict::Drop);
}

fn tuples_open_a_closed_firewall() {
    let policy = Policy::builder()
        .default_action(Verdict::Drop)
        .tuple(
            TupleRule::new(RuleId(7), "dns", Action::Allow)
                .dst(HERE4.parse().unwrap())
                .protocol(Protocol::UDP)
                .dport(53),
        )
        .tuple(
            TupleRule::new(RuleId(8), "ssh", Action::Allow)
                .src("203.0.113.0/24".parse().unwrap())
                .protocol(Protocol::TCP)
                .dport(22),
        )
        .tuple(TupleRule::new(RuleId(9), "web", Action::Allow).protocol(Protocol::TCP).dport(443))
        .tuple(
            TupleRule::new(RuleId(10), "not them", Action::Drop)
                .src("203.0.113.66".parse().unwrap())
                .protocol(Protocol::TCP)
                .dport(443),
        )
        .tuple(
            TupleRule::new(RuleId(11), "ping6", Action::Allow)
                .src("2001:db8:1::/48".parse().unwrap())
                .protocol(Protocol::ICMPV6),
        );
    let shield = shield(policy);
    let case = |what: &str, frame: Frame, pass: bool| {
        let (reason, verdict) =
            if pass { (Reason::Tuple, Verdict::Allow) } else { (Reason::Default, Verdict::Drop) };
        expect(&shield, what, &frame.build(), reason, verdict);
    };
    case("dns", v4().payload(UDP, udp(9, 53, b"q")), true);
    case("dns over tcp", v4().payload(TCP, tcp(9, 53)), false);
    case(
        "dns to another",
        Frame::v4("203.0.113.1", "198.51.100.2").payload(UDP, udp(9, 53, b"q")),
        false,
    );
    case("source port 53", v4().payload(UDP, udp(53, 9, b"q")), false);
    case("ssh", v4().payload(TCP, tcp(9, 22)), true);
    case("ssh from outside", Frame::v4("192.0.2.9", HERE4).payload(TCP, tcp(9, 22)), false);
    case("web v4", Frame::v4("192.0.2.9", HERE4).payload(TCP, tcp(9, 443)), true);
    case("web v6", v6().payload(TCP, tcp(9, 443)), true);
    case("web v6 behind headers", long_chain().payload(TCP, tcp(9, 443)), true);
    let them = Frame::v4("203.0.113.66", HERE4).payload(TCP, tcp(9, 443));
    expect(&shield, "the more specific wins", &them.build(), Reason::Tuple, Verdict::Drop);
    case("ping6", v6().payload(ICMPV6, icmp(128, 0)), true);
    // Later fragments follow what may have begun, and nothing else.
    case("fragment of dns", v4().fragment4(1480, false).payload(UDP, vec![0; 8]), true);
    case(
        "fragment to another",
        Frame::v4("203.0.113.1", "198.51.100.2").fragment4(1480, false).payload(UDP, vec![0; 8]),
        false,
    );
    case("fragment of gre", v4().fragment4(1480, false).payload(47, vec![0; 8]), false);
}

fn a_dry_run_drops_nothing_and_counts() {
    let shield = shield(open_policy().dry_run(true).default_action(Verdict::Drop));
    let bad = Frame::v4(BAD4, HERE4).payload(TCP, tcp(1, 2)).build();
    let other = v4().payload(TCP, tcp(1, 2)).build();
    for frame in [&bad, &bad, &other, &bad[..30].to_vec()] {
        assert_eq!(shield.test_run(frame, 1).unwrap().retval, XDP_PASS);
    }
    let counters = shield.counters().unwrap();
    assert_eq!(counters.dropped().packets, 0);
    assert_eq!(counters.would_drop().packets, 4);
    assert_eq!(counters.reason(Reason::Set).would_drop.packets, 2);
    assert_eq!(counters.reason(Reason::Default).would_drop.packets, 1);
    assert_eq!(counters.reason(Reason::Ip4Short).would_drop.packets, 1);
    assert_eq!(counters.rule(RuleId(1)).unwrap().would_drop.packets, 2);
}

fn gateways_pass_whatever_the_policy_says() {
    let policy = open_policy().default_action(Verdict::Drop);
    let shield = shield(policy);
    let frames: Vec<Vec<u8>> = [(BAD4, HERE4), (BAD6, HERE6)]
        .into_iter()
        .map(|(src, dst)| {
            Frame::between(src.parse().unwrap(), dst.parse().unwrap())
                .payload(TCP, tcp(1, 2))
                .build()
        })
        .collect();
    for _ in 0..3 {
        frames
            .iter()
            .for_each(|frame| expect(&shield, "blocked", frame, Reason::Set, Verdict::Drop));
        shield
            .set_gateways(&[
                BAD4.parse().unwrap(),
                "10.0.0.1".parse().unwrap(),
                BAD6.parse().unwrap(),
            ])
            .unwrap();
        frames
            .iter()
            .for_each(|frame| expect(&shield, "gateway", frame, Reason::Gateway, Verdict::Allow));
        // Its neighbour is none.
        let near = Frame::v4("192.0.2.2", HERE4).payload(TCP, tcp(1, 2)).build();
        expect(&shield, "neighbour", &near, Reason::Set, Verdict::Drop);
        shield.set_gateways(&[]).unwrap();
    }
    let nine: Vec<_> = (1..=9).map(|n| std::net::IpAddr::from([10, 0, 0, n])).collect();
    let error = shield.set_gateways(&nine).unwrap_err().to_string();
    assert!(error.contains("9") && error.contains("8"), "{error}");
    shield.set_gateways(&nine[..8]).unwrap();
    assert_eq!(shield.gateways(), nine[..8]);
}
