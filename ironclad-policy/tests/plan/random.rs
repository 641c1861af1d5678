//! Policies at random, and packets that hit their rules or miss them by a bit, a port or a protocol.

use std::net::IpAddr;

use ironclad_core::{Action, Cidr, Family, Verdict};
use ironclad_policy::{PacketQuery, Protocol};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{Plan, Sets, Tuple};

/// Protocols with a port, without one, and one of each family.
const PROTOCOLS: [u8; 9] = [1, 6, 17, 33, 47, 58, 132, 136, 255];
const PORTS: [u16; 4] = [0, 53, 443, u16::MAX];

/// Addresses that share many leading bits, so that prefixes nest and touch.
fn addr(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => {
            (select(vec![0x0a00_0000u32, 0x0a01_0200, 0xffff_ff00, 0]), any::<u32>(), 0u32..=32)
                .prop_map(|(base, noise, keep)| {
                    let noise = if keep == 32 { 0 } else { noise >> keep };
                    IpAddr::V4((base ^ noise).into())
                })
                .boxed()
        }
        Family::V6 => (
            select(vec![
                0x2001_0db8_0000_0000_0000_0000_0000_0000u128,
                0x2001_0db8_0001_0002_0003_0004_0005_0006,
                u128::MAX,
                0,
            ]),
            any::<u128>(),
            0u32..=128,
        )
            .prop_map(|(base, noise, keep)| {
                let noise = if keep == 128 { 0 } else { noise >> keep };
                IpAddr::V6((base ^ noise).into())
            })
            .boxed(),
    }
}

pub(crate) fn any_addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![addr(Family::V4), addr(Family::V6)]
}

fn cidr() -> impl Strategy<Value = Cidr> {
    (any_addr(), any::<u8>()).prop_map(|(addr, length)| {
        let bits = Family::of(addr).bits();
        // Whole lengths more often than chance: /0, /8, /16, /24, /32, /64, /128.
        let length = if length & 0x80 != 0 { length % 17 * 8 } else { length };
        Cidr::new(addr, length % (bits + 1)).unwrap()
    })
}

fn action() -> impl Strategy<Value = Action> {
    select(vec![Action::Drop, Action::Allow, Action::Log])
}

pub(crate) fn sets() -> impl Strategy<Value = Sets> {
    prop::collection::vec((action(), prop::collection::vec(cidr(), 0..40)), 1..6)
}

/// Sets that leave something to the tuples.
fn narrow_sets() -> impl Strategy<Value = Sets> {
    let narrow = cidr().prop_filter("covers too much", |cidr| cidr.length() > 6);
    prop::collection::vec((action(), prop::collection::vec(narrow, 0..20)), 0..4)
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let cidr = |family| {
        let lengths = match family {
            Family::V4 => vec![0, 1, 8, 9, 16, 24, 31, 32],
            Family::V6 => vec![0, 1, 16, 32, 33, 64, 127, 128],
        };
        let cidr = (addr(family), select(lengths)).prop_map(|(a, n)| Cidr::new(a, n).unwrap());
        prop::option::of(cidr)
    };
    let ends =
        prop_oneof![(cidr(Family::V4), cidr(Family::V4)), (cidr(Family::V6), cidr(Family::V6)),];
    let protocol = prop::option::of(select(PROTOCOLS.to_vec()));
    (action(), ends, protocol, prop::option::of(select(PORTS.to_vec()))).prop_map(
        |(action, (src, dst), protocol, dport)| {
            let dport = dport.filter(|_| protocol.is_some_and(|p| Protocol(p).has_ports()));
            Tuple { action, src, dst, protocol, dport }
        },
    )
}

/// At most as many tuples as have shapes of their own, each in both families. Many speak of the
/// same addresses as another, some of exactly the same packets.
fn tuples() -> impl Strategy<Value = Vec<Tuple>> {
    let echo = prop::option::of((any::<Index>(), any::<bool>()));
    prop::collection::vec((tuple(), echo), 0..=16).prop_map(|planned| {
        let mut tuples: Vec<Tuple> = Vec::new();
        for (mut tuple, echo) in planned {
            if let Some((index, wholly)) = echo.filter(|_| !tuples.is_empty()) {
                let other = *index.get(&tuples);
                (tuple.src, tuple.dst) = (other.src, other.dst);
                if wholly {
                    (tuple.protocol, tuple.dport) = (other.protocol, other.dport);
                }
            }
            tuples.push(tuple);
        }
        tuples
    })
}

