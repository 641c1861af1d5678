//! Learn mode: from the system calls of processes on sockets, the least policy that allows it.
//!
//! [`Policy::learning`] makes a policy report everything that it allows. What was reported is passed
//! to a [`Learner`], and its [`document`](Learner::document) is a policy file: for each executable
//! what it was seen to do and nothing else, unless [`LearnOptions`] say so. Directions in which
//! something was seen are denied by default.
//!
//! ```
//! use std::path::PathBuf;
//! use ironclad_core::abi::{FileId, SocketOp};
//! use ironclad_policy::Protocol;
//! use ironclad_policy::learn::{LearnOptions, Learner, Observation};
//!
//! let curl = FileId { ino: 7, dev: 5, generation: 1 };
//! let mut learner = Learner::new(LearnOptions::default());
//! for addr in ["192.0.2.2:443", "192.0.2.3:443"] {
//!     learner.saw(&Observation {
//!         exe: Some(curl),
//!         uid: 1000,
//!         op: SocketOp::Connect,
//!         protocol: Protocol::TCP.into(),
//!         addr: Some(addr.parse()?),
//!     });
//! }
//! learner.name(curl, PathBuf::from("/usr/bin/curl"));
//! let text = learner.document();
//! assert!(text.contains("to: [192.0.2.2/31]"), "{text}");
//! # #[cfg(feature = "document")]
//! ironclad_policy::document::Document::parse("learned.yaml", &text)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod merge;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use ironclad_core::abi::{FileId, SocketOp};
use ironclad_core::{RuleId, SocketProtocol, SocketVerdict};

use crate::policy::Policy;
use crate::socket::{Direction, SHA256_MISMATCH, SocketAction, SocketRule, effective_address};

/// A system call on a socket that was allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What it executes; none of an unidentified process.
    pub exe: Option<FileId>,
    /// Its real user.
    pub uid: u32,
    /// The operation.
    pub op: SocketOp,
    /// The protocol, or the kind of socket.
    pub protocol: SocketProtocol,
    /// The other's address and port, or one's own of bind(2); none of socket(2).
    pub addr: Option<SocketAddr>,
}

/// What may be allowed beyond what was seen. By default nothing.
#[derive(Clone, Debug)]
#[must_use]
pub struct LearnOptions {
    any_user: bool,
    anywhere_after: usize,
    ephemeral: Option<RangeInclusive<u16>>,
    most: usize,
}

impl Default for LearnOptions {
    fn default() -> Self {
        Self { any_user: false, anywhere_after: usize::MAX, ephemeral: None, most: 50_000 }
    }
}

impl LearnOptions {
    /// Rules name no users: what one was seen to do, all may.
    pub fn any_user(mut self) -> Self {
        self.any_user = true;
        self
    }

    /// An executable that was seen with more addresses than this at one port may use that port
    /// anywhere.
    pub fn anywhere_after(mut self, addresses: usize) -> Self {
        self.anywhere_after = addresses;
        self
    }

    /// Where bind(2) had a port of this range, or a datagram was sent to one, all of the range
    /// is allowed: ports that the kernel or the other side chooses differ the next time.
    pub fn ephemeral_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ephemeral = Some(ports);
        self
    }

    /// Distinct observations that are kept; what is over counts as lost. Default 50,000.
    pub fn most(mut self, observations: usize) -> Self {
        self.most = observations;
        self
    }
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// A path that leads to it.
    Path(PathBuf),
    /// None does: how it was called, if it was, and why that will not do.
    None { label: Option<PathBuf>, why: String },
}

/// Port by port what one executable of one user did in one direction with one protocol.
type Seen = BTreeSet<(u16, Option<std::net::IpAddr>, bool)>;

/// An executable, a direction by its number, a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    exe: Option<FileId>,
    direction: Direction,
    protocol: u8,
}

/// Collects what was seen. Everything in it is sorted: the same observations, in whatever order,
/// give the same document.
#[derive(Clone, Debug)]
pub struct Learner {
    options: LearnOptions,
    seen: BTreeMap<Subject, BTreeMap<u32, Seen>>,
    names: BTreeMap<FileId, Name>,
    distinct: usize,
    total: u64,
    lost: u64,
    denied: u64,
    packets_unseen: bool,
}

impl Learner {
    /// Nothing was seen yet.
    pub fn new(options: LearnOptions) -> Self {
        Self {
            options,
            seen: BTreeMap::new(),
            names: BTreeMap::new(),
            distinct: 0,
            total: 0,
            lost: 0,
            denied: 0,
            packets_unseen: false,
        }
    }

