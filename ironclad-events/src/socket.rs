use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ironclad_core::abi::{self, EventHeader, FileId, SocketOp, SocketReason};
use ironclad_core::{SocketProtocol, SocketVerdict};
use serde::Serialize;
use zerocopy::FromBytes;

use crate::decode::DecodeError;

/// A decision on a system call on a socket. Checked: every accessor has an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEvent<'a> {
    raw: &'a abi::SockEvent,
    verdict: SocketVerdict,
    op: SocketOp,
    reason: SocketReason,
}

impl<'a> SocketEvent<'a> {
    pub(crate) fn decode(bytes: &'a [u8], head: &EventHeader) -> Result<Self, DecodeError> {
        let needed = size_of::<abi::SockEvent>();
        let field = |field, value: u8| DecodeError::Field { field, value: u64::from(value) };
        if usize::from(head.len) != needed {
            return Err(DecodeError::Field { field: "len", value: u64::from(head.len) });
        }
        let found = bytes.len();
        let bytes = bytes.get(..needed).ok_or(DecodeError::Short { needed, found })?;
        let raw = abi::SockEvent::ref_from_bytes(bytes).map_err(|_| DecodeError::Unaligned)?;
        let verdict = SocketVerdict::from_abi(raw.verdict).ok_or(field("verdict", raw.verdict))?;
        let reason = SocketReason::from_abi(raw.reason).ok_or(field("reason", raw.reason))?;
        let op = SocketOp::from_abi(raw.op).ok_or(field("op", raw.op))?;
        if !matches!(raw.family, 0 | abi::TUPLE_V4 | abi::TUPLE_V6) {
            return Err(field("family", raw.family));
        }
        Ok(Self { raw, verdict, op, reason })
    }

    /// The event as the kernel wrote it.
    pub fn raw(&self) -> &'a abi::SockEvent {
        self.raw
    }

    /// What it was answered; of a dry run, what it would have been.
    pub fn verdict(&self) -> SocketVerdict {
        self.verdict
    }

    /// The system call.
    pub fn op(&self) -> SocketOp {
        self.op
    }

    /// Why it was answered so.
    pub fn reason(&self) -> SocketReason {
        self.reason
    }

    /// The other's address and port, or one's own of bind(2); none of socket(2).
    pub fn addr(&self) -> Option<SocketAddr> {
        let bytes = self.raw.addr;
        let ip = match self.raw.family {
            abi::TUPLE_V4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
            abi::TUPLE_V6 => IpAddr::from(bytes),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.raw.port)))
    }

    /// The rule's place in its policy, from 0; none where no rule decided.
    pub fn rule(&self) -> Option<usize> {
        (self.raw.rule as usize).checked_sub(1)
    }

    /// The name that the thread gives itself: any bytes but NUL.
    pub fn comm(&self) -> &'a [u8] {
        let comm = &self.raw.comm;
        &comm[..comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len())]
    }

    fn is(&self, flag: u8) -> bool {
        self.raw.flags & flag != 0
    }
}

/// A decision on a system call on a socket, owned: for channels, logs and exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SocketRecord {
    /// `CLOCK_BOOTTIME`, nanoseconds.
    pub time_ns: u64,
    /// The policy's generation.
    pub generation: u64,
    /// The system call.
    pub op: SocketOp,
    /// What it was answered; of a dry run, what it would have been.
    pub verdict: SocketVerdict,
    /// Why.
    pub reason: SocketReason,
    /// The rule's place in its policy, from 0: `Shield::describe` names it.
    pub rule: Option<usize>,
    /// The other's address and port, or one's own of bind(2).
    pub addr: Option<SocketAddr>,
    /// The protocol, or the kind of socket.
    pub protocol: SocketProtocol,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The process that forked it.
    pub ppid: u32,
    /// Real user; [`abi::SOCK_KERNEL`] of a thread of the kernel's. Of packets by a source route
    /// ([`SocketReason::Route`]) the socket's owner, as its network namespace numbers users.
    pub uid: u32,
    /// Real group; likewise.
    pub gid: u32,
    /// Id of its cgroup: the inode number of its directory.
    pub cgroup: u64,
    /// What it executes.
    pub exe: FileId,
    /// What the process executed that forked it.
    pub parent: FileId,
    /// When it executed that, `CLOCK_BOOTTIME`; 0 where that was before Shield.
    pub exec_ns: u64,
    /// What it descends from, as bits of [`abi::Process::ancestry`].
    pub ancestry: u64,
    /// The name that the thread gives itself, as far as it is text.
    pub comm: String,
    /// Nothing was denied in truth.
    pub dry_run: bool,
    /// A rule reports that decides nothing.
    pub log: bool,
    /// The process was not in the table of processes: a kernel thread, or a loss. Also of source
    /// routes ([`SocketReason::Route`]), of which the user and the cgroup alone are known.
    pub unidentified: bool,
}

