//! Audit records: what was done to the kernel and to feeds, by whom the agent is, one record per action.
//!
//! Every load, attach, pin, unpin, map write and policy swap, and every refresh of a feed that brought
//! a version or failed, passes an [`AuditAction`] to the
//! [`AuditSink`] that the embedder chose. `JsonLinesSink` (feature `audit-jsonl`, on Unix) keeps
//! them in a file of one JSON object a line:
//!
//! ```text
//! {"seq":1,"time":1767225600000000000,"instance":"edge","action":"confirm","generation":7,"prev":"0…0","hash":"5e…"}
//! ```
//!
//! | field | what it is |
//! |---|---|
//! | `seq` | 1 for the first record, then one more each |
//! | `time` | wall clock, nanoseconds since 1970 UTC; more digits than a double holds, and it may step back with the clock |
//! | `instance` | the Ironclad instance that acted; `audit` for the sink's own records |
//! | `action`, … | the [`AuditAction`] and its fields |
//! | `prev` | `hash` of the line before; 64 zeros in the first |
//! | `hash` | SHA-256 of the line's bytes up to, not including, `,"hash":`, in lower-case hexadecimal |
//!
//! # What the chain shows, and what not
//!
//! `verify` finds every edit, and every line that was removed, inserted, repeated or moved, as long
//! as one later line was left as it was. It holds no secret: a process that may write the file can compute
//! the chain anew from the line that they changed, or cut whole lines off its end, and what is left
//! is a sound chain. An `Anchor`, the number and hash of a record, kept where that person cannot
//! write (another host, a printout) shows both: hand it to `verify`.
//!
//! Without the crate, line N's own hash is checked by
//!
//! ```sh
//! sed -n 'Np' FILE | sed 's/,"hash":"[0-9a-f]*"}$//' | tr -d '\n' | sha256sum
//! ```

use std::path::Path;

mod action;
#[cfg(feature = "audit-jsonl")]
mod chain;
mod log;
#[cfg(all(feature = "audit-jsonl", unix))]
mod sink;
#[cfg(all(feature = "audit-jsonl", unix))]
mod tail;
#[cfg(feature = "audit-jsonl")]
mod verify;

pub use action::AuditAction;
#[cfg(feature = "audit-jsonl")]
pub use chain::{Anchor, AnchorError, AuditRecord, Digest, MAX_LINE};
pub use log::AuditLog;
#[cfg(all(feature = "audit-jsonl", unix))]
pub use sink::{DeferredSink, Durability, JsonLinesSink, OpenError, Recovered};
#[cfg(feature = "audit-jsonl")]
pub use verify::{Fault, Verified, VerifyError, verify, verify_file};

/// Where audit records go. Called from whatever thread acts, so it must not block for long.
///
/// # Errors
/// An error stops the action that was to be recorded, where it has not happened yet; where it has,
/// the error is returned to the caller with the action done.
pub trait AuditSink: Send + Sync {
    /// Records one action of an instance.
    ///
    /// # Errors
    /// Where the record could not be kept.
    fn record(&self, instance: &str, action: &AuditAction) -> Result<(), AuditError>;

    /// The file that the sink locks while it exists. Sentinel denies other processes to lock it. Default: none.
    fn locked_file(&self) -> Option<&Path> {
        None
    }
}

/// An audit record could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("audit record not kept: {0}")]
pub struct AuditError(pub String);

/// Keeps no record.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAudit;

impl AuditSink for NoAudit {
    fn record(&self, _instance: &str, _action: &AuditAction) -> Result<(), AuditError> {
        Ok(())
    }
}
