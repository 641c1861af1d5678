use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use ironclad_bpf::BpfError;
use ironclad_core::audit::AuditError;
use ironclad_core::{ErrorChain, InstanceNameError};
use ironclad_policy::PolicyPart;
use ironclad_policy::trust::{TrustError, TrustErrorKind};

/// Why a call of Sentinel failed. What was in force before is in force still.
///
/// [`Display`](fmt::Display) names what failed and the [next step](Self::hint); the cause is the
/// [source](Error::source). [`ErrorChain`] prints both on one line.
#[derive(Debug)]
pub struct SentinelError(Box<Failure>);

/// What kind of failure a [`SentinelError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SentinelErrorKind {
    /// The kernel refused a call, or pins are unusable: see [`SentinelError::bpf`].
    Bpf,
    /// The sink of audit records refused one. The action is done, or not begun.
    Audit,
    /// This process lacks privileges.
    NotPrivileged,
    /// A string is no name of an instance.
    Instance,
    /// This process has a Sentinel already.
    Already,
    /// Another program of BPF LSM refuses to let this process load programs: most likely another Sentinel is armed.
    Refused,
    /// The kernel refuses programs of BPF LSM, or programs that attach to functions.
    NoTrampolines,
    /// A rule or the builder names a script where it needs an executable.
    Script,
    /// Hooks are missing or inactive.
    Degraded,
    /// There was an agent of this instance, and the kernel does not let this process read its secret.
    NotTrusted,
    /// There was an agent of this instance, and the state directory has no secret.
    NoSecret,
    /// Another process has loaded a program that could bypass Sentinel.
    Suspect,
    /// A path of a rule cannot be protected.
    Path,
    /// A pattern of a rule is invalid.
    Pattern,
    /// The policy has a part that Sentinel does not enforce.
    Unenforced,
    /// Paths of rules change while a policy is applied.
    UnstablePaths,
    /// The baseline of protected files could not be read or written.
    Baseline,
    /// An unsigned policy was given where only signed bundles are accepted.
    Unsigned,
    /// A bundle or token was given where there is no trust store.
    NoTrust,
    /// A bundle is refused.
    Bundle,
    /// A bundle was verified and its serial is stored, but its policy is not in force.
    NotApplied,
    /// A break-glass token is refused.
    Token,
    /// Uninstalling needs a break-glass token.
    NotPermitted,
    /// The agent cannot be protected from the OOM killer.
    NoOomProtection,
    /// Another process traces the agent or PID 1.
    Traced,
    /// The agent has a controlling terminal, or the leader of its session can give it one.
    Terminal,
    /// The agent has a descriptor of a terminal whose secure attention key ends it.
    TerminalDescriptor,
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
    #[error("Sentinel needs root of the host with CAP_SYS_ADMIN, and this process {why}")]
    NotPrivileged { why: String },
    #[error(transparent)]
    Instance(InstanceNameError),
    #[error(transparent)]
    Trust(TrustError),
    #[error("this process has a Sentinel already")]
    Already,
    #[error(
        "this process is privileged, but another program of BPF LSM does not let it load programs ({program}), most likely that of another armed Sentinel"
    )]
    Refused { program: String },
    #[error("this kernel does not load Sentinel's programs: {reason}")]
    NoTrampolines { reason: String },
    #[error("{by}: `{}` is a script ({interpreter})", path.display())]
    Script { by: String, path: PathBuf, interpreter: String },
    #[error("operations are not protected: {}", what.join(", "))]
    Degraded { what: Vec<String> },
    #[error(
        "this process is not trusted to adopt the pins of an earlier agent: it may not read `{}`", state.display()
    )]
    NotTrusted { state: PathBuf },
    #[error(
        "an agent of instance `{instance}` has left its pins, and `{}` has no secret to adopt them with", state.display()
    )]
    NoSecret { instance: String, state: PathBuf },
    #[error("{program} (id {id}), {what}, was loaded before Sentinel and could bypass it")]
    Suspect { program: String, id: u32, what: String, next: String },
    #[error("{rule}: `{}` {what}", path.display())]
    Path { rule: String, path: PathBuf, what: String },
    #[error("{rule}: pattern `{pattern}`: {what}")]
    Pattern { rule: String, pattern: String, what: String },
    #[error("the policy has {}, which Sentinel does not enforce", in_policy(*part))]
    Unenforced { part: PolicyPart },
    #[error("paths of rules change faster than the policy is applied")]
    UnstablePaths,
    #[error("the baseline of protected files, `{}`, could not be read or written", path.display())]
    Baseline { path: PathBuf, source: io::Error },
    #[cfg(feature = "signed")]
    #[error("no break-glass token has permitted uninstalling: Sentinel is in force still")]
    NotPermitted,
    #[error(
        "/proc/self/oom_score_adj could not be set to -1000, so the OOM killer may end the agent"
    )]
    NoOomProtection(#[source] io::Error),
    #[error("this process has a controlling terminal, by which the kernel ends it: hang-up, ^C")]
    Terminal,
    #[error(
        "this process leads a process group of a session that another process leads, which may take a terminal"
    )]
    Session,
    #[error("{process} is traced by process {by}, which keeps its power over it")]
    Traced { process: &'static str, by: u32 },
    #[error(
        "descriptor {fd} of this process is `{}`, a terminal whose secure attention key (SAK) ends this process", path.display()
    )]
    TerminalDescriptor { fd: i32, path: PathBuf },
    #[error("a thread did not start")]
    Thread(#[source] io::Error),
}

