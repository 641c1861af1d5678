//! Commands to NVMe disks past the block layer.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::attack::check;

/// The size of a block.
const BLOCK: usize = 512;
const WRITE: u8 = 1;

/// `struct nvme_passthru_cmd` of include/uapi/linux/nvme_ioctl.h, and with another end `struct nvme_uring_cmd`.
#[derive(Default)]
#[repr(C)]
struct Command {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words: [u32; 2],
    metadata: u64,
    data: u64,
    metadata_len: u32,
    data_len: u32,
    more_words: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

impl Command {
    /// Writes the first block of the first namespace.
    fn write(data: &[u8; BLOCK]) -> Self {
        let (namespace, data_len) = (1, data.len() as u32);
        let data = data.as_ptr() as u64;
        Self { opcode: WRITE, namespace, data, data_len, ..Self::default() }
    }
}

/// Writes the first block of an NVMe disk by NVME_IOCTL_IO_CMD, of the disk, a partition, or a character device.
///
/// # Errors
/// Where the kernel or the disk refuses.
pub fn nvme_write(device: &File) -> io::Result<()> {
    const NVME_IOCTL_IO_CMD: libc::Ioctl = 0xc048_4e43_u32 as libc::Ioctl;
    let data = [b'm'; BLOCK];
    let mut command = Command::write(&data);
    // SAFETY: the command and the data outlive the call, and the data are as long as the command says.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), NVME_IOCTL_IO_CMD, &raw mut command) };
    answered(status)
}

/// The same by NVME_IOCTL_SUBMIT_IO, which no character device has.
///
/// # Errors
/// Where the kernel or the disk refuses.
pub fn nvme_submit(device: &File) -> io::Result<()> {
    const NVME_IOCTL_SUBMIT_IO: libc::Ioctl = 0x4030_4e42;
    let data = [b'm'; BLOCK];
    // struct nvme_user_io: what, one block less one, no metadata, the data, the first block, and nothing more.
    let command = [u64::from(WRITE), 0, data.as_ptr() as u64, 0, 0, 0];
    // SAFETY: the command and the data outlive the call, and the data have one block.
    answered(unsafe { libc::ioctl(device.as_raw_fd(), NVME_IOCTL_SUBMIT_IO, command.as_ptr()) })
}

/// The same by NVME_URING_CMD_IO of Linux 5.19 and later, which character devices of namespaces have.
///
/// # Errors
/// Where the kernel or the disk refuses.
pub fn nvme_uring(device: &File) -> io::Result<()> {
    const NVME_URING_CMD_IO: u32 = 0xc048_4e80;
    let data = [b'm'; BLOCK];
    let command = Command::write(&data);
    let mut bytes = [0; 80];
    // SAFETY: the struct has 72 bytes, and no padding.
    let words = unsafe { std::slice::from_raw_parts((&raw const command).cast::<u8>(), 72) };
    bytes[..72].copy_from_slice(words);
    let mut ring: IoUring<squeue::Entry128, cqueue::Entry32> = IoUring::builder().build(2)?;
    let entry = opcode::UringCmd80::new(types::Fd(device.as_raw_fd()), NVME_URING_CMD_IO);
    // SAFETY: the data outlive the command, which is waited for.
    unsafe { ring.submission().push(&entry.cmd(bytes).build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let status = ring.completion().next().map_or(-libc::EIO, |it| it.result());
    if status < 0 { Err(io::Error::from_raw_os_error(-status)) } else { answered(status) }
}

/// The answer of the kernel, or of the disk.
fn answered(status: i32) -> io::Result<()> {
    check(status)?;
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("status {status:#x}"))) }
}
