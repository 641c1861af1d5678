use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ironclad_core::abi::SocketOp;
use ironclad_core::{Cidr, RuleId, SocketProtocol, SocketVerdict};

use crate::limits::EVENTS_PER_SECOND;
use crate::list::AddressList;
use crate::sha256::Sha256Sum;

/// Addresses with a name, for [`SocketRule::to`].
#[derive(Clone, Debug)]
pub struct AddressGroup {
    pub(crate) name: String,
    pub(crate) lists: Vec<AddressList>,
}

impl AddressGroup {
    /// A group without addresses.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), lists: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
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
}

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

/// A cgroup, as a rule names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// By its path.
    Path(String),
    /// By a container's id, or the beginning of it.
    Container(String),
}

/// Which process a rule speaks of. Each kind that is named must hold; of several values of one
/// kind, one suffices. A subject of which nothing is said is any process.
///
/// Paths are files of the agent's own mount namespace: they become identities (device, inode,
/// generation) when a policy is loaded, and a process is identified by the file that it executes, not by a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub(crate) name: String,
    pub(crate) exes: Vec<Exe>,
    pub(crate) parents: Vec<PathBuf>,
    pub(crate) ancestors: Vec<PathBuf>,
    pub(crate) uids: Vec<u32>,
    pub(crate) gids: Vec<u32>,
    pub(crate) groups: Vec<Group>,
    pub(crate) comms: Vec<String>,
}

impl Subject {
    /// Any process, until it is narrowed.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// It executes this file. Of a script, that is the interpreter.
    #[must_use]
    pub fn exe(mut self, path: impl Into<PathBuf>) -> Self {
        self.exes.push(Exe { path: path.into(), pin: Pin::Any });
        self
    }

    /// It executes this file, and the file's content has this checksum.
    ///
    /// A file with another content is a mismatch: rules of the id [`SHA256_MISMATCH`](super::SHA256_MISMATCH), which come
    /// before all other rules, deny every call of a process that executes it, in every direction and
    /// whatever its user and group, and report it. Of several checksums that a policy has for one path, one
    /// suffices. What only rules in dry run and rules that log say of a file is reported and not
    /// denied. A file of more than 1 GiB is not read: it is a mismatch.
    #[must_use]
    pub fn exe_sha256(mut self, path: impl Into<PathBuf>, sum: Sha256Sum) -> Self {
        self.exes.push(Exe { path: path.into(), pin: Pin::Is(sum) });
        self
    }

    /// The process that forked it executed this file at that moment.
    #[must_use]
    pub fn parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.parents.push(path.into());
        self
    }

    /// It, before its present execve(2), or one that it descends from executed this file.
    #[must_use]
    pub fn descendant_of(mut self, path: impl Into<PathBuf>) -> Self {
        self.ancestors.push(path.into());
        self
    }

    /// Its real user.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uids.push(uid);
        self
    }

    /// Its real group. Supplementary groups do not count.
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Self {
        self.gids.push(gid);
        self
    }

    /// It is in this cgroup, or in one below: a path from the root of the hierarchy, like
    /// `/system.slice/nginx.service`.
    #[must_use]
    pub fn cgroup(mut self, path: impl Into<String>) -> Self {
        self.groups.push(Group::Path(path.into()));
        self
    }

    /// It is in this container: by its id, or by twelve or more of the id's first hexadecimal digits.
    /// When a policy is applied, that becomes the cgroup that a container runtime has named
    /// after it; a container that starts later needs the policy applied again. Not beside
    /// [`cgroup`](Self::cgroup).
    #[must_use]
    pub fn container(mut self, id: impl Into<String>) -> Self {
        self.groups.push(Group::Container(id.into()));
        self
    }

    /// The name that its thread gives itself. Any process may take any name: this tells programs
    /// apart that do not hide, and protects from none.
    #[must_use]
    pub fn spoofable_comm(mut self, comm: impl Into<String>) -> Self {
        self.comms.push(comm.into());
        self
    }
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SocketAction {
    /// Lets the process go on.
    Allow,
    /// The system call fails with EPERM.
    Deny,
    /// Reports; the next rule that matches decides.
    Log,
}

/// The system calls that a rule is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Direction {
    /// connect(2), and datagrams from sockets that are not connected: address and port are the
    /// other's.
    Out,
    /// bind(2): address and port are one's own.
    In,
    /// socket(2) of raw sockets, of packet sockets and of protocols other than TCP and UDP, and TUN devices:
    /// no address, no port.
    Create,
}

impl Direction {
    /// What the kernel calls it.
    pub const fn ops(self) -> &'static [SocketOp] {
        match self {
            Self::Out => &[SocketOp::Connect, SocketOp::Send],
            Self::In => &[SocketOp::Bind],
            Self::Create => &[SocketOp::Create],
        }
    }
}

/// What a limit counts together.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LimitScope {
    /// What the rule matches.
    #[default]
    Rule,
    /// What all rules with this limit's name match whose subjects have the same name.
    Subject,
    /// What all rules with this limit's name match.
    Host,
}

/// A token bucket: so many a second on average, and a burst at once. What is over it is denied.
///
/// In any time it allows at most the burst and the rate times that time. It allows no less while callers
/// ask for more, except where none asks for longer than `burst / rate`: a full bucket takes no more tokens.
/// The time between two tokens is rounded up to a nanosecond, which is 0.1 % of the rate at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub(crate) name: String,
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
    pub(crate) scope: LimitScope,
}

impl RateLimit {
    /// So many decisions a second, and as many at once. Both 1 to 1,000,000.
    pub fn per_second(rate: u32) -> Self {
        Self { name: String::new(), per_second: rate, burst: rate, scope: LimitScope::Rule }
    }

