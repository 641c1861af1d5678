//! The cgroup hooks' programs and maps, BPF LSM's for sockets that those do not see, and the table of
//! processes that all ask. What they mean is
//! the business of `ironclad-shield`; here are descriptors, memory and the kernel's rules.

mod packets;
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
