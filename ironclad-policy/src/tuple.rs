//! Tuples: one hash key for each, and the shapes by which the kernel probes them.
use std::collections::HashMap;
use std::net::IpAddr;

use ironclad_core::abi::{self, TupleKey, TupleMask};
use ironclad_core::{Action, Cidr, Family, Protocol, RuleId};

use crate::error::{Failure, PolicyError};
use crate::limits::EVENTS_PER_SECOND;

/// A rule on source, destination, destination port and protocol; what is not said matches anything.
#[derive(Clone, Debug)]
pub struct TupleRule {
    pub(crate) rule: RuleId,
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) src: Option<Cidr>,
    pub(crate) dst: Option<Cidr>,
    pub(crate) dport: Option<u16>,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) events_per_second: u32,
}

impl TupleRule {
    /// A rule that matches every packet, until it is narrowed.
    pub fn new(rule: RuleId, name: impl Into<String>, action: Action) -> Self {
        Self {
            rule,
            name: name.into(),
            action,
            src: None,
            dst: None,
            dport: None,
            protocol: None,
            events_per_second: EVENTS_PER_SECOND,
        }
    }

    /// Only packets from these addresses.
    #[must_use]
    pub fn src(mut self, src: Cidr) -> Self {
        self.src = Some(src);
        self
    }

    /// Only packets to these addresses.
    #[must_use]
    pub fn dst(mut self, dst: Cidr) -> Self {
        self.dst = Some(dst);
        self
    }

    /// Only packets to this port; needs a protocol that has ports.
    #[must_use]
    pub fn dport(mut self, dport: u16) -> Self {
        self.dport = Some(dport);
        self
    }

    /// Only packets of this protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Events a second that the rule reports at most; 0 for none. Default [`EVENTS_PER_SECOND`].
    #[must_use]
    pub fn events_per_second(mut self, rate: u32) -> Self {
        self.events_per_second = rate;
        self
    }
}

/// Which bits of a packet a tuple compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Shape {
    // Compared in this order: the most specific shape is the first.
    specific: std::cmp::Reverse<u32>,
    src: u8,
    dst: u8,
    dport: bool,
    proto: bool,
    family: Family,
}

/// A key of the tuple hash and what it means; rules are indices into the policy's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompiledTuple {
    pub(crate) key: TupleKey,
    pub(crate) action: u8,
    pub(crate) rule: u16,
    pub(crate) log_rule: Option<u16>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tuples {
    pub(crate) masks: Vec<TupleMask>,
    pub(crate) tuples: Vec<CompiledTuple>,
}

fn mask_bytes(family: Family, length: u8) -> [u8; 16] {
    let bits = if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length)) };
    debug_assert!(length <= family.bits());
    bits.to_be_bytes()
}

fn addr_bytes(cidr: Option<Cidr>) -> [u8; 16] {
    cidr.map_or([0; 16], |cidr| cidr.bits().to_be_bytes())
}

impl Tuples {
    /// `rules` are the tuples with the index of their rule.
    pub(crate) fn compile(rules: &[(TupleRule, u16)]) -> Result<Self, PolicyError> {
        let mut planned = Vec::new();
        for (tuple, rule) in rules {
            if tuple.dport.is_some() && !tuple.protocol.is_some_and(|p| p.has_ports()) {
                let (rule, name) = (tuple.rule, tuple.name.clone());
                return Err(Failure::PortWithoutProtocol { rule, name }.into());
            }
            let families = match (tuple.src.map(Cidr::family), tuple.dst.map(Cidr::family)) {
                (Some(a), Some(b)) if a != b => {
                    let (rule, name) = (tuple.rule, tuple.name.clone());
                    return Err(Failure::MixedFamilies { rule, name }.into());
                }
                (Some(family), _) | (None, Some(family)) => vec![family],
                (None, None) => vec![Family::V4, Family::V6],
            };
            for family in families {
                let (src, dst) =
                    (tuple.src.map_or(0, Cidr::length), tuple.dst.map_or(0, Cidr::length));
                let bits = u32::from(src)
                    + u32::from(dst)
                    + if tuple.dport.is_some() { 16 } else { 0 }
                    + if tuple.protocol.is_some() { 8 } else { 0 };
                let shape = Shape {
                    specific: std::cmp::Reverse(bits),
                    src,
                    dst,
                    dport: tuple.dport.is_some(),
                    proto: tuple.protocol.is_some(),
                    family,
                };
                planned.push((shape, tuple, *rule));
            }
        }
        let mut shapes: Vec<Shape> = planned.iter().map(|(shape, ..)| *shape).collect();
        shapes.sort_unstable();
        shapes.dedup();
        crate::limits::check(
            "shapes of tuples (combinations of prefix lengths, port and protocol)",
            shapes.len() as u64,
            abi::MASKS_MAX as u64,
            "use fewer different prefix lengths",
        )?;
        let mut this =
            Self { masks: shapes.iter().map(|shape| shape.mask()).collect(), tuples: Vec::new() };
        let mut at: HashMap<[u8; 40], usize> = HashMap::new();
        for (shape, tuple, rule) in planned {
            let number = shapes.binary_search(&shape).unwrap_or_default() as u32;
            let kind = match shape.family {
                Family::V4 => abi::TUPLE_V4,
                Family::V6 => abi::TUPLE_V6,
            };
            let key = TupleKey {
                src: addr_bytes(tuple.src),
                dst: addr_bytes(tuple.dst),
                dport: tuple.dport.unwrap_or(0).to_be_bytes(),
                proto: tuple.protocol.map_or(0, |p| p.0),
                kind,
                shape: number,
            };
            this.insert(&mut at, key, tuple.action, rule);
            // Later fragments have no ports: they follow what is allowed to have begun.
            if tuple.dport.is_some() && tuple.action == Action::Allow {
                let key = TupleKey { dport: [0; 2], kind: kind | abi::TUPLE_FRAGMENT, ..key };
                this.insert(&mut at, key, tuple.action, rule);
            }
        }
        Ok(this)
    }

