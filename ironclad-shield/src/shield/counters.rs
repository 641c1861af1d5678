//! Counters of packets and bytes.
use ironclad_bpf::shield::Shared;
use ironclad_core::abi::{Loss, Reason, Stats};
use ironclad_core::{Action, Cidr, RuleId};
use ironclad_policy::{CompiledPolicy, Rule};
use serde::Serialize;

use super::Shield;
use crate::error::ShieldError;
use crate::sockets::SocketCount;

/// Packets and bytes of their frames, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer headers included.
    pub bytes: u64,
}

/// What one reason did. Every packet counts under exactly one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// The reason.
    pub reason: Reason,
    /// What passed because of it.
    pub passed: Count,
    /// What was dropped because of it.
    pub dropped: Count,
    /// Of what passed, what would have been dropped but for a dry run.
    pub would_drop: Count,
}

/// What one rule did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleCount {
    /// The rule.
    pub rule: RuleId,
    /// Its name in the policy in force; empty where that has no such rule.
    pub name: String,
    /// What its sets and tuples do in the policy in force.
    pub actions: Vec<Action>,
    /// What it decided or, with a log action, reported.
    pub matched: Count,
    /// Of that, what would have been dropped but for a dry run.
    pub would_drop: Count,
}

/// How often one prefix of the policy in force decided, since that policy came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixCount {
    /// The prefix.
    pub cidr: Cidr,
    /// The rule that decides its addresses; 0 where it only reports.
    pub rule: RuleId,
    /// Packets.
    pub packets: u64,
}

/// A loss or failure that is not a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LossCount {
    /// What was lost.
    pub loss: Loss,
    /// How often.
    pub count: u64,
}

/// All counters of an instance. They outlive policies and, when persisted, agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// By reason, in the order of [`Reason::ALL`].
    pub reasons: Vec<ReasonCount>,
    /// By rule, by id.
    pub rules: Vec<RuleCount>,
    /// Losses.
    pub losses: Vec<LossCount>,
}

impl Counters {
    /// What one reason did.
    pub fn reason(&self, reason: Reason) -> ReasonCount {
        self.reasons[reason as usize]
    }

    /// What one rule did; none where it has never been in a policy.
    pub fn rule(&self, rule: RuleId) -> Option<&RuleCount> {
        self.rules.iter().find(|count| count.rule == rule)
    }

    /// How often something was lost.
    pub fn loss(&self, loss: Loss) -> u64 {
        self.losses.iter().find(|count| count.loss == loss).map_or(0, |count| count.count)
    }

    /// Everything that passed.
    pub fn passed(&self) -> Count {
        self.reasons.iter().map(|count| count.passed).fold(Count::default(), Count::plus)
    }

    /// Everything that was dropped.
    pub fn dropped(&self) -> Count {
        self.reasons.iter().map(|count| count.dropped).fold(Count::default(), Count::plus)
    }

    /// Everything that would have been dropped but for a dry run.
    pub fn would_drop(&self) -> Count {
        self.reasons.iter().map(|count| count.would_drop).fold(Count::default(), Count::plus)
    }
}

impl Count {
    fn plus(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl Shield {
    /// All counters.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn counters(&self) -> Result<Counters, ShieldError> {
        let control = self.core.lock();
        let policy = control.in_force(&self.core.shared).and_then(|loaded| loaded.policy.as_ref());
        let known = policy.map(CompiledPolicy::rules).unwrap_or_default();
        let mut rules = Vec::new();
        for (id, slot) in control.slots.iter() {
            let id = RuleId(id);
            let rule = known.iter().skip(1).find(|rule| rule.id == id);
            rules.push(read_rule(&self.core.shared, slot, id, rule)?);
        }
        Ok(Counters {
            reasons: read_reasons(&self.core.shared)?,
            rules,
            losses: read_losses(&self.core.shared)?,
        })
    }

    /// What socket rules decided, the default first.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn socket_counts(&self) -> Result<Vec<SocketCount>, ShieldError> {
        let control = self.core.lock();
        let policy = control.in_force(&self.core.shared).and_then(|loaded| loaded.policy.as_ref());
        match &control.sockets {
            Some(sockets) => sockets.counts(policy.and_then(CompiledPolicy::sockets)),
            None => Ok(Vec::new()),
        }
    }

    /// The prefixes of the policy in force that decided or reported most packets, at most `limit`,
    /// the busiest first. A new policy starts its counts at zero.
    pub fn busiest_prefixes(&self, limit: usize) -> Vec<PrefixCount> {
        let control = self.core.lock();
        let Some(loaded) = control.in_force(&self.core.shared) else { return Vec::new() };
        let (Some(policy), Some(program)) = (&loaded.policy, &loaded.program) else {
            return Vec::new();
        };
        let mut counts: Vec<PrefixCount> = (1..program.entries())
            .filter_map(|entry| {
                let packets = program.entry_packets(entry).filter(|&packets| packets > 0)?;
                let rule = policy.rules()[policy.entry_rule(entry)].id;
                Some(PrefixCount { cidr: policy.entry_cidr(entry)?, rule, packets })
            })
            .collect();
        counts.sort_by_key(|count| (std::cmp::Reverse(count.packets), count.cidr));
        counts.truncate(limit);
        counts
    }

    /// Kernel memory of the maps of the policy in force, in bytes, as the kernel accounts it.
    ///
    /// # Errors
    /// `ShieldErrorKind::Bpf` where the kernel refuses.
    pub fn policy_memory(&self) -> Result<u64, ShieldError> {
        let control = self.core.lock();
        match control.in_force(&self.core.shared).and_then(|loaded| loaded.program.as_ref()) {
            Some(program) => Ok(program.kernel_memory()?),
            None => Ok(0),
        }
    }
}

fn sum(cpus: Option<Vec<Stats>>) -> (Count, Count) {
    cpus.unwrap_or_default().iter().fold((Count::default(), Count::default()), |(all, dry), cpu| {
        (
            all.plus(Count { packets: cpu.packets, bytes: cpu.bytes }),
            dry.plus(Count { packets: cpu.dry_packets, bytes: cpu.dry_bytes }),
        )
    })
}

fn read_reasons(shared: &Shared) -> Result<Vec<ReasonCount>, ShieldError> {
    Reason::ALL
        .iter()
        .map(|&reason| {
            let cell = |verdict: u32| shared.reasons.lookup_all(&(2 * reason as u32 + verdict));
            let (passed, would_drop) = sum(cell(0)?);
            let (dropped, _) = sum(cell(1)?);
            Ok(ReasonCount { reason, passed, dropped, would_drop })
        })
        .collect()
}

fn read_rule(
    shared: &Shared,
    slot: u16,
    id: RuleId,
    rule: Option<&Rule>,
) -> Result<RuleCount, ShieldError> {
    let (matched, would_drop) = sum(shared.rules.lookup_all(&u32::from(slot))?);
    let (name, actions) = rule.map(|r| (r.name.clone(), r.actions.clone())).unwrap_or_default();
    Ok(RuleCount { rule: id, name, actions, matched, would_drop })
}

fn read_losses(shared: &Shared) -> Result<Vec<LossCount>, ShieldError> {
    Loss::ALL
        .iter()
        .map(|&loss| {
            let cpus = shared.losses.lookup_all(&(loss as u32))?.unwrap_or_default();
            Ok(LossCount { loss, count: cpus.iter().sum() })
        })
        .collect()
}
