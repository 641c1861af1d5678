use std::fmt;
use std::net::IpAddr;

use ironclad_core::abi::{self, Reason};
use ironclad_core::{Action, Cidr, Family, RuleId, Verdict};
use serde::Serialize;

use crate::compile::{CompiledPolicy, Inner};
use crate::tuple::PacketQuery;

/// A prefix that covers an address, and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cover {
    /// The prefix.
    pub cidr: Cidr,
    /// What its set does.
    pub action: Action,
    /// The set's rule.
    pub rule: RuleId,
    /// The rule's name.
    pub name: String,
    /// The list.
    pub file: String,
    /// The line in it, from 1; 0 where the prefix came from no file.
    pub line: u32,
}

/// Why an address gets its verdict from the sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The address.
    pub addr: IpAddr,
    /// What decides; none where tuples or the default do.
    pub decided_by: Option<Cover>,
    /// What reports beside.
    pub logged_by: Option<Cover>,
    /// The longest prefix that covers the address and those that cover it, the longest first.
    pub covers: Vec<Cidr>,
}

/// Why a packet gets its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketExplanation {
    /// What the sets say of the source.
    #[serde(flatten)]
    pub sets: Explanation,
    /// Rules of tuples that match, in order: those that report, and the deciding one last.
    pub tuples: Vec<RuleId>,
    /// The verdict; of a dry run, what it would be.
    pub verdict: Verdict,
    /// Set, tuple or default.
    pub reason: Reason,
}

impl CompiledPolicy {
    /// Which entry of which list decides packets from `addr`.
    pub fn explain(&self, addr: IpAddr) -> Explanation {
        let inner = self.inner();
        let entry = inner.longest(addr);
        let covers =
            std::iter::successors(Some(entry), |&at| Some(inner.entries[at].parent as usize))
                .take_while(|&at| at != 0)
                .map(|at| inner.cidr(at))
                .collect();
        let resolved = &inner.entries[entry];
        Explanation {
            addr,
            decided_by: inner.cover(resolved.decider as usize, false),
            logged_by: inner.cover(resolved.logger as usize, true),
            covers,
        }
    }

    /// What becomes of a well-formed packet that is not a gateway's.
    pub fn explain_packet(&self, packet: &PacketQuery) -> PacketExplanation {
        let inner = self.inner();
        let sets = self.explain(packet.src);
        let verdict_of = |action: Action| match action {
            Action::Drop => Verdict::Drop,
            _ => Verdict::Allow,
        };
        if let Some(cover) = &sets.decided_by {
            let verdict = verdict_of(cover.action);
            return PacketExplanation { sets, tuples: Vec::new(), verdict, reason: Reason::Set };
        }
        let matched = inner.tuples.matches(packet);
        let decided = matched.last().filter(|tuple| tuple.action != abi::ACTION_NONE);
        let (verdict, reason) = match decided {
            Some(t) if t.action == abi::ACTION_DROP => (Verdict::Drop, Reason::Tuple),
            Some(_) => (Verdict::Allow, Reason::Tuple),
            None => (inner.settings.default_action, Reason::Default),
        };
        let tuples = matched
            .iter()
            .flat_map(|tuple| {
                let decides = (tuple.action != abi::ACTION_NONE).then_some(tuple.rule);
                tuple.log_rule.into_iter().chain(decides)
            })
            .map(|rule| inner.rules[usize::from(rule)].id)
            .collect();
        PacketExplanation { sets, tuples, verdict, reason }
    }

    /// The prefixes of source and destination of the tuple by which a rule matches a packet. None where the rule has
    /// no such tuple; a prefix is none where the tuple matches any address there.
    pub fn tuple_prefixes(&self, packet: &PacketQuery, rule: RuleId) -> Option<[Option<Cidr>; 2]> {
        let inner = self.inner();
        let tuple = inner.tuples.matches(packet).into_iter().find(|tuple| {
            let decides = (tuple.action != abi::ACTION_NONE).then_some(tuple.rule);
            let mut rules = tuple.log_rule.into_iter().chain(decides);
            rules.any(|index| inner.rules[usize::from(index)].id == rule)
        })?;
        let mask = &inner.tuples.masks[tuple.key.shape as usize];
        let prefix = |of: IpAddr, mask: [u8; 16]| {
            let length = u128::from_be_bytes(mask).leading_ones() as u8;
            (length > 0).then(|| Cidr::new(of, length).ok()).flatten()
        };
        Some([prefix(packet.src, mask.src), prefix(packet.dst, mask.dst)])
    }
}

impl Inner {
    /// The entry of the longest prefix that covers `addr`: by the sorted prefixes alone, so that an
    /// explanation does not depend on the table that it explains.
    pub(crate) fn longest(&self, addr: IpAddr) -> usize {
        let bits = Cidr::host(addr).bits();
        let (from, to) = match Family::of(addr) {
            Family::V4 => (1, self.v6_from),
            Family::V6 => (self.v6_from, self.entries.len()),
        };
        // The last prefix at or before the address; whatever covers the address covers it too.
        let after = self.entries[from..to].partition_point(|entry| entry.bits <= bits) + from;
        let mut at = if after == from { 0 } else { after - 1 };
        while at != 0 {
            let entry = &self.entries[at];
            if entry.length == 0 || (entry.bits ^ bits) >> (128 - u32::from(entry.length)) == 0 {
                break;
            }
            at = entry.parent as usize;
        }
        at
    }

    fn cover(&self, entry: usize, log: bool) -> Option<Cover> {
        if entry == 0 {
            return None;
        }
        let resolved = &self.entries[entry];
        let origin = if log { resolved.log_origin } else { resolved.origin };
        let (rule, action) = self.set_rules[origin.set as usize];
        let rule = &self.rules[usize::from(rule)];
        Some(Cover {
            cidr: self.cidr(entry),
            action,
            rule: rule.id,
            name: rule.name.clone(),
            file: self.lists[origin.set as usize][origin.list as usize].to_string(),
            line: origin.line,
        })
    }
}

impl fmt::Display for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cidr, action, rule, name, file, line } = self;
        write!(f, "{action} by rule {rule} (`{name}`): {cidr} from {file}")?;
        if *line > 0 { write!(f, ":{line}") } else { Ok(()) }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.decided_by {
            Some(cover) => write!(f, "{}: {cover}", self.addr)?,
            None => write!(f, "{}: no set decides", self.addr)?,
        }
        if let Some(cover) = &self.logged_by {
            write!(f, "; {cover}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PacketExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.verdict, self.reason, self.sets)?;
        for rule in &self.tuples {
            write!(f, "; tuple of rule {rule}")?;
        }
        Ok(())
    }
}
