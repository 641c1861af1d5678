//! The cgroup hooks' programs and maps, and the table of processes that they ask. What they mean is
//! the business of `ironclad-shield`; here are descriptors, memory and the kernel's rules.

mod pins;
mod processes;
mod read;
mod shared;
mod slot;

pub use pins::SocketPins;
pub use processes::Processes;
pub use read::SlotTables;
pub use shared::{CgroupLinks, SocketOptions, SocketShared};
pub use slot::{InUse, SlotChange, SocketContent};
