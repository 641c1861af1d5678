//! What the frames of an interface begin with, which XDP programs have to know.
//!
//! Generic XDP shows a program `skb_mac_header()` and what follows. Drivers differ in where they let
//! that point to, also drivers of one device type: the kind decides, and one that is not listed here is
//! refused.
use std::fmt;

use serde::Serialize;

use crate::error::{BpfError, Failure};
use crate::interface::Interface;
use crate::rtnetlink::{self, Link};

/// What the frames of an interface begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// The IPv4 or IPv6 header: TUN devices, WireGuard, ppp, ipip, sit, ip6tnl.
    Ip,
}

impl LinkLayer {
    /// `ethernet` or `ip`.
    pub const fn name(self) -> &'static str {
        match self {
            LinkLayer::Ethernet => "ethernet",
            LinkLayer::Ip => "ip",
        }
    }
}

impl fmt::Display for LinkLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Interface {
    /// What its frames begin with. The calling thread has to be in its network namespace.
    ///
    /// # Errors
    /// `BpfErrorKind::LinkLayer` with the device's type and kind where this crate does not know it;
    /// `BpfErrorKind::System` where the kernel does not answer.
    pub fn link_layer(&self) -> Result<LinkLayer, BpfError> {
        let link = self.query()?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        link_layer(&link, version(&release)).map_err(|why| {
            let (interface, device) = (self.name.clone(), describe(&link));
            Failure::LinkLayer { interface, device, why }.into()
        })
    }

    /// Whether it is one end of a veth pair.
    pub(crate) fn is_veth(&self) -> Result<bool, BpfError> {
        Ok(self.query()?.kind.as_deref() == Some("veth"))
    }

    fn query(&self) -> Result<Link, BpfError> {
        rtnetlink::link(self.index).map_err(|source| {
            BpfError::system(format!("querying the type of interface `{}`", self.name), source)
        })
    }
}

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_PPP: u16 = 512;
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_TUNNEL6: u16 = 769;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_SIT: u16 = 776;
const ARPHRD_NONE: u16 = 65_534;
const IFF_TUN: u8 = 1;
const IFF_TAP: u8 = 2;

/// What the frames begin with, or why that is not known.
fn link_layer(link: &Link, kernel: (u32, u32)) -> Result<LinkLayer, &'static str> {
    match (link.kind.as_deref(), link.device_type, link.tun) {
        (Some("tun"), _, Some(IFF_TUN)) if link.names_protocol => {
            Err("the sender says what its packets begin with: create it with IFF_NO_PI")
        }
        // Their type is what their owner says (TUNSETLINK).
        (Some("tun"), _, Some(IFF_TUN)) => Ok(LinkLayer::Ip),
        (Some("tun"), _, Some(IFF_TAP)) => Ok(LinkLayer::Ethernet),
        (Some("tun"), ..) => Err("the kernel does not say whether it is TUN or TAP"),
        // The kernel gives them packets behind the place of XDP programs.
        (Some("vrf"), ..) => {
            Err("its packets pass no XDP program: protect the interfaces of the VRF")
        }
        (Some("ipvlan" | "ipvtap"), ..) => {
            Err("in mode l3s its packets pass no XDP program: protect the interface below")
        }
        (Some("macvtap" | "ifb"), ..) => Err("its packets pass no XDP program"),
        (Some("netkit"), ..) => Err("whether all of its packets pass XDP programs was not tested"),
        (_, ARPHRD_ETHER | ARPHRD_LOOPBACK, _) => Ok(LinkLayer::Ethernet),
        (Some("wireguard"), ARPHRD_NONE, _) | (Some("ppp"), ARPHRD_PPP, _) => Ok(LinkLayer::Ip),
        (Some("ipip"), ARPHRD_TUNNEL, _)
        | (Some("ip6tnl"), ARPHRD_TUNNEL6, _)
        | (Some("sit"), ARPHRD_SIT, _) => match kernel >= (5, 14) {
            true => Ok(LinkLayer::Ip),
            false => Err("before Linux 5.14 its frames begin with headers of the outer packet"),
        },
        // GRE's sender names any protocol, such as a VLAN tag that reads as an IP header, and without a
        // fixed peer its frames begin with the outer packet.
        (Some("gre" | "ip6gre"), ..) => {
            Err("the sender says what its frames begin with (`gretap` has an Ethernet header)")
        }
        // Their mac header is a copy of what the outer packet had.
        (Some("xfrm" | "vti" | "vti6"), ..) => {
            Err("its frames begin with what the encrypted packet began with")
        }
        _ => Err("what its frames begin with is not known"),
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let mut next = || numbers.next().flatten().unwrap_or(0);
    (next(), next())
}

