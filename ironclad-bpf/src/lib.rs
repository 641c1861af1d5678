//! Safe loading of Ironclad's eBPF programs. The only crate of the family with libbpf and `unsafe`.
//!
//! The programs of `bpf-src/` are compiled when the crate is packaged or built, and embedded in it: nothing is
//! read from disk at run time. [`shield`] loads the XDP firewall, [`XdpLink`] attaches it,
//! [`PinDirectory`] makes it outlive the process, [`EventRing`] reads what it reports.
//!
//! Everything here needs Linux 5.10 or newer with BTF (`/sys/kernel/btf/vmlinux`), `CAP_BPF` and
//! `CAP_NET_ADMIN`, or root.
//!
//! ```no_run
//! use ironclad_bpf::shield::{Shared, SharedOptions};
//! use ironclad_bpf::{Interface, XdpLink};
//!
//! // The dispatcher without a policy: everything passes.
//! let shared = Shared::load(SharedOptions::default())?;
//! let link = XdpLink::attach(shared.dispatcher(), &Interface::by_name("eth0")?)?;
//! println!("attached in {} mode", link.mode());
//! # Ok::<(), ironclad_bpf::BpfError>(())
//! ```

// What one of the products alone does not use.
#![cfg_attr(
    not(all(feature = "shield", feature = "sentinel")),
    allow(dead_code, unused_imports, unused_macros)
)]

#[cfg(all(test, feature = "shield", feature = "sentinel"))]
mod abi_tests;
pub mod audit;
#[cfg(feature = "bench")]
pub mod bench;
mod capabilities;
mod cgroup;
mod clock;
mod error;
mod hook;
mod interface;
pub mod inventory;
mod link;
mod link_layer;
mod link_watch;
mod loader;
mod log;
mod map;
mod mapping;
mod netlink;
pub mod paths;
mod persistent;
mod pin;
pub mod probe;
mod program;
pub mod pseudo_fs;
mod ring;
mod rtnetlink;
#[cfg(feature = "sentinel")]
pub mod sentinel;
#[cfg(feature = "shield")]
pub mod shield;
mod skel;
#[cfg(any(feature = "shield", feature = "sentinel"))]
pub mod socket;
mod sys;
mod terminal;
pub mod uapi;

pub use cgroup::{CgroupDir, cgroup_id};
pub use clock::{boottime_ns, wall_time};
pub use error::{BpfError, BpfErrorKind};
pub use hook::HookLink;
pub use interface::{Interface, XdpMode, network_namespace};
pub use link::{Displaced, XdpLink};
pub use link_layer::LinkLayer;
pub use link_watch::LinkWatch;
pub use map::{Map, MapInfo, Plain};
pub use pin::{BPFFS, PinDirectory};
pub use program::{Program, ProgramInfo, TestRun};
pub use ring::EventRing;
pub use sys::{keep_in_memory, private_directory};
pub use terminal::terminal_device;
