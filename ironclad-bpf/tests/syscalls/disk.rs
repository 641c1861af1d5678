//! Commands to disks and file systems by descriptors that may only read.

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use crate::attack::check;

/// `struct sg_io_hdr` of include/scsi/sg.h.
#[derive(Default)]
#[repr(C)]
struct SgIo {
    interface: i32,
    direction: i32,
    command_len: u8,
    sense_len: u8,
    pieces: u16,
    data_len: u32,
    data: usize,
    command: usize,
    sense: usize,
    timeout_ms: u32,
    flags: u32,
    pack: i32,
    user: usize,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    residual: i32,
    duration: u32,
    info: u32,
}

/// Writes the first block of a SCSI disk by SG_IO: ext4 does not use it.
///
/// # Errors
/// Where the kernel or the disk refuses.
pub fn scsi_write(disk: &File) -> io::Result<()> {
    const SG_IO: libc::Ioctl = 0x2285;
    // SAFETY: takes a request, whose parts outlive the call.
    with_request(|request| check(unsafe { libc::ioctl(disk.as_raw_fd(), SG_IO, request) }))
}

/// The same by write(2) to a generic SCSI device, and read(2), which takes the answer.
///
/// # Errors
/// Where the kernel or the disk refuses.
pub fn scsi_write_by_write(device: &File) -> io::Result<()> {
    const LEN: usize = size_of::<SgIo>();
    with_request(|request| {
        // SAFETY: a request has as many bytes, and its parts outlive both calls.
        let moved = unsafe {
            check(libc::write(device.as_raw_fd(), request.cast(), LEN) as c_int)?;
            libc::read(device.as_raw_fd(), request.cast(), LEN)
        };
        check(moved as c_int)
    })
}

/// Sends a request to write one block at the first.
fn with_request(send: impl FnOnce(*mut SgIo) -> io::Result<()>) -> io::Result<()> {
    const SG_DXFER_TO_DEV: i32 = -2;
    // WRITE(10).
    let command: [u8; 10] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let (data, mut sense) = ([b'm'; 512], [0u8; 32]);
    let mut request = SgIo {
        interface: i32::from(b'S'),
        direction: SG_DXFER_TO_DEV,
        command_len: command.len() as u8,
        sense_len: sense.len() as u8,
        data_len: data.len() as u32,
        data: data.as_ptr() as usize,
        command: command.as_ptr() as usize,
        sense: sense.as_mut_ptr() as usize,
        timeout_ms: 10_000,
        ..SgIo::default()
    };
    send(&raw mut request)?;
    match (request.status, request.host_status) {
        (0, 0) => Ok(()),
        (status, host) => Err(io::Error::other(format!("status {status}, host {host}"))),
    }
}

/// The same by SCSI_IOCTL_SEND_COMMAND, whose number is 1.
///
/// # Errors
/// Where the kernel or the disk refuses.
pub fn scsi_send(disk: &File) -> io::Result<()> {
    const SCSI_IOCTL_SEND_COMMAND: libc::Ioctl = 1;
    // The lengths of what is written and read, the command, and the block.
    let mut request = [b'm'; 8 + 10 + 512];
    request[..8].copy_from_slice(&[512u32.to_ne_bytes(), [0; 4]].concat());
    request[8..18].copy_from_slice(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    // SAFETY: the request is as long as it says, and has room for the sense data instead.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), SCSI_IOCTL_SEND_COMMAND, request.as_mut_ptr()) })
}

/// Says that a disk may be written, as it was.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_writable(disk: &File) -> io::Result<()> {
    const BLKROSET: libc::Ioctl = 0x125d;
    let read_only: libc::c_int = 0;
    // SAFETY: takes a pointer to an int, which it reads.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKROSET, &raw const read_only) })
}

/// `struct blkpg_partition` of include/uapi/linux/blkpg.h.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg` of include/uapi/linux/blkpg.h.
#[repr(C)]
struct PartitionCommand {
    what: i32,
    flags: i32,
    data_len: i32,
    data: *const Partition,
}

