use std::net::IpAddr;
use std::sync::Arc;

use ironclad_core::{Action, Cidr, RuleId, SocketVerdict, Verdict};

use crate::error::PolicyError;
use crate::file::FileRule;
use crate::limits::{EVENTS_PER_SECOND, Limits};
use crate::list::{AddressList, ListReport};
use crate::socket::{AddressGroup, Direction, SocketRule, Sockets};
use crate::tuple::TupleRule;

/// What holds the address sets in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The flat table: several times faster, immutable.
    #[default]
    Flat,
    /// The kernel's `LPM_TRIE`.
    LpmTrie,
}

/// Addresses that share an action: a rule of the firewall by source.
#[derive(Clone, Debug)]
pub struct AddressSet {
    pub(crate) rule: RuleId,
    pub(crate) name: String,
    pub(crate) action: Action,
    pub(crate) lists: Vec<AddressList>,
    pub(crate) events_per_second: u32,
}

impl AddressSet {
    /// An empty set.
    pub fn new(rule: RuleId, name: impl Into<String>, action: Action) -> Self {
        Self {
            rule,
            name: name.into(),
            action,
            lists: Vec::new(),
            events_per_second: EVENTS_PER_SECOND,
        }
    }

    /// Adds a list that was read.
    #[must_use]
    pub fn list(mut self, list: AddressList) -> Self {
        self.lists.push(list);
        self
    }

    /// Adds prefixes that come from no file.
    #[must_use]
    pub fn cidrs(self, cidrs: impl IntoIterator<Item = Cidr>) -> Self {
        let name = self.name.clone();
        self.list(AddressList::from_cidrs(&name, cidrs))
    }

    /// Events a second that the rule reports at most; 0 for none. Default [`EVENTS_PER_SECOND`].
    #[must_use]
    pub fn events_per_second(mut self, rate: u32) -> Self {
        self.events_per_second = rate;
        self
    }
}

/// What a firewall does, before it is compiled: [`Policy::builder`] and then
/// [`compile`](Policy::compile).
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) default_action: Verdict,
    pub(crate) malformed: Verdict,
    pub(crate) non_ip: Verdict,
    pub(crate) neighbour_discovery: bool,
    pub(crate) dry_run: bool,
    pub(crate) backend: Backend,
    pub(crate) default_events_per_second: u32,
    pub(crate) sets: Vec<AddressSet>,
    pub(crate) tuples: Vec<TupleRule>,
    pub(crate) sockets: Sockets,
    pub(crate) files: Vec<FileRule>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) limits: Limits,
    /// Where a file describes it.
    pub(crate) locate: Option<Locate>,
}

/// Adds to an error of a policy the place at which a file describes what is wrong.
#[derive(Clone)]
#[cfg_attr(not(feature = "document"), allow(dead_code))]
pub(crate) struct Locate(pub(crate) Arc<dyn Fn(PolicyError) -> PolicyError + Send + Sync>);

impl std::fmt::Debug for Locate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Locate")
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_action: Verdict::Allow,
            malformed: Verdict::Drop,
            non_ip: Verdict::Allow,
            neighbour_discovery: true,
            dry_run: false,
            backend: Backend::Flat,
            default_events_per_second: EVENTS_PER_SECOND,
            sets: Vec::new(),
            tuples: Vec::new(),
            sockets: Sockets::default(),
            files: Vec::new(),
            gateways: Vec::new(),
            limits: Limits::default(),
            locate: None,
        }
    }
}

impl Policy {
    /// A policy that passes everything but malformed packets.
    pub fn builder() -> Self {
        Self::default()
    }

    /// What becomes of a packet that nothing matches. Default: allow.
    #[must_use]
    pub fn default_action(mut self, verdict: Verdict) -> Self {
        self.default_action = verdict;
        self
    }

    /// What becomes of a packet that cannot be parsed. Default: drop. With allow, sets and tuples
    /// still bind such a packet as far as its addresses could be read.
    #[must_use]
    pub fn malformed(mut self, verdict: Verdict) -> Self {
        self.malformed = verdict;
        self
    }

    /// What becomes of a frame that is neither IP nor ARP. Default: allow.
    #[must_use]
    pub fn non_ip(mut self, verdict: Verdict) -> Self {
        self.non_ip = verdict;
        self
    }

    /// Whether IPv6 neighbour discovery (ICMPv6 133 to 137 with hop limit 255) passes before any
    /// set is checked. Default: true; without it a link does not work under a default of drop.
    #[must_use]
    pub fn neighbour_discovery(mut self, pass: bool) -> Self {
        self.neighbour_discovery = pass;
        self
    }

    /// Count and report what would be dropped, and drop nothing. Default: false.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// What holds the address sets in the kernel. Default: [`Backend::Flat`].
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Events a second of packets that were dropped by no rule: by the default action or as
    /// malformed. Default [`EVENTS_PER_SECOND`].
    #[must_use]
    pub fn default_events_per_second(mut self, rate: u32) -> Self {
        self.default_events_per_second = rate;
        self
    }

    /// Adds addresses whose packets are never blocked while the policy is in force; at most eight of
    /// each family.
    #[must_use]
    pub fn gateways(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.gateways.extend(addresses);
        self
    }

    /// Adds a set; of sets that decide the same prefix with the same action, the first wins.
    #[must_use]
    pub fn set(mut self, set: AddressSet) -> Self {
        self.sets.push(set);
        self
    }

    /// Adds a tuple rule.
    #[must_use]
    pub fn tuple(mut self, tuple: TupleRule) -> Self {
        self.tuples.push(tuple);
        self
    }

    /// Adds addresses with a name, for socket rules.
    #[must_use]
    pub fn addresses(mut self, group: AddressGroup) -> Self {
        self.sockets.groups.push(group);
        self
    }

    /// Adds a rule on system calls on sockets. The first that matches decides.
    #[must_use]
    pub fn socket_rule(mut self, rule: SocketRule) -> Self {
        self.sockets.rules.push(rule);
        self
    }

    /// What becomes of what no socket rule matches. Default: allow, in every direction.
    #[must_use]
    pub fn socket_default(mut self, direction: Direction, verdict: SocketVerdict) -> Self {
        self.sockets.defaults[direction as usize] = verdict;
        self
    }

    /// Lets processes open packet sockets and other sockets that reach other hosts without IP (see
    /// [`SocketProtocol::Packet`](ironclad_core::SocketProtocol::Packet)) whatever rules and defaults of [`Direction::Create`] say, as if there
    /// were none. Default: false.
    ///
    /// Only BPF LSM sees such sockets. Where a kernel is without it, a policy that would decide of
    /// them is refused when it is applied, unless it says this.
    #[must_use]
    pub fn danger_packet_sockets_unseen(mut self, unseen: bool) -> Self {
        self.sockets.packets_unseen = unseen;
        self
    }

    /// Adds a rule on files, which Sentinel enforces. Every rule that covers a file decides.
    #[must_use]
    pub fn file_rule(mut self, rule: FileRule) -> Self {
        self.files.push(rule);
        self
    }

    /// How large the compiled policy may become.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How each list of each set and group was read: what was changed and what was skipped.
    pub fn reports(&self) -> impl Iterator<Item = &ListReport> {
        let of_sets = self.sets.iter().flat_map(|set| &set.lists);
        let of_groups = self.sockets.groups.iter().flat_map(|group| &group.lists);
        of_sets.chain(of_groups).map(AddressList::report)
    }
}
