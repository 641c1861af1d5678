//! Needs root: what the kernel's lookups answer, against `explain`, for both back ends.

use std::net::IpAddr;

use ironclad_core::abi::Reason;
use ironclad_core::{Action, Cidr, Family, RuleId, Verdict};
use ironclad_policy::{AddressSet, Backend, CompiledPolicy, PacketQuery, Policy};
use ironclad_shield::Shield;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// A UDP packet of 8 bytes of payload to port 53.
fn udp(src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let udp = [0x30, 0x39, 0, 53, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 17, 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(udp);
    frame
}

fn addr(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        (
            prop::sample::select(vec![
                0x2001_0db8u128 << 96,
                0x2001_0db8_0001_0002_0003_0004_0005_0006,
                u128::MAX,
                0,
            ]),
            any::<u128>(),
            0u32..128,
        )
            .prop_map(|(base, noise, keep)| IpAddr::V6((base ^ (noise >> keep)).into()))
            .boxed()
    } else {
        (
            prop::sample::select(vec![0x0a00_0000u32, 0x0a01_0200, u32::MAX, 0]),
            any::<u32>(),
            0u32..32,
        )
            .prop_map(|(base, noise, keep)| IpAddr::V4((base ^ (noise >> keep)).into()))
            .boxed()
    }
}

fn any_addr() -> impl Strategy<Value = IpAddr> {
    any::<bool>().prop_flat_map(addr)
}

fn cidr() -> impl Strategy<Value = Cidr> {
    (any_addr(), any::<u8>())
        .prop_map(|(addr, length)| Cidr::new(addr, length % (Family::of(addr).bits() + 1)).unwrap())
}

fn compile(sets: &[(Action, Vec<Cidr>)], backend: Backend) -> CompiledPolicy {
    sets.iter()
        .enumerate()
        .fold(Policy::builder().backend(backend), |policy, (index, (action, cidrs))| {
            let rule = RuleId(index as u32 + 1);
            policy.set(
                AddressSet::new(rule, format!("set {rule}"), *action).cidrs(cidrs.iter().copied()),
            )
        })
        .compile()
        .unwrap()
}

#[test]
fn the_kernel_agrees_with_explain() {
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(12) });
    let action = prop::sample::select(vec![Action::Drop, Action::Allow, Action::Log]);
    let sets = prop::collection::vec((action, prop::collection::vec(cidr(), 0..60)), 1..5);
    let probes = prop::collection::vec(any_addr(), 100);
    runner
        .run(&(sets, probes), |(sets, probes)| {
            for backend in [Backend::Flat, Backend::LpmTrie] {
                let policy = compile(&sets, backend);
                let shield = Shield::builder("test").start_unattached(&policy).unwrap();
                let ends = sets.iter().flat_map(|(_, cidrs)| cidrs).map(|cidr| cidr.addr());
                for src in probes.iter().copied().chain(ends) {
                    let dst = match src {
                        IpAddr::V4(_) => "192.0.2.1".parse().unwrap(),
                        IpAddr::V6(_) => "2001:db8::1".parse().unwrap(),
                    };
                    let before = shield.counters().unwrap();
                    let retval = shield.test_run(&udp(src, dst), 1).unwrap().retval;
                    let after = shield.counters().unwrap();
                    let why = policy.explain_packet(&PacketQuery {
                        src,
                        dst,
                        protocol: 17,
                        dport: Some(53),
                        later_fragment: false,
                    });
                    let expected = if why.verdict == Verdict::Drop { XDP_DROP } else { XDP_PASS };
                    prop_assert_eq!(retval, expected, "{:?}: {}", backend, why);
                    for reason in Reason::ALL {
                        let (was, is) = (before.reason(reason), after.reason(reason));
                        let seen = is.passed.packets + is.dropped.packets
                            - was.passed.packets
                            - was.dropped.packets;
                        prop_assert_eq!(
                            seen,
                            u64::from(reason == why.reason),
                            "{}: {}",
                            src,
                            reason
                        );
                    }
                    let rules = why.sets.decided_by.iter().chain(&why.sets.logged_by);
                    for rule in rules.map(|cover| cover.rule) {
                        let matched =
                            |c: &ironclad_shield::Counters| c.rule(rule).unwrap().matched.packets;
                        prop_assert_eq!(
                            matched(&after),
                            matched(&before) + 1,
                            "{}: rule {}",
                            src,
                            rule
                        );
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
