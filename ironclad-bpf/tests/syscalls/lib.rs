//! System calls that tests make and that no safe crate offers. They are unsafe, which is why they are
//! here.

mod attack;
mod first_thread;
mod fork;
mod impostor;
mod lease;
mod option;
mod unspec;
mod uring;

#[cfg(target_arch = "x86_64")]
pub use attack::chattr_32;
pub use attack::{
    Handle, chattr, count, hello, load_lsm_program, load_program, map_to_write, prlimit, put_over,
    read_memory, signal_by_file, trace,
};
pub use first_thread::end_first_thread;
pub use fork::in_child;
pub use impostor::Impostor;
pub use lease::lease;
pub use option::set_option;
pub use unspec::send_to_unspec;
pub use uring::{Uring, uring_connect, uring_open, uring_send, uring_write};
