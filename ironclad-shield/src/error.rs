use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_core::audit::AuditError;
use ironclad_core::{ErrorChain, InstanceNameError};
use ironclad_policy::PolicyError;
use ironclad_policy::trust::{TrustError, TrustErrorKind};

/// Why a call of Shield failed. What was in force before is still in force.
///
/// [`Display`](fmt::Display) names what failed and the [next step](Self::hint); the cause is the
/// [source](Error::source). [`ErrorChain`] prints both on one line.
#[derive(Debug)]
pub struct ShieldError(Box<Failure>);

/// What kind of failure a [`ShieldError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShieldErrorKind {
    /// The kernel, or a pin, does not permit it: see [`ShieldError::bpf_error`].
    Bpf,
    /// The action was done, or not begun, but its audit record was refused.
    Audit,
    /// The policy does not fit this host.
    Policy,
    /// A string is not the name of an instance.
    InstanceName,
    /// A provisional policy waits for its confirmation.
    ProvisionalPending,
    /// There is no provisional policy to confirm or to revert.
    NotProvisional,
    /// The deadline has passed: the previous policy is in force again.
    Expired,
    /// A deadline is too short, or longer than the kernel's clock holds.
    Deadline,
    /// Shield was to start on no interface and no cgroup.
    NoInterface,
    /// An interface whose protection is to end is not protected.
    NotProtected,
    /// A string is no pattern of names.
    Pattern,
    /// A table that outlives policies is full.
    Slots,
    /// The policy has rules on files, or on packets where there is no interface: Shield does not enforce
    /// them, and the builder did not say that this is meant.
    Unenforced,
    /// Socket rules, or a cgroup for them, in a Shield that was started without cgroups.
    NoCgroup,
    /// The kernel does not call the hooks of that cgroup: its socket rules would decide nothing.
    Inactive,
    /// A process to explain does not exist.
    NoProcess,
    /// A file to explain by does not exist.
    NoFile,
    /// A socket rule names a script.
    Script,
    /// Directories that paths of rules lead through could not be watched.
    Watch,
    /// A rule names a container by a prefix that several cgroups have.
    Container,
    /// The policy decides about packet sockets, and BPF LSM does not run or cannot do so.
    PacketSockets,
    /// An unsigned policy, where signed bundles alone are accepted.
    Unsigned,
    /// A signed bundle, and there is no trust store.
    NoTrust,
    /// A bundle is not accepted: see [`ShieldError::trust_error`].
    Bundle,
    /// A bundle was verified and its serial is kept, but its policy did not come into force.
    NotApplied,
    /// A thread could not be started.
    Thread,
}