/// Adds a first partition of 1 MiB, or removes it.
///
/// # Errors
/// Where the kernel refuses.
pub fn partition(disk: &File, add: bool) -> io::Result<()> {
    const BLKPG: libc::Ioctl = 0x1269;
    const BLKPG_ADD_PARTITION: i32 = 1;
    const BLKPG_DEL_PARTITION: i32 = 2;
    let partition = Partition { start: 1 << 20, length: 1 << 20, number: 1, names: [0; 128] };
    let what = if add { BLKPG_ADD_PARTITION } else { BLKPG_DEL_PARTITION };
    let data_len = size_of::<Partition>() as i32;
    let request = PartitionCommand { what, flags: 0, data_len, data: &raw const partition };
    // SAFETY: the kernel reads both, which outlive the call.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &raw const request) })
}

/// Sets up a loop device anew, as it is set up already.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_up_again(device: &File) -> io::Result<()> {
    const LOOP_SET_STATUS64: libc::Ioctl = 0x4c04;
    const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
    // struct loop_info64 of include/uapi/linux/loop.h has 232 bytes.
    let mut status = [0u64; 32];
    // SAFETY: the kernel writes, and reads, fewer bytes than there are.
    unsafe {
        check(libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, status.as_mut_ptr()))?;
        check(libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64, status.as_ptr()))
    }
}

/// Gives a file what ext4 keeps for a boot loader, and the boot loader what is in the file.
///
/// # Errors
/// Where the kernel refuses.
pub fn swap_boot(file: &File) -> io::Result<()> {
    const EXT4_IOC_SWAP_BOOT: libc::Ioctl = 0x6611;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SWAP_BOOT, 0) })
}

/// Freezes the file system of a directory, as fsfreeze(8) does.
///
/// # Errors
/// Where the kernel refuses.
pub fn freeze(directory: &File) -> io::Result<()> {
    const FIFREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FIFREEZE, 0) })
}

/// Lets those go on whom [`freeze`] stopped.
///
/// # Errors
/// Where the kernel refuses.
pub fn thaw(directory: &File) -> io::Result<()> {
    const FITHAW: libc::Ioctl = 0xc004_5878_u32 as libc::Ioctl;
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FITHAW, 0) })
}

/// Has the file system of a directory fail from now on.
///
/// # Errors
/// Where the kernel refuses.
pub fn shut_down(directory: &File) -> io::Result<()> {
    const FS_IOC_SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
    const FLUSH_ALL: u32 = 0;
    let how = FLUSH_ALL;
    // SAFETY: takes a pointer to a number of 32 bits, which it reads.
    check(unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_SHUTDOWN, &raw const how) })
}

/// Gives a file to a loop device: LOOP_SET_FD, or LOOP_CONFIGURE. Then the device is cleared.
///
/// # Errors
/// Where the kernel refuses.
pub fn give_to_loop(device: &File, file: &File, configure: bool) -> io::Result<()> {
    const LOOP_SET_FD: libc::Ioctl = 0x4c00;
    const LOOP_CLR_FD: libc::Ioctl = 0x4c01;
    const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
    // A struct loop_config: the descriptor, and nothing else.
    let mut config = [0u32; 76];
    config[0] = file.as_raw_fd() as u32;
    // SAFETY: both are descriptors, and the structure outlives the call.
    unsafe {
        check(match configure {
            true => libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, config.as_ptr()),
            false => libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, file.as_raw_fd()),
        })?;
        check(libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0))
    }
}

