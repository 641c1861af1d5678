//! Sentinel's programs at the hooks of BPF LSM, and their tables. See the crate `ironclad-sentinel`.
mod canary;
mod guard;
mod hooks;
mod labels;
mod pins;
mod provoke;
mod secret;

pub use canary::{Canary, canaries};
pub use guard::{Guard, GuardOptions};
pub use hooks::MissingHook;
pub use labels::FileTables;
pub use pins::GuardPins;
pub use secret::Secret;
