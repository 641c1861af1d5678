//! libbpf's own messages.
use std::sync::Once;

use libbpf_rs::{PrintLevel, set_print};

/// Sends libbpf's messages of this process to `tracing` instead of standard error; what matters of
/// them is in the errors.
pub(crate) fn to_tracing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_print(Some((PrintLevel::Info, |level, message| {
            let message = message.trim_end();
            match level {
                PrintLevel::Warn => tracing::debug!(target: "libbpf", "{message}"),
                _ => tracing::trace!(target: "libbpf", "{message}"),
            }
        })));
    });
}
