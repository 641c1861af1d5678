use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ironclad_core::abi::{Process, SocketOp};
use ironclad_core::{Protocol, SocketProtocol};

/// Which cgroups a process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// Their ids by depth, that of the root first.
    Known(Vec<u64>),
    /// They are not known any more: rules that compare them stay open.
    Unknown,
}

/// A process, as the hooks see it. What is none matches no rule that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessContext {
    /// Its record in the table of processes; none of an unidentified process.
    pub process: Option<Process>,
    /// Real user.
    pub uid: Option<u32>,
    /// Real group.
    pub gid: Option<u32>,
    /// Cgroups.
    pub cgroups: Cgroups,
    /// The name of the thread, without a NUL.
    pub comm: Vec<u8>,
}

impl ProcessContext {
    /// A process of which nothing is known, in no cgroup that a rule could name.
    pub fn unidentified() -> Self {
        let cgroups = Cgroups::Known(Vec::new());
        Self { process: None, uid: None, gid: None, cgroups, comm: Vec::new() }
    }
}

/// A system call on a socket, to explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketQuery {
    /// The operation.
    pub op: SocketOp,
    /// The protocol, or the kind of socket.
    pub protocol: SocketProtocol,
    /// The other's address and port, or one's own of bind(2). Of socket(2) it says nothing.
    pub addr: Option<SocketAddr>,
    /// The process that calls.
    pub process_context: ProcessContext,
}

impl SocketQuery {
    /// connect(2) by an unidentified process.
    pub fn connect(protocol: impl Into<SocketProtocol>, addr: SocketAddr) -> Self {
        Self::new(SocketOp::Connect, protocol.into(), Some(addr))
    }

    /// A datagram from a socket that is not connected, sent by an unidentified process.
    pub fn send(addr: SocketAddr) -> Self {
        Self::new(SocketOp::Send, Protocol::UDP.into(), Some(addr))
    }

    /// bind(2) by an unidentified process.
    pub fn bind(protocol: impl Into<SocketProtocol>, addr: SocketAddr) -> Self {
        Self::new(SocketOp::Bind, protocol.into(), Some(addr))
    }

    /// socket(2) by an unidentified process.
    pub fn create(protocol: impl Into<SocketProtocol>) -> Self {
        Self::new(SocketOp::Create, protocol.into(), None)
    }

    fn new(op: SocketOp, protocol: SocketProtocol, addr: Option<SocketAddr>) -> Self {
        Self { op, protocol, addr, process_context: ProcessContext::unidentified() }
    }

    /// Asked by this process.
    #[must_use]
    pub fn by(mut self, process_context: ProcessContext) -> Self {
        self.process_context = process_context;
        self
    }
}

/// The address that the kernel will use, and whether it was written as IPv4-mapped IPv6.
pub(crate) fn effective_address(
    op: SocketOp,
    addr: Option<SocketAddr>,
) -> (Option<SocketAddr>, bool) {
    let Some(addr) = addr.filter(|_| op != SocketOp::Create) else {
        return (None, false);
    };
    let (ip, mapped) = match addr.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => (IpAddr::V4(v4), true),
            None => (addr.ip(), false),
        },
        v4 => (v4, false),
    };
    let ip = match ip {
        _ if op == SocketOp::Bind => ip,
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    (Some(SocketAddr::new(ip, addr.port())), mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_one_that_the_kernel_will_use() {
        let effective = |op, addr: &str| {
            let (addr, mapped) = effective_address(op, Some(addr.parse().unwrap()));
            (addr.map(|addr| addr.to_string()).unwrap_or_default(), mapped)
        };
        for (op, addr, expected, mapped) in [
            (SocketOp::Connect, "192.0.2.1:80", "192.0.2.1:80", false),
            (SocketOp::Connect, "[::ffff:192.0.2.1]:80", "192.0.2.1:80", true),
            (SocketOp::Bind, "[::ffff:192.0.2.1]:80", "192.0.2.1:80", true),
            (SocketOp::Connect, "0.0.0.0:80", "127.0.0.1:80", false),
            (SocketOp::Send, "[::]:80", "[::1]:80", false),
            (SocketOp::Connect, "[::ffff:0.0.0.0]:80", "127.0.0.1:80", true),
            (SocketOp::Bind, "0.0.0.0:80", "0.0.0.0:80", false),
            (SocketOp::Bind, "[::]:80", "[::]:80", false),
            // Compatible is not mapped.
            (SocketOp::Connect, "[::192.0.2.1]:80", "[::c000:201]:80", false),
            (SocketOp::Create, "192.0.2.1:80", "", false),
        ] {
            assert_eq!(effective(op, addr), (expected.to_owned(), mapped), "{op} {addr}");
        }
    }
}
