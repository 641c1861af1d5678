//! Policies, and what becomes of a packet as docs/policy-format.md has it: rule by rule, without
//! tables, masks and hashes. Shared with ironclad-shield's `matrix_lookup`.

mod random;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use ironclad_core::abi::Reason;
use ironclad_core::{Action, Cidr, Family, RuleId, Verdict};
use ironclad_policy::{
    AddressSet, Backend, CompiledPolicy, PacketQuery, Policy, Protocol, TupleRule,
};

pub(crate) use random::{any_addr, packets, plan, sets};

/// What a set wants: its rule is its position plus one.
pub(crate) type Sets = Vec<(Action, Vec<Cidr>)>;

/// The rule of the first tuple.
const TUPLES_FROM: u32 = 101;

/// A policy, and the gateways beside it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) default: Verdict,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) sets: Sets,
    pub(crate) tuples: Vec<Tuple>,
}

/// A tuple: what is not said matches anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuple {
    pub(crate) action: Action,
    pub(crate) src: Option<Cidr>,
    pub(crate) dst: Option<Cidr>,
    pub(crate) protocol: Option<u8>,
    pub(crate) dport: Option<u16>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    /// The rule that decides.
    pub(crate) rule: Option<RuleId>,
    /// Rules that report.
    pub(crate) logged: Vec<RuleId>,
}

/// Of all prefixes that cover the address the longest decides, allow before drop, the earlier set
/// before the later; and which rule reports.
pub(crate) fn by_sets(sets: &Sets, addr: IpAddr) -> (Option<(Action, RuleId)>, Option<RuleId>) {
    let mut decider: Option<(u8, Action, u32)> = None;
    let mut logger: Option<(u8, u32)> = None;
    for (index, (action, cidrs)) in sets.iter().enumerate() {
        let rule = index as u32 + 1;
        for cidr in cidrs.iter().filter(|cidr| cidr.contains(addr)) {
            let length = cidr.length();
            if *action == Action::Log {
                if logger.is_none_or(|(best, _)| length > best) {
                    logger = Some((length, rule));
                }
                continue;
            }
            let better = match decider {
                None => true,
                Some((best, _, _)) if length != best => length > best,
                Some((_, held, _)) => held == Action::Drop && *action == Action::Allow,
            };
            if better {
                decider = Some((length, *action, rule));
            }
        }
    }
    (decider.map(|(_, action, rule)| (action, RuleId(rule))), logger.map(|(_, rule)| RuleId(rule)))
}

fn verdict_of(action: Action) -> Verdict {
    if action == Action::Drop { Verdict::Drop } else { Verdict::Allow }
}

impl Tuple {
    fn families(&self) -> Vec<Family> {
        match self.src.or(self.dst) {
            Some(cidr) => vec![cidr.family()],
            None => vec![Family::V4, Family::V6],
        }
    }

    fn matches(&self, packet: &PacketQuery) -> bool {
        self.src.is_none_or(|src| src.contains(packet.src))
            && self.dst.is_none_or(|dst| dst.contains(packet.dst))
            && self.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && match self.dport {
                None => true,
                // It has no port: it follows a first one that was allowed.
                Some(_) if packet.later_fragment => self.action == Action::Allow,
                port => port == packet.dport,
            }
    }

    /// Least where it is compared first: by bits compared, then by the source's, then by the
    /// destination's.
    fn precedence(&self) -> (Reverse<u32>, u8, u8) {
        let length = |cidr: Option<Cidr>| cidr.map_or(0, Cidr::length);
        let (src, dst) = (length(self.src), length(self.dst));
        let service =
            if self.dport.is_some() { 16 } else { 0 } + if self.protocol.is_some() { 8 } else { 0 };
        (Reverse(u32::from(src) + u32::from(dst) + service), src, dst)
    }
}

impl Plan {
    /// The policy that a user would build.
    pub(crate) fn compile(&self, backend: Backend) -> CompiledPolicy {
        let mut policy = Policy::builder().backend(backend).default_action(self.default);
        for (index, (action, cidrs)) in self.sets.iter().enumerate() {
            let rule = RuleId(index as u32 + 1);
            let name = format!("set {rule}");
            policy = policy.set(AddressSet::new(rule, name, *action).cidrs(cidrs.iter().copied()));
        }
        for (tuple, number) in self.tuples.iter().zip(TUPLES_FROM..) {
            let name = format!("tuple {number}");
            let mut rule = TupleRule::new(RuleId(number), name, tuple.action);
            rule = tuple.src.into_iter().fold(rule, TupleRule::src);
            rule = tuple.dst.into_iter().fold(rule, TupleRule::dst);
            rule = tuple.protocol.into_iter().map(Protocol).fold(rule, TupleRule::protocol);
            rule = tuple.dport.into_iter().fold(rule, TupleRule::dport);
            policy = policy.tuple(rule);
        }
        policy.compile().unwrap()
    }

    /// What becomes of a well-formed packet: gateways, sets, tuples, default.
    pub(crate) fn outcome(&self, packet: &PacketQuery) -> Outcome {
        if self.gateways.contains(&packet.src) {
            let (verdict, reason) = (Verdict::Allow, Reason::Gateway);
            return Outcome { verdict, reason, rule: None, logged: Vec::new() };
        }
        let (decided, logged) = by_sets(&self.sets, packet.src);
        let mut logged = Vec::from_iter(logged);
        if let Some((action, rule)) = decided {
            let verdict = verdict_of(action);
            return Outcome { verdict, reason: Reason::Set, rule: Some(rule), logged };
        }
        let matching: Vec<(&Tuple, RuleId)> = self
            .tuples
            .iter()
            .zip((TUPLES_FROM..).map(RuleId))
            .filter(|(tuple, _)| tuple.matches(packet))
            .collect();
        let steps: BTreeSet<_> = matching.iter().map(|(tuple, _)| tuple.precedence()).collect();
        for step in steps {
            let first = |action| {
                let mut equals = matching.iter().filter(|(t, _)| t.precedence() == step);
                equals.find(|(tuple, _)| tuple.action == action).map(|(_, rule)| *rule)
            };
            logged.extend(first(Action::Log));
            for action in [Action::Allow, Action::Drop] {
                if let Some(rule) = first(action) {
                    let verdict = verdict_of(action);
                    return Outcome { verdict, reason: Reason::Tuple, rule: Some(rule), logged };
                }
            }
        }
        Outcome { verdict: self.default, reason: Reason::Default, rule: None, logged }
    }
}
