//! Address lists and firewall policies, compiled to what the kernel looks packets up in.
//!
//! [`list`] reads address lists, [`Policy`] says what becomes of whose packets, and
//! [`CompiledPolicy`] is the outcome: the [flat table](FlatTable) or the keys of an `LPM_TRIE`, the
//! entries that they lead to, tuples, and an explanation for each verdict. Pure: no kernel, no root.
//! With the feature `feed` lists that change are kept on the disk, with `fetch` they are fetched.
//!
//! ```
//! use ironclad_core::{Action, RuleId, Verdict};
//! use ironclad_policy::{AddressSet, Policy};
//!
//! let policy = Policy::builder()
//!     .default_action(Verdict::Allow)
//!     .set(AddressSet::new(RuleId(1), "bad", Action::Drop).cidrs(["192.0.2.0/24".parse()?]))
//!     .set(AddressSet::new(RuleId(2), "ours", Action::Allow).cidrs(["192.0.2.7".parse()?]))
//!     .compile()?;
//! assert_eq!(policy.prefixes(), 2);
//! let why = policy.explain("192.0.2.7".parse()?);
//! assert_eq!(why.to_string(), "192.0.2.7: allow by rule 2 (`ours`): 192.0.2.7/32 from ours:1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "signed")]
pub mod bundle;
mod compile;
pub mod country;
mod diff;
#[cfg(feature = "document")]
pub mod document;
mod error;
mod explain;
#[cfg(all(unix, feature = "feed"))]
// Without a fetcher nothing writes to the cache.
#[cfg_attr(not(feature = "fetch"), allow(dead_code))]
pub mod feed;
pub mod file;
mod flat;
pub mod learn;
mod limits;
pub mod list;
mod part;
mod policy;
mod prefixes;
mod sha256;
pub mod socket;
mod time;
pub mod trust;
mod tuple;
mod warning;

pub use ironclad_core::{Protocol, SocketProtocol};

pub use compile::{CompiledPolicy, Provenance, Rule, Settings};
pub use diff::{Meaning, PolicyDiff, PrefixChange};
pub use error::{PolicyError, PolicyErrorKind};
pub use explain::{Cover, Explanation, PacketExplanation};
pub use flat::FlatTable;
pub use limits::{EVENTS_PER_SECOND, Limits, Memory, SocketMemory};
pub use list::AddressList;
pub use part::PolicyPart;
pub use policy::{AddressSet, Backend, Policy};
pub use sha256::{ChecksumError, Sha256Sum};
pub use trust::PolicySource;
pub use tuple::{PacketQuery, TupleRule};
pub use warning::PolicyWarning;
