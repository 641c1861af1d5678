use std::time::Duration;

use ironclad_bpf::BpfError;
use ironclad_core::audit::AuditError;

/// Why Shield could not do what it was asked. Whatever was in force before is in force still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShieldError {
    /// The kernel, or what is pinned, does not let it.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The action was done, or not begun, but its audit record was refused.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A provisional policy waits for its confirmation.
    #[error("a provisional policy is in force for another {left:?}: confirm or revert it first")]
    ProvisionalPending {
        /// How long until the previous policy returns by itself.
        left: Duration,
    },
    /// There is nothing to confirm or to revert.
    #[error("no provisional policy is in force")]
    NotProvisional,
    /// The deadline has passed: the previous policy is in force again.
    #[error("the provisional policy expired: the previous one is in force again; apply it anew")]
    Expired,
    /// A provisional policy was asked for with no time, or with more than the kernel's clock holds.
    #[error("a deadline of {0:?} is none: give between 1 ms and 365 days")]
    Deadline(Duration),
    /// Shield was asked to start on no interface.
    #[error("no interface to protect: name at least one with `.interface(…)`")]
    NoInterface,
    /// There are more rules than counters.
    #[error("{rules} rules need counters, of which the instance has {slots}: let rules share ids")]
    RuleSlots {
        /// How many rules are in force or about to be.
        rules: usize,
        /// How many counters there are.
        slots: usize,
    },
    /// The thread that reads events could not be started.
    #[error("the event thread did not start: {0}")]
    Thread(std::io::Error),
}