/// Makes a file of a mounted device its file of quotas of users, in the old format, and ends that again.
///
/// # Errors
/// Where the kernel refuses.
pub fn quota_on(device: &CStr, file: &CStr) -> io::Result<()> {
    const Q_QUOTAON: c_int = 0x80_0002 << 8;
    const Q_QUOTAOFF: c_int = 0x80_0003 << 8;
    const QFMT_VFS_OLD: c_int = 1;
    let (device, file) = (device.as_ptr(), file.as_ptr().cast_mut());
    // SAFETY: strings that end with zeros, which are read.
    unsafe {
        check(libc::quotactl(Q_QUOTAON, device, QFMT_VFS_OLD, file))?;
        check(libc::quotactl(Q_QUOTAOFF, device, 0, std::ptr::null_mut()))
    }
}

/// acct(2): the kernel appends to a file at the end of each process. `None`: no longer.
///
/// # Errors
/// Where the kernel refuses.
pub fn account(path: Option<&CStr>) -> io::Result<()> {
    // SAFETY: a string that ends with a zero, or none.
    check(unsafe { libc::acct(path.map_or(std::ptr::null(), CStr::as_ptr)) })
}

/// Shares the first block of a file with another: FICLONERANGE.
///
/// # Errors
/// Where the kernel refuses, or the file system has none.
pub fn clone_range(from: &File, to: &File) -> io::Result<()> {
    const FICLONERANGE: libc::Ioctl = 0x4020_940d;
    // struct file_clone_range of include/uapi/linux/fs.h: the source, its offset and length, the offset there.
    let range = [from.as_raw_fd() as u64, 0, BLOCK, 0];
    // SAFETY: a struct of the size that the number says, which is read.
    check(unsafe { libc::ioctl(to.as_raw_fd(), FICLONERANGE, range.as_ptr()) })
}

/// The size of a file system's blocks.
const BLOCK: u64 = 4096;

/// Shares the first block of a file with another that has the same content: FIDEDUPERANGE.
///
/// # Errors
/// Where the kernel refuses, or the contents differ.
pub fn deduplicate(from: &File, to: &File) -> io::Result<()> {
    const FIDEDUPERANGE: libc::Ioctl = 0xc018_9436_u32 as libc::Ioctl;
    // struct file_dedupe_range of include/uapi/linux/fs.h: offset, length, one target; of it: the file, its offset,
    // how many bytes are shared, the status.
    let mut range = [0, BLOCK, 1, to.as_raw_fd() as u64, 0, 0, 0];
    // SAFETY: the struct and one target, which the kernel reads and writes.
    check(unsafe { libc::ioctl(from.as_raw_fd(), FIDEDUPERANGE, range.as_mut_ptr()) })?;
    match range[6] as u32 as i32 {
        0 => Ok(()),
        status if status < 0 => Err(io::Error::from_raw_os_error(-status)),
        status => Err(io::Error::other(format!("status {status}"))),
    }
}

/// Exchanges the blocks of two files of XFS: XFS_IOC_SWAPEXT.
///
/// # Errors
/// Where the kernel refuses.
pub fn swap_extents(one: &File, other: &File) -> io::Result<()> {
    const XFS_IOC_FSBULKSTAT_SINGLE: libc::Ioctl = 0xc020_5866_u32 as libc::Ioctl;
    const XFS_IOC_SWAPEXT: libc::Ioctl = 0xc0c0_586d_u32 as libc::Ioctl;
    let metadata = one.metadata()?;
    let (mut number, mut count) = (metadata.ino(), 0i32);
    // struct xfs_swapext: version 0, two files, offset, length, room for more, and struct xfs_bstat of the first.
    let mut swap = [0u64; 24];
    (swap[1], swap[2]) = (one.as_raw_fd() as u64, other.as_raw_fd() as u64);
    swap[4] = metadata.len();
    let state = swap[7..].as_mut_ptr() as u64;
    // struct xfs_fsop_bulkreq: the inode's number, how many, where to, how many there were.
    let request = [&raw mut number as u64, 1, state, &raw mut count as u64];
    // SAFETY: the kernel reads both structs, and writes one struct xfs_bstat, of 136 bytes, and two numbers.
    unsafe {
        check(libc::ioctl(one.as_raw_fd(), XFS_IOC_FSBULKSTAT_SINGLE, request.as_ptr()))?;
        check(libc::ioctl(one.as_raw_fd(), XFS_IOC_SWAPEXT, swap.as_ptr()))
    }
}

