//! Whether the kernel answers questions about interfaces' XDP: the generic netlink family `netdev`,
//! since Linux 6.3. libbpf queries it, but reports "no such family" and "no features" alike.
use std::io;

use rustix::net::netlink::GENERIC;

use crate::netlink;

/// The family that lists the families, and its query for one by name.
const CONTROL_FAMILY: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;

/// Whether the kernel has the family.
pub(super) fn is_known() -> io::Result<bool> {
    let mut query = vec![GET_FAMILY, 1, 0, 0];
    query.extend(netlink::attribute(FAMILY_NAME, b"netdev\0"));
    match netlink::ask(Some(GENERIC), CONTROL_FAMILY, 0, &query) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
