//! Warnings by `tracing` during a closure.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// A thread's subscriber.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<String>>);

impl Warnings {
    fn text(&self) -> std::sync::MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Visit for Warnings {
    fn record_debug(&mut self, _field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text(), "{value:?}");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}
    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _span: &span::Id) {}
    fn exit(&self, _span: &span::Id) {}
}

/// Runs a closure. Returns its result, and the warnings of this thread meanwhile, each field on a line.
pub fn warnings<T>(work: impl FnOnce() -> T) -> (T, String) {
    let warnings = Warnings::default();
    let done = tracing::subscriber::with_default(warnings.clone(), work);
    let said = std::mem::take(&mut *warnings.text());
    (done, said)
}
