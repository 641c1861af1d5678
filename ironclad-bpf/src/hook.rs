use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::BpfError;
use crate::program::Program;
use crate::sys;

/// A program at a hook of the kernel's, of a control group's or of a tracepoint. Dropping it
/// detaches.
#[must_use = "dropping the link detaches the program"]
#[derive(Debug)]
pub struct HookLink {
    fd: OwnedFd,
    name: &'static str,
}

impl HookLink {
    /// Attaches to a control group: for every process in it and in those below, beside what others
    /// have attached there. Needs Linux 5.7.
    pub(crate) fn cgroup(
        program: &Program,
        cgroup: BorrowedFd<'_>,
        attach_type: libbpf_sys::bpf_attach_type,
        name: &'static str,
    ) -> Result<Self, BpfError> {
        sys::link_create(program.as_fd(), Some(cgroup), attach_type)
            .map(|fd| Self { fd, name })
            .map_err(failed(program, name))
    }

    /// Attaches to the tracepoint that a program was loaded for.
    pub(crate) fn tracepoint(program: &Program, name: &'static str) -> Result<Self, BpfError> {
        sys::tracepoint_open(program.as_fd())
            .map(|fd| Self { fd, name })
            .map_err(failed(program, name))
    }

    /// The hook's name, e.g. `connect4`.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl AsFd for HookLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn failed(program: &Program, hook: &'static str) -> impl FnOnce(io::Error) -> BpfError {
    let program = program.info().name.clone();
    move |source| BpfError::AttachHook { program, hook: hook.to_owned(), source }
}
