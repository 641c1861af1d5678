//! A server of a block device in user space: ublk, since Linux 6.0.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Requests that are served at once.
const DEPTH: u16 = 8;
/// The most bytes of one.
const ROOM: usize = 64 << 10;
const SECTOR: u64 = 512;

/// Commands of include/uapi/linux/ublk_cmd.h.
const ADD_DEV: u32 = 0xc020_7504;
const START_DEV: u32 = 0xc020_7506;
const SET_PARAMS: u32 = 0xc020_7508;
const FETCH_REQ: u32 = 0xc010_7520;
const COMMIT_AND_FETCH_REQ: u32 = 0xc010_7521;

/// `struct ublksrv_io_desc`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    what: u32,
    sectors: u32,
    first: u64,
    address: u64,
}

/// `struct ublksrv_ctrl_cmd` of device 0 without a queue.
fn control(control: &File, what: u32, address: u64, len: u16, data: u64) -> io::Result<()> {
    let mut command = [0; 80];
    command[4..6].copy_from_slice(&u16::MAX.to_ne_bytes());
    command[6..8].copy_from_slice(&len.to_ne_bytes());
    command[8..16].copy_from_slice(&address.to_ne_bytes());
    command[16..24].copy_from_slice(&data.to_ne_bytes());
    let mut ring: IoUring<squeue::Entry128, cqueue::Entry> = IoUring::builder().build(2)?;
    let entry = opcode::UringCmd80::new(types::Fd(control.as_raw_fd()), what).cmd(command);
    // SAFETY: what the address leads to outlives the command, which is waited for.
    unsafe { ring.submission().push(&entry.build()) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    match ring.completion().next().map_or(-libc::EIO, |it| it.result()) {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}

/// Adds device 0 with as many sectors as the file has.
///
/// # Errors
/// Where the kernel refuses, or has such a device.
pub fn add_ublk(control_device: &File, bytes: u64) -> io::Result<()> {
    const ENCODED: u64 = 1 << 6;
    const BASIC: u64 = 1;
    // struct ublksrv_ctrl_dev_info: one queue and its depth, the most bytes, the device, the flags.
    let mut info = [0u64; 8];
    info[0] = 1 | u64::from(DEPTH) << 16;
    info[1] = ROOM as u64;
    info[3] = ENCODED;
    control(control_device, ADD_DEV, info.as_mut_ptr() as u64, 64, 0)?;
    // struct ublk_params: its length and what it has; no attributes and the sizes of blocks, of 4 KiB; the most
    // sectors of a request; all sectors.
    let mut params = [0u64; 16];
    params[0] = 128 | BASIC << 32;
    params[1] = 0x0c0c_0c0c << 32;
    params[2] = ROOM as u64 / SECTOR;
    params[3] = bytes / SECTOR;
    control(control_device, SET_PARAMS, params.as_mut_ptr() as u64, 128, 0)
}

/// Starts it, once all requests can be served.
///
/// # Errors
/// Where the kernel refuses.
pub fn start_ublk(control_device: &File) -> io::Result<()> {
    control(control_device, START_DEV, 0, 0, u64::from(std::process::id()))
}

/// Serves requests to `/dev/ublkc0` from a file, until the device ends.
///
/// # Errors
/// Where the kernel refuses, or the file cannot be read or written.
pub fn serve_ublk(device: &File, file: &File) -> io::Result<()> {
    let len = usize::from(DEPTH) * size_of::<Request>();
    let (shared, populate) = (libc::MAP_SHARED, libc::MAP_POPULATE);
    // SAFETY: a new mapping, whose place the kernel chooses.
    let requests = unsafe {
        let at = std::ptr::null_mut();
        libc::mmap(at, len, libc::PROT_READ, shared | populate, device.as_raw_fd(), 0)
    };
    if requests == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut room = vec![vec![0u8; ROOM]; usize::from(DEPTH)];
    let mut ring = IoUring::new(u32::from(DEPTH))?;
    let answer = |ring: &mut IoUring, what: u32, tag: u16, result: i32, at: *mut u8| {
        // struct ublksrv_io_cmd: the queue, the request, the result, the room.
        let mut command = [0; 16];
        command[2..4].copy_from_slice(&tag.to_ne_bytes());
        command[4..8].copy_from_slice(&result.to_ne_bytes());
        command[8..].copy_from_slice(&(at as u64).to_ne_bytes());
        let entry = opcode::UringCmd16::new(types::Fd(device.as_raw_fd()), what).cmd(command);
        let entry = entry.build().user_data(u64::from(tag));
        // SAFETY: the room is there until the process ends.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)
    };
    for (tag, room) in room.iter_mut().enumerate() {
        answer(&mut ring, FETCH_REQ, tag as u16, 0, room.as_mut_ptr())?;
    }
    loop {
        ring.submit_and_wait(1)?;
        let done: Vec<_> = ring.completion().map(|it| (it.user_data(), it.result())).collect();
        for (tag, result) in done {
            if result != 0 {
                return Err(io::Error::from_raw_os_error(result.abs()));
            }
            let room = &mut room[tag as usize];
            // SAFETY: the kernel has written this request, of as many as the mapping has.
            let request = unsafe { requests.cast::<Request>().add(tag as usize).read_volatile() };
            let (at, len) = (request.first * SECTOR, request.sectors as usize * SECTOR as usize);
            match request.what & 0xff {
                0 => file.read_exact_at(&mut room[..len], at)?,
                1 => file.write_all_at(&room[..len], at)?,
                _ => {}
            }
            answer(&mut ring, COMMIT_AND_FETCH_REQ, tag as u16, len as i32, room.as_mut_ptr())?;
        }
    }
}
