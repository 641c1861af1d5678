use std::fmt;

use ironclad_core::abi::ACTION_ALLOW;
use ironclad_core::{RuleId, Verdict};

use crate::compile::Inner;
use crate::policy::Policy;

/// A likely mistake in a policy: [`CompiledPolicy::warnings`](crate::CompiledPolicy::warnings).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyWarning {
    /// The default drops packets, and no gateway, set or tuple of the policy allows any.
    NothingAllowed,
    /// A set has lists, and they have no prefix.
    EmptySet {
        /// The rule.
        rule: RuleId,
        /// Its name.
        name: String,
    },
    /// A group of addresses for socket rules has no prefix.
    EmptyAddresses {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingAllowed => f.write_str(
                "packets of every source are dropped, and no operator can log in (name a gateway, or allow a set or tuple)",
            ),
            Self::EmptySet { rule, name } => {
                write!(f, "rule {rule} (`{name}`) has no prefix, and matches no packet")
            }
            Self::EmptyAddresses { name } => {
                write!(f, "the addresses `{name}` have no prefix: rules to them match nothing")
            }
        }
    }
}

pub(crate) fn warnings(policy: &Policy, compiled: &Inner) -> Vec<PolicyWarning> {
    let entries = compiled.entries.iter().map(|entry| entry.action);
    let tuples = compiled.tuples.tuples.iter().map(|tuple| tuple.action);
    let is_closed = policy.default_action == Verdict::Drop
        && policy.gateways.is_empty()
        && entries.chain(tuples).all(|action| action != ACTION_ALLOW);
    let mut found: Vec<_> =
        is_closed.then_some(PolicyWarning::NothingAllowed).into_iter().collect();
    let sets = policy.sets.iter().filter(|set| set.lists.iter().all(|it| it.entries().is_empty()));
    found
        .extend(sets.map(|set| PolicyWarning::EmptySet { rule: set.rule, name: set.name.clone() }));
    let groups = policy.sockets.groups.iter();
    let groups = groups.filter(|group| group.lists.iter().all(|it| it.entries().is_empty()));
    found.extend(groups.map(|it| PolicyWarning::EmptyAddresses { name: it.name.clone() }));
    found
}

#[cfg(test)]
mod tests {
    use ironclad_core::{Action, Protocol};

    use super::*;
    use crate::{AddressSet, TupleRule};

    fn of(policy: Policy) -> Vec<String> {
        policy.compile().unwrap().warnings().iter().map(PolicyWarning::to_string).collect()
    }

    #[test]
    fn an_unreachable_host_warns() {
        let closed = || Policy::builder().default_action(Verdict::Drop);
        let set = |action| {
            AddressSet::new(RuleId(1), "a", action).cidrs(["2001:db8::/32".parse().unwrap()])
        };
        let tuple =
            |action| TupleRule::new(RuleId(2), "b", action).protocol(Protocol::TCP).dport(22);
        for policy in
            [closed(), closed().set(set(Action::Drop)), closed().tuple(tuple(Action::Log))]
        {
            let warnings = of(policy);
            assert!(
                matches!(&warnings[..], [one] if one.contains("no operator can log in")),
                "{warnings:?}"
            );
        }
        for policy in [
            Policy::builder(),
            closed().set(set(Action::Allow)),
            closed().tuple(tuple(Action::Allow)),
            closed().gateways(["fd00::1".parse().unwrap()]),
        ] {
            assert_eq!(of(policy), [""; 0]);
        }
    }

    #[test]
    fn a_set_without_prefixes_warns() {
        use crate::socket::{AddressGroup, SocketAction, SocketRule};
        let rule = SocketRule::new(RuleId(1), "c", SocketAction::Deny).to("none");
        let policy = Policy::builder()
            .set(AddressSet::new(RuleId(1), "a", Action::Drop).cidrs([]))
            .set(AddressSet::new(RuleId(2), "b", Action::Drop).cidrs(["::/0".parse().unwrap()]))
            .addresses(AddressGroup::new("none").cidrs([]))
            .socket_rule(rule);
        assert_eq!(
            of(policy),
            [
                "rule 1 (`a`) has no prefix, and matches no packet",
                "the addresses `none` have no prefix: rules to them match nothing",
            ]
        );
    }
}
