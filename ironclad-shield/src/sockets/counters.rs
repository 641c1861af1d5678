//! Counters of socket rules.
use ironclad_core::RuleId;
use ironclad_core::abi;
use ironclad_policy::socket::CompiledSockets;
use serde::Serialize;

use super::Sockets;
use crate::error::ShieldError;

/// What one socket rule, or the default, decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SocketCount {
    /// The rule; none for what the default decided, and for source-routed packets.
    pub rule: Option<RuleId>,
    /// The name of the rule; empty where it is not in force.
    pub name: String,
    /// Allowed.
    pub allowed: u64,
    /// Denied.
    pub denied: u64,
    /// Denied because the limit's bucket was empty.
    pub limited: u64,
    /// Would have been denied but for a dry run.
    pub would_deny: u64,
    /// Reported by a rule that decides nothing.
    pub logged: u64,
}

impl Sockets {
    pub(crate) fn counts(
        &self,
        compiled: Option<&CompiledSockets>,
    ) -> Result<Vec<SocketCount>, ShieldError> {
        let of_rules = self.rules.iter().map(|(id, slot)| (Some(RuleId(id)), u32::from(slot)));
        let known = compiled.map(CompiledSockets::rules).unwrap_or_default();
        std::iter::once((None, 0))
            .chain(of_rules)
            .map(|(rule, slot)| {
                let cpus = self.shared.stats.lookup_all(&slot)?.unwrap_or_default();
                let sum = |of: fn(&abi::SockStats) -> u64| cpus.iter().map(of).sum();
                let name = known.iter().find(|known| Some(known.id) == rule);
                Ok(SocketCount {
                    rule,
                    name: name.map(|known| known.name.clone()).unwrap_or_default(),
                    allowed: sum(|cpu| cpu.allowed),
                    denied: sum(|cpu| cpu.denied),
                    limited: sum(|cpu| cpu.limited),
                    would_deny: sum(|cpu| cpu.dry),
                    logged: sum(|cpu| cpu.logged),
                })
            })
            .collect()
    }
}
