//! What rtnetlink says of the interfaces of the calling thread's network namespace.
use std::io;

use crate::netlink::{self, Message, find_attribute};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Bytes of a `struct ifinfomsg`.
const INFO: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_PI: u16 = 4;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// `ARPHRD_…`.
    pub(crate) device_type: u16,
    /// The driver's name for it, as in `ip link add type`; none of most hardware.
    pub(crate) kind: Option<String>,
    /// Of kind `tun`: `IFF_TUN` or `IFF_TAP`.
    pub(crate) tun: Option<u8>,
    /// Of kind `tun`: each packet comes with the protocol that its sender names (no `IFF_NO_PI`).
    pub(crate) names_protocol: bool,
}

/// One interface, by its number.
pub(crate) fn link(index: u32) -> io::Result<Link> {
    let mut query = [0; INFO];
    query[4..8].copy_from_slice(&index.to_ne_bytes());
    let answer = netlink::ask(None, RTM_GETLINK, 0, &query)?;
    answer.iter().find_map(read).ok_or_else(netlink::cut)
}

/// Numbers and names of all interfaces.
pub(crate) fn names() -> io::Result<Vec<(u32, String)>> {
    let answers = netlink::ask(None, RTM_GETLINK, netlink::NLM_F_DUMP, &[0; INFO])?;
    answers.iter().map(|answer| name(answer).ok_or_else(netlink::cut)).collect()
}

fn name(message: &Message) -> Option<(u32, String)> {
    let index = netlink::number(&message.body, 4)?;
    Some((index, text(find_attribute(message.body.get(INFO..)?, IFLA_IFNAME)?)))
}

fn read(message: &Message) -> Option<Link> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let device_type = u16::from_ne_bytes(message.body.get(2..4)?.try_into().ok()?);
    let info = find_attribute(message.body.get(INFO..)?, IFLA_LINKINFO).unwrap_or_default();
    let kind = find_attribute(info, IFLA_INFO_KIND).map(text);
    let data = find_attribute(info, IFLA_INFO_DATA).filter(|_| kind.as_deref() == Some("tun"));
    let byte = |kind| data.and_then(|data| find_attribute(data, kind)?.first().copied());
    let names_protocol = byte(IFLA_TUN_PI) == Some(1);
    Some(Link { device_type, kind, tun: byte(IFLA_TUN_TYPE), names_protocol })
}

/// Without the NUL byte at its end.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    #[test]
    fn links_are_read() {
        let tun = [attribute(IFLA_TUN_TYPE, &[1]), attribute(IFLA_TUN_PI, &[1])].concat();
        for (kind, expected) in [("tun", Some(1)), ("other", None)] {
            let named = attribute(IFLA_INFO_KIND, format!("{kind}\0").as_bytes());
            let info = [named, attribute(IFLA_INFO_DATA, &tun)].concat();
            let mut body = vec![0; INFO];
            body[2..4].copy_from_slice(&65_534u16.to_ne_bytes());
            body.extend(attribute(IFLA_LINKINFO, &info));
            let link = Link {
                device_type: 65_534,
                kind: Some(kind.to_owned()),
                tun: expected,
                names_protocol: expected.is_some(),
            };
            assert_eq!(read(&Message { kind: RTM_NEWLINK, body: body.clone() }), Some(link));
            assert_eq!(read(&Message { kind: RTM_NEWLINK + 1, body }), None);
        }
        let bare = Message { kind: RTM_NEWLINK, body: vec![0; INFO] };
        assert_eq!(read(&bare), Some(Link::default()));
        assert_eq!(read(&Message { kind: RTM_NEWLINK, body: vec![0; INFO - 1] }), None);
    }

    #[test]
    fn the_loopback_interface_has_its_type_and_no_kind() {
        let lo = link(1).unwrap();
        assert_eq!((lo.device_type, lo.kind, lo.tun), (772, None, None));
        assert!(names().unwrap().contains(&(1, "lo".to_owned())));
        assert_eq!(link(u32::MAX >> 1).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
