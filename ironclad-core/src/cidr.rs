use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which version of IP an address or a prefix belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4, addresses of 32 bits.
    V4,
    /// IPv6, addresses of 128 bits.
    V6,
}

impl Family {
    /// The number of bits in an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The family of `addr`.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// An address prefix whose host bits are zero: `10.0.0.0/8`, `2001:db8::/32`.
///
/// Prefixes sort by family, then address, then length, so that a prefix comes right before those
/// that it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(IpNetwork);

/// Why a text is not a [`Cidr`], or a length not one of its family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidrError {
    /// The part before the slash is no address.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    Address(String),
    /// The part after the slash is no number from 0 to the family's bits.
    #[error("`/{length}` is not a prefix length from /0 to /{max}")]
    Length {
        /// What was found.
        length: String,
        /// 32 or 128.
        max: u8,
    },
}

impl Cidr {
    /// The prefix of `length` bits that `addr` lies in; host bits of `addr` are cleared.
    ///
    /// # Errors
    /// [`CidrError::Length`] where `length` exceeds 32 (IPv4) or 128 (IPv6).
    pub fn new(addr: IpAddr, length: u8) -> Result<Self, CidrError> {
        let family = Family::of(addr);
        let net = IpNetwork::new(addr, length)
            .map_err(|_| CidrError::Length { length: length.to_string(), max: family.bits() })?;
        Ok(Self::normalise(net))
    }

    /// The prefix that holds `addr` alone: `/32` or `/128`.
    pub fn host(addr: IpAddr) -> Self {
        Self(IpNetwork::from(addr))
    }

    fn normalise(net: IpNetwork) -> Self {
        Self(match net {
            IpNetwork::V4(n) => match ipnetwork::Ipv4Network::new(n.network(), n.prefix()) {
                Ok(n) => IpNetwork::V4(n),
                Err(_) => net,
            },
            IpNetwork::V6(n) => match ipnetwork::Ipv6Network::new(n.network(), n.prefix()) {
                Ok(n) => IpNetwork::V6(n),
                Err(_) => net,
            },
        })
    }

    /// The lowest address.
    pub fn addr(self) -> IpAddr {
        self.0.ip()
    }

    /// The prefix length in bits.
    pub fn length(self) -> u8 {
        self.0.prefix()
    }

    /// IPv4 or IPv6.
    pub fn family(self) -> Family {
        Family::of(self.addr())
    }

    /// Whether `addr` lies in the prefix. An address of the other family never does.
    pub fn contains(self, addr: IpAddr) -> bool {
        match (self.0, addr) {
            (IpNetwork::V4(n), IpAddr::V4(a)) => n.contains(a),
            (IpNetwork::V6(n), IpAddr::V6(a)) => n.contains(a),
            _ => false,
        }
    }

    /// Whether every address of `other` lies in `self`.
    pub fn covers(self, other: Cidr) -> bool {
        self.length() <= other.length() && self.contains(other.addr())
    }

    /// The lowest address as a number, left-aligned in 128 bits: the first bit of the address is
    /// the highest bit of the number in both families.
    pub fn bits(self) -> u128 {
        left_aligned(self.addr())
    }

    /// The prefixes that together hold exactly the addresses from `first` to `last`, in order.
    /// None where the two are of different families or out of order.
    pub fn range(first: IpAddr, last: IpAddr) -> Option<Vec<Cidr>> {
        let family = Family::of(first);
        if Family::of(last) != family {
            return None;
        }
        let (mut at, end) = (number(first), number(last));
        if at > end {
            return None;
        }
        let bits = u32::from(family.bits());
        let mut out = Vec::new();
        loop {
            // The largest aligned block that starts here and does not reach beyond the end.
            let aligned = if at == 0 { bits } else { at.trailing_zeros().min(bits) };
            let room = match (end - at).checked_add(1) {
                Some(count) => count.ilog2(),
                None => 128,
            };
            let size = aligned.min(room);
            let length = (bits - size) as u8;
            let addr = match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::from(at as u32)),
                Family::V6 => IpAddr::V6(Ipv6Addr::from(at)),
            };
            out.push(Self::new(addr, length).ok()?);
            let next = match 1u128.checked_shl(size) {
                Some(step) => at.checked_add(step),
                None => None,
            };
            match next {
                Some(n) if n <= end => at = n,
                _ => return Some(out),
            }
        }
    }
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn left_aligned(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => u128::from(a),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.length())
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<IpAddr> for Cidr {
    fn from(addr: IpAddr) -> Self {
        Self::host(addr)
    }
}

