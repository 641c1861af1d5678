//! Ironclad defends a Linux host from inside the kernel with eBPF.
//!
//! This crate is the facade: it names the others, so that an agent depends on one.
//!
//! - [`policy`]: address lists and firewall policies, compiled.
//! - [`shield`]: the XDP firewall.
//! - [`sentinel`]: the integrity guard.
//! - [`events`]: what the kernel reports, decoded.
//! - [`bpf`]: loading, pins, links, the instruction audit, the feature probe.
//! - [`core`]: the shared vocabulary, audit records.
//!
//! ```no_run
//! use ironclad::core::{Action, RuleId};
//! use ironclad::policy::{AddressSet, Policy};
//! use ironclad::shield::Shield;
//!
//! let set = AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["192.0.2.0/24".parse()?]);
//! let policy = Policy::builder().set(set).compile()?;
//! let shield = Shield::builder("my-agent")
//!     .interface("eth0")
//!     .gateways(["10.0.0.1".parse()?])
//!     .start(&policy)?;
//! println!("{} packets dropped", shield.counters()?.dropped().packets);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub use ironclad_bpf as bpf;
pub use ironclad_core as core;
pub use ironclad_events as events;
pub use ironclad_policy as policy;
pub use ironclad_sentinel as sentinel;
pub use ironclad_shield as shield;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
