//! The programs and maps of the cgroup hooks, those of BPF LSM for sockets that the cgroup hooks miss, and
//! the table of processes that all use. `ironclad-shield` gives them their meaning; here are descriptors,
//! memory and the kernel's rules.

mod packets;
mod persist;
mod pins;
mod processes;
mod read;
mod shared;
mod slot;

pub use packets::PacketSockets;
pub use pins::{Inherited, SocketPins};
pub use processes::{OpenFiles, Processes, SocketGroups};
pub use read::SlotTables;
pub use shared::{CgroupLinks, SocketOptions, SocketShared};
pub use slot::{InUse, SlotChange, SocketContent};
