//! From an open object to loaded programs: prepare, audit, load, and the verifier's log where the
//! kernel refuses.
use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use libbpf_rs::{AsRawLibbpf, OpenObject};

use crate::audit::{self, Allowlist};
use crate::error::BpfError;
use crate::sys::check;

/// Room for the verifier's log of a refused program.
const LOG_LEN: usize = 8 << 20;
/// How much of the log's end an error carries: the verifier's reason is in the last lines.
const LOG_TAIL: usize = 16 << 10;

pub(crate) fn io_error(e: &libbpf_rs::Error) -> io::Error {
    // libbpf-rs keeps the number inside its own error.
    match e.kind() {
        libbpf_rs::ErrorKind::PermissionDenied => io::Error::from_raw_os_error(libc::EPERM),
        libbpf_rs::ErrorKind::NotFound => io::Error::from_raw_os_error(libc::ENOENT),
        libbpf_rs::ErrorKind::OutOfMemory => io::Error::from_raw_os_error(libc::ENOMEM),
        _ => io::Error::other(e.to_string()),
    }
}

/// What became of a step with an object that is not loaded yet.
pub(crate) fn failed(
    object: &'static str,
    step: &'static str,
) -> impl Fn(libbpf_rs::Error) -> BpfError {
    move |e| BpfError::Object { object, step, source: io_error(&e) }
}

/// The constants of an object that is not loaded yet.
pub(crate) fn constants<'a, T>(
    object: &'static str,
    section: &'a mut Option<&mut T>,
) -> Result<&'a mut T, BpfError> {
    section.as_deref_mut().ok_or_else(|| BpfError::Object {
        object,
        step: "finding its constants",
        source: io::Error::other("no .rodata"),
    })
}

/// Gives an object that is not loaded yet the maps that others have already, by their names. Maps
/// that it does not have are passed over.
pub(crate) fn share<'a>(
    name: &'static str,
    object: &mut OpenObject,
    maps: impl IntoIterator<Item = (&'a str, BorrowedFd<'a>)>,
) -> Result<(), BpfError> {
    let maps: Vec<_> = maps.into_iter().collect();
    for mut map in object.maps_mut() {
        if let Some((_, fd)) = maps.iter().find(|(shared, _)| map.name() == *shared) {
            map.reuse_fd(*fd).map_err(failed(name, "sharing a map"))?;
        }
    }
    Ok(())
}

/// Loads the object of a skeleton: everything is configured, nothing is in the kernel yet.
///
/// Programs that libbpf is not to load are passed over. Maps are created, addresses filled in and
/// CO-RE relocations done; then the instructions are audited, and only then does the kernel see
/// them. What it has loaded is compared with what was audited.
pub(crate) fn load(
    name: &'static str,
    object: &mut OpenObject,
    allowlist: &Allowlist,
) -> Result<(), BpfError> {
    let raw = object.as_libbpf_object().as_ptr();
    let failed = |step| move |source| BpfError::Object { object: name, step, source };
    let reports = audit::audit_prepared(object, allowlist)?;

    let mut logs: Vec<(*mut libbpf_sys::bpf_program, Vec<u8>)> = Vec::new();
    let mut program = std::ptr::null_mut();
    loop {
        // SAFETY: null or a program of this object.
        program = unsafe { libbpf_sys::bpf_object__next_program(raw, program) };
        if program.is_null() {
            break;
        }
        let mut log = vec![0u8; LOG_LEN];
        // SAFETY: the buffer's heap memory outlives the load below; moving the vector keeps it.
        check(unsafe {
            libbpf_sys::bpf_program__set_log_buf(program, log.as_mut_ptr().cast(), log.len() as _)
        })
        .map_err(failed("setting a log buffer"))?;
        logs.push((program, log));
    }
    // SAFETY: the object is prepared, and `&mut` excludes other users.
    let loaded = check(unsafe { libbpf_sys::bpf_object__load(raw) });
    let result = match loaded {
        Ok(_) => logs.iter().zip(&reports).filter(|(_, report)| report.is_loaded).try_for_each(
            |((program, _), report)| {
                // SAFETY: a program of a loaded object.
                let fd = unsafe { libbpf_sys::bpf_program__fd(*program) };
                check(fd).map_err(failed("opening a loaded program"))?;
                // SAFETY: open for as long as the object.
                let comparison =
                    audit::compare_loaded(unsafe { BorrowedFd::borrow_raw(fd) }, report)?;
                tracing::debug!(program = report.name, "audited: {comparison}");
                Ok(())
            },
        ),
        Err(source) => Err(refusal(source, &logs)),
    };
    for (program, _) in &logs {
        // SAFETY: a program of the object, which outlives this call; no buffer is no pointer.
        unsafe { libbpf_sys::bpf_program__set_log_buf(*program, std::ptr::null_mut(), 0) };
    }
    result
}

/// libbpf stops at the first program that is refused: the one whose log has been written last.
fn refusal(source: io::Error, logs: &[(*mut libbpf_sys::bpf_program, Vec<u8>)]) -> BpfError {
    let refused = logs.iter().rev().find(|(_, log)| log[0] != 0).or(logs.first());
    let Some((program, log)) = refused else {
        return BpfError::Load { program: String::new(), source, log: String::new() };
    };
    // SAFETY: a program of an open object has a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(libbpf_sys::bpf_program__name(*program)) };
    let text = CStr::from_bytes_until_nul(log).map(CStr::to_bytes).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(LOG_TAIL)..];
    BpfError::Load {
        program: name.to_string_lossy().into_owned(),
        source,
        log: String::from_utf8_lossy(tail).into_owned(),
    }
}
