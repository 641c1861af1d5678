//! Loading tiny programs and making tiny maps, to see what the kernel says. Nothing is attached.
use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sys::check;
use crate::uapi::{AttachType, MapType, ProgramType};

/// Holds the log of a program of a few instructions.
const LOG_LEN: usize = 16 << 10;

/// r0 = 0; exit.
pub(crate) const RETURN_0: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// A program to try.
#[derive(Clone, Copy)]
pub(super) struct Trial<'a> {
    pub(super) program_type: ProgramType,
    pub(super) attach_type: AttachType,
    pub(super) insns: &'a [u8],
    /// The function that the program is for, in the kernel's BTF or that of `target`.
    pub(super) btf_id: u32,
    pub(super) target: Option<BorrowedFd<'a>>,
    /// BTF of the program, and in it the type of its function.
    pub(super) own_btf: Option<(BorrowedFd<'a>, u32)>,
    pub(super) flags: u32,
}

impl Trial<'static> {
    pub(super) fn of(program_type: ProgramType) -> Self {
        Self {
            program_type,
            attach_type: AttachType(0),
            insns: &RETURN_0,
            btf_id: 0,
            target: None,
            own_btf: None,
            flags: 0,
        }
    }
}

/// The kernel's answer to a program that it did not take.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) source: io::Error,
    /// What the verifier wrote.
    pub(super) log: String,
}

impl Trial<'_> {
    /// Loads the program. It goes away with its descriptor.
    pub(super) fn load(&self) -> Result<OwnedFd, Refused> {
        let mut log = vec![0u8; LOG_LEN];
        let function =
            self.own_btf.map(|(_, id)| libbpf_sys::bpf_func_info { insn_off: 0, type_id: id });
        let raw = |fd: Option<BorrowedFd<'_>>| fd.map_or(0, |fd| fd.as_raw_fd() as u32);
        let mut opts = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as _,
            expected_attach_type: self.attach_type.0,
            attach_btf_id: self.btf_id,
            attach_prog_fd: raw(self.target),
            prog_btf_fd: raw(self.own_btf.map(|(fd, _)| fd)),
            prog_flags: self.flags,
            log_level: 1,
            log_size: LOG_LEN as u32,
            log_buf: log.as_mut_ptr().cast::<c_char>(),
            ..Default::default()
        };
        if let Some(function) = &function {
            opts.func_info = (&raw const *function).cast();
            opts.func_info_cnt = 1;
            opts.func_info_rec_size = size_of_val(function) as u32;
        }
        // SAFETY: whole instructions, strings, log and function information outlive the call, which
        // returns a new descriptor.
        let loaded = unsafe {
            owned(libbpf_sys::bpf_prog_load(
                self.program_type.0,
                c"ic_probe".as_ptr(),
                c"GPL".as_ptr(),
                self.insns.as_ptr().cast(),
                (self.insns.len() / 8) as _,
                &mut opts,
            ))
        };
        loaded.map_err(|source| {
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
            Refused { source, log: log.to_string_lossy().into_owned() }
        })
    }
}

/// Loads a program of whole instructions that does nothing, for the sake of what the kernel says of it.
pub(crate) fn load_program(program_type: ProgramType, insns: &[u8]) -> io::Result<OwnedFd> {
    Trial { insns, ..Trial::of(program_type) }.load().map_err(|refused| refused.source)
}

/// A map to try.
pub(super) struct MapTrial<'a> {
    pub(super) map_type: MapType,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
    pub(super) inner: Option<BorrowedFd<'a>>,
    /// BTF with the types of key and value.
    pub(super) btf: Option<(BorrowedFd<'a>, u32, u32)>,
    /// The kernel's BTF type of a `struct_ops` map's value.
    pub(super) kernel_value: u32,
}

impl MapTrial<'_> {
    /// Makes the map. It goes away with its descriptor.
    pub(super) fn create(&self) -> io::Result<OwnedFd> {
        let raw = |fd: BorrowedFd<'_>| fd.as_raw_fd() as u32;
        let (btf, key, value) =
            self.btf.map_or((0, 0, 0), |(fd, key, value)| (raw(fd), key, value));
        let opts = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as _,
            btf_fd: btf,
            btf_key_type_id: key,
            btf_value_type_id: value,
            btf_vmlinux_value_type_id: self.kernel_value,
            inner_map_fd: self.inner.map_or(0, raw),
            map_flags: self.flags,
            ..Default::default()
        };
        // SAFETY: name and options outlive the call, which returns a new descriptor.
        unsafe {
            owned(libbpf_sys::bpf_map_create(
                self.map_type.0,
                c"ic_probe".as_ptr(),
                self.key_size,
                self.value_size,
                self.max_entries,
                &opts,
            ))
        }
    }
}

/// Gives the kernel type information.
pub(super) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: the bytes outlive the call; null options are allowed; returns a new descriptor.
    unsafe {
        owned(libbpf_sys::bpf_btf_load(btf.as_ptr().cast(), btf.len() as _, std::ptr::null_mut()))
    }
}

/// Queries which programs are attached to an interface by tcx. Changes nothing.
pub(super) fn query_tcx(ifindex: u32) -> io::Result<()> {
    let mut count = 0;
    // SAFETY: a null list with a count of zero returns the count only.
    check(unsafe {
        libbpf_sys::bpf_prog_query(
            ifindex as i32,
            AttachType::TCX_INGRESS.0,
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut count,
        )
    })?;
    Ok(())
}

/// Ids of the security modules that are active, from the kernel itself (Linux 6.8 and newer).
pub(super) fn security_modules() -> io::Result<Vec<u64>> {
    const LSM_LIST_MODULES: libc::c_long = 461;
    let mut ids = [0u64; 64];
    let mut size = size_of_val(&ids) as u32;
    // SAFETY: the kernel writes at most `size` bytes to the array, and the size to `size`.
    let count = unsafe { libc::syscall(LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut size, 0u32) };
    if count < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.into_iter().take(count as usize).collect())
}

/// Whether the kernel made machine code of a program.
pub(super) fn is_jited(program: &OwnedFd) -> io::Result<bool> {
    let info =
        crate::sys::info(program.as_fd(), crate::sys::zeroed::<libbpf_sys::bpf_prog_info>())?;
    Ok(info.jited_prog_len > 0)
}

/// # Safety
/// `ret` is either negative or a descriptor that nothing else owns.
unsafe fn owned(ret: i32) -> io::Result<OwnedFd> {
    let fd = check(ret)?;
    // SAFETY: by the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
