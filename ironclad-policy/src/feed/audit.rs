use std::fmt;
use std::sync::Arc;

use ironclad_core::audit::{AuditAction, AuditError, AuditSink};

/// Whose records are kept where.
pub(super) struct Audit {
    instance: String,
    sink: Arc<dyn AuditSink>,
}

impl Audit {
    pub(super) fn new(instance: &str, sink: Arc<dyn AuditSink>) -> Self {
        Self { instance: instance.to_owned(), sink }
    }

    pub(super) fn record(&self, action: &AuditAction) -> Result<(), AuditError> {
        self.sink.record(&self.instance, action)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").field("instance", &self.instance).finish_non_exhaustive()
    }
}
