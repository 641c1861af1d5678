//! Sentinel's programs at the hooks of BPF LSM, and their tables. See the crate `ironclad-sentinel`.
mod canary;
mod guard;
mod hooks;
mod labels;
mod load;
mod pins;
mod preopened;
mod provoke;
mod secret;

pub use canary::{Canary, canaries};
pub use guard::Guard;
pub use hooks::MissingHook;
pub use labels::FileTables;
pub use load::GuardOptions;
pub use pins::GuardPins;
pub use preopened::Census;
pub use secret::Secret;