/// The device's type and kind.
fn describe(link: &Link) -> String {
    let number = link.device_type;
    let name = match number {
        32 => "InfiniBand",
        ARPHRD_PPP => "PPP",
        519 => "raw IP",
        ARPHRD_TUNNEL => "IP in IP",
        ARPHRD_TUNNEL6 => "IP in IPv6",
        ARPHRD_SIT => "IPv6 in IPv4",
        778 => "GRE over IPv4",
        801..=803 => "IEEE 802.11",
        823 => "GRE over IPv6",
        824 => "netlink monitor",
        825 => "6LoWPAN",
        ARPHRD_NONE => "no link layer",
        _ => "unknown",
    };
    match &link.kind {
        Some(kind) => format!("kind `{kind}`, device type {number} ({name})"),
        None => format!("device type {number} ({name})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: (u32, u32) = (5, 14);
    const OLD: (u32, u32) = (5, 13);

    fn of(kind: &str, device_type: u16, kernel: (u32, u32)) -> Option<LinkLayer> {
        let kind = (!kind.is_empty()).then(|| kind.to_owned());
        link_layer(&Link { device_type, kind, ..Link::default() }, kernel).ok()
    }

    #[test]
    fn kinds_decide_and_unknown_ones_are_refused() {
        use LinkLayer::{Ethernet, Ip};
        for (kind, device_type, old, new) in [
            ("", ARPHRD_ETHER, Some(Ethernet), Some(Ethernet)),
            ("", ARPHRD_LOOPBACK, Some(Ethernet), Some(Ethernet)),
            ("veth", ARPHRD_ETHER, Some(Ethernet), Some(Ethernet)),
            ("gretap", ARPHRD_ETHER, Some(Ethernet), Some(Ethernet)),
            ("macvlan", ARPHRD_ETHER, Some(Ethernet), Some(Ethernet)),
            ("vrf", ARPHRD_ETHER, None, None),
            ("ipvlan", ARPHRD_ETHER, None, None),
            ("ipvtap", ARPHRD_ETHER, None, None),
            ("macvtap", ARPHRD_ETHER, None, None),
            ("ifb", ARPHRD_ETHER, None, None),
            ("netkit", ARPHRD_ETHER, None, None),
            ("vxlan", ARPHRD_ETHER, Some(Ethernet), Some(Ethernet)),
            ("wireguard", ARPHRD_NONE, Some(Ip), Some(Ip)),
            ("ppp", ARPHRD_PPP, Some(Ip), Some(Ip)),
            ("ipip", ARPHRD_TUNNEL, None, Some(Ip)),
            ("ip6tnl", ARPHRD_TUNNEL6, None, Some(Ip)),
            ("sit", ARPHRD_SIT, None, Some(Ip)),
            // Types that another kind shares with a known one.
            ("vti", ARPHRD_TUNNEL, None, None),
            ("vti6", ARPHRD_TUNNEL6, None, None),
            ("xfrm", ARPHRD_NONE, None, None),
            ("vxlan", ARPHRD_NONE, None, None),
            ("bareudp", ARPHRD_NONE, None, None),
            ("", ARPHRD_NONE, None, None),
            ("", ARPHRD_PPP, None, None),
            ("gre", 778, None, None),
            ("ip6gre", 823, None, None),
            ("", 519, None, None),
            ("", 32, None, None),
            ("nlmon", 824, None, None),
        ] {
            assert_eq!(of(kind, device_type, OLD), old, "{kind} {device_type} before 5.14");
            assert_eq!(of(kind, device_type, NEW), new, "{kind} {device_type}");
        }
    }

    #[test]
    fn the_type_of_a_tun_device_is_its_owners_word() {
        for device_type in [ARPHRD_NONE, ARPHRD_ETHER, ARPHRD_PPP] {
            let kind = Some("tun".to_owned());
            let link = |tun| Link { device_type, kind: kind.clone(), tun, names_protocol: false };
            assert_eq!(link_layer(&link(Some(IFF_TUN)), OLD), Ok(LinkLayer::Ip));
            let named = Link { names_protocol: true, ..link(Some(IFF_TUN)) };
            assert!(link_layer(&named, NEW).is_err());
            assert_eq!(link_layer(&link(Some(IFF_TAP)), OLD), Ok(LinkLayer::Ethernet));
            assert!(link_layer(&link(None), NEW).is_err());
        }
    }

    #[test]
    fn releases_are_read() {
        for (release, expected) in
            [("5.10.262", (5, 10)), ("6.18-rc1", (6, 18)), ("7.3.4-x.fc9", (7, 3)), ("x", (0, 0))]
        {
            assert_eq!(version(release), expected, "{release}");
        }
    }
}
