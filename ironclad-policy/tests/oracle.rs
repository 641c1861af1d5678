//! Both back ends and `explain` against a linear oracle that knows nothing of tries and tables.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ironclad_core::abi;
use ironclad_core::{Action, Cidr, Family, RuleId};
use ironclad_policy::{AddressSet, Backend, CompiledPolicy, Meaning, Policy};
use proptest::prelude::*;

/// What a set wants: its rule is its position plus one.
type Sets = Vec<(Action, Vec<Cidr>)>;

/// What becomes of an address: (action and rule that decide, rule that reports).
type Outcome = (Option<(Action, RuleId)>, Option<RuleId>);

/// Reads the rules as a person would: of all prefixes that cover the address the longest, allow
/// before drop, the earlier set before the later.
fn oracle(sets: &Sets, addr: IpAddr) -> Outcome {
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

fn compile(sets: &Sets, backend: Backend) -> CompiledPolicy {
    let mut policy = Policy::builder().backend(backend);
    for (index, (action, cidrs)) in sets.iter().enumerate() {
        let rule = RuleId(index as u32 + 1);
        let name = format!("set {rule}");
        policy = policy.set(AddressSet::new(rule, name, *action).cidrs(cidrs.iter().copied()));
    }
    policy.compile().unwrap()
}

/// The meaning of a kernel entry.
fn meaning(policy: &CompiledPolicy, entry: u32) -> Outcome {
    let entry = policy.kernel_entries(|rule| rule as u16)[entry as usize];
    let id = |index: u16| policy.rules()[usize::from(index)].id;
    let decided = match entry.action {
        abi::ACTION_DROP => Some((Action::Drop, id(entry.rule))),
        abi::ACTION_ALLOW => Some((Action::Allow, id(entry.rule))),
        _ => None,
    };
    (decided, (entry.log == 1).then(|| id(entry.log_rule)))
}

/// The longest match over the trie's keys, as the kernel documents LPM_TRIE.
fn trie(policy: &CompiledPolicy, addr: IpAddr) -> u32 {
    let bits = Cidr::host(addr).bits();
    let covers =
        |prefixlen: u32, key: u128| prefixlen == 0 || (key ^ bits) >> (128 - prefixlen) == 0;
    let best = match addr {
        IpAddr::V4(_) => policy
            .lpm4()
            .filter(|(key, _)| {
                covers(key.prefixlen, u128::from(u32::from_be_bytes(key.addr)) << 96)
            })
            .max_by_key(|(key, _)| key.prefixlen)
            .map(|(_, entry)| entry),
        IpAddr::V6(_) => policy
            .lpm6()
            .filter(|(key, _)| covers(key.prefixlen, u128::from_be_bytes(key.addr)))
            .max_by_key(|(key, _)| key.prefixlen)
            .map(|(_, entry)| entry),
    };
    best.unwrap_or(0)
}

/// Addresses that share many leading bits, so that prefixes nest and touch.
fn addr(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => (
            prop::sample::select(vec![0x0a00_0000u32, 0x0a01_0200, 0xffff_ff00, 0]),
            any::<u32>(),
            0u32..=32,
        )
            .prop_map(|(base, noise, keep)| {
                let noise = if keep == 32 { 0 } else { noise >> keep };
                IpAddr::V4((base ^ noise).into())
            })
            .boxed(),
        Family::V6 => (
            prop::sample::select(vec![
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

fn any_addr() -> impl Strategy<Value = IpAddr> {
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
    prop::sample::select(vec![Action::Drop, Action::Allow, Action::Log])
}

fn sets() -> impl Strategy<Value = Sets> {
    prop::collection::vec((action(), prop::collection::vec(cidr(), 0..40)), 1..6)
}

/// First and last address of a prefix, and the neighbours of both.
fn edges(cidr: Cidr) -> Vec<IpAddr> {
    let bits = u32::from(cidr.family().bits());
    let host = bits - u32::from(cidr.length());
    let (first, top) = match cidr.addr() {
        IpAddr::V4(a) => (u128::from(u32::from(a)), u128::from(u32::MAX)),
        IpAddr::V6(a) => (u128::from(a), u128::MAX),
    };
    let last = if host == 128 { u128::MAX } else { first + ((1u128 << host) - 1) };
    let make = |n: u128| match cidr.family() {
        Family::V4 => IpAddr::V4((n as u32).into()),
        Family::V6 => IpAddr::V6(n.into()),
    };
    let mut out = vec![make(first), make(last)];
    out.extend(first.checked_sub(1).map(make));
    out.extend(last.checked_add(1).filter(|&n| n <= top).map(make));
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_back_end_agrees_with_the_oracle(sets in sets(), probes in prop::collection::vec(any_addr(), 60)) {
        let flat = compile(&sets, Backend::Flat);
        let lpm = compile(&sets, Backend::LpmTrie);
        let edges = sets.iter().flat_map(|(_, cidrs)| cidrs).flat_map(|&cidr| edges(cidr));
        for addr in probes.iter().copied().chain(edges) {
            let expected = oracle(&sets, addr);
            prop_assert_eq!(meaning(&flat, flat.flat().lookup(addr)), expected, "flat, {}", addr);
            prop_assert_eq!(meaning(&lpm, trie(&lpm, addr)), expected, "trie, {}", addr);
            let why = flat.explain(addr);
            let explained = (
                why.decided_by.as_ref().map(|cover| (cover.action, cover.rule)),
                why.logged_by.as_ref().map(|cover| cover.rule),
            );
            prop_assert_eq!(explained, expected, "explain, {}", addr);
            for cover in why.decided_by.iter().chain(&why.logged_by) {
                let (action, cidrs) = &sets[cover.rule.0 as usize - 1];
                prop_assert_eq!(cover.action, *action);
                prop_assert_eq!(cidrs[cover.line as usize - 1], cover.cidr);
            }
        }
    }

    #[test]
    fn order_within_a_list_does_not_change_the_policy(sets in sets(), seed in any::<u64>()) {
        let mut shuffled = sets.clone();
        for (_, cidrs) in &mut shuffled {
            let len = cidrs.len().max(1);
            cidrs.rotate_left((seed % len as u64) as usize);
            cidrs.reverse();
        }
        prop_assert_eq!(compile(&sets, Backend::Flat).id(), compile(&shuffled, Backend::Flat).id());
    }

    // Applying a diff's changes to the old prefixes gives the new ones.
    #[test]
    fn a_diff_leads_from_one_policy_to_the_other(old in sets(), new in sets()) {
        let (old, new) = (compile(&old, Backend::Flat), compile(&new, Backend::Flat));
        let prefixes = |policy: &CompiledPolicy| -> BTreeMap<Cidr, Outcome> {
            (1..=policy.prefixes())
                .map(|entry| (policy.entry_cidr(entry).unwrap(), meaning(policy, entry as u32)))
                .collect()
        };
        let diff = old.diff(&new);
        let mut changed = prefixes(&old);
        for change in &diff.prefixes {
            let outcome = |meaning: Meaning| (meaning.decided, meaning.logged);
            let was = match change.after {
                Some(after) => changed.insert(change.cidr, outcome(after)),
                None => changed.remove(&change.cidr),
            };
            prop_assert_eq!(was, change.before.map(outcome));
            prop_assert!(change.before != change.after);
        }
        prop_assert_eq!(changed, prefixes(&new));
        prop_assert_eq!(diff.is_empty(), old.id() == new.id());
        prop_assert!(new.diff(&new).is_empty());
    }
}
