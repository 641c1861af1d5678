use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ironclad_core::audit::AuditError as SinkError;
use ironclad_core::{ErrorChain, GatewayError};

use crate::audit::Refusal;
use crate::capabilities::Capabilities;

/// Why a call of this crate failed.
///
/// [`Display`](fmt::Display) names what failed and the [next step](Self::hint); the cause is the
/// [source](Error::source). [`ErrorChain`] prints both on one line.
#[derive(Debug)]
pub struct BpfError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    failure: Failure,
    hint: Option<Cow<'static, str>>,
}

/// What kind of failure a [`BpfError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BpfErrorKind {
    /// An object could not be read, opened or prepared.
    Object,
    /// The instruction audit refused programs.
    Audit,
    /// A program in the kernel is not the one that was audited.
    Changed,
    /// The sink of audit records refused one.
    AuditSink,
    /// The kernel refused a program.
    Load,
    /// A map could not be created, read or written.
    Map,
    /// A map is not what its name says.
    ForeignMap,
    /// A ring buffer cannot have this size.
    RingSize,
    /// This process reads the ring buffer already.
    RingInUse,
    /// A program could not be attached to its hook.
    Attach,
    /// A link could not be read, updated or detached.
    Link,
    /// A pin could not be made, opened or removed.
    Pin,
    /// A pin directory is unusable as it is.
    PinDirectory,
    /// There is no such cgroup of version 2.
    NoCgroup,
    /// BPF LSM does not run.
    NoLsm,
    /// lockdown(7) keeps programs from reading the kernel's memory.
    LockedDown,
    /// There is no such interface.
    NoInterface,
    /// What the frames of an interface begin with is not known.
    LinkLayer,
    /// A gateway is not the address of a host.
    Gateway,
    /// A value is out of its range.
    Limit,
    /// Another system call failed.
    System,
}

