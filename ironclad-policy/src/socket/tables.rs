use std::collections::BTreeMap;
use std::convert::Infallible;

use ironclad_core::abi::{self, SockIdVal, SockPolicy, SockRow, SockRule};

use super::explain::SocketTables;
use super::{CompiledSockets, SocketAction, SocketImage};

/// The tables that the kernel would have: for explanations before a policy is loaded.
#[derive(Debug)]
pub struct ImageTables<'a> {
    image: &'a SocketImage,
    flat: &'a [u32],
    ids: BTreeMap<(u32, [u64; 2]), SockIdVal>,
    rules: Vec<SockRule>,
    logs: Vec<SockRule>,
}

impl SocketImage {
    /// As tables, with the rules that it was made of. Its generation is the caller's to fill in: 0
    /// is no policy.
    pub fn tables<'a>(&'a self, of: &'a CompiledSockets) -> ImageTables<'a> {
        let (mut rules, mut logs) = (Vec::new(), Vec::<SockRule>::new());
        for (place, rule) in of.in_order() {
            let mut raw = SockRule {
                number: place as u32 + 1,
                action: match rule.action {
                    SocketAction::Deny => abi::SOCK_DENY,
                    _ => abi::SOCK_ALLOW,
                },
                flags: if rule.dry_run { abi::SOCK_RULE_DRY } else { 0 },
                ..SockRule::default()
            };
            if let Some(limit) = &rule.limit {
                raw.flags |= abi::SOCK_RULE_LIMITED;
                raw.interval_ns = limit.interval_ns();
                raw.burst_ns = raw.interval_ns * u64::from(limit.at_once());
            }
            match rule.action {
                SocketAction::Log => logs.push(raw),
                _ => rules.push(SockRule { logs: logs.len() as u8, ..raw }),
            }
        }
        let ids = self.ids.iter().map(|(key, val)| ((key.dim, key.value), *val)).collect();
        ImageTables { image: self, flat: of.addresses().words(), ids, rules, logs }
    }
}

impl SocketTables for ImageTables<'_> {
    type Error = Infallible;

    fn policy(&self) -> &SockPolicy {
        &self.image.policy
    }

    fn row(&self, number: u32) -> Option<SockRow> {
        self.image.rows.get(number as usize).copied()
    }

    fn port(&self, port: u16) -> u32 {
        self.image.ports.get(usize::from(port)).map_or(0, |&row| u32::from(row))
    }

    fn flat(&self, word: usize) -> u32 {
        self.flat.get(word).copied().unwrap_or(0)
    }

    fn rule(&self, number: usize) -> Option<SockRule> {
        self.rules.get(number).copied()
    }

    fn log(&self, number: usize) -> Option<SockRule> {
        self.logs.get(number).copied()
    }

    fn id(&self, dim: usize, value: [u64; 2]) -> Result<Option<SockIdVal>, Infallible> {
        Ok(self.ids.get(&(dim as u32, value)).copied())
    }
}
