//! Needs root: what the kernel makes of packets, for both back ends, against an oracle that knows
//! nothing of tables and hashes, and against `explain`.

#[path = "../../../ironclad-policy/tests/plan/mod.rs"]
mod plan;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ironclad_core::abi::Reason;
use ironclad_core::{RuleId, Verdict};
use ironclad_lab::packet::{Frame, ICMP, ICMPV6, TCP, UDP, icmp, sctp, tcp, udp};
use ironclad_policy::{Backend, PacketQuery, Policy};
use ironclad_shield::{Counters, Shield};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use ironclad_lab::harness::Test;
use ironclad_lab::test;
use plan::{Plan, any_addr, packets, plan, sets};

pub(crate) fn tests() -> Vec<Test> {
    vec![test!(the_kernel_finds_the_longest_prefix), test!(the_kernel_keeps_the_order_of_the_steps)]
}

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The packet on the wire; its hop limit is not that of neighbour discovery.
fn frame(packet: &PacketQuery) -> Vec<u8> {
    let port = packet.dport.unwrap_or(0);
    let payload = match packet.protocol {
        TCP => tcp(12_345, port),
        UDP | 136 => udp(12_345, port, &[0; 8]),
        132 | 33 => sctp(12_345, port),
        ICMP | ICMPV6 => icmp(8, 0),
        _ => vec![0; 16],
    };
    let frame = Frame::between(packet.src, packet.dst).payload(packet.protocol, payload);
    match (packet.later_fragment, packet.src) {
        (false, _) => frame.build(),
        (true, IpAddr::V4(_)) => frame.fragment4(1480, false).build(),
        (true, IpAddr::V6(_)) => frame.fragment6(1480, false).build(),
    }
}

/// Malformed, whatever the policy.
fn is_mapped(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some())
}

/// Packets by reason, and what each rule matched.
fn counted(counters: &Counters) -> (BTreeMap<u8, u64>, BTreeMap<RuleId, u64>) {
    let reasons = counters.reasons.iter();
    let reasons = reasons.map(|c| (c.reason as u8, c.passed.packets + c.dropped.packets)).collect();
    (reasons, counters.rules.iter().map(|count| (count.rule, count.matched.packets)).collect())
}

fn agrees(shield: &Shield, plan: &Plan, packets: &[PacketQuery]) -> Result<(), TestCaseError> {
    shield.set_gateways(&plan.gateways).unwrap();
    for backend in [Backend::Flat, Backend::LpmTrie] {
        let policy = plan.compile(backend);
        shield.apply(&policy).unwrap();
        let mut expected = counted(&shield.counters().unwrap());
        for packet in packets.iter().filter(|packet| !is_mapped(packet.src)) {
            let outcome = plan.outcome(packet);
            let retval = shield.test_run(&frame(packet), 1).unwrap().retval;
            let verdict = if outcome.verdict == Verdict::Drop { XDP_DROP } else { XDP_PASS };
            prop_assert_eq!(retval, verdict, "{:?}, {:?}: {:?}", backend, packet, outcome);
            *expected.0.entry(outcome.reason as u8).or_default() += 1;
            for rule in outcome.rule.iter().chain(&outcome.logged) {
                *expected.1.entry(*rule).or_default() += 1;
            }
            let seen = counted(&shield.counters().unwrap());
            prop_assert_eq!(&seen, &expected, "{:?}, {:?}: {:?}", backend, packet, outcome);
            if outcome.reason != Reason::Gateway {
                let why = policy.explain_packet(packet);
                let explained = (why.verdict, why.reason);
                prop_assert_eq!(explained, (outcome.verdict, outcome.reason), "{}", why);
            }
        }
    }
    Ok(())
}

fn shield() -> Shield {
    Shield::builder("test").start_unattached(&Policy::builder().compile().unwrap()).unwrap()
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) })
}

/// Many nested prefixes, probed at random and at their first addresses.
fn the_kernel_finds_the_longest_prefix() {
    let shield = shield();
    let probes = prop::collection::vec(any_addr(), 100);
    let looked_up = |(sets, probes): (plan::Sets, Vec<IpAddr>)| {
        let ends = sets.iter().flat_map(|(_, cidrs)| cidrs).map(|cidr| cidr.addr());
        let packets: Vec<PacketQuery> = probes
            .into_iter()
            .chain(ends)
            .map(|src| PacketQuery {
                src,
                dst: match src {
                    IpAddr::V4(_) => "192.0.2.1".parse().unwrap(),
                    IpAddr::V6(_) => "2001:db8::1".parse().unwrap(),
                },
                protocol: UDP,
                dport: Some(53),
                later_fragment: false,
            })
            .collect();
        let (default, gateways, tuples) = (Verdict::Allow, Vec::new(), Vec::new());
        agrees(&shield, &Plan { default, gateways, sets, tuples }, &packets)
    };
    runner(12).run(&(sets(), probes), looked_up).unwrap();
}

/// Gateways, sets, tuples and default together.
fn the_kernel_keeps_the_order_of_the_steps() {
    let shield = shield();
    let sent = std::cell::Cell::new(0);
    runner(10)
        .run(&packets(plan(), 400), |(plan, packets)| {
            sent.set(sent.get() + packets.len());
            agrees(&shield, &plan, &packets)
        })
        .unwrap();
    println!("{} packets for each back end", sent.get());
}