/// What failed. `Display` is the context alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("eBPF object `{object}`: {step} failed")]
    Object { object: &'static str, step: &'static str, source: io::Error },
    #[error("the object {what}")]
    Unreadable { what: String },
    #[error("libbpf could not {step} the object")]
    Prepare { step: &'static str, source: LoggedError },
    #[error("refused by the audit: {0}")]
    Refused(Refusal),
    #[error("program `{program}` in the kernel is not the one that was audited: {what}")]
    Changed { program: String, what: String },
    #[error(transparent)]
    Sink(SinkError),
    #[error("the kernel refused program `{program}`")]
    Load { program: String, source: LoggedError },
    #[error("map `{map}`: {step} failed")]
    Map { map: String, step: &'static str, source: io::Error },
    #[error("map `{map}` is not Ironclad's: {what}")]
    ForeignMap { map: String, what: String },
    #[error("a ring buffer cannot have {bytes} bytes")]
    RingSize { bytes: u32 },
    #[error("ring buffer `{map}` has a reader in this process")]
    RingInUse { map: String },
    #[error("attaching `{program}` to {hook} failed")]
    Attach { program: String, hook: String, source: io::Error },
    #[error("link of interface `{interface}`: {step} failed")]
    Link { interface: String, step: &'static str, source: io::Error },
    #[error("pin `{}`: {step} failed", path.display())]
    Pin { path: PathBuf, step: &'static str, source: io::Error },
    #[error("pin directory `{}`: {what}", path.display())]
    PinDirectory { path: PathBuf, what: String },
    #[error("`{}` is no cgroup of version 2", path.display())]
    NoCgroup { path: PathBuf, source: Option<io::Error> },
    #[error("BPF LSM does not run here: {why}")]
    NoLsm { why: String },
    #[error("the kernel is locked down for confidentiality: programs may not read its memory")]
    LockedDown,
    #[error("no interface `{0}` in this network namespace")]
    NoInterface(String),
    #[error("interface `{interface}` is of a device that Shield cannot parse: {device}: {why}")]
    LinkLayer { interface: String, device: String, why: &'static str },
    #[error(transparent)]
    Gateway(GatewayError),
    #[error("{what}: {value} is over the limit of {limit}")]
    Limit { what: &'static str, value: u64, limit: u64 },
    #[error("{step} failed")]
    System { step: Cow<'static, str>, source: io::Error },
}

/// An error with the log that explains it: libbpf's or the verifier's. The log comes last, so that
/// the error number is not below some hundred lines.
#[derive(Debug)]
pub(crate) struct LoggedError {
    pub(crate) error: io::Error,
    pub(crate) log: String,
}

impl fmt::Display for LoggedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, log } = self;
        match log.trim_end() {
            "" => write!(f, "{error}"),
            log => write!(f, "{error}\n{log}"),
        }
    }
}

impl Error for LoggedError {}

impl Failure {
    fn kind(&self) -> BpfErrorKind {
        match self {
            Self::Object { .. } | Self::Unreadable { .. } | Self::Prepare { .. } => {
                BpfErrorKind::Object
            }
            Self::Refused(_) => BpfErrorKind::Audit,
            Self::Changed { .. } => BpfErrorKind::Changed,
            Self::Sink(_) => BpfErrorKind::AuditSink,
            Self::Load { .. } => BpfErrorKind::Load,
            Self::Map { .. } => BpfErrorKind::Map,
            Self::ForeignMap { .. } => BpfErrorKind::ForeignMap,
            Self::RingSize { .. } => BpfErrorKind::RingSize,
            Self::RingInUse { .. } => BpfErrorKind::RingInUse,
            Self::Attach { .. } => BpfErrorKind::Attach,
            Self::Link { .. } => BpfErrorKind::Link,
            Self::Pin { .. } => BpfErrorKind::Pin,
            Self::PinDirectory { .. } => BpfErrorKind::PinDirectory,
            Self::NoCgroup { .. } => BpfErrorKind::NoCgroup,
            Self::NoLsm { .. } => BpfErrorKind::NoLsm,
            Self::LockedDown => BpfErrorKind::LockedDown,
            Self::NoInterface(_) => BpfErrorKind::NoInterface,
            Self::LinkLayer { .. } => BpfErrorKind::LinkLayer,
            Self::Gateway(GatewayError::NoHost(_)) => BpfErrorKind::Gateway,
            Self::Gateway(_) => BpfErrorKind::Limit,
            Self::Limit { .. } => BpfErrorKind::Limit,
            Self::System { .. } => BpfErrorKind::System,
        }
    }

    fn errno(&self) -> Option<i32> {
        match self {
            Self::Load { source, .. } | Self::Prepare { source, .. } => source.error.raw_os_error(),
            other => ErrorChain::new(other).errno(),
        }
    }

    /// The next step for a person, where the failure alone determines it.
    fn hint(&self) -> Option<Cow<'static, str>> {
        let fixed: &'static str = match (self, self.errno()) {
            (Self::Changed { .. }, _) => {
                "unload it, and find out what changes programs in this process, such as a section handler registered with libbpf"
            }
            (Self::RingInUse { .. }, _) => {
                "drop the reader that there is, or take the events from it"
            }
            (Self::LockedDown, _) => {
                "boot again with `lockdown=integrity` or without `lockdown=`, and find out what wrote to /sys/kernel/security/lockdown"
            }
            (Self::NoInterface(_), _) => "`ip link` lists those there are",
            (Self::LinkLayer { .. }, _) => {
                "protect the interfaces that its packets arrive or leave by, or filter them with nftables"
            }
            (Self::NoCgroup { .. }, _) => "`mount -t cgroup2` shows where the hierarchy is",
            (Self::Prepare { .. }, Some(libc::ESRCH)) => {
                "this kernel lacks something that the object refers to"
            }
            // The verifier refuses with these numbers, too. Without CAP_PERFMON it allows less.
            (Self::Load { source, .. }, Some(libc::EACCES | libc::E2BIG))
                if !source.log.is_empty() =>
            {
                return Capabilities::effective().hint_for_verifier().map(Cow::from);
            }
            (Self::Map { map, .. }, Some(libc::E2BIG)) if map == "ic_labels" => {
                "the table is full: raise `.labels(…)`, or name fewer files"
            }
            (Self::Map { map, .. }, Some(libc::E2BIG)) if map == "ic_names" => {
                "the table is full: raise `.names(…)`, or name fewer files"
            }
            (Self::Map { map, .. }, Some(libc::E2BIG)) if map == "ic_mounts" => {
                "the table is full: unmount file systems above and below protected directories"
            }
            (_, Some(libc::EPERM | libc::EACCES)) => {
                return Some(Capabilities::effective().hint().into());
            }
            (_, Some(libc::ENOMEM | libc::E2BIG)) => {
                "out of memory or over a limit of this kernel: lower the policy's size, or raise RLIMIT_MEMLOCK before Linux 5.11"
            }
            _ => return None,
        };
        Some(fixed.into())
    }
}

impl BpfError {
    /// A system call that failed; `step` is what was tried, a gerund.
    ///
    /// For the crates that build on this one.
    pub fn system(step: impl Into<Cow<'static, str>>, source: io::Error) -> Self {
        Failure::System { step: step.into(), source }.into()
    }

    /// A directory that is no cgroup of version 2, and the next step for a person.
    ///
    /// For the crates that build on this one.
    pub fn no_cgroup(
        path: impl Into<PathBuf>,
        hint: impl Into<Cow<'static, str>>,
        source: Option<io::Error>,
    ) -> Self {
        Self::from(Failure::NoCgroup { path: path.into(), source }).with_hint(hint)
    }

    pub(crate) fn map(map: &str, step: &'static str, source: io::Error) -> Self {
        Failure::Map { map: map.to_owned(), step, source }.into()
    }

    pub(crate) fn pin(path: impl Into<PathBuf>, step: &'static str, source: io::Error) -> Self {
        Failure::Pin { path: path.into(), step, source }.into()
    }

    pub(crate) fn pin_directory(
        path: impl Into<PathBuf>,
        what: impl Into<String>,
        hint: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::from(Failure::PinDirectory { path: path.into(), what: what.into() }).with_hint(hint)
    }

    pub(crate) fn limit(what: &'static str, value: u64, limit: u64) -> Self {
        Failure::Limit { what, value, limit }.into()
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> BpfErrorKind {
        self.0.failure.kind()
    }

    /// The number of the operating system's error that is the cause, where there is one.
    pub fn errno(&self) -> Option<i32> {
        self.0.failure.errno()
    }

    /// The next step for a person, which [`Display`](fmt::Display) has in parentheses.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The end of the verifier's log, where the kernel refused a program and wrote one.
    pub fn verifier_log(&self) -> Option<&str> {
        match self.failure() {
            Failure::Load { source, .. } => Some(&*source.log).filter(|log| !log.is_empty()),
            _ => None,
        }
    }

    /// What the instruction audit refused, of [`BpfErrorKind::Audit`].
    pub fn refusal(&self) -> Option<&Refusal> {
        match self.failure() {
            Failure::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The pin directory that is unusable.
    pub(crate) fn unusable_directory(&self) -> Option<&Path> {
        match self.failure() {
            Failure::PinDirectory { path, .. } => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for BpfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { failure, hint } = &*self.0;
        match hint {
            Some(hint) => write!(f, "{failure} ({hint})"),
            None => write!(f, "{failure}"),
        }
    }
}

impl Error for BpfError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.failure.source()
    }
}

impl From<Failure> for BpfError {
    fn from(failure: Failure) -> Self {
        let hint = failure.hint();
        Self(Box::new(Inner { failure, hint }))
    }
}

impl From<SinkError> for BpfError {
    fn from(error: SinkError) -> Self {
        Failure::Sink(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_prints_once() {
        let source = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = BpfError::map("ic_x", "update", source);
        assert_eq!(error.to_string(), "map `ic_x`: update failed");
        assert_eq!((error.kind(), error.errno()), (BpfErrorKind::Map, Some(libc::ENOSPC)));
        let expected = "map `ic_x`: update failed: No space left on device (os error 28)";
        assert_eq!(ErrorChain::new(&error).to_string(), expected);
    }

    #[test]
    fn the_verifier_log_follows_the_error_number() {
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let source = LoggedError { error, log: "R1 is bad\n".to_owned() };
        let error = BpfError::from(Failure::Load { program: "ic_x".to_owned(), source });
        assert_eq!(error.errno(), Some(libc::EACCES));
        // Not as root, the hint says what this process lacks.
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        assert_eq!(error.to_string(), format!("the kernel refused program `ic_x`{hint}"));
        assert_eq!(error.verifier_log(), Some("R1 is bad\n"));
        let expected = format!("{error}: Permission denied (os error 13)\nR1 is bad");
        assert_eq!(ErrorChain::new(&error).to_string(), expected);
    }

    #[test]
    fn a_refused_system_call_has_the_next_step() {
        let error = BpfError::system("opening x", io::Error::from_raw_os_error(libc::EPERM));
        let hint = error.hint().unwrap();
        assert_eq!(error.to_string(), format!("opening x failed ({hint})"));
    }
}