/// An address that a gateway can have.
fn host() -> impl Strategy<Value = IpAddr> {
    any_addr().prop_filter("no host sends from it", |addr| {
        let is_broadcast = matches!(addr, IpAddr::V4(a) if a.is_broadcast());
        let is_mapped = matches!(addr, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
        !addr.is_unspecified() && !addr.is_multicast() && !is_broadcast && !is_mapped
    })
}

pub(crate) fn plan() -> impl Strategy<Value = Plan> {
    let default = select(vec![Verdict::Allow, Verdict::Drop]);
    (default, prop::collection::vec(host(), 0..4), narrow_sets(), tuples())
        .prop_map(|(default, gateways, sets, tuples)| Plan { default, gateways, sets, tuples })
}

/// What a packet is made from, whatever the plan.
#[derive(Clone, Debug)]
struct Aim {
    /// The tuple that it is aimed at.
    tuple: Index,
    family: bool,
    /// The set's prefix or the gateway that it comes from, instead of from the tuple's source.
    source: Option<Index>,
    noise: [u128; 2],
    /// Bits that miss the prefix of the source and of the destination, counted from its last.
    flips: [Option<u8>; 2],
    elsewhere: [[IpAddr; 2]; 2],
    protocol: u8,
    other_protocol: bool,
    dport: u16,
    /// Added to the tuple's port.
    beside: u16,
    later_fragment: bool,
}

fn aim() -> impl Strategy<Value = Aim> {
    let v4 = [addr(Family::V4), addr(Family::V4)];
    let v6 = [addr(Family::V6), addr(Family::V6)];
    let flip = || prop::option::weighted(0.15, prop_oneof![Just(0), 0..128u8]);
    (
        (any::<Index>(), any::<bool>(), prop::option::weighted(0.25, any::<Index>())),
        any::<[u128; 2]>(),
        [flip(), flip()],
        (v4, v6),
        (select(PROTOCOLS.to_vec()), prop::bool::weighted(0.1)),
        (select(PORTS.to_vec()), prop_oneof![8 => Just(0), 1 => Just(1), 1 => Just(u16::MAX)]),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(who, noise, flips, (v4, v6), protocol, port, later_fragment)| Aim {
            tuple: who.0,
            family: who.1,
            source: who.2,
            noise,
            flips,
            elsewhere: [v4, v6],
            protocol: protocol.0,
            other_protocol: protocol.1,
            dport: port.0,
            beside: port.1,
            later_fragment,
        })
}

/// An address of the prefix, or one that leaves it by a bit.
fn near(cidr: Cidr, noise: u128, flip: Option<u8>) -> IpAddr {
    let length = u32::from(cidr.length());
    let mut bits = cidr.bits() | noise.checked_shr(length).unwrap_or(0);
    if let Some(flip) = flip.filter(|_| length > 0) {
        bits ^= 1 << (128 - length + u32::from(flip) % length);
    }
    match cidr.family() {
        Family::V4 => IpAddr::V4(((bits >> 96) as u32).into()),
        Family::V6 => IpAddr::V6(bits.into()),
    }
}

impl Aim {
    fn at(&self, plan: &Plan) -> PacketQuery {
        let anything =
            Tuple { action: Action::Log, src: None, dst: None, protocol: None, dport: None };
        let tuple = if plan.tuples.is_empty() { anything } else { *self.tuple.get(&plan.tuples) };
        let sources: Vec<Cidr> = plan
            .sets
            .iter()
            .flat_map(|(_, cidrs)| cidrs.iter().copied())
            // Few, so each of them counts for many.
            .chain(plan.gateways.iter().flat_map(|&addr| [Cidr::host(addr); 8]))
            .collect();
        let source = self.source.filter(|_| !sources.is_empty()).map(|at| *at.get(&sources));
        let families = tuple.families();
        let family = match source {
            Some(source) => source.family(),
            None if families.len() == 1 => families[0],
            None if self.family => Family::V4,
            None => Family::V6,
        };
        let end = |cidr: Option<Cidr>, end: usize| match cidr {
            Some(cidr) if cidr.family() == family => near(cidr, self.noise[end], self.flips[end]),
            _ => self.elsewhere[usize::from(family == Family::V6)][end],
        };
        let protocol = match tuple.protocol {
            Some(protocol) if !self.other_protocol => protocol,
            _ => self.protocol,
        };
        let port = tuple.dport.map_or(self.dport, |port| port.wrapping_add(self.beside));
        let has_port = !self.later_fragment && Protocol(protocol).has_ports();
        PacketQuery {
            src: end(source.or(tuple.src), 0),
            dst: end(tuple.dst, 1),
            protocol,
            dport: has_port.then_some(port),
            later_fragment: self.later_fragment,
        }
    }
}

/// A plan, and at most `most` packets for it.
pub(crate) fn packets(
    plan: impl Strategy<Value = Plan>,
    most: usize,
) -> impl Strategy<Value = (Plan, Vec<PacketQuery>)> {
    (plan, prop::collection::vec(aim(), 1..=most)).prop_map(|(plan, aims)| {
        let packets = aims.iter().map(|aim| aim.at(&plan)).collect();
        (plan, packets)
    })
}
