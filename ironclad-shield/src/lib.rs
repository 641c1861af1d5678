//! Shield: an XDP firewall that agents embed.
//!
//! A [`Shield`] protects interfaces by a [`CompiledPolicy`]. It is built once, shared between
//! threads, and given new policies while traffic flows. Needs Linux 5.10 with BTF, and `CAP_BPF`,
//! `CAP_NET_ADMIN` and `CAP_PERFMON`, or root.
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

mod builder;
mod error;
mod shield;
mod slots;
mod sockets;

pub use builder::ShieldBuilder;
pub use error::{ShieldError, ShieldErrorKind};
pub use ironclad_bpf::{
    BPFFS, BpfError, BpfErrorKind, EventRing, Interface, LinkLayer, PinDirectory, TestRun, XdpMode,
};
pub use ironclad_events::{EventPump, EventReceiver, Overflow, Record, ShieldRecord, SocketRecord};
pub use ironclad_policy::trust::{TrustError, TrustErrorKind};
pub use ironclad_policy::{CompiledPolicy, PolicyPart, PolicySource, Provenance};
pub use shield::{
    ApplyOptions, CgroupStatus, Count, Counters, DescribedEvent, ExplainedEvent, ExplainedSocket,
    InterfaceChange, InterfaceStatus, Learning, LossCount, NamedRule, PrefixCount, ReasonCount,
    RuleCount, Shield, Status, UnprotectedInterface,
};
pub use sockets::process_context::DescribedProcess;
pub use sockets::{PathChange, SocketCount};
