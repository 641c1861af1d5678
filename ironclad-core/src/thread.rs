use std::thread::Builder;

/// The default of Rust's own threads.
const STACK: usize = 2 << 20;

/// A thread with a name and a stack of 2 MiB. `RUST_MIN_STACK` of the environment, which may come from a service
/// manager that any of its users sets variables of, does not change that.
pub fn thread(name: &str) -> Builder {
    Builder::new().name(name.to_owned()).stack_size(STACK)
}
