use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::LabError;

/// Sends and receives frames, as they are, at an interface of the calling thread's namespace.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    link: LinkAddr,
}

impl PacketSocket {
    /// Opens a socket that sends.
    ///
    /// # Errors
    /// [`LabError`] where there is no such interface or the kernel refuses.
    pub fn open(interface: &str) -> Result<Self, LabError> {
        // No protocol: receives nothing.
        Self::with(interface, None)
    }

    /// Opens a socket that also receives what passes the interface, in either direction. It waits a
    /// minute for each frame.
    ///
    /// # Errors
    /// The errors of [`open`](Self::open).
    pub fn listen(interface: &str) -> Result<Self, LabError> {
        let this = Self::with(interface, Some(SockProtocol::EthAll))?;
        let failed =
            |e: nix::Error| LabError::System { step: "setting an option", source: e.into() };
        setsockopt(&this.fd, sockopt::ReceiveTimeout, &TimeVal::seconds(60)).map_err(failed)?;
        Ok(this)
    }

    fn with(interface: &str, protocol: Option<SockProtocol>) -> Result<Self, LabError> {
        let failed = |step| move |e: nix::Error| LabError::System { step, source: e.into() };
        let link = getifaddrs()
            .map_err(failed("listing interfaces"))?
            .filter(|found| found.interface_name == interface)
            .find_map(|found| found.address.and_then(|address| address.as_link_addr().copied()))
            .ok_or_else(|| LabError::System {
                step: "finding an interface",
                source: io::Error::new(io::ErrorKind::NotFound, interface.to_owned()),
            })?;
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(failed("opening a packet socket"))?;
        nix::sys::socket::bind(fd.as_raw_fd(), &link).map_err(failed("binding a packet socket"))?;
        Ok(Self { fd, link })
    }

    /// Sends one frame. Waits while the interface's queue is full.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        loop {
            match send(self.fd.as_raw_fd(), frame, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(nix::Error::ENOBUFS | nix::Error::EINTR) => std::thread::yield_now(),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends a frame that is too short for an Ethernet header, which `send` refuses.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn send_to(&self, frame: &[u8]) -> io::Result<()> {
        sendto(self.fd.as_raw_fd(), frame, &self.link, MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for the next frame, and returns its first 2,048 bytes.
    ///
    /// # Errors
    /// The kernel's error, or a timeout.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; 2048];
        let len = recv(self.fd.as_raw_fd(), &mut frame, MsgFlags::empty())?;
        frame.truncate(len);
        Ok(frame)
    }
}
