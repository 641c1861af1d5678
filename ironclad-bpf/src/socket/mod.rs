//! The programs and maps of the cgroup hooks, those of BPF LSM for sockets that the cgroup hooks miss, and
//! the table of processes that all use. `ironclad-shield` gives them their meaning; here are descriptors,
//! memory and the kernel's rules.

#[cfg(feature = "shield")]
mod packets;
#[cfg(feature = "shield")]
mod persist;
mod pins;
mod processes;
#[cfg(feature = "shield")]
mod read;
#[cfg(feature = "shield")]
mod shared;
#[cfg(feature = "shield")]
mod slot;

#[cfg(feature = "shield")]
pub use packets::PacketSockets;
pub use pins::{Inherited, SocketPins};
pub use processes::{OpenFiles, Processes, SocketGroups};
#[cfg(feature = "shield")]
pub use read::SlotTables;
#[cfg(feature = "shield")]
pub use shared::{CgroupLinks, SocketOptions, SocketShared};
#[cfg(feature = "shield")]
pub use slot::{InUse, SlotChange, SocketContent};