impl From<IpNetwork> for Cidr {
    fn from(net: IpNetwork) -> Self {
        Self::normalise(net)
    }
}

impl From<Cidr> for IpNetwork {
    fn from(cidr: Cidr) -> Self {
        cidr.0
    }
}

/// A bare address is the prefix of that one host. Host bits are cleared.
impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (addr, length) = match text.split_once('/') {
            Some((addr, length)) => (addr, Some(length)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| CidrError::Address(addr.to_owned()))?;
        let Some(length) = length else { return Ok(Self::host(addr)) };
        let wrong =
            || CidrError::Length { length: length.to_owned(), max: Family::of(addr).bits() };
        // `parse` alone would take "+8".
        if !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        Self::new(addr, length.parse().map_err(|_| wrong())?)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_addr() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|n| IpAddr::V4(n.into())),
            any::<u128>().prop_map(|n| IpAddr::V6(n.into()))
        ]
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let error = |text: &str| text.parse::<Cidr>().unwrap_err().to_string();
        assert_eq!(error("10.0.0/8"), "`10.0.0` is not an IPv4 or IPv6 address");
        assert_eq!(error("10.0.0.0/33"), "`/33` is not a prefix length from /0 to /32");
        assert_eq!(error("::/129"), "`/129` is not a prefix length from /0 to /128");
        assert_eq!(error("1.2.3.4/-1"), "`/-1` is not a prefix length from /0 to /32");
        assert_eq!(error("::/+8"), "`/+8` is not a prefix length from /0 to /128");
        assert_eq!(error("::/"), "`/` is not a prefix length from /0 to /128");
    }

    #[test]
    fn whole_families_are_ranges() {
        let all4 = Cidr::range("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap());
        assert_eq!(all4.unwrap(), ["0.0.0.0/0".parse().unwrap()]);
        let all6 = Cidr::range(
            "::".parse().unwrap(),
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
        );
        assert_eq!(all6.unwrap(), ["::/0".parse().unwrap()]);
        assert_eq!(Cidr::range("1.0.0.1".parse().unwrap(), "1.0.0.0".parse().unwrap()), None);
        assert_eq!(Cidr::range("1.0.0.1".parse().unwrap(), "::".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn text_and_back(addr in any_addr(), length in 0u8..=128) {
            prop_assume!(length <= Family::of(addr).bits());
            let cidr = Cidr::new(addr, length).unwrap();
            prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
            prop_assert!(cidr.contains(addr));
            prop_assert!(cidr.contains(cidr.addr()));
        }

        // The blocks of a range are disjoint, in order, without a gap, and none could be larger.
        #[test]
        fn range_is_exact(a in any::<u128>(), b in any::<u128>(), v4 in any::<bool>(), near in 0u32..128) {
            let (a, b) = if v4 { (a >> 96, b >> 96) } else { (a, a ^ (b >> near)) };
            let (first, last) = (a.min(b), a.max(b));
            let to_addr = |n: u128| if v4 { IpAddr::V4((n as u32).into()) } else { IpAddr::V6(n.into()) };
            let blocks = Cidr::range(to_addr(first), to_addr(last)).unwrap();
            let mut next = Some(first);
            for block in &blocks {
                prop_assert_eq!(Some(number(block.addr())), next);
                let host_bits = u32::from(block.family().bits() - block.length());
                let size_less_one = if host_bits == 128 { u128::MAX } else { (1u128 << host_bits) - 1 };
                next = number(block.addr()).checked_add(size_less_one).and_then(|n| n.checked_add(1));
            }
            prop_assert_eq!(next, last.checked_add(1));
            prop_assert!(blocks.len() <= 2 * 128);
            for pair in blocks.windows(2) {
                let joined = Cidr::new(pair[0].addr(), pair[0].length().saturating_sub(1)).unwrap();
                prop_assert!(pair[0].length() != pair[1].length() || !joined.covers(pair[1]) || joined.length() == pair[0].length());
            }
        }
    }
}
