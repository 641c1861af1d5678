//! Names for the numbers of events.
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use ironclad_bpf::{XdpLink, wall_time};
use ironclad_core::abi::Reason;
use ironclad_core::{Cidr, Protocol, RuleId, SocketProtocol, WallTime};
use ironclad_events::{Record, ShieldRecord, SocketRecord};
use ironclad_policy::socket::{CompiledSockets, SocketRuleInfo};
use ironclad_policy::{CompiledPolicy, PacketQuery, Rule};
use serde::Serialize;

use super::{Control, Shield};
use crate::slots::Slots;

/// A rule, as its policy names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NamedRule {
    /// The id.
    pub id: RuleId,
    /// The name; of a set in a policy, the name of the set.
    pub name: String,
}

/// An event with the names that its numbers stand for: what [`Shield::describe`] returns.
///
/// Shown, it is a line for a log: the time, the interface, the event, and its rule. Serialized, an object
/// with the record as `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DescribedEvent {
    /// When, to the microsecond, by the wall clock as it is set when the event is described.
    pub time: WallTime,
    /// The protected interface that received the packet, by the name under which it is protected. None for
    /// operations on sockets, for an interface that is not protected any more, and where interfaces of two
    /// network namespaces have the index and different names.
    pub interface: Option<String>,
    /// The protocol, such as `tcp` or `packet`, or its number where Ironclad has no name for it; none of
    /// frames without addresses.
    pub protocol: Option<String>,
    /// The rule that decided or reported. None where none did, and where its policy is not known any more:
    /// see `is_replaced`.
    pub rule: Option<NamedRule>,
    /// The prefix that covers the source, of the set or tuple that matched; none where a tuple matches any source, where
    /// none of both matched, and after the policy was replaced.
    pub prefix: Option<Cidr>,
    /// The prefix that covers the destination, of the tuple that matched; none where it matches any destination, where
    /// no tuple matched, and after the policy was replaced.
    pub dst_prefix: Option<Cidr>,
    /// Whether the policy that decided was replaced meanwhile. This agent knows the rules of the last eight
    /// policies that it applied; an event of another has no `rule`.
    pub is_replaced: bool,
    /// The event as the kernel reported it.
    pub event: Record,
}

impl Shield {
    /// Names what an event has as numbers: rule, prefix, interface, protocol and time.
    ///
    /// ```no_run
    /// # use ironclad_policy::Policy;
    /// # use ironclad_shield::{Overflow, Shield};
    /// # let shield = Shield::builder("agent").interface("eth0").start(&Policy::builder().compile()?)?;
    /// let (_pump, events) = shield.events(1024, Overflow::DropNewest)?;
    /// for event in &events {
    ///     println!("{}", shield.describe(event));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// It waits while a policy is applied.
    pub fn describe(&self, event: impl Into<Record>) -> DescribedEvent {
        let event = event.into();
        let control = self.core.lock();
        let (interface, protocol, rule, [prefix, dst_prefix], generation) = match &event {
            Record::Shield(packet) => (
                control.interface(packet.ifindex),
                packet.src.map(|_| name_or_number(Protocol(packet.protocol))),
                control.packet_rule(packet),
                control.prefixes(packet).unwrap_or_default(),
                Some(packet.generation),
            ),
            Record::Socket(socket) => (
                None,
                Some(name_of(socket.protocol)),
                control.socket_rule(socket),
                [None; 2],
                Some(socket.generation),
            ),
            _ => (None, None, None, [None; 2], None),
        };
        DescribedEvent {
            time: wall_time(event.time_ns()),
            interface,
            protocol,
            rule: rule.cloned(),
            prefix,
            dst_prefix,
            is_replaced: generation.is_some_and(|number| control.policy(number).is_none()),
            event,
        }
    }
}

fn name_or_number(protocol: Protocol) -> String {
    protocol.name().map_or_else(|| protocol.0.to_string(), str::to_owned)
}

fn name_of(protocol: SocketProtocol) -> String {
    match protocol {
        SocketProtocol::Ip(protocol) => name_or_number(protocol),
        kind => kind.to_string(),
    }
}

