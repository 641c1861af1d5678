use ironclad_core::{SocketProtocol, SocketVerdict};

use super::check::unfit;
use super::rule::{Direction, SocketRule, Sockets, shown};
use crate::error::PolicyError;

/// What of a policy decides of packet sockets ([`SocketProtocol::Packet`]), for callers that report that it
/// cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketSockets {
    /// The first of it: a rule, or the default.
    pub decided_by: String,
    /// The first rule of it with a limit.
    pub limited_by: Option<String>,
}

impl PacketSockets {
    /// `None` where nothing decides of them.
    pub(super) fn of(sockets: &Sockets) -> Result<Option<Self>, PolicyError> {
        let named = |rule: &&SocketRule| rule.protocols.contains(&SocketProtocol::Packet);
        if sockets.packets_unseen {
            return match sockets.rules.iter().find(named) {
                Some(rule) => Err(unfit(
                    rule,
                    "speaks of packet sockets, which this policy leaves unseen: leave out one of both",
                )),
                None => Ok(None),
            };
        }
        let covers = |rule: &&SocketRule| {
            rule.direction == Direction::Create && (rule.protocols.is_empty() || named(rule))
        };
        let words = |rule: &SocketRule| shown(rule.rule, &rule.name, rule.described_at.as_deref());
        let mut rules = sockets.rules.iter().filter(covers);
        let first = rules.clone().next().map(words);
        let default = sockets.defaults[Direction::Create as usize] == SocketVerdict::Deny;
        let decided_by = first.or(default.then(|| "the default of `create`".to_owned()));
        let limited_by = rules.find(|rule| rule.limit.is_some()).map(words);
        Ok(decided_by.map(|decided_by| Self { decided_by, limited_by }))
    }
}

#[cfg(test)]
mod tests {
    use ironclad_core::RuleId;

    use super::*;
    use crate::Policy;
    use crate::socket::{RateLimit, SocketAction};

    fn rule(id: u32) -> SocketRule {
        SocketRule::new(RuleId(id), "one", SocketAction::Allow).direction(Direction::Create)
    }

    fn compiled(policy: Policy) -> Option<PacketSockets> {
        policy.compile().unwrap().sockets().and_then(|sockets| sockets.packet_sockets().cloned())
    }

    #[test]
    fn what_covers_packet_sockets_is_named() {
        let drop = || Policy::builder().socket_default(Direction::Create, SocketVerdict::Deny);
        assert_eq!(compiled(drop()).unwrap().decided_by, "the default of `create`");
        assert_eq!(compiled(drop().danger_packet_sockets_unseen(true)), None);
        let out = Policy::builder().socket_default(Direction::Out, SocketVerdict::Deny);
        assert_eq!(compiled(out.socket_rule(rule(1).protocol(SocketProtocol::Raw))), None);
        let two = drop().socket_rule(rule(1).protocol(crate::Protocol::ICMP)).socket_rule(rule(2));
        assert_eq!(compiled(two.clone()).unwrap().decided_by, "rule 2 (`one`)");
        assert_eq!(compiled(two.clone()).unwrap().limited_by, None);
        assert_eq!(compiled(two.danger_packet_sockets_unseen(true)), None);
        let limit = rule(3).protocol(SocketProtocol::Packet).limit(RateLimit::per_second(1));
        let limited = compiled(Policy::builder().socket_rule(limit)).unwrap();
        assert_eq!(limited.limited_by.unwrap(), "rule 3 (`one`)");
    }

    #[test]
    fn what_is_unseen_has_no_rule() {
        let policy = Policy::builder().danger_packet_sockets_unseen(true);
        let refused =
            policy.socket_rule(rule(7).protocol(SocketProtocol::Packet)).compile().unwrap_err();
        assert!(refused.to_string().contains("leaves unseen"), "{refused}");
        let refused = Policy::builder()
            .socket_rule(rule(7).direction(Direction::Out).protocol(SocketProtocol::Packet))
            .compile()
            .unwrap_err();
        assert!(refused.to_string().contains("packet has no hook but socket(2)"), "{refused}");
    }

    #[test]
    fn policies_that_differ_in_it_have_other_ids() {
        let drop = || Policy::builder().socket_default(Direction::Create, SocketVerdict::Deny);
        let unseen = drop().danger_packet_sockets_unseen(true).compile().unwrap();
        assert_ne!(drop().compile().unwrap().id(), unseen.id());
    }
}