/// What failed. `Display` is the context alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Bpf(BpfError),
    #[error(transparent)]
    Audit(AuditError),
    #[error(transparent)]
    Policy(PolicyError),
    #[error(transparent)]
    InstanceName(InstanceNameError),
    #[error(transparent)]
    Trust(TrustError),
    #[error("a provisional policy is in force for another {left:?}")]
    ProvisionalPending { left: Duration },
    #[error("no provisional policy is in force")]
    NotProvisional,
    #[error("the provisional policy expired: the previous one is in force again")]
    Expired,
    #[error("a deadline of {0:?} is out of range")]
    Deadline(Duration),
    #[error("there is nothing to protect")]
    NoInterface,
    #[error(
        "interface `{interface}` of this network namespace is not protected; {}",
        protected(interfaces)
    )]
    NotProtected {
        interface: String,
        /// Those that are protected, in all network namespaces.
        interfaces: Vec<String>,
    },
    #[error("`{pattern}` is no pattern of interfaces' names")]
    Pattern { pattern: String, source: glob::PatternError },
    #[error("{needed} {what} need room, and the instance has room for {capacity}")]
    Slots { what: &'static str, next: &'static str, needed: usize, capacity: usize },
    #[error("the policy decides about packets, and Shield was started without an interface")]
    NoInterfaceForPackets,
    #[error("the policy has rules on files, which Sentinel enforces, and not Shield")]
    FileRules,
    #[error("Shield was started without cgroups, and socket rules need one")]
    NoCgroup,
    #[error("socket rules would be inactive in {}: {}", path.display(), INACTIVE_REASON)]
    Inactive { path: PathBuf },
    #[error("no process {pid}")]
    NoProcess { pid: u32, source: io::Error },
    #[error("file {} does not exist", path.display())]
    NoFile { path: PathBuf },
    #[error(
        "{rule}: {} is a script ({interpreter}), and the kernel knows a process that runs it by the \
         interpreter",
        path.display()
    )]
    Script {
        /// The first rule that names the file, with its position in the policy file.
        rule: String,
        path: PathBuf,
        /// The first line, as far as the kernel reads it.
        interpreter: String,
    },
    #[error("directories that paths of rules lead through cannot be watched")]
    Watch(#[source] io::Error),
    #[error("{rule}: container `{id}` may be any of {}", found.join(", "))]
    Container {
        /// The first rule that names it, with its position in the policy file.
        rule: String,
        id: String,
        /// Paths of cgroups.
        found: Vec<String>,
    },
    #[error("packet sockets would be unseen, but {decided_by} decides about them")]
    PacketSocketsUnseen {
        /// The rule, or the default.
        decided_by: String,
        source: BpfError,
    },
    #[error("{rule} limits packet sockets, which needs Linux 5.11")]
    PacketSocketsUnlimited { rule: String },
    #[error("a thread did not start")]
    Thread(#[source] io::Error),
}

/// Why hooks below the root cgroup are inactive.
pub(crate) const INACTIVE_REASON: &str = "since a process marked sockets by net_cls or net_prio, this \
     kernel calls the hooks of the root cgroup alone";
/// What to do then.
pub(crate) const INACTIVE_HINT: &str = "restart the host with cgroup_no_v1=net_cls,net_prio, or with \
     Linux 5.15 or 5.10.226; until then protect the root cgroup";

fn protected(interfaces: &[String]) -> String {
    match interfaces {
        [] => "no interface is".to_owned(),
        interfaces => format!("protected: `{}`", interfaces.join("`, `")),
    }
}

impl Failure {
    fn kind(&self) -> ShieldErrorKind {
        match self {
            Self::Bpf(_) => ShieldErrorKind::Bpf,
            Self::Audit(_) => ShieldErrorKind::Audit,
            Self::Policy(_) => ShieldErrorKind::Policy,
            Self::InstanceName(_) => ShieldErrorKind::InstanceName,
            Self::Trust(trust) => match trust.kind() {
                TrustErrorKind::Unsigned => ShieldErrorKind::Unsigned,
                TrustErrorKind::NoStore => ShieldErrorKind::NoTrust,
                TrustErrorKind::NotApplied => ShieldErrorKind::NotApplied,
                _ => ShieldErrorKind::Bundle,
            },
            Self::ProvisionalPending { .. } => ShieldErrorKind::ProvisionalPending,
            Self::NotProvisional => ShieldErrorKind::NotProvisional,
            Self::Expired => ShieldErrorKind::Expired,
            Self::Deadline(_) => ShieldErrorKind::Deadline,
            Self::Pattern { .. } => ShieldErrorKind::Pattern,
            Self::NoInterface => ShieldErrorKind::NoInterface,
            Self::NotProtected { .. } => ShieldErrorKind::NotProtected,
            Self::Slots { .. } => ShieldErrorKind::Slots,
            Self::NoInterfaceForPackets | Self::FileRules => ShieldErrorKind::Unenforced,
            Self::NoCgroup => ShieldErrorKind::NoCgroup,
            Self::Inactive { .. } => ShieldErrorKind::Inactive,
            Self::NoProcess { .. } => ShieldErrorKind::NoProcess,
            Self::NoFile { .. } => ShieldErrorKind::NoFile,
            Self::Script { .. } => ShieldErrorKind::Script,
            Self::Watch(_) => ShieldErrorKind::Watch,
            Self::Container { .. } => ShieldErrorKind::Container,
            Self::PacketSocketsUnseen { .. } | Self::PacketSocketsUnlimited { .. } => {
                ShieldErrorKind::PacketSockets
            }
            Self::Thread(_) => ShieldErrorKind::Thread,
        }
    }

    /// The next step for a person, where `Display` does not have it.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Pattern { .. } => Some("write `*` for any characters, as in `eth*`"),
            Self::ProvisionalPending { .. } => Some("confirm or revert it first"),
            Self::Expired => Some("apply it again"),
            Self::Deadline(_) => Some("give from 1 ms to 365 days"),
            Self::NoInterface => {
                Some("name an interface with `.interface(…)` or a cgroup with `.cgroup(…)`")
            }
            Self::Slots { next, .. } => Some(next),
            Self::NoInterfaceForPackets => Some(
                "name one with `.interface(…)` when Shield is built, or say \
                 `.unenforced([PolicyPart::Packets])` if that is meant",
            ),
            Self::FileRules => Some(
                "give the policy to a Sentinel, too, and say `.unenforced([PolicyPart::Files])` when \
                 Shield is built",
            ),
            Self::NoCgroup => Some(
                "name one with `.cgroup(…)` when Shield is built, or say \
                 `.unenforced([PolicyPart::Sockets])` if that is meant",
            ),
            Self::Inactive { .. } => Some(INACTIVE_HINT),
            Self::Script { .. } => Some("name the interpreter, or compile the script to a program"),
            Self::Watch(_) => Some(
                "raise fs.inotify.max_user_watches or max_user_instances; until then paths are \
                     looked up each second",
            ),
            Self::Container { .. } => Some("write more of its id, or name its cgroup by `cgroup`"),
            Self::PacketSocketsUnseen { .. } | Self::PacketSocketsUnlimited { .. } => Some(
                "repair that; or name other protocols in each rule of direction `create` and let its \
                 default allow; or permit it in the policy (`danger-packet-sockets-unseen: true`)",
            ),
            _ => None,
        }
    }
}

