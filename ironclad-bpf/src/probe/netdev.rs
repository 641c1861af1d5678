//! Whether the kernel answers questions about interfaces' XDP: the generic netlink family `netdev`,
//! since Linux 6.3. libbpf queries it, but reports "no such family" and "no features" alike.
use std::io;

use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// The family that lists the families, and its query for one by name.
const CONTROL_FAMILY: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;

/// Whether the kernel has the family.
pub(super) fn is_known() -> io::Result<bool> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(GENERIC))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    sendto(&socket, &question("netdev"), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0u8; 4096];
    let (len, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    read(&answer[..len])
}

/// A message header, a generic header and one attribute.
fn question(family: &str) -> Vec<u8> {
    let mut attribute = ((4 + family.len() + 1) as u16).to_ne_bytes().to_vec();
    attribute.extend(FAMILY_NAME.to_ne_bytes());
    attribute.extend(family.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let mut message = ((16 + 4 + attribute.len()) as u32).to_ne_bytes().to_vec();
    message.extend(CONTROL_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend([GET_FAMILY, 1, 0, 0]);
    message.extend(attribute);
    message
}

fn read(answer: &[u8]) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a cut netlink answer");
    let kind = answer.get(4..6).and_then(|it| it.try_into().ok()).ok_or_else(short)?;
    match u16::from_ne_bytes(kind) {
        CONTROL_FAMILY => Ok(true),
        NLMSG_ERROR => {
            let error = answer.get(16..20).and_then(|it| it.try_into().ok()).ok_or_else(short)?;
            match -i32::from_ne_bytes(error) {
                libc::ENOENT => Ok(false),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an unexpected netlink answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_whole() {
        let message = question("netdev");
        assert_eq!(message.len(), 32);
        assert_eq!(message[..4], 32u32.to_ne_bytes());
        assert_eq!(message[20..24], [11, 0, 2, 0]);
        assert_eq!(&message[24..], b"netdev\0\0");
    }

    #[test]
    fn answers_are_read() {
        let mut error = vec![0; 36];
        error[4..6].copy_from_slice(&NLMSG_ERROR.to_ne_bytes());
        error[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert!(!read(&error).unwrap());
        error[16..20].copy_from_slice(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&error).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(read(&error[..18]).is_err());
        assert!(read(&[]).is_err());
        error[4..6].copy_from_slice(&CONTROL_FAMILY.to_ne_bytes());
        assert!(read(&error).unwrap());
    }
}
