use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{BpfError, Failure};
use crate::persistent::LINK_PREFIX;
use crate::pin;
use crate::program::Program;
use crate::sys;

/// A program at a hook of the kernel: of a cgroup, of a tracepoint or of BPF LSM. Dropping
/// it detaches, unless it is pinned.
#[must_use = "dropping the link detaches the program"]
#[derive(Debug)]
pub struct HookLink {
    fd: OwnedFd,
    /// `<number>_<hook>`: no two links at one hook have the same number.
    name: String,
    pin: Option<PathBuf>,
}

impl HookLink {
    /// Attaches to a cgroup: for every process in it and in those below, beside other programs
    /// that are attached there. Needs Linux 5.7.
    pub(crate) fn cgroup(
        program: &Program,
        cgroup: BorrowedFd<'_>,
        attach_type: libbpf_sys::bpf_attach_type,
        name: &str,
    ) -> Result<Self, BpfError> {
        sys::link_create(program.as_fd(), Some(cgroup), attach_type)
            .map(|fd| Self { fd, name: name.to_owned(), pin: None })
            .map_err(failed(program, name))
    }

    /// Attaches to the tracepoint, or the hook of BPF LSM, that a program was loaded for.
    pub(crate) fn tracepoint(program: &Program, name: &str) -> Result<Self, BpfError> {
        sys::tracepoint_open(program.as_fd())
            .map(|fd| Self { fd, name: name.to_owned(), pin: None })
            .map_err(failed(program, name))
    }

    /// Opens a link that an earlier agent has pinned.
    pub(crate) fn open(path: &Path) -> Result<Self, BpfError> {
        let fd = sys::obj_get(path)
            .map_err(|source| BpfError::pin(path.to_owned(), "opening", source))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let name = name.strip_prefix(LINK_PREFIX).unwrap_or(&name).to_owned();
        Ok(Self { fd, name, pin: Some(path.to_owned()) })
    }

    /// The hook's name, e.g. `connect4`.
    pub fn hook(&self) -> &str {
        self.name.split_once('_').map_or(&self.name, |(_, hook)| hook)
    }

    /// The name of its pin.
    pub(crate) fn pin_name(&self) -> String {
        format!("{LINK_PREFIX}{}", self.name)
    }

    /// Whether the attachment outlives the process.
    pub fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    pub(crate) fn pin(&mut self, path: &Path) -> Result<(), BpfError> {
        pin::pin(self.fd.as_fd(), path)?;
        self.pinned_at(path);
        Ok(())
    }

    pub(crate) fn pinned_at(&mut self, path: &Path) {
        self.pin = Some(path.to_owned());
    }

    /// Replaces the program; the hook is never empty. For cgroups.
    pub(crate) fn replace(&self, program: &Program) -> Result<(), BpfError> {
        sys::link_update(self.fd.as_fd(), program.as_fd()).map_err(failed(program, &self.name))
    }

    /// The id of the cgroup; 0 where it was removed, `None` for a tracepoint's link.
    pub(crate) fn cgroup_id(&self) -> Result<Option<u64>, BpfError> {
        let info = sys::info(self.fd.as_fd(), sys::zeroed::<libbpf_sys::bpf_link_info>())
            .map_err(|source| BpfError::system("reading a link's info", source))?;
        // SAFETY: the kernel fills this member of the union for links of cgroups.
        let id =
            |info: libbpf_sys::bpf_link_info| unsafe { info.__bindgen_anon_1.cgroup.cgroup_id };
        Ok((info.type_ == libbpf_sys::BPF_LINK_TYPE_CGROUP).then(|| id(info)))
    }

    /// The id of the program.
    pub(crate) fn program_id(&self) -> Result<u32, BpfError> {
        sys::info(self.fd.as_fd(), sys::zeroed::<libbpf_sys::bpf_link_info>())
            .map(|info| info.prog_id)
            .map_err(|source| BpfError::system("reading a link's info", source))
    }

    /// Detaches at once, and removes the pin.
    ///
    /// # Errors
    /// `BpfErrorKind::Pin` where bpffs refuses; then it is still attached.
    pub fn detach(self) -> Result<(), BpfError> {
        if let Some(path) = self.pin {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(BpfError::pin(path, "removing", source));
                }
                _ => {}
            }
            // The kernel drops a pin's reference some time later. Links of tracepoints cannot be detached so,
            // and removed cgroups have nothing to detach from.
            let _ = sys::link_detach(self.fd.as_fd());
        }
        Ok(())
    }
}

impl AsFd for HookLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn failed(program: &Program, hook: &str) -> impl FnOnce(io::Error) -> BpfError + use<> {
    let (program, hook) = (program.info().name.clone(), hook.to_owned());
    move |source| Failure::Attach { program, hook, source }.into()
}
