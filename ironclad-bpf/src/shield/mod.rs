//! The XDP firewall's programs and maps: loaded, shared, swapped. What they mean is the business
//! of `ironclad-shield`; here are descriptors, memory and the kernel's rules.

mod policy;
mod shared;

pub use policy::{PolicyConfig, PolicyImage, PolicyProgram, SetsBackend};
pub use shared::{Selector, Shared, SharedOptions};
