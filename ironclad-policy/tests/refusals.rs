//! Policies that are not compiled, and what is said of them.

use ironclad_core::{Action, RuleId};
use ironclad_policy::file::{FileAction, FileRule};
use ironclad_policy::socket::{Bound, SocketAction, SocketRule, Subject};
use ironclad_policy::{AddressSet, Policy, PolicyError, PolicyErrorKind, Protocol, TupleRule};

fn set(rule: u32, name: &str) -> AddressSet {
    AddressSet::new(RuleId(rule), name, Action::Drop).cidrs(["192.0.2.0/24".parse().unwrap()])
}

fn tuple() -> TupleRule {
    TupleRule::new(RuleId(1), "web", Action::Allow)
}

fn refusal(policy: Policy) -> PolicyError {
    policy.compile().unwrap_err()
}

#[test]
fn a_rule_has_one_name() {
    let error = refusal(Policy::builder().set(set(7, "a")).set(set(7, "b")));
    assert_eq!((error.kind(), error.rule()), (PolicyErrorKind::RuleName, Some(RuleId(7))));
    assert!(error.to_string().starts_with("rule 7 is called `a` and `b`"), "{error}");
}

#[test]
fn names_leave_terminals_alone() {
    for name in ["", "a\u{1b}[31m", "two\nlines", &"a".repeat(129)] {
        let error = refusal(Policy::builder().set(set(7, name)));
        assert_eq!(error.kind(), PolicyErrorKind::UnfitName, "{error}");
        let text = error.to_string();
        assert!(text.starts_with("rule 7: `") && !text.contains(char::is_control), "{text}");
        assert!(text.len() < 200, "{text}");
    }
    assert!(Policy::builder().set(set(7, &"ä".repeat(128))).compile().is_ok());
}

#[test]
fn rules_have_an_id_and_sets_have_addresses() {
    let deny = |id| SocketRule::new(RuleId(id), "rule", SocketAction::Deny).port(25);
    let file = |id| FileRule::new(RuleId(id), "rule", FileAction::Deny).file("/etc/shadow");
    let (zero, one) = (RuleId(0), RuleId(1));
    let tuple = |id| TupleRule::new(id, "rule", Action::Allow).protocol(Protocol::TCP).dport(443);
    for (policy, same_with_id) in [
        (Policy::builder().set(set(0, "rule")), Policy::builder().set(set(1, "rule"))),
        (Policy::builder().tuple(tuple(zero)), Policy::builder().tuple(tuple(one))),
        (Policy::builder().socket_rule(deny(0)), Policy::builder().socket_rule(deny(1))),
        (Policy::builder().file_rule(file(0)), Policy::builder().file_rule(file(1))),
    ] {
        let error = refusal(policy);
        assert_eq!(error.kind(), PolicyErrorKind::NoId, "{error}");
        assert!(error.to_string().contains("use an id from 1 on"), "{error}");
        same_with_id.compile().unwrap();
    }
    let empty = AddressSet::new(RuleId(1), "bad", Action::Drop);
    let error = refusal(Policy::builder().set(empty));
    assert_eq!(
        error.to_string(),
        "rule 1 (`bad`): the set is empty: add an address or a list, or remove it"
    );
}

#[test]
fn tuples_that_match_nothing_are_refused() {
    let error = refusal(Policy::builder().tuple(tuple().dport(443)));
    assert_eq!(error.kind(), PolicyErrorKind::PortWithoutProtocol);
    let error = refusal(Policy::builder().tuple(tuple().protocol(Protocol::ICMP).dport(443)));
    assert_eq!(error.kind(), PolicyErrorKind::PortWithoutProtocol);
    let mixed = tuple().src("192.0.2.0/24".parse().unwrap()).dst("2001:db8::/32".parse().unwrap());
    let error = refusal(Policy::builder().tuple(mixed));
    assert_eq!(error.kind(), PolicyErrorKind::MixedFamilies);
}

/// The kernel counts the levels above a cgroup in a byte.
#[test]
fn a_cgroup_too_deep_is_refused() {
    let rule = SocketRule::new(RuleId(1), "deep", SocketAction::Allow);
    let rule = rule.subject(Subject::new("deep").cgroup("/a"));
    let policy = Policy::builder().socket_rule(rule).compile().unwrap();
    let at = |level| {
        let cgroups = [("/a".to_owned(), (7, level))].into();
        policy.sockets().unwrap().image(&Bound { cgroups, ..Bound::default() })
    };
    assert_eq!(at(255).unwrap().policy.level[0], 255);
    let refused = at(256).unwrap_err();
    assert_eq!(refused.kind(), PolicyErrorKind::Limit);
    let text = refused.to_string();
    assert!(text.contains("256") && text.contains("the limit is 255"), "{text}");
}