/// Moves the first block of a file to another of ext4, which gets the content: EXT4_IOC_MOVE_EXT, of e4defrag(8).
///
/// # Errors
/// Where the kernel refuses.
pub fn move_extents(from: &File, donor: &File) -> io::Result<()> {
    const EXT4_IOC_MOVE_EXT: libc::Ioctl = 0xc028_660f_u32 as libc::Ioctl;
    // struct move_extent: the donor, the first block of each, how many, how many were moved.
    let mut blocks = [(donor.as_raw_fd() as u64) << 32, 0, 0, 1, 0];
    // SAFETY: a struct of the size that the number says.
    check(unsafe { libc::ioctl(from.as_raw_fd(), EXT4_IOC_MOVE_EXT, blocks.as_mut_ptr()) })?;
    if blocks[4] == 1 { Ok(()) } else { Err(io::Error::other("no block was moved")) }
}

/// `struct xfs_fsop_handlereq` of fs/xfs/libxfs/xfs_fs.h.
#[repr(C)]
struct XfsRequest {
    fd: u32,
    path: usize,
    flags: u32,
    handle: usize,
    handle_len: u32,
    to: usize,
    to_len: usize,
}

impl XfsRequest {
    /// Of a file whose handle has these bytes.
    fn of(handle: &[u8], flags: c_int) -> Self {
        let (handle, handle_len) = (handle.as_ptr() as usize, handle.len() as u32);
        Self { fd: 0, path: 0, flags: flags as u32, handle, handle_len, to: 0, to_len: 0 }
    }
}

/// XFS's own handle of a file: XFS_IOC_FD_TO_HANDLE.
fn xfs_handle(file: &File) -> io::Result<Vec<u8>> {
    const XFS_IOC_FD_TO_HANDLE: libc::Ioctl = 0xc038_586a_u32 as libc::Ioctl;
    let (mut handle, mut len) = (vec![0u8; 64], 0u32);
    let mut request = XfsRequest::of(&[], 0);
    request.fd = file.as_raw_fd() as u32;
    (request.to, request.to_len) = (handle.as_mut_ptr() as usize, &raw mut len as usize);
    // SAFETY: the kernel writes a handle, of 24 bytes, and its length, and both outlive the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), XFS_IOC_FD_TO_HANDLE, &raw mut request) })?;
    handle.truncate(len as usize);
    Ok(handle)
}

/// Opens a file of XFS to write by its handle and a directory: XFS_IOC_OPEN_BY_HANDLE.
///
/// # Errors
/// Where the kernel refuses.
pub fn open_by_xfs_handle(file: &File, by: &File) -> io::Result<OwnedFd> {
    open_handle(&xfs_handle(file)?, libc::O_RDWR, by)
}

