//! Shield: an XDP firewall that agents embed.
//!
//! A [`Shield`] protects interfaces by a [`CompiledPolicy`]. It is built once, shared between
//! threads, and given new policies while traffic flows. Needs Linux 5.10 with BTF, and `CAP_BPF`
//! and `CAP_NET_ADMIN`, or root.
//!
//! ```no_run
//! use ironclad_core::{Action, RuleId};
//! use ironclad_policy::{AddressSet, Policy};
//! use ironclad_shield::Shield;
//!
//! let policy = Policy::builder()
//!     .set(AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["192.0.2.0/24".parse()?]))
//!     .compile()?;
//! let shield = Shield::builder("my-agent").interface("eth0").start(&policy)?;
//! println!("{} packets dropped", shield.counters()?.dropped().packets);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bindings;
mod builder;
mod cgroups;
mod containers;
mod contents;
mod counters;
mod error;
mod files;
mod follow;
mod image;
mod process_context;
mod pump;
mod shield;
mod slots;
mod sockets;
mod trust;
mod watch;

pub use builder::ShieldBuilder;
pub use counters::{Count, Counters, LossCount, PrefixCount, ReasonCount, RuleCount};
pub use error::ShieldError;
pub use ironclad_bpf::{EventRing, Interface, TestRun, XdpMode};
pub use ironclad_events::{EventPump, EventReceiver, Overflow, Record, ShieldRecord, SocketRecord};
pub use ironclad_policy::{CompiledPolicy, Provenance};
pub use process_context::DescribedProcess;

pub use shield::{
    ExplainedEvent, ExplainedSocket, InterfaceChange, InterfaceStatus, Learning, Shield, Status,
};
pub use sockets::{PathChange, SocketCount};
