use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use ironclad_syscalls::{Uring, send_to_unspec, set_option, uring_connect, uring_send};
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, setsockopt, sockopt::TcpFastOpenConnect,
};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, connect_unspec, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Domain, SockAddr, Socket};

use super::{MSG_FASTOPEN, allowed, kind};

const HELLO: &[u8] = b"hello";

/// Sends a descriptor over a socket.
pub(super) fn send_file(to: impl AsFd, file: impl AsFd) -> io::Result<()> {
    let fds = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(to, &[IoSlice::new(HELLO)], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives one.
pub(super) fn receive_file<T: From<OwnedFd>>(from: impl AsFd) -> io::Result<T> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; HELLO.len()];
    let parts = &mut [IoSliceMut::new(&mut text)];
    recvmsg(from, parts, &mut control, RecvFlags::empty())?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fd.expect("a descriptor").into())
}

/// Sockets that a test process keeps from one order to the next.
#[derive(Default)]
pub(super) struct Held {
    sockets: BTreeMap<String, Socket>,
    mailbox: Option<UnixDatagram>,
}

impl Held {
    pub(super) fn socket(&self, name: &str) -> &Socket {
        self.sockets.get(name).unwrap_or_else(|| panic!("no socket {name}"))
    }

    pub(super) fn open(&mut self, name: &str, family: &str, protocol: &str) -> io::Result<u64> {
        let (kind, protocol) = kind(protocol);
        let domain = if family == "4" { Domain::IPV4 } else { Domain::IPV6 };
        self.keep(name, Socket::new(domain, kind, Some(protocol))?)
    }

    fn keep(&mut self, name: &str, socket: Socket) -> io::Result<u64> {
        self.sockets.insert(name.to_owned(), socket);
        Ok(0)
    }

    /// Keeps a socket open across execve(2). Answers its number.
    pub(super) fn number(&self, name: &str) -> io::Result<u64> {
        let socket = self.socket(name);
        fcntl_setfd(socket, FdFlags::empty())?;
        Ok(socket.as_raw_fd() as u64)
    }

    /// Takes a copy of a socket that a process has under this number.
    pub(super) fn take(&mut self, name: &str, pid: &str, number: &str) -> io::Result<u64> {
        let pid = match pid {
            "self" => std::process::id() as i32,
            other => other.parse().expect("a process id"),
        };
        let pid = Pid::from_raw(pid).expect("a process id");
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let number = number.parse().expect("a number");
        let fd = pidfd_getfd(process, number, PidfdGetfdFlags::empty())?;
        self.keep(name, fd.into())
    }

    pub(super) fn mailbox(&mut self, path: &str) -> io::Result<u64> {
        self.mailbox = Some(UnixDatagram::bind(path)?);
        Ok(0)
    }

    /// Sends a socket to the process that has the mailbox.
    pub(super) fn post(&self, name: &str, path: &str) -> io::Result<u64> {
        let to = UnixDatagram::unbound()?;
        to.connect(path)?;
        send_file(to, self.socket(name)).map(|()| 0)
    }

    pub(super) fn receive(&mut self, name: &str) -> io::Result<u64> {
        let mailbox = self.mailbox.as_ref().expect("a mailbox");
        let socket = receive_file(mailbox)?;
        self.keep(name, socket)
    }

    /// Runs an order with a socket.
    pub(super) fn with(&self, name: &str, order: &[&str]) -> io::Result<u64> {
        let socket = self.socket(name);
        let addr = |text: &str| text.parse::<SocketAddr>().expect("an address");
        match *order {
            ["connect", to] => {
                socket.set_nonblocking(true)?;
                allowed(socket.connect(&addr(to).into()))
            }
            ["connect-and-wait", to] => socket.connect(&addr(to).into()).map(|()| 0),
            ["fastopen", to] => {
                let to = SockAddr::from(addr(to));
                allowed(socket.send_to_with_flags(HELLO, &to, MSG_FASTOPEN))
            }
            // The kernel connects at the first send.
            ["fastopen-connect", to] => {
                setsockopt(socket, TcpFastOpenConnect, &true)?;
                allowed(socket.connect(&addr(to).into()))?;
                allowed(socket.send(HELLO))
            }
            ["uring-connect", by, to] => allowed(uring_connect(socket.as_fd(), addr(to), how(by))),
            ["uring-send", by, to] => {
                uring_send(socket.as_fd(), addr(to), HELLO, how(by)).map(|_| 0)
            }
            ["disconnect"] => Ok(connect_unspec(socket).map(|()| 0)?),
            ["write"] => socket.send(HELLO).map(|_| 0),
            ["send", to] => socket.send_to(HELLO, &addr(to).into()).map(|_| 0),
            ["send-bytes", bytes, to] => socket.send_to(&hex(bytes), &addr(to).into()).map(|_| 0),
            ["send-unspec", to] => send_to_unspec(socket.as_fd(), addr(to), HELLO).map(|_| 0),
            ["sendmsg", to] => {
                let part = socket2::MsgHdr::new();
                let (to, parts) = (addr(to).into(), [IoSlice::new(HELLO)]);
                socket.sendmsg(&part.with_addr(&to).with_buffers(&parts), 0).map(|_| 0)
            }
            ["option", level, name, value] => {
                let number = |word: &str| word.parse().expect("a number");
                set_option(socket.as_fd(), number(level), number(name), &hex(value)).map(|()| 0)
            }
            // The same for one datagram.
            ["send-with", level, name, value, to] => {
                let (to, parts) = (addr(to).into(), [IoSlice::new(HELLO)]);
                let control = control(level, name, &hex(value));
                let message = socket2::MsgHdr::new().with_addr(&to).with_buffers(&parts);
                socket.sendmsg(&message.with_control(&control), 0).map(|_| 0)
            }
            // Answers how many of them were sent.
            ["sendmmsg", ref to @ ..] => {
                let to: Vec<_> =
                    to.iter().map(|to| Some(SockaddrStorage::from(addr(to)))).collect();
                let parts = vec![[IoSlice::new(HELLO)]; to.len()];
                let mut headers = MultiHeaders::preallocate(to.len(), None);
                let fd = socket.as_raw_fd();
                let sent = sendmmsg(fd, &mut headers, &parts, &to, [], MsgFlags::empty())?;
                Ok(sent.count() as u64)
            }
            // Answers 1 where the socket is connected to another host.
            ["is-connected-to", to] => {
                let peer = socket.peer_addr()?.as_socket();
                Ok(u64::from(peer.map(|peer| peer.ip()) != Some(addr(to).ip())))
            }
            ["bind", to] => socket.bind(&addr(to).into()).map(|()| 0),
            ["listen"] => socket.listen(1).map(|()| 0),
            _ => panic!("unknown order: {order:?}"),
        }
    }
}

/// The thread that runs an io_uring request.
pub(super) fn how(text: &str) -> Uring {
    match text {
        "caller" => Uring::Caller,
        "worker" => Uring::Worker,
        "poller" => Uring::Poller,
        other => panic!("unknown thread: {other}"),
    }
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("bytes in hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// One control message, as cmsg(3) lays it out.
fn control(level: &str, name: &str, value: &[u8]) -> Vec<u8> {
    let numbers = [level, name].map(|word| word.parse::<i32>().expect("a number").to_ne_bytes());
    let mut control = (size_of::<usize>() + 8 + value.len()).to_ne_bytes().to_vec();
    control.extend(numbers.concat());
    control.extend(value);
    control.resize(control.len().next_multiple_of(size_of::<usize>()), 0);
    control
}