impl ShieldError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ShieldErrorKind {
        self.0.kind()
    }

    /// The number of the operating system's error that is the cause, where there is one.
    pub fn errno(&self) -> Option<i32> {
        // A refusal of the verifier has its number beside its log, and not in the chain.
        self.bpf_error().and_then(BpfError::errno).or_else(|| ErrorChain::new(self).errno())
    }

    /// The next step for a person, which [`Display`](fmt::Display) has in parentheses.
    pub fn hint(&self) -> Option<&str> {
        match &*self.0 {
            Failure::Bpf(error) => error.hint(),
            failure => failure.hint(),
        }
    }

    /// What `ironclad-bpf` reported, where that is the cause.
    pub fn bpf_error(&self) -> Option<&BpfError> {
        match &*self.0 {
            Failure::Bpf(error) | Failure::PacketSocketsUnseen { source: error, .. } => Some(error),
            Failure::Trust(error) => error.source()?.downcast_ref::<Self>()?.bpf_error(),
            _ => None,
        }
    }

    /// Why a policy or a bundle was not accepted, or did not come into force.
    pub fn trust_error(&self) -> Option<&TrustError> {
        match &*self.0 {
            Failure::Trust(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for ShieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.hint() {
            Some(hint) => write!(f, "{} ({hint})", self.0),
            None => self.0.fmt(f),
        }
    }
}

impl Error for ShieldError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl From<Failure> for ShieldError {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl From<BpfError> for ShieldError {
    fn from(error: BpfError) -> Self {
        Failure::Bpf(error).into()
    }
}

impl From<AuditError> for ShieldError {
    fn from(error: AuditError) -> Self {
        Failure::Audit(error).into()
    }
}

impl From<PolicyError> for ShieldError {
    fn from(error: PolicyError) -> Self {
        Failure::Policy(error).into()
    }
}

impl From<InstanceNameError> for ShieldError {
    fn from(error: InstanceNameError) -> Self {
        Failure::InstanceName(error).into()
    }
}

impl From<TrustError> for ShieldError {
    fn from(error: TrustError) -> Self {
        Failure::Trust(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_prints_once() {
        let no_space = || io::Error::from_raw_os_error(28);
        let error = ShieldError::from(Failure::Thread(no_space()));
        assert_eq!((error.kind(), error.errno()), (ShieldErrorKind::Thread, Some(28)));
        assert_eq!(error.to_string(), "a thread did not start");
        let expected = "a thread did not start: No space left on device (os error 28)";
        assert_eq!(ErrorChain::new(&error).to_string(), expected);

        let error = ShieldError::from(BpfError::system("opening x", no_space()));
        assert_eq!((error.kind(), error.errno()), (ShieldErrorKind::Bpf, Some(28)));
        let chain = ErrorChain::new(&error).to_string();
        assert_eq!(chain.matches("os error 28").count(), 1, "{chain}");
        assert_eq!(chain.matches("opening x").count(), 1, "{chain}");
    }

    #[test]
    fn every_kind_with_a_cause_has_its_number() {
        let cause = || io::Error::from_raw_os_error(13);
        let bpf = || BpfError::system("opening x", cause());
        for failure in [
            Failure::Bpf(bpf()),
            Failure::NoProcess { pid: 7, source: cause() },
            Failure::Watch(cause()),
            Failure::PacketSocketsUnseen { decided_by: "the default".to_owned(), source: bpf() },
            Failure::Thread(cause()),
        ] {
            let error = ShieldError::from(failure);
            assert_eq!(error.errno(), Some(13), "{error:?}");
            assert!(error.source().is_some(), "{error:?}");
            assert!(!error.to_string().contains("os error"), "{error}");
        }
        assert_eq!(ShieldError::from(Failure::Expired).errno(), None);
    }

    #[test]
    fn the_next_step_is_in_the_message() {
        let error = ShieldError::from(Failure::NoInterface);
        assert_eq!(
            error.to_string(),
            format!("there is nothing to protect ({})", error.hint().unwrap())
        );
        assert_eq!(error.kind(), ShieldErrorKind::NoInterface);
    }
}