impl Failure {
    fn kind(&self) -> SentinelErrorKind {
        use SentinelErrorKind as Kind;
        match self {
            Self::Bpf(_) => Kind::Bpf,
            Self::Audit(_) => Kind::Audit,
            Self::NotPrivileged { .. } => Kind::NotPrivileged,
            Self::Instance(_) => Kind::Instance,
            Self::Trust(error) => match error.kind() {
                TrustErrorKind::Unsigned => Kind::Unsigned,
                TrustErrorKind::NoStore => Kind::NoTrust,
                TrustErrorKind::Token => Kind::Token,
                TrustErrorKind::NotApplied => Kind::NotApplied,
                _ => Kind::Bundle,
            },
            Self::Already => Kind::Already,
            Self::Refused { .. } => Kind::Refused,
            Self::NoTrampolines { .. } => Kind::NoTrampolines,
            Self::Script { .. } => Kind::Script,
            Self::Degraded { .. } => Kind::Degraded,
            Self::NotTrusted { .. } => Kind::NotTrusted,
            Self::NoSecret { .. } => Kind::NoSecret,
            Self::Suspect { .. } => Kind::Suspect,
            Self::Path { .. } => Kind::Path,
            Self::Pattern { .. } => Kind::Pattern,
            Self::Unenforced { .. } => Kind::Unenforced,
            Self::UnstablePaths => Kind::UnstablePaths,
            Self::Baseline { .. } => Kind::Baseline,
            #[cfg(feature = "signed")]
            Self::NotPermitted => Kind::NotPermitted,
            Self::NoOomProtection(_) => Kind::NoOomProtection,
            Self::Terminal | Self::Session => Kind::Terminal,
            Self::Traced { .. } => Kind::Traced,
            Self::TerminalDescriptor { .. } => Kind::TerminalDescriptor,
            Self::Thread(_) => Kind::Thread,
        }
    }

