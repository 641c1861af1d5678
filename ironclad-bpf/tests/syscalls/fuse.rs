//! A file system of FUSE whose one file, `file`, passes through to another: the kernel reads and writes that one itself.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_bind};

/// include/uapi/linux/fuse.h
const BACKING_OPEN: libc::c_ulong = 0x4010_e501;
const IN_HEADER: usize = 40;
const BUFFER: usize = 1 << 18;
const FILE_NODE: u64 = 2;
const S_IFDIR: u32 = 0o040_755;
const S_IFREG: u32 = 0o100_644;

mod opcode {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const SETATTR: u32 = 4;
    pub(super) const OPEN: u32 = 14;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

#[repr(C)]
struct BackingMap {
    fd: i32,
    flags: u32,
    padding: u64,
}

/// Mounts the file system at a directory, and serves it until it is unmounted.
///
/// # Errors
/// `EOPNOTSUPP` or `EPERM` where the kernel has no passthrough; otherwise what it says.
pub fn pass_through(file: OwnedFd, at: &Path) -> io::Result<()> {
    let mut fuse = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", fuse.as_raw_fd());
    mount("none", at, "fuse", MountFlags::empty(), Some(&*CString::new(options)?))?;
    let mut request = vec![0; BUFFER];
    if !answer_init(&mut fuse, &mut request)? {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let map = BackingMap { fd: file.as_raw_fd(), flags: 0, padding: 0 };
    // SAFETY: the structure is that of the command, which only reads it.
    let backing = unsafe { libc::ioctl(fuse.as_raw_fd(), BACKING_OPEN, &raw const map) };
    if backing <= 0 {
        return Err(io::Error::last_os_error());
    }
    drop(file);
    std::thread::spawn(move || while serve(&mut fuse, &mut request, backing).is_ok() {});
    Ok(())
}

/// Bind-mounts `what` on `place` by a path through a file system of FUSE at `fuse`, which has the look-up wait until
/// `meanwhile` has run: the kernel has called the hook by then, and has not found the mount point yet.
///
/// # Errors
/// Where the kernel refuses.
pub fn bind_late(
    what: &Path,
    place: &Path,
    fuse: &Path,
    meanwhile: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let mut server = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    mount("none", fuse, "fuse", MountFlags::empty(), Some(&*CString::new(options)?))?;
    let up = "../".repeat(fuse.components().count());
    let from = fuse.join("slow").join(up).join(what.strip_prefix("/").expect("an absolute path"));
    std::thread::spawn(move || {
        let mut meanwhile = Some(meanwhile);
        let mut request = vec![0; BUFFER];
        while serve_slowly(&mut server, &mut request, &mut meanwhile).is_ok() {}
    });
    Ok(mount_bind(from, place)?)
}

/// Answers one request, where every name is a directory.
fn serve_slowly<F: FnOnce()>(
    fuse: &mut File,
    request: &mut [u8],
    meanwhile: &mut Option<F>,
) -> io::Result<()> {
    let length = fuse.read(request)?;
    let request = &request[..length];
    let mut body = Vec::new();
    match word(request, 4) {
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return Ok(()),
        // Version 7.12.
        opcode::INIT => body.extend([7, 12, 0, 0, 0, 1 << 12].map(u32::to_ne_bytes).concat()),
        opcode::LOOKUP => {
            meanwhile.take().into_iter().for_each(|run| run());
            body.extend([FILE_NODE + 1, 0, 0, 0, 0].map(u64::to_ne_bytes).concat());
            body.extend(attributes(FILE_NODE + 1));
        }
        opcode::GETATTR => {
            body.extend([0, 0].map(u64::to_ne_bytes).concat());
            body.extend(attributes(1));
        }
        _ => return reply(fuse, request, Err(libc::ENOSYS)),
    }
    reply(fuse, request, Ok(&body))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn reply(fuse: &mut File, request: &[u8], answer: Result<&[u8], i32>) -> io::Result<()> {
    let (error, body) = answer.map_or_else(|error| (-error, &[][..]), |body| (0, body));
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    message.extend(error.to_ne_bytes());
    message.extend(&request[8..16]);
    message.extend(body);
    fuse.write_all(&message)
}

/// Whether the kernel has passthrough.
fn answer_init(fuse: &mut File, request: &mut [u8]) -> io::Result<bool> {
    /// FUSE_INIT_EXT, and FUSE_PASSTHROUGH in the second word.
    const FLAGS: [u32; 2] = [1 << 30, 1 << 5];
    let length = fuse.read(request)?;
    let asked = &request[IN_HEADER..length];
    assert_eq!(word(request, 4), opcode::INIT);
    if asked.len() < 20 || word(asked, 16) & FLAGS[1] == 0 {
        return Ok(false);
    }
    // Version 7.40, flags, a megabyte each, the depth of stacked file systems.
    let words =
        [7, 40, 0, FLAGS[0], 0, 1 << 16, 1, 0, FLAGS[1], 1, 0, 0, 0, 0, 0, 0].map(u32::to_ne_bytes);
    reply(fuse, request, Ok(&words.concat()))?;
    Ok(true)
}

/// `struct fuse_attr`
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == FILE_NODE { S_IFREG } else { S_IFDIR };
    // Number, size, blocks, three times.
    let mut bytes = [node, 4096, 8, 0, 0, 0].map(u64::to_ne_bytes).concat();
    // Nanoseconds of the times, mode, links, user, group, device, size of blocks, flags.
    bytes.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat());
    bytes
}

/// Answers one request.
fn serve(fuse: &mut File, request: &mut [u8], backing: i32) -> io::Result<()> {
    let length = fuse.read(request)?;
    let request = &request[..length];
    let node = u64::from_ne_bytes(request[16..24].try_into().expect("eight bytes"));
    let mut body = Vec::new();
    let answer = match word(request, 4) {
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return Ok(()),
        opcode::LOOKUP if request[IN_HEADER..] == *b"file\0" => {
            // Node, generation, how long it is valid.
            body.extend([FILE_NODE, 0, 0, 0, 0].map(u64::to_ne_bytes).concat());
            body.extend(attributes(FILE_NODE));
            Ok(&*body)
        }
        opcode::LOOKUP => Err(libc::ENOENT),
        opcode::GETATTR | opcode::SETATTR => {
            body.extend([0, 0].map(u64::to_ne_bytes).concat());
            body.extend(attributes(node));
            Ok(&*body)
        }
        opcode::OPEN => {
            const FOPEN_PASSTHROUGH: u32 = 1 << 7;
            body.extend(0u64.to_ne_bytes());
            body.extend(FOPEN_PASSTHROUGH.to_ne_bytes());
            body.extend(backing.to_ne_bytes());
            Ok(&*body)
        }
        opcode::RELEASE | opcode::FLUSH => Ok(&[][..]),
        _ => Err(libc::ENOSYS),
    };
    reply(fuse, request, answer)
}
