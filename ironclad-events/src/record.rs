use std::fmt;
use std::net::IpAddr;

use ironclad_core::abi::Reason;
use ironclad_core::{Protocol, Verdict};
use serde::Serialize;

use crate::decode::{Event, ShieldEvent};
use crate::sentinel::SentinelRecord;
use crate::socket::SocketRecord;

/// An event, owned: what a channel carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Record {
    /// A packet that Shield reports.
    Shield(ShieldRecord),
    /// A decision on a system call on a socket.
    Socket(SocketRecord),
    /// An access that Sentinel denied or logged.
    Sentinel(SentinelRecord),
}

impl Record {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Shield(record) => record.time_ns,
            Self::Socket(record) => record.time_ns,
            Self::Sentinel(record) => record.time_ns,
        }
    }

    /// The packet, where it is one.
    pub fn into_shield(self) -> Option<ShieldRecord> {
        match self {
            Self::Shield(record) => Some(record),
            Self::Socket(_) | Self::Sentinel(_) => None,
        }
    }

    /// The decision on a socket, where it is one.
    pub fn into_socket(self) -> Option<SocketRecord> {
        match self {
            Self::Socket(record) => Some(record),
            Self::Shield(_) | Self::Sentinel(_) => None,
        }
    }

    /// The access that Sentinel denied or logged, where it is one.
    pub fn into_sentinel(self) -> Option<SentinelRecord> {
        match self {
            Self::Sentinel(record) => Some(record),
            Self::Shield(_) | Self::Socket(_) => None,
        }
    }
}

impl From<ShieldRecord> for Record {
    fn from(record: ShieldRecord) -> Self {
        Self::Shield(record)
    }
}

impl From<SocketRecord> for Record {
    fn from(record: SocketRecord) -> Self {
        Self::Socket(record)
    }
}

impl From<&Event<'_>> for Record {
    fn from(event: &Event<'_>) -> Self {
        match event {
            Event::Shield(event) => Self::Shield(event.into()),
            Event::Socket(event) => Self::Socket(event.into()),
            Event::Sentinel(event) => Self::Sentinel(event.into()),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shield(record) => record.fmt(f),
            Self::Socket(record) => record.fmt(f),
            Self::Sentinel(record) => record.fmt(f),
        }
    }
}

/// A packet that Shield reports, owned: for channels, logs and exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShieldRecord {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// The CPU that saw the packet.
    pub cpu: u32,
    /// The policy's generation.
    pub generation: u64,
    /// Index of the interface.
    pub ifindex: u32,
    /// What became of the packet; of a dry run, what would have.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Slot of the rule, 0 for none: `Shield::describe` names it.
    pub rule_slot: u32,
    /// Number of the policy's prefix, 0 for none: `Shield::describe` names it.
    pub entry: u32,
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// IP protocol.
    pub protocol: u8,
    /// Source and destination port.
    pub ports: Option<(u16, u16)>,
    /// Type and code of ICMP.
    pub icmp: Option<(u8, u8)>,
    /// VLAN ids, the outer first.
    pub vlans: Vec<u16>,
    /// Bytes of the frame.
    pub packet_len: u32,
    /// Nothing was dropped in truth.
    pub dry_run: bool,
    /// A log rule reports.
    pub log: bool,
    /// The packet is a fragment.
    pub fragment: bool,
}

impl From<&ShieldEvent<'_>> for ShieldRecord {
    fn from(event: &ShieldEvent<'_>) -> Self {
        let raw = event.raw();
        Self {
            time_ns: raw.hdr.time_ns,
            cpu: raw.hdr.cpu,
            generation: raw.generation,
            ifindex: raw.ifindex,
            verdict: event.verdict(),
            reason: event.reason(),
            rule_slot: raw.rule,
            entry: raw.entry,
            src: event.src(),
            dst: event.dst(),
            protocol: raw.proto,
            ports: event.ports(),
            icmp: event.icmp(),
            vlans: event.vlans().collect(),
            packet_len: raw.packet_len,
            dry_run: event.is_dry_run(),
            log: event.is_log(),
            fragment: event.is_fragment(),
        }
    }
}

/// One line: `drop 192.0.2.1:40000 → 198.51.100.2:443 tcp (set)`. `Shield::describe` names the rule.
impl fmt::Display for ShieldRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |addr: Option<IpAddr>, port: Option<u16>| match (addr, port) {
            (None, _) => "?".to_owned(),
            (Some(addr), None) => addr.to_string(),
            (Some(addr), Some(port)) => std::net::SocketAddr::new(addr, port).to_string(),
        };
        let src = end(self.src, self.ports.map(|(src, _)| src));
        let dst = end(self.dst, self.ports.map(|(_, dst)| dst));
        let verdict = if self.dry_run && self.verdict == Verdict::Drop {
            "would drop".to_owned()
        } else if self.log {
            "log".to_owned()
        } else {
            self.verdict.to_string()
        };
        write!(f, "{verdict} {src} → {dst}")?;
        if self.src.is_some() {
            write!(f, " {}", Protocol(self.protocol))?;
        }
        write!(f, " ({})", self.reason)
    }
}