impl Control {
    /// The policy of a generation, where a slot has it and this agent knows it.
    fn policy(&self, generation: u64) -> Option<&CompiledPolicy> {
        self.policies.iter().flatten().find(|loaded| loaded.number == generation)?.policy.as_ref()
    }

    fn packet_rule(&self, packet: &ShieldRecord) -> Option<&NamedRule> {
        self.names.of(packet.generation)?.packets.get(&packet.rule_slot)
    }

    pub(super) fn socket_rule(&self, socket: &SocketRecord) -> Option<&NamedRule> {
        self.names.of(socket.generation)?.sockets.get(socket.rule?)
    }

    /// Of source and destination.
    fn prefixes(&self, packet: &ShieldRecord) -> Option<[Option<Cidr>; 2]> {
        let policy = self.policy(packet.generation)?;
        if packet.reason != Reason::Tuple {
            return Some([policy.entry_cidr(packet.entry as usize), None]);
        }
        let query = PacketQuery {
            src: packet.src?,
            dst: packet.dst?,
            protocol: packet.protocol,
            dport: packet.ports.map(|(_, dport)| dport),
            later_fragment: packet.fragment && packet.ports.is_none(),
        };
        policy.tuple_prefixes(&query, self.packet_rule(packet)?.id)
    }

    /// The event does not have the network namespace.
    fn interface(&self, index: u32) -> Option<String> {
        let mut known = self.links.iter().map(XdpLink::interface).filter(|it| it.index == index);
        let name = &known.next()?.name;
        known.all(|other| other.name == *name).then(|| name.clone())
    }
}

/// The rules of the last policies, by the numbers that events have.
#[derive(Default)]
pub(super) struct Names(VecDeque<PolicyNames>);

struct PolicyNames {
    generation: u64,
    /// By slot.
    packets: BTreeMap<u32, NamedRule>,
    /// By index.
    sockets: Vec<NamedRule>,
}

impl Names {
    /// Events may wait in a channel while policies are replaced.
    const KEPT: usize = 8;

    /// Remembers a policy whose rules have their slots.
    pub(super) fn add(&mut self, generation: u64, policy: &CompiledPolicy, slots: &Slots<u32>) {
        let packet = |rule: &Rule| {
            let slot = u32::from(slots.of(rule.id.0)?);
            Some((slot, NamedRule { id: rule.id, name: rule.name.clone() }))
        };
        let socket = |rule: &SocketRuleInfo| NamedRule { id: rule.id, name: rule.name.clone() };
        let sockets = policy.sockets().map(CompiledSockets::rules).unwrap_or_default();
        self.0.truncate(Self::KEPT - 1);
        self.0.push_front(PolicyNames {
            generation,
            packets: policy.rules().iter().skip(1).filter_map(packet).collect(),
            sockets: sockets.iter().map(socket).collect(),
        });
    }

    fn of(&self, generation: u64) -> Option<&PolicyNames> {
        self.0.iter().find(|names| names.generation == generation)
    }
}

/// `7 "no mail"`.
impl fmt::Display for NamedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.id, self.name.escape_debug())
    }
}

