//! Ironclad defends a Linux host from inside the kernel with eBPF.
//!
//! This crate is the facade: it names the others, so that an agent depends on one.
//!
//! - [`policy`]: address lists and firewall policies, compiled.
//! - [`shield`]: the XDP firewall.
//! - [`events`]: what the kernel reports, decoded.
//! - [`bpf`]: loading, pins, links, the instruction audit, the feature probe.
//! - [`core`]: the shared vocabulary, audit records.
#![forbid(unsafe_code)]

pub use ironclad_bpf as bpf;
pub use ironclad_core as core;
pub use ironclad_events as events;
pub use ironclad_policy as policy;
pub use ironclad_shield as shield;
