//! Both back ends, the tuples and `explain` against a linear oracle that knows nothing of tries,
//! tables and hashes.

mod plan;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ironclad_core::abi::{self, Reason, TupleKey, TupleVal};
use ironclad_core::{Action, Cidr, Family, RuleId, Verdict};
use ironclad_policy::{AddressSet, Backend, CompiledPolicy, Meaning, PacketQuery, Policy};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use plan::{Outcome, Sets, any_addr, by_sets, packets, plan, sets};

/// What becomes of an address: (action and rule that decide, rule that reports).
type Decided = (Option<(Action, RuleId)>, Option<RuleId>);

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
fn meaning(policy: &CompiledPolicy, entry: u32) -> Decided {
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

/// What the kernel makes of a packet that no gateway sent: `lib/packet/tuples.h` over the compiled keys.
fn as_the_kernel(policy: &CompiledPolicy, packet: &PacketQuery) -> Outcome {
    let (decided, logged) = meaning(policy, trie(policy, packet.src));
    let mut logged = Vec::from_iter(logged);
    let outcome = |action: Action, reason, rule, logged| {
        let verdict = if action == Action::Drop { Verdict::Drop } else { Verdict::Allow };
        Outcome { verdict, reason, rule: Some(rule), logged }
    };
    if let Some((action, rule)) = decided {
        return outcome(action, Reason::Set, rule, logged);
    }
    let table: HashMap<[u8; 40], TupleVal> = policy
        .kernel_tuples(|rule| rule as u16)
        .into_iter()
        .map(|(key, val)| (zerocopy::transmute!(key), val))
        .collect();
    let kind = match packet.src {
        IpAddr::V4(_) => abi::TUPLE_V4,
        IpAddr::V6(_) => abi::TUPLE_V6,
    };
    let bytes = |addr: IpAddr| match addr {
        IpAddr::V4(a) => [a.octets().as_slice(), &[0; 12]].concat(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let (src, dst) = (bytes(packet.src), bytes(packet.dst));
    for (shape, mask) in policy.tuple_masks().iter().enumerate() {
        if mask.kind != kind {
            continue;
        }
        let mut key = TupleKey {
            src: std::array::from_fn(|i| src[i] & mask.src[i]),
            dst: std::array::from_fn(|i| dst[i] & mask.dst[i]),
            dport: [0; 2],
            proto: packet.protocol & mask.proto,
            kind,
            shape: shape as u32,
        };
        if mask.dport != [0; 2] {
            match packet.dport {
                Some(port) => key.dport = port.to_be_bytes(),
                None if packet.later_fragment => key.kind |= abi::TUPLE_FRAGMENT,
                None => continue,
            }
        }
        let key: [u8; 40] = zerocopy::transmute!(key);
        let Some(val) = table.get(&key) else { continue };
        let id = |index: u16| policy.rules()[usize::from(index)].id;
        logged.extend((val.log == 1).then(|| id(val.log_rule)));
        let action = match val.action {
            abi::ACTION_DROP => Action::Drop,
            abi::ACTION_ALLOW => Action::Allow,
            _ => continue,
        };
        return outcome(action, Reason::Tuple, id(val.rule), logged);
    }
    let verdict = policy.settings().default_action;
    Outcome { verdict, reason: Reason::Default, rule: None, logged }
}

/// What `explain_packet` says, in the words of the oracle.
fn explained(policy: &CompiledPolicy, packet: &PacketQuery) -> Outcome {
    let why = policy.explain_packet(packet);
    let mut logged = Vec::from_iter(why.sets.logged_by.map(|cover| cover.rule));
    let mut tuples = why.tuples;
    let rule = match why.reason {
        Reason::Set => why.sets.decided_by.map(|cover| cover.rule),
        Reason::Tuple => tuples.pop(),
        _ => None,
    };
    logged.extend(tuples);
    Outcome { verdict: why.verdict, reason: why.reason, rule, logged }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_back_end_agrees_with_the_oracle(sets in sets(), probes in prop::collection::vec(any_addr(), 60)) {
        let flat = compile(&sets, Backend::Flat);
        let lpm = compile(&sets, Backend::LpmTrie);
        let edges = sets.iter().flat_map(|(_, cidrs)| cidrs).flat_map(|&cidr| edges(cidr));
        for addr in probes.iter().copied().chain(edges) {
            let expected = by_sets(&sets, addr);
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
        let prefixes = |policy: &CompiledPolicy| -> BTreeMap<Cidr, Decided> {
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

    #[test]
    fn tuples_agree_with_the_oracle((mut plan, packets) in packets(plan(), 60)) {
        // They are the kernel's, not the policy's.
        plan.gateways.clear();
        let lpm = plan.compile(Backend::LpmTrie);
        let flat = plan.compile(Backend::Flat);
        for packet in &packets {
            let expected = plan.outcome(packet);
            prop_assert_eq!(&as_the_kernel(&lpm, packet), &expected, "compiled, {:?}", packet);
            prop_assert_eq!(&explained(&flat, packet), &expected, "explain, {:?}", packet);
        }
    }
}

/// The packets above prove nothing where they reach nothing.
#[test]
fn packets_reach_every_step() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut count = |what: &str| *seen.entry(what.to_owned()).or_default() += 1;
    for _ in 0..200 {
        let (plan, packets) = packets(plan(), 60).new_tree(&mut runner).unwrap().current();
        for packet in &packets {
            let outcome = plan.outcome(packet);
            count(&format!("{:?} {:?}", outcome.reason, outcome.verdict));
            if outcome.reason == Reason::Tuple && packet.later_fragment {
                count("fragment by tuple");
            }
            if outcome.reason == Reason::Tuple && packet.src.is_ipv6() {
                count("IPv6 by tuple");
            }
            if !outcome.logged.is_empty() {
                count("logged");
            }
        }
    }
    println!("of 12,000 packets: {seen:?}");
    for what in [
        "Gateway Allow",
        "Set Allow",
        "Set Drop",
        "Tuple Allow",
        "Tuple Drop",
        "Default Allow",
        "Default Drop",
        "fragment by tuple",
        "IPv6 by tuple",
        "logged",
    ] {
        assert!(seen.get(what).is_some_and(|&count| count >= 240), "{what}: {seen:?}");
    }
}