/// One line: `2026-01-31T12:00:00.123456Z eth0: drop 192.0.2.1:40000 → 198.51.100.2:443 tcp (set), rule 1
/// "bad", prefix 192.0.2.0/24`.
impl fmt::Display for DescribedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.time)?;
        match (&self.interface, &self.event) {
            (Some(name), _) => write!(f, "{}: ", name.escape_debug())?,
            (None, Record::Shield(packet)) => write!(f, "interface {}: ", packet.ifindex)?,
            (None, _) => {}
        }
        self.event.fmt(f)?;
        if let Some(rule) = &self.rule {
            write!(f, ", rule {rule}")?;
        }
        if let Some(prefix) = self.prefix {
            write!(f, ", prefix {prefix}")?;
        }
        if let Some(prefix) = self.dst_prefix {
            write!(f, ", destination prefix {prefix}")?;
        }
        if self.is_replaced {
            f.write_str(", by a policy that was replaced")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    use ironclad_core::abi;
    use ironclad_events::{Event, decode};
    use zerocopy::IntoBytes;

    fn event() -> DescribedEvent {
        let mut raw = abi::ShieldEvent { reason: abi::Reason::Set as u8, ..Default::default() };
        raw.hdr.kind = abi::EV_SHIELD;
        raw.hdr.len = size_of::<abi::ShieldEvent>() as u16;
        raw.vlan = [u16::MAX; 2];
        (raw.ifindex, raw.rule, raw.entry) = (7, 3, 9);
        (raw.family, raw.proto, raw.verdict) = (abi::TUPLE_V4, 6, abi::VERDICT_DROP);
        raw.src[..4].copy_from_slice(&[192, 0, 2, 1]);
        raw.sport = 40_000u16.to_be_bytes();
        let Ok(Event::Shield(shield)) = decode(raw.as_bytes()) else { panic!() };
        DescribedEvent {
            time: WallTime(UNIX_EPOCH + Duration::from_micros(951_825_600_000_001)),
            interface: Some("eth0".to_owned()),
            protocol: Some(name_or_number(Protocol(6))),
            rule: Some(NamedRule { id: RuleId(1), name: "bad\n".to_owned() }),
            prefix: Some("192.0.2.0/24".parse().unwrap()),
            dst_prefix: None,
            is_replaced: false,
            event: ShieldRecord::from(&shield).into(),
        }
    }

    #[test]
    fn a_line_has_the_names() {
        let mut event = event();
        let packet = "drop 192.0.2.1:40000 → 0.0.0.0:0 tcp (set)";
        let expected = format!(
            r#"2000-02-29T12:00:00.000001Z eth0: {packet}, rule 1 "bad\n", prefix 192.0.2.0/24"#
        );
        assert_eq!(event.to_string(), expected);
        event.dst_prefix = Some("0.0.0.0/32".parse().unwrap());
        assert!(event.to_string().ends_with("/24, destination prefix 0.0.0.0/32"), "{event}");
        (event.rule, event.prefix, event.interface, event.is_replaced) = (None, None, None, true);
        event.dst_prefix = None;
        let expected = format!(
            "2000-02-29T12:00:00.000001Z interface 7: {packet}, by a policy that was replaced"
        );
        assert_eq!(event.to_string(), expected);
    }

    #[test]
    fn json_has_names_beside_the_record() {
        let json = serde_json::to_value(event()).unwrap();
        assert_eq!(json["time"], "2000-02-29T12:00:00.000001Z");
        assert_eq!((&json["interface"], &json["protocol"]), (&"eth0".into(), &"tcp".into()));
        assert_eq!(json["rule"], serde_json::json!({ "id": 1, "name": "bad\n" }));
        assert_eq!(json["prefix"], "192.0.2.0/24");
        assert_eq!(json["is_replaced"], false);
        assert_eq!(
            (&json["event"]["kind"], &json["event"]["rule_slot"]),
            (&"shield".into(), &3.into())
        );
    }

    #[test]
    fn protocols_without_a_name_have_their_number() {
        assert_eq!(name_or_number(Protocol::ICMPV6), "icmpv6");
        assert_eq!(name_or_number(Protocol(89)), "89");
        // Of packets, and not of sockets, these are numbers.
        assert_eq!(name_or_number(Protocol(abi::SOCK_PROTO_RAW)), "255");
        assert_eq!(name_of(SocketProtocol::Raw), "raw");
        assert_eq!(name_of(SocketProtocol::from_abi(17)), "udp");
    }

    #[test]
    fn rules_are_those_of_the_events_policy() {
        use ironclad_core::Action;
        use ironclad_policy::{AddressSet, Policy};

        let policy = |id| {
            let set = AddressSet::new(RuleId(id), format!("set {id}"), Action::Drop)
                .cidrs(["192.0.2.0/24".parse().unwrap()]);
            Policy::builder().set(set).compile().unwrap()
        };
        let mut names = Names::default();
        let last = Names::KEPT as u64 + 1;
        for generation in 1..=last {
            // The slot of a rule that is gone goes to another.
            let slots = Slots::with([(generation as u32, 1)]);
            names.add(generation, &policy(generation as u32), &slots);
        }
        let rule = |generation| Some(names.of(generation)?.packets.get(&1)?.id);
        assert_eq!(rule(1), None);
        assert_eq!(rule(last + 1), None);
        for generation in 2..=last {
            assert_eq!(rule(generation), Some(RuleId(generation as u32)));
        }
    }
}
