//! Socket rules: ordered rules on a process, an address, a port and a protocol.
//!
//! A [`SocketRule`] joins a [`Subject`] with addresses (names of [`AddressGroup`]s), ports,
//! protocols and a [`Direction`]. The first rule that matches decides. What a rule does not say
//! matches anything; several values of one kind are alternatives.
//!
//! ```
//! use ironclad_core::{RuleId, SocketVerdict};
//! use ironclad_policy::socket::{AddressGroup, Direction, SocketAction, SocketRule, Subject};
//! use ironclad_policy::{Policy, Protocol};
//!
//! let policy = Policy::builder()
//!     .addresses(AddressGroup::new("office").cidrs(["10.20.0.0/16".parse()?]))
//!     .socket_rule(
//!         SocketRule::new(RuleId(1), "updates", SocketAction::Allow)
//!             .subject(Subject::new("apt").exe("/usr/lib/apt/methods/https"))
//!             .to("office")
//!             .port(443)
//!             .protocol(Protocol::TCP),
//!     )
//!     .socket_default(Direction::Out, SocketVerdict::Deny)
//!     .compile()?;
//! assert_eq!(policy.sockets().unwrap().rules().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod addresses;
mod bits;
mod check;
mod compile;
mod dimensions;
mod explain;
mod image;
#[cfg(test)]
mod memory_tests;
mod packets;
mod pin;
mod query;
mod rule;
mod tables;
mod wheres;

pub(crate) use compile::digest;
pub use compile::{CompiledSockets, SocketRuleInfo};
pub use explain::{
    Decider, Dimension, ExplainedRule, RuleLimit, SocketExplanation, SocketTables, Standing,
    explain,
};
pub use image::{Bound, BoundFile, SocketImage};
pub use packets::PacketSockets;
pub use pin::SHA256_MISMATCH;
pub(crate) use query::effective_address;
pub use query::{Cgroups, ProcessContext, SocketQuery};
pub(crate) use rule::Sockets;
pub use rule::{AddressGroup, Direction, LimitScope, RateLimit, SocketAction, SocketRule, Subject};
pub use tables::ImageTables;
