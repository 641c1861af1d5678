//! Network namespaces, veth pairs and packets for tests, examples and benchmarks.
//!
//! Everything is created inside new namespaces and removed again, also after a panic. The next [`Lab`] removes what a
//! killed process has left. Needs root and iproute2. [`harness`] runs the tests.
#![forbid(unsafe_code)]

mod cgroup;
mod command;
mod error;
pub mod harness;
pub mod init;
mod kills;
mod mounts;
mod netns;
pub mod packet;
mod sign;
mod socket;
mod terminal;
pub mod test_process;
mod thread;
mod warnings;

pub use cgroup::Cgroup;
pub use error::LabError;
pub use kills::moments_to_kill;
pub use mounts::Mounts;
pub use netns::{Lab, Namespace};
pub use sign::KeyPair;
pub use socket::PacketSocket;
pub use terminal::Terminal;
pub use thread::run_before_others;
pub use warnings::warnings;
