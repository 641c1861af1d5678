//! A sink that keeps what it is given.

use std::sync::Mutex;

use ironclad_core::audit::{AuditAction, AuditError, AuditSink};

#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<AuditAction>>);

impl AuditSink for Recorder {
    fn record(&self, _instance: &str, action: &AuditAction) -> Result<(), AuditError> {
        self.0.lock().unwrap().push(action.clone());
        Ok(())
    }
}