    /// Something was seen. True where the file of it has no name yet: then [`name`](Self::name) it,
    /// while the process still runs.
    pub fn saw(&mut self, what: &Observation) -> bool {
        self.total += 1;
        let direction = match what.op {
            SocketOp::Connect | SocketOp::Send => Direction::Out,
            SocketOp::Bind => Direction::In,
            SocketOp::Create => Direction::Create,
        };
        let (addr, _) = effective_address(what.op, what.addr);
        // Whether the kernel or the peer may have chosen the port.
        let chosen = matches!(what.op, SocketOp::Bind | SocketOp::Send);
        let place = (addr.map_or(0, |addr| addr.port()), addr.map(|addr| addr.ip()), chosen);
        // The kernel's number for no user is none that a rule can name.
        let exe = what.exe.filter(|_| what.uid != u32::MAX);
        let subject = Subject { exe, direction, protocol: what.protocol.abi() };
        let is_full = self.distinct >= self.options.most;
        let seen = self.seen.get(&subject).and_then(|users| users.get(&what.uid));
        if !seen.is_some_and(|seen| seen.contains(&place)) {
            if is_full {
                self.lost += 1;
                return false;
            }
            self.distinct += 1;
            self.seen.entry(subject).or_default().entry(what.uid).or_default().insert(place);
        }
        exe.is_some_and(|exe| !self.names.contains_key(&exe))
    }

    /// A path leads to a file: the caller has checked it.
    pub fn name(&mut self, file: FileId, path: PathBuf) {
        let name = match (path.is_absolute(), path.to_str()) {
            (true, Some(_)) => Name::Path(path),
            (false, _) => Name::None { label: Some(path), why: "its path is relative".to_owned() },
            (_, None) => Name::None { label: Some(path), why: "its path is no text".to_owned() },
        };
        self.names.insert(file, name);
    }

    /// No path leads to a file: how it was called, if it was, and why that will not do. What it was
    /// seen to do becomes a comment.
    pub fn unnamed(&mut self, file: FileId, label: Option<PathBuf>, why: impl Into<String>) {
        self.names.insert(file, Name::None { label, why: why.into() });
    }

    /// The files that have a path.
    pub fn named(&self) -> impl Iterator<Item = (FileId, &PathBuf)> {
        self.names.iter().filter_map(|(file, name)| match name {
            Name::Path(path) => Some((*file, path)),
            Name::None { .. } => None,
        })
    }

    /// So many more events did not arrive: the document says so.
    pub fn lost(&mut self, events: u64) {
        self.lost += events;
    }

    /// Packet sockets were not seen: the document leaves them unseen, too, and says so.
    pub fn packets_unseen(&mut self) {
        self.packets_unseen = true;
    }

    /// Something was denied, or would have been but for a dry run: counted, and not allowed.
    pub fn denied(&mut self) {
        self.denied += 1;
    }

    /// A policy file that allows what was seen, as far as rules can name it.
    pub fn document(&self) -> String {
        write::document(self)
    }
}

impl Policy {
    /// The same decisions, but everything on sockets that is allowed is reported, each time: what no
    /// rule matches by a rule of its own behind all other rules. For as long as one learns: each event
    /// takes its time.
    ///
    /// That includes packet sockets, unless they are
    /// [left unseen](Self::danger_packet_sockets_unseen).
    #[must_use]
    pub fn learning(mut self) -> Self {
        let rules = &mut self.sockets.rules;
        for rule in rules.iter_mut().filter(|rule| rule.action != SocketAction::Log) {
            rule.report = true;
            rule.events_per_second = u32::MAX;
        }
        let used: BTreeSet<RuleId> = rules.iter().map(|rule| rule.rule).collect();
        let mut free = (0..SHA256_MISMATCH.0).rev().map(RuleId).filter(|id| !used.contains(id));
        let directions = [Direction::Out, Direction::In, Direction::Create];
        // What is denied by default stays so, and is not to be learned.
        let allowed = directions.into_iter().zip(self.sockets.defaults);
        for (direction, _) in allowed.filter(|(_, default)| *default == SocketVerdict::Allow) {
            if let Some(id) = free.next() {
                rules.push(
                    SocketRule::new(id, "learning", SocketAction::Allow)
                        .direction(direction)
                        .report(true)
                        .events_per_second(u32::MAX),
                );
            }
        }
        self
    }
}
