use std::fmt;

use serde::{Serialize, Serializer};

use crate::abi;

/// An IP protocol by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP, of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDPLITE: Self = Self(136);

    const NAMES: [(&'static str, Self); 7] = [
        ("icmp", Self::ICMP),
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("dccp", Self::DCCP),
        ("icmpv6", Self::ICMPV6),
        ("sctp", Self::SCTP),
        ("udplite", Self::UDPLITE),
    ];

    /// Whether packets of this protocol have ports that Shield reads.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::DCCP | Self::SCTP | Self::UDPLITE)
    }

    /// The name, in lower case; none where Ironclad has none for it.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(_, known)| *known == self).map(|(name, _)| *name)
    }

    /// The protocol of that name, in lower case, or of that number.
    pub fn by_name(name: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, p)| *p);
        known.or_else(|| name.parse().ok().map(Self))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

/// The protocol of a socket, or the kind of a socket that has none of one IP protocol.
///
/// The kernel has the numbers 254 and 255 for the two kinds, which IANA reserves for experiments: socket
/// rules cannot tell a socket of such a protocol from them.
///
/// ```
/// use ironclad_core::{Protocol, SocketProtocol};
///
/// assert_eq!(SocketProtocol::from(Protocol::TCP).to_string(), "tcp");
/// assert_eq!(SocketProtocol::by_name("packet"), Some(SocketProtocol::Packet));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketProtocol {
    /// An IP protocol; Multipath TCP is TCP.
    Ip(Protocol),
    /// Packet sockets (`AF_PACKET`), and sockets of all other families that reach other hosts without IP,
    /// such as `AF_XDP`, `AF_VSOCK` and `AF_BLUETOOTH`; TUN and TAP devices.
    Packet,
    /// Raw sockets, whatever they send.
    Raw,
}

impl SocketProtocol {
    /// The protocol's number in the kernel's tables and events.
    pub const fn abi(self) -> u8 {
        match self {
            Self::Ip(protocol) => protocol.0,
            Self::Packet => abi::SOCK_PROTO_PACKET,
            Self::Raw => abi::SOCK_PROTO_RAW,
        }
    }

    /// The protocol of that number.
    pub const fn from_abi(number: u8) -> Self {
        match number {
            abi::SOCK_PROTO_PACKET => Self::Packet,
            abi::SOCK_PROTO_RAW => Self::Raw,
            number => Self::Ip(Protocol(number)),
        }
    }

    /// The protocol of that name, in lower case, or of that number.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "packet" => Some(Self::Packet),
            "raw" => Some(Self::Raw),
            name => Protocol::by_name(name).map(Self::from),
        }
    }
}

impl From<Protocol> for SocketProtocol {
    fn from(protocol: Protocol) -> Self {
        Self::from_abi(protocol.0)
    }
}

impl fmt::Display for SocketProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(protocol) => protocol.fmt(f),
            Self::Packet => f.write_str("packet"),
            Self::Raw => f.write_str("raw"),
        }
    }
}

/// A number of an IP protocol, or `"packet"` or `"raw"`.
impl Serialize for SocketProtocol {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ip(protocol) => to.serialize_u8(protocol.0),
            kind => to.collect_str(kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_name_is_read_back() {
        for number in 0..=u8::MAX {
            let protocol = SocketProtocol::from_abi(number);
            assert_eq!(protocol.abi(), number);
            assert_eq!(SocketProtocol::from(Protocol(number)), protocol);
            assert_eq!(SocketProtocol::by_name(&number.to_string()), Some(protocol));
        }
        for name in ["icmp", "tcp", "udp", "dccp", "icmpv6", "sctp", "udplite", "packet", "raw"] {
            assert_eq!(SocketProtocol::by_name(name).unwrap().to_string(), name);
        }
        assert_eq!(SocketProtocol::by_name("256"), None);
        assert_eq!(Protocol::by_name("raw"), None);
    }
}
