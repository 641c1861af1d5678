//! Sentinel: an embeddable integrity guard.
//!
//! A [`Sentinel`] protects files by the file rules of a [`CompiledPolicy`]. It also protects the agent that
//! embeds it: its process, its executable, and the maps and programs that it creates. The kernel refuses
//! every process that is not trusted, root included. Needs Linux 5.10 with BTF, BPF LSM among the active security
//! modules (`bpf` in `lsm=` of the kernel's command line), and root.
//!
//! ```no_run
//! use ironclad_core::RuleId;
//! use ironclad_policy::Policy;
//! use ironclad_policy::file::{FileAction, FileRule};
//! use ironclad_sentinel::Sentinel;
//!
//! let config = FileRule::new(RuleId(1), "configuration", FileAction::Deny).tree("/etc/my-agent");
//! let policy = Policy::builder().file_rule(config).compile()?;
//! let sentinel = Sentinel::builder("my-agent").start(&policy)?;
//! for hook in sentinel.status()?.hooks {
//!     println!("{}: {}", hook.name, hook.state);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod backing;
mod baseline;
mod builder;
mod dangerous;
mod error;
mod explain;
mod inventory;
mod lookup;
mod oom;
mod own;
mod preopened;
mod privilege;
mod resolve;
mod secret_store;
mod sentinel;
mod status;
mod tables;
mod volumes;
mod watch;

pub use baseline::{
    BaselineOptions, BaselineReport, Change, Compared, FileChange, FileState, Progress, Unread,
};
pub use builder::{Launch, SentinelBuilder};
pub use dangerous::Dangerous;
pub use error::{SentinelError, SentinelErrorKind};
pub use explain::ExplainedAlarm;
pub use inventory::{Foreign, ForeignProgram, OnSuspect};
pub use ironclad_bpf::inventory::{Holder, LoadedProgram};
pub use ironclad_bpf::sentinel::Secret;
pub use ironclad_events::{EventPump, EventReceiver, Overflow, Record, SentinelRecord};
pub use ironclad_policy::{CompiledPolicy, PolicyPart, PolicySource, Provenance};
pub use preopened::{HeldFile, PreopenedDescriptor};
pub use sentinel::{Refreshed, Sentinel};
pub use status::{
    Degraded, HookState, HookStatus, KernelStatus, LossCount, Missing, MissingKind, Status,
};
pub use volumes::{MountOver, VolumeStatus};
pub use watch::Alarm;
