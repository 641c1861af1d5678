//! Questions to the kernel by netlink, and its answers.
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

const NLM_F_REQUEST: u16 = 1;
/// All objects, each in a message of its own.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// More than the kernel sends in one datagram.
const LONGEST: usize = 64 << 10;

/// A message without its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// Sends one message, and returns what answers it: of a dump, all messages; otherwise the first.
pub(crate) fn ask(
    protocol: Option<Protocol>,
    kind: u16,
    flags: u16,
    body: &[u8],
) -> io::Result<Vec<Message>> {
    let socket = to_the_kernel(protocol)?;
    send(&socket, &question(kind, flags, body), SendFlags::empty())?;
    let (mut answers, mut buffer) = (Vec::new(), vec![0u8; LONGEST]);
    loop {
        let (_, len) = recv(&socket, &mut *buffer, RecvFlags::TRUNC)?;
        let datagram = buffer.get(..len).ok_or_else(cut)?;
        let is_done = read(datagram, &mut answers)?;
        if is_done || flags & NLM_F_DUMP == 0 {
            return Ok(answers);
        }
    }
}

/// A socket that is connected to the kernel, which refuses messages of other senders to it
/// (`netlink_getsockbyportid`).
fn to_the_kernel(protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

fn question(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(body);
    message
}

/// The messages of a datagram; whether the last of a dump is among them.
pub(crate) fn read(mut datagram: &[u8], messages: &mut Vec<Message>) -> io::Result<bool> {
    while !datagram.is_empty() {
        let len = number(datagram, 0).ok_or_else(cut)? as usize;
        let kind = datagram.get(4..6).and_then(|it| it.try_into().ok()).ok_or_else(cut)?;
        let body = datagram.get(HEADER..len).ok_or_else(cut)?;
        match u16::from_ne_bytes(kind) {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let error = number(body, 0).ok_or_else(cut)? as i32;
                return Err(io::Error::from_raw_os_error(-error));
            }
            kind => messages.push(Message { kind, body: body.to_vec() }),
        }
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Four bytes, in the machine's order.
pub(crate) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An attribute with its header and padding.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The value of an attribute among others.
pub(crate) fn find_attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// Bits that are not part of the kind: nested, and network byte order.
    const KIND: u16 = 0x3fff;
    loop {
        let len = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..len)?;
        if kind & KIND == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

pub(crate) fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a cut netlink answer")
}

#[cfg(test)]
mod tests {
    use rustix::net::{bind, getsockname, sendto};

    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = question(kind, 0, body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn questions_are_whole() {
        let message = question(16, 0, &attribute(2, b"netdev\0"));
        assert_eq!(message.len(), 28);
        assert_eq!(message[..8], [28, 0, 0, 0, 16, 0, 1, 0]);
        assert_eq!(message[16..20], [11, 0, 2, 0]);
        assert_eq!(&message[20..], b"netdev\0\0");
    }

    #[test]
    fn answers_are_read() {
        let mut found = Vec::new();
        let two = [message(16, b"abc"), message(17, b"")].concat();
        assert!(!read(&two, &mut found).unwrap());
        assert_eq!(found[0], Message { kind: 16, body: b"abc".to_vec() });
        assert_eq!((found.len(), found[1].kind), (2, 17));
        assert!(read(&message(NLMSG_DONE, &[0; 4]), &mut found).unwrap());
        let refused = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&refused, &mut found).unwrap_err().raw_os_error(), Some(libc::EPERM));
        for cut in [&two[..3], &two[..17], &refused[..16]] {
            assert!(read(cut, &mut found).is_err(), "{cut:?}");
        }
        // A length that does not advance.
        assert!(read(&[0; 16], &mut found).is_err());
    }

    #[test]
    fn only_the_kernel_answers() {
        // Unprivileged processes can send to each other here.
        let protocol = Some(rustix::net::netlink::USERSOCK);
        let sent = |to: &OwnedFd| {
            let from = to_the_kernel(protocol).unwrap();
            let to: SocketAddrNetlink = getsockname(to).unwrap().try_into().unwrap();
            sendto(&from, &question(16, 0, b"forged"), SendFlags::empty(), &to)
        };
        let flags = SocketFlags::CLOEXEC;
        let open = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).unwrap();
        bind(&open, &SocketAddrNetlink::new(0, 0)).unwrap();
        sent(&open).unwrap();
        let asking = to_the_kernel(protocol).unwrap();
        assert_eq!(sent(&asking).unwrap_err(), rustix::io::Errno::CONNREFUSED);
    }

    #[test]
    fn attributes_are_found() {
        let all = [attribute(1, b"x"), attribute(0x8002, b"yz"), attribute(3, b"")].concat();
        assert_eq!(find_attribute(&all, 1), Some(&b"x"[..]));
        assert_eq!(find_attribute(&all, 2), Some(&b"yz"[..]));
        assert_eq!(find_attribute(&all, 3), Some(&b""[..]));
        assert_eq!(find_attribute(&all, 4), None);
        assert_eq!(find_attribute(&[0; 8], 1), None);
        assert_eq!(find_attribute(&all[..4], 1), None);
    }
}
