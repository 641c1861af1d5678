//! What is measured: shared by the figures and the Criterion benches.

pub(crate) mod lists;
pub(crate) mod probes;
pub(crate) mod random;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
