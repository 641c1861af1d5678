//! Executables whose content is pinned, and the rules that deny what does not have it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ironclad_core::RuleId;

use super::rule::{Direction, Exe, Pin, SocketAction, SocketRule};
use crate::sha256::Sha256Sum;

/// The id of the rules that deny, and of those that only report, what executes a file whose content
/// is not the one that the policy has pinned. No other socket rule may have it.
pub const SHA256_MISMATCH: RuleId = RuleId(u32::MAX);

/// The rules on files that have another content than the one pinned, to stand before all other rules: one
/// for each direction that denies, and one that reports what only rules say that deny nothing.
pub(crate) fn mismatches(rules: &[SocketRule]) -> Vec<SocketRule> {
    let (mut binding, mut all) = (BTreeMap::new(), BTreeMap::new());
    let mut tried: BTreeSet<&Path> = BTreeSet::new();
    for rule in rules {
        let is_binding = rule.action != SocketAction::Log && !rule.dry_run;
        for Exe { path, pin } in &rule.subject.exes {
            let Pin::Is(sum) = *pin else { continue };
            let sums = |of: &mut BTreeMap<_, BTreeSet<_>>| {
                of.entry(path.as_path()).or_default().insert(sum)
            };
            sums(&mut all);
            if is_binding {
                sums(&mut binding);
            } else {
                tried.insert(path);
            }
        }
    }
    all.retain(|path, _| tried.contains(path));
    let rule = |action, direction, pins: &BTreeMap<&Path, BTreeSet<Sha256Sum>>| {
        let mut rule =
            SocketRule::new(SHA256_MISMATCH, "sha256-mismatch", action).direction(direction);
        let exes = pins
            .iter()
            .map(|(path, sums)| Exe { path: path.into(), pin: Pin::NoneOf(sums.clone()) });
        rule.subject.exes = exes.collect();
        rule
    };
    [(SocketAction::Deny, binding), (SocketAction::Log, all)]
        .iter()
        .filter(|(_, pins)| !pins.is_empty())
        .flat_map(|(action, pins)| {
            [Direction::Out, Direction::In, Direction::Create]
                .map(|direction| rule(*action, direction, pins))
        })
        .collect()
}
