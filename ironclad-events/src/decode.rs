use std::net::IpAddr;

use ironclad_core::Verdict;
use ironclad_core::abi::{self, EventHeader, Reason};
use zerocopy::FromBytes;

use crate::sentinel::SentinelEvent;
use crate::socket::SocketEvent;

/// Why bytes are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the head says, or than a head has.
    #[error("an event of {needed} bytes is cut off after {found}")]
    Short {
        /// Bytes that an event of its kind has.
        needed: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// Not at a multiple of 8 bytes, where ring buffers put their records.
    #[error("the event is not aligned to 8 bytes")]
    Unaligned,
    /// A kind that this version does not know.
    #[error("events of kind {0} are not known to this version")]
    Kind(u16),
    /// A field has a value that no program writes.
    #[error("field `{field}` of an event is {value}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

/// An event, borrowed from the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A packet that Shield reports.
    Shield(ShieldEvent<'a>),
    /// A decision on a system call on a socket.
    Socket(SocketEvent<'a>),
    /// An access that Sentinel denied or logged.
    Sentinel(SentinelEvent<'a>),
}

/// A packet that Shield reports. Checked: every accessor has an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShieldEvent<'a> {
    raw: &'a abi::ShieldEvent,
    verdict: Verdict,
    reason: Reason,
}

/// Looks at a record of the ring buffer, without copying. Bytes behind the event are ignored.
///
/// # Errors
/// [`DecodeError`]; the record is of no use then.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    let (head, _) = EventHeader::read_from_prefix(bytes)
        .map_err(|_| DecodeError::Short { needed: size_of::<EventHeader>(), found: bytes.len() })?;
    match head.kind {
        abi::EV_SHIELD => ShieldEvent::decode(bytes, &head).map(Event::Shield),
        abi::EV_SOCKET => SocketEvent::decode(bytes, &head).map(Event::Socket),
        abi::EV_SENTINEL => SentinelEvent::decode(bytes, &head).map(Event::Sentinel),
        kind => Err(DecodeError::Kind(kind)),
    }
}

impl<'a> ShieldEvent<'a> {
    fn decode(bytes: &'a [u8], head: &EventHeader) -> Result<Self, DecodeError> {
        let needed = size_of::<abi::ShieldEvent>();
        let field = |field, value| DecodeError::Field { field, value };
        if usize::from(head.len) != needed {
            return Err(field("len", u64::from(head.len)));
        }
        let found = bytes.len();
        let bytes = bytes.get(..needed).ok_or(DecodeError::Short { needed, found })?;
        let raw = abi::ShieldEvent::ref_from_bytes(bytes).map_err(|_| DecodeError::Unaligned)?;
        let verdict = match raw.verdict {
            abi::VERDICT_PASS => Verdict::Allow,
            abi::VERDICT_DROP => Verdict::Drop,
            other => return Err(field("verdict", u64::from(other))),
        };
        let reason =
            Reason::from_abi(raw.reason).ok_or_else(|| field("reason", u64::from(raw.reason)))?;
        if !matches!(raw.family, 0 | abi::TUPLE_V4 | abi::TUPLE_V6) {
            return Err(field("family", u64::from(raw.family)));
        }
        Ok(Self { raw, verdict, reason })
    }

    /// The event as the kernel wrote it.
    pub fn raw(&self) -> &'a abi::ShieldEvent {
        self.raw
    }

    /// What became of the packet; of a dry run, what would have.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    fn addr(&self, bytes: [u8; 16]) -> Option<IpAddr> {
        match self.raw.family {
            abi::TUPLE_V4 => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
            abi::TUPLE_V6 => Some(IpAddr::from(bytes)),
            _ => None,
        }
    }

    /// Source address; none where the packet was cut off before it.
    pub fn src(&self) -> Option<IpAddr> {
        self.addr(self.raw.src)
    }

    /// Destination address; none where the packet was cut off before it.
    pub fn dst(&self) -> Option<IpAddr> {
        self.addr(self.raw.dst)
    }

    fn has_ports(&self) -> bool {
        // DCCP, SCTP and UDP-Lite beside TCP and UDP.
        matches!(self.raw.proto, 6 | 17 | 33 | 132 | 136)
            && self.raw.flags & abi::SHIELD_EV_LATER_FRAGMENT == 0
            && !self.reason.is_malformed()
    }

    /// Source and destination port, where the protocol has them and they were read.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let port = u16::from_be_bytes;
        self.has_ports().then(|| (port(self.raw.sport), port(self.raw.dport)))
    }

    /// Type and code of ICMP and ICMPv6.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let is_icmp =
            matches!((self.raw.family, self.raw.proto), (abi::TUPLE_V4, 1) | (abi::TUPLE_V6, 58));
        let whole =
            self.raw.flags & abi::SHIELD_EV_LATER_FRAGMENT == 0 && !self.reason.is_malformed();
        (is_icmp && whole).then_some((self.raw.dport[0], self.raw.dport[1]))
    }

    /// VLAN ids, the outer first.
    pub fn vlans(&self) -> impl Iterator<Item = u16> + use<> {
        self.raw.vlan.into_iter().filter(|&tag| tag != u16::MAX)
    }

    /// Whether nothing was dropped in truth.
    pub fn is_dry_run(&self) -> bool {
        self.raw.flags & abi::SHIELD_EV_DRY_RUN != 0
    }

    /// Whether a log rule reports, not the rule that decided.
    pub fn is_log(&self) -> bool {
        self.raw.flags & abi::SHIELD_EV_LOG != 0
    }

    /// Whether the packet is a fragment.
    pub fn is_fragment(&self) -> bool {
        self.raw.flags & abi::SHIELD_EV_FRAGMENT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    /// Bytes at an address that is a multiple of eight, as in a ring buffer.
    fn aligned(bytes: &[u8]) -> Vec<u64> {
        let mut words = vec![0u64; bytes.len().div_ceil(8)];
        words.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
        words
    }

    pub(crate) fn event() -> abi::ShieldEvent {
        let mut event = abi::ShieldEvent { reason: Reason::Set as u8, ..Default::default() };
        event.hdr.kind = abi::EV_SHIELD;
        event.hdr.len = size_of::<abi::ShieldEvent>() as u16;
        event.vlan = [7, u16::MAX];
        event.family = abi::TUPLE_V4;
        event.src[..4].copy_from_slice(&[192, 0, 2, 1]);
        event.proto = 6;
        event.sport = 40_000u16.to_be_bytes();
        event.dport = 443u16.to_be_bytes();
        event.verdict = abi::VERDICT_DROP;
        event
    }

    #[test]
    fn fields_are_read_in_their_byte_order() {
        let event = event();
        let Ok(Event::Shield(shield)) = decode(event.as_bytes()) else { panic!() };
        assert_eq!(shield.src(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(shield.dst(), Some("0.0.0.0".parse().unwrap()));
        assert_eq!(shield.ports(), Some((40_000, 443)));
        assert_eq!(shield.icmp(), None);
        assert_eq!(shield.vlans().collect::<Vec<_>>(), [7]);
        assert_eq!((shield.verdict(), shield.reason()), (Verdict::Drop, Reason::Set));
        assert!(std::ptr::eq(shield.raw(), &event), "borrowed, not copied");
    }

    #[test]
    fn what_no_program_writes_is_refused() {
        let refused = |change: fn(&mut abi::ShieldEvent)| {
            let mut event = event();
            change(&mut event);
            decode(event.as_bytes()).unwrap_err()
        };
        assert_eq!(refused(|e| e.hdr.kind = 9), DecodeError::Kind(9));
        assert_eq!(refused(|e| e.hdr.len = 87), DecodeError::Field { field: "len", value: 87 });
        assert_eq!(refused(|e| e.verdict = 2), DecodeError::Field { field: "verdict", value: 2 });
        assert_eq!(refused(|e| e.reason = 24), DecodeError::Field { field: "reason", value: 24 });
        assert_eq!(refused(|e| e.family = 5), DecodeError::Field { field: "family", value: 5 });
        let event = event();
        let bytes = event.as_bytes();
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length]), Err(DecodeError::Short { .. })), "{length}");
        }
        let words = aligned(&[&[0][..], bytes].concat());
        assert_eq!(decode(&words.as_bytes()[1..]), Err(DecodeError::Unaligned));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in any::<bool>()) {
            let mut bytes = bytes;
            if kind && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[1, 0, 88, 0]);
            }
            let words = aligned(&bytes);
            if let Ok(Event::Shield(event)) = decode(&words.as_bytes()[..bytes.len()]) {
                let record = crate::ShieldRecord::from(&event);
                prop_assert!(!record.to_string().is_empty());
            }
        }
    }
}
