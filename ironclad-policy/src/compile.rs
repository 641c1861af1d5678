use std::sync::Arc;

use ironclad_core::abi::{self, Entry, Gateways, Lpm4Key, Lpm6Key, TupleKey, TupleMask, TupleVal};
use ironclad_core::{Action, Cidr, Family, PolicyId, RuleId, Verdict};
use sha2::{Digest, Sha256};

use crate::error::{Failure, PolicyError, check_rule};
use crate::file::{self, CompiledFiles};
use crate::flat::{FlatTable, Leaf};
use crate::limits::{Limits, Memory, SocketMemory, check};
use crate::policy::{Backend, Locate, Policy};
use crate::prefixes::{self, Resolved};
use crate::socket::{self, CompiledSockets};
use crate::tuple::Tuples;
use crate::warning::{self, PolicyWarning};

/// A rule of a compiled policy: what its sets and tuples have in common.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Rule {
    /// The id.
    pub id: RuleId,
    /// The name.
    pub name: String,
    /// Events a second at most.
    pub events_per_second: u32,
    /// The actions of its sets and tuples, each once, in the order in which they first appear.
    pub actions: Vec<Action>,
}

/// The settings of a compiled policy that are not rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// What becomes of a packet that nothing matches.
    pub default_action: Verdict,
    /// What becomes of a packet that cannot be parsed.
    pub malformed: Verdict,
    /// What becomes of a frame that is neither IP nor ARP.
    pub non_ip: Verdict,
    /// Whether neighbour discovery passes first.
    pub neighbour_discovery: bool,
    /// Whether nothing is dropped.
    pub dry_run: bool,
    /// What holds the address sets.
    pub backend: Backend,
    /// Events a second of packets that no rule dropped.
    pub default_events_per_second: u32,
}

/// A policy as the kernel is given it: immutable, cheap to clone and to send between threads.
#[derive(Clone, Debug)]
pub struct CompiledPolicy(Arc<Inner>);

/// Who answers for a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Provenance {
    /// None: the policy is unsigned.
    Unsigned,
    /// Who signed the bundle that it is from.
    Bundle {
        /// Counts up with each bundle.
        serial: u64,
        /// Seconds since 1970 UTC.
        expires: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: PolicyId,
    pub(crate) settings: Settings,
    /// The first is no rule.
    pub(crate) rules: Vec<Rule>,
    /// The first is no prefix; then all of IPv4, then all of IPv6, each sorted.
    pub(crate) entries: Vec<Resolved>,
    pub(crate) v6_from: usize,
    pub(crate) flat: FlatTable,
    pub(crate) tuples: Tuples,
    /// Names of the lists of each set, for origins.
    pub(crate) lists: Vec<Vec<Arc<str>>>,
    pub(crate) set_rules: Vec<(u16, Action)>,
    pub(crate) memory: Memory,
    pub(crate) limits: Limits,
    pub(crate) gateways: Gateways,
    pub(crate) warnings: Vec<PolicyWarning>,
    pub(crate) sockets: Option<CompiledSockets>,
    pub(crate) files: Option<CompiledFiles>,
    #[cfg(feature = "signed")]
    pub(crate) signed: Option<crate::bundle::Signed>,
}

impl Policy {
    /// Compiles the policy.
    ///
    /// # Errors
    /// [`PolicyError`], naming the rule or the limit, and the place in the file where one describes
    /// the policy.
    pub fn compile(mut self) -> Result<CompiledPolicy, PolicyError> {
        let locate = self.locate.take();
        CompiledPolicy::compile(self).map_err(|error| match locate {
            Some(Locate(locate)) => locate(error),
            None => error,
        })
    }
}

