//! A sink of audit records that keeps them in memory, and that can break.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ironclad_core::audit::{AuditAction, AuditError, AuditSink};

#[derive(Default)]
pub(crate) struct Records {
    kept: Mutex<Vec<AuditAction>>,
    is_broken: AtomicBool,
}

impl Records {
    /// The records since the last call.
    pub(crate) fn take(&self) -> Vec<AuditAction> {
        std::mem::take(&mut self.kept.lock().unwrap())
    }

    pub(crate) fn breaks(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::SeqCst);
    }
}

impl AuditSink for Records {
    fn record(&self, instance: &str, action: &AuditAction) -> Result<(), AuditError> {
        assert_eq!(instance, "lab");
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(AuditError("the disk is full".to_owned()));
        }
        self.kept.lock().unwrap().push(action.clone());
        Ok(())
    }
}
