//! libbpf's own messages.
use std::cell::RefCell;
use std::sync::Once;

use libbpf_rs::{PrintLevel, set_print};

thread_local! {
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

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
            // The caller is C: a thread that is ending must not panic here.
            let _ = CAPTURED.try_with(|captured| {
                if let Some(text) = captured.borrow_mut().as_mut() {
                    text.push_str(message);
                    text.push('\n');
                }
            });
        })));
    });
}

/// Runs `f` and returns what libbpf said meanwhile on this thread.
pub(crate) fn captured<T>(f: impl FnOnce() -> T) -> (T, String) {
    to_tracing();
    CAPTURED.set(Some(String::new()));
    let result = f();
    (result, CAPTURED.take().unwrap_or_default())
}
