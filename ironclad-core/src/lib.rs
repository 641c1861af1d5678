//! The vocabulary that every Ironclad crate shares: prefixes, actions, rule ids, the kernel ABI and
//! audit records. No `unsafe`, no libbpf; builds on any operating system.
//!
//! ```
//! use ironclad_core::Cidr;
//!
//! let net: Cidr = "10.1.2.3/8".parse()?;
//! assert_eq!(net.to_string(), "10.0.0.0/8");
//! assert!(net.contains("10.200.0.1".parse().unwrap()));
//! # Ok::<(), ironclad_core::CidrError>(())
//! ```
#![forbid(unsafe_code)]

pub mod abi;
pub mod audit;
mod cidr;
mod error_chain;
mod gateway;
mod instance;
mod protocol;
mod rule;
mod thread;
pub mod uapi;
mod wall_time;

pub use cidr::{Cidr, CidrError, Family};
pub use error_chain::ErrorChain;
pub use gateway::GatewayError;
pub use instance::{InstanceName, InstanceNameError};
pub use protocol::{Protocol, SocketProtocol};
pub use rule::{Action, PolicyId, RuleId, SocketVerdict, Verdict};
pub use thread::thread;
pub use wall_time::WallTime;
