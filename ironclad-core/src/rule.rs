use std::fmt;

use serde::{Deserialize, Serialize};

use crate::abi;

/// The number by which an administrator knows a rule; it stays the same from policy to policy, and
/// so do the rule's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleId(pub u32);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Action {
    /// The packet is dropped.
    Drop,
    /// The packet passes; no later stage of the same policy checks it.
    Allow,
    /// The packet is reported; other rules decide.
    Log,
}

impl Action {
    /// The action's number in the kernel; a log action decides nothing.
    pub const fn abi(self) -> u8 {
        match self {
            Action::Drop => abi::ACTION_DROP,
            Action::Allow => abi::ACTION_ALLOW,
            Action::Log => abi::ACTION_NONE,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Drop => "drop",
            Action::Allow => "allow",
            Action::Log => "log",
        })
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes on to the host.
    #[serde(alias = "pass")]
    Allow,
    /// It ends here.
    Drop,
}

impl Verdict {
    /// The verdict's number in the kernel.
    pub const fn abi(self) -> u8 {
        match self {
            Verdict::Allow => abi::VERDICT_PASS,
            Verdict::Drop => abi::VERDICT_DROP,
        }
    }

    /// The verdict of that number.
    pub const fn from_abi(number: u8) -> Option<Self> {
        match number {
            abi::VERDICT_PASS => Some(Verdict::Allow),
            abi::VERDICT_DROP => Some(Verdict::Drop),
            _ => None,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Allow => "allow",
            Verdict::Drop => "drop",
        })
    }
}

/// What becomes of a system call on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketVerdict {
    /// The call goes on.
    #[serde(alias = "pass")]
    Allow,
    /// The call fails with `EPERM`.
    #[serde(alias = "drop")]
    Deny,
}

impl SocketVerdict {
    /// The verdict's number in the kernel.
    pub const fn abi(self) -> u8 {
        match self {
            SocketVerdict::Allow => abi::VERDICT_PASS,
            SocketVerdict::Deny => abi::VERDICT_DROP,
        }
    }

    /// The verdict of that number.
    pub const fn from_abi(number: u8) -> Option<Self> {
        match number {
            abi::VERDICT_PASS => Some(SocketVerdict::Allow),
            abi::VERDICT_DROP => Some(SocketVerdict::Deny),
            _ => None,
        }
    }
}

impl fmt::Display for SocketVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SocketVerdict::Allow => "allow",
            SocketVerdict::Deny => "deny",
        })
    }
}

/// The identity of a compiled policy: SHA-256 over everything that the kernel is given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyId(pub [u8; 32]);

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