impl CompiledPolicy {
    pub(crate) fn compile(policy: Policy) -> Result<Self, PolicyError> {
        let gateways = Gateways::new(&policy.gateways).map_err(Failure::Gateway)?;
        let rules = number_rules(&policy)?;
        let index_of = |id: RuleId| {
            rules.iter().skip(1).position(|rule| rule.id == id).map_or(0, |i| i as u16 + 1)
        };
        let set_rules: Vec<(u16, Action)> =
            policy.sets.iter().map(|set| (index_of(set.rule), set.action)).collect();
        let lists = policy
            .sets
            .iter()
            .map(|set| set.lists.iter().map(|list| Arc::clone(list.name())).collect())
            .collect();

        let (entries, v6_from) = prefixes::resolve(&policy.sets, &set_rules);
        let limits = policy.limits;
        check(
            "distinct prefixes",
            entries.len() as u64 - 1,
            limits.max_prefixes,
            "raise `max_prefixes` (in a policy file `policy-limits.max-prefixes`), or use fewer or shorter lists",
        )?;

        let numbered: Vec<_> =
            policy.tuples.iter().map(|tuple| (tuple.clone(), index_of(tuple.rule))).collect();
        let tuples = Tuples::compile(&numbered)?;
        check(
            "tuples",
            tuples.tuples.len() as u64,
            limits.max_tuples,
            "raise `max_tuples` (in a policy file `policy-limits.max-tuples`), or use wider prefixes",
        )?;

        let leaves = |range: std::ops::Range<usize>| -> Vec<Leaf> {
            range
                .map(|i| Leaf { bits: entries[i].bits, length: entries[i].length, entry: i as u32 })
                .collect()
        };
        let (lpm4, lpm6) = (v6_from - 1, entries.len() - v6_from);
        let (flat, mut memory) = match policy.backend {
            Backend::Flat => {
                let flat = FlatTable::build(&leaves(1..v6_from), &leaves(v6_from..entries.len()));
                let memory =
                    Memory::of(flat.words().len(), entries.len(), 0, 0, tuples.tuples.len());
                (flat, memory)
            }
            Backend::LpmTrie => (
                FlatTable::build(&[], &[]),
                Memory::of(0, entries.len(), lpm4, lpm6, tuples.tuples.len()),
            ),
        };
        let settings = Settings {
            default_action: policy.default_action,
            malformed: policy.malformed,
            non_ip: policy.non_ip,
            neighbour_discovery: policy.neighbour_discovery,
            dry_run: policy.dry_run,
            backend: policy.backend,
            default_events_per_second: policy.default_events_per_second,
        };
        let sockets = match policy.sockets.is_empty() {
            true => None,
            false => Some(CompiledSockets::compile(&policy.sockets)?),
        };
        let files = match policy.files.is_empty() {
            true => None,
            false => Some(CompiledFiles::compile(&policy.files)?),
        };
        memory.sockets =
            sockets.as_ref().map_or_else(SocketMemory::default, CompiledSockets::memory);
        memory.check(&limits)?;
        let mut inner = Inner {
            id: PolicyId([0; 32]),
            settings,
            rules,
            entries,
            v6_from,
            flat,
            tuples,
            lists,
            set_rules,
            memory,
            limits,
            gateways,
            warnings: Vec::new(),
            sockets,
            files,
            #[cfg(feature = "signed")]
            signed: None,
        };
        inner.id = inner.digest(&policy);
        inner.warnings = warning::warnings(&policy, &inner);
        Ok(Self(Arc::new(inner)))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// SHA-256 over everything that decides what the kernel does: equal for policies that do the
    /// same under the same rule ids, in whatever order their lists were written.
    pub fn id(&self) -> PolicyId {
        self.0.id
    }

    /// The rules; index 0 stands for no rule.
    pub fn rules(&self) -> &[Rule] {
        &self.0.rules
    }

    /// The settings that are not rules.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Distinct prefixes, of both families.
    pub fn prefixes(&self) -> usize {
        self.0.entries.len() - 1
    }

    /// Whether any set has addresses of a family.
    pub fn has(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.0.v6_from > 1,
            Family::V6 => self.0.entries.len() > self.0.v6_from,
        }
    }

    /// Whether any rule reports without deciding.
    pub fn logs(&self) -> bool {
        self.0.entries.iter().any(|entry| entry.log_rule != 0)
            || self.0.tuples.tuples.iter().any(|tuple| tuple.log_rule.is_some())
    }

    /// The prefix of an entry by its number, 1 to [`prefixes`](Self::prefixes).
    pub fn entry_cidr(&self, entry: usize) -> Option<Cidr> {
        (entry > 0 && entry < self.0.entries.len()).then(|| self.0.cidr(entry))
    }

    /// Index of the rule that decides an entry's addresses; 0 where none does.
    pub fn entry_rule(&self, entry: usize) -> usize {
        self.0.entries.get(entry).map_or(0, |e| usize::from(e.rule))
    }

    /// The flat table; empty with [`Backend::LpmTrie`].
    pub fn flat(&self) -> &FlatTable {
        &self.0.flat
    }

