//! Events of the kernel programs: from bytes to typed values, and on to the agent's threads.
//!
//! [`decode`] reads a ring buffer's record in place; it never panics, whatever the bytes.
//! [`channel`] is bounded and leads to an agent's own threads; every loss on it is counted.
//!
//! ```
//! use ironclad_events::{Event, Overflow, channel, decode};
//!
//! let (sender, receiver) = channel(1024, Overflow::DropNewest)?;
//! sender.deliver(b"no event");
//! assert_eq!(sender.stats().undecodable, 1);
//! assert!(receiver.try_recv().is_none());
//! assert!(decode(b"no event").is_err());
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod channel;
mod decode;
mod pump;
mod record;
mod sentinel;
mod socket;
mod wake;

pub use channel::{EventReceiver, EventSender, IntoIter, Iter, Overflow, Stats, channel};
pub use decode::{DecodeError, Event, ShieldEvent, decode};
pub use pump::EventPump;
pub use record::{Record, ShieldRecord};
pub use sentinel::{SentinelEvent, SentinelRecord};
pub use socket::{SocketEvent, SocketRecord};
