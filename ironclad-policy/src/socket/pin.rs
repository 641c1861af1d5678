//! Executables whose content is pinned, and the rules that deny what does not have it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ironclad_core::RuleId;

use super::{Direction, SocketAction, SocketRule};
use crate::sha256::Sha256Sum;

/// The id of the rules that deny, and of those that only report, what executes a file whose content
/// is not the one that the policy has pinned. No other socket rule may have it.
pub const SHA256_MISMATCH: RuleId = RuleId(u32::MAX);

/// An executable, and what its content has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exe {
    pub(crate) path: PathBuf,
    pub(crate) pin: Pin,
}

/// What a content has to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pin {
    Any,
    Is(Sha256Sum),
    NoneOf(BTreeSet<Sha256Sum>),
}

impl Pin {
    /// Of a content that is not known, only that it is none of some holds.
    pub(crate) fn holds(&self, content: Option<Sha256Sum>) -> bool {
        match self {
            Self::Any => true,
            Self::Is(sum) => content == Some(*sum),
            Self::NoneOf(sums) => content.is_none_or(|content| !sums.contains(&content)),
        }
    }
}

/// The rules on files that have another content than the one pinned, to stand before all others: one
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