    fn insert(
        &mut self,
        at: &mut HashMap<[u8; 40], usize>,
        key: TupleKey,
        action: Action,
        rule: u16,
    ) {
        let bytes: [u8; 40] = zerocopy::transmute!(key);
        let index = *at.entry(bytes).or_insert_with(|| {
            self.tuples.push(CompiledTuple {
                key,
                action: abi::ACTION_NONE,
                rule: 0,
                log_rule: None,
            });
            self.tuples.len() - 1
        });
        let tuple = &mut self.tuples[index];
        match action {
            Action::Log => {
                tuple.log_rule.get_or_insert(rule);
            }
            // Allow beats drop, the earlier wins among equals.
            _ if tuple.action == abi::ACTION_NONE
                || (action == Action::Allow && tuple.action == abi::ACTION_DROP) =>
            {
                tuple.action = action.abi();
                tuple.rule = rule;
            }
            _ => {}
        }
    }

    /// The tuples that a packet matches in the order in which the kernel probes them, up to and
    /// including the first that decides.
    pub(crate) fn matches(&self, packet: &PacketQuery) -> Vec<&CompiledTuple> {
        let kind = match packet.src {
            IpAddr::V4(_) => abi::TUPLE_V4,
            IpAddr::V6(_) => abi::TUPLE_V6,
        };
        let mut found = Vec::new();
        for (number, mask) in self.masks.iter().enumerate() {
            if mask.kind != kind {
                continue;
            }
            let and = |addr: IpAddr, mask: &[u8; 16]| {
                let bits = Cidr::host(addr).bits() & u128::from_be_bytes(*mask);
                bits.to_be_bytes()
            };
            let mut key = TupleKey {
                src: and(packet.src, &mask.src),
                dst: and(packet.dst, &mask.dst),
                dport: [0; 2],
                proto: packet.protocol & mask.proto,
                kind,
                shape: number as u32,
            };
            if mask.dport != [0; 2] {
                match (packet.dport, packet.later_fragment) {
                    (_, true) => key.kind |= abi::TUPLE_FRAGMENT,
                    (Some(port), false) => key.dport = port.to_be_bytes(),
                    (None, false) => continue,
                }
            }
            if let Some(tuple) = self.tuples.iter().find(|tuple| tuple.key == key) {
                found.push(tuple);
                if tuple.action != abi::ACTION_NONE {
                    break;
                }
            }
        }
        found
    }
}

/// A packet, for [`explain_packet`](crate::CompiledPolicy::explain_packet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketQuery {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, where the protocol has one.
    pub dport: Option<u16>,
    /// A fragment that is not the first.
    pub later_fragment: bool,
}

impl Shape {
    fn mask(&self) -> TupleMask {
        TupleMask {
            src: mask_bytes(self.family, self.src),
            dst: mask_bytes(self.family, self.dst),
            dport: if self.dport { [0xff; 2] } else { [0; 2] },
            proto: if self.proto { 0xff } else { 0 },
            kind: match self.family {
                Family::V4 => abi::TUPLE_V4,
                Family::V6 => abi::TUPLE_V6,
            },
            _pad: 0,
        }
    }
}
