use std::io;
use std::path::PathBuf;

use ironclad_core::audit::AuditError as SinkError;

use crate::audit::AuditError;

/// Why something of the kernel's could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BpfError {
    /// A program's object could not be opened or prepared.
    #[error("eBPF object `{object}`: {step} failed: {source}{}", hint_of(source))]
    Object {
        /// The object.
        object: &'static str,
        /// What was tried.
        step: &'static str,
        /// What libbpf or the kernel said.
        source: io::Error,
    },
    /// The kernel refused a program.
    #[error("the kernel refused program `{program}`: {source}{}\n{log}", hint_of(source))]
    Load {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
        /// The end of the verifier's log; empty where it wrote none.
        log: String,
    },
    /// A map could not be created, read or written.
    #[error("map `{map}`: {step} failed: {source}{}", hint_of(source))]
    Map {
        /// The map.
        map: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A ring buffer cannot have this size.
    #[error(
        "a ring buffer of {bytes} bytes cannot be made: give `ring_bytes` a power of two from {least} on, such as {fits}"
    )]
    RingSize {
        /// What was asked for.
        bytes: u32,
        /// The smallest size: a page.
        least: u32,
        /// The nearest size that is possible.
        fits: u32,
    },
    /// A map is not what its name says.
    #[error("map `{map}` is not Ironclad's: {what}")]
    ForeignMap {
        /// The map.
        map: String,
        /// What differs.
        what: String,
    },
    /// A program could not be attached to an interface.
    #[error(
        "attaching `{program}` to XDP of interface `{interface}` ({mode}) failed: {source}; {next}"
    )]
    Attach {
        /// The program.
        program: String,
        /// The interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        next: String,
    },
    /// A program could not be attached to a hook that is no interface's.
    #[error("attaching `{program}` to {hook} failed: {source}{}", hint_of(source))]
    AttachHook {
        /// The program.
        program: String,
        /// The hook, and where.
        hook: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no cgroup there.
    #[error("`{}` is no cgroup of version 2: {why}", path.display())]
    NoCgroup {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// BPF LSM, which something needs, does not run.
    #[error("BPF LSM does not run here: {why}")]
    NoLsm {
        /// Why, and what to do.
        why: String,
    },
    /// There is no such interface.
    #[error("no interface `{0}` in this network namespace: `ip link` lists those there are")]
    NoInterface(String),
    /// A link could not be read or given another program.
    #[error("link of interface `{interface}`: {step} failed: {source}")]
    Link {
        /// The interface.
        interface: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin could not be made, opened or removed.
    #[error("pin `{}`: {step} failed: {source}{}", path.display(), hint_of(source))]
    Pin {
        /// The path in bpffs.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin directory is unusable as it is.
    #[error("pin directory `{}`: {what}; {next}", path.display())]
    PinDirectory {
        /// The path in bpffs.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        next: &'static str,
    },
    /// A gateway is not the address of a host.
    #[error("`{0}` is no gateway: no host sends from it; name a unicast address, IPv4 as IPv4")]
    Gateway(std::net::IpAddr),
    /// A value is out of its range.
    #[error("{what}: {value} is over the limit of {limit}")]
    Limit {
        /// What it is a number of.
        what: &'static str,
        /// The number.
        value: u64,
        /// The most there may be.
        limit: u64,
    },
    /// The instruction audit refused a program, or found another one in the kernel.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The sink of audit records refused one.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Another call to the kernel failed.
    #[error("{step} failed: {source}{}", hint_of(source))]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The next step for a person, where the error number tells it.
fn hint_of(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM) | Some(libc::EACCES) => {
            " (needs CAP_BPF and CAP_NET_ADMIN, before Linux 5.8 CAP_SYS_ADMIN: run as root or grant them)"
        }
        Some(libc::ENOMEM) | Some(libc::E2BIG) => {
            " (out of memory or over a limit of this kernel: lower the policy's size, or raise RLIMIT_MEMLOCK before Linux 5.11)"
        }
        _ => "",
    }
}

impl BpfError {
    pub(crate) fn map(map: &str, step: &'static str, source: io::Error) -> Self {
        Self::Map { map: map.to_owned(), step, source }
    }

    /// The kernel's error number, where the kernel said no.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Object { source, .. }
            | Self::Load { source, .. }
            | Self::Map { source, .. }
            | Self::Attach { source, .. }
            | Self::Link { source, .. }
            | Self::Pin { source, .. }
            | Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
