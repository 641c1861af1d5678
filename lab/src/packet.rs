//! Frames for tests: whole ones with right lengths and checksums, and the parts to make wrong ones.
//!
//! ```
//! use ironclad_lab::packet::{Frame, tcp};
//!
//! let frame = Frame::v4("192.0.2.1", "198.51.100.2").vlan(7).payload(6, tcp(40000, 443)).build();
//! assert_eq!(frame.len(), 14 + 4 + 20 + 20);
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// TCP's protocol number, and so on.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = 132;

/// A frame in the making.
#[derive(Clone, Debug)]
pub struct Frame {
    vlans: Vec<(u16, u16)>,
    src: IpAddr,
    dst: IpAddr,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    fragment: u16,
    hops: u8,
    protocol: u8,
    payload: Vec<u8>,
}

impl Frame {
    /// An empty IPv4 packet.
    ///
    /// # Panics
    /// Where a text is no IPv4 address.
    pub fn v4(src: &str, dst: &str) -> Self {
        let parse = |text: &str| text.parse::<Ipv4Addr>().expect("an IPv4 address");
        Self::between(parse(src).into(), parse(dst).into())
    }

    /// An empty IPv6 packet.
    ///
    /// # Panics
    /// Where a text is no IPv6 address.
    pub fn v6(src: &str, dst: &str) -> Self {
        let parse = |text: &str| text.parse::<Ipv6Addr>().expect("an IPv6 address");
        Self::between(parse(src).into(), parse(dst).into())
    }

    /// An empty packet between two addresses of one family.
    pub fn between(src: IpAddr, dst: IpAddr) -> Self {
        Self {
            vlans: Vec::new(),
            src,
            dst,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0,
            hops: 64,
            protocol: 59,
            payload: Vec::new(),
        }
    }

    /// Adds an 802.1Q tag inside those there are.
    #[must_use]
    pub fn vlan(self, id: u16) -> Self {
        self.tag(0x8100, id)
    }

    /// Adds a tag of any ethertype.
    #[must_use]
    pub fn tag(mut self, ethertype: u16, id: u16) -> Self {
        self.vlans.push((ethertype, id));
        self
    }

    /// IPv4 options, a multiple of four bytes.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        assert!(options.len() % 4 == 0 && options.len() <= 40, "options of {}", options.len());
        self.options = options.to_vec();
        self
    }

    /// Adds an IPv6 extension header: its protocol number and all its bytes but the first, which
    /// says what follows.
    #[must_use]
    pub fn extension(mut self, protocol: u8, rest: &[u8]) -> Self {
        self.extensions.push((protocol, rest.to_vec()));
        self
    }

    /// Adds an IPv6 fragment header; `offset` in bytes.
    #[must_use]
    pub fn fragment6(self, offset: u16, more: bool) -> Self {
        let [high, low] = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
        self.extension(44, &[0, high, low, 0, 0, 0, 1])
    }

    /// Makes it an IPv4 fragment; `offset` in bytes.
    #[must_use]
    pub fn fragment4(mut self, offset: u16, more: bool) -> Self {
        self.fragment = (offset / 8) | if more { 0x2000 } else { 0 };
        self
    }

    /// Time to live, hop limit.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// What the packet carries, from the transport header on.
    #[must_use]
    pub fn payload(mut self, protocol: u8, payload: impl Into<Vec<u8>>) -> Self {
        self.protocol = protocol;
        self.payload = payload.into();
        self
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        // Locally administered addresses.
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (ethertype, id) in &self.vlans {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        let mut payload = self.payload.clone();
        if self.fragment & 0x1fff == 0 {
            fill_checksum(self.protocol, &mut payload, self.src, self.dst);
        }
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend(0x0800u16.to_be_bytes());
                let header = 20 + self.options.len();
                let mut ip = vec![0x40 | (header / 4) as u8, 0];
                ip.extend(((header + payload.len()) as u16).to_be_bytes());
                ip.extend([0, 1]);
                ip.extend(self.fragment.to_be_bytes());
                ip.extend([self.hops, self.protocol, 0, 0]);
                ip.extend(src.octets());
                ip.extend(dst.octets());
                ip.extend(&self.options);
                let sum = checksum(&[&ip]);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(ip);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend(0x86ddu16.to_be_bytes());
                let mut chain = Vec::new();
                for (index, (_, rest)) in self.extensions.iter().enumerate() {
                    let next = self.extensions.get(index + 1).map_or(self.protocol, |next| next.0);
                    chain.push(next);
                    chain.extend(rest);
                }
                let first = self.extensions.first().map_or(self.protocol, |first| first.0);
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
                frame.extend([first, self.hops]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                frame.extend(chain);
            }
            _ => panic!("addresses of two families"),
        }
        frame.extend(payload);
        frame
    }
}

/// A TCP header, SYN, without a checksum yet.
pub fn tcp(sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = Vec::from(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// A UDP header and its payload, without a checksum yet.
pub fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// An SCTP common header.
pub fn sctp(sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = Vec::from(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// ICMP or ICMPv6 of eight bytes, without a checksum yet.
pub fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 0, 0, 1]
}

/// An ARP request for an IPv4 address.
pub fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 2, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 2, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 2]);
    frame
}

/// A frame of any ethertype.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The Internet checksum (RFC 1071).
fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn fill_checksum(protocol: u8, payload: &mut [u8], src: IpAddr, dst: IpAddr) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    let octets = |addr: IpAddr| match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let mut pseudo = Vec::new();
    if protocol != ICMP {
        pseudo.extend(octets(src));
        pseudo.extend(octets(dst));
        pseudo.extend((payload.len() as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
    }
    let sum = match checksum(&[&pseudo, payload]) {
        0 => 0xffff,
        sum => sum,
    };
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn another_parser_agrees() {
        let frame =
            Frame::v4("192.0.2.1", "198.51.100.2").vlan(7).payload(TCP, tcp(40_000, 443)).build();
        let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &parsed.net else { panic!() };
        assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
        let Some(TransportSlice::Tcp(tcp)) = &parsed.transport else { panic!() };
        assert_eq!(
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap(),
            tcp.checksum()
        );
        let hop_by_hop = [0, 1, 4, 0, 0, 0, 0];
        let frame = Frame::v6("2001:db8::1", "2001:db8::2")
            .extension(0, &hop_by_hop)
            .payload(UDP, udp(53, 53, b"hello"))
            .build();
        let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &parsed.net else { panic!() };
        let Some(TransportSlice::Udp(udp)) = &parsed.transport else { panic!() };
        assert_eq!(
            udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()).unwrap(),
            udp.checksum()
        );
    }
}
