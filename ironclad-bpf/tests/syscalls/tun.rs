use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A TUN device of the calling thread's network namespace, which exists while the file is open. With
/// `packet_info`, each packet that is written to the file begins with flags and the ethertype (`struct
/// tun_pi`).
///
/// # Errors
/// What the kernel says.
pub fn tun(name: &str, packet_info: bool) -> io::Result<File> {
    const IFF_TUN: u16 = 1;
    const IFF_NO_PI: u16 = 0x1000;
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // A `struct ifreq`: the name, flags, room.
    let mut request = [0u8; 40];
    let room = request[..libc::IFNAMSIZ - 1].get_mut(..name.len());
    room.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
    let flags = if packet_info { IFF_TUN } else { IFF_TUN | IFF_NO_PI };
    request[libc::IFNAMSIZ..][..2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request is as large as a `struct ifreq`, and outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, request.as_mut_ptr()) };
    if made < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}

/// Gives a TUN device that is down another device type (`ARPHRD_…`).
///
/// # Errors
/// What the kernel says.
pub fn set_tun_type(tun: &File, device_type: u16) -> io::Result<()> {
    let device_type = libc::c_ulong::from(device_type);
    // SAFETY: the call takes a number.
    let set = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETLINK as _, device_type) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