    /// Whether it is from a signed bundle.
    pub fn provenance(&self) -> Provenance {
        #[cfg(feature = "signed")]
        if let Some(&crate::bundle::Signed { serial, expires, .. }) = self.signed() {
            return Provenance::Bundle { serial, expires };
        }
        Provenance::Unsigned
    }

    /// The signed bundle that it is from; none where it is from none.
    #[cfg(feature = "signed")]
    pub fn signed(&self) -> Option<&crate::bundle::Signed> {
        self.0.signed.as_ref()
    }

    #[cfg(feature = "signed")]
    pub(crate) fn with_signature(mut self, signed: crate::bundle::Signed) -> Self {
        // No other process has it yet.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.signed = Some(signed);
        }
        self
    }

    /// The rules on files; none where the policy has none.
    pub fn files(&self) -> Option<&CompiledFiles> {
        self.0.files.as_ref()
    }

    /// The rules on sockets; none where the policy says nothing of them.
    pub fn sockets(&self) -> Option<&CompiledSockets> {
        self.0.sockets.as_ref()
    }

    /// Kernel memory of the policy's own maps.
    pub fn memory(&self) -> Memory {
        self.0.memory
    }

    /// Addresses that it never blocks, as the kernel is given them.
    pub fn gateways(&self) -> &Gateways {
        &self.0.gateways
    }

    /// Likely mistakes in the policy. Shield logs them where it applies the policy.
    pub fn warnings(&self) -> &[PolicyWarning] {
        &self.0.warnings
    }

    /// How large it might become, and how much room it makes for socket rules.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Keys and entry numbers for the kernel's IPv4 trie.
    pub fn lpm4(&self) -> impl ExactSizeIterator<Item = (Lpm4Key, u32)> + '_ {
        (1..self.0.v6_from).map(|i| {
            let entry = &self.0.entries[i];
            let addr = ((entry.bits >> 96) as u32).to_be_bytes();
            (Lpm4Key { prefixlen: u32::from(entry.length), addr }, i as u32)
        })
    }

    /// Keys and entry numbers for the kernel's IPv6 trie.
    pub fn lpm6(&self) -> impl ExactSizeIterator<Item = (Lpm6Key, u32)> + '_ {
        (self.0.v6_from..self.0.entries.len()).map(|i| {
            let entry = &self.0.entries[i];
            let addr = entry.bits.to_be_bytes();
            (Lpm6Key { prefixlen: u32::from(entry.length), addr }, i as u32)
        })
    }

    /// The entries, with rules by the slots that `slot_of` gives their indices.
    pub fn kernel_entries(&self, slot_of: impl Fn(usize) -> u16) -> Vec<Entry> {
        let slots: Vec<u16> = (0..self.0.rules.len()).map(slot_of).collect();
        self.0
            .entries
            .iter()
            .map(|entry| Entry {
                packets: 0,
                rule: slots[usize::from(entry.rule)],
                log_rule: slots[usize::from(entry.log_rule)],
                action: entry.action,
                log: u8::from(entry.log_rule != 0),
                _pad: [0; 2],
            })
            .collect()
    }

    /// The tuples, with rules by the slots that `slot_of` gives their indices.
    pub fn kernel_tuples(&self, slot_of: impl Fn(usize) -> u16) -> Vec<(TupleKey, TupleVal)> {
        self.0
            .tuples
            .tuples
            .iter()
            .map(|tuple| {
                let val = TupleVal {
                    packets: 0,
                    rule: slot_of(usize::from(tuple.rule)),
                    log_rule: slot_of(usize::from(tuple.log_rule.unwrap_or(0))),
                    action: tuple.action,
                    log: u8::from(tuple.log_rule.is_some()),
                    _pad: [0; 2],
                };
                (tuple.key, val)
            })
            .collect()
    }

    /// The shapes of the tuples, the most specific first.
    pub fn tuple_masks(&self) -> &[TupleMask] {
        &self.0.tuples.masks
    }
}

