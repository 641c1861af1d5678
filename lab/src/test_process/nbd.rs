//! A server of a network block device, in the process of its client.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use ironclad_syscalls::run_nbd;

/// Serves `path` as the device until the process ends.
pub(super) fn serve(device: &str, path: &Path) -> io::Result<()> {
    let device = File::options().read(true).write(true).open(device)?;
    let file = File::options().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let (kernel, server) = UnixStream::pair()?;
    thread::spawn(move || serve_requests(server, &file));
    // The call waits until the connection ends.
    thread::spawn(move || run_nbd(&device, &kernel, bytes));
    Ok(())
}

/// `struct nbd_request` and `struct nbd_reply` of include/uapi/linux/nbd.h.
fn serve_requests(mut server: UnixStream, file: &File) -> io::Result<()> {
    const REPLY: u32 = 0x6744_6698;
    const READ: u16 = 0;
    const WRITE: u16 = 1;
    loop {
        let mut request = [0; 28];
        server.read_exact(&mut request)?;
        let (head, at) = request.split_at(16);
        let kind = u16::from_be_bytes([head[6], head[7]]);
        let offset = u64::from_be_bytes(at[..8].try_into().expect("eight bytes"));
        let len = u32::from_be_bytes(at[8..].try_into().expect("four bytes"));
        let mut data = vec![0; if kind == READ || kind == WRITE { len as usize } else { 0 }];
        if kind == WRITE {
            server.read_exact(&mut data)?;
            file.write_all_at(&data, offset)?;
        }
        let mut reply = [&REPLY.to_be_bytes()[..], &[0; 4], &head[8..]].concat();
        if kind == READ {
            file.read_exact_at(&mut data, offset)?;
            reply.extend(data);
        }
        server.write_all(&reply)?;
    }
}