    /// The next step for a person.
    fn hint(&self) -> Option<Cow<'_, str>> {
        let fixed: &'static str = match self {
            Self::Bpf(error) => return error.hint().map(Cow::Borrowed),
            Self::Suspect { next, .. } => {
                let start = "`.foreign_programs(OnSuspect::Report)` starts all the same";
                return Some(format!("{next}; {start}").into());
            }
            Self::NotPrivileged { .. } => "start it as root",
            Self::Already => {
                "`apply` changes its policy; another may be started once it is stopped or dropped"
            }
            Self::Refused { .. } => {
                "stop that Sentinel first, or start this process as its agent is started"
            }
            Self::NoTrampolines { .. } => {
                "use a kernel that loads programs of BPF LSM, where no other Sentinel refuses these types (`cargo run --example probe` shows what this kernel loads)"
            }
            Self::Script { .. } => {
                "the kernel identifies a process that runs it by the interpreter: name that, or make the script a program"
            }
            Self::Degraded { .. } => "`.dangerous(|it| it.degraded(true))` starts all the same",
            Self::NotTrusted { .. } => {
                "start it as the agent is always started, by the service manager and with nothing preloaded"
            }
            Self::NoSecret { .. } => {
                "name the state directory of that agent, `.state_dir(…)`; or stop the other Sentinel that is armed"
            }
            Self::Unenforced { part } => {
                return Some(
                    format!(
                        "give the policy to a Shield, too, and say `.unenforced([PolicyPart::{part:?}])` when Sentinel is built"
                    )
                    .into(),
                );
            }
            Self::UnstablePaths => "end the process that renames them, and try again",
            Self::Baseline { .. } => {
                "this process reads and replaces that file, and renames a damaged one beside it"
            }
            #[cfg(feature = "signed")]
            Self::NotPermitted => "call `break_glass` with a token that permits `uninstall` first",
            Self::NoOomProtection(_) => {
                "it needs CAP_SYS_RESOURCE; `.dangerous(|it| it.oom_kill(true))` starts without"
            }
            Self::Traced { .. } => "end the tracer: a debugger or strace(1)",
            Self::Terminal | Self::Session => {
                "start it by the service manager or by setsid(1); `.dangerous(|it| it.terminal(true))` starts all the same"
            }
            Self::TerminalDescriptor { .. } => {
                "redirect it to a file, a pipe, the journal or /dev/null; `.dangerous(|it| it.terminal_descriptors(true))` starts all the same"
            }
            // Their messages have it.
            Self::Audit(_)
            | Self::Instance(_)
            | Self::Trust(_)
            | Self::Path { .. }
            | Self::Pattern { .. }
            | Self::Thread(_) => return None,
        };
        Some(fixed.into())
    }
}

fn in_policy(part: PolicyPart) -> &'static str {
    match part {
        PolicyPart::Packets => "rules for packets",
        PolicyPart::Sockets => "rules for sockets",
        PolicyPart::Files => "rules for files",
        _ => "another part",
    }
}

impl SentinelError {
    pub(crate) fn failure(&self) -> &Failure {
        &self.0
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> SentinelErrorKind {
        self.0.kind()
    }

    /// The number of the operating system's error that is the cause, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self.failure() {
            Failure::Bpf(error) => error.errno(),
            other => {
                let nested =
                    ErrorChain::new(other).errors().find_map(|error| error.downcast_ref::<Self>());
                nested.map_or_else(|| ErrorChain::new(other).errno(), Self::errno)
            }
        }
    }

    /// The next step for a person, which [`Display`](fmt::Display) has in parentheses.
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        self.0.hint()
    }

    /// The error of the layer below, of kind [`SentinelErrorKind::Bpf`].
    pub fn bpf(&self) -> Option<&BpfError> {
        match self.failure() {
            Failure::Bpf(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for SentinelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = self.failure();
        match (failure, failure.hint()) {
            // It prints its hint itself.
            (Failure::Bpf(error), _) => write!(f, "{error}"),
            (_, Some(hint)) => write!(f, "{failure} ({hint})"),
            (_, None) => write!(f, "{failure}"),
        }
    }
}

impl Error for SentinelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure().source()
    }
}

impl From<Failure> for SentinelError {
    fn from(failure: Failure) -> Self {
        Self(Box::new(failure))
    }
}

impl From<BpfError> for SentinelError {
    fn from(error: BpfError) -> Self {
        Failure::Bpf(error).into()
    }
}

impl From<TrustError> for SentinelError {
    fn from(error: TrustError) -> Self {
        Failure::Trust(error).into()
    }
}

impl From<AuditError> for SentinelError {
    fn from(error: AuditError) -> Self {
        Failure::Audit(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_prints_once() {
        let source = io::Error::from_raw_os_error(28);
        let path = PathBuf::from("/state/baseline");
        let error = SentinelError::from(Failure::Baseline { path, source });
        assert_eq!((error.kind(), error.errno()), (SentinelErrorKind::Baseline, Some(28)));
        assert!(!error.to_string().contains("No space left"), "{error}");
        assert!(error.to_string().contains(&*error.hint().unwrap()), "{error}");
        let chain = ErrorChain::new(&error).to_string();
        assert!(chain.ends_with("): No space left on device (os error 28)"), "{chain}");
    }
}
