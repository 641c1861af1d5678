use std::fmt;
use std::time::Duration;

use ironclad_core::abi::OpenBefore;
use ironclad_policy::Provenance;
use serde::Serialize;

/// What Sentinel is and does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The instance.
    pub instance: String,
    /// Whether others are refused anything.
    pub is_armed: bool,
    /// Each hook of the kernel's that Sentinel knows.
    pub hooks: Vec<HookStatus>,
    /// The policy in force, in hexadecimal.
    pub policy: String,
    /// Whether somebody signed it.
    pub provenance: Provenance,
    /// For how long signals to the agent are let through, since a break-glass token said so.
    pub open_for: Option<Duration>,
    /// Files and directories that are known by what they are.
    pub labels: usize,
    /// Who had files open for writing when rules came into force that deny that.
    pub opened_before: Vec<OpenBefore>,
    /// Alarms that found no room in the ring buffer.
    pub alarms_lost: u64,
}

impl Status {
    /// Hooks that are not in force.
    pub fn degraded(&self) -> impl Iterator<Item = &HookStatus> {
        self.hooks.iter().filter(|hook| {
            matches!(hook.state, HookState::Silent(_) | HookState::Missing { is_optional: false })
        })
    }
}

/// A hook of BPF LSM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HookStatus {
    /// The kernel's name.
    pub name: String,
    /// What is known of it.
    pub state: HookState,
}

/// What is known of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HookState {
    /// It refused a call that was made to be refused.
    InForce,
    /// The program is attached; there is no harmless call to see it by.
    Attached,
    /// The program is attached, and a call that it was to refuse went through.
    Silent(String),
    /// This kernel has none.
    Missing {
        /// Whether another hook does its work there, or there is none to do.
        is_optional: bool,
    },
}

impl fmt::Display for HookState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce => f.write_str("in force"),
            Self::Attached => f.write_str("attached"),
            Self::Silent(why) => write!(f, "silent: {why}"),
            Self::Missing { is_optional: true } => f.write_str("not of this kernel"),
            Self::Missing { is_optional: false } => f.write_str("missing"),
        }
    }
}