    /// So many at once after a pause.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// Tokens a second.
    pub fn rate(&self) -> u32 {
        self.per_second
    }

    /// Nanoseconds from token to token: rounded up, so that the rate is never exceeded.
    pub fn interval_ns(&self) -> u64 {
        1_000_000_000u64.div_ceil(u64::from(self.per_second))
    }

    /// Tokens in a full bucket.
    pub fn at_once(&self) -> u32 {
        self.burst
    }

    /// One bucket for several rules.
    #[must_use]
    pub fn shared(mut self, name: impl Into<String>, scope: LimitScope) -> Self {
        self.name = name.into();
        self.scope = scope;
        self
    }
}

/// Subject × address × port × protocol × direction → action. What is not said matches anything, except
/// the direction, which is [`Direction::Out`].
#[derive(Clone, Debug)]
pub struct SocketRule {
    pub(crate) rule: RuleId,
    pub(crate) name: String,
    pub(crate) action: SocketAction,
    pub(crate) subject: Subject,
    pub(crate) to: Vec<String>,
    pub(crate) cidrs: Vec<Cidr>,
    pub(crate) ports: Vec<RangeInclusive<u16>>,
    pub(crate) protocols: Vec<SocketProtocol>,
    pub(crate) direction: Direction,
    pub(crate) limit: Option<RateLimit>,
    pub(crate) report: bool,
    pub(crate) dry_run: bool,
    pub(crate) events_per_second: u32,
    /// Where a policy file says it.
    pub(crate) described_at: Option<String>,
}

impl SocketRule {
    /// A rule on everything that goes out, until it is narrowed.
    pub fn new(rule: RuleId, name: impl Into<String>, action: SocketAction) -> Self {
        Self {
            rule,
            name: name.into(),
            action,
            subject: Subject::default(),
            to: Vec::new(),
            cidrs: Vec::new(),
            ports: Vec::new(),
            protocols: Vec::new(),
            direction: Direction::Out,
            limit: None,
            report: false,
            dry_run: false,
            events_per_second: EVENTS_PER_SECOND,
            described_at: None,
        }
    }

    /// Whether it decides every call of its direction.
    pub(crate) fn matches_all(&self) -> bool {
        let Self { action, subject, to, cidrs, ports, protocols, .. } = self;
        let is_anybody = Subject { name: String::new(), ..subject.clone() } == Subject::default();
        let anywhere = to.is_empty() && cidrs.is_empty() && ports.is_empty();
        *action != SocketAction::Log && is_anybody && anywhere && protocols.is_empty()
    }

    /// Only processes that the subject describes.
    #[must_use]
    pub fn subject(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }

    /// Addresses of the [`AddressGroup`] of this name.
    #[must_use]
    pub fn to(mut self, group: impl Into<String>) -> Self {
        self.to.push(group.into());
        self
    }

    /// These addresses.
    #[must_use]
    pub fn to_cidr(mut self, cidr: Cidr) -> Self {
        self.cidrs.push(cidr);
        self
    }

    /// This port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.ports(port..=port)
    }

    /// These ports.
    #[must_use]
    pub fn ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports.push(ports);
        self
    }

    /// This protocol, or with [`Direction::Create`] this kind of socket.
    #[must_use]
    pub fn protocol(mut self, protocol: impl Into<SocketProtocol>) -> Self {
        // One form of each number.
        self.protocols.push(SocketProtocol::from_abi(protocol.into().abi()));
        self
    }

    /// The direction. Default: out.
    #[must_use]
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// What is over the limit is denied, whatever the action. For rules that allow.
    #[must_use]
    pub fn limit(mut self, limit: RateLimit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Reports what it allows too. Default: false; what is denied is always reported.
    #[must_use]
    pub fn report(mut self, report: bool) -> Self {
        self.report = report;
        self
    }

    /// Counts and reports what it would deny, and allows it. Default: false.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Events a second that the rule reports at most; 0 for none.
    #[must_use]
    pub fn events_per_second(mut self, rate: u32) -> Self {
        self.events_per_second = rate;
        self
    }
}

/// The part of a policy that speaks of sockets.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    pub(crate) groups: Vec<AddressGroup>,
    pub(crate) rules: Vec<SocketRule>,
    /// Of out, in and create.
    pub(crate) defaults: [SocketVerdict; 3],
    pub(crate) packets_unseen: bool,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            rules: Vec::new(),
            defaults: [SocketVerdict::Allow; 3],
            packets_unseen: false,
        }
    }
}

impl Sockets {
    /// Whether the policy leaves sockets alone: no rules, and every default allows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.defaults == [SocketVerdict::Allow; 3]
    }
}

/// How a rule is called in messages: its id and name, and its place in a policy file.
pub(super) fn shown(id: RuleId, name: &str, described_at: Option<&str>) -> String {
    let RuleId(id) = id;
    match described_at {
        Some(at) => format!("rule {id} (`{name}`, {at})"),
        None => format!("rule {id} (`{name}`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rounding_exceeds_the_rate() {
        for rate in 1..=1_000_000u32 {
            let interval = RateLimit::per_second(rate).interval_ns();
            let (rate, second) = (u64::from(rate), 1_000_000_000);
            assert!(interval * rate >= second, "{rate}: a token too early");
            assert!((interval - 1) * rate < second, "{rate}: later than it need be");
            // Tokens in 1,000 seconds.
            assert!(1000 * second / interval * 1000 >= 999 * 1000 * rate, "{rate}");
        }
    }
}