impl From<&SocketEvent<'_>> for SocketRecord {
    fn from(event: &SocketEvent<'_>) -> Self {
        let raw = event.raw;
        Self {
            time_ns: raw.hdr.time_ns,
            generation: raw.generation,
            op: event.op,
            verdict: event.verdict,
            reason: event.reason,
            rule: event.rule(),
            addr: event.addr(),
            protocol: SocketProtocol::from_abi(raw.proto),
            pid: raw.pid,
            tid: raw.tid,
            ppid: raw.ppid,
            uid: raw.uid,
            gid: raw.gid,
            cgroup: raw.cgroup,
            exe: raw.exe,
            parent: raw.parent,
            exec_ns: raw.exec_ns,
            ancestry: raw.ancestry,
            comm: String::from_utf8_lossy(event.comm()).into_owned(),
            dry_run: event.is(abi::SOCK_EV_DRY_RUN),
            log: event.is(abi::SOCK_EV_LOG),
            unidentified: event.is(abi::SOCK_EV_UNIDENTIFIED),
        }
    }
}

/// One line: `deny connect 192.0.2.1:443 tcp by 4711 "curl" uid 1000 (rule #3)`.
impl fmt::Display for SocketRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match (self.verdict, self.log) {
            (_, true) => "log",
            (SocketVerdict::Deny, _) if self.dry_run => "would deny",
            (SocketVerdict::Deny, _) => "deny",
            _ => "allow",
        };
        if self.reason == SocketReason::Route {
            // A packet that leaves later does not belong to the process that runs then.
            let Self { uid, protocol, .. } = self;
            return match self.addr.map(|addr| addr.ip()) {
                Some(to) => {
                    write!(f, "{verdict} source route to {to} {protocol} of uid {uid}")
                }
                None => write!(f, "{verdict} source route of a socket of uid {uid}"),
            };
        }
        write!(f, "{verdict} {}", self.op)?;
        if let Some(addr) = self.addr {
            write!(f, " {addr}")?;
        }
        let Self { pid, comm, uid, protocol, .. } = self;
        write!(f, " {protocol} by {pid} \"{}\" uid {uid}", comm.escape_debug())?;
        match (self.rule, self.reason) {
            (Some(rule), SocketReason::Limit) => write!(f, " (limit of rule #{})", rule + 1),
            (Some(rule), _) => write!(f, " (rule #{})", rule + 1),
            (None, _) => f.write_str(" (default)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Event, decode};
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn event() -> abi::SockEvent {
        let mut event = abi::SockEvent::default();
        event.hdr.kind = abi::EV_SOCKET;
        event.hdr.len = size_of::<abi::SockEvent>() as u16;
        event.family = abi::TUPLE_V4;
        event.addr[..4].copy_from_slice(&[192, 0, 2, 1]);
        event.port = 443u16.to_be_bytes();
        event.proto = 6;
        event.pid = 4711;
        event.uid = 1000;
        event.rule = 3;
        event.verdict = abi::VERDICT_DROP;
        event.reason = SocketReason::Rule as u8;
        event.comm[..6].copy_from_slice(b"cu\nrl\0");
        event
    }

    #[test]
    fn fields_are_read_in_their_byte_order() {
        let event = event();
        let Ok(Event::Socket(socket)) = decode(event.as_bytes()) else { panic!() };
        assert_eq!(socket.addr(), Some("192.0.2.1:443".parse().unwrap()));
        assert_eq!((socket.op(), socket.rule()), (SocketOp::Connect, Some(2)));
        assert!(std::ptr::eq(socket.raw(), &event), "borrowed, not copied");
        let line = SocketRecord::from(&socket).to_string();
        let expected = r#"deny connect 192.0.2.1:443 tcp by 4711 "cu\nrl" uid 1000 (rule #3)"#;
        assert_eq!(line, expected);
    }

    #[test]
    fn a_source_routed_packet_has_no_process() {
        let mut event = event();
        (event.reason, event.rule) = (SocketReason::Route as u8, 0);
        let Ok(Event::Socket(socket)) = decode(event.as_bytes()) else { panic!() };
        let line = SocketRecord::from(&socket).to_string();
        assert_eq!(line, "deny source route to 192.0.2.1 tcp of uid 1000");
    }

    #[test]
    fn what_no_program_writes_is_refused() {
        let refused = |change: fn(&mut abi::SockEvent)| {
            let mut event = event();
            change(&mut event);
            decode(event.as_bytes()).unwrap_err()
        };
        let field = |field, value| DecodeError::Field { field, value };
        assert_eq!(refused(|e| e.hdr.len = 143), field("len", 143));
        assert_eq!(refused(|e| e.verdict = 2), field("verdict", 2));
        assert_eq!(refused(|e| e.reason = 4), field("reason", 4));
        assert_eq!(refused(|e| e.op = 4), field("op", 4));
        assert_eq!(refused(|e| e.family = 5), field("family", 5));
        let event = event();
        for length in 0..event.as_bytes().len() {
            let short = decode(&event.as_bytes()[..length]);
            assert!(matches!(short, Err(DecodeError::Short { .. })), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::array::uniform32(any::<u32>()), more in any::<[u32; 4]>()) {
            let mut words = [&bytes[..], &more[..]].concat();
            words[0] = u32::from(abi::EV_SOCKET) | 144 << 16;
            let mut aligned = [0u64; 18];
            aligned.as_mut_bytes().copy_from_slice(words.as_bytes());
            if let Ok(Event::Socket(event)) = decode(aligned.as_bytes()) {
                let line = SocketRecord::from(&event).to_string();
                prop_assert!(!line.contains(char::is_control), "{line:?}");
            }
        }
    }
}
