use std::fmt;

use serde::Serialize;

use super::load::Refused;
use crate::capabilities::Capabilities;

/// Whether the kernel can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It did it when it was tried, or says that it can.
    Available,
    /// It is missing, switched off or not configured.
    Unavailable,
    /// The kernel knows it and refuses it to this process, or on this machine.
    Refused,
    /// It could not be found out.
    Unknown,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Available => "available",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        })
    }
}

/// Something that the kernel can do, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Feature {
    /// What it is called.
    pub name: String,
    /// Whether the kernel can.
    pub state: State,
    /// Why not, and what to do; of an available feature what else there is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Feature {
    /// Whether the kernel can.
    pub fn is_available(&self) -> bool {
        self.state == State::Available
    }

    pub(super) fn available(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Available, reason: None }
    }

    pub(super) fn new(name: impl Into<String>, state: State, reason: impl Into<String>) -> Self {
        Self { name: name.into(), state, reason: Some(reason.into()) }
    }

    /// What the kernel's answer to a bpf(2) call means.
    pub(super) fn answer<T>(
        name: impl Into<String>,
        answer: Result<T, Refused>,
        capabilities: Capabilities,
    ) -> Self {
        match answer {
            Ok(_) => Self::available(name),
            Err(refused) => {
                let (state, reason) = refused.meaning(capabilities);
                Self::new(name, state, reason)
            }
        }
    }
}

/// A machine's words: what could not be loaded because something that it needs has no BTF.
pub(super) fn no_such_type(name: &str, what: &str) -> Feature {
    Feature::new(name, State::Unavailable, format!("the kernel's BTF has no {what}"))
}

impl Refused {
    fn meaning(&self, capabilities: Capabilities) -> (State, String) {
        let errno = self.source.raw_os_error().unwrap_or_default();
        let said = match self.last_line() {
            Some(line) => format!("{} ({line})", errno_name(errno)),
            None => errno_name(errno),
        };
        match errno {
            libc::EPERM | libc::EACCES => {
                let missing = capabilities.missing_for_programs();
                let why = if missing.is_empty() {
                    "although this process has the rights: this kernel, or the machine that runs \
                     it, forbids it"
                        .to_owned()
                } else {
                    format!("this process lacks {}: run as root or grant them", missing.join(", "))
                };
                (State::Refused, format!("refused by the kernel: {said}, {why}"))
            }
            libc::EINVAL | libc::ENOSYS | libc::E2BIG => {
                (State::Unavailable, format!("this kernel does not know it: {said}"))
            }
            ENOTSUPP | libc::EOPNOTSUPP => {
                (State::Unavailable, format!("this kernel is built without it: {said}"))
            }
            libc::ENOMEM => (
                State::Unknown,
                format!("{said}: out of memory, or over RLIMIT_MEMLOCK before Linux 5.11"),
            ),
            _ => (State::Unknown, format!("unexpected answer of the kernel: {said}")),
        }
    }

    /// The verifier's reason is the last thing that it says before its sums.
    fn last_line(&self) -> Option<&str> {
        self.log.lines().map(str::trim).rfind(|line| {
            !line.is_empty()
                && !line.starts_with("processed ")
                && !line.starts_with("verification time ")
                && !line.starts_with("stack depth ")
        })
    }
}

/// The kernel's own, which has no constant in user space.
const ENOTSUPP: i32 = 524;

fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::E2BIG => "E2BIG",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENOSPC => "ENOSPC",
        libc::ENOSYS => "ENOSYS",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        ENOTSUPP => "ENOTSUPP",
        _ => return format!("error {errno}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn feature(errno: i32, log: &str, capabilities: Capabilities) -> Feature {
        let source = io::Error::from_raw_os_error(errno);
        Feature::answer::<()>("x", Err(Refused { source, log: log.into() }), capabilities)
    }

    #[test]
    fn answers_have_their_meaning() {
        let (root, user) = (Capabilities::of_bits(u64::MAX), Capabilities::of_bits(0));
        assert!(Feature::answer("x", Ok(()), user).is_available());
        assert_eq!(feature(libc::EINVAL, "", root).state, State::Unavailable);
        assert_eq!(feature(ENOTSUPP, "", root).state, State::Unavailable);
        assert_eq!(feature(libc::EMFILE, "", root).state, State::Unknown);

        let refused = feature(libc::EPERM, "", root);
        assert_eq!(refused.state, State::Refused);
        assert!(refused.reason.unwrap().contains("EPERM, although"));
        let refused = feature(libc::EPERM, "", user);
        assert_eq!(refused.state, State::Refused);
        assert!(refused.reason.unwrap().contains("lacks CAP_BPF"));
    }

    #[test]
    fn the_verifiers_reason_is_kept() {
        let log = "0: (85) call bpf_x#7\nunknown func bpf_x#7\nprocessed 1 insns (limit 1000000)\n";
        let reason = feature(libc::EINVAL, log, Capabilities::of_bits(0)).reason.unwrap();
        assert!(reason.ends_with("EINVAL (unknown func bpf_x#7)"), "{reason}");
    }
}