/// Opens a file of XFS by its handle and a directory: XFS_IOC_OPEN_BY_HANDLE.
fn open_handle(handle: &[u8], flags: c_int, by: &File) -> io::Result<OwnedFd> {
    const XFS_IOC_OPEN_BY_HANDLE: libc::Ioctl = 0xc038_586b_u32 as libc::Ioctl;
    let mut request = XfsRequest::of(handle, flags | libc::O_CLOEXEC);
    // SAFETY: the handle outlives the call; a new descriptor has no other owner.
    unsafe {
        let fd = libc::ioctl(by.as_raw_fd(), XFS_IOC_OPEN_BY_HANDLE, &raw mut request);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Opens a file of XFS to read by its handle and a directory, with the flag that execve(2) sets.
///
/// # Errors
/// Where the kernel refuses.
pub fn open_as_executed(path: &CStr, by: &File) -> io::Result<OwnedFd> {
    const XFS_IOC_PATH_TO_HANDLE: libc::Ioctl = 0xc038_5869_u32 as libc::Ioctl;
    const FMODE_EXEC: c_int = 0x20;
    let (mut handle, mut len) = (vec![0u8; 64], 0u32);
    let mut request = XfsRequest::of(&[], 0);
    request.path = path.as_ptr() as usize;
    (request.to, request.to_len) = (handle.as_mut_ptr() as usize, &raw mut len as usize);
    // SAFETY: the kernel reads the path and writes a handle, of 24 bytes, and its length, and all outlive the call.
    check(unsafe { libc::ioctl(by.as_raw_fd(), XFS_IOC_PATH_TO_HANDLE, &raw mut request) })?;
    handle.truncate(len as usize);
    open_handle(&handle, libc::O_RDONLY | FMODE_EXEC, by)
}

/// Sets an extended attribute of a file of XFS by its handle and a directory: XFS_IOC_ATTRMULTI_BY_HANDLE.
///
/// # Errors
/// Where the kernel refuses.
pub fn change_attribute(file: &File, by: &File) -> io::Result<()> {
    const XFS_IOC_ATTRMULTI_BY_HANDLE: libc::Ioctl = 0x4048_587b;
    const ATTR_OP_SET: u64 = 2;
    const OF_ROOT: u64 = 2;
    let handle = xfs_handle(file)?;
    let (name, value) = (c"mischief", [b'1'; 4]);
    // struct xfs_attr_multiop: what and its error, name, value, its length and whose attribute it is.
    let [name, data] = [name.as_ptr() as u64, value.as_ptr() as u64];
    let mut set = [ATTR_OP_SET, name, data, value.len() as u64 | OF_ROOT << 32];
    let of = XfsRequest::of(&handle, 0);
    let request = XfsMany { of, count: 1, sets: set.as_mut_ptr() as usize };
    // SAFETY: handle, name and value outlive the call.
    let done =
        unsafe { libc::ioctl(by.as_raw_fd(), XFS_IOC_ATTRMULTI_BY_HANDLE, &raw const request) };
    check(done)?;
    match (set[0] >> 32) as i32 {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.abs())),
    }
}

/// `struct xfs_fsop_attrmulti_handlereq`.
#[repr(C)]
struct XfsMany {
    of: XfsRequest,
    count: u64,
    sets: usize,
}

/// Sends a file or directory a command of ioctl(2), whose argument begins with these bytes.
///
/// # Errors
/// Where the kernel refuses.
pub fn command(file: &File, number: u32, argument: &[u8]) -> io::Result<()> {
    // Eight-byte words, and more of them than any command of a file system has.
    let mut room = [0u64; 512];
    for (word, bytes) in room.iter_mut().zip(argument.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    // SAFETY: the kernel reads and writes as many bytes as the number says, below 16,384 by its format; no command
    // of the tests has above 512, and none follows pointers.
    check(unsafe { libc::ioctl(file.as_raw_fd(), number as libc::Ioctl, room.as_mut_ptr()) })
}

/// Serves a network block device from a file, until the other end of `kernel` is closed.
///
/// # Errors
/// Where the kernel refuses.
pub fn run_nbd(device: &File, kernel: &UnixStream, bytes: u64) -> io::Result<()> {
    // include/uapi/linux/nbd.h.
    const NBD_SET_SOCK: libc::Ioctl = 0xab00;
    const NBD_SET_SIZE: libc::Ioctl = 0xab02;
    const NBD_DO_IT: libc::Ioctl = 0xab03;
    let socket = kernel.as_raw_fd() as libc::c_ulong;
    for (number, argument) in [(NBD_SET_SIZE, bytes), (NBD_SET_SOCK, socket), (NBD_DO_IT, 0)] {
        // SAFETY: these commands take a number.
        check(unsafe { libc::ioctl(device.as_raw_fd(), number, argument) })?;
    }
    Ok(())
}
