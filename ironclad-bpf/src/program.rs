use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::{AsRawLibbpf, OpenProgramMut};

use crate::error::BpfError;
use crate::map::name_of;
use crate::sys;

/// A program that the kernel has verified and compiled.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    info: ProgramInfo,
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProgramInfo {
    /// The kernel's id.
    pub id: u32,
    /// The name, at most 15 characters.
    pub name: String,
    /// The kernel's digest over the instructions, in hexadecimal.
    pub tag: String,
    /// Ids of the maps that it uses, in no order.
    pub map_ids: Vec<u32>,
    /// Instructions that the verifier walked through, counting each visit (since Linux 5.16; else 0).
    pub verified_instructions: u32,
    /// Bytes of machine code; 0 where the JIT is off.
    pub jited_len: u32,
    /// Bytes of instructions after the verifier rewrote them.
    pub xlated_len: u32,
}

/// What a test run of a program on one packet gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned; of XDP, an `enum xdp_action`.
    pub retval: u32,
    /// The mean time of one run in nanoseconds, the harness's own about 25 included.
    pub duration_ns: u32,
}

impl Program {
    pub(crate) fn new(fd: OwnedFd) -> Result<Self, BpfError> {
        let info = program_info(fd.as_fd())
            .map_err(|source| BpfError::system("reading a program's info", source))?;
        Ok(Self { fd, info })
    }

    /// Runs an iterator through, and gives what it wrote.
    pub(crate) fn iterate(&self) -> Result<Vec<u8>, BpfError> {
        let failed = |source| BpfError::system("running an iterator", source);
        let link =
            sys::link_create(self.as_fd(), None, libbpf_sys::BPF_TRACE_ITER).map_err(failed)?;
        let file = File::from(sys::iter_create(link.as_fd()).map_err(failed)?);
        read_iterator(file).map_err(failed)
    }

    /// What the kernel says of it.
    pub fn info(&self) -> &ProgramInfo {
        &self.info
    }

    /// Runs the program on a packet without an interface, `repeat` times. It counts and reports as it
    /// does on real packets. A packet has at least 14 bytes, and at most a page less 576: 3,520 bytes.
    ///
    /// # Errors
    /// `BpfErrorKind::Limit` for a packet that is longer, and `BpfErrorKind::System` where the kernel refuses (needs `CAP_BPF` and, for XDP, `CAP_NET_ADMIN`).
    pub fn test_run(&self, packet: &[u8], repeat: u32) -> Result<TestRun, BpfError> {
        // From Linux 5.18 on, the program would see this much of the packet, and a length beyond its end.
        let most = rustix::param::page_size().saturating_sub(TEST_RUN_ROOM);
        if packet.len() > most {
            return Err(BpfError::limit(
                "bytes of a packet that runs without an interface",
                packet.len() as u64,
                most as u64,
            ));
        }
        let (retval, duration_ns) = sys::test_run(self.fd.as_fd(), packet, repeat)
            .map_err(|source| BpfError::system("BPF_PROG_TEST_RUN", source))?;
        Ok(TestRun { retval, duration_ns })
    }
}

/// What the kernel keeps free around such a packet in its page: XDP_PACKET_HEADROOM, and
/// `struct skb_shared_info` in whole cache lines.
const TEST_RUN_ROOM: usize = 256 + 320;

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads an iterator to its end. A read that has visited `MAX_ITER_OBJECTS` of kernel/bpf/bpf_iter.c (a million) objects
/// and written nothing fails with `EAGAIN`; the next read goes on where it stopped. The kernel walks through numbers of
/// processes and of descriptors in ascending order, so it comes to an end.
fn read_iterator(mut file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match file.read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// A new descriptor of a program whose object has been loaded.
pub(crate) fn clone_fd(program: &OpenProgramMut<'_>) -> Result<OwnedFd, BpfError> {
    // SAFETY: a program of an open object.
    let fd = unsafe { libbpf_sys::bpf_program__fd(program.as_libbpf_object().as_ptr()) };
    let failed = |source| BpfError::system("opening a loaded program", source);
    if fd < 0 {
        return Err(failed(io::Error::from_raw_os_error(-fd)));
    }
    // SAFETY: open for as long as the object, which `program` borrows.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map_err(failed)
}

pub(crate) fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let first = sys::info(fd, sys::zeroed::<libbpf_sys::bpf_prog_info>())?;
    let mut map_ids = vec![0u32; first.nr_map_ids as usize];
    let mut request = sys::zeroed::<libbpf_sys::bpf_prog_info>();
    request.nr_map_ids = first.nr_map_ids;
    request.map_ids = map_ids.as_mut_ptr() as u64;
    let info = sys::info(fd, request)?;
    map_ids.truncate(info.nr_map_ids as usize);
    Ok(ProgramInfo {
        id: info.id,
        name: name_of(&info.name),
        tag: info.tag.iter().map(|byte| format!("{byte:02x}")).collect(),
        map_ids,
        verified_instructions: info.verified_insns,
        jited_len: info.jited_prog_len,
        xlated_len: info.xlated_prog_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An iterator over objects of which few are written, as the kernel answers.
    struct Sparse(Vec<io::Result<&'static [u8]>>);

    impl Read for Sparse {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop().unwrap_or(Ok(b""))?;
            buffer[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    #[test]
    fn an_iterator_over_many_objects_is_read_to_its_end() {
        let again = || Err(io::Error::from(rustix::io::Errno::AGAIN));
        let answers = vec![again(), Ok(&b"23"[..]), again(), again(), Ok(&b"1"[..]), again()];
        assert_eq!(read_iterator(Sparse(answers)).unwrap(), b"123");
        let gone = || Err(io::Error::from(rustix::io::Errno::NODEV));
        let error = read_iterator(Sparse(vec![gone(), again(), Ok(b"1")])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()));
    }
}