impl Inner {
    pub(crate) fn family_of(&self, entry: usize) -> Family {
        if entry < self.v6_from { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn cidr(&self, entry: usize) -> Cidr {
        let Resolved { bits, length, .. } = self.entries[entry];
        let addr = match self.family_of(entry) {
            Family::V4 => std::net::IpAddr::V4(((bits >> 96) as u32).into()),
            Family::V6 => std::net::IpAddr::V6(bits.into()),
        };
        // The length is that of a prefix that was read, so it fits.
        Cidr::new(addr, length).unwrap_or_else(|_| Cidr::host(addr))
    }

    fn digest(&self, policy: &Policy) -> PolicyId {
        let mut hash = Sha256::new();
        let s = &self.settings;
        hash.update([
            abi::VERSION as u8,
            s.default_action.abi(),
            s.malformed.abi(),
            s.non_ip.abi(),
            u8::from(s.neighbour_discovery),
            u8::from(s.dry_run),
            s.backend as u8,
        ]);
        hash.update(s.default_events_per_second.to_le_bytes());
        // Rules by id: their order in the policy is not their meaning.
        let mut rules: Vec<&Rule> = self.rules.iter().skip(1).collect();
        rules.sort_by_key(|rule| rule.id);
        for rule in rules {
            hash.update(rule.id.0.to_le_bytes());
            hash.update(rule.events_per_second.to_le_bytes());
        }
        let id = |rule: u16| self.rules[usize::from(rule)].id.0.to_le_bytes();
        hash.update((self.v6_from as u64).to_le_bytes());
        hash.update((self.entries.len() as u64).to_le_bytes());
        let mut block = Vec::with_capacity(1 << 16);
        for entry in &self.entries[1..] {
            block.extend_from_slice(&entry.bits.to_le_bytes());
            block.extend_from_slice(&[entry.length, entry.action]);
            block.extend_from_slice(&id(entry.rule));
            block.extend_from_slice(&id(entry.log_rule));
            block.push(u8::from(entry.log_rule != 0));
            if block.len() > (1 << 16) - 64 {
                hash.update(&block);
                block.clear();
            }
        }
        hash.update(&block);
        let mut tuples: Vec<Vec<u8>> = self
            .tuples
            .tuples
            .iter()
            .map(|tuple| {
                let key: [u8; 40] = zerocopy::transmute!(tuple.key);
                let mut bytes = key.to_vec();
                bytes.push(tuple.action);
                bytes.extend_from_slice(&id(tuple.rule));
                bytes.extend(tuple.log_rule.into_iter().flat_map(id));
                bytes
            })
            .collect();
        tuples.sort();
        tuples.iter().for_each(|tuple| hash.update(tuple));
        // In whatever order they were written.
        let mut gateways: Vec<_> = self.gateways.addresses().collect();
        gateways.sort();
        gateways.iter().for_each(|gateway| hash.update(format!("gateway {gateway} ")));
        if self.sockets.is_some() {
            socket::digest(&policy.sockets, &mut hash);
        }
        if self.files.is_some() {
            file::digest(&policy.files, &mut hash);
        }
        PolicyId(hash.finalize().into())
    }
}

/// Rules in the order in which they first appear, behind the one that stands for no rule.
fn number_rules(policy: &Policy) -> Result<Vec<Rule>, PolicyError> {
    let mut rules = vec![Rule {
        id: RuleId(0),
        name: "(no rule)".to_owned(),
        events_per_second: policy.default_events_per_second,
        actions: Vec::new(),
    }];
    let sets = policy.sets.iter().map(|s| (s.rule, &s.name, s.events_per_second, s.action));
    let tuples = policy.tuples.iter().map(|t| (t.rule, &t.name, t.events_per_second, t.action));
    let mut at = std::collections::HashMap::new();
    for (id, name, rate, action) in sets.chain(tuples) {
        check_rule(id, name)?;
        match at.get(&id) {
            Some(&index) => {
                let rule: &mut Rule = &mut rules[index];
                if rule.name != *name {
                    let (first, second) = (rule.name.clone(), name.clone());
                    return Err(Failure::RuleName { rule: id, first, second }.into());
                }
                rule.events_per_second = rule.events_per_second.max(rate);
                if !rule.actions.contains(&action) {
                    rule.actions.push(action);
                }
            }
            None => {
                at.insert(id, rules.len());
                rules.push(Rule {
                    id,
                    name: name.clone(),
                    events_per_second: rate,
                    actions: vec![action],
                });
            }
        }
    }
    if let Some(empty) = policy.sets.iter().find(|set| set.lists.is_empty()) {
        let failure = Failure::EmptySet { rule: empty.rule, name: empty.name.clone() };
        return Err(failure.into());
    }
    check(
        "rules",
        rules.len() as u64 - 1,
        abi::RULES_MAX as u64 - 1,
        "let several sets or tuples share a rule id",
    )?;
    Ok(rules)
}
